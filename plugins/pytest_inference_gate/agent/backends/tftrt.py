"""TF-TRT: TensorFlow's own graph with segments of it in TensorRT engines, built on the device for the case's batch.

What could not be converted, or whose engine cannot be built or run, TensorFlow computes itself, quietly. So how much of the graph lies in
engines is counted on the graph, and which engines were really run is read from the log.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple  # noqa: F401

from .. import (
    cuda_device,
    engine_origin,
    gpu_memory,
    model_outputs,
    nms_placement,
    system_packages,
    tftrt_api,
    tftrt_graph,
    tftrt_log,
)
from .. import tensorflow_sources as sources
from ..failures import BuildError, LoadError, Unsupported
from ..own_log import OwnLog

NAME = "tftrt"
PRECISIONS = ("fp32", "fp16", "int8")
RUNNER_TAKES = ("device", "options")
VARIANTS = nms_placement.VARIANTS
# What only NVIDIA's builds for Jetson, and its containers, call TensorFlow.
DISTRIBUTIONS = sources.DISTRIBUTIONS + ("tensorflow-gpu", "nvidia-tensorflow")
LIBRARIES = (
    "tensorrt",
    "tensorrt-libs",
    "tensorrt-cu12",
    "tensorrt-cu12-libs",
    "tensorrt-cu11",
    "nvidia-tensorrt",
)
FIRST_WITHOUT = (2, 18)
SAVED_MODEL, PROVENANCE = "saved_model", "inference_gate.json"
SCHEMA = "inference-gate-tftrt/1"
MOST_OPERATIONS = 50
# One line for each execution of an engine or of the segment behind it, in the process that converts and never in one that measures.
COUNTED_EXECUTIONS = "trt_engine_op=1"


def installed_version(packages):
    # type: (Dict[str, str]) -> str
    return next((packages[name] for name in DISTRIBUTIONS if name in packages), "")


def tensorrt_version(packages, root="/"):
    # type: (Dict[str, str], str) -> str
    """The release of TensorRT's library that TensorFlow would load, by the system's packages and files or by a wheel; ``""`` if none."""
    system = system_packages.system_software(root, system_packages.dpkg_versions(root))["tensorrt"]
    return system["version"] if system else next((packages[name] for name in LIBRARIES if name in packages), "")


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    version = installed_version(packages)
    tensorrt, device, reason = "", {}, ""  # type: str, Dict[str, str], str
    if not version:
        reason = "TensorFlow is not installed, and TF-TRT is a part of it"
    elif _numbers(version) >= FIRST_WITHOUT:
        reason = "TensorFlow %s has no TF-TRT, which ended with 2.17: use the backend tensorrt" % version
    else:
        tensorrt = tensorrt_version(packages)
        if not tensorrt:
            reason = "TensorRT's library libnvinfer is not installed"
        else:
            try:
                device = cuda_device.facts()
            except cuda_device.NoDevice as error:
                reason = "TF-TRT needs a CUDA device, and there is none that can be used: %s" % error
    usable = not reason
    # An engine is made of these, so the key of the artifact holds them.
    converter = dict(device, tensorflow=version, tensorrt=tensorrt) if usable else {}
    return {
        "available": usable,
        "can_convert": usable,
        "can_run": usable,
        "precisions_convert": list(PRECISIONS) if usable else [],
        "precisions_run": list(PRECISIONS) if usable else [],
        "runtime": {"name": "tensorflow", "version": version} if version else None,
        "converter": {name: value for name, value in converter.items() if value},
        "source_formats": list(sources.FORMATS) if usable else [],
        "reason": reason,
    }


def _numbers(version):
    # type: (str) -> Tuple[int, ...]
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _here(packages=None):
    # type: (Optional[Dict[str, str]]) -> Dict[str, str]
    """What an engine that is built here, or taken here, is bound to."""
    from ..probe import installed_packages

    try:
        device = cuda_device.facts()
    except cuda_device.NoDevice as error:
        raise Unsupported("TF-TRT needs a CUDA device, and there is none that can be used: %s" % error)
    return dict(device, tensorrt=tensorrt_version(installed_packages() if packages is None else packages))


def _on_cuda(device):
    # type: (str) -> None
    if device != "cuda":
        raise Unsupported("TF-TRT runs on a CUDA device alone, and the case is for %s" % device)


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """Besides the usual, a request may hold ``options``: ``minimum_segment_size``, ``workspace_bytes``, ``maximum_cached_engines``,
    ``memory_limit_bytes``, ``use_calibration`` and ``use_dynamic_shape``. What is left out is TensorFlow's default."""
    precision = request["precision"]
    if precision not in PRECISIONS:
        raise Unsupported("the backend tftrt has no precision %r; it has %s" % (precision, ", ".join(PRECISIONS)))
    _on_cuda(request.get("device", "cuda"))
    nms_placement.refuse_unknown(request.get("variant"), "cuda")
    options = request.get("options") or {}
    settings = _settings(request, options)
    if tftrt_api.needs_calibration(settings) and not request.get("calibration"):
        raise BuildError("the precision int8 needs calibration pictures: add a [calibration] section to the card")
    _be_told_everything()
    log = OwnLog()
    try:
        return _convert(request, settings, options.get("memory_limit_bytes"), log, progress)
    except Exception as error:
        _raise_explained(error, log, BuildError)
        raise


def _raise_explained(error, log, kind):
    # type: (Exception, OwnLog, type) -> None
    """Raise what TF-TRT meant by ``error``; return where nothing better than ``error`` itself is known."""
    meant = tftrt_api.explained(error, log.text(), kind)
    if meant is not error:
        raise meant from error


def _settings(request, options):
    # type: (Dict[str, Any], Dict[str, Any]) -> tftrt_api.Settings
    return tftrt_api.Settings(
        precision=request["precision"],
        batch=int(request["batch"]),
        workspace_bytes=options.get("workspace_bytes"),
        minimum_segment_size=options.get("minimum_segment_size"),
        maximum_cached_engines=options.get("maximum_cached_engines"),
        use_calibration=bool(options.get("use_calibration", True)) if request["precision"] == "int8" else None,
        use_dynamic_shape=options.get("use_dynamic_shape"),
    )


def _be_told_everything():
    # type: () -> None
    """Have TF-TRT print why it leaves operations alone, and each execution while engines are built. TensorFlow reads that once."""
    modules = os.environ.get("TF_CPP_VMODULE", "")
    if COUNTED_EXECUTIONS not in modules:
        os.environ["TF_CPP_VMODULE"] = ",".join([part for part in (modules, COUNTED_EXECUTIONS) if part])
    os.environ.setdefault("TF_TRT_SHOW_DETAILED_REPORT", "1")


def _convert(request, settings, memory_limit, log, progress):
    # type: (Dict[str, Any], tftrt_api.Settings, Optional[int], OwnLog, Callable[[str], None]) -> Dict[str, Any]
    executions_are_printed = "tensorflow" not in sys.modules
    tf = tftrt_api.import_tensorflow(memory_limit)
    module = tftrt_api.import_converter()
    style = tftrt_api.style_of(tf, module)
    gpu_memory.check(settings.workspace_bytes, memory_limit, gpu_memory.free_bytes(), tftrt_api.default_workspace(tf, module))
    directory = os.path.join(request["output_directory"], SAVED_MODEL)
    make = _convert_saved_model if style in ("direct", "parameters") else _convert_graph
    summary, nodes_before, begun, placement = make(tf, module, style, request, settings, memory_limit, directory, log, progress)
    here = _here()
    text = log.text()
    counted = tftrt_graph.count(*tftrt_graph.read(directory))
    native = dict(tftrt_log.native_segments(text[begun:]))
    if executions_are_printed:
        for name, engine in tftrt_log.executions(text[begun:]).items():
            if not engine:
                native.setdefault(name, "the segment was executed by TensorFlow when the engines were built")
    provenance = dict(here, schema=SCHEMA, precision=settings.precision, batch=settings.batch)
    _write_provenance(directory, provenance)
    details = {
        "api": style,
        "engine": provenance,
        "engines": [
            {"name": segment.name, "nodes": segment.nodes, "operations": len(segment.operations)} for segment in counted.segments
        ],
        "nodes": {"before": nodes_before, "after": counted.nodes, "converted": counted.converted_nodes},
        "summary": summary,
        "workspace_bytes": settings.workspace_bytes,
        "memory_limit_bytes": memory_limit,
        "engines_built": "at the first inference" if style in ("graph", "contrib") and _is_dynamic(settings) else "at conversion",
        "coverage": coverage(counted, native, tftrt_log.reasons(text), "TensorFlow %s" % tf.__version__),
        "remarks": _remarks(counted, summary, native),
    }
    if placement is not None:
        details["nms"] = nms_placement.details(placement)
        details["remarks"] += nms_placement.remarks(placement)
    versions = dict(sources.converter_versions(tf), **here)
    return {"model": SAVED_MODEL, "converter": {key: value for key, value in versions.items() if value}, "details": details}


def _is_dynamic(settings):
    # type: (tftrt_api.Settings) -> bool
    return tftrt_api.needs_calibration(settings)


def _pictures(request):
    # type: (Dict[str, Any]) -> Callable[[], Iterator[Any]]
    from ..quantization import calibration_batches

    def batches():
        # type: () -> Iterator[Any]
        for batch in calibration_batches(request["calibration"], int(request["batch"])):
            yield batch.astype(request["input"]["dtype"])

    return batches


def _convert_saved_model(tf, module, style, request, settings, memory_limit, directory, log, progress):
    # type: (Any, Any, str, Dict[str, Any], tftrt_api.Settings, Optional[int], str, OwnLog, Callable[[str], None]) -> Any
    """With TensorFlow 2. Returns the converter's summary, the number of nodes before, where in the log the building began, and where the
    suppression was put, if it was."""
    import numpy

    variant = request.get("variant")
    original = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        # The converter is made first: it says at once where TF-TRT is missing or does not fit, before a large model is read.
        converter = tftrt_api.new_v2(module, style, original, settings)
        sources.save(request, original, progress, tf)
        placement = None if variant is None else nms_placement.place_in_saved_model(original, variant)
        graph_def, outputs = tftrt_graph.read(original)
        tftrt_api.require_ranges(settings, tftrt_graph.operations(graph_def))
        nodes_before = tftrt_graph.count(graph_def, outputs).nodes
        progress("converting segments for TensorRT")
        tftrt_api.convert_v2(converter, settings, _pictures(request))
        begun = len(log.text())
        progress("building the engines for a batch of %d" % settings.batch)
        shape = [settings.batch] + [int(size) for size in request["input"]["shape"]]
        batch = numpy.zeros(shape, dtype=request["input"]["dtype"])
        if request.get("calibration"):
            batch = next(_pictures(request)())
        tftrt_api.build_v2(converter, batch)
        summary = tftrt_api.summary_v2(converter)
        progress("writing the converted model")
        converter.save(directory)
    finally:
        shutil.rmtree(original, ignore_errors=True)
    return summary, nodes_before, begun, placement


def _convert_graph(tf, module, style, request, settings, memory_limit, directory, log, progress):
    # type: (Any, Any, str, Dict[str, Any], tftrt_api.Settings, Optional[int], str, OwnLog, Callable[[str], None]) -> Any
    """With TensorFlow 1, whose converters take a graph of constants."""
    config = tftrt_api.session_config(tf, memory_limit)
    graph = tftrt_api.Graph(*sources.frozen_graph(tf, request, config, progress))
    variant = request.get("variant")
    placement = None if variant is None else nms_placement.place(graph.graph_def, graph.outputs, variant)
    tftrt_api.require_ranges(settings, tftrt_graph.operations(graph.graph_def))
    nodes_before = len(graph.graph_def.node)
    begun = len(log.text())
    progress("converting segments for TensorRT, and building the engines")
    converted = tftrt_api.convert_graph(tf, module, style, graph, settings, config, _pictures(request))
    progress("writing the converted model")
    tftrt_api.write_saved_model(tf, directory, converted, graph.input, graph.outputs)
    return None, nodes_before, begun, placement


def _write_provenance(directory, provenance):
    # type: (str, Dict[str, Any]) -> None
    """Into the folder of a SavedModel that is there for its users' own files, so that it goes wherever the model goes."""
    folder = os.path.join(directory, "assets.extra")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, PROVENANCE), "w") as stream:
        json.dump(provenance, stream, indent=1, sort_keys=True)


def _remarks(counted, summary, native):
    # type: (tftrt_graph.Count, Optional[Dict[str, int]], Dict[str, str]) -> List[str]
    remarks = []
    if summary is not None and (summary["engines"], summary["converted"]) != (len(counted.segments), counted.converted_nodes):
        remarks.append(
            "TF-TRT's summary tells %d engines of %d nodes, and the converted graph holds %d of %d: the graph's own count is shown"
            % (summary["engines"], summary["converted"], len(counted.segments), counted.converted_nodes)
        )
    if not counted.segments:
        remarks.append(
            "TF-TRT made no engine: all of the model runs in TensorFlow, so lower minimum_segment_size or see the log for why"
        )
    for name in sorted(native):
        remarks.append("%s runs as native TensorFlow: %s" % (name, native[name]))
    return remarks


# Coverage


def coverage(counted, native, reasons, source):
    # type: (tftrt_graph.Count, Dict[str, str], Dict[str, str], str) -> Dict[str, Any]
    """Operations that compute, in engines and elsewhere. ``native``: engines that TensorFlow computed itself, and why.

    Constants, calls and what only hands values on are not counted: how many of them there are says nothing of where the work is done.
    """
    elsewhere = {}  # type: Dict[Tuple[str, str], int]
    on_accelerator, ran_native = 0, 0
    for operation in counted.native:
        key = (operation, reasons.get(operation, ""))
        elsewhere[key] = elsewhere.get(key, 0) + 1
    for segment in counted.segments:
        if segment.name not in native:
            on_accelerator += len(segment.operations)
            continue
        ran_native += 1
        for operation in segment.operations:
            key = (operation, "%s ran as native TensorFlow: %s" % (segment.name, native[segment.name]))
            elsewhere[key] = elsewhere.get(key, 0) + 1
    most = sorted(elsewhere.items(), key=lambda item: (-item[1], item[0]))[:MOST_OPERATIONS]
    return {
        "accelerator": "tensorrt",
        "on_accelerator": on_accelerator,
        "elsewhere": sum(elsewhere.values()),
        "parts": len(counted.segments),
        "off_chip_bytes": None,
        "elsewhere_by_operation": [
            {"operation": operation, "count": number, "reason": reason[:200]} for (operation, reason), number in most
        ],
        "native_segments": ran_native,
        "source": source,
    }


# Running


def runtime():
    # type: () -> Dict[str, str]
    tf = tftrt_api.import_tensorflow()
    tftrt_api.import_converter()  # makes the engine's operation known, and is no part of a model's load time
    return {"name": "tensorflow", "version": str(tf.__version__)}


class Runner:
    """A converted SavedModel. An inference begins with the input as a tensor and ends with the result on the host."""

    def __init__(self, model, precision, threads, batch, input, device="cuda", options=None):
        # type: (str, str, int, int, Dict[str, Any], str, Optional[Dict[str, Any]]) -> None
        _on_cuda(device)
        memory_limit = (options or {}).get("memory_limit_bytes")
        self._model_path = model
        self._log = OwnLog()
        gpu_memory.check_limit(memory_limit, gpu_memory.free_bytes())
        try:
            tf = tftrt_api.import_tensorflow(memory_limit)
            tftrt_api.import_converter()
            self._source = "TensorFlow %s" % tf.__version__
            origin = engine_origin.read_origin(os.path.join(model, "assets.extra", PROVENANCE), SCHEMA)
            engine_origin.refuse_foreign(origin, _here())
            call = _Eager if tftrt_api.is_eager(tf) else _InSession
            self._call = call(tf, model, threads, memory_limit)
        except Exception as error:
            _raise_explained(error, self._log, LoadError)
            raise
        self.inputs, self.outputs = [self._call.input], self._call.outputs
        if self._call.input["shape"] != [batch] + [int(size) for size in input["shape"]]:
            raise LoadError(
                "the engines were built for inputs of the shape %s, and the case needs %s: convert it again for this batch"
                % (self._call.input["shape"], [batch] + [int(size) for size in input["shape"]])
            )
        self._counted = None  # type: Optional[tftrt_graph.Count]
        self._ran = False
        self._results = []  # type: List[Any]

    def set_inputs(self, array):
        # type: (Any) -> None
        self._call.set_inputs(array)

    def prepared(self):
        # type: () -> Callable[[], Any]
        self._ran = True
        return self._call.prepared()  # type: ignore[no-any-return]

    def infer(self):
        # type: () -> None
        self._results = model_outputs.as_list(self.prepared()())

    def get_output(self):
        # type: () -> Any
        return self.get_outputs()[0]

    def get_outputs(self):
        # type: () -> List[Any]
        return [result.astype("float32") for result in self._results]

    def coverage(self):
        # type: () -> Optional[Dict[str, Any]]
        """How much of the graph ran in engines so far; None before the first inference, since only that shows which engines run."""
        if not self._ran:
            return None
        if self._counted is None:
            self._counted = tftrt_graph.count(*tftrt_graph.read(self._model_path))
        text = self._log.text()
        told = self._source if self._log.readable else self._source + ", whose log could not be read back"
        result = coverage(self._counted, tftrt_log.native_segments(text), {}, told)
        if not self._log.readable:
            result["native_segments"] = None
        return result


class _Eager:
    """The serving signature, called by TensorFlow 2."""

    def __init__(self, tf, model, threads, memory_limit):
        # type: (Any, str, int, Optional[int]) -> None
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf = tf
        self._model = tf.saved_model.load(model)  # keeps the engines alive
        self._function = self._model.signatures[tftrt_api.SIGNATURE]
        ((self._input_name, tensor),) = self._function.structured_input_signature[1].items()
        outputs = self._function.structured_outputs
        self._output_names = model_outputs.sorted_names(outputs)
        self._dtype = tensor.dtype
        self.input = model_outputs.described(self._input_name, tensor)
        self.outputs = [model_outputs.described(name, outputs[name]) for name in self._output_names]
        self._tensor = None  # type: Any

    def set_inputs(self, array):
        # type: (Any) -> None
        self._tensor = self._tf.constant(array, dtype=self._dtype)

    def prepared(self):
        # type: () -> Callable[[], Any]
        return model_outputs.signature_call(self._function, self._output_names, {self._input_name: self._tensor})


class _InSession:
    """The same in a session of TensorFlow 1, where the input's copy to the device is part of an inference."""

    def __init__(self, tf, model, threads, memory_limit):
        # type: (Any, str, int, Optional[int]) -> None
        v1 = tftrt_api.v1_of(tf)
        config = tftrt_api.session_config(tf, memory_limit)
        config.intra_op_parallelism_threads, config.inter_op_parallelism_threads = threads, 1
        graph = tf.Graph()
        self._session = v1.Session(graph=graph, config=config)
        with graph.as_default():
            meta_graph = v1.saved_model.loader.load(self._session, ["serve"], model)
        signature = meta_graph.signature_def[tftrt_api.SIGNATURE]
        tensor = graph.get_tensor_by_name(signature.inputs[tftrt_api.INPUT].name)
        names = model_outputs.sorted_names(signature.outputs)
        outputs = [graph.get_tensor_by_name(signature.outputs[name].name) for name in names]
        self.input = model_outputs.described(tftrt_api.INPUT, tensor)
        self.outputs = [model_outputs.described(name, output) for name, output in zip(names, outputs)]
        self._dtype = tensor.dtype.as_numpy_dtype
        self._run = self._session.make_callable(outputs if len(outputs) > 1 else outputs[0], [tensor])
        self._array = None  # type: Any

    def set_inputs(self, array):
        # type: (Any) -> None
        self._array = array.astype(self._dtype)

    def prepared(self):
        # type: () -> Callable[[], Any]
        run, array = self._run, self._array

        def inference():
            # type: () -> Any
            return run(array)

        return inference
