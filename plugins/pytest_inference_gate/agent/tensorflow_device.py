"""Which processor TensorFlow may use: the CPU alone, or one CUDA GPU. Python 3.6.

TensorFlow takes every GPU that it sees, and nearly all of its memory, so that a case on the CPU would silently be one on the GPU. And where
it sees none, it goes on with the CPU, so that a case on the GPU would silently be one on the CPU. Both are ruled out here, before
TensorFlow has touched any device.
"""

import os
from typing import Any, Dict  # noqa: F401

from .failures import LoadError, Unsupported

VISIBLE = "CUDA_VISIBLE_DEVICES"
_found = {}  # type: Dict[str, Any]  # what the environment said before the GPUs were hidden by it


def keep_to_cpu(tf):
    # type: (Any) -> None
    """Hide every GPU from TensorFlow, and from nothing else in this process where TensorFlow has a way of its own (1.14 and later)."""
    config = _configuration(tf)
    if config is not None:
        config.set_visible_devices([], "GPU")
    elif VISIBLE not in _found:
        _found[VISIBLE] = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = "-1"


def take_gpu(tf):
    # type: (Any) -> None
    """Let TensorFlow use the first GPU that it sees, with memory as it needs it; raises where it sees none.

    ``fp32`` means the same on each GPU: TensorFloat-32, which newer ones would take for it, has ten bits of mantissa.
    """
    config = _configuration(tf)
    if config is None:
        raise Unsupported(
            "TensorFlow %s cannot be kept to one GPU: run the case with release 1.14 or later" % _version(tf),
        )
    gpus = config.list_physical_devices("GPU")
    if not gpus:
        raise _no_gpu(tf)
    config.set_visible_devices(gpus[:1], "GPU")
    tf.config.experimental.set_memory_growth(gpus[0], True)
    allow_tf32 = getattr(tf.config.experimental, "enable_tensor_float_32_execution", None)  # 2.4 and later
    if allow_tf32 is not None:
        allow_tf32(False)


def _configuration(tf):
    # type: (Any) -> Any
    """The module that has ``set_visible_devices``: ``tf.config``, or ``tf.config.experimental`` before 2.1; None before 1.14."""
    config = getattr(tf, "config", None)
    for module in (config, getattr(config, "experimental", None)):
        if hasattr(module, "set_visible_devices"):
            return module
    return None


def _no_gpu(tf):
    # type: (Any) -> Exception
    version = _version(tf)
    if not tf.test.is_built_with_cuda():
        return Unsupported(
            "TensorFlow %s here is a build for the CPU alone: install one with CUDA to run the case on the GPU "
            "(for a Jetson, NVIDIA's build for its JetPack)" % version
        )
    built = _build_information(tf)
    cuda = "CUDA %s" % built["cuda_version"] if built.get("cuda_version") else "CUDA"
    cudnn = " and cuDNN %s" % built["cudnn_version"] if built.get("cudnn_version") else ""
    return LoadError(
        "TensorFlow %s sees no GPU, though it was built for %s%s: the log names the library that it could not open, or the error of the "
        "driver; install what is missing, or a TensorFlow for the CUDA that is there" % (version, cuda, cudnn)
    )


def _build_information(tf):
    # type: (Any) -> Dict[str, Any]
    told = getattr(tf.sysconfig, "get_build_info", None)  # 2.3 and later
    return dict(told()) if told else {}


def _version(tf):
    # type: (Any) -> str
    return str(getattr(tf, "__version__", "of an unknown version"))
