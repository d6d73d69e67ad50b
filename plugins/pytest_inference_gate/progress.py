"""What the user sees while something slow goes on."""

from __future__ import annotations

import copy
import sys
import threading
import time

import pytest

from .cases import Case


class Progress:
    """Lines on pytest's terminal; on a real terminal the line about measuring is written over again and again. Thread-safe."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
        self._quiet = config.option.verbose < 0
        self._lock = threading.Lock()
        self._live = sys.stdout.isatty() and not self._quiet
        self._line_open = False
        self._measuring_since: float | None = None
        self._last_share = 0.0
        self._of = ""

    def of_device(self, name: str | None) -> Progress:
        """That of one of several devices, which are at work at the same time: it counts for itself, and each line names it."""
        if name is None:
            return self
        other = copy.copy(self)
        other._live = False
        other._of = f"{name}: "
        return other

    def step(self, text: str) -> None:
        """One finished or started piece of work, on a line of its own."""
        if self._reporter is None or self._quiet:
            return
        with self._lock:
            self._end_line()
            self._reporter.write_line(f"inference-gate: {self._of}{text}")

    def begin_measuring(self) -> None:
        """A new count of replicates begins."""
        with self._lock:
            self._measuring_since = None
            self._last_share = 0.0

    def measuring(self, done: int, total: int, case: Case) -> None:
        """Replicate ``done`` of ``total`` begins, of ``case``."""
        if self._reporter is None or self._quiet:
            return
        with self._lock:
            now = time.monotonic()
            if self._measuring_since is None:
                self._measuring_since = now
            passed = done - 1
            left = f", about {_duration((now - self._measuring_since) / passed * (total - passed))} left" if passed else ""
            text = f"inference-gate: {self._of}measuring {done} of {total}{left}: {case.id}"
            if self._live:
                self._reporter.rewrite(text, erase=True)
                self._line_open = True
            elif passed == 0 or passed / total - self._last_share >= 0.2:
                # Where lines stay, five are enough.
                self._last_share = passed / total
                self._reporter.write_line(text)

    def close(self) -> None:
        if self._reporter is not None:
            with self._lock:
                self._end_line()

    def _end_line(self) -> None:
        if self._line_open and self._reporter is not None:
            self._reporter.write_line("")
            self._line_open = False


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
