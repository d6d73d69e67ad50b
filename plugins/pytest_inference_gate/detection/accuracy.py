"""Does it detect less? Detections in, verdict out: pure functions, no I/O.

As with top-1, a converted model is compared with the float model that it was made from on the same pictures. Where they are annotated, the
question is whether COCO's mean average precision fell by more than chance (detections are swapped between the two, picture by picture);
where they are not, whether as many detections have a partner in the other model as the card asks for. Effect size and significance must
both speak before a case is called ``inaccurate``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..accuracy_rule import (
    ALPHA,
    FLOAT_REFERENCE,
    AccuracyDecision,
    EvaluationSet,
    at_most,
    judge_drop,
    judge_expected,
    judge_finite,
    judge_share,
)
from ..verdict import Verdict
from .average_precision import FEWEST_PICTURES, SwapTest, share_that_reach, swap_test
from .coco_evaluation import CocoEvaluation, evaluate_coco
from .pairs import PicturePairs, matched_p_value, matched_share, pair_detections

if TYPE_CHECKING:
    from .annotations import Annotations
    from .coco_evaluation import Array, Detections

WORST_SHOWN = 5


@dataclass(frozen=True)
class DetectionDemands:
    """What the card asks for: ``map_drop`` and ``expected_map`` in mAP from 0 to 1, ``matched`` as a share; ``matching_score`` is the score
    from which on detections are compared in pairs.
    """

    map_drop: float = 0.01
    matched: float | None = None
    expected_map: float | None = None
    matching_score: float = 0.3


class DetectedPictures:
    """What a model detects: ``detections`` one a picture, and ``not_finite`` (N,) where its outputs hold a NaN or an infinity."""

    def __init__(self, detections: Sequence[Detections], not_finite: Array) -> None:
        self.detections = detections
        self.not_finite = not_finite
        self._evaluation: CocoEvaluation | None = None
        self._lock = threading.Lock()

    def evaluate(self, annotations: Annotations, matching_score: float) -> CocoEvaluation:
        """COCO's evaluation, made once: the pictures have one set of annotations."""
        with self._lock:
            if self._evaluation is None:
                self._evaluation = evaluate_coco(annotations, self.detections, matching_score=matching_score)
            return self._evaluation


@dataclass(frozen=True)
class ClassPrecision:
    """AP of one class, of the candidate and of the reference; ``objects`` are those to be found."""

    name: str
    objects: int
    ap: float | None
    reference_ap: float | None


@dataclass(frozen=True)
class DetectionFigures:
    """What was detected, and what two models' detections have in common. None where there was nothing to tell from.

    * ``n``, ``objects``: pictures, and objects in them (crowds left out; None without annotations).
    * ``map``: COCO's AP, the mean over ten IoUs from .5 to .95, 101 recalls and all classes; ``map50``, ``map75``: at these IoUs alone;
      ``ar100``: the recall with 100 detections a picture, averaged alike (T.-Y. Lin et al., ECCV 2014).
    * ``reference_map``, ``reference_map50``, ``reference_map75``, ``reference_ar100``: the float model's on the same pictures; ``drop`` =
      reference_map - map.
    * ``classes``: AP of each class, the largest loss first.
    * ``lost``, ``won``: objects that the reference found and the candidate did not, and the other way round, at IoU .5 by detections of
      ``matching_score`` and more.
    * ``drop_p``: of the test that swaps detections picture by picture, one-sided; ``smallest_detectable_drop``: a smaller one could not
      be told from chance on this set; None where no drop could; ``swaps``: how many were made.
    * ``expected_p``: the chance that a set like this shows the mAP that the card expects, asked only where the float model misses it.
    * ``matched``: the share of all detections of both models that have a partner of the same class in the other one, with an IoU of .5 at
      least; ``matched_p``: the chance of so few if the share were what the card asks for. ``detections``, ``reference_detections``: how
      many there are. ``mean_iou``, ``score_drift`` (mean of the absolute change), ``score_drift_signed``: of the pairs.
      ``class_changes``: boxes that overlap but are called something else; ``lost_detections``, ``new_detections``: without any partner.
      All of these of detections that score ``matching_score`` and more.
    * ``worst``: the names of the pictures that lost most.
    * ``nan_count``, ``reference_nan_count``: pictures with a NaN or an infinity among their outputs.
    """

    n: int
    objects: int | None
    map: float | None
    map50: float | None
    map75: float | None
    ar100: float | None
    reference_map: float | None
    reference_map50: float | None
    reference_map75: float | None
    reference_ar100: float | None
    drop: float | None
    drop_p: float | None
    smallest_detectable_drop: float | None
    swaps: int
    expected_p: float | None
    classes: tuple[ClassPrecision, ...]
    lost: int | None
    won: int | None
    matched: float | None
    matched_p: float | None
    detections: int
    reference_detections: int | None
    mean_iou: float | None
    score_drift: float | None
    score_drift_signed: float | None
    class_changes: int | None
    lost_detections: int | None
    new_detections: int | None
    matching_score: float
    worst: tuple[str, ...]
    nan_count: int
    reference_nan_count: int
    alpha: float


def compare_detections(
    candidate: DetectedPictures,
    reference: DetectedPictures | None,
    names: Sequence[str],
    annotations: Annotations | None,
    demands: DetectionDemands,
    *,
    alpha: float = ALPHA,
) -> DetectionFigures:
    """All figures on what the candidate detects in the pictures called ``names``, in their order.

    Raises ValueError where the numbers of pictures differ, EvaluationDataError where pycocotools is missing.
    """
    found = candidate.detections
    if len(names) != len(found) or (reference is not None and len(reference.detections) != len(found)):
        raise ValueError(f"there are {len(names)} pictures and detections of {len(found)}: all must be of the same pictures")
    figures = DetectionFigures(
        n=len(found),
        objects=None,
        map=None,
        map50=None,
        map75=None,
        ar100=None,
        reference_map=None,
        reference_map50=None,
        reference_map75=None,
        reference_ar100=None,
        drop=None,
        drop_p=None,
        smallest_detectable_drop=None,
        swaps=0,
        expected_p=None,
        classes=(),
        lost=None,
        won=None,
        matched=None,
        matched_p=None,
        detections=_count(found, demands.matching_score),
        reference_detections=None,
        mean_iou=None,
        score_drift=None,
        score_drift_signed=None,
        class_changes=None,
        lost_detections=None,
        new_detections=None,
        matching_score=demands.matching_score,
        worst=(),
        nan_count=int(candidate.not_finite.sum()),
        reference_nan_count=0 if reference is None else int(reference.not_finite.sum()),
        alpha=alpha,
    )
    badness = [0.0] * len(names)
    if reference is not None:
        pairs = [
            pair_detections(mine, other, demands.matching_score) for mine, other in zip(found, reference.detections, strict=True)
        ]
        figures = _with_pairs(figures, pairs, _count(reference.detections, demands.matching_score), demands.matched)
        badness = [float(one.lost + one.new + 2 * one.class_changes) for one in pairs]
    if annotations is not None:
        own = candidate.evaluate(annotations, demands.matching_score)
        other = None
        if reference is not None:
            other = reference.evaluate(annotations, demands.matching_score)
            # An object that was lost outweighs any detection that has no partner.
            for place, lost in enumerate(_lost_by_picture(annotations, own, other)):
                badness[place] += 1e6 * lost
        figures = _with_annotations(figures, annotations, own, other, demands)
    ranked = sorted(range(len(names)), key=lambda place: (-badness[place], place))
    return replace(figures, worst=tuple(names[place] for place in ranked[:WORST_SHOWN] if badness[place] > 0))


def _count(detections: Sequence[Detections], score: float) -> int:
    return sum(int((scores >= score).sum()) for _, scores, _ in detections)


def _with_pairs(
    figures: DetectionFigures, pairs: Sequence[PicturePairs], reference_detections: int, matched: float | None
) -> DetectionFigures:
    share = matched_share(pairs)
    ious = [value for one in pairs for value in one.ious]
    drifts = [value for one in pairs for value in one.drifts]
    return replace(
        figures,
        matched=share,
        matched_p=None if matched is None or share is None else 1.0 if share >= matched else matched_p_value(pairs, matched),
        reference_detections=reference_detections,
        mean_iou=_mean(ious),
        score_drift=_mean([abs(value) for value in drifts]),
        score_drift_signed=_mean(drifts),
        class_changes=sum(one.class_changes for one in pairs),
        lost_detections=sum(one.lost for one in pairs),
        new_detections=sum(one.new for one in pairs),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _with_annotations(
    figures: DetectionFigures,
    annotations: Annotations,
    own: CocoEvaluation,
    other: CocoEvaluation | None,
    demands: DetectionDemands,
) -> DetectionFigures:
    float_model, expected, expected_p = own if other is None else other, demands.expected_map, None
    if expected is not None and float_model.map is not None and not at_most(expected - float_model.map, demands.map_drop):
        expected_p = share_that_reach(float_model.matches, expected)
    objects: dict[int, int] = {}
    for picture in annotations.pictures:
        for one in picture.objects:
            objects[one.category] = objects.get(one.category, 0) + (not one.crowd)
    classes = [
        ClassPrecision(
            annotations.categories[category], objects.get(category, 0), ap, other.per_class[category] if other else None
        )
        for category, ap in own.per_class.items()
    ]
    figures = replace(
        figures,
        objects=annotations.objects,
        map=own.map,
        map50=own.map50,
        map75=own.map75,
        ar100=own.ar100,
        expected_p=expected_p,
        classes=tuple(sorted(classes, key=lambda one: (one.ap or 0.0) - (one.reference_ap or 0.0))),
    )
    if other is None:
        return figures
    figures = replace(
        figures,
        reference_map=other.map,
        reference_map50=other.map50,
        reference_map75=other.map75,
        reference_ar100=other.ar100,
        lost=len(other.found - own.found),
        won=len(own.found - other.found),
    )
    if own.map is None or other.map is None:
        return figures
    drop = other.map - own.map
    test = swap_test(other.matches, own.matches, alpha=figures.alpha)
    return replace(
        figures,
        drop=drop,
        drop_p=test.p_value,
        swaps=test.swaps,
        smallest_detectable_drop=_smallest_detectable(test, drop, annotations.objects, figures.alpha),
    )


def _smallest_detectable(test: SwapTest, drop: float, objects: int, alpha: float) -> float | None:
    """What chance alone comes to, and at least what it costs to lose one object in each of as many pictures as it takes.

    Seven pictures are the fewest that can be significant if all are worse, as seven lost samples are with top-1; one object of ``objects``
    is about 1 / objects of the mAP. A drop that was found to be significant shows that smaller ones can be.
    """
    if test.largest is None or not objects:
        return None
    smallest = max(test.largest, FEWEST_PICTURES / objects)
    return min(smallest, drop) if drop > 0 and test.p_value < alpha else smallest


def _lost_by_picture(annotations: Annotations, own: CocoEvaluation, other: CocoEvaluation) -> list[int]:
    lost, number = [], 0
    for picture in annotations.pictures:
        numbers = range(number, number + len(picture.objects))
        lost.append(sum(one in other.found and one not in own.found for one in numbers))
        number += len(picture.objects)
    return lost


def judge_detections(
    figures: DetectionFigures, demands: DetectionDemands, *, reference: str = FLOAT_REFERENCE
) -> AccuracyDecision:
    """Whether the figures, made with the same ``demands``, are good enough. ``reference`` is what messages call the other detections.

    In this order: any NaN or infinity, or a float model that does not reach the mAP that the card expects, is ``inaccurate``; a drop beyond
    ``map_drop`` (without annotations, a matched share below ``matched``) is ``inaccurate`` if it is significant, else ``inconclusive``.
    """
    n = figures.n
    evaluated = EvaluationSet(n, "pictures", figures.alpha)
    not_finite = judge_finite(evaluated, figures.nan_count, figures.reference_nan_count, reference)
    if not_finite is not None:
        return not_finite
    suspicion: AccuracyDecision | None = None
    if figures.expected_p is not None:
        reached = figures.map if figures.reference_map is None else figures.reference_map
        suspicion = judge_expected(
            evaluated,
            f"the float model reaches an mAP of {reached:.4f} on {n} pictures, where its card expects {demands.expected_map:.4f}",
            figures.expected_p,
            check="the card's preprocessing, [detection] and checkpoint",
        )
        if suspicion.verdict is Verdict.INACCURATE:
            return suspicion

    if figures.drop is not None and figures.map == figures.reference_map == 0:
        text = (
            f"neither this model nor {reference} finds any of the {figures.objects} objects in {n} pictures, so that nothing is left to "
            "lose: check the card's labels, preprocessing and [detection]"
        )
        decision = AccuracyDecision(Verdict.INCONCLUSIVE, text, None)
    elif figures.drop is not None:
        assert figures.drop_p is not None
        decision = judge_drop(
            evaluated,
            f"mAP {figures.map:.4f}, {reference}'s {figures.reference_map:.4f} on {n} pictures "
            f"({figures.lost} of {figures.objects} objects lost, {figures.won} won)",
            figures.drop,
            tolerance=demands.map_drop,
            p_value=figures.drop_p,
            smallest_detectable=figures.smallest_detectable_drop,
            amount=lambda drop: f"{drop:.4f}",
        )
    elif figures.objects is not None and figures.map is None:
        text = (
            f"the annotations have no object in these {n} pictures, so that no precision can be told: add pictures with objects"
        )
        decision = AccuracyDecision(Verdict.INCONCLUSIVE, text, None)
    elif figures.map is not None:
        decision = AccuracyDecision(Verdict.PASS, f"mAP {figures.map:.4f} on {n} pictures", None)
    elif figures.reference_detections is not None:
        decision = _judge_matched(evaluated, figures, demands.matched, reference)
    else:
        text = f"no annotations and no reference: checked only that the outputs for {n} pictures are finite"
        decision = AccuracyDecision(Verdict.PASS, text, None)
    return suspicion if suspicion is not None and decision.verdict is Verdict.PASS else decision


def _judge_matched(evaluated: EvaluationSet, figures: DetectionFigures, asked: float | None, reference: str) -> AccuracyDecision:
    n, score = figures.n, figures.matching_score
    if figures.matched is None:
        text = f"neither this model nor {reference} detects anything that scores {score:g} in {n} pictures"
        if asked is None:
            return AccuracyDecision(Verdict.PASS, f"{text}; the card sets no matched share to reach", None)
        text += ": evaluate on pictures with objects, or lower detection.matching_score"
        return AccuracyDecision(Verdict.INCONCLUSIVE, text, None)
    change = (
        f"{figures.matched:.1%} of {figures.detections} detections and {reference}'s {figures.reference_detections} in {n} pictures "
        f"have a partner ({figures.lost_detections} lost, {figures.new_detections} new, {figures.class_changes} of another class)"
    )
    if asked is None:
        return AccuracyDecision(Verdict.PASS, f"{change}; the card sets no matched share to reach", None)
    assert figures.matched_p is not None
    return judge_share(
        evaluated,
        change,
        figures.matched,
        asked=asked,
        p_value=figures.matched_p,
        can_fall_short=n >= FEWEST_PICTURES,
        what="share",
    )
