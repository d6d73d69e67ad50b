"""Which kind of model a file or folder is, told by its content; by its name only where content does not tell."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from . import InitError

KINDS = "a .keras or .h5 file, a SavedModel folder, a .tflite, an .onnx, or a .pt or .pth file with a state dict"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"
_SAVE_STATE_DICT = "torch.save(model.state_dict(), 'weights.pt')"


@dataclass(frozen=True)
class ModelFile:
    """``format`` is that of a checkpoint in a model card."""

    path: Path
    format: str

    @property
    def stem(self) -> str:
        return self.path.name if self.path.is_dir() else self.path.name.partition(".")[0] or self.path.stem


def recognise(path: Path) -> ModelFile:
    """The model at ``path``. Raises :class:`InitError` where there is none, or none that a card can describe."""
    if not path.exists():
        raise InitError(f"there is no model at {path}: name {KINDS}")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return ModelFile(path, "saved_model")
        inside = sorted(file.parent for file in path.glob("*/saved_model.pb"))
        hint = f"; {inside[0]} does" if inside else f", so it is no SavedModel: name {KINDS}"
        raise InitError(f"{path} is a folder without saved_model.pb{hint}")
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
        return ModelFile(path, _format(path, head))
    except OSError as error:
        raise InitError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None


def _format(path: Path, head: bytes) -> str:
    suffix = path.suffix.lower()
    if not head:
        raise InitError(f"{path} is empty: name {KINDS}")
    if head[4:8] == b"TFL3":
        return "tflite"
    if head == _HDF5:
        if path.name.lower().endswith(".weights.h5"):
            raise InitError(
                f"{path} holds weights without their architecture: save the whole model with model.save('model.keras')"
            )
        return "keras"
    if head[:4] == b"PK\x03\x04":
        return _format_of_archive(path)
    if suffix in (".pt", ".pth", ".bin", ".ckpt") and head[:1] == _PICKLE:
        return "torch_weights"
    if suffix == ".onnx":
        return "onnx"
    if suffix == ".pb":
        raise InitError(
            f"{path} is a graph that does not name its inputs and outputs: write a card for it by hand (docs/reference/model-cards.md, "
            "format frozen_graph), or export a SavedModel"
        )
    raise InitError(f"{path} is no model that is known here: name {KINDS}")


def _format_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InitError(f"{path} begins as an archive and was cut or damaged ({error}): copy it again") from None
    if "config.json" in names:
        return "keras"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise InitError(
            f"{path} is a TorchScript program, which would have to be run to be read: save the weights alone with "
            f"{_SAVE_STATE_DICT}, or the model as ONNX with torch.onnx.export"
        )
    if any(name.endswith("data.pkl") for name in names):
        return "torch_weights"
    if any(name.endswith("saved_model.pb") for name in names):
        raise InitError(f"{path} is an archive with a SavedModel: unpack it and name the folder")
    if "model.weights.h5" in names:
        raise InitError(f"{path} holds weights without their architecture: save the whole model with model.save('model.keras')")
    raise InitError(f"{path} is an archive, and no model that is known here: name {KINDS}")
