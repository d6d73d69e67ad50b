"""An agent on a board: the process here is the ssh through which it speaks."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent_process import AgentProcess, Limits

if TYPE_CHECKING:
    from .ssh import SshTarget

_SIGNALS = range(129, 193)  # how a shell tells that a signal ended a command
_STATUS_OF_SSH = 255  # for its own failures
_KILLED_HERE = -signal.SIGKILL  # the ssh that did not end though its agent was silent for good


class RemoteAgent(AgentProcess):
    """Ends with its connection: the guard beside the agent sees to that on the board, and watches its memory."""

    def __init__(self, target: SshTarget, command: Sequence[str], log: Path, limits: Limits) -> None:
        self._target = target
        self._connection_number = target.connection.number
        super().__init__(command, log, limits, environment=target.connection.environment)

    def _status_of_agent(self, status: int) -> int:
        return 128 - status if status in _SIGNALS else status

    def _why_lost(self, status: int | None) -> str | None:
        if status not in (None, _STATUS_OF_SSH, _KILLED_HERE):
            return None
        return self._target.why_lost(self._connection_number, after_silence=status != _STATUS_OF_SSH)

    def _kills_for_memory(self) -> tuple[int, ...]:
        return ()  # those of this machine say nothing; the guard there says so in the log
