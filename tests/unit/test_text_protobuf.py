"""The text format of protocol buffers: what is written is read, and what is none is refused with its line."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_inference_gate.detection.text_protobuf import Message, TextProtobufError, Value, Word, parse

NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z")
WORDS = st.from_regex(r"\A[A-Z][A-Z0-9_]{0,8}\Z").filter(lambda word: word.lower() not in ("inf", "infinity", "nan")).map(Word)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
SCALARS = st.booleans() | NUMBERS | st.text(max_size=8) | WORDS


def _message(fields: dict[str, list[Value]]) -> Message:
    message = Message()
    message.fields = fields
    return message


MESSAGES = st.recursive(
    st.dictionaries(NAMES, st.lists(SCALARS, min_size=1, max_size=3), max_size=3).map(_message),
    lambda inner: st.dictionaries(NAMES, st.lists(inner | SCALARS, min_size=1, max_size=3), max_size=3).map(_message),
    max_leaves=8,
)


class Writer:
    """One of the many ways in which a message can be written."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def one_of(self, *texts: str) -> str:
        return self._draw(st.sampled_from(texts))

    def blank(self) -> str:
        return self.one_of(" ", "\n", "\t", '  # a remark: { [ "\n', "\r\n")

    def fields(self, message: Message) -> str:
        text = self.blank()
        for name, values in message.fields.items():
            if len(values) > 1 and not any(isinstance(value, Message) for value in values) and self._draw(st.booleans()):
                text += f"{name}: [{', '.join(self.value(value) for value in values)}]"
                text += self.one_of("", ",", ";") + self.blank()
                continue
            for value in values:
                colon = self.one_of("", ":") if isinstance(value, Message) else ":"
                text += (
                    name
                    + self.one_of("", " ")
                    + colon
                    + self.blank()
                    + self.value(value)
                    + self.one_of("", ",", ";")
                    + self.blank()
                )
        return text

    def value(self, value: Value) -> str:
        if isinstance(value, Message):
            opening, closing = self._draw(st.sampled_from(["{}", "<>"]))
            return opening + self.fields(value) + closing
        if isinstance(value, Word):
            return str(value)
        if isinstance(value, str):
            quote = self.one_of('"', "'")
            escaped = "".join(_escaped(letter, quote) for letter in value)
            middle = len(value) // 2
            parts = (
                [escaped]
                if self._draw(st.booleans())
                else ["".join(_escaped(letter, quote) for letter in part) for part in (value[:middle], value[middle:])]
            )
            return self.one_of(" ", "\n").join(f"{quote}{part}{quote}" for part in parts)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and math.isinf(value):
            return ("-" if value < 0 else "") + self.one_of("inf", "Infinity")
        if isinstance(value, int) and self._draw(st.booleans()):
            return f"{'-' if value < 0 else ''}{abs(value):#x}"
        return repr(value) + (self.one_of("", "f") if isinstance(value, float) else "")


def _escaped(letter: str, quote: str) -> str:
    if letter in ("\\", quote):
        return "\\" + letter
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


@st.composite
def written(draw: st.DrawFn) -> tuple[Message, str]:
    message = draw(MESSAGES)
    return message, Writer(draw).fields(message)


@given(written())
def test_what_is_written_is_read(both: tuple[Message, str]) -> None:
    message, text = both
    found = parse(text)
    assert found == message
    assert repr(found) == repr(message)  # 1 is not True, nor 1.0


@given(st.text() | st.text(alphabet="a1:{}<>[],;-\"'\\#\n .xf", max_size=30))
@example("a {" * 150)
@example("a: " + "9" * 5000)
def test_no_text_raises_anything_but_what_says_the_line(text: str) -> None:
    said = ""
    try:
        parse(text)
    except TextProtobufError as error:
        said = str(error)
    assert not said or said.startswith("line ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model {\n  ssd {\n", "line 3: found the end, expected the name of a field or '}'"),
        ("model {\n  ssd >\n}", "line 2: found '>', expected ':' or '{'"),
        ("a: 1\nb: }", "line 2: found '}', expected a value"),
        ("a: [1 2]", "line 1: found '2', expected ',' or ']'"),
        ("a: 1 }", "line 1: found '}', expected the name of a field"),
        ("a: -true", "expected a value"),
        ("a: 1abc", "begins nothing that is known"),
        ("a: 'no end", "begins nothing that is known"),
        ("version https://git-lfs.github.com/spec/v1", "line 1: found '//git-lfs.gi', which begins nothing that is known"),
        ("a {" * 150, "more than 100 messages inside each other"),
    ],
)
def test_what_is_no_message_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(TextProtobufError) as caught:
        parse(text)
    assert words in str(caught.value)


def test_what_else_the_format_has() -> None:
    message = parse("[a.b/c.d] { x: 017 y: .5e1f z: '\\101\\x42\\n' } e: NAN empty: []")
    assert message.messages("a.b/c.d")[0].fields == {"x": [15], "y": [5.0], "z": ["AB\n"]}
    assert math.isnan(float(message.scalars("e")[0]))
    assert "empty" not in message
