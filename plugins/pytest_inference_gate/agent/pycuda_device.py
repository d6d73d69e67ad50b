"""Device memory, one stream and its events, by PyCUDA."""

from typing import Any, Callable, Dict, List, Optional  # noqa: F401

from .failures import LoadError, Unsupported

_device = None  # type: Optional[Device]


def device():
    # type: () -> Device
    """The one context of this process; it stays current until the agent ends."""
    global _device
    if _device is None:
        _device = Device()
    return _device


def _context(device):
    # type: (Any) -> Any
    """The primary context, which the CUDA runtime under TensorRT uses too; one of our own where an old PyCUDA cannot give that."""
    if not hasattr(device, "retain_primary_context"):
        return device.make_context()
    context = device.retain_primary_context()
    context.push()
    return context


class Device:
    """The first CUDA device that is visible, with one stream."""

    def __init__(self):
        # type: () -> None
        try:
            import pycuda.driver as driver
        except ModuleNotFoundError as error:
            if error.name in ("pycuda", "pycuda.driver"):
                raise Unsupported("PyCUDA is not installed here, and running a TensorRT engine needs it: pip install pycuda")
            raise LoadError("PyCUDA cannot be imported: %s" % error)
        except ImportError as error:
            raise LoadError(
                "PyCUDA cannot be imported (%s): build it again for the CUDA and the Python that are installed" % error
            )
        self._driver = driver
        try:
            driver.init()
            if driver.Device.count() == 0:
                raise Unsupported("PyCUDA sees no CUDA device")
            self._context = _context(driver.Device(0))
        except driver.Error as error:
            if "out of memory" in str(error):
                raise
            raise Unsupported("PyCUDA cannot use a CUDA device: %s" % error)
        self.stream = driver.Stream()

    @property
    def stream_handle(self):
        # type: () -> int
        return int(self.stream.handle)

    def allocate(self, size):
        # type: (int) -> Any
        """``size`` bytes of device memory; ``int()`` of what comes back is the address. It is freed with the last reference."""
        return self._driver.mem_alloc(max(1, size))

    def upload(self, buffer, array):
        # type: (Any, Any) -> None
        """Copy a contiguous array to the device, and wait for it."""
        self._driver.memcpy_htod_async(buffer, array, self.stream)
        self.stream.synchronize()

    def download(self, array, buffer):
        # type: (Any, Any) -> None
        """Fill a contiguous array from the device, after everything in the stream has been done."""
        self._driver.memcpy_dtoh_async(array, buffer, self.stream)
        self.stream.synchronize()

    def timed(self, enqueue):
        # type: (Callable[[], Any]) -> Callable[[], float]
        """A callable that enqueues once between two events, waits, and returns the seconds between them on the device's own clock."""
        start, end, stream = self._driver.Event(), self._driver.Event(), self.stream

        def seconds():
            # type: () -> float
            start.record(stream)
            enqueue()
            end.record(stream)
            end.synchronize()
            return float(end.time_since(start)) * 1e-3  # it counts in milliseconds

        return seconds
