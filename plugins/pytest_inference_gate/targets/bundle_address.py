"""How the results of a bundle are named as a target."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PREFIX = "bundle:"


@dataclass(frozen=True)
class BundleAddress:
    """``bundle:PATH``; the path of a ``.results.zip``, absolute."""

    path: Path

    @classmethod
    def parse(cls, text: str) -> BundleAddress:
        """Raises ValueError with the end of a sentence."""
        name = text.removeprefix(PREFIX)
        if not name.strip() or "\0" in name:
            raise ValueError("is not bundle:PATH with the path of a .results.zip")
        return cls(Path(os.path.abspath(os.path.expanduser(name))))  # noqa: PTH111  (Path.expanduser raises where there is no such user)

    port = None

    @property
    def host(self) -> str:
        """What tells it from other boards of a run."""
        return self.path.name.removesuffix(".zip").removesuffix(".results")

    @property
    def place(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"{PREFIX}{self.path}"
