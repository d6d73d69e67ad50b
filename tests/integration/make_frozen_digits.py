"""Writes the plain digits model as a graph of constants, for converters of TensorFlow 1: ``make_frozen_digits.py DESTINATION``.

Run in a process of its own, since it needs TensorFlow.
"""

import sys
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

MODEL = Path(__file__).parent.parent.parent / "models" / "digits" / "digits_cnn.keras"


def main(destination):
    model = tf.keras.models.load_model(MODEL, compile=False)
    call = tf.function(
        lambda tensor: model(tensor, training=False), input_signature=[tf.TensorSpec([2, 32, 32, 1], name="picture")]
    )
    frozen = convert_variables_to_constants_v2(call.get_concrete_function())
    Path(destination).write_bytes(frozen.graph.as_graph_def().SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
