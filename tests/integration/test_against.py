"""Whole sessions with ``--gate-against``: two stacks in turns, on recorded distributions, so that no verdict depends on this machine."""

import json
import shutil

import pytest

CASE = "linear-linear-fp32-b1-t1"


def compare(project, *arguments):
    return project.gate_json(f"--gate-against={project.other_stack()}", *arguments)


@pytest.fixture
def project(linear_project):
    linear_project.write_card(tolerance="top1_drop = 0.02")
    return linear_project


def test_two_stacks_that_are_alike_pass_after_three_pairs(project):
    project.record([0.0100, 0.0101, 0.0099], [0.0100, 0.0100, 0.0100])
    result, document = compare(project, "-m", "cpu")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert document["mode"] == "against"
    (case,) = document["cases"]
    assert case["verdict"] == "pass"
    assert case["latency"]["pair_ratios"] == pytest.approx([1.0, 1.01, 0.99])
    assert case["latency"]["threshold"] == 0.03
    result.stdout.fnmatch_lines(["*1 case: 1 pass: may ship*"])


def test_a_stack_that_is_five_percent_slower_is_red_after_ten_pairs(project):
    project.record([0.0105, 0.0106, 0.0104, 0.0105, 0.0105], [0.0100])
    result, document = compare(project, "-k", "latency")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "slower"
    assert case["latency"]["stage"] == "confirmed"
    assert len(case["latency"]["pair_ratios"]) == 10
    assert case["latency"]["ratio"] == pytest.approx(1.05)
    result.stdout.fnmatch_lines(["*looks different from the other stack: measuring 5 times more to be sure*", "*do not ship*"])


def test_a_faster_stack_is_green_and_told(project):
    project.record([0.0080], [0.0100])
    result, document = compare(project)
    assert result.ret == 0
    assert document["cases"][0]["verdict"] == "faster"
    result.stdout.fnmatch_lines([f"*{CASE}: faster: *"])


def test_a_few_slow_pairs_are_not_confirmed_by_fresh_ones(project):
    project.record([0.012] * 5 + [0.010], [0.010])
    result, document = compare(project, "-k", "latency")
    assert result.ret == 0
    assert document["cases"][0]["latency"]["stage"] == "unconfirmed"


def test_a_budget_that_ends_before_anything_is_clear_is_inconclusive(project):
    project.record([0.011], [0.010])
    result, document = compare(project, "-k", "latency", "--gate-budget=0.001")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "inconclusive"
    assert case["latency"]["stage"] == "budget"
    assert len(case["latency"]["pair_ratios"]) == 5


def test_what_only_this_stack_can_load_is_fixed_and_has_figures(project):
    project.write_model(other={"load": "fail"})
    result, document = compare(project)
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    (case,) = document["cases"]
    assert case["verdict"] == "fixed"
    assert "builtin opcode 'LINEAR' version '12'" in case["reason"]
    assert case["latency"]["median"] > 0
    assert case["latency"]["ratio"] is None


def test_what_only_the_other_stack_can_convert_is_broken(project):
    project.write_model(convert="fail", other={"convert": "well"})
    result, document = compare(project)
    assert result.ret == 1
    result.assert_outcomes(failed=2)
    (case,) = document["cases"]
    assert case["verdict"] == "broken"
    assert "works with the other stack" in case["reason"]


def test_what_neither_stack_can_load_is_expected_to_fail(project):
    project.write_card("second", tolerance="top1_drop = 0.02")
    project.record([0.01], model="second")
    project.write_model(load="crash")
    result, document = compare(project)
    assert result.ret == 0
    result.assert_outcomes(passed=2, xfailed=2)
    assert {case["model"]: case["verdict"] for case in document["cases"]} == {"linear": "known_broken", "second": "pass"}


def test_predictions_are_compared_in_pairs(project):
    project.record([0.01], other={"weights": project.weights[:, ::-1].tolist()})
    result, document = compare(project, "-k", "accuracy")
    assert result.ret == 0  # this stack is right where the other one was wrong
    (case,) = document["cases"]
    assert case["accuracy"]["reference_top1"] < 0.5
    assert case["accuracy"]["lost"] == 0
    assert case["accuracy"]["won"] > 50


def test_a_stack_that_names_other_classes_is_inaccurate(project):
    project.record([0.01], weights=project.weights[:, ::-1], other={"weights": project.weights.tolist()})
    result, document = compare(project, "-k", "accuracy")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "inaccurate"
    assert "the other stack's 100.0%" in case["reason"]


@pytest.mark.parametrize("option", ["convert-with", "run-with"])
def test_a_role_that_is_named_is_the_same_on_both_sides(project, option):
    """With the other stack as converter of both, what it cannot convert is broken for both; as runtime of both, likewise."""
    project.write_model(other={"convert" if option == "convert-with" else "load": "fail"})
    result, document = compare(project, f"--gate-{option}={project.other_stack()}")
    assert document["cases"][0]["verdict"] == "known_broken"
    assert result.ret == 1  # nothing was measured
    result.stdout.no_fnmatch_line("*converting linear*converting linear*")


@pytest.mark.parametrize("option", ["--benchmark-compare", "--benchmark-save=x", "--benchmark-autosave"])
def test_a_baseline_is_neither_compared_nor_made(project, option):
    result = project.run(f"--gate-against={project.other_stack()}", option)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--gate-against measures in turns*leave out --benchmark-*"])
    assert not project.sessions()


def test_an_interpreter_that_cannot_be_used_is_told_at_once(project):
    broken = project.path / "broken-python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    result = project.run(f"--gate-against={broken}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*broken-python cannot be used as the *"])


def test_the_other_stack_without_the_runtime_leaves_nothing_to_compare(project):
    python = project.path / "without-runtime"
    python.write_text(project.other_stack().read_text().replace("LINEAR_STACK=other", "LINEAR_MISSING=1"))
    python.chmod(0o755)
    result = project.run(f"--gate-against={python}")
    assert result.ret == 1
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*nothing to compare with, since the other stack does not run*"])


# ---------------------------------------------------------------- the same stack, other models


@pytest.fixture
def older_models(project):
    """What the models were before: a copy of the folder, whose recorded durations are those of the other side."""
    folder = project.path / "older"
    shutil.copytree(project.path / "models", folder)
    return folder


def rewrite(model, **changes):
    model.write_text(json.dumps({**json.loads(model.read_text()), **changes}))


def test_a_new_model_is_compared_with_the_old_one_of_the_same_name(project, older_models):
    project.record([0.012], model="linear")
    shutil.copy(project.path / "models" / "linear.json", older_models)
    slow, quick = project.path / "recorded-linear", project.path / "recorded-older"
    shutil.copytree(slow, quick)
    (quick / "this.json").write_text("[0.010]")
    rewrite(older_models / "linear.json", recorded=str(quick))
    result, document = project.gate_json(f"--gate-against-models={older_models}", "-k", "latency")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "slower"
    assert case["latency"]["ratio"] == pytest.approx(1.2)
    assert document["mode"] == "against"


def test_a_new_quantization_that_names_other_classes_is_inaccurate(project, older_models):
    project.write_model(weights=project.weights[:, ::-1])
    result, document = project.gate_json(f"--gate-against-models={older_models}", "-k", "accuracy")
    assert result.ret == 1
    assert document["cases"][0]["verdict"] == "inaccurate"


def test_a_new_card_has_nothing_to_compare_with(project, older_models):
    project.write_card("second", tolerance="top1_drop = 0.02")
    project.write_model("second")
    result, document = project.gate_json(f"--gate-against-models={older_models}", "--gate-tolerance=500%")
    assert result.ret == 1
    assert {case["model"]: case["verdict"] for case in document["cases"]} == {"linear": "pass", "second": "no_baseline"}
    result.stdout.fnmatch_lines(["*second-linear-fp32-b1-t1 has nothing to compare with*"])


def test_a_folder_without_cards_is_told_at_once(project):
    result = project.run(f"--gate-against-models={project.path / 'nowhere'}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--gate-against-models: *nowhere*"])


def test_models_to_compare_with_that_cannot_be_had_open_no_gate(project, older_models):
    (older_models / "linear.json").unlink()
    result, document = project.gate_json(f"--gate-against-models={older_models}")
    assert result.ret == 1
    (case,) = document["cases"]
    assert case["verdict"] == "no_baseline"
    assert "there is no checkpoint" in case["reason"]
    result.stdout.fnmatch_lines(["*has nothing to compare with: the other side could not be had: fetch_error*"])
