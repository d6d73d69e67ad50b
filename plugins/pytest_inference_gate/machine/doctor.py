"""`inference-gate doctor`: what this machine is, and what to change before it is measured."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import BusyProcess, Check, MachineFacts

WIDTH = 80
BUSIEST = 5
WORTH_NAMING = 0.02  # cores
FEWEST_READINGS = 3
SCHEMA = "inference-gate-doctor/1"

_COLUMN = 27  # where findings begin


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="say in which condition this machine is, and what to change before it is measured",
        description="Look at this machine as the gate will see it: its identity, its clocks, who else uses it, what it can run and how "
        "steady it is, with what to change and how.",
        epilog="Exit status: 0 where nothing has to be changed, 1 where something has, 2 where the question was wrong.",
    )
    parser.add_argument("--python", metavar="PYTHON", help="the interpreter whose runtimes are looked at (default: this one)")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=3.0,
        metavar="N",
        help="how long the canary is repeated to see how steady it is (default: 3)",
    )
    parser.add_argument(
        "--store", metavar="DIR", type=Path, help="where converted models are kept (default: the user's cache folder)"
    )
    parser.add_argument("--json", action="store_true", help="print the checks and all facts as JSON")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected a number of seconds between 0 and 3600, got {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    """The command. Raises a ``GateError`` where the interpreter cannot be used."""
    from .checks import check_machine

    progress = _show_progress if sys.stderr.isatty() else _show_nothing
    facts = examine(options.python or sys.executable, options.seconds, options.store, progress)
    progress("")
    checks = check_machine(facts)
    text = json.dumps(as_document(facts, checks), indent=2) if options.json else render(facts, checks)
    sys.stdout.write(text + "\n")
    return 1 if any(check.state == "warning" for check in checks) else 0


# Looking


def examine(python: str, seconds: float, store: Path | None, progress: Callable[[str], None]) -> MachineFacts:
    """Probe the interpreter and repeat the canary for so many seconds, three times at least."""
    from ..agent_process import Limits
    from ..agent_role import AgentRole, RunningAgents
    from ..artifacts import default_store_root
    from ..targets.interpreter import InterpreterTarget
    from .checks import MachineFacts
    from .watch import MachineWatch

    running = RunningAgents()
    target = InterpreterTarget(python)
    with tempfile.TemporaryDirectory(prefix="inference-gate-doctor-") as logs:
        role = AgentRole(target, Limits(), Path(logs), running)
        try:
            progress("asking the interpreter what it can run")
            role.ask("runtime")
            busy = _ProcessorTimes()
            with MachineWatch(role) as watch:
                start = time.monotonic()
                while watch.read() is not None:
                    passed = time.monotonic() - start
                    if passed >= seconds and len(watch.readings) >= FEWEST_READINGS:
                        break
                    progress(f"measuring how steady it is: {min(passed, seconds):.1f} of {seconds:g} s")
                processes = busy.busiest(but={watch.pid})
        finally:
            running.close()
    folder = store or default_store_root()
    return MachineFacts(
        python=target.name,
        python_version=role.probe.get("python"),
        device=role.probe["device"],
        backends=role.probe["backends"],
        readings=watch.readings,
        processes=processes,
        store=_short(folder),
        store_free_bytes=_free_bytes(folder),
        remarks=tuple(watch.remarks),
    )


class _ProcessorTimes:
    """Processor time of every process from now on. This one's does not count."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._before = self._read()

    @staticmethod
    def _read() -> dict[tuple[int, float], tuple[float, Mapping[str, Any]]] | None:
        import psutil

        found: dict[tuple[int, float], tuple[float, Mapping[str, Any]]] = {}
        try:
            for process in psutil.process_iter(["pid", "name", "cmdline", "create_time", "cpu_times"]):
                times = process.info["cpu_times"]
                if times is not None:
                    found[process.info["pid"], process.info["create_time"]] = (times.user + times.system, process.info)
        except (psutil.Error, OSError):
            return None
        return found

    def busiest(self, but: set[int | None]) -> list[BusyProcess] | None:
        import os

        from .checks import BusyProcess

        after, elapsed = self._read(), time.monotonic() - self._start
        if self._before is None or after is None:
            return None
        used = [
            BusyProcess(pid, _process_name(info), (seconds - self._before.get((pid, created), (0.0, {}))[0]) / elapsed)
            for (pid, created), (seconds, info) in after.items()
            if pid not in but and pid != os.getpid()
        ]
        named = [one for one in used if one.cores >= WORTH_NAMING]
        return sorted(named, key=lambda one: -one.cores)[:BUSIEST]


def _process_name(info: Mapping[str, Any]) -> str:
    words = info.get("cmdline") or []
    text = " ".join([Path(words[0]).name, *words[1:]]) if words else str(info.get("name") or "unknown")
    text = " ".join(text.split())
    return text if len(text) <= 36 else text[:35] + "…"


def _short(folder: Path) -> str:
    """With ``~`` for the user's own directory."""
    try:
        return str(Path("~") / folder.absolute().relative_to(Path.home()))
    except (ValueError, RuntimeError):  # elsewhere, or nobody's home is known
        return str(folder)


def _free_bytes(folder: Path) -> int | None:
    """Of the file system on which the folder is, or will be."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def _show_progress(text: str) -> None:
    sys.stderr.write(f"\r\033[K{text}")
    sys.stderr.flush()


def _show_nothing(text: str) -> None:
    del text


# Showing


def render(facts: MachineFacts, checks: Sequence[Check]) -> str:
    """What the command prints: at most 80 columns wide, but for commands, which are never broken."""
    identity = facts.identity
    kind = identity.kind.replace("-", " ")
    system = ", ".join(str(facts.device[key]) for key in ("os", "kernel") if facts.device.get(key))
    lines = [
        f"device   {identity.id}",
        *_wrapped(
            f"         {identity.cpu_model or identity.board or 'unknown processor'}, {kind}; {system or 'unknown system'}", 9
        ),
        *_wrapped(f"python   {facts.python_version or 'unknown'}, {facts.python}", 9),
        "",
    ]
    for check in checks:
        lines += _wrapped(f"{check.state:<8} {check.name:<17} {check.finding}", _COLUMN)
        for detail in check.details:
            lines += _wrapped(" " * _COLUMN + detail, _COLUMN + 2)
        if check.state == "warning":
            lines += _wrapped(f"{' ' * 9}{check.advice}", 9)
            lines += [f"{' ' * 11}{'$ ' if not command.startswith(' ') else '  '}{command}" for command in check.commands]
    lines += ["", _summary(checks)]
    return "\n".join(line.rstrip() for line in lines)


def _summary(checks: Sequence[Check]) -> str:
    warnings, unknown, good = (sum(check.state == state for check in checks) for state in ("warning", "unknown", "ok"))
    things = f"{warnings} thing{'' if warnings == 1 else 's'} to change" if warnings else "nothing to change"
    return f"{things}, {unknown} unknown, {good} in order"


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def as_document(facts: MachineFacts, checks: Sequence[Check]) -> dict[str, Any]:
    """The same as plain JSON."""
    return {
        "schema": SCHEMA,
        "device": {"id": facts.identity.id, **facts.identity.as_dict()},
        "checks": [asdict(check) for check in checks],
        "facts": asdict(facts),
    }
