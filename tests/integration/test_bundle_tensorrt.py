"""TensorRT's engines in a bundle, from a Keras checkpoint here to verdicts of a board out of reach. TensorRT itself is the double."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tensorrt_double import VERSIONS, Installation, compiler
from test_building_on_a_board import ONNX_CARD, Project
from test_bundle import Board, Bundles
from test_tensorrt_double import classifier

from pytest_inference_gate.accelerators import MARKERS, MarkerState
from pytest_inference_gate.artifacts import ArtifactStore

MISSING = [name for name in ("tensorflow", "tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
if not MISSING:
    importlib.import_module(
        "onnx"
    )  # sessions inside this process forget what they import, and it ends a process that imports it twice
pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler for the double of the driver's library"),
]


WIDE = "[tolerance]\nlatency = 9.0\n"  # what is measured here is this machine, which has other work


class Jetson(Board):
    """A folder that stands for the board, and a Python there that has the double of TensorRT."""

    def __init__(self, board: Board, site: Path, style: str = "10", **settings: str) -> None:
        self.__dict__.update(board.__dict__)
        installation = Installation(site, style)
        self.variables = {
            "PYTHONPATH": str(installation.directory),
            "LD_LIBRARY_PATH": str(installation.libraries),
            "DOUBLE_STYLE": style,
            **{f"DOUBLE_{name}": value for name, value in settings.items()},
        }

    def command(self, *options: str) -> list[str]:
        settings = [f"{name}={value}" for name, value in self.variables.items()]
        return ["env", "-i", *settings, sys.executable, *options, "b.zip"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, settled_machine: None) -> Project:
    present = {marker: MarkerState(marker, present=True) for marker in MARKERS}
    monkeypatch.setattr("pytest_inference_gate.agent_role.target_markers", lambda _: present)
    project = Project(pytester)
    card = project.path / "models" / "digits_cnn.toml"
    card.write_text(card.read_text().replace("[tolerance]\n", WIDE))
    return project


def cases(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {case["precision"]: case for case in document["cases"]}


def test_a_board_on_a_factory_floor_builds_its_engines(project: Project, tmp_path: Path) -> None:
    exported = Bundles(project).export("--replicates=3")
    with zipfile.ZipFile(exported.bundle) as archive:
        builds = {build["name"]: build["convert"] for build in json.loads(archive.read("plan.json"))["builds"]}
    assert [build["source"]["format"] for build in builds.values()] == ["onnx", "onnx"]  # the board may have no TensorFlow
    assert [build["calibration"] is not None for build in builds.values()] == [False, True]

    board = Jetson(exported, tmp_path / "jetpack-6")
    done = board.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "building 2 of 2: digits_cnn-tensorrt-int8-b1-cuda: building the engine\n" in done.stdout
    target = f"--gate-target=bundle:{board.results}"
    result, document = project.run(target, "--benchmark-save=before")
    assert result.ret == 0, result.stdout.str()
    assert [case["verdict"] for case in document["cases"]] == ["pass", "pass"]
    assert all(case["accuracy"]["top1"] > 0.97 and case["accuracy"]["reference_top1"] for case in document["cases"])
    assert all(case["coverage"]["found"]["accelerator"] == "tensorrt" for case in document["cases"])
    digests = {precision: case["artifact"]["digest"] for precision, case in cases(document).items()}
    (engine,) = (entry for entry in ArtifactStore(project.store).entries() if entry.digest == digests["int8"])
    assert {path.name for path in engine.payload.iterdir()} == {"model.engine", "engine.json", "timing.cache"}
    ingredients = engine.provenance["ingredients"]
    assert ingredients["intermediate"]["format"] == "onnx" and ingredients["source"]["format"] == "keras"
    assert (ingredients["converter"]["tensorrt"], ingredients["converter"]["sm"]) == (VERSIONS["10"], "8.7")
    assert engine.provenance["details"]["calibration_batches"] > 0

    result, document = project.run(target, "--benchmark-compare")
    assert result.ret == 0, result.stdout.str()
    assert {precision: case["artifact"]["cached"] for precision, case in cases(document).items()} == {"fp32": True, "int8": True}
    assert all(case["latency"]["verdict"] == "pass" for case in document["cases"])

    board.folder.rename(board.folder.with_name("before"))  # the board is upgraded, and the same bundle runs there again
    upgraded = Jetson(Board(board.folder, project.path / "b.zip"), tmp_path / "jetpack-7", "11")
    _, document = project.run(upgraded.measured(), "--benchmark-compare")
    assert all(case["outcome"]["kind"] == "ok" for case in document["cases"])
    assert not set(digests.values()) & {case["artifact"]["digest"] for case in document["cases"]}
    (notice,) = [notice for notice in document["notices"] if "built anew" in notice]
    assert f"tensorrt {VERSIONS['10']} -> {VERSIONS['11']}" in notice


@pytest.mark.parametrize(("fault", "kind", "words"), [("abort", "crash", "SIGABRT"), ("oom", "oom", "memory")])
def test_an_engine_that_cannot_be_built_there(project: Project, tmp_path: Path, fault: str, kind: str, words: str) -> None:
    """ONNX goes as it is, and without a timing cache, though the card wants to pin one: which device this will be is not known."""
    (project.path / "models" / "digits_cnn.toml").unlink()
    (project.path / "models" / "classifier.toml").write_text(ONNX_CARD + WIDE)
    classifier(project.path / "models" / "classifier.onnx", batch=1)
    exported = Bundles(project).export("--replicates=3")
    target = Jetson(exported, tmp_path / "site", FAULT=fault).measured()
    result, document = project.run(target)
    (case,) = document["cases"]
    assert (result.ret, case["verdict"], case["outcome"]["kind"], case["outcome"]["stage"]) == (1, "broken", kind, "convert")
    assert words in case["outcome"]["message"]

    other = exported.folder.with_name("other")
    target = Jetson(Board(other, exported.bundle), tmp_path / "other-site").measured()
    for arguments in (("--benchmark-save=before",), ("--benchmark-compare",)):  # the second time, its cache is kept here
        result, document = project.run(target, *arguments)
        assert result.ret == 0, result.stdout.str()
    assert {entry.kind for entry in ArtifactStore(project.store).entries()} >= {"artifact", "timing-cache"}
