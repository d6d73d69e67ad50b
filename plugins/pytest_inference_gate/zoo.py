"""Fetching checkpoints and data sets, once, verified, and safe against being killed at any moment.

A download lies at ``<store>/downloads/<name>-<digest of its URL>/<file>``, an unpacked archive at
``<store>/unpacked/<digest>``. Both appear under these names only when they are whole: written under a temporary name, checked,
flushed, renamed, one process at a time. Everything fetched is checked against a digest: the card's, or the one that the lock
file beside the cards keeps from the first time (trust on first use), which is meant to be committed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from .archives import STORE_REMEDY, archive_kind, file_digest, inside, select_payload, tree_digest, unpack
from .atomic_files import describe_refusal, write_atomically
from .cards import DataSource, ModelCard
from .errors import FetchError

if TYPE_CHECKING:
    import requests

Progress = Callable[[str], None]

_PIECE = 1 << 16  # bytes asked for at once; small, so that a trickling server is noticed
_LONGEST_RETRY_AFTER = 30.0  # seconds; a server that asks for more is not waited for
_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_LOCK_HEADER = """\
# SHA-256 digests of files whose publisher gives none, as they were when they were first fetched.
# Written by the inference gate; commit this file. To accept a file that has changed, remove its entry.
"""


@dataclass(frozen=True)
class FetchedCheckpoint:
    """A checkpoint on this machine.

    ``path`` is a file, the directory of a SavedModel or the prefix of a TensorFlow 1 checkpoint; None for a seeded one.
    ``sha256`` is the digest of the file that was fetched (the archive, where it is packed), of all files of a local directory
    or checkpoint, or of architecture and seed.
    """

    path: Path | None
    sha256: str
    format: str


@dataclass(frozen=True)
class FetchedData:
    """A data set on this machine: an ``.npz`` or a folder. ``root`` is what its CSV's path is relative to; None for seeded "
    "pictures."""

    path: Path | None
    root: Path | None


@dataclass(frozen=True)
class DownloadSettings:
    """How patient a download is. Seconds, but for ``attempts`` and ``slowest`` (bytes per second over ``slow_window``)."""

    attempts: int = 4
    backoff: float = 1.0  # before the second attempt; doubled before each one after it
    connect_timeout: float = 15.0
    read_timeout: float = 30.0  # for a server that sends nothing at all
    slow_window: float = 60.0
    slowest: float = 1024.0  # for a server that sends a byte now and then


DEFAULT_SETTINGS = DownloadSettings()


def fetch_checkpoint(
    card: ModelCard,
    *,
    store_root: Path,
    lock_file: Path | None,
    mirror: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    settings: DownloadSettings = DEFAULT_SETTINGS,
) -> FetchedCheckpoint:
    """Have the checkpoint of ``card`` on this machine, verified and unpacked.

    ``lock_file`` keeps the digests of what was published without a SHA-256. ``mirror`` is a URL prefix that replaces scheme and
    host of the card's URL; the path stays. ``offline`` forbids downloads. ``progress`` gets one line now and then. Raises
    :class:`FetchError`.
    """
    checkpoint = card.checkpoint
    if checkpoint.format == "seeded":
        assert checkpoint.architecture is not None  # the card was checked
        ingredients = {"architecture": checkpoint.architecture.model_dump(mode="json"), "seed": checkpoint.seed}
        text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"))
        return FetchedCheckpoint(None, hashlib.sha256(text.encode()).hexdigest(), checkpoint.format)
    if checkpoint.url is None:
        assert checkpoint.file is not None
        return _local_checkpoint(card, card.directory / checkpoint.file, store_root)
    fetcher = _Fetcher(store_root, lock_file, mirror, offline, progress or _silent, settings)
    file, sha256 = fetcher.fetch(
        checkpoint.url,
        sha256=checkpoint.sha256,
        sha256_prefix=checkpoint.sha256_prefix,
        md5=checkpoint.md5,
        asked_by=f"{card.path}: checkpoint",
    )
    path = _payload(card, file, sha256, store_root)
    return FetchedCheckpoint(path, sha256, checkpoint.format)


def fetch_data(
    source: DataSource,
    card: ModelCard,
    *,
    store_root: Path,
    lock_file: Path | None,
    mirror: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    settings: DownloadSettings = DEFAULT_SETTINGS,
) -> FetchedData:
    """Have the data set ``source`` of ``card`` on this machine. Arguments and errors are those of :func:`fetch_checkpoint`."""
    try:
        return _data_of(source, card, store_root, lock_file, mirror, offline, progress, settings)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        raise FetchError(
            f"{card.path}: its data set cannot be read ({error.strerror or error}){place}; check the file."
        ) from None


def _data_of(
    source: DataSource,
    card: ModelCard,
    store_root: Path,
    lock_file: Path | None,
    mirror: str | None,
    offline: bool,
    progress: Progress | None,
    settings: DownloadSettings,
) -> FetchedData:
    if source.seed is not None:
        return FetchedData(None, None)
    if source.url is None:
        assert source.file is not None
        file = card.directory / source.file
        if not file.exists():
            raise FetchError(f"{card.path}: there is no data set at {file}; put it there or correct the card's 'file'.")
        if source.sha256 is not None:
            if file.is_dir():
                raise FetchError(
                    f"{card.path}: {file} is a folder, which sha256 cannot be checked for; remove sha256 from the card."
                )
            _check_digest(str(file), "sha256", source.sha256, file_digest(file), f"{card.path}")
        archive = file
        sha256 = None
    else:
        fetcher = _Fetcher(store_root, lock_file, mirror, offline, progress or _silent, settings)
        archive, sha256 = fetcher.fetch(source.url, sha256=source.sha256, md5=None, asked_by=f"{card.path}: data set")
    if archive.is_dir() or archive_kind(archive) is None or _is_npz(archive):
        return FetchedData(archive, card.directory)
    root = _unpacked(archive, sha256 or file_digest(archive), store_root, source.maximum_unpacked_bytes)
    path = inside(root, source.member, str(archive)) if source.member else root
    if not path.exists():
        raise FetchError(f"{archive} has no {source.member!r}, which 'member' of {card.path} names; correct it.")
    return FetchedData(path, root)


def _is_npz(path: Path) -> bool:
    """An .npz is a zip of arrays, whatever the URL that it came from calls it."""
    import zipfile

    if path.suffix == ".npz":
        return True
    if archive_kind(path) != "zip":
        return False
    try:
        with zipfile.ZipFile(path) as zipped:
            return "images.npy" in zipped.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False  # and unpacking it will say what is wrong


def mirrored(url: str, mirror: str | None) -> str:
    """``url`` with its scheme and host replaced by the prefix ``mirror``; path and query stay."""
    if mirror is None:
        return url
    try:
        prefix = urlsplit(mirror)
    except ValueError:  # half an IPv6 address
        prefix = urlsplit("")
    if prefix.scheme not in ("http", "https") or not prefix.hostname or prefix.query or prefix.fragment:
        raise FetchError(f"The mirror {mirror!r} is no URL prefix; expected something like https://mirror.example.org/models.")
    if prefix.username is not None or prefix.password is not None:  # it would end up in the lock file
        raise FetchError("The mirror has a user name or a password in its URL; leave them out and put them into ~/.netrc.")
    parts = urlsplit(url)
    return mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def _local_checkpoint(card: ModelCard, path: Path, store_root: Path) -> FetchedCheckpoint:
    checkpoint = card.checkpoint
    parts = _tf1_files(path) if checkpoint.format == "tf1_checkpoint" and not path.exists() else []
    if not path.exists() and not parts:
        raise FetchError(f"{card.path}: there is no checkpoint at {path}; put it there or correct checkpoint.file.")
    try:
        if parts:
            listing = "".join(f"{part.name}\0{file_digest(part)}\n" for part in parts)
            sha256 = hashlib.sha256(listing.encode()).hexdigest()
        else:
            sha256 = tree_digest(path)
    except OSError as error:
        raise FetchError(
            f"{card.path}: the checkpoint {path} cannot be read ({error.strerror}); check its permissions."
        ) from None
    if checkpoint.md5 is not None:
        if not path.is_file():
            raise FetchError(f"{card.path}: checkpoint.md5 is for one file, and {path} is several; use sha256.")
        _check_digest(str(path), "md5", checkpoint.md5, file_digest(path, "md5"), str(card.path))
    if checkpoint.sha256 is not None:
        _check_digest(str(path), "sha256", checkpoint.sha256, sha256, str(card.path))
    if checkpoint.sha256_prefix is not None:
        _check_digest(str(path), "sha256", checkpoint.sha256_prefix, sha256, str(card.path))
    if parts:
        return FetchedCheckpoint(path, sha256, checkpoint.format)
    if path.is_dir():
        found = select_payload(path, checkpoint.format, checkpoint.member, str(path))
        return FetchedCheckpoint(found, sha256, checkpoint.format)
    return FetchedCheckpoint(_payload(card, path, sha256, store_root), sha256, checkpoint.format)


def _tf1_files(prefix: Path) -> list[Path]:
    """The files of the checkpoint with this prefix; empty where one is missing."""
    if not prefix.parent.is_dir():
        return []
    found = sorted(file for file in prefix.parent.iterdir() if file.name.startswith(prefix.name + ".") and file.is_file())
    suffixes = {file.name[len(prefix.name) :].split("-")[0] for file in found}
    kept = [file for file in found if file.name[len(prefix.name) :].split("-")[0] in (".index", ".meta", ".data")]
    return kept if {".index", ".meta", ".data"} <= suffixes else []


def _payload(card: ModelCard, file: Path, sha256: str, store_root: Path) -> Path:
    """The model in ``file``: the file itself, or what is found in it where it is an archive."""
    checkpoint = card.checkpoint
    kind = archive_kind(file)
    # A .keras or .pth file is a zip, and is the model; only a member, or a name that says so, makes it an archive that holds one.
    is_model = (
        checkpoint.format in ("keras", "torch_weights") and kind == "zip" and checkpoint.member is None and file.suffix != ".zip"
    )
    if kind is not None and not is_model:
        root = _unpacked(file, sha256, store_root, checkpoint.maximum_unpacked_bytes)
        return select_payload(root, checkpoint.format, checkpoint.member, str(file))
    if checkpoint.member is not None:
        raise FetchError(
            f"{card.path}: checkpoint.member is set, but {file} is no archive; remove the member or correct the file."
        )
    if checkpoint.format in ("saved_model", "tf1_checkpoint"):
        raise FetchError(
            f"{card.path}: {file} is no archive, as a {checkpoint.format} that is one file has to be; correct the card."
        )
    return file


def _unpacked(archive: Path, sha256: str, store_root: Path, maximum_bytes: int) -> Path:
    """The directory that holds what ``archive`` holds; unpacked again where what lies there is no longer what was unpacked."""
    directory = store_root / "unpacked" / sha256
    manifest = directory.with_name(f"{sha256}.tree")
    with _store_errors(directory.parent), _exclusive(directory.with_name(f".{sha256}.lock"), None):
        if directory.is_dir():
            if manifest.is_file() and manifest.read_text(encoding="ascii", errors="replace") == tree_digest(directory):
                return directory
            shutil.rmtree(directory)
        for leftover in directory.parent.glob(f".{sha256}.*"):
            if leftover.is_dir():  # of a run that was killed; nobody else is here, the lock says
                shutil.rmtree(leftover, ignore_errors=True)
        unpack(archive, directory, maximum_bytes=maximum_bytes)
        write_atomically(manifest, tree_digest(directory).encode(), error=FetchError, remedy=STORE_REMEDY)
        return directory


class _Fetcher:
    def __init__(
        self,
        store_root: Path,
        lock_file: Path | None,
        mirror: str | None,
        offline: bool,
        progress: Progress,
        settings: DownloadSettings,
    ) -> None:
        self._store_root = store_root
        self._lock_file = lock_file
        self._mirror = mirror
        self._offline = offline
        self._progress = progress
        self._settings = settings

    def fetch(
        self, url: str, *, sha256: str | None, md5: str | None, asked_by: str, sha256_prefix: str | None = None
    ) -> tuple[Path, str]:
        """The file at ``url`` on this machine, and its SHA-256."""
        file = self._place(url)
        waiting = f"Waiting for another run that fetches {file.name}."
        with _store_errors(file.parent), _exclusive(file.parent / ".lock", lambda: self._progress(waiting)):
            pin = None if sha256 is not None else self._pin(url)
            expected = _Expected(sha256, md5, pin, self._lock_file, asked_by, sha256_prefix)
            if sha256 is None and md5 is None and sha256_prefix is None and self._lock_file is None:
                raise FetchError(
                    f"{asked_by}: nothing says what {url} should contain, and there is no lock file to write it down; add its "
                    "sha256 to the card."
                )
            present = self._present(file, url, expected)
            if present is None:
                present = self._download(file, url, expected)
            if sha256 is None and pin is None and self._lock_file is not None:
                _add_pin(self._lock_file, url, present, file.stat().st_size, self._origin(file, url))
            return file, present

    def _place(self, url: str) -> Path:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(PurePosixPath(urlsplit(url).path).name))[-100:].lstrip(".") or "file"
        key = hashlib.sha256(url.encode()).hexdigest()[:16]
        return self._store_root / "downloads" / f"{name[:60]}-{key}" / name

    def _present(self, file: Path, url: str, expected: _Expected) -> str | None:
        """The digest of what lies at ``file`` already; None where it has to be fetched."""
        if not file.is_file():
            if self._offline:
                raise FetchError(
                    f"{expected.asked_by}: {url} is not on this machine and the run is offline; put the file at {file}, "
                    "or run once without the offline option."
                )
            return None
        try:
            digest = file_digest(file)
            expected.check(str(file), digest, file_digest(file, "md5") if expected.md5 else None)
        except OSError as error:
            raise FetchError(f"{file} cannot be read ({error.strerror}); check its permissions.") from None
        except FetchError:
            if self._offline:
                raise
            self._progress(f"{file.name} in the store is not what it should be; it is fetched again.")
            return None
        return digest

    def _pin(self, url: str) -> Mapping[str, Any] | None:
        return _read_lock(self._lock_file).get(url) if self._lock_file is not None else None

    def _origin(self, file: Path, url: str) -> str:
        try:
            return (file.parent / ".origin").read_text(encoding="utf-8").strip() or url
        except OSError:  # put there by hand, as the offline error says
            return f"found in the store as {file.name}"

    def _download(self, file: Path, url: str, expected: _Expected) -> str:
        import pooch
        import requests

        address = mirrored(url, self._mirror)
        incoming = file.with_name(f".{file.name}.incoming")
        for leftover in file.parent.iterdir():
            if leftover.name not in (".lock", ".origin", file.name):  # half a download of a run that was killed
                leftover.unlink(missing_ok=True)
        pooch.get_logger().setLevel("ERROR")  # this module reports for itself
        digest = ""

        def download(source: str, output: object, _: object) -> None:
            nonlocal digest
            digest = self._stream(source, Path(str(output)), expected)

        wait = self._settings.backoff
        for attempt in range(1, self._settings.attempts + 1):
            try:
                known = expected.wanted_sha256 or (f"md5:{expected.md5}" if expected.md5 else None)
                pooch.retrieve(address, known_hash=known, fname=incoming.name, path=file.parent, downloader=cast(Any, download))
                incoming.replace(file)  # only now: an older file stays until there is a better one
                write_atomically(file.parent / ".origin", f"{address}\n".encode(), error=FetchError, remedy=STORE_REMEDY)
                return digest
            except _TransientError as error:
                problem: str = str(error)
                wait = max(wait, error.retry_after)
            except requests.exceptions.RequestException as error:
                problem = _request_problem(error, self._settings)
                if not _worth_another_try(error):
                    raise FetchError(f"{expected.asked_by}: {address} could not be fetched: {problem}.") from None
            if attempt < self._settings.attempts:
                self._progress(
                    f"{file.name}: {problem}; trying again in {wait:g} s ({attempt} of {self._settings.attempts} tries failed)."
                )
                time.sleep(wait)
                wait *= 2
        raise FetchError(
            f"{expected.asked_by}: {address} could not be fetched in {self._settings.attempts} tries: {problem}; "
            "try again later, or name a mirror."
        )

    def _stream(self, address: str, output: Path, expected: _Expected) -> str:
        """Fetch ``address`` into the temporary file ``output``, checked and flushed; its SHA-256."""
        import requests

        timeout = (self._settings.connect_timeout, self._settings.read_timeout)
        # identity: the digest and the length are those of the file, not of a compressed transfer.
        with requests.get(address, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}) as response:
            _check_response(response, address, expected.asked_by)
            length = _content_length(response)
            if length is None and expected.first_use:
                raise FetchError(
                    f"{expected.asked_by}: {address} gives neither length nor digest, so that a cut download could not be told "
                    "from "
                    "a whole one; add its sha256 to the card."
                )
            free = shutil.disk_usage(output.parent).free
            if length is not None and length > free:
                raise OSError(errno.ENOSPC, "the file does not fit")
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            received = 0
            with output.open("wb") as stream, _bar(_name_in(address), length, self._progress) as advance:
                for piece in _paced(_pieces(response), self._settings):
                    stream.write(piece)
                    sha256.update(piece)
                    md5.update(piece)
                    received += len(piece)
                    advance(len(piece))
                stream.flush()
                os.fsync(stream.fileno())
        if length is not None and received != length:
            raise _TransientError(f"the server sent {received} of {length} bytes")
        expected.check(address, sha256.hexdigest(), md5.hexdigest())
        return sha256.hexdigest()


@dataclass(frozen=True)
class _Expected:
    """What is known of a file's content beforehand."""

    sha256: str | None
    md5: str | None
    pin: Mapping[str, Any] | None
    lock_file: Path | None
    asked_by: str
    sha256_prefix: str | None = None  # of so many digits as the publisher tells

    @property
    def wanted_sha256(self) -> str | None:
        return self.sha256 or (str(self.pin["sha256"]) if self.pin else None)

    @property
    def first_use(self) -> bool:
        return self.wanted_sha256 is None and self.md5 is None and self.sha256_prefix is None

    def check(self, what: str, sha256: str, md5: str | None) -> None:
        if self.md5 is not None and md5 is not None:
            _check_digest(what, "md5", self.md5, md5, self.asked_by)
        if self.sha256_prefix is not None:
            _check_digest(what, "sha256", self.sha256_prefix, sha256, self.asked_by)
        if self.sha256 is not None:
            _check_digest(what, "sha256", self.sha256, sha256, self.asked_by)
        elif self.pin is not None and self.pin["sha256"] != sha256:
            raise FetchError(
                f"{self.asked_by}: {what} has changed: its sha256 is {sha256}, but {self.lock_file} has {self.pin['sha256']} "
                "from "
                f"{self.pin.get('first_seen', 'an unknown day')}; if the change is wanted, remove its entry from that file and "
                "run again, "
                "else have the old file back from its publisher."
            )


class _TransientError(Exception):
    """Something that another try may mend."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def _check_digest(what: str, algorithm: str, expected: str, found: str, asked_by: str) -> None:
    """``expected`` may be the beginning of a digest."""
    if not found.startswith(expected):
        raise FetchError(
            f"{asked_by}: {what} has the wrong content: its {algorithm} is {found}, the card says {expected}; "
            "correct the card if it is out of date, else do not use this file."
        )


def _check_response(response: requests.Response, address: str, asked_by: str) -> None:
    import requests

    schemes = [urlsplit(hop.url).scheme for hop in [*response.history, response]]
    if "https" in schemes and "http" in schemes[schemes.index("https") :]:
        raise FetchError(
            f"{asked_by}: {address} leads from https to http, at {response.url}; that is not followed. Correct the URL."
        )
    if response.status_code in _RETRIED_STATUS:
        raise _TransientError(f"the server answered {response.status_code} {response.reason}", _retry_after(response))
    if response.status_code != 200:
        raise requests.exceptions.HTTPError(f"{response.status_code} {response.reason}", response=response)


def _retry_after(response: requests.Response) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", "0"))
    except ValueError:  # a date
        return 0.0
    return seconds if 0 <= seconds <= _LONGEST_RETRY_AFTER else 0.0


def _content_length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    if not text.isascii() or not text.isdigit() or response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    return int(text)


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in; a piece is there as soon as something has come, so that a trickle is seen as one."""
    import http.client

    import urllib3

    raw = response.raw
    decode = response.headers.get("Content-Encoding", "identity") != "identity"
    try:
        if not decode and hasattr(raw, "read1"):  # urllib3 2.1 and later
            while piece := raw.read1(_PIECE):
                yield piece
        else:
            yield from response.iter_content(_PIECE)
    except urllib3.exceptions.ReadTimeoutError:
        raise _TransientError("the server stopped sending") from None
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = "the server stopped sending" if isinstance(error, TimeoutError) else "the connection broke off"
        raise _TransientError(reason) from None


def _paced(pieces: Iterator[bytes], settings: DownloadSettings) -> Iterator[bytes]:
    start = time.monotonic()
    received = 0
    for piece in pieces:
        received += len(piece)
        now = time.monotonic()
        if now - start >= settings.slow_window:
            if received < settings.slowest * (now - start):
                raise _TransientError(f"the server sent only {received} bytes in {now - start:.0f} s")
            start, received = now, 0
        yield piece


def _worth_another_try(error: requests.exceptions.RequestException) -> bool:
    import requests

    hopeless = (requests.exceptions.HTTPError, requests.exceptions.TooManyRedirects, requests.exceptions.SSLError)
    if isinstance(error, (*hopeless, ValueError)):  # ValueError: URLs and schemes that requests does not take
        return False
    return isinstance(
        error, (requests.exceptions.ConnectionError, requests.exceptions.Timeout, requests.exceptions.ChunkedEncodingError)
    )


def _request_problem(error: requests.exceptions.RequestException, settings: DownloadSettings) -> str:
    import requests

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"the server did not answer within {settings.connect_timeout:g} s"
    if isinstance(error, requests.exceptions.Timeout):
        return f"the server sent nothing for {settings.read_timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate was not accepted ({_root_cause(error)})"
    if isinstance(error, requests.exceptions.HTTPError):
        return f"the server answered {error}"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"no connection ({_root_cause(error)})"
    return _root_cause(error)


def _root_cause(error: BaseException) -> str:
    """What was at the bottom of a chain of wrappers, in one short line."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__ or error
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__


def _name_in(address: str) -> str:
    """The file name in a URL, for messages."""
    return PurePosixPath(urlsplit(address).path).name or address


@contextmanager
def _bar(name: str, length: int | None, progress: Progress) -> Iterator[Callable[[int], None]]:
    """A tqdm bar where stderr is a terminal and tqdm is there, else a line through ``progress`` at the start and every five "
    "seconds."""
    if sys.stderr is not None and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            with tqdm(total=length, desc=name, unit="B", unit_scale=True, leave=False) as bar:
                yield lambda count: cast(None, bar.update(count))
            return
    size = f"{length / 1e6:.1f} MB" if length is not None else "size unknown"
    progress(f"Fetching {name} ({size}).")
    received = 0
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal received, last
        received += count
        now = time.monotonic()
        if now - last >= 5:
            last = now
            share = f"{100 * received // length} % of {size}" if length else f"{received / 1e6:.1f} MB"
            progress(f"{name}: {share}.")

    yield advance


@contextmanager
def _exclusive(path: Path, waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock at ``path``, which dies with its process; ``waiting`` is called once where another process holds it."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _store_errors(directory: Path) -> Iterator[None]:
    """Turn what the file system says into a sentence; requests' errors, which are OSErrors too, pass."""
    try:
        yield
    except OSError as error:
        if type(error).__module__.partition(".")[0] == "requests":
            raise
        raise FetchError(describe_refusal(error, "keep what is fetched", directory, remedy=STORE_REMEDY)) from None


def _read_lock(lock_file: Path) -> dict[str, Mapping[str, Any]]:
    """The entries of the lock file by URL; empty where there is none yet."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(lock_file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FetchError(f"{lock_file} cannot be read ({error.strerror}); check its permissions.") from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise FetchError(f"{lock_file} is not TOML ({reason}); restore it from version control, or correct it.") from None
    entries: dict[str, Mapping[str, Any]] = {}
    files = document.get("file", [])
    for entry in files if isinstance(files, list) else [files]:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("url"), str)
            or not re.fullmatch(r"[0-9a-f]{64}", str(entry.get("sha256")))
            or entry["url"] in entries
        ):
            raise FetchError(
                f"{lock_file} has an entry without a url of its own and a sha256; restore it from version control, or correct it."
            )
        entries[entry["url"]] = entry
    return entries


def _add_pin(lock_file: Path, url: str, sha256: str, size: int, origin: str) -> None:
    """Write the digest of ``url`` into the lock file; :class:`FetchError` where another one got there first."""
    remedy = f"add sha256 = '{sha256}' to the card"
    try:
        with _exclusive(lock_file.with_name(f".{lock_file.name}.lock"), None):
            entries = _read_lock(lock_file)
            if url in entries:
                if entries[url]["sha256"] != sha256:
                    raise FetchError(f"{lock_file} has got another sha256 for {url} in the meantime; run again.")
                return
            now = datetime.now(timezone.utc).replace(microsecond=0)
            entries[url] = {"url": url, "sha256": sha256, "bytes": size, "first_seen": now, "fetched_from": origin}
            text = _LOCK_HEADER + "".join(_lock_entry(entries[key]) for key in sorted(entries))
            write_atomically(lock_file, text.encode(), error=FetchError, remedy=remedy)
    except OSError as error:
        raise FetchError(describe_refusal(error, f"write {lock_file.name}", lock_file.parent, remedy=remedy)) from None


def _lock_entry(entry: Mapping[str, Any]) -> str:
    lines = ["\n[[file]]\n"]
    for key in ("url", "sha256", "bytes", "first_seen", "fetched_from"):
        value = entry.get(key)
        if isinstance(value, datetime):
            lines.append(f"{key} = {value.astimezone(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')}\n")
        elif isinstance(value, int):
            lines.append(f"{key} = {value}\n")
        elif value is not None:
            # JSON's escapes are TOML's too, but for DEL, which no URL and no file name of the store has.
            lines.append(f"{key} = {json.dumps(str(value), ensure_ascii=False)}\n")
    return "".join(lines)


def _silent(_: str) -> None:
    pass
