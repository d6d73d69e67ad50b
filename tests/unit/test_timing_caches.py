"""The cache of the first build is kept, and given to later builds of the same case on the same device, where the card wants that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_inference_gate.artifacts import ArtifactStore, StoredArtifact
from pytest_inference_gate.timing_caches import convert_options, keep

WANTED = {"timing_cache": True, "workspace_bytes": 64}
INGREDIENTS = {"backend": "tensorrt", "precision": "fp16", "code": "1", "converter": {"tensorrt": "10.3.0", "sm": "8.7"}}


def build(store: ArtifactStore, ingredients: Mapping[str, Any], cache: bytes | None) -> StoredArtifact:
    def make(directory: Path) -> dict[str, Any]:
        (directory / "payload").mkdir(exist_ok=True)
        (directory / "payload" / "model.engine").write_bytes(b"engine")
        if cache is None:
            return {"details": {}}
        (directory / "payload" / "timing.cache").write_bytes(cache)
        return {"details": {"timing_cache": {"file": "timing.cache", "sha256": hashlib.sha256(cache).hexdigest()}}}

    return store.get_or_make("artifact", ingredients, make)


def test_a_later_build_continues_from_the_first_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    assert convert_options(store, WANTED, INGREDIENTS) == {"workspace_bytes": 64}  # there is none yet
    keep(store, build(store, INGREDIENTS, b"first"), WANTED)
    again = {**INGREDIENTS, "code": "2"}
    options = convert_options(store, WANTED, again, put=lambda path: f"/board/{path.name}")
    assert options == {
        "workspace_bytes": 64,
        "timing_cache": {"path": "/board/timing.cache", "sha256": hashlib.sha256(b"first").hexdigest()},
    }
    keep(store, build(store, again, b"second"), WANTED)
    kept = convert_options(store, WANTED, {**INGREDIENTS, "code": "3"})["timing_cache"]
    assert Path(kept["path"]).read_bytes() == b"first"


def test_another_release_device_or_precision_has_a_cache_of_its_own(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    keep(store, build(store, INGREDIENTS, b"first"), WANTED)
    for change in ({"precision": "int8"}, {"converter": {"tensorrt": "10.4.0", "sm": "8.7"}}, {"converter": {"sm": "9.0"}}):
        assert convert_options(store, WANTED, {**INGREDIENTS, **change}) == {"workspace_bytes": 64}


def test_nothing_is_kept_or_given_where_the_card_does_not_want_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    for options in ({}, {"timing_cache": False}):
        keep(store, build(store, INGREDIENTS, b"first"), options)
        assert [entry.kind for entry in store.entries()] == ["artifact"]
        assert convert_options(store, options, INGREDIENTS) == {}
    keep(store, build(store, INGREDIENTS, b"first"), WANTED)
    assert convert_options(store, {"timing_cache": False}, INGREDIENTS) == {}


def test_a_converter_that_has_no_cache_has_none_to_keep(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    keep(store, build(store, INGREDIENTS, None), WANTED)
    assert [entry.kind for entry in store.entries()] == ["artifact"]
