"""Three clocks on one inference: CUDA events, the agent's rounds, and a bare loop around the same module.

The same stored module runs in two processes: an agent, asked for blocks of rounds, and a plain script with the loop that anyone would
write around ``module(x); torch.cuda.synchronize()``. The two take turns in the order ABBA, so that what drifts meets both alike. A block
gives the ratio of medians (agent / bare), a pair of processes the median of its blocks; shown are the median of the pairs and their range.
Events are the agent's device rounds: from event to event in the stream around one call, with the gaps between kernels.

    python benchmarks/cuda_device/compare_clocks.py FOLDER [--device cuda] [--batch 1] [--pairs 5]
        [--blocks 20] [--rounds 50] [--json FILE]

FOLDER is what export_models.py wrote. Needs torch and onnx. With ``--device cpu`` there are no events, and fp32 alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy

try:
    import pytest_inference_gate  # noqa: F401
except ImportError:  # run from a clone, uninstalled
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "plugins"))

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.cards import ModelCard, load_cards
from pytest_inference_gate.targets.interpreter import InterpreterTarget

PLUGINS = Path(__file__).resolve().parent.parent.parent / "plugins"
PRECISIONS = {"cuda": ("fp32", "fp16"), "cpu": ("fp32",)}
WARMUP = {"minimum_rounds": 50, "minimum_seconds": 0.5, "maximum_seconds": 20.0, "window": 20, "agreement": 0.02}
BARE = """
import json, statistics, sys, time
sys.path.insert(0, sys.argv[1])
answers, sys.stdout = sys.stdout, sys.stderr
import numpy, torch
from pytest_inference_gate.agent import torch_device, torch_models

device = torch_device.use(torch, sys.argv[4], 1)
module = torch_models.build(torch, *torch_models.read(sys.argv[2]))
real = torch.float16 if sys.argv[3] == "fp16" else torch.float32
module = module.to(device=device, dtype=real)
x = torch.from_numpy(numpy.load(sys.argv[5])).to(device=device, dtype=real)
on_gpu = device.type == "cuda"
for line in sys.stdin:
    durations = []
    for _ in range(int(line)):
        start = time.perf_counter_ns()
        module(x)
        if on_gpu:
            torch.cuda.synchronize()
        durations.append(time.perf_counter_ns() - start)
    print(json.dumps(statistics.median(durations) * 1e-9), file=answers, flush=True)
"""


class BareLoop:
    """A process that does so many inferences on request and gives their median in seconds."""

    def __init__(self, model: Path, precision: str, device: str, picture: Path) -> None:
        arguments = [str(PLUGINS), str(model), precision, device, str(picture)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", BARE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def block(self, rounds: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{rounds}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the bare loop ended with status {self._process.wait()}")
        return float(json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def pair(start: Any, load: dict[str, Any], picture: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One agent and one bare loop in turns."""
    bare = BareLoop(Path(load["model"]), load["precision"], load["device"], picture)
    try:
        with start() as agent:
            agent.load(load)
            rule = {"minimum": options.rounds, "minimum_seconds": 0.0, "maximum": max(options.rounds, 100)}
            measured = agent.measure({"inputs": str(picture), "warmup": WARMUP, "rounds": rule})
            bare.block(measured["warmup_rounds"])
            ours, theirs, ratios = [], [], []
            for number in range(options.blocks):
                first = number % 2 == 0
                block = median(agent.measure_block(options.rounds)) if first else 0.0
                other = bare.block(options.rounds)
                block = block if first else median(agent.measure_block(options.rounds))
                ours.append(block)
                theirs.append(other)
                ratios.append(block / other)
    finally:
        bare.close()
    events = measured["device_rounds"]
    return {
        "agent": median(ours),
        "bare": median(theirs),
        "ratio": median(ratios),
        "events": median(events) if events else None,
        "steady": measured["steady"],
    }


def compare(card: ModelCard, precision: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All pairs of one case."""
    target = InterpreterTarget(sys.executable)

    def start() -> AgentProcess:
        return AgentProcess(target.command, scratch / "agent.log", Limits(), environment=target.environment())

    assert card.checkpoint.file is not None
    input_settings = {"shape": list(card.input.shape), "dtype": card.input.dtype, "layout": card.input.layout}
    common = {
        "backend": "torch",
        "precision": precision,
        "batch": options.batch,
        "device": options.device,
        "input": input_settings,
    }
    directory = scratch / f"{card.name}-{precision}"
    directory.mkdir()
    source = {"format": "onnx", "path": str(card.directory / card.checkpoint.file), "architecture": None, "seed": None}
    with start() as agent:
        made = agent.convert({**common, "source": source, "calibration": None, "output_directory": str(directory), "options": {}})
    picture = scratch / f"{card.name}.npy"
    numpy.save(picture, numpy.random.default_rng(1).uniform(0, 1, (options.batch, *card.input.shape)).astype(numpy.float32))
    load = {**common, "model": str(directory / made["model"]), "threads": 1, "options": {}}
    pairs = [pair(start, load, picture, options) for _ in range(options.pairs)]
    return {"model": card.name, "precision": precision, "device": options.device, "batch": options.batch, "pairs": pairs}


def row(result: dict[str, Any]) -> str:
    def of(key: str) -> float:
        return float(median(one[key] for one in result["pairs"]))

    ratios = sorted(one["ratio"] for one in result["pairs"])
    events = of("events") if result["pairs"][0]["events"] is not None else None
    cells = [
        f"{result['model']:<26}",
        f"{result['precision']:<5}",
        f"{of('agent') * 1e3:9.4f}",
        f"{of('bare') * 1e3:9.4f}",
        f"{of('ratio'):7.4f} ({ratios[0]:.4f} to {ratios[-1]:.4f})",
        f"{events * 1e3:9.4f}" if events is not None else f"{'-':>9}",
        f"{events / of('agent'):7.4f}" if events is not None else f"{'-':>7}",
    ]
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=list(PRECISIONS), default="cuda")
    parser.add_argument("--models", nargs="+", help="names of cards; default: all in FOLDER")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every pair's figures")
    options = parser.parse_args()
    cards = [card for card in load_cards(options.folder) if not options.models or card.name in options.models]
    if not cards:
        parser.error(f"there is no such card in {options.folder}; export_models.py writes some")
    print("Milliseconds, medians; agent/bare: median of the pairs (least to largest).")
    print(f"{'model':<26}  {'':<5}  {'agent':>9}  {'bare loop':>9}  {'agent/bare':<26}  {'events':>9}  events/agent")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for card in cards:
            for precision in PRECISIONS[options.device]:
                results.append(compare(card, precision, options, Path(scratch)))
                print(row(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
