from __future__ import annotations

import itertools
import math
import re
from statistics import median

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from pytest_inference_gate.decision import confirm, decide, rank_sum_p_value, session_spread, smallest_p_value
from pytest_inference_gate.verdict import Verdict

durations = st.floats(1e-6, 1e3, allow_nan=False)
replicates = st.lists(durations, min_size=1, max_size=6)
sessions = st.lists(replicates, min_size=1, max_size=4)
# Few different values, so that there are many ties.
coarse = st.lists(st.integers(1, 6), min_size=1, max_size=6)

# Medians of replicates in ms, as a quiet machine gives them.
QUIET = ([11.41, 11.38, 11.52, 11.44, 11.40], [11.47, 11.39, 11.43, 11.55, 11.42])
STEADY = [11.42, 11.40, 11.51, 11.45, 11.39]


def scaled(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def brute_force_p_value(larger: list[int], smaller: list[int]) -> float:
    """The share of all ways to deal the values out whose Mann-Whitney U is at least the one seen."""

    def u_statistic(first: list[int], second: list[int]) -> float:
        return sum((a > b) + 0.5 * (a == b) for a in first for b in second)

    pooled = larger + smaller
    seen = u_statistic(larger, smaller)
    dealt = list(itertools.combinations(range(len(pooled)), len(larger)))
    extreme = sum(
        u_statistic([pooled[i] for i in chosen], [pooled[i] for i in range(len(pooled)) if i not in chosen]) >= seen
        for chosen in dealt
    )
    return extreme / len(dealt)


class TestRankSum:
    @given(st.lists(durations, min_size=2, max_size=24, unique=True), st.data())
    def test_equals_scipy_without_ties(self, values: list[float], data: st.DataObject) -> None:
        cut = data.draw(st.integers(1, len(values) - 1))
        expected = stats.mannwhitneyu(values[:cut], values[cut:], alternative="greater", method="exact").pvalue
        assert rank_sum_p_value(values[:cut], values[cut:]) == pytest.approx(expected, rel=1e-12)

    @given(coarse, coarse)
    @example([1, 1], [1, 1])
    def test_equals_enumeration_with_ties(self, larger: list[int], smaller: list[int]) -> None:
        assert rank_sum_p_value(larger, smaller) == pytest.approx(brute_force_p_value(larger, smaller), rel=1e-12)

    @given(coarse, coarse)
    def test_both_directions_share_the_ways_that_are_exactly_as_extreme(self, first: list[int], second: list[int]) -> None:
        assert rank_sum_p_value(first, second) + rank_sum_p_value(second, first) >= 1

    def test_known_values(self) -> None:
        assert rank_sum_p_value([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == 1 / 252
        assert rank_sum_p_value([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == 1
        assert rank_sum_p_value([1, 1], [1, 1, 1]) == 1
        assert smallest_p_value(5, 5) == 1 / 252

    def test_stays_exact_for_many_replicates(self) -> None:
        slow = [2.005 + i / 100 for i in range(30)]
        fast = [1 + i / 100 for i in range(170)]
        expected = stats.mannwhitneyu(slow, fast, alternative="greater", method="exact").pvalue
        assert rank_sum_p_value(slow, fast) == pytest.approx(expected, rel=1e-9)


class TestDecide:
    def test_the_same_software_passes(self) -> None:
        decision = decide(QUIET, STEADY, tolerance=0.05)
        assert decision.verdict is Verdict.PASS
        assert decision.ratio == pytest.approx(1, abs=0.005)
        assert decision.threshold == 0.05
        assert decision.baseline_median == pytest.approx(median([median(QUIET[0]), median(QUIET[1])]))
        assert decision.candidate_median == median(STEADY)
        assert decision.minimum_detectable == pytest.approx(0.05)

    def test_clearly_slower(self) -> None:
        decision = decide(QUIET, scaled(STEADY, 1.08), tolerance=0.05)
        assert decision.verdict is Verdict.SLOWER
        assert decision.p_value == pytest.approx(1 / math.comb(15, 5))
        assert "8.0% slower" in decision.reason
        assert "5.0%" in decision.reason

    def test_clearly_faster_says_to_check_the_work(self) -> None:
        decision = decide(QUIET, scaled(STEADY, 0.8), tolerance=0.05)
        assert decision.verdict is Verdict.FASTER
        assert decision.p_value == pytest.approx(1 / math.comb(15, 5))
        assert "still does all of its work" in decision.reason
        assert "new baseline" in decision.reason

    def test_beyond_the_tolerance_alone_is_not_slower(self) -> None:
        """Most replicates slower, one at the baseline's speed: effect without significance."""
        decision = decide([[1.00, 1.01, 1.02, 0.99, 1.00]], [1.00, 1.09, 1.10, 1.07, 1.08], tolerance=0.05)
        assert decision.verdict is Verdict.INCONCLUSIVE
        assert decision.p_value >= 0.01
        assert "too unsteady" in decision.reason

    def test_significant_alone_is_not_slower(self) -> None:
        decision = decide(QUIET, scaled(STEADY, 1.03), tolerance=0.05)
        assert decision.p_value < 0.01
        assert decision.verdict is Verdict.PASS

    def test_faster_but_not_significant_passes_and_says_so(self) -> None:
        decision = decide([[1.00, 1.01, 1.02, 0.99, 1.00]], [1.00, 0.91, 0.90, 0.93, 0.92], tolerance=0.05)
        assert decision.verdict is Verdict.PASS
        assert "too unsteady" in decision.reason

    def test_the_threshold_itself_is_within_tolerance(self) -> None:
        assert decide([[1.0] * 6], [1.25] * 6, tolerance=0.25).verdict is Verdict.PASS
        assert decide([[1.0] * 6], [1.2500001] * 6, tolerance=0.25).verdict is Verdict.SLOWER

    def test_three_spreads_of_the_sessions_widen_the_threshold(self) -> None:
        noisy = [[0.98] * 5, [1.0] * 5, [1.02] * 5]
        decision = decide(noisy, [1.08] * 5, tolerance=0.05)
        assert decision.threshold == pytest.approx(3 * 1.4826 * 0.02)
        assert decision.verdict is Verdict.PASS
        assert decide(noisy, [1.1] * 5, tolerance=0.05).verdict is Verdict.SLOWER

    def test_one_contaminated_session_does_not_widen_the_threshold_much(self) -> None:
        assert decide([[1.0] * 5, [1.01] * 5, [0.99] * 5, [3.0] * 5], [1.0] * 5, tolerance=0.05).threshold < 0.08

    def test_ungateable_prints_the_smallest_change_that_it_could_detect(self) -> None:
        wild = [[0.9] * 5, [1.0] * 5, [1.1] * 5]
        decision = decide(wild, [1.2] * 5, tolerance=0.05)
        assert decision.verdict is Verdict.UNGATEABLE
        assert decision.minimum_detectable == pytest.approx(3 * 1.4826 * 0.1)
        assert "44%" in decision.reason
        # Beyond the noise, but not significantly so.
        unsure = decide(wild, [0.9, 0.9, 1.6, 1.6, 1.6], tolerance=0.05)
        assert (unsure.verdict, unsure.ratio > 1 + unsure.threshold) == (Verdict.UNGATEABLE, True)
        # What is slower even beyond that is no matter of noise: a relaxed "ungateable" must not let it through.
        assert decide(wild, [1.5] * 5, tolerance=0.05).verdict is Verdict.SLOWER

    def test_a_tolerance_that_the_user_made_wide_is_gateable(self) -> None:
        assert decide([[1.0] * 5, [1.01] * 5], [1.1] * 5, tolerance=0.3).verdict is Verdict.PASS
        assert decide([[0.9] * 5, [1.0] * 5, [1.1] * 5], [1.1] * 5, tolerance=0.5).verdict is Verdict.PASS

    def test_a_thin_baseline_says_that_it_is(self) -> None:
        within = decide([[1.0, 1.01]], [1.0, 1.01, 1.02], tolerance=0.05)
        assert within.verdict is Verdict.PASS
        assert within.minimum_detectable is None
        assert re.search(r"2 baseline and 3 candidate replicates are too few .* below 0\.1.*take more", within.reason)
        beyond = decide([[1.0, 1.01]], [9.0, 9.1, 9.2], tolerance=0.05)
        assert beyond.verdict is Verdict.INCONCLUSIVE
        assert "too few" in beyond.reason

    def test_alpha_is_obeyed(self) -> None:
        assert decide([[1.0] * 3], [1.2] * 3, tolerance=0.05, alpha=0.06).verdict is Verdict.SLOWER
        assert decide([[1.0] * 3], [1.2] * 3, tolerance=0.05, alpha=0.05).verdict is Verdict.INCONCLUSIVE

    def test_a_contaminated_replicate_raises_what_can_be_detected(self) -> None:
        decision = decide([[1.0, 1.0, 1.0, 1.0, 1.3]], [1.0] * 5, tolerance=0.05)
        assert decision.minimum_detectable == pytest.approx(0.3)
        assert decide([[1.0, 1.0, 1.0, 1.0, 1.3]], [1.29] * 5, tolerance=0.05).verdict is Verdict.INCONCLUSIVE
        assert decide([[1.0, 1.0, 1.0, 1.0, 1.3]], [1.31] * 5, tolerance=0.05).verdict is Verdict.SLOWER

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


def rank_of(verdict: str) -> int:
    return {"faster": 0, "pass": 1, "ungateable": 2, "inconclusive": 2, "slower": 3}[verdict]


class TestDecideProperties:
    @given(sessions, replicates, st.integers(-20, 20))
    def test_the_unit_does_not_matter(self, baseline: list[list[float]], candidate: list[float], exponent: int) -> None:
        factor = 2.0**exponent  # exact in floating point
        before = decide(baseline, candidate, tolerance=0.05)
        after = decide([scaled(session, factor) for session in baseline], scaled(candidate, factor), tolerance=0.05)
        assert (after.verdict, after.reason, after.p_value) == (before.verdict, before.reason, before.p_value)
        assert (after.ratio, after.threshold) == pytest.approx((before.ratio, before.threshold))

    @given(sessions, replicates, st.randoms(use_true_random=False))
    def test_the_order_does_not_matter(self, baseline: list[list[float]], candidate: list[float], random: object) -> None:
        shuffled = [list(session) for session in baseline]
        for session in shuffled:
            random.shuffle(session)  # type: ignore[attr-defined]
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        mixed = list(candidate)
        random.shuffle(mixed)  # type: ignore[attr-defined]
        assert decide(shuffled, mixed, tolerance=0.05) == decide(baseline, candidate, tolerance=0.05)

    @given(sessions, replicates, st.floats(1, 4))
    def test_getting_slower_never_improves_the_verdict(
        self, baseline: list[list[float]], candidate: list[float], factor: float
    ) -> None:
        before = decide(baseline, candidate, tolerance=0.05, alpha=0.2)
        after = decide(baseline, scaled(candidate, factor), tolerance=0.05, alpha=0.2)
        assert rank_of(after.verdict) >= rank_of(before.verdict)

    @given(coarse, coarse, st.sampled_from([1.25, 1.5, 2.0, 3.0]))
    def test_nor_does_it_with_ties(self, baseline: list[int], candidate: list[int], factor: float) -> None:
        before = decide([baseline], candidate, tolerance=0.05, alpha=0.2)
        after = decide([baseline], scaled([float(value) for value in candidate], factor), tolerance=0.05, alpha=0.2)
        assert rank_of(after.verdict) >= rank_of(before.verdict)

    @given(sessions, replicates)
    def test_slower_and_faster_need_effect_and_significance(self, baseline: list[list[float]], candidate: list[float]) -> None:
        decision = decide(baseline, candidate, tolerance=0.05, alpha=0.2)
        assert 0 <= decision.p_value <= 1
        if decision.verdict in ("slower", "faster"):
            assert decision.p_value < 0.2
            assert abs(decision.ratio - 1) > decision.threshold
        if decision.verdict in ("slower", "inconclusive"):
            assert decision.ratio > 1 + decision.threshold

    @given(sessions, st.lists(durations, min_size=3, max_size=6))
    def test_the_smallest_detectable_change_is_detected_and_a_smaller_one_is_not(
        self, baseline: list[list[float]], candidate: list[float]
    ) -> None:
        decision = decide(baseline, candidate, tolerance=0.05, alpha=0.06)
        if decision.minimum_detectable is None:
            assert smallest_p_value(sum(map(len, baseline)), len(candidate)) >= 0.06
            assert decision.verdict is not Verdict.SLOWER
            return
        assert decision.minimum_detectable >= decision.threshold
        unchanged = decision.baseline_median / decision.candidate_median
        for nudge, detected in ((1 + 1e-6, True), (1 - 1e-6, False)):
            slowed = scaled(candidate, unchanged * (1 + decision.minimum_detectable) * nudge)
            again = decide(baseline, slowed, tolerance=0.05, alpha=0.06)
            assert (again.verdict is Verdict.SLOWER) == detected

    @given(st.lists(durations, min_size=2, max_size=8), st.integers(-20, 20))
    def test_the_spread_is_a_share(self, medians: list[float], exponent: int) -> None:
        assert session_spread(medians) >= 0
        assert session_spread(scaled(medians, 2.0**exponent)) == pytest.approx(session_spread(medians))
        assert session_spread(medians[:1]) == 0


class TestConfirm:
    """A suspicion is confirmed by fresh replicates, or it was a moment's disturbance."""

    def test_a_slow_down_that_shows_again_is_slower(self) -> None:
        decision = confirm(QUIET, scaled(STEADY, 1.2), scaled(STEADY + STEADY, 1.18), tolerance=0.05)
        assert decision.verdict is Verdict.SLOWER
        assert "confirmed by 10 fresh replicates" in decision.reason
        assert decision.p_value == pytest.approx(
            stats.mannwhitneyu(
                scaled(STEADY, 1.2) + scaled(STEADY + STEADY, 1.18), QUIET[0] + QUIET[1], alternative="greater", method="exact"
            ).pvalue,
            rel=1e-6,
        )

    def test_a_slow_moment_passes_and_says_so(self) -> None:
        decision = confirm(QUIET, scaled(STEADY, 1.4), STEADY + STEADY, tolerance=0.05)
        assert decision.verdict is Verdict.PASS
        assert "10 fresh ones did not confirm" in decision.reason

    def test_a_speed_up_that_shows_again_is_faster_and_one_that_does_not_passes(self) -> None:
        assert confirm(QUIET, scaled(STEADY, 0.8), scaled(STEADY, 0.8), tolerance=0.05).verdict is Verdict.FASTER
        assert confirm(QUIET, scaled(STEADY, 0.8), STEADY, tolerance=0.05).verdict is Verdict.PASS

    def test_too_few_replicates_stay_inconclusive(self) -> None:
        assert confirm([[1.0, 1.0, 1.0]], [2.0], [2.0, 2.0], tolerance=0.05).verdict is Verdict.INCONCLUSIVE

    def test_what_passed_needs_no_confirming(self) -> None:
        with pytest.raises(ValueError, match="nothing to confirm"):
            confirm(QUIET, STEADY, STEADY, tolerance=0.05)

    @given(sessions, replicates, replicates, st.floats(0.01, 0.5))
    def test_slower_means_beyond_the_threshold_both_times(
        self, baseline: list[list[float]], first: list[float], fresh: list[float], tolerance: float
    ) -> None:
        suspicion = decide(baseline, first, tolerance=tolerance)
        if suspicion.verdict in (Verdict.PASS, Verdict.UNGATEABLE):
            return
        decision = confirm(baseline, first, fresh, tolerance=tolerance)
        alone = decide(baseline, fresh, tolerance=tolerance)
        if decision.verdict is Verdict.SLOWER:
            assert suspicion.ratio - 1 > suspicion.threshold
            assert alone.ratio - 1 > alone.threshold
            assert decision.p_value < 0.01
        if decision.verdict is Verdict.FASTER:
            assert suspicion.verdict is Verdict.FASTER
            assert 1 / alone.ratio - 1 > alone.threshold

    @given(sessions, replicates, replicates, st.sampled_from([2.0, 0.5, 1024.0]))
    def test_scale_and_order_do_not_matter(
        self, baseline: list[list[float]], first: list[float], fresh: list[float], factor: float
    ) -> None:
        if decide(baseline, first, tolerance=0.05).verdict in (Verdict.PASS, Verdict.UNGATEABLE):
            return
        decision = confirm(baseline, first, fresh, tolerance=0.05)
        other = confirm(
            [scaled(session, factor) for session in baseline],
            scaled(first[::-1], factor),
            scaled(fresh[::-1], factor),
            tolerance=0.05,
        )
        assert (other.verdict, other.p_value) == (decision.verdict, decision.p_value)
        assert other.ratio == pytest.approx(decision.ratio)
