"""The figures of a detector and what is judged by them: mean average precision, its drop, and detections in pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from detection_scenes import annotated, detect, document, mixed
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.detection.accuracy import (
    DetectedPictures,
    DetectionDemands,
    DetectionFigures,
    compare_detections,
    judge_detections,
)
from pytest_inference_gate.detection.annotations import Annotations
from pytest_inference_gate.detection.pairs import PicturePairs, matched_p_value, matched_share, pair_detections
from pytest_inference_gate.verdict import Verdict

PICTURES = 40


def of(detections: list[Any], broken: int = 0) -> DetectedPictures:
    return DetectedPictures(detections, numpy.arange(len(detections)) < broken)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    return annotated(tmp_path_factory.mktemp("scenes"), document(PICTURES, 4, objects=6))


@pytest.fixture(scope="module")
def good(annotations: Annotations) -> list[Any]:
    return detect(annotations, 1, misses=0.1, jitter=1)


@pytest.fixture(scope="module")
def bad(annotations: Annotations) -> list[Any]:
    return detect(annotations, 2, misses=0.6, jitter=1)


def figures_of(
    annotations: Annotations | None, candidate: list[Any], reference: list[Any] | None, **demands: Any
) -> DetectionFigures:
    names = [f"{number}.png" for number in range(len(candidate))]
    compared = None if reference is None else of(reference)
    return compare_detections(of(candidate), compared, names, annotations, DetectionDemands(**demands))


def judged(
    annotations: Annotations | None, candidate: list[Any], reference: list[Any] | None, **demands: Any
) -> tuple[Verdict, str]:
    figures = figures_of(annotations, candidate, reference, **demands)
    decision = judge_detections(figures, DetectionDemands(**demands))
    return decision.verdict, decision.reason


def test_a_worse_model_is_inaccurate_and_says_where(annotations: Annotations, good: list[Any], bad: list[Any]) -> None:
    figures = figures_of(annotations, bad, good)
    assert figures.drop is not None and figures.map is not None and figures.reference_map is not None
    assert figures.drop == pytest.approx(figures.reference_map - figures.map) and figures.drop > 0.1
    assert figures.drop_p is not None and figures.drop_p < 0.01
    assert figures.smallest_detectable_drop is not None and figures.smallest_detectable_drop < figures.drop
    assert figures.lost is not None and figures.won is not None and figures.lost > figures.won
    losses = [(one.reference_ap or 0) - (one.ap or 0) for one in figures.classes]
    assert losses == sorted(losses, reverse=True)
    assert {one.name for one in figures.classes} == {"three", "seven", "twenty"}
    assert sum(one.objects for one in figures.classes) == figures.objects == annotations.objects
    assert len(figures.worst) == 5
    verdict, reason = judged(annotations, bad, good)
    assert verdict is Verdict.INACCURATE
    assert f"mAP {figures.map:.4f}, the float reference's {figures.reference_map:.4f} on 40 pictures" in reason
    assert "beyond the tolerance of 0.0100, and hardly by chance (p = 0.001)" in reason
    assert judged(annotations, bad, good, map_drop=0.9)[0] is Verdict.PASS


def test_the_same_detections_pass_and_a_small_set_says_that_it_is_small(annotations: Annotations, good: list[Any]) -> None:
    figures = figures_of(annotations, good, good)
    assert (figures.drop, figures.drop_p, figures.lost, figures.won, figures.worst) == (0.0, 1.0, 0, 0, ())
    assert (figures.matched, figures.mean_iou, figures.score_drift) == (1.0, pytest.approx(1.0), 0.0)
    # Seven objects, each in another picture, are the fewest whose loss is no chance.
    assert figures.smallest_detectable_drop == pytest.approx(7 / annotations.objects)
    verdict, reason = judged(annotations, good, good)
    assert verdict is Verdict.PASS
    assert reason.endswith(f"but 40 pictures can show a drop of {7 / annotations.objects:.4f} at the smallest")
    assert "but" not in judged(annotations, good, good, map_drop=0.2)[1]


def test_few_pictures_are_inconclusive(tmp_path: Path) -> None:
    few = annotated(tmp_path, document(6, 4, objects=6))
    candidate, reference = detect(few, 1, misses=0.9), detect(few, 1, misses=0.0, jitter=0, noise=0)
    verdict, reason = judged(few, candidate, reference)
    assert verdict is Verdict.INCONCLUSIVE
    assert "but it may be chance" in reason and "6 pictures are too few to show any drop; evaluate on more pictures" in reason
    assert judged(few, reference, reference)[1].endswith("but 6 pictures are too few to show any drop")


def test_a_float_model_that_misses_what_its_card_expects(annotations: Annotations, good: list[Any], bad: list[Any]) -> None:
    expected = figures_of(annotations, good, None).map
    assert expected is not None
    assert judged(annotations, good, None, expected_map=expected) == (Verdict.PASS, f"mAP {expected:.4f} on 40 pictures")
    verdict, reason = judged(annotations, bad, bad, expected_map=expected)
    assert verdict is Verdict.INACCURATE
    assert f"where its card expects {expected:.4f} (p = 0.001): check the card's preprocessing, [detection] and" in reason
    verdict, reason = judged(annotations, good, good, expected_map=expected + 0.011)
    assert verdict is Verdict.INCONCLUSIVE
    assert "but it may be chance" in reason


def test_a_nan_is_inaccurate_whoever_gives_it(annotations: Annotations, good: list[Any]) -> None:
    names = [str(number) for number in range(PICTURES)]
    for broken, part in (((1, 0), "the outputs for 1 of 40 pictures hold NaN"), ((0, 2), "the float reference itself gives NaN")):
        figures = compare_detections(of(good, broken[0]), of(good, broken[1]), names, annotations, DetectionDemands())
        decision = judge_detections(figures, DetectionDemands())
        assert decision.verdict is Verdict.INACCURATE
        assert part in decision.reason


def test_without_annotations_pairs_are_judged(good: list[Any], bad: list[Any]) -> None:
    figures = figures_of(None, bad, good)
    assert (figures.map, figures.drop, figures.objects, figures.classes) == (None, None, None, ())
    assert figures.matched is not None and figures.matched < 0.6
    assert figures.reference_detections is not None and figures.lost_detections is not None and figures.new_detections is not None
    assert figures.class_changes is not None
    pairs = (figures.detections - figures.new_detections - figures.class_changes) * 2
    assert figures.matched == pytest.approx(pairs / (figures.detections + figures.reference_detections))
    verdict, reason = judged(None, bad, good, matched=0.9)
    assert verdict is Verdict.INACCURATE
    assert "below the 90.0% asked for, and hardly by chance (p = 0.0005)" in reason
    assert judged(None, bad, good) == (Verdict.PASS, judged(None, bad, good)[1])
    assert judged(None, bad, good)[1].endswith("the card sets no matched share to reach")
    assert judged(None, bad, good, matched=0.2)[1].endswith("at least the 20.0% asked for")
    verdict, reason = judged(None, bad[:5], good[:5], matched=0.9)
    assert verdict is Verdict.INCONCLUSIVE
    assert "but it may be chance" in reason
    assert judged(None, good[:5], good[:5], matched=0.9)[1].endswith(
        "but 5 pictures are too few to show any share to be below that"
    )


def test_nothing_to_tell_from_is_said(annotations: Annotations, good: list[Any]) -> None:
    nothing = [(numpy.zeros((0, 4)), numpy.zeros(0), numpy.zeros(0, int))] * PICTURES
    assert judged(None, nothing, nothing, matched=0.9)[0] is Verdict.INCONCLUSIVE
    assert (
        "evaluate on pictures with objects, or lower detection.matching_score" in judged(None, nothing, nothing, matched=0.9)[1]
    )
    assert judged(None, nothing, nothing)[0] is Verdict.PASS
    assert "checked only that the outputs for 40 pictures are finite" in judged(None, good, None)[1]
    empty = replace(annotations, pictures=tuple(replace(one, objects=()) for one in annotations.pictures))
    assert judged(empty, good, good)[0] is Verdict.INCONCLUSIVE
    assert "the annotations have no object in these 40 pictures" in judged(empty, good, good)[1]


def test_other_pictures_are_refused(annotations: Annotations, good: list[Any]) -> None:
    with pytest.raises(ValueError, match="all must be of the same pictures"):
        compare_detections(of(good), of(good[:3]), [str(number) for number in range(PICTURES)], annotations, DetectionDemands())


# Pairs


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Any:
    table = numpy.array(rows, float).reshape(-1, 6)
    return table[:, :4].astype(numpy.float32), table[:, 4].astype(numpy.float32), table[:, 5].astype(numpy.int64)


def test_pairs_are_of_one_class_first_and_of_any_then() -> None:
    reference = boxes((0, 0, 0.5, 0.5, 0.9, 0), (0.5, 0.5, 1, 1, 0.8, 1), (0, 0.5, 0.4, 0.9, 0.7, 0), (0, 0, 1, 1, 0.2, 0))
    candidate = boxes((0, 0, 0.5, 0.45, 0.85, 0), (0.5, 0.5, 1, 1, 0.6, 2), (0.6, 0, 0.9, 0.2, 0.5, 0))
    found = pair_detections(candidate, reference, 0.3)
    assert found.ious == (pytest.approx(0.9),)
    assert found.drifts == (pytest.approx(-0.05),)
    assert (found.class_changes, found.lost, found.new) == (1, 1, 1)
    assert matched_share([found]) == pytest.approx(2 / 6)
    assert matched_share([pair_detections(boxes(), boxes(), 0.3)]) is None
    assert matched_share([pair_detections(boxes(), reference, 0.3)]) == 0


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_every_detection_is_counted_once(seed: int) -> None:
    random = numpy.random.RandomState(seed)

    def some() -> Any:
        corners = random.uniform(0, 0.5, (random.randint(0, 6), 2))
        count = len(corners)
        sizes = random.uniform(0, 0.5, (count, 2))
        return numpy.concatenate([corners, corners + sizes], axis=1), random.uniform(0, 1, count), random.randint(0, 2, count)

    candidate, reference = some(), some()
    found = pair_detections(candidate, reference, 0.2)
    assert found.pairs + found.class_changes + found.lost == (reference[1] >= 0.2).sum()
    assert found.pairs + found.class_changes + found.new == (candidate[1] >= 0.2).sum()
    assert all(0.5 <= iou <= 1 + 1e-6 for iou in found.ious)


def test_false_alarms_of_the_matched_share_are_rare() -> None:
    random = numpy.random.RandomState(0)
    alarms = 0
    for _ in range(200):
        # Nine of ten detections have a partner on the mean, but what goes wrong goes wrong for a whole picture.
        losses = random.uniform(size=40) < 0.1
        pictures = [
            PicturePairs((1.0,) * (0 if lost else 4), (0.0,) * (0 if lost else 4), 0, 4 * lost, 4 * lost) for lost in losses
        ]
        alarms += matched_p_value(pictures, 0.9, draws=199) < 0.05
    assert alarms <= 20


def test_what_is_matched_as_asked_for_is_no_alarm() -> None:
    assert matched_p_value([PicturePairs((1.0,) * 9, (0.0,) * 9, 0, 1, 1)] * 20, 0.9) == 1.0


def test_a_mixture_of_two_models_lies_between_them(annotations: Annotations, good: list[Any], bad: list[Any]) -> None:
    some = figures_of(annotations, mixed(good, bad, 0, 0.3), good)
    all_of_it = figures_of(annotations, bad, good)
    assert some.matched is not None and all_of_it.matched is not None and some.matched > all_of_it.matched


def test_two_models_that_find_nothing_of_what_is_there_do_not_pass(annotations: Annotations, good: list[Any]) -> None:
    nothing = [(boxes[:0], scores[:0], classes[:0]) for boxes, scores, classes in good]
    decision = judge_detections(
        compare_detections(of(nothing), of(nothing), [str(place) for place in range(len(good))], annotations, DetectionDemands()),
        DetectionDemands(),
    )
    assert decision.verdict is Verdict.INCONCLUSIVE and "finds any of the" in decision.reason
