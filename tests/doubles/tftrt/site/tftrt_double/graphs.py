"""Segments of a graph as TF-TRT writes them, and the same graph in a form that a TensorFlow without TF-TRT can run."""

import os
import re

import numpy
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import dtypes, tensor_util

from . import setting

ENGINE, SEGMENT_FUNCTION = "TRTEngineOp", "segment_func"
RUNNABLE = "StatefulPartitionedCall"
NEVER = {"Placeholder", "NoOp", "Const"}
# Read once, as TensorFlow does.
VERBOSE = "trt_engine_op=1" in os.environ.get("TF_CPP_VMODULE", "")
REPORT = os.environ.get("TF_TRT_SHOW_DETAILED_REPORT") == "1"
QUIET = int(os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0"))
PREFIX = "2024-05-04 10:36:27.123456: %s tensorflow/compiler/tf2tensorrt/kernels/trt_engine_op.cc:%d] "
WARNING = PREFIX + "TF-TRT Warning: "
# By what goes wrong at run time; the missing blank of the second is the real one's.
SAYS = {
    "cache_full": [
        WARNING % ("W", 990) + "Engine creation for {scope}{name} failed. The native segment will be used instead. "
        "Reason: RESOURCE_EXHAUSTED: engine cache is full"
    ],
    "shapes": [
        WARNING % ("W", 790) + "Running native segment for{scope}{name} due to failure in verifying input shapes: "
        "Input shapes are inconsistent on the batch dimension, for {name}: [[2,8], [8]]"
    ],
    "no_build": [
        WARNING % ("W", 1083) + "Found no engine in cache matching input shapes. Not building a new engine because "
        "allow_build_at_runtime=False. The native segment will be used instead.",
        WARNING % ("W", 846)
        + "Engine retrieval for input shapes: [[2,32,32,1]] failed. Running native segment for {scope}{name}",
    ],
    "build_failure": [
        WARNING % ("W", 1002) + "Engine creation for {scope}{name} failed. The native segment will be used instead. "
        "Reason: INTERNAL: Failed to build TensorRT engine",
    ],
}


def loop_nodes(graph_def):
    """The names of all nodes in loops of TensorFlow 1: real TF-TRT converts none of them either."""
    loops = {node.name.rsplit("/", 1)[0] + "/" for node in graph_def.node if node.op == "LoopCond"}
    return {node.name for node in graph_def.node if node.name.startswith(tuple(loops))} if loops else set()


def denied():
    return set(filter(None, setting("DENY").split(",")))


def say(text):
    """As a native library does, past ``sys.stderr``."""
    os.write(2, (text + "\n").encode())


def node_name(tensor):
    return tensor.lstrip("^").split(":")[0]


def ordered(graph_def):
    """The nodes, each after those that it needs."""
    nodes, done, result = {node.name: node for node in graph_def.node}, set(), []

    def visit(first):
        waiting = [(first, False)]
        while waiting:
            node, ready = waiting.pop()
            if ready:
                result.append(node)
            elif node.name not in done:
                done.add(node.name)
                waiting.append((node, True))
                waiting += [(nodes[node_name(name)], False) for name in node.input if node_name(name) in nodes]

    for node in graph_def.node:
        visit(node)
    return result


def segments_of(graph_def, outputs, minimum):
    """Lists of nodes that can be one engine each: neighbours in topological order, with the constants that only they use."""
    nodes = [node for node in ordered(graph_def) if node.op != "Const"]
    constants = {node.name: node for node in graph_def.node if node.op == "Const"}
    users = {}
    for node in graph_def.node:
        for name in node.input:
            users.setdefault(node_name(name), set()).add(node.name)
    found, current, not_these, in_loops = [], [], NEVER | denied(), loop_nodes(graph_def)
    for node in nodes:
        if node.op in not_these or node.name in outputs or node.name in in_loops or node.op.startswith("TensorArray"):
            found, current = [*found, current], []
        else:
            current.append(node)
    segments = []
    for segment in [*found, current]:
        names = {node.name for node in segment}
        own = [node for name, node in constants.items() if users.get(name) and users[name] <= names]
        if segment and len(segment) + len(own) >= minimum:
            segments.append(own + segment)
    return segments


def report(graph_def, segments, minimum):
    """The table that TF-TRT prints of what it leaves alone, since 2.5."""
    inside = {node.name for segment in segments for node in segment}
    counts = {}
    for node in graph_def.node:
        if node.name not in inside:
            counts[node.op] = counts.get(node.op, 0) + 1
    lines = ["", "", "#" * 80, "TensorRT unsupported/non-converted OP Report:"]
    for op, count in sorted(counts.items(), key=lambda item: -item[1]):
        lines.append("\t- %s -> %dx" % (op, count))
        if REPORT:
            lines += [
                "\t\t- [Count: %dx] %s" % (count, "%s is not supported by this double" % op if op in denied() else "other"),
                "",
            ]
    lines += ["-" * 80, "\t- Total nonconverted OPs: %d" % sum(counts.values()), "#" * 80, ""]
    say("2024-05-04 10:36:27.1: W tensorflow/compiler/tf2tensorrt/segment/segment.cc:952] " + "\n".join(lines))


def convert(tf, graph_def, outputs, minimum, precision, name_of, workspace, cached, report_it=True):
    """The graph with its segments in engines. A graph of constants alone needs no order of side effects, so control inputs go, but for
    those in loops, which say to which loop a constant belongs."""
    original, graph_def = graph_def, graph_pb2.GraphDef()
    graph_def.CopyFrom(original)
    in_loops = loop_nodes(graph_def)
    for node in graph_def.node:
        if "_class" in node.attr:  # beside which other node it is to be placed, which may be inside an engine then
            del node.attr["_class"]
        if node.name in in_loops:
            continue
        kept = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(kept)
    segments = segments_of(graph_def, outputs, minimum)
    if report_it:
        report(graph_def, segments, minimum)
    with tf.Graph().as_default() as whole:
        IMPORT(graph_def, name="")
    owner = {node.name: index for index, segment in enumerate(segments) for node in segment}
    result = graph_pb2.GraphDef(versions=graph_def.versions)
    result.library.CopyFrom(graph_def.library)
    renamed = {}
    for index, segment in enumerate(segments):
        name = name_of(index)
        inputs, needed = [], []
        for node in segment:
            for tensor in node.input:
                tensor = tensor if ":" in tensor else tensor + ":0"
                if owner.get(node_name(tensor)) != index and tensor not in inputs:
                    inputs.append(tensor)
        for node in graph_def.node:
            for tensor in node.input:
                tensor = tensor if ":" in tensor else tensor + ":0"
                if owner.get(node_name(tensor)) == index and owner.get(node.name) != index and tensor not in needed:
                    needed.append(tensor)
        function = _function(tf, whole, segment, inputs, needed, name + "_native_segment", precision)
        result.library.function.append(function)
        engine = result.node.add(name=name, op=ENGINE, device="/job:localhost/replica:0/task:0/device:GPU:0")
        engine.input.extend(inputs)
        engine.attr["InT"].list.type.extend([whole.get_tensor_by_name(one).dtype.as_datatype_enum for one in inputs])
        engine.attr["OutT"].list.type.extend([whole.get_tensor_by_name(one).dtype.as_datatype_enum for one in needed])
        engine.attr[SEGMENT_FUNCTION].func.name = function.signature.name
        engine.attr["precision_mode"].s = precision.encode()
        engine.attr["workspace_size_bytes"].i = workspace
        engine.attr["max_cached_engines_count"].i = cached
        engine.attr["static_engine"].b = False
        renamed.update({tensor: "%s:%d" % (name, place) for place, tensor in enumerate(needed)})
    for node in graph_def.node:
        if node.name not in owner:
            result.node.add().CopyFrom(node)
    for node in result.node:
        for place, tensor in enumerate(node.input):
            if not tensor.startswith("^"):
                node.input[place] = renamed.get(tensor if ":" in tensor else tensor + ":0", tensor)
    return result


def _function(tf, whole, segment, inputs, outputs, name, precision):
    from tensorflow.python.framework import graph_to_function_def

    part = graph_pb2.GraphDef()
    for node in segment:
        part.node.add().CopyFrom(_rounded(node, precision))
    with tf.Graph().as_default() as graph:
        places, mapping = [], {}
        for index, tensor in enumerate(inputs):
            original = whole.get_tensor_by_name(tensor)
            place = tf.compat.v1.placeholder(original.dtype, original.shape, name="InputPH_%d" % index)
            places.append(place)
            mapping[tensor] = place
        found = IMPORT(part, input_map=mapping, return_elements=outputs, name="")
        operations = [operation for operation in graph.get_operations() if operation.type != "Placeholder"]
        function = graph_to_function_def.graph_to_function_def(graph, operations, places, found)
    function.signature.name = name
    return function


def _rounded(node, precision):
    """A constant as the precision keeps it; other nodes as they are."""
    if node.op != "Const" or precision == "FP32" or node.attr["dtype"].type != dtypes.float32.as_datatype_enum:
        return node
    values = tensor_util.MakeNdarray(node.attr["value"].tensor)
    if precision == "FP16":
        values = values.astype(numpy.float16).astype(numpy.float32)
    elif values.ndim >= 2:
        largest = numpy.abs(values).max(axis=tuple(range(values.ndim - 1)), keepdims=True)
        scale = numpy.where(largest > 0, largest, 1) / 127
        values = (numpy.rint(values / scale) * scale).astype(numpy.float32)
    copy = type(node)()
    copy.CopyFrom(node)
    copy.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(values))
    return copy


def quantize_inputs(graph_def, ranges):
    """What calibration is for: the first input of each engine held to 8 bits between the smallest and the largest value seen."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    for node in graph_def.node:
        if node.op != ENGINE or node.input[0] not in ranges:
            continue
        low, high = ranges[node.input[0]]
        low, high = min(low, 0.0), max(high, low + 1e-3, 1e-3)
        function = functions[node.attr[SEGMENT_FUNCTION].func.name]
        argument = function.signature.input_arg[0].name
        for one in function.node_def:
            for place, name in enumerate(one.input):
                if name == argument:
                    one.input[place] = "calibrated:outputs:0"
        added = function.node_def.add(name="calibrated", op="FakeQuantWithMinMaxArgs", input=[argument])
        added.attr["min"].f, added.attr["max"].f, added.attr["num_bits"].i = low, high, 8
        node.attr["calibration_data"].s = ("%r" % ((low, high),)).encode()


# Between the nodes of TF-TRT and what can be run


def to_runnable(graph_def, scope="StatefulPartitionedCall/", at_run_time=True):
    """A copy in which engines call their segments, and print what TF-TRT would when it executes them."""
    result = graph_pb2.GraphDef()
    result.CopyFrom(graph_def)
    functions = {function.signature.name: function for function in result.library.function}
    groups = [result.node] + [function.node_def for function in result.library.function]
    first = True
    for nodes in groups:
        for node in nodes:
            if node.op != ENGINE:
                continue
            function = functions[node.attr[SEGMENT_FUNCTION].func.name]
            failing = first and (
                setting("RUN") if at_run_time else "build_failure" if setting("FAULT") == "build_failure" else ""
            )
            first = False
            lines = list(SAYS.get(failing, ())) if QUIET < 2 else []
            if VERBOSE:
                what = "Executing native segment: " if failing else "Executing TRT engine: "
                lines.append(PREFIX % ("I", 640) + what + "{scope}{name}")
            for index, line in enumerate(lines):
                _print(function, index, line.format(scope=scope, name=node.name))
            tin, tout = list(node.attr["InT"].list.type), list(node.attr["OutT"].list.type)
            called = function.signature.name
            for key in list(node.attr):
                if key != "_output_shapes":
                    del node.attr[key]
            node.op, node.device = RUNNABLE, ""
            node.attr["Tin"].list.type.extend(tin)
            node.attr["Tout"].list.type.extend(tout)
            node.attr["f"].func.name = called
            if lines:
                function.signature.is_stateful = True
    return result


def _print(function, index, text):
    name = "says_%d" % index
    constant = function.node_def.add(name=name + "_text", op="Const")
    constant.attr["dtype"].type = dtypes.string.as_datatype_enum
    constant.attr["value"].tensor.CopyFrom(tensor_util.make_tensor_proto(text))
    before = ["^says_%d" % (index - 1)] if index else []  # lines in their order
    printing = function.node_def.add(name=name, op="PrintV2", input=[name + "_text:output:0", *before])
    printing.attr["output_stream"].s, printing.attr["end"].s = b"stderr", b"\n"
    # What gives the results waits for it: else it would be taken out when the call is inlined.
    giving = {tensor.split(":")[0] for tensor in function.ret.values()}
    for node in function.node_def:
        if node.name in giving:
            node.input.append("^" + name)


def to_written(graph_def, engines):
    """In place: the calls of segments become engines again, with the attributes of ``engines`` by name; what they printed is taken out."""
    for nodes in [graph_def.node] + [function.node_def for function in graph_def.library.function]:
        for node in nodes:
            if node.op == RUNNABLE and node.name in engines:
                function = node.attr["f"].func.name
                inputs = list(node.input)
                node.CopyFrom(engines[node.name])
                del node.input[:]
                node.input.extend(inputs)
                node.attr[SEGMENT_FUNCTION].func.name = function
    for function in graph_def.library.function:
        if "_native_segment" in function.signature.name:
            kept = [node for node in function.node_def if not re.match(r"says_\d+", node.name)]
            del function.node_def[:]
            function.node_def.extend(kept)
            for node in function.node_def:
                inputs = [name for name in node.input if not name.startswith("^says_")]
                del node.input[:]
                node.input.extend(inputs)
            function.signature.is_stateful = False


def install(tf):
    """TensorFlow reads TF-TRT's models and graphs here as if it knew their operation."""
    from tensorflow.python.framework import importer
    from tensorflow.python.saved_model import loader_impl

    parse = loader_impl.parse_saved_model

    def parse_saved_model(export_dir):
        content = parse(export_dir)
        for meta_graph in content.meta_graphs:
            if _holds_engines(meta_graph.graph_def):
                if setting("FAULT") == "unknown_operation":
                    raise tf.errors.NotFoundError(
                        None, None, "Op type not registered 'CreateTRTResourceHandle' in binary running on board."
                    )
                meta_graph.graph_def.CopyFrom(to_runnable(meta_graph.graph_def))
        return content

    def import_graph_def(graph_def, *arguments, **named):
        return IMPORT(to_runnable(graph_def) if _holds_engines(graph_def) else graph_def, *arguments, **named)

    loader_impl.parse_saved_model = parse_saved_model
    global IMPORT
    IMPORT = importer.import_graph_def
    for module in (tf, tf.compat.v1, tf.graph_util):
        module.import_graph_def = import_graph_def


IMPORT = None


def _holds_engines(graph_def):
    return any(
        node.op == ENGINE for nodes in [graph_def.node] + [one.node_def for one in graph_def.library.function] for node in nodes
    )
