"""A precision written into an ONNX graph: integers as Q/DQ pairs, half floats as the graph's own type.

For ONNX Runtime, and for a TensorRT whose networks are strongly typed, which runs what the graph says and nothing else.
"""

import os
from typing import Any, Callable, Dict, List, Set  # noqa: F401

from .failures import BuildError, Unsupported

PROVIDERS = ["CPUExecutionProvider"]

# What TensorRT takes: symmetric integers throughout, weights quantized in the graph (not stored as integers alone), and biases in float.
SYMMETRIC = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
    "QuantizeBias": False,
}


def _import():
    # type: () -> Any
    """The packages onnx and onnxruntime."""
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name in ("onnx", "onnxruntime"):
            raise Unsupported("%s is not installed here, and writing a precision into an ONNX graph needs it" % error.name)
        raise
    return onnx, onnxruntime


def versions_of(onnx, onnxruntime):
    # type: (Any, Any) -> Dict[str, str]
    return {"onnx": str(onnx.__version__), "onnxruntime": str(onnxruntime.__version__)}


def input_name(onnx, path):
    # type: (Any, str) -> str
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}  # which old files list among the inputs
    names = [tensor.name for tensor in graph.input if tensor.name not in weights]
    if not names:
        raise BuildError("the ONNX graph has no input")
    return str(names[0])


def quantize(request, scratch, real, destination, progress, symmetric=False):
    # type: (Dict[str, Any], str, str, str, Callable[[str], None], bool) -> Dict[str, str]
    """Static quantization with Q/DQ pairs, by ONNX Runtime; ``symmetric`` as TensorRT wants it."""
    onnx, onnxruntime = _import()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from .quantization import calibration_batches

    prepared = os.path.join(scratch, "prepared.onnx")
    progress("quantizing")
    quant_pre_process(real, prepared, skip_symbolic_shape=True)  # the symbolic one needs SymPy, and shapes are static here
    name = input_name(onnx, prepared)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self):  # type: ignore[no-untyped-def]
            self._batches = calibration_batches(request["calibration"], int(request["batch"]))

        def get_next(self):  # type: ignore[no-untyped-def]
            batch = next(self._batches, None)
            return None if batch is None else {name: batch.astype(request["input"]["dtype"])}

    quantization.quantize_static(
        prepared,
        destination,
        Reader(),  # type: ignore[no-untyped-call]
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibration_providers=PROVIDERS,
        extra_options=dict(SYMMETRIC) if symmetric else None,
    )
    return versions_of(onnx, onnxruntime)


def halve(real, destination, progress):
    # type: (str, str, Callable[[str], None]) -> Dict[str, str]
    """Half floats throughout; the input and the output stay float32, so that the case is fed and read like any other."""
    onnx, onnxruntime = _import()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    progress("writing half floats into the graph")
    model = convert_float_to_float16(onnx.load(real), keep_io_types=True)
    _sort(model.graph)
    onnx.save(model, destination)
    return versions_of(onnx, onnxruntime)


def _sort(graph):
    # type: (Any) -> None
    """Put each node after those that it reads from, as the format wants it: the converter adds its casts at the end."""
    waiting, made = list(graph.node), set()  # type: List[Any], Set[str]
    produced = {name for node in waiting for name in node.output}
    ordered = []  # type: List[Any]
    while waiting:
        ready = [node for node in waiting if all(name in made or name not in produced for name in _read_by(node))]
        if not ready:
            raise BuildError("the ONNX graph has a cycle")
        for node in ready:
            made.update(node.output)
        ordered += ready
        taken = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in taken]
    del graph.node[:]
    graph.node.extend(ordered)


def _read_by(node):
    # type: (Any) -> Set[str]
    """The tensors that a node reads, those of the graphs inside it included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g] + list(attribute.graphs):
            for inner in graph.node:
                names |= _read_by(inner)
    return names
