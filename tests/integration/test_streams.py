"""Whole sessions with streams, on a linear model in NumPy and a real video."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ssh_server import LoopbackBoard

cv2 = pytest.importorskip("cv2")
import numpy  # noqa: E402

CASE = "linear-linear-fp32-b1-t1"
TABLE = '[stream]\nsource = "scene.mp4"\n'


def write_video(path, frames=40, shade=0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 50, (64, 48))
    for number in range(frames):
        writer.write(numpy.full((48, 64, 3), (3 * number + shade) % 256, numpy.uint8))
    writer.release()


@pytest.fixture
def project(linear_project):
    write_video(linear_project.path / "models" / "scene.mp4")
    card(linear_project, TABLE)
    return linear_project


def card(project, stream, tolerance="latency = 5.0\ntop1_drop = 0.02"):
    project.write_card(extra=stream, tolerance=tolerance)
    path = project.path / "models" / "linear.toml"
    path.write_text(path.read_text().replace('"grayscale" }', '"grayscale", resize = "resize" }'))


def test_a_stream_is_measured_saved_and_compared_like_any_case(project):
    card(project, TABLE + "overlap = [false, true]\n")
    saved = project.save("before", "--gate-replicates=2", "--gate-sustained=1")
    saved.assert_outcomes(passed=4)
    saved.stdout.fnmatch_lines(
        ["1 case on *", "*2 streams on *", "*overlap*frame*costliest*frames*dropped*last /*", "*no *pass", "*yes *pass"]
    )
    blocks = {
        benchmark["extra_info"]["inference_gate"]["id"]: benchmark["extra_info"]["inference_gate"]
        for benchmark in json.loads(project.sessions()[0].read_text())["benchmarks"]
    }
    assert list(blocks) == [CASE, f"{CASE}-stream", f"{CASE}-stream_overlapped"]
    assert "stream" not in blocks[CASE]
    stream = blocks[f"{CASE}-stream"]["stream"]
    assert stream["source"] == "scene.mp4" and stream["frames"] == 40  # 20 of each replicate, as --gate-rounds says
    assert stream["drops"] == "computed" and 0 <= stream["dropped_share"] < 1
    assert stream["sustained"]["frames"] >= 1 and stream["sustained"]["drift"]["side"] == pytest.approx(0.2)

    project.scale_baseline(0.2)  # as if it had been five times as fast
    card(project, TABLE + "overlap = [false, true]\n[limits]\nframes_per_second = 1_000_000.0\n", tolerance="latency = 0.5")
    result, document = project.gate_json("--gate-replicates=2", "--benchmark-compare", "-k", "stream and not overlapped")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["stream"]["costliest"] in case["stream"]["stages"]
    assert [limit["name"] for limit in case["limits"] if limit["exceeded"]] == ["frames_per_second"]
    assert case["verdict"] in ("slower", "over_limit", "inconclusive", "ungateable")

    write_video(project.path / "models" / "scene.mp4", shade=1)
    result, document = project.gate_json("--gate-replicates=2", "--benchmark-compare", "-k", "stream and not overlapped")
    assert document["cases"][0]["latency"]["verdict"] == "invalid"
    assert "the baseline was measured with other frames than this run" in document["cases"][0]["latency"]["reason"]


SLOW = ("--gate-replicates=1", "--gate-rounds=2", "-k", "stream", "--benchmark-save=before")


def test_a_model_whose_frame_takes_longer_than_an_end_of_the_long_run_is_compared_frame_by_frame(project):
    project.write_model(pause=0.5)
    result, document = project.gate_json("--gate-sustained=2", *SLOW)
    assert result.ret == 0, result.stdout.str()
    sustained = document["cases"][0]["stream"]["sustained"]
    assert sustained["side_seconds"] == pytest.approx(0.4)
    assert sustained["first_median"] > 0.5 and sustained["last_median"] > 0.5 and sustained["p_value"] is None
    assert sustained["last_frames_per_second"] > 0


def test_a_long_run_of_one_frame_says_how_long_it_should_be(project):
    project.write_model(pause=1.5)
    result, document = project.gate_json("--gate-sustained=1", *SLOW)
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "broken"
    result.stdout.fnmatch_lines(
        ["*1 frame was done in a long run of 1 s, which are too few *: let it go on for --gate-sustained=?? at least*"]
    )


def test_two_stacks_take_turns_at_a_stream(project):
    result, document = project.gate_json(
        f"--gate-against={project.other_stack()}", "--gate-replicates=2", "--gate-tolerance=900%", "-k", "stream"
    )
    assert result.ret == 0, result.stdout.str()
    (case,) = document["cases"]
    assert len(case["latency"]["pair_ratios"]) == 2
    assert case["stream"]["frames"] == 100  # before the blocks of each of the pairs
    result.stdout.fnmatch_lines(["*1 stream on *", "*this*other*this /*"])


def test_in_real_time_a_slow_model_drops_frames(project):
    project.write_model(work=100_000)  # several frames long, on a fast machine too
    card(project, TABLE + 'pace = "frames"\n[limits]\ndropped_share = 0.001\n')
    result, document = project.gate_json("--gate-replicates=1", "-k", "stream")
    (case,) = document["cases"]
    assert case["stream"]["drops"] == "real" and case["stream"]["dropped_share"] > 0
    assert case["verdict"] == "over_limit"
    assert "frames are dropped in real time" in case["reason"]
    result.stdout.fnmatch_lines(["*over_limit: * of the stream's frames are dropped in real time,"])


def test_without_streams_the_suite_is_as_it_was(linear_project):
    result = linear_project.run("--collect-only", "-q")
    assert [line for line in result.outlines if "::" in line] == [
        f"test_accuracy.py::test_accuracy[{CASE}]",
        f"test_latency.py::test_latency[{CASE}]",
    ]
    result.stdout.fnmatch_lines(["2 tests collected*"])
    refused = linear_project.run("--gate-sustained=5")
    refused.stderr.fnmatch_lines(["ERROR: --gate-sustained lets streams go on, and no test of a stream is selected: *"])


def test_the_option_makes_streams_of_all(linear_project):
    shutil.copy(linear_project.path / "models" / "evaluation.npz", linear_project.path / "models" / "other.mp4")
    card(linear_project, "")
    result, document = linear_project.gate_json("--gate-stream=models/other.mp4", "--gate-replicates=1")
    result.assert_outcomes(passed=2, failed=1)
    assert [case["id"] for case in document["cases"]] == [CASE, f"{CASE}-stream"]
    result.stdout.fnmatch_lines(["*other.mp4 is not a video that OpenCV can read: give another file, or convert it*"])


def test_a_video_is_sent_to_a_board(project, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="board-") as folder:
        board = LoopbackBoard(Path(folder))
        board.start()
        monkeypatch.setenv("INFERENCE_GATE_SSH", board.environment["INFERENCE_GATE_SSH"])
        result, document = project.gate_json(f"--gate-target={board.url}", "--gate-replicates=1", "-k", "stream")
        kept = board.kept()
        board.stop()
    assert result.ret == 0, result.stdout.str()
    assert document["cases"][0]["stream"]["frames"] == 20
    assert "scene.mp4" in kept and "inputs.npy" not in kept


def test_a_bundle_has_no_streams_and_says_so(project):
    command = [sys.executable, "-m", "pytest_inference_gate", "bundle", "export", "board.zip", "--replicates=1"]
    done = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"not in the bundle: {CASE}-stream: a bundle has no streams: reach the board by ssh" in done.stdout


def test_what_a_video_lacks_is_a_note(project):
    whole = project.path / "models" / "scene.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 50, (64, 48))
    for number in range(40):
        writer.write(numpy.full((48, 64, 3), 3 * number, numpy.uint8))
    writer.release()
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    card(project, '[stream]\nsource = "scene.avi"\n')
    result = project.run("--gate-replicates=1", "-k", "stream")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["note: scene.avi ends too early: * of the 40 frames that it declares can be read*"])


def test_a_stream_of_a_model_with_other_labels_is_not_measured(project):
    path = project.path / "models" / "linear.toml"
    path.write_text(path.read_text().replace("count = 5", "count = 7"))
    result, document = project.gate_json("--gate-replicates=1", "-k", "stream")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "broken"
    assert "the model gives 5 values for a picture, and labels.count of" in document["cases"][0]["reason"]
    result.stdout.no_fnmatch_line("*check that the runtime is installed*")
