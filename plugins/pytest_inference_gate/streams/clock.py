"""What becomes of frames in real time: pure functions, durations and times in seconds.

A camera does not wait. A frame that arrives while another one is being worked on waits for it in a queue of one place, and the
next frame that arrives takes that place: the latest wins, and what lost its place is dropped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median

from ..rank_tests import rank_sum_p_value


@dataclass(frozen=True)
class Playback:
    """``taken`` are the numbers of the frames that were worked on; ``ages`` how old each was when its result was there."""

    taken: tuple[int, ...]
    ages: tuple[float, ...]
    offered: int

    @property
    def dropped(self) -> int:
        return self.offered - len(self.taken)


def play(arrivals: Sequence[float], before: Sequence[float], model: Sequence[float], *, overlapped: bool) -> Playback:
    """Let frames come at ``arrivals`` (ascending) and be worked on for as long as was measured of each.

    ``before`` is what each takes until it is ready for the model, ``model`` from there to its result. Where both are
    ``overlapped``, the next frame is made ready beside the model, and waits ready: there are two places for prepared frames, one
    of them the model's.

    Raises ValueError where the lengths differ or times go back.
    """
    if not len(arrivals) == len(before) == len(model):
        raise ValueError("each frame needs its arrival and both of its durations")
    if any(after < earlier for earlier, after in pairwise(arrivals)):
        raise ValueError("frames arrive in the order of their times")
    taken: list[int] = []
    ages: list[float] = []
    ready_at = done_at = done_before = -inf  # the last frame made ready; the last result; the result before that
    number = 0
    while number < len(arrivals):
        # Without overlap there is one pair of hands; with it, a place has to be free.
        free = max(ready_at, done_before) if overlapped else done_at
        number = max(number, bisect_right(arrivals, free) - 1)
        start = max(free, arrivals[number])
        ready_at = start + before[number]
        done_before, done_at = done_at, max(ready_at, done_at) + model[number]
        taken.append(number)
        ages.append(done_at - arrivals[number])
        number += 1
    return Playback(tuple(taken), tuple(ages), len(arrivals))


@dataclass(frozen=True)
class Window:
    """Frame times of a piece of a long run: ``start`` since its beginning, how many frames were done in it, their median."""

    start: float
    frames: int
    median: float


@dataclass(frozen=True)
class Drift:
    """The end of a long run against its beginning: medians of frame times, last / first, and how likely such a difference is by
    chance (two-sided; None where a side has fewer than two windows). ``side`` is how many seconds of either end were looked
    at."""

    side: float
    first_median: float
    last_median: float
    p_value: float | None

    @property
    def ratio(self) -> float:
        return self.last_median / self.first_median


def drift(windows: Sequence[Window], side: float, seconds: float) -> Drift:
    """Compare the first ``side`` seconds of a run of ``seconds`` with the last, window by window.

    The unit is the window and its value the median of its frames, so that single hiccups have no say; the test is the exact rank-sum test.
    Where no frame was done at an end, for a slow model or a machine that was held up, the window nearest to it counts. Raises ValueError
    where there are fewer than two windows, which are no beginning and no end.
    """
    if len(windows) < 2:
        raise ValueError("a run needs frames in two windows to have a drift")
    first = [window.median for window in windows if window.start < side - 1e-9] or [windows[0].median]
    last = [window.median for window in windows if window.start >= seconds - side - 1e-9] or [windows[-1].median]
    p_value = None
    if min(len(first), len(last)) > 1:
        p_value = min(1.0, 2 * min(rank_sum_p_value(last, first), rank_sum_p_value(first, last)))
    return Drift(side, median(first), median(last), p_value)
