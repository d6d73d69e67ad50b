"""What a model says of itself, in the terms of a model card; and the sentences for models that a card cannot describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..cards import Input
from ..wording import counted
from . import InitError
from .model_file import ModelFile

_CHANNELS = (1, 3)
_REAL = ("float32", "float16", "float64", "bfloat16")
_INTEGERS = ("uint8", "int8", "int16")
_DETECTION_PAGE = "docs/how-to/gate-a-detection-model.md"


@dataclass(frozen=True)
class DescribedModel:
    """``batch`` is None where any size is taken.

    ``input_scale`` is that of a quantized input. ``precision`` is that of a file that has one already (``.tflite``), else None.
    ``normalization``: mean and standard deviation of the pixels (0 to 255) from the file's metadata; ``labels``: names of the
    outputs from there.
    """

    file: ModelFile
    input: Input
    batch: int | None
    classes: int
    scaling_inside: tuple[str, ...] = ()
    family: str = ""
    labels: tuple[str, ...] | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    precision: str | None = None
    opset: int | None = None
    architecture: Mapping[str, Any] | None = None
    input_scale: float | None = None

    @property
    def pictures_in_words(self) -> str:
        """``28 x 30 pixels, 1 channel``."""
        return f"{self.input.height} x {self.input.width} pixels, {counted(self.input.channels, 'channel')}"


def understand(file: ModelFile, description: Mapping[str, Any], shape: Sequence[int] | None = None) -> DescribedModel:
    """``description`` is an agent's; ``shape`` is what the user says of the input, without the batch.

    Raises :class:`InitError` for what is no classifier of pictures, and where sizes are open and the user has not said them.
    """
    name = file.path.name
    one_input = _only(name, description["inputs"], "input")
    if len(description["outputs"]) != 1:
        raise InitError(
            f"{name} has {_listed(description['outputs'], 'output')}, and init makes suites for classifiers, which have one: for "
            f"a detection model write the card by hand ({_DETECTION_PAGE})"
        )
    found = one_input["shape"]
    if found is None:
        found = [None] * 4
    sizes, batch = _input_shape(name, found, shape)
    return DescribedModel(
        file=file,
        input=Input(shape=sizes, dtype=_dtype(name, one_input), layout=_layout(name, sizes)),
        batch=batch,
        classes=_classes(name, description["outputs"][0]),
        scaling_inside=tuple(description.get("scaling_inside") or ()),
        family=str(description.get("family") or ""),
        labels=_labels(description),
        normalization=_normalization(description.get("normalization")),
        precision=description.get("precision"),
        opset=description.get("opset"),
        architecture=description.get("architecture"),
        input_scale=one_input.get("scale"),
    )


def _only(name: str, tensors: Sequence[Mapping[str, Any]], what: str) -> Mapping[str, Any]:
    if len(tensors) != 1:
        raise InitError(
            f"{name} has {_listed(tensors, what)}, and a case of the gate feeds one picture: make a model with one {what}"
        )
    return tensors[0]


def _listed(tensors: Sequence[Mapping[str, Any]], what: str) -> str:
    names = [str(one["name"]) for one in tensors]
    told = ", ".join(names[:4] + ["..."] * (len(names) > 4))
    return f"{len(tensors) or 'no'} {what}s" + (f" ({told})" if names else "")


def _input_shape(name: str, found: Sequence[int | None], given: Sequence[int] | None) -> tuple[tuple[int, int, int], int | None]:
    """The three sizes of a picture and the batch, None where that is open."""
    if len(found) != 4:
        raise InitError(
            f"{name} takes an input of the shape {_shape_text(found)}, which is no batch of pictures with 1 or 3 channels"
        )
    sizes = list(found[1:])
    if given is not None:
        if len(given) != 3:
            raise InitError(f"--shape takes three numbers, such as 224,224,3, and got {len(given)}")
        for place, (size, wanted) in enumerate(zip(sizes, given, strict=True)):
            if size is not None and size != wanted:
                raise InitError(f"--shape says {wanted} where {name} has {size}: its input is {_shape_text(found)}")
            sizes[place] = wanted
    if any(size is None for size in sizes):
        example = "3,224,224" if sizes[0] in _CHANNELS else "224,224,3"
        raise InitError(
            f"{name} takes pictures of any size, its input being {_shape_text(found)}: say the one that it was trained with, such as "
            f"--shape {example}"
        )
    height, width, depth = (int(size) for size in sizes if size is not None)
    return (height, width, depth), found[0]


def _shape_text(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"


def _layout(name: str, shape: tuple[int, int, int]) -> Literal["nhwc", "nchw"]:
    if shape[2] in _CHANNELS:
        return "nhwc"
    if shape[0] in _CHANNELS:
        return "nchw"
    raise InitError(
        f"{name} takes an input of the shape {_shape_text(shape)} for one picture, where neither end is 1 or 3 channels"
    )


def _dtype(name: str, tensor: Mapping[str, Any]) -> Literal["float32", "uint8"]:
    """As the card says it: what is quantized takes real numbers, which the runner turns into integers."""
    dtype = str(tensor["dtype"])
    if dtype in _REAL or (dtype in _INTEGERS and tensor.get("scale")):
        return "float32"
    if dtype == "uint8":
        return "uint8"
    raise InitError(f"{name} takes an input of the type {dtype}, where a model card knows float32 and uint8")


def _classes(name: str, tensor: Mapping[str, Any]) -> int:
    shape = tensor["shape"]
    sizes = [size for size in shape[1:] if size != 1] if shape else []
    if shape and len(shape) >= 2 and all(size == 1 for size in shape[1:]):
        raise InitError(
            f"{name} answers with one number a picture, and the gate compares which of several is the largest: make it answer with one "
            "number a class, as a softmax over 2 classes does"
        )
    if not shape or len(shape) < 2 or len(sizes) != 1 or sizes[0] is None:
        text = "an unknown shape" if not shape else f"the shape {_shape_text(shape)}"
        raise InitError(f"{name} answers with {text}, and a classifier answers with one number a class")
    return int(sizes[0])


def _labels(description: Mapping[str, Any]) -> tuple[str, ...] | None:
    labels = description.get("labels")
    return tuple(str(label) for label in labels) if labels else None


def _normalization(told: Mapping[str, Any] | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    return (tuple(told["mean"]), tuple(told["std"])) if told else None
