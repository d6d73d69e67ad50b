"""The suite: two tests for each case, and one for each stream. Installed, it is `pytest --pyargs pytest_inference_gate.suite`."""
