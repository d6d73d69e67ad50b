"""The agent's reading of /proc and /sys, on small copies of the file trees of several devices."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.agent import device_facts

Tree = dict[str, str]


def plant(root: Path, tree: Tree) -> str:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return str(root)


def policy(number: int, governor: str, minimum: int, maximum: int, hardware: tuple[int, int], driver: str) -> Tree:
    folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
    return {
        f"{folder}/scaling_driver": f"{driver}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
        f"{folder}/scaling_min_freq": f"{minimum}\n",
        f"{folder}/scaling_max_freq": f"{maximum}\n",
        f"{folder}/cpuinfo_min_freq": f"{hardware[0]}\n",
        f"{folder}/cpuinfo_max_freq": f"{hardware[1]}\n",
    }


def arm_cpuinfo(parts: list[str], end: str = "") -> str:
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
        for number, part in enumerate(parts)
    ]
    return "\n".join(blocks) + "\n" + end


def x86_cpuinfo(model: str, count: int, family: int, number: int, flags: str, vendor: str = "GenuineIntel") -> str:
    return "\n".join(
        f"processor\t: {core}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {number}\nmodel name\t: {model}\n"
        f"stepping\t: 10\nmicrocode\t: 0xf0\ncpu MHz\t\t: {800 + core}.125\nflags\t\t: {flags}\n"
        for core in range(count)
    )


LAPTOP: Tree = {
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
    "proc/cpuinfo": x86_cpuinfo("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", 4, 6, 142, "fpu vme avx2"),
    "proc/meminfo": "MemTotal:       16213452 kB\nMemFree:          300000 kB\nMemAvailable:    9000000 kB\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n",
    "proc/self/cgroup": "0::/user.slice/session-2.scope\n",
    "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
    "proc/loadavg": "0.52 0.58 0.59 1/1234 5678\n",
    "proc/stat": "cpu  100 0 50 800 10 0 5 0 0 0\ncpu0 25 0 12 200 2 0 1 0 0 0\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/smt/active": "1\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    **policy(0, "powersave", 400000, 4000000, (400000, 4000000), "intel_pstate"),
    **policy(1, "powersave", 400000, 4000000, (400000, 4000000), "intel_pstate"),
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "900000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "7\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms": "99\n",
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "20L5CTO1WW\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone0/temp": "54000\n",
    "sys/class/thermal/thermal_zone10/temp": "-273200\n",
    "sys/class/power_supply/AC/type": "Mains\n",
    "sys/class/power_supply/AC/online": "0\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/firmware/acpi/platform_profile": "balanced\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
}

VIRTUAL_MACHINE: Tree = {
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/cpuinfo": x86_cpuinfo("AMD EPYC", 2, 26, 2, "fpu hypervisor avx2", vendor="AuthenticAMD"),
    "proc/self/status": "Cpus_allowed_list:\t0-1\n",
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n1:memory:/docker/abc\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
    "proc/stat": "cpu  100 0 50 800 10 0 5 35 7 0\n",
    "sys/devices/system/cpu/online": "0-1\n",
    ".dockerenv": "",
}

RASPBERRY_PI_4: Tree = {
    "proc/sys/kernel/arch": "aarch64\n",
    "proc/cpuinfo": arm_cpuinfo(
        ["0xd08"] * 4, "\nHardware\t: BCM2835\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
    ),
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/self/status": "Cpus_allowed_list:\t0-3\n",
    "sys/devices/system/cpu/online": "0-3\n",
    **policy(0, "ondemand", 600000, 1500000, (600000, 1500000), "cpufreq-dt"),
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61341\n",
}

JETSON_NANO: Tree = {
    "proc/sys/kernel/osrelease": "4.9.253-tegra\n",
    "proc/cpuinfo": arm_cpuinfo(["0xd07"] * 4),
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0",
    "proc/self/status": "Cpus_allowed_list:\t0-3\n",
    "sys/devices/system/cpu/online": "0-3\n",
    **policy(0, "schedutil", 1479000, 1479000, (102000, 1479000), "tegra-cpufreq"),
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t210ref, EABI: aarch64\n# second line\n",
    "sys/class/hwmon/hwmon4/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon4/oc1_event_cnt": "2\n",
    "sys/class/hwmon/hwmon4/oc3_event_cnt": "0\n",
}

ARM_SERVER: Tree = {
    "proc/sys/kernel/arch": "aarch64\n",
    "proc/cpuinfo": arm_cpuinfo(["0xd0c"] * 2 + ["0xd99"]),
    "sys/class/dmi/id/sys_vendor": "Ampere(R)\n",
    "sys/class/dmi/id/product_name": "Mt. Jade\n",
    "proc/self/status": "Cpus_allowed_list:\t0,2\n",
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
    "sys/devices/system/cpu/online": "0-2\n",
    "sys/devices/system/cpu/cpufreq/boost": "0\n",
}


@pytest.fixture
def collected(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    return device_facts.collect(plant(tmp_path, request.param))


@pytest.mark.parametrize("collected", [LAPTOP], indirect=True)
def test_laptop(collected: dict[str, Any]) -> None:
    assert collected["machine"] == "x86_64"
    assert collected["kernel"] == "6.8.0-45-generic"
    assert collected["os"] == "Ubuntu 24.04.1 LTS"
    assert collected["cpu"]["model"] == "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz"
    assert (collected["cpu"]["family"], collected["cpu"]["model_number"], collected["cpu"]["stepping"]) == (6, 142, 10)
    assert collected["cpu"]["microcode"] == "0xf0"
    assert collected["board"] == {"model": None, "compatible": [], "vendor": "LENOVO", "product": "20L5CTO1WW"}
    assert collected["cores"] == {"online": [0, 1, 2, 3], "allowed": [0, 1, 2, 3], "quota": None, "usable": 4}
    assert collected["memory_total_bytes"] == 16213452 * 1024
    assert collected["clocks_locked"] is False
    assert collected["turbo"] is True
    assert collected["smt"] is True
    assert collected["hypervisor"] is False
    assert collected["container"] is None
    assert collected["power_profile"] == "balanced"
    assert [entry["name"] for entry in collected["frequency_policies"]] == ["policy0", "policy1"]


@pytest.mark.parametrize("collected", [VIRTUAL_MACHINE], indirect=True)
def test_virtual_machine_without_frequency_control(collected: dict[str, Any]) -> None:
    assert collected["hypervisor"] is True
    assert collected["container"] == "docker"
    assert collected["frequency_policies"] == []
    assert collected["clocks_locked"] is None
    assert collected["turbo"] is None
    # The group around the process's own one limits it too.
    assert collected["cores"]["quota"] == 1.5
    assert collected["cores"]["usable"] == 1.5


@pytest.mark.parametrize("collected", [RASPBERRY_PI_4], indirect=True)
def test_raspberry_pi(collected: dict[str, Any]) -> None:
    assert collected["board"]["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert collected["board"]["compatible"] == ["raspberrypi,4-model-b", "brcm,bcm2711"]
    assert collected["cpu"]["cores"] == [{"implementer": 0x41, "part": 0xD08, "name": "Cortex-A72", "count": 4}]
    assert collected["cpu"]["hardware"] == "BCM2835"
    assert collected["cpu"]["board_model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert collected["hypervisor"] is None


@pytest.mark.parametrize("collected", [JETSON_NANO], indirect=True)
def test_jetson_nano(collected: dict[str, Any]) -> None:
    assert collected["board"]["model"] == "NVIDIA Jetson Nano Developer Kit"
    assert collected["clocks_locked"] is True
    assert collected["l4t_release_line"].startswith("# R32 (release), REVISION: 7.1")
    assert "\n" not in collected["l4t_release_line"]
    # The tree does not say, and the machine on which this test runs must not be asked.
    assert collected["machine"] is None


@pytest.mark.parametrize("collected", [ARM_SERVER], indirect=True)
def test_arm_server(collected: dict[str, Any]) -> None:
    assert collected["cores"] == {"online": [0, 1, 2], "allowed": [0, 2], "quota": 0.5, "usable": 0.5}
    assert [core["name"] for core in collected["cpu"]["cores"]] == ["Neoverse-N1", None]
    assert collected["turbo"] is False


def test_an_empty_tree_says_that_nothing_is_known(tmp_path: Path) -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in leaves(part)]
        if isinstance(value, list):
            return [leaf for part in value for leaf in leaves(part)]
        return [value]

    assert set(leaves(device_facts.collect(str(tmp_path)))) == {None}
    condition = device_facts.condition(str(tmp_path))
    assert condition.pop("time") == pytest.approx(time.time(), abs=60)
    assert condition.pop("monotonic") is not None
    assert set(leaves(condition)) == {None}


def test_condition_of_a_laptop(tmp_path: Path) -> None:
    condition = device_facts.condition(plant(tmp_path, LAPTOP))
    assert condition["load_average"] == [0.52, 0.58, 0.59]
    assert condition["online"] == [0, 1, 2, 3]
    assert condition["governors"] == {"policy0": "powersave", "policy1": "powersave"}
    assert condition["maximum_khz"] == {"policy0": 4000000, "policy1": 4000000}
    assert condition["current_khz"] == {"cpu0": 1800000, "cpu1": 900000}
    # The zone that reads below absolute zero has no power.
    assert condition["thermal_zones"] == [{"name": "x86_pkg_temp", "celsius": 54.0}]
    assert condition["throttle_counts"] == {"cpu0/core_throttle_count": 3, "cpu0/package_throttle_count": 7}
    assert condition["on_battery"] is True
    # Waiting for a disk is not work.
    assert (condition["steal_ticks"], condition["busy_ticks"], condition["total_ticks"]) == (0, 155, 965)
    assert condition["memory_available_bytes"] == 9000000 * 1024


def test_condition_of_a_virtual_machine(tmp_path: Path) -> None:
    condition = device_facts.condition(plant(tmp_path, VIRTUAL_MACHINE))
    # The guest times at the end of the line are contained in the others.
    assert (condition["steal_ticks"], condition["busy_ticks"], condition["total_ticks"]) == (35, 155, 1000)
    assert condition["current_khz"] == {"cpu0": 800125, "cpu1": 801125}


def test_what_only_this_machine_s_kernel_can_tell(tmp_path: Path) -> None:
    elsewhere, here = device_facts.condition(plant(tmp_path, LAPTOP)), device_facts.condition()
    assert (elsewhere["process_seconds"], elsewhere["ticks_per_second"]) == (None, None)
    assert here["process_seconds"] > 0
    assert here["ticks_per_second"] > 0


def test_swap_in_use(tmp_path: Path) -> None:
    tree = {"proc/meminfo": "MemTotal: 100 kB\nSwapTotal: 2048 kB\nSwapFree: 1000 kB\n"}
    assert device_facts.condition(plant(tmp_path / "some", tree))["swap_used_bytes"] == 1048 * 1024
    assert device_facts.condition(plant(tmp_path / "none", {}))["swap_used_bytes"] is None


def test_condition_of_boards(tmp_path: Path) -> None:
    assert device_facts.condition(plant(tmp_path / "pi", RASPBERRY_PI_4))["raspberry_pi_throttled"] == 0x50005
    nano = device_facts.condition(plant(tmp_path / "nano", JETSON_NANO))
    assert nano["throttle_counts"] == {"soctherm_oc/oc1_event_cnt": 2, "soctherm_oc/oc3_event_cnt": 0}


def test_older_kernels_keep_frequencies_by_core(tmp_path: Path) -> None:
    tree = {f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor": "ondemand\n" for core in (10, 2)}
    policies = device_facts.frequency_policies(plant(tmp_path, tree))
    assert [entry["name"] for entry in policies] == ["cpu2", "cpu10"]
    assert device_facts.clocks_locked(policies) is None


def test_a_root_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    root = plant(tmp_path / "a[bc]*", RASPBERRY_PI_4)
    assert len(device_facts.frequency_policies(root)) == 1


def test_this_machine_is_plain_json() -> None:
    facts, condition = device_facts.collect(), device_facts.condition()
    assert json.loads(json.dumps(facts)) == facts
    assert json.loads(json.dumps(condition)) == condition
    assert facts["machine"]
    assert facts["cores"]["usable"] >= 0


@given(st.sets(st.integers(0, 300), min_size=1))
def test_lists_of_cores(cores: set[int]) -> None:
    assert device_facts.parse_cores(",".join(map(str, cores))) == sorted(cores)
    assert device_facts.parse_cores(f"{min(cores)}-{max(cores)}") == list(range(min(cores), max(cores) + 1))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(LAPTOP)), st.binary(max_size=40)))
def test_unreadable_content_is_no_error(tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("tree")
    plant(root, LAPTOP)
    for name, data in content.items():
        (root / name).write_bytes(data)
    json.dumps(device_facts.collect(str(root)))
    json.dumps(device_facts.condition(str(root)))


def test_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process would cost more than everything else, and `platform` starts one in some versions of Python."""

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    monkeypatch.setattr("os.popen", refuse)
    monkeypatch.setattr("platform.uname", refuse)
    device_facts.collect()
    device_facts.condition()


@pytest.mark.parametrize(
    ("kernel", "told", "machine"),
    [
        ("x86_64", "x86_64", "x86_64"),
        ("x86_64", "i686", "x86_64"),
        ("aarch64", "armv8l", "aarch64"),
        ("x86_64", "aarch64", "aarch64 emulated on x86_64"),
        ("aarch64", "x86_64", "x86_64 emulated on aarch64"),
        ("x86_64", "riscv64", "riscv64 emulated on x86_64"),
        ("s390x", "unheard-of", "s390x"),
        (None, "aarch64", "aarch64"),
        ("aarch64", None, "aarch64"),
    ],
)
def test_an_emulated_processor_is_no_device_of_its_own_kind(
    monkeypatch: pytest.MonkeyPatch, kernel: str | None, told: str | None, machine: str
) -> None:
    """Else its timings would be compared with those of the real one."""
    monkeypatch.setattr(device_facts, "read", lambda *path: kernel)
    monkeypatch.setattr(device_facts, "kernel_says", lambda root, field: told)
    assert device_facts.machine("/") == machine
