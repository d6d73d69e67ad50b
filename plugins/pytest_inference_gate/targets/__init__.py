"""Where an agent runs: one small protocol, one module for each kind of place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..agent_process import AgentProcess, Limits


@dataclass(frozen=True)
class Recording:
    """How often each case was measured at most, and the machine's condition read, before the board was out of reach.

    ``builds``: the digest of what the board has built, by :func:`~pytest_inference_gate.preparation.build_name`.
    """

    replicates: int
    readings: int
    builds: Mapping[str, str] = field(default_factory=dict)


class Target(Protocol):
    """A place that can start agents, and the ways of files to it and back.

    On this machine a file's path is the same for an agent, so nothing is copied; elsewhere :meth:`put` sends it once. Each of the
    methods raises :class:`~pytest_inference_gate.outcome.StageFailed` where the place is out of reach or has no room.
    """

    @property
    def name(self) -> str:
        """What a user calls it."""

    @property
    def key(self) -> str:
        """Equal for targets that start equal agents."""

    @property
    def is_here(self) -> bool:
        """Whether its agents share processor, memory and disk with this process."""

    @property
    def recording(self) -> Recording | None:
        """What there is of a board that cannot be asked any more; ``None`` where agents run."""

    def start_agent(self, log: Path, limits: Limits) -> AgentProcess:
        """A new agent; what it prints is appended to ``log``, which is here."""

    def put(self, path: Path) -> str:
        """The path by which an agent finds the file, or the folder with all that is in it."""

    def place_for(self, path: Path) -> str:
        """The path that an agent shall write to, for what is wanted at ``path``."""

    def folder_for(self, path: Path) -> str:
        """An empty folder that an agent shall write to, for what is wanted in the folder ``path``, which is empty or not there yet."""

    def fetch(self, there: str, path: Path) -> None:
        """Have at ``path`` what an agent wrote to ``there``, as :meth:`place_for` or :meth:`folder_for` had named it: all or nothing."""

    def close(self) -> None:
        """Give back whatever is held open. No agent may be running any more."""
