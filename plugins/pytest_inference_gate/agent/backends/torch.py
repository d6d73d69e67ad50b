"""PyTorch itself, eager, on the CPU or on a CUDA device: what torch2trt's engines are compared with."""

from typing import Any, Callable, Dict  # noqa: F401

from .. import torch_device, torch_models, torch_runner
from ..failures import LoadError, Unsupported

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
        "conversion_reason": torch_models.conversion_reason(packages),
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


class Runner(torch_runner.ModuleRunner):
    """``device``: ``cpu`` or ``cuda``."""

    def __init__(self, model, precision, threads, batch, input, device=torch_device.CPU):
        # type: (str, str, int, int, Dict[str, Any], str) -> None
        _refuse_half_on_cpu(precision, device)
        torch = torch_device.import_torch()
        place = torch_device.use(torch, device, threads)
        document, weights = torch_models.read(model)
        shape = [int(size) for size in document["input"]["shape"]]
        if shape[0] != batch:
            raise LoadError("the model was converted for a batch of %d, not %d" % (shape[0], batch))
        real = torch.float16 if precision == "fp16" else torch.float32
        with torch_device.explained():
            module = torch_models.build(torch, document, weights).to(device=place, dtype=real)
        super().__init__(torch, module, place, shape, torch_models.input_type(torch, document, real))
        outputs = document["outputs"] if "outputs" in document else [document["output"]]
        self.describe([output["shape"] for output in outputs], real)
