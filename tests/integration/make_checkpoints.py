"""Writes small models in every kind of checkpoint into the directory that is named.

Run in a process of its own, since it needs TensorFlow.
"""

import os
import sys
from pathlib import Path

import numpy
import tensorflow as tf

v1 = tf.compat.v1
keras = tf.keras
SHAPE = (8, 8, 3)


def small_model():
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(SHAPE),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.layers[-1].kernel.assign(10 * model.layers[-1].kernel)  # so that classes differ by more than a rounding error
    return model


def write_keras(pictures):
    model = small_model()
    numpy.save("keras_reference.npy", model.predict(pictures, verbose=0))
    model.save("model.keras")
    model.save("model.h5")
    model.save_weights("small.weights.h5")
    model.export("saved_model", verbose=False)

    two = keras.Model(model.inputs, [model.outputs[0], model.layers[0].output])
    two.export("two_outputs", verbose=False)

    for name in ("lambda.keras", "lambda.h5"):
        keras.Sequential([keras.layers.Input(SHAPE), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Flatten()]).save(name)


def write_mobilenet():
    model = keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=0.25, classes=4, weights=None)
    pictures = numpy.random.RandomState(2).uniform(-1, 1, (5, 32, 32, 3)).astype("float32")
    numpy.save("mobilenet_pictures.npy", pictures)
    numpy.save("mobilenet_reference.npy", model.predict(pictures, verbose=0))
    model.save_weights("mobilenet.weights.h5")
    Path("mobilenet.weights.h5").rename("mobilenet_keras3")  # as a store names files: nothing to tell by
    model.save("whole.h5")  # the older layout, of which the weights alone are read
    Path("whole.h5").rename("mobilenet_keras2.weights.h5")


def write_tensorflow_1(pictures):
    with tf.Graph().as_default():
        image = v1.placeholder(tf.float32, (None, *SHAPE), name="image")
        initializer = v1.random_normal_initializer(stddev=0.5, seed=1)
        # Variables as TensorFlow 1 had them: a SavedModel with such ones cannot be saved again by TensorFlow 2.
        kernel = v1.get_variable("kernel", (3, 3, 3, 8), initializer=initializer, use_resource=False)
        dense = v1.get_variable("dense", (8, 5), initializer=initializer, use_resource=False)
        features = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME")), (1, 2))
        probabilities = tf.nn.softmax(tf.matmul(features, dense), name="probabilities")
        tf.reduce_sum(v1.placeholder(tf.float32, (None,), name="weights_of_a_loss"), name="loss")
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            numpy.save("graph_reference.npy", session.run(probabilities, {image: pictures}))
            Path("tf1_checkpoint").mkdir()
            v1.train.Saver().save(session, "tf1_checkpoint/model.ckpt")
            v1.saved_model.simple_save(session, "tf1_saved_model", {"image": image}, {"probabilities": probabilities})
            frozen = v1.graph_util.convert_variables_to_constants(session, session.graph_def, ["probabilities"])
    Path("frozen_graph.pb").write_bytes(frozen.SerializeToString())


def main(directory):
    os.chdir(directory)
    keras.utils.set_random_seed(0)
    pictures = numpy.random.RandomState(0).uniform(-1, 1, (7, *SHAPE)).astype("float32")
    numpy.save("pictures.npy", pictures)
    numpy.save("calibration.npy", numpy.random.RandomState(1).uniform(-1, 1, (21, *SHAPE)).astype("float32"))
    write_keras(pictures)
    write_mobilenet()
    write_tensorflow_1(pictures)


if __name__ == "__main__":
    main(sys.argv[1])
