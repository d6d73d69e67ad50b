"""A CUDA device inside a PyTorch that is built for the CPU: tensors stay where they are, and the device takes its time.

What a module computes with a tensor that was put on the device counts as work in the stream: it ends DOUBLE_SECONDS (0.004) after somebody
begins to wait for it. So a caller that does not wait measures nothing, and events know how long the work took.

DOUBLE_TORCH_CUDA: the CUDA that the wheel is built for (12.6), ``none`` for a wheel for the CPU alone. DOUBLE_TORCH_FAULT: ``no_device``,
``no_kernel``, ``oom``.
"""

import functools
import os
import time

SECONDS = float(os.environ.get("DOUBLE_SECONDS") or 0.004)
FAULT = os.environ.get("DOUBLE_TORCH_FAULT") or ""
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3.86 GiB of which 640.00 MiB is free. Of the "
    "allocated memory 1.20 GiB is allocated by PyTorch, and 40.00 MiB is reserved by PyTorch but unallocated."
)


class Stream:
    pending = False

    def drain(self):
        if self.pending:
            time.sleep(SECONDS)
            self.pending = False


stream = Stream()


def is_there(tensor):
    return getattr(tensor, "on_simulated_device", False)


class Event:
    def __init__(self, enable_timing=False):
        self._timing, self._recorded, self._time = enable_timing, False, None

    def record(self, stream_=None):
        self._recorded, self._time = True, None if stream.pending else time.perf_counter()

    def synchronize(self):
        if self._recorded and self._time is None:
            stream.drain()
            self._time = time.perf_counter()

    def elapsed_time(self, end):
        """Milliseconds."""
        if not (self._timing and end._timing):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'")
        if self._time is None or end._time is None:
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return (end._time - self._time) * 1e3


def install(torch):
    built_for = os.environ.get("DOUBLE_TORCH_CUDA") or "12.6"
    if built_for == "none":
        return
    torch.version.cuda = built_for
    real_to, real_cpu, real_zeros = torch.Tensor.to, torch.Tensor.cpu, torch.zeros
    real_call = torch.nn.Module.__call__

    def names_cuda(value):
        return isinstance(value, (str, torch.device)) and torch.device(value).type == "cuda"

    @functools.wraps(real_to)
    def to(self, *arguments, **keywords):
        wanted = any(map(names_cuda, [*arguments, keywords.get("device")]))
        cpu = torch.device("cpu")
        arguments = [cpu if names_cuda(value) else value for value in arguments]
        keywords = {name: cpu if names_cuda(value) else value for name, value in keywords.items()}
        result = real_to(self, *arguments, **keywords)
        if wanted or is_there(self):
            result.on_simulated_device = True
        return result

    def cpu(self, *arguments, **keywords):
        stream.drain()
        result = real_cpu(self, *arguments, **keywords).clone()
        return result

    def zeros(*arguments, device=None, **keywords):
        if names_cuda(device) and FAULT == "no_kernel":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with something.")
        return real_zeros(*arguments, **keywords)

    def call(self, *arguments, **keywords):
        result = real_call(self, *arguments, **keywords)
        if any(map(is_there, arguments)):
            if FAULT == "oom":
                raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)
            stream.pending = True
        return result

    def synchronize(device=None):
        stream.drain()

    torch.Tensor.to, torch.Tensor.cpu, torch.zeros, torch.nn.Module.__call__ = to, cpu, zeros, call
    torch.cuda.is_available = lambda: FAULT != "no_device"
    torch.cuda.init = lambda: None
    torch.cuda.synchronize = synchronize
    torch.cuda.Event = Event
    torch.cuda.get_device_name = lambda device=None: os.environ.get("DOUBLE_GPU") or "Orin"
