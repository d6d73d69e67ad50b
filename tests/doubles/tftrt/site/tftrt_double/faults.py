"""What goes wrong while TF-TRT is asked to convert, by ``DOUBLE_FAULT``."""

import os
import time

from . import setting
from .graphs import say

LOADED, LINKED = "8.5.2", "10.3.0"


def checked_versions():
    fault = setting("FAULT")
    if fault == "not_built":
        say("Tensorflow needs to be built with TensorRT support enabled to allow TF-TRT to operate.")
        raise RuntimeError("Tensorflow has not been built with TensorRT support.")
    if fault == "versions":
        say(
            "ERROR:tensorflow:Loaded TensorRT %s but linked TensorFlow against TensorRT %s. A few requirements must be met:"
            % (LOADED, LINKED)
        )
        raise RuntimeError("Incompatible TensorRT major version")
    if fault == "no_library":
        say(
            "ERROR:tensorflow:The loaded version of TensorRT: `0.0.0` has now been removed. Please upgrade to TensorRT 7 or more recent."
        )
        raise RuntimeError("Incompatible loaded TensorRT versions")


def before_converting(tf, graph_def):
    """``abort_on_processor``: as the real one up to TensorFlow 1.15, on a device that is named without its job."""
    fault = setting("FAULT")
    without_job = any(node.device == "/device:CPU:0" for node in graph_def.node)
    if fault == "abort" or (fault == "abort_on_processor" and without_job):
        say("2020-02-10 10:00:00.1: F tensorflow/core/util/device_name_utils.cc:92] Check failed: IsJobName(job)")
        os.abort()
    if fault == "hang":
        while True:
            time.sleep(60)
    if fault == "memory_error":
        raise MemoryError
    if fault == "device_memory":
        raise tf.errors.ResourceExhaustedError(
            None, None, "OOM when allocating tensor with shape[512,512] and type float on GPU:0"
        )
    if fault == "eats_memory":
        held = []
        while len(held) < 40:  # what the tests run on survives a limit that is enforced late
            held.append(b"x" * (64 << 20))
            time.sleep(0.02)
        while True:
            time.sleep(60)
    if fault == "no_gpu":
        raise ValueError("Specified device is not a GPU: /job:localhost/replica:0/task:0/device:CPU:0")
