"""torch2trt (NVIDIA-AI-IOT): an engine of TensorRT made of a module's own calls, run as a module of PyTorch.

It is on no package registry, and its releases belong to releases of TensorRT: those up to 0.4 convert with a batch of one and set the
engine's greatest batch, 0.5 takes the shapes as they are; none takes TensorRT 11. What a release can do is found by its signature. An
engine means something only where it was built, as with the backend tensorrt.
"""

import contextlib
import hashlib
import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from .. import cuda_device, engine_origin, model_outputs, tensorrt_api, torch_device, torch_models, torch_runner
from ..failures import AgentError, BuildError, LoadError, OutOfMemory, Unsupported, sentence_of
from . import tensorrt as engines

NAME = "torch2trt"
PRECISIONS = ("fp32", "fp16", "int8")
RUNNER_TAKES = ("device",)
NEEDED = ("module", "inputs", "fp16_mode", "int8_mode", "int8_calib_dataset", "max_workspace_size")
WARNING = re.compile(r"Encountered known unsupported method (\S+)")


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    tensorrt = engines.installed_version(packages)
    named = (("torch", "PyTorch"), ("torch2trt", "torch2trt"))
    missing = [text for name, text in named if not packages.get(name)] + ([] if tensorrt else ["TensorRT"])
    device, formats, reason = {}, torch_models.formats(packages), ""  # type: Dict[str, str], List[str], str
    if missing:
        reason = "%s %s not installed" % (" and ".join(missing), "is" if len(missing) == 1 else "are")
    else:
        try:
            device = cuda_device.facts()
        except cuda_device.NoDevice as error:
            reason = "torch2trt needs a CUDA device, and there is none that can be used: %s" % error
    if device and not formats:
        reason = "neither onnx nor torchvision is installed, one of which turns a checkpoint into a module"
    can_convert = bool(device and formats)
    converter = dict(torch_models.converter_versions(packages), torch2trt=packages.get("torch2trt", ""), tensorrt=tensorrt)
    converter.update(device)  # an engine is made of these, so the key of the artifact holds them
    return {
        "available": bool(device),
        "can_convert": can_convert,
        "can_run": bool(device),
        "precisions_convert": list(PRECISIONS) if can_convert else [],
        "precisions_run": list(PRECISIONS) if device else [],
        "runtime": {"name": "torch2trt", "version": packages["torch2trt"]} if packages.get("torch2trt") else None,
        "converter": {name: value for name, value in converter.items() if value} if can_convert else {},
        "source_formats": formats,
        "conversion_reason": torch_models.conversion_reason(packages),
        "reason": reason,
    }


def _import(trt):
    # type: (Any) -> Any
    try:
        import torch2trt
    except ModuleNotFoundError as error:
        if error.name == "torch2trt":
            raise Unsupported("torch2trt is not installed here: see github.com/NVIDIA-AI-IOT/torch2trt, since no registry has it")
        raise LoadError("torch2trt cannot be imported: %s" % error)
    except Exception as error:  # it looks up names of TensorRT while it is imported
        raise LoadError(
            "torch2trt cannot be imported with TensorRT %s (%s): install releases that belong together"
            % (trt.__version__, sentence_of(error))
        )
    return torch2trt


def _version():
    # type: () -> str
    """The installed release; torch2trt itself does not say."""
    from ..probe import installed_packages

    return installed_packages().get("torch2trt") or "of an unknown release"


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """``options`` of a request may hold ``workspace_bytes``, the builder's limit."""
    precision, directory = request["precision"], request["output_directory"]
    if precision not in PRECISIONS:
        raise Unsupported("the backend torch2trt has no precision %r; it has %s" % (precision, ", ".join(PRECISIONS)))
    if precision == "int8" and not request.get("calibration"):
        raise BuildError("the precision int8 needs calibration pictures: add a [calibration] section to the card")
    if request["input"]["dtype"] != "float32":
        raise Unsupported(
            "torch2trt takes inputs of float32 alone: use the backend tensorrt for a model that takes whole numbers"
        )
    if model_outputs.all_are_kept(request):
        raise Unsupported("the backend torch2trt runs models with one output alone: use the backend tensorrt for a detector")
    torch = torch_device.import_torch()
    trt = tensorrt_api.import_tensorrt()
    torch2trt = _import(trt)
    here = engines.bound_to(trt)
    device = torch_device.use(torch, torch_device.CUDA, 1)
    scratch = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        versions, details = torch_models.save(torch, dict(request, output_directory=scratch), progress)
        document, weights = torch_models.read(os.path.join(scratch, torch_models.MODEL))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    with torch_device.explained():
        module = torch_models.build(torch, document, weights).to(device=device)
        example = torch.ones(document["input"]["shape"], dtype=torch.float32).to(device=device)
    progress("building the engine")
    arguments, batches = _arguments(torch, torch2trt.torch2trt, request, device)
    built, unknown = _build(trt, torch2trt, module, example, arguments)
    state = built.state_dict()
    engine = bytes(state.pop("engine"))
    provenance = dict(
        here,
        schema=engines.SCHEMA,
        precision=precision,
        batch=int(request["batch"]),
        torch2trt=_version(),
        module=_plain(state),
        shape=document["input"]["shape"],
        output=document["output"],
        engine_sha256=hashlib.sha256(engine).hexdigest(),
    )
    with open(os.path.join(directory, engines.ENGINE), "wb") as stream:
        stream.write(engine)
    with open(os.path.join(directory, engines.PROVENANCE), "w") as text:
        json.dump(provenance, text, indent=1, sort_keys=True)
    details.update(
        engine=provenance,
        coverage=_coverage(trt, built.engine),
        workspace_bytes=arguments.get("max_workspace_size"),
        remarks=_remarks(unknown),
    )
    if batches is not None:
        details["calibration_batches"] = batches
    return {"model": engines.ENGINE, "converter": dict(versions, torch2trt=_version(), **here), "details": details}


def _arguments(torch, function, request, device):
    # type: (Any, Callable[..., Any], Dict[str, Any], Any) -> Tuple[Dict[str, Any], Optional[int]]
    """What this release is called with, by its signature; and how many batches it calibrates with."""
    parameters = inspect.signature(function).parameters
    absent = [name for name in NEEDED if name not in parameters]
    if absent:
        raise Unsupported("torch2trt %s takes no argument %s: install release 0.2 or later" % (_version(), ", ".join(absent)))
    batch, precision = int(request["batch"]), request["precision"]
    arguments = {"fp16_mode": precision == "fp16", "int8_mode": precision == "int8"}  # type: Dict[str, Any]
    if "max_batch_size" in parameters and parameters["max_batch_size"].default is not None:
        arguments["max_batch_size"] = batch  # later releases would make the engine one for batches from 1 on
    workspace = (request.get("options") or {}).get("workspace_bytes")
    if workspace is not None:
        arguments["max_workspace_size"] = int(workspace)
    if precision != "int8":
        return arguments, None
    from ..quantization import calibration_batches

    batches = [
        torch.tensor(array).to(device=device, dtype=torch.float32) for array in calibration_batches(request["calibration"], batch)
    ]
    if "int8_calib_batch_size" in parameters:  # pictures, which it puts into batches itself
        arguments["int8_calib_batch_size"] = batch
        arguments["int8_calib_dataset"] = [[picture] for tensor in batches for picture in tensor]
    else:
        arguments["int8_calib_dataset"] = [[tensor] for tensor in batches]
    return arguments, len(batches)


class _Heard:
    """Standard output as it was, with the methods that torch2trt says it does not know."""

    def __init__(self, stream):
        # type: (Any) -> None
        self._stream, self._text = stream, ""

    def write(self, text):
        # type: (str) -> int
        self._text += text
        self._stream.write(text)
        return len(text)

    def flush(self):
        # type: () -> None
        self._stream.flush()

    def methods(self):
        # type: () -> List[str]
        return list(OrderedDict.fromkeys(WARNING.findall(self._text)))


def _build(trt, torch2trt, module, example, arguments):
    # type: (Any, Any, Any, Any, Dict[str, Any]) -> Tuple[Any, List[str]]
    """The module with its engine, and the methods that torch2trt warned of."""
    heard = _Heard(sys.stdout)
    versions = "torch2trt %s with TensorRT %s" % (_version(), trt.__version__)
    try:
        with contextlib.redirect_stdout(heard):  # type: ignore[type-var]
            built = torch2trt.torch2trt(module, [example], **arguments)
    except Exception as error:
        if isinstance(error, (AgentError, MemoryError)):
            raise
        if isinstance(error, RuntimeError):
            torch_device.explain(error)
        unknown = heard.methods()
        if unknown:
            raise Unsupported(
                "%s has no converter for %s: use the backend tensorrt, which takes the model as ONNX"
                % (versions, ", ".join(unknown))
            )
        if isinstance(error, (AttributeError, TypeError)):  # names and signatures of TensorRT that a release of it no longer has
            raise BuildError("%s: %s; install releases that belong together" % (versions, sentence_of(error).rstrip(".")))
        raise BuildError("%s does not convert the model: %s" % (versions, sentence_of(error)))
    if getattr(built, "engine", None) is None:
        raise BuildError("%s gave no engine: the log of the conversion says why" % versions)
    return built, heard.methods()


def _plain(state):
    # type: (Dict[str, Any]) -> Dict[str, Any]
    """What the module keeps beside its engine: names and the order of tensors, as JSON can hold it."""
    try:
        plain = json.loads(json.dumps(dict(state)))  # type: Dict[str, Any]
    except (TypeError, ValueError) as error:
        raise BuildError("torch2trt %s keeps more beside its engine than names (%s), which is not stored" % (_version(), error))
    return plain


def _remarks(unknown):
    # type: (List[str]) -> List[str]
    if not unknown:
        return []
    return [
        "torch2trt has no converter for %s, and went on: what they compute is a constant in the engine, if it is there at all"
        % ", ".join(unknown)
    ]


def _coverage(trt, engine):
    # type: (Any, Any) -> Optional[Dict[str, Any]]
    """All layers run on the GPU, since what has no converter fails the conversion; None where this release of TensorRT cannot count."""
    layers = tensorrt_api.inspected_layers(trt, engine)
    if not layers:
        return None
    return {
        "accelerator": "tensorrt",
        "on_accelerator": len(layers),
        "elsewhere": 0,
        "parts": 1,
        "off_chip_bytes": None,
        "elsewhere_by_operation": [],
        "native_segments": None,
        "source": "TensorRT %s (engine inspector)" % trt.__version__,
    }


# Running


def runtime():
    # type: () -> Dict[str, str]
    torch_device.import_torch()
    _import(tensorrt_api.import_tensorrt())
    return {"name": "torch2trt", "version": _version()}


class Runner(torch_runner.ModuleRunner):
    """A ``TRTModule``; the input and the output are float32 in each precision."""

    def __init__(self, model, precision, threads, batch, input, device=torch_device.CUDA):
        # type: (str, str, int, int, Dict[str, Any], str) -> None
        if device != torch_device.CUDA:
            raise Unsupported("engines of TensorRT run on the device cuda, not on %s" % device)
        torch = torch_device.import_torch()
        trt = tensorrt_api.import_tensorrt()
        torch2trt = _import(trt)
        provenance = engines.origin_of(model)
        engine_origin.refuse_foreign(provenance, engines.bound_to(trt))
        if "module" not in provenance:
            raise LoadError("the engine was not built by the backend torch2trt: convert the case again")
        shape = [int(size) for size in provenance["shape"]]
        if shape[0] != batch:
            raise LoadError("the engine was built for a batch of %d, not %d" % (shape[0], batch))
        place = torch_device.use(torch, device, threads)
        with open(model, "rb") as stream:
            state = OrderedDict(provenance["module"], engine=bytearray(stream.read()))
        module = torch2trt.TRTModule()
        try:
            with torch_device.explained():
                module.load_state_dict(state)
        except (OutOfMemory, MemoryError):
            raise
        except Exception as error:
            raise LoadError(
                "torch2trt %s with TensorRT %s does not take the engine (%s): convert the case again on this device"
                % (_version(), trt.__version__, sentence_of(error).rstrip("."))
            )
        super().__init__(torch, module.eval(), place, shape, torch.float32)
        self.describe([provenance["output"]["shape"]], torch.float32)
