"""What a whole run does to the process it runs in, and to the machine: read in a session of its own."""

import json
import os
import time
import uuid

import psutil

FRAMEWORKS = (
    "tensorflow",
    "torch",
    "onnxruntime",
    "tflite_runtime",
    "ai_edge_litert",
    "onnx",
    "scipy",
    "sklearn",
    "tensorrt",
    "pycuda",
)
MOST_MEMORY = 150  # MB

LOOK = """

def pytest_unconfigure(config):
    import json
    import sys
    from pathlib import Path

    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    found = {"modules": sorted(sys.modules), "peak_kb": int(peak.split()[1])}
    Path("process.json").write_text(json.dumps(found))
"""


def look_into(project, *arguments):
    """Run a session in a process of its own, and return what it had imported at its end, and its peak memory in MB."""
    conftest = project.path / "conftest.py"
    if LOOK not in conftest.read_text():
        conftest.write_text(conftest.read_text() + LOOK)
    result = project.run(*arguments, subprocess=True)
    found = json.loads((project.path / "process.json").read_text())
    return result, set(found["modules"]), found["peak_kb"] / 1024


def processes_of(token):
    found = psutil.process_iter(["environ"])
    return [one.pid for one in found if (one.info["environ"] or {}).get("GATE_TEST_RUN") == token and one.pid != os.getpid()]


def test_a_run_imports_no_framework_stays_small_and_leaves_no_process_behind(linear_project, monkeypatch):
    token = str(uuid.uuid4())
    monkeypatch.setenv("GATE_TEST_RUN", token)
    result, modules, peak = look_into(linear_project, "--gate-replicates=2", "--benchmark-save=before", "--gate-json=result.json")
    assert result.ret == 0
    assert [name for name in FRAMEWORKS if name in modules] == []
    assert peak < MOST_MEMORY
    deadline = time.monotonic() + 30
    while (left := processes_of(token)) and time.monotonic() < deadline:  # multiprocessing's own end a moment after the run
        time.sleep(0.1)
    assert left == []


def test_collecting_imports_nothing_heavy_where_no_test_asks_for_a_case(linear_project):
    for test in linear_project.path.glob("test_*.py"):
        test.unlink()
    (linear_project.path / "test_plain.py").write_text("def test_plain():\n    pass\n")
    result, modules, _ = look_into(linear_project, "--collect-only")
    assert result.ret == 0
    assert not modules & {"pydantic", "numpy", "PIL", "pooch", "pytest_inference_gate.gate_session"}
