from pathlib import Path

from pytest_inference_gate.hookspecs import BackendExtension


def pytest_inference_gate_backends(config):
    return [BackendExtension("linear", ("fp32", "int8"), Path(__file__).parent / "linear_backend.py")]
