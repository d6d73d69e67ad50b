"""Model cards: TOML files in ``models/``, read and validated. Every problem of a card is listed at once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .backends import BACKENDS, KnownBackends
from .card_tables.model_card import (
    BUILT_IN_SCALINGS,
    CALIBRATED_PRECISIONS,
    DEFAULT_EVALUATION_COUNT,
    DEFAULT_EVALUATION_SEED,
    Architecture,
    Checkpoint,
    CheckpointFormat,
    CoverageSection,
    DataSource,
    Evaluation,
    Input,
    Labels,
    ModelCard,
    PrecisionTolerance,
    Preprocessing,
    Tolerance,
    is_calibrated,
)
from .card_tables.problems import problems_of
from .card_tables.words import card_error, finding_in_words, shortened, unknown_key
from .errors import CardError

__all__ = [
    "BUILT_IN_SCALINGS",
    "CALIBRATED_PRECISIONS",
    "DEFAULT_EVALUATION_COUNT",
    "DEFAULT_EVALUATION_SEED",
    "Architecture",
    "Checkpoint",
    "CheckpointFormat",
    "CoverageSection",
    "DataSource",
    "Evaluation",
    "Input",
    "Labels",
    "ModelCard",
    "PrecisionTolerance",
    "Preprocessing",
    "Tolerance",
    "is_calibrated",
    "load_card",
    "load_cards",
]


def load_card(
    path: Path,
    known_backends: KnownBackends = BACKENDS,
    *,
    extra_scalings: Collection[str] = (),
) -> ModelCard:
    """Read the card at ``path``.

    ``known_backends`` maps the name of each backend to what its cases can be, or to its precisions alone; ``extra_scalings`` are names
    of scalings that hooks add to :data:`BUILT_IN_SCALINGS`. Raises :class:`CardError` with one line for each problem.
    """
    path = Path(path)
    document = _read_toml(path)
    if "path" in document:
        raise card_error(path, [("path", unknown_key("path", [name for name in ModelCard.model_fields if name != "path"]))])
    try:
        card = ModelCard.model_validate({**document, "path": path})
    except ValidationError as error:
        # Same key, same words: a union (a value or nothing) reports each of its arms.
        problems = list(dict.fromkeys(finding_in_words(detail) for detail in error.errors(include_url=False)))
        raise card_error(path, problems) from None
    problems = problems_of(card, known_backends, extra_scalings)
    if problems:
        raise card_error(path, problems)
    return card


def load_cards(
    directory: Path,
    known_backends: KnownBackends = BACKENDS,
    *,
    extra_scalings: Collection[str] = (),
) -> list[ModelCard]:
    """Read every ``*.toml`` in ``directory`` and one level below it, in the order of their paths.

    Raises one :class:`CardError` that lists the problems of all cards; two cards of one name are a problem.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CardError(f"{directory} is not a directory; expected the directory that holds the model cards.")
    paths = sorted(
        found for pattern in ("*.toml", "*/*.toml") for found in directory.glob(pattern) if not found.name.endswith(".lock.toml")
    )
    cards: dict[str, ModelCard] = {}
    messages: list[str] = []
    for path in paths:
        try:
            card = load_card(path, known_backends, extra_scalings=extra_scalings)
        except CardError as error:
            messages.append(str(error))
            continue
        if card.name in cards:
            messages.append(
                f"{path}: name: found {card.name!r}, which {cards[card.name].path} has too; expected a name of its own"
            )
        else:
            cards[card.name] = card
    if messages:
        raise CardError("\n".join(messages))
    return list(cards.values())


def _read_toml(path: Path) -> dict[str, Any]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise CardError(f"{path}: there is no such file; expected a model card.") from None
    except OSError as error:
        raise CardError(
            f"{path}: the card cannot be read ({error.strerror}); check that it is a file and that it is readable."
        ) from None
    except UnicodeDecodeError as error:
        raise CardError(f"{path}: the card is not TOML: byte {error.start} is not UTF-8; save the file as UTF-8.") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise CardError(f"{path}: the card is not usable TOML: its values are nested too deeply.") from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        reason = " ".join(str(error).split())
        raise CardError(f"{path}: the card is not TOML: {shortened(reason, 200)}") from None
