"""Frames through a model, one after another: decode, preprocess, infer, post-process, each timed.

``pace`` is ``none``, where each frame is taken as soon as the one before is done, or ``frames``, where each comes at its own
time: then a frame that arrives while another is being worked on waits, and the next one that arrives takes its place. ``overlap``
decodes and preprocesses the next frame in a thread beside the inference of this one.

The clock runs from the moment at which a frame is taken out of its source to its result. With overlap that includes the time for
which the frame lies ready and waits for the model.
"""

import gc
import queue
import threading
import time
from collections import namedtuple
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

import numpy

from . import measure
from .frame_preprocessing import FramePreprocessor
from .frame_source import import_opencv, median, open_source

WINDOWS = 20  # in a minute, or in a fifth of what is shorter than five minutes: enough for a rank test
LONGEST_SIDE = 60.0  # seconds
PROGRESS_SECONDS = 30.0
_DIRECT = ("float32", "int8", "uint8")

_clock = time.perf_counter
_Queue = getattr(queue, "SimpleQueue", queue.Queue)  # Python 3.7 and later: it costs less

Taken = namedtuple("Taken", ["number", "arrival", "begin", "decoded", "frame", "came"])
"""A frame out of its source: its number, when it came by its own clock (seconds since the first one), readings of this
process's clock before and after it was decoded, and when it came by that clock, in real time."""

Frame = namedtuple(
    "Frame", ["number", "arrival", "begin", "age", "decode", "preprocess", "infer", "postprocess", "total", "answer"]
)
"""A frame that is done. Seconds; ``begin`` is when it was taken, by this process's clock; ``age`` is that of its result, None
where frames do not come at their own times; ``total`` is from taking it to its result; ``answer`` is the class on top, or the
number of detections."""


class SteadyFeed(object):
    """A source's frames in their order, over and over again; with ``paced``, each at its own time and none that came too late.

    ``rate`` lets frames come so many times a second instead of at their own times. ``skipped_seconds`` is what starting over
    took, which is no frame's time.
    """

    def __init__(self, source, paced, rate):
        # type: (Any, bool, Optional[float]) -> None
        self.source = source
        self.paced = paced
        count = len(source.times)
        self._times = [number / rate for number in range(count)] if rate else list(source.times)
        intervals = [after - before for before, after in zip(self._times, self._times[1:])]
        alone = 1.0 / (rate or getattr(source, "rate", None) or 30)  # of a single frame, which has no other one to tell it
        self._period = self._times[-1] + (median(intervals) if intervals else alone)
        self._count = count
        self.begin()

    def begin(self):
        # type: () -> None
        """From the first frame on."""
        self.number = 0  # of the frame that comes next
        self.skipped_seconds = 0.0
        self.source.seek(0)
        self._origin = _clock()

    def arrival(self, number):
        # type: (int) -> float
        rounds, position = divmod(number, self._count)
        return rounds * self._period + self._times[position]

    def take(self, paced=None):
        # type: (Optional[bool]) -> Taken
        if self.paced if paced is None else paced:
            self._wait()
        number = self.number
        position = number % self._count
        before = _clock()
        if self.source.seek(position):
            pause = _clock() - before
            self.skipped_seconds += pause
            self._origin += pause  # the frames' clock stands still meanwhile
        begin = _clock()
        frame = self.source.read(position)
        decoded = _clock()
        self.number = number + 1
        arrival = self.arrival(number)
        return Taken(number, arrival, begin, decoded, frame, self._origin + arrival)

    def _wait(self):
        # type: () -> None
        """Until the next frame is there; of several that are there already, the latest is the next."""
        now = _clock() - self._origin
        due = self.arrival(self.number)
        while due > now:
            time.sleep(due - now)
            now = _clock() - self._origin
        while self.arrival(self.number + 1) <= now:
            self.number += 1

    def age(self, taken, done):
        # type: (Taken, float) -> Optional[float]
        if not self.paced:
            return None
        age = done - taken.came  # type: float
        return age

    @property
    def offered(self):
        # type: () -> int
        return self.number


class CameraFeed(object):
    """A camera's frames as they come."""

    paced = True
    skipped_seconds = 0.0

    def __init__(self, source):
        # type: (Any) -> None
        self.source = source
        self.begin()

    def begin(self):
        # type: () -> None
        self._first = None  # type: Optional[Tuple[int, float]]
        self.offered = 0

    def take(self, paced=None):
        # type: (Optional[bool]) -> Taken
        frame, arrival, seconds, number = self.source.take()
        if self._first is None:
            self._first = (number, arrival)
        self.offered = number - self._first[0] + 1
        now = _clock()
        return Taken(self.offered - 1, arrival - self._first[1], now - seconds, now, frame, arrival)

    def age(self, taken, done):
        # type: (Taken, float) -> Optional[float]
        age = done - taken.came  # type: float
        return age


class Pipeline(object):
    """The loaded model with what comes before and after it."""

    def __init__(self, cv2, runner, wish):
        # type: (Any, Any, Dict[str, Any]) -> None
        described = runner.inputs[0]
        expected = [1] + [int(size) for size in wish["input"]["shape"]]
        may_write = callable(getattr(runner, "input_array", None)) and described["shape"] == expected
        self._direct = runner.input_array if may_write and described["dtype"] in _DIRECT else None  # type: Any
        own_type = (described["dtype"], described["scale"], described["zero_point"]) if self._direct else ("float32", None, None)
        self._preprocessor = FramePreprocessor(cv2, wish["preprocessing"], wish["input"], *own_type)
        self._array = self.spare()
        self._runner = runner
        self.infer = runner.infer  # type: Callable[[], Any]
        self.answer = self._detections(wish["detection"]) if wish.get("detection") else self._top1

    def spare(self):
        # type: () -> Any
        """An array for a frame that is prepared beside an inference."""
        return numpy.empty(self._preprocessor.shape, self._preprocessor.dtype)

    def write(self, frame, array):
        # type: (Any, Any) -> None
        self._preprocessor.write(frame, array)

    def prepare(self, frame):
        # type: (Any) -> None
        """Preprocess into the model's input, by way of an array where the runtime does not let one write into it."""
        if self._direct is not None:
            self._preprocessor.write(frame, self._direct())
        else:
            self._preprocessor.write(frame, self._array)
            self._runner.set_inputs(self._array)

    def feed(self, array):
        # type: (Any) -> None
        if self._direct is not None:
            numpy.copyto(self._direct(), array)
        else:
            self._runner.set_inputs(array)

    def _top1(self):
        # type: () -> int
        return int(self._runner.get_output().argmax())

    def _detections(self, settings):
        # type: (Dict[str, Any]) -> Callable[[], int]
        from .detection_decoding import Decoder

        decoder, shown_from = Decoder(settings), settings["shown_from"]

        def count():
            # type: () -> int
            ((_, scores, _),) = decoder.decode(self._runner.get_outputs())
            return int((scores >= shown_from).sum())

        return count


class Stream(object):
    """A source, a pipeline, and how frames go from the one to the other. To be closed."""

    def __init__(self, runner, wish, threads):
        # type: (Any, Dict[str, Any], int) -> None
        cv2 = import_opencv(threads)
        self.version = str(cv2.__version__)
        self._pipeline = Pipeline(cv2, runner, wish)
        self.source = open_source(cv2, wish["source"], threads)
        if wish["source"]["kind"] == "camera":
            self.feed = CameraFeed(self.source)  # type: Any
        else:
            self.feed = SteadyFeed(self.source, wish["pace"] == "frames", wish.get("budget_frames_per_second"))
        self._overlap = bool(wish["overlap"])
        self._camera_frame = None  # type: Any

    def close(self):
        # type: () -> None
        self.source.close()

    def step(self):
        # type: () -> Frame
        """One frame as soon as it can be had, by this thread alone. A camera is not waited for: its first frame is taken
        again."""
        if isinstance(self.feed, CameraFeed):
            if self._camera_frame is None:
                self._camera_frame = numpy.array(self.feed.take().frame)
            now = _clock()
            return self._finish(Taken(0, 0.0, now, now, self._camera_frame, now))
        return self._finish(self.feed.take(False))

    def _finish(self, taken):
        # type: (Taken) -> Frame
        pipeline = self._pipeline
        pipeline.prepare(taken.frame)
        prepared = _clock()
        pipeline.infer()
        inferred = _clock()
        answer = pipeline.answer()
        done = _clock()
        return Frame(
            taken.number,
            taken.arrival,
            taken.begin,
            self.feed.age(taken, done),
            taken.decoded - taken.begin,
            prepared - taken.decoded,
            inferred - prepared,
            done - inferred,
            done - taken.begin,
            answer,
        )

    def run(self, goes_on, keep, paced=None):
        # type: (Callable[[int], bool], Callable[[Frame], None], Optional[bool]) -> None
        """Frames while ``goes_on(how many were taken)``; each that is done is given to ``keep``."""
        if self._overlap:
            self._run_overlapped(goes_on, keep, paced)
            return
        count, take, finish = 0, self.feed.take, self._finish
        while goes_on(count):
            keep(finish(take(paced)))
            count += 1

    def _run_overlapped(self, goes_on, keep, paced):
        # type: (Callable[[int], bool], Callable[[Frame], None], Optional[bool]) -> None
        pipeline, feed = self._pipeline, self.feed
        free, ready = _Queue(), _Queue()  # type: Any, Any
        for _ in range(2):  # one for the model, one for the frame after it
            free.put(pipeline.spare())
        producer = threading.Thread(target=self._produce, args=(goes_on, paced, free, ready), name="frames")
        producer.daemon = True
        producer.start()
        try:
            while True:
                item = ready.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                taken, prepared, array = item
                begun = _clock()
                pipeline.feed(array)
                fed = _clock()
                pipeline.infer()
                inferred = _clock()
                answer = pipeline.answer()
                done = _clock()
                free.put(array)
                keep(
                    Frame(
                        taken.number,
                        taken.arrival,
                        taken.begin,
                        feed.age(taken, done),
                        taken.decoded - taken.begin,
                        prepared - taken.decoded + fed - begun,
                        inferred - fed,
                        done - inferred,
                        done - taken.begin,
                        answer,
                    )
                )
        finally:
            free.put(None)
            producer.join()

    def _produce(self, goes_on, paced, free, ready):
        # type: (Callable[[int], bool], Optional[bool], Any, Any) -> None
        count = 0
        try:
            while goes_on(count):
                array = free.get()
                if array is None:
                    return
                taken = self.feed.take(paced)
                self._pipeline.write(taken.frame, array)  # the frame is good until the next one is taken, by this thread
                ready.put((taken, _clock(), array))
                count += 1
            ready.put(None)
        except BaseException as error:
            ready.put(error)


class Windows(object):
    """Frame times of a long run, gathered in windows of ``width`` seconds, so that hours take no more room than minutes."""

    def __init__(self, seconds, progress):
        # type: (float, Callable[[str], None]) -> None
        self.side = min(LONGEST_SIDE, seconds / 5.0)
        self.width = self.side / WINDOWS
        self.found = []  # type: List[Dict[str, Any]]
        self._seconds = seconds
        self._progress = progress
        self._begun = self._told = _clock()
        self._window = 0
        self._totals = []  # type: List[float]

    def keep(self, frame):
        # type: (Frame) -> None
        now = _clock()
        window = int((now - self._begun) / self.width)
        if window != self._window:
            self.finish()
            self._window = window
        self._totals.append(frame.total)
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._progress("%.0f s of %.0f s" % (now - self._begun, self._seconds))

    def finish(self):
        # type: () -> None
        if self._totals:
            self.found.append(
                {"start": self._window * self.width, "frames": len(self._totals), "median": measure.median(self._totals)}
            )
        self._totals = []


def _wanted(rule, available):
    # type: (Dict[str, int], int) -> int
    """Once through the source, within the limits; of a camera, which has no end, as many as there are at most."""
    return max(int(rule["minimum"]), min(available or int(rule["maximum"]), int(rule["maximum"])))


def measured(stream, arguments, fresh, progress):
    # type: (Stream, Dict[str, Any], bool, Callable[[str], None]) -> Dict[str, Any]
    """Warm up, then so many frames (``frames``), or as many as come in so many ``seconds``; ``fresh``: the model has not run
    yet."""
    seconds = arguments.get("seconds")
    frames = []  # type: List[Frame]
    windows = None  # type: Optional[Windows]
    first_inference = None
    rule = arguments.get("warmup")
    feed = stream.feed
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        if fresh:
            first_inference = stream.step().infer
        warmup_rounds, warmup_seconds, steady = (
            measure.warm_up(stream.step, rule, measure.best_clock()) if rule else (0, 0.0, False)
        )
        feed.begin()
        begun, start = time.monotonic(), _clock()
        if seconds is None:
            count = _wanted(arguments["frames"], len(getattr(stream.source, "times", ())))
            stream.run(lambda done: done < count, frames.append)
            number = len(frames)
        else:
            windows = Windows(float(seconds), progress)
            kept = [0]

            def keep(frame):
                # type: (Frame) -> None
                kept[0] += 1
                windows.keep(frame)

            stream.run(lambda done: not done or _clock() - start < seconds, keep)
            windows.finish()
            number = kept[0]
        wall = _clock() - start - feed.skipped_seconds
        ended = time.monotonic()
        offered = feed.offered
    finally:
        if was_enabled:
            gc.enable()
    source = stream.source
    return {
        "first_inference": first_inference,
        "warmup_rounds": warmup_rounds,
        "warmup_seconds": warmup_seconds,
        "steady": steady,
        "rounds": [round(frame.total, 9) for frame in frames],
        "stages": {
            stage: [round(getattr(frame, stage), 8) for frame in frames]
            for stage in ("decode", "preprocess", "infer", "postprocess")
        },
        "arrivals": [round(frame.arrival, 6) for frame in frames],
        "begins": [round(frame.begin - start, 8) for frame in frames],
        "ages": [round(frame.age, 8) for frame in frames] if feed.paced else None,
        "answers": [frame.answer for frame in frames],
        "processed": number,
        "offered": offered,
        "wall_seconds": wall,
        "windows": None if windows is None else {"side": windows.side, "found": windows.found},
        "source": {"name": source.name, "declared": source.declared, "frames": len(getattr(source, "times", ()))},
        "opencv": stream.version,
        "remarks": list(source.remarks),
        "begun": begun,
        "ended": ended,
        "clock": "perf_counter",
        "peak_rss_bytes": measure.peak_rss_bytes(),
    }


def block(stream, rounds):
    # type: (Stream, int) -> List[float]
    """Seconds of exactly so many more frames, as fast as they can be had."""
    frames = []  # type: List[Frame]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        stream.run(lambda done: done < rounds, frames.append, False)
    finally:
        if was_enabled:
            gc.enable()
    return [frame.total for frame in frames]
