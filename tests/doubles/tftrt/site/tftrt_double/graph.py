"""``tensorflow.python.compiler.tensorrt.trt_convert`` as it was in TensorFlow 1.15, with the class for TensorFlow 2 in the way."""

import numpy
import tensorflow as tf

from . import faults, graphs

DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES = 1 << 30


class TrtGraphConverter:
    def __init__(
        self,
        input_saved_model_dir=None,
        input_saved_model_tags=None,
        input_saved_model_signature_key=None,
        input_graph_def=None,
        nodes_blacklist=None,
        session_config=None,
        max_batch_size=1,
        max_workspace_size_bytes=DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
        precision_mode="FP32",
        minimum_segment_size=3,
        is_dynamic_op=False,
        maximum_cached_engines=1,
        use_calibration=True,
    ):
        if tf.executing_eagerly():
            raise RuntimeError("Please use tf.experimental.tensorrt.Converter in TF 2.0.")
        if bool(input_graph_def) == bool(input_saved_model_dir):
            raise ValueError("Must specify one of input_graph_def and input_saved_model_dir")
        faults.checked_versions()
        self._graph_def, self._outputs = input_graph_def, set(nodes_blacklist or ())
        self._need_calibration = precision_mode == "INT8" and use_calibration
        self._settings = (
            minimum_segment_size,
            precision_mode,
            "TRTEngineOp_{}".format,
            max_workspace_size_bytes,
            maximum_cached_engines,
        )
        self._static = not is_dynamic_op
        self._session_config = session_config

    def convert(self):
        faults.before_converting(tf, self._graph_def)
        self._converted_graph_def = graphs.convert(tf, self._graph_def, self._outputs, *self._settings, report_it=False)
        return self._converted_graph_def

    def calibrate(self, fetch_names, num_runs, feed_dict_fn=None, input_map_fn=None):
        assert self._need_calibration
        if bool(feed_dict_fn) == bool(input_map_fn):
            raise ValueError("Should specify one and only one of feed_dict_fn and input_map_fn.")
        with tf.Graph().as_default() as graph:
            fetches = tf.compat.v1.import_graph_def(self._converted_graph_def, return_elements=fetch_names, name="")
        ranges = {}
        with tf.compat.v1.Session(graph=graph, config=self._session_config) as session:
            for _ in range(num_runs):
                feed = feed_dict_fn()
                session.run(fetches, feed_dict=feed)
                see(ranges, feed)
        graphs.quantize_inputs(self._converted_graph_def, ranges)
        return self._converted_graph_def

    def save(self, output_saved_model_dir):
        raise ValueError("Not able to save to a SavedModel since input is a GraphDef")


class TrtGraphConverterV2:
    def __init__(
        self,
        input_saved_model_dir=None,
        input_saved_model_tags=None,
        input_saved_model_signature_key=None,
        conversion_params=None,
    ):
        assert tf.executing_eagerly()


def see(ranges, feed):
    for name, values in feed.items():
        low, high = float(numpy.min(values)), float(numpy.max(values))
        for key in (name, graphs.node_name(name)):
            before = ranges.get(key, (low, high))
            ranges[key] = (min(low, before[0]), max(high, before[1]))
