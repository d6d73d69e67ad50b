"""Boards without a clock, after a power cut or behind a slow link, and full disks here: one sentence, or no trouble at all."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from test_bundle import DIE_AFTER_THE_THIRD, bundles, linear_project  # noqa: F401
from test_ssh_target import board, on, outcome_of, wait_until  # noqa: F401

from pytest_inference_gate.agent import model_outputs
from pytest_inference_gate.agent_process import Limits
from pytest_inference_gate.predictions import read_predictions
from pytest_inference_gate.targets.interpreter import InterpreterTarget
from pytest_inference_gate.targets.ssh import KEPT_SECONDS, SshTarget
from pytest_inference_gate.targets.ssh_address import SshAddress
from pytest_inference_gate.targets.ssh_connection import ConnectionFailed

NO_CLOCK = """
import os, time
time.time = lambda: 1000.0
replace = os.replace
def replace_and_date(source, target):
    replace(source, target)
    os.utime(target, (1000, 1000))
os.replace = replace_and_date
"""


def run_with(there, code, **variables):
    """``code`` is run in each Python on the board before anything else."""
    (there.folder / "sitecustomize.py").write_text(code)
    settings = [f"{name}={value}" for name, value in {"PYTHONPATH": there.folder, **variables}.items()]
    done = there.run(command=["env", "-i", *settings, sys.executable, "b.zip"])
    (there.folder / "sitecustomize.py").unlink()
    return done


class TestBundles:
    def test_a_board_without_a_clock_starts_in_1970(self, bundles):  # noqa: F811
        there = bundles.export("--replicates=3")
        done = run_with(there, NO_CLOCK)
        assert done.returncode == 0, done.stderr
        there.measured()  # with a clock that was set, and files of before that

    def test_a_python_that_greets_is_one_sentence(self, bundles):  # noqa: F811
        done = run_with(bundles.export("--replicates=3"), "print('Welcome to this board')")
        assert done.returncode == 2
        assert done.stderr.startswith("no agent runs here: the agent does not speak the protocol while starting")

    def test_a_terminal_that_has_not_each_character(self, linear_project, bundles):  # noqa: F811
        linear_project.write_model(load="fail")
        backend = linear_project.path / "linear_backend.py"
        backend.write_text(backend.read_text().replace("Didn't find op", "Operator für x fehlt …"))
        done = run_with(bundles.export("--replicates=3"), "", PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "Operator f\\xfcr x fehlt \\u2026" in done.stdout

    @pytest.mark.parametrize("left", [None, b"", b"other"])
    def test_predictions_that_a_power_cut_took_are_made_again(self, linear_project, bundles, left):  # noqa: F811
        there = bundles.export("--replicates=8")
        run_with(there, DIE_AFTER_THE_THIRD)
        (predictions,) = there.done.glob("*.npy")
        whole = predictions.read_bytes()
        predictions.unlink()
        if left is not None:
            predictions.write_bytes(left)
        result, document = linear_project.gate_json(there.measured())
        assert result.ret == 0 and document["cases"][0]["accuracy"]["top1"] == 1.0
        assert predictions.read_bytes() == whole

    def test_so_are_records(self, linear_project, bundles):  # noqa: F811
        there = bundles.export("--replicates=8")
        run_with(there, DIE_AFTER_THE_THIRD)
        for name in ("case-0000-0001", "run-0000", "canary-000000"):
            (there.done / f"{name}.json").write_bytes(b"")
        result, document = linear_project.gate_json(there.measured())
        assert result.ret == 0 and len(document["cases"][0]["latency"]["replicates"]) == 8

    def test_a_file_where_its_folder_should_be(self, linear_project, bundles):  # noqa: F811
        (linear_project.path / "file").write_text("")
        done = bundles.cli("export", "file/b.zip")
        assert done.returncode == pytest.ExitCode.USAGE_ERROR and "name another file" in done.stderr

    def test_an_export_of_nothing_is_no_success(self, linear_project, bundles):  # noqa: F811
        (linear_project.path / "test_plain.py").write_text("def test_it(): pass\n")
        (linear_project.path / "b.zip").write_text("an older bundle")
        done = bundles.cli("export", "b.zip", "test_plain.py")
        assert done.returncode == 2 and "b.zip was not written" in done.stderr

    def test_what_could_not_be_exported_is_judged_at_the_import(self, linear_project, bundles):  # noqa: F811
        linear_project.record([0.001])
        linear_project.write_model("second")
        linear_project.write_card("second")
        linear_project.save()
        linear_project.write_model("second", convert="fail")
        there = bundles.export("--replicates=3")
        there.measured()
        relaxed = "--gate-relax=inconclusive,invalid,ungateable"
        done = bundles.cli("import", str(there.results), "--compare", relaxed)
        assert done.returncode == 1 and "second-linear-fp32-b1-t1 is broken: build error in convert" in done.stdout

    def test_a_full_disk_at_the_import(self, linear_project, bundles, monkeypatch):  # noqa: F811
        target = bundles.export("--replicates=3").measured()

        def full(_source, destination):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination))

        monkeypatch.setattr("pytest_inference_gate.targets.bundle.shutil.copyfile", full)
        result = linear_project.run(target)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*Cannot write *.predict.npy: the disk of * is full*"])


def test_outputs_of_a_detector_without_a_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipfile.ZipFile

    def of_1970(*arguments, **settings):
        for file in tmp_path.rglob("*.npy"):
            os.utime(file, (1000, 1000))
        return archive(*arguments, **settings)

    monkeypatch.setattr("pytest_inference_gate.agent.model_outputs.zipfile.ZipFile", of_1970)
    with model_outputs.Writer(str(tmp_path / "o.npz"), 3) as writer:
        writer.put(0, [numpy.ones((3, 2), numpy.float32), numpy.zeros((3,), numpy.float32)], 3)
        writer.finish()
    monkeypatch.undo()
    one, two = read_predictions(tmp_path / "o.npz")
    assert one.shape == (3, 2) and two.shape == (3,) and one.sum() == 6


def test_close_does_not_wait_for_what_is_being_sent(on, tmp_path: Path) -> None:  # noqa: F811
    target, model = on.target(), tmp_path / "model.bin"
    on.agent(target).close()
    model.write_bytes(os.urandom(2**20))
    begun = on.board.folder / "begun"
    on.board.before(f'case "$SSH_ORIGINAL_COMMAND" in *" keep "*) touch {begun}; sleep 300;; esac')
    ended = []
    thread = threading.Thread(target=lambda: ended.append(outcome_of(lambda: target.put(model))))
    thread.start()
    assert wait_until(begun.exists, 60)
    closing = time.monotonic()
    target.close()
    assert time.monotonic() - closing < 150  # of the 300 that it takes to send
    thread.join()
    assert ended[0].kind == "unreachable" and not target.connection.alive


def test_a_long_run_keeps_its_files(on, tmp_path: Path) -> None:  # noqa: F811
    target, other, model = on.target(), on.target(), tmp_path / "model.bin"
    model.write_bytes(b"x" * 1000)
    there = target.put(model)
    for folder in on.board.files.iterdir():
        os.utime(folder, (time.time() - 7 * 3600,) * 2)
    target._marked -= 7 * 3600
    on.agent(target).close()
    other._ready(None).files.prune(KEPT_SECONDS, 0)
    assert Path(there).exists()


def test_no_folder_for_the_connection(on, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/user/1000/igate-x")

    monkeypatch.setattr("pytest_inference_gate.targets.ssh_connection.tempfile.mkdtemp", full)
    outcome = outcome_of(lambda: on.agent(on.target()))
    assert outcome.kind == "unreachable" and "No space left on device (/run/user/1000/igate-x)" in outcome.message


def test_an_ssh_within_half_a_quotation() -> None:
    with pytest.raises(ConnectionFailed, match="ends within a quotation"):
        SshTarget(SshAddress.parse("ssh://board"), environment={"INFERENCE_GATE_SSH": "ssh -F /home/me/jim's.conf"})


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    outcome = outcome_of(lambda: InterpreterTarget().start_agent(tmp_path, Limits()))  # a folder has its place
    assert outcome.kind == "storage_error" and "Cannot write" in outcome.message


def test_a_python_in_a_folder_that_is_no_utf_8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102  (a Path takes no bytes)
    os.symlink(sys.executable, folder + b"/python")  # noqa: PTH211
    InterpreterTarget(os.fsdecode(folder) + "/python").start_agent(tmp_path / "a.log", Limits()).close()
    assert b"caf\xe9/python" in (tmp_path / "a.log").read_bytes()
