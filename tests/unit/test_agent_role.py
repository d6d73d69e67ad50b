"""What a target cannot do is told in one sentence: first that the device is missing, then the backend, then what the backend lacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_inference_gate.agent_role import AgentRole
from pytest_inference_gate.cases import Case
from pytest_inference_gate.outcome import StageFailed

ORIN = {"machine": "aarch64", "board": "NVIDIA Jetson Orin Nano", "jetson": {"l4t": "36.4.0"}, "edge_tpus": [], "gpus": []}
DEVICES = {"jetson": ORIN, "nothing": {"machine": "x86_64", "edge_tpus": [], "gpus": []}}
ABLE = {"can_convert": True, "can_run": True, "precisions_convert": ["fp32"], "precisions_run": ["fp32"]}


def reason(backends: dict[str, Any], device: str, of_case: str, *, convert: bool = False, precision: str = "fp32") -> str:
    """Why the case is unsupported; empty where it is not."""
    target: Any = SimpleNamespace(name="the board")
    nothing: Any = None
    probe = {"backends": backends, "device": DEVICES[device]}
    role = AgentRole(target, nothing, Path("logs"), nothing, probe)
    card: Any = SimpleNamespace(name="m", checkpoint=SimpleNamespace(format="onnx", architecture=None))
    try:
        role.require(Case(card, "tensorrt", precision, device=of_case), convert=convert)
    except StageFailed as failure:
        outcome = failure.outcome
    else:
        return ""
    assert (outcome.kind, outcome.stage) == ("unsupported", "convert" if convert else "load")
    return outcome.message


NOT_INSTALLED = {"tensorrt": {**ABLE, "can_run": False, "can_convert": False, "reason": "TensorRT is not installed"}}


@pytest.mark.parametrize("backends", [{}, NOT_INSTALLED, {"tensorrt": ABLE}])
def test_a_missing_device_comes_first(backends: dict[str, Any]) -> None:
    assert reason(backends, "nothing", "jetson") == "nothing here shows an NVIDIA Jetson"
    assert reason(backends, "nothing", "cuda") == "no discrete NVIDIA GPU is attached"
    assert "marker jetson" in reason(backends, "jetson", "cuda")


def test_where_the_device_is_the_backend_is_asked() -> None:
    assert reason({}, "jetson", "jetson") == "this agent has no backend 'tensorrt'"
    assert reason(NOT_INSTALLED, "jetson", "jetson") == "TensorRT is not installed"
    assert reason({"tensorrt": ABLE}, "jetson", "jetson", precision="fp16") == "tensorrt has no precision fp16"
    assert reason({"tensorrt": ABLE}, "jetson", "jetson") == ""


def test_converting_takes_no_device() -> None:
    assert reason({"tensorrt": ABLE}, "nothing", "jetson", convert=True) == ""
    assert reason({}, "nothing", "jetson", convert=True) == "this agent has no backend 'tensorrt'"


@pytest.mark.parametrize("marker", ["cpu", "dsp"])
def test_the_processor_is_always_there_and_of_a_suite_s_own_marker_nothing_is_known(marker: str) -> None:
    assert reason({"tensorrt": ABLE}, "nothing", marker) == ""
