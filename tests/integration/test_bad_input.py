"""Whole sessions with something wrong on the way in: cards, checkpoints, data sets, the store, and runs that are cut off."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

CASE = "linear-linear-fp32-b1-t1"


@pytest.fixture
def project(linear_project):
    linear_project.ini(gate_replicates=1)
    return linear_project


def second(project, **card):
    """Another model, which nothing is wrong with."""
    project.write_card("second", **card)
    project.write_model("second")


def outcomes(document):
    return {case["model"]: case for case in document["cases"]}


# ---------------------------------------------------------------- cards


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "*bad.toml: the card is not TOML: *"),
        ('name = "bad"\n', "*bad.toml has 4 problems:*"),
        (None, "*bad.toml: backends.linnear: found 'linnear' *no known backend*did you mean 'linear'?*"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--collect-only", "-q")])
def test_a_card_that_cannot_be_used_ends_the_run_before_anything_is_measured(project, text, sentence, arguments):
    if text is None:
        project.write_card("bad")
        text = (project.path / "models" / "bad.toml").read_text().replace("backends = { linear", "backends = { linnear")
    (project.path / "models" / "bad.toml").write_text(text)
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {sentence}"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "def pytest_" not in result.stdout.str()
    assert not project.store.exists()


def test_a_folder_without_cards_and_one_that_is_not_there_are_told(project):
    (project.path / "empty").mkdir()
    result = project.run("--gate-models=empty")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *no model card in *empty: *--gate-models*"])
    result = project.run("--gate-models=nowhere")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *nowhere is not a directory*"])


def test_plain_tests_of_the_project_run_although_a_card_is_bad(project):
    """They have no case, so they do not need the cards."""
    (project.path / "models" / "linear.toml").write_text("name = ")
    project.pytester.makepyfile(test_plain="def test_plain():\n    pass\n")
    result = project.run("test_plain.py")
    assert result.ret == 0
    result.assert_outcomes(passed=1)


# ---------------------------------------------------------------- data of one model


def cut_digest(project):
    text = (project.path / "models" / "linear.toml").read_text()
    text = text.replace('file = "linear.json"', f'file = "linear.json", sha256 = "{"0" * 64}"')
    (project.path / "models" / "linear.toml").write_text(text)


def write_set(project, **arrays):
    numpy.savez(project.path / "models" / "evaluation.npz", **arrays)


IMAGES = numpy.zeros((20, 4, 4), numpy.uint8)
WRONG = {
    "digest": (cut_digest, "*linear.json*000000000000*"),
    "checkpoint": (lambda project: (project.path / "models" / "linear.json").unlink(), "*linear.json*"),
    "set": (lambda project: (project.path / "models" / "evaluation.npz").unlink(), "*no data set at *evaluation.npz*"),
    "cut set": (lambda project: os.truncate(project.path / "models" / "evaluation.npz", 500), "*evaluation.npz*"),
    "label": (
        lambda project: write_set(project, images=IMAGES, labels=numpy.full(20, 5)),
        "*label 5 is out of range; expected 0 to 4*",
    ),
    "missing label": (
        lambda project: write_set(project, images=IMAGES, labels=numpy.zeros(19, int)),
        "*20 images but 19 labels*",
    ),
    "shape": (
        lambda project: write_set(project, images=numpy.zeros((20, 4, 5), numpy.uint8), labels=numpy.zeros(20, int)),
        "*4 x 5 pixels*",
    ),
    "calibration of one": (
        lambda project: numpy.savez(
            project.path / "models" / "calibration.npz", images=numpy.ones((1, 4, 4), numpy.uint8), labels=[1]
        ),
        "*the calibration set holds one picture, and the range of an activation cannot be told from that: give it 100 pictures or more.",
    ),
    "calibration": (
        lambda project: (project.path / "models" / "calibration.npz").write_bytes(
            (project.path / "models" / "evaluation.npz").read_bytes()
        ),
        "*calibration pictures are in the evaluation set too*",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_one_models_data_is_the_outcome_of_its_cases(project, what):
    damage, sentence = WRONG[what]
    second(project)
    text = (project.path / "models" / "second.toml").read_text()
    for name in ("evaluation", "calibration"):
        (project.path / "models" / f"second_{name}.npz").write_bytes((project.path / "models" / f"{name}.npz").read_bytes())
        text = text.replace(f'"{name}.npz"', f'"second_{name}.npz"')
    (project.path / "models" / "second.toml").write_text(text)
    project.write_card(precisions=["int8"] if what.startswith("calibration") else ["fp32"])
    damage(project)
    result, document = project.gate_json("--gate-jobs=2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    cases = outcomes(document)
    assert cases["second"]["verdict"] == "pass"
    assert cases["linear"]["outcome"]["kind"] == "fetch_error"
    assert cases["linear"]["verdict"] == "broken"
    assert document["summary"]["red"] is True
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines([sentence])
    assert "Traceback" not in result.stdout.str()


def test_a_folder_of_pictures_with_one_that_is_missing_and_one_that_is_none(project):
    from PIL import Image

    folder = project.path / "models" / "pictures"
    folder.mkdir()
    with (project.path / "models" / "pictures.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label"])
        for number in range(3):
            Image.fromarray(numpy.full((4, 4), number, numpy.uint8)).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", number])
    text = (project.path / "models" / "linear.toml").read_text()
    text = text.replace('file = "evaluation.npz", top1 = 1.0', 'file = "pictures", labels = "pictures.csv"')
    (project.path / "models" / "linear.toml").write_text(text)
    (folder / "1.png").write_text("no picture")
    result, document = project.gate_json()
    assert document["cases"][0]["outcome"]["kind"] == "fetch_error"
    result.stdout.fnmatch_lines(["*1.png is not a picture that can be read*"])
    (folder / "1.png").unlink()
    result, document = project.gate_json()
    assert document["cases"][0]["outcome"]["kind"] == "fetch_error"
    result.stdout.fnmatch_lines(["*pictures.csv, row 3: the picture *1.png is missing*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_run_in_which_no_data_can_be_had_is_red_and_saves_nothing(project):
    (project.path / "models" / "evaluation.npz").unlink()
    result = project.run("--benchmark-save=before")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=2)
    assert project.sessions() == []


# ---------------------------------------------------------------- the store


def test_a_store_that_cannot_be_used_ends_the_run_with_one_sentence(project):
    project.store.mkdir()
    (project.store / "store.json").write_text(json.dumps({"format": "inference-gate-store", "version": 99}))
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: *written by a newer version of the plugin*upgrade pytest-inference-gate or *--gate-store*"]
    )
    result = project.run("--gate-store=pytest.ini")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *pytest.ini is a file*--gate-store*"])
    result = project.run("--gate-store=models")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *models is not an artifact store*--gate-store*"])
    assert not list(project.path.glob("models/tmp"))


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "inference-gate-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_run_with_one_sentence_and_the_next_run_is_right(project, small_disk):
    argument = f"--gate-store={small_disk / 'store'}"
    assert project.run(argument).ret == 0
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 4096)
        except OSError:
            pass
    project.write_model(note="a new checkpoint, which has to be converted")
    result = project.run(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    assert line.startswith("ERROR: ") and "free some space" in line and "--gate-store" in line
    assert "Traceback" not in result.stdout.str()
    filler.unlink()
    assert project.run(argument).ret == 0


def start(project, output):
    """A whole session in a process of its own, which goes on while the test does other things."""
    with output.open("w") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest"],
            cwd=project.path,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_two_runs_at_once_on_one_store_are_both_green_and_convert_once(project):
    log, go = project.path / "conversions", project.path / "go"
    project.write_model(log=str(log), wait_for=str(go))
    outputs = [project.path / "first.txt", project.path / "other.txt"]
    first = start(project, outputs[0])
    wait_for(log.exists, first)
    other = start(project, outputs[1])
    wait_for(lambda: f"Waiting for another run (process {first.pid})" in outputs[1].read_text(), other)
    go.touch()
    assert (first.wait(100), other.wait(100)) == (0, 0), [path.read_text() for path in outputs]
    assert len(log.read_text().split()) == 1
    assert ["(1 made, 0 from the store)" in path.read_text() for path in outputs] == [True, False]


def test_a_run_killed_in_the_middle_of_a_conversion_leaves_a_store_that_the_next_one_can_use(project):
    log, go = project.path / "conversions", project.path / "go"
    project.write_model(log=str(log), wait_for=str(go))
    killed = start(project, project.path / "killed.txt")
    wait_for(log.exists, killed)
    wait_for(lambda: log.read_text().endswith("\n"), killed)
    agent = int(log.read_text())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    while _alive(agent):
        assert time.monotonic() < deadline, "the agent outlived the run"
        time.sleep(0.02)
    go.touch()
    result, document = project.gate_json()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*(1 made, 0 from the store)*"])
    (case,) = document["cases"]
    stored = project.store / "artifacts" / case["artifact"]["digest"]
    for name, facts in json.loads((stored / "provenance.json").read_text())["files"].items():
        assert hashlib.sha256((stored / name).read_bytes()).hexdigest() == facts["sha256"]
    assert len(log.read_text().split()) == 2
    assert project.run().ret == 0
    assert len(log.read_text().split()) == 2


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
