"""TensorFlow kept to the CPU, or to one GPU, as each release has it: over stand-ins that note what is asked of them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_inference_gate.agent import tensorflow_device
from pytest_inference_gate.agent.failures import LoadError, Unsupported


class Release:
    """A TensorFlow with so many GPUs. ``place`` is where it has ``set_visible_devices``: config, experimental, or nowhere."""

    def __init__(self, place: str = "config", gpus: int = 1, cuda: bool = True, **build: str) -> None:
        self.visible: Any = "all"
        self.growth: list[str] = []
        self.tf32 = True
        self.__version__ = "2.15.0"
        devices = [f"GPU:{number}" for number in range(gpus)]
        module = SimpleNamespace(
            set_visible_devices=self._see, list_physical_devices=lambda kind: devices if kind == "GPU" else ["CPU:0"]
        )
        experimental = SimpleNamespace(
            set_memory_growth=lambda device, on: self.growth.append(device) if on else None,
            enable_tensor_float_32_execution=lambda on: setattr(self, "tf32", on),
        )
        if place == "experimental":
            vars(experimental).update(vars(module))
        if place != "nowhere":
            self.config = SimpleNamespace(experimental=experimental, **(vars(module) if place == "config" else {}))
        self.test = SimpleNamespace(is_built_with_cuda=lambda: cuda)
        self.sysconfig = SimpleNamespace(get_build_info=lambda: build) if build else SimpleNamespace()

    def _see(self, devices: list[str], kind: str) -> None:
        assert kind == "GPU"
        self.visible = devices


@pytest.mark.parametrize("place", ["config", "experimental"])
def test_the_cpu_alone_is_seen_and_then_the_first_gpu_alone(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    release = Release(place, gpus=2)
    tensorflow_device.keep_to_cpu(release)
    assert release.visible == [] and release.growth == []
    assert "CUDA_VISIBLE_DEVICES" not in os.environ  # what else runs in this process keeps its GPU
    tensorflow_device.take_gpu(release)
    assert release.visible == ["GPU:0"] and release.growth == ["GPU:0"] and not release.tf32


def test_a_release_without_a_way_of_its_own_is_kept_from_gpus_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    release = Release("nowhere")
    tensorflow_device.keep_to_cpu(release)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    with pytest.raises(Unsupported, match="run the case with release 1.14 or later"):
        tensorflow_device.take_gpu(release)


def test_a_build_for_the_cpu_is_unsupported_and_one_for_cuda_that_sees_no_gpu_is_broken() -> None:
    with pytest.raises(Unsupported, match=r"TensorFlow 2.15.0 here is a build for the CPU alone: install one with CUDA"):
        tensorflow_device.take_gpu(Release(gpus=0, cuda=False))
    with pytest.raises(LoadError, match=r"sees no GPU, though it was built for CUDA 12.2 and cuDNN 8: the log names the library"):
        tensorflow_device.take_gpu(Release(gpus=0, cuda_version="12.2", cudnn_version="8"))
    with pytest.raises(LoadError, match=r"sees no GPU, though it was built for CUDA: the log"):
        tensorflow_device.take_gpu(Release(gpus=0))
