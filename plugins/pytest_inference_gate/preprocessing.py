"""From pictures to the model's input.

Each model wants its pictures as its training saw them; one wrong step costs accuracy silently. The steps and their order are the
card's ``[preprocessing]``: channels, resize, channel order, scaling, layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cards import ModelCard, Preprocessing
from .errors import EvaluationDataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatPicture = NDArray[np.float32]
    Scaling = Callable[[FloatPicture], NDArray[Any]]

# Mean and standard deviation of ImageNet's pixels scaled to 0..1, red green blue, as torchvision and keras.applications (mode
# "torch") use.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STANDARD_DEVIATION = (0.229, 0.224, 0.225)
# Mean of ImageNet's pixels in 0..255, blue green red, as Caffe's models and keras.applications (mode "caffe") use.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
# Luma of ITU-R BT.601, the weights that Pillow turns colour into grey with.
GREY_WEIGHTS = (0.299, 0.587, 0.114)

_CROP_SHARE = 0.875  # 224 of 256, the usual centre crop of ImageNet


def preprocess(
    images: Sequence[NDArray[Any]],
    card: ModelCard,
    extra_scalings: Mapping[str, Scaling] | None = None,
    *,
    names: Sequence[str] | None = None,
    output: Path | None = None,
) -> NDArray[np.float32]:
    """The pictures as a ``float32`` array of shape ``(N,) + card.input.shape``.

    A picture is ``(height, width)``, ``(height, width, 1)``, ``(height, width, 3)`` in red, green, blue or ``(height, width,
    4)`` with an alpha channel, which is dropped; of unsigned or signed integers or floats between 0 and the card's ``maximum``.
    ``extra_scalings`` maps the name of a scaling that a hook adds to a function from ``(height, width, channels)`` ``float32``
    (already resized and in the card's channel order) to an array of that shape. ``names`` are for messages. With ``output`` the
    array is written to that ``.npy`` file and mapped from there, for sets larger than the memory. Raises
    :class:`EvaluationDataError`.
    """
    import numpy as np

    if not len(images):
        raise EvaluationDataError(f"{card.path}: there are no pictures to preprocess; add some to the set.")
    scale = _scaling(card, extra_scalings or {})
    shape = (len(images), *card.input.shape)

    def prepared(index: int) -> NDArray[np.float32]:
        name = names[index] if names is not None else f"number {index}"
        return _prepare(images[index], f"{card.path}: picture {name}", card, scale)

    if output is None:
        result: NDArray[np.float32] = np.empty(shape, np.float32)
        for index in range(len(images)):
            result[index] = prepared(index)
        return result
    # Written and not mapped: where the disk is full, a write raises, and a map ends the process (SIGBUS).
    with output.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for index in range(len(images)):
            stream.write(prepared(index).tobytes())
    mapped: NDArray[np.float32] = np.load(output, mmap_mode="r", allow_pickle=False)
    return mapped


def _prepare(image: NDArray[Any], what: str, card: ModelCard, scale: Scaling) -> NDArray[np.float32]:
    import numpy as np

    check_picture(image, what, card.preprocessing.maximum)
    picture = _with_channels(image, card.input.channels)
    picture = _resized(picture, what, card)
    if card.preprocessing.channel_order == "bgr":
        picture = picture[:, :, ::-1]
    try:
        prepared = np.asarray(scale(np.array(picture, np.float32)))  # a copy: a scaling may work in place
    except Exception as error:  # a hook's scaling is a user's code
        reason = " ".join(str(error).split())
        raise EvaluationDataError(
            f"{what}: the scaling {card.preprocessing.scaling!r} raised {type(error).__name__}: {reason}; correct the scaling."
        ) from error
    if prepared.dtype.kind not in "uif":
        raise EvaluationDataError(
            f"{what}: the scaling {card.preprocessing.scaling!r} gave values of type {prepared.dtype}; expected floats."
        )
    if prepared.shape != picture.shape:
        raise EvaluationDataError(
            f"{what}: the scaling {card.preprocessing.scaling!r} made {prepared.shape} of {picture.shape}; it has to keep the "
            "shape."
        )
    if not np.isfinite(prepared).all():
        raise EvaluationDataError(
            f"{what}: the scaling {card.preprocessing.scaling!r} gave NaN or infinity; correct the scaling."
        )
    if card.input.layout == "nchw":
        prepared = prepared.transpose(2, 0, 1)
    return prepared.astype(np.float32)


def check_picture(image: NDArray[Any], what: str, maximum: float) -> None:
    """Raise :class:`EvaluationDataError` where ``image`` is no picture with values between 0 and ``maximum``; ``what`` names "
    "it."""
    import numpy as np

    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or 0 in image.shape:
        raise EvaluationDataError(
            f"{what} has the shape {image.shape}; expected (height, width) or (height, width, channels) with 1, 3 or 4 channels."
        )
    if image.dtype.kind not in "uif":
        raise EvaluationDataError(f"{what} holds values of type {image.dtype}; expected integers or floats.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise EvaluationDataError(f"{what} holds NaN or infinity; expected values from 0 to {maximum:g}.")
    lowest, highest = image.min(), image.max()
    if lowest < 0 or highest > maximum:
        value = lowest if lowest < 0 else highest
        bits = f" ({8 * image.dtype.itemsize} bits a pixel)" if image.dtype.kind == "u" and image.dtype.itemsize > 1 else ""
        raise EvaluationDataError(
            f"{what} holds the value {value:g}{bits}; expected 0 to {maximum:g}, which preprocessing.maximum in the card sets."
        )


def _with_channels(image: NDArray[Any], channels: int) -> NDArray[Any]:
    """The picture as (height, width, channels) with 1 or 3 channels."""
    import numpy as np

    picture = image[:, :, None] if image.ndim == 2 else image
    if picture.shape[2] == 4:
        picture = picture[:, :, :3]
    if picture.shape[2] == channels:
        return picture
    if channels == 3:
        return np.repeat(picture, 3, axis=2)
    grey = picture.astype(np.float64) @ np.array(GREY_WEIGHTS)
    if image.dtype.kind in "ui":
        grey = np.rint(grey)
    converted: NDArray[Any] = grey.astype(image.dtype)[:, :, None]
    return converted


def _resized(picture: NDArray[Any], what: str, card: ModelCard) -> NDArray[Any]:
    height, width = card.input.height, card.input.width
    preprocessing = card.preprocessing
    if preprocessing.resize == "none":
        if picture.shape[:2] != (height, width):
            raise EvaluationDataError(
                f"{what} is {picture.shape[0]} x {picture.shape[1]} pixels (height x width), the model takes {height} x {width}; "
                "set preprocessing.resize in the card or resize the picture."
            )
        return picture
    if preprocessing.resize == "resize":
        return _resample(picture, height, width, preprocessing)
    shorter = preprocessing.resize_shorter_side or round(max(height, width) / _CROP_SHARE)
    old_height, old_width = picture.shape[:2]
    # The longer side is cut to a whole pixel and the crop's corner rounded, both as torchvision does.
    if old_height <= old_width:
        new_height, new_width = shorter, int(shorter * old_width / old_height)
    else:
        new_height, new_width = int(shorter * old_height / old_width), shorter
    picture = _resample(picture, new_height, new_width, preprocessing)
    top, left = round((new_height - height) / 2), round((new_width - width) / 2)
    return picture[top : top + height, left : left + width]


def _resample(picture: NDArray[Any], height: int, width: int, preprocessing: Preprocessing) -> NDArray[Any]:
    """Resize with Pillow, whose filters widen when they shrink a picture (antialiasing), as torchvision's do."""
    import numpy as np
    from PIL import Image

    if picture.shape[:2] == (height, width):
        return picture
    filters = {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "area": Image.Resampling.BOX,
    }
    chosen = filters[preprocessing.interpolation]
    if picture.dtype == np.uint8:
        # Whole numbers in, whole numbers out, as everybody's training did it.
        source = Image.fromarray(np.ascontiguousarray(picture if picture.shape[2] == 3 else picture[:, :, 0]))
        resized = np.asarray(source.resize((width, height), chosen))
        return resized if resized.ndim == 3 else resized[:, :, None]
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(picture[:, :, index], np.float32)).resize((width, height), chosen))
        for index in range(picture.shape[2])
    ]
    # Bicubic overshoots at edges; no pixel is darker than black.
    clipped: NDArray[Any] = np.clip(np.stack(planes, axis=2), 0, preprocessing.maximum)
    return clipped


def _scaling(card: ModelCard, extra_scalings: Mapping[str, Scaling]) -> Scaling:
    import numpy as np

    preprocessing = card.preprocessing
    name, maximum = preprocessing.scaling, np.float32(preprocessing.maximum)
    if name in extra_scalings:
        return extra_scalings[name]
    if name == "none":
        return lambda picture: picture
    if name == "zero_to_one":
        return lambda picture: picture / maximum
    if name == "minus_one_to_one":
        return lambda picture: picture / (maximum / np.float32(2)) - np.float32(1)
    if name == "imagenet_mean_std":
        order = slice(None, None, -1) if preprocessing.channel_order == "bgr" else slice(None)
        mean = np.array(IMAGENET_MEAN, np.float32)[order]
        deviation = np.array(IMAGENET_STANDARD_DEVIATION, np.float32)[order]
        return lambda picture: (picture / maximum - mean) / deviation
    if name == "imagenet_mean_bgr":
        mean_bgr = np.array(IMAGENET_MEAN_BGR, np.float32)
        return lambda picture: picture * (np.float32(255) / maximum) - mean_bgr
    raise EvaluationDataError(
        f"{card.path}: the scaling {name!r} is not known here; add it with the plugin's hook or correct the card."
    )
