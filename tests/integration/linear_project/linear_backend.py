"""A backend for the tests of the gate: a linear classifier in NumPy, in the agent's own process, with real rounds.

Its artifact is a small JSON file, which tests can change in order to make a model slower, damaged or unloadable: ``work`` repeats
the product, so that an inference takes that many times as long; ``pause`` are seconds that it takes besides. ``log`` names a file that
gets a line for each conversion, and
``wait_for`` one for which the conversion waits, for
``patience`` seconds at most. ``recorded`` names a folder of recorded distributions, which take the place of this
machine's clock. ``coverage`` is what the runtime tells of its accelerator, ``converted`` what the converter does, ``remarks`` what it
remarks. ``builds`` holds what is different with one conversion after the other (the last one stands for all that come later): a builder
that makes another model of the same each time; ``factor`` slows its recorded clock down, and ``gains`` speeds it up, by precision and
number of threads. ``wrecked`` lists precisions in which the model sees nothing any more. ``other`` holds what is different with the
other one of two software stacks.
"""

import fcntl
import json
import os
import signal
import sys
import time

import numpy

NAME = "linear"
STACK = os.environ.get("LINEAR_STACK", "this")  # what stands for another environment sets it
PRECISIONS = ["fp32", "int8"]
MODEL = "model.json"


def availability(packages):
    missing = os.environ.get("LINEAR_MISSING")
    return {
        "available": not missing,
        "can_convert": True,
        "can_run": not missing,
        "precisions_convert": PRECISIONS,
        "precisions_run": PRECISIONS,
        "runtime": {"name": "numpy", "version": numpy.__version__},
        "converter": {"numpy": numpy.__version__, "linear": STACK},
        "source_formats": ["other"],
        "reason": "the linear runtime is not installed" if missing else "",
    }


def runtime():
    return {"name": "numpy", "version": numpy.__version__}


def hog():
    """Take memory, a piece at a time, until somebody stops it; what tests run on shall survive a limit that fails."""
    pieces = []
    while len(pieces) < 12:
        pieces.append(b"x" * (64 << 20))
        time.sleep(0.02)
    hang()


def hang():
    while True:
        time.sleep(1)


def read(path):
    with open(path) as stream:
        source = json.load(stream)
    return dict(source, **source.get("other", {})) if STACK == "other" else source


class RecordedClock:
    """A clock that moves by what was recorded, and only while the model runs.

    ``<folder>/<stack>.json`` holds the medians of one process after the other, in seconds; the last one is of all that come later. The
    rounds of a process lie evenly within one percent of its median.
    """

    def __init__(self, folder, factor):
        with open(os.path.join(folder, STACK + ".json")) as stream:
            medians = json.load(stream)
        with open(os.path.join(folder, STACK + ".taken"), "a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            taken = len(stream.read())
            stream.write("x")
        self.median = factor * medians[min(taken, len(medians) - 1)]
        self.seconds = 1.0
        self.rounds = 0
        measure = sys.modules["inference_gate_agent.measure"]
        measure.best_clock = lambda: measure.Clock(lambda: self.seconds, 1.0, "recorded")

    def pass_one_round(self):
        self.seconds += self.median * (1 + 0.005 * (self.rounds % 3 - 1))
        self.rounds += 1


def convert(request, progress):
    source = read(request["source"]["path"])
    if "log" in source:
        with open(source["log"], "a") as stream:
            stream.write(f"{os.getpid()}\n")
    end = time.monotonic() + source.get("patience", float("inf"))
    while "wait_for" in source and not os.path.exists(source["wait_for"]):
        if time.monotonic() > end:
            raise ValueError("nobody came")
        time.sleep(0.02)
    if source.get("convert") == "hog":
        hog()
    if source.get("convert") == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if source.get("convert") == "fail":
        raise ValueError("the converter does not know this layer")
    if "builds" in source:
        with open(source["built"], "a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            number = len(stream.read())
            stream.write("x")
        source.update(source["builds"][min(number, len(source["builds"]) - 1)], build=number)
    with open(os.path.join(request["output_directory"], MODEL), "w") as stream:
        json.dump(dict(source, precision=request["precision"]), stream)
    details = {"coverage": source.get("converted"), "remarks": source.get("remarks", [])}
    return {"model": MODEL, "converter": {"numpy": numpy.__version__}, "details": details}


class Runner:
    def __init__(self, model, precision, threads, batch, input):
        source = read(model)
        if source.get("load") == "fail":
            raise ValueError("Didn't find op for builtin opcode 'LINEAR' version '12'")
        if source.get("load") == "crash":
            os.kill(os.getpid(), signal.SIGABRT)
        if source.get("load") == "hang":
            hang()
        if source.get("load") == "hog":
            hog()
        self.weights = numpy.array(source["weights"], dtype=numpy.float32)
        if precision == "int8":
            self.weights = numpy.round(self.weights * 127 / numpy.abs(self.weights).max()) * numpy.abs(self.weights).max() / 127
        self.work = int(source.get("work", 1))
        self.pause = source.get("pause", 0.0)
        self.recorded = source.get("recorded")
        self.told = source.get("coverage")
        self.factor = source.get("factor", 1.0) / source.get("gains", {}).get(precision, {}).get(str(threads), 1.0)
        if precision in source.get("wrecked", ()):
            self.weights = numpy.zeros_like(self.weights)
        self.clock = None
        self.inputs = [
            {"name": "x", "shape": [batch] + list(input["shape"]), "dtype": "float32", "scale": None, "zero_point": None}
        ]
        self.outputs = [
            {"name": "y", "shape": [batch, self.weights.shape[1]], "dtype": "float32", "scale": None, "zero_point": None}
        ]

    def set_inputs(self, array):
        self.x = array.reshape(len(array), -1)

    def infer(self):
        if self.pause:
            time.sleep(self.pause)
        for _ in range(self.work):
            self.y = self.x @ self.weights

    def prepared(self):
        if self.recorded is None:
            return self.infer
        if self.clock is None:
            self.clock = RecordedClock(self.recorded, self.factor)
        return self.clock.pass_one_round

    def coverage(self):
        return self.told

    def get_output(self):
        return self.y.astype(numpy.float32)
