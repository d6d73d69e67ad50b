"""Limits: what a card allows a case to take, or demands of it, whatever the baseline is.

A tolerance is relative: so much worse than before is still good. A limit is absolute, such as the bytes that a device's flash has room
for. It needs no baseline, so it is judged in every run, on the figures of this run alone: there is no test of significance in it, and
whoever sets a limit leaves room for the scatter of what is limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .atomic_files import size_text
from .wording import counted, seconds_in_words

Unit = Literal["bytes", "s", "nodes", "times", "%", "frames/s"]


@dataclass(frozen=True)
class LimitKind:
    """``found`` says the figure in words, with ``{}`` for its value and unit. ``least``: the limit is the least that is demanded, else the
    most that is allowed."""

    unit: Unit
    found: str
    least: bool = False


KINDS: Mapping[str, LimitKind] = {
    "size_bytes": LimitKind("bytes", "the model takes {}"),
    "first_inference_seconds": LimitKind("s", "the first inference takes {}"),
    "median_seconds": LimitKind("s", "an inference takes {}"),
    "build_seconds": LimitKind("s", "it takes {} to build"),
    "nodes_after": LimitKind("nodes", "its graph has {} after the conversion"),
    "peak_memory_bytes": LimitKind("bytes", "its process takes {} of memory"),
    "thread_speedup": LimitKind("times", "its threads make it {} as fast as one", least=True),
    "frames_per_second": LimitKind("frames/s", "the stream goes at {}", least=True),
    "dropped_share": LimitKind("%", "{} of the stream's frames are dropped in real time"),
    "sustained_slowdown": LimitKind("%", "the stream is {} slower at the end of its long run"),
}
"""By the name of the card's key."""


@dataclass(frozen=True)
class Figure:
    """What a limit is held against. ``value`` is ``None`` where it cannot be told; ``remark`` then says why, else what else there is to
    know of it."""

    value: float | None
    remark: str = ""


@dataclass(frozen=True)
class LimitResult:
    """One limit of a case, judged. ``found`` and ``limit`` are in ``unit``; ``found`` is ``None`` where it could not be told, which exceeds
    any limit. ``reason`` is a sentence."""

    name: str
    found: float | None
    limit: float
    unit: str
    exceeded: bool
    reason: str


def judge_limits(limits: Mapping[str, float], figures: Mapping[str, Figure]) -> tuple[LimitResult, ...]:
    """Each limit whose name has a figure, in the order of :data:`KINDS`.

    A figure of exactly the limit is within it. A limit without any figure is not judged: nobody asked for what it is about, such as a
    latency in a run that measures none. A figure that cannot be told exceeds its limit.
    """
    return tuple(_judge(name, limits[name], figures[name]) for name in KINDS if name in limits and name in figures)


def _judge(name: str, limit: float, figure: Figure) -> LimitResult:
    kind = KINDS[name]
    asks = f"the card {'demands at least' if kind.least else 'allows at most'}"
    if figure.value is None:
        reason = f"{asks} {value_in_words(limit, kind.unit)} ({name}), but {figure.remark}"
        return LimitResult(name, None, limit, kind.unit, exceeded=True, reason=reason)
    exceeded = not (figure.value >= limit if kind.least else figure.value <= limit)  # so that NaN exceeds it
    found, most = value_in_words(figure.value, kind.unit), value_in_words(limit, kind.unit)
    if exceeded and found == most:
        scale = 100 if kind.unit == "%" else 1
        found, most = f"{scale * figure.value:.9g} {kind.unit}", f"{scale * limit:.9g} {kind.unit}"
    remark = f" ({figure.remark})" if figure.remark else ""
    reason = f"{kind.found.format(found)}{remark}, and {asks} {most}"
    return LimitResult(name, figure.value, limit, kind.unit, exceeded, reason)


def value_in_words(value: float, unit: str) -> str:
    """Such as ``"409.1 kB"``, ``"12.3 ms"``, ``"1.02 times"``."""
    if unit == "bytes":
        return size_text(round(value))
    if unit == "s":
        return seconds_in_words(value)
    if unit == "nodes":
        return counted(round(value), "node")
    if unit == "%":
        return f"{100 * value:.3g} %"
    return f"{value:.3g} {unit}"
