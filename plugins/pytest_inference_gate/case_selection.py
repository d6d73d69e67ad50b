"""Which cases take part: the cards' matrix while tests are collected, and what the tests that were selected ask of each case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from . import benchmark_adapter
from .backends import BACKENDS, BackendInfo
from .cards import ModelCard, load_cards
from .cases import Case, tolerance_for
from .errors import GateError
from .hookspecs import BackendExtension
from .matrix import build_cases, embedded_models
from .options import Settings, parse_share

STREAM_FIXTURE = "gate_stream_of_case"  # which none but the fixture ``stream`` asks for: a project may have one of that name
NO_CASE = "no case of this kind"

Scalings = Mapping[str, Callable[[Any], Any]]


@dataclass
class WantedCase:
    """What the selected tests ask of one case. ``builds``: how many times it is built; ``None`` where that makes no difference, since its
    backend makes the same of it each time."""

    case: Case
    items: list[pytest.Item] = field(default_factory=list)
    artifact: bool = False
    accuracy: bool = False
    latency: bool = False  # of a stream's case: of its frames
    builds: int | None = None

    @property
    def anything(self) -> bool:
        """Whether something is to be done for it before the tests run."""
        return self.artifact or self.accuracy or self.latency


class CaseSelection:
    """The cases of a run, by the parameter of their tests: the id, and the board among several.

    What cannot be used raises ``pytest.UsageError`` with one sentence.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        found: list[list[BackendExtension]] = config.hook.pytest_inference_gate_backends(config=config)
        self.extensions = {extension.name: extension for extensions in found for extension in extensions}
        scalings: list[Scalings] = config.hook.pytest_inference_gate_scalings(config=config)
        self.scalings: Scalings = {name: scaling for mapping in scalings for name, scaling in mapping.items()}
        self.wanted: dict[str, WantedCase] = {}
        self.clocks: dict[str, benchmark_adapter.ReplayClock] = {}  # by the test's node id
        self._cases: dict[str, Case] | None = None
        self._unusable: pytest.UsageError | None = None  # why there are no cases, found while tests were collected

    @property
    def cases(self) -> dict[str, Case]:
        """Every case that cards and options give, by the parameter of its tests, whether a test asks for it or not."""
        if self._cases is None:
            settings = self._settings
            try:
                cases = build_cases(
                    self._load_cards(settings.models or (embedded_models(),)),
                    select=settings.select,
                    batches=settings.batches,
                    threads=settings.threads,
                    known_backends=self._backends,
                    boards=[name for name, _ in settings.boards] or [None],
                    stream=settings.stream,
                )
            except GateError as error:
                raise pytest.UsageError(str(error)) from None
            self._cases = {case.test_id: case for case in cases}
        return self._cases

    def other_cases(self) -> dict[str, Case]:
        """Every case of the models that are measured in turns with this run's, by id. Raises ``pytest.UsageError``."""
        folder, settings = self._settings.against_models, self._settings
        if folder is None:
            return {case.id: case for case in self.cases.values()}
        try:
            cards = self._load_cards([folder])
            cases = build_cases(
                cards,
                select=["*"],
                batches=settings.batches,
                threads=settings.threads,
                known_backends=self._backends,
                stream=settings.stream,
            )
        except GateError as error:
            raise pytest.UsageError(f"--gate-against-models: {error}") from None
        return {case.id: case for case in cases}

    @property
    def _backends(self) -> Mapping[str, BackendInfo]:
        """The built-in backends, and those that hooks add."""
        added = {
            name: BackendInfo(tuple(extension.precisions), (extension.marker,), extension.builds_on_device)
            for name, extension in self.extensions.items()
        }
        return {**BACKENDS, **added}

    def _load_cards(self, folders: Sequence[Path]) -> list[ModelCard]:
        known = self._backends
        cards = [card for folder in folders for card in load_cards(folder, known, extra_scalings=list(self.scalings))]
        if not cards:
            searched = ", ".join(str(folder) for folder in folders)
            raise GateError(f"there is no model card in {searched}: add one (*.toml), or name another folder with --gate-models")
        by_name: dict[str, ModelCard] = {}
        for card in cards:
            first = by_name.setdefault(card.name, card)
            if first is not card:
                raise GateError(f"two model cards are named {card.name!r}: {first.path}, {card.path}")
        return cards

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """Give the test one parameter for each case, with the marker of its device: of streams where it asks for ``stream``, else of the
        others. Where there is none, :func:`without_cases` leaves the test out."""
        try:
            cases = self.cases.values()
        except pytest.UsageError as error:
            # Raised here, it would be a collection error with a traceback for each module: it is told once, by require_cases.
            self._unusable = error
            return
        of_streams = STREAM_FIXTURE in metafunc.fixturenames
        parameters = [
            pytest.param(case.test_id, id=case.test_id, marks=getattr(pytest.mark, case.device))
            for case in cases
            if (case.stream is not None) == of_streams
        ]
        metafunc.parametrize("gate_case_id", parameters or [NO_CASE], indirect=True)

    def require_cases(self) -> None:
        """Raise what kept a test from its cases. To be called before any test is deselected."""
        if self._unusable is not None:
            raise self._unusable

    def collect(self, items: Sequence[pytest.Item]) -> None:
        """Note what the selected tests ask for. Raises where an option would leave nothing measured."""
        for item in items:
            case_id = case_id_of(item)
            if case_id is None:
                continue
            names = getattr(item, "fixturenames", ())
            _marked_tolerance(item)  # here, so that a bad one is told before anything is measured
            case = self.cases[case_id]
            wanted = self.wanted.setdefault(case_id, WantedCase(case, builds=self._builds(case)))
            wanted.items.append(item)
            wanted.artifact |= "artifact" in names or "runner" in names
            wanted.accuracy |= "accuracy" in names
            measured = "latency" in names or STREAM_FIXTURE in names
            wanted.latency |= measured
            if measured and "benchmark" in names:
                self.clocks[item.nodeid] = benchmark_adapter.add_clock(item)
        if not self._config.option.collectonly:
            self._require_measuring()
        if self._settings.sustained is not None and not any(one.case.stream for one in self.wanted.values()):
            raise pytest.UsageError(
                "--gate-sustained lets streams go on, and no test of a stream is selected: give cards a [stream] table, or name a "
                "source with --gate-stream"
            )

    def _builds(self, case: Case) -> int | None:
        info = self._backends.get(case.backend)
        return self._settings.rebuilds if info is not None and info.builds_on_device else None

    def _require_measuring(self) -> None:
        if self.wanted and benchmark_adapter.is_distributed(self._config):
            raise pytest.UsageError(
                "-n (pytest-xdist) spreads the cases over processes that disturb each other's timings, so the gate does not run "
                "under it: leave it out, or deselect the gate's tests"
            )
        if not any(wanted.latency for wanted in self.wanted.values()):
            return
        option = benchmark_adapter.why_nothing_is_recorded(self._config)
        if option:
            raise pytest.UsageError(
                f"{option} keeps latency from being recorded, so the gate would pass without having measured: "
                "leave it out, or deselect the gate's tests"
            )

    def tolerance(self, wanted: WantedCase) -> float:
        """Latency's: the command line wins, then the marker, then the card's precision, then the card, then the ini file, then 5 or 3 %."""
        if self._settings.tolerance is not None:
            return self._settings.tolerance
        marked = next((value for item in wanted.items if (value := _marked_tolerance(item)) is not None), None)
        return marked or tolerance_for(wanted.case).latency or self._settings.default_tolerance


def without_cases(collected: object) -> object:
    """What was collected of one function, but for a test that no case is for: a suite without streams shows no test of streams."""
    if not isinstance(collected, list):
        return collected
    return [one for one in collected if not (isinstance(one, pytest.Item) and case_id_of(one) == NO_CASE)]


def case_id_of(item: pytest.Item) -> str | None:
    """The id of the case that the test is about, or ``None`` for any other test."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("gate_case_id") if callspec else None


def _marked_tolerance(item: pytest.Item) -> float | None:
    """What ``@pytest.mark.gate(tolerance=...)`` says of the test, if anything. Raises ``pytest.UsageError`` for what cannot be one."""
    marker = item.get_closest_marker("gate")
    if marker is None:
        return None
    given = [*marker.args, *marker.kwargs.values()]
    if len(given) != 1 or not set(marker.kwargs) <= {"tolerance"}:
        raise pytest.UsageError(
            f"{item.nodeid}: the gate marker takes one tolerance and nothing else, as in gate(tolerance='3%')"
        )
    (value,) = given
    try:
        return parse_share(f"{value:.9f}" if isinstance(value, (int, float)) else str(value))
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: the gate marker's tolerance {value!r} {error}") from None
