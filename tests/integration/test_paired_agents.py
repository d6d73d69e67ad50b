"""Pairs of real agents that take turns: a NumPy backend, on recorded clocks where a duration matters."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

from pytest_inference_gate import agent_process
from pytest_inference_gate.agent_process import Limits
from pytest_inference_gate.agent_role import AgentRole, RunningAgents
from pytest_inference_gate.artifacts import StoredArtifact
from pytest_inference_gate.cards import load_card
from pytest_inference_gate.cases import Case
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.paired_measuring import WARM_UP_ROUNDS, BlockPlan, Side, SideFailed, measure_pair
from pytest_inference_gate.preparation import PreparedInputs, load_arguments
from pytest_inference_gate.sweep import Plan
from pytest_inference_gate.targets.interpreter import InterpreterTarget

BACKEND = Path(__file__).parent / "linear_project" / "linear_backend.py"
CARD = """
name = "linear"
checkpoint = { format = "other", file = "linear.json" }
input = { shape = [4, 4, 1] }
preprocessing = { channel_order = "grayscale" }
labels = { count = 5 }
backends = { linear = ["fp32"] }
"""
WARM_UP = Plan(
    {"minimum_rounds": 4, "minimum_seconds": 0.0, "maximum_seconds": 0.05, "window": 2, "agreement": 1.0}, WARM_UP_ROUNDS
)


class Stacks:
    """Two stacks with one model each; what is given to :meth:`side` is what the model's file says besides its weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.running = RunningAgents()
        self.started: list[tuple[str, int]] = []  # which stack, and its process id, in the order of their start
        (folder / "card.toml").write_text(CARD)
        self.case = Case(load_card(folder / "card.toml", {"linear": ("fp32",)}), "linear", "fp32")
        path = folder / "inputs.npy"
        numpy.save(path, numpy.ones((3, 4, 4, 1), dtype=numpy.float32))
        self.inputs = PreparedInputs(path, "digest", 3, None)

    def side(self, name: str, recorded: list[float] | None = None, **model: Any) -> Side:
        python = self.folder / f"{name}-python"
        python.write_text(f'#!/bin/sh\nLINEAR_STACK={name} exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        payload = self.folder / name / "payload"
        payload.mkdir(parents=True)
        if recorded is not None:
            (self.folder / f"{name}.json").write_text(json.dumps(recorded))
            model["recorded"] = str(self.folder)
        (payload / "model.json").write_text(json.dumps({"weights": numpy.eye(16, 5).tolist(), **model}))
        role = AgentRole(self.target(name, python), Limits(), self.logs, self.running)
        return Side(role, self.case, StoredArtifact(name, payload.parent, {"model": "model.json"}, True, 1), self.inputs)

    def target(self, name: str, python: Path) -> InterpreterTarget:
        target = InterpreterTarget(python, {"linear": BACKEND})
        start_agent = target.start_agent

        def start_and_note(log: Path, limits: Limits) -> Any:
            agent = start_agent(log, limits)
            self.started.append((name, agent.hello["pid"]))
            return agent

        target.start_agent = start_and_note  # type: ignore[method-assign]
        return target


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts the processes that it killed for memory on the whole machine, and other tests may be among them."""
    monkeypatch.setattr(agent_process, "oom_kills", lambda: ())


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Stacks]:
    made = Stacks(tmp_path)
    yield made
    made.running.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [0, 1])
def test_a_pair_takes_turns_and_gives_the_ratio_of_its_stacks(stacks: Stacks, number: int) -> None:
    pair = measure_pair(
        stacks.side("this", [0.0105]),
        stacks.side("other", [0.0100]),
        number,
        WARM_UP,
        BlockPlan(pairs=6, rounds=3),
        "case.pair-1",
    )
    assert pair.ratio == pytest.approx(1.05)
    assert pair.block_ratios == pytest.approx([1.05] * 6)
    for side, median in ((pair.candidate, 0.0105), (pair.reference, 0.0100)):
        assert len(side.rounds) == 18  # of all blocks, and none of the warm-up
        assert side.median == pytest.approx(median)
        assert side.load > 0
        assert side.first_inference is not None
        assert side.peak_rss_bytes
    assert pair.seconds > 0
    assert all(gone(pid) for _, pid in stacks.started)
    # Who starts first alternates from pair to pair; each side has a log of its own.
    assert [name for name, _ in stacks.started] == (["this", "other"] if number == 0 else ["other", "this"])
    assert {path.name for path in stacks.logs.iterdir()} == {"case.pair-1.candidate.log", "case.pair-1.reference.log"}


def test_swapping_the_stacks_inverts_the_ratio(stacks: Stacks) -> None:
    one, other = stacks.side("this", [0.0105]), stacks.side("other", [0.0100])
    plan = BlockPlan(pairs=4, rounds=3)
    here = measure_pair(one, other, 0, WARM_UP, plan, "here").ratio
    there = measure_pair(other, one, 0, WARM_UP, plan, "there").ratio
    assert here == pytest.approx(1 / there)


def test_blocks_of_slow_models_are_short(stacks: Stacks) -> None:
    """The slower side decides for both, so that blocks at one index have equally many rounds."""
    pair = measure_pair(stacks.side("this", [0.001]), stacks.side("other", [0.04]), 0, WARM_UP, BlockPlan(pairs=2), "pair")
    assert len(pair.candidate.rounds) == len(pair.reference.rounds) == 2 * 2


@pytest.mark.parametrize("candidate", [True, False])
@pytest.mark.parametrize(("how", "kind"), [("fail", "load_error"), ("crash", "crash")])
def test_a_side_that_cannot_load_is_named_and_the_other_one_stopped(stacks: Stacks, candidate: bool, how: str, kind: str) -> None:
    bad, good = stacks.side("this", load=how), stacks.side("other")
    with pytest.raises(SideFailed) as caught:
        measure_pair(bad if candidate else good, good if candidate else bad, 1 - candidate, WARM_UP, BlockPlan(pairs=2), "pair")
    assert caught.value.candidate == candidate
    assert (caught.value.outcome.kind, caught.value.outcome.stage) == (kind, "load")
    assert len(stacks.started) == 1  # who starts first was the bad one
    assert all(gone(pid) for _, pid in stacks.started)


@pytest.mark.parametrize("candidate", [True, False])
def test_a_side_that_dies_between_its_blocks_is_named(stacks: Stacks, candidate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed after the warm-up, as the system does with whoever takes too much memory."""
    this, other = stacks.side("this"), stacks.side("other")
    rounds_of = BlockPlan.rounds_of

    def kill_and_go_on(plan: BlockPlan, seconds: float, pictures: int) -> int:
        psutil.Process(dict(stacks.started)["this" if candidate else "other"]).kill()
        return rounds_of(plan, seconds, pictures)

    monkeypatch.setattr(BlockPlan, "rounds_of", kill_and_go_on)
    with pytest.raises(SideFailed) as caught:
        measure_pair(this, other, 0, WARM_UP, BlockPlan(pairs=2, rounds=1), "pair")
    assert caught.value.candidate == candidate
    assert (caught.value.outcome.kind, caught.value.outcome.stage, caught.value.outcome.signal) == ("crash", "measure", "SIGKILL")
    assert all(gone(pid) for _, pid in stacks.started)


class TestBlockVerb:
    @pytest.fixture
    def loaded(self, stacks: Stacks) -> Iterator[Callable[[], Any]]:
        agents = []

        def start() -> Any:
            side = stacks.side("this")
            agent = side.role.start("block")
            agents.append(agent)
            agent.load(load_arguments(side.case, side.artifact))
            return agent

        yield start
        for agent in agents:
            agent.close()

    def measure(self, agent: Any, stacks: Stacks) -> Any:
        return agent.measure({"inputs": str(stacks.inputs.path), "warmup": dict(WARM_UP.warm_up), "rounds": dict(WARM_UP.rounds)})

    def test_gives_so_many_rounds_that_really_ran(self, loaded: Callable[[], Any], stacks: Stacks) -> None:
        agent = loaded()
        self.measure(agent, stacks)
        for count in (1, 7):
            begun = time.perf_counter()
            durations = agent.measure_block(count)
            assert len(durations) == count
            assert min(durations) > 0
            assert sum(durations) < time.perf_counter() - begun

    def test_without_a_model_is_an_error_of_measuring(self, stacks: Stacks) -> None:
        with stacks.side("this").role.start("block") as agent, pytest.raises(StageFailed, match="no model is loaded") as caught:
            agent.measure_block(1)
        assert (caught.value.outcome.kind, caught.value.outcome.stage) == ("run_error", "measure")

    def test_has_the_time_limit_of_measuring(self, loaded: Callable[[], Any], stacks: Stacks) -> None:
        """Ten million rounds, even of a matrix as small as this one, take many seconds."""
        agent = loaded()
        self.measure(agent, stacks)
        agent.limits = Limits({"measure": 0.1})
        with pytest.raises(StageFailed, match="measuring took longer than 0.1 s") as caught:
            agent.measure_block(10**7)
        assert (caught.value.outcome.kind, caught.value.outcome.stage) == ("timeout", "measure")
