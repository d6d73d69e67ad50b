"""Power by rail, from the INA3221 monitors of Jetson boards, without root. Python 3.6.

JetPack 5 and later show a monitor below /sys/class/hwmon, JetPack 4 as an I²C device with names of its own. A channel that leads nowhere
is called NC and left out.
"""

import os
from typing import Dict, List, Optional, Tuple  # noqa: F401

from .device_files import find, read, read_integer

# (rail, path of its power in mW or "", path of its voltage in mV, path of its current in mA)
Sensor = Tuple[str, str, str, str]

# That of the whole board; the AGX boards have none, and what VIN_SYS_5V0 shows there is a part.
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")

_CHANNELS = (1, 2, 3)  # further inputs of the chip are shunt voltages and their sum


def rail_sensors(root="/"):
    # type: (str) -> List[Sensor]
    """What can be read on this machine; the search costs more than the reading."""
    found = []  # type: List[Sensor]
    for folder in find(root, "sys/class/hwmon/hwmon[0-9]*"):
        if read(root, folder, "name") != "ina3221":
            continue
        for channel in _CHANNELS:
            files = ["in%d_input" % channel, "curr%d_input" % channel]
            voltage, current = (os.path.join(folder, file) for file in files)
            found.append((read(root, folder, "in%d_label" % channel) or "", "", voltage, current))
    for driver in ("ina3221x", "ina3221"):
        for pattern in ("iio:device[0-9]*", "iio_device"):
            for folder in find(root, "sys/bus/i2c/drivers/%s/*-*/%s" % (driver, pattern)):
                for channel in range(3):
                    files = [text % channel for text in ("in_power%d_input", "in_voltage%d_input", "in_current%d_input")]
                    power, voltage, current = (os.path.join(folder, file) for file in files)
                    found.append((read(root, folder, "rail_name_%d" % channel) or "", power, voltage, current))
    sensors = []  # type: List[Sensor]
    counts = {}  # type: Dict[str, int]
    for name, power, voltage, current in found:
        if not name or name == "NC" or _milliwatts(root, power, voltage, current) is None:
            continue
        counts[name] = counts.get(name, 0) + 1
        sensors.append((name if counts[name] == 1 else "%s#%d" % (name, counts[name]), power, voltage, current))
    return sensors


def read_rails(root, sensors):
    # type: (str, List[Sensor]) -> Dict[str, float]
    """Milliwatts by rail; those that cannot be read just now are left out."""
    rails = {}
    for name, power, voltage, current in sensors:
        milliwatts = _milliwatts(root, power, voltage, current)
        if milliwatts is not None:
            rails[name] = milliwatts
    return rails


def _milliwatts(root, power, voltage, current):
    # type: (str, str, str, str) -> Optional[float]
    direct = read_integer(root, power) if power else None
    if direct is not None:
        return float(direct)
    millivolts, milliamperes = read_integer(root, voltage), read_integer(root, current)
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1000.0


def total_rail(names):
    # type: (List[str]) -> Optional[str]
    """Which of these rails is the whole board's; None where none is."""
    for name in TOTAL_RAILS:
        if name in names:
            return name
    return None
