"""Whole sessions: recorded, then compared. What was recorded is rewritten, so that no verdict depends on this machine's timing."""

import json
import xml.etree.ElementTree as ElementTree


def test_measure_prints_a_table_and_says_that_nothing_was_compared(linear_project):
    result = linear_project.run("-m", "cpu")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*1 case on *", "*linear*linear*fp32*pass*", "*1 case measured, nothing compared: record a baseline*"]
    )


def test_a_session_saved_then_compared_is_green(linear_project):
    linear_project.save()
    assert len(linear_project.sessions()) == 1
    result = linear_project.run("--benchmark-compare")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*1 case: 1 pass: may ship*"])


def test_a_slower_case_fails_its_own_test_with_every_figure(linear_project):
    linear_project.save()
    linear_project.scale_baseline(1 / 1000)
    result = linear_project.run("--benchmark-compare", "--junit-xml=junit.xml")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*linear-linear-fp32-b1-t1 is slower*",
            "*before*ms*",
            "*after*ms*",
            "*ratio*",
            "*threshold*",
            "*1 case: 1 slower: do not ship*",
        ]
    )
    suite = ElementTree.parse(linear_project.path / "junit.xml").getroot().find("testsuite")
    assert suite.get("failures") == "1"
    assert "threshold" in suite.find("testcase[@name='test_latency[linear-linear-fp32-b1-t1]']/failure").get("message")


def test_a_slow_moment_is_not_confirmed_by_fresh_replicates(linear_project):
    linear_project.write_card(tolerance="latency = 0.05\ntop1_drop = 0.02")
    linear_project.record([0.010])
    linear_project.save("before", "-k", "latency")
    linear_project.record([0.012] * 5 + [0.010])
    result, document = linear_project.gate_json("--benchmark-compare", "-k", "latency")
    assert result.ret == 0
    (case,) = document["cases"]
    assert case["verdict"] == "pass"
    assert "5 fresh ones did not confirm" in case["reason"]
    assert len(case["latency"]["replicates"]) == 10
    result.stdout.fnmatch_lines(["*1 case looks different from the baseline: measuring 5 times more to be sure"])


def test_a_faster_case_passes_and_says_that_the_baseline_is_stale(linear_project):
    linear_project.save()
    linear_project.scale_baseline(1000)
    result = linear_project.run("--benchmark-compare")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*linear-linear-fp32-b1-t1: faster: *", "*check that it still does all of its work*"])


def test_a_damaged_model_is_inaccurate(linear_project):
    linear_project.save()
    linear_project.write_model(weights=linear_project.weights[:, ::-1])
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "inaccurate"
    assert document["cases"][0]["accuracy"]["top1"] < 0.5


def test_a_model_that_a_runtime_cannot_load_is_broken(linear_project):
    linear_project.save()
    linear_project.write_model(load="fail")
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 1
    result.assert_outcomes(failed=2)
    (case,) = document["cases"]
    assert case["verdict"] == "broken"
    assert case["outcome"]["kind"] == "load_error"
    result.stdout.fnmatch_lines(["*Didn't find op for builtin opcode 'LINEAR' version '12'*"])


def test_a_crash_is_broken_with_its_signal_and_leaves_the_others_alone(linear_project):
    linear_project.write_card("second")
    linear_project.write_model("second")
    linear_project.save()
    linear_project.write_model("second", load="crash")
    result, document = linear_project.gate_json("--benchmark-compare")
    verdicts = {case["model"]: case for case in document["cases"]}
    assert verdicts["linear"]["verdict"] == "pass"
    assert verdicts["second"]["verdict"] == "broken"
    assert verdicts["second"]["outcome"]["signal"] == "SIGABRT"
    assert result.ret == 1


def test_what_was_broken_before_is_expected_to_fail_and_its_repair_is_told(linear_project):
    linear_project.write_card("second")
    linear_project.write_model("second", convert="fail")
    before = linear_project.run("--benchmark-save=before")
    before.assert_outcomes(passed=2, failed=2)
    (saved,) = linear_project.sessions()
    assert [broken["id"] for broken in json.loads(saved.read_text())["inference_gate"]["broken"]] == ["second-linear-fp32-b1-t1"]

    same = linear_project.run("--benchmark-compare")
    assert same.ret == 0
    same.assert_outcomes(passed=2, xfailed=2)

    linear_project.write_model("second")
    repaired = linear_project.run("--benchmark-compare")
    assert repaired.ret == 0
    repaired.assert_outcomes(passed=4)
    repaired.stdout.fnmatch_lines(["*second-linear-fp32-b1-t1: fixed*"])


def test_a_case_without_baseline_errors_with_the_command_that_records_one(linear_project):
    result = linear_project.run("--benchmark-compare", "-m", "cpu")
    assert result.ret == 1
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*has no baseline*", "*pytest -m cpu --benchmark-save=NAME*"])


def test_a_renamed_case_has_no_baseline_and_its_old_name_is_offered(linear_project):
    linear_project.save()
    linear_project.write_card("linear2")
    linear_project.write_model("linear2")
    (linear_project.path / "models" / "linear.toml").unlink()
    result = linear_project.run("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*linear-linear-fp32-b1-t1*was the case renamed?*"])


def test_few_replicates_are_inconclusive_with_a_letter_of_their_own(linear_project):
    linear_project.save()
    linear_project.scale_baseline(1 / 1000)
    result = linear_project.run("--benchmark-compare", "--gate-replicates=1", "--gate-budget=0.001", "-v")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_latency*INCONCLUSIVE*"])
    relaxed = linear_project.run("--benchmark-compare", "--gate-replicates=1", "--gate-budget=0.001", "--gate-relax=inconclusive")
    assert relaxed.ret == 0


def test_software_that_changed_is_named(linear_project):
    linear_project.save()
    linear_project.scale_baseline(1 / 1000)
    (path,) = linear_project.sessions()
    document = json.loads(path.read_text())
    document["inference_gate"]["software"]["numpy"] = "1.0.0"
    path.write_text(json.dumps(document))
    result = linear_project.run("--benchmark-compare")
    result.stdout.fnmatch_lines(["*changed since the baseline*", "*numpy 1.0.0 -> *", "*software that changed: numpy 1.0.0 -> *"])
