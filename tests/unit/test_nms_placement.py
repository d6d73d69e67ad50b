"""Which nodes a variant moves. What TensorFlow makes of it is tested with TensorFlow, in ``test_nms_variants.py``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_inference_gate.agent import nms_placement
from pytest_inference_gate.agent.failures import BuildError, Unsupported

CPU, GPU = "/device:CPU:0", "/job:localhost/replica:0/task:0/device:GPU:0"


class Value(SimpleNamespace):
    """As much of an ``AttrValue`` as names a function."""

    def HasField(self, name: str) -> bool:  # noqa: N802
        return self.calls is not None


def node(name: str, operation: str, *inputs: str, calls: str | None = None) -> Any:
    attributes = {"f": Value(calls=calls, func=SimpleNamespace(name=calls), list=SimpleNamespace(func=[]))}
    return SimpleNamespace(name=name, op=operation, input=list(inputs), attr=attributes, device="")


def graph(*nodes: Any, **functions: list[Any]) -> Any:
    library = [SimpleNamespace(signature=SimpleNamespace(name=name), node_def=body) for name, body in functions.items()]
    return SimpleNamespace(node=list(nodes), library=SimpleNamespace(function=library))


def devices(nodes: list[Any]) -> dict[str, str]:
    return {one.name: one.device for one in nodes if one.device}


SCOPE = "Postprocessor/BatchMultiClassNonMaxSuppression/map"
ZOO = [
    ("image_tensor", "Placeholder"),
    ("boxes", "Reshape", "image_tensor"),
    (f"{SCOPE}/while/Enter", "Enter", "boxes"),
    (f"{SCOPE}/while/nms/picked", "NonMaxSuppressionV3", f"{SCOPE}/while/Enter"),
    (f"{SCOPE}/while/Exit", "Exit", f"{SCOPE}/while/nms/picked:0"),
    ("detection_boxes", "Identity", f"{SCOPE}/while/Exit"),
    ("other_head/NonMaxSuppressionV3", "NonMaxSuppressionV3", "boxes"),  # what nobody asked for
]


def test_the_processor_gets_the_whole_scope_as_people_did_it_by_hand() -> None:
    zoo = graph(*(node(*one) for one in ZOO))
    placement = nms_placement.place(zoo, ["detection_boxes:0"], "nms_cpu")
    assert devices(zoo.node) == dict.fromkeys([f"{SCOPE}/while/Enter", f"{SCOPE}/while/nms/picked", f"{SCOPE}/while/Exit"], CPU)
    assert placement.operations == [(f"{SCOPE}/while/nms/picked", "NonMaxSuppressionV3")]
    assert nms_placement.details(placement)["nodes"] == 3
    assert nms_placement.remarks(placement) == []


def test_the_gpu_gets_the_operations_alone() -> None:
    zoo = graph(*(node(*one) for one in ZOO))
    nms_placement.place(zoo, ["detection_boxes:0"], "nms_gpu")
    assert devices(zoo.node) == {f"{SCOPE}/while/nms/picked": GPU}


@pytest.mark.parametrize("operation", sorted(nms_placement.OPERATIONS))
def test_every_operation_that_suppresses_is_found_in_functions_too(operation: str) -> None:
    body = [node("picked", operation, "scores"), node("again", operation, "picked")]
    whole = graph(node("loop", "While", calls="body"), body=body, unused=[node("never", operation)])
    placement = nms_placement.place(whole, ["loop:0"], "nms_cpu")
    assert devices(body) == {"picked": CPU, "again": CPU}
    assert nms_placement.remarks(placement) == [
        "the graph has 2 NonMaxSuppression operations, and all of them were put on the processor"
    ]


def test_a_graph_that_suppresses_nothing_is_refused_with_what_comes_near() -> None:
    nodes = [node("x", "Placeholder"), node("best/TopKV2", "TopKV2", "x"), node("end", "Identity", "best/TopKV2")]
    with pytest.raises(BuildError) as caught:
        nms_placement.place(graph(*nodes), ["end"], "nms_cpu")
    assert str(caught.value) == (
        "the card asks for the variant nms_cpu, and the graph has no NonMaxSuppression operation; the nearest are best/TopKV2 (TopKV2): "
        "take nms_cpu out of [variants]"
    )


def test_a_variant_that_cannot_be_is_refused() -> None:
    nms_placement.refuse_unknown(None, "cpu")
    nms_placement.refuse_unknown("nms_cpu", "cpu")
    nms_placement.refuse_unknown("nms_gpu", "cuda")
    for variant, words in (("nms_gpu", "needs a CUDA device"), ("nms", "there is no variant 'nms'")):
        with pytest.raises(Unsupported, match=words):
            nms_placement.refuse_unknown(variant, "cpu")
