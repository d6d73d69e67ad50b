"""An environment for agents in which TensorFlow has TF-TRT: the double of it, over the TensorFlow that is installed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.targets.interpreter import InterpreterTarget

DOUBLES = Path(__file__).resolve().parent.parent / "doubles"
VERSIONS = {"direct": "2.16.1+nv24.06", "parameters": "2.3.1+nv20.12", "graph": "1.15.5+nv22.1", "contrib": "1.13.1+nv19.5"}
TENSORRT = "8.6.2"


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


class Installation:
    """A directory that makes an interpreter's TensorFlow look like NVIDIA's of one style, with a GPU's libraries."""

    def __init__(
        self, directory: Path, style: str, *, tensorflow: str | None = None, tensorrt: bool = True, gpu: bool = True
    ) -> None:
        self.directory, self.style = directory, style
        shutil.copytree(DOUBLES / "tftrt" / "site", directory, dirs_exist_ok=True)
        distributions = {"tensorflow": tensorflow or VERSIONS[style], **({"tensorrt-libs": TENSORRT} if tensorrt else {})}
        for name, version in distributions.items():
            metadata = directory / f"{name.replace('-', '_')}-{version}.dist-info"
            metadata.mkdir(exist_ok=True)
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        self.libraries = directory / "lib"
        self.libraries.mkdir(exist_ok=True)
        program = compiler()
        assert program is not None, "a C compiler is needed for the doubles of the driver's libraries"
        sources = {"libcuda.so.1": DOUBLES / "tensorrt" / "libcuda.c", "libnvidia-ml.so.1": DOUBLES / "tftrt" / "libnvidia-ml.c"}
        for name, source in sources.items():
            if gpu:
                subprocess.run([program, "-shared", "-fPIC", "-O1", "-o", self.libraries / name, source], check=True)
            else:
                for absent in (name, name.removesuffix(".1")):
                    (self.libraries / absent).write_text("this is no library\n")

    def variables(self, **settings: str) -> dict[str, str]:
        """What to set in an environment; ``settings`` are what the double reads: ``FAULT="abort"``, ``RUN="cache_full"``."""
        return {
            "PYTHONPATH": os.pathsep.join([str(self.directory), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "LD_LIBRARY_PATH": os.pathsep.join([str(self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep),
            "DOUBLE_STYLE": self.style,
            "DOUBLE_SETTINGS": str(self.directory / "settings.json"),
            **{f"DOUBLE_{name}": value for name, value in settings.items()},
        }

    def let(self, **settings: str) -> None:
        """Change what the double reads, in agents that are running too; nothing given: back to what they were started with."""
        (self.directory / "settings.json").write_text(json.dumps(settings))

    def start(self, log: Path, limits: Limits | None = None, **settings: str) -> AgentProcess:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DOUBLE_", "TF_"))}
        limits = limits or Limits({"convert": 600.0, "load": 300.0, "predict": 300.0, "measure": 300.0})
        return AgentProcess(
            InterpreterTarget(sys.executable).command, log, limits, environment={**inherited, **self.variables(**settings)}
        )

    def interpreter(self, path: Path, **settings: str) -> Path:
        """A program that is this Python with the double in front, for a whole session."""
        exports = "".join(f'export {name}="{value}"\n' for name, value in self.variables(**settings).items())
        path.write_text(f'#!/bin/sh\n{exports}exec "{sys.executable}" "$@"\n')
        path.chmod(0o755)
        return path
