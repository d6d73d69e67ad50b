"""What a failing test says: what was measured, what it was held against, what changed, and what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import median

from ..accuracy_rule import AccuracyDecision
from ..coverage import Coverage, fallen_back
from ..decision import ALPHA, MOST_WITH_BUILDS, BuildComparison, LatencyDecision
from ..device_telemetry import TelemetryResult
from ..limits import KINDS, value_in_words
from ..results import AccuracyResult, CaseResult, CoverageResult, LatencyResult
from ..sequential import MOST
from ..verdict import Verdict
from .advice import ONE_ROLE, latency_next_step
from .detections import detection_rows
from .figures import energy_change, millijoules, milliseconds, ratio_text
from .pictures import picture_rows
from .plots import durations_plot, ratios_plot
from .stream_table import stream_rows

_WIDTH = 100
_PLOT_WIDTH = 74  # indented by two
_SESSIONS_IN_FULL = 4
_OPERATIONS_SHOWN = 8

_ACCURACY_NEXT = {
    Verdict.INACCURATE: (
        "compare calibration data, preprocessing and converter version with those of the last good run; if the drop is accepted, "
        "raise the tolerance on the model's card"
    ),
    Verdict.INCONCLUSIVE: "evaluate on more samples: the set is too small to tell the drop from chance",
}
_ACCURACY_NEXT_PAIRED = {
    Verdict.INACCURATE: f"{ONE_ROLE}; if the drop is accepted, raise the tolerance on the model's card",
    Verdict.INCONCLUSIVE: "evaluate on more samples: the set is too small to tell the drop from chance",
}
_LIMITS_NEXT = (
    "a limit is the card's own and holds in every run, with a baseline or without: take another precision, number of threads or model, "
    "or, if the price is accepted, change it under [limits] of the card"
)
_OUTCOME_NEXT = {
    "fetch_error": "correct the card or its data; where it is fetched, check the network and --gate-mirror",
    "build_error": "read the converter's log; the former version of the converter may still take the model",
    "load_error": "check that the runtime is installed and knows all of the model's operations",
    "run_error": "read the log; the runtime took the model but could not run it",
    "crash": "read the log for the last operation before the crash, and report it to the runtime's makers with the artifact",
    "oom": "free memory, use a smaller batch, or raise --gate-memory-limit",
    "unreachable": "see that the board is on, cool and well supplied, and that its link holds; then run the case again",
    "storage_error": "free space on the board, or let its ~/.cache be written; then run the case again",
    "timeout": "read the log for where it hangs, or allow it more with --gate-timeout=STAGE=SECONDS",
}
# Where a backend has settings of its own for what went wrong, or a way to go wrong that is known.
_OUTCOME_NEXT_OF = {
    ("tftrt", "oom"): (
        "lower workspace_bytes and memory_limit_bytes in [options.tftrt] (workspace < memory limit < free memory), stop what else uses "
        "the board's memory, or use a smaller batch"
    ),
    ("tftrt", "crash"): (
        "read the log for the last line of the converter; the backend tensorrt takes the same model without TensorFlow's converter, and "
        "another minimum_segment_size in [options.tftrt] leaves the operation at fault to TensorFlow"
    ),
    ("tftrt", "timeout"): (
        "building engines may take half an hour on a small board: allow it more with --gate-timeout=convert=SECONDS, or read the log for "
        "where it hangs"
    ),
}


def latency_failure_message(
    case: CaseResult,
    decision: LatencyDecision | None,
    software_changes: Sequence[str] | None = None,
    *,
    next_step: str | None = None,
    reproduce: str | None = None,
    first: int | None = None,
    ascii_only: bool = False,
) -> str:
    """Several lines on a case whose latency did not pass: a plot, every figure that was decided on, what it cost, what to do.

    ``decision`` is None where a case is ``invalid`` in a run that compares nothing. ``reproduce`` is the command that measures exactly this
    case again, ``first`` how many replicates or pairs are looked at before any fresh ones; ``next_step`` stands in for the usual advice;
    ``ascii_only`` is for terminals that cannot show the plot's own characters.
    """
    latency = case.latency
    invalid = latency is not None and latency.invalid is not None
    paired = latency is not None and bool(latency.pair_ratios)
    verdict = Verdict.INVALID if invalid else case.verdict if decision is None else decision.verdict
    reason = latency.reason if latency is not None and invalid else case.reason if decision is None else decision.reason
    lines = [f"{case.name} is {_words(verdict)}: {reason}"]
    if latency is not None and decision is not None:
        lines += ["", *(f"  {line}".rstrip() for line in _plots(latency, decision, ascii_only=ascii_only))]
    lines.append("")
    if decision is not None:
        lines += _decided_on(decision, latency, trusted=not invalid)
        if not invalid:
            lines += _decided_by(decision, latency, first)
    if latency is not None:
        limit = 1.0 if decision is None else 1 + decision.threshold
        pictures = [line for row in picture_rows(latency, limit) for line in _wrapped(_row(*row), " " * 14)]
        rows = [] if case.stream is None else stream_rows(case.stream)
        lines += [line for row in rows for line in _wrapped(_row(*row), " " * 14)]
        lines += [*pictures, _row("cost", _cost(latency)), *_telemetry(case.telemetry), *_measured(latency)]
    lines += _changes(software_changes, paired=paired)
    exhausted = _is_exhausted(latency, first)
    lines += _next(next_step or latency_next_step(verdict, decision, paired=paired, exhausted=exhausted))
    if reproduce is not None:
        lines += ["", "  to measure this case again:", f"    {reproduce}"]
    return "\n".join(lines)


def accuracy_failure_message(
    case: CaseResult,
    decision: AccuracyDecision,
    software_changes: Sequence[str] | None = None,
    *,
    next_step: str | None = None,
    reproduce: str | None = None,
    paired: bool = False,
) -> str:
    """Several lines on a case whose accuracy did not pass. ``next_step`` stands in for the usual advice.

    ``paired``: the reference is not the float model but the other stack, prediction by prediction. ``reproduce`` is the command that
    evaluates exactly this case again.
    """
    lines = [f"{case.name} is {_words(decision.verdict)}: {decision.reason}"]
    if case.accuracy is not None:
        lines += _figures(case.accuracy, decision, paired=paired)
    if case.detection is not None:
        lines += detection_rows(case.detection, decision, paired=paired)
    lines += _changes(software_changes, paired=paired)
    advice = _ACCURACY_NEXT_PAIRED if paired else _ACCURACY_NEXT
    lines += _next(next_step or advice.get(decision.verdict))
    if reproduce is not None:
        lines += ["", "  to evaluate this case again:", f"    {reproduce}"]
    return "\n".join(lines)


def coverage_failure_message(
    case: CaseResult,
    coverage: CoverageResult,
    software_changes: Sequence[str] | None = None,
    *,
    next_step: str | None = None,
    reproduce: str | None = None,
    paired: bool = False,
) -> str:
    """Several lines on a case of which less runs on the accelerator than before, or than the card demands: what fell back, and why.

    ``paired``: held against another stack in the same run. ``reproduce`` is the command that runs exactly this case again.
    """
    decision, found, before = coverage.decision, coverage.found, coverage.decision.before
    lines = [f"{case.id} is {_words(decision.verdict)}: {decision.reason}", ""]
    if before is not None:
        lines += _placement("other stack" if paired else "before", before)
    if found is not None:
        lines += _placement("this stack" if paired else "after", found)
        lines += _elsewhere(found, before)
    if coverage.log is not None:
        lines += ["", f"  log of the conversion: {coverage.log}"]
    lines += _changes(software_changes, paired=paired)
    lines += _next(next_step or _coverage_next(found, before, paired=paired))
    if reproduce is not None:
        lines += ["", "  to run this case again:", f"    {reproduce}"]
    return "\n".join(lines)


def limits_failure_message(case: CaseResult, *, next_step: str | None = None, reproduce: str | None = None) -> str:
    """Several lines on a case that is over a limit of its card: every limit that was judged, with its figure.

    ``reproduce`` is the command that runs exactly this case again; ``next_step`` stands in for the usual advice.
    """
    over = [limit for limit in case.limits if limit.exceeded]
    lines = _wrapped(f"{case.name} is {_words(Verdict.OVER_LIMIT)}: {'; '.join(limit.reason for limit in over)}", "  ")
    width = max(len(limit.name) for limit in case.limits)
    rows = []
    for limit in case.limits:
        found = "unknown" if limit.found is None else value_in_words(limit.found, limit.unit)
        asked = f"{'at least' if KINDS[limit.name].least else 'at most'} {value_in_words(limit.limit, limit.unit)}"
        rows.append(f"  {limit.name:<{width}}  {found:>12}   {asked}{'   <-- exceeded' if limit.exceeded else ''}")
    lines += ["", *rows]
    lines += _next(next_step or _LIMITS_NEXT)
    if reproduce is not None:
        lines += ["", "  to run this case again:", f"    {reproduce}"]
    return "\n".join(lines)


def _placement(name: str, coverage: Coverage) -> list[str]:
    more = [
        f"in {coverage.parts} part{'' if coverage.parts == 1 else 's'}" if coverage.parts is not None else "",
        f"{coverage.off_chip_bytes} bytes off the chip" if coverage.off_chip_bytes is not None else "",
        f"{coverage.native_segments} segments as native TensorFlow" if coverage.native_segments else "",
        f"told by {coverage.source}",
    ]
    return _wrapped(_row(name, ", ".join([f"{coverage.in_words()} on {coverage.accelerator}", *filter(None, more)])), " " * 14)


def _elsewhere(found: Coverage, before: Coverage | None) -> list[str]:
    """The operations that do not run there, what became more first."""
    rows = fallen_back(found, before)
    if not rows:
        return []
    width = max(len(one.operation) for one, _ in rows[:_OPERATIONS_SHOWN])
    lines = ["", f"  not on {found.accelerator}{', what is new first' if before is not None else ''}"]
    for one, known in rows[:_OPERATIONS_SHOWN]:
        was = f" (before {known})" if before is not None else ""
        lines += _wrapped(f"    {one.count:>4}{was}  {one.operation:<{width}}  {one.reason}".rstrip(), " " * 8)
    left_out = rows[_OPERATIONS_SHOWN:]
    if left_out:
        lines.append(f"    and {sum(one.count for one, _ in left_out)} of {len(left_out)} other kinds")
    return lines


def _coverage_next(found: Coverage | None, before: Coverage | None, *, paired: bool) -> str:
    if found is None:
        return (
            "use a release of the backend's runtime or converter that tells where operations run; if that is accepted, remove the demand "
            "from the card or record a new baseline with --benchmark-save=NAME"
        )
    look = "see in the conversion's log why these operations are not mapped, and compare the versions of converter and runtime"
    if paired:
        return f"{look}; {ONE_ROLE}"
    lower = "lower the demand on the card" if before is None else "record a new baseline with --benchmark-save=NAME"
    return f"{look} with those of the last good run; if less is accepted, {lower}"


def broken_message(
    case: CaseResult, software_changes: Sequence[str] | None = None, *, next_step: str | None = None, paired: bool = False
) -> str:
    """Several lines on a case that does not convert or run; ``paired``: it was to be compared with another stack in the same run."""
    outcome = case.outcome
    what = outcome.kind.replace("_", " ")
    if outcome.stage is not None:
        what += f" in {outcome.stage}"
    if outcome.signal is not None:
        what += f" by {outcome.signal}"
    lines = [f"{case.name} is {_words(case.verdict)}: {what}"]
    if outcome.message:
        lines += ["", f"  {outcome.message}"]
    if outcome.log is not None:
        lines += ["", f"  log: {outcome.log}"]
    lines += _changes(software_changes, paired=paired)
    if not outcome.advises:
        lines += _next(next_step or _OUTCOME_NEXT_OF.get((case.backend, outcome.kind)) or _OUTCOME_NEXT.get(outcome.kind))
    return "\n".join(lines)


def no_baseline_message(
    case_id: str,
    command: str,
    close_matches: Sequence[str] = (),
    other_devices: Sequence[str] = (),
    *,
    incomparable: str | None = None,
) -> str:
    """Several lines on a case that the baseline does not know. ``command`` is the one that records it.

    ``other_devices`` are those that do have baselines; ``incomparable`` says why a baseline that knows the case cannot be compared with.
    """
    lines = [f"{case_id} has no baseline to be compared with{f': {incomparable}' if incomparable else ''}"]
    if close_matches:
        lines += ["", f"  the baseline has {', '.join(close_matches)}: was the case renamed?"]
    if other_devices:
        lines += ["", f"  there are baselines of other devices, which are not compared with this one: {', '.join(other_devices)}"]
    lines += _next(f"record one with the software that is known to be good: {command}")
    return "\n".join(lines)


def _plots(latency: LatencyResult, decision: LatencyDecision, *, ascii_only: bool) -> list[str]:
    limit = _limit(decision)
    if not latency.pair_ratios:
        return durations_plot(
            latency.baseline_sessions,
            latency.replicates,
            limit=decision.baseline_median * limit,
            width=_PLOT_WIDTH,
            ascii_only=ascii_only,
        )
    ratios = ratios_plot(latency.pair_ratios, limit=limit, interval=decision.interval, width=_PLOT_WIDTH, ascii_only=ascii_only)
    # Nothing is decided on the durations of the two stacks by themselves, so they have no threshold.
    durations = durations_plot(
        latency.baseline_sessions, latency.replicates, names=("other", "this"), width=_PLOT_WIDTH, ascii_only=ascii_only
    )
    return [*ratios, "", *durations]


def _limit(decision: LatencyDecision) -> float:
    """The ratio beyond which the change counts: slower by the threshold, or its mirror image, the slower over the faster one."""
    return 1 + decision.threshold if decision.ratio >= 1 else 1 / (1 + decision.threshold)


def _is_exhausted(latency: LatencyResult | None, first: int | None) -> bool:
    """Whether as much was measured as is at most."""
    if latency is None or first is None:
        return False
    builds = None if latency.decision is None else latency.decision.builds
    by_builds = builds is not None and builds.spread is not None and not builds.same
    return len(latency.pair_ratios or latency.replicates) >= (MOST_WITH_BUILDS if by_builds else MOST) * first


def _decided_on(decision: LatencyDecision, latency: LatencyResult | None, *, trusted: bool) -> list[str]:
    paired = latency is not None and bool(latency.pair_ratios)
    before, after = ("other stack", "this stack") if paired else ("before", "after")
    lines = [
        _row(before, f"{milliseconds(decision.baseline_median, 4)} ms"),
        _row(after, f"{milliseconds(decision.candidate_median, 4)} ms"),
        _row("ratio", _ratio_with_interval(decision)),
    ]
    if not trusted:
        return lines
    corrected = f", corrected for {decision.family} cases" if decision.family > 1 else ""
    lines += [
        _row("threshold", f"{ratio_text(_limit(decision))}  ({100 * (_limit(decision) - 1):+.1f} %)"),
        _row("p-value", f"{decision.p_value:.2g}  (needed below {ALPHA:g}{corrected})"),
    ]
    if decision.builds is not None:
        lines.append(_row("builds", _built(decision.builds, latency)))
    if decision.minimum_detectable is None:
        return [*lines, _row("detectable", f"nothing: too few {_unit(latency)}")]
    return [*lines, _row("detectable", f"a slow-down of {100 * decision.minimum_detectable:.1f} % at the smallest")]


def _built(builds: BuildComparison, latency: LatencyResult | None) -> str:
    counts = f"{builds.candidate} against {builds.baseline}"
    if builds.same:
        return f"{counts}, the same ones: nothing was rebuilt"
    if latency is not None and latency.build_spread is not None:
        counts += f"; those of this run differ by {latency.build_spread:.1%} ({_list(latency.build_medians)} ms)"
    return counts if builds.spread is None else f"{counts}; builds of one software scatter by {builds.spread:.1%}"


def _ratio_with_interval(decision: LatencyDecision) -> str:
    if decision.interval is None:
        return f"{ratio_text(decision.ratio)}  (too few for an interval)"
    low, high = decision.interval
    return f"{ratio_text(decision.ratio)}  (95 %: {ratio_text(low)} to {ratio_text(high)})"


def _decided_by(decision: LatencyDecision, latency: LatencyResult | None, first: int | None) -> list[str]:
    unit = _unit(latency)
    count = 0 if latency is None else len(latency.pair_ratios or latency.replicates)
    fresh = count - first if first is not None and count > first else None
    the_first = f"the first {min(first, count)} {unit}" if first is not None and count else f"the first {unit}"
    the_fresh = "the fresh ones" if fresh is None else f"{fresh} fresh ones"
    if _is_exhausted(latency, first):
        left_open = f"nothing: {count} {unit}, as many as are taken at most, left it open"
    else:
        left_open = f"nothing: its time ended after {count} {unit}, before the answer was clear"
    text = {
        "first": the_first,
        "confirmed": f"{the_first}, confirmed by {the_fresh}",
        "unconfirmed": f"{the_first}, not confirmed by {the_fresh}",
        "budget": left_open,
    }[decision.stage]
    return [_row("decided by", text)]


def _cost(latency: LatencyResult) -> str:
    number = len(latency.pair_ratios or latency.replicates)
    seconds = "" if latency.cost is None else f"{latency.cost:.1f} s of measuring, "
    unit = _unit(latency)
    return f"{seconds}{number} {unit if number != 1 else unit.replace('replicates', 'replicate').replace('pairs', 'pair')}"


def _telemetry(telemetry: TelemetryResult | None) -> list[str]:
    """What the device showed meanwhile, as information: nothing is decided on it."""
    if telemetry is None:
        return []
    lines = []
    for name in telemetry.shown_rails:
        rail = telemetry.rails[name]
        before = rail.baseline_joules_per_inference
        change = millijoules(rail.joules_per_inference) if before is None else energy_change(before, rail.joules_per_inference)
        whose = "the whole board" if name == telemetry.total_rail else "one rail of several"
        lines.append(
            _row("energy", f"{change} mJ an inference ({name}, {whose if len(telemetry.rails) > 1 else 'its only rail'})")
        )
    if (hottest := telemetry.hottest) is not None:
        lines.append(_row("hottest", f"{hottest[1]:.1f} degrees C ({hottest[0]})"))
    if telemetry.mhz:
        lines.append(_row("clocks", ", ".join(_clock(name, *span) for name, span in telemetry.mhz.items())))
    return lines


def _clock(name: str, lowest: float, highest: float) -> str:
    return f"{name} {lowest:g} MHz" if lowest == highest else f"{name} {lowest:g} to {highest:g} MHz"


def _unit(latency: LatencyResult | None) -> str:
    return "pairs of processes" if latency is not None and latency.pair_ratios else "replicates"


def _measured(latency: LatencyResult) -> list[str]:
    """Every value that was decided on; of many sessions their medians only."""
    rows: list[tuple[str, str]] = []
    if latency.pair_ratios:
        rows.append(("this / other", "  ".join(ratio_text(ratio) for ratio in latency.pair_ratios)))
        rows += [("other stack", _list(session)) for session in latency.baseline_sessions]
        rows.append(("this stack", _list(latency.replicates)))
        title = "ratios of the pairs, and medians of their processes in ms"
    else:
        sessions = latency.baseline_sessions
        if len(sessions) > _SESSIONS_IN_FULL:
            rows.append((f"before, {len(sessions)} sessions", _list([median(session) for session in sessions])))
            title = "medians of the sessions before and of the replicates after, in ms"
        else:
            rows += [(f"before, session {number}", _list(session)) for number, session in enumerate(sessions, start=1)]
            title = "medians of the replicates, in ms"
        rows.append(("after", _list(latency.replicates)))
    widest = max(len(name) for name, _ in rows)
    lines = ["", f"  {title}"]
    for name, values in rows:
        lines += _wrapped(f"    {name:<{widest}}  {values}", " " * (widest + 6))
    if latency.unsteady:
        lines.append(f"    {latency.unsteady} of {len(latency.replicates)} were not steady when their warm-up ran out of time")
    return lines


def _figures(accuracy: AccuracyResult, decision: AccuracyDecision, *, paired: bool) -> list[str]:
    figures = accuracy.figures
    rows: list[tuple[str, str | None]] = [
        ("samples", str(figures.n)),
        ("top-1", _percent(figures.top1)),
        ("other stack's" if paired else "reference's", _percent(figures.reference_top1)),
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
    column = 13 if paired else 12
    compared = ["", "  compared with the other stack, prediction by prediction:"] if paired else [""]
    lines = [*compared, *(f"  {name:<{column}} {value}" for name, value in rows if value is not None)]
    return lines + [f"  {name:<{column}} {value:.6g}" for name, value in accuracy.metrics.items()]


def _words(verdict: Verdict) -> str:
    return verdict.value.replace("_", " ")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f} %"


def _list(durations: Sequence[float]) -> str:
    return "  ".join(milliseconds(duration, 4) for duration in durations)


def _row(name: str, text: str) -> str:
    return f"  {name:<11} {text}"


def _changes(software_changes: Sequence[str] | None, *, paired: bool) -> list[str]:
    if software_changes is None:
        return []
    if not software_changes:
        return ["", f"  no recorded software {'differs from the other stack' if paired else 'changed since the baseline'}"]
    title = "other stack -> this stack:" if paired else "changed since the baseline:"
    return ["", f"  {title}", *(f"    {change}" for change in software_changes)]


def _next(step: str | None) -> list[str]:
    return [] if step is None else ["", *_wrapped(f"  next: {step}", " " * 8)]


def _wrapped(text: str, indent: str) -> list[str]:
    """Words stay whole, and the blanks between the columns of a row as they are."""
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
