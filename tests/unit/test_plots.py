"""The text plots: nothing is lost, nothing is wider than asked, and outliers do not squeeze the rest together."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import BASELINE, MEDIANS, PAIR_RATIOS

from pytest_inference_gate.report.plots import LINES, NARROWEST, WIDTH, can_show, durations_plot, ratios_plot

seconds = st.floats(1e-7, 1e3)
near_to_each_other = st.floats(0.01, 0.0101)
durations = st.one_of(seconds, near_to_each_other, st.sampled_from([0.01, 0.1, 0.011]))
some_durations = st.lists(durations, min_size=1, max_size=12)
sessions_of_durations = st.lists(some_durations, min_size=1, max_size=6)
ratios = st.one_of(st.floats(1e-3, 1e3), st.floats(0.95, 1.05), st.just(1.0))
widths = st.integers(NARROWEST, 120)

BOX = set("[=X]<>") | set("┣━╋┫◂▸")
AXIS = set("-+") | set("─┬")


def parts(lines: list[str]) -> tuple[list[str], list[str], str]:
    """The rows of marks, the rows of boxes, and what is said below the axis in one piece; names of the rows left out."""
    (axis,) = [number for number, line in enumerate(lines) if len(line.strip()) > 20 and set(line.strip()) <= AXIS]
    start = len(lines[axis]) - len(lines[axis].lstrip())
    rows = [line[start:] for line in lines[:axis]]
    strips = [row for row in rows if not set(row) & BOX]
    return strips, [row for row in rows if set(row) & BOX], " ".join(lines[axis + 2 :])


def marks(strips: list[str]) -> int:
    """How many values the rows show, at the least."""
    text = "".join(strips)
    return sum(text.count(mark) for mark in "o•") + sum(map(int, re.findall(r"\d", text))) + 10 * text.count("#")


def counted(words: str) -> int:
    return sum(int(number) for number in re.findall(r"\w+ (\d+) (?:above|below) \(", words))


def check(lines: list[str], number: int, width: int, *, ascii_only: bool) -> None:
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    if width >= 60:
        assert len(lines) <= LINES
    if ascii_only:
        assert "\n".join(lines).isascii()
    strips, boxes, words = parts(lines)
    shown = marks(strips) + counted(words)
    assert shown <= number if "#" in "".join(strips) else shown == number
    assert ("not drawn" in words) == bool(counted(words))
    assert boxes


class TestDurations:
    @given(sessions_of_durations, some_durations, st.one_of(st.none(), seconds), widths, st.booleans())
    def test_every_value_is_drawn_or_counted(
        self, sessions: list[list[float]], candidate: list[float], limit: float | None, width: int, ascii_only: bool
    ) -> None:
        lines = durations_plot(sessions, candidate, limit=limit, width=width, ascii_only=ascii_only)
        check(lines, sum(map(len, sessions)) + len(candidate), width, ascii_only=ascii_only)

    @given(st.integers(1, 50), st.integers(1, 8), durations, widths)
    def test_equal_values(self, sessions: int, each: int, duration: float, width: int) -> None:
        check(
            durations_plot([[duration] * each] * sessions, [duration], width=width), sessions * each + 1, width, ascii_only=False
        )

    def test_what_it_looks_like(self) -> None:
        candidate = [1.083 * duration for duration in MEDIANS]
        assert durations_plot(BASELINE, candidate, limit=0.01199) == [
            "before 1 ••• •    •                           ┊",
            "before 2  ••• •    •                          ┊",
            "before    ┣╋━━┫                               ┊",
            "after                                         ┊                    ••• •   •",
            "                                              ┊                     ┣╋━┫",
            "         ───────┬──────────────────────────────┬────────────────────────────",
            "ms            11.5                           12.0",
            "┊ threshold 11.99 ms; ╋ median, in quartiles",
        ]

    def test_an_outlier_ten_times_as_slow_is_counted_and_leaves_the_rest_readable(self) -> None:
        usual = durations_plot(BASELINE, MEDIANS, limit=0.012)
        with_outliers = durations_plot([[*BASELINE[0], 0.1142], BASELINE[1]], [*MEDIANS, 0.00114], limit=0.012)
        assert "not drawn: before 1 above (up to 114.2 ms), after 1 below (down to 1.140 ms)" in with_outliers[-1]
        labels = [line for line in usual if line.startswith("ms")]
        assert labels
        assert [line for line in with_outliers if line.startswith("ms")] == labels

    def test_sides_that_are_far_apart_are_both_drawn(self) -> None:
        strips, _, words = parts(durations_plot([[0.01, 0.0101, 0.0099]], [0.25, 0.251, 0.249]))
        assert marks(strips) == 6
        assert "not drawn" not in words

    def test_many_sessions_share_a_row(self) -> None:
        lines = durations_plot([BASELINE[0]] * 50, MEDIANS, limit=0.012)
        assert len([line for line in lines if line.startswith("before")]) == 1
        few = durations_plot(BASELINE, MEDIANS, limit=0.012)
        assert [line.split(" ")[1] for line in few if line.startswith("before ")][:2] == ["1", "2"]

    def test_a_threshold_far_off_is_told_in_words_only(self) -> None:
        lines = durations_plot(BASELINE, MEDIANS, limit=0.5)
        assert any("threshold 500.0 ms, off this axis" in line for line in lines)
        assert "┊" not in "".join(parts(lines)[0])
        assert "┊" in "".join(parts(durations_plot(BASELINE, MEDIANS, limit=0.012))[0])

    def test_a_slow_side_lies_to_the_right(self) -> None:
        strips, boxes, _ = parts(durations_plot([BASELINE[0]], [1.1 * duration for duration in MEDIANS], ascii_only=True))
        assert strips[0].rindex("o") < strips[1].index("o")
        assert boxes[0].index("X") < boxes[1].index("X")

    def test_nothing_to_show(self) -> None:
        assert durations_plot([], MEDIANS) == durations_plot(BASELINE, []) == ratios_plot([]) == []

    def test_too_narrow(self) -> None:
        with pytest.raises(ValueError, match="needs 40 columns, not 39"):
            durations_plot(BASELINE, MEDIANS, width=NARROWEST - 1)


class TestRatios:
    @given(
        st.lists(ratios, min_size=1, max_size=60),
        st.one_of(st.none(), ratios),
        st.one_of(st.none(), st.tuples(ratios, ratios)),
        widths,
        st.booleans(),
    )
    def test_every_ratio_is_drawn_or_counted(
        self, values: list[float], limit: float | None, ends: tuple[float, float] | None, width: int, ascii_only: bool
    ) -> None:
        interval = None if ends is None else (min(*ends), max(*ends))
        lines = ratios_plot(values, limit=limit, interval=interval, width=width, ascii_only=ascii_only)
        check(lines, len(values), width, ascii_only=ascii_only)

    def test_one_and_the_limit_are_marked(self) -> None:
        lines = ratios_plot(PAIR_RATIOS, limit=1.03, interval=(0.996, 1.004), width=WIDTH, ascii_only=True)
        strips, (bar,), words = parts(lines)
        assert "".join(strips).count(":") == 1
        assert strips[0].index(":") > strips[0].rindex("o")
        assert re.search(r"\[=*X=*\]", bar)
        assert words.startswith("| as fast; : threshold 1.03; X median, in its 95 % interval")

    def test_an_interval_that_reaches_beyond_the_axis_has_an_arrow(self) -> None:
        (bar,) = parts(ratios_plot([1.0, 1.01, 0.99], interval=(0.1, 10.0), ascii_only=True))[1]
        assert bar.startswith("<")
        assert bar.endswith(">")
        assert len(bar) == WIDTH - len("interval ")


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False), ("no such thing", False)]
)
def test_which_terminals_can_show_the_plots_own_characters(encoding: str | None, expected: bool) -> None:
    assert can_show(encoding) is expected
