"""Counts, moments and durations in words, alike in every report. No I/O."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

CLOCKS_AGREE = timedelta(minutes=1)
"""By so much the clock may have been set back without a word about it."""

_UNITS = (("year", 365 * 86400), ("month", 30 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60))
_SHOWN_BELOW = {"month": 90 * 86400, "year": 730 * 86400}  # "75 days" and "18 months" say more than "2 months" and "1 year"


def seconds_in_words(seconds: float) -> str:
    """``"0.0412 ms"``, ``"12.3 ms"``, ``"1.5 s"``: three significant digits, in milliseconds below one second."""
    milliseconds = f"{seconds * 1000:.3g}"
    return f"{milliseconds} ms" if float(milliseconds) < 1000 else f"{seconds:.0f} s" if seconds >= 1000 else f"{seconds:.3g} s"


def counted(count: int, noun: str) -> str:
    """``"1 session"``, ``"3 sessions"``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most ``width`` characters, those after the first behind ``indent``. Words, such as ids and paths, stay whole."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=True
    ) or [""]


def in_words(words: Sequence[str]) -> str:
    """``"a"``, ``"a and b"``, ``"a, b and c"``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def letter_of(number: int) -> str:
    """A, B, ... Z, AA, AB, ..., as the columns of a spreadsheet."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def session_time(text: str) -> datetime | None:
    """The moment that a session file names, in UTC; None where it names none. Without a zone it is UTC, as pytest-benchmark writes it."""
    try:
        # Python 3.10 does not know that Z stands for UTC.
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    try:
        return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except OverflowError:
        return None


def duration_in_words(duration: timedelta) -> str:
    """``"14 days"``, ``"1 hour"``, ``"less than a minute"``: whole units, rounded down, never negative."""
    seconds = max(0.0, duration.total_seconds())
    for unit, length in _UNITS:
        if seconds >= _SHOWN_BELOW.get(unit, length):
            return counted(int(seconds // length), unit)
    return "less than a minute"


def age_in_words(text: str, now: datetime) -> str:
    """How old a session is that was taken at `text` (ISO 8601): ``"14 days old"``, ``"3 hours in the future"``, ``"of unknown age"``.

    `now` has a time zone.
    """
    moment = session_time(text)
    if moment is None:
        return "of unknown age"
    age = now - moment
    if age < -CLOCKS_AGREE:
        return f"{duration_in_words(-age)} in the future"
    return f"{duration_in_words(age)} old"
