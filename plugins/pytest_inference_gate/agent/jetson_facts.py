"""What only a Jetson has: its release, its power mode, the clocks of its GPU and of its memory. From files alone. Python 3.6.

Nothing is guessed: a release that is not in the table has an unknown JetPack, and without its configuration a power mode has no name.
"""

import os
import re
from typing import Any, Dict, List, Optional  # noqa: F401

from .device_files import exists, find, first_line, read, read_integer
from .system_packages import upstream

Facts = Dict[str, Any]

# Published pairs, but for those on which sources do not agree (36.5 is 6.2.1 to one and 6.2.2 to another). A missing patch is 0.
JETPACK_OF_L4T = {
    "32.1.0": "4.2",
    "32.2.1": "4.2.2",
    "32.3.1": "4.3",
    "32.4.3": "4.4",
    "32.4.4": "4.4.1",
    "32.5.0": "4.5",
    "32.5.1": "4.5.1",
    "32.5.2": "4.5.1",
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "34.1.0": "5.0 DP",
    "34.1.1": "5.0.1 DP",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.3": "5.1.5",
    "35.6.4": "5.1.6",
    "36.2.0": "6.0 DP",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.2": "6.1 rev1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}

# The GPU's clock has the unit's address or the chip's name before JetPack 7, and one name for each of its domains since.
_GPU_CLOCK = re.compile(r"(?:.*\.)?(?:gpu|gm20b|gp10b|gv11b|ga10b|gb10b)$|gpu-[a-z]+-[0-9]+$")
_MEMORY_CLOCK = re.compile(r"(?:.*[.-])?(?:emc|bwmgr)$")

# Only root may look below /sys/kernel/debug.
_MEMORY_RATES = (
    ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/bpmp/debug/clk/emc/max_rate"),
    ("sys/kernel/debug/clk/emc/clk_rate", "sys/kernel/debug/tegra_bwmgr/emc_max_rate"),
    ("sys/kernel/debug/tegra_bwmgr/emc_rate", "sys/kernel/debug/tegra_bwmgr/emc_max_rate"),
)
_MEMORY_CAPS = ("sys/kernel/nvpmodel_clk_cap/emc", "sys/kernel/nvpmodel_emc_cap/emc_iso_cap")


def is_jetson(root, board):
    # type: (str, Facts) -> bool
    """By the device tree; a container hides it, and then by what the kernel calls itself and by the file of the release."""
    if any(name.startswith("nvidia,tegra") for name in board["compatible"]) or "jetson" in (board["model"] or "").lower():
        return True
    if board["model"]:
        return False
    return (
        exists(root, "etc/nv_tegra_release")
        or (read(root, "sys/devices/soc0/family") or "").lower().startswith("tegra")
        or (read(root, "proc/sys/kernel/osrelease") or "").endswith("-tegra")
    )


def jetson_facts(root, packages, processor_locked):
    # type: (str, Dict[str, str], Optional[bool]) -> Facts
    """Release, power mode and clocks; frequencies in kHz."""
    release = l4t(root, packages)
    gpu, memory = gpu_clocks(root), memory_clock(root)
    return {
        "l4t": release,
        "jetpack": jetpack(release, packages),
        "power_mode": power_mode(root),
        "gpu_clocks": gpu,
        "memory_clock": memory,
        "locked": {
            "cpu": processor_locked,
            "gpu": locked(gpu),
            "memory": None if memory is None else memory["current_khz"] >= memory["maximum_khz"],
        },
    }


# Release


def parse_release(line):
    # type: (Optional[str]) -> Optional[str]
    """``"36.4.7"`` of ``# R36 (release), REVISION: 4.7, ...``; None if it looks otherwise."""
    match = re.search(r"R([0-9]+) \(release\), REVISION: ([0-9]+(?:\.[0-9]+)?)", line or "")
    return "%s.%s" % match.groups() if match else None


def l4t(root, packages):
    # type: (str, Dict[str, str]) -> Optional[Facts]
    """The release of Linux for Tegra and what says so. In a container, the file is the host's where it was mounted."""
    version = parse_release(first_line(read(root, "etc/nv_tegra_release")))
    if version:
        return {"version": version, "source": "etc/nv_tegra_release"}
    if "nvidia-l4t-core" in packages:
        return {"version": upstream(packages["nvidia-l4t-core"]), "source": "package nvidia-l4t-core"}
    return None


def jetpack(release, packages):
    # type: (Optional[Facts], Dict[str, str]) -> Optional[Facts]
    """What the package of that name says, else what belongs to the release; None for a release that nobody has told us of."""
    if "nvidia-jetpack" in packages:
        return {"version": upstream(packages["nvidia-jetpack"]), "source": "package nvidia-jetpack"}
    if release is None:
        return None
    number = release["version"] + ".0" * (2 - release["version"].count("."))
    version = JETPACK_OF_L4T.get(number)
    return {"version": version, "source": "L4T " + release["version"]} if version else None


# Power mode


def power_mode(root):
    # type: (str) -> Optional[str]
    """Its name. The number that is stored means another mode on each board, so that it tells nothing alone."""
    stored = re.search(r"pmode:\s*([0-9]+)", read(root, "var/lib/nvpmodel/status") or "")
    if not stored:
        return None
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=([0-9]+)\s+NAME=([^\s>]+)", read(root, "etc/nvpmodel.conf") or "")
    for number, name in modes:
        if int(number) == int(stored.group(1)):
            return str(name)
    return None


def parse_power_mode(text):
    # type: (str) -> Optional[str]
    """The name in what ``nvpmodel -q`` prints; the fan's mode may stand before it, and lines of a log anywhere."""
    match = re.search(r"^NV Power Mode:\s*(\S+)", text, re.MULTILINE)
    return match.group(1) if match else None


# Clocks


def gpu_clocks(root):
    # type: (str) -> List[Facts]
    """One for each domain of the GPU; empty where none is shown."""
    return [clock for clock in _clocks(root) if _GPU_CLOCK.match(clock["name"])]


def memory_clock(root):
    # type: (str) -> Optional[Facts]
    """The external memory's; before JetPack 7 only root can read it. The highest is that of the power mode where that caps it."""
    for clock in _clocks(root):
        if _MEMORY_CLOCK.match(clock["name"]) and clock["current_khz"] is not None and clock["maximum_khz"]:
            return {"current_khz": clock["current_khz"], "maximum_khz": clock["maximum_khz"]}
    for current_path, maximum_path in _MEMORY_RATES:
        current, maximum = read_integer(root, current_path), read_integer(root, maximum_path)
        if current is None or not maximum:
            continue
        caps = [cap for cap in (read_integer(root, path) for path in _MEMORY_CAPS) if cap is not None and cap > 0]
        return {"current_khz": current // 1000, "maximum_khz": min([maximum, *caps]) // 1000}
    return None


def _clocks(root):
    # type: (str) -> List[Facts]
    clocks = []
    for folder in find(root, "sys/class/devfreq/*"):
        clocks.append(
            {
                "name": os.path.basename(folder),
                "governor": read(root, folder, "governor"),
                "minimum_khz": _kilohertz(root, folder, "min_freq"),
                "maximum_khz": _kilohertz(root, folder, "max_freq"),
                "current_khz": _kilohertz(root, folder, "cur_freq"),
            }
        )
    return clocks


def _kilohertz(root, *parts):
    # type: (str, *str) -> Optional[int]
    hertz = read_integer(root, *parts)
    return None if hertz is None else hertz // 1000


def locked(clocks):
    # type: (List[Facts]) -> Optional[bool]
    """Whether each is held at one frequency; None where that cannot be read."""
    if not clocks or any(clock["minimum_khz"] is None or clock["maximum_khz"] is None for clock in clocks):
        return None
    return all(clock["minimum_khz"] == clock["maximum_khz"] for clock in clocks)
