"""One module of PyTorch on one device, as an agent runs it: the part that the backends torch and torch2trt share."""

from typing import Any, Callable, Dict, List  # noqa: F401

from . import model_outputs, torch_device
from .failures import AgentError


class ModuleRunner:
    """``module`` and ``device`` are torch's own; ``shape`` is that of the input with its batch, ``dtype`` the type that it takes."""

    def __init__(self, torch, module, device, shape, dtype):
        # type: (Any, Any, Any, List[int], Any) -> None
        self._torch, self._module, self._device = torch, module, device
        self._shape, self._type = shape, dtype
        self._tensor = None  # type: Any
        self._result = None  # type: Any

    def describe(self, output_shapes, output_type):
        # type: (List[List[int]], Any) -> None
        self.inputs = [_description("input", self._shape, self._type)]
        names = ["output"] if len(output_shapes) == 1 else [model_outputs.name_of(one) for one in range(len(output_shapes))]
        self.outputs = [_description(name, shape, output_type) for name, shape in zip(names, output_shapes)]

    @property
    def _on_cuda(self):
        # type: () -> bool
        return bool(self._device.type == torch_device.CUDA)

    def set_inputs(self, array):
        # type: (Any) -> None
        if list(array.shape) != self._shape:
            raise AgentError("the input has the shape %s, and the model takes %s" % (list(array.shape), self._shape))
        with torch_device.explained():
            # A copy: what was read from a file cannot be written to, which torch warns of.
            self._tensor = self._torch.tensor(array).to(device=self._device, dtype=self._type)
            self._wait()

    def _wait(self):
        # type: () -> None
        if self._on_cuda:
            self._torch.cuda.synchronize()

    def prepared(self):
        # type: () -> Callable[[], Any]
        """One call of the module, and the wait for its end. The copies to the device and back are not part of it."""
        module, tensor = self._module, self._tensor
        if not self._on_cuda:
            return lambda: module(tensor)
        synchronize = self._torch.cuda.synchronize

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
        module, tensor = self._module, self._tensor
        return torch_device.timed(self._torch, lambda: module(tensor)) if self._on_cuda else None

    def infer(self):
        # type: () -> None
        with torch_device.explained():
            self._result = self._module(self._tensor)
            self._wait()

    def get_output(self):
        # type: () -> Any
        return self.get_outputs()[0]

    def get_outputs(self):
        # type: () -> List[Any]
        return [result.float().cpu().numpy() for result in model_outputs.as_list(self._result)]


def _description(name, shape, dtype):
    # type: (str, List[int], Any) -> Dict[str, Any]
    return {"name": name, "shape": list(shape), "dtype": str(dtype).replace("torch.", ""), "scale": None, "zero_point": None}
