"""What is built where, of what, and when a run says that it was built anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_inference_gate.agent.bundle_runner import why_not
from pytest_inference_gate.agent_role import AgentRole
from pytest_inference_gate.artifacts import StoredArtifact
from pytest_inference_gate.cases import Case
from pytest_inference_gate.intermediates import choose_intermediate, choose_portable
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.rebuilt_engines import Rebuilt, earlier_build, rebuilt_remarks


def role(name: str, **source_formats: list[str]) -> AgentRole:
    backends = {
        backend: {"can_convert": True, "precisions_convert": ["fp32"], "source_formats": formats}
        for backend, formats in source_formats.items()
    }
    target = cast(Any, SimpleNamespace(name=name))
    return AgentRole(target, cast(Any, None), Path(), cast(Any, None), {"backends": backends})


def case(backend: str, source: str, architecture: Any = None) -> Case:
    checkpoint = SimpleNamespace(format=source, architecture=architecture)
    return Case(cast(Any, SimpleNamespace(name="m", checkpoint=checkpoint)), backend, "fp16", 4)


TENSORFLOW = ["keras", "saved_model"]
WHOLE_HOST = role("this interpreter", onnxruntime=["onnx", *TENSORFLOW], tensorflow=TENSORFLOW)


@pytest.mark.parametrize(
    ("backend", "takes", "source", "chosen"),
    [
        ("tensorrt", ["onnx"], "onnx", None),
        ("tensorrt", ["onnx", "keras"], "keras", None),  # a board that has TensorFlow does it all
        ("tensorrt", ["onnx"], "keras", "onnx"),
        ("tftrt", ["saved_model"], "keras", "saved_model"),
        ("both", ["saved_model", "onnx"], "keras", "onnx"),
    ],
)
def test_the_intermediate_is_what_the_board_takes(backend: str, takes: list[str], source: str, chosen: str | None) -> None:
    found = choose_intermediate(case(backend, source), role("nano", **{backend: takes}), WHOLE_HOST)
    assert (found and found.format) == chosen
    if found is not None:
        made = found.case(case(backend, source))
        assert (made.precision, made.batch, made.device) == ("fp32", 4, "cpu")


def test_what_is_missing_where_is_said() -> None:
    bare = role("/usr/bin/python3", onnxruntime=["onnx"])
    with pytest.raises(StageFailed) as caught:
        choose_intermediate(case("tensorrt", "keras"), role("nano", tensorrt=["onnx"]), bare)
    assert caught.value.outcome.kind == "unsupported"
    assert caught.value.outcome.message.startswith(
        "nano builds no tensorrt from keras, but from onnx, which cannot be made of it: "
    )
    assert "install TensorFlow, tf2onnx and onnx" in caught.value.outcome.message
    with pytest.raises(StageFailed, match="from nothing else that could be made of it"):
        choose_intermediate(case("torch2trt", "keras"), role("nano", torch2trt=["torchscript"]), WHOLE_HOST)


@pytest.mark.parametrize(
    ("backend", "source", "chosen"),
    [
        ("tensorrt", "onnx", None),
        ("tensorrt", "keras", "onnx"),  # also for a board that has TensorFlow: nobody knows
        ("tensorrt", "saved_model", "onnx"),
        ("torch2trt", "keras", "onnx"),
        ("tftrt", "keras", "saved_model"),
        ("tftrt", "saved_model", None),
        ("a_plugin_s_own", "keras", None),
    ],
)
def test_a_board_that_cannot_be_asked_gets_what_each_one_takes(backend: str, source: str, chosen: str | None) -> None:
    found = choose_portable(case(backend, source), WHOLE_HOST)
    assert (found and found.format) == chosen


OF_TORCHVISION = SimpleNamespace(is_of_torchvision=True)


def test_a_model_of_torchvision_goes_as_it_is_or_as_onnx() -> None:
    assert choose_portable(case("torch2trt", "seeded", OF_TORCHVISION), WHOLE_HOST) is None
    with_torch = role("this interpreter", onnxruntime=["onnx", "torch_weights", "seeded_torchvision"], tensorflow=TENSORFLOW)
    board = role("nano", tensorrt=["onnx"])
    for source in ("seeded", "torch_weights"):
        wanted = case("tensorrt", source, OF_TORCHVISION)
        for found in (choose_portable(wanted, with_torch), choose_intermediate(wanted, board, with_torch)):
            assert found is not None and (found.format, found.backend) == ("onnx", "onnxruntime")
        with pytest.raises(StageFailed, match="install PyTorch, torchvision and onnx where models are converted"):
            choose_portable(wanted, WHOLE_HOST)
        with pytest.raises(StageFailed, match="install PyTorch, torchvision and onnx where models are converted"):
            choose_intermediate(wanted, board, WHOLE_HOST)


def test_what_cannot_be_made_for_it_here_is_said() -> None:
    with pytest.raises(
        StageFailed, match="a board of which nothing is known yet builds tensorrt from onnx, which cannot"
    ) as caught:
        choose_portable(case("tensorrt", "keras"), role("/usr/bin/python3", onnxruntime=["onnx"]))
    assert caught.value.outcome.kind == "unsupported"
    assert "install TensorFlow, tf2onnx and onnx" in caught.value.outcome.message


@pytest.mark.parametrize(
    ("device", "facts", "changes", "reason"),
    [
        ("jetson", {"jetson": {"model": "Orin"}}, {}, None),
        ("cuda", {"jetson": {"model": "Orin"}}, {}, "the GPU of a Jetson is no discrete one: its cases have the marker jetson"),
        ("jetson", {"gpus": [{"name": "L4"}]}, {}, "this is no NVIDIA Jetson"),
        ("jetson", {}, {"can_convert": False, "reason": "no PyCUDA"}, "no PyCUDA"),
        ("jetson", {}, {"precisions_convert": ["fp32"]}, "tensorrt builds no precision fp16 here"),
    ],
)
def test_a_bundle_builds_nothing_that_would_not_be_judged(
    device: str, facts: dict[str, Any], changes: dict[str, Any], reason: str | None
) -> None:
    able = {"can_run": True, "can_convert": True, "precisions_run": ["fp16"], "precisions_convert": ["fp16"], **changes}
    wanted = {"build": "m", "device": device, "load": {"backend": "tensorrt", "precision": "fp16"}}
    assert why_not({"backends": {"tensorrt": able}, "device": facts}, wanted) == reason


def built(**changes: Any) -> dict[str, Any]:
    converter = {"tensorrt": "10.3.0", "sm": "8.7", "gpu": "Orin", **changes.pop("converter", {})}
    return {"checkpoint": "1", "precision": "fp16", "code": "a", "machine": "aarch64", "converter": converter, **changes}


def entry(ingredients: dict[str, Any], kind: str = "artifact") -> StoredArtifact:
    return StoredArtifact("0" * 64, Path(), {"kind": kind, "ingredients": ingredients}, cached=True, size_bytes=1)


def test_an_engine_of_another_release_is_found_the_newest_first() -> None:
    older, newer = built(converter={"tensorrt": "8.5.2"}), built(converter={"tensorrt": "8.6.1"})
    found = earlier_build([entry(older), entry(newer)], built())
    assert found is not None and found["tensorrt"] == "8.6.1"


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry(built(code="b"))],  # another release of the plugin: nothing of the device has changed
        [entry(built(precision="int8", converter={"sm": "7.2"}))],
        [entry(built(converter={"sm": "7.2"}), kind="reference")],
    ],
)
def test_what_is_not_the_same_model_by_another_device_is_no_rebuilding(entries: list[StoredArtifact]) -> None:
    assert earlier_build(entries, built()) is None


def test_cases_with_one_reason_share_a_sentence() -> None:
    before, now = {"tensorrt": "10.3.0", "sm": "8.7"}, {"tensorrt": "10.3.0", "sm": "7.2"}
    assert rebuilt_remarks([Rebuilt("m-tensorrt-fp16-b1", before, now)]) == [
        "the engine of m-tensorrt-fp16-b1 in the store was built by TensorRT 10.3.0 for SM 8.7 and does not fit here"
        " (sm 8.7 -> 7.2): built anew"
    ]
    (many,) = rebuilt_remarks(Rebuilt(f"m{number}", before, now) for number in range(6))
    assert many.startswith("the engines of m0, m1, m2 and 3 others in the store were built by")
