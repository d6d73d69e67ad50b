"""``inference-gate baseline`` on sessions that real runs have saved."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import sys

import pytest

from pytest_inference_gate.baseline_command.commands import add_parser
from pytest_inference_gate.errors import BaselineError

CASE = "linear-linear-fp32-b1-t1"
SECOND = "second-linear-fp32-b1-t1"


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # but where a case has to be slower
    return linear_project


@pytest.fixture
def gate(linear_project, monkeypatch, capsys):
    """``gate("list", ...)`` is the exit status and what was printed, with the project as the current directory."""
    monkeypatch.chdir(linear_project.path)

    def run(*arguments):
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers(required=True))
        options = parser.parse_args(["baseline", *map(str, arguments)])
        capsys.readouterr()
        status = options.run(options)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_baseline_from_its_first_session_to_its_last(linear_project, gate):
    status, out, _ = gate("list")
    assert status == 0
    assert f"no sessions in {linear_project.baselines}" in out

    linear_project.save("jp6.0")
    linear_project.save("jp6.1")
    result = linear_project.run("--benchmark-compare", "--benchmark-save=try")
    assert result.ret == 0, result.stdout.str()
    (candidate,) = linear_project.candidates()
    measured = json.loads(candidate.read_text())

    status, out, _ = gate("list")
    assert status == 0
    assert "2 sessions, 1 candidate (--candidates shows them)" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("000")]
    assert [row[:2] for row in rows] == [["0001", "jp6.0"], ["0002", "jp6.1"]]
    assert all("yes" in row for row in rows)
    assert "software: A in 0001, 0002" in out
    assert "try" in gate("list", "--candidates")[1]

    status, out, _ = gate("list", "--json")
    (device,) = json.loads(out)["devices"]
    assert device["device"] == candidate.parent.parent.name
    assert [(row["number"], row["name"], row["cases"], row["compared"]) for row in device["sessions"]] == [
        (1, "jp6.0", 1, True),
        (2, "jp6.1", 1, True),
    ]
    assert [row["name"] for row in device["candidates"]] == ["try"]

    status, out, _ = gate("show", "jp6.0")
    assert status == 0
    assert re.search(r"(less than a minute|\d+ minutes?) old", out)
    assert any(line.startswith(CASE) and line.endswith("pass") for line in out.splitlines())
    shown = json.loads(gate("show", "candidates/try", "--json")[1])
    assert shown["cases"][0]["replicates"] == measured["benchmarks"][0]["extra_info"]["inference_gate"]["replicates"]
    assert shown["left_out"] == []

    status, out, _ = gate("diff", 1, 2)
    assert status == 0
    assert "device: the same" in out
    assert "software: the same" in out
    assert "not a verdict" in out

    status, out, _ = gate("promote", "try", "--dry-run")
    assert status == 0
    assert len(linear_project.sessions()) == 2
    status, out, _ = gate("promote", "try")
    assert status == 0
    assert "0002_jp6.1" in out.splitlines()[0]  # what it is compared with
    assert linear_project.candidates() == []
    assert [path.name for path in linear_project.sessions()] == ["0001_jp6.0.json", "0002_jp6.1.json", "0003_try.json"]
    assert "promoted from the candidate 0001_try.json" in gate("show", 3)[1]
    # A run reads it as any other session, and so does pytest-benchmark.
    result = linear_project.run("--benchmark-compare=3")
    result.assert_outcomes(passed=2)

    with pytest.raises(BaselineError, match="--yes"):
        gate("prune", "--keep=1")
    assert "0001_jp6.0: " in gate("prune", "--keep=2", "--dry-run")[1]
    assert len(linear_project.sessions()) == 3
    status, out, _ = gate("prune", "--keep=2", "--yes")
    assert "removed 1 session" in out
    assert [path.name for path in linear_project.sessions()] == ["0002_jp6.1.json", "0003_try.json"]
    assert gate("prune", "--older-than=1d", "--yes")[:1] == (0,)
    linear_project.save("next")
    assert linear_project.sessions()[-1].name == "0004_next.json"


def test_what_a_red_run_left_out_is_known_to_its_candidate(linear_project, gate):
    linear_project.ini(gate_replicates=5)
    shutil.copy(linear_project.path / "models" / "linear.json", linear_project.path / "models" / "second.json")
    linear_project.write_card("second")
    linear_project.save("before", "test_latency.py")
    (baseline,) = linear_project.sessions()
    document = json.loads(baseline.read_text())
    for benchmark in document["benchmarks"]:
        block = benchmark["extra_info"]["inference_gate"]
        if block["id"] == SECOND:
            block["replicates"] = [value / 1000 for value in block["replicates"]]
    baseline.write_text(json.dumps(document))
    result = linear_project.run("--benchmark-compare", "--benchmark-save=after", "test_latency.py")
    assert result.ret == 1
    with pytest.raises(BaselineError, match=rf"its run was red: {SECOND} \(slower\).*--accept-slower"):
        gate("promote", "after")
    assert len(linear_project.candidates()) == 1
    status, out, _ = gate("promote", "after", "--accept-slower")
    assert status == 0
    assert f"only in 0001_before: {SECOND}" in out
    assert f"compared with the older ones as before: {SECOND}" in out
    # The slower case is still compared with what it was.
    assert linear_project.run("test_latency.py", "-k", "second", "--benchmark-compare").ret == 1


def test_what_a_run_broke_is_not_made_known_by_promoting(linear_project, gate):
    shutil.copy(linear_project.path / "models" / "linear.json", linear_project.path / "models" / "second.json")
    linear_project.write_card("second")
    linear_project.save("before")
    linear_project.write_model("second", load="fail")
    assert linear_project.run("--benchmark-compare", "--benchmark-save=after").ret == 1
    with pytest.raises(BaselineError, match=f"{SECOND} is broken, which the baseline does not know"):
        gate("promote", "after", "--accept-slower")
    assert len(linear_project.sessions()) == 1


def test_a_damaged_file_stops_everything_but_the_list(linear_project, gate):
    linear_project.save("one", "test_latency.py")
    (whole,) = linear_project.sessions()
    damaged = whole.with_name("0002_two.json")
    damaged.write_bytes(whole.read_bytes()[:-100])
    status, out, err = gate("list")
    assert status == 1
    assert "0001" in out
    assert "0002_two.json ends in the middle" in err
    status, out, _ = gate("list", "--json")
    assert status == 1
    assert json.loads(out)["devices"][0]["unreadable"][0]["file"] == str(damaged)
    for arguments in (("show", "2"), ("diff", "1", "2"), ("prune", "--keep=1", "--yes")):
        with pytest.raises(BaselineError, match="0002_two.json ends in the middle"):
            gate(*arguments)
    assert len(linear_project.sessions()) == 2


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 2), ("\n", 2)])
def test_on_a_terminal_pruning_asks(linear_project, gate, monkeypatch, answer, left):
    linear_project.save("one", "test_latency.py")
    (first,) = linear_project.sessions()
    first.with_name("0002_two.json").write_bytes(first.read_bytes())
    controller, terminal = os.openpty()
    os.write(controller, answer.encode())
    with open(terminal) as stdin:  # noqa: PTH123  (a descriptor)
        monkeypatch.setattr(sys, "stdin", stdin)
        status, out, _ = gate("prune", "--keep=1")
    os.close(controller)
    assert "Remove 1 session? [y/N]" in out
    assert status == (0 if left == 1 else 1)
    assert len(linear_project.sessions()) == left


def test_what_cannot_be_asked_for_is_said(linear_project, gate, capsys):
    linear_project.save("one", "test_latency.py")
    with pytest.raises(BaselineError, match="Nothing says which sessions"):
        gate("prune")
    for arguments in (("prune", "--keep=0"), ("prune", "--older-than=soon"), ("show",), ()):
        with pytest.raises(SystemExit) as ended:
            gate(*arguments)
        assert ended.value.code == 2
    with pytest.raises(BaselineError, match="no folder"):
        gate("list", "--baselines=nowhere")


def test_a_terminal_that_cannot_show_a_name(linear_project, gate, monkeypatch):
    linear_project.save("größer", "test_latency.py")
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert gate("list")[0] == 0
    stdout.flush()
    assert b"gr\\xf6\\xdfer" in stdout.buffer.getvalue()
