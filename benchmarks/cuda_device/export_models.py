"""Write embedded models as ONNX files with cards, for a machine with a GPU and without TensorFlow.

    python benchmarks/cuda_device/export_models.py [FOLDER] [--models digits_cnn ...]

Needs what the extras ``tensorflow`` and ``onnx`` bring. FOLDER (default: benchmarks/cuda_device/models, which git ignores) gets one card
and one .onnx file for each model, and the pictures that the cards name: some megabytes. Carry it to the machine, and run there

    pytest -m cuda --gate-models=FOLDER --gate-select='*' --benchmark-save=first
    pytest -m cuda --gate-models=FOLDER --gate-select='*' --benchmark-compare

The cards have the backends torch (on the CPU and on CUDA) and onnxruntime, whose fp32 is the reference of all others.
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
        shutil.copyfile(Path(scratch) / result["model"], place / "model.onnx")
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
