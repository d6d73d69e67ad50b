"""Versions of what the system brings: CUDA, cuDNN, TensorRT, the Edge TPU runtime, drivers. From files alone, no process. Python 3.6.

In a container these are the container's own, which are what a model there runs with.
"""

import os
import re
from typing import Dict, List, Optional, Tuple  # noqa: F401

from .device_files import find, natural, read, read_bytes

Version = Dict[str, str]  # "version", and "source": the file or package that says so

# Of a full desktop; the limit only keeps a file that is none from filling the memory of a board.
LARGEST_STATUS = 64 << 20

LIBRARY_FOLDERS = (
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/arm-linux-gnueabihf",
    "usr/lib/aarch64-linux-gnu/tegra",
    "usr/lib/aarch64-linux-gnu/nvidia",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib",
)
CUDA_FOLDERS = (
    "usr/local/cuda/lib64",
    "usr/local/cuda/targets/*/lib",
    "usr/local/cuda-[0-9]*/lib64",
    "usr/local/cuda-[0-9]*/targets/*/lib",
)

LIBRARIES = ("libcudart.so.", "libcudnn.so.", "libnvinfer.so.", "libedgetpu.so.")

PACKAGE_PREFIXES = (
    "cuda-cudart-",
    "gasket-dkms",
    "libcudnn",
    "libedgetpu1-",
    "libnvinfer",
    "nvidia-jetpack",
    "nvidia-l4t-core",
)


def dpkg_versions(root, prefixes=PACKAGE_PREFIXES):
    # type: (str, Tuple[str, ...]) -> Dict[str, str]
    """``{package: full version}`` of installed Debian packages whose name begins with one of the prefixes.

    The status file has some megabytes on a Jetson, so that it is searched and not parsed.
    """
    texts = [read_bytes(root, "var/lib/dpkg/status", largest=LARGEST_STATUS)]
    texts += [read_bytes(root, path) for path in find(root, "var/lib/dpkg/status.d/*")]  # images without a package manager
    versions = {}  # type: Dict[str, str]
    for text in texts:
        if text:
            text = b"\n" + text  # so that the first paragraph begins like the others
            for prefix in prefixes:
                versions.update(_paragraphs(text, prefix))
    return versions


def _paragraphs(text, prefix):
    # type: (bytes, str) -> Dict[str, str]
    found = {}  # type: Dict[str, str]
    start = 0
    needle = b"\nPackage: " + prefix.encode()
    while True:
        start = text.find(needle, start)
        if start < 0:
            return found
        end = text.find(b"\n\n", start + 1)
        end = len(text) if end < 0 else end
        fields = {}
        for line in text[start:end].decode("utf-8", "replace").splitlines():
            key, colon, value = line.partition(": ")
            if colon and not line.startswith(" "):
                fields[key] = value.strip()
        # Removed packages stay listed as "deinstall ok config-files".
        state = fields.get("Status", "install ok installed").split()[-1]
        if fields.get("Version") and state in ("installed", "triggers-pending", "triggers-awaited"):
            found[fields["Package"]] = fields["Version"]
        start = end


def upstream(version):
    # type: (str) -> str
    """``"10.3.0.30"`` of ``"10.3.0.30-1+cuda12.5"``, ``"6.2.1"`` of ``"6.2.1+b38"``: without epoch, revision and build."""
    return re.split(r"[-+~]", version.split(":", 1)[-1], maxsplit=1)[0]


def system_software(root, packages):
    # type: (str, Dict[str, str]) -> Dict[str, Optional[Version]]
    """By name: cuda, cudnn, tensorrt, edgetpu-runtime, nvidia-driver, apex-driver; None for what is not there or cannot be read."""
    libraries = library_files(root)
    return {
        "cuda": cuda(root, packages, libraries),
        "cudnn": library("libcudnn", r"libcudnn[0-9]+(-cuda-[0-9]+)?$", packages, libraries),
        "tensorrt": library("libnvinfer", r"libnvinfer[0-9]+$", packages, libraries),
        "edgetpu-runtime": edge_tpu_runtime(packages, libraries),
        "nvidia-driver": nvidia_driver(root),
        "apex-driver": apex_driver(root),
    }


def library_files(root):
    # type: (str) -> List[str]
    """Paths of those of :data:`LIBRARIES`, below root; each folder is listed once, since some hold thousands of files."""
    found = []
    folders = [folder for pattern in CUDA_FOLDERS for folder in find(root, pattern)] + list(LIBRARY_FOLDERS)
    for folder in folders:
        try:
            names = os.listdir(os.path.join(root, folder))
        except OSError:
            continue
        found += [os.path.join(folder, name) for name in sorted(names) if name.startswith(LIBRARIES)]
    return found


def cuda(root, packages, libraries):
    # type: (str, Dict[str, str], List[str]) -> Optional[Version]
    path = "usr/local/cuda/version.json"
    match = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([0-9.]+)"', read(root, path) or "")
    if match:
        return {"version": match.group(1), "source": path}
    path = "usr/local/cuda/version.txt"
    match = re.search(r"CUDA Version ([0-9.]+)", read(root, path) or "")
    if match:
        return {"version": match.group(1), "source": path}
    named = _highest({name: version for name, version in packages.items() if re.match(r"cuda-cudart-[0-9-]+$", name)})
    return named or _library_file("libcudart", libraries)


def library(name, package_pattern, packages, libraries):
    # type: (str, str, Dict[str, str], List[str]) -> Optional[Version]
    """The package knows the whole version, the file is what is loaded: where they contradict each other, the file counts."""
    package = _highest({key: version for key, version in packages.items() if re.match(package_pattern, key)})
    file = _library_file(name, libraries)
    if package and file and not (package["version"] + ".").startswith(file["version"] + "."):
        return file
    return package or file


def _highest(versions):
    # type: (Dict[str, str]) -> Optional[Version]
    if not versions:
        return None
    name = max(versions, key=lambda name: natural(upstream(versions[name])))
    return {"version": upstream(versions[name]), "source": "package " + name}


def _library_file(name, libraries):
    # type: (str, List[str]) -> Optional[Version]
    """From names such as ``libnvinfer.so.10.3.0``; one with the major version alone tells too little."""
    found = {}
    for path in libraries:
        match = re.match(re.escape(name) + r"\.so\.([0-9]+(?:\.[0-9]+)+)$", os.path.basename(path))
        if match:
            found[path] = match.group(1)
    if not found:
        return None
    path = max(found, key=lambda path: natural(found[path]))
    return {"version": found[path], "source": path}


def edge_tpu_runtime(packages, libraries):
    # type: (Dict[str, str], List[str]) -> Optional[Version]
    """With the clock for which the package is made (``std`` or ``max``): it changes the latency."""
    for kind in ("std", "max"):
        name = "libedgetpu1-" + kind
        if name in packages:
            return {"version": "%s (%s)" % (upstream(packages[name]), kind), "source": "package " + name}
    for path in libraries:
        if os.path.basename(path).startswith("libedgetpu.so.1"):
            return {"version": "unknown", "source": path}  # its name holds the version of the interface only
    return None


def nvidia_driver(root):
    # type: (str) -> Optional[Version]
    path = "proc/driver/nvidia/version"
    match = re.search(r"\s([0-9]{3,}(?:\.[0-9]+)+)\s", (read(root, path) or "") + " ")
    return {"version": match.group(1), "source": path} if match else None


def apex_driver(root):
    # type: (str) -> Optional[Version]
    for folder in find(root, "sys/class/apex/apex_[0-9]*"):
        version = read(root, folder, "driver_version")
        if version:
            return {"version": version, "source": os.path.join(folder, "driver_version")}
    return None
