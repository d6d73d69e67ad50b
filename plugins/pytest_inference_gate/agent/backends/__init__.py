"""Toolchains that convert and run models, one module each.

A backend module has

* ``NAME``;
* ``availability(packages)``: what it could do with the installed distributions ``{name: version}``, without importing a framework. The
  result has ``available``, ``can_convert``, ``can_run``, ``precisions_convert``, ``precisions_run``, ``runtime`` and ``converter``
  (versions), ``source_formats`` (which it takes) and ``reason`` (why not); ``conversion_reason`` may say why it takes no
  other formats;
* ``convert(request, progress)``: write the artifact into ``request["output_directory"]``; returns ``model`` (its relative path),
  ``converter`` (versions) and ``details``;
* ``runtime()``: import the runtime and return ``{"name", "version"}``;
* ``Runner(model, precision, threads, batch, input)`` with ``inputs``, ``outputs`` (descriptions of tensors), ``set_inputs(array)``,
  ``infer()``, ``get_output()`` (float32, quantization undone), where a model can have several outputs ``get_outputs()`` (all of them, in
  the model's order, each with the batch first), and ``prepared()``, which gives a callable without arguments that does one
  synchronised inference of what was set and nothing else. Rounds on several pictures call ``set_inputs`` and ``prepared`` before each of
  them. Where the device has a clock of its own, ``prepared_on_device()`` gives a
  callable that does the same and returns the seconds by that clock;
* where wanted, ``RUNNER_TAKES``: which of ``"device"`` (``"cpu"``, ``"cuda"`` or ``"edgetpu"``), ``"options"`` (the card's table for
  this backend, ``{}`` where it has none) and ``"task"`` (``"classification"`` or ``"detection"``) the ``Runner`` takes too, as keyword
  arguments. ``convert`` finds the first two in its request, and ``task`` where it is ``"detection"``.
* where wanted, ``VARIANTS``: which variants of a model's graph its ``convert`` can make (``variant`` of a request).

Any module may be absent from an archive; ``--backend NAME=FILE`` adds one from elsewhere.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from types import ModuleType  # noqa: F401
from typing import Any, Dict, List, Tuple  # noqa: F401

from ..failures import Unsupported

BUILT_IN = ("tensorflow", "tflite", "onnxruntime", "edgetpu", "tensorrt", "tftrt", "torch", "torch2trt")

# What a conversion or a prediction is made with, besides the backend's own file.
SHARED_MODULES = (
    "batches.py",
    "graph_nodes.py",
    "model_outputs.py",
    "quantization.py",
    "tensorflow_device.py",
    "tensorflow_graphs.py",
    "tensorflow_sources.py",
)

# From any checkpoint to a float ONNX, and to a module of PyTorch: each is made by way of the other.
_OF_ONNX_AND_TORCH = (
    "cuda_device.py",
    "onnx_sources.py",
    "onnx_to_torch.py",
    "torch_device.py",
    "torch_graphs.py",
    "torch_models.py",
    "torch_to_onnx.py",
)
_OF_TORCH = _OF_ONNX_AND_TORCH + ("torch_runner.py",)

# The modules beside it in which a backend keeps more of its code.
OWN_MODULES = {
    "edgetpu": (
        os.path.join("backends", "tflite.py"),
        "edgetpu_compiler.py",
        "edgetpu_library.py",
        "tflite_file.py",
        "tflite_nodes.py",
        "tftrt_graph.py",
    ),
    "onnxruntime": _OF_ONNX_AND_TORCH + ("onnx_precision.py",),
    "tensorflow": ("nms_placement.py", "tftrt_graph.py"),
    "tflite": ("tflite_file.py", "tflite_nodes.py", "tftrt_graph.py"),
    "tensorrt": _OF_ONNX_AND_TORCH + ("engine_origin.py", "onnx_precision.py", "pycuda_device.py", "tensorrt_api.py"),
    "tftrt": (
        "cuda_device.py",
        "engine_origin.py",
        "gpu_memory.py",
        "nms_placement.py",
        "own_log.py",
        "tftrt_api.py",
        "tftrt_graph.py",
        "tftrt_log.py",
    ),
    "torch": _OF_TORCH,
    "torch2trt": _OF_TORCH + ("backends/tensorrt.py", "engine_origin.py", "tensorrt_api.py"),
}  # type: Dict[str, Tuple[str, ...]]


class Backends:
    """The backends of one agent by name; each is imported when it is first asked for."""

    def __init__(self, files):
        # type: (Dict[str, str]) -> None
        for name in files:
            if not re.match(r"^[a-z][a-z0-9_]*$", name):
                raise Unsupported("a backend is named with lower-case letters, digits and underscores, not %r" % name)
        self._files = files

    @property
    def names(self):
        # type: () -> List[str]
        return list(BUILT_IN) + [name for name in self._files if name not in BUILT_IN]

    def get(self, name):
        # type: (str) -> Any
        module_name = __name__ + "." + name
        if module_name in sys.modules:
            return sys.modules[module_name]
        if name in self._files:
            return _import_file(module_name, self._files[name])
        if name not in BUILT_IN:
            raise Unsupported("%s; it has %s" % (_unknown(name), ", ".join(self.names)))
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name == module_name:  # left out of this archive
                raise Unsupported(_unknown(name))
            raise

    def code(self, name):
        # type: (str) -> str
        """A digest of the program text that makes this backend's artifacts and predictions, which is part of what they are made of."""
        here = os.path.dirname(__file__)
        own = OWN_MODULES.get(name, ()) if name not in self._files else ()
        paths = [os.path.join(os.path.dirname(here), file) for file in SHARED_MODULES + own]
        read = __loader__.get_data  # type: ignore[name-defined]  # from a directory or from an archive
        if name in self._files:
            with open(self._files[name], "rb") as stream:
                parts = [stream.read()]
        else:
            parts = [read(os.path.join(here, name + ".py"))]
        parts += [read(path) for path in paths]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _unknown(name):
    # type: (str) -> str
    return "this agent has no backend %r" % name


def _import_file(module_name, path):
    # type: (str, str) -> ModuleType
    specification = importlib.util.spec_from_file_location(module_name, path)
    if specification is None or specification.loader is None:
        raise Unsupported("the backend file %s is not a Python file" % path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
