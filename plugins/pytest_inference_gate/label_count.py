"""Whether a model gives as many values for a picture as its card has labels: told before anything is predicted or measured."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from .cases import Case
from .outcome import Outcome, StageFailed


def check_label_count(case: Case, loaded: Mapping[str, Any]) -> None:
    """Raise :class:`StageFailed` where they differ. ``loaded`` is what an agent answered to ``load``; a runtime that does not tell the shape
    of its first output is taken at its word later."""
    outputs = loaded.get("outputs") or ()
    shape = outputs[0].get("shape") if outputs else None
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape[1:]):
        return
    found, expected = prod(shape[1:]), case.card.labels.count
    if found != expected:
        message = (
            f"the model gives {found} values for a picture, and labels.count of {case.card.path} is {expected}: correct the card, "
            "or name the checkpoint that it is about"
        )
        raise StageFailed(Outcome("load_error", "load", message))
