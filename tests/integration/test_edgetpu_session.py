"""Whole sessions on a machine with an Edge TPU: a baseline saved and compared, a compiler and a runtime that an upgrade made worse.

The Edge TPU, its runtime and its compiler are stand-ins; all else is real.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgetpu_double import Installation, c_compiler

MISSING = [name for name in ("tensorflow", "ai_edge_litert", "flatbuffers") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(c_compiler() is None, reason="no C compiler for the double of the Edge TPU's library"),
]

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "models"
TIMEOUT = 600
QUICK = ("--gate-rounds=20", "--gate-warm-up=0.005")


class EdgeProject:
    """The digits CNN with edgetpu cases alone, and a Python that stands for one on a machine with an Edge TPU."""

    def __init__(self, path):
        self.path = path
        self.machine = Installation(path / "machine")
        models = path / "models"
        shutil.copytree(MODELS / "digits", models / "digits", ignore=shutil.ignore_patterns("__pycache__"))
        lines, section = [], ""
        for line in (MODELS / "digits_cnn.toml").read_text().splitlines():
            section = line if line.startswith("[") else section
            if section not in ("[backends]", "[devices]") and not section.startswith(("[options", "[coverage")):
                lines.append(line)
                if line == "[tolerance]":
                    lines.append("latency = 9.0")
        self.card = models / "digits_cnn.toml"
        self.card.write_text("\n".join([*lines, "[backends]", 'edgetpu = ["int8", "full_int8"]', ""]))
        for test in (ROOT / "tests" / "gate").glob("test_*.py"):
            shutil.copy(test, path)
        (path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")

    def run(self, *arguments, marker="edgetpu", **settings):
        python = self.machine.interpreter(**settings)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", marker, "--gate-json=result.json", *QUICK]
        command += [f"--gate-run-with={python}", f"--gate-convert-with={python}", *arguments]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        output = done.stdout + done.stderr
        return done.returncode, output, self.cases()

    def cases(self):
        document = json.loads((self.path / "result.json").read_text())
        return {case["precision"]: case for case in document["cases"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    project = EdgeProject(tmp_path_factory.mktemp("edge"))
    status, output, _ = project.run("--benchmark-save=before")
    assert status == 0, output
    assert "saved 2 cases" in output
    return project


def test_the_cases_run_on_the_edge_tpu_and_are_compared(saved):
    status, output, cases = saved.run("--benchmark-compare")
    assert status == 0, output
    assert {case["id"] for case in cases.values()} == {"digits_cnn-edgetpu-int8-b1-t1", "digits_cnn-edgetpu-full_int8-b1-t1"}
    assert {case["verdict"] for case in cases.values()} <= {"pass", "faster"}, output
    assert all(case["accuracy"]["top1"] > 0.97 for case in cases.values())
    assert all(case["artifact"]["cached"] for case in cases.values())
    (session,) = (saved.path / "baselines").rglob("0001_before.json")
    assert "edgetpu-usb3" in session.parent.name


def test_one_edge_tpu_does_not_take_turns(saved):
    status, output, cases = saved.run(f"--gate-against={sys.executable}")
    assert status == 1, output
    assert {case["verdict"] for case in cases.values()} == {"unsupported"}
    told = " ".join(output.split())
    assert (
        "one Edge TPU cannot be opened by two stacks at once: record a baseline with the other stack by --benchmark-save=NAME"
        in told
    )


def test_a_runtime_that_is_too_old_for_the_model_is_broken(saved):
    status, output, cases = saved.run("--benchmark-compare", RUNTIME="13")
    assert status == 1, output
    assert {case["verdict"] for case in cases.values()} == {"broken"}
    assert {case["outcome"]["kind"] for case in cases.values()} == {"load_error"}
    assert "compiled for the Edge TPU runtime 14, and libedgetpu is runtime 13" in " ".join(output.split())


def test_a_compiler_update_that_no_longer_compiles_is_broken(saved):
    """As with DenseNet121 in 2019. The compiler's release is part of what an artifact is made of, so it is compiled anew."""
    status, output, cases = saved.run("--benchmark-compare", COMPILER="internal", VERSION="16.1.0")
    assert status == 1, output
    assert {case["verdict"] for case in cases.values()} == {"broken"}
    assert {case["outcome"]["kind"] for case in cases.values()} == {"build_error"}
    assert "failed twice with an internal error" in " ".join(output.split())


def test_a_device_that_was_unplugged_after_the_probe_is_broken(saved):
    status, output, cases = saved.run("--benchmark-compare", ATTACHED="")
    assert status == 1, output
    assert {case["outcome"]["kind"] for case in cases.values()} == {"load_error"}
    assert "opened no Edge TPU" in " ".join(output.split())


def test_without_an_edge_tpu_the_cases_are_skipped_with_the_reason(saved, tmp_path):
    elsewhere = EdgeProject(tmp_path)
    shutil.rmtree(elsewhere.machine.directory / "root" / "sys")
    status, output, cases = elsewhere.run()
    assert status != 0  # nothing was measured
    assert {case["verdict"] for case in cases.values()} == {"unsupported"}
    assert "no Coral Edge TPU is attached" in " ".join(output.split())


def test_without_a_compiler_the_reason_says_what_to_do(saved, tmp_path):
    bare = EdgeProject(tmp_path)
    (bare.machine.directory / "bin" / "edgetpu_compiler").unlink()
    _, output, cases = bare.run()
    assert {case["verdict"] for case in cases.values()} == {"unsupported"}
    words = " ".join(output.split())
    assert "has no converter from keras to edgetpu" in words
    assert "edgetpu_compiler is not on PATH here" in words


def test_a_card_with_a_compiled_model_needs_no_compiler_and_no_calibration(saved, tmp_path):
    """As on a board whose models come compiled, each with the log of its compilation beside it."""
    payload = next(path.parent for path in (saved.path / "store").rglob("model_edgetpu.tflite") if _is_int8(path))
    bare = EdgeProject(tmp_path)
    (bare.machine.directory / "bin" / "edgetpu_compiler").unlink()
    shutil.copy(payload / "model_edgetpu.tflite", bare.path / "models" / "digits_edgetpu.tflite")
    shutil.copy(payload / "operations.log", bare.path / "models" / "digits_edgetpu.log")
    text = bare.card.read_text()
    start, end = text.index("[checkpoint]"), text.index("[input]")
    text = text[:start] + '[checkpoint]\nformat = "tflite"\nfile = "digits_edgetpu.tflite"\n\n' + text[end:]
    start, end = text.index("[calibration]"), text.index("[tolerance]")
    bare.card.write_text((text[:start] + text[end:]).replace('["int8", "full_int8"]', '["int8"]'))
    status, output, cases = bare.run()
    assert status == 0, output
    assert cases["int8"]["verdict"] == "pass"
    assert cases["int8"]["accuracy"]["top1"] > 0.97


def test_a_compiler_update_that_maps_less_is_a_fallback(saved):
    status, output, cases = saved.run("--benchmark-compare", UNMAPPED="MEAN=Operation not supported", VERSION="16.2.0")
    assert status == 1, output
    assert {case["verdict"] for case in cases.values()} == {"fallback"}
    found = cases["full_int8"]["coverage"]["found"]
    assert (found["on_accelerator"], found["elsewhere"]) == (6, 3)
    words = " ".join(output.split())
    assert "6 of 9 operations (66.7%) run on edgetpu, 9 of 9 operations (100%) in the baseline" in words
    assert "edgetpu-compiler 16.0.384591198 -> 16.2.0" in words


def _is_int8(model):
    return json.loads((model.parent.parent / "provenance.json").read_text())["ingredients"]["precision"] == "int8"
