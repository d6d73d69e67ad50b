"""What a failing test says: what was measured, what it was held against, what changed, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from ..accuracy import AccuracyDecision
from ..decision import LatencyDecision
from ..results import AccuracyResult, CaseResult, LatencyResult
from ..verdict import Verdict
from .terminal import milliseconds

_LATENCY_NEXT = {
    Verdict.SLOWER: (
        "see which of the changes above does it by gating the two environments against each other on this machine; if slower is "
        "accepted, record a new baseline with --benchmark-save=NAME"
    ),
    Verdict.INCONCLUSIVE: "run again on a quieter machine or with more --gate-replicates; until then nobody knows",
    Verdict.UNGATEABLE: (
        "lock the clocks, keep the machine quiet or set a larger tolerance for this case, then record a new baseline with "
        "--benchmark-save=NAME"
    ),
    Verdict.INVALID: "let the device cool down, fix its clocks and power mode, and run again: these durations say nothing",
    Verdict.FASTER: "check that the case still does all of its work, then record a new baseline with --benchmark-save=NAME",
}
_ACCURACY_NEXT = {
    Verdict.INACCURATE: (
        "compare calibration data, preprocessing and converter version with those of the last good run; if the drop is accepted, "
        "raise the tolerance on the model's card"
    ),
    Verdict.INCONCLUSIVE: "evaluate on more samples: the set is too small to tell the drop from chance",
}
_OUTCOME_NEXT = {
    "fetch_error": "correct the card or its data; where it is fetched, check the network and --gate-mirror",
    "build_error": "read the converter's log; the former version of the converter may still take the model",
    "load_error": "check that the runtime is installed and knows all of the model's operations",
    "run_error": "read the log; the runtime took the model but could not run it",
    "crash": "read the log for the last operation before the crash, and report it to the runtime's makers with the artifact",
    "oom": "free memory, use a smaller batch, or raise --gate-memory-limit",
    "timeout": "read the log for where it hangs, or allow it more with --gate-timeout=STAGE=SECONDS",
}


def latency_failure_message(
    case: CaseResult, decision: LatencyDecision, software_changes: Sequence[str] | None = None, *, next_step: str | None = None
) -> str:
    """Several lines on a case whose latency did not pass. ``next_step`` stands in for the usual advice."""
    latency = case.latency
    invalid = latency is not None and latency.invalid is not None
    verdict = Verdict.INVALID if invalid else decision.verdict
    reason = latency.reason if latency is not None and invalid else decision.reason
    lines = [
        f"{case.id} is {_words(verdict)}: {reason}",
        "",
        f"  before     {milliseconds(decision.baseline_median, 4)} ms",
        f"  after      {milliseconds(decision.candidate_median, 4)} ms",
        f"  ratio      {decision.ratio:.3f}  ({100 * (decision.ratio - 1):+.1f} %)",
        f"  threshold  {1 + decision.threshold:.3f}  ({100 * decision.threshold:+.1f} %)",
        f"  p-value    {decision.p_value:.2g}",
    ]
    if decision.minimum_detectable is None:
        lines.append("  detectable nothing: too few replicates")
    else:
        lines.append(f"  detectable {100 * decision.minimum_detectable:+.1f} % at the smallest")
    if latency is not None:
        lines += _replicates(latency)
    lines += _changes(software_changes)
    lines += _next(next_step or _LATENCY_NEXT.get(verdict))
    return "\n".join(lines)


def accuracy_failure_message(
    case: CaseResult, decision: AccuracyDecision, software_changes: Sequence[str] | None = None, *, next_step: str | None = None
) -> str:
    """Several lines on a case whose accuracy did not pass. ``next_step`` stands in for the usual advice."""
    lines = [f"{case.id} is {_words(decision.verdict)}: {decision.reason}"]
    if case.accuracy is not None:
        lines += _figures(case.accuracy, decision)
    lines += _changes(software_changes)
    lines += _next(next_step or _ACCURACY_NEXT.get(decision.verdict))
    return "\n".join(lines)


def broken_message(case: CaseResult, software_changes: Sequence[str] | None = None, *, next_step: str | None = None) -> str:
    """Several lines on a case that does not convert or run."""
    outcome = case.outcome
    what = outcome.kind.replace("_", " ")
    if outcome.stage is not None:
        what += f" in {outcome.stage}"
    if outcome.signal is not None:
        what += f" by {outcome.signal}"
    lines = [f"{case.id} is {_words(case.verdict)}: {what}"]
    if outcome.message:
        lines += ["", f"  {outcome.message}"]
    if outcome.log is not None:
        lines += ["", f"  log: {outcome.log}"]
    lines += _changes(software_changes)
    lines += _next(next_step or _OUTCOME_NEXT.get(outcome.kind))
    return "\n".join(lines)


def no_baseline_message(case_id: str, command: str, close_matches: Sequence[str] = (), other_devices: Sequence[str] = ()) -> str:
    """Several lines on a case that the baseline does not know. ``command`` is the one that records it.

    ``other_devices`` are those that do have baselines.
    """
    lines = [f"{case_id} has no baseline to be compared with"]
    if close_matches:
        lines += ["", f"  the baseline has {', '.join(close_matches)}: was the case renamed?"]
    if other_devices:
        lines += ["", f"  there are baselines of other devices, which are not compared with this one: {', '.join(other_devices)}"]
    lines += _next(f"record one with the software that is known to be good: {command}")
    return "\n".join(lines)


def _replicates(latency: LatencyResult) -> list[str]:
    sessions = [(f"before, session {number}", session) for number, session in enumerate(latency.baseline_sessions, start=1)]
    rows = [*sessions, ("after", latency.replicates)]
    widest = max(len(name) for name, _ in rows)
    lines = ["", "  medians of the replicates, in ms", *(f"    {name:<{widest}}  {_list(values)}" for name, values in rows)]
    if latency.unsteady:
        lines.append(f"    {latency.unsteady} of {len(latency.replicates)} were not steady when their warm-up ran out of time")
    return lines


def _figures(accuracy: AccuracyResult, decision: AccuracyDecision) -> list[str]:
    figures = accuracy.figures
    rows: list[tuple[str, str | None]] = [
        ("samples", str(figures.n)),
        ("top-1", _percent(figures.top1)),
        ("reference's", _percent(figures.reference_top1)),
        ("drop", None if figures.drop is None else f"{100 * figures.drop:.2f} points"),
        ("top-5", _percent(figures.top5)),
        ("lost, won", None if figures.lost is None else f"{figures.lost}, {figures.won}"),
        ("p-value", None if decision.p_value is None else f"{decision.p_value:.2g}"),
        ("agreement", _percent(figures.agreement)),
        (
            "confidence",
            None if figures.confidence_drift_signed is None else f"{100 * figures.confidence_drift_signed:+.2f} points",
        ),
        ("cosine", None if figures.cosine is None else f"{figures.cosine:.5f}"),
        ("divergence", None if figures.kl is None else f"{figures.kl:.3g} nats"),
        ("NaN in", f"{figures.nan_count} samples" if figures.nan_count else None),
    ]
    lines = ["", *(f"  {name:<12} {value}" for name, value in rows if value is not None)]
    return lines + [f"  {name:<12} {value:.6g}" for name, value in accuracy.metrics.items()]


def _words(verdict: Verdict) -> str:
    return verdict.value.replace("_", " ")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"


def _list(durations: Sequence[float]) -> str:
    return "  ".join(milliseconds(duration, 4) for duration in durations)


def _changes(software_changes: Sequence[str] | None) -> list[str]:
    if software_changes is None:
        return []
    if not software_changes:
        return ["", "  no recorded software changed since the baseline"]
    return ["", "  changed since the baseline:", *(f"    {change}" for change in software_changes)]


def _next(step: str | None) -> list[str]:
    return [] if step is None else ["", f"  next: {step}"]
