"""What a run found out: the data that every report is made of. No formatting, no decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from .accuracy import AccuracyFigures
from .accuracy_rule import AccuracyDecision
from .backends import CPU
from .build_results import NodeCounts
from .cases import Case
from .coverage import Coverage, CoverageDecision
from .decision import LatencyDecision
from .detection.accuracy import DetectionFigures
from .device_telemetry import TelemetryResult
from .limits import LimitResult
from .outcome import OK, Outcome
from .percentiles import percentile
from .picture_spread import median_of_each_picture, spread_over_pictures, spread_over_rounds
from .published import PublishedFigure
from .streams.results import StreamRecord, StreamResult
from .verdict import Verdict, run_is_red, worst

Mode = Literal["measure", "compare", "against"]

ROUNDS_FOR_P99 = 500
"""Below so many rounds the slowest hundredth is five values or fewer, which say nothing."""


@dataclass(frozen=True)
class Replicate:
    """What one fresh agent process measured. Durations in seconds, one for each round; ``first_inference`` is None where the
    process had predicted before. ``telemetry`` is the summary of power, temperatures and clocks meanwhile, None where none was taken.
    ``device_rounds`` are further rounds by the accelerator's own clock, where it has one: they show how much of a round is its work,
    and nothing is judged by them. ``coverage`` is what the runtime told of it afterwards, None where it tells nothing. ``build`` says which
    of several builds of the model it ran. ``pictures``: the rounds go through so many pictures in turn, round k is about picture
    k modulo their number, and each has its turn equally often. ``stream``: what it recorded of a stream, whose frames its rounds are.
    """

    load: float
    first_inference: float | None
    rounds: tuple[float, ...]
    steady: bool = True
    peak_rss_bytes: int | None = None
    warm_up_rounds: int = 0
    condition: Mapping[str, Any] = field(default_factory=dict)
    telemetry: Mapping[str, Any] | None = None
    device_rounds: tuple[float, ...] = ()
    coverage: Coverage | None = None
    build: int = 0
    pictures: int = 1
    stream: StreamRecord | None = None

    @property
    def picture_medians(self) -> tuple[float, ...]:
        """The median of each picture's rounds, in seconds."""
        return tuple(median(self.rounds[picture :: self.pictures]) for picture in range(self.pictures))

    @property
    def median(self) -> float:
        """The statistic of the replicate, in seconds: the median over its pictures of each picture's median."""
        return median(self.picture_medians)


@dataclass(frozen=True)
class LatencyResult:
    """The latency of one case. Durations in seconds.

    * ``load``, ``first_inference``: medians over replicates; ``replicates``: the median of each replicate's rounds;
      ``median``: the median of those, on which the verdict rests.
    * ``p50``, ``p90``, ``p99``: percentiles of the rounds of all replicates together; ``p99`` is None below 500 rounds.
    * ``throughput``: samples per second, batch / median.
    * ``unsteady``: how many replicates were still getting faster or slower when their warm-up ran out of time.
    * ``baseline_sessions``: the replicates of each session that was compared with, empty where nothing was compared; where two
      stacks were measured in turns, one session: the replicates of the other stack.
    * ``pair_ratios``: where two stacks were measured in turns, candidate / reference of each pair of processes, in their order.
    * ``decision``: None where nothing was compared.
    * ``replicate_builds``: which build each replicate ran, where the builder makes another one each time; else empty.
    * ``cost``: wall-clock seconds of all that was measured for the case, both stacks included; None where it is not known.
    * ``pictures``: how many pictures the rounds went through in turn; ``picture_medians`` has the median over replicates of each of
      them, ``baseline_pictures`` the same of what was compared with, empty where nothing was. Both are empty for one picture.
    * ``picture_spread``, ``round_spread``: see :mod:`picture_spread`; None for one picture.
    """

    load: float | None
    first_inference: float | None
    replicates: tuple[float, ...]
    rounds: int
    median: float
    p50: float
    p90: float
    p99: float | None
    throughput: float
    unsteady: int = 0
    baseline_sessions: tuple[tuple[float, ...], ...] = ()
    decision: LatencyDecision | None = None
    invalid: str | None = None
    pair_ratios: tuple[float, ...] = ()
    cost: float | None = None
    replicate_builds: tuple[int, ...] = ()
    pictures: int = 1
    picture_medians: tuple[float, ...] = ()
    picture_spread: float | None = None
    round_spread: float | None = None
    baseline_pictures: tuple[float, ...] = ()

    @property
    def build_medians(self) -> tuple[float, ...]:
        """The median of each build's replicates, in seconds; empty where the builder always makes the same."""
        pairs = list(zip(self.replicate_builds, self.replicates, strict=False))
        return tuple(median(value for one, value in pairs if one == build) for build in sorted(set(self.replicate_builds)))

    @property
    def build_spread(self) -> float | None:
        """How much slower the slowest build is than the fastest, as a share; None with fewer than two."""
        return max(self.build_medians) / min(self.build_medians) - 1 if len(self.build_medians) > 1 else None

    @property
    def verdict(self) -> Verdict | None:
        """None where nothing was compared."""
        if self.invalid is not None:
            return Verdict.INVALID
        return None if self.decision is None else self.decision.verdict

    @property
    def reason(self) -> str:
        if self.invalid is not None:
            return self.invalid
        return "" if self.decision is None else self.decision.reason

    def decided(
        self,
        decision: LatencyDecision,
        baseline_sessions: Sequence[Sequence[float]],
        baseline_pictures: Sequence[Sequence[float]] = (),
    ) -> LatencyResult:
        """The same measurement, compared. ``baseline_pictures``: the pictures' medians in each session, or replicate, compared with."""
        return replace(
            self,
            decision=decision,
            baseline_sessions=tuple(tuple(session) for session in baseline_sessions),
            baseline_pictures=median_of_each_picture(baseline_pictures) if self.pictures > 1 else (),
        )

    def invalidated(self, reason: str) -> LatencyResult:
        """The same measurement, not to be trusted: the device changed its condition meanwhile. Outranks any decision on it."""
        return replace(self, invalid=reason)


@dataclass(frozen=True)
class AccuracyResult:
    """``metrics`` holds those that a user's own suite adds, by name."""

    figures: AccuracyFigures
    decision: AccuracyDecision
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict


@dataclass(frozen=True)
class DetectionResult:
    """The accuracy of a detector. ``metrics`` holds those that a user's own suite adds, by name."""

    figures: DetectionFigures
    decision: AccuracyDecision
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict


@dataclass(frozen=True)
class CoverageResult:
    """How much of the model runs on its accelerator: the least that one of its builds or processes showed.

    ``found`` is None where nothing told it, and somebody asked; ``decision.before`` is what it was held against. ``log`` is the
    conversion's, which may say more.
    """

    found: Coverage | None
    decision: CoverageDecision
    log: Path | None = None

    @property
    def verdict(self) -> Verdict | None:
        """None where it was held against nothing."""
        return self.decision.verdict if self.decision.reason else None

    @property
    def red(self) -> bool:
        return self.decision.verdict is Verdict.FALLBACK


@dataclass(frozen=True)
class ArtifactResult:
    """The converted model that was run. ``cached``: it came from the store; ``convert_seconds`` is then what making it once
    took. ``nodes`` is how many its graph had and has, ``engines`` how many engines were put into it; None where nothing tells.
    """

    digest: str
    size_bytes: int
    convert_seconds: float | None
    cached: bool
    nodes: NodeCounts | None = None
    engines: int | None = None


@dataclass
class CaseResult:
    """One row of the result.

    ``verdict`` and ``reason`` are what the whole case comes to; :meth:`conclude` works them out of the parts. ``variant`` is None
    for most cases; ``device`` is the marker of the kind of device that it runs on; ``nodeids`` are the tests that were about this case.
    ``board`` is the name of the device among several, as in ``DeviceResult.name``.
    ``telemetry`` is what the device showed of power, temperatures and clocks meanwhile, None where it showed nothing or was not asked.
    ``accuracy`` is that of a classifier, ``detection`` that of a detector.
    ``published``: what others measured on such a board, which has no say in any verdict. ``stream``: of a stream's case, what its frames
    showed; its ``latency`` is that of frames, from decoding to the answer.
    ``overlapped`` says of a stream's case whether frames are prepared beside the inference, None for any other.
    ``limits`` are those that the card sets, judged; ``thread_speedup`` is the median of the same case with one thread over this one's, None
    where it has one thread or the other was not measured in this run.
    ``build_remarks``: in what its build is not as in the baseline, clauses that close no gate.
    """

    id: str
    model: str
    backend: str
    precision: str
    batch: int = 1
    threads: int = 1
    variant: str | None = None
    device: str = CPU
    nodeids: list[str] = field(default_factory=list)
    verdict: Verdict = Verdict.PASS
    reason: str = ""
    outcome: Outcome = OK
    latency: LatencyResult | None = None
    accuracy: AccuracyResult | None = None
    detection: DetectionResult | None = None
    artifact: ArtifactResult | None = None
    coverage: CoverageResult | None = None
    peak_rss_bytes: int | None = None
    telemetry: TelemetryResult | None = None
    board: str | None = None
    published: Sequence[PublishedFigure] = ()
    stream: StreamResult | None = None
    overlapped: bool | None = None
    limits: Sequence[LimitResult] = ()
    thread_speedup: float | None = None
    build_remarks: Sequence[str] = ()

    @classmethod
    def of(cls, case: Case) -> CaseResult:
        """An empty result for a case of the matrix."""
        return cls(
            case.id,
            case.model,
            case.backend,
            case.precision,
            case.batch,
            case.threads,
            case.variant,
            case.device,
            board=case.board,
            overlapped=None if case.stream is None else case.stream.overlap,
        )

    @property
    def name(self) -> str:
        """What tells the case from all others of the run: its id, and its board where there are several."""
        return self.id if self.board is None else f"{self.id}@{self.board}"

    def conclude(self, verdict: Verdict, reason: str) -> None:
        """Take a further verdict into account: the worst of all given decides the case, with the reason that came with it.

        Of two equally bad ones the first stays; a reason given with ``pass`` stays only as long as nothing else has one.
        """
        if worst([self.verdict, verdict]) is not self.verdict or not self.reason:
            self.verdict = worst([self.verdict, verdict])
            self.reason = reason


@dataclass(frozen=True)
class ComparedSession:
    """A saved session that the run was compared with: its name and when it was taken, as ISO 8601."""

    name: str
    datetime: str


@dataclass(frozen=True)
class DeviceResult:
    """One device on which the run took place: the facts of ``devices``, as they go into the result file.

    ``name`` tells it from the others where there are several. ``compared_sessions`` are those of its baseline, oldest first;
    ``software_changes`` like ``ai-edge-litert 2.1.0 -> 2.3.0``, None where there is no other software to compare with; ``saved`` the name
    under which its cases became a baseline. ``free_cores`` are those that other processes left to the cases, None where that is not known.
    """

    id: str
    identity: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    compared_sessions: Sequence[ComparedSession] = ()
    software_changes: Sequence[str] | None = None
    saved: str | None = None
    free_cores: float | None = None


@dataclass(frozen=True)
class OtherStack:
    """What was measured in turns with this stack. ``python`` is its interpreter; ``software`` like ``DeviceResult.software``; ``models``
    the folder of its model cards, ``None`` where they are the same.
    """

    python: str
    software: Mapping[str, str] = field(default_factory=dict)
    models: str | None = None


@dataclass
class RunResult:
    """One pytest run.

    * ``phases``: wall-clock seconds by name, in the order in which they shall be shown (fetch, convert, predict, measure).
    * ``notices``: sentences that are true of the whole run; ``software_changes``: like ``ai-edge-litert 2.1.0 -> 2.3.0``, None
      where there is no other software to compare with.
    * ``relaxed``: the verdicts that an option turned green. ``saved``: the name under which the run became a baseline.
    * ``exit_status``: pytest's, None while it is not known.
    * ``compared_sessions``: the sessions of the baseline, oldest first; ``against``: the other stack in a run of mode "against".
    * ``devices``: all of them where there are several; ``device``, ``software_changes``, ``saved`` and ``compared_sessions`` are then those
      of the first one, while ``cases`` are those of all.
    """

    mode: Mode
    device: DeviceResult
    cases: list[CaseResult] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    software_changes: Sequence[str] | None = None
    relaxed: frozenset[str] = frozenset()
    saved: str | None = None
    exit_status: int | None = None
    compared_sessions: Sequence[ComparedSession] = ()
    against: OtherStack | None = None
    devices: Sequence[DeviceResult] = ()

    @property
    def each_device(self) -> list[RunResult]:
        """The run as each device alone would have had it; this run itself where it has one device."""
        if not self.devices:
            return [self]
        return [
            replace(
                self,
                device=device,
                cases=[case for case in self.cases if case.board == device.name],
                software_changes=device.software_changes,
                compared_sessions=device.compared_sessions,
                saved=device.saved,
                devices=(),
            )
            for device in self.devices
        ]

    def counts(self) -> dict[Verdict, int]:
        """How many cases have each verdict, for those that occur, in the order of :class:`Verdict`."""
        verdicts = [case.verdict for case in self.cases]
        return {verdict: verdicts.count(verdict) for verdict in Verdict if verdict in verdicts}

    @property
    def red(self) -> bool:
        """Whether the gate closes, by its verdicts alone."""
        return run_is_red((case.verdict for case in self.cases), self.relaxed)


def summarize_replicates(replicates: Sequence[Replicate], *, batch: int) -> LatencyResult:
    """One case's latency from all of its replicates, not compared with anything yet.

    Raises ValueError where there is no replicate, or one without rounds.
    """
    if not replicates:
        raise ValueError("there is no replicate to summarize")
    if not all(replicate.rounds for replicate in replicates):
        raise ValueError("a replicate without measured rounds has no median")
    medians = tuple(replicate.median for replicate in replicates)
    pooled = [duration for replicate in replicates for duration in replicate.rounds]
    first = [replicate.first_inference for replicate in replicates if replicate.first_inference is not None]
    typical = median(medians)
    pictures = replicates[0].pictures
    if any(replicate.pictures != pictures or len(replicate.rounds) % pictures for replicate in replicates):
        raise ValueError("the replicates did not go through the same number of pictures in whole cycles")
    of_pictures = median_of_each_picture([replicate.picture_medians for replicate in replicates]) if pictures > 1 else ()
    return LatencyResult(
        load=median(replicate.load for replicate in replicates),
        first_inference=median(first) if first else None,
        replicates=medians,
        rounds=len(pooled),
        median=typical,
        p50=percentile(pooled, 50),
        p90=percentile(pooled, 90),
        p99=percentile(pooled, 99) if len(pooled) >= ROUNDS_FOR_P99 else None,
        throughput=batch / typical,
        unsteady=sum(not replicate.steady for replicate in replicates),
        pictures=pictures,
        picture_medians=of_pictures,
        picture_spread=spread_over_pictures(of_pictures) if pictures > 1 else None,
        round_spread=spread_over_rounds([replicate.rounds for replicate in replicates], pictures) if pictures > 1 else None,
    )
