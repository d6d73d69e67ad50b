"""What benchmark_adapter.py relies on inside pytest-benchmark. To be run with each release that is supported."""

import json

import cpuinfo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_inference_gate import benchmark_adapter

ATTRIBUTES = ("storage", "benchmarks", "compare", "disabled", "skip", "save", "autosave", "groups", "logger")
PEDANTIC = "def test_one(benchmark):\n    benchmark.extra_info['inference_gate'] = {'id': 'one'}\n    benchmark.pedantic(int, rounds=3)\n"
ROUNDS = st.lists(st.floats(min_value=1e-9, max_value=1e4), min_size=1, max_size=40)


@pytest.fixture(autouse=True)
def one_machine(monkeypatch):
    """What a processor's clock is at the moment is part of what pytest-benchmark takes for the machine, and warns of where it differs."""
    answer = cpuinfo.get_cpu_info()
    monkeypatch.setattr("cpuinfo.get_cpu_info", lambda: answer)


def run(pytester, *arguments, **hooks):
    """A session in this process with ``hooks`` as a plugin of its own; returns its exit status."""
    plugin = type("Hooks", (), {name: staticmethod(function) for name, function in hooks.items()})()
    return pytester.inline_run("-p", "no:cacheprovider", *arguments, plugins=[plugin]).ret


def test_the_session_is_there_before_tests_are_collected_and_has_every_attribute(pytester):
    pytester.makepyfile(PEDANTIC)
    missing = []

    def pytest_collection(session):
        missing.extend(name for name in ATTRIBUTES if not hasattr(session.config._benchmarksession, name))

    assert run(pytester, pytest_collection=pytest_collection) == 0
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), None), (("--benchmark-skip",), "--benchmark-skip"), (("--benchmark-disable",), "--benchmark-disable")],
)
def test_options_that_keep_anything_from_being_recorded_are_seen(pytester, arguments, expected):
    pytester.makepyfile(PEDANTIC)
    seen = []
    run(
        pytester,
        *arguments,
        pytest_collection=lambda session: seen.append(benchmark_adapter.why_nothing_is_recorded(session.config)),
    )
    assert seen == [expected]


def test_what_is_compared_with_is_read_from_the_options(pytester):
    pytester.makepyfile(PEDANTIC)
    seen = []

    def pytest_collection(session):
        seen.append((benchmark_adapter.comparing(session.config), benchmark_adapter.compare_selection(session.config)))

    for arguments in ((), ("--benchmark-compare",), ("--benchmark-compare=0001",)):
        run(pytester, *arguments, "-W", "ignore", pytest_collection=pytest_collection)
    assert seen == [(False, None), (True, None), (True, "0001")]


def test_saving_is_routed_once_and_before_anything_is_compared(pytester):
    pytester.makepyfile(PEDANTIC)
    saved = []

    def pytest_collection_finish(session):
        bench = session.config._benchmarksession
        where = str(bench.storage)
        benchmark_adapter.route_saving(session.config, lambda document, name: saved.append((document, name, bench.groups)))
        assert str(bench.storage) == where
        assert list(bench.storage.load()) == []

    arguments = ("--benchmark-save=mine", "--benchmark-json=result.json", "--benchmark-compare", "-W", "ignore")
    assert run(pytester, *arguments, pytest_collection_finish=pytest_collection_finish) == 0
    ((document, name, groups),) = saved
    assert name == "mine"
    assert groups is None  # they are made when benchmarks are compared
    assert benchmark_adapter.case_block(document["benchmarks"][0]) == {"id": "one"}
    written = json.loads((pytester.path / "result.json").read_text())
    assert benchmark_adapter.case_block(written["benchmarks"][0]) == {"id": "one"}
    assert benchmark_adapter.case_block(benchmark_adapter.without_case_block(written["benchmarks"][0])) is None
    assert list(pytester.path.glob(".benchmarks/*/*.json")) == []


def test_the_storage_can_be_redirected_before_the_session_is_made(pytester):
    pytester.makepyfile(PEDANTIC)
    folder = pytester.path / "elsewhere"

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(config):
        assert benchmark_adapter.storage_is_default(config)
        benchmark_adapter.redirect_storage(config, folder)
        assert not benchmark_adapter.storage_is_default(config)
        assert benchmark_adapter.explicit_storage_directory(config) == folder

    assert run(pytester, "--benchmark-save=mine", pytest_configure=pytest_configure) == 0
    assert len(list(folder.glob("*/0001_mine.json"))) == 1
    assert not (pytester.path / ".benchmarks").exists()


def test_the_markers_clock_is_read_twice_a_round_and_other_markers_stay(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.benchmark(group="mine")
        def test_one(benchmark, clock):
            from pytest_inference_gate import benchmark_adapter
            benchmark_adapter.replay(benchmark, clock, [0.25, 0.5, 0.125])
        """
    )
    calls, clocks, found = [], {}, []

    class CountingClock(benchmark_adapter.ReplayClock):
        def __call__(self):
            calls.append(super().__call__())
            return calls[-1]

    class Plugin:
        @pytest.fixture
        def clock(self, request):
            return clocks[request.node.nodeid]

        def pytest_collection_finish(self, session):
            for item in session.items:
                clocks[item.nodeid] = benchmark_adapter.add_clock(item)
                clocks[item.nodeid].__class__ = CountingClock

        def pytest_sessionfinish(self, session):
            found.extend(session.config._benchmarksession.benchmarks)

    assert pytester.inline_run("-p", "no:cacheprovider", plugins=[Plugin()]).ret == 0
    assert calls == [0.0, 0.25, 0.0, 0.5, 0.0, 0.125]
    (metadata,) = found
    assert metadata.group == "mine"
    assert metadata.stats.data == [0.25, 0.5, 0.125]


@given(recorded=st.lists(ROUNDS, min_size=20, max_size=20))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_replayed_rounds_are_exactly_what_was_recorded(pytester, recorded):
    pytester.makepyfile(
        test_replay="""
        from pytest_inference_gate import benchmark_adapter

        def test_one(benchmark, clock, rounds):
            benchmark_adapter.replay(benchmark, clock, rounds)
        """
    )
    clocks, found = {}, []

    class Plugin:
        @pytest.fixture
        def clock(self, request):
            return clocks[request.node.nodeid]

        def pytest_generate_tests(self, metafunc):
            metafunc.parametrize("rounds", recorded, ids=[str(number) for number in range(len(recorded))])

        def pytest_collection_finish(self, session):
            clocks.update({item.nodeid: benchmark_adapter.add_clock(item) for item in session.items})

        def pytest_sessionfinish(self, session):
            found.extend(metadata.stats.data for metadata in session.config._benchmarksession.benchmarks)

    assert pytester.inline_run("-p", "no:cacheprovider", "--benchmark-json=result.json", plugins=[Plugin()]).ret == 0
    assert found == recorded
    written = json.loads((pytester.path / "result.json").read_text())
    assert [benchmark["stats"]["data"] for benchmark in written["benchmarks"]] == recorded
    assert {benchmark["options"]["timer"] for benchmark in written["benchmarks"]} == {"agent_clock"}


def test_a_storage_can_be_moved_once_the_device_is_known(pytester):
    """Sessions are read from, and saved to, the folder that it was moved to; without saving or comparing, no folder is made."""
    pytester.makepyfile(PEDANTIC)
    first, second = pytester.path / "all", pytester.path / "all" / "board"

    def pytest_collection_finish(session):
        benchmark_adapter.move_storage(session.config, second)

    run(pytester, pytest_collection_finish=pytest_collection_finish)
    assert not second.exists()
    run(
        pytester,
        f"--benchmark-storage=file://{first}",
        "--benchmark-save=one",
        pytest_collection_finish=pytest_collection_finish,
    )
    (saved,) = second.rglob("0001_one.json")
    loaded = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(config):
        benchmark_adapter.postpone_loading(config)

    def load(session):
        assert not session.config._benchmarksession.compared_mapping
        benchmark_adapter.resume_comparing(session.config)
        pytest_collection_finish(session)
        loaded.extend(path.name for path in session.config._benchmarksession.compared_mapping)

    status = run(
        pytester,
        f"--benchmark-storage=file://{first}",
        "--benchmark-compare",
        "-W",
        "error::pytest_benchmark.logger.PytestBenchmarkWarning",
        pytest_configure=pytest_configure,
        pytest_collection_finish=load,
    )
    assert status == 0
    assert loaded == [saved.name]
