"""Reading and writing of saved sessions."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_inference_gate import atomic_files
from pytest_inference_gate.baselines import (
    BaselineCase,
    BaselineSession,
    devices_with_baselines,
    find_close_ids,
    list_session_files,
    newest_failure,
    read_session,
    read_sessions,
    save_session,
)
from pytest_inference_gate.errors import BaselineError

STATS = {
    "min": 0.001, "max": 0.002, "mean": 0.0015, "stddev": 0.0002, "rounds": 5, "median": 0.0015, "iqr": 0.0001, "q1": 0.0014,
    "q3": 0.0016, "iqr_outliers": 0, "stddev_outliers": 1, "outliers": "1;0", "ld15iqr": 0.001, "hd15iqr": 0.002, "ops": 666.6,
    "total": 0.0075, "iterations": 1,
}  # fmt: skip


def benchmark(name: str, extra_info: Any = None) -> dict[str, Any]:
    return {
        "group": None,
        "name": name,
        "fullname": f"tests/test_x.py::{name}",
        "params": None,
        "param": None,
        "extra_info": {} if extra_info is None else extra_info,
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 5,
            "max_time": 1.0,
            "min_time": 5e-06,
            "warmup": False,
        },
        "stats": dict(STATS),
    }


def case(
    case_id: str = "digits_cnn-tflite-int8-b1-t1", replicates: Any = (0.0011, 0.0012, 0.001), **changes: Any
) -> dict[str, Any]:
    block = {"schema": "inference-gate-case/1", "id": case_id, "replicates": list(replicates), "backend": "tflite"}
    return benchmark(f"test_latency[{case_id}]", {"inference_gate": block | changes})


def document(*benchmarks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    block: dict[str, Any] = {
        "schema": "inference-gate-session/1",
        "device": {"id": "amd-epyc-2core-x86_64-ec463c75", "identity": {"machine": "x86_64"}},
        "software": {"python": "3.11.7", "ai-edge-litert": "2.1.0"},
        "condition": {"before": {}, "after": {}},
        "broken": [
            {
                "id": "digits_cnn-tflite-fp16-b1-t1",
                "outcome": {"kind": "crash", "stage": "load", "signal": "SIGSEGV", "message": "m"},
            }
        ],
    }
    return {
        "machine_info": {"node": "n", "processor": "", "machine": "x86_64", "python_version": "3.11.7", "cpu": {}},
        "commit_info": {"id": "unknown", "time": None, "author_time": None, "dirty": False, "error": None, "branch": "(unknown)"},
        "benchmarks": list(benchmarks or (case(),)),
        "datetime": "2026-01-02T03:04:05.000006+00:00",
        "version": "5.3.1",
        "inference_gate": block | changes,
    }  # fmt: skip


def plain_document() -> dict[str, Any]:
    value = document(benchmark("test_of_other_people", {"note": "mine"}))
    del value["inference_gate"]
    return value


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    path = save_session(tmp_path / "device", "jp6.0", document(case("a"), benchmark("test_plain"), case("b", [0.5])))
    assert path == tmp_path / "device" / "0001_jp6.0.json"
    session = read_session(path)
    assert session.name == "jp6.0"
    assert session.datetime == "2026-01-02T03:04:05.000006+00:00"
    assert session.device_id == "amd-epyc-2core-x86_64-ec463c75"
    assert session.identity == {"machine": "x86_64"}
    assert session.software == {"python": "3.11.7", "ai-edge-litert": "2.1.0"}
    assert list(session.cases) == ["a", "b"]
    assert session.cases["a"].replicates == (0.0011, 0.0012, 0.001)
    assert session.cases["b"].extra["backend"] == "tflite"
    assert session.broken == {
        "digits_cnn-tflite-fp16-b1-t1": {"kind": "crash", "stage": "load", "signal": "SIGSEGV", "message": "m"}
    }


def test_files_are_shared_like_any_other_file(tmp_path: Path) -> None:
    path = save_session(tmp_path, "a", document())
    other = tmp_path / "other"
    other.write_text("")
    assert path.stat().st_mode == other.stat().st_mode


def test_numbers_go_on_and_nothing_is_replaced(tmp_path: Path) -> None:
    first = save_session(tmp_path, "same", document(case("a")))
    content = first.read_bytes()
    assert save_session(tmp_path, "same", document(case("b"))).name == "0002_same.json"
    (tmp_path / "0041_by_somebody_else.txt").write_text("")
    assert save_session(tmp_path, "x", document()).name == "0042_x.json"
    assert first.read_bytes() == content
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_what_a_killed_run_left_goes_with_the_next_one_that_saves(tmp_path: Path) -> None:
    left, new = tmp_path / ".0001_x.json.abcd1234.tmp", tmp_path / ".0002_x.json.abcd1234.tmp"
    for path in (left, new):
        path.write_text("{")
    os.utime(left, (0, 0))
    save_session(tmp_path, "x", document())
    assert (left.exists(), new.exists()) == (False, True)


def test_the_numbers_end_where_pytest_benchmark_stops_finding_them(tmp_path: Path) -> None:
    (tmp_path / "9999_last.json").write_text("{}")
    with pytest.raises(BaselineError, match=r"used up its numbers.*prune"):
        save_session(tmp_path, "x", document())


def test_writers_at_once_get_different_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda number: save_session(tmp_path, f"run{number}", document()), range(16)))
    assert sorted(path.name[:4] for path in paths) == [f"{number:04}" for number in range(1, 17)]


def test_processes_at_once_get_different_numbers(tmp_path: Path) -> None:
    (tmp_path / "document.json").write_text(json.dumps(document()))
    code = (
        "import json, sys, pathlib\n"
        "from pytest_inference_gate.baselines import save_session\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "for number in range(10): save_session(root / 'device', sys.argv[2], json.loads((root / 'document.json').read_text()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], env=environment) for name in ("one", "two")]
    try:
        assert [run.wait(600) for run in runs] == [0, 0]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert [path.name[:4] for path in list_session_files(tmp_path / "device")] == [f"{number:04}" for number in range(1, 21)]


def test_a_number_that_somebody_takes_without_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = atomic_files.create_atomically
    intruder = tmp_path / "0001_x.json"

    def create(path: Path, data: bytes, **keywords: Any) -> None:
        if not intruder.exists():
            intruder.write_text("theirs")
        real(path, data, **keywords)

    monkeypatch.setattr("pytest_inference_gate.baselines.create_atomically", create)
    assert save_session(tmp_path, "x", document()).name == "0002_x.json"
    assert intruder.read_text() == "theirs"


@pytest.mark.parametrize("name", ["", "a/b", "..\\b", "a:b", "a*", "a\nb", "\0", "x" * 300, "\ud800"])
def test_names_that_cannot_be_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaselineError, match="name"):
        save_session(tmp_path / "device", name, document())
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    "broken",
    [
        document(case("a"), case("a")),
        document(case(replicates=[])),
        document(case(replicates=[0.0])),
        document(case(replicates=[float("nan")])),
        document(case(replicates=[True])),
        document(case(replicates="fast")),
        document(case(schema="inference-gate-case/one")),
        document(case(id=None)),
        document(schema=None),
        document(software=[]),
        document(broken=[{"id": "a"}]),
        document(broken={}),
        document(device={"id": 7}),
        {"benchmarks": {}},
        {},
    ],
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(BaselineError, match="cannot be saved"):
        save_session(tmp_path, "x", broken)
    assert list_session_files(tmp_path) == []
    path = tmp_path / "0001_x.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(BaselineError, match=r"0001_x\.json.*(restore|delete)"):
        read_session(path)


def test_parameters_that_json_cannot_hold_are_spelled_as_pytest_benchmark_does(tmp_path: Path) -> None:
    value = document(case() | {"params": {"model": Path("/x")}})
    content = json.loads(save_session(tmp_path, "x", value).read_text())
    assert content["benchmarks"][0]["params"]["model"].startswith("UNSERIALIZABLE[")


@pytest.mark.parametrize("family", ["inference-gate-case/2", "inference-gate-session/12"])
def test_a_newer_schema_says_to_upgrade(tmp_path: Path, family: str) -> None:
    value = document(case(schema=family)) if "case" in family else document(schema=family)
    path = tmp_path / "0001_x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(BaselineError, match=rf"newer version of the plugin \({family}.*upgrade pytest-inference-gate"):
        read_session(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe\x00", "not JSON text"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{} x", "is not JSON"),
        (b'{"benchmarks": [', "was cut"),
        (b'{"benchmarks": [{"name": "te', "was cut"),
        (b"[" * 100_000, "not usable JSON|was cut"),
        (b'{"benchmarks": 3}', "not a file of pytest-benchmark"),
        (b'{"benchmarks": [3]}', "not a file of pytest-benchmark"),
    ],
)
def test_files_that_are_no_session(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "0001_x.json"
    path.write_bytes(content)
    with pytest.raises(BaselineError, match=reason) as caught:
        read_session(path)
    assert str(path) in str(caught.value)
    assert "restore it from version control, or delete it" in str(caught.value)


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    save_session(tmp_path, "jp6", document())
    with pytest.raises(BaselineError, match="0001_jp6"):
        read_session(tmp_path / "0009_x.json")
    with pytest.raises(BaselineError, match="--benchmark-save=NAME"):
        read_session(tmp_path / "nowhere" / "0009_x.json")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_truncation_is_taken_for_a_session(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "0001_x.json"
    if not path.exists():
        save_session(tmp_path, "x", document())
        (tmp_path / "whole").write_bytes(path.read_bytes())
    whole = (tmp_path / "whole").read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BaselineError):
        read_session(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    """Any value anywhere in the document may be replaced by any other JSON value."""
    value = document(case("a"), benchmark("plain"))
    place: Any = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        child = place[key]
        if not isinstance(child, (dict, list)) or not child or data.draw(st.booleans()):
            break
        place = child
    place[key] = data.draw(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4))
    path = tmp_path / "0001_x.json"
    path.write_text(json.dumps(value))
    try:
        session = read_session(path)
    except BaselineError as error:
        session, message = None, str(error)
    if session is None:
        assert str(path) in message
    else:
        assert all(duration > 0 for found in session.cases.values() for duration in found.replicates)


def test_files_of_other_people_are_accepted_and_do_not_count(tmp_path: Path) -> None:
    for number in range(1, 4):
        (tmp_path / f"000{number}_plain.json").write_text(json.dumps(plain_document()))
    session = read_session(tmp_path / "0001_plain.json")
    assert (session.cases, session.broken, session.device_id, session.software) == ({}, {}, None, {})
    assert read_sessions(tmp_path) == []
    assert len(read_sessions(tmp_path, "plain")) == 3


def names(sessions: list[Any]) -> list[str]:
    return [session.path.stem for session in sessions]


@pytest.fixture
def device(tmp_path: Path) -> Path:
    folder = tmp_path / "baselines" / "device"
    for name in ("jp5", "jp6.0", "jp6.1", "quiet"):
        save_session(folder, name, document())
    save_session(folder / "candidates", "jp7", document())
    return folder


def test_the_newest_sessions_oldest_first(device: Path) -> None:
    assert names(read_sessions(device)) == ["0001_jp5", "0002_jp6.0", "0003_jp6.1", "0004_quiet"]
    assert names(read_sessions(device, limit=2)) == ["0003_jp6.1", "0004_quiet"]
    assert read_sessions(device.parent / "nobody") == []


@pytest.mark.parametrize(
    ("select", "found"),
    [
        ("2", ["0002_jp6.0"]),
        ("0002", ["0002_jp6.0"]),
        ("0002_jp", ["0002_jp6.0"]),
        ("0002_jp6.0.json", ["0002_jp6.0"]),
        ("jp6", ["0002_jp6.0", "0003_jp6.1"]),
        ("jp6*", ["0002_jp6.0", "0003_jp6.1"]),
        ("jp[57]", ["0001_jp5"]),
        ("*iet", ["0004_quiet"]),
        ("000", ["0001_jp5", "0002_jp6.0", "0003_jp6.1", "0004_quiet"]),
        ("device/3", ["0003_jp6.1"]),
    ],
)
def test_selections(device: Path, select: str, found: list[str]) -> None:
    assert names(read_sessions(device, select)) == found
    assert names(read_sessions(device, select, limit=1)) == found[-1:]


def test_a_full_name_goes_before_the_beginning_of_one(device: Path) -> None:
    save_session(device, "jp6", document())
    save_session(device, "jp6", document())
    assert names(read_sessions(device, "jp6")) == ["0005_jp6", "0006_jp6"]
    assert names(read_sessions(device, "jp6*")) == ["0002_jp6.0", "0003_jp6.1", "0005_jp6", "0006_jp6"]


def test_a_path_is_a_selection(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(read_sessions(device.parent / "other", str(device / "0001_jp5.json"))) == ["0001_jp5"]
    monkeypatch.chdir(device)
    assert names(read_sessions(device.parent / "other", "0002_jp6.0.json")) == ["0002_jp6.0"]


@pytest.mark.parametrize("select", ["9", "jp9", "", "a/b/c", "nobody/1", "jp7", "\0"])
def test_a_selection_of_nothing_is_an_error(device: Path, select: str) -> None:
    with pytest.raises(BaselineError, match=r"holds 0001_jp5, 0002_jp6.0"):
        read_sessions(device, select)


def test_candidates_are_never_read(device: Path) -> None:
    assert "jp7" not in {session.name for session in read_sessions(device)}
    assert devices_with_baselines(device.parent) == ["device"]


def test_a_damaged_file_is_never_skipped(device: Path) -> None:
    damaged = device / "0003_jp6.1.json"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for select in (None, "jp6", "3"):
        with pytest.raises(BaselineError, match=r"0003_jp6.1.json ends in the middle"):
            read_sessions(device, select)
    # What the selection does not name, and what is older than the newest few, is not looked at.
    assert names(read_sessions(device, "jp5")) == ["0001_jp5"]
    assert names(read_sessions(device, limit=1)) == ["0004_quiet"]


def test_a_save_that_is_killed_leaves_nothing_that_is_read(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    before = sorted(device.iterdir())
    monkeypatch.setattr(os, "link", stop)
    with pytest.raises(KeyboardInterrupt):
        save_session(device, "x", document())
    assert sorted(device.iterdir()) == before


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert save_session(tmp_path, "x", document()).name == "0001_x.json"
    assert read_sessions(tmp_path)[0].name == "x"


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "device").write_text("")
    with pytest.raises(BaselineError, match="--benchmark-storage"):
        save_session(tmp_path / "device", "x", document())


def test_close_ids() -> None:
    ids = ["digits_cnn-tflite-int8-b1-t1", "mobilenet-onnxruntime-fp32-b1-t4"]
    assert find_close_ids("digits-tflite-int8-b1-t1", ids) == ["digits_cnn-tflite-int8-b1-t1"]
    assert find_close_ids("digits_cnn-tflite-int8-b1-t1", ids[:1]) == []
    assert find_close_ids("x", ids) == []


def test_the_document_is_not_changed_by_saving(tmp_path: Path) -> None:
    value = document()
    before = copy.deepcopy(value)
    save_session(tmp_path, "x", value)
    assert value == before


@pytest.mark.parametrize(
    ("history", "failed"),
    [("", None), ("worked", None), ("failed", 0), ("failed worked", None), ("worked failed", 1), ("failed unknown", 0)],
)
def test_the_newest_session_that_knows_a_case_tells_whether_it_failed(history: str, failed: int | None) -> None:
    sessions = [
        BaselineSession(
            Path(f"{number:04}_x.json"),
            "x",
            "2026-01-01T00:00:00",
            "device",
            {},
            {"a": BaselineCase("a", (0.001,), {})} if how == "worked" else {},
            {"a": {"kind": "crash", "number": number}} if how == "failed" else {},
        )
        for number, how in enumerate(history.split())
    ]
    found = newest_failure(sessions, "a")
    assert (None if found is None else found["number"]) == failed
