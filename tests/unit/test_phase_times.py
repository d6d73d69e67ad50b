"""How long the phases of a run took."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_inference_gate import phase_times
from pytest_inference_gate.phase_times import PhaseTimes


def test_a_phase_that_is_entered_again_goes_on_and_one_that_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter((0.0, 2.0, 10.0, 11.0, 20.0, 24.0))
    monkeypatch.setattr(phase_times, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    phases = PhaseTimes()
    with phases.taking("convert"):
        pass
    with pytest.raises(OSError, match="full"), phases.taking("measure"):
        raise OSError("full")
    with phases.taking("convert"):
        pass
    assert list(phases.items()) == [("convert", 6.0), ("measure", 1.0)]
