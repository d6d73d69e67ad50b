"""Is it less accurate? Predictions in, verdict out: pure functions, no I/O.

A converted model is compared with the float model it was made from, sample by sample on one set, because a difference of two
separate accuracies on a small set is mostly chance. Where the set has labels, the question is whether more samples were lost
than won (an exact McNemar test); where it has none, whether the two agree on as many samples as the card asks for (an exact
binomial test). As with latency, effect size and significance must both speak before a case is called ``inaccurate``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, fsum, isfinite, lgamma, log, log1p
from typing import TYPE_CHECKING, Any

from .accuracy_rule import (
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
from .errors import EvaluationDataError
from .verdict import Verdict

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

SMALLEST_PROBABILITY = 1e-7
"""Probabilities are cut off here before their logarithm is taken: a quantized model says exactly 0 where the float one says
0.0004.
"""

_ROWS_AT_ONCE = 2048  # 1000 classes in float64 are then 16 MB an array, whatever the size of the set


@dataclass(frozen=True)
class AccuracyFigures:
    """What two sets of predictions have in common and what not. Shares are of ``n``; None where there was nothing to tell from.

    * ``n``, ``classes``: samples and classes.
    * ``top1``, ``top5``: the share of samples whose label is the class with the largest output, or one of the five largest. Of
      equal outputs the one of the lower class comes first, as with ``numpy.argmax``. ``top5`` is None for five classes and
      fewer, where it is always 1.
    * ``reference_top1``: the float model's on the same samples; ``drop`` = reference_top1 - top1, negative where the candidate
      is better.
    * ``agreement``: the share of samples for which both models name the same class; ``agreement_top5``: for which the class
      that the reference names is among the candidate's five largest.
    * ``lost``, ``won``: how many samples the reference had right and the candidate wrong, and the other way round.
    * ``mcnemar_p``: the chance of losing at least so many of the lost + won samples if each were lost or won by the toss of a
      coin; ``mcnemar_p_two_sided``: of being at least so uneven either way (Q. McNemar, Psychometrika 12, 1947, in its exact
      binomial form).
    * ``smallest_detectable_drop``: the smallest drop that this set could show to be significant at ``alpha``, with as many
      samples won as were won here; None where no drop could.
    * ``confidence_drift``: the mean of |p' - p|, p and p' being the probability that reference and candidate give to the class
      that the reference names; ``confidence_drift_signed``: the mean of p' - p.
    * ``cosine``: the mean cosine of the angle between the two output vectors of a sample, 1 for equal directions.
    * ``kl``: the mean Kullback-Leibler divergence of the candidate's probabilities from the reference's, sum p ln(p / p'), in
      nats, with probabilities below 1e-7 raised to it (S. Kullback and R. A. Leibler, Ann. Math. Statist. 22, 1951).
    * ``nan_count``, ``reference_nan_count``: samples with a NaN or an infinity among their outputs. They are wrong, agree with
      nothing, and are left out of drift, cosine and divergence.
    """

    n: int
    classes: int
    top1: float | None
    top5: float | None
    reference_top1: float | None
    drop: float | None
    agreement: float | None
    agreement_top5: float | None
    lost: int | None
    won: int | None
    mcnemar_p: float | None
    mcnemar_p_two_sided: float | None
    smallest_detectable_drop: float | None
    confidence_drift: float | None
    confidence_drift_signed: float | None
    cosine: float | None
    kl: float | None
    nan_count: int
    reference_nan_count: int
    alpha: float


def compare_predictions(
    outputs: Array,
    labels: Array | Sequence[int] | None = None,
    reference: Array | None = None,
    *,
    alpha: float = ALPHA,
) -> AccuracyFigures:
    """All figures on the candidate's ``outputs`` (N, classes), floating point.

    ``labels`` (N,) are whole-number indices into the outputs, with the card's offset added already; ``reference`` (N, classes)
    holds the float model's outputs for the same samples in the same order. Either may be missing; figures that need it are then
    None.

    Outputs count as probabilities if the reference's lie between 0 and 1 and add up to 1 for each sample; the candidate's are
    then scaled to add up to 1, which quantized ones do not quite. Otherwise both are taken for logits and go through a softmax.

    Raises ValueError where the shapes do not fit each other, EvaluationDataError where a label lies outside the model's classes.
    """
    import numpy

    candidate_outputs = _outputs("the candidate", outputs)
    n, classes = candidate_outputs.shape
    finite = _finite_rows(candidate_outputs)
    candidate_class = _named_class(candidate_outputs, finite)

    right = right_in_5 = None
    if labels is not None:
        wanted = _labels(labels, n, classes)
        right = candidate_class == wanted
        right_in_5 = _among_largest(candidate_outputs, wanted, 5) & finite

    if reference is None:
        return AccuracyFigures(
            n=n,
            classes=classes,
            top1=None if right is None else _share(right),
            top5=None if right_in_5 is None or classes <= 5 else _share(right_in_5),
            reference_top1=None,
            drop=None,
            agreement=None,
            agreement_top5=None,
            lost=None,
            won=None,
            mcnemar_p=None,
            mcnemar_p_two_sided=None,
            smallest_detectable_drop=None,
            confidence_drift=None,
            confidence_drift_signed=None,
            cosine=None,
            kl=None,
            nan_count=int(n - finite.sum()),
            reference_nan_count=0,
            alpha=alpha,
        )

    reference_outputs = _outputs("the reference", reference)
    if reference_outputs.shape != candidate_outputs.shape:
        raise ValueError(
            f"the candidate's outputs have the shape {candidate_outputs.shape} and the reference's {reference_outputs.shape}: "
            "both must be made from the same samples by models with the same classes"
        )
    reference_finite = _finite_rows(reference_outputs)
    reference_class = _named_class(reference_outputs, reference_finite)
    agrees = (candidate_class == reference_class) & finite & reference_finite
    agrees_in_5 = _among_largest(candidate_outputs, reference_class, 5) & finite & reference_finite

    lost = won = reference_top1 = None
    if right is not None:
        reference_right = reference_class == wanted
        reference_top1 = _share(reference_right)
        lost = int((reference_right & ~right).sum())
        won = int((right & ~reference_right).sum())

    drift: list[float] = []
    cosines: list[float] = []
    divergences: list[float] = []
    usable = finite & reference_finite
    as_probabilities = _are_probabilities(reference_outputs[reference_finite])
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        chosen = usable[rows]
        after = candidate_outputs[rows][chosen].astype(numpy.float64)
        before = reference_outputs[rows][chosen].astype(numpy.float64)
        cosines.extend(_cosines(before, after).tolist())
        before = _probabilities(before, as_probabilities)
        after = _probabilities(after, as_probabilities)
        named = reference_class[rows][chosen][:, None]
        moved = numpy.take_along_axis(after, named, axis=1) - numpy.take_along_axis(before, named, axis=1)
        drift.extend(moved[:, 0].tolist())
        divergences.extend(_divergences(before, after).tolist())

    return AccuracyFigures(
        n=n,
        classes=classes,
        top1=None if right is None else _share(right),
        top5=None if right_in_5 is None or classes <= 5 else _share(right_in_5),
        reference_top1=reference_top1,
        drop=None if lost is None or won is None else (lost - won) / n,
        agreement=_share(agrees),
        agreement_top5=None if classes <= 5 else _share(agrees_in_5),
        lost=lost,
        won=won,
        mcnemar_p=None if lost is None or won is None else mcnemar_p_value(lost, won),
        mcnemar_p_two_sided=None if lost is None or won is None else mcnemar_p_value_two_sided(lost, won),
        smallest_detectable_drop=None if won is None else smallest_detectable_drop(n, won, alpha),
        confidence_drift=_mean(abs(value) for value in drift),
        confidence_drift_signed=_mean(drift),
        cosine=_mean(cosines),
        kl=_mean(divergences),
        nan_count=int(n - finite.sum()),
        reference_nan_count=int(n - reference_finite.sum()),
        alpha=alpha,
    )


def judge_accuracy(
    figures: AccuracyFigures,
    *,
    top1_drop: float = 0.01,
    agreement: float | None = None,
    expected_top1: float | None = None,
    reference: str = FLOAT_REFERENCE,
) -> AccuracyDecision:
    """Whether the figures are good enough.

    ``reference`` is what messages call the predictions that the figures were compared with.

    ``top1_drop`` is the largest drop of top-1 against the reference that is accepted, ``agreement`` the smallest accepted share
    of equal top-1 for sets without labels (None: it is reported only), ``expected_top1`` what the card says that the float
    model reaches. The float model's own figure is checked against it: the reference's where there is one, else the candidate's,
    which then is the float model.

    In this order: any NaN or infinity, or a float model that does not reach what the card says, is ``inaccurate``; a drop
    beyond ``top1_drop`` (or an agreement below ``agreement``) is ``inaccurate`` if it is significant, else ``inconclusive``.
    """
    n = figures.n
    evaluated = EvaluationSet(n, "samples", figures.alpha)
    not_finite = judge_finite(evaluated, figures.nan_count, figures.reference_nan_count, reference)
    if not_finite is not None:
        return not_finite
    suspicion: AccuracyDecision | None = None
    float_top1 = figures.top1 if figures.reference_top1 is None else figures.reference_top1
    if expected_top1 is not None and float_top1 is not None and not at_most(expected_top1 - float_top1, top1_drop):
        suspicion = judge_expected(
            evaluated,
            f"the float model reaches a top-1 of {float_top1:.1%} on {n} samples, where its card expects {expected_top1:.1%}",
            binomial_at_most(round(float_top1 * n), n, expected_top1),
            check="the card's preprocessing, label offset and checkpoint",
        )
        if suspicion.verdict is Verdict.INACCURATE:
            return suspicion

    if figures.drop is not None:
        assert figures.mcnemar_p is not None
        decision = judge_drop(
            evaluated,
            f"top-1 {figures.top1:.1%}, {reference}'s {figures.reference_top1:.1%} on {n} samples "
            f"({figures.lost} lost, {figures.won} won)",
            figures.drop,
            tolerance=top1_drop,
            p_value=figures.mcnemar_p,
            smallest_detectable=figures.smallest_detectable_drop,
            amount=lambda drop: f"{100 * drop:.2f} points",
        )
    elif figures.top1 is not None:
        decision = AccuracyDecision(Verdict.PASS, f"top-1 {figures.top1:.1%} of {n} samples", None)
    elif figures.agreement is not None:
        decision = _judge_agreement(evaluated, figures.agreement, agreement, reference)
    else:
        decision = AccuracyDecision(
            Verdict.PASS, f"no labels and no reference: checked only that the outputs for {n} samples are finite", None
        )
    return suspicion if suspicion is not None and decision.verdict is Verdict.PASS else decision


def _judge_agreement(evaluated: EvaluationSet, share: float, asked: float | None, reference: str) -> AccuracyDecision:
    n = evaluated.n
    change = f"names {reference}'s class for {share:.1%} of {n} samples"
    if asked is None:
        return AccuracyDecision(Verdict.PASS, f"{change}; the card sets no agreement to reach", None)
    return judge_share(
        evaluated,
        change,
        share,
        asked=asked,
        p_value=binomial_at_most(round(share * n), n, asked),
        can_fall_short=binomial_at_most(0, n, asked) < evaluated.alpha,
        what="agreement",
    )


def mcnemar_p_value(lost: int, won: int) -> float:
    """The exact one-sided p-value for a drop: P(X >= lost) for X ~ Binomial(lost + won, 1/2); 1 where the two models never
    differ.
    """
    total = lost + won
    return _sum_of_combinations(total, won) / (1 << total)


def mcnemar_p_value_two_sided(lost: int, won: int) -> float:
    """The exact two-sided p-value: twice that of the more extreme side, at most 1."""
    total = lost + won
    return min(1.0, 2 * _sum_of_combinations(total, min(lost, won)) / (1 << total))


def binomial_at_most(successes: int, trials: int, share: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, share), term by term, in logarithms so that large sets do not underflow."""
    if successes >= trials or share <= 0:
        return 1.0
    if successes < 0 or share >= 1:
        return 0.0
    whole = lgamma(trials + 1)
    terms = (
        exp(whole - lgamma(k + 1) - lgamma(trials - k + 1) + k * log(share) + (trials - k) * log1p(-share))
        for k in range(successes + 1)
    )
    return min(1.0, fsum(terms))


def smallest_detectable_drop(n: int, won: int, alpha: float = ALPHA) -> float | None:
    """The smallest drop, as a share of ``n`` samples, that is significant where ``won`` samples are won; None where no possible
    one is.
    """
    most = n - won
    if most < 0 or mcnemar_p_value(most, won) >= alpha:
        return None
    lowest, highest = won, most  # as many lost as won is never significant, all the others lost is
    while highest - lowest > 1:
        middle = (lowest + highest) // 2
        if mcnemar_p_value(middle, won) < alpha:
            highest = middle
        else:
            lowest = middle
    return (highest - won) / n


def _sum_of_combinations(total: int, last: int) -> int:
    """comb(total, 0) + … + comb(total, last), each from the one before."""
    if last >= total:
        return 1 << total
    term = running = 1
    for k in range(1, last + 1):
        term = term * (total - k + 1) // k
        running += term
    return running


def _outputs(whose: str, outputs: Array) -> Array:
    import numpy

    array = numpy.asarray(outputs)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(
            f"{whose}'s outputs have the shape {array.shape}: they must be (samples, classes), with two classes at least"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"{whose}'s outputs are {array.dtype}: they must be floating point, with quantization undone")
    return array


def _labels(labels: Array | Sequence[int], n: int, classes: int) -> Array:
    import numpy

    array = numpy.asarray(labels)
    if array.shape != (n,):
        raise ValueError(f"there are labels of the shape {array.shape} for {n} samples: they must be (samples,)")
    if array.dtype.kind not in "iu":
        raise ValueError(f"the labels are {array.dtype}: they must be whole numbers")
    array = array.astype(numpy.int64)
    outside = array[(array < 0) | (array >= classes)]
    if outside.size:
        raise EvaluationDataError(
            f"the evaluation set has the label {int(outside[0])}, but the model's classes are 0 to {classes - 1}: "
            "check the card's labels.offset and that the set belongs to this model"
        )
    return array


def _finite_rows(outputs: Array) -> Array:
    import numpy

    return numpy.asarray(numpy.isfinite(outputs).all(axis=1))


def _named_class(outputs: Array, finite: Array) -> Array:
    """The class with the largest output, -1 for samples with a NaN or an infinity, which thereby equal no label."""
    import numpy

    return numpy.where(finite, outputs.argmax(axis=1), -1)


def _among_largest(outputs: Array, wanted: Array, count: int) -> Array:
    """Whether the wanted class is one of the ``count`` largest outputs of each sample, the lower class first among equal ones."""
    import numpy

    result = numpy.empty(len(outputs), dtype=bool)
    order = numpy.arange(outputs.shape[1])
    for start in range(0, len(outputs), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        values, classes = outputs[rows], wanted[rows][:, None]
        own = numpy.take_along_axis(values, classes, axis=1)
        before = (values > own) | ((values == own) & (order < classes))
        result[rows] = before.sum(axis=1) < count
    return result


def _share(flags: Array) -> float:
    return int(flags.sum()) / len(flags)


def _mean(values: Iterable[float]) -> float | None:
    """The mean, summed without rounding so that the order of the samples does not matter; None of nothing, or of what
    overflowed.
    """
    numbers = list(values)
    if not numbers or not all(isfinite(number) for number in numbers):
        return None
    return fsum(numbers) / len(numbers)


def _are_probabilities(outputs: Array) -> bool:
    import numpy

    if outputs.size == 0 or outputs.min() < -1e-3 or outputs.max() > 1 + 1e-3:
        return False
    return bool(numpy.abs(outputs.sum(axis=1, dtype=numpy.float64) - 1).max() < 1e-2)


def _probabilities(outputs: Array, as_probabilities: bool) -> Array:
    """(rows, classes) float64, each row positive and adding up to 1."""
    import numpy

    if as_probabilities:
        shares = outputs
    else:
        shares = numpy.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
    shares = shares.clip(SMALLEST_PROBABILITY, 1.0)
    return numpy.asarray(shares / shares.sum(axis=1, keepdims=True))


def _cosines(before: Array, after: Array) -> Array:
    """Two vectors of zeros point the same way; one alone is at a right angle to everything."""
    import numpy

    # Scaled by their largest entries first, so that neither squares overflow nor small ones vanish.
    before_size = numpy.abs(before).max(axis=1, keepdims=True)
    after_size = numpy.abs(after).max(axis=1, keepdims=True)
    before = before / numpy.where(before_size == 0, 1, before_size)
    after = after / numpy.where(after_size == 0, 1, after_size)
    lengths = numpy.sqrt((before * before).sum(axis=1) * (after * after).sum(axis=1))
    products = (before * after).sum(axis=1)
    cosines = numpy.clip(products / numpy.where(lengths == 0, 1, lengths), -1.0, 1.0)
    both_zero = (before_size[:, 0] == 0) & (after_size[:, 0] == 0)
    return numpy.asarray(numpy.where(both_zero, 1.0, cosines))


def _divergences(before: Array, after: Array) -> Array:
    """Never negative (Gibbs' inequality), but for rounding."""
    import numpy

    return numpy.asarray((before * (numpy.log(before) - numpy.log(after))).sum(axis=1).clip(0.0, None))
