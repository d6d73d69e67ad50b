"""One run of the gate, as hooks and fixtures see it: selection, the run before the first test, judgement, saving and the report."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from . import benchmark_adapter
from .agent_role import RunningAgents
from .artifacts import StoredArtifact
from .build_decision import rebuilding_notices
from .bundles.command import Export
from .case_selection import CaseSelection, case_id_of
from .cases import Case
from .checks import AccuracyCheck, LatencyCheck, Messages, StreamCheck
from .comparison import load_baseline
from .coverage import coverage_notices
from .decision import correct_for_family
from .device_gate import DeviceGate
from .device_run import DeviceRun
from .devices import SoftwareUnderTest
from .errors import GateError
from .gate_run import GateRun
from .judging import CaseRecord, replicates_at_first
from .options import Settings
from .outcome import Outcome, StageFailed
from .phase_times import PhaseTimes
from .progress import Progress
from .results import CaseResult, DeviceResult, Mode, OtherStack, RunResult
from .run_environment import DeviceUnderTest, RunEnvironment, open_environment
from .session_saver import SessionSaver
from .stack_preparations import StackPreparations
from .verdict import gate_is_red

_LatencyCheck = TypeVar("_LatencyCheck", bound=LatencyCheck)

if TYPE_CHECKING:
    from .published import PublishedFigure
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
    """Made once a run, when all tests are collected and one of them asks for a case.

    ``settings``, ``cases`` and ``results`` are for tests of one's own; results are there once the first test runs.
    """

    run: GateRun
    environment: RunEnvironment

    def __init__(self, config: pytest.Config, settings: Settings, selection: CaseSelection) -> None:
        self.config = config
        self.settings = settings
        self.comparing = benchmark_adapter.comparing(config)
        self.selection = selection
        self.devices: list[DeviceGate] = []
        self.results: dict[str, CaseResult] = {}  # by the parameter of the tests
        self.notices: list[str] = []
        self.phases = PhaseTimes()
        self.seed = random.SystemRandom().randrange(2**32) if settings.seed is None else settings.seed
        self._running = RunningAgents()
        self._lines: list[str] = []  # on saving, for the terminal
        self._unsafe_cases: set[str] = set()  # a test of the case failed, whatever the reason: its figures are no baseline
        self._ended: set[str] = set()  # node ids of the tests that have run
        self._prepared = False
        self._stopped = False  # by the user or by an error of pytest's own, before all tests had run
        self._run_result: RunResult | None = None
        exports = [plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, Export)]
        self._exporting = exports[0].request if exports else None
        self._exported: Sequence[str] = ()

    @property
    def cases(self) -> dict[str, Case]:
        """Every case that cards and options give, by id; with several boards by ``id@board``."""
        return self.selection.cases

    # ---------------------------------------------------------------- before the first test

    def prepare(self) -> None:
        """Do all that the selected tests need, with progress, and judge each case."""
        if not self.selection.wanted:
            return
        self.progress = Progress(self.config)
        if self._exporting is not None and self.settings.rebuilds > 1:
            raise pytest.UsageError("a bundle has each model built once: leave out --gate-rebuilds, or reach the board by ssh")
        if self._exporting is not None and self.settings.targets:
            raise pytest.UsageError("a bundle is written for a board that cannot be reached: leave out --gate-target")
        try:
            start = time.perf_counter()
            boards = {one.case.board for one in self.selection.wanted.values()}
            self.environment = open_environment(
                self.settings, boards, self.selection.extensions, self._running, self._notice, self.progress.step
            )
            self.phases["probe"] = time.perf_counter() - start
            self.devices = [self._open_device(device) for device in self.environment.devices]
            self._open_storage()
            preparations = StackPreparations(self.settings, self.environment, self.selection.scalings, self.progress)
            self._make_run(preparations)
            if self._exporting is not None:
                backends = {name: extension.module for name, extension in self.selection.extensions.items()}
                self._exported = self.run.export(self._exporting, self.settings, self.seed, backends)
                return
            self.run.execute()
            self.notices += self.run.notes
            for gate in self.devices:
                self.notices += [gate.say(note) for note in gate.run.notes]
            self._judge()
        except GateError as error:
            raise pytest.UsageError(str(error)) from None
        finally:
            self._running.close()
            self.progress.close()
        self._prepared = True

    def _open_device(self, device: DeviceUnderTest) -> DeviceGate:
        """With its baseline, where the run compares."""
        if device.failure is not None:
            return DeviceGate(device, None, None, self.selection, self.settings, self._family)
        folder = benchmark_adapter.device_directory(self.config, self.settings.baselines, device.id)
        baseline = load_baseline(self.config, folder, device.identity) if self.comparing else None
        saver = SessionSaver(folder, comparing=self.comparing)
        return DeviceGate(device, baseline, saver, self.selection, self.settings, self._family)

    def _family(self) -> int:
        return sum(gate.measurable for gate in self.devices)

    def _open_storage(self) -> None:
        """pytest-benchmark has one storage for a run: it is that of the first device."""
        if self.settings.targets and self._first is not None:
            folder = benchmark_adapter.device_directory(self.config, self.settings.baselines, self._first.device.id)
            benchmark_adapter.move_storage(self.config, folder)
            if self.comparing and len(self.devices) > 1:
                self._notice(f"pytest-benchmark's own comparison shows the baseline of {self._first.device.name} alone")
        benchmark_adapter.route_saving(self.config, self._save)

    @property
    def _first(self) -> DeviceGate | None:
        """The first device that could be asked."""
        return next((gate for gate in self.devices if gate.device.failure is None), None)

    def _make_run(self, preparations: StackPreparations) -> None:
        metrics = self.config.hook.pytest_inference_gate_metrics(config=self.config)
        detection_metrics = self.config.hook.pytest_inference_gate_detection_metrics(config=self.config)
        other_cases = self.selection.other_cases()
        for gate in self.devices:
            gate.run = DeviceRun(
                self.settings,
                gate.device,
                gate.wanted,
                other_cases,
                preparations,
                {name: metric for mapping in metrics for name, metric in mapping.items()},
                self.seed,
                self.progress.of_device(gate.device.name),
                self._running,
                gate,
                {name: metric for mapping in detection_metrics for name, metric in mapping.items()},
            )
        runs = [gate.run for gate in self.devices]
        self.run = GateRun(preparations, runs, self.settings.jobs, self._running, self.progress, self.phases)

    def _notice(self, text: str) -> None:
        self.progress.step(text)
        self.notices.append(text)

    @property
    def device_id(self) -> str | None:
        """Of the first device that is measured; ``None`` before it was probed."""
        return self._first.device.id if self._first is not None else None

    def _judge(self) -> None:
        # Of all devices together: one false alarm on any of them turns the run red.
        found = {test_id: decision for gate in self.devices for test_id, decision in gate.decisions().items()}
        decisions = correct_for_family(found)
        of_device = {
            gate.device.name: {
                one.case.test_id: decisions[one.case.test_id] for one in gate.wanted if one.case.test_id in decisions
            }
            for gate in self.devices
        }
        for gate in self.devices:
            self.notices += gate.shallowness(of_device[gate.device.name])
        self.notices += rebuilding_notices(decisions)
        for test_id, wanted in self.selection.wanted.items():
            self.results[test_id] = self._gate_of(wanted.case).judge(wanted, decisions.get(test_id))
            self.results[test_id].published = self._published(wanted.case)
        for gate in self.devices:
            self.notices += gate.hold_to_limits(self.results)
        for test_id in self.selection.wanted:
            self.config.hook.pytest_inference_gate_result(config=self.config, result=self.results[test_id])
        covered = {test_id: result.coverage.decision for test_id, result in self.results.items() if result.coverage is not None}
        self.notices += coverage_notices(covered)
        self.notices += [f"{result.name}: {remark}" for result in self.results.values() for remark in result.build_remarks]
        for gate in self.devices:
            self.notices += gate.machine_remarks(of_device[gate.device.name].values())
            self.notices += gate.left_open(of_device[gate.device.name].values())

    def _published(self, case: Case) -> list[PublishedFigure]:
        """What others have published for the case on such a board. A file that cannot be read keeps nobody from gating."""
        from .published import figures_file, figures_for, read_figures

        try:
            return figures_for(read_figures(figures_file()), self._gate_of(case).device.identity, case)
        except GateError as error:
            notice = f"no published figures are shown: {error}"
            self.notices += [] if notice in self.notices else [notice]
            return []

    def _gate_of(self, case: Case) -> DeviceGate:
        return next(gate for gate in self.devices if gate.device.name == case.board)

    # ---------------------------------------------------------------- what the fixtures give

    def case(self, case_id: str) -> Case:
        return self.cases[case_id]

    def _record(self, case: Case) -> CaseRecord:
        if case.test_id not in self.results:
            raise GateError("cases are prepared before the first test runs; this one was not selected then")
        return self._gate_of(case).run.records[case.id]

    def checkpoint(self, case: Case) -> FetchedCheckpoint:
        """The case's checkpoint. Fails the test where it cannot be had."""
        try:
            return self.run.preparations.own.checkpoint(case.card)
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
        gate = self._gate_of(case)
        number = sum(1 for _ in gate.device.logs.glob(f"{case.id}.runner-*.log")) + 1
        try:
            agent = gate.device.runtime.start(f"{case.id}.runner-{number}")
            runner = Runner(
                case,
                artifact,
                agent,
                gate.device.runtime.target,
                lambda: self.run.preparations.own.evaluation_inputs(case.card),
                lambda pictures: preprocess(pictures, case.card, self.selection.scalings),
                gate.run.plan,
            )
        except StageFailed as failure:
            _stop_for(failure.outcome)
            raise
        with runner:
            gate.run.used.add(case.id)
            yield runner

    def accuracy_check(self, case: Case) -> AccuracyCheck:
        self._record(case)
        return AccuracyCheck(self.results[case.test_id], self.settings.relax, self._messages(case))

    def latency_check(self, case: Case, node: pytest.Item) -> LatencyCheck:
        """Fails the test where the run compares and the baseline does not have the case."""
        return self._latency_check(LatencyCheck, case, node)

    def stream_check(self, case: Case, node: pytest.Item) -> StreamCheck:
        """Likewise of a stream's case."""
        return self._latency_check(StreamCheck, case, node)

    def _latency_check(self, kind: type[_LatencyCheck], case: Case, node: pytest.Item) -> _LatencyCheck:
        record = self._record(case)
        check = kind(
            self.results[case.test_id],
            record,
            self.selection.clocks.get(node.nodeid),
            self.settings.relax,
            self._messages(case),
            lacks_baseline=self._gate_of(case).lacks_baseline(case),
        )
        check.require_baseline()
        return check

    def _messages(self, case: Case) -> Messages:
        gate = self._gate_of(case)
        baseline = gate.baseline
        close_ids = baseline.close_ids(case.id, {one.case.id for one in gate.wanted}) if baseline else []
        other_devices = baseline.other_devices if baseline and not baseline.sessions else ()
        return Messages(
            gate.software_changes(),
            self._record_command(),
            close_ids,
            other_devices,
            reproduce=reproducing_command(self.config.invocation_params.args, case.test_id),
            first=replicates_at_first(self._record(case), self.settings.replicates),
            paired=self.settings.takes_turns,
            incomparable=baseline.other_pictures(case) if baseline else None,
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
        if report.when == "teardown":
            self._ended.add(item.nodeid)

    def describe_run(self, output_json: dict[str, Any]) -> None:
        """Add the gate's block to a document of pytest-benchmark. Called once for ``--benchmark-json`` and once for saving."""
        if not self._prepared:
            return
        first = self._first or self.devices[0]
        output_json[benchmark_adapter.CASE_KEY] = block = first.session_block(self.seed)
        if len(self.devices) > 1:  # in the document of --benchmark-json alone: each session file is one device's
            block["devices"] = {gate.device.name: gate.session_block(self.seed) for gate in self.devices}

    def _save(self, document: Mapping[str, Any], name: str) -> None:
        if self._stopped:
            self._lines.append("not saved, since the run was stopped: what its tests would have said is not known")
            return
        red = {test_id for test_id, result in self.results.items() if gate_is_red(result.verdict)}
        # After -x or --maxfail nobody knows what the tests that have not run would have said of their case.
        wanted = self.selection.wanted.items()
        unknown = {test_id for test_id, one in wanted if any(item.nodeid not in self._ended for item in one.items)}
        try:
            if self._first is None:
                self._lines.append("not saved, since no board could be asked: whose baseline it would be is not known")
            for gate in self.devices:
                gate.save(document, name, self.seed, self._unsafe_cases, red, unknown, plain=gate is self._first)
        except GateError as error:
            raise pytest.UsageError(str(error)) from None

    def finish(self, session: pytest.Session) -> None:
        """Decide the run's exit status and write the JSON result. Called before pytest-benchmark saves and compares."""
        wanted = self.selection.wanted.values()
        if not wanted or self.config.option.collectonly or self._exporting is not None:
            return
        used = self._prepared and any(gate.run.used for gate in self.devices)
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
        if self.results:
            for gate in self.devices:
                if absent := gate.absent_cases():
                    self.notices.append(gate.say(f"not in this run, though the baseline has them: {', '.join(absent)}"))
        devices = [gate.result() for gate in self.devices] if self._prepared else []
        first = devices[0] if devices else DeviceResult("unknown")
        return RunResult(
            mode=self._mode,
            device=first,
            cases=list(self.results.values()),
            phases=self.phases,
            notices=self.notices,
            software_changes=first.software_changes,
            relaxed=self.settings.relax,
            exit_status=exit_status,
            compared_sessions=first.compared_sessions,
            against=self._other_stack(),
            devices=devices if len(devices) > 1 else (),
        )

    @property
    def _mode(self) -> Mode:
        return "against" if self.settings.takes_turns else "compare" if self.comparing else "measure"

    def _other_stack(self) -> OtherStack | None:
        other = self.devices[0].device.other if self._prepared else None
        if other is None:
            return None
        models = self.settings.against_models
        software = SoftwareUnderTest() if self.devices[0].device.failure is not None else other.software
        return OtherStack(self.settings.against or sys.executable, software.versions, None if models is None else str(models))

    def report(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and below it what needs saying."""
        for line in self._exported:
            terminalreporter.write_line(line)
        if self._run_result is None:
            return
        if not self._prepared and self._run_result.exit_status == pytest.ExitCode.USAGE_ERROR:
            return  # pytest has said what is wrong, and "no case ran" would send the user elsewhere
        from .report.tables import table_named
        from .report.terminal import summary_lines

        def markup(text: str, colour: str) -> str:
            return terminalreporter._tw.markup(text, **{colour: True})

        terminalreporter.ensure_newline()
        terminalreporter.section("inference-gate", sep="=")
        for line in self._note_saved(self._run_result):
            terminalreporter.write_line(line)
        width, table = max(_NARROWEST, terminalreporter._tw.fullwidth), table_named(self.settings.table)
        for line in summary_lines(self._run_result, width=width, markup=markup, table=table):
            terminalreporter.write_line(line)

    def _note_saved(self, run: RunResult) -> list[str]:
        """Tell the result what became a baseline, now that pytest-benchmark has saved; and the lines that say so."""
        savers = [(gate, gate.saver) for gate in self.devices if gate.saver is not None] if self._prepared else []
        names = {gate.device.name: saver.name for gate, saver in savers}
        run.saved = next((name for name in names.values() if name is not None), None)
        run.devices = [replace(device, saved=names.get(device.name)) for device in run.devices]
        lines = [*self._lines, *(gate.say(line) for gate, saver in savers for line in saver.lines)]
        if self._prepared and not lines and benchmark_adapter.saving(self.config):
            lines.append("nothing was saved: no test measured a latency, and a baseline is made of those")
        return lines

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


def _stop_for(outcome: Outcome) -> None:
    """Skip or fail the test at hand for a case that did not come so far; do nothing for one that did."""
    if outcome.ok:
        return
    if outcome.kind == "unsupported":
        pytest.skip(outcome.message)
    pytest.fail(f"{outcome.kind}{f' in stage {outcome.stage}' if outcome.stage else ''}: {outcome.message}", pytrace=False)
