"""What an ONNX file says of itself: ends and shapes by ONNX Runtime; opset and first nodes where the package onnx is at hand."""

import os
from typing import Any, Callable, Dict, List  # noqa: F401

from .failures import LoadError, Unsupported

_ARITHMETIC = ("Mul", "Sub", "Add", "Div", "Cast")


def describe(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    path = request["path"]
    progress("reading the ONNX graph")
    result = _of_graph(path)
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise Unsupported("onnxruntime is not installed here, and reading an ONNX file needs it")
        raise
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of ONNX Runtime, whose classes of errors are not public
        raise LoadError("%s cannot be loaded by ONNX Runtime: %s" % (os.path.basename(path), error))
    result["inputs"] = [_tensor(one) for one in session.get_inputs()]
    result["outputs"] = [_tensor(one) for one in session.get_outputs()]
    _complete(session, result)
    return result


def _tensor(one):
    # type: (Any) -> Dict[str, Any]
    name = one.type[len("tensor(") : -1] if one.type.startswith("tensor(") else one.type
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    shape = [size if isinstance(size, int) and size > 0 else None for size in one.shape] or None
    return {"name": one.name, "shape": shape, "dtype": dtype, "scale": None, "zero_point": None}


def _complete(session, result):
    # type: (Any, Dict[str, Any]) -> None
    """The shape of the output by one inference, where the graph does not tell it and the input is known."""
    import numpy

    if len(result["inputs"]) != 1 or len(result["outputs"]) != 1:
        return
    wanted, found = result["inputs"][0], result["outputs"][0]
    told = found["shape"] is not None and all(size is not None for size in found["shape"][1:])
    if told or not wanted["shape"] or any(size is None for size in wanted["shape"][1:]):
        return
    shape = [wanted["shape"][0] or 1] + wanted["shape"][1:]
    zeros = numpy.zeros(shape, dtype=wanted["dtype"])
    found["shape"] = [int(size) for size in session.run([found["name"]], {wanted["name"]: zeros})[0].shape]
    if wanted["shape"][0] is None and found["shape"]:
        found["shape"][0] = None


def _of_graph(path):
    # type: (str) -> Dict[str, Any]
    try:
        import onnx
    except ImportError:
        return {}
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, whose classes of errors moved between its releases
        raise LoadError("%s is no ONNX model: %s" % (os.path.basename(path), error))
    outside = [one.name for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise LoadError(
            "%s keeps %d of its weights in files beside it, and a checkpoint is one file: save it whole with "
            "onnx.save_model(onnx.load(...), ..., save_as_external_data=False)" % (os.path.basename(path), len(outside))
        )
    opset = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    return {
        "opset": int(opset[0]) if opset else None,
        "family": str(model.graph.name),
        "scaling_inside": _first_arithmetic(model.graph),
    }


def _first_arithmetic(graph):
    # type: (Any) -> List[str]
    """The nodes that scale and shift the input before anything else is made of it; a change of the layout is passed over."""
    weights = {one.name for one in graph.initializer}
    current = [one.name for one in graph.input if one.name not in weights]
    found = []  # type: List[str]
    while len(current) == 1:
        users = [node for node in graph.node if current[0] in node.input]
        if len(users) != 1 or users[0].op_type not in _ARITHMETIC + ("Transpose",):
            break
        if users[0].op_type in _ARITHMETIC[:-1]:
            found.append(users[0].op_type)
        current = list(users[0].output)
    return found
