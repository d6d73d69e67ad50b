"""Results to report on: one case of each verdict, made by the real decisions from recorded durations and predictions."""

from __future__ import annotations

from pathlib import Path

import numpy

from pytest_inference_gate.accuracy import AccuracyFigures, compare_predictions, judge_accuracy
from pytest_inference_gate.decision import decide
from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.results import (
    AccuracyResult,
    ArtifactResult,
    CaseResult,
    DeviceResult,
    LatencyResult,
    Replicate,
    RunResult,
    summarize_replicates,
)
from pytest_inference_gate.verdict import Verdict

BASELINE = ((0.01141, 0.01138, 0.01152, 0.01144, 0.01140), (0.01147, 0.01139, 0.01143, 0.01155, 0.01142))
MEDIANS = (0.01142, 0.01140, 0.01151, 0.01145, 0.01139)


def latency(factor: float = 1.0, *, compared: bool = True, batch: int = 1, rounds: int = 50) -> LatencyResult:
    """Five replicates that are ``factor`` times as slow as the baseline's."""
    replicates = [
        Replicate(0.021, 0.034, tuple(factor * middle * (0.98 + 0.04 * i / (rounds - 1)) for i in range(rounds)))
        for middle in MEDIANS
    ]
    result = summarize_replicates(replicates, batch=batch)
    if compared:
        result = result.decided(decide(BASELINE, result.replicates, tolerance=0.05), BASELINE)
    return result


def figures(lost: int = 0, *, n: int = 1000) -> AccuracyFigures:
    """A reference that is right for 95 %, and a candidate that loses some of these samples."""
    classes = numpy.eye(10, dtype=numpy.float32)
    right = n * 95 // 100
    reference = classes[[0] * right + [1] * (n - right)]
    candidate = classes[[0] * (right - lost) + [1] * (n - right + lost)]
    return compare_predictions(candidate, numpy.zeros(n, dtype=int), reference)


def accuracy(lost: int = 0, *, n: int = 1000) -> AccuracyResult:
    compared = figures(lost, n=n)
    return AccuracyResult(compared, judge_accuracy(compared))


def measured(
    name: str = "digits_cnn", precision: str = "int8", *, factor: float = 1.0, lost: int = 0, compared: bool = True
) -> CaseResult:
    """A case that went all the way."""
    case = CaseResult(
        f"{name}-tflite-{precision}-b1-t1", name, "tflite", precision, nodeids=[f"test_latency.py::test_latency[{name}]"]
    )
    case.latency = latency(factor, compared=compared)
    case.accuracy = accuracy(lost)
    case.artifact = ArtifactResult(digest=f"{name}{precision}", size_bytes=41_234, convert_seconds=1.5, cached=True)
    case.peak_rss_bytes = 123_456_789
    if case.latency.verdict is not None:
        case.conclude(case.latency.verdict, case.latency.reason)
    case.conclude(case.accuracy.verdict, case.accuracy.decision.reason)
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
    case = measured(f"{verdict.value}_cnn")
    assert case.latency is not None
    if verdict is Verdict.INCONCLUSIVE:
        medians = (0.0114, 0.0125, 0.0124, 0.0126, 0.0113)
        decided = case.latency.decided(decide(BASELINE, medians, tolerance=0.05), BASELINE)
    elif verdict is Verdict.UNGATEABLE:
        wild = tuple((0.01142 * factor,) * 5 for factor in (0.9, 1.0, 1.1))
        decided = case.latency.decided(decide(wild, MEDIANS, tolerance=0.05), wild)
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


def everything() -> RunResult:
    """One case of each verdict."""
    return run_of(*(case_with(verdict) for verdict in Verdict), software_changes=["ai-edge-litert 2.1.0 -> 2.3.0"], exit_status=1)
