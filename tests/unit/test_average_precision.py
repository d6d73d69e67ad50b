"""COCO's mean average precision: equal to pycocotools' own, to what can be worked out by hand, and to itself when pictures are swapped."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from detection_scenes import HEIGHT, WIDTH, annotated, detect, document, mixed

from pytest_inference_gate.detection import coco_evaluation
from pytest_inference_gate.detection.average_precision import mean_average_precisions, share_that_reach, swap_test
from pytest_inference_gate.detection.coco_evaluation import evaluate_coco, require_pycocotools
from pytest_inference_gate.errors import EvaluationDataError


def direct_run(folder: Path, annotations: Any, detections: list[Any]) -> list[float]:
    """What whoever writes two files and calls pycocotools on them gets."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    category_of = {number: category for category, number in annotations.classes.items()}
    results = []
    for picture, (boxes, scores, classes) in zip(annotations.pictures, detections, strict=True):
        for box, score, number in zip(boxes.astype(float), scores.astype(float), classes, strict=True):
            top, left, bottom, right = (box * [HEIGHT, WIDTH, HEIGHT, WIDTH]).tolist()
            entry = {"image_id": picture.id, "category_id": category_of[int(number)], "score": float(score)}
            results.append({**entry, "bbox": [left, top, right - left, bottom - top]})
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "instances.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


@pytest.mark.parametrize(("seed", "crowds"), [(0, False), (1, True), (2, True)])
def test_it_is_pycocotools_own_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, crowds: bool) -> None:
    annotations = annotated(tmp_path, document(30, seed, crowds=crowds))
    detections = detect(annotations, seed)
    stats = direct_run(tmp_path, annotations, detections)
    found = evaluate_coco(annotations, detections)
    assert capsys.readouterr().out == ""
    assert [found.map, found.map50, found.map75, found.ar100] == pytest.approx([stats[0], stats[1], stats[2], stats[8]], abs=1e-9)
    everything = numpy.ones((1, 30), int)
    assert mean_average_precisions(found.matches, everything)[0] == pytest.approx(stats[0], abs=1e-9)


def one_picture(folder: Path, boxes: list[list[float]]) -> Any:
    annotations = [{"id": number, "image_id": 5, "category_id": 3, "bbox": box, "iscrowd": 0} for number, box in enumerate(boxes)]
    return annotated(folder, {**document(1), "images": [{"id": 5, "width": 100, "height": 100}], "annotations": annotations})


def found_boxes(*rows: tuple[list[float], float]) -> list[Any]:
    boxes = numpy.array([box for box, _ in rows], numpy.float32).reshape(-1, 4)
    return [(boxes, numpy.array([score for _, score in rows], numpy.float32), numpy.zeros(len(rows), numpy.int64))]


def test_a_case_worked_out_by_hand(tmp_path: Path) -> None:
    # Two objects. The first detection is exact; the second is wrong; the third overlaps the other object by 8 / 10.
    annotations = one_picture(tmp_path, [[0, 0, 20, 20], [50, 50, 20, 20]])
    detections = found_boxes(([0.0, 0.0, 0.2, 0.2], 0.9), ([0.0, 0.5, 0.2, 0.7], 0.8), ([0.5, 0.5, 0.66, 0.7], 0.7))
    found = evaluate_coco(annotations, detections)
    # Recall 0 to .5 (51 recalls) at precision 1; up to 1 (50 recalls) at 2/3, but for the IoUs of .85, .9 and .95.
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert found.map50 == pytest.approx(both)
    # 0.16 x 100 is a little more or less than 16 pixels in binary: the IoU of .8 may be reached or not, the others are clear.
    assert found.map in (pytest.approx((7 * both + 3 * one) / 10), pytest.approx((6 * both + 4 * one) / 10))
    assert found.ar100 in (pytest.approx(0.85), pytest.approx(0.8))
    # The annotation with the id 0, which pycocotools itself takes for no match.
    assert found.found == {0, 1}
    assert evaluate_coco(annotations, detections, matching_score=0.8).found == {0}


def test_nothing_detected_is_0_and_nothing_annotated_is_no_figure(tmp_path: Path) -> None:
    annotations = one_picture(tmp_path, [[0, 0, 20, 20]])
    assert evaluate_coco(annotations, found_boxes()).map == 0.0
    empty = evaluate_coco(one_picture(tmp_path, []), found_boxes(([0, 0, 1, 1], 0.5)))
    assert (empty.map, empty.ar100, set(empty.per_class.values())) == (None, None, {None})
    assert numpy.isnan(mean_average_precisions(empty.matches, numpy.ones((1, 1), int)))


def test_pictures_drawn_twice_count_twice(tmp_path: Path) -> None:
    content = document(12, 3)
    annotations = annotated(tmp_path, content)
    detections = detect(annotations, 3)
    counts = numpy.random.RandomState(0).randint(0, 3, (1, 12))
    twice: dict[str, Any] = {**content, "images": [], "annotations": []}
    drawn = []
    for place, count in enumerate(counts[0]):
        for copy in range(count):
            image = content["images"][place]
            new = 1000 * copy + image["id"]
            twice["images"].append({**image, "id": new})
            own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            twice["annotations"] += [{**one, "image_id": new, "id": one["id"] + 1000 * copy} for one in own]
            drawn.append(detections[place])
    matches = evaluate_coco(annotations, detections).matches
    expected = evaluate_coco(annotated(tmp_path, twice), drawn).map
    # Where scores tie, pycocotools goes by the ids of the images.
    assert mean_average_precisions(matches, counts)[0] == pytest.approx(expected, abs=2e-3)


def test_swapping_all_pictures_is_the_other_model(tmp_path: Path) -> None:
    annotations = annotated(tmp_path, document(40, 4))
    good, bad = detect(annotations, 1, jitter=1), detect(annotations, 2, misses=0.6, jitter=1)
    first, second = evaluate_coco(annotations, good), evaluate_coco(annotations, bad)
    assert first.map is not None and second.map is not None and first.map > second.map
    test = swap_test(first.matches, second.matches, alpha=0.01)
    assert test.p_value < 0.01 and test.swaps == 999
    assert test.largest is not None and 0 < test.largest < first.map - second.map
    assert swap_test(second.matches, first.matches, alpha=0.01).p_value > 0.9
    assert swap_test(first.matches, second.matches, alpha=0.01) == test  # seeded
    mixture = evaluate_coco(annotations, mixed(good, bad, 0, 0.0)).matches
    assert swap_test(first.matches, mixture, alpha=0.01).p_value == 1.0


def test_six_pictures_can_show_no_drop(tmp_path: Path) -> None:
    annotations = annotated(tmp_path, document(6, 5))
    perfect = evaluate_coco(annotations, detect(annotations, 1, misses=0, jitter=0, noise=0)).matches
    nothing = evaluate_coco(annotations, detect(annotations, 1, misses=1, noise=0)).matches
    test = swap_test(perfect, nothing, alpha=0.01)
    assert test.largest is None
    assert test.p_value > 0.01


def test_false_alarms_are_as_rare_as_they_are_said_to_be(tmp_path: Path) -> None:
    alarms = 0
    for seed in range(40):
        annotations = annotated(tmp_path, document(25, seed, objects=3))
        two = [evaluate_coco(annotations, detect(annotations, 1000 * one + seed, jitter=2)).matches for one in (1, 2)]
        alarms += swap_test(two[0], two[1], alpha=0.1).p_value < 0.1
    assert alarms <= 10  # of 40 at 0.1: more has a chance of 0.2 %


def test_how_likely_a_set_shows_what_was_expected(tmp_path: Path) -> None:
    annotations = annotated(tmp_path, document(40, 6))
    found = evaluate_coco(annotations, detect(annotations, 6))
    assert found.map is not None
    assert 0.2 < share_that_reach(found.matches, found.map) < 0.8
    assert share_that_reach(found.matches, found.map + 0.2) < 0.01


def test_a_missing_pycocotools_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pycocotools()
    monkeypatch.setattr(coco_evaluation, "find_spec", lambda name: None)
    with pytest.raises(EvaluationDataError, match=r'pip install "pytest-inference-gate\[detection\]"'):
        require_pycocotools()


def test_other_pictures_than_the_annotated_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detections of 0 pictures, and the annotations have 1"):
        evaluate_coco(one_picture(tmp_path, []), [])
