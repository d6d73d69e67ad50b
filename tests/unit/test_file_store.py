"""What a board does with the files that it is sent, run here as the program that it is."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import file_store
from pytest_inference_gate.errors import GateError
from pytest_inference_gate.targets import ssh_files
from pytest_inference_gate.targets.ssh_connection import Completed, SshConnection
from pytest_inference_gate.targets.ssh_files import BoardFiles, FilesRefused, Parcel

DAY = 24 * 3600.0


def keep(root: Path, data: bytes, name: str = "model.bin", kind: str = "file", digest: str = "") -> dict[str, Any]:
    digest = digest or hashlib.sha256(data).hexdigest()
    return file_store.keep(str(root), kind, digest, name, len(data), io.BytesIO(data))


def age(root: Path, data: bytes, seconds: float) -> None:
    path = root / "files" / hashlib.sha256(data).hexdigest()
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def kept(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in root.glob("files/*/*"))


def refused(act: Any) -> tuple[str, str]:
    with pytest.raises(file_store.Refused) as caught:
        act()
    return caught.value.kind, str(caught.value)


@given(st.binary(max_size=5000))
def test_a_file_is_kept_as_it_was(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    digest = hashlib.sha256(data).hexdigest()
    assert file_store.find(str(root), digest, "model.bin") == {"path": None}
    path = keep(root, data)["path"]
    assert Path(path).read_bytes() == data
    assert file_store.find(str(root), digest, "model.bin") == {"path": path} == keep(root, data)
    assert [entry.name for entry in (root / "files").iterdir()] == [digest]


def test_nothing_stays_of_what_is_not_what_was_sent(tmp_path: Path) -> None:
    assert refused(lambda: keep(tmp_path, b"content", digest="0" * 64))[0] == "digest"
    digest = hashlib.sha256(b"content").hexdigest()
    cut = lambda: file_store.keep(str(tmp_path), "file", digest, "x", 7, io.BytesIO(b"cont"))  # noqa: E731
    assert refused(cut) == ("cut", "the connection ended 3 bytes before the end of the file")
    assert list((tmp_path / "files").iterdir()) == []


def test_a_tree_is_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a" / "empty").mkdir(parents=True)
    (source / "a" / "x").write_bytes(b"1")
    parcel = Parcel.of(source)
    found = file_store.keep(str(tmp_path), "tree", parcel.digest, "payload", parcel.size, io.BytesIO(b"".join(parcel.blocks())))
    assert (Path(found["path"]) / "a" / "x").read_bytes() == b"1"
    assert (Path(found["path"]) / "a" / "empty").is_dir()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "link"])
def test_a_tree_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    assert refused(lambda: keep(tmp_path, stream.getvalue(), kind="tree"))[0] == "digest"
    assert kept(tmp_path) == []
    assert not (tmp_path / "x").exists()


def test_a_damaged_tree_is_refused(tmp_path: Path) -> None:
    assert refused(lambda: keep(tmp_path, b"no archive at all" * 100, kind="tree"))[0] == "digest"


def test_what_was_not_used_for_long_is_removed(tmp_path: Path) -> None:
    for days, data in ((40, b"old"), (20, b"older than the other"), (10, b"used")):
        keep(tmp_path, data)
        age(tmp_path, data, days * DAY)
    assert file_store.prune(str(tmp_path), 30 * DAY, 10**9)["removed"] == 1
    assert kept(tmp_path) == [b"older than the other", b"used"]
    assert file_store.prune(str(tmp_path), 30 * DAY, 10) == {"removed": 1, "bytes": 4}
    assert kept(tmp_path) == [b"used"]


def test_what_is_used_stays(tmp_path: Path) -> None:
    keep(tmp_path, b"used again")
    age(tmp_path, b"used again", 40 * DAY)
    file_store.find(str(tmp_path), hashlib.sha256(b"used again").hexdigest(), "model.bin")
    keep(tmp_path, b"just come")
    assert file_store.prune(str(tmp_path), 0.0, 0)["removed"] == 0
    assert len(kept(tmp_path)) == 2


def test_what_another_run_uses_while_this_one_prunes_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, b"used again")
    age(tmp_path, b"used again", 40 * DAY)
    listed = file_store.entries(str(tmp_path))
    file_store.find(str(tmp_path), hashlib.sha256(b"used again").hexdigest(), "model.bin")
    monkeypatch.setattr(file_store, "entries", lambda root: listed)
    assert file_store.prune(str(tmp_path), 0.0, 0)["removed"] == 0
    assert kept(tmp_path) == [b"used again"]


def test_what_is_removed_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(name.encode())
    parcel = Parcel.of(source)
    root = str(tmp_path)
    file_store.keep(root, "tree", parcel.digest, "payload", parcel.size, io.BytesIO(b"".join(parcel.blocks())))
    os.utime(tmp_path / "files" / parcel.digest, (0, 0))

    def killed(path: str, **keywords: Any) -> None:
        (Path(path) / "payload" / "a").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            file_store.prune(root, 0.0, 0)
    assert file_store.find(root, parcel.digest, "payload") == {"path": None}
    file_store.prune(root, 30 * DAY, 10**9)
    assert list((tmp_path / "files").iterdir()) == []


def test_leftovers_of_runs_that_were_killed_are_removed(tmp_path: Path) -> None:
    root = str(tmp_path)
    run = Path(file_store.open_run(root, "abc")["path"])
    (run / "1-predictions.npy").write_bytes(b"x")
    half = tmp_path / "files" / ".half.tmp"
    half.mkdir(parents=True)
    file_store.prune(root, 30 * DAY, 10**9)
    assert run.is_dir() and half.is_dir()
    for path in (run, half):
        os.utime(path, (time.time() - 2 * DAY, time.time() - 2 * DAY))
    file_store.prune(root, 30 * DAY, 10**9)
    assert not run.exists() and not half.exists()


def test_room_is_made_of_what_is_longest_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for days, data in ((3, b"a" * 1000), (2, b"b" * 1000), (1, b"c" * 1000), (0, b"d" * 1000)):
        keep(tmp_path, data)
        age(tmp_path, data, days * DAY)
    size_of_disk = file_store.RESERVE_BYTES + 5000
    monkeypatch.setattr(file_store, "free_bytes", lambda root: size_of_disk - sum(map(len, kept(tmp_path))))
    keep(tmp_path, b"e" * 2500)
    assert [data[:1] for data in kept(tmp_path)] == [b"c", b"d", b"e"]
    kind, message = refused(lambda: keep(tmp_path, b"f" * 4900))
    assert kind == "full"
    assert f"{4900 + file_store.RESERVE_BYTES} are needed" in message
    assert [data[:1] for data in kept(tmp_path)] == [b"d", b"e"]  # in use as far as anybody knows


def test_a_file_is_given_with_its_digest_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npy"
    data = os.urandom(700_000)
    path.write_bytes(data)
    output = io.BytesIO()
    file_store.give(str(path), output)
    line, _, body = output.getvalue().partition(b"\n")
    assert json.loads(line) == {"kind": "file", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert body == data
    assert not path.exists()


def folder_of_an_engine(path: Path) -> Path:
    (path / "empty").mkdir(parents=True)
    (path / "variables").mkdir()
    (path / "model.engine").write_bytes(os.urandom(600_000))
    (path / "variables" / "data").write_bytes(b"1")
    return path


def files_in(folder: Path) -> dict[str, bytes | None]:
    paths = folder.rglob("*")
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


def test_a_folder_is_given_as_it_was_and_removed(tmp_path: Path) -> None:
    built = folder_of_an_engine(tmp_path / "built")
    content = files_in(built)
    assert file_store.weigh(str(built)) == {"bytes": 600_001}
    output = io.BytesIO()
    file_store.give(str(built), output)
    line, _, body = output.getvalue().partition(b"\n")
    announced = json.loads(line)
    assert announced == {"kind": "tree", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert not built.exists()
    (tmp_path / "here").mkdir()
    received = file_store.Received(io.BytesIO(body), len(body))
    file_store.unpack(received, str(tmp_path / "here"))
    received.drain()
    assert received.digest.hexdigest() == announced["sha256"]
    assert files_in(tmp_path / "here") == content


def test_equal_content_under_another_name_is_kept_beside_it(tmp_path: Path) -> None:
    one, other = keep(tmp_path, b"weights", "a.onnx")["path"], keep(tmp_path, b"weights", "b.onnx")["path"]
    assert Path(one).read_bytes() == Path(other).read_bytes() == b"weights"
    assert one != other and len(list((tmp_path / "files").iterdir())) == 1


def test_a_sparse_file_in_an_archive_is_refused(tmp_path: Path) -> None:
    """A few bytes of it could fill the disk."""
    entry = tarfile.TarInfo("model.engine")
    entry.type = tarfile.GNUTYPE_SPARSE
    data = entry.tobuf(tarfile.GNU_FORMAT) + bytes(2 * tarfile.BLOCKSIZE)
    assert refused(lambda: keep(tmp_path, data, kind="tree"))[0] == "digest"


class Line:
    """A connection to a board whose files are in this process's own file store; ``harm`` changes the bytes on their way back."""

    def __init__(self, harm: Callable[[bytes], bytes] = lambda data: data) -> None:
        self.harm = harm

    def run(self, remote: str, *, data: Any, seconds: float, receive: Any = None) -> Completed:
        output = io.BytesIO()
        (words,) = shlex.split(remote)[3:]
        arguments = shlex.split(words)
        mask = os.umask(0o077)
        try:
            own = arguments[arguments.index(str(len(Path(file_store.__file__).read_bytes()))) + 1 :]
            file_store.main(own, io.BytesIO(), output)
        finally:
            os.umask(mask)  # which it sets for its own process
        came = self.harm(output.getvalue()) if receive else output.getvalue()
        return Completed(0, receive(io.BytesIO(came)) if receive else came, "")


def fetch(built: Path, here: Path, line: Line) -> None:
    BoardFiles(cast(SshConnection, line), "python3", "ssh://board", lambda _: None).get(str(built), here)


def test_a_folder_that_is_fetched_is_there_in_full(tmp_path: Path) -> None:
    built = folder_of_an_engine(tmp_path / "there" / "payload")
    content = files_in(built)
    (tmp_path / "payload").mkdir()  # empty: it gives way
    fetch(built, tmp_path / "payload", Line())
    assert files_in(tmp_path / "payload") == content


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-700],
        lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        lambda data: data[: len(data) // 2],
    ],
    ids=["cut at the end", "changed", "cut in the middle"],
)
def test_nothing_stays_of_a_folder_that_came_damaged(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    built = folder_of_an_engine(tmp_path / "there" / "payload")
    with pytest.raises(FilesRefused, match="did not take or give a file"):
        fetch(built, tmp_path / "payload", Line(harm))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_is_too_large_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = folder_of_an_engine(tmp_path / "there" / "payload")
    monkeypatch.setattr(ssh_files, "LARGEST_BYTES", 500_000)
    with pytest.raises(FilesRefused, match="has 600.0 kB to give for payload, more than 500.0 kB"):
        fetch(built, tmp_path / "payload", Line())
    monkeypatch.undo()
    monkeypatch.setattr(ssh_files, "free_bytes", lambda _: 500_000)
    with pytest.raises(GateError, match="disk of .* is full") as caught:
        fetch(built, tmp_path / "payload", Line())
    assert not isinstance(caught.value, FilesRefused)  # it is this disk, not the board's
    assert built.is_dir() and not (tmp_path / "payload").exists()


def run(home: Path, *arguments: str, data: bytes = b"", before: str = "") -> dict[str, Any]:
    program = Path(file_store.__file__).read_bytes()
    boot = "import sys;exec(sys.stdin.buffer.read(int(sys.argv[1])).decode())"
    command = ["/bin/sh", "-c", f'{before} exec "$@"', "sh", sys.executable, "-I", "-c", boot, str(len(program)), *arguments]
    done = subprocess.run(command, input=program + data, capture_output=True, env={"HOME": str(home)}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_it_runs_from_its_source_alone(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    assert run(tmp_path, "find", digest, "x") == {"path": None}
    answer = run(tmp_path, "keep", "file", digest, "x", "3", data=b"abc")
    assert answer == {"path": f"{tmp_path}/.cache/inference-gate/board/files/{digest}/x"}
    assert oct(Path(answer["path"]).stat().st_mode & 0o777) == "0o600"


def test_a_limit_for_files_is_a_full_disk(tmp_path: Path) -> None:
    data = bytes(100_000)
    digest = hashlib.sha256(data).hexdigest()
    answer = run(tmp_path, "keep", "file", digest, "x", str(len(data)), data=data, before="ulimit -f 10;")
    assert answer["refused"] == "full"


def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("")
    answer = run(tmp_path, "open-run", "token")
    assert answer["refused"] == "other"
    assert ".cache" in answer["message"]


def test_a_home_that_does_not_let_itself_be_written_is_told() -> None:
    if not Path("/sys/kernel").is_dir():
        pytest.skip("there is no folder here in which even root can write nothing")
    assert run(Path("/sys/kernel"), "open-run", "token")["refused"] == "read-only"
