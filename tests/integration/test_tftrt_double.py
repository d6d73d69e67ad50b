"""The tftrt backend from checkpoint to measurement, over a double of TF-TRT inside the real TensorFlow.

What is proved is the backend: which converter it takes of each release and how it calls it, what it counts on graphs as TF-TRT writes
them, what it reads in the log that TensorFlow's C++ writes, and what it says of each failure. Nothing here ran on a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from tftrt_double import TENSORRT, VERSIONS, Installation, compiler

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed

pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="not installed: tensorflow"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler for the doubles of the driver's libraries"),
]

HERE = Path(__file__).parent
DIGITS = HERE.parent.parent / "models" / "digits"
BATCH = 2
INPUT = {"shape": [32, 32, 1], "dtype": "float32", "layout": "nhwc"}
MIB = 1 << 20
SECOND, FIRST = ("direct", "parameters"), ("graph", "contrib")
ENGINE_NAMES = {
    "direct": "TRTEngineOp_000_000",
    "parameters": "TRTEngineOp_0",
    "graph": "TRTEngineOp_0",
    "contrib": "TRTEngineOp_0",
}
RULE = {"minimum": 3, "minimum_seconds": 0.0, "maximum": 3}


class Workshop:
    """The plain digits model and its pictures, and agents that convert and run it under a style."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with numpy.load(DIGITS / "evaluation.npz") as data:
            pictures, self.labels = self._pictures(data["images"][:64]), data["labels"][:64]
        numpy.save(root / "pictures.npy", pictures)
        with numpy.load(DIGITS / "calibration.npz") as data:
            numpy.save(root / "calibration.npy", self._pictures(data["images"][:9]))
        self._installations: dict[tuple[str, tuple[tuple[str, Any], ...]], Installation] = {}
        self._converted: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
        self.count = 0

    @staticmethod
    def _pictures(images: Any) -> Any:
        """8 x 8 to 32 x 32 between 0 and 1; interpolated nowhere as on the card, which is near enough for these digits."""
        from PIL import Image

        resized = [Image.fromarray(image.astype(numpy.float32)).resize((32, 32), Image.Resampling.BILINEAR) for image in images]
        return (numpy.stack([numpy.asarray(image) for image in resized]) / 16)[..., None].astype(numpy.float32)

    @property
    def frozen(self) -> Path:
        path = self.root / "frozen.pb"
        if not path.exists():
            subprocess.run([sys.executable, HERE / "make_frozen_digits.py", path], check=True, capture_output=True, timeout=300)
        return path

    @property
    def with_ranges(self) -> Path:
        path = self.root / "ranges.pb"
        if not path.exists():
            command = [sys.executable, HERE / "make_frozen_digits.py", path, "ranges"]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
        return path

    def installation(self, style: str, **options: Any) -> Installation:
        key = (style, tuple(sorted(options.items())))
        if key not in self._installations:
            self._installations[key] = Installation(self.root / f"site-{len(self._installations)}", style, **options)
        return self._installations[key]

    def start(self, style: str, limits: Limits | None = None, **settings: str) -> AgentProcess:
        return self.installation(style).start(self.root / f"agent-{style}.log", limits, **settings)

    def request(self, style: str, precision: str, **changes: Any) -> dict[str, Any]:
        self.count += 1
        directory = self.root / f"out-{self.count}"
        directory.mkdir()
        kind, path = ("keras", DIGITS / "digits_cnn.keras") if style in SECOND else ("frozen_graph", self.frozen)
        return {
            "backend": "tftrt",
            "precision": precision,
            "batch": BATCH,
            "source": {"format": kind, "path": str(path), "architecture": None, "seed": None, "inputs": [], "outputs": []},
            "input": INPUT,
            "calibration": str(self.root / "calibration.npy"),
            "output_directory": str(directory),
            "device": "cuda",
            "options": {},
            **changes,
        }

    def convert(
        self, style: str, precision: str, *, settings: dict[str, str] | None = None, **changes: Any
    ) -> tuple[Path, dict[str, Any]]:
        request = self.request(style, precision, **changes)
        with self.start(style, **(settings or {})) as agent:
            result = agent.convert(request)
        return Path(request["output_directory"]) / result["model"], result

    def converted(self, style: str, precision: str) -> tuple[Path, dict[str, Any]]:
        """Made once for all tests that only look at it."""
        if (style, precision) not in self._converted:
            self._converted[style, precision] = self.convert(style, precision)
        return self._converted[style, precision]

    def load(self, agent: AgentProcess, model: Path, precision: str = "fp32", **changes: Any) -> dict[str, Any]:
        arguments = {
            "backend": "tftrt",
            "precision": precision,
            "model": str(model),
            "threads": 1,
            "batch": BATCH,
            "input": INPUT,
            "device": "cuda",
            "options": {},
            **changes,
        }
        return agent.load(arguments)

    def predict(self, agent: AgentProcess) -> tuple[Any, dict[str, Any]]:
        reply = agent.predict({"inputs": str(self.root / "pictures.npy"), "outputs": str(self.root / "outputs.npy")})
        return numpy.load(self.root / "outputs.npy"), reply["coverage"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("tftrt"))


@pytest.fixture(autouse=True)
def nothing_is_wrong(workshop: Workshop) -> None:
    """What a test that failed had let the double do does not reach the next."""
    for style in (*SECOND, *FIRST):
        workshop.installation(style).let()


def refusal(ask: Any) -> StageFailed:
    with pytest.raises(StageFailed) as caught:
        ask()
    assert "\n" not in caught.value.outcome.message
    return caught.value


# From the checkpoint to figures


@pytest.mark.parametrize(
    ("style", "precision"),
    [
        ("direct", "fp32"),
        ("direct", "fp16"),
        ("direct", "int8"),
        ("parameters", "fp16"),
        ("parameters", "int8"),
        ("graph", "fp16"),
        ("graph", "int8"),
        ("contrib", "fp32"),
        ("contrib", "int8"),
    ],
)
def test_convert_build_run_and_measure(workshop: Workshop, style: str, precision: str) -> None:
    model, result = workshop.converted(style, precision)
    with workshop.start(style) as agent:  # as the plugin does: another process runs what one has built
        loaded = workshop.load(agent, model, precision)
        outputs, coverage = workshop.predict(agent)
        measured = agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": None, "rounds": RULE})
    assert (outputs.argmax(axis=1) == workshop.labels).mean() > 0.95
    assert [tensor["shape"] for tensor in loaded["inputs"] + loaded["outputs"]] == [[BATCH, 32, 32, 1], [BATCH, 10]]
    assert loaded["runtime"] == {"name": "tensorflow", "version": VERSIONS[style].partition("+")[0]}
    assert len(measured["rounds"]) == 3
    details = result["details"]
    assert details["api"] == style
    assert [engine["name"] for engine in details["engines"]] == [ENGINE_NAMES[style]]
    assert details["coverage"]["native_segments"] == 0
    assert details["coverage"]["on_accelerator"] > 20
    assert details["remarks"] == []
    assert measured["coverage"] == coverage == details["coverage"]
    assert (result["converter"]["tensorrt"], result["converter"]["sm"]) == (TENSORRT, "8.7")
    assert details["engines_built"] == ("at the first inference" if (style in FIRST and precision == "int8") else "at conversion")
    assert details["nodes"]["after"] < details["nodes"]["before"]
    # The double writes models as TF-TRT does, down to the operation's name.
    content = (model / "saved_model.pb").read_bytes()
    assert b"TRTEngineOp" in content and b"_native_segment" in content


def test_a_lower_precision_is_another_model(workshop: Workshop) -> None:
    outputs = {}
    for precision in ("fp32", "fp16", "int8"):
        model, _ = workshop.converted("direct", precision)
        with workshop.start("direct") as agent:
            workshop.load(agent, model, precision)
            outputs[precision] = workshop.predict(agent)[0]
    assert 0 < numpy.abs(outputs["fp16"] - outputs["fp32"]).max() < 0.02
    assert numpy.abs(outputs["fp16"] - outputs["fp32"]).max() < numpy.abs(outputs["int8"] - outputs["fp32"]).max()


def test_what_the_converter_says_is_held_against_the_graph(workshop: Workshop) -> None:
    _, result = workshop.converted("direct", "fp16")
    details = result["details"]
    assert details["summary"]["engines"] == len(details["engines"]) == 1
    assert details["summary"]["converted"] == details["nodes"]["converted"]
    assert workshop.converted("parameters", "fp16")[1]["details"]["summary"] is None  # no such thing in 2.3


@pytest.mark.parametrize("style", SECOND)
def test_calibration_pictures_arrive_in_batches_of_the_case(workshop: Workshop, style: str) -> None:
    wide = workshop.root / "wide.npy"
    pictures = 1000 * numpy.load(workshop.root / "calibration.npy")
    numpy.save(wide, pictures)
    model, _ = workshop.convert(style, "int8", calibration=str(wide))
    with workshop.start(style) as agent:
        workshop.load(agent, model, "int8")
        outputs, _ = workshop.predict(agent)
    log = (workshop.root / f"agent-{style}.log").read_text()
    # Of nine pictures, in twos: the odd one is left out.
    assert f"double: calibrated between {pictures[:8].min():.3f} and {pictures[:8].max():.3f}" in log
    assert (outputs.argmax(axis=1) == workshop.labels).mean() < 0.95  # scales for other pictures


@pytest.mark.parametrize("style", ["direct", "graph"])
def test_ranges_that_are_in_the_graph_need_no_pictures(workshop: Workshop, style: str) -> None:
    trained = {
        "format": "frozen_graph",
        "path": str(workshop.with_ranges),
        "architecture": None,
        "seed": None,
        "inputs": ["picture:0"],
        "outputs": [],
    }
    options = {"use_calibration": False}
    model, result = workshop.convert(style, "int8", calibration=None, options=options, source=trained)
    assert result["details"]["engines_built"] == "at conversion"
    with workshop.start(style) as agent:
        workshop.load(agent, model, "int8")
        outputs, coverage = workshop.predict(agent)
        assert (outputs.argmax(axis=1) == workshop.labels).mean() > 0.9
        assert coverage["native_segments"] == 0
        failure = refusal(lambda: agent.convert(workshop.request(style, "int8", calibration=None, options=options)))
    assert failure.outcome.kind == "build_error"
    assert failure.outcome.message.startswith("use_calibration is false, but the graph has no ranges in it (none of FakeQuant")


def test_pictures_are_asked_for_where_ranges_are_to_be_found(workshop: Workshop) -> None:
    with workshop.start("direct") as agent:
        failure = refusal(lambda: agent.convert(workshop.request("direct", "int8", calibration=None)))
    assert failure.outcome.kind == "build_error"
    assert "[calibration]" in failure.outcome.message


# Coverage


def test_operations_that_are_left_to_tensorflow_are_named_with_the_reason(workshop: Workshop) -> None:
    model, result = workshop.convert("direct", "fp16", settings={"DENY": "Softmax,Relu"})
    coverage = result["details"]["coverage"]
    assert coverage["parts"] == len(result["details"]["engines"]) > 1
    left = {one["operation"]: one for one in coverage["elsewhere_by_operation"]}
    assert left["Softmax"] == {"operation": "Softmax", "count": 1, "reason": "Softmax is not supported by this double"}
    assert left["Relu"]["count"] >= 5
    assert coverage["elsewhere"] == sum(one["count"] for one in coverage["elsewhere_by_operation"])
    with workshop.start("direct") as agent:
        workshop.load(agent, model, "fp16")
        outputs, at_run_time = workshop.predict(agent)
    assert (outputs.argmax(axis=1) == workshop.labels).mean() > 0.95
    told = ("on_accelerator", "elsewhere", "parts", "native_segments")
    assert [at_run_time[key] for key in told] == [coverage[key] for key in told]


def test_the_settings_of_the_card_reach_the_converter(workshop: Workshop) -> None:
    options = {
        "minimum_segment_size": 1000,
        "workspace_bytes": 64 * MIB,
        "maximum_cached_engines": 3,
        "memory_limit_bytes": 512 * MIB,
        "use_dynamic_shape": True,
    }
    log = workshop.root / "agent-direct.log"
    begun = log.stat().st_size if log.exists() else 0
    model, result = workshop.convert("direct", "fp16", options=options)
    details = result["details"]
    assert (details["workspace_bytes"], details["memory_limit_bytes"]) == (64 * MIB, 512 * MIB)
    assert details["engines"] == []
    assert details["coverage"]["on_accelerator"] == 0
    assert details["coverage"]["elsewhere"] > 20
    assert "TF-TRT made no engine" in details["remarks"][0]
    with workshop.start("direct") as agent:
        workshop.load(agent, model, "fp16", options=options)
        assert workshop.predict(agent)[1]["parts"] == 0
    said = log.read_bytes()[begun:].decode()
    assert said.count("double: GPU limited to 512 MB") == 2
    assert "double: engines for shapes that vary, with Range profiles" in said


NOT_RUN = {
    "cache_full": "engine cache is full",
    "shapes": "Input shapes are inconsistent on the batch dimension",
    "no_build": "no engine was built for these shapes, and none may be at run time",
    "build_failure": "Failed to build TensorRT engine",
}


def test_an_engine_that_is_not_run_is_noticed_while_measuring(workshop: Workshop) -> None:
    """Nothing fails, the answers are right, and it is as fast as a CPU is: only the log and the count tell."""
    model, result = workshop.converted("direct", "fp16")
    whole = result["details"]["coverage"]
    assert whole["native_segments"] == 0
    installation = workshop.installation("direct")
    with workshop.start("direct") as agent:
        for run, reason in NOT_RUN.items():
            installation.let(RUN=run)
            workshop.load(agent, model, "fp16")
            measured = agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": None, "rounds": RULE})
            outputs, coverage = workshop.predict(agent)
            assert (outputs.argmax(axis=1) == workshop.labels).mean() > 0.95
            assert measured["coverage"] == coverage
            assert (coverage["native_segments"], coverage["parts"], coverage["on_accelerator"]) == (1, 1, 0), run
            assert coverage["elsewhere"] == whole["on_accelerator"]
            (told,) = {one["reason"] for one in coverage["elsewhere_by_operation"]}
            assert told.startswith("TRTEngineOp_000_000 ran as native TensorFlow: ")
            assert reason in told
        installation.let()
        workshop.load(agent, model, "fp16")  # what was printed before a model was loaded is not of that model
        assert workshop.predict(agent)[1] == whole


@pytest.mark.parametrize("style", SECOND)
def test_an_engine_that_cannot_be_built_is_noticed_while_converting(workshop: Workshop, style: str) -> None:
    _, result = workshop.convert(style, "fp16", settings={"FAULT": "build_failure"})
    coverage = result["details"]["coverage"]
    assert (coverage["native_segments"], coverage["on_accelerator"]) == (1, 0)
    (remark,) = result["details"]["remarks"]
    assert remark.startswith(f"{ENGINE_NAMES[style]} runs as native TensorFlow: ")
    assert "Failed to build TensorRT engine" in remark


def test_executions_are_printed_where_engines_are_built_and_not_where_they_are_measured(workshop: Workshop) -> None:
    model, _ = workshop.convert("direct", "fp16")
    log = workshop.root / "agent-direct.log"
    converting = log.read_text()
    assert "Executing TRT engine: " in converting
    with workshop.start("direct") as agent:
        workshop.load(agent, model, "fp16")
        agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": None, "rounds": RULE})
    assert "Executing TRT engine: " not in log.read_text()[len(converting) :]


# Variants


def test_a_variant_of_a_detector_s_graph_is_converted_and_told(workshop: Workshop) -> None:
    """A SavedModel with a loop of TensorFlow 1, in TensorFlow 2: TF-TRT sees into it, and the suppression stays on the processor."""
    folder = workshop.root / "zoo"
    folder.mkdir()
    subprocess.run([sys.executable, HERE / "make_detectors.py", folder, "graph"], check=True, capture_output=True, timeout=300)
    names = ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]
    source = {"format": "frozen_graph", "path": str(folder), "architecture": None, "seed": None}
    input = {"shape": [20, 20, 3], "dtype": "uint8", "layout": "nhwc"}
    more = {"input": input, "task": "detection", "variant": "nms_cpu", "calibration": None}
    _, result = workshop.convert("direct", "fp16", source={**source, "inputs": ["image_tensor"], "outputs": names}, **more)
    details = result["details"]
    assert details["nms"]["device"] == "/device:CPU:0"
    assert details["nms"]["nodes"] > 100  # the whole scope, as people did it by hand
    assert details["remarks"] == ["the graph has 2 NonMaxSuppression operations, and all of them were put on the processor"]
    assert details["coverage"]["on_accelerator"] > 20
    assert {one["operation"] for one in details["coverage"]["elsewhere_by_operation"]} >= {"NonMaxSuppressionV3", "Enter"}


# Sizes


SIZES = (
    (
        {"workspace_bytes": 64 * MIB, "memory_limit_bytes": 64 * MIB},
        "build_error",
        "lower workspace_bytes or raise memory_limit_bytes",
    ),
    ({"memory_limit_bytes": 512 * MIB}, "build_error", "workspace_bytes is not set, which means 1.0 GiB here"),
    ({"workspace_bytes": 64 * MIB, "memory_limit_bytes": 512 * MIB}, "oom", "lower memory_limit_bytes"),
    ({"workspace_bytes": 512 * MIB}, "oom", "workspace_bytes is 512 MiB and only 400 MiB of the GPU's memory are free"),
)


def test_sizes_that_do_not_fit_are_refused_before_the_build(workshop: Workshop) -> None:
    with workshop.start("direct", FREE_BYTES=str(400 * MIB)) as agent:
        for options, kind, words in SIZES:
            failure = refusal(lambda options=options: agent.convert(workshop.request("direct", "fp16", options=options)))
            assert failure.outcome.kind == kind
            assert words in failure.outcome.message


def test_a_runner_is_not_given_more_than_is_free(workshop: Workshop) -> None:
    model, _ = workshop.converted("direct", "fp16")
    with workshop.start("direct", FREE_BYTES=str(400 * MIB)) as agent:
        failure = refusal(lambda: workshop.load(agent, model, "fp16", options={"memory_limit_bytes": 512 * MIB}))
    assert failure.outcome.kind == "oom"
    assert "memory_limit_bytes is 512 MiB and only 400 MiB" in failure.outcome.message


# What goes wrong


REFUSALS = {
    "not_built": ("unsupported", "NVIDIA's TensorFlow for this JetPack brings TF-TRT up to TensorFlow 2.17"),
    "versions": ("load_error", "was built with TensorRT 10.3.0 and TensorRT 8.5.2 is loaded here"),
    "no_library": ("load_error", "LD_LIBRARY_PATH"),
    "no_gpu": ("unsupported", "TensorFlow sees no GPU"),
    "device_memory": ("oom", "lower workspace_bytes or memory_limit_bytes"),
    "memory_error": ("oom", "lower workspace_bytes or memory_limit_bytes"),
}


def test_a_converter_that_says_no(workshop: Workshop) -> None:
    installation = workshop.installation("direct")
    with workshop.start("direct") as agent:  # one agent: it lives on, and what is told of one failure is not told of the next
        for fault, (kind, words) in REFUSALS.items():
            installation.let(FAULT=fault)
            failure = refusal(lambda: agent.convert(workshop.request("direct", "fp16")))
            assert failure.outcome.kind == kind, fault
            assert words in failure.outcome.message
        installation.let()
        assert agent.convert(workshop.request("direct", "fp16"))["details"]["coverage"]["parts"] == 1


def test_a_tensorflow_without_the_module(workshop: Workshop) -> None:
    with workshop.start("direct", FAULT="no_tftrt") as agent:
        failure = refusal(lambda: agent.convert(workshop.request("direct", "fp16")))
    assert failure.outcome.kind == "unsupported"
    assert "use the backend tensorrt" in failure.outcome.message


def test_another_release_of_tensorrt_in_the_words_of_tensorflow_1(workshop: Workshop) -> None:
    for style in FIRST:
        with workshop.start(style, FAULT="versions") as agent:
            failure = refusal(lambda style=style, agent=agent: agent.convert(workshop.request(style, "fp16")))
        assert failure.outcome.kind == "load_error"
        assert "was built with TensorRT 10.3.0 and TensorRT 8.5.2 is loaded here" in failure.outcome.message


def test_an_abort_in_the_converter_is_a_crash_with_its_signal(workshop: Workshop) -> None:
    with workshop.start("direct", FAULT="abort") as agent:
        failure = refusal(lambda: agent.convert(workshop.request("direct", "fp16")))
    assert (failure.outcome.kind, failure.outcome.signal, failure.outcome.stage) == ("crash", "SIGABRT", "convert")
    assert "Check failed: IsJobName(job)" in failure.outcome.message


def test_a_converter_that_hangs_is_stopped(workshop: Workshop) -> None:
    with workshop.start("direct", Limits({"convert": 20.0}), FAULT="hang") as agent:
        failure = refusal(lambda: agent.convert(workshop.request("direct", "fp16")))
    assert failure.outcome.kind == "timeout"


def test_a_converter_that_takes_all_memory_is_stopped(workshop: Workshop) -> None:
    with workshop.start("direct", Limits({"convert": 600.0}, memory_bytes=2 << 30), FAULT="eats_memory") as agent:
        failure = refusal(lambda: agent.convert(workshop.request("direct", "fp16")))
    assert failure.outcome.kind == "oom"
    assert "more than the limit of 2.0 GiB" in failure.outcome.message


def test_the_real_tensorflow_here_has_no_tf_trt_and_it_is_said(workshop: Workshop, tmp_path: Path) -> None:
    """Without the double: this is what a user of a stock wheel sees, when converting and with a model that was converted elsewhere."""
    from pytest_inference_gate.targets.interpreter import InterpreterTarget

    model, _ = workshop.converted("direct", "fp16")
    installed = workshop.installation("direct")
    bare = tmp_path / "site"  # TensorRT and a GPU are there, so that it is TensorFlow that says no
    shutil.copytree(next(installed.directory.glob("tensorrt_libs-*")), bare / f"tensorrt_libs-{TENSORRT}.dist-info")
    variables = installed.variables()
    environment = {**os.environ, "PYTHONPATH": str(bare), "LD_LIBRARY_PATH": variables["LD_LIBRARY_PATH"]}
    limits = Limits({"convert": 600.0, "load": 300.0})
    with AgentProcess(
        InterpreterTarget(sys.executable).command, tmp_path / "agent.log", limits, environment=environment
    ) as agent:
        for ask, kind, words in (
            (
                lambda: agent.convert(workshop.request("direct", "fp16")),
                "unsupported",
                "has not been built with TensorRT support",
            ),
            (lambda: workshop.load(agent, model, "fp16"), "load_error", "does not know the operations of a TF-TRT model"),
        ):
            failure = refusal(ask)
            assert failure.outcome.kind == kind
            assert words in failure.outcome.message
            assert "TensorFlow 2.18 and later have none, so use the backend tensorrt there" in failure.outcome.message


def test_foreign_engines_and_other_batches_are_refused(workshop: Workshop) -> None:
    model, _ = workshop.converted("direct", "fp16")
    with workshop.start("direct", SM="7.2", GPU="Xavier") as agent:
        failure = refusal(lambda: workshop.load(agent, model, "fp16"))
        assert failure.outcome.kind == "load_error"
        assert "SM was 8.7 and is 7.2" in failure.outcome.message
        assert "convert the case again on this device" in failure.outcome.message
    with workshop.start("direct") as agent:
        failure = refusal(lambda: workshop.load(agent, model, "fp16", batch=8))
        assert failure.outcome.kind == "load_error"
        assert "convert it again for this batch" in failure.outcome.message
    copy = workshop.root / "without-provenance"
    shutil.copytree(model, copy)
    (copy / "assets.extra" / "inference_gate.json").write_text(json.dumps({"schema": "other"}))
    with workshop.start("direct") as agent:
        assert "convert the case again" in refusal(lambda: workshop.load(agent, copy, "fp16")).outcome.message


def test_what_it_does_not_have_at_all(workshop: Workshop) -> None:
    model, _ = workshop.converted("direct", "fp16")
    with workshop.start("direct") as agent:
        for ask in (
            lambda: agent.convert(workshop.request("direct", "dynamic")),
            lambda: agent.convert(workshop.request("direct", "fp16", device="cpu")),
            lambda: workshop.load(agent, model, "fp16", device="cpu"),
        ):
            assert refusal(ask).outcome.kind == "unsupported"


# The probe


@pytest.mark.parametrize("style", VERSIONS)
def test_the_probe_tells_what_engines_are_made_of(workshop: Workshop, style: str) -> None:
    with workshop.start(style) as agent:
        backend = agent.probe()["backends"]["tftrt"]
    assert backend["available"] and backend["can_convert"] and backend["can_run"]
    assert backend["precisions_convert"] == backend["precisions_run"] == ["fp32", "fp16", "int8"]
    made_of = backend["converter"]
    assert (made_of["tensorflow"], made_of["tensorrt"], made_of["gpu"]) == (VERSIONS[style], TENSORRT, "Orin")


@pytest.mark.parametrize(
    ("options", "settings", "reason"),
    [
        ({"tensorflow": "2.18.0"}, {}, "TensorFlow 2.18.0 has no TF-TRT, which ended with 2.17: use the backend tensorrt"),
        ({"tensorrt": False}, {}, "TensorRT's library libnvinfer is not installed"),
        ({}, {"CUINIT": "100"}, "no CUDA-capable device"),
        ({"gpu": False}, {}, "the driver's library cannot be loaded"),
    ],
)
def test_the_probe_says_why_not(workshop: Workshop, options: dict[str, Any], settings: dict[str, str], reason: str) -> None:
    with workshop.installation("direct", **options).start(workshop.root / "probe.log", **settings) as agent:
        backend = agent.probe()["backends"]["tftrt"]
    assert not (backend["available"] or backend["can_convert"] or backend["can_run"])
    assert reason in backend["reason"]
