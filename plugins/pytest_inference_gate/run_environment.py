"""What a run works with: the store, the folder for its logs, the software stacks in their two roles, the devices."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .agent_process import Limits
from .agent_role import AgentRole, RunningAgents
from .artifacts import ArtifactStore, default_store_root
from .devices import DeviceIdentity, SoftwareUnderTest
from .errors import GateError
from .hookspecs import BackendExtension
from .options import Settings
from .outcome import Outcome
from .preparation import BUILT_ON_DEVICE
from .targets import Target
from .targets.bundle_address import BundleAddress
from .targets.interpreter import InterpreterTarget
from .targets.ssh_address import SshAddress

_KEPT_LOGS = 20  # runs
_MAY_BE_IN_USE = 6 * 3600  # seconds: for so long a run in another container may start no agent


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
class DeviceUnderTest:
    """One device on which cases run.

    ``name`` is the board's among several, ``None`` in a run with one device; ``logs`` is a folder for what runs there. ``failure`` says why
    it cannot be used at all: then nothing else is known of it. ``other`` is what is measured in turns with ``stack``.
    """

    name: str | None
    stack: Stack
    logs: Path
    identity: DeviceIdentity = field(default_factory=DeviceIdentity)
    failure: Outcome | None = None
    other: Stack | None = None

    @property
    def runtime(self) -> AgentRole:
        return self.stack.runtime

    @property
    def id(self) -> str:
        """The name of its folder of baselines; ``unknown`` where it could not be asked."""
        return "unknown" if self.failure is not None else self.identity.id

    @property
    def software(self) -> SoftwareUnderTest:
        return SoftwareUnderTest() if self.failure is not None else self.stack.software


@dataclass(frozen=True)
class RunEnvironment:
    """``logs`` is this run's own folder; ``converter`` makes artifacts for all devices, but for the backends in ``built_on_device``, whose
    models each device builds; ``other_converter`` is that of the stack that is measured in turns with this one.
    """

    store: ArtifactStore
    logs: Path
    converter: AgentRole
    devices: tuple[DeviceUnderTest, ...]
    other_converter: AgentRole | None = None
    built_on_device: frozenset[str] = BUILT_ON_DEVICE


def open_environment(
    settings: Settings,
    wanted: Collection[str | None],
    extensions: Mapping[str, BackendExtension],
    running: RunningAgents,
    notice: Callable[[str], None],
    progress: Callable[[str], None],
) -> RunEnvironment:
    """Open the store and probe each target once. Raises a ``GateError`` where an interpreter cannot be used.

    Of the two roles, ``--gate-convert-with`` and ``--gate-run-with`` fix one for both stacks; where they say nothing, each stack
    converts and runs for itself. With ``--gate-target`` the boards are the runtimes, and what is converted is converted here. A board that
    cannot be used is a device with a ``failure``. ``wanted`` names the boards that have cases: no other is asked.
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

    def converter(python: str) -> AgentRole:
        return role(InterpreterTarget(settings.convert_with or python, files), "converter")

    def reach(address: SshAddress | BundleAddress) -> Target:
        if isinstance(address, BundleAddress):
            from .targets.bundle import BundleTarget

            return BundleTarget(address, notice=notice)
        from .targets.ssh import SshTarget

        return SshTarget(address, files, notice=notice, progress=progress)

    def board(name: str | None, address: SshAddress | BundleAddress) -> DeviceUnderTest:
        target = reach(address)
        running.use(target)
        folder = logs if name is None else logs / name.replace(":", "-")
        runtime = AgentRole(target, limits, folder, running)
        failure = runtime.look("runtime")
        own = Stack(converter(sys.executable), runtime)
        other = Stack(converter(settings.against or sys.executable), runtime) if settings.takes_turns else None
        if failure is not None:
            return DeviceUnderTest(name, own, folder, failure=failure, other=other)
        return DeviceUnderTest(name, own, folder, DeviceIdentity.from_facts(runtime.probe["device"]), other=other)

    def here() -> DeviceUnderTest:
        def stack(python: str) -> Stack:
            return Stack(converter(python), role(InterpreterTarget(settings.run_with or python, files), "runtime"))

        own = stack(sys.executable)
        other = stack(settings.against or sys.executable) if settings.takes_turns else None
        return DeviceUnderTest(None, own, logs, DeviceIdentity.from_facts(own.runtime.probe["device"]), other=other)

    own_converter = converter(sys.executable)
    other_converter = converter(settings.against or sys.executable) if settings.takes_turns else None
    boards = [(name, address) for name, address in settings.boards if name in wanted]
    if boards:
        # At the same time: one that is switched off answers only after a while.
        with ThreadPoolExecutor(len(boards), thread_name_prefix="inference-gate-probe") as pool:
            devices = tuple(pool.map(lambda one: board(*one), boards))
    else:
        devices = (here(),)
    built_on_device = BUILT_ON_DEVICE.union(name for name, extension in extensions.items() if extension.builds_on_device)
    return RunEnvironment(store, logs, own_converter, devices, other_converter, built_on_device)


def _is_in_use(folder: Path) -> bool:
    """Whether a run may still write there: its process lives, or, where it cannot be seen from here, it began a log in the last hours."""
    import psutil

    number = folder.name.split("-")[2:3]
    if number and number[0].isdigit() and psutil.pid_exists(int(number[0])):
        return True
    try:
        return time.time() - folder.stat().st_mtime < _MAY_BE_IN_USE
    except OSError:
        return False


def _make_log_folder(root: Path) -> Path:
    # The number of the process is not enough: in two containers that share a store it may well be the same.
    folder = root / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
        for old in sorted(path for path in root.iterdir() if path.is_dir())[:-_KEPT_LOGS]:
            if not _is_in_use(old):
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise GateError(
            f"cannot write logs to {root} ({error.strerror}): free some space there or name another folder with --gate-store"
        ) from None
    return folder
