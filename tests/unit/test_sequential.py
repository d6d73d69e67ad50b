"""When measuring ends. The rule is driven as the gate drives it: value by value, as it asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_inference_gate.rank_tests import signed_rank_p_value
from pytest_inference_gate.sequential import EARLIEST, MOST, Standing, as_many, change_of, fewest_for_a_change, standing

TOLERANCE = 0.05


class Rule(NamedTuple):
    """The parameters that a gate fixes."""

    first: int
    look_again_from: float
    threshold: float = TOLERANCE
    alpha: float = 0.01

    def of(self, values: Sequence[float], *, final: bool = False, significant: bool | None = None) -> Standing:
        """What the values amount to, by the signed-rank test unless it is said what is ``significant``."""
        typical = median(values)

        def by_rank() -> bool:
            return signed_rank_p_value(values if typical >= 1 else [1 / value for value in values]) < self.alpha

        return standing(
            len(values),
            lambda start, end: median(values[start:end]),
            tolerance=TOLERANCE,
            threshold=self.threshold,
            significant=by_rank if significant is None else lambda: significant,
            first=self.first,
            look_again_from=self.look_again_from,
            final=final,
        )

    def drive(self, stream: Iterable[float]) -> tuple[Standing, list[float]]:
        """Take values from the stream as they are wanted."""
        source: Iterator[float] = iter(stream)
        values = [next(source) for _ in range(min(EARLIEST, self.first))]
        while (where := self.of(values)).wanted:
            values += [next(source) for _ in range(where.wanted)]
        return where, values


PAIRED = Rule(first=5, look_again_from=TOLERANCE / 2)
STORED = Rule(first=5, look_again_from=float("inf"))
NOISY = Rule(first=5, look_again_from=float("inf"), threshold=0.08)

rules = st.builds(
    Rule,
    st.integers(1, 6),
    st.sampled_from([TOLERANCE / 2, float("inf")]),
    st.sampled_from([TOLERANCE, 0.08]),
    st.sampled_from([0.01, 0.2]),
)
# Around all that matters: within half the threshold, within the threshold, beyond it, on both sides; on a grid, so that there are ties.
ratios = st.one_of(st.integers(90, 112).map(lambda percent: percent / 100), st.floats(0.5, 2))
sequences = st.lists(ratios, min_size=1, max_size=30)


class TestFirstValues:
    def test_three_that_are_near_end_it(self) -> None:
        assert PAIRED.of([1.02, 0.98, 1.0]) == Standing("unchanged", "first")
        assert PAIRED.drive([1.02, 0.98, 1.0])[1] == [1.02, 0.98, 1.0]

    def test_fewer_are_never_enough(self) -> None:
        assert PAIRED.of([1.0]) == Standing("unclear", "first", 2)
        assert PAIRED.of([1.0, 1.0]) == Standing("unclear", "first", 1)
        assert Rule(1, float("inf")).of([1.0]) == Standing("unchanged", "first")

    @pytest.mark.parametrize("off", [1.026, 0.974, 1.4, 0.5])
    def test_one_that_is_not_near_asks_for_all_first_values(self, off: float) -> None:
        assert PAIRED.of([1.0, off, 1.0]) == Standing("unclear", "first", 2)
        assert PAIRED.of([1.0, off, 1.0, 1.0]) == Standing("unclear", "first", 1)
        assert PAIRED.of([1.0, off, 1.0, 1.0, 1.0]) == Standing("unchanged", "first")

    def test_what_looks_different_is_measured_afresh(self) -> None:
        assert PAIRED.of([1.06] * 5) == Standing("unclear", "first", 5)
        assert PAIRED.of([0.94] * 5) == Standing("unclear", "first", 5)
        assert PAIRED.of([1.049] * 5, final=True) == Standing("unchanged", "first")
        assert PAIRED.of([1.06] * 5, final=True) == Standing("unclear", "budget")

    def test_what_is_slower_just_within_the_threshold_is_looked_at_again_where_the_gate_wants_it(self) -> None:
        assert PAIRED.of([1.03] * 5) == Standing("unclear", "first", 5)
        assert PAIRED.of([1.025] * 5) == Standing("unchanged", "first")
        assert PAIRED.of([0.97] * 5) == Standing("unchanged", "first")
        assert STORED.of([1.03] * 5) == Standing("unchanged", "first")

    def test_with_no_more_to_come_the_first_values_alone_are_judged(self) -> None:
        assert PAIRED.of([1.03] * 5, final=True) == Standing("unchanged", "first")
        assert PAIRED.of([1.2], final=True) == Standing("unclear", "budget")
        assert PAIRED.of([1.04], final=True) == Standing("unchanged", "first")


class TestFreshValues:
    def test_what_shows_again_has_changed(self) -> None:
        assert PAIRED.drive([1.1] * 10) == (Standing("changed", "confirmed"), [1.1] * 10)
        assert PAIRED.drive([0.9] * 10) == (Standing("changed", "confirmed"), [0.9] * 10)
        assert NOISY.drive([1.1] * 10) == (Standing("changed", "confirmed"), [1.1] * 10)

    def test_what_does_not_was_a_disturbance(self) -> None:
        assert PAIRED.drive([1.4] * 5 + [1.0] * 5) == (Standing("unchanged", "unconfirmed"), [1.4] * 5 + [1.0] * 5)
        assert PAIRED.drive([1.4] * 5 + [1.049] * 10)[0] == Standing("unchanged", "unconfirmed")

    def test_nor_has_what_shows_again_in_the_other_direction(self) -> None:
        assert PAIRED.drive([1.4] * 5 + [0.7] * 5)[0] == Standing("unchanged", "unconfirmed")
        assert STORED.drive([0.7] * 5 + [1.4] * 5)[0] == Standing("unchanged", "unconfirmed")

    def test_fresh_ones_that_do_not_quite_show_it_are_looked_at_once_more(self) -> None:
        assert PAIRED.of([1.1] * 5 + [1.02] * 5) == Standing("unchanged", "unconfirmed")
        assert PAIRED.of([1.1] * 5 + [1.04] * 5) == Standing("unclear", "first", 5)
        assert PAIRED.of([1.1] * 5 + [1.04] * 10) == Standing("unchanged", "unconfirmed")
        assert PAIRED.of([1.1] * 5 + [1.04] * 5, final=True) == Standing("unchanged", "unconfirmed")

    @pytest.mark.parametrize("first", [1.07, 1.2])
    @pytest.mark.parametrize("fresh", [1.07, 1.2])
    def test_between_tolerance_and_threshold_it_stays_unclear(self, first: float, fresh: float) -> None:
        """More values make the baseline's noise no smaller, so that it ends before all that may be taken are."""
        where, values = NOISY.drive([first] * 5 + [fresh] * 10)
        if first == fresh == 1.2:
            assert (where, len(values)) == (Standing("changed", "confirmed"), 10)
        else:
            assert (where, len(values)) == (Standing("unclear", "budget"), 15)

    def test_what_was_looked_at_again_needs_all_values_beyond_the_threshold(self) -> None:
        assert PAIRED.drive([1.04] * 5 + [1.1] * 5)[0] == Standing("changed", "confirmed")  # 1.07 all together
        assert PAIRED.drive([1.03] * 5 + [1.06] * 5)[0] == Standing("unchanged", "unconfirmed")  # 1.045
        assert PAIRED.drive([1.03] * 5 + [1.049] * 5)[0] == Standing("unchanged", "first")

    def test_what_may_be_faster_is_not_looked_at_again(self) -> None:
        for final in (False, True):
            assert PAIRED.of([0.98] * 5 + [0.9] * 5, final=final) == Standing("unchanged", "unconfirmed")

    def test_without_significance_it_goes_on_and_ends_unclear(self) -> None:
        unsteady = [1.2, 0.8, 1.2, 0.85, 1.2] * MOST
        assert PAIRED.of(unsteady[:10]) == Standing("unclear", "first", 5)
        assert PAIRED.drive(unsteady) == (Standing("unclear", "budget"), unsteady)

    def test_significance_may_come_with_more_values(self) -> None:
        where, values = PAIRED.drive([1.2, 1.2, 0.8, 1.2, 1.2] + [1.2] * 5 + [1.21] * 15)
        assert where == Standing("changed", "confirmed")
        assert len(values) == 15


class TestProperties:
    @given(rules, st.lists(ratios, min_size=MOST * 6, max_size=MOST * 6))
    def test_it_ends_after_at_most_five_times_the_first_values(self, rule: Rule, stream: list[float]) -> None:
        where, values = rule.drive(stream)
        assert min(EARLIEST, rule.first) <= len(values) <= MOST * rule.first
        assert (where.state == "unclear") == (where.stage == "budget")
        if where.state == "unclear":
            assert len(values) == MOST * rule.first or (rule.threshold > TOLERANCE and len(values) >= 3 * rule.first)

    @given(rules, sequences, st.booleans())
    def test_a_final_answer_wants_no_more(self, rule: Rule, values: list[float], significant: bool) -> None:
        assert rule.of(values, final=True, significant=significant).wanted == 0

    @given(rules, sequences, st.booleans())
    def test_only_what_is_unclear_wants_more_and_never_more_than_the_first_values(
        self, rule: Rule, values: list[float], significant: bool
    ) -> None:
        where = rule.of(values, significant=significant)
        assert 0 <= where.wanted <= rule.first
        if where.wanted:
            assert where.state == "unclear"

    @given(rules, st.lists(ratios, min_size=MOST * 6, max_size=MOST * 6))
    def test_what_ended_by_itself_is_what_is_said_in_the_end(self, rule: Rule, stream: list[float]) -> None:
        where, values = rule.drive(stream)
        final = rule.of(values, final=True)
        assert (final.state, final.stage) == (where.state, where.stage)

    @given(rules, sequences, st.booleans(), st.booleans())
    def test_changed_needs_fresh_values_that_show_it_by_themselves(
        self, rule: Rule, values: list[float], significant: bool, final: bool
    ) -> None:
        where = rule.of(values, final=final, significant=significant)
        assert (where.state == "changed") == (where.stage == "confirmed")
        if where.state == "changed":
            fresh = values[rule.first :]
            assert len(fresh) >= rule.first
            assert significant
            assert change_of(median(fresh)) > rule.threshold
            seemed = median(values[: rule.first])
            assert (median(fresh) > 1) == (seemed > 1)
            if change_of(seemed) <= rule.threshold:
                assert rule.threshold == TOLERANCE
                assert median(values) > 1 and change_of(median(values)) > TOLERANCE

    @given(rules, sequences, st.booleans(), st.randoms(use_true_random=False))
    def test_order_matters_only_between_first_and_fresh(
        self, rule: Rule, values: list[float], final: bool, random: object
    ) -> None:
        first, fresh = values[: rule.first], values[rule.first :]
        random.shuffle(first)  # type: ignore[attr-defined]
        random.shuffle(fresh)  # type: ignore[attr-defined]
        assert rule.of(first + fresh, final=final) == rule.of(values, final=final)

    @given(rules, sequences, st.one_of(st.sampled_from([1.01, 1.05, 1.25]), st.floats(1, 3)))
    @example(NOISY, [1.04] * 5 + [1.2] * 6, 1.02)
    def test_getting_slower_never_improves_the_final_answer(self, rule: Rule, values: list[float], factor: float) -> None:
        slowed = [value * factor for value in values]
        assert self.badness(rule, slowed) >= self.badness(rule, values)

    def badness(self, rule: Rule, values: list[float]) -> int:
        state = rule.of(values, final=True).state
        if median(values) > 1:
            return {"unchanged": 1, "unclear": 2, "changed": 3}[state]
        return 0 if state == "changed" else 1


class TestPlanning:
    def test_the_fewest_are_the_first_and_the_fresh_ones(self) -> None:
        assert fewest_for_a_change(5, lambda count: True) == 10

    def test_and_more_where_the_test_cannot_speak_yet(self) -> None:
        assert fewest_for_a_change(3, lambda count: 0.5**count < 0.01) == 7
        assert fewest_for_a_change(1, lambda count: 0.5**count < 0.01) == MOST

    @given(st.integers(1, 6), st.integers(1, 40))
    def test_never_more_than_are_ever_taken(self, first: int, needed: int) -> None:
        assert 2 * first <= fewest_for_a_change(first, lambda count: count >= needed) <= MOST * first

    def test_as_many_goes_round(self) -> None:
        assert as_many([1.0, 2.0, 3.0], 7) == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]
        assert as_many([1.0, 2.0], 1) == [1.0, 2.0]


def test_a_change_is_as_far_as_its_inverse() -> None:
    assert change_of(1.25) == change_of(0.8) == pytest.approx(0.25)
    assert change_of(1.0) == 0
