"""TensorFlow Lite: converted by TensorFlow, run by LiteRT, tflite-runtime, or TensorFlow's own interpreter."""

import os
import shutil
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple  # noqa: F401

from .. import model_outputs, tflite_file, tflite_nodes, tftrt_graph
from .. import tensorflow_sources as sources
from ..failures import BuildError, LoadError, Unsupported

NAME = "tflite"
PRECISIONS = ("fp32", "fp16", "dynamic", "int8", "full_int8")
CALIBRATED = ("int8", "full_int8")
RUNTIMES = (("ai-edge-litert", "ai_edge_litert"), ("tflite-runtime", "tflite_runtime"))


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    tensorflow = sources.installed_version(packages)
    runtime = None
    for distribution, name in RUNTIMES:
        if runtime is None and distribution in packages:
            runtime = {"name": name, "version": packages[distribution]}
    if runtime is None and tensorflow:
        runtime = {"name": "tensorflow", "version": tensorflow}
    return {
        "available": runtime is not None,
        "can_convert": True,  # a .tflite file is passed through anywhere
        "can_run": runtime is not None,
        "precisions_convert": list(PRECISIONS),
        "precisions_run": list(PRECISIONS) if runtime else [],
        "runtime": runtime,
        "converter": {"tensorflow": tensorflow} if tensorflow else {},
        "source_formats": ["tflite"] + (list(sources.FORMATS) if tensorflow else []),
        "reason": "" if runtime else "none of ai-edge-litert, tflite-runtime and TensorFlow is installed",
    }


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    precision, directory = request["precision"], request["output_directory"]
    if precision not in PRECISIONS:
        raise Unsupported("the backend tflite has no precision %r; it has %s" % (precision, ", ".join(PRECISIONS)))
    destination = os.path.join(directory, "model.tflite")
    if request["source"]["format"] == "tflite":  # whatever precision the file has, the card says which
        shutil.copyfile(request["source"]["path"], destination)
        with open(destination, "rb") as original:
            details = _details(operators(original.read()), None)
        if "per_channel_dense" in (request.get("options") or {}):
            details["remarks"] = ["the model was converted already, so per_channel_dense of the card was not used"]
        return {"model": "model.tflite", "converter": {}, "details": dict(details, passed_through=True)}
    if precision in CALIBRATED and not request.get("calibration"):
        raise BuildError("the precision %s needs calibration pictures: add a [calibration] section to the card" % precision)
    saved_model = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        tf = sources.save(request, saved_model, progress)
        nodes_before = tftrt_graph.nodes_of(saved_model)
        progress("converting to TensorFlow Lite")
        content = _converter(tf, saved_model, request).convert()
    finally:
        shutil.rmtree(saved_model, ignore_errors=True)
    with open(destination, "wb") as stream:
        stream.write(content)
    details = _details(operators(content), nodes_before)
    return {"model": "model.tflite", "converter": sources.converter_versions(tf), "details": details}


def _details(counts, nodes_before):
    # type: (Dict[str, int], Optional[int]) -> Dict[str, Any]
    return {
        "operators": counts,
        "nodes": {"before": nodes_before, "after": sum(counts.values()) or None, "converted": None},
    }


def _converter(tf, saved_model, request):
    # type: (Any, str, Dict[str, Any]) -> Any
    """Besides the usual, a request may hold ``options``: ``per_channel_dense``.

    The converter's own output is the same byte for byte for the same weights and the same release.
    """
    precision = request["precision"]
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[sources.SIGNATURE])
    _choose_dense_scales(tf, converter, request.get("options") or {})
    if precision == "fp32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision in CALIBRATED:
        from ..quantization import calibration_batches

        def representative_dataset():
            # type: () -> Iterator[List[Any]]
            for batch in calibration_batches(request["calibration"], int(request["batch"])):
                yield [batch.astype(request["input"]["dtype"])]

        converter.representative_dataset = representative_dataset
        if precision == "full_int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.int8
            converter.inference_output_type = tf.int8
    return converter


PER_TENSOR_DENSE = "_experimental_disable_per_channel_quantization_for_dense_layers"


def _choose_dense_scales(tf, converter, options):
    # type: (Any, Any, Dict[str, Any]) -> None
    """Runtimes as old as TensorFlow 2.6 take dense layers with a scale for each channel, and compute them wrongly without a word."""
    if "per_channel_dense" not in options:
        return
    if not hasattr(converter, PER_TENSOR_DENSE):
        raise BuildError(
            "the converter of TensorFlow %s cannot choose how dense layers are quantized: leave per_channel_dense out of "
            "[options.tflite], or convert with a later TensorFlow by --gate-convert-with" % tf.__version__
        )
    setattr(converter, PER_TENSOR_DENSE, not options["per_channel_dense"])


def operators(content):
    # type: (bytes) -> Dict[str, int]
    """How often each operator occurs; empty where the bytes are no model, which the runtime is the one to say."""
    try:
        return tflite_file.parse(content).counts
    except tflite_file.NotTfLiteError:
        return {}


# Running


def import_interpreter():
    # type: () -> Tuple[Any, str, str]
    """The interpreter class, the name of its runtime and its version."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, "ai_edge_litert", _version("ai-edge-litert")
    except ModuleNotFoundError as error:
        if error.name != "ai_edge_litert":
            raise  # installed, but broken: an error that must not be hidden by another runtime
    try:
        from tflite_runtime.interpreter import Interpreter

        return Interpreter, "tflite_runtime", _version("tflite-runtime")
    except ModuleNotFoundError as error:
        if error.name != "tflite_runtime":
            raise
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise Unsupported("none of ai-edge-litert, tflite-runtime and TensorFlow is installed here")
    return tf.lite.Interpreter, "tensorflow", str(tf.__version__)


def _version(distribution):
    # type: (str) -> str
    from ..probe import installed_packages

    return installed_packages().get(distribution, "unknown")


def runtime():
    # type: () -> Dict[str, str]
    _, name, version = import_interpreter()
    return {"name": name, "version": version}


class Runner:
    """One interpreter."""

    def __init__(self, model, precision, threads, batch, input):
        # type: (str, str, int, int, Dict[str, Any]) -> None
        from ..quantization import dequantize, is_integer, quantize

        self._quantize, self._dequantize = quantize, dequantize
        self._interpreter = self._open(model, threads)
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1:
            raise LoadError("the model has %d inputs, and one is expected" % len(inputs))
        shape = [batch] + [int(size) for size in input["shape"]]
        if [int(size) for size in inputs[0]["shape"]] != shape:
            self._resize(inputs[0], shape)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        outputs = self._interpreter.get_output_details()
        self._output = outputs[0]
        self._outputs = outputs if len(outputs) == 1 else _in_order(model, outputs)
        self.inputs = [_description(details) for details in self._interpreter.get_input_details()]
        self.outputs = [_description(details) for details in self._outputs]
        if precision == "full_int8" and not (is_integer(self._input["dtype"]) and is_integer(self._output["dtype"])):
            raise LoadError(
                "the model takes %s and gives %s, but full_int8 means integers"
                % (self.inputs[0]["dtype"], _description(self._output)["dtype"])
            )

    def _open(self, model, threads):
        # type: (str, int) -> Any
        interpreter_class, name, version = import_interpreter()
        self._source = "nodes of the interpreter of %s %s" % (name, version)
        return interpreter_class(model_path=model, num_threads=threads)

    def _resize(self, details, shape):
        # type: (Dict[str, Any], List[int]) -> None
        self._interpreter.resize_tensor_input(details["index"], shape)

    def coverage(self):
        # type: () -> Optional[Dict[str, Any]]
        """How many operations run in XNNPACK; of use where a release takes more or fewer of them than another one."""
        return tflite_nodes.xnnpack_coverage(self._interpreter, self._source)

    def set_inputs(self, array):
        # type: (Any) -> None
        self._interpreter.set_tensor(
            self._input["index"], self._quantize(array, self._input["dtype"], *self._input["quantization"])
        )

    def input_array(self):
        # type: () -> Any
        """The input tensor's own memory, to be written and let go of before the next inference."""
        return self._interpreter.tensor(self._input["index"])()

    def prepared(self):
        # type: () -> Callable[[], Any]
        invoke = self._interpreter.invoke  # type: Callable[[], Any]
        return invoke

    def infer(self):
        # type: () -> None
        self._interpreter.invoke()

    def get_output(self):
        # type: () -> Any
        return self._real(self._output)

    def get_outputs(self):
        # type: () -> List[Any]
        return [self._real(details) for details in self._outputs]

    def _real(self, details):
        # type: (Dict[str, Any]) -> Any
        return self._dequantize(self._interpreter.get_tensor(details["index"]), *details["quantization"])


def _in_order(model, details):
    # type: (str, List[Dict[str, Any]]) -> List[Dict[str, Any]]
    """The outputs in the order of the file's signature, which that of the interpreter need not be; else by their names' numbers."""
    by_index = {int(one["index"]): one for one in details}
    try:
        signature = dict(tflite_file.read(model).signature_outputs)
    except tflite_file.NotTfLiteError:  # the interpreter has read it, and is the one to know
        signature = {}
    if set(signature.values()) == set(by_index):
        return [by_index[signature[name]] for name in model_outputs.sorted_names(signature)]
    return [details[place] for place in model_outputs.in_order([str(one["name"]) for one in details])]


def _description(details):
    # type: (Dict[str, Any]) -> Dict[str, Any]
    import numpy

    scale, zero_point = details["quantization"]
    quantized = bool(scale)
    return {
        "name": str(details["name"]),
        "shape": [int(size) for size in details["shape"]],
        "dtype": numpy.dtype(details["dtype"]).name,
        "scale": float(scale) if quantized else None,
        "zero_point": int(zero_point) if quantized else None,
    }
