"""Preprocessing: every step against values worked out by hand, and steps that are mixed up most often told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_inference_gate.cards import Checkpoint, Input, Labels, ModelCard, Preprocessing
from pytest_inference_gate.errors import EvaluationDataError
from pytest_inference_gate.preprocessing import preprocess


def make_card(shape: Sequence[int] = (2, 2, 3), layout: str = "nhwc", **steps: Any) -> ModelCard:
    return ModelCard(
        name="m",
        checkpoint=Checkpoint(format="keras", file="m.keras"),
        input=Input.model_validate({"shape": list(shape), "layout": layout}),
        preprocessing=Preprocessing(**steps),
        labels=Labels(count=10),
        backends={"tflite": ["fp32"]},
        path=Path("card.toml"),
    )


def one(picture: Any, card: ModelCard, **arguments: Any) -> NDArray[np.float32]:
    result = preprocess([np.asarray(picture)], card, **arguments)
    assert result.dtype == np.float32 and result.shape == (1, *card.input.shape)
    first: NDArray[np.float32] = result[0]
    return first


RED = np.full((2, 2, 3), (255, 0, 51), np.uint8)  # red, green, blue


def test_without_steps_a_picture_only_becomes_floats() -> None:
    np.testing.assert_array_equal(one(RED, make_card()), RED.astype(np.float32))


@pytest.mark.parametrize(
    ("steps", "pixel"),
    [
        ({"scaling": "none"}, (255, 0, 51)),
        ({"scaling": "zero_to_one"}, (1, 0, 0.2)),
        ({"scaling": "minus_one_to_one"}, (1, -1, -0.6)),
        ({"channel_order": "bgr"}, (51, 0, 255)),
        ({"scaling": "imagenet_mean_std"}, ((1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225)),
        (
            {"scaling": "imagenet_mean_std", "channel_order": "bgr"},
            ((0.2 - 0.406) / 0.225, (0 - 0.456) / 0.224, (1 - 0.485) / 0.229),
        ),
        ({"scaling": "imagenet_mean_bgr", "channel_order": "bgr"}, (51 - 103.939, 0 - 116.779, 255 - 123.68)),
    ],
)
def test_a_pixel_is_scaled_as_worked_out_by_hand(steps: dict[str, Any], pixel: tuple[float, ...]) -> None:
    result = one(RED, make_card(**steps))
    np.testing.assert_allclose(result, np.broadcast_to(np.array(pixel), (2, 2, 3)), rtol=1e-5, atol=1e-5)


def test_the_largest_pixel_is_the_cards_maximum() -> None:
    digit = np.array([[0, 4], [8, 16]], np.uint8)
    result = one(digit, make_card((2, 2, 1), channel_order="grayscale", scaling="zero_to_one", maximum=16.0))
    np.testing.assert_array_equal(result[:, :, 0], [[0, 0.25], [0.5, 1]])
    deep = np.full((2, 2, 3), 65535, np.uint16)
    np.testing.assert_array_equal(one(deep, make_card(scaling="minus_one_to_one", maximum=65535.0)), np.ones((2, 2, 3)))
    mean = one(deep, make_card(scaling="imagenet_mean_bgr", channel_order="bgr", maximum=65535.0))
    np.testing.assert_allclose(mean[0, 0], [255 - 103.939, 255 - 116.779, 255 - 123.68], rtol=1e-5)


def test_colours_become_grey_by_their_luma_and_grey_becomes_three_equal_channels() -> None:
    grey = one(RED, make_card((2, 2, 1), channel_order="grayscale"))
    np.testing.assert_array_equal(grey, np.full((2, 2, 1), round(0.299 * 255 + 0.114 * 51)))
    for picture in (np.array([[1, 2], [3, 4]], np.uint8), np.array([[[1], [2]], [[3], [4]]], np.uint8)):
        colour = one(picture, make_card())
        for channel in range(3):
            np.testing.assert_array_equal(colour[:, :, channel], [[1, 2], [3, 4]])


def test_an_alpha_channel_is_dropped() -> None:
    transparent = np.dstack([RED, np.zeros((2, 2), np.uint8)])
    np.testing.assert_array_equal(one(transparent, make_card()), RED.astype(np.float32))


def test_nchw_puts_the_channels_first() -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    result = one(picture, make_card((3, 2, 3), "nchw"))
    for channel in range(3):
        np.testing.assert_array_equal(result[channel], picture[:, :, channel])


def test_the_orders_of_channels_and_of_axes_make_a_difference() -> None:
    picture = np.arange(3 * 3 * 3, dtype=np.uint8).reshape(3, 3, 3)
    variants = [
        one(picture, make_card((3, 3, 3))),
        one(picture, make_card((3, 3, 3), channel_order="bgr")),
        one(picture, make_card((3, 3, 3), "nchw")),
        one(picture, make_card((3, 3, 3), "nchw", channel_order="bgr")),
    ]
    assert len({variant.tobytes() for variant in variants}) == 4


def test_a_picture_of_another_size_needs_a_resize() -> None:
    with pytest.raises(EvaluationDataError, match=r"number 0 is 4 x 2 pixels .*the model takes 2 x 2; set preprocessing.resize"):
        one(np.zeros((4, 2, 3), np.uint8), make_card())


def test_area_is_the_mean_of_the_pixels_it_covers() -> None:
    picture = np.array([[0, 10, 100, 200], [20, 30, 60, 40]], np.uint8)
    card = make_card((1, 2, 1), channel_order="grayscale", resize="resize", interpolation="area")
    np.testing.assert_array_equal(one(picture, card)[:, :, 0], [[15, 100]])
    np.testing.assert_allclose(one(picture.astype(np.float32) + 0.25, card)[:, :, 0], [[15.25, 100.25]])


def test_bilinear_twice_as_large_is_worked_out_by_hand() -> None:
    card = make_card((1, 4, 1), channel_order="grayscale", resize="resize", interpolation="bilinear")
    np.testing.assert_allclose(one(np.array([[0.0, 100.0]]), card)[0, :, 0], [0, 25, 75, 100])


def test_nearest_takes_pixels_that_are_there() -> None:
    picture = np.random.RandomState(0).randint(0, 256, (9, 7, 3)).astype(np.uint8)
    result = one(picture, make_card((3, 3, 3), resize="resize", interpolation="nearest"))
    np.testing.assert_array_equal(result, picture[1::3][:, [1, 3, 5]])


def test_interpolations_differ() -> None:
    picture = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    results = {
        name: one(picture, make_card((5, 5, 3), resize="resize", interpolation=name))
        for name in ("nearest", "bilinear", "bicubic", "area")
    }
    assert len({result.tobytes() for result in results.values()}) == 4


def test_bicubic_does_not_leave_the_range() -> None:
    edge = np.zeros((8, 8, 1), np.float32)
    edge[:, 4:] = 1.0
    result = one(edge, make_card((32, 32, 1), channel_order="grayscale", resize="resize", interpolation="bicubic", maximum=1.0))
    assert result.min() == 0 and result.max() == 1


def squares() -> NDArray[np.uint8]:
    """A wide picture, 40 x 80: black, but for a white stripe at its left edge."""
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :8] = 255
    return picture


def test_squeezing_keeps_the_edges_and_cropping_drops_them() -> None:
    squeezed = one(squares(), make_card((20, 20, 3), resize="resize"))
    cropped = one(squares(), make_card((20, 20, 3), resize="resize_and_crop", resize_shorter_side=20))
    assert squeezed[:, 0].min() > 200
    assert cropped.max() == 0


def test_the_crop_is_the_middle_of_the_resized_picture() -> None:
    # 30 x 60 to a shorter side of 30: nothing is resampled, so that the crop shows the pixels themselves.
    wide = np.random.RandomState(0).randint(0, 256, (30, 60, 3)).astype(np.uint8)
    card = make_card((20, 20, 3), resize="resize_and_crop", resize_shorter_side=30)
    np.testing.assert_array_equal(one(wide, card), wide[5:25, 20:40].astype(np.float32))
    tall = wide.transpose(1, 0, 2)
    np.testing.assert_array_equal(one(tall, card), tall[20:40, 5:25].astype(np.float32))


def test_the_shorter_side_is_an_eighth_longer_than_the_input_by_default() -> None:
    picture = np.random.RandomState(0).randint(0, 256, (256, 256, 3)).astype(np.uint8)
    default = one(picture, make_card((224, 224, 3), resize="resize_and_crop"))
    np.testing.assert_array_equal(default, picture[16:240, 16:240].astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    resize=st.sampled_from(["resize", "resize_and_crop"]),
    kind=st.sampled_from([np.uint8, np.uint16, np.float32, np.float64, np.int32]),
)
def test_any_picture_comes_out_in_the_models_shape_and_range(
    height: int, width: int, shape: tuple[int, int], resize: str, kind: Any
) -> None:
    picture = np.random.RandomState(height * 61 + width).randint(0, 256, (height, width, 3)).astype(kind)
    result = one(picture, make_card((*shape, 3), resize=resize, scaling="zero_to_one"))
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\); expected"),
        (np.zeros((2, 2, 3, 1), np.uint8), "shape"),
        (np.zeros((0, 2, 3), np.uint8), "shape"),
        (np.zeros((4,), np.uint8), "shape"),
        (np.zeros((2, 2, 3), np.complex64), "complex64; expected integers or floats"),
        (np.zeros((2, 2, 3), bool), "type bool"),
        (np.array([["a"]]), "type"),
        (np.full((2, 2, 3), np.nan), "NaN"),
        (np.full((2, 2, 3), -1.0), "value -1; expected 0 to 255"),
        (np.full((2, 2, 3), 256), "value 256; expected 0 to 255, which preprocessing.maximum"),
        (np.full((2, 2), 4000, np.uint16), r"value 4000 \(16 bits a pixel\); expected 0 to 255"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(picture: NDArray[Any], reason: str) -> None:
    with pytest.raises(EvaluationDataError, match=reason) as caught:
        preprocess([picture], make_card(), names=["cat.png"])
    assert "picture cat.png" in str(caught.value)


def test_no_pictures_are_an_error() -> None:
    with pytest.raises(EvaluationDataError, match="no pictures"):
        preprocess([], make_card())


def test_a_hook_can_add_a_scaling() -> None:
    seen: list[tuple[int, ...]] = []

    def mine(picture: NDArray[np.float32]) -> NDArray[Any]:
        seen.append(picture.shape)
        picture -= 1  # in place, as scalings do: the caller's picture must not change
        return picture

    picture = RED.astype(np.float32)
    result = one(picture, make_card((3, 2, 2), "nchw", scaling="mine", channel_order="bgr"), extra_scalings={"mine": mine})
    np.testing.assert_array_equal(result[:, 0, 0], [50, -1, 254])
    np.testing.assert_array_equal(picture, RED)
    assert seen == [(2, 2, 3)]


def test_a_scaling_that_goes_wrong_is_named() -> None:
    card = make_card(scaling="mine")
    with pytest.raises(EvaluationDataError, match="'mine' made"):
        one(RED, card, extra_scalings={"mine": lambda picture: picture.mean(axis=2)})
    with pytest.raises(EvaluationDataError, match="'mine' gave NaN or infinity"):
        one(RED, card, extra_scalings={"mine": lambda picture: picture + np.inf})
    with pytest.raises(EvaluationDataError, match="'mine' is not known"):
        one(RED, card)


def test_a_large_set_can_be_written_to_a_file(tmp_path: Path) -> None:
    pictures = [np.full((2, 2, 3), value, np.uint8) for value in range(5)]
    mapped = preprocess(pictures, make_card(scaling="zero_to_one"), output=tmp_path / "x.npy")
    expected = preprocess(pictures, make_card(scaling="zero_to_one"))
    del mapped
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_no_file_is_written_through_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full, such a write ends the process with SIGBUS: no sentence, and no other case."""
    from pytest_inference_gate.agent.model_outputs import Writer

    real = np.lib.format.open_memmap

    def read_only(path: object, mode: str = "r+", *more: object, **others: object) -> object:
        assert mode == "r"
        return real(path, mode, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(np.lib.format, "open_memmap", read_only)
    preprocess([np.zeros((2, 2, 3), np.uint8)] * 2, make_card(), output=tmp_path / "x.npy")
    with Writer(str(tmp_path / "x.npz"), 3) as writer:
        for start in (0, 2):
            writer.put(start, [np.full((2, 1, 4), start, np.float64)], 2)
        writer.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["output_0"][:, 0, 0], [0, 0, 2])
