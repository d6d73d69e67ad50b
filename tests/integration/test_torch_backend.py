"""The torch backend with the real PyTorch: from checkpoint to measurement, the digits' real accuracy, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.outcome import StageFailed
from pytest_inference_gate.targets.interpreter import InterpreterTarget

MISSING = [name for name in ("torch", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

ROOT = Path(__file__).parent.parent.parent
BATCH = 2
INPUT = {"shape": [8, 8, 3], "dtype": "float32", "layout": "nhwc"}
PLANES = {"shape": [3, 32, 32], "dtype": "float32", "layout": "nchw"}
MOBILENET = {"function": "torchvision.models.mobilenet_v2", "arguments": {"num_classes": 7, "width_mult": 0.25}}
WARM_UP = {"minimum_rounds": 4, "minimum_seconds": 0.0, "maximum_seconds": 0.5, "window": 2, "agreement": 0.5}
ROUNDS = {"minimum": 7, "minimum_seconds": 0.0, "maximum": 7}


def says(code: str) -> str:
    """What another Python prints; an error's last line where it raises one."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr.strip().rpartition("\n")[2]).strip()


@lru_cache
def no_torchvision() -> str:
    return "" if (said := says("import torchvision; print('fine')")) == "fine" else f"torchvision: {said}"


@lru_cache
def no_cuda() -> str:
    return "" if says("import torch; print(torch.cuda.is_available())") == "True" else "PyTorch finds no CUDA device"


@pytest.fixture
def torchvision() -> None:
    if no_torchvision():
        pytest.skip(no_torchvision())


@pytest.fixture
def cuda() -> None:
    if no_cuda():
        pytest.skip(no_cuda())


def start(directory: Path) -> AgentProcess:
    return InterpreterTarget().start_agent(directory / "agent.log", Limits({"convert": 600.0, "load": 300.0}))


class Workshop:
    """Checkpoints with their pictures, and requests about them."""

    def __init__(self, root: Path) -> None:
        import onnxruntime

        self.root = root
        self.model = root / "model.onnx"
        _classifier(self.model)
        generator = numpy.random.default_rng(2)
        self.pictures = generator.uniform(0, 1, (7, 8, 8, 3)).astype(numpy.float32)
        numpy.save(root / "pictures.npy", self.pictures)
        numpy.save(root / "planes.npy", generator.uniform(-1, 1, (7, 3, 32, 32)).astype(numpy.float32))
        session = onnxruntime.InferenceSession(str(self.model), providers=["CPUExecutionProvider"])
        padded = numpy.concatenate([self.pictures, self.pictures[-1:]])
        rows = [session.run(None, {"input": padded[start : start + BATCH]})[0] for start in range(0, 8, BATCH)]
        self.reference = numpy.concatenate(rows)[:7]
        self.count = 0

    def request(self, precision: str = "fp32", *, input: Any = INPUT, batch: int = BATCH, **source: Any) -> dict[str, Any]:
        self.count += 1
        directory = self.root / f"out-{self.count}"
        directory.mkdir()
        standard = {"format": "onnx", "path": str(self.model), "architecture": None, "seed": None, "inputs": [], "outputs": []}
        return {
            "backend": "torch",
            "precision": precision,
            "batch": batch,
            "source": {**standard, **source},
            "input": input,
            "calibration": None,
            "output_directory": str(directory),
        }

    def convert(self, agent: AgentProcess, precision: str = "fp32", **more: Any) -> tuple[Path, dict[str, Any]]:
        request = self.request(precision, **more)
        result = agent.convert(request)
        return Path(request["output_directory"]) / result["model"], result

    def load(self, agent: AgentProcess, model: Path, precision: str = "fp32", **changes: Any) -> dict[str, Any]:
        arguments = {
            "backend": "torch",
            "precision": precision,
            "model": str(model),
            "threads": 1,
            "batch": BATCH,
            "input": INPUT,
        }
        return agent.load({**arguments, **changes})

    def predict(self, agent: AgentProcess, pictures: str = "pictures.npy") -> Any:
        agent.predict({"inputs": str(self.root / pictures), "outputs": str(self.root / "outputs.npy")})
        return numpy.load(self.root / "outputs.npy")


def _classifier(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = numpy.random.default_rng(1)
    weights = {
        "kernel": generator.normal(0, 0.4, (6, 3, 3, 3)).astype(numpy.float32),
        "bias": generator.normal(0, 0.1, (6,)).astype(numpy.float32),
        "dense": generator.normal(0, 1.5, (6, 5)).astype(numpy.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["features"], pads=[0, 0, 1, 1]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [BATCH, 8, 8, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [BATCH, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("torch"))


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(StageFailed) as caught:
        ask()
    outcome = caught.value.outcome
    assert "\n" not in outcome.message
    return outcome.kind, outcome.message


# From the checkpoint to figures


def test_convert_run_and_measure(workshop: Workshop) -> None:
    import torch

    with start(workshop.root) as agent:
        model, result = workshop.convert(agent)
    with start(workshop.root) as agent:  # as the plugin does: another process runs what one has converted
        loaded = workshop.load(agent, model)
        outputs = workshop.predict(agent)
        measured = agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": WARM_UP, "rounds": ROUNDS})
        block = agent.measure_block(3)
    assert numpy.ptp(workshop.reference, axis=0).max() > 0.02  # a model that answers alike to all would prove nothing
    numpy.testing.assert_allclose(outputs, workshop.reference, atol=1e-6)
    assert loaded["runtime"] == {"name": "torch", "version": torch.__version__}
    assert [(tensor["shape"], tensor["dtype"]) for tensor in loaded["inputs"] + loaded["outputs"]] == [
        ([BATCH, 8, 8, 3], "float32"),
        ([BATCH, 5], "float32"),
    ]
    assert len(measured["rounds"]) == 7 and min(measured["rounds"] + block) > 0
    assert measured["device_rounds"] is None  # a CPU has no clock of its own
    assert result["converter"]["torch"] == torch.__version__
    assert result["details"]["operations"]["conv2d"] == 1


def test_the_artifact_is_plain_data_and_needs_no_onnx(workshop: Workshop) -> None:
    with start(workshop.root) as agent:
        model, _ = workshop.convert(agent)
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.json", "weights.npz"]
    json.loads(model.read_text())
    with numpy.load(model.parent / "weights.npz", allow_pickle=False) as archive:
        assert {archive[name].dtype.name for name in archive.files} == {"float32"}
    hidden = workshop.root / "hidden"
    hidden.mkdir()
    for name in ("onnx", "onnxruntime", "torchvision"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError('hidden', name={name!r})\n")
    target = InterpreterTarget()
    environment = {**target.environment(), "PYTHONPATH": os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])}
    with AgentProcess(target.command, workshop.root / "bare.log", Limits(), environment=environment) as agent:
        workshop.load(agent, model)
        numpy.testing.assert_allclose(workshop.predict(agent), workshop.reference, atol=1e-6)
        kind, message = refusal(lambda: workshop.convert(agent))
    assert kind == "unsupported" and "onnx is not installed" in message


def test_the_number_of_threads_is_the_cases(workshop: Workshop) -> None:
    with start(workshop.root) as agent:
        model, _ = workshop.convert(agent)
        for threads in (1, 2):  # a second load in one process must not fail on what can be said once only
            workshop.load(agent, model, threads=threads)
            numpy.testing.assert_allclose(workshop.predict(agent), workshop.reference, atol=1e-6)


def test_the_digits_are_as_accurate_as_with_the_reference(tmp_path: Path) -> None:
    """A whole session on both digits models: real weights, all evaluation pictures, the card's own expectation."""
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tf2onnx") is None:
        pytest.skip("not installed: tensorflow and tf2onnx, which turn the checkpoints into ONNX")
    shutil.copytree(ROOT / "models" / "digits", tmp_path / "models" / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("digits_cnn", "digits_inverted_residual"):
        text = (ROOT / "models" / f"{name}.toml").read_text()
        text = text[: text.index("[backends]")] + '[backends]\ntorch = ["fp32"]\n'
        (tmp_path / "models" / f"{name}.toml").write_text(text)
    shutil.copy(ROOT / "tests" / "gate" / "test_accuracy.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cpu", "--gate-json=result.json", *_plugin()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {case["model"]: case for case in json.loads((tmp_path / "result.json").read_text())["cases"]}
    assert cases["digits_cnn"]["accuracy"]["top1"] == pytest.approx(590 / 597, abs=1e-4)
    assert cases["digits_inverted_residual"]["accuracy"]["top1"] == pytest.approx(592 / 597, abs=1e-4)


def _plugin() -> list[str]:
    """The option that loads the plugin where it is not installed, but on PYTHONPATH alone."""
    from importlib.metadata import entry_points

    return (
        []
        if any(entry.name == "inference_gate" for entry in entry_points(group="pytest11"))
        else ["-p", "pytest_inference_gate.plugin"]
    )


# torchvision


def test_a_seeded_architecture_answers_by_its_seed_and_tells_pictures_apart(workshop: Workshop, torchvision: None) -> None:
    outputs = []
    with start(workshop.root) as agent:
        for seed in (5, 5, 6):
            source = {"format": "seeded", "path": None, "architecture": MOBILENET, "seed": seed}
            model, result = workshop.convert(agent, input=PLANES, **source)
            workshop.load(agent, model, input=PLANES)
            outputs.append(workshop.predict(agent, "planes.npy"))
    assert result["converter"]["torchvision"]
    assert outputs[0].shape == (7, 7)
    numpy.testing.assert_array_equal(outputs[0], outputs[1])
    assert abs(outputs[0] - outputs[2]).max() > 0.1
    assert len(set(outputs[0].argmax(axis=1))) > 1
    assert outputs[0].std() > 1.0  # scores that are decided, so that a lower precision does not turn the classes at random


@pytest.fixture
def trained(workshop: Workshop, torchvision: None) -> Any:
    """A module with weights that nobody draws by chance, and what it answers."""
    import torch
    import torchvision as library

    torch.manual_seed(11)
    module = library.models.mobilenet_v2(**MOBILENET["arguments"]).eval()
    with torch.no_grad():
        planes = torch.from_numpy(numpy.load(workshop.root / "planes.npy"))
        return module, module(planes).numpy()


WAYS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda state: state,
    "in a training checkpoint": lambda state: {"epoch": 3, "state_dict": state, "best": 0.7},
    "of several GPUs": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    "without counters": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_state_dict_gives_its_own_predictions(workshop: Workshop, trained: Any, way: str) -> None:
    import torch

    module, expected = trained
    path = workshop.root / "weights.pth"
    torch.save(WAYS[way](module.state_dict()), path)
    with start(workshop.root) as agent:
        model, _ = workshop.convert(agent, input=PLANES, format="torch_weights", path=str(path), architecture=MOBILENET)
        workshop.load(agent, model, input=PLANES)
        numpy.testing.assert_allclose(workshop.predict(agent, "planes.npy"), expected, atol=1e-5)


def test_weights_of_another_architecture_are_refused(workshop: Workshop, trained: Any) -> None:
    import torch

    path = workshop.root / "other.pth"
    torch.save(trained[0].state_dict(), path)
    others = {
        "torchvision.models.resnet18": (["missing", "unknown"], {}),
        "torchvision.models.mobilenet_v2": (
            ["2 of another shape (classifier.1.weight, classifier.1.bias)"],
            {"num_classes": 9, "width_mult": 0.25},
        ),
    }
    with start(workshop.root) as agent:
        for function, (words, arguments) in others.items():
            architecture = {"function": function, "arguments": arguments}
            kind, message = refusal(
                lambda architecture=architecture: workshop.convert(
                    agent, input=PLANES, format="torch_weights", path=str(path), architecture=architecture
                )
            )
            assert kind == "build_error"
            assert all(word in message for word in [*words, function, "correct the architecture"]), message


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("torchvision.models.no_such_net", {}, "has no torchvision.models.no_such_net"),
        ("torchvision.models._api.get_model", {"name": "vgg11"}, "has no"),
        ("torchvision.models.resnet.load_state_dict_from_url", {"url": "http://localhost"}, "has no"),
        ("torchvision.models.list_models", {}, "makes no module"),
        ("torchvision.models.vgg11", {"pretrained": True}, "the weights come from the checkpoint"),
        ("torchvision.models.vgg11", {"no_such_argument": 1}, "cannot be made of the card's arguments"),
    ],
)
def test_architectures_that_are_none(
    workshop: Workshop, torchvision: None, function: str, arguments: dict[str, Any], words: str
) -> None:
    architecture = {"function": function, "arguments": arguments}
    with start(workshop.root) as agent:
        kind, message = refusal(
            lambda: workshop.convert(agent, input=PLANES, format="seeded", path=None, seed=1, architecture=architecture)
        )
    assert kind == "build_error" and words in message


# Files that must not be run


class _Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.filterwarnings("ignore")  # of torch, about old formats
def test_a_pickle_that_is_a_program_is_refused_and_does_not_run(tmp_path: Path) -> None:
    import pickle

    import torch

    from pytest_inference_gate.agent import torch_models
    from pytest_inference_gate.agent.failures import BuildError

    trace = tmp_path / "it-ran"
    torch.save({"weight": torch.ones(2), "extra": _Malicious(trace)}, tmp_path / "new.pth")
    torch.save({"weight": _Malicious(trace)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Malicious(trace)))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole_model.pth")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "script.pt")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("new.pth", "old.pth", "bare.pth", "whole_model.pth", "script.pt", "empty.pth"):
        with pytest.raises(BuildError) as caught:
            torch_models.state_dict(torch, str(tmp_path / name))
        assert name in str(caught.value) and "torch.save(model.state_dict()" in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, str(caught.value)
    assert not trace.exists()
    pickle.loads((tmp_path / "bare.pth").read_bytes())
    assert trace.exists()  # it would have run


def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path) -> None:
    import torch

    from pytest_inference_gate.agent import torch_models
    from pytest_inference_gate.agent.failures import BuildError

    for number, content in enumerate(([torch.ones(2)], {}, {"epoch": 3}, torch.ones(3))):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(BuildError, match="holds no state dict"):
            torch_models.state_dict(torch, str(tmp_path / f"{number}.pth"))


# What is refused


def test_what_cannot_be_converted_or_run(workshop: Workshop) -> None:
    with start(workshop.root) as agent:
        model, _ = workshop.convert(agent)
        kind, message = refusal(lambda: workshop.load(agent, model, "fp16"))
        assert kind == "unsupported" and "fp16 is for the device cuda" in message
        kind, message = refusal(lambda: workshop.load(agent, model, batch=3))
        assert kind == "load_error" and "batch of 2, not 3" in message
        kind, message = refusal(lambda: workshop.convert(agent, format="torch_weights", path="w.pth"))
        assert kind == "build_error" and "needs an architecture" in message
        kind, message = refusal(lambda: workshop.convert(agent, "int8"))
        assert kind == "unsupported" and "no precision 'int8'" in message
        kind, message = refusal(lambda: workshop.convert(agent, batch=4))
        assert kind == "build_error" and "[2, 8, 8, 3]" in message
        (model.parent / "weights.npz").write_bytes(b"PK\x03\x04 and no more")
        kind, message = refusal(lambda: workshop.load(agent, model))
        assert kind == "load_error" and "convert the case again" in message
        model.write_text(json.dumps({"schema": "something/9"}))
        kind, message = refusal(lambda: workshop.load(agent, model))
        assert kind == "load_error" and "is not of the schema" in message


def test_without_a_cuda_device_the_reason_is_told(workshop: Workshop) -> None:
    if not no_cuda():
        pytest.skip("there is a CUDA device")
    with start(workshop.root) as agent:
        model, _ = workshop.convert(agent)
        kind, message = refusal(lambda: workshop.load(agent, model, device="cuda"))
    assert kind in ("load_error", "unsupported")
    assert "CPU alone" in message or "CUDA" in message


# With a GPU


@pytest.mark.parametrize(("precision", "closeness"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_a_cuda_device_answers_like_the_reference_and_has_a_clock_of_its_own(
    workshop: Workshop, cuda: None, precision: str, closeness: float
) -> None:
    with start(workshop.root) as agent:
        model, _ = workshop.convert(agent, precision)
        loaded = workshop.load(agent, model, precision, device="cuda")
        difference = abs(workshop.predict(agent) - workshop.reference).max()
        measured = agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": WARM_UP, "rounds": ROUNDS})
    assert difference <= closeness
    assert (difference > 1e-6) == (precision == "fp16")  # a lower precision that changes nothing was not applied
    assert loaded["inputs"][0]["dtype"] == {"fp32": "float32", "fp16": "float16"}[precision]
    assert len(measured["device_rounds"]) == 7 and min(measured["device_rounds"]) > 0
    assert numpy.median(measured["device_rounds"]) < 3 * numpy.median(measured["rounds"])


def test_more_than_the_memory_of_the_gpu_is_told_as_such(cuda: None) -> None:
    said = says(
        "import torch\n"
        "from pytest_inference_gate.agent import torch_device\n"
        "device = torch_device.use(torch, 'cuda', 1)\n"
        "try:\n"
        "    with torch_device.explained(): torch.empty(2**44, device=device)\n"
        "except Exception as error: print(error.kind, error)\n"
    )
    assert said.startswith("oom the memory of the GPU was not enough (") and "choose a smaller batch" in said
