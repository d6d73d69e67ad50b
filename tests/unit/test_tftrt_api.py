"""Which of TF-TRT's converters is chosen, and with which arguments it is called, over the signatures of every kind of release.

The signatures were read from the program text of the releases (tests/doubles/tftrt/read_signatures.py); what has them here does nothing.
"""

from __future__ import annotations

import inspect
import json
import types
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate.agent import tftrt_api
from pytest_inference_gate.agent.failures import AgentError, BuildError, LoadError, OutOfMemory, Unsupported

SIGNATURES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "doubles" / "tftrt" / "signatures.json").read_text()
)
STYLES = {
    "1.13.1": "contrib",
    "1.14.0": "graph",
    "1.15.0": "graph",
    "2.1.0": "parameters",
    "2.3.1": "parameters",
    "2.4.1": "parameters",
    "2.7.0": "parameters",
    "2.11.0": "direct",
    "2.16.2": "direct",
    "2.21.0": "direct",
}
SECOND = [release for release, style in STYLES.items() if style in ("direct", "parameters")]
FIRST = [release for release, style in STYLES.items() if style in ("graph", "contrib")]


class Recorder:
    """Functions with given signatures, which note how they are called and refuse what the signature does not have."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.calls: list[tuple[str, dict[str, Any]]] = []
        described = SIGNATURES[release]
        self.module = types.SimpleNamespace()
        for name, value in described.items():
            if name == "TrtConversionParams":
                continue
            if isinstance(value, dict):
                setattr(self.module, name, self._class(name, value))
            elif isinstance(value, list):
                setattr(self.module, name, self._function(name, value, bound=False))
        if "TrtConversionParams" in described:
            fields = described["TrtConversionParams"]
            self.module.DEFAULT_TRT_CONVERSION_PARAMS = namedtuple("TrtConversionParams", fields)(*["default"] * len(fields))
            self.module.DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES = 1 << 30
        self.tf = types.SimpleNamespace(executing_eagerly=lambda: release >= "2")

    def _class(self, name: str, methods: dict[str, Any]) -> type:
        return type(
            name, (), {method: self._function(f"{name}.{method}", given, bound=True) for method, given in methods.items()}
        )

    def _function(self, name: str, parameters: list[list[Any]], *, bound: bool) -> Any:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        wanted = [inspect.Parameter("self", kind)] if bound else []
        for one, required in parameters:
            wanted.append(inspect.Parameter(one, kind, default=inspect.Parameter.empty if required else "default"))
        signature = inspect.Signature(wanted)

        def function(*arguments: Any, **named: Any) -> Any:
            given = dict(signature.bind(*arguments, **named).arguments)
            given.pop("self", None)
            self.calls.append((name, given))
            if name.endswith("__init__"):
                return None
            for feed in ("calibration_input_fn", "input_fn"):
                if feed in given:
                    given[feed] = list(given[feed]())
            if "feed_dict_fn" in given:
                given["feed_dict_fn"] = [given["feed_dict_fn"]() for _ in range(given["num_runs"])]
            return f"result of {name}"

        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    def called(self, name: str) -> dict[str, Any]:
        (given,) = [arguments for called, arguments in self.calls if called == name]
        return given


def settings(precision: str = "fp16", **changes: Any) -> tftrt_api.Settings:
    values = {
        "precision": precision,
        "batch": 8,
        "workspace_bytes": 1 << 20,
        "minimum_segment_size": 5,
        "maximum_cached_engines": 10,
        "use_calibration": True if precision == "int8" else None,
        **changes,
    }
    return tftrt_api.Settings(**values)


def batches() -> Iterator[str]:
    yield from ("first", "second")


def test_every_recorded_release_is_here() -> None:
    assert set(SIGNATURES) == set(STYLES)


@pytest.mark.parametrize("release", STYLES)
def test_the_converter_is_found_by_its_looks(release: str) -> None:
    recorder = Recorder(release)
    assert tftrt_api.style_of(recorder.tf, recorder.module) == STYLES[release]


def test_graphs_are_not_converted_eagerly_and_the_other_way_round() -> None:
    """TensorFlow 1.15 has both classes, as 2.1 has, and only the mode tells which one can be used."""
    recorder = Recorder("2.1.0")
    recorder.tf.executing_eagerly = lambda: False
    assert tftrt_api.style_of(recorder.tf, recorder.module) == "graph"
    early = Recorder("1.14.0")
    early.tf.executing_eagerly = lambda: True
    with pytest.raises(Unsupported, match="cannot build engines"):
        tftrt_api.style_of(early.tf, early.module)
    with pytest.raises(Unsupported, match="no TF-TRT converter that is known"):
        tftrt_api.style_of(early.tf, types.SimpleNamespace())


@pytest.mark.parametrize("release", SECOND)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_converters_of_tensorflow_2(release: str, precision: str) -> None:
    recorder = Recorder(release)
    style = tftrt_api.style_of(recorder.tf, recorder.module)
    converter = tftrt_api.new_v2(recorder.module, style, "/model", settings(precision))
    tftrt_api.convert_v2(converter, settings(precision), batches)
    tftrt_api.build_v2(converter, "pictures")
    given = recorder.called("TrtGraphConverterV2.__init__")
    assert given["input_saved_model_dir"] == "/model"
    values = given if style == "direct" else given["conversion_params"]._asdict()
    assert values["precision_mode"] == precision.upper()
    assert values["max_workspace_size_bytes"] == 1 << 20
    assert (values["minimum_segment_size"], values["maximum_cached_engines"]) == (5, 10)
    assert values.get("is_dynamic_op", True) is True
    assert recorder.called("TrtGraphConverterV2.build")["input_fn"] == [["pictures"]]
    converted = recorder.called("TrtGraphConverterV2.convert")
    assert converted == ({"calibration_input_fn": [["first"], ["second"]]} if precision == "int8" else {})


@pytest.mark.parametrize("release", SECOND)
def test_what_is_not_set_is_left_to_tensorflow(release: str) -> None:
    recorder = Recorder(release)
    style = tftrt_api.style_of(recorder.tf, recorder.module)
    bare = settings(workspace_bytes=None, minimum_segment_size=None, maximum_cached_engines=None)
    tftrt_api.new_v2(recorder.module, style, "/model", bare)
    given = recorder.called("TrtGraphConverterV2.__init__")
    if style == "direct":
        assert given == {"input_saved_model_dir": "/model", "precision_mode": "FP16"}
    else:
        changed = {key: value for key, value in given["conversion_params"]._asdict().items() if value != "default"}
        assert changed.pop("is_dynamic_op", True) is True
        assert changed == {"precision_mode": "FP16"}


@pytest.mark.parametrize("release", SECOND)
def test_ranges_in_the_graph_need_no_calibration(release: str) -> None:
    recorder = Recorder(release)
    style = tftrt_api.style_of(recorder.tf, recorder.module)
    trained = settings("int8", use_calibration=False)
    tftrt_api.convert_v2(tftrt_api.new_v2(recorder.module, style, "/model", trained), trained, batches)
    assert recorder.called("TrtGraphConverterV2.convert") == {}
    given = recorder.called("TrtGraphConverterV2.__init__")
    assert (given if style == "direct" else given["conversion_params"]._asdict())["use_calibration"] is False


@pytest.mark.parametrize("release", STYLES)
def test_shapes_that_vary_are_asked_for_where_the_converter_can_be(release: str) -> None:
    recorder, varying = Recorder(release), settings(use_dynamic_shape=True)
    style = tftrt_api.style_of(recorder.tf, recorder.module)
    graph = tftrt_api.Graph("graph", "input:0", ["output:0"])

    def convert() -> None:
        if release in SECOND:
            tftrt_api.new_v2(recorder.module, style, "/model", varying)
        else:
            tftrt_api.convert_graph(recorder.tf, recorder.module, style, graph, varying, "config", batches)

    if release in ("2.7.0", "2.11.0", "2.16.2", "2.21.0"):
        convert()
        assert recorder.called("TrtGraphConverterV2.__init__")["use_dynamic_shape"] is True
    else:
        with pytest.raises(BuildError, match="has no use_dynamic_shape"):
            convert()
        assert not recorder.calls


@pytest.mark.parametrize(
    ("precision", "use_calibration", "operations", "fine"),
    [
        ("int8", False, {"Conv2D", "FakeQuantWithMinMaxVars"}, True),
        ("int8", False, {"QuantizeAndDequantizeV3"}, True),
        ("int8", False, {"Conv2D", "FakeQuantWithMinMaxVarsPerChannel"}, False),
        ("int8", True, {"Conv2D"}, True),
        ("fp16", None, {"Conv2D"}, True),
    ],
)
def test_a_graph_that_is_not_calibrated_needs_ranges(
    precision: str, use_calibration: bool | None, operations: set[str], fine: bool
) -> None:
    wanted = settings(precision, use_calibration=use_calibration)
    if fine:
        tftrt_api.require_ranges(wanted, operations)
        return
    with pytest.raises(BuildError, match="use_calibration is false, but the graph has no ranges in it") as caught:
        tftrt_api.require_ranges(wanted, operations)
    assert "\n" not in str(caught.value)


def test_a_summary_is_asked_for_where_there_is_one() -> None:
    assert tftrt_api.summary_v2(object()) is None

    class Converter:
        def summary(self, line_length: int = 160, detailed: bool = True, print_fn: Any = None) -> None:
            assert line_length >= 160
            print_fn()
            print_fn("[*] Total number of TensorRT engines: 1")
            print_fn("[*] % of OPs Converted: 90.00% [9/10]\n")

    assert tftrt_api.summary_v2(Converter()) == {"engines": 1, "converted": 9, "nodes": 10}


@pytest.mark.parametrize("release", FIRST)
def test_converters_of_tensorflow_1_build_for_the_cases_batch(release: str) -> None:
    recorder = Recorder(release)
    style = tftrt_api.style_of(recorder.tf, recorder.module)
    graph = tftrt_api.Graph("graph", "input:0", ["output:0"])
    converted = tftrt_api.convert_graph(recorder.tf, recorder.module, style, graph, settings(), "config", batches)
    name, denied = {
        "contrib": ("create_inference_graph", "outputs"),
        "graph": ("TrtGraphConverter.__init__", "nodes_blacklist"),
    }[style]
    given = recorder.called(name)
    assert (given["input_graph_def"], given[denied]) == ("graph", ["output"])
    assert (given["max_batch_size"], given["is_dynamic_op"]) == (8, False)
    assert given["session_config"] == "config"
    assert (given["precision_mode"], given["max_workspace_size_bytes"], given["minimum_segment_size"]) == ("FP16", 1 << 20, 5)
    assert converted.startswith("result of")


@pytest.mark.parametrize("release", ["1.14.0", "1.15.0"])
def test_calibration_of_graphs(release: str) -> None:
    recorder = Recorder(release)
    graph = tftrt_api.Graph("graph", "input:0", ["output:0"])
    tftrt_api.convert_graph(recorder.tf, recorder.module, "graph", graph, settings("int8"), "config", batches)
    assert recorder.called("TrtGraphConverter.__init__")["is_dynamic_op"] is True
    calibrated = recorder.called("TrtGraphConverter.calibrate")
    assert (calibrated["fetch_names"], calibrated["num_runs"]) == (["output:0"], 2)
    assert calibrated["feed_dict_fn"] == [{"input:0": "first"}, {"input:0": "second"}]


def test_graphs_in_later_releases_have_another_word_for_what_to_leave_alone() -> None:
    recorder = Recorder("2.7.0")
    recorder.tf.executing_eagerly = lambda: False
    graph = tftrt_api.Graph("graph", "input:0", ["output:0"])
    tftrt_api.convert_graph(recorder.tf, recorder.module, "graph", graph, settings(), "config", batches)
    assert recorder.called("TrtGraphConverter.__init__")["nodes_denylist"] == ["output"]


LOADED = "ERROR:tensorflow:Loaded TensorRT 8.5.2 but linked TensorFlow against TensorRT 10.3.0. A few requirements must be met:"


@pytest.mark.parametrize(
    ("error", "log", "kind", "words"),
    [
        (RuntimeError("Tensorflow has not been built with TensorRT support."), "", Unsupported, "up to TensorFlow 2.17"),
        (
            RuntimeError("Op type not registered 'CreateTRTResourceHandle' in binary running on board"),
            "",
            LoadError,
            "use the backend tensorrt",
        ),
        (
            RuntimeError("Op type not registered 'TRTEngineOp' in binary running on board"),
            "",
            LoadError,
            "use the backend tensorrt",
        ),
        (RuntimeError("Incompatible TensorRT major version"), LOADED, LoadError, "built with TensorRT 10.3.0 and TensorRT 8.5.2"),
        (RuntimeError("Incompatible TensorRT versions"), "", LoadError, "install NVIDIA's TensorFlow for this JetPack"),
        (
            RuntimeError("Incompatible loaded TensorRT versions"),
            "The loaded version of TensorRT: `6.0.1` has now been removed.",
            LoadError,
            "TensorRT 6.0.1 (loaded) is older",
        ),
        (
            RuntimeError("Incompatible loaded TensorRT versions"),
            "The loaded version of TensorRT: `0.0.0` has now been removed.",
            LoadError,
            "LD_LIBRARY_PATH",
        ),
        (ValueError("Specified device is not a GPU: /device:CPU:0"), "", Unsupported, "sees no GPU"),
        (OSError("libnvinfer.so.8: cannot open shared object file"), "", LoadError, "libnvinfer.so.8"),
        (RuntimeError("OOM when allocating tensor"), "", OutOfMemory, "lower workspace_bytes or memory_limit_bytes"),
        (MemoryError(), "", OutOfMemory, "lower workspace_bytes or memory_limit_bytes"),
        (ValueError("something else that is long enough to be told"), "", BuildError, "TF-TRT failed: something else"),
    ],
)
def test_what_tf_trt_means_is_said(error: Exception, log: str, kind: type[AgentError], words: str) -> None:
    meant = tftrt_api.explained(error, log, BuildError)
    assert type(meant) is kind
    assert words in str(meant)
    assert "\n" not in str(meant)


def test_what_is_known_already_stays_as_it_is() -> None:
    known = BuildError("there is no checkpoint at x")
    assert tftrt_api.explained(known, LOADED, LoadError) is known
