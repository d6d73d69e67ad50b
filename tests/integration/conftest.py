"""What the tests with whole sessions share, and what a process needs that holds many of them."""

import copy
import functools
import importlib
import os
import pkgutil
from pathlib import Path

import cpuinfo
import pytest
from hypothesis import HealthCheck, settings
from linear_suite import LinearProject

import pytest_inference_gate
from pytest_inference_gate.agent_process import AgentProcess

HERE = Path(__file__).parent

# As in the tests of units: how long an example takes says more of what else runs on this machine than of the example.
settings.register_profile("any_machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")

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


CPU_INFO = functools.cache(cpuinfo.get_cpu_info)  # pytest-benchmark asks in each session, and it takes a process of its own
take_a_canary = AgentProcess.canary
canaries = []


def first_canary(agent):
    """The reading that was taken first: half a second of a session of two is the canary's, which has tests of its own."""
    if not canaries:
        canaries.append(take_a_canary(agent))
    return copy.deepcopy(canaries[0])


@pytest.fixture
def settled_machine(monkeypatch):
    """What else this machine does while it runs tests takes no verdict back in sessions inside this process."""
    monkeypatch.setattr("pytest_inference_gate.machine.condition.load_by_others", lambda *_: None)
    monkeypatch.setattr("pytest_inference_gate.machine.condition.stolen_share", lambda *_: None)
    monkeypatch.setattr("pytest_inference_gate.device_gate.canary_shifts", lambda *_: ())
    monkeypatch.setattr("pytest_inference_gate.devices.Condition.problems", lambda *_: [])


@pytest.fixture
def linear_project(pytester, monkeypatch, settled_machine):
    monkeypatch.setattr("cpuinfo.get_cpu_info", CPU_INFO)
    monkeypatch.setattr(AgentProcess, "canary", first_canary)
    return LinearProject(pytester)
