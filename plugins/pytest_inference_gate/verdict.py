"""The verdicts: what the gate says of a case, how bad each is, and what each does to a test.

Nothing here measures or compares; :mod:`decision` and :mod:`accuracy` come to a verdict, this module says what it means.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .outcome import Outcome

Effect = Literal["pass", "fail", "error", "xfail", "skip"]


class Verdict(str, Enum):
    """The names as they stand in options, reports and result files. A member is equal to its name as a string."""

    PASS = "pass"
    FASTER = "faster"
    SLOWER = "slower"
    INACCURATE = "inaccurate"
    FALLBACK = "fallback"
    OVER_LIMIT = "over_limit"
    BROKEN = "broken"
    KNOWN_BROKEN = "known_broken"
    FIXED = "fixed"
    NO_BASELINE = "no_baseline"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
    UNGATEABLE = "ungateable"
    UNSUPPORTED = "unsupported"

    # Python 3.10 and 3.12 disagree on how a member of a mixed-in enumeration is formatted; this settles it.
    __str__ = str.__str__


RELAXABLE: frozenset[Verdict] = frozenset({Verdict.INCONCLUSIVE, Verdict.INVALID, Verdict.UNGATEABLE})
"""The verdicts that an option may turn green: they say that the gate could not tell, not that something is worse."""

SEVERITY: tuple[Verdict, ...] = (
    # Red whatever the options say come first, so that a relaxed verdict can never hide one of them.
    Verdict.BROKEN,
    Verdict.INACCURATE,
    Verdict.FALLBACK,
    Verdict.OVER_LIMIT,
    Verdict.SLOWER,
    Verdict.NO_BASELINE,
    Verdict.INVALID,
    Verdict.INCONCLUSIVE,
    Verdict.UNGATEABLE,
    Verdict.UNSUPPORTED,
    Verdict.KNOWN_BROKEN,
    Verdict.FIXED,
    Verdict.FASTER,
    Verdict.PASS,
)
"""Every verdict, worst first."""


@dataclass(frozen=True)
class _Presentation:
    effect: Effect
    letter: str
    word: str


# pytest's own letters where the test does what pytest's word says; own letters where the gate could not tell.
_PRESENTATIONS: dict[Verdict, _Presentation] = {
    Verdict.PASS: _Presentation("pass", ".", "PASS"),
    Verdict.FASTER: _Presentation("pass", ".", "FASTER"),
    Verdict.FIXED: _Presentation("pass", ".", "FIXED"),
    Verdict.SLOWER: _Presentation("fail", "F", "SLOWER"),
    Verdict.INACCURATE: _Presentation("fail", "F", "INACCURATE"),
    Verdict.FALLBACK: _Presentation("fail", "F", "FALLBACK"),
    Verdict.OVER_LIMIT: _Presentation("fail", "F", "OVER LIMIT"),
    Verdict.BROKEN: _Presentation("fail", "F", "BROKEN"),
    Verdict.KNOWN_BROKEN: _Presentation("xfail", "x", "KNOWN BROKEN"),
    Verdict.NO_BASELINE: _Presentation("error", "E", "NO BASELINE"),
    Verdict.INCONCLUSIVE: _Presentation("fail", "?", "INCONCLUSIVE"),
    Verdict.INVALID: _Presentation("fail", "!", "INVALID"),
    Verdict.UNGATEABLE: _Presentation("fail", "~", "UNGATEABLE"),
    Verdict.UNSUPPORTED: _Presentation("skip", "s", "UNSUPPORTED"),
}


def worst(verdicts: Iterable[str]) -> Verdict:
    """The most severe of several verdicts of one case (its outcome, its latency, its accuracy).

    Raises ValueError where there is none to choose from, or a name is no verdict.
    """
    known = [Verdict(verdict) for verdict in verdicts]
    if not known:
        raise ValueError("there is no verdict to choose the worst from")
    return min(known, key=SEVERITY.index)


def gate_is_red(verdict: str, relaxed: Container[str] = ()) -> bool:
    """Whether this verdict alone makes the run exit with an error.

    ``relaxed`` has an effect on the verdicts of :data:`RELAXABLE` only.
    """
    known = Verdict(verdict)
    if known in RELAXABLE:
        return known not in relaxed
    return _PRESENTATIONS[known].effect in ("fail", "error")


def run_is_red(verdicts: Iterable[str], relaxed: Container[str] = ()) -> bool:
    """Whether a whole run is red: one of its verdicts is, or there was no case but unsupported ones."""
    known = [Verdict(verdict) for verdict in verdicts]
    nothing_ran = all(verdict is Verdict.UNSUPPORTED for verdict in known)
    return nothing_ran or any(gate_is_red(verdict, relaxed) for verdict in known)


def effect(verdict: str, relaxed: Container[str] = ()) -> Effect:
    """What becomes of the test that this verdict is about."""
    known = Verdict(verdict)
    if known in RELAXABLE and known in relaxed:
        return "pass"
    return _PRESENTATIONS[known].effect


def letter(verdict: str) -> str:
    """The one character that stands for the test in pytest's row of dots."""
    return _PRESENTATIONS[Verdict(verdict)].letter


def word(verdict: str) -> str:
    """The word that stands behind the test with ``-v``."""
    return _PRESENTATIONS[Verdict(verdict)].word


def of_outcome(outcome: Outcome, *, broken_in_baseline: bool = False) -> Verdict:
    """The verdict on whether a case converts and runs, latency and accuracy left aside.

    A checkpoint that could not be fetched is ``broken`` even where the baseline was broken too: it says nothing of the case.
    """
    if outcome.ok:
        return Verdict.FIXED if broken_in_baseline else Verdict.PASS
    if outcome.kind == "unsupported":
        return Verdict.UNSUPPORTED
    if broken_in_baseline and not outcome.is_of_the_surroundings:
        return Verdict.KNOWN_BROKEN
    return Verdict.BROKEN
