"""The loop of an agent: requests in, replies out, and the end of the process when nobody listens any more."""

import argparse
import os
import platform
import queue
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional  # noqa: F401

from . import guard, probe
from .backends import Backends
from .failures import AgentError, LoadError, Unsupported
from .failures import describe as describe_failure
from .protocol import VERSION, FrameDecoder, ProtocolError, encode_frame, receive

SECONDS_FOR_ENERGY = 2.0  # eight samples of power, at the default interval


class Channel:
    """The two pipes to the client.

    They are moved away from file descriptors 0 and 1 before any framework is imported: what a framework prints goes where errors go, and
    what it reads is empty. A thread reads ahead, so that the end of the client is noticed in the middle of a conversion.
    """

    def __init__(self):
        # type: () -> None
        self._input, self._output = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._requests = queue.Queue()  # type: queue.Queue[Dict[str, Any]]
        self._lock = threading.Lock()
        self._busy = False
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def _listen(self):
        # type: () -> None
        decoder = FrameDecoder()
        try:
            while True:
                message = receive(lambda size: os.read(self._input, size), decoder)
                if message is None:
                    self._abandon(0)
                else:
                    self._requests.put(message)
        except (ProtocolError, OSError) as error:
            sys.stderr.write("The agent got no request but this: %s\n" % error)
            sys.stderr.flush()
            self._abandon(2)

    def _abandon(self, status):
        # type: (int) -> None
        """The client is gone: end at once, and with us what a converter may have started."""
        if self._busy and os.getsid(0) == os.getpid():
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os._exit(status)

    def next_request(self):
        # type: () -> Dict[str, Any]
        self._busy = False
        request = self._requests.get()
        self._busy = True
        return request

    def send(self, message):
        # type: (Dict[str, Any]) -> None
        frame = encode_frame(message)
        with self._lock:  # backends may report progress from threads of their own
            while frame:
                frame = frame[os.write(self._output, frame) :]


class Session:
    """The verbs, and the model that is loaded."""

    def __init__(self, backends):
        # type: (Backends) -> None
        self._backends = backends
        self._runner = None  # type: Any
        self._batch = self._threads = 1
        self._fresh = False  # loaded, and no inference since
        self._stream = None  # type: Any
        self._cycle = None  # type: Any  # of pictures, where the last measurement was on several

    def probe(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        return probe.probe(self._backends)

    def describe(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        from . import describe as descriptions

        return descriptions.describe(arguments, progress)

    def convert(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        backend = self._backends.get(arguments["backend"])
        variant = arguments.get("variant")
        if variant is not None and variant not in getattr(backend, "VARIANTS", ()):
            raise Unsupported("the backend %s makes no variant %r of a model" % (arguments["backend"], variant))
        start = time.perf_counter()
        result = dict(backend.convert(arguments, progress))
        result["seconds"] = time.perf_counter() - start
        result.setdefault("details", {})
        return result

    def load(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        self._end_stream()
        self._runner = None  # two models at once would not fit on a small board
        backend = self._backends.get(arguments["backend"])
        if not os.path.exists(arguments["model"]):
            raise LoadError("there is no model at %s" % arguments["model"])
        runtime = backend.runtime()  # its import is not the model's load time
        more = _asked_for(backend, arguments)
        start = time.perf_counter()
        runner = backend.Runner(
            arguments["model"],
            arguments["precision"],
            int(arguments["threads"]),
            int(arguments["batch"]),
            arguments["input"],
            **more,
        )
        seconds = time.perf_counter() - start
        self._runner, self._batch, self._fresh, self._cycle = runner, int(arguments["batch"]), True, None
        self._threads = int(arguments["threads"])
        return {"seconds": seconds, "inputs": runner.inputs, "outputs": runner.outputs, "runtime": runtime}

    def _loaded(self):
        # type: () -> Any
        if self._runner is None:
            raise AgentError("no model is loaded: ask for load first")
        return self._runner

    def predict(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        from . import batches

        runner = self._loaded()
        self._fresh = False
        start = time.perf_counter()
        everything = bool(arguments.get("all_outputs"))
        count = batches.predict(runner, self._batch, arguments["inputs"], arguments["outputs"], everything)
        return {"count": count, "seconds": time.perf_counter() - start, "coverage": self._coverage()}

    def measure(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        from . import batches, device_facts, measure, picture_cycle

        runner, inputs, pictures = self._loaded(), arguments["inputs"], int(arguments.get("pictures", 1))
        cycle = picture_cycle.PictureCycle(runner, inputs, self._batch, pictures) if pictures > 1 else None
        self._cycle = cycle
        if cycle is None:
            runner.set_inputs(batches.first_batch(inputs, self._batch))
        before = device_facts.condition()
        first, self._fresh = self._fresh, False
        call = runner.prepared() if cycle is None else cycle.turn(0)
        result = measure.measure(call, arguments.get("warmup"), arguments["rounds"], first, cycle)
        on_device = runner.prepared_on_device() if hasattr(runner, "prepared_on_device") else None
        result["device_rounds"] = measure.device_rounds(on_device, len(result["rounds"]), cycle) if on_device else None
        result["condition"] = device_facts.span(before, device_facts.condition())
        if arguments.get("telemetry") is not None:
            result["telemetry"] = self._telemetry(arguments["telemetry"], call if cycle is None else cycle.turn(0))
        result["coverage"] = self._coverage()
        return result

    def _coverage(self):
        # type: () -> Optional[Dict[str, Any]]
        """How much of the loaded model ran on its accelerator, where the runtime can tell: asked after it ran, for some know only then."""
        tell = getattr(self._loaded(), "coverage", None)  # type: Any
        return tell() if callable(tell) else None

    @staticmethod
    def _telemetry(wish, call):
        # type: (Dict[str, Any], Callable[[], Any]) -> Dict[str, Any]
        """Power, temperatures and clocks while ``call`` goes on for a while: that is not timed, and nothing is sampled beside what is."""
        from . import measure, telemetry

        sampler = telemetry.Sampler(wish.get("interval") or telemetry.INTERVAL_SECONDS, wish.get("source"))
        sampler.start()
        count, start = 0, time.monotonic()
        try:
            if sampler.problem is None:
                count = measure.run_until(call, start + wish.get("seconds", SECONDS_FOR_ENERGY))
            end = time.monotonic()
        finally:
            recorded = sampler.stop()
        return telemetry.summary(recorded, start, end, count)

    def measure_block(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        """A few more rounds on the inputs of the ``measure`` before it: short, since another agent waits for its turn.

        Where those were several pictures, they go on from the one that ``picture`` counts.
        """
        from . import measure

        runner, rounds = self._loaded(), int(arguments["rounds"])
        if self._cycle is not None:
            return {"rounds": measure.measure_block(None, rounds, self._cycle, int(arguments.get("picture", 0)))}
        return {"rounds": measure.measure_block(runner.prepared(), rounds)}

    def stream(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        """Frames of a video, a folder or a camera through the model, from decoding to the answer."""
        from . import device_facts, stream

        runner = self._loaded()
        self._end_stream()
        self._stream = stream.Stream(runner, arguments, self._threads)
        before = device_facts.condition()
        first, self._fresh = self._fresh, False
        result = stream.measured(self._stream, arguments, first, progress)
        result["condition"] = device_facts.span(before, device_facts.condition())
        if arguments.get("telemetry") is not None:
            result["telemetry"] = self._telemetry(arguments["telemetry"], self._stream.step)
        result["coverage"] = self._coverage()
        self._stream.feed.begin()  # a block begins with the first frame, however many came before it
        return result

    def stream_block(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        """A few more frames of the ``stream`` before it, while another agent waits for its turn."""
        from . import stream

        if self._stream is None:
            raise AgentError("no stream is open: ask for stream first")
        return {"rounds": stream.block(self._stream, int(arguments["rounds"]))}

    def _end_stream(self):
        # type: () -> None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def canary(self, arguments, progress):
        # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
        from . import canary, device_facts

        before = device_facts.condition()
        result = canary.canary()
        result["condition"] = device_facts.span(before, device_facts.condition())
        return result


def _asked_for(backend, arguments):
    # type: (Any, Dict[str, Any]) -> Dict[str, Any]
    """What the backend's runner takes beyond what every runner takes, by keyword: its module says so in ``RUNNER_TAKES``."""
    offered = {
        "device": arguments.get("device") or "cpu",
        "options": arguments.get("options") or {},
        "task": arguments.get("task") or "classification",
    }
    known = sorted(offered)
    wanted = tuple(getattr(backend, "RUNNER_TAKES", ()))
    for name in wanted:
        if name not in offered:
            raise AgentError(
                "RUNNER_TAKES names %r, and a runner can be given %s and %s" % (name, ", ".join(known[:-1]), known[-1])
            )
    return {name: offered[name] for name in wanted}


VERBS = ("probe", "describe", "convert", "load", "predict", "measure", "measure_block", "stream", "stream_block", "canary")


def answer(session, request, send):
    # type: (Session, Dict[str, Any], Callable[[Dict[str, Any]], None]) -> bool
    """Serve one request; returns whether to go on."""
    number, verb = request.get("id"), request.get("verb")

    def progress(message):
        # type: (str) -> None
        send({"id": number, "event": "progress", "message": message})

    if verb == "stop":
        send({"id": number, "ok": True, "result": {}})
        return False
    try:
        if verb not in VERBS:
            raise AgentError("an agent has no verb %r; it has %s and stop" % (verb, ", ".join(VERBS)))
        result = getattr(session, verb)(request.get("arguments") or {}, progress)
        reply = {"id": number, "ok": True, "result": result}
        encode_frame(reply)
    except Exception as error:
        reply = {"id": number, "ok": False, "error": describe_failure(error, str(verb))}
        sys.stderr.write(reply["error"]["traceback"])
        sys.stderr.flush()
    send(reply)
    return True


def die_with_parent():
    # type: () -> None
    """Ask Linux to kill this process when the thread that started it ends.

    The listening thread notices a dead client too, but not while a converter holds the interpreter's lock.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG


def backend_file(text):
    # type: (str) -> List[str]
    name, separator, path = text.partition("=")
    if not separator or not os.path.isfile(path):
        raise argparse.ArgumentTypeError("expected NAME=FILE.py with a file that exists, got %r" % text)
    return [name, os.path.abspath(path)]


def main(arguments):
    # type: (List[str]) -> int
    parser = argparse.ArgumentParser(
        prog="agent", description="Convert, load, predict and measure for pytest-inference-gate, over standard input and output."
    )
    parser.add_argument("--backend", action="append", default=[], type=backend_file, metavar="NAME=FILE", help="add a backend")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting thread ends (Linux)")
    parser.add_argument(
        "--guard", action="store_true", help="have a process beside that ends the agent with its client, for use over a network"
    )
    parser.add_argument(
        "--memory-limit", type=int, metavar="BYTES", help="with --guard: most memory for the agent and its children"
    )
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        die_with_parent()
    if options.guard:
        guard.start(options.memory_limit)
    backends = Backends(dict(options.backend))
    if os.isatty(0):
        parser.error("standard input is a terminal: an agent is started by pytest-inference-gate, which speaks to it in frames")
    channel = Channel()
    try:
        channel.send({"event": "hello", "protocol": VERSION, "python": platform.python_version(), "pid": os.getpid()})
        session = Session(backends)
        while answer(session, channel.next_request(), channel.send):
            pass
    except BrokenPipeError:
        channel._abandon(0)
    # Frameworks have threads and static destructors that may hang or crash on the way out, when all work is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
