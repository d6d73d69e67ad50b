"""Whole sessions of a detector in NumPy: mAP and pairs, the messages, the files, a runner of one's own, a bundle."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import pytest
from linear_suite import LinearProject
from PIL import Image
from ssh_server import LoopbackBoard

HERE = Path(__file__).parent
SIZE, PICTURES = 32, 30
CASES = ["scenes-rectangles-fp32-b1-t1", "scenes-rectangles-int8-b1-t1"]


class DetectorProject(LinearProject):
    """Pictures of two grey rectangles at most, which the float model finds exactly."""

    def __init__(self, pytester):
        self.begin(pytester)
        self.baselines = self.path / "baselines"
        (self.path / "models" / "scenes").mkdir(parents=True)
        for source in (HERE / "detector_project").glob("*.py"):
            shutil.copy(source, self.path)
        self.ini(gate_replicates=1)
        random = numpy.random.default_rng(0)
        images, annotations = [], []
        for image in range(PICTURES):
            picture = numpy.zeros((SIZE, SIZE), numpy.uint8)
            for category, left, level in ((70, 0, 100), (80, SIZE // 2, 200)):
                if random.uniform() < 0.8:
                    width, height = random.integers(5, 14, 2).tolist()
                    x, y = left + int(random.integers(0, 3)), int(random.integers(0, 12))
                    picture[y : y + height, x : x + width] = level
                    annotations.append(
                        {"id": len(annotations), "image_id": image, "category_id": category, "bbox": [x, y, width, height]}
                    )
            Image.fromarray(picture).save(self.path / "models" / "scenes" / f"{image:03}.png")
            images.append({"id": image, "file_name": f"{image:03}.png", "width": SIZE, "height": SIZE})
        categories = [{"id": 80, "name": "light"}, {"id": 70, "name": "dark"}]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (self.path / "models" / "scenes.json").write_text(json.dumps(document))
        self.write_model(int8={})
        self.write_card()

    def write_model(self, **content):
        (self.path / "models" / "rectangles.json").write_text(json.dumps(content))

    def write_card(
        self, evaluation='annotations = "scenes.json", map = 1.0', tolerance="map_drop = 0.02", precisions='"fp32", "int8"'
    ):
        (self.path / "models" / "scenes.toml").write_text(
            f"""
name = "scenes"
task = "detection"
checkpoint = {{ format = "other", file = "rectangles.json" }}
input = {{ shape = [{SIZE}, {SIZE}, 1] }}
preprocessing = {{ channel_order = "grayscale" }}
labels = {{ count = 2 }}
detection = {{ kind = "postprocessed", outputs = {{ boxes = 0, classes = 1, scores = 2, count = 3 }}, first_class = 1 }}
evaluation = {{ file = "scenes", {evaluation} }}
calibration = {{ seed = 3, count = 4 }}
tolerance = {{ {tolerance} }}
backends = {{ rectangles = [{precisions}] }}
"""
        )

    def write_test(self, text="def test_accuracy(case, accuracy):\n    accuracy.check()\n"):
        (self.path / "test_gate.py").write_text(text)


@pytest.fixture
def project(pytester, settled_machine):
    return DetectorProject(pytester)


def test_a_precision_that_moves_boxes_is_inaccurate_and_the_float_model_is_not(project):
    project.write_model(int8={"shift": 2})
    project.write_test(
        "def test_gate(case, accuracy, latency, benchmark, runner):\n"
        "    picture = [[0] * 32] * 20 + [[100] * 8 + [0] * 24] * 12\n"
        "    ((boxes, scores, classes),) = runner.detect([__import__('numpy').array(picture, 'uint8')])\n"
        "    top = 20 + (2 if case.precision == 'int8' else 0)\n"
        "    assert boxes.tolist() == [[top / 32, 0, 1, 0.25]] and classes.tolist() == [0]\n"
        "    assert accuracy.figures is None and accuracy.detection.n == 30\n"
        "    latency.replay_into(benchmark)\n"
        "    accuracy.check()\n"
    )
    result, document = project.gate_json("--benchmark-save=before")
    result.assert_outcomes(passed=1, failed=1)
    good, moved = (case["detection"] for case in document["cases"])
    assert (good["verdict"], good["map"], good["reference_map"], good["drop"], good["matched"]) == ("pass", 1.0, 1.0, 0.0, 1.0)
    assert (moved["verdict"], moved["reference_map"]) == ("inaccurate", 1.0)
    assert moved["drop"] > 0.2 and moved["drop_p"] == 0.001
    assert {one["name"] for one in moved["classes"]} == {"dark", "light"}
    assert good["metrics"]["annotated"] == good["objects"] == good["metrics"]["detections"]
    result.stdout.fnmatch_lines(
        [
            "*scenes-rectangles-int8-b1-t1 is inaccurate: mAP *, the float reference's 1.0000 on 30 pictures*",
            "*AP of each class, the largest loss first*",
            "*pictures that lost most: *.png*",
            "*mAP * drop * matched*",
        ]
    )
    (session,) = project.sessions()
    (benchmark,) = json.loads(session.read_text())["benchmarks"]  # the other case's figures are no baseline
    assert benchmark["extra_info"]["inference_gate"]["detection"]["map"] == 1.0
    assert benchmark["extra_info"]["inference_gate"]["accuracy"] is None


def test_without_annotations_the_matched_share_is_judged(project):
    project.write_model(int8={"blind_to": [2]})
    project.write_card(evaluation="limit = 25", tolerance="matched = 0.9")
    project.write_test()
    result, document = project.gate_json()
    result.assert_outcomes(passed=1, failed=1)
    good, blind = (case["detection"] for case in document["cases"])
    assert (good["verdict"], good["map"], good["matched"], good["n"]) == ("pass", None, 1.0, 25)
    assert blind["verdict"] == "inaccurate"
    assert blind["lost_detections"] == good["detections"] - blind["detections"] > 10
    assert blind["metrics"]["annotated"] == -1
    result.stdout.fnmatch_lines(["*have a partner (*, below the 90.0% asked for*"])


def test_what_is_wrong_is_one_sentence(project):
    project.write_model(int8={"broken": 3})
    project.write_card(evaluation='annotations = "scenes.json", map = 1.0', precisions='"int8"')
    project.write_test(
        "import pytest\n\ndef test_gate(case, accuracy, runner):\n"
        "    with pytest.raises(ValueError, match='which has several outputs: use detect'):\n"
        "        runner.predict([])\n"
        "    accuracy.check()\n"
    )
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*is inaccurate: the outputs for 3 of 30 pictures hold NaN or infinity*"])
    document = json.loads((project.path / "models" / "scenes.json").read_text())
    document["annotations"][4]["bbox"][2] = 99
    (project.path / "models" / "scenes.json").write_text(json.dumps(document))
    result = project.run()
    result.stdout.fnmatch_lines(["*fetch_error*scenes.json: annotation 4 has the box *which reaches out of image*"])


def test_another_stack_is_compared_picture_by_picture(project):
    project.write_card(precisions='"fp32"')
    project.write_test(
        "def test_gate(case, accuracy, latency, benchmark):\n    latency.replay_into(benchmark)\n    accuracy.check()\n"
    )
    python = project.path / "other-stack"
    python.write_text(f'#!/bin/sh\nRECTANGLES_SHIFT=3 exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    result, document = project.gate_json(f"--gate-against={python}")
    result.assert_outcomes(passed=1)
    (case,) = document["cases"]
    assert case["detection"]["map"] == 1.0 and case["detection"]["reference_map"] < 0.8
    assert case["detection"]["drop"] < -0.2
    assert "the other stack's" in case["detection"]["reason"]


def test_a_bundle_brings_all_outputs_back(project):
    project.write_test()
    command = [sys.executable, "-m", "pytest_inference_gate", "bundle", "export", "b.zip", "-k", "accuracy"]
    done = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    board = project.path / "board"
    board.mkdir()
    shutil.copy(project.path / "b.zip", board)
    done = subprocess.run(
        [sys.executable, "b.zip"], cwd=board, capture_output=True, text=True, check=False, timeout=120, env=bare()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result, document = project.gate_json(f"--gate-target=bundle:{board / 'b.results.zip'}")
    assert [case["detection"]["map"] for case in document["cases"]] == [1.0, 1.0], result.stdout.str()
    assert [case["id"] for case in document["cases"]] == CASES


def test_a_board_sends_all_outputs_back(project, monkeypatch):
    project.write_card(precisions='"fp32"')
    project.write_test()
    with tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True) as folder:
        board = LoopbackBoard(Path(folder))
        board.start()
        monkeypatch.setenv("INFERENCE_GATE_SSH", board.environment["INFERENCE_GATE_SSH"])
        try:
            result, document = project.gate_json(f"--gate-target={board.url}")
        finally:
            board.stop()
    result.assert_outcomes(passed=1)
    assert (document["cases"][0]["detection"]["map"], document["cases"][0]["detection"]["reference_map"]) == (1.0, 1.0)


def bare():
    """Nothing of this plugin: a board has a Python with NumPy."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
