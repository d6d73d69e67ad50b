"""Computers with and without an accelerator."""

from __future__ import annotations

from .parts import Tree, coral_pcie, discrete_gpu, packages, processor_clock, thermal_zones, x86_processor

LAPTOP: Tree = {
    **x86_processor("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", 8),
    **processor_clock(400000, 4000000, governor="powersave"),
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "20L5CTO1WW\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    **thermal_zones(x86_pkg_temp=54000),
    # Its own graphics are no NVIDIA's, and its camera is no Edge TPU.
    "sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086\n",
    "sys/bus/pci/devices/0000:00:02.0/device": "0x5917\n",
    "sys/bus/pci/devices/0000:00:02.0/class": "0x030000\n",
    "sys/bus/usb/devices/1-8/idVendor": "04f2\n",
    "sys/bus/usb/devices/1-8/idProduct": "b604\n",
    "sys/bus/usb/devices/1-8/speed": "480\n",
    **packages(),
}

COMPUTERS: dict[str, Tree] = {
    "laptop": LAPTOP,
    "x86-coral-pcie": {**LAPTOP, **packages(libedgetpu1_max="16.0", gasket_dkms="1.0-18"), **coral_pcie()},
    "x86-gpu": {
        **LAPTOP,
        **packages(libnvinfer10="10.13.3.9-1+cuda13.0", libcudnn9_cuda_12="9.3.0.75-1"),
        "usr/local/cuda/version.txt": "CUDA Version 10.2.89\n",
        **discrete_gpu(),
    },
}
