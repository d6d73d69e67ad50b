"""TensorRT 8, 10 and 11 behind one face.

What a release can do is found by looking at what it has, never by its version: tensors by name or numbered bindings, precision by flags
of the builder or by the types in the graph, a calibrator or Q/DQ pairs. Everything here takes the module ``trt``, so that another build
of the same bindings (the lean runtime) can be handed in.
"""

import json
import re
import sys
from collections import namedtuple
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple  # noqa: F401

from .failures import AgentError, BuildError, LoadError, OutOfMemory, Unsupported, speaks_of_memory  # noqa: F401

BUILDER_FLAGS = {"fp16": "FP16", "int8": "INT8"}
MAXIMUM_PROBLEMS = 3

Tensor = namedtuple("Tensor", ["name", "is_input", "shape", "dtype"])  # dtype in NumPy's words

# trt.nptype is not used: in releases of TensorRT 8 it asks NumPy for names that NumPy no longer has.
NUMPY_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def import_tensorrt():
    # type: () -> Any
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        if error.name == "tensorrt":
            raise Unsupported("the Python package tensorrt is not installed here: JetPack and NVIDIA's packages bring it")
        raise LoadError("TensorRT's Python package is incomplete: it asks for the module %s" % error.name)
    except (ImportError, OSError) as error:
        raise LoadError(library_sentence(error))
    return tensorrt


def library_sentence(error):
    # type: (BaseException) -> str
    """What is wrong with the libraries below the bindings, and what to do: one that is missing, or one of another release."""
    text = " ".join(str(error).split())
    match = re.search(r"(lib[\w+-]+\.so(?:\.\d+)*)", text)
    library = match.group(1) if match else "one of its libraries"
    if "cannot open shared object file" in text or "could not find" in text.lower():
        return (
            "TensorRT's Python bindings are installed, but %s is missing: install the library that belongs to them, "
            "or name its folder in LD_LIBRARY_PATH" % library
        )
    return (
        "TensorRT's Python bindings do not fit the libraries that are installed (%s): install bindings and libraries of one release"
        % text[:300]
    )


# What TensorRT says


def new_logger(trt):
    # type: (Any) -> Any
    """A logger that prints to standard error, which is the stage's log, and keeps the errors and the placing of layers."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self):
            # type: () -> None
            trt.ILogger.__init__(self)
            self.problems = []  # type: List[str]
            self.placed = {}  # type: Dict[str, List[str]]

        def log(self, severity, message):
            # type: (Any, str) -> None
            level = int(severity)
            if level <= int(trt.ILogger.Severity.ERROR):
                self.problems.append(" ".join(message.split()))
            match = re.search(r"\[(Dla|Gpu)Layer\] (.*)", message)
            if match:
                self.placed.setdefault(match.group(1).upper(), []).append(match.group(2).strip())
            if level <= int(trt.ILogger.Severity.INFO):
                sys.stderr.write("[TensorRT %s] %s\n" % ("FEWIV"[min(level, 4)], message))

        def words(self):
            # type: () -> str
            """The first errors as the end of a sentence; the first one names the cause, later ones what came of it."""
            if not self.problems:
                return "it logged no error"
            shown = "; ".join(self.problems[:MAXIMUM_PROBLEMS])
            more = len(self.problems) - MAXIMUM_PROBLEMS
            return shown + (" (and %d more)" % more if more > 0 else "")

        def failure(self, doing, kind):
            # type: (str, type) -> AgentError
            """What to raise when TensorRT answered with nothing."""
            for problem in self.problems:
                if speaks_of_memory(problem):
                    return OutOfMemory("TensorRT ran out of memory while %s: %s" % (doing, problem))
            error = kind("TensorRT failed while %s: %s" % (doing, self.words()))  # type: AgentError
            return error

    return Logger()


def create(factory, logger, doing):
    # type: (Callable[..., Any], Any, str) -> Any
    """``factory(logger)``; the bindings raise TypeError where the library gave them a null pointer (no device, another release)."""
    try:
        made = factory(logger)
    except TypeError as error:
        if "nullptr" not in str(error):
            raise
        made = None
    if made is None:
        raise logger.failure(doing, LoadError)
    return made


# Building

Plan = namedtuple("Plan", ["precision", "batch", "shape", "dtype", "workspace_bytes", "dla_core", "timing_cache"])


def has_flag(trt, precision):
    # type: (Any, str) -> bool
    """Whether the builder of this release lowers a float network to this precision by itself, with calibration where needed."""
    if precision == "int8" and not hasattr(trt, "IInt8EntropyCalibrator2"):
        return False
    return precision == "fp32" or getattr(trt.BuilderFlag, BUILDER_FLAGS[precision], None) is not None


def network_flags(trt, strongly_typed):
    # type: (Any, bool) -> int
    """The flags that this release knows: their numbers differ between releases, and one that is gone is always on."""
    flags = 0
    for name in ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if strongly_typed else []):
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def build(trt, logger, path, plan, calibrator):
    # type: (Any, Any, str, Plan, Any) -> Tuple[bytes, bytes, Dict[str, Any]]
    """The engine and the timing cache of the ONNX file ``path``, and details. ``calibrator()`` makes one where it is needed."""
    by_flag = has_flag(trt, plan.precision)
    builder = create(trt.Builder, logger, "starting the builder")
    network = builder.create_network(network_flags(trt, plan.precision != "fp32" and not by_flag))
    if network is None:
        raise logger.failure("creating a network", BuildError)
    parser = trt.OnnxParser(network, logger)  # has to outlive the network: it holds the weights
    if not parser.parse_from_file(path):
        raise BuildError("TensorRT cannot take the model: %s" % (parser_words(parser) or logger.words()))
    if network.num_inputs != 1:
        raise BuildError("the model has %d inputs, and one is expected" % network.num_inputs)
    tensor = network.get_input(0)

    config = builder.create_builder_config()
    details = {"typing": "builder flags" if by_flag else "strongly typed", "tf32": False}  # type: Dict[str, Any]
    config.clear_flag(trt.BuilderFlag.TF32)  # which is on by default, and would make fp32 mean another thing on each GPU
    _limit_workspace(trt, config, plan.workspace_bytes)
    _say_layers(trt, config)
    profile = _profile(builder, config, tensor, plan)
    if plan.dla_core is not None:
        _use_dla(trt, builder, config, plan.dla_core)
    details["timing_cache"] = _start_timing_cache(config, plan.timing_cache)

    reader = None
    if by_flag and plan.precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    elif by_flag and plan.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
        if is_quantized(trt, network):
            details["quantization"] = "Q/DQ pairs in the source"
        else:
            reader = calibrator()
            config.int8_calibrator = reader
            details["quantization"] = "entropy calibrator"
            if profile is not None:
                config.set_calibration_profile(profile)
    elif plan.precision == "int8":
        details["quantization"] = "Q/DQ pairs in the graph"

    serialized = builder.build_serialized_network(network, config)
    if reader is not None:
        if reader.error is not None:
            raise reader.error
        details["calibration_batches"] = reader.taken
    if serialized is None:
        raise logger.failure("building the engine", BuildError)
    cache = config.get_timing_cache()
    return bytes(serialized), b"" if cache is None else bytes(cache.serialize()), details


def parser_words(parser):
    # type: (Any) -> str
    """The parser's own errors in one line: which node, which operator, why."""
    errors = []
    for index in range(int(parser.num_errors)):
        error = parser.get_error(index)
        number = int(error.node())
        where = "" if number < 0 else "node %d" % number
        if hasattr(error, "node_operator"):
            operator, name = str(error.node_operator()), str(error.node_name())
            where += " (%s%s)" % (operator, " %r" % name if name else "") if operator else ""
        text = " ".join(str(error.desc()).split())
        line = "%s: %s" % (where, text) if where else text
        if line not in errors:
            errors.append(line)
    shown = "; ".join(errors[:MAXIMUM_PROBLEMS])
    return shown + (" (and %d more)" % (len(errors) - MAXIMUM_PROBLEMS) if len(errors) > MAXIMUM_PROBLEMS else "")


def is_quantized(trt, network):
    # type: (Any, Any) -> bool
    return any(network.get_layer(index).type == trt.LayerType.QUANTIZE for index in range(network.num_layers))


def _limit_workspace(trt, config, size):
    # type: (Any, Any, Optional[int]) -> None
    """Without a limit the builder takes what the device has, which on a board is what the rest of the system has, too."""
    if size is None:
        return
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    else:
        config.max_workspace_size = size


def _say_layers(trt, config):
    # type: (Any, Any) -> None
    """Let the engine keep what its inspector tells of layers; it costs no time in inference."""
    detailed = getattr(getattr(trt, "ProfilingVerbosity", None), "DETAILED", None)
    if detailed is not None:
        config.profiling_verbosity = detailed


def _profile(builder, config, tensor, plan):
    # type: (Any, Any, Any, Plan) -> Any
    """The optimization profile that an input of unknown size needs; None for a fixed one, which has to be the case's."""
    shape, wanted = [int(size) for size in tensor.shape], [plan.batch] + list(plan.shape)
    fits = len(shape) == len(wanted) and all(size in (-1, want) for size, want in zip(shape, wanted))
    if not fits:
        raise BuildError(
            "the model's input %r has the shape %s, and the case needs %s" % (str(tensor.name), _text(shape), _text(wanted))
        )
    if -1 not in shape:
        return None
    profile = builder.create_optimization_profile()
    profile.set_shape(str(tensor.name), tuple(wanted), tuple(wanted), tuple(wanted))
    config.add_optimization_profile(profile)
    return profile


def _text(shape):
    # type: (List[int]) -> str
    return "x".join("?" if size == -1 else str(size) for size in shape)


def _use_dla(trt, builder, config, core):
    # type: (Any, Any, Any, int) -> None
    cores = int(builder.num_DLA_cores)
    if core >= cores:
        raise Unsupported("the DLA core %d is asked for, and this device has %s" % (core, cores or "none"))
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # which makes a fall-back a result, not an error


def _start_timing_cache(config, content):
    # type: (Any, bytes) -> str
    """With an earlier build's timings the builder chooses the same kernels again; those of another device or release it refuses."""
    if content:
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return "continued"
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return "refused by this release or device, and started anew" if content else "started"


def new_calibrator(trt, batches, size, dtype, device):
    # type: (Any, Iterator[Any], int, str, Any) -> Any
    """Feeds ``batches`` (float32 arrays of ``size`` pictures) to the builder from device memory.

    No exception leaves its methods, since it would have to pass through the builder's own frames; ``error`` keeps it.
    """

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self):
            # type: () -> None
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.error = None  # type: Optional[Exception]
            self.taken = 0
            self._buffer = None  # type: Any

        def get_batch_size(self):
            # type: () -> int
            return size

        def get_batch(self, names):
            # type: (List[str]) -> Optional[List[int]]
            try:
                batch = next(batches, None)
                if batch is None:
                    return None
                batch = batch.astype(dtype, order="C")
                if self._buffer is None:
                    self._buffer = device.allocate(batch.nbytes)
                device.upload(self._buffer, batch)
            except Exception as error:
                self.error = error
                return None
            self.taken += 1
            return [int(self._buffer)]

        def read_calibration_cache(self):
            # type: () -> None
            return None  # the pictures are part of what the artifact is made of; no scale comes from anywhere else

        def write_calibration_cache(self, cache):
            # type: (Any) -> None
            return None

    return Calibrator()


# Coverage


def coverage(placement, version):
    # type: (Dict[str, Any], str) -> Optional[Dict[str, Any]]
    """What :func:`placement` found, as every backend tells it (docs/reference/agent-protocol.md); None where this release tells nothing.

    What is counted are the engine's own layers: several of the graph can be one of them, and all that a DLA takes in one piece is one.
    """
    wanted = placement["wanted"]
    total = sum(placement["devices"].values())
    if not total:
        return None
    on_accelerator = placement["devices"].get(wanted, 0)
    kinds = {layer["name"]: layer["type"] for layer in placement["layers"]}
    counted = {}  # type: Dict[str, int]
    for name in placement["fallback"]:
        # The log writes the type before the name ("SOFTMAX: Softmax_20"), the inspector knows it by the name.
        before, separator, _ = name.partition(": ")
        kind = before if separator else kinds.get(name) or name
        counted[kind] = counted.get(kind, 0) + 1
    return {
        "accelerator": "dla" if wanted == "DLA" else "tensorrt",
        "on_accelerator": on_accelerator,
        "elsewhere": total - on_accelerator,
        "parts": on_accelerator if wanted == "DLA" else 1,
        "off_chip_bytes": None,
        "elsewhere_by_operation": [
            {"operation": kind, "count": count, "reason": "the builder placed it on the GPU"}
            for kind, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:50]
        ],
        "native_segments": None,
        "source": "TensorRT %s (%s)" % (version, placement["source"]),
    }


def placement(trt, engine, logger, dla_core):
    # type: (Any, Any, Any, Optional[int]) -> Dict[str, Any]
    """How many layers of the engine run on each device: ``{"devices": {"GPU": 12, "DLA": 1}, "layers": [...], "source": ...}``.

    The build log is asked first, which names the device of each layer where a DLA was asked for; else the engine's inspector.
    """
    layers = inspected_layers(trt, engine)
    if logger.placed and dla_core is not None:
        placed = [(name, device) for device in sorted(logger.placed) for name in logger.placed[device]]
        source = "build log"
    elif layers is not None:
        placed = [(name, "DLA" if kind == "DLA" else "GPU") for name, kind in layers]
        source = "engine inspector"
    else:
        placed, source = [], "unknown"
    devices = {}  # type: Dict[str, int]
    for _, device in placed:
        devices[device] = devices.get(device, 0) + 1
    return {
        "wanted": "GPU" if dla_core is None else "DLA",
        "devices": devices,
        "fallback": [name for name, device in placed if dla_core is not None and device != "DLA"],
        "layers": [{"name": name, "type": kind} for name, kind in layers or []],
        "source": source,
    }


def inspected_layers(trt, engine):
    # type: (Any, Any) -> Optional[List[Tuple[str, str]]]
    """Names and types of the engine's layers; None where this release cannot tell. Types are empty in an engine that kept names alone."""
    if not hasattr(engine, "create_engine_inspector"):
        return None
    inspector = engine.create_engine_inspector()
    try:
        document = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    except ValueError:  # some releases print a number as JSON cannot hold it
        return None
    found = []
    for layer in document.get("Layers", []):
        if isinstance(layer, dict):
            found.append((str(layer.get("Name", "")), str(layer.get("LayerType", ""))))
        else:
            found.append((str(layer), ""))
    return found


# Running


def deserialize(trt, logger, content, dla_core=None):
    # type: (Any, Any, bytes, Optional[int]) -> Tuple[Any, Any]
    """The runtime, which has to outlive the engine, and the engine. A foreign one is refused in TensorRT's own words."""
    runtime = create(trt.Runtime, logger, "starting the runtime")
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        failure = logger.failure("loading the engine", LoadError)
        if isinstance(failure, LoadError):
            failure = LoadError(
                "TensorRT %s does not take this engine, so it has to be built again with this release on this device: %s"
                % (trt.__version__, logger.words())
            )
        raise failure
    return runtime, engine


def open_engine(trt, engine, logger):
    # type: (Any, Any, Any) -> Any
    """Its execution, by named tensors where the release has them, else by bindings."""
    context = engine.create_execution_context()
    if context is None:
        raise logger.failure("creating the execution context", LoadError)
    kind = NamedTensors if hasattr(engine, "num_io_tensors") else Bindings
    return kind(trt, engine, context)


def _numpy_name(dtype):
    # type: (Any) -> str
    name = str(getattr(dtype, "name", dtype))
    if name not in NUMPY_NAMES:
        raise LoadError("the engine has a tensor of the type %s, which NumPy does not have" % name)
    return NUMPY_NAMES[name]


class NamedTensors:
    """TensorRT 8.5 and later."""

    def __init__(self, trt, engine, context):
        # type: (Any, Any, Any) -> None
        self._trt, self._engine, self._context = trt, engine, context
        self._names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]

    def _is_input(self, name):
        # type: (str) -> bool
        return bool(self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT)

    def input_names(self):
        # type: () -> List[str]
        return [name for name in self._names if self._is_input(name)]

    def set_input_shape(self, name, shape):
        # type: (str, List[int]) -> bool
        return bool(self._context.set_input_shape(name, tuple(shape)))

    def tensors(self):
        # type: () -> List[Tensor]
        """With the shapes that follow from the input's."""
        return [
            Tensor(
                str(name),
                self._is_input(name),
                [int(size) for size in self._context.get_tensor_shape(name)],
                _numpy_name(self._engine.get_tensor_dtype(name)),
            )
            for name in self._names
        ]

    def enqueuer(self, addresses, stream_handle):
        # type: (Dict[str, int], int) -> Callable[[], Any]
        """What puts one inference into the stream; it returns False where TensorRT refuses."""
        for name in self._names:
            if not self._context.set_tensor_address(name, addresses[name]):
                raise LoadError("TensorRT refused the address of the tensor %r" % name)
        execute = self._context.execute_async_v3

        def enqueue():
            # type: () -> Any
            return execute(stream_handle)

        return enqueue


class Bindings:
    """TensorRT up to 8.4, and 8.5 to 9 beside the names."""

    def __init__(self, trt, engine, context):
        # type: (Any, Any, Any) -> None
        self._engine, self._context = engine, context
        self._names = [engine.get_binding_name(index) for index in range(engine.num_bindings)]

    def input_names(self):
        # type: () -> List[str]
        return [name for index, name in enumerate(self._names) if self._engine.binding_is_input(index)]

    def set_input_shape(self, name, shape):
        # type: (str, List[int]) -> bool
        return bool(self._context.set_binding_shape(self._names.index(name), tuple(shape)))

    def tensors(self):
        # type: () -> List[Tensor]
        return [
            Tensor(
                str(name),
                bool(self._engine.binding_is_input(index)),
                [int(size) for size in self._context.get_binding_shape(index)],
                _numpy_name(self._engine.get_binding_dtype(index)),
            )
            for index, name in enumerate(self._names)
        ]

    def enqueuer(self, addresses, stream_handle):
        # type: (Dict[str, int], int) -> Callable[[], Any]
        bindings = [addresses[name] for name in self._names]
        execute = self._context.execute_async_v2

        def enqueue():
            # type: () -> Any
            return execute(bindings, stream_handle)

        return enqueue
