"""When to stop measuring: what a growing sequence of replicates, or of process pairs, amounts to so far.

The scheme is the same for both gates. The first few values decide whether anything looks different at all; most cases end there, or even
earlier where each value by itself is clearly near to the baseline. What looks different is measured afresh, and counts only if the fresh
values show it by themselves **and** an exact rank test over all of them says that it is hardly chance. The first looks can end in
"unchanged" only. "Changed" can be said from twice the first values on, and may be looked for up to four times; the p-value knows nothing
of that, and what keeps the false alarms down is that the first values and all fresh ones must each lie beyond the threshold, at every
look. Chromium's Pinpoint asks for more in the same way while its answer lies between two thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

EARLIEST = 3
"""The fewest values on which "unchanged" is said: with three, one that is far off does not yet decide."""

MOST = 5
"""How many times the first values are taken at most, all in all; what is not clear by then stays unclear."""

State = Literal["unchanged", "changed", "unclear"]
Stage = Literal["first", "confirmed", "unconfirmed", "budget"]


@dataclass(frozen=True)
class Standing:
    """``state`` so far, what brought it about, and how many more values are ``wanted`` before anything is final (0: it is)."""

    state: State
    stage: Stage
    wanted: int = 0


def change_of(ratio: float) -> float:
    """How far a ratio is from 1, as a share of the faster side, so that a and 1 / a are equally far: 1.25 and 0.8 are both 0.25."""
    return max(ratio, 1 / ratio) - 1


def fewest_for_a_change(first: int, can_be_significant: Callable[[int], bool]) -> int:
    """How many values it takes at the fewest before "changed" can be said: the first and as many fresh ones, and more until the rank test
    could speak at all; at most :data:`MOST` times the first.
    """
    counts = range(2 * first, MOST * first)
    return next((count for count in counts if can_be_significant(count)), MOST * first)


def as_many(values: Sequence[float], count: int) -> list[float]:
    """At least ``count`` values that scatter as these do: the values themselves, over and over again where they are fewer."""
    return [values[number % len(values)] for number in range(max(count, len(values)))]


def standing(
    count: int,
    ratio: Callable[[int, int], float],
    *,
    tolerance: float,
    threshold: float,
    significant: Callable[[], bool],
    first: int,
    look_again_from: float,
    final: bool,
    earliest: int = EARLIEST,
) -> Standing:
    """What ``count`` values amount to.

    * ``ratio(start, end)``: candidate / baseline, from the values number ``start`` to before ``end``;
    * ``tolerance``: the change from which on a case looks different, as a share; ``threshold``: the change that counts, at least as much:
      what lies between the two looks different, but the noise that the threshold is made of may be all there is to it;
    * ``significant()``: whether the rank test over all values says so too;
    * ``first``: how many values are looked at first, and how many fresh ones it takes to confirm them;
    * ``look_again_from``: what is slower by at least this share, though within the tolerance, is looked at once more;
    * ``final``: no more values can be had; ``earliest``: on how many values "unchanged" may be said at the fewest.
    """
    earliest = min(earliest, first)
    if count < first and not final:
        if count < earliest:
            return Standing("unclear", "first", earliest - count)
        if all(change_of(ratio(number, number + 1)) <= tolerance / 2 for number in range(count)):
            return Standing("unchanged", "first")
        return Standing("unclear", "first", first - count)

    head = min(count, first)
    suspicion = ratio(0, head)
    looks_different = change_of(suspicion) > tolerance
    fresh = count - head
    if fresh == 0:
        if looks_different:
            return Standing("unclear", "budget") if final else Standing("unclear", "first", first)
        if suspicion - 1 > look_again_from and not final:
            return Standing("unclear", "first", first)
        return Standing("unchanged", "first")

    alone = ratio(head, count)
    everything = ratio(0, count)
    same_direction = (alone > 1) == (suspicion > 1)
    shown = same_direction and change_of(alone) > tolerance
    exhausted = final or count >= MOST * first
    if not looks_different:
        # Within the tolerance, but near to it: it takes fresh values beyond it, and all together beyond it, to change that.
        if not shown or not (everything > 1 and change_of(everything) > tolerance):
            return Standing("unchanged", "unconfirmed" if shown else "first")
    elif not shown:
        clear = not same_direction or change_of(alone) <= tolerance / 2
        if clear or fresh >= 2 * first or exhausted:
            return Standing("unchanged", "unconfirmed")
        return Standing("unclear", "first", first)
    # First values within the tolerance are not beyond a wider threshold: were more allowed here, a slower case could fare better.
    beyond = min(change_of(suspicion), change_of(alone)) > threshold if looks_different else threshold <= tolerance
    if fresh >= first and beyond and significant():
        return Standing("changed", "confirmed")
    if fresh >= 2 * first and not beyond and threshold > tolerance:
        return Standing("unclear", "budget")  # more values make the baseline's own noise no smaller
    return Standing("unclear", "budget") if exhausted else Standing("unclear", "first", first)
