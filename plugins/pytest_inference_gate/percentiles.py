"""One definition of a percentile, for all that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor


def percentile(values: Sequence[float], q: float) -> float:
    """The value below which ``q`` percent (0 to 100) of the values lie, in their own unit.

    Between two of the sorted values it is interpolated linearly, at the position (n - 1) q / 100 counted from 0: definition 7 of
    R. J. Hyndman and Y. Fan, The American Statistician 50, 1996, which is the default of NumPy too.

    Raises ValueError for no values, or q out of range.
    """
    if not values:
        raise ValueError("there are no values to take a percentile of")
    if not 0 <= q <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {q}")
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    below = floor(position)
    share = position - below
    if share == 0:
        return ordered[below]
    return ordered[below] + (ordered[below + 1] - ordered[below]) * share
