"""Pieces of which the trees are put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Link:
    """A symbolic link of /sys; where it leads, relative to its folder."""

    target: str


Tree = dict[str, "str | Link"]


def build(root: Path, tree: Tree) -> str:
    """Write the tree below ``root``, which is then what an agent takes for /."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content.encode())
    return str(root)


def arm_processor(parts: list[str], end: str = "", implementer: str = "0x41") -> Tree:
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd\nCPU implementer\t: {implementer}\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 1\n"
        for number, part in enumerate(parts)
    ]
    return {"proc/cpuinfo": "\n".join(blocks) + "\n" + end, **_cores(len(parts)), "proc/sys/kernel/arch": "aarch64\n"}


def x86_processor(model: str, count: int, flags: str = "fpu avx2") -> Tree:
    cpuinfo = "\n".join(
        f"processor\t: {core}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 142\nmodel name\t: {model}\nstepping\t: 10\n"
        f"microcode\t: 0xf0\ncpu MHz\t\t: 1800.000\nflags\t\t: {flags}\n"
        for core in range(count)
    )
    return {"proc/cpuinfo": cpuinfo, **_cores(count), "proc/sys/kernel/arch": "x86_64\n"}


def _cores(count: int) -> Tree:
    return {
        "sys/devices/system/cpu/online": f"0-{count - 1}\n",
        "proc/self/status": f"Name:\tpython3\nCpus_allowed_list:\t0-{count - 1}\n",
        "proc/meminfo": "MemTotal:        4051048 kB\nMemAvailable:    2051048 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    }


def processor_clock(minimum: int, maximum: int, governor: str = "schedutil", policies: tuple[int, ...] = (0,)) -> Tree:
    tree: Tree = {}
    for number in policies:
        folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
        tree |= {
            f"{folder}/scaling_driver": "tegra194\n",
            f"{folder}/scaling_governor": f"{governor}\n",
            f"{folder}/scaling_min_freq": f"{minimum}\n",
            f"{folder}/scaling_max_freq": f"{maximum}\n",
        }
    return tree


def device_clock(name: str, minimum: int, maximum: int, current: int, governor: str = "nvhost_podgov") -> Tree:
    folder = f"sys/class/devfreq/{name}"
    return {
        f"{folder}/governor": f"{governor}\n",
        f"{folder}/min_freq": f"{minimum}\n",
        f"{folder}/max_freq": f"{maximum}\n",
        f"{folder}/cur_freq": f"{current}\n",
    }


def device_tree(model: str, *compatible: str) -> Tree:
    """Strings of a device tree end with a NUL."""
    return {"proc/device-tree/model": f"{model}\0", "proc/device-tree/compatible": "".join(f"{name}\0" for name in compatible)}


def release(line: str, more: str = "") -> Tree:
    return {"etc/nv_tegra_release": f"{line}\n{more}"}


def power_modes(number: int, *names: str) -> Tree:
    blocks = "".join(f"< POWER_MODEL ID={mode} NAME={name} >\nCPU_ONLINE CORE_0 1\n\n" for mode, name in enumerate(names))
    return {
        "etc/nvpmodel.conf": f"# Mode definitions\n\n{blocks}< PM_CONFIG DEFAULT=0 >\n",
        "var/lib/nvpmodel/status": f"pmode:{number:04d} fmode:quiet\n",
    }


def packages(**versions: str) -> Tree:
    """Names with ``_`` for ``-``; there are others around them, and one that was removed and left its configuration behind."""
    paragraphs = [("adduser", "3.118", "install ok installed"), ("libnvinfer5", "5.0.6-1+cuda10.0", "deinstall ok config-files")]
    paragraphs += [(name.replace("_", "-"), version, "install ok installed") for name, version in versions.items()]
    paragraphs.append(("zlib1g", "1:1.2.11.dfsg-2", "install ok installed"))
    text = "\n".join(
        f"Package: {name}\nStatus: {status}\nPriority: optional\nArchitecture: arm64\nVersion: {version}\n"
        f"Description: some words\n Version: 0 is not the version of {name}.\n"
        for name, version, status in paragraphs
    )
    return {"var/lib/dpkg/status": text}


def ina3221(number: int, *channels: tuple[str, int, int]) -> Tree:
    """A monitor as JetPack 5 and later show it: label, millivolts and milliamperes of each channel."""
    folder = f"sys/class/hwmon/hwmon{number}"
    tree: Tree = {f"{folder}/name": "ina3221\n", f"{folder}/in7_label": "sum of shunt voltages\n", f"{folder}/curr4_input": "7\n"}
    for channel, (label, millivolts, milliamperes) in enumerate(channels, 1):
        tree |= {
            f"{folder}/in{channel}_label": f"{label}\n",
            f"{folder}/in{channel}_input": f"{millivolts}\n",
            f"{folder}/curr{channel}_input": f"{milliamperes}\n",
        }
    return tree


def ina3221x(device: str, *channels: tuple[str, int]) -> Tree:
    """The same chip as JetPack 4 shows it: name and milliwatts of each channel."""
    folder = f"sys/bus/i2c/drivers/ina3221x/{device}/iio:device0"
    tree: Tree = {}
    for channel, (label, milliwatts) in enumerate(channels):
        tree |= {f"{folder}/rail_name_{channel}": f"{label}\n", f"{folder}/in_power{channel}_input": f"{milliwatts}\n"}
    return tree


def over_current(number: int, *counts: int) -> Tree:
    folder = f"sys/class/hwmon/hwmon{number}"
    tree: Tree = {f"{folder}/name": "soctherm_oc\n"}
    for counter, count in enumerate(counts, 1):
        tree |= {f"{folder}/oc{counter}_event_cnt": f"{count}\n", f"{folder}/oc{counter}_throt_en": "1\n"}
    return tree


def thermal_zones(**zones: int) -> Tree:
    tree: Tree = {}
    for number, (name, millidegrees) in enumerate(zones.items()):
        folder = f"sys/class/thermal/thermal_zone{number}"
        tree |= {f"{folder}/type": f"{name.replace('_', '-')}\n", f"{folder}/temp": f"{millidegrees}\n"}
    return tree


def coral_pcie(address: str = "0000:01:00.0", number: int = 0, driver: bool = True, node: bool = True) -> Tree:
    tree: Tree = {
        f"sys/bus/pci/devices/{address}/vendor": "0x1ac1\n",
        f"sys/bus/pci/devices/{address}/device": "0x089a\n",
        f"sys/bus/pci/devices/{address}/class": "0x0880ff\n",
    }
    if driver:
        folder = f"sys/class/apex/apex_{number}"
        tree |= {
            f"{folder}/device": Link(f"../../../bus/pci/devices/{address}"),
            f"{folder}/temp": "48050\n",
            f"{folder}/driver_version": "1.2\n",
            f"{folder}/framework_version": "1.1.4\n",
            f"{folder}/status": "ALIVE\n",
        }
    if driver and node:
        tree[f"dev/apex_{number}"] = ""
    return tree


def coral_usb(megabits: int, firmware: bool, bus: int = 2, device: int = 3) -> Tree:
    """The two ids of one device: its own before the runtime has loaded the firmware, and another afterwards."""
    vendor, product = ("18d1", "9302") if firmware else ("1a6e", "089a")
    folder = f"sys/bus/usb/devices/{bus}-1"
    return {
        f"{folder}/idVendor": f"{vendor}\n",
        f"{folder}/idProduct": f"{product}\n",
        f"{folder}/speed": f"{megabits}\n",
        f"{folder}/busnum": f"{bus}\n",
        f"{folder}/devnum": f"{device}\n",
        f"dev/bus/usb/{bus:03d}/{device:03d}": "",
        # The hub that it hangs on.
        f"sys/bus/usb/devices/usb{bus}/idVendor": "1d6b\n",
        f"sys/bus/usb/devices/usb{bus}/idProduct": "0003\n",
    }


def discrete_gpu(
    device: str = "2684",
    name: str = "NVIDIA GeForce RTX 4090",
    address: str = "0000:01:00.0",
    driver: bool = True,
    node: bool = True,
) -> Tree:
    folder = f"sys/bus/pci/devices/{address}"
    tree: Tree = {
        f"{folder}/vendor": "0x10de\n",
        f"{folder}/device": f"0x{device}\n",
        f"{folder}/class": "0x030000\n",
        f"{folder}/max_link_speed": "16.0 GT/s PCIe\n",
        f"{folder}/max_link_width": "16\n",
        # The card's sound is a device of the same maker.
        f"{folder[:-1]}1/vendor": "0x10de\n",
        f"{folder[:-1]}1/device": "0x22ba\n",
        f"{folder[:-1]}1/class": "0x040300\n",
    }
    if driver:
        tree |= {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs)\n"
            "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2)\n",
            f"proc/driver/nvidia/gpus/{address}/information": f"Model: \t\t {name}\nIRQ:   \t\t 131\nBus Type: \t PCIe\n",
        }
    if driver and node:
        tree |= {"dev/nvidiactl": "", "dev/nvidia0": ""}
    return tree
