"""Whether a model gives as many values for a picture as its card has labels: told before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from .cases import Case
from .outcome import Outcome, Stage, StageFailed


def check_loaded(case: Case, loaded: Mapping[str, Any]) -> None:
    """Raise :class:`StageFailed` where they differ. ``loaded`` is what an agent answered to ``load``; a runtime that does not tell the
    shape of its first output is looked at when it has predicted."""
    outputs = loaded.get("outputs") or ()
    shape = outputs[0].get("shape") if outputs else None
    if shape and all(isinstance(size, int) and size > 0 for size in shape[1:]):
        check_values(case, prod(shape[1:]), "load")


def check_values(case: Case, found: int, stage: Stage) -> None:
    """The same for the values that it gave for a picture. A detector's boxes are no values of labels."""
    expected = case.card.labels.count
    if case.card.task == "classification" and found != expected:
        message = (
            f"the model gives {found} values for a picture, and labels.count of {case.card.path} is {expected}: correct the card, "
            "or name the checkpoint that it is about"
        )
        raise StageFailed(Outcome("load_error", stage, message, advises=True))
