"""How long each phase of a run took, for the line at its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class PhaseTimes(dict[str, float]):
    """Seconds by the phase's name, in the order in which the phases began to end; a phase that is entered again goes on."""

    @contextlib.contextmanager
    def taking(self, name: str) -> Iterator[None]:
        """What is done meanwhile is of the phase, also where it ends in an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.perf_counter() - start
