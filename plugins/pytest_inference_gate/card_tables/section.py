"""What every table of a model card has in common: unknown keys are refused, and a value is never turned into another type."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class CardSection(BaseModel):
    """One table of a card."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
