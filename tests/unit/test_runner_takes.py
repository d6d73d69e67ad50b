"""What an agent gives a backend's runner: what every runner takes, and of device and options what its module names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_inference_gate.agent.failures import AgentError
from pytest_inference_gate.agent.serve import Session

MORE = {"device": "cuda", "options": {"workspace_bytes": 64}}


def load(tmp_path: Path, takes: tuple[str, ...] | None, **more: Any) -> dict[str, Any]:
    """The keyword arguments that a runner gets of a module with these ``RUNNER_TAKES``."""
    given: dict[str, Any] = {}

    def runner(*arguments: Any, **keywords: Any) -> Any:
        assert arguments == (str(tmp_path), "fp32", 2, 4, {"shape": [1]})
        given.update(keywords)
        return SimpleNamespace(inputs=[], outputs=[])

    module = SimpleNamespace(runtime=dict, Runner=runner, **({} if takes is None else {"RUNNER_TAKES": takes}))
    backends: Any = SimpleNamespace(get=lambda name: module)
    request = {"backend": "b", "model": str(tmp_path), "precision": "fp32", "threads": 2, "batch": 4, "input": {"shape": [1]}}
    Session(backends).load({**request, **more}, lambda text: None)
    return given


@pytest.mark.parametrize("takes", [None, (), ("device",), ("options",), ("device", "options")])
def test_a_runner_gets_what_its_module_names(tmp_path: Path, takes: tuple[str, ...] | None) -> None:
    assert load(tmp_path, takes, **MORE) == {name: MORE[name] for name in takes or ()}


def test_without_either_in_the_request_it_is_the_cpu_and_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, ("device", "options")) == {"device": "cpu", "options": {}}


def test_a_module_that_names_anything_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="RUNNER_TAKES names 'stream', and a runner can be given device, options and task"):
        load(tmp_path, ("stream",))
