"""Reading what a board has sent back: checked in full before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .. import archives
from ..errors import FetchError
from ..outcome import Outcome, OutcomeKind, Stage
from .export import PLAN, SCHEMA, BundleError, agent_digest, place_of

RESULTS_SCHEMA = "inference-gate-bundle-results/1"
RESULTS, DIGEST = "results.json", "results.sha256"
PAYLOAD = "payload"  # how the store names the folder of an artifact's files
_MAXIMUM_BYTES = 8 * 2**30
_MAXIMUM_FILES = 200_000
_MAXIMUM_JSON_BYTES = 512 * 2**20


def _finite(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("is no duration")
    return value


Seconds = Annotated[float, AfterValidator(_finite)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Failure(_Part):
    kind: OutcomeKind
    stage: Stage | None
    message: str
    signal: str | None

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.kind, self.stage, self.message, self.signal)


class _Loaded(_Part):
    seconds: Seconds


class _Measured(_Part):
    rounds: list[Seconds] = Field(min_length=1)
    first_inference: Seconds | None
    steady: bool
    pictures: int = Field(default=1, ge=1)
    warmup_rounds: int
    peak_rss_bytes: int | None
    condition: dict[str, Any]


class _Replicate(_Part):
    load: _Loaded
    measure: _Measured


class _Predicted(_Part):
    load: _Loaded
    predict: dict[str, Any]
    sha256: str
    file: str


class RecordedCase(_Part):
    """What the board did with one case."""

    predict: _Predicted | None
    replicates: list[_Replicate]
    failure: _Failure | None


class _Converted(_Part):
    model: str = Field(min_length=1)
    converter: dict[str, Any]
    seconds: Seconds
    details: dict[str, Any]


class RecordedBuild(_Part):
    """What the board built, or why it could not. Both ``None``: it was not tried there, since none of its cases runs there.

    ``folder`` and ``log`` are paths in the archive.
    """

    convert: _Converted | None
    folder: str
    log: str | None
    failure: _Failure | None


class _Probe(_Part):
    backends: dict[str, dict[str, Any]]
    device: dict[str, Any]


class _Results(_Part):
    schema_: Literal["inference-gate-bundle-results/1"] = Field(alias="schema")
    bundle: str
    runs: list[dict[str, Any]]
    probe: _Probe
    readings: list[dict[str, Any]]
    cases: dict[str, RecordedCase]
    builds: dict[str, RecordedBuild]
    files: dict[str, dict[str, Any]]


class _PlannedCase(_Part):
    id: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    load: dict[str, Any]
    inputs: str
    build: str | None


class _PlannedBuild(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    convert: dict[str, Any]


class _Plan(_Part):
    schema_: str = Field(alias="schema")
    agent: str
    plugin: str
    replicates: int
    cases: list[_PlannedCase]
    left_out: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]] = []
    builds: list[_PlannedBuild]


@dataclass(frozen=True)
class BundleResults:
    """``folder`` holds the unpacked archive; ``close`` removes it.

    ``load``: what an agent was asked to load, by case. ``convert``: what one was asked to build, by the name of the build; ``builds``: what
    it built; ``built``: the digest of that, as :func:`archives.tree_digest` tells it of the folder.
    """

    path: Path
    folder: Path
    bundle: str
    replicates: int
    probe: Mapping[str, Any]
    readings: tuple[Mapping[str, Any], ...]
    runs: tuple[Mapping[str, Any], ...]
    cases: Mapping[str, RecordedCase]
    load: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, str]
    convert: Mapping[str, Mapping[str, Any]]
    builds: Mapping[str, RecordedBuild]
    built: Mapping[str, str]
    left_out: tuple[str, ...] = ()  # cases that could not be prepared for the bundle

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def remarks(self) -> list[str]:
        """What whoever reads the verdicts should know of how they were measured."""
        boots = {run.get("boot") for run in self.runs}
        if len(boots) > 1:
            return [f"the board was started anew while the bundle ran: it measured in {len(self.runs)} parts"]
        return [f"the bundle was stopped and went on: it measured in {len(self.runs)} parts"] if len(self.runs) > 1 else []


def read_results(path: Path) -> BundleResults:
    """Unpack and check the archive that a bundle has written. Raises :class:`BundleError` with one sentence."""
    if not path.is_file():
        raise BundleError(f"there is no file {path}: name the .results.zip that the bundle wrote on the board")
    folder = Path(tempfile.mkdtemp(prefix="inference-gate-"))
    try:
        try:
            archives.unpack(path, folder / "results", maximum_bytes=_MAXIMUM_BYTES, maximum_files=_MAXIMUM_FILES)
        except FetchError as error:
            raise BundleError(str(error).replace("remove it and fetch it again", "copy it from the board once more")) from None
        return _checked(path, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _checked(path: Path, folder: Path) -> BundleResults:
    root = folder / "results"
    again = "copy it from the board once more"
    if (root / PLAN).is_file() and (root / "__main__.py").is_file():
        raise BundleError(f"{path} is the bundle itself: run it on the board (python3 {path.name}) and import the .results.zip")
    for name in (PLAN, RESULTS, DIGEST):
        if not (root / name).is_file():
            raise BundleError(f"{path} is no archive that a bundle wrote (it has no {name}): name the .results.zip")
        if (root / name).stat().st_size > _MAXIMUM_JSON_BYTES:
            raise BundleError(f"{path} is not read: its {name} is larger than any that a bundle writes")
    plan_bytes, content = (root / PLAN).read_bytes(), (root / RESULTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != (root / DIGEST).read_text("ascii", "replace").strip():
        raise BundleError(f"{path} is damaged or was changed ({RESULTS} is not what was written): {again}")
    plan, results = _parsed(_Plan, plan_bytes, path, PLAN), _parsed(_Results, content, path, RESULTS)
    if plan.schema_ != SCHEMA:
        raise BundleError(f"{path} comes from another release of the plugin ({plan.schema_}): export the bundle again")
    if results.bundle != hashlib.sha256(plan_bytes).hexdigest():
        raise BundleError(f"{path} holds the results of another bundle than its plan is of: {again}")
    if plan.agent != agent_digest():
        raise BundleError(
            f"{path} was measured by the agent of another release of the plugin ({plan.plugin}): import it with that release, or "
            "export the bundle again"
        )
    for name, told in results.files.items():
        file = root / name
        if archives._safe_parts(name) is None or not file.is_file() or archives.file_digest(file) != told.get("sha256"):
            raise BundleError(f"{path} is damaged or was changed ({name} is not what was written): {again}")
    for case_id, case in results.cases.items():
        if case.predict is not None and case.predict.file not in results.files:
            raise BundleError(f"{path} names predictions of {case_id} that it does not hold: {again}")
    _check_builds(path, plan, results)
    document = json.loads(content)
    planned = {case.id: case for case in plan.cases}
    if missing := sorted(set(planned) - set(results.cases)):
        raise BundleError(f"{path} says nothing of {', '.join(missing)}, which its plan has: {again}")
    load = {case.id: case.load for case in plan.cases}
    built = {name: archives.tree_digest(root / one.folder) for name, one in results.builds.items() if one.convert is not None}
    for case in plan.cases:
        if case.build is not None:
            # The store keeps what was built as the files of any artifact, and these lie at the same place in any bundle.
            made = results.builds[case.build].convert
            place = None if made is None else f"{place_of(built[case.build], PAYLOAD)}/{made.model}"
            load[case.id] = {**case.load, "model": place}
    return BundleResults(
        path=path,
        folder=folder,
        bundle=results.bundle,
        replicates=plan.replicates,
        probe=document["probe"],
        readings=tuple(document["readings"]),
        runs=tuple(results.runs),
        cases={case_id: case for case_id, case in results.cases.items() if case_id in planned},
        load=load,
        inputs={case.id: case.inputs for case in plan.cases},
        convert={build.name: build.convert for build in plan.builds},
        builds=results.builds,
        built=built,
        left_out=tuple(plan.left_out),
    )


def _check_builds(path: Path, plan: _Plan, results: _Results) -> None:
    again = "copy it from the board once more"
    wanted = {build.name for build in plan.builds} | {case.build for case in plan.cases if case.build is not None}
    if missing := sorted(wanted - set(results.builds)):
        raise BundleError(f"{path} says nothing of {', '.join(missing)}, which its plan has the board build: {again}")
    for name, build in results.builds.items():
        if build.convert is not None and f"{build.folder}/{build.convert.model}" not in _with_folders(results.files):
            raise BundleError(f"{path} names a model {name} that it does not hold: {again}")
        if build.log is not None and build.log not in results.files:
            raise BundleError(f"{path} names a log of {name} that it does not hold: {again}")


def _with_folders(files: Iterable[str]) -> set[str]:
    """Each file and each folder that has one: some models are folders. ``..`` is in none, for each name was checked."""
    return {str(one) for name in files for one in (PurePosixPath(name), *PurePosixPath(name).parents)}


def _parsed(model: type[Any], content: bytes, path: Path, name: str) -> Any:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its beginning"
        raise BundleError(f"{path} cannot be read: {name} has nothing usable at {where} ({first['msg']})") from None
