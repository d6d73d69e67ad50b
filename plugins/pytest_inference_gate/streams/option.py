"""What ``--gate-stream`` names. Options are read in every run, so nothing is imported here that takes long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAMERA = "camera:"
_OVERLAPS: Mapping[str, list[bool]] = {"no": [False], "yes": [True], "both": [False, True]}
_PACES = ("none", "frames")
_RESIZES = ("resize", "resize_and_crop")


@dataclass(frozen=True)
class StreamOption:
    """What ``--gate-stream`` names: a path or ``camera:NAME``, and the keys of a card's ``[stream]`` that came with it, if any did."""

    source: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, absolute: Callable[[str], Path]) -> StreamOption:
        """``camera:0``, ``video.mp4``, ``video.mp4?overlap=both&pace=frames``, ``pictures/?frame_rate=15``.

        Raises ValueError with the end of a sentence.
        """
        if text.startswith(CAMERA):
            if text == CAMERA:
                raise ValueError("names no camera; expected one such as camera:0")
            return cls(text)
        name, _, query = text.partition("?")
        keys = dict(_key(part) for part in query.split("&") if part)
        path = absolute(name)
        try:
            there = path.exists()
        except (OSError, ValueError):  # a name that is too long, or with a NUL
            there = False
        if not there:
            raise ValueError("is neither a video, a folder of pictures nor a camera such as camera:0")
        if path.is_dir() and "frame_rate" not in keys:
            raise ValueError(f"is a folder, which has no clock of its own: give its frame rate, as in {name}?frame_rate=30")
        return cls(str(path), keys)


def _key(part: str) -> tuple[str, Any]:
    """One ``KEY=VALUE`` behind a source. Raises ValueError with the end of a sentence."""
    key, _, value = part.partition("=")
    if key == "overlap" and value in _OVERLAPS:
        return key, _OVERLAPS[value]
    if (key == "pace" and value in _PACES) or (key == "resize" and value in _RESIZES):
        return key, value
    if key in ("frame_rate", "budget_frames_per_second"):
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if 0 < rate <= 1000:
            return key, rate
        raise ValueError(f"has a {key} that is no number of more than 0 and at most 1000")
    raise ValueError(
        f"has {part!r} behind the source; expected frame_rate=30, pace={' or '.join(_PACES)}, overlap={', '.join(_OVERLAPS)}, "
        f"resize={' or '.join(_RESIZES)} or budget_frames_per_second=15"
    )
