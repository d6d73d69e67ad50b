"""From a case to what can be measured: its checkpoint, its inputs, its artifact, the predictions of its float reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import timing_caches
from .agent_role import AgentRole
from .artifacts import ArtifactStore, StoredArtifact
from .backends import agent_device
from .cards import ModelCard
from .cases import Case
from .outcome import StageFailed
from .zoo import FetchedCheckpoint

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class PreparedInputs:
    """Preprocessed pictures: ``path`` is an ``.npy`` of float32 (N,) + the card's input shape; ``labels`` are indices of the
    model's output, or ``None`` where the pictures are seeded."""

    path: Path
    digest: str
    count: int
    labels: tuple[int, ...] | None


def reference_backend(card: ModelCard) -> str | None:
    """The backend that runs the checkpoint as it is, in float: what every other case of the card is compared with."""
    if card.checkpoint.format == "other":
        return next((name for name, precisions in card.backends.items() if "fp32" in precisions), None)
    architecture = card.checkpoint.architecture
    if architecture is not None and architecture.is_of_torchvision:
        return "torch"
    return {"onnx": "onnxruntime", "tflite": "tflite"}.get(card.checkpoint.format, "tensorflow")


class Preparation:
    """Prepares cases, each step once: within a run by memory, between runs by the store."""

    def __init__(
        self,
        store: ArtifactStore,
        converter: AgentRole,
        fetch: Callable[[ModelCard], FetchedCheckpoint],
        prepare_inputs: Callable[[ModelCard, str], PreparedInputs],
        progress: Callable[[str], None],
    ) -> None:
        self.store = store
        self.converter = converter
        self._fetch = fetch
        self._prepare_inputs = prepare_inputs
        self._progress = progress
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

    def artifact(self, case: Case) -> StoredArtifact:
        """The case's converted model. Cases that differ in their number of threads alone share it."""
        key = ("artifact", case.model, case.backend, case.precision, str(case.batch), agent_device(case.device))
        value: StoredArtifact = self._once(key, lambda: self._convert(case))
        return value

    def _convert(self, case: Case) -> StoredArtifact:
        card = case.card
        self.converter.require(case, convert=True)
        checkpoint = self.checkpoint(card)
        # A .tflite file has the types that it has: nothing is quantized any more, and its card may have no pictures for that.
        calibrates = "int8" in case.precision and card.checkpoint.format != "tflite"
        calibration = self.calibration_inputs(card) if calibrates else None
        backend = self.converter.backend(case.backend)
        source = {
            "format": checkpoint.format,
            "architecture": card.checkpoint.architecture.model_dump() if card.checkpoint.architecture else None,
            "seed": card.checkpoint.seed,
            "inputs": card.checkpoint.inputs,
            "outputs": card.checkpoint.outputs,
        }
        input_settings = {"shape": list(card.input.shape), "dtype": card.input.dtype, "layout": card.input.layout}
        ingredients = {
            "checkpoint": checkpoint.sha256,
            "source": source,
            "input": input_settings,
            "backend": case.backend,
            "precision": case.precision,
            "batch": case.batch,
            "calibration": calibration.digest if calibration else None,
            "converter": backend.get("converter"),
            # Of the agent: what an older release of the plugin converted or predicted is not used.
            "code": backend.get("code"),
            "machine": self.converter.probe.get("machine"),
            **_not_default(case),
        }

        def make(directory: Path) -> Mapping[str, Any]:
            payload = directory / "payload"
            payload.mkdir(exist_ok=True)
            name = f"{case.model}-{case.backend}-{case.precision}-b{case.batch}" + (
                f"-{case.device}" if case.device_in_id else ""
            )
            self._progress(f"converting {name}")
            with self.converter.start(f"{name}.convert") as agent:
                result = agent.convert(
                    {
                        "backend": case.backend,
                        "precision": case.precision,
                        "batch": case.batch,
                        "device": agent_device(case.device),
                        "options": timing_caches.convert_options(self.store, case.options, ingredients),
                        "source": {**source, "path": str(checkpoint.path) if checkpoint.path else None},
                        "input": input_settings,
                        "calibration": str(calibration.path) if calibration else None,
                        "output_directory": str(payload),
                    }
                )
            log = self.converter.logs / f"{name}.convert.log"
            if log.exists():
                (directory / "log.txt").write_bytes(log.read_bytes())
            self._progress(f"converted {name} in {result['seconds']:.1f} s")
            return result

        artifact = self.store.get_or_make("artifact", ingredients, make)
        timing_caches.keep(self.store, artifact, case.options)
        return artifact

    def reference_predictions(self, case: Case) -> numpy.ndarray[Any, Any] | None:
        """What the float reference of the case's model says on the evaluation inputs: float32 (N, classes).

        ``None`` where the converting target cannot run the reference; the case is then judged by its card's expectation alone.
        """
        backend = reference_backend(case.card)
        if backend is None:
            return None
        reference = Case(case.card, backend, "fp32")
        key = ("reference", case.model)
        try:
            path: Path = self._once(key, lambda: self._predict_reference(reference))
        except StageFailed:
            return None
        import numpy

        predictions: numpy.ndarray[Any, Any] = numpy.load(path, allow_pickle=False)
        return predictions

    def _predict_reference(self, reference: Case) -> Path:
        self.converter.require(reference, convert=False)
        artifact = self.artifact(reference)
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

        def make(directory: Path) -> Mapping[str, Any]:
            payload = directory / "payload"
            payload.mkdir(exist_ok=True)
            self._progress(f"predicting with {reference.model} in float, the reference")
            with self.converter.start(f"{reference.model}.reference") as agent:
                agent.load(load_arguments(reference, artifact))
                return agent.predict({"inputs": str(inputs.path), "outputs": str(payload / "predictions.npy")})

        stored = self.store.get_or_make("reference", ingredients, make)
        return stored.directory / "payload" / "predictions.npy"


def artifact_model(artifact: StoredArtifact) -> Path:
    """The file or directory that the runtime loads."""
    return artifact.directory / "payload" / str(artifact.provenance["model"])


def _not_default(case: Case) -> dict[str, Any]:
    """Device and options, which are ingredients of an artifact only where they are not those of most."""
    device, options = agent_device(case.device), case.options
    return {**({"device": device} if device != "cpu" else {}), **({"options": options} if options else {})}


def load_arguments(case: Case, artifact: StoredArtifact, put: Callable[[Path], str] = str) -> dict[str, Any]:
    """What an agent's ``load`` wants; ``put`` is that of the agent's target.

    All that was converted goes there, not the model alone: some formats keep their weights in files beside it.
    """
    card = case.card
    return {
        "backend": case.backend,
        "precision": case.precision,
        "model": f"{put(artifact.directory / 'payload')}/{artifact.provenance['model']}",
        "threads": case.threads,
        "batch": case.batch,
        "device": agent_device(case.device),
        "options": case.options,
        "input": {"shape": list(card.input.shape), "dtype": card.input.dtype, "layout": card.input.layout},
    }
