"""The command ``inference-gate`` in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_inference_gate.devices import local_identity

QUICK = ("--seconds", "0.01")


def inference_gate(
    *arguments: str, program: tuple[str, ...] = (sys.executable, "-m", "pytest_inference_gate")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)


def test_the_doctor_looks_at_this_machine() -> None:
    done = inference_gate("doctor", *QUICK)
    assert done.stderr == ""
    assert done.stdout.startswith(f"device   {local_identity().id}\n")
    states = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("ok ", "warning ", "unknown "))]
    assert len(states) == 15
    assert done.returncode == (1 if "warning" in states else 0)
    assert "steadiness        the canary, 3 times" in done.stdout


def test_the_doctor_s_json(tmp_path: Path) -> None:
    done = inference_gate("doctor", "--json", *QUICK, "--store", str(tmp_path / "store"))
    document = json.loads(done.stdout)
    assert document["device"]["id"] == local_identity().id
    assert document["facts"]["store"] == str(tmp_path / "store")
    assert document["facts"]["store_free_bytes"] > 0
    assert len(document["facts"]["readings"]) == 3
    assert not (tmp_path / "store").exists()
    assert done.returncode == (1 if any(check["state"] == "warning" for check in document["checks"]) else 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "COMMAND"),
        (("nurse",), "invalid choice: 'nurse'"),
        (("doctor", "--seconds", "0"), "expected a number of seconds between 0 and 3600, got '0'"),
        (("doctor", "--seconds", "soon"), "got 'soon'"),
        (("doctor", "--seconds", "nan"), "got 'nan'"),
        (("doctor", "here"), "unrecognized arguments: here"),
        (("doctor", "--python", "/no/such/python"), "cannot start /no/such/python"),
        (("doctor", "--python", "/bin/true"), "/bin/true cannot be used as the runtime"),
    ],
)
def test_a_wrong_question_is_answered_with_2(arguments: tuple[str, ...], words: str) -> None:
    done = inference_gate(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pytest_inference_gate.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as done: assert done.code == 0\n"
        "heavy = {'numpy', 'pydantic', 'pytest', 'PIL', 'pooch', 'psutil', 'tensorflow', 'onnxruntime', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = inference_gate(program=(sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


def test_the_installed_command_is_the_same() -> None:
    program = Path(sys.executable).parent / "inference-gate"
    if not program.exists():
        pytest.skip("the command is not installed beside this interpreter")
    assert inference_gate("doctor", "--help", program=(str(program),)).stdout == inference_gate("doctor", "--help").stdout


def test_who_reads_no_further_sees_no_traceback() -> None:
    command = [sys.executable, "-m", "pytest_inference_gate", "doctor", *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8:strict"])
def test_the_doctor_tells_of_what_a_terminal_cannot_show(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    spinning = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    busy = subprocess.Popen([b"caf\xe9", "-c", spinning], executable=sys.executable)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest_inference_gate", "doctor", "--seconds", "1"], capture_output=True, check=False
        )
    finally:
        busy.kill()
        busy.wait()
    assert done.stderr == b""
    assert b"steadiness" in done.stdout
