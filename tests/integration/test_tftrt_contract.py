"""The double of TF-TRT, and what is recorded of its releases, held against the real program text and the real classes.

TensorFlow ships its converters' classes in every wheel, also where TensorRT is not compiled in: they cannot be used there, but looked at.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
FOLDER = TESTS / "doubles" / "tftrt"
RECORDED: dict[str, dict[str, Any]] = json.loads((FOLDER / "signatures.json").read_text())
DOUBLE = FOLDER / "site" / "tftrt_double"
# The modules of the double, the releases that they stand for, and the names by which a backend reaches for them.
STANDS_FOR = {
    "late.py": (["2.11.0", "2.16.2", "2.21.0"], "TrtGraphConverterV2"),
    "early.py": (["2.3.1", "2.4.1"], "TrtGraphConverterV2"),
    "graph.py": (["1.15.0", "2.1.0"], "TrtGraphConverter"),
    "contrib.py": (["1.13.1"], "create_inference_graph"),
}
CONVERTER = "tensorflow/python/compiler/tensorrt/trt_convert.py"
LOOK = """
import inspect, json, sys
from inference_gate_agent import tftrt_api
import tensorflow as tf
from tensorflow.python.compiler.tensorrt import trt_convert
print(json.dumps({
    "version": tf.__version__,
    "style": tftrt_api.style_of(tf, trt_convert),
    "converter": list(inspect.signature(trt_convert.TrtGraphConverterV2.__init__).parameters)[1:],
    "workspace": tftrt_api.default_workspace(tf, trt_convert),
    "operation": trt_convert._TRT_ENGINE_OP_NAME,
    "parameters": list(trt_convert.DEFAULT_TRT_CONVERSION_PARAMS._fields),
}))
"""


def reader() -> Any:
    specification = importlib.util.spec_from_file_location("read_signatures", FOLDER / "read_signatures.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def interpreters() -> list[tuple[str, Path]]:
    """Every Python at hand that has a real TensorFlow: this one, and those of other stacks that tox has made."""
    found = [("here", Path(sys.executable))] if importlib.util.find_spec("tensorflow") else []
    return found + [
        (path.parent.parent.name, path) for path in sorted(ROOT.glob(".tox/stack-tensorflow*/bin/python")) if path.exists()
    ]


def installed_release() -> str | None:
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


@pytest.mark.parametrize("name", STANDS_FOR)
def test_the_double_has_the_signatures_of_its_releases(name: str) -> None:
    """Parameter by parameter, in their order: a call that the double takes, the release takes."""
    double = reader().describe(DOUBLE / name)
    releases, wanted = STANDS_FOR[name]
    for release in releases:
        real = RECORDED[release]
        for what in double.keys() & real.keys():
            if isinstance(double[what], dict):
                for method, parameters in double[what].items():
                    assert parameters == real[what][method], f"{release}: {what}.{method}"
            elif what in ("TrtConversionParams", "create_inference_graph", "calib_graph_to_infer_graph"):
                assert double[what] == real[what], f"{release}: {what}"
        assert wanted in double


@pytest.mark.parametrize("name", ["late.py", "early.py"])
def test_the_double_has_no_method_that_its_releases_lack(name: str) -> None:
    double = reader().describe(DOUBLE / name)["TrtGraphConverterV2"]
    for release in STANDS_FOR[name][0]:
        assert set(double) == set(RECORDED[release]["TrtGraphConverterV2"])


def test_engines_have_the_same_name_in_every_release() -> None:
    from pytest_inference_gate.agent import tftrt_graph

    names = {
        release: described["_TRT_ENGINE_OP_NAME"] for release, described in RECORDED.items() if "_TRT_ENGINE_OP_NAME" in described
    }
    assert len(names) == len(RECORDED) - 1  # contrib writes it out each time
    assert set(names.values()) == {tftrt_graph.ENGINE_OPERATION}


@pytest.mark.parametrize(("name", "python"), interpreters(), ids=[name for name, _ in interpreters()])
def test_what_is_recorded_is_what_is_installed(name: str, python: Path) -> None:
    """And the adapter, looking at the real classes, takes the form that was expected."""
    agent = ROOT / "plugins" / "pytest_inference_gate" / "agent"
    start = (
        "import sys, types; package = types.ModuleType('inference_gate_agent'); "
        f"package.__path__ = [{str(agent)!r}]; sys.modules['inference_gate_agent'] = package\n"
    )
    done = subprocess.run([str(python), "-c", start + LOOK], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["style"] == "direct"
    assert told["operation"] == "TRTEngineOp"
    assert told["workspace"] == 1 << 30
    recorded = next((described for release, described in RECORDED.items() if release == told["version"]), None)
    if recorded is None:  # a later patch of a release: it has to be like one that is known
        recorded = RECORDED["2.16.2"]
    assert told["converter"] == [one for one, _ in recorded["TrtGraphConverterV2"]["__init__"]]
    assert told["parameters"] == recorded["TrtConversionParams"]


@pytest.mark.skipif(installed_release() is None, reason="not installed: tensorflow")
def test_program_text_and_classes_tell_the_same() -> None:
    specification = importlib.util.find_spec("tensorflow")
    assert specification is not None and specification.submodule_search_locations
    path = Path(specification.submodule_search_locations[0]).parent / CONVERTER
    described = reader().describe(path)
    release = installed_release()
    if release in RECORDED:
        assert described == RECORDED[release]
    assert described["TrtGraphConverterV2"]["build"] == [["input_fn", True]]


def test_the_double_is_nowhere_near_the_backend() -> None:
    """Nothing in the agent knows of the double or its variables."""
    for path in (ROOT / "plugins").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not any("DOUBLE_" in text or "tftrt_double" in text for text in texts), path
