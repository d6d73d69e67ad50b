"""What a card of a detection model has, and what is said where it has anything else."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from pytest_inference_gate.agent.detection_decoding import Decoder
from pytest_inference_gate.card_tables.detection import detection_settings
from pytest_inference_gate.cards import ModelCard, load_card
from pytest_inference_gate.cases import Case, tolerance_for
from pytest_inference_gate.errors import CardError
from pytest_inference_gate.predictions import predict_arguments, predictions_name
from pytest_inference_gate.preparation import load_request

POSTPROCESSED = 'kind = "postprocessed", outputs = { boxes = 0, classes = 1, scores = 2, count = 3 }, first_class = 1'
RAW = 'kind = "raw", outputs = { boxes = 0, scores = 1 }'
GENERATED = "anchors = { feature_maps = [[12, 12], [6, 6]] }"
GOOD = {
    "name": '"scenes"',
    "task": '"detection"',
    "checkpoint": '{ format = "keras", file = "scenes.keras" }',
    "input": '{ shape = [96, 96, 3], dtype = "uint8" }',
    "labels": "{ count = 10 }",
    "detection": f"{{ {POSTPROCESSED} }}",
    "evaluation": '{ file = "scenes", annotations = "scenes.json", map = 0.7 }',
    "tolerance": "{ map_drop = 0.02, matched = 0.9, by_precision = { int8 = { map_drop = 0.05 } } }",
    "backends": '{ tflite = ["fp32"] }',
}


def load(folder: Path, **changes: str | None) -> ModelCard:
    text = "".join(f"{key} = {value}\n" for key, value in {**GOOD, **changes}.items() if value is not None)
    (folder / "card.toml").write_text(text, encoding="utf-8")
    return load_card(folder / "card.toml")


def message(folder: Path, **changes: str | None) -> str:
    with pytest.raises(CardError) as caught:
        load(folder, **changes)
    return str(caught.value)


def test_a_model_that_suppresses_boxes_itself_needs_its_outputs_named(tmp_path: Path) -> None:
    card = load(tmp_path)
    assert detection_settings(card) == {
        "kind": "postprocessed",
        "outputs": {"boxes": 0, "classes": 1, "scores": 2, "count": 3},
        "classes": 10,
        "first_class": 1,
        "score_threshold": 0.0,
        "maximum_detections": 100,
    }
    Decoder(detection_settings(card))


def test_the_settings_of_a_raw_model_are_what_the_decoder_takes(tmp_path: Path) -> None:
    settings = detection_settings(load(tmp_path, detection=f"{{ {RAW}, {GENERATED}, iou_threshold = 0.5 }}"))
    outputs = [numpy.zeros((2, 12 * 12 * 3 + 6 * 6 * 6, 4)), numpy.zeros((2, 648, 10))]
    assert [len(scores) for _, scores, _ in Decoder(settings).decode(outputs)] == [0, 0]
    numpy.save(tmp_path / "anchors.npy", numpy.full((5, 4), 0.5))
    card = load(tmp_path, detection=f'{{ {RAW}, anchors = {{ file = "anchors.npy" }} }}')
    sent = detection_settings(card, lambda path: f"there/{path.name}")
    assert sent["anchors"] == {"file": "there/anchors.npy"}
    assert sent["score_threshold"] == 0.001


def test_tolerances_are_those_of_the_precision(tmp_path: Path) -> None:
    card = load(tmp_path)
    assert [tolerance_for(Case(card, "tflite", precision)).map_drop for precision in ("fp32", "int8")] == [0.02, 0.05]
    assert tolerance_for(Case(card, "tflite", "int8")).matched == 0.9
    assert tolerance_for(Case(load(tmp_path, tolerance=None), "tflite", "int8")).map_drop == 0.01


def test_agents_are_told_of_the_task_and_give_all_outputs(tmp_path: Path) -> None:
    case = Case(load(tmp_path), "tflite", "fp32")
    assert load_request(case, "model")["task"] == "detection"
    assert predict_arguments(case, "in", "out") == {"inputs": "in", "outputs": "out", "all_outputs": True}
    assert predictions_name(case, "reference") == "reference.npz"
    ordinary = {"task": None, "detection": None, "evaluation": None, "tolerance": None}
    case = Case(load(tmp_path, **ordinary), "tflite", "fp32")
    assert "task" not in load_request(case, "model")
    assert predict_arguments(case, "in", "out") == {"inputs": "in", "outputs": "out"}
    assert predictions_name(case, "reference") == "reference.npy"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"task": '"segmentation"'}, "task: found 'segmentation' (a string), expected one of classification, detection"),
        ({"detection": None}, "detection: found nothing; task = 'detection' needs a table"),
        ({"task": None}, "detection: found a table, expected none unless task is 'detection'"),
        ({"task": None}, "evaluation.annotations: found a value, expected none unless task is 'detection'"),
        ({"task": None}, "tolerance.by_precision.int8.map_drop: found a value, expected none unless"),
        (
            {"tolerance": "{ top1_drop = 0.1 }"},
            "tolerance.top1_drop: found a value with task 'detection', expected none: map_drop",
        ),
        ({"evaluation": '{ file = "a", top1 = 0.5 }'}, "evaluation.top1: found a value with task 'detection'"),
        ({"evaluation": '{ file = "a", map = 0.5 }'}, "evaluation.map: found a value but no annotations"),
        (
            {"evaluation": '{ seed = 1, count = 2, annotations = "a" }'},
            "evaluation.annotations: found a value, expected none: seeded",
        ),
        ({"labels": "{ count = 10, offset = 1 }"}, "labels.offset: found a value with task 'detection'"),
        (
            {"preprocessing": '{ resize = "resize_and_crop" }'},
            "preprocessing.resize: found 'resize_and_crop' with task 'detection'",
        ),
        ({"detection": '{ kind = "raw" }'}, "detection.outputs: found nothing"),
        ({"detection": f"{{ {RAW} }}"}, "detection.anchors: found nothing; kind 'raw' needs"),
        ({"detection": f"{{ {RAW}, anchors = {{}} }}"}, "detection.anchors.feature_maps: found nothing"),
        ({"detection": f'{{ {RAW}, anchors = {{ file = "a.npy" }} }}'}, "detection.anchors.file: found 'a.npy', expected a file"),
        (
            {"detection": f'{{ {RAW}, anchors = {{ file = "a.npy", min_scale = 0.1 }} }}'},
            "detection.anchors: found file and min_scale, expected either",
        ),
        (
            {"detection": f"{{ {RAW}, anchors = {{ feature_maps = [[1, 1]], scales = [0.1, 0.2] }} }}"},
            "detection.anchors.scales: found 2 scales, expected one for each of the 1 feature maps",
        ),
        (
            {"detection": f"{{ {RAW}, anchors = {{ feature_maps = [[1, 1]], scales = [0.1], min_scale = 0.1 }} }}"},
            "detection.anchors.scales: found scales beside min_scale or max_scale",
        ),
        (
            {"detection": f"{{ {RAW}, anchors = {{ feature_maps = [[1, 1]], min_scale = 1.5 }} }}"},
            "detection.anchors.min_scale: found 1.5, expected at most max_scale, 0.95",
        ),
        (
            {"detection": f"{{ {POSTPROCESSED}, {GENERATED} }}"},
            "detection.anchors: found a value, expected none with kind 'postproc",
        ),
        (
            {"detection": '{ kind = "postprocessed", outputs = { boxes = 0, scores = 1 } }'},
            "detection.outputs.classes: found nothing",
        ),
        (
            {"detection": f"{{ kind = 'raw', outputs = {{ boxes = 0, scores = 0, count = 2 }}, {GENERATED} }}"},
            "detection.outputs.scores: found 0, which is the output of the boxes already",
        ),
        (
            {"detection": f"{{ kind = 'raw', outputs = {{ boxes = 0, scores = 1, count = 2 }}, {GENERATED} }}"},
            "detection.outputs.count: found a value, expected none with kind 'raw'",
        ),
        ({"detection": f"{{ {POSTPROCESSED}, first_classes = 2 }}"}, "did you mean 'first_class'?"),
    ],
)
def test_a_bad_card_of_detection_is_refused_with_key_found_and_expected(
    tmp_path: Path, changes: dict[str, str | None], part: str
) -> None:
    assert part in message(tmp_path, **changes)
