"""What happens before the first test: every selected case is fetched, converted, run over its pictures and measured.

What goes wrong with one case becomes its outcome, never an error of the run.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING, Any

from .accelerators import MARKERS
from .accuracy import FLOAT_REFERENCE, OTHER_STACK, compare_predictions
from .agent_role import AgentRole, RunningAgents
from .artifacts import StoredArtifact
from .case_selection import Scalings, WantedCase
from .cases import Case
from .devices import Condition
from .errors import GateError, StoreError
from .evaluation_inputs import prepare_inputs
from .judging import CaseRecord, OtherSide
from .machine_watch import MachineWatch
from .outcome import Outcome, StageFailed
from .paired_measuring import WARM_UP_ROUNDS, BlockPlan, Side, SideFailed, measure_pair
from .preparation import Preparation, PreparedInputs, load_arguments
from .progress import Progress
from .sequential import EARLIEST
from .sweep import Plan, measure_replicate, sweep, telemetry_remarks

if TYPE_CHECKING:
    import numpy

    from .cards import ModelCard
    from .decision import LatencyDecision
    from .options import Settings
    from .run_environment import RunEnvironment
    from .zoo import FetchedCheckpoint

Decide = Callable[[CaseRecord], "LatencyDecision | None"]
"""What a case's measurements say so far, and how many more are wanted; ``None`` where they are compared with nothing."""

Metric = Callable[["numpy.ndarray[Any, Any]", "numpy.ndarray[Any, Any] | None"], float]

_MEMORY_OF_A_CONVERSION = 3 * 2**30  # a TensorFlow converter at work on a model of ImageNet's size, generously


class GateRun:
    """Fills one :class:`CaseRecord` for each wanted case, and tells where the time went in ``phases`` (seconds)."""

    def __init__(
        self,
        settings: Settings,
        environment: RunEnvironment,
        wanted: Mapping[str, WantedCase],
        other_cases: Mapping[str, Case],
        scalings: Scalings,
        metrics: Mapping[str, Metric],
        seed: int,
        progress: Progress,
        phases: dict[str, float],
    ) -> None:
        self.environment = environment
        self.plan = Plan.of(settings.rounds, settings.warm_up)
        self.phases = phases
        self.records = {case_id: CaseRecord(one.case) for case_id, one in wanted.items()}
        self.used: set[str] = set()  # ids of the cases on which something was run
        self.notes: list[str] = []  # what the user should know of the whole run
        self.condition_before = self.condition_after = Condition()
        self.canary: dict[str, Any] = {}  # what the machine's canary showed, as the session file keeps it
        self.preparation = Preparation(environment.store, environment.converter, self._fetch, self._inputs, progress.step)
        self.other_preparation: Preparation | None = None
        if environment.other is not None:
            self.other_preparation = self.preparation
            if settings.against_models is not None:  # cards of their own, under the same names
                self.other_preparation = Preparation(
                    environment.store, environment.other.converter, self._fetch, self._inputs, progress.step
                )
            elif environment.other.converter is not environment.converter:
                self.other_preparation = Preparation(
                    environment.store,
                    environment.other.converter,
                    self.preparation.checkpoint,
                    self.preparation.inputs,
                    progress.step,
                )
            for case_id, record in self.records.items():
                record.other = OtherSide(other_cases.get(case_id))
        self._settings = settings
        self._wanted = wanted
        self._scalings = scalings
        self._metrics = metrics
        self._seed = seed
        self._progress = progress

    def execute(self, running: RunningAgents, decide: Decide, compares: Callable[[Case], bool]) -> None:
        """All phases. ``compares`` says whether the baseline has a case.

        Raises a ``GateError`` for what keeps any case from being prepared, such as a full disk.
        """
        self._compares = compares
        alive = [one for one in self._wanted.values() if one.anything]
        with self._phase("fetch"):
            alive = [
                one for one in alive if self._attempt(one, self._require_runtime) and self._attempt(one, self._fetch_and_prepare)
            ]
        with self._phase("convert"):
            converting = [(one, partial(self._convert, one)) for one in alive]
            converting += [(one, partial(self._convert_other, other)) for one in alive if (other := self._other_case(one.case))]
            self._side_by_side([(one.case.id, task) for one, task in converting], running)
        if not self.environment.runtime.target.is_here:
            with self._phase("send"):
                for one in alive:
                    if self.records[one.case.id].outcome.ok and (one.accuracy or one.latency):
                        self._attempt(one, self._send)
        with self._phase("predict"):
            predicting = [one.case for one in alive if one.accuracy and self.records[one.case.id].outcome.ok]
            # Not every accelerator lets a second process in: an Edge TPU belongs to the one that has opened it.
            for together in (True, False):
                tasks = [
                    (case.id, partial(self._predict, case)) for case in predicting if (case.device not in MARKERS) is together
                ]
                self._side_by_side(tasks, running, elsewhere=self._elsewhere or not together)
        self._measure([one.case for one in alive if one.latency and self.records[one.case.id].outcome.ok], decide)
        with self._phase("predict"):
            for together in (True, False):
                alone = [one.case for one in alive if (one.case.device not in MARKERS) is together]
                tasks = [(case.id, partial(self._run_other_alone, case)) for case in alone]
                self._side_by_side(tasks, running, elsewhere=self._elsewhere or not together)

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - start

    # ---------------------------------------------------------------- failing

    def _fail(self, case_id: str, outcome: Outcome) -> None:
        if self.records[case_id].outcome.ok:  # the first failure is the one that matters
            self.records[case_id].outcome = outcome

    def _attempt(self, one: WantedCase, step: Callable[[WantedCase], None]) -> bool:
        try:
            step(one)
        except StageFailed as failure:
            self._fail(one.case.id, failure.outcome)
            return False
        return True

    @property
    def _elsewhere(self) -> bool:
        """Whether the runtime has a machine of its own, of whose cores and memory nothing is known here."""
        return not self.environment.runtime.target.is_here

    def _side_by_side(
        self, tasks: Sequence[tuple[str, Callable[[], None]]], running: RunningAgents, *, elsewhere: bool = False
    ) -> None:
        """Run the tasks, as many at once as cores and memory allow; a task's ``StageFailed`` becomes the outcome of the case it names.

        ``elsewhere``: they are the work of another machine, or of an accelerator, which gets them one by one.
        """
        jobs = 1 if elsewhere else self._jobs(len(tasks))
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="inference-gate")
        try:
            pending = {pool.submit(task): case_id for case_id, task in tasks}
            for future in as_completed(pending):
                try:
                    future.result()
                except StageFailed as failure:
                    self._fail(pending[future], failure.outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.close()
            raise
        pool.shutdown()

    def _jobs(self, tasks: int) -> int:
        if self._settings.jobs:
            return max(1, min(self._settings.jobs, tasks))
        import psutil

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(cores, int(psutil.virtual_memory().available // _MEMORY_OF_A_CONVERSION), tasks))

    # ---------------------------------------------------------------- fetching

    def _fetch(self, card: ModelCard) -> FetchedCheckpoint:
        from .zoo import fetch_checkpoint

        try:
            return fetch_checkpoint(
                card,
                store_root=self.environment.store.root,
                lock_file=card.directory / "checkpoints.lock.toml",
                mirror=self._settings.mirror,
                offline=self._settings.offline,
                progress=self._progress.step,
            )
        except GateError as error:
            raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def _inputs(self, card: ModelCard, purpose: str) -> PreparedInputs:
        environment = self.environment
        try:
            return prepare_inputs(
                environment.store, card, purpose, self._scalings, self._settings, environment.logs, self._progress.step
            )
        except StoreError:
            raise  # no fault of the card's: no other case could be prepared either
        except GateError as error:
            raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def _require_runtime(self, one: WantedCase) -> None:
        other = self.records[one.case.id].other
        if other is not None and self.environment.other is not None:
            try:
                self.environment.other.runtime.require(one.case, convert=False)
            except StageFailed as failure:
                other.outcome = failure.outcome
        self.environment.runtime.require(one.case, convert=False)
        if other is not None and not other.outcome.ok:
            message = f"nothing to compare with, since the other stack does not run it: {other.outcome.message}"
            raise StageFailed(Outcome("unsupported", "load", message))

    def _fetch_and_prepare(self, one: WantedCase) -> None:
        self.preparation.checkpoint(one.case.card)
        self.preparation.evaluation_inputs(one.case.card)

    # ---------------------------------------------------------------- converting, sending, predicting, measuring

    def _send(self, one: WantedCase) -> None:
        """Before anything runs there: what is sent in the middle of measuring would be measured too."""
        artifact = self.records[one.case.id].artifact
        assert artifact is not None
        put = self.environment.runtime.target.put
        put(artifact.directory / "payload")
        put(self.preparation.evaluation_inputs(one.case.card).path)

    def _convert(self, one: WantedCase) -> None:
        self.records[one.case.id].artifact = self._preparation_with_converter(one.case, own=True).artifact(one.case)
        if not one.accuracy and not one.latency:
            self.used.add(one.case.id)

    def _other_case(self, case: Case) -> Case | None:
        other = self.records[case.id].other
        return None if other is None else other.case

    def _convert_other(self, case: Case) -> None:
        other = self.records[case.id].other
        assert other is not None and self.other_preparation is not None
        try:
            self.other_preparation.evaluation_inputs(case.card)
            other.artifact = self._preparation_with_converter(case, own=False).artifact(case)
        except StageFailed as failure:
            other.outcome = failure.outcome

    def _preparation_with_converter(self, case: Case, *, own: bool) -> Preparation:
        """Each stack converts for itself, unless it is a bare runtime without any converter: then it runs what the other one made."""
        if self.other_preparation is None:
            return self.preparation
        if self._settings.against_models is not None:
            return self.preparation if own else self.other_preparation
        mine, theirs = (self.preparation, self.other_preparation) if own else (self.other_preparation, self.preparation)

        def able(preparation: Preparation) -> bool:
            try:
                preparation.converter.require(case, convert=True)
            except StageFailed:
                return False
            return True

        if able(mine) or not able(theirs):
            return mine
        whose = "this stack" if own else "the other stack"
        source = case.card.checkpoint.format
        note = f"{whose} has no converter from {source} to {case.backend}, so both stacks run what the one that has it makes"
        if note not in self.notes:
            self.notes.append(note)
        return theirs

    def _predict(self, case: Case) -> None:
        """Figures and metrics; the predictions themselves are not kept, since those of all cases may be larger than the memory."""
        import numpy

        record = self.records[case.id]
        assert record.artifact is not None
        inputs = self.preparation.evaluation_inputs(case.card)
        reference = self._other_predictions(record)
        record.compared_with = FLOAT_REFERENCE if reference is None else OTHER_STACK
        if reference is None:
            reference = self.preparation.reference_predictions(case)
        predictions = self._predictions(self.environment.runtime, case, record.artifact, inputs, f"{case.id}.predict")
        labels = None if inputs.labels is None else numpy.asarray(inputs.labels)
        try:
            record.figures = compare_predictions(predictions, labels, reference)
        except (GateError, ValueError) as error:
            raise StageFailed(Outcome("run_error", "predict", str(error))) from None
        record.metrics = {name: self._metric(name, predictions, labels) for name in self._metrics}
        self.used.add(case.id)

    def _other_predictions(self, record: CaseRecord) -> numpy.ndarray[Any, Any] | None:
        other, stack = record.other, self.environment.other
        if other is None or other.case is None or other.artifact is None or stack is None or self.other_preparation is None:
            return None
        try:
            inputs = self.other_preparation.evaluation_inputs(other.case.card)
            found = self._predictions(stack.runtime, other.case, other.artifact, inputs, f"{record.case.id}.predict-other")
        except StageFailed as failure:
            other.outcome = failure.outcome
            return None
        other.ran = True
        return found

    def _run_other_alone(self, case: Case) -> None:
        """Whether the other stack runs what this one does not: only then the case is broken by this one."""
        record = self.records[case.id]
        if record.other is not None and record.other.outcome.ok and not record.other.ran and not record.outcome.ok:
            self._other_predictions(record)

    def _predictions(
        self, role: AgentRole, case: Case, artifact: StoredArtifact, inputs: PreparedInputs, log_name: str
    ) -> numpy.ndarray[Any, Any]:
        import numpy

        found = self.environment.logs / f"{log_name}.npy"
        target = role.target
        there = target.place_for(found)
        with role.start(log_name) as agent:
            agent.load(load_arguments(case, artifact, target.put))
            agent.predict({"inputs": target.put(inputs.path), "outputs": there})
        target.fetch(there, found)
        predictions: numpy.ndarray[Any, Any] = numpy.load(found, allow_pickle=False)
        found.unlink()
        return predictions

    def _metric(self, name: str, predictions: numpy.ndarray[Any, Any], labels: numpy.ndarray[Any, Any] | None) -> float:
        try:
            return float(self._metrics[name](predictions, labels))
        except Exception as error:  # it is a user's code, and must not end the run of all other cases
            reason = " ".join(str(error).split())
            message = f"the metric {name!r} of the hook pytest_inference_gate_metrics raised {type(error).__name__}: {reason}; correct it"
            raise StageFailed(Outcome("run_error", "predict", message)) from error

    # ---------------------------------------------------------------- measuring

    def _measure(self, cases: Sequence[Case], decide: Decide) -> None:
        """Measure every case until ``decide`` wants no more of it, or its budget is spent, and watch the machine meanwhile."""
        if not cases:
            return
        order = random.Random(self._seed)
        self._progress.step(f"measuring in the order of --gate-seed={self._seed}")
        self.condition_before = Condition.now()
        with MachineWatch(self.environment.runtime) as watch:
            self._measure_all(cases, decide, order, watch)
            watch.read()
        self.condition_after = Condition.now()
        self.canary = watch.as_dict()
        self.notes += watch.remarks
        self.notes += telemetry_remarks(replicate for case in cases for replicate in self.records[case.id].all_replicates)
        for case in cases:
            if self.records[case.id].measured:
                self.used.add(case.id)

    def _measure_all(self, cases: Sequence[Case], decide: Decide, order: random.Random, watch: MachineWatch) -> None:
        wanted = {case.id: self._at_first(self.records[case.id]) for case in cases}
        while wanted:
            fresh = all(self.records[case_id].measured >= self._settings.replicates for case_id in wanted)
            if fresh:
                self._announce(wanted)
            phase = "confirm" if fresh else "measure"
            self._sweep(phase, [case for case in cases if case.id in wanted], wanted, order, watch)
            measured = [self.records[case.id] for case in cases if self.records[case.id].outcome.ok]
            wanted = {record.case.id: more for record in measured if (more := self._more(record, decide)) > 0}

    def _at_first(self, record: CaseRecord) -> int:
        """How many replicates are taken before anything is looked at: all of them where there is nothing to stop early for."""
        compares = self._takes_turns(record) or self._compares(record.case)
        return min(EARLIEST, self._settings.replicates) if compares else self._settings.replicates

    def _more(self, record: CaseRecord, decide: Decide) -> int:
        decision = decide(record)
        wanted = max(0, self._settings.replicates - record.measured) if decision is None else decision.wanted
        if record.measured < self._settings.replicates or not record.cost:
            return wanted
        affordable = int((self._settings.budget - record.cost) / (record.cost / record.measured))
        return max(0, min(wanted, affordable))

    def _announce(self, wanted: Mapping[str, int]) -> None:
        names = f"{len(wanted)} case{'s look' if len(wanted) > 1 else ' looks'}"
        what = "the other stack" if self.environment.other else "the baseline"
        self._progress.step(f"{names} different from {what}: measuring {sum(wanted.values())} times more to be sure")

    def _sweep(
        self, phase: str, cases: Sequence[Case], counts: Mapping[str, int], order: random.Random, watch: MachineWatch
    ) -> None:
        self._progress.begin_measuring()
        with self._phase(phase):
            failed = sweep(
                cases,
                counts,
                self._measure_once,
                order=order,
                progress=self._progress.measuring,
                before_pass=watch.read_now_and_then,
            )
        for case_id, failure in failed.items():
            self._fail(case_id, failure.outcome)

    def _measure_once(self, case: Case) -> None:
        record = self.records[case.id]
        start = time.perf_counter()
        try:
            if self._takes_turns(record):
                self._measure_pair(record)
            else:
                self._measure_alone(record)
        finally:
            record.cost += time.perf_counter() - start

    def _takes_turns(self, record: CaseRecord) -> bool:
        return record.other is not None and record.other.case is not None and record.other.outcome.ok

    def _measure_alone(self, record: CaseRecord) -> None:
        assert record.artifact is not None
        inputs = self.preparation.evaluation_inputs(record.case.card)
        log_name = f"{record.case.id}.measure-{record.measured + 1}"
        runtime = self.environment.runtime
        record.replicates.append(measure_replicate(runtime, record.case, record.artifact, inputs, self.plan, log_name))

    def _measure_pair(self, record: CaseRecord) -> None:
        other, stack = record.other, self.environment.other
        assert other is not None and other.case is not None and other.artifact is not None
        assert record.artifact is not None and stack is not None and self.other_preparation is not None
        inputs = self.preparation.evaluation_inputs(record.case.card)
        other_inputs = self.other_preparation.evaluation_inputs(other.case.card)
        try:
            pair = measure_pair(
                Side(self.environment.runtime, record.case, record.artifact, inputs),
                Side(stack.runtime, other.case, other.artifact, other_inputs),
                record.measured,
                Plan(self.plan.warm_up, WARM_UP_ROUNDS),
                BlockPlan.of(self._settings.rounds),
                f"{record.case.id}.pair-{record.measured + 1}",
            )
        except SideFailed as failure:
            if failure.candidate:
                raise
            other.outcome = failure.outcome
            self._measure_alone(record)  # so that the case, which works here, has figures
            return
        other.ran = True
        record.pairs.append(pair)
