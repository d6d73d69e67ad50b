"""What a conversion came to besides the model: nodes before and after, engines, time; and what of it is not as in the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .wording import seconds_in_words

LONGER = 2.0
"""A build counts as slower or faster than the baseline's from this factor on: one build is no measurement."""
NOTICEABLE_SECONDS = 10.0
"""And only where the two differ by at least this much, which is what somebody waits for."""


@dataclass(frozen=True)
class NodeCounts:
    """How many nodes the model's graph had ``before`` its conversion and has ``after``, whatever the graph is made of there: TensorFlow's
    nodes, operators of TensorFlow Lite or ONNX, layers of an engine. ``converted``: how many of those before went into engines. Each is
    None where nothing told it.
    """

    before: int | None
    after: int | None
    converted: int | None = None


def node_counts(provenance: Mapping[str, Any]) -> NodeCounts | None:
    """What the conversion said (``details["nodes"]`` of an artifact's provenance, or of a saved case); None where it said nothing."""
    details = provenance.get("details")
    told = details.get("nodes") if isinstance(details, Mapping) else provenance.get("nodes")
    if not isinstance(told, Mapping):
        return None
    counts = NodeCounts(*(_count(told.get(name)) for name in ("before", "after", "converted")))
    return None if counts.before is None and counts.after is None else counts


def engine_count(provenance: Mapping[str, Any]) -> int | None:
    """How many engines were put into the graph; None where the backend makes no such graph."""
    details = provenance.get("details")
    engines = details.get("engines") if isinstance(details, Mapping) else None
    return len(engines) if isinstance(engines, list) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def build_remarks(
    digest: str,
    nodes: NodeCounts | None,
    engines: int | None,
    seconds: float | None,
    baseline: Sequence[Mapping[str, Any] | None],
) -> list[str]:
    """What is not as in the baseline, one clause each. ``baseline``: the ``artifact`` blocks of the case in its sessions, oldest first,
    of which the newest counts. An artifact that is the very same one was not built again, and took no time.
    """
    before = next((one for one in reversed(baseline) if isinstance(one, Mapping)), None)
    if before is None or before.get("digest") == digest:
        return []
    return [*_node_remarks(nodes, engines, before), *_time_remarks(seconds, before.get("convert_seconds"))]


def _node_remarks(nodes: NodeCounts | None, engines: int | None, before: Mapping[str, Any]) -> Iterable[str]:
    was = node_counts(before)
    if nodes is not None and was is not None:
        for name, now, then in (("before", nodes.before, was.before), ("after", nodes.after, was.after)):
            if now is not None and then is not None and now != then:
                yield f"nodes {name} the conversion: {now}, was {then} in the baseline"
    then = _count(before.get("engines"))
    if engines is not None and then is not None and engines != then:
        yield f"engines: {engines}, was {then} in the baseline"


def _time_remarks(seconds: float | None, before: object) -> Iterable[str]:
    if seconds is None or not isinstance(before, (int, float)) or isinstance(before, bool):
        return
    slow, fast = max(seconds, before), min(seconds, before)
    if slow - fast >= NOTICEABLE_SECONDS and slow >= LONGER * fast:
        yield f"its build took {seconds_in_words(seconds)}, was {seconds_in_words(before)} in the baseline"
