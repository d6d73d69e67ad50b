"""What does a stream cost beside its model?

Fresh processes take turns over the same generated video: an agent, asked for frames by its ``stream`` verb, and plain scripts
around OpenCV. What is compared is the median over frames of the time without the model's inference, from one frame to the next.

* ``alone``: ``capture.read()`` and ``cv2.resize()``, nothing else;
* ``between``: the same, with the model's inference between two frames and its time taken off: what an inference does to the
  caches, and with them to the decoding after it, is then in both sides;
* ``same``: the work of the stream in the plainest way: ``cvtColor``, ``astype(float32) / 255``, ``set_tensor``, ``get_tensor``,
  ``argmax``.

The stream's figure holds all that it does: decoding, resizing, the colours' order, the scaling to float, filling the model's
input, reading its answer, the measuring itself. overhead = stream / script - 1.

    python benchmarks/stream_overhead.py [--model model.tflite] [--codec mp4 | avi] [--blocks 20] [--frames 150] [--threads 1]

Needs OpenCV and ai-edge-litert (or tflite-runtime, TensorFlow); and TensorFlow to convert the card's model, where no model is
given.
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

from demo_video import write_video

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.cards import ModelCard, load_card
from pytest_inference_gate.targets.interpreter import InterpreterTarget

MODELS = Path(__file__).resolve().parent.parent / "models"
PLAIN = """
import json, statistics, sys, time
import cv2, numpy
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter

path, model, threads, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
answers, sys.stdout = sys.stdout, sys.stderr
cv2.setNumThreads(threads)
interpreter = Interpreter(model_path=model, num_threads=threads)
interpreter.allocate_tensors()
(source,), target = interpreter.get_input_details(), interpreter.get_output_details()[0]
_, height, width, channels = source["shape"]
scale, zero_point = source["quantization"]
colours = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY
clock = time.perf_counter
for line in sys.stdin:
    wanted, seconds = int(line), []
    while len(seconds) < wanted:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
        while len(seconds) < wanted:
            start = clock()
            ok, frame = capture.read()
            if not ok:
                break
            small = cv2.resize(frame, (width, height))
            if mode == "same":
                picture = cv2.cvtColor(small, colours).reshape(1, height, width, channels)
                picture = picture.astype(numpy.float32) / numpy.float32(255)
                if scale:
                    picture = numpy.clip(numpy.rint(picture / scale + zero_point), -128, 255).astype(source["dtype"])
                interpreter.set_tensor(source["index"], picture)
            prepared = clock()
            if mode != "alone":
                interpreter.invoke()
            inferred = clock()
            if mode == "same":
                interpreter.get_tensor(target["index"]).argmax()
            seconds.append(clock() - inferred + prepared - start)
    print(json.dumps(statistics.median(seconds)), file=answers, flush=True)
"""
MODES = ("alone", "between", "same")


class Plain:
    """A plain script, running; ``mode`` of :data:`MODES`."""

    def __init__(self, video: Path, model: Path, threads: int, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PLAIN, str(video), str(model), str(threads), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds_a_frame(self, frames: int) -> float:
        """The median over frames, without inference."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{frames}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the plain script ended with status {self._process.wait()}")
        return float(json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def convert(card: ModelCard, precision: str, directory: Path) -> Path:
    """The card's model as a .tflite file."""
    told = card.checkpoint
    request = {
        "backend": "tflite",
        "precision": precision,
        "batch": 1,
        "source": {
            "format": told.format,
            "path": None if told.file is None else str(card.directory / told.file),
            "architecture": told.architecture.model_dump() if told.architecture else None,
            "seed": told.seed,
            "inputs": told.inputs,
            "outputs": told.outputs,
        },
        "input": input_of(card),
        "calibration": None,
        "output_directory": str(directory),
    }
    if "int8" in precision:  # seeded pictures: nobody asks how accurate it is
        shape = (32, *card.input.shape)
        request["calibration"] = str(directory / "calibration.npy")
        numpy.save(directory / "calibration.npy", numpy.random.default_rng(0).uniform(0, 1, shape).astype(numpy.float32))
    with InterpreterTarget().start_agent(directory / "convert.log", Limits()) as agent:
        return directory / str(agent.convert(request)["model"])


def input_of(card: ModelCard) -> dict[str, Any]:
    return {"shape": list(card.input.shape), "dtype": card.input.dtype, "layout": card.input.layout}


def stream_request(card: ModelCard, video: Path, frames: int) -> dict[str, Any]:
    preprocessing = {**card.preprocessing.model_dump(), "resize": "resize", "interpolation": "bilinear"}
    return {
        "source": {"kind": "video", "path": str(video), "frame_rate": None, "maximum_frames": frames},
        "preprocessing": {**preprocessing, "scaling": "zero_to_one", "maximum": 255.0},
        "input": input_of(card),
        "overlap": False,
        "pace": "none",
        "warmup": None,
        "frames": {"minimum": frames, "maximum": frames},
    }


def stream_seconds(agent: AgentProcess, request: dict[str, Any]) -> tuple[float, float]:
    """Seconds a frame of everything but the inference, and of the inference: medians over frames.

    A frame goes on until the next one begins.
    """
    found = agent.stream(request)
    begins, inferences = found["begins"], found["stages"]["infer"]
    frames = [after - before - one for before, after, one in zip(begins, begins[1:], inferences, strict=False)]
    return median(frames), median(inferences)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--card", type=Path, default=MODELS / "mobilenet_v2_224_seeded.toml", help="the model (default: seeded MobileNetV2)"
    )
    parser.add_argument("--precision", default="fp32", help="of the .tflite file that is made of it (default: fp32)")
    parser.add_argument("--model", type=Path, help=".tflite file of that card, if it is there already")
    parser.add_argument("--codec", choices=("mp4", "avi"), default="mp4", help="mp4v in .mp4, or MJPG in .avi (default: mp4)")
    parser.add_argument("--blocks", type=int, default=20, help="turns of each (default: 20, there and back)")
    parser.add_argument("--frames", type=int, default=150, help="frames of the video, and in each turn (default: 150)")
    parser.add_argument("--threads", type=int, default=1, help="threads of interpreter and OpenCV (default: 1)")
    options = parser.parse_args()
    card = load_card(options.card)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        video = directory / f"scene.{options.codec}"
        write_video(video, options.frames)
        model = options.model.resolve() if options.model else convert(card, options.precision, directory)
        plain = {mode: Plain(video, model, options.threads, mode) for mode in MODES}
        request = stream_request(card, video, options.frames)
        load = {"backend": "tflite", "precision": "as it is", "model": str(model), "threads": options.threads, "batch": 1}
        rows = []
        try:
            with InterpreterTarget().start_agent(directory / "agent.log", Limits()) as agent:
                agent.load({**load, "input": request["input"]})
                for block in range(-1, options.blocks):  # the first one warms up
                    order = ["stream", *MODES] if block % 2 == 0 else [*reversed(MODES), "stream"]
                    row = {}
                    for who in order:
                        if who == "stream":
                            row[who], row["inference"] = stream_seconds(agent, request)
                        else:
                            row[who] = plain[who].seconds_a_frame(options.frames)
                    if block >= 0:
                        rows.append(row)
                        print(", ".join(f"{who} {1e3 * row[who]:.3f} ms" for who in ("stream", *MODES)), flush=True)
        finally:
            for one in plain.values():
                one.close()

    def told(name: str, ratios: list[float]) -> None:
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        print(
            f"{name}: {100 * (median(ratios) - 1):+.1f} % (middle half of blocks {100 * (low - 1):+.1f} .. {100 * (high - 1):+.1f} %)"
        )

    inference = 1e3 * median(row["inference"] for row in rows)
    print(f"{card.name} {options.precision}, {options.codec}: the model's inference takes {inference:.3f} ms a frame")
    told("the stream's overhead over decode and resize alone", [row["stream"] / row["alone"] for row in rows])
    told("over decode and resize with the inference between", [row["stream"] / row["between"] for row in rows])
    told("over the same work in the plainest way", [row["stream"] / row["same"] for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
