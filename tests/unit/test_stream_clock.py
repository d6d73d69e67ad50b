"""What becomes of frames in real time, and of frame times over a long run: cases worked out by hand, and what must always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.streams.clock import Window, drift, play

EVERY = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_pipeline_that_is_fast_enough_drops_nothing() -> None:
    played = play(EVERY, [0.3] * 6, [0.5] * 6, overlapped=False)
    assert played.taken == (0, 1, 2, 3, 4, 5)
    assert played.dropped == 0
    assert played.ages == pytest.approx([0.8] * 6)


def test_a_frame_that_waits_is_replaced_by_the_next_one() -> None:
    # Frame 0 is done at 2.5: 1 and 2 have come meanwhile, and the latest wins. It is done at 5.0, when 5 has just come.
    played = play(EVERY, [0.5] * 6, [2.0] * 6, overlapped=False)
    assert played.taken == (0, 2, 5)
    assert played.dropped == 3
    assert played.ages == pytest.approx([2.5, 3.0, 2.5])


def test_overlap_takes_frames_as_often_as_the_slower_half_allows() -> None:
    # One after the other takes 1.6 s a frame, beside each other 1 s: as often as they come.
    assert play(EVERY, [0.6] * 6, [1.0] * 6, overlapped=False).dropped == 1
    played = play(EVERY, [0.6] * 6, [1.0] * 6, overlapped=True)
    assert played.dropped == 0
    assert played.ages == pytest.approx([1.6] * 6)


def test_with_overlap_a_prepared_frame_gets_old_while_it_waits_for_the_model() -> None:
    # There are two places: while the model has one frame, one more lies ready, and the next is taken when the model is done with the first.
    played = play([0.0, 1.0, 2.0, 3.0], [0.1] * 4, [2.0] * 4, overlapped=True)
    assert played.taken == (0, 1, 2, 3)
    assert played.ages == pytest.approx([2.1, 3.1, 4.1, 5.1])


def test_one_slow_frame_costs_those_that_came_meanwhile() -> None:
    played = play(EVERY, [0.1] * 6, [0.1, 0.1, 2.5, 0.1, 0.1, 0.1], overlapped=False)
    assert played.taken == (0, 1, 2, 4, 5)


@pytest.mark.parametrize(("before", "arrivals"), [([0.1], [0.0, 1.0]), ([0.1, 0.1], [1.0, 0.0])])
def test_what_does_not_fit_is_refused(before: list[float], arrivals: list[float]) -> None:
    with pytest.raises(ValueError, match="frame"):
        play(arrivals, before, [0.1] * len(arrivals), overlapped=False)


DURATIONS = st.floats(0.001, 3.0)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), DURATIONS, DURATIONS), min_size=1, max_size=40), st.booleans())
def test_no_result_is_there_before_its_work_is_done(frames: list[tuple[float, float, float]], overlapped: bool) -> None:
    arrivals, now = [], 0.0
    for gap, _, _ in frames:
        now += gap
        arrivals.append(now)
    before, model = [one for _, one, _ in frames], [one for _, _, one in frames]
    played = play(arrivals, before, model, overlapped=overlapped)
    assert played.taken[0] in range(len(frames)) and list(played.taken) == sorted(set(played.taken))
    assert played.dropped + len(played.taken) == len(frames)
    for number, age in zip(played.taken, played.ages, strict=True):
        assert age >= before[number] + model[number] - 1e-9
    done = [arrivals[number] + age for number, age in zip(played.taken, played.ages, strict=True)]
    assert done == sorted(done)
    # The model has one frame at a time.
    for earlier, later, number in zip(done, done[1:], played.taken[1:], strict=False):
        assert later >= earlier + model[number] - 1e-9


def windows(*medians: float, width: float = 1.0) -> list[Window]:
    return [Window(width * number, 10, value) for number, value in enumerate(medians)]


def test_a_run_that_gets_slower_shows_it() -> None:
    found = drift(windows(*[0.010] * 20, *[0.011] * 60, *[0.014] * 20), 20.0, 100.0)
    assert found.ratio == pytest.approx(1.4)
    assert found.p_value is not None and found.p_value < 1e-6


def test_a_hiccup_does_not() -> None:
    found = drift(windows(*[0.010, 0.0101] * 10, *[0.010] * 60, *[0.0101, 0.010] * 9, 0.5, 0.010), 20.0, 100.0)
    assert found.ratio == pytest.approx(1.0, abs=0.01)
    assert found.p_value is not None and found.p_value > 0.3


def test_two_windows_make_no_test() -> None:
    assert drift(windows(0.010, 0.020), 1.0, 2.0).p_value is None


def test_where_no_frame_came_at_an_end_the_nearest_ones_tell() -> None:
    """A slow model, or a machine that was held up for a fifth of a short run."""
    assert drift(windows(0.010, 0.020), 1.0, 100.0).ratio == pytest.approx(2.0)


@pytest.mark.parametrize("found", [[], [Window(7.0, 3, 0.5)]], ids=["none", "one"])
def test_a_beginning_alone_has_no_drift(found: list[Window]) -> None:
    with pytest.raises(ValueError, match="two windows"):
        drift(found, 1.0, 100.0)


@pytest.mark.parametrize("beyond", [0.0, 0.03, 0.99])
def test_the_end_of_a_long_run_at_one_rate_has_that_rate(beyond: float) -> None:
    from pytest_inference_gate.streams.results import StreamRecord, _sustained

    begins = range(101)
    found = [Window(float(start), 30 if start < 100 else round(30 * beyond), 0.01) for start in begins]
    found = [window for window in found if window.frames]
    frames = sum(window.frames for window in found)
    record = StreamRecord({}, (), (), (), (), frames, frames, 100 + beyond, windows=tuple(found), side=20.0, elapsed=100 + beyond)
    assert _sustained(record).last_frames_per_second == pytest.approx(30, rel=0.005)


def test_a_share_of_whole_frames_has_no_dust() -> None:
    from pytest_inference_gate.streams.results import StreamRecord, _sustained

    found = (Window(0.0, 350, 0.01), Window(90.0, 350, 0.01))
    record = StreamRecord({}, (), (), (), (), 700, 1000, 100.0, windows=found, side=20.0, elapsed=100.0)
    assert _sustained(record).dropped_share == 0.3
