"""The quantization grid: what each precision of a model costs and brings, with each number of threads, and what stands out in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .backends import CPU
from .results import CaseResult
from .thread_scaling import scaling_key
from .verdict import Verdict, worst
from .wording import in_words

WRECKED_DROP = 0.05
"""A precision that loses so much top-1, as a share of the pictures, or so much mAP, wrecks the model..."""
WRECKED_P = 0.01
"""...if the test of the accuracy's verdict (McNemar's, of a detector the one that swaps pictures) gives that no more chance than this."""
WRECKED_AGREEMENT = 0.95
"""Without labels: a precision that names the float model's class for fewer of the pictures does."""
LEAST_GAIN = 1.1
"""More threads that are not so many times as fast gain nothing: medians of a few processes scatter by some per cent."""

_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@dataclass(frozen=True)
class Score:
    """How good a case's predictions are, in shares of 1; None where there was nothing to tell from.

    ``name`` is ``top-1`` or ``mAP``; ``value`` and ``reference`` are what the case and the float model (or the other stack) reach, ``drop``
    is their difference and ``p`` the chance of it; ``agreement`` is the share of pictures with the reference's class.
    """

    name: str
    value: float | None
    reference: float | None
    drop: float | None
    p: float | None
    agreement: float | None = None

    @classmethod
    def of(cls, case: CaseResult) -> Score | None:
        if case.detection is not None:
            found = case.detection.figures
            return cls("mAP", found.map, found.reference_map, found.drop, found.drop_p)
        if case.accuracy is not None:
            figures = case.accuracy.figures
            return cls("top-1", figures.top1, figures.reference_top1, figures.drop, figures.mcnemar_p, figures.agreement)
        return None


@dataclass(frozen=True)
class GridRow:
    """One precision of one model on one backend: its cases, which differ in their number of threads alone, fewest first."""

    cases: tuple[CaseResult, ...]

    @property
    def first(self) -> CaseResult:
        """The case with the fewest threads."""
        return self.cases[0]

    @property
    def kind(self) -> str:
        """What the ids of its cases say besides: variant, device, stream; empty for most."""
        return scaling_key(self.first)[-1].lstrip("-")

    def with_threads(self, count: int) -> CaseResult | None:
        return next((case for case in self.cases if case.threads == count), None)

    @property
    def score(self) -> Score | None:
        """The worst of its cases', which the same pictures gave: threads may add in another order, and round otherwise."""
        known = [score for case in self.cases if (score := Score.of(case)) is not None]
        return min(known, key=lambda one: (one.value or 0.0, one.agreement or 0.0), default=None)

    @property
    def verdict(self) -> Verdict:
        return worst(case.verdict for case in self.cases)

    @property
    def wrecked(self) -> bool | None:
        """Whether the precision wrecks the model; ``None`` where nothing tells."""
        score = self.score
        if score is None:
            return None
        if score.drop is not None:
            return score.drop >= WRECKED_DROP and (score.p is None or score.p <= WRECKED_P)
        return None if score.agreement is None else score.agreement < WRECKED_AGREEMENT

    def gains(self, cores: float | None) -> dict[int, float]:
        """How many times as fast it is as with one thread, by threads; of no more threads than the device has cores."""
        return {
            case.threads: case.thread_speedup
            for case in self.cases
            if case.thread_speedup is not None and (cores is None or case.device != CPU or case.threads <= cores)
        }


def rows_by_model(cases: Iterable[CaseResult]) -> dict[str, list[GridRow]]:
    """The grid of each model, in the order of the cases."""
    rows: dict[object, list[CaseResult]] = {}
    for case in cases:
        rows.setdefault(scaling_key(case), []).append(case)
    found: dict[str, list[GridRow]] = {}
    for row in rows.values():
        found.setdefault(row[0].model, []).append(GridRow(tuple(sorted(row, key=lambda case: case.threads))))
    return found


Name = Callable[[GridRow], str]


def remarks_on_model(rows: Sequence[GridRow], name: Name, *, cores: float | None = None) -> list[str]:
    """What stands out among the rows of one model, in sentences without a full stop. ``name`` says which row is meant."""
    return [*_wrecked(rows, name), *_idle_threads(rows, name, cores), *_enough_threads(rows, name, cores)]


def remarks_across_models(models: Mapping[str, Sequence[GridRow]], name: Name) -> list[str]:
    """Which precisions wreck one model and spare another."""
    known: dict[str, dict[str, GridRow]] = {}
    for model, rows in models.items():
        for row in rows:
            if row.wrecked is not None:
                known.setdefault(name(row), {})[model] = row
    sentences = []
    for precision, by_model in known.items():
        wrecked = [f"{model} ({_loss(row)})" for model, row in by_model.items() if row.wrecked]
        spared = [model for model, row in by_model.items() if not row.wrecked]
        if wrecked and spared:
            sentences.append(f"{precision} wrecks {in_words(wrecked)}, and spares {in_words(spared)}")
    return sentences


def _wrecked(rows: Sequence[GridRow], name: Name) -> list[str]:
    known = [row for row in rows if row.wrecked is not None]
    wrecked = [row for row in known if row.wrecked]
    others = [row.score for row in known if not row.wrecked]
    if not wrecked:
        return []
    rest = ""
    drops = [score.drop for score in others if score is not None and score.drop is not None]
    shares = [score.agreement for score in others if score is not None and score.agreement is not None]
    if drops:
        lose = "loses" if len(drops) == 1 else "lose"
        most = f"at most {max(drops):.3f}" if max(drops) > 0 else "nothing"
        rest = f"; {_the_others(len(drops))} {lose} {most}"
    elif shares:
        rest = f"; {_the_others(len(shares))} for at least {min(shares):.1%}"
    return ["; ".join(f"{name(row)}: {_loss(row)}" for row in wrecked) + rest]


def _loss(row: GridRow) -> str:
    score = row.score
    assert score is not None
    if score.value is not None and score.reference is not None:
        return f"{score.name} {score.reference:.3f} -> {score.value:.3f}"
    return f"the reference's class for {score.agreement or 0.0:.1%} of the pictures"


def _idle_threads(rows: Sequence[GridRow], name: Name, cores: float | None) -> list[str]:
    """Rows that no number of threads makes faster."""
    gains = [(row, row.gains(cores)) for row in rows]
    known = [(row, found) for row, found in gains if found]
    idle = [(row, found) for row, found in known if max(found.values()) < LEAST_GAIN]
    others = [max(found.values()) for row, found in known if max(found.values()) >= LEAST_GAIN]
    if len(idle) > 1 and not others:
        gained = [gain for _, found in idle for gain in found.values()]
        return [f"no precision is faster with more threads than with 1 ({_gain_range(gained)})"]
    sentences = []
    for row, found in idle:
        slower = max(found.values()) < 1 / LEAST_GAIN
        figures = ", ".join(f"x{gain:.2f}" for gain in found.values())
        counts = in_words([str(count) for count in found]).replace(" and ", " or ")
        sentences.append(f"{name(row)}: {counts} threads are {'slower' if slower else 'no faster'} than 1 ({figures})")
    if idle and others:
        gain = "gains" if len(others) == 1 else "gain"
        sentences[-1] += f"; {_the_others(len(others))} {gain} {_gain_range(others)}"
    return sentences


def _enough_threads(rows: Sequence[GridRow], name: Name, cores: float | None) -> list[str]:
    """Rows that more threads make faster up to a number, and beyond it no more."""
    enough: dict[int, list[str]] = {}
    for row in rows:
        found = row.gains(cores)
        if not found or max(found.values()) < LEAST_GAIN:
            continue
        last = max(found)
        for count in sorted(found)[:-1]:
            more = [gain for other, gain in found.items() if other > count]
            if found[count] >= LEAST_GAIN and max(more) < LEAST_GAIN * found[count]:
                enough.setdefault(count, []).append(f"{name(row)} (x{found[count]:.2f}, with {last} x{found[last]:.2f})")
                break
    return [f"beyond {count} threads little is gained: {', '.join(names)}" for count, names in sorted(enough.items())]


def _gain_range(gains: Sequence[float]) -> str:
    low, high = f"x{min(gains):.2f}", f"x{max(gains):.2f}"
    return low if low == high else f"{low} to {high}"


def _the_others(count: int) -> str:
    return "the other one" if count == 1 else f"the other {_NUMBERS.get(count, str(count))}"
