"""A loaded model in an agent of its own, for a test that wants to ask it something."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .cases import Case
from .detection.run import detect
from .predictions import predict_arguments, predictions_name, read_predictions
from .preparation import PreparedInputs, load_arguments
from .results import Replicate
from .sweep import Plan, measure_loaded

if TYPE_CHECKING:
    import numpy

    from .agent_process import AgentProcess
    from .artifacts import StoredArtifact
    from .detection.coco_evaluation import Detections
    from .predictions import Outputs
    from .targets import Target


class Runner:
    """Made by the ``runner`` fixture; the agent ends with the test.

    ``load_seconds`` is the time that loading took; ``inputs`` and ``outputs`` describe the model's tensors as the runtime sees them
    (name, shape, dtype, scale, zero_point).
    """

    def __init__(
        self,
        case: Case,
        artifact: StoredArtifact,
        agent: AgentProcess,
        target: Target,
        evaluation: Callable[[], PreparedInputs],
        preprocess: Callable[[Sequence[Any]], numpy.ndarray[Any, Any]],
        plan: Plan,
    ) -> None:
        self.case = case
        self.artifact = artifact
        self._agent = agent
        self._target = target
        self._evaluation = evaluation
        self._preprocess = preprocess
        self._plan = plan
        self._directory = tempfile.TemporaryDirectory(prefix="inference-gate-")
        try:
            loaded = agent.load(load_arguments(case, artifact, target.put))
        except BaseException:
            self.close()
            raise
        self.load_seconds: float = loaded["seconds"]
        self.inputs: list[dict[str, Any]] = loaded["inputs"]
        self.outputs: list[dict[str, Any]] = loaded["outputs"]

    def predict_prepared(self, inputs: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        """Outputs, float32 (N, classes), for float32 inputs (N,) + the card's input shape that are preprocessed already."""
        self._check_task("classification", "is a detector, which has several outputs: use detect() or detect_prepared()")
        return self._outputs(inputs)[0]

    def predict(self, pictures: Sequence[Any]) -> numpy.ndarray[Any, Any]:
        """Outputs, float32 (N, classes), for pictures (arrays of H x W [x C]) that are preprocessed here as the card says."""
        self._check_task("classification", "is a detector, which has several outputs: use detect() or detect_prepared()")
        return self.predict_prepared(self._preprocess(pictures))

    def detect_prepared(self, inputs: numpy.ndarray[Any, Any]) -> Sequence[Detections]:
        """What a detector finds in preprocessed inputs, one a picture: boxes (K, 4), scores (K,) and classes (K,), the highest score first.

        Boxes are ymin, xmin, ymax, xmax in 0..1 of the picture, classes are counted from 0.
        """
        self._check_task("detection", "is no detector: use predict() or predict_prepared()")
        return detect(self.case.card, self._outputs(inputs)).detections

    def detect(self, pictures: Sequence[Any]) -> Sequence[Detections]:
        """What a detector finds in pictures (arrays of H x W [x C]) that are preprocessed here as the card says."""
        self._check_task("detection", "is no detector: use predict() or predict_prepared()")
        return self.detect_prepared(self._preprocess(pictures))

    def _check_task(self, task: str, otherwise: str) -> None:
        if self.case.card.task != task:
            raise ValueError(f"{self.case.id} {otherwise}")

    def _outputs(self, inputs: numpy.ndarray[Any, Any]) -> Outputs:
        import numpy

        shape = tuple(self.case.card.input.shape)
        if inputs.shape[1:] != shape or len(inputs) == 0:
            raise ValueError(f"expected at least one input of shape {shape}, but got an array of shape {inputs.shape}")
        source, found = (
            Path(self._directory.name) / "inputs.npy",
            Path(self._directory.name) / predictions_name(self.case, "outputs"),
        )
        numpy.save(source, numpy.ascontiguousarray(inputs, dtype=numpy.float32))
        there = self._target.place_for(found)
        self._agent.predict(predict_arguments(self.case, self._target.put(source), there))
        self._target.fetch(there, found)
        return read_predictions(found)

    def measure(self) -> Replicate:
        """One replicate in this agent: warm-up until steady, then the rounds, on the card's own evaluation pictures."""
        inputs, pictures = self._target.put(self._evaluation().path), self.case.card.measuring.pictures
        return measure_loaded(self._agent, inputs, self._plan, self.load_seconds, pictures=pictures)

    def close(self) -> None:
        self._agent.close()
        self._directory.cleanup()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
