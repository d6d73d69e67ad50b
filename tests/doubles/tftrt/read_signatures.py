"""The signatures of TF-TRT's converters in a release of TensorFlow, read from its program text, which needs no TensorFlow that can be run.

``python read_signatures.py 2.11.0=.../tensorflow/python/compiler/tensorrt/trt_convert.py ... > signatures.json``; of TensorFlow 1.7 to 1.13
it is ``tensorflow/contrib/tensorrt/python/trt_convert.py``, and of 1.15 to 2.1 the package is ``tensorflow_core``.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

WANTED = {
    "TrtGraphConverter",
    "TrtGraphConverterV2",
    "TrtConversionParams",
    "create_inference_graph",
    "calib_graph_to_infer_graph",
}
METHODS = {"__init__", "convert", "build", "calibrate", "save", "summary"}
CONSTANTS = {"DEFAULT_TRT_CONVERSION_PARAMS", "DEFAULT_TRT_MAX_WORKSPACE_SIZE_BYTES", "_TRT_ENGINE_OP_NAME"}


def parameters(function: ast.FunctionDef) -> list[list[Any]]:
    """Names, and whether each has to be given."""
    names = [argument.arg for argument in function.args.args]
    required = len(names) - len(function.args.defaults)
    return [[name, index < required] for index, name in enumerate(names) if name not in ("self", "cls")]


def fields(node: ast.AST) -> list[str]:
    """Of the named tuple that is made in this piece of program text."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "namedtuple":
            return list(ast.literal_eval(call.args[1]))
    return []


def describe(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name in WANTED:
            found[node.name] = parameters(node)
        elif isinstance(node, ast.ClassDef) and (node.name in WANTED or node.name == "GraphConverter"):
            methods = {one.name: parameters(one) for one in node.body if isinstance(one, ast.FunctionDef) and one.name in METHODS}
            inherited = {
                key: value for base in node.bases if isinstance(base, ast.Name) for key, value in found.get(base.id, {}).items()
            }
            found[node.name] = fields(node) if node.name == "TrtConversionParams" else {**inherited, **methods}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name == "TrtConversionParams":
                found[name] = fields(node)
            elif name in CONSTANTS:
                found[name] = ast.literal_eval(node.value) if isinstance(node.value, ast.Constant) else "set"
        elif isinstance(node, ast.If):
            for one in ast.walk(node):
                if isinstance(one, ast.Name) and one.id in CONSTANTS:
                    found[one.id] = "set"
    found.pop("GraphConverter", None)
    return found


if __name__ == "__main__":
    releases = dict(argument.split("=", 1) for argument in sys.argv[1:])
    print(json.dumps({release: describe(Path(path)) for release, path in releases.items()}, indent=1, sort_keys=True))
