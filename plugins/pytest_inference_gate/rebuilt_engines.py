"""Which models had to be built anew because another release, or another device, had built the one that is stored.

What is built on a device means something only there: TensorRT takes no engine of another release, of another GPU, of another board. Then
the store has none that fits, and the case gets a new one. That is as it should be, and costs minutes, and a new engine may be a faster or
a slower one: so a run says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .artifacts import StoredArtifact

# Of the ingredients: by what a model was built, and not what it was built of.
_OF_THE_BUILDER = ("converter", "code", "machine", "intermediate", "build")
_LONGEST_LIST = 4


@dataclass(frozen=True)
class Rebuilt:
    """``case`` is its name without threads; ``before`` and ``now`` are the facts of the two builders."""

    case: str
    before: Mapping[str, Any]
    now: Mapping[str, Any]


def earlier_build(entries: Sequence[StoredArtifact], ingredients: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The builder's facts of the newest entry that was built of the same by another builder; ``None`` where there is none.

    ``entries``: oldest first. Where only the program text of the backend has changed, nothing is to be said.
    """
    of_the_same = _without_builder(ingredients)
    now = _facts(ingredients)
    for entry in reversed(entries):
        recorded = entry.provenance.get("ingredients")
        if entry.kind == "artifact" and isinstance(recorded, Mapping) and _without_builder(recorded) == of_the_same:
            before = _facts(recorded)
            return before if before != now else None
    return None


def rebuilt_remarks(rebuilt: Iterable[Rebuilt]) -> list[str]:
    """One sentence for each difference, with the cases that it concerns."""
    cases: dict[tuple[str, str], dict[str, None]] = {}
    for one in rebuilt:  # several builds of one case are one rebuilding
        cases.setdefault((_by(one.before), _differences(one.before, one.now)), {})[one.case] = None
    return [
        f"the engine{'s' if len(names) > 1 else ''} of {_listed(list(names))} in the store {'were' if len(names) > 1 else 'was'} built {by}"
        f" and {'do' if len(names) > 1 else 'does'} not fit here ({differences}): built anew"
        for (by, differences), names in cases.items()
    ]


def _without_builder(ingredients: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ingredients.items() if name not in _OF_THE_BUILDER}


def _facts(ingredients: Mapping[str, Any]) -> dict[str, Any]:
    return {**(ingredients.get("converter") or {}), "machine": ingredients.get("machine")}


def _by(facts: Mapping[str, Any]) -> str:
    if not facts.get("tensorrt"):
        return "with other software or elsewhere"
    return f"by TensorRT {facts['tensorrt']}" + (f" for SM {facts['sm']}" if facts.get("sm") else "")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return ", ".join(f"{name} {before.get(name) or 'unknown'} -> {now.get(name) or 'unknown'}" for name in names)


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _LONGEST_LIST:
        return ", ".join(names)
    return f"{', '.join(names[: _LONGEST_LIST - 1])} and {len(names) - _LONGEST_LIST + 1} others"
