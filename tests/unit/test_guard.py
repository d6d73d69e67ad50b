"""The process beside an agent that was started from another machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_inference_gate.agent import guard

if not sys.platform.startswith("linux"):
    pytest.skip("boards run Linux", allow_module_level=True)

PROGRAM = """
import os, sys, time
sys.path.insert(0, {folder!r})
import guard
guard.start({limit})
os.write(1, b"%d\\n" % os.getpid())
{then}
"""


def start(then: str, limit: int | None = None) -> subprocess.Popen[bytes]:
    program = PROGRAM.format(folder=str(Path(guard.__file__).parent), limit=limit, then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    return process


def group(number: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (OSError, psutil.Error):
            continue
    return found


def wait_for_no(number: int) -> bool:
    deadline = time.monotonic() + 60
    while group(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not group(number)


def test_the_end_of_the_client_ends_an_agent_that_does_not_listen() -> None:
    with start("import ctypes; ctypes.PyDLL(None).sleep(60)") as process:
        assert len(group(process.pid)) == 2
        process.stdin.close()  # type: ignore[union-attr]
        assert process.wait(60) == -signal.SIGKILL
    assert wait_for_no(process.pid)


def test_what_the_client_sends_is_not_taken_by_the_guard() -> None:
    with start("time.sleep(0.5); sys.stdout.write(sys.stdin.readline()); sys.stdout.flush(); os._exit(3)") as process:
        process.stdin.write(b"a request\n")  # type: ignore[union-attr]
        kills = guard.oom_kills()
        assert process.stdout.readline() == b"a request\n"  # type: ignore[union-attr]
        assert process.wait(60) == 3
        assert process.stdout.read() == b""  # type: ignore[union-attr]
        # Nothing, unless the kernel killed some other process for memory meanwhile: its count is of the whole machine.
        assert not process.stderr.read() or guard.oom_kills() != kills  # type: ignore[union-attr]
    assert wait_for_no(process.pid)


def test_a_child_of_an_agent_that_died_is_ended() -> None:
    then = "import subprocess; subprocess.Popen(['sleep', '60']); os.write(1, b'go\\n'); os.kill(os.getpid(), 9)"
    with start(then) as process:
        assert process.stdout.readline() == b"go\n"  # type: ignore[union-attr]
        process.wait(60)
        assert wait_for_no(process.pid)


def test_memory_above_the_limit_ends_agent_and_children() -> None:
    then = "import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; x = b\"1\" * 200000000; time.sleep(60)']).wait()"
    with start(then, limit=100 * 2**20) as process:
        assert process.wait(60) == -signal.SIGKILL
        assert b"MemoryError: the agent took" in process.stderr.read()  # type: ignore[union-attr]
    assert wait_for_no(process.pid)


def test_memory_of_a_session_is_that_of_its_processes() -> None:
    own = psutil.Process().memory_info().rss
    assert guard.memory_of_session(os.getsid(0)) >= own // 2
    assert guard.memory_of_session(2**30) == 0
    assert guard.memory_of_session(os.getsid(0), root="/no/such/folder") == 0


def test_a_name_with_brackets_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    page = os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "7" / "stat").write_text("7 (a) b) S 1 42 42 " + " ".join(["0"] * 17) + " 5 0\n")
    assert guard.memory_of_session(42, root=str(tmp_path)) == 5 * page


def test_the_kernel_s_count_of_kills(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")
    assert guard.oom_kills(str(tmp_path / "vmstat")) == 3
    assert guard.oom_kills(str(tmp_path / "nothing")) is None
