"""From the outputs of a detector and the card to its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_inference_gate.cards import load_card
from pytest_inference_gate.cases import Case
from pytest_inference_gate.detection.accuracy import DetectionDemands
from pytest_inference_gate.detection.run import DetectionRun, demands_of, detect
from pytest_inference_gate.errors import EvaluationDataError
from pytest_inference_gate.preparation import PreparedInputs

PICTURES = 8
OUTPUTS = "{ boxes = 0, classes = 1, scores = 2 }"
INPUTS = PreparedInputs(Path("inputs.npy"), "digest", PICTURES, None, tuple(f"{number}.png" for number in range(PICTURES)))


def case(folder: Path, precision: str = "fp32", first_class: int = 0) -> Case:
    (folder / "card.toml").write_text(
        f"""
name = "scenes"
task = "detection"
checkpoint = {{ format = "tflite", file = "scenes.tflite" }}
input = {{ shape = [8, 8, 3] }}
labels = {{ count = 2 }}
detection = {{ kind = "postprocessed", outputs = {OUTPUTS}, first_class = {first_class}, matching_score = 0.4 }}
evaluation = {{ file = "scenes", annotations = "scenes.json", map = 0.7 }}
tolerance = {{ matched = 0.9, by_precision = {{ int8 = {{ map_drop = 0.05, matched = 0.8 }} }} }}
backends = {{ tflite = ["fp32", "int8"] }}
"""
    )
    return Case(load_card(folder / "card.toml"), "tflite", precision)


def outputs(number: int = 0) -> list[Any]:
    boxes = numpy.tile(numpy.array([0.1, 0.1, 0.5, 0.5], numpy.float32), (PICTURES, 1, 1))
    return [boxes, numpy.full((PICTURES, 1), number), numpy.full((PICTURES, 1), 0.9)]


def test_what_the_card_asks_for(tmp_path: Path) -> None:
    assert demands_of(case(tmp_path)) == DetectionDemands(0.01, 0.9, 0.7, 0.4)
    # Of two stacks neither need be the float model that the card tells of.
    assert demands_of(case(tmp_path, "int8"), of_float_model=False) == DetectionDemands(0.05, 0.8, None, 0.4)


def test_each_side_is_decoded_as_its_own_card_says(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ours, theirs = case(tmp_path), case(tmp_path / "other", first_class=1)
    run = DetectionRun({})
    detected = detect(ours.card, outputs(0))
    assert run.figures(ours, detected, INPUTS, outputs(1), theirs).matched == 1.0
    alone = run.figures(ours, detected, INPUTS, outputs(1))
    assert (alone.matched, alone.class_changes) == (0.0, PICTURES)
    # What the float model detects is decoded once for all cases of the model.
    assert run.figures(ours, detected, INPUTS, outputs(0)).matched == 0.0


def test_a_metric_that_fails_is_named(tmp_path: Path) -> None:
    detected = detect(case(tmp_path).card, outputs())
    assert DetectionRun({"most": lambda found, _: max(len(scores) for _, scores, _ in found)}).metrics(detected, INPUTS) == {
        "most": 1.0
    }
    with pytest.raises(
        EvaluationDataError, match="the metric 'odd' of the hook pytest_inference_gate_detection_metrics raised ZeroDiv"
    ):
        DetectionRun({"odd": lambda *_: 1 / 0}).metrics(detected, INPUTS)
