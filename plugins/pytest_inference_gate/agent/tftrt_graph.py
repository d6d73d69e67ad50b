"""How much of a converted graph lies in TensorRT engines, counted on the graph itself. Python 3.6.

TF-TRT puts each segment that it converts into one node of the operation ``TRTEngineOp``, and keeps the segment as TensorFlow wrote it in
a function beside, to run it where the engine cannot. The nodes of those functions are what was converted; everything else that the
output needs is not.
"""

from typing import Any, Dict, List, Set, Tuple  # noqa: F401

from . import graph_nodes

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
    return graph_nodes.served(graph_nodes.read_saved_model(directory))


def count(graph_def, outputs):
    # type: (Any, List[str]) -> Count
    """Over all that the tensors ``outputs`` of ``graph_def`` need, in its functions too; an engine is one node."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    segments, native, total = {}, [], 0  # type: Dict[str, Segment], List[str], int
    for node in graph_nodes.reached(graph_def, outputs, frozenset([ENGINE_OPERATION])):
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
