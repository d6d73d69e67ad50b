"""ONNX graphs as steps of PyTorch: every operator against ONNX Runtime, what is folded, and what is refused by name."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_inference_gate.agent import onnx_to_torch, torch_graphs
from pytest_inference_gate.agent.failures import BuildError, LoadError, Unsupported

MISSING = [name for name in ("torch", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

PICTURE = (2, 4, 9, 7)
WEIGHTS = {
    "kernel": (6, 4, 3, 2),
    "depthwise": (4, 1, 3, 3),
    "transposed": (4, 3, 3, 3),
    "bias6": (6,),
    "bias3": (3,),
    "four": (4,),
    "column": (4, 1, 1),
    "row": (7,),
    "matrix": (7, 5),
    "matrix_t": (5, 7),
    "bias5": (5,),
    "one": (1,),
}


class Graph:
    """One or more nodes from the tensor ``x`` to ``y``; what is called like one of WEIGHTS is a weight."""

    def __init__(self, *nodes: Any, shape: tuple[int, ...] = PICTURE, opset: int = 17, batch: Any = None, **constants: Any):
        self.nodes, self.shape, self.opset, self.constants, self.batch = nodes, shape, opset, constants, batch

    def write(self, path: Path) -> None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        generator = numpy.random.default_rng(3)
        tensors = {name: generator.uniform(0.2, 1.2, shape).astype(numpy.float32) for name, shape in WEIGHTS.items()}
        tensors.update((name, numpy.asarray(value)) for name, value in self.constants.items())
        used = {name for node in self.nodes for name in node.input}
        outer = [self.batch or self.shape[0], *self.shape[1:]]
        graph = helper.make_graph(
            list(self.nodes),
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, outer)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in tensors.items() if name in used],
        )
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *[helper.make_opsetid(domain, 1) for domain in domains]]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)

    def imported(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        import onnx
        import torch

        self.write(path)
        return onnx_to_torch.graph_of(torch, onnx, str(path), list(self.shape), "float32")


def node(kind: str, *inputs: str, y: str = "y", domain: str = "", **attributes: Any) -> Any:
    if MISSING:
        return None
    from onnx import helper

    return helper.make_node(kind, list(inputs or ("x",)), [y], domain=domain, **attributes)


def run(graph: dict[str, Any], weights: dict[str, Any], picture: Any, *, half: bool = False) -> Any:
    import torch

    module = torch_graphs.module(torch, json.loads(json.dumps(graph)), weights)  # as it comes out of a file
    with torch.no_grad():
        tensor = torch.from_numpy(picture)
        return (module.half()(tensor.half()).float() if half else module(tensor)).numpy()


FLAT, SQUARE = (3, 7), (2, 4, 8, 8)
GRAPHS = {
    "conv": Graph(node("Conv", "x", "kernel", "bias6", strides=[2, 1], pads=[1, 0, 1, 0])),
    "conv without a bias": Graph(node("Conv", "x", "kernel", dilations=[2, 1])),
    "conv with uneven pads": Graph(node("Conv", "x", "kernel", "bias6", strides=[2, 2], pads=[0, 1, 2, 0])),
    "conv same upper": Graph(node("Conv", "x", "kernel", strides=[2, 2], auto_pad="SAME_UPPER")),
    "conv same lower": Graph(node("Conv", "x", "kernel", strides=[2, 2], auto_pad="SAME_LOWER")),
    "conv valid": Graph(node("Conv", "x", "kernel", auto_pad="VALID")),
    "depthwise": Graph(node("Conv", "x", "depthwise", "four", group=4, pads=[1, 1, 1, 1])),
    "transposed conv": Graph(
        node("ConvTranspose", "x", "transposed", "bias3", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0])
    ),
    "transposed conv, uneven": Graph(node("ConvTranspose", "x", "transposed", strides=[2, 2], pads=[1, 1, 0, 1])),
    "batch norm": Graph(node("BatchNormalization", "x", "four", "four", "four", "four", epsilon=0.01)),
    "gemm": Graph(node("Gemm", "x", "matrix", "bias5"), shape=FLAT),
    "gemm transposed": Graph(node("Gemm", "x", "matrix_t", "bias5", transB=1, alpha=0.5, beta=2.0), shape=FLAT),
    "gemm with one bias": Graph(node("Gemm", "x", "matrix", "one"), shape=FLAT),
    "gemm twice from one matrix": Graph(
        node("Gemm", "x", "matrix", y="a"), node("Gemm", "x", "matrix", y="b", alpha=3.0), node("Add", "a", "b"), shape=FLAT
    ),
    "matmul": Graph(node("MatMul", "x", "matrix")),
    "max pool": Graph(node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    "max pool, uneven": Graph(  # of what is below zero, which pads of zero would win
        node("Neg", y="n"), node("MaxPool", "n", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    ),
    "max pool, ceil": Graph(node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)),
    "average pool": Graph(node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    "average pool, pads counted": Graph(node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)),
    "average pool, uneven": Graph(node("AveragePool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")),
    "average pool, uneven, counted": Graph(node("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)),
    "global average": Graph(node("GlobalAveragePool")),
    "global max": Graph(node("GlobalMaxPool")),
    "pad": Graph(node("Pad", "x", "pads", "value"), pads=numpy.array([0, 0, 1, 2, 0, 0, 3, 0]), value=numpy.float32(0.5)),
    "pad channels": Graph(node("Pad", "x", "pads"), pads=numpy.array([0, 1, 0, 0, 0, 2, 0, 0])),
    "pad reflect": Graph(node("Pad", "x", "pads", mode="reflect"), pads=numpy.array([0, 0, 1, 2, 0, 0, 2, 1])),
    "pad edge": Graph(node("Pad", "x", "pads", mode="edge"), pads=numpy.array([0, 0, 1, 2, 0, 0, 2, 1])),
    "pad old": Graph(node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5), opset=10),
    "relu6": Graph(node("Clip", "x", "low", "high"), low=numpy.float32(0), high=numpy.float32(6)),
    "clip": Graph(node("Clip", "x", "low", "high"), low=numpy.float32(-0.3), high=numpy.float32(0.4)),
    "clip below": Graph(node("Clip", "x", "low"), low=numpy.float32(0)),
    "clip above": Graph(node("Clip", "x", "", "high"), high=numpy.float32(0.2)),
    "clip old": Graph(node("Clip", min=-0.1, max=0.5), opset=9),
    "leaky": Graph(node("LeakyRelu", alpha=0.3)),
    "elu": Graph(node("Elu", alpha=0.7)),
    "prelu": Graph(node("PRelu", "x", "column")),
    "softplus": Graph(node("Softplus")),
    "hard sigmoid": Graph(node("HardSigmoid", alpha=0.3, beta=0.4)),
    "hard sigmoid of torch": Graph(node("HardSigmoid", alpha=1 / 6)),
    "hard swish": Graph(node("HardSwish")),
    "softmax": Graph(node("Softmax", axis=1)),
    "softmax old": Graph(node("Softmax"), opset=11),
    "log softmax": Graph(node("LogSoftmax")),
    **{kind: Graph(node(kind)) for kind in ("Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "Erf", "Floor", "Ceil")},
    **{f"{kind} of positives": Graph(node("Exp", y="e"), node(kind, "e")) for kind in ("Log", "Sqrt", "Reciprocal")},
    **{kind: Graph(node(kind, "x", "column")) for kind in ("Add", "Sub", "Mul", "Div")},
    "a weight first": Graph(node("Sub", "row", "x")),
    "two tensors": Graph(node("Relu", y="r"), node("Sigmoid", y="s"), node("Mul", "r", "s")),
    "max, min and sum of three": Graph(
        node("Max", "x", "row", "column", y="a"), node("Min", "a", "row", y="b"), node("Sum", "b", "x", "row")
    ),
    "power": Graph(node("Pow", "x", "two"), two=numpy.float32(2)),
    "mean": Graph(node("ReduceMean", axes=[2, 3], keepdims=0)),
    "mean of all": Graph(node("ReduceMean")),
    "mean, axes as input": Graph(node("ReduceMean", "x", "axes"), opset=18, axes=numpy.array([-1])),
    "sum": Graph(node("ReduceSum", "x", "axes", keepdims=0), axes=numpy.array([1])),
    "transpose": Graph(node("Transpose", perm=[0, 2, 3, 1])),
    "reshape": Graph(node("Reshape", "x", "target"), target=numpy.array([0, -1, 7])),
    "flatten": Graph(node("Flatten")),
    "flatten later": Graph(node("Flatten", axis=-1)),
    "squeeze": Graph(node("GlobalAveragePool", y="p"), node("Squeeze", "p", "axes"), axes=numpy.array([2, 3])),
    "squeeze all": Graph(node("GlobalAveragePool", y="p"), node("Squeeze", "p")),
    "unsqueeze": Graph(node("Unsqueeze", "x", "axes"), axes=numpy.array([0, -1])),
    "concat": Graph(node("Relu", y="r"), node("Concat", "x", "r", axis=1)),
    "slice": Graph(
        node("Slice", "x", "starts", "ends", "axes"),
        starts=numpy.array([1, -5]),
        ends=numpy.array([2**40, -1]),
        axes=numpy.array([1, 2]),
    ),
    "dropout": Graph(node("Dropout")),
    "identity at the end": Graph(node("Relu", y="r"), node("Identity", "r")),
    "cast to what it is": Graph(node("Cast", to=1)),
}
# As exporters of graphs with any batch write it: the shape is computed from the input's own.
GRAPHS["flatten by its shape"] = Graph(
    node("Shape", y="s"),
    node("Gather", "s", "zero", y="n"),
    node("Unsqueeze", "n", "axis", y="u"),
    node("Concat", "u", "rest", y="target", axis=0),
    node("Reshape", "x", "target"),
    zero=numpy.array(0),
    axis=numpy.array([0]),
    rest=numpy.array([-1]),
)


@pytest.fixture(params=list(GRAPHS))
def graph(request: pytest.FixtureRequest) -> Graph:
    return GRAPHS[request.param]


def test_each_operator_computes_what_onnx_runtime_computes(graph: Graph, tmp_path: Path) -> None:
    import onnxruntime

    steps, weights = graph.imported(tmp_path / "model.onnx")
    picture = numpy.random.default_rng(4).uniform(-1, 1, graph.shape).astype(numpy.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": picture})
    output = run(steps, weights, picture)
    assert output.shape == expected.shape
    numpy.testing.assert_allclose(output, expected, rtol=2e-5, atol=2e-6)
    halved = run(steps, weights, picture, half=True)
    numpy.testing.assert_allclose(halved, expected, rtol=2e-2, atol=2e-2)


def test_what_is_constant_leaves_no_step_and_no_weight(tmp_path: Path) -> None:
    steps, weights = GRAPHS["flatten by its shape"].imported(tmp_path / "model.onnx")
    assert [(step["operation"], step["attributes"]) for step in steps["steps"]] == [("reshape", {"shape": [-1, 252]})]
    assert weights == {}


def test_what_the_output_does_not_need_is_left_out(tmp_path: Path) -> None:
    graph = Graph(node("Conv", "x", "kernel", y="unused"), node("Relu"))
    steps, weights = graph.imported(tmp_path / "model.onnx")
    assert [step["operation"] for step in steps["steps"]] == ["relu"]
    assert weights == {}


def test_a_weight_that_two_nodes_use_is_kept_once(tmp_path: Path) -> None:
    graph = Graph(node("Add", "x", "column", y="a"), node("Mul", "a", "column"))
    _, weights = graph.imported(tmp_path / "model.onnx")
    assert len(weights) == 1


def test_split_gives_each_part(tmp_path: Path) -> None:
    from onnx import helper

    parts = helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1)
    graph = Graph(parts, node("Concat", "c", "a", axis=1), sizes=numpy.array([1, 2, 1]))
    steps, weights = graph.imported(tmp_path / "model.onnx")
    picture = numpy.random.default_rng(4).uniform(-1, 1, PICTURE).astype(numpy.float32)
    numpy.testing.assert_array_equal(run(steps, weights, picture), picture[:, [3, 0]])


def test_an_input_of_any_batch_takes_that_of_the_case(tmp_path: Path) -> None:
    graph = Graph(node("Flatten"), batch="N")
    steps, _ = graph.imported(tmp_path / "model.onnx")
    assert steps["steps"][0]["attributes"] == {"shape": [-1, 252]}


REFUSED = {
    "DepthToSpace": Graph(node("DepthToSpace", blocksize=2), shape=SQUARE),
    "LRN": Graph(node("LRN", size=3)),
    "Fused of the domain com.vendor": Graph(node("Fused", domain="com.vendor")),
    "Slice with steps": Graph(
        node("Slice", "x", "a", "b", "c", "d"), a=numpy.array([0]), b=numpy.array([9]), c=numpy.array([2]), d=numpy.array([2])
    ),
    "Clip depends on the data": Graph(node("ReduceMean", y="m", keepdims=0), node("Clip", "x", "m"), shape=PICTURE),
    "to INT64": Graph(node("Cast", y="i", to=7), node("Cast", "i", to=1)),
    "Conv over 1 dimensions": Graph(node("Conv", "x", "kernel"), shape=(2, 4, 9), kernel=numpy.ones((3, 4, 3), numpy.float32)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_there_is_no_step_for_is_refused_by_its_name(words: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        REFUSED[words].imported(tmp_path / "model.onnx")
    for word in words.split(" of the ")[0].split():
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_graph_that_does_not_fit_the_case(tmp_path: Path) -> None:
    import onnx
    import torch

    GRAPHS["conv"].write(tmp_path / "model.onnx")
    with pytest.raises(BuildError, match=r"takes an input of the shape \[2, 4, 9, 7\], and the case needs \[1, 4, 9, 7\]"):
        onnx_to_torch.graph_of(torch, onnx, str(tmp_path / "model.onnx"), [1, 4, 9, 7], "float32")
    (tmp_path / "broken.onnx").write_bytes(b"no protocol buffer at all")
    with pytest.raises(BuildError, match="cannot be read as ONNX"):
        onnx_to_torch.graph_of(torch, onnx, str(tmp_path / "broken.onnx"), [1, 4, 9, 7], "float32")


def test_whole_numbers_become_the_floats_of_the_module(tmp_path: Path) -> None:
    import onnx
    import torch

    Graph(node("Cast", y="f", to=1), node("Mul", "f", "column")).write(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, tmp_path / "model.onnx")
    graph, weights = onnx_to_torch.graph_of(torch, onnx, str(tmp_path / "model.onnx"), list(PICTURE), "uint8")
    module = torch_graphs.module(torch, graph, weights)
    picture = torch.full(PICTURE, 200, dtype=torch.uint8)
    assert module(picture).dtype == torch.float32
    assert module.half()(picture).dtype == torch.float16


def test_a_step_of_a_newer_release_is_refused() -> None:
    import torch

    graph = {"input": "input", "output": "t0", "steps": [{"operation": "warp", "inputs": ["input"], "output": "t0"}]}
    with pytest.raises(LoadError, match="the operation warp"):
        torch_graphs.module(torch, graph, {})


def test_what_is_not_needed_any_more_is_let_go() -> None:
    """Else a deep network would hold all its activations at once, which no user's own module does."""
    import weakref

    import torch

    steps = [
        {"operation": "relu", "inputs": [f"t{n - 1}" if n else "input"], "output": f"t{n}", "attributes": {}} for n in range(4)
    ]
    module = torch_graphs.module(torch, {"input": "input", "output": "t3", "steps": steps}, {})
    alive: list[Any] = []
    most = 0
    original = torch.nn.functional.relu

    def relu(x: Any) -> Any:
        nonlocal most
        result = original(x)
        alive.append(weakref.ref(result))
        most = max(most, sum(one() is not None for one in alive))
        return result

    torch.nn.functional.relu = relu
    try:
        module(torch.ones(1, 2, 3, 3))
    finally:
        torch.nn.functional.relu = original
    assert len(alive) == 4  # the functions of torch are looked up when they are called, as torch2trt needs it
    assert most == 2
