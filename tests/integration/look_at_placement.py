"""Where TensorFlow runs the operations of SavedModels: ``look_at_placement.py PICTURES.npy SAVED_MODEL...`` prints JSON.

The processor is shown to TensorFlow twice, and everything is asked to be on the second one. So what a graph puts on the first is there
because the graph says so, and what TensorFlow made of each part is in the graphs that it has run. Needs a process of its own.
"""

import json
import sys

import numpy
import tensorflow as tf
from tensorflow.python.eager import context


def placed(model, pictures):
    """The devices of the operations that suppress, of others in a scope of that name, and of the rest; and the outputs."""
    function = tf.saved_model.load(model).signatures["serving_default"]
    context.context().enable_run_metadata()
    with tf.device("/device:CPU:1"):
        outputs = function(input=tf.constant(pictures))
    metadata = context.context().export_run_metadata()
    context.context().disable_run_metadata()
    found = {"operations": [], "scope": [], "rest": []}
    for graphs in metadata.function_graphs:
        for node in (node for graph in graphs.partition_graphs for node in graph.node):
            kind = "operations" if "NonMaxSuppression" in node.op else "scope" if "NonMaxSuppression" in node.name else "rest"
            if node.op not in ("_Arg", "_Retval", "_Send", "_Recv", "Const"):
                found[kind].append(node.device.rsplit("/device:", 1)[-1])
    return {
        **{kind: sorted(set(devices)) for kind, devices in found.items()},
        "outputs": [outputs[name].numpy().tolist() for name in sorted(outputs)],
    }


def main(pictures, *models):
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    array = numpy.load(pictures)
    json.dump([placed(model, array) for model in models], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
