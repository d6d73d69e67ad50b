"""Which cases a suite begins with: the backends that are installed, in the precisions that they make of the model's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..cards import CALIBRATED_PRECISIONS
from .described_model import DescribedModel

_ON_A_CPU = ("tensorflow", "tflite", "onnxruntime", "torch")
_NOT_ON_A_CPU = {"torch": ("fp16",)}
# What other devices could run, for a comment: cases that a plain machine skips.
_ELSEWHERE = {
    "edgetpu": ("int8", "full_int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tftrt": ("fp32", "fp16", "int8"),
    "torch2trt": ("fp32", "fp16", "int8"),
}
_ELSEWHERE_TAKES = {
    "edgetpu": ("keras", "saved_model"),
    "tensorrt": ("keras", "saved_model", "onnx", "torch_weights"),
    "tftrt": ("keras", "saved_model"),
    "torch2trt": ("keras", "saved_model", "onnx", "torch_weights"),
}
EXTRAS = {"tensorflow": "tensorflow", "tflite": "tflite", "onnxruntime": "onnx", "torch": "torch"}
"""The extra of this package with which a backend comes."""
EXTRA_OF_FORMAT = {
    "keras": "tensorflow",
    "saved_model": "tensorflow",
    "tflite": "tflite",
    "onnx": "onnx",
    "torch_weights": "torch",
}
"""The extra that reads a model of this format and runs it as it is."""


def install_command(format: str) -> str:
    """What brings the runtime that a model of this format needs."""
    more = " torchvision" if format == "torch_weights" else ""
    return f'pip install "pytest-inference-gate[{EXTRA_OF_FORMAT[format]}]"{more}'


def choose_backends(model: DescribedModel, probe: Mapping[str, Any], calibrated: bool) -> dict[str, list[str]]:
    """Backends with their precisions, in the order of the gate's tables; ``calibrated``: there are pictures to calibrate with."""
    chosen = {}
    for name in _ON_A_CPU:
        told = probe["backends"].get(name, {})
        if not told.get("can_convert") or not told.get("can_run") or model.file.format not in told.get("source_formats", ()):
            continue
        if name == "torch" and model.file.format in ("keras", "saved_model"):
            continue  # a third hand copy: on a processor, the other backends are what is shipped
        if model.precision is not None:
            precisions = [model.precision]  # of a file that has been quantized, or not, already
        else:
            both = set(told.get("precisions_convert", ())) & set(told.get("precisions_run", ()))
            precisions = [precision for precision in told.get("precisions_run", ()) if precision in both]
        precisions = [
            precision
            for precision in precisions
            if precision not in _NOT_ON_A_CPU.get(name, ())
            and (calibrated or model.precision is not None or precision not in CALIBRATED_PRECISIONS)
        ]
        if name == "tflite":  # as the tables of the documentation have them
            precisions.sort(key=("fp32", "dynamic", "fp16", "int8", "full_int8").index)
        if precisions:
            chosen[name] = precisions
    return chosen


def elsewhere(model: DescribedModel, calibrated: bool) -> dict[str, list[str]]:
    """What boards and GPUs could run besides."""
    if model.precision in CALIBRATED_PRECISIONS:
        return {"edgetpu": [model.precision]}
    return {
        name: kept
        for name, precisions in _ELSEWHERE.items()
        if model.file.format in _ELSEWHERE_TAKES[name]
        and (kept := [precision for precision in precisions if calibrated or precision not in CALIBRATED_PRECISIONS])
    }
