"""Which device this is, which software is under test on it, and in which condition it is.

Three things that must not be mixed up. The identity is what must be equal for two timings to be comparable, and names the
directory of the baselines. The software under test is what an upgrade changes: it is recorded and shown, and never part of that
name, or no upgrade would ever meet its baseline. The condition is what may change in the middle of a run and spoil its timings.

All three are made from the plain facts of ``agent/device_facts.py``, read where the agent runs. A missing fact is None.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["jetson", "raspberry-pi", "board", "computer", "virtual-machine", "unknown"]

# What firmware says where nobody filled in a name, and what virtual machines show as their board.
_NO_NAMES = frozenset(
    {"", "default string", "to be filled by o.e.m.", "system product name", "system manufacturer", "none", "unknown"}
)
_VIRTUAL_BOARD = "linux,dummy-virt"
_LONGEST_NAME = 48
# Since start, in bits 16 to 19 of what the firmware of a Raspberry Pi says; bits 0 to 3 say the same of this moment.
_RASPBERRY_PI_BITS = (
    "its supply voltage was too low",
    "its frequency was capped",
    "it was throttled",
    "it reached its soft temperature limit",
)
# The counters of a Jetson since Orin.
_OVER_CURRENT = {
    "oc1_event_cnt": "under-voltage",
    "oc2_event_cnt": "too high an average current",
    "oc3_event_cnt": "too high a current",
}


@dataclass(frozen=True)
class DeviceIdentity:
    """What must be equal for two timings to be comparable.

    ``board`` is the name in the device tree or in the firmware tables. ``cpu_signature`` tells processors apart that share a
    model name (virtual machines often hide it). ``usable_cores`` is what affinity and control groups leave of ``online_cores``.
    ``power_mode`` is the name of a Jetson's power mode (its number means another one on each board), else of the active power profile.
    ``clocks_locked`` tells of the processor's clock and, on a Jetson, of those of GPU and memory. ``links`` tells how accelerators are
    attached: ``edgetpu`` by pcie, usb3 or usb2; ``cuda``, discrete GPUs, by their PCI ids, which no driver changes.
    """

    kind: Kind = "unknown"
    board: str | None = None
    cpu_model: str | None = None
    cpu_signature: str | None = None
    machine: str | None = None
    online_cores: int | None = None
    usable_cores: float | None = None
    power_mode: str | None = None
    clocks_locked: bool | None = None
    virtual: bool | None = None
    links: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> DeviceIdentity:
        """From the ``device`` facts of a probe; anything that is absent there is unknown."""
        cpu = _mapping(facts, "cpu")
        cores = _mapping(facts, "cores")
        online = cores.get("online")
        return cls(
            kind=_kind(facts),
            board=_board(facts),
            cpu_model=_cpu_model(cpu),
            cpu_signature=_cpu_signature(cpu),
            machine=facts.get("machine"),
            online_cores=len(online) if online else None,
            usable_cores=cores.get("usable"),
            power_mode=_mapping(facts, "jetson").get("power_mode") or facts.get("power_profile"),
            clocks_locked=facts.get("clocks_locked"),
            virtual=facts.get("hypervisor"),
            links=_links(facts),
        )

    @property
    def id(self) -> str:
        """A readable name and 8 hex digits of the digest of the identity, as in ``amd-epyc-2core-x86_64-1a2b3c4d``."""
        return "-".join([*self._name_parts(), self._digest()[:8]])

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, as it is kept in a session file."""
        return asdict(self)

    def _name_parts(self) -> Iterable[str]:
        named_by_board = self.kind in ("jetson", "raspberry-pi", "board") and self.board
        name = self.board if named_by_board else (self.cpu_model or (None if self.virtual else self.board))
        yield _slug(name or "") or "unknown-device"
        if self.usable_cores is not None:
            yield f"{self.usable_cores:g}core"
        if self.power_mode and _slug(self.power_mode):
            yield _slug(self.power_mode)
        if "edgetpu" in self.links:
            yield "edgetpu-" + _slug(self.links["edgetpu"])
        if self.machine:
            yield _slug(self.machine)

    def _digest(self) -> str:
        # What is unknown is left out, so that a field that a later release adds does not rename every device that lacks it.
        known = {key: value for key, value in self.as_dict().items() if value is not None and value != {}}
        if self.usable_cores is not None:
            known["usable_cores"] = float(self.usable_cores)
        return hashlib.sha256(json.dumps(known, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def identity_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two identities as :meth:`DeviceIdentity.as_dict` gives them, such as ``"online cores 4 -> 2"``."""
    return [
        f"{key.replace('_', ' ')} {_value_text(before.get(key))} -> {_value_text(after.get(key))}"
        for key in sorted({*before, *after})
        if (before.get(key) or None) != (after.get(key) or None)
    ]


def local_identity() -> DeviceIdentity:
    """The identity of this machine, read in this process: a few small files of /proc and /sys, and what a board's own program says."""
    from .agent import device_facts, device_programs

    return DeviceIdentity.from_facts(device_programs.complete(device_facts.collect()))


@dataclass(frozen=True)
class SoftwareUnderTest:
    """Versions by name: Python, kernel, operating system, microcode, the packages that matter; what is unknown is absent.

    What the system brings besides: L4T, JetPack (``unknown`` where the release is known and nothing tells its JetPack), CUDA, cuDNN, the
    library of TensorRT (the package of that name is its binding), the Edge TPU's runtime and its compiler, drivers.

    The governor and the boost of the processor are here as well: an upgrade of the system may change them, and then the gate
    should say so instead of missing its baseline.
    """

    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_probe(cls, probe: Mapping[str, Any]) -> SoftwareUnderTest:
        """From the reply to the agent's ``probe``."""
        facts = _mapping(probe, "device")
        python, implementation = probe.get("python"), probe.get("implementation")
        if python and implementation not in (None, "CPython"):
            python = f"{python} ({implementation})"
        bits = facts.get("pointer_bits")
        boost = facts.get("turbo")
        versions: dict[str, Any] = {
            **_mapping(probe, "packages"),
            "python": python,
            "userland": f"{bits}-bit" if bits else None,
            "kernel": facts.get("kernel") or probe.get("release"),
            "os": facts.get("os"),
            **_system_software(facts),
            "edgetpu-compiler": _edge_tpu_compiler(probe),
            **_jetson_release(facts),
            "microcode": _mapping(facts, "cpu").get("microcode"),
            "cpu-governor": _governors(facts.get("frequency_policies")),
            "cpu-boost": None if boost is None else "on" if boost else "off",
        }
        return cls({name: str(version) for name, version in sorted(versions.items()) if version is not None})

    def with_converter(self, converter: SoftwareUnderTest) -> SoftwareUnderTest:
        """These versions, and those that another environment converts with under ``converter:`` names, where they differ."""
        others = {
            f"converter:{name}": version for name, version in converter.versions.items() if self.versions.get(name) != version
        }
        return SoftwareUnderTest({**self.versions, **others})

    @staticmethod
    def changes(before: Mapping[str, str] | SoftwareUnderTest, after: Mapping[str, str] | SoftwareUnderTest) -> list[str]:
        """What changed, by name, such as ``"ai-edge-litert 2.1.0 -> 2.3.0"``; ``none`` stands for not there or not known."""
        old, new = (side.versions if isinstance(side, SoftwareUnderTest) else side for side in (before, after))
        names = sorted({*old, *new})
        versions = ((name, version_of(old, name), version_of(new, name)) for name in names)
        return [f"{name} {was or 'none'} -> {now or 'none'}" for name, was, now in versions if was != now]


def version_of(versions: Mapping[str, str], name: str) -> str | None:
    """The version under a name, None where there is none.

    Where an environment converts by itself, what it converts with (``converter:NAME``) stands under the plain names.
    """
    return versions.get(name, versions.get(name.removeprefix("converter:")))


@dataclass(frozen=True)
class Condition:
    """The condition of a device at one moment: the facts of ``device_facts.condition``, as they came."""

    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Condition:
        return cls(dict(facts))

    @classmethod
    def now(cls) -> Condition:
        """The condition of this machine now, read in this process."""
        from .agent import device_facts

        return cls(device_facts.condition())

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, as it is kept in a session file."""
        return dict(self.facts)

    def problems(self, after: Condition) -> list[str]:
        """Why timings taken between this moment and `after` are invalid, one clause each; empty when nothing speaks against them.

        Only what both moments know is compared.
        """
        return [
            *_throttling(self.facts, after.facts),
            *_raspberry_pi_throttling(self.facts, after.facts),
            *_changed_settings(self.facts, after.facts),
            *_changed_policies(self.facts, after.facts),
            *_unlocked_memory(self.facts, after.facts),
        ]


# Identity


def _links(facts: Mapping[str, Any]) -> dict[str, str]:
    edge_tpus = [str(one["link"]) for one in facts.get("edge_tpus") or []]
    gpus = [str(one.get("id") or one.get("name") or "unknown") for one in facts.get("gpus") or []]
    return {name: _counted(attached) for name, attached in (("edgetpu", edge_tpus), ("cuda", gpus)) if attached}


def _counted(names: list[str]) -> str:
    """``"2x pcie + usb3"``."""
    counts = {name: names.count(name) for name in sorted(names)}
    return " + ".join(name if count == 1 else f"{count}x {name}" for name, count in counts.items())


def _kind(facts: Mapping[str, Any]) -> Kind:
    board = _mapping(facts, "board")
    model = str(board.get("model") or _mapping(facts, "cpu").get("board_model") or "")
    compatible = [str(name) for name in board.get("compatible") or []]
    if facts.get("hypervisor") or model == _VIRTUAL_BOARD:
        return "virtual-machine"
    if facts.get("jetson") or any(name.startswith("nvidia,tegra") for name in compatible) or "jetson" in model.lower():
        return "jetson"
    if model.startswith("Raspberry Pi"):
        return "raspberry-pi"
    if model and not _named(board.get("product")):
        return "board"
    return "computer" if facts.get("machine") or _cpu_model(_mapping(facts, "cpu")) else "unknown"


def _board(facts: Mapping[str, Any]) -> str | None:
    board = _mapping(facts, "board")
    tree = board.get("model") or _mapping(facts, "cpu").get("board_model")
    if tree and tree != _VIRTUAL_BOARD:
        return str(tree)
    vendor, product = _named(board.get("vendor")), _named(board.get("product"))
    if vendor and product and product.lower().startswith(vendor.lower()):
        return product
    return " ".join(name for name in (vendor, product) if name) or None


def _named(text: Any) -> str | None:
    """A name of the firmware tables, unless it is what stands there when nobody filled it in."""
    name = str(text or "").strip()
    return None if name.lower() in _NO_NAMES else name


def _cpu_model(cpu: Mapping[str, Any]) -> str | None:
    cores = cpu.get("cores") or []
    if cores:
        # Heterogeneous boards have several kinds. 32-bit Arm kernels call all of them "ARMv7 Processor", so the parts come first.
        return " + ".join(core.get("name") or f"{core['implementer']:#04x}/{core['part']:#05x}" for core in cores)
    model = cpu.get("model") or cpu.get("hardware")
    return str(model) if model else None


def _cpu_signature(cpu: Mapping[str, Any]) -> str | None:
    cores = cpu.get("cores") or []
    if cores:
        return " + ".join(f"{core['count']}x{core['implementer']:#04x}/{core['part']:#05x}" for core in cores)
    if cpu.get("vendor") and cpu.get("family") is not None and cpu.get("model_number") is not None:
        return f"{cpu['vendor']} family {cpu['family']} model {cpu['model_number']}"
    return None


def _slug(text: str) -> str:
    plain = re.sub(r"\((?:r|tm|c)\)|@.*|\b(?:cpu|processor|\d+-core)\b", " ", text.lower())
    slug = re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._")
    # Cut where a word ends, so that the name stays readable.
    return slug if len(slug) <= _LONGEST_NAME else slug[: _LONGEST_NAME + 1].rpartition("-")[0] or slug[:_LONGEST_NAME]


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value[key]}" for key in sorted(value)) or "unknown"
    return "unknown" if value is None else str(value)


# Software


def _edge_tpu_compiler(probe: Mapping[str, Any]) -> str | None:
    """A program, so that neither packages nor files of the device tell its version."""
    version = _mapping(_mapping(_mapping(probe, "backends"), "edgetpu"), "converter").get("edgetpu_compiler")
    return None if version is None else str(version)


def _system_software(facts: Mapping[str, Any]) -> dict[str, str]:
    # Python's binding of TensorRT is a package of the plain name.
    names = {"tensorrt": "tensorrt-library"}
    found = _mapping(facts, "system_software")
    return {names.get(name, name): str(entry["version"]) for name, entry in found.items() if entry}


def _jetson_release(facts: Mapping[str, Any]) -> dict[str, str | None]:
    jetson = _mapping(facts, "jetson")
    l4t = _mapping(jetson, "l4t").get("version") or _l4t(facts.get("l4t_release_line"))
    jetpack = _mapping(jetson, "jetpack").get("version")
    return {"l4t": l4t, "jetpack": jetpack or ("unknown" if jetson and l4t else None)}


def _l4t(line: Any) -> str | None:
    """``"36.4.7"`` from ``# R36 (release), REVISION: 4.7, ...``; the whole line if it looks otherwise."""
    if not line:
        return None
    match = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)?)", str(line))
    return f"{match[1]}.{match[2]}" if match else str(line)


def _governors(policies: Any) -> str | None:
    names = {str(policy["governor"]) for policy in policies or [] if policy.get("governor")}
    return "+".join(sorted(names)) or None


# Condition


def _throttling(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    old, new = _mapping(before, "throttle_counts"), _mapping(after, "throttle_counts")
    grown: dict[str, list[tuple[str, int]]] = {}
    for name in sorted(new):
        if name in old and new[name] > old[name]:
            place, _, counter = name.partition("/")
            grown.setdefault(counter, []).append((place, new[name] - old[name]))
    for counter, places in grown.items():
        # A counter of the package reads the same on each of its cores.
        events = max(count for _, count in places)
        if counter in _OVER_CURRENT:
            yield f"the board was throttled for {_OVER_CURRENT[counter]} ({counter} grew by {events})"
            continue
        where = ", ".join(place for place, _ in places[:4]) + (", ..." if len(places) > 4 else "")
        yield f"the processor was throttled ({counter} grew by {events} on {where})"


def _raspberry_pi_throttling(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    old, new = before.get("raspberry_pi_throttled"), after.get("raspberry_pi_throttled")
    if old is None or new is None:
        return
    happened = ((new & ~old) >> 16) | old | new
    for bit, clause in enumerate(_RASPBERRY_PI_BITS):
        if happened >> bit & 1:
            yield f"the Raspberry Pi reports that {clause}"


def _changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    for key, name in (
        ("online", "the online cores"),
        ("allowed", "the cores that it may use"),
        ("turbo", "the boost of the processor"),
        ("power_profile", "the power profile"),
        ("power_mode", "the power mode"),
        ("on_battery", "running on battery"),
    ):
        old, new = before.get(key), after.get(key)
        if old is not None and new is not None and old != new:
            yield f"{name} changed from {_setting_text(old)} to {_setting_text(new)}"


def _changed_policies(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    for key, name, unit in (
        ("governors", "the governor", ""),
        ("minimum_khz", "the lowest frequency", " kHz"),
        ("maximum_khz", "the highest frequency", " kHz"),
        ("gpu_minimum_khz", "the GPU's lowest frequency", " kHz"),
        ("gpu_maximum_khz", "the GPU's highest frequency", " kHz"),
    ):
        old, new = _mapping(before, key), _mapping(after, key)
        changed: dict[str, list[str]] = {}
        for policy in sorted(old.keys() & new.keys()):
            if old[policy] != new[policy]:
                changed.setdefault(f"from {old[policy]} to {new[policy]}{unit}", []).append(policy)
        for change, policies in changed.items():
            where = ", ".join(policies[:4]) + (", ..." if len(policies) > 4 else "")
            yield f"{name} of {where} changed {change}"


def _unlocked_memory(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    old, new = _mapping(before, "memory_clock"), _mapping(after, "memory_clock")
    # A clock that is free moves all the time, and may be at its highest by chance. All of them are locked together, or none.
    held = all(
        _mapping(before, f"{unit}minimum_khz")
        and _mapping(before, f"{unit}minimum_khz") == _mapping(before, f"{unit}maximum_khz")
        for unit in ("", "gpu_")
    )
    if held and old and new and old["current_khz"] >= old["maximum_khz"] and new["current_khz"] < new["maximum_khz"]:
        yield f"the clock of the memory fell from {old['current_khz']} to {new['current_khz']} kHz"


def _setting_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return _cores_text(value)
    return str(value)


def _cores_text(cores: list[int]) -> str:
    """``[0, 1, 2, 5]`` as ``"0-2,5"``."""
    parts: list[str] = []
    start = previous = None
    for core in [*sorted(cores), None]:
        if start is not None and previous is not None and core != previous + 1:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
            start = core
        if start is None:
            start = core
        previous = core
    return ",".join(parts) or "none"


def _mapping(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}
