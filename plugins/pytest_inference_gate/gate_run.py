"""What happens before the first test: every selected case is fetched, converted, run over its pictures and measured.

What goes wrong with one case becomes its outcome, never an error of the run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING, Any

from .accuracy import compare_predictions
from .agent_role import RunningAgents
from .case_selection import Scalings, WantedCase
from .cases import Case
from .devices import Condition
from .errors import GateError, StoreError
from .evaluation_inputs import prepare_inputs
from .judging import CaseRecord
from .outcome import Outcome, StageFailed
from .preparation import Preparation, PreparedInputs, load_arguments
from .progress import Progress
from .results import Replicate
from .sweep import Plan, measure_replicate, sweep

if TYPE_CHECKING:
    import numpy

    from .cards import ModelCard
    from .options import Settings
    from .run_environment import RunEnvironment
    from .zoo import FetchedCheckpoint

Metric = Callable[["numpy.ndarray[Any, Any]", "numpy.ndarray[Any, Any] | None"], float]

_MEMORY_OF_A_CONVERSION = 3 * 2**30  # a TensorFlow converter at work on a model of ImageNet's size, generously


class GateRun:
    """Fills one :class:`CaseRecord` for each wanted case, and tells where the time went in ``phases`` (seconds)."""

    def __init__(
        self,
        settings: Settings,
        environment: RunEnvironment,
        wanted: Mapping[str, WantedCase],
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
        self.condition_before = self.condition_after = Condition()
        self.preparation = Preparation(environment.store, environment.converter, self._fetch, self._inputs, progress.step)
        self._settings = settings
        self._wanted = wanted
        self._scalings = scalings
        self._metrics = metrics
        self._seed = seed
        self._progress = progress

    def execute(self, running: RunningAgents) -> None:
        """All phases. Raises a ``GateError`` for what keeps any case from being prepared, such as a full disk."""
        alive = [one for one in self._wanted.values() if one.anything]
        with self._phase("fetch"):
            alive = [
                one for one in alive if self._attempt(one, self._require_runtime) and self._attempt(one, self._fetch_and_prepare)
            ]
        with self._phase("convert"):
            self._side_by_side({one.case.id: partial(self._convert, one) for one in alive}, running)
        with self._phase("predict"):
            predicting = [one for one in alive if one.accuracy and self.records[one.case.id].outcome.ok]
            self._side_by_side({one.case.id: partial(self._predict, one.case) for one in predicting}, running)
        self._measure([one.case for one in alive if one.latency and self.records[one.case.id].outcome.ok])

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

    def _side_by_side(self, tasks: Mapping[str, Callable[[], None]], running: RunningAgents) -> None:
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
        self.environment.runtime.require(one.case, convert=False)

    def _fetch_and_prepare(self, one: WantedCase) -> None:
        self.preparation.checkpoint(one.case.card)
        self.preparation.evaluation_inputs(one.case.card)

    # ---------------------------------------------------------------- converting, predicting, measuring

    def _convert(self, one: WantedCase) -> None:
        self.records[one.case.id].artifact = self.preparation.artifact(one.case)
        if not one.accuracy and not one.latency:
            self.used.add(one.case.id)

    def _predict(self, case: Case) -> None:
        """Figures and metrics; the predictions themselves are not kept, since those of all cases may be larger than the memory."""
        import numpy

        record = self.records[case.id]
        assert record.artifact is not None
        inputs = self.preparation.evaluation_inputs(case.card)
        reference = self.preparation.reference_predictions(case)
        target = self.environment.logs / f"{case.id}.predictions.npy"
        with self.environment.runtime.start(f"{case.id}.predict") as agent:
            agent.load(load_arguments(case, record.artifact))
            agent.predict({"inputs": str(inputs.path), "outputs": str(target)})
        predictions = numpy.load(target, allow_pickle=False)
        target.unlink()
        labels = None if inputs.labels is None else numpy.asarray(inputs.labels)
        try:
            record.figures = compare_predictions(predictions, labels, reference)
        except (GateError, ValueError) as error:
            raise StageFailed(Outcome("run_error", "predict", str(error))) from None
        record.metrics = {name: self._metric(name, predictions, labels) for name in self._metrics}
        self.used.add(case.id)

    def _metric(self, name: str, predictions: numpy.ndarray[Any, Any], labels: numpy.ndarray[Any, Any] | None) -> float:
        try:
            return float(self._metrics[name](predictions, labels))
        except Exception as error:  # it is a user's code, and must not end the run of all other cases
            reason = " ".join(str(error).split())
            message = f"the metric {name!r} of the hook pytest_inference_gate_metrics raised {type(error).__name__}: {reason}; correct it"
            raise StageFailed(Outcome("run_error", "predict", message)) from error

    def _measure(self, cases: Sequence[Case]) -> None:
        self.condition_before = Condition.now()
        if cases:
            self._progress.step(f"measuring in the order of --gate-seed={self._seed}")
            measured = self._sweep("measure", cases, self._settings.replicates, self._seed)
            for case_id, replicates in measured.items():
                self.records[case_id].replicates = replicates
                if replicates:
                    self.used.add(case_id)
        self.condition_after = Condition.now()

    def confirm(self, cases: Sequence[Case]) -> None:
        """Take fresh replicates of cases that look different from their baseline, twice as many as before."""
        if not cases:
            return
        count = 2 * self._settings.replicates
        names = f"{len(cases)} case{'s look' if len(cases) > 1 else ' looks'}"
        self._progress.step(f"{names} different from the baseline: taking {count} fresh replicates of each to confirm it")
        for case_id, replicates in self._sweep("confirm", cases, count, self._seed + 1).items():
            self.records[case_id].fresh_replicates = replicates
        self.condition_after = Condition.now()

    def _sweep(self, phase: str, cases: Sequence[Case], count: int, seed: int) -> dict[str, list[Replicate]]:
        self._progress.begin_measuring()
        with self._phase(phase):
            measure = partial(self._replicate, phase)
            measured, failed = sweep(cases, count, measure, seed=seed, progress=self._progress.measuring)
        for case_id, failure in failed.items():
            self._fail(case_id, failure.outcome)
        return measured

    def _replicate(self, phase: str, case: Case, number: int) -> Replicate:
        artifact = self.records[case.id].artifact
        assert artifact is not None
        inputs = self.preparation.evaluation_inputs(case.card)
        log_name = f"{case.id}.{phase}-{number + 1}"
        return measure_replicate(self.environment.runtime, case, artifact, inputs, self.plan, log_name)
