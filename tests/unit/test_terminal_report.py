from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import accuracy, case_with, everything, failed, latency, measured, run_of

from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.report.messages import (
    accuracy_failure_message,
    broken_message,
    latency_failure_message,
    no_baseline_message,
)
from pytest_inference_gate.report.terminal import colour_of, conclusion, milliseconds, summary_lines, table_lines
from pytest_inference_gate.results import ArtifactResult, CaseResult
from pytest_inference_gate.verdict import Verdict, gate_is_red


def row_of(lines: list[str], model: str) -> str:
    (row,) = [line for line in lines if line.startswith(f"{model} ")]
    return row


class TestTable:
    def test_a_row_says_everything_there_is_to_say(self) -> None:
        lines = table_lines(run_of(measured("slow_cnn", factor=1.083, lost=3), measured("b", "fp32")), width=120)
        header = " ".join(lines)
        for word in ("model", "precision", "size", "top-1", "drop", "agree", "first", "median", "p90", "baseline", "change"):
            assert word in header
        cells = row_of(lines, "slow_cnn").split()
        assert cells == [
            *("slow_cnn", "int8", "41.2", "kB", "94.70", "0.30", "99.70", "34.0", "12.4", "12.6", "11.4", "+8.3", "slower"),
        ]

    def test_what_is_the_same_everywhere_is_in_the_caption(self) -> None:
        lines = table_lines(run_of(measured("a"), measured("b")))
        assert lines[0] == "2 cases on intel_xeon-2_cores-1a2b3c4d, backend tflite, precision int8, batch 1, threads 1"
        assert "backend" not in "".join(lines[1:])

    def test_what_differs_is_a_column(self) -> None:
        second = measured("a")
        second.batch, second.threads, second.variant, second.backend = 8, 2, "fast_math", "onnxruntime"
        lines = table_lines(run_of(measured("a"), second), width=200)
        assert lines[0] == "2 cases on intel_xeon-2_cores-1a2b3c4d, model a, precision int8"
        assert lines[2].split()[:4] == ["backend", "batch", "threads", "variant"]
        assert any(re.match(r"onnxruntime +8 +2 +fast_math", line) for line in lines), lines

    def test_a_single_case_keeps_its_name(self) -> None:
        lines = table_lines(run_of(measured("digits_cnn")), width=120)
        assert row_of(lines, "digits_cnn").split()[:3] == ["digits_cnn", "tflite", "int8"]

    def test_columns_without_any_figure_are_left_out(self) -> None:
        case = measured("a", compared=False)
        case.accuracy = None
        header = " ".join(table_lines(run_of(case, mode="measure"))[2:4])
        for word in ("top-1", "drop", "agree", "baseline", "change", "variant"):
            assert word not in header
        assert "median" in header

    def test_throughput_is_shown_for_batches(self) -> None:
        case = measured("a")
        case.batch, case.latency = 8, latency(batch=8)
        lines = table_lines(run_of(measured("b"), case), width=200)
        assert "samples" in lines[2]
        assert "700.5" in row_of(lines, "a")

    def test_missing_figures_are_dashes(self) -> None:
        row = row_of(table_lines(run_of(measured("a"), case_with(Verdict.BROKEN)), width=120), "big_cnn")
        assert row.split() == ["big_cnn", "fp16", *["-"] * 9, "broken"]

    def test_cases_that_this_machine_cannot_run_have_no_row(self) -> None:
        lines = table_lines(run_of(measured("a"), case_with(Verdict.UNSUPPORTED)))
        assert lines[0].startswith("1 of 2 cases on")
        assert "big_cnn" not in "\n".join(lines)
        assert table_lines(run_of(case_with(Verdict.UNSUPPORTED))) == []

    def test_a_tiny_gain_is_no_negative_zero(self) -> None:
        case = measured("a")
        case.accuracy = accuracy()
        case.accuracy = replace(case.accuracy, figures=replace(case.accuracy.figures, drop=-1e-6))
        assert " 0.00 " in row_of(table_lines(run_of(case), width=120), "a")


class TestWidth:
    @pytest.mark.parametrize("width", [80, 100, 120, 200])
    def test_lines_fit(self, width: int) -> None:
        cases = [case_with(verdict) for verdict in Verdict]
        cases[0].model = "a_model_with_a_name_that_is_much_too_long_for_any_table"
        cases[1].batch, cases[1].threads, cases[1].backend, cases[1].variant = 16, 4, "onnxruntime", "x"
        lines = summary_lines(run_of(*cases, software_changes=["ai-edge-litert 2.1.0 -> 2.3.0"] * 5), width=width)
        # With every column of a case's name in it, the least that the table must say does not fit into 80.
        assert max(map(len, lines)) <= max(width, 100)

    def test_what_does_not_fit_is_named_and_the_verdict_stays(self) -> None:
        cases = [measured("mobilenet_v2_100_224"), measured("resnet50", "full_int8", factor=1.083)]
        wide, narrow = (table_lines(run_of(*cases), width=width) for width in (120, 80))
        assert "not shown" not in wide[0]
        assert "not shown in 80 columns: agreement, p90" in " ".join(narrow[:2])
        assert row_of(narrow, "resnet50").endswith("slower")
        assert "+8.3" in row_of(narrow, "resnet50")

    def test_a_hundred_columns_hold_every_column_of_a_usual_run(self) -> None:
        assert "not shown" not in table_lines(run_of(measured("digits_cnn"), measured("digits_cnn", "fp32")), width=100)[0]


class TestBelowTheTable:
    def test_one_paragraph_for_each_case_that_is_not_pass_worst_first(self) -> None:
        text = "\n".join(summary_lines(everything(), width=400))
        stated = re.findall(r"^\S+: (\w+): \S", text, re.MULTILINE)
        assert sorted(stated) == sorted(verdict.value for verdict in Verdict if verdict is not Verdict.PASS)
        assert stated[0] == "broken"
        assert stated.index("slower") < stated.index("inconclusive") < stated.index("faster")
        assert "big_cnn-tflite-fp16-b1-t1: broken: the agent was killed by SIGSEGV while it converted" in text

    def test_unsupported_cases_share_their_reason(self) -> None:
        nothing = Outcome("unsupported", "load", "no Edge TPU is attached")
        cases = [failed(Verdict.UNSUPPORTED, nothing, name) for name in ("a", "b")]
        lines = summary_lines(run_of(measured(), *cases), width=400)
        assert "a-tflite-fp16-b1-t1, b-tflite-fp16-b1-t1: unsupported: no Edge TPU is attached" in lines

    def test_other_cases_do_not_share_a_line(self) -> None:
        cases = [failed(Verdict.BROKEN, Outcome("oom", "convert", "out of memory"), name) for name in ("a", "b")]
        assert sum("out of memory" in line for line in summary_lines(run_of(*cases), width=400)) == 2

    def test_software_changes(self) -> None:
        assert "software that changed: a 1 -> 2; b 3 -> 4" in summary_lines(
            run_of(measured(), software_changes=["a 1 -> 2", "b 3 -> 4"])
        )
        assert "software that changed: nothing that is recorded" in summary_lines(run_of(measured(), software_changes=[]))
        assert "software that changed" not in "\n".join(summary_lines(run_of(measured(), software_changes=None)))

    def test_where_time_was_spent(self) -> None:
        shared, made = measured("a"), measured("b")
        made.artifact = ArtifactResult("other", 10, 12.3, cached=False)
        lines = summary_lines(run_of(shared, measured("a"), made))
        assert "time: fetch 0.0 s, convert 12.3 s (1 made, 1 from the store), predict 3.2 s, measure 40.0 s" in lines

    def test_notices(self) -> None:
        assert "note: the run was stopped" in summary_lines(run_of(measured(), notices=["the run was stopped"]))


class TestConclusion:
    @pytest.mark.parametrize(
        ("verdicts", "expected"),
        [
            ([Verdict.PASS] * 3, "3 cases: 3 pass: may ship"),
            ([Verdict.SLOWER], "1 case: 1 slower: do not ship"),
            (
                [Verdict.SLOWER, Verdict.PASS, Verdict.INACCURATE, Verdict.PASS],
                "4 cases: 2 pass, 1 inaccurate, 1 slower: do not ship",
            ),
            (
                [Verdict.PASS, Verdict.KNOWN_BROKEN, Verdict.UNSUPPORTED],
                "3 cases: 1 pass, 1 unsupported, 1 known broken: may ship",
            ),
            ([Verdict.UNSUPPORTED] * 2, "2 cases: none is supported on this machine, so nothing is gated"),
        ],
    )
    def test_compared(self, verdicts: list[Verdict], expected: str) -> None:
        assert conclusion(run_of(*(case_with(verdict) for verdict in verdicts))) == expected

    def test_nothing_compared(self) -> None:
        run = run_of(*[measured(compared=False)] * 16, mode="measure")
        assert conclusion(run) == "16 cases measured, nothing compared: record a baseline with --benchmark-save=NAME"
        run.saved = "jp6.0"
        assert conclusion(run) == "16 cases measured and saved as jp6.0: compare later runs with it by --benchmark-compare"

    def test_nothing_compared_but_inaccurate(self) -> None:
        run = run_of(measured(compared=False), measured(lost=30, compared=False), mode="measure")
        assert conclusion(run) == "2 cases, measured and compared with no baseline: 1 pass, 1 inaccurate: do not ship"

    def test_nothing_measured(self) -> None:
        assert conclusion(run_of()).startswith("no case ran, so nothing is gated")

    def test_relaxed_is_said(self) -> None:
        run = run_of(measured(), case_with(Verdict.INVALID), relaxed=frozenset({"invalid"}))
        assert conclusion(run) == "2 cases: 1 pass, 1 invalid (relaxed): may ship"

    @given(st.lists(st.sampled_from(list(Verdict)), max_size=6), st.sampled_from(["measure", "compare", "against"]))
    def test_it_never_says_that_a_red_run_may_ship(self, verdicts: list[Verdict], mode: str) -> None:
        cases = [CaseResult("a", "a", "b", "c", verdict=verdict) for verdict in verdicts]
        run = run_of(*cases, mode=mode)
        text = conclusion(run)
        if run.red:
            assert "do not ship" in text or "nothing is gated" in text
        else:
            assert "do not ship" not in text
        assert summary_lines(run)[-1] == text or len(text) > 100


class TestMarkup:
    def test_markup_changes_no_letter_and_no_width(self) -> None:
        marked = summary_lines(everything(), markup=lambda text, colour: f"<{colour}>{text}</>")
        stripped = [re.sub(r"<\w+>|</>", "", line) for line in marked]
        assert stripped == summary_lines(everything())
        assert marked != stripped

    def test_verdicts_are_coloured_in_table_and_reasons(self) -> None:
        text = "\n".join(summary_lines(everything(), width=200, markup=lambda text, colour: f"<{colour}>{text}</>"))
        for verdict in Verdict:
            if verdict is Verdict.UNSUPPORTED:
                continue
            assert re.search(rf"^\S+ .* <{colour_of(verdict)}>{verdict}</>$", text, re.MULTILINE), verdict
        assert ": <red>slower</>: 8.3%" in text

    def test_red_is_what_closes_the_gate(self) -> None:
        assert {verdict for verdict in Verdict if colour_of(verdict) == "red"} == {v for v in Verdict if gate_is_red(v)}
        assert colour_of(Verdict.INVALID, frozenset({"invalid"})) == "yellow"
        assert colour_of(Verdict.PASS) == "green"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000412, "0.0412"),
        (0.000412, "0.412"),
        (0.00412, "4.12"),
        (0.0412, "41.2"),
        (0.412, "412"),
        (1.2344, "1234"),
        (0.009996, "10.0"),
        (0.0099949, "9.99"),
        (0.0, "0.00"),
    ],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


class TestMessages:
    def test_slower(self) -> None:
        case = case_with(Verdict.SLOWER)
        assert case.latency is not None
        assert case.latency.decision is not None
        text = latency_failure_message(case, case.latency.decision, ["ai-edge-litert 2.1.0 -> 2.3.0"])
        assert text.startswith("slow_cnn-tflite-int8-b1-t1 is slower: 8.3% slower than the baseline")
        for part in (
            *("before     11.42 ms", "after      12.37 ms", "ratio      1.083  (+8.3 %)", "threshold  1.050  (+5.0 %)"),
            *("p-value    0.00033", "before, session 1  11.41  11.38", "before, session 2  11.47", "after              12.37"),
            *("ai-edge-litert 2.1.0 -> 2.3.0", "next: "),
        ):
            assert part in text

    def test_invalid_says_so_and_not_what_the_durations_would_mean(self) -> None:
        case = measured("a", factor=1.2)
        assert case.latency is not None
        assert case.latency.decision is not None
        case.latency = case.latency.invalidated("12 throttle events")
        assert case.latency.decision is not None
        text = latency_failure_message(case, case.latency.decision, [])
        assert text.startswith("a-tflite-int8-b1-t1 is invalid: 12 throttle events\n")
        assert "no recorded software changed since the baseline" in text
        assert "these durations say nothing" in text

    @pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.UNGATEABLE, Verdict.FASTER])
    def test_each_has_a_next_step_of_its_own(self, verdict: Verdict) -> None:
        case = case_with(verdict)
        assert case.latency is not None
        assert case.latency.decision is not None
        text = latency_failure_message(case, case.latency.decision)
        assert f"is {verdict}: " in text
        assert "next: " in text
        assert "changed since" not in text
        assert latency_failure_message(case, case.latency.decision, next_step="go home").endswith("next: go home")

    def test_inaccurate(self) -> None:
        case = case_with(Verdict.INACCURATE)
        assert case.accuracy is not None
        case.accuracy = replace(case.accuracy, metrics={"f1": 0.5})
        text = accuracy_failure_message(case, case.accuracy.decision, ["tensorflow 2.15 -> 2.21"])
        for part in (
            *(
                "samples      1000",
                "top-1        92.00 %",
                "reference's  95.00 %",
                "drop         3.00 points",
                "lost, won    30, 0",
            ),
            *("agreement    97.00 %", "f1           0.5", "tensorflow 2.15 -> 2.21", "next: "),
        ):
            assert part in text
        assert "NaN in" not in text

    def test_broken(self) -> None:
        text = broken_message(case_with(Verdict.BROKEN), [])
        assert text.startswith("big_cnn-tflite-fp16-b1-t1 is broken: crash in convert by SIGSEGV\n")
        assert "log: /tmp/agent.log" in text
        assert "next: " in text

    def test_no_baseline(self) -> None:
        text = no_baseline_message("a-b", "pytest -m cpu --benchmark-save=NAME", ["a-c", "a-d"])
        assert text.startswith("a-b has no baseline")
        assert "a-c, a-d: was the case renamed?" in text
        assert text.endswith("pytest -m cpu --benchmark-save=NAME")
        assert "renamed" not in no_baseline_message("a-b", "pytest")
        assert "other devices, which are not compared with this one: nano-1, orin-2" in no_baseline_message(
            "a-b", "pytest", (), ["nano-1", "orin-2"]
        )


def test_importing_the_reports_imports_nothing_heavy() -> None:
    code = (
        "import sys; import pytest_inference_gate.report.terminal, pytest_inference_gate.report.messages, "
        "pytest_inference_gate.report.result_json, pytest_inference_gate.accuracy; "
        "print([name for name in ('numpy', 'tabulate', 'scipy', 'jsonschema') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
