"""What happens before the first test: every selected case is fetched, converted, run over its pictures and measured.

What is done once for all devices is done here; what each device does itself is a :class:`~.device_run.DeviceRun`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from .agent_role import RunningAgents
from .device_run import DeviceRun
from .phase_times import PhaseTimes
from .progress import Progress
from .side_by_side import jobs_here, side_by_side
from .stack_preparations import StackPreparations

if TYPE_CHECKING:
    from pathlib import Path

    from .bundles.export import BundleRequest
    from .options import Settings


class GateRun:
    """``devices`` hold what was found out; ``phases`` gets the seconds of each phase, of several devices those of the slowest one;
    ``notes`` are sentences for the user.
    """

    def __init__(
        self,
        preparations: StackPreparations,
        devices: Sequence[DeviceRun],
        jobs: int | None,
        running: RunningAgents,
        progress: Progress,
        phases: PhaseTimes,
    ) -> None:
        self.preparations = preparations
        self.devices = devices
        self.phases = phases
        self.notes: list[str] = []
        self._jobs = jobs
        self._running = running
        self._progress = progress

    def execute(self) -> None:
        """All phases. Raises a ``GateError`` for what keeps any case from being prepared, such as a full disk."""
        with self.phases.taking("fetch"):
            for device in self.devices:
                device.fetch()
        with self.phases.taking("convert"):
            tasks = [task for device in self.devices for task in device.conversions()]
            side_by_side(tasks, jobs_here(self._jobs), self._running)
        self._execute_devices()
        self.notes += self.preparations.remarks()
        for device in self.devices:
            for name, seconds in device.phases.items():
                self.phases[name] = max(self.phases.get(name, 0.0), seconds)

    def export(self, request: BundleRequest, settings: Settings, seed: int, backends: Mapping[str, Path]) -> list[str]:
        """Fetch and convert, and write what a board needs into a bundle; returns lines for the user.

        Whether the board can run a case is found out there. Raises a ``GateError`` where nothing is left to be measured.
        """
        from .bundles.export import BundleError, BundleFiles, lines_of, write_bundle

        (device,) = self.devices
        with self.phases.taking("fetch"):
            device.fetch(for_bundle=True)
        with self.phases.taking("convert"):
            side_by_side(device.conversions(for_bundle=True), jobs_here(self._jobs), self._running)
        files = BundleFiles()
        cases = device.bundle_cases(files)
        left_out = {case_id: record.outcome.message for case_id, record in device.records.items() if not record.outcome.ok}
        if not cases:
            reasons = "; ".join(f"{case_id}: {reason}" for case_id, reason in left_out.items())
            raise BundleError(f"no case could be exported: {reasons or 'no selected test predicts or measures'}")
        write_bundle(
            request.path,
            cases,
            files,
            measure={"warmup": device.plan.warm_up, "rounds": device.plan.rounds},
            replicates=request.replicates,
            seed=seed,
            seconds=settings.timeouts,
            memory_limit=settings.memory_limit,
            backends=backends,
            left_out=[case_id for case_id in left_out if device.records[case_id].outcome.kind != "unsupported"],
        )
        return list(lines_of(request.path, cases, left_out, request.replicates))

    def _execute_devices(self) -> None:
        """Each in a thread of its own: boards do not disturb each other."""
        if len(self.devices) == 1:
            self.devices[0].execute()
            return
        pool = ThreadPoolExecutor(len(self.devices), thread_name_prefix="inference-gate-device")
        try:
            for future in as_completed([pool.submit(device.execute) for device in self.devices]):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._running.stop()  # the other devices' next agent does not start any more
            raise
        pool.shutdown()
