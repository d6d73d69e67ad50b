"""Timing caches: what a build of an engine found out about kernels, kept for later builds of the same case on the same device.

A builder measures kernels and takes the fastest, so that two builds of one model may take different ones, and differ by more than many
upgrades. A build that continues from the cache of an earlier one takes the same kernels, and much less time. The cache of the first
build is kept, and no later one takes its place: what is built of it stays what it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifacts import ArtifactStore, StoredArtifact

OPTION = "timing_cache"
KIND = "timing-cache"
# What does not change which kernels there are to choose from.
_OF_THE_BUILD_ALONE = ("code", "build", "intermediate")


def convert_options(
    store: ArtifactStore, options: Mapping[str, Any], ingredients: Mapping[str, Any], put: Callable[[Path], str] = str
) -> dict[str, Any]:
    """A card's ``options`` as the converter takes them: with the kept cache (``path``, ``sha256``) where it wants one and there is one.

    ``ingredients`` are those of the artifact that is to be made; ``put`` is that of the target that makes it.
    """
    wanted = without_cache(options)
    if not options.get(OPTION):
        return wanted
    kept = store.find(KIND, _key(ingredients))
    if kept is None:
        return wanted
    return {**wanted, OPTION: {"path": put(kept.payload / kept.provenance["file"]), "sha256": kept.provenance["sha256"]}}


def without_cache(options: Mapping[str, Any]) -> dict[str, Any]:
    """A card's ``options`` for a builder that begins with no cache."""
    return {name: value for name, value in options.items() if name != OPTION}


def keep(store: ArtifactStore, artifact: StoredArtifact, options: Mapping[str, Any]) -> None:
    """Keep the cache of a build, where the card wants that and none is kept yet."""
    told = (artifact.provenance.get("details") or {}).get(OPTION) or {}
    if not options.get(OPTION) or not told.get("file"):
        return

    def copy(directory: Path) -> Mapping[str, Any]:
        payload = directory / "payload"
        payload.mkdir(exist_ok=True)
        shutil.copyfile(artifact.payload / told["file"], payload / told["file"])
        return {"file": told["file"], "sha256": told["sha256"], "artifact": artifact.digest}

    store.get_or_make(KIND, _key(artifact.provenance["ingredients"]), copy)


def _key(ingredients: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ingredients.items() if name not in _OF_THE_BUILD_ALONE}
