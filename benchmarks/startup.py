"""What the plugin costs before the first measurement: ``python benchmarks/startup.py [--rounds N] [--whole-run]``.

Runs in turn, each in a fresh process:

gate   ``pytest --collect-only -m cpu`` in this repository, where the plugin reads the model cards and makes the test ids
plain  the same command on one empty test in an empty folder with the plugin switched off: pytest and pytest-benchmark alone
       (and whatever other plugins are installed, which are on both sides)

and prints the medians of wall time and peak memory and their ratio. Then it lists the machine-learning frameworks that are in
``sys.modules`` when a gate run ends; there must be none, since they belong into the agents. With ``--whole-run`` that run is
``pytest -m cpu``, which measures, instead of the collection. Exits 1 if there is a framework, 2 if a command fails.

The plugin must be installed (``pip install -e .``), so that pytest finds it by its entry point as it does at a user's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = "inference_gate"
COLLECT = ["--collect-only", "-q", "-m", "cpu", "-p", "no:cacheprovider"]
FRAMEWORKS = [
    "tensorflow",
    "keras",
    "tf2onnx",
    "tflite_runtime",
    "ai_edge_litert",
    "onnx",
    "onnxruntime",
    "torch",
    "torch2trt",
    "tensorrt",
    "pycuda",
    "jax",
    "scipy",
    "sklearn",
]
EMPTY_TEST = """\
import pytest

@pytest.mark.cpu
def test_empty():
    pass
"""
MODULE_LISTER = """\
import json, os, pathlib, sys
import pytest

@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    pathlib.Path(os.environ["STARTUP_MODULES"]).write_text(json.dumps(sorted(sys.modules)))
"""


class CommandFailedError(Exception):
    """A pytest run that was to succeed and did not; the message is for the user."""


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_bytes: int


def run(arguments: Sequence[str], directory: Path, environment: Mapping[str, str], allowed: Sequence[int] = (0,)) -> Cost:
    """One ``pytest`` process from start to end. ``peak_bytes`` is its own largest resident set, without its children's."""
    with tempfile.TemporaryFile() as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in allowed:
            log.seek(0)
            tail = log.read().decode(errors="replace")[-2000:]
            raise CommandFailedError(
                f"`pytest {' '.join(arguments)}` in {directory} ended with status {process.returncode}:\n{tail}"
            )
    kilobyte = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes but for macOS
    return Cost(seconds, usage.ru_maxrss * kilobyte)


def compare(rounds: int, empty: Path, environment: Mapping[str, str]) -> None:
    commands = {"plain": ([*COLLECT, "-p", f"no:{PLUGIN}"], empty), "gate": (COLLECT, REPOSITORY)}
    for arguments, directory in commands.values():
        run(arguments, directory, environment)  # fills the disk cache and __pycache__, not counted
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds):
        # The order turns round each time, so that neither side always follows the other.
        for name in sorted(commands, reverse=bool(number % 2)):
            costs[name].append(run(*commands[name], environment))
    for name in commands:
        seconds = [cost.seconds for cost in costs[name]]
        peak = statistics.median(cost.peak_bytes for cost in costs[name])
        print(
            f"{name:<6} {statistics.median(seconds):6.3f} s (from {min(seconds):.3f} to {max(seconds):.3f}, {rounds} runs), "
            f"peak memory {peak / 2**20:5.1f} MiB"
        )
    time_ratio = statistics.median(
        gate.seconds / plain.seconds for gate, plain in zip(costs["gate"], costs["plain"], strict=True)
    )
    peak_ratio = statistics.median(
        gate.peak_bytes / plain.peak_bytes for gate, plain in zip(costs["gate"], costs["plain"], strict=True)
    )
    print(f"gate / plain, median of the pairs: wall time {time_ratio:.2f}, peak memory {peak_ratio:.2f}")


def frameworks_at_end(scratch: Path, environment: Mapping[str, str], whole_run: bool) -> list[str]:
    """The frameworks among the modules of a gate run's own process, at its very end."""
    (scratch / "startup_module_lister.py").write_text(MODULE_LISTER)
    listing = scratch / "modules.json"
    python_path = os.pathsep.join(filter(None, [str(scratch), environment.get("PYTHONPATH")]))
    arguments = ["-m", "cpu"] if whole_run else COLLECT
    run(
        [*arguments, "-p", "startup_module_lister"],
        REPOSITORY,
        {**environment, "PYTHONPATH": python_path, "STARTUP_MODULES": str(listing)},
        allowed=(0, 1) if whole_run else (0,),  # a red gate is not what is asked about here
    )
    loaded = {name.partition(".")[0] for name in json.loads(listing.read_text())}
    return [name for name in FRAMEWORKS if name in loaded]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each side (default: %(default)s)")
    parser.add_argument("--whole-run", action="store_true", help="look for frameworks after `pytest -m cpu`")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not importlib.metadata.entry_points(group="pytest11", name=PLUGIN):
        print(f"pytest does not know the plugin {PLUGIN!r} here: run `pip install -e .` in {REPOSITORY} first", file=sys.stderr)
        return 2

    # Options that the caller keeps in the environment would be paid for by one side or the other.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty")
        empty.mkdir()
        (empty / "test_empty.py").write_text(EMPTY_TEST)
        (empty / "pytest.ini").write_text("[pytest]\nmarkers = cpu\n")
        try:
            compare(arguments.rounds, empty, environment)
            loaded = frameworks_at_end(Path(folder), environment, arguments.whole_run)
        except CommandFailedError as error:
            print(error, file=sys.stderr)
            return 2
    what = "a whole run" if arguments.whole_run else "the collection"
    print(f"ML frameworks in sys.modules after {what}: {', '.join(loaded) or 'none'}")
    return 1 if loaded else 0


if __name__ == "__main__":
    raise SystemExit(main())
