"""How long the quantization grid takes: two digits models, five precisions of TensorFlow Lite, one and two threads.

    python benchmarks/quantization_grid.py

Runs the command of docs/how-to/compare-quantizations.md twice with a store and baselines of its own, in the environment of the interpreter
that runs this script (with the extra ``cpu``): first with an empty store, which saves a baseline, then with what the first run left,
compared with that baseline. Prints the wall times, where they went, what a process of a measurement took, and the second run's table.

The second run is to take less than five minutes on two cores. On a machine that is not quiet it may be red: that is told, and no failure
of the benchmark.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOAL = 300.0  # seconds


def run(folder: Path, name: str, select: str, threads: str, more: list[str]) -> tuple[float, dict[str, Any], str]:
    """One run: its wall time, its result, and what it ends with."""
    result = folder / f"{name}.json"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-m", "cpu", "-p", "no:cacheprovider"),
        *(f"--gate-select={select}", f"--gate-threads={threads}", "--gate-table=grid"),
        *(f"--gate-store={folder / 'store'}", f"--gate-baselines={folder / 'baselines'}", f"--gate-json={result}", *more),
    ]
    print(f"{name} store: {' '.join(command[1:])}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    document = json.loads(result.read_text()) if result.exists() else {}
    verdicts = document.get("summary", {}).get("verdicts", {})
    if done.returncode not in (0, 1) or not document or verdicts.get("broken"):
        sys.exit(f"the run with the {name} store failed:\n{done.stdout}{done.stderr}")
    return seconds, document, done.stdout.partition("= inference-gate =")[2].partition("\n")[2]


def told(name: str, seconds: float, document: dict[str, Any]) -> str:
    cases = document["cases"]
    phases = ", ".join(f"{phase} {spent:.1f} s" for phase, spent in document["phases"].items())
    processes = sum(len(case["latency"]["replicates"]) for case in cases)
    measuring = sum(case["latency"]["cost_seconds"] for case in cases)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in document["summary"]["verdicts"].items())
    return (
        f"{name} store: {seconds:.1f} s for {len(cases)} cases: {verdicts}\n"
        f"  {phases}\n"
        f"  {processes} processes measured, {measuring / processes:.2f} s each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", default="digits_*-tflite-*", help="the cases (default: %(default)s)")
    parser.add_argument("--threads", default="1,2", help="the numbers of threads (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cold, first, _ = run(place, "empty", arguments.select, arguments.threads, ["--benchmark-save=grid"])
        print(told("empty", cold, first), flush=True)
        warm, second, table = run(place, "warm", arguments.select, arguments.threads, ["--benchmark-compare"])
        print(told("warm", warm, second))
    print(
        f"warm / empty: {warm / cold:.2f}; the goal of {GOAL:.0f} s is {'met' if warm < GOAL else 'missed'}: {warm / GOAL:.2f} of it"
    )
    print(table)


if __name__ == "__main__":
    main()
