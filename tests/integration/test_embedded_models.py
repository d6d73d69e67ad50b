"""The embedded models are what their cards say: checkpoints, data, preprocessing.

TensorFlow and scikit-learn run in processes of their own; this one never imports them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_inference_gate.backends import BACKENDS
from pytest_inference_gate.cards import ModelCard, load_card, load_cards
from pytest_inference_gate.datasets import load_images
from pytest_inference_gate.matrix import build_cases
from pytest_inference_gate.preprocessing import preprocess

MODELS = Path(__file__).resolve().parents[2] / "models"
DIGITS = MODELS / "digits"
NAMES = ["digits_cnn", "digits_inverted_residual"]

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed here")
needs_scikit_learn = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed here")

PREDICT = """
import sys
import numpy, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
import keras
checkpoint, inputs, outputs = sys.argv[1:]
model = keras.models.load_model(checkpoint)
numpy.save(outputs, model.predict(numpy.load(inputs), batch_size=64, verbose=0))
"""

SAVE_LOAD_DIGITS = """
import sys
import numpy
from sklearn.datasets import load_digits
digits = load_digits()
numpy.savez(sys.argv[1], images=digits.images, labels=digits.target)
"""

SHOW_RECIPE_INPUTS = """
import sys
import numpy
from recipe_common import preprocess
numpy.save(sys.argv[2], preprocess(numpy.load(sys.argv[1])["images"]))
"""


def run_python(*arguments: str, python_path: Path | None = None) -> str:
    """Run another Python process to its end and return what it printed; its complaints go into the failure."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read_npz(path: Path) -> tuple[Any, Any]:
    with numpy.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["images", "labels"]
        return archive["images"], archive["labels"]


def evaluation_inputs(card: ModelCard) -> tuple[Any, Any]:
    """What the gate feeds the model: the card's evaluation pictures through the plugin's own preprocessing, and their labels."""
    pictures = load_images(card.evaluation_source, card)
    assert pictures.labels is not None
    return preprocess(pictures.images, card, {}), numpy.asarray(pictures.labels)


@pytest.fixture(scope="module")
def cards() -> dict[str, ModelCard]:
    return {card.name: card for card in load_cards(MODELS)}


@pytest.mark.parametrize("name", NAMES)
def test_card_is_a_default_model_with_every_precision_of_every_backend(cards: dict[str, ModelCard], name: str) -> None:
    card = cards[name]
    assert card == load_card(MODELS / f"{name}.toml")
    assert card.default
    assert card.backends == {backend: list(info.precisions) for backend, info in BACKENDS.items()}
    on_cpu = [case for case in build_cases([card]) if case.device == "cpu"]
    assert {(case.backend, case.precision) for case in on_cpu} == {
        (backend, precision) for backend in ("tensorflow", "tflite", "onnxruntime") for precision in BACKENDS[backend].precisions
    }
    assert len(on_cpu) == 8  # the main job needs no more than TensorFlow, LiteRT and ONNX Runtime


def test_no_other_model_runs_by_default(cards: dict[str, ModelCard]) -> None:
    """`pytest -m cpu` must need no network: what is fetched has to be asked for."""
    assert sorted(name for name, card in cards.items() if card.default) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_is_small_and_free_of_optimizer_state(cards: dict[str, ModelCard], name: str) -> None:
    checkpoint = cards[name].directory / str(cards[name].checkpoint.file)
    assert checkpoint.stat().st_size < 1_000_000
    with zipfile.ZipFile(checkpoint) as archive:
        assert not json.loads(archive.read("config.json"))["compile_config"]


@needs_tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_reaches_the_top1_of_its_card(cards: dict[str, ModelCard], name: str, tmp_path: Path) -> None:
    card = cards[name]
    assert card.evaluation is not None
    assert card.evaluation.top1 is not None
    inputs, labels = evaluation_inputs(card)
    assert inputs.shape == (597, *card.input.shape)
    assert inputs.dtype == numpy.float32
    numpy.save(tmp_path / "inputs.npy", inputs)
    run_python(
        "-c",
        PREDICT,
        str(card.directory / str(card.checkpoint.file)),
        str(tmp_path / "inputs.npy"),
        str(tmp_path / "outputs.npy"),
    )
    outputs = numpy.load(tmp_path / "outputs.npy")
    assert outputs.shape == (597, card.labels.count)
    numpy.testing.assert_allclose(outputs.sum(axis=1), 1.0, atol=1e-5)
    top1 = float((outputs.argmax(axis=1) == labels).mean())
    assert abs(top1 - card.evaluation.top1) <= 0.005
    assert top1 >= 0.97


@needs_scikit_learn
def test_recipes_and_plugin_preprocess_alike(cards: dict[str, ModelCard], tmp_path: Path) -> None:
    """A model that is trained on one resize and asked about another loses accuracy silently."""
    run_python("-c", SHOW_RECIPE_INPUTS, str(DIGITS / "evaluation.npz"), str(tmp_path / "inputs.npy"), python_path=DIGITS)
    recipe = numpy.load(tmp_path / "inputs.npy")
    for name in NAMES:
        numpy.testing.assert_allclose(evaluation_inputs(cards[name])[0], recipe, rtol=0, atol=1e-6)


@needs_scikit_learn
def test_data_files_are_reproduced_bit_for_bit(tmp_path: Path) -> None:
    run_python(str(DIGITS / "make_data.py"), "--output", str(tmp_path))
    for name in ("evaluation.npz", "calibration.npz"):
        assert (tmp_path / name).read_bytes() == (DIGITS / name).read_bytes()


@needs_scikit_learn
def test_pictures_are_those_of_load_digits(tmp_path: Path) -> None:
    run_python("-c", SAVE_LOAD_DIGITS, str(tmp_path / "all.npz"))
    images, labels = read_npz(tmp_path / "all.npz")
    evaluation_images, evaluation_labels = read_npz(DIGITS / "evaluation.npz")
    assert evaluation_images.dtype == numpy.uint8
    assert evaluation_labels.dtype == numpy.int64
    numpy.testing.assert_array_equal(evaluation_images, images[1200:])
    numpy.testing.assert_array_equal(evaluation_labels, labels[1200:])

    label_of = {
        picture.astype(numpy.uint8).tobytes(): int(label) for picture, label in zip(images[:1157], labels[:1157], strict=True)
    }
    calibration_images, calibration_labels = read_npz(DIGITS / "calibration.npz")
    assert [label_of[picture.tobytes()] for picture in calibration_images] == calibration_labels.tolist()


def test_calibration_is_balanced_and_apart_from_evaluation() -> None:
    evaluation, _ = read_npz(DIGITS / "evaluation.npz")
    calibration, labels = read_npz(DIGITS / "calibration.npz")
    assert calibration.shape == (200, 8, 8)
    assert numpy.bincount(labels).tolist() == [20] * 10
    assert calibration.max() == 16
    seen = {picture.tobytes() for picture in calibration}
    assert len(seen) == 200
    assert seen.isdisjoint(picture.tobytes() for picture in evaluation)


@pytest.mark.parametrize("purpose", ["evaluation", "calibration"])
def test_card_declares_the_largest_pixel_of_its_data(cards: dict[str, ModelCard], purpose: str) -> None:
    images, _ = read_npz(DIGITS / f"{purpose}.npz")
    for name in NAMES:
        source = getattr(cards[name], purpose)
        assert (cards[name].directory / source.file).resolve() == (DIGITS / f"{purpose}.npz").resolve()
        assert cards[name].preprocessing.maximum == images.max()
