"""What ``inference-gate baseline`` prints: saved sessions, and what differs between two of them, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from ..baselines import COMPARED_SESSIONS, BaselineSession
from ..coverage import Coverage
from ..devices import SoftwareUnderTest
from ..machine.condition_text import condition_figures
from ..report.figures import energy_change, milliseconds
from ..wording import age_in_words, counted, letter_of, session_time
from .maintenance import (
    CaseDifference,
    DeviceSessions,
    SessionDifference,
    holds_cases,
    is_foreign,
    same_software,
    spread,
)

LIST_SCHEMA = "inference-gate-baselines/1"
SESSION_SCHEMA = "inference-gate-baseline/1"

_NOTHING = "-"
# What a case runs on; everything else is shown with a session, and where it changed.
_MAIN_SOFTWARE = (
    "l4t",
    "tensorrt",
    "tensorflow",
    "tf-nightly",
    "ai-edge-litert",
    "tflite-runtime",
    "pycoral",
    "onnxruntime",
    "torch",
)


# ---------------------------------------------------------------- list


def device_lines(found: DeviceSessions, candidates: DeviceSessions, now: datetime, *, show_candidates: bool) -> list[str]:
    """A caption, a row for each session, and a line on the software; then the candidates, where they are wanted."""
    caption = f"{found.directory.name}: {counted(len(found.sessions), 'session')}"
    if candidates.sessions:
        hint = "" if show_candidates else " (--candidates shows them)"
        caption += f", {counted(len(candidates.sessions), 'candidate')}{hint}"
    lines = [caption]
    sets = found.software_sets
    if found.sessions:
        lines += ["", *_session_table(found, sets, now, compared=True), ""]
        lines += _software_line(found, sets)
    if show_candidates and candidates.sessions:
        lines += ["", "candidates, which no run compares with:", "", *_session_table(candidates, sets, now, compared=False)]
    return lines


def _session_table(found: DeviceSessions, sets: Sequence[Mapping[str, str]], now: datetime, *, compared: bool) -> list[str]:
    headers = ["number", "name", "taken", "age", "cases", "broken", "replicates", *(["compared"] if compared else []), "software"]
    rows = [
        [
            session.path.name[:4],
            plain(session.name),
            taken(session),
            age_in_words(session.datetime, now).removesuffix(" old"),
            str(len(session.cases)) if holds_cases(session) else _NOTHING,
            str(len(session.broken)) if holds_cases(session) else _NOTHING,
            _replicate_counts(session),
            *([_compared(session, found)] if compared else []),
            _software_cell(session, sets),
        ]
        for session in found.sessions
    ]
    return table(headers, rows, numbers=("cases", "broken", "replicates"))


def _compared(session: BaselineSession, found: DeviceSessions) -> str:
    if is_foreign(session):
        return "no: not of the gate"
    if not holds_cases(session):
        return "no: it has no case"
    if session.path not in found.compared:
        return f"no: {COMPARED_SESSIONS} are newer"
    return "yes" if session.device_id == found.directory.name else "refused: of another device"


def _replicate_counts(session: BaselineSession) -> str:
    counts = sorted(len(case.replicates) for case in session.cases.values())
    if not counts:
        return _NOTHING
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]}-{counts[-1]}"


def _set_number(session: BaselineSession, sets: Sequence[Mapping[str, str]]) -> int | None:
    if session.device_id is None:
        return None
    return next((number for number, software in enumerate(sets) if same_software(software, session.software)), None)


def _software_cell(session: BaselineSession, sets: Sequence[Mapping[str, str]]) -> str:
    if session.device_id is None:
        return _NOTHING
    number = _set_number(session, sets)
    main = [f"{name} {version}" for name, version in session.software.items() if name.startswith(_MAIN_SOFTWARE)]
    text = ", ".join(main) or f"python {session.software.get('python', 'unknown')}"
    return text if number is None else f"{letter_of(number)}: {text}"


def _software_line(found: DeviceSessions, sets: Sequence[Mapping[str, str]]) -> list[str]:
    if not sets:
        return []
    parts = []
    for number, software in enumerate(sets):
        sessions = [session.path.name[:4] for session in found.sessions if _set_number(session, sets) == number]
        changes = SoftwareUnderTest.changes(sets[number - 1], software) if number else []
        parts.append(f"{letter_of(number)} in {', '.join(sessions)}" + (f" ({'; '.join(changes)})" if changes else ""))
    return [f"software: {'; '.join(parts)}"]


def list_document(devices: Iterable[tuple[DeviceSessions, DeviceSessions]], root: str, now: datetime) -> dict[str, Any]:
    """All that ``list`` knows, as JSON; each device with its candidates."""
    return {
        "schema": LIST_SCHEMA,
        "baselines": root,
        "devices": [
            {
                "device": found.directory.name,
                "software": [dict(software) for software in found.software_sets],
                "sessions": [_row(session, found, now, counts=True) for session in found.sessions],
                "candidates": [_row(session, found, now, counts=False) for session in candidates.sessions],
                "unreadable": [
                    {"file": str(path), "reason": reason}
                    for side in (found, candidates)
                    for path, reason in side.unreadable.items()
                ],
            }
            for found, candidates in devices
        ],
    }


def _row(session: BaselineSession, found: DeviceSessions, now: datetime, *, counts: bool) -> dict[str, Any]:
    return {
        **_heading(session, now),
        "cases": len(session.cases),
        "broken": len(session.broken),
        "replicates": sorted({len(case.replicates) for case in session.cases.values()}),
        "other_benchmarks": session.others,
        "compared": counts and _compared(session, found) == "yes",
        "software": _set_number(session, found.software_sets),
    }


def _heading(session: BaselineSession, now: datetime) -> dict[str, Any]:
    moment = session_time(session.datetime)
    return {
        "file": str(session.path),
        "number": int(session.path.name[:4]) if session.path.name[:4].isdigit() else None,
        "name": session.name,
        "datetime": session.datetime or None,
        "age_seconds": None if moment is None else (now - moment).total_seconds(),
        "device": session.device_id,
    }


# ---------------------------------------------------------------- show


def session_lines(session: BaselineSession, now: datetime) -> list[str]:
    """All that a session says: where and when, on what, and its cases."""
    lines = [f"{plain(session.path.stem)}: {taken(session)}, {age_in_words(session.datetime, now)}", f"file: {session.path}"]
    origin = session.block.get("promoted_from")
    if isinstance(origin, Mapping):
        lines.append(f"promoted from the candidate {origin.get('file')} on {origin.get('datetime')}")
    if session.others:
        lines.append(
            f"holds {counted(session.others, 'benchmark')} besides that {'is' if session.others == 1 else 'are'} no case of the gate"
        )
    lines += ["", f"device: {session.device_id or 'unknown'}"]
    lines += _entries({key.replace("_", " "): str(value) for key, value in session.identity.items() if value not in (None, {})})
    lines += ["", "software:", *_entries(session.software)]
    lines += ["", "condition:", *_entries(condition_figures(session.condition))]
    lines += ["", *_case_lines(session)]
    for case_id, outcome in session.broken.items():
        lines.append(f"{case_id} is broken: {_outcome_text(outcome)}")
    left_out = session.block.get("left_out")
    if isinstance(left_out, list) and left_out:
        entries = [f"{entry.get('id')} ({entry.get('verdict')})" for entry in left_out if isinstance(entry, Mapping)]
        lines.append(f"left out, since they failed in that run: {', '.join(entries)}")
    return lines


def _case_lines(session: BaselineSession) -> list[str]:
    if not session.cases:
        return ["no case was measured"]
    covered = any(case.coverage is not None for case in session.cases.values())
    headers = ["case", "median ms", "spread", "replicates", *(["on accelerator"] if covered else []), "verdict"]
    rows = [
        [
            case.id,
            milliseconds(median(case.replicates)),
            f"{spread(case.replicates):.1%}",
            str(len(case.replicates)),
            *([_on_accelerator(case.coverage)] if covered else []),
            str(case.extra.get("verdict", _NOTHING)),
        ]
        for case in session.cases.values()
    ]
    legend = "spread: from the fastest replicate to the slowest, as a share of the median"
    return [
        *table(headers, rows, numbers=("median ms", "spread", "replicates", "on accelerator")),
        legend,
    ]


def _on_accelerator(coverage: Coverage | None) -> str:
    return _NOTHING if coverage is None else f"{coverage.on_accelerator}/{coverage.operations}"


def _outcome_text(outcome: Mapping[str, Any]) -> str:
    signal = f" ({outcome['signal']})" if outcome.get("signal") else ""
    message = " ".join(str(outcome.get("message") or "no reason is recorded").split())
    return f"{outcome.get('kind', 'unknown')} in stage {outcome.get('stage', 'unknown')}{signal}: {message}"


def session_document(session: BaselineSession, now: datetime) -> dict[str, Any]:
    """All that ``show`` knows, as JSON. Durations in seconds."""
    return {
        "schema": SESSION_SCHEMA,
        **_heading(session, now),
        "identity": dict(session.identity),
        "software": dict(session.software),
        "condition": dict(session.condition),
        "cases": [
            {
                "id": case.id,
                "median": median(case.replicates),
                "spread": spread(case.replicates),
                "replicates": list(case.replicates),
                "coverage": None if case.coverage is None else case.coverage.as_dict(),
                "verdict": case.extra.get("verdict"),
            }
            for case in session.cases.values()
        ],
        "broken": [{"id": case_id, "outcome": dict(outcome)} for case_id, outcome in session.broken.items()],
        "left_out": session.block.get("left_out"),
        "promoted_from": session.block.get("promoted_from"),
        "other_benchmarks": session.others,
    }


# ---------------------------------------------------------------- diff


def difference_lines(before: BaselineSession, after: BaselineSession, difference: SessionDifference) -> list[str]:
    """What differs, in the order in which it matters: whether they may be compared at all, what changed, then the figures."""
    names = plain(before.path.stem), plain(after.path.stem)
    lines = [f"{names[0]} ({taken(before)}) -> {names[1]} ({taken(after)})", ""]
    lines.append(f"device: {'; '.join(difference.identity) or f'the same, {before.device_id}'}")
    if difference.identity:
        lines.append("        timings of different devices are not comparable: the figures below say nothing of the software")
    lines.append(f"software: {'; '.join(difference.software) or 'the same'}")
    lines += (
        ["condition:", *(f"    {text}" for text in difference.condition)] if difference.condition else ["condition: the same"]
    )
    lines.append("")
    if difference.cases:
        covered = any(case.coverage_before or case.coverage_after for case in difference.cases)
        rows = [
            [
                case.id,
                milliseconds(case.before),
                milliseconds(case.after),
                f"{case.ratio:.3f}",
                "too few replicates" if case.interval is None else f"{case.interval[0]:.3f} to {case.interval[1]:.3f}",
                *([_covered(case)] if covered else []),
            ]
            for case in difference.cases
        ]
        headers = ["case", "before ms", "after ms", "ratio", "95 % interval", *(["on accelerator"] if covered else [])]
        rails = sorted({name for case in difference.cases for name in case.energy})
        for row, case in zip(rows, difference.cases, strict=True):
            row += [energy_change(*case.energy[name]) if name in case.energy else _NOTHING for name in rails]
        headers += [f"mJ, {name}" for name in rails]
        lines += table(headers, rows, numbers=("before ms", "after ms", "ratio"))
        if rails:
            lines.append("mJ: energy of one inference by power rail, before -> after; no verdict rests on it")
    else:
        lines.append("no case can be compared" if difference.other_pictures else "no case is in both")
    for text, case_ids in (
        ("measured on another number of pictures, and so not compared", difference.other_pictures),
        (f"only in {names[0]}", difference.only_before),
        (f"only in {names[1]}", difference.only_after),
        (f"broken in {names[1]} and not in {names[0]}", difference.newly_broken),
        (f"broken in {names[0]} and not in {names[1]}", difference.no_longer_broken),
    ):
        if case_ids:
            lines.append(f"{text}: {', '.join(case_ids)}")
    lines += [
        "",
        "This is a description and not a verdict: an interval covers the replicates of these two sessions, not how much sessions of one",
        "software differ from each other. A verdict comes from a run with --benchmark-compare.",
    ]
    return lines


def _covered(case: CaseDifference) -> str:
    """Such as ``70/72 -> 64/72``, or once where nothing differs."""
    before, after = _on_accelerator(case.coverage_before), _on_accelerator(case.coverage_after)
    return before if before == after else f"{before} -> {after}"


# ---------------------------------------------------------------- parts


def plain(text: str) -> str:
    """A name as it is, or escaped where it holds what a terminal cannot show as one line."""
    return text if text.isprintable() else ascii(text)


def taken(session: BaselineSession) -> str:
    """``"2026-01-02 03:04 UTC"``, or that it is not known."""
    moment = session_time(session.datetime)
    return "at an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> list[str]:
    """Lines of a plain table, the columns named in `numbers` aligned to the right."""
    from tabulate import tabulate

    alignment = ["right" if header in numbers else "left" for header in headers]
    text = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=alignment)
    return [line.rstrip() for line in text.splitlines()]


def _entries(values: Mapping[str, str]) -> list[str]:
    if not values:
        return ["    nothing is recorded"]
    width = max(map(len, values))
    return [f"    {name:<{width}}  {value}" for name, value in values.items()]
