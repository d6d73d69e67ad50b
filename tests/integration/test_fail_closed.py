"""Nothing that keeps the gate from measuring or comparing may look like a pass: whole sessions, one for each way that it could.

What was recorded is rewritten, so that no verdict depends on this machine's timing. Sessions that need no verdict on latency measure
one replicate, and leave accuracy out where it plays no part.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest

QUICK = ("--gate-replicates=1", "test_latency.py")
ELSEWHERE = "raspberry-pi-5-1234abcd"
CASE = "linear-linear-fp32-b1-t1"
SECOND = "second-linear-fp32-b1-t1"
PLAIN = """
def test_plain(benchmark):
    benchmark.pedantic(sum, args=([1, 2, 3],), rounds=20)
"""


def add_model(project, name, **extra):
    project.write_card(name)
    project.write_model(name, **extra)


def rewrite(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def saved_ids(path):
    """The cases that a session file holds, in its order."""
    blocks = [benchmark["extra_info"].get("inference_gate") for benchmark in json.loads(path.read_text())["benchmarks"]]
    return [block["id"] for block in blocks if block]


def move_to(device):
    def change(document):
        document["inference_gate"]["device"]["id"] = device

    return change


# A slow run must not become what the next one is compared with


def test_a_slower_case_stays_red_however_often_it_is_saved_and_compared(linear_project):
    linear_project.save("before", "test_latency.py")
    linear_project.scale_baseline(1 / 1000)
    (baseline,) = linear_project.sessions()
    recorded = baseline.read_bytes()
    for option in ("--benchmark-autosave", "--benchmark-autosave", "--benchmark-save=after"):
        result = linear_project.run("--benchmark-compare", option, "test_latency.py")
        assert result.ret == 1, option
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"not saved, since they failed: {CASE}", "*1 slower: do not ship*"])
    assert linear_project.sessions() == [baseline]
    assert linear_project.candidates() == []
    assert baseline.read_bytes() == recorded


def test_a_green_case_is_saved_as_a_candidate_and_not_as_a_baseline(linear_project):
    add_model(linear_project, "second")
    linear_project.save("before", *QUICK)
    (baseline,) = linear_project.sessions()
    recorded = baseline.read_bytes()
    linear_project.write_model("second", load="fail")
    result = linear_project.run("--benchmark-compare", "--benchmark-save=after", *QUICK)
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    (candidate,) = linear_project.candidates()
    assert saved_ids(candidate) == [CASE]
    assert linear_project.sessions() == [baseline]
    assert baseline.read_bytes() == recorded


# A case is compared with itself, or the run is red


def test_a_case_finds_its_baseline_wherever_its_test_has_moved(linear_project):
    linear_project.save("before", *QUICK)
    moved = linear_project.path / "speed" / "test_speed.py"
    moved.parent.mkdir()
    moved.write_text((linear_project.path / "test_latency.py").read_text().replace("def test_latency", "def test_speed"))
    (linear_project.path / "test_latency.py").unlink()
    result = linear_project.run("--benchmark-compare", "--gate-replicates=1", "speed")
    assert result.ret == 0
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*1 case: 1 pass: may ship*"])


def test_a_case_that_the_baseline_lacks_is_red_beside_one_that_it_has(linear_project):
    linear_project.save("before", *QUICK)
    add_model(linear_project, "second")
    result, document = linear_project.gate_json("--benchmark-compare", *QUICK)
    assert result.ret == document["summary"]["exit_status"] == 1
    result.assert_outcomes(passed=1, errors=1)
    assert {case["id"]: case["verdict"] for case in document["cases"]} == {CASE: "pass", SECOND: "no_baseline"}


def test_a_case_of_the_baseline_that_is_not_in_the_run_is_named(linear_project):
    add_model(linear_project, "second")
    linear_project.save("before", *QUICK)
    result = linear_project.run("--benchmark-compare", "-k", "second", *QUICK)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"*not in this run*{CASE}*"])


# Options that keep anything from being measured


def test_options_that_keep_latency_from_being_recorded_are_refused_where_a_case_is_selected(linear_project):
    (linear_project.path / "test_plain.py").write_text(PLAIN)
    for option in ("--benchmark-disable", "--benchmark-skip"):
        result = linear_project.run(option)
        assert result.ret == pytest.ExitCode.USAGE_ERROR, option
        result.stderr.fnmatch_lines([f"ERROR: {option} keeps latency from being recorded*"])
        assert linear_project.run(option, "test_plain.py").ret == 0, option
        assert linear_project.run(option, "-m", "not cpu").ret == 0, option
    assert not linear_project.store.exists()


def test_workers_of_xdist_are_refused_where_a_case_is_selected(linear_project):
    pytest.importorskip("xdist")
    (linear_project.path / "test_plain.py").write_text(PLAIN)
    for selection in ((), ("test_accuracy.py",)):
        result = linear_project.run("-n1", *selection, subprocess=True)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: -n (pytest-xdist) *"])
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result = linear_project.run("-n1", "test_plain.py", subprocess=True)
    assert result.ret == 0
    result.assert_outcomes(passed=1)


def test_benchmark_only_measures_the_case_and_keeps_the_gate_closed_for_an_inaccurate_one(linear_project):
    green = linear_project.run("--benchmark-only", "--gate-replicates=1")
    assert green.ret == 0
    green.assert_outcomes(passed=1, skipped=1)
    linear_project.write_model(weights=linear_project.weights[:, ::-1])
    # The test of accuracy is skipped, but the case takes part in it all the same.
    red, document = linear_project.gate_json("--benchmark-only", "--gate-replicates=1")
    assert red.ret == document["summary"]["exit_status"] == 1
    assert document["cases"][0]["verdict"] == "inaccurate"


def test_a_test_that_never_checks_does_not_open_the_gate(linear_project):
    linear_project.write_model(load="fail")
    (linear_project.path / "test_own.py").write_text(
        "def test_own(case, latency, benchmark):\n    assert latency.figures is None\n"
    )
    result = linear_project.run("test_own.py")
    result.assert_outcomes(passed=1)
    assert result.ret == 1


# Only what is good becomes a baseline


def test_an_inaccurate_and_a_broken_case_are_not_saved_and_the_good_one_beside_them_is(linear_project):
    add_model(linear_project, "second", weights=linear_project.weights[:, ::-1])
    add_model(linear_project, "third", load="fail")
    arguments = ("--gate-replicates=1", "--benchmark-save=first")
    result = linear_project.run(*arguments)
    assert result.ret == 1
    (session,) = linear_project.sessions()
    assert saved_ids(session) == [CASE]
    nothing = linear_project.run(*arguments, "-k", "second or third")
    assert nothing.ret == 1
    assert linear_project.sessions() == [session]
    assert not [path for path in linear_project.baselines.rglob("*.json") if path != session]


OWN = """
def test_own(case, latency, benchmark):
    latency.replay_into(benchmark)
    assert case.model != "linear"
"""


def test_a_case_whose_own_test_failed_is_not_saved_and_selections_of_pytest_work_as_ever(linear_project):
    add_model(linear_project, "second")
    linear_project.ini(addopts="--gate-rounds=20 --gate-warm-up=0.005 --gate-replicates=1")
    own = linear_project.path / "test_own.py"
    own.write_text(OWN)

    stopped = linear_project.run("-x", "--benchmark-save=stopped", "test_own.py")
    assert stopped.ret == 1
    assert linear_project.sessions() == []

    # The suite's own test of the case passes, and replays the same rounds; the failed one forbids to save it.
    mixed = linear_project.run("--benchmark-save=mixed", "test_own.py", "test_latency.py")
    assert mixed.ret == 1
    mixed.assert_outcomes(passed=3, failed=1)
    (session,) = linear_project.sessions()
    assert saved_ids(session) == [SECOND]
    assert len(json.loads(session.read_text())["benchmarks"]) == 2

    again = linear_project.run("--benchmark-compare", "--lf", "test_own.py", "test_latency.py")
    assert again.ret == 1
    again.assert_outcomes(errors=1)

    assert linear_project.run("--benchmark-compare", "-k", "second", "test_own.py", "test_latency.py").ret == 0
    assert linear_project.run("-m", "jetson").ret == pytest.ExitCode.NO_TESTS_COLLECTED


# Baselines that cannot be compared with


def test_a_baseline_that_cannot_be_trusted_is_a_usage_error_that_says_what_to_do(linear_project):
    linear_project.save("before", *QUICK)
    (path,) = linear_project.sessions()
    good = path.read_text()
    foreign = linear_project.path / "foreign.json"
    foreign.write_text(good)
    rewrite(foreign, move_to(ELSEWHERE))

    def newer_session(document):
        document["inference_gate"]["schema"] = "inference-gate-session/99"

    def newer_case(document):
        document["benchmarks"][0]["extra_info"]["inference_gate"]["schema"] = "inference-gate-case/99"

    def refused(*arguments):
        result = linear_project.run(*arguments, *QUICK)
        assert result.ret == pytest.ExitCode.USAGE_ERROR, arguments
        assert "Traceback" not in result.stdout.str() + result.stderr.str()
        return result.stderr

    refused(f"--benchmark-compare={foreign}").fnmatch_lines(
        [f"ERROR: *{ELSEWHERE}*timings of different devices are not compared*"]
    )
    refused("--benchmark-compare=jp7").fnmatch_lines(["ERROR: No baseline is named 'jp7' in *holds 0001_before*"])
    path.write_text(good[: len(good) // 2])
    refused("--benchmark-compare").fnmatch_lines(["ERROR: The baseline *0001_before.json ends in the middle (it was cut)*"])
    for change, message in (
        (newer_session, "ERROR: The baseline *0001_before.json was written by a newer version*"),
        (newer_case, "ERROR: The baseline *0001_before.json was written by a newer version*"),
        (
            lambda document: document.pop("inference_gate"),
            "ERROR: *(none is named)*timings of different devices are not compared*",
        ),
        (move_to(ELSEWHERE), f"ERROR: *{ELSEWHERE}*timings of different devices are not compared*"),
    ):
        path.write_text(good)
        rewrite(path, change)
        refused("--benchmark-compare").fnmatch_lines([message])
    # A newer file of this device behind it does not hide what was copied here.
    (path.parent / "0002_after.json").write_text(good)
    refused("--benchmark-compare").fnmatch_lines([f"ERROR: *{ELSEWHERE}*"])


def test_baselines_of_other_devices_alone_are_no_baseline_and_are_named(linear_project):
    linear_project.save("before", *QUICK)
    (path,) = linear_project.sessions()
    rewrite(path, move_to(ELSEWHERE))
    path.parent.rename(linear_project.baselines / ELSEWHERE)
    result = linear_project.run("--benchmark-compare", *QUICK)
    assert result.ret == 1
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{CASE} has no baseline*", f"*baselines of other devices*{ELSEWHERE}*"])


# Nothing measured


def test_a_run_in_which_every_case_is_skipped_is_red(linear_project, monkeypatch):
    linear_project.save("before", *QUICK)
    monkeypatch.setenv("LINEAR_MISSING", "1")
    result, document = linear_project.gate_json("-m", "cpu")
    assert result.ret == document["summary"]["exit_status"] == 1
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*nothing was measured*"])
    assert document["cases"][0]["verdict"] == "unsupported"

    # For whoever ships the upgrade, a runtime that went away is a case that runs no more.
    compared, document = linear_project.gate_json("--benchmark-compare", "-m", "cpu")
    assert compared.ret == document["summary"]["exit_status"] == 1
    compared.assert_outcomes(failed=2)
    assert document["cases"][0]["verdict"] == "broken"
    compared.stdout.fnmatch_lines(["*the linear runtime is not installed*"])


def test_a_selection_without_cases_is_a_usage_error(linear_project):
    (linear_project.path / "empty").mkdir()
    for arguments, message in (
        (("--gate-select=nothing*",), "ERROR: no case matches 'nothing[*]'*"),
        (("--gate-models=empty",), "ERROR: there is no model card in *empty*"),
        (("--gate-models=empty", "-m", "cpu"), "ERROR: there is no model card in *empty*"),
        (("--gate-models=empty", "--collect-only"), "ERROR: there is no model card in *empty*"),
        (("--gate-models=absent",), "ERROR: *absent is not a directory*"),
    ):
        result = linear_project.run(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR, arguments
        result.stderr.fnmatch_lines([message])
    (linear_project.path / "test_plain.py").write_text(PLAIN)
    assert linear_project.run("--gate-models=empty", "test_plain.py").ret == 0


# Interrupted


def wait_for(what):
    end = time.monotonic() + 300
    while not what():
        assert time.monotonic() < end, "waited for five minutes"
        time.sleep(0.02)


def run_and_interrupt(project, ready, *arguments):
    """Start a session in a process group of its own and send the group a SIGINT, as a terminal does, when ``ready()``."""
    token = str(uuid.uuid4())
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=project.path,
        env={**os.environ, "GATE_TEST_RUN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's job in the background would ignore
    )
    try:
        wait_for(lambda: ready() or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()

    def left():
        found = psutil.process_iter(["environ"])
        return [one.pid for one in found if (one.info["environ"] or {}).get("GATE_TEST_RUN") == token]

    end = time.monotonic() + 60
    while left() and time.monotonic() < end:  # what was killed is gone when the kernel has come to it
        time.sleep(0.05)
    assert left() == [], output
    return process.returncode, output


def test_an_interrupt_while_measuring_saves_nothing_and_leaves_nothing_running(linear_project):
    linear_project.write_model(work=5000)
    logs = linear_project.store / "logs"
    returned, output = run_and_interrupt(
        linear_project,
        lambda: list(logs.glob("*/*.measure-2.log")),
        "--benchmark-save=before",
        "--gate-replicates=500",
        "test_latency.py",
    )
    assert returned == pytest.ExitCode.INTERRUPTED, output
    assert not list(linear_project.baselines.rglob("*.json"))
    linear_project.save("after", *QUICK)
    assert len(linear_project.sessions()) == 1


def test_an_interrupt_between_the_tests_saves_nothing(linear_project):
    (linear_project.path / "test_zz_waits.py").write_text(
        "import time, pathlib\n\ndef test_waits():\n    pathlib.Path('waiting').touch()\n    time.sleep(60)\n"
    )
    returned, output = run_and_interrupt(
        linear_project,
        (linear_project.path / "waiting").exists,
        "--benchmark-save=before",
        *QUICK,
        "test_zz_waits.py",
    )
    assert returned == pytest.ExitCode.INTERRUPTED, output
    assert "not saved, since the run was stopped" in output
    assert not list(linear_project.baselines.rglob("*.json"))


# Beside plain tests of pytest-benchmark


def shape(benchmark):
    return sorted(benchmark), sorted(benchmark["stats"]), sorted(benchmark["options"])


def test_plain_benchmarks_are_compared_and_saved_as_without_the_plugin(linear_project):
    (linear_project.path / "test_plain.py").write_text(PLAIN)
    linear_project.save("before", *QUICK, "test_plain.py")
    (path,) = linear_project.sessions()

    plain = (
        "-p",
        "no:inference_gate",
        "-c",
        os.devnull,
        "--rootdir=.",
        "--noconftest",
        "--benchmark-json=plain.json",
        "test_plain.py",
    )
    assert linear_project.run(*plain, subprocess=True).ret == 0
    document = json.loads((linear_project.path / "plain.json").read_text())
    benchmark = next(one for one in json.loads(path.read_text())["benchmarks"] if one["name"] == "test_plain")
    (expected,) = document["benchmarks"]
    expected["stats"].pop("data")  # --benchmark-json always has it
    assert shape(benchmark) == shape(expected)
    assert benchmark["extra_info"] == {}

    def much_faster(document):
        for benchmark in document["benchmarks"]:
            if benchmark["name"] == "test_plain":
                benchmark["stats"] = {
                    key: value * 1e-12 if isinstance(value, float) else value for key, value in benchmark["stats"].items()
                }

    rewrite(path, much_faster)
    compare = ("--benchmark-compare", "--benchmark-compare-fail=mean:10%")
    regressed = linear_project.run(*compare, *QUICK, "test_plain.py", subprocess=True)
    assert regressed.ret == 1
    output = regressed.stderr.str() + regressed.stdout.str()
    assert "Performance has regressed" in output
    assert "test_plain (0001_before) - Field 'mean' has failed PercentageRegressionCheck" in output


LOOK = """
import json
import sys
from pathlib import Path

def pytest_unconfigure(config):
    Path("modules.json").write_text(json.dumps(sorted(sys.modules)))
"""


def test_a_project_that_does_not_use_the_gate_notices_nothing(pytester):
    pytester.makeconftest(LOOK)
    pytester.makepyfile(test_plain=PLAIN)
    arguments = ("-p", "no:cacheprovider", "--benchmark-save=before", "--benchmark-json=result.json")

    def files():
        return {str(path.relative_to(pytester.path)) for path in pytester.path.rglob("*") if "__pycache__" not in path.parts}

    without = pytester.runpytest_subprocess("-p", "no:inference_gate", *arguments)
    assert without.ret == 0
    files_without = files()
    (saved,) = pytester.path.glob(".benchmarks/*/0001_before.json")
    expected = json.loads(saved.read_text())
    saved.unlink()
    with_it = pytester.runpytest_subprocess(*arguments)
    assert with_it.ret == 0
    assert {name for name in files() if "runpytest" not in name} == {name for name in files_without if "runpytest" not in name}
    document = json.loads(saved.read_text())
    assert sorted(document) == sorted(expected)
    assert [shape(one) for one in document["benchmarks"]] == [shape(one) for one in expected["benchmarks"]]
    modules = json.loads((pytester.path / "modules.json").read_text())
    assert "pytest_inference_gate.plugin" in modules
    for heavy in ("pydantic", "numpy", "PIL", "pytest_inference_gate.gate_session", "pytest_inference_gate.devices"):
        assert heavy not in modules
    compared = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--benchmark-compare=0001")
    assert compared.ret == 0
    compared.stdout.fnmatch_lines(["*test_plain (0001_before)*"])


@pytest.mark.parametrize("labels", [True, False])
def test_a_float_reference_that_died_opens_no_gate(linear_project, labels):
    linear_project.write_card(precisions=("fp32", "int8"))
    card = linear_project.path / "models" / "linear.toml"
    text = card.read_text().replace(", top1 = 1.0", "")
    card.write_text(text if labels else text.replace('evaluation = { file = "evaluation.npz" }\n', ""))
    linear_project.write_model(wrecked=["int8"])
    backend = linear_project.path / "linear_backend.py"
    read = "        source = read(model)\n"
    killed = "        if precision == 'fp32':\n            os.kill(os.getpid(), signal.SIGKILL)\n"
    backend.write_text(backend.read_text().replace(read, read + killed))
    result, document = linear_project.gate_json("-k", "accuracy", "--gate-select=*int8*")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "broken"
    assert "its float reference, which its predictions are compared with, failed (crash: " in case["reason"]


def test_what_the_tests_that_x_kept_from_running_would_have_said_is_not_known(linear_project):
    linear_project.pytester.makepyfile(
        test_first="def test_fails():\n    assert False\n", test_own="def test_own(case, artifact):\n    assert False\n"
    )
    result = linear_project.run("-x", "--benchmark-save=before", "test_latency.py", "test_first.py", "test_own.py")
    assert result.ret == 1
    assert linear_project.sessions() == []
    result.stdout.fnmatch_lines(["not saved, since not all of their tests have run: linear-linear-fp32-b1-t1"])


def test_a_log_that_cannot_be_written_is_one_sentence(linear_project):
    with (linear_project.path / "conftest.py").open("a") as conftest:
        conftest.write(
            "\n\nimport errno\n\n_open = Path.open\n\n\ndef full(self, *arguments, **more):\n"
            "    if self.name.endswith('measure-2.log'):\n        raise OSError(errno.ENOSPC, 'No space left on device', str(self))\n"
            "    return _open(self, *arguments, **more)\n\n\nPath.open = full\n"
        )
    result = linear_project.run(subprocess=True)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*annot write linear-linear-fp32-b1-t1.measure-2.log: the disk of * is full *--gate-store*", "*1 broken: do not ship"]
    )
    assert "on the board" not in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str()
