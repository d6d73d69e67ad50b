"""Fetching over a real HTTP server on loopback: what goes well, and everything that can go wrong on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_inference_gate.cards import Checkpoint, DataSource, Input, Labels, ModelCard
from pytest_inference_gate.datasets import load_images
from pytest_inference_gate.errors import FetchError
from pytest_inference_gate.zoo import DownloadSettings, FetchedCheckpoint, fetch_checkpoint, fetch_data, mirrored

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
FAST = DownloadSettings(attempts=3, backoff=0.01)  # but patient: where this machine is slow, it is not the server
IMPATIENT = replace(FAST, read_timeout=1)

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        with self.server.counting:
            self.server.requests.append(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answers[self.path.partition("?")[0]](self)

    def body(self, content: bytes, *, length: int | None = None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {"/model.onnx": lambda request: request.body(CONTENT)}
        self.requests: list[str] = []
        self.counting = threading.Lock()
        self.released = threading.Event()

    def url(self, path: str = "/model.onnx") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def serve(self, path: str, *answers: Answer) -> str:
        """Answer the first request for ``path`` with the first answer, and so on; the last one stays."""
        left = list(answers)
        self.answers[path] = lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)
        return self.url(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()
    thread.join(5)


def make_card(folder: Path, **checkpoint: Any) -> ModelCard:
    return ModelCard(
        name="m",
        checkpoint=Checkpoint(**{"format": "onnx", **checkpoint}),
        input=Input(shape=(8, 8, 1)),
        labels=Labels(count=10),
        backends={"onnxruntime": ["fp32"]},
        path=folder / "models" / "card.toml",
    )


class Place:
    """A store and a lock file, and fetching with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.lock = folder / "models" / "checkpoints.lock.toml"
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        self.lines: list[str] = []

    def fetch(self, **options: Any) -> FetchedCheckpoint:
        how: dict[str, Any] = {"store_root": self.store, "lock_file": self.lock, "progress": self.lines.append, "settings": FAST}
        how.update(
            {name: options.pop(name) for name in ("lock_file", "mirror", "offline", "settings", "store_root") if name in options}
        )
        return fetch_checkpoint(make_card(self.folder, **options), **how)

    def failure(self, **options: Any) -> str:
        with pytest.raises(FetchError) as caught:
            self.fetch(**options)
        text = str(caught.value)
        assert "\n" not in text and "Pool" not in text and "Traceback" not in text
        return text

    def files(self) -> set[str]:
        """What lies in the store under a name that could be taken for a download."""
        found = [path for path in self.store.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {path.name for path in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def content_of(fetched: FetchedCheckpoint) -> bytes:
    assert fetched.path is not None
    return fetched.path.read_bytes()


def test_a_download_is_kept_and_not_fetched_again(server: Server, place: Place) -> None:
    first = place.fetch(url=server.url(), sha256=SHA256)
    assert content_of(first) == CONTENT and first.sha256 == SHA256 and first.format == "onnx"
    assert place.fetch(url=server.url(), sha256=SHA256) == first
    assert server.requests == ["/model.onnx"]
    assert place.lines == ["Fetching model.onnx (1.0 MB)."]
    assert not place.lock.exists()


def test_a_file_of_the_store_that_was_damaged_is_fetched_again(server: Server, place: Place) -> None:
    fetched = place.fetch(url=server.url(), sha256=SHA256)
    assert fetched.path is not None
    fetched.path.write_bytes(CONTENT[:-1])
    assert content_of(place.fetch(url=server.url(), sha256=SHA256)) == CONTENT
    assert len(server.requests) == 2


def test_a_redirect_is_followed(server: Server, place: Place) -> None:
    def redirect(request: Handler) -> None:
        request.send_response(302)
        request.send_header("Location", server.url())
        request.send_header("Content-Length", "0")
        request.end_headers()

    assert content_of(place.fetch(url=server.serve("/old", redirect), sha256=SHA256)) == CONTENT


@pytest.mark.parametrize("location", ["file:///etc/passwd", "/loop"])
def test_a_redirect_to_elsewhere_or_in_a_circle_is_an_error(server: Server, place: Place, location: str) -> None:
    def redirect(request: Handler) -> None:
        request.send_response(302)
        request.send_header("Location", location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    assert "could not be fetched" in place.failure(url=server.serve("/loop", redirect), sha256=SHA256)
    assert place.files() == set()


def test_a_chunked_body_is_read(server: Server, place: Place) -> None:
    def chunked(request: Handler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.send_header("Connection", "close")
        request.end_headers()
        for start in range(0, len(CONTENT), 100_000):
            piece = CONTENT[start : start + 100_000]
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        request.wfile.write(b"0\r\n\r\n")

    assert content_of(place.fetch(url=server.serve("/chunked", chunked), sha256=SHA256)) == CONTENT


@pytest.mark.parametrize("chunked", [False, True])
def test_a_truncated_body_is_fetched_again(server: Server, place: Place, chunked: bool) -> None:
    def cut(request: Handler) -> None:
        if chunked:
            request.protocol_version = "HTTP/1.1"
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(f"{len(CONTENT):x}\r\n".encode() + CONTENT[:5000])
        else:
            request.body(CONTENT[:5000], length=len(CONTENT))
        request.close_connection = True

    url = server.serve("/cut", cut, cut, lambda request: request.body(CONTENT))
    assert content_of(place.fetch(url=url, sha256=SHA256)) == CONTENT
    assert len(server.requests) == 3
    assert sum("trying again" in line for line in place.lines) == 2


def test_a_body_that_is_always_truncated_is_an_error_and_leaves_nothing(server: Server, place: Place) -> None:
    url = server.serve("/cut", lambda request: request.body(CONTENT[:5000], length=len(CONTENT)))
    text = place.failure(url=url)
    assert "in 3 tries" in text and url in text
    assert place.files() == set() and not place.lock.exists()


def test_a_body_of_unknown_length_is_not_trusted_on_first_use(server: Server, place: Place) -> None:
    def unknown(request: Handler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT)

    url = server.serve("/unknown", unknown)
    assert "neither length nor digest" in place.failure(url=url)
    assert content_of(place.fetch(url=url, md5=MD5)) == CONTENT


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_the_wrong_content_is_an_error_with_both_digests(server: Server, place: Place, algorithm: str) -> None:
    wrong = "0" * (64 if algorithm == "sha256" else 32)
    text = place.failure(url=server.url(), **{algorithm: wrong})
    assert wrong in text and (SHA256 if algorithm == "sha256" else MD5) in text and "card.toml" in text
    assert len(server.requests) == 1, "another try would not mend it"
    assert place.files() == set() and not place.lock.exists()


def test_an_error_does_not_cost_the_file_that_is_there(server: Server, place: Place) -> None:
    place.fetch(url=server.url(), sha256=SHA256)
    place.failure(url=server.url(), sha256="0" * 64)
    place.fetch(url=server.url(), sha256=SHA256)
    assert len(server.requests) == 2


def test_404_is_said_at_once(server: Server, place: Place) -> None:
    text = place.failure(url=server.serve("/none", lambda request: request.send_error(404)), sha256=SHA256)
    assert "the server answered 404 Not Found" in text
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(server: Server, place: Place, status: int) -> None:
    url = server.serve("/busy", lambda request: request.send_error(status), lambda request: request.body(CONTENT))
    assert content_of(place.fetch(url=url, sha256=SHA256)) == CONTENT
    assert f"the server answered {status}" in place.lines[0] and "trying again in 0.01 s" in place.lines[0]


def test_a_server_that_stays_busy_is_given_up(server: Server, place: Place) -> None:
    text = place.failure(url=server.serve("/busy", lambda request: request.send_error(503)), sha256=SHA256)
    assert "in 3 tries: the server answered 503 Service Unavailable" in text
    assert len(server.requests) == 3


def test_a_connection_that_is_dropped_is_tried_again(server: Server, place: Place) -> None:
    def drop(request: Handler) -> None:
        request.connection.close()

    url = server.serve("/drop", drop, lambda request: request.body(CONTENT))
    assert content_of(place.fetch(url=url, sha256=SHA256)) == CONTENT


def test_a_server_that_is_not_there_is_said(place: Place) -> None:
    with socket.socket() as bound:  # and does not listen: nobody answers, and nobody else takes the port
        bound.bind(("127.0.0.1", 0))
        text = place.failure(url=f"http://127.0.0.1:{bound.getsockname()[1]}/model.onnx", sha256=SHA256)
    assert "no connection (Connection refused)" in text


def test_a_host_that_does_not_exist_is_said(place: Place) -> None:
    assert "could not be fetched in 3 tries: no connection (" in place.failure(url="http://host.invalid/a.onnx", sha256=SHA256)


def test_a_server_that_stalls_is_given_up(server: Server, place: Place) -> None:
    def stall(request: Handler) -> None:
        request.body(CONTENT[:5000], length=len(CONTENT))
        server.released.wait(60)

    text = place.failure(url=server.serve("/stall", stall), sha256=SHA256, settings=IMPATIENT)
    assert any("the server stopped sending" in line for line in (*place.lines, text))
    assert place.files() == set()


def test_a_server_that_never_answers_is_given_up(server: Server, place: Place) -> None:
    def silent(request: Handler) -> None:
        server.released.wait(60)

    text = place.failure(url=server.serve("/silent", silent), sha256=SHA256, settings=IMPATIENT)
    assert "the server sent nothing for 1 s" in text


def test_a_server_that_trickles_is_given_up(server: Server, place: Place) -> None:
    def trickle(request: Handler) -> None:
        request.body(b"", length=len(CONTENT))
        while not server.released.wait(0.02):  # far more often than the time-out for silence
            request.wfile.write(b"x")
            request.wfile.flush()

    slow = replace(FAST, attempts=1, slow_window=0.2, slowest=100_000)
    assert "the server sent only" in place.failure(url=server.serve("/trickle", trickle), sha256=SHA256, settings=slow)


def lock_entries(place: Place) -> list[dict[str, Any]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    entries: list[dict[str, Any]] = tomllib.loads(place.lock.read_text(encoding="utf-8"))["file"]
    return entries


def test_first_use_is_written_down_and_a_change_is_an_error(server: Server, place: Place) -> None:
    url = server.serve("/a.onnx", lambda request: request.body(CONTENT), lambda request: request.body(b"changed"))
    assert place.fetch(url=url).sha256 == SHA256
    (entry,) = lock_entries(place)
    assert (entry["url"], entry["sha256"], entry["bytes"], entry["fetched_from"]) == (url, SHA256, len(CONTENT), url)
    assert entry["first_seen"].year >= 2024

    assert place.fetch(url=url).sha256 == SHA256 and len(server.requests) == 1
    # Another machine, with the lock file from version control and an empty store:
    text = place.failure(url=url, store_root=place.folder / "other store")
    changed = hashlib.sha256(b"changed").hexdigest()
    assert SHA256 in text and changed in text and str(place.lock) in text and "remove its entry" in text
    # What the message says to do is done:
    place.lock.unlink()
    assert place.fetch(url=url, store_root=place.folder / "other store").sha256 == changed
    assert changed in place.lock.read_text(encoding="utf-8")


def test_the_lock_file_keeps_all_entries_in_order(server: Server, place: Place) -> None:
    urls = [server.serve(f"/{name}", lambda request: request.body(CONTENT)) for name in ("c", "a", "b?x=1&y=%20")]
    server.answers["/b"] = lambda request: request.body(CONTENT)
    for url in urls:
        place.fetch(url=url)
    before = place.lock.read_bytes()
    assert [entry["url"] for entry in lock_entries(place)] == sorted(urls)
    for url in urls:
        place.fetch(url=url)
    assert place.lock.read_bytes() == before


def test_a_published_beginning_of_the_sha256_is_checked_and_the_whole_pinned(server: Server, place: Place) -> None:
    assert "its sha256 is" in place.failure(url=server.url(), sha256_prefix="0" * 8)
    assert not place.lock.exists()
    assert place.fetch(url=server.url(), sha256_prefix=SHA256[:8]).sha256 == SHA256
    assert SHA256 in place.lock.read_text(encoding="utf-8")


def test_a_published_md5_is_checked_and_the_sha256_pinned(server: Server, place: Place) -> None:
    assert place.fetch(url=server.url(), md5=MD5).sha256 == SHA256
    assert SHA256 in place.lock.read_text(encoding="utf-8")
    place.lock.write_text(place.lock.read_text(encoding="utf-8").replace(SHA256, "0" * 64), encoding="utf-8")
    assert "has changed" in place.failure(url=server.url(), md5=MD5)


def test_without_digest_and_lock_file_nothing_is_fetched(server: Server, place: Place) -> None:
    assert "add its sha256 to the card" in place.failure(url=server.url(), lock_file=None)
    assert server.requests == []
    assert place.fetch(url=server.url(), sha256=SHA256, lock_file=None).sha256 == SHA256


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[[file]]\nurl = 'x'\n", "file = 1", "[[file]]\nurl = 1\nsha256 = 'a'"])
def test_a_broken_lock_file_is_an_error(server: Server, place: Place, text: str) -> None:
    place.lock.write_text(text, encoding="utf-8")
    assert str(place.lock) in place.failure(url=server.url())
    assert place.lock.read_text(encoding="utf-8") == text


def test_a_mirror_replaces_scheme_and_host(server: Server, place: Place) -> None:
    server.serve("/proxy/keras/a.onnx", lambda request: request.body(CONTENT))
    fetched = place.fetch(url="https://storage.invalid/keras/a.onnx?generation=1", mirror=server.url("/proxy/"))
    assert content_of(fetched) == CONTENT
    assert server.requests == ["/proxy/keras/a.onnx?generation=1"]
    text = place.lock.read_text(encoding="utf-8")
    assert 'url = "https://storage.invalid/keras/a.onnx?generation=1"' in text and "127.0.0.1" in text
    assert place.fetch(url="https://storage.invalid/keras/a.onnx?generation=1").sha256 == SHA256


@pytest.mark.parametrize("mirror", ["mirror.example.org", "file:///mirror", "https://", "https://me:secret@mirror"])
def test_a_mirror_that_is_no_prefix_is_an_error(mirror: str) -> None:
    with pytest.raises(FetchError, match="mirror") as caught:
        mirrored("https://h/a", mirror)
    assert "secret" not in str(caught.value)


def test_offline_says_where_the_file_would_have_to_be(server: Server, place: Place) -> None:
    text = place.failure(url=server.url(), sha256=SHA256, offline=True)
    target = Path(text.partition("put the file at ")[2].partition(", or run once")[0])
    assert server.requests == [] and target.parent.is_dir() and target.name == "model.onnx"
    target.write_bytes(b"something else")
    assert "wrong content" in place.failure(url=server.url(), sha256=SHA256, offline=True)
    assert target.exists(), "what a user put there is not removed"
    target.write_bytes(CONTENT)
    assert place.fetch(url=server.url(), sha256=SHA256, offline=True).path == target
    assert server.requests == []


def test_a_file_put_there_by_hand_is_written_down_as_such(server: Server, place: Place) -> None:
    text = place.failure(url=server.url(), offline=True)
    Path(text.partition("put the file at ")[2].partition(", or run once")[0]).write_bytes(CONTENT)
    place.fetch(url=server.url(), offline=True)
    assert "found in the store as model.onnx" in place.lock.read_text(encoding="utf-8")


def test_a_local_file_is_taken_where_it_is(place: Place) -> None:
    file = place.lock.parent / "m.onnx"
    file.write_bytes(CONTENT)
    assert place.fetch(file="m.onnx") == FetchedCheckpoint(file, SHA256, "onnx")
    assert place.fetch(file="m.onnx", sha256=SHA256, md5=MD5).path == file
    assert "wrong content" in place.failure(file="m.onnx", sha256="0" * 64)
    assert "there is no checkpoint at" in place.failure(file="none.onnx")
    assert "checkpoint.member is set" in place.failure(file="m.onnx", member="a")


def test_a_local_saved_model_and_a_local_checkpoint_are_taken_where_they_are(place: Place) -> None:
    folder = place.lock.parent
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"x")
    first = place.fetch(format="saved_model", file="saved")
    assert first.path == folder / "saved"
    (folder / "saved" / "saved_model.pb").write_bytes(b"y")
    assert place.fetch(format="saved_model", file="saved").sha256 != first.sha256

    names = {"inputs": ["i:0"], "outputs": ["o:0"]}
    for end in ("index", "data-00000-of-00001"):
        (folder / f"m.ckpt.{end}").write_bytes(b"x")
    assert "there is no checkpoint at" in place.failure(format="tf1_checkpoint", file="m.ckpt", **names)
    (folder / "m.ckpt.meta").write_bytes(b"x")
    first = place.fetch(format="tf1_checkpoint", file="m.ckpt", **names)
    assert first.path == folder / "m.ckpt"
    (folder / "m.ckpt.data-00000-of-00001").write_bytes(b"y")
    assert place.fetch(format="tf1_checkpoint", file="m.ckpt", **names).sha256 != first.sha256


def test_a_seeded_checkpoint_has_a_digest_but_no_file(place: Place) -> None:
    architecture = {"function": "keras.applications.MobileNetV2", "arguments": {"alpha": 1.0}}
    first = place.fetch(format="seeded", seed=1, architecture=architecture)
    assert first.path is None and len(first.sha256) == 64
    assert place.fetch(format="seeded", seed=1, architecture=architecture) == first
    assert place.fetch(format="seeded", seed=2, architecture=architecture).sha256 != first.sha256
    other = {"function": "keras.applications.MobileNetV2", "arguments": {"alpha": 0.5}}
    assert place.fetch(format="seeded", seed=1, architecture=other).sha256 != first.sha256


def packed(*entries: tuple[str, bytes, str]) -> bytes:
    """A .tar.gz of (name, type, content or link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind, text in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                archive.addfile(info)
    return buffer.getvalue()


REGULAR = tarfile.REGTYPE
SAVED_MODEL = packed(("export/saved_model.pb", REGULAR, "graph"), ("export/variables/variables.index", REGULAR, "v"))


def test_an_archive_is_unpacked_once(server: Server, place: Place) -> None:
    url = server.serve("/a.tar.gz", lambda request: request.body(SAVED_MODEL))
    first = place.fetch(format="saved_model", url=url)
    assert first.path is not None and (first.path / "saved_model.pb").read_text() == "graph"
    assert first.sha256 == hashlib.sha256(SAVED_MODEL).hexdigest()
    before = (first.path / "saved_model.pb").stat().st_ino
    assert place.fetch(format="saved_model", url=url) == first
    assert (first.path / "saved_model.pb").stat().st_ino == before


@pytest.mark.parametrize("damage", ["changed", "removed", "added", "unfinished"])
def test_an_unpacked_archive_that_was_damaged_is_unpacked_again(server: Server, place: Place, damage: str) -> None:
    url = server.serve("/a.tar.gz", lambda request: request.body(SAVED_MODEL))
    path = place.fetch(format="saved_model", url=url).path
    assert path is not None
    if damage == "changed":
        (path / "saved_model.pb").write_text("Graph")
    elif damage == "removed":
        (path / "variables" / "variables.index").unlink()
    elif damage == "added":
        (path / "more").mkdir()
        (path / "more" / "saved_model.pb").write_text("other")
    else:  # killed between the rename of the tree and the writing of its digest
        next((place.store / "unpacked").glob("*.tree")).unlink()
        (path / "saved_model.pb").write_text("")
    again = place.fetch(format="saved_model", url=url).path
    assert (
        again == path and (path / "saved_model.pb").read_text() == "graph" and (path / "variables" / "variables.index").exists()
    )
    assert len(server.requests) == 1


HOSTILE = {
    "dotdot": (("../../escaped", REGULAR, "x"),),
    "absolute": (("/tmp/escaped-by-inference-gate", REGULAR, "x"),),
    "symlink out": (("link", tarfile.SYMTYPE, "../../../escaped"), ("link", REGULAR, "x")),
    "hard link out": (("link", tarfile.LNKTYPE, "../../../escaped"),),
    "device": (("null", tarfile.CHRTYPE, ""),),
    "bomb": (("zeros.pb", REGULAR, "0" * 2_000_000),),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(server: Server, place: Place, name: str) -> None:
    content = packed(("saved_model.pb", REGULAR, "graph"), *HOSTILE[name])
    url = server.serve("/a.tar.gz", lambda request: request.body(content))
    text = place.failure(
        format="saved_model", url=url, sha256=hashlib.sha256(content).hexdigest(), maximum_unpacked_bytes=1_000_000
    )
    assert "is not unpacked" in text or "maximum_unpacked_bytes" in text
    assert not [path for path in (place.store / "unpacked").iterdir() if path.is_dir()]
    assert not list(place.folder.rglob("escaped*")) and not Path("/tmp/escaped-by-inference-gate").exists()


def test_a_keras_file_is_a_zip_and_is_not_unpacked(server: Server, place: Place) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "{}")
    content = buffer.getvalue()
    fetched = place.fetch(format="keras", url=server.serve("/m.keras", lambda request: request.body(content)))
    assert fetched.path is not None and fetched.path.is_file() and content_of(fetched) == content


def test_what_should_be_an_archive_but_is_none_is_said(server: Server, place: Place) -> None:
    assert "is no archive" in place.failure(format="saved_model", url=server.url())


def fetch_set(place: Place, **source: Any) -> Any:
    data = DataSource(**source)
    card = make_card(place.folder, file="m.onnx").model_copy(update={"input": Input(shape=(8, 8, 3))})
    fetched = fetch_data(data, card, store_root=place.store, lock_file=place.lock, progress=place.lines.append, settings=FAST)
    return load_images(data, card, fetched)


def test_a_data_set_is_fetched_as_npz_or_as_an_archive(server: Server, place: Place) -> None:
    from PIL import Image

    pixels = np.random.RandomState(0).randint(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    arrays = io.BytesIO()
    np.savez(arrays, images=pixels, labels=np.array([3, 4]))
    url = server.serve("/download", lambda request: request.body(arrays.getvalue()))  # a name that does not end in .npz
    found = fetch_set(place, url=url)
    assert found.labels.tolist() == [3, 4]

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, picture in enumerate(pixels):
            png = io.BytesIO()
            Image.fromarray(picture).save(png, "png")
            archive.writestr(f"set/pictures/{index}.png", png.getvalue())
        archive.writestr("set/labels.csv", "file,label\n0.png,3\n1.png,4\n")
    packed_url = server.serve("/set.zip", lambda request: request.body(buffer.getvalue()))
    again = fetch_set(place, url=packed_url, member="set/pictures", labels="set/labels.csv")
    assert again.sha256 == found.sha256
    with pytest.raises(FetchError, match="has no 'set/picture'"):
        fetch_set(place, url=packed_url, member="set/picture")


def test_a_local_data_set_is_checked_against_its_digest(place: Place) -> None:
    np.savez(place.lock.parent / "set.npz", images=np.zeros((1, 8, 8, 3), np.uint8))
    digest = hashlib.sha256((place.lock.parent / "set.npz").read_bytes()).hexdigest()
    assert len(fetch_set(place, file="set.npz", sha256=digest)) == 1
    with pytest.raises(FetchError, match="wrong content"):
        fetch_set(place, file="set.npz", sha256="0" * 64)
    with pytest.raises(FetchError, match="there is no data set at"):
        fetch_set(place, file="none.npz")
    assert len(fetch_set(place, seed=1, count=3)) == 3


def test_a_local_data_set_that_cannot_be_read_is_one_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(place.lock.parent / "set.npz", images=np.zeros((1, 8, 8, 3), np.uint8))

    def damaged(path: Path, *more: Any) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("pytest_inference_gate.zoo.file_digest", damaged)
    with pytest.raises(FetchError, match=r"cannot be read \(Input/output error\).*set\.npz"):
        fetch_set(place, file="set.npz", sha256="0" * 64)


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from pytest_inference_gate.errors import FetchError
from test_zoo import make_card
from pytest_inference_gate.zoo import DownloadSettings, fetch_checkpoint
card = make_card(Path({folder!r}), url={url!r})
try:
    found = fetch_checkpoint(card, store_root=Path({store!r}), lock_file=Path({lock!r}), progress=lambda line: print(line, flush=True),
                             settings=DownloadSettings(attempts=1, read_timeout=300))
except FetchError as error:
    print(error, flush=True)
    sys.exit(3)
print(found.sha256, flush=True)
"""


def program(place: Place, url: str, store: Path | None = None) -> list[str]:
    text = PROGRAM.format(
        tests=str(Path(__file__).parent), folder=str(place.folder), url=url, store=str(store or place.store), lock=str(place.lock)
    )
    return [sys.executable, "-c", text]


def environment() -> dict[str, str]:
    import pytest_inference_gate

    return {**os.environ, "PYTHONPATH": str(Path(pytest_inference_gate.__path__[0]).parent)}


def start(place: Place, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(program(place, url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())


def test_two_processes_at_once_fetch_once(server: Server, place: Place) -> None:
    begun = threading.Event()

    def slow(request: Handler) -> None:
        begun.set()
        server.released.wait(300)  # until the second process has said that it waits
        request.body(CONTENT)

    url = server.serve("/slow.onnx", slow)
    first = start(place, url)
    assert begun.wait(60)
    second = start(place, url)
    assert second.stdout is not None
    assert "Waiting for another run that fetches slow.onnx" in second.stdout.readline()
    server.released.set()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert all(SHA256 in output for output in outputs)
    assert server.requests == ["/slow.onnx"]
    assert place.lock.read_text(encoding="utf-8").count("[[file]]") == 1


def test_killed_in_the_middle_of_a_download_the_next_run_is_right(server: Server, place: Place) -> None:
    begun = threading.Event()

    def half(request: Handler) -> None:
        request.body(CONTENT[: len(CONTENT) // 2], length=len(CONTENT))
        begun.set()
        server.released.wait(300)

    url = server.serve("/a.onnx", half, lambda request: request.body(CONTENT))
    process = start(place, url)
    assert begun.wait(60)
    while not any(path.stat().st_size for path in place.store.rglob("tmp*")):  # until some of it has reached the disk
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not list(place.store.rglob("a.onnx")) and not place.lock.exists()

    assert content_of(place.fetch(url=url)) == CONTENT
    directory = next(place.store.rglob("a.onnx")).parent
    assert {path.name for path in directory.iterdir()} <= {"a.onnx", ".lock", ".origin"}, "the half download is swept up"


def test_a_full_disk_is_said_with_the_option_that_helps(server: Server, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    text = place.failure(url=server.url(), sha256=SHA256)
    assert "--gate-store" in text and str(place.store) in text and "free" in text
    assert place.files() == set()
    monkeypatch.setattr(os, "fsync", real)
    assert content_of(place.fetch(url=server.url(), sha256=SHA256)) == CONTENT


def test_a_file_that_cannot_fit_is_not_begun(server: Server, place: Place) -> None:
    url = server.serve("/huge", lambda request: request.body(b"", length=1 << 60))
    assert "--gate-store" in place.failure(url=url, sha256=SHA256)
    assert len(server.requests) == 1


def _can_mount() -> bool:
    if os.name != "posix" or not shutil.which("unshare"):
        return False
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode
        == 0
    )


@pytest.mark.skipif(not _can_mount(), reason="needs the right to mount a small file system")
def test_a_disk_that_is_really_full(server: Server, place: Place) -> None:
    store = place.folder / "small"
    store.mkdir()

    def chunked(request: Handler) -> None:  # no length: the disk fills up on the way
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n0\r\n\r\n")

    url = server.serve("/a.onnx", chunked)
    place.lock.write_text(f'[[file]]\nurl = "{url}"\nsha256 = "{SHA256}"\n', encoding="utf-8")
    script = 'mount -t tmpfs -o size=600k none "$1" && shift && "$@"; code=$?; find ' + f'"{store}" -type f -size +0; exit $code'
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(store), *program(place, url, store)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=60,
    )
    assert run.returncode == 3, run.stdout + run.stderr
    sentence, *left = [line for line in run.stdout.splitlines() if not line.startswith("Fetching")]
    assert "full" in sentence and "--gate-store" in sentence
    assert left == [], "nothing of the download is left on the full disk"


def test_a_store_that_cannot_be_written_is_said(server: Server, place: Place) -> None:
    place.store.write_text("a file, not a directory")
    text = place.failure(url=server.url(), sha256=SHA256)
    assert "--gate-store" in text


def test_a_lock_file_that_cannot_be_written_says_what_to_add(server: Server, place: Place) -> None:
    place.lock.with_name(f".{place.lock.name}.lock").mkdir()  # where the lock would be
    text = place.failure(url=server.url())
    assert "checkpoints.lock.toml" in text and f"add sha256 = '{SHA256}' to the card" in text


def test_a_lock_file_that_cannot_be_read_is_said(server: Server, place: Place) -> None:
    place.lock.mkdir()
    assert "checkpoints.lock.toml cannot be read" in place.failure(url=server.url())
    assert server.requests == []
