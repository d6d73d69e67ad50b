"""Every kind of TensorFlow checkpoint, turned into one thing: a SavedModel with a serving signature for a static batch.

The ``tensorflow`` backend keeps that SavedModel; the others convert it further.
"""

import inspect
import json
import os
import shutil
import tempfile
import zipfile
from typing import Any, Callable, Dict, List, Tuple  # noqa: F401

from . import model_outputs, tensorflow_device, tensorflow_graphs
from .failures import BuildError, Unsupported

DISTRIBUTIONS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-aarch64",
    "tensorflow-cpu-aws",
    "tensorflow-intel",
    "tensorflow-macos",
    "tf-nightly",
)
FORMATS = ("keras", "keras_weights", "seeded", "saved_model", "tf1_checkpoint", "frozen_graph")
SIGNATURE = tensorflow_graphs.SIGNATURE
INPUT, OUTPUT = "input", "output"


DECIDED_SCORES = 4.0
"""Standard deviation of the scores of a seeded classifier: among a thousand classes, the best one then has a probability of some tenths."""


def installed_version(packages):
    # type: (Dict[str, str]) -> str
    """The version of TensorFlow, by whatever name it was installed; ``""`` if it was not."""
    return next((packages[name] for name in DISTRIBUTIONS if name in packages), "")


def import_tensorflow():
    # type: () -> Any
    """TensorFlow, kept to the CPU. An accelerator that is at hand stays visible to everything else."""
    import tensorflow as tf

    tensorflow_device.keep_to_cpu(tf)
    return tf


def converter_versions(tf):
    # type: (Any) -> Dict[str, str]
    versions = {"tensorflow": str(tf.__version__)}
    keras = getattr(tf.keras, "__version__", None)
    if keras:
        versions["keras"] = str(keras)
    return versions


def save(request, directory, progress, tf=None):
    # type: (Dict[str, Any], str, Callable[[str], None], Any) -> Any
    """Write the SavedModel for ``request`` into ``directory``; returns TensorFlow. ``tf``: TensorFlow as a backend imported it for itself.

    Its signature gives ``output``; that of a detector gives all outputs of the model, as ``output_0``, ``output_1`` and so on.

    The files of a SavedModel are not equal byte for byte from one run to the next (names of nodes, order of maps, a fingerprint with a
    random identifier); its weights and its graph are.
    """
    tf, maker = _maker(request["source"], tf)
    progress("reading the checkpoint")
    tracked, call = maker(tf, request)
    _export(tf, tracked, call, request, directory, progress)
    return tf


def frozen_graph(tf, request, config, progress):
    # type: (Any, Dict[str, Any], Any, Callable[[str], None]) -> Tuple[Any, str, List[str]]
    """For TensorFlow 1: a GraphDef without variables for ``request``, and the names of its input tensor and of its output tensors.

    ``config`` is that of the session in which a Keras model is read.
    """
    _, maker = _maker(request["source"], tf)
    v1 = getattr(tf.compat, "v1", tf)
    progress("reading the checkpoint")
    shape = [int(request["batch"])] + [int(size) for size in request["input"]["shape"]]
    with tf.Graph().as_default() as graph, v1.Session(graph=graph, config=config) as session:
        keras_backend = getattr(getattr(v1, "keras", tf.keras), "backend", None)
        if keras_backend is not None and hasattr(keras_backend, "set_session"):
            keras_backend.set_session(session)  # where it puts the weights that it reads
        tensor = v1.placeholder(tf.as_dtype(request["input"]["dtype"]), shape, name=INPUT)
        _, call = maker(tf, request)
        named = _named(request, call(tensor))
        results = [str(tf.identity(result, name=name).name) for name, result in named]
        return tensorflow_graphs.freeze(tf, session, results), tensor.name, results


def _named(request, results):
    # type: (Dict[str, Any], List[Any]) -> List[Tuple[str, Any]]
    """The outputs that are kept, with their names in the signature."""
    if model_outputs.all_are_kept(request):
        return [(model_outputs.name_of(number), result) for number, result in enumerate(results)]
    return [(OUTPUT, results[0])]


def _maker(source, tf):
    # type: (Dict[str, Any], Any) -> Tuple[Any, Callable[[Any, Dict[str, Any]], Tuple[Any, Callable[[Any], List[Any]]]]]
    """TensorFlow, and what reads the checkpoint with it."""
    makers = {
        "keras": _keras,
        "keras_weights": _keras_weights,
        "seeded": _seeded,
        "saved_model": tensorflow_graphs.saved_model,
        "tf1_checkpoint": tensorflow_graphs.tf1_checkpoint,
        "frozen_graph": tensorflow_graphs.frozen_graph,
    }  # type: Dict[str, Callable[[Any, Dict[str, Any]], Tuple[Any, Callable[[Any], List[Any]]]]]
    if source["format"] not in makers:
        raise Unsupported("TensorFlow reads no checkpoint of the format %r; it reads %s" % (source["format"], ", ".join(FORMATS)))
    try:
        tf = tf or import_tensorflow()
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise Unsupported(
                "TensorFlow is not installed here, and converting a checkpoint of the format %r needs it" % source["format"]
            )
        raise
    if (
        source["format"] != "seeded"
        and not os.path.exists(source["path"] or "")
        and not os.path.exists((source["path"] or "") + ".meta")
    ):
        raise BuildError("there is no checkpoint at %s" % source["path"])
    return tf, makers[source["format"]]


def _export(tf, tracked, call, request, directory, progress):
    # type: (Any, Any, Callable[[Any], List[Any]], Dict[str, Any], str, Callable[[str], None]) -> None
    shape = [int(request["batch"])] + [int(size) for size in request["input"]["shape"]]
    if getattr(call, "has_loops", False):
        _export_graph(tf, call, request, shape, directory, progress)
        return
    signature = [tf.TensorSpec(shape, tf.as_dtype(request["input"]["dtype"]), name=INPUT)]

    def serve(tensor):
        # type: (Any) -> Dict[str, Any]
        return {name: tf.identity(result) for name, result in _named(request, call(tensor))}

    module = tf.Module()
    module.tracked = tracked  # the variables that the signature uses have to hang on what is saved
    progress("writing the SavedModel")
    tf.saved_model.save(module, directory, signatures={SIGNATURE: tf.function(serve, input_signature=signature)})


def _export_graph(tf, call, request, shape, directory, progress):
    # type: (Any, Callable[[Any], List[Any]], Dict[str, Any], List[int], str, Callable[[str], None]) -> None
    """As TensorFlow 1 writes a SavedModel, which TensorFlow 2 reads too.

    TensorFlow 2 would put the operations of a function that it traces into an order, by edges that must not lead into a loop of TensorFlow
    1; and what it wraps instead stays a call, into which TF-TRT does not look.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph, config=v1.ConfigProto(device_count={"GPU": 0})) as session:
        tensor = v1.placeholder(tf.as_dtype(request["input"]["dtype"]), shape, name=INPUT)
        outputs = {name: tf.identity(result) for name, result in _named(request, call(tensor))}
        progress("writing the SavedModel")
        v1.saved_model.simple_save(session, directory, {INPUT: tensor}, outputs)


# Keras


def _refuse_lambda(configuration, path):
    # type: (Any, str) -> None
    """A Lambda layer is program text inside a data file: loading it would run it. Old releases of Keras do so without asking."""
    if isinstance(configuration, dict):
        if configuration.get("class_name") in ("Lambda", "__lambda__"):
            raise BuildError(
                "%s has a Lambda layer, which would run program code from the file: save the model without it, export it as a "
                "SavedModel, or write allow_lambda = true under [checkpoint] if you trust the file" % os.path.basename(path)
            )
        for value in configuration.values():
            _refuse_lambda(value, path)
    elif isinstance(configuration, list):
        for value in configuration:
            _refuse_lambda(value, path)


def _keras_configuration(path):
    # type: (str) -> Any
    """The architecture that a Keras file holds, as JSON says it; None if it holds weights alone."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json").decode("utf-8")) if "config.json" in archive.namelist() else None
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
    if text is None:
        return None
    return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)


def _keras(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    source = request["source"]
    return _of_model(tf, read_keras(tf, source["path"], bool(source.get("allow_lambda")))[0], request)


def read_keras(tf, path, trusted=False):
    # type: (Any, str, bool) -> Tuple[Any, Any]
    """The whole model in the Keras file at ``path``, and its configuration as JSON says it. ``trusted``: it may hold program text."""
    is_archive = zipfile.is_zipfile(path)
    configuration = _keras_configuration(path)
    if configuration is None:
        raise BuildError(
            "%s holds weights but no architecture: use the format keras_weights and name the architecture"
            % os.path.basename(path)
        )
    if not trusted:
        _refuse_lambda(configuration, path)
    options = {"compile": False}
    if is_archive or "safe_mode" in inspect.signature(tf.keras.models.load_model).parameters:
        options["safe_mode"] = not trusted
    with _Named(path, ".keras" if is_archive else ".h5") as named:
        return tf.keras.models.load_model(named, **options), configuration


def _of_model(tf, model, request):
    # type: (Any, Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    all_outputs = model_outputs.all_are_kept(request)
    if len(model.inputs) != 1 or (len(model.outputs) != 1 and not all_outputs):
        raise BuildError(
            "the model has %d inputs and %d outputs, and one %s is expected"
            % (len(model.inputs), len(model.outputs), "input" if all_outputs else "of each")
        )

    def call(tensor):
        # type: (Any) -> List[Any]
        return list(tf.nest.flatten(model(tensor, training=False)))

    # Its variables alone, not the model: the functions that Keras saves with a model may write to them, and the TensorFlow Lite
    # converter makes constants of variables only where nothing does.
    return [
        getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable
        for variable in model.variables
    ], call


class _Named:
    """A path to the same file whose name ends as Keras wants it, which tells formats apart by name."""

    def __init__(self, path, suffix):
        # type: (str, str) -> None
        self._path, self._suffix, self._directory = path, suffix, ""

    def __enter__(self):
        # type: () -> str
        weights_suffix = ".weights.h5"
        if self._path.endswith(self._suffix) and self._path.endswith(weights_suffix) == (self._suffix == weights_suffix):
            return self._path
        self._directory = tempfile.mkdtemp(prefix="inference-gate-")
        link = os.path.join(self._directory, "checkpoint" + self._suffix)
        os.symlink(os.path.abspath(self._path), link)
        return link

    def __exit__(self, *error):
        # type: (*Any) -> None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


_NOT_FROM_CARDS = ("Lambda", "TFSMLayer")  # what runs program code, and what reads a file of its own


def _build(tf, request):
    # type: (Any, Dict[str, Any]) -> Any
    """The model of ``keras.applications``, or of layers, that the source describes, with untrained weights."""
    architecture = request["source"].get("architecture")
    if not architecture:
        raise BuildError("a checkpoint of the format %r needs an architecture" % request["source"]["format"])
    if architecture["function"] == "keras.Sequential":
        return _of_layers(tf, request, architecture["arguments"]["layers"])
    parts = architecture["function"].split(".")
    if parts[0] == "torchvision":
        raise Unsupported("%s is an architecture of PyTorch, which TensorFlow does not make" % architecture["function"])
    constructor = tf.keras
    for part in parts[1:]:
        constructor = None if part.startswith("_") else getattr(constructor, part, None)
        if constructor is None:
            break
    if parts[:2] != ["keras", "applications"] or not callable(constructor):
        raise BuildError("Keras %s has no %s" % (getattr(tf.keras, "__version__", tf.__version__), architecture["function"]))
    arguments = {
        key: tuple(value) if isinstance(value, list) else value for key, value in architecture.get("arguments", {}).items()
    }
    arguments["weights"] = None
    arguments.setdefault("input_shape", tuple(request["input"]["shape"]))
    model = constructor(**arguments)
    if not isinstance(model, tf.keras.Model):
        raise BuildError("%s makes no model" % architecture["function"])
    return model


def _of_layers(tf, request, layers):
    # type: (Any, Dict[str, Any], List[Dict[str, Any]]) -> Any
    """One layer after the other, each a class of ``keras.layers`` with its arguments."""
    made = []
    for layer in layers:
        arguments = dict(layer)
        name = arguments.pop("layer")
        constructor = None if name in _NOT_FROM_CARDS or name.startswith("_") else getattr(tf.keras.layers, name, None)
        if not (isinstance(constructor, type) and issubclass(constructor, tf.keras.layers.Layer)):
            raise BuildError(
                "Keras %s has no layer %s that a card can name" % (getattr(tf.keras, "__version__", tf.__version__), name)
            )
        made.append(constructor(**arguments))
    inputs = tf.keras.Input(tuple(request["input"]["shape"]))
    outputs = inputs
    for instance in made:
        outputs = instance(outputs)
    return tf.keras.Model(inputs, outputs)


def _keras_weights(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    import h5py

    path = request["source"]["path"]
    model = _build(tf, request)
    with h5py.File(path, "r") as file:  # raises OSError if it is none
        if (
            file.attrs.get("model_config") is None
            and "layer_names" not in file.attrs
            and "layers" not in file
            and "_layer_checkpoint_dependencies" not in file
        ):
            raise BuildError("%s is an HDF5 file, but not one with weights of a Keras model" % os.path.basename(path))
        # A file of save_weights of Keras 2, or a whole model of Keras 2 whose weights are wanted, lists its layers; Keras 3 has groups.
        legacy = "layer_names" in file.attrs or file.attrs.get("model_config") is not None
    with _Named(path, ".h5" if legacy else ".weights.h5") as named:
        model.load_weights(named)
    return _of_model(tf, model, request)


def _seeded(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    import numpy

    seed = int(request["source"]["seed"] or 0)
    tf.keras.utils.set_random_seed(seed)
    model = _build(tf, request)
    generator = numpy.random.RandomState(seed)
    pictures = smooth_pictures(generator, 16, tuple(request["input"]["shape"]))
    _settle_normalization(tf, model, pictures, generator)
    _tell_classes_apart(tf, model, pictures)
    return _of_model(tf, model, request)


def _settle_normalization(tf, model, pictures, generator):
    # type: (Any, Any, Any, Any) -> None
    """Give the batch normalizations of an untrained model the statistics of seeded pictures.

    With their initial statistics (mean 0, variance 1) the signal of a deep network dies away or saturates, and it answers all pictures
    alike, which would make every comparison of two precisions meaningless.
    """
    import numpy

    layers = [layer for layer in _layers(model) if isinstance(layer, tf.keras.layers.BatchNormalization)]
    if not layers:
        return
    for layer in layers:
        for variable, spread, middle in ((layer.gamma, 0.1, 1.0), (layer.beta, 0.1, 0.0)):
            if variable is not None:
                variable.assign(generator.normal(middle, spread, variable.shape).astype("float32"))
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(tf.constant(pictures), training=True)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum
        variance = layer.moving_variance
        variance.assign(numpy.maximum(numpy.array(variance), 1e-3))  # a channel that was constant would be blown up


def _tell_classes_apart(tf, model, pictures):
    # type: (Any, Any, Any) -> None
    """Make the last layer with weights answer as decidedly as that of a trained classifier.

    Its initial weights give a thousand classes the same probability but for a rounding error, and a softmax in 8 bits then answers zero
    for all of them. Its bias takes away what all pictures have in common, so that they do not all get the same class.
    """
    import numpy

    layers = [layer for layer in _layers(model) if getattr(layer, "kernel", None) is not None]
    if not layers or getattr(layers[-1], "bias", None) is None:
        return
    last = layers[-1]
    probabilities = numpy.asarray(model(tf.constant(pictures), training=False), dtype="float64")
    if probabilities.ndim != 2 or probabilities.min() <= 0 or abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
        return  # not a softmax
    scores = numpy.log(probabilities)
    scores -= scores.mean(axis=1, keepdims=True)
    own = scores - scores.mean(axis=0)
    spread = own.std()
    if spread < 1e-9:
        return
    factor = DECIDED_SCORES / spread
    last.kernel.assign(last.kernel * factor)
    last.bias.assign((numpy.array(last.bias) - scores.mean(axis=0)) * factor)


def _layers(model):
    # type: (Any) -> List[Any]
    found = []  # type: List[Any]
    for layer in model.layers:
        found.append(layer)
        if hasattr(layer, "layers"):
            found += _layers(layer)
    return found


def smooth_pictures(generator, count, shape):
    # type: (Any, int, Tuple[int, ...]) -> Any
    """Random pictures (float32, -1 to 1) in which neighbours are alike, each of its own brightness."""
    import numpy

    pictures = generator.uniform(-1.0, 1.0, (count,) + shape) * 0.25
    for axis, size in list(enumerate(shape))[:2]:
        phase = generator.uniform(0.0, 2 * numpy.pi, (count, shape[-1]))
        frequency = generator.uniform(0.5, 4.0, (count, shape[-1]))
        position = numpy.linspace(0.0, 2 * numpy.pi, size)
        wave = numpy.sin(frequency[:, None, :] * position[None, :, None] + phase[:, None, :])
        pictures += 0.5 * (wave[:, :, None, :] if axis == 0 else wave[:, None, :, :])
    pictures += generator.uniform(-0.5, 0.5, (count, 1, 1, shape[-1]))
    return numpy.clip(pictures, -1.0, 1.0).astype("float32")
