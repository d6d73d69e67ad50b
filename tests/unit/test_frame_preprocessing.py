"""A frame becomes what the plugin's own preprocessing makes of the same picture: exactly, but for what a resize differs by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from stream_sources import frame  # noqa: E402

from pytest_inference_gate.agent.failures import Unsupported  # noqa: E402
from pytest_inference_gate.agent.frame_preprocessing import FramePreprocessor  # noqa: E402
from pytest_inference_gate.agent.frame_source import SourceError  # noqa: E402
from pytest_inference_gate.agent.quantization import quantize  # noqa: E402
from pytest_inference_gate.cards import BUILT_IN_SCALINGS, Checkpoint, Input, Labels, ModelCard, Preprocessing  # noqa: E402
from pytest_inference_gate.preprocessing import preprocess  # noqa: E402


def card_of(height: int, width: int, layout: str = "nhwc", **steps: Any) -> ModelCard:
    channels = 1 if steps.get("channel_order") == "grayscale" else 3
    shape = [height, width, channels] if layout == "nhwc" else [channels, height, width]
    return ModelCard(
        name="m",
        checkpoint=Checkpoint(format="keras", file="m.keras"),
        input=Input.model_validate({"shape": shape, "layout": layout}),
        preprocessing=Preprocessing(**steps),
        labels=Labels(count=10),
        backends={"tflite": ["fp32"]},
        path=Path("card.toml"),
    )


def of_frame(picture: Any, card: ModelCard, *tensor: Any) -> Any:
    asked = {"shape": list(card.input.shape), "layout": card.input.layout}
    preprocessor = FramePreprocessor(cv2, card.preprocessing.model_dump(mode="json"), asked, *tensor)
    target = np.empty(preprocessor.shape, preprocessor.dtype)
    preprocessor.write(np.ascontiguousarray(picture[:, :, ::-1]), target)  # OpenCV's frames are blue, green, red
    return target


NOISE = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SMOOTH = frame(0, 320, 240)


COMBINATIONS = [
    (scaling, order)
    for scaling in BUILT_IN_SCALINGS
    for order in ("rgb", "bgr", "grayscale")
    if (scaling != "imagenet_mean_bgr" or order == "bgr") and (scaling != "imagenet_mean_std" or order != "grayscale")
]  # that a card can ask for


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(("scaling", "order"), COMBINATIONS)
def test_without_a_resize_it_is_the_same_to_the_last_bit(scaling: str, order: str, layout: str) -> None:
    card = card_of(24, 32, layout, scaling=scaling, channel_order=order)
    expected, found = preprocess([NOISE], card), of_frame(NOISE, card)
    if order != "grayscale":
        np.testing.assert_array_equal(found, expected)
    else:  # OpenCV weighs the colours with whole numbers: a grey that lies half-way between two may be the other one
        unit = 1.0 if scaling == "none" else 1 / 255 if scaling == "zero_to_one" else 2 / 255
        assert np.abs(found - expected).max() <= unit * 1.001
        assert (found == expected).mean() > 0.95


@pytest.mark.parametrize(("interpolation", "mean"), [("nearest", 0.0), ("area", 0.01), ("bilinear", 0.01), ("bicubic", 0.01)])
@pytest.mark.parametrize("resize", ["resize", "resize_and_crop"])
def test_a_resize_is_close_on_smooth_pictures(resize: str, interpolation: str, mean: float) -> None:
    card = card_of(96, 96, scaling="zero_to_one", resize=resize, interpolation=interpolation)
    difference = np.abs(of_frame(SMOOTH, card) - preprocess([SMOOTH], card))
    assert difference.mean() <= mean
    assert difference.max() <= (0.0 if interpolation == "nearest" else 0.05)


def test_a_resize_of_noise_shows_that_pillow_smooths_and_opencv_does_not() -> None:
    card = card_of(8, 8, scaling="zero_to_one", resize="resize", interpolation="bilinear")
    assert of_frame(NOISE, card).std() > 1.5 * preprocess([NOISE], card).std()


def test_an_area_of_whole_pixels_is_their_mean_in_both() -> None:
    card = card_of(12, 16, resize="resize", interpolation="area")
    assert np.abs(of_frame(NOISE, card) - preprocess([NOISE], card)).max() <= 1


def test_values_are_stretched_to_the_largest_of_the_card() -> None:
    card = card_of(24, 32, scaling="zero_to_one", maximum=16.0)
    stretched = NOISE.astype(np.float32) * np.float32(16 / 255)
    np.testing.assert_allclose(of_frame(NOISE, card), preprocess([stretched.clip(0, 16)], card), rtol=1e-6)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(
    ("scaling", "order", "tensor"),
    [
        ("zero_to_one", "rgb", ("int8", 1 / 255, -128)),  # which only moves the values
        ("minus_one_to_one", "rgb", ("uint8", 2 / 255, 128)),
        ("none", "bgr", ("uint8", None, None)),
        ("imagenet_mean_std", "rgb", ("int8", 0.0186584, -14)),
        ("zero_to_one", "grayscale", ("int8", 1 / 255, -128)),
        ("zero_to_one", "grayscale", ("int8", 0.01, -10)),
    ],
)
def test_a_quantized_tensor_gets_what_the_runner_would_make_of_the_floats(
    scaling: str, order: str, tensor: tuple[str, float | None, int | None], layout: str
) -> None:
    card = card_of(24, 32, layout, scaling=scaling, channel_order=order)
    dtype, scale, zero_point = tensor
    expected = quantize(of_frame(NOISE, card), dtype, scale or 0.0, zero_point or 0)
    np.testing.assert_array_equal(of_frame(NOISE, card, *tensor), expected)


def test_frames_of_another_size_are_taken_as_they_come() -> None:
    card = card_of(24, 32, resize="resize", scaling="zero_to_one")
    asked = {"shape": [24, 32, 3], "layout": "nhwc"}
    preprocessor = FramePreprocessor(cv2, card.preprocessing.model_dump(mode="json"), asked)
    targets = [np.empty(preprocessor.shape, np.float32) for _ in range(3)]
    for picture, target in zip((SMOOTH, SMOOTH[:200, :300], SMOOTH), targets, strict=True):
        preprocessor.write(np.ascontiguousarray(picture), target)
    np.testing.assert_array_equal(targets[0], targets[2])
    assert np.abs(targets[0] - targets[1]).max() > 0


def test_a_frame_of_the_wrong_size_without_a_resize_is_an_error() -> None:
    with pytest.raises(
        SourceError, match=r"a frame is 240 x 320 pixels .* the model takes 24 x 32; set resize in the card's \[stream\]"
    ):
        of_frame(SMOOTH, card_of(24, 32))


def test_a_hook_s_scaling_is_not_known_here() -> None:
    card = card_of(24, 32).model_copy(update={"preprocessing": Preprocessing(scaling="mine")})
    with pytest.raises(Unsupported, match="a stream knows no scaling 'mine'"):
        of_frame(NOISE, card)
