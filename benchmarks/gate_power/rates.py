"""Shares with their exact intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``trials``, which are independent of each other as far as the page says."""

    hits: int
    trials: int

    @classmethod
    def of(cls, answers: Iterable[bool]) -> Rate:
        all_of_them = list(answers)
        return cls(sum(all_of_them), len(all_of_them))

    @property
    def share(self) -> float:
        return self.hits / self.trials

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The exact two-sided interval (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934); of no trials: (0, 1)."""
        tail = (1 - confidence) / 2
        low = float(stats.beta.ppf(tail, self.hits, self.trials - self.hits + 1)) if self.hits else 0.0
        high = float(stats.beta.ppf(1 - tail, self.hits + 1, self.trials - self.hits)) if self.hits < self.trials else 1.0
        return low, high

    def __str__(self) -> str:
        if not self.trials:
            return "–"
        low, high = self.interval()
        return f"{percent(self.share)} % ({percent(low)}–{percent(high)}; {self.hits}/{self.trials})"


def percent(share: float) -> str:
    """One place, and never 0.0 or 100.0 for what is neither none nor all."""
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        return "<0.1"
    if text == "100.0" and share < 1:
        return ">99.9"
    return text.removesuffix(".0") if share in (0, 1) else text
