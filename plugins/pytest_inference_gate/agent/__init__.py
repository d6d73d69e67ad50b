"""The agent: the separate process in which every ML framework lives.

It converts, loads, predicts and measures; nothing of it runs in the pytest process but :mod:`protocol`, which both sides share. It has
to run on boards whose Python is 3.6 and where nothing can be installed, so it uses that syntax, the standard library, NumPy and the one
runtime at hand, and imports nothing of the rest of the plugin.
"""
