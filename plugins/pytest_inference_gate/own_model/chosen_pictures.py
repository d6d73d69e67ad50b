"""The pictures that a suite takes: each read once, so that a damaged one is found before a run of the gate finds it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..datasets import picture_digest
from ..errors import EvaluationDataError
from ..preprocessing import check_picture
from . import InitError
from .labelled_pictures import Entry, LabelledPictures
from .picture_split import divide

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEPT_BYTES = 256 * 2**20  # of pixels, for the pictures that are looked at again and again
_DARK = 0.5  # a largest value below this share of what the type can hold may be the scale of the whole set


@dataclass
class ChosenPictures:
    """``evaluation`` and ``calibration`` have no picture in common, whatever their files are called.

    ``maxima``: what a pixel's largest value could be, the most probable first. ``sizes``: (height, width) of each picture.
    """

    source: LabelledPictures
    evaluation: list[Entry]
    calibration: list[Entry]
    maxima: tuple[float, ...]
    sizes: tuple[tuple[int, int], ...]
    _kept: dict[Entry, NDArray[Any]] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the evaluation pictures, ``(N,)``."""
        import numpy as np

        return np.array([entry.label for entry in self.evaluation], np.int64)

    def all_are(self, height: int, width: int) -> bool:
        """Whether every picture has this size."""
        return set(self.sizes) == {(height, width)}

    def images(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Evaluation pictures by their numbers."""
        return [self._kept[entry] if entry in self._kept else self.source.read(entry) for entry in self.evaluation[start:stop]]

    def packed(self, entries: Sequence[Entry]) -> bytes:
        """An ``.npz`` of these pictures, with their labels where they have any; the same bytes each time."""
        import numpy as np

        arrays = {"images": np.stack([self.source.read(entry) for entry in entries])}
        if self.source.labelled:
            arrays["labels"] = np.array([entry.label for entry in entries], np.int64)
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return stream.getvalue()


def choose_pictures(
    source: LabelledPictures, evaluation: int, calibration: int, progress: Callable[[str], None]
) -> ChosenPictures:
    """At most so many of each part. Raises :class:`InitError` for pictures that cannot be read: the first, and how many more."""
    if source.labelled or source.is_npz:
        evaluated, calibrated = divide(source.entries, evaluation, calibration)
    else:
        # A card takes the first so many of a folder without labels, in the order of their paths.
        calibrated_count = min(calibration, len(source.entries) // 5)
        held = min(evaluation, len(source.entries) - calibrated_count)
        evaluated = list(source.entries[:held])
        calibrated = list(source.entries[held : held + calibrated_count])
    kept: dict[Entry, NDArray[Any]] = {}
    digests: dict[Entry, str] = {}
    problems: list[str] = []
    ranges = _Ranges()
    sizes = []
    room = _KEPT_BYTES
    every = [*evaluated, *calibrated]
    for number, entry in enumerate(every, 1):
        if number % 50 == 1:
            progress(f"reading picture {number} of {len(every)}")
        try:
            image = source.read(entry)
            check_picture(image, f"{source.source}: {entry.place}", math.inf)
        except EvaluationDataError as error:
            problems.append(str(error))
            continue
        ranges.add(image)
        sizes.append((image.shape[0], image.shape[1]))
        digests[entry] = picture_digest(image)
        if number <= len(evaluated) and image.nbytes <= room:
            kept[entry] = image
            room -= image.nbytes
    if problems:
        more = f" {len(problems) - 1} more of the {len(every)} pictures cannot be used either." if len(problems) > 1 else ""
        raise InitError(problems[0] + more)
    held_out = {digests[entry] for entry in evaluated}
    calibrated = [entry for entry in calibrated if digests[entry] not in held_out]
    return ChosenPictures(source, evaluated, calibrated, ranges.maxima(), tuple(sizes), kept)


class _Ranges:
    """What the values of pixels say of their scale."""

    def __init__(self) -> None:
        self._highest = 0.0
        self._whole_bytes = True
        self._real = False

    def add(self, image: NDArray[Any]) -> None:
        self._highest = max(self._highest, float(image.max()))
        self._whole_bytes &= str(image.dtype) == "uint8"
        self._real |= image.dtype.kind == "f"

    def maxima(self) -> tuple[float, ...]:
        """The largest value that the type suggests, and the largest one that was seen where that is much less."""
        seen = float(math.ceil(self._highest)) or 1.0
        if self._real and self._highest <= 1.0:
            return (1.0,)
        whole = 255.0 if self._highest <= 255 else 65535.0
        return (whole, seen) if seen < _DARK * whole else (whole,)
