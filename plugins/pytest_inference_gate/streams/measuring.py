"""Measuring streams: the same replicates and pairs of processes as of latency, whose rounds are frames from decoding to the
answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..agent.telemetry import telemetry_wish
from ..agent_role import AgentRole
from ..artifacts import StoredArtifact
from ..cases import Case
from ..label_count import check_loaded
from ..outcome import Outcome, StageFailed
from ..preparation import load_arguments
from ..results import Replicate
from ..sweep import Plan, replicate_of
from .results import StreamRecord

if TYPE_CHECKING:
    from ..agent_process import AgentProcess

FEWEST_FRAMES = 50  # a shorter source is gone through again
PAIR_FRAMES = 50  # before the blocks of a pair: what the stages take is known from them
_FRAMES_OF_A_LONG_RUN = 25  # five in each fifth, where the user is told for how long it should go on
_SLACK_SECONDS = 30.0  # of a long run, for the frames that are under way when it is over


def frames_wanted(rounds: int | None, maximum_frames: int) -> dict[str, int]:
    """Of a replicate, as the agent's ``stream`` takes it: once through the source, or exactly ``rounds``."""
    if rounds is not None:
        return {"minimum": rounds, "maximum": rounds}
    return {"minimum": min(FEWEST_FRAMES, maximum_frames), "maximum": maximum_frames}


def stream_loaded(
    agent: AgentProcess,
    arguments: Mapping[str, Any],
    warm_up: Mapping[str, float],
    frames: Mapping[str, int],
    load_seconds: float,
    *,
    telemetry: Mapping[str, str] | None = None,
) -> Replicate:
    """Warm up and take frames in an agent that has its model loaded. Raises :class:`StageFailed`."""
    wish: dict[str, Any] = {} if telemetry is None else {"telemetry": dict(telemetry)}
    reply = agent.stream({**arguments, "warmup": dict(warm_up), "frames": dict(frames), **wish})
    return replicate_of(reply, load_seconds, stream=StreamRecord.of(reply))


def stream_replicate(
    role: AgentRole,
    case: Case,
    artifact: StoredArtifact,
    arguments: Mapping[str, Any],
    plan: Plan,
    frames: Mapping[str, int],
    log_name: str,
    *,
    with_telemetry: bool,
) -> Replicate:
    """Start an agent, load, warm up, take frames, stop. Raises :class:`StageFailed`."""
    with role.start(log_name) as agent:
        loaded = agent.load(load_arguments(case, artifact, role.target.put))
        check_loaded(case, loaded)
        telemetry = telemetry_wish(role.probe.get("device") or {}, case.device) if with_telemetry else None
        return stream_loaded(agent, arguments, plan.warm_up, frames, loaded["seconds"], telemetry=telemetry)


def sustain(
    role: AgentRole,
    case: Case,
    artifact: StoredArtifact,
    arguments: Mapping[str, Any],
    plan: Plan,
    seconds: float,
    log_name: str,
    progress: Callable[[str], None],
) -> StreamRecord:
    """Go through the source again and again for so many seconds, in an agent of its own.

    Raises :class:`StageFailed`, also where that was too short for an end that could be compared with the beginning.
    """
    with role.start(log_name) as agent:
        agent.load(load_arguments(case, artifact, role.target.put))
        reply = agent.stream(
            {**arguments, "warmup": dict(plan.warm_up), "seconds": seconds}, seconds=seconds + _SLACK_SECONDS, progress=progress
        )
    record = StreamRecord.of(reply)
    if len(record.windows) < 2:
        enough = math.ceil(_FRAMES_OF_A_LONG_RUN * record.elapsed / record.processed)
        frames = "1 frame was" if record.processed == 1 else f"{record.processed} frames were"
        message = (
            f"{frames} done in a long run of {seconds:g} s, which are too few to compare its end with its beginning: "
            f"let it go on for --gate-sustained={enough} at least"
        )
        raise StageFailed(Outcome("run_error", "measure", message))
    return record
