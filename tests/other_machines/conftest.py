"""Where interpreters of other machines are kept, and the model that they are asked about."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from digits import Digits

FOLDER = "INFERENCE_GATE_OTHER_MACHINES"


@pytest.fixture(scope="session")
def kept() -> Path:
    """A folder for what is fetched; it stays, since fetching takes longer than the tests."""
    if FOLDER not in os.environ:
        pytest.skip(f"{FOLDER} names no folder for what has to be fetched: run it by tox run -e aarch64, or -e old_python")
    folder = Path(os.environ[FOLDER]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    missing = [name for name in ("tensorflow", "ai_edge_litert") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed here, where the model is converted: {', '.join(missing)}")
    return Digits(tmp_path_factory.mktemp("digits"))
