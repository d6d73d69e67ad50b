"""Each option in effect, in whole sessions."""

import functools
import hashlib
import http.server
import json
import os
import re
import sys
import sysconfig
import threading
import venv
from pathlib import Path

import jsonschema
import pytest

from pytest_inference_gate.report.result_json import read_schema

LATENCY = ("-k", "latency")


@pytest.fixture
def project(linear_project):
    linear_project.ini(gate_replicates=1)
    return linear_project


@pytest.fixture
def converting(project):
    """A project whose one test needs the artifact and nothing else."""
    for test in project.path.glob("test_*.py"):
        test.unlink()
    project.pytester.makepyfile(test_artifact="def test_artifact(case, artifact):\n    assert artifact.size_bytes\n")
    return project


def another(project, name, **model):
    project.write_card(name)
    project.write_model(name, **model)


def collected(project, *arguments):
    """The ids of all cases that take part."""
    result = project.run("--collect-only", "-q", *LATENCY, *arguments)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    return re.findall(r"test_latency\[(.+)\]", result.stdout.str())


def refused(project, *arguments):
    """The one sentence with which the run ended before it began."""
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    (sentence,) = [line for line in result.stderr.lines if line]
    return sentence


def by_model(document):
    return {case["model"]: case for case in document["cases"]}


# ---------------------------------------------------------------- which cases


def test_models_may_be_given_twice_but_names_only_once(project):
    (project.path / "more").mkdir()
    (project.path / "more" / "third.toml").write_text(
        (project.path / "models" / "linear.toml").read_text().replace('"linear"', '"third"', 1)
    )
    assert collected(project, "--gate-models=models", "--gate-models=more") == [
        "linear-linear-fp32-b1-t1",
        "third-linear-fp32-b1-t1",
    ]
    assert collected(project, "--gate-models=more") == ["third-linear-fp32-b1-t1"]
    (project.path / "more" / "other.toml").write_text((project.path / "models" / "linear.toml").read_text())
    sentence = refused(project, "--gate-models=models", "--gate-models=more")
    assert "two model cards are named 'linear'" in sentence
    assert str(project.path / "models" / "linear.toml") in sentence and str(project.path / "more" / "other.toml") in sentence


def test_select_takes_ids_and_models_and_cards_that_are_not_run_by_default(project):
    project.write_card("linear", precisions=["fp32", "int8"])
    project.write_card("second", more="default = false")
    project.write_model("second")
    linear = ["linear-linear-fp32-b1-t1", "linear-linear-int8-b1-t1"]
    assert collected(project) == linear
    assert collected(project, "--gate-select=*-int8-*") == linear[1:]
    assert collected(project, "--gate-select=sec*") == ["second-linear-fp32-b1-t1"]
    assert collected(project, "--gate-select=second", "--gate-select=*int8*") == [linear[1], "second-linear-fp32-b1-t1"]
    assert "no case matches 'nothing*'" in refused(project, "--gate-select=linear", "--gate-select=nothing*")
    for card in (project.path / "models").glob("*.toml"):
        card.write_text("default = false\n" + card.read_text().replace("default = false\n", ""))
    assert "every card has default = false" in refused(project)


def test_batches_and_threads_replace_the_cards_and_a_batch_need_not_divide_the_set(project):
    expected = [f"linear-linear-fp32-b{batch}-t{threads}" for batch in (1, 7) for threads in (1, 2)]
    assert collected(project, "--gate-batches=1,7", "--gate-threads=1,2") == expected
    result, document = project.gate_json("--gate-batches=7", "--gate-threads=1,2")
    assert result.ret == 0
    assert [(case["batch"], case["threads"], case["accuracy"]["n"], case["accuracy"]["top1"]) for case in document["cases"]] == [
        (7, 1, 150, 1.0),
        (7, 2, 150, 1.0),
    ]
    # The reference is the model in batches of one; cases that differ in threads alone share what was converted.
    first, second = (case["artifact"]["digest"] for case in document["cases"])
    assert first == second


# ---------------------------------------------------------------- how it is measured and judged


def test_replicates_rounds_and_warm_up(project):
    result, document = project.gate_json("--gate-replicates=3", "--gate-rounds=7", *LATENCY)
    assert result.ret == 0
    (case,) = document["cases"]
    assert len(case["latency"]["replicates"]) == 3
    assert case["latency"]["rounds"] == 21
    project.pytester.makepyfile(
        test_plan="""
        from pytest_inference_gate.sweep import Plan


        def test_plan(gate):
            plan = Plan.of(gate.settings.rounds, gate.settings.warm_up)
            assert plan.warm_up["minimum_seconds"] == 7.5
            assert plan.warm_up["maximum_seconds"] == 75
            assert plan.rounds == {"minimum": 9, "minimum_seconds": 0.0, "maximum": 9}
        """
    )
    assert project.run("test_plan.py", "--gate-warm-up=7.5", "--gate-rounds=9").ret == 0


def test_the_nearest_tolerance_wins(project):
    """Command line, marker, precision of the card, card, ini file, 5 %, in this order."""
    cards = {"plain": "", "card": "latency = 0.2", "precision": "latency = 0.2\nby_precision = { fp32 = { latency = 0.3 } }"}
    (project.path / "models" / "linear.toml").unlink()
    for name, tolerance in cards.items():
        project.write_card(name, tolerance=tolerance)
        project.write_model(name)
    assert project.run("--benchmark-save=before", *LATENCY).ret == 0
    compare = ("--benchmark-compare", *LATENCY)

    def thresholds(*arguments):
        _, document = project.gate_json(*arguments)
        jsonschema.validate(document, read_schema())
        return {name: case["latency"]["threshold"] for name, case in by_model(document).items()}

    assert thresholds(*compare) == {"plain": 0.05, "card": 0.2, "precision": 0.3}
    project.ini(gate_replicates=1, gate_tolerance="12%")
    assert thresholds(*compare) == {"plain": 0.12, "card": 0.2, "precision": 0.3}
    project.pytester.makepyfile(
        test_marked="""
        import pytest

        @pytest.mark.gate(tolerance="7%")
        def test_latency(case, latency, benchmark):
            latency.replay_into(benchmark)
        """
    )
    assert thresholds(*compare, "test_marked.py") == dict.fromkeys(cards, 0.07)
    assert thresholds(*compare, "test_marked.py", "--gate-tolerance=3%") == dict.fromkeys(cards, 0.03)


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("tolerance='much'", "the gate marker's tolerance 'much' is not a percentage such as 5%"),
        ("tolerance=None", "the gate marker's tolerance None is not a percentage"),
        ("tolerance=5", "the gate marker's tolerance 5 is not a percentage such as 5% or a share of less than 1"),
        ("tolerance=float('nan')", "the gate marker's tolerance nan is not a percentage"),
        ("tolerence='3%'", "the gate marker takes one tolerance and nothing else"),
        ("", "the gate marker takes one tolerance and nothing else"),
    ],
)
def test_a_marker_that_says_nothing_ends_the_run_before_anything_is_measured(project, marker, sentence):
    project.pytester.makepyfile(
        test_marked=f"import pytest\n\n@pytest.mark.gate({marker})\ndef test_it(case, latency):\n    pass\n"
    )
    assert f"test_marked.py::test_it[linear-linear-fp32-b1-t1]: {sentence}" in refused(project, "test_marked.py")
    assert not project.store.exists()


def test_relax_turns_what_it_names_green_and_nothing_else(project):
    project.save("before", *LATENCY)
    project.scale_baseline(1 / 1000)
    compare = ("--benchmark-compare", *LATENCY)  # one replicate: slower, but not confirmed
    result, document = project.gate_json(*compare, "--gate-relax=ungateable,invalid")
    assert (result.ret, document["summary"]["red"], document["summary"]["relaxed"]) == (1, True, ["invalid", "ungateable"])
    result.assert_outcomes(failed=1)
    project.ini(gate_replicates=1, gate_relax="inconclusive")
    result, document = project.gate_json(*compare)
    result.assert_outcomes(passed=1)
    assert (result.ret, document["summary"]["red"], document["cases"][0]["verdict"]) == (0, False, "inconclusive")
    jsonschema.validate(document, read_schema())
    assert project.run(*compare, "--gate-relax=invalid").ret == 1


def test_the_same_seed_gives_the_same_order_and_a_run_tells_its_seed(project):
    threads = "--gate-threads=1,2,3,4,5"

    def order(*arguments):
        before = set((project.store / "logs").glob("*"))
        result = project.run(threads, *LATENCY, *arguments)
        assert result.ret == 0
        (logs,) = set((project.store / "logs").glob("*")) - before
        started = sorted(logs.glob("*.measure-1.log"), key=lambda path: path.stat().st_mtime_ns)
        seed = int(re.search(r"--gate-seed=(\d+)", result.stdout.str())[1])
        return seed, [path.name.split("-")[4] for path in started]

    assert order("--gate-seed=1") == (1, ["t3.measure", "t4.measure", "t5.measure", "t1.measure", "t2.measure"])
    assert order("--gate-seed=2")[1] != order("--gate-seed=1")[1]
    seed, drawn = order()
    assert order(f"--gate-seed={seed}") == (seed, drawn)


# ---------------------------------------------------------------- where things are kept


def test_baselines_are_kept_where_they_shall_be(project):
    project.save("before", *LATENCY, "--gate-baselines=kept/here")
    assert project.sessions() == []
    assert len(list((project.path / "kept" / "here").glob("*/0001_before.json"))) == 1
    assert not (project.path / ".benchmarks").exists()
    project.ini(gate_replicates=1, gate_baselines="kept/here", gate_relax="inconclusive,ungateable")
    result, document = project.gate_json("--benchmark-compare", *LATENCY)
    assert document["mode"] == "compare"
    assert len(document["cases"][0]["latency"]["baseline_sessions"]) == 1
    result.stdout.fnmatch_lines(["*(0001_before)*"])


def test_a_storage_that_is_given_explicitly_holds_the_device_s_folder(project):
    storage = "--benchmark-storage=file://./elsewhere"
    project.save("before", *LATENCY, storage)
    assert project.sessions() == []
    (saved,) = (project.path / "elsewhere").glob("**/0001_before.json")
    result, document = project.gate_json("--benchmark-compare", *LATENCY, storage)
    assert len(document["cases"][0]["latency"]["baseline_sessions"]) == 1
    assert document["device"]["id"] == saved.parent.name
    result.stdout.fnmatch_lines(["*(0001_before)*"])  # pytest-benchmark's own table
    _, document = project.gate_json(
        "--benchmark-compare", *LATENCY, f"--benchmark-storage=file://./elsewhere/{saved.parent.name}"
    )
    assert len(document["cases"][0]["latency"]["baseline_sessions"]) == 1


def test_what_was_converted_is_used_again_until_something_that_went_into_it_changes(converting):
    project = converting

    def artifacts(*arguments, made):
        result, document = project.gate_json(*arguments)
        assert result.ret == 0, result.stdout.str()
        assert sum(not case["artifact"]["cached"] for case in document["cases"]) == made
        return [case["artifact"]["digest"] for case in document["cases"]]

    card = {"precisions": ["fp32", "int8"]}
    project.write_card(**card)
    first = artifacts(made=2)
    assert artifacts(made=0) == first
    project.run().stdout.fnmatch_lines(["*(0 made, 2 from the store)*"])
    project.write_card(**card, tolerance="latency = 0.5", more='description = "the same model"')
    assert artifacts(made=0) == first
    assert artifacts("--gate-threads=2", made=0) == first
    artifacts("--gate-store=other", "--gate-batches=2", made=2)

    # Other pictures to calibrate with: nothing to those that need none.
    text = (project.path / "models" / "linear.toml").read_text()
    (project.path / "models" / "linear.toml").write_text(
        text.replace('file = "calibration.npz"', 'file = "calibration.npz", limit = 20')
    )
    limited = artifacts(made=1)
    assert limited[0] == first[0] and limited[1] != first[1]
    (project.path / "models" / "linear.toml").write_text(text.replace("shape = [4, 4, 1]", 'shape = [4, 4, 1], dtype = "uint8"'))
    artifacts(made=2)
    (project.path / "models" / "linear.toml").write_text(text)

    with (project.path / "linear_backend.py").open("a") as stream:
        stream.write("\n# A new release of the backend.\n")
    artifacts(made=2)
    project.write_model(note="trained again")
    artifacts(made=2)


def test_json_says_what_the_schema_says_and_a_place_that_cannot_be_written_is_red(project):
    project.write_card("linear", precisions=["fp32", "int8"])
    another(project, "broken", load="crash")
    another(project, "unread")
    (project.path / "models" / "unread.json").unlink()
    result, document = project.gate_json("--benchmark-save=before")
    jsonschema.validate(document, read_schema())
    assert result.ret == document["summary"]["exit_status"] == 1
    assert document["mode"] == "measure"
    assert {case["model"]: case["verdict"] for case in document["cases"]} == {
        "linear": "pass",
        "broken": "broken",
        "unread": "broken",
    }
    result, document = project.gate_json("--benchmark-compare")
    jsonschema.validate(document, read_schema())
    assert document["mode"] == "compare"
    assert by_model(document)["broken"]["verdict"] == "known_broken"

    project.pytester.makepyfile(test_artifact="def test_artifact(case, artifact):\n    pass\n")
    quick = ("test_artifact.py", "--gate-select=linear")
    assert project.run(*quick, "--gate-json=new/folder/result.json").ret == 0
    jsonschema.validate(json.loads((project.path / "new" / "folder" / "result.json").read_text()), read_schema())
    for place in ("models", "pytest.ini/result.json", "/proc/no/result.json"):
        result = project.run(*quick, f"--gate-json={place}")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.assert_outcomes(passed=2)
        result.stdout.re_match_lines([r"note: .*annot (write|make).*"])
        assert "--gate-json" in result.stdout.str()


# ---------------------------------------------------------------- limits


def test_conversions_run_side_by_side_when_more_jobs_than_one_are_allowed(converting):
    """Each of two conversions waits for the other one to have begun."""
    project = converting
    one, two = str(project.path / "one"), str(project.path / "two")
    project.write_model(log=one, wait_for=two, patience=1)
    another(project, "second", log=two, wait_for=one)
    result, document = project.gate_json("--gate-jobs=1")
    assert {name: case["outcome"]["kind"] for name, case in by_model(document).items()} == {
        "linear": "build_error",
        "second": "ok",
    }
    for path in (one, two):
        Path(path).unlink()
    project.write_model(log=one, wait_for=two)
    project.write_model("second", log=two, wait_for=one, note="so that it is converted again")
    result, document = project.gate_json("--gate-jobs=2", "--gate-timeout=convert=120")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*(2 made, 0 from the store)*"])


def test_a_stage_that_takes_too_long_too_much_memory_or_its_own_life_is_the_outcome_of_its_case(project):
    another(project, "hangs", load="hang")
    another(project, "hogs", convert="hog")
    another(project, "hogs_late", load="hog")
    another(project, "crashes", convert="crash")
    result, document = project.gate_json(
        "--gate-timeout=load=8", "--gate-timeout=convert=60", "--gate-memory-limit=600MiB", "--gate-jobs=2"
    )
    assert result.ret == 1
    jsonschema.validate(document, read_schema())
    cases = by_model(document)
    assert {name: (case["outcome"]["kind"], case["outcome"]["stage"]) for name, case in cases.items() if name != "hogs_late"} == {
        "linear": ("ok", None),
        "hangs": ("timeout", "load"),
        "hogs": ("oom", "convert"),
        "crashes": ("crash", "convert"),
    }
    assert cases["hogs_late"]["outcome"]["kind"] in ("oom", "timeout")  # both limits hold for it
    assert cases["crashes"]["outcome"]["signal"] == "SIGSEGV"
    assert cases["hangs"]["outcome"]["message"] == "loading the model took longer than 8 s, so the agent was stopped"
    assert "more than the limit of 600 MiB" in cases["hogs"]["outcome"]["message"]
    assert (cases["linear"]["verdict"], result.parseoutcomes()["passed"]) == ("pass", 2)
    assert document["summary"]["verdicts"] == {"pass": 1, "broken": 4}


# ---------------------------------------------------------------- other interpreters


def make_environment(path, *, with_packages):
    venv.create(path, with_pip=False, symlinks=True)
    if with_packages:
        site = Path(sysconfig.get_path("purelib", vars={"base": str(path)}))
        site.mkdir(parents=True, exist_ok=True)
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return path / "bin" / "python"


def started(project):
    """By name of the log: the interpreter of each agent of the last run."""
    logs = max((project.store / "logs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return {path.name.partition(".")[2].split(".")[0]: path.read_text().split()[1] for path in logs.glob("linear*.log")}


def test_another_interpreter_converts_or_runs(project):
    python = str(make_environment(project.path / "environment", with_packages=True))
    result = project.run("--gate-run-with=environment")
    assert result.ret == 0
    agents = started(project)
    assert (agents["convert"], agents["measure-1"], agents["predict"]) == (sys.executable, python, python)
    project.write_model(note="so that it is converted again")
    result = project.run(f"--gate-convert-with={python}", *LATENCY)
    assert result.ret == 0
    agents = started(project)
    assert (agents["convert"], agents["measure-1"]) == (python, sys.executable)


def test_an_interpreter_that_is_none_is_told_and_one_that_lacks_the_runtime_leaves_nothing_measured(project):
    true = next(path for path in ("/bin/true", "/usr/bin/true") if os.access(path, os.X_OK))
    for option, role in (("--gate-run-with", "runtime"), ("--gate-convert-with", "converter")):
        sentence = refused(project, f"{option}={true}")
        assert f"{true} cannot be used as the {role}: " in sentence
    make_environment(project.path / "empty", with_packages=False)
    result, document = project.gate_json("--gate-run-with=empty/bin/python")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "unsupported"
    result.stdout.fnmatch_lines(["*none is supported on this machine, so nothing is gated*"])


# ---------------------------------------------------------------- the network


class Recording(http.server.SimpleHTTPRequestHandler):
    requests: list = []

    def log_message(self, *arguments):
        self.requests.append(self.path)


def test_what_was_fetched_once_is_there_offline(project, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    hosted = project.path / "hosted"
    hosted.mkdir()
    (project.path / "models" / "linear.json").rename(hosted / "linear.json")
    digest = hashlib.sha256((hosted / "linear.json").read_bytes()).hexdigest()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Recording, directory=str(hosted))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        card = project.path / "models" / "linear.toml"
        url = f"http://127.0.0.1:{server.server_port}/linear.json"
        card.write_text(card.read_text().replace('file = "linear.json"', f'url = "{url}", sha256 = "{digest}"'))
        result, document = project.gate_json("--gate-offline")
        assert result.ret == 1 and not Recording.requests
        assert document["cases"][0]["outcome"]["kind"] == "fetch_error"
        assert url in document["cases"][0]["outcome"]["message"]
        assert project.run().ret == 0
        assert Recording.requests == ["/linear.json"]
        server.shutdown()
    assert project.run("--gate-offline").ret == 0
    project.ini(gate_replicates=1, gate_offline="true", gate_store="other")
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fetch_error in stage fetch*"])
