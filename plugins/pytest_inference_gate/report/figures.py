"""How figures are written in tables and messages: durations, energies, ratios, sizes and shares."""

from __future__ import annotations

from math import floor, log10


def milliseconds(seconds: float, digits: int = 3) -> str:
    """A duration in ms to so many significant digits, and never fewer than whole milliseconds: ``0.0412``, ``4.12``, ``1234``."""
    value = seconds * 1000
    # Rounded first: 9.996 is 10.0 to three digits, not 10.00.
    rounded = float(f"{value:.{digits - 1}e}")
    before_the_point = floor(log10(rounded)) + 1 if rounded > 0 else 1
    return f"{value:.{max(0, digits - before_the_point)}f}"


def millijoules(joules: float) -> str:
    """An energy in mJ to three significant digits, and never fewer than whole ones: ``12.1``."""
    return milliseconds(joules)  # thousandths are thousandths


def energy_change(before: float, after: float) -> str:
    """Two energies in J as ``"12.1 -> 13.0"``, in mJ."""
    return f"{millijoules(before)} -> {millijoules(after)}"


def ratio_text(ratio: float) -> str:
    """Three decimals, as a difference of a thousandth is the least that anybody asks for; four digits from 10 on."""
    return f"{ratio:.3f}" if ratio < 9.9995 else f"{ratio:.4g}"
