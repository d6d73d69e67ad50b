"""Measuring two software stacks in turns: a pair of fresh processes that take short blocks of rounds in the order A B B A.

What drifts on the machine (a neighbour, the clock, the temperature) meets both sides of a block alike, so that the ratio of two
neighbouring blocks hardly knows of it. What differs from process to process (where its memory lies) does not cancel within a
pair, which is why several pairs of fresh processes are measured, and why the pair, not the block, is the unit of the decision.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from .agent_role import AgentRole
from .artifacts import StoredArtifact
from .cases import Case
from .label_count import check_loaded
from .outcome import Outcome, StageFailed
from .preparation import PreparedInputs, load_arguments
from .results import Replicate
from .streams.measuring import PAIR_FRAMES, stream_loaded
from .sweep import Plan, measure_loaded

if TYPE_CHECKING:
    from .agent_process import AgentProcess


@dataclass(frozen=True)
class BlockPlan:
    """How the two processes of a pair take turns.

    * ``pairs``: how many blocks each side gets.
    * A block has ``rounds`` rounds, more of a fast model until it takes ``shortest`` seconds (at most ``most_rounds``), fewer of
      a slow one so that it does not take much longer than ``longest`` seconds.
    """

    pairs: int = 16
    rounds: int = 5
    most_rounds: int = 100
    shortest: float = 0.01
    longest: float = 0.1

    @classmethod
    def of(cls, rounds: int | None) -> BlockPlan:
        """The default plan, or one that spreads exactly so many rounds of each side, or a few more, over its blocks."""
        plan = cls()
        return plan if rounds is None else cls(rounds=math.ceil(rounds / plan.pairs), shortest=0.0, longest=math.inf)

    def rounds_of(self, seconds: float, pictures: int = 1) -> int:
        """How many rounds a block has, of a model that takes so many seconds for one.

        Rounds that go through several pictures go on with each block where the one before it ended; all blocks together are whole cycles.
        """
        step = pictures // math.gcd(pictures, self.pairs)
        return math.ceil(self._rounds_of(seconds) / step) * step

    def _rounds_of(self, seconds: float) -> int:
        wanted = max(self.rounds, math.ceil(self.shortest / seconds))
        at_most = self.longest / seconds
        return max(1, min(wanted, max(self.rounds, self.most_rounds), wanted if math.isinf(at_most) else int(at_most)))


@dataclass(frozen=True)
class Side:
    """One of the two stacks with what it shall run: the interpreter for it, the case as it knows it, artifact and inputs;
    ``stream`` is what its agent's ``stream`` wants, and takes the place of the inputs."""

    role: AgentRole
    case: Case
    artifact: StoredArtifact
    inputs: PreparedInputs | None
    stream: Mapping[str, Any] | None = None

    def warm_up(self, agent: AgentProcess, plan: Plan, load_seconds: float, pictures: int) -> Replicate:
        """The warm-up and a few rounds; of a stream, its first frames."""
        if self.stream is not None:
            return stream_loaded(agent, self.stream, plan.warm_up, {"minimum": PAIR_FRAMES, "maximum": PAIR_FRAMES}, load_seconds)
        assert self.inputs is not None
        return measure_loaded(agent, self.role.target.put(self.inputs.path), plan, load_seconds, pictures=pictures)

    def measure_block(self, agent: AgentProcess, rounds: int, picture: int) -> list[float]:
        return agent.measure_block(rounds, picture) if self.stream is None else agent.stream_block(rounds)


@dataclass(frozen=True)
class ProcessPair:
    """What one pair of fresh processes measured. Each ``Replicate`` holds the rounds of all blocks of its side; ``block_ratios``
    are the medians of neighbouring blocks divided by each other, candidate / reference; ``seconds`` is what the pair cost.
    """

    candidate: Replicate
    reference: Replicate
    block_ratios: tuple[float, ...]
    seconds: float

    @property
    def ratio(self) -> float:
        """The pair's value: the median of its blocks' ratios, taken of the logarithms so that swapping the sides inverts it."""
        return math.exp(median(math.log(ratio) for ratio in self.block_ratios))


class SideFailed(StageFailed):
    """One side of a pair failed: ``candidate`` says which."""

    def __init__(self, outcome: Outcome, *, candidate: bool) -> None:
        super().__init__(outcome)
        self.candidate = candidate


def block_order(number: int, pairs: int) -> list[bool]:
    """Whose turn it is, ``True`` for the candidate: A B B A A B B A ..., begun by the reference in every second process pair."""
    first = number % 2 == 0
    order = []
    for pair in range(pairs):
        leading = first == (pair % 2 == 0)
        order += [leading, not leading]
    return order


def measure_pair(candidate: Side, reference: Side, number: int, warm_up: Plan, blocks: BlockPlan, log_name: str) -> ProcessPair:
    """Start both agents, load, warm up, let them take turns, stop. Raises :class:`SideFailed`.

    ``number`` counts the pairs of the case: it decides which side starts first.
    """
    start = time.perf_counter()
    sides = {True: candidate, False: reference}
    names = {True: "candidate", False: "reference"}
    pictures = candidate.case.pictures  # of both sides: neighbouring blocks are about the same ones
    agents: dict[bool, AgentProcess] = {}
    warmed: dict[bool, Replicate] = {}
    try:
        for is_candidate in block_order(number, 1):
            side = sides[is_candidate]
            with _as_side(is_candidate):
                agent = agents[is_candidate] = side.role.start(f"{log_name}.{names[is_candidate]}")
                loaded = agent.load(load_arguments(side.case, side.artifact, side.role.target.put))
                check_loaded(side.case, loaded)
                warmed[is_candidate] = side.warm_up(agent, warm_up, loaded["seconds"], pictures)
        rounds = blocks.rounds_of(max(one.median for one in warmed.values()), pictures)
        done = {True: 0, False: 0}

        def measure_block(is_candidate: bool) -> list[float]:
            picture = done[is_candidate] % pictures
            done[is_candidate] += rounds
            with _as_side(is_candidate):
                return sides[is_candidate].measure_block(agents[is_candidate], rounds, picture)

        taken = take_turns(measure_block, number, blocks.pairs)
    finally:
        for agent in agents.values():
            agent.close()
    ratios = tuple(median(mine) / median(other) for mine, other in zip(taken[True], taken[False], strict=True))
    pooled = {side: tuple(duration for block in taken[side] for duration in block) for side in (True, False)}
    return ProcessPair(
        replace(warmed[True], rounds=pooled[True]),
        replace(warmed[False], rounds=pooled[False]),
        ratios,
        time.perf_counter() - start,
    )


def take_turns(measure_block: Callable[[bool], list[float]], number: int, pairs: int) -> dict[bool, list[list[float]]]:
    """The blocks of each side, ``True`` the candidate's, in the order in which they were taken: those at one index are
    neighbours."""
    taken: dict[bool, list[list[float]]] = {True: [], False: []}
    for is_candidate in block_order(number, pairs):
        taken[is_candidate].append(measure_block(is_candidate))
    return taken


@contextlib.contextmanager
def _as_side(is_candidate: bool) -> Iterator[None]:
    try:
        yield
    except StageFailed as failure:
        raise SideFailed(failure.outcome, candidate=is_candidate) from failure


WARM_UP_ROUNDS: dict[str, Any] = {"minimum": 10, "minimum_seconds": 0.0, "maximum": 10}
"""After the warm-up of a pair only few rounds are needed: they say how long a round takes, and nothing is decided on them."""
