"""Which nodes of a graph its outputs need, in the functions that it calls too. Python 3.6."""

import os
from typing import Any, Dict, FrozenSet, Iterator, List, Set, Tuple  # noqa: F401

from .failures import LoadError

SAVED_MODEL = "saved_model.pb"


def read_saved_model(directory):
    # type: (str) -> Any
    """The ``SavedModel`` message in a folder."""
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    with open(os.path.join(directory, SAVED_MODEL), "rb") as stream:
        content.ParseFromString(stream.read())
    return content


def served(content):
    # type: (Any) -> Tuple[Any, List[str]]
    """The graph of a ``SavedModel`` message, and the names of the tensors that its serving signature gives."""
    for meta_graph in content.meta_graphs:
        if "serving_default" in meta_graph.signature_def:
            outputs = meta_graph.signature_def["serving_default"].outputs
            return meta_graph.graph_def, [outputs[key].name for key in sorted(outputs)]
    raise LoadError("the SavedModel has no signature 'serving_default': convert the case again")


def reached(graph_def, outputs, closed=frozenset()):
    # type: (Any, List[str], FrozenSet[str]) -> Iterator[Any]
    """Every node that runs for the tensors ``outputs``: functions that are called are looked into once, but not by operations ``closed``.

    They are the graph's own nodes: who changes one changes the graph.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    seen, waiting = set(), [needed(graph_def.node, outputs)]  # type: Set[str], List[List[Any]]
    while waiting:
        for node in waiting.pop():
            yield node
            if node.op in closed:
                continue
            for called in _called(node):
                if called in functions and called not in seen:
                    seen.add(called)
                    waiting.append(list(functions[called].node_def))


def needed(nodes, outputs):
    # type: (Any, List[str]) -> List[Any]
    """The nodes that the tensors ``outputs`` need, among ``nodes`` alone."""
    by_name = {node.name: node for node in nodes}
    waiting, seen = [node_name(name) for name in outputs], {}  # type: List[str], Dict[str, Any]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in by_name:
            continue
        seen[name] = by_name[name]
        waiting += [node_name(one) for one in by_name[name].input]
    return list(seen.values())


def node_name(tensor):
    # type: (str) -> str
    """``detection_boxes`` of ``detection_boxes:0``, and of ``^detection_boxes``."""
    return tensor.lstrip("^").split(":")[0]


def _called(node):
    # type: (Any) -> Iterator[str]
    """Functions that a node may run: of calls, conditions and loops."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name
