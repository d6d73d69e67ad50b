"""PyTorch and the device that it runs on: set so that two processes do the same, with a sentence for each way in which that fails."""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List  # noqa: F401

from . import cuda_device
from .failures import LoadError, OutOfMemory, Unsupported, sentence_of, speaks_of_memory

CPU, CUDA = "cpu", "cuda"


def import_torch():
    # type: () -> Any
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise Unsupported("PyTorch is not installed here")
        raise LoadError("PyTorch cannot be imported: %s" % error)
    except (ImportError, OSError) as error:
        raise LoadError(
            "PyTorch cannot be imported (%s): install the wheel that is built for this Python, this system and its CUDA" % error
        )
    return torch


def use(torch, name, threads):
    # type: (Any, str, int) -> Any
    """The ``torch.device`` of that name (``cpu`` or ``cuda``, the first one that is visible), ready to run models."""
    torch.set_grad_enabled(False)  # once, instead of a context around each call that would be measured with it
    _keep_to_threads(torch, threads)  # with a GPU too: the host's part should not depend on how many cores there are
    if name == CPU:
        return torch.device(CPU)
    if name != CUDA:
        raise Unsupported("PyTorch runs no models on the device %r here; it runs them on %s and %s" % (name, CPU, CUDA))
    _require_cuda(torch)
    # With benchmarking each process picks its own convolution algorithms by a short timing of them, so that two processes may run
    # different ones; without it they follow from the shapes.
    torch.backends.cudnn.benchmark = False
    # Else "fp32" is something with ten bits of mantissa, on the GPUs that have it.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(CUDA)
    try:
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize()
    except RuntimeError as error:
        explain(error)
        raise LoadError(
            "torch %s cannot run on %s: %s; install a wheel that is built for this GPU"
            % (torch.__version__, torch.cuda.get_device_name(0), sentence_of(error).rstrip("."))
        )
    return device


def _keep_to_threads(torch, threads):
    # type: (Any, int) -> None
    torch.set_num_threads(threads)
    try:
        torch.set_num_interop_threads(1)
    except RuntimeError:  # it can be said once only, before anything ran
        pass


def _require_cuda(torch):
    # type: (Any) -> None
    built_for = getattr(torch.version, "cuda", None)
    if not built_for:
        raise LoadError(
            "torch %s is built for the CPU alone: install a wheel that is built for the CUDA of this machine" % torch.__version__
        )
    try:
        torch.cuda.init()
        problem = "" if torch.cuda.is_available() else "torch.cuda.is_available() says no"
    except (RuntimeError, AssertionError) as error:
        problem = sentence_of(error)
    if not problem:
        return
    if speaks_of_memory(problem):
        raise OutOfMemory("PyTorch cannot begin on the GPU (%s): end what else runs there" % problem)
    try:
        driver = cuda_device.facts()["cuda_driver"]
    except cuda_device.NoDevice as error:
        raise Unsupported("PyTorch needs a CUDA device, and there is none that can be used: %s" % error)
    if _release(driver) < _release(str(built_for)):
        raise LoadError(
            "torch %s is built for CUDA %s and the driver knows CUDA up to %s: install a newer driver, or a wheel for that CUDA"
            % (torch.__version__, built_for, driver)
        )
    raise LoadError(
        "torch %s (CUDA %s) finds no device although the driver has one: %s" % (torch.__version__, built_for, problem.rstrip("."))
    )


def _release(text):
    # type: (str) -> List[int]
    """``[12, 6]`` of ``"12.6"``. CUDA's minor releases run on each other's drivers, so only the first number is compared."""
    return [int(part) for part in text.split(".")[:1] if part.isdigit()]


def explain(error):
    # type: (RuntimeError) -> None
    """Raise :class:`OutOfMemory` with a sentence that says what to do where ``error`` says that the device's memory was not enough."""
    if type(error).__name__ == "OutOfMemoryError" or speaks_of_memory(str(error)):
        raise OutOfMemory(
            "the memory of the GPU was not enough (%s): choose a smaller batch, or end what else runs there" % _short(str(error))
        )


@contextmanager
def explained():
    # type: () -> Iterator[None]
    try:
        yield
    except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one, where there is such a class
        explain(error)
        raise


def _short(text):
    # type: (str) -> str
    """The first sentence or two of torch's paragraph: how much was wanted, and how much there is."""
    first = " ".join(text.split()).split(" Of the allocated memory")[0].split(" If reserved memory")[0]
    return first.rstrip(".")[:300]


def timed(torch, call):
    # type: (Any, Callable[[], Any]) -> Callable[[], float]
    """A callable that does ``call`` once between two events of the current stream, waits, and returns the seconds between them.

    The stream is empty when it begins. So the seconds hold the gaps in which the GPU waited for the processor to launch the next kernel.
    """
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def seconds():
        # type: () -> float
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3  # it counts in milliseconds

    return seconds


def facts(torch):
    # type: (Any) -> Dict[str, str]
    """What the wheel is built with, and the GPU: for the record of a conversion or a run."""
    found = {"torch": str(torch.__version__), "cuda": str(getattr(torch.version, "cuda", None) or "")}
    if found["cuda"] and torch.cuda.is_available():
        found["gpu"] = str(torch.cuda.get_device_name(0))
        found["cudnn"] = str(torch.backends.cudnn.version() or "")
    return {name: value for name, value in found.items() if value}
