"""TensorRT on a CUDA device: an engine built from ONNX for exactly this release, this GPU and this board, run through PyCUDA.

An engine means something only where it was built, so its key holds the release, the SM, the GPU and the board (``converter`` of
``availability``), and beside it lies ``engine.json`` with the same, by which a runner refuses a foreign engine before TensorRT has to.
"""

import hashlib
import json
import os
import shutil
import tempfile
from typing import Any, Callable, Dict, List, Optional  # noqa: F401

from .. import cuda_device, engine_origin, model_outputs, onnx_precision, onnx_sources, tensorrt_api
from ..failures import AgentError, BuildError, LoadError, Unsupported

NAME = "tensorrt"
PRECISIONS = ("fp32", "fp16", "int8")
DISTRIBUTIONS = (
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-cu12",
    "tensorrt-cu11",
    "tensorrt-cu13-bindings",
    "tensorrt-cu12-bindings",
    "tensorrt-bindings",
)
ENGINE, PROVENANCE, TIMING_CACHE = "model.engine", "engine.json", "timing.cache"
SCHEMA = "inference-gate-engine/1"


def installed_version(packages):
    # type: (Dict[str, str]) -> str
    return next((packages[name] for name in DISTRIBUTIONS if name in packages), "")


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    version, pycuda = installed_version(packages), packages.get("pycuda", "")
    device, reason = {}, ""  # type: Dict[str, str], str
    if version:
        try:
            device = cuda_device.facts()
        except cuda_device.NoDevice as error:
            reason = "TensorRT needs a CUDA device, and there is none that can be used: %s" % error
    else:
        reason = "TensorRT is not installed"
    if device and not pycuda:
        reason = "PyCUDA is not installed, through which TensorRT's engines are run"
    can_convert = bool(device)
    converter = dict(onnx_sources.converter_versions(packages), onnxruntime=packages.get("onnxruntime", ""))
    converter.update(device, tensorrt=version)  # an engine is made of these, so the key of the artifact holds them
    return {
        "available": bool(device and pycuda),
        "can_convert": can_convert,
        "can_run": bool(device and pycuda),
        "precisions_convert": list(PRECISIONS) if can_convert else [],
        "precisions_run": list(PRECISIONS) if device and pycuda else [],
        "runtime": {"name": "tensorrt", "version": version} if version else None,
        "converter": {name: value for name, value in converter.items() if value} if can_convert else {},
        "source_formats": onnx_sources.formats(packages),
        "reason": reason,
    }


def bound_to(trt):
    # type: (Any) -> Dict[str, str]
    """What an engine that is built here, or taken here, is bound to."""
    try:
        device = cuda_device.facts()
    except cuda_device.NoDevice as error:
        raise Unsupported("TensorRT needs a CUDA device, and there is none that can be used: %s" % error)
    return dict(device, tensorrt=str(trt.__version__))


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """Besides the usual, a request may hold ``options``: ``workspace_bytes`` (the builder's limit), ``dla_core``, and ``timing_cache``
    (``path`` and ``sha256`` of the cache of an earlier build on this device)."""
    precision, directory = request["precision"], request["output_directory"]
    if precision not in PRECISIONS:
        raise Unsupported("the backend tensorrt has no precision %r; it has %s" % (precision, ", ".join(PRECISIONS)))
    if precision == "int8" and not request.get("calibration"):
        raise BuildError("the precision int8 needs calibration pictures: add a [calibration] section to the card")
    trt = tensorrt_api.import_tensorrt()
    here = bound_to(trt)
    plan = _plan(request)
    logger = tensorrt_api.new_logger(trt)
    scratch = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        real, versions = onnx_sources.float_model(request, scratch, progress)
        graph = _typed(trt, request, scratch, real, versions, progress)
        progress("building the engine")
        engine, cache, details = tensorrt_api.build(trt, logger, graph, plan, _calibrator(trt, request))
        details["onnx_sha256"] = _sha256(_read(graph))
        nodes_before = sum(onnx_sources.operators(graph).values()) or None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    provenance = dict(
        here, schema=SCHEMA, precision=precision, batch=plan.batch, dla_core=plan.dla_core, engine_sha256=_sha256(engine)
    )
    _write(os.path.join(directory, ENGINE), engine)
    _write(os.path.join(directory, TIMING_CACHE), cache)
    _write(os.path.join(directory, PROVENANCE), json.dumps(provenance, indent=1, sort_keys=True).encode("utf-8"))
    progress("inspecting the engine")
    _, loaded = tensorrt_api.deserialize(trt, logger, engine, plan.dla_core)
    placement = tensorrt_api.placement(trt, loaded, logger, plan.dla_core)
    details.update(
        engine=provenance,
        coverage=tensorrt_api.coverage(placement, here["tensorrt"]),
        # What is left of them is the engine's layers.
        nodes={"before": nodes_before, "after": sum(placement["devices"].values()) or None, "converted": None},
        placement=placement,
        timing_cache={
            "file": TIMING_CACHE,
            "sha256": _sha256(cache),
            "start": details["timing_cache"],
            "continued_from": _sha256(plan.timing_cache) if plan.timing_cache else None,
        },
        workspace_bytes=plan.workspace_bytes,
    )
    if plan.timing_cache and details["timing_cache"]["start"] != "continued":
        details["remarks"] = [
            "the pinned timing cache was %s, so this build chose its kernels anew"
            % details["timing_cache"]["start"].partition(",")[0]
        ]
    return {"model": ENGINE, "converter": dict(versions, **here), "details": details}


def _plan(request):
    # type: (Dict[str, Any]) -> tensorrt_api.Plan
    options = request.get("options") or {}
    pinned = options.get("timing_cache")
    content = b""
    if pinned:
        content = _read(pinned["path"])
        if _sha256(content) != pinned["sha256"]:
            raise BuildError(
                "the timing cache %s is not the one that was pinned (its SHA-256 begins with %s, not %s)"
                % (pinned["path"], _sha256(content)[:12], str(pinned["sha256"])[:12])
            )
    workspace, core = options.get("workspace_bytes"), options.get("dla_core")
    return tensorrt_api.Plan(
        precision=request["precision"],
        batch=int(request["batch"]),
        shape=[int(size) for size in request["input"]["shape"]],
        dtype=request["input"]["dtype"],
        workspace_bytes=None if workspace is None else int(workspace),
        dla_core=None if core is None else int(core),
        timing_cache=content,
    )


def _typed(trt, request, scratch, real, versions, progress):
    # type: (Any, Dict[str, Any], str, str, Dict[str, str], Callable[[str], None]) -> str
    """The graph that is built: with the precision written into it where this release has no flag for it."""
    precision = request["precision"]
    if tensorrt_api.has_flag(trt, precision):
        return real
    typed = os.path.join(scratch, "typed.onnx")
    try:
        if precision == "fp16":
            versions.update(onnx_precision.halve(real, typed, progress))
        else:
            versions.update(onnx_precision.quantize(request, scratch, real, typed, progress, symmetric=True))
    except Unsupported as error:
        raise Unsupported("TensorRT %s takes %s from the graph alone: %s" % (trt.__version__, precision, error))
    return typed


def _calibrator(trt, request):
    # type: (Any, Dict[str, Any]) -> Optional[Callable[[], Any]]
    """What makes a calibrator where the build turns out to need one; the context has to be there before the builder is."""
    if request["precision"] != "int8" or not tensorrt_api.has_flag(trt, "int8"):
        return None
    from ..pycuda_device import device

    buffers = device()

    def make():
        # type: () -> Any
        from ..quantization import calibration_batches

        size = int(request["batch"])
        batches = calibration_batches(request["calibration"], size)
        return tensorrt_api.new_calibrator(trt, batches, size, request["input"]["dtype"], buffers)

    return make


def _read(path):
    # type: (str) -> bytes
    with open(path, "rb") as stream:
        return stream.read()


def _write(path, content):
    # type: (str, bytes) -> None
    with open(path, "wb") as stream:
        stream.write(content)


def _sha256(content):
    # type: (bytes) -> str
    return hashlib.sha256(content).hexdigest()


# Running


def runtime():
    # type: () -> Dict[str, str]
    return {"name": "tensorrt", "version": str(tensorrt_api.import_tensorrt().__version__)}


def origin_of(model):
    # type: (str) -> Dict[str, Any]
    """Where the engine at the path ``model`` was built. Raises :class:`LoadError` where nothing says so."""
    return engine_origin.read_origin(os.path.join(os.path.dirname(model), PROVENANCE), SCHEMA)


class Runner:
    """One engine with its execution context, buffers on the device, and one stream."""

    def __init__(self, model, precision, threads, batch, input):
        # type: (str, str, int, int, Dict[str, Any]) -> None
        import numpy

        from ..pycuda_device import device

        self._numpy = numpy
        trt = tensorrt_api.import_tensorrt()
        provenance = origin_of(model)
        engine_origin.refuse_foreign(provenance, bound_to(trt))
        self._device = device()
        self._logger = tensorrt_api.new_logger(trt)
        self._runtime, self._engine = tensorrt_api.deserialize(trt, self._logger, _read(model), provenance.get("dla_core"))
        self._execution = tensorrt_api.open_engine(trt, self._engine, self._logger)
        names = self._execution.input_names()
        if len(names) != 1:
            raise LoadError("the engine has %d inputs, and one is expected" % len(names))
        shape = [batch] + [int(size) for size in input["shape"]]
        if not self._execution.set_input_shape(names[0], shape):
            raise self._logger.failure("setting the input's shape to %s" % shape, LoadError)
        tensors = self._execution.tensors()
        if any(size < 0 for tensor in tensors for size in tensor.shape):
            raise LoadError("the size of an output depends on the data, which the tensorrt backend does not run")
        self._input = next(tensor for tensor in tensors if tensor.is_input)
        outputs = [tensor for tensor in tensors if not tensor.is_input]
        self._outputs = [outputs[place] for place in model_outputs.in_order([tensor.name for tensor in outputs])]
        self._buffers = {tensor.name: self._device.allocate(_bytes(tensor)) for tensor in tensors}
        addresses = {name: int(buffer) for name, buffer in self._buffers.items()}
        self._enqueue = self._execution.enqueuer(addresses, self._device.stream_handle)
        self.inputs = [_description(tensor) for tensor in tensors if tensor.is_input]
        self.outputs = [_description(tensor) for tensor in self._outputs]

    def set_inputs(self, array):
        # type: (Any) -> None
        from ..quantization import quantize

        values = quantize(array, self._input.dtype, 0.0, 0)
        if list(values.shape) != self._input.shape:
            raise AgentError("the input has the shape %s, and the engine takes %s" % (list(values.shape), self._input.shape))
        self._device.upload(self._buffers[self._input.name], self._numpy.ascontiguousarray(values))

    def prepared(self):
        # type: () -> Callable[[], Any]
        """One inference put into the stream, and the wait for its end. The copies to the device and back are not part of it."""
        enqueue, synchronize, refused = self._enqueue, self._device.stream.synchronize, self._refused

        def inference():
            # type: () -> None
            if not enqueue():
                refused()
            synchronize()

        return inference

    def prepared_on_device(self):
        # type: () -> Callable[[], float]
        """One inference, and the seconds that it took by the device's own clock: from event to event in the stream."""
        return self._device.timed(self._enqueue_or_raise)

    def _enqueue_or_raise(self):
        # type: () -> None
        if not self._enqueue():
            self._refused()

    def _refused(self):
        # type: () -> None
        raise self._logger.failure("putting an inference into the stream", AgentError)

    def infer(self):
        # type: () -> None
        self.prepared()()

    def get_output(self):
        # type: () -> Any
        return self._fetched(self._outputs[0])

    def get_outputs(self):
        # type: () -> List[Any]
        return [self._fetched(tensor) for tensor in self._outputs]

    def _fetched(self, tensor):
        # type: (Any) -> Any
        result = self._numpy.empty(tensor.shape, dtype=tensor.dtype)
        self._device.download(result, self._buffers[tensor.name])
        return result.astype("float32")


def _bytes(tensor):
    # type: (Any) -> int
    import numpy

    count = 1
    for size in tensor.shape:
        count *= size
    return int(count * numpy.dtype(tensor.dtype).itemsize)


def _description(tensor):
    # type: (Any) -> Dict[str, Any]
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "scale": None, "zero_point": None}
