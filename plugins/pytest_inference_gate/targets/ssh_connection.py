"""One connection to a board, made by OpenSSH, through which everything goes: ControlMaster, with its socket in a private folder.

The master is an ssh of its own whose remote end waits for the end of its input, which this process holds open. So the connection ends
with this process, however that ends, and nothing has to be cleaned up there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import GateError
from .ssh_address import SshAddress
from .ssh_failures import connection_sentence, last_line

SSH_VARIABLE = "INFERENCE_GATE_SSH"
"""Names another ssh, or gives it options, such as ``ssh -F board.conf``: like ``GIT_SSH_COMMAND`` does for git."""

CONNECT_SECONDS = 20
_CHECK_SECONDS = 15  # for the ssh that holds the connection here, which answers at once or not at all
ALIVE_INTERVAL = 10
ALIVE_COUNT = 6  # a link is given up after a minute without a sign of life
_GREETING_SECONDS = CONNECT_SECONDS + 40  # with the authentication, on a slow board
_LONGEST_SOCKET_FOLDER = 60  # ssh adds up to 40 characters, and the system allows 104 to 108
_OPTIONS = (
    "BatchMode=yes",  # never asks for a password: it fails instead
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ConnectionAttempts=1",
    f"ServerAliveInterval={ALIVE_INTERVAL}",
    f"ServerAliveCountMax={ALIVE_COUNT}",
    "ControlPersist=no",
    # What a user's configuration may ask for when a person goes there, and what a run has no use for.
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "LogLevel=INFO",
)


class ConnectionFailed(GateError):
    """There is no connection, or it was lost; one sentence."""


@dataclass(frozen=True)
class Completed:
    """A command that ended there. ``status`` is its exit status."""

    status: int
    output: bytes
    errors: str


@dataclass(frozen=True)
class Greeting:
    """What the board said when the connection came up; ``boot`` is None where it does not say which start of the system this is."""

    boot: str | None


def master_options(socket: str) -> list[str]:
    """Options of the ssh that holds the connection."""
    return ["-T", "-a", "-x", "-M", "-S", socket, *_as_arguments(_OPTIONS)]


def client_options(socket: str) -> list[str]:
    """Options of an ssh that goes through the connection, and never makes one of its own: without the socket it fails at once."""
    return ["-T", "-a", "-x", "-S", socket, *_as_arguments(["ControlMaster=no", "ProxyCommand=false", *_OPTIONS])]


def _as_arguments(options: Iterable[str]) -> list[str]:
    return [argument for option in options for argument in ("-o", option)]


def in_shell(script: str) -> str:
    """The script as a command that any login shell hands to a POSIX shell as it is. The script must be one line without ``!``."""
    if "\n" in script or "!" in script:
        raise ValueError("a script for a board is one line without exclamation marks, which csh would take for its own")
    return f"exec /bin/sh -c {shlex.quote(script)}"


class SshConnection:
    """Lazily opened; may be used from several threads. :meth:`close` ends it, and so does the end of this process."""

    def __init__(self, address: SshAddress, *, environment: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.environment = dict(os.environ if environment is None else environment)
        try:
            self.program = shlex.split(self.environment.get(SSH_VARIABLE, "")) or ["ssh"]
        except ValueError:
            words = self.environment[SSH_VARIABLE]
            raise ConnectionFailed(f"{SSH_VARIABLE}={words} ends within a quotation: quote it as a shell would want it") from None
        self.number = 0  # of the connection: how often one came up
        self._lock = threading.Lock()
        self._master: _Master | None = None

    # ---------------------------------------------------------------- opening and closing

    def open(self) -> Greeting:
        """Connect where there is no connection. Raises :class:`ConnectionFailed`."""
        with self._lock:
            if self._master is not None and self._master.alive:
                return self._master.greeting
            self._close()
            master = _Master(self.address, self.program, self.environment)
            try:
                master.greet()
            except BaseException:
                master.end()
                raise
            self._master = master
            self.number += 1
            return master.greeting

    @property
    def alive(self) -> bool:
        master = self._master
        return master is not None and master.alive

    def answers(self, seconds: float = 15.0) -> bool:
        """Whether a command still gets through."""
        try:
            return self.run("true", seconds=seconds).status == 0
        except ConnectionFailed:
            return False

    def last_words(self) -> str:
        """What the ssh that holds the connection printed last."""
        master = self._master
        return "" if master is None else last_line(master.printed())

    def _close(self) -> None:
        master, self._master = self._master, None
        if master is not None:
            master.end()

    def close(self) -> None:
        with self._lock:
            self._close()

    # ---------------------------------------------------------------- using it

    def command(self, remote: str) -> list[str]:
        """The command here that runs ``remote`` there. Raises :class:`ConnectionFailed` where nothing is open."""
        master = self._master
        if master is None:
            raise ConnectionFailed(f"there is no connection to {self.address.place}")
        return [*self.program, *client_options(master.socket), *self.address.arguments, remote]

    def run(
        self, remote: str, *, data: Iterable[bytes] = (), seconds: float, receive: Callable[[IO[bytes]], bytes] | None = None
    ) -> Completed:
        """Run a command there with ``data`` as its input, and wait for its end.

        ``receive`` reads its output, all of which is kept otherwise. Raises :class:`ConnectionFailed` where the connection is lost, or
        where the command does not end in time; whatever ``receive`` raises is passed on.
        """
        process = self._start(remote)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        errors: list[bytes] = []
        feeder = threading.Thread(target=_feed, args=(process.stdin, data), daemon=True)
        listener = threading.Thread(target=lambda stream: errors.append(stream.read()), args=(process.stderr,), daemon=True)
        try:
            feeder.start()
            listener.start()
            output = (receive or _read_all)(process.stdout)
            process.stdout.close()
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
            feeder.join()
            listener.join()
            process.stdout.close()
            process.stderr.close()
        printed = b"".join(errors).decode("utf-8", "replace")
        if late.is_set():
            raise ConnectionFailed(f"{self.address.place} did not answer within {seconds:.0f} s")
        if status == 255 and not self.survived():
            raise ConnectionFailed(self.lost())
        return Completed(status, output, printed)

    def _start(self, remote: str) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.command(remote),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ConnectionFailed(_no_program(self.program[0], error)) from None

    def survived(self) -> bool:
        """Whether the connection outlived a command that ended with ssh's own status of failure."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:  # the master may end a moment after those that go through it
            if not self.alive:
                return False
            time.sleep(0.05)
        # One that is about to end may take longer than that on a busy machine, but answers nobody any more.
        return self._master_answers()

    def _master_answers(self) -> bool:
        master = self._master
        if master is None:
            return False
        check = [*self.program, *client_options(master.socket), "-O", "check", *self.address.arguments]
        try:
            done = subprocess.run(
                check,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self.environment,
                start_new_session=True,
                timeout=_CHECK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def lost(self) -> str:
        """The sentence for a connection that was there and is no more."""
        said = self.last_words()
        return f"the connection to {self.address.place} was lost{f' ({said})' if said else ''}"


def _feed(stream: IO[bytes], data: Iterable[bytes]) -> None:
    # A command that ends early, for a full disk, says why on its output.
    with contextlib.suppress(OSError, ValueError):
        for block in data:
            stream.write(block)
    with contextlib.suppress(OSError, ValueError):
        stream.close()


def _read_all(stream: IO[bytes]) -> bytes:
    return stream.read()


def _no_program(name: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"cannot start {name} ({reason}): install the OpenSSH client, or name it with {SSH_VARIABLE}"


class _Master:
    """The ssh process that holds the connection, its socket and its log, both in a private folder."""

    def __init__(self, address: SshAddress, program: list[str], environment: Mapping[str, str]) -> None:
        self._address = address
        self._marker = f"inference-gate-{secrets.token_hex(8)}"
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="igate-", dir=_socket_folder(environment)))
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise ConnectionFailed(
                f"no folder can be made here for the connection to {address.place}: {error.strerror or error}{where}; free some space"
                " there, or name another folder with TMPDIR"
            ) from None
        self.socket = str(self._folder / "s")
        self._log = self._folder / "log"
        self.greeting = Greeting(None)
        script = f"echo {self._marker}; cat /proc/sys/kernel/random/boot_id 2>/dev/null; echo {self._marker}; exec cat >/dev/null"
        command = [*program, *master_options(self.socket), *address.arguments, in_shell(script)]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    env=dict(environment),
                    start_new_session=True,  # Ctrl-C reaches the plugin alone, which needs the connection to stop what runs there
                )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ConnectionFailed(_no_program(program[0], error)) from None
        self.end = weakref.finalize(self, _end_master, self._process, self._folder)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def printed(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def greet(self) -> None:
        """Wait until the shell there has answered. Raises :class:`ConnectionFailed`."""
        assert self._process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(_GREETING_SECONDS, stop)
        timer.daemon = True
        timer.start()
        lines: list[str] = []
        try:
            while lines.count(self._marker) < 2:
                line = _read_line(self._process.stdout)
                if line is None:
                    break
                lines.append(line)
        finally:
            timer.cancel()
        place = self._address.place
        if lines.count(self._marker) < 2:
            self._process.wait()
            if late.is_set():
                raise ConnectionFailed(
                    f"{place} did not answer within {_GREETING_SECONDS} s: see that the board is on and at leisure"
                )
            raise ConnectionFailed(connection_sentence(self._address, self.printed()))
        start = lines.index(self._marker)
        if any(line.strip() for line in lines[:start]):
            said = next(line.strip() for line in lines[:start] if line.strip())[:80]
            raise ConnectionFailed(
                f"the login to {place} prints {said!r} before each command, which a program cannot tell from the answer: keep the"
                " shell's start-up files there silent where no person is at the terminal"
            )
        self.greeting = Greeting(next((line for line in lines[start + 1 : -1] if line), None))


def _read_line(stream: IO[bytes]) -> str | None:
    """A line, without its end; None at the end. Unbuffered, so that nothing is read ahead."""
    line = bytearray()
    while byte := stream.read(1):
        if byte == b"\n":
            return line.decode("utf-8", "replace")
        line += byte
        if len(line) > 100_000:
            return None
    return line.decode("utf-8", "replace") if line else None


def _end_master(process: subprocess.Popen[bytes], folder: Path) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)  # it closes the connection and removes its socket
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _socket_folder(environment: Mapping[str, str]) -> str:
    """Where a private folder leaves room for the name of a socket."""
    for folder in (environment.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        if folder and len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return "/tmp"
