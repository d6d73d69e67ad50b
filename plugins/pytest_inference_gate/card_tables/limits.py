"""The card's table ``[limits]``: what its cases may take at most, and have to reach at least."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Annotated

from pydantic import Field, PositiveInt

from ..limits import KINDS
from .section import CardSection

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PrecisionLimits(CardSection):
    """The limits of one precision. Each key is a name of :data:`limits.KINDS`."""

    size_bytes: PositiveInt | None = None  # of the converted model
    first_inference_seconds: Positive | None = None  # after loading
    median_seconds: Positive | None = None
    build_seconds: Positive | None = None  # of the conversion, or of the engine on its device
    nodes_after: PositiveInt | None = None  # of the graph when it is converted
    peak_memory_bytes: PositiveInt | None = None  # of the process that runs the model
    frames_per_second: Positive | None = None  # that a stream reaches, in its last minute where it goes on for long
    dropped_share: Annotated[float, Field(ge=0, le=1)] | None = None  # of a stream's frames in real time
    sustained_slowdown: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = (
        None  # from the first minute to the last; 0.1: 10 %
    )
    thread_speedup: dict[str, Positive] = {}  # threads -> the least that one thread's median is to be of theirs


class Limits(PrecisionLimits):
    """``by_precision`` wins over what is said for all, key by key and thread count by thread count."""

    by_precision: dict[str, PrecisionLimits] = {}

    def of(self, precision: str, threads: int) -> dict[str, float]:
        """What holds for a case of this precision with so many threads, by name."""
        found: dict[str, float] = {}
        for table in (self, self.by_precision.get(precision, PrecisionLimits())):
            for name in KINDS:
                value = getattr(table, name)
                if isinstance(value, dict):
                    value = value.get(str(threads))
                if value is not None:
                    found[name] = float(value)
        return found

    @property
    def thread_counts(self) -> frozenset[int]:
        """The numbers of threads of which any precision's speed-up is limited."""
        tables: list[PrecisionLimits] = [self, *self.by_precision.values()]
        return frozenset(int(count) for table in tables for count in table.thread_speedup)


def limit_problems(limits: Limits, precisions: Collection[str]) -> Iterable[tuple[str, str]]:
    """What a card's limits lack, as key and sentence. ``precisions`` are those of its backends."""
    yield from _thread_problems("limits", limits)
    for precision, table in limits.by_precision.items():
        key = f"limits.by_precision.{precision}"
        if precision not in precisions:
            known = ", ".join(sorted(precisions))
            yield key, f"found a precision that this card's [backends] do not have; expected one of {known}"
        yield from _thread_problems(key, table)


def _thread_problems(key: str, limits: PrecisionLimits) -> Iterable[tuple[str, str]]:
    for count in limits.thread_speedup:
        # As it is written in a case's id: "02" would never be found.
        if not re.fullmatch(r"[2-9]|[1-9][0-9]{1,3}", count):
            yield f"{key}.thread_speedup", f'found {count!r}, expected a number of threads from 2 on, such as {{ "2" = 1.3 }}'
