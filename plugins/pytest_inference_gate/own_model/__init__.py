"""``inference-gate init``: from a model file and some pictures to a suite that gates it."""

from __future__ import annotations

from ..errors import GateError


class InitError(GateError):
    """A model, data or a folder of which no suite can be made; says what to do."""
