"""Is it slower, where what is measured was built anew? Durations with their builds in, verdict out: pure functions, no I/O.

A builder that times kernels in order to choose among them (TensorRT) makes another engine of one model each time, and these differ in
speed by more than many upgrades do. All replicates of one build share its luck: they are no more evidence on the software than one build
is. So the build is a level of variance above the replicate (T. Kalibera and R. Jones, ISMM 2013: repeat at the level at which the variance
arises), and where there are several the unit is the build, its value the median of its replicates.

The rule is that of :mod:`decision`, with two changes: the spread between builds enters the noise that the threshold is made of, and
the test asks the builds. A handful of builds is too few for any rank test (three against three never come below 0.05), so it is Student's
t on the logarithms of the builds' values. It takes the builds' speeds as normally distributed, which nobody has shown; the threshold and
the fresh replicates do not need that.

Builds that are the same ones on both sides are compared as they are: then nothing was rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import atan, cos, expm1, hypot, inf, isfinite, log, pi, sin, sqrt
from statistics import fmean, median

from .decision import (
    ALPHA,
    MOST_WITH_BUILDS,
    SPREADS,
    BuildComparison,
    Evidence,
    LatencyDecision,
    change_in_words,
    decide,
    session_noise,
)
from .paired_decision import decide_pairs, middle_ratio
from .sequential import EARLIEST, Standing, change_of, standing
from .verdict import Verdict

_ROUNDING = 1e-12  # of logarithms of medians: what is less is no scatter of builds, but that of arithmetic
REBUILD = "rebuilding alone may make a difference of some percent, which --gate-rebuilds=3 would show"


@dataclass(frozen=True)
class Built:
    """The value of one replicate, or of one pair: ``build`` names what was built, equal names mean the very same one."""

    build: str
    value: float


def decide_builds(
    baseline_sessions: Sequence[Sequence[Built]],
    candidate: Sequence[Built],
    *,
    tolerance: float,
    first: int = 5,
    alpha: float = ALPHA,
    ungateable_above: float = 0.10,
    final: bool = False,
) -> LatencyDecision:
    """Like :func:`decision.decide`, for replicates of builds, in any unit of time.

    * Every build of the candidate is in the baseline too: each replicate is held against its own build there, by the plain rule.
    * One build against one other build: the plain rule, and the reason says that this cannot tell an upgrade from a rebuild.
    * Else the builds are the unit. ``ratio`` is the median of the candidate's builds over that of the baseline's.

    Raises ValueError as :func:`decision.decide` does.
    """
    plainly = partial(decide, tolerance=tolerance, first=first, alpha=alpha, ungateable_above=ungateable_above, final=final)
    # It checks all values and parameters too.
    simple = plainly([[one.value for one in session] for session in baseline_sessions], [one.value for one in candidate])
    before, after = _over_sessions(baseline_sessions), _medians(candidate)
    comparison = BuildComparison(len(after), len(before), build_spread(before.values(), after.values()))
    if set(after) <= set(before):
        overall = median(before[build] for build in after)
        shared = [[one for one in session if one.build in after] for session in baseline_sessions]
        aligned = [_aligned(session, before, overall) for session in shared if session]
        decision = plainly(aligned, _aligned(candidate, before, overall))
        return replace(decision, builds=replace(comparison, same=True))
    if comparison.spread is None:
        return _told_of_rebuilding(replace(simple, builds=comparison))
    return _decide_by_builds(
        baseline_sessions,
        candidate,
        comparison,
        tolerance=tolerance,
        first=first,
        alpha=alpha,
        ungateable_above=ungateable_above,
        final=final,
    )


def decide_build_pairs(
    ratios: Sequence[Built],
    *,
    tolerance: float,
    first: int = 5,
    alpha: float = ALPHA,
    final: bool = False,
    candidate_median: float = 1.0,
    reference_median: float = 1.0,
    same: bool = False,
) -> LatencyDecision:
    """Like :func:`paired_decision.decide_pairs`, for pairs of builds: ``build`` names the two that took turns.

    With several of them, each build of one stack taking turns with one of the other, the unit is the pair of builds. ``same``: both
    stacks run the very same builds, so that rebuilding has no part in the ratios.
    """
    simple = decide_pairs(
        [one.value for one in ratios],
        tolerance=tolerance,
        first=first,
        alpha=alpha,
        final=final,
        candidate_median=candidate_median,
        reference_median=reference_median,
    )
    values = _medians(ratios, middle_ratio)
    count = len(values)
    comparison = BuildComparison(count, count, None, same=same)
    if same:
        return replace(simple, builds=comparison)
    if count < 2:
        return _told_of_rebuilding(replace(simple, builds=comparison))
    logarithms = [log(value) for value in values.values()]
    spread = sqrt(_sum_of_squares(logarithms) / (count - 1))
    # Of the difference of two builds: one build alone varies by less.
    comparison = replace(comparison, spread=expm1(spread / sqrt(2)))
    error = spread / sqrt(count)
    typical = middle_ratio(list(values.values()))
    noise = SPREADS * expm1(error)
    threshold = max(tolerance, noise)
    p_value = _p_value(fmean(logarithms), error, count - 1, slower=typical >= 1)
    where = standing(
        len(ratios),
        lambda start, end: middle_ratio(list(_medians(ratios[start:end], middle_ratio).values())),
        tolerance=tolerance,
        threshold=threshold,
        significant=lambda: p_value < alpha,
        first=first,
        earliest=max(EARLIEST, count),
        look_again_from=tolerance / 2,
        final=final or len(ratios) >= MOST_WITH_BUILDS * first,
    )
    decision = replace(
        simple,
        verdict=_verdict(where, typical, too_noisy=False),
        ratio=typical,
        threshold=threshold,
        p_value=p_value,
        minimum_detectable=max(threshold, _share(student_quantile(1 - alpha, count - 1) * error)),
        interval=_interval(fmean(logarithms), error, count - 1, typical),
        stage=where.stage,
        wanted=where.wanted,
        builds=comparison,
    )
    return replace(
        decision, evidence=BuildEvidence("the other stack", "pairs of processes", len(ratios) - first, alpha)
    ).explained()


def build_spread(*sides: Iterable[float]) -> float | None:
    """How much builds of one software differ, as a share: the standard deviation of the logarithms of their values, each side around
    its own mean. None where no side has two of them."""
    logarithms = [[log(value) for value in side] for side in sides]
    degrees = sum(len(side) - 1 for side in logarithms if side)
    if degrees < 1:
        return None
    return expm1(sqrt(sum(_sum_of_squares(side) for side in logarithms if side) / degrees))


def rebuilding_notices(decisions: Mapping[str, LatencyDecision]) -> list[str]:
    """What the user should know of cases of which one build is compared with one other, by case id."""
    single = [
        case_id
        for case_id, decision in decisions.items()
        if decision.builds is not None and decision.builds.spread is None and not decision.builds.same
    ]
    if not single:
        return []
    names = ", ".join(single[:3]) + (f" and {len(single) - 3} more" if len(single) > 3 else "")
    return [f"one build is compared with one other build of {names}: {REBUILD}"]


# ---------------------------------------------------------------- the unit is the build


def _decide_by_builds(
    baseline_sessions: Sequence[Sequence[Built]],
    candidate: Sequence[Built],
    comparison: BuildComparison,
    *,
    tolerance: float,
    first: int,
    alpha: float,
    ungateable_above: float,
    final: bool,
) -> LatencyDecision:
    before, after = _over_sessions(baseline_sessions), _medians(candidate)
    old, new = [log(value) for value in before.values()], [log(value) for value in after.values()]
    degrees = len(old) + len(new) - 2
    spread = sqrt((_sum_of_squares(old) + _sum_of_squares(new)) / degrees)
    error = spread * sqrt(1 / len(old) + 1 / len(new))
    baseline_median, candidate_median = median(before.values()), median(after.values())
    ratio = candidate_median / baseline_median
    # The sessions' own noise without that of the builds, which need not be the same ones in each of them.
    aligned = [_aligned(session, before, baseline_median) for session in baseline_sessions]
    noise = SPREADS * hypot(session_noise(aligned), expm1(error))
    threshold = max(tolerance, noise)
    difference = fmean(new) - fmean(old)
    p_value = _p_value(difference, error, degrees, slower=ratio >= 1)
    where = standing(
        len(candidate),
        lambda start, end: median(_medians(candidate[start:end]).values()) / baseline_median,
        tolerance=tolerance,
        threshold=threshold,
        significant=lambda: p_value < alpha,
        first=first,
        earliest=max(EARLIEST, len(after)),
        look_again_from=inf,
        final=final or len(candidate) >= MOST_WITH_BUILDS * first,
    )
    decision = LatencyDecision(
        _verdict(where, ratio, too_noisy=noise > max(tolerance, ungateable_above)),
        ratio,
        threshold,
        p_value,
        baseline_median,
        candidate_median,
        "",
        max(threshold, _share(student_quantile(1 - alpha, degrees) * error)),
        _interval(difference, error, degrees, ratio),
        where.stage,
        wanted=where.wanted,
        builds=comparison,
    )
    return replace(decision, evidence=BuildEvidence("the baseline", "replicates", len(candidate) - first, alpha)).explained()


def _verdict(where: Standing, ratio: float, *, too_noisy: bool) -> Verdict:
    if where.state == "changed":
        return Verdict.SLOWER if ratio > 1 else Verdict.UNGATEABLE if too_noisy else Verdict.FASTER
    if too_noisy:
        return Verdict.UNGATEABLE
    return Verdict.INCONCLUSIVE if where.state == "unclear" and ratio > 1 else Verdict.PASS


@dataclass(frozen=True)
class BuildEvidence:
    """Of a comparison whose unit is the build: what it was compared with (``other``), what a replicate is called (``unit``), and how many
    of those were ``fresh``.
    """

    other: str
    unit: str
    fresh: int
    alpha: float

    def reason(self, decision: LatencyDecision) -> str:
        """The verdict in a sentence, with the figures that it rests on."""
        return _reason(decision, self.other, self.unit, self.fresh, self.alpha)


@dataclass(frozen=True)
class SingleBuildEvidence:
    """Of one build against one other: what the plain rule rests on, with a word of warning where anything seems to have changed."""

    plain: Evidence

    def reason(self, decision: LatencyDecision) -> str:
        """The verdict in a sentence, with the figures that it rests on."""
        reason = self.plain.reason(decision)
        if decision.verdict is Verdict.PASS or decision.wanted:
            return reason
        return f"{reason}; this is one build against one, and {REBUILD}"


def _reason(decision: LatencyDecision, other: str, unit: str, fresh: int, alpha: float) -> str:
    change, builds = change_in_words(decision.ratio), decision.builds
    assert builds is not None and builds.spread is not None
    counts = f"{_builds(builds.candidate)} against {_builds(builds.baseline)}"
    compared = f"{change} {'as' if change.startswith('as') else 'than'} {other}, {counts}"
    beyond = f"beyond the threshold of {decision.threshold:.1%}"
    scatter = f"builds of one software scatter by {builds.spread:.1%}"
    if decision.verdict in (Verdict.SLOWER, Verdict.FASTER):
        reason = f"{compared}, {beyond}, confirmed by {fresh} fresh {unit}, and hardly by rebuilding (p = {decision.p_value:.2g})"
        return reason if decision.verdict is Verdict.SLOWER else f"{reason}: check that it still does all of its work"
    if decision.verdict is Verdict.UNGATEABLE:
        return (
            f"{scatter}, so that with {counts} the smallest slow-down that could be seen is {decision.minimum_detectable:.0%}: "
            "take more with --gate-rebuilds, or pin the builder's choices (timing_cache on the card)"
        )
    if decision.verdict is Verdict.INCONCLUSIVE:
        if decision.wanted:
            return f"{compared} so far; {decision.wanted} more {unit} are wanted to tell whether that is so"
        if decision.ratio - 1 <= decision.threshold:
            explained = f"but {scatter}, so that rebuilding could explain up to {decision.threshold:.1%}"
            return f"{compared}, beyond the tolerance, {explained}: take more with --gate-rebuilds"
        if decision.p_value >= alpha:
            unsure = f"but {scatter}, too much to be sure (p = {decision.p_value:.2g}, needed below {alpha:g})"
            return f"{compared}, {beyond}, {unsure}: take more with --gate-rebuilds"
        return f"{compared}, {beyond}, but not in the first and in enough fresh {unit} alike"
    if decision.ratio < 1 and change_of(decision.ratio) > decision.threshold:
        return f"{compared}, but {scatter}, too much to be sure (p = {decision.p_value:.2g}, needed below {alpha:g})"
    return f"{compared}, within the threshold of {decision.threshold:.1%}"


def _told_of_rebuilding(decision: LatencyDecision) -> LatencyDecision:
    if decision.evidence is None:
        return decision
    return replace(decision, evidence=SingleBuildEvidence(decision.evidence)).explained()


def _builds(count: int) -> str:
    return f"{count} build{'' if count == 1 else 's'}"


# ---------------------------------------------------------------- values of builds


def _medians(built: Sequence[Built], centre: Callable[[Sequence[float]], float] = median) -> dict[str, float]:
    """The value of each build, in the order in which they first come."""
    values: dict[str, list[float]] = {}
    for one in built:
        values.setdefault(one.build, []).append(one.value)
    return {build: centre(found) for build, found in values.items()}


def _over_sessions(sessions: Sequence[Sequence[Built]]) -> dict[str, float]:
    """The value of each build of a baseline: the median over the sessions that have it, so that none counts more than another."""
    values: dict[str, list[float]] = {}
    for session in sessions:
        for build, value in _medians(session).items():
            values.setdefault(build, []).append(value)
    return {build: median(found) for build, found in values.items()}


def _aligned(built: Sequence[Built], values: Mapping[str, float], overall: float) -> list[float]:
    """The replicates, as if all builds had the value ``overall``."""
    return [one.value * overall / values[one.build] for one in built]


def _sum_of_squares(values: Sequence[float]) -> float:
    centre = fmean(values)
    return sum((value - centre) ** 2 for value in values)


# ---------------------------------------------------------------- Student's t


def _p_value(difference: float, error: float, degrees: int, *, slower: bool) -> float:
    """One-sided, in the direction of the change."""
    signed = difference if slower else -difference
    if error < _ROUNDING:
        return 0.0 if signed > _ROUNDING else 1.0
    return student_upper_tail(signed / error, degrees)


def _share(logarithm: float) -> float:
    """The change, as a share, whose logarithm this is; more than a hundredfold is told as that. With two builds in a run of hundreds of
    cases it may be more than there are floating-point numbers for."""
    return expm1(min(logarithm, log(101)))


def _interval(difference: float, error: float, degrees: int, ratio: float) -> tuple[float, float]:
    """Of 95 %, around the mean of the logarithms; widened to hold the ratio, which is one of medians."""
    reach = student_quantile(0.975, degrees) * error
    return min(expm1(difference - reach) + 1, ratio), max(expm1(difference + reach) + 1, ratio)


def student_upper_tail(t: float, degrees: int) -> float:
    """The probability that Student's t with so many (whole) degrees of freedom is at least ``t``.

    By the finite sums of M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4, exact up to rounding.
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {degrees}")
    if not isfinite(t):
        return 0.0 if t > 0 else 1.0
    angle = atan(t / sqrt(degrees))
    odd = degrees % 2 == 1
    term = cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    within = 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
    return min(1.0, max(0.0, (1 - within) / 2))


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: int) -> float:
    """The value below which Student's t lies with this probability (at least a half), by bisection."""
    if not 0.5 <= probability < 1:
        raise ValueError(f"a quantile is asked for at a probability of at least 0.5 and less than 1, not {probability}")
    low, high = 0.0, 1.0
    while student_upper_tail(high, degrees) > 1 - probability and high < 1e12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if student_upper_tail(middle, degrees) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2
