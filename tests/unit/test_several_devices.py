"""Results of several boards: what names them, what each report makes of them, and what a session file keeps of one."""

from __future__ import annotations

from dataclasses import replace

import jsonschema
import pytest
from report_examples import SESSIONS, case_with, measured, run_of

from pytest_inference_gate import benchmark_adapter
from pytest_inference_gate.outcome import Outcome
from pytest_inference_gate.report.result_json import build_document, read_schema
from pytest_inference_gate.report.terminal import summary_lines
from pytest_inference_gate.results import CaseResult, DeviceResult, RunResult
from pytest_inference_gate.targets.ssh_address import SshAddress, board_names
from pytest_inference_gate.verdict import Verdict


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["ssh://me@nano", "ssh://orin:2222"], ["nano", "orin"]),
        (["ssh://lab:2201", "ssh://lab:2202", "ssh://lab"], ["lab:2201", "lab:2202", "lab:22"]),
        (["ssh://[fe80::1]", "ssh://nano"], ["fe80__1", "nano"]),
    ],
)
def test_boards_are_told_apart_by_short_names(urls: list[str], names: list[str]) -> None:
    found = board_names([SshAddress.parse(url) for url in urls])
    assert found == names
    assert not any("::" in name for name in found)  # it would end the path in the id of a test


def two_boards() -> RunResult:
    nano = [replace(measured("fast"), board="nano"), replace(case_with(Verdict.SLOWER), board="nano")]
    dead = []
    for case in nano:
        gone = CaseResult(case.id, case.model, case.backend, case.precision, board="orin")
        gone.outcome = Outcome("unreachable", None, "nothing answers at ssh://orin")
        gone.conclude(Verdict.BROKEN, "unreachable: nothing answers at ssh://orin")
        dead.append(gone)
    devices = [
        DeviceResult("jetson-nano-1a2b3c4d", name="nano", compared_sessions=SESSIONS, software_changes=["tensorrt 8.2 -> 8.6"]),
        DeviceResult("unknown", name="orin"),
    ]
    run = run_of(*nano, *dead)
    return replace(run, device=devices[0], devices=devices, compared_sessions=SESSIONS)


def test_the_document_has_every_device_and_every_case() -> None:
    document = build_document(two_boards())
    assert list(jsonschema.Draft202012Validator(read_schema()).iter_errors(document)) == []
    assert [device["name"] for device in document["devices"]] == ["nano", "orin"]
    assert document["device"]["id"] == "jetson-nano-1a2b3c4d"
    assert [case["board"] for case in document["cases"]] == ["nano", "nano", "orin", "orin"]
    assert document["summary"]["verdicts"] == {"pass": 1, "slower": 1, "broken": 2}
    assert document["devices"][0]["software_changes"] == ["tensorrt 8.2 -> 8.6"]


def test_the_only_device_is_in_the_list_too() -> None:
    run = run_of(measured(), compared_sessions=SESSIONS, saved="jp6.0")
    (device,) = build_document(run)["devices"]
    assert (device["name"], device["saved"], len(device["compared_sessions"])) == (None, "jp6.0", len(SESSIONS))
    assert run.each_device == [run]


def test_the_terminal_shows_a_table_for_each() -> None:
    lines = summary_lines(two_boards(), width=120)
    text = "\n".join(lines)
    assert lines[0].startswith("nano: compared with ")
    captions = [line for line in lines if line.startswith("2 cases on ")]
    assert captions[0].startswith("2 cases on nano (jetson-nano-1a2b3c4d)") and captions[1].startswith(
        "2 cases on orin (unknown)"
    )
    assert "software that changed on nano: tensorrt 8.2 -> 8.6" in text
    (gone,) = [line for line in lines if "nothing answers" in line]  # one reason, one paragraph
    assert gone.count("@orin") == 2 or text.count("@orin") == 2
    assert lines[-1] == "4 cases: 1 pass, 2 broken, 1 slower: do not ship"


def benchmark(board: str | None, name: str = "m-tflite-fp32-b1-t1") -> dict[str, object]:
    test_id = name if board is None else f"{name}@{board}"
    block = {"id": name, "verdict": "pass", **({} if board is None else {"board": board})}
    return {
        "name": f"test_latency[{test_id}]",
        "fullname": f"test_latency.py::test_latency[{test_id}]",
        "param": test_id,
        "params": {"gate_case_id": test_id, "other": 3},
        "group": None,
        "extra_info": {"inference_gate": block, "mine": 1},
        "stats": {},
    }


def test_a_session_file_of_one_board_is_as_if_it_had_been_alone() -> None:
    plain = {"name": "test_plain", "extra_info": {}}
    document = [benchmark("nano"), benchmark("orin"), plain, benchmark("nano:2201")]
    alone = benchmark(None)
    assert benchmark_adapter.of_board(document, "nano", plain=True) == [alone, plain]
    assert benchmark_adapter.of_board(document, "orin", plain=False) == [alone]
    assert benchmark_adapter.of_board([alone, plain], None, plain=True) == [alone, plain]
    assert document[0] == benchmark("nano")  # what --benchmark-json gets is untouched
