"""What a run's summary says of the baseline that it was compared with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.baseline_depth import baseline_depth_lines
from pytest_inference_gate.baselines import BaselineCase, BaselineSession

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def session(
    name: str = "jp62", days: float = 1, *, number: int = 1, replicates: int = 5, ids: tuple[str, ...] = ("a",)
) -> BaselineSession:
    cases = {case_id: BaselineCase(case_id, (0.001,) * replicates, {}) for case_id in ids}
    taken = (NOW - timedelta(days=days)).isoformat()
    return BaselineSession(Path(f"{number:04}_{name}.json"), name, taken, "device", {}, cases, {})


def lines(*sessions: BaselineSession, tolerance: float | dict[str, float] = 0.05, **smallest: float | None) -> list[str]:
    return baseline_depth_lines(sessions, NOW, tolerance=tolerance, minimum_detectable=smallest)


def test_nothing_is_said_where_nothing_was_compared() -> None:
    assert lines() == []


def test_a_deep_baseline_has_one_sentence() -> None:
    sessions = [session("jp62-quiet", 14), session("jp62-2", 5), session("jp62-3", 2)]
    assert lines(*sessions, a=0.05) == ["compared with 3 sessions (jp62-quiet, jp62-2, jp62-3), 2 to 14 days old"]


def test_many_sessions_are_named_by_the_first_and_the_last_and_by_number_where_names_repeat() -> None:
    sessions = [session("nightly", 10 - number, number=number) for number in range(1, 6)]
    assert lines(*sessions, a=0.05) == ["compared with 5 sessions (0001_nightly ... 0005_nightly), 5 to 9 days old"]


def test_ages_in_different_units_keep_both() -> None:
    assert "1 hour to 14 days old" in lines(session("x", 14), session("y", 1 / 24), session("z", 3))[0]


def test_a_session_of_unknown_age_is_counted() -> None:
    odd = BaselineSession(Path("0002_odd.json"), "odd", "?", "device", {}, {}, {})
    assert lines(session("x", 3), odd)[0].endswith("3 days old (1 of unknown age)")
    assert lines(odd)[0].endswith("of unknown age")


def test_a_session_from_the_future_is_said_so() -> None:
    first, second = lines(session("x", 3), session("later", -2), session("z", 1))
    assert "less than a minute to 3 days old" in first
    assert second.startswith("later is from the future (by up to 2 days): ")


def test_a_thin_baseline_says_what_it_can_see() -> None:
    assert lines(session(), a=0.12)[1:] == [
        "thin: with 1 session of 5 replicates only slow-downs of about 12% can be seen; record more with --benchmark-save"
    ]


def test_a_thin_baseline_that_sees_nothing() -> None:
    (line,) = lines(session(replicates=1), a=None)[1:]
    assert line == "thin: with 1 session of 1 replicate no slow-down at all can be seen; record more with --benchmark-save"


def test_cases_are_counted_where_only_some_are_weak() -> None:
    (line,) = lines(session(ids=("a", "b", "c")), a=0.05, b=0.2, c=0.1)[1:]
    assert "slow-downs of about 10% to 20% can be seen in 2 of 3 cases;" in line
    (line,) = lines(session(ids=("a", "b")), a=None, b=0.2)[1:]
    assert "20% can be seen, and none at all in 1 of 2;" in line


def test_each_case_has_its_own_tolerance() -> None:
    sessions = session(ids=("a", "b"))
    assert lines(sessions, tolerance={"a": 0.3, "b": 0.05}, a=0.2, b=0.05)[1:] == []
    assert "1 of 2 cases" in lines(sessions, tolerance={"a": 0.05, "b": 0.3}, a=0.2, b=0.2)[1]


def test_with_enough_sessions_it_is_the_machine_that_is_unsteady() -> None:
    (line,) = lines(session("x"), session("y"), session("z", replicates=10), a=0.3)[1:]
    assert line.startswith("unsteady: with 3 sessions of 5 to 10 replicates ")
    assert "quieten the machine" in line


@given(
    st.lists(st.tuples(st.floats(-1000, 5000), st.integers(1, 9)), max_size=6),
    st.dictionaries(st.sampled_from("abc"), st.none() | st.floats(0.001, 100) | st.just(float("inf"))),
)
def test_any_baseline_can_be_described_in_single_lines(ages: list[tuple[float, int]], smallest: dict[str, float | None]) -> None:
    sessions = [
        session(f"s{number}", days, number=number, replicates=count, ids=("a", "b", "c"))
        for number, (days, count) in enumerate(ages)
    ]
    found = baseline_depth_lines(sessions, NOW, tolerance=0.05, minimum_detectable=smallest)
    assert len(found) <= 3
    assert bool(found) == bool(sessions)
    assert not any("\n" in line or "inf" in line.split() for line in found)
