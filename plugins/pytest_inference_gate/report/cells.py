"""What stands in the cells of the tables about a case: its figures, or :data:`NOTHING` where it has none."""

from __future__ import annotations

from ..atomic_files import size_text
from ..coverage import LIBRARIES
from ..results import CaseResult
from .figures import milliseconds, ratio_text

NOTHING = "-"


def size_cell(case: CaseResult) -> str:
    return NOTHING if case.artifact is None else size_text(case.artifact.size_bytes)


def percent_cell(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f}"


def points_cell(drop: float | None) -> str:
    """A drop in percentage points, without the sign of a zero."""
    return NOTHING if drop is None else f"{round(100 * drop, 2) + 0.0:.2f}"


def top1_cell(case: CaseResult) -> str:
    return NOTHING if case.accuracy is None else percent_cell(case.accuracy.figures.top1)


def drop_cell(case: CaseResult) -> str:
    return points_cell(None if case.accuracy is None else case.accuracy.figures.drop)


def agreement_cell(case: CaseResult) -> str:
    return NOTHING if case.accuracy is None else percent_cell(case.accuracy.figures.agreement)


def first_inference_cell(case: CaseResult) -> str:
    first = None if case.latency is None else case.latency.first_inference
    return NOTHING if first is None else milliseconds(first)


def median_cell(case: CaseResult) -> str:
    return NOTHING if case.latency is None else milliseconds(case.latency.median)


def p90_cell(case: CaseResult) -> str:
    return NOTHING if case.latency is None else milliseconds(case.latency.p90)


def throughput_cell(case: CaseResult) -> str:
    return NOTHING if case.latency is None else f"{case.latency.throughput:.4g}"


def spread_cell(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"


def builds_cell(case: CaseResult) -> str:
    spread = None if case.latency is None else case.latency.build_spread
    return NOTHING if spread is None else f"{100 * spread:.1f}"


def on_accelerator_cell(case: CaseResult) -> str:
    found = None if case.coverage is None else case.coverage.found
    if found is None or found.accelerator in LIBRARIES:
        return NOTHING
    return f"{found.on_accelerator}/{found.operations}"


def baseline_cell(case: CaseResult) -> str:
    decision = None if case.latency is None else case.latency.decision
    return NOTHING if decision is None else milliseconds(decision.baseline_median)


def change_cell(case: CaseResult) -> str:
    decision = None if case.latency is None else case.latency.decision
    return NOTHING if decision is None else f"{100 * (decision.ratio - 1):+.1f}"


def ratio_cell(case: CaseResult) -> str:
    decision = None if case.latency is None else case.latency.decision
    return NOTHING if decision is None else ratio_text(decision.ratio)


def interval_cell(case: CaseResult) -> str:
    interval = None if case.latency is None or case.latency.decision is None else case.latency.decision.interval
    return NOTHING if interval is None else f"{ratio_text(interval[0])} to {ratio_text(interval[1])}"
