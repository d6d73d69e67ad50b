"""Looking for the preprocessing and the labelling that a model was trained with: by running it on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .labellings import Labelling
from .preprocessing_candidates import Candidate
from .preprocessing_race import beats_chance, clearly_better, standing, still_racing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STEPS = (32, 64, 128, 256)
"""How many pictures decide: where those of one step do not, those that are still in the race see more."""

DOUBTFUL = 0.5
"""A classifier that gets a smaller share right than this is asked whether its classes have another order."""

Answers = Callable[[Candidate, int, int], "NDArray[np.int64]"]
"""The model's answers to the pictures from one number to another, preprocessed as the candidate says."""


@dataclass(frozen=True)
class Tried:
    """``right`` of ``count`` pictures."""

    candidate: Candidate
    labelling: Labelling
    right: int
    count: int

    @property
    def share(self) -> float:
        return self.right / self.count


@dataclass(frozen=True)
class Found:
    """What was chosen. ``tried``: everything, the chosen one first, then by how much was right.

    ``undecided``: keys of the card that the pictures do not decide. ``better_than_chance``: whether the model knows the pictures at all.
    """

    chosen: Tried
    tried: tuple[Tried, ...]
    undecided: tuple[str, ...]
    better_than_chance: bool


def search(
    first: Sequence[Candidate],
    further: Callable[[Candidate], Sequence[Candidate]],
    labellings: Sequence[Labelling],
    labels: NDArray[np.int64],
    answers: Answers,
) -> Found:
    """Race ``first`` with each labelling, then what is ``further`` to the best of them.

    ``labels``: of the pictures, in an order in which all classes come early, ``(N,)``.
    """
    import numpy as np

    known: dict[Candidate, NDArray[np.int64]] = {}

    def right(candidate: Candidate, labelling: Labelling, count: int) -> NDArray[np.bool_]:
        have = known.get(candidate, np.empty(0, np.int64))
        if len(have) < count:
            known[candidate] = have = np.concatenate([have, answers(candidate, len(have), count)])
        return labelling.right(have[:count], labels[:count])

    tried: dict[tuple[Candidate, Labelling], Tried] = {}
    undecided: list[str] = []

    def race(entrants: list[tuple[Candidate, Labelling]]) -> tuple[Candidate, Labelling]:
        steps = [step for step in STEPS if step < len(labels)] + [min(len(labels), STEPS[-1])]
        for count in steps:
            found = {entrant: right(*entrant, count) for entrant in entrants}
            tried.update((entrant, Tried(*entrant, int(hits.sum()), count)) for entrant, hits in found.items())
            now = standing(list(found.values()))
            best = entrants[now.best]
            racing = still_racing(found)
            if len(racing) == 1:
                break
            entrants = racing
        else:
            undecided.extend(_undecided(entrants, best, known, count))
        return best

    def known_at_all(one: Tried) -> bool:
        return beats_chance(one.right, one.count, len(np.unique(labels)))

    # An order that is learned from the answers is for where none that can be named explains them.
    named = [labelling for labelling in labellings if labelling.outputs is not None]
    learned = [labelling for labelling in labellings if labelling.outputs is None]
    best = race([(candidate, labelling) for labelling in named or learned for candidate in first])
    if named and learned and tried[best].share < DOUBTFUL:
        decided = list(undecided)
        undecided.clear()
        other = race([(candidate, labelling) for labelling in learned for candidate in first])
        count = min(tried[best].count, tried[other].count)
        if known_at_all(tried[other]) and clearly_better(right(*other, count), right(*best, count)):
            best = other
        else:
            undecided[:] = decided
            tried = {key: one for key, one in tried.items() if key[1] not in learned}
    if known_at_all(tried[best]):
        others = further(best[0])
        if others:
            best = race([best] + [(candidate, best[1]) for candidate in others])
    chosen = tried[best]
    rest = sorted((one for key, one in tried.items() if key != best), key=lambda one: (-one.count, -one.share))
    return Found(chosen, (chosen, *rest), tuple(dict.fromkeys(undecided)), known_at_all(chosen))


def _undecided(
    racing: Sequence[tuple[Candidate, Labelling]],
    best: tuple[Candidate, Labelling],
    known: dict[Candidate, NDArray[np.int64]],
    count: int,
) -> list[str]:
    """Keys in which what is still in the race differs; not those by which the model's answers do not change at all."""
    keys: list[str] = []
    for candidate, labelling in racing:
        same = (known[candidate][:count] == known[best[0]][:count]).all()
        if not same:
            keys += candidate.differs_in(best[0])
        if labelling != best[1]:
            keys.append("labels")
    return keys
