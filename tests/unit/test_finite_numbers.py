"""Values of edited files that may be calculated with."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.finite_numbers import is_finite_number


@given(st.one_of(st.integers(-(10**300), 10**300), st.floats(), st.booleans(), st.text(), st.none()))
def test_what_is_one_can_be_calculated_with(value: object) -> None:
    assert is_finite_number(value) == (type(value) in (int, float) and math.isfinite(float(value)))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, -math.inf, math.nan, True, "1", None, [1]])
def test_what_is_none(value: object) -> None:
    assert not is_finite_number(value)


def test_the_largest_float_is_one() -> None:
    assert is_finite_number(sys.float_info.max) and is_finite_number(int(sys.float_info.max))
