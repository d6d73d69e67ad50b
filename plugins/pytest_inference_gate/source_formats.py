"""What agents call the format of a card's checkpoint: what their backends say that they convert from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cards import Checkpoint


def source_format(checkpoint: Checkpoint) -> str:
    """The card's own word, but that weights drawn from a seed are one thing in Keras and another one in torchvision."""
    architecture = checkpoint.architecture
    if checkpoint.format == "seeded" and architecture is not None and architecture.is_of_torchvision:
        return "seeded_torchvision"
    return checkpoint.format
