"""What is printed on file descriptor 2 past Python, read back from a file and from a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_inference_gate

PLUGINS = Path(pytest_inference_gate.__path__[0]).parent
PROGRAM = """
import os, sys
from pytest_inference_gate.agent.own_log import OwnLog
os.write(2, b"before\\n")
log = OwnLog()
os.write(2, b"a library says this\\n")
sys.stderr.write("and Python that\\n")
first = log.text()
os.write(2, b"later\\n")
both = log.text()
second = OwnLog()  # of the next model: what was printed before is not its own
os.write(2, b"of the second\\n")
assert second.text().splitlines()[0] == "of the second", second.text()
assert "of the second" in log.text()
print(log.readable, "before" in first, "a library says this" in first, "and Python that" in first, "later" in first, "later" in both)
sys.stdout.flush()
os.write(2, b"last words\\n")
if len(sys.argv) > 1:
    os.abort()
"""
EXPECTED = "True False True True False True"


def run(stderr: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, timeout=60, check=False)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    path.write_text("of another stage\n")
    with path.open("ab") as stream:
        done = run(stream.fileno())
    assert done.stdout.strip() == EXPECTED
    assert path.read_text().splitlines() == [
        "of another stage",
        "before",
        "a library says this",
        "and Python that",
        "later",
        "of the second",
        "last words",
    ]


SLOW_COPY = """
import os
from pytest_inference_gate.agent import own_log
log = own_log.OwnLog()
own_log.PATIENCE_SECONDS = 0.05
os.write(2, b"more than the end of the log\\n" * 1000)
waited_for = log.readable
log.text()
print(waited_for, log.readable)
"""


def test_a_copy_that_does_not_come_in_time_is_told(tmp_path: Path) -> None:
    """``tee`` passes the first line, and gets no processor then."""
    tee = tmp_path / "tee"
    program = (
        "import os, select, sys; os.write(int(sys.argv[3].rpartition('/')[2]), os.read(0, 99));"
        " end = select.poll(); end.register(0, 0); end.poll()"  # until the program has ended
    )
    tee.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    tee.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", SLOW_COPY], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.stdout.split() == ["True", "False"], done.stderr


ENDED_COPY = """
import os
from pytest_inference_gate.agent import own_log
log = own_log.OwnLog()
own_log._tee.kill()
own_log._tee.wait()
log.text()
print(log.readable)
"""


def test_a_copy_that_ended_is_told_and_ends_nothing_else() -> None:
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run(
        [sys.executable, "-c", ENDED_COPY], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("ending", [(), ("abort",)], ids=["in peace", "by abort"])
def test_from_a_pipe_that_keeps_the_last_words(ending: tuple[str, ...]) -> None:
    done = run(subprocess.PIPE, *ending)
    assert done.stdout.strip() == EXPECTED
    lines = [line for line in done.stderr.splitlines() if not line.startswith("(read back")]
    assert lines == ["before", "a library says this", "and Python that", "later", "of the second", "last words"]
    assert done.returncode == (-signal.SIGABRT if ending else 0)
