"""What the doctor says about several machines; the facts are those that an agent on such a machine would send."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from device_trees import TREES, build
from device_trees.parts import coral_pcie, discrete_gpu
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import device_facts
from pytest_inference_gate.machine import doctor
from pytest_inference_gate.machine.checks import BusyProcess, Check, MachineFacts, check_machine, smallest_tolerance

GIB = 2**30


def condition(at: float, **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "monotonic": 100.0 + at,
        "online": [0, 1, 2, 3],
        "current_khz": {},
        "on_battery": None,
        "thermal_zones": [],
        "throttle_counts": {},
        "raspberry_pi_throttled": None,
        "steal_ticks": 0,
        "busy_ticks": round(100 * at),
        "total_ticks": round(400 * at),
        "ticks_per_second": 100,
        "process_seconds": at,
        "memory_available_bytes": 3 * GIB,
        "swap_used_bytes": 0,
    }
    return value | changes


def machine(
    device: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    **changes: Any,
) -> MachineFacts:
    """A machine on which nothing is wrong, with the changes."""
    facts: dict[str, Any] = {
        "machine": "aarch64",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.8.0",
        "board": {"model": "Raspberry Pi 4 Model B Rev 1.4", "compatible": ["raspberrypi,4-model-b"]},
        "cpu": {"cores": [{"implementer": 0x41, "part": 0xD08, "name": "Cortex-A72", "count": 4}]},
        "cores": {"online": [0, 1, 2, 3], "allowed": [0, 1, 2, 3], "quota": None, "usable": 4},
        "memory_total_bytes": 4 * GIB,
        "frequency_policies": [
            {"name": "policy0", "driver": "cpufreq-dt", "governor": "performance", "minimum_khz": 1500000, "maximum_khz": 1500000}
        ],
        "clocks_locked": True,
        "turbo": False,
        "power_profile": None,
        "hypervisor": False,
        "container": None,
    }
    spans = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    readings = [
        {
            "compute": 1.0 + number / 1000,
            "memory": 2.0 + number / 1000,
            "kernel": "k",
            "condition": {
                "before": condition(start, **(before or {})),
                "after": condition(end, **{**(before or {}), **(after or {})}),
            },
        }
        for number, (start, end) in enumerate(spans)
    ]
    good = MachineFacts(
        python="this interpreter",
        python_version="3.11.7",
        device=facts | (device or {}),
        backends={
            "tflite": {"can_run": True, "can_convert": False, "runtime": {"name": "tflite", "version": "2.14.0"}, "reason": ""}
        },
        readings=readings,
        processes=[],
        store="~/.cache/inference-gate/store",
        store_free_bytes=50 * GIB,
    )
    return dataclasses.replace(good, **changes)


BARE = MachineFacts("python3", None, {}, readings=[], store="/x")
QUIET = {
    "on_battery": False,
    "throttle_counts": {"cpu0/core_throttle_count": 0},
    "thermal_zones": [{"name": "cpu", "celsius": 51.0}],
}


def find(facts: MachineFacts, name: str) -> Check:
    (check,) = [check for check in check_machine(facts) if check.name == name]
    return check


def test_nothing_is_wrong_with_a_machine_that_is_prepared() -> None:
    checks = check_machine(machine(before=QUIET))
    assert {check.name: check.state for check in checks} == {check.name: "ok" for check in checks}
    assert len({check.name for check in checks}) == len(checks) == 15


def test_what_is_not_shown_is_unknown_and_never_a_warning() -> None:
    states = {check.name: check.state for check in check_machine(BARE)}
    assert states.pop("runtimes") == "warning"  # nothing that could run a model was found
    assert set(states.values()) == {"unknown"}


POLICY = {"name": "policy0", "driver": "cpufreq-dt", "governor": "ondemand", "minimum_khz": 600000, "maximum_khz": 1500000}
FREE = {"frequency_policies": [POLICY], "clocks_locked": False}
JETSON = {"board": {"model": "NVIDIA Jetson Nano Developer Kit", "compatible": ["nvidia,tegra210"]}}
PSTATE = {"frequency_policies": [POLICY | {"driver": "intel_pstate"}], "turbo": True}


@pytest.mark.parametrize(
    ("facts", "name", "finding", "command"),
    [
        (machine(device=FREE), "governor", "ondemand", "tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"),
        (machine(device=FREE), "clocks", "between 600 and 1500 MHz", "cpupower frequency-set --min FREQUENCY"),
        (machine(device=FREE | {"turbo": None}), "clocks", "between 600 and 1500 MHz", "--min 1500MHz --max 1500MHz"),
        (machine(device=FREE | JETSON), "clocks", "between", "sudo jetson_clocks"),
        (machine(device=PSTATE), "boost", "on", "intel_pstate/no_turbo"),
        (machine(device={"turbo": True}), "boost", "on", "cpufreq/boost"),
        (machine(before={"on_battery": True}), "power", "on battery", None),
        (machine(device={"power_profile": "balanced"}), "power", "profile balanced", "powerprofilesctl set performance"),
        (machine(before={"raspberry_pi_throttled": 0x50000}), "throttling", "since it was started", None),
        (
            machine(before=QUIET, after={"throttle_counts": {"cpu0/core_throttle_count": 2}}),
            "throttling",
            "core_throttle_count grew by 2 on cpu0",
            None,
        ),
        (machine(before={"thermal_zones": [{"name": "gpu", "celsius": 84.6}]}), "temperature", "85 °C", None),
        (machine(after={"busy_ticks": 600}), "load by others", "1.00 of 4 cores", None),
        (machine(after={"busy_ticks": 300, "steal_ticks": 100}), "steal", "25.0%", None),
        (machine(device={"hypervisor": True, "container": "docker"}), "virtual machine", "docker", "--gate-against"),
        (machine(after={"memory_available_bytes": GIB // 2}), "memory", "512 MiB of 4.0 GiB", None),
        (machine(after={"swap_used_bytes": GIB}), "swap", "1.0 GiB in use", "sudo swapoff -a && sudo swapon -a"),
        (machine(store_free_bytes=GIB), "disk", "1.0 GiB free", "--gate-store"),
        (
            machine(device={"cores": {"online": [0, 1], "usable": 1.5, "quota": 1.5}}),
            "cores",
            "a quota of 1.5",
            "--cpuset-cpus=0-1",
        ),
        (machine(backends={"tflite": {"can_run": False, "reason": "no LiteRT is installed"}}), "runtimes", "none", "pip install"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(facts: MachineFacts, name: str, finding: str, command: str | None) -> None:
    check = find(facts, name)
    assert check.state == "warning"
    assert finding in check.finding
    assert check.advice.endswith((".", ":"))
    assert (command is None) == (check.commands == ())
    assert command is None or command in "\n".join(check.commands)
    assert finding in " ".join(doctor.render(facts, check_machine(facts)).split())


def tree_machine(root: Path, tree: Any) -> MachineFacts:
    """As the doctor would see a device with these files."""
    folder = build(root, tree)
    return machine(device=device_facts.collect(folder), before=device_facts.condition(folder) | condition(0.0))


@pytest.mark.parametrize(
    ("name", "check", "state", "finding"),
    [
        ("orin-nano-jetpack-6", "power mode", "ok", "MAXN_SUPER (nvpmodel); baselines are kept by its name"),
        ("orin-nano-jetpack-6", "clocks", "warning", "free to move between 729 and 1728 MHz"),
        ("orin-nano-jetpack-6", "gpu clock", "warning", "free to move between 306 and 1020 MHz"),
        (
            "orin-nano-jetpack-6",
            "memory clock",
            "unknown",
            "that of the EMC is shown to root only: sudo jetson_clocks --show tells it",
        ),
        ("nano-jetpack-4", "gpu clock", "ok", "locked at 921 MHz"),
        ("nano-jetpack-4", "memory clock", "ok", "EMC at 1600 of 1600 MHz"),
        ("thor-jetpack-7", "gpu clock", "ok", "locked at 1575-1692 MHz"),
        (
            "container-on-orin-nano",
            "power mode",
            "unknown",
            "neither its files nor nvpmodel -q tell it in a container: mount /etc/nvpmodel.conf and /var/lib/nvpmodel",
        ),
        ("x86-coral-pcie", "edge tpu", "ok", "on PCIe (1ac1:089a)"),
        ("raspberry-pi-4-coral-usb3-cold", "edge tpu", "ok", "on USB 3 (1a6e:089a, firmware not loaded yet)"),
        ("raspberry-pi-4-coral-usb2", "edge tpu", "warning", "on USB 2 (18d1:9302)"),
        ("x86-gpu", "gpu", "ok", "NVIDIA GeForce RTX 4090"),
    ],
)
def test_what_is_said_of_boards_and_accelerators(tmp_path: Path, name: str, check: str, state: str, finding: str) -> None:
    found = find(tree_machine(tmp_path, TREES[name]), check)
    assert (found.state, found.finding) == (state, finding)
    if found.state == "warning":
        assert found.advice.endswith(".")


def test_the_clock_of_the_memory_alone_may_be_free(tmp_path: Path) -> None:
    tree = {**TREES["nano-jetpack-4"], "sys/kernel/debug/clk/emc/clk_rate": "204000000\n"}
    facts = tree_machine(tmp_path, tree)
    check = find(facts, "memory clock")
    assert (check.state, check.finding) == ("warning", "EMC at 204 of 1600 MHz")
    assert check.commands[-1] == "sudo jetson_clocks"
    # That of the processor is locked all the same.
    assert find(facts, "clocks").state == "ok"


@pytest.mark.parametrize(
    ("tree", "name", "finding", "advice"),
    [
        (
            coral_pcie(driver=False),
            "edge tpu",
            "a Coral Edge TPU on PCIe is attached, but no driver serves it",
            "Install gasket-dkms and start the machine again.",
        ),
        (
            discrete_gpu(driver=False),
            "gpu",
            "a discrete NVIDIA GPU (10de:2684) is attached, but the NVIDIA driver is not loaded",
            "Install it, or load it with modprobe nvidia.",
        ),
    ],
)
def test_an_accelerator_that_cannot_be_used(tmp_path: Path, tree: Any, name: str, finding: str, advice: str) -> None:
    check = find(tree_machine(tmp_path, {**TREES["laptop"], **tree}), name)
    assert (check.state, check.finding, check.advice) == ("warning", finding, advice)


def test_machines_without_accelerators_are_not_bothered_with_them(tmp_path: Path) -> None:
    names = {check.name for check in check_machine(tree_machine(tmp_path, TREES["laptop"]))}
    assert not names & {"power mode", "gpu clock", "memory clock", "edge tpu", "gpu"}


def test_a_jetson_s_report(tmp_path: Path) -> None:
    facts = tree_machine(tmp_path, TREES["orin-nano-jetpack-6"])
    text = doctor.render(facts, check_machine(facts))
    assert "ok       power mode        MAXN_SUPER (nvpmodel); baselines are kept by its name\n" in text
    assert "                           JetPack 6.2.1, L4T 36.4.7\n" in text
    assert "$ sudo jetson_clocks" in text
    assert all(len(line) <= 80 or "$" in line for line in text.splitlines()[1:])  # the name of the device is never broken


def test_a_little_swap_is_left_behind_by_every_system() -> None:
    assert find(machine(after={"swap_used_bytes": 5 * 2**20}), "swap") == Check("swap", "ok", "5 MiB in use")


def test_why_a_backend_cannot_run_is_shown() -> None:
    facts = machine(
        backends={
            "tflite": {"can_run": True, "can_convert": True, "runtime": {"version": "2.3.0"}, "reason": ""},
            "onnxruntime": {"can_run": False, "can_convert": False, "runtime": None, "reason": "onnxruntime is not installed"},
        }
    )
    check = find(facts, "runtimes")
    assert (check.state, check.finding) == ("ok", "1 of 2 can run models here")
    assert check.details == ("tflite 2.3.0: runs and converts", "onnxruntime: not here; onnxruntime is not installed")


def test_a_backend_that_only_passes_models_through_does_not_convert() -> None:
    missing = "edgetpu_compiler is not on PATH here"
    edgetpu = {"can_run": True, "can_convert": True, "runtime": {"version": "2.14.0"}, "reason": "", "conversion_reason": missing}
    assert find(machine(backends={"edgetpu": edgetpu}), "runtimes").details == (f"edgetpu 2.14.0: runs; {missing}",)


def test_those_that_use_the_processor_are_named() -> None:
    check = find(machine(after={"busy_ticks": 600}, processes=[BusyProcess(4711, "stress --cpu 1", 1.01)]), "load by others")
    assert check.details == (" 1.01 cores  stress --cpu 1 (pid 4711)",)
    assert "host" not in check.advice
    # Where processes cannot be listed, or in a container, the kernel counts what cannot be seen.
    for processes in (None, []):
        assert "look at the host" in find(machine(after={"busy_ticks": 600}, processes=processes), "load by others").advice


def test_an_unsteady_canary_needs_a_larger_tolerance() -> None:
    steady = machine()
    readings = [reading | {"memory": 2.0 + number} for number, reading in enumerate(steady.readings)]
    check = find(dataclasses.replace(steady, readings=readings), "steadiness")
    assert check.state == "warning"
    assert check.commands == ("pytest -m cpu --benchmark-compare --gate-tolerance=118%",)
    assert find(steady, "steadiness").state == "ok"
    ended = dataclasses.replace(steady, readings=steady.readings[:1], remarks=("the agent died",))
    assert find(ended, "steadiness").state == "unknown"
    assert find(ended, "steadiness").details == ("the agent died",)


@given(st.lists(st.floats(0.5, 2.0), min_size=3, max_size=30), st.sampled_from([2.0**power for power in (-10, 0, 10)]))
def test_the_smallest_tolerance_does_not_depend_on_the_unit_and_is_never_nothing(values: list[float], factor: float) -> None:
    tolerance = smallest_tolerance(values)
    assert tolerance is not None
    assert tolerance >= 0.01
    assert smallest_tolerance([value * factor for value in values]) == tolerance
    assert smallest_tolerance(values[:2]) is None


def test_the_smallest_tolerance_is_three_standard_errors() -> None:
    # A median deviation of 1 %: 3 * sqrt(2) * 1.2533 * 1.4826 * 1 % / sqrt(5) is 3.5 %.
    assert smallest_tolerance([0.99, 1.0, 1.01]) == 0.04
    assert smallest_tolerance([0.99, 0.99, 1.0, 1.01, 3.0]) == 0.04
    assert smallest_tolerance([1.0] * 5) == 0.01


names = st.text(st.characters(whitelist_categories=["L", "N", "Zs"]), max_size=60)


@given(names, names, st.lists(st.builds(BusyProcess, st.integers(1, 99999), st.text("ab /-", max_size=36), st.floats(0, 99))))
def test_no_line_but_a_command_is_wider_than_a_terminal(system: str, reason: str, processes: list[BusyProcess]) -> None:
    facts = machine(
        device={"os": system, **FREE, "turbo": True, "hypervisor": True},
        after={"busy_ticks": 600, "swap_used_bytes": GIB},
        backends={"tflite": {"can_run": False, "reason": " ".join(re.findall(".{1,20}", reason))}},
        processes=processes,
    )
    for line in doctor.render(facts, check_machine(facts)).splitlines():
        assert len(line) <= 80 or line.lstrip().startswith("$") or " " not in line.strip()
        assert line == line.rstrip()


def test_the_report_reads_like_this() -> None:
    text = doctor.render(machine(before=QUIET), check_machine(machine(before=QUIET)))
    assert text.splitlines()[:8] == [
        "device   " + machine().identity.id,
        "         Cortex-A72, raspberry pi; Debian GNU/Linux 12 (bookworm), 6.8.0",
        "python   3.11.7, this interpreter",
        "",
        "ok       cores             4 of 4 can be used, without a quota of processor time",
        "ok       governor          performance",
        "ok       clocks            locked at 1500 MHz",
        "ok       boost             off",
    ]
    assert text.splitlines()[-1] == "nothing to change, 0 unknown, 15 in order"


def test_the_document_is_plain_json_with_all_facts() -> None:
    facts = machine(processes=[BusyProcess(1, "init", 0.1)])
    document = json.loads(json.dumps(doctor.as_document(facts, check_machine(facts))))
    assert document["schema"] == "inference-gate-doctor/1"
    assert document["device"]["id"] == facts.identity.id
    assert [check["name"] for check in document["checks"]] == [check.name for check in check_machine(facts)]
    assert document["facts"]["readings"][0]["kernel"] == "k"
    assert document["facts"]["processes"] == [{"pid": 1, "name": "init", "cores": 0.1}]


def test_the_room_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert doctor._free_bytes(tmp_path / "not" / "yet") == pytest.approx(doctor._free_bytes(tmp_path), rel=0.1)
