"""An environment for agents in which the doubles of TensorRT, PyCUDA and the CUDA driver are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.targets.interpreter import InterpreterTarget

DOUBLE = Path(__file__).resolve().parent.parent / "doubles" / "tensorrt"
VERSIONS = {"8.2": "8.2.1.8", "8.6": "8.6.1", "10": "10.3.0", "11": "11.4.0"}


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


class Installation:
    """A directory with what an installation of TensorRT of one style leaves on ``sys.path``, and a driver's library."""

    def __init__(self, directory: Path, style: str, *, tensorrt: bool = True, pycuda: bool = True, driver: bool = True) -> None:
        self.directory = directory
        self.style = style
        directory.mkdir(parents=True, exist_ok=True)
        wanted = {"tensorrt": VERSIONS[style] if tensorrt else None, "pycuda": "2024.1" if pycuda else None}
        shutil.copy(DOUBLE / "site" / "simulated_cuda.py", directory)
        for name, version in wanted.items():
            if version is None:
                # A package of the machine must not take the place of the one that is said to be missing.
                (directory / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name!r}', name={name!r})\n")
                continue
            shutil.copytree(DOUBLE / "site" / name, directory / name, dirs_exist_ok=True)
            metadata = directory / f"{name}-{version}.dist-info"
            metadata.mkdir(exist_ok=True)
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        self.libraries = directory / "lib"
        self.libraries.mkdir(exist_ok=True)
        program = compiler()
        assert program is not None, "a C compiler is needed for the double of the driver's library"
        if driver:
            library = self.libraries / "libcuda.so.1"
            subprocess.run([program, "-shared", "-fPIC", "-O1", "-o", library, DOUBLE / "libcuda.c"], check=True)
        else:
            for name in ("libcuda.so.1", "libcuda.so"):  # found before a real one, and not to be loaded
                (self.libraries / name).write_text("this is no library\n")

    def environment(self, **settings: str) -> dict[str, str]:
        """That of this process with the doubles first; ``settings`` are what the doubles read: ``FAULT="oom"``, ``SM="7.2"``."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOUBLE_")}
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join([str(self.directory), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "LD_LIBRARY_PATH": os.pathsep.join([str(self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep),
            "DOUBLE_STYLE": self.style,
            **{f"DOUBLE_{name}": value for name, value in settings.items()},
        }

    def start(self, log: Path, **settings: str) -> AgentProcess:
        limits = Limits({"convert": 600.0, "load": 300.0, "predict": 300.0, "measure": 300.0})
        target = InterpreterTarget(sys.executable)
        return AgentProcess(target.command, log, limits, environment=self.environment(**settings))
