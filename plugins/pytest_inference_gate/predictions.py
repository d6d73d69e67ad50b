"""The files in which an agent leaves what a model says of its pictures, and how it is asked for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Case

if TYPE_CHECKING:
    import numpy

    Outputs = list[numpy.ndarray[Any, numpy.dtype[Any]]]


def predict_arguments(case: Case, inputs: str, outputs: str) -> dict[str, Any]:
    """What an agent's ``predict`` wants: of a detection model all outputs, in an ``.npz``, of others the one, in an ``.npy``."""
    return {"inputs": inputs, "outputs": outputs, **({"all_outputs": True} if case.card.task == "detection" else {})}


def predictions_name(case: Case, stem: str) -> str:
    """The name of the file that the predictions of the case go into."""
    return f"{stem}.npz" if case.card.task == "detection" else f"{stem}.npy"


def read_predictions(path: Path) -> Outputs:
    """The model's outputs in their order, float32, each with the pictures first: one of an ``.npy``, ``output_0``, ... of an ``.npz``.

    Raises ValueError for an ``.npz`` without them.
    """
    import numpy

    loaded: Any = numpy.load(path, allow_pickle=False)
    if not isinstance(loaded, numpy.lib.npyio.NpzFile):
        return [loaded]
    with loaded:
        names = sorted(
            (name for name in loaded.files if name.startswith("output_")), key=lambda name: int(name[len("output_") :])
        )
        if not names or names != [f"output_{number}" for number in range(len(names))]:
            raise ValueError(
                f"{path.name} holds {', '.join(loaded.files) or 'nothing'}, where output_0, output_1, ... are expected"
            )
        return [loaded[name] for name in names]
