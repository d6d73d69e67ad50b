"""From the outputs of a detection model to detections: boxes decoded, scores converted, overlaps suppressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.agent.detection_decoding import Decoder, convert_scores, decode, decode_boxes, suppress
from pytest_inference_gate.agent.ssd_anchors import anchors_of, generate

POSTPROCESSED: dict[str, Any] = {
    "kind": "postprocessed",
    "outputs": {"boxes": 0, "classes": 1, "scores": 2, "count": 3},
    "classes": 3,
    "first_class": 1,
    "score_threshold": 0.0,
    "maximum_detections": 100,
}
ANCHORS = numpy.array([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5], [0.26, 0.25, 0.5, 0.5]], numpy.float32)
SSD = {
    "feature_maps": [[19, 19], [10, 10], [5, 5], [3, 3], [2, 2], [1, 1]],
    "min_scale": 0.2,
    "max_scale": 0.95,
    "scales": [],
    "aspect_ratios": [1.0, 2.0, 0.5, 3.0, 0.3333],
    "reduce_boxes_in_lowest_layer": True,
    "interpolated_scale_aspect_ratio": 1.0,
}


def raw(path: Path, anchors: Any = ANCHORS, **changes: Any) -> dict[str, Any]:
    numpy.save(path / "anchors.npy", anchors)
    return {
        "kind": "raw",
        "outputs": {"boxes": 0, "scores": 1},
        "classes": 2,
        "first_class": 0,
        "anchors": {"file": str(path / "anchors.npy")},
        "picture": [96, 96],
        "box_scales": [10.0, 10.0, 5.0, 5.0],
        "score_conversion": "none",
        "score_threshold": 0.1,
        "iou_threshold": 0.5,
        "maximum_per_class": 10,
        "maximum_detections": 10,
        **changes,
    }


def a_postprocessed_picture() -> list[Any]:
    boxes = numpy.array([[[0, 0, 0.5, 0.5], [0.1, 0.1, 1.2, 0.9], [9, 9, 9, 9]]], numpy.float32)
    return [boxes, numpy.array([[1, 3, 7]]), numpy.array([[0.4, 0.9, 0.8]]), numpy.array([2.0])]


def test_what_a_model_has_suppressed_itself_is_taken_as_far_as_it_counts() -> None:
    ((boxes, scores, classes),) = decode(a_postprocessed_picture(), POSTPROCESSED)
    assert scores.tolist() == pytest.approx([0.9, 0.4])
    assert classes.tolist() == [2, 0]
    assert boxes[0].tolist() == pytest.approx([0.1, 0.1, 1.0, 0.9])  # clipped to the picture
    assert (boxes.dtype, scores.dtype, classes.dtype) == (numpy.float32, numpy.float32, numpy.int64)


def test_a_count_of_its_own_shape_and_none_at_all_are_taken_too() -> None:
    outputs = a_postprocessed_picture()
    outputs[3] = outputs[3].reshape(1, 1)
    assert len(decode(outputs, POSTPROCESSED)[0][1]) == 2
    without = {**POSTPROCESSED, "outputs": {"boxes": 0, "classes": 1, "scores": 2}, "classes": 7, "maximum_detections": 2}
    assert decode(outputs[:3], without)[0][1].tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda out: out[1].__setitem__((0, 0), 9), "the model gives the class 9, and labels.count is 3 with first_class 1"),
        (lambda out: out[3].__setitem__(0, 4), "counts 4 detections of a picture, and its boxes have 3 rows"),
        (lambda out: out.pop(), "takes the count from output 3, and the model has 3 outputs"),
        (lambda out: out.__setitem__(2, out[2][:, :2]), "output 2 has the shape (1, 2), where the scores should have (1, 3)"),
    ],
)
def test_outputs_that_do_not_fit_the_card_are_said(change: Any, sentence: str) -> None:
    outputs = a_postprocessed_picture()
    change(outputs)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        decode(outputs, POSTPROCESSED)
    assert sentence in str(caught.value)


def test_a_nan_is_counted_but_not_behind_the_count() -> None:
    outputs = a_postprocessed_picture()
    outputs[0][0, 2] = numpy.nan
    assert not Decoder(POSTPROCESSED).not_finite(outputs).any()
    outputs[2][0, 1] = numpy.inf
    assert Decoder(POSTPROCESSED).not_finite(outputs).tolist() == [True]
    assert decode(outputs, POSTPROCESSED)[0][1].tolist() == pytest.approx([0.4])
    outputs[3][0] = numpy.nan
    assert Decoder(POSTPROCESSED).not_finite(outputs).tolist() == [True]
    assert len(decode(outputs, POSTPROCESSED)[0][1]) == 0


def test_raw_boxes_are_decoded_scored_and_suppressed(tmp_path: Path) -> None:
    encodings = numpy.zeros((1, 3, 4), numpy.float32)
    encodings[0, 1] = [1.0, 0.0, 5 * numpy.log(0.5), 0.0]  # a tenth of its height down, half as high
    scores = numpy.array([[[0.8, 0.0], [0.3, 0.6], [0.7, 0.2]]], numpy.float32)
    ((boxes, values, classes),) = decode([encodings, scores], raw(tmp_path))
    # The third anchor nearly is the first: suppressed in class 0, and of class 1 it is the better one.
    assert list(zip(classes.tolist(), values.round(2).tolist(), strict=True)) == [
        (0, pytest.approx(0.8)),
        (1, pytest.approx(0.6)),
        (0, pytest.approx(0.3)),
        (1, pytest.approx(0.2)),
    ]
    assert boxes[1].tolist() == pytest.approx([0.675, 0.5, 0.925, 1.0])


def test_a_background_is_no_class_and_takes_part_in_the_softmax(tmp_path: Path) -> None:
    encodings = numpy.zeros((1, 3, 4), numpy.float32)
    logits = numpy.log(numpy.array([[[0.9, 0.06, 0.04], [0.25, 0.25, 0.5], [0.9, 0.05, 0.05]]], numpy.float32))
    ((_, values, classes),) = decode([encodings, logits], raw(tmp_path, first_class=1, score_conversion="softmax"))
    assert classes.tolist() == [1, 0]
    assert values.tolist() == pytest.approx([0.5, 0.25])


def test_the_mistakes_of_raw_settings_are_said(tmp_path: Path) -> None:
    encodings, scores = numpy.zeros((1, 3, 4)), numpy.zeros((1, 3, 3))
    with pytest.raises(ValueError, match=r"should have \(1, 3, 2\): labels.count is 2 and first_class 0; correct"):
        decode([encodings, scores], raw(tmp_path))
    with pytest.raises(ValueError, match="gives 2 boxes a picture, and the card's \\[detection\\] has 3 anchors"):
        decode([encodings[:, :2], scores[:, :2, :2]], raw(tmp_path))
    with pytest.raises(ValueError, match=r"have the shape \(3, 3\): expected numbers of the shape \(anchors, 4\)"):
        Decoder(raw(tmp_path, ANCHORS[:, :3]))
    with pytest.raises(ValueError, match="a box without a size"):
        Decoder(raw(tmp_path, -ANCHORS))
    (tmp_path / "anchors.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="save them with numpy.save"):
        anchors_of({"file": str(tmp_path / "anchors.npy")}, (1, 1))


def test_a_nan_of_a_raw_model_is_counted_and_its_anchor_left_out(tmp_path: Path) -> None:
    encodings, scores = numpy.zeros((2, 3, 4)), numpy.full((2, 3, 2), 0.5)
    encodings[1, 2, 0] = numpy.nan
    scores[1, 1, 0] = numpy.inf
    decoder = Decoder(raw(tmp_path))
    assert decoder.not_finite([encodings, scores]).tolist() == [False, True]
    assert [len(found) for _, found, _ in decoder.decode([encodings, scores])] == [4, 2]


def test_a_box_beside_the_picture_is_none_and_a_huge_one_fills_it(tmp_path: Path) -> None:
    encodings = numpy.zeros((1, 3, 4), numpy.float32)
    encodings[0, 0] = [-500.0, 0, 0, 0]
    encodings[0, 1] = [0, 0, 1e4, 1e4]
    scores = numpy.array([[[0.9, 0], [0.8, 0], [0.0, 0.0]]], numpy.float32)
    ((boxes, values, _),) = decode([encodings, scores], raw(tmp_path))
    assert values.tolist() == pytest.approx([0.8])
    assert boxes.tolist() == [[0, 0, 1, 1]]


def test_scores_are_converted_without_overflow() -> None:
    scores = numpy.array([[-200.0, 0.0, 200.0]], numpy.float32)
    assert convert_scores(scores, "sigmoid").tolist() == [[0.0, 0.5, 1.0]]
    assert convert_scores(scores, "softmax").tolist() == [[0.0, 0.0, 1.0]]
    with pytest.raises(ValueError, match="no conversion"):
        convert_scores(scores, "tanh")


def test_generated_anchors_are_those_of_the_object_detection_api() -> None:
    # 19 x 19 x 3 + (100 + 25 + 9 + 4 + 1) x 6: those of every ssd_mobilenet of the zoo.
    anchors = generate(SSD, (300, 300))
    assert anchors.shape == (1917, 4)
    assert anchors[0].tolist() == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert anchors[1].tolist() == pytest.approx([0.5 / 19, 0.5 / 19, 0.2 / 2**0.5, 0.2 * 2**0.5])
    assert anchors[3].tolist() == pytest.approx([0.5 / 19, 1.5 / 19, 0.1, 0.1])  # columns before rows
    assert anchors[1083 + 5].tolist() == pytest.approx([0.05, 0.05, (0.35 * 0.5) ** 0.5, (0.35 * 0.5) ** 0.5])
    assert anchors[-1].tolist() == pytest.approx([0.5, 0.5, (0.95 * 1.0) ** 0.5, (0.95 * 1.0) ** 0.5])
    # A square stays one in a picture that is twice as wide as it is high.
    assert generate(SSD, (300, 600))[0].tolist() == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.05])
    scaled = generate({**SSD, "scales": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "reduce_boxes_in_lowest_layer": False}, (300, 300))
    assert scaled.shape == (1917 + 361 * 3, 4)
    assert scaled[0, 2:].tolist() == pytest.approx([0.1, 0.1])
    assert generate({**SSD, "interpolated_scale_aspect_ratio": 0.0}, (300, 300)).shape == (1917 - 139, 4)


def _naive(boxes: Any, scores: Any, iou: float, threshold: float, per_class: int, maximum: int) -> list[tuple[int, int]]:
    """Suppression as it is told: class by class, then the best of all."""
    kept: list[tuple[int, int]] = []
    for number in range(scores.shape[1]):
        own: list[int] = []
        for anchor in sorted(range(len(boxes)), key=lambda one: (-scores[one, number], one)):
            clear = all(_iou(boxes[anchor], boxes[other]) <= iou for other in own)
            if scores[anchor, number] > threshold and clear and len(own) < per_class:
                own.append(anchor)
        kept += [(anchor, number) for anchor in own]
    return sorted(kept, key=lambda pair: -scores[pair])[:maximum]


def _iou(a: Any, b: Any) -> float:
    height = max(min(a[2], b[2]) - max(a[0], b[0]), numpy.float32(0))
    width = max(min(a[3], b[3]) - max(a[1], b[1]), numpy.float32(0))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    common = height * width
    return float(common / (areas[0] + areas[1] - common)) if min(areas) > 0 else 0.0


@st.composite
def _scenes(draw: st.DrawFn) -> tuple[Any, Any]:
    count, classes = draw(st.integers(0, 12)), draw(st.integers(1, 3))
    random = numpy.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    corners = random.uniform(0, 0.6, (count, 2))
    boxes = numpy.concatenate([corners, corners + random.uniform(0, 0.4, (count, 2))], axis=1).astype(numpy.float32)
    # Few different scores, so that ties are common.
    scores = (random.randint(0, draw(st.sampled_from([3, 1000])), (count, classes)) / 1000.0).astype(numpy.float32)
    return boxes, scores


@given(_scenes(), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(1, 5), st.integers(1, 8))
def test_suppression_is_what_it_is_told_to_be(scene: tuple[Any, Any], iou: float, per_class: int, maximum: int) -> None:
    boxes, scores = scene
    anchors, classes = suppress(boxes, scores, iou, 0.0, per_class, maximum)
    assert list(zip(anchors.tolist(), classes.tolist(), strict=True)) == _naive(boxes, scores, iou, 0.0, per_class, maximum)
    values = scores[anchors, classes]
    assert (numpy.diff(values) <= 0).all()
    assert len({*zip(anchors, classes, strict=True)}) == len(anchors) <= maximum
    for place, (anchor, number) in enumerate(zip(anchors, classes, strict=True)):
        assert scores[anchor, number] > 0
        for other, of in zip(anchors[:place], classes[:place], strict=True):
            assert number != of or _iou(boxes[anchor], boxes[other]) <= iou


@settings(max_examples=40)
@given(_scenes(), st.randoms(use_true_random=False))
def test_the_order_of_the_anchors_does_not_matter_where_scores_differ(scene: tuple[Any, Any], random: Any) -> None:
    boxes, scores = scene
    scores = scores + numpy.arange(scores.size, dtype=numpy.float32).reshape(scores.shape) * numpy.float32(1e-4)
    if len(numpy.unique(scores)) < scores.size:
        return
    order = list(range(len(boxes)))
    random.shuffle(order)
    anchors, classes = suppress(boxes, scores, 0.4, 0.0, 10, 10)
    shuffled, same_classes = suppress(boxes[order], scores[order], 0.4, 0.0, 10, 10)
    assert anchors.tolist() == [order[index] for index in shuffled]
    assert classes.tolist() == same_classes.tolist()


def test_boxes_without_an_area_overlap_nothing() -> None:
    boxes = numpy.array([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.4, 0.4, 0.6, 0.6]], numpy.float32)
    anchors, _ = suppress(boxes, numpy.array([[0.9], [0.8], [0.7]], numpy.float32), 0.0, 0.0, 10, 10)
    assert anchors.tolist() == [0, 1, 2]


def test_an_encoding_of_zeros_is_the_anchor_itself() -> None:
    assert decode_boxes(numpy.zeros((3, 4)), ANCHORS)[0].tolist() == [0.0, 0.0, 0.5, 0.5]
