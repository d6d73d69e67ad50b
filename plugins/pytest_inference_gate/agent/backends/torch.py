"""PyTorch itself, eager, on the CPU or on a CUDA device: what torch2trt's engines are compared with."""

from typing import Any, Callable, Dict  # noqa: F401

from .. import torch_device, torch_models
from ..failures import AgentError, LoadError, Unsupported

NAME = "torch"
PRECISIONS = ("fp32", "fp16")
RUNNER_TAKES = ("device",)


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    version = packages.get("torch", "")
    formats = torch_models.formats(packages)
    can_convert = bool(version and formats)
    reason = "" if version else "PyTorch is not installed"
    return {
        "available": bool(version),
        "can_convert": can_convert,
        "can_run": bool(version),
        "precisions_convert": list(PRECISIONS) if can_convert else [],
        "precisions_run": list(PRECISIONS) if version else [],
        "runtime": {"name": "torch", "version": version} if version else None,
        "converter": torch_models.converter_versions(packages) if can_convert else {},
        "source_formats": formats,
        "reason": reason
        or ("" if can_convert else "neither onnx nor torchvision is installed, one of which turns a checkpoint into a module"),
    }


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """The module is stored in float32; the runner halves it."""
    if request["precision"] not in PRECISIONS:
        raise Unsupported("the backend torch has no precision %r; it has %s" % (request["precision"], ", ".join(PRECISIONS)))
    _refuse_half_on_cpu(request["precision"], request.get("device"))
    torch = torch_device.import_torch()
    versions, details = torch_models.save(torch, request, progress)
    return {"model": torch_models.MODEL, "converter": versions, "details": details}


def _refuse_half_on_cpu(precision, device):
    # type: (str, Any) -> None
    if precision == "fp16" and device == torch_device.CPU:
        raise Unsupported("PyTorch computes half floats on a CPU in float, or not at all: fp16 is for the device cuda")


# Running


def runtime():
    # type: () -> Dict[str, str]
    return {"name": "torch", "version": str(torch_device.import_torch().__version__)}


class Runner:
    """One module on one device, with its input there. ``device``: ``cpu`` or ``cuda``."""

    def __init__(self, model, precision, threads, batch, input, device=torch_device.CPU):
        # type: (str, str, int, int, Dict[str, Any], str) -> None
        _refuse_half_on_cpu(precision, device)
        torch = self._torch = torch_device.import_torch()
        self._device = torch_device.use(torch, device, threads)
        document, weights = torch_models.read(model)
        self._shape = [int(size) for size in document["input"]["shape"]]
        if self._shape[0] != batch:
            raise LoadError("the model was converted for a batch of %d, not %d" % (self._shape[0], batch))
        real = torch.float16 if precision == "fp16" else torch.float32
        self._type = torch_models.input_type(torch, document, real)
        with torch_device.explained():
            self._module = torch_models.build(torch, document, weights).to(device=self._device, dtype=real)
        self.inputs = [_description("input", self._shape, self._type)]
        self.outputs = [_description("output", document["output"]["shape"], real)]
        self._tensor = None  # type: Any
        self._result = None  # type: Any

    def set_inputs(self, array):
        # type: (Any) -> None
        if list(array.shape) != self._shape:
            raise AgentError("the input has the shape %s, and the module takes %s" % (list(array.shape), self._shape))
        with torch_device.explained():
            # A copy: what was read from a file cannot be written to, which torch warns of.
            self._tensor = self._torch.tensor(array).to(device=self._device, dtype=self._type)
            self._wait()

    def _wait(self):
        # type: () -> None
        if self._device.type == torch_device.CUDA:
            self._torch.cuda.synchronize()

    def _once(self):
        # type: () -> Callable[[], Any]
        """The module's call on what was set, without a wait for its end."""
        module, tensor = self._module, self._tensor

        def once():
            # type: () -> Any
            return module(tensor)

        return once

    def prepared(self):
        # type: () -> Callable[[], Any]
        """One call of the module, and the wait for its end. The copies to the device and back are not part of it."""
        if self._device.type != torch_device.CUDA:
            return self._once()
        module, tensor, synchronize = self._module, self._tensor, self._torch.cuda.synchronize

        def inference():
            # type: () -> None
            try:
                module(tensor)
                synchronize()
            except RuntimeError as error:
                torch_device.explain(error)
                raise

        return inference

    def prepared_on_device(self):
        # type: () -> Any
        """One call, and its seconds between two events in the stream; None on a CPU, which has no clock of its own."""
        if self._device.type != torch_device.CUDA:
            return None
        return torch_device.timed(self._torch, self._once())

    def infer(self):
        # type: () -> None
        with torch_device.explained():
            self._result = self._once()()
            self._wait()

    def get_output(self):
        # type: () -> Any
        return self._result.float().cpu().numpy()


def _description(name, shape, dtype):
    # type: (str, Any, Any) -> Dict[str, Any]
    return {"name": name, "shape": list(shape), "dtype": str(dtype).replace("torch.", ""), "scale": None, "zero_point": None}
