"""What vendors' programs are asked; stand-ins print what the real ones print."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from device_trees import build
from device_trees.boards import CONTAINER_ON_ORIN, ORIN_NANO
from device_trees.computers import LAPTOP
from device_trees.parts import discrete_gpu
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import device_facts, device_programs
from pytest_inference_gate.agent.jetson_facts import parse_power_mode


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(device_programs.output_of, "__defaults__", (60.0,))
    return folder


def stand_in(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN"),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n", "MODE_15W_6CORE"),
        (
            "NVPM VERB: Config file: /etc/nvpmodel.conf\nNVPM VERB: Current mode: NV Power Mode: 15W\nNV Power Mode: MAXN_SUPER\n2",
            "MAXN_SUPER",
        ),
        ("NVPM WARN: power mode is not set!\n", None),
        ("", None),
    ],
)
def test_what_nvpmodel_says(text: str, mode: str | None) -> None:
    assert parse_power_mode(text) == mode


@given(st.text(max_size=100))
def test_no_text_is_an_error(text: str) -> None:
    parse_power_mode(text)
    device_programs.parse_gpus(text, device_programs.GPU_QUESTIONS[0])


def test_a_power_mode_that_no_file_tells_is_asked_for(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "nvpmodel", '[ "$1" = -q ] && printf "NV Power Mode: 25W\\n1\\n"')
    facts = device_programs.complete(device_facts.collect(build(tmp_path / "root", CONTAINER_ON_ORIN)))
    assert facts["jetson"]["power_mode"] == "25W"
    known = device_programs.complete(device_facts.collect(build(tmp_path / "known", ORIN_NANO)))
    assert known["jetson"]["power_mode"] == "MAXN_SUPER"


def test_gpus_are_named_by_their_driver(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "nvidia-smi", 'echo "00000000:01:00.0, NVIDIA GeForce RTX 4090, 570.86.15, 450.00, 3105, Disabled, 8.9"')
    facts = device_programs.complete(device_facts.collect(build(tmp_path / "root", {**LAPTOP, **discrete_gpu()})))
    (gpu,) = facts["gpus"]
    assert {key: gpu[key] for key in ("compute_capability", "power_limit_watts", "maximum_mhz", "persistent")} == {
        "compute_capability": "8.9",
        "power_limit_watts": 450.0,
        "maximum_mhz": 3105.0,
        "persistent": False,
    }


def test_an_older_driver_is_asked_for_less(programs: Path, tmp_path: Path) -> None:
    answer = 'echo "00000000:01:00.0, Tesla K80, 470.256.02, [N/A], 875, Enabled"'
    stand_in(programs, "nvidia-smi", f'case "$1" in *compute_cap*) echo "Field is not valid."; exit 2;; *) {answer};; esac')
    facts = device_programs.complete(device_facts.collect(build(tmp_path / "root", {**LAPTOP, **discrete_gpu()})))
    assert facts["gpus"][0]["driver_version"] == "470.256.02"
    assert (facts["gpus"][0]["compute_capability"], facts["gpus"][0]["power_limit_watts"]) == (None, None)


def test_a_gpu_without_an_address_gets_the_driver_s(programs: Path) -> None:
    gpus: list[dict[str, Any]] = [{"id": None, "address": None, "name": None, "problem": None} for _ in range(2)]
    names = device_programs.GPU_QUESTIONS[0]
    text = (
        "00000000:19:00.0, NVIDIA H200, 1, 700, 1980, Enabled, 9.0\n00000000:3B:00.0, NVIDIA H100, 1, 700, 1980, Enabled, 9.0\n"
    )
    device_programs.merge_gpus(gpus, device_programs.parse_gpus(text, names))
    assert [(gpu["address"], gpu["name"]) for gpu in gpus] == [("0000:19:00.0", "NVIDIA H200"), ("0000:3b:00.0", "NVIDIA H100")]


@pytest.mark.parametrize("script", ["exit 9", "sleep 30"])
def test_a_program_that_fails_or_hangs_leaves_what_the_files_say(
    programs: Path, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_programs.output_of, "__defaults__", (0.3,))
    stand_in(programs, "nvidia-smi", script if script != "sleep 30" else "exec sleep 30")
    start = time.monotonic()
    facts = device_programs.complete(device_facts.collect(build(tmp_path / "root", {**LAPTOP, **discrete_gpu()})))
    assert time.monotonic() - start < 25
    assert facts["gpus"][0]["name"] == "NVIDIA GeForce RTX 4090"
    assert "compute_capability" not in facts["gpus"][0]


def test_nothing_is_asked_of_a_machine_that_has_neither(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    device_programs.complete(device_facts.collect(build(tmp_path, LAPTOP)))
