"""A real agent, and every way in which it can end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import pytest_inference_gate
from pytest_inference_gate import agent_process, kernel_memory
from pytest_inference_gate.agent.protocol import encode_frame
from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.targets.interpreter import InterpreterTarget

BACKEND = Path(__file__).parent / "backends" / "misbehaving.py"


def misbehave(how: str) -> dict[str, Any]:
    return {"backend": "misbehaving", "precision": "fp32", "source": {"format": how}}


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts the processes that it killed for memory on the whole machine, and other tests may be among them."""
    monkeypatch.setattr(agent_process, "oom_kills", lambda: ())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "agent.log"


@pytest.fixture
def start(log: Path) -> Iterator[Callable[..., AgentProcess]]:
    started = []

    def start_agent(*, seconds: float = 30.0, memory_bytes: int | None = None) -> AgentProcess:
        limits = Limits({"convert": seconds}, memory_bytes)
        started.append(InterpreterTarget(extra_backends={"misbehaving": BACKEND}).start_agent(log, limits))
        return started[-1]

    yield start_agent
    for agent in started:
        agent.close()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def is_gone(pid: int) -> bool:
    """Dead. A process whose parent died waits as a zombie for init, which some containers do not have."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def failure(agent: AgentProcess, how: str) -> StageFailed:
    with pytest.raises(StageFailed) as caught:
        agent.convert(misbehave(how))
    outcome = caught.value.outcome
    assert outcome.stage == "convert"
    assert outcome.log == agent.log
    assert "\n" not in outcome.message
    return caught.value


def check_is_dead(agent: AgentProcess) -> None:
    """No process, no zombie, and a clear answer to whoever asks again."""
    assert not psutil.pid_exists(agent.hello["pid"])
    with pytest.raises(StageFailed):
        agent.probe()


@pytest.mark.parametrize(("how", "name"), [("segmentation_fault", "SIGSEGV"), ("abort", "SIGABRT")])
def test_death_by_signal_is_a_crash(start: Callable[..., AgentProcess], how: str, name: str) -> None:
    agent = start()
    outcome = failure(agent, how).outcome
    assert (outcome.kind, outcome.signal) == ("crash", name)
    assert name in outcome.message
    assert ("the graph has a hole" in outcome.message) == (how == "abort")
    assert "Fatal Python error" not in outcome.message
    assert "Fatal Python error" in agent.log.read_text()
    check_is_dead(agent)


def test_the_second_request_to_a_dead_agent_says_why_it_died(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    first = failure(agent, "abort")
    with pytest.raises(StageFailed) as caught:
        agent.probe()
    assert caught.value.outcome == first.outcome


@pytest.mark.parametrize(("how", "status"), [("exit", 7), ("sys_exit", 9)])
def test_an_exit_status_is_a_crash(start: Callable[..., AgentProcess], how: str, status: int) -> None:
    agent = start()
    outcome = failure(agent, how).outcome
    assert (outcome.kind, outcome.signal) == ("crash", None)
    assert f"status {status}" in outcome.message
    check_is_dead(agent)


@pytest.mark.parametrize("how", ["memory", "memory_of_child"])
def test_an_agent_that_takes_too_much_memory_is_stopped(start: Callable[..., AgentProcess], how: str) -> None:
    agent = start(memory_bytes=250 * 2**20)
    outcome = failure(agent, how).outcome
    assert outcome.kind == "oom"
    assert "more than the limit of 250 MiB" in outcome.message
    check_is_dead(agent)


def test_a_kill_by_someone_else_is_a_crash(start: Callable[..., AgentProcess]) -> None:
    outcome = failure(start(), "kill").outcome
    assert (outcome.kind, outcome.signal) == ("crash", "SIGKILL")
    assert "someone else" in outcome.message


def test_a_kill_by_the_kernel_is_out_of_memory(
    start: Callable[..., AgentProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's counters stand in a directory tree of the test's, since a real kill would take a neighbour with it."""
    counters = tmp_path / "proc" / "vmstat"
    counters.parent.mkdir()
    counters.write_text("oom_kill 3\n")
    monkeypatch.setattr(agent_process, "oom_kills", lambda: kernel_memory.oom_kills(tmp_path))
    agent = start()
    counters.write_text("oom_kill 4\n")
    outcome = failure(agent, "kill").outcome
    assert (outcome.kind, outcome.signal) == ("oom", "SIGKILL")


def test_an_abort_after_bad_alloc_is_out_of_memory(start: Callable[..., AgentProcess]) -> None:
    outcome = failure(start(), "bad_alloc").outcome
    assert (outcome.kind, outcome.signal) == ("oom", "SIGABRT")
    assert "bad_alloc" in outcome.message


def test_errors_of_a_backend_leave_the_agent_alive(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    outcome = failure(agent, "memory_error").outcome
    assert outcome.kind == "oom"
    outcome = failure(agent, "error").outcome
    assert (outcome.kind, outcome.message) == ("build_error", "Tensor has 3 dimensions but should have 4")
    assert "Traceback" in agent.log.read_text()
    assert agent.probe()["backends"]["misbehaving"]["available"]


def test_an_unknown_backend_is_unsupported(start: Callable[..., AgentProcess]) -> None:
    with pytest.raises(StageFailed, match="no backend 'abacus'") as caught:
        start().convert({"backend": "abacus"})
    assert caught.value.outcome.kind == "unsupported"


def test_asking_without_a_model_is_an_error(start: Callable[..., AgentProcess]) -> None:
    with pytest.raises(StageFailed, match="no model is loaded") as caught:
        start().predict({"inputs": "/x.npy", "outputs": "/y.npy"})
    assert (caught.value.outcome.kind, caught.value.outcome.stage) == ("run_error", "predict")


@pytest.mark.parametrize("how", ["sleep", "hold_the_lock", "child"])
def test_an_agent_that_takes_too_long_is_stopped(
    start: Callable[..., AgentProcess], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_file = tmp_path / "child"
    monkeypatch.setenv("CHILD_FILE", str(child_file))
    agent = start()
    if how == "child":
        agent.convert(misbehave("leave_a_child"))  # before the clock runs: its start takes as long as it takes
    agent.limits = Limits({"convert": 0.7})
    outcome = failure(agent, "sleep" if how == "child" else how).outcome
    assert outcome.kind == "timeout"
    assert "0.7 s" in outcome.message
    check_is_dead(agent)
    if how == "child":
        # Killed with the agent, but not collected by it: the kernel may need a moment more for this one.
        assert wait_until(lambda: is_gone(int(child_file.read_text())))


def test_an_answer_that_came_in_time_counts_although_it_is_read_late(start: Callable[..., AgentProcess]) -> None:
    """This process was held up itself, as by a laptop's lid: that is no fault of the agent's."""
    agent = start(seconds=0.5)

    def held_up(_: str) -> None:
        select.select([agent._stdout], [], [], 60)
        time.sleep(0.6)

    with pytest.raises(StageFailed) as caught:
        agent.convert(misbehave("error"), progress=held_up)
    assert caught.value.outcome.kind == "build_error"


def test_an_interrupt_while_an_agent_is_started_leaves_none(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(**arguments: Any) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGINT)  # which reaches the thread that waits
        time.sleep(0.2)
        started.append(popen(**arguments))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            InterpreterTarget().start_agent(log, Limits())
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_an_agent_that_closes_its_pipe_and_lives_on_is_killed(
    start: Callable[..., AgentProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(agent_process.DEFAULT_SECONDS, "stop", 0.2)
    agent = start()
    assert failure(agent, "close_pipe").outcome.kind == "crash"
    check_is_dead(agent)


def test_what_a_framework_prints_goes_to_the_log_and_not_into_the_protocol(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    said: list[str] = []
    result = agent.convert(misbehave("print"), progress=said.append)
    assert result["model"] == "nothing"
    assert said == ["about to print"]
    printed = agent.log.read_bytes()
    for words in (b"printed by Python", b"written by C \xff\x00 IGP1", b"printed by a child"):
        assert words in printed


def test_closing_ends_the_agent_and_can_be_done_twice(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    agent.close()
    agent.close()
    check_is_dead(agent)


def test_an_agent_that_is_forgotten_ends(start: Callable[..., AgentProcess], log: Path) -> None:
    agent = InterpreterTarget().start_agent(log, Limits())
    pid = agent.hello["pid"]
    del agent
    assert not psutil.pid_exists(pid)


def test_closing_from_another_thread_ends_a_request(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    began = threading.Event()
    caught: list[StageFailed] = []

    def ask() -> None:
        try:
            agent.convert(misbehave("sleep"), progress=lambda _: began.set())
        except StageFailed as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert began.wait(60)
    agent.close()
    thread.join(60)
    assert [error.outcome.kind for error in caught] == ["crash"]
    assert "was stopped" in caught[0].outcome.message
    check_is_dead(agent)


def test_closing_in_two_threads_at_once_collects_the_agent(
    start: Callable[..., AgentProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start()
    lock, held, closed = agent._busy, threading.Event(), threading.Event()

    class Lock:
        """The first thread that takes it gets no processor until the other has closed the agent."""

        release = staticmethod(lock.release)

        def acquire(self, blocking: bool = True) -> bool:
            taken = lock.acquire(blocking)
            if taken and not held.is_set():
                held.set()
                assert closed.wait(60)
            return taken

    monkeypatch.setattr(agent, "_busy", Lock())
    first = threading.Thread(target=agent.close)
    first.start()
    assert held.wait(60)
    agent.close()
    closed.set()
    first.join(60)
    assert not psutil.pid_exists(agent.hello["pid"])


def test_an_interrupt_ends_the_agent(start: Callable[..., AgentProcess]) -> None:
    agent = start()

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agent.convert(misbehave("sleep"), progress=interrupt)
    check_is_dead(agent)


def test_an_agent_outlives_the_thread_that_started_it(start: Callable[..., AgentProcess]) -> None:
    started: list[AgentProcess] = []
    thread = threading.Thread(target=lambda: started.append(start()))
    thread.start()
    thread.join()
    assert started[0].probe()["backends"]


PARENT = """
    import os, signal, sys
    from pathlib import Path
    from pytest_inference_gate.agent_process import Limits
    from pytest_inference_gate.targets.interpreter import InterpreterTarget

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background would ignore
    agent = InterpreterTarget(extra_backends={{"misbehaving": Path({backend!r})}}).start_agent(Path({log!r}), Limits())

    def ready(_):
        print(agent.hello["pid"], flush=True)

    if {how!r} == "idle":
        ready("")
        sys.stdin.read()
    agent.convert({{"backend": "misbehaving", "precision": "fp32", "source": {{"format": {how!r}}}}}, progress=ready)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["idle", "sleep", "hold_the_lock"])
def test_no_agent_is_left_when_its_parent_is_killed(log: Path, how: str, number: int) -> None:
    if how == "hold_the_lock" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux ends a process with its parent whatever it is doing")
    program = textwrap.dedent(PARENT).format(backend=str(BACKEND), log=str(log), how=how)
    environment = {**os.environ, "PYTHONPATH": str(Path(pytest_inference_gate.__path__[0]).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as parent:
        assert parent.stdout is not None
        agent = int(parent.stdout.readline())
        assert not is_gone(agent)
        parent.send_signal(number)
        parent.wait(60)
    assert wait_until(lambda: is_gone(agent))


def test_without_the_kernels_help_an_agent_still_notices_the_end_of_its_parent(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over ssh, where the parent is on another machine: the end of standard input in the middle of work is all there is to see."""
    child_file = tmp_path / "child"
    monkeypatch.setenv("CHILD_FILE", str(child_file))
    command = [part for part in InterpreterTarget(extra_backends={"misbehaving": BACKEND}).command if part != "--die-with-parent"]
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True
        ) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(encode_frame({"id": 1, "verb": "convert", "arguments": misbehave("child")}))
        process.stdin.flush()
        assert wait_until(lambda: child_file.exists() and bool(child_file.read_text()))
        process.stdin.close()
        assert process.wait(60) == -signal.SIGKILL
    assert wait_until(lambda: is_gone(int(child_file.read_text())))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/no/such/python"], "cannot start /no/such/python: No such file"),
        ([sys.executable, "-c", "print('Welcome to this board')"], "Welcome to this board"),
        (
            [sys.executable, "-c", "import sys; sys.exit('out of order')"],
            "exit status 1 while starting; it printed last: out of order",
        ),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "starting took longer than 0.5 s"),
    ],
)
def test_what_does_not_start_as_an_agent_is_told(log: Path, command: list[str], message: str) -> None:
    with pytest.raises(StageFailed, match=message) as caught:
        AgentProcess(command, log, Limits({"start": 0.5 if "60" in command[-1] else 60.0}))
    assert caught.value.outcome.stage is None


def test_an_agent_of_another_version_is_refused(log: Path) -> None:
    greeting = encode_frame({"event": "hello", "protocol": 99})
    program = f"import sys; sys.stdout.buffer.write({greeting!r})"
    with pytest.raises(StageFailed, match="version 1"):
        AgentProcess([sys.executable, "-c", program], log, Limits())


def test_modules_beside_the_agent_do_not_shadow_those_of_frameworks(
    start: Callable[..., AgentProcess], log: Path, tmp_path: Path
) -> None:
    backend = tmp_path / "looker.py"
    backend.write_text(
        "import sys\nNAME = 'looker'\n"
        "def convert(request, progress):\n    return {'model': repr([path for path in sys.path if 'pytest_inference_gate' in path])}\n"
    )
    with InterpreterTarget(extra_backends={"looker": backend}).start_agent(log, Limits()) as agent:
        assert agent.convert({"backend": "looker"})["model"] == "[]"


def test_probing_imports_no_framework(log: Path, tmp_path: Path) -> None:
    backend = tmp_path / "looker.py"
    backend.write_text("import sys\nNAME = 'looker'\ndef availability(packages):\n    return {'reason': ' '.join(sys.modules)}\n")
    with InterpreterTarget(extra_backends={"looker": backend}).start_agent(log, Limits()) as agent:
        modules = agent.probe()["backends"]["looker"]["reason"].split()
    assert not {"tensorflow", "ai_edge_litert", "onnxruntime", "onnx", "numpy"} & set(modules)
