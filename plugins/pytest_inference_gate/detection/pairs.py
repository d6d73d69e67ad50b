"""How much the detections of two models have in common: compared in pairs, with no annotations asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .coco_evaluation import Array, Detections

PAIR_IOU = 0.5
"""Two boxes that overlap by less are of different things: PASCAL VOC's own limit (M. Everingham et al., IJCV 88, 2010)."""


@dataclass(frozen=True)
class PicturePairs:
    """The detections of one picture in pairs.

    ``ious`` and ``drifts`` (candidate's score minus reference's) are one a pair of the same class; ``class_changes`` pairs of boxes that
    overlap but are called something else; ``lost`` are detections of the reference, ``new`` those of the candidate, without any partner.
    """

    ious: tuple[float, ...]
    drifts: tuple[float, ...]
    class_changes: int
    lost: int
    new: int

    @property
    def pairs(self) -> int:
        return len(self.ious)

    @property
    def detections(self) -> int:
        """Of both models."""
        return 2 * (self.pairs + self.class_changes) + self.lost + self.new


def pair_detections(candidate: Detections, reference: Detections, score: float) -> PicturePairs:
    """Pair the detections of one picture that score at least ``score``.

    Those of the reference choose in the order of their scores, each the free one of its own class that overlaps it most, by an IoU of
    :data:`PAIR_IOU` at least, as COCO's evaluation has detections choose objects. What is left over then chooses again whatever the class.
    """
    import numpy

    from ..agent.detection_decoding import overlaps

    boxes, scores, classes = _from(candidate, score)
    other_boxes, other_scores, other_classes = _from(reference, score)
    free = numpy.ones(len(boxes), bool)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ious: list[float] = []
    drifts: list[float] = []
    alone: list[int] = []
    changes = 0
    shares = [overlaps(box, (box[2] - box[0]) * (box[3] - box[1]), boxes, areas) for box in other_boxes]
    for number, share in enumerate(shares):
        usable = numpy.where(free & (classes == other_classes[number]), share, -1.0)
        best = int(usable.argmax()) if len(usable) else -1
        if best < 0 or usable[best] < PAIR_IOU:
            alone.append(number)
            continue
        free[best] = False
        ious.append(float(usable[best]))
        drifts.append(float(scores[best]) - float(other_scores[number]))
    for number in alone:
        usable = numpy.where(free, shares[number], -1.0)
        best = int(usable.argmax()) if len(usable) else -1
        if best >= 0 and usable[best] >= PAIR_IOU:
            free[best] = False
            changes += 1
    return PicturePairs(tuple(ious), tuple(drifts), changes, len(alone) - changes, int(free.sum()))


def _from(detections: Detections, score: float) -> tuple[Array, Array, Array]:
    boxes, scores, classes = detections
    chosen = scores >= score
    return boxes[chosen].astype("float64"), scores[chosen], classes[chosen]


def matched_share(pictures: Sequence[PicturePairs]) -> float | None:
    """The share of all detections of both models that have a partner of their class; None where neither model detects anything.

    That is 2 x pairs / (reference's + candidate's): what one model finds alone counts against it, whichever it is.
    """
    total = sum(one.detections for one in pictures)
    return 2 * sum(one.pairs for one in pictures) / total if total else None


def matched_p_value(pictures: Sequence[PicturePairs], share: float, *, draws: int = 1999, seed: int = 0) -> float:
    """The chance of so few matched detections if ``share`` of them were matched in truth, one-sided.

    Detections of one picture are not independent of each other, so pictures are the units: 2 x pairs - share x detections is zero on
    average then, and each picture's sign is turned by the toss of a coin (Fisher's randomization test for one sample, which takes these
    differences for symmetric). Rare and large losses make them lean to the left, and the test cautious.
    """
    import numpy

    differences = numpy.array([2 * one.pairs - share * one.detections for one in pictures], numpy.float64)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    random = numpy.random.RandomState(seed)
    found, reached = differences.sum(), 0
    for _ in range(draws):
        signs = random.randint(0, 2, len(differences)) * 2 - 1
        reached += bool((signs * differences).sum() <= found + 1e-9)
    return (reached + 1) / (draws + 1)
