"""A board that is reached over ssh: agents run there, and what they need is sent there once."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ..agent_archive import build_agent_archive
from ..atomic_files import describe_refusal
from ..errors import GateError
from ..outcome import Outcome, OutcomeKind, Stage, StageFailed
from .ssh_address import SshAddress
from .ssh_connection import ConnectionFailed, Greeting, SshConnection, in_shell
from .ssh_failures import last_line
from .ssh_files import BoardFiles, FilesRefused

if TYPE_CHECKING:
    from ..agent_process import AgentProcess, Limits

_Result = TypeVar("_Result")

OLDEST_PYTHON = (3, 6)
KEPT_SECONDS = 30 * 24 * 3600.0
KEPT_BYTES = 4 * 2**30
PATIENCE_SECONDS = 120.0  # a Jetson takes up to one and a half minutes to start
_MOST_LOSSES = 3
_CLOSING_SECONDS = 3.0  # for what a thread does there, at the end of a run
_MARKED_SECONDS = 3600.0  # well within file_store.NEVER_PRUNED_SECONDS
_NAMES_OF_PYTHON = ("python3", "python", "/usr/bin/python3", "/usr/local/bin/python3")
# Any Python from 2 on says this of itself; NumPy is looked for without importing it. A path is used as it was given: it may be a script
# that sets what a runtime there needs.
_LOOK_AT_PYTHON = (
    "import sys; v = tuple(sys.version_info[:3]);"
    ' n = v >= (3, 4) and __import__("importlib.util").util.find_spec("numpy") is not None;'
    ' p = sys.argv[1]; print("%d.%d.%d %d %s" % (v + (n, p if "/" in p else sys.executable)))'
)
_PYTHON_LINE = re.compile(r"(\d+)\.(\d+)\.(\d+) ([01]) (.+)")


class UnfitBoard(GateError):
    """The board has no Python that could run an agent; one sentence."""


@dataclass(frozen=True)
class FoundPython:
    """``numpy``: whether it has NumPy, without which no case can run."""

    version: tuple[int, int, int]
    numpy: bool
    path: str

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.path})"


@dataclass(frozen=True)
class _Board:
    """The board once all is there: ``agent`` and ``backends`` are paths on it, ``outbox`` a folder for what agents write."""

    files: BoardFiles
    python: str
    agent: str
    backends: Mapping[str, str]
    outbox: str
    watches_memory: bool


class SshTarget:
    """Agents on a board. ``notice`` gets what the user should read afterwards as well, ``progress`` what is only of the moment.

    ``patience``: for how many seconds a board that was lost may take to come back, such as after a restart.
    """

    is_here = False
    recording = None

    def __init__(
        self,
        address: SshAddress,
        extra_backends: Mapping[str, Path] = MappingProxyType({}),
        *,
        notice: Callable[[str], None] = lambda _: None,
        progress: Callable[[str], None] = lambda _: None,
        patience: float = PATIENCE_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self.extra_backends = dict(extra_backends)
        self.connection = SshConnection(address, environment=environment)
        self._notice = notice
        self._progress = progress
        self._patience = patience
        self._token = secrets.token_hex(8)
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._board: _Board | None = None
        self._greeting = Greeting(None)
        self._sent: dict[tuple[object, ...], str] = {}
        self._places = 0
        self._folders: set[str] = set()  # those of conversions
        self._losses = 0
        self._marked = time.monotonic()  # when the files there were last marked as used
        self._gone: StageFailed | None = None  # why it is not asked any more

    @property
    def name(self) -> str:
        return str(self.address)

    @property
    def key(self) -> str:
        return "\n".join([str(self.address), *(f"{name}={path}" for name, path in sorted(self.extra_backends.items()))])

    # ---------------------------------------------------------------- what a target does

    def start_agent(self, log: Path, limits: Limits) -> AgentProcess:
        from .ssh_agent import RemoteAgent

        board = self._ready(None)
        self._mark_as_used(board)
        if limits.memory_bytes is not None and not board.watches_memory:
            self._notice_once(
                f"{self.address.place} does not tell how much memory a process has: --gate-memory-limit is not watched there"
            )
        command = agent_command(board.python, board.agent, board.backends, limits.memory_bytes)
        try:
            local_command = self.connection.command(command)
        except ConnectionFailed as failure:
            self._fail("unreachable", str(failure), None)
        return RemoteAgent(self, local_command, log, replace(limits, memory_bytes=None))

    def _mark_as_used(self, board: _Board) -> None:
        """Now and then: another run may remove there what was not used for some hours, however long this one takes."""
        with self._lock:
            if time.monotonic() - self._marked < _MARKED_SECONDS:
                return
            self._marked = time.monotonic()
            for there in (board.agent, *board.backends.values(), *self._sent.values()):
                if there:
                    self._guarded(lambda: board.files.mark_as_used(there), "load")  # noqa: B023

    def put(self, path: Path) -> str:
        with self._lock:
            board = self._ready("load")
            key = _state_of(path)
            if key not in self._sent:
                self._sent[key] = self._guarded(lambda: board.files.put(path), "load")
            return self._sent[key]

    def place_for(self, path: Path) -> str:
        with self._lock:
            return self._new_place(self._ready("load"), path)

    def folder_for(self, path: Path) -> str:
        with self._lock:
            board = self._ready("convert")
            there = self._new_place(board, path)
            self._folders.add(there)
        self._guarded(lambda: board.files.new_folder(there), "convert")
        return there

    def _new_place(self, board: _Board, path: Path) -> str:
        self._places += 1
        return f"{board.outbox}/{self._places}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}"

    def fetch(self, there: str, path: Path) -> None:
        stage: Stage = "convert" if there in self._folders else "predict"
        board = self._ready(stage)
        self._guarded(lambda: board.files.get(there, path), stage)

    def close(self) -> None:
        """Remove what this run alone needed there, and end the connection. Nothing connects anew after it."""
        self._closing.set()  # a thread that waits for the board to come back gives up, and the lock
        if not self._lock.acquire(timeout=_CLOSING_SECONDS):  # one that sends a file ends with the connection
            self.connection.close()
            self._lock.acquire()
        try:
            if self._board is not None and self.connection.alive:
                with contextlib.suppress(ConnectionFailed, FilesRefused):
                    self._board.files.close_run(self._token)
            self._board = None
            self._gone = StageFailed(Outcome("unreachable", None, f"the connection to {self.address.place} was closed"))
            self.connection.close()
        finally:
            self._lock.release()

    # ---------------------------------------------------------------- failing

    def _fail(self, kind: OutcomeKind, message: str, stage: Stage | None) -> NoReturn:
        raise StageFailed(Outcome(kind, stage, message))

    def _guarded(self, act: Callable[[], _Result], stage: Stage) -> _Result:
        try:
            return act()
        except FilesRefused as failure:
            self._fail("storage_error", str(failure), stage)
        except ConnectionFailed as failure:
            self._fail("unreachable", self.why_lost(self.connection.number, after_silence=True) or str(failure), stage)

    def _notice_once(self, text: str) -> None:
        with self._lock:
            if (text,) not in self._sent:
                self._sent[(text,)] = ""
                self._notice(text)

    def why_lost(self, number: int, *, after_silence: bool = False) -> str | None:
        """Why something that used the connection of that number ended, with what became of the board; None where it still stands.

        ``after_silence``: asks the board, since a dead link shows itself only after a while. Waits for a board that is starting anew.
        """
        if self.connection.number != number:
            return f"the connection to {self.address.place} had been lost"
        if self.connection.survived() and not (after_silence and not self.connection.answers()):
            return None
        with self._lock:
            if self.connection.number != number:  # another thread was faster
                return f"the connection to {self.address.place} had been lost"
            sentence, boot = self.connection.lost(), self._greeting.boot
            self.connection.close()
            try:
                self._ready(None)
            except StageFailed as failure:
                return failure.outcome.message
            if boot is not None and self._greeting.boot not in (None, boot):
                return f"{sentence}: {self.address.place} was started anew meanwhile; see what its log says of that"
            return f"{sentence}; it came back"

    # ---------------------------------------------------------------- making ready

    def _ready(self, stage: Stage | None) -> _Board:
        """The board with all that it needs, connected anew where the connection was lost."""
        with self._lock:
            if self._gone is not None:
                raise self._gone
            if self._board is not None and self.connection.alive:
                return self._board
            try:
                lost = self._board is not None
                self._greeting = self._reconnect() if lost else self.connection.open()
                self._board = None
                self._sent.clear()
                self._board = self._set_up(first=not lost)
            except ConnectionFailed as failure:
                self._give_up("unreachable", str(failure), stage)
            except FilesRefused as failure:
                self._give_up("storage_error", str(failure), stage)
            except UnfitBoard as failure:
                self._give_up("load_error", str(failure), stage)
            return self._board

    def _give_up(self, kind: OutcomeKind, message: str, stage: Stage | None) -> NoReturn:
        self.connection.close()
        self._gone = StageFailed(Outcome(kind, stage, message))
        raise self._gone

    def _reconnect(self) -> Greeting:
        place = self.address.place
        if self._closing.is_set():
            raise ConnectionFailed(f"the connection to {place} was closed")
        self._losses += 1
        if self._losses > _MOST_LOSSES:
            raise ConnectionFailed(
                f"the connection to {place} was lost {self._losses} times: mend the link before measuring there"
            )
        self._notice(f"the connection to {place} was lost; trying for {self._patience:g} s to have it back")
        boot = self._greeting.boot
        deadline = time.monotonic() + self._patience
        while True:
            try:
                greeting = self.connection.open()
            except ConnectionFailed as failure:
                if time.monotonic() >= deadline:
                    raise ConnectionFailed(
                        f"the connection to {place} was lost and did not come back within {self._patience:g} s: {failure}"
                    ) from None
                if self._closing.wait(min(3.0, max(0.1, deadline - time.monotonic()))):
                    raise ConnectionFailed(f"the connection to {place} was lost, and was not wanted any more") from None
                continue
            if boot is not None and greeting.boot not in (None, boot):
                self._notice(f"{place} was started anew in the course of the run: its condition is not what it was before")
            return greeting

    def _set_up(self, *, first: bool) -> _Board:
        python, watches_memory = self._find_python()
        files = BoardFiles(self.connection, python.path, self.address.place, self._progress)
        outbox = files.open_run(self._token)
        if first:
            files.prune(KEPT_SECONDS, KEPT_BYTES)
        try:
            with tempfile.TemporaryDirectory(prefix="inference-gate-") as folder:
                agent = files.put(build_agent_archive(Path(folder) / "agent.pyz"))
        except OSError as error:
            place, remedy = Path(tempfile.tempdir or "/tmp"), "name another folder with TMPDIR"
            raise FilesRefused(describe_refusal(error, "write the agent", place, remedy=remedy)) from None
        backends = {name: files.put(Path(path).resolve()) for name, path in self.extra_backends.items()}
        return _Board(files, python.path, agent, backends, outbox, watches_memory)

    def _find_python(self) -> tuple[FoundPython, bool]:
        done = self.connection.run(in_shell(python_search(self.address.python)), seconds=60.0)
        lines = done.output.decode("utf-8", "replace").splitlines()
        found = choose_python(lines)
        place, named = self.address.place, self.address.python
        if isinstance(found, FoundPython):
            return found, "proc" in lines
        remedy = "name one with ssh://...?python=/path"
        if found:
            older = " and ".join(found)
            has = f"{named} on {place} is only" if named else f"{place} has only"
            raise UnfitBoard(f"{has} {older}, and the agent needs Python 3.6 or later: {remedy}")
        said = last_line(done.errors)
        because = f" ({said})" if said else ""
        if named:
            raise UnfitBoard(f"{named} on {place} is no Python that can be run{because}: correct the path")
        raise UnfitBoard(f"no Python was found on {place}{because}: install Python 3.6 or later there, or {remedy}")


def python_search(named: str | None) -> str:
    """A shell script that prints a line for each Python found, for :func:`choose_python`, and ``proc`` where memory can be watched."""
    names = [named, f"{named.rstrip('/')}/bin/python"] if named else _NAMES_OF_PYTHON
    # What a named one says when it does not start is for the user.
    hidden = "" if named else " 2>/dev/null"
    words = " ".join(f'"$HOME"/{shlex.quote(name[2:])}' if name.startswith("~/") else shlex.quote(name) for name in names)
    look = f'"$p" -c {shlex.quote(_LOOK_AT_PYTHON)} "$p"{hidden}'
    return f"for p in {words}; do {look}; done; if [ -r /proc/self/stat ]; then echo proc; fi"


def choose_python(lines: list[str]) -> FoundPython | list[str]:
    """The first Python that is new enough and has NumPy, else the first that is new enough, else what there is instead, in words."""
    found = []
    for line in lines:
        match = _PYTHON_LINE.fullmatch(line.strip())
        if match:
            version = (int(match[1]), int(match[2]), int(match[3]))
            found.append(FoundPython(version, match[4] == "1", match[5]))
    able = [python for python in found if python.version >= OLDEST_PYTHON]
    if able:
        return next((python for python in able if python.numpy), able[0])
    return list(dict.fromkeys(str(python) for python in found))


def agent_command(python: str, agent: str, backends: Mapping[str, str], memory_bytes: int | None) -> str:
    """The command that starts an agent there, for a login shell of any kind. It leaves with 128 + N where signal N ended the agent."""
    command = [python, "-u", "-X", "faulthandler", agent, "--guard"]
    if memory_bytes is not None:
        command += ["--memory-limit", str(memory_bytes)]
    for name, path in sorted(backends.items()):
        command += ["--backend", f"{name}={path}"]
    # The shell stays, to tell the signal, and keeps its own words ("Killed") out of the agent's log.
    return in_shell(f"exec 3>&2 2>/dev/null; ( exec {shlex.join(command)} ) 2>&3 3>&-; exit $?")


def _state_of(path: Path) -> tuple[object, ...]:
    """Different after each change of the file, or of any in the folder."""
    files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    states = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        states.append((str(file), state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(states)
