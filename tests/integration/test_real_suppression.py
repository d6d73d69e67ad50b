"""Boxes are decoded and suppressed as TensorFlow does it, and as TensorFlow Lite's own operator does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from pytest_inference_gate.agent.detection_decoding import decode, suppress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suppressed")
    subprocess.run([sys.executable, Path(__file__).parent / "make_suppressed.py", folder], check=True, timeout=300)
    return folder


def test_the_boxes_that_tensorflow_chooses_are_chosen_in_its_order(made: Path) -> None:
    for path in sorted(made.glob("nms_*.npz")):
        case = numpy.load(path)
        anchors, _ = suppress(case["boxes"], case["scores"][:, None], float(case["iou"]), 0.2, 20, 100)
        assert anchors.tolist() == case["chosen"].tolist(), path.name


def test_a_raw_model_gives_what_the_operator_of_tensorflow_lite_gives(made: Path, tmp_path: Path) -> None:
    case = numpy.load(made / "operator.npz")
    numpy.save(tmp_path / "anchors.npy", case["anchors"])
    same = {"score_threshold": 0.1, "maximum_detections": 20, "classes": 3}
    raw = {
        **same,
        "kind": "raw",
        "outputs": {"boxes": 0, "scores": 1},
        "first_class": 1,
        "anchors": {"file": str(tmp_path / "anchors.npy")},
        "picture": [96, 96],
        "box_scales": [10.0, 10.0, 5.0, 5.0],
        "score_conversion": "none",
        "iou_threshold": 0.4,
        "maximum_per_class": 20,
    }
    done = {**same, "kind": "postprocessed", "outputs": {"boxes": 0, "classes": 1, "scores": 2, "count": 3}, "first_class": 0}
    own = decode([case["encodings"], case["scores"]], raw)
    theirs = decode([case[f"output_{number}"] for number in range(4)], done)
    assert [len(scores) for _, scores, _ in theirs] == [20] * 4
    for mine, expected in zip(own, theirs, strict=True):
        numpy.testing.assert_allclose(mine[0], expected[0], atol=1e-6)
        numpy.testing.assert_allclose(mine[1], expected[1], atol=1e-6)
        assert mine[2].tolist() == expected[2].tolist()
