"""Power, temperatures and clocks beside a measurement: the figures, and the process that takes the samples."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
from device_trees import TREES, build
from device_trees.boards import ORIN_NANO
from hypothesis import given
from hypothesis import strategies as st

import pytest_inference_gate
from pytest_inference_gate.agent import serve, telemetry
from pytest_inference_gate.agent.backends import Backends
from pytest_inference_gate.agent.telemetry import telemetry_wish
from pytest_inference_gate.agent_archive import build_agent_archive
from pytest_inference_gate.results import Replicate
from pytest_inference_gate.sweep import telemetry_remarks

AGENT = Path(pytest_inference_gate.__path__[0]) / "agent"
ORIN_LINE = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) CPU [14%@2188,off] EMC_FREQ 3%@2133 GR3D_FREQ 0%@[624,0] "
    "cpu@52.562C VDD_IN 4000mW/3900mW VDD_SOC 1000mW/900mW"
)


# Figures


def recorded(*points: tuple[float, float], interval: float = 1.0, problem: str | None = None) -> dict[str, Any]:
    samples = [{"at": at, "milliwatts": {"VDD_IN": power}, "celsius": {}, "mhz": {}} for at, power in points]
    return {"source": "sysfs", "interval": interval, "samples": samples, "problem": problem}


def test_energy_of_an_inference() -> None:
    # 2 W for one second, then a rise to 4 W within another: 2 J and 3 J, of ten inferences.
    summary = telemetry.summary(recorded((0, 2000), (1, 2000), (2, 4000)), 0, 2, 10)
    assert summary["rails"] == {
        "VDD_IN": {"mean_milliwatts": 2500.0, "peak_milliwatts": 4000.0, "joules_per_inference": pytest.approx(0.5)}
    }
    assert summary["total_rail"] == "VDD_IN"
    assert (summary["seconds"], summary["samples"], summary["problem"]) == (2, 3, None)


def test_what_lies_before_and_after_does_not_count() -> None:
    points = [(0, 9000), (1, 1000), (2, 1000), (3, 1000), (4, 9000)]
    assert telemetry.summary(recorded(*points), 1, 3, 1)["rails"]["VDD_IN"]["joules_per_inference"] == pytest.approx(2.0)
    # Half way to a sample, power is half way too.
    rail = telemetry.summary(recorded(*points), 1.5, 3.5, 1)["rails"]["VDD_IN"]
    assert rail["joules_per_inference"] == pytest.approx(1.5 + 0.5 * (1 + 5) / 2)
    assert rail["peak_milliwatts"] == 1000


def test_a_measurement_that_is_too_short_has_no_energy() -> None:
    summary = telemetry.summary(recorded((0, 2000), (1, 2000)), 0.2, 0.4, 10)
    assert summary["rails"] == {}
    assert summary["problem"] == "the measurement took 0.2 s, too short for samples every 1 s"


def test_a_hole_between_samples_is_told() -> None:
    summary = telemetry.summary(recorded((0, 2000), (1, 2000), (9, 2000)), 0, 9, 10)
    assert summary["problem"] == "no sample was taken for 8 s: the machine was too busy"
    assert telemetry.summary(recorded(problem="it died"), 0, 9, 10)["problem"] == "it died"


def test_boards_without_a_rail_for_all_of_it_have_no_total() -> None:
    record = recorded((0, 2000), (1, 2000))
    for sample in record["samples"]:
        sample["milliwatts"] = {"VIN_SYS_5V0": 4000.0, "VDD_CPU_CV": 400.0}
    summary = telemetry.summary(record, 0, 1, 1)
    assert summary["total_rail"] is None
    assert set(summary["rails"]) == {"VIN_SYS_5V0", "VDD_CPU_CV"}


def test_temperatures_and_clocks() -> None:
    record = recorded((0, 1), (1, 1), (2, 1))
    for sample, (celsius, mhz) in zip(record["samples"], [(50.0, 600), (55.0, 300), (52.0, 900)], strict=True):
        sample["celsius"], sample["mhz"] = {"gpu": celsius}, {"gpu": mhz}
    summary = telemetry.summary(record, 0, 2, 1)
    assert summary["celsius"] == {"gpu": {"first": 50.0, "last": 52.0, "highest": 55.0}}
    assert summary["mhz"] == {"gpu": {"lowest": 300, "highest": 900}}


curves = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e5)), min_size=1, max_size=20, unique_by=lambda point: point[0]).map(
    sorted
)


@given(curves, st.lists(st.floats(0, 100), min_size=3, max_size=3))
def test_an_integral_is_that_of_its_parts(points: list[tuple[float, float]], bounds: list[float]) -> None:
    start, middle, end = sorted(bounds)
    whole = telemetry.integral(points, start, end)
    parts = telemetry.integral(points, start, middle) + telemetry.integral(points, middle, end)
    assert whole == pytest.approx(parts, rel=1e-6, abs=1e-3)
    powers = [power for _, power in points]
    assert min(powers) * (end - start) <= whole * (1 + 1e-9) + 1e-6
    assert whole <= max(powers) * (end - start) * (1 + 1e-9) + 1e-6


# The process that samples


def stand_in(folder: Path, name: str, script: str) -> None:
    """A program of that name; ``script`` is for the shell."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def take(make: Callable[[], telemetry.Sampler], at_least: int = 1) -> dict[str, Any]:
    """Sample for longer and longer until there are so many samples: a busy machine takes fewer."""
    result: dict[str, Any] = {}
    for seconds in (1, 5, 30):
        sampler = make()
        sampler.start()
        time.sleep(seconds)
        result = sampler.stop()
        if len(result["samples"]) >= at_least:
            break
    return result


def test_files_are_sampled(tmp_path: Path) -> None:
    root = build(tmp_path, ORIN_NANO)
    before = time.monotonic()
    result = take(lambda: telemetry.Sampler(0.05, root=root), 3)
    assert (result["source"], result["problem"]) == ("sysfs", None)
    times = [sample["at"] for sample in result["samples"]]
    assert len(times) >= 3
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.monotonic()
    first = result["samples"][0]
    assert first["milliwatts"] == {"VDD_IN": 5000.0, "VDD_CPU_GPU_CV": 1000.0, "VDD_SOC": 1500.0}
    assert first["celsius"] == {"cpu-thermal": 52.562, "gpu-thermal": 50.0, "tj-thermal": 52.562}
    assert first["mhz"] == {"gpu": 624}
    # Temperatures cost more than they tell, and are taken now and then.
    assert result["samples"][1]["celsius"] == {}


def test_a_machine_that_shows_nothing_is_told(tmp_path: Path) -> None:
    sampler = telemetry.Sampler(0.05, root=str(tmp_path))
    sampler.start()
    assert sampler.problem == "nothing here shows power, temperatures or clocks"
    assert sampler.stop() == {"source": None, "interval": 0.05, "samples": [], "problem": sampler.problem}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_tegrastats_is_listened_to(programs: Path) -> None:
    stand_in(programs, "tegrastats", f'[ "$1" = --interval ] || exit 3\nwhile echo "{ORIN_LINE}"; do sleep 0.05; done')
    result = take(lambda: telemetry.Sampler(0.05, source="tegrastats"), 2)
    assert (result["source"], result["problem"]) == ("tegrastats", None)
    assert len(result["samples"]) >= 2
    sample = result["samples"][0]
    assert sample.pop("at") <= time.monotonic()
    assert sample == {
        "milliwatts": {"VDD_IN": 4000.0, "VDD_SOC": 1000.0},
        "celsius": {"cpu": 52.562},
        "mhz": {"gpu": 624, "memory": 2133, "cpu": 2188},
    }


# The names of columns are quoted in its help, as release 580 prints it; older ones do not have the second.
HELP = '"power.draw"\nThe last measured power draw for the entire board, in watts.\n'
HELP_OF_TODAY = HELP + '\n"power.draw.instant" or "gpu.power.draw.instant"\nThe last measured instant power draw.\n'


@pytest.mark.parametrize(
    ("known", "columns", "line", "watts"),
    [
        (HELP, "power.draw", "0, 36, 345, [N/A], 71.44", 71.44),
        (HELP_OF_TODAY, "power.draw.instant,power.draw", "0, 36, 345, [N/A], 70.20, 71.44", 70.2),
        (HELP_OF_TODAY, "power.draw.instant,power.draw", "0, 36, 345, [N/A], [N/A], 71.44", 71.44),
        ("", "power.draw", "0, 36, 345, [N/A], [N/A]", None),
    ],
)
def test_nvidia_smi_is_listened_to(programs: Path, known: str, columns: str, line: str, watts: float | None) -> None:
    (programs / "help").write_text(known)
    query = f"--query-gpu=index,temperature.gpu,clocks.sm,clocks.mem,{columns}"
    stand_in(
        programs,
        "nvidia-smi",
        f'[ "$1" = --help-query-gpu ] && exec cat {programs / "help"}\n'
        f'[ "$3" = {query} ] || {{ echo "not a valid field to query"; exit 2; }}\n'
        f'while echo "{line}"; do sleep 0.05; done',
    )
    result = take(lambda: telemetry.Sampler(0.05, source="nvidia-smi"))
    sample = result["samples"][0]
    assert sample["milliwatts"] == ({} if watts is None else {"gpu0": pytest.approx(1000 * watts)})
    assert (sample["celsius"], sample["mhz"]) == ({"gpu0": 36.0}, {"gpu": 345})


def test_a_program_that_ends_is_told_with_its_last_words(programs: Path) -> None:
    go = programs / "go"  # it goes on for as long as there is no such file
    script = f'echo "{ORIN_LINE}"; until [ -e {go} ]; do sleep 0.01; done; echo "cannot open the device"; exit 4'
    stand_in(programs, "tegrastats", script)
    sampler = telemetry.Sampler(0.05, source="tegrastats")
    sampler.start()
    assert sampler.problem is None
    go.touch()
    own = psutil.Process(sampler._process.pid)
    deadline = time.monotonic() + 60
    while own.children() and time.monotonic() < deadline:  # the sampler collects the program once it has read its last words
        time.sleep(0.02)
    result = sampler.stop()
    assert result["problem"] == "tegrastats ended with status 4: cannot open the device"
    assert len(result["samples"]) == 1


def test_the_end_of_a_program_is_told_although_the_measurement_ends_before_it_is_seen(programs: Path) -> None:
    go = programs / "go"
    script = f'echo "{ORIN_LINE}"; until [ -e {go} ]; do sleep 0.01; done; echo "{ORIN_LINE}"; echo "it is gone"; exit 4'
    stand_in(programs, "tegrastats", script)
    sampler = telemetry.Sampler(0.05, source="tegrastats")
    sampler.start()
    own = psutil.Process(sampler._process.pid)
    (program,) = own.children()
    own.suspend()  # as where it gets no processor
    go.touch()
    deadline = time.monotonic() + 60
    while program.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    again = threading.Timer(0.5, own.resume)
    again.start()
    result = sampler.stop()
    again.join()
    assert result["problem"] == "tegrastats ended with status 4: it is gone"
    assert len(result["samples"]) == 2


def test_a_program_that_does_not_begin_is_told(programs: Path) -> None:
    stand_in(programs, "tegrastats", 'echo "tegrastats must be run as root"; exit 1')
    sampler = telemetry.Sampler(0.05, source="tegrastats")
    sampler.start()
    assert sampler.problem == "tegrastats ended with status 1: tegrastats must be run as root"


def test_a_program_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sampler = telemetry.Sampler(0.05, source="tegrastats")
    sampler.start()
    assert sampler.stop()["problem"] == "tegrastats is not on the PATH"


def test_a_sampler_that_is_killed_fails_nothing(tmp_path: Path) -> None:
    sampler = telemetry.Sampler(0.05, root=build(tmp_path, ORIN_NANO))
    sampler.start()
    os.kill(sampler._process.pid, signal.SIGKILL)
    result = sampler.stop()
    assert result["samples"] == []
    assert result["problem"] == "the process that samples power and temperatures ended early (status -9)"


def test_a_sampler_that_cannot_be_started_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    sampler = telemetry.Sampler()
    sampler.start()
    assert "did not start" in str(sampler.stop()["problem"])


class Sleeper:
    """A runner whose inference takes ten milliseconds and no processor."""

    def set_inputs(self, array: Any) -> None:
        pass

    def prepared(self) -> Any:
        return lambda: time.sleep(0.01)


def test_an_agent_tells_the_energy_of_an_inference(programs: Path, tmp_path: Path) -> None:
    # With a constant power of 4 W, an inference of 10 ms takes 40 mJ.
    stand_in(programs, "tegrastats", f'while echo "{ORIN_LINE}"; do sleep 0.05; done')
    session = serve.Session(Backends({}))
    session._runner = Sleeper()
    numpy.save(tmp_path / "inputs.npy", numpy.zeros((1, 2), dtype=numpy.float32))
    # After three rounds, inferences that nobody times go on for one second and a half; longer where the machine took no samples meanwhile.
    rounds = {"minimum": 3, "minimum_seconds": 0, "maximum": 3}
    for seconds in (1.5, 6.0, 30.0):
        wish = {"interval": 0.05, "source": "tegrastats", "seconds": seconds}
        arguments = {"inputs": str(tmp_path / "inputs.npy"), "rounds": rounds, "telemetry": wish}
        result = session.measure(arguments, print)
        told = result["telemetry"]
        if "VDD_IN" in told["rails"]:
            break
    assert (told["source"], told["total_rail"]) == ("tegrastats", "VDD_IN")
    assert len(result["rounds"]) == 3
    assert told["inferences"] > 3
    assert told["seconds"] >= 1.5
    assert told["rails"]["VDD_IN"]["joules_per_inference"] == pytest.approx(4.0 * told["seconds"] / told["inferences"])
    assert "telemetry" not in session.measure({**arguments, "telemetry": None}, print)


def test_a_sampler_that_could_not_start_leaves_the_measurement_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    session = serve.Session(Backends({}))
    session._runner = Sleeper()
    numpy.save(tmp_path / "inputs.npy", numpy.zeros((1, 2), dtype=numpy.float32))
    arguments = {"inputs": str(tmp_path / "inputs.npy"), "rounds": {"minimum": 3, "minimum_seconds": 0, "maximum": 3}}
    result = session.measure({**arguments, "telemetry": {"source": "tegrastats"}}, print)
    assert (result["telemetry"]["inferences"], result["telemetry"]["problem"]) == (0, "tegrastats is not on the PATH")
    assert len(result["rounds"]) == 3


def test_remarks_of_a_run_name_each_reason_once() -> None:
    def replicate(telemetry: dict[str, Any] | None) -> Replicate:
        return Replicate(1.0, None, (1.0,), telemetry=telemetry)

    taken = [replicate({"problem": None}), replicate({"problem": "it died"}), replicate({"problem": "it died"}), replicate(None)]
    assert telemetry_remarks(taken) == [
        "power and temperatures were not, or not wholly, sampled after 2 of 3 measurements: it died"
    ]
    assert telemetry_remarks([replicate(None)]) == []


def test_a_board_with_rails_is_always_sampled_and_a_gpu_for_what_runs_on_it() -> None:
    rails = {"power_rails": ["VDD_IN"], "gpus": [{"problem": None}]}
    assert telemetry_wish(rails, "cpu") == telemetry_wish(rails, "cuda") == {}
    assert telemetry_wish({"power_rails": [], "jetson": None}, "cpu") is None
    gpu = {"power_rails": [], "gpus": [{"problem": "the NVIDIA driver is not loaded"}, {"problem": None}]}
    assert telemetry_wish(gpu, "cuda") == {"source": "nvidia-smi"}
    assert telemetry_wish(gpu, "cpu") is None
    assert telemetry_wish({**gpu, "gpus": gpu["gpus"][:1]}, "cuda") is None
    assert telemetry_wish({}, "cuda") is None


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_sampler_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    root = build(tmp_path, ORIN_NANO)
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from agent import telemetry; "
        "sampler = telemetry.Sampler(0.05, root=sys.argv[2]); sampler.start(); print(sampler._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(AGENT.parent), root], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert wait_until_gone(pid)


def test_an_archive_samples_too(tmp_path: Path) -> None:
    archive = build_agent_archive(tmp_path / "agent.pyz")
    root = build(tmp_path / "root", TREES["nano-jetpack-4"])
    command = [sys.executable, "-I", "-S", str(archive), "--sample-telemetry", "--interval=0.05", f"--root={root}"]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[0] == '{"source": "sysfs"}'
    assert "POM_5V_IN" in output.splitlines()[1]
    assert output.splitlines()[-1] == '{"end": true, "problem": null}'
