"""How far latency differs from picture to picture, apart from how far it differs from round to round.

Both are robust: the interquartile range (IQR) divided by the median, a share.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .percentiles import percentile


def median_of_each_picture(groups: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """For each picture the median over the groups (replicates, or sessions), which are all about the same pictures in their order.

    Empty where there is no group, or where they are not of one length.
    """
    if len({len(group) for group in groups}) != 1:
        return ()
    return tuple(median(values) for values in zip(*groups, strict=True))


def spread_over_pictures(medians: Sequence[float]) -> float:
    """The IQR of the pictures' medians, divided by their median.

    A picture's median is itself an estimate from few rounds: where pictures make no difference this is a part of
    :func:`spread_over_rounds`, and not zero.
    """
    return _relative_iqr(medians)


def spread_over_rounds(replicates: Sequence[Sequence[float]], pictures: int) -> float:
    """The IQR of a picture's rounds, divided by their median: the median of that over the pictures.

    ``replicates`` are the rounds of each, round k about picture k modulo ``pictures``. Each replicate's rounds are divided by their median
    first, so that what differs from process to process does not count, and the rounds of one picture in all processes are taken together.
    """
    scaled = [[duration / typical for duration in rounds] for rounds in replicates if (typical := median(rounds)) > 0]
    if not scaled:
        return 0.0
    return median(
        _relative_iqr([value for rounds in scaled for value in rounds[picture::pictures]]) for picture in range(pictures)
    )


def _relative_iqr(values: Sequence[float]) -> float:
    middle = median(values)
    return (percentile(values, 75) - percentile(values, 25)) / middle if middle > 0 else 0.0
