from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import (
    FELL_BACK,
    MEDIANS,
    PAIR_RATIOS,
    SESSIONS,
    accuracy,
    against,
    case_with,
    corrected,
    covered,
    detected,
    documented_failure,
    everything,
    failed,
    latency,
    measured,
    out_of_budget,
    paired,
    paired_latency,
    run_of,
    streamed,
)

from pytest_inference_gate.coverage import OperationElsewhere
from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.report.figures import milliseconds, ratio_text
from pytest_inference_gate.report.messages import (
    accuracy_failure_message,
    broken_message,
    coverage_failure_message,
    latency_failure_message,
    no_baseline_message,
)
from pytest_inference_gate.report.terminal import colour_of, conclusion, summary_lines, table_lines
from pytest_inference_gate.results import ArtifactResult, CaseResult, ComparedSession, OtherStack
from pytest_inference_gate.verdict import Verdict, gate_is_red

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def number_of(case: CaseResult) -> int:
    """How many replicates, or pairs, it took."""
    assert case.latency is not None
    return len(case.latency.pair_ratios or case.latency.replicates)


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

    def test_the_device_is_told_where_not_every_case_runs_on_the_cpu(self) -> None:
        first, second = measured("a"), measured("a")
        assert "cpu" not in "\n".join(table_lines(run_of(first, second), width=200))
        second.device = "jetson"
        lines = table_lines(run_of(first, second), width=200)
        assert lines[2].split()[0] == "device"
        assert [line.split()[0] for line in lines if re.match("(cpu|jetson) ", line)] == ["cpu", "jetson"], lines
        first.device = "jetson"
        assert table_lines(run_of(first, second), width=200)[0].endswith("threads 1, device jetson")

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


class TestTwoStacks:
    """A run that measured two stacks in turns."""

    def test_the_table_says_this_and_other_with_the_ratio_and_its_interval(self) -> None:
        lines = table_lines(against(paired(), paired("slow_cnn", factor=1.12)), width=140)
        header = " ".join(" ".join(lines[2:4]).split())
        for word in ("this", "other", "this /", "95 %", "interval"):
            assert word in header
        for word in ("baseline", "change", "median"):
            assert word not in header
        assert row_of(lines, "slow_cnn").split()[-6:] == ["11.4", "1.121", "1.115", "to", "1.126", "slower"]

    def test_accuracy_is_said_to_be_compared_with_the_other_stack(self) -> None:
        legend = " ".join(table_lines(against(paired(), paired("wrong_cnn", lost=30)), width=140)[-3:])
        assert "drop: top-1 lost against the other stack" in legend
        assert "agree: samples with the other stack's class" in legend
        assert "float" not in legend

    def test_both_stacks_are_named_by_what_they_do_not_share(self) -> None:
        lines = summary_lines(against(paired()))
        assert lines[0] == "this stack: ai-edge-litert 2.3.0, numpy none"
        assert lines[1] == "other stack (old-env/bin/python): ai-edge-litert 2.1.0, numpy 1.26.4"
        assert "software that changed" not in "\n".join(lines)

    def test_so_is_a_converter_of_its_own(self) -> None:
        run = against(paired())
        software = {"ai-edge-litert": "2.3.0", "tensorflow": "2.21.0"}
        run.against = OtherStack("old/python", {**software, "converter:tensorflow": "2.16.1"})
        run.device = replace(run.device, software=software)
        assert summary_lines(run)[:2] == [
            "this stack: converter:tensorflow 2.21.0",
            "other stack (old/python): converter:tensorflow 2.16.1",
        ]

    def test_equal_stacks(self) -> None:
        run = against(paired())
        run.against = OtherStack("old/python", run.device.software)
        assert summary_lines(run)[0] == "this stack and the other one (old/python) do not differ in any recorded software"

    @pytest.mark.parametrize("width", [80, 100, 120, 200])
    def test_lines_fit(self, width: int) -> None:
        cases = [paired("mobilenet_v2_100_224_of_a_name_that_is_too_long"), paired("slow", factor=12.3), paired("wrong", lost=30)]
        lines = summary_lines(against(*corrected(*cases)), width=width)
        assert max(map(len, lines)) <= width

    def test_narrow_tables_keep_ratio_interval_and_verdict(self) -> None:
        lines = table_lines(against(paired("mobilenet_v2_100_224"), paired("resnet50_v1", factor=1.12)), width=80)
        assert "not shown in 80 columns" in " ".join(lines[:2])
        assert re.search(r"1\.121 +1\.115 to 1\.126 +slower$", row_of(lines, "resnet50_v1"))


class TestWhatWasCompared:
    def first_line(self, *sessions: ComparedSession) -> str:
        return summary_lines(run_of(measured(), compared_sessions=sessions), width=400, now=NOW)[0]

    def test_how_many_sessions_and_how_old(self) -> None:
        assert self.first_line(*SESSIONS) == (
            "compared with 2 sessions of the baseline: the newest 0002_jp6.0, 2 days old (2026-02-26); "
            "the oldest 0001_jp6.0, 26 days old (2026-02-03)"
        )

    @pytest.mark.parametrize(
        ("taken", "words"),
        [
            ("2026-03-01T11:59:30Z", "just recorded"),
            ("2026-03-01T11:58:30+00:00", "1 minute old (2026-03-01)"),
            ("2026-03-01T09:00:00+02:00", "5 hours old (2026-03-01)"),
            ("2026-02-28T11:00:00", "1 day old (2026-02-28)"),
            ("2027-01-01T00:00:00", "of 2027-01-01, which this machine's clock takes for the future"),
            ("long ago", "of long ago"),
            ("", "of an unknown date"),
        ],
    )
    def test_age(self, taken: str, words: str) -> None:
        assert self.first_line(ComparedSession("0001_a", taken)) == f"compared with 1 session of the baseline: 0001_a, {words}"

    def test_nothing_compared_says_nothing(self) -> None:
        assert summary_lines(run_of(measured(compared=False), mode="measure"))[0].startswith("1 case on")


class TestBelowTheTable:
    def test_the_cost_of_the_verdicts(self) -> None:
        slow = measured("slow", factor=1.083)
        number = 15 + number_of(slow)
        lines = summary_lines(run_of(measured("a"), measured("b"), measured("c"), slow), width=200)
        cost = f"{number} replicates, {0.8 * number:.0f} s of measuring"
        assert f"4 verdicts from {cost}; 3 settled by the first 5, 1 confirmed" in lines
        (line,) = [line for line in summary_lines(run_of(out_of_budget()), width=200) if " verdict from " in line]
        assert line == "1 verdict from 5 replicates, 4.0 s of measuring; 1 left open"
        slow = paired("slow", factor=1.12)
        number = 5 + number_of(slow)
        two_stacks = summary_lines(against(paired(), slow), width=200)
        cost = f"{number} pairs of processes, {1.6 * number:.0f} s of measuring"
        assert f"2 verdicts from {cost}; 1 settled by the first 5, 1 confirmed" in two_stacks

    def test_a_cost_that_nobody_knows_is_not_said(self) -> None:
        case = measured()
        assert case.latency is not None
        case.latency = replace(case.latency, cost=None)
        assert "1 verdict from 5 replicates; 1 settled by the first 5" in summary_lines(run_of(case))
        assert "verdict" not in " ".join(summary_lines(run_of(measured(compared=False), mode="measure"))[-3:])

    def test_what_is_faster_is_to_be_checked_first(self) -> None:
        text = " ".join(summary_lines(run_of(case_with(Verdict.FASTER)), width=400))
        assert "what is faster: check first that it did all of its work (accuracy, outputs)" in text
        assert "`inference-gate doctor`); then record a new baseline with --benchmark-save=NAME" in text
        two_stacks = " ".join(summary_lines(against(paired(factor=0.8)), width=400))
        assert "both stacks met the same machine" in two_stacks
        assert "record a new baseline" not in two_stacks
        assert "what is faster" not in " ".join(summary_lines(run_of(measured())))

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

    def test_many_unsupported_cases_are_counted_with_the_first_names_for_each_reason(self) -> None:
        reasons = {"no Edge TPU is attached": "abcdef", "TensorRT is not installed": "ghijk"}
        cases = [
            failed(Verdict.UNSUPPORTED, Outcome("unsupported", "load", reason), name)
            for reason, names in reasons.items()
            for name in names
        ]
        lines = summary_lines(run_of(measured("x"), *cases), width=300)
        named = ", ".join(f"{name}-tflite-fp16-b1-t1" for name in "abc")
        assert f"6 cases ({named}, ...): unsupported: no Edge TPU is attached" in lines
        named = ", ".join(f"{name}-tflite-fp16-b1-t1" for name in "ghijk")
        assert f"{named}: unsupported: TensorRT is not installed" in lines
        assert not any("f-tflite" in line for line in lines)

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


def test_ratio_text() -> None:
    assert [ratio_text(ratio) for ratio in (1.0, 0.98765, 9.9996, 25.363)] == ["1.000", "0.988", "10", "25.36"]


def message(case: CaseResult, *changes: str, **more: object) -> str:
    assert case.latency is not None
    return latency_failure_message(case, case.latency.decision, changes or None, **more)  # type: ignore[arg-type]


class TestMessages:
    def test_slower(self) -> None:
        case = case_with(Verdict.SLOWER)
        assert case.latency is not None and case.latency.decision is not None and case.latency.decision.interval is not None
        low, high = case.latency.decision.interval
        number = number_of(case)
        text = message(case, "ai-edge-litert 2.1.0 -> 2.3.0", first=5)
        assert text.startswith("slow_cnn-tflite-int8-b1-t1 is slower: 8.3% slower than the baseline")
        for part in (
            *("before      11.42 ms", "after       12.37 ms", f"ratio       1.083  (95 %: {low:.3f} to {high:.3f})"),
            *("threshold   1.050  (+5.0 %)", f"p-value     {case.latency.decision.p_value:.2g}  (needed below 0.01)"),
            "detectable  a slow-down of 5.0 % at the smallest",
            f"decided by  the first 5 replicates, confirmed by {number - 5} fresh ones",
            f"cost        {0.8 * number:.1f} s of measuring, {number} replicates",
            *("before, session 1  11.41  11.38", "before, session 2  11.47", "after              12.37"),
            *(
                "┊ threshold 11.99 ms",
                "ai-edge-litert 2.1.0 -> 2.3.0",
                "next: see whether it is the software: --gate-against=PYTHON",
            ),
        ):
            assert part in text
        assert "to measure this case again" not in text
        assert text.endswith("--benchmark-save=NAME")

    def test_the_command_to_paste_is_a_line_of_its_own(self) -> None:
        command = (
            'pytest "tests/gate/test_latency.py::test_latency[a long id with a blank]" --benchmark-compare=0002 ' + "--x " * 30
        )
        assert message(case_with(Verdict.SLOWER), reproduce=command).splitlines()[-1] == f"    {command}"

    def test_how_many_replicates_came_first_need_not_be_known(self) -> None:
        assert "decided by  the first replicates, confirmed by the fresh ones" in message(case_with(Verdict.SLOWER))

    def test_several_cases_correct_the_p_value(self) -> None:
        (case, *_) = corrected(case_with(Verdict.SLOWER), measured("a"), measured("b"))
        assert re.search(r"p-value     \S+  \(needed below 0\.01, corrected for 3 cases\)", message(case))

    def test_two_stacks(self) -> None:
        case = paired("slow", factor=1.12)
        text = message(case, "ai-edge-litert 2.1.0 -> 2.3.0", first=5)
        assert text.startswith("slow-tflite-int8-b1-t1 is slower: 12.1% slower than the other stack")
        for part in (
            *("  pairs    ", "  interval ", "│ as fast; ┊ threshold 1.03; ╋ median, in its 95 % interval"),
            *("other stack 11.42 ms", "this stack  12.79 ms", "ratio       1.121  (95 %: 1.115 to 1.126)"),
            f"decided by  the first 5 pairs of processes, confirmed by {number_of(case) - 5} fresh ones",
            f"{1.6 * number_of(case):.1f} s of measuring, {number_of(case)} pairs of processes",
            *("this / other  1.124  1.116", "other stack -> this stack:", "next: tell the converter from the runtime"),
        ):
            assert part in text
        for word in ("before", "after", "since the baseline", "--benchmark-save"):
            assert word not in text

    def test_few_pairs_have_no_interval(self) -> None:
        case = paired("hasty", factor=1.12, most=5)
        text = message(case, first=5)
        assert case.verdict is Verdict.INCONCLUSIVE
        assert "ratio       1.122  (too few for an interval)" in text
        assert "interval" not in text.partition("other ")[0]

    def test_out_of_budget(self) -> None:
        text = message(out_of_budget(), first=5)
        assert "decided by  nothing: its time ended after 5 replicates, before the answer was clear" in text
        assert "next: allow the case a larger --gate-budget, so that it gets enough fresh replicates" in " ".join(text.split())

    def test_undecided_with_all_that_could_be_had(self) -> None:
        """More time alone would not have helped."""
        text = " ".join(message(case_with(Verdict.INCONCLUSIVE), first=5).split())
        assert "nothing: 25 replicates, as many as are taken at most, left it open" in text
        assert "next: quieten the machine (`inference-gate doctor` says what disturbs it) and take more --gate-replicates" in text
        assert "--gate-against=PYTHON of the old environment measures both in turns" in text
        ratios = [ratio * factor for ratio in PAIR_RATIOS for factor in (0.9, 1.1, 1.12)]
        case = paired("wild")
        case.latency = paired_latency(ratios=ratios)
        two_stacks = " ".join(message(case, first=5).split())
        assert "wild-tflite-int8-b1-t1 is inconclusive" in two_stacks
        assert "--gate-against" not in two_stacks

    def test_too_few_to_see_anything(self) -> None:
        case = case_with(Verdict.INCONCLUSIVE)
        assert case.latency is not None
        assert case.latency.decision is not None
        case.latency = replace(case.latency, decision=replace(case.latency.decision, minimum_detectable=None))
        text = " ".join(message(case, first=5).split())
        assert "detectable nothing: too few replicates" in text
        assert "next: take more with --gate-replicates, or compare with more sessions" in text

    def test_a_threshold_of_something_faster_lies_below_one(self) -> None:
        assert "threshold   0.952  (-4.8 %)" in message(case_with(Verdict.FASTER))
        assert "check first that it did all of its work" in message(case_with(Verdict.FASTER))

    def test_invalid_says_so_and_not_what_the_durations_would_mean(self) -> None:
        case = measured("a", factor=1.2)
        assert case.latency is not None
        case.latency = case.latency.invalidated("12 throttle events")
        text = latency_failure_message(case, case.latency.decision, [])
        assert text.startswith("a-tflite-int8-b1-t1 is invalid: 12 throttle events\n")
        assert "no recorded software changed since the baseline" in text
        assert "these durations say nothing" in " ".join(text.split())
        assert "inference-gate doctor" in text
        for word in ("p-value", "threshold  ", "decided by", "detectable"):
            assert word not in text

    def test_invalid_where_nothing_was_compared(self) -> None:
        case = measured("a", compared=False)
        assert case.latency is not None
        case.latency = case.latency.invalidated("12 throttle events")
        text = message(case)
        assert text.startswith("a-tflite-int8-b1-t1 is invalid: 12 throttle events\n")
        assert "after  11.42  11.40" in text
        assert "next: mend what the reason names" in text

    def test_many_sessions_show_their_medians(self) -> None:
        case = measured("a", factor=1.2)
        assert case.latency is not None
        assert case.latency.decision is not None
        case.latency = case.latency.decided(case.latency.decision, [MEDIANS] * 10)
        text = message(case)
        assert "before, 10 sessions  11.42  11.42" in text
        assert "session 1" not in text

    def test_a_fall_back_names_what_fell_back_and_why(self) -> None:
        case = covered(FELL_BACK)
        assert case.coverage is not None
        text = coverage_failure_message(case, case.coverage, ["edgetpu-compiler 15.0 -> 16.0"], reproduce="pytest -k x")
        assert "is fallback: 64 of 72 operations (88.9%) run on edgetpu" in text
        assert "       6 (before 0)  MEAN        More than one subgraph is not supported\n" in text
        assert "told by edgetpu_compiler 16.0" in " ".join(text.split())
        assert "edgetpu-compiler 15.0 -> 16.0" in text
        assert "next: see in the conversion's log" in text
        assert text.endswith("    pytest -k x")
        _, *rest = text.splitlines()
        assert max(map(len, rest)) <= 100
        paired_text = coverage_failure_message(case, case.coverage, [], paired=True)
        assert "  other stack 70 of 72" in paired_text
        lost = covered(None)
        assert lost.coverage is not None
        assert "next: use a release of the backend's" in coverage_failure_message(lost, lost.coverage)
        many = replace(
            FELL_BACK, elsewhere_by_operation=tuple(OperationElsewhere(f"OP{n}", 1) for n in range(8 + 3)), elsewhere=11
        )
        crowded = covered(many)
        assert crowded.coverage is not None
        assert "    and 3 of 3 other kinds" in coverage_failure_message(crowded, crowded.coverage)

    def test_the_table_shows_what_runs_on_the_accelerator_and_how_builds_differ(self) -> None:
        case = covered()
        assert case.latency is not None
        case.latency = replace(case.latency, replicate_builds=(0, 0, 1, 1, 1))
        lines = summary_lines(run_of(case, measured()), width=200)
        (row,) = (line for line in lines if line.startswith("mapped_cnn"))
        assert row.split()[-3:] == ["0.4", "70/72", "pass"]
        assert any(line.startswith("builds differ: mapped_cnn-tflite-int8-b1-t1 by 0.4%") for line in lines)
        assert not any("builds" in line for line in summary_lines(run_of(measured()), width=200))

    def test_lines_can_be_read_on_a_terminal(self) -> None:
        for case in (case_with(Verdict.SLOWER), case_with(Verdict.UNGATEABLE), out_of_budget(), paired("slow", factor=1.12)):
            _, *rest = message(case, "ai-edge-litert 2.1.0 -> 2.3.0", first=5).splitlines()
            assert max(map(len, rest)) <= 100
            assert all(line == line.rstrip() for line in rest)

    def test_a_terminal_without_such_characters_gets_others(self) -> None:
        assert not message(case_with(Verdict.SLOWER)).isascii()
        assert message(case_with(Verdict.SLOWER), ascii_only=True).isascii()
        assert message(paired("slow", factor=1.12), ascii_only=True).isascii()

    @pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.UNGATEABLE, Verdict.FASTER])
    def test_each_has_a_next_step_of_its_own(self, verdict: Verdict) -> None:
        case = case_with(verdict)
        text = message(case)
        assert f"is {verdict}: " in text
        assert "next: " in text
        assert "changed since" not in text
        assert message(case, next_step="go home").endswith("next: go home")

    def test_the_explanation_walks_through_the_true_message(self) -> None:
        page = Path(__file__).parents[2] / "docs" / "explanation" / "reading-a-failure.md"
        assert f"```text\n{documented_failure()[1]}\n```" in page.read_text(encoding="utf-8")

    def test_inaccurate_beside_the_other_stack(self) -> None:
        case = paired("wrong_cnn", lost=30)
        assert case.accuracy is not None
        text = accuracy_failure_message(case, case.accuracy.decision, ["a 1 -> 2"], paired=True, reproduce="pytest x")
        for part in (
            *("the other stack's 95.0%", "compared with the other stack, prediction by prediction", "other stack's 95.00 %"),
            *("other stack -> this stack:", "--gate-convert-with=PYTHON", "to evaluate this case again:\n    pytest x"),
        ):
            assert part in text
        assert "reference" not in text

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


class TestDetectors:
    def test_columns_show_themselves_where_a_case_is_a_detector(self) -> None:
        lines = table_lines(run_of(measured(), detected()), width=200)
        header = " ".join(lines)
        for word in ("mAP", "AP50", "matched", "top-1"):
            assert word in header
        (row,) = [line for line in lines if "digit_scenes" in line]
        for figure in ("61.24", "80.12", "9.77", "84.21"):
            assert figure in row
        assert "mAP" not in " ".join(table_lines(run_of(measured()), width=200))
        assert "top-1" not in " ".join(table_lines(run_of(detected()), width=200))

    def test_the_message_of_a_drop(self) -> None:
        case = detected()
        assert case.detection is not None
        text = accuracy_failure_message(case, case.detection.decision, ["tensorflow 2.15 -> 2.21"], reproduce="pytest x")
        assert (
            text
            == """\
digit_scenes-tflite-int8-b1-t1 is inaccurate: mAP 0.6124, the float reference's 0.7101 on 200 pictures (81 of 612 objects lost, \
12 won): a drop of 0.0977, beyond the tolerance of 0.0100, and hardly by chance (p = 0.001)

  pictures     200, with 612 objects
  mAP          0.6124  (AP50 0.8012, AP75 0.6604, AR100 0.6999)
  reference's  0.7101  (AP50 0.9023, AP75 0.7702, AR100 0.8011)
  drop         0.0977
  lost, won    81, 12 objects
  p-value      0.001
  matched      84.21 % of 540 and 600 detections that score 0.3 and more
  pairs        mean IoU 0.9132, scores -0.0312 on the mean
  alone        83 lost, 23 new, 7 of another class
  precision at 0.5 0.91

  AP of each class, the largest loss first
    class        AP    reference's  objects
    digit 0  0.5000         0.7100       60
    digit 1  0.5300         0.7100       60
    digit 2  0.5600         0.7100       60
    digit 3  0.5900         0.7100       60
    digit 4  0.6200         0.7100       60
    digit 5  0.6500         0.7100       60
    digit 6  0.6800         0.7100       60
    digit 7  0.7100         0.7100       60
    and 1 other class

  pictures that lost most: scene_017.png, scene_003.png

  changed since the baseline:
    tensorflow 2.15 -> 2.21

  next: compare calibration data, preprocessing and converter version with those of the last good
        run; if the drop is accepted, raise the tolerance on the model's card

  to evaluate this case again:
    pytest x"""
        )

    def test_the_message_without_annotations(self) -> None:
        case = detected(annotated=False)
        assert case.detection is not None
        text = accuracy_failure_message(case, case.detection.decision, paired=True)
        assert "below the 90.0% asked for" in text
        assert "mAP" not in text and "AP of each class" not in text
        assert "  pictures      200\n" in text
        assert "compared with the other stack, picture by picture" in text


class TestStreams:
    def test_have_a_table_of_their_own(self) -> None:
        run = run_of(measured(compared=False), streamed(compared=False), streamed(overlapped=True, compared=False))
        lines = summary_lines(run, width=200)
        text = "\n".join(lines)
        assert "1 case on " in text and "2 streams on " in text
        for cell in ("infer 53 %", "87.5", "12.5", "32.1", "1.404"):
            assert any(cell in line for line in lines), cell
        assert "in real time, computed from their own times" in text

    def test_whichever_table_was_chosen(self) -> None:
        run = run_of(measured(compared=False), streamed(compared=False))
        lines = summary_lines(run, width=200, table=lambda chosen, *_: [f"chosen for {len(chosen.cases)}"])
        assert "chosen for 1" in lines and any("1 stream on " in line for line in lines)

    def test_that_got_slower_say_where_the_time_goes(self) -> None:
        case = streamed(overlapped=True, factor=1.083)
        assert case.latency is not None
        text = " ".join(latency_failure_message(case, case.latency.decision).split())
        assert "frames 750 frames of scene.mp4, 87.5 a second" in text
        assert (
            "decode 4.000 ms, preprocess 1.000 ms, infer 6.000 ms, postprocess 0.4200 ms, waiting 1.200 ms; most: infer" in text
        )
        assert "12.5 % dropped, answers 32.10 ms old, computed from their own times" in text
        assert "600 s: last 60 s / first 60 s = 1.404 (11.40 -> 16.00 ms, p = 1e-06)" in text
