"""Where baselines are, outside a pytest run: the folder that the project's ini file names, and the device whose sessions are meant."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..baselines import devices_with_baselines
from ..errors import BaselineError

DEFAULT_FOLDER = "baselines"
INI_KEY = "gate_baselines"

# In pytest's order, and where in them pytest's own settings are. The first four are pytest's whatever they hold.
_INI_FILES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "pytest.toml": (("pytest",),),
    ".pytest.toml": (("pytest",),),
    "pytest.ini": (("pytest",),),
    ".pytest.ini": (("pytest",),),
    "pyproject.toml": (("tool", "pytest", "ini_options"), ("tool", "pytest")),
    "tox.ini": (("pytest",),),
    "setup.cfg": (("tool:pytest",),),
}
_ALWAYS_PYTESTS = frozenset(list(_INI_FILES)[:4])


def find_baselines(start: Path) -> Path:
    """The folder that a run of pytest from `start` without ``--gate-baselines`` would use, as far as ini files tell.

    The nearest ini file of pytest, in `start` or above it, decides: what its ``gate_baselines`` says, else ``baselines/`` beside it.
    Without such a file it is ``baselines/`` in `start`. Raises BaselineError for an ini file that cannot be read.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        for name in _INI_FILES:
            settings = _settings(folder / name)
            if settings is not None:
                named = settings.get(INI_KEY)
                if not named:
                    return folder / DEFAULT_FOLDER
                return (folder / os.path.expanduser(str(named))).absolute()  # noqa: PTH111  (Path.expanduser raises)
    return start / DEFAULT_FOLDER


def choose_device(root: Path, device: str | None) -> Path:
    """The folder of `device` in `root`; without one, this machine's own if it has sessions, else the only one there is.

    Raises BaselineError, naming those there are, where that is not clear.
    """
    known = devices_with_baselines(root, candidates=True)
    if not known:
        raise BaselineError(
            f"{root} has no sessions; record one with pytest --benchmark-save=NAME, or name another folder with --baselines=DIR."
        )
    there = f"{root} has {', '.join(known)}"
    if device is not None:
        if device not in known:
            raise BaselineError(f"There are no sessions of a device {device!r}: {there}.")
        return root / device
    if len(known) == 1:
        return root / known[0]
    from ..devices import local_identity

    own = local_identity().id
    if own in known:
        return root / own
    raise BaselineError(
        f"This machine ({own}) has no sessions here, and which device is meant is not clear: {there}; name it with --device=ID."
    )


def _settings(path: Path) -> Mapping[str, Any] | None:
    """What the file has to say to pytest, or None where it is none of pytest's files."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise BaselineError(f"{path} cannot be read ({problem}); correct it, or name the folder with --baselines=DIR.") from None
    tables = _toml_tables if path.suffix == ".toml" else _ini_tables
    found = next((table for table in tables(path, text) if table is not None), None)
    return {} if found is None and path.name in _ALWAYS_PYTESTS else found


def _toml_tables(path: Path, text: str) -> list[Mapping[str, Any] | None]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise BaselineError(f"{path} is not TOML ({problem}); correct it, or name the folder with --baselines=DIR.") from None
    return [_table(document, keys) for keys in _INI_FILES[path.name]]


def _table(document: Any, keys: tuple[str, ...]) -> Mapping[str, Any] | None:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else None


def _ini_tables(path: Path, text: str) -> list[Mapping[str, Any] | None]:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text, str(path))
    except configparser.Error as problem:
        reason = " ".join(str(problem).split())
        raise BaselineError(f"{path} is no ini file ({reason}); correct it, or name the folder with --baselines=DIR.") from None
    return [dict(parser[keys[0]]) if parser.has_section(keys[0]) else None for keys in _INI_FILES[path.name]]
