"""The gate of one device: its baseline, the decisions on its cases, what its condition takes back, and the saving of its sessions."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import benchmark_adapter
from .case_limits import hold_to_limits
from .decision import ALPHA, LatencyDecision
from .devices import SoftwareUnderTest
from .judging import CaseRecord, decide_latency, judge
from .machine.condition import Disturbance, canary_shifts, remarks, veto
from .outcome import Outcome
from .results import CaseResult, ComparedSession, DeviceResult
from .verdict import Verdict

if TYPE_CHECKING:
    from .baselines import BaselineSession
    from .case_selection import CaseSelection, WantedCase
    from .cases import Case
    from .comparison import Baseline
    from .device_run import DeviceRun
    from .options import Settings
    from .run_environment import DeviceUnderTest
    from .session_saver import SessionSaver


class DeviceGate:
    """``baseline`` is ``None`` in a run that compares with none, and where the device could not be asked; ``saver`` in the latter case.

    ``run`` is set once the device's run is made: it takes this object, which decides how often a case is measured. ``family`` tells of how
    many cases, of all devices, one may seem to have changed by chance.
    """

    run: DeviceRun

    def __init__(
        self,
        device: DeviceUnderTest,
        baseline: Baseline | None,
        saver: SessionSaver | None,
        selection: CaseSelection,
        settings: Settings,
        family: Callable[[], int],
    ) -> None:
        self.device = device
        self.baseline = baseline
        self.saver = saver
        self._selection = selection
        self._settings = settings
        self._family = family

    @property
    def wanted(self) -> list[WantedCase]:
        """What the selected tests ask of this device."""
        return [one for one in self._selection.wanted.values() if one.case.board == self.device.name]

    def say(self, text: str) -> str:
        """A sentence that is true of this device: with its name where there are several."""
        return text if self.device.name is None else f"{self.device.name}: {text}"

    def _tolerance(self, case: Case) -> float:
        return self._selection.tolerance(self._selection.wanted[case.test_id])

    @property
    def measurable(self) -> int:
        """How many of its cases have a latency to be decided on: what it lacks the device or the runtime for has none, nor what broke."""
        return sum(one.latency and self.run.records[one.case.id].outcome.ok for one in self.wanted)

    # ---------------------------------------------------------------- while it measures

    def compares(self, case: Case) -> bool:
        return self.baseline is not None and bool(self.baseline.timed(case))

    def decide(self, record: CaseRecord, *, final: bool = False) -> LatencyDecision | None:
        # While it is measured, a case goes on until it is sure enough even if it alone has changed of all cases (see correct_for_family).
        alpha = ALPHA if final else ALPHA / max(1, self._family())
        return decide_latency(
            record,
            self.baseline,
            tolerance=self._tolerance(record.case),
            first=self._settings.replicates,
            final=final,
            alpha=alpha,
        )

    # ---------------------------------------------------------------- when it has measured

    def decisions(self) -> dict[str, LatencyDecision]:
        """Those on latency, by the parameter of the tests, before they are corrected for being many."""
        found = {}
        for one in self.wanted:
            record = self.run.records[one.case.id]
            if one.latency and (decision := self.decide(record, final=True)) is not None:
                found[one.case.test_id] = decision
        return found

    def judge(self, wanted: WantedCase, decision: LatencyDecision | None) -> CaseResult:
        record = self.run.records[wanted.case.id]
        record.nodeids = [item.nodeid for item in wanted.items]
        return judge(
            record,
            self.baseline,
            decision,
            wants_latency=wanted.latency,
            wants_accuracy=wanted.accuracy,
            invalid=self._veto(record, decision),
        )

    def hold_to_limits(self, results: Mapping[str, CaseResult]) -> list[str]:
        """Judge what the cards limit, when all else is judged; returns sentences for the user. ``results``: by the tests' parameter."""
        mine = {one.case.id: results[one.case.test_id] for one in self.wanted}
        return [self.say(text) for text in hold_to_limits(mine, self.run.records, self.free_cores)]

    @property
    def free_cores(self) -> float | None:
        """The cores that were there for the cases, without what others used while most were measured; ``None`` where that is not known."""
        cores = self.device.identity.usable_cores or self.device.identity.online_cores
        disturbance = Disturbance.of(
            replicate.condition for record in self.run.records.values() for replicate in record.all_replicates
        )
        if cores is None or disturbance.load is None or not disturbance.mostly:
            return cores
        return max(0.0, cores - disturbance.load)

    def _veto(self, record: CaseRecord, decision: LatencyDecision | None) -> str | None:
        """Why the latency of a case cannot be trusted: what happened to the machine meanwhile, or since the baseline."""
        if not record.measured:
            return None
        threshold = self._tolerance(record.case) if decision is None else decision.threshold
        problems = self.run.condition_before.problems(self.run.condition_after)
        disturbance = Disturbance.of(replicate.condition for replicate in record.all_replicates)
        shifts = canary_shifts(self._baseline_canaries(), self.run.canary, threshold)
        return veto(
            None if decision is None else decision.verdict,
            None if decision is None else decision.ratio,
            threshold,
            problems=problems,
            disturbance=disturbance,
            shifts=shifts,
            in_turns=bool(record.pairs),
        )

    def machine_remarks(self, decisions: Iterable[LatencyDecision]) -> list[str]:
        """What was wrong with the machine as a whole, whether it took a verdict back or not."""
        thresholds = [decision.threshold for decision in decisions]
        records = [self.run.records[one.case.id] for one in self.wanted if one.latency]
        conditions = [replicate.condition for record in records for replicate in record.all_replicates]
        found = remarks(
            min(thresholds, default=self._settings.default_tolerance),
            problems=self.run.condition_before.problems(self.run.condition_after),
            disturbance=Disturbance.of(conditions),
            shifts=canary_shifts(self._baseline_canaries(), self.run.canary, min(thresholds, default=0.0)),
        )
        return [self.say(f"the machine: {remark}") for remark in found]

    def left_open(self, decisions: Iterable[LatencyDecision]) -> list[str]:
        """How to measure more on a board that cannot be asked any more, where that could settle a case."""
        recording = self.device.runtime.target.recording
        if recording is None or not any(decision.verdict is Verdict.INCONCLUSIVE for decision in decisions):
            return []
        more = (
            f"the bundle measured each case {recording.replicates} times at most, and what that leaves open cannot be measured here: "
            f"measure with more replicates, by inference-gate bundle export --replicates={2 * recording.replicates}"
        )
        return [self.say(more)]

    def _baseline_canaries(self) -> list[Mapping[str, Any]]:
        sessions = self.baseline.sessions if self.baseline else ()
        return [canary for session in sessions if isinstance(canary := session.condition.get("canary"), Mapping)]

    def shallowness(self, decisions: Mapping[str, LatencyDecision]) -> list[str]:
        """What keeps the baseline from showing what the tolerances ask for; how many sessions there are is said elsewhere.

        ``decisions``: of this device, by the parameter of the tests.
        """
        if self.baseline is None or not decisions:
            return []
        from .baseline_command.stack_axes import mixed_baseline
        from .baseline_depth import baseline_depth_lines

        cases = {test_id: self._selection.wanted[test_id].case for test_id in decisions}
        mixed = mixed_baseline(self.baseline.sessions)
        _, *doubts = baseline_depth_lines(
            self.baseline.sessions,
            datetime.now(timezone.utc),
            tolerance={case.id: self._tolerance(case) for case in cases.values()},
            minimum_detectable={case.id: decisions[test_id].minimum_detectable for test_id, case in cases.items()},
        ) or [""]
        return [self.say(doubt) for doubt in (*doubts, *([] if mixed is None else [mixed]))]

    def absent_cases(self) -> list[str]:
        """Ids of cases that the baseline has and this run has not."""
        return sorted(self.baseline.case_ids - {one.case.id for one in self.wanted}) if self.baseline else []

    def lacks_baseline(self, case: Case) -> bool:
        """Whether the run compares, and there is nothing to compare the case with."""
        baseline, record = self.baseline, self.run.records[case.id]
        lacks = baseline is not None and not baseline.timed(case) and baseline.broken(case.id) is None
        other = record.other
        return lacks or (other is not None and (other.case is None or other.outcome.is_of_the_surroundings))

    # ---------------------------------------------------------------- saving

    def session_block(self, seed: int) -> dict[str, Any]:
        """The gate's part of a session file of this device, plain JSON."""
        broken = [
            {"id": case_id, "outcome": _outcome_block(record.outcome)}
            for case_id, record in self.run.records.items()
            if not record.outcome.ok and record.outcome.kind != "unsupported" and not record.outcome.is_of_the_surroundings
        ]
        return {
            "schema": "inference-gate-session/1",
            "device": {"id": self.device.id, "identity": self.device.identity.as_dict()},
            "software": dict(self.device.software.versions),
            "condition": self._condition(),
            "seed": seed,
            "broken": broken,
        }

    def save(
        self,
        document: Mapping[str, Any],
        name: str,
        seed: int,
        refused: Container[str],
        red: Container[str],
        unknown: Container[str],
        *,
        plain: bool,
    ) -> None:
        """Save what of pytest-benchmark's ``document`` is about this device, as a run with this device alone would have saved it.

        ``refused``, ``red`` and ``unknown`` hold parameters of tests; ``plain``: with the benchmarks that are about no case. Raises a
        ``GateError``.
        """
        if self.saver is None:
            return
        cases = {one.case.test_id: one.case.id for one in self.wanted}
        benchmarks = benchmark_adapter.of_board(document["benchmarks"], self.device.name, plain=plain)
        self.saver.save(
            {**document, "benchmarks": benchmarks, benchmark_adapter.CASE_KEY: self.session_block(seed)},
            name,
            refused={case_id for test_id, case_id in cases.items() if test_id in refused},
            red={case_id for test_id, case_id in cases.items() if test_id in red},
            unknown={case_id for test_id, case_id in cases.items() if test_id in unknown},
        )

    def _condition(self) -> dict[str, Any]:
        return {
            "before": self.run.condition_before.as_dict(),
            "after": self.run.condition_after.as_dict(),
            "canary": self.run.canary,
        }

    # ---------------------------------------------------------------- reporting

    def software_changes(self) -> Sequence[str] | None:
        """Since the baseline, or from the other stack to this one; ``None`` where there is nothing to compare with."""
        if self.device.failure is not None:
            return None
        if self.device.other is not None:
            return SoftwareUnderTest.changes(self.device.other.software, self.device.software)
        if self.baseline is None or not self.baseline.sessions:
            return None
        return SoftwareUnderTest.changes(self.baseline.software, self.device.software)

    @property
    def compared_sessions(self) -> Sequence[BaselineSession]:
        return self.baseline.sessions if self.baseline else ()

    def result(self) -> DeviceResult:
        device = self.device
        if device.failure is not None:
            return DeviceResult(device.id, name=device.name)
        return DeviceResult(
            device.id,
            device.identity.as_dict(),
            device.software.versions,
            self._condition(),
            name=device.name,
            compared_sessions=[ComparedSession(session.path.stem, session.datetime) for session in self.compared_sessions],
            software_changes=self.software_changes(),
            free_cores=self.free_cores,
        )


def _outcome_block(outcome: Outcome) -> dict[str, Any]:
    return {"kind": outcome.kind, "stage": outcome.stage, "signal": outcome.signal, "message": outcome.message}
