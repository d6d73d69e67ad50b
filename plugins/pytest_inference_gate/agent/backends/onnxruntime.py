"""ONNX Runtime on the CPU: TensorFlow checkpoints by tf2onnx, those of torchvision by PyTorch's exporter, ONNX files as they are;
integers by ONNX Runtime's static quantization."""

import functools
import os
import shutil
import tempfile
from typing import Any, Callable, Dict, List  # noqa: F401

from .. import model_outputs, onnx_precision, onnx_sources
from ..failures import BuildError, LoadError, Unsupported

NAME = "onnxruntime"
PRECISIONS = ("fp32", "int8")
PROVIDERS = ["CPUExecutionProvider"]
RUNNER_TAKES = ("task",)


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    version = packages.get("onnxruntime") or packages.get("onnxruntime-gpu") or ""
    precisions = ["fp32"] + (["int8"] if packages.get("onnx") and version else [])
    converter = dict(onnx_sources.converter_versions(packages), onnxruntime=version)
    return {
        "available": bool(version),
        "can_convert": True,  # an .onnx file is passed through anywhere
        "can_run": bool(version),
        "precisions_convert": precisions,
        "precisions_run": list(PRECISIONS) if version else [],
        "runtime": {"name": "onnxruntime", "version": version} if version else None,
        "converter": {name: value for name, value in converter.items() if value},
        "source_formats": onnx_sources.formats(packages),
        "reason": "" if version else "onnxruntime is not installed",
    }


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    precision = request["precision"]
    if precision not in PRECISIONS:
        raise Unsupported("the backend onnxruntime has no precision %r; it has %s" % (precision, ", ".join(PRECISIONS)))
    if precision == "int8" and not request.get("calibration"):
        raise BuildError("the precision int8 needs calibration pictures: add a [calibration] section to the card")
    destination = os.path.join(request["output_directory"], "model.onnx")
    scratch = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        real, versions = onnx_sources.float_model(request, scratch, progress)
        if precision == "int8":
            versions.update(onnx_precision.quantize(request, scratch, real, destination, progress))
        else:
            shutil.copyfile(real, destination)
        nodes_before = sum(onnx_sources.operators(real).values())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    counts = onnx_sources.operators(destination)
    details = {
        "passed_through": onnx_sources.is_onnx(request),
        "operators": counts,
        # Without the package onnx, nobody counts.
        "nodes": {"before": nodes_before or None, "after": sum(counts.values()) or None, "converted": None},
    }
    return {"model": "model.onnx", "converter": versions, "details": details}


# Running


def runtime():
    # type: () -> Dict[str, str]
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise Unsupported("onnxruntime is not installed here")
        raise
    return {"name": "onnxruntime", "version": str(onnxruntime.__version__)}


class Runner:
    """One session."""

    def __init__(self, model, precision, threads, batch, input, task=""):
        # type: (str, str, int, int, Dict[str, Any], str) -> None
        import onnxruntime
        from numpy import dtype

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=PROVIDERS)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise LoadError("the model has %d inputs, and one is expected" % len(inputs))
        fixed = inputs[0].shape[0] if inputs[0].shape else None
        if isinstance(fixed, int) and fixed != batch:
            raise LoadError("the model was made for a batch of %d, not %d" % (fixed, batch))
        self._input_name = inputs[0].name
        self._dtype = dtype(_numpy_name(inputs[0].type))
        outputs = self._session.get_outputs()
        order = model_outputs.in_order([tensor.name for tensor in outputs]) if task == model_outputs.DETECTION else [0]
        self._output_names = [outputs[place].name for place in order]
        self.inputs = [_description(tensor) for tensor in inputs]
        self.outputs = [_description(tensor) for tensor in outputs]
        self._feed = {}  # type: Dict[str, Any]
        self._results = []  # type: List[Any]

    def set_inputs(self, array):
        # type: (Any) -> None
        self._feed = {self._input_name: array.astype(self._dtype, order="C")}

    def prepared(self):
        # type: () -> Callable[[], Any]
        return functools.partial(self._session.run, self._output_names, self._feed)

    def infer(self):
        # type: () -> None
        self._results = self._session.run(self._output_names, self._feed)

    def get_output(self):
        # type: () -> Any
        return self.get_outputs()[0]

    def get_outputs(self):
        # type: () -> List[Any]
        """The first output alone, unless the model is a detector."""
        return [result.astype("float32") for result in self._results]


def _numpy_name(onnx_type):
    # type: (str) -> str
    """``tensor(float)`` is NumPy's ``float32``."""
    name = onnx_type[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(name, name)


def _description(tensor):
    # type: (Any) -> Dict[str, Any]
    shape = [size if isinstance(size, int) else None for size in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": _numpy_name(tensor.type), "scale": None, "zero_point": None}
