"""The baseline that a run is compared with: which sessions, of which device, and whether they may be compared at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import benchmark_adapter
from .baselines import BaselineCase, BaselineSession, devices_with_baselines, find_close_ids, newest_failure, read_sessions
from .devices import DeviceIdentity
from .errors import BaselineError
from .wording import counted

if TYPE_CHECKING:
    from .cases import Case


@dataclass(frozen=True)
class Baseline:
    """The sessions of one device, oldest first. ``directory`` is where they lie, for messages."""

    directory: Path
    sessions: tuple[BaselineSession, ...]
    other_devices: tuple[str, ...] = ()

    def cases(self, case_id: str) -> list[BaselineCase]:
        """What each session recorded of the case, oldest first; sessions without it are left out."""
        return [session.cases[case_id] for session in self.sessions if case_id in session.cases]

    def timed(self, case: Case) -> list[BaselineCase]:
        """Those of :meth:`cases` whose latency may be compared with that of ``case``: measured on as many pictures."""
        return [found for found in self.cases(case.id) if found.pictures == case.pictures]

    def other_pictures(self, case: Case) -> str | None:
        """Why none of the sessions that have the case may be compared with: one sentence, ``None`` where one may, or none has it."""
        found = self.cases(case.id)
        if not found or self.timed(case):
            return None
        there, here = counted(found[-1].pictures, "picture"), counted(case.pictures, "picture")
        return (
            f"its rounds go through {here} in this run and went through {there} in the baseline, which are not compared: "
            "record a new baseline with --benchmark-save=NAME, or set measuring.pictures of the card back"
        )

    def broken(self, case_id: str) -> Mapping[str, Any] | None:
        """How the case failed in the newest session that knows it, or ``None`` where it worked there or is not known."""
        return newest_failure(self.sessions, case_id)

    @property
    def case_ids(self) -> set[str]:
        return {case_id for session in self.sessions for case_id in (*session.cases, *session.broken)}

    @property
    def software(self) -> Mapping[str, str]:
        """The software of the newest session: what an upgrade is compared with."""
        return self.sessions[-1].software if self.sessions else {}

    def close_ids(self, case_id: str, current: set[str]) -> list[str]:
        """Cases of the baseline that this run lacks and whose ids resemble ``case_id``: what it may have been called before."""
        return find_close_ids(case_id, sorted(self.case_ids - current))


def load_baseline(config: pytest.Config, directory: Path, device: DeviceIdentity) -> Baseline:
    """The sessions that ``--benchmark-compare`` names.

    Raises :class:`BaselineError` for a file that cannot be read, and for one that another device wrote.
    """
    sessions = read_sessions(directory, benchmark_adapter.compare_selection(config))
    for session in sessions:
        if session.device_id != device.id and (session.cases or session.device_id is not None):
            raise BaselineError(_foreign(str(session.path), session.device_id or "(none is named)", device.id))
    others = tuple(name for name in devices_with_baselines(directory.parent) if name != device.id)
    return Baseline(directory, tuple(sessions), others)


def check_compared_document(machine_info: dict[str, Any], document: dict[str, Any], current: str) -> None:
    """Refuse what another device than ``current`` wrote, before pytest-benchmark shows it beside this device's figures.

    pytest-benchmark itself warns at every difference of ``machine_info``, such as the processor's clock at that moment. Once the
    gate knows that the device is the same, the recorded description is set to the current one, so that there is nothing to warn of.
    """
    block = document.get(benchmark_adapter.CASE_KEY)
    if not isinstance(block, Mapping):
        return
    device = block.get("device")
    recorded = device.get("id") if isinstance(device, Mapping) else None
    if recorded != current:
        raise pytest.UsageError(_foreign("the file that --benchmark-compare names", str(recorded), current))
    document["machine_info"] = machine_info


def _foreign(what: str, recorded: str, current: str) -> str:
    return (
        f"{what} is a baseline of the device {recorded}, but this is {current}: timings of different devices are not compared; "
        "record a baseline here with --benchmark-save=NAME"
    )
