"""Saved sessions are files that pytest-benchmark itself reads, and its files are accepted here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pytest_inference_gate.baselines import read_session, read_sessions, save_session

SUITE = """
import pytest

@pytest.mark.parametrize("case", ["a", "b"])
def test_latency(benchmark, case):
    benchmark.extra_info["inference_gate"] = {"schema": "inference-gate-case/1", "id": case, "replicates": [0.001, 0.0011]}
    benchmark.pedantic(lambda: None, rounds=5)

def test_of_other_people(benchmark):
    benchmark.pedantic(lambda: None, rounds=5)
"""


def run(*command: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def record(directory: Path) -> dict[str, object]:
    (directory / "test_suite.py").write_text(SUITE)
    (directory / "pytest.ini").write_text("[pytest]\n")
    run(
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:inference_gate",
        "--benchmark-json=out.json",
        "test_suite.py",
        directory=directory,
    )
    document: dict[str, object] = json.loads((directory / "out.json").read_text())
    return document


def test_pytest_benchmark_compares_what_was_saved(tmp_path: Path) -> None:
    document = record(tmp_path)
    document["inference_gate"] = {
        "schema": "inference-gate-session/1",
        "device": {"id": "d", "identity": {}},
        "software": {},
        "broken": [],
    }
    device = tmp_path / "baselines" / "device"
    saved = [save_session(device, name, document) for name in ("before", "after")]

    # As a storage of its own, as one of several devices, and by the path of a file.
    for storage, arguments in (
        (device, ("0001", "0002")),
        (device, ("*",)),
        (device.parent, ("device/0001", "device/0002")),
        (tmp_path, tuple(map(str, saved))),
    ):
        shown = run("pytest_benchmark", "--storage", f"file://{storage}", "compare", *arguments, directory=tmp_path)
        for name in ("test_latency[a]", "test_latency[b]", "test_of_other_people"):
            assert shown.count(name) >= 2, shown
        assert "before" in shown
        assert "after" in shown

    listed = run("pytest_benchmark", "--storage", f"file://{device}", "list", directory=tmp_path)
    assert listed.count(".json") == 2


def test_pytest_benchmark_and_the_gate_count_in_the_same_directory(tmp_path: Path) -> None:
    document = record(tmp_path)
    device = tmp_path / "baselines"
    save_session(device, "mine", document)
    run(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:inference_gate", f"--benchmark-storage=file://{device}",
        "--benchmark-save=theirs",
        "--benchmark-compare=0001", "test_suite.py", directory=tmp_path,
    )  # fmt: skip
    (theirs,) = device.rglob("0002_theirs.json")
    session = read_session(theirs)
    assert set(session.cases) == {"a", "b"}
    assert session.device_id is None
    assert session.cases["a"].replicates == (0.001, 0.0011)
    assert [found.name for found in read_sessions(device, str(theirs))] == ["theirs"]
