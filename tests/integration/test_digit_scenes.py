"""The detector of the digit scenes: its data, its exports, its cards, and whole sessions of the gate on it.

TensorFlow, LiteRT and scikit-learn run in processes of their own.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from pytest_inference_gate.agent import detection_decoding, ssd_anchors
from pytest_inference_gate.card_tables.detection import detection_settings
from pytest_inference_gate.cards import load_cards
from pytest_inference_gate.errors import CardError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "models"
FOLDER = MODELS / "digit_scenes"
NAMES = ("digit_scenes_ssd", "digit_scenes_ssd_tf1", "digit_scenes_ssd_postprocessed")
TIMEOUT = 600

needs_scikit_learn = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed here")
needs_tensorflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "ai_edge_litert", "pycocotools")),
    reason="TensorFlow, LiteRT or pycocotools is not installed here",
)


def run_python(*arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def cards():
    return {card.name: card for card in load_cards(MODELS) if card.name in NAMES}


@pytest.fixture(scope="module")
def geometry():
    """The recipe's own module, by its path: the recipes are no package."""
    specification = importlib.util.spec_from_file_location("ssd_geometry", FOLDER / "ssd_geometry.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["ssd_geometry"] = module  # where its dataclass looks for itself
    specification.loader.exec_module(module)
    yield module
    del sys.modules["ssd_geometry"]


def test_the_cards_are_asked_for_by_name_and_the_folder_is_small(cards):
    assert set(cards) == set(NAMES)
    assert not any(card.default for card in cards.values())
    assert {card.evaluation.map for card in cards.values()} == {cards["digit_scenes_ssd"].evaluation.map}
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if "__pycache__" not in file.parts) < 4e6


@needs_scikit_learn
def test_scenes_are_made_again_pixel_by_pixel_from_writers_of_their_own(tmp_path):
    run_python(str(FOLDER / "make_scenes.py"), "--output", str(tmp_path))
    for name in ("evaluation", "calibration"):
        with numpy.load(tmp_path / f"{name}.npz") as made, numpy.load(FOLDER / f"{name}.npz") as committed:
            numpy.testing.assert_array_equal(made["images"], committed["images"])
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads((FOLDER / "evaluation.json").read_text())
    shown = run_python(
        "-c",
        "from make_scenes import *\n"
        "train, test = training_digits()[0], evaluation_digits()[0]\n"
        "print(len(train), len(test), len({each.tobytes() for each in train} & {each.tobytes() for each in test}))",
    )
    assert shown.split() == ["1157", "597", "0"]


def test_annotations_lie_in_their_pictures_and_do_not_touch():
    document = json.loads((FOLDER / "evaluation.json").read_text())
    boxes = {image["id"]: [] for image in document["images"]}
    assert len(boxes) == 200
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert min(x, y) >= 0 and x + width <= 96 and y + height <= 96
        others = boxes[annotation["image_id"]]
        assert all(x >= right or left >= x + width or y >= low or high >= y + height for left, high, right, low in others)
        others.append((x, y, x + width, y + height))
    assert {len(found) for found in boxes.values()} == {1, 2, 3, 4, 5, 6}


def test_anchors_are_those_of_the_pipeline_config(cards, geometry):
    text = (FOLDER / "digit_scenes_ssd_tf1" / "pipeline.config").read_text()

    def numbers(key):
        return [float(value) for value in re.findall(rf"\b{key}: ([\d.]+)", text)]

    generated = ssd_anchors.generate(
        {
            "feature_maps": [[12, 12], [6, 6]],
            "scales": numbers("scales"),
            "aspect_ratios": numbers("aspect_ratios"),
            "reduce_boxes_in_lowest_layer": "reduce_boxes_in_lowest_layer: true" in text,
            "interpolated_scale_aspect_ratio": numbers("interpolated_scale_aspect_ratio")[0],
        },
        (96, 96),
    )
    numpy.testing.assert_allclose(numpy.load(FOLDER / "anchors.npy"), generated, atol=1e-6)
    numpy.testing.assert_allclose(geometry.make_anchors(), generated, atol=1e-6)
    settings = detection_settings(cards["digit_scenes_ssd"])
    assert settings["box_scales"] == [numbers(key)[0] for key in ("y_scale", "x_scale", "height_scale", "width_scale")]
    assert [settings["score_threshold"]] == numbers("score_threshold")
    assert [settings["iou_threshold"]] == numbers("iou_threshold")
    assert [settings["maximum_per_class"]] == numbers("max_detections_per_class")
    assert [settings["maximum_detections"]] == numbers("max_total_detections")


def test_what_training_encodes_the_gate_decodes(geometry):
    random = numpy.random.default_rng(3)
    anchors = geometry.make_anchors()
    low = random.uniform(0, 0.6, (50, 2))
    boxes = numpy.concatenate([low, low + random.uniform(0.1, 0.4, (50, 2))], axis=1)
    chosen = random.permutation(len(anchors))[:50]
    decoded = detection_decoding.decode_boxes(geometry.encode(boxes, anchors[chosen]), anchors[chosen])
    numpy.testing.assert_allclose(decoded, boxes, atol=1e-5)


def test_every_digit_gets_an_anchor_and_no_anchor_a_digit_far_away(geometry):
    anchors = geometry.make_anchors()
    boxes = numpy.array([[0.1, 0.1, 0.3, 0.24], [0.5, 0.5, 0.95, 0.85], [0.0, 0.93, 0.17, 1.0]])
    answers = geometry.assign(boxes, anchors)
    assert set(answers) == {-1, 0, 1, 2}
    shared = geometry.overlaps(boxes, geometry.corners(anchors))
    assert all(answers[shared[number].argmax()] == number for number in range(3))
    assert shared[answers[answers >= 0], numpy.flatnonzero(answers >= 0)].min() > 0.2
    assert (geometry.assign(numpy.zeros((0, 4)), anchors) == -1).all()


def with_foreign_operation(graph):
    """The bytes of a GraphDef with one more node, of an operation that TensorFlow does not have: messages one behind the other are one."""

    def field(number, content):
        assert len(content) < 128
        return bytes([number << 3 | 2, len(content)]) + content

    inputs = field(3, b"concat") + field(3, b"Postprocessor/convert_scores")
    return graph + field(1, field(1, b"detections") + field(2, b"TFLite_Detection_PostProcess") + inputs)


WRONG_SCALES = [5.0, 5.0, 10.0, 10.0]


def inline(value):
    """A value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(inline(each) for each in value) + "]"
    return json.dumps(value)


class Project:
    """Cards of the digit scenes, changed or not, as a project of their own."""

    def __init__(self, path):
        self.path = path
        self.models = path / "models"
        self.models.mkdir()
        (self.models / "digit_scenes").symlink_to(FOLDER)
        for test in (ROOT / "tests" / "gate").glob("test_*.py"):
            shutil.copy(test, path)
        (path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\ngate_replicates = 1\n")

    def add_card(self, name, of=None, **tables):
        """The card ``of``, or that of its own name, run by default; ``tables`` are laid over its own, without the keys that are None."""
        card = tomllib.loads((MODELS / f"{of or name}.toml").read_text())
        card.update(name=name, default=True)
        for key, changed in tables.items():
            table = changed if key in ("backends", "variants") else {**card.get(key, {}), **changed}
            card[key] = {name: value for name, value in table.items() if value is not None}
        (self.models / f"{name}.toml").write_text("".join(f"{key} = {inline(value)}\n" for key, value in card.items()))

    def run(self, *arguments):
        """A session in a process of its own: its status, its output and its cases by id."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cpu", "--gate-json=result.json", *arguments]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=TIMEOUT)
        document = json.loads((self.path / "result.json").read_text())
        return done.returncode, done.stdout + done.stderr, {case["id"]: case for case in document["cases"]}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """One session, accuracy alone: good cards, and copies with one thing wrong each. Gives its status, its output and its cases."""
    project = Project(tmp_path_factory.mktemp("scenes"))
    project.add_card("digit_scenes_ssd", backends={"tflite": ["int8"]})
    project.add_card("digit_scenes_ssd_tf1", backends={"tensorflow": ["fp32"]}, variants={"tensorflow": ["as_is"]})
    project.add_card("digit_scenes_ssd_postprocessed", backends={"tflite": ["fp32"]})
    # Of the .tflite file, which needs no converting and no TensorFlow.
    file = {"format": "tflite", "file": "digit_scenes/digit_scenes_ssd_raw.tflite", "sha256": None}
    wrong = {"of": "digit_scenes_ssd", "checkpoint": file, "backends": {"tflite": ["fp32"]}}
    project.add_card("wrong_scales", **wrong, detection={"box_scales": WRONG_SCALES, "pipeline_config": None})
    numpy.save(project.models / "swapped.npy", numpy.load(FOLDER / "anchors.npy")[:, [1, 0, 3, 2]])
    project.add_card("swapped_coordinates", **wrong, detection={"anchors": {"file": "swapped.npy"}})
    # A graph that ends in an operation which TensorFlow does not have, as the zoo's MobileNetV3 do: its heads can be used all the same.
    frozen = FOLDER / "digit_scenes_ssd_tf1" / "frozen_inference_graph.pb"
    (project.models / "for_tflite.pb").write_bytes(with_foreign_operation(frozen.read_bytes()))
    heads = {"file": "for_tflite.pb", "sha256": None, "outputs": ["concat:0", "Postprocessor/convert_scores:0"]}
    raw = tomllib.loads((MODELS / "digit_scenes_ssd.toml").read_text())["detection"]
    project.add_card(
        "heads_of_a_graph",
        of="digit_scenes_ssd_tf1",
        checkpoint=heads,
        detection={**raw, "outputs": {"boxes": 0, "scores": 1}},
        backends={"tensorflow": ["fp32"]},
        variants={"tensorflow": ["as_is"]},
    )
    return project.run("test_accuracy.py")


@needs_tensorflow
def test_all_forms_of_the_detector_reach_what_their_cards_say(judged, cards):
    _, output, cases = judged
    good = {name: case for name, case in cases.items() if name.startswith(("digit_scenes_ssd", "heads_of_a_graph"))}
    assert len(good) == 4, output
    expected = cards["digit_scenes_ssd"].evaluation.map
    for name, case in good.items():
        assert case["verdict"] == "pass", (name, case["reason"])
        tolerance = 0.03 if "int8" in name else 0.005
        assert abs(case["detection"]["map"] - expected) <= tolerance, name
    assert expected > 0.6


@needs_tensorflow
def test_boxes_that_are_read_wrong_are_inaccurate(judged):
    status, _, cases = judged
    assert status == 1
    for name in ("wrong_scales", "swapped_coordinates"):
        (case,) = [case for key, case in cases.items() if key.startswith(name)]
        assert case["verdict"] == "inaccurate", case["reason"]
        assert "where its card expects" in case["reason"] and "[detection]" in case["reason"]


def test_box_scales_that_differ_from_the_pipeline_config_stop_the_run_at_the_card(tmp_path):
    project = Project(tmp_path)
    project.add_card("wrong_scales", of="digit_scenes_ssd", detection={"box_scales": WRONG_SCALES})
    with pytest.raises(
        CardError, match=r"detection.box_scales: found \[5.0, 5.0, 10.0, 10.0\], where the box_coder of .*pipeline.config"
    ):
        load_cards(project.models)
