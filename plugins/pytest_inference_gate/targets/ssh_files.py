"""Files on a board: sent once, kept there under their digest, fetched back with theirs. The other end is ``agent/file_store.py``."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, cast

from ..agent import file_store
from ..atomic_files import explained, free_bytes, size_text
from ..errors import GateError
from .ssh_connection import Completed, SshConnection, in_shell
from .ssh_failures import last_line

_BLOCK = 2**18
_WORTH_A_LINE = 32 * 2**20  # bytes: what is smaller is sent in a moment
_SLOWEST = 100_000  # bytes a second: a link that is slower is as good as none
_SECONDS = 60.0
LARGEST_BYTES = 64 * 2**30  # of what is fetched: no model for such a board is as large, and a damaged answer may say anything
_BOOT = "import sys;exec(sys.stdin.buffer.read(int(sys.argv[1])).decode())"

Kind = Literal["file", "tree"]


class FilesRefused(GateError):
    """The board could not keep or give a file: its disk is full, its home cannot be written, or the like; one sentence."""


@cache
def _program() -> bytes:
    return (Path(__file__).resolve().parent.parent / "agent" / "file_store.py").read_bytes()


@dataclass(frozen=True)
class Parcel:
    """A file, or a folder as a tar archive, as it goes over the wire: ``size`` bytes with the SHA-256 ``digest``."""

    path: Path
    kind: Kind
    digest: str
    size: int

    @classmethod
    def of(cls, path: Path) -> Parcel:
        """Reads all of it. Raises ``OSError``."""
        kind: Kind = "tree" if path.is_dir() else "file"
        digest, size = hashlib.sha256(), 0
        for block in file_store.blocks(str(path)):
            digest.update(block)
            size += len(block)
        return cls(path, kind, digest.hexdigest(), size)

    def blocks(self) -> Iterator[bytes]:
        return file_store.blocks(str(self.path))

    @property
    def name(self) -> str:
        """As on the board, where each file has a folder of its own: the ending counts, odd characters do not."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.path.name).lstrip(".-") or "file"


class BoardFiles:
    """``place`` is what messages call the board; ``python`` is one there."""

    def __init__(self, connection: SshConnection, python: str, place: str, progress: Callable[[str], None]) -> None:
        self._connection = connection
        self._python = python
        self._place = place
        self._progress = progress

    def put(self, path: Path) -> str:
        """Where the file or folder lies there, sent if it is not there already.

        Raises :class:`FilesRefused`, or :class:`~.ssh_connection.ConnectionFailed`.
        """
        try:
            parcel = Parcel.of(path)
        except OSError as error:
            raise FilesRefused(f"cannot read {path} to send it to {self._place}: {error.strerror or error}") from None
        found = self._ask("find", parcel.digest, parcel.name)["path"]
        if found is None:
            data = self._with_progress(parcel) if parcel.size >= _WORTH_A_LINE else parcel.blocks()
            arguments = ("keep", parcel.kind, parcel.digest, parcel.name, str(parcel.size))
            found = self._ask(*arguments, data=data, seconds=_SECONDS + parcel.size / _SLOWEST, what=parcel)["path"]
        return str(found)

    def mark_as_used(self, there: str) -> None:
        """What :meth:`put` has sent is in use still, for whoever removes there what is not."""
        self._ask("find", *there.split("/")[-2:])

    def _with_progress(self, parcel: Parcel) -> Iterator[bytes]:
        self._progress(f"sending {parcel.path.name}, {size_text(parcel.size)}, to {self._place}")
        sent = quarter = 0
        for block in parcel.blocks():
            yield block
            sent += len(block)
            if quarter < 4 * sent // parcel.size < 4:
                quarter = 4 * sent // parcel.size
                self._progress(f"sent {25 * quarter} % of {parcel.path.name}")

    def new_folder(self, there: str) -> None:
        """Make an empty folder for what an agent writes, in the one that :meth:`open_run` gave."""
        self._ask("new-folder", there)

    def get(self, there: str, here: Path) -> None:
        """Fetch a file, or a folder with all that is in it, which is removed there. It is here in full or not at all.

        Raises :class:`FilesRefused`, ``ConnectionFailed``, or a ``GateError`` of this disk.
        """
        weight = int(self._ask("weigh", there)["bytes"])
        if weight > LARGEST_BYTES:
            raise FilesRefused(
                f"{self._place} has {size_text(weight)} to give for {here.name}, more than {size_text(LARGEST_BYTES)}: see what its"
                " converter writes"
            )
        if weight >= _WORTH_A_LINE:
            self._progress(f"fetching {here.name}, {size_text(weight)}, from {self._place}")
        with explained(f"write {here.name}", here.parent):
            free = free_bytes(here.parent)
            if free is not None and free < weight:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            temporary = here.with_name(f".{here.name}.{os.getpid()}.tmp")
            try:
                seconds = _SECONDS * 10 + weight / _SLOWEST
                self._check(self._run(["give", there], (), seconds, lambda output: self._receive(output, temporary)))
                temporary.replace(here)  # an empty folder there gives way
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                with contextlib.suppress(OSError):
                    temporary.unlink()

    def _receive(self, output: IO[bytes], here: Path) -> bytes:
        """Write what comes after the line that announces it, and return the line; what is cut or damaged makes it empty."""
        line = output.readline()
        announced = _json(line)
        if announced is None or "size" not in announced:
            return line
        received = file_store.Received(output, int(announced["size"]))
        try:
            if announced["kind"] == "tree":
                here.mkdir()
                file_store.unpack(received, str(here))
                received.drain()  # the archive may end before its last blocks
            else:
                with here.open("wb") as stream:
                    while block := received.read():
                        stream.write(block)
        except file_store.Refused:
            return b""
        whole = not received.left and received.digest.hexdigest() == announced["sha256"]
        return line if whole else b""

    def open_run(self, token: str) -> str:
        """A folder there for what the agents of a run write."""
        return str(self._ask("open-run", token)["path"])

    def close_run(self, token: str) -> None:
        self._ask("close-run", token)

    def prune(self, seconds: float, size: int) -> int:
        """Remove there what was not used for so long, and then what is longest unused above ``size`` bytes; how many were removed."""
        return int(self._ask("prune", str(seconds), str(size))["removed"])

    def _ask(
        self, *arguments: str, data: Iterator[bytes] | tuple[()] = (), seconds: float = _SECONDS, what: Parcel | None = None
    ) -> dict[str, Any]:
        return self._check(self._run(arguments, data, seconds), what)

    def _run(
        self,
        arguments: list[str] | tuple[str, ...],
        data: Iterator[bytes] | tuple[()],
        seconds: float,
        receive: Callable[[IO[bytes]], bytes] | None = None,
    ) -> Completed:
        program = _program()
        command = [self._python, "-I", "-c", _BOOT, str(len(program)), *arguments]

        def everything() -> Iterator[bytes]:
            yield program
            yield from data

        return self._connection.run(in_shell(f"exec {shlex.join(command)}"), data=everything(), seconds=seconds, receive=receive)

    def _check(self, done: Completed, what: Parcel | None = None) -> dict[str, Any]:
        message = _json(done.output.partition(b"\n")[0])
        if message is None:
            said = last_line(done.errors)
            because = f": {said}" if said else f" (exit status {done.status})"
            raise FilesRefused(f"{self._place} did not take or give a file{because}; see that its Python and its disk are well")
        if "refused" in message:
            raise FilesRefused(self._sentence(str(message["refused"]), str(message["message"]), what))
        return message

    def _sentence(self, kind: str, message: str, what: Parcel | None) -> str:
        sent = "" if what is None else f" for {what.path.name} ({size_text(what.size)})"
        if kind == "full":
            return f"the disk of {self._place} has no room{sent}: {message}; free some space there"
        if kind == "read-only":
            return (
                f"nothing can be written on {self._place}: {message}; make ~/.cache there writable, or set XDG_CACHE_HOME there to"
                " a folder that is"
            )
        return f"{self._place} did not keep a file{sent}: {message}"


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", message) if isinstance(message, dict) else None
