"""Rounds that go through several pictures in turn: what is measured, what is made of it, and what it is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import pytest

from pytest_inference_gate.agent import batches, measure
from pytest_inference_gate.agent.failures import AgentError
from pytest_inference_gate.agent.measure import Clock
from pytest_inference_gate.agent.picture_cycle import PictureCycle
from pytest_inference_gate.baselines import BaselineCase, BaselineSession
from pytest_inference_gate.cards import load_card
from pytest_inference_gate.cases import Case
from pytest_inference_gate.comparison import Baseline
from pytest_inference_gate.decision import decide
from pytest_inference_gate.errors import CardError
from pytest_inference_gate.paired_measuring import BlockPlan
from pytest_inference_gate.picture_spread import median_of_each_picture, spread_over_pictures, spread_over_rounds
from pytest_inference_gate.report.messages import latency_failure_message
from pytest_inference_gate.results import CaseResult, Replicate, summarize_replicates

CARD = """
name = "m"
[checkpoint]
format = "seeded"
seed = 1
architecture = {{ function = "keras.applications.MobileNetV2" }}
[input]
shape = [8, 8, 3]
[labels]
count = 10
[evaluation]
seed = 1
count = 8
[measuring]
pictures = {pictures}
[backends]
tensorflow = ["fp32"]
"""


class Device:
    """A runner whose inference takes as many milliseconds as the picture says; to set a picture takes a second."""

    def __init__(self) -> None:
        self.now = 0
        self.seen: list[int] = []
        self._picture = 0
        self.clock = Clock(lambda: self.now, 1e-9, "fake")

    def set_inputs(self, array: Any) -> None:
        self.now += 10**9
        self._picture = int(array[0, 0])

    def prepared(self) -> Any:
        picture = self._picture

        def inference() -> None:
            self.seen.append(picture)
            self.now += picture * 10**6

        return inference

    def prepared_on_device(self) -> Any:
        return lambda picture=self._picture: picture * 1e-3


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    numpy.save(tmp_path / "inputs.npy", numpy.arange(1, 9, dtype=numpy.float32).reshape(8, 1))
    return str(tmp_path / "inputs.npy")


def test_rounds_are_whole_cycles_and_setting_a_picture_is_not_timed(pictures: str) -> None:
    device = Device()
    cycle = PictureCycle(device, pictures, 1, 4)
    rounds = measure.measured_rounds(None, {"minimum": 6, "minimum_seconds": 0.0, "maximum": 100}, device.clock, cycle)  # type: ignore[arg-type]
    assert rounds == pytest.approx([0.001, 0.002, 0.003, 0.004] * 2)


@pytest.mark.parametrize(
    ("minimum", "seconds", "maximum", "expected"), [(1, 0.0, 2, 4), (5, 0.05, 100, 24), (5, 9.0, 22, 20), (6, 9.0, 6, 8)]
)
def test_how_many_rounds(pictures: str, minimum: int, seconds: float, maximum: int, expected: int) -> None:
    device = Device()
    rule = {"minimum": minimum, "minimum_seconds": seconds, "maximum": maximum}
    assert len(measure.measured_rounds(device.prepared(), rule, device.clock, PictureCycle(device, pictures, 1, 4))) == expected


def test_a_cycle_of_slow_and_fast_pictures_is_steady(pictures: str) -> None:
    device = Device()
    rule = {"minimum_rounds": 3, "minimum_seconds": 0.0, "maximum_seconds": 5.0, "window": 3, "agreement": 0.01}
    assert measure.warm_up(device.prepared(), rule, device.clock, PictureCycle(device, pictures, 1, 4))[::2] == (8, True)


def test_a_measurement_begins_with_the_first_picture(pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(measure, "best_clock", lambda: device.clock)
    cycle = PictureCycle(device, pictures, 1, 3)
    rule = {"minimum": 3, "minimum_seconds": 0.0, "maximum": 3}
    found = measure.measure(cycle.turn(0), None, rule, True, cycle)
    assert (found["first_inference"], found["pictures"], device.seen) == (pytest.approx(0.001), 3, [1, 1, 2, 3])
    assert measure.measure_block(None, 4, cycle, 2) == pytest.approx([0.003, 0.001, 0.002, 0.003])
    assert measure.device_rounds(cycle.turn_on_device(0), 6, cycle) == pytest.approx([0.001, 0.002, 0.003] * 2)


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        (1, 3, [[1], [2], [3]]),
        (2, 4, [[1, 2], [3, 4], [5, 6], [7, 8]]),
        (4, 3, [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]]),
        (3, 8, [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8], [7, 8, 1], [8, 1, 2]]),
    ],
)
def test_batches_differ_and_share_as_few_pictures_as_can_be(
    pictures: str, size: int, count: int, expected: list[list[int]]
) -> None:
    found = batches.Batches(pictures, size, count)
    assert [found.take(number).ravel().tolist() for number in range(count)] == expected


def test_too_few_pictures_are_refused_by_the_agent(pictures: str) -> None:
    with pytest.raises(AgentError, match="rounds on 9 pictures in turn need as many, and .* holds 8"):
        PictureCycle(Device(), pictures, 1, 9)


def test_too_few_pictures_are_a_problem_of_the_card(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(CARD.format(pictures=9))
    with pytest.raises(CardError, match=r"measuring.pictures: found 9, expected at most 8"):
        load_card(path)


def replicate(pictures: int, *rounds: float) -> Replicate:
    return Replicate(0.1, 0.2, rounds, pictures=pictures)


def test_the_statistic_is_the_median_over_pictures_of_each_pictures_median() -> None:
    # Picture 0: 1, 1, 9; picture 1: 2, 2, 2; picture 2: 50, 51, 49. The median of all nine rounds would be 2 as well as 9 the mean.
    one = replicate(3, 1, 2, 50, 1, 2, 51, 9, 2, 49)
    assert one.picture_medians == (1, 2, 50)
    assert one.median == 2
    assert replicate(1, 1, 2, 50, 1).median == median([1, 2, 50, 1])


def test_spread_over_pictures_is_told_apart_from_spread_over_rounds() -> None:
    noise = numpy.random.default_rng(0)
    typical = numpy.array([10.0, 11.0, 12.0, 13.0, 14.0])
    quiet = [tuple(numpy.tile(typical, 6) * factor * noise.normal(1, 0.002, 30)) for factor in (1.0, 1.3, 0.8)]
    loud = [tuple(12.0 * noise.normal(1, 0.1, 30)) for _ in range(3)]
    for rounds, over_pictures, over_rounds in ((quiet, 2 / 12, 0.0027), (loud, 0.05, 0.135)):
        found = summarize_replicates([replicate(5, *one) for one in rounds], batch=1)
        assert found.pictures == len(found.picture_medians) == 5
        assert found.picture_spread is not None and found.round_spread is not None
        assert found.picture_spread == pytest.approx(over_pictures, rel=0.6, abs=0.002)
        assert found.round_spread == pytest.approx(over_rounds, rel=0.4, abs=0.002)
    assert summarize_replicates([replicate(1, 1.0, 2.0)], batch=1).picture_spread is None


def test_spreads_by_hand() -> None:
    assert spread_over_pictures([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)
    # Both replicates say the same once each is divided by its own median (2 and 4): 0.5, 1, 1, 1.5 of picture 0, and 1 of picture 1.
    rounds = [[1, 2, 2, 2, 2, 2, 3, 2], [2, 4, 4, 4, 4, 4, 6, 4]]
    assert spread_over_rounds(rounds, 2) == pytest.approx((0.125 + 0.0) / 2, abs=0.1)
    assert median_of_each_picture([(1, 2), (3, 4), (5, 9)]) == (3, 4)
    assert median_of_each_picture([(1, 2), (3,)]) == median_of_each_picture([]) == ()


def test_replicates_of_different_cycles_are_no_one_case() -> None:
    with pytest.raises(ValueError, match="same number of pictures"):
        summarize_replicates([replicate(2, 1, 2), replicate(1, 1, 2)], batch=1)
    with pytest.raises(ValueError, match="whole cycles"):
        summarize_replicates([replicate(2, 1, 2, 3)], batch=1)


@pytest.mark.parametrize(("pictures", "seconds"), [(20, 0.06), (20, 0.3), (7, 0.0001), (16, 0.2), (1, 0.3)])
def test_all_blocks_of_a_pair_are_whole_cycles_together(pictures: int, seconds: float) -> None:
    plan = BlockPlan()
    rounds = plan.rounds_of(seconds, pictures)
    assert rounds * plan.pairs % pictures == 0
    assert plan.rounds_of(seconds) <= rounds < plan.rounds_of(seconds) + pictures


def session(pictures: int, medians: tuple[float, ...] = ()) -> BaselineSession:
    known = BaselineCase("m-tensorflow-fp32-b1-t1", (0.01, 0.011), {}, pictures=pictures, picture_medians=medians)
    return BaselineSession(Path("x"), "x", "", "d", {}, {known.id: known}, {})


def test_a_baseline_on_another_number_of_pictures_is_not_compared_with(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(CARD.format(pictures=4))
    case = Case(load_card(tmp_path / "m.toml"), "tensorflow", "fp32", 1)
    one, four = session(1), session(4, (0.01,) * 4)
    assert Baseline(tmp_path, (one,)).timed(case) == []
    assert "go through 4 pictures in this run and went through 1 picture in the baseline" in str(
        Baseline(tmp_path, (one,)).other_pictures(case)
    )
    mixed = Baseline(tmp_path, (one, four))
    assert (mixed.timed(case), mixed.other_pictures(case)) == ([four.cases[case.id]], None)
    assert Baseline(tmp_path, ()).other_pictures(case) is None


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((1.0, 1.0, 1.4, 1.0), "1 of 4: number 2 (1.400 times); the others 1.000 to 1.000 times"),
        ((1.3, 1.3, 1.4, 1.2), "all of them, 1.200 to 1.400 times: not a matter of single pictures"),
        ((1.0, 0.9, 1.01, 1.02), "none is slower by more than"),
    ],
)
def test_a_failing_test_says_which_pictures_are_slower(factors: tuple[float, ...], words: str) -> None:
    before = (0.010, 0.011, 0.012, 0.013)
    rounds = [value * factor for value, factor in zip(before, factors, strict=True)] * 2
    measured = summarize_replicates([replicate(4, *rounds)] * 3, batch=1)
    decision = decide([[0.0115] * 3], measured.replicates, tolerance=0.05, first=3, final=True)
    latency = measured.decided(decision, [[0.0115] * 3], [before])
    assert latency.baseline_pictures == before
    text = " ".join(latency_failure_message(CaseResult("m", "m", "b", "fp32", latency=latency), decision).split())
    assert words in text
    assert "4: their medians spread by" in text
    alone = replace(latency, pictures=1, picture_medians=(), picture_spread=None)
    assert "pictures" not in latency_failure_message(CaseResult("m", "m", "b", "fp32", latency=alone), decision)
