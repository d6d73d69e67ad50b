"""As much of ``pycuda.driver`` as the agent uses; it does what the real one does, with the real one's words for what goes wrong."""

from __future__ import annotations

import time

import simulated_cuda

_CUINIT = {100: "no CUDA-capable device is detected", 999: "unknown error"}
_current: list[Context] = []
_initialized = False


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


class RuntimeError(Error):
    pass


def init(flags=0):
    global _initialized
    if simulated_cuda.STATUS:
        raise RuntimeError(f"cuInit failed: {_CUINIT.get(simulated_cuda.STATUS, 'unknown error')}")
    _initialized = True


def _require_context(function):
    if not _current:
        raise LogicError(f"{function} failed: invalid device context")


class Context:
    def push(self):
        _current.append(self)

    @staticmethod
    def pop():
        _require_context("cuCtxPopCurrent")
        _current.pop()


class Device:
    def __init__(self, number):
        if not _initialized:
            raise LogicError("cuDeviceGet failed: initialization error")
        if number >= simulated_cuda.DEVICES:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    @staticmethod
    def count():
        if not _initialized:
            raise LogicError("cuDeviceGetCount failed: initialization error")
        return simulated_cuda.DEVICES

    def make_context(self, flags=0):
        context = Context()
        context.push()
        return context

    def retain_primary_context(self):
        return Context()


class DeviceAllocation:
    def __init__(self, address):
        self._address = address

    def __int__(self):
        return self._address

    def free(self):
        simulated_cuda.memory.free(self._address)

    def __del__(self):
        self.free()


def mem_alloc(bytes):
    _require_context("cuMemAlloc")
    try:
        return DeviceAllocation(simulated_cuda.memory.allocate(bytes))
    except simulated_cuda.OutOfMemory:
        raise MemoryError("cuMemAlloc failed: out of memory") from None


def _bytes_of(array):
    if not array.flags.c_contiguous:
        raise ValueError("ndarray is not contiguous")
    return memoryview(array).cast("B")


def memcpy_htod_async(dest, src, stream=None):
    _require_context("cuMemcpyHtoDAsync")
    source = _bytes_of(src)

    def copy():
        simulated_cuda.memory.view(int(dest), len(source))[:] = source

    _put(stream, copy)


def memcpy_dtoh_async(dest, src, stream=None):
    _require_context("cuMemcpyDtoHAsync")
    target = _bytes_of(dest)

    def copy():
        target[:] = simulated_cuda.memory.view(int(src), len(target))

    _put(stream, copy)


class Stream:
    def __init__(self, flags=0):
        _require_context("cuStreamCreate")
        self._queue = simulated_cuda.Queue()

    @property
    def handle(self):
        return self._queue.handle

    def synchronize(self):
        _drain(self._queue, "cuStreamSynchronize")


_default = simulated_cuda.Queue()


def _put(stream, work):
    (stream._queue if stream is not None else _default).put(work)


def _drain(queue, function):
    try:
        queue.drain()
    except simulated_cuda.IllegalAddress:
        raise LogicError(f"{function} failed: an illegal memory access was encountered") from None


class Event:
    def __init__(self, flags=0):
        _require_context("cuEventCreate")
        self._queue = None
        self._time = None

    def record(self, stream=None):
        self._queue, self._time = (stream._queue if stream is not None else _default), None
        self._queue.put(self._stamp)

    def _stamp(self):
        self._time = time.perf_counter()

    def synchronize(self):
        if self._queue is not None and self._time is None:
            _drain(self._queue, "cuEventSynchronize")

    def time_since(self, event):
        """Milliseconds."""
        if self._queue is None or event._queue is None:
            raise LogicError("cuEventElapsedTime failed: invalid resource handle")
        if self._time is None or event._time is None:
            raise LogicError("cuEventElapsedTime failed: device not ready")
        return (self._time - event._time) * 1e3
