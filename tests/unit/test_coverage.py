"""Coverage: what is believed of a backend, and when less on the accelerator is a fall-back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_inference_gate.coverage import (
    MOST_OPERATIONS,
    OFF_CHIP_TOLERANCE,
    Coverage,
    CoverageDemand,
    MalformedCoverage,
    OperationElsewhere,
    coverage_notices,
    fallen_back,
    judge_coverage,
    least_covered,
    parse_coverage,
    told_by_runtime,
)
from pytest_inference_gate.verdict import Verdict

COUNTS = st.integers(0, 10**6)
PERHAPS = st.none() | COUNTS
EDGE_TPU = st.just("edgetpu")
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30)


@st.composite
def coverages(draw: st.DrawFn, accelerators: st.SearchStrategy[str] = EDGE_TPU) -> Coverage:
    on, elsewhere = draw(st.tuples(COUNTS, COUNTS).filter(any))
    named: list[OperationElsewhere] = []
    for _ in range(draw(st.integers(0, 4))):
        count = draw(st.integers(0, elsewhere - sum(one.count for one in named)))
        named.append(OperationElsewhere(draw(TEXTS), count, draw(st.just("") | TEXTS)))
    named.sort(key=lambda one: -one.count)
    return Coverage(draw(accelerators), on, elsewhere, draw(PERHAPS), draw(PERHAPS), tuple(named), draw(PERHAPS), draw(TEXTS))


def told(**changes: Any) -> dict[str, Any]:
    return {**Coverage("edgetpu", 70, 2, source="edgetpu_compiler 16.0").as_dict(), **changes}


class TestParsing:
    @given(coverages(TEXTS))
    def test_what_is_written_is_read_back(self, coverage: Coverage) -> None:
        assert parse_coverage(json.loads(json.dumps(coverage.as_dict()))) == coverage

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*told(), "operation", "count", "reason"]), inner),
        )
    )
    def test_anything_else_is_a_sentence_and_never_a_coverage(self, document: Any) -> None:
        try:
            coverage = parse_coverage(document)
        except MalformedCoverage as problem:
            sentence = str(problem)
        else:
            assert 0 <= coverage.share <= 1
            return
        assert "\n" not in sentence

    @given(st.sampled_from(list(told())), st.none() | st.booleans() | st.integers(max_value=-1) | st.floats() | st.just([1]))
    def test_one_bad_value_spoils_it(self, key: str, value: Any) -> None:
        optional = ("parts", "off_chip_bytes", "native_segments", "elsewhere_by_operation")
        assume(value is not None or key not in optional)
        with pytest.raises(MalformedCoverage, match=key):
            parse_coverage(told(**{key: value}))

    @pytest.mark.parametrize(
        ("document", "words"),
        [
            (None, "is None instead of an object"),
            ([1, 2], r"is \[1, 2\] instead of an object"),
            (told(on_accelerator=0, elsewhere=0), "counts no operation at all"),
            (told(on_accelerator="70"), "has '70' as on_accelerator instead of a whole number"),
            (told(source=" \n"), "as source instead of a text"),
            (told(elsewhere_by_operation={"QUANTIZE": 2}), "as elsewhere_by_operation instead of a list"),
            (told(elsewhere_by_operation=["QUANTIZE"]), "has 'QUANTIZE' in elsewhere_by_operation instead of an object"),
            (told(elsewhere_by_operation=[{"operation": "MEAN", "count": 3}]), "names 3 operations .* but counts 2 elsewhere"),
        ],
    )
    def test_the_sentence_names_what_is_wrong(self, document: Any, words: str) -> None:
        with pytest.raises(MalformedCoverage, match=words):
            parse_coverage(document)

    def test_texts_become_one_short_line_and_lists_end(self) -> None:
        many = [{"operation": f"OP {number}\x1b[31m\n", "count": number % 3, "reason": "x" * 999} for number in range(80)]
        coverage = parse_coverage(told(elsewhere=1000, elsewhere_by_operation=many))
        assert len(coverage.elsewhere_by_operation) == MOST_OPERATIONS
        assert coverage.elsewhere_by_operation[0].count == 2
        assert all(one.operation.isprintable() and len(one.reason) <= 200 for one in coverage.elsewhere_by_operation)

    def test_keys_of_a_later_version_are_left_alone(self) -> None:
        assert parse_coverage(told(segments=[1])) == parse_coverage(told())


class TestAgainstTheBaseline:
    @given(coverages())
    def test_the_same_passes(self, coverage: Coverage) -> None:
        assert judge_coverage(coverage, [coverage]).verdict is Verdict.PASS
        assert judge_coverage(coverage, [None, coverage, None]).verdict is Verdict.PASS
        assert judge_coverage(coverage, []).verdict is judge_coverage(coverage, [None]).verdict is Verdict.PASS

    @given(coverages(), coverages())
    def test_of_two_that_differ_elsewhere_only_one_direction_may_pass(self, one: Coverage, other: Coverage) -> None:
        assume(one.elsewhere != other.elsewhere)
        less, more = sorted((one, other), key=lambda coverage: -coverage.elsewhere)
        assert judge_coverage(less, [more]).verdict is Verdict.FALLBACK

    @given(coverages(), st.integers(1, 100))
    def test_operations_that_were_fused_fell_back_nowhere(self, before: Coverage, fused: int) -> None:
        assume(before.on_accelerator > 1)
        now = replace(before, on_accelerator=max(1, before.on_accelerator - fused))
        decision = judge_coverage(now, [before])
        assert decision.verdict is Verdict.PASS
        assert "fewer of them, and no more elsewhere" in decision.reason
        gone = judge_coverage(replace(before, on_accelerator=0, elsewhere=max(1, before.elsewhere)), [before])
        assert gone.verdict is Verdict.FALLBACK

    @given(coverages(), st.integers(1, 100))
    def test_each_operation_that_moves_away_is_red(self, before: Coverage, moved: int) -> None:
        assume(before.on_accelerator)
        moved = min(moved, before.on_accelerator)
        now = replace(before, on_accelerator=before.on_accelerator - moved, elsewhere=before.elsewhere + moved)
        decision = judge_coverage(now, [before])
        assert decision.verdict is Verdict.FALLBACK
        assert f"{now.on_accelerator} of {now.operations}" in decision.reason
        back = judge_coverage(before, [now])
        assert back.verdict is Verdict.PASS
        assert "more than in the baseline" in back.reason
        assert back.remarks == (back.reason,)

    @given(coverages(), st.integers(1, 100))
    def test_operations_that_appear_elsewhere_are_red_at_a_better_share_too(self, before: Coverage, added: int) -> None:
        now = replace(before, on_accelerator=before.on_accelerator * 3 + 1000, elsewhere=before.elsewhere + added)
        assert judge_coverage(now, [before]).verdict is Verdict.FALLBACK

    @given(coverages(), st.integers(1, 10**6))
    def test_bytes_off_the_chip(self, before: Coverage, kept: int) -> None:
        before = replace(before, off_chip_bytes=kept)
        within = replace(before, off_chip_bytes=int(kept * (1 + OFF_CHIP_TOLERANCE)))
        beyond = replace(before, off_chip_bytes=int(kept * (1 + OFF_CHIP_TOLERANCE)) + 1)
        assert judge_coverage(within, [before]).verdict is Verdict.PASS
        assert judge_coverage(beyond, [before]).verdict is Verdict.FALLBACK
        assert judge_coverage(replace(before, off_chip_bytes=None), [before]).verdict is Verdict.FALLBACK
        # What fitted wholly, fits no more.
        assert judge_coverage(replace(before, off_chip_bytes=1), [replace(before, off_chip_bytes=0)]).verdict is Verdict.FALLBACK

    @given(coverages(), st.integers(0, 100))
    def test_native_segments(self, before: Coverage, segments: int) -> None:
        before = replace(before, native_segments=segments)
        decision = judge_coverage(replace(before, native_segments=segments + 1), [before])
        assert decision.verdict is Verdict.FALLBACK
        assert "native TensorFlow" in decision.reason
        assert judge_coverage(replace(before, native_segments=None), [before]).verdict is Verdict.FALLBACK
        if segments:
            assert "fewer than" in judge_coverage(replace(before, native_segments=segments - 1), [before]).reason
        assert judge_coverage(replace(before, native_segments=0), [replace(before, native_segments=None)]).verdict is Verdict.PASS

    @given(coverages())
    def test_none_where_there_was_some(self, before: Coverage) -> None:
        decision = judge_coverage(None, [before, None])
        assert decision.verdict is Verdict.FALLBACK
        assert "nothing tells what runs on edgetpu" in decision.reason
        assert judge_coverage(None, [None]).verdict is Verdict.PASS
        unknown = judge_coverage(before, [None])
        assert unknown.unknown_before
        (notice,) = coverage_notices(dict.fromkeys("abcde", unknown))
        assert "of a, b, c and 2 more: record a new one" in notice

    @given(coverages())
    def test_more_parts_are_a_remark(self, before: Coverage) -> None:
        before = replace(before, parts=1)
        decision = judge_coverage(replace(before, parts=3), [before])
        assert decision.verdict is Verdict.PASS
        assert "in 3 parts, 1 in the baseline" in decision.remarks[0]
        assert judge_coverage(replace(before, parts=1), [replace(before, parts=3)]).remarks == ()

    @given(coverages(), coverages())
    def test_the_newest_session_that_knows_counts(self, older: Coverage, newer: Coverage) -> None:
        assert judge_coverage(newer, [older, newer, None]).before == newer

    def test_another_accelerator(self) -> None:
        decision = judge_coverage(parse_coverage(told(accelerator="delegate")), [parse_coverage(told())])
        assert decision.verdict is Verdict.FALLBACK
        assert "runs on delegate, and on edgetpu in the baseline" in decision.reason

    def test_the_words(self) -> None:
        decision = judge_coverage(parse_coverage(told(on_accelerator=64, elsewhere=8)), [parse_coverage(told())])
        assert decision.reason == ("64 of 72 operations (88.9%) run on edgetpu, 70 of 72 operations (97.2%) in the baseline")
        assert Coverage("x", 99_999, 1, source="s").in_words() == "99999 of 100000 operations (99.9%)"
        assert Coverage("x", 1, 99_999, source="s").in_words() == "1 of 100000 operations (0.1%)"
        assert Coverage("x", 3, 0, source="s").in_words() == "3 of 3 operations (100%)"


class TestAgainstTheCard:
    @given(coverages(), st.floats(0.01, 1))
    def test_the_share(self, coverage: Coverage, minimum: float) -> None:
        verdict = judge_coverage(coverage, [], CoverageDemand(minimum)).verdict
        assert (verdict is Verdict.PASS) == (coverage.share >= minimum)
        # A card's demand holds whatever the baseline was.
        assert judge_coverage(coverage, [coverage], CoverageDemand(minimum)).verdict is verdict

    def test_a_share_that_is_just_reached(self) -> None:
        assert judge_coverage(Coverage("x", 19, 1, source="s"), [], CoverageDemand(0.95)).verdict is Verdict.PASS

    @given(coverages(), COUNTS)
    def test_bytes_off_the_chip(self, coverage: Coverage, most: int) -> None:
        verdict = judge_coverage(coverage, [], CoverageDemand(maximum_off_chip_bytes=most)).verdict
        assert (verdict is Verdict.PASS) == (coverage.off_chip_bytes is not None and coverage.off_chip_bytes <= most)

    def test_what_is_not_told_is_not_reached(self) -> None:
        decision = judge_coverage(None, [], CoverageDemand(0.5))
        assert decision.verdict is Verdict.FALLBACK
        assert "the backend tells none" in decision.reason
        assert judge_coverage(None, [], CoverageDemand()).verdict is Verdict.PASS

    def test_what_is_reached_is_said(self) -> None:
        decision = judge_coverage(parse_coverage(told()), [], CoverageDemand(0.9))
        assert decision.reason == "70 of 72 operations (97.2%) run on edgetpu, as the card demands"


class TestSeveral:
    @given(st.lists(coverages(), min_size=1))
    def test_the_least_has_the_least_share(self, found: list[Coverage]) -> None:
        least = least_covered(found)
        assert least is not None
        assert least in found
        assert least.share == min(one.share for one in found)

    def test_none_of_none(self) -> None:
        assert least_covered([]) is None

    @given(coverages(), coverages())
    def test_the_runtime_wins_and_the_converter_completes(self, runtime: Coverage, converter: Coverage) -> None:
        both = told_by_runtime(runtime, converter)
        assert (both.on_accelerator, both.elsewhere, both.source) == (runtime.on_accelerator, runtime.elsewhere, runtime.source)
        assert both.off_chip_bytes == (converter.off_chip_bytes if runtime.off_chip_bytes is None else runtime.off_chip_bytes)
        assert sum(one.count for one in both.elsewhere_by_operation) <= both.elsewhere
        assert told_by_runtime(runtime, None) is runtime
        assert told_by_runtime(runtime, replace(converter, accelerator="dla")) is runtime

    def test_what_fell_back_most_comes_first(self) -> None:
        before = Coverage("edgetpu", 68, 4, elsewhere_by_operation=(OperationElsewhere("QUANTIZE", 4, "no"),), source="s")
        rows = (
            OperationElsewhere("QUANTIZE", 5, "no"),
            OperationElsewhere("MEAN", 3, "no"),
            OperationElsewhere("QUANTIZE", 2, "x"),
        )
        now = replace(before, on_accelerator=62, elsewhere=10, elsewhere_by_operation=rows)
        assert [(one.operation, one.count, known) for one, known in fallen_back(now, before)] == [
            ("MEAN", 3, 0),
            ("QUANTIZE", 2, 0),
            ("QUANTIZE", 5, 4),
        ]
        assert [known for _, known in fallen_back(now, None)] == [0, 0, 0]


class TestLibraries:
    """XNNPACK is no device: what it takes explains a latency, and decides nothing that latency does not."""

    BEFORE = Coverage("xnnpack", 21, 1, parts=1, source="nodes of the interpreter of ai_edge_litert 2.3.0")
    AFTER = Coverage("xnnpack", 0, 22, parts=0, source="nodes of the interpreter of tflite_runtime 2.14.0")

    def test_less_is_a_remark(self) -> None:
        decision = judge_coverage(self.AFTER, [self.BEFORE])
        assert decision.verdict is Verdict.PASS
        (remark,) = decision.remarks
        assert remark.startswith("0 of 22 operations (0.0%) run on xnnpack, 21 of 22 operations (95.5%) in the baseline")

    def test_more_is_a_remark_and_more_parts_are_none(self) -> None:
        (remark,) = judge_coverage(self.BEFORE, [self.AFTER]).remarks
        assert "more than in the baseline" in remark
        assert judge_coverage(replace(self.BEFORE, parts=9), [self.BEFORE]).remarks == ()

    def test_a_baseline_that_does_not_know_it_is_good_enough(self) -> None:
        assert judge_coverage(self.BEFORE, [None]).remarks == ()

    def test_a_runtime_that_no_longer_tells_it_breaks_nothing(self) -> None:
        assert judge_coverage(None, [self.BEFORE]).verdict is Verdict.PASS

    def test_a_card_can_demand_it(self) -> None:
        assert judge_coverage(self.AFTER, [self.BEFORE], CoverageDemand(minimum_share=0.9)).verdict is Verdict.FALLBACK
