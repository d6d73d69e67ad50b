"""Looking at saved sessions: which there are, which one is meant, and what differs between two of them.

What is read here is described, never judged: only a run of the gate comes to a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ..baselines import (
    CANDIDATES,
    COMPARED_SESSIONS,
    BaselineCase,
    BaselineSession,
    list_session_files,
    read_session,
    select_session_files,
)
from ..coverage import Coverage
from ..device_telemetry import saved_telemetry, summarize_telemetry
from ..devices import SoftwareUnderTest, identity_differences
from ..errors import BaselineError
from ..machine.condition_text import condition_differences

# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class DeviceSessions:
    """The sessions of one device, by number. ``unreadable`` holds a sentence for each file that is no session."""

    directory: Path
    sessions: tuple[BaselineSession, ...]
    unreadable: Mapping[Path, str] = field(default_factory=dict)

    @property
    def compared(self) -> frozenset[Path]:
        """The files that a run with the bare ``--benchmark-compare`` reads, as far as they can be read."""
        newest = [session.path for session in self.sessions if holds_cases(session)][-COMPARED_SESSIONS:]
        return frozenset(newest)

    @property
    def software_sets(self) -> tuple[Mapping[str, str], ...]:
        """Each software that sessions of the gate were recorded with, in the order in which it first appears."""
        found: list[Mapping[str, str]] = []
        for session in self.sessions:
            if session.device_id is not None and not any(same_software(session.software, other) for other in found):
                found.append(session.software)
        return tuple(found)


def holds_cases(session: BaselineSession) -> bool:
    """Whether there is anything in it that a run can be compared with."""
    return bool(session.cases or session.broken)


def is_foreign(session: BaselineSession) -> bool:
    """Whether it is a file of other people: nothing in it was written by the gate."""
    return session.device_id is None and not session.block and not holds_cases(session)


def same_software(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    return not SoftwareUnderTest.changes(before, after)


def read_all(directory: Path) -> DeviceSessions:
    """Every session of the directory; a file that is none is noted, not raised. Raises BaselineError where it cannot be listed."""
    sessions, unreadable = [], {}
    for path in list_session_files(directory):
        try:
            sessions.append(read_session(path))
        except BaselineError as problem:
            # Removed since it was listed: that is not damage.
            if path.exists():
                unreadable[path] = str(problem)
    return DeviceSessions(directory, tuple(sessions), unreadable)


def find_session(directory: Path, text: str) -> BaselineSession:
    """The one session that `text` names, in the words of ``--benchmark-compare``; ``candidates/TEXT`` names a candidate.

    A full name goes before the beginning of one. Raises BaselineError where there is none, where there are several, and for a file
    that cannot be trusted.
    """
    directory, text = _placed(directory, text)
    found = select_session_files(directory, text)
    exact = [path for path in found if text in (path.name, path.stem, path.stem[5:])]
    if len(found) > 1 and len(exact) != 1:
        names = ", ".join(path.stem for path in found[-5:])
        raise BaselineError(
            f"{text!r} names {len(found)} sessions ({'..., ' if len(found) > 5 else ''}{names}); name one by number and name."
        )
    return read_session(exact[0] if len(found) > 1 else found[0])


def find_sessions(directory: Path, texts: Sequence[str]) -> list[BaselineSession]:
    """All sessions that the texts name, each once and by number; each text may name several, as for ``--benchmark-compare``."""
    paths = {path for text in texts for path in select_session_files(*_placed(directory, text))}
    return [read_session(path) for path in sorted(paths, key=lambda path: (path.parent.name == CANDIDATES, path.name, str(path)))]


def _placed(directory: Path, text: str) -> tuple[Path, str]:
    """The folder in which ``text`` names sessions, and what it says there."""
    folder, separator, rest = text.partition("/")
    return (directory / CANDIDATES, rest) if separator and folder == CANDIDATES else (directory, text)


# ---------------------------------------------------------------- comparing two sessions


@dataclass(frozen=True)
class CaseDifference:
    """One case in two sessions: medians of the replicates in seconds, their ratio, and its 95 % interval from their replicates alone.

    ``interval`` is None where there are too few replicates for one; a coverage is None where the session knows none. ``energy`` holds
    joules per inference before and after, by rail: of the whole board's rail, where both sessions have it, else of each rail that both
    have.
    """

    id: str
    before: float
    after: float
    ratio: float
    interval: tuple[float, float] | None
    coverage_before: Coverage | None = None
    coverage_after: Coverage | None = None
    energy: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionDifference:
    """What differs between two sessions. ``only_before`` and ``only_after`` hold ids of cases with latencies; ``broken_...`` of others."""

    identity: tuple[str, ...]
    software: tuple[str, ...]
    condition: tuple[str, ...]
    cases: tuple[CaseDifference, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    newly_broken: tuple[str, ...]
    no_longer_broken: tuple[str, ...]
    other_pictures: tuple[str, ...] = ()


def compare_sessions(before: BaselineSession, after: BaselineSession) -> SessionDifference:
    """A description, not a verdict: two sessions are no decision of the gate."""
    shared = [case_id for case_id in before.cases if case_id in after.cases]
    pictures = {case_id: (before.cases[case_id].pictures, after.cases[case_id].pictures) for case_id in shared}
    common = [case_id for case_id in shared if pictures[case_id][0] == pictures[case_id][1]]
    identity = identity_differences(before.identity, after.identity)
    if before.device_id != after.device_id and not identity:
        identity = [f"device {before.device_id or 'unknown'} -> {after.device_id or 'unknown'}"]
    return SessionDifference(
        identity=tuple(identity),
        software=tuple(SoftwareUnderTest.changes(before.software, after.software)),
        condition=tuple(condition_differences(before.condition, after.condition)),
        cases=tuple(_case_difference(before.cases[case_id], after.cases[case_id]) for case_id in common),
        only_before=tuple(case_id for case_id in before.cases if case_id not in after.cases),
        only_after=tuple(case_id for case_id in after.cases if case_id not in before.cases),
        newly_broken=tuple(case_id for case_id in after.broken if case_id not in before.broken),
        no_longer_broken=tuple(case_id for case_id in before.broken if case_id not in after.broken),
        other_pictures=tuple(f"{case_id} ({old} -> {new})" for case_id, (old, new) in pictures.items() if old != new),
    )


def spread(replicates: Sequence[float]) -> float:
    """How far the replicates reach apart, as a share of their median: (slowest - fastest) / median."""
    return (max(replicates) - min(replicates)) / median(replicates)


def _case_difference(before: BaselineCase, after: BaselineCase) -> CaseDifference:
    from ..rank_tests import ratio_interval

    old, new = median(before.replicates), median(after.replicates)
    interval = ratio_interval(after.replicates, before.replicates)
    return CaseDifference(before.id, old, new, new / old, interval, before.coverage, after.coverage, _energy(before, after))


def _energy(before: BaselineCase, after: BaselineCase) -> dict[str, tuple[float, float]]:
    told = summarize_telemetry(saved_telemetry(after), [saved_telemetry(before)])
    if told is None:
        return {}
    return {
        name: (rail.baseline_joules_per_inference, rail.joules_per_inference)
        for name in told.shown_rails
        if (rail := told.rails[name]).baseline_joules_per_inference is not None
    }
