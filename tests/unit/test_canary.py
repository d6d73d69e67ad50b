"""The agent's canary: what it measures, and how much memory it may take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import canary, device_facts, measure

MIB = 2**20


def machine(root: Path, *, caches: dict[int, str], memory_kb: int | None) -> str:
    for index, size in caches.items():
        folder = root / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
    if memory_kb is not None:
        (root / "proc").mkdir()
        (root / "proc" / "meminfo").write_text(f"MemTotal:       {memory_kb} kB\n")
    return str(root)


@pytest.mark.parametrize(
    ("caches", "memory_kb", "mib"),
    [
        ({0: "48K", 1: "32K", 2: "1024K", 3: "32768K"}, 24_000_000, 64),  # a server
        ({0: "32K", 2: "512K", 3: "16M"}, 16_000_000, 32),
        ({3: "256M"}, 512_000_000, 96),  # no more than that, whatever the cache
        ({0: "32K", 2: "1024K"}, 4_000_000, 16),  # a board without a third level
        ({}, 980_000, 32),  # a board of 1 GB that tells nothing of its caches
        ({3: "32M"}, 500_000, 30),
        ({3: "32M"}, 8_000, 1),
        ({}, None, 32),
        ({3: "large"}, 8_000_000, 32),
    ],
)
def test_the_copied_buffer_is_beyond_the_cache_and_fits_the_memory(
    tmp_path: Path, caches: dict[int, str], memory_kb: int | None, mib: int
) -> None:
    assert canary.copied_bytes(machine(tmp_path, caches=caches, memory_kb=memory_kb)) == mib * MIB


def test_the_kernel_names_what_would_change_the_time() -> None:
    text = canary.kernel(64 * MIB)
    assert "64 MiB" in text
    assert "SHA-256" in text
    assert canary.kernel(32 * MIB) != text


def test_a_python_without_openssl_is_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openssl = canary.kernel(MIB)

    def sha256(data: bytes) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(canary.hashlib, "sha256", sha256)
    assert canary.hash_library() == "Python"
    assert canary.kernel(MIB) != with_openssl


def test_both_kernels_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "SECONDS", 0.002)
    monkeypatch.setattr(canary, "copied_bytes", lambda: MIB)
    result = canary.canary()
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"compute", "memory", "kernel"}
    assert 0 < result["compute"] < 1
    assert 0 < result["memory"] < 1


@given(st.lists(st.integers(1, 50), min_size=canary.FEWEST_PASSES, max_size=60))
def test_what_counts_is_the_median_of_the_passes(durations: list[int]) -> None:
    """On a clock that only the passes move: each takes the next duration, in milliseconds."""
    now = 0
    started: list[int] = []
    upcoming = [0] * canary.UNTIMED_PASSES + durations + [1000] * canary.FEWEST_PASSES

    def work() -> None:
        nonlocal now
        started.append(upcoming[len(started)])
        now += started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary, "best_clock", lambda: measure.Clock(lambda: now, 1e-3, "a fake"))
        patch.setattr(canary, "SECONDS", sum(durations) / 1000)
        typical = canary.typical_pass(work)
    timed = started[canary.UNTIMED_PASSES :]
    assert timed == durations
    assert typical == pytest.approx(measure.median(durations) / 1000)


def test_a_span_says_what_this_process_used() -> None:
    before = device_facts.condition()
    sum(range(2_000_000))
    after = device_facts.condition()
    span = device_facts.span(before, after)
    assert span["before"] is before
    assert span["after"] is after
    assert 0 < span["process_seconds"] <= (after["monotonic"] - before["monotonic"]) * 2
