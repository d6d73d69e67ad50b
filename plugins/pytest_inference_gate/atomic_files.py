"""Files that are either there in full or not there at all.

A file is written under a temporary name beside its place, flushed to the disk, and renamed; then the directory is flushed
too, so that neither ``kill -9`` nor a power cut leaves half a file under the final name. What the operating system refuses (a
full disk, a missing permission, a read-only file system) becomes one sentence with the directory, the free space and what to do.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import GateError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})

DEFAULT_REMEDY = "choose another directory"


def write_atomically(path: Path, data: bytes, *, error: type[GateError] = GateError, remedy: str = DEFAULT_REMEDY) -> None:
    """Write `data` to `path`, replacing what is there.

    Raises `error` with one sentence when the operating system refuses; what was at `path` before is then still there.
    """
    with explained(f"write {path.name}", path.parent, error=error, remedy=remedy):
        temporary = write_beside(path, data)
        try:
            temporary.replace(path)
        except BaseException:
            _unlink_quietly(temporary)
            raise
        flush_directory(path.parent)


def create_atomically(path: Path, data: bytes, *, error: type[GateError] = GateError, remedy: str = DEFAULT_REMEDY) -> None:
    """Write `data` to `path`, which must not exist: raises FileExistsError instead of replacing it.

    Raises `error` with one sentence when the operating system refuses.
    """
    exists: FileExistsError | None = None
    with explained(f"write {path.name}", path.parent, error=error, remedy=remedy):
        temporary = write_beside(path, data)
        try:
            _move_without_replacing(temporary, path)
        except FileExistsError as problem:
            exists = problem
        finally:
            _unlink_quietly(temporary)
        flush_directory(path.parent)
    if exists is not None:
        raise exists


def write_beside(path: Path, data: bytes) -> Path:
    """Write and flush `data` to a new hidden file in the directory of `path`, and return it. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file readable by its owner alone; a baseline or an artifact is shared like any other file.
        temporary.chmod(0o666 & ~_umask())
    except BaseException:
        _unlink_quietly(temporary)
        raise
    return temporary


def flush_file(path: Path) -> None:
    """Make the content of one file durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError, except where directories cannot be flushed at all."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        # A directory in which one may create but not list; there is nothing more that can be done for it.
        return
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network and FUSE file systems have no fsync for directories.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def flush_tree(directory: Path) -> None:
    """Make all the files and names below `directory` durable, itself included. Raises OSError."""
    for parent, _, names in os.walk(directory):
        for name in names:
            flush_file(Path(parent, name))
        flush_directory(Path(parent))


@contextmanager
def explained(doing: str, directory: Path, *, error: type[GateError] = GateError, remedy: str = DEFAULT_REMEDY) -> Iterator[None]:
    """Turn an OSError of the block into `error` with a sentence that :func:`describe_refusal` makes."""
    try:
        yield
    except OSError as problem:
        raise error(describe_refusal(problem, doing, directory, remedy=remedy)) from problem


def describe_refusal(problem: OSError, doing: str, directory: Path, *, remedy: str = DEFAULT_REMEDY) -> str:
    """One sentence on why the operating system refused: the directory, the free space where it matters, and what to do."""
    if is_disk_full(problem):
        return f"Cannot {doing}: the disk of {directory} is full ({free_space_text(directory)}); free some space or {remedy}."
    if problem.errno == errno.EROFS:
        return f"Cannot {doing}: {directory} is on a read-only file system; {remedy}."
    if problem.errno in _FORBIDDEN:
        return f"Cannot {doing}: no permission in {directory}; correct its owner or mode, or {remedy}."
    reason = problem.strerror or type(problem).__name__
    culprit = f" ({problem.filename})" if problem.filename else ""
    return f"Cannot {doing} in {directory}: {reason}{culprit}; correct that or {remedy}."


def is_disk_full(problem: OSError) -> bool:
    """Whether a disk or a quota is used up."""
    return problem.errno in _FULL


def free_bytes(directory: Path) -> int | None:
    """Bytes that this user can still write on the disk of `directory` (or of its nearest existing parent); None if unknown."""
    try:
        place = next(place for place in (directory, *directory.parents) if place.exists())
        return shutil.disk_usage(place).free
    except (OSError, StopIteration):
        return None


def free_space_text(directory: Path) -> str:
    """For example ``"1.5 MB free"``."""
    free = free_bytes(directory)
    return "free space unknown" if free is None else f"{size_text(free)} free"


def size_text(size: int) -> str:
    """A size in bytes for people, in powers of 1000: ``"0 bytes"``, ``"1.5 MB"``."""
    if size < 1000:
        return f"{size} bytes"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        # 999.95 would be printed as 1000.0.
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def _move_without_replacing(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError as problem:
        if problem.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # No hard links here (FAT, some network file systems): the caller's lock is what keeps two writers apart.
        if destination.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination)) from None
        source.rename(destination)


def _umask() -> int:
    # The process mask can only be read by setting it, which other threads would see; /proc shows it without.
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _unlink_quietly(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
