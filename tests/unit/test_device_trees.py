"""What is found out about boards and computers that are not here, from copies of what their files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from device_trees import TREES, build
from device_trees.boards import CONTAINER_ON_ORIN, NANO, ORIN_NANO, THOR, XAVIER_NX
from device_trees.computers import LAPTOP
from device_trees.parts import coral_pcie, coral_usb, discrete_gpu, packages
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.accelerators import MARKERS, target_markers
from pytest_inference_gate.agent import device_facts
from pytest_inference_gate.devices import Condition, DeviceIdentity, SoftwareUnderTest, identity_differences


def collect(tmp_path: Path, tree: Any) -> dict[str, Any]:
    facts: dict[str, Any] = device_facts.collect(build(tmp_path, tree))
    assert json.loads(json.dumps(facts)) == facts
    return facts


def condition(tmp_path: Path, tree: Any) -> dict[str, Any]:
    return device_facts.condition(build(tmp_path, tree))


@pytest.mark.parametrize(
    ("name", "kind", "markers", "identifier"),
    [
        ("nano-jetpack-4", "jetson", {"jetson"}, "nvidia-jetson-nano-developer-kit-4core-maxn-aarch64"),
        ("xavier-nx-jetpack-5", "jetson", {"jetson"}, "nvidia-jetson-xavier-nx-developer-kit-6core-mode_15w_6core-aarch64"),
        ("orin-nano-jetpack-6", "jetson", {"jetson"}, "nvidia-jetson-orin-nano-engineering-reference-6core-maxn_super-aarch64"),
        ("thor-jetpack-7", "jetson", {"jetson"}, "nvidia-jetson-agx-thor-developer-kit-14core-maxn-aarch64"),
        ("container-on-orin-nano", "jetson", {"jetson"}, "nvidia-jetson-orin-nano-engineering-reference-6core-aarch64"),
        ("raspberry-pi-4", "raspberry-pi", set(), "raspberry-pi-4-model-b-rev-1.4-4core-aarch64"),
        ("raspberry-pi-5", "raspberry-pi", set(), "raspberry-pi-5-model-b-rev-1.0-4core-aarch64"),
        (
            "raspberry-pi-4-coral-usb3-cold",
            "raspberry-pi",
            {"edgetpu"},
            "raspberry-pi-4-model-b-rev-1.4-4core-edgetpu-usb3-aarch64",
        ),
        ("raspberry-pi-4-coral-usb3", "raspberry-pi", {"edgetpu"}, "raspberry-pi-4-model-b-rev-1.4-4core-edgetpu-usb3-aarch64"),
        (
            "raspberry-pi-4-coral-usb2-cold",
            "raspberry-pi",
            {"edgetpu"},
            "raspberry-pi-4-model-b-rev-1.4-4core-edgetpu-usb2-aarch64",
        ),
        ("raspberry-pi-4-coral-usb2", "raspberry-pi", {"edgetpu"}, "raspberry-pi-4-model-b-rev-1.4-4core-edgetpu-usb2-aarch64"),
        ("laptop", "computer", set(), "intel-core-i7-8550u-8core-x86_64"),
        ("x86-coral-pcie", "computer", {"edgetpu"}, "intel-core-i7-8550u-8core-edgetpu-pcie-x86_64"),
        ("x86-gpu", "computer", {"cuda"}, "intel-core-i7-8550u-8core-x86_64"),
    ],
)
def test_kind_markers_and_name(tmp_path: Path, name: str, kind: str, markers: set[str], identifier: str) -> None:
    facts = collect(tmp_path, TREES[name])
    identity = DeviceIdentity.from_facts(facts)
    assert identity.kind == kind
    assert identity.id.rpartition("-")[0] == identifier
    states = target_markers(facts)
    assert list(states) == list(MARKERS)
    assert {marker for marker, state in states.items() if state.present} == markers
    for state in states.values():
        assert state.present == (state.reason == "")
        assert "\n" not in state.reason


def test_every_tree_is_looked_at() -> None:
    assert len(TREES) == 14


# Jetson


@pytest.mark.parametrize(
    ("tree", "l4t", "jetpack", "mode"),
    [
        (NANO, "32.7.1", "4.6.1", "MAXN"),
        (XAVIER_NX, "35.4.1", "5.1.2", "MODE_15W_6CORE"),
        (ORIN_NANO, "36.4.7", "6.2.1", "MAXN_SUPER"),
        (THOR, "38.4.0", "7.1", "MAXN"),
        (CONTAINER_ON_ORIN, "36.4.7", "6.2.1", None),
    ],
    ids=["nano", "xavier-nx", "orin-nano", "thor", "container"],
)
def test_release_and_power_mode(tmp_path: Path, tree: Any, l4t: str, jetpack: str, mode: str | None) -> None:
    jetson = collect(tmp_path, tree)["jetson"]
    assert (jetson["l4t"]["version"], jetson["jetpack"]["version"], jetson["power_mode"]) == (l4t, jetpack, mode)


def test_the_release_of_a_board_whose_file_is_missing_is_its_package_s(tmp_path: Path) -> None:
    tree = {name: content for name, content in XAVIER_NX.items() if name != "etc/nv_tegra_release"}
    assert collect(tmp_path, tree)["jetson"]["l4t"] == {"version": "35.4.1", "source": "package nvidia-l4t-core"}


@pytest.mark.parametrize("line", ["# R36 (release), REVISION: 5.0, GCID: 1", "# R40 (release), REVISION: 1.0, GCID: 1"])
def test_a_release_that_nobody_knows_has_an_unknown_jetpack(tmp_path: Path, line: str) -> None:
    facts = collect(tmp_path, {**XAVIER_NX, "etc/nv_tegra_release": line + "\n"})
    assert facts["jetson"]["jetpack"] is None
    versions = SoftwareUnderTest.from_probe({"device": facts}).versions
    assert (versions["l4t"], versions["jetpack"]) == (facts["jetson"]["l4t"]["version"], "unknown")


def test_a_release_without_a_patch_number(tmp_path: Path) -> None:
    jetson = collect(tmp_path, {**XAVIER_NX, "etc/nv_tegra_release": "# R32 (release), REVISION: 5, GCID: 1\n"})["jetson"]
    assert (jetson["l4t"]["version"], jetson["jetpack"]["version"]) == ("32.5", "4.5")


def test_the_number_of_a_power_mode_without_its_name_tells_nothing(tmp_path: Path) -> None:
    facts = collect(tmp_path, {**ORIN_NANO, "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n"})
    assert facts["jetson"]["power_mode"] is None


@pytest.mark.parametrize(
    ("tree", "locked", "together"),
    [
        (NANO, {"cpu": True, "gpu": True, "memory": True}, True),
        (XAVIER_NX, {"cpu": False, "gpu": False, "memory": None}, False),
        (ORIN_NANO, {"cpu": False, "gpu": False, "memory": None}, False),
        (THOR, {"cpu": True, "gpu": True, "memory": True}, True),
        (CONTAINER_ON_ORIN, {"cpu": True, "gpu": True, "memory": None}, True),
        ({**NANO, "sys/kernel/debug/clk/emc/clk_rate": "204000000\n"}, {"cpu": True, "gpu": True, "memory": False}, False),
        ({**THOR, "sys/class/devfreq/gpu-nvd-0/min_freq": "1000\n"}, {"cpu": True, "gpu": False, "memory": True}, False),
    ],
    ids=["nano", "xavier-nx", "orin-nano", "thor", "container", "memory-free", "one-domain-free"],
)
def test_locked_clocks(tmp_path: Path, tree: Any, locked: dict[str, bool | None], together: bool) -> None:
    facts = collect(tmp_path, tree)
    assert facts["jetson"]["locked"] == locked
    assert facts["clocks_locked"] is together
    assert DeviceIdentity.from_facts(facts).clocks_locked is together


def test_the_power_mode_caps_the_memory_s_clock(tmp_path: Path) -> None:
    capped = {
        **ORIN_NANO,
        "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
        "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": "3199000000\n",
        "sys/kernel/nvpmodel_clk_cap/emc": "2133000000\n",
    }
    assert collect(tmp_path, capped)["jetson"]["memory_clock"] == {"current_khz": 2133000, "maximum_khz": 2133000}


@pytest.mark.parametrize(
    ("tree", "rails"),
    [
        (NANO, {"POM_5V_IN": 1750.0, "POM_5V_GPU": 40.0, "POM_5V_CPU": 366.0}),
        (ORIN_NANO, {"VDD_IN": 5000.0, "VDD_CPU_GPU_CV": 1000.0, "VDD_SOC": 1500.0}),
        (THOR, {"VDD_GPU": 190.0, "VDD_CPU_SOC_MSS": 4180.0, "VIN_SYS_5V0": 4125.0}),
        (LAPTOP, {}),
    ],
    ids=["nano", "orin-nano", "thor", "laptop"],
)
def test_power_by_rail(tmp_path: Path, tree: Any, rails: dict[str, float]) -> None:
    assert condition(tmp_path, tree)["power_milliwatts"] == pytest.approx(rails)
    assert device_facts.collect(str(tmp_path))["power_rails"] == list(rails)


def test_condition_of_an_orin(tmp_path: Path) -> None:
    now = condition(tmp_path, ORIN_NANO)
    assert now["throttle_counts"] == {f"soctherm_oc/oc{counter}_event_cnt": count for counter, count in ((1, 0), (2, 12), (3, 4))}
    assert now["power_mode"] == "MAXN_SUPER"
    assert now["gpu_current_khz"] == {"17000000.gpu": 624750}
    # What has no power has no temperature.
    assert [zone["name"] for zone in now["thermal_zones"]] == ["cpu-thermal", "gpu-thermal", "tj-thermal"]


def test_a_chip_without_a_sensor_is_not_hot(tmp_path: Path) -> None:
    # PMIC-Die says 100 degrees.
    assert max(zone["celsius"] for zone in condition(tmp_path, NANO)["thermal_zones"]) == 45.0


# Software


@pytest.mark.parametrize(
    ("name", "software"),
    [
        ("nano-jetpack-4", {"cuda": "10.2.300", "cudnn": "8.2.1.32", "tensorrt-library": "8.2.1"}),
        ("xavier-nx-jetpack-5", {"cuda": "11.4.19", "cudnn": "8.6.0.166", "tensorrt-library": "8.5.2"}),
        ("orin-nano-jetpack-6", {"cuda": "12.6.68", "cudnn": "9.3.0.75", "tensorrt-library": "10.3.0.30"}),
        ("thor-jetpack-7", {"cuda": "13.0.48", "tensorrt-library": "10.13.3.9"}),
        # Those of the container, not of the host: the highest of two, and a library that no package knows of.
        ("container-on-orin-nano", {"cuda": "12.8.90", "tensorrt-library": "10.7.0"}),
        ("raspberry-pi-4-coral-usb3", {"edgetpu-runtime": "16.0 (std)"}),
        ("x86-coral-pcie", {"edgetpu-runtime": "16.0 (max)", "apex-driver": "1.2"}),
        (
            "x86-gpu",
            {"cuda": "10.2.89", "cudnn": "9.3.0.75", "tensorrt-library": "10.13.3.9", "nvidia-driver": "570.86.15"},
        ),
        ("laptop", {}),
    ],
)
def test_versions_that_the_system_brings(tmp_path: Path, name: str, software: dict[str, str]) -> None:
    versions = SoftwareUnderTest.from_probe({"device": collect(tmp_path, TREES[name])}).versions
    keys = {"cuda", "cudnn", "tensorrt-library", "edgetpu-runtime", "nvidia-driver", "apex-driver"}
    assert {key: versions[key] for key in keys & versions.keys()} == software


def test_a_library_that_contradicts_its_package_is_what_counts(tmp_path: Path) -> None:
    tree = {**packages(libnvinfer8="8.5.2-1+cuda11.4"), "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": ""}
    found = collect(tmp_path, tree)["system_software"]["tensorrt"]
    assert found == {"version": "10.3.0", "source": "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0"}


def test_an_upgrade_of_jetpack_keeps_the_name_of_the_device(tmp_path: Path) -> None:
    newer = {
        **ORIN_NANO,
        "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, DATE: Mon Jun  1 09:28:48 PM UTC 2026\n",
        **packages(nvidia_l4t_core="39.2.0-20260601092848", libnvinfer10="10.16.0.1-1+cuda13.2"),
    }
    newer["usr/lib/aarch64-linux-gnu/libnvinfer.so.10.16.0"] = newer.pop("usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0")
    before, after = collect(tmp_path / "before", ORIN_NANO), collect(tmp_path / "after", newer)
    assert DeviceIdentity.from_facts(before).id == DeviceIdentity.from_facts(after).id
    changes = SoftwareUnderTest.changes(*(SoftwareUnderTest.from_probe({"device": facts}) for facts in (before, after)))
    assert "jetpack 6.2.1 -> 7.2" in changes
    assert "l4t 36.4.7 -> 39.2.0" in changes
    assert "tensorrt-library 10.3.0.30 -> 10.16.0.1" in changes


# Accelerators


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("raspberry-pi-4-coral-usb3", "usb3"),
        ("raspberry-pi-4-coral-usb2", "usb2"),
        ("x86-coral-pcie", "pcie"),
    ],
)
def test_how_an_edge_tpu_is_attached_is_part_of_the_identity(tmp_path: Path, name: str, link: str) -> None:
    assert DeviceIdentity.from_facts(collect(tmp_path, TREES[name])).links == {"edgetpu": link}


@pytest.mark.parametrize("name", ["raspberry-pi-4-coral-usb3", "raspberry-pi-4-coral-usb2"])
def test_loading_the_firmware_changes_the_usb_id_and_not_the_device(tmp_path: Path, name: str) -> None:
    cold, warm = collect(tmp_path / "cold", TREES[f"{name}-cold"]), collect(tmp_path / "warm", TREES[name])
    assert (cold["edge_tpus"][0]["id"], warm["edge_tpus"][0]["id"]) == ("1a6e:089a", "18d1:9302")
    assert (cold["edge_tpus"][0]["firmware_loaded"], warm["edge_tpus"][0]["firmware_loaded"]) == (False, True)
    assert DeviceIdentity.from_facts(cold).id == DeviceIdentity.from_facts(warm).id


def test_usb_2_and_usb_3_are_different_devices(tmp_path: Path) -> None:
    slow, fast = (
        DeviceIdentity.from_facts(collect(tmp_path / link, TREES[f"raspberry-pi-4-coral-{link}"])) for link in ("usb2", "usb3")
    )
    assert slow.id != fast.id
    assert identity_differences(slow.as_dict(), fast.as_dict()) == ["links edgetpu usb2 -> edgetpu usb3"]


def test_two_edge_tpus_on_one_card(tmp_path: Path) -> None:
    tree = {**LAPTOP, **coral_pcie("0000:03:00.0", 0), **coral_pcie("0000:04:00.0", 1)}
    facts = collect(tmp_path, tree)
    assert [one["address"] for one in facts["edge_tpus"]] == ["0000:03:00.0", "0000:04:00.0"]
    assert DeviceIdentity.from_facts(facts).links == {"edgetpu": "2x pcie"}
    zones = device_facts.condition(str(tmp_path))["thermal_zones"]
    assert {"name": "apex_1", "celsius": 48.05} in zones


def test_the_name_of_a_gpu_s_driver_is_no_part_of_the_identity(tmp_path: Path) -> None:
    with_driver = collect(tmp_path / "with", {**LAPTOP, **discrete_gpu()})
    without = collect(tmp_path / "without", {**LAPTOP, **discrete_gpu(driver=False)})
    assert [gpu["name"] for gpu in with_driver["gpus"]] == ["NVIDIA GeForce RTX 4090"]
    assert DeviceIdentity.from_facts(with_driver).id == DeviceIdentity.from_facts(without).id
    assert DeviceIdentity.from_facts(with_driver).links == {"cuda": "10de:2684"}


def test_a_container_that_hides_sys_still_shows_its_gpus(tmp_path: Path) -> None:
    facts = collect(tmp_path, {"dev/nvidiactl": "", "dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidia-uvm": ""})
    assert len(facts["gpus"]) == 2
    assert target_markers(facts)["cuda"].present


@pytest.mark.parametrize(
    ("tree", "marker", "reason"),
    [
        (LAPTOP, "jetson", "this is no NVIDIA Jetson but a computer (LENOVO 20L5CTO1WW)"),
        (LAPTOP, "edgetpu", "no Coral Edge TPU is attached, neither on PCIe nor on USB"),
        (LAPTOP, "cuda", "no discrete NVIDIA GPU is attached"),
        (THOR, "cuda", "the GPU of a Jetson is no discrete one: its cases have the marker jetson"),
        (
            {**LAPTOP, **coral_pcie(driver=False)},
            "edgetpu",
            "a Coral Edge TPU on PCIe is attached, but no driver serves it: install gasket-dkms and start the machine again",
        ),
        (
            {**LAPTOP, **coral_pcie(node=False)},
            "edgetpu",
            "a Coral Edge TPU on PCIe is attached, but there is no /dev/apex_0 here: in a container, pass it in when the container "
            "is started",
        ),
        (
            {**LAPTOP, **coral_pcie(), "sys/class/apex/apex_0/status": "DEAD\n"},
            "edgetpu",
            "a Coral Edge TPU on PCIe is attached, but its driver calls it dead: start the machine again",
        ),
        (
            {name: content for name, content in {**LAPTOP, **coral_usb(5000, True)}.items() if not name.startswith("dev/")},
            "edgetpu",
            "a Coral Edge TPU on USB 3 is attached, but there is no /dev/bus/usb/002/003 here: in a container, pass it in when the "
            "container is started",
        ),
        (
            {**LAPTOP, **discrete_gpu(driver=False)},
            "cuda",
            "a discrete NVIDIA GPU (10de:2684) is attached, but the NVIDIA driver is not loaded: install it, or load it with modprobe "
            "nvidia",
        ),
        (
            {**LAPTOP, **discrete_gpu(node=False)},
            "cuda",
            "a discrete NVIDIA GPU (NVIDIA GeForce RTX 4090) is attached, but there is no /dev/nvidiactl here: in a container, pass it in "
            "when the container is started",
        ),
        ({}, "jetson", "nothing here shows an NVIDIA Jetson"),
    ],
)
def test_why_a_target_has_not_what_a_marker_asks_for(tmp_path: Path, tree: Any, marker: Any, reason: str) -> None:
    assert target_markers(collect(tmp_path, tree))[marker].reason == reason


def test_one_that_works_beside_one_that_does_not_is_enough(tmp_path: Path) -> None:
    tree = {**LAPTOP, **coral_pcie(driver=False), **coral_usb(480, True)}
    assert target_markers(collect(tmp_path, tree))["edgetpu"].present


def test_facts_of_an_older_agent_name_no_accelerators() -> None:
    states = target_markers({"machine": "x86_64"})
    assert {marker: state.reason for marker, state in states.items() if marker != "jetson"} == {
        "edgetpu": "whether an Edge TPU is attached was not looked at",
        "cuda": "whether an NVIDIA GPU is attached was not looked at",
    }


# Conditions


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sys/class/hwmon/hwmon3/oc1_event_cnt": "2\n"}, "the board was throttled for under-voltage (oc1_event_cnt grew by 2)"),
        (
            {"sys/class/hwmon/hwmon3/oc3_event_cnt": "5\n"},
            "the board was throttled for too high a current (oc3_event_cnt grew by 1)",
        ),
        ({"var/lib/nvpmodel/status": "pmode:0000\n"}, "the power mode changed from MAXN_SUPER to 15W"),
        (
            {"sys/class/devfreq/17000000.gpu/max_freq": "624750000\n"},
            "the GPU's highest frequency of 17000000.gpu changed from 1020000 to 624750 kHz",
        ),
        ({"sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n"}, None),
    ],
)
def test_what_spoils_timings_on_a_jetson(tmp_path: Path, change: Any, problem: str | None) -> None:
    before, after = (
        Condition(condition(tmp_path / name, tree)) for name, tree in (("a", ORIN_NANO), ("b", {**ORIN_NANO, **change}))
    )
    assert before.problems(after) == ([problem] if problem else [])
    # Counters never go back, and what was throttled before is no matter of this measurement.
    assert "throttled" not in " ".join(after.problems(before))


@pytest.mark.parametrize(("tree", "told"), [(THOR, True), ({**THOR, "sys/class/devfreq/gpu-gpc-0/min_freq": "1000000\n"}, False)])
def test_the_memory_s_clock_must_stay_where_it_is_locked(tmp_path: Path, tree: Any, told: bool) -> None:
    before = Condition(condition(tmp_path / "before", tree))
    after = Condition(condition(tmp_path / "after", {**tree, "sys/class/devfreq/bwmgr/cur_freq": "665600000\n"}))
    assert before.problems(after) == (["the clock of the memory fell from 4266000 to 665600 kHz"] if told else [])


# Whatever stands in the files


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TREES)), st.data())
def test_unreadable_content_is_no_error(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("tree")
    build(root, TREES[name])
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for path, content in data.draw(st.dictionaries(st.sampled_from(files), st.binary(max_size=40), max_size=4)).items():
        path.write_bytes(content)
    facts, now = device_facts.collect(str(root)), device_facts.condition(str(root))
    json.dumps([facts, now])
    identity = DeviceIdentity.from_facts(facts)
    assert identity.id
    json.dumps(SoftwareUnderTest.from_probe({"device": facts}).versions)
    # A Raspberry Pi says what is wrong at one moment; everything else takes two that differ.
    assert all("the Raspberry Pi reports" in problem for problem in Condition(now).problems(Condition(now)))
    target_markers(facts)
