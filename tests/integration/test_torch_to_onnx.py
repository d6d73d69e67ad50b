"""Checkpoints of PyTorch as ONNX: what ONNX Runtime answers is what eager PyTorch answers, by both of PyTorch's exporters."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from test_torch_backend import BATCH, MOBILENET, PLANES, ROOT, Workshop, _Malicious, _plugin, no_torchvision, refusal, start

MISSING = [name for name in ("torch", "torchvision", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if no_torchvision():
        pytest.skip(no_torchvision())
    return Workshop(tmp_path_factory.mktemp("torch_to_onnx"))


def converted(workshop: Workshop, agent: Any, precision: str = "fp32", **source: Any) -> tuple[Path, dict[str, Any]]:
    request = {**workshop.request(precision, input=PLANES, architecture=MOBILENET, **source), "backend": "onnxruntime"}
    result = agent.convert({**request, "calibration": str(workshop.root / "planes.npy")})
    return Path(request["output_directory"]) / result["model"], result


def answers(workshop: Workshop, agent: Any, model: Path, backend: str, precision: str = "fp32") -> Any:
    workshop.load(agent, model, precision, input=PLANES, backend=backend)
    return workshop.predict(agent, "planes.npy")


def test_a_state_dict_answers_as_in_eager_pytorch(workshop: Workshop) -> None:
    import onnx
    import torch
    import torchvision

    torch.manual_seed(3)
    module = torchvision.models.mobilenet_v2(**MOBILENET["arguments"]).eval()
    torch.save(module.state_dict(), workshop.root / "weights.pth")
    with torch.no_grad():
        expected = module(torch.from_numpy(numpy.load(workshop.root / "planes.npy"))).numpy()
    with start(workshop.root) as agent:
        model, result = converted(workshop, agent, format="torch_weights", path=str(workshop.root / "weights.pth"))
        numpy.testing.assert_allclose(answers(workshop, agent, model, "onnxruntime"), expected, atol=1e-5)
    document = onnx.load(model)
    assert [(one.domain, one.version) for one in document.opset_import] == [("", 17)]
    shape = [size.dim_value for size in document.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [BATCH, *PLANES["shape"]]
    assert {"torch", "torchvision", "opset"} <= set(result["converter"])
    assert result["details"]["passed_through"] is False


def test_seeded_weights_are_those_of_the_eager_module_and_can_be_quantized(workshop: Workshop) -> None:
    source = {"format": "seeded", "path": None, "seed": 5}
    with start(workshop.root) as agent:
        eager, _ = workshop.convert(agent, input=PLANES, architecture=MOBILENET, **source)
        expected = answers(workshop, agent, eager, "torch")
        model, _ = converted(workshop, agent, **source)
        numpy.testing.assert_allclose(answers(workshop, agent, model, "onnxruntime"), expected, rtol=1e-3, atol=1e-3)
        model, _ = converted(workshop, agent, "int8", **source)
        integers = answers(workshop, agent, model, "onnxruntime", "int8")
    cosine = (integers * expected).sum() / numpy.linalg.norm(integers) / numpy.linalg.norm(expected)
    assert 0.6 < cosine < 0.99999  # quantized, and still the same model


def test_a_pickle_that_is_a_program_is_refused_on_this_way_too(workshop: Workshop) -> None:
    import torch

    trace = workshop.root / "it-ran"
    torch.save({"weight": _Malicious(trace)}, workshop.root / "program.pt")
    torch.save(torch.nn.Linear(2, 2), workshop.root / "whole.pt")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), workshop.root / "script.pt")
    with start(workshop.root) as agent:
        for name in ("program.pt", "whole.pt", "script.pt"):
            path = str(workshop.root / name)
            kind, message = refusal(lambda path=path: converted(workshop, agent, format="torch_weights", path=path))
            assert kind == "build_error"
            assert name in message and "torch.save(model.state_dict()" in message
    assert not trace.exists()


def test_the_exporter_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_inference_gate.agent import torch_to_onnx
    from pytest_inference_gate.agent.failures import Unsupported

    def of(export: Any) -> dict[str, Any]:
        return torch_to_onnx.exporter(SimpleNamespace(onnx=SimpleNamespace(export=export)))[0]

    assert of(lambda model, args, f, opset_version=None: None) == {"opset_version": 17}
    assert of(lambda model, args, f, *, opset_version=None, dynamo=True: None) == {"opset_version": 17, "dynamo": False}
    monkeypatch.setitem(sys.modules, "onnxscript", SimpleNamespace(__version__="9"))
    assert of(lambda model, args, f, *, dynamic_shapes=None: None) == {"opset_version": 18, "external_data": False}
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(Unsupported, match="onnxscript is not installed here, and exporting a module of PyTorch to ONNX needs it"):
        of(lambda model, args, f, *, dynamic_shapes=None: None)


def test_the_other_exporter_writes_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What releases without the tracing exporter do, by a release that has both."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed here, which the exporter of torch.export needs")
    import onnxruntime
    import torch

    from pytest_inference_gate.agent import torch_models, torch_to_onnx

    monkeypatch.setattr(torch_to_onnx, "exporter", lambda _: ({"opset_version": 18, "external_data": False, "dynamo": True}, {}))
    source = {"format": "seeded", "architecture": MOBILENET, "seed": 5, "path": None}
    request = {"source": source, "input": PLANES, "batch": BATCH}
    torch_to_onnx.export(request, str(tmp_path / "model.onnx"), lambda _: None)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("input", [BATCH, *PLANES["shape"]])
    pictures = numpy.random.default_rng(0).normal(size=(BATCH, *PLANES["shape"])).astype(numpy.float32)
    module, _ = torch_models.torchvision_module(torch, request, lambda _: None)
    with torch.no_grad():
        expected = module(torch.from_numpy(pictures)).numpy()
    numpy.testing.assert_allclose(session.run(None, {"input": pictures})[0], expected, rtol=1e-3, atol=1e-3)


def test_a_session_compares_onnx_runtime_with_eager_pytorch(tmp_path: Path) -> None:
    """Both ways as cases of one card, picture by picture, and the wrong number of labels as the case's own error."""
    card = """
name = "{name}"
[checkpoint]
format = "seeded"
seed = 7
architecture = {{ function = "torchvision.models.mobilenet_v2", arguments = {{ num_classes = 7, width_mult = 0.25 }} }}
[input]
shape = [3, 32, 32]
layout = "nchw"
[preprocessing]
resize = "resize_and_crop"
scaling = "imagenet_mean_std"
[labels]
count = {count}
[evaluation]
seed = 1
count = 12
[measuring]
pictures = 5
[backends]
torch = ["fp32"]
onnxruntime = ["fp32"]
"""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "right.toml").write_text(card.format(name="right", count=7))
    (tmp_path / "models" / "wrong.toml").write_text(card.format(name="wrong", count=9))
    for test in ("test_accuracy.py", "test_latency.py"):
        shutil.copy(ROOT / "tests" / "gate" / test, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")
    options = ["-m", "cpu", "--gate-json=result.json", "--gate-rounds=10", "--gate-replicates=1", "--gate-warm-up=0.01"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *_plugin()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "150"},
    )
    cases = {(case["model"], case["backend"]): case for case in json.loads((tmp_path / "result.json").read_text())["cases"]}
    assert done.returncode == 1, done.stdout + done.stderr
    for backend in ("torch", "onnxruntime"):
        right, wrong = cases["right", backend], cases["wrong", backend]
        assert right["verdict"] == "pass", right["reason"]
        assert right["accuracy"]["agreement"] == 1.0
        assert right["latency"]["pictures"] == len(right["latency"]["picture_medians"]) == 5
        assert wrong["latency"] is None
        assert "7" in wrong["outcome"]["message"] and "9" in wrong["outcome"]["message"]
