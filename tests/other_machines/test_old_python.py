"""The agent on the Pythons of old boards, with the runtimes of their time: models converted today run there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from digits import PRECISIONS, Digits
from old_pythons import RUNTIMES, VERSIONS, find, with_runtime
from wheels import CannotPrepare

import pytest_inference_gate
from pytest_inference_gate.agent_archive import build_agent_archive
from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed

AGENT = Path(pytest_inference_gate.__path__[0]) / "agent"

Start = Callable[..., AgentProcess]


def found(look: Callable[[], Path]) -> Path:
    try:
        return look()
    except CannotPrepare as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> Path:
    """An old Python with nothing installed."""
    return found(lambda: find(request.param))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start(python)``: an agent from the packed archive, as it is sent to a board."""
    archive = build_agent_archive(tmp_path / "agent.pyz")
    agents = []

    def begin(program: Path, *arguments: str) -> AgentProcess:
        command = [str(program), "-u", "-X", "faulthandler", str(archive), *arguments]
        agents.append(AgentProcess(command, tmp_path / "agent.log", Limits()))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.close()


# With nothing installed


def test_an_agent_greets_probes_and_refuses_what_it_lacks(python: Path, start: Start, tmp_path: Path) -> None:
    agent = start(python)
    probe = agent.probe()
    assert probe["python"] == agent.hello["python"]
    assert probe["device"]["machine"]
    assert {name for name, backend in probe["backends"].items() if backend["can_run"]} == set()
    assert all(backend["reason"] for backend in probe["backends"].values())
    model = tmp_path / "model.tflite"
    model.write_bytes(b"no model")
    for backend in sorted(set(probe["backends"]) & {"tflite", "onnxruntime", "tensorflow", "tensorrt"}):
        with pytest.raises(StageFailed) as failure:
            agent.load(
                {
                    **{"backend": backend, "precision": "fp32", "model": str(model), "threads": 1, "batch": 1},
                    **{"input": {"shape": [1], "dtype": "float32"}, "device": "cpu", "options": {}},
                }
            )
        assert (failure.value.outcome.kind, failure.value.outcome.stage) == ("unsupported", "load"), backend
        assert "installed" in failure.value.outcome.message
    assert agent.canary()["compute"] > 0


def test_the_agent_ends_with_its_client(python: Path, tmp_path: Path) -> None:
    """What a connection that is lost leaves behind: nothing."""
    archive = build_agent_archive(tmp_path / "agent.pyz")
    agent = subprocess.Popen([python, "-u", archive, "--guard"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert agent.stdin is not None
    assert agent.stdout is not None
    assert agent.stdout.read(1)  # it greets
    session = [psutil.Process(agent.pid), *psutil.Process(agent.pid).children()]
    assert len(session) == 2
    agent.stdin.close()
    deadline = time.monotonic() + 20
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in session):
        assert time.monotonic() < deadline, "the agent or its guard goes on"
        time.sleep(0.05)
    agent.stdout.close()
    agent.wait(10)


def test_power_and_temperatures_are_sampled_or_the_reason_is_told(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sys" / "class" / "hwmon" / "hwmon0"
    folder.mkdir(parents=True)
    for name, content in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "800"}.items():
        (folder / name).write_text(f"{content}\n")
    archive = build_agent_archive(tmp_path / "agent.pyz")
    command = [python, "-I", "-S", archive, "--sample-telemetry", "--interval=0.05", f"--root={tmp_path}"]
    sampler = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(1)
    lines = [json.loads(line) for line in sampler.communicate(timeout=20)[0].splitlines()]
    assert lines[0] == {"source": "sysfs"}
    assert lines[1]["milliwatts"] == {"VDD_IN": 4000.0}
    assert lines[-1] == {"end": True, "problem": None}


def test_files_are_kept_and_given_back(python: Path, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}

    def ask(*arguments: str, data: bytes = b"") -> bytes:
        command = [str(python), str(AGENT / "file_store.py"), "store", *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True, env=environment).stdout

    def told(answer: bytes) -> dict[str, Any]:
        return dict(json.loads(answer.partition(b"\n")[0]))

    data = b"a model " * 100_000
    digest = hashlib.sha256(data).hexdigest()
    assert told(ask("find", digest, "model.tflite")) == {"path": None}
    path = told(ask("keep", "file", digest, "model.tflite", str(len(data)), data=data))["path"]
    assert Path(path).read_bytes() == data
    assert told(ask("find", digest, "model.tflite")) == {"path": path}
    assert told(ask("keep", "file", "0" * 64, "model.tflite", "4", data=b"what"))["refused"] == "digest"
    run = Path(told(ask("open-run", "token"))["path"])
    (run / "outputs.npy").write_bytes(data)
    head, _, body = ask("give", str(run / "outputs.npy")).partition(b"\n")
    assert json.loads(head) == {"size": len(data), "sha256": digest}
    assert body == data
    ask("close-run", "token")
    assert not run.exists()
    assert told(ask("prune", "0", "0")) == {"removed": 0, "bytes": len(data)}  # used a moment ago


# With a runtime


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("version", [version for version, runtime in RUNTIMES if runtime == "tflite_runtime"])
def test_an_old_tflite_runtime_runs_what_is_converted_today(
    kept: Path, start: Start, digits: Digits, version: str, precision: str
) -> None:
    agent = start(found(lambda: with_runtime(kept, version, "tflite_runtime")))
    digits.check_runs(agent, "tflite", precision, digits.model("tflite", precision))


def of_opset_15(model: Path, folder: Path) -> Path:
    """The same ONNX model, in the operators that ONNX Runtime 1.10 knows."""
    import onnx
    from onnx import version_converter

    onnx.save(version_converter.convert_version(onnx.load(model), 15), folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("version", [version for version, runtime in RUNTIMES if runtime == "onnxruntime"])
def test_an_old_onnx_runtime_runs_a_model_of_its_time(
    kept: Path, start: Start, digits: Digits, tmp_path: Path, version: str
) -> None:
    if missing := [name for name in ("onnx", "onnxruntime", "tf2onnx") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed here, where the model is converted: {', '.join(missing)}")
    model = digits.model("onnxruntime", "fp32")
    agent = start(found(lambda: with_runtime(kept, version, "onnxruntime")))
    digits.check_runs(agent, "onnxruntime", "fp32", of_opset_15(model, tmp_path), reference=model)


def test_a_model_that_is_too_new_is_a_load_error(kept: Path, start: Start, digits: Digits) -> None:
    """ONNX Runtime 1.10 knows operators up to set 15, and today's converter writes set 17."""
    if missing := [name for name in ("onnx", "onnxruntime", "tf2onnx") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed here, where the model is converted: {', '.join(missing)}")
    agent = start(found(lambda: with_runtime(kept, "3.6", "onnxruntime")))
    with pytest.raises(StageFailed) as failure:
        digits.load(agent, "onnxruntime", "fp32", digits.model("onnxruntime", "fp32"))
    assert (failure.value.outcome.kind, failure.value.outcome.stage) == ("load_error", "load")
    assert "opset" in failure.value.outcome.message
