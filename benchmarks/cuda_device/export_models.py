"""Write embedded models as ONNX files with cards, for a machine with a GPU and without TensorFlow.

    python benchmarks/cuda_device/export_models.py [FOLDER] [--models digits_cnn ...]

Needs what the extras ``tensorflow`` and ``onnx`` bring. FOLDER (default: benchmarks/cuda_device/models, which git ignores) gets one card
and one .onnx file for each model, and the pictures that the cards name: some megabytes. Carry it to the machine, and run there

    pytest -m cuda --gate-models=FOLDER --gate-select='*' --benchmark-save=first
    pytest -m cuda --gate-models=FOLDER --gate-select='*' --benchmark-compare

The graphs take any batch (``--gate-batches=1,32``). The cards have the backends torch (on the CPU and on CUDA) and onnxruntime, whose
fp32 is the reference of all others.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

try:
    import pytest_inference_gate  # noqa: F401
except ImportError:  # run from a clone, uninstalled
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "plugins"))

from pytest_inference_gate.agent_process import AgentProcess, Limits
from pytest_inference_gate.archives import file_digest
from pytest_inference_gate.cards import ModelCard, load_card
from pytest_inference_gate.targets.interpreter import InterpreterTarget

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = ("digits_cnn", "digits_inverted_residual", "mobilenet_v2_224_seeded")
REST = r"(?:(?!\[).*\n?)*"  # of a table of TOML
BACKENDS = """\
onnxruntime = ["fp32"]
torch = ["fp32", "fp16"]

[devices]
torch = ["cpu", "cuda"]
"""


def export(card: ModelCard, folder: Path) -> None:
    """Write ``NAME.toml``, ``NAME/model.onnx`` and the pictures into ``folder``."""
    place = folder / card.name
    place.mkdir(parents=True, exist_ok=True)
    checkpoint = card.checkpoint
    with tempfile.TemporaryDirectory() as scratch:
        target = InterpreterTarget(sys.executable)
        with AgentProcess(target.command, Path(scratch) / "agent.log", Limits(), environment=target.environment()) as agent:
            result = agent.convert(
                {
                    "backend": "onnxruntime",
                    "precision": "fp32",
                    "batch": 1,
                    "source": {
                        "format": checkpoint.format,
                        "path": str(card.directory / checkpoint.file) if checkpoint.file else None,
                        "architecture": checkpoint.architecture.model_dump() if checkpoint.architecture else None,
                        "seed": checkpoint.seed,
                        "inputs": checkpoint.inputs,
                        "outputs": checkpoint.outputs,
                    },
                    "input": {"shape": list(card.input.shape), "dtype": card.input.dtype, "layout": card.input.layout},
                    "calibration": None,
                    "output_directory": scratch,
                }
            )
        open_batch(Path(scratch) / result["model"], place / "model.onnx")
    text = card.path.read_text(encoding="utf-8")
    digest = file_digest(place / "model.onnx")
    text = re.sub(rf"^\[(devices|options\.\w+|coverage\.\w+)\]\n{REST}", "", text, flags=re.MULTILINE)
    text = with_section(text, "checkpoint", f'format = "onnx"\nfile = "{card.name}/model.onnx"\nsha256 = "{digest}"\n')
    text = with_section(text, "backends", BACKENDS)
    for data in (card.evaluation, card.calibration):
        if data is not None and data.file is not None:
            (folder / data.file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(card.directory / data.file, folder / data.file)
    path = folder / f"{card.name}.toml"
    path.write_text(text, encoding="utf-8")
    load_card(path)  # raises where the card is not one
    print(f"{path}: {(place / 'model.onnx').stat().st_size / 1e6:.1f} MB, {result['seconds']:.0f} s")


def open_batch(source: Path, destination: Path) -> None:
    """The graph for any batch, which TensorFlow's was converted with one: a GPU at batch 1 says little about a GPU."""
    import numpy
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = onnx.load(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    for node in model.graph.node:
        if node.op_type == "Reshape":
            target = numpy_helper.to_array(weights[node.input[1]]).copy()
            target[0] = 0  # as it is
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(target, node.input[1]))
    onnx.save(model, destination)
    # What was not meant to be the batch would give another answer.
    old, new = (onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (source, destination))
    (tensor,) = old.get_inputs()
    pictures = numpy.random.default_rng(1).uniform(0, 1, (3, *tensor.shape[1:])).astype(numpy.float32)
    one_by_one = numpy.concatenate([old.run(None, {tensor.name: pictures[i : i + 1]})[0] for i in range(3)])
    numpy.testing.assert_allclose(new.run(None, {tensor.name: pictures})[0], one_by_one, rtol=1e-4, atol=1e-5)


def with_section(text: str, name: str, content: str) -> str:
    """The TOML ``text`` with the table ``name``, up to the next one, replaced."""
    pattern = rf"^\[{re.escape(name)}\]\n{REST}"
    if len(re.findall(pattern, text, flags=re.MULTILINE)) != 1:
        raise SystemExit(f"expected one table [{name}] in the card")
    return re.sub(pattern, lambda _: f"[{name}]\n{content}\n", text, flags=re.MULTILINE).rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "models")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    options = parser.parse_args()
    for name in options.models:
        export(load_card(ROOT / "models" / f"{name}.toml"), options.folder)


if __name__ == "__main__":
    main()
