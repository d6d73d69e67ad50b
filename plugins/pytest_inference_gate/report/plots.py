"""Small plots made of letters, for the messages of failing tests: what was measured, on one axis.

Every value is drawn as a mark, or counted in words where it lies too far off: an axis that reached to an outlier ten times as slow would
show nothing of the rest. A digit stands for so many marks in one place.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from statistics import median

from ..percentiles import percentile
from .figures import milliseconds

WIDTH = 76
NARROWEST = 40
LINES = 12
"""A plot of at least 60 columns has at most so many lines."""

_FAR = 5.0  # standard deviations, estimated by the median absolute deviation: what is further off is counted in words
_MAD_TO_STANDARD_DEVIATION = 1.4826
_SMALLEST_DEVIATION = 0.03  # of the centre: with five values that happen to agree, everything else would be far off
_NARROWEST_AXIS = 0.02  # of its upper end: less than that is blown up to nothing but noise
_COLUMNS_PER_TICK = 12


@dataclass(frozen=True)
class _Symbols:
    mark: str
    many: str
    limit: str
    unchanged: str
    box: tuple[str, str, str, str]  # left end, line, centre, right end
    axis: str
    tick: str
    beyond: tuple[str, str]  # to the left, to the right

    @property
    def all(self) -> str:
        return "".join([self.mark, self.many, self.limit, self.unchanged, *self.box, self.axis, self.tick, *self.beyond])


_UNICODE = _Symbols("•", "#", "┊", "│", ("┣", "━", "╋", "┫"), "─", "┬", ("◂", "▸"))
_ASCII = _Symbols("o", "#", ":", "|", ("[", "=", "X", "]"), "-", "+", ("<", ">"))


def can_show(encoding: str | None) -> bool:
    """Whether text in this encoding can hold the plots' own characters; else ``ascii_only`` is for it."""
    try:
        _UNICODE.all.encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def durations_plot(
    baseline_sessions: Sequence[Sequence[float]],
    candidate: Sequence[float],
    *,
    limit: float | None = None,
    names: tuple[str, str] = ("before", "after"),
    width: int = WIDTH,
    ascii_only: bool = False,
) -> list[str]:
    """Replicate medians of both sides (seconds, positive) over one axis in ms, with the quartiles and the median of each side.

    Each session of the baseline has a row of its own while there is room for it. ``limit`` (seconds) is where the threshold lies; what
    lies too far off to be drawn is counted in words, ``limit`` too. ``names`` are what the two sides are called. No value at all, no line.

    Lines have at most ``width`` characters; raises ValueError for less than 40.
    """
    symbols = _symbols(width, ascii_only)
    sessions = [list(session) for session in baseline_sessions if session]
    if not sessions or not candidate:
        return []
    pooled = [duration for session in sessions for duration in session]
    before, after = names
    longest_name = max(len(before) + 2, len(after), len("ms"))
    axis = _axis([pooled, candidate], [limit] if limit is not None else [], width - longest_name - 1)
    canvas = _Canvas(axis, symbols, longest_name, {} if limit is None else {limit: symbols.limit})

    def in_ms(duration: float) -> str:
        return f"{milliseconds(duration, 4)} ms"

    keys = [f"{symbols.box[2]} median, in quartiles"]
    if limit is not None:
        keys.insert(0, f"{symbols.limit} threshold {in_ms(limit)}{'' if axis.holds(limit) else ', off this axis'}")

    def lines_with(strips: Mapping[str, Sequence[float]], name_of_the_box: str) -> list[str]:
        return [
            *(canvas.strip(name, values) for name, values in strips.items()),
            canvas.box(name_of_the_box, pooled, median(median(session) for session in sessions)),
            canvas.strip(after, candidate),
            canvas.box("", candidate, median(candidate)),
            *canvas.axis_lines("ms", 1000.0),
            *canvas.explained(keys, [*strips.values(), candidate], {before: pooled, after: candidate}, in_ms),
        ]

    if len(sessions) > 1:
        lines = lines_with({f"{before} {number}": session for number, session in enumerate(sessions, start=1)}, before)
        if len(lines) <= LINES:
            return lines
    return lines_with({before: pooled}, "")


def ratios_plot(
    ratios: Sequence[float],
    *,
    limit: float | None = None,
    interval: tuple[float, float] | None = None,
    width: int = WIDTH,
    ascii_only: bool = False,
) -> list[str]:
    """Ratios of process pairs (positive, 1: as fast) on an axis with 1 and ``limit`` marked, and their centre in its ``interval``.

    Lines have at most ``width`` characters; raises ValueError for less than 40. No ratio, no line.
    """
    symbols = _symbols(width, ascii_only)
    if not ratios:
        return []
    guides = {1.0: symbols.unchanged}
    if limit is not None:
        guides[limit] = symbols.limit
    longest_name = len("interval")
    axis = _axis([ratios], list(guides), width - longest_name - 1)
    canvas = _Canvas(axis, symbols, longest_name, guides)
    centre = median(ratios)
    low, high = interval or (centre, centre)
    keys = [f"{symbols.unchanged} as fast", f"{symbols.box[2]} median{', in its 95 % interval' if interval else ''}"]
    if limit is not None:
        keys.insert(1, f"{symbols.limit} threshold {limit:.4g}{'' if axis.holds(limit) else ', off this axis'}")
    return [
        canvas.strip("pairs", ratios),
        canvas.bar("interval" if interval else "", low, centre, high),
        *canvas.axis_lines("ratio", 1.0),
        *canvas.explained(keys, [ratios], {"pairs": ratios}, lambda ratio: f"{ratio:.4g}"),
    ]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    columns: int

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def column(self, value: float) -> int:
        """The column of a value; one that lies outside has the nearest."""
        share = (value - self.low) / (self.high - self.low)
        return round(min(1.0, max(0.0, share)) * (self.columns - 1))


class _Canvas:
    """Rows over one axis, each with its name in front. ``guides`` are vertical lines: value and character."""

    def __init__(self, axis: _Axis, symbols: _Symbols, longest_name: int, guides: Mapping[float, str]) -> None:
        self._axis = axis
        self._symbols = symbols
        self._longest_name = longest_name
        self._guides = {axis.column(value): character for value, character in guides.items() if axis.holds(value)}

    def strip(self, name: str, values: Sequence[float]) -> str:
        return self._row(name, {column: self._mark(count) for column, count in self._counts(values).items()})

    def box(self, name: str, values: Sequence[float], centre: float) -> str:
        """From the lower to the upper quartile."""
        quartiles = percentile(values, 25), percentile(values, 75)
        return self.bar(name, min(centre, *quartiles), centre, max(centre, *quartiles))

    def bar(self, name: str, low: float, centre: float, high: float) -> str:
        left, line, middle, right = self._symbols.box
        start, end = self._axis.column(low), self._axis.column(high)
        cells = dict.fromkeys(range(start, end + 1), line)
        cells[start] = left if low >= self._axis.low else self._symbols.beyond[0]
        cells[end] = right if high <= self._axis.high else self._symbols.beyond[1]
        cells[self._axis.column(centre)] = middle
        return self._row(name, cells)

    def axis_lines(self, unit: str, factor: float) -> list[str]:
        """The axis, and below it what its ticks are; ``factor`` makes the unit of the values into ``unit``."""
        low, high, columns = self._axis.low * factor, self._axis.high * factor, self._axis.columns
        step = _round_step((high - low) / max(1, columns // _COLUMNS_PER_TICK))
        cells = dict.fromkeys(range(columns), self._symbols.axis)
        labels = ""
        for number in range(ceil(low / step), floor(high / step) + 1):
            column = self._axis.column(number * step / factor)
            label = _tick_label(number * step, step)
            start = min(max(0, column - len(label) // 2), columns - len(label))
            if (labels and start < len(labels) + 2) or start < 0:
                continue
            cells[column] = self._symbols.tick
            labels = labels.ljust(start) + label
        return [self._row("", cells), f"{unit:<{self._longest_name}} {labels}".rstrip()]

    def explained(
        self,
        keys: Sequence[str],
        strips: Sequence[Sequence[float]],
        sides: Mapping[str, Sequence[float]],
        in_words: Callable[[float], str],
    ) -> list[str]:
        """What the characters mean, and how many values of each side lie beyond the axis."""
        crowded = max((count for strip in strips for count in self._counts(strip).values()), default=0)
        if crowded > 1:
            keys = [*keys, "a digit: so many marks" + (f", {self._symbols.many}: ten or more" if crowded > 9 else "")]
        beyond = []
        for name, values in sides.items():
            above = [value for value in values if value > self._axis.high]
            below = [value for value in values if value < self._axis.low]
            if above:
                beyond.append(f"{name} {len(above)} above (up to {in_words(max(above))})")
            if below:
                beyond.append(f"{name} {len(below)} below (down to {in_words(min(below))})")
        width = self._longest_name + 1 + self._axis.columns
        lines = _wrapped("; ".join(keys), width)
        return lines + (_wrapped(f"not drawn: {', '.join(beyond)}", width) if beyond else [])

    def _counts(self, values: Sequence[float]) -> Counter[int]:
        return Counter(self._axis.column(value) for value in values if self._axis.holds(value))

    def _mark(self, count: int) -> str:
        if count == 1:
            return self._symbols.mark
        return str(count) if count < 10 else self._symbols.many

    def _row(self, name: str, cells: Mapping[int, str]) -> str:
        text = "".join(cells.get(column, self._guides.get(column, " ")) for column in range(self._axis.columns))
        return f"{name:<{self._longest_name}} {text}".rstrip()


def _symbols(width: int, ascii_only: bool) -> _Symbols:
    if width < NARROWEST:
        raise ValueError(f"a plot needs {NARROWEST} columns, not {width}")
    return _ASCII if ascii_only else _UNICODE


def _axis(groups: Sequence[Sequence[float]], extras: Sequence[float], columns: int) -> _Axis:
    """An axis for what is not too far from the centre of its group, and for those extras that do not squeeze the rest together."""
    shown = []
    for group in groups:
        centre = median(group)
        deviation = _MAD_TO_STANDARD_DEVIATION * median(abs(value - centre) for value in group)
        reach = _FAR * max(deviation, _SMALLEST_DEVIATION * centre)
        shown += [value for value in group if abs(value - centre) <= reach]
    low, high = min(shown), max(shown)
    span = max(high - low, 0.1 * high)
    near = [extra for extra in extras if low - 2 * span <= extra <= high + 2 * span]
    low, high = min([low, *near]), max([high, *near])
    missing = _NARROWEST_AXIS * high - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
    return _Axis(low, high, columns)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power: float = 10.0 ** floor(log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least), 10 * power)


def _tick_label(value: float, step: float) -> str:
    decimals = max(0, -floor(log10(step * 1.0000001)))
    text = f"{value:.{decimals}f}"
    return text if len(text) <= 9 else f"{value:.4g}"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
