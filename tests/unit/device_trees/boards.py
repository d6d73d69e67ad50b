"""Jetson boards, a container on one, and Raspberry Pis."""

from __future__ import annotations

from .parts import (
    Tree,
    arm_processor,
    coral_usb,
    device_clock,
    device_tree,
    ina3221,
    ina3221x,
    over_current,
    packages,
    power_modes,
    processor_clock,
    release,
    thermal_zones,
)

# JetPack 4.6.1, after nvpmodel -m 0 and jetson_clocks, looked at by root.
NANO: Tree = {
    **arm_processor(["0xd07"] * 4),
    **processor_clock(1479000, 1479000),
    **device_tree(
        "NVIDIA Jetson Nano Developer Kit", "nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210"
    ),
    **release(
        "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t210ref, EABI: aarch64, DATE: Wed Feb  2 21:33:23 UTC 2022"
    ),
    **power_modes(0, "MAXN", "5W"),
    **packages(
        nvidia_l4t_core="32.7.1-20220219090344",
        nvidia_jetpack="4.6.1-b110",
        libnvinfer8="8.2.1-1+cuda10.2",
        libcudnn8="8.2.1.32-1+cuda10.2",
        cuda_cudart_10_2="10.2.300-1",
    ),
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.8": "",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.8.2.1": "",
    **device_clock("57000000.gpu", 921600000, 921600000, 921600000),
    "sys/kernel/debug/clk/emc/clk_rate": "1600000000\n",
    "sys/kernel/debug/tegra_bwmgr/emc_max_rate": "1600000000\n",
    **ina3221x("6-0040", ("POM_5V_IN", 1750), ("POM_5V_GPU", 40), ("POM_5V_CPU", 366)),
    **thermal_zones(AO_therm=45000, CPU_therm=40000, GPU_therm=40500, PLL_therm=37000, PMIC_Die=100000),
    "proc/sys/kernel/osrelease": "4.9.253-tegra\n",
}

# JetPack 5.1.2, as it comes: a power mode, clocks that move, no rights.
XAVIER_NX: Tree = {
    **arm_processor(["0x004"] * 6, implementer="0x4e"),
    **processor_clock(115200, 1420800, policies=(0, 2, 4)),
    **device_tree("NVIDIA Jetson Xavier NX Developer Kit", "nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"),
    **release(
        "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 19:57:35 UTC 2023"
    ),
    **power_modes(2, "MODE_15W_2CORE", "MODE_15W_4CORE", "MODE_15W_6CORE", "MODE_10W_2CORE"),
    **packages(nvidia_l4t_core="35.4.1-20230801124926", libnvinfer8="8.5.2-1+cuda11.4", libcudnn8="8.6.0.166-1+cuda11.4"),
    "usr/local/cuda/version.json": '{\n   "cuda" : {\n      "name" : "CUDA SDK",\n      "version" : "11.4.19"\n   }\n}\n',
    **device_clock("17000000.gv11b", 114750000, 1109250000, 114750000),
    **ina3221(5, ("VDD_IN", 4936, 560), ("VDD_CPU_GPU_CV", 4936, 132), ("VDD_SOC", 4936, 132)),
    **thermal_zones(CPU_therm=46500, GPU_therm=45500, PMIC_Die=50000),
    "proc/sys/kernel/osrelease": "5.10.120-tegra\n",
}

# JetPack 6.2.1 in the mode that came with it.
ORIN_NANO: Tree = {
    **arm_processor(["0xd42"] * 6),
    **processor_clock(729600, 1728000, policies=(0, 4)),
    **device_tree(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "nvidia,p3768-0000+p3767-0005-super",
        "nvidia,p3767-0005",
        "nvidia,tegra234",
    ),
    **release(
        "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18 22:54:44 UTC 2025",
        "# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\nTARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia\n",
    ),
    **power_modes(2, "15W", "25W", "MAXN_SUPER", "7W"),
    **packages(
        nvidia_l4t_core="36.4.7-20250918154033",
        nvidia_jetpack="6.2.1+b38",
        libnvinfer10="10.3.0.30-1+cuda12.5",
        libcudnn9_cuda_12="9.3.0.75-1",
        cuda_cudart_12_6="12.6.68-1",
    ),
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    **device_clock("17000000.gpu", 306000000, 1020000000, 624750000),
    **ina3221(1, ("VDD_IN", 5000, 1000), ("VDD_CPU_GPU_CV", 5000, 200), ("VDD_SOC", 5000, 300)),
    **over_current(3, 0, 12, 4),
    **thermal_zones(cpu_thermal=52562, gpu_thermal=50000, cv0_thermal=-256000, tj_thermal=52562),
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
}

# JetPack 7.1 with all clocks locked; its memory's clock is shown to everybody.
THOR: Tree = {
    **arm_processor(["0xd83"] * 14),
    **processor_clock(2601000, 2601000, governor="performance", policies=(0, 2)),
    **device_tree("NVIDIA Jetson AGX Thor Developer Kit", "nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
    **release("# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64, DATE: Mon Dec 29 2025"),
    **power_modes(0, "MAXN", "120W", "90W"),
    **packages(nvidia_l4t_core="38.4.0-20251230160601", libnvinfer10="10.13.3.9-1+cuda13.0", cuda_cudart_13_0="13.0.48-1"),
    **device_clock("gpu-gpc-0", 1575000000, 1575000000, 1575000000),
    **device_clock("gpu-nvd-0", 1692000000, 1692000000, 1692000000),
    **device_clock("bwmgr", 665600000, 4266000000, 4266000000),
    **ina3221(2, ("VDD_GPU", 19000, 10), ("VDD_CPU_SOC_MSS", 19000, 220), ("VIN_SYS_5V0", 5000, 825)),
    **ina3221(3, ("NC", 0, 0), ("NC", 0, 0), ("NC", 0, 0)),
    **over_current(4, 0, 0, 0),
    **thermal_zones(cpu_thermal=34468, tj_thermal=34500),
    "proc/sys/kernel/osrelease": "6.8.12-tegra\n",
}

# Docker hides the device tree and brings its own packages; the host's release is mounted, as jetson-containers does it.
CONTAINER_ON_ORIN: Tree = {
    **arm_processor(["0xd42"] * 6),
    **processor_clock(1728000, 1728000, policies=(0, 4)),
    **release(
        "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18 22:54:44 UTC 2025"
    ),
    "sys/devices/soc0/family": "Tegra\n",
    "sys/devices/soc0/machine": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\n",
    **packages(cuda_cudart_12_8="12.8.90-1", cuda_cudart_12_6="12.6.68-1"),
    # Mounted or copied into the image; no package knows of it.
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.7.0": "",
    **device_clock("17000000.gpu", 1020000000, 1020000000, 1020000000),
    ".dockerenv": "",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
}

RASPBERRY_PI_4: Tree = {
    **arm_processor(["0xd08"] * 4, "\nHardware\t: BCM2835\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"),
    **processor_clock(600000, 1500000, governor="ondemand"),
    **device_tree("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi,4-model-b", "brcm,bcm2711"),
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    **thermal_zones(cpu_thermal=61341),
}

RASPBERRY_PI_5: Tree = {
    **arm_processor(["0xd0b"] * 4, "\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"),
    **processor_clock(2400000, 2400000, governor="performance"),
    **device_tree("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712"),
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n",
    **thermal_zones(cpu_thermal=48300),
}

RUNTIME = packages(libedgetpu1_std="16.0")

BOARDS: dict[str, Tree] = {
    "nano-jetpack-4": NANO,
    "xavier-nx-jetpack-5": XAVIER_NX,
    "orin-nano-jetpack-6": ORIN_NANO,
    "thor-jetpack-7": THOR,
    "container-on-orin-nano": CONTAINER_ON_ORIN,
    "raspberry-pi-4": RASPBERRY_PI_4,
    "raspberry-pi-5": RASPBERRY_PI_5,
    "raspberry-pi-4-coral-usb3-cold": {**RASPBERRY_PI_4, **RUNTIME, **coral_usb(5000, firmware=False)},
    "raspberry-pi-4-coral-usb3": {**RASPBERRY_PI_4, **RUNTIME, **coral_usb(5000, firmware=True)},
    "raspberry-pi-4-coral-usb2-cold": {**RASPBERRY_PI_4, **RUNTIME, **coral_usb(480, firmware=False, bus=1)},
    "raspberry-pi-4-coral-usb2": {**RASPBERRY_PI_4, **RUNTIME, **coral_usb(480, firmware=True, bus=1)},
}
