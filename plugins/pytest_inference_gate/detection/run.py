"""From what a detector says to its figures: its outputs decoded, its annotations or its float model's detections beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..card_tables.detection import detection_settings
from ..cases import Case, tolerance_for
from ..errors import EvaluationDataError
from .accuracy import DetectedPictures, DetectionDemands, DetectionFigures, compare_detections

if TYPE_CHECKING:
    from ..cards import ModelCard
    from ..predictions import Outputs
    from ..preparation import PreparedInputs
    from .annotations import Annotations
    from .coco_evaluation import Detections

DetectionMetric = Callable[[Sequence["Detections"], "Annotations | None"], float]


def demands_of(case: Case, *, of_float_model: bool = True) -> DetectionDemands:
    """What the card asks of the case. What it expects of the float model is left out where the reference need not be that."""
    card, tolerance = case.card, tolerance_for(case)
    expected = card.evaluation.map if card.evaluation is not None and of_float_model else None
    score = DetectionDemands.matching_score if card.detection is None else card.detection.matching_score
    map_drop = card.tolerance.map_drop if tolerance.map_drop is None else tolerance.map_drop
    return DetectionDemands(map_drop, tolerance.matched, expected, score)


def detect(card: ModelCard, outputs: Outputs) -> DetectedPictures:
    """What the card's ``[detection]`` makes of a model's outputs. Raises ValueError where the two do not fit each other."""
    from ..agent.detection_decoding import Decoder

    decoder = Decoder(detection_settings(card))
    return DetectedPictures(decoder.decode(outputs), decoder.not_finite(outputs))


class DetectionRun:
    """Figures of the detection cases of one device. What a float model detects is decoded and evaluated once for all of its cases."""

    def __init__(self, metrics: Mapping[str, DetectionMetric]) -> None:
        self._metrics = metrics
        self._references: dict[str, DetectedPictures] = {}
        self._lock = threading.Lock()

    def figures(
        self,
        case: Case,
        detected: DetectedPictures,
        inputs: PreparedInputs,
        reference: Outputs | None,
        compared_with: Case | None = None,
    ) -> DetectionFigures:
        """``reference``: the float model's outputs, or, where ``compared_with`` is given, those of that case of the other stack.

        Raises ValueError and ``GateError`` for what cannot be decoded or evaluated.
        """
        demands = demands_of(case, of_float_model=compared_with is None)
        found = None if reference is None else self._reference(case, reference, compared_with)
        return compare_detections(detected, found, inputs.names, inputs.annotations, demands)

    def _reference(self, case: Case, outputs: Outputs, compared_with: Case | None) -> DetectedPictures:
        if compared_with is not None:
            return detect(compared_with.card, outputs)
        with self._lock:
            if case.model not in self._references:
                self._references[case.model] = detect(case.card, outputs)
            return self._references[case.model]

    def metrics(self, detected: DetectedPictures, inputs: PreparedInputs) -> dict[str, float]:
        """What the hook ``pytest_inference_gate_detection_metrics`` adds."""
        return {name: _metric(name, metric, detected.detections, inputs.annotations) for name, metric in self._metrics.items()}


def _metric(name: str, metric: DetectionMetric, detections: Sequence[Any], annotations: Annotations | None) -> float:
    try:
        return float(metric(detections, annotations))
    except Exception as error:  # it is a user's code, and must not end the run of all other cases
        reason = " ".join(str(error).split())
        raise EvaluationDataError(
            f"the metric {name!r} of the hook pytest_inference_gate_detection_metrics raised {type(error).__name__}: {reason}; correct it"
        ) from error
