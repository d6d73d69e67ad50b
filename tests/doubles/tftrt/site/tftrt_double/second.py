"""What TrtGraphConverterV2 does, the same in its early and in its late form."""

import os
import shutil

import tensorflow as tf
from tensorflow.python.eager import context, wrap_function
from tensorflow.python.framework import convert_to_constants, ops
from tensorflow.python.saved_model import load, save
from tensorflow.python.trackable import autotrackable
from tensorflow.python.util import nest

from . import faults, graphs, setting


class Converter:
    """``parameters``: an object with the fields of TrtConversionParams."""

    def begin(self, directory, parameters, name_of):
        assert tf.executing_eagerly()
        faults.checked_versions()
        if parameters.precision_mode not in ("FP32", "FP16", "INT8"):
            raise ValueError("precision mode '%s' is not supported." % parameters.precision_mode)
        self._directory, self._parameters, self._name_of = directory, parameters, name_of
        self._need_calibration = parameters.precision_mode == "INT8" and parameters.use_calibration
        self._converted = self._built = False

    def do_convert(self, calibration_input_fn):
        assert not self._converted
        if self._need_calibration and not calibration_input_fn:
            raise ValueError("Should specify calibration_input_fn because INT8 calibration is needed")
        if not self._need_calibration and calibration_input_fn:
            raise ValueError("Should not specify calibration_input_fn because INT8 calibration is not needed")
        model = load.load(self._directory, ["serve"])
        self._original = model.signatures["serving_default"]
        self._frozen = convert_to_constants.convert_variables_to_constants_v2(self._original)
        faults.before_converting(tf, self._frozen.graph.as_graph_def())
        self._outputs = [tensor.name for tensor in self._frozen.outputs]
        self._converted_graph_def = graphs.convert(
            tf,
            self._frozen.graph.as_graph_def(),
            {graphs.node_name(name) for name in self._outputs},
            self._parameters.minimum_segment_size,
            self._parameters.precision_mode,
            self._name_of,
            self._parameters.max_workspace_size_bytes,
            self._parameters.maximum_cached_engines,
        )
        self._converted_func = self._function()
        if self._need_calibration:
            self._calibrate(calibration_input_fn)
            self._converted_func = self._function()
        self._converted = True
        return self._converted_func

    def _function(self):
        runnable = graphs.to_runnable(self._converted_graph_def, at_run_time=False)
        for function in runnable.library.function:  # of an earlier time, which calibration has changed
            while context.context().has_function(function.signature.name):
                context.context().remove_function(function.signature.name)
        function = wrap_function.function_from_graph_def(runnable, [tensor.name for tensor in self._frozen.inputs], self._outputs)
        function.graph.structured_outputs = nest.pack_sequence_as(
            self._original.graph.structured_outputs, function.graph.structured_outputs
        )
        if hasattr(self._original, "function_type"):
            function._function_type = self._original.function_type
        function.graph.structured_input_signature = self._original.structured_input_signature
        return function

    def run(self, inp):
        if isinstance(inp, dict):
            return self._converted_func(**{name: ops.convert_to_tensor(value) for name, value in inp.items()})
        return self._converted_func(*map(ops.convert_to_tensor, inp))

    def _calibrate(self, calibration_input_fn):
        (placeholder,) = [tensor.name for tensor in self._frozen.inputs]
        low, high, shapes = float("inf"), float("-inf"), set()
        for inp in calibration_input_fn():
            self.run(inp)
            (batch,) = inp.values() if isinstance(inp, dict) else inp
            low, high = min(low, float(batch.min())), max(high, float(batch.max()))
            shapes.add(batch.shape)
        if len(shapes) != 1:
            raise ValueError("calibration needs batches of one shape, and got %s" % sorted(shapes))
        graphs.quantize_inputs(self._converted_graph_def, {placeholder: (low, high), graphs.node_name(placeholder): (low, high)})
        graphs.say("double: calibrated between %.3f and %.3f" % (low, high))

    def do_build(self, input_fn):
        if self._built:
            raise NotImplementedError("build() is already called. It is not supported to call build() more than once.")
        assert self._converted
        for inp in input_fn():
            self.run(inp)
        self._built = True

    def do_save(self, directory):
        assert self._converted
        signatures = {"serving_default": self._converted_func}
        save.save(autotrackable.AutoTrackable(), directory, signatures)
        write_engines(directory, self._converted_graph_def)
        if self._built and setting("FAULT") != "build_failure":
            for node in self._converted_graph_def.node:
                if node.op == graphs.ENGINE:
                    with open(os.path.join(directory, "assets", "trt-serialized-engine." + node.name), "w") as stream:
                        stream.write("no engine, but where one lies\n")
        shutil.rmtree(os.path.join(directory, "double"), ignore_errors=True)

    def do_summary(self, print_fn):
        print_fn = print_fn or print
        functions = {one.signature.name: one for one in self._converted_graph_def.library.function}
        engines = [node for node in self._converted_graph_def.node if node.op == graphs.ENGINE]
        converted = sum(len(functions[node.attr[graphs.SEGMENT_FUNCTION].func.name].node_def) for node in engines)
        total = converted + len(self._converted_graph_def.node) - len(engines)
        print_fn("TRTEngineOP Name")
        print_fn("=" * 160)
        for node in engines:
            print_fn("%s GPU:0" % node.name)
        print_fn("\n" + "=" * 160)
        print_fn("[*] Total number of TensorRT engines: %d" % len(engines))
        print_fn("[*] %% of OPs Converted: %.2f%% [%d/%d]\n" % (100.0 * converted / total, converted, total))


def write_engines(directory, graph_def):
    from tensorflow.core.protobuf import saved_model_pb2

    path = os.path.join(directory, "saved_model.pb")
    content = saved_model_pb2.SavedModel()
    with open(path, "rb") as stream:
        content.ParseFromString(stream.read())
    engines = {node.name: node for node in graph_def.node if node.op == graphs.ENGINE}
    for meta_graph in content.meta_graphs:
        graphs.to_written(meta_graph.graph_def, engines)
    with open(path, "wb") as stream:
        stream.write(content.SerializeToString())
