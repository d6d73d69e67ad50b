from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from sklearn.metrics import top_k_accuracy_score

from pytest_inference_gate.accuracy import (
    AccuracyFigures,
    binomial_at_most,
    compare_predictions,
    judge_accuracy,
    mcnemar_p_value,
    mcnemar_p_value_two_sided,
    smallest_detectable_drop,
)
from pytest_inference_gate.errors import EvaluationDataError
from pytest_inference_gate.verdict import Verdict

Array = numpy.ndarray[Any, Any]

outputs_of_six_classes = hnp.arrays(
    numpy.float32, st.tuples(st.integers(1, 12), st.just(6)), elements=st.floats(-8, 8, width=16, allow_subnormal=False)
)


def one_hot(classes: list[int], count: int = 10) -> Array:
    return numpy.eye(count, dtype=numpy.float32)[classes]


def predictions(right: int, wrong: int) -> Array:
    """Outputs for samples whose label is 0 throughout: the first ``right`` are right."""
    return one_hot([0] * right + [1] * wrong)


def judged(reference_right: int, lost: int, won: int, n: int, **limits: float) -> tuple[Verdict, str]:
    """A candidate that loses and wins as many of the reference's samples as asked for, all labelled 0, judged."""
    reference = predictions(reference_right, n - reference_right)
    right = [True] * (reference_right - lost) + [False] * lost + [True] * won + [False] * (n - reference_right - won)
    candidate = one_hot([0 if flag else 1 for flag in right])
    figures = compare_predictions(candidate, numpy.zeros(n, dtype=int), reference)
    assert (figures.lost, figures.won) == (lost, won)
    decision = judge_accuracy(figures, **limits)
    return decision.verdict, decision.reason


class TestTests:
    @given(st.integers(0, 60), st.integers(0, 60))
    def test_mcnemar_equals_scipy(self, lost: int, won: int) -> None:
        if lost + won == 0:
            assert mcnemar_p_value(0, 0) == mcnemar_p_value_two_sided(0, 0) == 1
            return
        one_sided = stats.binomtest(lost, lost + won, 0.5, alternative="greater").pvalue
        assert mcnemar_p_value(lost, won) == pytest.approx(one_sided, rel=1e-9)
        two_sided = stats.binomtest(lost, lost + won, 0.5).pvalue
        assert mcnemar_p_value_two_sided(lost, won) == pytest.approx(two_sided, rel=1e-9)

    def test_mcnemar_of_a_large_set(self) -> None:
        expected = stats.binom.sf(2599, 5000, 0.5)
        assert mcnemar_p_value(2600, 2400) == pytest.approx(expected, rel=1e-9)

    @given(st.integers(1, 400), st.floats(0.01, 0.99), st.data())
    def test_binomial_equals_scipy(self, trials: int, share: float, data: st.DataObject) -> None:
        successes = data.draw(st.integers(0, trials))
        expected = stats.binom.cdf(successes, trials, share)
        assert binomial_at_most(successes, trials, share) == pytest.approx(expected, rel=1e-9, abs=1e-290)

    def test_binomial_at_its_ends(self) -> None:
        assert binomial_at_most(10, 10, 0.3) == 1
        assert binomial_at_most(9, 10, 1.0) == 0
        assert binomial_at_most(3, 10, 0.0) == 1
        assert binomial_at_most(48900, 50000, 0.98) == pytest.approx(stats.binom.cdf(48900, 50000, 0.98), rel=1e-7)

    @given(st.integers(1, 300), st.integers(0, 40), st.sampled_from([0.05, 0.01, 0.001]))
    def test_the_smallest_detectable_drop_is_significant_and_one_sample_less_is_not(self, n: int, won: int, alpha: float) -> None:
        drop = smallest_detectable_drop(n, won, alpha)
        if drop is None:
            assert won > n or mcnemar_p_value(n - won, won) >= alpha
            return
        lost = round(drop * n) + won
        assert lost + won <= n
        assert mcnemar_p_value(lost, won) < alpha
        assert mcnemar_p_value(lost - 1, won) >= alpha

    def test_with_nothing_won_seven_lost_samples_are_needed(self) -> None:
        assert smallest_detectable_drop(100, 0) == 0.07
        assert smallest_detectable_drop(6, 0) is None


class TestFigures:
    def test_top1_top5_drop(self) -> None:
        labels = numpy.array([0, 1, 2, 3])
        reference = one_hot([0, 1, 2, 9])
        candidate = one_hot([0, 1, 8, 3]) * 3
        candidate[2, 2] = 1
        figures = compare_predictions(candidate, labels, reference)
        assert (figures.n, figures.classes) == (4, 10)
        assert (figures.top1, figures.reference_top1, figures.drop) == (0.75, 0.75, 0)
        assert figures.top5 == 1
        assert (figures.lost, figures.won) == (1, 1)
        assert figures.agreement == 0.5
        assert figures.mcnemar_p == 0.75
        assert figures.mcnemar_p_two_sided == 1

    @given(hnp.arrays(numpy.float32, (9, 7), elements=st.floats(-4, 4, width=16), unique=True), st.data())
    def test_top1_and_top5_equal_scikit_learn(self, outputs: Array, data: st.DataObject) -> None:
        labels = numpy.array(data.draw(st.lists(st.integers(0, 6), min_size=9, max_size=9)))
        figures = compare_predictions(outputs, labels)
        assert figures.top1 == pytest.approx(top_k_accuracy_score(labels, outputs, k=1, labels=range(7)))
        assert figures.top5 == pytest.approx(top_k_accuracy_score(labels, outputs, k=5, labels=range(7)))

    def test_equal_outputs_go_to_the_lower_class(self) -> None:
        flat = numpy.zeros((3, 8), dtype=numpy.float32)
        figures = compare_predictions(flat, numpy.array([0, 4, 5]))
        assert figures.top1 == pytest.approx(1 / 3)
        assert figures.top5 == pytest.approx(2 / 3)

    def test_top5_of_few_classes_says_nothing(self) -> None:
        figures = compare_predictions(one_hot([0, 1], 5), numpy.array([0, 1]), one_hot([0, 1], 5))
        assert figures.top5 is None
        assert figures.agreement_top5 is None

    @given(outputs_of_six_classes, st.data())
    def test_identical_predictions(self, outputs: Array, data: st.DataObject) -> None:
        n = len(outputs)
        labels = numpy.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
        figures = compare_predictions(outputs, labels, outputs.copy())
        assert figures.drop == 0
        assert figures.mcnemar_p == figures.mcnemar_p_two_sided == 1
        assert figures.agreement == figures.agreement_top5 == 1
        assert figures.confidence_drift == figures.confidence_drift_signed == figures.kl == 0
        assert figures.cosine == pytest.approx(1)
        assert judge_accuracy(figures, top1_drop=0.0).verdict is Verdict.PASS

    @given(outputs_of_six_classes, st.data())
    def test_ranges(self, reference: Array, data: st.DataObject) -> None:
        candidate = data.draw(hnp.arrays(numpy.float32, reference.shape, elements=st.floats(-8, 8, width=16)))
        labels = numpy.array(data.draw(st.lists(st.integers(0, 5), min_size=len(reference), max_size=len(reference))))
        figures = compare_predictions(candidate, labels, reference)
        for share in (
            figures.top1,
            figures.top5,
            figures.agreement,
            figures.agreement_top5,
            figures.mcnemar_p,
            figures.confidence_drift,
        ):
            assert share is not None
            assert 0 <= share <= 1
        assert figures.drop is not None
        assert figures.reference_top1 is not None
        assert figures.top1 is not None
        assert figures.drop == pytest.approx(figures.reference_top1 - figures.top1)
        assert figures.cosine is not None
        assert -1 <= figures.cosine <= 1
        assert figures.kl is not None
        assert figures.kl >= 0
        assert figures.confidence_drift is not None
        assert figures.confidence_drift_signed is not None
        assert abs(figures.confidence_drift_signed) <= figures.confidence_drift + 1e-12

    @given(outputs_of_six_classes, st.data())
    def test_the_order_of_the_samples_changes_nothing(self, reference: Array, data: st.DataObject) -> None:
        n = len(reference)
        candidate = data.draw(hnp.arrays(numpy.float32, reference.shape, elements=st.floats(-8, 8, width=16)))
        labels = numpy.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
        order = numpy.array(data.draw(st.permutations(range(n))))
        assert compare_predictions(candidate[order], labels[order], reference[order]) == compare_predictions(
            candidate, labels, reference
        )

    def test_logits_go_through_a_softmax(self) -> None:
        random = numpy.random.default_rng(7)
        before, after = random.normal(size=(2, 50, 8)).astype(numpy.float32) * 3
        figures = compare_predictions(after, None, before)
        p, q = special.softmax(before.astype(float), axis=1), special.softmax(after.astype(float), axis=1)
        named = before.argmax(axis=1)
        moved = q[range(50), named] - p[range(50), named]
        assert figures.kl == pytest.approx(stats.entropy(p, q, axis=1).mean(), rel=1e-4)
        assert figures.confidence_drift == pytest.approx(abs(moved).mean(), rel=1e-4)
        assert figures.confidence_drift_signed == pytest.approx(moved.mean(), rel=1e-4)
        norms = numpy.linalg.norm(before, axis=1) * numpy.linalg.norm(after, axis=1)
        assert figures.cosine == pytest.approx(((before * after).sum(axis=1) / norms).mean(), rel=1e-5)

    def test_probabilities_do_not_go_through_a_softmax_again(self) -> None:
        before = numpy.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=numpy.float32)
        after = numpy.array([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]], dtype=numpy.float32)
        figures = compare_predictions(after, None, before)
        assert figures.kl == pytest.approx(stats.entropy(before, after, axis=1).mean(), rel=1e-4)
        assert figures.confidence_drift == pytest.approx(0.15)
        assert figures.confidence_drift_signed == pytest.approx(-0.15)

    def test_quantized_probabilities_that_do_not_add_up_are_scaled(self) -> None:
        before = numpy.full((4, 512), 1 / 512, dtype=numpy.float32)
        before[:, 3] += 0.4
        before /= before.sum(axis=1, keepdims=True)
        after = numpy.round(before * 256) / 256  # what an int8 output with scale 1/256 says: all but one are zero
        assert after.sum(axis=1).max() < 0.5
        figures = compare_predictions(after, None, before)
        assert figures.agreement == 1
        assert figures.kl is not None
        assert math.isfinite(figures.kl)

    def test_more_rows_than_are_worked_on_at_once(self) -> None:
        random = numpy.random.default_rng(3)
        before = random.normal(size=(5000, 6)).astype(numpy.float32)
        after = before + random.normal(size=before.shape).astype(numpy.float32) / 4
        labels = random.integers(0, 6, 5000)
        figures = compare_predictions(after, labels, before)
        assert figures.agreement == (before.argmax(axis=1) == after.argmax(axis=1)).mean()
        assert figures.top1 == (after.argmax(axis=1) == labels).mean()
        halves = [compare_predictions(after[half], labels[half], before[half]) for half in (slice(2500), slice(2500, None))]
        for name in ("cosine", "kl", "confidence_drift", "top5"):
            assert getattr(figures, name) == pytest.approx(sum(getattr(half, name) for half in halves) / 2)

    def test_nan_and_infinity_are_wrong_and_agree_with_nothing(self) -> None:
        reference = one_hot([0, 1, 2])
        candidate = reference.copy()
        candidate[1, 7] = numpy.nan
        candidate[2, 2] = numpy.inf
        figures = compare_predictions(candidate, numpy.array([0, 1, 2]), reference)
        assert figures.nan_count == 2
        assert figures.top1 == figures.agreement == pytest.approx(1 / 3)
        assert figures.top5 == pytest.approx(1 / 3)
        assert figures.lost == 2
        assert figures.cosine == 1
        decision = judge_accuracy(figures, top1_drop=1.0)
        assert decision.verdict is Verdict.INACCURATE
        assert "2 of 3 samples hold NaN or infinity" in decision.reason

    def test_nothing_but_nan_leaves_no_figure_that_is_nan(self) -> None:
        candidate = numpy.full((3, 4), numpy.nan, dtype=numpy.float32)
        figures = compare_predictions(candidate, None, one_hot([0, 1, 2], 4))
        assert figures.cosine is figures.kl is figures.confidence_drift is None
        assert not any(isinstance(value, float) and math.isnan(value) for value in asdict(figures).values())

    def test_huge_outputs_do_not_overflow(self) -> None:
        huge = one_hot([0, 1]) * numpy.float32(3e38)
        figures = compare_predictions(huge, None, huge)
        assert figures.cosine == 1
        assert figures.kl == 0

    def test_zero_outputs_have_a_direction_of_their_own(self) -> None:
        zero = numpy.zeros((1, 3), dtype=numpy.float32)
        assert compare_predictions(zero, None, zero).cosine == 1
        assert compare_predictions(zero, None, one_hot([1], 3)).cosine == 0

    def test_without_a_reference_there_is_no_drop(self) -> None:
        figures = compare_predictions(one_hot([0, 1]), [0, 0])
        assert figures.top1 == 0.5
        assert figures.drop is figures.agreement is figures.mcnemar_p is figures.cosine is None

    def test_a_label_outside_the_model_names_the_offset(self) -> None:
        with pytest.raises(
            EvaluationDataError, match=r"the label 10, but the model's classes are 0 to 9: check .*labels\.offset"
        ):
            compare_predictions(one_hot([0, 1]), [0, 10])
        with pytest.raises(EvaluationDataError, match="the label -1"):
            compare_predictions(one_hot([0, 1]), [0, -1])

    @pytest.mark.parametrize(
        ("outputs", "labels", "reference", "message"),
        [
            (numpy.zeros(3, numpy.float32), None, None, r"shape \(3,\)"),
            (numpy.zeros((3, 1), numpy.float32), None, None, "two classes"),
            (numpy.zeros((0, 3), numpy.float32), None, None, r"shape \(0, 3\)"),
            (numpy.zeros((3, 4), numpy.int8), None, None, "int8: they must be floating point"),
            (numpy.zeros((3, 4), numpy.float32), numpy.zeros(2, int), None, r"labels of the shape \(2,\) for 3 samples"),
            (numpy.zeros((3, 4), numpy.float32), numpy.zeros(3), None, "labels are float64"),
            (
                numpy.zeros((3, 4), numpy.float32),
                None,
                numpy.zeros((3, 5), numpy.float32),
                r"\(3, 4\) and the reference's \(3, 5\)",
            ),
        ],
    )
    def test_shapes_that_do_not_fit(self, outputs: Array, labels: Array | None, reference: Array | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            compare_predictions(outputs, labels, reference)


class TestJudgement:
    def test_a_drop_beyond_tolerance_and_significant(self) -> None:
        verdict, reason = judged(reference_right=900, lost=40, won=10, n=1000, top1_drop=0.01)
        assert verdict is Verdict.INACCURATE
        assert "a drop of 3.00 points, beyond the tolerance of 1.00" in reason
        assert "40 lost, 10 won" in reason

    def test_a_drop_beyond_tolerance_that_may_be_chance(self) -> None:
        verdict, reason = judged(reference_right=45, lost=3, won=1, n=50, top1_drop=0.01)
        assert verdict is Verdict.INCONCLUSIVE
        assert "it may be chance" in reason
        # One sample is won: 10 lost of 11 have p = 0.006, 9 of 10 have 0.011, so the drop must be 9 of 50.
        assert "50 samples can show a drop of 18.00 points at the smallest" in reason

    def test_a_significant_drop_within_tolerance(self) -> None:
        verdict, _ = judged(reference_right=900, lost=20, won=0, n=1000, top1_drop=0.02)
        assert verdict is Verdict.PASS

    def test_the_tolerance_itself_is_within(self) -> None:
        assert judged(reference_right=290, lost=3, won=0, n=300, top1_drop=0.01)[0] is Verdict.PASS
        assert judged(reference_right=290, lost=9, won=0, n=300, top1_drop=0.03)[0] is Verdict.PASS
        assert judged(reference_right=290, lost=10, won=0, n=300, top1_drop=0.03)[0] is Verdict.INACCURATE

    def test_better_than_the_reference(self) -> None:
        assert judged(reference_right=800, lost=0, won=100, n=1000, top1_drop=0.0)[0] is Verdict.PASS

    def test_a_set_too_small_to_see_the_tolerance_says_so(self) -> None:
        verdict, reason = judged(reference_right=45, lost=0, won=0, n=50, top1_drop=0.01)
        assert verdict is Verdict.PASS
        assert "but 50 samples can show a drop of 14.00 points at the smallest" in reason
        verdict, reason = judged(reference_right=5, lost=0, won=0, n=5, top1_drop=0.01)
        assert verdict is Verdict.PASS
        assert "5 samples are too few to show any drop" in reason
        assert "can show" not in judged(reference_right=900, lost=0, won=0, n=1000, top1_drop=0.01)[1]

    @pytest.mark.parametrize(
        ("agreed", "n", "verdict"),
        [
            (990, 1000, "pass"),
            (980, 1000, "pass"),
            (978, 1000, "inconclusive"),
            (960, 1000, "inaccurate"),
            (47, 50, "inconclusive"),
        ],
    )
    def test_agreement_without_labels(self, agreed: int, n: int, verdict: str) -> None:
        figures = compare_predictions(predictions(agreed, n - agreed), None, predictions(n, 0))
        decision = judge_accuracy(figures, agreement=0.98)
        assert decision.verdict == verdict
        assert decision.p_value == pytest.approx(stats.binom.cdf(agreed, n, 0.98))
        assert f"for {agreed / n:.1%} of {n} samples" in decision.reason

    def test_agreement_that_is_not_asked_for_is_only_reported(self) -> None:
        figures = compare_predictions(predictions(1, 99), None, predictions(100, 0))
        decision = judge_accuracy(figures)
        assert decision.verdict is Verdict.PASS
        assert "1.0% of 100 samples; the card sets no agreement to reach" in decision.reason

    def test_a_single_sample_cannot_show_that_agreement_is_too_low(self) -> None:
        figures = compare_predictions(predictions(1, 0), None, predictions(1, 0))
        assert "too few" in judge_accuracy(figures, agreement=0.98).reason

    def test_a_float_model_that_misses_what_its_card_says(self) -> None:
        figures = compare_predictions(predictions(610, 390), numpy.zeros(1000, int))
        decision = judge_accuracy(figures, expected_top1=0.76)
        assert decision.verdict is Verdict.INACCURATE
        assert "reaches a top-1 of 61.0% on 1000 samples, where its card expects 76.0%" in decision.reason
        assert "preprocessing" in decision.reason
        assert judge_accuracy(figures, expected_top1=0.615).verdict is Verdict.PASS
        # 0.76 - 0.75 is a little more than 0.01 in floating point, but not to whoever wrote these numbers.
        close = compare_predictions(predictions(75, 25), numpy.zeros(100, int))
        assert judge_accuracy(close, expected_top1=0.76, top1_drop=0.01).verdict is Verdict.PASS
        few = compare_predictions(predictions(6, 4), numpy.zeros(10, int))
        assert judge_accuracy(few, expected_top1=0.76).verdict is Verdict.INCONCLUSIVE

    def test_a_wrong_float_model_is_seen_through_a_candidate_that_equals_it(self) -> None:
        outputs = predictions(610, 390)
        figures = compare_predictions(outputs, numpy.zeros(1000, int), outputs)
        assert judge_accuracy(figures).verdict is Verdict.PASS
        assert judge_accuracy(figures, expected_top1=0.76).verdict is Verdict.INACCURATE

    def test_a_reference_with_nan_is_no_reference(self) -> None:
        reference = one_hot([0, 1])
        reference[0, 0] = numpy.nan
        decision = judge_accuracy(compare_predictions(one_hot([0, 1]), None, reference))
        assert decision.verdict is Verdict.INACCURATE
        assert "the float reference itself" in decision.reason

    def test_nothing_to_judge_by(self) -> None:
        decision = judge_accuracy(compare_predictions(one_hot([0, 1])))
        assert decision.verdict is Verdict.PASS
        assert "checked only that the outputs for 2 samples are finite" in decision.reason

    @settings(max_examples=50)
    @given(st.integers(20, 200), st.data())
    def test_losing_one_more_sample_never_improves_the_verdict(self, n: int, data: st.DataObject) -> None:
        won = data.draw(st.integers(0, 5))
        lost = data.draw(st.integers(0, n - 10))
        order = ["pass", "inconclusive", "inaccurate"]
        before, _ = judged(reference_right=n - 6, lost=min(lost, n - 8), won=won, n=n)
        after, _ = judged(reference_right=n - 6, lost=min(lost, n - 8) + 1, won=won, n=n)
        assert order.index(after) >= order.index(before)


def test_figures_compare_equal_by_value() -> None:
    outputs = one_hot([1, 2, 3])
    first = compare_predictions(outputs, [1, 2, 3], outputs)
    assert isinstance(first, AccuracyFigures)
    assert first == compare_predictions(outputs, [1, 2, 3], outputs)
