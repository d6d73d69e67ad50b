"""Real videos, made with OpenCV, whole and damaged; and a network camera that may stop delivering."""

from __future__ import annotations

import http.server
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CODECS = {".avi": "MJPG", ".mp4": "mp4v"}


def frame(number: int, width: int = 64, height: int = 48) -> Any:
    """A smooth picture of which no two are equal, (height, width, 3) of uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [128 + 100 * np.sin((x + number) / 9), 128 + 100 * np.cos((y - number) / 7), 128 + 90 * np.sin((x + y) / 11)]
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


def write_video(path: Path, frames: int = 30, rate: float = 30.0, width: int = 64, height: int = 48) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), rate, (width, height))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(frame(number, width, height))
    writer.release()
    return path


def with_durations(source: Path, path: Path, runs: Sequence[tuple[int, int]]) -> Path:
    """The same .mp4 with other times: so many frames of so many units each (``stts``); without the edit list, which would cut them."""
    data = bytearray(source.read_bytes())
    data[data.find(b"edts") : data.find(b"edts") + 4] = b"free"
    at = data.find(b"stts")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    table = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)
    data[at - 4 : at - 4 + size] = struct.pack(">I", 8 + len(table)) + b"stts" + table
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):  # which hold it; the pictures lie before all of them
        start = data.rfind(box, 0, at)
        (old,) = struct.unpack(">I", data[start - 4 : start])
        data[start - 4 : start] = struct.pack(">I", old + 8 + len(table) - size)
    path.write_bytes(data)
    return path


@contextmanager
def network_camera(frames: int, rate: float = 50.0, *, hangs: bool) -> Iterator[str]:
    """The URL of a camera that sends JPEGs over HTTP, as many do: so many, and then it ``hangs``, or ends."""
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(frames):
                picture = cv2.imencode(".jpg", frame(number))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
                try:
                    self.wfile.write(head + picture + b"\r\n")
                except OSError:
                    return
                if stop.wait(1 / rate):
                    return
            if hangs:
                stop.wait(20)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/video.mjpg"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
