"""Trains ``digits_cnn.keras``, a plain convolutional network: ``python models/digits/train_digits_cnn.py``, see ``--help``."""

from __future__ import annotations

from typing import Any

from recipe_common import CLASSES, SIDE, Plan, run_recipe


def build() -> Any:
    """Six 3 x 3 convolutions, each with batch normalization and ReLU; the picture is halved three times."""
    import keras
    from keras import layers

    x = inputs = keras.Input((SIDE, SIDE, 1), name="picture")
    for filters, stride in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (96, 2)]:
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.95)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="digit")(x)
    return keras.Model(inputs, outputs, name="digits_cnn")


if __name__ == "__main__":
    run_recipe(__doc__, build, Plan(epochs=120), "digits_cnn.keras", seed=20)
