"""Was it the machine? What was read of its condition around a measurement, and which verdicts on latency that takes back.

Pure functions, no I/O. They veto and never normalise: no latency is divided by the canary's, since the canary says that the machine is
another one than before, and not by how much a model on it would be slower.

A veto that fires on a machine where nothing happened makes a gate useless, so each asks for more than a doubt:

* Load by other processes counts in a replicate where it exceeds :func:`disturbing_load` by more than the reading's own uncertainty,
  and takes ``slower`` back where it did in most replicates: what hit fewer does not move the median of the replicates.
* Time that the hypervisor took counts where the part of it that it took from this machine, s, lengthens all work by s / (1 - s), more than
  the case's threshold: then it is a slow-down by itself.
* The canary counts where it moved by far more than it moves by itself (:func:`canary_shifts`) *and* in a way that can
  explain, or hide, this very change of latency (:func:`veto`).

Where two stacks take turns on one machine, all of these meet both alike; then they are remarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import mean, median, stdev
from typing import Any, Literal

from ..decision import MEDIAN_TO_MEAN
from ..finite_numbers import is_finite_number
from ..verdict import Verdict

Kernel = Literal["compute", "memory"]
KERNELS: tuple[Kernel, ...] = ("compute", "memory")

SHARE_OF_A_CORE = 0.25
"""Others that use less than a quarter of one core meet less than a quarter of the rounds, which does not move their median."""

SHARE_OF_THE_CORES = 0.1
"""On machines with many cores the daemons of the system alone use some cores' worth; what they leave is enough."""

SPREADS = 3.0
"""How many times its own spread between sessions the canary must move before it counts, where many sessions tell the spread."""

SPREADS_OF_FEW: Mapping[int, float] = {
    5: 5.0,
    6: 4.4,
    7: 4.0,
    8: 3.7,
    9: 3.5,
    10: 3.4,
    11: 3.3,
    12: 3.2,
    13: 3.2,
    14: 3.1,
    15: 3.1,
}
"""The same where it is estimated from so few: the 99.5 % prediction limit of a normal distribution, t(n - 1) · sqrt(1 + 1 / n)."""

SESSIONS_THAT_TELL = 5
"""From so many sessions the spread of the canary between sessions is known well enough to rest a threshold on it."""

FLOORS: Mapping[Kernel, float] = {"compute": 0.02, "memory": 0.04}
"""No threshold of the canary is smaller: on the machine below, the median of a session's six readings has a standard error of 0.9 % and
4.3 %, so that a few sessions that agree better than this do so by chance.
"""

FLOORS_WHERE_SPREAD_IS_UNKNOWN: Mapping[Kernel, float] = {"compute": 0.08, "memory": 0.25}
"""The floors while the baseline has fewer than :data:`SESSIONS_THAT_TELL` sessions.

From 45 sessions of six readings each, taken over twelve minutes on a shared virtual machine of two cores where nothing changed
but its neighbours. The compute kernel's sessions had a standard deviation of 2.3 % (worst: +5.9 %), the memory kernel's one of 7 %
but for five sessions that were 29 to 73 % slower. With five of these sessions at random as the baseline and another as the run, these
rules call the machine faster in 0.3 % (compute) and 0.03 % (memory), and slower in 0.6 % and 5 %.
"""

SHARE_EXPLAINED = 0.5
"""A slow-down is the machine's if the canary shows at least this part of it: models differ in what they ask of a machine."""


# Load


def load_by_others(before: Mapping[str, Any], after: Mapping[str, Any], process_seconds: float | None) -> float | None:
    """Processor time that other processes used between two conditions, per second: in cores, 0 for none.

    ``before`` and ``after`` are facts as ``agent/device_facts.py`` reads them, ``process_seconds`` what the process that is being measured
    used of it. Interrupts count, time that waits for disks or was given to other machines does not. None if unknown.
    """
    busy, elapsed = _difference(before, after, "busy_ticks"), _difference(before, after, "monotonic")
    ticks_per_second = after.get("ticks_per_second")
    if busy is None or elapsed is None or process_seconds is None or not ticks_per_second or elapsed <= 0:
        return None
    return max(0.0, busy / float(ticks_per_second) - process_seconds) / elapsed


def disturbing_load(cores: int) -> float:
    """From how much load by others on, in cores, timings on a machine of so many cores count as disturbed.

    Example: 0.25 of 2 cores, 6.4 of 64.
    """
    return max(SHARE_OF_A_CORE, SHARE_OF_THE_CORES * cores)


def is_disturbed(load: float, seconds: float, cores: int, ticks_per_second: float = 100.0) -> bool:
    """Whether ``load`` by others, in cores over ``seconds``, is more than a measurement can bear, beyond doubt.

    The kernel counts processor time in ticks (10 ms nearly everywhere), and each core's count may be off by one: over a short span the
    load is uncertain by ``cores`` ticks, and only what exceeds that counts.
    """
    return load - cores / ticks_per_second / seconds > disturbing_load(cores)


@dataclass(frozen=True)
class Disturbance:
    """What was going on beside the replicates of one case.

    ``known``: in how many replicates load by others is known; ``disturbed``: in how many of these it was too high; ``load``: its median in
    cores; ``cores``: of the machine; ``stolen``: the median share, 0 to 1, that the hypervisor took of the processor time that was asked
    for. None if unknown.
    """

    known: int = 0
    disturbed: int = 0
    load: float | None = None
    cores: int | None = None
    stolen: float | None = None

    @property
    def mostly(self) -> bool:
        return self.disturbed * 2 > self.known

    @classmethod
    def of(cls, conditions: Iterable[Mapping[str, Any]]) -> Disturbance:
        """From the condition of each replicate: ``before``, ``after``, ``process_seconds``. Replicates without them do not count."""
        loads: list[float] = []
        stolen: list[float] = []
        disturbed = 0
        cores: int | None = None
        for condition in conditions:
            before, after = condition.get("before") or {}, condition.get("after") or {}
            share = stolen_share(before, after)
            if share is not None:
                stolen.append(share)
            load = load_by_others(before, after, condition.get("process_seconds"))
            online = after.get("online")
            if load is None or not online:
                continue
            cores = len(online)
            loads.append(load)
            disturbed += is_disturbed(load, after["monotonic"] - before["monotonic"], cores, after["ticks_per_second"])
        return cls(len(loads), disturbed, median(loads) if loads else None, cores, median(stolen) if stolen else None)


def stolen_share(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """The share, 0 to 1, that the hypervisor gave to other machines of the processor time that this one asked for; None if unknown."""
    stolen, busy = _difference(before, after, "steal_ticks"), _difference(before, after, "busy_ticks")
    if stolen is None or busy is None or stolen + busy <= 0:
        return None
    return max(0.0, stolen) / (stolen + busy)


# The canary


@dataclass(frozen=True)
class CanaryShift:
    """How a kernel of the canary moved.

    ``ratio`` is its time now over that of the baseline, ``threshold`` the share beyond which that is no chance (0.05 is 5 %),
    ``sessions`` of how many sessions the baseline consists.
    """

    kernel: Kernel
    ratio: float
    threshold: float
    sessions: int = SESSIONS_THAT_TELL

    @property
    def slower(self) -> bool:
        return self.ratio > 1 + self.threshold

    @property
    def faster(self) -> bool:
        return 1 / self.ratio > 1 + self.threshold


def canary_of_session(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a session keeps of its canary's readings: for each kernel the median in seconds, and the standard deviation of the readings as
    a share of it (None of a single one).

    Empty where there is no reading. Where the kernel changed in the middle, those of the last one count.
    """
    if not readings:
        return {}
    kernel = readings[-1]["kernel"]
    same = [reading for reading in readings if reading["kernel"] == kernel]
    kept: dict[str, Any] = {"kernel": kernel, "readings": len(same)}
    for name in KERNELS:
        values = [float(reading[name]) for reading in same]
        kept[name] = median(values)
        kept[f"{name}_spread"] = stdev(values) / median(values) if len(values) > 1 else None
    return kept


def canary_shifts(
    baseline_canaries: Sequence[Mapping[str, Any]], now: Mapping[str, Any], threshold: float
) -> tuple[CanaryShift, ...]:
    """How the canary moved against the median of the baseline's sessions, by kernel; empty where there is none to compare with.

    Sessions are as :func:`canary_of_session` gives them; those with another kernel, or none, do not count. ``threshold`` is the latency
    threshold T of the case. A kernel's own threshold is the largest of

    * T / 2, since a machine that moved by less can hardly be what moved a case by T;
    * three times the standard deviation between the baseline's sessions, more of few sessions (:data:`SPREADS_OF_FEW`). Not a robust
      measure: of few sessions the median absolute deviation is often far too small, and a veto too many is the worse error;
    * three times the standard error of the two medians from how the readings scatter within the sessions, 1.25 s / √n each;
    * a floor, a wider one while the baseline has fewer than five sessions.
    """
    if not now.get("kernel"):
        return ()
    sessions = [canary for canary in baseline_canaries if canary.get("kernel") == now["kernel"] and _is_whole(canary)]
    if not sessions:
        return ()
    floors = FLOORS if len(sessions) >= SESSIONS_THAT_TELL else FLOORS_WHERE_SPREAD_IS_UNKNOWN
    shifts = []
    for name in KERNELS:
        values = [float(session[name]) for session in sessions]
        centre = median(values)
        between = stdev(values) / centre if len(values) > 1 else 0.0
        errors = [_standard_error(session, name) for session in sessions]
        within = hypot(_standard_error(now, name), mean(errors) / sqrt(len(errors)))
        spreads = SPREADS_OF_FEW.get(len(values), SPREADS)
        limit = max(threshold / 2, spreads * between, SPREADS * within, floors[name])
        shifts.append(CanaryShift(name, float(now[name]) / centre, limit, len(values)))
    return tuple(shifts)


def _is_whole(canary: Mapping[str, Any]) -> bool:
    """Whether a session's canary has its figures; a file that somebody edited is no reason to end a run."""
    positive: list[Any] = [*(canary.get(name) for name in KERNELS), canary.get("readings") or 1]
    spreads: list[Any] = [canary.get(f"{name}_spread") or 0.0 for name in KERNELS]
    return all(is_finite_number(value) for value in (*positive, *spreads)) and min(positive) > 0 and min(spreads) >= 0


def _standard_error(session: Mapping[str, Any], kernel: Kernel) -> float:
    """Of the median of a session's readings, as a share: that of a normal distribution's, sqrt(pi / 2) s / sqrt(n)."""
    return MEDIAN_TO_MEAN * float(session.get(f"{kernel}_spread") or 0.0) / sqrt(session.get("readings") or 1)


# Verdicts


def veto(
    verdict: Verdict | None,
    ratio: float | None,
    threshold: float,
    *,
    problems: Sequence[str] = (),
    disturbance: Disturbance = Disturbance(),
    shifts: Sequence[CanaryShift] = (),
    in_turns: bool = False,
) -> str | None:
    """Why ``verdict`` on a case's latency is invalid, one sentence that says what to do; None if it stands.

    ``verdict`` and ``ratio`` (latency now / before) are None where nothing was compared; ``threshold`` is the case's latency threshold, a
    share; ``problems`` are those of ``devices.Condition``. ``in_turns``: two stacks took turns, nothing is vetoed.

    * Throttling or a changed setting takes any verdict back, and the measurement with it.
    * ``slower`` is taken back where other processes used the processor during most replicates, where the hypervisor took more time than the
      threshold, and where the canary is slower too and shows at least half of the slow-down.
    * ``pass`` and ``faster`` are taken back where the canary is faster, and the case did not keep up with it by more than the
      threshold: then a faster machine may hide a slower model. This turns a green verdict red on nothing but the canary, so it needs a
      baseline whose sessions tell how much the canary moves by itself (:data:`SESSIONS_THAT_TELL`); of fewer it is a remark.
    """
    if in_turns:
        return None
    if problems:
        return f"the device changed while it was measured: {'; '.join(problems)}"
    if verdict is Verdict.SLOWER:
        return _load_reason(disturbance) or _steal_reason(disturbance, threshold) or _slower_machine_reason(ratio, shifts)
    if verdict in (Verdict.PASS, Verdict.FASTER):
        return _faster_machine_reason(ratio, threshold, shifts)
    return None


def remarks(
    threshold: float,
    *,
    problems: Sequence[str] = (),
    disturbance: Disturbance = Disturbance(),
    shifts: Sequence[CanaryShift] = (),
) -> list[str]:
    """What was wrong with the machine, one clause each, whatever the verdict: for a report, not for a decision."""
    found = list(problems)
    if disturbance.mostly:
        found.append(_load_text(disturbance))
    if _steals(disturbance, threshold):
        found.append(_steal_text(disturbance))
    found += [_shift_text(shift) for shift in shifts if shift.slower or shift.faster]
    return found


def _load_reason(disturbance: Disturbance) -> str | None:
    if not disturbance.mostly:
        return None
    return f"{_load_text(disturbance)}: stop them (inference-gate doctor names them) and run again"


def _load_text(disturbance: Disturbance) -> str:
    return (
        f"other processes used {disturbance.load or 0:.1f} of {disturbance.cores} cores during {disturbance.disturbed} "
        f"of {disturbance.known} replicates"
    )


def _steals(disturbance: Disturbance, threshold: float) -> bool:
    stolen = disturbance.stolen
    return stolen is not None and stolen > threshold * (1 - stolen)


def _steal_reason(disturbance: Disturbance, threshold: float) -> str | None:
    if not _steals(disturbance, threshold):
        return None
    return f"{_steal_text(disturbance)}: run again when its host is quieter, or gate in turns with --gate-against"


def _steal_text(disturbance: Disturbance) -> str:
    return f"the hypervisor gave {disturbance.stolen or 0:.0%} of the processor time that was asked for to other machines"


def _slower_machine_reason(ratio: float | None, shifts: Sequence[CanaryShift]) -> str | None:
    slower = [
        shift for shift in shifts if shift.slower and ratio is not None and SHARE_EXPLAINED * (ratio - 1) <= shift.ratio - 1
    ]
    if not slower:
        return None
    shift = max(slower, key=lambda shift: shift.ratio)
    return f"the machine is slower than it was for the baseline: {_shift_text(shift)}; run again, or gate in turns with --gate-against"


def _faster_machine_reason(ratio: float | None, threshold: float, shifts: Sequence[CanaryShift]) -> str | None:
    # Compared with the canary's own ratio, not divided by it: nothing but the veto depends on it.
    faster = [
        shift
        for shift in shifts
        if shift.faster and shift.sessions >= SESSIONS_THAT_TELL and ratio is not None and ratio > shift.ratio * (1 + threshold)
    ]
    if not faster:
        return None
    shift = min(faster, key=lambda shift: shift.ratio)
    return (
        f"the machine is faster than it was for the baseline, which can hide a slow-down: {_shift_text(shift)}; "
        "undo what made it faster, or record a new baseline"
    )


def _shift_text(shift: CanaryShift) -> str:
    change = f"{shift.ratio - 1:.0%} longer" if shift.ratio > 1 else f"{1 - shift.ratio:.0%} less time"
    return f"the {shift.kernel} canary takes {change} (chance: {shift.threshold:.0%})"


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> float | None:
    old, new = before.get(key), after.get(key)
    return None if old is None or new is None else float(new) - float(old)
