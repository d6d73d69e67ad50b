"""Pictures of a card as the arrays that agents read: loaded, preprocessed and kept in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .artifacts import ArtifactStore
from .atomic_files import explained
from .cards import DataSource, ModelCard
from .errors import StoreError
from .preparation import PreparedInputs

if TYPE_CHECKING:
    from .datasets import ImageSet
    from .options import Settings


def prepare_inputs(
    store: ArtifactStore,
    card: ModelCard,
    purpose: str,
    scalings: Mapping[str, Callable[[Any], Any]],
    settings: Settings,
    scratch: Path,
    progress: Callable[[str], None],
    remark: Callable[[str], None] | None = None,
) -> PreparedInputs:
    """The card's ``evaluation`` or ``calibration`` pictures, preprocessed. Raises a ``GateError`` where they are missing or wrong.

    ``remark`` gets what the user should know of them.
    """
    from . import preprocessing
    from .datasets import check_disjoint, require_calibration_pictures

    source = card.evaluation_source if purpose == "evaluation" else card.calibration
    if source is None:
        raise ValueError(f"the card {card.name} has no {purpose} set")
    pictures = _load(store, card, source, settings, progress)
    if purpose == "calibration" and source.seed is None and card.evaluation is not None:
        check_disjoint(_load(store, card, card.evaluation_source, settings, progress), pictures, card)
    sentence = require_calibration_pictures(pictures, card) if purpose == "calibration" else None
    if sentence is not None and remark is not None:
        remark(sentence)
    labels = None if pictures.labels is None else tuple(int(label) for label in pictures.labels)

    def preprocess_into(directory: Path) -> dict[str, Any]:
        progress(f"preprocessing {len(pictures.images)} pictures of {card.name} for its {purpose}")
        directory.mkdir(exist_ok=True)
        inputs = preprocessing.preprocess(pictures.images, card, scalings, names=pictures.names, output=directory / "inputs.npy")
        del inputs  # a map of the file: flushed before the file is read
        with (directory / "inputs.npy").open("rb") as stream:
            return {"sha256": file_digest(stream)}

    if card.preprocessing.scaling in scalings:
        # What code that a hook added will make cannot be told from a digest of anything, so it runs each time.
        directory = scratch / f"{card.name}-{purpose}"
        with explained(
            f"keep the inputs of {card.name}", scratch, error=StoreError, remedy="point --gate-store at another directory"
        ):
            made = preprocess_into(directory)
    else:
        ingredients = {
            "pictures": pictures.sha256,
            "preprocessing": card.preprocessing.model_dump(mode="json"),
            "input": card.input.model_dump(mode="json"),
            # Whoever changes the preprocessing gets new inputs, and with them new artifacts and predictions.
            "code": hashlib.sha256(Path(preprocessing.__file__).read_bytes()).hexdigest(),
        }
        stored = store.get_or_make("inputs", ingredients, lambda empty: preprocess_into(empty / "payload"))
        directory, made = stored.payload, dict(stored.provenance)
    return PreparedInputs(
        directory / "inputs.npy", made["sha256"], len(pictures.images), labels, pictures.names, pictures.annotations
    )


def _load(
    store: ArtifactStore, card: ModelCard, source: DataSource, settings: Settings, progress: Callable[[str], None]
) -> ImageSet:
    from .datasets import load_images
    from .zoo import fetch_data

    fetched = fetch_data(
        source,
        card,
        store_root=store.root,
        lock_file=card.directory / "checkpoints.lock.toml",
        mirror=settings.mirror,
        offline=settings.offline,
        progress=progress,
    )
    return load_images(source, card, fetched)


def file_digest(stream: BinaryIO) -> str:
    """The SHA-256 of what is left of the stream, in hex."""
    digest = hashlib.sha256()
    while block := stream.read(2**20):
        digest.update(block)
    return digest.hexdigest()
