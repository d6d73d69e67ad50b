"""One run of the gate: which cases take part, what was prepared and measured of each, what came out, what may be saved."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import benchmark_adapter
from .agent_role import AgentRole, RunningAgents
from .artifacts import ArtifactStore, StoredArtifact
from .cards import CPU_BACKENDS, ModelCard, load_cards
from .cases import Case
from .checks import AccuracyCheck, LatencyCheck, Messages
from .comparison import Baseline, load_baseline
from .devices import Condition, DeviceIdentity, SoftwareUnderTest
from .errors import GateError, StoreError
from .evaluation_inputs import prepare_inputs
from .judging import CaseRecord, judge, tolerance_for
from .matrix import build_cases, embedded_models
from .options import Settings, parse_share
from .outcome import Outcome, StageFailed
from .preparation import Preparation, PreparedInputs, code_digest, load_arguments
from .progress import Progress
from .results import CaseResult, DeviceResult, Replicate, RunResult
from .session_saver import SessionSaver
from .sweep import Plan, measure_replicate, sweep
from .verdict import gate_is_red

if TYPE_CHECKING:
    from .runner import Runner
    from .targets import Target
    from .zoo import FetchedCheckpoint

_MEMORY_OF_A_CONVERSION = 3 * 2**30  # a TensorFlow converter at work on a model of ImageNet's size, generously
_KEPT_LOGS = 20  # runs
_NARROWEST = 100  # columns: what the table needs to show all that matters, where no terminal says how wide it is


@dataclass
class _Wanted:
    """What the selected tests ask of one case."""

    case: Case
    items: list[pytest.Item] = field(default_factory=list)
    artifact: bool = False
    accuracy: bool = False
    latency: bool = False


class GateSession:
    """Made once a run, at the first test that asks for a case."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.comparing = benchmark_adapter.comparing(config)
        self.notices: list[str] = []
        self.phases: dict[str, float] = {}
        self.results: dict[str, CaseResult] = {}
        self.records: dict[str, CaseRecord] = {}
        self.seed = random.SystemRandom().randrange(2**32) if settings.seed is None else settings.seed
        self.plan = Plan.of(settings.rounds, settings.warm_up)
        self._extensions = {extension.name: extension for found in config.hook.pytest_inference_gate_backends(config=config) for extension in found}
        self._cards: list[ModelCard] | None = None
        self._cases: dict[str, Case] | None = None
        self._wanted: dict[str, _Wanted] = {}
        self._clocks: dict[str, benchmark_adapter.ReplayClock] = {}
        self._unsafe_cases: set[str] = set()  # a test of the case failed, whatever the reason: its figures are no baseline
        self._used_cases: set[str] = set()  # something was run on the case in this session
        self._running = RunningAgents()
        self._baseline: Baseline | None = None
        self._prepared = False
        self._interrupted = False
        self._stopped = False  # by the user or by an error of pytest's own, before all tests had run
        self._unusable: pytest.UsageError | None = None  # why there are no cases, found while tests were collected
        self._run_result: RunResult | None = None

    # ---------------------------------------------------------------- collection

    @property
    def known_backends(self) -> dict[str, tuple[str, ...]]:
        return {**CPU_BACKENDS, **{name: extension.precisions for name, extension in self._extensions.items()}}

    @property
    def cards(self) -> list[ModelCard]:
        """Every card of ``--gate-models``, or the embedded ones. Raises ``pytest.UsageError`` for a card that cannot be used."""
        if self._cards is None:
            try:
                self._cards = self._load_cards()
            except GateError as error:
                raise pytest.UsageError(str(error)) from None
        return self._cards

    def _load_cards(self) -> list[ModelCard]:
        folders = self.settings.models or (embedded_models(),)
        cards = [card for folder in folders for card in load_cards(folder, self.known_backends, extra_scalings=list(self._scalings()))]
        if not cards:
            searched = ", ".join(str(folder) for folder in folders)
            raise GateError(f"there is no model card in {searched}: add one (*.toml), or name another folder with --gate-models")
        names = [card.name for card in cards]
        for name in names:
            if names.count(name) > 1:
                raise GateError(f"two model cards are named {name!r}: {', '.join(str(card.path) for card in cards if card.name == name)}")
        return cards

    @property
    def cases(self) -> dict[str, Case]:
        if self._cases is None:
            try:
                cases = build_cases(self.cards, select=self.settings.select, batches=self.settings.batches, threads=self.settings.threads)
            except GateError as error:
                raise pytest.UsageError(str(error)) from None
            self._cases = {case.id: case for case in cases}
        return self._cases

    def case(self, case_id: str) -> Case:
        return self.cases[case_id]

    def marker_of(self, case: Case) -> str:
        extension = self._extensions.get(case.backend)
        return extension.marker if extension else "cpu"

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        try:
            cases = self.cases.values()
        except pytest.UsageError as error:
            # Raised here, it would be a collection error with a traceback for each module: it is told once, by require_cases.
            self._unusable = error
            return
        parameters = [pytest.param(case.id, id=case.id, marks=getattr(pytest.mark, self.marker_of(case))) for case in cases]
        metafunc.parametrize("gate_case_id", parameters, indirect=True)

    def require_cases(self) -> None:
        """Raise the ``pytest.UsageError`` that kept a test from its cases. To be called before any test is deselected."""
        if self._unusable is not None:
            raise self._unusable

    def collect(self, items: Sequence[pytest.Item]) -> None:
        """Note what the selected tests ask for. Raises ``pytest.UsageError`` where an option would leave nothing measured."""
        for item in items:
            case_id = _case_id_of(item)
            if case_id is None:
                continue
            names = getattr(item, "fixturenames", ())
            _marked_tolerance(item)  # here, so that a bad one is told before anything is measured
            wanted = self._wanted.setdefault(case_id, _Wanted(self.cases[case_id]))
            wanted.items.append(item)
            wanted.artifact |= "artifact" in names or "runner" in names
            wanted.accuracy |= "accuracy" in names
            wanted.latency |= "latency" in names
            if "latency" in names and "benchmark" in names:
                self._clocks[item.nodeid] = benchmark_adapter.add_clock(item)
        if not self._wanted or self.config.option.collectonly:
            return
        if benchmark_adapter.is_distributed(self.config):
            raise pytest.UsageError(
                "-n (pytest-xdist) spreads the cases over processes that disturb each other's timings, so the gate does not run under it: "
                "leave it out, or deselect the gate's tests"
            )
        if not any(wanted.latency for wanted in self._wanted.values()):
            return
        option = benchmark_adapter.why_nothing_is_recorded(self.config)
        if option:
            raise pytest.UsageError(f"{option} keeps latency from being recorded, so the gate would pass without having measured: leave it out, or deselect the gate's tests")

    # ---------------------------------------------------------------- preparing and measuring

    def prepare(self) -> None:
        """Fetch, convert, predict and measure for every selected case, with progress, before the first test runs.

        What goes wrong with one case becomes its outcome, never an error of the run.
        """
        if not self._wanted:
            return
        self.progress = Progress(self.config)
        try:
            self._open()
            self._saver = SessionSaver(self.baseline_directory, comparing=self.comparing)
            benchmark_adapter.route_saving(self.config, self._save)
            self._convert_and_predict()
            self._measure()
            self._judge()
        except GateError as error:
            raise pytest.UsageError(str(error)) from None
        except BaseException:
            self._interrupted = True
            raise
        finally:
            self._running.close()
            self.progress.close()
        self._prepared = True

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - start

    def _open(self) -> None:
        import platformdirs

        from .agent_process import Limits
        from .targets.interpreter import InterpreterTarget

        root = self.settings.store or platformdirs.user_cache_path("inference-gate") / "store"
        self.store = ArtifactStore(root, notice=self._notice)
        self.logs = self._make_log_folder(root / "logs")
        limits = Limits(seconds=self.settings.timeouts, memory_bytes=self.settings.memory_limit)
        extra = {name: extension.module for name, extension in self._extensions.items()}

        def role(python: str | None) -> AgentRole:
            target: Target = InterpreterTarget(python or _this_python(), extra)
            return AgentRole(target, limits, self.logs, self._running)

        with self._phase("probe"):
            self.converter = role(self.settings.convert_with)
            self.runtime = role(self.settings.run_with) if self.settings.run_with != self.settings.convert_with else self.converter
            for name, one in (("converter", self.converter), ("runtime", self.runtime)):
                if not one.probe:
                    one.ask(name)
        self.device = DeviceIdentity.from_facts(self.runtime.probe["device"])
        self.software = SoftwareUnderTest.from_probe(self.runtime.probe)
        if self.converter is not self.runtime:
            converter_software = SoftwareUnderTest.from_probe(self.converter.probe)
            self.software = self.software.with_converter(converter_software)
        code = code_digest(extra.values())
        self.preparation = Preparation(self.store, self.converter, self._fetch, self._inputs, self.progress.step, code)
        if self.comparing:
            self._baseline = load_baseline(self.config, self.baseline_directory, self.device)

    @property
    def baseline_directory(self) -> Path:
        root = self.settings.baselines
        if not benchmark_adapter.storage_is_default(self.config):
            explicit = benchmark_adapter.explicit_storage_directory(self.config)
            # A storage that the plugin itself redirected is the device's folder already.
            return explicit if explicit and explicit.name == self.device.id else (explicit or root) / self.device.id
        return root / self.device.id

    def _make_log_folder(self, root: Path) -> Path:
        # The number of the process is not enough: in two containers that share a store it may well be the same.
        folder = root / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
            for old in sorted(path for path in root.iterdir() if path.is_dir())[:-_KEPT_LOGS]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise GateError(f"cannot write logs to {root} ({error.strerror}): free some space there or name another folder with --gate-store") from None
        return folder

    def _notice(self, text: str) -> None:
        self.progress.step(text)
        self.notices.append(text)

    def _fetch(self, card: ModelCard) -> FetchedCheckpoint:
        from .zoo import fetch_checkpoint

        try:
            return fetch_checkpoint(
                card,
                store_root=self.store.root,
                lock_file=card.directory / "checkpoints.lock.toml",
                mirror=self.settings.mirror,
                offline=self.settings.offline,
                progress=self.progress.step,
            )
        except GateError as error:
            raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def _inputs(self, card: ModelCard, purpose: str) -> PreparedInputs:
        try:
            return prepare_inputs(self.store, card, purpose, self._scalings(), self.settings, self.logs, self.progress.step)
        except StoreError:
            raise  # no fault of the card's: no other case could be prepared either
        except GateError as error:
            raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def _scalings(self) -> Mapping[str, Callable[[Any], Any]]:
        return {name: scaling for found in self.config.hook.pytest_inference_gate_scalings(config=self.config) for name, scaling in found.items()}

    def _jobs(self, tasks: int) -> int:
        if self.settings.jobs:
            return min(self.settings.jobs, max(tasks, 1))
        import psutil

        by_memory = max(1, psutil.virtual_memory().available // _MEMORY_OF_A_CONVERSION)
        return int(max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, by_memory, tasks)))

    def _side_by_side(self, tasks: Mapping[str, Callable[[], None]]) -> None:
        """Run the tasks, as many at once as cores and memory allow; a task's ``StageFailed`` becomes its case's outcome."""
        pool = ThreadPoolExecutor(self._jobs(len(tasks)), thread_name_prefix="inference-gate")
        try:
            pending = {pool.submit(task): case_id for case_id, task in tasks.items()}
            for future in as_completed(pending):
                try:
                    future.result()
                except StageFailed as failure:
                    self._fail(pending[future], failure.outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._running.close()
            raise
        pool.shutdown()

    def _fail(self, case_id: str, outcome: Outcome) -> None:
        if self.records[case_id].outcome.ok:
            self.records[case_id].outcome = outcome

    def _convert_and_predict(self) -> None:
        for wanted in self._wanted.values():
            self.records[wanted.case.id] = CaseRecord(wanted.case)
        alive = [wanted for wanted in self._wanted.values() if wanted.artifact or wanted.accuracy or wanted.latency]
        with self._phase("fetch"):
            alive = [wanted for wanted in alive if self._attempt(wanted, self._require_runtime)]
            alive = [wanted for wanted in alive if self._attempt(wanted, self._fetch_and_prepare)]
        with self._phase("convert"):
            self._side_by_side({wanted.case.id: lambda wanted=wanted: self._convert(wanted) for wanted in alive})  # type: ignore[misc]
        with self._phase("predict"):
            alive = [wanted for wanted in alive if wanted.accuracy and self.records[wanted.case.id].outcome.ok]
            self._side_by_side({wanted.case.id: lambda wanted=wanted: self._predict(wanted.case) for wanted in alive})  # type: ignore[misc]

    def _attempt(self, wanted: _Wanted, step: Callable[[_Wanted], None]) -> bool:
        try:
            step(wanted)
        except StageFailed as failure:
            self._fail(wanted.case.id, failure.outcome)
            return False
        return True

    def _require_runtime(self, wanted: _Wanted) -> None:
        self.runtime.require(wanted.case, convert=False)

    def _fetch_and_prepare(self, wanted: _Wanted) -> None:
        self.preparation.checkpoint(wanted.case.card)
        self.preparation.evaluation_inputs(wanted.case.card)

    def _convert(self, wanted: _Wanted) -> None:
        record = self.records[wanted.case.id]
        record.artifact = self.preparation.artifact(wanted.case)
        if not wanted.accuracy and not wanted.latency:
            self._used_cases.add(wanted.case.id)

    def _predict(self, case: Case) -> None:
        record = self.records[case.id]
        record.inputs = self.preparation.evaluation_inputs(case.card)
        record.reference = self.preparation.reference_predictions(case)
        assert record.artifact is not None
        target = self.logs / f"{case.id}.predictions.npy"
        with self.runtime.start(f"{case.id}.predict") as agent:
            agent.load(load_arguments(case, record.artifact))
            agent.predict({"inputs": str(record.inputs.path), "outputs": str(target)})
        import numpy

        record.predictions = numpy.load(target, allow_pickle=False)
        target.unlink()
        record.metrics = self._metrics(record)
        self._used_cases.add(case.id)

    def _metrics(self, record: CaseRecord) -> dict[str, float]:
        import numpy

        assert record.inputs is not None
        labels = None if record.inputs.labels is None else numpy.asarray(record.inputs.labels)
        found = self.config.hook.pytest_inference_gate_metrics(config=self.config)
        values: dict[str, float] = {}
        for name, metric in ((name, metric) for metrics in found for name, metric in metrics.items()):
            try:
                values[name] = float(metric(record.predictions, labels))
            except Exception as error:  # it is a user's code, and must not end the run of all other cases
                reason = " ".join(str(error).split())
                message = f"the metric {name!r} of the hook pytest_inference_gate_metrics raised {type(error).__name__}: {reason}; correct it"
                raise StageFailed(Outcome("run_error", "predict", message)) from error
        return values

    def _measure(self) -> None:
        cases = [wanted.case for wanted in self._wanted.values() if wanted.latency and self.records[wanted.case.id].outcome.ok]
        self.condition_before = Condition.now()
        if cases:
            self.progress.step(f"measuring in the order of --gate-seed={self.seed}")
            with self._phase("measure"):
                measured, failed = sweep(cases, self.settings.replicates, self._measure_one, seed=self.seed, progress=self.progress.measuring)
            for case_id, replicates in measured.items():
                self.records[case_id].replicates = replicates
                if replicates:
                    self._used_cases.add(case_id)
            for case_id, failure in failed.items():
                self._fail(case_id, failure.outcome)
        self.condition_after = Condition.now()

    def _measure_one(self, case: Case, number: int) -> Replicate:
        artifact = self.records[case.id].artifact
        assert artifact is not None
        inputs = self.preparation.evaluation_inputs(case.card)
        return measure_replicate(self.runtime, case, artifact, inputs, self.plan, f"{case.id}.measure-{number + 1}")

    # ---------------------------------------------------------------- judging

    def _tolerance(self, wanted: _Wanted) -> float:
        """The command line wins, then the marker, then the card's precision, then the card, then the ini file, then 5 %."""
        if self.settings.tolerance is not None:
            return self.settings.tolerance
        for item in wanted.items:
            marked = _marked_tolerance(item)
            if marked is not None:
                return marked
        return tolerance_for(wanted.case).latency or self.settings.default_tolerance

    def _judge(self) -> None:
        problems = self.condition_before.problems(self.condition_after)
        for case_id, wanted in self._wanted.items():
            record = self.records[case_id]
            record.nodeids = [item.nodeid for item in wanted.items]
            self.results[case_id] = judge(
                record,
                self._baseline,
                tolerance=self._tolerance(wanted),
                wants_latency=wanted.latency,
                wants_accuracy=wanted.accuracy,
                condition_problems=problems,
            )
            self.config.hook.pytest_inference_gate_result(config=self.config, result=self.results[case_id])

    def _record_command(self) -> str:
        markers = self.config.getoption("markexpr", "")
        selection = f' -m "{markers}"' if " " in markers else f" -m {markers}" if markers else ""
        return f"pytest{selection} --benchmark-save=NAME"

    def note_report(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Mark the report of a gate's test with its verdict, and remember the case of a test that failed."""
        case_id = _case_id_of(item)
        if case_id is None:
            return
        result = self.results.get(case_id)
        if result is not None:
            report.inference_gate_verdict = str(result.verdict)  # type: ignore[attr-defined]
        if report.outcome == "failed":
            self._unsafe_cases.add(case_id)

    # ---------------------------------------------------------------- what the fixtures give

    def _record(self, case: Case) -> CaseRecord:
        if case.id not in self.records:
            raise GateError("cases are prepared before the first test runs; this one was not selected then")
        return self.records[case.id]

    def checkpoint(self, case: Case) -> FetchedCheckpoint:
        try:
            return self.preparation.checkpoint(case.card)
        except StageFailed as failure:
            pytest.fail(failure.outcome.message, pytrace=False)

    def artifact(self, case: Case) -> StoredArtifact:
        record = self._record(case)
        if record.artifact is None:
            _stop_for(record.outcome)
        assert record.artifact is not None
        return record.artifact

    @contextlib.contextmanager
    def runner(self, case: Case) -> Iterator[Runner]:
        from .preprocessing import preprocess
        from .runner import Runner

        _stop_for(self._record(case).outcome)  # what hangs or crashes at once would do so again in each test
        artifact = self.artifact(case)
        number = sum(1 for path in self.logs.glob(f"{case.id}.runner-*.log")) + 1
        try:
            agent = self.runtime.start(f"{case.id}.runner-{number}")
            runner = Runner(
                case,
                artifact,
                agent,
                lambda: self.preparation.evaluation_inputs(case.card),
                lambda pictures: preprocess(pictures, case.card, self._scalings()),
                self.plan,
            )
        except StageFailed as failure:
            _stop_for(failure.outcome)
            raise
        with runner:
            self._used_cases.add(case.id)
            yield runner

    def accuracy_check(self, case: Case) -> AccuracyCheck:
        self._record(case)
        return AccuracyCheck(self.results[case.id], self.settings.relax, self._messages(case))

    def latency_check(self, case: Case, node: pytest.Item) -> LatencyCheck:
        record = self._record(case)
        baseline = self._baseline
        lacks_baseline = baseline is not None and not baseline.cases(case.id) and baseline.broken(case.id) is None
        check = LatencyCheck(
            self.results[case.id],
            record,
            self._clocks.get(node.nodeid),
            self.settings.relax,
            self._messages(case),
            lacks_baseline=lacks_baseline,
        )
        check.require_baseline()
        return check

    def _messages(self, case: Case) -> Messages:
        baseline = self._baseline
        close_ids = baseline.close_ids(case.id, set(self._wanted)) if baseline else []
        return Messages(self._software_changes(), self._record_command(), close_ids, baseline.other_devices if baseline and not baseline.sessions else ())

    # ---------------------------------------------------------------- saving and reporting

    def describe_run(self, output_json: dict[str, Any]) -> None:
        """Add the gate's block to a document of pytest-benchmark. Called once for ``--benchmark-json`` and once for saving."""
        if not self._prepared:
            return
        output_json[benchmark_adapter.CASE_KEY] = {
            "schema": "inference-gate-session/1",
            "device": {"id": self.device.id, "identity": self.device.as_dict()},
            "software": dict(self.software.versions),
            "condition": {"before": self.condition_before.as_dict(), "after": self.condition_after.as_dict()},
            "seed": self.seed,
            "broken": [
                {
                    "id": case_id,
                    "outcome": {"kind": r.outcome.kind, "stage": r.outcome.stage, "signal": r.outcome.signal, "message": r.outcome.message},
                }
                for case_id, r in self.records.items()
                if not r.outcome.ok and r.outcome.kind not in ("unsupported", "fetch_error")
            ],
        }

    def _save(self, document: Mapping[str, Any], name: str) -> None:
        red = {case_id for case_id, result in self.results.items() if gate_is_red(result.verdict)}
        if self._stopped:
            self._saver.lines.append("not saved, since the run was stopped: what its tests would have said is not known")
            return
        try:
            self._saver.save(document, name, refused=self._unsafe_cases, red=red)
        except GateError as error:
            raise pytest.UsageError(str(error)) from None

    def finish(self, session: pytest.Session) -> None:
        """Decide the run's exit status and write the JSON result. Called before pytest-benchmark saves and compares."""
        if not self._wanted or self.config.option.collectonly:
            return
        asked = any(wanted.artifact or wanted.accuracy or wanted.latency for wanted in self._wanted.values())
        if asked and not self._used_cases and session.exitstatus == pytest.ExitCode.OK:
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
        missing = [case_id for case_id in self._wanted if case_id not in self.results]
        if missing:
            self.notices.append(f"the run was stopped before {len(missing)} of {len(self._wanted)} cases were judged")
        if self._baseline is not None and self.results:
            absent = sorted(self._baseline.case_ids - set(self._wanted))
            if absent:
                self.notices.append(f"not in this run, though the baseline has them: {', '.join(absent)}")
        return RunResult(
            mode="compare" if self.comparing else "measure",
            device=self._device_result(),
            cases=list(self.results.values()),
            phases=self.phases,
            notices=self.notices,
            software_changes=self._software_changes(),
            relaxed=self.settings.relax,
            exit_status=exit_status,
        )

    def _device_result(self) -> DeviceResult:
        if not self._prepared:
            return DeviceResult("unknown")
        condition = {"before": self.condition_before.as_dict(), "after": self.condition_after.as_dict()}
        return DeviceResult(self.device.id, self.device.as_dict(), self.software.versions, condition)

    def _software_changes(self) -> list[str] | None:
        if self._baseline is None or not self._baseline.sessions:
            return None
        return SoftwareUnderTest.changes(self._baseline.software, self.software)

    def report(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and below it what needs saying."""
        if self._run_result is None:
            return
        from .report.terminal import summary_lines

        def markup(text: str, colour: str) -> str:
            return terminalreporter._tw.markup(text, **{colour: True})

        if self._prepared:
            self._run_result.saved = self._saver.name
        terminalreporter.ensure_newline()
        terminalreporter.section("inference-gate", sep="=")
        for line in self._saver.lines if self._prepared else ():
            terminalreporter.write_line(line)
        for line in summary_lines(self._run_result, width=max(_NARROWEST, terminalreporter._tw.fullwidth), markup=markup):
            terminalreporter.write_line(line)

    def close(self) -> None:
        self._running.close()


def _this_python() -> str:
    import sys

    return sys.executable


def _case_id_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("gate_case_id") if callspec else None


def _marked_tolerance(item: pytest.Item) -> float | None:
    """What ``@pytest.mark.gate(tolerance=...)`` says of the test, if anything. Raises ``pytest.UsageError`` for what cannot be a tolerance."""
    marker = item.get_closest_marker("gate")
    if marker is None:
        return None
    given = [*marker.args, *marker.kwargs.values()]
    if len(given) != 1 or not set(marker.kwargs) <= {"tolerance"}:
        raise pytest.UsageError(f"{item.nodeid}: the gate marker takes one tolerance and nothing else, as in gate(tolerance='3%')")
    (value,) = given
    try:
        return parse_share(f"{value:.9f}" if isinstance(value, (int, float)) else str(value))
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: the gate marker's tolerance {value!r} {error}") from None


def _stop_for(outcome: Outcome) -> None:
    """Skip or fail the test at hand for a case that did not come so far; do nothing for one that did."""
    if outcome.ok:
        return
    if outcome.kind == "unsupported":
        pytest.skip(outcome.message)
    pytest.fail(f"{outcome.kind} in stage {outcome.stage}: {outcome.message}", pytrace=False)

