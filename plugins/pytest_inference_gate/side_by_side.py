"""Several pieces of work at once, each of which may fail for a case of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from .agent_role import RunningAgents
from .outcome import Outcome, StageFailed

_MEMORY_OF_A_CONVERSION = 3 * 2**30  # a TensorFlow converter at work on a model of ImageNet's size, generously


@dataclass(frozen=True)
class Task:
    """``failed`` gets the outcome where ``run`` raises :class:`StageFailed`."""

    run: Callable[[], None]
    failed: Callable[[Outcome], None]


def side_by_side(tasks: Sequence[Task], jobs: int, running: RunningAgents) -> None:
    """Run the tasks, ``jobs`` at once. Whatever else than ``StageFailed`` one of them raises stops all agents, and is raised."""
    if not tasks:
        return
    pool = ThreadPoolExecutor(max(1, min(jobs, len(tasks))), thread_name_prefix="inference-gate")
    try:
        pending = {pool.submit(task.run): task for task in tasks}
        for future in as_completed(pending):
            try:
                future.result()
            except StageFailed as failure:
                pending[future].failed(failure.outcome)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        running.stop()
        raise
    pool.shutdown()


def jobs_here(wanted: int | None) -> int:
    """How many conversions or predictions this machine may do at once: ``wanted``, or what cores and memory allow."""
    if wanted:
        return wanted
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available // _MEMORY_OF_A_CONVERSION)))
