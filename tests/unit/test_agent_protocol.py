"""Frames between the plugin and an agent."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent.protocol import MAGIC, MAXIMUM_BODY_BYTES, FrameDecoder, ProtocolError, encode_frame, receive

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)
messages = st.dictionaries(st.text(), json_values, max_size=5)


def frame_with_body(body: bytes) -> bytes:
    return MAGIC + struct.pack(">I", len(body)) + body


def reader(data: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """A pipe that holds ``data`` and gives at most so many bytes at each read, then all, then the end."""
    remaining, chunks = bytearray(data), list(sizes)

    def read(size: int) -> bytes:
        take = min(size, chunks.pop(0) if chunks else size)
        part = bytes(remaining[:take])
        del remaining[:take]
        return part

    return read


def read_all(data: bytes, sizes: list[int]) -> list[dict[str, Any]]:
    decoder, read, found = FrameDecoder(), reader(data, sizes), []
    while (message := receive(read, decoder)) is not None:
        found.append(message)
    return found


@given(st.lists(messages, max_size=4), st.lists(st.integers(1, 40), max_size=60))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent: list[dict[str, Any]], sizes: list[int]) -> None:
    assert read_all(b"".join(encode_frame(message) for message in sent), sizes) == sent


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20))
def test_garbage_is_an_error_or_nothing_and_never_hangs(data: bytes, sizes: list[int]) -> None:
    try:
        found = read_all(data, sizes)
    except ProtocolError:
        return
    assert found or not data


@given(st.binary(max_size=100))
def test_garbage_as_a_body_is_an_error_or_an_object(body: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(frame_with_body(body))
    with contextlib.suppress(ProtocolError):
        assert isinstance(decoder.next_message(), dict)


@given(messages, st.data())
def test_a_stream_that_ends_inside_a_frame_is_an_error(message: dict[str, Any], data: st.DataObject) -> None:
    frame = encode_frame(message)
    cut = data.draw(st.integers(1, len(frame) - 1))
    with pytest.raises(ProtocolError, match="ended inside a frame"):
        read_all(frame[:cut], [])


@pytest.mark.parametrize("start", [b"H", b"IGP2", b"\x00", b"IGx", b"Python 3.6 is too old\n"])
def test_what_is_no_frame_is_known_at_its_first_wrong_byte(start: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected a frame"):
        FrameDecoder().feed(start)


def test_garbage_behind_a_frame_is_an_error_after_that_frame() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame({"id": 1}) + b"printed")
    assert decoder.next_message() == {"id": 1}
    with pytest.raises(ProtocolError, match="printed"):
        decoder.next_message()


def test_a_frame_that_announces_too_much_is_refused_before_its_body() -> None:
    with pytest.raises(ProtocolError, match="more than"):
        FrameDecoder().feed(MAGIC + struct.pack(">I", MAXIMUM_BODY_BYTES + 1))


def test_a_frame_that_would_be_too_long_is_not_made() -> None:
    with pytest.raises(ProtocolError, match="longer than"):
        encode_frame({"text": "x" * MAXIMUM_BODY_BYTES})


@pytest.mark.parametrize("body", [b"[1]", b"1", b"null", b"", b"{", b"\xff", b'{"a": NaN}', b'{"a": -Infinity}', b"[" * 100_000])
def test_bodies_that_are_no_json_object(body: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(frame_with_body(body))
    with pytest.raises(ProtocolError):
        decoder.next_message()


@pytest.mark.parametrize("message", [{"a": float("nan")}, {"a": object()}, {"a": b"bytes"}, [1], None])
def test_messages_that_json_cannot_say(message: Any) -> None:
    with pytest.raises(ProtocolError):
        encode_frame(message)
