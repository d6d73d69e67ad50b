"""What this environment is and could do, told without importing any framework."""

import os
import platform
import re
import sys
from typing import Any, Dict, List  # noqa: F401

from . import device_facts, device_programs
from .failures import sentence_of

# The distributions that the backends, or a reader of a result, may ask for.
PACKAGES = (
    "ai-edge-litert",
    "flatbuffers",
    "h5py",
    "keras",
    "numpy",
    "nvidia-tensorflow",
    "nvidia-tensorrt",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "protobuf",
    "pycoral",
    "pycuda",
    "tensorflow",
    "tensorflow-aarch64",
    "tensorflow-cpu",
    "tensorflow-cpu-aws",
    "tensorflow-gpu",
    "tensorflow-intel",
    "tensorflow-macos",
    "tensorrt",
    "tensorrt-bindings",
    "tensorrt-cu11",
    "tensorrt-cu12",
    "tensorrt-cu12-bindings",
    "tensorrt-cu12-libs",
    "tensorrt-cu13",
    "tensorrt-cu13-bindings",
    "tensorrt-libs",
    "tf-keras",
    "tf-nightly",
    "tf2onnx",
    "tflite-runtime",
    "torch",
    "torch2trt",
    "torchvision",
)
_METADATA_NAME = re.compile(r"^(?P<name>[A-Za-z0-9_.]+?)-(?P<version>[^-]+)(-py\d.*)?\.(dist|egg)-info$")


def _normalized(name):
    # type: (str) -> str
    return re.sub(r"[-_.]+", "-", name).lower()


def scan_path(path):
    # type: (List[str]) -> Dict[str, str]
    """Distributions and versions by the names of their metadata in the directories of ``path``; the first on the path wins."""
    found = {}  # type: Dict[str, str]
    for entry in path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            match = _METADATA_NAME.match(name)
            if match:
                found.setdefault(_normalized(match.group("name")), match.group("version"))
    return found


def installed_packages():
    # type: () -> Dict[str, str]
    """``{name: version}`` of those of :data:`PACKAGES` that are installed."""
    try:
        from importlib import metadata  # Python 3.8 and later  # novermin
    except ImportError:
        everything = scan_path(sys.path)
        return {name: everything[name] for name in PACKAGES if name in everything}
    found = {}
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except Exception:  # a damaged installation must not hide the others
            continue
        if version:
            found[name] = version
    return found


def probe(backends):
    # type: (Any) -> Dict[str, Any]
    packages = installed_packages()
    available = {}
    for name in backends.names:
        try:
            available[name] = dict(backends.get(name).availability(packages), code=backends.code(name))
        except Exception as error:
            available[name] = {
                "available": False,
                "can_convert": False,
                "can_run": False,
                "precisions_convert": [],
                "precisions_run": [],
                "runtime": None,
                "converter": {},
                "source_formats": [],
                "reason": sentence_of(error),
                "code": None,
            }
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "packages": packages,
        "backends": available,
        "device": device_programs.complete(device_facts.collect()),
    }
