"""Models with several outputs: the names and the order that these have everywhere, and how they are kept. NumPy alone.

A classifier has one output, and nothing here is asked of it. A detector has boxes, scores and more, and what one of them is can be told by
its place alone, so the place has to be the same in a SavedModel, a TensorFlow Lite file, an ONNX graph and an engine made of it.
"""

import os
import re
import shutil
import tempfile
import zipfile
from typing import Any, Callable, Dict, List, Sequence  # noqa: F401

from .failures import AgentError

DETECTION = "detection"
_OURS = re.compile(r"^output_(\d+)(?::0)?$")
_NUMBERED = re.compile(r"^(.*?)(?::(\d+))?$")


def all_are_kept(request):
    # type: (Dict[str, Any]) -> bool
    """Whether a request of ``convert`` or ``load`` is for a model whose every output counts."""
    return request.get("task") == DETECTION


def name_of(number):
    # type: (int) -> str
    """The name of an output in the signature that is written."""
    return "output_%d" % number


def in_order(names):
    # type: (Sequence[str]) -> List[int]
    """The places in ``names`` of the first output, the second, and so on.

    Names that end with numbers tell the order: those that :func:`name_of` gave, and those of one operation with several results
    (``TFLite_Detection_PostProcess``, ``TFLite_Detection_PostProcess:1``). Any other names stand as the model has them.
    """
    places = list(range(len(names)))
    ours = [_OURS.match(name) for name in names]
    if all(ours):
        numbers = [int(match.group(1)) for match in ours if match]
    else:
        parts = [_NUMBERED.match(name) for name in names]
        if len({match.group(1) for match in parts if match}) != 1:
            return places
        numbers = [int(match.group(2) or 0) for match in parts if match]
    if len(set(numbers)) != len(numbers):
        return places
    return sorted(places, key=lambda place: numbers[place])


def sorted_names(names):
    # type: (Any) -> List[str]
    """The names of a signature's outputs, which have no order of their own: by their numbers, else by the alphabet."""
    found = sorted(names)
    return [found[place] for place in in_order(found)]


# Running


def described(name, tensor):
    # type: (str, Any) -> Dict[str, Any]
    """A tensor of TensorFlow as a runner describes it. A size that only an inference shows is None, and so is a shape of unknown rank."""
    shape = None if tensor.shape.ndims is None else [None if size is None else int(size) for size in tensor.shape.as_list()]
    return {"name": name, "shape": shape, "dtype": tensor.dtype.name, "scale": None, "zero_point": None}


def signature_call(function, names, feed):
    # type: (Any, List[str], Dict[str, Any]) -> Callable[[], Any]
    """One call of a SavedModel's signature, its outputs ``names`` fetched to the host: an array, or a list where there are several."""
    if len(names) == 1:
        name = names[0]

        def inference():
            # type: () -> Any
            return function(**feed)[name].numpy()

        return inference

    def inferences():
        # type: () -> Any
        results = function(**feed)
        return [results[name].numpy() for name in names]

    return inferences


def as_list(results):
    # type: (Any) -> List[Any]
    return list(results) if isinstance(results, (list, tuple)) else [results]


# Predictions


def of(runner):
    # type: (Any) -> List[Any]
    """All outputs of a runner after an inference: float32 arrays. Raises :class:`AgentError` where its backend gives one alone."""
    import numpy  # not above: a probe imports each backend, and must not take the time of NumPy's import

    give = getattr(runner, "get_outputs", None)
    if give is None:
        raise AgentError("this backend gives one output of a model alone, so it runs no detector: its Runner has no get_outputs")
    return [numpy.asarray(output, dtype=numpy.float32) for output in give()]


class Writer:
    """Outputs of many batches as one ``.npz`` with ``output_0``, ``output_1`` and so on, each (N, ...).

    They go through files, for the raw boxes and scores of a few thousand pictures are more than a small board's memory.
    """

    def __init__(self, path, count):
        # type: (str, int) -> None
        self._path, self._count = path, count
        self._scratch = tempfile.mkdtemp(prefix=".outputs-", dir=os.path.dirname(os.path.abspath(path)))
        # Of each output's file, which is written and not mapped: where a disk is full, a map ends the process (SIGBUS).
        self._shapes = []  # type: List[Any]
        self._streams = []  # type: List[Any]

    def __enter__(self):
        # type: () -> Writer
        return self

    def put(self, start, outputs, size):
        # type: (int, List[Any], int) -> None
        """The outputs of the ``size`` pictures from ``start`` on; what lies behind the last picture is left out."""
        import numpy

        for number, output in enumerate(outputs):
            if output.ndim == 0 or output.shape[0] != size:
                raise AgentError(
                    "output %d of the model has the shape %s, which is no row for each of %d pictures"
                    % (number, tuple(output.shape), size)
                )
            if len(self._shapes) == number and start == 0:
                self._streams.append(open(os.path.join(self._scratch, name_of(number) + ".npy"), "wb"))
                self._shapes.append((self._count,) + tuple(output.shape[1:]))
                descr = numpy.lib.format.dtype_to_descr(numpy.dtype(numpy.float32))
                header = {"descr": descr, "fortran_order": False, "shape": self._shapes[number]}
                numpy.lib.format.write_array_header_1_0(self._streams[number], header)
            shape = self._shapes[number] if number < len(self._shapes) else None
            if shape is None or shape[1:] != tuple(output.shape[1:]):
                raise AgentError(
                    "output %d of the model has the shape %s for one picture and %s for another: have the model pad its detections to "
                    "one number, as exporters of detectors do"
                    % (number, shape[1:] if shape is not None else "none", tuple(output.shape[1:]))
                )
            self._streams[number].write(numpy.ascontiguousarray(output[: self._count - start], numpy.float32).tobytes())

    def finish(self):
        # type: () -> None
        """Write the file, whole or not at all."""
        for stream in self._streams:
            stream.close()
        temporary = os.path.join(self._scratch, "all.npz")  # removed with the rest where the disk is full
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for number in range(len(self._shapes)):
                name = name_of(number) + ".npy"
                place, entry = os.path.join(self._scratch, name), zipfile.ZipInfo(name)  # no date: a board may have no clock
                entry.file_size = os.path.getsize(place)
                with open(place, "rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, 2**18)
        os.replace(temporary, self._path)

    def __exit__(self, *error):
        # type: (*Any) -> None
        for stream in self._streams:
            try:
                stream.close()
            except OSError:  # what a full disk did not take, of a file that is removed here
                pass
        shutil.rmtree(self._scratch, ignore_errors=True)
