"""What the proof puts side by side: identical twins, twins of which one does more work, and truly different models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NONE: Mapping[str, Any] = {"kind": "none"}

MOBILENET = "mobilenet_v2_224 int8, LiteRT"
MOBILENET_2_THREADS = "mobilenet_v2_224 int8, LiteRT, 2 threads"
MOBILENET_FP32 = "mobilenet_v2_224 fp32, LiteRT"
DIGITS = "digits_cnn fp32, LiteRT"
DIGITS_LONGER = "digits_cnn fp32, LiteRT, one more layer"
RESIDUAL = "digits_inverted_residual fp32, ONNX Runtime"
MODELS = (MOBILENET, DIGITS, RESIDUAL)


def _share(percent: int) -> Mapping[str, Any]:
    return {"kind": "proportional", "share": percent / 100} if percent else NONE


def _levels(*percents: int) -> dict[str, Mapping[str, Any]]:
    return {str(percent): _share(percent) for percent in percents}


@dataclass(frozen=True)
class Scenario:
    """One thing to decide on, again and again.

    * ``candidate`` and ``reference``: names of the workload's sides;
    * ``levels``: what the candidate does in addition, by name; ``"0"`` is nothing;
    * ``stored_levels``: those at which the candidate is also measured alone, besides ``"0"``; ``first``: the level at which it does so
      from its first inference on;
    * ``passes``: process pairs in a session; ``turn``: which session of the cycle it belongs to;
    * ``disturbed``: whether another program is at work during the pair of this number.
    """

    name: str
    candidate: str
    reference: str
    levels: Mapping[str, Mapping[str, Any]]
    passes: int
    turn: int
    stored_levels: tuple[str, ...] = ()
    first: str | None = None
    disturbed: Callable[[int], bool] = lambda _: False


def _twins(model: str, turn: int) -> Scenario:
    return Scenario(f"twins: {model}", model, model, _levels(0), 5, turn)


def _power(model: str, turn: int) -> Scenario:
    percents = (0, 3, 5, 8, 10, 20)
    stored = tuple(str(percent) for percent in percents if percent)
    return Scenario(f"power: {model}", model, model, _levels(*percents), 10, turn, stored)


_TAIL = {"tail": {"kind": "tail", "every": 20, "share": 1.0}}
_START = {"start": {"kind": "start", "calls": 30, "share": 1.0}}


def _sessions() -> Iterator[Scenario]:
    for turn in range(1, 12):
        make = _power if turn == 6 else _twins
        yield from (make(model, turn) for model in MODELS)
    yield Scenario("one thread less", MOBILENET, MOBILENET_2_THREADS, _levels(0), 10, 12)
    yield Scenario("float instead of int8", MOBILENET_FP32, MOBILENET, _levels(0), 10, 12)
    yield Scenario("one more layer", DIGITS_LONGER, DIGITS, _levels(0), 10, 12)
    yield Scenario("slow in the tail only", MOBILENET, MOBILENET, _TAIL, 10, 12, first="tail")
    yield Scenario("slow at the start only", MOBILENET, MOBILENET, _START, 10, 12, first="start")
    disturbances: dict[str, Callable[[int], bool]] = {
        "disturbed all the time": lambda _: True,
        "disturbed in every second pair": lambda number: number % 2 == 1,
    }
    for name, disturbed in disturbances.items():
        yield Scenario(name, MOBILENET, MOBILENET, _levels(0, 10), 10, 13, ("10",), disturbed=disturbed)


SCENARIOS: tuple[Scenario, ...] = tuple(_sessions())
"""Mostly twins, since false alarms are rare and take many decisions to count."""
