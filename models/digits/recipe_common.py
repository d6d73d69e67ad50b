"""What the two training recipes share: the split, the augmentation, the schedule, the figures that they print.

The data are the 1,797 pictures of scikit-learn's ``load_digits`` (8 x 8, values 0 to 16), the test part of UCI's "Optical
Recognition of Handwritten Digits". They come in the order of the forms on which people wrote them: the same sequence of digits
starts anew 14 times, every 122 to 130 pictures. Pictures from one hand resemble each other, so a random split would ask the model
about hands that it has seen, and flatter it. Here forms are kept whole and apart:

========== ============ ============ ==========================================================================
part       pictures     forms        used for
========== ============ ============ ==========================================================================
training   0 to 1156    9            the weights of the committed checkpoints; hyperparameters, by ``--validate``:
                                     three folds of three forms, each asked about by a model trained on the rest
unused     1157 to 1199 part of one  the form that the border of the evaluation set cuts in two: left out
evaluation 1200 to 1796 4 + the rest looked at once, by the finished model
========== ============ ============ ==========================================================================

What cannot be known from the data: their documentation speaks of 13 writers, so one of them may have filled in two of the 14
forms.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SIDE = 32  # the models' input is SIDE x SIDE x 1
PIXEL_MAXIMUM = 16.0
FOLD_BORDERS = (0, 386, 776, 1157)  # between forms, which begin at 0, 130, 256, 386, 516, 646, 776, 906, 1029 and 1157
TRAINING_END = 1157  # the first picture of the form that the evaluation set's border cuts
EVALUATION_BEGIN = 1200
CLASSES = 10

Array = np.ndarray[Any, Any]


def load_pictures() -> tuple[Array, Array]:
    """All pictures, uint8 (1797, 8, 8), and their labels, int64 (1797,), in the data set's own order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


def preprocess(images: Array) -> Array:
    """uint8 (N, 8, 8) -> float32 (N, 32, 32, 1) in 0..1: what the cards' ``[preprocessing]`` section says, done with Pillow.

    Pillow resizes whole numbers to whole numbers, so that the larger pictures too have 17 grey levels.
    """
    from PIL import Image

    resized = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in images]
    return (np.stack([np.asarray(image) for image in resized]).astype(np.float32) / np.float32(PIXEL_MAXIMUM))[..., np.newaxis]


@dataclass(frozen=True)
class Augmentation:
    """How far a training picture may be moved and bent. Lengths are shares of the picture's side."""

    shift: float = 0.08
    rotation: float = 15.0  # degrees
    scale: float = 0.18
    shear: float = 0.2
    elastic: float = 0.035  # standard deviation of the bending
    elastic_knots: int = 5  # the bending is drawn on knots x knots points and interpolated between them
    noise: float = 0.05  # standard deviation, of pixels in 0..1

    def apply(self, pictures: Array, random: np.random.Generator) -> Array:
        """float32 (N, H, W, 1) -> the same shape, each picture changed in its own random way."""
        count, height, width, _ = pictures.shape
        y, x = np.meshgrid(np.linspace(-0.5, 0.5, height), np.linspace(-0.5, 0.5, width), indexing="ij")

        def draw(bound: float) -> Array:
            return random.uniform(-bound, bound, (count, 1, 1))

        angle = draw(math.radians(self.rotation))
        scale_y, scale_x, shear = 1 + draw(self.scale), 1 + draw(self.scale), draw(self.shear)
        bend = self._bending(count, height, width, random)
        source_y = scale_y * (np.cos(angle) * y - np.sin(angle) * x) + draw(self.shift) + bend[0]
        source_x = scale_x * (np.sin(angle) * y + np.cos(angle) * x) + shear * y + draw(self.shift) + bend[1]
        warped = sample_bilinear(pictures[..., 0], (source_y + 0.5) * (height - 1), (source_x + 0.5) * (width - 1))
        noisy = warped + self.noise * random.standard_normal(warped.shape)
        return np.clip(noisy, 0.0, 1.0).astype(np.float32)[..., np.newaxis]

    def _bending(self, count: int, height: int, width: int, random: np.random.Generator) -> Array:
        knots = self.elastic * random.standard_normal((2, count, self.elastic_knots, self.elastic_knots))
        return interpolation_matrix(self.elastic_knots, height) @ knots @ interpolation_matrix(self.elastic_knots, width).T


def interpolation_matrix(knots: int, points: int) -> Array:
    """(points, knots): linear interpolation between equally spaced knots."""
    position = np.linspace(0, knots - 1, points)[:, np.newaxis]
    weights: Array = np.maximum(0.0, 1.0 - np.abs(position - np.arange(knots)))
    return weights


def sample_bilinear(pictures: Array, y: Array, x: Array) -> Array:
    """Values of (N, H, W) at fractional coordinates (N, H, W); zero, the paper's colour, outside."""
    count, height, width = pictures.shape
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    y, x = np.clip(y + 1, 0, height + 0.999), np.clip(x + 1, 0, width + 0.999)
    top, left = y.astype(np.intp), x.astype(np.intp)
    down, right = y - top, x - left
    n = np.arange(count)[:, np.newaxis, np.newaxis]
    upper = padded[n, top, left] * (1 - right) + padded[n, top, left + 1] * right
    lower = padded[n, top + 1, left] * (1 - right) + padded[n, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    epochs: int
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    warmup_epochs: int = 3
    augmentation: Augmentation = Augmentation()


def prepare_tensorflow(seed: int) -> None:
    """One thread and fixed seeds: the same machine gives the same weights again."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


def fit(model: Any, pictures: Array, labels: Array, plan: Plan, seed: int) -> None:
    """Train ``model`` (softmax output) in place: AdamW, cosine schedule, each picture distorted anew each epoch."""
    import keras

    random = np.random.default_rng(seed)

    class Distorted(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.on_epoch_end()

        def __len__(self) -> int:
            return math.ceil(len(pictures) / plan.batch)

        def __getitem__(self, index: int) -> tuple[Array, Array]:
            part = slice(index * plan.batch, (index + 1) * plan.batch)
            return self.pictures[part], self.targets[part]

        def on_epoch_end(self) -> None:
            order = random.permutation(len(pictures))
            self.pictures = plan.augmentation.apply(pictures[order], random)
            self.targets = np.eye(CLASSES, dtype=np.float32)[labels[order]]

    data = Distorted()
    steps = len(data)
    schedule = keras.optimizers.schedules.CosineDecay(
        plan.learning_rate * 0.05,
        decay_steps=steps * (plan.epochs - plan.warmup_epochs),
        warmup_target=plan.learning_rate,
        warmup_steps=steps * plan.warmup_epochs,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=plan.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=plan.label_smoothing),
    )
    model.fit(data, epochs=plan.epochs, verbose=0, shuffle=False)


def wilson_interval(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval for a share (Wilson 1927, J. Am. Stat. Assoc. 22:209)."""
    share = right / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def count_right(model: Any, pictures: Array, labels: Array) -> int:
    return int((model.predict(pictures, batch_size=128, verbose=0).argmax(axis=1) == labels).sum())


def print_top1(part: str, right: int, count: int) -> None:
    low, high = wilson_interval(right, count)
    print(f"{part:<10} {right} of {count} right  top-1 {right / count:.4f}  95 % interval {low:.4f} to {high:.4f}", flush=True)


def validate(build: Callable[[], Any], plan: Plan, pictures: Array, labels: Array, seed: int) -> None:
    """Print top-1 on each third of the training forms, of a model that was trained on the other two thirds."""
    import keras

    total = 0
    for fold, (begin, end) in enumerate(itertools.pairwise(FOLD_BORDERS), start=1):
        keras.utils.set_random_seed(seed)
        model = build()
        others = np.r_[0:begin, end:TRAINING_END]
        fit(model, pictures[others], labels[others], plan, seed)
        right = count_right(model, pictures[begin:end], labels[begin:end])
        print_top1(f"fold {fold}", right, end - begin)
        total += right
    print_top1("validation", total, TRAINING_END)


def run_recipe(
    description: str,
    build: Callable[[], Any],
    plan: Plan,
    checkpoint: str,
    seed: int,
    finish: Callable[[Any], None] | None = None,
) -> None:
    """The recipes' command line: ``--validate`` judges hyperparameters, without it the committed checkpoint is made.

    ``finish`` changes the trained model in place, before it is asked about the evaluation set and saved.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true", help="cross-validate on the training forms, write nothing")
    parser.add_argument("--output", type=Path, default=HERE / checkpoint, help="where the checkpoint goes (default: %(default)s)")
    arguments = parser.parse_args()

    prepare_tensorflow(seed)
    images, labels = load_pictures()
    pictures = preprocess(images)
    print(f"training {TRAINING_END} pictures, evaluation {len(labels) - EVALUATION_BEGIN}", flush=True)
    if arguments.validate:
        validate(build, plan, pictures[:TRAINING_END], labels[:TRAINING_END], seed)
        return
    model = build()
    print(f"{model.name}: {model.count_params():,} parameters, {plan.epochs} epochs", flush=True)
    begin = time.monotonic()
    fit(model, pictures[:TRAINING_END], labels[:TRAINING_END], plan, seed)
    print(f"trained in {time.monotonic() - begin:.0f} s", flush=True)
    if finish is not None:
        finish(model)
    print_top1("training", count_right(model, pictures[:TRAINING_END], labels[:TRAINING_END]), TRAINING_END)
    right = count_right(model, pictures[EVALUATION_BEGIN:], labels[EVALUATION_BEGIN:])
    print_top1("evaluation", right, len(labels) - EVALUATION_BEGIN)
    save(model, build, arguments.output)
    content = arguments.output.read_bytes()
    print(f"wrote {arguments.output} ({len(content) / 1000:.0f} kB, sha256 {hashlib.sha256(content).hexdigest()})")


def save(trained: Any, build: Callable[[], Any], path: Path) -> None:
    """The model without its optimizer's state, which is twice as large as the weights and of no use to inference."""
    bare = build()
    bare.set_weights(trained.get_weights())
    bare.save(path)
