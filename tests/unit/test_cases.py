"""The matrix: which cases a card gives, on which devices, and that no two of them have one id."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.accelerators import MARKERS
from pytest_inference_gate.agent.backends import BUILT_IN
from pytest_inference_gate.backends import BACKENDS, CPU, BackendInfo, agent_device, backend_infos
from pytest_inference_gate.cards import ModelCard, load_cards
from pytest_inference_gate.matrix import NoCasesError, build_cases, embedded_models
from pytest_inference_gate.preparation import build_name


def card(backends: dict[str, list[str]], **more: Any) -> ModelCard:
    document = {
        "name": "m",
        "checkpoint": {"format": "other", "file": "m"},
        "input": {"shape": [8, 8, 3]},
        "labels": {"count": 10},
        "path": Path("m.toml"),
        "backends": backends,
        **more,
    }
    return ModelCard.model_validate(document)


def ids(*cards: ModelCard, **more: Any) -> list[str]:
    return [case.id for case in build_cases(cards, **more)]


def test_the_first_device_of_a_backend_is_not_in_the_id_and_any_other_is() -> None:
    found = ids(card({"tensorflow": ["fp32"], "tensorrt": ["fp16"], "edgetpu": ["int8"]}))
    assert found == [
        "m-tensorflow-fp32-b1-t1",
        "m-tensorflow-fp32-b1-t1-jetson",
        "m-tensorflow-fp32-b1-t1-cuda",
        "m-tensorrt-fp16-b1-t1",
        "m-tensorrt-fp16-b1-t1-cuda",
        "m-edgetpu-int8-b1-t1",
    ]


def test_a_device_gets_the_precisions_that_it_has() -> None:
    assert ids(card({"torch": ["fp32", "fp16"]})) == [
        "m-torch-fp32-b1-t1",
        "m-torch-fp32-b1-t1-jetson",
        "m-torch-fp16-b1-t1-jetson",
        "m-torch-fp32-b1-t1-cuda",
        "m-torch-fp16-b1-t1-cuda",
    ]


def test_a_variant_of_the_graph_is_a_case_of_its_own() -> None:
    variants = {"tensorflow": ["as_is", "nms_cpu", "nms_gpu"], "tftrt": ["nms_cpu"]}
    # On a processor alone nothing can be put on the GPU.
    assert ids(card({"tensorflow": ["fp32"], "tftrt": ["fp16"]}, variants=variants, devices={"tftrt": ["jetson"]})) == [
        "m-tensorflow-fp32-b1-t1",
        "m-tensorflow-fp32-b1-t1-nms_cpu",
        "m-tensorflow-fp32-b1-t1-jetson",
        "m-tensorflow-fp32-b1-t1-nms_cpu-jetson",
        "m-tensorflow-fp32-b1-t1-nms_gpu-jetson",
        "m-tensorflow-fp32-b1-t1-cuda",
        "m-tensorflow-fp32-b1-t1-nms_cpu-cuda",
        "m-tensorflow-fp32-b1-t1-nms_gpu-cuda",
        "m-tftrt-fp16-b1-t1-nms_cpu",
    ]
    case = build_cases([card({"tensorflow": ["fp32"]}, variants=variants)], select=["*-nms_cpu"])[0]
    assert build_name(case) == "m-tensorflow-fp32-b1-nms_cpu"  # another model than that of the graph as it is


def test_a_card_limits_devices_and_the_ids_stay() -> None:
    limited = card({"torch": ["fp32"], "tensorrt": ["fp32"]}, devices={"torch": ["cuda"], "tensorrt": ["jetson"]})
    assert ids(limited) == ["m-torch-fp32-b1-t1-cuda", "m-tensorrt-fp32-b1-t1"]


def test_a_plugin_s_backend_has_one_device_and_takes_the_place_of_a_built_in_one() -> None:
    known = {**BACKENDS, "hexagon": BackendInfo(("int4",), ("dsp",)), "tensorrt": BackendInfo(("fp32",)), "short": ("fp32",)}
    cases = build_cases([card({"hexagon": ["int4"], "tensorrt": ["fp32"], "short": ["fp32"]})], known_backends=known)
    assert [(case.id, case.device) for case in cases] == [
        ("m-hexagon-int4-b1-t1", "dsp"),
        ("m-tensorrt-fp32-b1-t1", "cpu"),
        ("m-short-fp32-b1-t1", "cpu"),
    ]


def test_an_agent_is_told_of_the_gpu_of_a_jetson_as_of_any_other() -> None:
    devices = ("cpu", "jetson", "cuda", "edgetpu", "dsp")
    assert [agent_device(device) for device in devices] == ["cpu", "cuda", "cuda", "edgetpu", "cpu"]


def test_every_device_of_the_table_has_a_marker() -> None:
    assert {device for info in BACKENDS.values() for device in info.devices} == {CPU, *MARKERS}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_agent_s_backends_have_the_precisions_of_the_table(name: str) -> None:
    module = importlib.import_module(f"pytest_inference_gate.agent.backends.{name}")
    assert set(module.PRECISIONS) == set(BACKENDS[name].precisions)


def test_cpu_cases_of_the_models_that_come_with_the_plugin_need_no_accelerator() -> None:
    cases = build_cases(load_cards(embedded_models()), select=["*"])
    assert {case.backend for case in cases if case.device == "cpu"} == {"tensorflow", "tflite", "onnxruntime", "torch"}
    assert {case.device for case in cases} == {"cpu", "jetson", "edgetpu", "cuda"}


NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9_.]{0,6}\Z")
NUMBERS = st.lists(st.integers(1, 300), min_size=1, max_size=3, unique=True)


@st.composite
def known_backends(draw: st.DrawFn) -> dict[str, BackendInfo]:
    def info() -> BackendInfo:
        precisions = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
        devices = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
        on = {
            device: tuple(draw(st.lists(st.sampled_from(precisions), unique=True)))
            for device in devices[1:]
            if draw(st.booleans())
        }
        return BackendInfo(tuple(precisions), tuple(devices), precisions_on=on)

    added = {name: info() for name in draw(st.lists(NAMES, max_size=3, unique=True))}
    return {**BACKENDS, **added}


@st.composite
def matrices(draw: st.DrawFn) -> tuple[list[ModelCard], dict[str, BackendInfo], dict[str, Any]]:
    known = draw(known_backends())
    cards = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        chosen = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True))
        backends = {
            backend: draw(st.lists(st.sampled_from(known[backend].precisions), min_size=1, unique=True)) for backend in chosen
        }
        devices = {
            backend: draw(st.lists(st.sampled_from(known[backend].devices), min_size=1, unique=True))
            for backend in chosen
            if draw(st.booleans())
        }
        rewrites = st.lists(st.sampled_from(["as_is", "nms_cpu", "nms_gpu"]), min_size=1, unique=True)
        variants = {backend: draw(rewrites) for backend in ("tensorflow", "tftrt") if backend in chosen and draw(st.booleans())}
        more = {"devices": devices, "variants": variants, "batches": draw(NUMBERS), "threads": draw(NUMBERS)}
        cards.append(card(backends, name=name, **more))
    axes = {axis: draw(st.none() | NUMBERS) for axis in ("batches", "threads")}
    return cards, known, axes


@given(matrices())
def test_no_two_cases_of_any_matrix_have_one_id(matrix: tuple[list[ModelCard], dict[str, BackendInfo], dict[str, Any]]) -> None:
    cards, known, axes = matrix
    try:
        cases = build_cases(cards, select=["*"], known_backends=known, **axes)
    except NoCasesError:
        assert not any(_places(one, known) for one in cards if not one.variants)  # nms_gpu alone gives none on a processor
        return
    assert len({case.id for case in cases}) == len(cases)
    parts = {(case.model, case.backend, case.precision, case.batch, case.threads, case.variant, case.device) for case in cases}
    assert len(parts) == len(cases)
    for case in cases:
        info = backend_infos(known)[case.backend]
        assert info.runs(case.precision, case.device)
        assert case.device in case.card.devices.get(case.backend, info.devices)
        assert case.device_in_id == (case.device != info.devices[0])


def _places(card: ModelCard, known: dict[str, BackendInfo]) -> bool:
    return any(
        known[backend].runs(precision, device)
        for backend, precisions in card.backends.items()
        for precision in precisions
        for device in card.devices.get(backend, known[backend].devices)
    )
