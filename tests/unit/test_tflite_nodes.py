"""Which nodes a delegate has taken, told from the interpreter's list alone."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import tflite_nodes


def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


class Interpreter:
    """What an interpreter shows of its nodes; ``None`` for one that fails."""

    def __init__(self, nodes: list[dict[str, Any]] | None) -> None:
        self.found = nodes

    def _get_ops_details(self) -> list[dict[str, Any]]:
        if self.found is None:
            raise RuntimeError("no such node")
        return self.found


# 0 -> QUANTIZE -> 1 -> CONV (weights 10) -> 2 -> SOFTMAX -> 3 -> CONV (weights 11) -> 4
CHAIN = [node("QUANTIZE", [0], [1]), node("CONV_2D", [1, 10], [2]), node("SOFTMAX", [2], [3]), node("CONV_2D", [3, 11], [4])]


def test_nothing_is_taken_where_there_is_no_delegate() -> None:
    found = tflite_nodes.xnnpack_coverage(Interpreter(CHAIN), "here")
    assert found is not None
    assert (found["on_accelerator"], found["elsewhere"], found["parts"]) == (0, 4, 0)
    assert found["elsewhere_by_operation"][0] == {"operation": "CONV_2D", "count": 2, "reason": "not taken by XNNPACK"}


def test_two_parts_around_what_the_delegate_does_not_know() -> None:
    nodes = [*CHAIN, node("DELEGATE", [0, 10], [2]), node("DELEGATE", [3, 11], [4])]
    assert tflite_nodes.delegated(nodes) == [{0, 1}, {3}]
    found = tflite_nodes.xnnpack_coverage(Interpreter(nodes), "here")
    assert found is not None
    assert (found["on_accelerator"], found["elsewhere"], found["parts"]) == (3, 1, 2)
    assert [row["operation"] for row in found["elsewhere_by_operation"]] == ["SOFTMAX"]


def test_constants_that_a_release_does_not_list_as_inputs_change_nothing() -> None:
    assert tflite_nodes.delegated([*CHAIN, node("DELEGATE", [0], [4])]) == [{0, 1, 2, 3}]


def test_dequantized_constants_belong_to_the_part_that_made_them() -> None:
    """As in float16 models: a DEQUANTIZE of a constant that only the part uses."""
    nodes = [node("DEQUANTIZE", [20], [21]), node("CONV_2D", [0, 21], [1]), node("DELEGATE", [0, 20], [1])]
    assert tflite_nodes.delegated(nodes) == [{0, 1}]


def test_what_tensorflow_s_own_operations_take_is_not_xnnpack_s() -> None:
    nodes = [node("CONV_2D", [0], [1]), node("FlexErf", [1], [2]), node("DELEGATE", [1], [2]), node("DELEGATE", [0], [1])]
    found = tflite_nodes.xnnpack_coverage(Interpreter(nodes), "here")
    assert found is not None
    assert (found["on_accelerator"], found["elsewhere"], found["parts"]) == (1, 1, 1)


def test_a_release_that_does_not_show_its_nodes() -> None:
    assert tflite_nodes.xnnpack_coverage(object(), "here") is None
    assert tflite_nodes.xnnpack_coverage(Interpreter(None), "here") is None


@given(st.integers(1, 30), st.data())
def test_a_chain_cut_anywhere_into_parts(length: int, data: st.DataObject) -> None:
    chain = [node("ADD", [number], [number + 1]) for number in range(length)]
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    assert tflite_nodes.delegated([*chain, node("DELEGATE", [start], [end])]) == [set(range(start, end))]
