"""A module of PyTorch as an ONNX file in float, with the batch of the case: what ONNX Runtime and TensorRT take of a PyTorch checkpoint.

PyTorch has two exporters. The one that traces (TorchScript) writes the opset that is asked for and needs nothing but ``onnx``, so it is
taken as long as there is one. Releases that have the other one alone (``torch.export``, "dynamo") need ``onnxscript``, and write opset 18
at the least.
"""

import inspect
import os
from typing import Any, Callable, Dict, Tuple  # noqa: F401

from . import torch_device, torch_models
from .failures import BuildError, Unsupported, sentence_of

TRACING_OPSET = 17
LEAST_OF_DYNAMO = 18
INPUT, OUTPUT = "input", "output"


def export(request, destination, progress):
    # type: (Dict[str, Any], str, Callable[[str], None]) -> Dict[str, str]
    """Write the ONNX file of ``request`` to ``destination``; returns the versions of what made it.

    Raises :class:`~failures.BuildError` where the exporter does not take the module.
    """
    torch = torch_device.import_torch()
    module, version = torch_models.torchvision_module(torch, request, progress)
    keywords, more = exporter(torch)
    progress("exporting to ONNX")
    shape = [int(request["batch"])] + [int(size) for size in request["input"]["shape"]]
    example = (torch.ones(shape, dtype=torch.float32),)
    try:
        with torch.no_grad():
            torch.onnx.export(module, example, destination, input_names=[INPUT], output_names=[OUTPUT], **keywords)
    except (RuntimeError, ValueError, TypeError) as error:  # its own errors are of the first kind
        name = request["source"]["architecture"]["function"]
        raise BuildError(
            "torch %s cannot export %s to ONNX: %s" % (torch.__version__, name, sentence_of(error).rstrip(".")[:300])
        )
    if not os.path.isfile(destination):
        raise BuildError("torch %s exported no ONNX file" % torch.__version__)
    return dict(more, torch=str(torch.__version__), torchvision=version, opset=str(keywords["opset_version"]))


def exporter(torch):
    # type: (Any) -> Tuple[Dict[str, Any], Dict[str, str]]
    """What ``torch.onnx.export`` of this release is called with, and the versions of what it needs besides.

    Raises :class:`~failures.Unsupported` with the name of a package that is missing.
    """
    _version_of("onnx")
    parameters = inspect.signature(torch.onnx.export).parameters
    if "dynamo" in parameters:
        return {"opset_version": TRACING_OPSET, "dynamo": False}, {}
    if "dynamic_shapes" not in parameters:  # before there was another one
        return {"opset_version": TRACING_OPSET}, {}
    return {"opset_version": LEAST_OF_DYNAMO, "external_data": False}, {"onnxscript": _version_of("onnxscript")}


def _version_of(package):
    # type: (str) -> str
    try:
        module = __import__(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise Unsupported("%s is not installed here, and exporting a module of PyTorch to ONNX needs it" % package)
        raise
    return str(module.__version__)
