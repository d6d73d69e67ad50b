"""Cards of the zoos as they are, fetched from a mirror on loopback: download, digest, unpacking, conversion, agreement, latency."""

import functools
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CARD = ROOT / "models" / "zoo" / "mobilenet_v1_1.0_224.toml"
WEIGHTS = "tensorflow/keras-applications/mobilenet/mobilenet_1_0_224_tf.h5"
DETECTOR = ROOT / "models" / "detection_zoo" / "ssdlite_mobilenet_v2_coco.toml"
ARCHIVE = "ssdlite_mobilenet_v2_coco_2018_05_09"
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
    with served(folder) as address:
        yield address


@contextmanager
def served(folder):
    _Quiet.requested.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """``project(card, select)`` makes a project of one card; what it gives runs a session: its status, its output and its cases."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def make(card, select):
        (tmp_path / "models").mkdir()
        shutil.copy(card, tmp_path / "models")
        for test in (ROOT / "tests" / "gate").glob("test_*.py"):
            shutil.copy(test, tmp_path)
        (tmp_path / "pytest.ini").write_text(
            f"[pytest]\ngate_models = models\ngate_store = store\ngate_replicates = 1\ngate_select = {select}\n"
        )
        return run

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

    return make


def test_a_zoo_card_from_a_mirror_then_offline(tmp_path, mirror, project):
    run = project(CARD, "*-tflite-fp32-*")
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
    assert "sha256" in (tmp_path / "models" / "checkpoints.lock.toml").read_text()

    status, output, (case,) = run("--gate-offline")
    assert status == 0, output
    assert case["artifact"]["cached"] is True
    assert len(_Quiet.requested) == 1


@pytest.fixture
def detection_mirror(tmp_path):
    """An archive in the layout of the TF1 detection zoo, at the path of the real one. Its graph is the digits' detector, which resizes
    pictures of any size, as those of the zoo do."""
    digits = ROOT / "models" / "digit_scenes" / "digit_scenes_ssd_tf1"
    archive = tmp_path / "mirror" / "models" / "object_detection" / f"{ARCHIVE}.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(digits.iterdir()):
            tar.add(file, f"{ARCHIVE}/{file.name}")
        tar.add(digits / "frozen_inference_graph.pb", f"{ARCHIVE}/saved_model/saved_model.pb")
        tar.add(digits / "label_map.pbtxt", f"{ARCHIVE}/checkpoint")
    with served(tmp_path / "mirror") as address:
        yield address


def test_a_card_of_the_detection_zoo_from_a_mirror(tmp_path, detection_mirror, project):
    run = project(DETECTOR, "*-tensorflow-*-nms_*")
    quick = ("--gate-rounds=20", "--gate-warm-up=0.005")
    status, output, cases = run("-m", "cpu", f"--gate-mirror={detection_mirror}", *quick)
    assert status == 0, output
    (case,) = cases  # no GPU: no nms_gpu
    assert case["variant"] == "nms_cpu"
    assert case["verdict"] == "pass", case["reason"]
    assert case["latency"]["median"] > 0
    assert _Quiet.requested == [f"/models/object_detection/{ARCHIVE}.tar.gz"]
    assert "sha256" in (tmp_path / "models" / "checkpoints.lock.toml").read_text()
