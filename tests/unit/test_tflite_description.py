"""What a TensorFlow Lite file says of itself: its ends, its precision, and the metadata that may go with it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tflite_bytes import BUILTIN, data, file_of, floats, model, table, tables, text

from pytest_inference_gate.agent import tflite_description
from pytest_inference_gate.agent.failures import LoadError


def describe(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return tflite_description.describe({"format": "tflite", "path": str(path)}, lambda _: None)


def metadata(mean: Sequence[float], deviation: Sequence[float], labels: str) -> bytes:
    """As much of ``metadata_schema.fbs`` as is read."""
    options = table(floats(mean), floats(deviation))
    unit = table(bytes([1]), options)  # NormalizationOptions
    of_input = table(text("image"), None, None, None, tables([unit]))
    of_output = table(text("probability"), None, None, None, None, None, tables([table(text(labels), None, bytes([2]))]))
    graph = table(None, None, tables([of_input]), tables([of_output]))
    return file_of(table(text("a model"), None, None, tables([graph])), b"M001")


def with_file(content: bytes, name: str, lines: str) -> bytes:
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(name, lines)
    return stream.getvalue()


def test_ends_and_operators_are_told(tmp_path: Path) -> None:
    found = describe(tmp_path / "m.tflite", model(["FULLY_CONNECTED", "SOFTMAX"], dtype="float32"))
    assert found["inputs"] == [{"name": "in", "shape": [1, 4], "dtype": "float32", "scale": None, "zero_point": None}]
    assert [one["name"] for one in found["outputs"]] == ["out"]
    assert (found["precision"], found["scaling_inside"], found["family"]) == ("fp32", [], "made by hand")
    assert found.get("normalization") is None and found.get("labels") is None


def test_integers_that_are_computed_make_it_int8(tmp_path: Path) -> None:
    assert describe(tmp_path / "m.tflite", model(["FULLY_CONNECTED"], dtype="int8"))["precision"] == "int8"


def test_metadata_tells_normalization_and_labels(tmp_path: Path) -> None:
    content = model(["SOFTMAX"], dtype="float32", metadata=metadata([127.5], [127.5], "labels.txt"))
    found = describe(tmp_path / "m.tflite", with_file(content, "labels.txt", "cat\ndog\n\n"))
    assert found["normalization"] == {"mean": [127.5], "std": [127.5]}
    assert found["labels"] == ["cat", "dog"]


@pytest.mark.parametrize("name", ["another.txt", ""])
def test_labels_that_are_named_but_not_there_are_none(tmp_path: Path, name: str) -> None:
    content = model(["SOFTMAX"], dtype="float32", metadata=metadata([0.0], [255.0], "labels.txt"))
    found = describe(tmp_path / "m.tflite", with_file(content, name, "cat\n") if name else content)
    assert found["labels"] is None
    assert found["normalization"] == {"mean": [0.0], "std": [255.0]}


def test_a_deviation_of_zero_is_no_normalization(tmp_path: Path) -> None:
    content = model(["SOFTMAX"], dtype="float32", metadata=metadata([0.0], [0.0], "labels.txt"))
    assert "normalization" not in describe(tmp_path / "m.tflite", content)


def test_arithmetic_on_the_input_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "MUL", 18)
    assert describe(tmp_path / "m.tflite", model(["MUL", "SOFTMAX"], dtype="float32"))["scaling_inside"] == ["MUL"]
    assert describe(tmp_path / "m.tflite", model(["SOFTMAX", "MUL"], dtype="float32"))["scaling_inside"] == []


@pytest.mark.parametrize("content", [b"", b"nothing at all", data(b"TFL3")(bytearray()).to_bytes(4, "little") + b"TFL3"])
def test_what_is_no_model_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LoadError, match=r"m\.tflite"):
        describe(tmp_path / "m.tflite", content)


def test_a_damaged_metadata_buffer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cut or damaged"):
        describe(tmp_path / "m.tflite", model(["SOFTMAX"], metadata=b"\xff" * 40))
