"""The network of the digit scenes' detector: inverted residual blocks with two SSDLite heads, about 110,000 parameters.

Sources: inverted residuals and SSDLite, whose predictors are a depthwise and a 1 x 1 convolution (Sandler et al. 2018,
arXiv:1801.04381); SSD (Liu et al. 2016, arXiv:1512.02325). The outputs are those of TensorFlow's object detection API: box
encodings and, for each anchor, the scores of the background and the ten digits, each through a sigmoid of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd_geometry import ANCHORS

SIDE = 96
CLASSES = 10
COLUMNS = 1 + CLASSES  # the background comes first


@dataclass(frozen=True)
class Block:
    """An inverted residual: ``expansion`` times as many channels in the middle, ``width`` at the end."""

    name: str
    expansion: int
    width: int
    stride: int


STEM_WIDTH = 16
BLOCKS = (
    Block("expanded_conv_1", 3, 24, 2),
    Block("expanded_conv_2", 3, 24, 1),
    Block("expanded_conv_3", 4, 48, 2),
    Block("expanded_conv_4", 4, 48, 1),
    Block("expanded_conv_5", 4, 48, 1),  # the first head's feature map, 12 x 12
    Block("expanded_conv_6", 4, 64, 2),
    Block("expanded_conv_7", 4, 64, 1),  # the second one's, 6 x 6
)
HEADS = {"expanded_conv_5": 0, "expanded_conv_7": 1}


def build(trained_on_logits: bool = False) -> Any:
    """The model: input float32 (N, 96, 96, 3) in -1..1; outputs box encodings (N, 540, 4) and class scores (N, 540, 11).

    ``trained_on_logits``: both outputs in one tensor (N, 540, 15), the scores before their sigmoid, for the loss.
    """
    import keras
    from keras import layers

    def normalize(x: Any, name: str, activate: bool = True) -> Any:
        x = layers.BatchNormalization(momentum=0.95, epsilon=1e-3, name=f"{name}_norm")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x

    def convolution(x: Any, width: int, name: str, stride: int = 1, size: int = 1) -> Any:
        return layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False, name=name)(x)

    def depthwise(x: Any, name: str, stride: int = 1) -> Any:
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=name)(x)
        return normalize(x, name)

    def inverted_residual(x: Any, block: Block) -> Any:
        shortcut = x
        x = normalize(convolution(x, x.shape[-1] * block.expansion, f"{block.name}_expand"), f"{block.name}_expand")
        x = depthwise(x, f"{block.name}_depthwise", block.stride)
        x = normalize(convolution(x, block.width, f"{block.name}_project"), f"{block.name}_project", activate=False)
        return layers.Add(name=f"{block.name}_add")([shortcut, x]) if x.shape == shortcut.shape else x

    def predictor(x: Any, head: int, what: str, columns: int) -> Any:
        name = f"box_predictor_{head}_{what}"
        x = depthwise(x, f"{name}_depthwise")
        x = layers.Conv2D(ANCHORS.per_cell * columns, 1, name=name)(x)
        return layers.Reshape((-1, columns), name=f"{name}_rows")(x)

    inputs = keras.Input((SIDE, SIDE, 3), name="picture")
    x = normalize(convolution(inputs, STEM_WIDTH, "stem", stride=2, size=3), "stem")
    boxes: list[Any] = []
    logits: list[Any] = []
    for block in BLOCKS:
        x = inverted_residual(x, block)
        if block.name in HEADS:
            boxes.append(predictor(x, HEADS[block.name], "boxes", 4))
            logits.append(predictor(x, HEADS[block.name], "classes", COLUMNS))
    box_encodings = layers.Concatenate(axis=1, name="box_encodings")(boxes)
    class_logits = layers.Concatenate(axis=1, name="class_logits")(logits)
    if trained_on_logits:
        return keras.Model(inputs, layers.Concatenate(axis=2)([box_encodings, class_logits]), name="digit_scenes_ssd_training")
    class_scores = layers.Activation("sigmoid", name="class_scores")(class_logits)
    return keras.Model(inputs, [box_encodings, class_scores], name="digit_scenes_ssd")
