"""The table ``build``: rows of batches, and what each column says of a conversion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_examples import MAPPED, measured, run_of

from pytest_inference_gate.build_results import NodeCounts
from pytest_inference_gate.coverage import CoverageDecision
from pytest_inference_gate.report.build_table import build_lines, build_rows, nodes_text
from pytest_inference_gate.report.tables import table_named
from pytest_inference_gate.results import ArtifactResult, CaseResult, CoverageResult
from pytest_inference_gate.verdict import Verdict


def built(batch: int = 1, *, throughput: float = 100.0, backend: str = "tftrt", **artifact: Any) -> CaseResult:
    case = measured("resnet50", "fp16", compared=False)
    case.id, case.backend, case.batch = f"resnet50-{backend}-fp16-b{batch}-t1", backend, batch
    made: dict[str, Any] = {
        "convert_seconds": 1803.2,
        "cached": False,
        "nodes": NodeCounts(741, 12, 730),
        "engines": 1,
        **artifact,
    }
    case.artifact = ArtifactResult(f"digest{batch}", 100_000_000, **made)
    assert case.latency is not None
    case.latency = replace(case.latency, throughput=throughput)
    return case


def row(lines: list[str], start: str) -> str:
    (found,) = [line for line in lines if line.startswith(start)]
    return found


def test_batches_stand_side_by_side() -> None:
    lines = build_lines(run_of(*(built(batch, throughput=100.0 * batch) for batch in (8, 1, 4))), 120)
    cells = row(lines, "resnet50").split()
    assert cells[:8] == ["resnet50", "tftrt", "fp16", "741", "->", "12", "1", "1803"]
    assert cells[-4:] == ["100", "400", "800", "pass"]
    assert lines[0].startswith("3 cases on ")
    legend = " ".join(lines)
    assert "nodes: of the graph, before -> after its conversion" in legend
    assert "what is shown once is of the smallest batch of the row" in legend


def test_a_build_from_the_store_is_marked() -> None:
    assert " 12.3*" in row(build_lines(run_of(built(convert_seconds=12.34, cached=True))), "resnet50")


def test_the_worst_batch_decides_and_is_named() -> None:
    slow = built(8)
    slow.verdict = Verdict.SLOWER
    assert row(build_lines(run_of(built(1), slow), 140), "resnet50").endswith("slower (b8)")


def test_what_nothing_tells_has_no_column() -> None:
    lines = build_lines(run_of(built(backend="torch", nodes=None, engines=None)))
    assert "nodes" not in " ".join(lines)
    assert "engines" not in " ".join(lines)


def test_the_parts_of_an_accelerator_count_as_engines() -> None:
    case = built(backend="edgetpu", nodes=NodeCounts(72, 3), engines=None)
    case.coverage = CoverageResult(MAPPED, CoverageDecision(Verdict.PASS))
    cells = row(build_lines(run_of(case), 140), "resnet50").split()
    assert str(MAPPED.parts) == cells[6]
    assert f"{MAPPED.on_accelerator}/{MAPPED.operations}" in cells


def test_a_case_without_a_model_keeps_its_row() -> None:
    broken = CaseResult("resnet50-tftrt-int8-b1-t1", "resnet50", "tftrt", "int8", verdict=Verdict.BROKEN)
    lines = build_lines(run_of(built(), broken), 140)
    assert row([line for line in lines if "int8" in line], "resnet50").split()[-1] == "broken"


def test_nothing_supported_is_no_table() -> None:
    case = built()
    case.verdict = Verdict.UNSUPPORTED
    assert build_lines(run_of(case)) == []
    assert table_named("build") is build_lines


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (NodeCounts(741, 12), "741 -> 12"),
        (NodeCounts(40, 40), "40"),
        (NodeCounts(None, 4), "? -> 4"),
        (NodeCounts(40, None), "40 -> ?"),
    ],
)
def test_nodes(counts: NodeCounts, text: str) -> None:
    assert nodes_text(counts) == text


def test_rows_keep_their_order() -> None:
    cases = [built(2), built(1, backend="tensorflow"), built(1)]
    assert [[case.batch for case in one.cases] for one in build_rows(cases)] == [[1, 2], [1]]
