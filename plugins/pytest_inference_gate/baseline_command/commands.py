"""``inference-gate baseline``: list, show, compare, prune and promote saved sessions."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..baselines import CANDIDATES, devices_with_baselines
from ..errors import BaselineError
from ..wording import age_in_words, counted
from .location import choose_device, find_baselines

if TYPE_CHECKING:
    from ..baselines import BaselineSession

_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``baseline`` to those of ``inference-gate``. Handlers return the exit status, or raise a ``GateError``."""
    parser = subparsers.add_parser(
        "baseline", help="look after saved sessions", description="Look after the sessions that --benchmark-save wrote."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    session_help = "a number, the beginning of a name, a path, or candidates/ and one of these"

    one = _add_action(actions, "list", _list, "one row for each session", device_help="only this device (default: all)")
    one.add_argument("--candidates", action="store_true", help="also what runs that compared have saved")
    one.add_argument("--json", action="store_true", help="print JSON")

    one = _add_action(actions, "show", _show, "all that one session says")
    one.add_argument("session", metavar="SESSION", help=session_help)
    one.add_argument("--json", action="store_true", help="print JSON")

    one = _add_action(actions, "diff", _diff, "what differs between two sessions, without a verdict")
    one.add_argument("before", metavar="BEFORE", help=session_help)
    one.add_argument("after", metavar="AFTER", help=session_help)

    one = _add_action(actions, "axes", _axes, "which part of an upgrade changed what: stacks that differ in one thing alone")
    one.add_argument("sessions", metavar="SESSION", nargs="*", help=f"only these (default: all): {session_help}")
    one.add_argument("--tolerance", type=_share, metavar="PERCENT", help="as --gate-tolerance (default: 5%%)")
    one.add_argument(
        "--ignore", action="append", default=[], metavar="NAME", help="software that makes no stack of its own, such as kernel"
    )
    one.add_argument("--json", action="store_true", help="print JSON")

    one = _add_action(actions, "prune", _prune, "remove sessions to which all conditions given here apply")
    one.add_argument("--keep", type=_count, metavar="N", help="those that have N newer ones")
    one.add_argument("--older-than", type=_duration, metavar="AGE", help="those taken longer ago, such as 90d, 12w or 48h")
    one.add_argument(
        "--software-other-than-newest", action="store_true", help="those with other software than the newest session"
    )
    one.add_argument("--all", action="store_true", help="the newest one too, which stays otherwise")
    one.add_argument("--dry-run", action="store_true", help="only say which would go")
    one.add_argument("--yes", action="store_true", help="do not ask")
    one.set_defaults(status_unread=1)  # until it is done

    one = _add_action(actions, "promote", _promote, "make a baseline of what a run that compared has saved")
    one.add_argument("candidate", metavar="CANDIDATE", help="its number, the beginning of its name, or its path")
    one.add_argument("--accept-slower", action="store_true", help="although its run was red for latency")
    one.add_argument("--dry-run", action="store_true", help="only say what would change")


def _add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Any,
    text: str,
    device_help: str = "the device's name (default: this machine's, or the only one there is)",
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--baselines",
        type=Path,
        metavar="DIR",
        help="where baselines are kept (default: as pytest's ini file says, else baselines/)",
    )
    parser.add_argument("--device", metavar="ID", help=device_help)
    parser.set_defaults(run=run)
    return parser


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999")
    return int(text)


def _share(text: str) -> float:
    from ..options import parse_share

    try:
        return parse_share(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f"{text!r} {problem}") from None


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,5})\s*([hdw])", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 90d, 12w or 48h")
    return timedelta(hours=int(match[1]) * _HOURS[match[2]])


# ---------------------------------------------------------------- actions


def _list(options: argparse.Namespace) -> int:
    from .maintenance import read_all
    from .tables import device_lines, list_document

    root, now = _root(options), _now()
    names = devices_with_baselines(root, candidates=True)
    folders = [root / name for name in names] if options.device is None else [choose_device(root, options.device)]
    devices = [(read_all(folder), read_all(folder / CANDIDATES)) for folder in folders]
    if options.json:
        _write_json(list_document(devices, str(root), now))
    elif not devices:
        _write([f"no sessions in {root}; record one with pytest --benchmark-save=NAME, or name the folder with --baselines=DIR"])
    else:
        for number, (found, candidates) in enumerate(devices):
            _write([*([""] if number else []), *device_lines(found, candidates, now, show_candidates=options.candidates)])
    unreadable = [reason for pair in devices for side in pair for reason in side.unreadable.values()]
    if unreadable:
        sys.stdout.flush()
        _write(unreadable, sys.stderr)
    return 1 if unreadable else 0


def _show(options: argparse.Namespace) -> int:
    from .maintenance import find_session
    from .tables import session_document, session_lines

    session = find_session(_device(options), options.session)
    if options.json:
        _write_json(session_document(session, _now()))
    else:
        _write(session_lines(session, _now()))
    return 0


def _diff(options: argparse.Namespace) -> int:
    from .maintenance import find_session

    device = _device(options)
    _write_difference(find_session(device, options.before), find_session(device, options.after))
    return 0


def _axes(options: argparse.Namespace) -> int:
    from ..options import DEFAULT_TOLERANCE
    from .maintenance import find_sessions, read_all
    from .stack_axes import find_upgrades
    from .stack_axes_tables import upgrade_document, upgrade_lines

    device = _device(options)
    if options.sessions:
        sessions, unreadable = find_sessions(device, options.sessions), []
    else:
        there = read_all(device)
        sessions, unreadable = list(there.sessions), list(there.unreadable.values())
    recorded = [session for session in sessions if session.device_id is not None and (session.cases or session.broken)]
    if not recorded:
        raise BaselineError(f"{device} has no session of the gate to compare; record one with pytest --benchmark-save=NAME.")
    tolerance = DEFAULT_TOLERANCE if options.tolerance is None else options.tolerance
    upgrades = find_upgrades(recorded, tolerance=tolerance, ignored=options.ignore)
    if options.json:
        _write_json(upgrade_document(device.name, upgrades, tolerance, options.ignore))
    else:
        _write(upgrade_lines(device.name, upgrades, tolerance, options.ignore))
    if unreadable:
        sys.stdout.flush()
        _write(unreadable, sys.stderr)
    return 1 if unreadable else 0


def _prune(options: argparse.Namespace) -> int:
    from .pruning import PruneRule, plan_pruning, prune

    rule = PruneRule(options.keep, options.older_than, options.software_other_than_newest, options.all)
    if not rule.says_anything:
        raise BaselineError(
            "Nothing says which sessions shall go: give --keep=N, --older-than=AGE, --software-other-than-newest or --all."
        )
    device, now = _device(options), _now()
    planned = plan_pruning(device, rule, now)
    if not planned:
        _write([f"nothing to remove in {device}"])
        return 0
    what = counted(len(planned), "session")
    _write(
        [
            f"{'would remove' if options.dry_run else 'to remove'}: {what} in {device}",
            *(f"    {_in_short(one, now)}" for one in planned),
        ]
    )
    if options.dry_run:
        return 0
    if not options.yes and not _agreed(f"Remove {what}? [y/N] "):
        _write(["nothing was removed"])
        return 1
    sys.stdout.flush()  # where nobody reads what would go, this raises, and nothing goes
    removed = prune(device, rule, now, [session.path for session in planned])
    options.status_unread = 0
    _write([f"removed {counted(len(removed), 'session')}"])
    gone = {session.path for session in removed}
    spared = [session for session in planned if session.path not in gone]
    if spared:
        _write([f"not removed, since the sessions changed meanwhile: {', '.join(session.path.stem for session in spared)}"])
    return 0


def _promote(options: argparse.Namespace) -> int:
    from .maintenance import holds_cases, read_all
    from .promotion import find_candidate, objections, promote, refuse_where_objected

    device = _device(options)
    candidate = find_candidate(device, options.candidate)
    there = read_all(device)
    if there.unreadable:
        raise BaselineError(next(iter(there.unreadable.values())))
    sessions = [session for session in there.sessions if holds_cases(session)]
    if options.dry_run:
        found = objections(candidate, sessions)
        if sessions:
            _write_difference(sessions[-1], candidate)
        refuse_where_objected(candidate, found, accept_slower=options.accept_slower)
        _write([f"{candidate.path.stem} could be promoted"])
        return 0
    done = promote(candidate.path, device, accept_slower=options.accept_slower, now=_now())
    if done.already:
        _write([f"{candidate.path.stem} was promoted before, as {done.path}; what was left of the candidate is removed"])
        return 0
    found = objections(candidate, sessions)
    if sessions:
        _write_difference(sessions[-1], candidate)
        _write([""])
    if not found.records_left_out:
        _write(["note: the file does not say whether its run left out cases that failed"])
    left_out = [case_id for case_id in found.slower if case_id not in candidate.cases]
    if left_out:
        _write([f"note: not in this session, and compared with the older ones as before: {', '.join(left_out)}"])
    _write([f"promoted {candidate.path.stem} to {done.path}"])
    return 0


# ---------------------------------------------------------------- parts


def _root(options: argparse.Namespace) -> Path:
    if options.baselines is None:
        return find_baselines(Path.cwd())
    root: Path = options.baselines
    if not root.is_dir():
        raise BaselineError(f"There is no folder {root}; name the one that holds a folder for each device with --baselines=DIR.")
    return root.absolute()


def _device(options: argparse.Namespace) -> Path:
    return choose_device(_root(options), options.device)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _in_short(session: BaselineSession, now: datetime) -> str:
    from .tables import plain, taken

    text = f"{plain(session.path.stem)}: {taken(session)}, {age_in_words(session.datetime, now)}, {counted(len(session.cases), 'case')}"
    others = f", and {counted(session.others, 'benchmark')} that no gate reads" if session.others else ""
    return text + others


def _write_difference(before: BaselineSession, after: BaselineSession) -> None:
    from .maintenance import compare_sessions
    from .tables import difference_lines

    _write(difference_lines(before, after, compare_sessions(before, after)))


def _agreed(question: str) -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise BaselineError("There is no terminal to ask whether these shall go: say --yes, or look first with --dry-run.")
    _write([question], end="")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write(lines: Iterable[str], stream: Any = None, end: str = "\n") -> None:
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for line in lines:
        # A name may hold what this terminal's encoding does not have.
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + end)


def _write_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=4) + "\n")
