"""Whole sessions of a backend whose builder makes another model of the same each time, on recorded clocks."""

import json

import pytest

CASE = "linear-linear-fp32-b1-t1"
WHOLE = {"accelerator": "toy", "on_accelerator": 70, "elsewhere": 2, "source": "toy compiler 1.0"}
LESS = {**WHOLE, "on_accelerator": 64, "elsewhere": 8}


@pytest.fixture
def project(linear_project, monkeypatch):
    """``build(...)``: from now on each conversion takes the next of these settings; ``upgrade`` makes all artifacts new ones."""
    monkeypatch.setenv("LINEAR_BUILT_ON_DEVICE", "1")
    linear_project.write_card(tolerance="latency = 0.05\ntop1_drop = 0.02")
    count = 0

    def build(*builds, **extra):
        nonlocal count
        count += 1
        settings = [one if isinstance(one, dict) else {"factor": one} for one in builds]
        linear_project.record([0.01], builds=settings, built=str(linear_project.path / f"built-{count}"), **extra)

    linear_project.build = build
    return linear_project


def compare(project, *arguments):
    result, document = project.gate_json("--benchmark-compare", "-k", "latency", *arguments)
    (case,) = document["cases"]
    return result, document, case


def saved_case(path):
    (benchmark,) = json.loads(path.read_text())["benchmarks"]
    return benchmark["extra_info"]["inference_gate"]


def test_each_build_is_kept_and_measured_in_turn(project):
    project.build(1.00, 1.02, 1.04)
    result, document = project.gate_json("--gate-rebuilds=3", "--benchmark-save=before", "-k", "latency")
    assert result.ret == 0
    (case,) = document["cases"]
    assert case["latency"]["replicate_builds"] == [0, 1, 2, 0, 1, 2]  # of five wanted, so that each has as many
    assert case["latency"]["build_medians"] == pytest.approx([0.0100, 0.0102, 0.0104])
    assert case["latency"]["build_spread"] == pytest.approx(0.04)
    result.stdout.fnmatch_lines([f"builds differ: {CASE} by 4.0%"])
    block = saved_case(project.sessions()[0])
    assert len(set(block["builds"])) == 3
    assert block["replicate_builds"] == [0, 1, 2, 0, 1, 2]
    assert len([one for one in (project.store / "artifacts").iterdir() if (one / "payload" / "model.json").exists()]) == 3


def test_the_same_builds_from_the_store_are_compared_as_they_are(project):
    project.build(1.00, 1.10, 1.20)
    project.save("before", "--gate-rebuilds=3", "-k", "latency")
    result, _, case = compare(project, "--gate-rebuilds=3")
    assert result.ret == 0
    assert case["latency"]["compared_builds"]["same"]
    assert len(case["latency"]["replicates"]) == 3  # nothing to be unsure of, although builds differ by 20 %
    # And a single one of them, too.
    result, _, case = compare(project)
    assert result.ret == 0
    assert case["latency"]["ratio"] == pytest.approx(1, abs=1e-3)


def test_builds_that_scatter_explain_what_would_be_slower(project):
    project.build(1.00, 1.10, 1.20)
    project.save("before", "--gate-rebuilds=3", "-k", "latency")
    project.build(1.12, 1.28, 1.20, note="another model")
    result, _, case = compare(project, "--gate-rebuilds=3")
    assert result.ret == 1
    assert case["verdict"] in ("inconclusive", "ungateable")
    assert "builds of one software scatter by" in case["reason"]
    assert case["latency"]["compared_builds"] == {
        "candidate": 3,
        "baseline": 3,
        "scatter": pytest.approx(0.083, abs=0.005),
        "same": False,
    }
    result.stdout.fnmatch_lines(["  builds *3 against 3; those of this run differ by 14.3%*"])


def test_a_true_slow_down_is_slower_in_all_builds(project):
    project.build(1.00, 1.01, 1.02)
    project.save("before", "--gate-rebuilds=3", "-k", "latency")
    project.build(1.20, 1.21, 1.22, note="another model")
    result, _, case = compare(project, "--gate-rebuilds=3")
    assert result.ret == 1
    assert case["verdict"] == "slower"
    assert "3 builds against 3 builds" in case["reason"]
    assert "hardly by rebuilding" in case["reason"]


def test_one_build_against_one_says_that_it_cannot_tell(project):
    project.build(1.00)
    project.save("before", "-k", "latency")
    project.build(1.20, note="another model")
    _, document, case = compare(project)
    assert case["verdict"] == "slower"
    assert "this is one build against one, and rebuilding alone may" in case["reason"]
    note = f"one build is compared with one other build of {CASE}: rebuilding alone may make a difference of some percent"
    assert any(notice.startswith(note) for notice in document["notices"])


def test_one_build_against_a_baseline_that_knows_how_builds_scatter(project):
    project.build(1.00, 1.05, 1.10)
    project.save("before", "--gate-rebuilds=3", "-k", "latency")
    project.build(1.15, note="another model")
    _, _, case = compare(project)
    assert case["verdict"] in ("inconclusive", "ungateable")
    assert "builds of one software scatter by" in case["reason"]


def test_an_engine_that_was_built_anew_of_the_same_is_another_build(project):
    """Its digest in the store is that of what it was made of, which has not changed."""
    project.build(1.00, 1.20)
    project.save("before", "-k", "latency")
    (artifact,) = [one for one in (project.store / "artifacts").iterdir() if (one / "payload" / "model.json").exists()]
    for path in sorted(artifact.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    artifact.rmdir()
    _, _, case = compare(project)
    assert case["latency"]["compared_builds"] == {"candidate": 1, "baseline": 1, "scatter": None, "same": False}


def test_other_backends_are_built_once(project, monkeypatch):
    monkeypatch.delenv("LINEAR_BUILT_ON_DEVICE")
    project.build(1.00, 1.10)
    result, document = project.gate_json("--gate-rebuilds=3")
    assert document["cases"][0]["latency"]["replicate_builds"] == []
    result.stdout.no_fnmatch_line("*builds differ*")


def test_the_worst_build_decides_on_accuracy_and_coverage(project):
    project.build({}, {"weights": project.weights[:, ::-1].tolist()}, {})
    result, document = project.gate_json("--gate-rebuilds=3", "-k", "accuracy")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "inaccurate"
    assert case["reason"].startswith("build 2 of 3: ")

    project.build({"coverage": WHOLE}, {"coverage": WHOLE}, {"coverage": LESS}, note="another model")
    project.write_card(extra="[coverage.linear]\nminimum_share = 0.95", tolerance="latency = 0.05\ntop1_drop = 0.02")
    result, document = project.gate_json("--gate-rebuilds=3")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "fallback"
    assert document["cases"][0]["coverage"]["found"]["on_accelerator"] == 64


def test_a_build_that_fails_breaks_the_case(project):
    project.build({}, {"load": "fail"})
    result, document = project.gate_json("--gate-rebuilds=2")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "broken"


class TestTwoStacks:
    def compare(self, project, *arguments):
        result, document = project.gate_json(f"--gate-against={project.other_stack()}", "-k", "latency", *arguments)
        (case,) = document["cases"]
        return result, case

    def test_builds_take_turns(self, project):
        project.build(1.00, other={"builds": [{"factor": 1.00}], "built": str(project.path / "built-other")})
        result, case = self.compare(project, "--gate-rebuilds=3")
        assert result.ret == 0
        assert case["latency"]["replicate_builds"] == [0, 1, 2]
        assert case["latency"]["compared_builds"]["candidate"] == 3

    def test_scattering_builds_are_no_slow_down(self, project):
        other = {"builds": [{"factor": 1.00}, {"factor": 1.10}, {"factor": 1.05}], "built": str(project.path / "built-other")}
        project.build(1.10, 1.14, 1.20, other=other)
        _, case = self.compare(project, "--gate-rebuilds=3")
        assert case["verdict"] == "inconclusive"
        assert "builds of one software scatter by" in case["reason"]
        assert len(case["latency"]["pair_ratios"]) <= 18  # more pairs are no more builds

    def test_a_true_one_is(self, project):
        other = {"builds": [{"factor": 1.00}, {"factor": 1.01}, {"factor": 1.02}], "built": str(project.path / "built-other")}
        project.build(1.30, 1.31, 1.33, other=other)
        _, case = self.compare(project, "--gate-rebuilds=3")
        assert case["verdict"] == "slower"
        assert "3 builds against 3 builds" in case["reason"]

    def test_one_against_one(self, project):
        other = {"builds": [{"factor": 1.00}], "built": str(project.path / "built-other")}
        project.build(1.30, other=other)
        _, case = self.compare(project)
        assert case["verdict"] == "slower"
        assert "this is one build against one" in case["reason"]


def test_a_damaged_record_of_builds_is_refused(project):
    project.build(1.00, 1.02)
    project.save("before", "--gate-rebuilds=2", "-k", "latency")
    (session,) = project.sessions()
    document = json.loads(session.read_text())
    document["benchmarks"][0]["extra_info"]["inference_gate"]["replicate_builds"][0] = 7
    session.write_text(json.dumps(document))
    result = project.run("--benchmark-compare")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*does not say which build each of its replicates ran*"])
