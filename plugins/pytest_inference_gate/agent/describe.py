"""What a model file says of itself: its inputs and outputs, and what is known of how its pictures were made ready.

Asked before there is a model card, so that a card can be written. Nothing is converted, and no program from a file is run.
"""

import os
from typing import Any, Callable, Dict, List, Optional  # noqa: F401

from . import onnx_description, tensorflow_graphs, tflite_description, torch_architectures
from . import tensorflow_sources as sources
from .failures import LoadError, Unsupported

SCALING_LAYERS = ("Rescaling", "Normalization")


def describe(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """``request``: ``format`` and ``path``, as of a checkpoint, and ``architecture`` where one is named.

    The result has ``inputs`` and ``outputs``: ``name``, ``shape`` with the batch first (null for a size that is not fixed, and for the
    whole shape where nothing is known of it), ``dtype``, ``scale`` and ``zero_point`` of a quantized tensor;

    * ``scaling_inside``: what the graph itself does to the pixels first, in words;
    * ``family``: the name that the architecture has in the file, or ``""``;
    * ``labels``: names of the outputs, from the file's metadata, or null;
    * ``normalization``: ``{"mean", "std"}`` (lists, of pixels from 0 to 255) from the file's metadata, or null;
    * ``precision``: of a TensorFlow Lite file, else null;
    * ``opset``: of an ONNX file, else null;
    * ``architecture``: of a state dict, ``{"function", "arguments"}``, else null.
    """
    readers = {
        "keras": _keras,
        "saved_model": _saved_model,
        "tflite": tflite_description.describe,
        "onnx": onnx_description.describe,
        "torch_weights": torch_architectures.describe,
    }  # type: Dict[str, Callable[[Dict[str, Any], Callable[[str], None]], Dict[str, Any]]]
    if request["format"] not in readers:
        raise Unsupported("a file of the format %r does not say what it is" % request["format"])
    if not os.path.exists(request["path"]):
        raise LoadError("there is no model at %s" % request["path"])
    nothing = {
        "scaling_inside": [],
        "family": "",
        "labels": None,
        "normalization": None,
        "precision": None,
        "opset": None,
        "architecture": None,
    }  # type: Dict[str, Any]
    return dict(nothing, **readers[request["format"]](request, progress))


def tensor(name, shape, dtype, scale=None, zero_point=None):
    # type: (str, Optional[List[Optional[int]]], str, Optional[float], Optional[int]) -> Dict[str, Any]
    return {"name": name, "shape": shape, "dtype": dtype, "scale": scale, "zero_point": zero_point}


def _tensorflow(what):
    # type: (str) -> Any
    try:
        return sources.import_tensorflow()
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise Unsupported("TensorFlow is not installed here, and reading %s needs it" % what)
        raise


# Keras


def _keras(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    progress("starting TensorFlow")
    tf = _tensorflow("a Keras model")
    progress("reading the Keras model")
    try:
        model, configuration = sources.read_keras(tf, request["path"])
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and "h5" not in str(error).lower() and "signature" not in str(error).lower():
            raise
        raise LoadError("%s is no whole Keras model: %s" % (os.path.basename(request["path"]), error))
    if getattr(model, "inputs", None) is None:
        raise LoadError(
            "the model has never seen an input, so its shapes are not known: call it once on a batch, or give its first layer an "
            "Input, and save it again"
        )
    return {
        "inputs": [_of_keras(one) for one in model.inputs],
        "outputs": [_of_keras(one) for one in model.outputs],
        "scaling_inside": scaling_layers(configuration),
        "family": " ".join(model_names(configuration)),
    }


def _of_keras(one):
    # type: (Any) -> Dict[str, Any]
    dtype = getattr(one.dtype, "name", one.dtype)
    return tensor(str(one.name), [None if size is None else int(size) for size in one.shape], str(dtype))


def scaling_layers(configuration):
    # type: (Any) -> List[str]
    """The Rescaling and Normalization layers in the configuration of a Keras model, nested ones too, in words."""
    found = []  # type: List[str]
    for node in _nodes(configuration):
        if node.get("class_name") in SCALING_LAYERS:
            settings = node.get("config") or {}
            told = ["%s = %s" % (key, _shortly(settings[key])) for key in ("scale", "offset") if settings.get(key) is not None]
            found.append("%s(%s)" % (node["class_name"], ", ".join(told)))
    return found


def _shortly(value):
    # type: (Any) -> str
    text = "%.6g" % value if isinstance(value, (int, float)) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def model_names(configuration):
    # type: (Any) -> List[str]
    """The names of the models, the outermost first, of which a Keras model consists: ``mobilenetv2_1.00_224``."""
    kinds = ("Functional", "Model", "Sequential")
    return [
        str(node["config"]["name"])
        for node in _nodes(configuration)
        if node.get("class_name") in kinds and isinstance(node.get("config"), dict) and node["config"].get("name")
    ]


def _nodes(configuration):
    # type: (Any) -> List[Dict[str, Any]]
    """Every table in the configuration, the outer ones first."""
    if isinstance(configuration, dict):
        found = [configuration]
        for value in configuration.values():
            found += _nodes(value)
        return found
    if isinstance(configuration, list):
        return [node for value in configuration for node in _nodes(value)]
    return []


# SavedModel


def _saved_model(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """The signature as it is written down, of TensorFlow 1 and 2 alike: the graph is not loaded."""
    progress("starting TensorFlow")
    tf = _tensorflow("a SavedModel")
    from tensorflow.core.protobuf import saved_model_pb2

    progress("reading the SavedModel")
    content = saved_model_pb2.SavedModel()
    try:
        with open(os.path.join(request["path"], "saved_model.pb"), "rb") as stream:
            content.ParseFromString(stream.read())
    except Exception as error:  # of protobuf, whose classes of errors moved between its releases
        raise LoadError("saved_model.pb cannot be read (%s): export the model again" % error)
    graphs = [graph for graph in content.meta_graphs if "serve" in graph.meta_info_def.tags] or list(content.meta_graphs)
    if not graphs or not graphs[0].signature_def:
        raise LoadError("the SavedModel has no signature: export it with one, as model.export of Keras does")
    signature = graphs[0].signature_def[tensorflow_graphs.signature_key(graphs[0].signature_def)]

    def tensors(end):
        # type: (Any) -> List[Dict[str, Any]]
        return [_of_signature(tf, name, end[name]) for name in sorted(end)]

    return {"inputs": tensors(signature.inputs), "outputs": tensors(signature.outputs)}


def _of_signature(tf, name, information):
    # type: (Any, str, Any) -> Dict[str, Any]
    shape = None  # type: Optional[List[Optional[int]]]
    if not information.tensor_shape.unknown_rank:
        shape = [int(size.size) if size.size >= 0 else None for size in information.tensor_shape.dim]
    return tensor(str(name), shape, tf.as_dtype(information.dtype).name)
