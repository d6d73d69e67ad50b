"""What an agent finds out about its environment."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from pytest_inference_gate.agent import probe
from pytest_inference_gate.agent.backends import onnxruntime, tensorflow, tflite


@pytest.mark.parametrize(
    ("metadata", "name", "version"),
    [
        ("numpy-1.19.5.dist-info", "numpy", "1.19.5"),
        ("ai_edge_litert-2.3.0.dist-info", "ai-edge-litert", "2.3.0"),
        ("tensorflow-2.7.0+nv22.1.dist-info", "tensorflow", "2.7.0+nv22.1"),
        ("tflite_runtime-2.5.0.post1.egg-info", "tflite-runtime", "2.5.0.post1"),
        ("tensorrt-8.2.1.8-py3.6.egg-info", "tensorrt", "8.2.1.8"),
        ("Keras-2.4.3-py3.6-linux-aarch64.egg-info", "keras", "2.4.3"),
    ],
)
def test_an_old_python_reads_versions_from_names(tmp_path: Path, metadata: str, name: str, version: str) -> None:
    (tmp_path / metadata).mkdir()
    assert probe.scan_path([str(tmp_path)]) == {name: version}


def test_the_first_on_the_path_wins_and_the_rest_does_not_matter(tmp_path: Path) -> None:
    for directory, version in (("site", "1.0"), ("dist", "2.0")):
        (tmp_path / directory / f"numpy-{version}.dist-info").mkdir(parents=True)
    for name in ("numpy", "numpy.libs", "README-1.txt"):
        (tmp_path / "site" / name).mkdir()
    path = [str(tmp_path / "missing"), str(tmp_path / "site"), str(tmp_path / "dist")]
    assert probe.scan_path(path) == {"numpy": "1.0"}


def test_names_on_the_path_and_metadata_agree() -> None:
    import sys

    scanned, asked = probe.scan_path(sys.path), probe.installed_packages()
    assert asked["numpy"] == importlib.metadata.version("numpy")
    assert {name: scanned[name] for name in asked} == asked


def test_tensorflow_is_known_by_each_of_its_names() -> None:
    for name in ("tensorflow", "tensorflow-cpu", "tf-nightly"):
        assert tensorflow.availability({name: "2.16.1"})["runtime"] == {"name": "tensorflow", "version": "2.16.1"}
    assert not tensorflow.availability({})["available"]


def test_tflite_takes_the_runtime_that_would_be_imported() -> None:
    everything = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0", "tensorflow": "2.21.0"}
    for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        assert tflite.availability(everything)["runtime"]["name"] == name
        del everything[name.replace("_", "-")]
    nothing = tflite.availability(everything)
    assert (nothing["available"], nothing["can_run"], nothing["precisions_run"]) == (False, False, [])
    assert nothing["reason"]


def test_onnxruntime_quantizes_where_onnx_is_and_takes_tensorflow_where_tf2onnx_is() -> None:
    assert onnxruntime.availability({})["can_run"] is False
    assert onnxruntime.availability({"onnxruntime": "1.17"})["precisions_convert"] == ["fp32"]
    assert onnxruntime.availability({"onnxruntime-gpu": "1.17", "onnx": "1.15"})["precisions_convert"] == ["fp32", "int8"]
    assert onnxruntime.availability({"onnxruntime": "1.17", "onnx": "1.15"})["source_formats"] == ["onnx"]
    everything = {"onnxruntime": "1.17", "onnx": "1.15", "tf2onnx": "1.16", "tensorflow": "2.16"}
    assert "keras" in onnxruntime.availability(everything)["source_formats"]
