"""How much of a converted graph lies in TensorRT engines, counted on the graph itself. Python 3.6.

TF-TRT puts each segment that it converts into one node of the operation ``TRTEngineOp``, and keeps the segment as TensorFlow wrote it in
a function beside, to run it where the engine cannot. The nodes of those functions are what was converted; everything else that the
output needs is not.
"""

import os
from typing import Any, Dict, Iterator, List, Set, Tuple  # noqa: F401

from .failures import LoadError

ENGINE_OPERATION = "TRTEngineOp"
SEGMENT_SUFFIX = "_native_segment"
# They hold, name or hand on values and compute nothing; which of them there are depends on how a graph was written.
STRUCTURAL = frozenset(
    [
        "Const",
        "Identity",
        "IdentityN",
        "NoOp",
        "PartitionedCall",
        "Placeholder",
        "PlaceholderWithDefault",
        "ReadVariableOp",
        "StatefulPartitionedCall",
        "VarHandleOp",
        "_Arg",
        "_Retval",
    ]
)
# The attribute that names the function of a segment, in TensorFlow 2 and in TensorFlow 1.
_FUNCTION, _FUNCTION_NAME = "segment_func", "segment_funcdef_name"


class Segment(object):
    """One engine: its name, how many nodes its segment has, and its operations that compute."""

    def __init__(self, name, nodes):
        # type: (str, List[Any]) -> None
        self.name = name
        self.nodes = len(nodes)
        self.operations = [node.op for node in nodes if node.op not in STRUCTURAL]


class Count(object):
    """The segments, the operations that were left to TensorFlow, and how many nodes of whatever kind the graph has, an engine being one."""

    def __init__(self, segments, native, nodes):
        # type: (List[Segment], List[str], int) -> None
        self.segments = segments
        self.native = native
        self.nodes = nodes

    @property
    def converted_nodes(self):
        # type: () -> int
        return sum(segment.nodes for segment in self.segments)


def read(directory):
    # type: (str) -> Tuple[Any, List[str]]
    """The graph of a SavedModel, and the names of the tensors that its serving signature gives."""
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    with open(os.path.join(directory, "saved_model.pb"), "rb") as stream:
        content.ParseFromString(stream.read())
    for meta_graph in content.meta_graphs:
        if "serving_default" in meta_graph.signature_def:
            outputs = meta_graph.signature_def["serving_default"].outputs
            return meta_graph.graph_def, [outputs[key].name for key in sorted(outputs)]
    raise LoadError("the SavedModel has no signature 'serving_default': convert the case again")


def count(graph_def, outputs):
    # type: (Any, List[str]) -> Count
    """Over all that the tensors ``outputs`` of ``graph_def`` need, in its functions too."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    segments, native, total = {}, [], 0  # type: Dict[str, Segment], List[str], int
    for node in _reached(graph_def, functions, outputs):
        total += 1
        if node.op == ENGINE_OPERATION:
            name = node.name.split("/")[-1]
            segments[name] = Segment(name, _segment_nodes(node, functions))
        elif node.op not in STRUCTURAL:
            native.append(node.op)
    return Count([segments[name] for name in sorted(segments)], native, total)


def operations(graph_def):
    # type: (Any) -> Set[str]
    """Every kind of node in a graph and its functions, whether anything needs it or not."""
    groups = [graph_def.node] + [function.node_def for function in graph_def.library.function]
    return {node.op for nodes in groups for node in nodes}


def nodes_of(directory):
    # type: (str) -> int
    """How many nodes of whatever kind the serving signature of a SavedModel needs."""
    return count(*read(directory)).nodes


def _reached(graph_def, functions, outputs):
    # type: (Any, Dict[str, Any], List[str]) -> Iterator[Any]
    """Every node that runs for ``outputs``: functions that are called are looked into once, engines are not."""
    seen, waiting = set(), [list(_needed(graph_def.node, outputs))]  # type: Set[str], List[List[Any]]
    while waiting:
        for node in waiting.pop():
            yield node
            if node.op == ENGINE_OPERATION:
                continue
            for called in _called(node):
                if called in functions and called not in seen:
                    seen.add(called)
                    waiting.append(list(functions[called].node_def))


def _needed(nodes, outputs):
    # type: (Any, List[str]) -> Iterator[Any]
    by_name = {node.name: node for node in nodes}
    waiting, seen = [_node_name(name) for name in outputs], set()  # type: List[str], Set[str]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        yield by_name[name]
        waiting += [_node_name(one) for one in by_name[name].input]


def _node_name(tensor):
    # type: (str) -> str
    return tensor.lstrip("^").split(":")[0]


def _called(node):
    # type: (Any) -> Iterator[str]
    """Functions that a node may run: of calls, conditions and loops."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name


def _segment_nodes(node, functions):
    # type: (Any, Dict[str, Any]) -> List[Any]
    """The nodes that became this engine; none where the function was taken away, as TF-TRT does when it is asked to."""
    names = [node.name.split("/")[-1] + SEGMENT_SUFFIX]
    if _FUNCTION_NAME in node.attr:
        names.insert(0, node.attr[_FUNCTION_NAME].s.decode("utf-8"))
    if _FUNCTION in node.attr:
        names.insert(0, node.attr[_FUNCTION].func.name)
    for name in names:
        if name in functions:
            return list(functions[name].node_def)
    return []
