"""What a device showed of power, temperatures and clocks beside the replicates of a case. Information only: no verdict rests on it. No I/O.

Made of the summaries that the agent takes beside each ``measure`` (``agent/telemetry.py``), and of those in the baseline's sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from .finite_numbers import is_finite_number

# Shows 50 or 100 degrees whatever the temperature is, on every Jetson that has it.
_PLACEHOLDERS = frozenset({"pmic", "pmic-die"})


@dataclass(frozen=True)
class RailFigures:
    """One power rail beside one case. A batch is one inference; the energy includes all that hangs on the rail and ran meanwhile.

    ``joules_per_inference`` and ``mean_milliwatts`` are medians over replicates, ``peak_milliwatts`` the most of all of them;
    ``baseline_joules_per_inference`` the median over the baseline's sessions, None where there is none.
    """

    joules_per_inference: float
    mean_milliwatts: float
    peak_milliwatts: float
    baseline_joules_per_inference: float | None = None


@dataclass(frozen=True)
class TelemetryResult:
    """One case's telemetry over all of its replicates.

    * ``source``: ``sysfs``, ``tegrastats`` or ``nvidia-smi``; ``replicates``: how many of them showed anything.
    * ``rails``: by name; ``total_rail``: which of them is the whole board's, None where none is.
    * ``celsius``: the highest temperature by sensor; ``mhz``: the lowest and the highest frequency by clock.
    """

    source: str | None
    replicates: int
    rails: Mapping[str, RailFigures] = field(default_factory=dict)
    total_rail: str | None = None
    celsius: Mapping[str, float] = field(default_factory=dict)
    mhz: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def shown_rails(self) -> tuple[str, ...]:
        """The rail of the whole board; where no rail is that, all of them: parts that nobody says how to add up."""
        return (self.total_rail,) if self.total_rail is not None else tuple(self.rails)

    @property
    def hottest(self) -> tuple[str, float] | None:
        """The sensor with the highest temperature, and that, in degrees Celsius."""
        sensors = {name: value for name, value in self.celsius.items() if name.lower() not in _PLACEHOLDERS}
        return max(sensors.items(), key=lambda sensor: sensor[1], default=None)


def summarize_telemetry(
    taken: Iterable[Mapping[str, Any] | None], before: Sequence[Iterable[Mapping[str, Any] | None]] = ()
) -> TelemetryResult | None:
    """Of one case: ``taken`` by its replicates, and ``before``, in each session of the baseline; None where nothing was shown."""
    summaries = [summary for summary in taken if isinstance(summary, Mapping) and _shows_anything(summary)]
    if not summaries:
        return None
    sessions = [energy_by_rail(session) for session in before]
    rails = {}
    for name, joules in energy_by_rail(summaries).items():
        figures = [found for summary in summaries if (found := _rails(summary).get(name)) is not None]
        known = [session[name] for session in sessions if name in session]
        rails[name] = RailFigures(
            joules,
            median(found["mean_milliwatts"] for found in figures),
            max(found["peak_milliwatts"] for found in figures),
            median(known) if known else None,
        )
    totals = {str(summary.get("total_rail")) for summary in summaries} & rails.keys()
    celsius: dict[str, float] = {}
    mhz: dict[str, tuple[float, float]] = {}
    for summary in summaries:
        for name, figure in _entries(summary, "celsius", "highest"):
            celsius[name] = max(figure["highest"], celsius.get(name, figure["highest"]))
        for name, figure in _entries(summary, "mhz", "lowest", "highest"):
            low, high = mhz.get(name, (figure["lowest"], figure["highest"]))
            mhz[name] = (min(low, figure["lowest"]), max(high, figure["highest"]))
    source = summaries[0].get("source")
    return TelemetryResult(
        None if source is None else str(source), len(summaries), rails, min(totals) if totals else None, celsius, mhz
    )


def energy_by_rail(taken: Iterable[Mapping[str, Any] | None]) -> dict[str, float]:
    """Joules per inference by rail, the median of the replicates that have it. What somebody edited in a file is passed over."""
    values: dict[str, list[float]] = {}
    for summary in taken:
        for name, rail in _rails(summary).items() if isinstance(summary, Mapping) else ():
            values.setdefault(name, []).append(rail["joules_per_inference"])
    return {name: median(found) for name, found in sorted(values.items())}


class CaseWithTelemetry(Protocol):
    """Such as a case of a saved session: ``extra`` is its block of the file."""

    @property
    def extra(self) -> Mapping[str, Any]: ...


def saved_telemetry(case: CaseWithTelemetry) -> list[Mapping[str, Any] | None]:
    """Of each replicate of a saved case, as the file has it; nothing for a session of before there was any."""
    found = case.extra.get("telemetry")
    return list(found) if isinstance(found, list) else []


def _shows_anything(summary: Mapping[str, Any]) -> bool:
    return any(summary.get(key) for key in ("rails", "celsius", "mhz"))


def _rails(summary: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    return dict(_entries(summary, "rails", "joules_per_inference", "mean_milliwatts", "peak_milliwatts"))


def _entries(summary: Mapping[str, Any], key: str, *figures: str) -> Iterable[tuple[str, Mapping[str, float]]]:
    """The entries of a table by name that have all of these figures."""
    table = summary.get(key)
    for name, entry in table.items() if isinstance(table, Mapping) else ():
        if isinstance(entry, Mapping) and all(is_finite_number(entry.get(figure)) for figure in figures):
            yield str(name), entry
