"""Trains ``uneven_digits.keras``, a small network that 8-bit activations wreck: ``python models/uneven_digits/train_uneven_digits.py``.

A network for the digits of ``models/digits`` is trained like the two there. Then each channel of its last convolution is made larger or
smaller by a factor of its own, and the weights that read the channel are divided by the same factor: ReLU lets a positive factor
through, so that the network computes in float what it computed before. Only the ranges of the channels differ now, by up to
:data:`SPREAD`, as training leaves them in some networks of its own accord (Nagel et al. 2019, arXiv:1906.04721, on MobileNet v2).

What quantizes activations has one scale for all channels of a tensor, so that the small ones become zero: ``int8`` and ``full_int8``.
``dynamic`` keeps them in float here, since TF-Lite leaves weights of fewer than 1024 values, such as those of the last layer, as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "digits"))  # what the digits' recipes share
from recipe_common import CLASSES, SIDE, Plan, run_recipe

SPREAD = 10_000.0
"""The largest factor over the smallest one."""
NORMALIZATION, READER = "uneven", "digit"  # the layers whose weights are scaled


def build() -> Any:
    """Four 3 x 3 convolutions, each with batch normalization and ReLU; the picture is halved three times."""
    import keras
    from keras import layers

    x = inputs = keras.Input((SIDE, SIDE, 1), name="picture")
    for number, (filters, stride) in enumerate([(8, 2), (16, 1), (24, 2), (32, 2)], start=1):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.95, name=NORMALIZATION if number == 4 else None)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.1)(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name=READER)(x)
    return keras.Model(inputs, outputs, name="uneven_digits")


def make_uneven(model: Any) -> None:
    """Scale the channels of the last convolution in place, and the weights that read them by the inverse."""
    import numpy as np

    normalization, reader = model.get_layer(NORMALIZATION), model.get_layer(READER)
    gamma, beta, mean, variance = normalization.get_weights()
    # Powers of two change no digit of a float: the network computes bit for bit what it did.
    exponents = np.linspace(0.0, np.log2(SPREAD), len(gamma)).round()
    factors = (2.0 ** np.random.default_rng(4).permutation(exponents)).astype(np.float32)
    normalization.set_weights([gamma * factors, beta * factors, mean, variance])
    kernel, bias = reader.get_weights()
    reader.set_weights([kernel / factors[:, np.newaxis], bias])


if __name__ == "__main__":
    output = Path(__file__).parent / "uneven_digits.keras"
    run_recipe(__doc__, build, Plan(epochs=120), str(output), seed=20, finish=make_uneven)
