"""A machine for agents with an Edge TPU, its runtime and its compiler, none of which is real.

The library is compiled from C and goes through the real interpreter; the compiler is a script with the words of the real one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.targets.interpreter import InterpreterTarget

DOUBLE = Path(__file__).resolve().parent.parent / "doubles" / "edgetpu"
# A Coral USB Accelerator on USB 3, as /sys shows it.
USB_DEVICE = {"idVendor": "18d1", "idProduct": "9302", "speed": "5000"}


def c_compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


class Installation:
    """Below ``directory``: ``bin/edgetpu_compiler``, ``lib/libedgetpu.so.1`` and the device's files in ``root``."""

    def __init__(self, directory: Path, *, compiler: bool = True, library: bool = True, device: bool = True) -> None:
        self.directory = directory
        for name in ("bin", "lib", "root"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        if compiler:
            self._script("edgetpu_compiler", DOUBLE / "edgetpu_compiler.py")
        if library:
            program = c_compiler()
            assert program is not None, "a C compiler is needed for the double of the library"
            source, output = DOUBLE / "libedgetpu.c", directory / "lib" / "libedgetpu.so.1"
            subprocess.run([program, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", output, source], check=True)
        if device:
            folder = directory / "root" / "sys" / "bus" / "usb" / "devices" / "2-1"
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in USB_DEVICE.items():
                (folder / name).write_text(text + "\n")

    def _script(self, name: str, program: Path) -> None:
        path = self.directory / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(program))} "$@"\n')
        path.chmod(0o755)

    def settings(self, **settings: str) -> dict[str, str]:
        """What the environment has beyond this process's; ``settings`` are what the doubles read: ``RUNTIME="13"``."""
        # A compiler of the machine must not take the place of the one that is said to be missing.
        folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "edgetpu_compiler").exists()]
        return {
            "PATH": os.pathsep.join([str(self.directory / "bin"), *folders]),
            "LD_LIBRARY_PATH": str(self.directory / "lib"),
            "PYTHONPATH": os.pathsep.join([str(DOUBLE / "site"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "DOUBLE_EDGETPU_ROOT": str(self.directory / "root"),
            "DOUBLE_EDGETPU_STATE": str(self.directory / "compiler-was-started"),
            **{f"DOUBLE_EDGETPU_{name}": value for name, value in settings.items()},
        }

    def start(self, log: Path, *, python: str = sys.executable, **settings: str) -> AgentProcess:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOUBLE_")}
        limits = Limits({"convert": 600.0, "load": 300.0, "predict": 300.0, "measure": 300.0})
        environment = {**inherited, **self.settings(**settings)}
        return AgentProcess(InterpreterTarget(python).command, log, limits, environment=environment)

    def interpreter(self, name: str = "python-with-edge-tpu", **settings: str) -> Path:
        """A command that stands for the Python of this machine, for ``--gate-run-with`` and ``--gate-convert-with``."""
        path = self.directory / "bin" / name
        lines = [f"export {key}={shlex.quote(value)}" for key, value in self.settings(**settings).items()]
        start = f'exec {shlex.quote(sys.executable)} -u {shlex.quote(str(DOUBLE / "agent_with_edge_tpu.py"))} "$@"'
        path.write_text("\n".join(["#!/bin/sh", *lines, start, ""]))
        path.chmod(0o755)
        return path
