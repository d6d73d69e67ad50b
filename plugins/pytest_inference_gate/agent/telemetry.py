"""Power, temperatures and clocks beside a piece of work, taken by a process of its own. Python 3.6, standard library only.

The process that measures must not be disturbed, so that it only starts another one before and asks it afterwards. That one reads a few
files of /sys four times a second, or listens to ``tegrastats`` or ``nvidia-smi``, at low priority, keeps what it finds in memory, and ends
when its standard input does: with its parent at the latest. Nothing here ever fails a measurement: what goes wrong is a sentence.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple  # noqa: F401

from . import power_rails, tegrastats
from .device_facts import thermal_zones
from .device_files import is_here
from .jetson_facts import gpu_clocks, memory_clock

Facts = Dict[str, Any]

INTERVAL_SECONDS = 0.25
SHORTEST_INTERVAL = 0.05
# The process that samples has little priority, and a busy machine keeps it waiting. It loses its own patience before whoever waits
# for it.
PATIENCE_SECONDS = 16.0
SECONDS_FOR_HELP = 8.0
SECONDS_FOR_A_START = 30.0  # and for its end
MOST_SAMPLES = 50000  # three hours and a half
SAMPLES_PER_TEMPERATURE = 4  # temperatures are slow, and each costs a call to the firmware
ABSENT_INTERVALS = 4  # from so many intervals without a sample on, something held the sampler up

SOURCES = ("sysfs", "tegrastats", "nvidia-smi")

# So many replicates of a case tell what an inference takes of power: each goes on for two seconds, and shows the same as the others.
REPLICATES_WITH_TELEMETRY = 3


def telemetry_wish(facts, device):
    # type: (Facts, str) -> Optional[Dict[str, str]]
    """How power is sampled after a measurement of a case on ``device``, as ``measure`` takes it; None: not at all.

    A board that shows the power of its rails does so for every case. A discrete GPU tells its own, beside the cases that run on it.
    """
    if facts.get("power_rails") or facts.get("jetson"):
        return {}
    if device == "cuda" and any(gpu.get("problem") is None for gpu in facts.get("gpus") or ()):
        return {"source": "nvidia-smi"}
    return None


# In the process that measures


class Sampler:
    """Starts and ends the process that samples. Between the two, the process that uses it does nothing for it."""

    def __init__(self, interval=INTERVAL_SECONDS, source=None, root="/"):
        # type: (float, Optional[str], str) -> None
        self.interval = max(float(interval), SHORTEST_INTERVAL)
        self.source = source
        self.root = root
        self.problem = None  # type: Optional[str]
        self._process = None  # type: Any
        self._rest = b""

    def start(self):
        # type: () -> None
        """Come back when the first sample is there, or when there will be none; never raises for what is missing."""
        if os.name != "posix":
            self.problem = "power and temperatures are sampled on Linux only"
            return
        command = [sys.executable, "-u", "-I", "-S", _agent(), "--sample-telemetry", "--interval=%r" % self.interval]
        command += ["--root=" + self.root] + (["--source=" + self.source] if self.source else [])
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            self.problem = "the process that samples power and temperatures did not start: %s" % error
            return
        line = self._first_line(time.monotonic() + SECONDS_FOR_A_START)
        greeting = _message(line)
        if greeting is None:
            self._end("the process that samples power and temperatures did not begin within %g s" % SECONDS_FOR_A_START)
        elif greeting.get("problem"):
            self._end(str(greeting["problem"]))
        else:
            self.source = greeting["source"]

    def stop(self):
        # type: () -> Facts
        """``source``, ``interval`` in seconds, ``samples`` and ``problem`` (None where all went well)."""
        samples = []  # type: List[Facts]
        process, self._process = self._process, None
        if process is not None:
            try:
                output = self._rest + process.communicate(timeout=SECONDS_FOR_A_START)[0]  # closes its input, which ends it
            except (OSError, ValueError, subprocess.TimeoutExpired):
                process.kill()
                output = self._rest + process.communicate()[0]
            messages = [message for message in (_message(line) for line in output.split(b"\n")) if message]
            samples = [message for message in messages if "at" in message]
            ends = [message for message in messages if "end" in message]
            if ends:
                self.problem = ends[-1]["problem"]
            else:
                self.problem = "the process that samples power and temperatures ended early (status %s)" % process.returncode
        return {"source": self.source, "interval": self.interval, "samples": samples, "problem": self.problem}

    def _first_line(self, deadline):
        # type: (float) -> bytes
        received = b""
        output = self._process.stdout
        while b"\n" not in received:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                return b""
            piece = os.read(output.fileno(), 65536)
            if not piece:
                return b""
            received += piece
        line, _, self._rest = received.partition(b"\n")
        return line

    def _end(self, problem):
        # type: (str) -> None
        process, self._process = self._process, None
        self.problem = problem
        process.kill()
        process.communicate()


def _agent():
    # type: () -> str
    """The directory or the archive from which this agent runs, as something that Python can run again."""
    return os.path.dirname(os.path.abspath(__file__))


def _message(line):
    # type: (bytes) -> Optional[Facts]
    try:
        message = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


# In the process that samples


def main(arguments):
    # type: (List[str]) -> int
    """Print what is sampled as one line of JSON, the samples at the end of standard input, and how it ended."""
    options = dict(argument[2:].split("=", 1) for argument in arguments)
    interval, root = float(options.get("interval", INTERVAL_SECONDS)), options.get("root", "/")
    if hasattr(os, "nice"):
        os.nice(10)
    try:
        reader = _reader(options.get("source"), interval, root)
        first = reader.first()
    except _CannotSample as error:
        _print({"problem": str(error)})
        return 1
    _print({"source": reader.source})
    samples = [first] if first else []
    problem = None  # type: Optional[str]
    while True:
        ready = select.select([0] + reader.inputs(), [], [], reader.wait())[0]
        ended = 0 in ready and not os.read(0, 4096)
        try:
            samples += reader.take()
            while ended and reader.inputs() and select.select(reader.inputs(), [], [], 0)[0]:
                samples += reader.take()  # what came meanwhile is not lost, nor that the program ended
        except _CannotSample as error:
            problem = str(error)
            if not ended:
                _wait_for_the_end()
            break
        del samples[MOST_SAMPLES:]
        if ended:
            break
    reader.close()
    for sample in samples:
        _print(sample)
    _print({"end": True, "problem": problem})
    return 0


def _print(message):
    # type: (Facts) -> None
    # Before the end the other side listens to the first line only, which any pipe has room for.
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _wait_for_the_end():
    # type: () -> None
    while os.read(0, 4096):
        pass


class _CannotSample(Exception):
    """Its message is a clause for the user."""


def _reader(source, interval, root):
    # type: (Optional[str], float, str) -> Any
    """What shows power comes first, files before programs; what shows only temperatures is better than nothing."""
    if source is None:
        if power_rails.rail_sensors(root):
            source = "sysfs"
        elif is_here(root) and shutil.which("tegrastats"):
            source = "tegrastats"
        elif is_here(root) and shutil.which("nvidia-smi"):
            source = "nvidia-smi"
        else:
            source = "sysfs"
    if source not in SOURCES:
        raise _CannotSample("there is no source %r of telemetry; there are %s" % (source, ", ".join(SOURCES)))
    return {"sysfs": _Files, "tegrastats": _Tegrastats, "nvidia-smi": _NvidiaSmi}[source](interval, root)


class _Files:
    source = "sysfs"

    def __init__(self, interval, root):
        # type: (float, str) -> None
        self._interval, self._root = interval, root
        self._rails = power_rails.rail_sensors(root)
        self._count = 0
        self._next = time.monotonic()

    def first(self):
        # type: () -> Facts
        sample = self._sample()
        if not (sample["milliwatts"] or sample["celsius"] or sample["mhz"]):
            raise _CannotSample("nothing here shows power, temperatures or clocks")
        return sample

    def inputs(self):
        # type: () -> List[int]
        return []

    def wait(self):
        # type: () -> float
        return max(0.0, self._next - time.monotonic())

    def take(self):
        # type: () -> List[Facts]
        return [self._sample()] if time.monotonic() >= self._next else []

    def _sample(self):
        # type: () -> Facts
        start = time.monotonic()
        rails = power_rails.read_rails(self._root, self._rails)
        at = (start + time.monotonic()) / 2
        sample = {"at": at, "milliwatts": rails, "celsius": {}, "mhz": {}}  # type: Facts
        # Clocks of the processor are left out: to read them, some kernels keep the core busy for a while.
        gpu = [clock["current_khz"] // 1000 for clock in gpu_clocks(self._root) if clock["current_khz"] is not None]
        if gpu:
            sample["mhz"]["gpu"] = max(gpu)
        memory = memory_clock(self._root)
        if memory:
            sample["mhz"]["memory"] = memory["current_khz"] // 1000
        if self._count % SAMPLES_PER_TEMPERATURE == 0:
            sample["celsius"] = {zone["name"]: zone["celsius"] for zone in thermal_zones(self._root)}
        self._count += 1
        self._next = max(self._next + self._interval, time.monotonic())
        return sample

    def close(self):
        # type: () -> None
        pass


class _Program:
    """Listens to a program that prints a line for each sample. It ends with the pipe, should this process be killed."""

    source = ""

    def __init__(self, interval, root):
        # type: (float, str) -> None
        program = shutil.which(self.source) if is_here(root) else None
        if program is None:
            raise _CannotSample("%s is not on the PATH" % self.source)
        self._rest = b""
        self._words = b""
        try:
            self._process = subprocess.Popen(
                [program] + self.arguments(int(round(interval * 1000))),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
            )  # type: Any
        except OSError as error:
            raise _CannotSample("%s did not start: %s" % (self.source, error))

    def arguments(self, milliseconds):
        # type: (int) -> List[str]
        raise NotImplementedError

    def understand(self, line):
        # type: (str) -> Optional[Facts]
        raise NotImplementedError

    def first(self):
        # type: () -> Optional[Facts]
        deadline = time.monotonic() + PATIENCE_SECONDS - 1
        late = False
        while not late:
            late = time.monotonic() >= deadline  # and then one more look: what lies there was printed in time
            if select.select(self.inputs(), [], [], 0.0 if late else 0.1)[0]:
                samples = self.take()
                if samples:
                    return samples[-1]
        self.close()
        raise _CannotSample(
            "%s printed nothing that is understood within %g s%s" % (self.source, PATIENCE_SECONDS - 1, self._said())
        )

    def inputs(self):
        # type: () -> List[int]
        return [self._process.stdout.fileno()]

    def wait(self):
        # type: () -> Optional[float]
        return None

    def take(self):
        # type: () -> List[Facts]
        if not select.select(self.inputs(), [], [], 0)[0]:
            return []
        piece = os.read(self._process.stdout.fileno(), 65536)
        at = time.monotonic()
        if not piece:
            raise _CannotSample("%s ended with status %s%s" % (self.source, self._process.wait(), self._said()))
        *lines, self._rest = (self._rest + piece).split(b"\n")
        samples = []
        for line in lines:
            sample = self.understand(line.decode("utf-8", "replace"))
            if sample is None:
                self._words = line.strip() or self._words
            else:
                samples.append(dict(sample, at=at))
        return samples

    def _said(self):
        # type: () -> str
        words = (self._rest.strip() or self._words).decode("utf-8", "replace")
        return ": " + words[:200] if words else ""

    def close(self):
        # type: () -> None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class _Tegrastats(_Program):
    source = "tegrastats"

    def arguments(self, milliseconds):
        # type: (int) -> List[str]
        return ["--interval", str(milliseconds)]

    def understand(self, line):
        # type: (str) -> Optional[Facts]
        facts = tegrastats.parse(line)
        if facts is None:
            return None
        mhz = {}  # type: Dict[str, int]
        if facts["gpu"] and facts["gpu"]["mhz"]:
            mhz["gpu"] = max(facts["gpu"]["mhz"])
        if facts["memory"] and facts["memory"]["mhz"] is not None:
            mhz["memory"] = facts["memory"]["mhz"]
        cores = [core["mhz"] for core in facts["cores"] if core["mhz"] is not None]
        if cores:
            mhz["cpu"] = max(cores)
        return {"milliwatts": facts["milliwatts"], "celsius": facts["celsius"], "mhz": mhz}


class _NvidiaSmi(_Program):
    source = "nvidia-smi"
    columns = ("index", "temperature.gpu", "clocks.sm", "clocks.mem")
    # From Ampere on, power.draw is the mean of the last second, most of which may lie before a short measurement. The first that is known
    # by the GPU counts.
    power_columns = ("power.draw.instant", "power.draw")

    def arguments(self, milliseconds):
        # type: (int) -> List[str]
        # One GPU, the first that this process would use.
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
        known = self._known_columns()
        power = [name for name in self.power_columns if ('"%s"' % name).encode() in known] or list(self.power_columns[-1:])
        query = [
            "--query-gpu=" + ",".join(list(self.columns) + power),
            "--format=csv,noheader,nounits",
            "-lms",
            str(milliseconds),
        ]
        return ["-i", first] + query

    def _known_columns(self):
        # type: () -> bytes
        """What this release says can be asked for: one column that it does not know, and it would answer nothing at all."""
        command = [self.source, "--help-query-gpu"]
        try:
            done = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            return b""
        try:
            return done.communicate(timeout=SECONDS_FOR_HELP)[0]
        except subprocess.TimeoutExpired:
            done.kill()
            done.communicate()
            return b""

    def understand(self, line):
        # type: (str) -> Optional[Facts]
        values = [value.strip() for value in line.split(",")]
        if not len(self.columns) < len(values) <= len(self.columns) + len(self.power_columns) or not values[0].isdigit():
            return None
        celsius, gpu, memory = [_number(value) for value in values[1 : len(self.columns)]]
        power = [_number(value) for value in values[len(self.columns) :]]
        watts = next((value for value in power if value is not None), None)
        name = "gpu" + values[0]
        mhz = {"gpu": gpu, "memory": memory}
        return {
            "milliwatts": {} if watts is None else {name: 1000.0 * watts},
            "celsius": {} if celsius is None else {name: celsius},
            "mhz": {key: int(value) for key, value in mhz.items() if value is not None},
        }


def _number(text):
    # type: (str) -> Optional[float]
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None


# From samples to figures


def summary(recorded, start, end, inferences):
    # type: (Facts, float, float, int) -> Facts
    """What the samples say of the span from ``start`` to ``end`` (time.monotonic), in which so many inferences ran.

    ``seconds``, ``inferences``, ``samples`` (how many lie in the span), ``rails``: by name ``mean_milliwatts``, ``peak_milliwatts`` and
    ``joules_per_inference`` (a batch is one inference), power taken as straight lines between samples; ``total_rail``: which of them is
    the whole board's, or None; ``celsius``: by sensor ``first``, ``last`` and ``highest``; ``mhz``: by clock ``lowest`` and ``highest``;
    ``problem``: why something is missing, or None. Energy includes all that the board does beside the model.
    """
    samples = [sample for sample in recorded["samples"] if isinstance(sample.get("at"), (int, float))]
    inside = [sample for sample in samples if start <= sample["at"] <= end]
    problem = recorded["problem"]
    rails = {}
    seconds = end - start
    if len(inside) < 2:
        problem = problem or "the measurement took %.2g s, too short for samples every %g s" % (seconds, recorded["interval"])
    else:
        times = [start] + [sample["at"] for sample in inside] + [end]
        longest = max(after - before for before, after in zip(times, times[1:]))
        if longest > ABSENT_INTERVALS * recorded["interval"]:
            problem = problem or "no sample was taken for %.2g s: the machine was too busy" % longest
        for name in sorted({name for sample in inside for name in sample["milliwatts"]}):
            points = [(sample["at"], sample["milliwatts"][name]) for sample in samples if name in sample["milliwatts"]]
            within = [value for at, value in points if start <= at <= end]
            if len(within) < 2:
                continue
            joules = integral(points, start, end) / 1000.0
            rails[name] = {
                "mean_milliwatts": 1000.0 * joules / seconds,
                "peak_milliwatts": max(within),
                "joules_per_inference": joules / inferences if inferences > 0 else None,
            }
    celsius = {}  # type: Dict[str, Dict[str, float]]
    for sample in samples:
        for name, value in sample["celsius"].items():
            entry = celsius.setdefault(name, {"first": value, "last": value, "highest": value})
            entry["last"], entry["highest"] = value, max(value, entry["highest"])
    mhz = {}  # type: Dict[str, Dict[str, float]]
    for sample in inside:
        for name, value in sample["mhz"].items():
            entry = mhz.setdefault(name, {"lowest": value, "highest": value})
            entry["lowest"], entry["highest"] = min(value, entry["lowest"]), max(value, entry["highest"])
    return {
        "source": recorded["source"],
        "interval": recorded["interval"],
        "seconds": seconds,
        "inferences": inferences,
        "samples": len(inside),
        "rails": rails,
        "total_rail": power_rails.total_rail(sorted(rails)),
        "celsius": celsius,
        "mhz": mhz,
        "problem": problem,
    }


def integral(points, start, end):
    # type: (List[Tuple[float, float]], float, float) -> float
    """Of straight lines between the points, in their order of time, from start to end; level beyond the first and the last point."""
    inside = [point for point in points if start < point[0] < end]
    curve = [(start, value_at(points, start))] + inside + [(end, value_at(points, end))]
    return sum((after[0] - before[0]) * (after[1] + before[1]) / 2.0 for before, after in zip(curve, curve[1:]))


def value_at(points, at):
    # type: (List[Tuple[float, float]], float) -> float
    for before, after in zip(points, points[1:]):
        if before[0] <= at <= after[0]:
            share = (at - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
            return before[1] + share * (after[1] - before[1])
    return points[0][1] if at < points[0][0] else points[-1][1]
