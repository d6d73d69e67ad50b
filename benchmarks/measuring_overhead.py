"""Does the agent's way of measuring add anything to what it measures?

The same .tflite model runs in two fresh processes: an agent, asked for rounds by its ``measure`` verb, and a plain script with the bare
loop that anyone would write around ``interpreter.invoke()``. The two take turns in the order ABBA, so that what drifts meets both alike. A
block gives the ratio of medians (agent / plain); a pair of processes gives the median of its blocks; the answer is the median of the pairs.

    python benchmarks/measuring_overhead.py [--model model.tflite] [--pairs 8] [--blocks 20] [--rounds 50] [--threads 1] [--pictures 1]

With ``--pictures 20`` both go through as many pictures in turn, each set by ``set_tensor`` before the clock is read.

Needs ai-edge-litert, tflite-runtime or TensorFlow; and TensorFlow to convert a seeded MobileNetV2, where no model is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy

try:
    import pytest_inference_gate  # noqa: F401
except ImportError:  # run from a clone, uninstalled
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins"))

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.targets.interpreter import InterpreterTarget

PLAIN = """
import json, statistics, sys, time
import numpy
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter

interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]))
interpreter.allocate_tensors()
details = interpreter.get_input_details()[0]
report = lambda value: print(json.dumps(value), file=answers, flush=True)
answers, sys.stdout = sys.stdout, sys.stderr
report({"shape": details["shape"].tolist()})
pictures = numpy.load(sys.stdin.readline().strip()).reshape(-1, *details["shape"])
scale, zero_point = details["quantization"]
def put(picture):
    interpreter.set_tensor(details["index"], (picture / scale + zero_point if scale else picture).astype(details["dtype"]))
put(pictures[0])
for line in sys.stdin:
    durations = []
    for number in range(int(line)):
        if len(pictures) > 1:
            put(pictures[number % len(pictures)])
        start = time.perf_counter_ns()
        interpreter.invoke()
        durations.append(time.perf_counter_ns() - start)
    report(statistics.median(durations) * 1e-9)
"""


class Plain:
    """The plain script, running."""

    def __init__(self, model: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PLAIN, str(model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.shape: list[int] = self._answer()["shape"]

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the plain script ended with status {self._process.wait()}")
        return json.loads(line)

    def tell(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def median_of(self, rounds: int) -> float:
        self.tell(rounds)
        return float(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def agent_median(agent: AgentProcess, pictures: Path, rounds: int, count: int) -> float:
    rule = {"minimum": rounds, "minimum_seconds": 0.0, "maximum": rounds}
    wish = {"inputs": str(pictures), "warmup": None, "rounds": rule, "pictures": count}
    rounds_taken: list[float] = agent.measure(wish)["rounds"]
    return median(rounds_taken)


def convert_seeded(directory: Path) -> Path:
    request = {
        "backend": "tflite",
        "precision": "fp32",
        "batch": 1,
        "source": {
            "format": "seeded",
            "path": None,
            "architecture": {"function": "keras.applications.MobileNetV2", "arguments": {"alpha": 0.35}},
            "seed": 1,
            "inputs": [],
            "outputs": [],
        },
        "input": {"shape": [96, 96, 3], "dtype": "float32", "layout": "nhwc"},
        "calibration": None,
        "output_directory": str(directory),
    }
    with InterpreterTarget().start_agent(directory / "convert.log", Limits()) as agent:
        return directory / str(agent.convert(request)["model"])


def one_pair(model: Path, directory: Path, options: argparse.Namespace, number: int) -> tuple[list[float], float]:
    """The ratios of the pair's blocks, and the plain script's median in seconds."""
    plain = Plain(model, options.threads)
    batch, *shape = plain.shape
    pictures = directory / "picture.npy"
    numpy.save(pictures, numpy.random.default_rng(0).uniform(-1, 1, (options.pictures * batch, *shape)).astype(numpy.float32))
    plain.tell(pictures)
    try:
        with InterpreterTarget().start_agent(directory / "agent.log", Limits()) as agent:
            agent.load(
                {
                    "backend": "tflite",
                    "precision": "as it is",
                    "model": str(model),
                    "threads": options.threads,
                    "batch": batch,
                    "input": {"shape": shape, "dtype": "float32", "layout": "nhwc"},
                }
            )

            def agents() -> float:
                return agent_median(agent, pictures, options.rounds, options.pictures)

            def plains() -> float:
                return plain.median_of(options.rounds)

            for _ in range(4):  # warm up
                agents()
                plains()
            ratios, plain_medians = [], []
            for block in range(options.blocks):
                order = (agents, plains, plains, agents) if (block + number) % 2 == 0 else (plains, agents, agents, plains)
                results = [(act, act()) for act in order]
                plain_medians += [value for act, value in results if act is plains]
                ratios.append(sum(value for act, value in results if act is agents) / sum(plain_medians[-2:]))
    finally:
        plain.close()
    return ratios, median(plain_medians)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help=".tflite file (default: a seeded MobileNetV2, converted here)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of fresh processes (default: 8)")
    parser.add_argument("--blocks", type=int, default=20, help="ABBA blocks in each pair (default: 20)")
    parser.add_argument("--rounds", type=int, default=50, help="rounds in each turn (default: 50)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the interpreter (default: 1)")
    parser.add_argument("--pictures", type=int, default=1, help="pictures that the rounds go through in turn (default: 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = options.model.resolve() if options.model else convert_seeded(directory)
        pairs = []
        for number in range(options.pairs):
            ratios, plain = one_pair(model, directory, options, number)
            low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
            pairs.append(median(ratios))
            spread = f"middle half of blocks {low:.4f} .. {high:.4f}"
            print(f"pair {number + 1}: plain loop {plain * 1e3:.4f} ms, agent / plain {pairs[-1]:.4f} ({spread})", flush=True)
    print(f"agent / plain: {median(pairs):.4f}, pairs {min(pairs):.4f} .. {max(pairs):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
