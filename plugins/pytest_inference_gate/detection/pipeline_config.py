"""The ``pipeline.config`` that lies beside a checkpoint of TensorFlow's detection zoo: what it says of the model, and a card that says
otherwise.

Read are the messages of ``object_detection/protos`` of TensorFlow's models, with the defaults of their schema (``anchor_generator``,
``box_coder``, ``image_resizer``, ``post_processing``, ``ssd`` and ``faster_rcnn``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import GateError
from ..finite_numbers import is_finite_number
from .text_protobuf import Message, TextProtobufError, parse

if TYPE_CHECKING:
    from ..card_tables.detection import Detection
    from ..cards import ModelCard

ScoreConverter = Literal["none", "sigmoid", "softmax"]
_CONVERTERS: dict[str, ScoreConverter] = {"IDENTITY": "none", "SIGMOID": "sigmoid", "SOFTMAX": "softmax"}


class PipelineConfigError(GateError):
    """The file cannot be read, or does not say of a model what such a file says."""


@dataclass(frozen=True)
class SsdAnchors:
    """``ssd_anchor_generator``: boxes in all cells of ``num_layers`` feature maps. Scales are shares of the picture's side.

    ``scales`` takes the place of ``min_scale`` and ``max_scale`` where it is not empty.
    """

    num_layers: int
    min_scale: float
    max_scale: float
    scales: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    interpolated_scale_aspect_ratio: float
    reduce_boxes_in_lowest_layer: bool


@dataclass(frozen=True)
class Suppression:
    """``batch_non_max_suppression``: the least score, the overlap (IoU) from which on a box is dropped, and how many are kept."""

    score_threshold: float
    iou_threshold: float
    maximum_per_class: int
    maximum_total: int


@dataclass(frozen=True)
class PipelineConfig:
    """What a file says of its model.

    ``size`` is the height and width that each picture is brought to, in pixels; where the resizer keeps the sides' ratio it is None, and
    ``shorter_side`` and ``longer_side`` are what it keeps within. ``box_scales`` are those of y, x, height and width; they, ``anchors``
    (None for other generators) and ``suppression`` are None where the architecture has none.
    """

    architecture: str
    classes: int
    size: tuple[int, int] | None
    shorter_side: int | None
    longer_side: int | None
    box_scales: tuple[float, float, float, float] | None
    anchors: SsdAnchors | None
    suppression: Suppression | None
    score_converter: ScoreConverter


def read_pipeline_config(path: Path) -> PipelineConfig:
    """Raises :class:`PipelineConfigError` with one sentence that begins with the file."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise PipelineConfigError(f"{path} cannot be read ({error.strerror}); correct the path.") from None
    except UnicodeDecodeError as error:
        raise PipelineConfigError(f"{path} is no pipeline.config: byte {error.start} is not UTF-8.") from None
    try:
        return pipeline_config(parse(text))
    except TextProtobufError as error:
        raise PipelineConfigError(f"{path} is no pipeline.config in text form: {error}.") from None
    except PipelineConfigError as error:
        raise PipelineConfigError(f"{path}: {error}") from None


def pipeline_config(pipeline: Message) -> PipelineConfig:
    """As :func:`read_pipeline_config`, of what was parsed."""
    model = pipeline.message("model")
    architecture = next((name for name in ("ssd", "faster_rcnn") if model.messages(name)), None)
    if architecture is None:
        found = ", ".join(model.fields) or "nothing"
        raise PipelineConfigError(f"found {found} in its model, expected ssd or faster_rcnn.")
    settings = model.message(architecture)
    if not settings.scalars("num_classes"):
        raise PipelineConfigError(
            f"found no num_classes in model.{architecture}, expected how many classes the model tells apart."
        )
    processing = settings.message("post_processing" if architecture == "ssd" else "second_stage_post_processing")
    size, shorter, longer = _resizing(settings.message("image_resizer"))
    return PipelineConfig(
        architecture=architecture,
        classes=_whole(settings, "num_classes", 0),
        size=size,
        shorter_side=shorter,
        longer_side=longer,
        box_scales=_box_scales(settings.message("box_coder")),
        anchors=_anchors(settings.message("anchor_generator")),
        suppression=_suppression(processing) if processing.messages("batch_non_max_suppression") else None,
        score_converter=_converter(processing),
    )


def _resizing(resizer: Message) -> tuple[tuple[int, int] | None, int | None, int | None]:
    if "keep_aspect_ratio_resizer" in resizer:
        keeping = resizer.message("keep_aspect_ratio_resizer")
        return None, _whole(keeping, "min_dimension", 600), _whole(keeping, "max_dimension", 1024)
    if "fixed_shape_resizer" in resizer:
        fixed = resizer.message("fixed_shape_resizer")
        return (_whole(fixed, "height", 300), _whole(fixed, "width", 300)), None, None
    return None, None, None


def _box_scales(coder: Message) -> tuple[float, float, float, float] | None:
    if "faster_rcnn_box_coder" not in coder:
        return None
    scales = coder.message("faster_rcnn_box_coder")
    names = (("y_scale", 10.0), ("x_scale", 10.0), ("height_scale", 5.0), ("width_scale", 5.0))
    y, x, height, width = (_real(scales, name, default) for name, default in names)
    return y, x, height, width


def _anchors(generator: Message) -> SsdAnchors | None:
    if "ssd_anchor_generator" not in generator:
        return None
    ssd = generator.message("ssd_anchor_generator")
    return SsdAnchors(
        num_layers=_whole(ssd, "num_layers", 6),
        min_scale=_real(ssd, "min_scale", 0.2),
        max_scale=_real(ssd, "max_scale", 0.95),
        scales=_reals(ssd, "scales"),
        aspect_ratios=_reals(ssd, "aspect_ratios"),
        interpolated_scale_aspect_ratio=_real(ssd, "interpolated_scale_aspect_ratio", 1.0),
        reduce_boxes_in_lowest_layer=_truth(ssd, "reduce_boxes_in_lowest_layer", True),
    )


def _suppression(processing: Message) -> Suppression:
    settings = processing.message("batch_non_max_suppression")
    return Suppression(
        score_threshold=_real(settings, "score_threshold", 0.0),
        iou_threshold=_real(settings, "iou_threshold", 0.6),
        maximum_per_class=_whole(settings, "max_detections_per_class", 100),
        maximum_total=_whole(settings, "max_total_detections", 100),
    )


def _converter(processing: Message) -> ScoreConverter:
    found = processing.scalars("score_converter")
    name = str(found[-1]) if found else "IDENTITY"
    if name not in _CONVERTERS:
        raise PipelineConfigError(f"found the score_converter {name!r}, expected one of {', '.join(_CONVERTERS)}.")
    return _CONVERTERS[name]


def _number(message: Message, name: str, default: float) -> int | float:
    values = message.scalars(name)
    if not values:
        return default
    value = values[-1]  # of a field that stands twice, the last counts
    if not is_finite_number(value):
        raise PipelineConfigError(f"found {str(value)[:40]} as {name}, expected a number.")
    return value


def _whole(message: Message, name: str, default: int) -> int:
    value = _number(message, name, default)
    if value != int(value) or value < 0:
        raise PipelineConfigError(f"found {value!r} as {name}, expected a whole number.")
    return int(value)


def _real(message: Message, name: str, default: float) -> float:
    return float(_number(message, name, default))


def _reals(message: Message, name: str) -> tuple[float, ...]:
    values = message.scalars(name)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PipelineConfigError(f"found {value!r} among {name}, expected numbers.")
    return tuple(float(value) for value in values if not isinstance(value, str))


def _truth(message: Message, name: str, default: bool) -> bool:
    values = message.scalars(name)
    if values and not isinstance(values[-1], bool):
        raise PipelineConfigError(f"found {values[-1]!r} as {name}, expected true or false.")
    return bool(values[-1]) if values else default


# Against a card


def pipeline_problems(card: ModelCard) -> Iterable[tuple[str, str]]:
    """The same of the file that ``detection.pipeline_config`` names beside the card, and that it cannot be read."""
    if card.detection is None or card.detection.pipeline_config is None:
        return
    try:
        config = read_pipeline_config(card.directory / card.detection.pipeline_config)
    except PipelineConfigError as error:
        yield "detection.pipeline_config", str(error)
    else:
        yield from disagreements(card, config, card.detection.pipeline_config)


def disagreements(card: ModelCard, config: PipelineConfig, name: str) -> Iterable[tuple[str, str]]:
    """Where the card says something else of the model than the file ``name``: key and sentence.

    What a user may choose freely, such as the thresholds of a suppression outside the model, is not among it.
    """
    if card.labels.count != config.classes:
        yield "labels.count", f"found {card.labels.count}, where {name} says num_classes: {config.classes}; correct one of them"
    if len(card.input.shape) != 3:
        return  # said of input.shape already
    height, width = card.input.height, card.input.width
    if config.size is not None and (height, width) != config.size:
        wanted = _shape(card, *config.size)
        yield (
            "input.shape",
            f"found {list(card.input.shape)}, where {name} resizes to {config.size[0]} x {config.size[1]} (height x width): "
            f"write {wanted}",
        )
    elif config.shorter_side is not None and config.longer_side is not None and not _is_kept(height, width, config):
        yield (
            "input.shape",
            f"found {list(card.input.shape)}, where {name} brings the shorter side to {config.shorter_side} and the longer one to "
            f"{config.longer_side} at most, so that the graph would resize again: write a size that it keeps",
        )
    if card.detection is not None and card.detection.kind == "raw":
        yield from _raw_disagreements(card.detection, config, name)


def _shape(card: ModelCard, height: int, width: int) -> list[int]:
    channels = card.input.channels
    return [height, width, channels] if card.input.layout == "nhwc" else [channels, height, width]


def _is_kept(height: int, width: int, config: PipelineConfig) -> bool:
    shorter, longer = min(height, width), max(height, width)
    least, most = config.shorter_side or 0, config.longer_side or 0
    return (shorter == least and longer <= most) or (longer == most and shorter <= least)


def _raw_disagreements(detection: Detection, config: PipelineConfig, name: str) -> Iterable[tuple[str, str]]:
    if config.box_scales is not None and not _close(detection.box_scales, config.box_scales):
        yield (
            "detection.box_scales",
            f"found {list(detection.box_scales)}, where the box_coder of {name} has {list(config.box_scales)}; boxes would be "
            "decoded to other places",
        )
    anchors, told = detection.anchors, config.anchors
    if anchors is None or told is None or anchors.file is not None:
        return
    if len(anchors.feature_maps) != told.num_layers:
        yield (
            "detection.anchors.feature_maps",
            f"found {len(anchors.feature_maps)}, where {name} says num_layers: {told.num_layers}; expected the size of each",
        )
    key = "scales" if told.scales else "min_scale"
    pairs: list[tuple[str, Sequence[float], Sequence[float]]] = [
        ("aspect_ratios", anchors.aspect_ratios, told.aspect_ratios),
        ("interpolated_scale_aspect_ratio", [anchors.interpolated_scale_aspect_ratio], [told.interpolated_scale_aspect_ratio]),
        ("scales", anchors.scales, told.scales)
        if key == "scales" or anchors.scales
        else ("min_scale", [anchors.min_scale, anchors.max_scale], [told.min_scale, told.max_scale]),
    ]
    for field, ours, theirs in pairs:
        if not _close(ours, theirs):
            what = "min_scale and max_scale " if field == "min_scale" else ""
            yield (
                f"detection.anchors.{field}",
                f"found {what}{list(ours)}, where the ssd_anchor_generator of {name} has {list(theirs)}",
            )
    if anchors.reduce_boxes_in_lowest_layer != told.reduce_boxes_in_lowest_layer:
        there = str(told.reduce_boxes_in_lowest_layer).lower()
        yield "detection.anchors.reduce_boxes_in_lowest_layer", f"found the contrary of {name}, which says {there}"


def _close(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Equal but for what float32 makes of a decimal number."""
    return len(ours) == len(theirs) and all(
        math.isclose(one, other, rel_tol=1e-5) for one, other in zip(ours, theirs, strict=True)
    )
