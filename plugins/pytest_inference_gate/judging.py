"""From what was measured of a case, and its baseline, to its result with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .accuracy import AccuracyFigures, judge_accuracy
from .artifacts import StoredArtifact
from .baselines import BaselineCase
from .cards import PrecisionTolerance
from .cases import Case
from .comparison import Baseline
from .decision import confirm, decide
from .outcome import OK, Outcome
from .results import AccuracyResult, ArtifactResult, CaseResult, Replicate, summarize_replicates
from .verdict import Verdict, of_outcome


@dataclass
class CaseRecord:
    """What this run did with one case, raw: filled while it is prepared and measured."""

    case: Case
    outcome: Outcome = OK
    nodeids: list[str] = field(default_factory=list)
    artifact: StoredArtifact | None = None
    figures: AccuracyFigures | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    replicates: list[Replicate] = field(default_factory=list)
    fresh_replicates: list[Replicate] = field(default_factory=list)  # taken to confirm a suspicion

    @property
    def all_replicates(self) -> list[Replicate]:
        return [*self.replicates, *self.fresh_replicates]


def tolerance_for(case: Case) -> PrecisionTolerance:
    """The card's tolerances for the case's precision."""
    tolerance = case.card.tolerance
    special = tolerance.by_precision.get(case.precision, PrecisionTolerance())
    return PrecisionTolerance(
        latency=special.latency if special.latency is not None else tolerance.latency,
        top1_drop=special.top1_drop if special.top1_drop is not None else tolerance.top1_drop,
        agreement=special.agreement if special.agreement is not None else tolerance.agreement,
    )


def is_suspicious(record: CaseRecord, baseline: Baseline, tolerance: float) -> bool:
    """Whether the case's latency looks different from the baseline's, so that fresh replicates should confirm it."""
    before = [case.replicates for case in baseline.cases(record.case.id)]
    if not record.outcome.ok or not record.replicates or not before:
        return False
    decision = decide(before, [replicate.median for replicate in record.replicates], tolerance=tolerance)
    return decision.verdict in (Verdict.SLOWER, Verdict.FASTER, Verdict.INCONCLUSIVE)


def judge(
    record: CaseRecord,
    baseline: Baseline | None,
    *,
    tolerance: float,
    wants_latency: bool,
    wants_accuracy: bool,
    condition_problems: Sequence[str],
) -> CaseResult:
    """The result of one case, verdict included.

    ``baseline`` is ``None`` in a run that compares nothing: then only outcome and accuracy are judged. ``tolerance`` is latency's, a share
    of 1. ``condition_problems`` say what happened to the machine while it measured.
    """
    result = CaseResult.of(record.case)
    result.nodeids = list(record.nodeids)
    result.outcome = record.outcome
    if record.artifact is not None:
        provenance = record.artifact.provenance
        result.artifact = ArtifactResult(
            record.artifact.digest, record.artifact.size_bytes, provenance.get("seconds"), record.artifact.cached
        )
    before = baseline.cases(record.case.id) if baseline else []
    broken_before = baseline is not None and baseline.broken(record.case.id) is not None
    if not record.outcome.ok:
        result.conclude(*_judge_failure(record.outcome, broken_before=broken_before, ran_before=bool(before)))
        return result
    if wants_accuracy:
        result.accuracy = _judge_accuracy(record)
        result.conclude(result.accuracy.verdict, result.accuracy.decision.reason)
    if wants_latency:
        result.latency = summarize_replicates(record.all_replicates, batch=record.case.batch)
        peaks = [replicate.peak_rss_bytes for replicate in record.all_replicates if replicate.peak_rss_bytes is not None]
        result.peak_rss_bytes = max(peaks, default=None)
        if baseline is not None:
            result.conclude(*_judge_latency(result, record, before, tolerance, broken_before))
        if condition_problems:
            # Compared or not: what was measured on a throttled device must not become a baseline either.
            result.latency = result.latency.invalidated(
                f"the device changed while it was measured: {'; '.join(condition_problems)}"
            )
            result.conclude(Verdict.INVALID, result.latency.reason)
    if broken_before:
        result.conclude(Verdict.FIXED, "was broken in the baseline and works now; record a new baseline")
    return result


def _judge_failure(outcome: Outcome, *, broken_before: bool, ran_before: bool) -> tuple[Verdict, str]:
    verdict = of_outcome(outcome, broken_in_baseline=broken_before)
    if verdict is Verdict.UNSUPPORTED:
        if ran_before:
            # The runtime went away: for whoever ships the upgrade this is a case that runs no more, not one to skip.
            return Verdict.BROKEN, f"ran in the baseline, but now: {outcome.message}"
        return verdict, outcome.message
    return verdict, f"{outcome.kind} in stage {outcome.stage}: {outcome.message}"


def _judge_accuracy(record: CaseRecord) -> AccuracyResult:
    if record.figures is None:
        raise ValueError(f"the case {record.case.id} has no predictions to judge")
    tolerance = tolerance_for(record.case)
    evaluation = record.case.card.evaluation
    decision = judge_accuracy(
        record.figures,
        top1_drop=record.case.card.tolerance.top1_drop if tolerance.top1_drop is None else tolerance.top1_drop,
        agreement=tolerance.agreement,
        expected_top1=evaluation.top1 if evaluation else None,
    )
    return AccuracyResult(record.figures, decision, record.metrics)


def _judge_latency(
    result: CaseResult,
    record: CaseRecord,
    before: Sequence[BaselineCase],
    tolerance: float,
    broken_before: bool,
) -> tuple[Verdict, str]:
    assert result.latency is not None
    if not before:
        if broken_before:
            return Verdict.FIXED, "was broken in the baseline and works now, so there is no latency to compare with yet"
        return Verdict.NO_BASELINE, "the baseline does not have this case"
    sessions = [case.replicates for case in before]
    first = [replicate.median for replicate in record.replicates]
    fresh = [replicate.median for replicate in record.fresh_replicates]
    decision = confirm(sessions, first, fresh, tolerance=tolerance) if fresh else decide(sessions, first, tolerance=tolerance)
    result.latency = result.latency.decided(decision, sessions)
    assert result.latency.verdict is not None
    return result.latency.verdict, result.latency.reason
