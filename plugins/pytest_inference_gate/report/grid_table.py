"""The table ``grid``: one block a model, one row a precision, and beside each other what each number of threads makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..grid import GridRow, remarks_across_models, remarks_on_model, rows_by_model
from ..results import CaseResult, RunResult
from ..verdict import Verdict
from ..wording import counted, wrapped
from .cells import NOTHING, change_cell, first_inference_cell, median_cell, percent_cell, points_cell, ratio_cell, size_cell
from .columns import Column, fitted
from .terminal import Markup, colour_of, device_in_words, no_markup

_Column = Column[GridRow]


def grid_lines(run: RunResult, width: int = 100, markup: Markup = no_markup) -> list[str]:
    """A caption, a block for each model with what stands out in it, and what stands out among the models; no line at all where the device
    supports no case."""
    cases = [case for case in run.cases if case.verdict is not Verdict.UNSUPPORTED]
    if not cases:
        return []
    models = rows_by_model(cases)
    rows = [row for block in models.values() for row in block]
    threads = sorted({case.threads for case in cases})
    identity = _identity(rows)
    columns, lines, left_out = fitted([*identity, *_figures(run, rows, threads)], rows, width)
    name = partial(_name, identity)
    caption = f"{counted(len(cases), 'case')} of {counted(len(models), 'model')} on {device_in_words(run.device)}"
    if left_out:
        caption += f" (not shown in {width} columns: {', '.join(column.name for column in left_out)})"
    text = wrapped(caption, width)

    head, body = lines[: len(lines) - len(rows)], iter(lines[len(lines) - len(rows) :])
    for model, block in models.items():
        text += ["", *wrapped(_title(model, block, against=run.mode == "against"), width), "", *(line.rstrip() for line in head)]
        text += [_coloured(next(body).rstrip(), row, run, markup) for row in block]
        remarks = remarks_on_model(block, name, cores=run.device.free_cores)
        text += [line for remark in remarks for line in wrapped(f"- {remark}", width, indent="  ")]
    across = remarks_across_models(models, name)
    if across:
        text += ["", *(line for remark in across for line in wrapped(remark, width, indent="  "))]
    legend = "; ".join(dict.fromkeys(column.legend for column in columns if column.legend))
    return [*text, *([""] if legend else []), *(wrapped(legend, width) if legend else [])]


def _title(model: str, rows: Sequence[GridRow], *, against: bool) -> str:
    scores = [row.score for row in rows if row.score is not None and row.score.reference is not None]
    known = {f"{score.name} {100 * (score.reference or 0.0):.2f} %" for score in scores}
    reference = "of the other stack" if against else "in float"
    return f"{model}, {reference} {known.pop()}" if len(known) == 1 else model


def _coloured(line: str, row: GridRow, run: RunResult, markup: Markup) -> str:
    """The verdict is the last column, so that it can be coloured without the table's being measured again."""
    verdict = _verdict(row)
    return line[: -len(verdict)] + markup(verdict, colour_of(row.verdict, run.relaxed))


def _verdict(row: GridRow) -> str:
    """With the numbers of threads that it is true of, where not of all."""
    threads = [case.threads for case in row.cases if case.verdict is row.verdict]
    return str(row.verdict) if len(threads) == len(row.cases) else f"{row.verdict} (t{', t'.join(map(str, threads))})"


def _identity(rows: Sequence[GridRow]) -> list[_Column]:
    """The columns that tell the rows of a model apart; the precision in any case."""
    columns = [
        _Column("backend", "backend", lambda row: row.first.backend, number=False),
        _Column("precision", "precision", lambda row: row.first.precision, number=False),
        _Column("batch", "batch", lambda row: f"b{row.first.batch}", number=False),
        _Column("variant", "variant", lambda row: row.kind or NOTHING, number=False),
    ]
    return [column for column in columns if column.name == "precision" or len({column.cell(row) for row in rows}) > 1]


def _name(identity: Sequence[_Column], row: GridRow) -> str:
    """What a remark calls the row."""
    return " ".join(cell for column in identity if (cell := column.cell(row)) != NOTHING)


def _figures(run: RunResult, rows: Sequence[GridRow], threads: Sequence[int]) -> list[_Column]:
    """Every column that has something to say of these rows."""
    reference = "the other stack" if run.mode == "against" else "the float model"
    columns = [
        _Column("size", "size", lambda row: size_cell(row.first), spare=6),
        _Column("top-1", "top-1\n%", partial(_score, "top-1")),
        _Column("mAP", "mAP\n%", partial(_score, "mAP")),
        _Column("drop", "drop\npoints", _drop, legend=f"drop: lost against {reference}, in percentage points"),
        _Column(
            "agreement",
            "agree\n%",
            _agreement,
            spare=0,
            legend=f"agree: pictures with {reference}'s class",
        ),
    ]
    if any(row.score is not None and row.score.value is not None for row in rows):
        columns.pop()  # of labelled pictures the column before says it
    for count in threads:
        columns += _of_threads(run, count, lowest=count == threads[0])
    columns = [column for column in columns if any(column.cell(row) != NOTHING for row in rows)]
    return [*columns, _Column("verdict", "verdict", _verdict, number=False)]


def _of_threads(run: RunResult, count: int, *, lowest: bool) -> list[_Column]:
    """What there is to say of the cases with so many threads."""

    def cell(of_case: Callable[[CaseResult], str]) -> Callable[[GridRow], str]:
        def of_row(row: GridRow) -> str:
            case = row.with_threads(count)
            return NOTHING if case is None else of_case(case)

        return of_row

    of = f"t{count}\n"
    legend = "t1, t2, ...: with so many threads"
    columns = [
        _Column(
            f"first inference with {counted(count, 'thread')}",
            f"{of}first\nms",
            cell(first_inference_cell),
            spare=4 if lowest else 1,
            legend="first: first inference after loading",
        ),
        _Column(
            f"median with {counted(count, 'thread')}",
            f"{of}median\nms",
            cell(median_cell),
            spare=None if lowest else 3,
            legend=legend,
        ),
        _Column(
            f"gain of {count} threads",
            f"{of}gain",
            cell(_gain),
            spare=5,
            legend="gain: median with one thread / median with so many",
        ),
    ]
    if run.mode == "against":
        columns.append(
            _Column("ratio", f"{of}this /\nother", cell(ratio_cell), legend="this / other: median over the pairs of processes")
        )
    elif run.mode == "compare":
        columns.append(_Column("change", f"{of}change\n%", cell(change_cell), legend="change: of the median, since the baseline"))
    return columns


def _score(name: str, row: GridRow) -> str:
    return percent_cell(row.score.value if row.score is not None and row.score.name == name else None)


def _drop(row: GridRow) -> str:
    return points_cell(None if row.score is None else row.score.drop)


def _agreement(row: GridRow) -> str:
    return percent_cell(None if row.score is None else row.score.agreement)


def _gain(case: CaseResult) -> str:
    return NOTHING if case.thread_speedup is None else f"x{case.thread_speedup:.2f}"
