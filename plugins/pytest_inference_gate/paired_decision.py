"""Is it slower than the other stack? Ratios of process pairs in, verdict out: pure functions, no I/O.

The unit is the *pair*: one fresh process of each stack, measured in turns, and its value is candidate / reference. Whatever happens to the
machine meets both, so there is no baseline whose noise would have to be known, and the threshold is the tolerance itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

from .decision import ALPHA, LatencyDecision, change_in_words, check_rule
from .rank_tests import centre_interval, signed_rank_p_value
from .sequential import as_many, change_of, fewest_for_a_change, standing
from .verdict import Verdict


def decide_pairs(
    ratios: Sequence[float],
    *,
    tolerance: float,
    first: int = 5,
    alpha: float = ALPHA,
    final: bool = False,
    candidate_median: float = 1.0,
    reference_median: float = 1.0,
) -> LatencyDecision:
    """Compare two stacks by ``ratios``, candidate / reference of each process pair so far, in the order in which they were taken.

    The median of the ``first`` pairs raises a suspicion; as many fresh pairs must show the change by themselves, and an exact signed-rank
    test over all of them must find it unlikely to be chance. ``final`` says that there are no more pairs, whatever is ``wanted``. The two
    medians (seconds) are for the record only; nothing is decided on them.

    Slowing the candidate in all pairs by a common factor never improves the final verdict. Swapping the stacks turns ``faster`` into
    ``slower``, and back where the first pairs are beyond the tolerance: only what may be slower is looked at again if it is just within.

    Raises ValueError with a sentence where there is no pair, a ratio is not a positive number, or a parameter is out of range.
    """
    check_rule(tolerance=tolerance, first=first, alpha=alpha)
    if not ratios:
        raise ValueError("there is no pair to decide on")
    for ratio in ratios:
        if not (isfinite(ratio) and ratio > 0):
            raise ValueError(f"{ratio} is given as the ratio of a pair, which must be a positive number")
    typical = middle_ratio(ratios)
    p_value = signed_rank_p_value(ratios if typical >= 1 else [1 / ratio for ratio in ratios])
    where = standing(
        len(ratios),
        lambda start, end: middle_ratio(ratios[start:end]),
        tolerance=tolerance,
        threshold=tolerance,
        significant=lambda: p_value < alpha,
        first=first,
        look_again_from=tolerance / 2,
        final=final,
    )
    if where.state == "changed":
        verdict = Verdict.SLOWER if typical > 1 else Verdict.FASTER
    elif where.state == "unclear" and typical > 1:
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    planned = fewest_for_a_change(first, lambda count: _smallest_p_value(count) < alpha)
    decision = LatencyDecision(
        verdict,
        typical,
        tolerance,
        p_value,
        reference_median,
        candidate_median,
        "",
        _minimum_detectable(ratios, typical, planned, tolerance, alpha),
        centre_interval(ratios),
        where.stage,
        wanted=where.wanted,
        evidence=PairedEvidence(len(ratios), first, alpha),
    )
    return decision.explained()


@dataclass(frozen=True)
class PairedEvidence:
    """Of two stacks in turns: how many pairs of processes there are, and how many are looked at before any fresh ones (``first``)."""

    pairs: int
    first: int
    alpha: float

    def reason(self, decision: LatencyDecision) -> str:
        """The verdict in a sentence, with the figures that it rests on."""
        return _reason(decision, self.pairs, self.first, self.alpha)


def middle_ratio(ratios: Sequence[float]) -> float:
    """The median of ratios; of an even number of them the geometric mean of the middle two, so that swapping the sides inverts it."""
    ordered = sorted(ratios)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else sqrt(ordered[middle - 1] * ordered[middle])


def _smallest_p_value(pairs: int) -> float:
    """The smallest that the signed-rank test can give for so many pairs."""
    return float(0.5**pairs)


def _minimum_detectable(ratios: Sequence[float], centre: float, planned: int, tolerance: float, alpha: float) -> float | None:
    """The smallest slow-down, as a share, that would be called slower if ``planned`` pairs scattered just as these do.

    The ratios are put where they show no change, and slowed down until the signed-rank test speaks. It can do so only where a slowed
    ratio passes 1, or passes the mirror image of another one, so those factors are all that need be tried.
    """
    unchanged = as_many([ratio / centre for ratio in ratios], planned)
    if _smallest_p_value(len(unchanged)) >= alpha:
        return None
    margin = 1 + 1e-9
    factors = sorted(
        {
            1 / (one * other) ** 0.5
            for one in set(unchanged)
            for other in set(unchanged)
            if 1 / (one * other) ** 0.5 > 1 + tolerance
        }
    )

    def significant(factor: float) -> bool:
        return signed_rank_p_value([ratio * factor for ratio in unchanged]) < alpha

    if significant((1 + tolerance) * margin):
        return tolerance
    position = bisect_left(factors, True, key=lambda factor: significant(factor * margin))
    return float(factors[position] - 1)


def _reason(decision: LatencyDecision, pairs: int, first: int, alpha: float) -> str:
    change = change_in_words(decision.ratio)
    compared = f"{change} {'as' if change.startswith('as') else 'than'} the other stack"
    beyond = f"beyond the tolerance of {decision.threshold:.1%}"
    fresh = pairs - first
    if decision.verdict in (Verdict.SLOWER, Verdict.FASTER):
        reason = f"{compared}, {beyond}, confirmed by {fresh} fresh pairs of processes, and hardly by chance (p = {decision.p_value:.2g})"
        slower = decision.verdict is Verdict.SLOWER
        return reason if slower else f"{reason}: check that it still does all of its work"
    if decision.verdict is Verdict.INCONCLUSIVE:
        if decision.wanted:
            return f"{compared} so far; {decision.wanted} more pairs of processes are wanted to tell whether that is so"
        if (smallest := _smallest_p_value(pairs)) >= alpha:
            few = f"{pairs} pair{' of processes is' if pairs == 1 else 's of processes are'} too few to call anything slower"
            return f"{compared}, {beyond}, but {few} (p cannot fall below {smallest:.2g}, needed below {alpha:g}): take more"
        if decision.p_value >= alpha:
            return f"{compared}, {beyond}, but too unsteady to be sure (p = {decision.p_value:.2g}, needed below {alpha:g})"
        return f"{compared}, but there was no time for enough fresh pairs of processes to confirm it"
    if decision.stage == "unconfirmed":
        return f"{compared}: what the first {min(first, pairs)} pairs of processes seemed to show, {fresh} fresh ones did not confirm"
    if change_of(decision.ratio) > decision.threshold:
        return f"{compared}, but too unsteady to be sure (p = {decision.p_value:.2g}, needed below {alpha:g})"
    return f"{compared}, within the tolerance of {decision.threshold:.1%}"
