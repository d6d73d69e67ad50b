"""One run of the gate, as hooks and fixtures see it: selection, the run before the first test, judgement, saving and the report."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import benchmark_adapter
from .agent_role import RunningAgents
from .artifacts import StoredArtifact
from .baselines import BaselineSession
from .build_decision import rebuilding_notices
from .case_selection import CaseSelection, case_id_of
from .cases import Case
from .checks import AccuracyCheck, LatencyCheck, Messages
from .comparison import Baseline, load_baseline
from .coverage import coverage_notices
from .decision import ALPHA, LatencyDecision, correct_for_family
from .devices import SoftwareUnderTest
from .errors import GateError
from .gate_run import GateRun
from .judging import CaseRecord, decide_latency, judge, replicates_at_first
from .machine_condition import Disturbance, canary_shifts, remarks, veto
from .options import Settings
from .outcome import Outcome, StageFailed
from .progress import Progress
from .results import CaseResult, ComparedSession, DeviceResult, Mode, OtherStack, RunResult
from .run_environment import RunEnvironment, open_environment
from .session_saver import SessionSaver
from .verdict import gate_is_red

if TYPE_CHECKING:
    from .runner import Runner
    from .zoo import FetchedCheckpoint

# What would write over something, or select other cases besides.
_NOT_REPEATED = (
    "--benchmark-save",
    "--benchmark-autosave",
    "--benchmark-json",
    "--gate-json",
    "--junit-xml",
    "--junitxml",
    "--gate-select",
)
_NARROWEST = 100  # columns: what the table needs to show all that matters, where no terminal says how wide it is


class GateSession:
    """Made once a run, at the first test that asks for a case.

    ``settings``, ``cases`` and ``results`` are for tests of one's own; results are there once the first test runs.
    """

    run: GateRun
    environment: RunEnvironment

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.comparing = benchmark_adapter.comparing(config)
        self.selection = CaseSelection(config, settings)
        self.results: dict[str, CaseResult] = {}
        self.notices: list[str] = []
        self.phases: dict[str, float] = {}
        self.seed = random.SystemRandom().randrange(2**32) if settings.seed is None else settings.seed
        self._running = RunningAgents()
        self._baseline: Baseline | None = None
        self._unsafe_cases: set[str] = set()  # a test of the case failed, whatever the reason: its figures are no baseline
        self._prepared = False
        self._stopped = False  # by the user or by an error of pytest's own, before all tests had run
        self._run_result: RunResult | None = None

    @property
    def cases(self) -> dict[str, Case]:
        """Every case that cards and options give, by id."""
        return self.selection.cases

    # ---------------------------------------------------------------- before the first test

    def prepare(self) -> None:
        """Do all that the selected tests need, with progress, and judge each case."""
        if not self.selection.wanted:
            return
        self.progress = Progress(self.config)
        try:
            start = time.perf_counter()
            self.environment = open_environment(
                self.settings, self.selection.extensions, self._running, self._notice, self.progress.step
            )
            self.phases["probe"] = time.perf_counter() - start
            self._saver = SessionSaver(self._baseline_directory, comparing=self.comparing)
            if self.settings.targets:
                benchmark_adapter.move_storage(self.config, self._baseline_directory)
            benchmark_adapter.route_saving(self.config, self._save)
            if self.comparing:
                self._baseline = load_baseline(self.config, self._baseline_directory, self.environment.device)
            metrics = self.config.hook.pytest_inference_gate_metrics(config=self.config)
            self.run = GateRun(
                self.settings,
                self.environment,
                self.selection.wanted,
                self.selection.other_cases(),
                self.selection.scalings,
                {name: metric for mapping in metrics for name, metric in mapping.items()},
                self.seed,
                self.progress,
                self.phases,
            )
            self.run.execute(self._running, self._decide, self._compares)
            self.notices += self.run.notes
            self._judge()
        except GateError as error:
            raise pytest.UsageError(str(error)) from None
        finally:
            self._running.close()
            self.progress.close()
        self._prepared = True

    def _notice(self, text: str) -> None:
        self.progress.step(text)
        self.notices.append(text)

    @property
    def device_id(self) -> str | None:
        """Of the device that is measured; ``None`` before it was probed."""
        return self.environment.device.id if hasattr(self, "environment") else None

    @property
    def _baseline_directory(self) -> Path:
        return benchmark_adapter.device_directory(self.config, self.settings.baselines, self.environment.device.id)

    def _compares(self, case: Case) -> bool:
        return self._baseline is not None and bool(self._baseline.cases(case.id))

    def _decide(self, record: CaseRecord, *, final: bool = False) -> LatencyDecision | None:
        tolerance = self.selection.tolerance(self.selection.wanted[record.case.id])
        # While it is measured, a case goes on until it is sure enough even if it alone has changed of all cases (see correct_for_family).
        family = sum(wanted.latency for wanted in self.selection.wanted.values())
        alpha = ALPHA if final else ALPHA / max(1, family)
        return decide_latency(
            record, self._baseline, tolerance=tolerance, first=self.settings.replicates, final=final, alpha=alpha
        )

    def _judge(self) -> None:
        wanting = [record for record in self.run.records.values() if self.selection.wanted[record.case.id].latency]
        found = {record.case.id: decision for record in wanting if (decision := self._decide(record, final=True)) is not None}
        decisions = correct_for_family(found)
        self.notices += self._shallowness(decisions)
        self.notices += rebuilding_notices(decisions)
        for case_id, wanted in self.selection.wanted.items():
            record = self.run.records[case_id]
            record.nodeids = [item.nodeid for item in wanted.items]
            self.results[case_id] = judge(
                record,
                self._baseline,
                decisions.get(case_id),
                wants_latency=wanted.latency,
                wants_accuracy=wanted.accuracy,
                invalid=self._veto(record, decisions.get(case_id)),
            )
            self.config.hook.pytest_inference_gate_result(config=self.config, result=self.results[case_id])
        covered = {case_id: result.coverage.decision for case_id, result in self.results.items() if result.coverage is not None}
        self.notices += coverage_notices(covered)
        self.notices += self._machine_remarks(wanting, decisions.values())

    def _veto(self, record: CaseRecord, decision: LatencyDecision | None) -> str | None:
        """Why the latency of a case cannot be trusted: what happened to the machine meanwhile, or since the baseline."""
        if not record.measured:
            return None
        threshold = self.selection.tolerance(self.selection.wanted[record.case.id]) if decision is None else decision.threshold
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

    def _machine_remarks(self, records: Sequence[CaseRecord], decisions: Iterable[LatencyDecision]) -> list[str]:
        """What was wrong with the machine as a whole, whether it took a verdict back or not."""
        thresholds = [decision.threshold for decision in decisions]
        conditions = [replicate.condition for record in records for replicate in record.all_replicates]
        found = remarks(
            min(thresholds, default=self.settings.default_tolerance),
            problems=self.run.condition_before.problems(self.run.condition_after),
            disturbance=Disturbance.of(conditions),
            shifts=canary_shifts(self._baseline_canaries(), self.run.canary, min(thresholds, default=0.0)),
        )
        return [f"the machine: {remark}" for remark in found]

    def _baseline_canaries(self) -> list[Mapping[str, Any]]:
        sessions = self._baseline.sessions if self._baseline else ()
        return [canary for session in sessions if isinstance(canary := session.condition.get("canary"), Mapping)]

    def _shallowness(self, decisions: Mapping[str, LatencyDecision]) -> list[str]:
        """What keeps the baseline from showing what the tolerances ask for; how many sessions there are is said elsewhere."""
        if self._baseline is None or not decisions:
            return []
        from .baseline_depth import baseline_depth_lines

        _, *doubts = baseline_depth_lines(
            self._baseline.sessions,
            datetime.now(timezone.utc),
            tolerance={case_id: self.selection.tolerance(self.selection.wanted[case_id]) for case_id in decisions},
            minimum_detectable={case_id: decision.minimum_detectable for case_id, decision in decisions.items()},
        ) or [""]
        return doubts

    # ---------------------------------------------------------------- what the fixtures give

    def case(self, case_id: str) -> Case:
        return self.cases[case_id]

    def _record(self, case: Case) -> CaseRecord:
        if case.id not in self.results:
            raise GateError("cases are prepared before the first test runs; this one was not selected then")
        return self.run.records[case.id]

    def checkpoint(self, case: Case) -> FetchedCheckpoint:
        """The case's checkpoint. Fails the test where it cannot be had."""
        try:
            return self.run.preparation.checkpoint(case.card)
        except StageFailed as failure:
            pytest.fail(failure.outcome.message, pytrace=False)

    def artifact(self, case: Case) -> StoredArtifact:
        """The case's artifact. Skips or fails the test where there is none."""
        record = self._record(case)
        if record.artifact is None:
            _stop_for(record.outcome)
        assert record.artifact is not None
        return record.artifact

    @contextlib.contextmanager
    def runner(self, case: Case) -> Iterator[Runner]:
        """An agent of its own with the case's artifact loaded. Skips or fails the test where the case does not come so far."""
        from .preprocessing import preprocess
        from .runner import Runner

        _stop_for(self._record(case).outcome)  # what hangs or crashes at once would do so again in each test
        artifact = self.artifact(case)
        number = sum(1 for _ in self.environment.logs.glob(f"{case.id}.runner-*.log")) + 1
        try:
            agent = self.environment.runtime.start(f"{case.id}.runner-{number}")
            runner = Runner(
                case,
                artifact,
                agent,
                self.environment.runtime.target,
                lambda: self.run.preparation.evaluation_inputs(case.card),
                lambda pictures: preprocess(pictures, case.card, self.selection.scalings),
                self.run.plan,
            )
        except StageFailed as failure:
            _stop_for(failure.outcome)
            raise
        with runner:
            self.run.used.add(case.id)
            yield runner

    def accuracy_check(self, case: Case) -> AccuracyCheck:
        self._record(case)
        return AccuracyCheck(self.results[case.id], self.settings.relax, self._messages(case))

    def latency_check(self, case: Case, node: pytest.Item) -> LatencyCheck:
        """Fails the test where the run compares and the baseline does not have the case."""
        record = self._record(case)
        baseline = self._baseline
        lacks_baseline = baseline is not None and not baseline.cases(case.id) and baseline.broken(case.id) is None
        lacks_baseline |= record.other is not None and record.other.case is None
        check = LatencyCheck(
            self.results[case.id],
            record,
            self.selection.clocks.get(node.nodeid),
            self.settings.relax,
            self._messages(case),
            lacks_baseline=lacks_baseline,
        )
        check.require_baseline()
        return check

    def _messages(self, case: Case) -> Messages:
        baseline = self._baseline
        close_ids = baseline.close_ids(case.id, set(self.selection.wanted)) if baseline else []
        other_devices = baseline.other_devices if baseline and not baseline.sessions else ()
        return Messages(
            self._software_changes(),
            self._record_command(),
            close_ids,
            other_devices,
            reproduce=reproducing_command(self.config.invocation_params.args, case.id),
            first=replicates_at_first(self._record(case), self.settings.replicates),
            paired=self.settings.takes_turns,
        )

    def _record_command(self) -> str:
        markers = self.config.getoption("markexpr", "")
        selection = f' -m "{markers}"' if " " in markers else f" -m {markers}" if markers else ""
        return f"pytest{selection} --benchmark-save=NAME"

    # ---------------------------------------------------------------- after each test, and after the last

    def note_report(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Mark the report of a gate's test with its verdict, and remember the case of a test that failed."""
        case_id = case_id_of(item)
        if case_id is None:
            return
        result = self.results.get(case_id)
        if result is not None:
            report.inference_gate_verdict = str(result.verdict)  # type: ignore[attr-defined]
        if report.outcome == "failed":
            self._unsafe_cases.add(case_id)

    def describe_run(self, output_json: dict[str, Any]) -> None:
        """Add the gate's block to a document of pytest-benchmark. Called once for ``--benchmark-json`` and once for saving."""
        if not self._prepared:
            return
        broken = [
            {"id": case_id, "outcome": _outcome_block(record.outcome)}
            for case_id, record in self.run.records.items()
            if not record.outcome.ok and record.outcome.kind != "unsupported" and not record.outcome.is_of_the_surroundings
        ]
        output_json[benchmark_adapter.CASE_KEY] = {
            "schema": "inference-gate-session/1",
            "device": {"id": self.environment.device.id, "identity": self.environment.device.as_dict()},
            "software": dict(self.environment.software.versions),
            "condition": self._condition(),
            "seed": self.seed,
            "broken": broken,
        }

    def _condition(self) -> dict[str, Any]:
        return {
            "before": self.run.condition_before.as_dict(),
            "after": self.run.condition_after.as_dict(),
            "canary": self.run.canary,
        }

    def _save(self, document: Mapping[str, Any], name: str) -> None:
        if self._stopped:
            self._saver.lines.append("not saved, since the run was stopped: what its tests would have said is not known")
            return
        red = {case_id for case_id, result in self.results.items() if gate_is_red(result.verdict)}
        try:
            self._saver.save(document, name, refused=self._unsafe_cases, red=red)
        except GateError as error:
            raise pytest.UsageError(str(error)) from None

    def finish(self, session: pytest.Session) -> None:
        """Decide the run's exit status and write the JSON result. Called before pytest-benchmark saves and compares."""
        wanted = self.selection.wanted.values()
        if not wanted or self.config.option.collectonly:
            return
        used = self.run.used if self._prepared else set()
        if session.exitstatus == pytest.ExitCode.OK and not used and any(one.anything for one in wanted):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self.notices.append("nothing was measured: each case was skipped, so this run says nothing and is red")
        self._stopped = session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        self._run_result = self._make_run_result(int(session.exitstatus))
        if self._run_result.red and session.exitstatus == pytest.ExitCode.OK:
            # A suite of somebody's own that never calls check() does not open the gate.
            session.exitstatus = self._run_result.exit_status = pytest.ExitCode.TESTS_FAILED
        if self.settings.json is not None:
            from .report.result_json import write_document

            try:
                write_document(self._run_result, self.settings.json)
            except GateError as error:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
                self.notices.append(str(error))

    def _make_run_result(self, exit_status: int) -> RunResult:
        wanted = self.selection.wanted
        missing = len(wanted) - len(self.results)
        if missing:
            self.notices.append(f"the run was stopped before {missing} of {len(wanted)} cases were judged")
        if self._baseline is not None and self.results:
            absent = sorted(self._baseline.case_ids - set(wanted))
            if absent:
                self.notices.append(f"not in this run, though the baseline has them: {', '.join(absent)}")
        return RunResult(
            mode=self._mode,
            device=self._device_result(),
            cases=list(self.results.values()),
            phases=self.phases,
            notices=self.notices,
            software_changes=self._software_changes(),
            relaxed=self.settings.relax,
            exit_status=exit_status,
            compared_sessions=[ComparedSession(session.path.stem, session.datetime) for session in self._compared_sessions],
            against=self._other_stack(),
        )

    @property
    def _mode(self) -> Mode:
        return "against" if self.settings.takes_turns else "compare" if self.comparing else "measure"

    @property
    def _compared_sessions(self) -> Sequence[BaselineSession]:
        return self._baseline.sessions if self._baseline else ()

    def _other_stack(self) -> OtherStack | None:
        if not self._prepared or self.environment.other is None:
            return None
        models = self.settings.against_models
        return OtherStack(
            self.settings.against or sys.executable,
            self.environment.other.software.versions,
            None if models is None else str(models),
        )

    def _device_result(self) -> DeviceResult:
        if not self._prepared:
            return DeviceResult("unknown")
        environment = self.environment
        return DeviceResult(environment.device.id, environment.device.as_dict(), environment.software.versions, self._condition())

    def _software_changes(self) -> Sequence[str] | None:
        if self._prepared and self.environment.other is not None:
            return SoftwareUnderTest.changes(self.environment.other.software, self.environment.software)
        if self._baseline is None or not self._baseline.sessions:
            return None
        return SoftwareUnderTest.changes(self._baseline.software, self.environment.software)

    def report(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and below it what needs saying."""
        if self._run_result is None:
            return
        from .report.terminal import summary_lines

        def markup(text: str, colour: str) -> str:
            return terminalreporter._tw.markup(text, **{colour: True})

        terminalreporter.ensure_newline()
        terminalreporter.section("inference-gate", sep="=")
        if self._prepared:
            self._run_result.saved = self._saver.name
            for line in self._saver.lines:
                terminalreporter.write_line(line)
        for line in summary_lines(self._run_result, width=max(_NARROWEST, terminalreporter._tw.fullwidth), markup=markup):
            terminalreporter.write_line(line)

    def close(self) -> None:
        """End every agent that still runs, and the connections to boards."""
        self._running.finish()


def reproducing_command(arguments: Sequence[str | os.PathLike[str]], case_id: str) -> str:
    """The command that runs one case again as this run did, without writing what this run wrote."""
    kept: list[str] = []
    drop_next = False
    for argument in map(str, arguments):
        name, equals, _ = argument.partition("=")
        if drop_next or name in _NOT_REPEATED:
            drop_next = not drop_next and not equals and name != "--benchmark-autosave"
        else:
            kept.append(argument)
    return shlex.join(["pytest", *kept, f"--gate-select={case_id}"])


def _outcome_block(outcome: Outcome) -> dict[str, Any]:
    return {"kind": outcome.kind, "stage": outcome.stage, "signal": outcome.signal, "message": outcome.message}


def _stop_for(outcome: Outcome) -> None:
    """Skip or fail the test at hand for a case that did not come so far; do nothing for one that did."""
    if outcome.ok:
        return
    if outcome.kind == "unsupported":
        pytest.skip(outcome.message)
    pytest.fail(f"{outcome.kind}{f' in stage {outcome.stage}' if outcome.stage else ''}: {outcome.message}", pytrace=False)
