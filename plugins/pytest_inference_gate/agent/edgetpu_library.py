"""``libedgetpu``, the runtime of the Edge TPU: where it lies, how an interpreter gets it as a delegate, and why it does not. Python 3.6."""

import ctypes
import os
import re
import sys
from typing import Any, Dict, List, Optional  # noqa: F401

from .device_files import find as find_files
from .device_files import read_bytes
from .failures import AgentError, LoadError  # noqa: F401

NAMES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
PATHS = {"linux": "LD_LIBRARY_PATH", "darwin": "DYLD_LIBRARY_PATH", "win32": "PATH"}
FOLDERS = {
    "linux": ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "lib/*-linux-gnu*", "usr/lib/*-linux-gnu*"),
    "darwin": ("usr/local/lib", "opt/homebrew/lib", "opt/local/lib", "usr/lib"),
    "win32": (),
}
LARGEST_CACHE = 16 << 20

DEVICE = re.compile(r"^(usb|pci)?(:[0-9]+)?$")
INSTALL = "install Google's package libedgetpu1-std (or -max)"


# Where it is


def name(platform=sys.platform):
    # type: (str) -> str
    """What the library is called on a system."""
    return NAMES.get(platform, NAMES["linux"])


def is_installed(root="/", platform=sys.platform):
    # type: (str, str) -> bool
    """Whether a loader would find the library. It is not loaded for that: it would look for devices on its own."""
    wanted = name(platform)
    if root == "/":
        folders = os.environ.get(PATHS.get(platform, PATHS["linux"]), "").split(os.pathsep)
        if any(folder and os.path.exists(os.path.join(folder, wanted)) for folder in folders):
            return True
    if any(find_files(root, os.path.join(folder, wanted)) for folder in FOLDERS.get(platform, FOLDERS["linux"])):
        return True
    cache = read_bytes(root, "etc/ld.so.cache", largest=LARGEST_CACHE) or b""
    return b"/" + wanted.encode() + b"\0" in cache


def runtime_version(delegate):
    # type: (Any) -> Optional[int]
    """The version of the Edge TPU runtime, which a model may ask for; None where the library does not tell."""
    try:
        tell = delegate._library.edgetpu_version
        tell.restype = ctypes.c_char_p
        match = re.search(r"RuntimeVersion\((\d+)\)", (tell() or b"").decode("utf-8", "replace"))
    except (AttributeError, OSError, ValueError):
        return None
    return int(match.group(1)) if match else None


# As a delegate


def delegate_options(options):
    # type: (Dict[str, Any]) -> Dict[str, str]
    """For the library: ``device``, where the card wishes one: ``usb``, ``pci``, ``usb:0``, ``pci:1`` or ``:0``."""
    device = options.get("device")
    if device is None:
        return {}
    if not DEVICE.match(str(device)):
        raise LoadError(
            "the Edge TPU %r is none that libedgetpu knows: write usb, pci, usb:0, pci:0 or :0 for device in [options.edgetpu]"
            % device
        )
    return {"device": str(device)}


def load(load_delegate, options, runtime):
    # type: (Any, Dict[str, Any], str) -> Any
    """The delegate, by ``load_delegate`` of the runtime; ``runtime`` is its name and version for what is said of a failure."""
    wished = delegate_options(options)
    if load_delegate is None:
        raise LoadError(
            "%s has no load_delegate, by which an Edge TPU is used: install an older ai-edge-litert or tflite-runtime" % runtime
        )
    library = name()
    try:
        return load_delegate(library, wished)
    except OSError as error:
        raise library_failure(error, library)
    except AttributeError:
        raise LoadError("the library %s that was found is no TensorFlow Lite delegate: %s" % (library, INSTALL))
    except (ValueError, RuntimeError) as error:
        raise device_failure(error, library, wished)


def library_failure(error, library):
    # type: (BaseException, str) -> AgentError
    """The loader could not load it: it is not there, something that it needs is not, or it was made for another system."""
    text = " ".join(str(error).split())
    match = re.search(r"(\S+): cannot open shared object file", text)
    absent = match.group(1) if match else None
    if absent and os.path.basename(absent) != library:
        return LoadError("%s is there, but %s, which it needs, is not: install that library" % (library, absent))
    if absent or "image not found" in text or "no such file" in text.lower() or "could not find module" in text.lower():
        return LoadError(
            "the Edge TPU's runtime %s is not installed here: %s, or name its folder in %s"
            % (library, INSTALL, PATHS.get(sys.platform, PATHS["linux"]))
        )
    return LoadError("%s cannot be loaded here (%s): install the one that is built for this system" % (library, text[:300]))


def device_failure(error, library, wished):
    # type: (BaseException, str, Dict[str, str]) -> AgentError
    """The library is there and gave no delegate: it says nothing of the cause, which is nearly always the device."""
    words = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    said = " (%s)" % "; ".join(words)[:300] if words else ""
    if wished:
        return LoadError(
            "%s found no free Edge TPU that is %s%s: attach it, or take device out of [options.edgetpu] of the card"
            % (library, wished["device"], said)
        )
    return LoadError(
        "%s opened no Edge TPU%s: see that it is plugged in, that no other process uses it, and that this user may open it "
        "(group plugdev or apex)" % (library, said)
    )


def preparing_failure(error, runtime, version):
    # type: (BaseException, str, Optional[int]) -> Optional[AgentError]
    """Why an interpreter with the delegate does not take a model; None for an error that has nothing to do with it."""
    text = " ".join(str(error).split())
    match = re.search(r"requires runtime version \((\d+)\), which is newer than this runtime version \((\d+)\)", text)
    if match:
        return LoadError(
            "the model was compiled for the Edge TPU runtime %s, and libedgetpu is runtime %s: install a newer libedgetpu, or set "
            "minimum_runtime_version = %s in [options.edgetpu] of the card" % (match.group(1), match.group(2), match.group(2))
        )
    here = "libedgetpu (runtime %d)" % version if version else "libedgetpu"
    if "Unsupported data type in custom op handler" in text or "single_input_size" in text:
        return LoadError(
            "%s and %s do not fit each other: the library has to be built for this release of TensorFlow Lite" % (here, runtime)
        )
    if "unresolved custom op: edgetpu-custom-op" in text:
        return LoadError(
            "%s did not let %s take the parts of the model that are compiled for the Edge TPU: install a release of the runtime that "
            "still takes external delegates" % (runtime, here)
        )
    if "Failed to prepare for TPU" in text or "EdgeTpuDelegate" in text or "ModifyGraphWithDelegate" in text:
        return LoadError("%s did not take the model: %s" % (here, text[:300].rstrip(".")))
    return None
