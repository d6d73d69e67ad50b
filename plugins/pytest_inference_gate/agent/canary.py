"""Two small kernels of known work, timed beside the models: they tell a machine that changed from a model that did.

One is bound by the processor's clock: SHA-256 over a buffer that stays in its cache. The other is bound by memory: a copy between two
buffers well beyond its cache. Neither uses NumPy or a framework, so that an upgrade of these leaves both alone.

A pass is a fixed amount of work, the same in every run; as many passes are made as fit the time, and the median pass is what counts. So a
small board and a server do the same kernel, each in the time that it needs, and a pass that was interrupted does not matter.

Python 3.6, standard library only.
"""

import gc
import hashlib
import os
import platform
import re
from typing import Any, Callable, Dict, List  # noqa: F401

from . import device_facts
from .device_files import find, read
from .measure import best_clock, median

MIB = 1 << 20

HASHED_BYTES = 16 * 1024  # half of the smallest first-level cache that is common, 32 KiB
HASHES_IN_A_PASS = 32  # 0.5 MiB: about 0.3 ms with SHA instructions, 5 ms on a small board without
SECONDS = 0.06  # for each kernel, and no fewer passes than the next line says
FEWEST_PASSES = 7
UNTIMED_PASSES = 2

CACHE_WHERE_UNKNOWN = 16 * MIB
SMALLEST_COPY = 16 * MIB
LARGEST_COPY = 96 * MIB


def canary():
    # type: () -> Dict[str, Any]
    """Seconds of a pass of each kernel, and what the kernels are: two results may be compared where ``kernel`` is the same."""
    size = copied_bytes()
    return {"compute": compute_seconds(), "memory": memory_seconds(size), "kernel": kernel(size)}


def kernel(size):
    # type: (int) -> str
    return "%s %s; SHA-256 of %d x %d KiB by %s; copy of %d MiB by %s" % (
        platform.python_implementation(),
        ".".join(platform.python_version_tuple()[:2]),
        HASHES_IN_A_PASS,
        HASHED_BYTES // 1024,
        hash_library(),
        size // MIB,
        c_library(),
    )


def hash_library():
    # type: () -> str
    """Whose code it is: a Python that does not find its way into OpenSSL has a much slower SHA-256 of its own."""
    if not hashlib.sha256.__name__.startswith("openssl"):
        return "Python"
    from ssl import OPENSSL_VERSION

    return OPENSSL_VERSION


def c_library():
    # type: () -> str
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "an unknown C library"
    except (AttributeError, OSError, ValueError):  # no Unix, or another C library
        return "an unknown C library"


def copied_bytes(root="/"):
    # type: (str) -> int
    """Twice the last-level cache for each of the two buffers, and no more than a sixteenth of the memory; whole MiB.

    Both depend on the machine only: what is free at the moment must not change the kernel.
    """
    size = 2 * (last_level_cache_bytes(root) or CACHE_WHERE_UNKNOWN)
    size = min(max(size, SMALLEST_COPY), LARGEST_COPY)
    total = device_facts.memory(root, "MemTotal")
    if total is not None:
        size = min(size, total // 16)
    return max(size // MIB, 1) * MIB


def last_level_cache_bytes(root="/"):
    # type: (str) -> int
    """The largest cache of the first core; 0 if unknown."""
    largest = 0
    for path in find(root, device_facts.CPU + "/cpu0/cache/index[0-9]*/size"):
        match = re.match(r"([0-9]+)([KM])", read(root, path) or "")
        if match:
            largest = max(largest, int(match.group(1)) * (MIB if match.group(2) == "M" else 1024))
    return largest


def compute_seconds():
    # type: () -> float
    data = bytes(bytearray(range(256))) * (HASHED_BYTES // 256)

    def hash_it():
        # type: () -> None
        for _ in range(HASHES_IN_A_PASS):
            hashlib.sha256(data)

    return typical_pass(hash_it)


def memory_seconds(size):
    # type: (int) -> float
    source, target = memoryview(bytearray(b"\1") * size), memoryview(bytearray(b"\2") * size)  # pages of their own, all touched

    def copy():
        # type: () -> None
        target[:] = source

    return typical_pass(copy)


def typical_pass(call):
    # type: (Callable[[], None]) -> float
    """Seconds of the median pass."""
    clock = best_clock()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(UNTIMED_PASSES):
            call()
        durations = []  # type: List[float]
        started = now = clock.read()
        while len(durations) < FEWEST_PASSES or (now - started) * clock.unit < SECONDS:
            before = clock.read()
            call()
            now = clock.read()
            durations.append(now - before)
    finally:
        if was_enabled:
            gc.enable()
    return float(median(durations) * clock.unit)
