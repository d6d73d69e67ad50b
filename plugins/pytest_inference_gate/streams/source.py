"""Where a case's frames come from: named by its card or by ``--gate-stream``, fetched where that is a URL, known by its
digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..card_tables.detection import detection_settings
from ..card_tables.stream import StreamSection
from ..errors import GateError
from .option import CAMERA, StreamOption

if TYPE_CHECKING:
    from ..cards import ModelCard
    from ..cases import Case
    from ..options import Settings

Kind = Literal["video", "folder", "camera"]


@dataclass(frozen=True)
class StreamSetting:
    """What makes a case a stream's: the card's table, or what ``--gate-stream`` made of it, and one value of its ``overlap``."""

    section: StreamSection
    overlap: bool = False

    @property
    def suffix(self) -> str:
        """What the case's id ends in."""
        return "stream_overlapped" if self.overlap else "stream"

    @property
    def in_real_time(self) -> bool:
        """Whether frames are really given at their own times."""
        return self.section.pace == "frames"


def stream_settings(card: ModelCard, option: StreamOption | None) -> list[StreamSetting]:
    """The stream settings of a card's cases; none where neither card nor option asks for streams."""
    section = card.stream
    if option is not None:
        kept = section.model_dump() if section is not None else {}
        for name in ("source", "url", "sha256", "member", "frame_rate"):
            kept.pop(name, None)
        changed: dict[str, Any] = {"source": option.source, **option.keys}
        if option.source.startswith(CAMERA):
            changed |= {"pace": "frames", "budget_frames_per_second": None}
        section = StreamSection.model_validate({**kept, **changed})
    return [] if section is None else [StreamSetting(section, overlap) for overlap in section.overlap]


@dataclass(frozen=True)
class StreamSource:
    """``path`` is that of a video or a folder on this machine; ``camera`` is the number or URL of one where the agent runs.

    ``digest`` is the SHA-256 of what the path holds, None of a camera.
    """

    kind: Kind
    path: Path | None = None
    camera: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{CAMERA}{self.camera}" if self.path is None else self.path.name


def find_source(
    card: ModelCard, section: StreamSection, settings: Settings, store_root: Path, progress: Callable[[str], None]
) -> StreamSource:
    """Have the frames on this machine. Raises a ``GateError`` where they are missing or not those that the card means."""
    from ..archives import tree_digest
    from ..cards import DataSource
    from ..zoo import fetch_data

    if section.camera is not None:
        return StreamSource("camera", camera=section.camera)
    wanted = DataSource(file=section.source, url=section.url, sha256=section.sha256, member=section.member)
    fetched = fetch_data(
        wanted,
        card,
        store_root=store_root,
        lock_file=card.directory / "checkpoints.lock.toml",
        mirror=settings.mirror,
        offline=settings.offline,
        progress=progress,
    )
    assert fetched.path is not None
    path = fetched.path
    if path.is_dir() and section.frame_rate is None:
        raise GateError(f"{card.path}: {path} is a folder, which has no clock of its own: set frame_rate in [stream].")
    return StreamSource("folder" if path.is_dir() else "video", path, digest=tree_digest(path))


def stream_arguments(case: Case, setting: StreamSetting, source: StreamSource, put: Callable[[Path], str]) -> dict[str, Any]:
    """What an agent's ``stream`` wants to know of the case; ``put`` is that of the agent's target."""
    section, card = setting.section, case.card
    preprocessing = card.preprocessing.model_dump(mode="json")
    detection = None
    if card.detection is not None:
        # How many detections are counted is what somebody would draw, and not what is evaluated, which begins near to nothing.
        detection = {**detection_settings(card, put), "shown_from": card.detection.matching_score}
    return {
        "source": {
            "kind": source.kind,
            "path": None if source.path is None else put(source.path),
            "camera": source.camera,
            "frame_rate": section.frame_rate,
            "maximum_frames": section.maximum_frames,
            "timeout": section.timeout_seconds,
        },
        "preprocessing": {**preprocessing, **({} if section.resize is None else {"resize": section.resize})},
        "input": {"shape": list(card.input.shape), "dtype": card.input.dtype, "layout": card.input.layout},
        "detection": detection,
        "overlap": setting.overlap,
        "pace": section.pace,
        "budget_frames_per_second": section.budget_frames_per_second,
    }
