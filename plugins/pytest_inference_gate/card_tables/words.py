"""What is wrong with a card, in words: one line a problem, with the key, what was found there and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from ..errors import CardError
from .model_card import PATTERNS_IN_WORDS, CheckpointFormat, ModelCard

# A problem is the dotted key and the sentence that says what was found and what was expected.
Problem = tuple[str, str]


def card_error(path: Path, problems: Sequence[Problem]) -> CardError:
    """One line where there is one problem, else one for each below the card's path."""
    lines = [f"{key}: {text}" if key else text for key, text in problems]
    if len(lines) == 1:
        return CardError(f"{path}: {lines[0]}")
    return CardError(f"{path} has {len(lines)} problems:\n" + "\n".join(f"  {line}" for line in lines))


def shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def found_in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    text = repr(value)
    return f"{shortened(text if text.isprintable() else ascii(value))} ({_type_in_words(value)})"


def _type_in_words(value: Any) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", tuple: "an array"}
    return names.get(type(value), f"a {type(value).__name__}")


def suggestion(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_key(key: str, known: Collection[str]) -> str:
    return f"found a key that is not known here; expected one of {', '.join(sorted(known))}{suggestion(key, known)}"


def unknown_name(value: str, kind: str, known: Collection[str]) -> str:
    return (
        f"found {found_in_words(value)}, which is no known {kind}; expected one of {', '.join(known)}{suggestion(value, known)}"
    )


def dotted(location: Sequence[int | str]) -> str:
    """The key at ``location``: ``tolerance.by_precision.int8``."""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            name = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shortened(part))
            key += f".{name}" if key else name
    return key


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """The keys that the section at ``location`` can have; empty where that is no section."""
    section: type[BaseModel] | None = ModelCard
    for part in location:
        if section is None or not isinstance(part, str) or part not in section.model_fields:
            # A key of a table of tables (tolerance.by_precision.int8): stay in the section that its values have.
            continue
        section = _section_in(section.model_fields[part].annotation)
    return [name for name in section.model_fields if name != "path"] if section is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    for argument in get_args(annotation):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


_EXPECTED_TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
    "string_unicode": "text",
    "int_parsing_size": "a smaller integer",
}


def finding_in_words(detail: Any) -> Problem:
    """One of pydantic's findings as a problem in this module's own words."""
    location: tuple[int | str, ...] = detail["loc"]
    kind: str = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    key = dotted(location)
    found = found_in_words(detail.get("input"))
    if kind == "missing":
        return key, "found nothing; this key is required" + _purpose(location)
    if kind == "extra_forbidden":
        return key, unknown_key(str(location[-1]), _fields_at(location[:-1]))
    if kind == "literal_error":
        known = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
        value = detail.get("input")
        return key, f"found {found}, expected one of {', '.join(known)}" + (
            suggestion(value, known) if isinstance(value, str) else ""
        )
    if kind == "string_pattern_mismatch":
        return key, f"found {found}, expected {PATTERNS_IN_WORDS[str(context['pattern'])]}"
    limits = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in limits:
        comparison = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}[limits[kind]]
        return key, f"found {found}, expected {comparison} {context[limits[kind]]:g}"
    if kind in ("too_short", "string_too_short"):
        return key, "found nothing in it, expected at least one value" if kind == "too_short" else "found an empty string"
    if kind in _EXPECTED_TYPES:
        return key, f"found {found}, expected {_EXPECTED_TYPES[kind]}"
    return key, f"found {found}, which is not a value that this key can have"


def _purpose(location: Sequence[int | str]) -> str:
    purposes = {
        "name": ": the model's name in test ids",
        "checkpoint": ": a table that says where the weights come from",
        "input": ": a table with the shape of the model's input",
        "shape": ": such as [224, 224, 3]",
        "labels": ": a table with the count of classes",
        "count": ": how many classes the model has",
        "backends": ": a table such as tflite = ['fp32', 'int8']",
        "format": f": one of {', '.join(get_args(CheckpointFormat))}",
    }
    return purposes.get(str(location[-1]), "")
