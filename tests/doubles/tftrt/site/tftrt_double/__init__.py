"""A double of TF-TRT inside a real TensorFlow that was built without it.

What is real: the graphs, their segmentation into functions, freezing, calibration by running the graph, SavedModels on disk, and what runs
them. A converted model on disk has the same nodes as a real one: operations ``TRTEngineOp`` with the attributes by which TF-TRT names its
segments. What is not: there is no such operation here, so TensorFlow is given each model with those nodes turned into calls of their
segments, which compute what the engine would, with weights rounded to the precision; which operations can be converted is a list; and
what TF-TRT's C++ prints is printed from the graph, by TensorFlow's C++, on file descriptor 2.

``DOUBLE_STYLE``: ``direct``, ``parameters``, ``graph`` or ``contrib``. ``DOUBLE_DENY``: operations that cannot be converted, with commas.
``DOUBLE_FAULT``: what goes wrong while converting. ``DOUBLE_RUN``: what goes wrong at run time. The last three are asked for anew each
time, from the JSON file ``DOUBLE_SETTINGS`` before the environment, so that one process can be led through several faults.
"""

import json
import os
import sys
import types

STYLE = os.environ.get("DOUBLE_STYLE", "direct")
VERSIONS = {"direct": "2.16.1", "parameters": "2.3.1", "graph": "1.15.5", "contrib": "1.13.1"}


def setting(name):
    path = os.environ.get("DOUBLE_SETTINGS", "")
    if os.path.exists(path):
        with open(path) as stream:
            told = json.load(stream)
        if name in told:
            return told[name]
    return os.environ.get("DOUBLE_" + name, "")


class GPU:
    name, device_type = "/physical_device:GPU:0", "GPU"


def install(tf):
    from . import graphs

    tf.__version__ = VERSIONS[STYLE]
    graphs.install(tf)
    _show_a_gpu(tf)
    if STYLE in ("graph", "contrib"):
        tf.compat.v1.disable_eager_execution()
    if setting("FAULT") == "no_tftrt":
        sys.modules["tensorflow.python.compiler.tensorrt"] = None
        return
    if STYLE == "contrib":
        from . import contrib

        sys.modules["tensorflow.python.compiler.tensorrt"] = None
        package = types.ModuleType("tensorflow.contrib")
        package.__path__ = []
        package.tensorrt = contrib
        sys.modules["tensorflow.contrib"] = package
        sys.modules["tensorflow.contrib.tensorrt"] = contrib
        return
    import importlib

    import tensorflow.python.compiler.tensorrt as package

    module = importlib.import_module("tftrt_double." + {"direct": "late", "parameters": "early", "graph": "graph"}[STYLE])
    sys.modules["tensorflow.python.compiler.tensorrt.trt_convert"] = module
    package.trt_convert = module


def _show_a_gpu(tf):
    real_list = tf.config.list_physical_devices

    def list_physical_devices(device_type=None):
        return [GPU()] if device_type == "GPU" else real_list(device_type)

    def set_logical_device_configuration(device, logical_devices):
        from tensorflow.python.eager import context

        if context.context()._initialized:
            raise RuntimeError("Virtual devices cannot be modified after being initialized")
        sys.stderr.write("double: GPU limited to %d MB\n" % logical_devices[0].memory_limit)

    tf.config.list_physical_devices = list_physical_devices
    tf.config.set_logical_device_configuration = set_logical_device_configuration
