"""How one stage of a case ended: well, or in one of the ways that need different next steps."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .errors import GateError

Stage = Literal["fetch", "convert", "load", "predict", "measure"]
OutcomeKind = Literal[
    "ok",
    "unsupported",  # this machine lacks the device or the runtime, or the backend has no such precision
    "fetch_error",  # the checkpoint or its data could not be had
    "build_error",  # the converter said no
    "load_error",  # the runtime does not take the artifact, or cannot be imported
    "run_error",  # inference raised an error
    "crash",  # the agent died of a signal or left with an exit status
    "oom",  # the agent was killed for memory, or said itself that memory was not enough
    "timeout",  # the stage did not end in its time
    "unreachable",  # the board could not be reached, or the connection to it was lost
    "storage_error",  # the board's disk is full, or nothing can be written there
]


@dataclass(frozen=True)
class Outcome:
    """The end of the last stage that a case reached.

    ``message`` is one sentence; ``signal`` is the name of the signal that killed the agent (``SIGSEGV``), if any; ``log`` is the
    file that holds everything that the agent printed. ``advises``: the message says what to do, and what else such an end calls for
    would lead astray.
    """

    kind: OutcomeKind
    stage: Stage | None = None
    message: str = ""
    signal: str | None = None
    log: Path | None = None
    advises: bool = False

    @property
    def ok(self) -> bool:
        return self.kind == "ok"

    @property
    def is_of_the_surroundings(self) -> bool:
        """Whether it says nothing of the case itself: a network, a disk or a cable is in the way, and tomorrow it may work."""
        return self.kind in ("fetch_error", "unreachable", "storage_error")


OK = Outcome("ok")


class StageFailed(GateError):
    """Raised where a stage of a case ends other than well; carries its :class:`Outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


@contextmanager
def room_on_disk(disk: str) -> Iterator[None]:
    """A disk that is full says nothing of the case: what fails in the block for that is no fault of the case's."""
    try:
        yield
    except StageFailed as failure:
        if os.strerror(errno.ENOSPC) not in failure.outcome.message:
            raise
        message = f"{disk} is full: free some space there, then run the case again"
        raise StageFailed(replace(failure.outcome, kind="storage_error", message=message, advises=True)) from None
