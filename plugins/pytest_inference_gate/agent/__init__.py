"""The agent: the separate process in which every ML framework lives.

It converts, loads, predicts and measures. Nothing of it runs in the pytest process but what both sides share and no framework is asked for,
such as :mod:`protocol` and :mod:`detection_decoding`. It has to run on boards whose Python is 3.6 and where nothing can be installed, so it
uses that syntax, the standard library, NumPy and the one runtime at hand, and imports nothing of the rest of the plugin.
"""
