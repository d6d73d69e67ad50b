"""Counts, moments and durations in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.wording import age_in_words, counted, duration_in_words, session_time

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def test_one_is_not_many() -> None:
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "less than a minute"), (59.9, "less than a minute"), (60, "1 minute"), (3599, "59 minutes"), (3600, "1 hour"),
        (86399, "23 hours"),
        (86400, "1 day"), (14 * 86400, "14 days"), (89 * 86400, "89 days"), (90 * 86400, "3 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_in_words(timedelta(seconds=seconds)) == text


def test_a_date_without_a_zone_is_utc_as_pytest_benchmark_writes_it() -> None:
    expected = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert session_time("2026-01-02T03:04:05") == expected
    assert session_time("2026-01-02T03:04:05Z") == expected
    assert session_time("2026-01-02T05:04:05+02:00") == expected


@pytest.mark.parametrize("text", ["", "yesterday", "0001-01-01T00:00:00+14:00", "2026-13-01"])
def test_a_date_that_is_none_has_no_age(text: str) -> None:
    assert age_in_words(text, NOW) == "of unknown age"


@given(st.text())
def test_no_text_stops_the_report(text: str) -> None:
    assert age_in_words(text, NOW)


def test_a_clock_that_was_set_back_a_little_is_not_worth_a_word() -> None:
    assert age_in_words("2026-03-01T12:00:50+00:00", NOW) == "less than a minute old"
    assert age_in_words("2026-03-01T15:30:00+00:00", NOW) == "3 hours in the future"
