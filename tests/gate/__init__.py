"""The suite: two tests for each case. Installed, it is `pytest --pyargs pytest_inference_gate.suite`."""
