"""The built-in backends: the precisions of each, and the kinds of device on which its cases run. Plain data.

A device is named like the marker that selects its cases. Which devices a target has is said by :mod:`accelerators`; what a backend can
do there with what is installed is said by the agent's probe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Device = Literal["cpu", "jetson", "edgetpu", "cuda"]
AgentDevice = Literal["cpu", "cuda", "edgetpu"]

CPU: Device = "cpu"
_AGENT_DEVICES: Mapping[str, AgentDevice] = {"jetson": "cuda", "cuda": "cuda", "edgetpu": "edgetpu"}


@dataclass(frozen=True)
class BackendInfo:
    """What a backend's cases can be.

    ``devices`` are the markers of its cases, in their order; a case on any but the first one has the device in its id. ``precisions_on``
    names a device that has fewer precisions than the backend. ``builds_on_device``: an artifact is made for the very device that runs
    it, and so on it. ``portable_sources``: the formats that any such device builds from, whatever else is installed there; empty where
    nothing is known of that.
    """

    precisions: tuple[str, ...]
    devices: tuple[str, ...] = (CPU,)
    builds_on_device: bool = False
    portable_sources: tuple[str, ...] = ()
    precisions_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def runs(self, precision: str, device: str) -> bool:
        """Whether there are cases of this precision on this device."""
        return device in self.devices and precision in self.precisions_on.get(device, self.precisions)


_NVIDIA = ("jetson", "cuda")
BACKENDS: Mapping[str, BackendInfo] = MappingProxyType(
    {
        "tensorflow": BackendInfo(("fp32",), (CPU, *_NVIDIA)),
        "tflite": BackendInfo(("fp32", "dynamic", "fp16", "int8", "full_int8")),
        "onnxruntime": BackendInfo(("fp32", "int8")),
        "edgetpu": BackendInfo(("int8", "full_int8"), ("edgetpu",)),
        "tensorrt": BackendInfo(("fp32", "fp16", "int8"), _NVIDIA, builds_on_device=True, portable_sources=("onnx",)),
        "tftrt": BackendInfo(
            ("fp32", "fp16", "int8"), _NVIDIA, builds_on_device=True, portable_sources=("saved_model", "frozen_graph")
        ),
        "torch": BackendInfo(("fp32", "fp16"), (CPU, *_NVIDIA), precisions_on={CPU: ("fp32",)}),
        "torch2trt": BackendInfo(("fp32", "fp16", "int8"), _NVIDIA, builds_on_device=True, portable_sources=("onnx",)),
    }
)
"""By name, in the order in which messages list them. A plugin adds more through :func:`cards.load_card`'s ``known_backends``."""

KnownBackends = Mapping[str, "BackendInfo | Collection[str]"]
"""Backends by name; where only precisions are given, the cases run on a CPU."""


def backend_infos(known: KnownBackends) -> dict[str, BackendInfo]:
    """The backends, those told in short written out."""
    return {name: info if isinstance(info, BackendInfo) else BackendInfo(tuple(info)) for name, info in known.items()}


def agent_device(device: str) -> AgentDevice:
    """What an agent is told to use for a case on this device: the GPU of a Jetson is a CUDA device like any other."""
    return _AGENT_DEVICES.get(device, "cpu")


def builds_on_device(backend: str) -> bool:
    """Whether an artifact of the backend can only be made on the device that runs it; never so for a plugin's own backend."""
    info = BACKENDS.get(backend)
    return info is not None and info.builds_on_device


def places(info: BackendInfo, precisions: Collection[str], devices: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every (device, precision) of a backend's cases, device by device."""
    for device in devices:
        for precision in precisions:
            if info.runs(precision, device):
                yield device, precision
