"""What a TensorFlow Lite file says of itself, read without a runtime: its ends, its precision, and the metadata that may go with it.

Metadata is a FlatBuffers file of its own in a buffer named ``TFLITE_METADATA``; the files that it names, such as one of labels, are
appended to the model as a zip archive. Fields by number are those of ``metadata_schema.fbs`` of TensorFlow Lite Support 0.4.4.
"""

import os
import struct
import zipfile
from typing import Any, Callable, Dict, List, Optional  # noqa: F401

from . import tflite_file
from .failures import LoadError
from .tflite_file import Table  # noqa: F401

METADATA = "TFLITE_METADATA"
_NORMALIZATION = 1  # the number of NormalizationOptions in the union ProcessUnitOptions
_AXIS_LABELS = 2  # a file with one label for each place on the last axis
_ARITHMETIC = ("MUL", "SUB", "ADD", "DIV")
_MOST_LABEL_BYTES = 16 * 2**20


def describe(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    path = request["path"]
    progress("reading the TensorFlow Lite file")
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        parsed = tflite_file.parse(content)
        root = tflite_file.root(content)
        graph = next(iter(root.tables(2)))
        tables = list(graph.tables(0))
        inputs, outputs = ([_tensor(tables[index]) for index in graph.numbers(field) if index >= 0] for field in (1, 2))
        result = {
            "inputs": inputs,
            "outputs": outputs,
            "precision": _precision(parsed, graph, inputs, outputs),
            "scaling_inside": _first_arithmetic(parsed, graph),
            "family": parsed.description,
        }
        result.update(_metadata(path, content, root))
    except tflite_file.NotTfLiteError as error:
        raise LoadError("%s is no TensorFlow Lite model: %s" % (os.path.basename(path), error))
    except (struct.error, IndexError, StopIteration):
        raise LoadError("%s begins as a TensorFlow Lite file, but was cut or damaged" % os.path.basename(path))
    return result


def _tensor(table):
    # type: (Table) -> Dict[str, Any]
    number = table.number(1, "b")
    dtype = tflite_file.TENSOR_TYPES[number] if 0 <= number < len(tflite_file.TENSOR_TYPES) else "type %d" % number
    shape = [int(size) for size in table.numbers(7) or table.numbers(0)]  # 7: the signature, with -1 for what is not fixed
    quantization = table.table(4)
    scales = quantization.floats(2) if quantization is not None else []
    points = quantization.long_numbers(3) if quantization is not None else []
    return {
        "name": table.text(3),
        "shape": [size if size >= 0 else None for size in shape],
        "dtype": dtype,
        "scale": float(scales[0]) if scales else None,
        "zero_point": int(points[0]) if points else 0 if scales else None,
    }


def _precision(parsed, graph, inputs, outputs):
    # type: (Any, Table, List[Dict[str, Any]], List[Dict[str, Any]]) -> str
    """By the types of what operators compute and of what is stored: the precision as the backend ``tflite`` calls it."""
    integers = ("int8", "uint8", "int16")
    if inputs and outputs and all(one["dtype"] in integers and one["scale"] for one in inputs[:1] + outputs[:1]):
        return "full_int8"
    types = [_type(table) for table in graph.tables(0)]
    computed, results = set(), set()
    for operator, table in zip(parsed.operators, graph.tables(3)):
        for index in table.numbers(2):
            results.add(index)
            if operator.name not in ("QUANTIZE", "DEQUANTIZE") and 0 <= index < len(types):
                computed.add(types[index])
    stored = {dtype for index, dtype in enumerate(types) if index not in results}
    if "int8" in computed or "uint8" in computed:
        return "int8"
    if "int8" in stored or "uint8" in stored - {one["dtype"] for one in inputs}:
        return "dynamic"
    return "fp16" if "float16" in stored else "fp32"


def _type(table):
    # type: (Table) -> str
    number = table.number(1, "b")
    return tflite_file.TENSOR_TYPES[number] if 0 <= number < len(tflite_file.TENSOR_TYPES) else ""


def _first_arithmetic(parsed, graph):
    # type: (Any, Table) -> List[str]
    """The operators that scale and shift the input before anything else is made of it."""
    found = []  # type: List[str]
    current = set(graph.numbers(1))
    for operator, table in zip(parsed.operators, graph.tables(3)):
        if current.intersection(table.numbers(1)):
            if operator.name not in _ARITHMETIC:
                break
            found.append(operator.name)
            current = set(table.numbers(2))
    return found


def _metadata(path, content, root):
    # type: (str, bytes, Table) -> Dict[str, Any]
    buffers = list(root.tables(4))
    for entry in root.tables(6):
        index = entry.number(1, "I")
        if entry.text(0) == METADATA and index < len(buffers):
            data = buffers[index].data(0)
            if len(data) > 8:
                return _of_metadata(path, tflite_file.root(data))
    return {}


def _of_metadata(path, model):
    # type: (str, Table) -> Dict[str, Any]
    result = {}  # type: Dict[str, Any]
    graph = next(iter(model.tables(3)), None)
    if graph is None:
        return result
    first_input = next(iter(graph.tables(2)), None)
    for unit in first_input.tables(4) if first_input is not None else ():
        options = unit.table(1)
        if unit.number(0, "B") == _NORMALIZATION and options is not None:
            mean, deviation = options.floats(0), options.floats(1)
            if mean and deviation and all(deviation):
                result["normalization"] = {"mean": mean, "std": deviation}
    first_output = next(iter(graph.tables(3)), None)
    for file in first_output.tables(6) if first_output is not None else ():
        if file.number(2, "b") == _AXIS_LABELS and result.get("labels") is None:
            result["labels"] = _lines(path, file.text(0))
    return result


def _lines(path, name):
    # type: (str, str) -> Optional[List[str]]
    """The lines of a file in the archive that is appended to the model; None where there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > _MOST_LABEL_BYTES:
                return None
            lines = archive.read(name).decode("utf-8").splitlines()
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, NotImplementedError, RuntimeError):
        return None
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]
