"""The label maps of TensorFlow's Object Detection API: which number a model gives to which class."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import EvaluationDataError

_ITEM = re.compile(r"item\s*:?\s*\{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(\d+|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')")


def read_label_map(path: Path, text: str, count: int) -> dict[str, int]:
    """Name to class, counted from 0, of a ``label_map.pbtxt``: an item's id counts from 1, and its display name goes before its name.

    Ids need not follow each other: the models of COCO leave ten of 90 out. Raises :class:`EvaluationDataError` for a file without
    items, one without an id or a name, and an id beyond ``count``.
    """
    # A comment reaches to the end of its line; none of the zoo's names has a # in it.
    items = _ITEM.findall(re.sub(r"#[^\n]*", "", text))
    if not items:
        raise EvaluationDataError(f"{path} has no item of a label map; expected item {{ id: 1 name: '...' }} for each class.")
    names: dict[str, int] = {}
    for item in items:
        fields = {key: value.strip("\"'") for key, value in _FIELD.findall(item)}
        name = fields.get("display_name") or fields.get("name")
        if not name or not fields.get("id", "").isdigit():
            raise EvaluationDataError(f"{path} has an item without an id or a name ({' '.join(item.split())}); complete it.")
        number = int(fields["id"])
        if not 1 <= number <= count:
            raise EvaluationDataError(
                f"{path} has the id {number} for {name!r}, and labels.count is {count}; expected ids from 1 to {count}."
            )
        names[name] = number - 1
    return names
