"""Checkpoints as modules of PyTorch, kept in two files that any release of it reads: ``model.json`` and ``weights.npz``.

Nothing is pickled. What becomes ONNX is kept as a graph (``torch_graphs``), so that the board needs torch and NumPy alone; an
architecture of torchvision is kept by its name with its state dict, and needs torchvision there too.
"""

import json
import os
import shutil
import tempfile
import zipfile
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from . import model_outputs, onnx_sources, onnx_to_torch, torch_graphs
from . import tensorflow_sources as sources
from .failures import BuildError, LoadError, Unsupported, sentence_of

SCHEMA = "inference-gate-torch/1"
MODEL, WEIGHTS = "model.json", "weights.npz"
ARCHITECTURES = onnx_sources.ARCHITECTURES_OF_TORCHVISION
OLDEST_SAFE = onnx_sources.OLDEST_SAFE_TORCH

WEIGHT_ARGUMENTS = ("pretrained", "pretrained_backbone", "weights", "weights_backbone")
WRAPPERS = ("state_dict", "model_state_dict", "model")


def formats(packages):
    # type: (Dict[str, str]) -> List[str]
    """The source formats that can become modules with these distributions."""
    found = onnx_sources.formats(packages) if packages.get("onnx") else []
    return found + [name for name in onnx_sources.formats_of_torchvision(packages) if name not in found]


def conversion_reason(packages):
    # type: (Dict[str, str]) -> str
    """Why a state dict is not read here, where that is for the age of PyTorch; empty otherwise."""
    version = packages.get("torch", "")
    if not version or not packages.get("torchvision") or onnx_sources.release_of(version) >= OLDEST_SAFE:
        return ""
    return (
        "torch %s cannot read a .pth file without running what is in it: convert with torch %d.%d or later (--gate-convert-with)"
        % ((version,) + OLDEST_SAFE)
    )


def converter_versions(packages):
    # type: (Dict[str, str]) -> Dict[str, str]
    versions = dict(onnx_sources.converter_versions(packages))
    versions.update((name, packages.get(name, "")) for name in ("torch", "torchvision"))
    return {name: value for name, value in versions.items() if value}


def save(torch, request, progress):
    # type: (Any, Dict[str, Any], Callable[[str], None]) -> Tuple[Dict[str, str], Dict[str, Any]]
    """Write the module of ``request`` into its ``output_directory``; returns the versions of what made it, and details."""
    source, directory = request["source"], request["output_directory"]
    shape = [int(request["batch"])] + [int(size) for size in request["input"]["shape"]]
    document = {
        "schema": SCHEMA,
        "torch": str(torch.__version__),
        "input": {"shape": shape, "dtype": request["input"]["dtype"]},
    }  # type: Dict[str, Any]
    if onnx_sources.is_of_torchvision(source):
        weights, versions = _of_torchvision(torch, request, document, progress)
    elif source["format"] == "torch_weights":
        raise BuildError("a checkpoint of the format torch_weights needs an architecture in %s" % ARCHITECTURES.rstrip("."))
    else:
        weights, versions = _of_onnx(torch, request, document, shape, progress)
    document.update(_output(torch, document, weights))
    progress("writing the module")
    import numpy

    with open(os.path.join(directory, WEIGHTS), "wb") as stream:
        numpy.savez(stream, **weights)
    with open(os.path.join(directory, MODEL), "w") as text:
        json.dump(document, text, indent=1, sort_keys=True)
    counts = {}  # type: Dict[str, int]
    for step in document.get("graph", {}).get("steps", []):
        counts[step["operation"]] = counts.get(step["operation"], 0) + 1
    return dict(versions, torch=str(torch.__version__)), {"kind": document["kind"], "operations": counts}


def _of_onnx(torch, request, document, shape, progress):
    # type: (Any, Dict[str, Any], Dict[str, Any], List[int], Callable[[str], None]) -> Tuple[Dict[str, Any], Dict[str, str]]
    try:
        import onnx
    except ModuleNotFoundError as error:
        if error.name == "onnx":
            raise Unsupported("onnx is not installed here, and turning this checkpoint into a module of PyTorch needs it")
        raise
    scratch = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        path, versions = onnx_sources.float_model(request, scratch, progress)
        progress("reading the ONNX graph")
        everything = model_outputs.all_are_kept(request)
        graph, weights = onnx_to_torch.graph_of(torch, onnx, path, shape, request["input"]["dtype"], everything)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document.update(kind="graph", graph=graph)
    return weights, dict(versions, onnx=str(onnx.__version__))


def _output(torch, document, weights):
    # type: (Any, Dict[str, Any], Dict[str, Any]) -> Dict[str, Any]
    """The shape that comes out, or the shapes, by running what was stored once: what cannot be run is found here, not on a board."""
    module = build(torch, document, weights)
    with torch.no_grad():
        tensor = torch.ones(document["input"]["shape"], dtype=input_type(torch, document, torch.float32))
        result = module(tensor)
    results = list(result) if isinstance(result, tuple) and "outputs" in document.get("graph", {}) else [result]
    for one in results:
        if not isinstance(one, torch.Tensor):
            raise BuildError("the module answers with a %s, and one tensor is expected" % type(one).__name__)
    shapes = [{"shape": [int(size) for size in one.shape]} for one in results]
    return {"outputs": shapes} if isinstance(result, tuple) else {"output": shapes[0]}


def input_type(torch, document, real):
    # type: (Any, Dict[str, Any], Any) -> Any
    """The type in which the module takes its input: whole numbers as they are, floats in the module's own type ``real``."""
    return torch.uint8 if document["input"]["dtype"] == "uint8" and document["kind"] == "graph" else real


# What was stored


def read(model):
    # type: (str) -> Tuple[Dict[str, Any], Dict[str, Any]]
    """The document at the path ``model`` and the weights beside it."""
    import numpy

    try:
        with open(model) as stream:
            document = json.load(stream)
    except (OSError, ValueError) as error:
        raise LoadError("%s cannot be read (%s): convert the case again" % (model, error))
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise LoadError("%s is not of the schema %s: convert the case again" % (model, SCHEMA))
    path = os.path.join(os.path.dirname(model), WEIGHTS)
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            return document, {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LoadError("%s cannot be read (%s): convert the case again" % (path, error))


def build(torch, document, weights):
    # type: (Any, Dict[str, Any], Dict[str, Any]) -> Any
    """The module in evaluation mode, in float32 on the CPU."""
    if document["kind"] == "graph":
        return torch_graphs.module(torch, document["graph"], weights)
    module, _ = _construct(torch, document["architecture"])
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return module.eval()


# Architectures of torchvision


def _of_torchvision(torch, request, document, progress):
    # type: (Any, Dict[str, Any], Dict[str, Any], Callable[[str], None]) -> Tuple[Dict[str, Any], Dict[str, str]]
    module, version = torchvision_module(torch, request, progress)
    document.update(kind="torchvision", architecture=request["source"]["architecture"], torchvision=version)
    weights = {name: _array(torch, name, tensor) for name, tensor in module.state_dict().items()}
    return weights, {"torchvision": version}


def torchvision_module(torch, request, progress):
    # type: (Any, Dict[str, Any], Callable[[str], None]) -> Tuple[Any, str]
    """The architecture of ``request`` with its weights, in float32 on the CPU and in evaluation mode; and torchvision's version."""
    source = request["source"]
    if request["input"]["layout"] != "nchw":
        raise BuildError("the models of torchvision take channels first: the card needs input.layout = 'nchw'")
    if request["input"]["dtype"] != "float32":
        raise BuildError("the models of torchvision take floats: the card needs input.dtype = 'float32'")
    seed = int(source["seed"] or 0)
    torch.manual_seed(seed)
    module, version = _construct(torch, source["architecture"])
    if source["format"] == "seeded":
        progress("drawing weights")
        _settle(torch, module, seed, [int(size) for size in request["input"]["shape"]])
    elif source["format"] == "torch_weights":
        progress("reading the checkpoint")
        _load(module, state_dict(torch, source["path"]), source["architecture"]["function"])
    else:
        raise Unsupported("an architecture of torchvision takes no checkpoint of the format %r" % source["format"])
    return module, version


def _construct(torch, architecture):
    # type: (Any, Dict[str, Any]) -> Tuple[Any, str]
    """The module with untrained weights, and torchvision's version."""
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name == "torchvision":
            raise Unsupported("torchvision is not installed here, and the architecture %s needs it" % architecture["function"])
        raise LoadError("torchvision cannot be imported: %s" % error)
    except (ImportError, OSError, RuntimeError) as error:
        raise LoadError(
            "torchvision cannot be imported (%s): install the release of it that belongs to torch %s"
            % (sentence_of(error), torch.__version__)
        )
    version, name = str(torchvision.__version__), str(architecture["function"])
    found = torchvision  # type: Any
    for part in name.split(".")[1:]:
        found = None if part.startswith("_") else getattr(found, part, None)
    # Their folder holds functions of others too, such as one that fetches files.
    if not name.startswith(ARCHITECTURES) or not callable(found) or not str(found.__module__).startswith("torchvision.models"):
        raise BuildError("torchvision %s has no %s" % (version, name))
    arguments = architecture.get("arguments") or {}
    named = [key for key in WEIGHT_ARGUMENTS if key in arguments]
    if named:
        raise BuildError("the card names %s for %s: the weights come from the checkpoint" % (" and ".join(named), name))
    try:
        module = found(**arguments)
    except (TypeError, ValueError) as error:
        raise BuildError("%s cannot be made of the card's arguments: %s" % (name, error))
    if not isinstance(module, torch.nn.Module):
        raise BuildError("%s makes no module" % name)
    return module.eval(), version


def state_dict(torch, path):
    # type: (Any, str) -> Dict[str, Any]
    """The tensors by name in a ``.pth`` or ``.pt`` file. A pickle can run any program, so only one that holds weights alone is read."""
    if onnx_sources.release_of(str(torch.__version__)) < OLDEST_SAFE:
        raise Unsupported(
            "torch %s cannot read %s without running what is in it: convert with torch %d.%d or later (--gate-convert-with)"
            % ((torch.__version__, os.path.basename(path)) + OLDEST_SAFE)
        )
    if not os.path.isfile(path):
        raise BuildError("there is no checkpoint at %s" % path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the unpickler, of zip files, of torch
        raise BuildError(
            "%s is not a file of weights alone (%s), and anything else in it could be a program that runs when it is read: save it "
            "again with torch.save(model.state_dict(), ...)" % (os.path.basename(path), _reason(error))
        )
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = isinstance(content, dict) and content and all(isinstance(value, torch.Tensor) for value in content.values())
    if not tensors:
        raise BuildError(
            "%s holds no state dict, that is tensors by name: save it again with torch.save(model.state_dict(), ...)"
            % os.path.basename(path)
        )
    prefix = "module."  # of a model that was trained on several GPUs
    whole = all(str(name).startswith(prefix) for name in content)
    return {str(name)[len(prefix) if whole else 0 :]: tensor for name, tensor in content.items()}


def _reason(error):
    # type: (BaseException) -> str
    """What in the file is not a weight; torch says that in a paragraph about what could be done to run it."""
    text = " ".join(str(error).split())
    for start in ("Unsupported global: ", "Unsupported operand ", "Unsupported class "):
        if start in text:
            return (start + text.split(start, 1)[1].split(" was not ", 1)[0].split(". ", 1)[0]).rstrip(".")[:200]
    return sentence_of(error).rstrip(".")[:200]


def _load(module, weights, name):
    # type: (Any, Dict[str, Any], str) -> None
    wanted = module.state_dict()
    problems = [
        ("missing", [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]),
        ("unknown", [key for key in weights if key not in wanted]),
        (
            "of another shape",
            [key for key, value in weights.items() if key in wanted and tuple(value.shape) != tuple(wanted[key].shape)],
        ),
    ]
    told = ["%d %s (%s)" % (len(keys), what, ", ".join(keys[:3] + ["..."] * (len(keys) > 3))) for what, keys in problems if keys]
    if told:
        raise BuildError(
            "the weights are not those of %s: %s; correct the architecture and its arguments" % (name, ", ".join(told))
        )
    module.load_state_dict(dict(wanted, **weights))


def _array(torch, name, tensor):
    # type: (Any, str, Any) -> Any
    if tensor.is_quantized or tensor.is_sparse or tensor.is_complex():
        raise Unsupported("the weight %s is quantized, sparse or complex, which the torch backend does not store" % name)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


# Untrained weights with which a model answers different pictures differently; tensorflow_sources does the same for Keras


def _settle(torch, module, seed, shape):
    # type: (Any, Any, int, List[int]) -> None
    """Give the batch normalizations the statistics of seeded pictures, and the last layer scores that are decided."""
    import numpy

    torch.set_num_threads(1)  # sums in another order would be other weights
    generator = numpy.random.RandomState(seed)
    channels, height, width = shape
    pictures = sources.smooth_pictures(generator, 16, (height, width, channels)).transpose(0, 3, 1, 2)
    tensor = torch.from_numpy(numpy.ascontiguousarray(pictures))
    kinds = torch.nn.modules.batchnorm._BatchNorm
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    with torch.no_grad():
        for layer in layers:
            for weight, middle in ((layer.weight, 1.0), (layer.bias, 0.0)):
                if weight is not None:
                    weight.copy_(torch.from_numpy(generator.normal(middle, 0.1, tuple(weight.shape)).astype("float32")))
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 1.0
            layer.train()
        module(tensor)
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
            layer.running_var.clamp_(min=1e-3)  # a channel that was constant would be blown up
            layer.eval()
        linear = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear) and layer.bias is not None]
        if not linear:
            return
        scores = module(tensor)
        spread = float((scores - scores.mean(dim=0)).std())
        if scores.shape[-1] == linear[-1].out_features and spread > 1e-9:
            factor = sources.DECIDED_SCORES / spread
            linear[-1].bias.sub_(scores.mean(dim=0))
            linear[-1].weight.mul_(factor)
            linear[-1].bias.mul_(factor)
