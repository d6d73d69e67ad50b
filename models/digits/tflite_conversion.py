"""TensorFlow Lite's five precisions, as the checks of these recipes convert to them, and what quantized tensors hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PRECISIONS = ("fp32", "dynamic", "fp16", "int8", "full_int8")


def convert(saved_model: Path, precision: str, calibration: Array, quantized_type: str = "int8") -> bytes:
    """The ``.tflite`` file. ``calibration`` (N, height, width, channels) is what int8 and full_int8 are calibrated on, one by one;
    ``quantized_type`` is that of full_int8's input and outputs.
    """
    import tensorflow as tf

    def samples() -> Iterator[list[Array]]:
        for picture in calibration:
            yield [picture[np.newaxis]]

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in ("int8", "full_int8"):
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if precision == "full_int8":
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(quantized_type)
    return bytes(converter.convert())


def quantize(values: Array, tensor: dict[str, Any]) -> Array:
    """Real values as the tensor takes them, which the interpreter's details describe: (value - zero point) * scale is real."""
    scale, zero_point = tensor["quantization"]
    if not scale:
        return values
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(values: Array, tensor: dict[str, Any]) -> Array:
    """The real values of what the tensor holds."""
    scale, zero_point = tensor["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale) if scale else values
