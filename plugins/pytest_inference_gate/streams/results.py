"""What a stream showed, from what its replicates recorded: figures, no formatting, no decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from .clock import Drift, Window, drift, play
from .source import StreamSetting, StreamSource

STAGES = ("decode", "preprocess", "infer", "postprocess")
Drops = Literal["computed", "real"]
_WINDOWS = 20  # of either end of a long run, as agent/stream.py has them


@dataclass(frozen=True)
class StreamRecord:
    """What one agent process recorded of a stream. Seconds, one value for each frame that was worked on.

    * ``stages``: by the names of :data:`STAGES`; ``totals``: from taking a frame to its result; ``arrivals``: when each came by
      the frames' own clock, since the first one;
    * ``ages``: how old each was when its result was there, None where frames did not come at their own times;
    * ``answers``: the class on top, or the number of detections;
    * ``processed`` frames of ``offered`` in ``wall_seconds``, without those that starting the source anew took; ``elapsed``: with
      them;
    * ``windows`` and ``side``: of a long run, which keeps no single frames.
    """

    stages: Mapping[str, tuple[float, ...]]
    totals: tuple[float, ...]
    arrivals: tuple[float, ...]
    ages: tuple[float, ...] | None
    answers: tuple[int, ...]
    processed: int
    offered: int
    wall_seconds: float
    remarks: tuple[str, ...] = ()
    opencv: str = ""
    windows: tuple[Window, ...] = ()
    side: float = 0.0
    elapsed: float = 0.0

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> StreamRecord:
        """From an agent's reply to ``stream``."""
        windows = reply["windows"] or {"side": 0.0, "found": []}
        return cls(
            {stage: tuple(reply["stages"][stage]) for stage in STAGES},
            tuple(reply["rounds"]),
            tuple(reply["arrivals"]),
            None if reply["ages"] is None else tuple(reply["ages"]),
            tuple(reply["answers"]),
            reply["processed"],
            reply["offered"],
            reply["wall_seconds"],
            tuple(reply["remarks"]),
            reply["opencv"],
            tuple(Window(one["start"], one["frames"], one["median"]) for one in windows["found"]),
            windows["side"],
            reply["ended"] - reply["begun"],
        )

    @property
    def frames_per_second(self) -> float:
        return self.processed / self.wall_seconds

    def in_real_time(self, *, overlapped: bool) -> tuple[int, Sequence[float]]:
        """How many frames of ``offered`` are dropped in real time, and how old the others' results are: as it was, or
        computed."""
        if self.ages is not None:
            return self.offered - self.processed, self.ages
        stages = [self.stages[stage] for stage in STAGES]
        before = [decode + preprocess for decode, preprocess in zip(stages[0], stages[1], strict=True)]
        model = [infer + postprocess for infer, postprocess in zip(stages[2], stages[3], strict=True)]
        played = play(self.arrivals, before, model, overlapped=overlapped)
        return played.dropped, played.ages


@dataclass(frozen=True)
class SustainedResult:
    """A long run: how fast it was in all, and its end against its beginning."""

    seconds: float
    frames: int
    frames_per_second: float
    last_frames_per_second: float  # in the piece at the end that is compared with the beginning
    dropped_share: float | None  # None where frames did not come at their own times
    drift: Drift


@dataclass(frozen=True)
class StreamResult:
    """Of all replicates of a case. Durations in seconds.

    * ``stages``: the median time of each stage (of each replicate's median); ``shares``: of their sum; ``costliest``: the
      largest;
    * ``waiting``: what a frame's time is more than its stages', at the median: with overlap, for how long it lies ready;
    * ``frames``: how many were worked on in all; ``frames_per_second``: how many a second, the median over replicates;
    * ``dropped_share``: of the frames that came in real time; ``drops`` says whether frames really came at their own times, or
      what would have become of them was computed; ``age``: the median age of a result then;
    * ``source`` with its ``digest`` (None of a camera), ``pace``, ``budget_frames_per_second``: what the figures belong to.
    """

    source: str
    digest: str | None
    pace: str
    budget_frames_per_second: float | None
    overlapped: bool
    opencv: str
    frames: int
    stages: Mapping[str, float]
    waiting: float
    frames_per_second: float
    dropped_share: float
    drops: Drops
    age: float
    sustained: SustainedResult | None = None
    remarks: Sequence[str] = field(default_factory=tuple)

    @property
    def shares(self) -> dict[str, float]:
        total = sum(self.stages.values())
        return {stage: seconds / total for stage, seconds in self.stages.items()}

    @property
    def costliest(self) -> str:
        return max(self.stages, key=lambda stage: self.stages[stage])

    @property
    def settings(self) -> dict[str, Any]:
        """What two measurements need to have in common to be comparable."""
        return {"digest": self.digest, "pace": self.pace, "budget_frames_per_second": self.budget_frames_per_second}


def summarize_stream(
    setting: StreamSetting,
    source: StreamSource,
    records: Sequence[StreamRecord],
    sustained: StreamRecord | None = None,
) -> StreamResult:
    """One case's figures. Raises ValueError where there is none."""
    if not records:
        raise ValueError("there is no stream to summarize")
    stages = {stage: median(median(record.stages[stage]) for record in records) for stage in STAGES}
    waiting = median(
        median(
            total - sum(parts) for total, *parts in zip(record.totals, *(record.stages[stage] for stage in STAGES), strict=True)
        )
        for record in records
    )
    played = [record.in_real_time(overlapped=setting.overlap) for record in records]
    ages = [age for _, some in played for age in some]
    remarks = list(dict.fromkeys(remark for record in records for remark in record.remarks))
    return StreamResult(
        source=source.name,
        digest=source.digest,
        pace=setting.section.pace,
        budget_frames_per_second=setting.section.budget_frames_per_second,
        overlapped=setting.overlap,
        opencv=records[0].opencv,
        frames=sum(record.processed for record in records),
        stages=stages,
        waiting=max(0.0, waiting),
        frames_per_second=median(record.frames_per_second for record in records),
        dropped_share=sum(dropped for dropped, _ in played) / sum(record.offered for record in records),
        drops="computed" if records[0].ages is None else "real",
        age=median(ages),
        sustained=None if sustained is None else _sustained(sustained),
        remarks=remarks,
    )


def _sustained(record: StreamRecord) -> SustainedResult:
    real = record.ages is not None
    # A run ends a little after its time, within a window: what is counted begins where a window does, and so does the time for it.
    width = record.side / _WINDOWS
    begin = width * math.ceil((record.elapsed - record.side - 1e-9) / width)
    last = sum(window.frames for window in record.windows if window.start >= begin - 1e-9)
    # A model so slow that no frame was done in that piece is as fast as in the whole run, as far as that run can tell.
    last_rate = last / (record.elapsed - begin) if last else record.frames_per_second
    return SustainedResult(
        record.elapsed,
        record.processed,
        record.frames_per_second,
        last_rate,
        (record.offered - record.processed) / record.offered if real else None,
        drift(record.windows, record.side, record.elapsed),
    )
