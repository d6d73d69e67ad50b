"""Small TensorFlow Lite files, written by hand: as much of the format as the agent reads."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

Child = Callable[[bytearray], int]
Field = "int | Child | None"
BUILTIN = {"CONV_2D": 3, "DEQUANTIZE": 6, "FULLY_CONNECTED": 9, "SOFTMAX": 25, "QUANTIZE": 114, "STABLEHLO_CASE": 209}
CUSTOM = 32
TYPES = {"float32": 0, "int8": 9}


def _align(content: bytearray) -> None:
    content.extend(b"\0" * (-len(content) % 4))


def _patch(content: bytearray, place: int, child: Child) -> None:
    target = child(content)
    struct.pack_into("<I", content, place, target - place)


def table(*fields: int | bytes | Child | None) -> Child:
    """A table whose fields are numbers of 32 bits, bytes of one, children, or absent."""

    def write(content: bytearray) -> int:
        _align(content)
        vtable, size = len(content), 4 + 2 * len(fields)
        present = [number for number, field in enumerate(fields) if field is not None]
        offsets = [4 + 4 * present.index(number) if number in present else 0 for number in range(len(fields))]
        content.extend(struct.pack(f"<HH{len(fields)}H", size, 4 + 4 * len(present), *offsets))
        _align(content)
        start = len(content)
        content.extend(struct.pack("<i", start - vtable) + b"\0" * (4 * len(present)))
        for number, field in enumerate(fields):
            place = start + offsets[number]
            if isinstance(field, bytes):
                content[place : place + 1] = field
            elif isinstance(field, int):
                struct.pack_into("<i", content, place, field)
            elif field is not None:
                _patch(content, place, field)
        return start

    return write


def tables(children: Sequence[Child]) -> Child:
    def write(content: bytearray) -> int:
        _align(content)
        start = len(content)
        content.extend(struct.pack("<I", len(children)) + b"\0" * (4 * len(children)))
        for number, child in enumerate(children):
            _patch(content, start + 4 + 4 * number, child)
        return start

    return write


def numbers(values: Sequence[int]) -> Child:
    def write(content: bytearray) -> int:
        _align(content)
        start = len(content)
        content.extend(struct.pack(f"<I{len(values)}i", len(values), *values))
        return start

    return write


def floats(values: Sequence[float]) -> Child:
    return numbers([struct.unpack("<i", struct.pack("<f", value))[0] for value in values])


def data(value: bytes) -> Child:
    def write(content: bytearray) -> int:
        _align(content)
        start = len(content)
        content.extend(struct.pack("<I", len(value)) + value)
        return start

    return write


def text(value: str) -> Child:
    def write(content: bytearray) -> int:
        _align(content)
        start, data = len(content), value.encode()
        content.extend(struct.pack("<I", len(data)) + data + b"\0")
        return start

    return write


def operator_code(name: str, *, version: int = 1, old_writer: bool = False) -> Child:
    """``old_writer``: before the second field for numbers beyond 127 was there."""
    number = BUILTIN.get(name, CUSTOM)
    custom = None if name in BUILTIN else text(name)
    return table(bytes([min(number, 127)]), custom, version, None if old_writer else number)


def file_of(root: Child, identifier: bytes) -> bytes:
    """A file with this outermost table."""
    content = bytearray(b"\0\0\0\0" + identifier)
    _patch(content, 0, root)
    return bytes(content)


def model(operators: Sequence[str], *, dtype: str = "int8", old_writer: bool = False, metadata: bytes | None = None) -> bytes:
    """A file with one subgraph of these operators, builtin or custom, between one input and one output."""
    names = sorted(set(operators))
    tensors = [table(numbers([1, 4]), bytes([TYPES[dtype]]), 0, text(name)) for name in ("in", "out")]
    graph = table(
        tables(tensors),
        numbers([0]),
        numbers([1]),
        tables([table(names.index(name), numbers([0]), numbers([1])) for name in operators]),
    )
    codes = tables([operator_code(name, old_writer=old_writer) for name in names])
    described = (None, None)
    if metadata is not None:
        described = (tables([table(), table(data(metadata))]), tables([table(text("TFLITE_METADATA"), 1)]))
    root = table(3, codes, tables([graph]), text("made by hand"), described[0], None, described[1])
    return file_of(root, b"TFL3")
