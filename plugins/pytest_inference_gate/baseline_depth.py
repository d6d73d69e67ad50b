"""How much a baseline can be relied on: how many sessions it has, how old they are, and what it could still see. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from .baselines import BaselineSession
from .wording import CLOCKS_AGREE, counted, duration_in_words, session_time

MARGIN = 1.25
"""Only what a baseline cannot see by so much beyond the tolerance is worth a sentence: what can be seen is itself an estimate."""

FEW_SESSIONS = 3
"""From fewer sessions the spread between them is not known, so that more of them are what helps. With this many, noise is."""

_NAMED = 3  # sessions that are named one by one


def baseline_depth_lines(
    sessions: Sequence[BaselineSession],
    now: datetime,
    *,
    tolerance: float | Mapping[str, float],
    minimum_detectable: Mapping[str, float | None],
) -> list[str]:
    """What a run's summary says of the baseline that it was compared with, one sentence each; none where there was no session.

    `sessions` are those compared with, oldest first; `now` has a time zone. `tolerance` is a share of 1, for all cases or by case.
    `minimum_detectable` holds, by case id, the smallest slow-down that could have been seen, a share of 1, or None where none could
    (``LatencyDecision.minimum_detectable``).
    """
    if not sessions:
        return []
    lines = [f"compared with {counted(len(sessions), 'session')} ({_names(sessions)}), {_ages(sessions, now)}"]
    ahead = [session for session in sessions if (moment := session_time(session.datetime)) and moment - now > CLOCKS_AGREE]
    if ahead:
        furthest = max(ahead, key=lambda session: session_time(session.datetime) or now)
        verb = "is" if len(ahead) == 1 else "are"
        lines.append(
            f"{_names(ahead)} {verb} from the future (by up to {duration_in_words((session_time(furthest.datetime) or now) - now)}): "
            "the clock of this machine was wrong then or is wrong now; correct it, since ages are told by it"
        )
    thin = _thin_sentence(sessions, tolerance, minimum_detectable)
    return [*lines, thin] if thin else lines


def _thin_sentence(
    sessions: Sequence[BaselineSession], tolerance: float | Mapping[str, float], minimum_detectable: Mapping[str, float | None]
) -> str | None:
    def tolerated(case_id: str) -> float:
        return tolerance[case_id] if isinstance(tolerance, Mapping) else tolerance

    blind = [case_id for case_id, smallest in minimum_detectable.items() if smallest is None or not math.isfinite(smallest)]
    dim = {
        case_id: smallest
        for case_id, smallest in minimum_detectable.items()
        if smallest is not None and math.isfinite(smallest) and smallest > MARGIN * tolerated(case_id)
    }
    weak = [*blind, *dim]
    if not weak:
        return None
    depth = f"with {counted(len(sessions), 'session')} of {_replicates(sessions, weak)}"
    where = "" if len(weak) == len(minimum_detectable) else f" in {len(weak)} of {counted(len(minimum_detectable), 'case')}"
    few = len(sessions) < FEW_SESSIONS
    word, remedy = (
        ("thin", "record more with --benchmark-save")
        if few or blind
        else ("unsteady", "lock the clocks or quieten the machine, and record more with --benchmark-save")
    )
    if not dim:
        return f"{word}: {depth} no slow-down at all can be seen{where}; {remedy}"
    sizes = f"only slow-downs of about {_range([f'{share:.0%}' for share in sorted(dim.values())])} can be seen"
    if blind:
        where += f", and none at all in {len(blind)}" if where else f", and none at all in {len(blind)} of {len(weak)}"
    return f"{word}: {depth} {sizes}{where}; {remedy}"


def _replicates(sessions: Sequence[BaselineSession], case_ids: Sequence[str]) -> str:
    counts = sorted(
        len(session.cases[case_id].replicates) for session in sessions for case_id in case_ids if case_id in session.cases
    )
    if not counts:
        return "no replicate"
    return f"{_range([str(count) for count in counts])} replicate{'' if counts[-1] == 1 else 's'}"


def _range(ordered: Sequence[str]) -> str:
    """``"8% to 12%"`` of the first and the last text, or the one text where they are equal."""
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _names(sessions: Sequence[BaselineSession]) -> str:
    # A name may have been given several times; the number in front of it is unique.
    unique = len({session.name for session in sessions}) == len(sessions)
    names = [session.name if unique else session.path.stem for session in sessions]
    return ", ".join(names) if len(names) <= _NAMED else f"{names[0]} ... {names[-1]}"


def _ages(sessions: Sequence[BaselineSession], now: datetime) -> str:
    moments = [session_time(session.datetime) for session in sessions]
    known = sorted(now - moment for moment in moments if moment is not None)
    if not known:
        return "of unknown age"
    youngest, oldest = duration_in_words(known[0]), duration_in_words(known[-1])
    if youngest == oldest:
        text = f"{oldest} old"
    elif youngest.split()[-1].rstrip("s") == oldest.split()[-1].rstrip("s") and youngest[0].isdigit():
        text = f"{youngest.split()[0]} to {oldest} old"
    else:
        text = f"{youngest} to {oldest} old"
    missing = len(moments) - len(known)
    return f"{text} ({missing} of unknown age)" if missing else text
