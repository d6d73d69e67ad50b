"""What may be calculated with, of values that were read from files which anybody may have edited."""

from __future__ import annotations

import sys
from typing import TypeGuard


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that a float holds: no bool, no NaN, no infinity, and no whole number beyond the largest float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
