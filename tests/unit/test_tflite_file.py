"""Reading TensorFlow Lite files without TensorFlow: what is in them, and that damaged ones are refused and nothing worse."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tflite_bytes import BUILTIN, model

from pytest_inference_gate.agent import tflite_file

EDGE_TPU = tflite_file.EDGE_TPU_OPERATOR
names = st.lists(st.sampled_from([*BUILTIN, EDGE_TPU, "TFLite_Detection_PostProcess"]), max_size=12)


@given(names)
def test_operators_come_back_in_their_order(operators: list[str]) -> None:
    found = tflite_file.parse(model(operators))
    assert [operator.name for operator in found.operators] == operators
    assert [operator.custom for operator in found.operators] == [name not in BUILTIN for name in operators]
    assert found.edge_tpu_operators == operators.count(EDGE_TPU)
    assert found.description == "made by hand"
    assert (found.inputs, found.outputs) == ([("in", "int8", [1, 4])], [("out", "int8", [1, 4])])


def test_counts_name_custom_operators() -> None:
    found = tflite_file.parse(model(["QUANTIZE", EDGE_TPU, "CONV_2D", "CONV_2D"]))
    assert found.counts == {"QUANTIZE": 1, "CUSTOM:edgetpu-custom-op": 1, "CONV_2D": 2}


def test_files_of_old_writers_have_small_numbers_in_one_field_alone() -> None:
    assert tflite_file.parse(model(["QUANTIZE", EDGE_TPU], old_writer=True)).counts == {
        "QUANTIZE": 1,
        "CUSTOM:edgetpu-custom-op": 1,
    }


def test_an_operator_of_a_later_release_is_called_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "SOMETHING_NEW", 4711)
    assert tflite_file.parse(model(["SOMETHING_NEW"])).counts == {"operator 4711": 1}


def test_a_tensor_of_a_type_that_is_not_known_here() -> None:
    content = model(["CONV_2D"]).replace(struct.pack("<i", 9), struct.pack("<i", 99))
    assert tflite_file.parse(content).inputs[0].dtype == "type 99"


@given(names, st.data())
def test_a_file_that_was_cut_is_refused(operators: list[str], data: st.DataObject) -> None:
    content = model([*operators, "CONV_2D"])
    # The last bytes may be text that is not needed.
    cut = content[: data.draw(st.integers(0, len(content) - 40))]
    with pytest.raises(tflite_file.NotTfLiteError):
        tflite_file.parse(cut)


@given(names, st.lists(st.tuples(st.integers(8, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_bytes_give_another_model_or_a_refusal_and_nothing_worse(
    operators: list[str], damage: list[tuple[int, int]]
) -> None:
    content = bytearray(model(operators))
    for place, value in damage:
        content[8 + (place - 8) % (len(content) - 8)] = value
    with contextlib.suppress(tflite_file.NotTfLiteError):
        tflite_file.parse(bytes(content))


@given(st.binary(max_size=200))
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(tflite_file.NotTfLiteError):
        tflite_file.parse(content[:4] + b"NOPE" + content[8:])
