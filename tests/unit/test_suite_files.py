"""What init writes: cards that load, templates that hold what they should, and nothing of the user's overwritten."""

from __future__ import annotations

import configparser
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.cards import Input, load_card
from pytest_inference_gate.own_model import InitError
from pytest_inference_gate.own_model.backend_choice import choose_backends, elsewhere
from pytest_inference_gate.own_model.card_text import CardContent, card_text, tolerated_drop, toml
from pytest_inference_gate.own_model.described_model import DescribedModel
from pytest_inference_gate.own_model.labellings import Labelling
from pytest_inference_gate.own_model.model_file import ModelFile
from pytest_inference_gate.own_model.preprocessing_candidates import Candidate
from pytest_inference_gate.own_model.preprocessing_search import Found, Tried
from pytest_inference_gate.own_model.suite_files import RECORD, suite_texts, write_suite

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CANDIDATE = Candidate("resize", "bilinear", "rgb", "zero_to_one", 255.0)
VALUES = {"extras": "tensorflow,tflite", "more": "", "directory": "sub/gate", "prefix": "sub/gate/"}


def a_model(format: str = "keras", precision: str | None = None, batch: int | None = None) -> DescribedModel:
    file = ModelFile(Path("m"), format)
    return DescribedModel(file, Input(shape=(8, 8, 3)), batch, 4, precision=precision)


def content(**changes: object) -> CardContent:
    settings: dict[str, object] = {
        "name": "mine",
        "model": a_model(),
        "checkpoint": "../../mine.keras",
        "preprocessing": CANDIDATE,
        "labels": {"file": "mine/labels.txt"},
        "labels_note": "in the order of their names",
        "evaluation": {"file": "../../pictures", "labels": "mine/evaluation.csv"},
        "calibration": {"file": "../../pictures", "labels": "mine/calibration.csv"},
        "backends": {"tensorflow": ["fp32"], "tflite": ["fp32", "int8"]},
        "elsewhere": {"edgetpu": ["int8"]},
        **changes,
    }
    return CardContent(**settings)  # type: ignore[arg-type]


# Cards


def test_a_card_loads_and_says_what_was_tried(tmp_path: Path) -> None:
    labelling = Labelling({0: 0, 1: 1})
    other = Candidate("resize", "bilinear", "rgb", "none", 255.0)
    found = Found(
        Tried(CANDIDATE, labelling, 63, 64), (Tried(CANDIDATE, labelling, 63, 64), Tried(other, labelling, 9, 32)), (), True
    )
    text = card_text(content(found=found, right=237, evaluated=240, doubts={"preprocessing.interpolation": "as good as nearest"}))
    (tmp_path / "mine.toml").write_text(text)
    card = load_card(tmp_path / "mine.toml")
    assert card.evaluation is not None and card.evaluation.top1 == 0.9875  # 237 of 240
    assert card.preprocessing.scaling == "zero_to_one" and card.labels.count == 4
    assert "#    63 of  64 right: scaling = zero_to_one  <- chosen\n#     9 of  32 right: scaling = none\n" in text
    assert 'interpolation = "bilinear"  # check this: as good as nearest\n' in text
    assert '# edgetpu = ["int8"]' in text


def test_a_card_without_pictures_loads(tmp_path: Path) -> None:
    changes = {"evaluation": None, "calibration": None, "labels": {}, "backends": {"tflite": ["fp32"]}, "model": a_model(batch=8)}
    (tmp_path / "mine.toml").write_text(card_text(content(**changes)))
    card = load_card(tmp_path / "mine.toml")
    assert card.evaluation is None and card.batches == [8]


def test_an_expectation_is_never_more_than_what_was_found() -> None:
    for right in range(1, 700, 7):
        found = Found(Tried(CANDIDATE, Labelling({0: 0}), 1, 1), (), (), True)
        card = tomllib.loads(card_text(content(found=found, right=right, evaluated=700)))
        assert right / 700 - 1e-4 < card["evaluation"]["top1"] <= right / 700


@given(st.integers(1, 100_000))
def test_two_pictures_may_turn_in_a_small_set(count: int) -> None:
    drop, _ = tolerated_drop(count)
    assert 0.01 <= drop <= 2.001 and (drop >= 2 / count - 1e-9 or drop == 0.01)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.floats(0.001, 1e6), st.integers())
def test_values_come_back_from_toml(text: str, flag: bool, number: float, whole: int) -> None:
    number = float(f"{number:g}")
    written = f"a = {toml(text)}\nb = {toml(flag)}\nc = {toml(number)}\nd = {toml([text])}\ne = {toml({'k': whole})}"
    assert tomllib.loads(written) == {"a": text, "b": flag, "c": number, "d": [text], "e": {"k": whole}}


# Backends

PROBE = {
    "backends": {
        name: {
            "can_convert": True,
            "can_run": runs,
            "source_formats": formats,
            "precisions_convert": precisions,
            "precisions_run": precisions,
        }
        for name, runs, formats, precisions in (
            ("tensorflow", True, ["keras"], ["fp32"]),
            ("tflite", True, ["tflite", "keras"], ["fp32", "fp16", "dynamic", "int8", "full_int8"]),
            ("onnxruntime", False, ["onnx", "keras"], ["fp32", "int8"]),
            ("torch", True, ["onnx", "keras", "torch_weights"], ["fp32", "fp16"]),
        )
    }
}


def test_backends_are_those_that_are_here_and_take_the_format() -> None:
    assert choose_backends(a_model(), PROBE, calibrated=True) == {
        "tensorflow": ["fp32"],
        "tflite": ["fp32", "dynamic", "fp16", "int8", "full_int8"],
    }
    assert choose_backends(a_model(), PROBE, calibrated=False)["tflite"] == ["fp32", "dynamic", "fp16"]
    assert choose_backends(a_model("tflite", "full_int8"), PROBE, calibrated=False) == {"tflite": ["full_int8"]}
    assert choose_backends(a_model("torch_weights"), PROBE, calibrated=True) == {"torch": ["fp32"]}
    assert elsewhere(a_model("tflite", "int8"), calibrated=False) == {"edgetpu": ["int8"]}
    assert "int8" not in elsewhere(a_model("onnx"), calibrated=False)["tensorrt"]


# Files


def test_templates_are_filled_in() -> None:
    files = {path: text.decode() for path, text in suite_texts(VALUES).items()}
    tox = configparser.ConfigParser()
    tox.read_string(files["tox.ini"])
    assert tox["testenv:gate"]["deps"].strip() == "pytest-inference-gate[tensorflow,tflite]"
    ini = configparser.ConfigParser()
    ini.read_string(files["pytest.ini"])
    assert ini["pytest"]["gate_models"] == "models"
    compile(files["test_models.py"], "test_models.py", "exec")
    workflow = files[".github/workflows/inference-gate.yml"]
    assert "working-directory: sub/gate\n" in workflow and "${{ runner.temp }}" in workflow and "actions/cache@v" in workflow
    assert not [line for text in files.values() for line in text.splitlines() if "@{" in line or line != line.rstrip()]
    top = suite_texts({**VALUES, "directory": ".", "prefix": ""})
    assert b".base/tox.ini" in top[".github/workflows/inference-gate.yml"]


def test_the_workflow_is_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load(suite_texts(VALUES)[".github/workflows/inference-gate.yml"])
    steps = document["jobs"]["gate"]["steps"]
    assert [step["uses"].partition("@")[0] for step in steps if "uses" in step][-1] == "actions/upload-artifact"
    assert any("--gate-against=" in step.get("run", "") and "\n" not in step["run"].strip() for step in steps)


def test_the_same_files_twice_are_left_alone(tmp_path: Path) -> None:
    files = {"a.txt": b"a", "models/b.toml": b"b"}
    first = write_suite(tmp_path / "gate", files, force=False)
    assert first.new == ("a.txt", "models/b.toml")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "gate").rglob("*")}
    again = write_suite(tmp_path / "gate", files, force=False)
    assert (again.new, again.replaced, again.same) == ((), (), ("a.txt", "models/b.toml"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "gate").rglob("*")} == before


def test_what_is_the_users_is_never_replaced(tmp_path: Path) -> None:
    write_suite(tmp_path, {"made.txt": b"1", "edited.txt": b"1"}, force=False)
    (tmp_path / "edited.txt").write_bytes(b"edited")
    (tmp_path / "foreign.txt").write_bytes(b"foreign")
    (tmp_path / "link.txt").symlink_to("nowhere")
    files = {"made.txt": b"2", "edited.txt": b"2", "foreign.txt": b"2", "link.txt": b"2", "new.txt": b"2"}
    for force in (False, True):
        with pytest.raises(InitError, match="nothing was written.*edited.txt, foreign.txt, link.txt; move them away"):
            write_suite(tmp_path, files, force=force)
        assert not (tmp_path / "new.txt").exists() and (tmp_path / "made.txt").read_bytes() == b"1"
    with pytest.raises(InitError, match="made by init with other content: made.txt; --force"):
        write_suite(tmp_path, {"made.txt": b"2"}, force=False)
    assert write_suite(tmp_path, {"made.txt": b"2"}, force=True).replaced == ("made.txt",)
    # And again: what was replaced is init's as well.
    assert write_suite(tmp_path, {"made.txt": b"3"}, force=True).replaced == ("made.txt",)
    assert set(json.loads((tmp_path / RECORD).read_text())["files"]) == {"made.txt", "edited.txt"}


@pytest.mark.parametrize(
    ("record", "sentence"), [("[]", "is damaged"), ('{"schema": "inference-gate-init/9"}', "another release")]
)
def test_a_record_that_is_no_record(tmp_path: Path, record: str, sentence: str) -> None:
    (tmp_path / RECORD).write_text(record)
    with pytest.raises(InitError, match=sentence):
        write_suite(tmp_path, {"a": b""}, force=True)


def test_what_an_interrupted_init_had_written_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_inference_gate.own_model import suite_files

    files = {"pytest.ini": b"1", "models/m.toml": b"card", "README.md": b"r"}
    (tmp_path / "models").mkdir()
    for path in ("pytest.ini", "models/m.toml"):  # ended before the last file and the record
        (tmp_path / path).write_bytes(files[path])
    suite_files.write_suite(tmp_path, files, force=False)
    assert suite_files.write_suite(tmp_path, {"models/m.toml": b"another"}, force=True).replaced == ("models/m.toml",)
