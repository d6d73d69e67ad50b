"""Writes small detectors in every kind of checkpoint that has several outputs into the directory that is named.

The graphs of TensorFlow 1 have what those of its detection zoo have: ``image_tensor`` (uint8, of any size), a suppression for each class
in a loop over the pictures of a batch, and outputs that are padded to one number. Run in a process of its own, since it needs TensorFlow:
``make_detectors.py DIRECTORY``, or ``make_detectors.py DIRECTORY graph`` for ``frozen_inference_graph.pb`` alone.
"""

import os
import sys
from pathlib import Path

import numpy
import tensorflow as tf

v1 = tf.compat.v1
SIZE, CELLS, CLASSES, MOST = 16, 8, 2, 5
MIDDLES = (numpy.stack(numpy.meshgrid(range(CELLS), range(CELLS), indexing="ij"), -1).reshape(-1, 2) + 0.5) / CELLS
HEADS = 11  # more than ten: the alphabet puts output_10 before output_2
OUTPUTS = ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]


def weights(name, shape):
    return tf.constant(numpy.random.RandomState(len(name)).normal(0, 0.3, shape).astype("float32"), name=name)


def features(picture):
    resized = v1.image.resize_bilinear(tf.cast(picture, tf.float32) / 255.0, [SIZE, SIZE])
    return tf.nn.relu(tf.nn.conv2d(resized, weights("kernel", (3, 3, 3, 6)), 2, "SAME"))


def heads(picture):
    """Boxes (N, 64, 4) and scores (N, 64, 2) of a picture."""
    found = features(picture)
    count = tf.shape(found)[0]
    corners = numpy.concatenate([MIDDLES - 0.15, MIDDLES + 0.15], 1)[None].astype("float32")
    moves = tf.reshape(tf.nn.conv2d(found, weights("moves", (1, 1, 6, 4)), 1, "SAME"), [count, CELLS * CELLS, 4]) * 0.05
    boxes = tf.constant(corners) + moves
    scores = tf.sigmoid(tf.reshape(tf.nn.conv2d(found, weights("scores", (1, 1, 6, CLASSES)), 1, "SAME"), [count, -1, CLASSES]))
    return boxes, scores


def suppressed(boxes, scores):
    """Of one picture: a NonMaxSuppression for each class, then the best of all, padded to one number."""
    kept = []
    for number in range(CLASSES):
        chosen = v1.image.non_max_suppression(boxes, scores[:, number], MOST, 0.3, 0.2)
        label = tf.fill([tf.size(chosen)], float(number + 1))
        kept.append((tf.gather(boxes, chosen), tf.gather(scores[:, number], chosen), label))
    every = [tf.concat(part, 0) for part in zip(*kept, strict=True)]
    count = tf.minimum(MOST, tf.size(every[1]))
    best = tf.nn.top_k(every[1], count).indices
    padded = []
    for part in every:
        rest = [[0, MOST - count]] + [[0, 0]] * (part.shape.rank - 1)
        padded.append(tf.ensure_shape(tf.pad(tf.gather(part, best), rest), [MOST, *part.shape[1:]]))
    return padded[0], padded[2], padded[1], tf.cast(count, tf.float32)


def zoo_graph(kind):
    """The outputs of the graph by name."""
    picture = v1.placeholder(tf.uint8, [None, None, None, 3], name="image_tensor")
    boxes, scores = heads(picture)
    if kind == "placeholder":
        scores = v1.where(v1.placeholder(tf.bool, [], name="is_training"), scores * 0.5, scores)
    if kind == "without":
        results = (
            boxes[:, :MOST],
            tf.argmax(scores[:, :MOST], 2),
            tf.reduce_max(scores[:, :MOST], 2),
            tf.reduce_sum(scores, (1, 2)),
        )
    else:
        with v1.name_scope("Postprocessor"), v1.name_scope("BatchMultiClassNonMaxSuppression"):
            types = (tf.float32,) * 4
            results = v1.map_fn(lambda both: suppressed(*both), (boxes, scores), dtype=types, back_prop=False)
    return {name: tf.identity(result, name=name) for name, result in zip(OUTPUTS, results, strict=True)}


def write_graph(path, kind, pictures=None):
    with tf.Graph().as_default() as graph:
        outputs = zoo_graph(kind)
        Path(path).write_bytes(graph.as_graph_def().SerializeToString())
        if pictures is not None:
            with v1.Session() as session:
                found = session.run([outputs[name] for name in OUTPUTS], {"image_tensor:0": pictures})
            numpy.savez("graph_reference.npz", **{f"output_{number}": array for number, array in enumerate(found)})


def write_keras(pictures):
    layers = tf.keras.layers
    inputs = tf.keras.Input((SIZE, SIZE, 3))
    flat = layers.Flatten()(layers.MaxPooling2D(4)(inputs))
    model = tf.keras.Model(inputs, [layers.Dense(number + 1)(flat) for number in range(HEADS)])
    model.save("heads.keras")
    found = model.predict(pictures.astype("float32"), verbose=0)
    numpy.savez("heads_reference.npz", **{f"output_{number}": array for number, array in enumerate(found)})


def write_post_processing():
    """TensorFlow Lite with the custom operator in which it decodes and suppresses."""
    settings = {"max_detections": MOST, "max_classes_per_detection": 1, "detections_per_class": MOST, "num_classes": CLASSES}
    scales = {"y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0}
    thresholds = {"nms_score_threshold": 0.2, "nms_iou_threshold": 0.3}
    attributes = [f'attr {{ key: "{name}" value {{ i: {value} }} }}' for name, value in settings.items()]
    attributes += [f'attr {{ key: "{name}" value {{ f: {value} }} }}' for name, value in {**scales, **thresholds}.items()]
    attributes.append('attr { key: "use_regular_nms" value { b: true } }')

    @tf.function(experimental_implements=" ".join(['name: "TFLite_Detection_PostProcess"', *attributes]))
    def post_processing(encodings, scores, anchors):
        del encodings, scores, anchors
        shapes = ([1, MOST, 4], [1, MOST], [1, MOST], [1])
        return tuple(tf.zeros(shape, tf.float32) for shape in shapes)

    anchors = numpy.concatenate([MIDDLES, numpy.full((CELLS * CELLS, 2), 0.3)], 1).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, name="picture")])
    def serve(picture):
        _, scores = heads(picture)
        found = features(picture)
        moves = tf.reshape(tf.nn.conv2d(found, weights("moves", (1, 1, 6, 4)), 1, "SAME"), [1, CELLS * CELLS, 4])
        background = tf.zeros_like(scores[:, :, :1])
        boxes, classes, best, count = post_processing(moves, tf.concat([background, scores], -1), tf.constant(anchors))
        return {"output_0": boxes, "output_1": classes, "output_2": best, "output_3": count}

    module = tf.Module()
    module.serve = serve
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], module)
    converter.allow_custom_ops = True
    Path("post_processing.tflite").write_bytes(converter.convert())


def main(directory, what="all"):
    os.chdir(directory)
    pictures = numpy.random.RandomState(0).randint(0, 256, (3, SIZE + 4, SIZE + 4, 3)).astype("uint8")
    if what == "all":
        numpy.save("pictures.npy", pictures)
        numpy.save("small_pictures.npy", pictures[:, :SIZE, :SIZE].astype("float32"))
        write_keras(pictures[:, :SIZE, :SIZE])
        write_post_processing()
        write_graph("functions.pb", "whole")  # its loop in functions, as TensorFlow 2 writes it
    v1.disable_control_flow_v2()
    write_graph("frozen_inference_graph.pb", "whole", pictures if what == "all" else None)
    if what == "all":
        write_graph("without.pb", "without")
        write_graph("placeholder.pb", "placeholder")


if __name__ == "__main__":
    main(*sys.argv[1:])
