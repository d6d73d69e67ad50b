"""A double of torch2trt that converts and runs for real, on the CPU: its engines hold the traced module.

DOUBLE_TORCH2TRT says which release it is like: ``0.3`` (converts one row, whatever the greatest batch is), ``0.4`` (as many rows as the
greatest batch) or ``0.5`` (shapes as they are; calibration by whole batches). Precisions are real: half floats are computed as such, and
integers with a scale that follows from the calibration pictures. What was asked for is printed.

DOUBLE_UNKNOWN names a function of torch without a converter (``torch.nn.functional.softmax``); its result is lost, so that the
conversion fails as the real one does, unless DOUBLE_UNKNOWN_IS_HARMLESS is set. DOUBLE_FAULT asks for an error: ``import``, ``api``,
``no_engine``, ``oom_build``, ``shape``.
"""

import io
import json
import os

import tensorrt as trt
import torch

_FAULT = os.environ.get("DOUBLE_FAULT") or ""
if _FAULT == "import":
    raise AttributeError("module 'tensorrt' has no attribute 'CalibrationAlgoType'")
_STYLE = os.environ.get("DOUBLE_TORCH2TRT") or "0.5"
_MAGIC = b"ftrt"


class _Inspector:
    def __init__(self, layers):
        self._layers = layers

    def get_engine_information(self, form):
        return json.dumps({"Layers": self._layers, "Bindings": []})


class _Engine:
    def __init__(self, content):
        if not content.startswith(_MAGIC):
            raise ValueError("not an engine")
        size = int.from_bytes(content[4:8], "big")
        self._content, self.plan = content, json.loads(content[8 : 8 + size].decode())
        self._module = torch.jit.load(io.BytesIO(content[8 + size :]))

    @classmethod
    def of(cls, plan, traced):
        stream, head = io.BytesIO(), json.dumps(plan).encode()
        torch.jit.save(traced, stream)
        return cls(_MAGIC + len(head).to_bytes(4, "big") + head + stream.getvalue())

    def serialize(self):
        return self._content

    def create_engine_inspector(self):
        return _Inspector(self.plan["layers"])

    def run(self, x):
        if list(x.shape) != self.plan["shape"]:
            raise RuntimeError(f"the engine takes {self.plan['shape']}, not {list(x.shape)}")
        step = self.plan["step"]
        x = (x / step).round().clamp(-127, 127) * step if step else x
        return self._module(x.half()).float() if self.plan["half"] else self._module(x)


def _deserialize(content):
    try:
        return _Engine(bytes(content))
    except ValueError:
        return None  # as TensorRT does, which says why in its log


class TRTModule(torch.nn.Module):
    def __init__(self, engine=None, input_names=None, output_names=None, input_flattener=None, output_flattener=None):
        super().__init__()
        self._register_state_dict_hook(TRTModule._on_state_dict)
        self.engine, self.input_names, self.output_names = engine, input_names, output_names
        self.input_flattener, self.output_flattener = input_flattener, output_flattener

    def _on_state_dict(self, state_dict, prefix, local_metadata):
        state_dict[prefix + "engine"] = bytearray(self.engine.serialize())
        state_dict[prefix + "input_names"] = self.input_names
        state_dict[prefix + "output_names"] = self.output_names
        if _STYLE == "0.5":
            state_dict[prefix + "input_flattener"] = {"schema": [0], "size": 1}
            state_dict[prefix + "output_flattener"] = {"schema": 0, "size": 1}

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        self.engine = _deserialize(state_dict[prefix + "engine"])
        self.context = self.engine.create_engine_inspector()
        self.input_names, self.output_names = state_dict[prefix + "input_names"], state_dict[prefix + "output_names"]
        if _STYLE == "0.5" and state_dict["input_flattener"] != {"schema": [0], "size": 1}:
            raise KeyError("input_flattener")

    def forward(self, x):
        if not getattr(x, "on_simulated_device", False):
            raise RuntimeError("an illegal memory access was encountered: the input is not on the device")
        if x.dtype != torch.float32:
            raise RuntimeError(f"the binding {self.input_names[0]} is float32, not {x.dtype}")
        return self.engine.run(x)


class _Unknown:
    """A function of torch without a converter, while a module is converted."""

    def __init__(self, name):
        self.place, _, self.name = name.rpartition(".")
        self.met = False

    def __enter__(self):
        self.owner = torch
        for part in self.place.split(".")[1:]:
            self.owner = getattr(self.owner, part)
        self.real = getattr(self.owner, self.name)

        def warn(*arguments, **keywords):
            print(f"Warning: Encountered known unsupported method {self.place}.{self.name}")
            self.met = True
            return self.real(*arguments, **keywords)

        setattr(self.owner, self.name, warn)
        return self

    def __exit__(self, *error):
        setattr(self.owner, self.name, self.real)


def _build(module, rows, shape, half, step, workspace):
    if _FAULT == "api":
        raise AttributeError("type object 'tensorrt_bindings.tensorrt.BuilderFlag' has no attribute 'FP16'")
    if _FAULT == "oom_build":
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has little left.")
    if _FAULT == "shape":
        raise ValueError("Dataset cannot have multiple shapes when using DLA")
    unknown = os.environ.get("DOUBLE_UNKNOWN")
    if unknown:
        with _Unknown(unknown) as watched:
            module(rows)
        if watched.met and not os.environ.get("DOUBLE_UNKNOWN_IS_HARMLESS"):
            raise AttributeError("'Tensor' object has no attribute '_trt'")
    if _FAULT == "no_engine":
        return TRTModule(None, ["input_0"], ["output_0"])
    module = module.half() if half else module
    traced = torch.jit.trace(module, rows.half() if half else rows, check_trace=False)
    layers = [f"{node.kind()}_{number}" for number, node in enumerate(traced.inlined_graph.nodes()) if "aten" in node.kind()]
    plan = {"shape": shape, "half": half, "step": step, "layers": layers, "tensorrt": trt.__version__}
    print(f"torch2trt double {_STYLE}: {len(rows)} rows, workspace {workspace}")
    return TRTModule(_Engine.of(plan, traced), ["input_0"], ["output_0"])


def _step(pictures):
    return max(float(picture.abs().max()) for picture in pictures) / 127


if _STYLE == "0.5":

    def torch2trt(
        module, inputs, fp16_mode=False, max_workspace_size=1 << 25, int8_mode=False, int8_calib_dataset=None, max_batch_size=None,
        **kwargs,
    ):  # fmt: skip
        if max_batch_size is not None:
            raise RuntimeError("an engine for batches from 1 on was asked for")
        (x,) = inputs
        step = 0.0
        if int8_mode:
            items = [int8_calib_dataset[index] for index in range(len(int8_calib_dataset))]
            assert all(item[0].shape == x.shape for item in items), "calibration comes in batches like the input"
            step = _step(item[0] for item in items)
        return _build(module, x, list(x.shape), fp16_mode, step, max_workspace_size)

else:

    def torch2trt(
        module, inputs, max_batch_size=1, fp16_mode=False, max_workspace_size=1 << 25, int8_mode=False, int8_calib_dataset=None,
        int8_calib_batch_size=1, **kwargs,
    ):  # fmt: skip
        rows = inputs[0].clone()[0 : 1 if _STYLE == "0.3" else max_batch_size]
        step = 0.0
        if int8_mode:
            assert int8_calib_batch_size == max_batch_size
            items = [int8_calib_dataset[index] for index in range(len(int8_calib_dataset))]
            assert all(item[0].shape == rows.shape[1:] for item in items), "calibration comes in pictures"
            step = _step(item[0] for item in items)
        return _build(module, rows, [max_batch_size, *rows.shape[1:]], fp16_mode, step, max_workspace_size)
