"""Which classes, members and signatures of TensorRT the agent uses, read from its program text.

The agent calls TensorRT's objects by the same names everywhere (``config`` is always an ``IBuilderConfig``), so a walk through the syntax
tree finds every use, and none can be forgotten here.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest_inference_gate

AGENT = Path(pytest_inference_gate.__path__[0]) / "agent"
FILES = (AGENT / "tensorrt_api.py", AGENT / "backends" / "tensorrt.py")

# Variables and attributes of ``self`` by the class of what they hold; ``trt`` is the module.
HOLDS = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "inspector": "EngineInspector",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime": "Runtime",
    "_trt": "",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
HOLDS_IN = {
    "parser_words": {"error": "ParserError"},
    "build": {"tensor": "ITensor"},
    "_profile": {"tensor": "ITensor"},
    "convert": {"engine": None, "cache": None},  # bytes
    "runtime": {"runtime": None},
}
RETURNS = {"get_layer": "ILayer"}


@dataclass(frozen=True)
class Use:
    """``kind``: ``call`` (with so many positional arguments), ``read``, ``write``, or ``override`` (with so many parameters)."""

    cls: str
    member: str
    kind: str
    arguments: int = 0

    @property
    def name(self) -> str:
        return f"{self.cls}.{self.member}" if self.member else self.cls


# Uses that are not written as an attribute: names that are looked up, methods that are kept and called later.
INDIRECT = {
    Use("BuilderFlag", "FP16", "read"),
    Use("BuilderFlag", "INT8", "read"),
    Use("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "read"),
    Use("NetworkDefinitionCreationFlag", "STRONGLY_TYPED", "read"),
    Use("ProfilingVerbosity", "DETAILED", "read"),
    Use("IExecutionContext", "execute_async_v3", "call", 1),
    Use("IExecutionContext", "execute_async_v2", "call", 2),
    Use("Builder", "__init__", "call", 1),
    Use("Runtime", "__init__", "call", 1),
}
# The double of IHostMemory is read by ``bytes``; what overrides them is called by TensorRT.
OVERRIDDEN = ("log", "get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache")


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: set[Use] = set()
        self._functions: list[str] = []
        self._called: set[int] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if isinstance(base, ast.Attribute) and self._class_of(base.value) == "":
                for member in node.body:
                    if isinstance(member, ast.FunctionDef) and member.name in OVERRIDDEN:
                        self.found.add(Use(base.attr, member.name, "override", len(member.args.args) - 1))
        self.generic_visit(node)

    def _class_of(self, node: ast.expr) -> str | None:
        """``""`` for the module, a class's name for one of its objects or itself, None for everything else."""
        if isinstance(node, ast.Name):
            for function in reversed(self._functions):
                if node.id in HOLDS_IN.get(function, {}):
                    return HOLDS_IN[function][node.id]
            return HOLDS.get(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return RETURNS.get(node.func.attr)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return HOLDS.get(node.attr)
            if self._class_of(node.value) == "":
                return node.attr  # trt.BuilderFlag
            owner = self._class_of(node.value)
            if owner and node.attr == "Severity":
                return f"{owner}.Severity"
        return None

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._called.add(id(node.func))
            owner = self._class_of(node.func.value)
            if owner == "":
                self.found.add(Use(node.func.attr, "__init__", "call", len(node.args)))
            elif owner is not None:
                count = len(node.args) - (node.func.attr == "__init__")  # trt.ILogger.__init__(self)
                self.found.add(Use(owner, node.func.attr, "call", count))
        elif isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr") and len(node.args) > 1:
            owner, name = self._class_of(node.args[0]), node.args[1]
            if owner is not None and isinstance(name, ast.Constant):
                self.found.add(Use(owner, name.value, "read") if owner else Use(name.value, "", "read"))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self._class_of(node.value)
        if owner and id(node) not in self._called and not node.attr.startswith("__"):
            self.found.add(Use(owner, node.attr, "write" if isinstance(node.ctx, ast.Store) else "read"))
        elif owner == "" and node.attr[:1].isupper():
            self.found.add(Use(node.attr, "", "read"))
        self.generic_visit(node)


def uses() -> set[Use]:
    finder = _Finder()
    for path in FILES:
        finder.visit(ast.parse(path.read_text(encoding="utf-8")))
    asked = {(use.cls, use.member) for use in finder.found if use.kind in ("call", "write")} | {
        (use.cls, use.member) for use in INDIRECT if use.kind == "call"
    }
    # A name that hasattr asks for, or a method that is kept, is a call where it is called.
    return {use for use in finder.found | INDIRECT if use.kind != "read" or (use.cls, use.member) not in asked}


# What not every release has: a name that the agent looks for before, and what else has to be there with it.
GROUPS = {
    "tensors by name": (
        "ICudaEngine.num_io_tensors",
        {
            "ICudaEngine.get_tensor_name",
            "ICudaEngine.get_tensor_mode",
            "ICudaEngine.get_tensor_dtype",
            "TensorIOMode",
            "TensorIOMode.INPUT",
            "IExecutionContext.set_input_shape",
            "IExecutionContext.get_tensor_shape",
            "IExecutionContext.set_tensor_address",
            "IExecutionContext.execute_async_v3",
        },
    ),
    "tensors by number": (
        "ICudaEngine.num_bindings",
        {
            "ICudaEngine.get_binding_name",
            "ICudaEngine.binding_is_input",
            "ICudaEngine.get_binding_dtype",
            "IExecutionContext.set_binding_shape",
            "IExecutionContext.get_binding_shape",
            "IExecutionContext.execute_async_v2",
        },
    ),
    "precision by flags": ("BuilderFlag.FP16", {"BuilderFlag.INT8"}),
    "calibrator": (
        "IInt8EntropyCalibrator2",
        {
            "IInt8EntropyCalibrator2.__init__",
            "IInt8EntropyCalibrator2.get_batch_size",
            "IInt8EntropyCalibrator2.get_batch",
            "IInt8EntropyCalibrator2.read_calibration_cache",
            "IInt8EntropyCalibrator2.write_calibration_cache",
            "IBuilderConfig.int8_calibrator",
            "IBuilderConfig.set_calibration_profile",
        },
    ),
    "explicit batch": ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", set()),
    "strongly typed": ("NetworkDefinitionCreationFlag.STRONGLY_TYPED", set()),
    "memory pools": ("IBuilderConfig.set_memory_pool_limit", {"MemoryPoolType", "MemoryPoolType.WORKSPACE"}),
    "workspace size": ("IBuilderConfig.max_workspace_size", set()),
    "node of an error": ("ParserError.node_operator", {"ParserError.node_name"}),
}
