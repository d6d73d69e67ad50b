"""Effect size and significance must both speak: the rule by which accuracy is judged, and its sentences.

What is compared, a share of right answers, a mean average precision or a share of equal answers, and how its significance is told, is
the caller's; that a drop beyond the tolerance closes the gate only where it is hardly by chance, and is ``inconclusive`` else, is said here
for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .verdict import Verdict

ALPHA = 0.01
"""The p-value below which a difference is taken for real."""

FLOAT_REFERENCE = "the float reference"
OTHER_STACK = "the other stack"


@dataclass(frozen=True)
class AccuracyDecision:
    """``verdict`` is pass, inaccurate or inconclusive; ``p_value`` is that of the test that was asked, None where none was."""

    verdict: Verdict
    reason: str
    p_value: float | None


@dataclass(frozen=True)
class EvaluationSet:
    """What was evaluated, for the sentences: ``n`` of what ``things`` names (``samples``, ``pictures``), judged at ``alpha``."""

    n: int
    things: str
    alpha: float


def judge_finite(evaluated: EvaluationSet, not_finite: int, reference_not_finite: int, reference: str) -> AccuracyDecision | None:
    """``inaccurate`` where there is any NaN or infinity among the outputs of either; None where there is none."""
    n, things = evaluated.n, evaluated.things
    if not_finite:
        return AccuracyDecision(Verdict.INACCURATE, f"the outputs for {not_finite} of {n} {things} hold NaN or infinity", None)
    if reference_not_finite:
        text = f"{reference} itself gives NaN or infinity for {reference_not_finite} of {n} {things}"
        return AccuracyDecision(Verdict.INACCURATE, f"{text}: check the card's checkpoint and preprocessing", None)
    return None


def judge_expected(evaluated: EvaluationSet, shortfall: str, p_value: float, *, check: str) -> AccuracyDecision:
    """On a float model that does not reach what its card says; ``shortfall`` says how far, ``check`` what to look at."""
    if p_value < evaluated.alpha:
        return AccuracyDecision(Verdict.INACCURATE, f"{shortfall} (p = {p_value:.2g}): check {check}", p_value)
    reason = f"{shortfall}, but {_may_be_chance(p_value, evaluated)}: evaluate on more {evaluated.things}"
    return AccuracyDecision(Verdict.INCONCLUSIVE, reason, p_value)


def judge_drop(
    evaluated: EvaluationSet,
    change: str,
    drop: float,
    *,
    tolerance: float,
    p_value: float,
    smallest_detectable: float | None,
    amount: Callable[[float], str],
) -> AccuracyDecision:
    """On a drop against a reference. ``change`` says from what to what; ``amount`` writes a drop with its unit.

    A drop within the tolerance passes, and where the set could not have shown one of the tolerance's size, the reason says so.
    """
    if smallest_detectable is None:
        what_can_be_seen = f"{evaluated.n} {evaluated.things} are too few to show any drop"
    else:
        what_can_be_seen = f"{evaluated.n} {evaluated.things} can show a drop of {amount(smallest_detectable)} at the smallest"
    if at_most(drop, tolerance):
        reason = f"{change}: within the tolerance of {amount(tolerance)}"
        if smallest_detectable is None or smallest_detectable > tolerance:
            reason += f", but {what_can_be_seen}"
        return AccuracyDecision(Verdict.PASS, reason, p_value)
    beyond = f"{change}: a drop of {amount(drop)}, beyond the tolerance of {amount(tolerance)}"
    return _judge_beyond(evaluated, beyond, p_value, f": {what_can_be_seen};")


def judge_share(
    evaluated: EvaluationSet, change: str, share: float, *, asked: float, p_value: float, can_fall_short: bool, what: str
) -> AccuracyDecision:
    """On a share that should be at least ``asked``. ``can_fall_short``: the set is large enough for a share to be significantly below
    that; ``what`` is the share's name for the sentence that says it is not.
    """
    if at_most(asked, share):
        reason = f"{change}, at least the {asked:.1%} asked for"
        if not can_fall_short:
            reason += f", but {evaluated.n} {evaluated.things} are too few to show any {what} to be below that"
        return AccuracyDecision(Verdict.PASS, reason, p_value)
    return _judge_beyond(evaluated, f"{change}, below the {asked:.1%} asked for", p_value, ":")


def at_most(value: float, limit: float) -> bool:
    """value <= limit for differences of shares: 0.76 - 0.75 is within a tolerance of 0.01, whatever the last bit says."""
    return value <= limit + 1e-12


def _judge_beyond(evaluated: EvaluationSet, beyond: str, p_value: float, before_advice: str) -> AccuracyDecision:
    """On what the tolerance does not cover: inaccurate if it is significant."""
    if p_value < evaluated.alpha:
        return AccuracyDecision(Verdict.INACCURATE, f"{beyond}, and hardly by chance (p = {p_value:.2g})", p_value)
    reason = f"{beyond}, but {_may_be_chance(p_value, evaluated)}{before_advice} evaluate on more {evaluated.things}"
    return AccuracyDecision(Verdict.INCONCLUSIVE, reason, p_value)


def _may_be_chance(p_value: float, evaluated: EvaluationSet) -> str:
    return f"it may be chance (p = {p_value:.2g}, needed below {evaluated.alpha:g})"
