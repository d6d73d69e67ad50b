"""Safe unpacking of archives that come from elsewhere, and finding the model inside.

Nothing that an archive says is believed: names are checked before anything is written, links are never made on disk (a link to a
file of the archive becomes a copy of it), bytes are counted while they are written whatever the header promises, and the result
appears under its name only once it is whole.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

from .atomic_files import describe_refusal, flush_directory
from .errors import FetchError

if TYPE_CHECKING:
    from typing_extensions import Self

ArchiveKind = Literal["tar", "zip"]

STORE_REMEDY = "name another directory with --gate-store"

_PIECE = 1 << 20  # bytes copied at once
_MAXIMUM_PADDING = 1 << 24  # bytes after the last entry of a tar; real ones have some 10 kB
_MAXIMUM_HEADER = 1 << 20  # bytes of one extended tar header; real ones hold a long name


def archive_kind(path: Path) -> ArchiveKind | None:
    """Tell by its content whether the file at ``path`` is a tar (plain or compressed) or a zip; None where it is neither."""
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        return "zip"
    try:
        with tarfile.open(path, "r:*", tarinfo=_BoundedTarInfo):
            return "tar"
    except _HeaderTooLargeError:
        return "tar"  # and unpacking it will say what is wrong
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return None


def unpack(archive: Path, destination: Path, *, maximum_bytes: int, maximum_files: int = 100_000) -> None:
    """Unpack ``archive`` into the new directory ``destination``, which appears only when everything is in it.

    ``maximum_bytes`` is the most that all files together may take unpacked, ``maximum_files`` the most entries. Raises
    :class:`FetchError` for names or links that lead out, devices, sockets and pipes, entries that occur twice, encrypted or
    damaged archives, and where a limit is passed; nothing is left behind then.
    """
    kind = archive_kind(archive)
    if kind is None:
        raise FetchError(f"{archive} is no .tar, .tar.gz, .tgz or .zip archive, or it is damaged; remove it and fetch it again.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        writer = _Writer(archive, temporary, maximum_bytes, maximum_files)
        try:
            if kind == "tar":
                _unpack_tar(archive, writer)
            else:
                _unpack_zip(archive, writer)
            writer.copy_links()
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise FetchError(
                f"{archive} is damaged or not readable as an archive ({error}); remove it and fetch it again."
            ) from None
        except OSError as error:
            if error.errno is None:  # gzip and bz2 say so that their data is bad
                raise FetchError(f"{archive} is damaged ({error}); remove it and fetch it again.") from None
            raise FetchError(describe_refusal(error, f"unpack {archive.name}", destination.parent, remedy=STORE_REMEDY)) from None
        except _HeaderTooLargeError as error:
            raise FetchError(f"{archive} is not unpacked: it has {error}; do not use this archive.") from None
        except (zlib.error, lzma.LZMAError) as error:
            raise FetchError(f"{archive} is damaged ({error}); remove it and fetch it again.") from None
        temporary.chmod(0o755)
        temporary.replace(destination)
        flush_directory(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def select_payload(root: Path, checkpoint_format: str, member: str | None, source: str) -> Path:
    """Find the model of ``checkpoint_format`` in the unpacked directory ``root``.

    Gives the directory of a SavedModel, the prefix of a TensorFlow 1 checkpoint (the name without ``.index``), or a file.
    ``member`` is the path inside ``root`` that the card names; without it there must be one candidate only. ``source`` names
    the archive in the :class:`FetchError` that lists the candidates.
    """
    candidates = sorted(_candidates(root, checkpoint_format))
    if member is None:
        if len(candidates) == 1:
            return candidates[0]
        what = _WHAT[checkpoint_format]
        if not candidates:
            raise FetchError(
                f"{source} holds {what[0]}; it holds {_listing(root)}. Set checkpoint.member or another checkpoint.format."
            )
        names = ", ".join(_shown(root, candidate) for candidate in candidates)
        raise FetchError(f"{source} holds several {what[1]}: {names}. Set checkpoint.member to one of them.")
    path = inside(root, member, source)
    if checkpoint_format == "tf1_checkpoint" and path.suffix in (".index", ".meta"):
        path = path.with_suffix("")
    if path in candidates or (checkpoint_format not in ("saved_model", "tf1_checkpoint") and path.is_file()):
        return path
    names = ", ".join(_shown(root, candidate) for candidate in candidates) or _listing(root)
    raise FetchError(
        f"{source} has no {_WHAT[checkpoint_format][2]} at {member!r}, which checkpoint.member names; it holds {names}."
    )


def inside(root: Path, member: str, source: str) -> Path:
    """The path of ``member`` below ``root``; :class:`FetchError` where it leads out."""
    parts = _safe_parts(member)
    if parts is None:
        raise FetchError(f"The member {member!r} of {source} leads out of the archive; name a path inside it.")
    return root.joinpath(*parts)


def tree_digest(path: Path) -> str:
    """SHA-256 over the names, sizes and contents of all files below the directory ``path``, or of the file at ``path``."""
    if path.is_file():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(
        (found for found in path.rglob("*") if found.is_file()), key=lambda found: found.relative_to(path).as_posix()
    ):
        digest.update(
            f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0{file_digest(file)}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    return digest.hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file, as lower-case hexadecimal digits."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


class _Writer:
    """Writes entries below ``root`` and refuses whatever leads out of it or passes a limit."""

    def __init__(self, archive: Path, root: Path, maximum_bytes: int, maximum_files: int) -> None:
        self._archive = archive
        self._root = root
        self._maximum_bytes = maximum_bytes
        self._maximum_files = maximum_files
        self._bytes = 0
        self._entries = 0
        self._links: dict[PurePosixPath, PurePosixPath] = {}  # name -> the name it points to

    def count_entry(self) -> None:
        self._entries += 1
        if self._entries > self._maximum_files:
            raise FetchError(f"{self._archive} holds more than {self._maximum_files} entries; it is not unpacked.")

    def add_directory(self, name: str) -> None:
        self._make_directory(self._checked(name))

    def add_file(self, name: str, stream: IO[bytes], size: int) -> None:
        parts = self._checked(name)
        if not parts:
            raise self._refused(name, "has no name")
        self._check_size(size)
        self._make_directory(parts[:-1])
        target = self._root.joinpath(*parts)
        self._refuse_second(name, target)
        with target.open("xb") as output:
            written = self._copy(stream, output)
            output.flush()
            os.fsync(output.fileno())
        if written != size:
            raise FetchError(f"{self._archive} is cut short or damaged: {name!r} has {written} of {size} bytes; fetch it again.")

    def add_link(self, name: str, target: str, *, relative_to_root: bool) -> None:
        """Note a link; ``target`` is relative to the archive's root for hard links, to the link's own directory for symbolic "
        "ones."""
        parts = self._checked(name)
        if not parts:
            raise self._refused(name, "has no name")
        start = () if relative_to_root else parts[:-1]
        resolved = None if _is_absolute(target) else _safe_parts(target, start)
        if resolved is None:
            raise self._refused(name, f"is a link that leads out of the archive, to {target!r}")
        link = PurePosixPath(*parts)
        if link in self._links:
            raise self._refused(name, "occurs twice")
        self._links[link] = PurePosixPath(*resolved)

    def refuse_special(self, name: str) -> None:
        raise self._refused(name, "is a device, a pipe or another special file")

    def copy_links(self) -> None:
        """Turn each link into a copy of what it points to. Links to directories have no use in a model and are refused."""
        for link, first in self._links.items():
            seen = {link}
            target = first
            while target in self._links:
                if target in seen:
                    raise self._refused(str(link), "is a link that points to itself")
                seen.add(target)
                target = self._links[target]
            source = self._root.joinpath(*target.parts)
            if not source.is_file():
                raise self._refused(str(link), f"is a link to {str(target)!r}, which is no file of the archive")
            with source.open("rb") as stream:
                self.add_file(str(link), stream, source.stat().st_size)

    def _copy(self, stream: IO[bytes], output: IO[bytes]) -> int:
        written = 0
        while piece := stream.read(_PIECE):
            self._check_size(len(piece))
            self._bytes += len(piece)
            written += output.write(piece)
        return written

    def _check_size(self, more: int) -> None:
        if self._bytes + more > self._maximum_bytes:
            raise FetchError(
                f"{self._archive} takes more than {self._maximum_bytes} bytes unpacked; it is not unpacked. "
                "If that is right, raise maximum_unpacked_bytes in the card."
            )

    def _make_directory(self, parts: tuple[str, ...]) -> None:
        path = self._root
        for part in parts:
            path = path / part
            if path.exists() and not path.is_dir():
                raise self._refused("/".join(parts), "is a file and a directory at once")
            path.mkdir(exist_ok=True)

    def _refuse_second(self, name: str, target: Path) -> None:
        if target.exists():
            raise self._refused(name, "occurs twice")

    def _checked(self, name: str) -> tuple[str, ...]:
        parts = None if _is_absolute(name) or ".." in name.replace("\\", "/").split("/") else _safe_parts(name)
        if parts is None:
            raise self._refused(name, "leads out of the archive")
        return parts

    def _refused(self, name: str, why: str) -> FetchError:
        shown = ascii(name if len(name) <= 120 else name[:117] + "...")
        return FetchError(f"{self._archive} is not unpacked: its entry {shown} {why}; do not use this archive.")


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":")


def _safe_parts(name: str, start: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """The parts of ``name``, taken from ``start``; None where they lead above the root or no file system could hold them."""
    if _is_absolute(name) or "\0" in name or "\\" in name:
        return None
    parts = list(start)
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return tuple(parts)


class _HeaderTooLargeError(Exception):
    pass


class _BoundedTarInfo(tarfile.TarInfo):
    """Refuses extended headers of a size that only an attack has: tarfile would read them whole into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if header.type in extended and header.size > _MAXIMUM_HEADER:
            raise _HeaderTooLargeError(f"an extended header of {header.size} bytes")
        return header


def _unpack_tar(archive: Path, writer: _Writer) -> None:
    with tarfile.open(archive, "r:*", tarinfo=_BoundedTarInfo) as tar:
        for entry in tar:
            writer.count_entry()
            if entry.isdir():
                writer.add_directory(entry.name)
            elif entry.issym():
                writer.add_link(entry.name, entry.linkname, relative_to_root=False)
            elif entry.islnk():
                writer.add_link(entry.name, entry.linkname, relative_to_root=True)
            elif entry.isreg():
                stream = tar.extractfile(entry)
                assert stream is not None  # regular files have content
                with stream:
                    writer.add_file(entry.name, stream, entry.size)
            else:
                writer.refuse_special(entry.name)
        # The checksum of a compressed tar comes after its last entry, where tarfile does not look.
        padding = 0
        while piece := tar.fileobj.read(_PIECE) if tar.fileobj is not None else b"":
            padding += len(piece)
            if padding > _MAXIMUM_PADDING:
                raise FetchError(f"{archive} is not unpacked: it goes on after its end; do not use this archive.")


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            writer.count_entry()
            mode = entry.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if entry.flag_bits & 0x1:
                raise FetchError(f"{archive} is encrypted; unpack it by hand and name the file in the card.")
            # orig_filename is the name as stored; filename has been cut at a NUL already.
            name = entry.orig_filename if "\0" in entry.orig_filename else entry.filename
            if kind == stat.S_IFLNK:
                if entry.file_size > 4096:
                    writer.refuse_special(name)
                writer.add_link(name, zipped.read(entry).decode("utf-8", "replace"), relative_to_root=False)
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                writer.refuse_special(name)
            elif name.endswith("/"):
                writer.add_directory(name)
            else:
                with zipped.open(entry) as stream:
                    writer.add_file(name, stream, entry.file_size)


# For each format: what an archive without one holds, the plural, the singular.
_WHAT = {
    "saved_model": ("no directory with a saved_model.pb", "SavedModels", "SavedModel"),
    "tf1_checkpoint": ("no checkpoint with .index, .data and .meta files", "checkpoints", "checkpoint"),
    "frozen_graph": ("no .pb file", "graphs", "graph"),
    "keras": ("no .keras or .h5 file", "Keras models", "Keras model"),
    "keras_weights": ("no .h5 file", "weight files", "weight file"),
    "torch_weights": ("no .pth or .pt file", "weight files", "weight file"),
    "tflite": ("no .tflite file", "TFLite models", "TFLite model"),
    "onnx": ("no .onnx file", "ONNX models", "ONNX model"),
    "other": ("no file", "files", "file"),
}
_SUFFIXES = {
    "frozen_graph": (".pb",),
    "keras": (".keras", ".h5", ".hdf5"),
    "keras_weights": (".h5", ".hdf5"),
    "torch_weights": (".pth", ".pt"),
    "tflite": (".tflite",),
    "onnx": (".onnx",),
    "other": ("",),
}


def _candidates(root: Path, checkpoint_format: str) -> Iterator[Path]:
    finders: dict[str, Callable[[list[Path]], Iterator[Path]]] = {
        "saved_model": _saved_models,
        "tf1_checkpoint": _tf1_checkpoints,
    }
    files = [file for file in root.rglob("*") if file.is_file() and not _is_litter(file.relative_to(root))]
    if checkpoint_format in finders:
        yield from finders[checkpoint_format](files)
        return
    for file in files:
        if file.name.endswith(_SUFFIXES[checkpoint_format]) and file.name != "saved_model.pb":
            yield file


def _saved_models(files: list[Path]) -> Iterator[Path]:
    yield from {file.parent for file in files if file.name in ("saved_model.pb", "saved_model.pbtxt")}


def _tf1_checkpoints(files: list[Path]) -> Iterator[Path]:
    names = {str(file) for file in files}
    for file in files:
        prefix = str(file)[: -len(".index")]
        if file.suffix == ".index" and f"{prefix}.meta" in names and any(name.startswith(f"{prefix}.data-") for name in names):
            yield Path(prefix)


def _is_litter(relative: Path) -> bool:
    """What macOS adds to archives."""
    return relative.name.startswith("._") or "__MACOSX" in relative.parts


def _shown(root: Path, path: Path) -> str:
    return repr(path.relative_to(root).as_posix())


def _listing(root: Path) -> str:
    names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return shown or "nothing"
