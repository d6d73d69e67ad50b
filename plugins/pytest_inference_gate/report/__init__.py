"""What people and programs get to see of a run: the terminal's table, messages of failing tests, the result file.

Everything here turns a :class:`~pytest_inference_gate.results.RunResult` into text; nothing here measures or decides.
"""
