"""Counting engines on graphs in the shapes in which releases of TF-TRT write them. Stand-ins for protocol buffers: no TensorFlow here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_inference_gate.agent import tftrt_graph
from pytest_inference_gate.agent.backends import tftrt


class Value:
    """An attribute: a function, several functions, or bytes."""

    def __init__(self, func: str | None = None, functions: tuple[str, ...] = (), text: bytes = b"") -> None:
        self.func = SimpleNamespace(name=func)
        self.list = SimpleNamespace(func=[SimpleNamespace(name=name) for name in functions])
        self.s = text
        self._field = "func" if func else "s"

    def HasField(self, name: str) -> bool:  # noqa: N802  (a protocol buffer's)
        return name == self._field


def node(name: str, op: str, *inputs: str, **attributes: Value) -> Any:
    return SimpleNamespace(name=name, op=op, input=list(inputs), attr=attributes)


def graph(nodes: list[Any], **functions: list[Any]) -> Any:
    library = [SimpleNamespace(signature=SimpleNamespace(name=name), node_def=inside) for name, inside in functions.items()]
    return SimpleNamespace(node=nodes, library=SimpleNamespace(function=library))


def segment(*operations: str) -> list[Any]:
    return [node(f"n{index}", operation) for index, operation in enumerate(operations)]


def test_a_saved_model_of_tensorflow_2() -> None:
    """The signature calls a function that holds the engine; the saver's nodes lie beside and do not run for an inference."""
    whole = graph(
        [
            node("input", "Placeholder"),
            node("StatefulPartitionedCall", "StatefulPartitionedCall", "input", f=Value("wrapper")),
            node("saver", "StatefulPartitionedCall", f=Value("save")),
        ],
        wrapper=[node("PartitionedCall", "PartitionedCall", "input", f=Value("pruned")), node("Identity", "Identity")],
        pruned=[
            node("Cast", "Cast"),
            node("TRTEngineOp_000_000", "TRTEngineOp", segment_func=Value("TRTEngineOp_000_000_native_segment")),
            node("NMS", "NonMaxSuppressionV5"),
            node("Const", "Const"),
        ],
        TRTEngineOp_000_000_native_segment=segment("Const", "Conv2D", "BiasAdd", "Relu", "Identity"),
        save=segment("SaveV2", "MergeV2Checkpoints"),
    )
    counted = tftrt_graph.count(whole, ["StatefulPartitionedCall:0"])
    assert [(one.name, one.nodes, one.operations) for one in counted.segments] == [
        ("TRTEngineOp_000_000", 5, ["Conv2D", "BiasAdd", "Relu"])
    ]
    assert sorted(counted.native) == ["Cast", "NonMaxSuppressionV5"]
    assert (counted.nodes, counted.converted_nodes) == (8, 5)


def test_a_graph_of_tensorflow_1() -> None:
    whole = graph(
        [
            node("input", "Placeholder"),
            node(
                "import/TRTEngineOp_0", "TRTEngineOp", "input", segment_funcdef_name=Value(text=b"TRTEngineOp_0_native_segment")
            ),
            node("import/TRTEngineOp_1", "TRTEngineOp", "import/TRTEngineOp_0:1"),
            node("softmax", "Softmax", "import/TRTEngineOp_1", "^elsewhere"),
            node("elsewhere", "Assert"),
            node("output", "Identity", "softmax"),
            node("unused", "ArgMax", "softmax"),
        ],
        TRTEngineOp_0_native_segment=segment("Conv2D", "Relu"),
        TRTEngineOp_1_native_segment=segment("MatMul"),
    )
    counted = tftrt_graph.count(whole, ["output:0"])
    assert {one.name: one.operations for one in counted.segments} == {
        "TRTEngineOp_0": ["Conv2D", "Relu"],
        "TRTEngineOp_1": ["MatMul"],
    }
    assert sorted(counted.native) == ["Assert", "Softmax"]


def test_branches_and_loops_are_looked_into_and_functions_counted_once() -> None:
    whole = graph(
        [
            node("if", "StatelessIf", then_branch=Value("then"), else_branch=Value("other")),
            node("case", "Case", "if", branches=Value(functions=("then", "third"))),
        ],
        then=segment("Add"),
        other=segment("Mul"),
        third=segment("Sub"),
    )
    assert sorted(tftrt_graph.count(whole, ["case:0"]).native) == ["Add", "Case", "Mul", "StatelessIf", "Sub"]


def test_an_operation_that_is_only_named_like_an_engine_is_none() -> None:
    whole = graph(
        [node("TRTEngineOp_0", "PartitionedCall", f=Value("TRTEngineOp_0_native_segment"))],
        TRTEngineOp_0_native_segment=segment("Conv2D"),
    )
    counted = tftrt_graph.count(whole, ["TRTEngineOp_0:0"])
    assert (counted.segments, counted.native) == ([], ["Conv2D"])


@pytest.fixture
def counted() -> tftrt_graph.Count:
    segments = [
        tftrt_graph.Segment("TRTEngineOp_0", segment("Conv2D", "Relu", "Const")),
        tftrt_graph.Segment("TRTEngineOp_1", segment("MatMul")),
    ]
    return tftrt_graph.Count(segments, ["Softmax", "Cast", "Cast"], 8)


def test_coverage_counts_what_computes(counted: tftrt_graph.Count) -> None:
    assert tftrt.coverage(counted, {}, {"Cast": "unsupported type"}, "TensorFlow 2.16.1") == {
        "accelerator": "tensorrt",
        "on_accelerator": 3,
        "elsewhere": 3,
        "parts": 2,
        "off_chip_bytes": None,
        "elsewhere_by_operation": [
            {"operation": "Cast", "count": 2, "reason": "unsupported type"},
            {"operation": "Softmax", "count": 1, "reason": ""},
        ],
        "native_segments": 0,
        "source": "TensorFlow 2.16.1",
    }


def test_an_engine_that_did_not_run_is_not_covered(counted: tftrt_graph.Count) -> None:
    told = tftrt.coverage(counted, {"TRTEngineOp_0": "the cache is full", "TRTEngineOp_9": "of another model"}, {}, "")
    assert (told["on_accelerator"], told["elsewhere"], told["parts"], told["native_segments"]) == (1, 5, 2, 1)
    assert {"operation": "Relu", "count": 1, "reason": "TRTEngineOp_0 ran as native TensorFlow: the cache is full"} in told[
        "elsewhere_by_operation"
    ]


def test_many_kinds_of_operations_are_cut_and_all_are_counted() -> None:
    told = tftrt.coverage(tftrt_graph.Count([], [f"Op{index}" for index in range(70)], 70), {}, {}, "")
    assert (len(told["elsewhere_by_operation"]), told["elsewhere"]) == (50, 70)
