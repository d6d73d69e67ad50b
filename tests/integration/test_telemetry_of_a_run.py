"""Whole sessions on a machine that shows the power of its rails, through a stand-in for the program that tells it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from pytest_inference_gate.agent.telemetry import REPLICATES_WITH_TELEMETRY

LINE = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) CPU [14%@2188,off] GR3D_FREQ 0%@[624] cpu@52.562C VDD_IN 4000mW/3900mW"
)


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # nothing is judged by it
    return linear_project


@pytest.fixture
def tegrastats(linear_project: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``tegrastats(script)`` puts a program of that name on the path, on a machine that the plugin takes for one with rails."""
    folder = linear_project.path / "bin"
    folder.mkdir()
    monkeypatch.setattr("pytest_inference_gate.sweep.telemetry_wish", lambda facts, device: {"seconds": 6.0})
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(script: str) -> None:
        program = folder / "tegrastats"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return write


def telemetry(linear_project: Any) -> list[dict[str, Any]]:
    (session,) = linear_project.sessions()
    benchmarks = json.loads(session.read_text())["benchmarks"]
    (block,) = [one["extra_info"]["inference_gate"] for one in benchmarks if one["extra_info"].get("inference_gate")]
    assert len(block["telemetry"]) == len(block["replicates"])
    told: list[dict[str, Any]] = block["telemetry"]
    assert [one is not None for one in told] == [number < REPLICATES_WITH_TELEMETRY for number in range(len(told))]
    return told[:REPLICATES_WITH_TELEMETRY]


def test_a_saved_session_tells_the_energy_of_an_inference(linear_project: Any, tegrastats: Any) -> None:
    tegrastats(f'while echo "{LINE}"; do sleep 0.1; done')
    linear_project.save()
    for told in telemetry(linear_project):
        assert told["source"] == "tegrastats"
        assert told["total_rail"] == "VDD_IN"
        assert told["rails"]["VDD_IN"]["joules_per_inference"] == pytest.approx(4.0 * told["seconds"] / told["inferences"])


def test_a_comparison_shows_it_beside_the_baseline_and_judges_nothing_by_it(linear_project: Any, tegrastats: Any) -> None:
    tegrastats(f'while echo "{LINE}"; do sleep 0.1; done')
    linear_project.save()
    # Ten times the power: whatever this machine's timing is, that is more than anybody would call the same.
    tegrastats(f'while echo "{LINE.replace("4000mW", "4000000mW")}"; do sleep 0.1; done')
    result, document = linear_project.gate_json("--benchmark-compare")
    assert result.ret == 0, result.stdout.str()
    (case,) = document["cases"]
    rail = case["telemetry"]["rails"][case["telemetry"]["total_rail"]]
    assert case["verdict"] in ("pass", "faster")
    assert rail["joules_per_inference"] > 2 * rail["baseline_joules_per_inference"] > 0
    assert "of the whole board (rail VDD_IN)" in " ".join(result.stdout.str().split())


def test_a_sampler_that_cannot_sample_fails_nothing_and_is_told(linear_project: Any, tegrastats: Any) -> None:
    tegrastats('echo "tegrastats must be run as root"; exit 1')
    result = linear_project.save()
    told = telemetry(linear_project)
    assert {one["problem"] for one in told} == {"tegrastats ended with status 1: tegrastats must be run as root"}
    assert f"not wholly, sampled after {len(told)} of {len(told)} measurements: tegrastats ended" in " ".join(
        result.stdout.str().split()
    )
