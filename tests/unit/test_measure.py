"""The warm-up rule and the measured rounds, with a clock that the test turns."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import measure
from pytest_inference_gate.agent.measure import Clock, measured_rounds, warm_up

RULE = {"minimum_rounds": 10, "minimum_seconds": 0.3, "maximum_seconds": 5.0, "window": 10, "agreement": 0.01}


class Device:
    """Something whose calls take the given milliseconds, on its own clock in nanoseconds."""

    def __init__(self, milliseconds: Iterator[float]) -> None:
        self.now = 0
        self.calls = 0
        self._milliseconds = milliseconds
        self.clock = Clock(lambda: self.now, 1e-9, "fake")

    def __call__(self) -> None:
        self.calls += 1
        self.now += round(next(self._milliseconds) * 1e6)


def steady(milliseconds: float) -> Device:
    return Device(itertools.repeat(milliseconds))


def test_a_steady_device_warms_up_for_the_minimum_time() -> None:
    device = steady(10)
    rounds, seconds, is_steady = warm_up(device, RULE, device.clock)
    assert (rounds, is_steady) == (30, True)
    assert seconds == pytest.approx(0.3)
    assert device.calls == rounds


def test_a_slow_device_needs_two_windows_to_be_called_steady() -> None:
    device = steady(100)
    assert warm_up(device, RULE, device.clock)[0] == 20


def test_the_minimum_of_rounds_counts() -> None:
    device = steady(100)
    assert warm_up(device, {**RULE, "minimum_rounds": 35}, device.clock)[0] == 40


def test_warming_up_lasts_as_long_as_the_windows_differ() -> None:
    falling = [20.0] * 10 + [15.0] * 10 + [12.0] * 10 + [10.2] * 10 + [10.0] * 10 + [9.95] * 10
    device = Device(iter(falling + [9.95] * 1000))
    rounds, _, is_steady = warm_up(device, RULE, device.clock)
    assert (rounds, is_steady) == (60, True)


def test_an_outlier_does_not_keep_a_device_from_being_steady() -> None:
    device = Device(itertools.cycle([10.0] * 9 + [90.0]))
    assert warm_up(device, RULE, device.clock)[::2] == (20, True)


def test_a_device_that_never_settles_is_stopped_and_told() -> None:
    device = Device(1.0 + number // 10 for number in itertools.count())
    rounds, seconds, is_steady = warm_up(device, RULE, device.clock)
    assert not is_steady
    assert 5.0 <= seconds < 5.2
    assert device.calls == rounds


def test_a_very_slow_device_is_stopped_inside_a_window() -> None:
    device = steady(3000)
    assert warm_up(device, RULE, device.clock)[::2] == (2, False)


@given(st.lists(st.floats(0.01, 2000), min_size=1, max_size=50), st.integers(1, 20), st.floats(0, 0.5))
def test_warming_up_keeps_its_limits(pattern: list[float], window: int, agreement: float) -> None:
    device = Device(itertools.cycle(pattern))
    rule = {"minimum_rounds": 5, "minimum_seconds": 0.01, "maximum_seconds": 0.2, "window": window, "agreement": agreement}
    rounds, seconds, is_steady = warm_up(device, rule, device.clock)
    assert rounds == device.calls >= 1
    assert seconds == pytest.approx(device.now * 1e-9)
    assert seconds - 2.0 < 0.2
    if is_steady:
        assert rounds >= max(5, 2 * window)
        assert seconds >= 0.01
    else:
        assert seconds >= 0.2


def test_rounds_are_what_each_call_took() -> None:
    device = Device(itertools.cycle([1.0, 2.0, 3.0]))
    rounds = measured_rounds(device, {"minimum": 6, "minimum_seconds": 0.0, "maximum": 100}, device.clock)
    assert rounds == pytest.approx([0.001, 0.002, 0.003] * 2)


def test_fast_rounds_are_repeated_until_they_fill_the_minimum_time() -> None:
    device = steady(1)
    assert 200 <= len(measured_rounds(device, {"minimum": 50, "minimum_seconds": 0.2, "maximum": 2000}, device.clock)) <= 202


def test_there_are_never_more_rounds_than_the_maximum() -> None:
    device = steady(0.001)
    assert (
        len(measured_rounds(device, {"minimum": 50, "minimum_seconds": 0.2, "maximum": 300}, device.clock)) == 300 == device.calls
    )


def test_a_clock_too_coarse_to_see_a_round_does_not_hang() -> None:
    device = steady(0)
    assert measured_rounds(device, {"minimum": 50, "minimum_seconds": 0.2, "maximum": 120}, device.clock) == [0.0] * 120


def test_garbage_is_not_collected_while_time_is_taken() -> None:
    seen = []
    result = measure.measure(lambda: seen.append(gc.isenabled()), None, {"minimum": 3, "minimum_seconds": 0, "maximum": 3}, True)
    assert seen == [False] * 4
    assert gc.isenabled()
    assert len(result["rounds"]) == 3


def test_garbage_collection_is_on_again_after_an_error() -> None:
    def fail() -> None:
        raise OSError("the device is gone")

    with pytest.raises(OSError, match="gone"):
        measure.measure(fail, RULE, {"minimum": 3, "minimum_seconds": 0, "maximum": 3}, False)
    assert gc.isenabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_block_is_exactly_so_many_rounds_undisturbed_by_garbage(monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    device = Device(itertools.cycle([1.0, 2.0, 3.0]))
    monkeypatch.setattr(measure, "best_clock", lambda: device.clock)
    seen = []

    def call() -> None:
        seen.append(gc.isenabled())
        device()

    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        assert measure.measure_block(call, 5) == pytest.approx([0.001, 0.002, 0.003, 0.001, 0.002])
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
    assert seen == [False] * 5


def test_a_block_that_fails_leaves_garbage_collection_on() -> None:
    with pytest.raises(ZeroDivisionError):
        measure.measure_block(lambda: 1 // 0, 3)
    assert gc.isenabled()


def test_the_first_inference_is_told_only_where_it_is_the_first() -> None:
    rule = {"minimum": 1, "minimum_seconds": 0, "maximum": 1}
    assert measure.measure(lambda: None, None, rule, True)["first_inference"] >= 0
    assert measure.measure(lambda: None, None, rule, False)["first_inference"] is None


def test_without_a_clock_in_nanoseconds_the_one_of_python_3_6_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure.best_clock().name == "perf_counter_ns"
    monkeypatch.delattr(time, "perf_counter_ns")
    clock = measure.best_clock()
    assert (clock.name, clock.unit) == ("perf_counter", 1.0)
    assert len(measured_rounds(lambda: None, {"minimum": 5, "minimum_seconds": 0, "maximum": 5}, clock)) == 5


def test_the_peak_of_memory_is_that_of_this_process() -> None:
    import psutil

    peak = measure.peak_rss_bytes()
    assert peak is not None
    assert peak >= psutil.Process().memory_info().rss * 0.9


def test_rounds_by_the_devices_own_clock_are_a_sample() -> None:
    assert measure.device_rounds(lambda: 0.25, 5) == [0.25] * 5
    assert len(measure.device_rounds(lambda: 0.25, 300)) == measure.MAXIMUM_DEVICE_ROUNDS
