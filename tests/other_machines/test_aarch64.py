"""The agent on another instruction set, emulated: does it work there? Nothing here is about time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aarch64_machine import PROCESSORS, Aarch64Python, prepare
from digits import PRECISIONS, Digits
from wheels import CannotPrepare

from pytest_inference_gate.agent_archive import build_agent_archive
from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.targets.interpreter import InterpreterTarget

ROOT = Path(__file__).resolve().parents[2]
MISBEHAVING = ROOT / "tests" / "integration" / "backends" / "misbehaving.py"
LIMITS = Limits({"start": 120.0, "probe": 120.0})

Start = Callable[..., AgentProcess]


@pytest.fixture(scope="session")
def python(kept: Path) -> Callable[[str, str], Aarch64Python]:
    def find(processor: str, runtime: str) -> Aarch64Python:
        try:
            return prepare(kept, processor, runtime)
        except CannotPrepare as reason:
            pytest.skip(str(reason))

    return find


@pytest.fixture
def start(python: Callable[[str, str], Aarch64Python], tmp_path: Path) -> Iterator[Start]:
    """``start(runtime, processor)``: an agent from the packed archive, as it is sent to a board."""
    archive = build_agent_archive(tmp_path / "agent.pyz")
    agents = []

    def begin(runtime: str = "ai_edge_litert", processor: str = "cortex-a57", *arguments: str) -> AgentProcess:
        found = python(processor, runtime)
        agents.append(AgentProcess([str(found.path), "-u", str(archive), *arguments], tmp_path / "agent.log", LIMITS))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.close()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_agent_greets_and_probes(start: Start, processor: str) -> None:
    agent = start("ai_edge_litert", processor)
    probe = agent.probe()
    assert probe["python"] == agent.hello["python"]
    assert probe["python"].startswith("3.11.")
    assert probe["machine"] == "aarch64"
    # The kernel is this machine's own, so that no timing can be taken for a board's.
    assert re.fullmatch(r"aarch64( emulated on x86_64)?", probe["device"]["machine"])
    assert {core["part"] for core in probe["device"]["cpu"]["cores"]} == {PROCESSORS[processor]}
    assert probe["backends"]["tflite"]["runtime"] == {"name": "ai_edge_litert", "version": "2.3.0"}
    assert not probe["backends"]["onnxruntime"]["can_run"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("runtime", "processor"),
    [("ai_edge_litert", "cortex-a57"), ("ai_edge_litert", "cortex-a76"), ("tflite_runtime", "cortex-a72")],
)
def test_a_model_answers_there_as_it_does_here(
    start: Start, digits: Digits, runtime: str, processor: str, precision: str
) -> None:
    digits.check_runs(start(runtime, processor), "tflite", precision, digits.model("tflite", precision))


def test_a_runtime_that_is_missing_is_unsupported(start: Start, digits: Digits) -> None:
    agent = start("none")
    with pytest.raises(StageFailed) as failure:
        digits.load(agent, "tflite", "fp32", digits.model("tflite", "fp32"))
    assert (failure.value.outcome.kind, failure.value.outcome.stage) == ("unsupported", "load")
    assert failure.value.outcome.message == "none of ai-edge-litert, tflite-runtime and TensorFlow is installed here"
    assert agent.probe()["machine"] == "aarch64"  # and goes on


def test_a_file_that_is_no_model_is_a_load_error(start: Start, digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no model")
    agent = start()
    with pytest.raises(StageFailed) as failure:
        digits.load(agent, "tflite", "fp32", tmp_path / "model.tflite")
    assert (failure.value.outcome.kind, failure.value.outcome.stage) == ("load_error", "load")


def test_a_crash_is_told_by_its_signal(start: Start, digits: Digits, tmp_path: Path) -> None:
    agent = start("none", "cortex-a57", "--backend", f"misbehaving={MISBEHAVING}")
    with pytest.raises(StageFailed) as failure:
        agent.convert(
            {
                **{
                    "backend": "misbehaving",
                    "precision": "fp32",
                    "batch": 1,
                    "source": {"format": "segmentation_fault"},
                    "input": {},
                },
                **{"calibration": None, "output_directory": str(tmp_path), "device": "cpu", "options": {}},
            }
        )
    assert (failure.value.outcome.kind, failure.value.outcome.signal) == ("crash", "SIGSEGV")


def test_the_gate_runs_its_cases_there(python: Callable[[str, str], Aarch64Python], digits: Digits, tmp_path: Path) -> None:
    """A whole session: converted here, evaluated and measured there, on all 597 pictures."""
    program = python("cortex-a76", "ai_edge_litert").path
    result = tmp_path / "result.json"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "cpu",
        "--gate-select=digits_cnn-tflite-int8-*",
        f"--gate-run-with={program}",
    ]
    command += [
        "--gate-replicates=1",
        "--gate-rounds=3",
        "--gate-warm-up=0.001",
        f"--gate-json={result}",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--gate-store={tmp_path / 'store'}", str(ROOT / "tests" / "gate")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    document = json.loads(result.read_text())
    (case,) = document["cases"]
    assert document["device"]["id"].startswith("cortex-a76-")
    assert case["verdict"] == "pass"
    assert case["accuracy"]["agreement"] > 0.98
    software = document["device"]["software"]
    assert software["ai-edge-litert"] == "2.3.0"
    # The package is called tensorflow or tensorflow-cpu.
    assert any(name.startswith("converter:tensorflow") for name in software)


def test_the_interpreter_is_found_like_any_other(python: Callable[[str, str], Aarch64Python], tmp_path: Path) -> None:
    with InterpreterTarget(python("cortex-a57", "none").path).start_agent(tmp_path / "log.txt", LIMITS) as agent:
        assert agent.probe()["machine"] == "aarch64"
