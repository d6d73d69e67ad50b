"""Where a stream's frames come from: a video file, a folder of pictures or a camera, read with OpenCV.

A frame is an array (height, width, 3) of uint8 in OpenCV's order, blue, green, red, and has a time of its own: what the video's
container says of it, its place among the pictures times the card's rate, or when the camera delivered it. What cannot be read, or
has no clock that moves on, raises :class:`SourceError` with one sentence.
"""

import os
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from .failures import AgentError, Unsupported

SHORTEST_INTERVAL = 0.001  # seconds: a clock that runs faster than 1000 frames a second is no camera's, but a wrong time base
UNEVEN = 0.1  # share of the usual interval by which another one must differ to be called another one
ROUNDED = 0.0015  # seconds: some containers keep their times in whole milliseconds
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class SourceError(AgentError):
    """The source of the frames is at fault, and not the model."""

    kind = "fetch_error"


def import_opencv(threads=1):
    # type: (int) -> Any
    """OpenCV, held to as many threads as the model gets."""
    try:
        import cv2
    except ImportError as error:
        raise Unsupported(
            "a stream is read with OpenCV, which the agent's Python does not have (%s): pip install "
            '"pytest-inference-gate[stream]", or python3-opencv on a board' % error
        )
    cv2.setNumThreads(threads)
    return cv2


def open_source(cv2, wish, threads=1):
    # type: (Any, Dict[str, Any], int) -> Any
    """The source that ``wish`` describes: ``kind`` (``video``, ``folder``, ``camera``), ``path`` or ``camera``,
    ``maximum_frames``, ``frame_rate`` (or None), ``timeout`` in seconds of a camera."""
    if wish["kind"] == "camera":
        return Camera(cv2, wish["camera"], float(wish["timeout"]))
    if wish["kind"] == "folder":
        return PictureFolder(cv2, wish["path"], int(wish["maximum_frames"]), wish["frame_rate"])
    return VideoFile(cv2, wish["path"], int(wish["maximum_frames"]), wish.get("frame_rate"), threads)


def median(values):
    # type: (List[float]) -> float
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def checked_times(times, what):
    # type: (List[float], str) -> Tuple[List[float], List[str]]
    """Seconds since the first frame, and what is to be said of them. Raises :class:`SourceError` for a clock that does not move
    on."""
    relative = [one - times[0] for one in times]
    intervals = [after - before for before, after in zip(relative, relative[1:])]
    for number, interval in enumerate(intervals):
        if interval <= 0:
            raise SourceError(
                "the clock of %s does not move on: frame %d is at %.3f s and frame %d at %.3f s; set frame_rate in the card's [stream], "
                "which then takes the place of these times" % (what, number, relative[number], number + 1, relative[number + 1])
            )
    if not intervals:
        return relative, []
    usual = median(intervals)
    if usual < SHORTEST_INTERVAL:
        raise SourceError(
            "the clock of %s moves on by %.3g ms a frame, which is no camera's interval: set frame_rate in the card's [stream], which "
            "then takes the place of these times" % (what, 1000 * usual)
        )
    other = sum(1 for one in intervals if abs(one - usual) > max(UNEVEN * usual, ROUNDED))
    if not other:
        return relative, []
    return relative, [
        "%s has a variable frame rate: %d of %d intervals are not %.1f ms (%.1f to %.1f ms); its times are used as they are"
        % (what, other, len(intervals), 1000 * usual, 1000 * min(intervals), 1000 * max(intervals))
    ]


class VideoFile(object):
    """The first ``maximum_frames`` frames of a file, over and over again.

    ``times`` are the seconds of each frame since the first one: by the container's clock, or evenly by ``frame_rate``. All frames
    are looked for once when it is opened, so that a file which ends too early is known before anything is measured.
    """

    def __init__(self, cv2, path, maximum_frames, frame_rate, threads=1):
        # type: (Any, str, int, Optional[float], int) -> None
        self._cv2, self._path, self._threads = cv2, path, threads
        self.name = os.path.basename(path)
        if not os.path.isfile(path):
            raise SourceError("there is no video at %s" % path)
        self._capture = self._open()
        self.declared = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        times = []  # type: List[float]
        while len(times) < maximum_frames and self._capture.grab():
            times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
        if not times:
            raise SourceError(
                "%s has no frame that can be decoded (%d are declared): give another video, or record it anew"
                % (self.name, self.declared)
            )
        self.remarks = []  # type: List[str]
        if len(times) < maximum_frames and len(times) < self.declared:
            self.remarks.append(
                "%s ends too early: %d of the %d frames that it declares can be read, and these are used"
                % (self.name, len(times), self.declared)
            )
        if frame_rate:
            self.times = [number / float(frame_rate) for number in range(len(times))]
        else:
            self.times, remarks = checked_times(times, self.name)
            self.remarks += remarks
        self.rate = frame_rate
        self._position = len(times)  # of the frame that comes next
        self._buffer = None  # type: Any

    def _open(self):
        # type: () -> Any
        cv2 = self._cv2
        capture = None
        threads = getattr(cv2, "CAP_PROP_N_THREADS", None)
        if threads is not None:
            # Else the decoder uses all processors, and its work beside an inference would be in no stage's time.
            capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG, [threads, self._threads])
        if capture is None or not capture.isOpened():
            capture = cv2.VideoCapture(self._path)
        if not capture.isOpened():
            raise SourceError("%s is not a video that OpenCV can read: give another file, or convert it" % self.name)
        return capture

    def seek(self, position):
        # type: (int) -> bool
        """Be ready for the frame number ``position``, by opening the file again where it lies behind; whether that was so."""
        if position >= self._position:
            return False
        self._capture.release()
        self._capture, self._position = self._open(), 0
        return True

    def read(self, position):
        # type: (int) -> Any
        """The frame number ``position``, which is good until the next one is read. All frames up to it are decoded too, as they
        must."""
        while self._position < position:
            self._capture.grab()
            self._position += 1
        ok, self._buffer = self._capture.read(self._buffer)
        if not ok:
            raise SourceError("%s: frame %d could be read once and cannot be read again" % (self.name, position))
        self._position += 1
        return self._buffer

    def close(self):
        # type: () -> None
        self._capture.release()


class PictureFolder(object):
    """The pictures of a folder in the order of their names, ``frame_rate`` of them a second, over and over again."""

    def __init__(self, cv2, path, maximum_frames, frame_rate):
        # type: (Any, str, int, Optional[float]) -> None
        self._cv2 = cv2
        self.name = os.path.basename(os.path.normpath(path))
        if not frame_rate:
            raise SourceError("a folder of pictures has no clock of its own: set frame_rate in the card's [stream]")
        if not os.path.isdir(path):
            raise SourceError("there is no folder at %s" % path)
        found = sorted(name for name in os.listdir(path) if name.lower().endswith(PICTURES))
        if not found:
            raise SourceError("the folder %s has no pictures: expected files such as 0001.png or 0001.jpg" % self.name)
        self.declared = len(found)
        self.rate = frame_rate
        self._paths = [os.path.join(path, name) for name in found[:maximum_frames]]
        self.times = [number / float(frame_rate) for number in range(len(self._paths))]
        sizes = {}  # type: Dict[Tuple[int, int], int]
        for position in range(len(self._paths)):
            height, width = self.read(position).shape[:2]
            sizes[(width, height)] = sizes.get((width, height), 0) + 1
        self.remarks = []  # type: List[str]
        if len(sizes) > 1:
            (width, height), most = max(sizes.items(), key=lambda item: item[1])
            self.remarks.append(
                "the pictures of %s are of %d sizes: %d of %d are %d x %d, and frames of another size cost another time"
                % (self.name, len(sizes), most, len(self._paths), width, height)
            )

    def seek(self, position):
        # type: (int) -> bool
        return False

    def read(self, position):
        # type: (int) -> Any
        frame = self._cv2.imread(self._paths[position], self._cv2.IMREAD_COLOR)
        if frame is None:
            raise SourceError("%s is no picture that OpenCV can read: remove it, or save it anew" % self._paths[position])
        return frame

    def close(self):
        # type: () -> None
        pass


class Camera(object):
    """A camera that is read by a thread of its own, since it does not wait: what nobody takes in time is replaced by the next
    frame.

    ``camera`` is its number (``0``) or the URL of a network camera.
    """

    def __init__(self, cv2, camera, timeout):
        # type: (Any, str, float) -> None
        self.name = "camera %s" % camera
        self.remarks = []  # type: List[str]
        self.declared = 0
        self._timeout = timeout
        self._capture = self._open(cv2, camera, timeout)
        self._fresh = threading.Condition()
        self._latest = None  # type: Optional[Tuple[int, float, float, int]]  # which buffer, and what take() tells
        self._buffers = [None, None, None]  # type: List[Any]  # one is written, one is the latest, one was taken
        self._taken = -1  # which of them
        self._number = 0
        self._error = None  # type: Optional[str]
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="camera")
        self._thread.daemon = True
        self._thread.start()

    def _open(self, cv2, camera, timeout):
        # type: (Any, str, float) -> Any
        if camera.isdigit():
            capture = cv2.VideoCapture(int(camera))
        else:
            limits = [getattr(cv2, name, None) for name in ("CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC")]
            parameters = [part for one in limits if one is not None for part in (one, int(1000 * timeout))]
            capture = cv2.VideoCapture(camera, cv2.CAP_FFMPEG, parameters) if parameters else cv2.VideoCapture(camera)
        if not capture.isOpened():
            hint = (
                "ls /dev/video* shows those that there are"
                if camera.isdigit()
                else "see that its address is right and that it answers"
            )
            raise SourceError("there is no %s that OpenCV can open: %s" % (self.name, hint))
        return capture

    def _watch(self):
        # type: () -> None
        while not self._stopped:
            with self._fresh:
                used = (self._taken, -1 if self._latest is None else self._latest[0])
            index = next(number for number in range(3) if number not in used)
            grabbed = self._capture.grab()
            arrival = time.perf_counter()
            ok, frame = self._capture.retrieve(self._buffers[index]) if grabbed else (False, None)
            decoded = time.perf_counter() - arrival
            with self._fresh:
                if not ok:
                    self._error = (
                        "%s delivers no more frames: see that it is plugged in, and that no other program uses it" % self.name
                    )
                    self._fresh.notify_all()
                    break
                self._buffers[index] = frame
                self._number += 1
                self._latest = (index, arrival, decoded, self._number)
                self._fresh.notify_all()
        self._capture.release()

    def take(self):
        # type: () -> Tuple[Any, float, float, int]
        """The latest frame that nobody has taken; when it arrived (``time.perf_counter``), the seconds that its decoding took,
        and its number, counted from 1. The frame is good until the next one is taken."""
        with self._fresh:
            end = time.monotonic() + self._timeout
            while self._latest is None:
                left = end - time.monotonic()
                if self._error is not None:
                    raise SourceError(self._error)
                if left <= 0:
                    raise SourceError(
                        "%s has delivered no frame for %g s: see that it is plugged in, and that no other program uses it"
                        % (self.name, self._timeout)
                    )
                self._fresh.wait(left)
            (self._taken, arrival, decoded, number), self._latest = self._latest, None
            return self._buffers[self._taken], arrival, decoded, number

    def close(self):
        # type: () -> None
        self._stopped = True
        self._thread.join(1.0)  # it may hang in the driver, and then ends with the process
