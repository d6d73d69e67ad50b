"""From what was measured of a case, and its baseline, to its result with a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median

from .accuracy import FLOAT_REFERENCE, AccuracyFigures, judge_accuracy
from .artifacts import StoredArtifact
from .cards import PrecisionTolerance
from .cases import Case
from .comparison import Baseline
from .decision import ALPHA, LatencyDecision, decide
from .device_telemetry import saved_telemetry, summarize_telemetry
from .outcome import OK, Outcome
from .paired_decision import decide_pairs
from .paired_measuring import ProcessPair
from .results import AccuracyResult, ArtifactResult, CaseResult, Replicate, summarize_replicates
from .verdict import Verdict, of_outcome


@dataclass
class OtherSide:
    """What the other stack made of the case, in a run that measures two in turns. ``ran``: it has predicted or was measured.

    ``case`` is the case as the other side's card has it, ``None`` where it has none of that name.
    """

    case: Case | None
    outcome: Outcome = OK
    artifact: StoredArtifact | None = None
    ran: bool = False


@dataclass
class CaseRecord:
    """What this run did with one case, raw: filled while it is prepared and measured.

    ``replicates`` were measured alone, ``pairs`` in turns with ``other``; ``compared_with`` says whose predictions the figures were made
    with; ``cost`` is what measuring took so far, in seconds.
    """

    case: Case
    outcome: Outcome = OK
    nodeids: list[str] = field(default_factory=list)
    artifact: StoredArtifact | None = None
    figures: AccuracyFigures | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    replicates: list[Replicate] = field(default_factory=list)
    pairs: list[ProcessPair] = field(default_factory=list)
    other: OtherSide | None = None
    compared_with: str = FLOAT_REFERENCE
    cost: float = 0.0

    @property
    def all_replicates(self) -> list[Replicate]:
        """Of this stack."""
        return [*self.replicates, *(pair.candidate for pair in self.pairs)]

    @property
    def measured(self) -> int:
        """How many replicates, or pairs, there are."""
        return len(self.replicates) + len(self.pairs)


def tolerance_for(case: Case) -> PrecisionTolerance:
    """The card's tolerances for the case's precision."""
    tolerance = case.card.tolerance
    special = tolerance.by_precision.get(case.precision, PrecisionTolerance())
    return PrecisionTolerance(
        latency=special.latency if special.latency is not None else tolerance.latency,
        top1_drop=special.top1_drop if special.top1_drop is not None else tolerance.top1_drop,
        agreement=special.agreement if special.agreement is not None else tolerance.agreement,
    )


def decide_latency(
    record: CaseRecord, baseline: Baseline | None, *, tolerance: float, first: int, final: bool, alpha: float = ALPHA
) -> LatencyDecision | None:
    """What the measurements of a case so far say, and how many more are wanted; ``None`` where there is nothing to compare them with."""
    if not record.outcome.ok or (record.other is not None and not record.other.outcome.ok):
        return None
    if record.pairs:
        return decide_pairs(
            [pair.ratio for pair in record.pairs],
            tolerance=tolerance,
            first=first,
            alpha=alpha,
            final=final,
            candidate_median=median(pair.candidate.median for pair in record.pairs),
            reference_median=median(pair.reference.median for pair in record.pairs),
        )
    before = [case.replicates for case in baseline.cases(record.case.id)] if baseline else []
    if not before or not record.replicates:
        return None
    measured = [replicate.median for replicate in record.replicates]
    return decide(before, measured, tolerance=tolerance, first=first, alpha=alpha, final=final)


def judge(
    record: CaseRecord,
    baseline: Baseline | None,
    decision: LatencyDecision | None,
    *,
    wants_latency: bool,
    wants_accuracy: bool,
    invalid: str | None = None,
) -> CaseResult:
    """The result of one case, verdict included.

    ``baseline`` is ``None`` in a run that compares with none; ``decision`` is latency's, ``None`` where nothing was compared: then only
    outcome and accuracy are judged. ``invalid`` says why latency cannot be trusted, if so: what happened to the machine while it measured.
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
        if record.other is not None and record.other.case is not None:
            result.conclude(*_judge_failure_beside(record.outcome, record.other))
        else:
            result.conclude(*_judge_failure(record.outcome, broken_before=broken_before, ran_before=bool(before)))
        return result
    if wants_accuracy:
        result.accuracy = _judge_accuracy(record)
        result.conclude(result.accuracy.verdict, result.accuracy.decision.reason)
    if wants_latency:
        result.latency = replace(summarize_replicates(record.all_replicates, batch=record.case.batch), cost=record.cost)
        peaks = [replicate.peak_rss_bytes for replicate in record.all_replicates if replicate.peak_rss_bytes is not None]
        result.peak_rss_bytes = max(peaks, default=None)
        result.telemetry = summarize_telemetry(
            [replicate.telemetry for replicate in record.all_replicates], [saved_telemetry(case) for case in before]
        )
        if record.pairs and decision is not None:
            result.latency = replace(
                result.latency.decided(decision, [[pair.reference.median for pair in record.pairs]]),
                pair_ratios=tuple(pair.ratio for pair in record.pairs),
            )
        elif decision is not None:
            result.latency = result.latency.decided(decision, [case.replicates for case in before])
        elif baseline is not None:
            result.conclude(*_without_baseline(broken_before))
        if invalid is not None:
            # Compared or not: what was measured on a throttled device must not become a baseline either. The decision is shown, but
            # has no say.
            result.latency = result.latency.invalidated(invalid)
            result.conclude(Verdict.INVALID, invalid)
        elif decision is not None:
            result.conclude(decision.verdict, decision.reason)
    if broken_before:
        result.conclude(Verdict.FIXED, "was broken in the baseline and works now; record a new baseline")
    if record.other is not None and record.other.case is None:
        result.conclude(Verdict.NO_BASELINE, "the models to compare with have no such case")
    if record.other is not None and not record.other.outcome.ok:
        result.conclude(Verdict.FIXED, f"works, but not with the other stack: {_in_words(record.other.outcome)}")
    return result


def _judge_failure(outcome: Outcome, *, broken_before: bool, ran_before: bool) -> tuple[Verdict, str]:
    verdict = of_outcome(outcome, broken_in_baseline=broken_before)
    if verdict is Verdict.UNSUPPORTED:
        if ran_before:
            # The runtime went away: for whoever ships the upgrade this is a case that runs no more, not one to skip.
            return Verdict.BROKEN, f"ran in the baseline, but now: {outcome.message}"
        return verdict, outcome.message
    return verdict, _in_words(outcome)


def _judge_failure_beside(outcome: Outcome, other: OtherSide) -> tuple[Verdict, str]:
    """What the failure of a case means, beside what the other stack made of it."""
    if outcome.is_of_the_surroundings:
        return Verdict.BROKEN, _in_words(outcome)
    if other.outcome.ok:
        beside = "works with the other stack" if other.ran else "the other stack has what it takes"
        return Verdict.BROKEN, f"{beside}, but with this one: {_in_words(outcome)}"
    verdict = of_outcome(
        outcome, broken_in_baseline=not (other.outcome.kind == "unsupported" or other.outcome.is_of_the_surroundings)
    )
    if verdict is Verdict.KNOWN_BROKEN:
        return verdict, f"broken with both stacks; with this one: {_in_words(outcome)}"
    return verdict, outcome.message if verdict is Verdict.UNSUPPORTED else _in_words(outcome)


def _in_words(outcome: Outcome) -> str:
    if outcome.kind == "unsupported":
        return outcome.message
    return f"{outcome.kind}{f' in stage {outcome.stage}' if outcome.stage else ''}: {outcome.message}"


def _judge_accuracy(record: CaseRecord) -> AccuracyResult:
    if record.figures is None:
        raise ValueError(f"the case {record.case.id} has no predictions to judge")
    tolerance = tolerance_for(record.case)
    evaluation = record.case.card.evaluation
    decision = judge_accuracy(
        record.figures,
        top1_drop=record.case.card.tolerance.top1_drop if tolerance.top1_drop is None else tolerance.top1_drop,
        agreement=tolerance.agreement,
        # What the card says is said of the float model; of two stacks neither need be that.
        expected_top1=evaluation.top1 if evaluation and record.compared_with == FLOAT_REFERENCE else None,
        reference=record.compared_with,
    )
    return AccuracyResult(record.figures, decision, record.metrics)


def _without_baseline(broken_before: bool) -> tuple[Verdict, str]:
    if broken_before:
        return Verdict.FIXED, "was broken in the baseline and works now, so there is no latency to compare with yet"
    return Verdict.NO_BASELINE, "the baseline does not have this case"
