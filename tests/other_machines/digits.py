"""The embedded digits model, converted here, and what it answers here: the measure of what it answers elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.targets.interpreter import InterpreterTarget

MODELS = Path(__file__).resolve().parents[2] / "models" / "digits"
INPUT = {"shape": [32, 32, 1], "dtype": "float32", "layout": "nhwc"}
COUNT = 24
ROUNDS = {"minimum": 5, "minimum_seconds": 0.0, "maximum": 5}
WARM_UP = {"minimum_rounds": 2, "minimum_seconds": 0.0, "maximum_seconds": 0.1, "window": 2, "agreement": 0.5}

# How far a probability may be from this machine's: other kernels add up in another order, and round to other neighbours.
CLOSENESS = {"fp32": 1e-5, "fp16": 1e-3, "dynamic": 0.03, "int8": 0.03, "full_int8": 0.03}
PRECISIONS = tuple(CLOSENESS)

Array = numpy.ndarray[Any, Any]


@dataclass
class Digits:
    """``folder`` keeps what was converted; ``pictures`` is a .npy file of 24 of them, and ``labels`` says what they are."""

    folder: Path
    pictures: Path = field(init=False)
    labels: Array = field(init=False)
    _made: dict[tuple[str, str], Path] = field(default_factory=dict)
    _answers: dict[Path, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with numpy.load(MODELS / "evaluation.npz") as data:
            images, self.labels = data["images"][:COUNT], data["labels"][:COUNT]
        pictures = numpy.kron(images.astype(numpy.float32) / 16, numpy.ones((4, 4), dtype=numpy.float32))
        self.pictures = self.folder / "pictures.npy"
        numpy.save(self.pictures, pictures.reshape(COUNT, 32, 32, 1))

    def model(self, backend: str, precision: str) -> Path:
        """The converted model, made by this interpreter's TensorFlow."""
        if (backend, precision) not in self._made:
            folder = self.folder / f"{backend}-{precision}"
            folder.mkdir()
            calibration = self.folder / "calibration.npy"
            numpy.save(calibration, numpy.load(self.pictures)[:16])
            with InterpreterTarget().start_agent(self.folder / "convert.log", Limits()) as agent:
                result = agent.convert(
                    {
                        "backend": backend,
                        "precision": precision,
                        "batch": 1,
                        "source": {
                            **{"architecture": None, "seed": None, "inputs": [], "outputs": []},
                            **{"format": "keras", "path": str(MODELS / "digits_cnn.keras")},
                        },
                        "input": INPUT,
                        "calibration": str(calibration),
                        "output_directory": str(folder),
                        "device": "cpu",
                        "options": {},
                    }
                )
            self._made[backend, precision] = folder / result["model"]
        return self._made[backend, precision]

    def answers_here(self, backend: str, precision: str, model: Path | None = None) -> Array:
        """The probabilities (24, 10) that this interpreter's runtime gives."""
        model = model or self.model(backend, precision)
        if model not in self._answers:
            with InterpreterTarget().start_agent(self.folder / "here.log", Limits()) as agent:
                self._answers[model] = self.answers(agent, backend, precision, model)
        return self._answers[model]

    def load(self, agent: AgentProcess, backend: str, precision: str, model: Path) -> dict[str, Any]:
        return agent.load(
            {
                **{"backend": backend, "precision": precision, "model": str(model), "threads": 1, "batch": 1},
                **{"input": INPUT, "device": "cpu", "options": {}},
            }
        )

    def answers(self, agent: AgentProcess, backend: str, precision: str, model: Path) -> Array:
        """What the runtime of this agent gives, after loading the model."""
        self.load(agent, backend, precision, model)
        outputs = self.folder / "outputs.npy"
        assert agent.predict({"inputs": str(self.pictures), "outputs": str(outputs)})["count"] == COUNT
        found: Array = numpy.load(outputs)
        return found

    def check_runs(
        self, agent: AgentProcess, backend: str, precision: str, model: Path, *, reference: Path | None = None
    ) -> None:
        """Load, predict and measure there; the answers must be those of here (``reference``: of this model)."""
        found = self.answers(agent, backend, precision, model)
        here = self.answers_here(backend, precision, reference or model)
        assert found.shape == (COUNT, 10)
        assert numpy.abs(found - here).max() <= CLOSENESS[precision]
        assert (found.argmax(1) == self.labels).mean() > 0.9
        measured = agent.measure({"inputs": str(self.pictures), "warmup": WARM_UP, "rounds": ROUNDS})
        assert len(measured["rounds"]) == ROUNDS["minimum"]
        assert min(measured["rounds"]) > 0
        assert measured["peak_rss_bytes"] > 2**20
        assert set(measured["condition"]) == {"before", "after", "process_seconds"}
