"""The card's table ``[stream]``: frames that its models are run on, one after another, from decoding to the answer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StringConstraints

from ..streams.option import CAMERA
from .section import CardSection

DEFAULT_MAXIMUM_FRAMES = 300  # ten seconds of most videos

_NonEmpty = Annotated[str, StringConstraints(min_length=1)]
_Rate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class StreamSection(CardSection):
    """One of ``source`` (a video file or a folder of pictures beside the card, ``camera:0`` or ``camera:URL``) and ``url`` (of a
    video, or of an archive with one)."""

    source: _NonEmpty | None = None
    url: _NonEmpty | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None  # of the file
    member: _NonEmpty | None = None  # the video or the folder inside the archive
    frame_rate: _Rate | None = None  # pictures of a folder a second; of a video, instead of the times that it has itself
    resize: Literal["resize", "resize_and_crop"] | None = None  # of frames, instead of what [preprocessing] does to pictures
    pace: Literal["none", "frames"] = "none"  # each frame at once, or each at its own time
    budget_frames_per_second: _Rate | None = None  # at which frames come in real time, instead of at their own times
    overlap: Annotated[list[bool], Field(min_length=1)] = [False]  # decode and preprocess beside the inference: a case for each
    maximum_frames: PositiveInt = DEFAULT_MAXIMUM_FRAMES  # of the source; what comes after them is not looked at
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0  # how long a camera may deliver nothing

    @property
    def camera(self) -> str | None:
        """The number or the URL of the camera; None for files."""
        return self.source.removeprefix(CAMERA) if self.source is not None and self.source.startswith(CAMERA) else None


def stream_problems(section: StreamSection | None, directory: Path) -> Iterable[tuple[str, str]]:
    """What keys of the table demand of each other: the dotted key and a sentence."""
    if section is None:
        return
    given = [name for name in ("source", "url") if getattr(section, name) is not None]
    if not given:
        yield "stream", "found neither source nor url, expected one of them"
    elif len(given) > 1:
        yield "stream", "found source and url, expected only one of them"
    if section.camera is not None:
        if not section.camera:
            yield "stream.source", "found a camera without a name, expected a number such as 'camera:0' or a URL behind 'camera:'"
        if section.pace != "frames":
            yield "stream.pace", "found 'none' with a camera, which sets the pace itself; expected pace = 'frames'"
        for name in ("frame_rate", "budget_frames_per_second", "sha256"):
            if getattr(section, name) is not None:
                yield f"stream.{name}", "found a value, expected none with a camera: its frames come when they come"
    # os's, since Path's raises where nobody may look, or the name is too long.
    elif section.source is not None and section.frame_rate is None and os.path.isdir(directory / section.source):  # noqa: PTH112
        yield (
            "stream.frame_rate",
            "found nothing; a folder of pictures has no clock of its own, so it needs how many come in a second",
        )
    if section.member is not None and section.url is None:
        yield "stream.member", "found a value, expected none without url: it is a path inside an archive that is fetched"
    if len(set(section.overlap)) < len(section.overlap):
        yield "stream.overlap", "found a value twice, expected each of true and false at most once"
