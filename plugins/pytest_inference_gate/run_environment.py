"""What a run works with: the store, the folder for its logs, the two roles, the device and its software."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from .agent_process import Limits
from .agent_role import AgentRole, RunningAgents
from .artifacts import ArtifactStore, default_store_root
from .devices import DeviceIdentity, SoftwareUnderTest
from .errors import GateError
from .hookspecs import BackendExtension
from .options import Settings
from .targets.interpreter import InterpreterTarget

_KEPT_LOGS = 20  # runs


@dataclass(frozen=True)
class RunEnvironment:
    """``logs`` is this run's own folder; ``converter`` and ``runtime`` are one object where one interpreter has both roles."""

    store: ArtifactStore
    logs: Path
    converter: AgentRole
    runtime: AgentRole
    device: DeviceIdentity
    software: SoftwareUnderTest


def open_environment(
    settings: Settings, extensions: Mapping[str, BackendExtension], running: RunningAgents, notice: Callable[[str], None]
) -> RunEnvironment:
    """Open the store and probe the targets. Raises a ``GateError`` where one of them cannot be used."""
    store = ArtifactStore(settings.store or default_store_root(), notice=notice)
    logs = _make_log_folder(store.root / "logs")
    limits = Limits(seconds=settings.timeouts, memory_bytes=settings.memory_limit)
    files = {name: extension.module for name, extension in extensions.items()}

    def role(python: str | None, name: str) -> AgentRole:
        opened = AgentRole(InterpreterTarget(python or sys.executable, files), limits, logs, running)
        opened.ask(name)
        return opened

    converter = role(settings.convert_with, "converter")
    runtime = converter if settings.run_with == settings.convert_with else role(settings.run_with, "runtime")
    software = SoftwareUnderTest.from_probe(runtime.probe)
    if converter is not runtime:
        software = software.with_converter(SoftwareUnderTest.from_probe(converter.probe))
    device = DeviceIdentity.from_facts(runtime.probe["device"])
    return RunEnvironment(store, logs, converter, runtime, device, software)


def _make_log_folder(root: Path) -> Path:
    # The number of the process is not enough: in two containers that share a store it may well be the same.
    folder = root / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
        for old in sorted(path for path in root.iterdir() if path.is_dir())[:-_KEPT_LOGS]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise GateError(
            f"cannot write logs to {root} ({error.strerror}): free some space there or name another folder with --gate-store"
        ) from None
    return folder
