"""Which output of the model stands for which label: what could be meant, and how to tell whether an answer is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import InitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Labelling:
    """``outputs`` gives the index of the output for each label; None where that is to be learned from the answers themselves.

    ``offset``: of a card's ``[labels]``, where labels are the user's own numbers. ``note`` goes into the card.
    """

    outputs: Mapping[int, int] | None
    offset: int = 0
    note: str = ""

    def right(self, answers: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each answer is right.

        Where the order is not known, an answer is right if most of the other pictures of its label got it too, and those of no other label
        got it as often: each picture is judged by the others alone, so that chance does not look like knowledge, and a model that
        answers everything alike is never right.
        """
        import numpy as np

        if self.outputs is not None:
            wanted = np.array([self.outputs.get(int(label), -1) for label in labels], np.int64)
            return np.asarray(answers == wanted)
        _, rows = np.unique(labels, return_inverse=True)
        _, columns = np.unique(answers, return_inverse=True)
        counts = np.zeros((rows.max() + 1, columns.max() + 1))
        np.add.at(counts, (rows, columns), 1)
        right = np.zeros(len(answers), bool)
        for picture, (row, column) in enumerate(zip(rows, columns, strict=True)):
            counts[row, column] -= 1
            shares = counts[:, column] / np.maximum(counts.sum(axis=1), 1)
            most_here = counts[row, column] > np.delete(counts[row], column).max(initial=0)
            right[picture] = most_here and shares[row] > np.delete(shares, row).max(initial=0)
            counts[row, column] += 1
        return right

    def learned(self, answers: NDArray[np.int64], labels: NDArray[np.int64]) -> Labelling | None:
        """With the order that the answers show; itself where it is known, None where two labels would be one output."""
        import numpy as np

        if self.outputs is not None:
            return self
        outputs = {int(label): int(np.bincount(answers[labels == label]).argmax()) for label in np.unique(labels)}
        if len(set(outputs.values())) < len(outputs):
            return None
        return Labelling(outputs, note="the order of the classes was found from the model's own answers")


def named_labellings(
    classes: Sequence[str], outputs: int, names: Sequence[str] | None, source: str, strict: bool
) -> list[Labelling]:
    """What labels with names, in the order of ``classes``, can mean, the most probable first.

    ``names`` are those of the outputs, from ``source``; ``strict``: the user gave them, so that a class that is not among them is an
    error. Raises :class:`InitError`.
    """
    if names is not None:
        if len(names) != outputs:
            if strict:
                raise InitError(
                    f"{source} has {len(names)} names, and the model {outputs} outputs: give one name a line for each output"
                )
        else:
            found = _by_name(classes, names)
            if isinstance(found, dict):
                return [Labelling(found, note=f"in the order of {source}")]
            if strict:
                raise InitError(
                    f"the class {found!r} is not among the {len(names)} names in {source}, such as {names[0]!r}: correct one of the two"
                )
    count = len(classes)
    if count > outputs:
        raise InitError(
            f"the pictures are of {count} classes and the model has {outputs} outputs: is a folder among them that is no class?"
        )
    numbers = range(count)
    possible = []
    if count == outputs - 1:
        possible.append(Labelling({label: label + 1 for label in numbers}, note="output 0 is taken for the background"))
    if count >= outputs - 1:
        possible.append(Labelling({label: label for label in numbers}, note="in the order of their names"))
        if all(name.isascii() and name.isdigit() for name in classes):
            # "10" comes before "2" by name; training that took the names for numbers has them the other way round.
            order = sorted(numbers, key=lambda label: int(classes[label]))
            by_number = {label: place for place, label in enumerate(order)}
            if by_number != {label: label for label in numbers}:
                possible.append(Labelling(by_number, note="in the order of their numbers"))
    return [*possible, Labelling(None)]


def _by_name(classes: Sequence[str], names: Sequence[str]) -> dict[int, int] | str:
    """The output of each class, or the first class that is none."""
    for plain in (str, lambda name: name.casefold().replace("_", " ").replace("-", " ").strip()):
        index: dict[str, int] = {}
        for place, name in enumerate(names):
            index.setdefault(plain(name), place)
        missing = [name for name in classes if plain(name) not in index]
        if not missing:
            return {label: index[plain(name)] for label, name in enumerate(classes)}
    return missing[0]


def numbered_labellings(labels: Sequence[int], outputs: int) -> list[Labelling]:
    """What labels that are numbers can mean: the output of that number, or the one after or before it. Raises :class:`InitError`."""
    lowest, highest = min(labels), max(labels)
    ways = {0: "", 1: "output 0 is taken for the background", -1: "labels begin with 1"}
    present = sorted(set(labels))
    possible = [
        Labelling({label: label + offset for label in present}, offset, note)
        for offset, note in ways.items()
        if lowest + offset >= 0 and highest + offset < outputs
    ]
    if not possible:
        raise InitError(f"labels go from {lowest} to {highest}, and the model has {outputs} outputs: correct the labels")
    return possible
