"""The main job on real runtimes: a session saved and compared, a slower model, a damaged one, a runtime that cannot load it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "models"
VARIANT = Path(__file__).parent / "make_variant.py"
TIMEOUT = 600
# What is looked for here is a factor, so that a few rounds will do.
QUICK = ("--gate-rounds=50", "--gate-warm-up=0.02", "--gate-replicates=3", "--gate-budget=3600")


class RealProject:
    """The embedded plain CNN as a project of its own, in TensorFlow Lite, fp32 and dynamic; tolerance wide enough for any machine."""

    def __init__(self, path):
        self.path = path
        models = path / "models"
        (models / "digits").mkdir(parents=True)
        self.checkpoint = models / "digits" / "digits_cnn.keras"
        for name in ("evaluation.npz", "calibration.npz"):
            shutil.copy(MODELS / "digits" / name, models / "digits")
        lines = []
        section = ""
        for line in (MODELS / "digits_cnn.toml").read_text().splitlines():
            section = line if line.startswith("[") else section
            if section in ("[backends]", "[devices]") or (section == "[checkpoint]" and line.startswith("sha256")):
                continue
            lines.append(line)
            if line == "[tolerance]":
                lines.append("latency = 4.0")
        (models / "digits_cnn.toml").write_text("\n".join([*lines, "[backends]", 'tflite = ["fp32", "dynamic"]', ""]))
        for test in (ROOT / "tests" / "gate").glob("test_*.py"):
            shutil.copy(test, path)
        (path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")

    def run(self, *arguments):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-m",
            "cpu",
            "--gate-json=result.json",
            *QUICK,
            *arguments,
        ]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=TIMEOUT)
        output = done.stdout + done.stderr
        document = json.loads((self.path / "result.json").read_text())
        return done.returncode, output, {case["precision"]: case for case in document["cases"]}

    def change_model(self, what):
        """Put a variant in the place of the model; each is made once, so that what is converted of it comes from the store again."""
        variant = self.path / f"{what}.keras"
        if not variant.exists():
            command = [sys.executable, str(VARIANT), what, str(MODELS / "digits" / "digits_cnn.keras"), str(variant)]
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
        shutil.copy(variant, self.checkpoint)


@pytest.fixture(scope="module")
def saved_project(tmp_path_factory):
    project = RealProject(tmp_path_factory.mktemp("real"))
    project.change_model("dense")
    status, output, _ = project.run("--benchmark-save=before")
    assert status == 0, output
    assert "saved 2 cases" in output
    return project


@pytest.fixture
def project(saved_project):
    yield saved_project
    saved_project.change_model("dense")


def test_the_same_again_is_green_and_converts_nothing(project):
    status, output, cases = project.run("--benchmark-compare")
    assert status == 0, output
    assert {case["verdict"] for case in cases.values()} <= {"pass", "faster"}
    assert all(case["artifact"]["cached"] for case in cases.values())
    assert all(case["accuracy"]["top1"] > 0.97 for case in cases.values())
    assert "may ship" in output


def test_a_slower_model_is_slower(project):
    project.change_model("slower")
    status, output, cases = project.run("--benchmark-compare", "--gate-select=*-fp32-*")
    assert status == 1, output
    # Where other programs are at work at that moment, the gate rightly takes it back.
    assert {case["verdict"] for case in cases.values()} <= {"slower", "invalid"}, output
    assert cases["fp32"]["latency"]["ratio"] > 5
    assert cases["fp32"]["accuracy"]["verdict"] == "pass"


def test_a_damaged_model_is_inaccurate(project):
    project.change_model("damaged")
    status, output, cases = project.run("--benchmark-compare")
    assert status == 1, output
    assert {case["verdict"] for case in cases.values()} == {"inaccurate"}


def test_a_runtime_that_does_not_know_an_operation_is_broken(project, old_runtime):
    status, output, cases = project.run("--benchmark-compare", f"--gate-run-with={old_runtime}")
    assert status == 1, output
    assert cases["dynamic"]["verdict"] == "broken"
    assert cases["dynamic"]["outcome"]["kind"] == "load_error"
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version" in output
    # What the old runtime can run is measured on it.
    assert cases["fp32"]["verdict"] in ("pass", "faster", "slower")
    assert "tflite-runtime none -> 2.14.0" in output


def test_an_old_runtime_takes_turns_and_what_it_cannot_load_is_fixed(project, old_runtime):
    _, output, cases = project.run(f"--gate-against={old_runtime}")
    assert cases["dynamic"]["verdict"] == "fixed", output
    assert cases["dynamic"]["latency"]["median"] > 0
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version" in output
    assert cases["fp32"]["verdict"] in ("pass", "faster", "slower")
    assert len(cases["fp32"]["latency"]["pair_ratios"]) >= 3
    assert "both stacks run what the one that has it makes" in " ".join(output.split())


@pytest.fixture(scope="module")
def old_runtime(tmp_path_factory):
    """An environment with tflite-runtime 2.14 and NumPy 1, which has wheels for Python up to 3.11."""
    python = next((found for name in ("python3.11", "python3.10", "python3.9") if (found := _working(name))), None)
    if python is None:
        pytest.skip("no Python 3.9 to 3.11 here, which tflite-runtime 2.14 needs")
    environment = tmp_path_factory.mktemp("old") / "env"
    subprocess.run([python, "-m", "venv", str(environment)], check=True, timeout=TIMEOUT)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", "tflite-runtime==2.14.0", "numpy<2"]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        pytest.skip(f"tflite-runtime 2.14 cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return environment / "bin" / "python"


def _working(name):
    """The interpreter of that name, if it really starts: version managers put commands on PATH that do not."""
    if sys.version_info[:2] == tuple(int(part) for part in name.removeprefix("python").split(".")):
        return sys.executable
    found = shutil.which(name)
    if found is None:
        return None
    done = subprocess.run([found, "-c", "import ensurepip"], capture_output=True, timeout=60)
    return found if done.returncode == 0 else None


def test_two_real_stacks_take_turns(project):
    status, output, cases = project.run(f"--gate-against={sys.executable}")
    assert status == 0, output
    for case in cases.values():
        assert case["verdict"] in ("pass", "faster")
        assert len(case["latency"]["pair_ratios"]) >= 3
        assert case["accuracy"]["agreement"] == 1.0  # the same runtime, the same model
    assert "do not differ in any recorded software" in " ".join(output.split())


def test_a_slower_model_is_slower_than_the_old_one_in_turns(project):
    old = project.path / "old"
    shutil.copytree(project.path / "models", old)
    project.change_model("slower")
    status, output, cases = project.run(
        f"--gate-against-models={old}", "--gate-tolerance=100%", "--gate-select=*-fp32-*", "-k", "latency"
    )
    assert status == 1, output
    assert {case["verdict"] for case in cases.values()} == {"slower"}, output
    assert all(case["latency"]["ratio"] > 2 for case in cases.values())
    assert "the other models" in output
