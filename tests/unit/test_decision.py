"""The stored gate's decision, on recorded and seeded durations."""

from __future__ import annotations

import itertools
import math
import re
from statistics import median

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from pytest_inference_gate.decision import (
    ALPHA,
    SPREADS,
    LatencyDecision,
    correct_for_family,
    decide,
    session_noise,
    session_spread,
)
from pytest_inference_gate.paired_decision import decide_pairs
from pytest_inference_gate.rank_tests import smallest_p_value
from pytest_inference_gate.sequential import EARLIEST, MOST
from pytest_inference_gate.verdict import Verdict

# A millionth apart at least, so that no factor makes two that differ equal.
durations = st.one_of(st.integers(1, 10**6).map(lambda number: number / 1000), st.integers(900, 1120).map(lambda n: n / 1000))
replicates = st.lists(durations, min_size=1, max_size=12)
sessions = st.lists(st.lists(durations, min_size=1, max_size=6), min_size=1, max_size=4)
firsts = st.integers(1, 5)
# Few different values, so that there are many ties.
coarse = st.lists(st.integers(1, 6), min_size=1, max_size=8)

# Medians of replicates in ms, as a quiet machine gives them.
QUIET = ([11.41, 11.38, 11.52, 11.44, 11.40], [11.47, 11.39, 11.43, 11.55, 11.42])
STEADY = [11.42, 11.40, 11.51, 11.45, 11.39]


def scaled(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def rank_of(verdict: str) -> int:
    return {"faster": 0, "pass": 1, "ungateable": 2, "inconclusive": 2, "slower": 3}[verdict]


class TestDecide:
    def test_the_same_software_passes(self) -> None:
        decision = decide(QUIET, STEADY, tolerance=0.05)
        assert decision.verdict is Verdict.PASS
        assert (decision.stage, decision.wanted) == ("first", 0)
        assert decision.ratio == pytest.approx(1, abs=0.005)
        assert decision.threshold == 0.05
        assert decision.baseline_median == pytest.approx(median([median(QUIET[0]), median(QUIET[1])]))
        assert decision.candidate_median == median(STEADY)
        assert decision.minimum_detectable == pytest.approx(0.05)
        assert decision.interval is not None
        assert decision.interval[0] < 1 < decision.interval[1]
        assert decision.reason == "as fast as the baseline, within the threshold of 5.0%"

    def test_three_replicates_that_are_near_are_enough(self) -> None:
        decision = decide(QUIET, STEADY[:3], tolerance=0.05)
        assert (decision.verdict, decision.wanted) == (Verdict.PASS, 0)
        unsure = decide(QUIET, [*STEADY[:2], 11.42 * 1.04], tolerance=0.05)
        assert (unsure.wanted, unsure.stage) == (2, "first")
        assert "so far; 2 more replicates are wanted" in decide(QUIET, scaled(STEADY[:3], 1.01), tolerance=0.01).reason

    def test_what_looks_slower_is_not_yet_slower(self) -> None:
        decision = decide(QUIET, scaled(STEADY, 1.08), tolerance=0.05)
        assert (decision.verdict, decision.wanted) == (Verdict.INCONCLUSIVE, 5)
        assert "8.0% slower than the baseline so far; 5 more replicates are wanted" in decision.reason
        ended = decide(QUIET, scaled(STEADY, 1.08), tolerance=0.05, final=True)
        assert (ended.verdict, ended.wanted, ended.stage) == (Verdict.INCONCLUSIVE, 0, "budget")
        assert "no time for enough fresh replicates" in ended.reason

    def test_slower_once_confirmed(self) -> None:
        candidate = scaled(STEADY, 1.2) + scaled(STEADY, 1.18)
        decision = decide(QUIET, candidate, tolerance=0.05)
        assert (decision.verdict, decision.stage, decision.wanted) == (Verdict.SLOWER, "confirmed", 0)
        assert decision.p_value == pytest.approx(1 / math.comb(20, 10))
        assert decision.reason.startswith("19.")
        assert "beyond the threshold of 5.0%, confirmed by 5 fresh replicates" in decision.reason
        expected = stats.mannwhitneyu(candidate, QUIET[0] + QUIET[1], alternative="greater", method="exact").pvalue
        assert decision.p_value == pytest.approx(expected, rel=1e-12)

    def test_a_slow_moment_passes_and_says_so(self) -> None:
        decision = decide(QUIET, scaled(STEADY, 1.4) + STEADY, tolerance=0.05)
        assert (decision.verdict, decision.stage, decision.wanted) == (Verdict.PASS, "unconfirmed", 0)
        assert "what the first 5 replicates seemed to show, 5 fresh ones did not confirm" in decision.reason

    def test_clearly_faster_says_to_check_the_work(self) -> None:
        decision = decide(QUIET, scaled(STEADY * 2, 0.8), tolerance=0.05)
        assert decision.verdict is Verdict.FASTER
        assert decision.p_value == pytest.approx(1 / math.comb(20, 10))
        assert "still does all of its work" in decision.reason
        assert "new baseline" in decision.reason
        assert decide(QUIET, scaled(STEADY, 0.8) + STEADY, tolerance=0.05).verdict is Verdict.PASS

    def test_beyond_the_tolerance_alone_is_not_slower(self) -> None:
        """Most replicates slower, some at the baseline's speed: effect without significance. More of them are wanted, to a limit."""
        unsteady = [0.9, 0.95, 1.09, 1.10, 1.07]
        baseline = [[1.00, 1.01, 1.02, 0.99, 1.00]]
        assert decide(baseline, unsteady * 2, tolerance=0.05).wanted == 5
        decision = decide(baseline, unsteady * 2, tolerance=0.05, final=True)
        assert decision.verdict is Verdict.INCONCLUSIVE
        assert decision.p_value >= 0.01
        assert "beyond the threshold of 5.0%, but too unsteady to be sure" in decision.reason
        assert decide(baseline, unsteady * MOST, tolerance=0.05).wanted == 0

    def test_significant_alone_is_not_slower(self) -> None:
        decision = decide(QUIET, scaled(STEADY * 2, 1.03), tolerance=0.05)
        assert decision.p_value < 0.01
        assert decision.verdict is Verdict.PASS

    def test_faster_but_not_significant_passes_and_says_so(self) -> None:
        unsteady = [1.05, 1.06, 0.91, 0.90, 0.92]
        decision = decide([[1.00, 1.01, 1.02, 0.99, 1.00]], unsteady * 2, tolerance=0.05, final=True)
        assert decision.verdict is Verdict.PASS
        assert "faster than the baseline, but too unsteady to be sure" in decision.reason

    def test_the_threshold_itself_is_within_tolerance(self) -> None:
        assert decide([[1.0] * 6], [1.25] * 10, tolerance=0.25).verdict is Verdict.PASS
        assert decide([[1.0] * 6], [1.2500001] * 10, tolerance=0.25).verdict is Verdict.SLOWER

    def test_the_spread_of_the_sessions_widens_the_threshold(self) -> None:
        noisy = [[0.97] * 5, [1.0] * 5, [1.03] * 5]
        decision = decide(noisy, [1.04] * 10, tolerance=0.05)
        assert decision.threshold == pytest.approx(SPREADS * 1.4826 * 0.03)
        assert decision.verdict is Verdict.PASS
        assert decide(noisy, [1.1] * 10, tolerance=0.05).verdict is Verdict.SLOWER

    def test_what_lies_between_tolerance_and_threshold_is_neither_slower_nor_let_through(self) -> None:
        noisy = [[0.97] * 5, [1.0] * 5, [1.03] * 5]
        assert decide(noisy, [1.07] * 5, tolerance=0.05).wanted == 5
        assert decide(noisy, [1.07] * 10, tolerance=0.05).wanted == 5
        decision = decide(noisy, [1.07] * 15, tolerance=0.05)
        assert (decision.verdict, decision.stage, decision.wanted) == (Verdict.INCONCLUSIVE, "budget", 0)
        assert decision.p_value < ALPHA
        assert "within what the baseline's own noise could explain" in decision.reason
        mixed = decide(noisy, [1.07] * 5 + [1.2] * 10, tolerance=0.05)
        assert mixed.verdict is Verdict.INCONCLUSIVE
        assert "not in the first and in the fresh replicates alike" in mixed.reason
        assert decide(noisy, [0.93] * 15, tolerance=0.05).verdict is Verdict.PASS

    def test_the_scatter_within_the_only_session_widens_it_too(self) -> None:
        decision = decide([[0.9, 0.95, 1.0, 1.05, 1.1]], [1.0] * 3, tolerance=0.05)
        assert decision.threshold == pytest.approx(SPREADS * 1.2533 * 1.4826 * 0.05 / math.sqrt(5))

    def test_one_contaminated_session_does_not_widen_the_threshold_much(self) -> None:
        assert decide([[1.0] * 5, [1.01] * 5, [0.99] * 5, [3.0] * 5], [1.0] * 5, tolerance=0.05).threshold < 0.08

    def test_ungateable_prints_the_smallest_change_that_it_could_detect(self) -> None:
        wild = [[0.9] * 5, [1.0] * 5, [1.1] * 5]
        decision = decide(wild, [1.2] * 5, tolerance=0.05)
        assert decision.verdict is Verdict.UNGATEABLE
        assert decision.minimum_detectable == pytest.approx(SPREADS * 1.4826 * 0.1)
        assert f"{SPREADS * 14.826:.0f}%" in decision.reason
        # Beyond the noise, but not significantly so.
        unsure = decide(wild, [0.9, 0.9, 1.6, 1.6, 1.6] * 2, tolerance=0.05, final=True)
        assert (unsure.verdict, unsure.ratio > 1 + unsure.threshold) == (Verdict.UNGATEABLE, True)
        # What is slower even beyond that is no matter of noise: a relaxed "ungateable" must not let it through.
        assert decide(wild, [1.5] * 10, tolerance=0.05).verdict is Verdict.SLOWER
        assert decide(wild, [0.5] * 10, tolerance=0.05).verdict is Verdict.UNGATEABLE

    def test_a_tolerance_that_the_user_made_wide_is_gateable(self) -> None:
        assert decide([[1.0] * 5, [1.01] * 5], [1.1] * 5, tolerance=0.3).verdict is Verdict.PASS
        assert decide([[0.9] * 5, [1.0] * 5, [1.1] * 5], [1.1] * 5, tolerance=0.5).verdict is Verdict.PASS

    def test_a_thin_baseline_says_that_it_is(self) -> None:
        within = decide([[1.0]], [1.0, 1.01, 1.02], tolerance=0.05)
        assert within.verdict is Verdict.PASS
        assert within.minimum_detectable is None
        assert re.search(r"1 baseline and 25 candidate replicates are too few .* below 0\.038.*take more", within.reason)
        beyond = decide([[1.0]], [9.0, 9.1, 9.2] * 5, tolerance=0.05, final=True)
        assert beyond.verdict is Verdict.INCONCLUSIVE
        assert "1 baseline and 15 candidate replicates are too few" in beyond.reason

    def test_what_ended_early_is_not_called_thin(self) -> None:
        """Three against five cannot be significant, but ten would have been taken, had the three looked any different."""
        decision = decide([[1.0, 1.01, 0.99, 1.0, 1.0]], [1.0, 1.0, 1.01], tolerance=0.05)
        assert smallest_p_value(5, 3) > ALPHA > smallest_p_value(5, 10)
        assert decision.reason == "as fast as the baseline, within the threshold of 5.0%"
        assert decision.minimum_detectable == pytest.approx(0.05)

    def test_alpha_is_obeyed(self) -> None:
        assert decide([[1.0] * 2], [1.2] * 6, first=3, tolerance=0.05, alpha=0.036).verdict is Verdict.SLOWER
        assert decide([[1.0] * 2], [1.2] * 6, first=3, tolerance=0.05, alpha=0.035).verdict is Verdict.INCONCLUSIVE

    def test_contaminated_replicates_raise_what_can_be_detected(self) -> None:
        baseline = [[1.0, 1.0, 1.0, 1.3, 1.3]]
        decision = decide(baseline, [1.0] * 10, tolerance=0.05)
        assert decision.minimum_detectable == pytest.approx(0.3)
        assert decide(baseline, [1.29] * 10, tolerance=0.05, final=True).verdict is Verdict.INCONCLUSIVE
        assert decide(baseline, [1.31] * 10, tolerance=0.05).verdict is Verdict.SLOWER

    @pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
    def test_refuses_durations_that_are_none(self, bad: float) -> None:
        with pytest.raises(ValueError, match="the candidate holds .* must be a positive number"):
            decide([[1.0]], [1.0, bad], tolerance=0.05)
        with pytest.raises(ValueError, match="session 2 of the baseline holds"):
            decide([[1.0], [bad]], [1.0], tolerance=0.05)

    def test_refuses_nothing_to_compare(self) -> None:
        with pytest.raises(ValueError, match="no session"):
            decide([], [1.0], tolerance=0.05)
        with pytest.raises(ValueError, match="session 2 of the baseline has no replicate"):
            decide([[1.0], []], [1.0], tolerance=0.05)
        with pytest.raises(ValueError, match="no replicate"):
            decide([[1.0]], [], tolerance=0.05)

    @pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
    def test_refuses_a_tolerance_that_is_none(self, tolerance: float) -> None:
        with pytest.raises(ValueError, match="tolerance"):
            decide([[1.0]], [1.0], tolerance=tolerance)

    @pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
    def test_refuses_an_alpha_that_is_none(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="alpha"):
            decide([[1.0]], [1.0], tolerance=0.05, alpha=alpha)

    def test_refuses_no_first_replicates_and_no_limit_of_noise(self) -> None:
        with pytest.raises(ValueError, match="first must be at least 1"):
            decide([[1.0]], [1.0], tolerance=0.05, first=0)
        with pytest.raises(ValueError, match="ungateable_above"):
            decide([[1.0]], [1.0], tolerance=0.05, ungateable_above=math.nan)


class TestDecideProperties:
    @given(sessions, replicates, firsts, st.integers(-20, 20))
    def test_the_unit_does_not_matter(
        self, baseline: list[list[float]], candidate: list[float], first: int, exponent: int
    ) -> None:
        factor = 2.0**exponent  # exact in floating point
        before = decide(baseline, candidate, tolerance=0.05, first=first)
        after = decide([scaled(session, factor) for session in baseline], scaled(candidate, factor), tolerance=0.05, first=first)
        assert (after.verdict, after.reason, after.p_value) == (before.verdict, before.reason, before.p_value)
        assert (after.stage, after.wanted, after.interval) == (before.stage, before.wanted, before.interval)
        assert (after.ratio, after.threshold) == pytest.approx((before.ratio, before.threshold))

    @given(sessions, replicates, firsts, st.booleans(), st.randoms(use_true_random=False))
    def test_the_order_matters_only_between_first_and_fresh(
        self, baseline: list[list[float]], candidate: list[float], first: int, final: bool, random: object
    ) -> None:
        shuffled = [list(session) for session in baseline]
        at_first, fresh = candidate[:first], candidate[first:]
        for values in (*shuffled, shuffled, at_first, fresh):
            random.shuffle(values)  # type: ignore[attr-defined]
        before = decide(baseline, candidate, tolerance=0.05, first=first, final=final)
        after = decide(shuffled, at_first + fresh, tolerance=0.05, first=first, final=final)
        # What could be detected is found by going round the replicates, which has an order where they do not go round evenly.
        assert self.without_detectable(after) == self.without_detectable(before)

    def without_detectable(self, decision: LatencyDecision) -> tuple[object, ...]:
        ungateable = decision.verdict is Verdict.UNGATEABLE
        return (
            decision.verdict,
            decision.ratio,
            decision.threshold,
            decision.p_value,
            decision.interval,
            decision.stage,
            decision.wanted,
            ungateable or decision.reason,
        )

    @given(sessions, replicates, firsts, st.floats(1, 4))
    def test_getting_slower_never_improves_the_final_verdict(
        self, baseline: list[list[float]], candidate: list[float], first: int, factor: float
    ) -> None:
        before = decide(baseline, candidate, tolerance=0.05, alpha=0.2, first=first, final=True)
        after = decide(baseline, scaled(candidate, factor), tolerance=0.05, alpha=0.2, first=first, final=True)
        assert rank_of(after.verdict) >= rank_of(before.verdict)

    @given(coarse, coarse, firsts, st.sampled_from([1.25, 1.5, 2.0, 3.0]))
    def test_nor_does_it_with_ties(self, baseline: list[int], candidate: list[int], first: int, factor: float) -> None:
        slowed = scaled([float(value) for value in candidate], factor)
        before = decide([baseline], candidate, tolerance=0.05, alpha=0.2, first=first, final=True)
        after = decide([baseline], slowed, tolerance=0.05, alpha=0.2, first=first, final=True)
        assert rank_of(after.verdict) >= rank_of(before.verdict)

    @given(sessions, replicates, firsts, st.booleans())
    @example([[0.88, 0.898]], [0.001, 0.001, 0.933, 0.934, 0.934, 0.934, 0.934, 0.934, 0.881, 0.899], 5, False)
    def test_slower_and_faster_need_effect_fresh_effect_and_significance(
        self, baseline: list[list[float]], candidate: list[float], first: int, final: bool
    ) -> None:
        decision = decide(baseline, candidate, tolerance=0.05, alpha=0.2, first=first, final=final)
        assert 0 <= decision.p_value <= 1
        if decision.verdict in ("slower", "faster"):
            assert decision.p_value < 0.2
            assert decision.wanted == 0
            assert len(candidate) >= 2 * first
            first_values = candidate[:first]
            for part in (candidate, first_values, candidate[first:]):
                ratio = median(part) / decision.baseline_median
                assert (ratio > 1) == (decision.verdict == "slower")
                # First values within the tolerance need not have the last word: then the fresh ones and all together are beyond it.
                least = 0 if part is first_values and decision.threshold == 0.05 and ratio > 1 else decision.threshold
                assert max(ratio, 1 / ratio) - 1 > least * (1 - 1e-12)
        if final:
            assert decision.wanted == 0
            if decision.verdict == "inconclusive":
                assert decision.ratio > 1 + 0.05 * (1 - 1e-12)

    @given(sessions, st.lists(durations, min_size=1, max_size=5))
    @example([[1.0, 1.0, 1.0, 1.3, 1.3]], [1.0, 1.0, 1.0, 1.0, 1.0])
    def test_the_smallest_detectable_change_is_detected_and_a_smaller_one_is_not(
        self, baseline: list[list[float]], half: list[float]
    ) -> None:
        """With fresh replicates that repeat the first ones; both halves and the whole then have one median."""
        candidate, alpha = half * 2, 0.06
        decision = decide(baseline, candidate, tolerance=0.05, alpha=alpha, first=len(half))
        if decision.minimum_detectable is None:
            assert smallest_p_value(sum(map(len, baseline)), MOST * len(half)) >= alpha
            assert decision.verdict is not Verdict.SLOWER
            return
        assert decision.minimum_detectable >= decision.threshold
        if smallest_p_value(sum(map(len, baseline)), len(candidate)) >= alpha:
            return  # these would not be enough
        unchanged = decision.baseline_median / decision.candidate_median
        for nudge, detected in ((1 + 1e-6, True), (1 - 1e-6, False)):
            slowed = scaled(candidate, unchanged * (1 + decision.minimum_detectable) * nudge)
            again = decide(baseline, slowed, tolerance=0.05, alpha=alpha, first=len(half), final=True)
            assert (again.verdict is Verdict.SLOWER) == detected


class TestNoise:
    def test_of_several_sessions_is_that_of_their_medians(self) -> None:
        assert session_spread([0.98, 1.0, 1.02]) == pytest.approx(1.4826 * 0.02)
        assert session_noise([[0.98] * 5, [1.0] * 5, [1.02] * 5]) == pytest.approx(1.4826 * 0.02)

    def test_is_never_less_than_the_scatter_within_sessions_allows(self) -> None:
        session = [0.9, 0.95, 1.0, 1.05, 1.1]
        within = 1.2533 * 1.4826 * 0.05 / math.sqrt(5)
        assert session_noise([session]) == pytest.approx(within)
        assert session_noise([session, session, [1.0] * 5]) == pytest.approx(within)  # the median over the sessions
        assert session_noise([session, [1.0] * 5, [1.0] * 5]) == 0
        assert session_noise([[1.0]]) == 0

    def test_follows_how_far_a_median_of_replicates_is_really_off(self) -> None:
        """Of normal replicates; the estimate of one session is wide, but in the middle over many it is right."""
        generator = numpy.random.default_rng(3)
        sessions = generator.normal(1, 0.02, size=(4000, 15))
        really = float(numpy.std(numpy.median(sessions, axis=1)))
        assert session_noise(sessions.tolist()) == pytest.approx(really, rel=0.1)

    @given(st.lists(durations, min_size=2, max_size=8), st.integers(-20, 20))
    def test_is_a_share(self, medians: list[float], exponent: int) -> None:
        assert session_spread(medians) >= 0
        factor = 2.0**exponent
        assert session_spread(scaled(medians, factor)) == pytest.approx(session_spread(medians))
        assert session_spread(medians[:1]) == 0
        assert session_noise([medians, medians[:1]]) == pytest.approx(
            session_noise([scaled(medians, factor), scaled(medians[:1], factor)])
        )


class TestFamily:
    SLOWER = decide(QUIET, scaled(STEADY * 2, 1.2), tolerance=0.05)
    FASTER = decide(QUIET, scaled(STEADY * 2, 0.8), tolerance=0.05)
    SAME = decide(QUIET, STEADY, tolerance=0.05)
    BARELY = decide([[1.0] * 5], [1.2] * 10, tolerance=0.05)  # p = 1 / 3003

    def test_alone_nothing_changes(self) -> None:
        assert correct_for_family({"a": self.SLOWER}) == {"a": self.SLOWER}
        assert correct_for_family({}) == {}

    def test_p_values_are_corrected_and_the_family_is_named(self) -> None:
        corrected = correct_for_family({"slow": self.SLOWER, "same": self.SAME, "fast": self.FASTER})
        assert {decision.family for decision in corrected.values()} == {3}
        assert corrected["slow"].p_value == pytest.approx(3 / math.comb(20, 10))
        assert [corrected[name].verdict for name in ("slow", "same", "fast")] == ["slower", "pass", "faster"]
        # The reason names the corrected figure, and is else the same.
        assert corrected["slow"].reason == corrected["slow"].explained().reason
        assert corrected["slow"].reason == self.SLOWER.reason.replace("p = 5.4e-06", "p = 1.6e-05") != self.SLOWER.reason

    def test_what_may_be_chance_among_so_many_is_no_longer_said(self) -> None:
        assert self.BARELY.p_value == pytest.approx(1 / 3003)
        enough = correct_for_family({"it": self.BARELY, **{str(number): self.SAME for number in range(29)}})
        assert enough["it"].verdict is Verdict.SLOWER
        many = correct_for_family({"it": self.BARELY, **{str(number): self.SAME for number in range(30)}})
        assert many["it"].verdict is Verdict.INCONCLUSIVE
        assert "20.0% slower, but among 31 cases that may be chance (p = 0.01" in many["it"].reason
        quick = decide([[1.2] * 5], [1.0] * 10, tolerance=0.05)
        assert quick.verdict is Verdict.FASTER
        assert correct_for_family({"it": quick, **{str(n): self.SAME for n in range(30)}})["it"].verdict is Verdict.PASS

    def test_the_reason_is_made_anew_for_the_corrected_figure(self) -> None:
        unsteady = decide([[1.0, 1.01, 0.99]], [0.9, 0.95, 1.09, 1.10, 1.07] * 2, tolerance=0.05, final=True)
        assert unsteady.verdict is Verdict.INCONCLUSIVE
        corrected = correct_for_family({"it": unsteady, "same": self.SAME})["it"]
        assert corrected.p_value > unsteady.p_value
        assert f"(p = {corrected.p_value:.2g}, needed below 0.01)" in corrected.reason
        assert corrected.reason.count("p = ") == 1
        pairs = decide_pairs([1.05] * 10, tolerance=0.03)
        one_of_two = correct_for_family({"it": pairs, "same": decide_pairs([1.0] * 10, tolerance=0.03)})["it"]
        assert one_of_two.reason == pairs.reason.replace("p = 0.00098", "p = 0.002")

    def test_of_what_was_not_slower_nothing_changes_but_the_figure(self) -> None:
        corrected = correct_for_family({str(number): self.SAME for number in range(50)})
        assert {(one.verdict, one.reason, one.wanted) for one in corrected.values()} == {("pass", self.SAME.reason, 0)}


def settle(baseline: list[list[float]], stream: list[float]) -> LatencyDecision:
    """Take replicates as they are wanted."""
    count = EARLIEST
    while (decision := decide(baseline, stream[:count], tolerance=0.05)).wanted:
        count += decision.wanted
        assert count <= len(stream), "it wants more than there is"
    return decision


def simulate(slow_down: float, count: int, seed: int) -> dict[str, float]:
    """Shares of verdicts with four recorded sessions of five, from processes of a steady machine with occasional stragglers."""
    generator = numpy.random.default_rng(seed)
    shape = (count, 20 + 5 * MOST)
    values = numpy.exp(0.01 * generator.normal(size=shape)) * numpy.where(generator.random(shape) < 0.05, 1.3, 1)
    verdicts = [
        settle([row[start : start + 5] for start in range(0, 20, 5)], scaled(row[20:], 1 + slow_down)).verdict
        for row in values.tolist()
    ]
    return {verdict: verdicts.count(verdict) / count for verdict in set(verdicts)}


def test_the_same_software_is_hardly_ever_red() -> None:
    found = simulate(0, 1000, seed=1)
    assert found.get(Verdict.SLOWER, 0) == 0
    assert found.get(Verdict.PASS, 0) > 0.99


def test_a_slow_down_of_ten_percent_is_red() -> None:
    assert simulate(0.1, 300, seed=2)[Verdict.SLOWER] > 0.98


def test_p_values_of_both_directions_are_those_of_the_rank_sum_test() -> None:
    for candidate, direction in ((scaled(STEADY, 1.01), "greater"), (scaled(STEADY, 0.99), "less")):
        decision = decide(QUIET, candidate, tolerance=0.05)
        expected = stats.mannwhitneyu(candidate, [*itertools.chain(*QUIET)], alternative=direction, method="exact").pvalue
        assert decision.p_value == pytest.approx(expected)
