"""Unpacking archives that nobody vouches for, and finding the model in them."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.archives import archive_kind, file_digest, select_payload, tree_digest, unpack
from pytest_inference_gate.errors import FetchError

Entry = tuple[tarfile.TarInfo, bytes]
LIMIT = 10_000_000


def entry(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, target: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def tar(path: Path, *entries: Entry, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def nothing_left(folder: Path) -> bool:
    """Nothing but the archive itself: no result, no temporary directory."""
    return [found.name for found in folder.iterdir() if found.is_dir()] == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_unpacked(tmp_path: Path, mode: str) -> None:
    archive = tar(tmp_path / "a", entry("m/", kind=tarfile.DIRTYPE), entry("m/a.pb", b"graph"), entry("./b.txt", b""), mode=mode)
    assert archive_kind(archive) == "tar"
    unpack(archive, tmp_path / "out" / "model", maximum_bytes=LIMIT)
    assert (tmp_path / "out" / "model" / "m" / "a.pb").read_bytes() == b"graph"
    assert (tmp_path / "out" / "model" / "b.txt").read_bytes() == b""
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["model"]


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", **{"m/": b"", "m/a.pb": b"graph"})
    assert archive_kind(archive) == "zip"
    unpack(archive, tmp_path / "out", maximum_bytes=LIMIT)
    assert (tmp_path / "out" / "m" / "a.pb").read_bytes() == b"graph"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b\x08", b"TFL3" * 200, b"\0" * 100])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert archive_kind(path) is None
    with pytest.raises(FetchError, match="no .tar"):
        unpack(path, tmp_path / "out", maximum_bytes=LIMIT)


HOSTILE = {
    "dotdot": [entry("../escaped")],
    "dotdot inside": [entry("a/../../escaped")],
    "dotdot that comes back": [entry("a/../b")],
    "absolute": [entry("/escaped")],
    "backslash": [entry("..\\escaped")],
    "drive": [entry("C:escaped")],
    "symlink out": [entry("link", kind=tarfile.SYMTYPE, target="../escaped")],
    "symlink absolute": [entry("link", kind=tarfile.SYMTYPE, target="/etc/passwd")],
    "symlink deep out": [entry("a/link", kind=tarfile.SYMTYPE, target="../../escaped")],
    "symlink then write through it": [entry("d", kind=tarfile.SYMTYPE, target="/tmp"), entry("d/escaped")],
    "symlink to a directory": [entry("a/f"), entry("d", kind=tarfile.SYMTYPE, target="a")],
    "symlink to itself": [entry("a", kind=tarfile.SYMTYPE, target="b"), entry("b", kind=tarfile.SYMTYPE, target="a")],
    "symlink to nothing": [entry("a", kind=tarfile.SYMTYPE, target="nothing")],
    "hard link out": [entry("link", kind=tarfile.LNKTYPE, target="../escaped")],
    "hard link absolute": [entry("link", kind=tarfile.LNKTYPE, target="/etc/passwd")],
    "character device": [entry("null", kind=tarfile.CHRTYPE)],
    "block device": [entry("disk", kind=tarfile.BLKTYPE)],
    "fifo": [entry("pipe", kind=tarfile.FIFOTYPE)],
    "file twice": [entry("a"), entry("a", b"other")],
    "link over a file": [entry("a"), entry("a", kind=tarfile.SYMTYPE, target="a")],
    "file and directory": [entry("a"), entry("a/b")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    archive = tar(folder / "a.tar.gz", *HOSTILE[name])
    with pytest.raises(FetchError, match="is not unpacked") as caught:
        unpack(archive, folder / "out", maximum_bytes=LIMIT)
    assert str(archive) in str(caught.value)
    assert nothing_left(folder)
    assert not (tmp_path / "escaped").exists() and not (folder / "escaped").exists() and not Path("/tmp/escaped").exists()


def test_links_to_files_inside_become_copies(tmp_path: Path) -> None:
    archive = tar(
        tmp_path / "a.tar",
        entry("versions/1/model.pb", b"graph"),
        entry("versions/current.pb", kind=tarfile.SYMTYPE, target="./1/model.pb"),
        entry("model.pb", kind=tarfile.LNKTYPE, target="versions/1/model.pb"),
        entry("again.pb", kind=tarfile.SYMTYPE, target="versions/current.pb"),
        mode="w",
    )
    unpack(archive, tmp_path / "out", maximum_bytes=LIMIT)
    for name in ("versions/current.pb", "model.pb", "again.pb"):
        found = tmp_path / "out" / name
        assert not found.is_symlink() and found.stat().st_nlink == 1 and found.read_bytes() == b"graph"


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "..\\escaped"])
def test_a_hostile_zip_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    archive = zipped(folder / "a.zip", **{name: b"x"})
    with pytest.raises(FetchError, match="leads out"):
        unpack(archive, folder / "out", maximum_bytes=LIMIT)
    assert nothing_left(folder) and not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(("mode", "content"), [(stat.S_IFLNK, b"../escaped"), (stat.S_IFIFO, b""), (stat.S_IFCHR, b"")])
def test_special_entries_of_a_zip_are_refused(tmp_path: Path, mode: int, content: bytes) -> None:
    info = zipfile.ZipInfo("special")
    info.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, content)
    with pytest.raises(FetchError, match="leads out|special file"):
        unpack(tmp_path / "a.zip", tmp_path / "out", maximum_bytes=LIMIT)


def bomb_tar(folder: Path) -> Path:
    return tar(folder / "bomb.tar.gz", entry("zeros", bytes(2_000_000)), entry("more", bytes(2_000_000)))


def bomb_zip(folder: Path) -> Path:
    return zipped(folder / "bomb.zip", zeros=bytes(4_000_000))


@pytest.mark.parametrize("make", [bomb_tar, bomb_zip])
def test_a_bomb_is_stopped_by_the_bytes_that_come_out(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    archive = make(tmp_path)
    assert archive.stat().st_size < 10_000
    with pytest.raises(FetchError, match="maximum_unpacked_bytes"):
        unpack(archive, tmp_path / "out", maximum_bytes=3_000_000)
    assert nothing_left(tmp_path)
    unpack(archive, tmp_path / "out", maximum_bytes=4_000_000)


def test_copies_of_links_count_as_bytes_too(tmp_path: Path) -> None:
    links = [entry(f"link{number}", kind=tarfile.SYMTYPE, target="zeros") for number in range(10)]
    archive = tar(tmp_path / "a.tar.gz", entry("zeros", bytes(1_000_000)), *links)
    with pytest.raises(FetchError, match="maximum_unpacked_bytes"):
        unpack(archive, tmp_path / "out", maximum_bytes=5_000_000)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", zeros=bytes(4_000_000))
    content = archive.read_bytes()
    lied = content.replace((4_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lied != content
    archive.write_bytes(lied)
    with pytest.raises(FetchError):
        unpack(archive, tmp_path / "out", maximum_bytes=3_000_000)
    assert nothing_left(tmp_path)


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", *[entry(f"f{number}", b"") for number in range(11)], mode="w")
    with pytest.raises(FetchError, match="more than 10 entries"):
        unpack(archive, tmp_path / "out", maximum_bytes=LIMIT, maximum_files=10)


def test_a_giant_extended_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        stream.write(header.tobuf(tarfile.USTAR_FORMAT if header.size < 8**11 else tarfile.GNU_FORMAT))
        stream.write(bytes(1 << 16))
    with pytest.raises(FetchError, match="extended header of 1099511627776 bytes"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", maximum_bytes=LIMIT)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    makers: list[Callable[[], Path]] = [
        lambda: tar(tmp_path / "a.tar.gz", entry("a", os.urandom(200_000)), entry("b", os.urandom(200_000))),
        lambda: tar(tmp_path / "a.tar", entry("a", os.urandom(200_000)), entry("b", os.urandom(200_000)), mode="w"),
        lambda: zipped(tmp_path / "a.zip", a=os.urandom(200_000), b=os.urandom(200_000)),
    ]
    for make in makers:
        archive = make()
        content = archive.read_bytes()
        archive.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(FetchError):
            unpack(archive, tmp_path / "out", maximum_bytes=LIMIT)
        assert nothing_left(tmp_path)


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_an_archive_with_damaged_content_is_refused(tmp_path: Path, suffix: str) -> None:
    content = bytes(range(256)) * 2000
    archive = tar(tmp_path / "a", entry("a", content)) if suffix == "tar.gz" else zipped(tmp_path / "a", a=content)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0xFF
    archive.write_bytes(bytes(data))
    with pytest.raises(FetchError):
        unpack(archive, tmp_path / "out", maximum_bytes=LIMIT)
    assert nothing_left(tmp_path)


_NAMES = st.text(st.sampled_from(list("ab./\\~:\0 é")), min_size=1, max_size=12)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@settings(max_examples=200, deadline=None)
@given(entries=st.lists(st.tuples(_NAMES, _KINDS, _NAMES), min_size=1, max_size=5))
def test_no_names_ever_land_outside(tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes, str]]) -> None:
    outer = tmp_path_factory.mktemp("outer")
    (outer / "archives").mkdir()
    (outer / "deep" / "er").mkdir(parents=True)
    archive = tar(outer / "archives" / "a.tar", *[entry(name, b"x", kind, target) for name, kind, target in entries], mode="w")
    destination = outer / "deep" / "er" / "out"
    try:
        unpack(archive, destination, maximum_bytes=LIMIT)
    except FetchError:
        assert not destination.exists()
    found = {path.relative_to(outer).as_posix() for path in outer.rglob("*")}
    assert {name for name in found if not name.startswith("deep/er/out")} == {"archives", "archives/a.tar", "deep", "deep/er"}
    assert not any(path.is_symlink() for path in outer.rglob("*"))


@settings(max_examples=100, deadline=None)
@given(names=st.lists(_NAMES, min_size=1, max_size=4, unique=True))
def test_no_names_of_a_zip_ever_land_outside(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    outer = tmp_path_factory.mktemp("outer")
    with zipfile.ZipFile(outer / "a.zip", "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            archive.writestr(info, b"x")
    try:
        unpack(outer / "a.zip", outer / "out", maximum_bytes=LIMIT)
    except FetchError:
        assert not (outer / "out").exists()
    assert {path.name for path in outer.iterdir()} <= {"a.zip", "out"}


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


SLIM = (
    "mobilenet_v1.ckpt.index",
    "mobilenet_v1.ckpt.meta",
    "mobilenet_v1.ckpt.data-00000-of-00001",
    "mobilenet_v1_frozen.pb",
    "mobilenet_v1.tflite",
    "mobilenet_v1_info.txt",
)


@pytest.mark.parametrize(
    ("checkpoint_format", "expected"),
    [("tf1_checkpoint", "mobilenet_v1.ckpt"), ("frozen_graph", "mobilenet_v1_frozen.pb"), ("tflite", "mobilenet_v1.tflite")],
)
def test_the_model_is_found_by_its_format(tmp_path: Path, checkpoint_format: str, expected: str) -> None:
    root = tree(tmp_path, *SLIM, "__MACOSX/._mobilenet_v1.tflite", "._mobilenet_v1.tflite")
    assert select_payload(root, checkpoint_format, None, "a.tgz") == root / expected


@pytest.mark.parametrize("where", ["", "export/1/"])
def test_a_saved_model_is_found_wherever_it_is(tmp_path: Path, where: str) -> None:
    root = tree(
        tmp_path, f"{where}saved_model.pb", f"{where}variables/variables.index", f"{where}variables/variables.data-00000-of-00001"
    )
    assert select_payload(root, "saved_model", None, "a.tgz") == root / where


def test_several_candidates_are_listed_and_a_member_decides(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/saved_model.pb", "b/saved_model.pb", "b/notes.txt")
    with pytest.raises(FetchError, match=r"a.tgz holds several SavedModels: 'a', 'b'. Set checkpoint.member"):
        select_payload(root, "saved_model", None, "a.tgz")
    assert select_payload(root, "saved_model", "b/", "a.tgz") == root / "b"
    with pytest.raises(FetchError, match="has no SavedModel at 'c'"):
        select_payload(root, "saved_model", "c", "a.tgz")


def test_no_candidate_lists_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"holds no \.onnx file; it holds model.txt"):
        select_payload(tree(tmp_path, "model.txt"), "onnx", None, "a.zip")


def test_a_checkpoint_without_its_graph_is_no_candidate(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no checkpoint with .index, .data and .meta"):
        select_payload(tree(tmp_path, "m.index", "m.data-00000-of-00001"), "tf1_checkpoint", None, "a.zip")


@pytest.mark.parametrize("member", ["m.ckpt", "m.ckpt.index", "m.ckpt.meta"])
def test_a_checkpoint_is_named_by_its_prefix_or_one_of_its_files(tmp_path: Path, member: str) -> None:
    root = tree(tmp_path, *[f"{name}.{end}" for name in ("m.ckpt", "n.ckpt") for end in ("index", "meta", "data-00000-of-00001")])
    assert select_payload(root, "tf1_checkpoint", member, "a.zip") == root / "m.ckpt"


def test_a_member_does_not_lead_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "a.pb")
    (tmp_path / "b.pb").write_bytes(b"")
    with pytest.raises(FetchError, match="leads out"):
        select_payload(root, "frozen_graph", "../b.pb", "a.zip")


def test_the_digest_of_a_tree_sees_names_contents_and_borders(tmp_path: Path) -> None:
    digests = {
        tree_digest(tree(tmp_path / "1", "a", "b/c")),
        tree_digest(tree(tmp_path / "2", "a", "bc")),
        tree_digest(tree(tmp_path / "3", "a")),
    }
    assert len(digests) == 3
    assert tree_digest(tree(tmp_path / "4", "a", "b/c")) in digests
    assert tree_digest(tmp_path / "3" / "a") == file_digest(tmp_path / "3" / "a")


def test_a_tar_that_goes_on_after_its_end_is_refused(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", entry("a"), mode="w")
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        stream.write(archive.read_bytes() + bytes(1 << 25))
    with pytest.raises(FetchError, match="goes on after its end"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", maximum_bytes=LIMIT)
