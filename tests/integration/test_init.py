"""``inference-gate init`` on real models: what it finds out is right, and the first `pytest` in the suite that it makes is green."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

MODELS = Path(__file__).resolve().parents[2] / "models" / "digits"
# Enough to see that it runs: what is measured is not what is tested here.
QUICK = ("--gate-replicates=3", "--gate-rounds=10", "--gate-warm-up=0.005", "-p", "no:cacheprovider")


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def init(*arguments, cwd):
    done = run("pytest_inference_gate", "init", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(*arguments, cwd):
    done = run("pytest_inference_gate", "init", *arguments, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of the user's: the digits as pictures of 8 x 8 bytes, one folder a class."""
    folder = tmp_path_factory.mktemp("own")
    with numpy.load(MODELS / "evaluation.npz") as data:
        for number, (image, label) in enumerate(zip(data["images"][:300], data["labels"][:300], strict=True)):
            path = folder / "pictures" / str(label) / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numpy.rint(image.astype(float).reshape(8, 8) * 255 / 16).astype(numpy.uint8)).save(path)
    (folder / "my-digits.keras").write_bytes((MODELS / "digits_cnn.keras").read_bytes())
    return folder


@pytest.fixture(scope="module")
def made(place):
    """What init printed, and the suite."""
    return init("my-digits.keras", "--data", "pictures", "--evaluation=150", "--calibration=50", cwd=place), place / "gate"


@pytest.fixture(scope="module")
def first_run(place, made):
    _, suite = made
    selected = ("--gate-select=my_digits-tflite-fp32*", "--gate-select=my_digits-onnxruntime-fp32*")
    done = run("pytest", "-m", "cpu", *QUICK, f"--gate-store={place / 'store'}", "--gate-json=gate.json", *selected, cwd=suite)
    return done, json.loads((suite / "gate.json").read_text())


def test_preprocessing_and_classes_of_a_keras_model_are_found(made):
    told, suite = made
    assert "right on 14" in told and "pictures" in told
    card = (suite / "models" / "my_digits.toml").read_text()
    for line in (
        'file = "../../my-digits.keras"',
        "shape = [32, 32, 1]",
        'channel_order = "grayscale"',
        'scaling = "zero_to_one"',
    ):
        assert f"\n{line}" in card
    assert "maximum = 255" in card and "count = 10" in card and 'full_int8"]' in card
    rows = (suite / "models" / "my_digits" / "evaluation.csv").read_text().splitlines()
    assert len(rows) == 151 and all(row.split("/")[0] == row.split(",")[1] for row in rows[1:])


def test_the_first_run_of_the_suite_is_green(first_run):
    done, document = first_run
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert {case["verdict"] for case in document["cases"]} == {"pass"}


def test_a_tflite_and_an_onnx_file_are_added_and_are_green(place, made, first_run):
    _, suite = made
    for name in ("model.tflite", "model.onnx"):
        (found,) = (place / "store" / "artifacts").glob(f"*/payload/{name}")
        (place / name.replace("model", "digits")).write_bytes(found.read_bytes())
    common = {path: path.read_bytes() for path in suite.iterdir() if path.is_file() and path.suffix != ".json"}
    assert "cases: 1: tflite (fp32)" in init("digits.tflite", "--data", "pictures", "--name=lite", "--evaluation=150", cwd=place)
    told = init("digits.onnx", "--data", "pictures", "--name=onnx", "--evaluation=150", "--copy", cwd=place)
    assert "onnxruntime (fp32, int8)" in told
    for name in ("lite", "onnx"):
        assert '\nscaling = "zero_to_one"' in (suite / "models" / f"{name}.toml").read_text()
    assert {path: path.read_bytes() for path in common} == common
    selected = ("--gate-select=lite-*", "--gate-select=onnx-onnxruntime-fp32*")
    done = run("pytest", "-m", "cpu", *QUICK, f"--gate-store={place / 'store'}", *selected, cwd=suite)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_second_time_gives_the_same_and_other_options_are_refused(place, made, first_run):
    (place / "again.tflite").write_bytes(next((place / "store" / "artifacts").glob("*/payload/model.tflite")).read_bytes())
    init("again.tflite", "--data", "pictures", "--into=other", cwd=place)
    before = {path: path.read_bytes() for path in (place / "other").rglob("*") if path.is_file()}
    told = init("again.tflite", "--data", "pictures", "--into=other", cwd=place)
    assert "unchanged in other: " in told and "wrote" not in told
    assert "models/again.toml" in refused("again.tflite", "--data", "pictures", "--evaluation=20", "--into=other", cwd=place)
    assert {path: path.read_bytes() for path in (place / "other").rglob("*") if path.is_file()} == before


def test_what_is_wrong_is_one_sentence(place, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"no model")
    assert "no model that is known here" in refused("model.keras", cwd=tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no model either")
    assert "model.onnx is no ONNX model" in refused("model.onnx", cwd=tmp_path)
    assert "there are no pictures at gone" in refused(place / "my-digits.keras", "--data", "gone", cwd=tmp_path)
    assert not (tmp_path / "gate").exists()
