"""From a case to what can be measured: its checkpoint, its inputs, its artifact, the predictions of its float reference."""

from __future__ import annotations

import glob
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import timing_caches
from .agent_role import AgentRole
from .artifacts import ArtifactStore, StoredArtifact, why_not_kept
from .backends import BACKENDS, agent_device
from .cards import ModelCard, is_calibrated
from .cases import Case
from .intermediates import Intermediate, choose_intermediate, choose_portable
from .outcome import Outcome, StageFailed, room_on_disk
from .predictions import predict_arguments, predictions_name, read_predictions
from .rebuilt_engines import Rebuilt, earlier_build, rebuilt_remarks
from .targets import Target
from .zoo import FetchedCheckpoint

if TYPE_CHECKING:
    from .detection.annotations import Annotations
    from .predictions import Outputs

BUILT_ON_DEVICE = frozenset(name for name, info in BACKENDS.items() if info.builds_on_device)
"""Built-in backends whose models are built by the device that runs them, with its own libraries, and run nowhere else."""


@dataclass(frozen=True)
class PreparedInputs:
    """Preprocessed pictures: ``path`` is an ``.npy`` of float32 (N,) + the card's input shape; ``labels`` are indices of the
    model's output, or ``None`` where the pictures are seeded. ``names`` are those of the pictures, for messages; ``annotations`` what is in
    them, where the card has annotations."""

    path: Path
    digest: str
    count: int
    labels: tuple[int, ...] | None
    names: tuple[str, ...] = ()
    annotations: Annotations | None = None


@dataclass(frozen=True)
class _Materials:
    """What a case's model is made of; ``model`` is that of the ``intermediate`` format, where there is one."""

    checkpoint: FetchedCheckpoint
    calibration: PreparedInputs | None
    intermediate: Intermediate | None
    model: StoredArtifact | None

    def request(self, case: Case, source: str | None, put: Callable[[Path], str], options: Mapping[str, Any]) -> dict[str, Any]:
        """What an agent's ``convert`` wants, but for where it shall write; ``source`` is the path of the checkpoint, or of the model."""
        described = _described(case, self.checkpoint)
        if self.intermediate is not None:
            described = {"format": self.intermediate.format, "architecture": None, "seed": None, "inputs": [], "outputs": []}
        return {
            "backend": case.backend,
            "precision": case.precision,
            "batch": case.batch,
            "device": agent_device(case.device),
            "options": dict(options),
            "source": {**described, "path": source},
            "input": _input_settings(case),
            "calibration": None if self.calibration is None else put(self.calibration.path),
            **_task(case),
            **_variant(case),
        }


def reference_backend(card: ModelCard, built_on_device: Collection[str] = BUILT_ON_DEVICE) -> str | None:
    """The backend that runs the checkpoint as it is, in float: what every other case of the card is compared with."""
    if card.checkpoint.format == "other":
        usable = (name for name, precisions in card.backends.items() if "fp32" in precisions and name not in built_on_device)
        return next(usable, None)
    architecture = card.checkpoint.architecture
    if architecture is not None and architecture.is_of_torchvision:
        return "torch"
    return {"onnx": "onnxruntime", "tflite": "tflite"}.get(card.checkpoint.format, "tensorflow")


class Preparation:
    """Prepares cases, each step once: within a run by memory, between runs by the store.

    ``built_on_device`` names the backends whose models the runtime builds instead of ``converter``.
    """

    def __init__(
        self,
        store: ArtifactStore,
        converter: AgentRole,
        fetch: Callable[[ModelCard], FetchedCheckpoint],
        prepare_inputs: Callable[[ModelCard, str], PreparedInputs],
        progress: Callable[[str], None],
        built_on_device: Collection[str] = BUILT_ON_DEVICE,
    ) -> None:
        self.store = store
        self.converter = converter
        self._fetch = fetch
        self._prepare_inputs = prepare_inputs
        self._progress = progress
        self._built_on_device = built_on_device
        self._rebuilt: list[Rebuilt] = []
        self._unreferenced: dict[str, str] = {}  # sentences, by the model's name
        self._memory: dict[tuple[str, ...], Any] = {}
        self._memory_lock = threading.Lock()
        self._key_locks: dict[tuple[str, ...], threading.Lock] = {}

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """``make()`` of the first caller, for all callers; a failure is remembered too, so that nothing fails twice in one run."""
        with self._memory_lock:
            lock = self._key_locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._memory:
                try:
                    self._memory[key] = make()
                except StageFailed as failure:
                    self._memory[key] = failure
            value = self._memory[key]
        if isinstance(value, StageFailed):
            raise value
        return value

    def checkpoint(self, card: ModelCard) -> FetchedCheckpoint:
        value: FetchedCheckpoint = self._once(("checkpoint", card.name), lambda: self._fetch(card))
        return value

    def evaluation_inputs(self, card: ModelCard) -> PreparedInputs:
        value: PreparedInputs = self._once(("evaluation", card.name), lambda: self._prepare_inputs(card, "evaluation"))
        return value

    def calibration_inputs(self, card: ModelCard) -> PreparedInputs:
        value: PreparedInputs = self._once(("calibration", card.name), lambda: self._prepare_inputs(card, "calibration"))
        return value

    def inputs(self, card: ModelCard, purpose: str) -> PreparedInputs:
        """The card's ``evaluation`` or ``calibration`` inputs."""
        return self.evaluation_inputs(card) if purpose == "evaluation" else self.calibration_inputs(card)

    # ---------------------------------------------------------------- converting

    def is_built_on_device(self, case: Case) -> bool:
        """Whether the runtime makes the case's model, and not the converter."""
        return case.backend in self._built_on_device

    def _builder(self, case: Case, runtime: AgentRole) -> AgentRole:
        return runtime if self.is_built_on_device(case) else self.converter

    def _intermediate(self, case: Case, builder: AgentRole) -> Intermediate | None:
        """Raises ``unsupported`` where the builder cannot make the case's model of anything that there is, or that can be made."""
        if not self.is_built_on_device(case):
            builder.require(case, convert=True)
            return None
        builder.require(case, convert=True, from_source=False)
        if builder.target.recording is not None:  # it has built from what was sent before anything was known of it
            return choose_portable(case, self.converter)
        return choose_intermediate(case, builder, self.converter)

    def require(self, case: Case, runtime: AgentRole) -> None:
        """Raise ``unsupported`` where there is no way from the case's checkpoint to a model for ``runtime``."""
        self._intermediate(case, self._builder(case, runtime))

    def prepare_source(self, case: Case, runtime: AgentRole) -> None:
        """Make what the case is built of, as far as that is work of the converter: so that several can be made side by side."""
        intermediate = self._intermediate(case, self._builder(case, runtime))
        if intermediate is not None:
            self.artifact(intermediate.case(case), runtime)

    def artifact(self, case: Case, runtime: AgentRole, *, build: int = 0) -> StoredArtifact:
        """The case's converted model, as ``runtime`` runs it. Cases that differ in their number of threads alone share it.

        Some backends' models are built by ``runtime`` itself, in a folder of its own there, and fetched into the store. ``build`` counts
        the times that it is built of the same, each kept by itself, where a builder makes another one each time.
        """
        builder = self._builder(case, runtime)
        device = agent_device(case.device)
        made_for = (case.model, case.backend, case.precision, str(case.batch), case.variant or "", device)
        key = ("artifact", *made_for, str(build), builder.target.key)
        value: StoredArtifact = self._once(key, lambda: self._convert(case, builder, build))
        return value

    def prepare_for_bundle(self, case: Case) -> None:
        """Make all that a board out of reach needs to build the case's model. Raises ``unsupported`` where that cannot be had here."""
        materials = self._materials(case, choose_portable(case, self.converter))
        path = materials.checkpoint.path
        if materials.model is None and path is not None and not path.exists():
            message = f"a bundle does not hold a checkpoint of the format {materials.checkpoint.format}: reach the board by ssh"
            raise StageFailed(Outcome("unsupported", "convert", message))

    def request_for_bundle(self, case: Case, put: Callable[[Path], str]) -> dict[str, Any]:
        """What the agent there is asked to ``convert``, but for where it shall write, after :meth:`prepare_for_bundle`.

        A timing cache belongs to one device, and which one this will be is not known: none goes along.
        """
        materials = self._materials(case, choose_portable(case, self.converter))
        if materials.model is not None:
            source: str | None = _model_by(put, materials.model)
        else:
            source = None if materials.checkpoint.path is None else put(materials.checkpoint.path)
        return materials.request(case, source, put, timing_caches.without_cache(case.options))

    def _materials(self, case: Case, intermediate: Intermediate | None) -> _Materials:
        return _Materials(
            self.checkpoint(case.card),
            self.calibration_inputs(case.card) if is_calibrated(case.card, case.backend, case.precision) else None,
            intermediate,
            None if intermediate is None else self.artifact(intermediate.case(case), self.converter),
        )

    def _convert(self, case: Case, builder: AgentRole, build: int) -> StoredArtifact:
        materials = self._materials(case, self._intermediate(case, builder))
        checkpoint, calibration, model = materials.checkpoint, materials.calibration, materials.model
        backend = builder.backend(case.backend)
        ingredients: dict[str, Any] = {
            "checkpoint": checkpoint.sha256,
            "source": _described(case, checkpoint),
            "input": _input_settings(case),
            "backend": case.backend,
            "precision": case.precision,
            "batch": case.batch,
            "calibration": calibration.digest if calibration else None,
            # Of what is built on a device: its libraries, its GPU and its board, too.
            "converter": backend.get("converter"),
            # Of the agent: what an older release of the plugin converted or predicted is not used.
            "code": backend.get("code"),
            "machine": builder.probe.get("machine"),
            **_not_default(case),
            **({"build": build} if build else {}),
        }
        if materials.intermediate is not None and model is not None:
            ingredients["intermediate"] = {"format": materials.intermediate.format, "artifact": model.digest}
        model_name = build_name(case)
        if builder.target.recording is not None and model_name in builder.target.recording.builds:
            # Another run of a bundle has built another one of the very same: what was measured is known by what it holds.
            ingredients["build"] = builder.target.recording.builds[model_name]
        name = model_name + (f"-build{build + 1}" if build else "")
        where = f" on {builder.target.name}" if self.is_built_on_device(case) else ""

        def make(directory: Path) -> Mapping[str, Any]:
            if self.is_built_on_device(case):
                self._note_rebuilding(model_name, ingredients)
            payload = directory / "payload"
            target = builder.target
            origin = f" from {materials.intermediate.format}" if materials.intermediate else ""
            self._progress(f"converting {name}{origin}{where}")
            path = _put_checkpoint(target, checkpoint.path) if model is None else _put_model(target, model)
            options = timing_caches.convert_options(self.store, case.options, ingredients, target.put)
            request = materials.request(case, path, target.put, options)
            there = target.folder_for(payload)
            # On this machine the store says so itself, of all cases.
            room = nullcontext() if target.is_here else room_on_disk(f"the disk of {target.name}")
            with builder.start(f"{name}.convert") as agent, room:
                result = agent.convert({**request, "output_directory": there})
            target.fetch(there, payload)
            log = builder.logs / f"{name}.convert.log"
            if log.exists():
                (directory / "log.txt").write_bytes(log.read_bytes())
            problem = why_not_kept(directory, result)
            if problem is not None:
                raise StageFailed(
                    Outcome("build_error", "convert", f"what the converter left cannot be kept: {problem}", log=log)
                )
            self._progress(f"converted {name}{where} in {result['seconds']:.1f} s")
            return result

        artifact = self.store.get_or_make("artifact", ingredients, make)
        timing_caches.keep(self.store, artifact, case.options)
        return artifact

    def _note_rebuilding(self, name: str, ingredients: Mapping[str, Any]) -> None:
        # Read once: what this run itself builds for its other devices was not there before.
        entries = self._once(("entries",), self.store.entries)
        before = earlier_build(entries, ingredients)
        if before is not None:
            now = {**(ingredients["converter"] or {}), "machine": ingredients["machine"]}
            self._rebuilt.append(Rebuilt(name, before, now))

    def remarks(self) -> list[str]:
        """What the user should know of the models that were made: sentences."""
        return [*rebuilt_remarks(self._rebuilt), *self._unreferenced.values()]

    # ---------------------------------------------------------------- the reference

    def reference_predictions(self, case: Case) -> Outputs | None:
        """What the float reference of the case's model says on the evaluation inputs: float32 (N, classes), or all outputs of a detector.

        ``None`` where the converting target has no way to run the reference, or it failed: the case is then judged by its card's
        expectation alone. Raises :class:`StageFailed` where it failed and the card expects nothing: the case would be compared with
        nothing.
        """
        backend = reference_backend(case.card, self._built_on_device)
        if backend is None:
            return None
        reference = Case(case.card, backend, "fp32")
        key = ("reference", case.model)
        try:
            path: Path = self._once(key, lambda: self._predict_reference(reference))
        except StageFailed as failure:
            if failure.outcome.kind == "unsupported":
                return None
            evaluation = case.card.evaluation
            if evaluation is None or (evaluation.top1 is None and evaluation.map is None):
                raise StageFailed(_without_reference(failure.outcome)) from None
            why = f"{failure.outcome.kind}: {failure.outcome.message}"
            self._unreferenced[case.model] = (
                f"{case.model}: judged by its card's expectation alone, since its float reference failed ({why})"
            )
            return None
        return read_predictions(path)

    def _predict_reference(self, reference: Case) -> Path:
        self.converter.require(reference, convert=False)
        artifact = self.artifact(reference, self.converter)
        inputs = self.evaluation_inputs(reference.card)
        backend = self.converter.backend(reference.backend)
        ingredients = {
            "artifact": artifact.digest,
            "inputs": inputs.digest,
            "runtime": backend.get("runtime"),
            # Of the agent: what an older release of the plugin converted or predicted is not used.
            "code": backend.get("code"),
            "machine": self.converter.probe.get("machine"),
        }

        name = predictions_name(reference, "predictions")

        def make(directory: Path) -> Mapping[str, Any]:
            payload = directory / "payload"
            payload.mkdir(exist_ok=True)
            self._progress(f"predicting with {reference.model} in float, the reference")
            with self.converter.start(f"{reference.model}.reference") as agent:
                agent.load(load_arguments(reference, artifact))
                return agent.predict(predict_arguments(reference, str(inputs.path), str(payload / name)))

        stored = self.store.get_or_make("reference", ingredients, make)
        return stored.directory / "payload" / name


def _without_reference(outcome: Outcome) -> Outcome:
    """What that is for a case: of the surroundings, since it says nothing of the case itself, which must not be known as broken."""
    message = f"its float reference, which its predictions are compared with, failed ({outcome.kind}: {outcome.message}): see to that first"
    return Outcome("fetch_error", "predict", message, log=outcome.log, advises=True)


def _put_checkpoint(target: Target, path: Path | None) -> str | None:
    """The path of a checkpoint for an agent of the target. That of TensorFlow 1 is the common beginning of the names of several files."""
    if path is None or target.is_here:
        return None if path is None else str(path)
    if path.exists():
        return target.put(path)
    with tempfile.TemporaryDirectory(prefix="inference-gate-") as scratch:
        folder = Path(scratch) / "checkpoint"
        folder.mkdir()
        for part in path.parent.glob(f"{glob.escape(path.name)}.*"):
            shutil.copy(part, folder)
        return f"{target.put(folder)}/{path.name}"


def _put_model(target: Target, artifact: StoredArtifact) -> str:
    return _model_by(target.put, artifact)


def _model_by(put: Callable[[Path], str], artifact: StoredArtifact) -> str:
    return f"{put(artifact.payload)}/{artifact.provenance['model']}"


def build_name(case: Case) -> str:
    """Of what is converted for the case: that of all cases that differ in their number of threads alone."""
    more = "".join(f"-{part}" for part in (case.variant, case.device if case.device_in_id else None) if part)
    return f"{case.model}-{case.backend}-{case.precision}-b{case.batch}{more}"


def _described(case: Case, checkpoint: FetchedCheckpoint) -> dict[str, Any]:
    told = case.card.checkpoint
    return {
        "format": checkpoint.format,
        "architecture": told.architecture.model_dump() if told.architecture else None,
        "seed": told.seed,
        "inputs": told.inputs,
        "outputs": told.outputs,
        **({"allow_lambda": True} if told.allow_lambda else {}),
    }


def _input_settings(case: Case) -> dict[str, Any]:
    return {"shape": list(case.card.input.shape), "dtype": case.card.input.dtype, "layout": case.card.input.layout}


def artifact_model(artifact: StoredArtifact) -> Path:
    """The file or directory that the runtime loads."""
    return artifact.directory / "payload" / str(artifact.provenance["model"])


def _not_default(case: Case) -> dict[str, Any]:
    """Device, options, task and variant, which are ingredients of an artifact only where they are not those of most."""
    device, options = agent_device(case.device), case.options
    return {
        **({"device": device} if device != "cpu" else {}),
        **({"options": options} if options else {}),
        **_task(case),
        **_variant(case),
    }


def _variant(case: Case) -> dict[str, Any]:
    return {"variant": case.variant} if case.variant is not None else {}


def _task(case: Case) -> dict[str, Any]:
    return {"task": case.card.task} if case.card.task != "classification" else {}


def load_arguments(case: Case, artifact: StoredArtifact, put: Callable[[Path], str] = str) -> dict[str, Any]:
    """What an agent's ``load`` wants; ``put`` is that of the agent's target.

    All that was converted goes there, not the model alone: some formats keep their weights in files beside it.
    """
    return load_request(case, _model_by(put, artifact))


def load_request(case: Case, model: str | None) -> dict[str, Any]:
    """The same for a model of which only the path there is known; ``None`` where not even that is."""
    return {
        "backend": case.backend,
        "precision": case.precision,
        "model": model,
        "threads": case.threads,
        "batch": case.batch,
        "device": agent_device(case.device),
        "options": case.options,
        "input": _input_settings(case),
        **_task(case),
    }
