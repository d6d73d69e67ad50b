"""COCO's mean average precision from matches that are known already, many times over and fast.

pycocotools says once which detection found which object; what changes when pictures are swapped between two models, or drawn anew, is
only which of these detections count. Precision and its interpolation at 101 recalls are those of ``COCOeval.accumulate``
(https://github.com/cocodataset/cocoapi), computed for many selections of pictures at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

RECALLS = 101
FEWEST_PICTURES = 7
"""If so many pictures are all worse, that is significant at 0.01: 2 to the power of -7 is 0.008. Of six it would be 0.016."""

MOST_SWAPS = 999
FEWEST_SWAPS = 199
ENOUGH_EXCEEDED = 20
_ROWS_AT_ONCE = 100
_VALUES_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class in all pictures, those with the highest score first.

    ``pictures`` (D,): the picture of each; ``scores`` (D,); ``true`` (thresholds, D): whether it found an object at that IoU;
    ``counted`` (thresholds, D): false where it is neither right nor wrong, as on a crowd; ``objects`` (N,): how many there are to be found
    in each picture.
    """

    pictures: Array
    scores: Array
    true: Array
    counted: Array
    objects: Array


@dataclass(frozen=True)
class SwapTest:
    """``p_value`` is one-sided; ``largest`` the drop that no more than ``alpha`` of the swaps exceeded, None where no drop can be
    significant; ``swaps`` how many were made.
    """

    p_value: float
    largest: float | None
    swaps: int


def mean_average_precisions(classes: Sequence[ClassMatches], counts: Array) -> Array:
    """mAP (rows,) float64 for ``counts`` (rows, pictures): how often each picture is in the set. NaN where there is no object at all."""
    import numpy

    rows = max(1, min(len(counts), _VALUES_AT_ONCE // max(1, max((len(one.scores) for one in classes), default=1))))
    parts = []
    for start in range(0, len(counts), rows):
        chosen = counts[start : start + rows]
        per_class = numpy.array([_average_precision(one, chosen) for one in classes]).reshape(len(classes), len(chosen))
        known = ~numpy.isnan(per_class)
        sums = numpy.where(known, per_class, 0).sum(axis=0)
        with numpy.errstate(invalid="ignore"):
            parts.append(sums / known.sum(axis=0))
    return numpy.concatenate(parts)


def _average_precision(matches: ClassMatches, counts: Array) -> Array:
    """AP of one class (rows,), the mean over thresholds and recalls; NaN where a row has no object of it."""
    import numpy

    objects = (counts * matches.objects).sum(axis=1).astype(numpy.float64)
    weights = counts[:, matches.pictures].astype(numpy.int32)
    recalls = numpy.linspace(0.0, 1.0, RECALLS)
    total = numpy.zeros(len(counts))
    seen: Array | None = None
    for threshold, (true, counted) in enumerate(zip(matches.true, matches.counted, strict=True)):
        if seen is None or (counted != matches.counted[threshold - 1]).any():
            seen = numpy.cumsum(weights * counted, axis=1, dtype=numpy.int32)
        places = numpy.nonzero(true & counted)[0]
        if not len(places):
            continue
        own = weights[:, places]
        found = numpy.cumsum(own, axis=1)
        # Precision is highest where something was just found, so that all other places may be left out.
        precision = numpy.where(own > 0, found / numpy.maximum(seen[:, places], 1), 0.0)
        precision = numpy.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with numpy.errstate(invalid="ignore", divide="ignore"):
            reached = numpy.searchsorted(recalls, found / objects[:, None], side="right")
        reached = numpy.where(found > 0, reached, 0)
        total += (numpy.diff(reached, axis=1, prepend=0) * precision).sum(axis=1) / RECALLS
    return numpy.asarray(numpy.where(objects > 0, total / len(matches.true), numpy.nan))


def swap_test(reference: Sequence[ClassMatches], candidate: Sequence[ClassMatches], *, alpha: float, seed: int = 0) -> SwapTest:
    """Whether the candidate's mAP is lower than the reference's by more than chance, by swapping their detections picture by picture.

    If the two were equally good, it would not matter whose detections of a picture are whose: each picture's are swapped by the toss of a
    coin, mAP is computed anew, and the p-value is the share of such swaps with at least the drop that was found, that one included. This
    is Fisher's randomization test with pictures as units, as E. W. Noreen, Computer Intensive Methods for Testing Hypotheses, 1989, has
    it for any statistic, and M. D. Smucker et al., CIKM 2007, for mean average precision. mAP is no mean over pictures, which is why no
    test of differences picture by picture is asked.

    Swaps are drawn from ``seed``. They end early where the drop is clearly none (J. Besag and P. Clifford, Biometrika 78, 1991).
    """
    import numpy

    pictures = len(reference[0].objects) if reference else 0
    both = [_together(mine, other) for mine, other in zip(reference, candidate, strict=True)]
    rows = numpy.zeros((2, 2 * pictures), numpy.int32)
    rows[0, :pictures] = rows[1, pictures:] = 1
    first, second = mean_average_precisions(both, rows)
    drop = first - second
    random = numpy.random.RandomState(seed)
    drops: list[float] = []
    exceeded = 0
    while len(drops) < FEWEST_SWAPS or (exceeded < ENOUGH_EXCEEDED and len(drops) < MOST_SWAPS):
        count = min(_ROWS_AT_ONCE, (FEWEST_SWAPS if len(drops) < FEWEST_SWAPS else MOST_SWAPS) - len(drops))
        kept = random.randint(0, 2, (count, pictures)).astype(numpy.int32)
        chosen = numpy.concatenate([numpy.concatenate([kept, 1 - kept], axis=1), numpy.concatenate([1 - kept, kept], axis=1)])
        values = mean_average_precisions(both, chosen)
        swapped = values[:count] - values[count:]
        drops += swapped.tolist()
        exceeded = int((numpy.array(drops) >= drop - 1e-12).sum())
    # The lowest value that fewer than alpha of all, the found one included, reach.
    place = max(0, int(alpha * (len(drops) + 1) - 1e-9) - 1)
    largest = sorted(drops, reverse=True)[place] if pictures >= FEWEST_PICTURES else None
    return SwapTest((exceeded + 1) / (len(drops) + 1), largest, len(drops))


def _together(reference: ClassMatches, candidate: ClassMatches) -> ClassMatches:
    """One class of both models; the candidate's pictures are counted on after the reference's."""
    import numpy

    count = len(reference.objects)
    pictures = numpy.concatenate([reference.pictures, candidate.pictures + count])
    scores = numpy.concatenate([reference.scores, candidate.scores])
    # Of equal scores the earlier picture comes first, whoever's it is: else one model would be favoured where many are equal.
    order = numpy.lexsort((pictures % max(count, 1), -scores))
    return ClassMatches(
        pictures[order],
        scores[order],
        numpy.concatenate([reference.true, candidate.true], axis=1)[:, order],
        numpy.concatenate([reference.counted, candidate.counted], axis=1)[:, order],
        numpy.concatenate([reference.objects, candidate.objects]),
    )


def share_that_reach(classes: Sequence[ClassMatches], expected: float, *, draws: int = 999, seed: int = 0) -> float:
    """How likely a set of so many pictures shows an mAP of ``expected`` and more, if the world is as these pictures are.

    The set is drawn anew from its own pictures, with replacement (B. Efron, Annals of Statistics 7, 1979), ``draws`` times; the share
    counts the expected one as a draw, so that it is never 0.
    """
    import numpy

    pictures = len(classes[0].objects) if classes else 0
    random = numpy.random.RandomState(seed)
    reached = 0
    for start in range(0, draws, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, draws - start)
        drawn = random.randint(0, max(pictures, 1), (count, pictures))
        counts = numpy.zeros((count, pictures), numpy.int32)
        numpy.add.at(counts, (numpy.arange(count)[:, None], drawn), 1)
        reached += int((mean_average_precisions(classes, counts) >= expected).sum())
    return (reached + 1) / (draws + 1)
