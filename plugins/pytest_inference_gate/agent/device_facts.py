"""What this machine is, and in which condition it is right now, read from /proc and /sys.

Two questions: `collect` says what does not change during a session (board, processor, cores, frequency limits), `condition` says
what does (temperatures, throttle counters, load). Both only read small files, take well under 10 ms on an idle machine, start no
process and need no rights. What cannot be read is None and never guessed. Every function takes `root`, the directory that stands
for /, so that the file tree of another device can be read, and nothing else than that tree is looked at when it is not /.

What only some devices have is in modules of its own: `jetson_facts`, `accelerator_facts` (Edge TPUs, discrete GPUs), `power_rails`,
`system_packages` (CUDA, TensorRT and others that the system brings).

Python 3.6, standard library only.
"""

import os
import re
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple  # noqa: F401

from . import accelerator_facts, jetson_facts, power_rails, system_packages
from .device_files import boolean, exists, find, first_line, integer, is_here, read, read_integer

Facts = Dict[str, Any]

# Reading a current frequency makes some kernels sample the core for a while; a machine with many cores is not read to the end.
FREQUENCY_BUDGET_SECONDS = 0.004

CPU = "sys/devices/system/cpu"

# Names of cores by (implementer, part) of the main ID register; Linux prints numbers only on 64-bit Arm.
ARM_CORES = {
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
}


def collect(root="/"):
    # type: (str) -> Facts
    """What this machine is, as plain JSON. Frequencies in kHz, sizes in bytes, cores as lists of numbers."""
    root = str(root)
    cpu = cpu_facts(root)
    policies = frequency_policies(root)
    online = parse_cores(read(root, CPU, "online"))
    if online is None and cpu["processors"]:
        online = cpu["processors"]
    allowed = allowed_cores(root)
    quota = cpu_quota(root)
    board = board_facts(root)
    packages = system_packages.dpkg_versions(root)
    locked = clocks_locked(policies)
    jetson = None
    if jetson_facts.is_jetson(root, board):
        jetson = jetson_facts.jetson_facts(root, packages, locked)
        locked = all_locked(jetson["locked"])
    return {
        "machine": machine(root),
        "pointer_bits": (64 if sys.maxsize > 2**32 else 32) if is_here(root) else None,
        "system": kernel_says(root, "sysname"),
        "kernel": read(root, "proc/sys/kernel/osrelease") or kernel_says(root, "release"),
        "os": os_name(root),
        "board": board,
        "cpu": cpu,
        "cores": {
            "online": online,
            "allowed": allowed,
            "quota": quota,
            "usable": usable_cores(online, allowed, quota),
        },
        "memory_total_bytes": memory(root, "MemTotal"),
        "frequency_policies": policies,
        "clocks_locked": locked,
        "turbo": turbo(root),
        "smt": boolean(read(root, CPU, "smt/active")),
        "power_profile": read(root, "sys/firmware/acpi/platform_profile"),
        "hypervisor": hypervisor(root),
        "container": container(root),
        "l4t_release_line": first_line(read(root, "etc/nv_tegra_release")),
        "jetson": jetson,  # None for everything else
        "edge_tpus": accelerator_facts.edge_tpus(root),
        "gpus": [] if jetson else accelerator_facts.gpus(root),
        "system_software": system_packages.system_software(root, packages),
        "power_rails": [sensor[0] for sensor in power_rails.rail_sensors(root)],
    }


def condition(root="/"):
    # type: (str) -> Facts
    """In which condition this machine is now, as plain JSON. Temperatures in degrees Celsius, frequencies in kHz, power in mW."""
    root = str(root)
    gpu, memory_clock = jetson_facts.gpu_clocks(root), jetson_facts.memory_clock(root)
    policies = frequency_policies(root)
    ticks = processor_ticks(root)
    process_seconds = time.process_time() if is_here(root) else None
    return {
        "time": time.time(),  # seconds since the epoch
        "monotonic": time.monotonic(),
        "load_average": load_average(root),
        "online": parse_cores(read(root, CPU, "online")),
        "allowed": allowed_cores(root),
        "governors": by_policy(policies, "governor"),
        "minimum_khz": by_policy(policies, "minimum_khz"),
        "maximum_khz": by_policy(policies, "maximum_khz"),
        "current_khz": current_frequencies(root),
        "gpu_minimum_khz": by_policy(gpu, "minimum_khz"),
        "gpu_maximum_khz": by_policy(gpu, "maximum_khz"),
        "gpu_current_khz": by_policy(gpu, "current_khz"),
        "memory_clock": memory_clock,  # "current_khz", "maximum_khz"; the external memory's of a Jetson
        "power_mode": jetson_facts.power_mode(root),
        "turbo": turbo(root),
        "power_profile": read(root, "sys/firmware/acpi/platform_profile"),
        "on_battery": on_battery(root),
        "thermal_zones": thermal_zones(root),
        "throttle_counts": throttle_counts(root),
        "raspberry_pi_throttled": raspberry_pi_throttled(root),
        "power_milliwatts": power_rails.read_rails(root, power_rails.rail_sensors(root)),
        "steal_ticks": ticks["steal"],
        "busy_ticks": ticks["busy"],
        "total_ticks": ticks["total"],
        "ticks_per_second": ticks_per_second(root),
        "process_seconds": process_seconds,  # user and system, of this process and its threads
        "memory_available_bytes": memory(root, "MemAvailable"),
        "swap_used_bytes": swap_used(root),
    }


def span(before, after):
    # type: (Facts, Facts) -> Facts
    """Two conditions with a piece of work of this process between them, and the processor time that it took for that in seconds."""
    return {"before": before, "after": after, "process_seconds": after["process_seconds"] - before["process_seconds"]}


# Reading


def kernel_says(root, field):
    # type: (str, str) -> Optional[str]
    """A field of uname for this machine. The platform module would start a process to fill in what nobody asks for here."""
    if not is_here(root) or not hasattr(os, "uname"):
        return None
    return getattr(os.uname(), field) or None


def parse_cores(text):
    # type: (Optional[str]) -> Optional[List[int]]
    """The numbers of a list such as `0-2,5`; None if it is none."""
    if not text:
        return None
    cores = set()  # type: Set[int]
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            cores.update(range(int(first), int(last or first) + 1))
    except ValueError:
        return None
    return sorted(cores)


# What it is


def machine(root):
    # type: (str) -> Optional[str]
    """The architecture that the kernel names, such as `x86_64` or `aarch64`; `aarch64 emulated on x86_64` where a program stands between.

    An emulator answers uname for the processor that it emulates, and lets files through as they are.
    """
    kernel, told = read(root, "proc/sys/kernel/arch"), kernel_says(root, "machine")
    if kernel and told and None not in (_family(kernel), _family(told)) and _family(kernel) != _family(told):
        return "%s emulated on %s" % (told, kernel)
    return kernel or told


def _family(machine):
    # type: (str) -> Optional[str]
    """What the names of one architecture have in common: a 64-bit kernel may call itself a 32-bit one to programs that ask for that."""
    families = (("x86", ("x86", "i386", "i486", "i586", "i686")), ("arm", ("aarch64", "arm")), ("riscv", ("riscv",)))
    for name, beginnings in families:
        if machine.startswith(beginnings):
            return name
    return None


def os_name(root):
    # type: (str) -> Optional[str]
    text = read(root, "etc/os-release") or read(root, "usr/lib/os-release") or ""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "PRETTY_NAME":
            return value.strip().strip("\"'") or None
    return None


def board_facts(root):
    # type: (str) -> Facts
    """The board's name from the device tree (single boards); maker and product from the firmware tables (PCs, servers)."""
    compatible = read(root, "proc/device-tree/compatible") or read(root, "sys/firmware/devicetree/base/compatible")
    model = read(root, "proc/device-tree/model") or read(root, "sys/firmware/devicetree/base/model")
    if model is None and (read(root, "sys/devices/soc0/family") or "").lower().startswith("tegra"):
        model = read(root, "sys/devices/soc0/machine")  # a container hides the device tree, and this not
    return {
        "model": model,
        "compatible": compatible.split("\0") if compatible else [],
        "vendor": read(root, "sys/class/dmi/id/sys_vendor"),
        "product": read(root, "sys/class/dmi/id/product_name"),
    }


def cpu_facts(root):
    # type: (str) -> Facts
    """What /proc/cpuinfo says; its fields differ between architectures, and some Arm boards have several kinds of core."""
    text = read(root, "proc/cpuinfo") or ""
    processors = []  # type: List[int]
    kinds = {}  # type: Dict[Tuple[int, int], int]
    first = {}  # type: Dict[str, str]
    common = {}  # type: Dict[str, str]
    for block in re.split(r"\n\s*\n", text):
        fields = {}
        for line in block.splitlines():
            key, colon, value = line.partition(":")
            if colon:
                # The upper-case keys of Arm (`Hardware`, `Model`) differ from the lower-case ones of x86 (`model`).
                fields[key.strip()] = value.strip()
        if "processor" in fields and fields["processor"].isdigit():
            processors.append(int(fields["processor"]))
            first = first or fields
            implementer, part = integer(fields.get("CPU implementer"), 0), integer(fields.get("CPU part"), 0)
            if implementer is not None and part is not None:
                kinds[implementer, part] = kinds.get((implementer, part), 0) + 1
        for key in ("Hardware", "Model"):
            if key in fields:
                common[key] = fields[key]
    model = first.get("model name")
    cores = [
        {"implementer": kind[0], "part": kind[1], "name": ARM_CORES.get(kind), "count": kinds[kind]} for kind in sorted(kinds)
    ]
    flags = first.get("flags")
    return {
        "model": model,
        "vendor": first.get("vendor_id"),
        "family": integer(first.get("cpu family")),
        "model_number": integer(first.get("model")),
        "stepping": integer(first.get("stepping")),
        "microcode": first.get("microcode"),
        "cores": cores,
        "hardware": common.get("Hardware"),
        "board_model": common.get("Model"),
        "processors": sorted(processors),
        "hypervisor_flag": None if flags is None else "hypervisor" in flags.split(),
    }


def allowed_cores(root):
    # type: (str) -> Optional[List[int]]
    """The cores on which this process may run."""
    text = read(root, "proc/self/status") or ""
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)", text, re.MULTILINE)
    return parse_cores(match.group(1)) if match else None


def cpu_quota(root):
    # type: (str) -> Optional[float]
    """How many cores' worth of time the control groups around this process grant; None for no limit."""
    limits = []  # type: List[float]
    for line in (read(root, "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        number, controllers, path = parts
        if number == "0" and not controllers:
            limits.extend(quotas_upwards(root, ["sys/fs/cgroup", "sys/fs/cgroup/unified"], path, quota_of_version_2))
        elif "cpu" in controllers.split(","):
            limits.extend(quotas_upwards(root, ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"], path, quota_of_version_1))
    return min(limits) if limits else None


def quotas_upwards(root, mounts, path, quota_of):
    # type: (str, List[str], str, Callable[[str, str], Optional[float]]) -> List[float]
    """The limits of a group and of all groups around it; in a container the path may not exist below the mount."""
    limits = []
    folder = path.strip("/")
    while True:
        for mount in mounts:
            limit = quota_of(root, os.path.join(mount, folder))
            if limit is not None:
                limits.append(limit)
        if not folder:
            return limits
        folder = os.path.dirname(folder)


def quota_of_version_2(root, folder):
    # type: (str, str) -> Optional[float]
    parts = (read(root, folder, "cpu.max") or "").split()
    if len(parts) != 2:
        return None
    return ratio(integer(parts[0]), integer(parts[1]))


def quota_of_version_1(root, folder):
    # type: (str, str) -> Optional[float]
    return ratio(read_integer(root, folder, "cpu.cfs_quota_us"), read_integer(root, folder, "cpu.cfs_period_us"))


def ratio(quota, period):
    # type: (Optional[int], Optional[int]) -> Optional[float]
    # "max" in version 2 and -1 in version 1 mean no limit.
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return quota / float(period)


def usable_cores(online, allowed, quota):
    # type: (Optional[List[int]], Optional[List[int]], Optional[float]) -> Optional[float]
    """How many cores this process can use at most, a fraction under a quota; None if unknown."""
    known = [set(cores) for cores in (online, allowed) if cores is not None]
    if not known:
        return None
    count = len(set.intersection(*known))
    return min(count, quota) if quota is not None else count


def memory(root, key):
    # type: (str, str) -> Optional[int]
    match = re.search(r"^%s:\s*([0-9]+) kB" % re.escape(key), read(root, "proc/meminfo") or "", re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def frequency_policies(root):
    # type: (str) -> List[Facts]
    """Governor and limits of each group of cores that shares a clock; an empty list where the kernel controls no frequency."""
    folders = find(root, CPU + "/cpufreq/policy[0-9]*") or find(root, CPU + "/cpu[0-9]*/cpufreq")
    policies = []
    for folder in folders:
        name = os.path.basename(folder)
        policies.append(
            {
                "name": name if name != "cpufreq" else os.path.basename(os.path.dirname(folder)),
                "driver": read(root, folder, "scaling_driver"),
                "governor": read(root, folder, "scaling_governor"),
                "minimum_khz": read_integer(root, folder, "scaling_min_freq"),
                "maximum_khz": read_integer(root, folder, "scaling_max_freq"),
                "hardware_minimum_khz": read_integer(root, folder, "cpuinfo_min_freq"),
                "hardware_maximum_khz": read_integer(root, folder, "cpuinfo_max_freq"),
            }
        )
    return policies


def clocks_locked(policies):
    # type: (List[Facts]) -> Optional[bool]
    """Whether every clock is held at one frequency; None where that cannot be read."""
    if not policies or any(policy["minimum_khz"] is None or policy["maximum_khz"] is None for policy in policies):
        return None
    return all(policy["minimum_khz"] == policy["maximum_khz"] for policy in policies)


def all_locked(locked):
    # type: (Dict[str, Optional[bool]]) -> Optional[bool]
    """Of a Jetson: free if the clock of processor, GPU or memory is known to be.

    Not everybody may read the memory's: the two others tell then.
    """
    if locked["cpu"] is None:
        return None
    return all(state for state in locked.values() if state is not None)


def by_policy(policies, key):
    # type: (List[Facts], str) -> Facts
    """One fact of each group of cores, or of each domain of a GPU, by its name."""
    return {policy["name"]: policy[key] for policy in policies if policy[key] is not None}


def turbo(root):
    # type: (str) -> Optional[bool]
    boost = boolean(read(root, CPU, "cpufreq/boost"))
    if boost is not None:
        return boost
    disabled = boolean(read(root, CPU, "intel_pstate/no_turbo"))
    return None if disabled is None else not disabled


def hypervisor(root):
    # type: (str) -> Optional[bool]
    """Whether this is a virtual machine: the processor flag of x86, the device tree's node elsewhere; None if neither tells."""
    if exists(root, "proc/device-tree/hypervisor") or read(root, "sys/hypervisor/type"):
        return True
    flag = cpu_facts(root)["hypervisor_flag"]  # type: Optional[bool]
    return flag


def container(root):
    # type: (str) -> Optional[str]
    """The kind of container, as far as it shows; None if nothing shows one."""
    if exists(root, ".dockerenv"):
        return "docker"
    if exists(root, "run/.containerenv"):
        return "podman"
    named = read(root, "run/systemd/container")
    if named:
        return named
    match = re.search(r"(docker|kubepods|lxc|libpod|containerd)", read(root, "proc/1/cgroup") or "")
    return match.group(1) if match else None


# In which condition it is


def load_average(root):
    # type: (str) -> Optional[List[float]]
    """Over 1, 5 and 15 minutes."""
    try:
        return [float(part) for part in (read(root, "proc/loadavg") or "").split()[:3]] or None
    except ValueError:
        return None


def current_frequencies(root):
    # type: (str) -> Dict[str, int]
    """By core, in kHz; as many cores as can be read quickly."""
    deadline = time.monotonic() + FREQUENCY_BUDGET_SECONDS
    frequencies = {}  # type: Dict[str, int]
    for folder in find(root, CPU + "/cpu[0-9]*/cpufreq"):
        if time.monotonic() > deadline:
            break
        frequency = read_integer(root, folder, "scaling_cur_freq")
        if frequency is not None:
            frequencies[os.path.basename(os.path.dirname(folder))] = frequency
    if not frequencies:
        for number, megahertz in enumerate(
            re.findall(r"^cpu MHz\s*:\s*([0-9.]+)", read(root, "proc/cpuinfo") or "", re.MULTILINE)
        ):
            try:
                frequencies["cpu%d" % number] = int(float(megahertz) * 1000)
            except ValueError:
                continue
    return frequencies


def on_battery(root):
    # type: (str) -> Optional[bool]
    """True when a mains supply says that it is off; None where there is none."""
    mains = [
        boolean(read(root, folder, "online"))
        for folder in find(root, "sys/class/power_supply/*")
        if read(root, folder, "type") == "Mains"
    ]
    known = [online for online in mains if online is not None]
    if not known:
        return None
    return not any(known)


def thermal_zones(root):
    # type: (str) -> List[Facts]
    zones = []
    for folder in find(root, "sys/class/thermal/thermal_zone[0-9]*"):
        millidegrees = read_integer(root, folder, "temp")
        # A unit without power reads as -256 degrees on Jetson boards, and some drivers say 0 K.
        name = read(root, folder, "type") or os.path.basename(folder)
        # The power management chip of a Jetson has no sensor: firmware shows one of two round figures instead.
        placeholder = name.lower().startswith("pmic") and millidegrees in (50000, 100000)
        if millidegrees is not None and millidegrees > -200000 and not placeholder:
            zones.append({"name": name, "celsius": millidegrees / 1000.0})
    return zones + accelerator_facts.edge_tpu_temperatures(root)


def throttle_counts(root):
    # type: (str) -> Dict[str, int]
    """Counters that only grow since the machine was started: thermal throttling on x86, over-current events on Jetson boards."""
    counts = {}
    for path in find(root, CPU + "/cpu[0-9]*/thermal_throttle/*_count"):
        count = read_integer(root, path)
        if count is not None:
            counts["%s/%s" % (path.split("/")[-3], os.path.basename(path))] = count
    for folder in find(root, "sys/class/hwmon/hwmon[0-9]*"):
        if read(root, folder, "name") == "soctherm_oc":
            for path in find(root, folder + "/oc[0-9]*_event_cnt"):
                count = read_integer(root, path)
                if count is not None:
                    counts["soctherm_oc/%s" % os.path.basename(path)] = count
    return counts


def raspberry_pi_throttled(root):
    # type: (str) -> Optional[int]
    """The firmware's bits: 0-3 under-voltage, capped, throttled, hot now; 16-19 the same since start. None elsewhere."""
    for path in find(root, "sys/devices/platform/soc*/*firmware/get_throttled"):
        bits = integer(read(root, path), 16)
        if bits is not None:
            return bits
    return None


def processor_ticks(root):
    # type: (str) -> Dict[str, Optional[int]]
    """Of all cores since the machine was started: what processes and interrupts used, what the hypervisor gave to others, and all."""
    match = re.search(r"^cpu\s+([0-9 ]+)$", read(root, "proc/stat") or "", re.MULTILINE)
    if not match:
        return {"busy": None, "steal": None, "total": None}
    # user nice system idle iowait irq softirq steal; guest times after them are contained in user and nice.
    ticks = [int(part) for part in match.group(1).split()][:8]
    if len(ticks) < 8:
        return {"busy": None, "steal": None, "total": sum(ticks)}
    return {"busy": sum(ticks) - ticks[3] - ticks[4] - ticks[7], "steal": ticks[7], "total": sum(ticks)}


def ticks_per_second(root):
    # type: (str) -> Optional[int]
    """The unit of those ticks, of which only this machine's kernel can tell."""
    if not is_here(root) or not hasattr(os, "sysconf"):
        return None
    try:
        return os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def swap_used(root):
    # type: (str) -> Optional[int]
    """Bytes; None where that cannot be read, 0 where there is no swap."""
    total, free = memory(root, "SwapTotal"), memory(root, "SwapFree")
    return None if total is None or free is None else total - free
