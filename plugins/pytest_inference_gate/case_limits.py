"""What this run found of each case that its card limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .backends import CPU
from .build_results import node_counts
from .limits import Figure, judge_limits
from .results import CaseResult
from .streams.limits import stream_figures
from .thread_scaling import note_thread_speedups, one_thread_cases, scaling_key
from .verdict import Verdict
from .wording import counted, in_words

if TYPE_CHECKING:
    from .judging import CaseRecord


def hold_to_limits(results: Mapping[str, CaseResult], records: Mapping[str, CaseRecord], cores: float | None) -> list[str]:
    """Judge the limits of one device's cases, both by the cases' ids, and conclude what is over one; returns sentences for the user.

    To be called when all of them are judged otherwise: how a case threads shows beside another one. ``cores`` are those that were
    free for them, ``None`` where that is not known.
    """
    note_thread_speedups(results.values())
    with_one = one_thread_cases(results.values())
    for case_id, result in results.items():
        record = records[case_id]
        limits = record.case.card.limits.of(result.precision, result.threads)
        if limits and result.outcome.ok:
            figures = {**_figures(result, record), **_speedup(result, with_one.get(scaling_key(result)), cores)}
            result.limits = judge_limits(limits, figures)
        exceeded = [limit.reason for limit in result.limits if limit.exceeded]
        if exceeded:
            result.conclude(Verdict.OVER_LIMIT, "; ".join(exceeded))
    return [*_too_many_threads(results.values(), cores), *_not_in_this_run(results.values(), records)]


def _figures(result: CaseResult, record: CaseRecord) -> dict[str, Figure]:
    """Of what was asked for in this run. Of several builds of the model any may be shipped, so the largest and the slowest count."""
    found: dict[str, Figure] = {}
    if record.builds:
        found["size_bytes"] = Figure(float(max(build.size_bytes for build in record.builds)))
        seconds = [build.provenance.get("seconds") for build in record.builds]
        known = [float(value) for value in seconds if isinstance(value, (int, float))]
        complete = len(known) == len(record.builds)
        found["build_seconds"] = Figure(max(known)) if complete else Figure(None, "nothing tells how long it took to build")
        nodes = [
            counts.after for build in record.builds if (counts := node_counts(build.provenance)) and counts.after is not None
        ]
        found["nodes_after"] = (
            Figure(float(max(nodes)))
            if len(nodes) == len(record.builds)
            else Figure(None, "nothing tells how many nodes its graph has after the conversion")
        )
    if result.stream is not None:
        found |= stream_figures(result.stream)
    if result.latency is not None and result.stream is None:  # a stream's durations are frames, and not inferences
        # Figures of a disturbed machine count too: it is slower, so that what is within its limit there is so anywhere.
        remark = "" if result.latency.invalid is None else "measured while the machine was disturbed"
        first, peak = result.latency.first_inference, result.peak_rss_bytes
        found["median_seconds"] = Figure(result.latency.median, remark)
        found["first_inference_seconds"] = (
            Figure(None, "nothing tells how long its first inference took") if first is None else Figure(first, remark)
        )
        found["peak_memory_bytes"] = (
            Figure(None, "nothing tells how much memory its process took") if peak is None else Figure(float(peak))
        )
    return found


def _speedup(result: CaseResult, one: CaseResult | None, cores: float | None) -> dict[str, Figure]:
    """That of the case's threads, where it has more than one."""
    if result.threads == 1 or result.latency is None or result.stream is not None:
        return {}
    if result.thread_speedup is not None:
        told = counted(result.threads, "thread")
        if cores is not None and result.threads > cores:
            told += f" on {round(cores, 1):g} free cores"
        return {"thread_speedup": Figure(result.thread_speedup, told)}
    if one is None:
        missing = f"the same case with one thread is not in this run: add it with --gate-threads=1,{result.threads}"
    else:
        missing = f"{one.name} was not measured in this run"
    return {"thread_speedup": Figure(None, missing)}


def _too_many_threads(results: Iterable[CaseResult], cores: float | None) -> list[str]:
    if cores is None:
        return []
    counts = {
        case.threads for case in results if case.latency is not None and case.device == CPU and case.threads > max(cores, 1)
    }
    if not counts:
        return []
    numbers = in_words([str(count) for count in sorted(counts)])
    free = f"{round(cores, 1):g} free cores"
    return [f"{numbers} threads had {free} and waited for each other: what they gain is no measure of how a model threads"]


def _not_in_this_run(results: Iterable[CaseResult], records: Mapping[str, CaseRecord]) -> list[str]:
    """Limits on numbers of threads that no case has: nobody else would tell that they were not looked at."""
    known: dict[str, set[int]] = {}
    for result in results:
        if result.latency is not None:
            known.setdefault(result.model, set()).add(result.threads)
    limited = {record.case.model: record.case.card.limits.thread_counts for record in records.values()}
    sentences = []
    for model, counts in known.items():
        missing = sorted(limited[model] - counts)
        if missing:
            numbers = in_words([str(count) for count in missing])
            every = ",".join(str(count) for count in sorted({1, *missing}))
            sentences.append(
                f"{model}: its card limits the speed-up with {numbers} threads, which no case of this run has: --gate-threads={every}"
                " measures it"
            )
    return sentences
