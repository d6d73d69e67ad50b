"""The store of converted models.

An artifact is made once and kept under the digest of everything that went into it. The store is safe against ``kill -9`` at any
moment, against two runs at once (the second waits for the first and then uses its artifact), against files that were cut or
changed afterwards (the entry is put aside and made again) and against a full disk (one sentence, and nothing half-made remains).

On disk::

    store.json                  the version of this layout
    artifacts/<digest>/         payload/..., provenance.json, log.txt
    locks/<digest>.lock         held while the artifact is made, removed or put aside
    tmp/                        what is being made; renamed into artifacts/ when complete
    quarantine/                 entries that were found corrupt, the newest few
    failed/<digest>.log         the log of the last failed attempt
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .atomic_files import (
    describe_refusal,
    explained,
    flush_directory,
    flush_tree,
    free_bytes,
    free_space_text,
    is_disk_full,
    write_atomically,
)
from .errors import StoreError
from .outcome import StageFailed

STORE_VERSION = 1
ARTIFACT_SCHEMA = "inference-gate-artifact/1"

_REMEDY = "point --gate-store at another directory"
_FORMAT = "inference-gate-store"
_VERSION_FILE = "store.json"
_FOLDERS = ("artifacts", "locks", "tmp", "quarantine", "failed")
# What other parts of the plugin keep beside the artifacts, perhaps before the store is first opened.
_NEIGHBOURS = ("logs", "downloads", "unpacked")
_PROVENANCE_FILE = "provenance.json"
_locked_here: set[str] = set()  # files of locks that a thread of this process holds
_RESERVED = frozenset({"schema", "kind", "digest", "ingredients", "files", "size_bytes", "datetime"})
_LEFTOVER_AGE_SECONDS = 24 * 3600
_KEPT_IN_QUARANTINE = 5
_NEARLY_FULL_BYTES = 1_000_000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredArtifact:
    """One complete entry of the store.

    ``directory`` holds ``payload/``, ``provenance.json`` and, when the maker wrote one, ``log.txt``. ``cached`` says that it was
    there already. ``size_bytes`` counts the files of the payload alone.
    """

    digest: str
    directory: Path
    provenance: Mapping[str, Any]
    cached: bool
    size_bytes: int

    @property
    def payload(self) -> Path:
        """The directory of the files that were made."""
        return self.directory / "payload"

    @property
    def log(self) -> Path | None:
        """What was printed while it was made, if that was kept."""
        path = self.directory / "log.txt"
        return path if path.is_file() else None

    @property
    def kind(self) -> str:
        return str(self.provenance["kind"])


class _CorruptError(Exception):
    """An entry that is there but not as it was written; the message is the reason."""


def digest_of(kind: str, ingredients: Mapping[str, Any]) -> str:
    """The SHA-256, in hex, of the canonical JSON of `kind` and `ingredients`.

    Raises ValueError for ingredients that JSON cannot hold (NaN, a Path, a set): two runs would not agree on them.
    """
    try:
        text = json.dumps(
            {"kind": kind, "ingredients": ingredients}, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        )
    except (TypeError, ValueError) as problem:
        raise ValueError(f"the ingredients of a {kind} are not plain JSON: {problem}") from problem
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class ArtifactStore:
    """A directory of artifacts, shared by any number of runs on this machine.

    ``notice`` gets one sentence when the store waits for another run, puts a corrupt entry aside or removes leftovers; without
    it they are logged as warnings. Raises StoreError when the directory cannot be used: not writable, full, something else than
    a store, or written by a newer version.
    """

    def __init__(self, root: Path, *, notice: Callable[[str], None] | None = None) -> None:
        # Agents run in other working directories, so what the store hands out is absolute.
        self.root = Path(os.path.expanduser(root)).absolute()  # noqa: PTH111  (Path.expanduser raises where there is no such user)
        self._notice = notice or _logger.warning
        self._verified: set[tuple[str, int, int]] = set()
        self._open()
        self._remove_leftovers()

    def find(self, kind: str, ingredients: Mapping[str, Any]) -> StoredArtifact | None:
        """The artifact made of these ingredients, or None. A corrupt entry is put aside and counts as none.

        Sizes are checked every time, the SHA-256 of each payload file once in the life of this object.
        """
        digest = digest_of(kind, ingredients)
        try:
            return self._read(digest, verify=True)
        except _CorruptError:
            with self._locked(digest, f"{kind} {digest[:12]}"):
                return self._read_or_quarantine(digest)

    def get_or_make(self, kind: str, ingredients: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> StoredArtifact:
        """The artifact made of these ingredients; `make` is called only when there is none.

        `make(directory)` gets an empty directory, fills ``payload/`` and, if it likes, ``log.txt``, and returns provenance as
        plain JSON. Two runs that need the same artifact make it once: the second waits. What `make` raises passes through (its
        log is kept in ``failed/``), except that a full disk becomes a StoreError.
        """
        digest = digest_of(kind, ingredients)
        with suppress(_CorruptError):
            found = self._read(digest, verify=True)
            if found is not None:
                return found
        with self._locked(digest, f"{kind} {digest[:12]}"):
            found = self._read_or_quarantine(digest)
            if found is not None:
                return found
            return self._make(digest, kind, ingredients, make)

    def entries(self) -> list[StoredArtifact]:
        """All the complete entries, oldest first. Sizes are checked, contents are not; corrupt entries are left out."""
        found = []
        for name in _list(self.root / "artifacts"):
            with suppress(_CorruptError):
                entry = self._read(name, verify=False)
                if entry is not None:
                    found.append(entry)
        return sorted(found, key=lambda entry: (str(entry.provenance["datetime"]), entry.digest))

    def remove(self, digest: str) -> bool:
        """Remove one entry, named by its digest or by the beginning of it (8 hex digits or more); False if there is none."""
        if not re.fullmatch(r"[0-9a-f]{8,64}", digest):
            raise StoreError(f"{digest!r} is not a digest; give at least the first 8 of its hex digits.")
        matches = [name for name in _list(self.root / "artifacts") if name.startswith(digest)]
        if len(matches) > 1:
            raise StoreError(f"{digest} is the beginning of {len(matches)} digests in {self.root}; give more of its digits.")
        if not matches:
            return False
        (name,) = matches
        with self._locked(name, name[:12]), self._explained(f"remove {name[:12]}"):
            doomed = self._temporary_path(name)
            try:
                # Renamed first: a reader sees the whole entry or none, and a kill leaves only a leftover in tmp.
                self._entry(name).rename(doomed)
            except FileNotFoundError:
                return False
            flush_directory(self.root / "artifacts")
            shutil.rmtree(doomed)
        return True

    def total_size_bytes(self) -> int:
        """The bytes of the artifacts with their logs and provenance, quarantine and unfinished ones included."""
        total = 0
        for folder in _FOLDERS:
            for parent, _, names in os.walk(self.root / folder):
                for name in names:
                    with suppress(OSError):
                        total += Path(parent, name).lstat().st_size
        return total

    def failed_log(self, kind: str, ingredients: Mapping[str, Any]) -> Path | None:
        """The log of the last failed attempt to make this artifact, if one was kept."""
        path = self._failed_log_path(digest_of(kind, ingredients))
        return path if path.is_file() else None

    # Opening

    def _open(self) -> None:
        with self._explained("open the artifact store"):
            if self.root.exists() and not self.root.is_dir():
                raise StoreError(f"{self.root} is a file, so it cannot be the artifact store; {_REMEDY}.")
            self.root.mkdir(parents=True, exist_ok=True)
            self._check_version()
            for folder in _FOLDERS:
                (self.root / folder).mkdir(exist_ok=True)
            # Permission bits do not tell (root, read-only mounts, access lists): only writing does.
            probe = self.root / "tmp" / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                probe.write_bytes(b"\0")
            finally:
                with suppress(OSError):
                    probe.unlink()

    def _check_version(self) -> None:
        path = self.root / _VERSION_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            strangers = [
                name
                for name in _list(self.root)
                if name not in _FOLDERS + _NEIGHBOURS and not name.startswith(f".{_VERSION_FILE}.")
            ]
            # The version file comes first in a new store; where it is missing and others are not, this is somebody else's
            # directory, unless another run has just made it.
            if strangers and not path.exists():
                raise StoreError(
                    f"{self.root} is not an artifact store (it holds {sorted(strangers)[0]!r} and no {_VERSION_FILE}); "
                    "point --gate-store at an empty directory or at a new name."
                ) from None
            version = {"format": _FORMAT, "version": STORE_VERSION}
            write_atomically(path, json.dumps(version).encode() + b"\n", error=StoreError, remedy=_REMEDY)
            return
        try:
            document = json.loads(content)
            found = document["version"]
            if document["format"] != _FORMAT or type(found) is not int or found < 1:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(
                f"{path} does not say which version of the artifact store this is; delete it together with "
                f"{self.root / 'artifacts'} (everything there can be made again) or {_REMEDY}."
            ) from None
        if found > STORE_VERSION:
            raise StoreError(
                f"{self.root} was written by a newer version of the plugin (store version {found}, this one knows version "
                f"{STORE_VERSION}); upgrade pytest-inference-gate or {_REMEDY}."
            )

    def _remove_leftovers(self) -> None:
        """Remove what killed runs left in tmp more than a day ago, and all but the newest entries of the quarantine."""
        removed = 0
        for name in _list(self.root / "tmp"):
            path = self.root / "tmp" / name
            if time.time() - _newest_change(path) > _LEFTOVER_AGE_SECONDS and not _owner_is_alive(name):
                _remove_quietly(path)
                removed += 1
        if removed:
            self._notice(f"Removed {removed} unfinished artifact{'s' * (removed > 1)} that stopped runs had left in {self.root}.")
        quarantine = self.root / "quarantine"
        # The names end in the time at which they were put aside.
        for name in sorted(_list(quarantine), key=lambda name: name.partition("-")[2])[:-_KEPT_IN_QUARANTINE]:
            _remove_quietly(quarantine / name)

    # Reading

    def _entry(self, digest: str) -> Path:
        return self.root / "artifacts" / digest

    def _read(self, digest: str, *, verify: bool) -> StoredArtifact | None:
        """The entry, checked; None if there is none; _CorruptError if it is not as it was written."""
        directory = self._entry(digest)
        provenance_path = directory / _PROVENANCE_FILE
        try:
            content = provenance_path.read_bytes()
            status = provenance_path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(directory):
                return None
            raise _CorruptError(f"its {_PROVENANCE_FILE} is missing") from None
        except OSError as problem:
            if problem.errno in (errno.EIO, errno.ENOENT):  # the latter: another run put it aside or removed it meanwhile
                raise _CorruptError(f"its {_PROVENANCE_FILE} cannot be read ({problem.strerror})") from problem
            raise StoreError(describe_refusal(problem, f"read {digest[:12]}", directory, remedy=_REMEDY)) from problem
        provenance, files = _parse_provenance(content, digest)
        key = (digest, status.st_ino, status.st_mtime_ns)
        with self._explained(f"read {digest[:12]}"):
            _check_sizes(directory, files)
            if verify and key not in self._verified:
                _check_digests(directory, files)
                self._verified.add(key)
        return StoredArtifact(digest, directory, provenance, cached=True, size_bytes=sum(size for size, _ in files.values()))

    def _read_or_quarantine(self, digest: str) -> StoredArtifact | None:
        """As _read, with the lock held: a corrupt entry is moved aside."""
        try:
            return self._read(digest, verify=True)
        except _CorruptError as problem:
            place = self.root / "quarantine" / f"{digest[:12]}-{time.time_ns()}-{secrets.token_hex(2)}"
            with self._explained(f"put the corrupt artifact {digest[:12]} aside"):
                self._entry(digest).rename(place)
                flush_directory(self.root / "artifacts")
            self._notice(f"The stored artifact {digest[:12]} is corrupt: {problem}; it was moved to {place} and is made again.")
            return None

    # Making

    def _make(
        self, digest: str, kind: str, ingredients: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]
    ) -> StoredArtifact:
        directory = self._temporary_path(digest)
        with self._explained(f"make {kind} {digest[:12]}"):
            directory.mkdir()
        try:
            made = self._call(make, directory, digest, kind)
            if clash := sorted(_RESERVED.intersection(made)):
                raise ValueError(f"the provenance of a {kind} must leave {', '.join(clash)} to the store")
            with self._explained(f"store {kind} {digest[:12]}"):
                files = _describe_payload(directory, kind)
                provenance = {
                    **made,
                    "schema": ARTIFACT_SCHEMA,
                    "kind": kind,
                    "digest": digest,
                    "ingredients": ingredients,
                    "files": files,
                    "size_bytes": sum(file["size"] for file in files.values()),
                    "datetime": datetime.now(timezone.utc).isoformat(),
                }
                content = json.dumps(provenance, indent=2, sort_keys=True, allow_nan=False).encode()
                (directory / _PROVENANCE_FILE).write_bytes(content)
                # Everything is on the disk before the entry gets its name; the name is on the disk before anybody is told.
                flush_tree(directory)
                directory.rename(self._entry(digest))
                flush_directory(self.root / "artifacts")
        finally:
            _remove_quietly(directory)
        _remove_quietly(self._failed_log_path(digest))
        stored = self._read(digest, verify=False)
        if stored is None:
            raise StoreError(f"The artifact {digest[:12]} vanished from {self.root} just after it was made; run again.")
        return replace(stored, cached=False)

    def _call(self, make: Callable[[Path], Mapping[str, Any]], directory: Path, digest: str, kind: str) -> Mapping[str, Any]:
        """Call `make`; keep its log if it fails, and tell a full disk from a model that cannot be converted."""
        try:
            return make(directory)
        except StageFailed as failure:
            free = free_bytes(self.root)
            full = os.strerror(errno.ENOSPC) in failure.outcome.message or (free is not None and free < _NEARLY_FULL_BYTES)
            # Measured before the unfinished files go, which would hide how full it was.
            space = free_space_text(self.root)
            log = self._keep_failed_log(directory, digest)
            if full:
                raise StoreError(
                    f"Cannot make {kind} {digest[:12]}: the disk is full while it is made ({space} in {self.root}); "
                    f"free some space there and in the temporary directory, or {_REMEDY}."
                ) from failure
            if log is not None and failure.outcome.log is not None and failure.outcome.log.parent == directory:
                failure.outcome = replace(failure.outcome, log=log)
            raise
        except OSError as problem:
            if is_disk_full(problem):
                raise StoreError(describe_refusal(problem, f"make {kind} {digest[:12]}", self.root, remedy=_REMEDY)) from problem
            self._keep_failed_log(directory, digest)
            raise
        except Exception:
            self._keep_failed_log(directory, digest)
            raise

    def _failed_log_path(self, digest: str) -> Path:
        return self.root / "failed" / f"{digest}.log"

    def _keep_failed_log(self, directory: Path, digest: str) -> Path | None:
        log = directory / "log.txt"
        kept = self._failed_log_path(digest)
        # Losing the log must not hide why the attempt failed.
        try:
            log.replace(kept)
        except OSError:
            return None
        return kept

    def _temporary_path(self, digest: str) -> Path:
        return self.root / "tmp" / f"{digest[:16]}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"

    # Locking and errors

    @contextmanager
    def _locked(self, digest: str, what: str) -> Iterator[None]:
        import filelock

        lock = filelock.FileLock(self.root / "locks" / f"{digest}.lock")
        with self._explained(f"lock {what}"):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                # Two cases of one run may need the same, and that is nothing to tell.
                maker = self._maker(digest)
                if lock.lock_file not in _locked_here and maker != os.getpid():
                    who = "" if maker is None else f" (process {maker})"
                    self._notice(f"Waiting for another run{who}, which is making {what} in {self.root}.")
                lock.acquire()
        _locked_here.add(lock.lock_file)
        try:
            yield
        finally:
            _locked_here.discard(lock.lock_file)
            lock.release()

    def _maker(self, digest: str) -> int | None:
        """Which process makes it, from the names in tmp; a killed run may have left one too, so only those that live count."""
        for name in _list(self.root / "tmp"):
            if name.startswith(f"{digest[:16]}-") and _owner_is_alive(name):
                return int(name.split("-")[2])
        return None

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        with explained(doing, self.root, error=StoreError, remedy=_REMEDY):
            yield


def default_store_root() -> Path:
    """Where artifacts are kept unless --gate-store says otherwise: in the user's cache directory."""
    import platformdirs

    try:
        return platformdirs.user_cache_path("inference-gate") / "store"
    except RuntimeError:  # neither HOME nor an entry of this user
        raise StoreError("This user has no home directory to keep artifacts in; name a directory with --gate-store.") from None


def _parse_provenance(content: bytes, digest: str) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """The provenance of an entry, and (size, SHA-256) by file; _CorruptError if it is not what was written for `digest`."""
    try:
        provenance = json.loads(content)
        files = {str(name): (int(file["size"]), str(file["sha256"])) for name, file in provenance["files"].items()}
        schema = provenance["schema"]
        actual = digest_of(provenance["kind"], provenance["ingredients"])
        str(provenance["datetime"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _CorruptError(f"its {_PROVENANCE_FILE} cannot be read") from None
    if schema != ARTIFACT_SCHEMA:
        raise _CorruptError(f"its schema is {schema!r} instead of {ARTIFACT_SCHEMA!r}")
    if actual != digest or provenance.get("digest") != digest:
        raise _CorruptError("its ingredients are not those of its digest")
    return provenance, files


def _check_sizes(directory: Path, files: Mapping[str, tuple[int, str]]) -> None:
    present = _payload_files(directory)
    for name, (size, _) in files.items():
        if name not in present:
            raise _CorruptError(f"{name} is missing")
        if present[name] != size:
            raise _CorruptError(f"{name} has {present[name]} bytes instead of {size}")
    if extra := sorted(set(present) - set(files)):
        raise _CorruptError(f"{extra[0]} was added to it")


def _check_digests(directory: Path, files: Mapping[str, tuple[int, str]]) -> None:
    for name, (_, expected) in files.items():
        try:
            actual = _sha256(directory / name)
        except OSError as problem:
            if problem.errno in (errno.EIO, errno.ENOENT):  # the latter: another run put it aside or removed it meanwhile
                raise _CorruptError(f"{name} cannot be read ({problem.strerror})") from problem
            raise
        if actual != expected:
            raise _CorruptError(f"the content of {name} has changed")


def _payload_files(directory: Path) -> dict[str, int]:
    """Size in bytes by path relative to the entry, for all that is in the payload and is not a directory."""
    found = {}
    for parent, folders, names in os.walk(directory / "payload"):
        for name in (*names, *(folder for folder in folders if Path(parent, folder).is_symlink())):
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # removed by another run meanwhile; whoever wants it misses it
                found[path.relative_to(directory).as_posix()] = path.lstat().st_size
    return found


def why_not_kept(directory: Path, made: Mapping[str, Any]) -> str | None:
    """Why the store would not keep what is in ``directory`` with that provenance, and None where it would."""
    present = _payload_files(directory)
    if not present:
        return "it left no file"
    odd = sorted(name for name in present if (directory / name).is_symlink() or not (directory / name).is_file())
    if odd:
        return f"{odd[0].removeprefix('payload/')} is no plain file"
    clash = sorted(_RESERVED.intersection(made))
    return f"{', '.join(clash)} in its answer {'is' if len(clash) == 1 else 'are'} the store's to say" if clash else None


def _describe_payload(directory: Path, kind: str) -> dict[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for name, size in sorted(_payload_files(directory).items()):
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"the payload of a {kind} must be plain files, and {name} is not")
        files[name] = {"size": size, "sha256": _sha256(path)}
    if not files:
        raise StoreError(f"Making a {kind} left no file in its payload directory; its log says why.")
    return files


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _list(directory: Path) -> list[str]:
    """The names in a directory, sorted; none if it cannot be listed."""
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []


def _newest_change(path: Path) -> float:
    """When anything in a tree was last changed, in seconds since the epoch; now if that cannot be known."""
    newest = 0.0
    try:
        newest = path.lstat().st_mtime
        for parent, folders, names in os.walk(path):
            for name in (*folders, *names):
                newest = max(newest, Path(parent, name).lstat().st_mtime)
    except OSError:
        return time.time()
    return newest


def _owner_is_alive(temporary_name: str) -> bool:
    """Whether the process that made a name in tmp still runs here. A process of another machine cannot be seen: no."""
    parts = temporary_name.split("-")
    if len(parts) != 4 or parts[1] != _host() or not parts[2].isdigit():
        return False
    import psutil

    return bool(psutil.pid_exists(int(parts[2])))


def _host() -> str:
    # A cache may be shared over the network; the name must not hold the separator.
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())[:64] or "host"


def _remove_quietly(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
