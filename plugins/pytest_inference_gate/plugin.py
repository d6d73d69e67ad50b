"""The hooks, each short. Nothing heavy is imported here: what a hook needs, it imports when it is first needed."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from . import benchmark_adapter, options
from .fixtures import accuracy, artifact, case, checkpoint, gate, gate_case_id, gate_stream_of_case, latency, runner, stream

if TYPE_CHECKING:
    from .case_selection import CaseSelection
    from .gate_session import GateSession

__all__ = [
    "accuracy",
    "artifact",
    "case",
    "checkpoint",
    "gate",
    "gate_case_id",
    "gate_stream_of_case",
    "latency",
    "runner",
    "stream",
]

_MARKERS = (
    "cpu: cases that run on a CPU",
    "jetson: cases that run on an NVIDIA Jetson",
    "edgetpu: cases that run on a Coral Edge TPU",
    "cuda: cases that run on a discrete NVIDIA GPU",
    "gate(tolerance): how much slower than its baseline this test's case may be, such as '3%'",
)
_selection_key = pytest.StashKey["CaseSelection"]()
_session_key = pytest.StashKey["GateSession"]()
_refusal_key = pytest.StashKey[str]()
_REFUSAL = "inference_gate_refusal"  # what a worker of pytest-xdist calls it in its output


def gate_session(config: pytest.Config) -> GateSession:
    """This run's gate. Made at its first use, so that a project without cases pays nothing for it."""
    if _session_key not in config.stash:
        from .gate_session import GateSession

        config.stash[_session_key] = GateSession(config, options.read_settings(config), _case_selection(config))
    return config.stash[_session_key]


def _case_selection(config: pytest.Config) -> CaseSelection:
    """What collecting tests needs of the gate. The rest of it is imported once a test is to run."""
    if _selection_key not in config.stash:
        from .case_selection import CaseSelection

        config.stash[_selection_key] = CaseSelection(config, options.read_settings(config))
    return config.stash[_selection_key]


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if not options.is_configured(config) or not config.pluginmanager.hasplugin("benchmark"):
        return
    settings = options.read_settings(config)  # here, so that a bad value is told before anything is collected
    options.check_targets(settings)
    storing = [name for name in ("compare", "save", "autosave") if config.getoption(f"benchmark_{name}", None)]
    if settings.takes_turns and storing:
        option = "--gate-against" if settings.against else "--gate-against-models"
        raise pytest.UsageError(
            f"{option} measures in turns, which neither needs nor makes a baseline: leave out --benchmark-{storing[0]}, or {option}"
        )
    if storing and benchmark_adapter.explicit_storage_directory(config) is not None:
        from .devices import local_identity

        # Whose folder it is with a board will be known once the board has been asked; until then it is that of all of them.
        if not settings.targets:
            directory = benchmark_adapter.device_directory(config, settings.baselines, local_identity().id)
            benchmark_adapter.redirect_storage(config, directory)
        else:
            if benchmark_adapter.storage_is_default(config):
                benchmark_adapter.redirect_storage(config, settings.baselines)
            benchmark_adapter.postpone_loading(config)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    benchmark_adapter.resume_comparing(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # A test with a `case` of its own, as parameter or as fixture, does not come to ask for this fixture, and is left alone.
    if "gate_case_id" in metafunc.fixturenames:
        _case_selection(metafunc.config).parametrize(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, object, object]:
    collected = yield
    if _selection_key not in collector.config.stash:  # no test has asked for a case yet
        return collected
    from .case_selection import without_cases

    return without_cases(collected)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if _selection_key in session.config.stash:
        with _told_by_controller(session.config, items):
            session.config.stash[_selection_key].require_cases()


@pytest.hookimpl(tryfirst=True)  # before a worker of pytest-xdist says what it has collected
def pytest_collection_finish(session: pytest.Session) -> None:
    if any("gate_case_id" in getattr(item, "fixturenames", ()) for item in session.items):
        with _told_by_controller(session.config, session.items):
            _case_selection(session.config).collect(session.items)
            if not session.config.option.collectonly:
                gate_session(session.config)


@contextlib.contextmanager
def _told_by_controller(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """In a worker of pytest-xdist, a usage error would look like a crash: run no test there, and let the controller tell it."""
    try:
        yield
    except pytest.UsageError as error:
        if not hasattr(config, "workeroutput"):
            raise
        config.workeroutput[_REFUSAL] = str(error)
        items.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    refusal = getattr(node, "workeroutput", {}).get(_REFUSAL)
    if refusal:
        node.config.stash[_refusal_key] = refusal


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    config = session.config
    stopped = session.testsfailed and not config.option.continue_on_collection_errors
    if _session_key in config.stash and not config.option.collectonly and not stopped:
        config.stash[_session_key].prepare()
    result = yield
    if _refusal_key in config.stash:
        raise pytest.UsageError(config.stash[_refusal_key])
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _session_key in item.config.stash:
        item.config.stash[_session_key].note_report(item, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    verdict = getattr(report, "inference_gate_verdict", None)
    if verdict is None or report.outcome != "failed":
        return None
    from .verdict import RELAXABLE, letter, word

    if verdict not in RELAXABLE:
        return None
    return "failed", letter(verdict), word(verdict)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    # Before pytest-benchmark's own wrapper, which saves: by now it is known what may be saved.
    if _session_key in session.config.stash:
        session.config.stash[_session_key].finish(session)
    yield


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, object, object]:
    # Below pytest-benchmark's table, which is wide, and even where its --benchmark-compare-fail raises.
    try:
        return (yield)
    finally:
        if _session_key in terminalreporter.config.stash:
            terminalreporter.config.stash[_session_key].report(terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _session_key in config.stash:
        config.stash[_session_key].close()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    if options.is_configured(config):
        from .comparison import check_compared_document
        from .devices import local_identity

        device = config.stash[_session_key].device_id if _session_key in config.stash else None
        check_compared_document(machine_info, compared_benchmark, device or local_identity().id)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if _session_key in config.stash:
        config.stash[_session_key].describe_run(output_json)
