"""The backends with the real TensorFlow, LiteRT and ONNX Runtime: every precision, every kind of checkpoint, and what is refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.targets.interpreter import InterpreterTarget

RUNTIMES = ("tensorflow", "ai_edge_litert", "onnxruntime", "tf2onnx")
MISSING = [name for name in RUNTIMES if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

BATCH = 2  # of 7 pictures: the last batch is not full
SMALL = {"shape": [8, 8, 3], "dtype": "float32", "layout": "nhwc"}
MOBILENET = {"shape": [32, 32, 3], "dtype": "float32", "layout": "nhwc"}
WARM_UP = {"minimum_rounds": 4, "minimum_seconds": 0.0, "maximum_seconds": 60.0, "window": 2, "agreement": 0.5}
ROUNDS = {"minimum": 7, "minimum_seconds": 0.0, "maximum": 7}

# The largest difference of a probability from the float reference that each precision may make.
CLOSENESS = {
    ("tensorflow", "fp32"): 1e-5,
    ("tflite", "fp32"): 1e-5,
    ("tflite", "fp16"): 5e-3,
    ("tflite", "dynamic"): 0.03,
    ("tflite", "int8"): 0.03,
    ("tflite", "full_int8"): 0.03,
    ("onnxruntime", "fp32"): 1e-5,
    ("onnxruntime", "int8"): 0.03,
}
by_precision = pytest.mark.parametrize(("backend", "precision"), CLOSENESS, ids=["-".join(key) for key in CLOSENESS])


@dataclass
class Bench:
    """Checkpoints, an agent that converts them, and what it has converted so far."""

    checkpoints: Path
    output: Path
    agent: AgentProcess
    made: dict[tuple[Any, ...], tuple[Path, dict[str, Any]]] = field(default_factory=dict)

    def convert(
        self,
        backend: str,
        precision: str,
        format: str,
        path: str | Path | None,
        *,
        input: dict[str, Any] = SMALL,
        batch: int = BATCH,
        calibrate: bool = True,
        options: dict[str, Any] | None = None,
        **source: Any,
    ) -> tuple[Path, dict[str, Any]]:
        """The artifact and the agent's reply. Asked for the same again, the same."""
        key = (backend, precision, format, str(path), batch, calibrate, repr(options), repr(source))
        if key not in self.made:
            directory = self.output / str(len(list(self.output.iterdir())))
            directory.mkdir()
            result = self.agent.convert(
                {
                    "backend": backend,
                    "precision": precision,
                    "batch": batch,
                    "source": {
                        **{"architecture": None, "seed": None, "inputs": [], "outputs": []},
                        **{"format": format, "path": str(self.checkpoints / path) if path else None},
                        **source,
                    },
                    "input": input,
                    "calibration": str(self.checkpoints / "calibration.npy") if calibrate else None,
                    "output_directory": str(directory),
                    "options": options or {},
                }
            )
            self.made[key] = (directory / result["model"], result)
        return self.made[key]

    def load(
        self, agent: AgentProcess, backend: str, precision: str, model: Path, *, input: dict[str, Any] = SMALL, batch: int = BATCH
    ) -> dict[str, Any]:
        return agent.load(
            {"backend": backend, "precision": precision, "model": str(model), "threads": 1, "batch": batch, "input": input}
        )

    def predict(
        self, backend: str, precision: str, model: Path, *, pictures: str = "pictures.npy", input: dict[str, Any] = SMALL
    ) -> Any:
        with start(self.output.parent) as agent:
            self.load(agent, backend, precision, model, input=input)
            result = agent.predict(
                {"inputs": str(self.checkpoints / pictures), "outputs": str(self.output.parent / "outputs.npy")}
            )
        outputs = numpy.load(self.output.parent / "outputs.npy")
        assert result["count"] == len(outputs)
        assert outputs.dtype == numpy.float32
        return outputs

    def reference(self, name: str) -> Any:
        return numpy.load(self.checkpoints / f"{name}_reference.npy")


def start(directory: Path) -> AgentProcess:
    return InterpreterTarget().start_agent(directory / "agent.log", Limits({"convert": 600.0, "load": 300.0}))


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("backends")
    for name in ("checkpoints", "output"):
        (root / name).mkdir()
    command = [sys.executable, str(Path(__file__).with_name("make_checkpoints.py")), str(root / "checkpoints")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    with start(root) as agent:
        yield Bench(root / "checkpoints", root / "output", agent)


# Precisions


@by_precision
def test_each_precision_is_close_to_the_float_reference(bench: Bench, backend: str, precision: str) -> None:
    model, result = bench.convert(backend, precision, "keras", "model.keras")
    outputs = bench.predict(backend, precision, model)
    reference = bench.reference("keras")
    assert outputs.shape == reference.shape == (7, 5)
    assert numpy.abs(outputs - reference).max() <= CLOSENESS[backend, precision]
    assert numpy.ptp(reference, axis=0).max() > 0.1  # a reference that answers alike to all would prove nothing
    assert result["converter"]["tensorflow"]
    assert result["seconds"] > 0


@by_precision
def test_each_precision_is_measured(bench: Bench, backend: str, precision: str) -> None:
    model, _ = bench.convert(backend, precision, "keras", "model.keras")
    pictures = str(bench.checkpoints / "pictures.npy")
    with start(bench.output.parent) as agent:
        loaded = bench.load(agent, backend, precision, model)
        measured = agent.measure({"inputs": pictures, "warmup": WARM_UP, "rounds": ROUNDS})
        again = agent.measure({"inputs": pictures, "warmup": None, "rounds": ROUNDS})
    assert loaded["seconds"] > 0
    assert loaded["runtime"]["version"]
    assert [tensor["shape"] for tensor in loaded["inputs"] + loaded["outputs"]] == [[BATCH, 8, 8, 3], [BATCH, 5]]
    assert len(measured["rounds"]) == 7
    assert min(measured["rounds"]) > 0
    assert measured["first_inference"] > 0
    assert measured["warmup_rounds"] >= 4
    assert measured["clock"] == "perf_counter_ns"
    assert measured["peak_rss_bytes"] > 2**20
    assert set(measured["condition"]) == {"before", "after", "process_seconds"}
    assert (again["first_inference"], again["warmup_rounds"]) == (None, 0)


def test_there_is_no_first_inference_after_a_prediction(bench: Bench) -> None:
    model, _ = bench.convert("tflite", "fp32", "keras", "model.keras")
    pictures = str(bench.checkpoints / "pictures.npy")
    with start(bench.output.parent) as agent:
        bench.load(agent, "tflite", "fp32", model)
        agent.predict({"inputs": pictures, "outputs": str(bench.output.parent / "y.npy")})
        assert agent.measure({"inputs": pictures, "warmup": None, "rounds": ROUNDS})["first_inference"] is None


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("int8", "float32"), ("full_int8", "int8")])
def test_only_full_int8_takes_and_gives_integers(bench: Bench, precision: str, dtype: str) -> None:
    model, _ = bench.convert("tflite", precision, "keras", "model.keras")
    with start(bench.output.parent) as agent:
        loaded = bench.load(agent, "tflite", precision, model)
    for tensor in (*loaded["inputs"], *loaded["outputs"]):
        assert tensor["dtype"] == dtype
        assert (tensor["scale"] is not None and tensor["scale"] > 0) == (dtype == "int8")


def test_precisions_are_what_they_say(bench: Bench) -> None:
    operators = {
        (backend, precision): bench.convert(backend, precision, "keras", "model.keras")[1]["details"].get("operators", {})
        for backend, precision in CLOSENESS
        if backend != "tensorflow"
    }
    assert operators["tflite", "fp32"] == {"CONV_2D": 1, "MEAN": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    assert operators["tflite", "fp16"]["DEQUANTIZE"] >= 1
    assert operators["tflite", "int8"]["QUANTIZE"] >= 1
    assert "QUANTIZE" not in operators["tflite", "full_int8"]
    assert operators["onnxruntime", "int8"]["QuantizeLinear"] >= 1
    assert operators["onnxruntime", "fp32"]["Conv"] == 1


SCALES = """
import sys
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
(dense,) = [node for node in interpreter._get_ops_details() if node["op_name"] == "FULLY_CONNECTED"]
print(len(tensors[dense["inputs"][1]]["quantization_parameters"]["scales"]))
"""


def test_the_scales_of_dense_layers_can_be_chosen(bench: Bench) -> None:
    usual, _ = bench.convert("tflite", "int8", "keras", "model.keras")
    shared, _ = bench.convert("tflite", "int8", "keras", "model.keras", options={"per_channel_dense": False})
    counts = [
        int(subprocess.run([sys.executable, "-c", SCALES, model], capture_output=True, text=True, check=True).stdout)
        for model in (usual, shared)
    ]
    assert counts[0] > counts[1] == 1
    numpy.testing.assert_allclose(bench.predict("tflite", "int8", shared), bench.reference("keras"), atol=0.1)
    _, passed = bench.convert("tflite", "int8", "tflite", usual, options={"per_channel_dense": False})
    assert passed["details"]["remarks"] == ["the model was converted already, so per_channel_dense of the card was not used"]


def test_graphs_are_counted_before_and_after(bench: Bench) -> None:
    told = {
        (backend, precision): bench.convert(backend, precision, "keras", "model.keras")[1]["details"]["nodes"]
        for backend, precision in (("tensorflow", "fp32"), ("tflite", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"))
    }
    of_tensorflow = told["tensorflow", "fp32"]["after"]
    assert told["tensorflow", "fp32"] == {"before": of_tensorflow, "after": of_tensorflow, "converted": None}
    assert told["tflite", "fp32"] == {"before": of_tensorflow, "after": 4, "converted": None}
    assert told["onnxruntime", "fp32"]["before"] == told["onnxruntime", "fp32"]["after"] == told["onnxruntime", "int8"]["before"]
    assert told["onnxruntime", "int8"]["after"] > told["onnxruntime", "fp32"]["after"]


# Checkpoints


@pytest.mark.parametrize(
    ("format", "path", "reference"),
    [
        ("keras", "model.h5", "keras"),
        ("saved_model", "saved_model", "keras"),
        ("saved_model", "tf1_saved_model", "graph"),
        ("frozen_graph", "frozen_graph.pb", "graph"),
    ],
)
@pytest.mark.parametrize("backend", ["tflite", "onnxruntime"])
def test_each_kind_of_checkpoint_gives_its_own_predictions(
    bench: Bench, backend: str, format: str, path: str, reference: str
) -> None:
    model, _ = bench.convert(backend, "fp32", format, path)
    numpy.testing.assert_allclose(bench.predict(backend, "fp32", model), bench.reference(reference), atol=1e-5)


def test_a_converted_checkpoint_of_tensorflow_1_runs_in_tensorflow_2(bench: Bench) -> None:
    model, _ = bench.convert("tensorflow", "fp32", "saved_model", "tf1_saved_model")
    numpy.testing.assert_allclose(bench.predict("tensorflow", "fp32", model), bench.reference("graph"), atol=1e-5)


@pytest.mark.parametrize("path", ["tf1_checkpoint", "tf1_checkpoint/model.ckpt", "tf1_checkpoint/model.ckpt.index"])
def test_a_checkpoint_of_tensorflow_1_with_its_graph(bench: Bench, path: str) -> None:
    model, _ = bench.convert("tflite", "fp32", "tf1_checkpoint", path, inputs=["image"], outputs=["probabilities:0"])
    numpy.testing.assert_allclose(bench.predict("tflite", "fp32", model), bench.reference("graph"), atol=1e-5)


@pytest.mark.parametrize("path", ["mobilenet_keras3", "mobilenet_keras2.weights.h5"])
def test_weights_of_an_architecture_in_both_layouts_whatever_the_file_is_called(bench: Bench, path: str) -> None:
    architecture = {"function": "keras.applications.MobileNet", "arguments": {"alpha": 0.25, "classes": 4}}
    model, _ = bench.convert("tflite", "fp32", "keras_weights", path, input=MOBILENET, architecture=architecture)
    outputs = bench.predict("tflite", "fp32", model, pictures="mobilenet_pictures.npy", input=MOBILENET)
    numpy.testing.assert_allclose(outputs, bench.reference("mobilenet"), atol=1e-5)


def seeded(bench: Bench, seed: int, directory: str) -> tuple[bytes, Any]:
    architecture = {"function": "keras.applications.mobilenet.MobileNet", "arguments": {"alpha": 0.25, "classes": 4}}
    model, _ = bench.convert(
        "tflite", "fp32", "seeded", None, input=MOBILENET, architecture=architecture, seed=seed, directory=directory
    )
    return model.read_bytes(), bench.predict("tflite", "fp32", model, pictures="mobilenet_pictures.npy", input=MOBILENET)


def test_a_seed_gives_the_same_model_byte_for_byte_and_another_seed_another(bench: Bench) -> None:
    first, outputs = seeded(bench, 1, "one")
    second, _ = seeded(bench, 1, "two")
    other, _ = seeded(bench, 2, "three")
    assert first == second
    assert first != other
    assert numpy.ptp(outputs, axis=0).max() > 0.01  # it tells pictures apart


LAYERS = [
    {"layer": "Conv2D", "filters": 4, "kernel_size": 3},
    {"layer": "Flatten"},
    {"layer": "Dense", "units": 4, "activation": "softmax"},
]


PROGRAM = {"function": "keras.Sequential", "arguments": {"layers": [{"layer": "Lambda", "function": "print"}]}}


def test_a_card_can_list_the_layers_of_a_seeded_network(bench: Bench) -> None:
    architecture = {"function": "keras.Sequential", "arguments": {"layers": LAYERS}}
    settings = {"input": MOBILENET, "architecture": architecture}
    model, result = bench.convert("tflite", "fp32", "seeded", None, seed=1, directory="layers", **settings)
    outputs = bench.predict("tflite", "fp32", model, pictures="mobilenet_pictures.npy", input=MOBILENET)
    assert outputs.shape[1] == 4
    assert numpy.ptp(outputs, axis=0).max() > 0.01
    assert result["details"]["operators"]["CONV_2D"] == 1


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime"])
def test_files_of_the_runtimes_own_format_are_passed_through(bench: Bench, backend: str) -> None:
    own, _ = bench.convert(backend, "fp32", "keras", "model.keras")
    format = own.suffix[1:]
    model, result = bench.convert(backend, "fp32", format, own, calibrate=False)
    assert model.read_bytes() == own.read_bytes()
    assert result["details"]["passed_through"]
    if backend == "onnxruntime":
        quantized, _ = bench.convert(backend, "int8", format, own)
        assert numpy.abs(bench.predict(backend, "int8", quantized) - bench.reference("keras")).max() < 0.03


def test_a_passed_through_tflite_file_takes_another_batch(bench: Bench) -> None:
    own, _ = bench.convert("tflite", "fp32", "keras", "model.keras")
    with start(bench.output.parent) as agent:
        loaded = bench.load(agent, "tflite", "fp32", own, batch=3)
    assert loaded["inputs"][0]["shape"] == [3, 8, 8, 3]


@pytest.mark.parametrize("file", ["lambda.keras", "lambda.h5"])
def test_a_lambda_layer_runs_where_the_card_allows_it(bench: Bench, file: str) -> None:
    model, _ = bench.convert("tflite", "fp32", "keras", file, allow_lambda=True)
    pictures = numpy.load(bench.checkpoints / "pictures.npy")
    numpy.testing.assert_allclose(bench.predict("tflite", "fp32", model), 2 * pictures.reshape(len(pictures), -1), rtol=1e-6)


# What is refused


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(StageFailed) as caught:
        ask()
    assert "\n" not in caught.value.outcome.message
    return caught.value.outcome.kind, caught.value.outcome.message


@pytest.mark.parametrize(
    ("arguments", "source", "kind", "words"),
    [
        (("tflite", "fp32", "keras", "lambda.keras"), {}, "build_error", "write allow_lambda = true under [checkpoint]"),
        (("tflite", "fp32", "keras", "lambda.h5"), {}, "build_error", "Lambda layer"),
        (("tflite", "fp32", "keras", "small.weights.h5"), {}, "build_error", "no architecture"),
        (("tflite", "fp32", "keras", "no_such.keras"), {}, "build_error", "there is no checkpoint at"),
        (("tflite", "fp32", "saved_model", "tf1_checkpoint"), {}, "build_error", "one SavedModel"),
        (("tflite", "fp32", "saved_model", "two_outputs"), {}, "build_error", "checkpoint.outputs"),
        (("tflite", "fp32", "saved_model", "saved_model"), {"outputs": ["nonsense"]}, "build_error", "no output 'nonsense'"),
        (("tflite", "fp32", "tf1_checkpoint", "tf1_checkpoint"), {}, "build_error", "2 inputs (image, weights_of_a_loss)"),
        (("tflite", "fp32", "frozen_graph", "frozen_graph.pb"), {"inputs": ["picture"]}, "build_error", "no node 'picture'"),
        (("tflite", "fp32", "frozen_graph", "frozen_graph.pb"), {"outputs": ["classes"]}, "build_error", "no node 'classes'"),
        (("tflite", "fp32", "frozen_graph", "model.h5"), {}, "build_error", "GraphDef"),
        (("tflite", "fp32", "onnx", "model.onnx"), {}, "unsupported", "no checkpoint of the format 'onnx'"),
        (("tensorflow", "int8", "keras", "model.keras"), {}, "unsupported", "no precision 'int8'"),
        (("onnxruntime", "full_int8", "keras", "model.keras"), {}, "unsupported", "no precision 'full_int8'"),
        (
            ("tflite", "fp32", "seeded", None),
            {"seed": 1, "architecture": PROGRAM},
            "build_error",
            "no layer Lambda that a card can",
        ),
    ],
)
def test_what_cannot_be_converted(
    bench: Bench, arguments: tuple[str, str, str, Any], source: dict[str, Any], kind: str, words: str
) -> None:
    found, message = refusal(lambda: bench.convert(*arguments, **source))
    assert (found, words in message) == (kind, True), message


@pytest.mark.parametrize(("backend", "precision"), [("tflite", "int8"), ("tflite", "full_int8"), ("onnxruntime", "int8")])
def test_integers_need_calibration(bench: Bench, backend: str, precision: str) -> None:
    kind, message = refusal(lambda: bench.convert(backend, precision, "keras", "model.keras", calibrate=False))
    assert kind == "build_error"
    assert "calibration" in message


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("keras.applications.MobileNet", {"alpha": 0.25, "classes": 9}, ""),  # whose last layer the file does not fit
        ("keras.applications.MobileNetV9", {}, "has no keras.applications.MobileNetV9"),
        ("keras.applications.mobilenet", {}, "has no keras.applications.mobilenet"),
    ],
)
def test_weights_that_do_not_fit_their_architecture(bench: Bench, function: str, arguments: dict[str, Any], words: str) -> None:
    architecture = {"function": function, "arguments": arguments}
    for path in ("mobilenet_keras3", "mobilenet_keras2.weights.h5"):
        convert = partial(bench.convert, "tflite", "fp32", "keras_weights", path, input=MOBILENET, architecture=architecture)
        kind, message = refusal(convert)
        assert (kind, words in message) == ("build_error", True), message


@pytest.mark.parametrize("content", [b"", b"not a model" * 100, b"\0" * 5000], ids=["empty", "text", "zeros"])
@pytest.mark.parametrize("backend", ["tflite", "onnxruntime"])
def test_a_damaged_file_is_a_load_error(bench: Bench, tmp_path: Path, backend: str, content: bytes) -> None:
    model = tmp_path / "model"
    model.write_bytes(content)
    with start(tmp_path) as agent:
        kind, message = refusal(lambda: bench.load(agent, backend, "fp32", model))
        assert kind == "load_error"
        assert message
        sound, _ = bench.convert(backend, "fp32", "keras", "model.keras")
        assert bench.load(agent, backend, "fp32", sound)["inputs"]


def test_a_tflite_file_that_lacks_its_end_does_not_load(bench: Bench, tmp_path: Path) -> None:
    """The runtime reads beyond the end of such a file; whether it says so or dies of it, the case is broken and the run goes on."""
    sound, _ = bench.convert("tflite", "fp32", "keras", "model.keras")
    model = tmp_path / "model.tflite"
    model.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    with start(tmp_path) as agent:
        kind, _ = refusal(lambda: bench.load(agent, "tflite", "fp32", model))
    assert kind in ("load_error", "crash")


def test_models_and_requests_that_do_not_fit_each_other(bench: Bench, tmp_path: Path) -> None:
    real, _ = bench.convert("tflite", "fp32", "keras", "model.keras")
    onnx, _ = bench.convert("onnxruntime", "fp32", "keras", "model.keras")
    with start(tmp_path) as agent:
        assert refusal(lambda: bench.load(agent, "tflite", "fp32", tmp_path / "none.tflite"))[0] == "load_error"
        assert "full_int8 means integers" in refusal(lambda: bench.load(agent, "tflite", "full_int8", real))[1]
        assert "for a batch of 2, not 4" in refusal(lambda: bench.load(agent, "onnxruntime", "fp32", onnx, batch=4))[1]
        bench.load(agent, "tflite", "fp32", real)
        numpy.save(tmp_path / "empty.npy", numpy.zeros((0, 8, 8, 3), numpy.float32))
        numpy.save(tmp_path / "wrong.npy", numpy.zeros((4, 9, 9, 3), numpy.float32))
        for name in ("empty.npy", "wrong.npy"):
            kind, message = refusal(partial(agent.predict, {"inputs": str(tmp_path / name), "outputs": str(tmp_path / "y.npy")}))
            assert kind == "run_error", message
    assert not (tmp_path / "y.npy").exists()


def test_tensorflow_keeps_to_the_cpu_and_refuses_a_gpu_that_it_does_not_see(bench: Bench, tmp_path: Path) -> None:
    model, _ = bench.convert("tensorflow", "fp32", "keras", "model.keras")
    request = {"backend": "tensorflow", "precision": "fp32", "model": str(model), "threads": 1, "batch": BATCH, "input": SMALL}
    seen = "import tensorflow; print(len(tensorflow.config.list_physical_devices('GPU')), tensorflow.test.is_built_with_cuda())"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    gpus, with_cuda = done.stdout.split()
    with start(tmp_path) as agent:
        assert agent.load({**request, "device": "cpu", "options": {}})["inputs"]
    with start(tmp_path) as agent:
        if gpus != "0":
            agent.load({**request, "device": "cuda"})
            return
        kind, message = refusal(lambda: agent.load({**request, "device": "cuda"}))
        expected = (
            ("load_error", "sees no GPU") if with_cuda == "True" else ("unsupported", "is a build for the CPU alone: install one")
        )
        assert (kind, expected[1] in message) == (expected[0], True), message
        assert "not on 'edgetpu'" in refusal(lambda: agent.load({**request, "device": "edgetpu"}))[1]
        assert agent.load({**request, "device": "cpu"})["inputs"]  # the refusal has left nothing behind
