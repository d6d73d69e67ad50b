"""Which of several settings is the one that a model was trained with, by the pictures that it gets right. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..accuracy import binomial_at_most, mcnemar_p_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Entrant = TypeVar("Entrant")

ALPHA = 0.01
"""A setting is out of the race where this few in a hundred would fall so far behind the best one by chance."""
_ALPHA_PROBABLE = 0.3  # among those that are still in it, what falls behind so far is not taken for its probability beforehand


@dataclass(frozen=True)
class Standing:
    """``best`` is the entrant that is chosen; ``rivals`` those that cannot be told from it, in the order of their probability."""

    best: int
    rivals: tuple[int, ...]


def standing(right: Sequence[NDArray[np.bool_]]) -> Standing:
    """How entrants stand, each by which of the same pictures it got right; the most probable one beforehand comes first.

    Entrants are compared in pairs with the one that has most right, by McNemar's exact test on the pictures of which only one of the two
    is right. Where several are left, the most probable of those that are hardly behind is chosen.
    """
    leader = max(range(len(right)), key=lambda place: (int(right[place].sum()), -place))
    p_values = [_behind(right[place], right[leader]) for place in range(len(right))]
    best = next(place for place, p_value in enumerate(p_values) if p_value >= _ALPHA_PROBABLE)
    rivals = tuple(place for place, p_value in enumerate(p_values) if p_value >= ALPHA and place != best)
    return Standing(best, rivals)


def _behind(entrant: NDArray[np.bool_], leader: NDArray[np.bool_]) -> float:
    lost, won = int((leader & ~entrant).sum()), int((entrant & ~leader).sum())
    return mcnemar_p_value(lost, won) if lost > won else 1.0


def still_racing(right: Mapping[Entrant, NDArray[np.bool_]]) -> list[Entrant]:
    """The entrants that more pictures could still make the best one."""
    entrants = list(right)
    now = standing([right[entrant] for entrant in entrants])
    return [entrant for place, entrant in enumerate(entrants) if place == now.best or place in now.rivals]


def clearly_better(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether ``other`` is so far behind, on the same pictures, that it is no chance."""
    return _behind(other, one) < ALPHA


def beats_chance(right: int, count: int, classes: int) -> bool:
    """Whether so many right answers are more than guessing among ``classes`` would give."""
    if right == 0:
        return False
    # At least `right` of `count` by chance is at most `count - right` wrong ones.
    return binomial_at_most(count - right, count, 1 - 1 / classes) < ALPHA / 10
