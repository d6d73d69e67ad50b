"""A board that cannot be reached: its agents answer with what they said when the bundle ran there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..agent_process import AgentProcess, Limits
from ..atomic_files import explained
from ..bundles.export import place_in_bundle
from ..outcome import Outcome, Stage, StageFailed
from ..timing_caches import without_cache
from . import Recording
from .bundle_address import BundleAddress

if TYPE_CHECKING:
    from ..bundles.results import BundleResults, RecordedCase


class BundleTarget:
    """Agents that replay ``results``. Raises :class:`~pytest_inference_gate.bundles.export.BundleError` for what cannot be used."""

    is_here = False

    def __init__(self, address: BundleAddress, *, notice: Callable[[str], None] = lambda _: None) -> None:
        from ..bundles.results import read_results

        self.address = address
        self.results: BundleResults = read_results(address.path)
        self.recording = Recording(
            max((len(case.replicates) for case in self.results.cases.values()), default=0),
            len(self.results.readings),
            self.results.built,
        )
        self._taken: dict[str, int] = {}
        self._places: dict[tuple[object, ...], str] = {}
        self._lock = threading.Lock()
        for remark in self.results.remarks:
            notice(remark)

    @property
    def name(self) -> str:
        return str(self.address)

    @property
    def key(self) -> str:
        return str(self.address)

    def start_agent(self, log: Path, limits: Limits) -> AgentProcess:
        return RecordedAgent(self, log, limits)

    def put(self, path: Path) -> str:
        """Where the file lies in any bundle that has it."""
        state = path.stat()
        key = (path, state.st_ino, state.st_mtime_ns)
        with self._lock:
            if key not in self._places:
                self._places[key] = place_in_bundle(path)
            return self._places[key]

    def place_for(self, path: Path) -> str:
        return str(path)

    def folder_for(self, path: Path) -> str:
        """That of :meth:`place_for`: the recorded agent puts there what the board has built."""
        return str(path)

    def fetch(self, there: str, path: Path) -> None:
        """Nothing: the recorded agent has written it here."""

    def close(self) -> None:
        self.results.close()

    def replicate(self, case_id: str, *, take: bool = False) -> Any:
        """The next replicate of the case, ``None`` where all were given; ``take`` gives it away."""
        with self._lock:
            number = self._taken.get(case_id, 0)
            recorded = self.results.cases[case_id].replicates
            if number >= len(recorded):
                return None
            self._taken[case_id] = number + int(take)
            return recorded[number]


class RecordedAgent(AgentProcess):
    """An agent without a process."""

    def __init__(self, target: BundleTarget, log: Path, limits: Limits) -> None:
        self.hello = {"event": "hello", "pid": 0}
        self.log = log
        self.limits = limits
        self._target = target
        self._case_id: str | None = None
        self._reading = 0

    def request(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        seconds: float = 0.0,  # noqa: ARG002
        progress: Callable[[str], None] | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        results = self._target.results
        if verb == "probe":
            return dict(results.probe)
        if verb == "canary":
            self._reading += 1
            if self._reading > len(results.readings):
                self._fail(None, "the bundle has read the condition of the board no more often than that")
            return dict(results.readings[self._reading - 1])
        if verb == "convert":
            return self._convert(arguments)
        if verb == "load":
            return self._load(arguments)
        if verb == "predict":
            return self._predict(arguments)
        if verb == "measure":
            return self._measure(arguments)
        self._fail(None, f"what a bundle has recorded cannot be asked to {verb}: reach the board by ssh for that")

    def close(self) -> None:
        """Nothing runs."""

    def _fail(self, stage: Stage | None, message: str) -> NoReturn:
        raise StageFailed(Outcome("unreachable", stage, message))

    def _convert(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        results, path = self._target.results, self._target.address.path
        name = self._subject
        if name not in results.convert:
            self._fail("convert", f"{path} has no such model: select the cases that it has, or export a bundle with this one")
        if _comparable(results.convert[name]) != _comparable(arguments):
            again = "of another checkpoint, or with other settings, than there are here now: export the bundle again"
            self._fail("convert", f"{path} holds a model that was built {again}")
        build, root = results.builds[name], results.folder / "results"
        if build.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / build.log, self.log)
        if build.failure is not None:
            raise StageFailed(replace(build.failure.outcome, log=self.log if build.log is not None else None))
        if build.convert is None:
            self._fail(
                "convert", f"{path} does not hold this model, since the board did not build it: run the bundle there again"
            )
        shutil.copytree(root / build.folder, str(arguments["output_directory"]), dirs_exist_ok=True)
        converted: dict[str, Any] = build.convert.model_dump()
        return converted

    @property
    def _subject(self) -> str:
        """The case, or the build, that the agent is for: logs are named after it, and two may load the very same file."""
        return self.log.name.removesuffix(".log").rpartition(".")[0]

    def _load(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        results, path = self._target.results, self._target.address.path
        case_id = self._subject
        if case_id not in results.load:
            self._fail("load", f"{path} has no such case: select those that it has, or export a bundle with this one")
        if dict(results.load[case_id]) != dict(arguments):
            again = "with another artifact, or other settings, than the one that is converted here now: export the bundle again"
            self._fail("load", f"{path} was measured {again}")
        self._case_id = case_id
        case = self._recorded(case_id)
        replicate = self._target.replicate(case_id)
        part = replicate if replicate is not None else case.predict
        if part is not None:
            return dict(part.load.model_dump())
        self._give_failure(case, "load")

    def _recorded(self, case_id: str) -> RecordedCase:
        return self._target.results.cases[case_id]

    def _give_failure(self, case: RecordedCase, stage: Stage) -> NoReturn:
        if case.failure is not None:
            raise StageFailed(case.failure.outcome)
        self._fail(stage, f"{self._target.address.path} has no more of this case: export a bundle that measures it more often")

    def _predict(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        case_id = self._asked("predict", arguments)
        case = self._recorded(case_id)
        if case.predict is None:
            self._give_failure(case, "predict")
        root, outputs = self._target.results.folder / "results", Path(arguments["outputs"])
        with explained(f"write {outputs.name}", outputs.parent, remedy="name another folder with --gate-store"):
            shutil.copyfile(root / case.predict.file, outputs)
        return dict(case.predict.predict)

    def _measure(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        case_id = self._asked("measure", arguments)
        replicate = self._target.replicate(case_id, take=True)
        if replicate is None:
            self._give_failure(self._recorded(case_id), "measure")
        if replicate.measure.pictures != arguments.get("pictures", 1):
            self._fail(
                "measure", f"{self._target.address.path} was measured on another number of pictures: export the bundle again"
            )
        measured: dict[str, Any] = replicate.measure.model_dump()
        return measured

    def _asked(self, stage: Stage, arguments: Mapping[str, Any]) -> str:
        if self._case_id is None or self._target.results.inputs[self._case_id] != arguments["inputs"]:
            self._fail(stage, f"{self._target.address.path} was measured with other inputs than these: export the bundle again")
        return self._case_id


def _comparable(request: Mapping[str, Any]) -> dict[str, Any]:
    """A ``convert`` without what a bundle knew nothing of: where its result goes here, and which timing cache has been kept here since."""
    return {**request, "output_directory": None, "options": without_cache(request["options"])}
