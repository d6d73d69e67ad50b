"""Frames: how the plugin and an agent talk over a pair of pipes.

A frame is the magic ``IGP1``, the length of the body as four bytes (big-endian), and the body, one JSON object in UTF-8. Both sides use
this module. Whatever arrives that is not such a frame raises :class:`ProtocolError` as soon as it can be known, so that a program which
prints into the pipe is told from an agent at its first byte.
"""

import json
import struct
from typing import Any, Callable, Dict, Optional  # noqa: F401

VERSION = 1
MAGIC = b"IGP1"
MAXIMUM_BODY_BYTES = 64 * 2**20
_HEADER = struct.Struct(">4sI")


class ProtocolError(Exception):
    """The bytes on the pipe are no frame; nothing after them can be trusted."""


def encode_frame(message):
    # type: (Dict[str, Any]) -> bytes
    """The frame that carries ``message``; :class:`ProtocolError` where JSON cannot say it (NaN, foreign objects) or it is too long."""
    if not isinstance(message, dict):
        raise ProtocolError("a frame carries a JSON object, not a %s" % type(message).__name__)
    try:
        body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError("a frame cannot carry this message: %s" % error)
    if len(body) > MAXIMUM_BODY_BYTES:
        raise ProtocolError("a frame of %d bytes is longer than the %d that are allowed" % (len(body), MAXIMUM_BODY_BYTES))
    return _HEADER.pack(MAGIC, len(body)) + body


def _refuse_constant(name):
    # type: (str) -> Any
    raise ValueError("%s is not JSON" % name)


def _decode_body(body):
    # type: (bytes) -> Dict[str, Any]
    try:
        message = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the body of a frame is not JSON: %s" % error)
    if not isinstance(message, dict):
        raise ProtocolError("the body of a frame is a JSON %s, not an object" % type(message).__name__)
    return message


class FrameDecoder:
    """Turns a stream of bytes, cut anywhere, into messages."""

    def __init__(self):
        # type: () -> None
        self._buffer = bytearray()

    def feed(self, data):
        # type: (bytes) -> None
        """Add what was read; :class:`ProtocolError` if the stream cannot be frames any more."""
        self._buffer += data
        self._check_header()

    def _check_header(self):
        # type: () -> Optional[int]
        """The length of the body that comes next, or None while its header is incomplete."""
        start = bytes(self._buffer[: len(MAGIC)])
        if not MAGIC.startswith(start):
            raise ProtocolError("expected a frame, got %r" % bytes(self._buffer[:80]))
        if len(self._buffer) < _HEADER.size:
            return None
        length = _HEADER.unpack_from(self._buffer)[1]  # type: int
        if length > MAXIMUM_BODY_BYTES:
            raise ProtocolError("a frame announces %d bytes, more than the %d that are allowed" % (length, MAXIMUM_BODY_BYTES))
        return length

    def next_message(self):
        # type: () -> Optional[Dict[str, Any]]
        """The next whole message, or None until more is fed."""
        length = self._check_header()
        if length is None:
            return None
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return _decode_body(body)

    def end(self):
        # type: () -> None
        """Call at the end of the stream; :class:`ProtocolError` if it ended inside a frame."""
        if self._buffer:
            raise ProtocolError("the stream ended inside a frame, after %d bytes of it" % len(self._buffer))


def receive(read, decoder):
    # type: (Callable[[int], bytes], FrameDecoder) -> Optional[Dict[str, Any]]
    """The next message from ``read(size)``, which may return less than ``size`` and returns ``b""`` at the end; None at a clean end."""
    while True:
        message = decoder.next_message()
        if message is not None:
            return message
        data = read(65536)
        if not data:
            decoder.end()
            return None
        decoder.feed(data)
