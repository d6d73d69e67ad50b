"""What the Edge TPU compiler prints, of every release and in every case that is known, and what is made of it."""

from __future__ import annotations

import platform
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import edgetpu_compiler
from pytest_inference_gate.agent.edgetpu_compiler import MAPPED, Row, arguments, coverage, failure, parse, parse_log
from pytest_inference_gate.agent.failures import Unsupported

UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
DATA_TYPE = "Operation is working on an unsupported data type"
STATUSES = (
    MAPPED,
    "More than one subgraph is not supported",
    UNSPECIFIED,
    DATA_TYPE,
    "Operation not supported",
    "Operation version not supported",
    "A status that no release has had so far",
)

WHOLE = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 542 ms.

Input model: quantized_model.tflite
Input size: 4.04MiB
Output model: quantized_model_edgetpu.tflite
Output size: 4.13MiB
On-chip memory used for caching model parameters: 604.50KiB
On-chip memory remaining for caching model parameters: 511.50KiB
Off-chip memory used for streaming uncached model parameters: 3.45MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 50
Operation log: quantized_model_edgetpu.log
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""

PARTIAL_WORDS = (
    "\nModel successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead run on "
    "the CPU, which is slower. If possible, consider updating your model to use only operations supported by the Edge TPU. For details, "
    "visit g.co/coral/model-reqs.\n"
)

# Release 2.0: another word for what is left on the chip, and no timer. int8 with float inputs and outputs.
OLD = f"""\
Edge TPU Compiler version 2.0.267685300

Model compiled successfully in 307 ms.

Input model: mobilenet_v2.tflite
Input size: 2.58MiB
Output model: mobilenet_v2_edgetpu.tflite
Output size: 2.77MiB
On-chip memory available for caching model parameters: 6.91MiB
On-chip memory used for caching model parameters: 2.71MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 72
Operation log: mobilenet_v2_edgetpu.log
{PARTIAL_WORDS}Number of operations that will run on Edge TPU: 70
Number of operations that will run on CPU: 2

Operator                       Count      Status

QUANTIZE                       1          Mapped to Edge TPU
QUANTIZE                       1          {UNSPECIFIED}
DEQUANTIZE                     1          {DATA_TYPE}
SOFTMAX                        1          Mapped to Edge TPU
CONV_2D                        68         Mapped to Edge TPU
"""

OLD_WHOLE_TABLE = """\
Operator                       Count      Status

MEAN                           1          Mapped to Edge TPU
SOFTMAX                        1          Mapped to Edge TPU
FULLY_CONNECTED                1          Mapped to Edge TPU
ADD                            10         Mapped to Edge TPU
QUANTIZE                       2          Mapped to Edge TPU
PAD                            5          Mapped to Edge TPU
CONV_2D                        35         Mapped to Edge TPU
DEPTHWISE_CONV_2D              17         Mapped to Edge TPU
"""

TOGETHER = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Models compiled successfully in 3498 ms.

Input model: cnn_first_edge.tflite
Input size: 8.00MiB
Output model: cnn_first_edgetpu.tflite
Output size: 9.31MiB
On-chip memory used for caching model parameters: 1.75MiB
On-chip memory remaining for caching model parameters: 3.75KiB
Off-chip memory used for streaming uncached model parameters: 6.97MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 313
Operation log: cnn_first_edgetpu.log
See the operation log file for individual operation details.

Input model: rnn_second.tflite
Input size: 2.97MiB
Output model: rnn_second_edgetpu.tflite
Output size: 4.79MiB
On-chip memory used for caching model parameters: 5.29MiB
On-chip memory remaining for caching model parameters: 3.75KiB
Off-chip memory used for streaming uncached model parameters: 158.06KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 78
Operation log: rnn_second_edgetpu.log
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""


# Reading


def test_a_model_that_maps_whole_has_nothing_on_the_cpu() -> None:
    found = parse(WHOLE)
    assert (found.version, found.succeeded, found.milliseconds) == ("16.0.384591198", True, 542)
    (model,) = found.models
    assert (model.input, model.output) == ("quantized_model.tflite", "quantized_model_edgetpu.tflite")
    assert (model.operations, model.mapped, model.on_cpu, model.subgraphs) == (50, 50, 0, 1)
    assert model.input_bytes == round(4.04 * 2**20)
    assert (model.on_chip_bytes, model.on_chip_left) == (619008, 523776)
    assert model.off_chip_bytes == round(3.45 * 2**20)
    assert model.log == "quantized_model_edgetpu.log"
    found = coverage(model, "the compiler")
    assert (found["on_accelerator"], found["elsewhere"], found["elsewhere_by_operation"]) == (50, 0, [])


def test_that_the_counts_are_absent_means_nothing_without_success() -> None:
    """A compilation that was ended in the middle has no such lines either."""
    model = parse(WHOLE.replace("Model compiled successfully in 542 ms.", "")).models[0]
    assert (model.mapped, model.on_cpu) == (None, None)
    assert coverage(model, "the compiler") is None


def test_a_release_of_2019_and_its_operations_on_the_cpu() -> None:
    found = parse(OLD)
    (model,) = found.models
    assert found.version == "2.0.267685300"
    assert model.on_chip_left == round(6.91 * 2**20)
    assert model.off_chip_bytes == 0
    assert (model.mapped, model.on_cpu) == (70, 2)
    assert Row("QUANTIZE", 1, UNSPECIFIED) in model.rows
    assert Row("QUANTIZE", 1, MAPPED) in model.rows
    told = coverage(model, "the compiler")
    assert (told["on_accelerator"], told["elsewhere"], told["parts"], told["off_chip_bytes"]) == (70, 2, 1, 0)
    assert told["elsewhere_by_operation"] == [
        {"operation": "DEQUANTIZE", "count": 1, "reason": DATA_TYPE},
        {"operation": "QUANTIZE", "count": 1, "reason": UNSPECIFIED},
    ]


def test_a_log_alone() -> None:
    version, rows = parse_log(
        f"Edge TPU Compiler version 2.0.267685300\nInput: a.tflite\nOutput: a_edgetpu.tflite\n\n{OLD_WHOLE_TABLE}"
    )
    assert version == "2.0.267685300"
    assert sum(row.count for row in rows) == 72
    assert {row.status for row in rows} == {MAPPED}
    assert parse_log("nothing of the kind") == (None, [])


def test_models_that_were_compiled_together_have_a_block_each() -> None:
    found = parse(TOGETHER)
    assert found.milliseconds == 3498
    assert [(model.input, model.operations, model.on_cpu) for model in found.models] == [
        ("cnn_first_edge.tflite", 313, 0),
        ("rnn_second.tflite", 78, 0),
    ]
    assert found.models[1].off_chip_bytes == round(158.06 * 1024)


def test_the_counts_are_taken_where_the_table_lacks_operations() -> None:
    model = parse(OLD).models[0]
    told = coverage(model._replace(rows=model.rows[:2]), "the compiler")
    assert (told["on_accelerator"], told["elsewhere"]) == (70, 2)


def test_at_most_fifty_rows_are_told_the_most_frequent_first() -> None:
    rows = [Row(f"OPERATOR_{number}", number + 1, DATA_TYPE) for number in range(80)]
    told = edgetpu_compiler.elsewhere_by_operation(rows)
    assert len(told) == 50
    assert told[0] == {"operation": "OPERATOR_79", "count": 80, "reason": DATA_TYPE}


sizes = st.tuples(
    st.integers(0, 1023 * 100).map(lambda hundredths: f"{hundredths / 100:.2f}"), st.sampled_from(["B", "KiB", "MiB"])
)
operators = st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D", "QUANTIZE", "SOFTMAX", "CUSTOM", "UNIDIRECTIONAL_SEQUENCE_LSTM"])
tables = st.dictionaries(st.tuples(operators, st.sampled_from(STATUSES)), st.integers(1, 10**6), min_size=1, max_size=12)
releases = st.sampled_from(["2.0.267685300", "2.1.302470888", "14.1.317412892", "15.0.340273435", "16.0.384591198", "17.3.1"])


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "sizes": draw(st.lists(sizes, min_size=5, max_size=5)),
        "table": draw(tables),
        "subgraphs": draw(st.integers(0, 5)),
        "shown": draw(st.booleans()),
    }


def printed(release: str, drawn: list[dict[str, Any]]) -> str:
    """The words of a release for models that it compiled."""
    major = int(release.split(".")[0])
    lines = [f"Edge TPU Compiler version {release}"]
    lines += ["Started a compilation timeout timer of 180 seconds."] * (major >= 16) + [""]
    lines += [f"Model{'s' * (len(drawn) > 1)} compiled successfully in 12 ms.", ""]
    remaining = "remaining" if major >= 14 else "available"
    for number, model in enumerate(drawn):
        in_size, out_size, used, left, off = ("".join(part) for part in model["sizes"])
        total = sum(model["table"].values())
        on_cpu = sum(count for (_, status), count in model["table"].items() if status != MAPPED)
        lines += [f"Input model: m{number}.tflite", f"Input size: {in_size}"]
        lines += [f"Output model: m{number}_edgetpu.tflite", f"Output size: {out_size}"]
        lines += [f"On-chip memory used for caching model parameters: {used}"]
        lines += [f"On-chip memory {remaining} for caching model parameters: {left}"]
        lines += [f"Off-chip memory used for streaming uncached model parameters: {off}"]
        lines += [f"Number of Edge TPU subgraphs: {model['subgraphs']}", f"Total number of operations: {total}"]
        lines += [f"Operation log: m{number}_edgetpu.log"]
        if on_cpu:
            lines += [PARTIAL_WORDS.strip("\n"), f"Number of operations that will run on Edge TPU: {total - on_cpu}"]
            lines += [f"Number of operations that will run on CPU: {on_cpu}"]
        if model["shown"]:
            lines += ["", "Operator                       Count      Status", ""]
            lines += [f"{name:<31}{count:<11}{status}" for (name, status), count in model["table"].items()] + [""]
        else:
            lines += ["See the operation log file for individual operation details."]
    return "\n".join([*lines, "Compilation child process completed within timeout period.", "Compilation succeeded! ", ""])


@given(releases, st.lists(models(), min_size=1, max_size=3))
def test_what_is_printed_comes_back(release: str, drawn: list[dict[str, Any]]) -> None:
    found = parse(printed(release, drawn))
    assert (found.version, found.succeeded, len(found.models)) == (release, True, len(drawn))
    for number, (model, wanted) in enumerate(zip(found.models, drawn, strict=True)):
        total = sum(wanted["table"].values())
        on_cpu = sum(count for (_, status), count in wanted["table"].items() if status != MAPPED)
        assert (model.input, model.operations, model.subgraphs) == (f"m{number}.tflite", total, wanted["subgraphs"])
        assert (model.mapped, model.on_cpu) == (total - on_cpu, on_cpu)
        found_sizes = (model.input_bytes, model.output_bytes, model.on_chip_bytes, model.on_chip_left, model.off_chip_bytes)
        assert found_sizes == tuple(edgetpu_compiler.size(*part) for part in wanted["sizes"])
        rows = {(row.operator, row.status): row.count for row in model.rows}
        assert rows == (wanted["table"] if wanted["shown"] else {})
        told = coverage(model, "the compiler")
        assert (told["on_accelerator"], told["elsewhere"]) == (total - on_cpu, on_cpu)
        if wanted["shown"]:
            assert sum(row["count"] for row in told["elsewhere_by_operation"]) == on_cpu
            assert MAPPED not in {row["reason"] for row in told["elsewhere_by_operation"]}


@given(st.text(max_size=400))
def test_other_text_is_read_without_an_error(text: str) -> None:
    assert not parse(text).models or text
    assert isinstance(failure(text, 1, "16.0", False).args[0], str)


# Its options


def test_its_time_limit_is_an_option_since_release_16() -> None:
    assert arguments("16.0.384591198", {}) == ["-s", "-t", "180"]
    assert arguments("16.0.384591198", {"timeout_seconds": 900, "minimum_runtime_version": 13}) == ["-s", "-m", "13", "-t", "900"]
    assert arguments("15.0.340273435", {"timeout_seconds": 900}) == ["-s"]
    assert arguments("unknown", {"minimum_runtime_version": 99}) == ["-s", "-m", "99"]


@pytest.mark.parametrize(
    ("release", "newest"), [("16.0.384591198", 14), ("14.1.317412892", 13), ("2.0.267685300", 12), ("1.0", 10)]
)
def test_a_runtime_that_a_release_does_not_know_is_not_asked_for(release: str, newest: int) -> None:
    assert "-m" in arguments(release, {"minimum_runtime_version": newest})
    with pytest.raises(Unsupported, match=f"no Edge TPU runtime newer than {newest}, and the card asks for {newest + 1}"):
        arguments(release, {"minimum_runtime_version": newest + 1})


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("x86_64", "not on PATH here: install Google's package"),
        ("aarch64", "cannot run on this aarch64 machine"),
        ("", "unknown"),
    ],
)
def test_where_there_is_no_compiler_the_sentence_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, words: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", "linux")
    sentence = edgetpu_compiler.missing()
    assert words in sentence
    assert "a .tflite that is compiled already" in sentence


# What went wrong

HEAD = "Edge TPU Compiler version 16.0.384591198\nStarted a compilation timeout timer of 180 seconds.\n"
TAIL = "Compilation child process completed within timeout period.\nCompilation failed! \n"


@pytest.mark.parametrize(
    ("text", "status", "kind", "words"),
    [
        ("Invalid model: my.tflite\nModel not quantized\n", 1, "build_error", "not quantized in all its tensors"),
        (
            "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '5'\nERROR: Registration failed.\n"
            "Invalid model: my.tflite\nModel could not be parsed\n",
            1,
            "build_error",
            "(CONV_2D of version 5): convert with an older TensorFlow",
        ),
        (
            "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has dynamic-sized tensors.\n",
            1,
            "build_error",
            "fixed shape",
        ),
        ("Compilation failed: Compilation failed due to large activation tensors in model.\n", 1, "build_error", "activations"),
        ("Internal compiler error. Aborting! \n", 1, "build_error", "internal error"),
        ("Compilation timeout. This is usually caused by large activations.\n", 1, "timeout", "timeout_seconds"),
        ("libc++abi: terminating with uncaught exception of type std::out_of_range: vector\n", 1, "crash", "std::out_of_range"),
        ("", -11, "crash", "killed by SIGSEGV"),
        ("", -9, "crash", "memory runs out"),
        ("", -64, "crash", "was killed by"),
        (
            "Invalid model: my.tflite\nModel could not be parsed\nERROR: Did not get operators, tensors, or buffers in subgraph 0.\n",
            1,
            "build_error",
            "Did not get operators, tensors, or buffers in subgraph 0; Model could not be parsed",
        ),
        ("unrecognized option: -q\n", 64, "build_error", "(exit status 64): unrecognized option: -q"),
        ("", 1, "build_error", "it printed no reason"),
    ],
)
def test_each_way_to_fail_has_its_kind_and_its_next_step(text: str, status: int, kind: str, words: str) -> None:
    error = failure(HEAD + text + TAIL, status, "16.0.384591198", False)
    assert error.kind == kind
    assert words in str(error)
    assert "\n" not in str(error)
    assert "edgetpu_compiler 16.0.384591198" in str(error)


def test_a_second_internal_error_is_said_to_be_the_second() -> None:
    assert "failed twice" in str(failure(HEAD + "Internal compiler error. Aborting!", 1, "16.0", True))
