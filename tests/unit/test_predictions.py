"""The files in which an agent leaves what a model says."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy
import pytest

from pytest_inference_gate.predictions import read_predictions


def outputs(count: int) -> list[numpy.ndarray]:
    random = numpy.random.RandomState(0)
    return [random.normal(size=(5, number + 1, 3)).astype(numpy.float32) for number in range(count)]


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_the_outputs_of_a_detector_come_in_their_order(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    wanted = outputs(12)  # more than ten: the alphabet puts output_10 before output_2
    save(tmp_path / "found.npz", **{f"output_{number}": array for number, array in enumerate(wanted)})
    found = read_predictions(tmp_path / "found.npz")
    (tmp_path / "found.npz").unlink()
    assert len(found) == 12
    for one, expected in zip(found, wanted, strict=True):
        numpy.testing.assert_array_equal(one, expected)


def test_what_was_packed_by_zipfile_is_mapped_not_read(tmp_path: Path) -> None:
    numpy.save(tmp_path / "output_0.npy", outputs(1)[0])
    with zipfile.ZipFile(tmp_path / "found.npz", "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.write(tmp_path / "output_0.npy", "output_0.npy")
    (found,) = read_predictions(tmp_path / "found.npz")
    assert isinstance(found, numpy.memmap)
    numpy.testing.assert_array_equal(found, outputs(1)[0])


def test_no_pictures_and_one_output_are_read_too(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "none.npz", output_0=numpy.zeros((0, 4), numpy.float32))
    assert read_predictions(tmp_path / "none.npz")[0].shape == (0, 4)
    numpy.save(tmp_path / "one.npy", outputs(1)[0])
    assert len(read_predictions(tmp_path / "one.npy")) == 1


def test_other_arrays_are_said(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "found.npz", output_0=numpy.zeros(2), output_2=numpy.zeros(2))
    with pytest.raises(ValueError, match="found.npz holds output_0, output_2, where output_0, output_1, ... are expected"):
        read_predictions(tmp_path / "found.npz")
