"""The card's table ``[detection]``: how detections are read from the outputs of a model, and what of a card goes with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints

from .section import CardSection

if TYPE_CHECKING:
    from ..cards import ModelCard

Task = Literal["classification", "detection"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

DEFAULT_SCORE_THRESHOLDS = {"postprocessed": 0.0, "raw": 1e-3}
"""COCO's evaluation wants the unlikely detections too; of a raw model every box of every class would be one without a threshold."""

_OF_RAW = ("anchors", "box_scales", "score_conversion", "iou_threshold", "maximum_per_class")


class DetectionOutputs(CardSection):
    """Which output of the model is what, counted from 0 in the order of ``checkpoint.outputs``, or in the model's own."""

    boxes: NonNegativeInt
    scores: NonNegativeInt
    classes: NonNegativeInt | None = None
    count: NonNegativeInt | None = None


class Anchors(CardSection):
    """An ``.npy`` (anchors, 4) of ycenter, xcenter, height, width in 0..1, or what ``pipeline.config`` says of an ssd_anchor_generator."""

    file: Annotated[str, StringConstraints(min_length=1)] | None = None  # beside the card
    feature_maps: list[Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]] = []  # height and width, the finest first
    min_scale: Positive = 0.2
    max_scale: Positive = 0.95
    scales: list[Positive] = []  # one a feature map, instead of min_scale and max_scale
    aspect_ratios: Annotated[list[Positive], Field(min_length=1)] = [1.0, 2.0, 0.5, 3.0, 0.3333]
    reduce_boxes_in_lowest_layer: bool = True
    interpolated_scale_aspect_ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class Detection(CardSection):
    """``postprocessed``: the model gives boxes, classes, scores and how many there are. ``raw``: it gives encodings of boxes and scores for
    each anchor, and the gate decodes and suppresses them.
    """

    kind: Literal["postprocessed", "raw"]
    outputs: DetectionOutputs
    first_class: Literal[0, 1] = 0  # what the model calls the first class; of raw scores its column, so that 1 means a background
    anchors: Anchors | None = None
    box_scales: Annotated[tuple[Positive, Positive, Positive, Positive], Field(strict=False)] = (10.0, 10.0, 5.0, 5.0)
    score_conversion: Literal["none", "sigmoid", "softmax"] = "none"
    score_threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    iou_threshold: Share = 0.6
    maximum_per_class: PositiveInt = 100
    maximum_detections: PositiveInt = 100
    pipeline_config: Annotated[str, StringConstraints(min_length=1)] | None = None  # beside the card; what it says has to agree
    matching_score: Share = 0.3  # from which score on detections are compared in pairs with those of the float model


def detection_settings(card: ModelCard, put: Callable[[Path], str] = str) -> dict[str, Any]:
    """What ``agent/detection_decoding.py`` takes, in plain values. ``put`` brings the anchors' file to where it is decoded.

    The card has a ``[detection]`` table.
    """
    detection = card.detection
    if detection is None:
        raise ValueError(f"the card {card.name} has no [detection] table")
    threshold = detection.score_threshold
    settings: dict[str, Any] = {
        "kind": detection.kind,
        "outputs": {name: index for name, index in detection.outputs.model_dump().items() if index is not None},
        "classes": card.labels.count,
        "first_class": detection.first_class,
        "score_threshold": DEFAULT_SCORE_THRESHOLDS[detection.kind] if threshold is None else threshold,
        "maximum_detections": detection.maximum_detections,
    }
    if detection.kind == "postprocessed" or detection.anchors is None:
        return settings
    anchors = detection.anchors
    if anchors.file is not None:
        described: dict[str, Any] = {"file": put(card.directory / anchors.file)}
    else:
        described = anchors.model_dump(mode="json", exclude={"file"})
    return {
        **settings,
        "anchors": described,
        "picture": [card.input.height, card.input.width],
        "box_scales": list(detection.box_scales),
        "score_conversion": detection.score_conversion,
        "iou_threshold": detection.iou_threshold,
        "maximum_per_class": detection.maximum_per_class,
    }


def detection_problems(card: ModelCard) -> Iterable[tuple[str, str]]:
    """What a card of either task may not have, and what one of detection needs: key and sentence."""
    if card.task != "detection":
        yield from _of_classification(card)
        return
    if card.detection is None:
        yield "detection", "found nothing; task = 'detection' needs a table that says which output of the model is what"
    else:
        yield from _output_problems(card.detection)
        yield from _anchor_problems(card, card.detection)
        if card.detection.pipeline_config is not None:
            from ..detection.pipeline_config import pipeline_problems  # few cards name one, and cards are read to collect tests

            yield from pipeline_problems(card)
    if card.preprocessing.resize == "resize_and_crop":
        yield (
            "preprocessing.resize",
            "found 'resize_and_crop' with task 'detection', expected 'resize' or 'none': boxes are told relative to the whole picture",
        )
    if card.labels.offset:
        yield (
            "labels.offset",
            "found a value with task 'detection', expected none: detection.first_class says where classes begin",
        )
    evaluation = card.evaluation
    if evaluation is not None:
        for name in ("top1", "labels"):
            if getattr(evaluation, name) is not None:
                yield (
                    f"evaluation.{name}",
                    "found a value with task 'detection', expected none: annotations and map take its place",
                )
        if evaluation.annotations is not None and evaluation.seed is not None:
            yield "evaluation.annotations", "found a value, expected none: seeded pictures show no objects"
        if evaluation.map is not None and evaluation.annotations is None:
            yield (
                "evaluation.map",
                "found a value but no annotations; expected evaluation.annotations, a COCO file, to compute it from",
            )
    for key, tables in _tolerances(card):
        for name in ("top1_drop", "agreement"):
            if name in tables.model_fields_set:
                yield f"{key}.{name}", "found a value with task 'detection', expected none: map_drop and matched take its place"


def _of_classification(card: ModelCard) -> Iterable[tuple[str, str]]:
    only = "found a value, expected none unless task is 'detection'"
    if card.detection is not None:
        yield "detection", "found a table, expected none unless task is 'detection'"
    if card.evaluation is not None:
        for name in ("annotations", "map"):
            if getattr(card.evaluation, name) is not None:
                yield f"evaluation.{name}", only
    for key, table in _tolerances(card):
        for name in ("map_drop", "matched"):
            if name in table.model_fields_set:
                yield f"{key}.{name}", only


def _tolerances(card: ModelCard) -> Iterable[tuple[str, CardSection]]:
    yield "tolerance", card.tolerance
    for precision, table in card.tolerance.by_precision.items():
        yield f"tolerance.by_precision.{precision}", table


def _output_problems(detection: Detection) -> Iterable[tuple[str, str]]:
    outputs = detection.outputs
    given = {name: index for name, index in outputs.model_dump().items() if index is not None}
    for name, index in given.items():
        same = [other for other in list(given)[: list(given).index(name)] if given[other] == index]
        if same:
            yield (
                f"detection.outputs.{name}",
                f"found {index}, which is the output of the {same[0]} already, expected another one",
            )
    if detection.kind == "postprocessed":
        if outputs.classes is None:
            yield "detection.outputs.classes", "found nothing; kind 'postprocessed' needs to know which output names the classes"
        for name in _OF_RAW:
            if name in detection.model_fields_set:
                yield f"detection.{name}", "found a value, expected none with kind 'postprocessed': the model does that itself"
    else:
        for name in ("classes", "count"):
            if name in given:
                yield (
                    f"detection.outputs.{name}",
                    "found a value, expected none with kind 'raw': the scores have a column a class",
                )


def _anchor_problems(card: ModelCard, detection: Detection) -> Iterable[tuple[str, str]]:
    if detection.kind != "raw":
        return
    anchors, key = detection.anchors, "detection.anchors"
    if anchors is None:
        yield (
            key,
            "found nothing; kind 'raw' needs {file = '...npy'} or {feature_maps = [[19, 19], ...], ...} to decode the boxes with",
        )
        return
    generated = sorted(anchors.model_fields_set - {"file"})
    if anchors.file is not None and generated:
        yield key, f"found file and {', '.join(generated)}, expected either a file or what to generate anchors from"
    elif anchors.file is not None:
        if not os.path.isfile(card.directory / anchors.file):  # noqa: PTH113  # Path's raises where nobody may look
            yield f"{key}.file", f"found {anchors.file!r}, expected a file: there is none at {card.directory / anchors.file}"
    elif not anchors.feature_maps:
        yield (
            f"{key}.feature_maps",
            "found nothing; generated anchors need height and width of each feature map, such as [[19, 19], [10, 10]]",
        )
    elif anchors.scales and len(anchors.scales) != len(anchors.feature_maps):
        yield (
            f"{key}.scales",
            f"found {len(anchors.scales)} scales, expected one for each of the {len(anchors.feature_maps)} feature maps",
        )
    elif anchors.scales and anchors.model_fields_set & {"min_scale", "max_scale"}:
        yield f"{key}.scales", "found scales beside min_scale or max_scale, expected either"
    elif anchors.min_scale > anchors.max_scale:
        yield f"{key}.min_scale", f"found {anchors.min_scale:g}, expected at most max_scale, {anchors.max_scale:g}"
