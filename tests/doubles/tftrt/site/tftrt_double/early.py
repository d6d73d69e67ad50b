"""``tensorflow.python.compiler.tensorrt.trt_convert`` as it was from TensorFlow 2.0 to 2.6."""

import collections

from . import second

DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES = 1 << 30


class TrtConversionParams(
    collections.namedtuple(
        "TrtConversionParams",
        [
            "rewriter_config_template",
            "max_workspace_size_bytes",
            "precision_mode",
            "minimum_segment_size",
            "is_dynamic_op",
            "maximum_cached_engines",
            "use_calibration",
            "max_batch_size",
            "allow_build_at_runtime",
        ],
    )
):
    def __new__(
        cls,
        rewriter_config_template=None,
        max_workspace_size_bytes=DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
        precision_mode="FP32",
        minimum_segment_size=3,
        is_dynamic_op=True,
        maximum_cached_engines=1,
        use_calibration=True,
        max_batch_size=None,
        allow_build_at_runtime=True,
    ):
        return super().__new__(
            cls,
            rewriter_config_template,
            max_workspace_size_bytes,
            precision_mode,
            minimum_segment_size,
            is_dynamic_op,
            maximum_cached_engines,
            use_calibration,
            max_batch_size,
            allow_build_at_runtime,
        )


DEFAULT_TRT_CONVERSION_PARAMS = TrtConversionParams()


class TrtGraphConverterV2(second.Converter):
    def __init__(
        self,
        input_saved_model_dir=None,
        input_saved_model_tags=None,
        input_saved_model_signature_key=None,
        conversion_params=None,
    ):
        conversion_params = conversion_params or TrtConversionParams()
        if not conversion_params.is_dynamic_op:
            raise ValueError("is_dynamic_op is either None or True for TF2")
        self.begin(input_saved_model_dir, conversion_params, "TRTEngineOp_{}".format)

    def convert(self, calibration_input_fn=None):
        return self.do_convert(calibration_input_fn)

    def build(self, input_fn):
        self.do_build(input_fn)

    def save(self, output_saved_model_dir):
        self.do_save(output_saved_model_dir)
