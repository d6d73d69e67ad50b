"""The text of a model card, with comments that say where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .described_model import DescribedModel
from .preprocessing_candidates import KEYS, Candidate
from .preprocessing_search import Found, Tried

CHECK = "check this"
_TRIED_SHOWN = 12


@dataclass(frozen=True)
class CardContent:
    """``checkpoint``: the model's path as the card says it. ``evaluation``, ``calibration``: the tables of those names, None where the
    card has none; ``right`` of ``evaluated`` pictures the float model gets right. ``doubts``: by key, why it should be checked.
    """

    name: str
    model: DescribedModel
    checkpoint: str
    preprocessing: Candidate
    labels: Mapping[str, Any]
    labels_note: str
    evaluation: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    backends: Mapping[str, Sequence[str]]
    elsewhere: Mapping[str, Sequence[str]]
    found: Found | None = None
    right: int | None = None
    evaluated: int = 0
    doubts: Mapping[str, str] = field(default_factory=dict)


def card_text(content: CardContent) -> str:
    """The card as TOML; the same content gives the same text."""
    model = content.model
    lines = [
        f"# {content.name}: written by inference-gate init. What each key means: reference/model-cards.md of the documentation.",
        f"name = {toml(content.name)}",
        "",
        "[checkpoint]",
        f"format = {toml(model.file.format)}",
        f"file = {toml(content.checkpoint)}",
    ]
    if model.architecture is not None:
        lines.append(f"architecture = {toml(dict(model.architecture))}")
    lines += ["", f"# As the file says: {_told_by_the_file(model)}.", "[input]", f"shape = {toml(list(model.input.shape))}"]
    lines += [f"dtype = {toml(model.input.dtype)}", f"layout = {toml(model.input.layout)}"]
    lines += ["", *_preprocessing(content)]
    lines += ["", "[labels]", *_table({"count": model.classes, **content.labels}, content.doubts, "labels", content.labels_note)]
    lines += ["", *_data(content), "", *_tolerance(content), "", *_backends(content)]
    if model.batch not in (None, 1):
        # A key of the top level goes before all tables.
        lines.insert(2, f"batches = [{model.batch}]  # the only batch that the file takes")
    return "\n".join(lines) + "\n"


def _told_by_the_file(model: DescribedModel) -> str:
    told = [f"{model.pictures_in_words}, {model.classes} outputs"]
    if model.opset is not None:
        told.append(f"opset {model.opset}")
    if model.precision is not None:
        told.append(f"precision {model.precision}")
    if model.scaling_inside:
        told.append(f"it scales its input itself: {', '.join(model.scaling_inside)}")
    if model.normalization is not None:
        mean, deviation = (", ".join(f"{value:g}" for value in values) for values in model.normalization)
        told.append(f"metadata: mean {mean}, standard deviation {deviation}")
    if model.input_scale is not None:
        told.append(f"one step of its quantized input is {model.input_scale:.6g}")
    return "; ".join(told)


def _preprocessing(content: CardContent) -> list[str]:
    chosen, found = content.preprocessing, content.found
    if found is None:
        lines = ["# The most probable; there were no labelled pictures to find it by trying."]
    elif not found.better_than_chance:
        lines = ["# The most probable: with nothing that was tried does the model do better than guessing.", *_tried(found.tried)]
    else:
        lines = ["# Found by running the model in float on labelled pictures:", *_tried(found.tried)]
    values: dict[str, Any] = {key: getattr(chosen, key) for key in KEYS}
    if chosen.resize == "none":
        del values["interpolation"]
    return [*lines, "[preprocessing]", *_table(values, content.doubts, "preprocessing")]


def _tried(tried: Sequence[Tried]) -> list[str]:
    """One line for each candidate, the keys in which they differ, with the best labelling of those that were tried with it."""
    shown = list(dict.fromkeys(one.candidate for one in tried))
    keys = [key for key in KEYS if any(key in candidate.differs_in(shown[0]) for candidate in shown)] or ["scaling"]
    lines = []
    for place, candidate in enumerate(shown):
        if place == _TRIED_SHOWN:
            lines.append(f"#   and {len(shown) - place} more that were worse")
            break
        one = next(one for one in tried if one.candidate == candidate)
        score = f"{one.right:3} of {one.count:3} right"
        lines.append(f"#   {score}: {candidate.told(keys)}{'  <- chosen' if place == 0 else ''}")
    return lines


def _data(content: CardContent) -> list[str]:
    lines = []
    if content.evaluation is None:
        lines += ["# No [evaluation]: 64 seeded pictures stand in, and only agreement with the float model is judged."]
    else:
        lines += ["[evaluation]", *_table(content.evaluation, content.doubts, "evaluation")]
        if content.right is not None and content.found is not None and content.found.better_than_chance:
            share = content.right / content.evaluated
            # Rounded down: what is demanded is never more than what was found.
            lines.append(f"top1 = {int(share * 10_000) / 10_000:g}  # {content.right} of {content.evaluated}, by the float model")
    if content.calibration is not None:
        lines += ["", "[calibration]", *_table(content.calibration, content.doubts, "calibration")]
    return lines


def _tolerance(content: CardContent) -> list[str]:
    lines = [
        "# How much worse may still ship. latency: slower than the baseline, as a share (by default 5 %, in turns with another stack 3 %);",
        "# top1_drop: of the share of right answers, against the float model.",
        "[tolerance]",
        "# latency = 0.05",
    ]
    if content.right is None:
        return [
            *lines,
            "# agreement = 0.98  # least share of answers that are the float model's own, where pictures have no labels",
        ]
    drop, why = tolerated_drop(content.evaluated)
    return [*lines, f"top1_drop = {drop:g}  # {why}"]


def tolerated_drop(count: int) -> tuple[float, str]:
    """The default tolerance of top-1 for so many pictures, and why: two pictures at least, since one may turn by a rounding error."""
    one = 1 / count
    if 2 * one <= 0.01:
        return 0.01, f"{int(0.01 * count + 1e-9)} pictures of {count}"
    drop = -int(-2 * one * 1000 // 1) / 1000
    return drop, f"2 pictures of {count}: more pictures allow less"


def _backends(content: CardContent) -> list[str]:
    lines = ["# What was installed where this was written. `pytest -m cpu` runs these on the processor.", "[backends]"]
    lines += [f"{name} = {toml(list(precisions))}" for name, precisions in content.backends.items()]
    if content.elsewhere:
        lines.append("# On a board or a GPU that has it (how-to pages of the documentation):")
        lines += [f"# {name} = {toml(list(precisions))}" for name, precisions in content.elsewhere.items()]
    return lines


def _table(values: Mapping[str, Any], doubts: Mapping[str, str], table: str, note: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        doubt = doubts.get(f"{table}.{key}")
        comment = f"{CHECK}: {doubt}" if doubt else note if key == "count" else ""
        lines.append(f"{key} = {toml(value)}{f'  # {comment}' if comment else ''}")
    return lines


def toml(value: Any) -> str:
    """A value as TOML writes it. Strings are JSON's, but for the one character that TOML wants escaped besides."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return f"{value:g}" if "e" not in f"{value:g}" else repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key if str(key).isidentifier() else toml(str(key))} = {toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml(item) for item in value)}]"
    return str(value)
