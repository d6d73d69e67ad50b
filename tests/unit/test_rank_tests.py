"""Exact tests and intervals: against scipy, against enumeration, against tables, and by simulation with fixed seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import median

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from pytest_inference_gate.rank_tests import (
    centre_interval,
    holm_adjusted,
    rank_sum_p_value,
    ratio_interval,
    signed_rank_p_value,
    smallest_p_value,
)

durations = st.floats(1e-6, 1e3, allow_nan=False)
# Few different values, so that there are many ties.
coarse = st.lists(st.integers(1, 6), min_size=1, max_size=6)
# Logarithms of ratios on a grid: 0 is a ratio of exactly 1, and k and -k are equally far from it.
steps = st.lists(st.integers(-4, 4), min_size=1, max_size=7)


def scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def powers(exponents: Sequence[int]) -> list[float]:
    """Powers of two: their logarithms are equally large for k and -k in floating point, too."""
    return [2.0**exponent for exponent in exponents]


class TestRankSum:
    def brute_force(self, larger: list[int], smaller: list[int]) -> float:
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

    @given(st.lists(durations, min_size=2, max_size=24, unique=True), st.data())
    def test_equals_scipy_without_ties(self, values: list[float], data: st.DataObject) -> None:
        cut = data.draw(st.integers(1, len(values) - 1))
        expected = stats.mannwhitneyu(values[:cut], values[cut:], alternative="greater", method="exact").pvalue
        assert rank_sum_p_value(values[:cut], values[cut:]) == pytest.approx(expected, rel=1e-12)

    @given(coarse, coarse)
    @example([1, 1], [1, 1])
    def test_equals_enumeration_with_ties(self, larger: list[int], smaller: list[int]) -> None:
        assert rank_sum_p_value(larger, smaller) == pytest.approx(self.brute_force(larger, smaller), rel=1e-12)

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

    def test_hundreds_of_replicates_take_no_minutes(self) -> None:
        slow, fast = [1.05 + i / 1000 for i in range(200)], [1 + i / 1500 for i in range(500)]
        assert rank_sum_p_value(fast, slow) == pytest.approx(1 - rank_sum_p_value(slow, fast), abs=1e-3)
        expected = stats.mannwhitneyu([*slow, 1.1], [*fast, 1.1], alternative="greater", method="asymptotic").pvalue
        assert rank_sum_p_value([*slow, 1.1], [*fast, 1.1]) == pytest.approx(expected, rel=1e-9)
        assert rank_sum_p_value([1.0] * 200, [1.0] * 500) == 1

    @given(coarse, coarse, st.sampled_from([0.5, 1, 2.5]))
    def test_larger_values_never_have_a_larger_p_value(self, larger: list[int], smaller: list[int], shift: float) -> None:
        assert rank_sum_p_value([value + shift for value in larger], smaller) <= rank_sum_p_value(larger, smaller)


class TestSignedRank:
    def brute_force(self, exponents: list[int]) -> float:
        """The share of all ways to sign the ranks that are at least as large, zeros ranked but without a sign (Pratt)."""
        ranks = stats.rankdata([abs(value) for value in exponents])
        signed = [(rank, value) for rank, value in zip(ranks, exponents, strict=True) if value]
        seen = sum(rank for rank, value in signed if value > 0)
        sums = [
            sum(rank for (rank, _), positive in zip(signed, signs, strict=True) if positive)
            for signs in itertools.product((False, True), repeat=len(signed))
        ]
        return sum(total >= seen for total in sums) / len(sums)

    @given(st.lists(st.floats(0.01, 2), min_size=1, max_size=22, unique=True), st.data())
    def test_equals_scipy_without_ties(self, sizes: list[float], data: st.DataObject) -> None:
        signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=len(sizes), max_size=len(sizes)))
        ratios = [math.exp(sign * size) for sign, size in zip(signs, sizes, strict=True)]
        logarithms = numpy.log(ratios)
        if len(set(abs(logarithms))) < len(ratios):
            return  # equal but for rounding
        expected = stats.wilcoxon(logarithms, alternative="greater", method="exact").pvalue
        assert signed_rank_p_value(ratios) == pytest.approx(expected, rel=1e-12)

    @given(steps)
    @example([0, 0])
    def test_equals_enumeration_with_ties_and_ratios_of_one(self, exponents: list[int]) -> None:
        assert signed_rank_p_value(powers(exponents)) == pytest.approx(self.brute_force(exponents), rel=1e-12)

    def test_known_values(self) -> None:
        assert signed_rank_p_value([1 + i / 100 for i in range(1, 11)]) == 1 / 1024
        assert signed_rank_p_value([1 - i / 100 for i in range(1, 11)]) == 1
        assert signed_rank_p_value([1.0, 1.0, 1.0]) == 1
        # Lehmann's tables: W+ of at least 47 of 55 with ten pairs has the probability 0.0244.
        assert signed_rank_p_value([1.09, 1.1] + [1.02 + i / 100 for i in range(6)] + [0.8, 1.01]) == pytest.approx(
            stats.wilcoxon([9, 10, 2, 3, 4, 5, 6, 7, -11, 1], alternative="greater", method="exact").pvalue
        )

    def test_it_is_the_size_of_the_logarithm_that_is_ranked(self) -> None:
        """0.8 is farther from 1 than 1.22, though 0.22 is more than 0.2."""
        assert signed_rank_p_value([1.22, 0.8]) == 3 / 4
        assert signed_rank_p_value([1.26, 0.8]) == 2 / 4

    @given(steps, st.sampled_from([2**0.25, 2.0, 4.0]))
    @example([-2, -2, -1, 0, 3], 2**0.25)  # Pratt's point: without the ratio of 1 the p-value would rise here
    def test_larger_ratios_never_have_a_larger_p_value(self, exponents: list[int], factor: float) -> None:
        assert signed_rank_p_value(scaled(powers(exponents), factor)) <= signed_rank_p_value(powers(exponents))

    @given(steps)
    def test_swapping_the_sides_turns_the_test_around(self, exponents: list[int]) -> None:
        ratios, swapped = powers(exponents), powers([-exponent for exponent in exponents])
        assert signed_rank_p_value(ratios) + signed_rank_p_value(swapped) >= 1


class TestHolm:
    def test_by_hand(self) -> None:
        adjusted = holm_adjusted({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
        assert adjusted == pytest.approx({"d": 4 * 0.005, "a": 3 * 0.01, "c": 2 * 0.03, "b": 2 * 0.03})

    def test_at_the_ends(self) -> None:
        assert holm_adjusted({}) == {}
        assert holm_adjusted({"alone": 0.04}) == {"alone": 0.04}
        assert holm_adjusted({"a": 0.4, "b": 0.6}) == {"a": 0.8, "b": 0.8}
        assert holm_adjusted({"a": 0.7, "b": 0.9, "c": 1.0}) == {"a": 1, "b": 1, "c": 1}
        assert holm_adjusted({"a": 0.02, "b": 0.02}) == {"a": 0.04, "b": 0.04}

    @given(st.dictionaries(st.integers(0, 30).map(str), st.floats(0, 1), max_size=12), st.floats(0.001, 0.999))
    def test_rejects_what_stepping_down_rejects(self, p_values: dict[str, float], alpha: float) -> None:
        """Holm's own procedure: from the smallest on, reject while p < alpha / how many are left."""
        rejected = set()
        left = sorted(p_values, key=lambda name: p_values[name])
        while left and p_values[left[0]] * len(left) < alpha:
            rejected.add(left.pop(0))
        adjusted = holm_adjusted(p_values)
        assert {name for name, p_value in adjusted.items() if p_value < alpha} == rejected
        assert all(adjusted[name] >= p_value for name, p_value in p_values.items())


DISTINCT = [1.013, 0.987, 1.031, 1.002, 0.994, 1.047, 0.972, 1.019]


class TestRatioInterval:
    def test_is_made_of_the_order_statistics_that_tables_give(self) -> None:
        """Hollander and Wolfe, table A.6: P(U <= 2) = 0.0159 for five and five, so the third of 25 quotients on either side."""
        above, below = [2.0, 3.0, 5.0, 7.0, 11.0], [1.0, 1.3, 1.7, 1.9, 2.3]
        quotients = sorted(a / b for a in above for b in below)
        assert ratio_interval(above, below) == (quotients[2], quotients[-3])
        # Four and four: only the extremes, 1 / 70 on either side.
        quotients = sorted(a / b for a in above[:4] for b in below[:4])
        assert ratio_interval(above[:4], below[:4]) == (quotients[0], quotients[-1])
        assert ratio_interval(above, below, confidence=0.99) == (min(above) / max(below), max(above) / min(below))

    def test_there_is_none_for_few_values(self) -> None:
        assert ratio_interval([1.0, 1.1, 1.2], [1.0, 1.1, 1.2]) is None  # 1 / 20 on either side
        assert ratio_interval([1.0], [1.0] * 38) is None
        assert ratio_interval([1.0], [1.0] * 39) == (1.0, 1.0)
        assert ratio_interval([1.0] * 4, [1.0] * 4, confidence=0.99) is None

    @pytest.mark.parametrize(("first", "second"), [(5, 8), (8, 5), (3, 8), (8, 7)])
    def test_holds_what_the_test_would_not_reject(self, first: int, second: int) -> None:
        above, below = scaled(DISTINCT[:first], 1.1), [value**2 for value in DISTINCT[-second:]]
        interval = ratio_interval(above, below)
        assert interval is not None
        for end, other_side in ((interval[0], False), (interval[1], True)):
            for nudge in (1 - 1e-9, 1 + 1e-9):
                moved = scaled(above, 1 / (end * nudge))
                p_value = rank_sum_p_value(below, moved) if other_side else rank_sum_p_value(moved, below)
                inside = (nudge > 1) != other_side
                assert (p_value > 0.025) == inside

    @given(st.integers(-10, 10))
    def test_scales_with_its_values_and_inverts_when_they_swap(self, exponent: int) -> None:
        above, below = DISTINCT[:5], DISTINCT[3:]
        low, high = ratio_interval(above, below) or (0, 0)
        assert ratio_interval(scaled(above, 2.0**exponent), below) == (low * 2.0**exponent, high * 2.0**exponent)
        assert ratio_interval(below, above) == pytest.approx((1 / high, 1 / low))

    def test_covers_the_true_factor_as_often_as_it_says(self) -> None:
        """Five and five: exactly 1 - 2 * 4 / 252 of all intervals. Heavy tails make no difference to a rank test."""
        generator = numpy.random.default_rng(20)
        trials = 4000
        above = 1.25 * numpy.exp(0.05 * generator.standard_t(2, size=(trials, 5)))
        below = numpy.exp(0.05 * generator.standard_t(2, size=(trials, 5)))
        intervals = [ratio_interval(a, b) for a, b in zip(above.tolist(), below.tolist(), strict=True)]
        covered = sum(interval is not None and interval[0] <= 1.25 <= interval[1] for interval in intervals) / trials
        assert covered == pytest.approx(1 - 2 * 4 / 252, abs=4 * math.sqrt(0.032 * 0.968 / trials))


class TestCentreInterval:
    def walsh(self, ratios: list[float]) -> list[float]:
        pairs = itertools.combinations_with_replacement(ratios, 2)
        return sorted((one * other) ** 0.5 for one, other in pairs)

    def test_is_made_of_the_order_statistics_that_tables_give(self) -> None:
        """Hollander and Wolfe, table A.4: for ten, P(W <= 8) = 0.0244, so the ninth of 55 means on either side."""
        ratios = [*DISTINCT, 1.111, 0.9]
        means = self.walsh(ratios)
        assert len(means) == 55
        assert centre_interval(ratios) == pytest.approx((means[8], means[-9]))
        assert centre_interval(DISTINCT[:6]) == pytest.approx((min(DISTINCT[:6]), max(DISTINCT[:6])))
        assert centre_interval(DISTINCT, confidence=0.99) == pytest.approx((min(DISTINCT), max(DISTINCT)))  # 1 / 256 each

    def test_there_is_none_below_six(self) -> None:
        assert centre_interval(DISTINCT[:5]) is None
        assert centre_interval([1.0]) is None
        assert centre_interval(DISTINCT[:5], confidence=0.9) is not None

    @pytest.mark.parametrize("count", [6, 7, 8])
    def test_holds_what_the_test_would_not_reject(self, count: int) -> None:
        ratios = scaled(DISTINCT[:count], 1.07)
        interval = centre_interval(ratios)
        assert interval is not None
        for end, other_side in ((interval[0], False), (interval[1], True)):
            for nudge in (1 - 1e-9, 1 + 1e-9):
                moved = scaled(ratios, 1 / (end * nudge))
                p_value = signed_rank_p_value([1 / ratio for ratio in moved] if other_side else moved)
                inside = (nudge > 1) != other_side
                assert (p_value > 0.025) == inside

    @given(st.integers(-10, 10), st.permutations(DISTINCT))
    def test_scales_with_its_values_and_knows_no_order(self, exponent: int, shuffled: list[float]) -> None:
        low, high = centre_interval(DISTINCT) or (0, 0)
        assert centre_interval(scaled(shuffled, 4.0**exponent)) == pytest.approx((low * 4.0**exponent, high * 4.0**exponent))
        assert centre_interval([1 / ratio for ratio in shuffled]) == pytest.approx((1 / high, 1 / low))

    def test_covers_the_true_centre_as_often_as_it_says(self) -> None:
        """Ten: 1 - 2 * 25 / 1024 of all intervals."""
        generator = numpy.random.default_rng(21)
        trials = 3000
        ratios = 1.1 * numpy.exp(0.03 * generator.standard_t(2, size=(trials, 10)))
        intervals = [centre_interval(row) for row in ratios.tolist()]
        covered = sum(interval is not None and interval[0] <= 1.1 <= interval[1] for interval in intervals) / trials
        assert covered == pytest.approx(1 - 50 / 1024, abs=4 * math.sqrt(0.049 * 0.951 / trials))


@pytest.mark.parametrize("interval_of", [centre_interval, lambda ratios: ratio_interval(ratios, [1.0] * 8)])
def test_an_interval_holds_the_middle(interval_of: Callable[[list[float]], tuple[float, float] | None]) -> None:
    low, high = interval_of(DISTINCT) or (0, 0)
    assert low < median(DISTINCT) < high
