"""A device that is simulated in this process: memory by address, streams that do their work only when somebody waits for them.

What a stream is given waits in a queue until it is synchronized. So a caller that does not wait reads what was there before, always, as
it would now and then from a real device.

The environment says what the device is: DOUBLE_GPU (name), DOUBLE_SM (8.7), DOUBLE_DEVICES, DOUBLE_CUINIT (what cuInit answers),
DOUBLE_MEMORY (bytes of device memory), DOUBLE_DLA_CORES.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

NAME = os.environ.get("DOUBLE_GPU") or "Orin"
SM = os.environ.get("DOUBLE_SM") or "8.7"
DEVICES = int(os.environ.get("DOUBLE_DEVICES") or 1)
STATUS = int(os.environ.get("DOUBLE_CUINIT") or 0)
MEMORY = int(os.environ.get("DOUBLE_MEMORY") or 2**32)
DLA_CORES = int(os.environ.get("DOUBLE_DLA_CORES") or 0)
ALIGNMENT = 512


class IllegalAddress(Exception):
    """Somebody used memory that is not theirs."""


class OutOfMemory(Exception):
    pass


class Memory:
    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._next = 0x7F0000000000

    def allocate(self, size: int) -> int:
        if sum(len(block) for block in self._blocks.values()) + size > MEMORY:
            raise OutOfMemory
        address = self._next
        self._next += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT  # never side by side: an overrun hits nobody else's block
        self._blocks[address] = bytearray(os.urandom(min(size, 4096)).ljust(size, b"\xa5"))  # what was there before
        return address

    def free(self, address: int) -> None:
        self._blocks.pop(address, None)

    def view(self, address: int, size: int) -> memoryview:
        for start, block in self._blocks.items():
            if start <= address and address + size <= start + len(block):
                return memoryview(block)[address - start : address - start + size]
        raise IllegalAddress(f"{size} bytes at {address:#x}")


memory = Memory()


class Queue:
    """The work of one stream."""

    def __init__(self) -> None:
        self.handle = 0x55000000 + 16 * (len(queues) + 1)
        self._work: deque[Callable[[], object]] = deque()
        queues[self.handle] = self

    def put(self, work: Callable[[], object]) -> None:
        self._work.append(work)

    def drain(self) -> None:
        while self._work:
            self._work.popleft()()


queues: dict[int, Queue] = {}
