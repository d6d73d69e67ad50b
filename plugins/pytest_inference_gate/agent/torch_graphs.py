"""A network as a list of steps, run by PyTorch: what an ONNX graph becomes, so that a board needs nothing but torch and NumPy.

A graph is plain JSON: ``{"input": name, "output": name, "steps": [{"operation", "inputs", "output", "attributes"}, ...]}``. The inputs of
a step are the names of earlier outputs, of the graph's input, or of weights. All shapes are static, and the tensors float. A graph of a
detector has ``outputs``, a list of names, and its module answers with a tuple.
"""

from typing import Any, Callable, Dict, List, Tuple  # noqa: F401

from .failures import LoadError


def operations(torch):
    # type: (Any) -> Dict[str, Callable[..., Any]]
    """What a step can be: ``function(*tensors, **attributes)``.

    Each function of torch is looked up when it is called, and by the name that its users write: torch2trt puts its own functions
    there while it converts.
    """
    functional = torch.nn.functional

    def pooled(function):
        # type: (str) -> Callable[..., Any]
        return lambda x, **attributes: getattr(functional, function)(x, **_tuples(attributes))

    def unary(name):
        # type: (str) -> Callable[..., Any]
        return lambda x: getattr(torch, name)(x)

    def binary(name):
        # type: (str) -> Callable[..., Any]
        return lambda x, y: getattr(torch, name)(x, y)

    def hard_sigmoid(x, alpha, beta):
        # type: (Any, float, float) -> Any
        if abs(alpha - 1.0 / 6.0) < 1e-6 and beta == 0.5:
            return functional.hardsigmoid(x)
        return torch.clamp(torch.add(torch.mul(x, alpha), beta), min=0.0, max=1.0)

    table = {
        "conv2d": lambda x, weight, bias=None, **attributes: functional.conv2d(x, weight, bias, **_tuples(attributes)),
        "conv_transpose2d": lambda x, weight, bias=None, **attributes: functional.conv_transpose2d(
            x, weight, bias, **_tuples(attributes)
        ),
        "linear": lambda x, weight, bias=None: functional.linear(x, weight, bias),
        "batch_norm": lambda x, weight, bias, mean, variance, eps: functional.batch_norm(
            x, mean, variance, weight, bias, False, 0.0, eps
        ),
        "pad": lambda x, pads, mode, value: functional.pad(
            x, tuple(pads), mode, **({} if mode != "constant" else {"value": value})
        ),
        "max_pool2d": pooled("max_pool2d"),
        "avg_pool2d": pooled("avg_pool2d"),
        "global_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, (1, 1)),
        "global_max_pool2d": lambda x: functional.adaptive_max_pool2d(x, (1, 1)),
        "relu": lambda x: functional.relu(x),
        "relu6": lambda x: functional.relu6(x),
        "clamp": lambda x, minimum, maximum: torch.clamp(x, min=minimum, max=maximum),
        "leaky_relu": lambda x, slope: functional.leaky_relu(x, slope),
        "elu": lambda x, alpha: functional.elu(x, alpha),
        "prelu": lambda x, slope: functional.prelu(x, slope.reshape(-1)),
        "softplus": lambda x: functional.softplus(x),
        "hard_sigmoid": hard_sigmoid,
        "hard_swish": lambda x: functional.hardswish(x),
        "softmax": lambda x, dim: functional.softmax(x, dim=dim),
        "log_softmax": lambda x, dim: functional.log_softmax(x, dim=dim),
        "reshape": lambda x, shape: x.reshape(tuple(shape)),
        "permute": lambda x, dims: x.permute(*dims),
        "concat": lambda *tensors, **attributes: torch.cat(list(tensors), dim=attributes["dim"]),
        "narrow": lambda x, dim, start, length: torch.narrow(x, dim, start, length),
        "mean": lambda x, dim, keepdim: torch.mean(x, dim=tuple(dim), keepdim=keepdim),
        "sum": lambda x, dim, keepdim: torch.sum(x, dim=tuple(dim), keepdim=keepdim),
        "as_type": lambda x, like: x.to(like.dtype),
    }  # type: Dict[str, Callable[..., Any]]
    table.update((name, unary(name)) for name in UNARY)
    table.update((name, binary(name)) for name in BINARY)
    return table


UNARY = ("sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg", "erf", "floor", "ceil", "reciprocal")
BINARY = ("add", "sub", "mul", "div", "matmul", "pow", "maximum", "minimum")


def outputs_of(graph):
    # type: (Dict[str, Any]) -> List[str]
    return list(graph["outputs"]) if "outputs" in graph else [graph["output"]]


def _tuples(attributes):
    # type: (Dict[str, Any]) -> Dict[str, Any]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}


def module(torch, graph, weights):
    # type: (Any, Dict[str, Any], Dict[str, Any]) -> Any
    """The ``torch.nn.Module`` of a graph, in evaluation mode; ``weights`` are NumPy arrays by name.

    Raises :class:`LoadError` for an operation that is not known here: the graph was written by a newer release.
    """
    known = operations(torch)
    unknown = sorted({step["operation"] for step in graph["steps"]} - set(known))
    if unknown:
        raise LoadError(
            "the stored graph has the operation %s, which this release of the agent does not know: convert the case again"
            % ", ".join(unknown)
        )
    plan, single = _plan(graph, known), "outputs" not in graph

    class Graph(torch.nn.Module):  # type: ignore[misc]
        def __init__(self):  # type: ignore[no-untyped-def]
            super().__init__()
            for name, array in weights.items():
                self.register_buffer(name, torch.from_numpy(array.copy()))

        def forward(self, x):  # type: ignore[no-untyped-def]
            values = dict(self._buffers)
            values[graph["input"]] = x
            for function, inputs, output, attributes, finished in plan:
                values[output] = function(*[values[name] for name in inputs], **attributes)
                for name in finished:
                    del values[name]
            return values[graph["output"]] if single else tuple(values[name] for name in graph["outputs"])

    return Graph().eval()  # type: ignore[no-untyped-call]


def _plan(graph, known):
    # type: (Dict[str, Any], Dict[str, Callable[..., Any]]) -> List[Tuple[Any, List[str], str, Dict[str, Any], List[str]]]
    """The steps with what can be forgotten after each: memory is held as long as it is needed, as in a network written by hand."""
    last = {}  # type: Dict[str, int]
    made = {graph["input"]} | {step["output"] for step in graph["steps"]}
    for number, step in enumerate(graph["steps"]):
        last.update((name, number) for name in step["inputs"] if name in made)
    for name in outputs_of(graph):
        last.pop(name, None)
    return [
        (
            known[step["operation"]],
            step["inputs"],
            step["output"],
            step["attributes"],
            [name for name, where in last.items() if where == number],
        )
        for number, step in enumerate(graph["steps"])
    ]
