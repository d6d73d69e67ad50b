"""The matrix of cases: which model runs on which backend and device, in which precision, batch, number of
threads and variant of its graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from .backends import BACKENDS, KnownBackends, backend_infos, places
from .card_tables.variants import variants_of
from .cards import ModelCard
from .cases import Case
from .errors import GateError
from .streams.option import StreamOption
from .streams.source import stream_settings


class NoCasesError(GateError):
    """A selection that leaves nothing to measure."""


def embedded_models() -> Path:
    """The folder of the models that come with the plugin: in the wheel beside this module, in a clone at the top."""
    here = Path(__file__).resolve().parent
    inside = here / "models"
    return inside if inside.is_dir() else here.parent.parent / "models"


def build_cases(
    cards: Iterable[ModelCard],
    *,
    select: Sequence[str] = (),
    batches: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    known_backends: KnownBackends = BACKENDS,
    boards: Sequence[str | None] = (None,),
    stream: StreamOption | None = None,
) -> list[Case]:
    """All cases of ``cards``, board by board and in the cards' order, but for those that ``select`` leaves out.

    ``known_backends`` are those with which the cards were loaded; ``boards`` are the names of several boards, each of which has all cases.
    ``stream`` is what ``--gate-stream`` names: then every card has streams. A stream's frames come one by one, whatever ``batches`` says.

    A pattern of ``select`` matches a case's whole id, with or without its board, or its model's name. A card that is not a default one
    takes part only where a pattern matches it. Raises :class:`NoCasesError` where no case is left, and for a pattern that matches nothing.
    """
    cases: list[Case] = []
    unmatched = set(select)
    of_one = [case for card in cards for case in _cases_of(card, batches, threads, known_backends, stream)]
    for case in (replace(case, board=board) for board in boards for case in of_one):
        names = (case.id, case.test_id, case.model)
        matching = [pattern for pattern in select if any(fnmatchcase(name, pattern) for name in names)]
        unmatched.difference_update(matching)
        if matching or (not select and case.card.default):
            cases.append(case)
    if unmatched:
        patterns = ", ".join(repr(pattern) for pattern in sorted(unmatched))
        raise NoCasesError(f"no case matches {patterns}; pytest --collect-only -q --gate-select='*' lists all there are")
    if not cases:
        raise NoCasesError("no case is left to run: every card has default = false, so name some with --gate-select")
    return cases


def _cases_of(
    card: ModelCard,
    batches: Sequence[int] | None,
    threads: Sequence[int] | None,
    known_backends: KnownBackends,
    stream: StreamOption | None,
) -> Iterable[Case]:
    yield from _plain_cases_of(card, batches or card.batches, threads, known_backends)
    for setting in stream_settings(card, stream):
        for case in _plain_cases_of(card, [1], threads, known_backends):
            yield replace(case, stream=setting)


def _plain_cases_of(
    card: ModelCard, batches: Sequence[int], threads: Sequence[int] | None, known_backends: KnownBackends
) -> Iterable[Case]:
    infos = backend_infos(known_backends)
    for backend, precisions in card.backends.items():
        info = infos[backend]
        for device, precision in places(info, precisions, card.devices.get(backend, info.devices)):
            in_id = device != info.devices[0]
            variants = variants_of(card, backend, device)
            for batch, count, variant in product(batches, threads or card.threads, variants):
                yield Case(card, backend, precision, batch, count, variant=variant, device=device, device_in_id=in_id)
