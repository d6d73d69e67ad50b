"""Published figures in whole sessions: beside the result of the board that they are of, and without any say in its verdict."""

import pytest

from pytest_inference_gate import published

ROW = "here,{device},JetPack 4.2.2,Linear,linear,fp32,,,latency_mean,{value},ms,20 rounds"


@pytest.fixture
def linear_project(linear_project):
    linear_project.ini(gate_replicates=1)  # no verdict changes by it
    return linear_project


@pytest.fixture
def nano(linear_project, monkeypatch):
    """The project on what calls itself a Jetson Nano; ``publish(value)`` makes that the only figure that there is."""
    figures = linear_project.path / "figures.csv"

    def publish(value, device="Jetson Nano"):
        published.read_figures.cache_clear()
        figures.write_text(",".join(published.COLUMNS) + "\n" + ROW.format(device=device, value=value) + "\n")

    monkeypatch.setattr("pytest_inference_gate.published.figures_file", lambda: figures)
    monkeypatch.setattr("pytest_inference_gate.published.CARDS", {"Linear": ("linear",)})
    monkeypatch.setattr("pytest_inference_gate.devices._board", lambda facts: "NVIDIA Jetson Nano Developer Kit")
    # Its processor stands in for the GPU.
    monkeypatch.setattr("pytest_inference_gate.published.PublishedFigure.case_device", "cpu")
    linear_project.publish = publish
    return linear_project


def test_a_figure_is_shown_and_changes_no_verdict(nano):
    nano.publish(54)
    nano.save()
    _, document = nano.gate_json("--benchmark-compare")
    typical = document["cases"][0]["latency"]["median"] * 1000
    outcomes = set()
    for value in (typical, typical / 100, typical * 100):
        nano.publish(f"{value:.6f}")
        result, document = nano.gate_json("--benchmark-compare")
        (case,) = document["cases"]
        outcomes.add((result.ret, case["verdict"], case["latency"]["verdict"]))
        assert case["published"][0]["value"] == pytest.approx(value / 1000, abs=1e-9)
        result.stdout.fnmatch_lines(["published for this board: linear-linear-fp32-b1-t1: * ms mean, JetPack 4.2.2,*"])
    assert outcomes == {(0, "pass", "pass")}


def test_the_figure_of_another_board_is_not(nano):
    nano.publish(54, device="Raspberry Pi 3 B+")
    result, document = nano.gate_json()
    assert document["cases"][0]["published"] == []
    result.stdout.no_fnmatch_line("*published*")


def test_a_file_that_cannot_be_read_keeps_nobody_from_gating(nano):
    nano.publish("fast")
    result = nano.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: no published figures are shown:*", "*line 2: latency_mean is 'fast', expected a number*"])
