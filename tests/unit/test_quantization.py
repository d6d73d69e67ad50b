"""Between real numbers and the integers of a quantized tensor, and batches for calibration."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent.failures import BuildError
from pytest_inference_gate.agent.quantization import calibration_batches, dequantize, quantize


def test_the_scale_and_the_zero_point_are_applied_and_the_range_is_kept() -> None:
    values = numpy.array([0.0, 1.0, -1.0, 0.26, 100.0, -100.0], numpy.float32)
    assert quantize(values, numpy.int8, 0.5, 10).tolist() == [10, 12, 8, 11, 127, -128]
    assert quantize(values, numpy.uint8, 0.5, 10).tolist() == [10, 12, 8, 11, 210, 0]
    assert quantize(values, numpy.int8, 0.5, 10).dtype == numpy.int8


def test_integers_without_a_scale_are_rounded() -> None:
    assert quantize(numpy.array([0.6, 255.4, 300.0, -3.0], numpy.float32), numpy.uint8, 0.0, 0).tolist() == [1, 255, 255, 0]


def test_real_tensors_are_left_as_they_are() -> None:
    values = numpy.array([0.3, -7.5], numpy.float32)
    assert quantize(values, numpy.float32, 0.0, 0).tolist() == values.tolist()
    assert dequantize(values, 0.0, 0).tolist() == values.tolist()


@given(st.lists(st.floats(-1, 1), min_size=1), st.floats(0.01, 10), st.integers(-20, 20))
def test_there_and_back_is_off_by_half_a_step_at_most(values: list[float], scale: float, zero_point: int) -> None:
    real = numpy.array(values) * 100 * scale
    back = dequantize(quantize(real, numpy.int8, scale, zero_point), scale, zero_point)
    assert back.dtype == numpy.float32
    assert numpy.abs(back - real).max() <= scale * 0.501


@pytest.mark.parametrize(("count", "size", "batches"), [(7, 2, 3), (6, 2, 3), (2, 5, 1), (3, 3, 1), (1, 1, 1)])
def test_calibration_has_whole_batches_and_at_least_one(tmp_path: Path, count: int, size: int, batches: int) -> None:
    numpy.save(tmp_path / "pictures.npy", numpy.arange(count * 4, dtype=numpy.float32).reshape(count, 2, 2))
    found = list(calibration_batches(str(tmp_path / "pictures.npy"), size))
    assert [batch.shape for batch in found] == [(size, 2, 2)] * batches
    assert found[0][0].tolist() == [[0, 1], [2, 3]]


def test_no_calibration_pictures_are_an_error(tmp_path: Path) -> None:
    numpy.save(tmp_path / "none.npy", numpy.zeros((0, 2, 2), numpy.float32))
    with pytest.raises(BuildError, match="is empty"):
        list(calibration_batches(str(tmp_path / "none.npy"), 2))
