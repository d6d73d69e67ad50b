"""Lines of tegrastats from boards of all releases since JetPack 4, as their users published them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_inference_gate.agent import tegrastats

# The dots stand where a line was shortened when it was published.
NANO_JP4 = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) CPU [5%@1224,4%@1224,3%@1224,6%@1224] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@37C CPU@40C PMIC@50C GPU@40C AO@45C thermal@40C POM_5V_IN 1750/1628 "
    "POM_5V_GPU 0/0 POM_5V_CPU 366/406"
)
TX2_JP4 = (
    "RAM 1689/3825MB (lfb 339x4MB) SWAP 0/1913MB (cached 0MB) CPU [3%@345,off,off,0%@345,1%@345,1%@345] EMC_FREQ 0% GR3D_FREQ 0% "
    "PLL@50.5C MCPU@50.5C PMIC@50C …"
)
AGX_XAVIER_JP4 = (
    "… CPU [2%@1190,…,off,off,off,off] EMC_FREQ 0%@665 GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 0% AO@37.5C GPU@37.5C Tdiode@40C "
    "PMIC@100C AUX@36C … GPU 0/0 CPU 311/311 SOC 932/932 CV 0/0 VDDRQ 621/621 SYS5V 1482/1482"
)
XAVIER_NX_JP5 = (
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) CPU [23%@1397,17%@1192,…] EMC_FREQ 2%@204 "
    "GR3D_FREQ 0%@[114] VIC_FREQ 115 APE 150 AUX@45C CPU@46.5C thermal@45.6C AO@45C GPU@45.5C PMIC@50C VDD_IN 2763mW/2846mW "
    "VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW"
)
AGX_ORIN_JP5 = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,…] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C "
    "GPU@-256C tj@44.343C SOC1@41.25C CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW "
    "NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
AGX_ORIN_JP6 = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) CPU [14%@2188,…] EMC_FREQ 3%@2133 "
    "GR3D_FREQ 0%@[0,0] NVENC 79%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 "
    "cpu@52.562C soc2@48.437C soc0@49.093C tj@52.562C soc1@49.656C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW "
    "VIN_SYS_5V0 4707mW/4707mW"
)
ORIN_NANO_JP6 = "… GR3D_FREQ 84%@[713] … tj@65.562C … VDD_IN 17946mW/15710mW VDD_CPU_GPU_CV 8896mW/7585mW VDD_SOC 3923mW/3515mW"
THOR_JP7 = (
    "05-17-2026 10:00:32 RAM 4208/125773MB (lfb 31x4MB) SWAP 0/2048MB (cached 0MB) CPU [1%@972,…] EMC_FREQ 0%@665 "
    "GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 … VIC off OFA_FREQ @0 PVA0_FREQ off APE 300 cpu@34.468C tj@34.5C soc012@33.781C soc345@34.5C "
    "VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4165mW/4165mW VIN_SYS_5V0 4126mW/4126mW"
)
AGX_ORIN_JP7 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,…] EMC_FREQ 3%@3199 GR3D_FREQ 12%@[1300,1300] NVENC0 off … "
    "cpu@52.968C/52.968C soc2@48.406C/48.406C soc0@49.531C/49.531C gpu@47.625C/47.625C VDD_GPU_SOC 5139mW/5139mW/5139mW "
    "VDD_CPU_CV 3268mW/3268mW/3268mW VIN_SYS_5V0 5500mW/5500mW/5500mW"
)
LINES = {
    "nano": NANO_JP4,
    "tx2": TX2_JP4,
    "xavier": AGX_XAVIER_JP4,
    "xavier-nx": XAVIER_NX_JP5,
    "orin-5": AGX_ORIN_JP5,
    "orin-6": AGX_ORIN_JP6,
    "orin-nano": ORIN_NANO_JP6,
    "thor": THOR_JP7,
    "orin-7": AGX_ORIN_JP7,
}


def parsed(line: str) -> dict[str, Any]:
    facts = tegrastats.parse(line)
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    ("name", "gpu", "memory", "rails"),
    [
        ("nano", (0, [76]), (0, 1600), {"POM_5V_IN": 1750, "POM_5V_GPU": 0, "POM_5V_CPU": 366}),
        ("tx2", (0, []), (0, None), {}),
        ("xavier", (0, [318]), (0, 665), {"GPU": 0, "CPU": 311, "SOC": 932, "CV": 0, "VDDRQ": 621, "SYS5V": 1482}),
        ("xavier-nx", (0, [114]), (2, 204), {"VDD_IN": 2763, "VDD_CPU_GPU_CV": 650, "VDD_SOC": 650}),
        ("orin-5", (0, [0, 0]), (0, 2133), {"VDD_GPU_SOC": 2340, "VDD_CPU_CV": 390, "VIN_SYS_5V0": 4025, "VDDQ_VDD2_1V8AO": 301}),
        ("orin-6", (0, [0, 0]), (3, 2133), {"VDD_GPU_SOC": 2412, "VDD_CPU_CV": 1607, "VIN_SYS_5V0": 4707}),
        ("orin-nano", (84, [713]), None, {"VDD_IN": 17946, "VDD_CPU_GPU_CV": 8896, "VDD_SOC": 3923}),
        ("thor", (None, [0, 0, 0]), (0, 665), {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4165, "VIN_SYS_5V0": 4126}),
        ("orin-7", (12, [1300, 1300]), (3, 3199), {"VDD_GPU_SOC": 5139, "VDD_CPU_CV": 3268, "VIN_SYS_5V0": 5500}),
    ],
)
def test_clocks_and_power(name: str, gpu: tuple[int | None, list[int]], memory: Any, rails: dict[str, float]) -> None:
    facts = parsed(LINES[name])
    assert facts["gpu"] == {"load": gpu[0], "mhz": gpu[1]}
    assert facts["memory"] == (None if memory is None else {"load": memory[0], "mhz": memory[1]})
    assert facts["milliwatts"] == rails


@pytest.mark.parametrize(
    ("name", "date", "ram", "swap", "celsius"),
    [
        ("nano", None, (1923, 3964), (191, 1982), {"pll": 37, "cpu": 40, "gpu": 40, "ao": 45, "thermal": 40}),
        ("tx2", None, (1689, 3825), (0, 1913), {"pll": 50.5, "mcpu": 50.5}),
        ("xavier", None, None, None, {"ao": 37.5, "gpu": 37.5, "tdiode": 40, "aux": 36}),
        (
            "xavier-nx",
            "07-09-2024 13:31:31",
            (3168, 6851),
            (161, 3426),
            {"aux": 45, "cpu": 46.5, "thermal": 45.6, "ao": 45, "gpu": 45.5},
        ),
        (
            "orin-5",
            "04-11-2025 10:36:27",
            (4321, 62801),
            (19, 31400),
            {"cpu": 44.562, "tboard": 32, "soc2": 40.093, "tdiode": 33, "soc0": 41.093, "tj": 44.343, "soc1": 41.25},
        ),
        (
            "orin-6",
            "05-09-2026 18:42:06",
            (18207, 62841),
            (86, 31420),
            {"cpu": 52.562, "soc2": 48.437, "soc0": 49.093, "tj": 52.562, "soc1": 49.656},
        ),
        ("orin-nano", None, None, None, {"tj": 65.562}),
        (
            "thor",
            "05-17-2026 10:00:32",
            (4208, 125773),
            (0, 2048),
            {"cpu": 34.468, "tj": 34.5, "soc012": 33.781, "soc345": 34.5},
        ),
        (
            "orin-7",
            "07-25-2026 09:08:28",
            (20642, 62817),
            None,
            {"cpu": 52.968, "soc2": 48.406, "soc0": 49.531, "gpu": 47.625},
        ),
    ],
)
def test_date_memory_and_temperatures(name: str, date: str | None, ram: Any, swap: Any, celsius: dict[str, float]) -> None:
    facts = parsed(LINES[name])
    assert facts["date"] == date
    for key, amount in (("ram", ram), ("swap", swap)):
        assert facts[key] == (None if amount is None else {"used": amount[0] << 20, "total": amount[1] << 20})
    assert facts["celsius"] == celsius


def test_cores() -> None:
    assert parsed(NANO_JP4)["cores"][0] == {"online": True, "load": 5, "mhz": 1224}
    assert [core["online"] for core in parsed(TX2_JP4)["cores"]] == [True, False, False, True, True, True]
    # What is not understood is neither on nor off.
    assert [core["online"] for core in parsed(AGX_XAVIER_JP4)["cores"]] == [True, None, False, False, False, False]
    assert parsed("CPU [3%,off]")["cores"][0] == {"online": True, "load": 3, "mhz": None}


def test_other_units() -> None:
    assert parsed(AGX_ORIN_JP6)["units"] == {
        "NVENC": {"on": True, "load": 79, "mhz": 166},
        "VIC": {"on": True, "load": 36, "mhz": 115},
        "APE": {"on": True, "load": None, "mhz": 174},
        **{
            name: {"on": False, "load": None, "mhz": None}
            for name in ("NVDEC", "NVJPG", "NVJPG1", "OFA", "NVDLA0", "NVDLA1", "PVA0")
        },
    }
    assert parsed(XAVIER_NX_JP5)["units"]["VIC"] == {"on": True, "load": None, "mhz": 115}
    assert parsed(THOR_JP7)["units"]["NVENC0"] == {"on": True, "load": None, "mhz": 0}


def test_both_clusters_of_an_early_jetpack_5() -> None:
    assert parsed("GR3D_FREQ 0%@114 GR3D2_FREQ 7%@318")["gpu"] == {"load": 7, "mhz": [114, 318]}


def test_rails_that_share_a_name_are_kept_apart() -> None:
    assert parsed("VDD 1mW/2mW NC 5mW/5mW VDD 3mW/4mW")["milliwatts"] == {"VDD": 1.0, "VDD#2": 3.0}


@pytest.mark.parametrize("line", ["", "Error: tegrastats needs a newer kernel", "NVENC off", "07-09-2024 13:31:31"])
def test_what_is_no_line_of_it(line: str) -> None:
    assert tegrastats.parse(line) is None


names = st.from_regex(r"[A-Z][A-Z0-9_]{1,11}", fullmatch=True).filter(
    lambda name: name not in ("NC", "RAM", "SWAP", "IRAM", "CPU")
)
watts = st.integers(0, 10**6)
# Neither below what means "no power" nor what the power management chip shows.
degrees = st.integers(-199_999, 150_000).map(lambda millidegrees: millidegrees / 1000)


@given(
    rails=st.dictionaries(names, watts, max_size=6),
    celsius=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{1,9}", fullmatch=True).filter(lambda name: name != "pmic"), degrees, max_size=6
    ),
    cores=st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 100), st.one_of(st.none(), st.integers(0, 4000)))), max_size=12),
    gpu=st.one_of(st.none(), st.lists(st.integers(0, 3000), min_size=1, max_size=3)),
    suffix=st.sampled_from(["", "mW"]),
    fields=st.integers(1, 2),
    noise=st.lists(st.text(st.characters(codec="ascii", categories=["Ll", "Po"]), min_size=1, max_size=8), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_what_is_written_in_any_order_is_read(
    rails: dict[str, int],
    celsius: dict[str, float],
    cores: list[tuple[int, int | None] | None],
    gpu: list[int] | None,
    suffix: str,
    fields: int,
    noise: list[str],
    order: Any,
) -> None:
    def core_text(core: tuple[int, int | None] | None) -> str:
        if core is None:
            return "off"
        return f"{core[0]}%" if core[1] is None else f"{core[0]}%@{core[1]}"

    pieces = [f"{name} {value}{suffix}" + f"/7{suffix}" * fields for name, value in rails.items()]
    pieces += [f"{name}@{value}C" for name, value in celsius.items()]
    pieces += ["CPU [" + ",".join(map(core_text, cores)) + "]"] if cores else []
    pieces += ["GR3D_FREQ 5%@[" + ",".join(map(str, gpu)) + "]"] if gpu else []
    pieces += noise
    order.shuffle(pieces)
    facts = tegrastats.parse(" ".join(pieces)) or {"milliwatts": {}, "celsius": {}, "cores": [], "gpu": None}
    assert facts["milliwatts"] == rails
    assert facts["celsius"] == pytest.approx(celsius)
    assert facts["gpu"] == ({"load": 5, "mhz": gpu} if gpu else None)
    expected = [(False, None, None) if core is None else (True, *core) for core in cores]
    assert [(core["online"], core["load"], core["mhz"]) for core in facts["cores"]] == expected


@given(st.text(max_size=200))
@example("CPU [")
@example("RAM 1/")
@example("GR3D_FREQ 0%@[,]")
def test_no_text_is_an_error(line: str) -> None:
    tegrastats.parse(line)


@given(st.sampled_from(sorted(LINES)), st.integers(0, 600))
def test_a_line_that_was_cut_says_what_it_still_says(name: str, length: int) -> None:
    whole, cut = parsed(LINES[name]), tegrastats.parse(LINES[name][:length])
    # The last piece may have lost digits: of the others, nothing is changed and nothing is added.
    sensors = list(cut["celsius"])[:-1] if cut else []
    assert all(cut["celsius"][sensor] == whole["celsius"][sensor] for sensor in sensors if cut)
