"""Between real numbers and the integers of a quantized tensor, and batches for calibration."""

from typing import Any, Iterator  # noqa: F401

import numpy

from .failures import BuildError


def is_integer(dtype):
    # type: (Any) -> bool
    return bool(numpy.issubdtype(dtype, numpy.integer))


def quantize(array, dtype, scale, zero_point):
    # type: (Any, Any, float, int) -> Any
    """Real values as the tensor's own type: ``value / scale + zero_point``, rounded and held to its range; a plain cast without a scale."""
    dtype = numpy.dtype(dtype)
    if not is_integer(dtype):
        return array.astype(dtype)
    limits = numpy.iinfo(dtype)
    values = numpy.asarray(array, dtype=numpy.float64)
    if scale:
        values = values / scale + zero_point
    return numpy.clip(numpy.rint(values), limits.min, limits.max).astype(dtype)


def dequantize(array, scale, zero_point):
    # type: (Any, float, int) -> Any
    """The real values (float32) that a quantized tensor means; unchanged values without a scale."""
    if scale and is_integer(array.dtype):
        return ((array.astype(numpy.float64) - zero_point) * scale).astype(numpy.float32)
    return array.astype(numpy.float32)


def calibration_batches(path, size):
    # type: (str, int) -> Iterator[Any]
    """Batches of ``size`` float32 pictures; the pictures that fill no whole batch are left out, unless there is none else."""
    pictures = numpy.load(path, mmap_mode="r", allow_pickle=False)
    if len(pictures) == 0:
        raise BuildError("the calibration set %s is empty" % path)
    if len(pictures) < size:
        pictures = numpy.concatenate([pictures] * (-(-size // len(pictures))))
    for start in range(0, len(pictures) - size + 1, size):
        yield numpy.array(pictures[start : start + size], dtype=numpy.float32)
