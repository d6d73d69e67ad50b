"""Evaluation and calibration sets: loading them, checking them, and drawing pictures where a card has none."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, overload

from .cards import DataSource, Evaluation, ModelCard
from .detection.annotations import AnnotatedPicture, Annotations, read_annotations
from .detection.label_map import read_label_map
from .errors import EvaluationDataError
from .preprocessing import check_picture
from .zoo import FetchedData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


FEW_CALIBRATION_PICTURES = 32
"""So few are told. TensorFlow's guide to post-training quantization speaks of a few hundred."""


@dataclass(frozen=True)
class ImageSet:
    """Pictures with their labels.

    ``images``: arrays of ``(height, width)`` or ``(height, width, channels)``, of integers or floats as they are stored;
    pictures from a folder are read anew each time, so that a large set need not fit into memory. ``labels``: ``int64`` indices
    into the model's output, ``(N,)``, or None. ``names``: for messages. ``sha256``: the digest of pixels and labels.
    ``picture_digests``: one a picture, equal for equal pixels however they are stored. ``annotations``: what is in
    each picture of a detection set, in the order of the pictures, or None.
    """

    images: Sequence[NDArray[Any]]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]
    sha256: str
    picture_digests: tuple[str, ...]
    annotations: Annotations | None = None

    def __len__(self) -> int:
        return len(self.images)


def load_images(source: DataSource, card: ModelCard, fetched: FetchedData | None = None) -> ImageSet:
    """Load and check the set that ``source``, the evaluation or calibration of ``card``, describes.

    ``fetched`` is what :func:`zoo.fetch_data` gave; it may be left out for files beside the card and for seeded pictures. Raises
    :class:`EvaluationDataError` with the file and the row at fault.
    """
    if card.task == "classification":
        _label_names(card)  # a list that does not fit the card is told, whoever uses the names
    if source.seed is not None and source.count is not None:
        return seeded_images(card, source.count, source.seed)
    if fetched is None or fetched.path is None:
        if source.file is None:
            raise EvaluationDataError(
                f"{card.path}: the data set at {source.url} has not been fetched yet; fetch it before it is loaded."
            )
        fetched = FetchedData(card.directory / source.file, card.directory)
    path = fetched.path
    assert path is not None
    if not path.exists():
        raise EvaluationDataError(f"{card.path}: there is no data set at {path}; put it there or correct the card.")
    images: Sequence[NDArray[Any]]
    if isinstance(source, Evaluation) and source.annotations is not None:
        return _annotated_images(source, card, path, (fetched.root or card.directory) / source.annotations)
    if path.is_dir():
        names, labels = _folder_listing(source, card, path, fetched.root or card.directory)
        images = _PictureFiles([path / name for name in names], card)
    else:
        if source.labels is not None:
            raise EvaluationDataError(
                f"{card.path}: {path} is a file with labels of its own; remove 'labels', which is for folders."
            )
        array, labels = _read_npz(source, card, path)
        images = list(array)
        names = [f"{index} of {path.name}" for index in range(len(images))]
    if isinstance(source, Evaluation) and source.top1 is not None and labels is None:
        raise EvaluationDataError(f"{card.path}: {path} has no labels, which evaluation.top1 needs; add labels or remove top1.")
    image_set = _digested(images, labels, names, card)
    _check_scale(image_set, card, path)
    return image_set


def _annotated_images(source: Evaluation, card: ModelCard, path: Path, annotations_file: Path) -> ImageSet:
    """The pictures that a COCO file lists, of a folder or of an ``.npz``."""
    names_file = None if card.labels.file is None else card.directory / card.labels.file
    annotations = read_annotations(
        annotations_file, classes=card.labels.count, names=_label_names(card), names_file=names_file, limit=source.limit
    )
    listed = annotations.pictures
    images: Sequence[NDArray[Any]]
    if path.is_dir():
        names = [_annotated_name(picture, annotations_file, path) for picture in listed]
        for name, picture in zip(names, listed, strict=True):
            _check_listed_size(picture, _picture_size(path / name, card), annotations_file, name)
        images = _PictureFiles([path / name for name in names], card)
    else:
        array, _ = _read_npz(source, card, path)
        if len(array) != len(listed):
            raise EvaluationDataError(
                f"{path} has {len(array)} images and {annotations_file} lists {len(listed)}; expected as many, in the same order."
            )
        images = list(array)
        names = [picture.file or f"{index} of {path.name}" for index, picture in enumerate(listed)]
        for picture, image, name in zip(listed, images, names, strict=True):
            _check_listed_size(picture, (image.shape[1], image.shape[0]), annotations_file, name)
    image_set = replace(_digested(images, None, names, card), annotations=annotations)
    _check_scale(image_set, card, path)
    return image_set


def _annotated_name(picture: AnnotatedPicture, annotations_file: Path, folder: Path) -> str:
    where = f"{annotations_file}: image {picture.id}"
    if picture.file is None:
        raise EvaluationDataError(f"{where} has no file_name, which a folder of pictures needs; add it.")
    name = PurePosixPath(picture.file)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise EvaluationDataError(f"{where} has the file {picture.file!r}, which is not inside {folder}; correct it.")
    if not os.path.isfile(folder / name):  # noqa: PTH113  (Path.is_file raises for names that no file can have)
        raise EvaluationDataError(f"{where}: the picture {folder / name} is missing; put it there or remove the image.")
    return name.as_posix()


def _check_listed_size(picture: AnnotatedPicture, size: tuple[int, int], annotations_file: Path, name: str) -> None:
    if size != (picture.width, picture.height):
        raise EvaluationDataError(
            f"{annotations_file}: image {picture.id} is listed with {picture.width} x {picture.height} pixels (width x height), but {name} "
            f"has {size[0]} x {size[1]}; correct the one that is wrong."
        )


def seeded_images(card: ModelCard, count: int, seed: int) -> ImageSet:
    """``count`` pictures of the model's size drawn from ``seed``: the same on every machine and with every NumPy.

    Each is a coarse grid of random colours, two to nine cells a side, smoothed to the full size, so that the pictures differ in
    what a network reacts to, as plain noise does not. ``uint8`` where the card's maximum is 255, else ``float32`` in whole
    steps.
    """
    import numpy as np

    # RandomState's stream is frozen, and all arithmetic is on integers: no rounding differs between machines.
    random = np.random.RandomState(seed)
    height, width, channels = card.input.height, card.input.width, card.input.channels
    maximum = max(int(card.preprocessing.maximum), 1)
    images: list[NDArray[Any]] = []
    for _ in range(count):
        cells = int(random.randint(2, 10, dtype=np.int64))
        grid = random.randint(0, maximum + 1, size=(cells, cells, channels), dtype=np.int64)
        picture = _smoothed(_smoothed(grid, height, axis=0), width, axis=1)
        images.append(picture.astype(np.uint8 if card.preprocessing.maximum == 255 else np.float32))
    names = [f"{index} of seed {seed}" for index in range(count)]
    return _digested(images, None, names, card)


def check_disjoint(evaluation: ImageSet, calibration: ImageSet, card: ModelCard) -> None:
    """Raise :class:`EvaluationDataError` where a picture is in both sets: a model calibrated on it looks better than it is."""
    evaluated = dict(zip(evaluation.picture_digests, evaluation.names, strict=True))
    shared = [
        (name, evaluated[digest])
        for name, digest in zip(calibration.names, calibration.picture_digests, strict=True)
        if digest in evaluated
    ]
    if shared:
        first, same = shared[0]
        raise EvaluationDataError(
            f"{card.path}: {len(shared)} of {len(calibration)} calibration pictures are in the evaluation set too, the first "
            f"being {first} "
            f"(in the evaluation set: {same}); take them out of one of the two."
        )


def require_calibration_pictures(calibration: ImageSet, card: ModelCard) -> str | None:
    """Raise :class:`EvaluationDataError` where there are fewer than two different pictures: what an activation can be is not seen in one.

    Returns a sentence for the user where there are fewer than :data:`FEW_CALIBRATION_PICTURES` of them, ``None`` of more.
    """
    different = len(set(calibration.picture_digests))
    if different < 2:
        again = " again and again" if len(calibration) > 1 else ""
        raise EvaluationDataError(
            f"{card.path}: the calibration set holds one picture{again}, and the range of an activation cannot be told from that: "
            "give it 100 pictures or more."
        )
    if different >= FEW_CALIBRATION_PICTURES:
        return None
    return (
        f"{card.name} is calibrated on {different} different pictures only: an activation that is larger with others is cut off; give it "
        "100 or more"
    )


def _smoothed(grid: NDArray[np.int64], size: int, axis: int) -> NDArray[np.int64]:
    """Linear interpolation of ``grid`` to ``size`` points along ``axis``, in integers."""
    import numpy as np

    cells = grid.shape[axis]
    steps = max(size - 1, 1)
    position = np.arange(size, dtype=np.int64) * (cells - 1)  # in units of 1 / steps cells
    low = position // steps
    high = np.minimum(low + 1, cells - 1)
    shape = [1] * grid.ndim
    shape[axis] = size
    weight = (position % steps).reshape(shape)
    smoothed: NDArray[np.int64] = (np.take(grid, low, axis) * (steps - weight) + np.take(grid, high, axis) * weight) // steps
    return smoothed


class _PictureFiles(Sequence["NDArray[Any]"]):
    """Pictures in files, read when they are asked for."""

    def __init__(self, paths: Sequence[Path], card: ModelCard) -> None:
        self._paths = paths
        self._card = card

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[Any]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[Any] | Sequence[NDArray[Any]]:
        if isinstance(index, slice):
            return _PictureFiles(self._paths[index], self._card)
        return read_picture(self._paths[index], str(self._card.path))


def read_picture(path: Path, asked_by: str) -> NDArray[Any]:
    """The pixels of one file: (height, width) for grey, (height, width, 3) for anything in colour.

    Raises :class:`EvaluationDataError`, which begins with ``asked_by``.
    """
    import numpy as np

    with _opened(path, asked_by) as picture:
        if picture.mode in ("L", "RGB", "F") or picture.mode.startswith("I"):  # I: 16 or 32 bits of grey
            return np.asarray(picture)
        if picture.mode in ("1", "LA", "La"):
            return np.asarray(picture.convert("L"))
        return np.asarray(picture.convert("RGB"))  # palette, alpha, CMYK, ...: as Keras and torchvision read them


def _picture_size(path: Path, card: ModelCard) -> tuple[int, int]:
    """Width and height, from the beginning of the file alone."""
    with _opened(path, str(card.path)) as picture:
        width, height = picture.size
        return width, height


@contextmanager
def _opened(path: Path, asked_by: str) -> Iterator[Image.Image]:
    """The picture; what goes wrong with it, here or in the block, is said in a sentence."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError:
        raise EvaluationDataError(f"{asked_by}: the picture {path} is missing; put it there or correct the set.") from None
    except UnidentifiedImageError:
        raise EvaluationDataError(f"{asked_by}: {path} is not a picture that can be read; replace it.") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise EvaluationDataError(f"{asked_by}: the picture {path} cannot be read ({reason}); replace it.") from None


def _folder_listing(source: DataSource, card: ModelCard, folder: Path, root: Path) -> tuple[list[str], NDArray[np.int64] | None]:
    """The pictures' names relative to ``folder``, and their labels where there is a CSV."""
    import numpy as np

    if source.labels is None:
        found = sorted(
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.is_file() and not file.name.startswith(".") and file.suffix.lower() in picture_suffixes()
        )[: source.limit]
        if not found:
            raise EvaluationDataError(f"{card.path}: there is no picture in {folder}; put some there or correct the card.")
        return found, None
    table = root / source.labels
    to_index = _label_reader(card)
    names: list[str] = []
    labels: list[int] = []
    rows: dict[str, int] = {}
    for row, name, label in _rows(table, card):
        where = f"{table}, row {row}"
        if source.limit is not None and len(names) == source.limit:
            break
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
            raise EvaluationDataError(
                f"{where}: the file {name!r} is not inside {folder}; give its path relative to that folder."
            )
        key = PurePosixPath(name).as_posix()
        if key in rows:
            raise EvaluationDataError(f"{where}: {name!r} is in row {rows[key]} already; remove one of the two.")
        rows[key] = row
        if not os.path.isfile(folder / name):  # noqa: PTH113  (Path.is_file raises for names that no file can have)
            raise EvaluationDataError(f"{where}: the picture {folder / name} is missing; put it there or remove the row.")
        labels.append(to_index(label, where))
        names.append(name)
    if not names:
        raise EvaluationDataError(f"{table} lists no pictures; add rows with a file and a label.")
    return names, np.array(labels, np.int64)


def _rows(table: Path, card: ModelCard) -> Iterator[tuple[int, str, str]]:
    """Row number (as an editor counts lines), file and label of each row of a CSV with the columns ``file`` and ``label``."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [cell.strip() for cell in next(reader, [])]
            if "file" not in header or "label" not in header:
                raise EvaluationDataError(
                    f"{table} begins with the columns {header}; expected a first line with 'file' and 'label'."
                )
            file_column, label_column = header.index("file"), header.index("label")
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) > len(header):
                    raise EvaluationDataError(
                        f"{table}, row {reader.line_num}: found {len(cells)} cells, expected {len(header)}; quote commas."
                    )
                name = cells[file_column].strip() if file_column < len(cells) else ""
                label = cells[label_column].strip() if label_column < len(cells) else ""
                if not name:
                    raise EvaluationDataError(
                        f"{table}, row {reader.line_num}: the file is missing; fill it in or remove the row."
                    )
                if not label:
                    raise EvaluationDataError(f"{table}, row {reader.line_num}: the label of {name!r} is missing; fill it in.")
                yield reader.line_num, name, label
    except FileNotFoundError:
        raise EvaluationDataError(
            f"{card.path}: there is no file {table}, which 'labels' names; put it there or correct the card."
        ) from None
    except OSError as error:
        raise EvaluationDataError(f"{table} cannot be read ({error.strerror}); check its permissions.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationDataError(f"{table} is not a CSV in UTF-8 ({error}); save it as one.") from None


def _label_reader(card: ModelCard) -> Callable[[str, str], int]:
    """A function from a CSV's label (an integer, or a name from the labels file) and its place to the index in the model's "
    "output."""
    names = _label_names(card)

    def to_index(label: str, where: str) -> int:
        try:
            number = int(label)
        except ValueError:
            if names is None:
                raise EvaluationDataError(
                    f"{where}: the label {label!r} is no integer, and the card has no labels.file to find it in; add one or use "
                    "integers."
                ) from None
            if label not in names:
                raise EvaluationDataError(
                    f"{where}: the label {label!r} is not in {card.directory / str(card.labels.file)}; correct it."
                ) from None
            return names[label]  # a name says which output it is: the offset is for numbers
        return _in_range(number, where, card)

    return to_index


def _in_range(number: int, where: str, card: ModelCard) -> int:
    index = number + card.labels.offset
    if not 0 <= index < card.labels.count:
        first, last = -card.labels.offset, card.labels.count - 1 - card.labels.offset
        raise EvaluationDataError(
            f"{where}: the label {number} is out of range; expected {first} to {last}, as the card's [labels] say."
        )
    return index


def _label_names(card: ModelCard) -> dict[str, int] | None:
    if card.labels.file is None:
        return None
    path = card.directory / card.labels.file
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EvaluationDataError(
            f"{card.path}: labels.file {path} cannot be read ({error.strerror}); correct the card."
        ) from None
    except UnicodeDecodeError:
        raise EvaluationDataError(f"{card.path}: labels.file {path} is not UTF-8; save it as UTF-8.") from None
    if path.suffix == ".pbtxt":
        return read_label_map(path, text, card.labels.count)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != card.labels.count:
        raise EvaluationDataError(
            f"{card.path}: {path} has {len(lines)} names, labels.count is {card.labels.count}; correct one of the two."
        )
    names: dict[str, int] = {}
    for index, line in enumerate(lines):
        # Two of ImageNet's classes share a name ("crane", "maillot"): such a name cannot say which one is meant.
        names[line.strip()] = -1 if line.strip() in names else index
    return {name: index for name, index in names.items() if index >= 0}


def _read_npz(source: DataSource, card: ModelCard, path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    import zipfile
    import zlib

    import numpy as np

    try:
        # What NumPy opens itself stays open where the archive is damaged.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise EvaluationDataError(f"{path} is not an .npz with 'images' and 'labels'; save it with numpy.savez.")
            if "images" not in loaded.files:
                raise EvaluationDataError(f"{path} holds {', '.join(loaded.files) or 'nothing'}; expected 'images' and 'labels'.")
            images = loaded["images"]
            labels = loaded["labels"] if "labels" in loaded.files and card.task == "classification" else None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationDataError(
            f"{path} is not a readable .npz of plain arrays ({reason}); save it again with numpy.savez."
        ) from None
    except OSError as error:
        raise EvaluationDataError(f"{path} cannot be read ({error.strerror or error}); check the file.") from None
    for name, array in (("images", images), ("labels", labels)):
        if array is not None and not isinstance(array, np.ndarray):
            raise EvaluationDataError(f"{path} holds {name!r}, which is no array; save it again with numpy.savez.")
    if images.ndim not in (3, 4):
        raise EvaluationDataError(
            f"{path}: images have the shape {images.shape}; expected (N, height, width) or (N, height, width, channels)."
        )
    if not len(images):
        raise EvaluationDataError(f"{path} holds no pictures; add some.")
    if labels is None:
        return images[: source.limit], None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise EvaluationDataError(
            f"{path}: labels have the shape {labels.shape} and the type {labels.dtype}; expected integers of shape (N,)."
        )
    if len(labels) != len(images):
        raise EvaluationDataError(f"{path} has {len(images)} images but {len(labels)} labels; expected one label an image.")
    images, labels = images[: source.limit], labels[: source.limit]
    return images, np.array([_in_range(int(label), f"{path}, row {row}", card) for row, label in enumerate(labels)], np.int64)


def _digested(
    images: Sequence[NDArray[Any]], labels: NDArray[np.int64] | None, names: Sequence[str], card: ModelCard
) -> ImageSet:
    """Look at every picture once: is it one, and what is its digest?"""
    whole = hashlib.sha256()
    digests = []
    for index, name in enumerate(names):
        image = images[index]
        check_picture(image, f"{card.path}: picture {name}", card.preprocessing.maximum)
        digest = picture_digest(image)
        digests.append(digest)
        whole.update(f"{digest} {'' if labels is None else labels[index]}\n".encode())
    return ImageSet(images, labels, tuple(names), whole.hexdigest(), tuple(digests))


def picture_digest(image: NDArray[Any]) -> str:
    """Equal for equal pixels, whether they are stored as bytes or as floats, as (H, W) or as (H, W, 1)."""
    import numpy as np

    picture = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture, "<f4").tobytes())
    return digest.hexdigest()


def _check_scale(image_set: ImageSet, card: ModelCard, path: Path) -> None:
    """Floats from 0 to 1 in a set whose pixels should go up to 255 have been scaled already; scaling them again makes them all "
    "black."""
    maximum = card.preprocessing.maximum
    if maximum < 2:
        return
    for index in range(len(image_set)):
        image = image_set.images[index]
        if image.dtype.kind != "f" or image.max() > 1:
            return
    raise EvaluationDataError(
        f"{path}: all pixels are floats from 0 to 1, but preprocessing.maximum in {card.path} is {maximum:g}; set maximum = 1.0."
    )


def picture_suffixes() -> set[str]:
    """How the names of files end that Pillow reads, in lower case."""
    from PIL import Image

    return set(Image.registered_extensions())
