"""The machine's condition and its canary, read again and again in the course of a run by one light agent."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..devices import Condition
from ..outcome import StageFailed
from .condition import Disturbance, canary_of_session, load_by_others, stolen_share

if TYPE_CHECKING:
    from ..agent_process import AgentProcess
    from ..agent_role import AgentRole


_SECONDS_BETWEEN_READINGS = 3.0


class MachineWatch:
    """Reads the target of ``role`` while nothing else runs there: before measuring, between passes, after.

    A reading takes about a fifth of a second. Between readings its agent waits and uses no processor time. An agent that does not
    start, or dies, fails nothing: the watch ends with a remark, and what was read until then is kept.

    ``readings`` are the replies to the agent's ``canary`` verb, in their order; ``remarks`` are sentences for the user.
    """

    def __init__(self, role: AgentRole) -> None:
        self.readings: list[dict[str, Any]] = []
        self.remarks: list[str] = []
        self._agent: AgentProcess | None = None
        self._read_at = -math.inf
        self.pid: int | None = None  # the agent's
        recording = role.target.recording
        try:
            self._agent = role.start("canary")
            self.pid = int(self._agent.hello["pid"])
            if recording is not None:
                self.readings = [self._agent.canary() for _ in range(recording.readings)]
                self.close()
        except (StageFailed, OSError) as failure:  # OSError: no room for its log
            self._give_up(failure)

    def read(self) -> dict[str, Any] | None:
        """Take a reading; None where the watch has ended. What was recorded elsewhere is all read at the beginning."""
        if self._agent is None:
            return None
        try:
            reading = self._agent.canary()
        except StageFailed as failure:
            self._give_up(failure)
            return None
        self.readings.append(reading)
        self._read_at = time.monotonic()
        return reading

    def read_now_and_then(self) -> None:
        """Take a reading unless there was one a moment ago: passes over small models take less time than a reading is worth."""
        if time.monotonic() - self._read_at >= _SECONDS_BETWEEN_READINGS:
            self.read()

    def close(self) -> None:
        """End the agent. What was read stays."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    def _give_up(self, failure: Exception) -> None:
        self.remarks.append(f"the machine's condition was not watched to the end: {failure}")
        self.close()

    @property
    def before(self) -> Condition:
        """The condition at the first reading; unknown where there is none."""
        return Condition.from_facts(self.readings[0]["condition"]["before"]) if self.readings else Condition()

    @property
    def after(self) -> Condition:
        """The condition at the last reading; unknown where there is none."""
        return Condition.from_facts(self.readings[-1]["condition"]["after"]) if self.readings else Condition()

    def as_dict(self) -> dict[str, Any]:
        """What the session file keeps, plain JSON: all that a later run needs to compare its canary with this one's.

        ``kernel``, ``readings``, ``compute``, ``memory`` and their ``_spread`` as :func:`.condition.canary_of_session` says,
        absent where nothing was read; ``load_by_others``: the highest of all readings in cores; ``stolen``: the share of the processor
        time asked for that the hypervisor took from the first to the last reading; ``remarks``.
        """
        spans = [reading["condition"] for reading in self.readings]
        loads = [load_by_others(span["before"], span["after"], span["process_seconds"]) for span in spans]
        known = [load for load in loads if load is not None]
        return {
            **canary_of_session(self.readings),
            "load_by_others": max(known, default=None),
            "stolen": stolen_share(self.before.facts, self.after.facts),
            "remarks": list(self.remarks),
        }

    def disturbance(self) -> Disturbance:
        """What was going on beside the readings."""
        return Disturbance.of(reading["condition"] for reading in self.readings)

    def __enter__(self) -> MachineWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
