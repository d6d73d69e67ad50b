"""A board that nobody can reach: the archive that goes there, its run with nothing installed, and what comes back."""

import contextlib
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pytest_inference_gate.bundles.export import BundleError
from pytest_inference_gate.bundles.results import read_results

CASE = "linear-linear-fp32-b1-t1"


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # what is asked here is no verdict on latency
    return linear_project


class Board:
    """An empty folder that stands for the board, with the bundle in it."""

    def __init__(self, folder, bundle):
        self.folder = folder
        folder.mkdir()
        self.bundle = shutil.copy(bundle, folder)
        self.results = folder / "b.results.zip"
        self.done = folder / "b.work" / "done"

    def command(self, *options):
        return ["env", "-i", sys.executable, *options, "b.zip"]

    def start(self):
        return subprocess.Popen(self.command(), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *options, command=None):
        return subprocess.run(
            command or self.command(*options), cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )

    def measured(self):
        done = self.run()
        assert done.returncode == 0, done.stdout + done.stderr
        return f"--gate-target=bundle:{self.results}"


class Bundles:
    def __init__(self, project):
        self.project = project
        self.number = 0

    def cli(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "pytest_inference_gate", "bundle", *arguments],
            cwd=self.project.path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def export(self, *arguments):
        done = self.cli("export", "b.zip", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        self.number += 1
        return Board(self.project.path / f"board-{self.number}", self.project.path / "b.zip")


@pytest.fixture
def bundles(linear_project):
    return Bundles(linear_project)


def verdicts(document):
    return {case["id"]: (case["verdict"], case["outcome"]["kind"]) for case in document["cases"]}


def changed(path, change, name="results.json"):
    """The archive with one of its files changed, and the digest beside it made right again."""
    with zipfile.ZipFile(path) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    document = json.loads(files[name])
    change(document)
    files[name] = json.dumps(document).encode()
    files["results.sha256"] = hashlib.sha256(files["results.json"]).hexdigest().encode()
    rewrite(path, files)


def rewrite(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


class TestTheWholeWay:
    def test_a_baseline_and_an_upgrade_are_judged_as_they_would_be_here(self, linear_project, bundles):
        linear_project.record([0.001])
        target = bundles.export("--replicates=6").measured()
        saved = linear_project.run(target, "--benchmark-save=before")
        assert saved.ret == 0, saved.stdout.str()
        (session,) = linear_project.sessions()
        block = json.loads(session.read_text())["benchmarks"][0]["extra_info"]["inference_gate"]
        assert block["replicates"] == pytest.approx([0.001] * 6)
        assert block["accuracy"]["top1"] == 1.0

        unchanged = linear_project.gate_json(target, "--benchmark-compare")
        local = linear_project.gate_json("--benchmark-compare")
        assert verdicts(unchanged[1]) == verdicts(local[1]) == {CASE: ("pass", "ok")}
        assert unchanged[1]["device"]["id"] == local[1]["device"]["id"]
        assert unchanged[0].ret == local[0].ret == 0

        linear_project.write_card(tolerance="latency = 0.05")
        linear_project.record([0.002])
        slower = linear_project.gate_json(bundles.export("--replicates=10").measured(), "--benchmark-compare")
        local = linear_project.gate_json("--benchmark-compare")
        assert verdicts(slower[1]) == verdicts(local[1]) == {CASE: ("slower", "ok")}
        assert slower[0].ret == local[0].ret == 1

    def test_the_command_imports_with_the_cases_that_the_results_have(self, linear_project, bundles):
        linear_project.write_model("second")
        linear_project.write_card("second")
        board = bundles.export("--replicates=3", "--gate-select=second")
        board.measured()
        done = bundles.cli("import", str(board.results), "--save=first")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "second-linear-fp32-b1-t1" in linear_project.sessions()[0].read_text()
        assert CASE not in linear_project.sessions()[0].read_text()
        assert "could be reached" not in done.stdout
        again = bundles.cli("import", str(board.results), "--compare", "--gate-relax=inconclusive,invalid,ungateable")
        assert "compared with 1 session of the baseline" in again.stdout, again.stdout + again.stderr

    def test_what_the_replicates_leave_open_is_inconclusive_and_says_how_to_measure_more(self, linear_project, bundles):
        linear_project.write_card(tolerance="latency = 0.05")
        linear_project.record([0.001])
        linear_project.save()
        linear_project.record([0.002])
        result, document = linear_project.gate_json(bundles.export("--replicates=5").measured(), "--benchmark-compare")
        assert verdicts(document) == {CASE: ("inconclusive", "ok")}
        assert result.ret == 1
        (notice,) = [notice for notice in document["notices"] if "bundle" in notice]
        assert "bundle export --replicates=10" in notice

    @pytest.mark.parametrize(
        ("trouble", "options", "kind", "words"),
        [
            ({"load": "crash"}, (), "crash", "died of SIGABRT while loading the model"),
            ({"load": "fail"}, (), "load_error", "Didn't find op"),
            ({"load": "hang"}, ("--gate-timeout=load=1",), "timeout", "loading the model took longer than 1 s"),
            ({"load": "hog"}, ("--gate-memory-limit=300MiB",), "oom", "died of SIGKILL while loading the model"),
        ],
    )
    def test_what_goes_wrong_there_has_the_kind_that_it_has_here(self, linear_project, bundles, trouble, options, kind, words):
        linear_project.save()
        linear_project.write_model(**trouble)
        target = bundles.export("--replicates=3", *options).measured()
        result, document = linear_project.gate_json(
            target, "--benchmark-compare", *options
        )  # the float reference is the same model
        assert verdicts(document) == {CASE: ("broken", kind)}
        assert words in document["cases"][0]["outcome"]["message"]
        assert result.ret == 1

    def test_a_case_that_the_bundle_has_not_is_told(self, linear_project, bundles):
        target = bundles.export("--replicates=3").measured()
        linear_project.write_model("second")
        linear_project.write_card("second")
        _, document = linear_project.gate_json(target)
        assert verdicts(document) == {CASE: ("pass", "ok"), "second-linear-fp32-b1-t1": ("broken", "unreachable")}
        assert "has no such case: select those that it has" in document["cases"][1]["outcome"]["message"]

    def test_so_is_an_artifact_that_changed_since(self, linear_project, bundles):
        target = bundles.export("--replicates=3").measured()
        linear_project.write_model(work=2)
        _, document = linear_project.gate_json(target)
        assert "was measured with another artifact" in document["cases"][0]["outcome"]["message"]


# A run that kills itself as soon as a file of results has its place, so that no test has to be quick.
DIE_AFTER_THE_THIRD = """
import os, signal
replace = os.replace
def replace_and_die(source, target):
    replace(source, target)
    if str(target).endswith("case-0000-0002.json"):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
"""


class TestOnTheBoard:
    def test_a_killed_run_goes_on_where_it_ended(self, linear_project, bundles):
        board = bundles.export("--replicates=8")
        (board.folder / "sitecustomize.py").write_text(DIE_AFTER_THE_THIRD)
        killed = board.run(command=["env", "-i", f"PYTHONPATH={board.folder}", sys.executable, "b.zip"])
        assert killed.returncode == -signal.SIGKILL
        kept = {path.name: path.stat().st_mtime_ns for path in board.done.glob("case-*")}
        assert len(kept) >= 4 and not board.results.exists()
        done = board.run()
        assert done.returncode == 0, done.stderr
        assert "what was finished there is kept" in done.stdout
        assert {name: (board.done / name).stat().st_mtime_ns for name in kept} == kept
        result, document = linear_project.gate_json(f"--gate-target=bundle:{board.results}")
        assert len(document["cases"][0]["latency"]["replicates"]) == 8
        assert "the bundle was stopped and went on: it measured in 2 parts" in document["notices"]
        assert result.ret == 0

    def test_no_agent_survives_a_killed_run(self, linear_project, bundles):
        linear_project.write_model(load="hang")
        board = bundles.export("--replicates=3")
        process = board.start()
        marker = str(board.folder / "b.work" / "files" / "agent").encode()
        assert wait_for(lambda: agents_with(marker))
        process.kill()
        process.communicate()
        assert wait_for(lambda: not agents_with(marker))

    @pytest.mark.parametrize("blocks", [4, 64])  # of 1024 bytes: not even the agent; the agent, but not the inputs or the results
    def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(self, bundles, blocks):
        board = bundles.export("--replicates=3")
        done = board.run(command=["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "bash", *board.command()])
        if done.returncode != 0:
            assert re.fullmatch(
                r"the disk is full \(.*\): make room.*; run the bundle again, what is finished is kept\n", done.stderr
            )
            assert not board.results.exists()
        assert blocks != 4 or done.returncode == 2
        board.measured()

    def test_without_numpy_nothing_is_measured(self, bundles):
        board = bundles.export("--replicates=3")
        done = board.run("-S")
        assert done.returncode == 2
        assert re.match(r".* \(Python 3.*\) has no NumPy, which every case needs: run the bundle with the Python", done.stderr)
        assert not board.done.exists()

    def test_a_damaged_bundle_is_told_before_anything_runs(self, bundles):
        board = bundles.export("--replicates=3")
        whole = (board.folder / "b.zip").read_bytes()
        with zipfile.ZipFile(board.folder / "b.zip") as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        inputs = next(name for name in files if name.endswith(".npy"))
        rewrite(board.folder / "b.zip", {**files, inputs: files[inputs][:-1] + b"x"})
        assert "is damaged or was changed" in board.run().stderr
        plan = json.loads(files["plan.json"])
        plan["files"]["../evil"] = {"sha256": "0" * 64, "size": 0}
        rewrite(board.folder / "b.zip", {**files, "plan.json": json.dumps(plan).encode(), "../evil": b""})
        assert "names files outside of its own folder" in board.run().stderr
        (board.folder / "b.zip").write_bytes(whole[:-200])
        assert board.run().returncode != 0  # Python itself does not take it for a program
        (board.folder / "b.zip").write_bytes(whole)
        board.measured()

    def test_what_another_bundle_has_begun_is_left_alone(self, bundles):
        first = bundles.export("--replicates=3")
        first.measured()
        second = bundles.export("--replicates=4")
        shutil.copy(second.bundle, first.folder / "b.zip")
        done = first.run()
        assert done.returncode == 2
        assert "was begun by another bundle: remove it, or name another folder with --work=DIR" in done.stderr


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def agents_with(marker):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker in path.read_bytes():
                found.append(path)
    return found


class TestResults:
    @pytest.fixture
    def results(self, bundles):
        board = bundles.export("--replicates=3")
        board.measured()
        return board.results

    def refused(self, path):
        with pytest.raises(BundleError) as error:
            read_results(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_what_was_cut_changed_or_is_something_else_is_refused_in_one_sentence(self, results, bundles, tmp_path):
        whole = results.read_bytes()
        with zipfile.ZipFile(results) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        predictions = next(name for name in files if name.endswith(".npy"))

        results.write_bytes(whole[: len(whole) // 2])
        assert "copy it from the board once more" in self.refused(results)
        rewrite(results, {**files, predictions: files[predictions][:-1] + b"x"})
        assert f"({predictions} is not what was written)" in self.refused(results)
        rewrite(results, {**files, "results.json": files["results.json"].replace(b"0", b"1", 1)})
        assert "(results.json is not what was written)" in self.refused(results)
        rewrite(results, {**files, "../evil.json": b"{}"})
        assert "evil" in self.refused(results)
        rewrite(results, {**files, "plan.json": files["plan.json"] + b" "})
        assert "the results of another bundle" in self.refused(results)
        rewrite(results, {"a.txt": b"hello"})
        assert "is no archive that a bundle wrote" in self.refused(results)
        assert "is the bundle itself: run it on the board" in self.refused(bundles.project.path / "b.zip")
        assert "there is no file" in self.refused(tmp_path / "missing.zip")
        results.write_bytes(whole)
        read_results(results).close()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda document: document["cases"][CASE]["replicates"][0]["measure"].update(rounds=[]), "rounds"),
            (
                lambda document: document["cases"][CASE]["replicates"][0]["measure"].update(rounds=[float("nan")]),
                "cannot be read",
            ),
            (lambda document: document["cases"][CASE]["replicates"][0]["measure"].update(rounds=[-1.0]), "is no duration"),
            (lambda document: document.pop("probe"), "nothing usable at probe"),
            (lambda document: document.update(schema="inference-gate-bundle-results/9"), "nothing usable at schema"),
            (lambda document: document["cases"].clear(), f"says nothing of {CASE}"),
        ],
    )
    def test_so_are_values_that_no_board_measures(self, results, change, words):
        changed(results, change)
        assert words in self.refused(results)

    def test_another_agent_s_results_are_not_taken(self, results, monkeypatch):
        monkeypatch.setattr("pytest_inference_gate.bundles.results.agent_digest", lambda: "other")
        assert "was measured by the agent of another release of the plugin" in self.refused(results)

    def test_a_run_with_them_is_a_usage_error(self, linear_project, results):
        results.write_bytes(b"no archive")
        result = linear_project.run(f"--gate-target=bundle:{results}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*copy it from the board once more*"])


class TestExport:
    def test_what_cannot_be_converted_is_left_out_and_told(self, linear_project, bundles):
        linear_project.write_model("bad", convert="fail")
        linear_project.write_card("bad")
        done = bundles.cli("export", "b.zip")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "not in the bundle: bad-linear-fp32-b1-t1: the converter does not know this layer" in done.stdout
        assert "1 case, 10 replicates of each" in done.stdout
        linear_project.write_model(convert="fail")
        done = bundles.cli("export", "c.zip")
        assert done.returncode == pytest.ExitCode.USAGE_ERROR
        assert "no case could be exported" in done.stderr and not (linear_project.path / "c.zip").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("b",), "name it b.zip"),
            (("models.zip",), "is a directory"),
            (("b.zip", "--replicates=0"), "is not a whole number from 1 to 9999"),
            (("b.zip", "--gate-select=nothing"), "no case matches"),
            (("b.zip", "--gate-target=ssh://board"), "leave out --gate-target"),
        ],
    )
    def test_a_wrong_question_is_one_sentence(self, linear_project, bundles, arguments, words):
        (linear_project.path / "models.zip").mkdir()
        done = bundles.cli("export", *arguments)
        assert done.returncode in (2, 4)
        assert words in done.stderr
