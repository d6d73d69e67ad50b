"""Precisions written into an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import onnx_precision
from pytest_inference_gate.agent.failures import BuildError

onnx = pytest.importorskip("onnx")


def node(inputs: list[str], output: str) -> object:
    return onnx.helper.make_node("Sum", inputs, [output], f"makes_{output}")


@given(st.permutations(range(6)))
def test_nodes_come_after_those_that_they_read_from(order: list[int]) -> None:
    chain = [node(["x", "weight"] if number == 0 else [f"t{number - 1}", "t0"], f"t{number}") for number in range(6)]
    chain[1] = node(["t0", "x"], "t1")
    graph = onnx.helper.make_graph([chain[number] for number in order], "g", [], [])
    onnx_precision._sort(graph)
    made = {"x", "weight"}
    for one in graph.node:
        assert set(one.input) <= made
        made.update(one.output)
    assert made == {"x", "weight", *(f"t{number}" for number in range(6))}


def test_a_cycle_is_an_error() -> None:
    graph = onnx.helper.make_graph([node(["b"], "a"), node(["a"], "b")], "g", [], [])
    with pytest.raises(BuildError, match="cycle"):
        onnx_precision._sort(graph)


def test_half_floats_inside_and_whole_ones_at_the_ends(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    weight = numpy.array([[0.5, 1.0001], [2.0, -3.0]], numpy.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "g",
        [helper.make_tensor_value_info("x", kind.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", kind.FLOAT, [1, 2])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "whole.onnx")
    said: list[str] = []
    versions = onnx_precision.halve(str(tmp_path / "whole.onnx"), str(tmp_path / "half.onnx"), said.append)
    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model)
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [kind.FLOAT, kind.FLOAT]
    assert [tensor.data_type for tensor in model.graph.initializer] == [kind.FLOAT16]
    session = onnxruntime.InferenceSession(str(tmp_path / "half.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": numpy.ones((1, 2), numpy.float32)})
    assert output.tolist() == [[2.5, -2.0]]  # 1.0001 is 1 in half floats
    assert versions["onnxruntime"] and said
