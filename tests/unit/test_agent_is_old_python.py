"""The agent runs on boards whose Python is 3.6 and where nothing can be installed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import pytest_inference_gate
from pytest_inference_gate.agent_archive import build_agent_archive
from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.targets.interpreter import InterpreterTarget

AGENT = Path(pytest_inference_gate.__path__[0]) / "agent"
FILES = sorted(AGENT.rglob("*.py"))
# h5py comes with TensorFlow
RUNTIMES = {
    "numpy",
    "tensorflow",
    "ai_edge_litert",
    "tflite_runtime",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "h5py",
    "tensorrt",
    "pycuda",
    "torch",
    "torch2trt",
    "cv2",  # of streams alone
    "torchvision",
}
OLD_NAMES = ("python3.6", "python3.7", "python3.8", "python3.9")


def identify(path: Path) -> str:
    return str(path.relative_to(AGENT))


def test_there_are_files_to_look_at() -> None:
    assert {"__main__.py", "protocol.py", "serve.py", "measure.py", "probe.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_the_syntax_is_that_of_python_3_6(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_nothing_is_imported_but_the_standard_library_and_runtimes(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(AGENT).parts)
            assert node.level <= depth, f"line {node.lineno} imports from outside the agent"
            names = [node.module or ""] if node.level == 0 else []
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or top in RUNTIMES, f"line {node.lineno} imports {name}"


def test_vermin_finds_nothing_newer_than_python_3_6() -> None:
    program = shutil.which("vermin") or shutil.which("vermin", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("vermin is not installed")
    command = [program, "--target=3.6-", "--no-tips", "--violations", *map(str, FILES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def _version(program: str | Path) -> tuple[int, int] | None:
    command = [str(program), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        major, minor = result.stdout.split()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return int(major), int(minor)


@cache
def oldest_python() -> str | None:
    """The oldest Python from 3.6 to 3.9 of those on PATH and of pyenv's."""
    candidates = [Path(found) for name in OLD_NAMES if (found := shutil.which(name))]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += sorted(Path(root).glob("versions/3.*/bin/python3")) if root else []
    versions = {str(path): version for path in candidates if (version := _version(path)) and (3, 6) <= version < (3, 10)}
    return min(versions, key=lambda path: versions[path]) if versions else None


@pytest.fixture
def old_python() -> str:
    python = oldest_python()
    if python is None:
        pytest.skip("no Python from 3.6 to 3.9 on PATH or in pyenv")
    return python


def check_probe(agent: AgentProcess) -> None:
    assert agent.hello["protocol"] == 1
    probe = agent.probe()
    assert probe["python"] == agent.hello["python"]
    assert {"tensorflow", "tflite", "onnxruntime", "tensorrt", "tftrt"} <= set(probe["backends"])
    for backend in probe["backends"].values():
        assert backend["available"] or backend["reason"]
    assert probe["device"]["machine"]


def test_an_old_python_greets_and_probes(old_python: str, tmp_path: Path) -> None:
    with InterpreterTarget(old_python).start_agent(tmp_path / "log.txt", Limits()) as agent:
        assert agent.hello["python"].startswith("3.")
        check_probe(agent)


def test_an_old_python_greets_and_probes_from_an_archive(old_python: str, tmp_path: Path) -> None:
    archive = build_agent_archive(tmp_path / "agent.pyz")
    with AgentProcess([old_python, "-u", str(archive)], tmp_path / "log.txt", Limits(), environment={}) as agent:
        check_probe(agent)


def test_the_archive_greets_and_probes_with_this_python(tmp_path: Path) -> None:
    archive = build_agent_archive(tmp_path / "agent.pyz")
    with AgentProcess([sys.executable, "-u", "-I", str(archive)], tmp_path / "log.txt", Limits(), environment={}) as agent:
        check_probe(agent)


def test_equal_sources_give_equal_archives(tmp_path: Path) -> None:
    one, two = build_agent_archive(tmp_path / "one.pyz"), build_agent_archive(tmp_path / "two.pyz")
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pyz", "two.pyz"]
