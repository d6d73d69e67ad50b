"""Whole sessions with a board: what `--gate-target` makes of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_server import LoopbackBoard


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # verdicts on latency have tests of their own
    return linear_project


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    with tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True) as folder:
        board = LoopbackBoard(Path(folder))
        board.start()
        monkeypatch.setenv("INFERENCE_GATE_SSH", board.environment["INFERENCE_GATE_SSH"])
        yield board
        board.stop()


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def verdicts(document):
    return {case["id"]: (case["verdict"], case["outcome"]["kind"]) for case in document["cases"]}


def test_a_board_gives_the_verdicts_of_a_local_run(linear_project, board):
    linear_project.write_card(precisions=("fp32", "int8"))
    local, here = linear_project.gate_json()
    remote, there = linear_project.gate_json(f"--gate-target={board.url}")
    assert local.ret == remote.ret == 0
    assert verdicts(there) == verdicts(here) == {f"linear-linear-{name}-b1-t1": ("pass", "ok") for name in ("fp32", "int8")}
    keys = ("verdict", "top1", "n", "lost", "won", "agreement")
    one, other = ([[case["accuracy"][key] for key in keys] for case in document["cases"]] for document in (here, there))
    assert one == other
    assert "send" in there["phases"] and "send" not in here["phases"]
    assert {"agent.pyz", "inputs.npy", "payload", "linear_backend.py"} <= board.kept()
    assert wait_until(lambda: not board.processes())
    assert list((board.home / ".cache" / "inference-gate" / "board" / "runs").iterdir()) == []


def test_the_baseline_is_the_board_s(linear_project, board, monkeypatch):
    monkeypatch.setattr(
        "pytest_inference_gate.devices.Condition.now", lambda: pytest.fail("the condition is the board's as well")
    )
    if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a board with fewer cores than this machine takes taskset and two cores")
    board.before(f"taskset -p -c {min(os.sched_getaffinity(0))} $$ >/dev/null")
    linear_project.ini(gate_target=board.url)
    linear_project.record([0.001])
    linear_project.save()
    (session,) = linear_project.sessions()
    assert "1core" in session.parent.name
    assert [path.name for path in linear_project.baselines.iterdir()] == [session.parent.name]
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 0, result.stdout.str()
    assert document["mode"] == "compare" and document["device"]["id"] == session.parent.name
    assert [session["name"] for session in document["compared_sessions"]] == ["0001_before"]
    assert document["device"]["condition"]["before"] and document["device"]["condition"]["after"]
    board.before("")  # all cores again: another device
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret != 0
    assert {verdict for verdict, _ in verdicts(document).values()} == {"no_baseline"}


def test_a_board_that_goes_away_costs_one_case(linear_project, board):
    linear_project.write_card(precisions=("fp32", "int8"))
    # Of the agents that are started there, the first one is for probing and each case has one that predicts.
    count = board.folder / "count"
    board.before(
        f'case "$SSH_ORIGINAL_COMMAND" in *agent.pyz*--guard*) echo x >> {count};'
        f' if [ "$(wc -l < {count})" = 3 ]; then kill -9 $PPID; fi;; esac'
    )
    result, document = linear_project.gate_json(f"--gate-target={board.url}", "--benchmark-save=x")
    assert result.ret == 1
    assert sorted(verdicts(document).values()) == [("broken", "unreachable"), ("pass", "ok")]
    assert any("was lost; trying for" in notice for notice in document["notices"])
    result.stdout.fnmatch_lines(["*unreachable: *was lost*"])
    (session,) = linear_project.sessions()
    assert json.loads(session.read_text())["inference_gate"]["broken"] == []


def test_an_agent_that_dies_there_costs_one_case(linear_project, board):
    linear_project.write_model("other", load="crash")
    linear_project.write_card("other")
    result, document = linear_project.gate_json(f"--gate-target={board.url}")
    assert result.ret == 1
    assert verdicts(document) == {
        "linear-linear-fp32-b1-t1": ("pass", "ok"),
        "other-linear-fp32-b1-t1": ("broken", "crash"),
    }
    (case,) = (case for case in document["cases"] if case["model"] == "other")
    assert case["outcome"]["signal"] == "SIGABRT"


def artifacts(document):
    return {case["id"]: (case["artifact"]["digest"], case["artifact"]["cached"]) for case in document["cases"]}


def test_what_only_the_board_can_build_is_built_there_and_kept_here(linear_project, board, monkeypatch):
    monkeypatch.setenv("LINEAR_BUILT_ON_DEVICE", "1")
    python = board.python("own", f'LINEAR_STACK=first exec {sys.executable} "$@"')
    target = f"--gate-target={board.url}?python={python}"
    linear_project.write_card(precisions=("fp32", "int8"))
    result, built = linear_project.gate_json(target)
    assert result.ret == 0, result.stdout.str()
    assert {cached for _, cached in artifacts(built).values()} == {False}
    assert {"linear.json", "inputs.npy", "payload"} <= board.kept()  # checkpoint, pictures, and the model on its way back
    assert list((board.home / ".cache" / "inference-gate" / "board" / "runs").iterdir()) == []
    shutil.rmtree(board.home / ".cache")  # the store is here: a board that was set up anew gets what it had built
    result, again = linear_project.gate_json(target)
    assert result.ret == 0
    assert artifacts(again) == {name: (digest, True) for name, (digest, _) in artifacts(built).items()}
    assert not [notice for notice in again["notices"] if "built anew" in notice]
    board.python("own", f'LINEAR_STACK=second exec {sys.executable} "$@"')  # an upgrade of what builds
    result, upgraded = linear_project.gate_json(target)
    assert {cached for _, cached in artifacts(upgraded).values()} == {False}
    (notice,) = [notice for notice in upgraded["notices"] if "built anew" in notice]
    assert notice.startswith("the engines of linear-linear-fp32-b1, linear-linear-int8-b1 in the store were built")
    assert "linear first -> second" in notice


def test_what_the_runtime_builds_here_is_not_the_converter_s(linear_project, monkeypatch):
    monkeypatch.setenv("LINEAR_BUILT_ON_DEVICE", "1")
    _, own = linear_project.gate_json(f"--gate-convert-with={linear_project.other_stack()}")
    _, other = linear_project.gate_json(f"--gate-run-with={linear_project.other_stack()}")
    assert [cached for document in (own, other) for _, cached in artifacts(document).values()] == [False, False]
    assert any("linear this -> other" in notice for notice in other["notices"])


@pytest.mark.parametrize(
    "moment", ["*agent.pyz*--guard*", "*new-folder*", "*give*"], ids=["the build", "the folder", "the way back"]
)
def test_a_build_that_loses_its_board_is_unreachable_and_leaves_nothing_half(linear_project, board, monkeypatch, moment):
    monkeypatch.setenv("LINEAR_BUILT_ON_DEVICE", "1")
    # The first agent there is for probing, the second one builds.
    count, number = board.folder / "count", 2 if "agent" in moment else 1
    board.before(
        f'case "$SSH_ORIGINAL_COMMAND" in {moment}) echo x >> {count};'
        f' if [ "$(wc -l < {count})" = {number} ]; then kill -9 $PPID; fi;; esac'
    )
    result, document = linear_project.gate_json(f"--gate-target={board.url}")
    assert result.ret == 1
    assert list(verdicts(document).values()) == [("broken", "unreachable")]
    (case,) = document["cases"]
    # Where even the agent did not come up, no stage had begun.
    assert case["outcome"]["stage"] in ("convert", None) and "was lost" in case["outcome"]["message"]
    assert not list(linear_project.store.glob("artifacts/*/payload/model.json"))


def test_the_runner_fixture_asks_the_board(linear_project, board):
    (linear_project.path / "test_own.py").write_text(
        "import numpy\n"
        "def test_zero(runner):\n"
        "    one, two = (runner.predict_prepared(numpy.full((3, 4, 4, 1), value, dtype='float32')) for value in (0, 1))\n"
        "    assert one.shape == (3, 5) and not one.any() and two.any()\n"
        "    assert runner.measure().rounds\n"
    )
    result = linear_project.run(f"--gate-target={board.url}", "test_own.py")
    result.assert_outcomes(passed=1)
    assert "outputs.npy" not in board.kept()


def test_a_board_that_cannot_be_used_breaks_its_cases_with_a_sentence(linear_project, board):
    board.know(None)
    result, document = linear_project.gate_json(f"--gate-target={board.url}", "--benchmark-save=x")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert list(verdicts(document).values()) == [("broken", "unreachable")]
    assert (document["device"]["id"], document["devices"][0]["name"]) == ("unknown", None)
    result.stdout.fnmatch_lines(["*the host key of * is not known here: run `ssh *"])
    assert not linear_project.sessions()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gate-target=ssh://me@a", "--gate-target=ssh://a:22?python=b"], "--gate-target names a twice"),
        (["--gate-target=nano"], "is neither ssh://user@board nor bundle:FILE.results.zip"),
        (["--gate-target=bundle:nope.results.zip"], "there is no file *nope.results.zip"),
        (
            ["--gate-target=ssh://a", "--gate-run-with=python3"],
            "name the board's Python with --gate-target=ssh://a[?]python=PATH",
        ),
        (["--gate-target=ssh://a", "--gate-against=python3"], "not the board of --gate-target"),
    ],
)
def test_what_cannot_be_combined(linear_project, arguments, says):
    result = linear_project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{says}*"])
    result.stdout.no_fnmatch_line("*no case ran*")
