"""Exact rank tests on few values, and what is made of their p-values: pure functions.

With as few replicates as a gate can afford, an approximation by a normal distribution would be off by more than what is decided on. With
hundreds on both sides it is as good as exact, while to count all ways would take minutes and gigabytes: there, and only there, it is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import comb, erfc, log, sqrt
from statistics import NormalDist

_MOST_WORK = 1e12
"""Bits that are moved at most to count a distribution, about a second's worth."""


def rank_sum_p_value(larger: Sequence[float], smaller: Sequence[float]) -> float:
    """The exact one-sided p-value of the Mann-Whitney rank-sum test that ``larger`` tends to have the larger values.

    It is the share of all ways to deal the pooled values out into groups of these two sizes, in which the first group's sum of
    ranks is at least the one seen. Equal values share the mean of their ranks (mid-ranks), and the distribution is that of the
    ranks with their ties, so the value is exact with ties too (E. L. Lehmann, Nonparametrics, 1975, sections 1.2 and 1.4).
    """
    doubled_ranks = _doubled_mid_ranks([*larger, *smaller])
    first, second = doubled_ranks[: len(larger)], doubled_ranks[len(larger) :]
    ranks = tuple(sorted(doubled_ranks))
    if _is_large(len(first), len(second)):
        return _normal_p_value(sum(first), ranks, len(first))
    # The two groups' sums add up to a constant, so the smaller group's distribution, which is cheaper to count, says the same.
    if len(first) <= len(second):
        as_extreme = sum(count for rank_sum, count in _rank_sum_counts(ranks, len(first)) if rank_sum >= sum(first))
    else:
        as_extreme = sum(count for rank_sum, count in _rank_sum_counts(ranks, len(second)) if rank_sum <= sum(second))
    return as_extreme / comb(len(ranks), len(first))


def _is_large(first: int, second: int) -> bool:
    chosen, count = min(first, second), first + second
    return 2.0 * (count * chosen) ** 2 * comb(count, chosen).bit_length() > _MOST_WORK


def _normal_p_value(doubled_sum: int, doubled_ranks: Sequence[int], chosen: int) -> float:
    """By the normal distribution with the mean and the variance of the rank sum, ties and continuity corrected for."""
    count = len(doubled_ranks)
    ties = sum(number**3 - number for number in Counter(doubled_ranks).values())
    variance = chosen * (count - chosen) / 3 * (count + 1 - ties / (count * (count - 1)))
    if variance <= 0:
        return 1.0
    return erfc((doubled_sum - 1 - chosen * (count + 1)) / sqrt(2 * variance)) / 2


def smallest_p_value(first: int, second: int) -> float:
    """The smallest p-value that the rank-sum test can give for groups of these two sizes."""
    return 1 / comb(first + second, first)


def _doubled_mid_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mid-rank of each value, in the order of the values: doubled, they are whole numbers."""
    ranks: dict[float, int] = {}
    below = 0
    for value, count in sorted(Counter(values).items()):
        ranks[value] = 2 * below + count + 1  # twice the mean of below + 1 … below + count
        below += count
    return [ranks[value] for value in values]


@lru_cache(maxsize=256)
def _rank_sum_counts(ranks: tuple[int, ...], chosen: int) -> tuple[tuple[int, int], ...]:
    """For each sum that ``chosen`` of these whole-number ranks can have: the sum, and in how many ways it comes about.

    Dynamic programming over the ranks: ``ways[k]`` is the distribution of the sum of k of those seen so far. A distribution is
    kept as one long integer, with ``width`` bits for the count of each sum, enough for any count: adding a rank to every sum is
    then a shift, so that even hundreds of replicates take a moment only.
    """
    width = comb(len(ranks), chosen).bit_length()
    ways = [1] + [0] * chosen
    for seen, rank in enumerate(ranks, start=1):
        for size in range(min(seen, chosen), 0, -1):
            ways[size] += ways[size - 1] << (rank * width)
    # Cut the integer into its counts through bytes: shifting it down step by step would take quadratic time.
    bits = bin(ways[chosen])[2:]
    counts = []
    for rank_sum, end in enumerate(range(len(bits), 0, -width)):
        count = int(bits[max(0, end - width) : end], 2)
        if count:
            counts.append((rank_sum, count))
    return tuple(counts)


def signed_rank_p_value(ratios: Sequence[float]) -> float:
    """The exact one-sided p-value of Wilcoxon's signed-rank test that the ratios tend to lie above 1.

    The logarithms are ranked by their size; the p-value is the share of all ways to give them signs in which the ranks of the positive
    ones add up to at least the sum seen. Equal sizes share the mean of their ranks. Ratios of exactly 1 have no sign; they are left out
    after the ranks are given, not before: so larger ratios never have a larger p-value (J. W. Pratt, Journal of the American Statistical
    Association 54, 1959, who shows that F. Wilcoxon's own way lacks this). No ratio but 1: p is 1.
    """
    logarithms = [log(ratio) for ratio in ratios]
    ranked = zip(_doubled_mid_ranks([abs(value) for value in logarithms]), logarithms, strict=True)
    signed = [(rank, value) for rank, value in ranked if value != 0]
    doubled_ranks = [rank for rank, _ in signed]
    seen = sum(rank for rank, value in signed if value > 0)
    ways = {0: 1}  # by sum
    for rank in doubled_ranks:
        grown = Counter(ways)
        for total, count in ways.items():
            grown[total + rank] += count
        ways = dict(grown)
    return float(sum(count for total, count in ways.items() if total >= seen) / 2 ** len(doubled_ranks))


def holm_adjusted(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values corrected for there being several of them: that any is below alpha by chance has at most the probability alpha.

    The smallest is multiplied by their number, the next by one less, and so on, each at least as large as the one before and at most 1
    (S. Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p_value * (len(p_values) - place)))
        adjusted[name] = largest
    return adjusted


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """A confidence interval for the factor between two groups of positive values, from the rank-sum test turned around.

    It holds the factors that the two-sided test would not reject: from the k-th smallest to the k-th largest of all quotients of one
    value of each group (L. E. Moses; M. Hollander and D. A. Wolfe, Nonparametric Statistical Methods, 1999, section 4.3). None where the
    groups are too small for that confidence.
    """
    first, second = len(numerators), len(denominators)
    if _is_large(first, second):
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(first * second * (first + second + 1) / 12)
        cut = int(first * second / 2 - reach)
    else:
        ranks = tuple(range(2, 2 * (first + second) + 1, 2))
        cut = _tail_cut(_rank_sum_counts(ranks, first), first * (first + 1), comb(first + second, first), (1 - confidence) / 2)
    if cut == 0:
        return None
    quotients = sorted(above / below for above in numerators for below in denominators)
    return quotients[cut - 1], quotients[-cut]


def centre_interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """A confidence interval for the centre of some ratios, from the signed-rank test turned around.

    It reaches from the k-th smallest to the k-th largest of all geometric means of two of them, each with itself included (J. W. Tukey;
    Hollander and Wolfe, section 3.3). None where there are too few for that confidence: for 95 % below six.
    """
    count = len(ratios)
    ways = {0: 1}
    for rank in range(1, count + 1):
        grown = Counter(ways)
        for total, number in ways.items():
            grown[total + rank] += number
        ways = dict(grown)
    cut = _tail_cut(sorted((2 * total, number) for total, number in ways.items()), 0, 2**count, (1 - confidence) / 2)
    if cut == 0:
        return None
    means = sorted((ratios[one] * ratios[other]) ** 0.5 for one in range(count) for other in range(one, count))
    return means[cut - 1], means[-cut]


def _tail_cut(counts: Sequence[tuple[int, int]], least: int, ways: int, tail: float) -> int:
    """How many of the smallest values of a statistic have together a probability of at most ``tail``.

    ``counts`` holds (doubled value, in how many ways) in ascending order, ``least`` the doubled least value.
    """
    cut = 0
    cumulated = 0
    for doubled, count in counts:
        cumulated += count
        if cumulated > tail * ways:
            break
        cut = (doubled - least) // 2 + 1
    return cut
