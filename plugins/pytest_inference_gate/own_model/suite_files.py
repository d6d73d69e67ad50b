"""The files of a suite: written whole or not at all, the same bytes for the same question, and never over anything that is the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from ..atomic_files import explained, write_atomically
from . import InitError

RECORD = ".inference-gate-init.json"
SCHEMA = "inference-gate-init/1"
_TEMPLATES = {
    "pytest.ini": "pytest.ini.template",
    "test_models.py": "test_models.py.template",
    "tox.ini": "tox.ini.template",
    ".github/workflows/inference-gate.yml": "workflow.yml.template",
    "README.md": "README.md.template",
    ".gitignore": "gitignore.template",
}


class _AtTemplate(Template):
    """``@name`` instead of ``$name``: workflows are full of dollars, and braces."""

    delimiter = "@"


@dataclass(frozen=True)
class Written:
    """Paths in the suite: ``new`` files, those that were ``replaced``, and those that were there with the same content."""

    new: tuple[str, ...]
    replaced: tuple[str, ...]
    same: tuple[str, ...]


def suite_texts(values: Mapping[str, str]) -> dict[str, bytes]:
    """The files that all models of a suite share, by their paths in it."""
    folder = resources.files(__package__) / "templates"
    return {
        path: _AtTemplate((folder / template).read_text(encoding="utf-8")).substitute(values).encode()
        for path, template in _TEMPLATES.items()
    }


def is_suite(folder: Path) -> bool:
    """Whether init has made it: more models can be added to it."""
    return (folder / RECORD).is_file()


def write_suite(folder: Path, files: Mapping[str, bytes], *, force: bool) -> Written:
    """Write ``files``, by their paths in ``folder``.

    What is there with other content is refused, all of it in one list, before anything is written; with ``force``, what init made and
    nobody has changed since is replaced. Raises :class:`InitError`.
    """
    made = _record(folder)
    new: list[str] = []
    replaced: list[str] = []
    same: list[str] = []
    foreign: list[str] = []
    ours: list[str] = []
    for path, content in files.items():
        place = folder / path
        if not _is_there(place):
            new.append(path)
        elif place.is_file() and place.read_bytes() == content:
            same.append(path)
        elif place.is_file() and made.get(path) == _digest(place.read_bytes()):
            (replaced if force else ours).append(path)
        else:
            foreign.append(path)
    if foreign or ours:
        reasons = []
        if foreign:
            reasons.append(f"not init's, or changed since it made them: {', '.join(foreign)}; move them away")
        if ours:
            reasons.append(f"made by init with other content: {', '.join(ours)}; --force replaces these")
        raise InitError(
            f"nothing was written, since files are in the way in {folder} ({'; '.join(reasons)}): or choose another --name or --into"
        )
    for path in (*new, *replaced):
        place = folder / path
        with explained(f"make the folder {place.parent.name}", place.parent.parent, error=InitError):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, files[path], error=InitError)
    # What is there with the very same content is init's too: one that was ended before this line had made it.
    now = {**made, **{path: _digest(files[path]) for path in (*new, *replaced, *same)}}
    if now != made:
        document = {"schema": SCHEMA, "files": dict(sorted(now.items()))}
        write_atomically(folder / RECORD, json.dumps(document, indent=2).encode() + b"\n", error=InitError)
    return Written(tuple(new), tuple(replaced), tuple(same))


def _is_there(place: Path) -> bool:
    return place.is_symlink() or place.exists()


def _record(folder: Path) -> dict[str, str]:
    """The digests of the files that init has made here, by path; empty where it has made none, or where nothing tells it."""
    path = folder / RECORD
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            raise InitError(
                f"{path} was written by another release of the plugin ({document['schema']}): use that one, or another folder"
            )
        return {str(name): str(digest) for name, digest in document["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InitError(f"{path} is damaged: remove it, and init takes the files beside it for the user's own") from None
    except OSError as error:
        raise InitError(f"{path} cannot be read ({error.strerror}): check its permissions") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
