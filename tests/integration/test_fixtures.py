"""Each fixture and each hook in a test of a user's own, in whole sessions."""

import json

import pytest

CASE = "linear-linear-fp32-b1-t1"


@pytest.fixture
def project(linear_project):
    """Without the suite: each test writes its own."""
    linear_project.ini(gate_replicates=1)
    for test in linear_project.path.glob("test_*.py"):
        test.unlink()
    return linear_project


def write(project, text, name="test_own"):
    project.pytester.makepyfile(**{name: text})


def add_hooks(project, text):
    with (project.path / "conftest.py").open("a") as stream:
        stream.write("\n\n" + text)


def phases(document):
    """What was done at all, of what takes time: nobody waits for what no test asks for."""
    (case,) = document["cases"]
    return {name for name in ("artifact", "accuracy", "latency") if case[name] is not None}


# ---------------------------------------------------------------- each fixture alone

ALONE = {
    "case": (
        """
        def test_case(case):
            assert case.id == "linear-linear-fp32-b1-t1"
            assert (case.model, case.backend, case.precision, case.batch, case.threads) == ("linear", "linear", "fp32", 1, 1)
            assert case.card.labels.count == 5
        """,
        set(),
    ),
    "checkpoint": (
        """
        import hashlib

        def test_checkpoint(checkpoint):
            assert checkpoint.format == "other"
            assert checkpoint.sha256 == hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
        """,
        set(),
    ),
    "artifact": (
        """
        import json

        def test_artifact(artifact):
            assert artifact.cached is False
            (file,) = artifact.payload.iterdir()
            assert artifact.size_bytes == file.stat().st_size
            assert json.loads(file.read_text())["precision"] == "fp32"
            assert artifact.provenance["converter"]
        """,
        {"artifact"},
    ),
    "accuracy": (
        """
        def test_accuracy(accuracy):
            assert accuracy.figures.top1 == 1.0
            assert accuracy.figures.n == 150
            assert accuracy.verdict == "pass"
            accuracy.check()
        """,
        {"artifact", "accuracy"},
    ),
    "latency": (
        """
        import pytest

        def test_latency(latency):
            assert latency.figures.rounds == 20
            assert 0 < latency.figures.median < 1
            assert latency.verdict == "pass"
            latency.check()
            with pytest.raises(ValueError, match="needs a test that asks for the fixtures latency and benchmark by name"):
                latency.replay_into(None)
        """,
        {"artifact", "latency"},
    ),
    "gate": (
        """
        def test_gate(gate, case):
            assert list(gate.cases) == [case.id]
            assert gate.results[case.id].verdict == "pass"
            assert gate.settings.replicates == 1
        """,
        set(),
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_fixture_alone_does_what_it_needs_and_no_more(project, name):
    text, done = ALONE[name]
    write(project, text)
    result, document = project.gate_json()
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=1)
    assert phases(document) == done
    result.stdout.no_fnmatch_line("*nothing was measured*")
    assert f"[{CASE}]" in document["cases"][0]["nodeids"][0]


def test_the_runner_predicts_measures_and_says_what_it_cannot_take(project):
    write(
        project,
        """
        import numpy
        import pytest
        from pytest_inference_gate.errors import EvaluationDataError

        def test_runner(case, runner, checkpoint):
            import json
            weights = numpy.array(json.loads(checkpoint.path.read_text())["weights"], numpy.float32)
            pictures = numpy.random.default_rng(3).integers(0, 256, (7, 4, 4), dtype=numpy.uint8)
            expected = pictures.reshape(7, 16).astype(numpy.float32) @ weights
            outputs = runner.predict(list(pictures))
            assert outputs.dtype == numpy.float32
            numpy.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-2)
            prepared = pictures.astype(numpy.float32)[..., None]
            numpy.testing.assert_array_equal(runner.predict_prepared(prepared), outputs)
            assert runner.load_seconds > 0
            assert runner.inputs[0]["shape"] == [1, 4, 4, 1]
            replicate = runner.measure()
            assert len(replicate.rounds) == 20 and min(replicate.rounds) > 0

        @pytest.mark.parametrize("shape", [(4, 4, 1), (3, 5, 4, 1), (0, 4, 4, 1), (2, 16)])
        def test_wrong_arrays(runner, shape):
            with pytest.raises(ValueError, match=r"expected at least one input of shape \\(4, 4, 1\\), but got an array of shape"):
                runner.predict_prepared(numpy.zeros(shape, numpy.float32))

        @pytest.mark.parametrize(
            ("pictures", "sentence"),
            [
                (numpy.zeros((2, 5, 4), numpy.uint8), "is 5 x 4 pixels"),
                (numpy.zeros((4,), numpy.uint8), "has the shape"),
                (numpy.full((1, 4, 4), 300.0), "holds the value 300"),
                ([], "there are no pictures"),
            ],
        )
        def test_wrong_pictures(runner, pictures, sentence):
            with pytest.raises(EvaluationDataError, match=sentence):
                runner.predict(pictures)
        """,
    )
    result = project.run()
    result.assert_outcomes(passed=9)
    assert result.ret == 0


def test_the_runners_agent_ends_with_its_test_and_each_test_has_its_own(project):
    write(
        project,
        """
        import os

        import pytest

        seen = []

        def alive(pid):
            try:
                with open(f"/proc/{pid}/stat") as stream:
                    return stream.read().rpartition(")")[2].split()[0] != "Z"
            except FileNotFoundError:
                return False

        @pytest.mark.parametrize("number", [1, 2])
        def test_first(runner, number):
            pid = runner._agent.hello["pid"]
            assert alive(pid) and pid not in seen
            assert not any(alive(other) for other in seen)
            seen.append(pid)

        def test_failing(runner):
            seen.append(runner._agent.hello["pid"])
            assert alive(seen[-1])
            raise RuntimeError("of the user's own")

        def test_last():
            assert len(seen) == 3
            assert not any(alive(pid) for pid in seen)
        """,
    )
    result = project.run()
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: of the user's own*"])


def test_accuracy_and_latency_come_alone_or_together_and_a_test_s_own_assertion_counts(project):
    write(
        project,
        """
        def test_both(case, accuracy, latency, benchmark):
            latency.replay_into(benchmark)
            accuracy.check()
            latency.check()

        def test_budget(case, latency):
            assert latency.figures.p90 < 0
        """,
    )
    result, document = project.gate_json("--benchmark-save=before")
    result.assert_outcomes(passed=1, failed=1)
    assert phases(document) == {"artifact", "accuracy", "latency"}
    assert project.sessions() == []  # what fails a test of its own is no baseline


def test_cases_that_do_not_come_so_far_skip_or_fail_with_one_sentence(project, monkeypatch):
    write(
        project,
        """
        def test_checkpoint(checkpoint):
            pass

        def test_artifact(artifact):
            pass

        def test_runner(runner):
            pass

        def test_figures(accuracy, latency):
            assert accuracy.figures is None and latency.figures is None
            latency.check()
        """,
    )
    project.write_model(load="fail")
    result = project.run("-rA")
    result.assert_outcomes(passed=2, failed=1, errors=1)  # the artifact is there, but nothing runs it
    assert result.stdout.str().count("Traceback") == 0
    project.write_model(convert="fail")
    result = project.run()
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(["build_error in stage convert: *the converter does not know this layer*"])
    (project.path / "models" / "linear.json").unlink()
    result = project.run()
    result.assert_outcomes(failed=1, errors=3)
    project.write_model()
    monkeypatch.setenv("LINEAR_MISSING", "1")
    result = project.run("-rs")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*the linear runtime is not installed*"])


# ---------------------------------------------------------------- names of a user's own


def test_a_case_of_a_users_own_is_left_alone(project):
    write(
        project,
        """
        import pytest

        @pytest.fixture
        def case():
            return "mine"

        @pytest.fixture
        def runner(case):
            return f"{case} runs"

        def test_fixture(case, runner):
            assert (case, runner) == ("mine", "mine runs")

        @pytest.mark.parametrize("case", ["upper", "lower"])
        def test_parameter(case):
            assert case in ("upper", "lower")

        @pytest.mark.parametrize(("case", "artifact"), [(1, 2)])
        def test_parameters(case, artifact):
            assert (case, artifact) == (1, 2)
        """,
    )
    result = project.run("-v")
    result.assert_outcomes(passed=4)
    assert CASE not in result.stdout.str()
    assert not project.store.exists()


def test_cases_and_a_users_own_parameters_and_classes_go_together(project):
    write(
        project,
        """
        import pytest

        class TestMine:
            @pytest.mark.parametrize("size", [1, 2])
            def test_size(self, size, case):
                assert size and case.backend == "linear"
        """,
    )
    result, document = project.gate_json("-m", "cpu")
    result.assert_outcomes(passed=2)
    assert len(document["cases"][0]["nodeids"]) == 2
    project.run("-m", "jetson").assert_outcomes(deselected=2)


# ---------------------------------------------------------------- hooks


def test_every_hook(project):
    add_hooks(
        project,
        """
def halved(picture):
    return picture / 2


def pytest_inference_gate_scalings(config):
    return {"halved": halved}


def pytest_inference_gate_metrics(config):
    return {
        "share_of_class_0": lambda outputs, labels: (outputs.argmax(1) == 0).mean(),
        "labelled": lambda outputs, labels: len(labels),
        "undefined": lambda outputs, labels: float("nan"),
    }


def pytest_inference_gate_result(config, result):
    with open("results.txt", "a") as stream:
        stream.write(f"{result.id} {result.verdict}\\n")
""",
    )
    card = project.path / "models" / "linear.toml"
    card.write_text(card.read_text().replace('"grayscale"', '"grayscale", scaling = "halved"'))
    write(
        project,
        """
        import numpy

        def test_it(accuracy, runner):
            picture = numpy.full((4, 4), 200, numpy.uint8)
            halved = numpy.full((1, 4, 4, 1), 100, numpy.float32)
            numpy.testing.assert_allclose(runner.predict([picture]), runner.predict_prepared(halved))
        """,
    )
    result, document = project.gate_json()
    assert result.ret == 0
    metrics = document["cases"][0]["accuracy"]["metrics"]
    assert metrics["labelled"] == 150 and 0 <= metrics["share_of_class_0"] <= 1
    assert metrics["undefined"] is None
    assert (project.path / "results.txt").read_text() == f"{CASE} pass\n"
    # What a hook's code makes of the pictures is no longer the same when the code changes.
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("picture / 2", "picture / 4"))
    result = project.run()
    result.assert_outcomes(failed=1)


BROKEN_HOOKS = {
    "metric": (
        "def pytest_inference_gate_metrics(config):\n    return {'odd': lambda outputs, labels: 1 / 0}\n",
        "*the metric 'odd' *raised ZeroDivisionError: division by zero*",
        "run_error",
    ),
    "text": (
        "def pytest_inference_gate_metrics(config):\n    return {'odd': lambda outputs, labels: 'high'}\n",
        "*the metric 'odd' *raised ValueError: could not convert string to float*",
        "run_error",
    ),
    "scaling": (
        "def pytest_inference_gate_scalings(config):\n    return {'odd': lambda picture: picture.nothing}\n",
        "*picture 0 of evaluation.npz: the scaling 'odd' raised AttributeError*",
        "fetch_error",
    ),
    "shape": (
        "def pytest_inference_gate_scalings(config):\n    return {'odd': lambda picture: picture[:2]}\n",
        "*the scaling 'odd' made (2, 4, 1) of (4, 4, 1); it has to keep the shape*",
        "fetch_error",
    ),
    "nothing": (
        "def pytest_inference_gate_scalings(config):\n    return {'odd': lambda picture: None}\n",
        "*the scaling 'odd' gave values of type object*",
        "fetch_error",
    ),
}


@pytest.mark.parametrize("name", BROKEN_HOOKS)
def test_a_hook_that_fails_is_the_outcome_of_its_case(project, name):
    text, sentence, kind = BROKEN_HOOKS[name]
    add_hooks(project, text)
    if "scalings" in text:
        card = project.path / "models" / "linear.toml"
        card.write_text(card.read_text().replace('"grayscale"', '"grayscale", scaling = "odd"'))
    write(project, "def test_it(accuracy):\n    accuracy.check()\n")
    result, document = project.gate_json()
    assert result.ret == 1
    result.assert_outcomes(failed=1)
    assert document["cases"][0]["outcome"]["kind"] == kind
    result.stdout.fnmatch_lines([sentence])
    assert "Traceback" not in result.stdout.str() and "INTERNALERROR" not in result.stdout.str()


# ---------------------------------------------------------------- beside pytest-benchmark


def test_pytest_benchmarks_own_marks_options_and_files_hold_for_cases_too(project):
    project.write_model(pause=0.1)
    write(
        project,
        """
        import pytest

        @pytest.mark.benchmark(group="mine", disable_gc=True)
        def test_grouped(case, latency, benchmark):
            benchmark.extra_info["own"] = 7
            latency.replay_into(benchmark)

        def test_plain(benchmark):
            assert benchmark(lambda: 3) == 3
        """,
    )
    result = project.run(
        "--benchmark-json=bench.json",
        "--benchmark-save=before",
        "--benchmark-save-data",
        "--benchmark-cprofile=cumtime",
        "--benchmark-min-rounds=3",
        "--durations=0",
    )
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*benchmark 'mine': 1 tests*"])
    for path in (project.path / "bench.json", *project.sessions()):
        benchmarks = {entry["name"].partition("[")[0]: entry for entry in json.loads(path.read_text())["benchmarks"]}
        grouped = benchmarks["test_grouped"]
        assert grouped["group"] == "mine"
        assert grouped["options"]["disable_gc"] is True
        assert grouped["extra_info"]["own"] == 7
        (rounds,) = grouped["extra_info"]["inference_gate"]["rounds"]
        assert len(rounds) == 20
        assert grouped["stats"]["data"] == pytest.approx(rounds, rel=1e-9)
        assert grouped["stats"]["rounds"] == 20
        assert "inference_gate" not in benchmarks["test_plain"]["extra_info"]
    # The time of the sweep is nobody's: no test looks slow for what it only replays.
    durations = [
        line.split() for line in result.stdout.lines if line.strip().endswith(f"test_grouped[{CASE}]") and "s call" in line
    ]
    assert all(float(line[0].rstrip("s")) < sum(rounds) for line in durations)


def test_a_histogram(project):
    write(project, "def test_it(case, latency, benchmark):\n    latency.replay_into(benchmark)\n")
    # In a process of its own: pygal takes over how installed packages are found, and later sessions in this one would have no plugins.
    assert project.run("--benchmark-histogram=picture", subprocess=True).ret == 0
    assert list(project.path.glob("picture*.svg"))


def test_without_pytest_benchmark_there_is_a_sentence(project):
    write(project, "def test_it(case, latency):\n    latency.check()\n")
    for test in ("def test_it(case, latency):\n    latency.check()\n", "def test_it(accuracy):\n    accuracy.check()\n"):
        write(project, test)
        result = project.run("-p", "no:benchmark")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(
            ["ERROR: inference-gate needs pytest-benchmark, which is switched off here (-p no:benchmark)*"]
        )
    write(project, "def test_it():\n    pass\n")
    assert project.run("-p", "no:benchmark").ret == 0


def test_a_project_that_takes_warnings_for_errors_gets_none_of_the_gate(project):
    """Neither from a case that passes, nor from one whose test ends before it has anything to replay."""
    project.write_card("second")
    project.write_model("second", load="fail")
    write(project, "def test_it(case, accuracy, latency, benchmark):\n    latency.replay_into(benchmark)\n    latency.check()\n")
    result = project.run("-W", "error", subprocess=True)
    result.assert_outcomes(passed=1, failed=1)
    assert "Warning" not in result.stdout.str()


def test_a_case_that_a_users_own_hook_parametrizes_is_left_alone(project):
    add_hooks(
        project,
        """
def pytest_generate_tests(metafunc):
    if metafunc.function.__name__ == "test_own":
        metafunc.parametrize("case", ["upper", "lower"])
""",
    )
    write(project, "def test_own(case):\n    assert case in ('upper', 'lower')\n\ndef test_other(case):\n    assert case.id\n")
    result = project.run("-v")
    result.assert_outcomes(passed=3)
