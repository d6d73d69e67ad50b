"""What could have been done to the pictures in training: the settings that are tried, the most probable first."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..preprocessing import IMAGENET_MEAN, IMAGENET_STANDARD_DEVIATION
from .described_model import DescribedModel

KEYS = ("resize", "interpolation", "channel_order", "scaling", "maximum")
"""The keys of a card's ``[preprocessing]`` that are found by trying."""

_SCALINGS = ("zero_to_one", "minus_one_to_one", "none", "imagenet_mean_std", "imagenet_mean_bgr")
# How the networks of keras.applications, and those of torchvision, want their pictures (their preprocess_input, their
# transforms). The first expression that is found in the name that the file gives its model counts.
_FAMILIES = (
    (r"torchvision\.", "imagenet_mean_std"),
    (r"mobilenet_?v3|efficientnet|convnext|regnet", "none"),
    (r"mobilenet|inception|xception|nasnet|resnet\d+_?v2|resnet_v2", "minus_one_to_one"),
    (r"densenet", "imagenet_mean_std"),
    (r"resnet|vgg", "imagenet_mean_bgr"),
)
_QUANTIZED_RANGES = {1 / 255: "zero_to_one", 2 / 255: "minus_one_to_one", 1.0: "none"}  # by the scale of an 8-bit input
_NEARLY = 0.02  # a scale that was calibrated is a little off


@dataclass(frozen=True)
class Candidate:
    """Values of a card's ``[preprocessing]``."""

    resize: str
    interpolation: str
    channel_order: str
    scaling: str
    maximum: float

    def differs_in(self, other: Candidate) -> list[str]:
        """The keys whose values are not the same."""
        return [key for key in KEYS if getattr(self, key) != getattr(other, key)]

    def told(self, keys: Sequence[str] = KEYS) -> str:
        return ", ".join(
            f"{key} = {getattr(self, key):g}" if key == "maximum" else f"{key} = {getattr(self, key)}" for key in keys
        )


def scaling_candidates(model: DescribedModel, maxima: Sequence[float], same_size: bool) -> list[Candidate]:
    """Every scaling with every order of channels, for pictures whose largest values could be ``maxima``.

    ``same_size``: all pictures have the model's size already.
    """
    resize = "none" if same_size else "resize_and_crop" if model.family.startswith("torchvision.") else "resize"
    if model.input.channels == 1:
        ways = [(scaling, "grayscale") for scaling in _SCALINGS[:3]]
    else:
        ways = [(scaling, "rgb") for scaling in _SCALINGS[:4]] + [("imagenet_mean_bgr", "bgr")]
        ways += [(scaling, "bgr") for scaling in _SCALINGS[:4]]
    if model.input.dtype == "uint8":
        ways = [way for way in ways if way[0] == "none"]
    likely = likely_scaling(model)
    ways.sort(key=lambda way: way[0] != likely)  # stable: the others keep their order
    found = [Candidate(resize, "bilinear", order, scaling, maximum) for scaling, order in ways for maximum in maxima]
    # The maximum does nothing where nothing is scaled by it.
    return [one for one in found if one.scaling != "none" or one.maximum == maxima[0]]


def resize_candidates(chosen: Candidate, model: DescribedModel, sizes: Sequence[tuple[int, int]]) -> list[Candidate]:
    """Other ways to bring pictures of these sizes (height, width) to the model's, beside the one that was ``chosen``."""
    if chosen.resize == "none":
        return []
    kinds = ["resize"]
    if (
        any(height * model.input.width != width * model.input.height for height, width in sizes)
        or chosen.resize == "resize_and_crop"
    ):
        kinds.append("resize_and_crop")
    ways = [(kind, interpolation) for kind in kinds for interpolation in ("bilinear", "nearest", "bicubic")]
    return [
        replace(chosen, resize=kind, interpolation=interpolation)
        for kind, interpolation in ways
        if (kind, interpolation) != (chosen.resize, chosen.interpolation)
    ]


def likely_scaling(model: DescribedModel) -> str:
    """The scaling that the file itself makes most probable."""
    if model.input.dtype == "uint8" or model.scaling_inside:
        return "none"
    if model.normalization is not None:
        named = scaling_of_normalization(*model.normalization)
        if named is not None:
            return named
    if model.input_scale is not None:
        for scale, scaling in _QUANTIZED_RANGES.items():
            if math.isclose(model.input_scale, scale, rel_tol=_NEARLY):
                return scaling
    for pattern, scaling in _FAMILIES:
        if model.input.channels == 3 and re.search(pattern, model.family.lower()):
            return scaling
    return "imagenet_mean_std" if model.input.layout == "nchw" and model.input.channels == 3 else "zero_to_one"


def scaling_of_normalization(mean: Sequence[float], deviation: Sequence[float]) -> str | None:
    """The card's name for ``(pixel - mean) / deviation`` on pixels from 0 to 255; None where it has none."""
    known = {
        "none": ((0.0,), (1.0,)),
        "zero_to_one": ((0.0,), (255.0,)),
        "minus_one_to_one": ((127.5,), (127.5,)),
        "imagenet_mean_std": (
            tuple(255 * value for value in IMAGENET_MEAN),
            tuple(255 * value for value in IMAGENET_STANDARD_DEVIATION),
        ),
    }
    for name, (means, deviations) in known.items():
        if _close(mean, means) and _close(deviation, deviations):
            return name
    return None


def _close(found: Sequence[float], wanted: Sequence[float]) -> bool:
    longest = max(len(found), len(wanted))
    if longest % len(found) or longest % len(wanted):
        return False
    pairs = zip([*found] * (longest // len(found)), [*wanted] * (longest // len(wanted)), strict=True)
    return all(math.isclose(one, other, rel_tol=0.01, abs_tol=0.6) for one, other in pairs)
