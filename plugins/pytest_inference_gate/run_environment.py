"""What a run works with: the store, the folder for its logs, the software stacks in their two roles, the device."""

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
from .preparation import BUILT_ON_DEVICE
from .targets import Target
from .targets.interpreter import InterpreterTarget

_KEPT_LOGS = 20  # runs


@dataclass(frozen=True)
class Stack:
    """``converter`` and ``runtime`` are one object where one interpreter has both roles."""

    converter: AgentRole
    runtime: AgentRole

    @property
    def software(self) -> SoftwareUnderTest:
        software = SoftwareUnderTest.from_probe(self.runtime.probe)
        if self.converter is self.runtime:
            return software
        return software.with_converter(SoftwareUnderTest.from_probe(self.converter.probe))


@dataclass(frozen=True)
class RunEnvironment:
    """``logs`` is this run's own folder; ``other`` is what is measured in turns with ``stack``; ``built_on_device`` names the backends
    whose models the runtime builds."""

    store: ArtifactStore
    logs: Path
    stack: Stack
    device: DeviceIdentity
    other: Stack | None = None
    built_on_device: frozenset[str] = BUILT_ON_DEVICE

    @property
    def converter(self) -> AgentRole:
        return self.stack.converter

    @property
    def runtime(self) -> AgentRole:
        return self.stack.runtime

    @property
    def software(self) -> SoftwareUnderTest:
        return self.stack.software


def open_environment(
    settings: Settings,
    extensions: Mapping[str, BackendExtension],
    running: RunningAgents,
    notice: Callable[[str], None],
    progress: Callable[[str], None],
) -> RunEnvironment:
    """Open the store and probe each target once. Raises a ``GateError`` where one of them cannot be used.

    Of the two roles, ``--gate-convert-with`` and ``--gate-run-with`` fix one for both stacks; where they say nothing, each stack
    converts and runs for itself. With ``--gate-target`` the board is the runtime, and what is converted is converted here.
    """
    store = ArtifactStore(settings.store or default_store_root(), notice=notice)
    logs = _make_log_folder(store.root / "logs")
    limits = Limits(seconds=settings.timeouts, memory_bytes=settings.memory_limit)
    files = {name: extension.module for name, extension in extensions.items()}

    known: dict[str, AgentRole] = {}

    def role(target: Target, name: str) -> AgentRole:
        if target.key not in known:
            running.use(target)
            known[target.key] = AgentRole(target, limits, logs, running)
            known[target.key].ask(name)
        return known[target.key]

    def runtime(python: str) -> Target:
        if not settings.targets:
            return InterpreterTarget(settings.run_with or python, files)
        from .targets.ssh import SshTarget

        return SshTarget(settings.targets[0], files, notice=notice, progress=progress)

    def stack(python: str) -> Stack:
        converter = role(InterpreterTarget(settings.convert_with or python, files), "converter")
        return Stack(converter, role(runtime(python), "runtime"))

    own = stack(sys.executable)
    other = stack(settings.against or sys.executable) if settings.takes_turns else None
    built_on_device = BUILT_ON_DEVICE.union(name for name, extension in extensions.items() if extension.builds_on_device)
    return RunEnvironment(store, logs, own, DeviceIdentity.from_facts(own.runtime.probe["device"]), other, built_on_device)


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
