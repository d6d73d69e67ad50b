"""A target in one of its two roles, converter or runtime, with what its probe said; and all agents that a run has started."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .accelerators import MARKERS, target_markers
from .cases import Case
from .errors import GateError
from .outcome import Outcome, Stage, StageFailed
from .source_formats import source_format

if TYPE_CHECKING:
    from .agent_process import AgentProcess, Limits
    from .targets import Target


class RunningAgents:
    """Every agent of the run, so that none outlives it: not after Ctrl-C, not after an error in another thread; and every target."""

    def __init__(self) -> None:
        self._agents: set[AgentProcess] = set()
        self._targets: list[Target] = []
        self._lock = threading.Lock()
        self._stopped = False

    def add(self, agent: AgentProcess) -> None:
        with self._lock:
            if not self._stopped:
                self._agents.add(agent)
                return
        agent.close()
        raise GateError("the run was stopped")

    def close(self) -> None:
        with self._lock:
            agents, self._agents = self._agents, set()
        for agent in agents:
            agent.close()

    def stop(self) -> None:
        """Close all agents, and let none be started any more: threads that would go on with the next case end instead."""
        with self._lock:
            self._stopped = True
        self.close()

    def require_going(self) -> None:
        """Raise :class:`GateError` after :meth:`stop`."""
        if self._stopped:
            raise GateError("the run was stopped")

    def use(self, target: Target) -> None:
        """Close the target at the end of the run."""
        with self._lock:
            self._targets.append(target)

    def finish(self) -> None:
        """Close the agents, then the targets."""
        self.close()
        with self._lock:
            targets, self._targets = self._targets, []
        for target in targets:
            target.close()


@dataclass
class AgentRole:
    """Starts agents on ``target``, each with a log of its own in the folder ``logs``."""

    target: Target
    limits: Limits
    logs: Path
    running: RunningAgents
    probe: Mapping[str, Any] = field(default_factory=dict)

    def start(self, log_name: str) -> AgentProcess:
        """A new agent. Raises :class:`StageFailed` where none comes up."""
        self.running.require_going()
        agent = self.target.start_agent(self.logs / f"{log_name}.log", self.limits)
        self.running.add(agent)
        return agent

    def look(self, name: str) -> Outcome | None:
        """Probe the target once; why it cannot be used at all, ``None`` where it can. ``name`` is the role's, for its log."""
        try:
            with self.start(f"probe-{name}") as agent:
                self.probe = agent.probe()
        except StageFailed as failure:
            return failure.outcome
        return None

    def ask(self, name: str) -> None:
        """Probe the target once. Raises :class:`GateError` where it cannot be used at all; ``name`` is the role's."""
        failure = self.look(name)
        if failure is not None:
            raise GateError(f"{self.target.name} cannot be used as the {name}: {failure.message}")

    def backend(self, name: str) -> Mapping[str, Any]:
        """What the probe said of a backend; empty for one that the target does not know."""
        known: Mapping[str, Any] = self.probe["backends"].get(name, {})
        return known

    def takes(self, backend: str, source: str) -> bool:
        """Whether the backend converts from the format ``source`` here."""
        return source in self.backend(backend).get("source_formats", (source,))

    def require(self, case: Case, *, convert: bool, from_source: bool = True) -> None:
        """Raise ``unsupported`` where this target cannot convert, or run, the case's backend in its precision.

        To run a case takes its device too, and a device that is not there is told before a runtime that is not installed.
        ``from_source``: it must convert from the checkpoint's own format.
        """
        if not convert:
            self._require_device(case)
        backend = self.backend(case.backend)
        able, precisions = ("can_convert", "precisions_convert") if convert else ("can_run", "precisions_run")
        stage: Stage = "convert" if convert else "load"
        if not backend.get(able):
            reason = backend.get("reason") or (
                f"this agent has no backend {case.backend!r}"
                if case.backend not in self.probe["backends"]
                else f"{self.target.name} cannot {'convert to' if convert else 'run'} {case.backend}"
            )
            raise StageFailed(Outcome("unsupported", stage, reason))
        if case.precision not in backend.get(precisions, ()):
            raise StageFailed(Outcome("unsupported", stage, f"{case.backend} has no precision {case.precision}"))
        source = source_format(case.card.checkpoint)
        if convert and from_source and not self.takes(case.backend, source):
            reason = f"{self.target.name} has no converter from {source} to {case.backend}"
            why = backend.get("conversion_reason")
            raise StageFailed(Outcome("unsupported", stage, f"{reason}: {why}" if why else reason))

    def _require_device(self, case: Case) -> None:
        states = target_markers(self.probe.get("device") or {})
        for marker in MARKERS:
            if marker == case.device and not states[marker].present:
                raise StageFailed(Outcome("unsupported", "load", states[marker].reason))
