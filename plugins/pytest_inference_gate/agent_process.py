"""The plugin's end of an agent: starts the process, speaks to it, limits its time and memory, and says how it died."""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, cast, get_args

from .agent.failures import speaks_of_memory
from .agent.protocol import VERSION, FrameDecoder, ProtocolError, encode_frame
from .atomic_files import describe_refusal
from .kernel_memory import oom_kills
from .outcome import Outcome, OutcomeKind, Stage, StageFailed

DEFAULT_SECONDS = {
    "start": 60.0,
    "probe": 60.0,
    "describe": 600.0,
    "convert": 1800.0,
    "load": 300.0,
    "predict": 1800.0,
    "measure": 600.0,
    "measure_block": 600.0,
    "stream": 600.0,
    "stream_block": 600.0,
    "canary": 60.0,
    "stop": 5.0,
}
_DOING = {
    None: "starting",
    "convert": "converting",
    "load": "loading the model",
    "predict": "predicting",
    "measure": "measuring",
}
_DOING_WITHOUT_A_STAGE = {"probe": "probing", "describe": "reading the model", "canary": "running the canary"}
_STAGE_OF_VERB = {"measure_block": "measure", "stream": "measure", "stream_block": "measure"}
_STAGES: tuple[str, ...] = get_args(Stage)
_KINDS: tuple[str, ...] = get_args(OutcomeKind)
_MEMORY_WATCH_SECONDS = 0.1
_MEMORY_WATCH_SECONDS_MEASURING = 1.0  # looking at processes costs time on the machine that is being measured
_LOG_TAIL_BYTES = 64 * 2**10
_LOG_LINES_IN_MESSAGE = 2


@dataclass(frozen=True)
class Limits:
    """``seconds`` per verb (missing ones take :data:`DEFAULT_SECONDS`); ``memory_bytes`` for an agent and its children together."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None

    def of(self, verb: str) -> float:
        return self.seconds.get(_STAGE_OF_VERB.get(verb, verb), DEFAULT_SECONDS[verb])


class _Ended(Exception):
    """The agent closed its pipe: it is dead or dying."""


class _OutOfTime(Exception):
    pass


class _OutOfMemory(Exception):
    def __init__(self, held: int) -> None:
        self.held = held


class _Starter:
    """Starts every agent from one thread that lives as long as this process.

    Agents ask Linux to kill them when the thread that started them ends, so a thread of a pool must not start them itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._pool: ThreadPoolExecutor | None = None

    def start(self, **arguments: Any) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():  # threads do not survive a fork
                self._pool, self._pid = ThreadPoolExecutor(1, thread_name_prefix="inference-gate-starter"), os.getpid()
        starting = self._pool.submit(lambda: subprocess.Popen(**arguments))
        try:
            return starting.result()
        except BaseException:
            # Ctrl-C reaches whoever waits, and not the start itself: nobody would own what that gives.
            if not starting.cancel():
                with contextlib.suppress(Exception):
                    _kill_group(starting.result())
            raise


_starter = _Starter()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and whatever it started, and collect it. Does nothing when it was collected already.

    The group is killed before its leader is collected: until then its number cannot belong to anybody else.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class AgentProcess:
    """A running agent. Leaving its context, or the end of this process in any way, ends the agent and all that it started.

    One request at a time; :meth:`close` may be called from any thread, and ends a request that another one is waiting for.

    Raises :class:`StageFailed` if ``command`` cannot be started or does not answer as an agent. ``environment`` replaces that of
    this process. Everything that the agent prints is appended to ``log``.
    """

    hello: Mapping[str, Any]

    def __init__(
        self, command: Sequence[str], log: Path, limits: Limits, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self.limits = limits
        self._number = 0
        self._busy = threading.Lock()
        self._decoder = FrameDecoder()
        self._failure: StageFailed | None = None  # why it is dead
        self._closed = False
        self._last_look = -math.inf  # the deadline after which the pipe was looked into once more
        self._oom_kills = self._kills_for_memory()
        with self._opened_log(command) as stream:
            self._log_start = stream.tell()
            try:
                self._process = _starter.start(
                    args=list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    bufsize=0,
                    start_new_session=True,  # Ctrl-C reaches the plugin alone, and the whole group can be killed at once
                    env=None if environment is None else dict(environment),
                )
            except OSError as error:
                self._closed = True
                message = f"cannot start {command[0]}: {error.strerror or error}; name the path of a Python that can be run"
                raise StageFailed(Outcome("load_error", None, message, log=log)) from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._finalizer = weakref.finalize(self, _kill_group, self._process)
        os.set_blocking(self._stdin.fileno(), False)
        with self._busy:
            self.hello = self._guarded(None, "start", self._receive_hello)

    def _opened_log(self, command: Sequence[str]) -> IO[bytes]:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            stream = self.log.open("ab", buffering=0)
            try:
                stream.write(f"$ {' '.join(command)}\n".encode("utf-8", "surrogateescape"))
            except BaseException:
                stream.close()
                raise
        except OSError as error:
            self._closed = True
            message = describe_refusal(
                error, f"write {self.log.name}", self.log.parent, remedy="name another folder with --gate-store"
            )
            raise StageFailed(Outcome("storage_error", None, message, advises=True)) from None
        return stream

    # ---------------------------------------------------------------- requests

    def probe(self) -> dict[str, Any]:
        return self.request("probe", {})

    def convert(self, arguments: Mapping[str, Any], *, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
        return self.request("convert", arguments, progress=progress)

    def load(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self.request("load", arguments)

    def predict(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self.request("predict", arguments)

    def measure(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self.request("measure", arguments)

    def measure_block(self, rounds: int, picture: int = 0) -> list[float]:
        """Durations in seconds of so many more rounds, after :meth:`measure` has warmed the model up; on the pictures from ``picture`` on,
        where that went through several in turn."""
        wish = {"rounds": rounds, "picture": picture} if picture else {"rounds": rounds}
        durations: list[float] = self.request("measure_block", wish)["rounds"]
        return durations

    def stream(
        self, arguments: Mapping[str, Any], *, seconds: float = 0.0, progress: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """Frames through the loaded model, see ``agent/stream.py``. ``seconds``: what the frames' own clock takes, beyond the limit."""
        return self.request("stream", arguments, seconds=seconds, progress=progress)

    def stream_block(self, rounds: int) -> list[float]:
        """Seconds of exactly so many more frames of the ``stream`` before it, as fast as they can be had."""
        durations: list[float] = self.request("stream_block", {"rounds": rounds})["rounds"]
        return durations

    def canary(self) -> dict[str, Any]:
        """Two small kernels timed, with the condition of the device before and after: see ``agent/canary.py``."""
        return self.request("canary", {})

    def request(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        seconds: float = 0.0,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """The result of ``verb``; ``seconds`` are allowed beyond its limit, where it is known that it takes them.

        Raises :class:`StageFailed`; after ``crash``, ``oom`` by kill and ``timeout`` the agent is gone.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("an agent serves one request at a time")
        try:
            if self._failure is not None:
                raise self._failure
            stage = cast("Stage | None", _STAGE_OF_VERB.get(verb, verb if verb in _STAGES else None))
            if self._closed:
                raise StageFailed(Outcome("crash", stage, "the agent was closed before it was asked", log=self.log))
            reply = self._guarded(stage, verb, lambda deadline: self._exchange(verb, arguments, progress, deadline), seconds)
        finally:
            self._busy.release()
        if reply.get("ok"):
            result: dict[str, Any] = reply["result"]
            return result
        error = reply["error"]
        kind = cast("OutcomeKind", error["kind"] if error["kind"] in _KINDS else "run_error")
        raise StageFailed(Outcome(kind, stage, error["message"], log=self.log))

    def _exchange(
        self, verb: str, arguments: Mapping[str, Any], progress: Callable[[str], None] | None, deadline: float
    ) -> dict[str, Any]:
        self._number += 1
        self._send(encode_frame({"id": self._number, "verb": verb, "arguments": dict(arguments)}), deadline)
        while True:
            message = self._receive(verb, deadline)
            if message.get("id") != self._number:
                raise ProtocolError(f"expected the reply number {self._number}, got {str(message)[:80]}")
            if message.get("event") == "progress":
                if progress is not None:
                    progress(str(message.get("message", "")))
                continue
            return message

    def _receive_hello(self, deadline: float) -> dict[str, Any]:
        hello = self._receive("start", deadline)
        if hello.get("event") != "hello" or hello.get("protocol") != VERSION:
            raise ProtocolError(f"expected the greeting of an agent of version {VERSION}, got {str(hello)[:80]}")
        return hello

    # ---------------------------------------------------------------- pipes

    def _send(self, frame: bytes, deadline: float) -> None:
        writable = select.poll()
        writable.register(self._stdin, select.POLLOUT)
        remaining = memoryview(frame)
        while remaining:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise _OutOfTime
            if not writable.poll(seconds * 1000):
                continue
            try:
                remaining = remaining[os.write(self._stdin.fileno(), remaining) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise _Ended from None

    def _receive(self, verb: str, deadline: float) -> dict[str, Any]:
        readable = select.poll()
        readable.register(self._stdout, select.POLLIN)
        measuring = verb.startswith(("measure", "stream", "canary"))
        watch = _MEMORY_WATCH_SECONDS_MEASURING if measuring else _MEMORY_WATCH_SECONDS
        while True:
            message = self._decoder.next_message()
            if message is not None:
                return message
            seconds = deadline - time.monotonic()
            if seconds <= 0:  # what came in time counts, even where this process was held up: one more look
                if self._last_look == deadline or not readable.poll(0):
                    raise _OutOfTime
                self._last_look = deadline
            if self.limits.memory_bytes is not None:
                seconds = min(seconds, watch)
            if readable.poll(max(1.0, seconds * 1000)):
                data = os.read(self._stdout.fileno(), 65536)
                if not data:
                    raise _Ended
                self._decoder.feed(data)
            elif self.limits.memory_bytes is not None:
                held = _memory_of_tree(self._process.pid)
                if held > self.limits.memory_bytes:
                    raise _OutOfMemory(held)

    # ---------------------------------------------------------------- the end

    def _guarded(
        self, stage: Stage | None, verb: str, act: Callable[[float], dict[str, Any]], more_seconds: float = 0.0
    ) -> dict[str, Any]:
        """``act(deadline)``; whatever ends it early ends the agent too, for what comes next on the pipe could not be trusted."""
        seconds = self.limits.of(verb) + more_seconds
        doing = _DOING_WITHOUT_A_STAGE.get(verb) or _DOING[stage]
        try:
            return act(time.monotonic() + seconds)
        except _OutOfTime:
            self._end()
            self._die_if_lost(stage, doing, None)
            self._die(stage, "timeout", f"{doing} took longer than {seconds:g} s, so the agent was stopped")
        except _OutOfMemory as excess:
            limit = self.limits.memory_bytes or 0
            message = (
                f"{doing} took {_size(excess.held)} of memory, more than the limit of {_size(limit)}, so the agent was stopped"
            )
            self._die(stage, "oom", message)
        except _Ended:
            self._die_of_natural_causes(stage, doing)
        except ProtocolError as error:
            self._die(stage, "crash", f"the agent does not speak the protocol while {doing}: {error}")
        except BaseException:
            self._end()
            raise

    def _die(self, stage: Stage | None, kind: OutcomeKind, message: str, signal_name: str | None = None) -> NoReturn:
        self._end()
        self._failure = StageFailed(Outcome(kind, stage, message, signal_name, self.log))
        raise self._failure

    def _die_of_natural_causes(self, stage: Stage | None, doing: str) -> NoReturn:
        stopped = self._closed  # by close() in another thread
        status = self._wait_for_exit()
        self._end()
        if stopped:
            self._die(stage, "crash", f"the agent was stopped while {doing}")
        self._die_if_lost(stage, doing, status)
        status = self._status_of_agent(status)
        tail = self._log_tail()
        words = _last_words(tail)
        if status < 0:
            name = _signal_name(-status)
            if -status == signal.SIGKILL and self._kills_for_memory() != self._oom_kills:
                self._die(stage, "oom", f"the system killed the agent for memory while {doing}{words}", name)
            kind: OutcomeKind = "oom" if speaks_of_memory(tail) else "crash"
            hint = ", which was sent by someone else" if -status == signal.SIGKILL else ""
            self._die(stage, kind, f"the agent died of {name}{hint} while {doing}{words}", name)
        kind = "oom" if speaks_of_memory(tail) else "crash"
        self._die(stage, kind, f"the agent left with the exit status {status} while {doing}{words}")

    # What is different where the process that was started here is only the near end of an agent elsewhere.

    def _status_of_agent(self, status: int) -> int:
        """The agent's exit status, negative for a signal, of that of the process here."""
        return status

    def _why_lost(self, status: int | None) -> str | None:  # noqa: ARG002  (here there is no connection to lose)
        """The sentence for a connection that is no more; ``status`` is None where there was no answer in time."""
        return None

    def _kills_for_memory(self) -> tuple[int, ...]:
        """Grows when the kernel under the agent kills a process for memory."""
        return oom_kills()

    def _die_if_lost(self, stage: Stage | None, doing: str, status: int | None) -> None:
        lost = self._why_lost(status)
        if lost is not None:
            self._die(stage, "unreachable", f"{lost} ({doing})")

    def _wait_for_exit(self) -> int:
        """Its exit status, negative for a signal. An agent that closed its pipe but lives on is killed."""
        deadline = time.monotonic() + DEFAULT_SECONDS["stop"]
        while time.monotonic() < deadline:
            # WNOWAIT leaves it uncollected, so that its group can still be killed safely.
            result = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if result is not None:
                return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
            time.sleep(0.01)
        _kill_group(self._process)
        return self._process.returncode

    def _end(self) -> None:
        self._closed = True
        self._finalizer()  # kills and collects, once
        self._stdin.close()
        self._stdout.close()

    def close(self) -> None:
        """End the agent: kindly if it is idle, at once if it is not. Does nothing the second time."""
        if not self._busy.acquire(blocking=False):
            # A thread waits for a reply. It gets the end of the pipe instead, and cleans up.
            self._closed = True
            if self._process.returncode is None:  # not collected yet, so that its number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            return
        try:
            if not self._closed:
                with contextlib.suppress(Exception):
                    self._exchange("stop", {}, None, time.monotonic() + self.limits.of("stop"))
                    self._wait_for_exit()
            self._end()  # does nothing the second time; another thread may only have killed it
        finally:
            self._busy.release()

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _log_tail(self) -> str:
        """The end of what this agent printed."""
        try:
            with self.log.open("rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._log_start, end - _LOG_TAIL_BYTES))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _last_words(tail: str) -> str:
    """What was printed last, to be added to a sentence. The stack that faulthandler prints tells where, not why: it is for the log."""
    printed, _, _ = tail.partition("\nFatal Python error: ") if not tail.startswith("Fatal Python error: ") else ("", "", "")
    lines = [re.sub(r"\s+", " ", line).strip() for line in printed.splitlines()]
    lines = [line if len(line) <= 200 else line[:199] + "…" for line in lines if line]
    return f"; it printed last: {' / '.join(lines[-_LOG_LINES_IN_MESSAGE:])}" if lines else ""


def _memory_of_tree(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    import psutil

    total = 0
    try:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    except psutil.Error:
        return 0
    return total
