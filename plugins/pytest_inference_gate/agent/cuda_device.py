"""What CUDA device there is, asked of the driver's own library: no framework is imported and no context is made.

An engine fits one version of TensorRT, one compute capability (SM) and one model of board, so these are part of what it is made of.
"""

import ctypes
from typing import Any, Dict, List, Optional, Tuple  # noqa: F401

from . import device_facts

LIBRARIES = ("libcuda.so.1", "libcuda.so")
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NAME_BYTES = 256

# What cuInit answers where nothing can be done with the device; other numbers are shown as they are.
MEANINGS = {
    3: "the driver is not initialized",
    34: "libcuda is a stub: the real one belongs to the driver",
    46: "the device is in use by another process or otherwise unavailable",
    100: "no CUDA-capable device is detected",
    101: "invalid device ordinal",
    802: "the system is not ready to use CUDA",
    803: "the driver does not fit its library libcuda",
    999: "unknown error",
}


class NoDevice(Exception):
    """Why no CUDA device can be used; the message is the end of a sentence."""


def _driver():
    # type: () -> Any
    problem = ""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problem = problem or str(error)
    raise NoDevice("the driver's library cannot be loaded (%s)" % problem)


def _check(status, function):
    # type: (int, str) -> None
    if status:
        raise NoDevice("%s says %d: %s" % (function, status, MEANINGS.get(status, "see the CUDA driver's list of errors")))


def facts(root="/"):
    # type: (str) -> Dict[str, str]
    """``gpu`` (its name), ``sm`` (``8.7``), ``cuda_driver`` (the newest CUDA that the driver knows, ``12.6``) and ``board`` (the device
    tree's name; empty on a PC), of the first device that is visible. Raises :class:`NoDevice`."""
    driver = _driver()
    _check(driver.cuInit(0), "cuInit")
    count, device, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value == 0:
        raise NoDevice("the driver shows no device")
    _check(driver.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    name = ctypes.create_string_buffer(NAME_BYTES)
    _check(driver.cuDeviceGetName(name, NAME_BYTES, device), "cuDeviceGetName")
    capability = []  # type: List[str]
    for attribute in (MAJOR, MINOR):
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        capability.append(str(value.value))
    _check(driver.cuDriverGetVersion(ctypes.byref(value)), "cuDriverGetVersion")
    return {
        "gpu": name.value.decode("utf-8", "replace"),
        "sm": ".".join(capability),
        "cuda_driver": "%d.%d" % (value.value // 1000, value.value % 1000 // 10),
        "board": device_facts.board_facts(root)["model"] or "",
    }
