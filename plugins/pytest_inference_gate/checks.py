"""What the fixtures ``accuracy`` and ``latency`` give a test: the figures, and a check that ends the test as the verdict demands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from typing import Any

import pytest

from . import benchmark_adapter
from .accuracy import AccuracyFigures
from .case_block import case_block
from .detection.accuracy import DetectionFigures
from .judging import CaseRecord
from .report import messages
from .report.plots import can_show
from .results import CaseResult, LatencyResult
from .streams.results import StreamResult
from .verdict import Verdict, effect


class Messages:
    """The texts of failing tests, with what only the run knows.

    ``reproduce`` is the command that runs exactly this case again; ``first`` is how many replicates, or pairs, are looked at before any
    fresh ones; ``paired`` says that two stacks were measured in turns; ``incomparable`` why a baseline that has the case is of no use.
    """

    def __init__(
        self,
        software_changes: Sequence[str] | None,
        record_command: str,
        close_ids: Sequence[str],
        other_devices: Sequence[str],
        *,
        reproduce: str | None = None,
        first: int | None = None,
        paired: bool = False,
        incomparable: str | None = None,
    ) -> None:
        self._software_changes = software_changes
        self._record_command = record_command
        self._close_ids = close_ids
        self._other_devices = other_devices
        self._reproduce = reproduce
        self._first = first
        self._paired = paired
        self._incomparable = incomparable

    def broken(self, result: CaseResult) -> str:
        return messages.broken_message(result, self._software_changes, paired=self._paired)

    def latency(self, result: CaseResult) -> str:
        assert result.latency is not None
        return messages.latency_failure_message(
            result,
            result.latency.decision,
            self._software_changes,
            reproduce=self._reproduce,
            first=self._first,
            # While pytest captures what tests print, sys.stdout is no terminal's; the one that Python began with is.
            ascii_only=not can_show(getattr(sys.__stdout__, "encoding", None)),
        )

    def accuracy(self, result: CaseResult) -> str:
        judged = result.accuracy or result.detection
        assert judged is not None
        return messages.accuracy_failure_message(
            result, judged.decision, self._software_changes, reproduce=self._reproduce, paired=self._paired
        )

    def coverage(self, result: CaseResult) -> str:
        assert result.coverage is not None
        text = messages.coverage_failure_message(
            result, result.coverage, self._software_changes, reproduce=self._reproduce, paired=self._paired
        )
        # One test fails for all of these: whoever mends the one has to know of the others.
        over = any(limit.exceeded for limit in result.limits)
        return f"{text}\n\n{self.limits(result)}" if over else f"{text}{self._failing_latency(result)}"

    def limits(self, result: CaseResult) -> str:
        return f"{messages.limits_failure_message(result, reproduce=self._reproduce)}{self._failing_latency(result)}"

    def _failing_latency(self, result: CaseResult) -> str:
        latency = result.latency
        fails = latency is not None and latency.verdict is not None and effect(latency.verdict) == "fail"
        return f"\n\n{self.latency(result)}" if fails else ""

    def no_baseline(self, result: CaseResult) -> str:
        if self._paired:
            return f"{result.name} has nothing to compare with: {result.reason}; correct that, or name others with --gate-against-models"
        return messages.no_baseline_message(
            result.id, self._record_command, self._close_ids, self._other_devices, incomparable=self._incomparable
        )


class _Check:
    def __init__(self, result: CaseResult, relaxed: Container[str], messages: Messages) -> None:
        self.result = result
        self._relaxed = relaxed
        self._messages = messages

    @property
    def verdict(self) -> Verdict:
        """The whole case's verdict."""
        return self.result.verdict

    def _end_for_outcome(self) -> None:
        """End the test of a case that did not come as far as figures: skipped, expected to fail, or failed."""
        __tracebackhide__ = True
        if not self.result.outcome.ok:
            self._end(self.verdict, self._messages.broken)

    def _end_for_coverage(self) -> None:
        """Fail the test of a case of which too little runs on its accelerator."""
        __tracebackhide__ = True
        if self.result.coverage is not None and self.result.coverage.red:
            self._end(self.result.coverage.decision.verdict, self._messages.coverage)

    def _end_for_limits(self) -> None:
        """Fail the test of a case that is over a limit of its card."""
        __tracebackhide__ = True
        if any(limit.exceeded for limit in self.result.limits):
            self._end(Verdict.OVER_LIMIT, self._messages.limits)

    def _end(self, verdict: Verdict, message: Callable[[CaseResult], str]) -> None:
        __tracebackhide__ = True
        ending = effect(verdict, self._relaxed)
        if ending == "skip":
            pytest.skip(self.result.reason)
        if ending == "xfail":
            pytest.xfail(self.result.reason)
        if ending in ("fail", "error"):
            pytest.fail(message(self.result), pytrace=False)


class AccuracyCheck(_Check):
    """``figures`` are those of a classifier, ``detection`` those of a detector; ``None`` where the case did not come so far."""

    @property
    def figures(self) -> AccuracyFigures | None:
        return self.result.accuracy.figures if self.result.accuracy else None

    @property
    def detection(self) -> DetectionFigures | None:
        return self.result.detection.figures if self.result.detection else None

    def check(self) -> None:
        """End the test as the verdict on accuracy demands; do nothing where the case is accurate enough.

        Where latency was not measured, so that no test of it fails, a fall-back from the accelerator or a limit that is exceeded fails this
        one.
        """
        __tracebackhide__ = True
        self._end_for_outcome()
        judged = self.result.accuracy or self.result.detection
        if judged is None:
            raise ValueError("accuracy was not judged for this case")
        self._end(judged.verdict, self._messages.accuracy)
        if self.result.latency is None:
            self._end_for_coverage()
            self._end_for_limits()


class LatencyCheck(_Check):
    """``figures`` are ``None`` where the case did not come so far."""

    def __init__(
        self,
        result: CaseResult,
        record: CaseRecord,
        clock: benchmark_adapter.ReplayClock | None,
        relaxed: Container[str],
        messages: Messages,
        *,
        lacks_baseline: bool,
    ) -> None:
        super().__init__(result, relaxed, messages)
        self._record = record
        self._clock = clock
        self._lacks_baseline = lacks_baseline

    @property
    def figures(self) -> LatencyResult | None:
        return self.result.latency

    def require_baseline(self) -> None:
        """Fail where the run compares and the baseline does not have the case. Called in the fixture, so that the test errors."""
        __tracebackhide__ = True
        if self._lacks_baseline and self.result.outcome.ok:
            pytest.fail(self._messages.no_baseline(self.result), pytrace=False)

    def replay_into(self, benchmark: Any) -> None:
        """Have pytest-benchmark's ``benchmark`` fixture see the rounds of all replicates, and the case's figures as its extra info.

        Ends the test where the case was not measured: skipped, expected to fail, or failed.
        """
        __tracebackhide__ = True
        if not self.result.outcome.ok:
            benchmark_adapter.leave_unused(benchmark)
        self._end_for_outcome()
        if self._clock is None:
            raise ValueError("replay_into needs a test that asks for the fixtures latency and benchmark by name")
        benchmark.extra_info[benchmark_adapter.CASE_KEY] = case_block(self._record, self.result)
        rounds = [duration for replicate in self._record.all_replicates for duration in replicate.rounds]
        benchmark_adapter.replay(benchmark, self._clock, rounds)

    def check(self) -> None:
        """End the test as the verdicts on latency, on coverage and on the card's limits demand; the last two need nothing to compare with.

        How fast a case is says little while less of it runs on the accelerator, so a fall-back comes first.
        """
        __tracebackhide__ = True
        self._end_for_outcome()
        if self.result.latency is None:
            raise ValueError("latency was not measured for this case")
        self._end_for_coverage()
        self._end_for_limits()
        if self.result.latency.verdict is not None:
            self._end(self.result.latency.verdict, self._messages.latency)


class StreamCheck(LatencyCheck):
    """``stream`` holds the figures of the frames, ``None`` where the case did not come so far; ``figures`` are those of the frame times."""

    @property
    def stream(self) -> StreamResult | None:
        return self.result.stream

    @property
    def answers(self) -> tuple[int, ...]:
        """Of the first replicate, one for each frame: the class on top, or the number of detections."""
        found = [replicate.stream.answers for replicate in self._record.all_replicates if replicate.stream is not None]
        return found[0] if found else ()
