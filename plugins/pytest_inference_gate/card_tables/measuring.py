"""The ``[measuring]`` table of a model card: what a case's rounds are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from .section import CardSection

if TYPE_CHECKING:
    from ..cards import ModelCard

MOST_PICTURES = 1000


class Measuring(CardSection):
    """``pictures``: how many of the evaluation set the rounds go through in turn. The latency is then the median over the pictures of each
    picture's median. With a batch above 1, a picture is a batch of them.
    """

    pictures: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1


def measuring_problems(card: ModelCard) -> Iterator[tuple[str, str]]:
    """Key and sentence of what the card itself shows to be impossible."""
    source = card.evaluation_source
    known = [number for number in (source.count, source.limit) if number is not None]
    if known and card.measuring.pictures > min(known):
        yield (
            "measuring.pictures",
            f"found {card.measuring.pictures}, expected at most {min(known)}: the evaluation set has no more pictures",
        )
