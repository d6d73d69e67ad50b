"""How much memory a CUDA device has left, and whether the sizes that a backend was told fit into it. No context is made. Python 3.6.

A Jetson's GPU uses the memory of the processor, so what the kernel says of that counts; a discrete GPU is asked through NVIDIA's
management library.
"""

import ctypes
from typing import Any, Optional  # noqa: F401

from . import device_facts
from .failures import BuildError, OutOfMemory

NVML = ("libnvidia-ml.so.1", "libnvidia-ml.so")
BUS_ID_BYTES = 32
# TF-TRT says "as much as there is" by a number that no memory has.
UNLIMITED = 1 << 60


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def free_bytes(root="/"):
    # type: (str) -> Optional[int]
    """Bytes that are free for the first CUDA device now; None where nobody tells."""
    if device_facts.collect(root).get("jetson"):
        return device_facts.memory(root, "MemAvailable")
    return _free_of_discrete()


def _free_of_discrete():
    # type: () -> Optional[int]
    nvml = _load(NVML)
    if nvml is None or nvml.nvmlInit_v2():
        return None
    try:
        device, memory = ctypes.c_void_p(), _Memory()
        address = _address_of_first()
        if address is None:
            missing = nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
        else:
            missing = nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(device))
        if missing or nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)):
            return None
        return int(memory.free)
    finally:
        nvml.nvmlShutdown()


def _address_of_first():
    # type: () -> Optional[bytes]
    """The PCI address of the device that CUDA calls the first, which CUDA_VISIBLE_DEVICES may have chosen."""
    driver = _load(("libcuda.so.1", "libcuda.so"))
    device, address = ctypes.c_int(), ctypes.create_string_buffer(BUS_ID_BYTES)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if not hasattr(driver, "cuDeviceGetPCIBusId") or driver.cuDeviceGetPCIBusId(address, BUS_ID_BYTES, device):
        return None
    return address.value


def _load(names):
    # type: (Any) -> Any
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def size(count):
    # type: (int) -> str
    return "%.1f GiB" % (count / 2.0**30) if count >= 2**30 else "%.0f MiB" % (count / 2.0**20)


def check(workspace, limit, free, default_workspace):
    # type: (Optional[int], Optional[int], Optional[int], int) -> None
    """Raise unless workspace < memory limit < free memory, with the number that has to change. All in bytes; None: not set, not known.

    A builder whose workspace does not fit fails later and quietly: the engine is not built, and TensorFlow runs the segment itself.
    """
    named = "workspace_bytes is %s" % size(workspace) if workspace is not None else ""
    if workspace is None and default_workspace < UNLIMITED:
        named = "workspace_bytes is not set, which means %s here" % size(default_workspace)
    if limit is not None:
        if workspace is None and default_workspace >= UNLIMITED:
            raise BuildError(
                "memory_limit_bytes is %s and workspace_bytes is not set, which means as much as there is here: set workspace_bytes in "
                "[options.tftrt] below memory_limit_bytes" % size(limit)
            )
        if (default_workspace if workspace is None else workspace) >= limit:
            raise BuildError(
                "%s and memory_limit_bytes is %s, but the workspace has to be smaller than the limit: lower workspace_bytes or raise "
                "memory_limit_bytes in [options.tftrt]" % (named, size(limit))
            )
        check_limit(limit, free)
    elif workspace is not None and free is not None and workspace >= free:
        raise OutOfMemory(
            "%s and only %s of the GPU's memory are free: lower workspace_bytes in [options.tftrt] below that, or free memory"
            % (named, size(free))
        )


def check_limit(limit, free):
    # type: (Optional[int], Optional[int]) -> None
    if limit is not None and free is not None and limit >= free:
        raise OutOfMemory(
            "memory_limit_bytes is %s and only %s of the GPU's memory are free: lower memory_limit_bytes in [options.tftrt] below that, "
            "or free memory (on a Jetson the desktop and other programs share it)" % (size(limit), size(free))
        )
