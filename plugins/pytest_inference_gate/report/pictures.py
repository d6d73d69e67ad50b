"""What the rounds on several pictures say of single pictures: sentences for the message of a failing test."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import LatencyResult

_NAMED = 5


def picture_rows(latency: LatencyResult, limit: float) -> list[tuple[str, str]]:
    """Name and text of each row; none where all rounds were about one picture.

    ``limit`` is the ratio beyond which a case counts as slower. A single picture is judged by nothing: it is a hint where to look.
    """
    if latency.pictures == 1 or latency.picture_spread is None or latency.round_spread is None:
        return []
    spread = f"{latency.picture_spread:.1%}, the rounds of one picture by {latency.round_spread:.1%}"
    rows = [("pictures", f"{latency.pictures}: their medians spread by {spread}")]
    if len(latency.baseline_pictures) == latency.pictures:
        ratios = [after / before for after, before in zip(latency.picture_medians, latency.baseline_pictures, strict=True)]
        rows.append(("slower ones", _slower(ratios, max(limit, 1.0))))
    return rows


def _slower(ratios: Sequence[float], limit: float) -> str:
    slower = sorted((ratio, number) for number, ratio in enumerate(ratios) if ratio > limit)[::-1]
    if not slower:
        return f"none is slower by more than {limit:.3f} times ({min(ratios):.3f} to {max(ratios):.3f})"
    if len(slower) == len(ratios):
        return f"all of them, {min(ratios):.3f} to {max(ratios):.3f} times: not a matter of single pictures"
    named = ", ".join(f"number {number} ({ratio:.3f} times)" for ratio, number in slower[:_NAMED])
    more = f" and {len(slower) - _NAMED} more" if len(slower) > _NAMED else ""
    others = [ratio for ratio in ratios if ratio <= limit]
    return f"{len(slower)} of {len(ratios)}: {named}{more}; the others {min(others):.3f} to {max(others):.3f} times"
