"""Models that only the board can build, in a bundle: built there once, brought back, and judged here with what they were built as."""

import json
import signal
import zipfile

import psutil
import pytest
from test_bundle import CASE, Bundles, changed, verdicts, wait_for
from test_coverage_of_a_run import LESS, WHOLE

from pytest_inference_gate.artifacts import ArtifactStore
from pytest_inference_gate.bundles.export import BundleError
from pytest_inference_gate.bundles.results import read_results

BUILD = "linear-linear-fp32-b1"


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # what is asked here is no verdict on latency
    return linear_project


@pytest.fixture
def project(linear_project, monkeypatch):
    monkeypatch.setenv("LINEAR_BUILT_ON_DEVICE", "1")
    return linear_project


@pytest.fixture
def bundles(project):
    return Bundles(project)


def artifacts(project):
    return [entry for entry in ArtifactStore(project.store).entries() if entry.kind == "artifact"]


def test_what_the_board_built_is_in_the_store_and_is_judged(project, bundles):
    log = project.path / "conversions"
    log.touch()
    two = {"builds": [{"build": 0}, {"build": 1}], "built": str(project.path / "built"), "log": str(log)}
    project.record([0.001], converted=WHOLE, remarks=["one layer was left out"], **two)
    board = bundles.export("--replicates=4")
    assert log.read_text() == "" and not artifacts(project)  # nothing was built here
    with zipfile.ZipFile(project.path / "b.zip") as archive:
        plan = json.loads(archive.read("plan.json"))
    assert [(case["build"], case["artifact"], case["load"]["model"]) for case in plan["cases"]] == [(BUILD, None, None)]
    (build,) = plan["builds"]
    assert build["name"] == BUILD and build["convert"]["source"]["path"] in plan["files"]

    done = board.run()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith(f"building 1 of 1: {BUILD}: built in ")
    assert lines[2].startswith(f"predicting 1 of 1: {CASE}")
    target = f"--gate-target=bundle:{board.results}"
    saved = project.run(target, "--benchmark-save=before")
    assert saved.ret == 0, saved.stdout.str()
    (stored,) = artifacts(project)
    assert json.loads((stored.payload / "model.json").read_text())["build"] == 0
    assert stored.provenance["details"]["coverage"] == WHOLE
    assert stored.log is not None

    result, document = project.gate_json(target, "--benchmark-compare")
    (case,) = document["cases"]
    assert result.ret == 0, result.stdout.str()
    assert (case["verdict"], case["artifact"]["digest"], case["artifact"]["cached"]) == ("pass", stored.digest, True)
    assert case["coverage"]["found"]["on_accelerator"] == 70
    assert f"{BUILD}: one layer was left out" in document["notices"]

    # The same bundle once more, in another folder: another engine of the same, which is not taken for the one that is stored.
    project.record([0.001], converted=LESS, **two)
    board = bundles.export("--replicates=4")
    result, document = project.gate_json(board.measured(), "--benchmark-compare")
    (case,) = document["cases"]
    assert case["artifact"]["digest"] != stored.digest
    assert (result.ret, case["verdict"]) == (1, "fallback")
    assert len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("trouble", "options", "kind", "words"),
    [
        ({"convert": "crash"}, (), "crash", "died of SIGSEGV while converting"),
        ({"convert": "fail"}, (), "build_error", "the converter does not know this layer"),
        ({"wait_for": "/nowhere"}, ("--gate-timeout=convert=8",), "timeout", "converting took longer than 8 s"),
        ({"convert": "hog"}, ("--gate-memory-limit=300MiB",), "oom", "died of SIGKILL while converting"),
    ],
)
def test_a_build_that_dies_there_ends_its_cases_and_no_others(project, bundles, trouble, options, kind, words):
    log = project.path / "conversions"
    project.write_model(log=str(log), **trouble)
    project.write_model("second")
    project.write_card("second")
    board = bundles.export("--replicates=3", *options)
    target = board.measured()
    result, document = project.gate_json(target, *options)
    assert verdicts(document) == {CASE: ("broken", kind), "second-linear-fp32-b1-t1": ("pass", "ok")}
    (case,) = [case for case in document["cases"] if case["id"] == CASE]
    assert words in case["outcome"]["message"] and case["outcome"]["stage"] == "convert"
    assert result.ret == 1
    board.run()
    assert len(log.read_text().splitlines()) == 1  # what has failed is not tried again


def test_a_run_killed_around_its_build_goes_on(project, bundles):
    log, go = project.path / "conversions", project.path / "go"
    project.write_model(log=str(log), wait_for=str(go))
    board = bundles.export("--replicates=3")

    process = board.start()
    assert wait_for(lambda: log.exists() and log.read_text().endswith("\n"))  # in the middle of the build
    process.kill()
    process.communicate()
    (agent,) = (int(line) for line in log.read_text().splitlines())
    assert wait_for(lambda: not alive(agent))
    assert not (board.done / "build-0000.json").exists()

    go.touch()
    process = board.start()
    assert wait_for(lambda: (board.done / "build-0000.json").exists())  # right after it
    process.send_signal(signal.SIGKILL)
    process.communicate()
    built = board.done / "build-0000" / "model.json"
    before = built.stat().st_mtime_ns
    result, document = project.gate_json(board.measured())
    assert built.stat().st_mtime_ns == before
    assert len(log.read_text().splitlines()) == 2
    assert verdicts(document) == {CASE: ("pass", "ok")} and result.ret == 0
    assert "the bundle was stopped and went on: it measured in 3 parts" in document["notices"]

    built.write_text("{}")
    done = board.run()
    assert done.returncode == 2
    assert "is not what was built there: remove" in done.stderr


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_does_not_belong_together_is_told(project, bundles):
    board = bundles.export("--replicates=3")
    target = board.measured()
    project.write_model(work=2)
    _, document = project.gate_json(target)
    assert (
        "holds a model that was built of another checkpoint, or with other settings" in document["cases"][0]["outcome"]["message"]
    )
    result = project.run(target, "--gate-rebuilds=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the board of a bundle has built each once*"])
    done = bundles.cli("export", "b.zip", "--gate-rebuilds=2")
    assert "a bundle has each model built once: leave out --gate-rebuilds" in done.stderr

    whole = board.results.read_bytes()
    for change, words in (
        (lambda document: document["builds"].clear(), f"says nothing of {BUILD}, which its plan has the board build"),
        (lambda document: document["builds"][BUILD].update(folder="elsewhere"), f"names a model {BUILD} that it does not hold"),
        (lambda document: document["builds"][BUILD].update(folder="../.."), f"names a model {BUILD} that it does not hold"),
        (lambda document: document["builds"][BUILD].update(log="/etc/passwd"), f"names a log of {BUILD} that it does not hold"),
    ):
        board.results.write_bytes(whole)
        changed(board.results, change)
        with pytest.raises(BundleError) as error:
            read_results(board.results)
        assert words in str(error.value)
