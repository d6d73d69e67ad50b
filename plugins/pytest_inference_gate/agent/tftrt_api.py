"""TF-TRT's converters of TensorFlow 1.7 to 2.17 behind one face.

Which one there is, and how it is called, is found by looking at classes and signatures, never by the version: ``create_inference_graph``
of contrib, ``TrtGraphConverter`` for graphs, ``TrtGraphConverterV2`` with an object of parameters or with the parameters themselves.
"""

import inspect
import os
import shutil
from collections import namedtuple
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple  # noqa: F401

from . import model_outputs, tftrt_log
from .failures import AgentError, BuildError, LoadError, OutOfMemory, Unsupported, sentence_of, speaks_of_memory
from .gpu_memory import size

INPUT, OUTPUT, SIGNATURE = "input", "output", "serving_default"

WHERE_IT_IS = (
    "NVIDIA's TensorFlow for this JetPack brings TF-TRT up to TensorFlow 2.17; TensorFlow 2.18 and later have none, so use the backend "
    "tensorrt there"
)

# Operations that hold the range of a tensor, as quantization-aware training leaves them in a graph. TF-TRT takes no others.
RANGES = frozenset(["FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3"])
WITHOUT_DYNAMIC_SHAPE = (
    "this TensorFlow's TF-TRT has no use_dynamic_shape, which later releases have: leave it out of [options.tftrt], or upgrade "
    "TensorFlow"
)

# None stands for TensorFlow's own default.
Settings = namedtuple(
    "Settings",
    [
        "precision",
        "batch",
        "workspace_bytes",
        "minimum_segment_size",
        "maximum_cached_engines",
        "use_calibration",
        "use_dynamic_shape",
    ],
)
Settings.__new__.__defaults__ = (None,)
# Graph, name of its input tensor, names of its output tensors.
Graph = namedtuple("Graph", ["graph_def", "input", "outputs"])


def import_tensorflow(memory_limit=None):
    # type: (Optional[int]) -> Any
    """TensorFlow with its GPU, held to ``memory_limit`` bytes of it, without TF32, so that fp32 means the same on each GPU.

    What TF-TRT says is let through to the log.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"  # a fall-back is a warning, and says so nowhere else
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise Unsupported("TensorFlow is not installed here, and TF-TRT is a part of it: %s" % WHERE_IT_IS)
        raise
    if memory_limit is not None and is_eager(tf):
        _limit(tf, memory_limit)
    choose = getattr(getattr(getattr(tf, "config", None), "experimental", None), "enable_tensor_float_32_execution", None)
    if choose is not None:  # TF-TRT builds its engines by it too
        choose(False)
    return tf


def is_eager(tf):
    # type: (Any) -> bool
    return bool(hasattr(tf, "executing_eagerly") and tf.executing_eagerly())


def _limit(tf, memory_limit):
    # type: (Any, int) -> None
    """TensorFlow reserves what it is given at once, and TensorRT builds within that. To be said before the GPU is first used."""
    megabytes = memory_limit >> 20
    config = tf.config
    try:
        if hasattr(config, "set_logical_device_configuration"):
            for gpu in config.list_physical_devices("GPU")[:1]:
                config.set_logical_device_configuration(gpu, [config.LogicalDeviceConfiguration(memory_limit=megabytes)])
        else:
            old = config.experimental
            for gpu in old.list_physical_devices("GPU")[:1]:
                old.set_virtual_device_configuration(gpu, [old.VirtualDeviceConfiguration(memory_limit=megabytes)])
    except RuntimeError as error:
        raise AgentError(
            "the limit of %s cannot be set, since this process has used the GPU already (%s)"
            % (size(memory_limit), sentence_of(error))
        )


def session_config(tf, memory_limit):
    # type: (Any, Optional[int]) -> Any
    """For the sessions of TensorFlow 1. The first one of a process decides, since the GPU's allocator is made with it."""
    v1 = v1_of(tf)
    config = v1.ConfigProto(allow_soft_placement=True)
    if memory_limit is not None:
        config.gpu_options.experimental.virtual_devices.add().memory_limit_mb.append(memory_limit >> 20)
    return config


def v1_of(tf):
    # type: (Any) -> Any
    return getattr(getattr(tf, "compat", None), "v1", None) or tf


def import_converter():
    # type: () -> Any
    """The module that holds the converter. Importing it makes the operations of converted models known, so a runner needs it too."""
    try:
        from tensorflow.python.compiler.tensorrt import trt_convert

        return trt_convert
    except ImportError as error:
        problem = error  # type: BaseException
    try:
        from tensorflow.contrib import tensorrt

        return tensorrt
    except ImportError as error:
        if "tensorflow.contrib" not in str(error):
            problem = error
    except (
        Exception
    ) as error:  # in TensorFlow 1 the operations' library is loaded here, and NotFoundError is what a missing one gives
        problem = error
    if "libnvinfer" in str(problem):
        raise LoadError(library_sentence(str(problem)))
    raise Unsupported("this TensorFlow has no TF-TRT (%s): %s" % (sentence_of(problem), WHERE_IT_IS))


def library_sentence(text):
    # type: (str) -> str
    return (
        "TensorRT's library cannot be loaded (%s): install the release of TensorRT that this TensorFlow was built with, or name its "
        "folder in LD_LIBRARY_PATH" % " ".join(text.split())[:200]
    )


# Which converter, and how it is called


def style_of(tf, module):
    # type: (Any, Any) -> str
    """``direct`` or ``parameters`` (TrtGraphConverterV2), ``graph`` (TrtGraphConverter) or ``contrib`` (create_inference_graph)."""
    if hasattr(module, "TrtGraphConverterV2") and is_eager(tf):
        names = _parameters(module.TrtGraphConverterV2.__init__)
        if not hasattr(module.TrtGraphConverterV2, "build"):
            raise Unsupported(
                "this TensorFlow's TrtGraphConverterV2 cannot build engines, and eager execution keeps it from the older one"
            )
        if "precision_mode" in names:
            return "direct"
        if "conversion_params" in names:
            return "parameters"
        raise Unsupported(
            "this TensorFlow's TrtGraphConverterV2 takes a precision in no way that is known (%s)" % ", ".join(names)
        )
    if hasattr(module, "TrtGraphConverter") and not is_eager(tf):
        return "graph"
    if hasattr(module, "create_inference_graph") and not is_eager(tf):
        return "contrib"
    raise Unsupported("this TensorFlow has no TF-TRT converter that is known: %s" % WHERE_IT_IS)


def _parameters(function):
    # type: (Any) -> List[str]
    return list(inspect.signature(function).parameters)


def default_workspace(tf, module):
    # type: (Any, Any) -> int
    """The workspace in bytes where none is set."""
    style = style_of(tf, module)
    if style == "contrib":
        value = inspect.signature(module.create_inference_graph).parameters["max_workspace_size_bytes"].default
        return int(value)
    return int(getattr(module, "DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES", 1 << 30))


def _common(settings):
    # type: (Settings) -> Dict[str, Any]
    """What all converters take, by the names that have stayed the same; what is not set is left to TensorFlow."""
    values = {
        "precision_mode": settings.precision.upper(),
        "max_workspace_size_bytes": settings.workspace_bytes,
        "minimum_segment_size": settings.minimum_segment_size,
        "maximum_cached_engines": settings.maximum_cached_engines,
        "use_calibration": settings.use_calibration,
    }
    return {name: value for name, value in values.items() if value is not None}


def new_v2(module, style, directory, settings):
    # type: (Any, str, str, Settings) -> Any
    """A ``TrtGraphConverterV2`` for the SavedModel in ``directory``, which may be written after this."""
    values, others = _common(settings), {}  # type: Dict[str, Any], Dict[str, Any]
    if settings.use_dynamic_shape is not None:
        if "use_dynamic_shape" not in _parameters(module.TrtGraphConverterV2.__init__):
            raise BuildError(WITHOUT_DYNAMIC_SHAPE)
        others["use_dynamic_shape"] = settings.use_dynamic_shape
    if style == "direct":
        return module.TrtGraphConverterV2(input_saved_model_dir=directory, **dict(values, **others))
    template = module.DEFAULT_TRT_CONVERSION_PARAMS
    values["is_dynamic_op"] = True  # what TensorFlow 2 asks for where it still has the choice
    known = {name: value for name, value in values.items() if name in template._fields}
    return module.TrtGraphConverterV2(input_saved_model_dir=directory, conversion_params=template._replace(**known), **others)


def require_ranges(settings, operations):
    # type: (Settings, Set[str]) -> None
    """Of an integer graph that is not calibrated: without ranges in it, TensorRT would quantize nothing, or refuse."""
    if settings.precision == "int8" and not settings.use_calibration and not RANGES & operations:
        raise BuildError(
            "use_calibration is false, but the graph has no ranges in it (none of %s): train it with quantization, or remove "
            "use_calibration, so that the [calibration] pictures give the ranges" % ", ".join(sorted(RANGES))
        )


def needs_calibration(settings):
    # type: (Settings) -> bool
    return bool(settings.precision == "int8" and settings.use_calibration)


def convert_v2(converter, settings, batches):
    # type: (Any, Settings, Callable[[], Iterator[Any]]) -> None
    """Calibrates exactly where it has to be: TF-TRT refuses calibration data that it does not need."""
    if not needs_calibration(settings):
        converter.convert()
        return

    def calibration_input():
        # type: () -> Iterator[List[Any]]
        for batch in batches():
            yield [batch]

    converter.convert(calibration_input_fn=calibration_input)


def build_v2(converter, batch):
    # type: (Any, Any) -> None
    """Build the engines for the shape of ``batch``, by running it once."""

    def input_fn():
        # type: () -> Iterator[List[Any]]
        yield [batch]

    converter.build(input_fn=input_fn)


def summary_v2(converter):
    # type: (Any) -> Optional[Dict[str, int]]
    """What the converter itself says; None where this release has no summary."""
    if not hasattr(converter, "summary"):
        return None
    lines = []  # type: List[str]

    def keep(text=""):
        # type: (Any) -> None
        lines.append(str(text))

    converter.summary(line_length=160, detailed=False, print_fn=keep)
    return tftrt_log.summary("\n".join(lines))


# TensorFlow 1


def convert_graph(tf, module, style, graph, settings, config, batches):
    # type: (Any, Any, str, Graph, Settings, Any, Callable[[], Iterator[Any]]) -> Any
    """The converted GraphDef. With a static graph the engines are built here; calibrated ones at the first inference."""
    if settings.use_dynamic_shape is not None:
        raise BuildError(WITHOUT_DYNAMIC_SHAPE)
    calibrated = needs_calibration(settings)
    outputs = [name.split(":")[0] for name in graph.outputs]
    values = _common(settings)
    values.update(max_batch_size=settings.batch, is_dynamic_op=calibrated, session_config=config)
    if style == "contrib":
        values["is_dynamic_op"] = False
        converted = _call(module.create_inference_graph, values, input_graph_def=graph.graph_def, outputs=outputs)
        if not calibrated:
            return converted
        with tf.Graph().as_default() as calibration:
            _import(tf, converted)
            with v1_of(tf).Session(graph=calibration, config=config) as session:
                for batch in batches():
                    session.run(list(graph.outputs), {graph.input: batch})
        finished = module.calib_graph_to_infer_graph(converted)
        if finished is None:
            raise BuildError("TF-TRT found nothing to calibrate in the converted graph: no segment was converted, see the log")
        return finished
    denied = next(
        (name for name in ("nodes_denylist", "nodes_blacklist") if name in _parameters(module.TrtGraphConverter.__init__)),
        "nodes_denylist",
    )
    converter = _call(module.TrtGraphConverter, values, input_graph_def=graph.graph_def, **{denied: outputs})
    converted = converter.convert()
    if calibrated:
        pictures = list(batches())
        rest = iter(pictures)
        converted = converter.calibrate(
            fetch_names=list(graph.outputs), num_runs=len(pictures), feed_dict_fn=lambda: {graph.input: next(rest)}
        )
    return converted


def _call(function, optional, **required):
    # type: (Any, Dict[str, Any], **Any) -> Any
    """With those of the optional arguments that this release has."""
    names = _parameters(function.__init__ if inspect.isclass(function) else function)
    required.update({name: value for name, value in optional.items() if name in names})
    return function(**required)


def _import(tf, graph_def):
    # type: (Any, Any) -> None
    v1_of(tf).import_graph_def(graph_def, name="")


def write_saved_model(tf, directory, graph_def, input_name, outputs):
    # type: (Any, str, Any, str, List[str]) -> None
    """A SavedModel that holds nothing but a frozen graph. Its signature names the outputs as :mod:`tensorflow_sources` does.

    It is written as it is. TensorFlow's own writer would import the graph first, and strip what this process has no operation for.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = content.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.graph_def.CopyFrom(graph_def)
    signature = meta_graph.signature_def[SIGNATURE]
    signature.method_name = "tensorflow/serving/predict"
    with tf.Graph().as_default() as graph:
        _import(tf, graph_def)
        keys = [OUTPUT] if len(outputs) == 1 else [model_outputs.name_of(number) for number in range(len(outputs))]
        ends = [(signature.inputs, INPUT, input_name)] + [(signature.outputs, key, name) for key, name in zip(keys, outputs)]
        for side, key, name in ends:
            tensor = graph.get_tensor_by_name(name)
            side[key].name = name
            side[key].dtype = tensor.dtype.as_datatype_enum
            side[key].tensor_shape.CopyFrom(tensor.shape.as_proto())
    if os.path.exists(directory):
        shutil.rmtree(directory)
    os.makedirs(directory)
    with open(os.path.join(directory, "saved_model.pb"), "wb") as stream:
        stream.write(content.SerializeToString())


# What goes wrong


def explained(error, log, kind):
    # type: (BaseException, str, type) -> BaseException
    """The error that says what TF-TRT meant by ``error``, with what it printed; ``error`` itself where nothing more is known."""
    text = str(error)
    contradiction, old = tftrt_log.versions(log), tftrt_log.too_old(log)
    if "has not been built with TensorRT" in text or "needs to be built with TensorRT" in text:
        return Unsupported("this TensorFlow has not been built with TensorRT support: %s" % WHERE_IT_IS)
    if "not registered" in text and ("TRTResource" in text or "TRTEngine" in text):
        return LoadError("this TensorFlow does not know the operations of a TF-TRT model: %s" % WHERE_IT_IS)
    if "Incompatible" in text and "TensorRT" in text:
        if old is not None and old[1].startswith("0."):
            return LoadError(library_sentence("TensorFlow found none"))
        if contradiction is not None:
            return LoadError(
                "TensorFlow was built with TensorRT %s and TensorRT %s is loaded here: install NVIDIA's TensorFlow for this JetPack, or "
                "the TensorRT that it was built with" % (contradiction.linked, contradiction.loaded)
            )
        if old is not None:
            return LoadError(
                "TensorRT %s (%s) is older than this TensorFlow takes: install NVIDIA's TensorFlow for this JetPack"
                % (old[1], old[0])
            )
        return LoadError(
            "TensorFlow was built with another release of TensorRT than the one that is loaded here (%s): install NVIDIA's TensorFlow for "
            "this JetPack" % sentence_of(error)
        )
    if "Specified device is not a GPU" in text:
        return Unsupported("TensorFlow sees no GPU here, and TF-TRT needs one: %s" % WHERE_IT_IS)
    if "libnvinfer" in text:
        return LoadError(library_sentence(text))
    if isinstance(error, AgentError):
        return error
    if speaks_of_memory(type(error).__name__) or speaks_of_memory(text[:2000]):
        return OutOfMemory(
            "TF-TRT ran out of memory (%s): lower workspace_bytes or memory_limit_bytes in [options.tftrt], or the batch"
            % sentence_of(error)
        )
    replacement = kind("TF-TRT failed: %s" % sentence_of(error))  # type: BaseException
    return replacement
