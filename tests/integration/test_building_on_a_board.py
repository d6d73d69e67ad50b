"""TensorRT on a board without TensorFlow: ONNX is made here, the engine there, and kept here. TensorRT itself is the double."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from ssh_server import LoopbackBoard
from tensorrt_double import Installation, compiler

from pytest_inference_gate.agent import cuda_device

MISSING = [name for name in ("tensorflow", "tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler for the double of the driver's library"),
]
ON_THE_BOARD = ("numpy", "onnx", "onnxruntime", "google", "ml_dtypes", "flatbuffers", "packaging", "typing_extensions")


class BoardWithTensorRT(LoopbackBoard):
    """Its Python has NumPy, the doubles and what those are made of, and nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.installation = Installation(folder / "site", "10")
        for name in ON_THE_BOARD:
            found = importlib.util.find_spec(name)
            if found is None:
                continue
            place = Path(next(iter(found.submodule_search_locations or []), found.origin))
            for path in (place, *place.parent.glob(f"{name}-*.dist-info"), *place.parent.glob(f"{name}.libs")):
                (self.installation.directory / path.name).symlink_to(path)

    def target(self, name: str, **settings: str) -> str:
        """The option that names the board with a device of those settings, such as ``SM="7.2"``."""
        environment = {
            "PYTHONPATH": str(self.installation.directory),
            "LD_LIBRARY_PATH": str(self.installation.libraries),
            "DOUBLE_STYLE": self.installation.style,
            **{f"DOUBLE_{key}": value for key, value in settings.items()},
        }
        words = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
        python = self.python(name, f'{words} exec {shlex.quote(sys.executable)} -S "$@"')
        return f"--gate-target={self.url}?python={python}"


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[BoardWithTensorRT]:
    with tempfile.TemporaryDirectory(prefix="board-") as folder:
        board = BoardWithTensorRT(Path(folder))
        board.start()
        monkeypatch.setenv("INFERENCE_GATE_SSH", board.environment["INFERENCE_GATE_SSH"])
        yield board
        board.stop()


CONFTEST = f"""
from pathlib import Path
from pytest_inference_gate.hookspecs import BackendExtension

def pytest_inference_gate_backends(config):
    module = Path({str(Path(cuda_device.__file__).parent / "backends" / "tensorrt.py")!r})
    return [BackendExtension("tensorrt", ("fp32", "fp16", "int8"), module)]
"""
CARD = """
name = "tiny"
checkpoint = { format = "seeded", seed = 3 }
input = { shape = [32, 32, 3] }
labels = { count = 4 }
calibration = { seed = 1, count = 8 }
backends = { tensorrt = ["fp32", "int8"] }

[checkpoint.architecture]
function = "keras.applications.MobileNet"
arguments = { alpha = 0.25, classes = 4 }
"""
