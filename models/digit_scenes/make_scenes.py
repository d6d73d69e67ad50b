"""Writes ``evaluation.npz``, ``evaluation.json`` and ``calibration.npz`` beside this file: scenes composed of handwritten digits.

Run ``python models/digit_scenes/make_scenes.py``. A scene is a grey picture of 96 x 96 pixels with one to six digits of
scikit-learn's ``load_digits`` on an uneven background among lines, curves and spots. Each ``.npz`` holds ``images``, uint8
(N, 96, 96); ``evaluation.json`` holds the evaluation scenes' boxes as COCO writes instances, its images in the order of the
``.npz``. Forms are kept apart exactly as ``models/digits/recipe_common.py`` keeps them: evaluation scenes are made of pictures 1200
to 1796 alone, training and calibration scenes of pictures 0 to 1156.

The same seed gives the same pixels. The files are compressed, so that their bytes are the same where zlib is the same.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "digits"))

from recipe_common import CLASSES, EVALUATION_BEGIN, PIXEL_MAXIMUM, TRAINING_END, load_pictures  # noqa: E402

Array = np.ndarray[Any, Any]

SIDE = 96  # pixels, height and width
GREY_STEP = 17  # 16 grey levels from 0 to 255: what 300 noisy pictures cost in a repository
MOST_DIGITS = 6
SMALLEST, LARGEST = 16, 56  # height of a digit's field of 8 x 8, in pixels
INK = 0.3  # a pixel belongs to a digit's box where the digit covers this share of it
TRIES = 40  # to find a free place for a digit before it is left out

EVALUATION_COUNT, EVALUATION_SEED = 200, 71
CALIBRATION_COUNT, CALIBRATION_SEED = 100, 72


@dataclass(frozen=True)
class Scene:
    """``picture``: uint8 (96, 96). ``boxes``: int64 (K, 4), pixels ymin, xmin, ymax, xmax, the last two exclusive. ``labels``: (K,)."""

    picture: Array
    boxes: Array
    labels: Array


def training_digits() -> tuple[Array, Array]:
    """The pictures, float32 (N, 8, 8) in 0..1, and labels that training and calibration scenes are made of."""
    images, labels = load_pictures()
    return (images[:TRAINING_END] / PIXEL_MAXIMUM).astype(np.float32), labels[:TRAINING_END]


def evaluation_digits() -> tuple[Array, Array]:
    """The same of the writers whom training never sees."""
    images, labels = load_pictures()
    return (images[EVALUATION_BEGIN:] / PIXEL_MAXIMUM).astype(np.float32), labels[EVALUATION_BEGIN:]


def make_scenes(digits: tuple[Array, Array], count: int, seed: int) -> list[Scene]:
    """``count`` scenes of ``digits``, the same ones for the same seed."""
    random = np.random.RandomState(seed)  # whose stream NumPy has promised never to change
    return [compose(*digits, random) for _ in range(count)]


def compose(images: Array, labels: Array, random: np.random.RandomState) -> Scene:
    """One scene with digits drawn from ``images``, float32 (N, 8, 8) in 0..1."""
    paper = random.uniform(0.1, 0.9)
    canvas = _clutter(_background(paper, random), paper, random)
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for _ in range(random.randint(1, MOST_DIGITS + 1)):
        chosen = random.randint(len(images))
        cover = _digit(images[chosen], random)
        for _ in range(TRIES):
            top = random.randint(SIDE - cover.shape[0] + 1)
            left = random.randint(SIDE - cover.shape[1] + 1)
            box = (top, left, top + cover.shape[0], left + cover.shape[1])
            if not any(_touch(box, other) for other in boxes):
                break
        else:
            continue
        contrast = random.uniform(0.35, 0.8)
        ink = paper + contrast if paper + contrast <= 1 or (paper - contrast < 0 and paper < 0.5) else paper - contrast
        part = canvas[top : box[2], left : box[3]]
        part += cover * (min(max(ink, 0.0), 1.0) - part)
        boxes.append(box)
        classes.append(int(labels[chosen]))
    noisy = canvas + random.uniform(0.01, 0.05) * random.standard_normal(canvas.shape)
    picture = np.rint(np.clip(noisy, 0, 1) * (255 / GREY_STEP)).astype(np.uint8) * np.uint8(GREY_STEP)
    return Scene(picture, np.array(boxes, np.int64).reshape(-1, 4), np.array(classes, np.int64))


def _background(paper: float, random: np.random.RandomState) -> Array:
    """Paper of the grey ``paper``, unevenly lit."""
    cells = random.randint(2, 6)
    shade = Image.fromarray(random.uniform(-0.1, 0.1, (cells, cells)).astype(np.float32)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    return paper + np.asarray(shade, np.float32)


def _clutter(canvas: Array, paper: float, random: np.random.RandomState) -> Array:
    """Lines, arcs and spots, fainter than most digits."""
    drawing = Image.fromarray(canvas.astype(np.float32))
    pen = ImageDraw.Draw(drawing)
    for _ in range(random.randint(0, 7)):
        grey = float(np.clip(paper + random.choice([-1, 1]) * random.uniform(0.1, 0.35), 0, 1))
        x, y = random.uniform(0, SIDE, 2)
        reach = random.uniform(4, 40)
        kind = random.randint(4)
        if kind <= 1:
            end = (x + random.uniform(-reach, reach), y + random.uniform(-reach, reach))
            pen.line([(x, y), end], fill=grey, width=int(random.randint(1, 4)))
        elif kind == 2:
            start = int(random.randint(360))
            end_angle, pen_width = start + int(random.randint(40, 150)), int(random.randint(1, 3))
            pen.arc([x, y, x + reach, y + reach], start, end_angle, fill=grey, width=pen_width)
        else:
            spot = random.uniform(2, 7)
            pen.ellipse([x, y, x + spot, y + spot], fill=grey)
    return np.asarray(drawing).copy()


def _digit(image: Array, random: np.random.RandomState) -> Array:
    """How much a digit covers of each pixel, float32 (height, width) in 0..1, cut to the digit's own box."""
    height = round(np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST))))
    width = max(8, round(height * random.uniform(0.85, 1.15)))
    field = Image.fromarray(np.pad(image, 1)).resize((round(width * 1.25), round(height * 1.25)), Image.Resampling.BICUBIC)
    turned = field.rotate(random.uniform(-10, 10), Image.Resampling.BICUBIC)
    cover = np.clip(np.asarray(turned, np.float32) * random.uniform(1.0, 1.4), 0, 1)
    inked = cover > INK
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    return cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _touch(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two boxes share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def coco_instances(scenes: list[Scene]) -> dict[str, Any]:
    """The boxes of ``scenes`` in COCO's format: x, y, width, height in pixels; image ids from 1, category ids 1 to 10 for 0 to 9."""
    annotations = [
        {
            "id": 0,
            "image_id": image,
            "category_id": int(label) + 1,
            "bbox": [int(xmin), int(ymin), int(xmax - xmin), int(ymax - ymin)],
            "area": int((xmax - xmin) * (ymax - ymin)),
            "iscrowd": 0,
        }
        for image, scene in enumerate(scenes, start=1)
        for (ymin, xmin, ymax, xmax), label in zip(scene.boxes, scene.labels, strict=True)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    return {
        "info": {
            "description": "Scenes of handwritten digits; pictures: UCI Optical Recognition of Handwritten Digits, CC BY 4.0"
        },
        "images": [
            {"id": image, "file_name": f"scene_{image:04}.png", "width": SIDE, "height": SIDE}
            for image in range(1, len(scenes) + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(CLASSES)],
    }


def write_npz(path: Path, images: Array) -> None:
    """Like ``numpy.savez_compressed``, whose files carry the time of writing, but with the same bytes each time."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(images), version=(1, 0), allow_pickle=False)
    entry = zipfile.ZipInfo("images.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, wherever this runs
    entry.external_attr = 0o644 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content.getvalue(), compresslevel=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the three files (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="write the evaluation scenes as PNG files into this folder too")
    arguments = parser.parse_args()

    evaluation = make_scenes(evaluation_digits(), EVALUATION_COUNT, EVALUATION_SEED)
    calibration = make_scenes(training_digits(), CALIBRATION_COUNT, CALIBRATION_SEED)
    write_npz(arguments.output / "evaluation.npz", np.stack([scene.picture for scene in evaluation]))
    write_npz(arguments.output / "calibration.npz", np.stack([scene.picture for scene in calibration]))
    instances = coco_instances(evaluation)
    (arguments.output / "evaluation.json").write_text(json.dumps(instances, separators=(",", ":")) + "\n", encoding="utf-8")
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for described, scene in zip(instances["images"], evaluation, strict=True):
            Image.fromarray(scene.picture).save(arguments.pictures / described["file_name"])
    print(
        f"wrote {len(evaluation)} evaluation scenes with {len(instances['annotations'])} digits, {len(calibration)} calibration scenes"
    )


if __name__ == "__main__":
    main()
