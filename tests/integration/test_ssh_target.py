"""Agents on a board: a real ssh, a real sshd on loopback, and all that can go wrong between them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ssh_server import LoopbackBoard, name_of

import pytest_inference_gate
from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.devices import DeviceIdentity
from pytest_inference_gate.outcome import Outcome, StageFailed
from pytest_inference_gate.targets.interpreter import InterpreterTarget
from pytest_inference_gate.targets.ssh import SshTarget
from pytest_inference_gate.targets.ssh_address import SshAddress
from pytest_inference_gate.targets.ssh_connection import ConnectionFailed, SshConnection

BACKEND = Path(__file__).parent / "backends" / "misbehaving.py"


@pytest.fixture
def board() -> Iterator[LoopbackBoard]:
    with tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True) as folder:
        board = LoopbackBoard(Path(folder))
        board.start()
        yield board
        board.stop()
        for process in board.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


class Open:
    """Targets on a board, closed after the test, with what they told the user."""

    def __init__(self, board: LoopbackBoard, log: Path) -> None:
        self.board = board
        self.log = log
        self.notices: list[str] = []
        self.progress: list[str] = []
        self.targets: list[SshTarget] = []
        self.agents: list[AgentProcess] = []

    def target(self, url: str = "", *, patience: float = 20.0, backends: bool = True) -> SshTarget:
        target = SshTarget(
            SshAddress.parse(url or self.board.url),
            {"misbehaving": BACKEND} if backends else {},
            notice=self.notices.append,
            progress=self.progress.append,
            patience=patience,
            environment=self.board.environment,
        )
        self.targets.append(target)
        return target

    def agent(self, target: SshTarget, seconds: float = 60.0, memory_bytes: int | None = None) -> AgentProcess:
        agent = target.start_agent(self.log, Limits({"convert": seconds}, memory_bytes))
        self.agents.append(agent)
        return agent

    def close(self) -> None:
        for agent in self.agents:
            agent.close()
        for target in self.targets:
            target.close()


@pytest.fixture
def on(board: LoopbackBoard, tmp_path: Path) -> Iterator[Open]:
    opened = Open(board, tmp_path / "agent.log")
    yield opened
    opened.close()


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def outcome_of(act: Callable[[], Any]) -> Outcome:
    with pytest.raises(StageFailed) as caught:
        act()
    outcome = caught.value.outcome
    assert "\n" not in outcome.message
    return outcome


def misbehave(agent: AgentProcess, how: str, progress: Callable[[str], None] | None = None) -> Outcome:
    arguments = {"backend": "misbehaving", "precision": "fp32", "source": {"format": how}}
    return outcome_of(lambda: agent.convert(arguments, progress=progress))


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ---------------------------------------------------------------- what goes well


def test_an_agent_on_a_board_probes_like_one_here(on: Open, tmp_path: Path) -> None:
    with on.agent(on.target()) as there, InterpreterTarget().start_agent(tmp_path / "here.log", Limits()) as here:
        one, other = there.probe(), here.probe()
    assert DeviceIdentity.from_facts(one["device"]) == DeviceIdentity.from_facts(other["device"])
    assert (one["python"], one["packages"]) == (other["python"], other["packages"])
    assert set(other["backends"]) | {"misbehaving"} == set(one["backends"])


def test_what_is_printed_there_lands_in_the_log_here(on: Open) -> None:
    agent = on.agent(on.target())
    said: list[str] = []
    arguments = {"backend": "misbehaving", "precision": "fp32", "source": {"format": "print"}}
    assert agent.convert(arguments, progress=said.append)["model"] == "nothing"
    assert said == ["about to print"]
    agent.close()  # an answer comes over another stream than what is printed, and may come before it
    log = on.log.read_text(errors="replace")
    assert "printed by Python" in log and "printed by a child" in log


def test_files_are_sent_once_and_kept_by_digest(on: Open, tmp_path: Path) -> None:
    file = tmp_path / "model with blanks!.bin"
    file.write_bytes(os.urandom(1_000_000))
    tree = tmp_path / "saved"
    (tree / "variables").mkdir(parents=True)
    (tree / "saved_model.pb").write_bytes(b"graph")
    (tree / "variables" / "data").write_bytes(b"")
    target = on.target()
    there = target.put(file)
    assert Path(there).read_bytes() == file.read_bytes()
    assert there == target.put(file)
    folder = Path(target.put(tree))
    assert (folder / "saved_model.pb").read_bytes() == b"graph"
    assert (folder / "variables" / "data").read_bytes() == b""
    state = Path(there).stat()
    target.close()
    again = on.target()  # another run
    copy = tmp_path / "elsewhere" / file.name
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    assert again.put(copy) == there
    found = Path(there).stat()
    assert (found.st_ino, found.st_mtime_ns) == (state.st_ino, state.st_mtime_ns)
    assert {"agent.pyz", "misbehaving.py", "saved"} < on.board.kept()
    assert not list(on.board.files.glob(".*"))


def test_a_file_that_changed_is_sent_again(on: Open, tmp_path: Path) -> None:
    file = tmp_path / "inputs.npy"
    target = on.target(backends=False)
    found = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        found.append(Path(target.put(file)).read_bytes())
    assert found == [b"one", b"two"]


def test_a_large_file_is_sent_with_progress(on: Open, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    with file.open("wb") as stream:
        stream.truncate(40 * 2**20)
    there = on.target(backends=False).put(file)
    assert Path(there).stat().st_size == 40 * 2**20
    assert on.progress[0].startswith("sending large.bin, 41.9 MB, to ssh://")
    assert on.progress[1:] == [f"sent {share} % of large.bin" for share in (25, 50, 75)]


def test_what_an_agent_wrote_is_fetched_and_removed_there(on: Open, tmp_path: Path) -> None:
    target = on.target(backends=False)
    here = tmp_path / "predictions of a case.npy"
    there = Path(target.place_for(here))
    content = os.urandom(3_000_000)
    there.write_bytes(content)
    target.fetch(str(there), here)
    assert here.read_bytes() == content
    assert not there.exists()
    folder = there.parent
    assert folder.is_dir()
    target.close()
    assert not folder.exists()


def test_nothing_is_left_running_when_the_target_is_closed(on: Open) -> None:
    target = on.target()
    on.agent(target).probe()
    command = target.connection.command("true")
    socket = Path(command[command.index("-S") + 1])
    assert socket.is_socket() and socket.parent.stat().st_mode & 0o077 == 0
    on.close()
    assert not socket.parent.exists()
    assert wait_until(lambda: not on.board.processes() and not on.board.connections())


def test_a_python_is_named_by_its_path_or_its_environment(on: Open) -> None:
    own = on.board.python("my python", 'echo chosen >&2; exec python3 "$@"')
    with on.agent(on.target(f"{on.board.url}?python={own.replace(' ', '%20')}")) as agent:
        assert agent.hello["python"]
    assert "chosen" in on.log.read_text()


# ---------------------------------------------------------------- agents that die


@pytest.mark.parametrize(("how", "name"), [("segmentation_fault", "SIGSEGV"), ("abort", "SIGABRT"), ("kill", "SIGKILL")])
def test_death_by_signal_there_is_a_crash_here(on: Open, how: str, name: str) -> None:
    target = on.target()
    outcome = misbehave(on.agent(target), how)
    assert (outcome.kind, outcome.signal, outcome.stage) == ("crash", name, "convert")
    assert on.agent(target).probe()["backends"]  # over the same connection
    assert target.connection.number == 1


def test_an_exit_status_there_is_a_crash_here(on: Open) -> None:
    outcome = misbehave(on.agent(on.target()), "exit")
    assert (outcome.kind, outcome.signal) == ("crash", None)
    assert "status 7" in outcome.message


@pytest.mark.parametrize("how", ["memory", "memory_of_child"])
def test_too_much_memory_is_watched_there(on: Open, how: str) -> None:
    outcome = misbehave(on.agent(on.target(), memory_bytes=250 * 2**20), how)
    assert outcome.kind == "oom"
    assert "more than the limit of 250 MiB" in outcome.message


@pytest.mark.parametrize("how", ["sleep", "hold_the_lock", "memory_of_child"])
def test_an_agent_that_takes_too_long_is_ended_there(on: Open, how: str) -> None:
    agent = on.agent(on.target(), seconds=1.0)
    pid = agent.hello["pid"]
    outcome = misbehave(agent, how)
    assert outcome.kind == "timeout"
    assert wait_until(lambda: is_gone(pid))
    assert wait_until(lambda: not any("sleep" in name_of(process) for process in on.board.processes()))


def test_closing_while_a_request_runs_ends_the_agent_there(on: Open) -> None:
    agent = on.agent(on.target())
    pid = agent.hello["pid"]
    closing: list[threading.Thread] = []

    def close(_: str) -> None:
        closing.append(threading.Thread(target=agent.close))
        closing[-1].start()

    assert misbehave(agent, "hold_the_lock", progress=close).kind == "crash"
    closing[0].join(60)
    assert wait_until(lambda: is_gone(pid))


def test_a_target_that_was_closed_is_not_connected_anew(on: Open) -> None:
    """A thread that was about to start an agent when the run was ended does not come back to the board."""
    target = on.target()
    on.agent(target).close()
    target.close()
    assert "was closed" in outcome_of(lambda: on.agent(target)).message
    assert target.connection.number == 1


def test_closing_does_not_wait_for_a_board_that_may_come_back(on: Open) -> None:
    target = on.target(patience=600.0)
    on.agent(target)
    on.board.stop()
    waiting = threading.Thread(target=lambda: outcome_of(lambda: on.agent(target)))
    waiting.start()
    assert wait_until(lambda: any("trying for 600 s" in notice for notice in on.notices), 60)
    target.close()
    waiting.join(60)
    assert not waiting.is_alive()


# ---------------------------------------------------------------- connections that end


def test_a_connection_that_is_cut_is_typed_and_comes_back(on: Open) -> None:
    target = on.target()
    agent = on.agent(target)
    pid = agent.hello["pid"]
    outcome = misbehave(agent, "hold_the_lock", progress=lambda _: on.board.cut())
    assert (outcome.kind, outcome.stage) == ("unreachable", "convert")
    assert "was lost" in outcome.message and "came back" in outcome.message
    assert wait_until(lambda: is_gone(pid))
    assert any("trying for 20 s" in notice for notice in on.notices)
    with on.agent(target) as next_one:
        assert next_one.probe()["backends"]


def test_a_board_that_does_not_come_back_fails_all_that_comes_later_at_once(on: Open, tmp_path: Path) -> None:
    target = on.target(patience=1.0)
    outcome = misbehave(on.agent(target), "sleep", progress=lambda _: on.board.stop())
    assert outcome.kind == "unreachable"
    assert "did not come back within 1 s" in outcome.message
    target.connection.open = lambda: pytest.fail("it was asked once more")  # type: ignore[method-assign]
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert outcome_of(lambda: target.put(file)).kind == "unreachable"
    assert outcome_of(lambda: on.agent(target)).kind == "unreachable"


def test_a_board_that_is_started_anew_is_told(on: Open) -> None:
    target = on.target()
    agent = on.agent(target)
    boots = target._greeting
    target._greeting = type(boots)("another start of the system")  # as this machine will not be started anew for a test
    outcome = misbehave(agent, "sleep", progress=lambda _: on.board.cut())
    if boots.boot is None:
        pytest.skip("this system does not tell one start from another")
    assert outcome.kind == "unreachable"
    assert "was started anew meanwhile" in outcome.message


def test_a_connection_that_is_cut_while_a_file_is_sent_is_typed(on: Open, tmp_path: Path) -> None:
    target = on.target(backends=False)
    target.put(BACKEND)
    file = tmp_path / "large.bin"
    with file.open("wb") as stream:
        stream.truncate(200 * 2**20)
    target._board.files._progress = lambda text: on.board.cut() if "25 %" in text else None  # type: ignore[union-attr]
    assert outcome_of(lambda: target.put(file)).kind == "unreachable"
    assert "large.bin" not in on.board.kept()
    assert Path(target.put(file)).stat().st_size == 200 * 2**20


PARENT = """
    import os, sys
    from pathlib import Path
    from pytest_inference_gate.agent_process import Limits
    from pytest_inference_gate.targets.ssh import SshTarget
    from pytest_inference_gate.targets.ssh_address import SshAddress

    target = SshTarget(SshAddress.parse({url!r}), {{"misbehaving": Path({backend!r})}})
    agent = target.start_agent(Path({log!r}), Limits())

    def ready(_):
        print(agent.hello["pid"], flush=True)

    agent.convert({{"backend": "misbehaving", "precision": "fp32", "source": {{"format": "hold_the_lock"}}}}, progress=ready)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_there_or_here_when_the_plugin_is_killed(board: LoopbackBoard, tmp_path: Path, number: int) -> None:
    program = textwrap.dedent(PARENT).format(url=board.url, backend=str(BACKEND), log=str(tmp_path / "log"))
    environment = {**board.environment, "PYTHONPATH": str(Path(pytest_inference_gate.__path__[0]).parent)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        agent = int(parent.stdout.readline())
        ours = psutil.Process(parent.pid).children(recursive=True)
        assert len([process for process in ours if process.name() == "ssh"]) == 2
        parent.send_signal(number)
        parent.wait(20)
    assert wait_until(lambda: is_gone(agent))
    assert wait_until(lambda: all(is_gone(process.pid) for process in ours))
    assert wait_until(lambda: not board.connections())


# ---------------------------------------------------------------- connections that do not come up


def test_an_unknown_host_key(on: Open) -> None:
    on.board.know(None)
    outcome = outcome_of(lambda: on.agent(on.target()))
    assert outcome.kind == "unreachable"
    assert "is not known here: run `ssh -p" in outcome.message
    assert not on.board.kept()


def test_another_host_key_than_the_known_one(on: Open) -> None:
    on.board.know("host2")
    message = outcome_of(lambda: on.agent(on.target())).message
    assert "another host key" in message and f"ssh-keygen -R '[127.0.0.1]:{on.board.port}'" in message


def test_a_key_that_is_refused(on: Open) -> None:
    on.board.use_key("other")
    assert "ssh-copy-id -p" in outcome_of(lambda: on.agent(on.target())).message


def test_a_port_on_which_nobody_answers(on: Open) -> None:
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))  # and does not listen
        url = f"ssh://{on.board.user}@127.0.0.1:{kept.getsockname()[1]}"
        message = outcome_of(lambda: on.agent(on.target(url))).message
    assert "nothing answers at ssh://" in message


def test_a_name_that_is_nobodys(on: Open) -> None:
    message = outcome_of(lambda: on.agent(on.target("ssh://board.invalid"))).message
    assert "no address is known for board.invalid" in message


def test_a_user_s_configuration_for_persons_is_no_obstacle(on: Open) -> None:
    on.board.use_key(
        "mine",
        "RequestTTY force",
        "RemoteCommand echo hello",
        f"LocalForward {on.board.port} 127.0.0.1:1",  # taken, which would end a connection that tried
        "ControlMaster auto",
        "ControlPersist 10m",
        f"ControlPath {on.board.folder}/own",
        "ExitOnForwardFailure yes",
    )
    with on.agent(on.target()) as agent:
        assert agent.probe()["backends"]
    assert not (on.board.folder / "own").exists()


def test_no_ssh_at_all(on: Open) -> None:
    environment = {**on.board.environment, "INFERENCE_GATE_SSH": "/no/such/ssh"}
    with pytest.raises(ConnectionFailed, match=r"cannot start /no/such/ssh .*install the OpenSSH client"):
        SshConnection(SshAddress.parse(on.board.url), environment=environment).open()


def test_a_login_that_talks_is_told(on: Open) -> None:
    on.board.before("echo Welcome to this board")
    message = outcome_of(lambda: on.agent(on.target())).message
    assert "prints 'Welcome to this board' before each command" in message


# ---------------------------------------------------------------- boards that lack something


def test_a_python_that_is_too_old(on: Open) -> None:
    old = on.board.python("python2", "echo '2.7.18 0 /usr/bin/python2.7'")
    outcome = outcome_of(lambda: on.agent(on.target(f"{on.board.url}?python={old}")))
    assert "is only Python 2.7.18 (/usr/bin/python2.7), and the agent needs Python 3.6 or later" in outcome.message


def test_a_python_that_is_not_there(on: Open) -> None:
    message = outcome_of(lambda: on.agent(on.target(f"{on.board.url}?python=/no/such/python"))).message
    assert "/no/such/python on ssh://" in message and "correct the path" in message


def test_a_home_that_cannot_be_written(on: Open) -> None:
    if not Path("/sys/kernel").is_dir():
        pytest.skip("there is no folder here in which even root can write nothing")
    on.board.before("", home=Path("/sys/kernel"))
    outcome = outcome_of(lambda: on.agent(on.target()))
    assert outcome.kind == "storage_error"
    assert "nothing can be written" in outcome.message and "XDG_CACHE_HOME" in outcome.message


def test_a_full_disk_there(on: Open, tmp_path: Path) -> None:
    target = on.target()
    target.put(BACKEND)
    on.board.before("ulimit -f 1000")  # blocks of 512 bytes: what the system says is what it says of a quota
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(5_000_000))
    outcome = outcome_of(lambda: target.put(file))
    assert (outcome.kind, outcome.stage) == ("storage_error", "load")
    assert "has no room for large.bin (5.0 MB)" in outcome.message
    assert "large.bin" not in on.board.kept() and not list(on.board.files.glob(".*"))
    on.board.before("")
    assert Path(target.put(file)).stat().st_size == 5_000_000
    assert target.connection.number == 1
