"""Turns raw data into decisions, by the gate's own rules and by those of other tools.

The decisions of one kind never share a candidate's process: each starts at the first pair that none before it has used, and takes from the
following pairs what the rule asks for, so that they can be counted as separate trials. (The stored gate's decisions do share baselines,
as the runs of a project do.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from raw_data import PairRecord, RawData, Rounds
from rules import Rule

from pytest_inference_gate.decision import LatencyDecision, decide
from pytest_inference_gate.paired_decision import decide_pairs
from pytest_inference_gate.paired_measuring import BlockPlan
from pytest_inference_gate.sequential import MOST
from pytest_inference_gate.verdict import RELAXABLE, Verdict, gate_is_red

FIRST = 5
PAIRED_TOLERANCE, STORED_TOLERANCE = 0.03, 0.05
BASELINE_SESSIONS = 5
SESSION_REPLICATES = 5
LONGEST = MOST * FIRST
ENOUGH = 2 * FIRST
"""The most pairs or replicates that a decision takes."""


@dataclass(frozen=True)
class Replayed:
    """One decision. ``pairs``: those it took, in order; ``seconds``: an estimate of what measuring for it alone would have cost, in s."""

    scenario: str
    level: str
    decision: LatencyDecision
    pairs: Sequence[PairRecord]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict

    @property
    def red(self) -> bool:
        """Called slower, for sure."""
        return self.verdict is Verdict.SLOWER

    @property
    def green(self) -> bool:
        return not gate_is_red(self.verdict)

    @property
    def undecided(self) -> bool:
        return self.verdict in RELAXABLE


def in_order(count: int, decide_on: Callable[[int, int, bool], LatencyDecision]) -> Iterator[tuple[int, int, LatencyDecision]]:
    """Final decisions on disjoint stretches of ``count`` values, each as (start, end, decision); ``end`` is the next one's start.

    ``decide_on(start, end, final)`` decides on the values of that stretch, and its ``wanted`` says how many more it takes. None is begun
    for which the values might not suffice to call anything slower. Where they end before a decision is clear, it is made as a run whose
    budget has ended makes it: left out, those that take long, since they are not clear, would be missing.
    """
    start = 0
    while start + ENOUGH <= count:
        end = start + 1
        while (decision := decide_on(start, end, False)).wanted > 0:
            if end + decision.wanted > count:
                end = count
                decision = decide_on(start, end, True)
                break
            end += decision.wanted
            if end > start + LONGEST:
                raise ValueError(f"a rule wants {end - start} values for one decision, and at most {LONGEST} were expected")
        yield start, end, decision
        start = end


def paired(data: RawData, scenario: str, level: str, tolerance: float = PAIRED_TOLERANCE) -> list[Replayed]:
    """The paired gate, on the block ratios of the pairs of a scenario at a level."""
    pairs = [pair for pair in data.of(scenario) if level in pair.blocks]
    ratios = [pair.ratio(level) for pair in pairs]
    return [
        Replayed(scenario, level, decision, pairs[start:end], sum(paired_seconds(pair) for pair in pairs[start:end]))
        for start, end, decision in in_order(
            len(pairs),
            lambda start, end, final: decide_pairs(ratios[start:end], tolerance=tolerance, first=FIRST, final=final),
        )
    ]


def stored(
    data: RawData, scenario: str, level: str, tolerance: float = STORED_TOLERANCE, sessions: int = BASELINE_SESSIONS
) -> list[Replayed]:
    """The stored gate: the candidate's replicates against the reference side of the latest ``sessions`` sessions before the first of them.

    What comes before there are so many sessions is left out.
    """
    baselines = Baselines(data, data.scenarios[scenario].reference)
    pairs = [pair for pair in data.of(scenario) if level in pair.candidate.replicates]
    while pairs and not baselines.before(pairs[0].session, sessions):
        del pairs[0]
    medians = [pair.candidate.replicate_median(level) for pair in pairs]

    def decide_on(start: int, end: int, final: bool) -> LatencyDecision:
        baseline = baselines.before(pairs[start].session, sessions)
        return decide(baseline, medians[start:end], tolerance=tolerance, first=FIRST, final=final)

    return [
        Replayed(scenario, level, decision, pairs[start:end], sum(stored_seconds(pair) for pair in pairs[start:end]))
        for start, end, decision in in_order(len(pairs), decide_on)
    ]


class Baselines:
    """The sessions of one model, as runs that saved them would have: the first five undisturbed replicates of each, medians in ns."""

    def __init__(self, data: RawData, side: str) -> None:
        found: dict[int, list[float]] = defaultdict(list)
        for pair in data.pairs:
            scenario = data.scenarios[pair.scenario]
            if (
                scenario.reference == side
                and not scenario.disturbed(pair.number)
                and len(found[pair.session]) < SESSION_REPLICATES
            ):
                found[pair.session].append(pair.reference.replicate_median("0"))
        self._sessions = {session: medians for session, medians in sorted(found.items()) if len(medians) == SESSION_REPLICATES}

    def before(self, session: int, count: int) -> list[list[float]]:
        """The latest ``count`` sessions before this one, oldest first; none where there are not so many."""
        earlier = [medians for number, medians in self._sessions.items() if number < session]
        return earlier[-count:] if len(earlier) >= count else []


@dataclass(frozen=True)
class Judged:
    """One comparison by another tool's rule."""

    scenario: str
    level: str
    red: bool
    candidates: Sequence[PairRecord]
    references: Sequence[PairRecord]


def by_rule(data: RawData, rule: Rule, scenarios: Sequence[str], level: str) -> list[Judged]:
    """What a user of the tool does: the run of today against that of last time.

    The candidate's processes of a session are taken ``rule.processes`` at a time, each lot against as many reference processes of the
    latest session before that has some left. No process is used twice.
    """
    left: dict[int, list[PairRecord]] = {}
    judged = []
    for session, pairs in _by_session(data, scenarios).items():
        candidates = [pair for pair in pairs if level in pair.candidate.replicates]
        for start in range(0, len(candidates) - rule.processes + 1, rule.processes):
            lot = candidates[start : start + rule.processes]
            references = _take(left, rule.processes)
            if references is None:
                break
            red = rule.is_slower([_rounds(pair, level) for pair in lot], [pair.reference.replicates["0"] for pair in references])
            judged.append(Judged(lot[0].scenario, level, red, lot, references))
        left[session] = list(pairs)
    return judged


def _rounds(pair: PairRecord, level: str) -> Rounds:
    return pair.candidate.replicates[level]


def _by_session(data: RawData, scenarios: Sequence[str]) -> dict[int, list[PairRecord]]:
    sessions: dict[int, list[PairRecord]] = defaultdict(list)
    for pair in data.pairs:
        if pair.scenario in scenarios:
            sessions[pair.session].append(pair)
    return dict(sorted(sessions.items()))


def _take(left: dict[int, list[PairRecord]], count: int) -> list[PairRecord] | None:
    for session in sorted(left, reverse=True):
        if len(left[session]) >= count:
            taken, left[session] = left[session][:count], left[session][count:]
            return taken
    return None


def stored_seconds(pair: PairRecord) -> float:
    """What the candidate's replicate alone would have cost: half of the pair, less its blocks and the rounds at other levels, in s.

    The start of two agents, their loading and warming up is half the candidate's.
    """
    others = sum(float(rounds.sum()) for level, rounds in pair.candidate.replicates.items() if level != _first_level(pair)) / 1e9
    return max(0.0, (pair.seconds - sum(_block_seconds(pair, level) for level in pair.blocks) - others) / 2)


def paired_seconds(pair: PairRecord) -> float:
    """What the pair would have cost without the replicates measured alone, and with blocks at one level only, in s."""
    alone = sum(float(rounds.sum()) for side in (pair.candidate, pair.reference) for rounds in side.replicates.values()) / 1e9
    surplus = sum(_block_seconds(pair, level) for level in list(pair.blocks)[1:])
    return max(0.0, pair.seconds - alone - surplus)


def _first_level(pair: PairRecord) -> str:
    return next(iter(pair.candidate.replicates))


def _block_seconds(pair: PairRecord, level: str) -> float:
    slowest = max(side.replicate_median(next(iter(side.replicates))) for side in (pair.candidate, pair.reference)) / 1e9
    rounds = BlockPlan().rounds_of(slowest)
    return rounds * sum(candidate + reference for candidate, reference in pair.blocks[level]) / 1e9
