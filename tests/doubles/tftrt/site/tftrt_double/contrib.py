"""``tensorflow.contrib.tensorrt`` as it was in TensorFlow 1.13."""

import tensorflow as tf

from . import faults, graphs, setting


def create_inference_graph(
    input_graph_def,
    outputs,
    max_batch_size=1,
    max_workspace_size_bytes=2 << 20,
    precision_mode="FP32",
    minimum_segment_size=3,
    is_dynamic_op=False,
    maximum_cached_engines=1,
    cached_engine_batch_sizes=None,
    use_calibration=True,
    input_saved_model_dir=None,
    input_saved_model_tags=None,
    output_saved_model_dir=None,
    session_config=None,
):
    if setting("FAULT") == "versions":
        graphs.say(
            "ERROR:tensorflow:TensorRT version mismatch. Tensorflow was compiled against TensorRT %s but library loaded from environment "
            "is TensorRT %s. Please make sure that correct version of TensorRT is available" % (faults.LINKED, faults.LOADED)
        )
        raise RuntimeError("Incompatible TensorRT library version")
    faults.before_converting(tf, input_graph_def)
    return graphs.convert(
        tf,
        input_graph_def,
        set(outputs),
        minimum_segment_size,
        precision_mode,
        "TRTEngineOp_{}".format,
        max_workspace_size_bytes,
        maximum_cached_engines,
        report_it=False,
    )


def calib_graph_to_infer_graph(calibration_graph_def, is_dynamic_op=False):
    engines = [node for node in calibration_graph_def.node if node.op == graphs.ENGINE]
    if not engines:
        graphs.say("ERROR:tensorflow:Not a calib graph. Doesn't seem to contain any calibration nodes.")
        return None
    # The real one knows the ranges from the graph's runs; the pictures here are between 0 and 1.
    graphs.quantize_inputs(calibration_graph_def, {name: (0.0, 1.0) for node in engines for name in node.input[:1]})
    return calibration_graph_def
