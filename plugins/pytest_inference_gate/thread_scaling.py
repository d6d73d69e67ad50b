"""How much faster more threads make a case: its median with one thread over its median with as many as it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .results import CaseResult

_Key = tuple[str | None, str, str, str, int, str]


def note_thread_speedups(results: Iterable[CaseResult]) -> None:
    """Set ``thread_speedup`` of each case that has more than one thread and whose like with one thread was measured in the same run."""
    cases = list(results)
    with_one = one_thread_cases(cases)
    for case in cases:
        one = with_one.get(scaling_key(case))
        if case.threads > 1 and case.latency is not None and one is not None and one.latency is not None:
            case.thread_speedup = one.latency.median / case.latency.median


def one_thread_cases(results: Iterable[CaseResult]) -> Mapping[_Key, CaseResult]:
    """Those with one thread, by what they have in common with the same case with more."""
    return {scaling_key(case): case for case in results if case.threads == 1}


def scaling_key(case: CaseResult) -> _Key:
    """All that tells a case from others but its threads: board, model, backend, precision, batch, and what its id adds to these."""
    numbered = f"{case.model}-{case.backend}-{case.precision}-b{case.batch}-t{case.threads}"
    return case.board, case.model, case.backend, case.precision, case.batch, case.id.removeprefix(numbered)
