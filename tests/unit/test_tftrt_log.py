"""What TF-TRT prints, line by line as releases print it."""

from __future__ import annotations

import pytest

from pytest_inference_gate.agent import tftrt_log

W = "2021-04-01 12:00:00.123456: W tensorflow/compiler/tf2tensorrt/kernels/trt_engine_op.cc:{}] "
SINCE_2_5 = W + "TF-TRT Warning: "


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            W.format(1002) + "Engine creation for PartitionedCall/TRTEngineOp_0 failed. The native segment will be used instead. "
            "Reason: Internal: Failed to build TensorRT engine",
            {"TRTEngineOp_0": "Internal: Failed to build TensorRT engine"},
        ),
        (
            SINCE_2_5.format(846) + "Engine retrieval for input shapes: [[8,224,224,3]] failed. Running native segment for "
            "StatefulPartitionedCall/TRTEngineOp_000_000",
            {"TRTEngineOp_000_000": "no engine for the shapes of the input"},
        ),
        (
            SINCE_2_5.format(790)
            + "Running native segment forTRTEngineOp_000_001 due to failure in verifying input shapes: Input "
            "shapes are inconsistent on the batch dimension, for TRTEngineOp_000_001: [[2,8], [8]]",
            {
                "TRTEngineOp_000_001": "Input shapes are inconsistent on the batch dimension, for TRTEngineOp_000_001: [[2,8], [8]]",
            },
        ),
        (
            SINCE_2_5.format(850)
            + "Failed to execute engine: INTERNAL: Failed to enqueue batch for TRT engine Retrying with native "
            "segment for PartitionedCall/TRTEngineOp_000_000",
            {"TRTEngineOp_000_000": "INTERNAL: Failed to enqueue batch for TRT engine"},
        ),
        (
            W.format(540) + "Failed to execute engine, retrying with native segment for import/TRTEngineOp_3",
            {"TRTEngineOp_3": "the engine could not be executed"},
        ),
        (
            SINCE_2_5.format(1083) + "Found no engine in cache matching input shapes. Not building a new engine because "
            "allow_build_at_runtime=False. The native segment will be used instead.\n"
            + SINCE_2_5.format(846)
            + "Engine retrieval for input shapes: [[8,224,224,3]] failed. Running native segment for TRTEngineOp_000_000",
            {"TRTEngineOp_000_000": "no engine was built for these shapes, and none may be at run time"},
        ),
        (
            W.format(600)
            + "The engine cache is full.\n"
            + W.format(601)
            + "Engine retrieval for batch size 8 failed. Running native segment for TRTEngineOp_1",
            {"TRTEngineOp_1": "the engine cache is full (maximum_cached_engines)"},
        ),
        ("2021-04-01 12:00:00.1: I tensorflow/core/platform/cpu_feature_guard.cc:142] This TensorFlow binary is optimized", {}),
    ],
)
def test_engines_that_tensorflow_computes_itself(text: str, names: dict[str, str]) -> None:
    assert tftrt_log.native_segments("before\n" + text + "\nafter") == names


def test_an_engine_is_told_once_with_its_first_reason() -> None:
    line = SINCE_2_5.format(846) + "Engine retrieval for input shapes: [[8,3]] failed. Running native segment for a/TRTEngineOp_0"
    first = (
        W.format(1002)
        + "Engine creation for b/TRTEngineOp_0 failed. The native segment will be used instead. Reason: Internal: no"
    )
    assert tftrt_log.native_segments("\n".join([first, line, line])) == {"TRTEngineOp_0": "Internal: no"}


def test_the_last_execution_counts() -> None:
    """While shapes for profiles are collected the segment is run, and the engine after that."""
    text = "\n".join(
        "2024-05-04 10:36:27.1: I tensorflow/compiler/tf2tensorrt/kernels/trt_engine_op.cc:640] " + line
        for line in (
            "Executing native segment: PartitionedCall/TRTEngineOp_000_000",
            "Executing TRT engine: PartitionedCall/TRTEngineOp_000_000",
            "Executing TRT engine: PartitionedCall/TRTEngineOp_000_001",
            "Executing native segment: PartitionedCall/TRTEngineOp_000_001",
        )
    )
    assert tftrt_log.executions(text) == {"TRTEngineOp_000_000": True, "TRTEngineOp_000_001": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "ERROR:tensorflow:Loaded TensorRT 8.5.2 but linked TensorFlow against TensorRT 10.3.0. A few requirements must be met:",
            ("8.5.2", "10.3.0"),
        ),
        (
            "Loaded TensorRT 6.0.1 but linked TensorFlow against TensorRT 7.1.3. TensorRT does not support forward compatibility.",
            ("6.0.1", "7.1.3"),
        ),
        (
            "TensorRT version mismatch. Tensorflow was compiled against TensorRT 5.1.6 but library loaded from environment is TensorRT "
            "4.0.1. Please make sure",
            ("4.0.1", "5.1.6"),
        ),
        ("Loaded TensorRT 8.5.2 and linked TensorFlow against TensorRT 8.4.1. This is supported", None),
    ],
)
def test_two_releases_of_tensorrt(text: str, expected: tuple[str, str] | None) -> None:
    found = tftrt_log.versions(text)
    assert (tuple(found) if found else None) == expected


def test_a_release_that_is_too_old() -> None:
    text = "The loaded version of TensorRT: `0.0.0` has now been removed. Please upgrade to TensorRT 7 or more recent."
    assert tftrt_log.too_old(text) == ("loaded", "0.0.0")
    assert tftrt_log.too_old("") is None


def test_the_summary() -> None:
    text = "=====\n[*] Total number of TensorRT engines: 2\n[*] % of OPs Converted: 97.50% [312/320]\n"
    assert tftrt_log.summary(text) == {"engines": 2, "converted": 312, "nodes": 320}
    assert tftrt_log.summary("nothing") is None


def test_why_operations_were_left_alone() -> None:
    text = (
        "2022-01-01 10:00:00.1: W tensorflow/compiler/tf2tensorrt/segment/segment.cc:952] \n\n" + "#" * 80 + "\n"
        "TensorRT unsupported/non-converted OP Report:\n"
        "\t- NonMaxSuppressionV5 -> 2x\n"
        "\t\t- [Count: 2x] Op type NonMaxSuppressionV5 is not supported\n"
        "\n"
        "\t- Identity -> 3x\n"
        "\t\t- [Count: 2x] excluded by segmenter option. Most likely an input or output node.\n"
        "\t\t- [Count: 1x] other\n"
        "\n" + "-" * 80 + "\n"
        "\t- Total nonconverted OPs: 5\n"
    )
    assert tftrt_log.reasons(text) == {
        "NonMaxSuppressionV5": "Op type NonMaxSuppressionV5 is not supported",
        "Identity": "excluded by segmenter option. Most likely an input or output node.",
    }
