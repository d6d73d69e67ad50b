import os
from pathlib import Path

from pytest_inference_gate.hookspecs import BackendExtension


def pytest_inference_gate_backends(config):
    module = Path(__file__).parent / "linear_backend.py"
    return [BackendExtension("linear", ("fp32", "int8"), module, builds_on_device=bool(os.environ.get("LINEAR_BUILT_ON_DEVICE")))]
