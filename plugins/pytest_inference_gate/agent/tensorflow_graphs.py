"""Graphs of TensorFlow as checkpoints: SavedModels, checkpoints of TensorFlow 1 and frozen graphs, each as a function of one tensor.

What reads one of them is a function ``(tf, request)``. It returns what has to be kept, and a function from the input tensor to the list of
output tensors, in the order of the card's ``checkpoint.outputs`` or, without it, in the model's own (:mod:`model_outputs`).
"""

import difflib
import os
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple  # noqa: F401

from . import graph_nodes, model_outputs
from .failures import BuildError

SIGNATURE = "serving_default"
PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
MOST_NAMES = 8


# Names of inputs and outputs


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
            % (len(names) or "no", what, " (%s)" % _listed(names) if names else "", what)
        )
    return names[0]


def _wanted_outputs(names, wanted, all_of_them):
    # type: (List[str], List[str], bool) -> List[str]
    """The names of the outputs that count: of a detector all, of a classifier the one."""
    if not all_of_them:
        return [_one(names, wanted, "output")]
    if wanted and len(set(wanted)) != len(wanted):
        raise BuildError("checkpoint.outputs names an output twice: %s" % ", ".join(wanted))
    if not (wanted or names):
        raise BuildError("it has no outputs: name those that are meant in checkpoint.outputs")
    return wanted or names


def _listed(names):
    # type: (List[str]) -> str
    return ", ".join(names[:MOST_NAMES] + ["..."] * (len(names) > MOST_NAMES))


def _close(name, names):
    # type: (str, Iterable[str]) -> List[str]
    """Names like ``name``: the same at the end of a scope first, then those that differ by a few letters."""
    known = list(dict.fromkeys(names))
    ends = [one for one in known if one.split("/")[-1] == name.split("/")[-1]]
    return list(dict.fromkeys(ends + difflib.get_close_matches(name, known, n=3)))[:3]


def _member(name, names, what):
    # type: (str, Any, str) -> str
    if name not in names:
        raise BuildError("the signature has no %s %r; it has %s" % (what, name, ", ".join(sorted(names))))
    return name


def find(path, matches, what):
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


# SavedModels


def saved_model(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    source = request["source"]
    directory = find(source["path"], lambda path: os.path.isfile(os.path.join(path, "saved_model.pb")), "SavedModel")
    if _is_of_tf1(directory):
        return _tf1_saved_model(tf, directory, request)
    model = tf.saved_model.load(directory)
    if not model.signatures:
        raise BuildError("the SavedModel has no signature: export it with one, as model.export of Keras does")
    signature = model.signatures[signature_key(model.signatures)]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    input_name = _member(_one(sorted(inputs), source.get("inputs") or [], "input"), inputs, "input")
    takes = inputs[input_name].shape
    needed = [int(request["batch"])] + [int(size) for size in request["input"]["shape"]]
    if not takes.is_compatible_with(needed):
        raise BuildError(
            "the SavedModel takes an input of the shape %s, and the case needs %s: correct the card's input.shape, or the batch"
            % (["any" if size is None else size for size in takes.as_list()], needed)
        )
    wanted = _wanted_outputs(
        model_outputs.sorted_names(outputs), source.get("outputs") or [], model_outputs.all_are_kept(request)
    )
    output_names = [_member(name, outputs, "output") for name in wanted]

    def call(tensor):
        # type: (Any) -> List[Any]
        results = signature(**{input_name: tf.cast(tensor, inputs[input_name].dtype)})
        return [results[name] for name in output_names]

    return model, call


def signature_key(signatures):
    # type: (Any) -> str
    names = sorted(name for name in signatures if not name.startswith("__"))
    return SIGNATURE if SIGNATURE in names else _one(names, [], "signature")


def _is_of_tf1(directory):
    # type: (str) -> bool
    """Whether it holds a graph alone, as TensorFlow 1 wrote it: read as a TensorFlow 2 one, it could not be saved again."""
    content = graph_nodes.read_saved_model(directory)
    return not any(graph.HasField("object_graph_def") for graph in content.meta_graphs)


def _tf1_saved_model(tf, directory, request):
    # type: (Any, str, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    source = request["source"]
    with tf.Graph().as_default() as graph, _session(tf, graph) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], directory)
        if not meta_graph.signature_def:
            raise BuildError("the SavedModel has no signature: export it with one, as simple_save of TensorFlow 1 does")
        signature = meta_graph.signature_def[signature_key(meta_graph.signature_def)]
        ends = signature.inputs, signature.outputs
        key = _member(_one(sorted(ends[0]), source.get("inputs") or [], "input"), ends[0], "input")
        wanted = _wanted_outputs(
            model_outputs.sorted_names(ends[1]), source.get("outputs") or [], model_outputs.all_are_kept(request)
        )
        outputs = [ends[1][_member(name, ends[1], "output")].name for name in wanted]
        graph_def = freeze(tf, session, outputs)
    return None, _OfGraph(tf, graph_def, ends[0][key].name.split(":")[0], outputs)


# Graphs of TensorFlow 1


def tf1_checkpoint(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    path = request["source"]["path"]
    for suffix in ("", ".meta"):
        if os.path.isfile(path + suffix) and (path + suffix).endswith(".meta"):
            meta = path + suffix
            break
    else:
        if os.path.isfile(path) and not os.path.isdir(path):  # .index or .data-00000-of-00001 of the same checkpoint
            path = os.path.dirname(path)
        meta = find(path, lambda candidate: candidate.endswith(".meta"), "checkpoint with a .meta graph")
    with tf.Graph().as_default() as graph:
        saver = tf.compat.v1.train.import_meta_graph(meta, clear_devices=True)
        if saver is None:
            raise BuildError("the graph %s has no variables to restore" % os.path.basename(meta))
        input_name, outputs = _ends(graph.as_graph_def(), request, os.path.basename(meta))
        with _session(tf, graph) as session:
            saver.restore(session, meta[: -len(".meta")])
            graph_def = freeze(tf, session, outputs)
    return None, _OfGraph(tf, graph_def, input_name, outputs)


def _session(tf, graph):
    # type: (Any, Any) -> Any
    return tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0}))


def frozen_graph(tf, request):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, Callable[[Any], List[Any]]]
    """A ``.pb`` file. A folder of the TensorFlow 1 detection zoo holds ``saved_model/saved_model.pb`` too, which is none."""
    source = request["source"]
    path = find(
        source["path"],
        lambda candidate: (
            candidate.endswith(".pb")
            and os.path.basename(candidate) != "saved_model.pb"
            or candidate == source["path"]
            and os.path.isfile(candidate)
        ),
        ".pb file",
    )
    graph_def = _read(tf, path)
    input_name, outputs = _ends(graph_def, request, os.path.basename(path))
    return None, _OfGraph(tf, _reduced(graph_def, outputs), input_name, outputs)


def _reduced(graph_def, outputs):
    # type: (Any, List[str]) -> Any
    """The graph without what the outputs do not need. One for TensorFlow Lite ends in an operation that TensorFlow does not have."""
    needed = {node.name for node in graph_nodes.needed(graph_def.node, outputs)}
    reduced = type(graph_def)()
    reduced.CopyFrom(graph_def)
    del reduced.node[:]
    reduced.node.extend(node for node in graph_def.node if node.name in needed)
    return reduced


def _read(tf, path):
    # type: (Any, str) -> Any
    """The GraphDef in a file. Raises :class:`BuildError` with what the file is instead, as far as that can be told."""
    with open(path, "rb") as stream:
        content = stream.read()
    graph_def = tf.compat.v1.GraphDef()
    if _parsed(graph_def, content) and graph_def.node and all(node.name and node.op for node in graph_def.node):
        return graph_def
    raise BuildError("%s is no GraphDef: %s" % (os.path.basename(path), _instead(content)))


def _parsed(message, content):
    # type: (Any, bytes) -> bool
    try:
        message.ParseFromString(content)
    except Exception:  # what protobuf raises differs from release to release
        return False
    return True


def _instead(content):
    # type: (bytes) -> str
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    if _parsed(saved, content) and saved.meta_graphs and saved.meta_graphs[0].graph_def.node:
        return "it is a SavedModel, so write format = 'saved_model' and name its folder"
    if content.lstrip()[:6] in (b"node {", b"node{\n"):
        return "it is one in text, so write it again in binary (tf.io.write_graph with as_text=False)"
    if not content:
        return "the file is empty, so get it again"
    return (
        "it begins with %r and not with a node, so name the .pb file that TensorFlow's freezing wrote, such as "
        "frozen_inference_graph.pb" % bytes(content[:16])
    )


def _unused(graph_def, input_name):
    # type: (Any, str) -> List[str]
    """The nodes that depend on the input and whose value nobody else uses."""
    users = {}  # type: Dict[str, List[str]]
    for node in graph_def.node:
        for name in node.input:
            users.setdefault(graph_nodes.node_name(name), []).append(node.name)
    reached, waiting = set(), [input_name]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += users.get(name, [])
    return [node.name for node in graph_def.node if node.name in reached and node.name not in users and node.name != input_name]


def _ends(graph_def, request, file):
    # type: (Any, Dict[str, Any], str) -> Tuple[str, List[str]]
    """The name of the input's node and of the output tensors: those that the card names, else the only ones that can be meant.

    Raises :class:`BuildError` for a name that the graph of ``file`` does not have, and for a placeholder besides the input that the
    outputs need: nobody would feed it.
    """
    source = request["source"]
    nodes = {node.name: node for node in graph_def.node}
    placeholders = [node.name for node in graph_def.node if node.op in PLACEHOLDERS]
    input_name = graph_nodes.node_name(_one(placeholders, source.get("inputs") or [], "input"))
    if input_name not in nodes:
        raise BuildError(
            "%s has no node %r, which checkpoint.inputs names: its %s"
            % (file, input_name, _candidates(input_name, list(nodes), placeholders, "placeholders are"))
        )
    ends = _unused(graph_def, input_name)
    wanted = _wanted_outputs(ends, source.get("outputs") or [], model_outputs.all_are_kept(request))
    for name in wanted:
        if graph_nodes.node_name(name) not in nodes:
            raise BuildError(
                "%s has no node %r, which checkpoint.outputs names: its %s"
                % (
                    file,
                    graph_nodes.node_name(name),
                    _candidates(graph_nodes.node_name(name), list(nodes), ends, "nodes that feed no other are"),
                )
            )
    outputs = [name if ":" in name else name + ":0" for name in wanted]
    needed = graph_nodes.needed(graph_def.node, outputs)
    others = [node.name for node in needed if node.op in PLACEHOLDERS and node.name != input_name]
    if others:
        raise BuildError(
            "%s needs a value for the placeholder%s %s, which nothing feeds besides the input %r: freeze the graph with %s as a constant, "
            "or name outputs in checkpoint.outputs that do not need %s"
            % (file, "s" * (len(others) > 1), _listed(others), input_name, *(["them"] * 2 if len(others) > 1 else ["it"] * 2))
        )
    if input_name not in {node.name for node in needed}:
        raise BuildError(
            "the outputs %s of %s do not depend on the input %r: name the input that they do depend on in checkpoint.inputs"
            % (_listed(outputs), file, input_name)
        )
    return input_name, outputs


def _candidates(name, nodes, likely, what):
    # type: (str, List[str], List[str], str) -> str
    """``placeholders are image_tensor; did you mean ...?``"""
    close = _close(name, likely) or _close(name, nodes)
    return "%s %s%s" % (
        what,
        _listed(likely) or "none",
        "; did you mean %s?" % " or ".join(repr(one) for one in close) if close else "",
    )


def freeze(tf, session, outputs):
    # type: (Any, Any, List[str]) -> Any
    """The session's graph, its variables made constants, as far as the outputs need it."""
    names = list(dict.fromkeys(graph_nodes.node_name(name) for name in outputs))
    return tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), names)


class _OfGraph:
    """A graph of constants as a function of its input. ``has_loops``: of TensorFlow 1, which are no functions but edges that go back."""

    def __init__(self, tf, graph_def, input_name, outputs):
        # type: (Any, Any, str, List[str]) -> None
        (node,) = [node for node in graph_def.node if node.name == input_name]
        self._tf, self._graph_def, self._outputs = tf, graph_def, outputs
        self._replaced = input_name + ":0"
        self._dtype = tf.as_dtype(node.attr["dtype"].type) if "dtype" in node.attr else None  # type: Optional[Any]
        self.has_loops = any(node.op == "Enter" for node in graph_def.node)

    def __call__(self, tensor):
        # type: (Any) -> List[Any]
        # The tensor takes the placeholder's place, so that its static batch and size reach every shape in the graph.
        replacement = tensor if self._dtype is None else self._tf.cast(tensor, self._dtype)
        return list(
            self._tf.graph_util.import_graph_def(
                self._graph_def, input_map={self._replaced: replacement}, return_elements=self._outputs, name=""
            )
        )
