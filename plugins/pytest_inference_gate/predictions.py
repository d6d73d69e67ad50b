"""The files in which an agent leaves what a model says of its pictures, and how it is asked for them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Case

if TYPE_CHECKING:
    import numpy

    Outputs = list[numpy.ndarray[Any, numpy.dtype[Any]]]


def predict_arguments(case: Case, inputs: str, outputs: str) -> dict[str, Any]:
    """What an agent's ``predict`` wants: of a detection model all outputs, in an ``.npz``, of others the one, in an ``.npy``."""
    return {"inputs": inputs, "outputs": outputs, **({"all_outputs": True} if case.card.task == "detection" else {})}


def predictions_name(case: Case, stem: str) -> str:
    """The name of the file that the predictions of the case go into."""
    return f"{stem}.npz" if case.card.task == "detection" else f"{stem}.npy"


def read_predictions(path: Path) -> Outputs:
    """The model's outputs in their order, float32, each with the pictures first: one of an ``.npy``, ``output_0``, ... of an ``.npz``.

    Those of an ``.npz`` are mapped from the file, which may be removed meanwhile: the raw boxes and scores of a few thousand pictures are
    some gigabytes. Raises ValueError for an ``.npz`` without them.
    """
    import numpy

    if not zipfile.is_zipfile(path):
        array: numpy.ndarray[Any, numpy.dtype[Any]] = numpy.load(path, allow_pickle=False)
        return [array]
    with zipfile.ZipFile(path) as archive:
        found = {name.removesuffix(".npy") for name in archive.namelist()}
        names = [f"output_{number}" for number in range(len(found))]
        if not found or found != set(names):
            held = ", ".join(sorted(found)) or "nothing"
            raise ValueError(f"{path.name} holds {held}, where output_0, output_1, ... are expected")
        members = [archive.getinfo(f"{name}.npy") for name in names]
    return [_mapped(path, member) for member in members]


def _mapped(path: Path, member: zipfile.ZipInfo) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """An array as it lies in the archive, where it lies there as it is; else read."""
    import numpy

    with path.open("rb") as stream:
        stream.seek(member.header_offset)
        # 30 bytes, the name and what is called extra: the local header of PKWARE's APPNOTE.TXT, 4.3.7.
        header = stream.read(30)
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if member.compress_type == zipfile.ZIP_STORED:
            stream.seek(lengths, 1)
            if numpy.lib.format.read_magic(stream) == (1, 0):
                shape, fortran, dtype = numpy.lib.format.read_array_header_1_0(stream)
                if not fortran and not dtype.hasobject and 0 not in shape:
                    return numpy.memmap(path, dtype, "r", stream.tell(), shape)
    with numpy.load(path, allow_pickle=False) as loaded:
        array: numpy.ndarray[Any, numpy.dtype[Any]] = loaded[member.filename.removesuffix(".npy")]
        return array
