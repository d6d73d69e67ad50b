"""Writes ``frozen_inference_graph.pb`` as the TensorFlow 1 detection zoo has it: ``tf1_graph.py WEIGHTS.npz GRAPH.pb``.

The graph has what the exporter of TensorFlow's object detection API makes of an SSD: a placeholder ``image_tensor`` (uint8, any
size), a ``Preprocessor`` that resizes each picture in a loop, the network with its weights as constants, a ``Postprocessor`` that
decodes the boxes and suppresses overlapping ones with one NonMaxSuppressionV3 for each class, in a loop over the pictures of the
batch, and the outputs ``detection_boxes``, ``detection_scores``, ``detection_classes`` (from 1) and ``num_detections``. Loops are
those of TensorFlow 1 (Enter, Exit, TensorArrays) and no operation is younger than TensorFlow 1.13.

Run by ``export.py`` in a process of its own, since it turns TensorFlow 2's behaviour off. Sources of what is computed: SSD
(arXiv:1512.02325), the box coder of Faster R-CNN (arXiv:1506.01497, section 3.1.2).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from post_processing import IOU_THRESHOLD, MAXIMUM_DETECTIONS, MAXIMUM_PER_CLASS, SCORE_THRESHOLD
from ssd_geometry import ANCHORS, BOX_CODER_SCALES, make_anchors
from ssd_network import BLOCKS, CLASSES, COLUMNS, HEADS, SIDE, Block

OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
NORM_EPSILON = 1e-3


class Network:
    """The layers of ``ssd_network.build`` as operations of TensorFlow 1, with weights by the names of Keras' layers."""

    def __init__(self, tf: Any, weights: dict[str, Any]) -> None:
        self._tf, self._weights = tf, weights

    def outputs(self, x: Any) -> tuple[Any, Any]:
        """float32 (N, 96, 96, 3) in -1..1 -> box encodings (N, 540, 4) and class logits (N, 540, 11)."""
        tf = self._tf
        boxes, logits = [], []
        with tf.name_scope("FeatureExtractor/DigitScenes/"):
            x = self._normalized(self._convolved(x, "stem", 2), "stem")
        for block in BLOCKS:
            with tf.name_scope("FeatureExtractor/DigitScenes/"):
                x = self._inverted_residual(x, block)
            if block.name in HEADS:
                head = HEADS[block.name]
                with tf.name_scope(f"BoxPredictor_{head}/"):
                    boxes.append(self._predicted(x, "BoxEncodingPredictor", f"box_predictor_{head}_boxes", 4))
                    logits.append(self._predicted(x, "ClassPredictor", f"box_predictor_{head}_classes", COLUMNS))
        return tf.concat(boxes, 1, name="concat"), tf.concat(logits, 1, name="concat_1")

    def _weight(self, layer: str, name: str) -> Any:
        return self._tf.constant(self._weights[f"{layer}/{name}"], name=name)

    def _normalized(self, x: Any, layer: str, activate: bool = True) -> Any:
        tf = self._tf
        with tf.name_scope("BatchNorm"):
            values = [self._weight(f"{layer}_norm", name) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
            scale, offset, mean, variance = values
            x = tf.raw_ops.FusedBatchNorm(
                x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=NORM_EPSILON, is_training=False
            ).y
        return tf.nn.relu6(x, name="Relu6") if activate else x

    def _convolved(self, x: Any, layer: str, stride: int = 1) -> Any:
        with self._tf.name_scope("Conv"):
            return self._tf.nn.conv2d(x, self._weight(layer, "kernel"), [1, stride, stride, 1], "SAME", name="Conv2D")

    def _filtered(self, x: Any, layer: str, stride: int = 1) -> Any:
        tf = self._tf
        with tf.name_scope("depthwise"):
            x = tf.nn.depthwise_conv2d(x, self._weight(layer, "kernel"), [1, stride, stride, 1], "SAME", name="depthwise")
            return self._normalized(x, layer)

    def _inverted_residual(self, x: Any, block: Block) -> Any:
        tf, shortcut = self._tf, x
        with tf.name_scope(block.name):
            with tf.name_scope("expand"):
                x = self._normalized(self._convolved(x, f"{block.name}_expand"), f"{block.name}_expand")
            x = self._filtered(x, f"{block.name}_depthwise", block.stride)
            with tf.name_scope("project"):
                x = self._normalized(self._convolved(x, f"{block.name}_project"), f"{block.name}_project", activate=False)
            return tf.add(shortcut, x, name="add") if x.shape.as_list() == shortcut.shape.as_list() else x

    def _predicted(self, x: Any, scope: str, layer: str, columns: int) -> Any:
        tf = self._tf
        with tf.name_scope(scope):
            x = self._filtered(x, f"{layer}_depthwise")
            x = tf.nn.bias_add(self._convolved(x, layer), self._weight(layer, "bias"), name="BiasAdd")
            height, width = x.shape.as_list()[1:3]
            return tf.reshape(x, [-1, height * width * ANCHORS.per_cell, columns], name="Reshape")


def preprocessed(tf: Any, pictures: Any) -> Any:
    """uint8 (N, H, W, 3) -> float32 (N, 96, 96, 3) in -1..1."""
    values = tf.cast(pictures, tf.float32, name="ToFloat")
    with tf.name_scope("Preprocessor"):

        def resized(picture: Any) -> Any:
            with tf.name_scope("ResizeImage"):
                return tf.compat.v1.image.resize_bilinear(picture[tf.newaxis], [SIDE, SIDE], name="resize_images/ResizeBilinear")[
                    0
                ]

        resized_pictures = tf.map_fn(resized, values, fn_output_signature=tf.float32, name="map")
        resized_pictures.set_shape([None, SIDE, SIDE, 3])
        return tf.subtract(tf.multiply(resized_pictures, 2 / 255, name="mul"), 1.0, name="sub")


def decoded(tf: Any, encodings: Any) -> Any:
    """Box encodings (N, 540, 4) -> ymin, xmin, ymax, xmax in shares of the picture's sides, not clipped."""
    with tf.name_scope("Decode"):
        anchors = tf.constant(make_anchors(), name="anchors")
        scaled = encodings / tf.constant(BOX_CODER_SCALES, tf.float32, name="scales")
        centre = scaled[..., :2] * anchors[:, 2:] + anchors[:, :2]
        half = tf.exp(scaled[..., 2:]) * anchors[:, 2:] / 2
        return tf.concat([centre - half, centre + half], 2, name="boxes")


def suppressed(tf: Any, boxes: Any, scores: Any) -> tuple[Any, Any, Any, Any]:
    """The detections of one picture, of boxes (540, 4) and scores (540, 10): boxes, scores, classes from 0, padded, and their count."""
    kept_boxes, kept_scores, kept_classes = [], [], []
    with tf.name_scope("MultiClassNonMaxSuppression"):
        for number in range(CLASSES):
            column = scores[:, number]
            suffix = f"_{number}" if number else ""
            with tf.name_scope(f"non_max_suppression{suffix}"):
                kept = tf.raw_ops.NonMaxSuppressionV3(
                    boxes=boxes,
                    scores=column,
                    max_output_size=tf.constant(MAXIMUM_PER_CLASS),
                    iou_threshold=tf.constant(IOU_THRESHOLD),
                    score_threshold=tf.constant(SCORE_THRESHOLD),
                    name="NonMaxSuppressionV3",
                )
            with tf.name_scope(f"Gather{suffix}"):
                kept_boxes.append(tf.gather(boxes, kept))
                kept_scores.append(tf.gather(column, kept))
                kept_classes.append(tf.fill(tf.shape(kept), float(number)))
        with tf.name_scope("Concatenate"):
            all_scores = tf.concat(kept_scores, 0)
            all_boxes, all_classes = tf.concat(kept_boxes, 0), tf.concat(kept_classes, 0)
        with tf.name_scope("SortByField"):
            count = tf.minimum(MAXIMUM_DETECTIONS, tf.size(all_scores))
            best, order = tf.nn.top_k(all_scores, count)
        with tf.name_scope("ClipToWindow"):
            clipped = tf.clip_by_value(tf.gather(all_boxes, order), 0.0, 1.0)
        with tf.name_scope("PadOrClipBoxList"):
            missing = [0, MAXIMUM_DETECTIONS - count]
            return (
                tf.pad(clipped, [missing, [0, 0]]),
                tf.pad(best, [missing]),
                tf.pad(tf.gather(all_classes, order), [missing]),
                tf.cast(count, tf.float32),
            )


def build(tf: Any, weights: dict[str, Any]) -> None:
    """The whole graph, in TensorFlow's default one."""
    pictures = tf.compat.v1.placeholder(tf.uint8, [None, None, None, 3], name="image_tensor")
    encodings, logits = Network(tf, weights).outputs(preprocessed(tf, pictures))
    with tf.name_scope("Postprocessor"):
        boxes = decoded(tf, encodings)
        scores = tf.sigmoid(logits, name="convert_scores")[..., 1:]  # without the background
        with tf.name_scope("BatchMultiClassNonMaxSuppression"):
            found = tf.map_fn(
                lambda picture: suppressed(tf, *picture), (boxes, scores), fn_output_signature=(tf.float32,) * 4, name="map"
            )
    for tensor, name, shape in zip(
        found, OUTPUTS, ([MAXIMUM_DETECTIONS, 4], [MAXIMUM_DETECTIONS], [MAXIMUM_DETECTIONS], []), strict=True
    ):
        tensor.set_shape([None, *shape])
        tf.identity(tensor + 1 if name == "detection_classes" else tensor, name=name)


def main(weights_file: str, graph_file: str) -> None:
    import tensorflow as tf

    tf.compat.v1.disable_v2_behavior()
    with np.load(weights_file) as archive:
        weights = {name: archive[name] for name in archive.files}
    with tf.Graph().as_default() as graph:
        build(tf, weights)
        # Attributes that an older TensorFlow does not know are left out where they say what it does anyway.
        stripped = tf.compat.v1.train.export_meta_graph(graph=graph, strip_default_attrs=True).graph_def
    needed = tf.compat.v1.graph_util.extract_sub_graph(stripped, list(OUTPUTS))
    for node in needed.node:
        node.attr.pop("_output_shapes", None)
        if node.op == "AddV2":  # which TF-TRT of TensorFlow 1.14 does not convert; of numbers, both are the same
            node.op = "Add"
    Path(graph_file).write_bytes(needed.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
