"""What a line of ``tegrastats`` says, in the forms of JetPack 4 to 7. Python 3.6, standard library only.

The line is read from left to right. A piece that no form fits is skipped to the next blank, so that a newer release loses what is new in it
and nothing else. Names are kept as they come, but for those of sensors, which changed from capitals to small letters with JetPack 6.
"""

import re
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

Facts = Dict[str, Any]

# A line that says something of none of these is none of tegrastats.
_TELLING = ("ram", "cores", "memory", "gpu", "celsius", "milliwatts")

_UNITS = {"k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# A unit without power reads as -256 degrees.
COLDEST_CELSIUS = -200.0
# The power management chip has no sensor that can be read; firmware shows one of these instead.
_PLACEHOLDERS = {"pmic": (50.0, 100.0)}


def parse(line):
    # type: (str) -> Optional[Facts]
    """Everything that is understood of a line; None where that is nothing of a machine, as in an error message.

    * ``date``: as printed, or None (JetPack 4).
    * ``ram``, ``swap``: ``{"used", "total"}`` in bytes, or None.
    * ``cores``: in their order ``{"online", "load", "mhz"}``; load in percent; None for what is not said.
    * ``memory``: ``{"load", "mhz"}`` of the external memory's controller, or None.
    * ``gpu``: ``{"load", "mhz"}``: percent or None, and a list with one clock for each domain; or None.
    * ``units``: of encoders and other engines by name ``{"on", "load", "mhz"}``.
    * ``celsius``: by sensor in small letters, without those that have no power.
    * ``milliwatts``: by rail what flows now; rails of the same name have ``#2`` and so on behind it, those that lead nowhere are left out.
    """
    facts = {
        "date": None,
        "ram": None,
        "swap": None,
        "cores": [],
        "memory": None,
        "gpu": None,
        "units": {},
        "celsius": {},
        "milliwatts": {},
    }  # type: Facts
    position = 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        for pattern, take in _FORMS:
            match = pattern.match(line, position)
            if match:
                take(facts, match)
                position = match.end()
                break
        else:
            position = _next_blank(line, position)
    return facts if any(facts[key] for key in _TELLING) else None


def _next_blank(line, position):
    # type: (str, int) -> int
    while position < len(line) and not line[position].isspace():
        position += 1
    return position


# Forms


def _date(facts, match):
    # type: (Facts, Any) -> None
    facts["date"] = match.group(0)


def _amount(facts, match):
    # type: (Facts, Any) -> None
    name, used, total, unit = match.group(1, 2, 3, 4)
    if name in ("RAM", "SWAP"):  # IRAM is a buffer of the audio processor
        facts[name.lower()] = {"used": int(used) * _UNITS[unit], "total": int(total) * _UNITS[unit]}


def _cores(facts, match):
    # type: (Facts, Any) -> None
    for text in match.group(1).split(","):
        core = re.match(r"\s*([0-9]+)%(?:@([0-9]+))?\s*$", text)
        if core:
            facts["cores"].append({"online": True, "load": int(core.group(1)), "mhz": _integer(core.group(2))})
        else:
            facts["cores"].append({"online": False if text.strip() == "off" else None, "load": None, "mhz": None})


def _memory(facts, match):
    # type: (Facts, Any) -> None
    facts["memory"] = {"load": _integer(match.group(1)), "mhz": _integer(match.group(2))}


def _gpu(facts, match):
    # type: (Facts, Any) -> None
    load, several, one = match.group(1, 2, 3)
    clocks = [int(text) for text in (several or one or "").split(",") if text.strip()]
    if facts["gpu"] is None:
        facts["gpu"] = {"load": _integer(load), "mhz": clocks}
    else:  # the second cluster of an early JetPack 5 has a word of its own
        facts["gpu"]["mhz"] += clocks
        if load is not None:
            facts["gpu"]["load"] = max(int(load), facts["gpu"]["load"] or 0)


def _temperature(facts, match):
    # type: (Facts, Any) -> None
    name, celsius = match.group(1).lower(), float(match.group(2))
    if celsius > COLDEST_CELSIUS and celsius not in _PLACEHOLDERS.get(name, ()):
        facts["celsius"][name] = celsius


def _rail(facts, match):
    # type: (Facts, Any) -> None
    name, now = match.group(1, 2)
    if name == "NC":
        return
    number, key = 1, name
    while key in facts["milliwatts"]:
        number += 1
        key = "%s#%d" % (name, number)
    facts["milliwatts"][key] = float(now)


def _unit(facts, match):
    # type: (Facts, Any) -> None
    name, off, load, clock, load_alone, clock_alone = match.group(1, 2, 3, 4, 5, 6)
    facts["units"][re.sub("_FREQ$", "", name)] = {
        "on": not off,
        "load": _integer(load or load_alone),
        "mhz": _integer(clock or clock_alone),
    }


def _integer(text):
    # type: (Optional[str]) -> Optional[int]
    return int(text) if text else None


def _form(pattern, take):
    # type: (str, Callable[[Facts, Any], None]) -> Tuple[Any, Callable[[Facts, Any], None]]
    return re.compile(pattern + r"(?!\S)", re.ASCII), take


# In the order in which they are tried; a clock in brackets has one number for each domain of the GPU.
_FORMS = (
    _form(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d", _date),
    _form(r"(I?RAM|SWAP) (\d+)/(\d+)([kKMG])B ?(?:\([^)]*\))?", _amount),
    _form(r"CPU \[([^\]]*)\]", _cores),
    _form(r"EMC_FREQ (?:(\d+)%)?(?:@(\d+))?", _memory),
    _form(r"GR3D\d?_FREQ (?:(\d+)%)?(?:@(?:\[([\d, ]*)\]|(\d+)))?", _gpu),
    _form(r"([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C(?:/-?\d+(?:\.\d+)?C)?", _temperature),
    _form(r"([A-Z][A-Z0-9_]*) (\d+)(?:mW)?(?:/\d+(?:mW)?){1,2}", _rail),
    _form(r"([A-Z][A-Z0-9_]*) (?:(off)|(?:(\d+)%)?@(\d+)|(\d+)%|(\d+))", _unit),
)
