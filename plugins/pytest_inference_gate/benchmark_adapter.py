"""The only module that knows pytest-benchmark's inside.

What it relies on, beyond documented hooks and options:

- ``config._benchmarksession``, set in ``pytest_configure`` (trylast), with the attributes ``storage``, ``benchmarks``, ``compare``,
  ``disabled``, ``skip``, ``save`` and ``autosave``;
- ``BenchmarkSession`` reads ``config.option.benchmark_storage`` when it is made, and calls ``storage.save(output_json, name)`` once a
  session, before anything is compared;
- its storage in files is made by ``type(storage)(path, logger, default_machine_id=...)``, of attributes that the storage has itself;
- what is compared with is loaded by ``handle_loading()`` of the session, which reads its ``compare`` and calls the hook for each file;
- a timer given by the ``benchmark`` marker is called once before and once after each round of ``benchmark.pedantic``;
- a ``benchmark`` fixture whose ``_mode`` is set does not warn that the test never used it.

``tests/integration/test_benchmark_contract.py`` checks each of these on every supported release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

DEFAULT_STORAGE = "file://./.benchmarks"
_postponed_key = pytest.StashKey[Any]()
CASE_KEY = "inference_gate"  # in a benchmark's extra_info, and at the top of a saved document


class ReplayClock:
    """A clock that stands still, but for the rounds that an agent measured.

    pytest-benchmark reads its timer before and after each round: the first reading is zero and the second one is the recorded
    duration, so that the difference is exactly what was recorded.
    """

    __name__ = "agent_clock"  # what pytest-benchmark writes into its JSON as the timer's name

    def __init__(self) -> None:
        self._round: float | None = None

    def __call__(self) -> float:
        duration, self._round = self._round, None
        return 0.0 if duration is None else duration

    def pass_round(self, seconds: float) -> None:
        self._round = seconds


def replay(benchmark: Any, clock: ReplayClock, rounds: Sequence[float]) -> None:
    """Have the ``benchmark`` fixture see ``rounds`` (durations in seconds) as if it had run them itself."""
    remaining = iter(rounds)

    def inference() -> None:
        # With --benchmark-cprofile the target is called once more, when all rounds have been replayed.
        seconds = next(remaining, None)
        if seconds is not None:
            clock.pass_round(seconds)

    benchmark.pedantic(inference, rounds=len(rounds))


def leave_unused(benchmark: Any) -> None:
    """Nothing was measured that could be replayed: no warning about it, which a project may take for an error beside the real one."""
    benchmark._mode = "a case that was not measured"


def add_clock(item: pytest.Item) -> ReplayClock:
    """Give the test a clock to replay on, and leave what its own ``benchmark`` markers say as it is."""
    clock = ReplayClock()
    marker = item.get_closest_marker("benchmark")
    item.add_marker(pytest.mark.benchmark(**{**(marker.kwargs if marker else {}), "timer": clock}), append=False)
    return clock


def _session(config: pytest.Config) -> Any:
    session = getattr(config, "_benchmarksession", None)
    if session is None:
        raise pytest.UsageError("inference-gate needs pytest-benchmark, which is switched off here (-p no:benchmark)")
    return session


def storage_is_default(config: pytest.Config) -> bool:
    return bool(config.getoption("benchmark_storage", DEFAULT_STORAGE) == DEFAULT_STORAGE)


def redirect_storage(config: pytest.Config, directory: Path) -> None:
    """Make ``directory`` pytest-benchmark's storage. Must run before pytest-benchmark's own ``pytest_configure``."""
    config.option.benchmark_storage = f"file://{directory}"


def postpone_loading(config: pytest.Config) -> None:
    """Have pytest-benchmark compare with nothing until :func:`move_storage`: it loads what it compares with when it is configured."""
    config.stash[_postponed_key] = config.option.benchmark_compare
    config.option.benchmark_compare = None


def resume_comparing(config: pytest.Config) -> None:
    """After every plugin was configured: have the option say again what the user said."""
    if _postponed_key in config.stash:
        config.option.benchmark_compare = config.stash[_postponed_key]


def move_storage(config: pytest.Config, directory: Path) -> None:
    """Make ``directory`` the storage of a session that exists: the device is known only once a board has been asked."""
    stores = any(config.getoption(f"benchmark_{name}", None) for name in ("compare", "save", "autosave"))
    if not stores or explicit_storage_directory(config) is None:
        return  # making a storage makes its folder, which nothing would fill
    session = _session(config)
    storage = session.storage
    session.storage = type(storage)(str(directory), storage.logger, default_machine_id=storage.default_machine_id)
    if comparing(config) and not session.compare:
        session.compare = config.option.benchmark_compare
        session.handle_loading()


def explicit_storage_directory(config: pytest.Config) -> Path | None:
    """The folder that ``--benchmark-storage`` names, if it names one."""
    storage = str(config.getoption("benchmark_storage"))
    if "://" not in storage:
        return Path(storage)
    return Path(storage.removeprefix("file://")) if storage.startswith("file://") else None


def device_directory(config: pytest.Config, baselines: Path, device_id: str) -> Path:
    """Where a device's sessions lie: in ``baselines``, or in the folder that ``--benchmark-storage`` names instead."""
    root = baselines if storage_is_default(config) else explicit_storage_directory(config) or baselines
    # A storage that was redirected, or that the user named to the end, is the device's folder already.
    return root if root.name == device_id else root / device_id


def comparing(config: pytest.Config) -> bool:
    return bool(config.getoption("benchmark_compare", None))


def saving(config: pytest.Config) -> bool:
    return any(config.getoption(f"benchmark_{name}", None) for name in ("save", "autosave"))


def compare_selection(config: pytest.Config) -> str | None:
    """What ``--benchmark-compare=ARG`` names, or ``None`` for the bare option."""
    selection = config.getoption("benchmark_compare", None)
    return selection if isinstance(selection, str) else None


def is_distributed(config: pytest.Config) -> bool:
    """Whether pytest-xdist runs the tests, in this process or in others."""
    return bool(config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"))


def why_nothing_is_recorded(config: pytest.Config) -> str | None:
    """The option that keeps pytest-benchmark from recording anything, if there is one."""
    session = _session(config)
    if session.skip:
        return "--benchmark-skip"
    if session.disabled:
        return "--benchmark-disable"
    return None


class _RoutedStorage:
    """pytest-benchmark's storage, but for saving, which the gate decides upon."""

    def __init__(self, storage: Any, save: Callable[[Mapping[str, Any], str], None]) -> None:
        self._storage = storage
        self._save = save

    def save(self, output_json: Mapping[str, Any], save: str) -> None:
        self._save(output_json, save)

    def __str__(self) -> str:
        return str(self._storage)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def route_saving(config: pytest.Config, save: Callable[[Mapping[str, Any], str], None]) -> None:
    """From now on, what pytest-benchmark would save goes to ``save(document, name)`` instead."""
    session = _session(config)
    session.storage = _RoutedStorage(session.storage, save)


def case_block(benchmark: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The gate's part of one benchmark of a document, or ``None`` for a plain pytest-benchmark test."""
    return cast("Mapping[str, Any] | None", benchmark.get("extra_info", {}).get(CASE_KEY))


def without_case_block(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of one benchmark of a document that pytest-benchmark reads as before, and the gate as a plain test's."""
    return {**benchmark, "extra_info": {key: value for key, value in benchmark["extra_info"].items() if key != CASE_KEY}}


def of_board(benchmarks: Iterable[Mapping[str, Any]], board: str | None, *, plain: bool) -> list[Mapping[str, Any]]:
    """The benchmarks of a document whose cases are about this board of several, named as in a run with that board alone.

    ``plain``: with those that are about no case. A ``board`` of None is the only device of a run.
    """
    found: list[Mapping[str, Any]] = []
    for benchmark in benchmarks:
        block = case_block(benchmark)
        if block is None:
            found += [benchmark] if plain else []
        elif block.get("board") == board:
            found.append(benchmark if board is None else _without_board(benchmark, block))
    return found


def _without_board(benchmark: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    suffix = f"@{block['board']}"

    def renamed(value: Any) -> Any:
        return value.replace(f"{block['id']}{suffix}", block["id"]) if isinstance(value, str) else value

    names = {key: renamed(benchmark[key]) for key in ("name", "fullname", "param", "group") if key in benchmark}
    params = benchmark.get("params")
    if isinstance(params, Mapping):
        names["params"] = {key: renamed(value) for key, value in params.items()}
    of_the_case = {key: value for key, value in block.items() if key != "board"}
    return {**benchmark, **names, "extra_info": {**benchmark["extra_info"], CASE_KEY: of_the_case}}
