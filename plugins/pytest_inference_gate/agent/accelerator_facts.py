"""Which Edge TPUs and which discrete NVIDIA GPUs are attached, how, and why one that is there cannot be used. Python 3.6.

Read from /sys, /proc and /dev; nothing is opened for work, no runtime is loaded and CUDA is not started.
"""

import os
import re
from typing import Any, Dict, List, Optional  # noqa: F401

from .device_files import exists, find, is_here, read, read_integer

Facts = Dict[str, Any]

EDGE_TPU_ON_PCI = ("0x1ac1", "0x089a")
# The same USB accelerator has one id until the runtime has loaded its firmware and another afterwards.
EDGE_TPU_WITHOUT_FIRMWARE = ("1a6e", "089a")
EDGE_TPU_WITH_FIRMWARE = ("18d1", "9302")
USB_3_MEGABITS = 5000

NVIDIA_ON_PCI = "0x10de"
_PCI_NAME = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$", re.IGNORECASE)


# Edge TPU


def edge_tpus(root):
    # type: (str) -> List[Facts]
    """Each with its ``link`` (pcie, usb3, usb2, or usb where the speed is not shown), and with ``problem``, a clause or None."""
    return _edge_tpus_on_pci(root) + _edge_tpus_on_usb(root)


def _edge_tpus_on_pci(root):
    # type: (str) -> List[Facts]
    served = {}  # type: Dict[str, str]
    for folder in find(root, "sys/class/apex/apex_[0-9]*"):
        served[_device_of(root, folder) or folder] = folder
    addresses = [
        os.path.basename(folder)
        for folder in find(root, "sys/bus/pci/devices/*")
        if (read(root, folder, "vendor"), read(root, folder, "device")) == EDGE_TPU_ON_PCI
    ]
    # A driver's entry whose device cannot be told from the others is one of those that no other entry serves.
    unplaced = [folder for address, folder in served.items() if address not in addresses]
    found = []
    for address in addresses:
        entry = served.get(address) or (unplaced.pop(0) if unplaced else None)
        found.append(_edge_tpu_on_pci(root, entry, address))
    return found + [_edge_tpu_on_pci(root, folder, None) for folder in unplaced]


def _edge_tpu_on_pci(root, folder, address):
    # type: (str, Optional[str], Optional[str]) -> Facts
    node = "dev/" + os.path.basename(folder) if folder else None
    if node is None:
        problem = "no driver serves it: install gasket-dkms and start the machine again"  # type: Optional[str]
    else:
        problem = _problem_of_node(root, node, "give this user the group apex")
    if folder and not problem and (read(root, folder, "status") or "ALIVE").upper() != "ALIVE":
        problem = "its driver calls it %s: start the machine again" % (read(root, folder, "status") or "").lower()
    return {
        "link": "pcie",
        "id": "1ac1:089a",
        "address": address,
        "firmware_loaded": None,
        "megabits": None,
        "driver_version": read(root, folder, "driver_version") if folder else None,
        "framework_version": read(root, folder, "framework_version") if folder else None,
        "problem": problem,
    }


def _edge_tpus_on_usb(root):
    # type: (str) -> List[Facts]
    found = []
    for folder in find(root, "sys/bus/usb/devices/*"):
        name = (read(root, folder, "idVendor"), read(root, folder, "idProduct"))
        if name not in (EDGE_TPU_WITHOUT_FIRMWARE, EDGE_TPU_WITH_FIRMWARE):
            continue
        megabits = read_integer(root, folder, "speed")
        link = "usb" if megabits is None else "usb3" if megabits >= USB_3_MEGABITS else "usb2"
        bus, device = read_integer(root, folder, "busnum"), read_integer(root, folder, "devnum")
        problem = None  # type: Optional[str]
        if bus is not None and device is not None:
            node = "dev/bus/usb/%03d/%03d" % (bus, device)
            problem = _problem_of_node(root, node, "install its udev rule (package libedgetpu1-std) and plug it in again")
        found.append(
            {
                "link": link,
                "id": "%s:%s" % name,
                "address": os.path.basename(folder),
                "firmware_loaded": name == EDGE_TPU_WITH_FIRMWARE,
                "megabits": megabits,
                "driver_version": None,
                "framework_version": None,
                "problem": problem,
            }
        )
    return found


def edge_tpu_temperatures(root):
    # type: (str) -> List[Facts]
    """Of those on PCIe; those on USB show none."""
    zones = []
    for folder in find(root, "sys/class/apex/apex_[0-9]*"):
        millidegrees = read_integer(root, folder, "temp")
        if millidegrees is not None:
            zones.append({"name": os.path.basename(folder), "celsius": millidegrees / 1000.0})
    return zones


# Discrete GPUs


def gpus(root):
    # type: (str) -> List[Facts]
    """Discrete NVIDIA GPUs, by their PCI ids (stable over drivers) and, where the driver runs, by name; ``problem`` as above.

    Where /sys is hidden, the driver's own list counts; where that is hidden too, the device files, which tell a number and nothing else.
    """
    names = {}  # type: Dict[str, Optional[str]]
    for folder in find(root, "proc/driver/nvidia/gpus/*"):
        match = re.search(r"^Model:\s*(.+)$", read(root, folder, "information") or "", re.MULTILINE)
        names[os.path.basename(folder).lower()] = match.group(1).strip() if match else None
    on_pci = {}
    for folder in find(root, "sys/bus/pci/devices/*"):
        if read(root, folder, "vendor") == NVIDIA_ON_PCI and (read(root, folder, "class") or "").startswith("0x03"):
            on_pci[os.path.basename(folder).lower()] = folder
    found = []
    for address in sorted(set(names) | set(on_pci)):
        folder = on_pci.get(address, "")
        device = (read(root, folder, "device") or "").replace("0x", "") if folder else ""
        found.append(
            {
                "id": "10de:" + device if device else None,
                "address": address,
                "name": names.get(address),
                "link_speed": read(root, folder, "max_link_speed") if folder else None,
                "link_width": read_integer(root, folder, "max_link_width") if folder else None,
                "problem": _problem_of_gpu(root, bool(names)),
            }
        )
    if not found:
        for node in find(root, "dev/nvidia[0-9]*"):
            if exists(root, "dev/nvidiactl"):
                found.append(
                    {
                        "id": None,
                        "address": None,
                        "name": None,
                        "link_speed": None,
                        "link_width": None,
                        "problem": _closed(root, node),
                    }
                )
    return found


def _problem_of_gpu(root, driver_lists_it):
    # type: (str, bool) -> Optional[str]
    if not exists(root, "proc/driver/nvidia/version") and not driver_lists_it:
        return "the NVIDIA driver is not loaded: install it, or load it with modprobe nvidia"
    return _problem_of_node(root, "dev/nvidiactl", "give this user the group that owns it")


# Ways to a device


def _problem_of_node(root, node, advice):
    # type: (str, str, str) -> Optional[str]
    if not exists(root, node):
        return "there is no /%s here: in a container, pass it in when the container is started" % node
    closed = _closed(root, node)
    return "%s: %s" % (closed, advice) if closed else None


def _closed(root, node):
    # type: (str, str) -> Optional[str]
    # A copy of another device's files says nothing about the rights there.
    if is_here(root) and not os.access(os.path.join(root, node), os.R_OK | os.W_OK):
        return "this user may not open /%s" % node
    return None


def _device_of(root, folder):
    # type: (str, str) -> Optional[str]
    """The PCI address to which the ``device`` link of an entry of /sys/class leads."""
    link = os.path.join(root, folder, "device")
    if not os.path.islink(link):
        return None
    name = os.path.basename(os.readlink(link))
    return name if _PCI_NAME.match(name) else None
