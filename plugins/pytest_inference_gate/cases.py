"""Cases: the rows of the result, one parametrized test id each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .backends import CPU
from .cards import ModelCard, PrecisionTolerance
from .streams.source import StreamSetting


@dataclass(frozen=True, repr=False)
class Case:
    """model x backend x precision x batch x threads x device (x variant).

    ``device`` is the name of the marker that selects the case: one of :data:`backends.Device`, or the marker that a plugin gave
    its backend. ``device_in_id``: it is not the first device of the backend, so that the id has to say which one it is. ``board``
    is the name of the board that the case is about, in a run with several: no part of the id, since a baseline is one board's
    anyway. ``stream`` makes it a stream's: its rounds are frames, from decoding to the answer.
    """

    card: ModelCard
    backend: str
    precision: str
    batch: int = 1
    threads: int = 1
    variant: str | None = None
    device: str = CPU
    device_in_id: bool = False
    board: str | None = None
    stream: StreamSetting | None = None

    @property
    def id(self) -> str:
        """The name by which baselines find the case: ``digits_cnn-tflite-int8-b1-t1``, ``m-torch-fp16-b1-t1-cuda``."""
        parts = [self.card.name, self.backend, self.precision, f"b{self.batch}", f"t{self.threads}"]
        if self.variant:
            parts.append(self.variant)
        if self.device_in_id:
            parts.append(self.device)
        if self.stream is not None:
            parts.append(self.stream.suffix)
        return "-".join(parts)

    @property
    def test_id(self) -> str:
        """The parameter of the case's tests, which tells it from all others of the run: ``digits_cnn-tflite-int8-b1-t1@nano``."""
        return self.id if self.board is None else f"{self.id}@{self.board}"

    @property
    def model(self) -> str:
        return self.card.name

    @property
    def pictures(self) -> int:
        """Through how many pictures its rounds go in turn; a stream's are frames, and have their own order."""
        return 1 if self.stream is not None else self.card.measuring.pictures

    @property
    def options(self) -> dict[str, Any]:
        """What the card asks of the backend; empty where it asks for nothing."""
        return self.card.options.of(self.backend)

    def __repr__(self) -> str:
        return f"<Case {self.test_id}>"


def tolerance_for(case: Case) -> PrecisionTolerance:
    """The card's tolerances for the case's precision."""
    tolerance = case.card.tolerance
    special = tolerance.by_precision.get(case.precision, PrecisionTolerance())
    return PrecisionTolerance(
        latency=special.latency if special.latency is not None else tolerance.latency,
        top1_drop=special.top1_drop if special.top1_drop is not None else tolerance.top1_drop,
        agreement=special.agreement if special.agreement is not None else tolerance.agreement,
        map_drop=special.map_drop if special.map_drop is not None else tolerance.map_drop,
        matched=special.matched if special.matched is not None else tolerance.matched,
    )
