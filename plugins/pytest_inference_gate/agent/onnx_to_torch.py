"""An ONNX graph as steps of PyTorch (``torch_graphs``), by running it once: shapes become numbers, and what is constant is folded.

The set of operators is fixed; any other one is ``unsupported``, by its name. Tensors are float32 throughout: a graph of half or double
floats is read as float32.
"""

from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from . import model_outputs, torch_graphs
from .failures import BuildError, Unsupported

DOMAINS = ("", "ai.onnx")
SAME_IN_TORCH = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Abs": "abs",
    "Neg": "neg",
    "Erf": "erf",
    "Floor": "floor",
    "Ceil": "ceil",
    "Reciprocal": "reciprocal",
    "Softplus": "softplus",
    "HardSwish": "hard_swish",
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "MatMul": "matmul",
    "Pow": "pow",
    "PRelu": "prelu",
    "GlobalAveragePool": "global_avg_pool2d",
    "GlobalMaxPool": "global_max_pool2d",
}
"""Operators that are one function of torch with the same inputs and no attributes."""


def graph_of(torch, onnx, path, shape, dtype, all_outputs=False):
    # type: (Any, Any, str, List[int], str, bool) -> Tuple[Dict[str, Any], Dict[str, Any]]
    """The graph and its weights (NumPy arrays by name) of the ONNX file at ``path``, for one input of ``shape`` with its batch.

    ``all_outputs``: of a detector all outputs count, of a classifier the first.

    Raises :class:`Unsupported` for an operator that has no counterpart here and :class:`BuildError` for a graph that does not fit.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # what protobuf raises differs from release to release
        raise BuildError("%s cannot be read as ONNX: %s" % (path, error))
    importer = _Importer(torch, onnx, model)
    with torch.no_grad():
        importer.start(shape, dtype)
        for node in model.graph.node:
            importer.node(node)
    return importer.result(all_outputs)


class _Node:
    """One node: its attributes, and its inputs as constants or tensors."""

    def __init__(self, onnx, node):
        # type: (Any, Any) -> None
        self.kind = str(node.op_type)
        self.inputs = list(node.input)
        self.output = str(node.output[0])
        self.outputs = [str(name) for name in node.output]
        self.attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

    def text(self, name, default):
        # type: (str, str) -> str
        value = self.attributes.get(name, default)
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class _Importer:
    def __init__(self, torch, onnx, model):
        # type: (Any, Any, Any) -> None
        import numpy

        self._torch, self._onnx, self._numpy, self._model = torch, onnx, numpy, model
        self._operations = torch_graphs.operations(torch)
        self._opset = next((int(item.version) for item in model.opset_import if item.domain in DOMAINS), 1)
        self._opsets = list(model.opset_import)
        self._constants = {str(tensor.name): onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}  # type: Dict[str, Any]
        self._tensors = {}  # type: Dict[str, Any]  # what each tensor is for the input with which the graph is run
        self._names = {}  # type: Dict[str, str]  # of a tensor in the file -> its name among the steps
        self._weights = {}  # type: Dict[str, Any]
        self._weight_names = {}  # type: Dict[Tuple[str, str], str]
        self._steps = []  # type: List[Dict[str, Any]]
        self._input = ""

    # Ends

    def start(self, shape, dtype):
        # type: (List[int], str) -> None
        inputs = [value for value in self._model.graph.input if value.name not in self._constants]
        if len(inputs) != 1:
            raise BuildError("the ONNX graph has %d inputs, and one is expected" % len(inputs))
        if not self._model.graph.output:
            raise BuildError("the ONNX graph has no output")
        sizes = [size.dim_value if size.HasField("dim_value") else None for size in inputs[0].type.tensor_type.shape.dim]
        if sizes and (len(sizes) != len(shape) or any(size and size != want for size, want in zip(sizes, shape))):
            raise BuildError(
                "the ONNX graph takes an input of the shape %s, and the case needs %s: correct the card's input.shape, or the batch"
                % (["any" if size is None else size for size in sizes], shape)
            )
        self._input = "input"
        name = str(inputs[0].name)
        self._names[name] = self._input
        # Not zeros: a division by what the input gives must not end in NaN where its sizes alone are wanted.
        self._tensors[name] = self._torch.ones(shape, dtype=self._torch.uint8 if dtype == "uint8" else self._torch.float32)
        whole = inputs[0].type.tensor_type.elem_type in (self._onnx.TensorProto.UINT8, self._onnx.TensorProto.INT8)
        if dtype == "uint8" and not whole:  # the graph has no Cast of its own
            self._as_float(name, name)

    def result(self, all_outputs):
        # type: (bool) -> Tuple[Dict[str, Any], Dict[str, Any]]
        names = [str(output.name) for output in self._model.graph.output]
        wanted = [names[place] for place in model_outputs.in_order(names)] if all_outputs else names[:1]
        if any(name in self._constants for name in wanted):
            raise BuildError("the output of the ONNX graph does not depend on its input")
        outputs = [self._names[name] for name in wanted]
        needed, kept = set(outputs), []
        for step in reversed(self._steps):
            if step["output"] in needed:
                kept.append(step)
                needed.update(step["inputs"])
        ends = {"outputs": outputs} if all_outputs else {"output": outputs[0]}  # type: Dict[str, Any]
        graph = dict(ends, input=self._input, steps=kept[::-1])
        return graph, {name: array for name, array in self._weights.items() if name in needed}

    # Nodes

    def node(self, proto):
        # type: (Any) -> None
        if proto.domain not in DOMAINS:
            raise Unsupported(
                "the ONNX graph has the operator %s of the domain %s, which the torch backend does not know"
                % (proto.op_type, proto.domain)
            )
        node = _Node(self._onnx, proto)
        if all(name in self._constants for name in node.inputs if name):
            self._fold(proto, node)
            return
        if node.kind == "Shape":
            sizes = list(self._tensors[node.inputs[0]].shape)
            part = slice(node.attributes.get("start", 0), node.attributes.get("end", len(sizes)))
            self._constants[node.output] = self._numpy.array(sizes[part], dtype="int64")
            return
        if node.kind in SAME_IN_TORCH:
            self._emit(node.output, SAME_IN_TORCH[node.kind], node.inputs)
            return
        handler = getattr(self, "_on_" + node.kind.lower(), None)  # type: Optional[Callable[[_Node], None]]
        if handler is None:
            raise Unsupported(
                "the ONNX graph has the operator %s, which the torch backend does not know: use the backend onnxruntime, or export "
                "the model without it" % node.kind
            )
        handler(node)

    def _fold(self, proto, node):
        # type: (Any, _Node) -> None
        """Compute what depends on constants alone, with ONNX's own reference."""
        from onnx.reference import ReferenceEvaluator

        helper = self._onnx.helper
        unknown = self._onnx.TensorProto.UNDEFINED
        names = [name for name in dict.fromkeys(node.inputs) if name]
        graph = helper.make_graph(
            [proto],
            "constant",
            [self._onnx.helper.make_tensor_value_info(name, unknown, None) for name in names],
            [self._onnx.helper.make_tensor_value_info(name, unknown, None) for name in node.outputs if name],
        )
        try:
            evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets))
            values = evaluator.run(None, {name: self._constants[name] for name in names})
        except Exception as error:
            raise Unsupported("the constant operator %s of the ONNX graph cannot be computed: %s" % (node.kind, error))
        for name, value in zip([name for name in node.outputs if name], values):
            self._constants[name] = self._numpy.asarray(value)

    def _emit(self, output, operation, inputs, **attributes):
        # type: (str, str, List[str], **Any) -> None
        """One step, and its result for the input with which the graph is run; inputs are names in the file, "" for none."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        names = [self._name(name) for name in inputs]
        values = [self._value(name) for name in inputs]
        try:
            self._tensors[output] = self._operations[operation](*values, **attributes)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise BuildError("the ONNX graph cannot be run at %s (%s): %s" % (output, operation, error))
        self._names[output] = "t%d" % len(self._steps)
        self._steps.append({"operation": operation, "inputs": names, "output": self._names[output], "attributes": attributes})

    def _same(self, output, name):
        # type: (str, str) -> None
        """``output`` is another name of a tensor."""
        self._tensors[output], self._names[output] = self._tensors[name], self._names[name]

    def _value(self, name):
        # type: (str) -> Any
        if name in self._constants:
            return self._torch.from_numpy(self._weights[self._name(name)])
        if name not in self._tensors:
            raise BuildError("the ONNX graph uses %s before it is made" % name)
        return self._tensors[name]

    def _name(self, name):
        # type: (str) -> str
        """A tensor's name among the steps; a constant becomes a weight when it is first used."""
        if name not in self._constants:
            if name not in self._names:
                raise BuildError("the ONNX graph uses %s before it is made" % name)
            return self._names[name]
        return self._weight(name, self._constants[name])

    def _weight(self, name, array, way=""):
        # type: (str, Any, str) -> str
        """``way`` tells apart what was made of one constant in different ways."""
        key = (name, way)
        if key not in self._weight_names:
            self._weight_names[key] = "w%d" % len(self._weights)
            array = self._numpy.asarray(array)
            # Integers take part in float arithmetic alone here; shapes and axes are attributes.
            self._weights[self._weight_names[key]] = self._numpy.array(array, dtype="float32", order="C")
        return self._weight_names[key]

    def _derived(self, name, way, array):
        # type: (str, str, Any) -> str
        """The name of a new constant that was made of another."""
        derived = "%s/%s" % (name, way)
        self._constants[derived] = array
        return derived

    def _constant(self, node, index, what):
        # type: (_Node, int, str) -> Any
        """The value of an input that has to be constant; None where there is none."""
        if len(node.inputs) <= index or not node.inputs[index]:
            return None
        name = node.inputs[index]
        if name not in self._constants:
            raise Unsupported(
                "%s of the operator %s depends on the data, which the torch backend does not run" % (what, node.kind)
            )
        return self._constants[name]

    def _integers(self, node, attribute, index):
        # type: (_Node, str, int) -> Optional[List[int]]
        """Axes and the like, which are an attribute in old graphs and an input in new ones."""
        if attribute in node.attributes:
            return [int(value) for value in node.attributes[attribute]]
        value = self._constant(node, index, attribute)
        return None if value is None else [int(item) for item in self._numpy.asarray(value).reshape(-1)]

    def _shape(self, name):
        # type: (str) -> List[int]
        return [int(size) for size in self._value(name).shape]

    # What changes nothing

    def _on_identity(self, node):
        # type: (_Node) -> None
        self._same(node.output, node.inputs[0])

    _on_dropout = _on_identity

    def _on_cast(self, node):
        # type: (_Node) -> None
        wanted = int(node.attributes["to"])
        proto = self._onnx.TensorProto
        if wanted not in (proto.FLOAT, proto.FLOAT16, proto.DOUBLE, proto.BFLOAT16):
            raise Unsupported(
                "the ONNX graph casts what it computes to %s, which the torch backend does not run" % proto.DataType.Name(wanted)
            )
        if self._tensors[node.inputs[0]].is_floating_point():
            self._same(node.output, node.inputs[0])
        else:
            self._as_float(node.output, node.inputs[0])

    def _as_float(self, output, name):
        # type: (str, str) -> None
        """To the float type of the module, whatever that is when it is run."""
        self._constants["a float"] = self._numpy.zeros((), dtype="float32")
        self._emit(output, "as_type", [name, "a float"])

    # Layers with weights

    def _window(self, node, sizes, kernel):
        # type: (_Node, List[int], List[int]) -> Tuple[List[int], List[int], List[int]]
        """Strides, dilations and pads (begins, then ends) of a convolution or pooling over ``sizes``."""
        count = len(sizes)
        strides = [int(value) for value in node.attributes.get("strides", [1] * count)]
        dilations = [int(value) for value in node.attributes.get("dilations", [1] * count)]
        mode = node.text("auto_pad", "NOTSET")
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            pads = (
                [0] * (2 * count) if mode == "VALID" else [int(value) for value in node.attributes.get("pads", [0] * (2 * count))]
            )
            return strides, dilations, pads
        begins, ends = [], []
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations):
            total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
            less, more = total // 2, total - total // 2
            begins.append(less if mode == "SAME_UPPER" else more)
            ends.append(more if mode == "SAME_UPPER" else less)
        return strides, dilations, begins + ends

    def _two_dimensions(self, node):
        # type: (_Node) -> None
        if len(self._shape(node.inputs[0])) != 4:
            raise Unsupported(
                "the ONNX graph has the operator %s over %d dimensions, and the torch backend knows it over 2"
                % (node.kind, len(self._shape(node.inputs[0])) - 2)
            )

    def _padded(self, node, pads, value):
        # type: (_Node, List[int], float) -> str
        """The name of the input after a step that pads it, height and width; of the input itself where there is nothing to pad."""
        if not any(pads):
            return str(node.inputs[0])
        name = node.output + "/padded"
        top, left, bottom, right = pads
        self._emit(name, "pad", [node.inputs[0]], pads=[left, right, top, bottom], mode="constant", value=value)
        return name

    def _on_conv(self, node):
        # type: (_Node) -> None
        self._two_dimensions(node)
        kernel = self._shape(node.inputs[1])[2:]
        strides, dilations, pads = self._window(node, self._shape(node.inputs[0])[2:], kernel)
        even = pads[:2] == pads[2:]  # torch pads both ends alike
        source = node.inputs[0] if even else self._padded(node, pads, 0.0)
        self._emit(
            node.output,
            "conv2d",
            [source] + node.inputs[1:],
            stride=strides,
            padding=pads[:2] if even else [0, 0],
            dilation=dilations,
            groups=int(node.attributes.get("group", 1)),
        )

    def _on_convtranspose(self, node):
        # type: (_Node) -> None
        self._two_dimensions(node)
        if node.text("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
            raise Unsupported(
                "the ONNX graph has a ConvTranspose with auto_pad or output_shape, which the torch backend does not know"
            )
        strides, dilations, pads = self._window(node, self._shape(node.inputs[0])[2:], [])
        extra = [int(value) for value in node.attributes.get("output_padding", [0, 0])]
        # A larger pad at the end takes rows away there, as less output padding does.
        extra = [value + begin - end for value, begin, end in zip(extra, pads[:2], pads[2:])]
        if min(extra) < 0:
            raise Unsupported("the ONNX graph has a ConvTranspose with uneven pads, which the torch backend does not know")
        self._emit(
            node.output,
            "conv_transpose2d",
            node.inputs,
            stride=strides,
            padding=pads[:2],
            output_padding=extra,
            dilation=dilations,
            groups=int(node.attributes.get("group", 1)),
        )

    def _on_gemm(self, node):
        # type: (_Node) -> None
        alpha, beta = float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 1.0))
        weight = self._constant(node, 1, "the matrix")
        bias = self._constant(node, 2, "the bias")
        if node.attributes.get("transA", 0):
            raise Unsupported("the ONNX graph has a Gemm with transA, which the torch backend does not know")
        weight = weight if node.attributes.get("transB", 0) else weight.T
        inputs = [node.inputs[0], self._derived(node.inputs[1], "linear %g" % alpha, alpha * weight)]
        if bias is not None:
            bias = self._numpy.asarray(bias)
            row = self._numpy.broadcast_to(bias, (1, weight.shape[0])).reshape(-1)
            inputs.append(self._derived(node.inputs[2], "row %g" % beta, beta * row))
        self._emit(node.output, "linear", inputs)

    def _on_batchnormalization(self, node):
        # type: (_Node) -> None
        if node.attributes.get("training_mode", 0):
            raise Unsupported("the ONNX graph has a BatchNormalization in training mode: export the model for inference")
        self._emit(node.output, "batch_norm", node.inputs[:5], eps=float(node.attributes.get("epsilon", 1e-5)))

    # Pooling

    def _on_maxpool(self, node):
        # type: (_Node) -> None
        self._two_dimensions(node)
        kernel = [int(value) for value in node.attributes["kernel_shape"]]
        strides, dilations, pads = self._window(node, self._shape(node.inputs[0])[2:], kernel)
        # torch pads both ends alike, and by no more than half the window.
        even = pads[:2] == pads[2:] and all(2 * pad <= size for pad, size in zip(pads, kernel))
        self._emit(
            node.output,
            "max_pool2d",
            [node.inputs[0] if even else self._padded(node, pads, float("-inf"))],
            kernel_size=kernel,
            stride=strides,
            padding=pads[:2] if even else [0, 0],
            dilation=dilations,
            ceil_mode=bool(node.attributes.get("ceil_mode", 0)),
        )

    def _on_averagepool(self, node):
        # type: (_Node) -> None
        self._two_dimensions(node)
        kernel = [int(value) for value in node.attributes["kernel_shape"]]
        strides, dilations, pads = self._window(node, self._shape(node.inputs[0])[2:], kernel)
        include, ceil = bool(node.attributes.get("count_include_pad", 0)), bool(node.attributes.get("ceil_mode", 0))
        if dilations != [1, 1]:
            raise Unsupported("the ONNX graph has an AveragePool with dilations, which the torch backend does not know")
        even = pads[:2] == pads[2:] and all(2 * pad <= size for pad, size in zip(pads, kernel))
        settings = {"kernel_size": kernel, "stride": strides, "ceil_mode": ceil}
        if even:
            self._emit(node.output, "avg_pool2d", [node.inputs[0]], padding=pads[:2], count_include_pad=include, **settings)
            return
        if ceil:
            raise Unsupported(
                "the ONNX graph has an AveragePool with ceil_mode and uneven pads, which the torch backend does not know"
            )
        source = self._padded(node, pads, 0.0)
        whole = node.output if include else node.output + "/whole"
        self._emit(whole, "avg_pool2d", [source], padding=[0, 0], count_include_pad=True, **settings)
        if not include:  # the padding was counted: divide by the share of each window that was not
            ones = self._torch.ones_like(self._tensors[node.inputs[0]][:1, :1])
            top, left, bottom, right = pads
            padded = self._operations["pad"](ones, pads=[left, right, top, bottom], mode="constant", value=0.0)
            share = self._operations["avg_pool2d"](padded, padding=[0, 0], count_include_pad=True, **settings)
            correction = "%s/share" % node.output
            self._constants[correction] = (1.0 / share).numpy()
            self._emit(node.output, "mul", [whole, correction])

    def _on_pad(self, node):
        # type: (_Node) -> None
        pads = self._integers(node, "pads", 1) or []
        value = self._constant(node, 2, "the value")
        if value is None:
            value = node.attributes.get("value", 0.0)
        axes = self._integers(node, "axes", 3)
        rank = len(self._shape(node.inputs[0]))
        axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
        modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
        mode = node.text("mode", "constant")
        if mode not in modes:
            raise Unsupported("the ONNX graph has a Pad with the mode %s, which the torch backend does not know" % mode)
        by_axis = {axis: (pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes)}
        flat = []  # type: List[int]
        for axis in reversed(range(rank)):  # torch begins at the last axis
            flat += list(by_axis.get(axis, (0, 0)))
        while len(flat) > 2 and flat[-2:] == [0, 0]:
            flat = flat[:-2]
        self._emit(
            node.output,
            "pad",
            [node.inputs[0]],
            pads=flat,
            mode=modes[mode],
            value=float(self._numpy.asarray(value).reshape(-1)[0]),
        )

    # Activations

    def _on_clip(self, node):
        # type: (_Node) -> None
        ends = []  # type: List[Optional[float]]
        for index, name in ((1, "min"), (2, "max")):
            value = self._constant(node, index, name)
            if value is None:
                value = node.attributes.get(name)
            ends.append(None if value is None else float(self._numpy.asarray(value).reshape(-1)[0]))
        if ends == [0.0, 6.0]:
            self._emit(node.output, "relu6", node.inputs[:1])
        elif ends == [0.0, None]:
            self._emit(node.output, "relu", node.inputs[:1])
        elif ends == [None, None]:
            self._same(node.output, node.inputs[0])
        else:
            self._emit(node.output, "clamp", node.inputs[:1], minimum=ends[0], maximum=ends[1])

    def _on_leakyrelu(self, node):
        # type: (_Node) -> None
        self._emit(node.output, "leaky_relu", node.inputs, slope=float(node.attributes.get("alpha", 0.01)))

    def _on_elu(self, node):
        # type: (_Node) -> None
        self._emit(node.output, "elu", node.inputs, alpha=float(node.attributes.get("alpha", 1.0)))

    def _on_hardsigmoid(self, node):
        # type: (_Node) -> None
        alpha, beta = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
        self._emit(node.output, "hard_sigmoid", node.inputs, alpha=alpha, beta=beta)

    def _on_softmax(self, node):
        # type: (_Node) -> None
        operation = node.kind.lower().replace("logsoftmax", "log_softmax")
        shape = self._shape(node.inputs[0])
        axis = int(node.attributes.get("axis", -1 if self._opset >= 13 else 1)) % len(shape)
        if self._opset >= 13 or axis == len(shape) - 1:
            self._emit(node.output, operation, node.inputs, dim=axis)
            return
        # Before opset 13 it is over all axes from this one on.
        rows = 1
        for size in shape[:axis]:
            rows *= size
        self._emit(node.output + "/rows", "reshape", node.inputs, shape=[rows, -1])
        self._emit(node.output + "/flat", operation, [node.output + "/rows"], dim=1)
        self._emit(node.output, "reshape", [node.output + "/flat"], shape=shape)

    _on_logsoftmax = _on_softmax

    def _on_max(self, node):
        # type: (_Node) -> None
        """Of any number of tensors."""
        self._chain(node, "maximum")

    def _on_min(self, node):
        # type: (_Node) -> None
        self._chain(node, "minimum")

    def _on_sum(self, node):
        # type: (_Node) -> None
        self._chain(node, "add")

    def _chain(self, node, operation):
        # type: (_Node, str) -> None
        result = node.inputs[0]
        for number, name in enumerate(node.inputs[1:], 2):
            output = node.output if number == len(node.inputs) else "%s/%d" % (node.output, number)
            self._emit(output, operation, [result, name])
            result = output
        if len(node.inputs) == 1:
            self._same(node.output, result)

    # Shapes

    def _reshaped(self, node, shape):
        # type: (_Node, List[int]) -> None
        old = self._shape(node.inputs[0])
        if shape == old:
            self._same(node.output, node.inputs[0])
        else:
            if shape and old and shape[0] == old[0] > 0:
                # The batch stays open: old releases of torch2trt convert with a batch of one, whatever the engine is for.
                shape = [-1] + shape[1:]
            self._emit(node.output, "reshape", node.inputs[:1], shape=shape)

    def _on_reshape(self, node):
        # type: (_Node) -> None
        shape = self._integers(node, "shape", 1) or []
        old = self._shape(node.inputs[0])
        if not node.attributes.get("allowzero", 0):
            shape = [old[place] if size == 0 else size for place, size in enumerate(shape)]
        if -1 in shape:
            total, known = 1, 1
            for size in old:
                total *= size
            for size in shape:
                known *= size if size != -1 else 1
            shape = [total // max(known, 1) if size == -1 else size for size in shape]
        self._reshaped(node, shape)

    def _on_flatten(self, node):
        # type: (_Node) -> None
        old = self._shape(node.inputs[0])
        axis = int(node.attributes.get("axis", 1))
        axis = axis + len(old) if axis < 0 else axis
        sizes = [1, 1]
        for place, size in enumerate(old):
            sizes[place >= axis] *= size
        self._reshaped(node, sizes)

    def _on_squeeze(self, node):
        # type: (_Node) -> None
        old = self._shape(node.inputs[0])
        axes = self._integers(node, "axes", 1)
        gone = [place for place, size in enumerate(old) if size == 1] if axes is None else [axis % len(old) for axis in axes]
        self._reshaped(node, [size for place, size in enumerate(old) if place not in gone])

    def _on_unsqueeze(self, node):
        # type: (_Node) -> None
        shape = self._shape(node.inputs[0])
        axes = self._integers(node, "axes", 1) or []
        rank = len(shape) + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            shape.insert(axis, 1)
        self._reshaped(node, shape)

    def _on_transpose(self, node):
        # type: (_Node) -> None
        rank = len(self._shape(node.inputs[0]))
        order = [int(axis) for axis in node.attributes.get("perm", list(range(rank))[::-1])]
        self._emit(node.output, "permute", node.inputs, dims=order)

    def _on_concat(self, node):
        # type: (_Node) -> None
        self._emit(node.output, "concat", node.inputs, dim=int(node.attributes["axis"]))

    def _on_slice(self, node):
        # type: (_Node) -> None
        shape = self._shape(node.inputs[0])
        starts, ends = self._integers(node, "starts", 1) or [], self._integers(node, "ends", 2) or []
        axes = self._integers(node, "axes", 3)
        steps = self._constant(node, 4, "the steps")
        if steps is not None and set(self._numpy.asarray(steps).reshape(-1).tolist()) != {1}:
            raise Unsupported("the ONNX graph has a Slice with steps, which the torch backend does not know")
        source = node.inputs[0]
        for place, axis in enumerate(range(len(starts)) if axes is None else [axis % len(shape) for axis in axes]):
            start, end, _ = slice(starts[place], ends[place]).indices(shape[axis])
            if (start, end) == (0, shape[axis]):
                continue
            self._emit("%s/%d" % (node.output, place), "narrow", [source], dim=axis, start=start, length=max(0, end - start))
            source = "%s/%d" % (node.output, place)
        self._same(node.output, source)

    def _on_split(self, node):
        # type: (_Node) -> None
        axis = int(node.attributes.get("axis", 0)) % len(self._shape(node.inputs[0]))
        sizes = self._integers(node, "split", 1)
        if sizes is None:
            total, count = self._shape(node.inputs[0])[axis], len(node.outputs)
            part = -(-total // count)
            sizes = [min(part, total - part * number) for number in range(count)]
        start = 0
        for output, size in zip(node.outputs, sizes):
            self._emit(output, "narrow", node.inputs[:1], dim=axis, start=start, length=size)
            start += size

    def _on_reducemean(self, node):
        # type: (_Node) -> None
        rank = len(self._shape(node.inputs[0]))
        axes = self._integers(node, "axes", 1)
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            self._same(node.output, node.inputs[0])
            return
        dims = sorted(axis % rank for axis in axes) if axes else list(range(rank))
        operation = {"ReduceMean": "mean", "ReduceSum": "sum"}[node.kind]
        self._emit(node.output, operation, node.inputs[:1], dim=dims, keepdim=bool(node.attributes.get("keepdims", 1)))

    _on_reducesum = _on_reducemean
