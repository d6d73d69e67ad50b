"""From a file of preprocessed pictures to batches of one size, and back to one file of outputs."""

import os
from typing import Any  # noqa: F401

import numpy

from . import model_outputs
from .failures import AgentError


def _load(path):
    # type: (str) -> Any
    array = numpy.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim < 2 or len(array) == 0:
        raise AgentError("%s holds no pictures: its shape is %s" % (path, tuple(array.shape)))
    return array


def _batch(array, start, size):
    # type: (Any, int, int) -> Any
    """``size`` rows from ``start`` on; where they end, the last one is repeated."""
    rows = numpy.asarray(array[start : start + size])
    if len(rows) < size:
        rows = numpy.concatenate([rows, numpy.repeat(rows[-1:], size - len(rows), axis=0)])
    return numpy.ascontiguousarray(rows)


def first_batch(path, size):
    # type: (str, int) -> Any
    return _batch(_load(path), 0, size)


class Batches:
    """``count`` batches of ``size`` pictures of the file ``path``, each other pictures than the one before.

    They begin evenly spaced, ``size`` apart where there are pictures enough; a batch that the file ends in goes on from its beginning.
    """

    def __init__(self, path, size, count):
        # type: (str, int, int) -> None
        self._array = _load(path)
        there = len(self._array)
        if there < count:
            raise AgentError("rounds on %d pictures in turn need as many, and %s holds %d" % (count, path, there))
        self._size, self._step = size, max(1, min(size, there // count))

    def take(self, number):
        # type: (int) -> Any
        first = number * self._step
        if first + self._size <= len(self._array):
            return _batch(self._array, first, self._size)
        rows = [(first + row) % len(self._array) for row in range(self._size)]
        return numpy.ascontiguousarray(self._array[rows])


def predict(runner, size, inputs_path, outputs_path, all_outputs=False):
    # type: (Any, int, str, str, bool) -> int
    """Write the float32 output (N, values) of all pictures of ``inputs_path`` as ``.npy``; returns N.

    ``all_outputs``: every output of the model with its own shape, as ``.npz`` with ``output_0`` (N, ...) and so on.
    """
    array = _load(inputs_path)
    if all_outputs:
        return _predict_all(runner, size, array, outputs_path)
    outputs = []
    for start in range(0, len(array), size):
        runner.set_inputs(_batch(array, start, size))
        runner.infer()
        output = runner.get_output()
        if output.size % size or (output.ndim and output.shape[0] != size):
            raise AgentError(
                "the model's output has the shape %s, which is no row for each of %d pictures" % (tuple(output.shape), size)
            )
        outputs.append(numpy.array(output, dtype=numpy.float32).reshape(size, -1)[: len(array) - start])
    result = numpy.concatenate(outputs)
    temporary = "%s.%d.tmp" % (outputs_path, os.getpid())
    with open(temporary, "wb") as stream:
        try:
            # Not numpy.save, which does not say why it could not write.
            numpy.lib.format.write_array_header_1_0(stream, numpy.lib.format.header_data_from_array_1_0(result))
            stream.write(result.data)
            stream.flush()
        except Exception:
            os.unlink(temporary)
            raise
    os.replace(temporary, outputs_path)
    return len(result)


def _predict_all(runner, size, array, outputs_path):
    # type: (Any, int, Any, str) -> int
    with model_outputs.Writer(outputs_path, len(array)) as writer:
        for start in range(0, len(array), size):
            runner.set_inputs(_batch(array, start, size))
            runner.infer()
            writer.put(start, model_outputs.of(runner), size)
        writer.finish()
    return len(array)
