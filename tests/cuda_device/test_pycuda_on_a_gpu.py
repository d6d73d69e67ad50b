"""PyCUDA's buffers, stream and events as the agent uses them, on a real CUDA device. Skipped where there is none.

With TensorRT's lean runtime installed, which has no builder, the adapter's error path is run with the real library too.
docs/how-to/gate-a-cuda-gpu.md has the command.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy
import pytest

from pytest_inference_gate.agent import cuda_device, failures, pycuda_device, tensorrt_api

pytest.importorskip("pycuda.driver", reason="PyCUDA is not installed here")


@pytest.fixture(scope="module")
def device() -> pycuda_device.Device:
    try:
        cuda_device.facts()
    except cuda_device.NoDevice as reason:
        pytest.skip(f"there is no CUDA device here: {reason}")
    return pycuda_device.device()


@pytest.fixture(scope="module")
def lean(device: pycuda_device.Device) -> Any:
    return pytest.importorskip("tensorrt_lean_bindings", reason="TensorRT's lean runtime is not installed here")


def test_the_driver_tells_what_an_engine_is_bound_to(device: pycuda_device.Device) -> None:
    facts = cuda_device.facts()
    print(facts)
    assert facts["gpu"]
    major, minor = facts["sm"].split(".")
    assert int(major) >= 5 and int(minor) >= 0
    assert facts["cuda_driver"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("count", [1, 3, 1000, 4 * 2**20])
def test_what_is_uploaded_comes_back(device: pycuda_device.Device, dtype: str, count: int) -> None:
    sent = numpy.random.default_rng(count).integers(0, 2, count).astype(dtype)
    buffer = device.allocate(sent.nbytes)
    device.upload(buffer, sent)
    back = numpy.empty_like(sent)
    device.download(back, buffer)
    numpy.testing.assert_array_equal(back, sent)


def test_an_empty_tensor_has_an_address(device: pycuda_device.Device) -> None:
    assert int(device.allocate(0)) > 0


def test_what_is_in_the_stream_is_done_in_order_and_its_time_is_the_devices(device: pycuda_device.Device) -> None:
    """Copies within the device's memory, put into the stream by its handle through the driver itself, as TensorRT does."""
    driver = ctypes.CDLL("libcuda.so.1")
    size, times = 256 * 2**20, 20
    sent = numpy.arange(size // 4, dtype=numpy.uint32)
    first, second = device.allocate(size), device.allocate(size)
    device.upload(first, sent)

    def enqueue() -> None:
        for _ in range(times):
            status = driver.cuMemcpyDtoDAsync_v2(
                ctypes.c_uint64(int(second)),
                ctypes.c_uint64(int(first)),
                ctypes.c_size_t(size),
                ctypes.c_void_p(device.stream_handle),
            )
            assert status == 0

    timed = device.timed(enqueue)
    timed()
    ratios = []
    for _ in range(5):
        start = time.perf_counter()
        by_device = timed()
        by_wall = time.perf_counter() - start
        assert 0 < by_device <= by_wall
        ratios.append(by_wall / by_device)
    print(f"{times} copies of {size >> 20} MiB: {by_device * 1e3:.3f} ms by events; wall clock / events {sorted(ratios)[2]:.4f}")
    assert sorted(ratios)[2] < 1.5  # long work: what the host adds is little, or the events measure something else
    back = numpy.empty_like(sent)
    device.download(back, second)
    numpy.testing.assert_array_equal(back, sent)


def test_too_little_memory_is_told_as_such(device: pycuda_device.Device) -> None:
    with pytest.raises(Exception, match="memory") as caught:
        device.allocate(2**50)
    assert failures.kind_of(caught.value, "load") == "oom", caught.value


def test_the_context_is_still_usable_after_a_failed_allocation(device: pycuda_device.Device) -> None:
    with pytest.raises(Exception, match="memory"):
        device.allocate(2**50)
    test_what_is_uploaded_comes_back(device, "float32", 1000)


# The lean runtime: real error paths of the adapter. It has a runtime and no builder.


@pytest.mark.parametrize(
    "content", [b"", b"no engine at all", b"\0" * 4096, b"ftrt" + b"\1" * 4096], ids=["empty", "text", "zeros", "other magic"]
)
def test_a_foreign_engine_is_refused_in_tensorrts_own_words(lean: Any, content: bytes) -> None:
    logger = tensorrt_api.new_logger(lean)
    with pytest.raises((failures.LoadError, TypeError, ValueError)) as caught:
        tensorrt_api.deserialize(lean, logger, content)
    print(repr(caught.value))
    assert isinstance(caught.value, failures.LoadError), caught.value
    assert str(lean.__version__) in str(caught.value)
    assert "built again with this release" in str(caught.value)
    assert failures.describe(caught.value, "load")["kind"] == "load_error"


def test_the_runtime_lives_through_a_refusal(lean: Any) -> None:
    for _ in range(3):
        with pytest.raises(failures.LoadError):
            tensorrt_api.deserialize(lean, tensorrt_api.new_logger(lean), b"no engine at all")


def test_a_dla_is_not_taken_for_granted(lean: Any) -> None:
    """A discrete GPU has no DLA core: asking for one must not crash the process, whatever it answers."""
    logger = tensorrt_api.new_logger(lean)
    with pytest.raises(failures.LoadError):
        tensorrt_api.deserialize(lean, logger, b"no engine at all", dla_core=0)
    print(logger.words())


def test_the_adapter_finds_what_it_uses_in_the_lean_bindings(lean: Any) -> None:
    assert hasattr(lean.ICudaEngine, "num_io_tensors")
    for name in ("execute_async_v3", "set_input_shape", "set_tensor_address", "get_tensor_shape"):
        assert hasattr(lean.IExecutionContext, name), name
