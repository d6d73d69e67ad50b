"""How two processes take turns. Real agents do so in tests/integration/test_paired_agents.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.paired_measuring import WARM_UP_ROUNDS, BlockPlan, ProcessPair, SideFailed, block_order, take_turns
from pytest_inference_gate.results import Replicate

seconds = st.floats(1e-7, 1e3)


class TestOrder:
    def test_a_b_b_a(self) -> None:
        assert block_order(0, 4) == [True, False, False, True, True, False, False, True]
        assert block_order(1, 4) == [False, True, True, False, False, True, True, False]
        assert block_order(0, 3) == [True, False, False, True, True, False]
        assert block_order(2, 4) == block_order(0, 4)

    @given(st.integers(0, 100), st.integers(1, 40))
    def test_is_balanced(self, number: int, pairs: int) -> None:
        order = block_order(number, pairs)
        assert len(order) == 2 * pairs
        assert all(order[2 * pair] is not order[2 * pair + 1] for pair in range(pairs))
        assert order == [not turn for turn in block_order(number + 1, pairs)]
        if pairs % 2 == 0:
            # Both sides have the same mean place, so that a steady drift meets them alike.
            places = {side: sum(place for place, turn in enumerate(order) if turn is side) for side in (True, False)}
            assert places[True] == places[False]

    @given(st.integers(0, 5), st.integers(1, 20))
    def test_blocks_at_one_index_are_neighbours(self, number: int, pairs: int) -> None:
        turns: list[bool] = []

        def measure_block(is_candidate: bool) -> list[float]:
            turns.append(is_candidate)
            return [float(len(turns))]

        taken = take_turns(measure_block, number, pairs)
        assert turns == block_order(number, pairs)
        assert len(taken[True]) == len(taken[False]) == pairs
        for place, (mine, other) in enumerate(zip(taken[True], taken[False], strict=True)):
            assert {*mine, *other} == {2 * place + 1, 2 * place + 2}
            assert turns[int(mine[0]) - 1]

    def test_a_steady_drift_cancels(self) -> None:
        """Everything gets slower by one percent with each block: A B alone would be off by one percent, A B B A is not."""
        clock = iter(range(64))
        taken = take_turns(lambda is_candidate: [1.01 ** next(clock)], 0, 16)
        ratios = tuple(mine[0] / other[0] for mine, other in zip(taken[True], taken[False], strict=True))
        assert {round(ratio, 4) for ratio in ratios} == {1.01, 0.9901}
        assert pair_of(ratios).ratio == pytest.approx(1)


def pair_of(ratios: tuple[float, ...]) -> ProcessPair:
    replicate = Replicate(load=0.1, first_inference=0.2, rounds=(0.01,))
    return ProcessPair(replicate, replicate, ratios, seconds=1.0)


class TestRatio:
    def test_is_the_median_of_the_blocks(self) -> None:
        assert pair_of((1.01, 1.5, 0.99)).ratio == pytest.approx(1.01)
        assert pair_of((1.0, 1.21, 0.5, 9.0)).ratio == pytest.approx(1.1)  # the geometric mean of the middle two

    @given(st.lists(st.floats(0.1, 10), min_size=1, max_size=32))
    def test_inverts_when_the_sides_swap(self, ratios: list[float]) -> None:
        swapped = tuple(1 / ratio for ratio in ratios)
        assert pair_of(swapped).ratio == pytest.approx(1 / pair_of(tuple(ratios)).ratio)


class TestBlocks:
    def test_of_a_usual_model_have_five_rounds(self) -> None:
        assert BlockPlan().rounds_of(0.01) == 5
        assert BlockPlan().rounds_of(0.002) == 5

    def test_of_a_fast_model_have_more_until_they_take_ten_milliseconds(self) -> None:
        assert BlockPlan().rounds_of(0.001) == 10
        assert BlockPlan().rounds_of(0.0003) == 34
        assert BlockPlan().rounds_of(1e-6) == 100  # and no more than that

    def test_of_a_slow_model_have_fewer_and_at_least_one(self) -> None:
        assert BlockPlan().rounds_of(0.03) == 3
        assert BlockPlan().rounds_of(0.06) == 1
        assert BlockPlan().rounds_of(30) == 1

    @given(seconds, seconds)
    def test_have_the_fewer_rounds_the_slower_the_model_is(self, one: float, other: float) -> None:
        plan = BlockPlan()
        assert plan.rounds_of(min(one, other)) >= plan.rounds_of(max(one, other))
        for each in (one, other):
            rounds = plan.rounds_of(each)
            assert 1 <= rounds <= plan.most_rounds
            assert rounds == 1 or rounds * each <= plan.longest * (1 + 1e-9)
            assert rounds == plan.most_rounds or (rounds + 1) * each > plan.shortest

    def test_spread_the_rounds_that_a_user_asked_for(self) -> None:
        assert BlockPlan.of(None) == BlockPlan()
        for rounds, each in ((1, 1), (16, 1), (17, 2), (50, 4), (5000, 313)):
            plan = BlockPlan.of(rounds)
            assert [plan.rounds_of(seconds) for seconds in (1e-6, 0.01, 30)] == [each] * 3
            assert plan.pairs * each >= rounds

    def test_come_after_a_warm_up_that_measures_little(self) -> None:
        assert WARM_UP_ROUNDS["minimum"] == WARM_UP_ROUNDS["maximum"] == 10
        assert math.isfinite(WARM_UP_ROUNDS["minimum_seconds"])


def test_a_failure_names_its_side() -> None:
    failure = SideFailed(Outcome("crash", "load", "the agent died"), candidate=False)
    assert not failure.candidate
    assert (failure.outcome.kind, str(failure)) == ("crash", "the agent died")
