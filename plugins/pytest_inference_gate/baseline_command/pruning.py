"""Which saved sessions may go, and their removal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ..atomic_files import explained, flush_directory
from ..baselines import BaselineSession, list_session_files, read_session, session_lock
from ..errors import BaselineError
from ..wording import session_time
from .maintenance import holds_cases, is_foreign, same_software

_REMEDY = "prune where it may be written"


@dataclass(frozen=True)
class PruneRule:
    """What makes a session superfluous. Of several conditions all must be true of it.

    ``keep``: so many newer ones are there; ``older_than``: it was taken longer ago; ``other_software``: its software is not the newest
    session's. ``everything``: the newest session may go as well, and without a condition all of them do.
    """

    keep: int | None = None
    older_than: timedelta | None = None
    other_software: bool = False
    everything: bool = False

    @property
    def says_anything(self) -> bool:
        return self.keep is not None or self.older_than is not None or self.other_software or self.everything


def superfluous_sessions(sessions: Sequence[BaselineSession], rule: PruneRule, now: datetime) -> list[BaselineSession]:
    """Those of `sessions` (one device's, in the order of their numbers) that `rule` lets go, in their order.

    Files of other people are never among them. The newest session stays unless the rule says ``everything``, so that the device keeps a
    baseline and the next session a number of its own. A session whose date cannot be read is not older than anything. `now` has a time
    zone.
    """
    if not rule.says_anything:
        return []
    own = [session for session in sessions if not is_foreign(session)]
    if not own:
        return []
    # What holds no case is no baseline: it neither is the one that stays, nor counts as one that is newer.
    newest = next((session for session in reversed(own) if holds_cases(session)), own[-1])
    candidates = own if rule.everything else [session for session in own if session is not newest and session is not own[-1]]
    if rule.keep is not None:
        newer, counts = 0, {}
        for session in reversed(own):
            counts[session.path] = newer
            newer += holds_cases(session)
        candidates = [session for session in candidates if counts[session.path] >= rule.keep]
    if rule.older_than is not None:
        moment = now - rule.older_than
        candidates = [
            session for session in candidates if (taken := session_time(session.datetime)) is not None and taken < moment
        ]
    if rule.other_software:
        candidates = [session for session in candidates if not same_software(session.software, newest.software)]
    return candidates


def plan_pruning(directory: Path, rule: PruneRule, now: datetime) -> list[BaselineSession]:
    """What :func:`prune` would remove from the directory of a device. Raises BaselineError where a file cannot be trusted."""
    return _superfluous(directory, rule, now)


def prune(directory: Path, rule: PruneRule, now: datetime, agreed: Collection[Path]) -> list[BaselineSession]:
    """Remove the files of `agreed` that the rule still lets go, and return their sessions.

    Under the lock of :func:`baselines.save_session`, the rule is applied to what is there then: a session that another process saved or
    removed since `agreed` was shown changes what may go, never what must. The oldest go first; a kill in between leaves the rest.
    Raises BaselineError where a file cannot be trusted or not be removed.
    """
    agreed = frozenset(agreed)
    removed: list[BaselineSession] = []
    with explained("prune the baselines", directory, error=BaselineError, remedy=_REMEDY), session_lock(directory):
        try:
            for session in _superfluous(directory, rule, now):
                if session.path in agreed:
                    session.path.unlink()
                    removed.append(session)
        finally:
            if removed:
                flush_directory(directory)
    return removed


def _superfluous(directory: Path, rule: PruneRule, now: datetime) -> list[BaselineSession]:
    sessions = []
    for path in list_session_files(directory):
        try:
            sessions.append(read_session(path))
        except BaselineError:
            # Without the lock, another process may have removed it since it was listed.
            if path.exists():
                raise
    return superfluous_sessions(sessions, rule, now)
