"""Comparing what was built anew: false alarms under rebuilding, power, and what the rule must never do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_inference_gate.build_decision import (
    Built,
    build_spread,
    decide_build_pairs,
    decide_builds,
    student_quantile,
    student_upper_tail,
)
from pytest_inference_gate.decision import ALPHA, LatencyDecision, correct_for_family, decide
from pytest_inference_gate.paired_decision import decide_pairs
from pytest_inference_gate.verdict import SEVERITY, Verdict

TOLERANCE = 0.05
FIRST = 6
NOISE = 0.003  # of a replicate: a device with locked clocks


def until_final(decide_on: Callable[[int, bool], LatencyDecision], first: int = FIRST) -> LatencyDecision:
    """The decision that a run comes to: it takes more as long as more is wanted, up to five times the first."""
    count = min(3, first)
    while True:
        decision = decide_on(count, count >= 5 * first)
        if not decision.wanted:
            return decision
        count = min(5 * first, count + decision.wanted)


class World:
    """Builds whose speed scatters by ``spread``, measured in processes that scatter by :data:`NOISE`, in turn."""

    def __init__(self, seed: int, spread: float) -> None:
        self.random = random.Random(seed)
        self.spread = spread

    def side(self, name: str, builds: int, count: int, factor: float = 1.0) -> list[Built]:
        speeds = [factor * exp(self.random.gauss(0, self.spread)) for _ in range(builds)]
        return [
            Built(f"{name}{number % builds}", 0.01 * speeds[number % builds] * exp(self.random.gauss(0, NOISE)))
            for number in range(count)
        ]

    def compare(self, before: int, after: int, factor: float = 1.0) -> LatencyDecision:
        baseline = [self.side("b", before, 2 * FIRST)]
        candidate = self.side("c", after, 5 * FIRST, factor)
        return until_final(
            lambda count, final: decide_builds(baseline, candidate[:count], tolerance=TOLERANCE, first=FIRST, final=final)
        )

    def compare_in_turns(self, builds: int, factor: float = 1.0) -> LatencyDecision:
        this, other = self.side("c", builds, 5 * FIRST, factor), self.side("b", builds, 5 * FIRST)
        ratios = [
            Built(f"{mine.build}/{theirs.build}", mine.value / theirs.value) for mine, theirs in zip(this, other, strict=True)
        ]
        return until_final(lambda count, final: decide_build_pairs(ratios[:count], tolerance=TOLERANCE, first=FIRST, final=final))

    def compare_as_if_nothing_was_built(self, builds: int) -> LatencyDecision:
        baseline = [[one.value for one in self.side("b", builds, 2 * FIRST)]]
        candidate = [one.value for one in self.side("c", builds, 5 * FIRST)]
        return until_final(
            lambda count, final: decide(baseline, candidate[:count], tolerance=TOLERANCE, first=FIRST, final=final)
        )


def rate(decisions: Sequence[LatencyDecision], *verdicts: Verdict) -> float:
    return sum(decision.verdict in verdicts for decision in decisions) / len(decisions)


class TestFalseAlarms:
    """Builds of one software against builds of the same: whatever is said to have changed has not."""

    RUNS = 1500

    @pytest.mark.parametrize("spread", [0.02, 0.05])
    @pytest.mark.parametrize(("before", "after"), [(3, 3), (5, 5), (3, 1), (1, 3)])
    def test_against_a_baseline(self, spread: float, before: int, after: int) -> None:
        world = World(1, spread)
        found = [world.compare(before, after) for _ in range(self.RUNS)]
        # Of 1500 runs with a rate of 1 % in truth, 26 or more have a chance of 1 in 200.
        assert rate(found, Verdict.SLOWER) <= 25 / 1500
        assert rate(found, Verdict.FASTER) <= 25 / 1500

    @pytest.mark.parametrize("spread", [0.02, 0.05])
    @pytest.mark.parametrize("builds", [3, 5])
    def test_in_turns(self, spread: float, builds: int) -> None:
        world = World(2, spread)
        found = [world.compare_in_turns(builds) for _ in range(self.RUNS)]
        assert rate(found, Verdict.SLOWER) <= 25 / 1500
        assert rate(found, Verdict.FASTER) <= 25 / 1500

    def test_a_rule_that_does_not_know_of_builds_raises_many_more(self) -> None:
        world = World(3, 0.05)
        assert rate([world.compare_as_if_nothing_was_built(1) for _ in range(500)], Verdict.SLOWER) > 0.15
        assert rate([world.compare_as_if_nothing_was_built(3) for _ in range(500)], Verdict.SLOWER) > 0.02


class TestPower:
    @pytest.mark.parametrize(
        ("builds", "spread", "factor", "caught"), [(3, 0.01, 1.1, 0.85), (5, 0.02, 1.15, 0.95), (5, 0.05, 1.4, 0.9)]
    )
    def test_a_true_slow_down_is_found(self, builds: int, spread: float, factor: float, caught: float) -> None:
        world = World(4, spread)
        found = [world.compare(builds, builds, factor) for _ in range(300)]
        assert rate(found, Verdict.SLOWER) >= caught
        # What is not sure is said to be so, and is red.
        assert rate(found, Verdict.SLOWER, Verdict.INCONCLUSIVE, Verdict.UNGATEABLE) >= 0.99

    def test_so_it_is_in_turns(self) -> None:
        world = World(5, 0.02)
        found = [world.compare_in_turns(5, 1.2) for _ in range(300)]
        assert rate(found, Verdict.SLOWER) >= 0.9


def built(medians: Sequence[float], *, name: str = "c", each: int = 4) -> list[Built]:
    """Replicates that are all like their build, in turn."""
    return [Built(f"{name}{number % len(medians)}", medians[number % len(medians)]) for number in range(each * len(medians))]


class TestTheSameBuilds:
    def test_are_compared_as_they_are(self) -> None:
        before = built([0.010, 0.012, 0.011])
        slower = [Built(one.build, one.value * 1.06) for one in before]
        decision = decide_builds([before], slower, tolerance=TOLERANCE, first=6, final=True)
        assert decision.verdict is Verdict.SLOWER
        assert decision.ratio == pytest.approx(1.06)
        assert decision.builds is not None
        assert decision.builds.same
        # Against other builds of the same speeds, rebuilding could explain it.
        renamed = [Built(f"x{one.build}", one.value) for one in slower]
        assert decide_builds([before], renamed, tolerance=TOLERANCE, first=6, final=True).verdict is not Verdict.SLOWER

    def test_some_of_them_will_do(self) -> None:
        """Recorded with three builds, compared with one of them: what the other two would say is left aside."""
        before = built([0.010, 0.015, 0.020])
        decision = decide_builds([before], built([0.010]), tolerance=TOLERANCE, final=True)
        assert (decision.verdict, decision.ratio) == (Verdict.PASS, pytest.approx(1))

    def test_in_turns(self) -> None:
        ratios = [Built(f"c{number % 2}", 1.08 + 0.001 * (number % 3)) for number in range(10)]
        decision = decide_build_pairs(ratios, tolerance=TOLERANCE, first=5, same=True)
        assert decision.verdict is Verdict.SLOWER
        assert decision.reason == decide_pairs([one.value for one in ratios], tolerance=TOLERANCE, first=5).reason


class TestOneAgainstOne:
    @pytest.mark.parametrize(("factor", "verdict"), [(1.2, Verdict.SLOWER), (0.8, Verdict.FASTER)])
    def test_a_change_may_be_the_rebuild_s(self, factor: float, verdict: Verdict) -> None:
        decision = decide_builds([built([0.010], name="b", each=10)], built([0.010 * factor], each=10), tolerance=TOLERANCE)
        assert decision.verdict is verdict
        assert "this is one build against one" in decision.reason
        assert "--gate-rebuilds=3" in decision.reason
        pairs = [Built("c/b", factor)] * 10
        assert "this is one build against one" in decide_build_pairs(pairs, tolerance=TOLERANCE).reason

    def test_no_change_needs_no_word(self) -> None:
        decision = decide_builds([built([0.010], name="b", each=10)], built([0.010], each=10), tolerance=TOLERANCE)
        assert decision.verdict is Verdict.PASS
        assert "rebuild" not in decision.reason

    def test_a_baseline_of_several_knows_how_builds_scatter(self) -> None:
        decision = decide_builds(
            [built([0.0100, 0.0105, 0.0110], name="b")], built([0.0114], each=20), tolerance=TOLERANCE, final=True
        )
        assert decision.verdict in (Verdict.INCONCLUSIVE, Verdict.UNGATEABLE)
        assert "builds of one software scatter by" in decision.reason
        assert "--gate-rebuilds" in decision.reason


DURATIONS = st.floats(0.001, 0.1)
SIDES = st.lists(DURATIONS, min_size=1, max_size=4)


class TestProperties:
    @settings(deadline=None)
    @given(SIDES, SIDES, st.floats(1, 3), st.booleans())
    def test_slowing_all_of_a_candidate_never_improves_its_verdict(
        self, before: list[float], after: list[float], factor: float, final: bool
    ) -> None:
        baseline = [built(before, name="b")]
        as_it_is = decide_builds(baseline, built(after), tolerance=TOLERANCE, final=final)
        slowed = decide_builds(baseline, built([factor * value for value in after]), tolerance=TOLERANCE, final=final)
        if not (as_it_is.wanted or slowed.wanted):
            good = (Verdict.PASS, Verdict.FASTER)
            assert slowed.verdict not in good or as_it_is.verdict in good
            if as_it_is.verdict is Verdict.SLOWER:
                assert SEVERITY.index(slowed.verdict) <= SEVERITY.index(as_it_is.verdict)

    @settings(deadline=None)
    @given(SIDES, SIDES, st.floats(0.01, 100))
    def test_the_unit_of_time_does_not_matter(self, before: list[float], after: list[float], unit: float) -> None:
        one = decide_builds([built(before, name="b")], built(after), tolerance=TOLERANCE, final=True)
        other = decide_builds(
            [built([unit * value for value in before], name="b")],
            built([unit * value for value in after]),
            tolerance=TOLERANCE,
            final=True,
        )
        assert one.threshold == pytest.approx(other.threshold)
        assert one.p_value == pytest.approx(other.p_value, abs=1e-9)

    @pytest.mark.parametrize("unit", [1.0, 0.75, 0.5, 1e-3, 7.0])
    def test_builds_without_scatter_have_none_in_any_unit(self, unit: float) -> None:
        """What is left of a mean of equal logarithms by rounding is no scatter."""
        for value in (0.0625, 0.046875, 0.1, 3.0):
            same = [built([unit * value], name="b")], built([unit * value] * 3)
            assert decide_builds(*same, tolerance=TOLERANCE, final=True).p_value == 1.0

    @settings(deadline=None)
    @given(SIDES, SIDES)
    def test_every_decision_is_whole(self, before: list[float], after: list[float]) -> None:
        decision = decide_builds([built(before, name="b")], built(after), tolerance=TOLERANCE, final=True)
        assert decision.threshold >= TOLERANCE
        assert 0 <= decision.p_value <= 1
        assert decision.interval is None or decision.interval[0] <= decision.ratio <= decision.interval[1]
        assert decision.minimum_detectable is None or decision.minimum_detectable >= decision.threshold
        assert decision.reason
        assert decision.builds is not None
        assert (decision.builds.candidate, decision.builds.baseline) == (len(after), len(before))
        corrected = correct_for_family({"a": decision, "b": decision})["a"]
        assert corrected.p_value >= decision.p_value
        if decision.verdict is Verdict.SLOWER and corrected.verdict is Verdict.SLOWER and len(after) + len(before) > 2:
            assert f"p = {corrected.p_value:.2g}" in corrected.reason

    def test_more_builds_see_smaller_changes(self) -> None:
        def detectable(builds: int) -> float:
            speeds = [0.0099 + 0.0002 * (number % 2) for number in range(builds)]
            decision = decide_builds([built(speeds, name="b")], built(speeds), tolerance=0.001, first=6, final=True)
            assert decision.minimum_detectable is not None
            return decision.minimum_detectable

        assert detectable(2) > detectable(4) > detectable(8)

    @given(st.floats(-50, 50), st.integers(1, 60))
    def test_student_equals_scipy(self, t: float, degrees: int) -> None:
        # SciPy itself is off by some 1e-11 where t is next to nothing.
        assert student_upper_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), abs=1e-9)

    @pytest.mark.parametrize("degrees", [1, 2, 4, 8, 30])
    @pytest.mark.parametrize("probability", [0.5, 0.975, 0.99, 0.9999])
    def test_so_does_its_quantile(self, probability: float, degrees: int) -> None:
        assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-6, abs=1e-9)

    def test_what_is_no_question(self) -> None:
        with pytest.raises(ValueError, match="degree of freedom"):
            student_upper_tail(1.0, 0)
        with pytest.raises(ValueError, match="at least 0.5"):
            student_quantile(0.1, 3)
        with pytest.raises(ValueError, match="no session"):
            decide_builds([], built([1.0]), tolerance=TOLERANCE)

    def test_spread(self) -> None:
        assert build_spread([0.01], [0.02]) is None
        assert build_spread([], [0.01, 0.01]) == 0
        assert build_spread([0.0100, 0.0110], [0.0200, 0.0220]) == pytest.approx(0.0697, abs=1e-3)

    def test_alpha_is_that_of_the_gate(self) -> None:
        assert ALPHA == 0.01


@pytest.mark.parametrize("cases", [1, 400, 100_000])
def test_two_builds_that_differ_in_a_run_of_many_cases_overflow_nothing(cases: int) -> None:
    alpha = ALPHA / cases
    pairs = [Built("a/x", 1.0), Built("b/y", 1.2)] * 3
    stored = [Built("a", 1.0), Built("b", 1.1)] * 3
    for decision in (
        decide_build_pairs(pairs, tolerance=0.05, alpha=alpha),
        decide_builds([[Built("o", 1.0)] * 5], stored, tolerance=0.05, alpha=alpha),
    ):
        assert decision.minimum_detectable is not None
        assert decision.minimum_detectable <= 100.000001
