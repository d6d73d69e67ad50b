"""What a user's own suite or plugin can add to the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy

    from .detection.annotations import Annotations
    from .detection.coco_evaluation import Detections
    from .results import CaseResult


@dataclass(frozen=True)
class BackendExtension:
    """A backend beyond the built-in ones.

    ``module`` is a file that the agent loads in its own process: Python 3.6 or later, with the functions and the class that the
    built-in backends have. ``marker`` is the marker of its cases: ``cpu``, or ``jetson``, ``edgetpu`` or ``cuda``, which
    are skipped where the target has no such device, or one that you registered.
    """

    name: str
    precisions: tuple[str, ...]
    module: Path
    marker: str = "cpu"
    builds_on_device: bool = False


@pytest.hookspec
def pytest_inference_gate_backends(config: pytest.Config) -> list[BackendExtension]:  # type: ignore[empty-body]
    """Return backends to add to the built-in ones."""


@pytest.hookspec
def pytest_inference_gate_scalings(  # type: ignore[empty-body]
    config: pytest.Config,
) -> Mapping[str, Callable[[numpy.ndarray[Any, Any]], numpy.ndarray[Any, Any]]]:
    """Return scalings to add to the built-in ones: name -> function from float32 pixels (H, W, C) to float32 of the same shape.

    A card names one of them under ``[preprocessing] scaling``.
    """


@pytest.hookspec
def pytest_inference_gate_metrics(  # type: ignore[empty-body]
    config: pytest.Config,
) -> Mapping[str, Callable[[numpy.ndarray[Any, Any], numpy.ndarray[Any, Any] | None], float]]:
    """Return metrics to report beside top-1: name -> function of (outputs (N, classes) float32, labels (N,) or None) to a number."""


@pytest.hookspec
def pytest_inference_gate_detection_metrics(  # type: ignore[empty-body]
    config: pytest.Config,
) -> Mapping[str, Callable[[Sequence[Detections], Annotations | None], float]]:
    """Return metrics to report beside mAP: name -> function of detections, one a picture, and annotations (or None) to a number.

    The detections of a picture are boxes (K, 4) ymin, xmin, ymax, xmax in 0..1, scores (K,) and classes (K,), the highest score first.
    """


@pytest.hookspec
def pytest_inference_gate_result(config: pytest.Config, result: CaseResult) -> None:
    """Called once for each case when its verdict is known."""
