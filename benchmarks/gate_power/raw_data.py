"""Reads what ``collect.py`` wrote, and refuses what cannot be one machine's whole and undamaged data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import numpy.typing
from scenarios import SCENARIOS, Scenario

Rounds = numpy.typing.NDArray[numpy.int64]
"""The rounds of one process in the order in which they were taken, in ns."""


class DataError(Exception):
    """One sentence on what is wrong with the raw data, and what to do."""


@dataclass(frozen=True)
class SideRecord:
    """One process of a pair. ``load`` and ``first_inference`` in s; ``replicates``: its rounds measured alone, by level."""

    load: float
    first_inference: float
    steady: bool
    replicates: Mapping[str, Rounds]
    _medians: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def replicate_median(self, level: str) -> float:
        """The replicate's statistic, in ns."""
        if level not in self._medians:
            self._medians[level] = float(numpy.median(self.replicates[level]))
        return self._medians[level]


@dataclass(frozen=True)
class PairRecord:
    """One line of the raw data. ``blocks``: by level, (candidate's, reference's) block medians in ns; ``seconds``: all of it."""

    session: int
    scenario: str
    number: int
    time: float
    candidate: SideRecord
    reference: SideRecord
    blocks: Mapping[str, Sequence[tuple[float, float]]]
    seconds: float
    monotonic: float
    machine: Any

    @property
    def key(self) -> tuple[int, str, int]:
        return self.session, self.scenario, self.number

    def ratio(self, level: str) -> float:
        """The pair's value as the paired gate takes it: the median of its block ratios, candidate / reference, of their logarithms."""
        return math.exp(median(math.log(candidate / reference) for candidate, reference in self.blocks[level]))


@dataclass(frozen=True)
class RawData:
    """All pairs in the order in which they were taken, and the machine that they were taken on."""

    pairs: Sequence[PairRecord]
    machine: Mapping[str, Any]
    scenarios: Mapping[str, Scenario]

    def of(self, scenario: str) -> list[PairRecord]:
        return [pair for pair in self.pairs if pair.scenario == scenario]

    @property
    def sessions(self) -> int:
        return len({pair.session for pair in self.pairs})

    @property
    def boots(self) -> int:
        """How often the machine was started: its monotonic clock begins anew."""
        return 1 + sum(after.monotonic < before.monotonic for before, after in zip(self.pairs, self.pairs[1:], strict=False))


def read(directory: Path, scenarios: Iterable[Scenario] = SCENARIOS) -> RawData:
    """Raises :class:`DataError`. A last line without its end is being written right now, and left out."""
    known = {scenario.name: scenario for scenario in scenarios}
    machine = _machine(directory / "machine.json")
    path = directory / "pairs.jsonl"
    if not path.exists():
        raise DataError(f"{path} does not exist: take data first, with collect.py --data {directory}")
    pairs: list[PairRecord] = []
    with path.open("rb") as stream:
        for place, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                pair, cores = _pair(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                what = f"has no {error}" if isinstance(error, KeyError) else str(error)
                raise DataError(f"line {place} of {path} is damaged ({what}): remove it, or take the data anew") from None
            _belongs(pair, cores, place, path, machine, known, pairs)
            pairs.append(pair)
    if not pairs:
        raise DataError(f"{path} is empty: take data first, with collect.py --data {directory}")
    if len({pair.key for pair in pairs}) < len(pairs):
        seen: set[tuple[int, str, int]] = set()
        twice = next(pair.key for pair in pairs if pair.key in seen or seen.add(pair.key))  # type: ignore[func-returns-value]
        raise DataError(
            f"{path} holds pair {twice[2]} of {twice[1]!r} in session {twice[0]} twice: it is two collections in one file"
        )
    return RawData(pairs, machine, known)


def _machine(path: Path) -> Mapping[str, Any]:
    try:
        machine = json.loads(path.read_text())
        machine["device"]["online_cores"], machine["software"]["python"]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: which machine the data is of must be known") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): collect.py writes it anew when it goes on") from None
    assert isinstance(machine, dict)
    return machine


def _belongs(
    pair: PairRecord,
    cores: int | None,
    place: int,
    path: Path,
    machine: Mapping[str, Any],
    scenarios: Mapping[str, Scenario],
    before: Sequence[PairRecord],
) -> None:
    if pair.scenario not in scenarios:
        raise DataError(
            f"line {place} of {path} is of {pair.scenario!r}, which scenarios.py does not have: use a folder of its own"
        )
    other = f"line {place} of {path} is of another machine ({{}}): keep each machine's data in a folder of its own"
    online = machine["device"]["online_cores"]
    if cores is not None and cores != online:
        raise DataError(other.format(f"{cores} cores, machine.json has {online}"))
    if before and pair.machine != before[0].machine:
        raise DataError(other.format(f"{pair.machine}, the first line has {before[0].machine}"))
    if before and pair.session < before[-1].session:
        raise DataError(f"line {place} of {path} goes back to session {pair.session}: it is two collections in one file")


def _pair(line: Mapping[str, Any]) -> tuple[PairRecord, int | None]:
    """The record, and how many cores were online; ValueError and the like where something is missing or no measurement."""
    condition = line["condition"]["before"]
    blocks = {
        level: [(_positive(candidate), _positive(reference)) for candidate, reference in taken]
        for level, taken in line["blocks"].items()
    }
    if not blocks or not all(blocks.values()):
        raise ValueError("it has no blocks")
    record = PairRecord(
        session=int(line["session"]),
        scenario=str(line["scenario"]),
        number=int(line["number"]),
        time=float(line["time"]),
        candidate=_side(line["candidate"]),
        reference=_side(line["reference"]),
        blocks=blocks,
        seconds=_positive(line["seconds"]),
        monotonic=float(condition["monotonic"]),
        machine=line.get("machine"),
    )
    online = condition.get("online")
    return record, len(online) if online else None


def _side(side: Mapping[str, Any]) -> SideRecord:
    replicates = {level: numpy.asarray(rounds, dtype=numpy.int64) for level, rounds in side["replicates"].items()}
    if not replicates or any(rounds.ndim != 1 or not rounds.size or rounds.min() <= 0 for rounds in replicates.values()):
        raise ValueError("a replicate's rounds are missing or not positive")
    return SideRecord(_positive(side["load"]), _positive(side["first_inference"]), bool(side["steady"]), replicates)


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value} is no duration")
    return number
