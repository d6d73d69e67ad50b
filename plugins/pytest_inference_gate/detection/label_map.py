"""The label maps of TensorFlow's Object Detection API: which number a model gives to which class."""

from __future__ import annotations

from pathlib import Path

from ..errors import EvaluationDataError
from .text_protobuf import Message, TextProtobufError, parse


def read_label_map(path: Path, text: str, count: int) -> dict[str, int]:
    """Name to class, counted from 0, of a ``label_map.pbtxt``: an item's id counts from 1, and its display name goes before its name.

    Ids need not follow each other: the models of COCO leave ten of 90 out. Raises :class:`EvaluationDataError` for a file without
    items, one without an id or a name, an id or a name of two items, and an id beyond ``count``.
    """
    try:
        items = parse(text).messages("item")
    except TextProtobufError as error:
        raise EvaluationDataError(
            f"{path} has no item of a label map ({error}); expected item {{ id: 1 name: '...' }} for each class."
        ) from None
    if not items:
        raise EvaluationDataError(f"{path} has no item of a label map; expected item {{ id: 1 name: '...' }} for each class.")
    names: dict[str, int] = {}
    for item in items:
        # Only the item's own: keypoints inside it have ids too.
        name, ids = _text(item, "display_name") or _text(item, "name"), item.scalars("id")
        number = ids[-1] if ids else None
        if not name or not isinstance(number, int) or isinstance(number, bool):
            told = ", ".join(f"{key} {item.scalars(key)[-1]!r}" for key in item.fields if item.scalars(key)) or "nothing"
            raise EvaluationDataError(f"{path} has an item without an id or a name (it has {told}); complete it.")
        if not 1 <= number <= count:
            raise EvaluationDataError(
                f"{path} has the id {number} for {name!r}, and labels.count is {count}; expected ids from 1 to {count}."
            )
        same = next((other for other, index in names.items() if index == number - 1 or other == name), None)
        if same is not None:
            raise EvaluationDataError(
                f"{path} has the id {number} for {name!r} and {names[same] + 1} for {same!r}; give each item its own id and its own name."
            )
        names[name] = number - 1
    return names


def _text(item: Message, key: str) -> str:
    found = item.scalars(key)
    return found[-1] if found and isinstance(found[-1], str) else ""
