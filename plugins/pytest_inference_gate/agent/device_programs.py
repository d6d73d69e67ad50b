"""What no file tells and a vendor's program does: asked once, with little patience, and only where the program is there. Python 3.6.

`device_facts.collect` starts no process; :func:`complete` is for the probe, which runs before anything is measured.
"""

import shutil
import subprocess
from typing import Any, Dict, List, Optional  # noqa: F401

from .jetson_facts import parse_power_mode

Facts = Dict[str, Any]

PATIENCE_SECONDS = 10.0  # at most three are asked in a probe, which has 60; a power mode that is not told makes it another device

# The names that nvidia-smi understands since its driver 450; an older one refuses the whole question, and is asked for less.
GPU_QUESTIONS = (
    ("pci.bus_id", "name", "driver_version", "power.limit", "clocks.max.sm", "persistence_mode", "compute_cap"),
    ("pci.bus_id", "name", "driver_version", "power.limit", "clocks.max.sm", "persistence_mode"),
)


def complete(facts):
    # type: (Facts) -> Facts
    """Fill in the power mode of a Jetson and what the driver says of GPUs, in ``facts`` of this machine; returns them."""
    jetson = facts.get("jetson")
    if jetson and jetson["power_mode"] is None:
        jetson["power_mode"] = parse_power_mode(output_of(["nvpmodel", "-q"]) or "")
    gpus = facts.get("gpus")
    if gpus and not all(gpu["problem"] for gpu in gpus):
        merge_gpus(gpus, ask_gpus())
    return facts


def output_of(command, patience=PATIENCE_SECONDS):
    # type: (List[str], float) -> Optional[str]
    """What a program prints; None if it is not there, fails or takes too long."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        # What a driver writes to standard error is no answer.
        output = subprocess.check_output(
            [program] + command[1:], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=patience
        )  # type: bytes
    except (OSError, subprocess.SubprocessError):
        return None
    return output.decode("utf-8", "replace")


def ask_gpus():
    # type: () -> List[Dict[str, Optional[str]]]
    """What nvidia-smi says of each GPU, by the names of :data:`GPU_QUESTIONS`."""
    for names in GPU_QUESTIONS:
        text = output_of(["nvidia-smi", "--query-gpu=" + ",".join(names), "--format=csv,noheader,nounits"])
        if text:
            return parse_gpus(text, names)
    return []


def parse_gpus(text, names):
    # type: (str, Any) -> List[Dict[str, Optional[str]]]
    """Lines of comma-separated values; what the driver does not support stands in brackets and is None."""
    found = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(names):
            found.append({name: None if value.startswith("[") or not value else value for name, value in zip(names, values)})
    return found


def merge_gpus(gpus, answers):
    # type: (List[Facts], List[Dict[str, Optional[str]]]) -> None
    """Add names and limits to the GPUs that the files showed, by address; where they had none, by their order."""
    for answer in answers:
        address = short_address(answer["pci.bus_id"])
        same = [gpu for gpu in gpus if gpu["address"] and short_address(gpu["address"]) == address]
        nameless = [gpu for gpu in gpus if gpu["address"] is None]
        for gpu in (same or nameless)[:1]:
            gpu["address"] = gpu["address"] or address
            gpu["name"] = gpu["name"] or answer["name"]
            gpu["driver_version"] = answer["driver_version"]
            gpu["compute_capability"] = answer.get("compute_cap")
            gpu["power_limit_watts"] = number(answer["power.limit"])
            gpu["maximum_mhz"] = number(answer["clocks.max.sm"])
            gpu["persistent"] = {"Enabled": True, "Disabled": False}.get(answer["persistence_mode"] or "")


def short_address(address):
    # type: (Optional[str]) -> Optional[str]
    """With a domain of four digits, as the kernel writes it; the driver's program writes eight."""
    if not address:
        return None
    domain, _, rest = address.lower().partition(":")
    return "%s:%s" % (domain[-4:], rest)


def number(text):
    # type: (Optional[str]) -> Optional[float]
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
