"""What a conversion came to, and what of it is not as in the baseline."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.build_results import NodeCounts, build_remarks, engine_count, node_counts


def block(digest: str = "old", seconds: float | None = 100.0, **more: Any) -> dict[str, Any]:
    """As a session file has it."""
    return {"digest": digest, "size_bytes": 1, "convert_seconds": seconds, "cached": False, **more}


def test_they_are_read_from_a_conversion_and_from_a_session() -> None:
    told = {"before": 741, "after": 12, "converted": 730}
    assert node_counts({"details": {"nodes": told}}) == NodeCounts(741, 12, 730)
    assert node_counts(block(nodes=told)) == NodeCounts(741, 12, 730)
    assert engine_count({"details": {"engines": [{"name": "TRTEngineOp_0"}]}}) == 1


@pytest.mark.parametrize(
    "provenance",
    [{}, {"details": None}, {"details": {}}, {"details": {"nodes": 3}}, {"nodes": {"before": True, "after": -1}}, block()],
)
def test_what_is_not_told_is_unknown(provenance: dict[str, Any]) -> None:
    assert node_counts(provenance) is None
    assert engine_count(provenance) is None


def test_what_is_not_as_before_is_told() -> None:
    before = [None, block(nodes={"before": 741, "after": 12, "converted": 700}, engines=1)]
    assert build_remarks("new", NodeCounts(741, 741, 0), 0, 12.0, before) == [
        "nodes after the conversion: 741, was 12 in the baseline",
        "engines: 0, was 1 in the baseline",
        "its build took 12 s, was 100 s in the baseline",
    ]
    assert build_remarks("new", NodeCounts(741, 12, 700), 1, 120.0, before) == []


def test_an_older_baseline_knows_nothing_of_it() -> None:
    assert build_remarks("new", NodeCounts(741, 12), 1, 100.0, [block()]) == []
    assert build_remarks("new", NodeCounts(741, 12), 1, 100.0, []) == []


@given(
    nodes=st.builds(NodeCounts, *[st.none() | st.integers(0, 9)] * 3),
    engines=st.none() | st.integers(0, 9),
    seconds=st.none() | st.floats(0, 1e4),
    before=st.builds(block, st.just("same"), st.none() | st.floats(0, 1e4)),
)
def test_the_very_same_artifact_has_nothing_to_tell(nodes: Any, engines: Any, seconds: Any, before: Any) -> None:
    assert build_remarks("same", nodes, engines, seconds, [before]) == []


@given(one=st.floats(0.01, 1e4), other=st.floats(0.01, 1e4))
def test_a_build_is_told_to_be_slower_or_faster_from_twice_on(one: float, other: float) -> None:
    told = build_remarks("new", None, None, one, [block(seconds=other)])
    assert bool(told) == (max(one, other) >= 2 * min(one, other) and abs(one - other) >= 10)
