"""What a card's limits on streams are held against."""

from __future__ import annotations

from ..limits import Figure
from .results import StreamResult


def stream_figures(stream: StreamResult) -> dict[str, Figure]:
    """By the names of the limits. Where a long run was asked for, it is its end that counts: what a warm device keeps up."""
    sustained = stream.sustained
    computed = "" if stream.drops == "real" else "computed from its frames' own times and what each took"
    if sustained is None:
        return {
            "frames_per_second": Figure(stream.frames_per_second),
            "dropped_share": Figure(stream.dropped_share, computed),
            "sustained_slowdown": Figure(None, "it did not go on for long: add --gate-sustained=SECONDS"),
        }
    dropped = stream.dropped_share if sustained.dropped_share is None else sustained.dropped_share
    remark = computed if sustained.dropped_share is None else f"in {sustained.seconds:.0f} s"
    return {
        "frames_per_second": Figure(
            sustained.last_frames_per_second, f"in the last {sustained.drift.side:.3g} s of its long run"
        ),
        "dropped_share": Figure(dropped, remark),
        "sustained_slowdown": Figure(sustained.drift.ratio - 1, f"in {sustained.seconds:.0f} s"),
    }
