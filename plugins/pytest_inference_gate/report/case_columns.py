"""The columns of the tables that have a row for each case."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..backends import CPU
from ..results import CaseResult
from .cells import (
    NOTHING,
    agreement_cell,
    baseline_cell,
    builds_cell,
    change_cell,
    drop_cell,
    first_inference_cell,
    interval_cell,
    median_cell,
    on_accelerator_cell,
    p90_cell,
    ratio_cell,
    size_cell,
    spread_cell,
    throughput_cell,
    top1_cell,
)
from .columns import Column
from .detections import map50_cell, map_cell, map_drop_cell, matched_cell
from .figures import millijoules

CaseColumn = Column[CaseResult]


def latency_columns(cases: Sequence[CaseResult], *, against: bool) -> list[CaseColumn]:
    """Every column that has something to say of these cases. ``against``: two stacks were measured in turns."""
    columns = identity_columns(cases)
    reference = "the other stack" if against else "the float model"
    figures = [
        CaseColumn("size", "size", size_cell, spare=4),
        CaseColumn("top-1", "top-1\n%", top1_cell, spare=6),
        CaseColumn("drop", "drop\npoints", drop_cell, legend=f"drop: top-1 lost against {reference}, in percentage points"),
        CaseColumn("agreement", "agree\n%", agreement_cell, spare=1, legend=f"agree: samples with {reference}'s class"),
        *_detection_columns(reference),
        CaseColumn("first inference", "first\nms", first_inference_cell, spare=3, legend="first: first inference after loading"),
        CaseColumn("median", "this\nms" if against else "median\nms", median_cell),
        CaseColumn("p90", "p90\nms", p90_cell, spare=2, legend="p90: nine inferences of ten took less"),
        CaseColumn(
            "spread over pictures",
            "over\npict. %",
            lambda case: spread_cell(case.latency.picture_spread if case.latency else None),
            spare=8,
            legend="over pict., over rounds: interquartile range / median, of the pictures' medians and of one picture's rounds",
        ),
        CaseColumn(
            "spread over rounds",
            "over\nrounds %",
            lambda case: spread_cell(case.latency.round_spread if case.latency else None),
            spare=7,
        ),
        CaseColumn("throughput", "samples\n/s", throughput_cell, spare=0),
    ]
    figures += compared_columns(against=against)
    figures.append(
        CaseColumn(
            "builds", "builds\n%", builds_cell, spare=6, legend="builds: by how much the slowest build is slower than the fastest"
        )
    )
    if all(case.batch == 1 for case in cases):
        figures = [column for column in figures if column.name != "throughput"]  # it would be the median in another unit
    figures.append(
        CaseColumn(
            "on accelerator",
            "on\naccel.",
            on_accelerator_cell,
            spare=8,
            legend="on accel.: operations that run on the accelerator",
        )
    )
    figures += _energy_columns(cases)
    columns += [column for column in figures if any(column.cell(case) != NOTHING for case in cases)]
    return [*columns, CaseColumn("verdict", "verdict", lambda case: str(case.verdict), number=False)]


def identity_columns(cases: Sequence[CaseResult]) -> list[CaseColumn]:
    """Those that tell which case a row is."""
    return [
        CaseColumn("model", "model", lambda case: case.model, number=False, identity=True),
        CaseColumn("backend", "backend", lambda case: case.backend, number=False, identity=True),
        CaseColumn("precision", "precision", lambda case: case.precision, number=False, identity=True),
        CaseColumn("batch", "batch", lambda case: str(case.batch), identity=True),
        CaseColumn("threads", "threads", lambda case: str(case.threads), identity=True),
        CaseColumn("variant", "variant", lambda case: case.variant or NOTHING, number=False, identity=True),
        CaseColumn("device", "device", _device_among(cases), number=False, identity=True),
    ]


def compared_columns(*, against: bool) -> list[CaseColumn]:
    """Those that hold a case's latency against the other stack's, or against its baseline's."""
    if against:
        return [
            CaseColumn("other stack", "other\nms", baseline_cell, spare=5, legend="this, other: medians of the two stacks"),
            CaseColumn("ratio", "this /\nother", ratio_cell, legend="this / other: median over the pairs of processes"),
            CaseColumn("interval", "95 %\ninterval", interval_cell, spare=7, legend="interval: of that ratio"),
        ]
    return [
        CaseColumn("baseline", "baseline\nms", baseline_cell, spare=5, legend="baseline: the median before"),
        CaseColumn("change", "change\n%", change_cell),
    ]


def _device_among(cases: Sequence[CaseResult]) -> Callable[[CaseResult], str]:
    """The cell of the case's device; nothing where all cases run on the CPU, as then it goes without saying."""
    told = any(case.device != CPU for case in cases)
    return lambda case: case.device if told else NOTHING


def _detection_columns(reference: str) -> list[CaseColumn]:
    """They show themselves where a case is a detector's."""
    return [
        CaseColumn("mAP", "mAP\n%", map_cell, legend="mAP, AP50: COCO's average precision, at IoU .5 to .95 and at .5"),
        CaseColumn("AP50", "AP50\n%", map50_cell, spare=1),
        CaseColumn("mAP drop", "drop\nmAP", map_drop_cell, legend=f"drop mAP: lost against {reference}, in percentage points"),
        CaseColumn(
            "matched", "matched\n%", matched_cell, spare=6, legend=f"matched: detections that have a partner among {reference}'s"
        ),
    ]


def _energy_columns(cases: Sequence[CaseResult]) -> list[CaseColumn]:
    """One for the rail of the whole board, or, where the device has none, for each of its rails."""
    rails = sorted({name for case in cases if case.telemetry is not None for name in case.telemetry.shown_rails})

    def cell(name: str) -> Callable[[CaseResult], str]:
        def energy(case: CaseResult) -> str:
            rail = None if case.telemetry is None else case.telemetry.rails.get(name)
            return NOTHING if rail is None else millijoules(rail.joules_per_inference)

        return energy

    if len(rails) == 1:
        (name,) = rails
        totals = {case.telemetry.total_rail for case in cases if case.telemetry is not None}
        of = f"of the whole board (rail {name})" if name in totals else f"on rail {name} alone, which is not the whole machine"
        return [CaseColumn("energy", "energy\nmJ", cell(name), spare=8, legend=f"energy: of one inference, {of}")]
    text = f"{', '.join(rails)}: energy of one inference on each rail; they may overlap, and none is the whole board"
    return [
        CaseColumn(f"energy of {name}", f"{name}\nmJ", cell(name), spare=-1, legend=text if name == rails[0] else "")
        for name in rails
    ]
