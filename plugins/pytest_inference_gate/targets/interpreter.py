"""A Python interpreter on this machine: the one that runs pytest, or that of another environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..agent_process import AgentProcess, Limits

# Paths by which this process finds its modules, or which tools of its own environment set: wrong for any other interpreter.
_OF_THIS_INTERPRETER = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONPLATLIBDIR",
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
)


class InterpreterTarget:
    """Agents run by ``python``: a path, a name on ``PATH``, or the directory of a virtual environment.

    ``extra_backends`` maps names to Python files that the agent loads as backends.
    """

    def __init__(self, python: Path | str = sys.executable, extra_backends: Mapping[str, Path] = MappingProxyType({})) -> None:
        self.python = _find_python(python)
        self.extra_backends = dict(extra_backends)

    is_here = True
    recording = None

    @property
    def is_own(self) -> bool:
        """Whether it is the interpreter that runs pytest. Links are not followed: a virtual environment's Python is one, too."""
        return os.path.abspath(self.python) == os.path.abspath(sys.executable)

    @property
    def name(self) -> str:
        return "this interpreter" if self.is_own else self.python

    @property
    def key(self) -> str:
        return "\n".join(
            [os.path.abspath(self.python), *(f"{name}={path}" for name, path in sorted(self.extra_backends.items()))]
        )

    @property
    def command(self) -> list[str]:
        agent = Path(__file__).resolve().parent.parent / "agent" / "__main__.py"
        command = [self.python, "-u", "-X", "faulthandler", str(agent), "--die-with-parent"]
        for name, path in sorted(self.extra_backends.items()):
            command += ["--backend", f"{name}={Path(path).resolve()}"]
        return command

    def environment(self) -> dict[str, str]:
        """That of this process, without what would send another interpreter to this one's modules."""
        environment = dict(os.environ)
        if not self.is_own:
            for name in _OF_THIS_INTERPRETER:
                environment.pop(name, None)
        return environment

    def start_agent(self, log: Path, limits: Limits) -> AgentProcess:
        from ..agent_process import AgentProcess

        return AgentProcess(self.command, log, limits, environment=self.environment())

    def put(self, path: Path) -> str:
        return str(path)

    def place_for(self, path: Path) -> str:
        return str(path)

    def folder_for(self, path: Path) -> str:
        path.mkdir(exist_ok=True)
        return str(path)

    def fetch(self, there: str, path: Path) -> None:
        """Nothing: it lies there already."""

    def close(self) -> None:
        """Nothing is held open."""


def _find_python(python: Path | str) -> str:
    """The path to start; as given where nothing better is found, so that the error names what the user wrote."""
    path = Path(python).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    elif not path.exists():
        return shutil.which(str(python)) or str(python)
    return os.path.abspath(path)  # Path.resolve would follow the link out of a virtual environment
