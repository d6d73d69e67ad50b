"""Old interpreters of this machine, and the runtimes of their time, unpacked beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from wheels import CannotPrepare, unpacked

# JetPack 4 brings Python 3.6, JetPack 5 Python 3.8; Debian 10 brings 3.7.
VERSIONS = ("3.6", "3.7", "3.8")

# The newest runtime that the index has for each of them.
RUNTIMES = {
    ("3.6", "onnxruntime"): ("onnxruntime==1.10.0", "numpy==1.19.5"),
    ("3.7", "tflite_runtime"): ("tflite-runtime==2.11.0", "numpy==1.19.5"),
    ("3.7", "onnxruntime"): ("onnxruntime==1.14.1", "numpy==1.19.5"),
    ("3.8", "tflite_runtime"): ("tflite-runtime==2.14.0", "numpy==1.24.4"),
    ("3.8", "onnxruntime"): ("onnxruntime==1.16.3", "numpy==1.24.4"),
}
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")


def find(version: str) -> Path:
    """A Python of this version, from PATH or from pyenv. Raises :class:`CannotPrepare` where there is none."""
    candidates = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    for path in candidates:
        command = [
            str(path),
            "-c",
            "import sys; print('%d.%d' % sys.version_info[:2])",
        ]  # pyenv's own "python3.6" may be an empty shim
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.stdout.strip() == version:
            return path
    raise CannotPrepare(f"there is no Python {version} on PATH or in pyenv")


def with_runtime(folder: Path, version: str, runtime: str) -> Path:
    """A program that starts that Python with a runtime, unpacked in ``folder``; raises :class:`CannotPrepare`."""
    python = find(version)
    site = unpacked(folder / f"site-{version}-{runtime}", RUNTIMES[version, runtime], version, _PLATFORMS)
    program = folder / f"python{version}-{runtime}"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{python}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program
