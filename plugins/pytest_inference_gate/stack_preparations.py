"""Who converts for whom: this stack's preparation, and that of the other stack in a run that measures two in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .agent_role import AgentRole
from .case_selection import Scalings
from .cases import Case
from .errors import GateError, StoreError
from .evaluation_inputs import prepare_inputs
from .outcome import Outcome, StageFailed
from .preparation import Preparation, PreparedInputs
from .progress import Progress
from .source_formats import source_format
from .streams.source import StreamSetting, StreamSource, find_source

if TYPE_CHECKING:
    from .cards import ModelCard
    from .options import Settings
    from .run_environment import RunEnvironment
    from .zoo import FetchedCheckpoint


class StackPreparations:
    """``own`` and ``other`` (``None`` where one stack is measured alone) are shared by all devices of the run: but for what a device
    builds for itself, an artifact does not depend on where it runs. ``notes`` are sentences for the user.
    """

    def __init__(self, settings: Settings, environment: RunEnvironment, scalings: Scalings, progress: Progress) -> None:
        self.notes: list[str] = []
        self._settings = settings
        self._environment = environment
        self._scalings = scalings
        self._progress = progress
        self._sources: dict[str, StreamSource | StageFailed] = {}
        self._sources_lock = threading.Lock()
        self.own = self._preparation(environment.converter, self._fetch, self._inputs)
        self.other: Preparation | None = None
        other = environment.other_converter
        if other is None:
            return
        self.other = self.own
        if settings.against_models is not None:  # cards of their own, under the same names
            self.other = self._preparation(other, self._fetch, self._inputs)
        elif other is not environment.converter:
            self.other = self._preparation(other, self.own.checkpoint, self.own.inputs)

    def _preparation(
        self,
        converter: AgentRole,
        fetch: Callable[[ModelCard], FetchedCheckpoint],
        inputs: Callable[[ModelCard, str], PreparedInputs],
    ) -> Preparation:
        environment = self._environment
        return Preparation(environment.store, converter, fetch, inputs, self._progress.step, environment.built_on_device)

    def _fetch(self, card: ModelCard) -> FetchedCheckpoint:
        from .zoo import fetch_checkpoint

        try:
            return fetch_checkpoint(
                card,
                store_root=self._environment.store.root,
                lock_file=card.directory / "checkpoints.lock.toml",
                mirror=self._settings.mirror,
                offline=self._settings.offline,
                progress=self._progress.step,
            )
        except GateError as error:
            raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def _inputs(self, card: ModelCard, purpose: str) -> PreparedInputs:
        environment = self._environment
        try:
            return prepare_inputs(
                environment.store,
                card,
                purpose,
                self._scalings,
                self._settings,
                environment.logs,
                self._progress.step,
                remark=self.notes.append,
            )
        except StoreError:
            raise  # no fault of the card's: no other case could be prepared either
        except GateError as error:
            raise StageFailed(Outcome("fetch_error", "fetch", str(error))) from None

    def stream_source(self, card: ModelCard, setting: StreamSetting) -> StreamSource:
        """Where the frames of the card's streams come from, known by their digest. Raises :class:`StageFailed`."""
        with self._sources_lock:
            if card.name not in self._sources:
                try:
                    self._sources[card.name] = find_source(
                        card, setting.section, self._settings, self._environment.store.root, self._progress.step
                    )
                except GateError as error:
                    self._sources[card.name] = StageFailed(Outcome("fetch_error", "fetch", str(error)))
            found = self._sources[card.name]
        if isinstance(found, StageFailed):
            raise found
        return found

    def of(self, case: Case, *, own: bool) -> Preparation:
        """Each stack converts for itself, unless it is a bare runtime without any converter: then it runs what the other one made.

        What a runtime builds for itself runs nowhere else.
        """
        if self.other is None:
            return self.own
        if self._settings.against_models is not None or self.own.is_built_on_device(case):
            return self.own if own else self.other
        mine, theirs = (self.own, self.other) if own else (self.other, self.own)

        def able(preparation: Preparation) -> bool:
            try:
                preparation.converter.require(case, convert=True)
            except StageFailed:
                return False
            return True

        if able(mine) or not able(theirs):
            return mine
        whose = "this stack" if own else "the other stack"
        source = source_format(case.card.checkpoint)
        note = f"{whose} has no converter from {source} to {case.backend}, so both stacks run what the one that has it makes"
        if note not in self.notes:
            self.notes.append(note)
        return theirs

    def remarks(self) -> list[str]:
        """All there is to say, once everything is converted."""
        used: Mapping[Preparation, None] = dict.fromkeys(one for one in (self.own, self.other) if one is not None)
        return [*self.notes, *(remark for preparation in used for remark in preparation.remarks())]
