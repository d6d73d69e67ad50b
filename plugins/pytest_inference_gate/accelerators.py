"""Which kinds of device a target has, by the markers that select cases: `jetson`, `edgetpu`, `cuda`. Pure, no I/O.

A case whose device is not there is skipped with the reason that is given here, so that it must be true of this target, and short. What
is there and cannot be used says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .devices import DeviceIdentity

Marker = Literal["jetson", "edgetpu", "cuda"]
MARKERS: tuple[Marker, ...] = ("jetson", "edgetpu", "cuda")


@dataclass(frozen=True)
class MarkerState:
    """Whether a target has what the cases of a marker run on; ``reason`` is one line that says why not, empty where it has."""

    marker: Marker
    present: bool
    reason: str = ""


def target_markers(facts: Mapping[str, Any]) -> dict[Marker, MarkerState]:
    """From the ``device`` facts of a probe, for each of :data:`MARKERS`.

    Present means that the device is attached and that nothing that can be seen from outside speaks against its use. Whether a runtime
    for it is installed is the backend's to say.
    """
    return {marker: _state(marker, _REASONS[marker](facts)) for marker in MARKERS}


def _state(marker: Marker, reason: str) -> MarkerState:
    return MarkerState(marker, not reason, reason)


def _no_jetson(facts: Mapping[str, Any]) -> str:
    identity = DeviceIdentity.from_facts(facts)
    if identity.kind == "jetson":
        return ""
    name = identity.board or identity.cpu_model
    return f"this is no NVIDIA Jetson but {_an(identity.kind)} ({name})" if name else "nothing here shows an NVIDIA Jetson"


def _no_edge_tpu(facts: Mapping[str, Any]) -> str:
    if facts.get("edge_tpus") is None:
        return "whether an Edge TPU is attached was not looked at"
    return _no_usable(facts["edge_tpus"], "no Coral Edge TPU is attached, neither on PCIe nor on USB", _edge_tpu_name)


def _no_gpu(facts: Mapping[str, Any]) -> str:
    if DeviceIdentity.from_facts(facts).kind == "jetson":
        return "the GPU of a Jetson is no discrete one: its cases have the marker jetson"
    if facts.get("gpus") is None:
        return "whether an NVIDIA GPU is attached was not looked at"
    return _no_usable(facts["gpus"], "no discrete NVIDIA GPU is attached", _gpu_name)


def _no_usable(devices: Sequence[Mapping[str, Any]], none: str, name: Callable[[Mapping[str, Any]], str]) -> str:
    """Why none of the devices can be used; empty where one can."""
    if not devices:
        return none
    problems = [f"{name(device)} is attached, but {device['problem']}" for device in devices if device.get("problem")]
    return problems[0] if len(problems) == len(devices) else ""


def _edge_tpu_name(device: Mapping[str, Any]) -> str:
    links = {"pcie": "PCIe", "usb3": "USB 3", "usb2": "USB 2", "usb": "USB"}
    return f"a Coral Edge TPU on {links.get(str(device.get('link')), device.get('link'))}"


def _gpu_name(device: Mapping[str, Any]) -> str:
    name = device.get("name") or device.get("id")
    return f"a discrete NVIDIA GPU ({name})" if name else "a discrete NVIDIA GPU"


def _an(kind: str) -> str:
    words = {"virtual-machine": "a virtual machine", "raspberry-pi": "a Raspberry Pi", "unknown": "an unknown machine"}
    return words.get(kind, f"a {kind}")


_REASONS: Mapping[Marker, Callable[[Mapping[str, Any]], str]] = {
    "jetson": _no_jetson,
    "edgetpu": _no_edge_tpu,
    "cuda": _no_gpu,
}
