"""Is it slower than its baseline? Durations in, verdict out: pure functions, no I/O.

The unit is the *replicate*, one fresh process, and its statistic is the median of its rounds. Rounds of one process are not
independent of each other, so they never enter a test. A *session* is a sequence of replicates that were taken in one run.

The rule is a conjunction: the ratio of medians must lie beyond a threshold, which is the larger of the tolerance and twice
the noise of the baseline's own sessions, in the first replicates **and** in fresh ones that were taken because of that, **and** an
exact rank test over all replicates must find it unlikely to be chance. What passes some of these only is ``inconclusive``.

Durations may be in any unit, as long as both sides have the same one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from statistics import median
from typing import Protocol

from .rank_tests import holm_adjusted, rank_sum_p_value, ratio_interval, smallest_p_value
from .sequential import Stage, Standing, as_many, change_of, fewest_for_a_change, standing
from .verdict import Verdict

ALPHA = 0.01
"""The probability by chance below which a rank test speaks for a change."""

MAD_TO_STANDARD_DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation, 1 / (quantile function of 3/4)."""

MEDIAN_TO_MEAN = 1.2533
"""How much more a median of normal values scatters than their mean, sqrt(pi / 2)."""

SPREADS = 2.0
"""How many times the noise of a session a change must exceed before it counts. Three would let a slow-down of 10 % pass on a machine whose
sessions differ by 2 to 3 %, and fresh replicates and the rank test guard against false alarms as well (docs/explanation/gate-power.md)."""


MOST_WITH_BUILDS = 3
"""How many times the first replicates are taken at most where builds decide: what is not clear by then takes more builds."""


@dataclass(frozen=True)
class BuildComparison:
    """How many builds were compared with how many, and by how much builds of one software scatter (a standard deviation, as a share;
    None where no side has two). ``same``: the candidate's builds are the baseline's own, so that nothing was rebuilt."""

    candidate: int
    baseline: int
    spread: float | None = None
    same: bool = False


@dataclass(frozen=True)
class LatencyDecision:
    """What was decided, and every number that it was decided on.

    * ``ratio``: the candidate's median over the baseline's (in a paired run, the median over pairs); ``interval``: its 95 % confidence
      interval, None where there is too little for one. The interval knows of the scatter between replicates only: what differs from one
      day to the next is in it as far as the baseline has sessions of several days.
    * ``threshold`` and ``minimum_detectable`` are shares (0.05 is 5 %). ``minimum_detectable`` is the smallest slow-down that could have
      been called ``slower``, with as many replicates that scatter as these do as it would have taken to confirm it (one of exactly this
      size is seen about every second time); None where all that could be taken would be too few to call anything slower.
    * ``p_value``: one-sided, in the direction of the change: for "slower" where the ratio is at least 1, for "faster" elsewhere;
      corrected for ``family`` cases that were decided on together (Holm).
    * ``stage``: what decided: the ``first`` replicates, fresh ones that ``confirmed`` them or did not (``unconfirmed``), or the
      ``budget`` that ended before anything was clear.
    * ``wanted``: how many more replicates it takes before the verdict is final, 0 where it is.
    * ``builds``: where what is measured is built anew for each device, what was built; None elsewhere.
    * ``evidence``: what else the ``reason`` rests on, with which it can be said anew for other figures.
    """

    verdict: Verdict
    ratio: float
    threshold: float
    p_value: float
    baseline_median: float
    candidate_median: float
    reason: str
    minimum_detectable: float | None
    interval: tuple[float, float] | None = None
    stage: Stage = "first"
    family: int = 1
    wanted: int = 0
    builds: BuildComparison | None = None
    evidence: Evidence | None = None

    def explained(self) -> LatencyDecision:
        """The same decision, with the reason that its figures have."""
        return self if self.evidence is None else replace(self, reason=self.evidence.reason(self))


class Evidence(Protocol):
    """How much was measured before a decision, and by which rule; knows how to put the decision into a sentence."""

    def reason(self, decision: LatencyDecision) -> str:
        """The verdict in a sentence, with the figures that it rests on."""


@dataclass(frozen=True)
class StoredEvidence:
    """Of a comparison with a baseline: how many replicates each side has, how many the candidate would have had, had it looked any
    slower (``planned``), and how many are looked at before any fresh ones (``first``).
    """

    baseline: int
    candidate: int
    planned: int
    first: int
    alpha: float

    def reason(self, decision: LatencyDecision) -> str:
        """The verdict in a sentence, with the figures that it rests on."""
        return _reason(decision, self.baseline, self.candidate, self.planned, self.first, self.alpha)


def decide(
    baseline_sessions: Sequence[Sequence[float]],
    candidate: Sequence[float],
    *,
    tolerance: float,
    first: int = 5,
    alpha: float = ALPHA,
    ungateable_above: float = 0.10,
    final: bool = False,
) -> LatencyDecision:
    """Compare the replicates of one case with its baseline.

    ``baseline_sessions`` holds one sequence of replicate medians for each session of the baseline, ``candidate`` those of this
    run so far, in the order in which they were taken: the ``first`` ones raise a suspicion, those after them confirm it or not.
    ``final`` says that there are no more, whatever is ``wanted``.

    * beyond the threshold, shown again by as many fresh replicates, and significant: ``slower`` or ``faster``;
    * slower beyond the tolerance, and so again in fresh replicates, but not all of that: ``inconclusive``;
    * the baseline's own noise makes the threshold wider than both ``tolerance`` and ``ungateable_above``: ``ungateable``,
      unless the candidate is slower even beyond that;
    * else ``pass``.

    For one baseline, slowing all of a candidate's replicates by a common factor never improves the final verdict.

    Raises ValueError with a sentence where a session is empty, a duration is not a positive number, or a parameter is out of
    range.
    """
    _check(baseline_sessions, candidate, tolerance=tolerance, first=first, alpha=alpha, ungateable_above=ungateable_above)
    session_medians = [median(session) for session in baseline_sessions]
    baseline = [duration for session in baseline_sessions for duration in session]
    baseline_median = median(session_medians)
    candidate_median = median(candidate)
    ratio = candidate_median / baseline_median
    noise = SPREADS * session_noise(baseline_sessions)
    threshold = max(tolerance, noise)
    too_noisy = noise > max(tolerance, ungateable_above)
    larger, smaller = (candidate, baseline) if ratio >= 1 else (baseline, candidate)
    p_value = rank_sum_p_value(larger, smaller)
    where = standing(
        len(candidate),
        lambda start, end: median(candidate[start:end]) / baseline_median,
        tolerance=tolerance,
        threshold=threshold,
        significant=lambda: p_value < alpha,
        first=first,
        look_again_from=inf,
        final=final,
    )
    verdict = _verdict(where, ratio, too_noisy=too_noisy)
    # A case that ends early would have got more replicates, had it looked any slower: what those could show is what matters.
    planned = as_many(candidate, fewest_for_a_change(first, lambda count: smallest_p_value(len(baseline), count) < alpha))
    decision = LatencyDecision(
        verdict,
        ratio,
        threshold,
        p_value,
        baseline_median,
        candidate_median,
        "",
        _minimum_detectable(baseline, baseline_median, planned, candidate_median, threshold, alpha),
        _around(ratio, ratio_interval(candidate, baseline)),
        where.stage,
        wanted=where.wanted,
        evidence=StoredEvidence(len(baseline), len(candidate), len(planned), first, alpha),
    )
    return decision.explained()


def correct_for_family(decisions: Mapping[str, LatencyDecision], alpha: float = ALPHA) -> dict[str, LatencyDecision]:
    """The decisions of all cases of a run, by case id, their p-values corrected for being that many (Holm).

    Among a hundred unchanged cases one falls below 0.01 by chance. A case that is no longer significant becomes ``inconclusive`` if it
    seemed slower, ``pass`` if it seemed faster.
    """
    adjusted = holm_adjusted({case_id: decision.p_value for case_id, decision in decisions.items()})
    family = len(decisions)
    corrected = {}
    for case_id, decision in decisions.items():
        changed = replace(decision, p_value=adjusted[case_id], family=family).explained()
        if decision.verdict in (Verdict.SLOWER, Verdict.FASTER) and adjusted[case_id] >= alpha:
            slower = decision.verdict is Verdict.SLOWER
            reason = (
                f"{change_in_words(decision.ratio)}, but among {family} cases that may be chance "
                f"(p = {adjusted[case_id]:.2g} corrected for them, needed below {alpha:g})"
            )
            changed = replace(changed, verdict=Verdict.INCONCLUSIVE if slower else Verdict.PASS, reason=reason)
        corrected[case_id] = changed
    return corrected


def _around(ratio: float, interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """The interval, widened to hold the ratio: it knows no sessions, of which one with many replicates may pull it elsewhere."""
    return None if interval is None else (min(interval[0], ratio), max(interval[1], ratio))


def session_noise(sessions: Sequence[Sequence[float]]) -> float:
    """How far the median of one session is off, as a share: the larger of what sessions and what their replicates say.

    Between sessions it is :func:`session_spread`. One or two sessions say little about that, so it is never taken to be less than what
    follows from the scatter of the replicates within a session: 1.2533 * 1.4826 * MAD / sqrt(number), the median over the sessions.
    """
    medians = [median(session) for session in sessions]
    within = median(MEDIAN_TO_MEAN * _spread(session) / sqrt(len(session)) for session in sessions)
    return max(session_spread(medians), within)


def session_spread(session_medians: Sequence[float]) -> float:
    """How much the sessions of a baseline differ, as a share of their median: 1.4826 * MAD / median.

    The median absolute deviation does not move when one session is far off. One session has no spread of its own to show: 0.
    """
    return _spread(session_medians)


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    centre = median(values)
    return MAD_TO_STANDARD_DEVIATION * median(abs(value - centre) for value in values) / centre


def _verdict(where: Standing, ratio: float, *, too_noisy: bool) -> Verdict:
    slower = ratio > 1
    if where.state == "changed":
        return Verdict.SLOWER if slower else Verdict.UNGATEABLE if too_noisy else Verdict.FASTER
    if too_noisy:
        return Verdict.UNGATEABLE
    if where.state == "unclear" and slower:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS  # what may be faster, but is not surely so, is no reason to stop anybody


def _reason(decision: LatencyDecision, baseline: int, candidate: int, planned: int, first: int, alpha: float) -> str:
    change = change_in_words(decision.ratio)
    compared = f"{change} {'as' if change.startswith('as') else 'than'} the baseline"
    beyond = f"beyond the threshold of {decision.threshold:.1%}"
    within_noise = decision.ratio - 1 <= decision.threshold
    fresh = candidate - first
    if decision.verdict is Verdict.SLOWER:
        return f"{compared}, {beyond}, confirmed by {fresh} fresh replicates, and hardly by chance (p = {decision.p_value:.2g})"
    if decision.verdict is Verdict.FASTER:
        return (
            f"{compared}, {beyond}, confirmed by {fresh} fresh replicates (p = {decision.p_value:.2g}): "
            "check that it still does all of its work, then record a new baseline"
        )
    if decision.verdict is Verdict.UNGATEABLE:
        return _ungateable_reason(decision.threshold, decision.minimum_detectable)
    if decision.verdict is Verdict.INCONCLUSIVE:
        if decision.wanted:
            return f"{compared} so far; {decision.wanted} more replicates are wanted to tell whether that is so"
        if within_noise:
            return f"{compared}, beyond the tolerance, but within what the baseline's own noise could explain ({decision.threshold:.1%})"
        if decision.p_value >= alpha:
            reason = f"{compared}, {beyond}, but too unsteady to be sure (p = {decision.p_value:.2g}, needed below {alpha:g})"
            return f"{reason}: {thin}" if (thin := _thin(baseline, candidate, alpha)) else reason
        if fresh >= first:
            return f"{compared}, {beyond}, but not in the first and in the fresh replicates alike"
        return f"{compared}, {beyond}, but there was no time for enough fresh replicates to confirm it"
    if decision.stage == "unconfirmed":
        reason = (
            f"{compared}: what the first {min(first, candidate)} replicates seemed to show, {fresh} fresh ones did not confirm"
        )
    elif decision.ratio < 1 and change_of(decision.ratio) > decision.threshold:
        reason = f"{compared}, but too unsteady to be sure (p = {decision.p_value:.2g}, needed below {alpha:g})"
    else:
        reason = f"{compared}, within the threshold of {decision.threshold:.1%}"
    return f"{reason}; {thin}" if (thin := _thin(baseline, planned, alpha)) else reason


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


def change_in_words(ratio: float) -> str:
    """Such as ``"4.2% slower"``; ``"as fast"`` below half a thousandth."""
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
    """That so few replicates cannot be significant, whatever they say; empty where they can."""
    smallest = smallest_p_value(baseline, candidate)
    if smallest < alpha:
        return ""
    return (
        f"{baseline} baseline and {candidate} candidate replicates are too few to call anything slower "
        f"(p cannot fall below {smallest:.2g}, needed below {alpha:g}): take more"
    )


def _check(
    baseline_sessions: Sequence[Sequence[float]],
    candidate: Sequence[float],
    *,
    tolerance: float,
    first: int,
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
    check_rule(tolerance=tolerance, first=first, alpha=alpha)
    if not ungateable_above >= 0:
        raise ValueError(f"ungateable_above must be a share of at least 0, like 0.1, not {ungateable_above}")


def check_rule(*, tolerance: float, first: int, alpha: float) -> None:
    """Raise ValueError where a parameter of a rule is out of its range."""
    if not 0 <= tolerance < inf:
        raise ValueError(f"the tolerance must be a share of at least 0, like 0.05, not {tolerance}")
    if first < 1:
        raise ValueError(f"first must be at least 1, not {first}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")


def _check_durations(whose: str, durations: Sequence[float]) -> None:
    for duration in durations:
        if not (isfinite(duration) and duration > 0):
            raise ValueError(f"{whose} holds {duration} as a duration, which must be a positive number")
