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
from .source_formats import source_format


@dataclass(frozen=True)
class Intermediate:
    """A ``format`` of checkpoints that ``backend`` makes, in float; ``takes`` is what has to be installed for that, and
    ``takes_of_torchvision`` where the architecture is one of torchvision."""

    format: str
    backend: str
    takes: str
    takes_of_torchvision: str

    def needs(self, case: Case) -> str:
        return self.takes_of_torchvision if _is_of_torchvision(case) else self.takes

    def case(self, case: Case) -> Case:
        """The case whose artifact it is."""
        return Case(case.card, self.backend, "fp32", case.batch)


INTERMEDIATES = (
    Intermediate("onnx", "onnxruntime", "TensorFlow, tf2onnx and onnx", "PyTorch, torchvision and onnx"),
    Intermediate("saved_model", "tensorflow", "TensorFlow", "TensorFlow"),
)
_READ_TORCHVISION = ("torch", "torch2trt")


def _is_of_torchvision(case: Case) -> bool:
    architecture = case.card.checkpoint.architecture
    return architecture is not None and architecture.is_of_torchvision


def choose_intermediate(case: Case, builder: AgentRole, converter: AgentRole) -> Intermediate | None:
    """What ``converter`` makes of the case's checkpoint for ``builder``; ``None`` where the builder takes the checkpoint as it is.

    Raises :class:`StageFailed` (``unsupported``) with what is missing where.
    """
    source = source_format(case.card.checkpoint)
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
            f"{there}, but from {intermediate.format}, which cannot be made of it: {reason}; install {intermediate.needs(case)} where"
            " models are converted, or name another Python with --gate-convert-with"
        )
    raise StageFailed(Outcome("unsupported", "convert", message))


def choose_portable(case: Case, converter: AgentRole) -> Intermediate | None:
    """The same for a board that cannot be asked what it takes: what every installation of the case's backend builds from.

    Raises :class:`StageFailed` (``unsupported``) where ``converter`` cannot make that of the checkpoint.
    """
    info = BACKENDS.get(case.backend)
    source = source_format(case.card.checkpoint)
    if info is None or not info.portable_sources or source in info.portable_sources:
        return None
    if case.backend in _READ_TORCHVISION and _is_of_torchvision(
        case
    ):  # as it is: the board has torchvision, or cannot do without
        return None
    intermediate = next(one for one in INTERMEDIATES if one.format in info.portable_sources)
    try:
        converter.require(intermediate.case(case), convert=True)
    except StageFailed as failure:
        message = (
            f"a board of which nothing is known yet builds {case.backend} from {intermediate.format}, which cannot be made of"
            f" {source} here: {failure.outcome.message}; install {intermediate.needs(case)} where models are converted, or name"
            " another Python with --gate-convert-with"
        )
        raise StageFailed(Outcome("unsupported", "convert", message)) from None
    return intermediate
