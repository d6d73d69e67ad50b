"""What files, disks and terminals do to a run and to the commands: one sentence each, and nothing lost or green that was not."""

import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from ssh_server import LoopbackBoard

import pytest_inference_gate
from pytest_inference_gate import run_environment
from pytest_inference_gate.agent_process import AgentProcess
from pytest_inference_gate.cli import main

LATENCY = ("--gate-replicates=1", "test_latency.py")
PLUGINS = Path(pytest_inference_gate.__path__[0]).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PLUGINS)}


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300, **options
    )


def with_backend(project, body):
    """A second model, and ``convert`` of the backend with ``body``; what it was before is ``convert_as_before``."""
    project.write_card("second")
    project.write_model("second", project.weights * 2, note="second")
    path = project.path / "linear_backend.py"
    text = path.read_text().replace("\ndef convert(request, progress):\n", "\ndef convert_as_before(request, progress):\n", 1)
    path.write_text(f"{text}\n\ndef convert(request, progress):\n{body}")


def with_evaluation(project, text):
    path = project.path / "models" / "linear.toml"
    path.write_text(
        path.read_text().replace('evaluation = { file = "evaluation.npz", top1 = 1.0 }', f"evaluation = {{ {text} }}")
    )


def ended_well(result, status):
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert result.ret == status, result.stdout.str() + result.stderr.str()


def many_pictures(project):
    images = numpy.random.default_rng(1).integers(0, 256, (60_000, 4, 4), dtype=numpy.uint8)
    labels = (images.reshape(-1, 16).astype(numpy.float32) @ project.weights.astype(numpy.float32)).argmax(1)
    numpy.savez(project.path / "models" / "many.npz", images=images, labels=labels)


# ---------------------------------------------------------------- full disks


def mount(folder, options):
    command = ["mount", "-o", f"remount,{options}", str(folder)] if folder.exists() else []
    if not command:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path):
    """A small file system; its size can be changed with :func:`mount`."""
    folder = tmp_path / "small"
    if not mount(folder, "size=9m"):
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_under_the_inputs_is_one_sentence(linear_project, disk):
    many_pictures(linear_project)
    with_evaluation(linear_project, 'file = "many.npz"')
    assert mount(disk, "size=2m")
    result = linear_project.run(f"--gate-store={disk}/store", *LATENCY, subprocess=True)
    ended_well(result, 4)
    result.stderr.fnmatch_lines(["ERROR: Cannot make inputs*is full*"])
    assert not list((disk / "store" / "tmp").iterdir())


def test_a_disk_that_fills_up_under_detections_is_an_error_of_the_agent(disk):
    assert mount(disk, "size=2m")
    done = python(
        "import numpy\n"
        "from pytest_inference_gate.agent.model_outputs import Writer\n"
        f"with Writer({str(disk / 'p.npz')!r}, 100_000) as writer:\n"
        "    writer.put(0, [numpy.zeros((100_000, 8), numpy.float32)], 100_000)\n"
    )
    assert done.returncode == 1 and "No space left" in done.stderr
    assert not list(disk.iterdir())


def test_a_disk_that_fills_up_under_predictions_is_not_known_as_a_broken_model(linear_project, disk):
    many_pictures(linear_project)
    with_evaluation(linear_project, 'file = "many.npz", top1 = 1.0')
    (linear_project.path / "test_plain.py").write_text(
        "def test_plain(benchmark):\n    benchmark.pedantic(sum, args=([1, 2, 3],), rounds=20)\n"
    )
    linear_project.overlook_other_load()
    arguments = (f"--gate-store={disk}/store", "--gate-replicates=1")
    ended_well(linear_project.run(*arguments, subprocess=True), 0)
    free = os.statvfs(disk)
    used = (free.f_blocks - free.f_bfree) * free.f_frsize
    assert mount(disk, f"size={used // 1024 + 600}k")  # of the 1,200 kB that the predictions take
    result = linear_project.run(*arguments, "--benchmark-save=a", subprocess=True)
    ended_well(result, 1)
    result.stdout.fnmatch_lines(["*the disk of * is full: free some space*"])
    (session,) = linear_project.sessions()
    assert json.loads(session.read_text())["inference_gate"]["broken"] == []
    assert not list(disk.glob("store/logs/*/*.tmp"))


def test_a_full_disk_of_a_board_is_not_that_of_this_machine_and_costs_one_case(linear_project, monkeypatch):
    with_backend(
        linear_project,
        '    if "second" in open(request["source"]["path"]).read():\n'
        '        raise OSError(28, "No space left on device: /tmp/engine")\n'
        "    return convert_as_before(request, progress)\n",
    )
    with tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True) as folder:
        board = LoopbackBoard(Path(folder))
        board.start()
        monkeypatch.setenv("INFERENCE_GATE_SSH", board.environment["INFERENCE_GATE_SSH"])
        monkeypatch.setenv("LINEAR_BUILT_ON_DEVICE", "1")
        there = board.python("nano", f'exec {shlex.quote(sys.executable)} "$@"')
        result = linear_project.run(f"--gate-target={board.url}?python={there}", *LATENCY)
        board.stop()
    ended_well(result, 1)
    result.stdout.fnmatch_lines(
        [
            "*the disk of ssh://* is full: free some space there*",
            "second-linear-fp32-b1-t1: broken: storage_error*",
            "*1 pass, 1 broken*",
        ]
    )


# ---------------------------------------------------------------- other runs


def test_the_logs_of_a_run_that_is_at_work_stay_while_others_begin(linear_project, monkeypatch):
    made, others = [], []
    make, predict = run_environment._make_log_folder, AgentProcess.predict
    monkeypatch.setattr(run_environment, "_make_log_folder", lambda root: made.append(make(root)) or made[-1])

    def predict_for_long(agent, arguments):
        if not others:
            time.sleep(1.1)  # their names hold the second in which they began
            others.extend(make(made[0].parent) for _ in range(run_environment._KEPT_LOGS))
        return predict(agent, arguments)

    monkeypatch.setattr(AgentProcess, "predict", predict_for_long)
    ended_well(linear_project.run("--gate-replicates=1"), 0)
    assert others and made[0].is_dir()


def test_logs_of_runs_that_ended_long_ago_go(tmp_path):
    for number in range(30):
        old = tmp_path / f"20200101-0000{number:02}-0-abcd"
        old.mkdir()
        os.utime(old, (0, 0))
    run_environment._make_log_folder(tmp_path)
    assert len(list(tmp_path.iterdir())) == run_environment._KEPT_LOGS


# ---------------------------------------------------------------- converters


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('    os.symlink("model.json", os.path.join(request["output_directory"], "latest"))\n', "latest is no plain file"),
        ('    os.unlink(os.path.join(request["output_directory"], MODEL))\n', "it left no file"),
        ('    result["kind"] = "x"\n', "kind in its answer is the store's to say"),
    ],
    ids=["link", "nothing", "reserved"],
)
def test_what_the_store_cannot_keep_breaks_its_case_alone(linear_project, body, reason):
    only_the_second = (
        "    result = convert_as_before(request, progress)\n"
        '    if "second" not in request["source"]["path"]:\n        return result\n'
    )
    with_backend(linear_project, f"{only_the_second}{body}    return result\n")
    result = linear_project.run(*LATENCY)
    ended_well(result, 1)
    result.stdout.fnmatch_lines([f"*what the converter left cannot be kept: {reason}*", "*1 pass, 1 broken*"])


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(("name", "status"), [("x" * 300, 1), ("loop.json", 0)], ids=["long", "loop"])
def test_a_result_that_cannot_be_written_does_not_cost_the_baseline(linear_project, name, status):
    path = linear_project.path / name
    if name == "loop.json":
        path.symlink_to(path)
    ended_well(linear_project.run(f"--gate-json={path}", "--benchmark-save=a", *LATENCY), status)
    assert len(linear_project.sessions()) == 1


def test_a_baseline_in_the_home_of_nobody(linear_project):
    linear_project.save("before", *LATENCY)
    ended_well(linear_project.run("--benchmark-compare=~nosuch", *LATENCY), 4)


def test_a_user_without_a_home_is_told_of_the_store():
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    done = python(
        "import os\nos.environ.pop('HOME', None)\nos.environ.pop('XDG_CACHE_HOME', None)\n"
        "import platformdirs.unix\nfrom pytest_inference_gate.artifacts import default_store_root\n"
        "from pytest_inference_gate.errors import GateError\nos.setuid(54321)\n"
        "try:\n    default_store_root()\nexcept GateError as error:\n    print(error)\n"
    )
    assert "name a directory with --gate-store" in done.stdout, done.stderr


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["inference_gate"].update(device=None),
        lambda document: document["inference_gate"].update(device="x"),
        lambda document: document["benchmarks"][0]["extra_info"]["inference_gate"].update(replicates=[10**400]),
    ],
    ids=["no device", "a name for a device", "a number that no float holds"],
)
def test_a_baseline_that_was_edited_is_a_usage_error(linear_project, change):
    linear_project.save("before", *LATENCY)
    (path,) = linear_project.sessions()
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    ended_well(linear_project.run("--benchmark-compare", *LATENCY), 4)


def damaged_zip(folder):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.png", b"x")
    data = bytearray(content.getvalue())
    data[data.rfind(b"PK\x01\x02")] = 0
    (folder / "pictures.zip").write_bytes(data)
    return 'file = "pictures.zip"'


def long_name(folder):
    (folder / "pictures").mkdir()
    (folder / "labels.csv").write_text(f"file,label\n{'x' * 300}.png,1\n")
    return 'file = "pictures", labels = "labels.csv"'


def no_array(folder):
    with zipfile.ZipFile(folder / "set.npz", "w") as archive:
        archive.writestr("images", b"hello")
    return 'file = "set.npz"'


@pytest.mark.parametrize("make", [damaged_zip, long_name, no_array])
def test_pictures_that_are_none_break_their_cases(linear_project, make):
    with_evaluation(linear_project, make(linear_project.path / "models"))
    result = linear_project.run(*LATENCY)
    ended_well(result, 1)
    result.stdout.fnmatch_lines(["linear-linear-fp32-b1-t1: broken: fetch_error in stage fetch:*"])


def test_half_an_address_of_a_mirror(linear_project):
    path = linear_project.path / "models" / "linear.toml"
    path.write_text(path.read_text().replace('file = "linear.json"', 'url = "https://example.org/linear.json"'))
    ended_well(linear_project.run("--gate-mirror=http://[::1", *LATENCY), 1)


def test_accuracy_alone_saves_nothing_and_says_so(linear_project):
    result = linear_project.run("--benchmark-save=a", "test_accuracy.py")
    result.stdout.fnmatch_lines(["nothing was saved: no test measured a latency*"])


# ---------------------------------------------------------------- commands


def case(case_id="m-tflite-fp32-b1-t1", **more):
    block = {"schema": "inference-gate-case/1", "id": case_id, "replicates": [0.01, 0.0101, 0.0102], "verdict": "pass", **more}
    return {"fullname": f"t.py::t[{case_id}]", "name": f"t[{case_id}]", "stats": {}, "extra_info": {"inference_gate": block}}


PLAIN = {"fullname": "t.py::plain", "name": "plain", "extra_info": {}, "stats": {}}


def write_session(folder, number, name, *benchmarks, **more):
    folder.mkdir(parents=True, exist_ok=True)
    gate = {
        "schema": "inference-gate-session/1",
        "device": {"id": "device", "identity": {}},
        "software": {"python": "3.11"},
        "condition": {},
        "broken": [],
    }
    document = {
        "machine_info": {},
        "commit_info": {},
        "datetime": "2026-01-02T03:04:05",
        "version": "5",
        "benchmarks": benchmarks,
    }
    (folder / f"{number:04}_{name}.json").write_text(json.dumps({**document, "inference_gate": {**gate, **more}}))


def test_pruning_keeps_the_newest_session_that_holds_a_case(tmp_path):
    for number, benchmark in ((1, case()), (2, case()), (3, PLAIN)):
        write_session(tmp_path / "device", number, "x", benchmark)
    assert main(["baseline", "prune", f"--baselines={tmp_path}", "--keep=1", "--yes"]) == 0
    assert sorted(path.name for path in tmp_path.glob("device/*.json")) == ["0002_x.json", "0003_x.json"]


def test_a_condition_that_is_no_number_is_shown_as_none(tmp_path):
    write_session(tmp_path / "device", 1, "a", case(), condition={"before": {"current_khz": {"0": float("nan")}}})
    assert main(["baseline", "show", "1", f"--baselines={tmp_path}"]) == 0


def test_axes_take_candidates(tmp_path):
    write_session(tmp_path / "device", 1, "jp5", case())
    write_session(tmp_path / "device" / "candidates", 1, "jp6", case(), software={"python": "3.12"})
    assert main(["baseline", "axes", "1", "candidates/1", f"--baselines={tmp_path}"]) == 0


def test_other_numbers_of_pictures_are_not_compared(tmp_path, capsys):
    write_session(tmp_path / "device", 1, "a", case())
    write_session(tmp_path / "device", 2, "b", case(pictures=2, picture_medians=[0.01, 0.02]))
    assert main(["baseline", "diff", "1", "2", f"--baselines={tmp_path}"]) == 0
    assert "measured on another number of pictures, and so not compared: m-tflite-fp32-b1-t1 (1 -> 2)" in capsys.readouterr().out


def prune_with(tmp_path, output):
    """``prune --yes`` of some sessions; returns its exit status and how many are left."""
    for number in range(1, 6):
        write_session(tmp_path / "device", number, "nightly", case())
    command = [sys.executable, "-m", "pytest_inference_gate", "baseline", "prune", "--keep=1", "--yes", f"--baselines={tmp_path}"]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, len(list(tmp_path.glob("device/*.json")))


def test_what_nobody_reads_is_not_pruned(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert prune_with(tmp_path, writing) == (1, 5)
    finally:
        os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_nor_is_what_could_not_be_written(tmp_path):
    with Path("/dev/full").open("wb") as full:
        assert prune_with(tmp_path, full) == (2, 5)


def test_a_list_that_was_read_is_pruned(tmp_path):
    assert prune_with(tmp_path, subprocess.DEVNULL) == (0, 1)
