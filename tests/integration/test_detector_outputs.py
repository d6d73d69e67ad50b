"""Detectors through the real TensorFlow, LiteRT and ONNX Runtime: every output is kept, each is where it belongs, and the suppression runs
where a variant puts it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
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

FLOATS = {"shape": [16, 16, 3], "dtype": "float32", "layout": "nhwc"}
PICTURES = {"shape": [20, 20, 3], "dtype": "uint8", "layout": "nhwc"}  # of the size in which a graph that takes any is given them
ZOO = {"inputs": ["image_tensor"], "outputs": ["detection_boxes", "detection_classes:0", "detection_scores", "num_detections:0"]}


class Bench:
    """Detectors, an agent that converts them, and agents that run what it made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        command = [sys.executable, Path(__file__).parent / "make_detectors.py", folder]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        self.agent = self.start()

    def start(self) -> AgentProcess:
        limits = Limits({"convert": 600.0, "load": 300.0, "predict": 300.0, "measure": 300.0})
        return AgentProcess(InterpreterTarget(sys.executable).command, self.folder / f"agent-{self.count}.log", limits)

    def convert(
        self,
        backend: str,
        format: str,
        file: str | Path,
        input: dict[str, Any],
        batch: int = 1,
        variant: str | None = None,
        **changes: Any,
    ) -> Path:
        self.count += 1
        directory = self.folder / f"out-{self.count}"
        directory.mkdir()
        source = {
            "format": format,
            "path": str(self.folder / file),
            "architecture": None,
            "seed": None,
            "inputs": [],
            "outputs": [],
        }
        request = {
            **{"backend": backend, "precision": "fp32", "batch": batch, "input": input, "calibration": None, "task": "detection"},
            **{"source": {**source, **changes}, "output_directory": str(directory)},
            **({"variant": variant} if variant else {}),
        }
        self.result = self.agent.convert(request)
        return directory / str(self.result["model"])

    def refusal(self, *arguments: Any, kind: str = "build_error", **changes: Any) -> str:
        with pytest.raises(StageFailed) as caught:
            self.convert(*arguments, **changes)
        assert caught.value.outcome.kind == kind
        assert "\n" not in caught.value.outcome.message
        return caught.value.outcome.message

    def predict(
        self, backend: str, model: Path, input: dict[str, Any], batch: int = 1, pictures: str = "small_pictures.npy"
    ) -> tuple[dict[str, Any], list[Any]]:
        """The reply of ``load``, and the outputs for all pictures."""
        arguments = {"backend": backend, "precision": "fp32", "model": str(model), "threads": 1, "batch": batch, "input": input}
        with self.start() as agent:
            loaded = agent.load({**arguments, "task": "detection"})
            told = {"inputs": str(self.folder / pictures), "outputs": str(self.folder / "outputs.npz"), "all_outputs": True}
            assert agent.predict(told)["count"] == 3
        with numpy.load(self.folder / "outputs.npz", allow_pickle=False) as archive:
            assert all(archive[name].dtype == numpy.float32 for name in archive.files)
            return loaded, [archive[f"output_{number}"] for number in range(len(archive.files))]

    def reference(self, name: str) -> list[Any]:
        with numpy.load(self.folder / f"{name}_reference.npz", allow_pickle=False) as archive:
            return [archive[f"output_{number}"] for number in range(len(archive.files))]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("detectors"))
    with bench.agent:
        yield bench


def assert_alike(found: list[Any], expected: list[Any]) -> None:
    assert [array.shape for array in found] == [array.shape for array in expected]
    for one, other in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["tensorflow", "tflite", "onnxruntime"])
def test_every_output_of_a_model_is_kept_in_the_models_own_order(bench: Bench, backend: str) -> None:
    """Eleven of them, in two batches of which the last is not full: by the alphabet the eleventh would come third."""
    model = bench.convert(backend, "keras", "heads.keras", FLOATS, batch=2)
    loaded, outputs = bench.predict(backend, model, FLOATS, batch=2)
    assert_alike(outputs, bench.reference("heads"))
    assert [tensor["shape"][-1] for tensor in loaded["outputs"]][:3] == [1, 2, 3] or backend == "onnxruntime"


@pytest.mark.parametrize("file", ["frozen_inference_graph.pb", "functions.pb"])
def test_a_graph_of_the_detection_zoo_gets_the_cards_size_and_batch(bench: Bench, file: str) -> None:
    """Its input takes whole numbers and any size, and it suppresses in a loop over the pictures."""
    model = bench.convert("tensorflow", "frozen_graph", file, PICTURES, batch=2, **ZOO)
    loaded, outputs = bench.predict("tensorflow", model, PICTURES, batch=2, pictures="pictures.npy")
    assert (loaded["inputs"][0]["shape"], loaded["inputs"][0]["dtype"]) == ([2, 20, 20, 3], "uint8")
    assert [tensor["name"] for tensor in loaded["outputs"]] == ["output_0", "output_1", "output_2", "output_3"]
    assert_alike(outputs, bench.reference("graph"))
    # What was made of it can be made into something else, and the card's names are no longer needed for that.
    if file == "functions.pb":
        again = bench.convert("tensorflow", "saved_model", model, PICTURES, batch=2)
        assert_alike(bench.predict("tensorflow", again, PICTURES, batch=2, pictures="pictures.npy")[1], bench.reference("graph"))
        told = bench.refusal("tensorflow", "saved_model", model, PICTURES)
        assert "takes an input of the shape [2, 20, 20, 3], and the case needs [1, 20, 20, 3]" in told
    else:
        assert "tf2onnx cannot turn" in bench.refusal("onnxruntime", "frozen_graph", file, PICTURES, **ZOO)


def test_the_operator_that_suppresses_in_tensorflow_lite_gives_boxes_classes_scores_and_count(bench: Bench) -> None:
    model = bench.convert("tflite", "tflite", "post_processing.tflite", FLOATS)
    assert model.read_bytes() == (bench.folder / "post_processing.tflite").read_bytes()
    loaded, (boxes, classes, scores, count) = bench.predict("tflite", model, FLOATS)
    # The file's own list of its outputs has another order than its signature.
    assert [tensor["shape"] for tensor in loaded["outputs"]] == [[1, 5, 4], [1, 5], [1, 5], [1]]
    assert set(classes.ravel()) == {0.0, 1.0}
    assert (numpy.diff(scores, axis=1) <= 0).all() and scores.min() > 0.2
    assert (boxes[:, :, 2] > boxes[:, :, 0]).all()
    assert count.shape == (3,) and (count == 5).all()


def test_what_cannot_be_meant_is_told_with_what_the_graph_has(bench: Bench) -> None:
    def told(file: str = "frozen_inference_graph.pb", **names: Any) -> str:
        return bench.refusal("tensorflow", "frozen_graph", file, PICTURES, **{**ZOO, **names})

    message = told(inputs=["image_tenser:0"])
    assert message.startswith(
        "frozen_inference_graph.pb has no node 'image_tenser', which checkpoint.inputs names: its placeholders are"
    )
    assert "image_tensor; did you mean 'image_tensor'?" in message
    message = told(outputs=["detection_boxes", "detection_score"])
    assert "no node 'detection_score', which checkpoint.outputs names" in message
    assert "did you mean 'detection_scores'" in message
    assert "needs a value for the placeholder is_training, which nothing feeds besides the input 'image_tensor'" in told(
        "placeholder.pb"
    )
    assert "do not depend on the input 'image_tensor'" in told(outputs=["kernel"])
    assert "names an output twice" in told(outputs=["detection_boxes", "detection_boxes"])
    (bench.folder / "text.pb").write_text("node {\n name: 'a'\n}\n")
    assert "text.pb is no GraphDef: it is one in text" in told("text.pb")
    (bench.folder / "page.pb").write_text("<!DOCTYPE html>")
    assert "it begins with b'<!DOCTYPE html>' and not with a node" in told("page.pb")
    (bench.folder / "cut.pb").write_bytes((bench.folder / "functions.pb").read_bytes()[:5000])
    assert "cut.pb is no GraphDef" in told("cut.pb")
    model = bench.convert("tensorflow", "keras", "heads.keras", FLOATS)
    assert "it is a SavedModel, so write format = 'saved_model'" in told(str(model / "saved_model.pb"))


# Variants


def test_the_suppression_runs_where_the_variant_puts_it(bench: Bench) -> None:
    """In a frozen graph with a loop of TensorFlow 1, in one with a loop of TensorFlow 2, and in a SavedModel."""
    told = {"batch": 3, **ZOO}
    models = [bench.convert("tensorflow", "frozen_graph", "frozen_inference_graph.pb", PICTURES, **told)]
    assert "nms" not in bench.result["details"]
    for file in ("frozen_inference_graph.pb", "functions.pb"):
        models.append(bench.convert("tensorflow", "frozen_graph", file, PICTURES, variant="nms_cpu", **told))
        details = bench.result["details"]
        assert [one["operation"] for one in details["nms"]["operations"]] == ["NonMaxSuppressionV3"] * 2
        assert details["remarks"] == ["the graph has 2 NonMaxSuppression operations, and all of them were put on the processor"]
    models.append(bench.convert("tensorflow", "saved_model", models[0], PICTURES, batch=3, variant="nms_cpu"))
    command = [sys.executable, Path(__file__).parent / "look_at_placement.py", bench.folder / "pictures.npy", *models]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    as_it_is, *moved = json.loads(done.stdout)
    assert (as_it_is["operations"], as_it_is["rest"]) == (["CPU:1"], ["CPU:1"])
    for one in moved:
        assert one["operations"] == ["CPU:0"]
        assert "CPU:1" in one["rest"]
    for one in (as_it_is, *moved):
        assert_alike([numpy.asarray(output) for output in one["outputs"]], bench.reference("graph"))


def test_a_variant_that_a_graph_or_a_machine_cannot_have_is_refused(bench: Bench) -> None:
    arguments = ("tensorflow", "frozen_graph", "without.pb", PICTURES)
    told = bench.refusal(*arguments, variant="nms_cpu", **ZOO)
    assert "the card asks for the variant nms_cpu, and the graph has no NonMaxSuppression operation" in told
    told = bench.refusal(*arguments, kind="unsupported", variant="nms_gpu", **ZOO)
    assert told == "the variant nms_gpu needs a CUDA device, and the case is for cpu"
    arguments = ("tflite", "tflite", "post_processing.tflite", FLOATS)
    assert "the backend tflite makes no variant 'nms_cpu'" in bench.refusal(*arguments, kind="unsupported", variant="nms_cpu")
