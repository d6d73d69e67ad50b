"""What the tensorrt backend says and decides, without TensorRT: sentences, shapes, provenance, the list of its uses."""

from __future__ import annotations

import ast
import types
from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate.agent import cuda_device, failures, tensorrt_api
from pytest_inference_gate.agent.backends import OWN_MODULES, SHARED_MODULES, Backends
from pytest_inference_gate.agent.backends import tensorrt as backend
from pytest_inference_gate.agent.engine_origin import refuse_foreign
from pytest_inference_gate.coverage import parse_coverage

HERE = {"tensorrt": "10.3.0", "sm": "8.7", "gpu": "Orin", "board": "NVIDIA Jetson AGX Orin Developer Kit", "cuda_driver": "12.6"}
AGENT = Path(tensorrt_api.__file__).parent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("libnvinfer.so.8: cannot open shared object file: No such file or directory", "libnvinfer.so.8 is missing"),
        (
            "Could not find: libnvinfer.so.10. Is it on your LD_LIBRARY_PATH?\nNote: Paths searched were: []",
            "libnvinfer.so.10 is missing",
        ),
        ("/usr/lib/python3/tensorrt.so: undefined symbol: getPluginRegistry", "bindings and libraries of one release"),
        (
            "libnvinfer.so.10: version `libnvinfer.so.10.3' not found (required by tensorrt.so)",
            "bindings and libraries of one release",
        ),
    ],
)
def test_a_library_that_is_missing_or_of_another_release(text: str, words: str) -> None:
    sentence = tensorrt_api.library_sentence(ImportError(text))
    assert words in sentence
    assert "\n" not in sentence


def parser(*errors: tuple[int, str, str, str]) -> Any:
    """One of TensorRT 10, whose errors know the operator; an empty operator is what TensorRT 8 knows of it."""

    def error(number: int, operator: str, name: str, text: str) -> Any:
        methods: dict[str, Any] = {"node": lambda: number, "desc": lambda: text}
        if operator:
            methods.update(node_operator=lambda: operator, node_name=lambda: name)
        return types.SimpleNamespace(**methods)

    made = [error(*one) for one in errors]
    return types.SimpleNamespace(num_errors=len(made), get_error=lambda index: made[index])


def test_the_parsers_own_errors_are_one_line() -> None:
    assert tensorrt_api.parser_words(parser()) == ""
    assert tensorrt_api.parser_words(parser((3, "", "", "bad\n  shape"))) == "node 3: bad shape"
    assert tensorrt_api.parser_words(parser((3, "Det", "det_1", "no importer"))) == "node 3 (Det 'det_1'): no importer"
    assert tensorrt_api.parser_words(parser((-1, "", "", "not a model"))) == "not a model"
    many = tensorrt_api.parser_words(parser(*[(number, "", "", "bad") for number in range(5)]))
    assert many == "node 0: bad; node 1: bad; node 2: bad (and 2 more)"


class Severity:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity


TRT = types.SimpleNamespace(ILogger=ILogger)


def test_the_first_errors_are_kept_and_memory_is_told_from_everything_else() -> None:
    logger = tensorrt_api.new_logger(TRT)
    assert logger.words() == "it logged no error"
    logger.log(Severity.WARNING, "only a warning: OutOfMemory")
    failure = logger.failure("building", failures.BuildError)
    assert type(failure) is failures.BuildError
    for number in range(5):
        logger.log(Severity.ERROR, f"reason {number}")
    assert logger.words() == "reason 0; reason 1; reason 2 (and 2 more)"
    logger.log(Severity.INTERNAL_ERROR, "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)")
    failure = logger.failure("building", failures.BuildError)
    assert failures.kind_of(failure, "convert") == "oom"
    assert (
        str(failure)
        == "TensorRT ran out of memory while building: Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)"
    )


def test_a_null_pointer_of_the_bindings_is_an_error_with_the_logged_reason() -> None:
    logger = tensorrt_api.new_logger(TRT)

    def nothing(logger: Any) -> Any:
        logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(failures.LoadError, match="starting the builder: CUDA initialization failure with error: 35"):
        tensorrt_api.create(nothing, logger, "starting the builder")

    def wrong(logger: Any) -> Any:
        raise TypeError("__init__(): incompatible constructor arguments")

    with pytest.raises(TypeError):
        tensorrt_api.create(wrong, logger, "starting the builder")


def test_placed_layers_are_read_from_the_log() -> None:
    logger = tensorrt_api.new_logger(TRT)
    for line in ("[DlaLayer] {ForeignNode[Conv_0...Relu_1]}", "[GpuLayer] SOFTMAX: Softmax_20", "[GpuLayer] SHUFFLE: x"):
        logger.log(Severity.INFO, line)
    engine = types.SimpleNamespace()  # of a release without an inspector
    found = tensorrt_api.placement(TRT, engine, logger, 0)
    assert found["devices"] == {"DLA": 1, "GPU": 2}
    assert found["fallback"] == ["SOFTMAX: Softmax_20", "SHUFFLE: x"]
    coverage = parse_coverage(tensorrt_api.coverage(found, "8.6.1"))
    assert (coverage.accelerator, coverage.on_accelerator, coverage.elsewhere) == ("dla", 1, 2)
    assert {one.operation: one.count for one in coverage.elsewhere_by_operation} == {"SOFTMAX": 1, "SHUFFLE": 1}
    assert coverage.source == "TensorRT 8.6.1 (build log)"
    unknown = tensorrt_api.placement(TRT, engine, tensorrt_api.new_logger(TRT), None)
    assert unknown["source"] == "unknown"
    assert tensorrt_api.coverage(unknown, "8.0") is None


@pytest.mark.parametrize(
    ("key", "value"), [("tensorrt", "8.6.1"), ("sm", "7.2"), ("gpu", "Xavier"), ("board", "NVIDIA Jetson Orin NX")]
)
def test_an_engine_of_elsewhere_is_refused(key: str, value: str) -> None:
    refuse_foreign(HERE, HERE)
    refuse_foreign({**HERE, "cuda_driver": "13.0"}, HERE)  # which TensorRT itself lets pass
    with pytest.raises(failures.LoadError) as caught:
        refuse_foreign({**HERE, key: value}, HERE)
    assert f"was {value} and is {HERE[key]}" in str(caught.value)
    with pytest.raises(failures.LoadError, match="unknown"):
        refuse_foreign({name: HERE[name] for name in HERE if name != key}, HERE)


def test_without_a_device_the_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "LIBRARIES", ("no-such-library.so.1",))
    found = backend.availability({"tensorrt": "10.3.0", "pycuda": "2024.1"})
    assert not (found["available"] or found["can_convert"] or found["can_run"])
    assert "no-such-library.so.1" in found["reason"]
    assert found["runtime"] == {"name": "tensorrt", "version": "10.3.0"}
    assert found["converter"] == {}
    assert backend.availability({})["reason"] == "TensorRT is not installed"


def test_the_driver_is_not_asked_where_tensorrt_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "facts", lambda root="/": pytest.fail("asked"))
    assert not backend.availability({"pycuda": "2024.1"})["available"]


# Modules that describe the machine or a failure: no artifact and no prediction is made with them.
WHAT_ONLY_TELLS = {None, "failures", "device_facts", "probe"}


def test_the_digest_of_the_code_covers_every_module_that_the_backend_imports() -> None:
    for name in ("tensorrt", "onnxruntime"):
        seen: set[str] = set()
        waiting = [AGENT / "backends" / f"{name}.py"]
        while waiting:
            for node in ast.walk(ast.parse(waiting.pop().read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level:
                    parts = [node.module] if node.module else [alias.name for alias in node.names]
                    for part in set(parts) - seen - WHAT_ONLY_TELLS:
                        seen.add(part)
                        waiting.append(AGENT / f"{part}.py")
        assert seen <= {file[: -len(".py")] for file in (*SHARED_MODULES, *OWN_MODULES[name])}


def test_a_backends_digest_changes_with_its_own_modules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = Backends({})
    before = {name: backends.code(name) for name in ("tensorrt", "onnxruntime", "tflite")}
    monkeypatch.setitem(OWN_MODULES, "tensorrt", (*OWN_MODULES["tensorrt"], "canary.py"))
    after = {name: backends.code(name) for name in before}
    assert after["tensorrt"] != before["tensorrt"]
    assert (after["onnxruntime"], after["tflite"]) == (before["onnxruntime"], before["tflite"])
