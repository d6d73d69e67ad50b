"""The table of the streams: what a frame takes, where it goes, and what becomes of frames in real time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..results import CaseResult, RunResult
from ..streams.results import StreamResult
from ..verdict import Verdict
from ..wording import counted
from .case_columns import CaseColumn, compared_columns, identity_columns
from .cells import NOTHING, median_cell, p90_cell
from .figures import milliseconds
from .terminal import Markup, lines_of, no_markup


def stream_lines(run: RunResult, width: int = 100, markup: Markup = no_markup) -> list[str]:
    """A caption and one row for each stream that the run's device supports; no line at all where there is none."""
    streams = [case for case in run.cases if case.overlapped is not None]
    cases = [case for case in streams if case.verdict is not Verdict.UNSUPPORTED]
    if not cases:
        return []
    against = run.mode == "against"
    figures = [*_figures(cases, against=against), *compared_columns(against=against)]
    columns = [
        *identity_columns(cases),
        CaseColumn("overlap", "overlap", lambda case: "yes" if case.overlapped else "no", number=False, identity=True),
        *(column for column in figures if any(column.cell(case) != NOTHING for case in cases)),
        CaseColumn("verdict", "verdict", lambda case: str(case.verdict), number=False),
    ]
    return lines_of(columns, cases, run, width, markup, counted(len(streams), "stream"))


def _figures(cases: Sequence[CaseResult], *, against: bool) -> list[CaseColumn]:
    shown = [case.stream for case in cases if case.stream is not None]
    computed = any(stream.drops == "computed" for stream in shown)
    how = "in real time, computed from their own times" if computed else "which came at their own times"
    return [
        CaseColumn(
            "frame time",
            "this\nms" if against else "frame\nms",
            median_cell,
            legend=f"{'this' if against else 'frame'}: from decoding to the answer",
        ),
        CaseColumn("p90", "p90\nms", p90_cell, spare=4),
        *(_stage(stage, header, spare) for stage, header, spare in _STAGES),
        CaseColumn("costliest stage", "costliest", _of(costliest), number=False),
        CaseColumn("frames per second", "frames\n/s", _of(lambda stream: f"{stream.frames_per_second:.4g}")),
        CaseColumn(
            "dropped",
            "dropped\n%",
            _of(lambda stream: f"{100 * stream.dropped_share:.1f}"),
            legend=f"dropped: of the frames {how}",
        ),
        CaseColumn(
            "age",
            "age\nms",
            _of(lambda stream: milliseconds(stream.age)),
            spare=5,
            legend="age: of a frame in real time, when its answer is there",
        ),
        CaseColumn(
            "sustained",
            "last /\nfirst",
            _of(lambda stream: NOTHING if stream.sustained is None else f"{stream.sustained.drift.ratio:.3f}"),
            legend="last / first: frame times at the end of the long run over those at its beginning",
        ),
    ]


_STAGES = (
    ("decode", "decode\nms", 2),
    ("preprocess", "prep.\nms", 1),
    ("infer", "infer\nms", 3),
    ("postprocess", "post.\nms", 0),
)


def _stage(stage: str, header: str, spare: int) -> CaseColumn:
    return CaseColumn(stage, header, _of(lambda stream: milliseconds(stream.stages[stage])), spare=spare)


def _of(cell: Callable[[StreamResult], str]) -> Callable[[CaseResult], str]:
    return lambda case: NOTHING if case.stream is None else cell(case.stream)


def costliest(stream: StreamResult) -> str:
    """The stage that costs most and its share: ``decode 61 %``."""
    return f"{stream.costliest} {100 * stream.shares[stream.costliest]:.0f} %"


def stream_rows(stream: StreamResult) -> list[tuple[str, str]]:
    """Name and text of each row on a stream in the message of a failing test."""
    frames = f"{counted(stream.frames, 'frame')} of {stream.source}, {stream.frames_per_second:.4g} a second"
    parts = [f"{stage} {milliseconds(seconds, 4)} ms" for stage, seconds in stream.stages.items()]
    if stream.overlapped:
        parts.append(f"waiting {milliseconds(stream.waiting, 4)} ms")
    real = "" if stream.drops == "real" else ", computed from their own times"
    rows = [
        ("frames", frames),
        ("stages", f"{', '.join(parts)}; most: {costliest(stream)}"),
        ("real time", f"{100 * stream.dropped_share:.1f} % dropped, answers {milliseconds(stream.age, 4)} ms old{real}"),
    ]
    if stream.sustained is not None:
        drift = stream.sustained.drift
        chance = "too short to tell from chance" if drift.p_value is None else f"p = {drift.p_value:.2g}"
        rows.append(
            (
                "long run",
                f"{stream.sustained.seconds:.0f} s: last {drift.side:.3g} s / first {drift.side:.3g} s = {drift.ratio:.3f} "
                f"({milliseconds(drift.first_median, 4)} -> {milliseconds(drift.last_median, 4)} ms, {chance})",
            )
        )
    return rows
