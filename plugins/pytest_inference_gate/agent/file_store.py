"""Files that another machine has sent here, each kept once under its digest; and files that go back there.

This is a program of its own: the plugin sends its source to ``python -c`` on a board, before there is any agent there, and after it the
bytes of a file. So it imports nothing of the agent. Each call prints one line of JSON; ``give`` prints the file's bytes after it. The
plugin, at the other end, packs and unpacks folders with the same functions.

A kept file lies at ``files/<SHA-256>/<name>`` below the root. It is written beside, verified, flushed and renamed, so that it is either
there in full or not there at all. What was not used for long is removed, the longest unused first.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import tarfile
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple  # noqa: F401

BLOCK = 2**18
NEVER_PRUNED_SECONDS = 6 * 3600.0  # another run may be at work with what was used so lately
LEFTOVER_SECONDS = 24 * 3600.0
RESERVE_BYTES = 16 * 2**20  # a disk that is full to the last byte takes more than this program down
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Refused(Exception):
    """Why a file was not kept, in one word for the plugin and one sentence for people."""

    def __init__(self, kind, message):
        # type: (str, str) -> None
        super().__init__(message)
        self.kind = kind


class Received:
    """At most ``size`` bytes of a stream, with their digest."""

    def __init__(self, stream, size):
        # type: (Any, int) -> None
        self._stream = stream
        self.left = size
        self.digest = hashlib.sha256()

    def read(self, size=BLOCK):
        # type: (int) -> bytes
        data = self._stream.read(min(size, self.left))  # type: bytes
        self.left -= len(data)
        self.digest.update(data)
        return data

    def drain(self):
        # type: () -> None
        while self.left and self.read():
            pass


def default_root():
    # type: () -> str
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "inference-gate", "board")


def find(root, digest, name):
    # type: (str, str, str) -> Dict[str, Any]
    """``{"path": ...}`` of a kept file, marked as used now; ``{"path": None}`` where it is not here."""
    folder = os.path.join(root, "files", digest)
    path = os.path.join(folder, name)
    try:
        os.utime(folder, None)  # first: what was used since another run looked at it is not removed by that
    except OSError:
        pass  # not here, or in a home that was made read-only since and can still be read
    return {"path": path if os.path.exists(path) else None}


def keep(root, kind, digest, name, size, stream):
    # type: (str, str, str, str, int, Any) -> Dict[str, Any]
    """Read ``size`` bytes: a ``file``, or a ``tree`` as a tar archive. ``{"path": ...}`` of it, once its digest is verified."""
    files = os.path.join(root, "files")
    os.makedirs(files, mode=0o700, exist_ok=True)
    make_room(root, size)
    temporary = os.path.join(files, ".%s.%d.%d.tmp" % (digest[:16], os.getpid(), time.time()))
    os.mkdir(temporary)
    try:
        received = Received(stream, size)
        target = os.path.join(temporary, name)
        if kind == "tree":
            os.mkdir(target)
            unpack(received, target)
        else:
            _write(received, target)
        received.drain()
        if received.left:
            raise Refused("cut", "the connection ended %d bytes before the end of the file" % received.left)
        if received.digest.hexdigest() != digest:
            raise Refused("digest", "what arrived is not what was sent: its digest differs")
        _flush(temporary)
        kept = os.path.join(files, digest)
        try:
            os.rename(temporary, kept)
        except OSError:
            if not os.path.exists(os.path.join(kept, name)):  # else another run has kept it meanwhile
                os.rename(target, os.path.join(kept, name))  # it was kept under another name
                _flush(kept)
        _flush(files)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return find(root, digest, name)


def _write(received, path):
    # type: (Received, str) -> None
    with open(path, "wb") as stream:
        while True:
            data = received.read()
            if not data:
                break
            stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def unpack(received, folder):
    # type: (Received, str) -> None
    """Files and folders only, and none outside ``folder``; a file takes no more than its bytes in the archive."""
    try:
        with tarfile.open(fileobj=received, mode="r|", bufsize=BLOCK) as archive:  # type: ignore[call-overload]
            for member in archive:
                parts = member.name.split("/")
                plain = (member.isfile() and not member.issparse()) or member.isdir()
                if member.name.startswith("/") or ".." in parts or not plain:
                    raise Refused("digest", "the archive holds %r, which is neither a file nor a folder in it" % member.name)
                path = os.path.join(folder, *parts)
                if member.isdir():
                    os.makedirs(path, exist_ok=True)
                    continue
                os.makedirs(os.path.dirname(path), exist_ok=True)
                source = archive.extractfile(member)
                with open(path, "wb") as stream:
                    shutil.copyfileobj(source, stream, BLOCK)
                    stream.flush()
                    os.fsync(stream.fileno())
    except tarfile.TarError as error:
        if received.left:
            received.drain()
        raise Refused("cut" if received.left else "digest", "the archive is damaged: %s" % error)


def _flush(folder):
    # type: (str) -> None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems have no such thing
    finally:
        os.close(descriptor)


def entries(root):
    # type: (str) -> List[Tuple[float, int, str]]
    """(last use, bytes, path) of what is kept, the longest unused first."""
    files = os.path.join(root, "files")
    found = []
    for name in _names(files):
        path = os.path.join(files, name)
        if not name.startswith("."):
            try:
                found.append((os.stat(path).st_mtime, _size_of(path), path))
            except OSError:
                continue  # removed meanwhile
    return sorted(found)


def _names(folder):
    # type: (str) -> List[str]
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _size_of(path):
    # type: (str) -> int
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(parent, name)).st_size
    return total


def prune(root, seconds, size, now=None):
    # type: (str, float, int, Any) -> Dict[str, Any]
    """Remove what was not used for ``seconds``, then the longest unused until no more than ``size`` bytes are left."""
    now = time.time() if now is None else now
    kept = entries(root)
    total = sum(entry[1] for entry in kept)
    removed = 0
    for used, held, path in kept:
        if now - used > max(seconds, NEVER_PRUNED_SECONDS) or (total > size and now - used > NEVER_PRUNED_SECONDS):
            if _remove(path, used):
                total -= held
                removed += 1
    for folder, hidden_only in ((os.path.join(root, "files"), True), (os.path.join(root, "runs"), False)):
        for name in _names(folder):
            path = os.path.join(folder, name)
            try:
                old = now - os.stat(path).st_mtime > LEFTOVER_SECONDS
            except OSError:
                continue
            if old and (name.startswith(".") or not hidden_only):  # of runs that were killed
                shutil.rmtree(path, ignore_errors=True)
    return {"removed": removed, "bytes": total}


def _remove(path, used):
    # type: (str, float) -> bool
    """Out of sight first, so that it is never there in part; and not what was used since it was looked at (``used``)."""
    doomed = os.path.join(os.path.dirname(path), ".%s.%d.gone" % (os.path.basename(path)[:16], os.getpid()))
    try:
        if os.stat(path).st_mtime != used:
            return False
        os.rename(path, doomed)
    except OSError:
        return False
    shutil.rmtree(doomed, ignore_errors=True)  # what a kill leaves of it is hidden, and goes with the leftovers
    return True


def free_bytes(path):
    # type: (str) -> int
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def make_room(root, size, now=None):
    # type: (str, int, Any) -> None
    """Remove what is longest unused until ``size`` bytes fit; :class:`Refused` where they never do."""
    now = time.time() if now is None else now
    for used, _, path in entries(root):
        if free_bytes(root) >= size + RESERVE_BYTES:
            return
        if now - used > NEVER_PRUNED_SECONDS:
            _remove(path, used)
    free = free_bytes(root)
    if free < size + RESERVE_BYTES:
        raise Refused("full", "%d bytes are free at %s, and %d are needed" % (free, root, size + RESERVE_BYTES))


def open_run(root, token):
    # type: (str, str) -> Dict[str, Any]
    """A folder for what the agents of one run write."""
    folder = os.path.join(root, "runs", token)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(os.path.join(folder, ".used"), "wb") as stream:  # so that a home that cannot be written is found now
        stream.write(b"\n")
    return {"path": folder}


def close_run(root, token):
    # type: (str, str) -> Dict[str, Any]
    shutil.rmtree(os.path.join(root, "runs", token), ignore_errors=True)
    return {}


def new_folder(path):
    # type: (str) -> Dict[str, Any]
    """An empty folder that an agent shall write to."""
    os.makedirs(path, mode=0o700)
    return {"path": path}


def weigh(path):
    # type: (str) -> Dict[str, Any]
    """``{"bytes": ...}`` of a file, or of all files in a folder."""
    return {"bytes": _size_of(path) if os.path.isdir(path) else os.stat(path).st_size}


def blocks(path):
    # type: (str) -> Iterator[bytes]
    """The content of a file, or a folder as a tar archive: equal content gives equal bytes. Links are followed."""
    return _tree_blocks(path) if os.path.isdir(path) else _file_blocks(path)


def _file_blocks(path):
    # type: (str) -> Iterator[bytes]
    with open(path, "rb") as stream:
        for data in iter(lambda: stream.read(BLOCK), b""):
            yield data


def _tree_blocks(folder):
    # type: (str) -> Iterator[bytes]
    for name in sorted(_names_below(folder)):
        path = os.path.join(folder, *name.split("/"))
        entry = tarfile.TarInfo(name)
        if os.path.isdir(path):
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            yield entry.tobuf(tarfile.PAX_FORMAT)
            continue
        entry.size, entry.mode = os.stat(path).st_size, 0o644
        yield entry.tobuf(tarfile.PAX_FORMAT)
        sent = 0
        for block in _file_blocks(path):
            sent += len(block)
            yield block
        if sent != entry.size:
            raise OSError("%s changed while it was read" % path)
        yield b"\0" * (-sent % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _names_below(folder):
    # type: (str) -> Iterator[str]
    """Of all files and folders in it, relative to it and with slashes."""
    for parent, folders, files in os.walk(folder):
        beginning = os.path.relpath(parent, folder)
        for name in folders + files:
            path = name if beginning == os.curdir else os.path.join(beginning, name)
            yield path.replace(os.sep, "/")


def give(path, output):
    # type: (str, Any) -> None
    """Print kind, size and digest of a file, or of a folder as a tar archive, then its bytes; it is removed afterwards."""
    kind = "tree" if os.path.isdir(path) else "file"
    digest, size = hashlib.sha256(), 0
    for data in blocks(path):
        digest.update(data)
        size += len(data)
    _print(output, {"kind": kind, "size": size, "sha256": digest.hexdigest()})
    for data in blocks(path):
        output.write(data)
    output.flush()
    if kind == "tree":
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


def _print(output, message):
    # type: (Any, Dict[str, Any]) -> None
    output.write(json.dumps(message).encode("ascii") + b"\n")
    output.flush()


def _kind_of(error):
    # type: (OSError) -> str
    if error.errno in FULL:
        return "full"
    return "read-only" if error.errno in READ_ONLY else "other"


def main(arguments, stream, output):
    # type: (List[str], Any, Any) -> int
    """``find|keep|prune|open-run|close-run|new-folder|weigh|give`` with their arguments; 0 also where a file was refused, which the
    line says."""
    try:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a limit for the size of files is an error like a full disk
        os.umask(0o077)
        verb, rest = arguments[0], arguments[1:]
        root = default_root()
        if verb == "give":
            give(rest[0], output)
            return 0
        if verb == "find":
            message = find(root, rest[0], rest[1])
        elif verb == "keep":
            message = keep(root, rest[0], rest[1], rest[2], int(rest[3]), stream)
        elif verb == "prune":
            message = prune(root, float(rest[0]), int(rest[1]))
        elif verb == "open-run":
            message = open_run(root, rest[0])
        elif verb == "close-run":
            message = close_run(root, rest[0])
        elif verb == "new-folder":
            message = new_folder(rest[0])
        elif verb == "weigh":
            message = weigh(rest[0])
        else:
            raise Refused("other", "there is no verb %r" % verb)
    except Refused as error:
        message = {"refused": error.kind, "message": str(error)}
    except OSError as error:
        where = " (%s)" % error.filename if error.filename else ""
        message = {"refused": _kind_of(error), "message": (error.strerror or str(error)) + where}
    _print(output, message)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], sys.stdin.buffer, sys.stdout.buffer))
