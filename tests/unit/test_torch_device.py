"""What the torch backends say where PyTorch, or the device that it shall use, is not what is needed. Nothing here needs PyTorch."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_inference_gate.agent import cuda_device, torch_device, torch_models
from pytest_inference_gate.agent.backends import torch as backend
from pytest_inference_gate.agent.failures import BuildError, LoadError, OutOfMemory, Unsupported

# As PyTorch 2 words it.
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 7.44 GiB of which 1.10 GiB is free. Of the allocated "
    "memory 5.89 GiB is allocated by PyTorch, and 120.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is "
    "large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


def a_torch(*, built_for: str | None = "13.0", available: bool = True, init: Any = None, run: Any = None) -> Any:
    """As much of torch as choosing a device takes; ``init`` and ``run`` are raised there."""

    def raising(error: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if error is not None:
                raise error
            return SimpleNamespace(add_=lambda value: None)

        return call

    return SimpleNamespace(
        __version__="2.11.0",
        version=SimpleNamespace(cuda=built_for),
        set_grad_enabled=lambda value: None,
        set_num_threads=lambda count: None,
        set_num_interop_threads=lambda count: None,
        device=lambda name: SimpleNamespace(type=name),
        zeros=raising(run),
        backends=SimpleNamespace(cudnn=SimpleNamespace(), cuda=SimpleNamespace(matmul=SimpleNamespace())),
        cuda=SimpleNamespace(
            init=raising(init),
            is_available=lambda: available,
            synchronize=lambda: None,
            get_device_name=lambda index: "NVIDIA H200",
        ),
    )


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the driver's own library says: the CUDA that it knows, or why there is no device."""

    def says(answer: str | cuda_device.NoDevice) -> None:
        def facts() -> dict[str, str]:
            if isinstance(answer, cuda_device.NoDevice):
                raise answer
            return {"gpu": "NVIDIA H200", "sm": "9.0", "cuda_driver": answer, "board": ""}

        monkeypatch.setattr(cuda_device, "facts", facts)

    return says


def test_fp32_means_the_same_on_each_gpu_and_algorithms_are_not_picked_by_a_race() -> None:
    torch = a_torch()
    assert torch_device.use(torch, "cuda", 1).type == "cuda"
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
    assert torch.backends.cudnn.benchmark is False


@pytest.mark.parametrize(
    ("torch", "answer", "kind", "words"),
    [
        (a_torch(built_for=None), "13.0", LoadError, ["built for the CPU alone", "install a wheel"]),
        (a_torch(available=False), cuda_device.NoDevice("cuInit says 100"), Unsupported, ["there is none", "cuInit says 100"]),
        (
            a_torch(init=RuntimeError("The NVIDIA driver on your system is too old (found version 12020).")),
            "12.2",
            LoadError,
            ["built for CUDA 13.0", "CUDA up to 12.2", "newer driver"],
        ),
        (a_torch(available=False), "13.1", LoadError, ["finds no device although the driver has one"]),
        (
            a_torch(run=RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore\nmore")),
            "13.0",
            LoadError,
            ["cannot run on NVIDIA H200", "no kernel image", "wheel that is built for this GPU"],
        ),
        (a_torch(init=RuntimeError("CUDA error: out of memory"), run=None), "13.0", OutOfMemory, ["end what else runs there"]),
        (a_torch(run=RuntimeError(OUT_OF_MEMORY)), "13.0", OutOfMemory, ["Tried to allocate 20.00 GiB", "smaller batch"]),
    ],
)
def test_a_device_that_cannot_be_used_is_told_with_the_next_step(
    driver: Any, torch: Any, answer: Any, kind: type[Exception], words: list[str]
) -> None:
    driver(answer)
    with pytest.raises(kind) as caught:
        torch_device.use(torch, "cuda", 1)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_memory_that_is_not_enough_is_one_sentence_and_other_errors_stay_what_they_are() -> None:
    with pytest.raises(OutOfMemory) as caught, torch_device.explained():
        raise type("OutOfMemoryError", (RuntimeError,), {})(OUT_OF_MEMORY)
    assert str(caught.value).count("GiB") == 3
    assert "PYTORCH_CUDA_ALLOC_CONF" not in str(caught.value)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), torch_device.explained():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_no_device_but_a_cpu_and_cuda() -> None:
    with pytest.raises(Unsupported, match="edgetpu"):
        torch_device.use(a_torch(), "edgetpu", 1)


def test_half_floats_are_for_the_gpu() -> None:
    request = {"precision": "fp16", "device": "cpu"}
    with pytest.raises(Unsupported, match="fp16 is for the device cuda"):
        backend.convert(request, lambda message: None)
    with pytest.raises(Unsupported, match="it has fp32, fp16"):
        backend.convert({"precision": "int8"}, lambda message: None)


@pytest.mark.parametrize(
    ("packages", "formats", "reason"),
    [
        ({}, [], "PyTorch is not installed"),
        ({"torch": "2.11.0+cu130"}, [], "neither onnx nor torchvision is installed"),
        ({"torch": "2.11.0", "onnx": "1.23.0"}, ["onnx"], ""),
        ({"torch": "2.11.0", "torchvision": "0.26.0"}, ["seeded_torchvision", "torch_weights"], ""),
        ({"torch": "1.8.0a0+37c1f4a", "torchvision": "0.9.0"}, ["seeded_torchvision"], ""),  # JetPack 4
        ({"torch": "2.11.0", "torchvision": "0.26.0", "onnx": "1.23"}, ["onnx", "seeded_torchvision", "torch_weights"], ""),
        (
            {"torch": "2.11.0", "onnx": "1.23", "tf2onnx": "1.17", "tensorflow-cpu": "2.21"},
            ["onnx", "keras", "keras_weights", "seeded", "saved_model", "tf1_checkpoint", "frozen_graph"],
            "",
        ),
    ],
)
def test_what_is_available_follows_from_what_is_installed_and_nothing_is_imported(
    packages: dict[str, str], formats: list[str], reason: str
) -> None:
    before = set(sys.modules)
    found = backend.availability(packages)
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & {"torch", "torchvision", "onnx"}
    assert found["source_formats"] == formats
    assert found["reason"].startswith(reason) if reason else found["reason"] == ""
    assert found["conversion_reason"].startswith("torch 1.8.0a0" if packages.get("torch", "").startswith("1.") else "")
    assert found["can_run"] == ("torch" in packages)
    assert found["can_convert"] == bool("torch" in packages and formats)
    assert found["runtime"] == ({"name": "torch", "version": packages["torch"]} if "torch" in packages else None)


def test_a_release_that_runs_what_it_reads_is_not_asked_to(tmp_path: Any) -> None:
    (tmp_path / "weights.pth").write_bytes(b"whatever")
    for version in ("1.10.0", "2.5.1+cu121"):
        with pytest.raises(Unsupported, match=r"without running what is in it.*torch 2\.6 or later"):
            torch_models.state_dict(SimpleNamespace(__version__=version), str(tmp_path / "weights.pth"))
    with pytest.raises(BuildError, match="no checkpoint"):
        torch_models.state_dict(SimpleNamespace(__version__="2.10.0a0"), str(tmp_path / "absent.pth"))
