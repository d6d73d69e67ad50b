"""The table at the end of a run, and what is said below it: plain lines, which a callback may colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import floor, log10
from typing import Literal

from ..atomic_files import size_text
from ..backends import CPU
from ..coverage import LIBRARIES
from ..devices import version_of
from ..results import CaseResult, ComparedSession, DeviceResult, OtherStack, RunResult
from ..verdict import RELAXABLE, SEVERITY, Verdict, gate_is_red
from ..wording import CLOCKS_AGREE, counted, duration_in_words, session_time
from ..wording import wrapped as _wrapped
from .advice import faster_next_step
from .columns import Column, fitted, laid_out
from .detections import map50_cell, map_cell, map_drop_cell, matched_cell

Colour = Literal["red", "green", "yellow"]
Markup = Callable[[str, Colour], str]
"""Given a piece of a line and a colour, the piece with whatever makes a terminal show it so."""
Table = Callable[[RunResult, int, Markup], list[str]]
"""Given the run of one device, a width in columns and a markup, the lines of a table; none where no case is supported there."""

_NOTHING = "-"
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
    return lines_of(_columns(cases, against=run.mode == "against"), cases, run, width, markup, counted(len(run.cases), "case"))


def lines_of(
    columns: Sequence[_Column], cases: Sequence[CaseResult], run: RunResult, width: int, markup: Markup, how_many: str
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
    caption += [f"{column.name} {column.cell(cases[0])}" for column in constant if column.cell(cases[0]) != _NOTHING]
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


def milliseconds(seconds: float, digits: int = 3) -> str:
    """A duration in ms to so many significant digits, and never fewer than whole milliseconds: ``0.0412``, ``4.12``, ``1234``."""
    value = seconds * 1000
    # Rounded first: 9.996 is 10.0 to three digits, not 10.00.
    rounded = float(f"{value:.{digits - 1}e}")
    before_the_point = floor(log10(rounded)) + 1 if rounded > 0 else 1
    return f"{value:.{max(0, digits - before_the_point)}f}"


def millijoules(joules: float) -> str:
    """An energy in mJ to three significant digits, and never fewer than whole ones: ``12.1``."""
    return milliseconds(joules)  # thousandths are thousandths


def energy_change(before: float, after: float) -> str:
    """Two energies in J as ``"12.1 -> 13.0"``, in mJ."""
    return f"{millijoules(before)} -> {millijoules(after)}"


def ratio_text(ratio: float) -> str:
    """Three decimals, as a difference of a thousandth is the least that anybody asks for; four digits from 10 on."""
    return f"{ratio:.3f}" if ratio < 9.9995 else f"{ratio:.4g}"


_Column = Column[CaseResult]


def _columns(cases: Sequence[CaseResult], *, against: bool) -> list[_Column]:
    """Every column that has something to say of these cases. ``against``: two stacks were measured in turns."""
    columns = identity_columns(cases)
    reference = "the other stack" if against else "the float model"
    figures = [
        _Column("size", "size", _size, spare=4),
        _Column("top-1", "top-1\n%", _top1, spare=6),
        _Column("drop", "drop\npoints", _drop, legend=f"drop: top-1 lost against {reference}, in percentage points"),
        _Column("agreement", "agree\n%", _agreement, spare=1, legend=f"agree: samples with {reference}'s class"),
        *_detection_columns(reference),
        _Column("first inference", "first\nms", _first, spare=3, legend="first: first inference after loading"),
        _Column("median", "this\nms" if against else "median\nms", _median),
        _Column("p90", "p90\nms", _p90, spare=2, legend="p90: nine inferences of ten took less"),
        _Column(
            "spread over pictures",
            "over\npict. %",
            lambda case: _spread(case.latency.picture_spread if case.latency else None),
            spare=8,
            legend="over pict., over rounds: interquartile range / median, of the pictures' medians and of one picture's rounds",
        ),
        _Column(
            "spread over rounds",
            "over\nrounds %",
            lambda case: _spread(case.latency.round_spread if case.latency else None),
            spare=7,
        ),
        _Column("throughput", "samples\n/s", _throughput, spare=0),
    ]
    figures += compared_columns(against=against)
    figures.append(
        _Column(
            "builds", "builds\n%", _builds, spare=6, legend="builds: by how much the slowest build is slower than the fastest"
        )
    )
    if all(case.batch == 1 for case in cases):
        figures = [column for column in figures if column.name != "throughput"]  # it would be the median in another unit
    figures.append(
        _Column(
            "on accelerator",
            "on\naccel.",
            _on_accelerator,
            spare=8,
            legend="on accel.: operations that run on the accelerator",
        )
    )
    figures += _energy_columns(cases)
    columns += [column for column in figures if any(column.cell(case) != _NOTHING for case in cases)]
    return [*columns, _Column("verdict", "verdict", lambda case: str(case.verdict), number=False)]


def identity_columns(cases: Sequence[CaseResult]) -> list[_Column]:
    """Those that tell which case a row is."""
    return [
        _Column("model", "model", lambda case: case.model, number=False, identity=True),
        _Column("backend", "backend", lambda case: case.backend, number=False, identity=True),
        _Column("precision", "precision", lambda case: case.precision, number=False, identity=True),
        _Column("batch", "batch", lambda case: str(case.batch), identity=True),
        _Column("threads", "threads", lambda case: str(case.threads), identity=True),
        _Column("variant", "variant", lambda case: case.variant or _NOTHING, number=False, identity=True),
        _Column("device", "device", _device_among(cases), number=False, identity=True),
    ]


def compared_columns(*, against: bool) -> list[_Column]:
    """Those that hold a case's latency against the other stack's, or against its baseline's."""
    if against:
        return [
            _Column("other stack", "other\nms", _baseline, spare=5, legend="this, other: medians of the two stacks"),
            _Column("ratio", "this /\nother", _ratio, legend="this / other: median over the pairs of processes"),
            _Column("interval", "95 %\ninterval", _interval, spare=7, legend="interval: of that ratio"),
        ]
    return [
        _Column("baseline", "baseline\nms", _baseline, spare=5, legend="baseline: the median before"),
        _Column("change", "change\n%", _change),
    ]


def _device_among(cases: Sequence[CaseResult]) -> Callable[[CaseResult], str]:
    """The cell of the case's device; nothing where all cases run on the CPU, as then it goes without saying."""
    told = any(case.device != CPU for case in cases)
    return lambda case: case.device if told else _NOTHING


def _constant_columns(columns: Sequence[_Column], cases: Sequence[CaseResult]) -> list[_Column]:
    """The columns that tell no case from another. A single case keeps its name."""
    kept = ("model", "backend", "precision") if len(cases) == 1 else ()
    return [
        column
        for column in columns
        if column.identity and column.name not in kept and len({column.cell(case) for case in cases}) == 1
    ]


def _shortened(column: _Column, length: int) -> _Column:
    def cell(case: CaseResult) -> str:
        text = column.cell(case)
        return text if len(text) <= length else text[: length - 1] + "…"

    return replace(column, cell=cell)


def _size(case: CaseResult) -> str:
    return _NOTHING if case.artifact is None else size_text(case.artifact.size_bytes)


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{100 * share:.2f}"


def _top1(case: CaseResult) -> str:
    return _NOTHING if case.accuracy is None else _percent(case.accuracy.figures.top1)


def _drop(case: CaseResult) -> str:
    drop = None if case.accuracy is None else case.accuracy.figures.drop
    return _NOTHING if drop is None else f"{round(100 * drop, 2) + 0.0:.2f}"


def _agreement(case: CaseResult) -> str:
    return _NOTHING if case.accuracy is None else _percent(case.accuracy.figures.agreement)


def _first(case: CaseResult) -> str:
    first = None if case.latency is None else case.latency.first_inference
    return _NOTHING if first is None else milliseconds(first)


def _median(case: CaseResult) -> str:
    return _NOTHING if case.latency is None else milliseconds(case.latency.median)


def _p90(case: CaseResult) -> str:
    return _NOTHING if case.latency is None else milliseconds(case.latency.p90)


def _throughput(case: CaseResult) -> str:
    return _NOTHING if case.latency is None else f"{case.latency.throughput:.4g}"


def _spread(share: float | None) -> str:
    return _NOTHING if share is None else f"{100 * share:.1f}"


def _builds(case: CaseResult) -> str:
    spread = None if case.latency is None else case.latency.build_spread
    return _NOTHING if spread is None else f"{100 * spread:.1f}"


def _on_accelerator(case: CaseResult) -> str:
    found = None if case.coverage is None else case.coverage.found
    if found is None or found.accelerator in LIBRARIES:
        return _NOTHING
    return f"{found.on_accelerator}/{found.operations}"


def _detection_columns(reference: str) -> list[_Column]:
    """They show themselves where a case is a detector's."""
    return [
        _Column("mAP", "mAP\n%", map_cell, legend="mAP, AP50: COCO's average precision, at IoU .5 to .95 and at .5"),
        _Column("AP50", "AP50\n%", map50_cell, spare=1),
        _Column("mAP drop", "drop\nmAP", map_drop_cell, legend=f"drop mAP: lost against {reference}, in percentage points"),
        _Column(
            "matched", "matched\n%", matched_cell, spare=6, legend=f"matched: detections that have a partner among {reference}'s"
        ),
    ]


def _energy_columns(cases: Sequence[CaseResult]) -> list[_Column]:
    """One for the rail of the whole board, or, where the device has none, for each of its rails."""
    rails = sorted({name for case in cases if case.telemetry is not None for name in case.telemetry.shown_rails})

    def cell(name: str) -> Callable[[CaseResult], str]:
        def energy(case: CaseResult) -> str:
            rail = None if case.telemetry is None else case.telemetry.rails.get(name)
            return _NOTHING if rail is None else millijoules(rail.joules_per_inference)

        return energy

    if len(rails) == 1:
        (name,) = rails
        totals = {case.telemetry.total_rail for case in cases if case.telemetry is not None}
        of = f"of the whole board (rail {name})" if name in totals else f"on rail {name} alone, which is not the whole machine"
        return [_Column("energy", "energy\nmJ", cell(name), spare=8, legend=f"energy: of one inference, {of}")]
    text = f"{', '.join(rails)}: energy of one inference on each rail; they may overlap, and none is the whole board"
    return [
        _Column(f"energy of {name}", f"{name}\nmJ", cell(name), spare=-1, legend=text if name == rails[0] else "")
        for name in rails
    ]


def _baseline(case: CaseResult) -> str:
    decision = None if case.latency is None else case.latency.decision
    return _NOTHING if decision is None else milliseconds(decision.baseline_median)


def _change(case: CaseResult) -> str:
    decision = None if case.latency is None else case.latency.decision
    return _NOTHING if decision is None else f"{100 * (decision.ratio - 1):+.1f}"


def _ratio(case: CaseResult) -> str:
    decision = None if case.latency is None else case.latency.decision
    return _NOTHING if decision is None else ratio_text(decision.ratio)


def _interval(case: CaseResult) -> str:
    interval = None if case.latency is None or case.latency.decision is None else case.latency.decision.interval
    return _NOTHING if interval is None else f"{ratio_text(interval[0])} to {ratio_text(interval[1])}"


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
