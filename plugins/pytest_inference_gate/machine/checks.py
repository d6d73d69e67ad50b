"""What `inference-gate doctor` finds about a machine: from facts to checks. Pure, no I/O.

A check is ``ok``, a ``warning`` with what to change, or ``unknown``: containers and virtual machines hide much, and what is not known is
never guessed. Commands are such as can be pasted into a shell of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from statistics import median
from typing import Any, Literal

from ..accelerators import Marker, target_markers
from ..decision import MEDIAN_TO_MEAN, session_spread
from ..devices import Condition, DeviceIdentity, Kind
from .condition import KERNELS, disturbing_load, is_disturbed, load_by_others, stolen_share

State = Literal["ok", "warning", "unknown"]

DEFAULT_TOLERANCE = 0.05
"""Of the gate for latency; a machine that cannot hold it is worth a warning."""

REPLICATES = 5
"""As many replicates as the gate takes of a case at first."""

HOT_CELSIUS = 80.0
"""Most boards cap their clocks between 80 and 100 degrees."""

STORE_BYTES = 5 * 2**30
"""A full run of the embedded models with their checkpoints and converted models takes some gigabytes."""

SWAP_WORTH_A_WARNING = 64 * 2**20
STOLEN_WORTH_A_WARNING = 0.02
FREE_MEMORY_SHARE = 0.25

_LOCK_ALL = "Choose a power mode and lock all clocks in it, that of the memory too."
# Mode 0 is the fastest of some boards and the slowest of others.
_LOCK_ALL_COMMANDS = ("grep POWER_MODEL /etc/nvpmodel.conf", "sudo nvpmodel -m NUMBER", "sudo jetson_clocks")

_KERNEL_WORDS = {"compute": "processor", "memory": "memory"}


@dataclass(frozen=True)
class BusyProcess:
    """A process that used the processor while the doctor looked; ``cores`` is its processor time per second."""

    pid: int
    name: str
    cores: float


@dataclass(frozen=True)
class MachineFacts:
    """All that the doctor looks at.

    ``device`` and ``backends`` are those of the agent's ``probe``, ``readings`` replies to its ``canary`` in their order. ``processes`` are
    the busiest others, None where they cannot be listed. ``python`` names the interpreter, ``store`` the folder of artifacts.
    """

    python: str
    python_version: str | None
    device: Mapping[str, Any]
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    readings: Sequence[Mapping[str, Any]] = ()
    processes: Sequence[BusyProcess] | None = None
    store: str = ""
    store_free_bytes: int | None = None
    remarks: Sequence[str] = ()

    @property
    def identity(self) -> DeviceIdentity:
        return DeviceIdentity.from_facts(self.device)

    @property
    def before(self) -> Mapping[str, Any]:
        """The condition when the doctor began to look; empty if unknown."""
        return self.readings[0]["condition"]["before"] if self.readings else {}

    @property
    def after(self) -> Mapping[str, Any]:
        """The condition at the end."""
        return self.readings[-1]["condition"]["after"] if self.readings else {}


@dataclass(frozen=True)
class Check:
    """``finding`` is a clause, ``details`` are lines below it, ``advice`` is one sentence that says what to change, ``commands`` do it."""

    name: str
    state: State
    finding: str
    advice: str = ""
    commands: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


def check_machine(facts: MachineFacts) -> list[Check]:
    """Every check that this kind of machine is asked, in the order in which they are shown."""
    checks = [*_CHECKS[:_FIRST_OF_ACCELERATORS], *_accelerator_checks(facts), *_CHECKS[_FIRST_OF_ACCELERATORS:]]
    return [check(facts) for check in checks]


def smallest_tolerance(readings: Sequence[float]) -> float | None:
    """The smallest latency tolerance, a share, that makes sense where replicates scatter as these readings do; None of less than three.

    The difference of two medians of n replicates has a standard error of sqrt(2) · sqrt(pi / 2) · s / sqrt(n); three of them are hardly
    ever exceeded by chance. s is the robust spread, since a median does not mind one reading that is far off. Rounded up to whole
    percents. It tells of the moments of one session: between sessions more may change, which only the baseline's sessions can tell.
    """
    if len(readings) < 3:
        return None
    error = sqrt(2) * MEDIAN_TO_MEAN * session_spread(readings) / sqrt(REPLICATES)
    return max(0.01, ceil(300 * error - 1e-9) / 100)


# Processor


def _cores(facts: MachineFacts) -> Check:
    cores = facts.device.get("cores") or {}
    online, usable, quota = cores.get("online"), cores.get("usable"), cores.get("quota")
    if not online or usable is None:
        return Check("cores", "unknown", "how many can be used is not shown here")
    finding = f"{usable:g} of {len(online)} can be used"
    if quota is None or quota >= len(online):
        return Check("cores", "ok", f"{finding}, without a quota of processor time")
    return Check(
        "cores",
        "warning",
        f"{finding}: a quota of {quota:g} cores' worth of time",
        "Give whole cores instead of a share of time: the kernel stops a process that used up its share, in the middle of an inference.",
        (f"docker run --cpuset-cpus=0-{max(0, ceil(quota) - 1)} ...   # instead of --cpus",),
    )


def _governor(facts: MachineFacts) -> Check:
    policies = facts.device.get("frequency_policies") or []
    names = sorted({str(policy["governor"]) for policy in policies if policy.get("governor")})
    if not names:
        return Check("governor", "unknown", _no_frequencies(facts))
    if names == ["performance"]:
        return Check("governor", "ok", "performance")
    if facts.device.get("clocks_locked"):
        return Check("governor", "ok", f"{', '.join(names)}, on clocks that are locked")
    return Check(
        "governor",
        "warning",
        f"{', '.join(names)}: the clock follows the load",
        "Set the governor that keeps the clock up; it lasts until the next start.",
        ("echo performance |", "  sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"),
    )


def _clocks(facts: MachineFacts) -> Check:
    policies = facts.device.get("frequency_policies") or []
    # A Jetson's fact tells of three clocks; the two others have checks of their own.
    locked = _jetson(facts)["locked"]["cpu"] if _jetson(facts) else facts.device.get("clocks_locked")
    if locked is None:
        current = _megahertz((facts.after.get("current_khz") or {}).values())
        return Check("clocks", "unknown", f"{_no_frequencies(facts)}{f'; now at {current}' if current else ''}")
    ranges = [(policy["minimum_khz"], policy["maximum_khz"]) for policy in policies]
    if locked:
        return Check("clocks", "ok", f"locked at {_megahertz(maximum for _, maximum in ranges)}")
    finding = f"free to move between {min(low for low, _ in ranges) // 1000} and {max(high for _, high in ranges) // 1000} MHz"
    if facts.identity.kind == "jetson":
        return Check("clocks", "warning", finding, _LOCK_ALL, _LOCK_ALL_COMMANDS)
    advice = (
        "Lock them at a frequency that the cooling holds for hours: below boost, the base frequency of the data sheet or less."
    )
    frequency = "FREQUENCY"
    if facts.device.get("turbo") is None:
        # Nothing goes beyond the highest frequency here, and boards are made to run at it.
        advice = "Lock them at one frequency that the cooling holds for hours."
        frequency = f"{max(high for _, high in ranges) // 1000}MHz"
    command = f"sudo cpupower frequency-set --min {frequency} --max {frequency}"
    return Check("clocks", "warning", finding, advice, (command,))


def _boost(facts: MachineFacts) -> Check:
    turbo = facts.device.get("turbo")
    if turbo is None:
        return Check("boost", "unknown", "whether the processor boosts its clock is not shown here")
    if not turbo:
        return Check("boost", "ok", "off")
    intel = any(
        policy.get("driver") in ("intel_pstate", "intel_cpufreq") for policy in facts.device.get("frequency_policies") or []
    )
    command = (
        "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
        if intel
        else "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
    )
    return Check(
        "boost",
        "warning",
        "on: the clock depends on the temperature and on what the other cores do",
        "Switch it off while you gate, and for the baseline as well; it lasts until the next start.",
        (command,),
    )


def _power(facts: MachineFacts) -> Check:
    battery, profile = facts.after.get("on_battery"), facts.device.get("power_profile")
    known = [f"profile {profile}"] if profile else []
    known += [] if battery is None else ["on battery" if battery else "on mains"]
    finding = ", ".join(known)
    if battery:
        return Check("power", "warning", finding, "Plug it in: on battery the firmware holds the clocks down.")
    if profile is not None and profile != "performance":
        advice = "Choose the profile in which the device will be used, the fastest one where that is open; baselines are kept by profile."
        return Check("power", "warning", finding, advice, ("powerprofilesctl set performance",))
    if not known:
        return Check("power", "unknown", "no mains supply and no power profile is shown here")
    return Check("power", "ok", finding)


def _throttling(facts: MachineFacts) -> Check:
    counts, bits = facts.after.get("throttle_counts"), facts.after.get("raspberry_pi_throttled")
    advice = "Improve the cooling and the power supply, or lock the clocks lower: a throttled run is invalid."
    now = [
        text for text in Condition(facts.before).problems(Condition(facts.after)) if "throttled" in text or "Raspberry" in text
    ]
    if now:
        return Check("throttling", "warning", "; ".join(now), advice)
    if bits:
        return Check("throttling", "warning", "the Raspberry Pi was throttled or under-powered since it was started", advice)
    if not counts and bits is None:
        return Check("throttling", "unknown", "no counter of throttling is shown here")
    events = max((counts or {}).values(), default=0)
    return Check(
        "throttling", "ok", f"{events} times since the start of the machine, none just now" if events else "none since the start"
    )


def _temperature(facts: MachineFacts) -> Check:
    zones = facts.after.get("thermal_zones") or []
    if not zones:
        return Check("temperature", "unknown", "no sensor is shown here")
    hottest = max(zones, key=lambda zone: zone["celsius"])
    finding = f"{hottest['celsius']:.0f} °C at the hottest of {len(zones)} sensors ({hottest['name']})"
    if hottest["celsius"] < HOT_CELSIUS:
        return Check("temperature", "ok", finding)
    return Check("temperature", "warning", finding, "Cool it before you measure: clocks are capped not far above this.")


# Accelerators


def _jetson(facts: MachineFacts) -> Mapping[str, Any]:
    return facts.device.get("jetson") or {}


def _power_mode(facts: MachineFacts) -> Check:
    mode = _jetson(facts).get("power_mode")
    jetpack, l4t = (_jetson(facts).get(name) or {} for name in ("jetpack", "l4t"))
    release = f"JetPack {jetpack.get('version') or 'unknown'}, L4T {l4t.get('version') or 'unknown'}"
    if mode is None:
        where = " in a container: mount /etc/nvpmodel.conf and /var/lib/nvpmodel" if facts.device.get("container") else " here"
        return Check("power mode", "unknown", f"neither its files nor nvpmodel -q tell it{where}", details=(release,))
    return Check("power mode", "ok", f"{mode} (nvpmodel); baselines are kept by its name", details=(release,))


def _gpu_clock(facts: MachineFacts) -> Check:
    clocks, locked = _jetson(facts).get("gpu_clocks") or [], _jetson(facts)["locked"]["gpu"]
    if locked is None:
        return Check("gpu clock", "unknown", "the kernel shows no control of it here")
    if locked:
        return Check("gpu clock", "ok", f"locked at {_megahertz(clock['maximum_khz'] for clock in clocks)}")
    low, high = min(clock["minimum_khz"] for clock in clocks), max(clock["maximum_khz"] for clock in clocks)
    finding = f"free to move between {low // 1000} and {high // 1000} MHz"
    return Check("gpu clock", "warning", finding, _LOCK_ALL, _LOCK_ALL_COMMANDS)


def _memory_clock(facts: MachineFacts) -> Check:
    clock = facts.after.get("memory_clock") or _jetson(facts).get("memory_clock")
    if not clock:
        return Check("memory clock", "unknown", "that of the EMC is shown to root only: sudo jetson_clocks --show tells it")
    finding = f"EMC at {clock['current_khz'] // 1000} of {clock['maximum_khz'] // 1000} MHz"
    if clock["current_khz"] >= clock["maximum_khz"]:
        return Check("memory clock", "ok", finding)
    return Check("memory clock", "warning", finding, _LOCK_ALL, _LOCK_ALL_COMMANDS)


def _edge_tpu(facts: MachineFacts) -> Check:
    return _attached("edge tpu", "edgetpu", facts, facts.device.get("edge_tpus") or ())


def _gpu(facts: MachineFacts) -> Check:
    return _attached("gpu", "cuda", facts, facts.device.get("gpus") or ())


def _attached(name: str, marker: Marker, facts: MachineFacts, devices: Sequence[Mapping[str, Any]]) -> Check:
    state = target_markers(facts.device)[marker]
    if not state.present:
        clause, _, advice = state.reason.partition(": ")
        return Check(
            name, "warning", clause, f"{advice[:1].upper()}{advice[1:]}." if advice else "See to it before you measure on it."
        )
    slow = [device for device in devices if device.get("link") == "usb2"]
    finding = ", ".join(_device_text(device) for device in devices)
    if slow:
        return Check(
            name, "warning", finding, "Plug it into a USB 3 port with its own cable: over USB 2 its latency is another one."
        )
    return Check(name, "ok", finding)


def _device_text(device: Mapping[str, Any]) -> str:
    if "link" not in device:
        return str(device.get("name") or device.get("id") or "a GPU without a name")
    link = {"pcie": "PCIe", "usb3": "USB 3", "usb2": "USB 2"}.get(device["link"], "USB, its speed is not shown")
    loaded = ", firmware not loaded yet" if device.get("firmware_loaded") is False else ""
    return f"on {link} ({device['id']}{loaded})"


def _accelerator_checks(facts: MachineFacts) -> list[Callable[[MachineFacts], Check]]:
    """Those of what this machine has: nobody wants to read of what it has not."""
    checks: list[Callable[[MachineFacts], Check]] = []
    if _jetson(facts):
        checks += [_power_mode, _gpu_clock, _memory_clock]
    if facts.device.get("edge_tpus"):
        checks.append(_edge_tpu)
    if facts.device.get("gpus"):
        checks.append(_gpu)
    return checks


# Neighbours


def _load(facts: MachineFacts) -> Check:
    before, after = facts.before, facts.after
    online = after.get("online")
    load = load_by_others(before, after, _process_seconds(before, after))
    if load is None or not online:
        return Check("load by others", "unknown", "the processor time of other processes is not shown here")
    count = len(online)
    finding = f"{load:.2f} of {count} cores in use by others"
    details = tuple(f"{one.cores:5.2f} cores  {one.name} (pid {one.pid})" for one in facts.processes or ())
    if not is_disturbed(load, after["monotonic"] - before["monotonic"], count, after["ticks_per_second"]):
        return Check("load by others", "ok", finding, details=details)
    advice = f"Stop what is running beside the gate: from {disturbing_load(count):g} cores on it disturbs."
    if facts.processes is None or sum(one.cores for one in facts.processes) < load / 2:
        advice += " Not all of it can be seen from here: look at the host as well."
    return Check("load by others", "warning", finding, advice, details=details)


def _steal(facts: MachineFacts) -> Check:
    share = stolen_share(facts.before, facts.after)
    if share is None:
        return Check("steal", "unknown", "whether a hypervisor takes processor time is not shown here")
    finding = f"{share:.1%} of the processor time that was asked for went to other machines"
    if share <= STOLEN_WORTH_A_WARNING:
        return Check("steal", "ok", finding)
    return Check("steal", "warning", finding, "Gate at a quieter hour, or on a machine whose cores are not shared.")


def _virtual(facts: MachineFacts) -> Check:
    virtual, container = facts.device.get("hypervisor"), facts.device.get("container")
    inside = f", in a container ({container})" if container else ""
    if virtual is None:
        return Check("virtual machine", "unknown", f"nothing tells whether it is one{inside}")
    if not virtual:
        return Check("virtual machine", "ok", f"no{inside}")
    return Check(
        "virtual machine",
        "warning",
        f"yes{inside}: neighbours that cannot be seen share its caches and memory",
        "Gate two stacks in turns here, which cancels the neighbours, or record sessions of a baseline on several days.",
        ("pytest -m cpu --gate-against=OTHER/bin/python",),
    )


# Room


def _memory(facts: MachineFacts) -> Check:
    total, available = facts.device.get("memory_total_bytes"), facts.after.get("memory_available_bytes")
    if not total or available is None:
        return Check("memory", "unknown", "how much is available is not shown here")
    finding = f"{_size(available)} of {_size(total)} available"
    if available >= FREE_MEMORY_SHARE * total:
        return Check("memory", "ok", finding)
    return Check(
        "memory", "warning", finding, "Close what holds it: converters need some gigabytes, and a system short of memory is slow."
    )


def _swap(facts: MachineFacts) -> Check:
    used = facts.after.get("swap_used_bytes")
    if used is None:
        return Check("swap", "unknown", "its use is not shown here")
    if used < SWAP_WORTH_A_WARNING:
        return Check("swap", "ok", f"{_size(used)} in use" if used else "none in use")
    return Check(
        "swap",
        "warning",
        f"{_size(used)} in use: pages of a model may have to come from the disk",
        "Free memory, then take the pages back.",
        ("sudo swapoff -a && sudo swapon -a",),
    )


def _disk(facts: MachineFacts) -> Check:
    if facts.store_free_bytes is None:
        return Check("disk", "unknown", f"the room at {facts.store} cannot be told")
    finding = f"{_size(facts.store_free_bytes)} free for the store {facts.store}"
    if facts.store_free_bytes >= STORE_BYTES:
        return Check("disk", "ok", finding)
    return Check(
        "disk", "warning", finding, "Free some space there, or name another folder.", ("pytest -m cpu --gate-store=FOLDER",)
    )


# What can be run, and how steadily


def _runtimes(facts: MachineFacts) -> Check:
    able = [name for name, backend in facts.backends.items() if backend.get("can_run")]
    details = tuple(_backend_text(name, backend) for name, backend in facts.backends.items())
    if able:
        return Check("runtimes", "ok", f"{len(able)} of {len(facts.backends)} can run models here", details=details)
    return Check(
        "runtimes",
        "warning",
        "none can run a model here",
        "Install one beside the gate, or name the Python that has it with --python here and --gate-run-with in pytest.",
        ("pip install 'pytest-inference-gate[tflite]'",),
        details,
    )


def _backend_text(name: str, backend: Mapping[str, Any]) -> str:
    runtime = backend.get("runtime") or {}
    version = f" {runtime['version']}" if runtime.get("version") else ""
    why_not = str(backend.get("conversion_reason") or "")  # though it passes through what is converted already
    can = {"runs": backend.get("can_run"), "converts": backend.get("can_convert") and not why_not}
    able = [word for word, answer in can.items() if answer]
    reason = str(backend.get("reason") or why_not)
    if len(able) == 2 or (able and not reason):
        reason = ""
    return f"{name}{version}: {' and '.join(able) or 'not here'}{f'; {reason}' if reason else ''}"


def _steadiness(facts: MachineFacts) -> Check:
    tolerances = {kernel: smallest_tolerance([reading[kernel] for reading in facts.readings]) for kernel in KERNELS}
    known = {kernel: tolerance for kernel, tolerance in tolerances.items() if tolerance is not None}
    if not known:
        return Check(
            "steadiness",
            "unknown",
            "the canary gave fewer than three readings: take more with --seconds",
            details=tuple(facts.remarks),
        )
    details = []
    for kernel, tolerance in known.items():
        spread = _spread([reading[kernel] for reading in facts.readings])
        details.append(f"{_KERNEL_WORDS[kernel]:<9} {spread}, tolerance from {tolerance:.0%}")
    unsteady, worst = max(known.items(), key=lambda item: item[1])
    finding = f"the canary, {len(facts.readings)} times"
    if worst <= DEFAULT_TOLERANCE:
        return Check("steadiness", "ok", finding, details=(*details, *facts.remarks))
    return Check(
        "steadiness",
        "warning",
        finding,
        f"Quieten the machine as said above, gate in turns with --gate-against, or allow a tolerance of {worst:.0%} for models that "
        f"are bound by its {_KERNEL_WORDS[unsteady]}.",
        (f"pytest -m cpu --benchmark-compare --gate-tolerance={worst:.0%}",),
        (*details, *facts.remarks),
    )


def _spread(values: Sequence[float]) -> str:
    centre = median(values)
    return f"±{session_spread(values):.1%} ({min(values) / centre - 1:+.1%} to {max(values) / centre - 1:+.1%})"


# Words


def _no_frequencies(facts: MachineFacts) -> str:
    kinds: dict[Kind, str] = {"virtual-machine": "the host keeps its clocks to itself"}
    return kinds.get(facts.identity.kind, "the kernel shows no control of frequencies here")


def _process_seconds(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    old, new = before.get("process_seconds"), after.get("process_seconds")
    return None if old is None or new is None else float(new) - float(old)


def _megahertz(kilohertz: Iterable[int]) -> str:
    values = sorted({value // 1000 for value in kilohertz})
    return "" if not values else f"{values[0]} MHz" if len(values) == 1 else f"{values[0]}-{values[-1]} MHz"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


_CHECKS: tuple[Callable[[MachineFacts], Check], ...] = (
    _cores,
    _governor,
    _clocks,
    _boost,
    _power,
    _throttling,
    _temperature,
    _load,
    _steal,
    _virtual,
    _memory,
    _swap,
    _disk,
    _runtimes,
    _steadiness,
)

_FIRST_OF_ACCELERATORS = _CHECKS.index(_load)  # after what the processor and its power supply do
