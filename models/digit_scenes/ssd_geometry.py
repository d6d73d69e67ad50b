"""Anchors, box coding and the assignment of digits to anchors, in NumPy. Boxes are ymin, xmin, ymax, xmax in shares of the side.

Sources: SSD (Liu et al. 2016, arXiv:1512.02325) for anchors, matching and hard numbers of the box coder as TensorFlow's object
detection API writes them (``FasterRcnnBoxCoder`` with scales 10, 10, 5, 5; ``ssd_anchor_generator``), so that ``pipeline.config``
of the exported graph is true of this model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class AnchorSettings:
    """The parameters of an ``ssd_anchor_generator``.

    Feature map ``k`` has ``grids[k]`` x ``grids[k]`` cells. Its anchors have the scale ``scales[k]``, the square root of their
    area, with each of ``aspect_ratios`` (width by height), and one more with ``interpolated_aspect_ratio`` whose scale is the
    geometric mean of this map's and the next one's (1 after the last).
    """

    grids: tuple[int, ...] = (12, 6)
    scales: tuple[float, ...] = (0.17, 0.34)
    aspect_ratios: tuple[float, ...] = (0.55, 0.8)
    interpolated_aspect_ratio: float = 0.66

    @property
    def per_cell(self) -> int:
        return len(self.aspect_ratios) + 1


ANCHORS = AnchorSettings()
BOX_CODER_SCALES = (10.0, 10.0, 5.0, 5.0)
MATCHED_THRESHOLD = 0.5  # least overlap with which an anchor answers for a digit


def make_anchors(settings: AnchorSettings = ANCHORS) -> Array:
    """float32 (anchors, 4): ycenter, xcenter, height, width; map by map, row by row, cell by cell, shape by shape."""
    anchors: list[tuple[float, float, float, float]] = []
    for grid, scale, following in zip(settings.grids, settings.scales, [*settings.scales[1:], 1.0], strict=True):
        shapes = [(scale, ratio) for ratio in settings.aspect_ratios]
        shapes.append((math.sqrt(scale * following), settings.interpolated_aspect_ratio))
        for row in range(grid):
            for column in range(grid):
                for size, ratio in shapes:
                    anchors.append(((row + 0.5) / grid, (column + 0.5) / grid, size / math.sqrt(ratio), size * math.sqrt(ratio)))
    return np.array(anchors, np.float32)


def corners(centred: Array) -> Array:
    """(…, 4) ycenter, xcenter, height, width -> ymin, xmin, ymax, xmax."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def overlaps(boxes: Array, others: Array) -> Array:
    """(K, 4) and (M, 4) -> (K, M): intersection over union."""
    low = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], others[np.newaxis, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, np.newaxis] + np.prod(others[:, 2:] - others[:, :2], axis=1)
    return shared / (areas - shared)


def encode(boxes: Array, anchors: Array) -> Array:
    """What the network has to answer for the anchor of each box: (K, 4) ty, tx, th, tw."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2
    moved = (centre - anchors[:, :2]) / anchors[:, 2:]
    return np.concatenate([moved, np.log(size / anchors[:, 2:])], axis=1) * np.array(BOX_CODER_SCALES)


def assign(boxes: Array, anchors: Array) -> Array:
    """int64 (anchors,): the index of the box that each anchor answers for, -1 for none.

    An anchor answers for the box that it overlaps most, if that is at least :data:`MATCHED_THRESHOLD`; then the best anchor of each
    box answers for it in any case, so that no box goes without one.
    """
    answers = np.full(len(anchors), -1, np.int64)
    if len(boxes):
        shared = overlaps(boxes, corners(anchors))
        best = shared.argmax(axis=0)
        answers = np.where(shared.max(axis=0) >= MATCHED_THRESHOLD, best, -1)
        answers[shared.argmax(axis=1)] = np.arange(len(boxes))
    return answers
