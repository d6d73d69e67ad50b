"""The table at the end of a run, and what is said below it: plain lines, which a callback may colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Literal

from ..devices import version_of
from ..results import CaseResult, ComparedSession, DeviceResult, OtherStack, RunResult
from ..verdict import RELAXABLE, SEVERITY, Verdict, gate_is_red
from ..wording import CLOCKS_AGREE, counted, duration_in_words, session_time
from ..wording import wrapped as _wrapped
from .advice import faster_next_step
from .case_columns import CaseColumn, latency_columns
from .cells import NOTHING
from .columns import fitted, laid_out

Colour = Literal["red", "green", "yellow"]
Markup = Callable[[str, Colour], str]
"""Given a piece of a line and a colour, the piece with whatever makes a terminal show it so."""
Table = Callable[[RunResult, int, Markup], list[str]]
"""Given the run of one device, a width in columns and a markup, the lines of a table; none where no case is supported there."""

_SHORTEST_MODEL = 12
_MOST_NAMES = 5  # cases that are unsupported for one reason and are named one by one
_FIRST_NAMES = 3  # of more of them


def no_markup(text: str, colour: Colour) -> str:  # noqa: ARG001
    """Leave the text as it is."""
    return text


def colour_of(verdict: Verdict, relaxed: frozenset[str] = frozenset()) -> Colour:
    """Red what closes the gate, green what is as it should be, yellow what is worth a look."""
    if gate_is_red(verdict, relaxed):
        return "red"
    return "green" if verdict in (Verdict.PASS, Verdict.FASTER, Verdict.FIXED) else "yellow"


def summary_lines(
    run: RunResult, *, width: int = 100, markup: Markup = no_markup, now: datetime | None = None, table: Table | None = None
) -> list[str]:
    """Everything that is printed at the end of a run: what was compared, table, reasons, notices, cost, times, and the last line.

    Lines are at most ``width`` characters long, markup not counted, except where a single word is longer. ``now`` is the moment from
    which the age of the baseline's sessions is told, with its time zone; by default, this one. ``table`` stands in for
    :func:`table_lines`.
    """
    from .stream_table import stream_lines

    lines: list[str] = []
    tables = []
    for device in run.each_device:
        plain = replace(device, cases=[case for case in device.cases if case.overlapped is None])
        tables += [
            _compared_lines(device, width, now or datetime.now(timezone.utc)),
            (table or table_lines)(plain, width, markup),
            stream_lines(device, width, markup),
        ]
    for block in (*tables, _published(run, width), _reasons(run, width, markup), _notes(run, width)):
        if block:
            lines += ["", *block] if lines else block
    if lines:
        lines.append("")
    for line in _wrapped(conclusion(run), width):
        lines.append(markup(line, "red" if run.red else "green"))
    return lines


def table_lines(run: RunResult, width: int = 100, markup: Markup = no_markup) -> list[str]:
    """A caption and one row for each case that the run's device supports; no line at all where there is none."""
    cases = [case for case in run.cases if case.verdict is not Verdict.UNSUPPORTED]
    if not cases:
        return []
    return lines_of(
        latency_columns(cases, against=run.mode == "against"), cases, run, width, markup, counted(len(run.cases), "case")
    )


def lines_of(
    columns: Sequence[CaseColumn], cases: Sequence[CaseResult], run: RunResult, width: int, markup: Markup, how_many: str
) -> list[str]:
    """A caption, the columns that have room, and what their headers mean. ``how_many`` are all cases, those left out included."""
    constant = _constant_columns(columns, cases)
    varying = [column for column in columns if column not in constant]
    columns, lines, spared = fitted(varying, cases, width)
    left_out = [column.name for column in spared]
    excess = max(map(len, lines)) - width
    if excess > 0 and columns[0].name == "model":
        longest = max(len(columns[0].cell(case)) for case in cases)
        columns[0] = _shortened(columns[0], max(longest - excess, _SHORTEST_MODEL))
        lines = laid_out(columns, cases)

    first_row = len(lines) - len(cases)
    for number, case in enumerate(cases, start=first_row):
        verdict = str(case.verdict)
        line = lines[number].rstrip()
        # The verdict is the last column, so that it can be coloured without the table's being measured again.
        lines[number] = line[: -len(verdict)] + markup(verdict, colour_of(case.verdict, run.relaxed))
    all_there_are = int(how_many.split()[0])
    number_of_cases = how_many if len(cases) == all_there_are else f"{len(cases)} of {how_many}"
    caption = [f"{number_of_cases} on {device_in_words(run.device)}"]
    caption += [f"{column.name} {column.cell(cases[0])}" for column in constant if column.cell(cases[0]) != NOTHING]
    text = ", ".join(caption)
    if left_out:
        text += f" (not shown in {width} columns: {', '.join(left_out)})"
    legend = "; ".join(column.legend for column in columns if column.legend)
    return [*_wrapped(text, width), "", *(line.rstrip() for line in lines), *(_wrapped(legend, width) if legend else [])]


def device_in_words(device: DeviceResult) -> str:
    return device.id if device.name is None else f"{device.name} ({device.id})"


def conclusion(run: RunResult) -> str:
    """The last line: how many cases, how they did, and whether this may ship."""
    total = counted(len(run.cases), "case")
    counts = run.counts()
    if not run.cases:
        return "no case ran, so nothing is gated: check the selection of tests and --gate-select"
    if set(counts) == {Verdict.UNSUPPORTED}:
        return f"{total}: none is supported on this machine, so nothing is gated"

    good = [verdict for verdict in (Verdict.PASS, Verdict.FASTER, Verdict.FIXED) if verdict in counts]
    others = [verdict for verdict in SEVERITY if verdict in counts and verdict not in good]
    words = [_with_its_count(counts[verdict], verdict, run) for verdict in [*good, *others]]
    if run.mode != "measure":
        return f"{total}: {', '.join(words)}: {'do not ship' if run.red else 'may ship'}"
    if run.red:
        return f"{total}, measured and compared with no baseline: {', '.join(words)}: do not ship"
    supported = len(run.cases) - counts.get(Verdict.UNSUPPORTED, 0)
    some = total if supported == len(run.cases) else f"{supported} of {total}"
    measured = some if set(counts) == {Verdict.PASS} else f"{some} ({', '.join(words)})"
    if run.saved is not None:
        return f"{measured} measured and saved as {run.saved}: compare later runs with it by --benchmark-compare"
    return f"{measured} measured, nothing compared: record a baseline with --benchmark-save=NAME"


def _constant_columns(columns: Sequence[CaseColumn], cases: Sequence[CaseResult]) -> list[CaseColumn]:
    """The columns that tell no case from another. A single case keeps its name."""
    kept = ("model", "backend", "precision") if len(cases) == 1 else ()
    return [
        column
        for column in columns
        if column.identity and column.name not in kept and len({column.cell(case) for case in cases}) == 1
    ]


def _shortened(column: CaseColumn, length: int) -> CaseColumn:
    def cell(case: CaseResult) -> str:
        text = column.cell(case)
        return text if len(text) <= length else text[: length - 1] + "…"

    return replace(column, cell=cell)


def _compared_lines(run: RunResult, width: int, now: datetime) -> list[str]:
    """What the cases were compared with: the baseline's sessions and their age, or the software in which two stacks differ."""
    if run.mode == "compare" and run.compared_sessions:
        of = "" if run.device.name is None else f"{run.device.name}: "
        return _wrapped(of + _sessions_in_words(run.compared_sessions, now), width, indent="    ")
    if run.mode == "against" and run.against is not None:
        return [
            line for text in _stacks_in_words(run.device.software, run.against) for line in _wrapped(text, width, indent="    ")
        ]
    return []


def _sessions_in_words(sessions: Sequence[ComparedSession], now: datetime) -> str:
    oldest, newest = sessions[0], sessions[-1]
    if len(sessions) == 1:
        return f"compared with 1 session of the baseline: {newest.name}, {_age(newest, now)}"
    return (
        f"compared with {len(sessions)} sessions of the baseline: the newest {newest.name}, {_age(newest, now)}; "
        f"the oldest {oldest.name}, {_age(oldest, now)}"
    )


def _age(session: ComparedSession, now: datetime) -> str:
    """Such as ``3 days old (2026-03-01)``."""
    taken = session_time(session.datetime)
    if taken is None:
        return f"of {session.datetime or 'an unknown date'}"
    age = now - taken
    if age < -CLOCKS_AGREE:
        return f"of {taken:%Y-%m-%d}, which this machine's clock takes for the future"
    if age < timedelta(minutes=1):
        return "just recorded"
    return f"{duration_in_words(age)} old ({taken:%Y-%m-%d})"


def _stacks_in_words(software: Mapping[str, str], against: OtherStack) -> list[str]:
    """One line for each stack, with what the two do not have in common."""
    other = against.software
    names = sorted({*software, *other})

    def named(versions: Mapping[str, str], name: str) -> str:
        return version_of(versions, name) or "none"

    differ = [name for name in names if named(software, name) != named(other, name)]
    models = [] if against.models is None else [f"the other models: {against.models}"]
    if not differ:
        if models:
            return models
        return [f"this stack and the other one ({against.python}) do not differ in any recorded software"]
    return [
        *models,
        f"this stack: {', '.join(f'{name} {named(software, name)}' for name in differ)}",
        f"other stack ({against.python}): {', '.join(f'{name} {named(other, name)}' for name in differ)}",
    ]


def _reasons(run: RunResult, width: int, markup: Markup) -> list[str]:
    """One paragraph for each case that is not ``pass``, worst first; those that are unsupported, or out of reach, for one reason share
    theirs."""
    lines = []
    paragraphs: dict[tuple[Verdict, str, str], list[str]] = {}
    for case in run.cases:
        if case.verdict is Verdict.PASS:
            continue
        shared = case.verdict is Verdict.UNSUPPORTED or case.outcome.is_of_the_surroundings
        paragraphs.setdefault((case.verdict, case.reason, "" if shared else case.name), []).append(case.name)
    for (verdict, reason, _), ids in sorted(paragraphs.items(), key=lambda item: SEVERITY.index(item[0][0])):
        first, *rest = _wrapped(f"{_names(ids)}: {verdict}: {reason}".removesuffix(": "), width, indent="    ")
        before, separator, after = first.partition(f": {verdict}")
        coloured = f": {markup(verdict.value, colour_of(verdict, run.relaxed))}" if separator else ""
        lines += [before + coloured + after, *rest]
    return lines


def _names(ids: Sequence[str]) -> str:
    """All of a few; of many, how many there are and the first ones: a laptop lacks most of the devices that a card has cases for."""
    if len(ids) <= _MOST_NAMES:
        return ", ".join(ids)
    return f"{len(ids)} cases ({', '.join(ids[:_FIRST_NAMES])}, ...)"


def _published(run: RunResult, width: int) -> list[str]:
    """What others measured on such a board, a line for each figure; no line where nothing is known."""
    lines = []
    for case in run.cases:
        for figure in case.published:
            lines += _wrapped(f"published for this board: {case.id}: {figure.sentence}", width, indent="    ")
    return lines


def _notes(run: RunResult, width: int) -> list[str]:
    lines = []
    rebuilt = [case for case in run.cases if case.latency is not None and case.latency.build_spread is not None]
    if rebuilt:
        differ = ", ".join(f"{case.name} by {case.latency.build_spread:.1%}" for case in rebuilt if case.latency is not None)
        lines += _wrapped(f"builds differ: {differ}", width, indent="    ")
    for notice in run.notices:
        lines += _wrapped(f"note: {notice}", width, indent="    ")
    if any(case.latency is not None and case.latency.verdict is Verdict.FASTER for case in run.cases):
        lines += _wrapped(f"what is faster: {faster_next_step(paired=run.mode == 'against')}", width, indent="    ")
    cost = _cost(run.cases)
    if cost:
        lines += _wrapped(cost, width, indent="    ")
    # Of two stacks the lines above the table have said it.
    for device in run.each_device:
        if device.software_changes is not None and (run.mode == "compare" or (run.mode == "against" and run.against is None)):
            changes = "; ".join(device.software_changes) or "nothing that is recorded"
            where = "" if device.device.name is None else f" on {device.device.name}"
            lines += _wrapped(f"software that changed{where}: {changes}", width, indent="    ")
    if run.phases:
        lines += _wrapped(f"time: {', '.join(_phase(run, name) for name in run.phases)}", width, indent="    ")
    return lines


def _cost(cases: Sequence[CaseResult]) -> str:
    """What the verdicts on latency took: ``16 verdicts from 84 replicates, 74 s of measuring; 14 settled by the first 5, 2 confirmed``."""
    compared = [
        (case.latency, case.latency.decision) for case in cases if case.latency is not None and case.latency.decision is not None
    ]
    if not compared:
        return ""
    units = [len(latency.pair_ratios or latency.replicates) for latency, _ in compared]
    unit = "pairs of processes" if any(latency.pair_ratios for latency, _ in compared) else "replicates"
    text = f"{counted(len(compared), 'verdict')} from {sum(units)} {unit}"
    known = [latency.cost for latency, _ in compared if latency.cost is not None]
    if known:
        text += f", {sum(known):.{0 if sum(known) >= 10 else 1}f} s of measuring"
    settled = [number for number, (_, decision) in zip(units, compared, strict=True) if decision.stage == "first"]
    stages: Counter[str] = Counter(decision.stage for _, decision in compared)
    parts = []
    if settled:
        some = f"{max(settled)}" if min(settled) == max(settled) else f"{min(settled)} to {max(settled)}"
        parts.append(f"{len(settled)} settled by the first {some}")
    words = {"confirmed": "confirmed", "unconfirmed": "not confirmed", "budget": "left open"}
    parts += [f"{stages[stage]} {words[stage]}" for stage in words if stages[stage]]
    return f"{text}; {', '.join(parts)}"


def _phase(run: RunResult, name: str) -> str:
    text = f"{name} {run.phases[name]:.1f} s"
    # Several cases can share one converted model: it counts once.
    artifacts = {case.artifact.digest: case.artifact.cached for case in run.cases if case.artifact is not None}
    if name == "convert" and artifacts:
        stored = sum(artifacts.values())
        text += f" ({len(artifacts) - stored} made, {stored} from the store)"
    return text


def _with_its_count(count: int, verdict: Verdict, run: RunResult) -> str:
    relaxed = " (relaxed)" if verdict in RELAXABLE and verdict in run.relaxed else ""
    return f"{count} {verdict.value.replace('_', ' ')}{relaxed}"
