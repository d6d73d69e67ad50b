"""Trains ``digits_inverted_residual.keras``, a small network of the MobileNetV2 family.

Inverted residual blocks after Sandler et al. 2018 (arXiv:1801.04381): a 1 x 1 convolution widens, a 3 x 3 depthwise one filters,
a 1 x 1 one narrows again without activation; ReLU6 in between; a shortcut where the shapes allow it. Run
``python models/digits/train_digits_inverted_residual.py``; see --help.
"""

from __future__ import annotations

from typing import Any

from recipe_common import CLASSES, SIDE, Plan, run_recipe

EXPANSION = 4
BLOCKS = [(24, 1), (24, 1), (40, 2), (40, 1), (64, 2)]  # width, stride


def build() -> Any:
    import keras
    from keras import layers

    def normalize(x: Any, activate: bool = True) -> Any:
        x = layers.BatchNormalization(momentum=0.95)(x)
        return layers.ReLU(6.0)(x) if activate else x

    def inverted_residual(x: Any, width: int, stride: int) -> Any:
        shortcut = x
        x = normalize(layers.Conv2D(x.shape[-1] * EXPANSION, 1, use_bias=False)(x))
        x = normalize(layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x))
        x = normalize(layers.Conv2D(width, 1, use_bias=False)(x), activate=False)
        return layers.Add()([shortcut, x]) if x.shape == shortcut.shape else x

    inputs = keras.Input((SIDE, SIDE, 1), name="picture")
    x = normalize(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs))
    for width, stride in BLOCKS:
        x = inverted_residual(x, width, stride)
    x = normalize(layers.Conv2D(128, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="digit")(x)
    return keras.Model(inputs, outputs, name="digits_inverted_residual")


if __name__ == "__main__":
    run_recipe(__doc__, build, Plan(epochs=120), "digits_inverted_residual.keras", seed=20)
