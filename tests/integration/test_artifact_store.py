"""The store of artifacts under real processes, real kills and really full disks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate import artifacts
from pytest_inference_gate.artifacts import ArtifactStore, StoredArtifact, digest_of
from pytest_inference_gate.baselines import list_session_files, read_session, save_session
from pytest_inference_gate.errors import BaselineError, StoreError
from pytest_inference_gate.outcome import Outcome, StageFailed

INGREDIENTS = {"checkpoint": "abc", "precision": "int8", "batch": 1}


def write(
    content: bytes = b"weights",
    name: str = "model.tflite",
    log: str | None = "converted\n",
    extra: Mapping[str, Any] | None = None,
) -> Callable[[Path], dict[str, Any]]:
    def make(directory: Path) -> dict[str, Any]:
        assert list(directory.iterdir()) == []
        path = directory / "payload" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        if log is not None:
            (directory / "log.txt").write_text(log)
        return {"model": name, "converter": {"tensorflow": "2.21.0"}, "seconds": 0.5, **(extra or {})}

    return make


def never(directory: Path) -> Mapping[str, Any]:
    raise AssertionError("it was there already")


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, notices: list[str]) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", notice=notices.append)


def leftovers(store: ArtifactStore) -> list[str]:
    return [path.name for path in (store.root / "tmp").iterdir()]


def quarantined(store: ArtifactStore) -> list[str]:
    return [path.name for path in (store.root / "quarantine").iterdir()]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


# Making and finding


def test_made_once_and_found_again(store: ArtifactStore, notices: list[str]) -> None:
    assert store.find("model", INGREDIENTS) is None
    made = store.get_or_make("model", INGREDIENTS, write(b"12345"))
    assert not made.cached
    assert made.digest == digest_of("model", INGREDIENTS)
    assert made.size_bytes == 5
    assert made.kind == "model"
    assert made.log is not None
    assert made.log.read_text() == "converted\n"
    assert (made.payload / "model.tflite").read_bytes() == b"12345"
    assert made.provenance["model"] == "model.tflite"
    assert made.provenance["converter"] == {"tensorflow": "2.21.0"}
    assert made.provenance["ingredients"] == INGREDIENTS
    assert made.provenance["files"]["payload/model.tflite"]["size"] == 5

    found = store.get_or_make("model", dict(reversed(INGREDIENTS.items())), never)
    assert found.cached
    assert (found.digest, found.directory, found.provenance, found.size_bytes) == (
        made.digest, made.directory, made.provenance, made.size_bytes,
    )  # fmt: skip
    assert store.find("model", INGREDIENTS) == found
    assert ArtifactStore(store.root).get_or_make("model", INGREDIENTS, never) == found
    assert store.find("reference", INGREDIENTS) is None
    assert leftovers(store) == []
    assert notices == []


def test_directories_are_payload_too(store: ArtifactStore) -> None:
    def make(directory: Path) -> Mapping[str, Any]:
        for name in ("saved_model/saved_model.pb", "saved_model/variables/variables.index"):
            path = directory / "payload" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        (directory / "payload" / "saved_model" / "assets").mkdir()
        return {}

    made = store.get_or_make("model", INGREDIENTS, make)
    assert made.log is None
    assert made.size_bytes == sum(map(len, ("saved_model/saved_model.pb", "saved_model/variables/variables.index")))
    (made.payload / "saved_model" / "variables" / "variables.index").write_bytes(b"x")
    assert ArtifactStore(store.root, notice=print).find("model", INGREDIENTS) is None


@pytest.mark.parametrize("ingredients", [{"x": float("nan")}, {"x": Path("/x")}, {"x": {1, 2}}])
def test_ingredients_on_which_two_runs_would_not_agree(store: ArtifactStore, ingredients: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not plain JSON"):
        store.get_or_make("model", ingredients, never)


def test_a_maker_that_makes_nothing(store: ArtifactStore) -> None:
    with pytest.raises(StoreError, match="left no file"):
        store.get_or_make("model", INGREDIENTS, lambda directory: {})
    with pytest.raises(ValueError, match="must leave files, kind to the store"):
        store.get_or_make("model", INGREDIENTS, lambda directory: {"kind": 1, "files": 2})
    assert leftovers(store) == []
    assert store.find("model", INGREDIENTS) is None


def test_links_are_no_payload(store: ArtifactStore, tmp_path: Path) -> None:
    def make(directory: Path) -> Mapping[str, Any]:
        (directory / "payload").mkdir()
        (directory / "payload" / "model").symlink_to(tmp_path)
        return {}

    with pytest.raises(ValueError, match="must be plain files"):
        store.get_or_make("model", INGREDIENTS, make)


def test_a_failed_attempt_leaves_its_log_and_nothing_else(store: ArtifactStore) -> None:
    def fail(directory: Path) -> Mapping[str, Any]:
        write()(directory)
        raise StageFailed(Outcome("build_error", "convert", "the converter said no", log=directory / "log.txt"))

    with pytest.raises(StageFailed) as caught:
        store.get_or_make("model", INGREDIENTS, fail)
    log = store.failed_log("model", INGREDIENTS)
    assert log is not None
    assert log.read_text() == "converted\n"
    assert caught.value.outcome.log == log
    assert leftovers(store) == []
    assert store.find("model", INGREDIENTS) is None
    store.get_or_make("model", INGREDIENTS, write())
    assert store.failed_log("model", INGREDIENTS) is None


def test_entries_sizes_and_removal(store: ArtifactStore) -> None:
    made = [store.get_or_make("model", {"number": number}, write(bytes(number * 1000))) for number in (1, 2)]
    assert [entry.digest for entry in store.entries()] == [entry.digest for entry in made]
    assert sum(entry.size_bytes for entry in store.entries()) == 3000
    assert 3000 < store.total_size_bytes() < 10_000
    (store.root / "artifacts" / ("0" * 64)).mkdir()
    assert len(store.entries()) == 2
    assert store.remove(made[0].digest)
    assert not store.remove(made[0].digest)
    assert store.remove(made[1].digest[:12])
    assert store.entries() == []
    assert leftovers(store) == []
    for bad in ("", "../../../etc", "abc", "z" * 12):
        with pytest.raises(StoreError, match="is not a digest"):
            store.remove(bad)


# Two at once

MAKER = """
import pathlib, sys, time
from pytest_inference_gate.artifacts import ArtifactStore
root, mark = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])

def notice(text):
    (mark / "waits").write_text(text)

def make(directory):
    with (mark / "made").open("a") as file:
        file.write("once\\n")
    deadline = time.monotonic() + 60
    while not (mark / "waits").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    (directory / "payload").mkdir()
    (directory / "payload" / "model").write_bytes(b"x" * 100)
    return {}

stored = ArtifactStore(root, notice=notice).get_or_make("model", {"n": 1}, make)
print(stored.cached, stored.size_bytes)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_runs_at_once_make_it_once_and_the_second_says_that_it_waits(tmp_path: Path) -> None:
    first = python(MAKER, str(tmp_path / "store"), str(tmp_path))
    wait_for((tmp_path / "made").exists)
    second = python(MAKER, str(tmp_path / "store"), str(tmp_path))
    assert first.communicate(timeout=60)[0] == "False 100\n"
    assert second.communicate(timeout=60)[0] == "True 100\n"
    assert (tmp_path / "made").read_text() == "once\n"
    assert f"(process {first.pid})" in (tmp_path / "waits").read_text()


def test_a_run_that_waits_for_a_killed_one_makes_it_itself(tmp_path: Path) -> None:
    first = python(MAKER, str(tmp_path / "store"), str(tmp_path))
    wait_for((tmp_path / "made").exists)
    texts: list[str] = []

    def notice(text: str) -> None:
        texts.append(text)
        first.send_signal(signal.SIGKILL)

    made = ArtifactStore(tmp_path / "store", notice=notice).get_or_make("model", {"n": 1}, write())
    assert first.wait(60) == -signal.SIGKILL
    assert not made.cached
    assert len(texts) == 1
    assert texts[0].startswith("Waiting for another run")


@pytest.mark.parametrize("moment", ["_check_sizes", "_check_digests"])
def test_an_entry_that_another_run_removes_while_it_is_read_is_made_again(
    store: ArtifactStore, notices: list[str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    made = store.get_or_make("artifact", INGREDIENTS, write())
    reader, check = ArtifactStore(store.root, notice=notices.append), getattr(artifacts, moment)

    def removed_meanwhile(*arguments: Any) -> None:
        store.remove(made.digest)
        check(*arguments)

    monkeypatch.setattr(artifacts, moment, removed_meanwhile)
    assert reader.find("artifact", INGREDIENTS) is None
    monkeypatch.setattr(artifacts, moment, check)
    assert not reader.get_or_make("artifact", INGREDIENTS, write()).cached
    assert notices == []


def test_a_thread_of_the_same_run_is_not_another_run(store: ArtifactStore, notices: list[str]) -> None:
    """Nor before it has made anything by which it could be known."""
    digest = digest_of("artifact", INGREDIENTS)
    with store._locked(digest, "artifact"):
        waiting = threading.Thread(target=lambda: store.get_or_make("artifact", INGREDIENTS, write()))
        waiting.start()
        waiting.join(0.5)
    waiting.join(60)
    assert notices == [] and store.find("artifact", INGREDIENTS) is not None


def test_threads_at_once_make_it_once(store: ArtifactStore, notices: list[str]) -> None:
    calls: list[int] = []
    results: list[StoredArtifact] = []

    def make(directory: Path) -> Mapping[str, Any]:
        calls.append(1)
        time.sleep(0.1)
        return write()(directory)

    threads = [threading.Thread(target=lambda: results.append(store.get_or_make("model", INGREDIENTS, make))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 6
    assert len(calls) == 1
    assert sorted(result.cached for result in results) == [False] + [True] * 5


# Killed

ENDLESS = """
import pathlib, sys
from pytest_inference_gate.artifacts import ArtifactStore
store = ArtifactStore(pathlib.Path(sys.argv[1]))
print("ready", flush=True)

def make(directory):
    (directory / "payload").mkdir()
    for number in range(5):
        (directory / "payload" / str(number)).write_bytes(bytes(20_000))
    (directory / "log.txt").write_text("log")
    return {}

number = 0
while True:
    stored = store.get_or_make("model", {"run": sys.argv[2], "number": number}, make)
    if number % 3 == 0:
        store.remove(stored.digest)
    number += 1
"""


def test_killed_at_any_moment_the_store_stays_usable(tmp_path: Path) -> None:
    moments = random.Random(5)
    for run in range(10):
        child = python(ENDLESS, str(tmp_path / "store"), str(run))
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.06))
        child.kill()
        child.wait(60)
        child.stdout.close()

        notices: list[str] = []
        store = ArtifactStore(tmp_path / "store", notice=notices.append)
        entries = store.entries()
        # Each name under artifacts/ is a whole entry, and nothing has to be waited for or put aside.
        assert len(entries) == len(list((store.root / "artifacts").iterdir()))
        for entry in entries:
            found = store.find(entry.kind, entry.provenance["ingredients"])
            assert found is not None
            assert found.size_bytes in (7, 100_000)
        for number in range(20):
            assert store.get_or_make("model", {"run": str(run), "number": number}, write()).size_bytes in (7, 100_000)
        assert notices == []
        assert quarantined(store) == []


def test_leftovers_of_dead_runs_go_after_a_day(store: ArtifactStore, notices: list[str]) -> None:
    child = python("pass")
    child.communicate(timeout=60)
    living = store._temporary_path("a" * 64)
    prefix, host, _, token = living.name.split("-")
    dead = living.with_name(f"{prefix}-{host}-{child.pid}-{token}")
    young = living.with_name(f"{prefix}-{host}-{child.pid}-ffffffff")
    for path in (living, dead, young):
        (path / "payload").mkdir(parents=True)
        (path / "payload" / "half").write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    for path in (living, dead):
        for part in (path / "payload" / "half", path / "payload", path):
            os.utime(part, (yesterday, yesterday))
    # Something inside may be younger than the directory: then somebody still works there.
    busy = living.with_name(f"{prefix}-{host}-{child.pid}-eeeeeeee")
    (busy / "payload").mkdir(parents=True)
    os.utime(busy, (yesterday, yesterday))

    ArtifactStore(store.root, notice=notices.append)
    assert sorted(leftovers(store)) == sorted(path.name for path in (living, young, busy))
    assert notices == [f"Removed 1 unfinished artifact that stopped runs had left in {store.root}."]


# Damaged


def replace_by_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda entry: (entry / "payload" / "model.tflite").write_bytes(b"weig"), "has 4 bytes instead of 7"),
        (
            lambda entry: (entry / "payload" / "model.tflite").write_bytes(b"WEIGHTS"),
            "the content of payload/model.tflite has changed",
        ),
        (lambda entry: (entry / "payload" / "model.tflite").unlink(), "payload/model.tflite is missing"),
        (lambda entry: (entry / "payload" / "more").write_bytes(b""), "payload/more was added"),
        (lambda entry: (entry / "provenance.json").write_bytes(b""), "its provenance.json cannot be read"),
        (lambda entry: (entry / "provenance.json").write_bytes(b'{"files": {}}'), "its provenance.json cannot be read"),
        (lambda entry: (entry / "provenance.json").unlink(), "its provenance.json is missing"),
        (lambda entry: edit(entry, ingredients={"batch": 2}), "its ingredients are not those of its digest"),
        (lambda entry: edit(entry, schema="inference-gate-artifact/0"), "its schema is"),
        (replace_by_a_file, "its provenance.json is missing"),
    ],
)
@pytest.mark.parametrize("use", ["find", "get_or_make"])
def test_a_corrupt_entry_is_put_aside_and_made_again(
    store: ArtifactStore, damage: Callable[[Path], object], reason: str, use: str
) -> None:
    entry = store.get_or_make("model", INGREDIENTS, write()).directory
    damage(entry)
    notices: list[str] = []
    # A new object, as in a new run: what this one has verified it does not read again.
    store = ArtifactStore(store.root, notice=notices.append)
    if use == "find":
        assert store.find("model", INGREDIENTS) is None
    else:
        made = store.get_or_make("model", INGREDIENTS, write(b"made again"))
        assert not made.cached
        assert (made.payload / "model.tflite").read_bytes() == b"made again"
        assert store.get_or_make("model", INGREDIENTS, never).cached
    assert len(quarantined(store)) == 1
    (notice,) = notices
    assert reason in notice
    assert quarantined(store)[0] in notice


def edit(entry: Path, **changes: Any) -> None:
    path = entry / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_quarantine_keeps_only_the_newest(store: ArtifactStore) -> None:
    # Opening cleans up, so one object makes all of them; what it has just made it has not verified yet.
    quiet = ArtifactStore(store.root, notice=lambda text: None)
    for number in range(8):
        made = quiet.get_or_make("model", INGREDIENTS, write(extra={"number": number}))
        (made.payload / "model.tflite").write_bytes(b"changed!")
    ArtifactStore(store.root, notice=lambda text: None)
    kept = [
        json.loads((store.root / "quarantine" / name / "provenance.json").read_text())["number"] for name in quarantined(store)
    ]
    assert sorted(kept) == [2, 3, 4, 5, 6]


# Opening


def test_a_newer_store_names_both_versions_and_both_ways_out(store: ArtifactStore) -> None:
    (store.root / "store.json").write_text('{"format": "inference-gate-store", "version": 7}')
    with pytest.raises(StoreError, match=r"store version 7.*version 1.*upgrade pytest-inference-gate.*--gate-store"):
        ArtifactStore(store.root)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"format": "inference-gate-store", "version": "1"}'])
def test_a_version_file_that_says_nothing(store: ArtifactStore, content: str) -> None:
    (store.root / "store.json").write_text(content)
    with pytest.raises(StoreError, match=r"does not say which version.*--gate-store"):
        ArtifactStore(store.root)


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"is not an artifact store.*thesis.tex.*--gate-store"):
        ArtifactStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match=r"is a file.*--gate-store"):
        ArtifactStore(tmp_path / "thesis.tex")


def test_a_store_whose_making_was_killed_can_be_opened(tmp_path: Path) -> None:
    for name in (".store.json.k3j4h5.tmp", "logs"):
        (tmp_path / name).mkdir()
    ArtifactStore(tmp_path).get_or_make("model", INGREDIENTS, write())


# Full and read-only disks


def mount(directory: Path, options: str) -> bool:
    """Mount a small file system in memory; False where this user may not."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "inference-gate-test", str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mount(disk, "size=1m"):
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, *, leave: int = 0) -> None:
    page = bytes(4096)
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(page)
    assert shutil.disk_usage(disk).free == 0
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - leave)


def test_a_disk_that_fills_up_while_making(small_disk: Path) -> None:
    store = ArtifactStore(small_disk / "store")
    with pytest.raises(StoreError, match=rf"disk of {store.root} is full \(.* free\).*--gate-store"):
        store.get_or_make("model", INGREDIENTS, write(bytes(3_000_000)))
    assert leftovers(store) == []
    assert store.entries() == []
    assert store.get_or_make("model", INGREDIENTS, write()).size_bytes == 7


def test_a_disk_that_fills_up_while_storing(small_disk: Path) -> None:
    store = ArtifactStore(small_disk / "store")
    # The payload fits, the provenance does not.
    fill(small_disk, leave=2 * 4096)
    with pytest.raises(StoreError, match="is full"):
        store.get_or_make("model", INGREDIENTS, write(bytes(2 * 4096), log=None))
    (small_disk / "filler").unlink()
    assert store.entries() == []
    assert store.get_or_make("model", INGREDIENTS, write()).size_bytes == 7


def test_a_full_disk_is_not_a_model_that_cannot_be_converted(small_disk: Path) -> None:
    store = ArtifactStore(small_disk / "store")

    def convert(directory: Path) -> Mapping[str, Any]:
        raise StageFailed(Outcome("build_error", "convert", "INTERNAL: write failed: No space left on device"))

    with pytest.raises(StoreError, match=r"the disk is full.*--gate-store"):
        store.get_or_make("model", INGREDIENTS, convert)


def test_a_full_disk_at_the_start(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(StoreError, match=r"is full.*--gate-store"):
        ArtifactStore(small_disk / "store")


def test_a_full_disk_and_baselines(small_disk: Path) -> None:
    value: dict[str, Any] = {"benchmarks": [], "datetime": "", "version": "5"}
    kept = save_session(small_disk / "device", "before", value)
    fill(small_disk)
    with pytest.raises(BaselineError, match=r"is full.*free some space"):
        save_session(small_disk / "device", "after", value | {"padding": "x" * 10_000})
    assert list_session_files(small_disk / "device") == [kept]
    assert read_session(kept).name == "before"


def test_what_the_system_says_of_a_full_disk_reaches_the_user(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as above for users who may not mount: the flush is what finds the disk full."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match=r"is full \(.* free\).*--gate-store"):
            store.get_or_make("model", INGREDIENTS, write())
    assert leftovers(store) == []
    assert store.entries() == []
    assert not store.get_or_make("model", INGREDIENTS, write()).cached


def test_a_read_only_disk(small_disk: Path) -> None:
    store = ArtifactStore(small_disk / "store")
    store.get_or_make("model", INGREDIENTS, write())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for root in (small_disk / "store", small_disk / "new"):
        with pytest.raises(StoreError, match="read-only file system; point --gate-store"):
            ArtifactStore(root)
    with pytest.raises(StoreError, match="read-only"):
        store.get_or_make("model", {"other": 1}, never)
    assert store.find("model", INGREDIENTS) is not None
    with pytest.raises(BaselineError, match="read-only file system; point --benchmark-storage"):
        save_session(small_disk / "device", "x", {"benchmarks": []})


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A directory that everybody may read; the test runs as somebody who may not write there."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield directory
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o755)
        shutil.rmtree(directory)


def test_a_directory_without_permission(ordinary_user: Path) -> None:
    with pytest.raises(StoreError, match=r"no permission in .*owner or mode, or point --gate-store"):
        ArtifactStore(ordinary_user / "store")
    with pytest.raises(BaselineError, match="no permission"):
        save_session(ordinary_user, "x", {"benchmarks": []})
