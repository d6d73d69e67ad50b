"""What a saved benchmark says of its case beyond pytest-benchmark's own figures: the block in its ``extra_info``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .judging import CaseRecord, build_names
from .results import CaseResult, LatencyResult
from .streams.results import StreamResult

CASE_SCHEMA = "inference-gate-case/1"
KEPT_ROUNDS = 200  # of each replicate: enough to draw its distribution, and small enough to commit


def case_block(record: CaseRecord, result: CaseResult) -> dict[str, Any]:
    """Plain JSON; durations in seconds, one list of rounds for each replicate. See docs/reference/files-on-disk.md."""
    latency = result.latency
    assert latency is not None
    return {
        "schema": CASE_SCHEMA,
        "id": result.id,
        "model": result.model,
        "backend": result.backend,
        "precision": result.precision,
        "batch": result.batch,
        "threads": result.threads,
        "variant": result.variant,
        "device": result.device,
        **({} if result.board is None else {"board": result.board}),  # of several; each one's session file is without
        "verdict": str(result.verdict),
        "replicates": list(latency.replicates),
        "rounds": [_sample(replicate.rounds, replicate.pictures) for replicate in record.all_replicates],
        "round_counts": [len(replicate.rounds) for replicate in record.all_replicates],
        "device_rounds": [_sample(replicate.device_rounds, replicate.pictures) for replicate in record.all_replicates],
        **_of_pictures(latency),
        "load": [replicate.load for replicate in record.all_replicates],
        "first_inference": [replicate.first_inference for replicate in record.all_replicates],
        "steady": [replicate.steady for replicate in record.all_replicates],
        "warm_up_rounds": [replicate.warm_up_rounds for replicate in record.all_replicates],
        "condition": [dict(replicate.condition) for replicate in record.all_replicates],
        "telemetry": [dict(replicate.telemetry) if replicate.telemetry else None for replicate in record.all_replicates],
        "median": latency.median,
        "p50": latency.p50,
        "p90": latency.p90,
        "p99": latency.p99,
        "throughput": latency.throughput,
        "peak_rss_bytes": result.peak_rss_bytes,
        "artifact": asdict(result.artifact) if result.artifact else None,
        "accuracy": asdict(result.accuracy.figures) if result.accuracy else None,
        **({"detection": asdict(result.detection.figures)} if result.detection else {}),
        "builds": build_names(record.builds) if record.wanted_builds is not None else [],
        "replicate_builds": list(latency.replicate_builds),
        **({} if result.stream is None else {"stream": stream_block(result.stream)}),
        "coverage": result.coverage.found.as_dict() if result.coverage and result.coverage.found else None,
    }


def stream_block(stream: StreamResult) -> dict[str, Any]:
    """The figures of a stream, plain JSON."""
    return {**asdict(stream), "remarks": list(stream.remarks)}


def _of_pictures(latency: LatencyResult) -> dict[str, Any]:
    """Nothing where the rounds are all about one picture, as in sessions that know of no other way."""
    if latency.pictures == 1:
        return {}
    return {
        "pictures": latency.pictures,
        "picture_medians": list(latency.picture_medians),
        "picture_spread": latency.picture_spread,
        "round_spread": latency.round_spread,
    }


def _sample(rounds: Sequence[float], pictures: int) -> list[float]:
    """At most :data:`KEPT_ROUNDS` of the rounds, evenly spread in time and in their order, to the nanosecond.

    Of rounds on several pictures whole cycles, one at least: so that those kept are about picture k modulo their number too.
    """
    cycles, most = -(-len(rounds) // pictures), max(KEPT_ROUNDS // pictures, 1)
    step = max(cycles / most, 1.0)
    kept = [int(index * step) * pictures for index in range(min(cycles, most))]
    return [round(duration, 9) for first in kept for duration in rounds[first : first + pictures]]
