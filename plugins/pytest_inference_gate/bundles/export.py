"""Writing a bundle: one archive with all that a board needs to be measured where nobody can reach it.

``python3 FILE.zip`` there runs it (see ``agent/bundle_runner.py``). ``plan.json`` inside says what is to be done, and names every other
file with its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import archives
from ..agent_archive import agent_files
from ..atomic_files import explained, size_text
from ..errors import GateError

SCHEMA = "inference-gate-bundle/1"
PLAN = "plan.json"
DEFAULT_REPLICATES = 10  # what looks different takes five fresh ones, and nobody can ask for them later
# Python's own reader of archives, which starts a bundle, knows none that is larger before Python 3.13.
LARGEST_BYTES = 2**31 - 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal bundles are equal byte for byte
_STORED = (".npy", ".npz", ".zip", ".engine")
_MAIN = """import sys

if sys.version_info < (3, 6):
    sys.exit("This bundle needs Python 3.6 or later, and this is %s: run it with another one." % sys.version.split()[0])

import os

from agent.bundle_runner import main

sys.exit(main(sys.argv[1:], os.path.abspath(os.path.dirname(__file__))))
"""


class BundleError(GateError):
    """A bundle, or the results of one, that cannot be written, read or used here."""


@dataclass(frozen=True)
class BundleRequest:
    """What a run shall export instead of measuring."""

    path: Path
    replicates: int = DEFAULT_REPLICATES


@dataclass(frozen=True)
class BundleBuild:
    """What only the board can build: ``convert`` is what its agent's ``convert`` wants, its files paths of the bundle, but for where it
    shall write. Cases that differ in their number of threads alone share it, by its ``name``.
    """

    name: str
    convert: Mapping[str, Any]


@dataclass
class BundleCase:
    """``load`` is what an agent's ``load`` wants, its model a path of the bundle, as ``inputs`` is.

    Where the board makes the model by a ``build``, its path is ``None`` here, and so is ``artifact``, its digest in the store.
    ``pictures``: how many of ``inputs`` the rounds go through in turn.
    """

    id: str
    device: str
    load: Mapping[str, Any]
    inputs: str
    accuracy: bool
    latency: bool
    artifact: str | None
    build: BundleBuild | None = None
    pictures: int = 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "device": self.device,
            "load": dict(self.load),
            "inputs": self.inputs,
            "accuracy": self.accuracy,
            "latency": self.latency,
            "artifact": self.artifact,
            "build": None if self.build is None else self.build.name,
            "pictures": self.pictures,
        }


@dataclass
class BundleFiles:
    """The files of a bundle by their path in it. The same file or folder has the same path in any bundle: its digest is in it."""

    sources: dict[str, Path] = field(default_factory=dict)

    def put(self, path: Path) -> str:
        """The path in the bundle of a file, or of a folder with all that is in it."""
        there = place_in_bundle(path)
        if path.is_dir():
            for file in sorted(found for found in path.rglob("*") if found.is_file()):
                self.sources[f"{there}/{file.relative_to(path).as_posix()}"] = file
        else:
            self.sources[there] = path
        return there


def place_in_bundle(path: Path) -> str:
    """``data/<digest>/payload``: where a file or folder lies in any bundle that has it."""
    return place_of(archives.tree_digest(path), path.name)


def place_of(digest: str, name: str) -> str:
    """The same for what has this digest and this name."""
    return f"data/{digest}/{re.sub(r'[^A-Za-z0-9._-]', '_', name).lstrip('.') or 'file'}"


def agent_digest() -> str:
    """Of the agent's code: what measures. Results that other code has measured are not taken."""
    digest = hashlib.sha256()
    for name, path in agent_files():
        digest.update(f"{name}\0{archives.file_digest(path)}\n".encode())
    return digest.hexdigest()


def _plugin_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pytest-inference-gate")
    except PackageNotFoundError:  # run from a folder of sources
        return "unknown"


def write_bundle(
    path: Path,
    cases: Sequence[BundleCase],
    files: BundleFiles,
    *,
    measure: Mapping[str, Any],
    replicates: int,
    seed: int,
    seconds: Mapping[str, float],
    memory_limit: int | None,
    backends: Mapping[str, Path],
    left_out: Sequence[str] = (),
) -> str:
    """Write the bundle whole or not at all; returns its id, the SHA-256 of its plan. Raises :class:`BundleError`.

    ``left_out``: cases that could not be prepared, which are to be judged all the same.
    """
    named = {name: files.put(module.resolve()) for name, module in sorted(backends.items())}
    members = {**files.sources, **{f"agent/{name}": path for name, path in agent_files()}}
    total = sum(file.stat().st_size for file in members.values())
    if total > LARGEST_BYTES:
        raise BundleError(
            f"the bundle would have {size_text(total)}, more than the {size_text(LARGEST_BYTES)} that a board's Python can start: "
            "export fewer cases at a time, with --gate-select"
        )
    builds = {case.build.name: dict(case.build.convert) for case in cases if case.build is not None}
    plan = {
        "schema": SCHEMA,
        "plugin": _plugin_version(),
        "agent": agent_digest(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "replicates": replicates,
        "seed": seed,
        "seconds": dict(seconds),
        "memory_limit": memory_limit,
        "measure": {name: dict(part) for name, part in measure.items()},
        "backends": named,
        "builds": [{"name": name, "convert": convert} for name, convert in builds.items()],
        "cases": [case.as_dict() for case in cases],
        "left_out": list(left_out),
        "files": {
            name: {"sha256": archives.file_digest(file), "size": file.stat().st_size} for name, file in sorted(members.items())
        },
    }
    content = json.dumps(plan, indent=1).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explained(f"write {path.name}", path.parent, error=BundleError, remedy="name another file"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                with zipfile.ZipFile(stream, "w") as archive:
                    _add(archive, "__main__.py", _MAIN.encode())
                    _add(archive, PLAN, content)
                    for name, file in sorted(members.items()):
                        _add(archive, name, file.read_bytes())
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # not there, nor could it be: what is told is why
            temporary.unlink()
    return hashlib.sha256(content).hexdigest()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, content)


def lines_of(path: Path, cases: Sequence[BundleCase], left_out: Mapping[str, str], replicates: int) -> Iterable[str]:
    """What was exported, what was not and why, and the next steps."""
    for case_id, reason in left_out.items():
        yield f"not in the bundle: {case_id}: {reason}"
    results = path.with_name(f"{path.stem}.results.zip").name
    builds = {case.build.name for case in cases if case.build is not None}
    if builds:
        yield f"{len(builds)} model{'s' * (len(builds) != 1)} will be built on the board, before anything is measured"
    yield f"wrote {path} ({size_text(path.stat().st_size)}): {len(cases)} case{'s' * (len(cases) != 1)}, {replicates} replicates of each"
    yield f"on the board: python3 {path.name}"
    yield f"back here: inference-gate bundle import {results} --save=NAME, or --compare"
