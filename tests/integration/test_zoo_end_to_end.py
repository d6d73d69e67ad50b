"""A card of the zoo as it is, fetched from a mirror on loopback: download, digest, weights, conversion, agreement, latency."""

import functools
import json
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CARD = ROOT / "models" / "zoo" / "mobilenet_v1_1.0_224.toml"
WEIGHTS = "tensorflow/keras-applications/mobilenet/mobilenet_1_0_224_tf.h5"
TIMEOUT = 600


class _Quiet(SimpleHTTPRequestHandler):
    requested: list = []

    def do_GET(self):
        self.requested.append(self.path)
        super().do_GET()

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def mirror(tmp_path):
    """Weights in the file format and at the path of the real zoo, with values from a seed."""
    folder = tmp_path / "mirror"
    (folder / WEIGHTS).parent.mkdir(parents=True)
    script = f"""
import keras
keras.utils.set_random_seed(3)
keras.applications.MobileNet(weights=None).save_weights("w.weights.h5")
import os
os.rename("w.weights.h5", {str(folder / WEIGHTS)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=tmp_path, timeout=TIMEOUT)
    _Quiet.requested.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_zoo_card_from_a_mirror_then_offline(tmp_path, mirror, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(CARD, models)
    for test in (ROOT / "tests" / "gate").glob("test_*.py"):
        shutil.copy(test, tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ngate_models = models\ngate_store = store\ngate_replicates = 1\ngate_select = *-tflite-fp32-*\n"
    )

    def run(*arguments):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--gate-json=result.json",
            *arguments,
            "test_accuracy.py",
            "test_latency.py",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT)
        return done.returncode, done.stdout + done.stderr, json.loads((tmp_path / "result.json").read_text())["cases"]

    status, output, (case,) = run("--gate-offline")
    assert status == 1
    assert case["outcome"]["kind"] == "fetch_error"
    assert "--gate-offline" in output or "offline" in case["reason"]
    assert _Quiet.requested == []

    status, output, (case,) = run(f"--gate-mirror={mirror}")
    assert status == 0, output
    assert case["verdict"] == "pass"
    assert case["accuracy"]["agreement"] > 0.9
    assert case["latency"]["median"] > 0
    assert _Quiet.requested == [f"/{WEIGHTS}"]
    # No digest was published, so the first download is pinned beside the card.
    assert "sha256" in (models / "checkpoints.lock.toml").read_text()

    status, output, (case,) = run("--gate-offline")
    assert status == 0, output
    assert case["artifact"]["cached"] is True
    assert len(_Quiet.requested) == 1
