"""Which architecture of torchvision a state dict belongs to, told by the names and the shapes of its weights."""

import os
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from . import torch_device, torch_models
from .failures import BuildError, LoadError, Unsupported

PREFIX = torch_models.ARCHITECTURES
_CLASSES = 1000  # of what torchvision makes without arguments
# With their auxiliary classifiers, as they are trained; without, as they are often saved. Weights that are replaced need no drawing.
_VARIANTS = {
    name: ({"init_weights": False}, {"init_weights": False, "aux_logits": False}) for name in ("googlenet", "inception_v3")
}  # type: Dict[str, Tuple[Dict[str, Any], ...]]
_OF_REGNETS = "trunk_output."  # how the names of their weights begin

Shapes = Dict[str, Tuple[int, ...]]


def describe(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    torch = torch_device.import_torch()
    progress("reading the weights")
    weights = torch_models.state_dict(torch, request["path"])
    shapes = {name: tuple(int(size) for size in tensor.shape) for name, tensor in weights.items()}
    named = request.get("architecture")
    if named:
        function = named["function"]
        arguments = dict(named.get("arguments") or {})
        classes = _fitting_classes(torch, function, arguments, shapes)
        if classes is None:
            # The loader says what does not fit.
            module, _ = torch_models._construct(torch, {"function": function, "arguments": arguments})
            torch_models._load(module, weights, function)
            raise BuildError("the weights are not those of %s: correct the architecture" % function)
        if classes != _CLASSES:
            arguments.setdefault("num_classes", classes)
    else:
        progress("looking for the architecture among those of torchvision")
        function, arguments, classes = _recognised(torch, shapes, os.path.basename(request["path"]), progress)
    return {
        # Which sizes a network takes is not in its weights.
        "inputs": [{"name": "input", "shape": [None, 3, None, None], "dtype": "float32", "scale": None, "zero_point": None}],
        "outputs": [{"name": "output", "shape": [None, classes], "dtype": "float32", "scale": None, "zero_point": None}],
        "family": function,
        "architecture": {"function": function, "arguments": arguments},
    }


def _recognised(torch, shapes, file_name, progress):
    # type: (Any, Shapes, str, Callable[[str], None]) -> Tuple[str, Dict[str, Any], int]
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name == "torchvision":
            raise Unsupported("torchvision is not installed here, and the architecture of a state dict is looked for in it")
        raise
    except (ImportError, OSError, RuntimeError) as error:
        raise LoadError("torchvision cannot be imported: %s" % error)
    models = torchvision.models
    names = models.list_models(module=models) if hasattr(models, "list_models") else []
    for name in by_likeness(names, file_name):
        if name.startswith("regnet") and not any(weight.startswith(_OF_REGNETS) for weight in shapes):
            continue  # the only ones that cannot be made without values, which takes time and memory
        for arguments in _VARIANTS.get(name, ({},)):
            classes = _fitting_classes(torch, PREFIX + name, arguments, shapes)
            if classes is not None:
                told = dict(arguments, **({"num_classes": classes} if classes != _CLASSES else {}))
                return PREFIX + name, told, classes
    raise BuildError(
        "the weights are those of no architecture of torchvision %s, and a state dict does not say what it belongs to: name one with "
        "--architecture torchvision.models.resnet18, or save the model as ONNX with torch.onnx.export" % torchvision.__version__
    )


def by_likeness(names, file_name):
    # type: (List[str], str) -> List[str]
    """Those first whose name is in the file's, longer ones before shorter ones; files of weights are mostly named after their model."""
    plain = file_name.lower().replace("-", "_")
    return sorted(names, key=lambda name: (name not in plain, -len(name) if name in plain else 0))


def fitting_classes(wanted, found):
    # type: (Shapes, Shapes) -> Optional[int]
    """The number of classes with which an architecture of 1000 classes has exactly these weights; None where it never has.

    What counts batches in a batch normalization may be missing: old releases did not save it.
    """
    optional = "num_batches_tracked"
    if set(name for name in wanted if not name.endswith(optional)) != set(name for name in found if not name.endswith(optional)):
        return None
    classes = set()
    for name, shape in wanted.items():
        other = found.get(name, shape)
        if shape != other:
            if not shape or shape[0] != _CLASSES or not other or other[1:] != shape[1:]:
                return None
            classes.add(other[0])
    return _CLASSES if not classes else classes.pop() if len(classes) == 1 else None


def _fitting_classes(torch, function, arguments, shapes):
    # type: (Any, str, Dict[str, Any], Shapes) -> Optional[int]
    """The same for a constructor of torchvision. It is called on the device "meta", where weights have shapes and no values."""
    if "num_classes" in arguments:
        fitting = _shapes(torch, function, arguments)
        return int(arguments["num_classes"]) if fitting is not None and fitting_classes(fitting, shapes) is not None else None
    wanted = _shapes(torch, function, arguments)
    return None if wanted is None else fitting_classes(wanted, shapes)


def _shapes(torch, function, arguments):
    # type: (Any, str, Dict[str, Any]) -> Optional[Shapes]
    architecture = {"function": function, "arguments": arguments}
    try:
        with torch.device("meta"):
            module, _ = torch_models._construct(torch, architecture)
    except NotImplementedError:  # computes its own sizes with tensors, as the RegNets do
        module, _ = torch_models._construct(torch, architecture)
    return {name: tuple(int(size) for size in tensor.shape) for name, tensor in module.state_dict().items()}
