"""Every kind of checkpoint as one ONNX file in float: TensorFlow checkpoints by tf2onnx, architectures of torchvision by PyTorch's own
exporter, ONNX files as they are."""

import os
import shutil
from typing import Any, Callable, Dict, List, Tuple  # noqa: F401

from . import tensorflow_sources as sources
from .failures import BuildError, Unsupported

OPSET = 17
ARCHITECTURES_OF_TORCHVISION = "torchvision.models."
OLDEST_SAFE_TORCH = (2, 6)
"""Releases before this one run code from a file even where they are told to read weights alone (CVE-2025-32434)."""


def formats(packages):
    # type: (Dict[str, str]) -> List[str]
    """The source formats that can become ONNX with these distributions."""
    from_tensorflow = sources.installed_version(packages) and packages.get("tf2onnx") and packages.get("onnx")
    from_torch = formats_of_torchvision(packages) if packages.get("onnx") else []
    return ["onnx"] + (list(sources.FORMATS) if from_tensorflow else []) + from_torch


def formats_of_torchvision(packages):
    # type: (Dict[str, str]) -> List[str]
    """The source formats whose architecture is one of torchvision that can be read with these distributions.

    ``seeded_torchvision`` is ``seeded`` with such an architecture. An old release of PyTorch reads no files, so that something else is
    made of them elsewhere.
    """
    if not packages.get("torch") or not packages.get("torchvision"):
        return []
    return ["seeded_torchvision"] + (["torch_weights"] if release_of(packages["torch"]) >= OLDEST_SAFE_TORCH else [])


def release_of(version):
    # type: (str) -> Tuple[int, ...]
    """``(2, 11)`` of ``2.11.0a0+cu130``."""
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int("".join(letter for letter in part if letter.isdigit()) or 0) for part in parts)


def converter_versions(packages):
    # type: (Dict[str, str]) -> Dict[str, str]
    """The installed distributions of which the float ONNX depends."""
    versions = {"tensorflow": sources.installed_version(packages)}
    versions.update((name, packages.get(name, "")) for name in ("tf2onnx", "onnx", "torch", "torchvision"))
    return {name: value for name, value in versions.items() if value}


def is_onnx(request):
    # type: (Dict[str, Any]) -> bool
    return bool(request["source"]["format"] == "onnx")


def is_of_torchvision(source):
    # type: (Dict[str, Any]) -> bool
    return str((source.get("architecture") or {}).get("function", "")).startswith(ARCHITECTURES_OF_TORCHVISION)


def float_model(request, scratch, progress):
    # type: (Dict[str, Any], str, Callable[[str], None]) -> Tuple[str, Dict[str, str]]
    """The path of the float ONNX (the source itself, or a file in the folder ``scratch``) and the versions of what made it."""
    if is_onnx(request):
        return request["source"]["path"], {}
    destination = os.path.join(scratch, "fp32.onnx")
    if is_of_torchvision(request["source"]):
        from . import torch_to_onnx

        return destination, torch_to_onnx.export(request, destination, progress)
    return destination, _from_tensorflow(request, scratch, destination, progress)


def operators(path):
    # type: (str) -> Dict[str, int]
    """How often each operator occurs; empty where the package onnx is not at hand."""
    try:
        import onnx
    except ImportError:
        return {}
    counts = {}  # type: Dict[str, int]
    for node in onnx.load(path, load_external_data=False).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _from_tensorflow(request, scratch, destination, progress):
    # type: (Dict[str, Any], str, str, Callable[[str], None]) -> Dict[str, str]
    """The serving signature as ONNX. Its input keeps the layout that it has in TensorFlow (channels last).

    tf2onnx numbers the nodes that it makes, so names may differ between two conversions; the graph and its weights do not.
    """
    try:
        import tf2onnx
    except ModuleNotFoundError as error:
        if error.name == "tf2onnx":
            raise Unsupported("tf2onnx is not installed here, and turning a TensorFlow checkpoint into ONNX needs it")
        raise
    directory = os.path.join(scratch, "saved_model")
    tf = sources.save(request, directory, progress)
    progress("converting to ONNX")
    model = tf.saved_model.load(directory)
    function = model.signatures[sources.SIGNATURE]
    ((name, specification),) = function.structured_input_signature[1].items()

    signature = [tf.TensorSpec(specification.shape, specification.dtype, name=sources.INPUT)]

    def serve(tensor):
        # type: (Any) -> Dict[str, Any]
        results = function(**{name: tensor})
        return {output: results[output] for output in results}

    serving = tf.function(serve, input_signature=signature)
    made, _ = tf2onnx.convert.from_function(serving, input_signature=signature, opset=OPSET, output_path=destination)
    _refuse_what_is_not_onnx(made)
    versions = sources.converter_versions(tf)
    versions["tf2onnx"] = str(tf2onnx.__version__)
    shutil.rmtree(directory, ignore_errors=True)
    return versions


def _refuse_what_is_not_onnx(model):
    # type: (Any) -> None
    """Where tf2onnx knows no counterpart of an operation, it logs that, and writes the operation as TensorFlow calls it."""
    import onnx

    unknown = sorted({str(node.op_type) for node in model.graph.node if not node.domain and not onnx.defs.has(node.op_type)})
    if unknown:
        raise BuildError(
            "tf2onnx cannot turn %s of the graph into ONNX: loops of TensorFlow 1, in which detectors suppress, have no counterpart "
            "there, so name outputs in checkpoint.outputs that come before them, or use the backend tensorflow"
            % ", ".join(unknown)
        )
