"""Warm-up and measured rounds: the only place where time is taken.

A round is one call of what ``Runner.prepared()`` gives. The measured loop holds two readings of the clock, the call and one store, so that
what it finds is what a bare loop around the runtime's own call would find.

Where rounds go through several pictures in turn (``PictureCycle``), the next one is put in place between the rounds: before the first
reading of the clock, so that a round holds nothing more. Round k is then about the picture k modulo their number.
"""

import gc
import sys
import time
from collections import namedtuple
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from .picture_cycle import PictureCycle  # noqa: F401

MAXIMUM_DEVICE_ROUNDS = 100

Clock = namedtuple("Clock", ["read", "unit", "name"])  # read() counts in units of ``unit`` seconds


def best_clock():
    # type: () -> Clock
    nanoseconds = getattr(time, "perf_counter_ns", None)  # Python 3.7 and later
    if nanoseconds is not None:
        return Clock(nanoseconds, 1e-9, "perf_counter_ns")
    return Clock(time.perf_counter, 1.0, "perf_counter")


def median(values):
    # type: (List[float]) -> float
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


def whole_cycles(rounds, pictures):
    # type: (int, int) -> int
    """The least number of rounds, ``rounds`` or more, in which each picture has its turn equally often."""
    return -(-rounds // pictures) * pictures


def warm_up(call, rule, clock, cycle=None):
    # type: (Callable[[], Any], Dict[str, Any], Clock, Optional[PictureCycle]) -> Tuple[int, float, bool]
    """Run until steady; returns rounds, seconds, and whether it became steady.

    Steady means that the medians of the last two windows of ``rule["window"]`` rounds (whole cycles of pictures) differ by no more than
    ``rule["agreement"]`` of the smaller. That ends the warm-up once ``minimum_rounds`` and ``minimum_seconds`` are over;
    ``maximum_seconds`` ends it in any case, after the round in which it passes.
    """
    window = max(1, int(rule["window"]))
    if cycle is not None:
        window = whole_cycles(window, cycle.pictures)
    durations = []  # type: List[float]
    total = 0.0
    maximum = rule["maximum_seconds"] / clock.unit
    read = clock.read
    while total < maximum:
        if cycle is not None:
            call = cycle.turn(len(durations))
        start = read()
        call()
        durations.append(read() - start)
        total += durations[-1]
        if len(durations) % window or len(durations) < 2 * window:
            continue
        before, last = median(durations[-2 * window : -window]), median(durations[-window:])
        agree = abs(last - before) <= rule["agreement"] * min(last, before)
        if agree and len(durations) >= rule["minimum_rounds"] and total * clock.unit >= rule["minimum_seconds"]:
            return len(durations), total * clock.unit, True
    return len(durations), total * clock.unit, False


def _block(call, count, read):
    # type: (Callable[[], Any], int, Callable[[], float]) -> List[float]
    durations = [0] * count  # type: List[float]
    for index in range(count):
        start = read()
        call()
        durations[index] = read() - start
    return durations


def _turns(cycle, first, count, read):
    # type: (PictureCycle, int, int, Callable[[], float]) -> List[float]
    """:func:`_block` on the pictures from ``first`` on, each put in place before its round begins."""
    turn = cycle.turn
    durations = [0] * count  # type: List[float]
    for index in range(count):
        call = turn(first + index)
        start = read()
        call()
        durations[index] = read() - start
    return durations


def measured_rounds(call, rule, clock, cycle=None):
    # type: (Callable[[], Any], Dict[str, Any], Clock, Optional[PictureCycle]) -> List[float]
    """Durations in seconds of at least ``minimum`` rounds that take ``minimum_seconds`` together, and of at most ``maximum`` rounds.

    With a ``cycle``, of whole cycles alone: as many as ``minimum`` takes, and one at least.
    """
    maximum = max(1, int(rule["maximum"]))
    minimum = max(1, min(int(rule["minimum"]), maximum))
    if cycle is not None:
        return _measured_cycles(cycle, minimum, maximum, rule["minimum_seconds"], clock)
    durations = _block(call, minimum, clock.read)
    while len(durations) < maximum:
        seconds = sum(durations) * clock.unit
        missing = rule["minimum_seconds"] - seconds
        if missing <= 0:
            break
        wanted = int(missing / seconds * len(durations)) + 1 if seconds > 0 else len(durations)
        durations += _block(call, min(wanted, maximum - len(durations)), clock.read)
    return [duration * clock.unit for duration in durations]


def _measured_cycles(cycle, minimum, maximum, minimum_seconds, clock):
    # type: (PictureCycle, int, int, float, Clock) -> List[float]
    pictures = cycle.pictures
    most = max(maximum // pictures * pictures, whole_cycles(minimum, pictures))
    durations = _turns(cycle, 0, whole_cycles(minimum, pictures), clock.read)
    while len(durations) < most:
        seconds = sum(durations) * clock.unit
        missing = minimum_seconds - seconds
        if missing <= 0:
            break
        wanted = int(missing / seconds * len(durations)) + 1 if seconds > 0 else len(durations)
        durations += _turns(cycle, len(durations), min(whole_cycles(wanted, pictures), most - len(durations)), clock.read)
    return [duration * clock.unit for duration in durations]


def peak_rss_bytes():
    # type: () -> Optional[int]
    """The most memory that this process ever held. ``getrusage`` would also count what its parent held when it forked."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_block(call, rounds, cycle=None, picture=0):
    # type: (Optional[Callable[[], Any]], int, Optional[PictureCycle], int) -> List[float]
    """Durations in seconds of exactly so many rounds, without warm-up; with a ``cycle``, instead of ``call``, from ``picture`` on."""
    clock = best_clock()
    was_enabled = gc.isenabled()
    gc.disable()  # no collection before it either: a collection takes longer than the block of a small model
    try:
        if cycle is not None:
            durations = _turns(cycle, picture, max(1, rounds), clock.read)
        else:
            assert call is not None
            durations = _block(call, max(1, rounds), clock.read)
        return [duration * clock.unit for duration in durations]
    finally:
        if was_enabled:
            gc.enable()


def run_until(call, end):
    # type: (Callable[[], Any], float) -> int
    """How often ``call`` was done before time.monotonic() passed ``end``; none is timed."""
    count = 0
    while time.monotonic() < end:
        call()
        count += 1
    return count


def device_rounds(call, count, cycle=None):
    # type: (Callable[[], float], int, Optional[PictureCycle]) -> List[float]
    """Rounds by the accelerator's own clock: ``call`` does one inference and returns its seconds by that clock.

    They tell how much of a round is the accelerator's work, and are not what is gated. With a ``cycle`` they go through the pictures too.
    """
    wanted = min(count, MAXIMUM_DEVICE_ROUNDS)
    if cycle is None:
        return [call() for _ in range(wanted)]
    wanted = max(wanted // cycle.pictures, 1) * cycle.pictures
    return [cycle.turn_on_device(number)() for number in range(min(wanted, count))]


def measure(call, warmup, rounds, first, cycle=None):
    # type: (Callable[[], Any], Optional[Dict[str, Any]], Dict[str, Any], bool, Optional[PictureCycle]) -> Dict[str, Any]
    """Warm up and measure ``call``; ``first`` says that it has not run in this process yet. ``warmup`` None: no warm-up.

    ``call`` is on the first picture; with a ``cycle`` that alone makes the first inference, and all else goes through the pictures in turn.
    """
    clock = best_clock()
    first_inference = None
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        if first:
            first_inference = _block(call, 1, clock.read)[0] * clock.unit
        warmup_rounds, warmup_seconds, steady = warm_up(call, warmup, clock, cycle) if warmup else (0, 0.0, False)
        begun = time.monotonic()
        durations = measured_rounds(call, rounds, clock, cycle)
        ended = time.monotonic()
    finally:
        if was_enabled:
            gc.enable()
    return {
        "first_inference": first_inference,
        "warmup_rounds": warmup_rounds,
        "warmup_seconds": warmup_seconds,
        "steady": steady,
        "rounds": durations,
        "pictures": 1 if cycle is None else cycle.pictures,
        "begun": begun,  # of the measured rounds, by time.monotonic, which processes share
        "ended": ended,
        "clock": clock.name,
        "peak_rss_bytes": peak_rss_bytes(),
    }
