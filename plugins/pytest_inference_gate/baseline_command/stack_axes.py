"""What an upgrade is made of: the software stacks of a device's saved sessions, and the steps between them that change one thing.

A *stack* is all software that was under test in a session. It lies on three axes: the *system* (L4T or JetPack, CUDA, cuDNN, TensorRT,
drivers, kernel), the *framework* (Python and the packages of the environment that runs the model) and the *converter* (the environment
that converted it, where that is another one). Two stacks that differ on one axis alone are a *step*: what changed between them is that
axis' doing. Two that differ on more are *confounded*: whatever changed may be due to either, and is told of neither.

Pure: sessions in, stacks and steps out. The verdict of a step is that of :mod:`decision` on the replicates that the sessions hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import median
from typing import Any, Literal

from ..baselines import BaselineCase, BaselineSession, newest_failure
from ..build_decision import Built, decide_builds
from ..decision import ALPHA, LatencyDecision, correct_for_family, decide
from ..devices import version_of
from ..rank_tests import smallest_p_value
from ..verdict import Verdict
from ..wording import letter_of

Axis = Literal["system", "framework", "converter"]
AXES: tuple[Axis, ...] = ("system", "framework", "converter")

_CONVERTER = "converter:"
_FIRST = 5  # replicates that raise a suspicion, in a run of the gate; those after them confirm it

# What comes with the system's image, or with the machine. Everything else that is recorded belongs to an environment.
SYSTEM = (
    "jetpack",
    "l4t",
    "tensorrt",
    "tensorrt-library",
    "cuda",
    "cudnn",
    "nvidia-driver",
    "apex-driver",
    "edgetpu-runtime",
    "os",
    "kernel",
    "userland",
    "microcode",
    "cpu-governor",
    "cpu-boost",
)
_ALWAYS_CONVERTS = ("edgetpu-compiler",)
_BUILD_FOR_JETPACK = re.compile(r"\+(?=.*\bnv\d)")
_TENSORFLOW = ("tensorflow", "tensorflow-gpu", "nvidia-tensorflow", "tensorflow-cpu", "tensorflow-aarch64", "tf-nightly")
# By these a stack is called where they differ, the first ones first.
_HEADLINES: Mapping[Axis, tuple[str, ...]] = {
    "system": ("jetpack", "l4t", "tensorrt-library", "cuda", "cudnn", "nvidia-driver", "edgetpu-runtime", "os", "kernel"),
    "framework": (
        *_TENSORFLOW,
        "ai-edge-litert",
        "tflite-runtime",
        "pycoral",
        "onnxruntime",
        "onnxruntime-gpu",
        "torch",
        "torch2trt",
        "python",
    ),
    "converter": (*_TENSORFLOW, "torch", "tf2onnx", "onnx", "edgetpu-compiler", "python"),
}
_HEADLINES_SHOWN = 2


# ---------------------------------------------------------------- axes


def axis_of(name: str) -> Axis | None:
    """The axis of a name of the recorded software; None for what says nothing of this device (the system of another that converts)."""
    if name.startswith(_CONVERTER):
        return None if name.removeprefix(_CONVERTER) in SYSTEM else "converter"
    if name in _ALWAYS_CONVERTS:
        return "converter"
    # Wheels that bring TensorRT or CUDA are packages of an environment; the plain binding comes with JetPack.
    return "system" if name in SYSTEM else "framework"


@dataclass(frozen=True)
class Change:
    """One version that differs; None where it is not there, or not known."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.before or 'none'} -> {self.after or 'none'}"


def differences(
    before: Mapping[str, str], after: Mapping[str, str], ignored: Collection[str] = ()
) -> dict[Axis, tuple[Change, ...]]:
    """What differs between two stacks, by axis, the axes on which nothing does left out; ``ignored``: names that do not count.

    What converts is compared only by what one of the two records of it: an environment that converts and runs has its versions under the
    plain names.
    """
    found: dict[Axis, list[Change]] = {axis: [] for axis in AXES}
    for axis in AXES:
        names = {_plain(name) for name in {*before, *after} if axis_of(name) == axis}
        for name in sorted(names - {*ignored}):
            change = Change(name, _version(axis, before, name), _version(axis, after, name))
            if change.before != change.after:
                found["system" if axis == "framework" and _is_rebuilt_for_system(change) else axis].append(change)
    return {
        axis: tuple(sorted(changes, key=lambda change: _rank(axis, change.name))) for axis, changes in found.items() if changes
    }


def _rank(axis: Axis, name: str) -> tuple[int, str]:
    headlines = _HEADLINES[axis]
    return headlines.index(name) if name in headlines else len(headlines), name


def _is_rebuilt_for_system(change: Change) -> bool:
    """Whether it is one release of a package, of which NVIDIA makes a build for each JetPack: ``1.15.0+nv19.11 -> 1.15.0+nv20.1``."""
    if change.before is None or change.after is None:
        return False
    releases = [_BUILD_FOR_JETPACK.split(version) for version in (change.before, change.after)]
    return all(len(parts) == 2 for parts in releases) and releases[0][0] == releases[1][0]


def _plain(name: str) -> str:
    return name.removeprefix(_CONVERTER)


def _version(axis: Axis, software: Mapping[str, str], name: str) -> str | None:
    return version_of(software, _CONVERTER + name) if axis == "converter" else software.get(name)


# ---------------------------------------------------------------- stacks


@dataclass(frozen=True)
class Stack:
    """The sessions of one software, oldest first. ``letter`` is A for the stack that was recorded first; ``levels`` names, for each axis
    on which the stacks of the device differ, where this one stands.
    """

    letter: str
    sessions: tuple[BaselineSession, ...]
    levels: Mapping[Axis, str] = field(default_factory=dict)

    @property
    def software(self) -> Mapping[str, str]:
        return self.sessions[0].software

    @property
    def names(self) -> tuple[str, ...]:
        """The names that its sessions were saved under, each once."""
        return tuple(dict.fromkeys(session.name for session in self.sessions))

    def cases(self, case_id: str) -> list[BaselineCase]:
        """What its sessions measured of the case, on as many pictures as the newest of them: others are not comparable with that."""
        found = [session.cases[case_id] for session in self.sessions if case_id in session.cases]
        return [case for case in found if case.pictures == found[-1].pictures]

    def failure(self, case_id: str) -> Mapping[str, Any] | None:
        """How the case failed in the newest session that knows it; None where it ran there, or is not known."""
        return newest_failure(self.sessions, case_id)

    def median(self, case_id: str) -> float | None:
        """Seconds: the median over its sessions, of the median of each one's replicates; None where the newest failed, or none has it."""
        cases = self.cases(case_id)
        return median(median(case.replicates) for case in cases) if cases and self.failure(case_id) is None else None

    @property
    def case_ids(self) -> list[str]:
        return list(dict.fromkeys(case_id for session in self.sessions for case_id in (*session.cases, *session.broken)))


def find_stacks(sessions: Sequence[BaselineSession], ignored: Collection[str] = ()) -> list[Stack]:
    """The stacks of these sessions, in the order in which they were first recorded; sessions are given oldest first."""
    groups: list[list[BaselineSession]] = []
    for session in sessions:
        group = next((group for group in groups if not differences(group[0].software, session.software, ignored)), None)
        if group is None:
            groups.append([session])
        else:
            group.append(session)
    levels: list[dict[Axis, str]] = [{} for _ in groups]
    for axis in AXES:
        for number, label in enumerate(_labels(axis, [group[0].software for group in groups], ignored)):
            levels[number][axis] = label
    return [
        Stack(letter_of(number), tuple(group), {axis: text for axis, text in levels[number].items() if text})
        for number, group in enumerate(groups)
    ]


def _labels(axis: Axis, softwares: Sequence[Mapping[str, str]], ignored: Collection[str]) -> list[str]:
    """What each stack is called on an axis: by the fewest versions that tell the levels apart; empty texts where there is one level."""
    numbers = _level_numbers(axis, softwares, ignored)
    levels = [softwares[numbers.index(number)] for number in range(max(numbers, default=-1) + 1)]
    if len(levels) < 2:
        return [""] * len(softwares)
    differing = {
        change.name for before, after in combinations(levels, 2) for change in differences(before, after, ignored).get(axis, ())
    }
    headlines = [name for name in _HEADLINES[axis] if name in differing]
    others = [name for name in sorted(differing) if name not in headlines]
    labels = []
    for count in range(_HEADLINES_SHOWN, max(_HEADLINES_SHOWN, len(differing)) + 1):
        labels = [_label(axis, software, headlines, others, count) for software in levels]
        if len({*labels}) == len(levels):
            return [labels[number] for number in numbers]
    return [f"{labels[number]} ({letter_of(number)})" for number in numbers]


def _level_numbers(axis: Axis, softwares: Sequence[Mapping[str, str]], ignored: Collection[str]) -> list[int]:
    first: list[Mapping[str, str]] = []
    numbers = []
    for software in softwares:
        number = next((n for n, other in enumerate(first) if axis not in differences(other, software, ignored)), len(first))
        first += [software] if number == len(first) else []
        numbers.append(number)
    return numbers


def _label(axis: Axis, software: Mapping[str, str], headlines: Sequence[str], others: Sequence[str], count: int) -> str:
    there = {name: version for name in (*headlines, *others) if (version := _version(axis, software, name)) is not None}
    # Small packages only where what matters more does not tell it apart.
    shown = [name for name in headlines if name in there][:count]
    shown += [name for name in others if name in there][: count - max(len(shown), _HEADLINES_SHOWN)]
    shown = shown or list(there)[:count]
    return ", ".join(f"{name} {there[name]}" for name in shown) or f"no {[*headlines, *others][0]}"


_SMALL = ("python", "os", "kernel")  # they change by themselves, between sessions that nobody would call two stacks


def mixed_baseline(sessions: Sequence[BaselineSession]) -> str | None:
    """That the sessions of one baseline are of several stacks, in a sentence; None where they are of one, as far as that matters."""
    counts = {name for headlines in _HEADLINES.values() for name in headlines if name not in _SMALL}
    recorded = {_plain(name) for session in sessions for name in session.software}
    stacks = find_stacks(sessions, ignored=recorded - counts)
    if len(stacks) < 2:
        return None
    told = "; ".join(f"{', '.join(stack.names)} ({', '.join(stack.levels.values())})" for stack in stacks)
    return (
        f"the {len(sessions)} sessions that this run is compared with are of {len(stacks)} stacks: {told}; "
        "what differs between these counts as noise of one baseline, so name one stack by --benchmark-compare=NAME"
    )


# ---------------------------------------------------------------- steps


@dataclass(frozen=True)
class CaseStep:
    """What became of one case. Durations in seconds as the rule takes them (of the later stack the median of all its replicates), None
    where it did not run; ``failure_...`` is how it failed there instead.

    ``verdict`` is None where the case is known of one of the two stacks alone, or was measured on different numbers of pictures;
    ``decision`` is None where there are no two measurements to compare.
    """

    id: str
    before: float | None
    after: float | None
    verdict: Verdict | None
    decision: LatencyDecision | None = None
    failure_before: Mapping[str, Any] | None = None
    failure_after: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Step:
    """From one stack to another that differs from it on ``axis`` alone."""

    axis: Axis
    before: Stack
    after: Stack
    changes: tuple[Change, ...]
    cases: tuple[CaseStep, ...]


@dataclass(frozen=True)
class Confounded:
    """Two stacks between which more than one axis differs."""

    before: Stack
    after: Stack
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Upgrades:
    """All stacks of a device and how they lie to each other. ``blind``: how many comparisons have too few replicates to call any change,
    as many as there are of them.
    """

    stacks: tuple[Stack, ...]
    steps: tuple[Step, ...]
    confounded: tuple[Confounded, ...]
    blind: int = 0

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Those on which any of the stacks differ."""
        return tuple(axis for axis in AXES if any(axis in stack.levels for stack in self.stacks))


def find_upgrades(
    sessions: Sequence[BaselineSession], *, tolerance: float, ignored: Collection[str] = (), alpha: float = ALPHA
) -> Upgrades:
    """Every pair of stacks once, as a step or as confounded.

    Of a pair, the older version comes first where versions can be told apart, else what was recorded first. ``tolerance`` is a share, as
    for :func:`decision.decide`; the p-values are corrected for all comparisons of all steps (Holm).
    """
    stacks = find_stacks(sessions, ignored)
    steps: list[Step] = []
    confounded: list[Confounded] = []
    for one, other in combinations(stacks, 2):
        axes = differences(one.software, other.software, ignored)
        if len(axes) == 1:
            ((axis, changes),) = axes.items()
            before, after = (other, one) if _goes_back(axis, changes) else (one, other)
            changes = differences(before.software, after.software, ignored)[axis]
            steps.append(Step(axis, before, after, changes, tuple(_case_steps(before, after, tolerance, alpha))))
        else:
            confounded.append(Confounded(one, other, tuple(axis for axis in AXES if axis in axes)))
    steps.sort(key=lambda step: (AXES.index(step.axis), step.before.letter, step.after.letter))
    corrected, blind = _corrected(steps, alpha)
    return Upgrades(tuple(stacks), tuple(corrected), tuple(confounded), blind)


def _goes_back(axis: Axis, changes: Iterable[Change]) -> bool:
    """Whether the first of the versions that count most, of those that are known on both sides, falls."""
    known = {change.name: change for change in changes if change.before is not None and change.after is not None}
    for name in _HEADLINES[axis]:
        if name in known:
            before, after = _numbers(known[name].before), _numbers(known[name].after)
            if before and after and before != after:
                return before > after
    return False


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version or ""))


def _case_steps(before: Stack, after: Stack, tolerance: float, alpha: float) -> Iterable[CaseStep]:
    for case_id in dict.fromkeys((*before.case_ids, *after.case_ids)):
        was, now = before.median(case_id), after.median(case_id)
        failed, fails = before.failure(case_id), after.failure(case_id)
        decision, verdict = None, None
        if was is not None and now is not None:
            if before.cases(case_id)[-1].pictures != after.cases(case_id)[-1].pictures:
                yield CaseStep(case_id, was, now, None)
                continue
            decision = _decide(before.cases(case_id), after.cases(case_id), tolerance, alpha)
            verdict, was, now = decision.verdict, decision.baseline_median, decision.candidate_median
        elif fails is not None:
            verdict = Verdict.KNOWN_BROKEN if failed is not None else Verdict.BROKEN if was is not None else None
        elif failed is not None and now is not None:
            verdict = Verdict.FIXED
        yield CaseStep(case_id, was, now, verdict, decision, failed, fails)


def _decide(before: Sequence[BaselineCase], after: Sequence[BaselineCase], tolerance: float, alpha: float) -> LatencyDecision:
    """The rule of a run of the gate, on what is stored: the first half of the later stack's replicates, five at most, raises a suspicion,
    and the rest has to confirm it.
    """
    count = sum(len(case.replicates) for case in after)
    first = max(1, min(_FIRST, count // 2))
    if any(case.extra.get("builds") for case in (*before, *after)):
        sessions = [_built(case) for case in before]
        candidate = [one for case in after for one in _built(case)]
        return decide_builds(sessions, candidate, tolerance=tolerance, first=first, alpha=alpha, final=True)
    measured = [value for case in after for value in case.replicates]
    return decide([case.replicates for case in before], measured, tolerance=tolerance, first=first, alpha=alpha, final=True)


def _built(case: BaselineCase) -> list[Built]:
    return [Built(build, value) for build, value in zip(case.builds, case.replicates, strict=True)]


def _corrected(steps: Sequence[Step], alpha: float) -> tuple[list[Step], int]:
    """The steps with the verdicts that hold among so many comparisons; and how many of these could not have spoken at all."""
    found = {
        f"{number}:{case.id}": case.decision
        for number, step in enumerate(steps)
        for case in step.cases
        if case.decision is not None
    }
    decisions = correct_for_family(found, alpha)
    blind = 0
    done = []
    for number, step in enumerate(steps):
        cases = []
        for case in step.cases:
            decision = decisions.get(f"{number}:{case.id}")
            if decision is not None:
                before, after = (sum(len(one.replicates) for one in stack.cases(case.id)) for stack in (step.before, step.after))
                blind += smallest_p_value(before, after) * len(decisions) >= alpha
                case = replace(case, verdict=decision.verdict, decision=decision)
            cases.append(case)
        done.append(replace(step, cases=tuple(cases)))
    return done, blind
