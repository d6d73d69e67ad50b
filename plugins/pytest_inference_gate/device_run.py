"""What happens on one device before the first test: its cases are built where only it can, sent, run over their pictures and measured.

What goes wrong with one case becomes its outcome, and what goes wrong with the device becomes that of all its cases: never an error of the
run, which may have other devices.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .accelerators import MARKERS
from .accuracy import compare_predictions
from .accuracy_rule import FLOAT_REFERENCE, OTHER_STACK
from .agent.telemetry import REPLICATES_WITH_TELEMETRY
from .agent_role import AgentRole, RunningAgents
from .artifacts import StoredArtifact
from .cards import BUILT_IN_SCALINGS
from .case_selection import WantedCase
from .cases import Case
from .coverage import Coverage, MalformedCoverage, converter_coverage
from .detection.coco_evaluation import require_pycocotools
from .detection.run import DetectionMetric, DetectionRun, detect
from .devices import Condition
from .errors import GateError
from .judging import CaseRecord, FurtherBuild, OtherSide, replicates_at_first
from .label_count import check_loaded, check_values
from .machine.watch import MachineWatch
from .outcome import OK, Outcome, StageFailed, room_on_disk
from .paired_measuring import WARM_UP_ROUNDS, BlockPlan, Side, SideFailed, measure_pair
from .phase_times import PhaseTimes
from .predictions import predict_arguments, predictions_name, read_predictions
from .preparation import Preparation, PreparedInputs, build_name, load_arguments, load_request
from .progress import Progress
from .sequential import EARLIEST
from .side_by_side import Task, jobs_here, side_by_side
from .stack_preparations import StackPreparations
from .streams.measuring import frames_wanted, stream_replicate, sustain
from .streams.source import StreamSetting, stream_arguments
from .sweep import Plan, measure_replicate, runtime_coverage, sweep, telemetry_remarks

if TYPE_CHECKING:
    import numpy

    from .bundles.export import BundleCase, BundleFiles
    from .decision import LatencyDecision
    from .options import Settings
    from .predictions import Outputs
    from .run_environment import DeviceUnderTest

Metric = Callable[["numpy.ndarray[Any, Any]", "numpy.ndarray[Any, Any] | None"], float]


class Comparing(Protocol):
    """What the measurements of a device's cases are held against."""

    def decide(self, record: CaseRecord) -> LatencyDecision | None:
        """What a case's measurements say so far, and how many more are wanted; ``None`` where they are compared with nothing."""

    def compares(self, case: Case) -> bool:
        """Whether the baseline has the case."""


class DeviceRun:
    """Fills one :class:`CaseRecord` for each wanted case of a device, and tells where the time went in ``phases`` (seconds).

    ``records`` are by the case's id; ``used`` holds those of the cases on which something was run; ``notes`` are sentences for the user.
    Its methods are called in their order: :meth:`fetch`, the tasks of :meth:`conversions`, then :meth:`execute`, which may run in a
    thread of its own.
    """

    def __init__(
        self,
        settings: Settings,
        device: DeviceUnderTest,
        wanted: Sequence[WantedCase],
        other_cases: Mapping[str, Case],
        preparations: StackPreparations,
        metrics: Mapping[str, Metric],
        seed: int,
        progress: Progress,
        running: RunningAgents,
        comparing: Comparing,
        detection_metrics: Mapping[str, DetectionMetric] | None = None,
    ) -> None:
        self.plan = Plan.of(settings.rounds, settings.warm_up)
        self.phases = PhaseTimes()
        self.records = {one.case.id: CaseRecord(one.case, wanted_builds=one.builds) for one in wanted}
        self.used: set[str] = set()
        self.notes: list[str] = []
        self.condition_before = self.condition_after = Condition()
        self.canary: dict[str, Any] = {}  # what the machine's canary showed, as the session file keeps it
        self._settings = settings
        self._device = device
        self._wanted = wanted
        self._preparations = preparations
        self._metrics = metrics
        self._detections = DetectionRun(detection_metrics or {})
        self._seed = seed
        self._progress = progress
        self._running = running
        self._comparing = comparing
        self._alive: list[WantedCase] = []
        if device.other is not None:
            for case_id, record in self.records.items():
                record.other = OtherSide(other_cases.get(case_id))
        if device.failure is not None:
            for record in self.records.values():
                record.outcome = device.failure

    def fetch(self, *, for_bundle: bool = False) -> None:
        """See which cases the device can run, and have their checkpoints and pictures. What runs a bundle is not known here."""
        self._alive = [
            one
            for one in self._wanted
            if one.anything
            and self.records[one.case.id].outcome.ok
            and (for_bundle or self._attempt(one, self._require_runtime))
            and self._attempt(one, partial(self._fetch_and_prepare, for_bundle=for_bundle))
        ]

    def conversions(self, *, for_bundle: bool = False) -> list[Task]:
        """What the converter makes for this device: it may be done side by side with that of others."""
        tasks = []
        prepare = self._preparations.own.prepare_for_bundle if for_bundle else self._prepare_source
        for one in self._alive:
            if self._preparations.own.is_built_on_device(one.case):
                tasks.append(self._task(one, partial(prepare, one.case)))
            else:
                tasks += self._conversions_of(one)
        return tasks

    def execute(self) -> None:
        """All that the device itself does. Raises a ``GateError`` for what keeps any case from being prepared, such as a full disk."""
        building = [one for one in self._alive if self._preparations.own.is_built_on_device(one.case)]
        if building:
            # One by one: a builder times its kernels in order to choose among them.
            with self.phases.taking("build"):
                side_by_side([task for one in building for task in self._conversions_of(one)], 1, self._running)
        self.notes += conversion_remarks(self.records.values())
        if self._elsewhere:
            with self.phases.taking("send"):
                for one in self._alive:
                    if self.records[one.case.id].outcome.ok and (one.accuracy or one.latency):
                        self._attempt(one, self._send)
        with self.phases.taking("predict"):
            predicting = [one for one in self._alive if one.accuracy and self.records[one.case.id].outcome.ok]
            self._side_by_side(predicting, self._predict)
        self._measure([one.case for one in self._alive if one.latency and self.records[one.case.id].outcome.ok])
        with self.phases.taking("predict"):
            self._side_by_side(self._alive, self._run_other_alone)

    @property
    def _elsewhere(self) -> bool:
        """Whether the runtime has a machine of its own, of whose cores and memory nothing is known here."""
        return not self._device.runtime.target.is_here

    def _side_by_side(self, wanted: Sequence[WantedCase], act: Callable[[Case], None]) -> None:
        """As many at once as this machine allows; of another machine nothing is known, and it gets them one by one.

        So does an accelerator: not each lets a second process in, and an Edge TPU belongs to the one that has opened it.
        """
        for together in (True, False):
            tasks = [self._task(one, partial(act, one.case)) for one in wanted if (one.case.device not in MARKERS) is together]
            side_by_side(tasks, jobs_here(self._settings.jobs) if together and not self._elsewhere else 1, self._running)

    # ---------------------------------------------------------------- failing

    def _task(self, one: WantedCase, run: Callable[[], None]) -> Task:
        return Task(run, partial(self._fail, one.case.id))

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

    # ---------------------------------------------------------------- fetching, converting

    def _require_runtime(self, one: WantedCase) -> None:
        other = self.records[one.case.id].other
        if other is not None and one.latency and one.case.device == "edgetpu":
            other.outcome = _an_edge_tpu_each(self._device.runtime.probe.get("device") or {})
            if not other.outcome.ok:
                raise StageFailed(other.outcome)
        if other is not None and self._device.other is not None:
            try:
                self._device.other.runtime.require(one.case, convert=False)
            except StageFailed as failure:
                other.outcome = failure.outcome
        self._device.runtime.require(one.case, convert=False)
        if other is not None and not other.outcome.ok:
            message = f"nothing to compare with, since the other stack does not run it: {other.outcome.message}"
            raise StageFailed(Outcome("unsupported", "load", message))

    def bundle_cases(self, files: BundleFiles) -> list[BundleCase]:
        """What a board is asked to do with the cases that could be prepared; all that it takes is put into ``files``."""
        from .bundles.export import BundleBuild, BundleCase

        cases, own = [], self._preparations.own
        for one in self._alive:
            case, artifact, build = one.case, self.records[one.case.id].artifact, None
            if not self.records[case.id].outcome.ok or not (one.accuracy or one.latency):
                continue
            if own.is_built_on_device(case):
                build = BundleBuild(build_name(case), own.request_for_bundle(case, files.put))
                load = load_request(case, None)
            elif artifact is not None:
                load = load_arguments(case, artifact, files.put)
            else:
                continue
            inputs = files.put(own.evaluation_inputs(case.card).path)
            digest = None if artifact is None else artifact.digest
            pictures = case.card.measuring.pictures
            cases.append(BundleCase(case.id, case.device, load, inputs, one.accuracy, one.latency, digest, build, pictures))
        return cases

    def _fetch_and_prepare(self, one: WantedCase, *, for_bundle: bool) -> None:
        self._preparations.own.checkpoint(one.case.card)
        if one.case.stream is not None:
            self._find_stream(one.case, one.case.stream, for_bundle=for_bundle)
            if not one.accuracy:
                return
        inputs, wanted = self._preparations.own.evaluation_inputs(one.case.card), one.case.card.measuring.pictures
        if one.latency and one.case.stream is None and inputs.count < wanted:
            message = (
                f"{one.case.card.path}: measuring.pictures asks for rounds on {wanted} pictures, and the evaluation set has "
                f"{inputs.count}: lower it, or add pictures to the set"
            )
            raise StageFailed(Outcome("fetch_error", "fetch", message))
        if one.accuracy and inputs.annotations is not None:
            try:
                require_pycocotools()  # now, and not when everything is converted
            except GateError as error:
                raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def _find_stream(self, case: Case, setting: StreamSetting, *, for_bundle: bool) -> None:
        record = self.records[case.id]
        scaling = case.card.preprocessing.scaling
        camera = setting.section.camera
        if scaling not in BUILT_IN_SCALINGS:
            why = f"the scaling {scaling!r} is a hook's, which runs in the pytest process alone and not beside a stream's model"
        elif for_bundle or self._device.runtime.target.recording is not None:
            why = "a bundle has no streams: reach the board by ssh"
        elif camera is not None and self._device.other is not None:
            why = f"two stacks cannot take turns at {setting.section.source}, which never shows a frame twice: give a video"
        else:
            record.source = self._preparations.stream_source(case.card, setting)
            return
        raise StageFailed(Outcome("unsupported", "fetch", why))

    def _conversions_of(self, one: WantedCase) -> list[Task]:
        tasks = [self._task(one, partial(self._convert, one))]
        other = self.records[one.case.id].other
        if other is not None and other.case is not None:
            tasks.append(self._task(one, partial(self._convert_other, other, other.case)))
        return tasks

    def _prepare_source(self, case: Case) -> None:
        self._preparations.own.prepare_source(case, self._device.runtime)

    def _convert(self, one: WantedCase) -> None:
        preparation = self._preparations.of(one.case, own=True)
        record, runtime = self.records[one.case.id], self._device.runtime
        record.artifact = _checked(preparation.artifact(one.case, runtime))
        record.further = _further_builds(preparation, one.case, runtime, record.wanted_builds)
        if not one.accuracy and not one.latency:
            self.used.add(one.case.id)

    def _convert_other(self, other: OtherSide, case: Case) -> None:
        stack = self._device.other
        assert stack is not None and self._preparations.other is not None
        try:
            if case.stream is None:
                self._preparations.other.evaluation_inputs(case.card)
            preparation = self._preparations.of(case, own=False)
            other.artifact = _checked(preparation.artifact(case, stack.runtime))
            other.further = _further_builds(preparation, case, stack.runtime, self.records[case.id].wanted_builds)
        except StageFailed as failure:
            other.outcome = failure.outcome

    # ---------------------------------------------------------------- sending, predicting

    def _send(self, one: WantedCase) -> None:
        """Before anything runs there: what is sent in the middle of measuring would be measured too."""
        put = self._device.runtime.target.put
        for artifact in self.records[one.case.id].builds:
            put(artifact.payload)
        if one.case.stream is not None:
            self._stream_arguments(self.records[one.case.id], one.case, self._device.runtime)
        if one.case.stream is None or one.accuracy:
            put(self._preparations.own.evaluation_inputs(one.case.card).path)

    def _predict(self, case: Case) -> None:
        """Figures and metrics; the predictions themselves are not kept, since those of all cases may be larger than the memory."""
        record = self.records[case.id]
        assert record.artifact is not None
        inputs = self._preparations.own.evaluation_inputs(case.card)
        predictions = self._predictions(self._device.runtime, case, record.artifact, inputs, f"{case.id}.predict", record.told)
        reference = self._other_predictions(record)
        record.compared_with = FLOAT_REFERENCE if reference is None else OTHER_STACK
        if reference is None:
            reference = self._preparations.own.reference_predictions(case)
        self._compare(record, record, predictions, inputs, reference)
        for number, further in enumerate(record.further, start=2):
            log_name = f"{case.id}.predict-build{number}"
            predictions = self._predictions(self._device.runtime, case, further.artifact, inputs, log_name, further.told)
            self._compare(record, further, predictions, inputs, reference)
        self.used.add(case.id)

    def _compare(
        self,
        record: CaseRecord,
        found: CaseRecord | FurtherBuild,
        predictions: Outputs,
        inputs: PreparedInputs,
        reference: Outputs | None,
    ) -> None:
        """Fill in the figures and metrics of one build."""
        import numpy

        if record.case.card.task == "detection":
            if inputs.annotations is not None:
                self._progress.step(f"evaluating what {record.case.id} detects")
            compared_with = record.other.case if record.other is not None and record.compared_with == OTHER_STACK else None
            try:
                detected = detect(record.case.card, predictions)
                found.detection = self._detections.figures(record.case, detected, inputs, reference, compared_with)
                found.metrics = self._detections.metrics(detected, inputs)
            except (GateError, ValueError) as error:
                raise StageFailed(Outcome("run_error", "predict", str(error))) from None
            return
        labels = None if inputs.labels is None else numpy.asarray(inputs.labels)
        try:
            found.figures = compare_predictions(predictions[0], labels, None if reference is None else reference[0])
        except (GateError, ValueError) as error:
            raise StageFailed(Outcome("run_error", "predict", str(error))) from None
        found.metrics = {name: self._metric(name, predictions[0], labels) for name in self._metrics}

    def _other_predictions(self, record: CaseRecord) -> Outputs | None:
        other, stack = record.other, self._device.other
        if other is None or other.case is None or other.artifact is None or stack is None or self._preparations.other is None:
            return None
        try:
            inputs = self._preparations.other.evaluation_inputs(other.case.card)
            log_name = f"{record.case.id}.predict-other"
            found = self._predictions(stack.runtime, other.case, other.artifact, inputs, log_name, other.told)
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
        self,
        role: AgentRole,
        case: Case,
        artifact: StoredArtifact,
        inputs: PreparedInputs,
        log_name: str,
        told: list[Coverage],
    ) -> Outputs:
        """What the model says; what its runtime tells of the accelerator is added to ``told``."""
        found = self._device.logs / predictions_name(case, log_name)
        target = role.target
        there = target.place_for(found)
        disk = f"the disk of {self._device.logs}" if target.is_here else f"the disk of {target.name}"
        with role.start(log_name) as agent, room_on_disk(disk):
            check_loaded(case, agent.load(load_arguments(case, artifact, target.put)))
            coverage = runtime_coverage(agent.predict(predict_arguments(case, target.put(inputs.path), there)), "predict")
        if coverage is not None:
            told.append(coverage)
        target.fetch(there, found)
        try:
            predictions = read_predictions(found)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise StageFailed(Outcome("run_error", "predict", f"the agent's predictions cannot be read: {error}")) from None
        found.unlink()
        check_values(case, math.prod(predictions[0].shape[1:]), "predict")
        return predictions

    def _metric(self, name: str, predictions: numpy.ndarray[Any, Any], labels: numpy.ndarray[Any, Any] | None) -> float:
        try:
            return float(self._metrics[name](predictions, labels))
        except Exception as error:  # it is a user's code, and must not end the run of all other cases
            reason = " ".join(str(error).split())
            message = f"the metric {name!r} of the hook pytest_inference_gate_metrics raised {type(error).__name__}: {reason}; correct it"
            raise StageFailed(Outcome("run_error", "predict", message)) from error

    # ---------------------------------------------------------------- measuring

    def _measure(self, cases: Sequence[Case]) -> None:
        """Measure every case until ``decide`` wants no more of it, or its budget is spent, and watch the machine meanwhile."""
        if not cases:
            return
        order = random.Random(self._seed)
        self._progress.step(f"measuring in the order of --gate-seed={self._seed}")
        before = None if self._elsewhere else Condition.now()
        with MachineWatch(self._device.runtime) as watch:
            self._measure_all(cases, order, watch)
            watch.read()
            with self.phases.taking("sustain") if self._settings.sustained is not None else contextlib.nullcontext():
                self._sustain(cases)
                watch.read_now_and_then()
        # Of a board nothing can be read in this process: there it is what its own watch saw first and last.
        self.condition_before = before or watch.before
        self.condition_after = watch.after if before is None else Condition.now()
        self.canary = watch.as_dict()
        self.notes += watch.remarks
        self.notes += stream_remarks(self.records[case.id] for case in cases)
        self.notes += telemetry_remarks(replicate for case in cases for replicate in self.records[case.id].all_replicates)
        for case in cases:
            if self.records[case.id].measured:
                self.used.add(case.id)

    def _measure_all(self, cases: Sequence[Case], order: random.Random, watch: MachineWatch) -> None:
        wanted = {case.id: self._at_first(self.records[case.id]) for case in cases}
        while wanted:
            fresh = all(self.records[case_id].measured >= self._first(self.records[case_id]) for case_id in wanted)
            if fresh:
                self._announce(wanted)
            phase = "confirm" if fresh else "measure"
            self._sweep(phase, [case for case in cases if case.id in wanted], wanted, order, watch)
            measured = [self.records[case.id] for case in cases if self.records[case.id].outcome.ok]
            wanted = {record.case.id: more for record in measured if (more := self._more(record)) > 0}

    def _at_first(self, record: CaseRecord) -> int:
        """How many replicates are taken before anything is looked at: all of them where there is nothing to stop early for."""
        compares = self._takes_turns(record) or self._comparing.compares(record.case)
        first = self._first(record)
        if self._recorded is not None:
            return min(EARLIEST, first, self._recorded) if compares else self._recorded
        return min(max(EARLIEST, record.wanted_builds or 1), first) if compares else first

    @property
    def _recorded(self) -> int | None:
        """How many replicates of a case there are of a board that cannot be asked any more; ``None`` where it can."""
        recording = self._device.runtime.target.recording
        return None if recording is None else recording.replicates

    def _first(self, record: CaseRecord) -> int:
        return replicates_at_first(record, self._settings.replicates)

    def _more(self, record: CaseRecord) -> int:
        decision = self._comparing.decide(record)
        wanted = max(0, self._first(record) - record.measured) if decision is None else decision.wanted
        if self._recorded is not None:
            return min(wanted, self._recorded - record.measured)
        if record.measured < self._first(record) or not record.cost:
            return wanted
        affordable = int((self._settings.budget - record.cost) / (record.cost / record.measured))
        return max(0, min(wanted, affordable))

    def _announce(self, wanted: Mapping[str, int]) -> None:
        names = f"{len(wanted)} case{'s look' if len(wanted) > 1 else ' looks'}"
        what = "the other stack" if self._device.other else "the baseline"
        self._progress.step(f"{names} different from {what}: measuring {sum(wanted.values())} times more to be sure")

    def _sweep(
        self, phase: str, cases: Sequence[Case], counts: Mapping[str, int], order: random.Random, watch: MachineWatch
    ) -> None:
        self._progress.begin_measuring()
        with self.phases.taking(phase):
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
            if self._recorded is None:  # what it cost elsewhere is not known
                record.cost += time.perf_counter() - start

    def _takes_turns(self, record: CaseRecord) -> bool:
        return record.other is not None and record.other.case is not None and record.other.outcome.ok

    def _measure_alone(self, record: CaseRecord) -> None:
        assert record.artifact is not None
        case, runtime = record.case, self._device.runtime
        log_name = f"{case.id}.measure-{record.measured + 1}"
        build = record.measured % len(record.builds)
        with_telemetry = record.measured < REPLICATES_WITH_TELEMETRY
        if case.stream is not None:
            arguments = self._stream_arguments(record, case, runtime)
            frames = frames_wanted(self._settings.rounds, case.stream.section.maximum_frames)
            replicate = stream_replicate(
                runtime, case, record.builds[build], arguments, self.plan, frames, log_name, with_telemetry=with_telemetry
            )
        else:
            inputs = self._preparations.own.evaluation_inputs(case.card)
            replicate = measure_replicate(
                runtime, case, record.builds[build], inputs, self.plan, log_name, with_telemetry=with_telemetry
            )
        record.replicates.append(replace(replicate, build=build))

    def _stream_arguments(self, record: CaseRecord, case: Case, role: AgentRole) -> dict[str, Any]:
        assert case.stream is not None and record.source is not None
        return stream_arguments(case, case.stream, record.source, role.target.put)

    def _sustain(self, cases: Sequence[Case]) -> None:
        """A long run of each stream, beside its replicates: heat has the time to show."""
        seconds = self._settings.sustained
        streams = [case for case in cases if case.stream is not None and self.records[case.id].outcome.ok]
        for number, case in enumerate(streams if seconds is not None else (), start=1):
            assert seconds is not None
            record, runtime = self.records[case.id], self._device.runtime
            self._progress.step(f"stream {number} of {len(streams)} for {seconds:g} s: {case.id}")

            def progress(message: str, case: Case = case) -> None:
                self._progress.step(f"{case.id}: {message}")

            try:
                record.sustained = sustain(
                    runtime,
                    case,
                    record.builds[0],
                    self._stream_arguments(record, case, runtime),
                    self.plan,
                    seconds,
                    f"{case.id}.sustained",
                    progress,
                )
            except StageFailed as failure:
                self._fail(case.id, failure.outcome)

    def _measure_pair(self, record: CaseRecord) -> None:
        other, stack = record.other, self._device.other
        assert other is not None and other.case is not None and other.artifact is not None
        assert record.artifact is not None and stack is not None and self._preparations.other is not None
        own_runtime, other_runtime = self._device.runtime, stack.runtime
        inputs = other_inputs = frames = other_frames = None
        if record.case.stream is not None:
            # The other side's card says how its model sees a frame; which frames there are, and how they come, is the same for both.
            unpaced = {"pace": "none", "budget_frames_per_second": None}
            frames = {**self._stream_arguments(record, record.case, own_runtime), **unpaced}
            other_case = replace(other.case, stream=record.case.stream)
            other_frames = {**self._stream_arguments(record, other_case, other_runtime), **unpaced}
        else:
            inputs = self._preparations.own.evaluation_inputs(record.case.card)
            other_inputs = self._preparations.other.evaluation_inputs(other.case.card)
        build, other_build = record.measured % len(record.builds), record.measured % len(other.builds)
        try:
            pair = measure_pair(
                Side(own_runtime, record.case, record.builds[build], inputs, frames),
                Side(other_runtime, other.case, other.builds[other_build], other_inputs, other_frames),
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
        candidate, reference = replace(pair.candidate, build=build), replace(pair.reference, build=other_build)
        record.pairs.append(replace(pair, candidate=candidate, reference=reference))


def stream_remarks(records: Iterable[CaseRecord]) -> list[str]:
    """What is to be said of the frames, once for each source."""
    streams = [one.stream for record in records for one in record.all_replicates if one.stream is not None]
    return list(dict.fromkeys(remark for stream in streams for remark in stream.remarks))


def _further_builds(preparation: Preparation, case: Case, runtime: AgentRole, wanted: int | None) -> list[FurtherBuild]:
    """All builds but the first one, each by itself: what an earlier one learnt about the kernels of this device is not handed on."""
    return [FurtherBuild(_checked(preparation.artifact(case, runtime, build=number))) for number in range(1, wanted or 1)]


def _checked(artifact: StoredArtifact) -> StoredArtifact:
    """The artifact, whose converter tells its coverage in a form that can be read. Raises :class:`StageFailed`."""
    try:
        converter_coverage(artifact.provenance)
    except MalformedCoverage as problem:
        message = f"what the converter tells of the coverage {problem}: correct the backend's convert()"
        raise StageFailed(Outcome("build_error", "convert", message, log=artifact.log)) from None
    return artifact


def _an_edge_tpu_each(facts: Mapping[str, Any]) -> Outcome:
    """Two stacks that take turns hold their models loaded at once, and an Edge TPU belongs to the process that has opened it."""
    if len(facts.get("edge_tpus") or ()) > 1:
        return OK
    message = (
        "one Edge TPU cannot be opened by two stacks at once: record a baseline with the other stack by --benchmark-save=NAME, "
        "and compare with it by --benchmark-compare instead of taking turns"
    )
    return Outcome("unsupported", "load", message)


def conversion_remarks(records: Iterable[CaseRecord]) -> list[str]:
    """What the conversions want the user to know (``details["remarks"]``), each sentence once for each artifact, from the store or not."""
    found: dict[tuple[str, str], str] = {}
    for record in records:
        for artifact in [*record.builds, *(record.other.builds if record.other is not None else ())]:
            details = artifact.provenance.get("details")
            remarks = details.get("remarks") if isinstance(details, Mapping) else None
            for remark in remarks if isinstance(remarks, list) else ():
                case = record.case
                sentence = " ".join(str(remark).split())
                found.setdefault((artifact.digest, sentence), f"{build_name(case)}: {sentence}")
    return list(dict.fromkeys(found.values()))
