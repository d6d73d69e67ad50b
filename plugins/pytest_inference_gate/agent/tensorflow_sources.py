"""Every kind of TensorFlow checkpoint, turned into one thing: a SavedModel with a serving signature for a static batch.

The ``tensorflow`` backend keeps that SavedModel; the others convert it further.
"""

import json
import os
import shutil
import tempfile
import zipfile
from typing import Any, Callable, Dict, List, Tuple  # noqa: F401

from . import tensorflow_device
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
SIGNATURE = "serving_default"
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

    The files of a SavedModel are not equal byte for byte from one run to the next (names of nodes, order of maps, a fingerprint with a
    random identifier); its weights and its graph are.
    """
    tf, maker = _maker(request["source"], tf)
    progress("reading the checkpoint")
    tracked, call = maker(tf, request)
    _export(tf, tracked, call, request, directory, progress)
    return tf


def frozen_graph(tf, request, config, progress):
    # type: (Any, Dict[str, Any], Any, Callable[[str], None]) -> Tuple[Any, str, str]
    """For TensorFlow 1: a GraphDef without variables for ``request``, and the names of its input and output tensors.

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
        result = tf.identity(call(tensor), name=OUTPUT)
        return _freeze(tf, session, result.name), tensor.name, str(result.name)


def _maker(source, tf):
    # type: (Dict[str, Any], Any) -> Tuple[Any, Callable[[Any, Dict[str, Any]], Tuple[Any, Callable[[Any], Any]]]]
    """TensorFlow, and what reads the checkpoint with it."""
    makers = {
        "keras": _keras,
        "keras_weights": _keras_weights,
        "seeded": _seeded,
        "saved_model": _saved_model,
        "tf1_checkpoint": _tf1_checkpoint,
        "frozen_graph": _frozen_graph,
    }  # type: Dict[str, Callable[[Any, Dict[str, Any]], Tuple[Any, Callable[[Any], Any]]]]
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
    # type: (Any, Any, Callable[[Any], Any], Dict[str, Any], str, Callable[[str], None]) -> None
    shape = [int(request["batch"])] + [int(size) for size in request["input"]["shape"]]

    signature = [tf.TensorSpec(shape, tf.as_dtype(request["input"]["dtype"]), name=INPUT)]

    def serve(tensor):
        # type: (Any) -> Dict[str, Any]
        return {OUTPUT: tf.identity(call(tensor))}

    module = tf.Module()
    module.tracked = tracked  # the variables that the signature uses have to hang on what is saved
    progress("writing the SavedModel")
    tf.saved_model.save(module, directory, signatures={SIGNATURE: tf.function(serve, input_signature=signature)})


# Keras


def _refuse_lambda(configuration, path):
    # type: (Any, str) -> None
    """A Lambda layer is program text inside a data file: loading it would run it. Old releases of Keras do so without asking."""
    if isinstance(configuration, dict):
        if configuration.get("class_name") in ("Lambda", "__lambda__"):
            raise BuildError(
                "%s has a Lambda layer, which would run program code from the file: save the model without it, "
                "or export it as a SavedModel" % os.path.basename(path)
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
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
    return _of_model(tf, read_keras(tf, request["source"]["path"])[0])


def read_keras(tf, path):
    # type: (Any, str) -> Tuple[Any, Any]
    """The whole model in the Keras file at ``path``, and its configuration as JSON says it."""
    is_archive = zipfile.is_zipfile(path)
    configuration = _keras_configuration(path)
    if configuration is None:
        raise BuildError(
            "%s holds weights but no architecture: use the format keras_weights and name the architecture"
            % os.path.basename(path)
        )
    _refuse_lambda(configuration, path)
    options = {"compile": False}
    if is_archive:
        options["safe_mode"] = True
    with _Named(path, ".keras" if is_archive else ".h5") as named:
        return tf.keras.models.load_model(named, **options), configuration


def _of_model(tf, model):
    # type: (Any, Any) -> Tuple[Any, Callable[[Any], Any]]
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise BuildError(
            "the model has %d inputs and %d outputs, and one of each is expected" % (len(model.inputs), len(model.outputs))
        )

    def call(tensor):
        # type: (Any) -> Any
        result = model(tensor, training=False)
        while isinstance(result, (list, tuple, dict)):
            result = next(iter(result.values())) if isinstance(result, dict) else result[0]
        return result

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


def _build(tf, request):
    # type: (Any, Dict[str, Any]) -> Any
    """The model of ``keras.applications`` that the source names, with untrained weights."""
    architecture = request["source"].get("architecture")
    if not architecture:
        raise BuildError("a checkpoint of the format %r needs an architecture" % request["source"]["format"])
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


def _keras_weights(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
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
    return _of_model(tf, model)


def _seeded(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
    import numpy

    seed = int(request["source"]["seed"] or 0)
    tf.keras.utils.set_random_seed(seed)
    model = _build(tf, request)
    generator = numpy.random.RandomState(seed)
    pictures = smooth_pictures(generator, 16, tuple(request["input"]["shape"]))
    _settle_normalization(tf, model, pictures, generator)
    _tell_classes_apart(tf, model, pictures)
    return _of_model(tf, model)


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


# Graphs


def _one(names, wanted, what):
    # type: (List[str], List[str], str) -> str
    """The one tensor that is meant: the one that the card names, else the only one that there is."""
    if wanted:
        if len(wanted) != 1:
            raise BuildError("one %s is expected, and the card names %d: %s" % (what, len(wanted), ", ".join(wanted)))
        return wanted[0]
    if len(names) != 1:
        raise BuildError(
            "it has %s %ss%s: name the one that is meant in checkpoint.%ss"
            % (len(names) or "no", what, " (%s)" % ", ".join(names[:8] + ["..."] * (len(names) > 8)) if names else "", what)
        )
    return names[0]


def _find(path, matches, what):
    # type: (str, Callable[[str], bool], str) -> str
    """``path`` itself, or the one path below it that ``matches``."""
    if matches(path):
        return path
    found = []
    for directory, _, names in os.walk(path):
        found += [
            candidate for candidate in [directory] + [os.path.join(directory, name) for name in names] if matches(candidate)
        ]
    found = sorted(set(found))
    if len(found) != 1:
        raise BuildError("expected one %s in %s, found %s" % (what, path, len(found) or "none"))
    return found[0]


def _saved_model(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
    source = request["source"]
    directory = _find(source["path"], lambda path: os.path.isfile(os.path.join(path, "saved_model.pb")), "SavedModel")
    if _is_of_tf1(directory):
        return _tf1_saved_model(tf, directory, source)
    model = tf.saved_model.load(directory)
    if not model.signatures:
        raise BuildError("the SavedModel has no signature: export it with one, as model.export of Keras does")
    signature = model.signatures[signature_key(model.signatures)]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    input_name = _member(_one(sorted(inputs), source.get("inputs") or [], "input"), inputs, "input")
    output_name = _member(_one(sorted(outputs), source.get("outputs") or [], "output"), outputs, "output")

    def call(tensor):
        # type: (Any) -> Any
        return signature(**{input_name: tf.cast(tensor, inputs[input_name].dtype)})[output_name]

    return model, call


def signature_key(signatures):
    # type: (Any) -> str
    names = sorted(name for name in signatures if not name.startswith("__"))
    return SIGNATURE if SIGNATURE in names else _one(names, [], "signature")


def _is_of_tf1(directory):
    # type: (str) -> bool
    """Whether it holds a graph alone, as TensorFlow 1 wrote it: read as a TensorFlow 2 one, it could not be saved again."""
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    with open(os.path.join(directory, "saved_model.pb"), "rb") as stream:
        content.ParseFromString(stream.read())
    return not any(graph.HasField("object_graph_def") for graph in content.meta_graphs)


def _tf1_saved_model(tf, directory, source):
    # type: (Any, str, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
    with tf.Graph().as_default() as graph, _session(tf, graph) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        if not meta_graph.signature_def:
            raise BuildError("the SavedModel has no signature: export it with one, as simple_save of TensorFlow 1 does")
        signature = meta_graph.signature_def[signature_key(meta_graph.signature_def)]
        tensors = []
        for end, wanted, what in (
            (signature.inputs, source.get("inputs"), "input"),
            (signature.outputs, source.get("outputs"), "output"),
        ):
            tensors.append(end[_member(_one(sorted(end), wanted or [], what), end, what)].name)
        graph_def = _freeze(tf, session, tensors[1])
    return None, _of_graph(tf, graph_def, tensors[0].split(":")[0], tensors[1])


def _member(name, names, what):
    # type: (str, Any, str) -> str
    if name not in names:
        raise BuildError("the signature has no %s %r; it has %s" % (what, name, ", ".join(sorted(names))))
    return name


def _tf1_checkpoint(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
    source = request["source"]
    path = source["path"]
    for suffix in ("", ".meta"):
        if os.path.isfile(path + suffix) and (path + suffix).endswith(".meta"):
            meta = path + suffix
            break
    else:
        if os.path.isfile(path) and not os.path.isdir(path):  # .index or .data-00000-of-00001 of the same checkpoint
            path = os.path.dirname(path)
        meta = _find(path, lambda candidate: candidate.endswith(".meta"), "checkpoint with a .meta graph")
    with tf.Graph().as_default() as graph:
        saver = tf.compat.v1.train.import_meta_graph(meta, clear_devices=True)
        if saver is None:
            raise BuildError("the graph %s has no variables to restore" % os.path.basename(meta))
        input_name, output_name = _ends(graph.as_graph_def(), source)
        with _session(tf, graph) as session:
            saver.restore(session, meta[: -len(".meta")])
            graph_def = _freeze(tf, session, output_name)
    return None, _of_graph(tf, graph_def, input_name, output_name)


def _session(tf, graph):
    # type: (Any, Any) -> Any
    return tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0}))


def _frozen_graph(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]
    source = request["source"]
    path = _find(
        source["path"],
        lambda candidate: candidate.endswith(".pb") or candidate == source["path"] and os.path.isfile(candidate),
        ".pb file",
    )
    graph_def = tf.compat.v1.GraphDef()
    with open(path, "rb") as stream:
        graph_def.ParseFromString(stream.read())
    input_name, output_name = _ends(graph_def, source)
    return None, _of_graph(tf, graph_def, input_name, output_name)


def _outputs(graph_def, input_name):
    # type: (Any, str) -> List[str]
    """The nodes that depend on the input and whose value nobody else uses."""
    users = {}  # type: Dict[str, List[str]]
    for node in graph_def.node:
        for name in node.input:
            users.setdefault(name.lstrip("^").split(":")[0], []).append(node.name)
    reached, waiting = set(), [input_name]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += users.get(name, [])
    return [node.name for node in graph_def.node if node.name in reached and node.name not in users and node.name != input_name]


def _ends(graph_def, source):
    # type: (Any, Dict[str, Any]) -> Tuple[str, str]
    """The names of the input node and of the output tensor: those that the card names, else the only ones that can be meant."""
    nodes = {node.name for node in graph_def.node}
    input_name = _one(
        [node.name for node in graph_def.node if node.op == "Placeholder"], source.get("inputs") or [], "input"
    ).split(":")[0]
    if input_name not in nodes:
        raise BuildError("the graph has no node %r, which the card names as its input" % input_name)
    output_name = _one(_outputs(graph_def, input_name), source.get("outputs") or [], "output")
    if output_name.split(":")[0] not in nodes:
        raise BuildError("the graph has no node %r, which the card names as its output" % output_name)
    return input_name, output_name if ":" in output_name else output_name + ":0"


def _freeze(tf, session, output_name):
    # type: (Any, Any, str) -> Any
    """The session's graph, its variables made constants, as far as the output needs it."""
    return tf.compat.v1.graph_util.convert_variables_to_constants(
        session, session.graph.as_graph_def(), [output_name.split(":")[0]]
    )


def _of_graph(tf, graph_def, input_name, output_name):
    # type: (Any, Any, str, str) -> Callable[[Any], Any]
    (node,) = [node for node in graph_def.node if node.name == input_name]
    wanted = tf.as_dtype(node.attr["dtype"].type) if "dtype" in node.attr else None

    def call(tensor):
        # type: (Any) -> Any
        # The tensor takes the placeholder's place, so that its static batch reaches every shape in the graph.
        replacement = tensor if wanted is None else tf.cast(tensor, wanted)
        return tf.graph_util.import_graph_def(
            graph_def, input_map={input_name + ":0": replacement}, return_elements=[output_name], name=""
        )[0]

    return call
