"""What a card can ask of a backend beyond precision, batch and threads: its tables ``[options.BACKEND]``, validated.

An option that is left out is the toolchain's own default, and is not sent to the agent at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

from .section import CardSection

_EDGE_TPU_PATTERN = r"^(usb|pci)?(:[0-9]+)?$"
PATTERNS_IN_WORDS = {_EDGE_TPU_PATTERN: "'usb', 'pci', 'usb:0', 'pci:1' or ':0': the link, the number, or both"}


class TensorRTOptions(CardSection):
    """``workspace_bytes``: the builder's limit. ``dla_core``: run on this DLA core of a Jetson, and on the GPU what it does not take.
    ``timing_cache``: keep what a build found out about kernels for the next build of the same model on the same device.
    """

    workspace_bytes: PositiveInt | None = None
    dla_core: Annotated[int, Field(ge=0)] | None = None
    timing_cache: bool | None = None


class TFTRTOptions(CardSection):
    """``minimum_segment_size``: nodes that make an engine worth while. ``memory_limit_bytes``: of TensorFlow on the GPU, engines included.
    ``use_calibration``: false where an int8 graph has its ranges in it already. ``use_dynamic_shape``: engines of the explicit batch mode,
    the only one that TensorRT 10 has.
    """

    minimum_segment_size: PositiveInt | None = None
    workspace_bytes: PositiveInt | None = None
    maximum_cached_engines: PositiveInt | None = None
    memory_limit_bytes: PositiveInt | None = None
    use_calibration: bool | None = None
    use_dynamic_shape: bool | None = None


class Torch2TRTOptions(CardSection):
    """``workspace_bytes``: the builder's limit."""

    workspace_bytes: PositiveInt | None = None


class TFLiteOptions(CardSection):
    """``per_channel_dense``: false for one scale a tensor in quantized dense layers, for runtimes that know no more."""

    per_channel_dense: bool | None = None


class EdgeTPUOptions(CardSection):
    """``minimum_runtime_version`` and ``timeout_seconds`` are the compiler's; ``device`` is which of several Edge TPUs runs the case."""

    minimum_runtime_version: PositiveInt | None = None
    timeout_seconds: PositiveInt | None = None
    device: Annotated[str, StringConstraints(pattern=_EDGE_TPU_PATTERN, min_length=1)] | None = None


class BackendOptions(BaseModel):
    """One table for each backend that has options. A plugin's backend gets its table as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    tflite: TFLiteOptions | None = None
    tensorrt: TensorRTOptions | None = None
    tftrt: TFTRTOptions | None = None
    torch2trt: Torch2TRTOptions | None = None
    edgetpu: EdgeTPUOptions | None = None

    def of(self, backend: str) -> dict[str, Any]:
        """What the card asks of the backend; empty where it asks for nothing."""
        section = self.tables().get(backend)
        if isinstance(section, BaseModel):
            return section.model_dump(exclude_none=True)
        return dict(section) if isinstance(section, Mapping) else {}

    def tables(self) -> dict[str, Any]:
        """What the card gives, by backend: a section of this module, or whatever was given for any other backend."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return {**{name: section for name, section in own.items() if section is not None}, **(self.model_extra or {})}
