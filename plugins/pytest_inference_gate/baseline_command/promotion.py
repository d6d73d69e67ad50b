"""How a candidate, the session of a run that compared, becomes a baseline: only because somebody says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..atomic_files import explained, flush_directory
from ..baselines import CANDIDATES, GATE_KEY, BaselineSession, list_session_files, read_session, save_session, session_lock
from ..errors import BaselineError
from ..verdict import Verdict, gate_is_red
from .maintenance import find_session

ACCEPTABLE = frozenset({Verdict.SLOWER, Verdict.INCONCLUSIVE, Verdict.UNGATEABLE})
"""The red verdicts that a person may overrule: the case works as it should, and only its latency is, or may be, another one."""

_REMEDY = "promote where it may be written"


@dataclass(frozen=True)
class Objections:
    """What speaks against a candidate, by case id. Only ``slower`` can be overruled; ``severe`` holds clauses, ``slower`` verdicts.

    ``records_left_out`` is false where the file does not say which cases of its run were left out of it.
    """

    slower: Mapping[str, str]
    severe: Mapping[str, str]
    records_left_out: bool = True


@dataclass(frozen=True)
class Promotion:
    """``already``: the session was there before, and only the rest of an interrupted promotion was cleared away."""

    path: Path
    already: bool


def find_candidate(device: Path, text: str) -> BaselineSession:
    """The candidate that `text` names. Raises BaselineError where there is not exactly one, or the file is no candidate of the device."""
    folder = device / CANDIDATES
    if not list_session_files(folder):
        raise BaselineError(
            f"{folder} holds no candidate; a run with --benchmark-compare and --benchmark-save=NAME together leaves its green cases there."
        )
    session = find_session(folder, text.removeprefix(f"{CANDIDATES}/"))
    if session.path.parent.resolve() != folder.resolve():
        raise BaselineError(
            f"{session.path} is not in {folder}: only what a comparing run of this device saved there can be promoted."
        )
    if session.device_id != device.name:
        found = session.device_id or "none"
        raise BaselineError(
            f"{session.path} is of the device {found}, not of {device.name}: timings of different devices are not compared, "
            "so it cannot become a baseline here."
        )
    return session


def objections(candidate: BaselineSession, baseline: Sequence[BaselineSession]) -> Objections:
    """What speaks against making `candidate` a baseline beside those of `baseline`, oldest first.

    A run leaves out of its candidate what was red, and notes it there. What it found broken counts unless the baseline knows that, since a
    break that stands in a baseline is expected from then on.
    """
    slower: dict[str, str] = {}
    severe: dict[str, str] = {}
    verdicts = {case_id: case.extra.get("verdict") for case_id, case in candidate.cases.items()}
    left_out = _left_out(candidate)
    for case_id, verdict in [*verdicts.items(), *(left_out or {}).items()]:
        known = _verdict(verdict)
        if known is None:
            severe[case_id] = "has no verdict that is known here"
        elif known in ACCEPTABLE:
            slower[case_id] = str(known)
        elif known is Verdict.OVER_LIMIT:
            severe[case_id] = "is over a limit of its card"
        elif gate_is_red(known):
            severe[case_id] = f"is {known}"
        elif case_id not in verdicts:
            severe[case_id] = "had a failed test"
    for case_id in candidate.broken:
        newest = next((one for one in reversed(baseline) if case_id in one.cases or case_id in one.broken), None)
        if newest is None or case_id not in newest.broken:
            severe[case_id] = "is broken, which the baseline does not know"
    return Objections(slower, severe, left_out is not None)


def promote(candidate: Path, device: Path, *, accept_slower: bool, now: datetime) -> Promotion:
    """Make the candidate a session of the device under the next number; afterwards the candidate's file is gone.

    Two promotions exclude each other. The new file is on the disk before the old one goes, and carries the old one's digest: what a kill
    in between leaves is recognized and only cleared away by the next attempt. Raises BaselineError, and changes nothing, where
    :func:`objections` has any that is not accepted.
    """
    with explained(f"promote {candidate.name}", device, error=BaselineError, remedy=_REMEDY), session_lock(candidate.parent):
        session = read_session(candidate)
        content = candidate.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        sessions = [read_session(path) for path in list_session_files(device)]
        done = next((one.path for one in sessions if _promoted_from(one) == digest), None)
        if done is None:
            refuse_where_objected(session, objections(session, sessions), accept_slower=accept_slower)
            document = json.loads(content)
            promoted = {"file": candidate.name, "sha256": digest, "datetime": now.isoformat()}
            path = save_session(device, session.name, {**document, GATE_KEY: {**session.block, "promoted_from": promoted}})
        else:
            path = done
        candidate.unlink()
        flush_directory(candidate.parent)
    return Promotion(path, already=done is not None)


def refuse_where_objected(candidate: BaselineSession, found: Objections, *, accept_slower: bool) -> None:
    """Raises BaselineError with all that speaks against the promotion and what to do about it."""
    name = candidate.path.stem
    if found.severe:
        clauses = "; ".join(f"{case_id} {clause}" for case_id, clause in found.severe.items())
        raise BaselineError(
            f"{name} cannot be promoted, since its run was red for more than latency: {clauses}; correct that and compare again, or, "
            "if it is meant to be so, record a session with --benchmark-save and without --benchmark-compare (a case over a limit is saved "
            "only once its card allows what it takes)."
        )
    if found.slower and not accept_slower:
        clauses = ", ".join(f"{case_id} ({verdict})" for case_id, verdict in found.slower.items())
        raise BaselineError(
            f"{name} is not promoted, since its run was red: {clauses}; if that is the price of the upgrade, say --accept-slower."
        )


def _left_out(session: BaselineSession) -> dict[str, Any] | None:
    """The verdicts of the cases that were left out; None where the file does not tell."""
    entries = session.block.get("left_out")
    if not isinstance(entries, list) or not all(
        isinstance(entry, Mapping) and isinstance(entry.get("id"), str) for entry in entries
    ):
        return None
    return {entry["id"]: entry.get("verdict") for entry in entries}


def _verdict(value: object) -> Verdict | None:
    try:
        return Verdict(str(value))
    except ValueError:
        return None


def _promoted_from(session: BaselineSession) -> str | None:
    origin = session.block.get("promoted_from")
    digest = origin.get("sha256") if isinstance(origin, Mapping) else None
    return digest if isinstance(digest, str) else None
