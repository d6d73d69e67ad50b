"""TensorRT on a board without TensorFlow: ONNX is made here, the engine there, and kept here. TensorRT itself is the double."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_server import LoopbackBoard
from tensorrt_double import VERSIONS, Installation, compiler
from test_tensorrt_double import classifier

from pytest_inference_gate.accelerators import MARKERS, MarkerState
from pytest_inference_gate.artifacts import ArtifactStore
from pytest_inference_gate.matrix import embedded_models

SUITE = Path(__file__).parent.parent / "gate"

MISSING = [name for name in ("tensorflow", "tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.double,
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
    with tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True) as folder:
        board = BoardWithTensorRT(Path(folder))
        board.start()
        monkeypatch.setenv("INFERENCE_GATE_SSH", board.environment["INFERENCE_GATE_SSH"])
        yield board
        board.stop()


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    present = {marker: MarkerState(marker, present=True) for marker in MARKERS}
    monkeypatch.setattr("pytest_inference_gate.agent_role.target_markers", lambda _: present)
    return Project(pytester)


class Project:
    """The embedded model for digits, on TensorRT alone."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.path = pytester.path
        self.store = self.path / "store"
        card = (embedded_models() / "digits_cnn.toml").read_text().partition("[backends]")[0]
        (self.path / "models").mkdir()
        (self.path / "models" / "digits").symlink_to(embedded_models() / "digits")
        (self.path / "models" / "digits_cnn.toml").write_text(
            f'{card}\n[backends]\ntensorrt = ["fp32", "int8"]\n[devices]\ntensorrt = ["cuda"]\n'
        )
        for test in SUITE.glob("test_*.py"):
            shutil.copy(test, self.path)
        settings = "gate_models = models\ngate_store = store\naddopts = -p no:cacheprovider --gate-rounds=20 --gate-warm-up=0.005"
        (self.path / "pytest.ini").write_text(f"[pytest]\n{settings}\n")

    def run(self, *arguments: str) -> tuple[pytest.RunResult, dict[str, Any]]:
        result = self._pytester.runpytest_inprocess("--gate-replicates=2", "--gate-json=result.json", *arguments)
        return result, json.loads((self.path / "result.json").read_text())


def engines(document: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    return {case["precision"]: (case["artifact"]["digest"], case["artifact"]["cached"]) for case in document["cases"]}


def test_engines_are_built_on_the_board_of_what_is_made_here(project: Project, board: BoardWithTensorRT) -> None:
    result, document = project.run(board.target("orin"))
    assert result.ret == 0, result.stdout.str()
    assert [(case["verdict"], case["id"]) for case in document["cases"]] == [
        ("pass", f"digits_cnn-tensorrt-{precision}-b1-t1-cuda") for precision in ("fp32", "int8")
    ]
    assert all(case["accuracy"]["top1"] > 0.97 and case["accuracy"]["reference_top1"] for case in document["cases"])
    printed = result.stdout.str() + result.stderr.str()
    assert "converting digits_cnn-onnxruntime-fp32-b1\n" in printed  # once, for both
    assert printed.count("converting digits_cnn-onnxruntime-fp32-b1\n") == 1
    assert f"converting digits_cnn-tensorrt-int8-b1-cuda from onnx on {board.url}" in printed
    built = engines(document)
    assert {cached for _, cached in built.values()} == {False}
    store = ArtifactStore(project.store)
    (engine,) = (entry for entry in store.entries() if entry.digest == built["int8"][0])
    assert {path.name for path in engine.payload.iterdir()} == {"model.engine", "engine.json", "timing.cache"}
    ingredients = engine.provenance["ingredients"]
    assert ingredients["intermediate"]["format"] == "onnx" and ingredients["source"]["format"] == "keras"
    assert (ingredients["converter"]["tensorrt"], ingredients["converter"]["sm"]) == (VERSIONS["10"], "8.7")
    assert not any("built anew" in notice for notice in document["notices"])

    _, document = project.run(board.target("orin"))
    assert engines(document) == {precision: (digest, True) for precision, (digest, _) in built.items()}

    result, document = project.run(board.target("xavier", SM="7.2", GPU="Xavier"), "--gate-select=*-fp32-*")
    assert result.ret == 0
    assert engines(document)["fp32"][1] is False
    (notice,) = [notice for notice in document["notices"] if "built anew" in notice]
    assert notice.startswith(
        f"the engine of digits_cnn-tensorrt-fp32-b1-cuda in the store was built by TensorRT {VERSIONS['10']} for SM 8.7"
    )
    assert "sm 8.7 -> 7.2" in notice


def test_what_can_be_made_neither_there_nor_here_is_told(project: Project, board: BoardWithTensorRT) -> None:
    target = board.target("orin")
    bare = board.programs / "orin"  # no TensorFlow either
    result, document = project.run(target, f"--gate-convert-with={bare}", "--gate-select=*-fp32-*")
    assert result.ret == 1
    (case,) = document["cases"]
    assert (case["verdict"], case["outcome"]["stage"]) == ("unsupported", "convert")
    assert case["reason"] == (
        f"{board.url}?python={bare} builds no tensorrt from keras, but from onnx, which cannot be made of it: {bare} has no converter"
        " from keras to onnxruntime; install TensorFlow, tf2onnx and onnx where models are converted, or name another Python with"
        " --gate-convert-with"
    )


ONNX_CARD = """
name = "classifier"
checkpoint = { format = "onnx", file = "classifier.onnx" }
input = { shape = [8, 8, 3] }
labels = { count = 5 }
backends = { tensorrt = ["fp32"] }
devices = { tensorrt = ["cuda"] }
options = { tensorrt = { timing_cache = true } }
"""


def test_a_build_continues_from_the_timing_cache_of_the_one_before(project: Project, board: BoardWithTensorRT) -> None:
    """ONNX goes to the board as it is, and so does the cache that an earlier build has left in the store."""
    (project.path / "models" / "digits_cnn.toml").unlink()
    (project.path / "models" / "classifier.toml").write_text(ONNX_CARD)
    classifier(project.path / "models" / "classifier.onnx", batch=1)
    result, document = project.run(board.target("orin"), "--gate-rebuilds=2")
    assert result.ret == 0, result.stdout.str()
    assert document["cases"][0]["accuracy"]["agreement"] == 1
    engines = [entry for entry in ArtifactStore(project.store).entries() if (entry.payload / "model.engine").exists()]
    assert [engine.provenance["ingredients"].get("build", 0) for engine in engines] == [0, 1]
    assert not any("intermediate" in engine.provenance["ingredients"] for engine in engines)
    first, second = (engine.provenance["details"]["timing_cache"] for engine in engines)
    assert (first["start"], first["continued_from"]) == ("started", None)
    assert (second["start"], second["continued_from"]) == ("continued", first["sha256"])
