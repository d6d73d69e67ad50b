"""From what was measured of a case, and its baseline, to its result with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeVar

from .accuracy import AccuracyFigures, judge_accuracy
from .accuracy_rule import FLOAT_REFERENCE, AccuracyDecision
from .artifacts import StoredArtifact, digest_of
from .baselines import BaselineCase
from .build_decision import Built, decide_build_pairs, decide_builds
from .build_results import build_remarks, engine_count, node_counts
from .cases import Case, tolerance_for
from .comparison import Baseline
from .coverage import (
    Coverage,
    CoverageDemand,
    converter_coverage,
    judge_coverage,
    least_covered,
    told_by_runtime,
)
from .decision import ALPHA, LatencyDecision, decide
from .detection.accuracy import DetectionFigures, judge_detections
from .detection.run import demands_of
from .device_telemetry import saved_telemetry, summarize_telemetry
from .outcome import OK, Outcome
from .paired_decision import decide_pairs
from .paired_measuring import ProcessPair
from .results import AccuracyResult, ArtifactResult, CaseResult, CoverageResult, DetectionResult, Replicate, summarize_replicates
from .streams.results import StreamRecord, StreamResult, summarize_stream
from .streams.source import StreamSource
from .verdict import Verdict, of_outcome, worst


@dataclass
class FurtherBuild:
    """One more build of a case's model, what it predicted, and what its runtime told of the coverage meanwhile."""

    artifact: StoredArtifact
    figures: AccuracyFigures | None = None
    detection: DetectionFigures | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    told: list[Coverage] = field(default_factory=list)


@dataclass
class OtherSide:
    """What the other stack made of the case, in a run that measures two in turns. ``ran``: it has predicted or was measured.

    ``case`` is the case as the other side's card has it, ``None`` where it has none of that name; ``told`` is what its runtime
    said of the coverage when it predicted; ``further`` are builds beside ``artifact``.
    """

    case: Case | None
    outcome: Outcome = OK
    artifact: StoredArtifact | None = None
    ran: bool = False
    told: list[Coverage] = field(default_factory=list)
    further: list[FurtherBuild] = field(default_factory=list)

    @property
    def builds(self) -> list[StoredArtifact]:
        return [] if self.artifact is None else [self.artifact, *(one.artifact for one in self.further)]


@dataclass
class CaseRecord:
    """What this run did with one case, raw: filled while it is prepared and measured.

    ``figures`` are those of a classifier, ``detection`` those of a detector.
    ``replicates`` were measured alone, ``pairs`` in turns with ``other``; ``compared_with`` says whose predictions the figures were made
    with; ``cost`` is what measuring took so far, in seconds; ``told`` is what the runtime said of the coverage when it predicted.
    ``wanted_builds`` is how many times the model is built, ``None`` where the builder always makes the same; ``further`` are the builds
    beside ``artifact``, and replicates run them all in turn. Of a stream's case, ``source`` is where its frames come from, and
    ``sustained`` a long run of it, which is no replicate.
    """

    case: Case
    outcome: Outcome = OK
    nodeids: list[str] = field(default_factory=list)
    artifact: StoredArtifact | None = None
    figures: AccuracyFigures | None = None
    detection: DetectionFigures | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    replicates: list[Replicate] = field(default_factory=list)
    pairs: list[ProcessPair] = field(default_factory=list)
    other: OtherSide | None = None
    compared_with: str = FLOAT_REFERENCE
    cost: float = 0.0
    told: list[Coverage] = field(default_factory=list)
    wanted_builds: int | None = None
    further: list[FurtherBuild] = field(default_factory=list)
    source: StreamSource | None = None
    sustained: StreamRecord | None = None

    @property
    def builds(self) -> list[StoredArtifact]:
        return [] if self.artifact is None else [self.artifact, *(one.artifact for one in self.further)]

    @property
    def all_replicates(self) -> list[Replicate]:
        """Of this stack."""
        return [*self.replicates, *(pair.candidate for pair in self.pairs)]

    @property
    def measured(self) -> int:
        """How many replicates, or pairs, there are."""
        return len(self.replicates) + len(self.pairs)


def replicates_at_first(record: CaseRecord, wanted: int) -> int:
    """How many replicates, or pairs, are taken before anything is confirmed: as many as are wanted, and each build equally
    often."""
    builds = record.wanted_builds or 1
    return -(-wanted // builds) * builds


def decide_latency(
    record: CaseRecord, baseline: Baseline | None, *, tolerance: float, first: int, final: bool, alpha: float = ALPHA
) -> LatencyDecision | None:
    """What the measurements of a case so far say, and how many more are wanted; ``None`` where there is nothing to compare them
    with."""
    if not record.outcome.ok or (record.other is not None and not record.other.outcome.ok):
        return None
    first = replicates_at_first(record, first)
    if record.pairs:
        medians = {
            "candidate_median": median(pair.candidate.median for pair in record.pairs),
            "reference_median": median(pair.reference.median for pair in record.pairs),
        }
        if record.wanted_builds is not None and record.other is not None:
            ours, theirs = build_names(record.builds), build_names(record.other.builds)
            turns = [
                (_name(ours, pair.candidate.build), _name(theirs, pair.reference.build), pair.ratio) for pair in record.pairs
            ]
            ratios = [Built(f"{mine}/{other}", ratio) for mine, other, ratio in turns]
            same = all(mine == other for mine, other, _ in turns)
            return decide_build_pairs(ratios, tolerance=tolerance, first=first, alpha=alpha, final=final, same=same, **medians)
        return decide_pairs(
            [pair.ratio for pair in record.pairs], tolerance=tolerance, first=first, alpha=alpha, final=final, **medians
        )
    if record.wanted_builds is not None and record.replicates and baseline:
        sessions = [
            [Built(build, value) for build, value in zip(case.builds, case.replicates, strict=True)]
            for case in baseline.timed(record.case)
        ]
        names = build_names(record.builds)
        built = [Built(_name(names, replicate.build), replicate.median) for replicate in record.replicates]
        return decide_builds(sessions, built, tolerance=tolerance, first=first, alpha=alpha, final=final) if sessions else None
    before = [case.replicates for case in baseline.timed(record.case)] if baseline else []
    if not before or not record.replicates:
        return None
    measured = [replicate.median for replicate in record.replicates]
    return decide(before, measured, tolerance=tolerance, first=first, alpha=alpha, final=final)


def build_names(builds: Sequence[StoredArtifact]) -> list[str]:
    """A name of what each build holds: two builds of one name are the very same one, wherever and whenever they were made.

    It is the digest of its files, and not of what they were made of: that is the same for an engine that was built anew.
    """
    names = []
    for build in builds:
        files = build.provenance.get("files")
        known = {path: entry.get("sha256") for path, entry in files.items()} if isinstance(files, dict) else {}
        names.append(digest_of("build", known) if known else build.digest)
    return names


def _name(names: Sequence[str], build: int) -> str:
    return names[build] if build < len(names) else ""


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

    ``baseline`` is ``None`` in a run that compares with none; ``decision`` is latency's, ``None`` where nothing was compared:
    then only outcome and accuracy are judged. ``invalid`` says why latency cannot be trusted, if so: what happened to the machine
    while it measured.
    """
    result = CaseResult.of(record.case)
    result.nodeids = list(record.nodeids)
    result.outcome = record.outcome
    if record.artifact is not None:
        provenance = record.artifact.provenance
        nodes, engines = node_counts(provenance), engine_count(provenance)
        result.artifact = ArtifactResult(
            record.artifact.digest, record.artifact.size_bytes, provenance.get("seconds"), record.artifact.cached, nodes, engines
        )
    before = baseline.cases(record.case.id) if baseline else []
    if result.artifact is not None:
        built = result.artifact
        recorded = [case.extra.get("artifact") for case in before]
        result.build_remarks = build_remarks(built.digest, built.nodes, built.engines, built.convert_seconds, recorded)
    broken_before = baseline is not None and baseline.broken(record.case.id) is not None
    if not record.outcome.ok:
        if record.other is not None and record.other.case is not None:
            result.conclude(*_judge_failure_beside(record.outcome, record.other))
        else:
            result.conclude(*_judge_failure(record.outcome, broken_before=broken_before, ran_before=bool(before)))
        return result
    if wants_accuracy and record.case.card.task == "detection":
        result.detection = _judge_detection(record)
        result.conclude(result.detection.verdict, result.detection.decision.reason)
    elif wants_accuracy:
        result.accuracy = _judge_accuracy(record)
        result.conclude(result.accuracy.verdict, result.accuracy.decision.reason)
    if wants_latency:
        result.latency = replace(
            summarize_replicates(record.all_replicates, batch=record.case.batch),
            cost=record.cost or None,
            replicate_builds=() if record.wanted_builds is None else tuple(one.build for one in record.all_replicates),
        )
        result.stream = _stream(record)
        invalid = invalid or _other_stream(result.stream, before)
        peaks = [replicate.peak_rss_bytes for replicate in record.all_replicates if replicate.peak_rss_bytes is not None]
        result.peak_rss_bytes = max(peaks, default=None)
        result.telemetry = summarize_telemetry(
            [replicate.telemetry for replicate in record.all_replicates], [saved_telemetry(case) for case in before]
        )
        if record.pairs and decision is not None:
            references = [pair.reference for pair in record.pairs]
            result.latency = replace(
                result.latency.decided(
                    decision,
                    [[reference.median for reference in references]],
                    [reference.picture_medians for reference in references],
                ),
                pair_ratios=tuple(pair.ratio for pair in record.pairs),
            )
        elif decision is not None and baseline is not None:
            timed = baseline.timed(record.case)
            result.latency = result.latency.decided(
                decision, [case.replicates for case in timed], [case.picture_medians for case in timed]
            )
        elif baseline is not None:
            result.conclude(*_without_baseline(broken_before, baseline.other_pictures(record.case)))
        if invalid is not None:
            # Compared or not: what was measured on a throttled device must not become a baseline either. The decision is shown, but
            # has no say.
            result.latency = result.latency.invalidated(invalid)
            result.conclude(Verdict.INVALID, invalid)
        elif decision is not None:
            result.conclude(decision.verdict, decision.reason)
    result.coverage = _judge_coverage(record, baseline)
    if result.coverage is not None and result.coverage.red:
        result.conclude(result.coverage.decision.verdict, result.coverage.decision.reason)
    if broken_before:
        result.conclude(Verdict.FIXED, "was broken in the baseline and works now; record a new baseline")
    if record.other is not None and record.other.case is None:
        result.conclude(Verdict.NO_BASELINE, "the models to compare with have no such case")
    if record.other is not None and record.other.outcome.is_of_the_surroundings:
        result.conclude(Verdict.NO_BASELINE, f"the other side could not be had: {_in_words(record.other.outcome)}")
    elif record.other is not None and not record.other.outcome.ok:
        result.conclude(Verdict.FIXED, f"works, but not with the other stack: {_in_words(record.other.outcome)}")
    return result


def _stream(record: CaseRecord) -> StreamResult | None:
    """None for a case that is no stream's."""
    setting, source = record.case.stream, record.source
    streams = [replicate.stream for replicate in record.all_replicates if replicate.stream is not None]
    if setting is None or source is None:
        return None
    return summarize_stream(setting, source, streams, record.sustained)


def _other_stream(stream: StreamResult | None, before: Sequence[BaselineCase]) -> str | None:
    """Why the frames of this run cannot be compared with the baseline's: they are others, or came in another way."""
    if stream is None:
        return None
    for case in before:
        saved = case.extra.get("stream")
        known = saved if isinstance(saved, Mapping) else {}
        differ = [name for name, value in stream.settings.items() if known.get(name) != value]
        if differ:
            what = {"digest": "other frames", "pace": "another pace", "budget_frames_per_second": "another budget"}
            return f"the baseline was measured with {what[differ[0]]} than this run, so that their frame times say nothing of each other"
    return None


def _judge_coverage(record: CaseRecord, baseline: Baseline | None) -> CoverageResult | None:
    """None where nothing tells a coverage, and nothing asks for one."""
    found = _of_all_builds(record, record.all_replicates)
    before: list[Coverage | None] = [case.coverage for case in baseline.cases(record.case.id)] if baseline else []
    there = "in the baseline"
    if record.other is not None:
        other = _of_all_builds(record.other, [pair.reference for pair in record.pairs])
        before, there = [least_covered(other)] if other else [], "with the other stack"
    demand = record.case.card.coverage.get(record.case.backend)
    asked = None if demand is None else CoverageDemand(demand.minimum_share, demand.maximum_off_chip_bytes)
    everyone: list[Coverage | None] = [*found] or [None]
    judged = [(one, judge_coverage(one, before, asked, there=there)) for one in everyone]
    # One process that fell back is a fall-back, whatever the others did.
    red = [(one, decision) for one, decision in judged if decision.verdict is Verdict.FALLBACK]
    shown = least_covered(one for one, _ in red or judged if one is not None)
    decision = next(decision for one, decision in red or judged if one is shown)
    log = record.artifact.log if record.artifact is not None else None
    return None if shown is None and not red else CoverageResult(shown, decision, log)


def _of_all_builds(side: CaseRecord | OtherSide, replicates: Sequence[Replicate]) -> list[Coverage]:
    found: list[Coverage] = []
    for number, (artifact, told) in enumerate([(side.artifact, side.told), *((one.artifact, one.told) for one in side.further)]):
        measured = [one.coverage for one in replicates if one.build == number and one.coverage is not None]
        found += _coverages(artifact, [*told, *measured])
    return list(dict.fromkeys(found))


def _coverages(artifact: StoredArtifact | None, told: Sequence[Coverage]) -> list[Coverage]:
    """What the runtime told, each once, completed by what the converter knows; the converter's word alone where the runtime has
    none."""
    converter = None if artifact is None else converter_coverage(artifact.provenance)
    if not told:
        return [] if converter is None else [converter]
    return list(dict.fromkeys(told_by_runtime(one, converter) for one in told))


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
    return _worst_build(
        [
            AccuracyResult(figures, _decide_accuracy(record, figures), metrics)
            for figures, metrics in [(record.figures, record.metrics), *((one.figures, one.metrics) for one in record.further)]
            if figures is not None
        ]
    )


def _judge_detection(record: CaseRecord) -> DetectionResult:
    if record.detection is None:
        raise ValueError(f"the case {record.case.id} has no predictions to judge")
    demands = demands_of(record.case, of_float_model=record.compared_with == FLOAT_REFERENCE)
    return _worst_build(
        [
            DetectionResult(figures, judge_detections(figures, demands, reference=record.compared_with), metrics)
            for figures, metrics in [
                (record.detection, record.metrics),
                *((one.detection, one.metrics) for one in record.further),
            ]
            if figures is not None
        ]
    )


_Result = TypeVar("_Result", AccuracyResult, DetectionResult)


def _worst_build(judged: Sequence[_Result]) -> _Result:
    """Any of its builds may be the one that is shipped: the worst is what the case is worth."""
    verdict = worst(one.verdict for one in judged)
    number, shown = next((number, one) for number, one in enumerate(judged, start=1) if one.verdict is verdict)
    if len(judged) > 1 and verdict is not Verdict.PASS:
        reason = f"build {number} of {len(judged)}: {shown.decision.reason}"
        shown = replace(shown, decision=replace(shown.decision, reason=reason))
    return shown


def _decide_accuracy(record: CaseRecord, figures: AccuracyFigures) -> AccuracyDecision:
    tolerance = tolerance_for(record.case)
    evaluation = record.case.card.evaluation
    return judge_accuracy(
        figures,
        top1_drop=record.case.card.tolerance.top1_drop if tolerance.top1_drop is None else tolerance.top1_drop,
        agreement=tolerance.agreement,
        # What the card says is said of the float model; of two stacks neither need be that.
        expected_top1=evaluation.top1 if evaluation and record.compared_with == FLOAT_REFERENCE else None,
        reference=record.compared_with,
    )


def _without_baseline(broken_before: bool, incomparable: str | None) -> tuple[Verdict, str]:
    if incomparable is not None:
        return Verdict.NO_BASELINE, incomparable
    if broken_before:
        return Verdict.FIXED, "was broken in the baseline and works now, so there is no latency to compare with yet"
    return Verdict.NO_BASELINE, "the baseline does not have this case"
