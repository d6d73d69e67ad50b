"""From what was measured of a case to its verdict: against a baseline, and beside another stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from test_cards import load

from pytest_inference_gate.accuracy import AccuracyFigures, compare_predictions
from pytest_inference_gate.accuracy_rule import FLOAT_REFERENCE, OTHER_STACK
from pytest_inference_gate.artifacts import StoredArtifact
from pytest_inference_gate.baselines import BaselineCase, BaselineSession
from pytest_inference_gate.cases import Case
from pytest_inference_gate.comparison import Baseline
from pytest_inference_gate.coverage import parse_coverage
from pytest_inference_gate.judging import (
    CaseRecord,
    FurtherBuild,
    OtherSide,
    build_names,
    decide_latency,
    judge,
    replicates_at_first,
)
from pytest_inference_gate.outcome import OK, Outcome, OutcomeKind
from pytest_inference_gate.paired_measuring import ProcessPair
from pytest_inference_gate.results import CaseResult, Replicate
from pytest_inference_gate.verdict import Verdict

MEDIANS = (0.01141, 0.01138, 0.01152, 0.01144, 0.01140)
NO_LOAD = Outcome("load_error", "load", "Didn't find op for builtin opcode 'CONV_2D' version '7'")
CRASH = Outcome("crash", "predict", "the agent died of SIGSEGV while predicting", "SIGSEGV")
NO_RUNTIME = Outcome("unsupported", "load", "the runtime is not installed")
NO_CHECKPOINT = Outcome("fetch_error", "fetch", "the checkpoint could not be downloaded")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(load(tmp_path), "tflite", "int8")


def replicate(median: float, *, peak: int | None = None) -> Replicate:
    return Replicate(load=0.02, first_inference=None, rounds=(median * 0.99, median, median * 1.01), peak_rss_bytes=peak)


def pairs(*ratios: float) -> list[ProcessPair]:
    return [ProcessPair(replicate(0.01 * ratio), replicate(0.01), (ratio,) * 16, seconds=1.0) for ratio in ratios]


def figures(right: int, right_before: int, n: int = 1000) -> AccuracyFigures:
    """Of n samples so many are right, and so many were right in the predictions that they are compared with."""
    classes = numpy.eye(10, dtype=numpy.float32)

    def predictions(correct: int) -> numpy.ndarray[Any, Any]:
        return classes[[0] * correct + [1] * (n - correct)]

    return compare_predictions(predictions(right), numpy.zeros(n, dtype=int), predictions(right_before))


def baseline_of(case: Case, *, ran: bool = True, broken: bool = False) -> Baseline:
    cases = {case.id: BaselineCase(case.id, MEDIANS, {})} if ran else {}
    failures = {case.id: {"kind": "crash"}} if broken else {}
    session = BaselineSession(Path("0001_before.json"), "before", "2026-01-01T00:00:00", "device", {}, cases, failures)
    return Baseline(Path("baselines"), (session,))


def judged(record: CaseRecord, baseline: Baseline | None = None, **changes: Any) -> CaseResult:
    decision = decide_latency(record, baseline, tolerance=0.03, first=5, final=True)
    arguments = {"wants_latency": True, "wants_accuracy": False, "invalid": None, **changes}
    return judge(record, baseline, decision, **arguments)


class TestBesideAnotherStack:
    def test_alike(self, case: Case) -> None:
        result = judged(CaseRecord(case, pairs=pairs(1.0, 1.01, 0.99), other=OtherSide(case), cost=4.5))
        assert result.verdict is Verdict.PASS
        assert result.latency is not None
        assert result.latency.pair_ratios == pytest.approx((1.0, 1.01, 0.99))
        assert result.latency.cost == 4.5
        assert result.latency.replicates == pytest.approx((0.01, 0.0101, 0.0099))
        assert result.latency.baseline_sessions == (pytest.approx((0.01, 0.01, 0.01)),)
        assert result.latency.decision is not None
        assert (result.latency.decision.baseline_median, result.latency.decision.candidate_median) == pytest.approx((0.01, 0.01))

    def test_slower(self, case: Case) -> None:
        result = judged(CaseRecord(case, pairs=pairs(*[1.08] * 10), other=OtherSide(case)))
        assert result.verdict is Verdict.SLOWER
        assert "than the other stack" in result.reason

    def test_nothing_was_compared_where_nothing_was_measured(self, case: Case) -> None:
        assert decide_latency(CaseRecord(case, other=OtherSide(case)), None, tolerance=0.03, first=5, final=False) is None

    @pytest.mark.parametrize("outcome", [NO_LOAD, CRASH, NO_RUNTIME, Outcome("timeout", "convert", "took too long")])
    def test_what_only_the_other_stack_runs_is_broken(self, case: Case, outcome: Outcome) -> None:
        result = judged(CaseRecord(case, outcome, other=OtherSide(case, ran=True)))
        assert result.verdict is Verdict.BROKEN
        assert "works with the other stack, but with this one: " in result.reason
        assert outcome.message in result.reason
        assert result.latency is None
        assert result.outcome == outcome

    def test_that_it_works_is_said_only_of_what_ran(self, case: Case) -> None:
        result = judged(CaseRecord(case, NO_RUNTIME, other=OtherSide(case)))
        assert result.verdict is Verdict.BROKEN
        assert "works" not in result.reason

    def test_a_case_that_the_other_models_lack_has_nothing_to_be_compared_with(self, case: Case) -> None:
        assert judged(CaseRecord(case, replicates=[replicate(0.01)], other=OtherSide(None))).verdict is Verdict.NO_BASELINE
        broken = judged(CaseRecord(case, CRASH, other=OtherSide(None)))
        assert broken.verdict is Verdict.BROKEN
        assert "other stack" not in broken.reason
        assert judged(CaseRecord(case, NO_RUNTIME, other=OtherSide(None))).verdict is Verdict.UNSUPPORTED

    def test_a_checkpoint_that_cannot_be_had_says_nothing_of_the_other_stack(self, case: Case) -> None:
        result = judged(CaseRecord(case, NO_CHECKPOINT, other=OtherSide(case)))
        assert result.verdict is Verdict.BROKEN
        assert "other stack" not in result.reason

    @pytest.mark.parametrize("outcome", [NO_LOAD, CRASH, NO_RUNTIME])
    def test_what_only_this_stack_runs_is_fixed_and_has_figures(self, case: Case, outcome: Outcome) -> None:
        result = judged(CaseRecord(case, replicates=[replicate(0.01)] * 5, other=OtherSide(case, outcome)))
        assert result.verdict is Verdict.FIXED
        assert "works, but not with the other stack: " in result.reason
        assert outcome.message in result.reason
        assert result.latency is not None
        assert result.latency.median == 0.01
        assert result.latency.decision is None

    @pytest.mark.parametrize("kind", ["fetch_error", "unreachable", "storage_error"])
    def test_what_kept_the_other_side_from_the_run_is_no_comparison(self, case: Case, kind: OutcomeKind) -> None:
        outcome = Outcome(kind, "fetch", "there is no checkpoint")
        result = judged(CaseRecord(case, replicates=[replicate(0.01)] * 5, other=OtherSide(case, outcome)))
        assert result.verdict is Verdict.NO_BASELINE
        assert "there is no checkpoint" in result.reason

    def test_pairs_taken_before_the_other_stack_failed_are_no_comparison(self, case: Case) -> None:
        """Else a case would ask for pairs again and again, which cannot come."""
        record = CaseRecord(case, pairs=pairs(1.2, 1.2), replicates=[replicate(0.012)], other=OtherSide(case, CRASH))
        assert decide_latency(record, None, tolerance=0.03, first=5, final=False) is None
        result = judged(record)
        assert result.verdict is Verdict.FIXED
        assert result.latency is not None
        assert len(result.latency.replicates) == 3
        assert result.latency.pair_ratios == ()

    @pytest.mark.parametrize(("mine", "theirs"), [(NO_LOAD, CRASH), (CRASH, CRASH), (CRASH, NO_LOAD)])
    def test_what_neither_runs_is_known_to_be_broken(self, case: Case, mine: Outcome, theirs: Outcome) -> None:
        result = judged(CaseRecord(case, mine, other=OtherSide(case, theirs)))
        assert result.verdict is Verdict.KNOWN_BROKEN
        assert "broken with both stacks" in result.reason

    @pytest.mark.parametrize(
        ("mine", "theirs", "verdict"),
        [
            (NO_RUNTIME, NO_RUNTIME, Verdict.UNSUPPORTED),
            (NO_RUNTIME, CRASH, Verdict.UNSUPPORTED),
            (CRASH, NO_RUNTIME, Verdict.BROKEN),
            (CRASH, NO_CHECKPOINT, Verdict.BROKEN),
            (NO_CHECKPOINT, CRASH, Verdict.BROKEN),
        ],
    )
    def test_what_one_of_them_lacks(self, case: Case, mine: Outcome, theirs: Outcome, verdict: Verdict) -> None:
        assert judged(CaseRecord(case, mine, other=OtherSide(case, theirs))).verdict is verdict

    def test_predictions_are_compared_with_those_of_the_other_stack(self, case: Case) -> None:
        def judge_figures(right: int, right_before: int, compared_with: str) -> CaseResult:
            found = figures(right, right_before)
            record = CaseRecord(case, figures=found, pairs=pairs(1.0), other=OtherSide(case), compared_with=compared_with)
            return judged(record, wants_accuracy=True)

        lost = judge_figures(900, 950, OTHER_STACK)
        assert lost.verdict is Verdict.INACCURATE
        assert "the other stack's 95.0%" in lost.reason
        # The card expects 95 % of the float model. The other stack need not be that, so both may be worse.
        assert judge_figures(500, 500, OTHER_STACK).verdict is Verdict.PASS
        assert judge_figures(500, 500, FLOAT_REFERENCE).verdict is Verdict.INACCURATE

    def test_inaccurate_outranks_faster_and_slower_is_outranked_too(self, case: Case) -> None:
        for factor in (0.8, 1.2):
            record = CaseRecord(
                case, figures=figures(900, 950), pairs=pairs(*[factor] * 10), other=OtherSide(case), compared_with=OTHER_STACK
            )
            assert judged(record, wants_accuracy=True).verdict is Verdict.INACCURATE

    def test_accuracy_needs_predictions(self, case: Case) -> None:
        with pytest.raises(ValueError, match="no predictions to judge"):
            judged(CaseRecord(case, other=OtherSide(case)), wants_latency=False, wants_accuracy=True)


class TestAgainstABaseline:
    def test_measured_alone(self, case: Case) -> None:
        record = CaseRecord(case, replicates=[replicate(median, peak=100 + number) for number, median in enumerate(MEDIANS)])
        result = judged(record, baseline_of(case))
        assert result.verdict is Verdict.PASS
        assert result.peak_rss_bytes == 104
        assert result.latency is not None
        assert result.latency.baseline_sessions == (MEDIANS,)

    def test_slower(self, case: Case) -> None:
        record = CaseRecord(case, replicates=[replicate(1.2 * median) for median in MEDIANS * 2])
        assert judged(record, baseline_of(case)).verdict is Verdict.SLOWER

    def test_alpha_is_handed_on(self, case: Case) -> None:
        record = CaseRecord(case, replicates=[replicate(1.2 * median) for median in MEDIANS * 2])
        paired = CaseRecord(case, pairs=pairs(*[1.2] * 10), other=OtherSide(case))
        for one, baseline in ((record, baseline_of(case)), (paired, None)):
            for alpha, wanted in ((0.01, 0), (0.0003, 5)):
                decision = decide_latency(one, baseline, tolerance=0.03, first=5, final=False, alpha=alpha)
                assert decision is not None
                assert decision.wanted == wanted

    def test_a_run_without_baseline_only_measures(self, case: Case) -> None:
        result = judged(CaseRecord(case, replicates=[replicate(0.01)]))
        assert result.verdict is Verdict.PASS
        assert result.latency is not None
        assert result.latency.decision is None

    def test_a_case_that_the_baseline_lacks(self, case: Case) -> None:
        record = CaseRecord(case, replicates=[replicate(0.01)])
        assert judged(record, baseline_of(case, ran=False)).verdict is Verdict.NO_BASELINE
        assert judged(record, baseline_of(case, ran=False, broken=True)).verdict is Verdict.FIXED

    def test_what_happened_to_the_machine_makes_it_invalid(self, case: Case) -> None:
        for record, baseline in (
            (CaseRecord(case, replicates=[replicate(0.01)] * 5), baseline_of(case)),
            (CaseRecord(case, pairs=pairs(*[1.5] * 10), other=OtherSide(case)), None),
        ):
            result = judged(record, baseline, invalid="it throttled")
            assert result.latency is not None
            assert result.verdict is result.latency.verdict is Verdict.INVALID
            assert "it throttled" in result.latency.reason

    @pytest.mark.parametrize(
        ("outcome", "ran", "broken", "verdict"),
        [
            (CRASH, True, False, Verdict.BROKEN),
            (CRASH, False, True, Verdict.KNOWN_BROKEN),
            (NO_RUNTIME, False, False, Verdict.UNSUPPORTED),
            (NO_RUNTIME, True, False, Verdict.BROKEN),
            (NO_CHECKPOINT, False, True, Verdict.BROKEN),
        ],
    )
    def test_failures(self, case: Case, outcome: Outcome, ran: bool, broken: bool, verdict: Verdict) -> None:
        result = judged(CaseRecord(case, outcome), baseline_of(case, ran=ran, broken=broken))
        assert result.verdict is verdict
        assert outcome.message in result.reason

    def test_the_artifact_is_told(self, case: Case) -> None:
        artifact = StoredArtifact("abc", Path("store"), {"seconds": 1.5}, cached=True, size_bytes=10)
        result = judged(CaseRecord(case, OK, artifact=artifact), wants_latency=False)
        assert result.artifact is not None
        assert (result.artifact.digest, result.artifact.convert_seconds, result.artifact.cached) == ("abc", 1.5, True)


def stored(name: str, content: str, **details: Any) -> StoredArtifact:
    provenance = {"files": {"model.engine": {"sha256": content, "size": 1}}, "details": details}
    return StoredArtifact(name, Path("store") / name, provenance, cached=True, size_bytes=10)


WHOLE = {"accelerator": "tensorrt", "on_accelerator": 70, "elsewhere": 2, "source": "TensorRT 10"}
LESS = {**WHOLE, "on_accelerator": 64, "elsewhere": 8}


class TestSeveralBuilds:
    def record(self, case: Case, *medians: float, content: str = "new", **more: Any) -> CaseRecord:
        """Six replicates of builds that are as slow as ``medians`` say, in turn."""
        count = len(medians)
        artifacts = [stored(f"digest{number}", f"{content}{number}") for number in range(count)]
        return CaseRecord(
            case,
            artifact=artifacts[0],
            further=[FurtherBuild(artifact) for artifact in artifacts[1:]],
            wanted_builds=count,
            replicates=[replace(replicate(medians[number % count]), build=number % count) for number in range(6 * count)],
            **more,
        )

    def baseline(self, case: Case, record: CaseRecord) -> Baseline:
        names = build_names(record.builds)
        known = BaselineCase(
            case.id,
            tuple(one.median for one in record.replicates),
            {},
            builds=tuple(names[one.build] for one in record.replicates),
        )
        session = BaselineSession(Path("0001_before.json"), "before", "2026-01-01T00:00:00", "device", {}, {case.id: known}, {})
        return Baseline(Path("baselines"), (session,))

    def test_a_build_is_known_by_its_content(self) -> None:
        one, moved, other = stored("a", "same"), stored("b", "same"), stored("a", "another")
        assert build_names([one]) == build_names([moved]) != build_names([other])
        assert build_names([StoredArtifact("abc", Path("store"), {}, cached=True, size_bytes=1)]) == ["abc"]

    @pytest.mark.parametrize(("wanted", "builds", "count"), [(5, None, 5), (5, 1, 5), (5, 2, 6), (5, 3, 6), (5, 5, 5), (5, 8, 8)])
    def test_each_build_gets_as_many_replicates(self, case: Case, wanted: int, builds: int | None, count: int) -> None:
        assert replicates_at_first(CaseRecord(case, wanted_builds=builds), wanted) == count

    def test_against_a_baseline(self, case: Case) -> None:
        before = self.baseline(case, self.record(case, 0.0100, 0.0104, 0.0108, content="old"))
        result = judged(self.record(case, 0.0104, 0.0108, 0.0112), before)
        assert result.latency is not None
        assert result.latency.decision is not None
        assert result.latency.decision.builds is not None
        assert result.latency.build_medians == pytest.approx((0.0104, 0.0108, 0.0112))
        assert result.latency.build_spread == pytest.approx(0.0112 / 0.0104 - 1)
        assert result.verdict is Verdict.INCONCLUSIVE
        slower = judged(self.record(case, 0.0140, 0.0144, 0.0148), before)
        assert slower.verdict is Verdict.SLOWER
        same = judged(self.record(case, 0.0100, 0.0104, 0.0108, content="old"), before)
        assert same.verdict is Verdict.PASS
        assert same.latency is not None
        assert same.latency.decision is not None
        assert same.latency.decision.builds is not None
        assert same.latency.decision.builds.same

    def test_in_turns(self, case: Case) -> None:
        record = self.record(case, 0.01, 0.01, 0.01)
        record.replicates = []
        record.pairs = [
            ProcessPair(
                replace(replicate(0.013), build=n % 3), replace(replicate(0.01 + 0.0001 * (n % 3)), build=n % 3), (1.3,) * 4, 1.0
            )
            for n in range(18)
        ]
        artifact, *others = [stored(f"o{number}", f"old{number}") for number in range(3)]
        record.other = OtherSide(case, artifact=artifact, further=[FurtherBuild(other) for other in others])
        result = judged(record)
        assert result.verdict is Verdict.SLOWER
        assert "3 builds against 3 builds" in result.reason
        record.other = OtherSide(case, artifact=record.artifact, further=record.further)
        assert "builds" not in judged(record).reason  # the very same engines

    def test_the_worst_predictions_count(self, case: Case) -> None:
        record = self.record(case, 0.01, 0.01, figures=figures(950, 950))
        record.further[0].figures = figures(900, 950)
        result = judged(record, wants_accuracy=True, wants_latency=False)
        assert result.verdict is Verdict.INACCURATE
        assert result.reason.startswith("build 2 of 2: ")

    def test_the_least_covered_counts(self, case: Case) -> None:
        record = self.record(case, 0.01, 0.01)
        record.artifact = stored("a", "a", coverage=WHOLE)
        record.further[0].artifact = stored("b", "b", coverage=LESS)
        result = judged(record)
        assert result.coverage is not None
        assert result.coverage.found is not None
        assert result.coverage.found.on_accelerator == 64
        assert result.verdict is Verdict.PASS  # held against nothing
        session = BaselineSession(
            Path("0001_before.json"),
            "before",
            "2026-01-01T00:00:00",
            "device",
            {},
            {case.id: BaselineCase(case.id, (0.01,) * 12, {}, parse_coverage(WHOLE), ("x",) * 12)},
            {},
        )
        assert judged(record, Baseline(Path("baselines"), (session,))).verdict is Verdict.FALLBACK
