"""The tensorrt backend from checkpoint to measurement, over doubles of TensorRT 8, 10 and 11 and of PyCUDA that compute for real.

What is proved is the backend: which calls it makes of each release, in which order, with which buffers, and what it says of each
failure. Nothing here ran on a GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from tensorrt_double import VERSIONS, Installation, compiler

from pytest_inference_gate.agent_process import AgentProcess
from pytest_inference_gate.coverage import parse_coverage
from pytest_inference_gate.outcome import StageFailed

MISSING = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler for the double of the driver's library"),
]

STYLES = tuple(VERSIONS)
BATCH = 2
INPUT = {"shape": [8, 8, 3], "dtype": "float32", "layout": "nhwc"}
CLOSENESS = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.03}
by_style = pytest.mark.parametrize("style", STYLES)
by_precision = pytest.mark.parametrize("precision", CLOSENESS)


def classifier(path: Path, *, batch: int | str = BATCH, odd: bool = False) -> Any:
    """A small convolutional classifier as ONNX: NHWC in, five probabilities out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = numpy.random.default_rng(1)
    weights = {
        "kernel": generator.normal(0, 0.4, (6, 3, 3, 3)).astype(numpy.float32),
        "bias": generator.normal(0, 0.1, (6,)).astype(numpy.float32),
        "dense": generator.normal(0, 1.5, (6, 5)).astype(numpy.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], "to_planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["features"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["features"], ["positive"], "relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"], "dense_layer"),
        helper.make_node("Softmax", ["scores"], ["output"], "softmax"),
    ]
    if odd:  # an operator that TensorRT's parser does not know
        nodes[-1:] = [
            helper.make_node("Det", ["planes"], ["determinant"], "the_determinant"),
            helper.make_node("Softmax", ["scores"], ["output"], "softmax"),
        ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 8, 8, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return model


class Workshop:
    """One model with its pictures, and agents that build and run it under a style."""

    def __init__(self, root: Path) -> None:
        import onnxruntime

        self.root = root
        self.model = root / "model.onnx"
        classifier(self.model)
        generator = numpy.random.default_rng(2)
        numpy.save(root / "pictures.npy", generator.uniform(0, 1, (7, 8, 8, 3)).astype(numpy.float32))
        numpy.save(root / "calibration.npy", generator.uniform(0, 1, (9, 8, 8, 3)).astype(numpy.float32))
        session = onnxruntime.InferenceSession(str(self.model), providers=["CPUExecutionProvider"])
        pictures = numpy.load(root / "pictures.npy")
        padded = numpy.concatenate([pictures, pictures[-1:]])
        rows = [session.run(None, {"input": padded[start : start + BATCH]})[0] for start in range(0, 8, BATCH)]
        self.reference = numpy.concatenate(rows)[:7]
        self.installations: dict[str, Installation] = {}
        self.count = 0

    def installation(self, style: str) -> Installation:
        if style not in self.installations:
            self.installations[style] = Installation(self.root / f"style-{style}", style)
        return self.installations[style]

    def start(self, style: str, **settings: str) -> AgentProcess:
        return self.installation(style).start(self.root / "agent.log", **settings)

    def request(self, precision: str, **changes: Any) -> dict[str, Any]:
        self.count += 1
        directory = self.root / f"out-{self.count}"
        directory.mkdir()
        source = {"format": "onnx", "path": str(self.model), "architecture": None, "seed": None, "inputs": [], "outputs": []}
        return {
            "backend": "tensorrt",
            "precision": precision,
            "batch": BATCH,
            "source": source,
            "input": INPUT,
            "calibration": str(self.root / "calibration.npy"),
            "output_directory": str(directory),
            **changes,
        }

    def convert(self, agent: AgentProcess, precision: str, **changes: Any) -> tuple[Path, dict[str, Any]]:
        request = self.request(precision, **changes)
        result = agent.convert(request)
        return Path(request["output_directory"]) / result["model"], result

    def load(self, agent: AgentProcess, model: Path, precision: str = "fp32", batch: int = BATCH) -> dict[str, Any]:
        arguments = {
            "backend": "tensorrt",
            "precision": precision,
            "model": str(model),
            "threads": 1,
            "batch": batch,
            "input": INPUT,
        }
        return agent.load(arguments)

    def predict(self, agent: AgentProcess) -> Any:
        outputs = self.root / "outputs.npy"
        agent.predict({"inputs": str(self.root / "pictures.npy"), "outputs": str(outputs)})
        return numpy.load(outputs)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("tensorrt"))


def refusal(ask: Any) -> StageFailed:
    with pytest.raises(StageFailed) as caught:
        ask()
    assert "\n" not in caught.value.outcome.message
    return caught.value


# From the checkpoint to figures


@by_style
@by_precision
def test_convert_build_run_and_measure(workshop: Workshop, style: str, precision: str) -> None:
    with workshop.start(style) as agent:
        model, result = workshop.convert(agent, precision)
        details = result["details"]
    with workshop.start(style) as agent:  # as the plugin does: another process runs what one has built
        loaded = workshop.load(agent, model, precision)
        outputs = workshop.predict(agent)
        rule = {"minimum": 7, "minimum_seconds": 0.0, "maximum": 7}
        measured = agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": None, "rounds": rule})
        block = agent.measure_block(3)
    assert numpy.ptp(workshop.reference, axis=0).max() > 0.02  # a model that answers alike to all would prove nothing
    difference = numpy.abs(outputs - workshop.reference).max()
    assert difference <= CLOSENESS[precision]
    assert (difference > 1e-6) == (precision != "fp32")  # a lower precision that changes nothing was not applied
    assert loaded["runtime"] == {"name": "tensorrt", "version": VERSIONS[style]}
    assert [tensor["shape"] for tensor in loaded["inputs"] + loaded["outputs"]] == [[BATCH, 8, 8, 3], [BATCH, 5]]
    assert len(measured["rounds"]) == len(measured["device_rounds"]) == 7
    assert min(measured["rounds"] + measured["device_rounds"] + block) > 0
    assert result["converter"]["tensorrt"] == VERSIONS[style]
    assert (result["converter"]["sm"], result["converter"]["gpu"]) == ("8.7", "Orin")
    assert details["tf32"] is False
    assert details["placement"]["devices"] == {"GPU": len(details["placement"]["layers"])}
    assert details["nodes"]["after"] == len(details["placement"]["layers"])
    assert details["nodes"]["before"] > 0
    coverage = parse_coverage(details["coverage"])
    assert (coverage.accelerator, coverage.on_accelerator, coverage.elsewhere) == (
        "tensorrt",
        len(details["placement"]["layers"]),
        0,
    )
    assert coverage.source == f"TensorRT {VERSIONS[style]} (engine inspector)"


@by_style
def test_integers_come_from_the_calibrator_where_there_is_one_and_else_from_the_graph(workshop: Workshop, style: str) -> None:
    with workshop.start(style) as agent:
        _, result = workshop.convert(agent, "int8")
    details = result["details"]
    if style == "11":
        assert (details["typing"], details["quantization"]) == ("strongly typed", "Q/DQ pairs in the graph")
        assert "calibration_batches" not in details
    else:
        assert (details["typing"], details["quantization"]) == ("builder flags", "entropy calibrator")
        assert details["calibration_batches"] == 4  # of nine pictures, in twos: the odd one is left out
    kinds = {layer["type"] for layer in details["placement"]["layers"]}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds


@pytest.mark.parametrize("style", ["8.6", "10"])
def test_calibration_pictures_decide_the_scales(workshop: Workshop, style: str) -> None:
    """Pictures of another range give other integers: the batches really arrive, as they are, at the builder."""
    wide = workshop.root / "wide.npy"
    numpy.save(wide, 40 * numpy.load(workshop.root / "calibration.npy"))
    outputs = []
    with workshop.start(style) as agent:
        for calibration in (workshop.root / "calibration.npy", wide):
            model, _ = workshop.convert(agent, "int8", calibration=str(calibration))
            workshop.load(agent, model, "int8")
            outputs.append(workshop.predict(agent))
    right, wrong = (numpy.abs(output - workshop.reference).max() for output in outputs)
    assert right < CLOSENESS["int8"] < wrong


@by_style
def test_half_floats_are_in_the_graph_only_where_the_builder_has_no_flag(workshop: Workshop, style: str) -> None:
    with workshop.start(style) as agent:
        _, whole = workshop.convert(agent, "fp32")
        _, half = workshop.convert(agent, "fp16")
    assert half["details"]["typing"] == ("strongly typed" if style == "11" else "builder flags")
    assert (half["details"]["onnx_sha256"] == whole["details"]["onnx_sha256"]) == (style != "11")


@by_style
def test_a_source_that_is_quantized_already_is_built_as_it_is(workshop: Workshop, style: str) -> None:
    with workshop.start("11") as agent:
        request = workshop.request("int8", backend="onnxruntime")
        agent.convert(request)
    if style == "11":
        return  # there the graph is what decides in any case
    source = {**request["source"], "path": str(Path(request["output_directory"]) / "model.onnx")}
    with workshop.start(style) as agent:
        model, result = workshop.convert(agent, "int8", source=source)
        workshop.load(agent, model, "int8")
        assert numpy.abs(workshop.predict(agent) - workshop.reference).max() <= CLOSENESS["int8"]
    assert result["details"]["quantization"] == "Q/DQ pairs in the source"


@by_style
@by_precision
def test_an_input_of_any_batch_is_built_for_the_cases_batch(workshop: Workshop, style: str, precision: str) -> None:
    path = workshop.root / "dynamic.onnx"
    classifier(path, batch="N")
    with workshop.start(style) as agent:
        request = workshop.request(precision)
        model, _ = workshop.convert(agent, precision, source={**request["source"], "path": str(path)})
        workshop.load(agent, model, precision)
        assert numpy.abs(workshop.predict(agent) - workshop.reference).max() <= CLOSENESS[precision]
        failure = refusal(lambda: workshop.load(agent, model, precision, batch=3))
    assert failure.outcome.kind == "load_error"
    assert "profile" in failure.outcome.message


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "tf2onnx")), reason="not installed: tensorflow, tf2onnx"
)
@pytest.mark.parametrize(("style", "precision", "closeness"), [("8.6", "fp32", 1e-5), ("11", "fp16", 5e-3), ("10", "int8", 0.2)])
def test_a_keras_checkpoint_takes_the_way_through_onnx(workshop: Workshop, style: str, precision: str, closeness: float) -> None:
    source = {
        "format": "seeded",
        "path": None,
        "architecture": {"function": "keras.applications.MobileNet", "arguments": {"alpha": 0.25, "classes": 4}},
        "seed": 3,
        "inputs": [],
        "outputs": [],
    }
    pictures = {"shape": [32, 32, 3], "dtype": "float32", "layout": "nhwc"}
    numpy.save(workshop.root / "small.npy", numpy.random.default_rng(5).uniform(-1, 1, (4, 32, 32, 3)).astype(numpy.float32))
    outputs = {}
    with workshop.start(style) as agent:
        for backend, chosen in (("tensorrt", precision), ("onnxruntime", "fp32")):
            request = workshop.request(
                chosen, backend=backend, source=source, input=pictures, calibration=str(workshop.root / "small.npy")
            )
            result = agent.convert(request)
            assert result["converter"]["tf2onnx"]
            model = Path(request["output_directory"]) / result["model"]
            arguments = {"precision": chosen, "model": str(model), "threads": 1, "batch": BATCH, "input": pictures}
            agent.load({"backend": backend, **arguments})
            agent.predict({"inputs": str(workshop.root / "small.npy"), "outputs": str(workshop.root / f"{backend}.npy")})
            outputs[backend] = numpy.load(workshop.root / f"{backend}.npy")
    numpy.testing.assert_allclose(outputs["tensorrt"], outputs["onnxruntime"], atol=closeness)


# Engines are bound to where they were built


def test_the_probe_tells_what_an_engine_is_made_of(workshop: Workshop) -> None:
    with workshop.start("10", SM="7.2", GPU="Xavier") as agent:
        backend = agent.probe()["backends"]["tensorrt"]
    assert backend["available"] and backend["can_convert"] and backend["can_run"]
    assert backend["precisions_convert"] == backend["precisions_run"] == ["fp32", "fp16", "int8"]
    made_of = backend["converter"]
    assert (made_of["tensorrt"], made_of["sm"], made_of["gpu"], made_of["cuda_driver"]) == ("10.3.0", "7.2", "Xavier", "12.6")
    assert "onnx" in backend["source_formats"]


@pytest.mark.parametrize(
    ("other", "settings", "words"),
    [
        ("8.6", {}, "TensorRT was 10.3.0 and is 8.6.1"),
        ("10", {"SM": "7.2"}, "SM was 8.7 and is 7.2"),
        ("10", {"GPU": "Thor"}, "the GPU was Orin and is Thor"),
    ],
)
def test_a_foreign_engine_is_refused(workshop: Workshop, other: str, settings: dict[str, str], words: str) -> None:
    with workshop.start("10") as agent:
        model, _ = workshop.convert(agent, "fp32")
    with workshop.start(other, **settings) as agent:
        failure = refusal(lambda: workshop.load(agent, model))
    assert failure.outcome.kind == "load_error"
    assert words in failure.outcome.message
    assert "convert the case again on this device" in failure.outcome.message


def test_an_engine_of_another_board_with_the_same_chip_is_refused(workshop: Workshop) -> None:
    with workshop.start("10") as agent:
        model, _ = workshop.convert(agent, "fp32")
        provenance = json.loads((model.parent / "engine.json").read_text())
        (model.parent / "engine.json").write_text(json.dumps({**provenance, "board": "NVIDIA Jetson Orin Nano Developer Kit"}))
        failure = refusal(lambda: workshop.load(agent, model))
        assert "the board was NVIDIA Jetson Orin Nano Developer Kit" in failure.outcome.message
        (model.parent / "engine.json").unlink()
        failure = refusal(lambda: workshop.load(agent, model))
        assert "engine.json" in failure.outcome.message


@pytest.mark.parametrize(
    ("style", "version", "words"),
    [("8.6", "8.6.0.12", "expecting library version 8.6.1 got 8.6.0.12"), ("10", "10.7.0.23", "Error Code 6: API Usage Error")],
)
def test_what_tensorrt_itself_refuses_is_told_in_its_words(workshop: Workshop, style: str, version: str, words: str) -> None:
    """A provenance that lies: then it is the runtime that returns nothing."""
    with workshop.start(style, VERSION=version) as agent:
        model, _ = workshop.convert(agent, "fp32")
    provenance = json.loads((model.parent / "engine.json").read_text())
    (model.parent / "engine.json").write_text(json.dumps({**provenance, "tensorrt": VERSIONS[style]}))
    with workshop.start(style) as agent:
        failure = refusal(lambda: workshop.load(agent, model))
        assert failure.outcome.kind == "load_error"
        assert words in failure.outcome.message
        assert "built again" in failure.outcome.message
        model.write_bytes(b"no engine at all")
        assert "magicTag" in refusal(lambda: workshop.load(agent, model)).outcome.message


# The timing cache


@by_style
def test_the_timing_cache_lies_beside_the_engine_and_continues_a_build(workshop: Workshop, style: str) -> None:
    with workshop.start(style) as agent:
        model, first = workshop.convert(agent, "fp32")
        path = model.parent / "timing.cache"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kept = first["details"]["timing_cache"]
        assert kept == {"file": "timing.cache", "sha256": digest, "start": "started", "continued_from": None}
        pinned = {"timing_cache": {"path": str(path), "sha256": digest}}
        _, second = workshop.convert(agent, "fp32", options=pinned)
        assert second["details"]["timing_cache"]["start"] == "continued"
        assert second["details"]["timing_cache"]["continued_from"] == digest
        wrong = {"timing_cache": {"path": str(path), "sha256": "0" * 64}}
        failure = refusal(lambda: workshop.convert(agent, "fp32", options=wrong))
        assert failure.outcome.kind == "build_error"
        assert "pinned" in failure.outcome.message


def test_a_timing_cache_of_another_device_is_not_used_and_it_is_said(workshop: Workshop) -> None:
    with workshop.start("10", SM="7.2") as agent:
        model, _ = workshop.convert(agent, "fp32")
    path = model.parent / "timing.cache"
    pinned = {"timing_cache": {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}
    with workshop.start("10") as agent:
        _, result = workshop.convert(agent, "fp32", options=pinned)
    assert result["details"]["timing_cache"]["start"].startswith("refused")
    (remark,) = result["details"]["remarks"]
    assert remark.startswith("the pinned timing cache was refused by this release or device, so this build chose")


# Coverage


@by_style
def test_layers_that_fall_back_from_the_dla_are_named(workshop: Workshop, style: str) -> None:
    with workshop.start(style, DLA_CORES="2") as agent:
        model, result = workshop.convert(agent, "fp16", options={"dla_core": 1})
        workshop.load(agent, model, "fp16")
        assert numpy.abs(workshop.predict(agent) - workshop.reference).max() <= CLOSENESS["fp16"]
    placement = result["details"]["placement"]
    assert placement["wanted"] == "DLA"
    assert placement["devices"]["DLA"] == 1
    assert "softmax" in placement["fallback"]
    assert placement["devices"]["GPU"] == len(placement["fallback"])
    assert placement["source"] == "build log"
    coverage = parse_coverage(result["details"]["coverage"])
    assert (coverage.accelerator, coverage.on_accelerator, coverage.parts) == ("dla", 1, 1)
    assert coverage.elsewhere == sum(one.count for one in coverage.elsewhere_by_operation) == len(placement["fallback"])


def test_a_device_without_that_dla_core_is_unsupported(workshop: Workshop) -> None:
    with workshop.start("10") as agent:
        failure = refusal(lambda: workshop.convert(agent, "fp16", options={"dla_core": 0}))
    assert failure.outcome.kind == "unsupported"
    assert "this device has none" in failure.outcome.message


# What goes wrong


@by_style
def test_an_operator_that_the_parser_does_not_know(workshop: Workshop, style: str) -> None:
    path = workshop.root / "odd.onnx"
    classifier(path, odd=True)
    with workshop.start(style) as agent:
        source = {**workshop.request("fp32")["source"], "path": str(path)}
        failure = refusal(lambda: workshop.convert(agent, "fp32", source=source))
    assert failure.outcome.kind == "build_error"
    assert "No importer registered for op: Det" in failure.outcome.message
    assert ("'the_determinant'" in failure.outcome.message) == (style in ("10", "11"))


@by_style
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("oom", "oom", "out of memory while building the engine"),
        ("no_implementation", "build_error", "Could not find any implementation for node"),
    ],
)
def test_a_build_that_returns_nothing(workshop: Workshop, style: str, fault: str, kind: str, words: str) -> None:
    with workshop.start(style, FAULT=fault) as agent:
        failure = refusal(lambda: workshop.convert(agent, "fp32"))
        assert failure.outcome.kind == kind
        assert words in failure.outcome.message
        assert agent.probe()["backends"]["tensorrt"]["available"]  # the agent lives on


def test_an_abort_in_the_builder_is_a_crash_with_its_signal(workshop: Workshop) -> None:
    with workshop.start("8.6", FAULT="abort") as agent:
        failure = refusal(lambda: workshop.convert(agent, "fp32"))
    assert (failure.outcome.kind, failure.outcome.signal) == ("crash", "SIGABRT")
    assert "mNbTactics" in failure.outcome.message


@by_style
def test_the_workspace_limit_reaches_the_builder(workshop: Workshop, style: str) -> None:
    with workshop.start(style) as agent:
        _, result = workshop.convert(agent, "fp32", options={"workspace_bytes": 2**20})
        assert result["details"]["workspace_bytes"] == 2**20
        failure = refusal(lambda: workshop.convert(agent, "fp32", options={"workspace_bytes": 2**10}))
    assert "Could not find any implementation" in failure.outcome.message


@pytest.mark.parametrize(
    ("fault", "words"),
    [("no_library", "libnvinfer.so.10 is missing"), ("wrong_library", "install bindings and libraries of one release")],
)
def test_bindings_without_their_library(workshop: Workshop, fault: str, words: str) -> None:
    with workshop.start("10") as agent:
        model, _ = workshop.convert(agent, "fp32")
    with workshop.start("10", FAULT=fault) as agent:
        for ask in (lambda: workshop.convert(agent, "fp32"), lambda: workshop.load(agent, model)):
            failure = refusal(ask)
            assert failure.outcome.kind == "load_error"
            assert words in failure.outcome.message


@pytest.mark.parametrize(("settings", "words"), [({"CUINIT": "100"}, "no CUDA-capable device"), ({"DEVICES": "0"}, "no device")])
def test_no_cuda_device(workshop: Workshop, settings: dict[str, str], words: str) -> None:
    with workshop.start("10") as agent:
        model, _ = workshop.convert(agent, "fp32")
    with workshop.start("10", **settings) as agent:
        backend = agent.probe()["backends"]["tensorrt"]
        assert not (backend["available"] or backend["can_convert"] or backend["can_run"])
        assert words in backend["reason"]
        for ask in (lambda: workshop.convert(agent, "fp32"), lambda: workshop.load(agent, model)):
            failure = refusal(ask)
            assert failure.outcome.kind == "unsupported"
            assert words in failure.outcome.message


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        ({"tensorrt": False}, "TensorRT is not installed"),
        ({"driver": False}, "the driver's library cannot be loaded"),
        ({"pycuda": False}, "PyCUDA is not installed"),
    ],
)
def test_what_is_not_installed_is_told_by_the_probe(tmp_path: Path, lacks: dict[str, bool], reason: str) -> None:
    installation = Installation(tmp_path / "site", "10", **lacks)
    with installation.start(tmp_path / "agent.log") as agent:
        backend = agent.probe()["backends"]["tensorrt"]
    assert not backend["available"]
    assert reason in backend["reason"]


@by_style
def test_a_device_that_is_full_is_out_of_memory(workshop: Workshop, style: str) -> None:
    with workshop.start(style) as agent:
        model, _ = workshop.convert(agent, "fp32")
    with workshop.start(style, MEMORY="100") as agent:
        failure = refusal(lambda: workshop.load(agent, model))
        assert failure.outcome.kind == "oom"
        failure = refusal(lambda: workshop.convert(agent, "int8")) if style != "11" else failure
        assert failure.outcome.kind == "oom"  # in the calibrator, through the builder


def test_the_case_has_to_fit_the_models_input(workshop: Workshop) -> None:
    with workshop.start("10") as agent:
        failure = refusal(lambda: workshop.convert(agent, "fp32", batch=4))
        assert failure.outcome.kind == "build_error"
        assert "has the shape 2x8x8x3, and the case needs 4x8x8x3" in failure.outcome.message
        assert refusal(lambda: workshop.convert(agent, "dynamic")).outcome.kind == "unsupported"
        failure = refusal(lambda: workshop.convert(agent, "int8", calibration=None))
        assert "[calibration]" in failure.outcome.message


@pytest.fixture
def double(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulated device inside this process, for the checks of the double itself."""
    import sys

    monkeypatch.syspath_prepend(str(workshop.installation("10").directory))
    yield importlib.import_module("pycuda.driver")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pycuda", "simulated_cuda")]:
        del sys.modules[name]


def test_the_simulated_stream_does_nothing_until_somebody_waits(double: Any) -> None:
    """Else a backend that does not wait would pass all that is above."""
    double.init()
    context = double.Device(0).make_context()
    stream = double.Stream()
    source, target = numpy.arange(4, dtype=numpy.float32), numpy.zeros(4, dtype=numpy.float32)
    buffer = double.mem_alloc(source.nbytes)
    double.memcpy_htod_async(buffer, source, stream)
    double.memcpy_dtoh_async(target, buffer, stream)
    assert target.tolist() == [0, 0, 0, 0]
    start, end = double.Event(), double.Event()
    start.record(stream)
    end.record(stream)
    with pytest.raises(double.LogicError, match="device not ready"):
        end.time_since(start)
    stream.synchronize()
    assert target.tolist() == [0, 1, 2, 3]
    assert end.time_since(start) >= 0
    double.memcpy_htod_async(buffer, numpy.zeros(5, dtype=numpy.float32), stream)
    with pytest.raises(double.LogicError, match="illegal memory access"):
        stream.synchronize()
    context.pop()
