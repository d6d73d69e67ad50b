"""``tensorflow.python.compiler.tensorrt.trt_convert`` as it is from TensorFlow 2.8 to 2.17."""

import collections

from . import graphs, second

DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES = 1 << 30


class TrtConversionParams(
    collections.namedtuple(
        "TrtConversionParams",
        [
            "max_workspace_size_bytes",
            "precision_mode",
            "minimum_segment_size",
            "maximum_cached_engines",
            "use_calibration",
            "allow_build_at_runtime",
        ],
    )
):
    def __new__(
        cls,
        max_workspace_size_bytes=DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
        precision_mode="FP32",
        minimum_segment_size=3,
        maximum_cached_engines=1,
        use_calibration=True,
        allow_build_at_runtime=True,
    ):
        return super().__new__(
            cls,
            max_workspace_size_bytes,
            precision_mode,
            minimum_segment_size,
            maximum_cached_engines,
            use_calibration,
            allow_build_at_runtime,
        )


DEFAULT_TRT_CONVERSION_PARAMS = TrtConversionParams()


class TrtGraphConverterV2(second.Converter):
    def __init__(
        self,
        input_saved_model_dir=None,
        input_saved_model_tags=None,
        input_saved_model_signature_key=None,
        use_dynamic_shape=None,
        dynamic_shape_profile_strategy=None,
        max_workspace_size_bytes=DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES,
        precision_mode="FP32",
        minimum_segment_size=3,
        maximum_cached_engines=1,
        use_calibration=True,
        allow_build_at_runtime=True,
        conversion_params=None,
    ):
        if conversion_params is None:
            conversion_params = TrtConversionParams(
                max_workspace_size_bytes,
                precision_mode,
                minimum_segment_size,
                maximum_cached_engines,
                use_calibration,
                allow_build_at_runtime,
            )
        if use_dynamic_shape:
            graphs.say("double: engines for shapes that vary, with %s profiles" % (dynamic_shape_profile_strategy or "Range"))
        self.begin(input_saved_model_dir, conversion_params, "TRTEngineOp_000_{:03d}".format)

    def convert(self, calibration_input_fn=None):
        return self.do_convert(calibration_input_fn)

    def build(self, input_fn):
        self.do_build(input_fn)

    def save(self, output_saved_model_dir, save_gpu_specific_engines=True, options=None):
        self.do_save(output_saved_model_dir)

    def summary(self, line_length=160, detailed=True, print_fn=None):
        if line_length < 160:
            raise ValueError("Invalid `line_length` value has been received: %d. Minimum: 160." % line_length)
        self.do_summary(print_fn)
