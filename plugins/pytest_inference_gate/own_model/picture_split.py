"""Which pictures a model is evaluated on, and which it is calibrated with: the same on every machine, none in both."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .labelled_pictures import Entry

FEWEST_TO_DIVIDE = 20
"""With fewer pictures, all are evaluated on, and nothing is left to calibrate with."""
_SHARE_FOR_CALIBRATION = 5  # one in so many, where the user has not divided the set


def divide(entries: Sequence[Entry], evaluation: int, calibration: int) -> tuple[list[Entry], list[Entry]]:
    """At most so many entries for evaluation and for calibration, with as many of each class as can be had.

    An order that depends on the pictures' paths alone takes them class by class in turns, so that the first N of the evaluation
    entries have all classes too. The user's own division, where there is one, stays.
    """
    evaluated = [entry for entry in entries if entry.part == "evaluation"]
    if evaluated:
        calibrated = [entry for entry in entries if entry.part == "calibration"]
        return in_turns(evaluated)[:evaluation], in_turns(calibrated)[:calibration]
    order = in_turns(entries)
    if len(order) < FEWEST_TO_DIVIDE:
        return order[:evaluation], []
    count = min(calibration, max(1, len(order) // _SHARE_FOR_CALIBRATION))
    held = min(evaluation, len(order) - count)
    return order[:held], order[held : held + count]


def in_turns(entries: Iterable[Entry]) -> list[Entry]:
    """One of each class, then another of each, and so on; within a class by the digest of the path."""
    by_class: defaultdict[int | None, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: hashlib.sha256(entry.place.encode("utf-8", "surrogateescape")).digest()):
        by_class[entry.label].append(entry)
    labels = sorted(by_class, key=lambda label: -1 if label is None else label)
    ranked = [(rank, place, entry) for place, label in enumerate(labels) for rank, entry in enumerate(by_class[label])]
    return [entry for _, _, entry in sorted(ranked, key=lambda one: one[:2])]
