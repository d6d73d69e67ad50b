"""workspace < memory limit < free memory, each with the number that has to change."""

from __future__ import annotations

import pytest

from pytest_inference_gate.agent import gpu_memory
from pytest_inference_gate.agent.failures import AgentError, BuildError, OutOfMemory

MIB, GIB = 1 << 20, 1 << 30
UNLIMITED = (1 << 63) - 513


@pytest.mark.parametrize(
    ("workspace", "limit", "free", "default"),
    [
        (None, None, None, GIB),
        (None, None, 512 * MIB, GIB),  # what nobody set is not refused
        (GIB, 2 * GIB, 3 * GIB, GIB),
        (GIB, 2 * GIB, None, UNLIMITED),
        (None, 2 * GIB, 3 * GIB, GIB),
        (None, None, 3 * GIB, UNLIMITED),
    ],
)
def test_what_fits(workspace: int | None, limit: int | None, free: int | None, default: int) -> None:
    gpu_memory.check(workspace, limit, free, default)


@pytest.mark.parametrize(
    ("workspace", "limit", "free", "default", "kind", "words"),
    [
        (
            2 * GIB,
            2 * GIB,
            8 * GIB,
            GIB,
            BuildError,
            ("workspace_bytes is 2.0 GiB and memory_limit_bytes is 2.0 GiB", "lower workspace_bytes or raise"),
        ),
        (
            None,
            512 * MIB,
            8 * GIB,
            GIB,
            BuildError,
            ("workspace_bytes is not set, which means 1.0 GiB", "memory_limit_bytes is 512 MiB"),
        ),
        (None, 2 * GIB, 8 * GIB, UNLIMITED, BuildError, ("set workspace_bytes in [options.tftrt] below memory_limit_bytes",)),
        (
            GIB,
            2 * GIB,
            1700 * MIB,
            GIB,
            OutOfMemory,
            ("memory_limit_bytes is 2.0 GiB and only 1.7 GiB", "lower memory_limit_bytes"),
        ),
        (2 * GIB, None, GIB, GIB, OutOfMemory, ("workspace_bytes is 2.0 GiB and only 1.0 GiB", "lower workspace_bytes")),
    ],
)
def test_what_does_not_fit(
    workspace: int | None, limit: int | None, free: int | None, default: int, kind: type[AgentError], words: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as caught:
        gpu_memory.check(workspace, limit, free, default)
    message = str(caught.value)
    assert "\n" not in message
    for part in words:
        assert part in message


def test_a_machine_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "_load", lambda names: None)
    monkeypatch.setattr(gpu_memory.device_facts, "collect", lambda root: {"jetson": None})
    assert gpu_memory.free_bytes() is None


def test_the_gpu_of_a_jetson_uses_the_memory_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory.device_facts, "collect", lambda root: {"jetson": {"l4t": "36.4.3"}})
    assert gpu_memory.free_bytes() == gpu_memory.device_facts.memory("/", "MemAvailable")
