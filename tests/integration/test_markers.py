"""Whole sessions with cases of devices that are here, are not here, or are taken to be here: what each marker selects and says."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate.accelerators import target_markers
from pytest_inference_gate.agent import device_facts, device_programs
from pytest_inference_gate.devices import DeviceIdentity

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "unit"))
from device_trees import TREES, build  # noqa: E402  # beside the unit tests, which read every one of them
from device_trees.boards import ORIN_NANO  # noqa: E402
from device_trees.computers import LAPTOP  # noqa: E402

CONFTEST = """
from pathlib import Path

from pytest_inference_gate.hookspecs import BackendExtension

MARKERS = {"linear_on_device": "jetson", "linear_on_tpu": "edgetpu", "linear_elsewhere": "dsp"}


def pytest_configure(config):
    config.addinivalue_line("markers", "dsp: cases that run on a DSP of our own")


def pytest_inference_gate_backends(config):
    here = Path(__file__).parent
    added = [BackendExtension(name, ("fp32", "int8"), here / "device_backend.py", marker) for name, marker in MARKERS.items()]
    return [BackendExtension("linear", ("fp32", "int8"), here / "linear_backend.py"), *added]
"""
NOT_A_JETSON = "this is no NVIDIA Jetson but a computer (LENOVO 20L5CTO1WW)"
NO_TPU = "no Coral Edge TPU is attached, neither on PCIe nor on USB"
NO_GPU = "no discrete NVIDIA GPU is attached"


class DeviceProject:
    """The linear project with backends for several devices; ``be(tree)`` makes agents take this machine for that of the tree."""

    def __init__(self, linear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.linear, self.path, self._monkeypatch = linear, linear.path, monkeypatch
        self.log = linear.path / "told.jsonl"
        (self.path / "conftest.py").write_text(CONFTEST)
        shutil.copy(HERE / "linear_project" / "device_backend.py", self.path)
        monkeypatch.setenv("LINEAR_DEVICE_LOG", str(self.log))
        self.be(LAPTOP)

    def be(self, tree: Any) -> None:
        folder = self.path / "device"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        root = str(build(folder, tree))
        self._monkeypatch.setenv("LINEAR_DEVICE_TREE", root)
        identity = DeviceIdentity.from_facts(device_facts.collect(root))
        self._monkeypatch.setattr("pytest_inference_gate.devices.local_identity", lambda: identity)

    def card(self, backends: dict[str, list[str]], more: str = "") -> None:
        self.linear.write_card()
        card = self.path / "models" / "linear.toml"
        table = "\n".join(f"{backend} = {json.dumps(precisions)}" for backend, precisions in backends.items())
        lines = [line for line in card.read_text().splitlines() if not line.startswith("backends = ")]
        card.write_text("\n".join([*lines, "[backends]", table, more, ""]))

    def run(self, *arguments: str) -> tuple[Any, dict[str, tuple[str, str]]]:
        result, document = self.linear.gate_json(*arguments)
        return result, {case["id"]: (case["verdict"], case["reason"]) for case in document["cases"]}

    def told(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def project(linear_project: Any, monkeypatch: pytest.MonkeyPatch) -> DeviceProject:
    return DeviceProject(linear_project, monkeypatch)


EVERYTHING = {
    "linear": ["fp32"],
    "linear_on_device": ["fp32"],
    "tensorflow": ["fp32"],
    "tensorrt": ["fp32", "int8"],
    "edgetpu": ["full_int8"],
}


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        (
            "jetson",
            dict.fromkeys(
                ("linear_on_device-fp32-b1-t1", "tensorflow-fp32-b1-t1-jetson", "tensorrt-fp32-b1-t1", "tensorrt-int8-b1-t1"),
                NOT_A_JETSON,
            ),
        ),
        ("edgetpu", {"edgetpu-full_int8-b1-t1": NO_TPU}),
        (
            "cuda",
            dict.fromkeys(("tensorflow-fp32-b1-t1-cuda", "tensorrt-fp32-b1-t1-cuda", "tensorrt-int8-b1-t1-cuda"), NO_GPU),
        ),
    ],
)
def test_on_a_machine_without_the_device_each_case_is_skipped_with_the_reason_and_the_run_is_red(
    project: DeviceProject, marker: str, expected: dict[str, str]
) -> None:
    project.card(EVERYTHING)
    (project.path / "models" / "linear.json").unlink()  # nothing may be fetched for a case that cannot run
    result, cases = project.run("-m", marker, "-rs")
    assert result.ret == 1
    assert cases == {f"linear-{case}": ("unsupported", reason) for case, reason in expected.items()}
    result.assert_outcomes(skipped=2 * len(expected), deselected=2 * (10 - len(expected)))
    text = result.stdout.str()
    assert set(expected.values()) == {reason for reason in (NOT_A_JETSON, NO_TPU, NO_GPU) if reason in text}
    assert "nothing was measured: each case was skipped" in text
    assert "none is supported on this machine, so nothing is gated" in text
    assert project.told() == []


def test_here_the_reason_is_that_of_this_very_machine(project: DeviceProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINEAR_DEVICE_TREE")
    states = target_markers(device_programs.complete(device_facts.collect()))
    if states["jetson"].present or states["edgetpu"].present:
        pytest.skip("this machine has such a device")
    project.card(EVERYTHING)
    result, cases = project.run("-m", "jetson or edgetpu")
    assert result.ret == 1
    assert {reason for _, reason in cases.values()} == {states["jetson"].reason, states["edgetpu"].reason}
    assert len(cases) == 5


def test_without_a_marker_what_can_run_runs_and_the_rest_shares_lines(project: DeviceProject) -> None:
    project.card(
        {**EVERYTHING, "tensorrt": ["fp32", "fp16", "int8"], "torch2trt": ["fp32", "fp16", "int8"], "tensorflow": ["fp32"]}
    )
    result, cases = project.run("--gate-select=*-linear*", "--gate-select=*-t*rt-*", "--gate-select=*-edgetpu-*")
    assert result.ret == 0
    assert [case for case, (verdict, _) in cases.items() if verdict == "pass"] == ["linear-linear-fp32-b1-t1"]
    text = " ".join(result.stdout.str().split())
    first = "linear-linear_on_device-fp32-b1-t1, linear-tensorrt-fp32-b1-t1, linear-tensorrt-fp16-b1-t1"
    assert f"7 cases ({first}, ...): unsupported: {NOT_A_JETSON}" in text
    assert "linear-tensorrt-fp32-b1-t1-cuda, linear-tensorrt-fp16-b1-t1-cuda, linear-tensorrt-int8-b1-t1-cuda, ...)" in text
    assert f"linear-edgetpu-full_int8-b1-t1: unsupported: {NO_TPU}" in text
    assert "1 of 15 cases (1 pass, 14 unsupported) measured, nothing compared" in text
    assert len(cases) == 15  # the result file keeps each of them


def test_where_the_device_is_a_case_goes_all_the_way_and_is_compared_with_its_baseline(project: DeviceProject) -> None:
    project.be(ORIN_NANO)
    project.card({"linear": ["fp32"], "linear_on_device": ["fp32"]}, "[options.linear_on_device]\nworkspace = 64")
    project.linear.record([0.004] * 40)
    project.linear.save("before", "-m", "jetson")
    (session,) = project.linear.sessions()
    assert session.parent.name.startswith("nvidia-jetson-orin-nano")
    (block,) = [one["extra_info"]["inference_gate"] for one in json.loads(session.read_text())["benchmarks"]]
    assert (block["id"], block["device"]) == ("linear-linear_on_device-fp32-b1-t1", "jetson")
    result, cases = project.run("-m", "jetson", "--benchmark-compare")
    assert result.ret == 0, result.stdout.str()
    assert [verdict for verdict, _ in cases.values()] == ["pass"]
    assert "device jetson" in " ".join(result.stdout.str().split())
    project.linear.record([0.04] * 40)
    result, cases = project.run("-m", "jetson", "--benchmark-compare")
    assert result.ret == 1
    assert [verdict for verdict, _ in cases.values()] == ["slower"]
    told = project.told()
    assert {what for what, *_ in told} == {"convert", "load"}
    assert {(device, json.dumps(options)) for _, device, options in told if _ == "load"} == {("cuda", '{"workspace": 64}')}


def test_options_and_device_are_what_an_artifact_is_made_of(project: DeviceProject) -> None:
    project.be(ORIN_NANO)
    for options in ("a = 1", "a = 1", "a = 2", ""):
        more = f"[options.linear_on_device]\n{options}" if options else ""
        project.card({"linear": ["fp32"], "linear_on_device": ["fp32"]}, more)
        assert project.run("-m", "jetson")[0].ret == 0
    converted = [(device, options) for what, device, options in project.told() if what == "convert"]
    assert converted == [("cuda", {"a": 1}), ("cuda", {"a": 2}), ("cuda", {})]


def test_a_build_that_is_made_again_continues_from_the_timing_cache_of_the_first(project: DeviceProject) -> None:
    from pytest_inference_gate.artifacts import ArtifactStore

    project.be(ORIN_NANO)
    store = ArtifactStore(project.linear.store)
    for wanted in ("true", "false"):
        more = f"[options.linear_on_device]\ntiming_cache = {wanted}"
        project.card({"linear": ["fp32"], "linear_on_device": ["fp32"]}, more)
        for _ in range(2):
            assert project.run("-m", "jetson")[0].ret == 0
            for entry in store.entries():
                if entry.kind == "artifact":
                    store.remove(entry.digest)
    first, again, *without = [options for what, _, options in project.told() if what == "convert"]
    (kept,) = [entry for entry in store.entries() if entry.kind == "timing-cache"]
    path = kept.payload / "timing.cache"
    assert first == {} and without == [{}, {}]
    assert again == {"timing_cache": {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}


def test_the_device_is_asked_for_before_the_runtime_and_then_the_runtime(project: DeviceProject) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    project.card({"linear": ["fp32"], "tensorrt": ["fp32"]})
    assert project.run("-m", "jetson")[1] == {"linear-tensorrt-fp32-b1-t1": ("unsupported", NOT_A_JETSON)}
    project.be(ORIN_NANO)
    project.card({"linear": ["fp32"], "linear_on_device": ["fp32"], "tensorrt": ["fp32"]})
    result, cases = project.run("-m", "jetson or cuda")
    assert result.ret == 0
    assert cases["linear-linear_on_device-fp32-b1-t1"][0] == "pass"
    assert cases["linear-tensorrt-fp32-b1-t1"] == ("unsupported", "TensorRT is not installed")
    reason = "the GPU of a Jetson is no discrete one: its cases have the marker jetson"
    assert cases["linear-tensorrt-fp32-b1-t1-cuda"] == ("unsupported", reason)


def test_an_edge_tpu_is_what_its_cases_are_told_to_use(project: DeviceProject) -> None:
    project.be(TREES["x86-coral-pcie"])
    project.card({"linear": ["fp32"], "linear_on_tpu": ["int8"]})
    assert project.run("-m", "edgetpu")[0].ret == 0
    assert ["load", "edgetpu", {}] in project.told()


def test_a_marker_that_a_suite_registers_has_no_device_to_be_looked_for(project: DeviceProject) -> None:
    project.card({"linear": ["fp32"], "linear_elsewhere": ["fp32"]})
    result, cases = project.run("-m", "dsp")
    assert result.ret == 0
    assert [(case, verdict) for case, (verdict, _) in cases.items()] == [("linear-linear_elsewhere-fp32-b1-t1", "pass")]


def test_a_card_that_limits_devices_has_no_other_cases(project: DeviceProject) -> None:
    project.card({"linear": ["fp32"], "tensorflow": ["fp32"]}, '[devices]\ntensorflow = ["cuda"]')
    result = project.linear.run("--collect-only", "-q")
    listed = [line.partition("[")[2] for line in result.stdout.lines if "test_latency[" in line]
    assert listed == ["linear-linear-fp32-b1-t1]", "linear-tensorflow-fp32-b1-t1-cuda]"]
