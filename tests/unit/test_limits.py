"""The limits of a card: what the card may say, how a figure is held against it, and what becomes of the case."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_examples import measured
from test_cards import load

from pytest_inference_gate.artifacts import StoredArtifact
from pytest_inference_gate.card_tables.limits import Limits, PrecisionLimits
from pytest_inference_gate.card_tables.section import CardSection
from pytest_inference_gate.case_limits import hold_to_limits
from pytest_inference_gate.cases import Case
from pytest_inference_gate.errors import CardError
from pytest_inference_gate.judging import CaseRecord, FurtherBuild, judge
from pytest_inference_gate.limits import KINDS, Figure, judge_limits
from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.report.messages import limits_failure_message
from pytest_inference_gate.results import CaseResult, Replicate
from pytest_inference_gate.verdict import Verdict

# What a case with one thread that is no stream has no figures for.
OF_OTHERS = ("thread_speedup", "frames_per_second", "dropped_share", "sustained_slowdown")


def table(lines: str) -> str:
    """As an inline table of TOML."""
    return f"{{ {', '.join(lines.splitlines())} }}"


class TestJudging:
    @pytest.mark.parametrize(
        ("name", "found", "limit", "exceeded", "reason"),
        [
            ("size_bytes", 509_120, 400_000, True, "the model takes 509.1 kB, and the card allows at most 400.0 kB"),
            ("size_bytes", 400_000, 400_000, False, "the model takes 400.0 kB, and the card allows at most 400.0 kB"),
            ("size_bytes", 400_001, 400_000, True, "the model takes 400001 bytes, and the card allows at most 400000 bytes"),
            ("median_seconds", 0.0123, 0.01, True, "an inference takes 12.3 ms, and the card allows at most 10 ms"),
            ("build_seconds", 1800.4, 60, True, "it takes 1800 s to build, and the card allows at most 60 s"),
            ("nodes_after", 741, 12, True, "its graph has 741 nodes after the conversion, and the card allows at most 12 nodes"),
            ("nodes_after", 1, 1, False, "its graph has 1 node after the conversion, and the card allows at most 1 node"),
            (
                "thread_speedup",
                1.02,
                1.3,
                True,
                "its threads make it 1.02 times as fast as one, and the card demands at least 1.3 times",
            ),
            (
                "thread_speedup",
                1.3,
                1.3,
                False,
                "its threads make it 1.3 times as fast as one, and the card demands at least 1.3 times",
            ),
            ("median_seconds", math.nan, 0.01, True, "an inference takes nan s, and the card allows at most 10 ms"),
        ],
    )
    def test_a_figure(self, name: str, found: float, limit: float, exceeded: bool, reason: str) -> None:
        (result,) = judge_limits({name: limit}, {name: Figure(found)})
        assert (result.name, result.limit, result.exceeded, result.reason) == (name, limit, exceeded, reason)
        assert result.unit == KINDS[name].unit

    def test_what_cannot_be_told_is_exceeded(self) -> None:
        (result,) = judge_limits({"peak_memory_bytes": 5e8}, {"peak_memory_bytes": Figure(None, "nothing tells it")})
        assert result.exceeded
        assert result.found is None
        assert result.reason == "the card allows at most 500.0 MB (peak_memory_bytes), but nothing tells it"

    def test_what_nobody_asked_for_is_not_judged(self) -> None:
        assert judge_limits({"median_seconds": 0.01}, {"size_bytes": Figure(1.0)}) == ()
        assert judge_limits({}, {"size_bytes": Figure(1.0)}) == ()


class TestTheCard:
    def test_every_key_is_a_kind_of_limit(self) -> None:
        assert set(PrecisionLimits.model_fields) == set(KINDS)
        assert issubclass(Limits, CardSection)

    def test_a_precision_overrides_key_by_key(self) -> None:
        limits = Limits(
            size_bytes=400,
            median_seconds=0.1,
            thread_speedup={"2": 1.3, "4": 1.8},
            by_precision={"int8": PrecisionLimits(size_bytes=200, thread_speedup={"2": 1.0})},
        )
        assert limits.of("fp32", 1) == {"size_bytes": 400, "median_seconds": 0.1}
        assert limits.of("fp32", 2) == {"size_bytes": 400, "median_seconds": 0.1, "thread_speedup": 1.3}
        assert limits.of("int8", 2) == {"size_bytes": 200, "median_seconds": 0.1, "thread_speedup": 1.0}
        assert limits.of("int8", 4)["thread_speedup"] == 1.8
        assert limits.thread_counts == {2, 4}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("size_bytes = 0", "limits.size_bytes"),
            ("size_bytes = 1.5", "limits.size_bytes"),
            ("median_seconds = inf", "limits.median_seconds"),
            ("sise_bytes = 1", "did you mean 'size_bytes'"),
            ('thread_speedup = { "' + "9" * 5000 + '" = 1.0 }', "limits.thread_speedup: found '999"),
            ('thread_speedup = { "02" = 1.0 }', "limits.thread_speedup: found '02', expected a number of threads"),
            ('thread_speedup = { "1" = 1.0 }', "limits.thread_speedup: found '1', expected a number of threads from 2 on"),
            ('thread_speedup = { "02" = 1.0 }', "found '02'"),
            ("thread_speedup = { two = 1.0 }", "found 'two'"),
            ("by_precision.int9.size_bytes = 1", "limits.by_precision.int9: found a precision that this card's"),
            ("by_precision.int8.thread_speedup = { x = 1.0 }", "limits.by_precision.int8.thread_speedup: found 'x'"),
        ],
    )
    def test_what_it_may_not_say(self, tmp_path: Path, text: str, problem: str) -> None:
        with pytest.raises(CardError) as failure:
            load(tmp_path, limits=table(text))
        assert problem in str(failure.value)
        assert len(str(failure.value).splitlines()) == 1


def record_of(
    case: Case,
    median: float,
    *,
    size: int = 41_000,
    seconds: float | None = 1.5,
    peak: int | None = 10**8,
    nodes: int | None = 12,
) -> CaseRecord:
    provenance = {"seconds": seconds, "files": {}, "details": {"nodes": {"before": 741, "after": nodes}}}
    artifact = StoredArtifact("digest", case.card.path, provenance, True, size)
    replicates = [Replicate(0.02, 0.05, (median * 0.99, median, median * 1.01), peak_rss_bytes=peak)] * 5
    return CaseRecord(case, artifact=artifact, replicates=replicates)


def held(
    records: list[CaseRecord], cores: float | None = 4, *, latency: bool = True, invalid: str | None = None
) -> tuple[dict[str, CaseResult], list[str]]:
    """The results of these cases, as a run of one device without a baseline has them."""
    results = {
        record.case.id: judge(record, None, None, wants_latency=latency, wants_accuracy=False, invalid=invalid)
        for record in records
    }
    return results, hold_to_limits(results, {record.case.id: record for record in records}, cores)


class TestACase:
    @pytest.fixture
    def case(self, tmp_path: Path) -> Any:
        def make(limits: str, *, threads: int = 1) -> Case:
            return Case(load(tmp_path, limits=table(limits)), "tflite", "int8", threads=threads)

        return make

    def test_within_its_limits(self, case: Any) -> None:
        one = case(
            "size_bytes = 41000\nmedian_seconds = 0.1\nbuild_seconds = 2\nfirst_inference_seconds = 1\npeak_memory_bytes = 100000000\n"
            "nodes_after = 12"
        )
        results, notices = held([record_of(one, 0.01)])
        (result,) = results.values()
        assert [limit.name for limit in result.limits] == [name for name in KINDS if name not in OF_OTHERS]
        assert not any(limit.exceeded for limit in result.limits)
        assert (result.verdict, notices) == (Verdict.PASS, [])

    def test_over_two_of_them(self, case: Any) -> None:
        results, _ = held([record_of(case("size_bytes = 40999\nmedian_seconds = 0.009\nbuild_seconds = 2"), 0.01)])
        (result,) = results.values()
        assert result.verdict is Verdict.OVER_LIMIT
        assert result.reason == (
            "the model takes 41000 bytes, and the card allows at most 40999 bytes; "
            "an inference takes 10 ms, and the card allows at most 9 ms"
        )
        message = limits_failure_message(result, reproduce="pytest --gate-select=x")
        assert message.startswith(f"{result.id} is over limit: the model takes")
        assert message.count("<-- exceeded") == 2
        assert "build_seconds" in message
        assert "change it under [limits] of the card" in " ".join(message.split())
        assert max(map(len, message.splitlines())) <= 100

    def test_what_nothing_tells_is_over_it(self, case: Any) -> None:
        limits = "build_seconds = 2\nfirst_inference_seconds = 1\npeak_memory_bytes = 100\nnodes_after = 12"
        record = record_of(case(limits), 0.01, seconds=None, peak=None, nodes=None)
        record.replicates = [replace(one, first_inference=None) for one in record.replicates]
        (result,) = held([record])[0].values()
        assert [limit.found for limit in result.limits] == [None] * 4
        assert result.verdict is Verdict.OVER_LIMIT
        assert "nothing tells how long it took to build" in result.reason
        assert "nothing tells how many nodes its graph has after the conversion" in result.reason

    def test_the_largest_and_slowest_of_its_builds_count(self, case: Any) -> None:
        record = record_of(case("size_bytes = 50000\nbuild_seconds = 2\nnodes_after = 12"), 0.01)
        assert record.artifact is not None
        provenance = {"seconds": 2.5, "files": {}, "details": {"nodes": {"before": 741, "after": 741}}}
        further = replace(record.artifact, size_bytes=50_001, provenance=provenance)
        record.further = [FurtherBuild(further)]
        (result,) = held([record])[0].values()
        assert [limit.found for limit in result.limits] == [50_001, 2.5, 741]
        assert all(limit.exceeded for limit in result.limits)

    def test_without_latency_its_latency_is_not_judged(self, case: Any) -> None:
        (result,) = held([record_of(case("size_bytes = 40999\nmedian_seconds = 0.009"), 0.01)], latency=False)[0].values()
        assert [limit.name for limit in result.limits] == ["size_bytes"]

    def test_a_broken_case_is_broken_and_nothing_else(self, case: Any) -> None:
        record = CaseRecord(case("size_bytes = 1"), outcome=Outcome("load_error", "load", "no such operation"))
        (result,) = held([record])[0].values()
        assert (result.verdict, result.limits) == (Verdict.BROKEN, ())

    def test_a_disturbed_machine_does_not_hide_it(self, case: Any) -> None:
        (result,) = held([record_of(case("median_seconds = 0.009"), 0.01)], invalid="12 throttle events")[0].values()
        assert result.verdict is Verdict.OVER_LIMIT
        assert "(measured while the machine was disturbed)" in result.reason

    def test_threads_that_scale_and_threads_that_do_not(self, case: Any) -> None:
        limits = 'thread_speedup = { "2" = 1.3, "4" = 1.8 }'
        records = [record_of(case(limits, threads=count), 0.01 / gain) for count, gain in ((1, 1), (2, 1.9), (4, 1.5))]
        results, notices = held(records)
        one, two, four = results.values()
        assert (one.thread_speedup, one.limits) == (None, ())
        assert two.thread_speedup == pytest.approx(1.9)
        assert (two.verdict, four.verdict) == (Verdict.PASS, Verdict.OVER_LIMIT)
        assert four.reason.startswith(
            "its threads make it 1.5 times as fast as one (4 threads), and the card demands at least 1.8"
        )
        assert notices == []

    def test_more_threads_than_cores_are_told(self, case: Any) -> None:
        limits = 'thread_speedup = { "4" = 1.8 }'
        results, notices = held([record_of(case(limits, threads=count), 0.01) for count in (1, 4)], cores=2)
        assert "(4 threads on 2 free cores)" in results[case(limits, threads=4).id].reason
        (notice,) = notices
        assert notice.startswith("4 threads had 2 free cores and waited for each other")

    def test_without_one_thread_nothing_tells_it(self, case: Any) -> None:
        limits = 'thread_speedup = { "2" = 1.3 }'
        (result,) = held([record_of(case(limits, threads=2), 0.01)])[0].values()
        assert result.verdict is Verdict.OVER_LIMIT
        assert result.reason == (
            "the card demands at least 1.3 times (thread_speedup), but the same case with one thread is not in this run: add it with "
            "--gate-threads=1,2"
        )

    def test_one_thread_that_broke_tells_nothing_either(self, case: Any) -> None:
        limits = 'thread_speedup = { "2" = 1.3 }'
        broken = CaseRecord(case(limits), outcome=Outcome("load_error", "load", "no"))
        results, _ = held([broken, record_of(case(limits, threads=2), 0.01)])
        assert "-t1 was not measured in this run" in results[case(limits, threads=2).id].reason

    def test_a_limit_on_threads_that_no_case_has_is_told(self, case: Any) -> None:
        results, notices = held([record_of(case('thread_speedup = { "2" = 1.3, "4" = 1.8 }'), 0.01)])
        (notice,) = notices
        assert notice.endswith("which no case of this run has: --gate-threads=1,2,4 measures it")
        assert all(result.verdict is Verdict.PASS for result in results.values())


def test_a_case_with_neither_reads_as_before() -> None:
    assert (measured().limits, measured().thread_speedup) == ((), None)


def test_a_share_just_above_its_limit_is_told_in_per_cent() -> None:
    (result,) = judge_limits({"dropped_share": 0.3}, {"dropped_share": Figure(0.30004)})
    assert result.exceeded and "30.004 % of the stream" in result.reason and "at most 30 %" in result.reason
