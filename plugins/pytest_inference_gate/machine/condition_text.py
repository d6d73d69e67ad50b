"""The condition of a device in words, as a session file keeps it: for people who compare two sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..finite_numbers import is_finite_number

Facts = Mapping[str, object]


def condition_figures(condition: Facts) -> dict[str, str]:
    """What the ``condition`` block of a session says, in words by name; what it does not say is left out.

    What was read before and after the measurement and changed is given twice: ``"load": "0.20, then 1.10"``.
    """
    moments = [moment for key in ("before", "after") if isinstance(moment := condition.get(key), Mapping)]
    figures: dict[str, str] = {}
    for name, read in _READINGS.items():
        texts = [text for moment in moments if (text := read(moment)) is not None]
        if texts:
            figures[name] = texts[0] if len(set(texts)) == 1 else ", then ".join(texts)
    canary = condition.get("canary")
    if isinstance(canary, Mapping):
        figures.update({name: text for name, read in _CANARY_READINGS.items() if (text := read(canary)) is not None})
    return figures


def condition_differences(before: Facts, after: Facts) -> list[str]:
    """What two ``condition`` blocks say differently, such as ``"governor powersave -> performance"``."""
    old, new = condition_figures(before), condition_figures(after)
    names = [name for name in (*_READINGS, *_CANARY_READINGS) if old.get(name) != new.get(name)]
    return [f"{name} {old.get(name, 'unknown')} -> {new.get(name, 'unknown')}" for name in names]


def _numbers(value: object) -> list[float]:
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    return [float(one) for one in values if is_finite_number(one)]


def _first_number(key: str, form: Callable[[float], str]) -> Callable[[Facts], str | None]:
    def read(facts: Facts) -> str | None:
        numbers = _numbers(facts.get(key))
        return form(numbers[0]) if numbers else None

    return read


def _megahertz(key: str) -> Callable[[Facts], str | None]:
    """A range over the cores or the groups of cores."""

    def read(facts: Facts) -> str | None:
        values = sorted({round(kilohertz / 1000) for kilohertz in _numbers(facts.get(key))})
        if not values:
            return None
        return f"{values[0]} MHz" if len(values) == 1 else f"{values[0]} to {values[-1]} MHz"

    return read


def _setting(key: str) -> Callable[[Facts], str | None]:
    def read(facts: Facts) -> str | None:
        value = facts.get(key)
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, list):
            # Numbers of cores in their order, names of governors each once.
            return ",".join(dict.fromkeys(str(one) for one in value)) or None
        return None if value is None else str(value)

    return read


def _hottest(facts: Facts) -> str | None:
    zones = facts.get("thermal_zones")
    if not isinstance(zones, list):
        return None
    degrees = [value for zone in zones if isinstance(zone, Mapping) for value in _numbers(zone.get("celsius"))]
    return f"{max(degrees):.0f} degrees Celsius" if degrees else None


def _memory_frequency(facts: Facts) -> str | None:
    clock = facts.get("memory_clock")
    return _megahertz("current_khz")(clock) if isinstance(clock, Mapping) else None


def _kernel(name: str) -> Callable[[Facts], str | None]:
    """Milliseconds of a pass of one of the canary's kernels, and how its readings scattered."""

    def read(canary: Facts) -> str | None:
        seconds, scatter = _numbers(canary.get(name)), _numbers(canary.get(f"{name}_spread"))
        if not seconds:
            return None
        return f"{seconds[0] * 1000:.4g} ms" + (f" (standard deviation {scatter[0]:.1%})" if scatter else "")

    return read


_READINGS: Mapping[str, Callable[[Facts], str | None]] = {
    "load": _first_number("load_average", lambda load: f"{load:.2f}"),
    "cores online": _setting("online"),
    "cores allowed": _setting("allowed"),
    "governor": _setting("governors"),
    "lowest frequency": _megahertz("minimum_khz"),
    "highest frequency": _megahertz("maximum_khz"),
    "frequency": _megahertz("current_khz"),
    "boost": _setting("turbo"),
    "power profile": _setting("power_profile"),
    "power mode": _setting("power_mode"),
    "GPU's lowest frequency": _megahertz("gpu_minimum_khz"),
    "GPU's highest frequency": _megahertz("gpu_maximum_khz"),
    "GPU's frequency": _megahertz("gpu_current_khz"),
    "memory's frequency": _memory_frequency,
    "on battery": _setting("on_battery"),
    "temperature": _hottest,
    "free memory": _first_number("memory_available_bytes", lambda size: f"{size / 1e9:.1f} GB"),
}

_CANARY_READINGS: Mapping[str, Callable[[Facts], str | None]] = {
    "canary, computing": _kernel("compute"),
    "canary, memory": _kernel("memory"),
    "load by others": _first_number("load_by_others", lambda cores: f"{cores:.2f} cores"),
    "time taken by the hypervisor": _first_number("stolen", lambda share: f"{share:.1%}"),
}
