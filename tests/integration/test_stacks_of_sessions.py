"""Sessions that were really saved with different stacks, and what ``inference-gate baseline axes`` makes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OLD_RUNTIME = ROOT / ".tox" / "stack-tflite_runtime_2_14" / "bin" / "python"
QUICK = ("--gate-replicates=2", "--gate-rounds=5", "--gate-warm-up=0.005", "-p", "no:cacheprovider", "-m", "cpu")
TIMEOUT = 600


@pytest.mark.skipif(not OLD_RUNTIME.exists(), reason="tox run -e stack-tflite_runtime_2_14 --notest makes the older runtime")
def test_a_runtime_is_an_axis_of_its_own(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models" / "digits", models / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "models" / "digits_inverted_residual.toml", models)
    shutil.copy(ROOT / "tests" / "gate" / "test_latency.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    cases = ("--gate-select=*-tflite-fp32-*", "--gate-select=*-tflite-dynamic-*")
    for name, stack in (("new", ()), ("old", (f"--gate-run-with={OLD_RUNTIME}",))):
        done = run("pytest", *QUICK, *cases, *stack, f"--benchmark-save={name}")
        assert f"0001_{name}" in done.stdout or f"0002_{name}" in done.stdout, done.stdout + done.stderr
    told = json.loads(run("pytest_inference_gate", "baseline", "axes", "--json").stdout)
    assert [stack["names"] for stack in told["stacks"]] == [["new"], ["old"]]
    (step,) = told["steps"]
    assert (step["axis"], told["confounded"]) == ("framework", [])
    assert {"name": "tflite-runtime", "before": None, "after": "2.14.0"} in step["changes"]
    measured, broken = step["cases"]
    assert (measured["id"], measured["ratio"] > 0) == ("digits_inverted_residual-tflite-fp32-b1-t1", True)
    assert (broken["verdict"], broken["failure_after"]["kind"]) == ("broken", "load_error")

    # Several stacks in one baseline are told.
    mixed = run("pytest", *QUICK, *cases[:1], "--benchmark-compare")
    assert "are of 2 stacks: new (" in " ".join(mixed.stdout.split())
