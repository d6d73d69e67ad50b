"""The collecting half of benchmarks/gate_power: what is kept when it is killed, whose turn it is, and work that is really added."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gate_power"))

import collect
from scenarios import MODELS, NONE, SCENARIOS, Scenario

GATE_POWER = Path(collect.__file__).parent


def test_scenarios_are_named_once_but_where_they_come_again_and_every_turn_has_one() -> None:
    by_name: dict[str, Scenario] = {}
    for scenario in SCENARIOS:
        first = by_name.setdefault(scenario.name, scenario)
        assert (first.candidate, first.reference, dict(first.levels)) == (
            scenario.candidate,
            scenario.reference,
            dict(scenario.levels),
        )
        assert set(scenario.stored_levels) <= set(scenario.levels)
        assert scenario.levels.get("0", NONE) == NONE
    assert {scenario.turn for scenario in SCENARIOS} == set(range(1, max(scenario.turn for scenario in SCENARIOS) + 1))
    assert {scenario.candidate for scenario in SCENARIOS if scenario.candidate == scenario.reference} == set(MODELS)


def test_a_line_that_was_cut_is_removed_and_its_session_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert collect._cut_and_count(path) == 0
    whole = "".join(json.dumps({"session": number}) + "\n" for number in (1, 1, 2))
    path.write_text(whole + '{"session":3,"blo')
    assert collect._cut_and_count(path) == 2
    assert path.read_text() == whole


class _Agent:
    def __init__(self, name: str, control: Path, told: list[tuple[str, Any]]) -> None:
        self._name, self._control, self._told = name, control, told

    def measure_block(self, rounds: int) -> list[float]:
        self._told.append((self._name, json.loads(self._control.read_text())))
        return [1e-3 if self._name == "reference" else 2e-3] * rounds


@pytest.mark.parametrize("number", [0, 1])
def test_each_level_has_a_block_of_the_reference_beside_it_and_comes_first_as_often_as_last(tmp_path: Path, number: int) -> None:
    control = tmp_path / "control.json"
    collector = collect.Collector(tmp_path, SimpleNamespace(), control, None)  # type: ignore[arg-type]
    scenario = next(scenario for scenario in SCENARIOS if len(scenario.levels) == 6)
    told: list[tuple[str, Any]] = []
    agents = {name: _Agent(name, control, told) for name in ("candidate", "reference")}
    blocks = collector._take_turns(scenario, number, agents, 3)
    assert {level: len(pairs) for level, pairs in blocks.items()} == dict.fromkeys(scenario.levels, collect.BLOCKS.pairs)
    assert all(pair == [2e6, 1e6] for pairs in blocks.values() for pair in pairs)
    first = dict.fromkeys(scenario.levels, 0)
    for start in range(0, len(told), 2):
        couple = told[start : start + 2]
        assert {name for name, _ in couple} == {"candidate", "reference"}  # neighbours
        assert all(control == NONE for name, control in couple if name == "reference")
        (added,) = [control for name, control in couple if name == "candidate"]
        (level,) = [level for level, of_level in scenario.levels.items() if dict(of_level) == added]
        first[level] += couple[0][0] == "candidate"
    assert set(first.values()) == {collect.BLOCKS.pairs // 2}


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The backend that adds work, on a clock that moves by one with each reading, around a runtime that takes 1000."""
    specification = importlib.util.spec_from_file_location("slowed_backend", GATE_POWER / "slowed_backend.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    clock = SimpleNamespace(now=0.0)

    def read() -> float:
        clock.now += 1.0
        return clock.now

    def infer() -> None:
        clock.now += 1000.0

    class Runner:
        inputs = outputs = ()
        set_inputs = get_output = None

        def __init__(self, *arguments: Any) -> None:
            self.infer = infer

        def prepared(self) -> Any:
            return infer

    monkeypatch.setattr(module, "_read", read)
    monkeypatch.setattr(module, "_inner", lambda: SimpleNamespace(Runner=Runner))
    monkeypatch.setenv("GATE_POWER_CONTROL", str(tmp_path / "control.json"))
    runner = module.Runner("model", "fp32", 1, 1, {})

    def durations(control: Any, count: int) -> list[float]:
        (tmp_path / "control.json").write_text(json.dumps(control))
        call = runner.prepared()
        found = []
        for _ in range(count):
            start = clock.now
            call()
            found.append(clock.now - start)
        return found

    return durations


def test_work_is_added_in_proportion_in_the_tail_or_at_the_start(slowed: Any) -> None:
    assert slowed(NONE, 3) == [1000.0] * 3
    assert slowed({"kind": "proportional", "share": 0.1}, 3) == pytest.approx([1100.0] * 3, abs=5)
    tail = slowed({"kind": "tail", "every": 4, "share": 1.0}, 8)
    assert [round(duration / 1000) for duration in tail] == [1, 1, 1, 2, 1, 1, 1, 2]


def test_a_slow_start_is_over_after_so_many_calls_of_the_process(slowed: Any) -> None:
    start = slowed({"kind": "start", "calls": 3, "share": 1.0}, 5)
    assert [round(duration / 1000) for duration in start] == [2, 2, 2, 1, 1]
