"""Trains ``digit_scenes_ssd.keras`` on scenes composed of the training writers' digits.

The loss is that of SSD with focal loss in place of mining hard negatives: a sigmoid focal loss (Lin et al. 2017,
arXiv:1708.02002, alpha 0.25, gamma 2) over background and digits, and a Huber loss of the box encodings of the anchors that answer
for a digit, both summed and divided by the number of those anchors. Anchors are assigned as ``ssd_geometry.assign`` says. Run
``python models/digit_scenes/train_digit_scenes_ssd.py``; see --help.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from make_scenes import CLASSES, HERE, Array, Scene, make_scenes, training_digits
from recipe_common import Augmentation, prepare_tensorflow
from ssd_geometry import ANCHORS, assign, encode, make_anchors
from ssd_network import COLUMNS, HEADS, SIDE, build

SEED = 20
SCENES, SCENE_SEED = 10_000, 70
COPIES = 12  # how often each training digit is bent anew before it goes into scenes
EPOCHS, BATCH = 8, 32
LEARNING_RATE, WEIGHT_DECAY, WARMUP_SHARE = 4e-3, 0.01, 0.1
ALPHA, GAMMA = 0.25, 2.0
PRIOR = (
    0.01  # how likely an untrained head takes an anchor for a digit (section 4.1 there): else the background's loss drowns all
)


def bent_digits(random: np.random.Generator) -> tuple[Array, Array]:
    """The training digits, each in :data:`COPIES` hands of its own."""
    images, labels = training_digits()
    bending = Augmentation(shift=0.0, rotation=5.0, scale=0.1, noise=0.0)
    copies = [images] + [bending.apply(images[..., np.newaxis], random)[..., 0] for _ in range(COPIES)]
    return np.concatenate(copies), np.tile(labels, len(copies))


def targets(scene: Scene, anchors: Array) -> Array:
    """float32 (anchors, 4 + columns): encodings of the digit that an anchor answers for, and one column set to 1 (0: background)."""
    boxes = scene.boxes / SIDE
    answers = assign(boxes, anchors)
    positive = answers >= 0
    wanted = np.zeros((len(anchors), 4 + COLUMNS), np.float32)
    wanted[positive, :4] = encode(boxes[answers[positive]], anchors[positive])
    wanted[np.arange(len(anchors)), 4 + np.where(positive, scene.labels[answers] + 1, 0)] = 1
    return wanted


def detection_loss(wanted: Any, found: Any) -> Any:
    """Both parts of the loss for (N, anchors, 4 + columns); see the module's docstring."""
    from keras import ops

    columns, logits = wanted[..., 4:], found[..., 4:]
    positive = 1 - columns[..., 0]
    likelihood = columns * ops.sigmoid(logits) + (1 - columns) * ops.sigmoid(-logits)
    entropy = ops.relu(logits) - logits * columns + ops.log1p(ops.exp(-ops.abs(logits)))
    weight = columns * ALPHA + (1 - columns) * (1 - ALPHA)
    focal = ops.sum(weight * (1 - likelihood) ** GAMMA * entropy)
    distance = ops.abs(wanted[..., :4] - found[..., :4])
    huber = ops.where(distance < 1, 0.5 * distance**2, distance - 0.5)
    return (focal + ops.sum(huber * positive[..., None])) / ops.maximum(ops.sum(positive), 1.0)


def expect_background(model: Any) -> None:
    """Set the biases of the class predictors so that each anchor is background with all probability but :data:`PRIOR`."""
    log_odds = math.log(PRIOR / (1 - PRIOR))
    for head in HEADS.values():
        bias = model.get_layer(f"box_predictor_{head}_classes").bias
        bias.assign(np.tile([-log_odds] + [log_odds] * CLASSES, ANCHORS.per_cell))


def fit(model: Any, scenes: list[Scene], epochs: int, seed: int) -> None:
    """Train in place. Each scene is seen each epoch, half the time as its negative and always in another light."""
    import keras

    random = np.random.default_rng(seed)
    anchors = make_anchors()
    pictures = np.stack([scene.picture for scene in scenes])
    wanted = np.stack([targets(scene, anchors) for scene in scenes])

    class Scenes(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.order = random.permutation(len(pictures))

        def __len__(self) -> int:
            return math.ceil(len(pictures) / BATCH)

        def __getitem__(self, index: int) -> tuple[Array, Array]:
            chosen = self.order[index * BATCH : (index + 1) * BATCH]
            values = pictures[chosen].astype(np.float32)[..., np.newaxis] / np.float32(127.5) - 1
            each = (len(chosen), 1, 1, 1)
            values = values * random.choice([-1, 1], each) * random.uniform(0.8, 1.0, each) + random.uniform(-0.15, 0.15, each)
            return np.repeat(np.clip(values, -1, 1).astype(np.float32), 3, axis=3), wanted[chosen]

        def on_epoch_end(self) -> None:
            self.order = random.permutation(len(pictures))

    data = Scenes()
    steps = len(data) * epochs
    warmup = round(steps * WARMUP_SHARE)
    schedule = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE * 0.05, steps - warmup, alpha=0.01, warmup_target=LEARNING_RATE, warmup_steps=warmup
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY, clipnorm=5.0),
        loss=detection_loss,
        jit_compile=False,
    )
    model.fit(data, epochs=epochs, verbose=2, shuffle=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES, help="how many scenes to train on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how often each is seen (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for model, anchors and labels (default: %(default)s)")
    arguments = parser.parse_args()

    prepare_tensorflow(SEED)
    begin = time.monotonic()
    scenes = make_scenes(bent_digits(np.random.default_rng(SCENE_SEED)), arguments.scenes, SCENE_SEED)
    print(f"composed {len(scenes)} scenes in {time.monotonic() - begin:.0f} s", flush=True)
    model = build(trained_on_logits=True)
    expect_background(model)
    print(f"digit_scenes_ssd: {model.count_params():,} parameters, {arguments.epochs} epochs", flush=True)
    begin = time.monotonic()
    fit(model, scenes, arguments.epochs, SEED)
    print(f"trained in {time.monotonic() - begin:.0f} s", flush=True)

    bare = build()  # without the loss's form of the outputs, and without the optimizer's state
    for layer in bare.layers:
        if layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    checkpoint = arguments.output / "digit_scenes_ssd.keras"
    bare.save(checkpoint)
    np.save(arguments.output / "anchors.npy", make_anchors())
    (arguments.output / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(CLASSES)), encoding="ascii")
    content = checkpoint.read_bytes()
    print(f"wrote {checkpoint} ({len(content) / 1000:.0f} kB, sha256 {hashlib.sha256(content).hexdigest()})")


if __name__ == "__main__":
    main()
