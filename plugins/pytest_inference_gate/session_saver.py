"""What becomes of a session that pytest-benchmark wants to save: which cases may be a baseline, and where they go."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from . import benchmark_adapter
from .baselines import CANDIDATES, save_session


class SessionSaver:
    """Saves into the device's folder. ``lines`` say afterwards what was saved, and what was not.

    A case is saved if its verdict is green and no test of it failed, whatever the reason. A run that compares never adds to what it is
    compared with: otherwise each small slow-down would become the baseline of the next. Its cases go to ``candidates/``, which no
    run reads as a baseline.
    """

    def __init__(self, directory: Path, *, comparing: bool) -> None:
        self._directory = directory
        self._comparing = comparing
        self.lines: list[str] = []
        self.name: str | None = None  # of the baseline that was saved

    def save(
        self, document: Mapping[str, Any], name: str, refused: Container[str], red: Container[str], unknown: Container[str] = ()
    ) -> None:
        """``refused``: ids of cases with a failed test; ``red``: ids of cases whose verdict closes the gate; ``unknown``: of those with a
        test that has not run. Raises a ``GateError``."""
        plain, good, dropped, unfinished = [], [], [], []
        kept: set[str] = set()
        verdicts: dict[str, str] = {}  # of those that are dropped
        for benchmark in document["benchmarks"]:
            block = benchmark_adapter.case_block(benchmark)
            if block is None:
                plain.append(benchmark)
            elif block["id"] in refused or block["id"] in red:
                dropped.append(block["id"])
                verdicts[block["id"]] = str(block.get("verdict"))
            elif block["id"] in unknown:
                unfinished.append(block["id"])
                verdicts[block["id"]] = str(block.get("verdict"))
            elif block["id"] in kept:
                # Two tests replayed the same rounds: a baseline holds the case once, and the other entry without the gate's part.
                good.append(benchmark_adapter.without_case_block(benchmark))
            else:
                kept.add(block["id"])
                good.append(benchmark)
        broken = document.get(benchmark_adapter.CASE_KEY, {}).get("broken", [])
        if self._comparing:
            if plain:
                # Without the gate's block: what this run found broken must not be known as broken to the next.
                rest = {key: value for key, value in document.items() if key != benchmark_adapter.CASE_KEY}
                path = save_session(self._directory, name, {**rest, "benchmarks": plain})
                self.lines.append(f"saved the benchmarks that are no cases in {path}")
            if good:
                candidate = {**document, "benchmarks": good}
                if benchmark_adapter.CASE_KEY in document:
                    # Who promotes it to a baseline has to know that not all of the run was good.
                    left_out = [{"id": id, "verdict": verdict} for id, verdict in sorted(verdicts.items())]
                    candidate[benchmark_adapter.CASE_KEY] = {**document[benchmark_adapter.CASE_KEY], "left_out": left_out}
                path = save_session(self._directory / CANDIDATES, name, candidate)
                self.lines.append(f"saved as a candidate, not as a baseline, since this run compares: {path}")
        elif plain or good:
            path = save_session(self._directory, name, {**document, "benchmarks": plain + good})
            self.name = path.stem
            known = f", {len(broken)} known to be broken" if broken else ""
            self.lines.append(f"saved {len(kept)} case{'' if len(kept) == 1 else 's'}{known} in {path}")
        if unfinished:
            self.lines.append(f"not saved, since not all of their tests have run: {', '.join(sorted(set(unfinished)))}")
        if dropped:
            self.lines.append(f"not saved, since they failed: {', '.join(sorted(set(dropped)))}")
