"""How the accuracy of a detector is shown: cells of the table, and the figures of a failing test."""

from __future__ import annotations

import textwrap

from ..accuracy_rule import AccuracyDecision
from ..detection.accuracy import ClassPrecision, DetectionFigures
from ..results import CaseResult, DetectionResult
from .cells import NOTHING, percent_cell, points_cell

_WIDTH = 100
_CLASSES_SHOWN = 8


def map_cell(case: CaseResult) -> str:
    return percent_cell(case.detection.figures.map if case.detection else None)


def map50_cell(case: CaseResult) -> str:
    return percent_cell(case.detection.figures.map50 if case.detection else None)


def map_drop_cell(case: CaseResult) -> str:
    return points_cell(case.detection.figures.drop if case.detection else None)


def matched_cell(case: CaseResult) -> str:
    return percent_cell(case.detection.figures.matched if case.detection else None)


def detection_rows(detection: DetectionResult, decision: AccuracyDecision, *, paired: bool) -> list[str]:
    """All figures of a failing test: of the whole set, of each class, and the pictures that lost most."""
    figures = detection.figures
    whose = "other stack's" if paired else "reference's"
    rows: list[tuple[str, str | None]] = [
        ("pictures", str(figures.n) if figures.objects is None else f"{figures.n}, with {figures.objects} objects"),
        ("mAP", _precision(figures.map, figures.map50, figures.map75, figures.ar100)),
        (
            whose,
            _precision(figures.reference_map, figures.reference_map50, figures.reference_map75, figures.reference_ar100),
        ),
        ("drop", None if figures.drop is None else f"{figures.drop:.4f}"),
        ("lost, won", None if figures.lost is None else f"{figures.lost}, {figures.won} objects"),
        ("p-value", None if decision.p_value is None else f"{decision.p_value:.2g}"),
        ("matched", _matched(figures)),
        ("pairs", _pairs(figures)),
        ("alone", _alone(figures)),
        ("NaN in", f"{figures.nan_count} pictures" if figures.nan_count else None),
    ]
    column = 13 if paired else 12
    compared = ["", "  compared with the other stack, picture by picture:"] if paired else [""]
    lines = [*compared, *(f"  {name:<{column}} {value}" for name, value in rows if value is not None)]
    lines += [f"  {name:<{column}} {value:.6g}" for name, value in detection.metrics.items()]
    lines += _classes(figures.classes, whose)
    if figures.worst:
        text = f"  pictures that lost most: {', '.join(figures.worst)}"
        lines += ["", *textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 4, break_long_words=False, break_on_hyphens=False)]
    return lines


def _precision(whole: float | None, at50: float | None, at75: float | None, recall: float | None) -> str | None:
    if whole is None:
        return None
    rest = ((name, value) for name, value in (("AP50", at50), ("AP75", at75), ("AR100", recall)) if value is not None)
    return f"{whole:.4f}  ({', '.join(f'{name} {value:.4f}' for name, value in rest)})"


def _matched(figures: DetectionFigures) -> str | None:
    if figures.matched is None:
        return None
    return (
        f"{100 * figures.matched:.2f} % of {figures.detections} and {figures.reference_detections} detections that score "
        f"{figures.matching_score:g} and more"
    )


def _pairs(figures: DetectionFigures) -> str | None:
    if figures.mean_iou is None or figures.score_drift_signed is None:
        return None
    return f"mean IoU {figures.mean_iou:.4f}, scores {figures.score_drift_signed:+.4f} on the mean"


def _alone(figures: DetectionFigures) -> str | None:
    if figures.lost_detections is None:
        return None
    return f"{figures.lost_detections} lost, {figures.new_detections} new, {figures.class_changes} of another class"


def _classes(classes: tuple[ClassPrecision, ...], whose: str) -> list[str]:
    known = [one for one in classes if one.ap is not None]
    if not known:
        return []
    shown = known[:_CLASSES_SHOWN]
    width = max(len("class"), *(len(one.name) for one in shown))
    lines = ["", "  AP of each class, the largest loss first", f"    {'class':<{width}}  {'AP':>6}  {whose:>13}  objects"]
    for one in shown:
        reference = NOTHING if one.reference_ap is None else f"{one.reference_ap:.4f}"
        lines.append(f"    {one.name:<{width}}  {one.ap:.4f}  {reference:>13}  {one.objects:>7}")
    left_out = len(known) - len(shown)
    return [*lines, f"    and {left_out} other class{'es' * (left_out > 1)}"] if left_out else lines
