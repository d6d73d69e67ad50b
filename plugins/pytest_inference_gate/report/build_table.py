"""The table ``build``: what each conversion made of the model's graph, what it took, and how throughput grows with the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..build_results import NodeCounts
from ..coverage import LIBRARIES
from ..results import CaseResult, RunResult
from ..verdict import Verdict, worst
from ..wording import counted, wrapped
from .cells import NOTHING, first_inference_cell, median_cell, on_accelerator_cell
from .columns import Column, fitted
from .terminal import Markup, colour_of, device_in_words, no_markup

_STORED = "*"


@dataclass(frozen=True)
class BuildRow:
    """Cases that differ in their batch alone, the smallest first; each batch has a build of its own."""

    cases: tuple[CaseResult, ...]

    @property
    def first(self) -> CaseResult:
        """The case with the smallest batch."""
        return self.cases[0]

    @property
    def verdict(self) -> Verdict:
        return worst(case.verdict for case in self.cases)

    def of_batch(self, batch: int) -> CaseResult | None:
        return next((case for case in self.cases if case.batch == batch), None)


_Column = Column[BuildRow]


def build_rows(cases: Sequence[CaseResult]) -> list[BuildRow]:
    """The cases by all that tells them apart but the batch, in the order in which they first appear."""
    groups: dict[tuple[object, ...], list[CaseResult]] = {}
    for case in cases:
        key = (case.model, case.backend, case.precision, case.threads, case.variant, case.device)
        groups.setdefault(key, []).append(case)
    return [BuildRow(tuple(sorted(group, key=lambda case: case.batch))) for group in groups.values()]


def build_lines(run: RunResult, width: int = 100, markup: Markup = no_markup) -> list[str]:
    """A caption, a row for each model as it is built, and what the columns mean; no line at all where the device supports no case."""
    cases = [case for case in run.cases if case.verdict is not Verdict.UNSUPPORTED]
    if not cases:
        return []
    rows = build_rows(cases)
    columns, lines, left_out = fitted([*_identity(rows), *_figures(rows)], rows, width)
    caption = f"{counted(len(cases), 'case')} on {device_in_words(run.device)}"
    if left_out:
        caption += f" (not shown in {width} columns: {', '.join(column.name for column in left_out)})"
    first_row = len(lines) - len(rows)
    for number, row in enumerate(rows, start=first_row):
        line, verdict = lines[number].rstrip(), _verdict(row)
        # The verdict is the last column, so that it can be coloured without the table's being measured again.
        lines[number] = line[: -len(verdict)] + markup(verdict, colour_of(row.verdict, run.relaxed))
    legend = "; ".join(dict.fromkeys(column.legend for column in columns if column.legend))
    if any(len(row.cases) > 1 for row in rows):
        legend += f"{'; ' if legend else ''}what is shown once is of the smallest batch of the row"
    return [*wrapped(caption, width), "", *(line.rstrip() for line in lines), *(wrapped(legend, width) if legend else [])]


def _identity(rows: Sequence[BuildRow]) -> list[_Column]:
    columns = [
        _Column("model", "model", lambda row: row.first.model, number=False),
        _Column("backend", "backend", lambda row: row.first.backend, number=False),
        _Column("precision", "precision", lambda row: row.first.precision, number=False),
        _Column("threads", "threads", lambda row: str(row.first.threads)),
        _Column("variant", "variant", lambda row: row.first.variant or NOTHING, number=False),
        _Column("device", "device", lambda row: row.first.device, number=False),
    ]
    always = ("model", "backend", "precision")
    return [column for column in columns if column.name in always or len({column.cell(row) for row in rows}) > 1]


def _figures(rows: Sequence[BuildRow]) -> list[_Column]:
    """Every column that has something to say of these rows."""
    batches = sorted({case.batch for row in rows for case in row.cases})
    columns = [
        _Column("nodes", "nodes", _nodes, legend="nodes: of the graph, before -> after its conversion"),
        _Column("engines", "engines", _engines, legend="engines: in the graph, or parts that an accelerator takes in one piece"),
        _Column(
            "on accelerator", "on\naccel.", _of_first(on_accelerator_cell), spare=3, legend="on accel.: operations that run there"
        ),
        _Column("build time", "build\ns", _build, legend=f"build: how long it took, {_STORED} in an earlier run, from the store"),
        _Column(
            "first inference",
            "first\nms",
            _of_first(first_inference_cell),
            spare=2,
            legend="first: first inference after loading",
        ),
        _Column("median", "median\nms", _of_first(median_cell), spare=1),
    ]
    for number, batch in enumerate(batches):
        columns.append(
            _Column(
                f"samples/s in batches of {batch}",
                f"b{batch}\n/s",
                _samples(batch),
                spare=None if number in (0, len(batches) - 1) else 0,
                legend="b1, b2, ...: samples per second in batches of so many",
            )
        )
    columns = [column for column in columns if any(column.cell(row) != NOTHING for row in rows)]
    return [*columns, _Column("verdict", "verdict", _verdict, number=False)]


def _nodes(row: BuildRow) -> str:
    """Once where the conversion left the graph as it was."""
    nodes = row.first.artifact.nodes if row.first.artifact is not None else None
    return NOTHING if nodes is None else nodes_text(nodes)


def nodes_text(nodes: NodeCounts) -> str:
    """``741 -> 12``; one number where both are the same, and ``?`` for what nothing told."""
    before, after = ("?" if count is None else str(count) for count in (nodes.before, nodes.after))
    return after if before == after else f"{before} -> {after}"


def _engines(row: BuildRow) -> str:
    artifact, coverage = row.first.artifact, row.first.coverage
    if artifact is not None and artifact.engines is not None:
        return str(artifact.engines)
    found = None if coverage is None else coverage.found
    if found is None or found.accelerator in LIBRARIES or found.parts is None:
        return NOTHING
    return str(found.parts)


def _build(row: BuildRow) -> str:
    artifact = row.first.artifact
    if artifact is None or artifact.convert_seconds is None:
        return NOTHING
    return f"{artifact.convert_seconds:.{1 if artifact.convert_seconds < 100 else 0}f}{_STORED if artifact.cached else ''}"


def _of_first(cell: Callable[[CaseResult], str]) -> Callable[[BuildRow], str]:
    return lambda row: cell(row.first)


def _samples(batch: int) -> Callable[[BuildRow], str]:
    def cell(row: BuildRow) -> str:
        case = row.of_batch(batch)
        if case is None or case.latency is None:
            return NOTHING
        speed = case.latency.throughput
        return f"{speed:.0f}" if speed >= 1000 else f"{speed:.4g}"

    return cell


def _verdict(row: BuildRow) -> str:
    """With the batches that it is true of, where not of all."""
    batches = [case.batch for case in row.cases if case.verdict is row.verdict]
    return str(row.verdict) if len(batches) == len(row.cases) else f"{row.verdict} (b{', b'.join(map(str, batches))})"
