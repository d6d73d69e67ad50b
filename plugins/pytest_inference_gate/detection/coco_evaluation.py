"""COCO's own evaluation of detections, by pycocotools: mean average precision, and which detection found which object."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import EvaluationDataError
from .annotations import Annotations
from .average_precision import ClassMatches

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]
    Detections = tuple[Array, Array, Array]
    """Of one picture: boxes (K, 4) ymin, xmin, ymax, xmax in 0..1, scores (K,), classes (K,), the highest score first."""

MOST_DETECTIONS = 100
"""Of one class in one picture: COCO's own."""

_printing = threading.Lock()


@dataclass(frozen=True)
class CocoEvaluation:
    """``map``: AP at IoU .5 to .95, the mean over classes; ``map50``, ``map75``: at one IoU; ``ar100``: average recall with 100 detections
    a picture; None where there is no object. ``per_class``: AP by category id, None without objects. ``matches`` are of the categories in
    the order of ``per_class``, their pictures in the order of the annotations. ``found``: which objects, by their place in
    the order of the annotations, were found at IoU .5 by a detection that scores ``matching_score`` at least.
    """

    map: float | None
    map50: float | None
    map75: float | None
    ar100: float | None
    per_class: Mapping[int, float | None]
    matches: tuple[ClassMatches, ...]
    found: frozenset[int]


def require_pycocotools() -> None:
    """Raise :class:`EvaluationDataError` where it is not installed."""
    if find_spec("pycocotools") is None:
        raise EvaluationDataError(
            'pycocotools evaluates detections and is not installed: pip install "pytest-inference-gate[detection]", or remove '
            "evaluation.annotations from the card"
        )


def evaluate_coco(annotations: Annotations, detections: Sequence[Detections], *, matching_score: float = 0.0) -> CocoEvaluation:
    """COCO's evaluation of boxes, over objects of all sizes. ``detections`` are one a picture, in the order of the annotations.

    Detections of a class that the annotations have no category for are not looked at, as with COCO's own files. Raises ValueError where
    the number of pictures is another one.
    """
    require_pycocotools()
    if len(detections) != len(annotations.pictures):
        raise ValueError(
            f"there are detections of {len(detections)} pictures, and the annotations have {len(annotations.pictures)}"
        )
    with _silent():
        evaluation = _run(annotations, detections)
    precision, recall = evaluation.eval["precision"][:, :, :, 0, 0], evaluation.eval["recall"][:, :, 0, 0]
    category_ids = list(evaluation.params.catIds)
    return CocoEvaluation(
        map=_mean(precision),
        map50=_mean(precision[0]),
        map75=_mean(precision[5]),
        ar100=_mean(recall),
        per_class={category: _mean(precision[:, :, place]) for place, category in enumerate(category_ids)},
        matches=_matches(annotations, evaluation),
        found=_found(evaluation, matching_score),
    )


def _run(annotations: Annotations, detections: Sequence[Detections]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": one.id, "width": one.width, "height": one.height} for one in annotations.pictures]
    categories = [{"id": number, "name": name} for number, name in annotations.categories.items()]
    objects: list[dict[str, Any]] = []
    for picture in annotations.pictures:
        for one in picture.objects:
            # Numbered anew: pycocotools takes a match with the annotation 0 for none.
            number = len(objects) + 1
            objects.append(_entry(number, picture.id, one.category, list(one.box), one.area, crowd=one.crowd))
    category_of = {number: category for category, number in annotations.classes.items()}
    results: list[dict[str, Any]] = []
    for picture, (boxes, scores, classes) in zip(annotations.pictures, detections, strict=True):
        for (top, left, bottom, right), score, number in zip(boxes.tolist(), scores.tolist(), classes.tolist(), strict=True):
            if number not in category_of:
                continue
            box = [
                left * picture.width,
                top * picture.height,
                (right - left) * picture.width,
                (bottom - top) * picture.height,
            ]
            entry = _entry(len(results) + 1, picture.id, category_of[number], box, box[2] * box[3], crowd=False)
            results.append({**entry, "score": score})
    truth, found = COCO(), COCO()
    truth.dataset = {"images": images, "categories": categories, "annotations": objects}
    found.dataset = {"images": images, "categories": categories, "annotations": results}
    truth.createIndex()
    found.createIndex()
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.params.maxDets = [MOST_DETECTIONS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _entry(number: int, image: int, category: int, box: list[float], area: float, *, crowd: bool) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}


@contextmanager
def _silent() -> Iterator[None]:
    """pycocotools prints what it does. Its own ``print`` is put aside meanwhile, not the standard output, which is everybody's."""
    from pycocotools import coco, cocoeval

    modules = (coco, cocoeval)
    with _printing:
        for module in modules:
            module.print = _say_nothing
        try:
            yield
        finally:
            for module in modules:
                del module.print


def _say_nothing(*_: Any, **__: Any) -> None:
    """What stands in for print."""


def _mean(values: Array) -> float | None:
    """The mean of what is known: -1 stands for a class without objects."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _by_category(evaluation: Any) -> list[list[Any]]:
    """pycocotools' result for each picture, by category: one list, category after category, the pictures by their ids."""
    count = len(evaluation.params.imgIds)
    return [evaluation.evalImgs[place * count : (place + 1) * count] for place in range(len(evaluation.params.catIds))]


def _matches(annotations: Annotations, evaluation: Any) -> tuple[ClassMatches, ...]:
    import numpy

    thresholds = len(evaluation.params.iouThrs)
    place_of = {picture.id: place for place, picture in enumerate(annotations.pictures)}
    found = []
    for results in _by_category(evaluation):
        objects = numpy.zeros(len(place_of), numpy.int64)
        pictures: list[Array] = [numpy.zeros(0, numpy.int64)]
        scores: list[Array] = [numpy.zeros(0)]
        matched: list[Array] = [numpy.zeros((thresholds, 0))]
        ignored: list[Array] = [numpy.zeros((thresholds, 0), bool)]
        for result in results:
            if result is None:
                continue
            place = place_of[result["image_id"]]
            objects[place] = int((result["gtIgnore"] == 0).sum())
            pictures.append(numpy.full(len(result["dtScores"]), place))
            scores.append(numpy.array(result["dtScores"], numpy.float64))
            matched.append(result["dtMatches"])
            ignored.append(result["dtIgnore"])
        values = numpy.concatenate(scores)
        order = numpy.argsort(-values, kind="mergesort")
        counted = ~numpy.concatenate(ignored, axis=1)[:, order].astype(bool)
        true = (numpy.concatenate(matched, axis=1)[:, order] != 0) & counted
        found.append(ClassMatches(numpy.concatenate(pictures)[order], values[order], true, counted, objects))
    return tuple(found)


def _found(evaluation: Any, matching_score: float) -> frozenset[int]:
    found = set()
    for results in _by_category(evaluation):
        for result in results:
            if result is not None:
                for score, match, ignored in zip(result["dtScores"], result["dtMatches"][0], result["dtIgnore"][0], strict=True):
                    if match and not ignored and score >= matching_score:
                        found.add(int(match) - 1)
    return frozenset(found)
