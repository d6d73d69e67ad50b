"""Where an agent runs: one small protocol, one module for each kind of place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..agent_process import AgentProcess, Limits


class Target(Protocol):
    """A place that can start agents."""

    @property
    def name(self) -> str:
        """What a user calls it."""

    @property
    def key(self) -> str:
        """Equal for targets that start equal agents."""

    def start_agent(self, log: Path, limits: Limits) -> AgentProcess:
        """A new agent. Raises :class:`~pytest_inference_gate.outcome.StageFailed` where none comes up."""
