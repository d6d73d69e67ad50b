"""The watch over the machine, with real agents: those that read, that die, and that never start."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_inference_gate import agent_process
from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.agent_role import AgentRole, RunningAgents
from pytest_inference_gate.devices import Condition
from pytest_inference_gate.errors import GateError
from pytest_inference_gate.machine.condition import Disturbance, canary_shifts, load_by_others
from pytest_inference_gate.machine.watch import MachineWatch
from pytest_inference_gate.targets.interpreter import InterpreterTarget


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts the processes that it killed for memory on the whole machine, and other tests may be among them."""
    monkeypatch.setattr(agent_process, "oom_kills", lambda: ())


@pytest.fixture
def running() -> Iterator[RunningAgents]:
    agents = RunningAgents()
    yield agents
    agents.close()


@pytest.fixture
def role(tmp_path: Path, running: RunningAgents) -> AgentRole:
    return AgentRole(InterpreterTarget(), Limits(), tmp_path, running)


def test_readings_of_this_machine(role: AgentRole) -> None:
    with MachineWatch(role) as watch:
        first, second = watch.read(), watch.read()
    assert watch.readings == [first, second]
    assert first is not None and second is not None
    assert first["kernel"] == second["kernel"]
    assert min(reading[name] for reading in watch.readings for name in ("compute", "memory")) > 0
    span = first["condition"]
    assert span["process_seconds"] > 0
    assert load_by_others(span["before"], span["after"], span["process_seconds"]) is not None
    assert watch.before == Condition.from_facts(span["before"])
    assert watch.after == Condition.from_facts(second["condition"]["after"])
    kept = watch.as_dict()
    assert json.loads(json.dumps(kept)) == kept
    assert kept["remarks"] == watch.remarks == []
    assert kept["readings"] == 2
    assert kept["load_by_others"] >= 0
    assert [shift.kernel for shift in canary_shifts([kept], kept, 0.05)] == ["compute", "memory"]
    assert watch.disturbance().known == 2
    assert not psutil.pid_exists(watch.pid)
    assert watch.read() is None


def test_an_agent_that_dies_leaves_a_remark_and_what_was_read(role: AgentRole) -> None:
    with MachineWatch(role) as watch:
        assert watch.read() is not None
        os.kill(watch.pid, signal.SIGKILL)
        assert watch.read() is None
        assert watch.read() is None
    (remark,) = watch.remarks
    assert remark.startswith("the machine's condition was not watched to the end: the agent died of SIGKILL")
    assert "while running the canary" in remark
    assert len(watch.readings) == 1
    assert watch.as_dict()["remarks"] == [remark]


def test_an_agent_that_never_starts_leaves_a_remark(tmp_path: Path, running: RunningAgents) -> None:
    with MachineWatch(AgentRole(InterpreterTarget(tmp_path / "no-python"), Limits(), tmp_path, running)) as watch:
        assert watch.read() is None
    assert "no-python" in watch.remarks[0]
    assert watch.as_dict() == {"load_by_others": None, "stolen": None, "remarks": watch.remarks}
    assert watch.before.problems(watch.after) == []
    assert watch.disturbance() == Disturbance()


def test_a_folder_for_logs_that_cannot_be_written_is_no_error(tmp_path: Path, running: RunningAgents) -> None:
    (tmp_path / "file").write_text("")
    watch = MachineWatch(AgentRole(InterpreterTarget(), Limits(), tmp_path / "file", running))
    assert len(watch.remarks) == 1
    watch.close()


def test_what_ends_all_agents_ends_the_watch(role: AgentRole, running: RunningAgents) -> None:
    watch = MachineWatch(role)
    running.close()
    assert watch.read() is None
    assert len(watch.remarks) == 1
    watch.close()


def test_an_agent_that_came_up_while_all_were_stopped_is_stopped_too(role: AgentRole, running: RunningAgents) -> None:
    came: list[AgentProcess] = []
    start_agent = role.target.start_agent

    def stopped_meanwhile(*arguments: Any) -> AgentProcess:
        came.append(start_agent(*arguments))
        running.stop()
        return came[-1]

    role.target.start_agent = stopped_meanwhile  # type: ignore[method-assign]
    with pytest.raises(GateError, match="stopped"):
        role.start("late")
    assert not psutil.pid_exists(came[0].hello["pid"])


def test_a_replicate_says_what_its_own_process_used(linear_project, monkeypatch) -> None:
    linear_project.save()
    monkeypatch.undo()  # the project keeps the load of this machine out of its sessions
    (session,) = linear_project.sessions()
    (benchmark,) = [one for one in json.loads(session.read_text())["benchmarks"] if one["extra_info"].get("inference_gate")]
    conditions = benchmark["extra_info"]["inference_gate"]["condition"]
    assert conditions
    for condition in conditions:
        assert condition["process_seconds"] > 0
    assert Disturbance.of(conditions).known == len(conditions)
