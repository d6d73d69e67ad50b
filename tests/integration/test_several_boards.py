"""One run on two boards: each is gated for itself, at the same time, and one that breaks does not stop the other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from linear_suite import LinearProject
from ssh_server import LoopbackBoard

from pytest_inference_gate.targets.ssh import SshTarget


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # verdicts on latency have tests of their own
    return linear_project


class TwoBoards:
    """``one`` has a single core of this machine, so that they are two devices."""

    def __init__(self, folder: Path, project: LinearProject, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = project
        self.boards = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            self.boards.append(LoopbackBoard(folder / name))
        self.one, self.other = self.boards
        self.one.before(f"taskset -p -c {min(os.sched_getaffinity(0))} $$ >/dev/null")
        lines = [
            "Host *",
            f"  UserKnownHostsFile {self.one.folder}/known {self.other.folder}/known",
            "  GlobalKnownHostsFile /dev/null",
            *(f"  IdentityFile {board.folder}/mine" for board in self.boards),
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
        ]
        (folder / "client").write_text("\n".join(lines) + "\n")
        monkeypatch.setenv("INFERENCE_GATE_SSH", f"ssh -F {folder / 'client'}")
        # As long as a board may take to start again, a test does not wait.
        monkeypatch.setitem(SshTarget.__init__.__kwdefaults__, "patience", 0.5)

    @property
    def names(self) -> list[str]:
        return [f"127.0.0.1:{board.port}" for board in self.boards]

    def start(self) -> None:
        for board in self.boards:
            board.start()
        self.name_them()  # a port that somebody else took is another one now

    def name_them(self) -> None:
        self.project.ini(gate_target=" ".join(board.url for board in self.boards))

    def stop(self) -> None:
        for board in self.boards:
            board.stop()


@pytest.fixture
def two(linear_project, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoBoards]:
    if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a board with fewer cores than this machine takes taskset and two cores")
    with tempfile.TemporaryDirectory(prefix="boards-", ignore_cleanup_errors=True) as folder:
        boards = TwoBoards(Path(folder), linear_project, monkeypatch)
        boards.name_them()
        yield boards
        boards.stop()


def verdicts(document):
    return {(case["board"], case["id"]): (case["verdict"], case["outcome"]["kind"]) for case in document["cases"]}


def test_each_board_has_its_baseline_and_its_verdicts(linear_project, two):
    two.start()
    linear_project.write_card(precisions=("fp32", "int8"))
    (linear_project.path / "test_plain.py").write_text("def test_plain(benchmark):\n    benchmark(lambda: 1)\n")
    linear_project.record([0.001])
    result = linear_project.save()
    saved = linear_project.sessions()
    assert sorted(len(path.parent.name.split("1core")) for path in saved) == [1, 2]  # one folder for each device
    documents = [json.loads(path.read_text()) for path in saved]
    for document in documents:
        names = {benchmark["name"] for benchmark in document["benchmarks"]} - {"test_plain"}
        assert names == {"test_latency[linear-linear-fp32-b1-t1]", "test_latency[linear-linear-int8-b1-t1]"}
        assert "@" not in json.dumps(document["benchmarks"])
        assert '"board"' not in json.dumps(document["benchmarks"])
    assert sum("test_plain" in path.read_text() for path in saved) == 1
    one, other = two.names
    result.stdout.fnmatch_lines(
        [f"*2 cases on {one} (*1core*)*", f"*2 cases on {other} (*", "*4 cases measured and saved as 0001_before*"]
    )

    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 0, result.stdout.str()
    cases = [f"linear-linear-{precision}-b1-t1" for precision in ("fp32", "int8")]
    assert verdicts(document) == {(name, case): ("pass", "ok") for name in two.names for case in cases}
    assert [device["name"] for device in document["devices"]] == two.names
    assert document["device"]["id"] == document["devices"][0]["id"] != document["devices"][1]["id"]
    for device in document["devices"]:
        assert [session["name"] for session in device["compared_sessions"]] == ["0001_before"]
        assert device["software_changes"] == [] and device["saved"] is None
    assert {case["latency"]["family"] for case in document["cases"]} == {4}
    assert any("shows the baseline of" in notice for notice in document["notices"])
    result.stdout.fnmatch_lines([f"*{one}: compared with 1 session*", f"*{other}: compared with 1 session*"])
    # What one of them alone has recorded is what both compare with, and the other way round: ids and names are the same.
    result, document = linear_project.gate_json(
        f"--gate-target={two.one.url}", "--benchmark-compare", "--gate-select=linear-linear-fp32-b1-t1"
    )
    assert list(verdicts(document).values()) == [("pass", "ok")]
    assert document["devices"][0]["name"] is None and document["cases"][0]["board"] is None


def test_a_board_that_dies_in_the_middle_does_not_stop_the_other(linear_project, two):
    two.start()
    linear_project.write_card(precisions=("fp32", "int8"))
    # The first agent probes, two predict, one watches; the server and its connections die when the measuring has begun.
    count = two.other.folder / "count"
    server = two.other._server
    assert server is not None
    two.other.before(
        f'case "$SSH_ORIGINAL_COMMAND" in *agent.pyz*--guard*) echo x >> {count};'
        f' if [ "$(wc -l < {count})" = 6 ]; then kill -9 {server.pid} $PPID; fi;; esac'
    )
    result, document = linear_project.gate_json("--benchmark-save=x", "--gate-replicates=5")
    assert result.ret == 1
    one, other = two.names
    found = verdicts(document)
    assert {found[one, case["id"]] for case in document["cases"]} == {("pass", "ok")}
    assert {found[other, case["id"]] for case in document["cases"]} == {("broken", "unreachable")}
    (session,) = linear_project.sessions()
    assert "1core" in session.parent.name
    assert document["devices"][0]["id"] == session.parent.name
    reproduce = [line for line in result.stdout.lines if "gate-select=" in line]
    assert all(f"@{other}" in line for line in reproduce)


def test_boards_that_never_came_up_turn_the_run_red(linear_project, two):
    two.one.start()
    two.name_them()
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", two.other.port))  # and does not listen: nobody answers there, and nobody else takes it
        result, document = linear_project.gate_json()
    one, other = two.names
    assert result.ret == 1
    assert verdicts(document) == {
        (one, "linear-linear-fp32-b1-t1"): ("pass", "ok"),
        (other, "linear-linear-fp32-b1-t1"): ("broken", "unreachable"),
    }
    result.stdout.fnmatch_lines(
        [f"*linear-linear-fp32-b1-t1@{other} is broken: unreachable*", "*nothing answers at ssh://*: start the ssh server there*"]
    )
    two.stop()
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 1
    assert set(verdicts(document).values()) == {("broken", "unreachable")}
    assert [device["id"] for device in document["devices"]] == ["unknown", "unknown"]


def test_a_board_is_chosen_by_its_name(linear_project, two):
    """Only what is selected is asked: the other one is not even on."""
    two.one.start()
    two.name_them()
    result, document = linear_project.gate_json(f"--gate-select=*@{two.names[0]}")
    assert result.ret == 0, result.stdout.str()
    assert list(verdicts(document)) == [(two.names[0], "linear-linear-fp32-b1-t1")]


def test_ctrl_c_ends_the_work_on_all_boards(linear_project, two):
    two.start()
    linear_project.write_model(work=30_000)  # so that measuring takes long
    log = linear_project.path / "printed.txt"
    with log.open("wb") as stream:
        process = linear_project.pytester.popen(
            [sys.executable, "-m", "pytest", "-k", "latency", "--gate-rounds=5000", "--gate-replicates=5"],
            stdout=stream,
            stderr=stream,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's job in the background would ignore
        )
        try:
            assert wait_until(lambda: log.read_text(errors="replace").count("measuring 1 of 5") >= 2, 200), log.read_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(150) == pytest.ExitCode.INTERRUPTED
        finally:
            process.kill()
            process.wait()
    assert wait_until(lambda: not any(board.processes() for board in two.boards), 60)


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()
