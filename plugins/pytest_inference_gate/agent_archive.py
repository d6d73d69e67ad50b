"""The agent as one file, for a machine on which nothing can be installed."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

_SHEBANG = b"#!/usr/bin/env python3\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal sources give an equal archive, byte for byte


def agent_files() -> list[tuple[str, Path]]:
    """Name inside the agent's directory and path of each of its modules, in the order of the paths."""
    source = Path(__file__).resolve().parent / "agent"
    return [(path.relative_to(source).as_posix(), path) for path in sorted(source.rglob("*.py"))]


def build_agent_archive(destination: Path) -> Path:
    """Write the agent to ``destination`` (``.pyz``), which any Python from 3.6 on runs like the agent's directory; returns it."""
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as stream:
            stream.write(_SHEBANG)
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, path in agent_files():
                    entry = zipfile.ZipInfo(name, _EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = (stat.S_IFREG | 0o644) << 16
                    archive.writestr(entry, path.read_bytes())
        temporary.chmod(0o755)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
    return destination
