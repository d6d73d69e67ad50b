"""The user's model as it is, in float, running in an agent: asked for its answers while preprocessing is looked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..agent_process import AgentProcess
from ..agent_role import AgentRole
from ..cards import ModelCard
from ..cases import Case
from ..preparation import load_request, reference_backend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FloatModel:
    """One loaded model. Raises :class:`StageFailed` where it cannot be converted or loaded.

    ``converter``: an agent of the role, in which a framework may be loaded already. ``card``: any card of the model; of its preprocessing
    nothing is used. ``scratch``: a folder that is the caller's to remove.
    """

    def __init__(
        self, role: AgentRole, converter: AgentProcess, card: ModelCard, scratch: Path, progress: Callable[[str], None]
    ) -> None:
        backend = reference_backend(card)
        assert backend is not None
        self.backend = backend
        self._scratch = scratch
        self._case = Case(card, backend, "fp32", card.batches[0])
        role.require(self._case, convert=True)
        role.require(self._case, convert=False)
        folder = scratch / "float-model"
        folder.mkdir()
        made = converter.convert(_request(self._case, folder), progress=progress)
        converter.close()  # two frameworks at once would take twice the memory
        progress("loading the model")
        self._agent: AgentProcess = role.start("float-model")
        try:
            self._agent.load(load_request(self._case, str(folder / made["model"])))
        except BaseException:
            self._agent.close()
            raise

    def answers(self, pictures: NDArray[np.float32]) -> NDArray[np.int64]:
        """The index of the largest output for each preprocessed picture, ``(N,)``."""
        import numpy as np

        inputs, outputs = self._scratch / "inputs.npy", self._scratch / "outputs.npy"
        np.save(inputs, pictures)
        self._agent.predict({"inputs": str(inputs), "outputs": str(outputs)})
        return np.asarray(np.load(outputs, allow_pickle=False).argmax(axis=1), np.int64)

    def __enter__(self) -> FloatModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._agent.close()


def _request(case: Case, folder: Path) -> Mapping[str, Any]:
    checkpoint, settings = case.card.checkpoint, case.card.input
    return {
        "backend": case.backend,
        "precision": case.precision,
        "batch": case.batch,
        "device": "cpu",
        "options": {},
        "source": {
            "format": checkpoint.format,
            "path": str(case.card.directory / str(checkpoint.file)),
            "architecture": checkpoint.architecture.model_dump() if checkpoint.architecture else None,
            "seed": None,
            "inputs": [],
            "outputs": [],
        },
        "input": {"shape": list(settings.shape), "dtype": settings.dtype, "layout": settings.layout},
        "calibration": None,
        "output_directory": str(folder),
    }
