"""What to do about a verdict on latency: one sentence for each way in which it comes about."""

from __future__ import annotations

from ..decision import LatencyDecision
from ..verdict import Verdict

ONE_ROLE = (
    "tell the converter from the runtime: --gate-convert-with=PYTHON gives both stacks the same models, so that what remains is the "
    "runtime's, and --gate-run-with=PYTHON the same runtime"
)
_DOCTOR = "`inference-gate doctor` says what disturbs it"
_IN_TURNS = "--gate-against=PYTHON of the old environment measures both in turns, which cancels the machine"
_NOT_UNTIL_GREEN = "do not run it again and again until it is green"


def latency_next_step(verdict: Verdict, decision: LatencyDecision | None, *, paired: bool, exhausted: bool = False) -> str | None:
    """The advice on this verdict, None where nothing needs doing.

    ``paired``: two stacks were measured in turns, nothing was stored. ``exhausted``: as many replicates or pairs were taken as are taken at
    most, so that more time alone would not have helped.
    """
    if verdict is Verdict.SLOWER:
        return _slower(paired=paired)
    if verdict is Verdict.FASTER:
        return faster_next_step(paired=paired)
    if verdict is Verdict.INVALID:
        return (
            "mend what the reason names (`inference-gate doctor` shows the machine's condition and what to change), let the device cool "
            "down, and run again: these durations say nothing, whichever way they point"
        )
    if verdict is Verdict.UNGATEABLE:
        return (
            f"{_IN_TURNS}; or lock the clocks, keep the machine quiet ({_DOCTOR}) and record a new baseline with --benchmark-save=NAME; "
            "or, if this is how the device is, set a larger tolerance for this case"
        )
    if verdict is Verdict.INCONCLUSIVE:
        return _inconclusive(decision, paired=paired, exhausted=exhausted)
    return None


def faster_next_step(*, paired: bool) -> str:
    """What to check of a case that is faster before anybody is glad of it."""
    work = "check first that it did all of its work (accuracy, outputs), since a model that skips some is faster too"
    if paired:
        return f"{work}; both stacks met the same machine, so that is not it"
    return f"{work}, and that the machine is what it was (`inference-gate doctor`); then record a new baseline with --benchmark-save=NAME"


def _slower(*, paired: bool) -> str:
    if paired:
        return f"{ONE_ROLE}; if slower is accepted, set a larger tolerance for this case"
    return (
        f"see whether it is the software: {_IN_TURNS}, and --gate-convert-with or --gate-run-with fixes one role for both; if slower is "
        "accepted, record a new baseline with --benchmark-save=NAME"
    )


def _inconclusive(decision: LatencyDecision | None, *, paired: bool, exhausted: bool) -> str:
    if decision is not None and decision.builds is not None and decision.builds.spread is not None and not decision.builds.same:
        return (
            "build it more often with --gate-rebuilds, and record the baseline so too: it is the number of builds that decides; or pin the "
            "builder's choices with timing_cache under [options] of the card"
        )
    unit = "pairs" if paired else "replicates"
    if decision is not None and decision.minimum_detectable is None:
        more = "" if paired else ", or compare with more sessions"
        return f"take more with --gate-replicates{more}: so few {unit} cannot show any slow-down"
    if decision is not None and decision.stage == "budget" and not exhausted:
        return (
            f"allow the case a larger --gate-budget, so that it gets enough fresh {unit}; if it stays undecided, quieten the machine: "
            f"{_DOCTOR}; {_NOT_UNTIL_GREEN}"
        )
    quieter = f"quieten the machine ({_DOCTOR}) and take more --gate-replicates, within a larger --gate-budget"
    return f"{quieter}; {_NOT_UNTIL_GREEN}" if paired else f"{quieter}; or {_IN_TURNS}; {_NOT_UNTIL_GREEN}"
