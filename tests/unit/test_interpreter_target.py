"""Which Python an agent gets, and with which environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_inference_gate.targets.interpreter import InterpreterTarget


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A virtual environment whose Python is a link to this one's."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def test_by_default_it_is_this_interpreter() -> None:
    target = InterpreterTarget()
    assert target.is_own
    assert target.command[0] == os.path.abspath(sys.executable)
    assert target.name == "this interpreter"


def test_a_link_to_this_interpreter_is_another_one_and_is_not_followed(other: Path) -> None:
    target = InterpreterTarget(other)
    assert not target.is_own
    assert target.command[0] == target.name == str(other)


def test_the_directory_of_an_environment_stands_for_its_python(other: Path) -> None:
    assert InterpreterTarget(other.parent.parent).python == str(other)


def test_a_name_is_looked_for_on_the_path(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other.rename(other.with_name("python-of-test"))
    monkeypatch.setenv("PATH", str(other.parent))
    assert InterpreterTarget("python-of-test").python == str(other.with_name("python-of-test"))
    assert InterpreterTarget("python-of-nobody").python == "python-of-nobody"


def test_a_relative_path_stays_valid_elsewhere(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(other.parent)
    assert InterpreterTarget("./python").python == str(other)


def test_another_interpreter_does_not_get_this_ones_module_paths(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/of/this/interpreter")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    own, others = InterpreterTarget().environment(), InterpreterTarget(other).environment()
    assert own["PYTHONPATH"] == "/of/this/interpreter"
    assert not {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(others)
    assert others["CUDA_VISIBLE_DEVICES"] == own["CUDA_VISIBLE_DEVICES"] == "1"
    assert others["PATH"] == os.environ["PATH"]


def test_keys_tell_targets_apart(other: Path) -> None:
    targets = [InterpreterTarget(), InterpreterTarget(other), InterpreterTarget(extra_backends={"a": Path("/a.py")})]
    assert len({target.key for target in targets}) == 3
    assert InterpreterTarget().key == targets[0].key
