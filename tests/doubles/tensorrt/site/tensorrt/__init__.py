"""A double of TensorRT's Python bindings that builds and runs for real, on the CPU: its engines hold the ONNX graph, ONNX Runtime runs it.

DOUBLE_STYLE says which release it is like: ``8.2`` (bindings by number alone, a workspace size), ``8.6`` (names and numbers), ``10`` (names
alone, builder flags and the calibrator still there, strongly typed networks) or ``11`` (names alone, precision by the graph alone). What
a release does not have is not there. ``tests/contract`` holds every name against the real bindings.

Precisions are real: half floats are computed as such, and integers with the scales that follow from the batches of the calibrator.
Errors are those of the real thing: null pointers with a logged reason. DOUBLE_FAULT asks for one: ``no_library``, ``wrong_library``,
``abort``, ``oom``, ``no_implementation``.
"""

from __future__ import annotations

import os

_FAULT = os.environ.get("DOUBLE_FAULT") or ""
if _FAULT == "no_library":
    raise ImportError("libnvinfer.so.10: cannot open shared object file: No such file or directory")
if _FAULT == "wrong_library":
    raise ImportError(f"{__file__}: undefined symbol: _ZN8nvinfer121getNvOnnxParserVersionEv")

import enum
import hashlib
import json
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import simulated_cuda

_STYLE = os.environ.get("DOUBLE_STYLE") or "10"
_BY_NAME, _BY_NUMBER = _STYLE != "8.2", _STYLE in ("8.2", "8.6")
_WEAK, _STRONG = _STYLE != "11", _STYLE in ("10", "11")
__version__ = os.environ.get("DOUBLE_VERSION") or {"8.2": "8.2.1.8", "8.6": "8.6.1", "10": "10.3.0", "11": "11.4.0"}[_STYLE]

_MAGIC = b"ftrt"
_SMALLEST_WORKSPACE = 2**16
_NOT_IN_THE_PARSER = {"Det", "Unique", "StringNormalizer", "TfIdfVectorizer"}
_NOT_ON_A_DLA = {"Softmax", "Transpose", "Cast", "Identity", "Shape", "Gather"}


def _enum(name, *members):
    return enum.IntEnum(name, {member: number for number, member in enumerate(members)}, module=__name__)


_weak_flags = ("FP16", "INT8") if _WEAK else ()
BuilderFlag = _enum("BuilderFlag", *_weak_flags, "GPU_FALLBACK", "TF32")
NetworkDefinitionCreationFlag = _enum(
    "NetworkDefinitionCreationFlag", *(["EXPLICIT_BATCH"] if _WEAK else []), *(["STRONGLY_TYPED"] if _STRONG else [])
)
DeviceType = _enum("DeviceType", "GPU", "DLA")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE", "JSON")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", *(["INT64"] if _STRONG else []))
LayerType = _enum(
    "LayerType",
    *("CONVOLUTION", "ACTIVATION", "POOLING", "SOFTMAX", "ELEMENTWISE", "SHUFFLE", "REDUCE", "MATRIX_MULTIPLY"),
    *("QUANTIZE", "DEQUANTIZE", "CAST", "CONSTANT"),
)
if _BY_NAME:
    MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
    TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")

_LAYERS = {
    "Conv": LayerType.CONVOLUTION,
    "Relu": LayerType.ACTIVATION,
    "Softmax": LayerType.SOFTMAX,
    "QuantizeLinear": LayerType.QUANTIZE,
    "DequantizeLinear": LayerType.DEQUANTIZE,
    "MatMul": LayerType.MATRIX_MULTIPLY,
    "Gemm": LayerType.MATRIX_MULTIPLY,
    "Reshape": LayerType.SHUFFLE,
    "Transpose": LayerType.SHUFFLE,
    "GlobalAveragePool": LayerType.POOLING,
    "MaxPool": LayerType.POOLING,
    "ReduceMean": LayerType.REDUCE,
    "Cast": LayerType.CAST,
    "Constant": LayerType.CONSTANT,
}
_TYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64" if _STRONG else "INT32",
    "bool": "BOOL",
}


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self):
        self._constructed = True

    def log(self, severity, msg):
        raise NotImplementedError('Tried to call pure virtual function "nvinfer1::ILogger::log"')


def _logger(value):
    if not isinstance(value, ILogger):
        raise TypeError(
            "__init__(): incompatible constructor arguments. The following argument types are supported: (logger: ILogger)"
        )
    if not getattr(value, "_constructed", False):
        raise TypeError("tensorrt.ILogger.__init__() must be called when overriding __init__")
    return value


def _start(logger):
    logger = _logger(logger)
    if simulated_cuda.STATUS or not simulated_cuda.DEVICES:
        number = simulated_cuda.STATUS or 100
        logger.log(
            ILogger.Severity.ERROR,
            f"CUDA initialization failure with error: {number}. Please check your CUDA installation.",
        )
        raise TypeError("pybind11::init(): factory function returned nullptr")
    return logger


class IHostMemory:
    def __init__(self, content):
        self._content = content

    def __bytes__(self):  # the real one has the buffer protocol, which a class of Python's own has from 3.12 on
        return self._content


# Networks


class ITensor:
    __slots__ = ("_name", "_shape")

    def __init__(self, name, shape):
        self._name, self._shape = name, shape

    @property
    def name(self):
        return self._name

    @property
    def shape(self):
        return self._shape


class ILayer:
    __slots__ = ("_type",)

    def __init__(self, type):
        self._type = type

    @property
    def type(self):
        return self._type


class INetworkDefinition:
    __slots__ = ("_model", "_strong")

    def __init__(self, strong):
        self._strong, self._model = strong, None

    def _inputs(self):
        weights = {tensor.name for tensor in self._model.graph.initializer}
        return [value for value in self._model.graph.input if value.name not in weights]

    @property
    def num_inputs(self):
        return len(self._inputs())

    @property
    def num_layers(self):
        return len(self._model.graph.node)

    def get_input(self, index):
        value = self._inputs()[index]
        sizes = value.type.tensor_type.shape.dim
        return ITensor(value.name, tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes))

    def get_layer(self, index):
        return ILayer(_LAYERS.get(self._model.graph.node[index].op_type, LayerType.ELEMENTWISE))


class ParserError:
    def __init__(self, index, node, text):
        self._index, self._node, self._text = index, node, text

    def desc(self):
        return self._text

    def node(self):
        return self._index

    if _STRONG:

        def node_name(self):
            return self._node.name if self._node is not None else ""

        def node_operator(self):
            return self._node.op_type if self._node is not None else ""


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._logger, self._errors = network, _logger(logger), []

    def parse_from_file(self, model):
        try:
            parsed = onnx.load(model)
            onnx.checker.check_model(parsed)
        except Exception:  # whatever onnx says of it, TensorRT's parser says this
            self._add(-1, None, "Failed to parse the ONNX model: it is not a ModelProto that this parser knows")
            return False
        for index, node in enumerate(parsed.graph.node):
            if node.op_type in _NOT_IN_THE_PARSER:
                self._add(
                    index,
                    node,
                    f"No importer registered for op: {node.op_type}.\nAttempted to import as plugin.\n"
                    "Plugin not found, are the plugin name, version, and namespace correct?",
                )
        if not self._errors:
            self._network._model = parsed
        return not self._errors

    def _add(self, index, node, text):
        self._errors.append(ParserError(index, node, text))
        self._logger.log(ILogger.Severity.ERROR, f"ModelImporter.cpp: {text}")

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


# Configuration


class IOptimizationProfile:
    __slots__ = ("_shapes",)

    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        if not len(min) == len(opt) == len(max) or any(not a <= b <= c for a, b, c in zip(min, opt, max)):
            raise ValueError("the shapes of a profile have to be ordered")
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class ITimingCache:
    __slots__ = ("_device", "_entries")

    def __init__(self, device, entries):
        self._device, self._entries = device, entries

    def serialize(self):
        return IHostMemory(json.dumps({"device": self._device, "entries": sorted(self._entries)}).encode())


def _this_device():
    return [__version__, simulated_cuda.SM, simulated_cuda.NAME]


class IInt8EntropyCalibrator2:
    def __init__(self):
        self._constructed = True

    def get_batch_size(self):
        raise NotImplementedError

    def get_batch(self, names):
        raise NotImplementedError

    def read_calibration_cache(self):
        raise NotImplementedError

    def write_calibration_cache(self, cache):
        raise NotImplementedError


class IBuilderConfig:
    __slots__ = ("_cache", "_calibrator", "_core", "_device", "_flags", "_logger", "_profiles", "_verbosity", "_workspace")

    def __init__(self, logger):
        self._logger, self._flags, self._profiles = logger, {BuilderFlag.TF32}, []
        self._cache = self._calibrator = self._workspace = None
        self._device, self._core, self._verbosity = DeviceType.GPU, -1, ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag):
        self._flags.add(BuilderFlag(flag))

    def clear_flag(self, flag):
        self._flags.discard(BuilderFlag(flag))

    @property
    def profiling_verbosity(self):
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, value):
        self._verbosity = ProfilingVerbosity(value)

    @property
    def default_device_type(self):
        return self._device

    @default_device_type.setter
    def default_device_type(self, value):
        self._device = DeviceType(value)

    @property
    def DLA_core(self):  # noqa: N802
        return self._core

    @DLA_core.setter
    def DLA_core(self, value):  # noqa: N802
        self._core = value

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        if not serialized_timing_cache:
            return ITimingCache(_this_device(), set())
        try:
            document = json.loads(bytes(serialized_timing_cache).decode())
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Error Code 1: Serialization (the timing cache cannot be read)")
            return None
        return ITimingCache(document["device"], set(document["entries"]))

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._device != _this_device() and not ignore_mismatch:
            self._logger.log(ILogger.Severity.WARNING, "The timing cache was made by another version or on another device.")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache

    if _BY_NAME:

        def set_memory_pool_limit(self, pool, pool_size):
            self._workspace = (MemoryPoolType(pool), pool_size)[1]

    else:

        @property
        def max_workspace_size(self):
            return self._workspace

        @max_workspace_size.setter
        def max_workspace_size(self, value):
            self._workspace = value

    if _WEAK:

        @property
        def int8_calibrator(self):
            return self._calibrator

        @int8_calibrator.setter
        def int8_calibrator(self, value):
            if not isinstance(value, IInt8EntropyCalibrator2) or not getattr(value, "_constructed", False):
                raise TypeError("(): incompatible function arguments: IInt8Calibrator is expected")
            self._calibrator = value

        def set_calibration_profile(self, profile):
            return profile is not None


if not _WEAK:
    del IInt8EntropyCalibrator2


# Building


class _Refused(Exception):
    """The builder's reason, for the logger."""


class Builder:
    __slots__ = ("_logger",)

    def __init__(self, logger):
        self._logger = _start(logger)

    @property
    def num_DLA_cores(self):  # noqa: N802
        return simulated_cuda.DLA_CORES

    def create_network(self, flags=0):
        known = sum(1 << int(flag) for flag in NetworkDefinitionCreationFlag)
        if flags & ~known:
            raise ValueError(f"unknown flags {flags & ~known:#x}")
        strong = NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
        return INetworkDefinition(not _WEAK or (strong is not None and bool(flags & 1 << strong)))

    def create_builder_config(self):
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        if _FAULT == "abort":
            sys.stderr.write("[TensorRT] Assertion failed: mNbTactics > 0\nterminate called without an active exception\n")
            sys.stderr.flush()
            os.abort()
        try:
            return IHostMemory(self._build(network, config))
        except _Refused as reason:
            self._logger.log(ILogger.Severity.ERROR, str(reason))
            self._logger.log(
                ILogger.Severity.ERROR, "Error Code 2: Internal Error (Assertion engine != nullptr failed.)"
            )  # what comes of it
            return None

    def _build(self, network, config):
        if _FAULT == "oom":
            raise _Refused("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)")
        first = network._model.graph.node[0]
        if _FAULT == "no_implementation" or (config._workspace is not None and config._workspace < _SMALLEST_WORKSPACE):
            raise _Refused(f"Error Code 10: Internal Error (Could not find any implementation for node {first.name}.)")
        shape = network.get_input(0).shape
        if -1 in shape:
            if not config._profiles:
                raise _Refused(
                    "Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no optimization profile.)"
                )
            shape = config._profiles[0]._shapes[network.get_input(0).name][1]
        model = self._lowered(network, config, shape)
        if config._cache is not None:
            config._cache._entries.update(_entry(node) for node in model.graph.node)
        header = {
            "version": __version__,
            "sm": simulated_cuda.SM,
            "gpu": simulated_cuda.NAME,
            "profile": {name: list(shapes) for profile in config._profiles for name, shapes in profile._shapes.items()},
            "layers": self._placed(model, config),
        }
        text = json.dumps(header).encode()
        return _MAGIC + len(text).to_bytes(4, "little") + text + model.SerializeToString()

    def _lowered(self, network, config, shape):
        """The graph in the precision that flags, calibrator and types ask for."""
        if not _WEAK:
            return network._model
        half, integers = BuilderFlag.FP16 in config._flags, BuilderFlag.INT8 in config._flags
        if network._strong:
            if half or integers:
                raise _Refused("Error Code 3: API Usage Error (precision flags are not allowed in a strongly typed network.)")
            return network._model
        quantized = any(node.op_type == "QuantizeLinear" for node in network._model.graph.node)
        if quantized and not integers:
            raise _Refused(
                "Error Code 4: API Usage Error (Int8 precision has been set for a layer or layer output, "
                "but int8 is not configured in the builder)"
            )
        if integers and not quantized:
            if config._calibrator is None:
                raise _Refused(
                    "Error Code 4: Internal Error (Calibration failure occurred with no scaling factors detected. "
                    "This could be due to no int8 calibrator or insufficient custom scales for network layers.)"
                )
            return _quantized(network, config._calibrator, shape)
        if half:
            from onnxruntime.transformers.float16 import convert_float_to_float16

            return convert_float_to_float16(network._model, keep_io_types=True)
        return network._model

    def _placed(self, model, config):
        """Each layer of the engine with its device; runs of layers on a DLA become one."""
        layers, run = [], []

        def close():
            if run:
                layers.append({"Name": f"{{ForeignNode[{run[0].name}...{run[-1].name}]}}", "LayerType": "DLA"})
                run.clear()

        for node in model.graph.node:
            if config._device == DeviceType.DLA and node.op_type not in _NOT_ON_A_DLA:
                run.append(node)
                continue
            close()
            if config._device == DeviceType.DLA:
                if BuilderFlag.GPU_FALLBACK not in config._flags:
                    raise _Refused(f"Error Code 4: Internal Error ({node.name}: not supported on DLA and fallback to GPU is off)")
                self._logger.log(
                    ILogger.Severity.WARNING,
                    f"Layer '{node.name}' ({node.op_type.upper()}): Unsupported on DLA. Switching this layer's device type to GPU.",
                )
            layers.append({"Name": node.name, "LayerType": node.op_type})
        close()
        if config._device == DeviceType.DLA:
            for device, title in (("DLA", "DlaLayer"), ("GPU", "GpuLayer")):
                self._logger.log(ILogger.Severity.INFO, f"---------- Layers Running on {device} ----------")
                for layer in layers:
                    if (layer["LayerType"] == "DLA") == (device == "DLA"):
                        self._logger.log(ILogger.Severity.INFO, f"[{title}] {layer['Name']}")
        detailed = config._verbosity == ProfilingVerbosity.DETAILED
        return layers if detailed else [layer["Name"] for layer in layers]


def _entry(node):
    return hashlib.sha256(node.op_type.encode() + b"".join(a.SerializeToString() for a in node.attribute)).hexdigest()


def _quantized(network, calibrator, shape):
    """The graph with scales from what the calibrator puts into device memory."""
    from onnxruntime import quantization

    name = network.get_input(0).name
    calibrator.read_calibration_cache()
    if calibrator.get_batch_size() != shape[0]:
        raise _Refused("Error Code 2: Internal Error (the calibrator's batch size is not the profile's)")
    batches = []
    while True:
        addresses = calibrator.get_batch([name])
        if not addresses:
            break
        size = int(numpy.prod(shape)) * 4
        content = bytes(simulated_cuda.memory.view(addresses[0], size))
        batches.append({name: numpy.frombuffer(content, numpy.float32).reshape(shape)})
    if not batches:
        raise _Refused("Error Code 2: Internal Error (calibration data is empty)")
    calibrator.write_calibration_cache(memoryview(b"TRT-EntropyCalibration2"))

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            return batches.pop(0) if batches else None

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(network._model, f"{folder}/float.onnx")
        quantization.quantize_static(
            f"{folder}/float.onnx",
            f"{folder}/integer.onnx",
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return onnx.load(f"{folder}/integer.onnx")


# Running


class Runtime:
    __slots__ = ("_core", "_logger")

    def __init__(self, logger):
        self._logger, self._core = _start(logger), -1

    @property
    def DLA_core(self):  # noqa: N802
        return self._core

    @DLA_core.setter
    def DLA_core(self, value):  # noqa: N802
        self._core = value

    def deserialize_cuda_engine(self, serialized_engine):
        content = bytes(serialized_engine)
        reason = None
        if content[:4] != _MAGIC:
            reason = "Error Code 1: Serialization (Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.)"
        else:
            length = int.from_bytes(content[4:8], "little")
            header = json.loads(content[8 : 8 + length])
            if header["version"] != __version__:
                reason = (
                    f"The engine plan file is not compatible with this version of TensorRT, expecting library version {__version__} "
                    f"got {header['version']}, please rebuild."
                )
                reason = f"Error Code 6: API Usage Error ({reason})" if _STRONG else reason
            elif header["sm"] != simulated_cuda.SM:
                reason = (
                    "The engine plan file is generated on an incompatible device, "
                    f"expecting compute {simulated_cuda.SM} got compute {header['sm']}, please rebuild."
                )
            elif header["gpu"] != simulated_cuda.NAME:
                self._logger.log(
                    ILogger.Severity.WARNING,
                    "Using an engine plan file across different models of devices is not recommended "
                    "and is likely to affect performance or even cause errors.",
                )
        if reason:
            self._logger.log(ILogger.Severity.ERROR, reason)
            self._logger.log(ILogger.Severity.ERROR, "Error Code 4: Internal Error (Engine deserialization failed.)")
            return None
        return ICudaEngine(self._logger, header, content[8 + length :])


class ICudaEngine:
    __slots__ = ("_dtypes", "_header", "_logger", "_modes", "_names", "_session")

    def __init__(self, logger, header, graph):
        self._logger, self._header = logger, header
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._names = [tensor.name for tensor in tensors]
        self._modes = dict(zip(self._names, [True] * len(self._session.get_inputs()) + [False] * len(tensors)))
        self._dtypes = {tensor.name: DataType[_TYPES[_numpy_name(tensor.type)]] for tensor in tensors}

    def create_execution_context(self):
        return IExecutionContext(self)

    def create_engine_inspector(self):
        return EngineInspector(self)

    if _BY_NAME:

        @property
        def num_io_tensors(self):
            return len(self._names)

        def get_tensor_name(self, index):
            return self._names[index]

        def get_tensor_mode(self, name):
            return TensorIOMode.INPUT if self._modes[name] else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return self._dtypes[name]

    if _BY_NUMBER:

        @property
        def num_bindings(self):
            return len(self._names)

        def get_binding_name(self, index):
            return self._names[index]

        def binding_is_input(self, index):
            return self._modes[self._names[index]]

        def get_binding_dtype(self, index):
            return self._dtypes[self._names[index]]


def _numpy_name(onnx_type):
    name = onnx_type[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(name, name)


class EngineInspector:
    def __init__(self, engine):
        self._engine = engine

    def get_engine_information(self, format):
        layers = self._engine._header["layers"]
        if LayerInformationFormat(format) == LayerInformationFormat.JSON:
            return json.dumps({"Layers": layers, "Bindings": self._engine._names})
        return "\n".join(str(layer) for layer in layers)


class IExecutionContext:
    __slots__ = ("_addresses", "_engine", "_shapes")

    def __init__(self, engine):
        self._engine, self._addresses, self._shapes = engine, {}, {}
        for tensor in engine._session.get_inputs():
            if all(isinstance(size, int) for size in tensor.shape):
                self._infer(tensor.name, tuple(tensor.shape))

    def _infer(self, name, shape):
        """The shapes of the outputs, as they follow from the input's."""
        session = self._engine._session
        outputs = session.run(None, {name: numpy.zeros(shape, _host_type(session.get_inputs()[0]))})
        self._shapes = {name: tuple(shape)}
        self._shapes.update((tensor.name, output.shape) for tensor, output in zip(session.get_outputs(), outputs))

    def _set_shape(self, name, shape):
        tensor = self._engine._session.get_inputs()[0]
        allowed = self._engine._header["profile"].get(name)
        fits = len(shape) == len(tensor.shape) and all(
            not isinstance(size, int) or size == want for size, want in zip(tensor.shape, shape)
        )
        if allowed:
            fits = fits and all(low <= want <= high for low, want, high in zip(allowed[0], shape, allowed[2]))
        if not fits:
            self._engine._logger.log(
                ILogger.Severity.ERROR,
                f"Error Code 3: API Usage Error (Parameter check failed: the shape {shape} of {name!r} is not in the profile)",
            )
            return False
        self._infer(name, tuple(shape))
        return True

    def _enqueue(self, addresses, stream_handle):
        engine, shapes = self._engine, dict(self._shapes)
        if stream_handle not in simulated_cuda.queues:
            engine._logger.log(ILogger.Severity.ERROR, "Error Code 1: Cuda Runtime (invalid resource handle)")
            return False

        def run():
            session = engine._session
            feed = {}
            for tensor in session.get_inputs():
                dtype = numpy.dtype(_host_type(tensor))
                shape = shapes[tensor.name]
                content = simulated_cuda.memory.view(addresses[tensor.name], int(numpy.prod(shape)) * dtype.itemsize)
                feed[tensor.name] = numpy.frombuffer(bytes(content), dtype).reshape(shape)
            for tensor, output in zip(session.get_outputs(), session.run(None, feed)):
                content = numpy.ascontiguousarray(output).tobytes()
                simulated_cuda.memory.view(addresses[tensor.name], len(content))[:] = content

        simulated_cuda.queues[stream_handle].put(run)
        return True

    if _BY_NAME:

        def set_input_shape(self, name, shape):
            return self._set_shape(name, shape)

        def get_tensor_shape(self, name):
            return self._shapes.get(name, (-1,))

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return name in self._engine._names

        def execute_async_v3(self, stream_handle):
            missing = [name for name in self._engine._names if name not in self._addresses]
            if missing:
                self._engine._logger.log(
                    ILogger.Severity.ERROR, f"Error Code 3: API Usage Error (Address is not set for tensor {missing[0]}.)"
                )
                return False
            return self._enqueue(dict(self._addresses), stream_handle)

    if _BY_NUMBER:

        def set_binding_shape(self, binding, shape):
            return self._set_shape(self._engine._names[binding], shape)

        def get_binding_shape(self, binding):
            return self._shapes.get(self._engine._names[binding], (-1,))

        def execute_async_v2(self, bindings, stream_handle):
            return self._enqueue(dict(zip(self._engine._names, bindings)), stream_handle)


def _host_type(tensor):
    return _numpy_name(tensor.type)
