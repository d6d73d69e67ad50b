"""The wheel: what is in it, and whether it works where there is nothing else."""

import importlib.util
import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pytest_inference_gate"
# What pip, and what builds with it, say where no index can be reached. Anything else is a fault of the wheel.
UNREACHABLE = (
    "Max retries exceeded",
    "NewConnectionError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProtocolError",
    "Connection reset",
    "IncompleteRead",
    "ProxyError",
    "Read timed out",
)


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


def need_index(done):
    """Fail, but for want of an index."""
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    if any(words in output for words in UNREACHABLE):
        pytest.skip("no package index can be reached from here")
    pytest.fail(output[-3000:], pytrace=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("build")
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    need_index(run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", directory, ROOT))
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with the wheel, what it depends upon, and nothing else."""
    directory = tmp_path_factory.mktemp("installed")
    venv.create(directory, symlinks=True, with_pip=importlib.util.find_spec("pip") is None)
    interpreter = directory / "bin" / "python"
    pip = (
        [sys.executable, "-m", "pip", "--python", interpreter] if importlib.util.find_spec("pip") else [interpreter, "-m", "pip"]
    )
    need_index(run(*pip, "install", "--quiet", wheel))
    return interpreter


def test_the_wheel_holds_all_that_runs_without_a_clone_and_no_litter(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    inside = {
        path.relative_to(ROOT / "plugins").as_posix()
        for path in (ROOT / "plugins" / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside <= names
    for needed in (
        "py.typed",
        "report/result.schema.json",
        "agent/__main__.py",
        "agent/backends/tflite.py",
        "suite/__init__.py",
        "suite/test_latency.py",
    ):
        assert f"{PACKAGE}/{needed}" in names
    cards = {path.name for path in (ROOT / "models").glob("*.toml")}
    assert cards and {f"{PACKAGE}/models/{card}" for card in cards} <= names
    assert f"{PACKAGE}/models/digits/evaluation.npz" in names
    assert f"{PACKAGE}/published_figures/figures.csv" in names
    assert all(name.startswith((f"{PACKAGE}/", f"{PACKAGE.replace('-', '_')}-")) for name in names)
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name or ".lock" in Path(name).suffix]
    assert "inference_gate = pytest_inference_gate.plugin" in entry_points
    for framework in ("tensorflow", "torch", "onnxruntime", "ai-edge-litert"):
        requirements = [line for line in metadata.splitlines() if line.startswith(f"Requires-Dist: {framework}")]
        assert all("extra ==" in line for line in requirements)


def test_the_installed_suite_finds_the_embedded_models_from_any_folder(python, tmp_path):
    found = run(python, "-c", "from pytest_inference_gate.matrix import embedded_models; print(embedded_models())", cwd=tmp_path)
    models = Path(found.stdout.strip())
    assert models.is_relative_to(python.parents[1]) and (models / "digits_cnn.toml").is_file()
    listed = run(python, "-m", "pytest", "--pyargs", f"{PACKAGE}.suite", "--collect-only", "-q", cwd=tmp_path)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "test_latency.py::test_latency[digits_cnn-tflite-int8-b1-t1]" in listed.stdout
    assert "zoo" not in listed.stdout
    everything = run(
        python, "-m", "pytest", "--pyargs", f"{PACKAGE}.suite", "--collect-only", "-q", "--gate-select=*", cwd=tmp_path
    )
    assert len(everything.stdout.splitlines()) > len(listed.stdout.splitlines())
    assert {path.name for path in tmp_path.iterdir()} <= {".pytest_cache", ".benchmarks"}  # not the gate's


def test_without_any_framework_the_installed_suite_says_what_is_missing_and_is_red(python, tmp_path):
    command = (
        python,
        "-m",
        "pytest",
        "--pyargs",
        f"{PACKAGE}.suite",
        "--gate-select=digits_cnn",
        "--gate-store=store",
        "--gate-json=result.json",
    )
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads((tmp_path / "result.json").read_text())
    assert {case["verdict"] for case in document["cases"]} == {"unsupported"}
    assert "none is supported on this machine, so nothing is gated" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_project_records_and_compares_with_the_installed_suite(python, linear_project):
    for test in linear_project.path.glob("test_*.py"):
        test.unlink()
    linear_project.overlook_other_load()
    command = (python, "-m", "pytest", "--pyargs", f"{PACKAGE}.suite", "-m", "cpu")
    recorded = run(*command, "--benchmark-save=before", cwd=linear_project.path)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert "2 passed" in recorded.stdout
    assert [path.name for path in linear_project.sessions()] == ["0001_before.json"]
    linear_project.scale_baseline(1 / 1000)
    compared = run(*command, "--benchmark-compare", cwd=linear_project.path)
    assert compared.returncode == 1
    assert "linear-linear-fp32-b1-t1 is slower" in compared.stdout
    assert "1 failed, 1 passed" in compared.stdout
