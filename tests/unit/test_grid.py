"""The quantization grid: its rows, what stands out in it, and the table that shows it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from report_examples import BASELINE, case_with, detected, measured, paired, run_of
from report_examples import accuracy as accuracy_of

from pytest_inference_gate.decision import decide
from pytest_inference_gate.grid import GridRow, remarks_across_models, remarks_on_model, rows_by_model
from pytest_inference_gate.published import figures_file, read_figures
from pytest_inference_gate.report.grid_table import grid_lines
from pytest_inference_gate.report.tables import DEFAULT_TABLE, TABLES, table_named
from pytest_inference_gate.report.terminal import summary_lines, table_lines
from pytest_inference_gate.results import CaseResult, RunResult
from pytest_inference_gate.thread_scaling import note_thread_speedups
from pytest_inference_gate.verdict import Verdict

PRECISIONS = ("fp32", "dynamic", "fp16", "int8", "full_int8")


def grid(
    model: str = "digits_cnn",
    *,
    gains: dict[str, tuple[float, ...]] | None = None,
    lost: dict[str, int] | None = None,
    compared: bool = False,
    precisions: tuple[str, ...] = PRECISIONS,
) -> list[CaseResult]:
    """Cases of every precision: ``gains`` with one thread, with two, and so on; ``lost`` so many of 1000 pictures."""
    cases = []
    for precision in precisions:
        for threads, gain in enumerate((gains or {}).get(precision, (1.0, 1.6)), start=1):
            case = measured(model, precision, lost=(lost or {}).get(precision, 0), compared=compared)
            assert case.latency is not None
            case.threads, case.id = threads, case.id.replace("-t1", f"-t{threads}")
            case.latency = replace(case.latency, median=case.latency.median / gain)
            cases.append(case)
    note_thread_speedups(cases)
    return cases


def remarks(cases: list[CaseResult], cores: float | None = 4) -> list[str]:
    (rows,) = rows_by_model(cases).values()
    return remarks_on_model(rows, lambda row: row.first.precision, cores=cores)


class TestRows:
    def test_one_for_each_precision_with_its_threads(self) -> None:
        models = rows_by_model([*grid("b"), *grid("a")])
        assert list(models) == ["b", "a"]
        assert [row.first.precision for row in models["b"]] == list(PRECISIONS)
        row = models["b"][0]
        assert [case.threads for case in row.cases] == [1, 2]
        two = row.with_threads(2)
        assert two is not None and two.thread_speedup == pytest.approx(1.6)
        assert row.with_threads(3) is None

    def test_the_worst_of_its_cases_is_what_it_is_worth(self) -> None:
        one, two = grid(precisions=("int8",))
        two.accuracy, two.verdict = accuracy_of(30), Verdict.INACCURATE
        row = GridRow((one, two))
        assert row.score is not None and row.score.drop == pytest.approx(0.03)
        assert row.verdict is Verdict.INACCURATE

    def test_a_gain_takes_the_same_case_with_one_thread(self) -> None:
        cases = grid(precisions=("fp32",))
        cases[0].batch, cases[0].id = 2, cases[0].id.replace("-b1-", "-b2-")
        cases[1].thread_speedup = None
        note_thread_speedups(cases)
        assert cases[1].thread_speedup is None
        assert len(rows_by_model(cases)["digits_cnn"]) == 2


class TestRemarks:
    def test_nothing_stands_out(self) -> None:
        assert remarks(grid()) == []

    def test_a_precision_that_wrecks_the_model(self) -> None:
        assert remarks(grid(lost={"dynamic": 580, "int8": 2})) == [
            "dynamic: top-1 0.950 -> 0.370; the other four lose at most 0.002"
        ]
        assert remarks(grid(lost={"int8": 500, "full_int8": 510}, precisions=("fp32", "int8", "full_int8"))) == [
            "int8: top-1 0.950 -> 0.450; full_int8: top-1 0.950 -> 0.440; the other one loses nothing"
        ]
        assert remarks(grid(lost={"int8": 500}, precisions=("int8",))) == ["int8: top-1 0.950 -> 0.450"]

    def test_a_drop_is_large_and_no_chance(self) -> None:
        assert remarks(grid(lost={"int8": 49})) == []  # 4.9 points
        assert len(remarks(grid(lost={"int8": 50}))) == 1
        few = grid(precisions=("int8",))
        for case in few:
            case.accuracy = accuracy_of(3, n=40)  # 7.5 points, and three pictures
        assert remarks(few) == []

    def test_without_labels_by_agreement(self) -> None:
        cases = grid(lost={"int8": 400})
        for case in cases:
            assert case.accuracy is not None
            figures = replace(case.accuracy.figures, top1=None, reference_top1=None, drop=None)
            case.accuracy = replace(case.accuracy, figures=figures)
        assert remarks(cases) == ["int8: the reference's class for 60.0% of the pictures; the other four for at least 100.0%"]

    def test_a_precision_that_does_not_thread(self) -> None:
        cases = grid(gains={"dynamic": (1.0, 1.02), "fp16": (1.0, 1.5), "int8": (1.0, 1.8)})
        assert remarks(cases) == ["dynamic: 2 threads are no faster than 1 (x1.02); the other four gain x1.50 to x1.80"]
        cases = grid(gains={"dynamic": (1.0, 0.81, 0.8), "fp32": (1.0, 1.5, 1.7)}, precisions=("fp32", "dynamic"))
        assert remarks(cases) == ["dynamic: 2 or 3 threads are slower than 1 (x0.81, x0.80); the other one gains x1.70"]

    def test_none_that_threads(self) -> None:
        assert remarks(grid(gains=dict.fromkeys(PRECISIONS, (1.0, 0.97)))) == [
            "no precision is faster with more threads than with 1 (x0.97)"
        ]

    def test_where_enough_is_enough(self) -> None:
        cases = grid(gains={"fp32": (1.0, 1.8, 1.85, 1.9), "int8": (1.0, 1.5, 2.0, 2.1)}, precisions=("fp32", "int8"))
        assert remarks(cases) == [
            "beyond 2 threads little is gained: fp32 (x1.80, with 4 x1.90)",
            "beyond 3 threads little is gained: int8 (x2.00, with 4 x2.10)",
        ]

    def test_more_threads_than_cores_are_left_out(self) -> None:
        assert remarks(grid(gains={"dynamic": (1.0, 1.6, 0.7)}), cores=2) == []

    def test_a_precision_that_wrecks_one_model_and_spares_another(self) -> None:
        models = rows_by_model([*grid("wide_cnn", lost={"dynamic": 580}), *grid("a"), *grid("b", lost={"dynamic": 3})])
        assert remarks_across_models(models, lambda row: row.first.precision) == [
            "dynamic wrecks wide_cnn (top-1 0.950 -> 0.370), and spares a and b"
        ]

    def test_a_detector(self) -> None:
        row = GridRow((detected(),))
        assert row.wrecked is True
        assert remarks_on_model([row], lambda row: "int8") == ["int8: mAP 0.710 -> 0.612"]
        assert GridRow((detected(drop=0.01),)).wrecked is False


class TestTheExperiment:
    """What was published of four networks on a Jetson Nano (baselines/published, ptq-2019), as the grid would have told it."""

    def published(self, model: str) -> list[CaseResult]:
        rows = [
            row
            for row in read_figures(figures_file())
            if row.source == "ptq-2019" and row.model == model and row.backend != "edgetpu"
        ]
        top1 = {(row.backend, row.precision): float(row.value) for row in rows if row.metric == "top1"}
        cases = []
        for row in rows:
            if row.device == "Jetson Nano" and row.metric == "latency_mean" and row.threads is not None:
                case = measured(model, str(row.precision), compared=False)
                case.threads, case.id = int(row.threads), case.id.replace("-t1", f"-t{row.threads}")
                assert case.latency is not None and case.accuracy is not None
                case.latency = replace(case.latency, median=float(row.value) / 1000)
                found, before = top1["tflite", row.precision], top1["tensorflow", "fp32"]
                figures = replace(case.accuracy.figures, top1=found, reference_top1=before, drop=before - found, mcnemar_p=None)
                case.accuracy = replace(case.accuracy, figures=figures)
                cases.append(case)
        note_thread_speedups(cases)
        return cases

    def test_dynamic_range_wrecked_one_network_and_did_not_thread(self) -> None:
        assert remarks(self.published("MobileNet v2 1.0")) == [
            "dynamic: top-1 0.758 -> 0.458; the other four lose at most 0.019",
            "dynamic: 2, 3 or 4 threads are no faster than 1 (x1.09, x1.09, x1.10); the other four gain x1.94 to x2.39",
            "beyond 3 threads little is gained: fp32 (x1.95, with 4 x1.83), fp16 (x1.94, with 4 x1.84)",
        ]
        assert remarks(self.published("Inception v3"))[0].startswith(
            "dynamic: 2, 3 or 4 threads are no faster than 1 (x1.00, x1.01, x1.01)"
        )
        models = rows_by_model([case for name in ("MobileNet v2 1.0", "DenseNet121") for case in self.published(name)])
        assert remarks_across_models(models, lambda row: row.first.precision) == [
            "dynamic wrecks MobileNet v2 1.0 (top-1 0.758 -> 0.458), and spares DenseNet121"
        ]


def lines_of(run: RunResult, width: int = 100) -> list[str]:
    return grid_lines(run, width)


class TestTheTable:
    def test_a_block_for_each_model(self) -> None:
        lines = lines_of(run_of(*grid("a", lost={"dynamic": 580}), *grid("b"), mode="measure"))
        assert lines[0].startswith("20 cases of 2 models on intel_xeon")
        assert max(map(len, lines)) <= 100
        assert [line for line in lines if line.startswith(("a,", "b,"))] == [
            "a, in float top-1 95.00 %",
            "b, in float top-1 95.00 %",
        ]
        header = lines[4]
        assert header.split() == ["precision", "size", "top-1", "drop", "t1", "t1", "t2", "t2", "t2", "verdict"]
        rows = [line.split() for line in lines if line.startswith("dynamic  ")]
        assert [row[3:5] for row in rows] == [["37.00", "58.00"], ["95.00", "0.00"]]
        assert [row[-2:] for row in rows] == [["x1.60", "inaccurate"], ["x1.60", "pass"]]
        assert "- dynamic: top-1 0.950 -> 0.370; the other four lose nothing" in lines
        assert "dynamic wrecks a (top-1 0.950 -> 0.370), and spares b" in lines
        assert lines[-1].endswith("median with so many")

    def test_four_threads_fit_and_what_does_not_is_named(self) -> None:
        wide = dict.fromkeys(PRECISIONS, (1.0, 1.5, 1.9, 2.2))
        lines = lines_of(run_of(*grid(gains=wide), mode="measure"))
        assert max(map(len, lines)) <= 100
        assert "not shown in 100 columns: first inference with 2 threads" in " ".join(lines[:3])
        assert [word for word in " ".join(lines).split() if word == "gain"] == ["gain"] * 3

    @pytest.mark.parametrize("mode", ["compare", "against"])
    def test_compared(self, mode: str) -> None:
        cases = grid(compared=mode == "compare")
        if mode == "against":
            cases = [paired("digits_cnn")]
        lines = lines_of(run_of(*cases, mode=mode))
        assert max(map(len, lines)) <= 100
        assert ("change" if mode == "compare" else "this /") in " ".join(lines[3:8])

    def test_changes_of_four_threads_fit(self) -> None:
        wide = dict.fromkeys(PRECISIONS, (1.0, 1.5, 1.9, 2.2))
        lines = lines_of(run_of(*grid(gains=wide, compared=True), mode="compare"))
        assert max(map(len, lines)) <= 100
        assert " ".join(lines[3:8]).count("change") == 4

    def test_rows_are_told_apart_by_what_differs(self) -> None:
        other = [
            replace(case, backend="onnxruntime", id=case.id.replace("tflite", "onnxruntime")) for case in grid(lost={"int8": 580})
        ]
        note_thread_speedups(other)
        lines = lines_of(run_of(*grid(), *other, mode="measure"))
        assert any(line.startswith("backend") for line in lines)
        assert any(line.startswith("- onnxruntime int8: top-1") for line in lines)

    def test_variants_and_streams_have_rows_of_their_own(self) -> None:
        streams = [replace(case, id=f"{case.id}-stream") for case in grid()]
        note_thread_speedups(streams)
        lines = lines_of(run_of(*grid(), *streams, mode="measure"))
        assert [line.split()[1] for line in lines if line.startswith("int8 ")] == ["-", "stream"]

    def test_a_verdict_of_some_threads_names_them_and_has_its_colour(self) -> None:
        cases = grid()
        cases[1].verdict = Verdict.OVER_LIMIT
        plain = lines_of(run_of(*cases, mode="measure"))
        assert any(line.endswith("over_limit (t2)") for line in plain)
        coloured = grid_lines(run_of(*cases, mode="measure"), 100, lambda text, colour: f"<{colour}>{text}")
        assert any(line.endswith("<red>over_limit (t2)") for line in coloured)
        assert any(line.endswith("<green>pass") for line in coloured)

    def test_what_is_broken_has_its_row_and_what_is_unsupported_none(self) -> None:
        lines = lines_of(run_of(*grid(), case_with(Verdict.BROKEN), case_with(Verdict.UNSUPPORTED), mode="measure"))
        assert any(line.endswith("broken") for line in lines)
        assert lines_of(run_of(case_with(Verdict.UNSUPPORTED))) == []

    def test_detectors_have_map(self) -> None:
        lines = lines_of(run_of(detected(), mode="measure"))
        assert "mAP" in " ".join(lines)
        assert "top-1" not in " ".join(lines)


class TestTheRegistry:
    def test_every_name_is_a_table(self) -> None:
        assert table_named(DEFAULT_TABLE) is table_lines
        assert table_named("grid") is grid_lines
        for name in TABLES:
            assert isinstance(table_named(name)(run_of(*grid(), mode="measure"), 100, lambda text, colour: text), list)
        with pytest.raises(KeyError):
            table_named("pie")

    def test_the_rest_of_the_summary_is_the_same(self) -> None:
        run = run_of(*grid(), case_with(Verdict.INACCURATE), mode="measure")
        with_grid, plain = (partial(summary_lines, run)(table=table_named(name)) for name in ("grid", "latency"))
        assert with_grid[-3:] == plain[-3:]
        assert with_grid[0].startswith("11 cases of 2 models")


def test_what_was_compared_stands_in_each_cell() -> None:
    case = measured(factor=1.2)
    assert case.latency is not None
    decision = decide(BASELINE, case.latency.replicates, tolerance=0.05, final=True)
    assert f"{100 * (decision.ratio - 1):+.1f}" in " ".join(grid_lines(run_of(case), 100))
