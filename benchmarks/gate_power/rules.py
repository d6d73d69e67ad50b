"""The rules by which other tools call something slower, on the raw rounds of whole processes.

Each judges what a user of the tool would have let it judge: one run against one run, or as many processes as the tool takes by itself.
Rounds are in ns, in the order in which they were taken, after warm-up. All of them answer one question: is the candidate slower?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any

import numpy
import numpy.typing
from scipy import stats

Sample = numpy.typing.NDArray[Any]
Processes = Sequence[Sample]
"""The rounds of each process."""


@dataclass(frozen=True)
class Rule:
    """``is_slower(candidate, reference)`` takes the rounds of ``processes`` processes of each."""

    name: str
    is_slower: Callable[[Processes, Processes], bool]
    processes: int = 1


def pytest_benchmark(statistic: str, percent: float) -> Rule:
    """``--benchmark-compare-fail=<statistic>:<percent>%``: (new - old) / old * 100 > percent, on all rounds of one run."""
    of: dict[str, Callable[[Sample], Any]] = {"min": numpy.min, "mean": numpy.mean, "median": numpy.median}
    take = of[statistic]

    def is_slower(candidate: Processes, reference: Processes) -> bool:
        old = float(take(_only(reference)))
        return bool((float(take(_only(candidate))) - old) / old * 100 > percent)

    return Rule(f"pytest-benchmark `{statistic}:{percent:g}%`", is_slower)


ASV_SAMPLES, ASV_SAMPLE_NS = 10, 10e6


def asv(candidate: Processes, reference: Processes) -> bool:
    """``asv continuous``: the medians differ by more than a factor of 1.1 **and** a two-sided Mann-Whitney test over the samples
    of all processes has p < 0.002 (where they are too few for that: their 99 % intervals do not overlap).

    Two processes ("rounds") by default, each with at most 10 samples of at least 10 ms, a sample being the mean of its calls.
    """
    new, old = (
        numpy.concatenate([samples_of(rounds, ASV_SAMPLE_NS)[:ASV_SAMPLES] for rounds in processes])
        for processes in (candidate, reference)
    )
    if not float(numpy.median(new)) > 1.1 * float(numpy.median(old)):
        return False
    if 1 / comb(len(new) + len(old), min(len(new), len(old))) < 0.002:
        return bool(stats.mannwhitneyu(new, old, alternative="two-sided").pvalue < 0.002)
    return bool(_median_interval(new)[0] > _median_interval(old)[1])


def samples_of(rounds: Sample, at_least: float) -> Sample:
    """Means of as many consecutive rounds as take ``at_least`` ns by the median; all of them in one where they are too few."""
    size = max(1, int(numpy.ceil(at_least / float(numpy.median(rounds)))))
    count = len(rounds) // size
    if count == 0:
        return numpy.array([rounds.mean()])
    return numpy.asarray(rounds[: count * size].reshape(count, size).mean(axis=1))


CRITERION_SAMPLES, CRITERION_RESAMPLES, CRITERION_NOISE = 100, 2_000, 0.01


def criterion(candidate: Processes, reference: Processes) -> bool:
    """Criterion: a bootstrap t-test of the means has p < 0.05 **and** the bootstrap's 95 % interval of the relative change of the
    mean lies wholly above the noise threshold of 1 %. 100 samples of one process; 2 000 resamples here, 100 000 there.

    The resamples are drawn once for each size with a fixed seed, so the answer is always the same.
    """
    new, old = _hundred(_only(candidate)), _hundred(_only(reference))
    low, high = bootstrap_change(new, old)
    if not low > CRITERION_NOISE or not high > CRITERION_NOISE:
        return False
    return bootstrap_t_p_value(new, old) < 0.05


def bootstrap_change(new: Sample, old: Sample) -> tuple[float, float]:
    """The 95 % percentile interval of mean(new) / mean(old) - 1."""
    change = _resamples(len(new), len(new), 0) @ new / (_resamples(len(old), len(old), 1) @ old) - 1
    low, high = numpy.quantile(change, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_t_p_value(new: Sample, old: Sample) -> float:
    """Two-sided: where Welch's t lies among those of samples drawn from both pooled, in which there is no difference."""
    pooled = numpy.concatenate([new, old]).astype(float)
    pooled -= pooled.mean()  # t does not change, its rounding errors do
    first, second = (_resamples(len(pooled), size, seed) for seed, size in ((2, len(new)), (3, len(old))))

    def moments(resamples: Sample, size: int) -> tuple[Sample, Sample]:
        means = resamples @ pooled
        return means, (resamples @ pooled**2 - means**2) / (size - 1)  # the variance of the mean

    (mean_1, variance_1), (mean_2, variance_2) = moments(first, len(new)), moments(second, len(old))
    spread = numpy.sqrt(variance_1 + variance_2)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        drawn = numpy.nan_to_num((mean_1 - mean_2) / spread)
    seen = float(stats.ttest_ind(new, old, equal_var=False).statistic)
    below = int((drawn < seen).sum())
    return float(2 * min(below, len(drawn) - below) / len(drawn))


@lru_cache(maxsize=64)
def _resamples(values: int, size: int, seed: int) -> Sample:
    """Weights: a row times the values is the mean of ``size`` of them drawn with replacement."""
    generator = numpy.random.default_rng([seed, values, size])
    return generator.multinomial(size, numpy.full(values, 1 / values), CRITERION_RESAMPLES) / size


def _hundred(rounds: Sample) -> Sample:
    size = max(1, len(rounds) // CRITERION_SAMPLES)
    count = min(CRITERION_SAMPLES, len(rounds) // size)
    return numpy.asarray(rounds[: count * size].reshape(count, size).mean(axis=1))


def mann_whitney(candidate: Processes, reference: Processes) -> bool:
    """A one-sided Mann-Whitney test on the rounds of one run against those of another has p < 0.05."""
    return bool(stats.mannwhitneyu(_only(candidate), _only(reference), alternative="greater").pvalue < 0.05)


def welch(candidate: Processes, reference: Processes) -> bool:
    """A one-sided Welch t-test on the rounds of one run against those of another has p < 0.05."""
    return bool(stats.ttest_ind(_only(candidate), _only(reference), equal_var=False, alternative="greater").pvalue < 0.05)


PYPERF_PROCESSES, PYPERF_VALUES, PYPERF_VALUE_NS = 5, 3, 100e6


def pyperf(candidate: Processes, reference: Processes) -> bool:
    """``pyperf compare_to``: Student's t-test with pooled variance, two-sided at 95 %, on the values of several processes.

    pyperf takes 20 processes with 3 values of at least 0.1 s each. Here there are 5, with as many values as their rounds make.
    """
    new, old = (
        numpy.concatenate([samples_of(rounds, PYPERF_VALUE_NS)[:PYPERF_VALUES] for rounds in processes])
        for processes in (candidate, reference)
    )
    return bool(new.mean() > old.mean() and stats.ttest_ind(new, old, equal_var=True).pvalue < 0.05)


def _only(processes: Processes) -> Sample:
    (rounds,) = processes
    return rounds


def _median_interval(sample: Sample) -> tuple[float, float]:
    """asv's 99 % interval of the median from order statistics; of too few values: everything."""
    ordered = numpy.sort(sample)
    rank = int(stats.binom.ppf(0.005, len(ordered), 0.5)) - 1
    if rank < 0:
        return -numpy.inf, numpy.inf
    return float(ordered[rank]), float(ordered[len(ordered) - 1 - rank])


RULES: tuple[Rule, ...] = (
    pytest_benchmark("min", 5),
    pytest_benchmark("mean", 5),
    pytest_benchmark("mean", 10),
    pytest_benchmark("median", 5),
    Rule("asv (1.1, p < 0.002, 2 processes)", asv, 2),
    Rule("Criterion (bootstrap, 1 %)", criterion),
    Rule("Mann-Whitney on rounds, p < 0.05", mann_whitney),
    Rule("Welch's t on rounds, p < 0.05", welch),
    Rule("pyperf (t-test, 5 processes)", pyperf, PYPERF_PROCESSES),
)
