"""Is it slower? Durations in, verdict out: pure functions, no I/O.

The unit is the *replicate*, one fresh process, and its statistic is the median of its rounds. Rounds of one process are not
independent of each other, so they never enter a test. A *session* is a sequence of replicates that were taken in one run.

The rule is a conjunction: the ratio of medians must lie beyond a threshold, which is the larger of the tolerance and three
times the spread between the baseline's own sessions, **and** an exact rank test over replicates must find it unlikely to be
chance. What passes one of the two only is ``inconclusive``.

Durations may be in any unit, as long as both sides have the same one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb, inf, isfinite
from statistics import median

from .verdict import Verdict

MAD_TO_STANDARD_DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation, 1 / (quantile function of 3/4)."""

SPREADS = 3.0
"""How many times the spread between sessions a change must exceed before it counts."""


@dataclass(frozen=True)
class LatencyDecision:
    """What was decided, and every number that it was decided on.

    ``ratio`` is the candidate's median over the baseline's; ``threshold`` and ``minimum_detectable`` are shares of the
    baseline's median (0.05 is 5 %). ``p_value`` is one-sided, in the direction of the change: for "slower" where the ratio is
    at least 1, for "faster" elsewhere. ``minimum_detectable`` is the smallest slow-down that could have been called ``slower``
    with as many replicates that scatter as these do (one of exactly this size is seen about every second time); None where
    there were too few replicates to call anything slower.
    """

    verdict: Verdict
    ratio: float
    threshold: float
    p_value: float
    baseline_median: float
    candidate_median: float
    reason: str
    minimum_detectable: float | None


def decide(
    baseline_sessions: Sequence[Sequence[float]],
    candidate: Sequence[float],
    *,
    tolerance: float,
    alpha: float = 0.01,
    ungateable_above: float = 0.10,
) -> LatencyDecision:
    """Compare the replicates of one case with its baseline.

    ``baseline_sessions`` holds one sequence of replicate medians for each session of the baseline, ``candidate`` those of this
    run.

    * beyond the threshold and significant: ``slower`` or ``faster``;
    * slower beyond the threshold, not significant: ``inconclusive``;
    * the baseline's own noise makes the threshold wider than both ``tolerance`` and ``ungateable_above``: ``ungateable``,
      unless the candidate is slower even beyond that;
    * else ``pass``.

    For one baseline, slowing all of a candidate's replicates by a common factor never improves the verdict.

    Raises ValueError with a sentence where a session is empty, a duration is not a positive number, or a parameter is out of
    range.
    """
    _check(baseline_sessions, candidate, tolerance=tolerance, alpha=alpha, ungateable_above=ungateable_above)
    session_medians = [median(session) for session in baseline_sessions]
    baseline = [duration for session in baseline_sessions for duration in session]
    baseline_median = median(session_medians)
    candidate_median = median(candidate)
    ratio = candidate_median / baseline_median
    noise = SPREADS * session_spread(session_medians)
    threshold = max(tolerance, noise)
    too_noisy = noise > max(tolerance, ungateable_above)

    p_slower = rank_sum_p_value(candidate, baseline)
    p_faster = rank_sum_p_value(baseline, candidate)
    p_value = p_slower if ratio >= 1 else p_faster
    detectable = _minimum_detectable(baseline, baseline_median, candidate, candidate_median, threshold, alpha)

    # The mirror image of slower: the baseline took so much longer than this. A share of time saved could never reach 100 %.
    faster = 1 / ratio - 1 > threshold

    change = _change_in_words(ratio)
    if ratio - 1 > threshold:
        if p_slower < alpha:
            verdict = Verdict.SLOWER
            reason = (
                f"{change} than the baseline, beyond the threshold of {threshold:.1%}, and hardly by chance (p = {p_slower:.2g})"
            )
        elif too_noisy:
            verdict = Verdict.UNGATEABLE
            reason = _ungateable_reason(threshold, detectable)
        else:
            verdict = Verdict.INCONCLUSIVE
            reason = (
                f"{change} than the baseline, beyond the threshold of {threshold:.1%}, but too unsteady to be sure "
                f"(p = {p_slower:.2g}, needed below {alpha:g})"
            )
            if detectable is None:
                reason += f": {_thin(len(baseline), len(candidate), alpha)}"
    elif too_noisy:
        verdict = Verdict.UNGATEABLE
        reason = _ungateable_reason(threshold, detectable)
    elif faster and p_faster < alpha:
        verdict = Verdict.FASTER
        reason = (
            f"{change} than the baseline, beyond the threshold of {threshold:.1%} (p = {p_faster:.2g}): "
            "check that it still does all of its work, then record a new baseline"
        )
    else:
        verdict = Verdict.PASS
        reason = f"{change} {'as' if change.startswith('as') else 'than'} the baseline, within the threshold of {threshold:.1%}"
        if faster:
            reason = f"{change} than the baseline, but too unsteady to be sure (p = {p_faster:.2g}, needed below {alpha:g})"
        if detectable is None:
            reason += f"; {_thin(len(baseline), len(candidate), alpha)}"
    return LatencyDecision(verdict, ratio, threshold, p_value, baseline_median, candidate_median, reason, detectable)


def confirm(
    baseline_sessions: Sequence[Sequence[float]],
    first: Sequence[float],
    fresh: Sequence[float],
    *,
    tolerance: float,
    alpha: float = 0.01,
    ungateable_above: float = 0.10,
) -> LatencyDecision:
    """Decide again on a case that :func:`decide` did not pass, with ``fresh`` replicates that were taken because of that.

    A change counts only if it shows in the first replicates, in the fresh ones by themselves, and in the rank test over all of
    them. What the fresh ones do not show was a moment's disturbance: ``pass``. What they show without significance stays
    ``inconclusive``.

    Raises ValueError as :func:`decide` does.
    """
    rule = {"tolerance": tolerance, "alpha": alpha, "ungateable_above": ungateable_above}
    suspicion = decide(baseline_sessions, first, **rule)
    alone = decide(baseline_sessions, fresh, **rule)
    together = decide(baseline_sessions, [*first, *fresh], **rule)
    if suspicion.verdict in (Verdict.PASS, Verdict.UNGATEABLE):
        raise ValueError(f"there is nothing to confirm about a case that is {suspicion.verdict}")
    slower = suspicion.ratio > 1
    shown = alone.ratio - 1 > alone.threshold if slower else 1 / alone.ratio - 1 > alone.threshold
    if not shown:
        reason = (
            f"{_change_in_words(suspicion.ratio)} in the first {len(first)} replicates, which {len(fresh)} fresh ones did not confirm "
            f"({_change_in_words(alone.ratio)}, within the threshold of {alone.threshold:.1%})"
        )
        return replace(together, verdict=Verdict.PASS, reason=reason)
    still = together.ratio > 1 if slower else together.ratio < 1
    if together.verdict in (Verdict.SLOWER, Verdict.FASTER) and still:
        return replace(together, reason=f"{together.reason}; confirmed by {len(fresh)} fresh replicates")
    if not slower:
        return replace(together, verdict=Verdict.PASS)
    return replace(together, verdict=Verdict.INCONCLUSIVE) if together.verdict is Verdict.PASS else together


def session_spread(session_medians: Sequence[float]) -> float:
    """How much the sessions of a baseline differ, as a share of their median: 1.4826 * MAD / median.

    The median absolute deviation does not move when one session is far off. One session has no spread of its own to show: 0.
    """
    if len(session_medians) < 2:
        return 0.0
    centre = median(session_medians)
    return MAD_TO_STANDARD_DEVIATION * median(abs(value - centre) for value in session_medians) / centre


def rank_sum_p_value(larger: Sequence[float], smaller: Sequence[float]) -> float:
    """The exact one-sided p-value of the Mann-Whitney rank-sum test that ``larger`` tends to have the larger values.

    It is the share of all ways to deal the pooled values out into groups of these two sizes, in which the first group's sum of
    ranks is at least the one seen. Equal values share the mean of their ranks (mid-ranks), and the distribution is that of the
    ranks with their ties, so the value is exact with ties too (E. L. Lehmann, Nonparametrics, 1975, sections 1.2 and 1.4).
    """
    doubled_ranks = _doubled_mid_ranks([*larger, *smaller])
    first, second = doubled_ranks[: len(larger)], doubled_ranks[len(larger) :]
    ranks = tuple(sorted(doubled_ranks))
    # The two groups' sums add up to a constant, so the smaller group's distribution, which is cheaper to count, says the same.
    if len(first) <= len(second):
        as_extreme = sum(count for rank_sum, count in _rank_sum_counts(ranks, len(first)) if rank_sum >= sum(first))
    else:
        as_extreme = sum(count for rank_sum, count in _rank_sum_counts(ranks, len(second)) if rank_sum <= sum(second))
    return as_extreme / comb(len(ranks), len(first))


def smallest_p_value(first: int, second: int) -> float:
    """The smallest p-value that the rank-sum test can give for groups of these two sizes."""
    return 1 / comb(first + second, first)


def _doubled_mid_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mid-rank of each value, in the order of the values: doubled, they are whole numbers."""
    ranks: dict[float, int] = {}
    below = 0
    for value, count in sorted(Counter(values).items()):
        ranks[value] = 2 * below + count + 1  # twice the mean of below + 1 … below + count
        below += count
    return [ranks[value] for value in values]


@lru_cache(maxsize=256)
def _rank_sum_counts(ranks: tuple[int, ...], chosen: int) -> tuple[tuple[int, int], ...]:
    """For each sum that ``chosen`` of these whole-number ranks can have: the sum, and in how many ways it comes about.

    Dynamic programming over the ranks: ``ways[k]`` is the distribution of the sum of k of those seen so far. A distribution is
    kept as one long integer, with ``width`` bits for the count of each sum, enough for any count: adding a rank to every sum is
    then a shift, so that even hundreds of replicates take a moment only.
    """
    width = comb(len(ranks), chosen).bit_length()
    ways = [1] + [0] * chosen
    for seen, rank in enumerate(ranks, start=1):
        for size in range(min(seen, chosen), 0, -1):
            ways[size] += ways[size - 1] << (rank * width)
    # Cut the integer into its counts through bytes: shifting it down step by step would take quadratic time.
    bits = bin(ways[chosen])[2:]
    counts = []
    for rank_sum, end in enumerate(range(len(bits), 0, -width)):
        count = int(bits[max(0, end - width) : end], 2)
        if count:
            counts.append((rank_sum, count))
    return tuple(counts)


def _minimum_detectable(
    baseline: Sequence[float],
    baseline_median: float,
    candidate: Sequence[float],
    candidate_median: float,
    threshold: float,
    alpha: float,
) -> float | None:
    """The smallest slow-down, as a share, with which this candidate's replicates would be called slower.

    They are put where they show no change at all, then slowed down by a factor. The p-value falls as the factor grows, and only
    where a slowed replicate passes one of the baseline's, so those factors are all that need to be tried, by bisection; past
    the last of them every replicate is slower than every one of the baseline's, which the first line made sure is significant.
    """
    if smallest_p_value(len(baseline), len(candidate)) >= alpha:
        return None
    unchanged = [duration * baseline_median / candidate_median for duration in candidate]
    factors = sorted({before / after for before in baseline for after in unchanged if before > after * (1 + threshold)})
    margin = 1 + 1e-9  # just past the factor, where the two are no longer equal

    def significant(factor: float) -> bool:
        return rank_sum_p_value([duration * factor for duration in unchanged], baseline) < alpha

    if significant((1 + threshold) * margin):
        return threshold
    position = bisect_left(factors, True, key=lambda factor: significant(factor * margin))
    return factors[position] - 1


def _change_in_words(ratio: float) -> str:
    change = abs(ratio - 1)
    if change < 0.0005:
        return "as fast"
    return f"{change:.1%} {'slower' if ratio > 1 else 'faster'}"


def _ungateable_reason(threshold: float, detectable: float | None) -> str:
    if detectable is None:
        return (
            f"the baseline's sessions differ so much that a slow-down would have to exceed {threshold:.0%}, "
            "and the replicates are too few to see even that: lock the clocks or quieten the machine, and take more replicates"
        )
    return (
        f"the baseline's sessions differ so much that the smallest slow-down that could be seen is {detectable:.0%}: "
        "lock the clocks or quieten the machine, and record a new baseline"
    )


def _thin(baseline: int, candidate: int, alpha: float) -> str:
    smallest = smallest_p_value(baseline, candidate)
    return (
        f"{baseline} baseline and {candidate} candidate replicates are too few to call anything slower "
        f"(p cannot fall below {smallest:.2g}, needed below {alpha:g}): take more"
    )


def _check(
    baseline_sessions: Sequence[Sequence[float]],
    candidate: Sequence[float],
    *,
    tolerance: float,
    alpha: float,
    ungateable_above: float,
) -> None:
    if not baseline_sessions:
        raise ValueError("the baseline has no session to compare with")
    if not candidate:
        raise ValueError("the candidate has no replicate to compare")
    for number, session in enumerate(baseline_sessions, start=1):
        if not session:
            raise ValueError(f"session {number} of the baseline has no replicate")
        _check_durations(f"session {number} of the baseline", session)
    _check_durations("the candidate", candidate)
    if not 0 <= tolerance < inf:
        raise ValueError(f"the tolerance must be a share of at least 0, like 0.05, not {tolerance}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if not ungateable_above >= 0:
        raise ValueError(f"ungateable_above must be a share of at least 0, like 0.1, not {ungateable_above}")


def _check_durations(whose: str, durations: Sequence[float]) -> None:
    for duration in durations:
        if not (isfinite(duration) and duration > 0):
            raise ValueError(f"{whose} holds {duration} as a duration, which must be a positive number")
