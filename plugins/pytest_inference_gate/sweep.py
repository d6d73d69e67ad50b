"""Measuring: every case in a fresh process, several times, the cases in random order each time.

Whatever drifts while a run goes on (temperature, a neighbour, the clock) then meets all cases alike, instead of those that happen to
come last; and each replicate sees its own layout of memory and its own start. Evidence: Kalibera and Jones, ISMM 2013; Duplyakin
et al., ATC 2023.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .agent.telemetry import telemetry_wish
from .agent_role import AgentRole
from .artifacts import StoredArtifact
from .cases import Case
from .coverage import Coverage, MalformedCoverage, parse_coverage
from .label_count import check_loaded
from .outcome import Outcome, Stage, StageFailed
from .preparation import PreparedInputs, load_arguments
from .results import Replicate

if TYPE_CHECKING:
    from .agent_process import AgentProcess


@dataclass(frozen=True)
class Plan:
    """How a replicate is measured, as the agent's ``measure`` verb takes it.

    Warm-up ends when the medians of two windows in a row agree within ``agreement``, at the latest after ``maximum_seconds``. Fast
    models get more rounds than ``minimum``, so that the median does not hang on one moment.
    """

    warm_up: Mapping[str, float] = field(
        default_factory=lambda: {
            "minimum_rounds": 10,
            "minimum_seconds": 0.3,
            "maximum_seconds": 5.0,
            "window": 10,
            "agreement": 0.01,
        }
    )
    rounds: Mapping[str, float] = field(default_factory=lambda: {"minimum": 50, "minimum_seconds": 0.2, "maximum": 2000})

    @classmethod
    def of(cls, rounds: int | None, warm_up: float | None) -> Plan:
        """The default plan with what a user asked for instead: exactly so many rounds, at least so many seconds of warm-up."""
        plan = cls()
        return cls(
            plan.warm_up
            if warm_up is None
            else {**plan.warm_up, "minimum_seconds": warm_up, "maximum_seconds": max(5.0, 10 * warm_up)},
            plan.rounds if rounds is None else {"minimum": rounds, "minimum_seconds": 0.0, "maximum": rounds},
        )


def measure_replicate(
    role: AgentRole,
    case: Case,
    artifact: StoredArtifact,
    inputs: PreparedInputs,
    plan: Plan,
    log_name: str,
    *,
    with_telemetry: bool,
) -> Replicate:
    """Start an agent, load, warm up, measure, stop. Raises :class:`StageFailed`."""
    with role.start(log_name) as agent:
        loaded = agent.load(load_arguments(case, artifact, role.target.put))
        telemetry = telemetry_wish(role.probe.get("device") or {}, case.device) if with_telemetry else None
        check_loaded(case, loaded)
        pictures = case.pictures
        return measure_loaded(
            agent, role.target.put(inputs.path), plan, loaded["seconds"], pictures=pictures, telemetry=telemetry
        )


def telemetry_remarks(replicates: Iterable[Replicate]) -> list[str]:
    """Why power and temperatures of some measurements are missing, one sentence for each reason; for the user, and no verdict's matter."""
    taken = [replicate.telemetry for replicate in replicates if replicate.telemetry is not None]
    reasons = Counter(str(telemetry["problem"]) for telemetry in taken if telemetry.get("problem"))
    return [
        f"power and temperatures were not, or not wholly, sampled after {count} of {len(taken)} measurements: {reason}"
        for reason, count in reasons.items()
    ]


def measure_loaded(
    agent: AgentProcess,
    inputs: str,
    plan: Plan,
    load_seconds: float,
    *,
    pictures: int = 1,
    telemetry: Mapping[str, str] | None = None,
) -> Replicate:
    """Warm up and measure in an agent that has its model loaded; ``inputs`` is a path there, whose first ``pictures`` the rounds go through
    in turn, ``telemetry`` of :func:`agent.telemetry.telemetry_wish`.

    Raises :class:`StageFailed`.
    """
    wish: dict[str, Any] = {} if telemetry is None else {"telemetry": dict(telemetry)}
    if pictures > 1:
        wish["pictures"] = pictures
    measured = agent.measure({"inputs": inputs, "warmup": dict(plan.warm_up), "rounds": dict(plan.rounds), **wish})
    if measured.get("pictures", 1) != pictures or len(measured["rounds"]) % pictures:
        message = (
            f"the agent measured {len(measured['rounds'])} rounds on {measured.get('pictures', 1)} pictures, and was asked for whole cycles"
            f" of {pictures}: measure with the agent of this release"
        )
        raise StageFailed(Outcome("run_error", "measure", message))
    return replicate_of(measured, load_seconds, device_rounds=tuple(measured.get("device_rounds") or ()), pictures=pictures)


def replicate_of(reply: Mapping[str, Any], load_seconds: float, **more: Any) -> Replicate:
    """What an agent measured, of inferences or of frames; ``more`` is what only one of them has. Raises :class:`StageFailed`."""
    return Replicate(
        load=load_seconds,
        first_inference=reply["first_inference"],
        rounds=tuple(reply["rounds"]),
        steady=reply["steady"],
        warm_up_rounds=reply["warmup_rounds"],
        peak_rss_bytes=reply["peak_rss_bytes"],
        condition=reply["condition"],
        telemetry=reply.get("telemetry"),
        coverage=runtime_coverage(reply, "measure"),
        **more,
    )


def runtime_coverage(reply: Mapping[str, Any], stage: Stage) -> Coverage | None:
    """What an agent's reply tells of the accelerator, None where it tells nothing. Raises :class:`StageFailed` for what cannot be read:
    where the model ran is then not known."""
    told = reply.get("coverage")
    try:
        return None if told is None else parse_coverage(told)
    except MalformedCoverage as problem:
        message = f"what the backend's runner tells of its coverage {problem}: correct its coverage()"
        raise StageFailed(Outcome("run_error", stage, message)) from None


def sweep(
    cases: Sequence[Case],
    counts: Mapping[str, int],
    measure: Callable[[Case], None],
    *,
    order: random.Random,
    progress: Callable[[int, int, Case], None],
    before_pass: Callable[[], object] = lambda: None,
) -> dict[str, StageFailed]:
    """Measure each case as often as ``counts`` says by its id, in passes, each in an order of its own.

    A case that fails is not tried again in later passes; what it failed of is returned by its id. ``progress`` gets the number of the
    measurement, how many there will be, and the case.
    """
    failed: dict[str, StageFailed] = {}
    total = sum(counts[case.id] for case in cases)
    done = number = 0
    while remaining := [case for case in cases if case.id not in failed and counts[case.id] > number]:
        before_pass()
        order.shuffle(remaining)
        number += 1
        for case in remaining:
            done += 1
            progress(done, total, case)
            try:
                measure(case)
            except StageFailed as failure:
                failed[case.id] = failure
                total -= counts[case.id] - number
    return failed
