"""Stacks, axes and steps: on software as devices record it, and by properties of what any sessions come to."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from device_trees import build
from device_trees.boards import NANO
from device_trees.parts import packages, release
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.agent import device_facts
from pytest_inference_gate.baseline_command.stack_axes import (
    AXES,
    Upgrades,
    axis_of,
    differences,
    find_stacks,
    find_upgrades,
    mixed_baseline,
)
from pytest_inference_gate.baselines import BaselineCase, BaselineSession, save_session
from pytest_inference_gate.cli import main
from pytest_inference_gate.devices import DeviceIdentity, SoftwareUnderTest
from pytest_inference_gate.verdict import Verdict

SCATTER = (1.0, 1.004, 0.996, 1.002, 0.998)


def session(
    software: dict[str, str],
    cases: dict[str, float],
    *,
    number: int = 1,
    name: str = "x",
    broken: dict[str, dict[str, Any]] | None = None,
) -> BaselineSession:
    """Cases by id with a median in ms."""
    measured = {
        case_id: BaselineCase(case_id, tuple(value * one / 1000 for one in SCATTER), {}, None, ("same",) * len(SCATTER))
        for case_id, value in cases.items()
    }
    return BaselineSession(Path(f"{number:04}_{name}.json"), name, "", "board", software, measured, broken or {})


def twice(software: dict[str, str], cases: dict[str, float], **more: Any) -> list[BaselineSession]:
    return [session(software, cases, **more) for _ in range(2)]


def verdicts(upgrades: Upgrades) -> dict[tuple[str, str, str], dict[str, Verdict | None]]:
    return {
        (step.axis, step.before.letter, step.after.letter): {case.id: case.verdict for case in step.cases}
        for step in upgrades.steps
    }


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("jetpack", "system"),
        ("tensorrt-library", "system"),
        ("tensorrt", "system"),
        ("kernel", "system"),
        ("nvidia-driver", "system"),
        ("tensorflow", "framework"),
        ("python", "framework"),
        ("tensorrt-cu12", "framework"),
        ("something-new", "framework"),
        ("converter:tensorflow", "converter"),
        ("converter:python", "converter"),
        ("edgetpu-compiler", "converter"),
        ("converter:kernel", None),
        ("converter:os", None),
    ],
)
def test_every_name_is_of_one_axis(name: str, axis: str | None) -> None:
    assert axis_of(name) == axis


def stack_of(runtime: dict[str, str], converter: dict[str, str]) -> dict[str, str]:
    """As a run records it, whose converter is another environment unless it is the same."""
    return dict(SoftwareUnderTest(runtime).with_converter(SoftwareUnderTest(converter)).versions)


NEW = {"tensorflow": "2.21.0", "ai-edge-litert": "2.3.0", "numpy": "2.3", "kernel": "6.1"}
OLD_CONVERTER = {"tensorflow": "2.16.1", "numpy": "1.26", "kernel": "6.1"}
OLD_RUNTIME = {"tflite-runtime": "2.14.0", "numpy": "1.26", "kernel": "6.1"}


def test_converter_and_runtime_are_two_axes() -> None:
    a, b, c, d = (stack_of(runtime, converter) for runtime in (NEW, OLD_RUNTIME) for converter in (NEW, OLD_CONVERTER))
    assert list(differences(a, b)) == list(differences(c, d)) == ["converter"]
    assert list(differences(a, c)) == list(differences(b, d)) == ["framework"]
    assert list(differences(a, d)) == list(differences(b, c)) == ["framework", "converter"]
    assert "tensorflow 2.21.0 -> 2.16.1" in map(str, differences(a, b)["converter"])
    stacks = find_stacks([session(software, {}) for software in (a, b, c, d)])
    assert [stack.levels["framework"] for stack in stacks] == ["tensorflow 2.21.0, ai-edge-litert 2.3.0"] * 2 + [
        "tflite-runtime 2.14.0"
    ] * 2
    assert [stack.levels["converter"].split(",")[0] for stack in stacks] == ["tensorflow 2.21.0", "tensorflow 2.16.1"] * 2


versions = st.dictionaries(
    st.sampled_from(["tensorflow", "numpy", "keras", "ai-edge-litert", "onnx"]), st.sampled_from("123"), max_size=4
)
systems = st.dictionaries(st.sampled_from(["l4t", "kernel", "cuda"]), st.sampled_from("12"), max_size=3)


@given(runtimes=st.tuples(versions, versions), converter=versions, system=systems)
def test_what_runs_does_not_change_what_converts(
    runtimes: tuple[dict[str, str], ...], converter: dict[str, str], system: dict[str, str]
) -> None:
    one, other = (stack_of({**runtime, **system}, {**converter, **system}) for runtime in runtimes)
    found = differences(one, other)
    assert set(found) == ({"framework"} if runtimes[0] != runtimes[1] else set())


@given(one=versions, other=versions, systems=st.tuples(systems, systems))
def test_differences_are_of_both_directions(
    one: dict[str, str], other: dict[str, str], systems: tuple[dict[str, str], ...]
) -> None:
    before, after = {**one, **systems[0]}, {**other, **systems[1]}
    there, back = differences(before, after), differences(after, before)
    assert list(there) == list(back)
    assert all(
        (change.name, change.before, change.after) == (same.name, same.after, same.before)
        for axis in there
        for change, same in zip(there[axis], back[axis], strict=True)
    )
    assert differences(before, before) == {}
    assert differences(before, after, ignored={*before, *after}) == {}


@settings(deadline=None)
@given(softwares=st.lists(st.builds(lambda a, b: {**a, **b}, versions, systems), min_size=1, max_size=6))
def test_each_pair_of_stacks_is_told_once_and_put_down_to_one_axis_or_to_none(softwares: list[dict[str, str]]) -> None:
    sessions = [session(software, {"a": 1.0}, number=number) for number, software in enumerate(softwares, start=1)]
    upgrades = find_upgrades(sessions, tolerance=0.05)
    assert sorted(one.path for stack in upgrades.stacks for one in stack.sessions) == sorted(one.path for one in sessions)
    for stack in upgrades.stacks:
        assert all(one.software == stack.software for one in stack.sessions)
    pairs = [
        *({step.before.letter, step.after.letter} for step in upgrades.steps),
        *({pair.before.letter, pair.after.letter} for pair in upgrades.confounded),
    ]
    letters = [stack.letter for stack in upgrades.stacks]
    assert sorted(map(sorted, pairs)) == sorted(map(sorted, combinations(letters, 2)))
    for step in upgrades.steps:
        assert list(differences(step.before.software, step.after.software)) == [step.axis]
        assert {step.before.levels[axis] for axis in step.before.levels if axis != step.axis} == {
            step.after.levels[axis] for axis in step.after.levels if axis != step.axis
        }
        assert step.before.levels[step.axis] != step.after.levels[step.axis]
    for pair in upgrades.confounded:
        assert len(pair.axes) > 1
    assert set(upgrades.axes) <= set(AXES)


# ---------------------------------------------------------------- verdicts


def test_the_steps_have_the_verdicts_of_the_rule() -> None:
    first = twice({"tensorflow": "1.14"}, {"slower": 10, "same": 10, "faster": 10, "breaks": 10, "never": 10})
    failed = {"breaks": {"kind": "crash", "signal": "SIGABRT", "message": "Check failed: IsJobName(job)"}}
    second = twice({"tensorflow": "1.15"}, {"slower": 12, "same": 10.1, "faster": 8}, broken=failed)
    (step,) = find_upgrades([*first, *second], tolerance=0.05).steps
    assert (step.axis, step.before.letter, step.after.letter) == ("framework", "A", "B")
    assert {case.id: case.verdict for case in step.cases} == {
        "slower": Verdict.SLOWER,
        "same": Verdict.PASS,
        "faster": Verdict.FASTER,
        "breaks": Verdict.BROKEN,
        "never": None,
    }
    (slower,) = [case for case in step.cases if case.id == "slower"]
    assert slower.decision is not None
    assert slower.decision.ratio == pytest.approx(1.2)
    assert slower.decision.interval is not None
    assert slower.decision.interval[0] <= 1.2 <= slower.decision.interval[1]


def test_the_older_version_comes_first_whenever_it_was_recorded() -> None:
    upgrades = find_upgrades(
        [*twice({"tensorflow": "1.15"}, {"a": 12}), *twice({"tensorflow": "1.14"}, {"a": 10})], tolerance=0.05
    )
    assert verdicts(upgrades) == {("framework", "B", "A"): {"a": Verdict.SLOWER}}


def test_one_session_a_stack_is_too_little_for_many_cases_and_says_so() -> None:
    cases = {f"case{number}": 10.0 for number in range(16)}
    few = [session({"l4t": "1"}, cases), session({"l4t": "2"}, dict.fromkeys(cases, 20.0))]
    upgrades = find_upgrades(few, tolerance=0.05)
    assert upgrades.blind == 16
    assert set(verdicts(upgrades)[("system", "A", "B")].values()) == {Verdict.INCONCLUSIVE}
    enough = [*twice({"l4t": "1"}, cases), *twice({"l4t": "2"}, dict.fromkeys(cases, 20.0))]
    upgrades = find_upgrades(enough, tolerance=0.05)
    assert upgrades.blind == 0
    assert set(verdicts(upgrades)[("system", "A", "B")].values()) == {Verdict.SLOWER}


def test_what_was_measured_on_other_pictures_is_not_compared() -> None:
    before, after = session({"l4t": "1"}, {"a": 1}), session({"l4t": "2"}, {"a": 2})
    after.cases["a"] = replace(after.cases["a"], pictures=20)
    (step,) = find_upgrades([before, after], tolerance=0.05).steps
    assert [(case.verdict, case.decision) for case in step.cases] == [(None, None)]
    again = session({"l4t": "1"}, {"a": 1})
    again.cases["a"] = replace(again.cases["a"], pictures=20)
    (step,) = find_upgrades([before, again, after], tolerance=0.05).steps
    assert [case.decision is not None for case in step.cases] == [True]


def test_known_broken_and_fixed() -> None:
    failed = {"kind": "oom", "signal": "SIGKILL", "message": "killed for memory"}
    upgrades = find_upgrades(
        [
            session({"l4t": "1"}, {"a": 1}, broken={"b": failed, "c": failed}),
            session({"l4t": "2"}, {"a": 1, "b": 1}, broken={"c": failed, "d": failed}),
        ],
        tolerance=0.05,
    )
    found = verdicts(upgrades)[("system", "A", "B")]
    assert (found["b"], found["c"], found["d"]) == (Verdict.FIXED, Verdict.KNOWN_BROKEN, None)


def test_what_is_ignored_makes_no_stack() -> None:
    before, after = {"tensorflow": "2.16", "kernel": "6.1.1"}, {"tensorflow": "2.17", "kernel": "6.1.2"}
    sessions = [session(before, {"a": 1}), session(after, {"a": 1})]
    assert [pair.axes for pair in find_upgrades(sessions, tolerance=0.05).confounded] == [("system", "framework")]
    assert [step.axis for step in find_upgrades(sessions, tolerance=0.05, ignored=["kernel"]).steps] == ["framework"]


def test_a_baseline_of_two_stacks_is_told() -> None:
    old, new = {"tensorflow": "1.14", "kernel": "4.9.1"}, {"tensorflow": "1.15", "kernel": "4.9.2"}
    sessions = [session(old, {"a": 1}, name="tf1.14"), session(new, {"a": 1}, name="tf1.15")]
    told = mixed_baseline(sessions)
    assert told is not None
    assert "of 2 stacks: tf1.14 (tensorflow 1.14); tf1.15 (tensorflow 1.15)" in told
    assert mixed_baseline([session({**old, "kernel": "4.9.2"}, {}), sessions[0]]) is None
    assert mixed_baseline([]) is None


# ---------------------------------------------------------------- three stacks of a Jetson Nano


def nano(tmp_path: Path, l4t: str, jetpack: str, tensorrt: str, tensorflow: str) -> tuple[DeviceIdentity, dict[str, str]]:
    """What a Nano with these releases says of itself."""
    tree = {
        **NANO,
        **release(f"# R32 (release), REVISION: {l4t}, GCID: 1, BOARD: t210ref, EABI: aarch64, DATE: Mon Nov 4 21:00:00 UTC 2019"),
        **packages(
            nvidia_l4t_core=f"32.{l4t}-1",
            nvidia_jetpack=jetpack,
            libnvinfer5=tensorrt,
            cuda_cudart_10_0="10.0.326-1",
        ),
        "usr/lib/aarch64-linux-gnu/libnvinfer.so.8.2.1": None,
    }
    facts = device_facts.collect(build(tmp_path / f"{jetpack}-{tensorflow}", {k: v for k, v in tree.items() if v is not None}))
    probe = {
        "python": "3.6.9",
        "implementation": "CPython",
        "packages": {"tensorflow": tensorflow, "numpy": "1.16.1"},
        "device": facts,
    }
    return DeviceIdentity.from_facts(facts), dict(SoftwareUnderTest.from_probe(probe).versions)


def document(device: DeviceIdentity, software: dict[str, str], cases: dict[str, float], aborted: list[str]) -> dict[str, Any]:
    benchmarks = [
        {
            "name": case_id,
            "fullname": f"tests/gate/test_latency.py::{case_id}",
            "stats": {},
            "extra_info": {
                "inference_gate": {
                    "schema": "inference-gate-case/1",
                    "id": case_id,
                    "verdict": "pass",
                    "replicates": [value * one / 1000 for one in SCATTER],
                }
            },
        }
        for case_id, value in cases.items()
    ]
    outcome = {
        "kind": "crash",
        "stage": "convert",
        "signal": "SIGABRT",
        "message": "the agent died of SIGABRT while converting; its last line was: Check failed: IsJobName(job)",
    }
    return {
        "benchmarks": benchmarks,
        "datetime": "2020-01-26T10:00:00",
        "inference_gate": {
            "schema": "inference-gate-session/1",
            "device": {"id": device.id, "identity": device.as_dict()},
            "software": software,
            "condition": {},
            "broken": [{"id": case_id, "outcome": outcome} for case_id in aborted],
        },
    }


@pytest.fixture
def three_stacks(tmp_path: Path) -> Path:
    """The upgrade of 2020, with cases that behave like those that were published: one slower with the framework, one that aborts."""
    stacks = {
        "jp4.2.2-tf1.14": nano(tmp_path, "2.1", "4.2.2-b21", "5.1.6-1+cuda10.0", "1.14.0+nv19.10"),
        "jp4.2.2-tf1.15": nano(tmp_path, "2.1", "4.2.2-b21", "5.1.6-1+cuda10.0", "1.15.0+nv19.11"),
        "jp4.3-tf1.15": nano(tmp_path, "3.1", "4.3-b134", "6.0.1-1+cuda10.0", "1.15.0+nv20.1"),
    }
    detection, classification, lite = "ssd-tftrt-fp16-b1-t1", "mobilenet-tftrt-fp16-b1-t1", "ssdlite-tftrt-fp16-b1-t1-nms_cpu"
    figures = {
        "jp4.2.2-tf1.14": ({detection: 48, classification: 20, lite: 52}, []),
        "jp4.2.2-tf1.15": ({detection: 60, classification: 19.8}, [lite]),
        "jp4.3-tf1.15": ({detection: 60.3, classification: 18}, [lite]),
    }
    baselines = tmp_path / "baselines"
    for name, (device, software) in stacks.items():
        for _ in range(2):
            save_session(baselines / device.id, name, document(device, software, *figures[name]))
    assert len(list(baselines.iterdir())) == 1, "the upgrade must not make another device"
    return baselines


def test_jetpack_and_tensorflow_are_told_apart(three_stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "axes", f"--baselines={three_stacks}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "inference-gate-axes/1"
    assert told["axes"] == ["system", "framework"]
    assert [stack["names"] for stack in told["stacks"]] == [["jp4.2.2-tf1.14"], ["jp4.2.2-tf1.15"], ["jp4.3-tf1.15"]]
    assert told["stacks"][2]["levels"]["system"].startswith("jetpack 4.3")
    system, framework = told["steps"]
    assert (system["axis"], system["before"], system["after"]) == ("system", "B", "C")
    assert (framework["axis"], framework["before"], framework["after"]) == ("framework", "A", "B")
    assert "tensorrt-library" in [change["name"] for change in system["changes"]]
    assert [case["verdict"] for case in framework["cases"]] == ["slower", "pass", "broken"]
    assert [case["verdict"] for case in system["cases"]] == ["pass", "faster", "known_broken"]
    assert told["confounded"] == [{"before": "A", "after": "C", "axes": ["system", "framework"]}]

    assert main(["baseline", "axes", f"--baselines={three_stacks}"]) == 0
    text = capsys.readouterr().out
    assert "framework, A -> B: tensorflow 1.14.0+nv19.10 -> 1.15.0+nv19.11" in text
    # NVIDIA's build of one release of TensorFlow, for another JetPack, is no other framework.
    assert "tensorflow 1.15.0+nv19.11 -> 1.15.0+nv20.1" in " ".join(text.split())
    assert "with B: crash SIGABRT: the agent died of SIGABRT" in text
    assert "Check failed: IsJobName(job)" in " ".join(text.split())
    assert "A -> C: system and framework differ, so no change is put down to one of them" in text
    assert "+25.0" in text


def test_stacks_can_be_named(three_stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["baseline", "axes", f"--baselines={three_stacks}"]
    assert main([*common, "jp4.2.2-tf1.15", "jp4.3-tf1.15"]) == 0
    text = capsys.readouterr().out
    assert "2 stacks in 4 sessions" in text
    assert "system, A -> B" in text
    assert main([*common, "jp4.3-tf1.15"]) == 0
    assert "There is one stack, so nothing to compare" in capsys.readouterr().out
    assert main([*common, "jp9"]) == 2
    assert "No baseline is named 'jp9'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, "--tolerance=much"])
    assert "'much' is not a percentage such as 5%" in capsys.readouterr().err
