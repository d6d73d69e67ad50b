"""The anchors of an SSD detector: the boxes that its encodings move and stretch."""

from typing import Any, Dict, List, Tuple  # noqa: F401

import numpy

LOWEST_LAYER_SCALE = 0.1  # of the one square box, where the lowest layer has three boxes


def anchors_of(settings, picture):
    # type: (Dict[str, Any], Tuple[int, int]) -> Any
    """The anchors that the card's ``[detection] anchors`` means, float32 (anchors, 4): ycenter, xcenter, height, width in 0..1.

    ``settings`` has ``file``, the path of an ``.npy`` of just that, or the parameters of :func:`generate`; ``picture`` is the height and
    width of the model's input. Raises ValueError for a file that holds anything else.
    """
    if settings.get("file") is None:
        return generate(settings, picture)
    path = settings["file"]
    try:
        anchors = numpy.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError("the anchors %s cannot be read (%s): save them with numpy.save" % (path, " ".join(str(error).split())))
    if getattr(anchors, "ndim", 0) != 2 or anchors.shape[1] != 4 or anchors.dtype.kind not in "fiu":
        raise ValueError(
            "the anchors %s have the shape %s: expected numbers of the shape (anchors, 4), ycenter, xcenter, height, width"
            % (path, getattr(anchors, "shape", "of no array"))
        )
    anchors = anchors.astype(numpy.float32)
    if not numpy.isfinite(anchors).all() or (anchors[:, 2:] <= 0).any():
        raise ValueError("the anchors %s hold a NaN, an infinity or a box without a size: write them anew" % path)
    return anchors


def generate(settings, picture):
    # type: (Dict[str, Any], Tuple[int, int]) -> Any
    """Those of the SSD anchor generator of TensorFlow's Object Detection API, float32 (anchors, 4).

    ``settings``: ``feature_maps`` (height and width of each layer, the finest first), and as ``pipeline.config`` names them
    ``min_scale``, ``max_scale``, ``scales`` (instead of both), ``aspect_ratios``, ``reduce_boxes_in_lowest_layer`` and
    ``interpolated_scale_aspect_ratio`` (0: no such box).

    The order is layer, row, column, box, as in that API (``anchor_generators/multiple_grid_anchor_generator.py``,
    ``create_ssd_anchors``); the idea is that of section 2.2 of W. Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016. As there,
    a box of aspect ratio 1 is a square in a picture that is none.
    """
    layers = len(settings["feature_maps"])
    shorter = float(min(picture))
    unit = (shorter / picture[0], shorter / picture[1])
    found = []
    for layer, (rows, columns) in enumerate(settings["feature_maps"]):
        boxes = numpy.array(_boxes(settings, layer, layers), numpy.float32)
        scale, root = boxes[:, 0], numpy.sqrt(boxes[:, 1])
        sizes = numpy.stack([scale / root * numpy.float32(unit[0]), scale * root * numpy.float32(unit[1])], axis=1)
        y, x = numpy.meshgrid(_centers(rows), _centers(columns), indexing="ij")
        centers = numpy.repeat(numpy.stack([y.ravel(), x.ravel()], axis=1), len(sizes), axis=0)
        found.append(numpy.concatenate([centers, numpy.tile(sizes, (rows * columns, 1))], axis=1))
    return numpy.concatenate(found).astype(numpy.float32)


def _centers(count):
    # type: (int) -> Any
    return (numpy.arange(count, dtype=numpy.float32) + numpy.float32(0.5)) / numpy.float32(count)


def _scales(settings, layers):
    # type: (Dict[str, Any], int) -> List[float]
    """One a layer, and 1 behind the last."""
    if settings.get("scales"):
        return list(settings["scales"]) + [1.0]
    low, high = settings["min_scale"], settings["max_scale"]
    return [low + (high - low) * layer / max(layers - 1, 1) for layer in range(layers)] + [1.0]


def _boxes(settings, layer, layers):
    # type: (Dict[str, Any], int, int) -> List[Tuple[float, float]]
    """(scale, aspect ratio) of each box of a layer's cells."""
    scales = _scales(settings, layers)
    scale, following = scales[layer], scales[layer + 1]
    if layer == 0 and settings["reduce_boxes_in_lowest_layer"]:
        return [(LOWEST_LAYER_SCALE, 1.0), (scale, 2.0), (scale, 0.5)]
    boxes = [(scale, ratio) for ratio in settings["aspect_ratios"]]
    if settings["interpolated_scale_aspect_ratio"] > 0:
        boxes.append(((scale * following) ** 0.5, settings["interpolated_scale_aspect_ratio"]))
    return boxes
