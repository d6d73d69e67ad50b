"""Writes what TensorFlow's own suppression, and TensorFlow Lite's operator, make of random boxes into the directory that is named.

``nms_<n>.npz``: boxes, scores and what ``tf.image.non_max_suppression`` chose. ``operator.npz``: encodings, scores and anchors, and
what ``TFLite_Detection_PostProcess`` gave. Run in a process of its own, since it needs TensorFlow.
"""

import os
import sys

import numpy
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

ANCHORS, CLASSES, MOST = 120, 3, 20
SCALES = {"y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0}
THRESHOLDS = {"nms_score_threshold": 0.1, "nms_iou_threshold": 0.4}


def some_boxes(random, count):
    corners = random.uniform(0, 0.7, (count, 2))
    return numpy.concatenate([corners, corners + random.uniform(0, 0.3, (count, 2))], 1).astype("float32")


def write_suppressions(random):
    for number in range(12):
        boxes = some_boxes(random, random.randint(1, 200))
        scores = random.uniform(0, 1, len(boxes)).astype("float32")
        if number % 2:
            scores = numpy.round(scores, 1)  # many ties
        iou = [0.0, 0.3, 0.6][number % 3]
        chosen = tf.image.non_max_suppression(boxes, scores, MOST, iou, 0.2).numpy()
        numpy.savez(f"nms_{number}.npz", boxes=boxes, scores=scores, iou=iou, chosen=chosen)


def write_operator(random):
    settings = {"max_detections": MOST, "num_classes": CLASSES, "max_classes_per_detection": 1, "detections_per_class": MOST}
    attributes = [f'attr {{ key: "{name}" value {{ i: {value} }} }}' for name, value in settings.items()]
    attributes += [f'attr {{ key: "{name}" value {{ f: {value} }} }}' for name, value in {**SCALES, **THRESHOLDS}.items()]
    attributes.append('attr { key: "use_regular_nms" value { b: true } }')

    @tf.function(experimental_implements=" ".join(['name: "TFLite_Detection_PostProcess"', *attributes]))
    def post_processing(encodings, scores, anchors):
        del encodings, scores, anchors
        return tuple(tf.zeros(shape, tf.float32) for shape in ([1, MOST, 4], [1, MOST], [1, MOST], [1]))

    anchors = numpy.concatenate([random.uniform(0.1, 0.9, (ANCHORS, 2)), random.uniform(0.1, 0.4, (ANCHORS, 2))], 1).astype(
        "float32"
    )
    encodings = random.normal(0, 1, (4, ANCHORS, 4)).astype("float32")
    scores = random.uniform(0, 1, (4, ANCHORS, CLASSES + 1)).astype("float32")

    @tf.function(
        input_signature=[
            tf.TensorSpec([1, ANCHORS, 4], name="encodings"),
            tf.TensorSpec([1, ANCHORS, CLASSES + 1], name="scores"),
        ]
    )
    def serve(encodings, scores):
        boxes, classes, best, count = post_processing(encodings, scores, tf.constant(anchors))
        return {"output_0": boxes, "output_1": classes, "output_2": best, "output_3": count}

    module = tf.Module()
    module.serve = serve
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], module)
    converter.allow_custom_ops = True
    interpreter = Interpreter(model_content=converter.convert())
    runner = interpreter.get_signature_runner()
    found = [runner(encodings=encodings[index : index + 1], scores=scores[index : index + 1]) for index in range(len(encodings))]
    outputs = {name: numpy.concatenate([one[name] for one in found]) for name in found[0]}
    numpy.savez("operator.npz", encodings=encodings, scores=scores, anchors=anchors, **outputs)


def main(directory):
    os.chdir(directory)
    random = numpy.random.RandomState(0)
    write_suppressions(random)
    write_operator(random)


if __name__ == "__main__":
    main(sys.argv[1])
