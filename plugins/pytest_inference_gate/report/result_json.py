"""The ``--gate-json`` document: one JSON object a run, for programs.

``result.schema.json`` beside this module describes it (JSON Schema, draft 2020-12); docs/reference/result-json.md explains it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from enum import Enum
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..atomic_files import explained, write_atomically
from ..coverage import Coverage
from ..decision import BuildComparison
from ..device_telemetry import TelemetryResult
from ..errors import GateError
from ..published import PublishedFigure
from ..results import (
    AccuracyResult,
    ArtifactResult,
    CaseResult,
    ComparedSession,
    CoverageResult,
    DetectionResult,
    DeviceResult,
    LatencyResult,
    OtherStack,
    RunResult,
)
from ..streams.results import StreamResult

SCHEMA = "inference-gate/1"

_REMEDY = "give another --gate-json=PATH"


def build_document(run: RunResult) -> dict[str, Any]:
    """The run as the document that the schema describes, made of what JSON knows: no NaN, no infinity (null stands for both)."""
    document = {
        "schema": SCHEMA,
        "mode": run.mode,
        "device": _device(run.device),
        "devices": [_full_device(device) for device in run.devices or [_only_device(run)]],
        "cases": [_case(case) for case in run.cases],
        "phases": run.phases,
        "notices": run.notices,
        "software_changes": run.software_changes,
        "compared_sessions": _sessions(run.compared_sessions),
        "against": None if run.against is None else _other_stack(run.against),
        "saved": run.saved,
        "summary": {
            "verdicts": {verdict.value: count for verdict, count in run.counts().items()},
            "red": run.red,
            "relaxed": sorted(run.relaxed),
            "exit_status": run.exit_status,
        },
    }
    plain = _plain(document)
    assert isinstance(plain, dict)
    return plain


def write_document(run: RunResult, path: Path) -> None:
    """Write the run's document to ``path``, wholly or not at all; missing parent directories are made.

    A link is followed; something that is neither file nor directory, like a named pipe, is written to as it is.

    Raises GateError with a sentence where the operating system refuses.
    """
    text = json.dumps(build_document(run), allow_nan=False, ensure_ascii=False, indent=2) + "\n"
    # Lone surrogates, from undecodable bytes in a path, have no UTF-8 form of their own.
    data = text.encode("utf-8", "backslashreplace")
    with explained(f"write {path.name}", path.parent, remedy=_REMEDY):
        if path.is_dir():
            raise GateError(f"Cannot write the result to {path}, which is a directory: {_REMEDY}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise GateError(f"Cannot write the result to {path}: {path.parent} is not a directory; {_REMEDY}.") from None
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                stream.write(data)
            return
        path = Path(os.path.realpath(path))  # Path.resolve raises a RuntimeError where links go round in a circle
    write_atomically(path, data, remedy=_REMEDY)


def read_schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    schema = json.loads((Path(__file__).parent / "result.schema.json").read_text(encoding="utf-8"))
    assert isinstance(schema, dict)
    return schema


def _only_device(run: RunResult) -> DeviceResult:
    return replace(run.device, compared_sessions=run.compared_sessions, software_changes=run.software_changes, saved=run.saved)


def _device(device: DeviceResult) -> dict[str, Any]:
    return {
        "id": device.id,
        "identity": device.identity,
        "software": device.software,
        "condition": device.condition,
    }


def _full_device(device: DeviceResult) -> dict[str, Any]:
    return {
        "name": device.name,
        **_device(device),
        "software_changes": device.software_changes,
        "compared_sessions": _sessions(device.compared_sessions),
        "saved": device.saved,
    }


def _sessions(sessions: Sequence[ComparedSession]) -> list[dict[str, Any]]:
    return [{"name": session.name, "datetime": session.datetime} for session in sessions]


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "id": case.id,
        "board": case.board,
        "nodeids": case.nodeids,
        "model": case.model,
        "backend": case.backend,
        "precision": case.precision,
        "batch": case.batch,
        "threads": case.threads,
        "variant": case.variant,
        "device": case.device,
        "verdict": case.verdict,
        "reason": case.reason,
        "outcome": {
            "kind": case.outcome.kind,
            "stage": case.outcome.stage,
            "message": case.outcome.message,
            "signal": case.outcome.signal,
            "log": case.outcome.log,
        },
        "latency": None if case.latency is None else _latency(case.latency),
        "accuracy": None if case.accuracy is None else _accuracy(case.accuracy),
        "detection": None if case.detection is None else _detection(case.detection),
        "artifact": None if case.artifact is None else _artifact(case.artifact),
        "coverage": None if case.coverage is None else _coverage(case.coverage),
        "memory": {"peak_rss_bytes": case.peak_rss_bytes},
        "telemetry": None if case.telemetry is None else _telemetry(case.telemetry),
        "published": [_published(figure) for figure in case.published],
        "limits": [asdict(limit) for limit in case.limits],
        "stream": None if case.stream is None else _stream(case.stream),
        "thread_speedup": case.thread_speedup,
    }


def _other_stack(other: OtherStack) -> dict[str, Any]:
    return {"python": other.python, "software": other.software, "models": other.models}


def _latency(latency: LatencyResult) -> dict[str, Any]:
    decision = latency.decision
    return {
        "verdict": latency.verdict,
        "reason": latency.reason,
        "unit": "s",
        "load": latency.load,
        "first_inference": latency.first_inference,
        "replicates": latency.replicates,
        "rounds": latency.rounds,
        "unsteady": latency.unsteady,
        "median": latency.median,
        "p50": latency.p50,
        "p90": latency.p90,
        "p99": latency.p99,
        "throughput": latency.throughput,
        "pictures": latency.pictures,
        "picture_medians": latency.picture_medians,
        "picture_spread": latency.picture_spread,
        "round_spread": latency.round_spread,
        "baseline_pictures": latency.baseline_pictures,
        "cost_seconds": latency.cost,
        "baseline_sessions": latency.baseline_sessions,
        "pair_ratios": latency.pair_ratios,
        "replicate_builds": latency.replicate_builds,
        "build_medians": latency.build_medians,
        "build_spread": latency.build_spread,
        "compared_builds": None if decision is None or decision.builds is None else _builds(decision.builds),
        "baseline_median": None if decision is None else decision.baseline_median,
        "ratio": None if decision is None else decision.ratio,
        "interval": None if decision is None else decision.interval,
        "threshold": None if decision is None else decision.threshold,
        "p_value": None if decision is None else decision.p_value,
        "family": None if decision is None else decision.family,
        "stage": None if decision is None else decision.stage,
        "minimum_detectable": None if decision is None else decision.minimum_detectable,
    }


def _builds(builds: BuildComparison) -> dict[str, Any]:
    return {"candidate": builds.candidate, "baseline": builds.baseline, "scatter": builds.spread, "same": builds.same}


def _accuracy(accuracy: AccuracyResult) -> dict[str, Any]:
    figures = accuracy.figures
    return {
        "verdict": accuracy.verdict,
        "reason": accuracy.decision.reason,
        "top1": figures.top1,
        "top5": figures.top5,
        "n": figures.n,
        "classes": figures.classes,
        "reference_top1": figures.reference_top1,
        "drop": figures.drop,
        "lost": figures.lost,
        "won": figures.won,
        "agreement": figures.agreement,
        "agreement_top5": figures.agreement_top5,
        "p_value": accuracy.decision.p_value,
        "mcnemar_p": figures.mcnemar_p,
        "mcnemar_p_two_sided": figures.mcnemar_p_two_sided,
        "smallest_detectable_drop": figures.smallest_detectable_drop,
        "confidence_drift": figures.confidence_drift,
        "confidence_drift_signed": figures.confidence_drift_signed,
        "cosine": figures.cosine,
        "kl": figures.kl,
        "nan_count": figures.nan_count,
        "reference_nan_count": figures.reference_nan_count,
        "metrics": accuracy.metrics,
    }


def _detection(detection: DetectionResult) -> dict[str, Any]:
    figures = asdict(detection.figures)
    del figures["alpha"]
    return {
        "verdict": detection.verdict,
        "reason": detection.decision.reason,
        "p_value": detection.decision.p_value,
        **figures,
        "metrics": detection.metrics,
    }


def _coverage(coverage: CoverageResult) -> dict[str, Any]:
    return {
        "verdict": coverage.verdict,
        "reason": coverage.decision.reason,
        "found": _placement(coverage.found),
        "baseline": _placement(coverage.decision.before),
    }


def _stream(stream: StreamResult) -> dict[str, Any]:
    sustained = stream.sustained
    return {
        "source": stream.source,
        "digest": stream.digest,
        "pace": stream.pace,
        "budget_frames_per_second": stream.budget_frames_per_second,
        "overlapped": stream.overlapped,
        "opencv": stream.opencv,
        "frames": stream.frames,
        "stages": stream.stages,
        "shares": stream.shares,
        "costliest": stream.costliest,
        "waiting": stream.waiting,
        "frames_per_second": stream.frames_per_second,
        "dropped_share": stream.dropped_share,
        "drops": stream.drops,
        "age": stream.age,
        "remarks": stream.remarks,
        "sustained": None
        if sustained is None
        else {
            "seconds": sustained.seconds,
            "frames": sustained.frames,
            "frames_per_second": sustained.frames_per_second,
            "last_frames_per_second": sustained.last_frames_per_second,
            "dropped_share": sustained.dropped_share,
            "side_seconds": sustained.drift.side,
            "first_median": sustained.drift.first_median,
            "last_median": sustained.drift.last_median,
            "ratio": sustained.drift.ratio,
            "p_value": sustained.drift.p_value,
        },
    }


def _placement(coverage: Coverage | None) -> dict[str, Any] | None:
    return None if coverage is None else {**coverage.as_dict(), "share": coverage.share}


def _artifact(artifact: ArtifactResult) -> dict[str, Any]:
    return {
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes,
        "convert_seconds": artifact.convert_seconds,
        "cached": artifact.cached,
        "nodes": None
        if artifact.nodes is None
        else {"before": artifact.nodes.before, "after": artifact.nodes.after, "converted": artifact.nodes.converted},
        "engines": artifact.engines,
    }


def _telemetry(telemetry: TelemetryResult) -> dict[str, Any]:
    return {
        "source": telemetry.source,
        "replicates": telemetry.replicates,
        "total_rail": telemetry.total_rail,
        "rails": {
            name: {
                "joules_per_inference": rail.joules_per_inference,
                "baseline_joules_per_inference": rail.baseline_joules_per_inference,
                "mean_milliwatts": rail.mean_milliwatts,
                "peak_milliwatts": rail.peak_milliwatts,
            }
            for name, rail in telemetry.rails.items()
        },
        "celsius": telemetry.celsius,
        "mhz": {name: {"lowest": lowest, "highest": highest} for name, (lowest, highest) in telemetry.mhz.items()},
    }


def _published(figure: PublishedFigure) -> dict[str, Any]:
    value, unit = figure.in_si or (None, None)
    return {
        "source": figure.source,
        "device": figure.device,
        "software": figure.software,
        "model": figure.model,
        "metric": figure.metric,
        "value": value,
        "unit": unit,
        "as_published": figure.as_published,
        "note": figure.note,
    }


def _plain(value: object) -> object:
    """The same value made of dict, list, str, int, finite float, bool and None."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if isfinite(number) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    return str(value)  # a path, a date
