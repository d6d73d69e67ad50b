"""Take the raw data of the proof: real models in real agents, round by round, for as long as there is time. Resumes where it stopped.

    python benchmarks/gate_power/collect.py --data DIR [--minutes 60] [--lock FILE]

Every line of ``DIR/pairs.jsonl`` is one pair of fresh processes: a candidate and a reference, each warmed up, then measured alone as a
replicate of the stored gate is, then in turns as a pair of the paired gate is. Where the candidate is slowed down by a known share,
the same process runs with each of the shares in turn, so that one pair serves a whole power curve. Nothing is decided here:
``report.py`` replays the gate's own rules, and those of other tools, on the very same rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

try:
    import pytest_inference_gate  # noqa: F401
except ImportError:  # run from a clone, uninstalled
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from scenarios import NONE, SCENARIOS, Scenario
from workload import Workload, prepare

from pytest_inference_gate.artifacts import default_store_root
from pytest_inference_gate.devices import Condition, local_identity
from pytest_inference_gate.paired_measuring import BlockPlan, Side
from pytest_inference_gate.preparation import load_arguments
from pytest_inference_gate.sweep import Plan

REPLICATE = Plan()
BLOCKS = BlockPlan()
PLAIN_ROUNDS = dict(REPLICATE.rounds)


class Collector:
    """Appends to the raw data, one session after the other."""

    def __init__(self, directory: Path, workload: Workload, control: Path, lock: Path | None) -> None:
        self._directory = directory
        self._workload = workload
        self._control = control
        self._lock = lock
        self._file = directory / "pairs.jsonl"
        self._machine = local_identity().id
        self.number = _cut_and_count(self._file)
        self._logs = 0

    def session(self, scenarios: list[Scenario]) -> None:
        """One session: the passes of each scenario, all of them in random order within a pass."""
        self.number += 1
        order = random.Random(self.number)
        for number in range(max(scenario.passes for scenario in scenarios)):
            taking_part = [scenario for scenario in scenarios if number < scenario.passes]
            order.shuffle(taking_part)
            for scenario in taking_part:
                with self._alone():
                    record = self._pair(scenario, number)
                with self._file.open("a") as stream:
                    stream.write(json.dumps(record, separators=(",", ":")) + "\n")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Others that hold the same lock while they are busy do not disturb, and are not disturbed."""
        if self._lock is None:
            yield
            return
        import fcntl

        with self._lock.open("a") as stream:
            fcntl.flock(
                stream, fcntl.LOCK_EX
            )  # waits in the queue of flock(1), which a loop that tries now and then never leaves
            yield
        time.sleep(0.1)  # let others have it

    def _set(self, control: Mapping[str, Any]) -> None:
        temporary = self._control.with_suffix(".new")
        temporary.write_text(json.dumps(control))
        temporary.replace(self._control)

    def _pair(self, scenario: Scenario, number: int) -> dict[str, Any]:
        start = time.time()
        sides = {"candidate": self._workload.sides[scenario.candidate], "reference": self._workload.sides[scenario.reference]}
        names = ["candidate", "reference"] if number % 2 == 0 else ["reference", "candidate"]
        self._set(NONE)
        agents: dict[str, Any] = {}
        record: dict[str, Any] = {
            "session": self.number,
            "scenario": scenario.name,
            "number": number,
            "time": start,
            "machine": self._machine,
        }
        levels = scenario.levels
        with contextlib.ExitStack() as stack:
            if scenario.disturbed(number):
                stack.enter_context(_busy_process())
            before = Condition.now()
            for name in names:
                side: Side = sides[name]
                self._logs += 1
                agent = agents[name] = stack.enter_context(side.role.start(f"{name}-{self._logs % 20}"))
                loaded = agent.load(load_arguments(side.case, side.artifact))
                first_control = levels[scenario.first] if name == "candidate" and scenario.first else NONE
                self._set(first_control)
                arguments = {"inputs": str(side.inputs.path), "warmup": dict(REPLICATE.warm_up)}
                result = agent.measure({**arguments, "rounds": PLAIN_ROUNDS})
                label = scenario.first if name == "candidate" and scenario.first else "0"
                replicates = {label: _nanoseconds(result["rounds"])}
                if name == "candidate":
                    for level in scenario.stored_levels:
                        self._set(levels[level])
                        rounds = agent.measure({**arguments, "warmup": None, "rounds": PLAIN_ROUNDS})["rounds"]
                        replicates[level] = _nanoseconds(rounds)
                record[name] = {
                    "load": loaded["seconds"],
                    "first_inference": result["first_inference"],
                    "steady": result["steady"],
                    "replicates": replicates,
                }
            slowest = max(median(next(iter(record[name]["replicates"].values()))) for name in names) / 1e9
            rounds = BLOCKS.rounds_of(slowest)
            record["rounds_of_block"] = rounds
            record["blocks"] = self._take_turns(scenario, number, agents, rounds)
            record["condition"] = {"before": before.as_dict(), "after": Condition.now().as_dict()}
        record["seconds"] = time.time() - start
        return record

    def _take_turns(self, scenario: Scenario, number: int, agents: Mapping[str, Any], rounds: int) -> dict[str, list[Any]]:
        """For each level, the medians of (the candidate's block, the reference's block) for each pair of neighbouring blocks, in ns.

        Each level has a reference block of its own beside it, and comes before it as often as behind it: A B B A, as in the gate.
        """
        taken: dict[str, list[Any]] = {level: [] for level in scenario.levels}
        for block in range(BLOCKS.pairs):
            forward = (block + number) % 2 == 0
            sequence = [
                (level, is_level) for place, level in enumerate(scenario.levels) for is_level in (place % 2 == 0, place % 2 == 1)
            ]
            found: dict[tuple[str, bool], float] = {}
            for level, is_level in sequence if forward else sequence[::-1]:
                self._set(scenario.levels[level] if is_level else NONE)
                agent = agents["candidate" if is_level else "reference"]
                found[level, is_level] = median(_nanoseconds(agent.measure_block(rounds)))
            for level in scenario.levels:
                taken[level].append([found[level, True], found[level, False]])
        return taken


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    """Another program at work: it multiplies matrices that do not fit into the caches."""
    program = "import numpy\na = numpy.random.rand(1500, 1500)\nwhile True: a = a @ a; a /= a.max()"
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=one_thread)
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def _nanoseconds(durations: list[float]) -> list[int]:
    return [round(duration * 1e9) for duration in durations]


def _cut_and_count(path: Path) -> int:
    """The number of the last session; a line that was cut when the collector was killed is removed."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    lines = whole.splitlines()
    return int(json.loads(lines[-1])["session"]) if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the raw data; what is there is added to")
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60); the session at work is finished")
    parser.add_argument("--lock", type=Path, help="hold this file's lock while measuring")
    parser.add_argument("--store", type=Path, default=default_store_root(), help="where converted models are kept")
    options = parser.parse_args()
    directory: Path = options.data.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    control = directory / "control.json"
    control.write_text(json.dumps(NONE))
    workload = prepare(directory, options.store, control, lambda line: print(line, flush=True))
    machine = {
        "device": local_identity().as_dict(),
        "software": {"python": platform.python_version(), **workload.versions},
    }
    (directory / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")
    collector = Collector(directory, workload, control, options.lock)
    end = time.monotonic() + 60 * options.minutes
    by_turn = sorted({scenario.turn for scenario in SCENARIOS})
    print(f"measuring for {options.minutes:g} minutes into {directory}; stop it at any time with Ctrl-C", flush=True)
    try:
        while time.monotonic() < end:
            turn = by_turn[collector.number % len(by_turn)]  # goes on where it stopped
            start = time.monotonic()
            collector.session([scenario for scenario in SCENARIOS if scenario.turn == turn])
            left = max(0.0, end - time.monotonic()) / 60
            took = time.monotonic() - start
            print(f"session {collector.number} (turn {turn} of {by_turn[-1]}): {took:.0f} s; {left:.0f} min left", flush=True)
        return 0
    except KeyboardInterrupt:
        print("stopped; run it again to go on", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())
