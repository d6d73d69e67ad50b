"""Writes the plain digits model as a graph of constants, for converters of TensorFlow 1: ``make_frozen_digits.py DESTINATION [ranges]``.

With ``ranges``, the input and each Relu are followed by a FakeQuant node, as quantization-aware training leaves them.

Run in a process of its own, since it needs TensorFlow.
"""

import sys
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

MODEL = Path(__file__).parent.parent.parent / "models" / "digits" / "digits_cnn.keras"


def add_ranges(graph_def):
    """Ranges that are wide enough for the digits model, whose activations stay small."""
    sources = [node.name for node in graph_def.node if node.op in ("Placeholder", "Relu", "Relu6")]
    for node in graph_def.node:
        for place, name in enumerate(node.input):
            if name in sources:
                node.input[place] = name + "/range"
    for name in sources:
        added = graph_def.node.add(name=name + "/range", op="FakeQuantWithMinMaxArgs", input=[name])
        added.attr["min"].f, added.attr["max"].f, added.attr["num_bits"].i = 0.0, 1.0 if name == "picture" else 12.0, 8
    return graph_def


def main(destination, ranges=False):
    model = tf.keras.models.load_model(MODEL, compile=False)
    call = tf.function(
        lambda tensor: model(tensor, training=False), input_signature=[tf.TensorSpec([2, 32, 32, 1], name="picture")]
    )
    frozen = convert_variables_to_constants_v2(call.get_concrete_function())
    graph_def = frozen.graph.as_graph_def()
    Path(destination).write_bytes((add_ranges(graph_def) if ranges else graph_def).SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1], ranges="ranges" in sys.argv[2:])
