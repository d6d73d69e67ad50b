"""The fixtures: the gate's public face. Each is usable alone in a test of one's own.

``case`` is parametrized with every case that cards and options select; the others give what belongs to that case::

    def test_mine(case, runner):
        outputs = runner.predict(my_pictures)

    def test_my_latency(case, latency, benchmark):
        latency.replay_into(benchmark)
        latency.check()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .artifacts import StoredArtifact
    from .cases import Case
    from .checks import AccuracyCheck, LatencyCheck, StreamCheck
    from .gate_session import GateSession
    from .runner import Runner
    from .zoo import FetchedCheckpoint


@pytest.fixture(scope="session")
def gate(pytestconfig: pytest.Config) -> GateSession:
    """The run's gate: settings, cards, targets, store and results. Scope: session."""
    from .plugin import gate_session

    return gate_session(pytestconfig)


@pytest.fixture
def gate_case_id(request: pytest.FixtureRequest) -> str:
    """The id of the case at hand, such as ``digits_cnn-tflite-int8-b1-t1``. Scope: function."""
    case_id: str = request.param
    return case_id


@pytest.fixture
def case(gate_case_id: str, gate: GateSession) -> Case:
    """The case at hand: its model card, backend, precision, batch, threads and device. Scope: function; parametrized."""
    return gate.case(gate_case_id)


@pytest.fixture
def checkpoint(case: Case, gate: GateSession) -> FetchedCheckpoint:
    """The case's checkpoint, fetched and verified. Scope: function; fetched once a run, kept between runs.

    Fails the test with one sentence where it cannot be had.
    """
    return gate.checkpoint(case)


@pytest.fixture
def artifact(case: Case, gate: GateSession) -> StoredArtifact:
    """The case's converted model, from the store. Scope: function; converted once, kept between runs.

    Skips the test where this machine lacks the converter, fails it where the conversion fails.
    """
    return gate.artifact(case)


@pytest.fixture
def runner(case: Case, gate: GateSession) -> Iterator[Runner]:
    """A fresh agent with the case's artifact loaded: ``predict(pictures)``, ``measure()``. Scope: function."""
    with gate.runner(case) as opened:
        yield opened


@pytest.fixture
def accuracy(case: Case, gate: GateSession) -> AccuracyCheck:
    """The case's accuracy on its evaluation set, judged: ``figures``, ``verdict``, ``check()``. Scope: function."""
    return gate.accuracy_check(case)


@pytest.fixture
def latency(case: Case, gate: GateSession, request: pytest.FixtureRequest) -> LatencyCheck:
    """The case's latency, measured in the sweep and judged: ``replay_into(benchmark)``, ``check()``. Scope: function.

    Errors where the run compares and there is no baseline for the case.
    """
    return gate.latency_check(case, request.node)


@pytest.fixture
def gate_stream_of_case(case: Case) -> Case:
    """The case at hand, which is a stream's: a test gets those, and no others, by asking for ``stream``. Scope: function."""
    return case


@pytest.fixture
def stream(gate_stream_of_case: Case, gate: GateSession, request: pytest.FixtureRequest) -> StreamCheck:
    """The case's stream of frames, measured in the sweep and judged: ``replay_into(benchmark)``, ``check()``, ``figures``. Scope: function.

    Only cards with a ``[stream]`` table have such cases, or all with ``--gate-stream``; without any the test is not collected.
    """
    return gate.stream_check(gate_stream_of_case, request.node)
