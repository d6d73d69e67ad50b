"""What a checkpoint becomes first, where the place that builds a model has no way from the checkpoint's own format.

TensorRT on a board without TensorFlow takes ONNX alone, so the converter here makes ONNX of a Keras checkpoint, and the board builds from
that. An intermediate is an artifact like any other: a case that runs it shares it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .agent_role import AgentRole
from .backends import BACKENDS
from .cases import Case
from .outcome import Outcome, StageFailed


@dataclass(frozen=True)
class Intermediate:
    """A ``format`` of checkpoints that ``backend`` makes, in float; ``takes`` is what has to be installed for that."""

    format: str
    backend: str
    takes: str

    def case(self, case: Case) -> Case:
        """The case whose artifact it is."""
        return Case(case.card, self.backend, "fp32", case.batch)


INTERMEDIATES = (
    Intermediate("onnx", "onnxruntime", "TensorFlow, tf2onnx and onnx"),
    Intermediate("saved_model", "tensorflow", "TensorFlow"),
)


def choose_intermediate(case: Case, builder: AgentRole, converter: AgentRole) -> Intermediate | None:
    """What ``converter`` makes of the case's checkpoint for ``builder``; ``None`` where the builder takes the checkpoint as it is.

    Raises :class:`StageFailed` (``unsupported``) with what is missing where.
    """
    source = case.card.checkpoint.format
    if builder.takes(case.backend, source):
        return None
    reasons = []
    for intermediate in INTERMEDIATES:
        if not builder.takes(case.backend, intermediate.format):
            continue
        try:
            converter.require(intermediate.case(case), convert=True)
        except StageFailed as failure:
            reasons.append((intermediate, failure.outcome.message))
        else:
            return intermediate
    there = f"{builder.target.name} builds no {case.backend} from {source}"
    if not reasons:
        message = f"{there}, and from nothing else that could be made of it"
    else:
        intermediate, reason = reasons[0]
        message = (
            f"{there}, but from {intermediate.format}, which cannot be made of it: {reason}; install {intermediate.takes} where models are"
            " converted, or name another Python with --gate-convert-with"
        )
    raise StageFailed(Outcome("unsupported", "convert", message))


def choose_portable(case: Case, converter: AgentRole) -> Intermediate | None:
    """The same for a board that cannot be asked what it takes: what every installation of the case's backend builds from.

    Raises :class:`StageFailed` (``unsupported``) where ``converter`` cannot make that of the checkpoint.
    """
    info = BACKENDS.get(case.backend)
    checkpoint = case.card.checkpoint
    of_torchvision = checkpoint.architecture is not None and checkpoint.architecture.is_of_torchvision  # it becomes nothing else
    if info is None or not info.portable_sources or checkpoint.format in info.portable_sources or of_torchvision:
        return None
    intermediate = next(one for one in INTERMEDIATES if one.format in info.portable_sources)
    try:
        converter.require(intermediate.case(case), convert=True)
    except StageFailed as failure:
        message = (
            f"a board of which nothing is known yet builds {case.backend} from {intermediate.format}, which cannot be made of"
            f" {checkpoint.format} here: {failure.outcome.message}; install {intermediate.takes} where models are converted, or name"
            " another Python with --gate-convert-with"
        )
        raise StageFailed(Outcome("unsupported", "convert", message)) from None
    return intermediate
