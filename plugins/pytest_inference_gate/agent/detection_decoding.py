"""From the outputs of a detection model to detections in one form, whatever the model does itself and whatever it leaves to others.

A detection is a box (ymin, xmin, ymax, xmax in 0..1 of the model's input picture, clipped to it), a score and a class, counted from 0.
Two kinds of models: those that decode and suppress boxes themselves (``postprocessed``), and those that give the encodings of boxes
relative to anchors and the scores of classes (``raw``), which are decoded and suppressed here.

The pytest process uses this module for accuracy, the agent for streams: NumPy alone, and no file but that of the anchors.
"""

from typing import Any, Dict, List, Tuple  # noqa: F401

import numpy

from .ssd_anchors import anchors_of

# What pipeline.config calls y_scale, x_scale, height_scale and width_scale of the Faster R-CNN box coder, which SSD models have too.
BOX_SCALES = (10.0, 10.0, 5.0, 5.0)


def decode(outputs, settings):
    # type: (List[Any], Dict[str, Any]) -> List[Tuple[Any, Any, Any]]
    """The detections of each picture, the highest score first: boxes (K, 4) float32, scores (K,) float32, classes (K,) int64.

    ``outputs`` are the model's, in their order, each with the batch first; ``settings`` is what :class:`Decoder` takes.
    """
    return Decoder(settings).decode(outputs)


class Decoder(object):
    """Decodes with the same settings again and again.

    ``settings``, plain values as the card's ``[detection]`` has them:

    * ``kind``: ``postprocessed`` or ``raw``; ``outputs``: which output is what, such as ``{"boxes": 0, "scores": 1}``;
    * ``classes``: how many there are; ``first_class``: the number that the model gives to the first one. Of a raw model it is the
      column of the scores, so that 1 means that column 0 is the background;
    * ``score_threshold``: only what scores more is a detection; ``maximum_detections``: the best so many of a picture;
    * for ``raw`` also ``anchors`` (see :func:`ssd_anchors.anchors_of`), ``picture`` (height and width of the input), ``box_scales``,
      ``score_conversion`` (``none``, ``sigmoid`` or ``softmax``), ``iou_threshold`` and ``maximum_per_class``.

    Raises ValueError where settings and outputs do not fit each other.
    """

    def __init__(self, settings):
        # type: (Dict[str, Any]) -> None
        self._settings = settings
        self._raw = settings["kind"] == "raw"
        self._anchors = anchors_of(settings["anchors"], tuple(settings["picture"])) if self._raw else numpy.zeros((0, 4))

    def decode(self, outputs):
        # type: (List[Any]) -> List[Tuple[Any, Any, Any]]
        """As :func:`decode`. What is NaN or infinite is no detection: :meth:`not_finite` tells where there is any."""
        named = self._named(outputs)
        one = self._raw_picture if self._raw else self._postprocessed_picture
        return [one({name: array[index] for name, array in named.items()}) for index in range(len(named["boxes"]))]

    def not_finite(self, outputs):
        # type: (List[Any]) -> Any
        """Which pictures have a NaN or an infinity among their outputs, bool (N,); what lies behind a picture's count does not matter."""
        named = self._named(outputs)
        test = self._is_raw_nan if self._raw else self._holds_nan
        return numpy.array(
            [test({name: array[index] for name, array in named.items()}) for index in range(len(named["boxes"]))], bool
        )

    @staticmethod
    def _is_raw_nan(named):
        # type: (Dict[str, Any]) -> bool
        return not all(numpy.isfinite(array).all() for array in named.values())

    def _named(self, outputs):
        # type: (List[Any]) -> Dict[str, Any]
        """The outputs by what they are, with their shapes checked."""
        named = {}
        for name, index in self._settings["outputs"].items():
            if index is None:
                continue
            if index >= len(outputs):
                raise ValueError(
                    "the card's [detection] takes the %s from output %d, and the model has %d outputs"
                    % (name, index, len(outputs))
                )
            named[name] = numpy.asarray(outputs[index], numpy.float32)
        pictures = len(named["boxes"])
        rows = named["boxes"].shape[1] if named["boxes"].ndim > 1 else 0
        classes = self._settings["classes"] + self._settings["first_class"]
        shapes = {"boxes": (pictures, rows, 4), "classes": (pictures, rows), "count": (pictures,)}
        shapes["scores"] = (pictures, rows, classes) if self._raw else (pictures, rows)
        for name, array in named.items():
            if name == "count":
                array = named[name] = array.reshape(len(array), -1)[:, 0] if array.size == pictures else array
            if array.shape != shapes[name]:
                raise ValueError(self._misfit(name, array.shape, shapes[name]))
        if self._raw and rows != len(self._anchors):
            raise ValueError(
                "the model gives %d boxes a picture, and the card's [detection] has %d anchors" % (rows, len(self._anchors))
            )
        return named

    def _misfit(self, name, found, expected):
        # type: (str, Tuple[int, ...], Tuple[int, ...]) -> str
        text = "output %d has the shape %s, where the %s should have %s" % (
            self._settings["outputs"][name],
            found,
            name,
            expected,
        )
        if self._raw and name == "scores" and found[:2] == expected[:2]:
            text += ": labels.count is %d and first_class %d" % (self._settings["classes"], self._settings["first_class"])
        return text + "; correct the card's [detection]"

    # ---------------------------------------------------------------- models that suppress boxes themselves

    def _count(self, named):
        # type: (Dict[str, Any]) -> int
        """How many rows of a picture are detections; what lies behind them is left over from other pictures, or made up."""
        rows = len(named["boxes"])
        if "count" not in named:
            return rows
        if not numpy.isfinite(named["count"]):
            return 0
        count = int(round(float(named["count"])))
        if not 0 <= count <= rows:
            raise ValueError("the model counts %d detections of a picture, and its boxes have %d rows" % (count, rows))
        return count

    def _holds_nan(self, named):
        # type: (Dict[str, Any]) -> bool
        count = self._count(named)
        if not numpy.isfinite(named.get("count", 0.0)):
            return True
        return not all(numpy.isfinite(named[name][:count]).all() for name in ("boxes", "scores", "classes"))

    def _postprocessed_picture(self, named):
        # type: (Dict[str, Any]) -> Tuple[Any, Any, Any]
        count = self._count(named)
        boxes, scores, numbers = (named[name][:count] for name in ("boxes", "scores", "classes"))
        finite = numpy.isfinite(boxes).all(axis=1) & numpy.isfinite(scores) & numpy.isfinite(numbers)
        with numpy.errstate(invalid="ignore"):
            chosen = finite & (scores > self._settings["score_threshold"])
        classes = numpy.rint(numbers[chosen]).astype(numpy.int64) - self._settings["first_class"]
        outside = classes[(classes < 0) | (classes >= self._settings["classes"])]
        if len(outside):
            raise ValueError(
                "the model gives the class %d, and labels.count is %d with first_class %d: correct the card"
                % (outside[0] + self._settings["first_class"], self._settings["classes"], self._settings["first_class"])
            )
        boxes, scores = boxes[chosen], scores[chosen]
        order = numpy.argsort(-scores, kind="mergesort")[: self._settings["maximum_detections"]]
        return numpy.clip(boxes[order], 0.0, 1.0), scores[order], classes[order]

    # ---------------------------------------------------------------- models that leave it to others

    def _raw_picture(self, named):
        # type: (Dict[str, Any]) -> Tuple[Any, Any, Any]
        settings = self._settings
        boxes = decode_boxes(named["boxes"], self._anchors, settings["box_scales"])
        scores = convert_scores(named["scores"], settings["score_conversion"])[:, settings["first_class"] :]
        finite = numpy.isfinite(named["boxes"]).all(axis=1) & numpy.isfinite(named["scores"]).all(axis=1)
        scores = numpy.where(finite[:, None], scores, -numpy.inf)
        anchors, classes = suppress(
            boxes,
            scores,
            iou_threshold=settings["iou_threshold"],
            score_threshold=settings["score_threshold"],
            maximum_per_class=settings["maximum_per_class"],
            maximum=settings["maximum_detections"],
        )
        found, values = numpy.clip(boxes[anchors], 0.0, 1.0), scores[anchors, classes]
        # A box that lies beside the picture is nothing in it: the Object Detection API drops it too, once it is clipped.
        inside = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
        return found[inside], values[inside], classes[inside]


def decode_boxes(encodings, anchors, scales=BOX_SCALES):
    # type: (Any, Any, Any) -> Any
    """Boxes (anchors, 4) float32, ymin, xmin, ymax, xmax, of encodings (anchors, 4) ty, tx, th, tw; not clipped.

    ``anchors`` (anchors, 4) are ycenter, xcenter, height, width. ycenter' = ty / scale * height + ycenter, height' = exp(th / scale) *
    height, x alike: the box coder of S. Ren et al., Faster R-CNN, NIPS 2015, with the scales of TensorFlow's Object Detection API
    (``box_coders/faster_rcnn_box_coder.py``).
    """
    scaled = numpy.asarray(encodings, numpy.float32) / numpy.asarray(scales, numpy.float32)
    with numpy.errstate(over="ignore", invalid="ignore"):
        centers = scaled[:, :2] * anchors[:, 2:] + anchors[:, :2]
        halves = numpy.exp(scaled[:, 2:]) * anchors[:, 2:] / numpy.float32(2)
        return numpy.concatenate([centers - halves, centers + halves], axis=1)


def convert_scores(scores, conversion):
    # type: (Any, str) -> Any
    """Scores (anchors, classes) float32 of what the model gives: as it is (``none``), each by itself (``sigmoid``), or each anchor's
    together, background included (``softmax``)."""
    scores = numpy.asarray(scores, numpy.float32)
    if conversion == "none":
        return scores
    with numpy.errstate(over="ignore", invalid="ignore"):
        if conversion == "sigmoid":
            return numpy.float32(1) / (numpy.float32(1) + numpy.exp(-scores))
        if conversion == "softmax":
            shares = numpy.exp(scores - scores.max(axis=1, keepdims=True))
            return shares / shares.sum(axis=1, keepdims=True)
    raise ValueError("there is no conversion of scores called %r; known are none, sigmoid and softmax" % (conversion,))


def suppress(boxes, scores, iou_threshold, score_threshold, maximum_per_class, maximum):
    # type: (Any, Any, float, float, int, int) -> Tuple[Any, Any]
    """Greedy non-maximum suppression in each class: the anchors and classes (K,) that are left, the highest score first.

    ``boxes`` (anchors, 4), ``scores`` (anchors, classes). In each class the box with the highest score stays, and all that overlap it by an
    IoU of more than ``iou_threshold`` go; then the next. What does not score more than ``score_threshold`` is left out. At most
    ``maximum_per_class`` stay in a class, and the best ``maximum`` of all. Of equal scores the earlier class comes first, then the earlier
    anchor: as ``tf.image.non_max_suppression`` and the ``multiclass_non_max_suppression`` of TensorFlow's Object Detection API have it.

    Where all classes are taken together by their scores, no more than ``maximum`` boxes are ever chosen, however many classes there are.
    """
    waiting = []  # type: List[Any]  # of each class, the anchors that may still be chosen, the best first
    best = numpy.full(scores.shape[1], -numpy.inf)
    for number in range(scores.shape[1]):
        column = scores[:, number]
        anchors = numpy.nonzero(column > score_threshold)[0]
        anchors = anchors[numpy.argsort(-column[anchors], kind="mergesort")]
        waiting.append(anchors)
        if len(anchors):
            best[number] = column[anchors[0]]
    areas = _areas(boxes)
    chosen = []  # type: List[Tuple[int, int]]
    left = numpy.full(scores.shape[1], maximum_per_class)
    while len(chosen) < maximum and len(best):
        number = int(best.argmax())
        if best[number] == -numpy.inf:
            break
        anchors = waiting[number]
        first, others = anchors[0], anchors[1:]
        chosen.append((int(first), number))
        left[number] -= 1
        if left[number] == 0:
            others = others[:0]
        others = others[~(overlaps(boxes[first], areas[first], boxes[others], areas[others]) > iou_threshold)]
        waiting[number] = others
        best[number] = scores[others[0], number] if len(others) else -numpy.inf
    pairs = numpy.array(chosen, numpy.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _areas(boxes):
    # type: (Any) -> Any
    with numpy.errstate(over="ignore", invalid="ignore"):
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlaps(box, area, others, areas):
    # type: (Any, Any, Any, Any) -> Any
    """The intersection over union of one box with each of the others (M, 4), in their own precision; 0 where one has no area."""
    with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
        top_left = numpy.maximum(box[:2], others[:, :2])
        sides = numpy.maximum(numpy.minimum(box[2:], others[:, 2:]) - top_left, 0)
        common = sides[:, 0] * sides[:, 1]
        shares = common / (area + areas - common)
    return numpy.where((area > 0) & (areas > 0), shares, 0)
