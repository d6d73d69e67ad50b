"""What the tests with whole sessions share, and what a process needs that holds many of them."""

import importlib
import os
import pkgutil
from pathlib import Path

import pytest
from linear_suite import LinearProject

import pytest_inference_gate

HERE = Path(__file__).parent

# The sessions that the tests start are no workers, though the process that starts them may be one, where pytest-benchmark records nothing.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
    os.environ.pop(name, None)

# Sessions inside this process forget the modules that they import, while the package still holds them as attributes: without this, a
# second session would meet two copies of one class, and an `except` that does not catch.
for module in pkgutil.walk_packages(pytest_inference_gate.__path__, "pytest_inference_gate."):
    if not module.name.startswith(
        ("pytest_inference_gate.agent.", "pytest_inference_gate.models", "pytest_inference_gate.suite")
    ):
        importlib.import_module(module.name)
# The same goes for what the plugin imports where it is needed: a second `http.cookiejar` is not the one that requests knows.
for name in ("http.cookiejar", "PIL.Image", "pooch", "psutil", "requests", "tabulate"):
    importlib.import_module(name)


@pytest.fixture
def linear_project(pytester, monkeypatch):
    # What else this machine does while it runs tests must not take a verdict back: load and canary have tests of their own.
    monkeypatch.setattr("pytest_inference_gate.machine_condition.load_by_others", lambda *_: None)
    monkeypatch.setattr("pytest_inference_gate.machine_condition.stolen_share", lambda *_: None)
    monkeypatch.setattr("pytest_inference_gate.device_gate.canary_shifts", lambda *_: ())
    return LinearProject(pytester)
