"""The user's pictures and what they are labelled with: a folder with a sub-folder for each class, a CSV, an ``.npz``, or pictures alone.

Classes are numbered in the order of their folders' names, as ``image_dataset_from_directory`` of Keras and ``ImageFolder`` of torchvision
number them. Nothing of the user's is moved or changed.
"""

from __future__ import annotations

import csv
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..datasets import picture_suffixes, read_picture
from . import InitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Part = Literal["", "evaluation", "calibration"]

_FILE_COLUMNS = ("file", "filename", "file_name", "path", "filepath", "image", "picture")
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
# Folders into which people divide a set; an evaluation on the first of these that is there.
_HELD_OUT = ("test", "testing", "evaluation", "eval", "validation", "valid", "val")
_TRAINED_ON = ("train", "training")
# Names of the arrays in an .npz: pictures and labels to evaluate on, then those to calibrate with.
_ARRAYS = (("images", "labels"), ("x_test", "y_test"), ("x_val", "y_val"), ("x", "y"), ("X", "y"))
_TRAINING_ARRAYS = (("x_train", "y_train"),)


@dataclass(frozen=True)
class Entry:
    """One picture: its path relative to the folder (its number in an ``.npz``), its class (an index of ``classes``, or a number of the
    user's own; None without labels), and the part of the user's own division that it is in."""

    place: str
    label: int | None
    part: Part = ""


@dataclass(frozen=True)
class LabelledPictures:
    """``source``: what the user named. ``folder``: what the places of entries are relative to; the ``.npz`` itself where there is one.

    ``classes``: names, by label; empty where labels are numbers already, or are not there. ``read(entry)`` gives the pixels and raises
    :class:`EvaluationDataError`. ``arrays``: of an ``.npz``.
    """

    source: Path
    folder: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    read: Callable[[Entry], NDArray[Any]]
    is_npz: bool = False

    @property
    def labelled(self) -> bool:
        return self.entries[0].label is not None


def find_pictures(path: Path) -> LabelledPictures:
    """What is at ``path``. Raises :class:`InitError` with one sentence where that is no usable set."""
    if not path.exists():
        raise InitError(f"there are no pictures at {path}: name a folder with a sub-folder for each class, a CSV or an .npz")
    try:
        if path.is_dir():
            found = _in_folder(path)
        elif path.suffix.lower() == ".npz":
            found = _in_npz(path)
        elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
            found = _in_csv(path)
        else:
            raise InitError(f"{path} is no set of pictures: name a folder with a sub-folder for each class, a CSV or an .npz")
    except OSError as error:
        raise InitError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None
    labels = {entry.label for entry in found.entries}
    if len(labels) == 1 and None not in labels:
        name = f" ({found.classes[0]})" if found.classes else ""
        raise InitError(f"all pictures of {path} are of one class{name}: a classifier is judged on two or more")
    return found


# Folders


def _in_folder(path: Path) -> LabelledPictures:
    folders = _sub_folders(path)
    entries: list[Entry] = []
    classes: list[str] = []
    parts = _division(folders)
    if parts is not None:
        classes = sorted({folder.name for part in parts for folder in _sub_folders(part)})
        for part_folder, part in parts.items():
            for folder in _sub_folders(part_folder):
                entries += _of_class(folder, path, classes.index(folder.name), part)
        _require_each(classes, entries, path)
    elif folders and any(_pictures(folder) for folder in folders):
        classes = [folder.name for folder in folders]
        for label, folder in enumerate(folders):
            entries += _of_class(folder, path, label, "")
        _require_each(classes, entries, path)
    else:
        places = _pictures(path)
        if not places:
            raise InitError(f"there is no picture in {path}: put some into a sub-folder for each class")
        entries = [Entry(place.relative_to(path).as_posix(), None) for place in places]
    return LabelledPictures(path, path, tuple(entries), tuple(classes), _reader(path))


def _reader(folder: Path) -> Callable[[Entry], NDArray[Any]]:
    return lambda entry: read_picture(folder / entry.place, str(folder))


def _sub_folders(path: Path) -> list[Path]:
    found = [folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith((".", "__"))]
    return sorted(found, key=lambda folder: folder.name)


def _pictures(folder: Path) -> list[Path]:
    """All the pictures below, in the order of their paths. Links are followed, but not in circles."""
    suffixes = picture_suffixes()
    found = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(parent, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
    return sorted(found)


def _of_class(folder: Path, root: Path, label: int, part: Part) -> list[Entry]:
    return [Entry(picture.relative_to(root).as_posix(), label, part) for picture in _pictures(folder)]


def _division(folders: Sequence[Path]) -> dict[Path, Part] | None:
    """Where the sub-folders are ``train``, ``val``, ``test`` with the classes one level below: what each is used for."""
    names = {folder.name.lower(): folder for folder in folders}
    held_out = [names[name] for name in _HELD_OUT if name in names and _sub_folders(names[name])]
    trained_on = [names[name] for name in _TRAINED_ON if name in names and _sub_folders(names[name])]
    if not held_out or not set(names) <= {*_HELD_OUT, *_TRAINED_ON}:
        return None
    calibration = trained_on[0] if trained_on else held_out[1] if len(held_out) > 1 else None
    division: dict[Path, Part] = {held_out[0]: "evaluation"}
    if calibration is not None:
        division[calibration] = "calibration"
    return division


def _require_each(classes: Sequence[str], entries: Sequence[Entry], path: Path) -> None:
    """A class without pictures shifts the numbers of those after it, in training as here: it is never passed over."""
    seen = {entry.label for entry in entries}
    missing = [name for label, name in enumerate(classes) if label not in seen]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InitError(
            f"the folder of the class {missing[0]!r}{more} in {path} has no pictures: put some there, or remove it if it is no class"
        )


# CSV


def _in_csv(path: Path) -> LabelledPictures:
    rows = _rows(path)
    files = [Path(os.path.normpath(path.parent / name)) for name, _, _ in rows]
    missing = [(file, row) for file, (_, _, row) in zip(files, rows, strict=True) if not file.is_file()]
    if missing:
        file, row = missing[0]
        more = f", and {len(missing) - 1} more are missing too" if len(missing) > 1 else ""
        raise InitError(f"{path}, row {row}: there is no picture at {file}{more}; paths are relative to the CSV's folder")
    folder = Path(os.path.commonpath([os.path.abspath(file.parent) for file in files]))
    texts = [label for _, label, _ in rows]
    numbered = all(_is_number(text) for text in texts)
    classes: tuple[str, ...] = () if numbered else tuple(sorted(set(texts)))
    index = {name: number for number, name in enumerate(classes)}
    entries: dict[str, Entry] = {}
    for file, text in zip(files, texts, strict=True):
        place = Path(os.path.abspath(file)).relative_to(folder).as_posix()
        entry = Entry(place, int(text) if numbered else index[text])
        if entries.setdefault(place, entry) != entry:
            raise InitError(f"{path} gives {place} two labels: correct one of the rows")
    return LabelledPictures(path, folder, tuple(entries.values()), classes, _reader(folder))


def _rows(path: Path) -> list[tuple[str, str, int]]:
    """File, label and number of each row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = [cell.strip().lower() for cell in next(reader, [])]
            columns = [
                next((header.index(name) for name in names if name in header), None) for names in (_FILE_COLUMNS, _LABEL_COLUMNS)
            ]
            if None in columns:
                raise InitError(
                    f"{path} begins with the columns {', '.join(map(repr, header)) or 'none'}: a first line with file and label is wanted"
                )
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                file, label = (cells[column].strip() if column is not None and column < len(cells) else "" for column in columns)
                if not file or not label:
                    raise InitError(f"{path}, row {reader.line_num}: the {'label' if file else 'file'} is missing; fill it in")
                rows.append((file, label, reader.line_num))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InitError(f"{path} is no CSV in UTF-8 ({error}): save it as one") from None
    if not rows:
        raise InitError(f"{path} lists no pictures: add rows with a file and a label")
    return rows


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


# .npz


def _in_npz(path: Path) -> LabelledPictures:
    import numpy as np

    try:
        # What NumPy opens itself stays open where the archive is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as loaded:
            names = set(loaded.files)
            chosen = next((pair for pair in _ARRAYS if pair[0] in names), None)
            if chosen is None:
                found = ", ".join(sorted(names)[:8]) or "nothing"
                raise InitError(f"{path} holds {found}: expected the arrays 'images' and 'labels' (or x_test and y_test)")
            parts: list[tuple[Part, NDArray[Any], NDArray[Any] | None]] = []
            training = next((pair for pair in _TRAINING_ARRAYS if pair[0] in names), None)
            for part, pair in (("evaluation" if training else "", chosen), ("calibration", training)):
                if pair is not None:
                    labels = loaded[pair[1]] if pair[1] in names else None
                    parts.append((part, loaded[pair[0]], labels))  # type: ignore[arg-type]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InitError(f"{path} is not a readable .npz of plain arrays ({reason}): save it again with numpy.savez") from None
    pictures: dict[str, NDArray[Any]] = {}
    entries: list[Entry] = []
    for part, images, labels in parts:
        for index, label in enumerate(_checked_labels(path, images, labels)):
            place = f"{part or 'picture'} {index}"
            pictures[place] = images[index]
            entries.append(Entry(place, label, part))
    return LabelledPictures(path, path, tuple(entries), (), lambda entry: pictures[entry.place], is_npz=True)


def _checked_labels(path: Path, images: NDArray[Any], labels: NDArray[Any] | None) -> list[int | None]:
    if images.ndim not in (3, 4):
        raise InitError(
            f"{path}: the pictures have the shape {images.shape}, expected (N, height, width) or (N, height, width, channels)"
        )
    if not len(images):
        raise InitError(f"{path} holds no pictures: add some")
    if labels is None:
        return [None] * len(images)
    flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels  # (N, 1), as CIFAR's come with Keras
    if flat.ndim != 1 or flat.dtype.kind not in "iu" or len(flat) != len(images):
        raise InitError(f"{path}: labels are {labels.dtype} of the shape {labels.shape}, expected {len(images)} whole numbers")
    return [int(label) for label in flat]
