"""The torch2trt backend, and the torch backend on a GPU, over doubles of torch2trt, of TensorRT and of PyTorch's CUDA device.

The modules and what they compute are PyTorch's own. What is proved is the backend: what it asks of each release, that it waits for
the device, and what it says of each failure. Nothing here ran on a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from tensorrt_double import Installation, compiler

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.targets.interpreter import InterpreterTarget

MISSING = [name for name in ("torch", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler for the double of the driver's library"),
]

SITE = Path(__file__).resolve().parent.parent / "doubles" / "torch2trt" / "site"
STYLES = ("0.3", "0.4", "0.5")
BATCH = 2
INPUT = {"shape": [8, 8, 3], "dtype": "float32", "layout": "nhwc"}
CLOSENESS = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.03}
ROUNDS = {"minimum": 5, "minimum_seconds": 0.0, "maximum": 5}
DEVICE_SECONDS = 0.004  # of one inference, by the double
by_style = pytest.mark.parametrize("style", STYLES)


class Workshop:
    """One model with its pictures, and agents that have the doubles."""

    def __init__(self, root: Path) -> None:
        import onnxruntime

        self.root, self.count = root, 0
        self.model = root / "model.onnx"
        _classifier(self.model)
        self.site = root / "site"
        shutil.copytree(SITE, self.site)
        for name in ("torch2trt",):
            (self.site / f"{name}-0.5.0.dist-info").mkdir()
            (self.site / f"{name}-0.5.0.dist-info" / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.5.0\n"
            )
        self.tensorrt = Installation(root / "tensorrt", "10", pycuda=False)
        generator = numpy.random.default_rng(2)
        self.pictures = generator.uniform(0, 1, (7, 8, 8, 3)).astype(numpy.float32)
        numpy.save(root / "pictures.npy", self.pictures)
        numpy.save(root / "calibration.npy", generator.uniform(0, 1, (9, 8, 8, 3)).astype(numpy.float32))
        session = onnxruntime.InferenceSession(str(self.model), providers=["CPUExecutionProvider"])
        padded = numpy.concatenate([self.pictures, self.pictures[-1:]])
        rows = [session.run(None, {"input": padded[start : start + BATCH]})[0] for start in range(0, 8, BATCH)]
        self.reference = numpy.concatenate(rows)[:7]

    @property
    def log(self) -> str:
        return (self.root / "agent.log").read_text()

    def start(self, **settings: str) -> AgentProcess:
        """``settings`` are what the doubles read: ``FAULT="oom"``, ``TORCH2TRT="0.4"``."""
        environment = self.tensorrt.environment(**settings)
        environment["PYTHONPATH"] = os.pathsep.join([str(self.site), environment["PYTHONPATH"]])
        (self.root / "agent.log").unlink(missing_ok=True)
        limits = Limits({"convert": 600.0, "load": 300.0})
        return AgentProcess(InterpreterTarget(sys.executable).command, self.root / "agent.log", limits, environment=environment)

    def convert(self, agent: AgentProcess, precision: str = "fp32", **changes: Any) -> tuple[Path, dict[str, Any]]:
        self.count += 1
        directory = self.root / f"out-{self.count}"
        directory.mkdir()
        request = {
            "backend": "torch2trt",
            "precision": precision,
            "batch": BATCH,
            "device": "cuda",
            "options": {},
            "source": {
                "format": "onnx",
                "path": str(self.model),
                "architecture": None,
                "seed": None,
                "inputs": [],
                "outputs": [],
            },
            "input": INPUT,
            "calibration": str(self.root / "calibration.npy"),
            "output_directory": str(directory),
        }
        result = agent.convert({**request, **changes})
        return directory / result["model"], result

    def load(self, agent: AgentProcess, model: Path, precision: str = "fp32", **changes: Any) -> dict[str, Any]:
        arguments = {
            "backend": "torch2trt",
            "precision": precision,
            "model": str(model),
            "threads": 1,
            "batch": BATCH,
            "device": "cuda",
            "input": INPUT,
        }
        return agent.load({**arguments, **changes})

    def predict(self, agent: AgentProcess) -> Any:
        agent.predict({"inputs": str(self.root / "pictures.npy"), "outputs": str(self.root / "outputs.npy")})
        return numpy.load(self.root / "outputs.npy")

    def measure(self, agent: AgentProcess) -> dict[str, Any]:
        return agent.measure({"inputs": str(self.root / "pictures.npy"), "warmup": None, "rounds": ROUNDS})


def _classifier(path: Path) -> None:
    """With a Reshape to the very batch in it, as exporters write it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = numpy.random.default_rng(1)
    weights = {
        "kernel": generator.normal(0, 0.4, (6, 3, 3, 3)).astype(numpy.float32),
        "dense": generator.normal(0, 1.5, (6, 5)).astype(numpy.float32),
        "rows": numpy.array([BATCH, 6], dtype=numpy.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["features"]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [BATCH, 8, 8, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [BATCH, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("torch2trt"))


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(StageFailed) as caught:
        ask()
    outcome = caught.value.outcome
    assert "\n" not in outcome.message
    return outcome.kind, outcome.message


# torch2trt


@by_style
@pytest.mark.parametrize("precision", CLOSENESS)
def test_convert_run_and_measure(workshop: Workshop, style: str, precision: str) -> None:
    with workshop.start(TORCH2TRT=style) as agent:
        model, result = workshop.convert(agent, precision)
    with workshop.start(TORCH2TRT=style) as agent:  # as the plugin does: another process runs what one has built
        loaded = workshop.load(agent, model, precision)
        difference = abs(workshop.predict(agent) - workshop.reference).max()
        measured = workshop.measure(agent)
    assert difference <= CLOSENESS[precision]
    assert (difference > 1e-6) == (precision != "fp32")  # a lower precision that changes nothing was not applied
    assert loaded["runtime"] == {"name": "torch2trt", "version": "0.5.0"}
    assert [(tensor["shape"], tensor["dtype"]) for tensor in loaded["inputs"] + loaded["outputs"]] == [
        ([BATCH, 8, 8, 3], "float32"),
        ([BATCH, 5], "float32"),
    ]
    assert min(measured["rounds"]) >= DEVICE_SECONDS  # it waits for the device
    assert len(measured["device_rounds"]) == 5 and min(measured["device_rounds"]) >= DEVICE_SECONDS
    details = result["details"]
    assert {name: result["converter"][name] for name in ("torch2trt", "tensorrt", "sm", "gpu")} == {
        "torch2trt": "0.5.0",
        "tensorrt": "10.3.0",
        "sm": "8.7",
        "gpu": "Orin",
    }
    assert details["coverage"]["on_accelerator"] > 5 and details["coverage"]["elsewhere"] == 0
    assert details["coverage"]["source"] == "TensorRT 10.3.0 (engine inspector)"
    assert details["remarks"] == []
    assert details.get("calibration_batches") == (4 if precision == "int8" else None)
    assert sorted(path.name for path in model.parent.iterdir()) == ["engine.json", "model.engine"]  # nothing is pickled


@by_style
def test_calibration_pictures_decide_the_scales(workshop: Workshop, style: str) -> None:
    numpy.save(workshop.root / "wide.npy", 40 * numpy.load(workshop.root / "calibration.npy"))
    differences = []
    with workshop.start(TORCH2TRT=style) as agent:
        for name in ("calibration.npy", "wide.npy"):
            model, _ = workshop.convert(agent, "int8", calibration=str(workshop.root / name))
            workshop.load(agent, model, "int8")
            differences.append(abs(workshop.predict(agent) - workshop.reference).max())
    assert differences[0] < CLOSENESS["int8"] < differences[1]


@by_style
def test_the_workspace_is_the_cards(workshop: Workshop, style: str) -> None:
    with workshop.start(TORCH2TRT=style) as agent:
        _, result = workshop.convert(agent, options={"workspace_bytes": 7_000_000})
    rows = 1 if style == "0.3" else BATCH
    assert f"torch2trt double {style}: {rows} rows, workspace 7000000" in workshop.log
    assert result["details"]["workspace_bytes"] == 7_000_000


UNKNOWN = "torch.nn.functional.softmax"


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"UNKNOWN": UNKNOWN}, "unsupported", [f"has no converter for {UNKNOWN}", "use the backend tensorrt"]),
        (
            {"FAULT": "api"},
            "build_error",
            ["torch2trt 0.5.0 with TensorRT 10.3.0", "'FP16'", "install releases that belong together"],
        ),
        (
            {"FAULT": "import"},
            "load_error",
            ["cannot be imported with TensorRT 10.3.0", "CalibrationAlgoType", "belong together"],
        ),
        ({"FAULT": "no_engine"}, "build_error", ["gave no engine", "log of the conversion"]),
        ({"FAULT": "oom_build"}, "oom", ["Tried to allocate 2.00 GiB", "choose a smaller batch"]),
        ({"FAULT": "shape"}, "build_error", ["does not convert the model", "multiple shapes"]),
        ({"TORCH_CUDA": "none"}, "load_error", ["built for the CPU alone"]),
        ({"TORCH_FAULT": "no_kernel"}, "load_error", ["cannot run on Orin", "wheel that is built for this GPU"]),
        ({"DEVICES": "0"}, "unsupported", ["needs a CUDA device"]),
    ],
)
def test_what_fails_is_told_with_the_next_step(workshop: Workshop, settings: dict[str, str], kind: str, words: list[str]) -> None:
    with workshop.start(**settings) as agent:
        found, message = refusal(lambda: workshop.convert(agent))
    assert found == kind, message
    assert all(word in message for word in words), message


def test_a_method_without_a_converter_that_did_no_harm_is_a_remark(workshop: Workshop) -> None:
    with workshop.start(UNKNOWN=UNKNOWN, UNKNOWN_IS_HARMLESS="1") as agent:
        _, result = workshop.convert(agent)
    (remark,) = result["details"]["remarks"]
    assert UNKNOWN in remark
    assert "Warning: Encountered known unsupported method" in workshop.log  # it is still printed


def test_an_engine_runs_only_where_it_was_built(workshop: Workshop) -> None:
    with workshop.start() as agent:
        model, _ = workshop.convert(agent)
        kind, message = refusal(lambda: workshop.load(agent, model, batch=3))
        assert kind == "load_error" and "batch of 2, not 3" in message
        kind, message = refusal(lambda: workshop.load(agent, model, device="cpu"))
        assert kind == "unsupported"
    for settings, word in (({"SM": "7.2"}, "SM was 8.7 and is 7.2"), ({"GPU": "Xavier"}, "the GPU was Orin and is Xavier")):
        with workshop.start(**settings) as agent:
            kind, message = refusal(lambda agent=agent: workshop.load(agent, model))
        assert kind == "load_error" and word in message and "convert the case again on this device" in message
    model.write_bytes(b"something else")
    with workshop.start() as agent:
        kind, message = refusal(lambda: workshop.load(agent, model))
        assert kind == "load_error" and "does not take the engine" in message
    document = json.loads((model.parent / "engine.json").read_text())
    del document["module"]
    (model.parent / "engine.json").write_text(json.dumps(document))
    with workshop.start() as agent:
        kind, message = refusal(lambda: workshop.load(agent, model))
        assert kind == "load_error" and "not built by the backend torch2trt" in message


def test_what_is_asked_for_in_vain(workshop: Workshop) -> None:
    with workshop.start() as agent:
        kind, message = refusal(lambda: workshop.convert(agent, "int8", calibration=None))
        assert kind == "build_error" and "[calibration]" in message
        kind, message = refusal(lambda: workshop.convert(agent, input={**INPUT, "dtype": "uint8"}))
        assert kind == "unsupported" and "use the backend tensorrt" in message
        kind, message = refusal(lambda: workshop.convert(agent, "dynamic"))
        assert kind == "unsupported" and "no precision" in message


def test_memory_that_ends_during_an_inference(workshop: Workshop) -> None:
    with workshop.start() as agent:
        model, _ = workshop.convert(agent)
    with workshop.start(TORCH_FAULT="oom") as agent:
        workshop.load(agent, model)
        kind, message = refusal(lambda: workshop.predict(agent))
        assert kind == "oom" and "640.00 MiB is free" in message
        kind, message = refusal(lambda: workshop.measure(agent))
        assert kind == "oom" and "choose a smaller batch" in message


def test_a_probe_says_what_there_is(workshop: Workshop) -> None:
    with workshop.start() as agent:
        found = agent.probe()["backends"]["torch2trt"]
    assert found["available"] and found["can_convert"], found["reason"]
    assert found["runtime"] == {"name": "torch2trt", "version": "0.5.0"}
    assert {"torch2trt", "tensorrt", "torch", "onnx", "sm", "gpu", "cuda_driver"} <= set(found["converter"])
    with workshop.start(DEVICES="0") as agent:
        found = agent.probe()["backends"]["torch2trt"]
    assert not found["available"] and "there is none that can be used" in found["reason"]


# torch on a GPU


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torch_waits_for_the_device_and_asks_its_clock(workshop: Workshop, precision: str) -> None:
    with workshop.start() as agent:
        model, _ = workshop.convert(agent, precision, backend="torch")
        loaded = workshop.load(agent, model, precision, backend="torch")
        difference = abs(workshop.predict(agent) - workshop.reference).max()
        measured = workshop.measure(agent)
    assert loaded["inputs"][0]["dtype"] == {"fp32": "float32", "fp16": "float16"}[precision]
    assert difference <= CLOSENESS[precision]
    assert (difference > 1e-6) == (precision == "fp16")
    assert min(measured["rounds"]) >= DEVICE_SECONDS
    assert len(measured["device_rounds"]) == 5 and min(measured["device_rounds"]) >= DEVICE_SECONDS


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"TORCH_CUDA": "none"}, "load_error", "CPU alone"),
        ({"TORCH_CUDA": "99.0", "TORCH_FAULT": "no_device"}, "load_error", "install a newer driver"),
        ({"TORCH_FAULT": "no_device", "DEVICES": "0"}, "unsupported", "there is none that can be used"),
        ({"TORCH_FAULT": "no_kernel"}, "load_error", "wheel that is built for this GPU"),
    ],
)
def test_torch_says_why_a_gpu_cannot_be_used(workshop: Workshop, settings: dict[str, str], kind: str, words: str) -> None:
    with workshop.start(**settings) as agent:
        model, _ = workshop.convert(agent, backend="torch")  # which needs no GPU
        found, message = refusal(lambda: workshop.load(agent, model, backend="torch"))
    assert (found, words in message) == (kind, True), message


def test_torch_tells_memory_that_ends(workshop: Workshop) -> None:
    with workshop.start(TORCH_FAULT="oom") as agent:
        model, _ = workshop.convert(agent, "fp16", backend="torch")
        workshop.load(agent, model, "fp16", backend="torch")
        kind, message = refusal(lambda: workshop.predict(agent))
    assert kind == "oom" and "Tried to allocate 2.00 GiB" in message
