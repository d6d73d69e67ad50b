"""Identities, versions and conditions, made from the facts of several devices."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import device_facts
from pytest_inference_gate.devices import (
    Condition,
    DeviceIdentity,
    SoftwareUnderTest,
    identity_differences,
    local_identity,
)


def facts(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "machine": "x86_64",
        "pointer_bits": 64,
        "kernel": "6.8.0",
        "os": "Debian 12",
        "board": {"model": None, "compatible": [], "vendor": None, "product": None},
        "cpu": {"model": "AMD EPYC", "vendor": "AuthenticAMD", "family": 26, "model_number": 2, "cores": [], "microcode": "0x1"},
        "cores": {"online": [0, 1], "allowed": [0, 1], "quota": None, "usable": 2},
        "frequency_policies": [],
        "clocks_locked": None,
        "turbo": None,
        "power_profile": None,
        "hypervisor": True,
    }
    value.update(changes)
    return value


def board(model: str, part: int, name: str, compatible: str = "", **changes: Any) -> dict[str, Any]:
    return facts(
        machine="aarch64",
        board={"model": model, "compatible": [compatible] if compatible else [], "vendor": None, "product": None},
        cpu={"model": None, "cores": [{"implementer": 0x41, "part": part, "name": name, "count": 4}]},
        cores={"online": [0, 1, 2, 3], "allowed": [0, 1, 2, 3], "quota": None, "usable": 4},
        hypervisor=None,
        **changes,
    )


PI = board("Raspberry Pi 4 Model B Rev 1.4", 0xD08, "Cortex-A72", "raspberrypi,4-model-b")
NANO = board("NVIDIA Jetson Nano Developer Kit", 0xD07, "Cortex-A57", "nvidia,tegra210", clocks_locked=True)
CORAL = board("Freescale i.MX8MQ Phanbell", 0xD03, "Cortex-A53", "fsl,imx8mq-phanbell")
LAPTOP = facts(
    board={"model": None, "compatible": [], "vendor": "LENOVO", "product": "20L5CTO1WW"},
    cpu={"model": "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", "vendor": "GenuineIntel", "family": 6, "model_number": 142},
    cores={"online": [0, 1, 2, 3], "usable": 4},
    power_profile="balanced",
    hypervisor=False,
)
ARM_SERVER = board("", 0xD0C, "Neoverse-N1") | {
    "board": {"model": None, "compatible": [], "vendor": "Ampere(R)", "product": "Mt. Jade"}
}


@pytest.mark.parametrize(
    ("device", "kind", "name"),
    [
        (facts(), "virtual-machine", "amd-epyc-2core-x86_64"),
        (PI, "raspberry-pi", "raspberry-pi-4-model-b-rev-1.4-4core-aarch64"),
        (NANO, "jetson", "nvidia-jetson-nano-developer-kit-4core-aarch64"),
        (CORAL, "board", "freescale-i.mx8mq-phanbell-4core-aarch64"),
        (LAPTOP, "computer", "intel-core-i7-8550u-4core-balanced-x86_64"),
        (ARM_SERVER, "computer", "neoverse-n1-4core-aarch64"),
        ({}, "unknown", "unknown-device"),
    ],
)
def test_ids_are_readable(device: dict[str, Any], kind: str, name: str) -> None:
    identity = DeviceIdentity.from_facts(device)
    assert identity.kind == kind
    assert re.fullmatch(re.escape(name) + "-[0-9a-f]{8}", identity.id)


def test_an_id_is_the_same_in_every_release() -> None:
    # Baselines lie under this name: a change here would lose everybody's.
    assert DeviceIdentity.from_facts(facts()).id == "amd-epyc-2core-x86_64-ec463c75"


@pytest.mark.parametrize(
    "change",
    [
        {"cores": {"online": [0, 1, 2], "usable": 2}},
        {"cores": {"online": [0, 1], "usable": 1}},
        {"cores": {"online": [0, 1], "usable": 1.5}},
        {"power_profile": "performance"},
        {"clocks_locked": True},
        {"machine": "i686"},
        {"hypervisor": False},
        {"cpu": {"model": "AMD EPYC", "vendor": "AuthenticAMD", "family": 25, "model_number": 2}},
        {"board": {"model": None, "compatible": [], "vendor": "Amazon EC2", "product": "m5.large"}},
    ],
)
def test_what_makes_timings_incomparable_changes_the_id(change: dict[str, Any]) -> None:
    assert DeviceIdentity.from_facts(facts(**change)).id != DeviceIdentity.from_facts(facts()).id


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "7.0.0"},
        {"os": "Debian 13"},
        {"l4t_release_line": "# R36 (release), REVISION: 4.7"},
        {"turbo": True},
        {"frequency_policies": [{"governor": "performance"}]},
        {"memory_total_bytes": 1},
        {"container": "docker"},
        {"board": {"model": None, "compatible": [], "vendor": "To Be Filled By O.E.M.", "product": "Default string"}},
    ],
)
def test_what_an_upgrade_changes_leaves_the_id(change: dict[str, Any]) -> None:
    assert DeviceIdentity.from_facts(facts(**change)).id == DeviceIdentity.from_facts(facts()).id


def test_a_field_that_is_unknown_does_not_count() -> None:
    identity = DeviceIdentity.from_facts(facts())
    assert dataclasses.replace(identity, links={}).id == identity.id
    assert dataclasses.replace(identity, links={"edgetpu": "usb3"}).id != identity.id


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=20))
def test_an_id_is_always_one_short_file_name(model: str, cpu: str, profile: str) -> None:
    device = facts(board={"model": model}, cpu={"model": cpu}, power_profile=profile, hypervisor=None)
    identity = DeviceIdentity.from_facts(device)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*-[0-9a-f]{8}", identity.id)
    assert len(identity.id) < 150


def test_differences_of_identities() -> None:
    before = DeviceIdentity.from_facts(facts()).as_dict()
    after = DeviceIdentity.from_facts(facts(cores={"online": [0], "usable": 1}, power_profile="balanced")).as_dict()
    assert identity_differences(before, after) == ["online cores 2 -> 1", "power mode unknown -> balanced", "usable cores 2 -> 1"]
    assert identity_differences(before, json.loads(json.dumps(before))) == []


def test_the_local_identity_is_what_an_agent_here_would_find() -> None:
    assert local_identity() == DeviceIdentity.from_facts(device_facts.collect())


# Software

PROBE = {
    "python": "3.11.7",
    "implementation": "CPython",
    "release": "6.8.0",
    "packages": {"ai-edge-litert": "2.1.0", "numpy": "2.0.0"},
    "device": facts(
        frequency_policies=[{"governor": "schedutil"}, {"governor": "schedutil"}],
        turbo=False,
        l4t_release_line="# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64",
    ),
}


def test_versions_of_a_probe() -> None:
    assert SoftwareUnderTest.from_probe(PROBE).versions == {
        "ai-edge-litert": "2.1.0",
        "cpu-boost": "off",
        "cpu-governor": "schedutil",
        "kernel": "6.8.0",
        "l4t": "36.4.7",
        "microcode": "0x1",
        "numpy": "2.0.0",
        "os": "Debian 12",
        "python": "3.11.7",
        "userland": "64-bit",
    }
    assert SoftwareUnderTest.from_probe({}).versions == {}
    assert SoftwareUnderTest.from_probe({"python": "3.10.0", "implementation": "PyPy"}).versions == {"python": "3.10.0 (PyPy)"}


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("# R32 (release), REVISION: 6.1, GCID: 27863751", "32.6.1"),
        ("# R38 (release), REVISION: 4.0,", "38.4.0"),
        ("# R32 (release), REVISION: 5, GCID: 1", "32.5"),
        ("something new", "something new"),
    ],
)
def test_l4t_versions(line: str, version: str) -> None:
    assert SoftwareUnderTest.from_probe({"device": {"l4t_release_line": line}}).versions["l4t"] == version


def test_the_edge_tpu_s_compiler_is_software_too() -> None:
    probe = {"backends": {"edgetpu": {"converter": {"tensorflow": "2.21.0", "edgetpu_compiler": "16.0.384591198"}}}}
    assert SoftwareUnderTest.from_probe(probe).versions == {"edgetpu-compiler": "16.0.384591198"}
    assert SoftwareUnderTest.from_probe({"backends": {"edgetpu": {"converter": {}}}}).versions == {}


def test_changes() -> None:
    before = {"ai-edge-litert": "2.1.0", "numpy": "2.0.0", "onnx": "1.0"}
    after = SoftwareUnderTest({"ai-edge-litert": "2.3.0", "numpy": "2.0.0", "tensorflow": "2.21.0"})
    assert SoftwareUnderTest.changes(before, after) == [
        "ai-edge-litert 2.1.0 -> 2.3.0",
        "onnx 1.0 -> none",
        "tensorflow none -> 2.21.0",
    ]
    assert SoftwareUnderTest.changes(after, after) == []


def test_a_converter_of_its_own_is_listed_where_it_differs() -> None:
    runtime = SoftwareUnderTest({"python": "3.6.9", "numpy": "1.19.0"})
    converter = SoftwareUnderTest({"python": "3.11.7", "numpy": "1.19.0", "tensorflow": "2.21.0"})
    assert runtime.with_converter(converter).versions == {
        "python": "3.6.9",
        "numpy": "1.19.0",
        "converter:python": "3.11.7",
        "converter:tensorflow": "2.21.0",
    }


# Condition

CALM: dict[str, Any] = {
    "online": [0, 1, 2, 3],
    "allowed": [0, 1, 2, 3],
    "governors": {"policy0": "schedutil", "policy4": "schedutil"},
    "minimum_khz": {"policy0": 600000},
    "maximum_khz": {"policy0": 1500000},
    "turbo": True,
    "power_profile": "balanced",
    "on_battery": False,
    "throttle_counts": {"cpu0/core_throttle_count": 3, "cpu1/core_throttle_count": 3},
    "raspberry_pi_throttled": 0x50000,
    "steal_ticks": 10,
    "total_ticks": 1000,
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"throttle_counts": {"cpu0/core_throttle_count": 5, "cpu1/core_throttle_count": 4}},
            "the processor was throttled (core_throttle_count grew by 2 on cpu0, cpu1)",
        ),
        ({"online": [0, 1]}, "the online cores changed from 0-3 to 0-1"),
        ({"allowed": [0, 2, 3]}, "the cores that it may use changed from 0-3 to 0,2-3"),
        (
            {"governors": {"policy0": "performance", "policy4": "performance"}},
            "the governor of policy0, policy4 changed from schedutil to performance",
        ),
        ({"minimum_khz": {"policy0": 1500000}}, "the lowest frequency of policy0 changed from 600000 to 1500000 kHz"),
        ({"maximum_khz": {"policy0": 1000000}}, "the highest frequency of policy0 changed from 1500000 to 1000000 kHz"),
        ({"turbo": False}, "the boost of the processor changed from on to off"),
        ({"power_profile": "low-power"}, "the power profile changed from balanced to low-power"),
        ({"on_battery": True}, "running on battery changed from off to on"),
        ({"raspberry_pi_throttled": 0x50001}, "the Raspberry Pi reports that its supply voltage was too low"),
        ({"raspberry_pi_throttled": 0xD0000}, "the Raspberry Pi reports that it reached its soft temperature limit"),
    ],
)
def test_what_spoils_timings(change: dict[str, Any], problem: str) -> None:
    before, after = Condition.from_facts(CALM), Condition.from_facts(CALM | change)
    assert before.problems(after) == [problem]
    assert Condition.problems(before, after) == [problem]


@pytest.mark.parametrize("missing", sorted(CALM))
def test_what_is_not_known_is_no_problem(missing: str) -> None:
    unknown = {key: value for key, value in CALM.items() if key != missing}
    for value in (unknown, unknown | {missing: None}):
        assert Condition(CALM).problems(Condition(value)) == []
        assert Condition(value).problems(Condition(CALM)) == []


def test_an_unchanged_condition_is_no_problem() -> None:
    assert Condition(CALM).problems(Condition(json.loads(json.dumps(CALM)))) == []
    # A counter that was there and is not any more, or the other way round, has not grown.
    assert Condition(CALM).problems(Condition(CALM | {"throttle_counts": {"cpu9/core_throttle_count": 50}})) == []


def test_the_condition_of_this_machine_has_no_problem_with_itself() -> None:
    now = Condition.now()
    assert now.problems(now) == []
    assert json.loads(json.dumps(now.as_dict())) == now.as_dict()


def test_devices_does_not_import_the_agent_before_it_is_asked() -> None:
    source = Path(__file__).parents[2] / "plugins" / "pytest_inference_gate" / "devices.py"
    assert not re.search(r"^(from|import) .*agent", source.read_text(), re.MULTILINE)


def test_a_converter_of_its_own_is_a_change_only_where_its_versions_are_others() -> None:
    alone = SoftwareUnderTest({"tensorflow": "2.21.0", "ai-edge-litert": "2.3.0"})
    apart = SoftwareUnderTest({"tflite-runtime": "2.14.0"}).with_converter(alone)
    assert SoftwareUnderTest.changes(alone, apart) == [
        "ai-edge-litert 2.3.0 -> none",
        "tensorflow 2.21.0 -> none",
        "tflite-runtime none -> 2.14.0",
    ]
    newer = SoftwareUnderTest({"tflite-runtime": "2.14.0"}).with_converter(SoftwareUnderTest({"tensorflow": "2.22.0"}))
    assert "converter:tensorflow 2.21.0 -> 2.22.0" in SoftwareUnderTest.changes(alone, newer)
