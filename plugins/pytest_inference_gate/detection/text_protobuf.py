"""Protocol buffers in their text format, read without their schema: what a field is called and what stands there.

The language is that of https://protobuf.dev/reference/protobuf/textformat-spec/, but for the names of extensions and packed messages in
brackets, whose values are skipped over like any others. Numbers stay numbers, ``true`` and ``false`` become booleans, and other bare words,
the names of enumerations, become :class:`Word`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from ..errors import GateError

DEEPEST = 100
"""Messages inside each other; protobuf's own readers allow as many."""

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n\v\f]+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<number>(?:0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fF]?(?![A-Za-z0-9_.]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<extension>\[[ \t]*[A-Za-z_][A-Za-z0-9_./-]*[ \t]*\](?=[ \t\r\n]*[:{<]))
      | (?P<sign>[:{}<>\[\],;-])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)


class TextProtobufError(GateError):
    """The text is no message: the sentence says where and what was expected."""


class Word(str):
    """A bare word: the name of an enumeration's value."""

    __slots__ = ()


class Message:
    """The fields of a message: a name may stand several times, and a message again has fields."""

    def __init__(self) -> None:
        self.fields: dict[str, list[Value]] = {}

    def add(self, name: str, value: Value) -> None:
        self.fields.setdefault(name, []).append(value)

    def messages(self, name: str) -> list[Message]:
        return [value for value in self.fields.get(name, []) if isinstance(value, Message)]

    def message(self, name: str) -> Message:
        """The message of that name, of several the last; an empty one where there is none."""
        found = self.messages(name)
        return found[-1] if found else Message()

    def scalars(self, name: str) -> list[Scalar]:
        return [value for value in self.fields.get(name, []) if not isinstance(value, Message)]

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self.fields == other.fields

    def __repr__(self) -> str:
        return f"Message({self.fields!r})"

    __hash__ = None  # type: ignore[assignment]  # fields are added to it


Scalar = bool | int | float | str
Value = Message | bool | int | float | str


def parse(text: str) -> Message:
    """Raises :class:`TextProtobufError` with the line at which the text stops being a message."""
    return _Reader(text).whole()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._place = 0

    def whole(self) -> Message:
        message = self._fields("", 0)
        kind, token, line = self._next()
        if kind != "end":
            raise TextProtobufError(f"line {line}: found {token!r}, expected the name of a field")
        return message

    def _next(self) -> tuple[str, str, int]:
        token = self._tokens[self._place]
        if token[0] != "end":
            self._place += 1
        return token

    def _sees(self, signs: str) -> bool:
        kind, token, _ = self._tokens[self._place]
        return kind == "sign" and token in signs

    def _takes(self, signs: str) -> bool:
        if self._sees(signs):
            self._place += 1
            return True
        return False

    def _fields(self, end: str, depth: int) -> Message:
        message = Message()
        while True:
            kind, token, line = self._tokens[self._place]
            if kind not in ("word", "extension"):
                if end and not self._takes(end):
                    found = repr(token) if token else "the end"
                    raise TextProtobufError(f"line {line}: found {found}, expected the name of a field or {end!r}")
                return message
            self._place += 1
            for value in self._values(depth):
                message.add(token.strip("[ \t]"), value)
            self._takes(",;")

    def _values(self, depth: int) -> list[Value]:
        if self._takes(":"):
            if self._takes("["):
                return self._list(depth)
            return [self._value(depth)]
        if self._sees("{<"):
            return [self._value(depth)]
        _, token, line = self._tokens[self._place]
        raise TextProtobufError(f"line {line}: found {repr(token) if token else 'the end'}, expected ':' or '{{'")

    def _list(self, depth: int) -> list[Value]:
        values: list[Value] = []
        if self._takes("]"):
            return values
        while True:
            values.append(self._value(depth))
            if self._takes("]"):
                return values
            if not self._takes(","):
                _, token, line = self._tokens[self._place]
                raise TextProtobufError(f"line {line}: found {repr(token) if token else 'the end'}, expected ',' or ']'")

    def _value(self, depth: int) -> Value:
        kind, token, line = self._next()
        if kind == "sign" and token in "{<":
            if depth + 1 >= DEEPEST:
                raise TextProtobufError(f"line {line}: found more than {DEEPEST} messages inside each other")
            return self._fields("}" if token == "{" else ">", depth + 1)
        if kind == "string":
            parts = [_unescaped(token[1:-1], line)]
            while self._tokens[self._place][0] == "string":
                parts.append(_unescaped(self._next()[1][1:-1], line))
            return "".join(parts)
        negative = kind == "sign" and token == "-"
        if negative:
            kind, token, line = self._next()
        if kind == "number":
            number = _number(token)
            return -number if negative else number
        if kind == "word":
            if token.lower() in ("inf", "infinity", "nan"):
                return (-1 if negative else 1) * (math.nan if token.lower() == "nan" else math.inf)
            if not negative:
                return {"true": True, "false": False}.get(token, Word(token))
        raise TextProtobufError(f"line {line}: found {repr(token) if token else 'the end'}, expected a value")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    place, line = 0, 1
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise TextProtobufError(f"line {line}: found {text[place : place + 12]!r}, which begins nothing that is known")
        kind = str(match.lastgroup)
        if kind != "blank":
            yield kind, match.group(), line
        line += match.group().count("\n")
        place = match.end()
    yield "end", "", line


def _number(token: str) -> int | float:
    if token[:2].lower() == "0x":
        return int(token, 16)
    plain = token.rstrip("fF")
    if plain.isdigit() and plain == token:
        octal = len(plain) > 1 and plain.startswith("0") and set(plain) <= set("01234567")
        # Longer ones are no whole numbers of protobuf, whose largest has twenty digits, and Python turns none of thousands into a number.
        return int(plain, 8 if octal else 10) if len(plain) <= 40 else float(plain)
    return float(plain)


def _unescaped(text: str, line: int) -> str:
    def one(match: re.Match[str]) -> str:
        octal, hexadecimal, short, long, letter = match.groups()
        if octal is not None:
            return chr(int(octal, 8))
        for digits in (hexadecimal, short, long):
            if digits is not None:
                code = int(digits, 16)
                if code > 0x10FFFF:
                    raise TextProtobufError(f"line {line}: found {match.group()}, which is no character")
                return chr(code)
        return _ESCAPES.get(letter, letter)

    return _ESCAPE.sub(one, text)
