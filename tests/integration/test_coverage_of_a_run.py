"""Whole sessions of a backend that tells what runs on its accelerator: recorded, compared, and held against the card."""

import json
import sys

import pytest

CASE = "linear-linear-fp32-b1-t1"
WHOLE = {
    "accelerator": "toy",
    "on_accelerator": 70,
    "elsewhere": 2,
    "parts": 1,
    "off_chip_bytes": 0,
    "native_segments": None,
    "elsewhere_by_operation": [{"operation": "QUANTIZE", "count": 2, "reason": "not mapped"}],
    "source": "toy compiler 1.0",
}
LESS = {
    **WHOLE,
    "on_accelerator": 64,
    "elsewhere": 8,
    "elsewhere_by_operation": [
        {"operation": "QUANTIZE", "count": 2, "reason": "not mapped"},
        {"operation": "MEAN", "count": 6, "reason": "its data type is not supported"},
    ],
}


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # what is asked here is no verdict on latency
    return linear_project


def saved_case(path):
    (benchmark,) = json.loads(path.read_text())["benchmarks"]
    return benchmark["extra_info"]["inference_gate"]


def test_saved_then_compared_with_the_same(linear_project):
    linear_project.write_model(coverage=WHOLE)
    linear_project.save()
    (session,) = linear_project.sessions()
    assert saved_case(session)["coverage"] == WHOLE
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    (case,) = document["cases"]
    assert case["coverage"]["verdict"] == "pass"
    assert case["coverage"]["found"] == case["coverage"]["baseline"] == {**WHOLE, "share": 70 / 72}
    result.stdout.fnmatch_lines(["*on  verdict", "*accel.", "linear*70/72  pass"])


def test_less_is_a_fall_back_though_latency_holds(linear_project):
    linear_project.write_model(coverage=WHOLE)
    linear_project.save()
    linear_project.write_model(coverage=LESS)
    result, document = linear_project.gate_json("--benchmark-compare", "--benchmark-save=after")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    (case,) = document["cases"]
    assert case["verdict"] == "fallback"
    assert case["latency"]["verdict"] == "pass"
    assert case["coverage"]["verdict"] == "fallback"
    assert case["coverage"]["found"]["on_accelerator"] == 64
    result.stdout.fnmatch_lines(
        [
            f"{CASE} is fallback: 64 of 72 operations (88.9%) run on toy, 70 of 72 operations (97.2%) in the baseline",
            "  before *70 of 72*told by toy",
            "  after *64 of 72*",
            "  not on toy, what is new first",
            "       6 (before 0)  MEAN      its data type is not supported",
            "       2 (before 2)  QUANTIZE  not mapped",
            "  next: see in the conversion's log why*",
            "*to run this case again:*",
            "*64/72*fallback",
            "*do not ship*",
        ]
    )
    result.stdout.fnmatch_lines([f"not saved, since they failed: {CASE}"])
    assert not linear_project.candidates()


def test_both_a_slow_down_and_a_fall_back_are_told_by_the_one_test_that_fails(linear_project):
    linear_project.write_model(coverage=WHOLE)
    linear_project.ini(gate_replicates=5)
    linear_project.save()
    linear_project.scale_baseline(1 / 1000)
    linear_project.write_model(coverage=LESS)
    result, document = linear_project.gate_json("--benchmark-compare")
    assert document["cases"][0]["verdict"] == "fallback"
    result.stdout.fnmatch_lines([f"{CASE} is fallback: *", f"{CASE} is slower: *"])


def test_without_latency_the_accuracy_s_test_fails(linear_project):
    linear_project.write_model(coverage=WHOLE)
    linear_project.save()
    linear_project.write_model(coverage=LESS)
    result = linear_project.run("--benchmark-compare", "-k", "accuracy")
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines([f"{CASE} is fallback: *"])


def test_what_told_it_is_gone(linear_project):
    linear_project.write_model(coverage=WHOLE)
    linear_project.save()
    linear_project.write_model()
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "fallback"
    assert document["cases"][0]["coverage"]["found"] is None
    result.stdout.fnmatch_lines(
        ["*nothing tells what runs on toy*", "*next: use a release of the backend's runtime or converter*"]
    )


def test_more_passes_and_says_so(linear_project):
    linear_project.write_model(coverage=LESS)
    linear_project.save()
    linear_project.write_model(coverage={**WHOLE, "parts": 3})
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 0
    more, parts = (notice for notice in document["notices"] if notice.startswith(CASE))
    assert more == f"{CASE}: 70 of 72 operations (97.2%) run on toy, more than in the baseline (64 of 72 operations (88.9%))"
    assert parts.startswith(f"{CASE}: what runs on toy is in 3 parts, 1 in the baseline")


def test_a_baseline_of_before_there_was_coverage(linear_project):
    linear_project.save()
    linear_project.write_model(coverage=WHOLE)
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 0
    notice = f"the baseline does not know how much runs on the accelerator of {CASE}: record a new one"
    assert any(found.startswith(notice) for found in document["notices"])


class TestTheCard:
    @pytest.mark.parametrize(
        ("demand", "words"),
        [
            ("minimum_share = 0.98", "70 of 72 operations (97.2%) run on toy, and the card demands at least 0.98*"),
            ("maximum_off_chip_bytes = 100", "4096 bytes lie off the chip of toy, and the card allows at most 100"),
        ],
    )
    def test_is_held_without_any_baseline(self, linear_project, demand, words):
        linear_project.write_model(coverage={**WHOLE, "off_chip_bytes": 4096})
        linear_project.write_card(extra=f"[coverage.linear]\n{demand}")
        result = linear_project.run("--benchmark-save=before")
        assert result.ret == 1
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines([f"{CASE} is fallback: {words.replace('(', '[(]')}"])
        assert not linear_project.sessions()

    def test_is_not_reached_where_nothing_is_told(self, linear_project):
        linear_project.write_card(extra="[coverage.linear]\nminimum_share = 0.5")
        result = linear_project.run()
        assert result.ret == 1
        result.stdout.fnmatch_lines([f"{CASE} is fallback: the card demands a coverage*the backend tells none"])

    def test_is_reached(self, linear_project):
        linear_project.write_model(converted=WHOLE)
        linear_project.write_card(extra="[coverage.linear]\nminimum_share = 0.97\nmaximum_off_chip_bytes = 0")
        linear_project.save()


class TestWhoTells:
    def test_the_converter_where_the_runtime_does_not(self, linear_project):
        linear_project.write_model(converted=WHOLE)
        linear_project.save()
        _, document = linear_project.gate_json("--benchmark-compare")
        assert document["cases"][0]["artifact"]["cached"]
        assert document["cases"][0]["coverage"]["found"]["source"] == "toy compiler 1.0"

    def test_the_runtime_wins(self, linear_project):
        linear_project.write_model(converted=WHOLE, coverage={**LESS, "off_chip_bytes": None, "source": "toy runtime"})
        linear_project.save()
        (session,) = linear_project.sessions()
        coverage = saved_case(session)["coverage"]
        assert (coverage["on_accelerator"], coverage["source"], coverage["off_chip_bytes"]) == (64, "toy runtime", 0)

    @pytest.mark.parametrize("where", ["coverage", "converted"])
    def test_nonsense_is_no_coverage(self, linear_project, where):
        linear_project.write_model(**{where: {**WHOLE, "on_accelerator": "all of them"}})
        result, document = linear_project.gate_json("--benchmark-save=before")
        assert result.ret == 1
        (case,) = document["cases"]
        assert case["verdict"] == "broken"
        assert case["outcome"]["kind"] == ("run_error" if where == "coverage" else "build_error")
        assert "has 'all of them' as on_accelerator instead of a whole number" in case["reason"]

    def test_a_damaged_baseline_is_refused(self, linear_project):
        linear_project.write_model(coverage=WHOLE)
        linear_project.save()
        (session,) = linear_project.sessions()
        document = json.loads(session.read_text())
        document["benchmarks"][0]["extra_info"]["inference_gate"]["coverage"]["elsewhere"] = -1
        session.write_text(json.dumps(document))
        result = linear_project.run("--benchmark-compare")
        assert result.ret == 4
        result.stderr.fnmatch_lines(["*is damaged (its benchmark * has a coverage that has -1 as elsewhere*"])


class TestTwoStacks:
    def compare(self, project, *arguments):
        return project.gate_json(f"--gate-against={project.other_stack()}", *arguments)

    def test_alike(self, linear_project):
        linear_project.record([0.01], coverage=WHOLE)
        result, document = self.compare(linear_project)
        assert result.ret == 0
        assert document["cases"][0]["coverage"]["baseline"]["on_accelerator"] == 70

    @pytest.mark.parametrize("tests", ["latency", "accuracy"])
    def test_less_than_the_other_stack(self, linear_project, tests):
        linear_project.record([0.01], coverage=LESS, other={"coverage": WHOLE})
        result, document = self.compare(linear_project, "-k", tests)
        assert result.ret == 1
        assert document["cases"][0]["verdict"] == "fallback"
        result.stdout.fnmatch_lines(
            [f"{CASE} is fallback: 64 of 72 * run on toy, 70 of 72 * with the other stack", "  other stack *70 of 72*"]
        )

    def test_another_model_of_the_same_name(self, linear_project):
        linear_project.write_model(coverage=LESS)
        older = linear_project.path / "older"
        older.mkdir()
        for path in (linear_project.path / "models").iterdir():
            (older / path.name).write_bytes(path.read_bytes())
        source = json.loads((older / "linear.json").read_text())
        (older / "linear.json").write_text(json.dumps({**source, "coverage": WHOLE}))
        result, document = linear_project.gate_json(f"--gate-against-models={older}", "--gate-tolerance=900%")
        assert result.ret == 1
        assert document["cases"][0]["verdict"] == "fallback"


def test_what_the_conversion_remarks_is_a_notice_of_each_run_once(linear_project):
    linear_project.write_card("second")
    linear_project.write_model(remarks=["the compiler failed once and was run again"])
    linear_project.write_model("second", remarks="not a list")
    note = "note: linear-linear-fp32-b1: the compiler failed once and was run again"
    for _ in range(2):  # the second time from the store
        result = linear_project.run("--gate-threads=1,2")
        assert result.stdout.lines.count(note) == 1


def test_the_command_line_shows_it(linear_project):
    linear_project.write_model(coverage=WHOLE)
    linear_project.save()
    linear_project.write_model(coverage=LESS)
    linear_project.save("after")
    (device,) = linear_project.baselines.iterdir()

    def lines(*arguments):
        command = (sys.executable, "-m", "pytest_inference_gate", "baseline", *arguments, f"--baselines={device.parent}")
        return linear_project.pytester.run(*command).stdout

    lines("show", "0001").fnmatch_lines(["*on accelerator*", f"{CASE}*70/72*pass"])
    lines("diff", "0001", "0002").fnmatch_lines(["*on accelerator*", f"{CASE}*70/72 -> 64/72"])
