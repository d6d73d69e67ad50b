"""Results to report on: one case of each verdict, made by the real decisions from recorded durations and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy

from pytest_inference_gate.accuracy import AccuracyFigures, compare_predictions, judge_accuracy
from pytest_inference_gate.accuracy_rule import OTHER_STACK
from pytest_inference_gate.build_results import NodeCounts
from pytest_inference_gate.coverage import Coverage, OperationElsewhere, judge_coverage
from pytest_inference_gate.decision import correct_for_family, decide
from pytest_inference_gate.detection.accuracy import ClassPrecision, DetectionDemands, DetectionFigures, judge_detections
from pytest_inference_gate.limits import Figure, judge_limits
from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.paired_decision import decide_pairs
from pytest_inference_gate.results import (
    AccuracyResult,
    ArtifactResult,
    CaseResult,
    ComparedSession,
    CoverageResult,
    DetectionResult,
    DeviceResult,
    LatencyResult,
    OtherStack,
    Replicate,
    RunResult,
    summarize_replicates,
)
from pytest_inference_gate.streams.clock import Drift
from pytest_inference_gate.streams.results import StreamResult, SustainedResult
from pytest_inference_gate.verdict import Verdict

BASELINE = ((0.01141, 0.01138, 0.01152, 0.01144, 0.01140), (0.01147, 0.01139, 0.01143, 0.01155, 0.01142))
MEDIANS = (0.01142, 0.01140, 0.01151, 0.01145, 0.01139)


SECONDS_PER_REPLICATE = 0.8


def latency(
    factor: float = 1.0,
    *,
    compared: bool = True,
    batch: int = 1,
    rounds: int = 50,
    most: int = 25,
    medians: Sequence[float] = MEDIANS,
) -> LatencyResult:
    """Replicates that are ``factor`` times as slow as the baseline's: five, and where these are compared as many more as the
    decision wants, up to ``most``.
    """
    count = 5
    while True:
        replicates = [
            Replicate(0.021, 0.034, tuple(factor * middle * (0.98 + 0.04 * i / (rounds - 1)) for i in range(rounds)))
            for middle in (medians[number % len(medians)] for number in range(count))
        ]
        result = replace(summarize_replicates(replicates, batch=batch), cost=SECONDS_PER_REPLICATE * count)
        if not compared:
            return result
        decision = decide(BASELINE, result.replicates, tolerance=0.05, final=count >= most)
        if not decision.wanted:
            return result.decided(decision, BASELINE)
        count = min(most, count + decision.wanted)


PAIR_RATIOS = (1.004, 0.996, 1.011, 0.989, 1.002, 1.000, 0.993, 1.007, 0.998, 1.005)


def paired_latency(factor: float = 1.0, *, most: int = 25, ratios: Sequence[float] = PAIR_RATIOS) -> LatencyResult:
    """Pairs of processes of two stacks, this one ``factor`` times as slow as the other: as many as the decision wants."""
    count = 5
    while True:
        seen = [factor * ratios[number % len(ratios)] for number in range(count)]
        other = [MEDIANS[number % len(MEDIANS)] for number in range(count)]
        this = [middle * ratio for middle, ratio in zip(other, seen, strict=True)]
        decision = decide_pairs(
            seen, tolerance=0.03, final=count >= most, candidate_median=median(this), reference_median=median(other)
        )
        if not decision.wanted:
            replicates = [Replicate(0.021, None, tuple(middle * (0.98 + 0.04 * i / 79) for i in range(80))) for middle in this]
            result = replace(summarize_replicates(replicates, batch=1), cost=2 * SECONDS_PER_REPLICATE * count)
            return replace(result.decided(decision, [other]), pair_ratios=tuple(seen))
        count = min(most, count + decision.wanted)


def figures(lost: int = 0, *, n: int = 1000) -> AccuracyFigures:
    """A reference that is right for 95 %, and a candidate that loses some of these samples."""
    classes = numpy.eye(10, dtype=numpy.float32)
    right = n * 95 // 100
    reference = classes[[0] * right + [1] * (n - right)]
    candidate = classes[[0] * (right - lost) + [1] * (n - right + lost)]
    return compare_predictions(candidate, numpy.zeros(n, dtype=int), reference)


def accuracy(lost: int = 0, *, n: int = 1000, reference: str = "the float reference") -> AccuracyResult:
    compared = figures(lost, n=n)
    return AccuracyResult(compared, judge_accuracy(compared, reference=reference))


def measured(
    name: str = "digits_cnn", precision: str = "int8", *, factor: float = 1.0, lost: int = 0, compared: bool = True
) -> CaseResult:
    """A case that went all the way."""
    case = CaseResult(
        f"{name}-tflite-{precision}-b1-t1", name, "tflite", precision, nodeids=[f"test_latency.py::test_latency[{name}]"]
    )
    case.latency = latency(factor, compared=compared)
    case.accuracy = accuracy(lost)
    case.artifact = ArtifactResult(
        digest=f"{name}{precision}", size_bytes=41_234, convert_seconds=1.5, cached=True, nodes=NodeCounts(40, 12)
    )
    case.peak_rss_bytes = 123_456_789
    if case.latency.verdict is not None:
        case.conclude(case.latency.verdict, case.latency.reason)
    case.conclude(case.accuracy.verdict, case.accuracy.decision.reason)
    return case


MAPPED = Coverage(
    "edgetpu",
    70,
    2,
    1,
    0,
    (OperationElsewhere("QUANTIZE", 1, "not mapped"), OperationElsewhere("DEQUANTIZE", 1, "not mapped")),
    source="edgetpu_compiler 16.0",
)
FELL_BACK = replace(
    MAPPED,
    on_accelerator=64,
    elsewhere=8,
    elsewhere_by_operation=(
        OperationElsewhere("MEAN", 6, "More than one subgraph is not supported"),
        *MAPPED.elsewhere_by_operation,
    ),
)


def covered(found: Coverage | None = MAPPED, before: Coverage | None = MAPPED) -> CaseResult:
    """A case that is as fast as before, and of which ``found`` runs on the accelerator."""
    case = measured("mapped_cnn")
    case.coverage = CoverageResult(found, judge_coverage(found, [before]), Path("/tmp/log.txt"))
    if case.coverage.red:
        case.conclude(case.coverage.decision.verdict, case.coverage.decision.reason)
    return case


def over_limit() -> CaseResult:
    """A case that is as fast as before, and larger than its card allows; nothing tells how much memory it takes."""
    case = measured("large_cnn")
    limits = {"size_bytes": 40_000.0, "median_seconds": 0.02, "peak_memory_bytes": 1e8}
    peak = Figure(None, "nothing tells how much memory its process took")
    case.limits = judge_limits(
        limits, {"size_bytes": Figure(41_234), "median_seconds": Figure(0.01142), "peak_memory_bytes": peak}
    )
    case.conclude(Verdict.OVER_LIMIT, "; ".join(limit.reason for limit in case.limits if limit.exceeded))
    return case


def streamed(*, overlapped: bool = False, factor: float = 1.0, compared: bool = True) -> CaseResult:
    """A stream that went on for long, too: 40 % slower at its end."""
    case = measured("seen_cnn", factor=factor, compared=compared)
    case.id += "-stream_overlapped" if overlapped else "-stream"
    case.accuracy, case.overlapped = None, overlapped
    case.stream = StreamResult(
        source="scene.mp4",
        digest="a" * 64,
        pace="none",
        budget_frames_per_second=None,
        overlapped=overlapped,
        opencv="5.0.0",
        frames=750,
        stages={"decode": 0.004, "preprocess": 0.001, "infer": 0.006, "postprocess": 0.00042},
        waiting=0.0012 if overlapped else 0.0,
        frames_per_second=87.5,
        dropped_share=0.125,
        drops="computed",
        age=0.0321,
        sustained=SustainedResult(600.0, 45_000, 75.0, 62.5, None, Drift(60.0, 0.0114, 0.016, 1e-6)),
        remarks=("scene.mp4 ends too early: 149 of the 150 frames that it declares can be read, and these are used",),
    )
    return case


def paired(name: str = "digits_cnn", *, factor: float = 1.0, lost: int = 0, most: int = 25) -> CaseResult:
    """A case that two stacks ran in turns."""
    case = measured(name, compared=False)
    case.verdict, case.reason = Verdict.PASS, ""
    case.latency = paired_latency(factor, most=most)
    case.accuracy = accuracy(lost, reference=OTHER_STACK)
    assert case.latency.verdict is not None
    case.conclude(case.latency.verdict, case.latency.reason)
    case.conclude(case.accuracy.verdict, case.accuracy.decision.reason)
    return case


def out_of_budget(name: str = "hasty_cnn") -> CaseResult:
    """Slower in the first replicates, and no time for fresh ones."""
    case = measured(name)
    case.verdict, case.reason = Verdict.PASS, ""
    case.latency = latency(1.083, most=5)
    assert case.latency.decision is not None
    assert case.latency.decision.stage == "budget"
    case.conclude(case.latency.decision.verdict, case.latency.reason)
    return case


def failed(verdict: Verdict, outcome: Outcome, name: str = "big_cnn") -> CaseResult:
    """A case that did not get as far as a measurement."""
    return CaseResult(
        f"{name}-tflite-fp16-b1-t1", name, "tflite", "fp16", verdict=verdict, reason=outcome.message, outcome=outcome
    )


def case_with(verdict: Verdict) -> CaseResult:
    """A case with this verdict, in the way in which it comes about."""
    crash = Outcome("crash", "convert", "the agent was killed by SIGSEGV while it converted", "SIGSEGV", Path("/tmp/agent.log"))
    if verdict in (Verdict.BROKEN, Verdict.KNOWN_BROKEN):
        return failed(verdict, crash)
    if verdict is Verdict.UNSUPPORTED:
        return failed(verdict, Outcome("unsupported", "load", "no Edge TPU is attached"))
    if verdict is Verdict.SLOWER:
        return measured("slow_cnn", factor=1.083)
    if verdict is Verdict.FASTER:
        return measured("fast_cnn", factor=0.8)
    if verdict is Verdict.INACCURATE:
        return measured("wrong_cnn", lost=30)
    if verdict is Verdict.OVER_LIMIT:
        return over_limit()
    if verdict is Verdict.FALLBACK:
        return covered(FELL_BACK)
    case = measured(f"{verdict.value}_cnn")
    assert case.latency is not None
    if verdict is Verdict.INCONCLUSIVE:
        decided = latency(medians=(0.0114, 0.0125, 0.0110, 0.0126, 0.0125))
    elif verdict is Verdict.UNGATEABLE:
        wild = tuple((0.01142 * factor,) * 5 for factor in (0.9, 1.0, 1.1))
        decided = case.latency.decided(decide(wild, MEDIANS, tolerance=0.05, final=True), wild)
    elif verdict is Verdict.INVALID:
        decided = case.latency.invalidated("the device changed while it was measured: 12 throttle events")
    elif verdict is Verdict.PASS:
        return case
    else:
        # Comes from a comparison of outcomes, or of placement, which these parts are not asked about.
        case.conclude(verdict, f"the reason of {verdict}")
        return case
    case.latency = decided
    assert decided.verdict is verdict
    case.conclude(verdict, decided.reason)
    return case


def run_of(*cases: CaseResult, mode: str = "compare", **more: object) -> RunResult:
    device = DeviceResult(
        "intel_xeon-2_cores-1a2b3c4d",
        {"board": None, "cpu_model": "Intel Xeon", "online_cores": 2, "power_mode": "unknown"},
        {"python": "3.11.7", "ai-edge-litert": "2.3.0"},
        {"before": {"governor": "performance"}, "after": {"governor": "performance"}},
    )
    phases = {"fetch": 0.0, "convert": 12.34, "predict": 3.21, "measure": 40.0}
    return RunResult(mode=mode, device=device, cases=list(cases), phases=phases, **more)  # type: ignore[arg-type]


def detected(*, annotated: bool = True, drop: float = 0.0977) -> CaseResult:
    """A detector that finds less than its float model; without annotations, of which fewer detections have a partner."""
    known = DetectionFigures(
        n=200,
        objects=612,
        map=0.7101 - drop,
        map50=0.8012,
        map75=0.6604,
        ar100=0.6999,
        reference_map=0.7101,
        reference_map50=0.9023,
        reference_map75=0.7702,
        reference_ar100=0.8011,
        drop=drop,
        drop_p=0.001,
        smallest_detectable_drop=0.0144,
        swaps=999,
        expected_p=None,
        classes=tuple(ClassPrecision(f"digit {number}", 60, 0.5 + 0.03 * number, 0.71) for number in range(9)),
        lost=81,
        won=12,
        matched=0.8421,
        matched_p=None,
        detections=540,
        reference_detections=600,
        mean_iou=0.9132,
        score_drift=0.0412,
        score_drift_signed=-0.0312,
        class_changes=7,
        lost_detections=83,
        new_detections=23,
        matching_score=0.3,
        worst=("scene_017.png", "scene_003.png"),
        nan_count=0,
        reference_nan_count=0,
        alpha=0.01,
    )
    if not annotated:
        nothing = dict.fromkeys(("objects", "map", "map50", "map75", "ar100", "drop", "drop_p", "lost", "won"))
        nothing |= dict.fromkeys(("reference_map", "reference_map50", "reference_map75", "reference_ar100"))
        nothing |= {"smallest_detectable_drop": None}
        known = replace(known, **nothing, classes=(), swaps=0, matched_p=0.0005)  # type: ignore[arg-type]
    demands = DetectionDemands(matched=None if annotated else 0.9)
    result = measured("digit_scenes", compared=False)
    result.accuracy = None
    result.detection = DetectionResult(known, judge_detections(known, demands), {"precision at 0.5": 0.91})
    result.conclude(result.detection.verdict, result.detection.decision.reason)
    return result


def everything() -> RunResult:
    """One case of each verdict."""
    return run_of(*(case_with(verdict) for verdict in Verdict), software_changes=["ai-edge-litert 2.1.0 -> 2.3.0"], exit_status=1)


SESSIONS = (
    ComparedSession("0001_jp6.0", "2026-02-03T10:00:00+00:00"),
    ComparedSession("0002_jp6.0", "2026-02-26T18:30:00.123456"),
)


def against(*cases: CaseResult) -> RunResult:
    """A run that measured this stack and an older one in turns."""
    other = OtherStack("old-env/bin/python", {"python": "3.11.7", "ai-edge-litert": "2.1.0", "numpy": "1.26.4"})
    return run_of(
        *cases, mode="against", against=other, software_changes=["ai-edge-litert 2.1.0 -> 2.3.0", "numpy 1.26.4 -> none"]
    )


def corrected(*cases: CaseResult) -> list[CaseResult]:
    """The cases, their p-values corrected for being that many, as a run does it."""
    decisions = {
        case.id: case.latency.decision for case in cases if case.latency is not None and case.latency.decision is not None
    }
    for case_id, decision in correct_for_family(decisions).items():
        (case,) = (case for case in cases if case.id == case_id)
        assert case.latency is not None
        case.latency = replace(case.latency, decision=decision)
    return list(cases)


def documented_failure() -> tuple[CaseResult, str]:
    """The case and the message that docs/explanation/reading-a-failure.md walks through, one of 16 cases of its run."""
    from pytest_inference_gate.report.messages import latency_failure_message

    sessions = (
        (0.01562, 0.01548, 0.01571, 0.01555, 0.01550),
        (0.01583, 0.01577, 0.01569, 0.01602, 0.01574),
        (0.01559, 0.01566, 0.01551, 0.01558, 0.01580),
    )
    medians = (
        *(0.01741, 0.01728, 0.01763, 0.01735, 0.01730, 0.01738, 0.01752, 0.01726, 0.02417, 0.01744),
        *(0.01733, 0.01759, 0.01740, 0.01729, 0.01747),
    )
    replicates = [Replicate(0.043, 0.071, tuple(middle * (0.98 + 0.04 * i / 49) for i in range(50))) for middle in medians]
    count = 5
    decision = decide(sessions, medians[:count], tolerance=0.05)
    while decision.wanted:
        count += decision.wanted
        decision = decide(sessions, medians[:count], tolerance=0.05)
    case = CaseResult("mobilenet_v2-tflite-int8-b1-t1", "mobilenet_v2", "tflite", "int8")
    measured_latency = replace(summarize_replicates(replicates[:count], batch=1), cost=1.29 * count)
    decision = decide(sessions, measured_latency.replicates, tolerance=0.05)
    others = {f"other {number}": decide(BASELINE, MEDIANS, tolerance=0.05) for number in range(15)}
    decision = correct_for_family({case.id: decision, **others})[case.id]
    case.latency = measured_latency.decided(decision, sessions)
    case.conclude(decision.verdict, decision.reason)
    message = latency_failure_message(
        case,
        decision,
        ["ai-edge-litert 2.1.0 -> 2.3.0", "numpy 1.26.4 -> 2.1.3"],
        reproduce=f'pytest "tests/gate/test_latency.py::test_latency[{case.id}]" --benchmark-compare=0003_litert-2.1',
        first=5,
    )
    return case, message
