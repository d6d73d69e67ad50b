"""The card's table ``[variants]``: which rewrites of a model's graph are cases of their own, by backend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..backends import CPU, BackendInfo

if TYPE_CHECKING:
    from ..cards import ModelCard

AS_IS: Literal["as_is"] = "as_is"
NMS_CPU, NMS_GPU = "nms_cpu", "nms_gpu"
Variant = Literal["as_is", "nms_cpu", "nms_gpu"]
"""``as_is``: the graph as the checkpoint has it. The others put non-maximum suppression on the processor or on the GPU
(``agent/nms_placement.py``)."""

Variants = dict[str, Annotated[list[Variant], Field(min_length=1)]]

REWRITING_BACKENDS = ("tensorflow", "tftrt")
"""Those that run a graph of TensorFlow, in which each operation can be given its device."""


def variants_of(card: ModelCard, backend: str, device: str) -> list[str | None]:
    """The variants of the cases of ``backend`` on ``device``, ``None`` for the graph as it is. Without a GPU there is no ``nms_gpu``."""
    asked: list[Variant] = card.variants.get(backend, [AS_IS])
    return [None if variant == AS_IS else variant for variant in asked if not (variant == NMS_GPU and device == CPU)]


def variant_problems(card: ModelCard, known_backends: dict[str, BackendInfo]) -> Iterable[tuple[str, str]]:
    """What the table may not have: key and sentence."""
    for backend, variants in card.variants.items():
        key = f"variants.{backend}"
        if backend not in card.backends:
            yield key, f"found a value, but [backends] has no {backend}; expected one of {', '.join(card.backends)}"
            continue
        if backend not in REWRITING_BACKENDS:
            yield (
                key,
                f"found {', '.join(variants)}, expected none: only {' and '.join(REWRITING_BACKENDS)} run a graph of TensorFlow, "
                "in which the suppression can be moved",
            )
            continue
        for index, variant in enumerate(variants):
            if variant in variants[:index]:
                yield f"{key}[{index}]", f"found {variant!r} a second time, expected each variant once"
        if backend not in known_backends:
            continue  # said of [backends] already
        devices = card.devices.get(backend, list(known_backends[backend].devices))
        if NMS_GPU in variants and all(device == CPU for device in devices):
            yield (
                key,
                f"found {NMS_GPU!r}, but all cases of {backend} are for {CPU}; expected a device with a GPU in devices.{backend}",
            )
