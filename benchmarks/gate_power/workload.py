"""The models of the proof, prepared as a run of the gate prepares them: converted through the store, with their pictures preprocessed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pytest_inference_gate.agent_process import Limits
from pytest_inference_gate.agent_role import AgentRole, RunningAgents
from pytest_inference_gate.artifacts import ArtifactStore
from pytest_inference_gate.cards import load_cards
from pytest_inference_gate.cases import Case
from pytest_inference_gate.evaluation_inputs import prepare_inputs
from pytest_inference_gate.matrix import build_cases, embedded_models
from pytest_inference_gate.options import Settings
from pytest_inference_gate.paired_measuring import Side
from pytest_inference_gate.preparation import Preparation
from pytest_inference_gate.targets.interpreter import InterpreterTarget
from pytest_inference_gate.zoo import fetch_checkpoint

HERE = Path(__file__).resolve().parent

# Loads a Keras model and writes it again with one more convolution behind its first one.
_ONE_MORE_LAYER = """
import sys
import keras
source, target = sys.argv[1:]
model = keras.saving.load_model(source)
layers, added = [], False
for layer in model.layers:
    layers.append(layer)
    if isinstance(layer, keras.layers.Conv2D) and not added and len(layers) > 3:
        layers.append(keras.layers.Conv2D(layer.filters, 3, padding="same", use_bias=False, name="one_more"))
        added = True
assert added, "the model has no convolution to put another one behind"
tensor = inputs = keras.Input(model.input_shape[1:])
for layer in layers:
    if not isinstance(layer, keras.layers.InputLayer):
        tensor = layer(tensor)
keras.Model(inputs, tensor).save(target)
"""


@dataclass(frozen=True)
class Workload:
    """``sides`` holds what can be run, by a short name; each runs through the backend that can slow it down."""

    sides: dict[str, Side]
    versions: dict[str, str]


def prepare(directory: Path, store: Path, control: Path, progress: Callable[[str], None]) -> Workload:
    """Convert whatever is not in the store yet. ``control`` is the file that the slowed backend reads."""
    running, logs = RunningAgents(), directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    role = AgentRole(InterpreterTarget(sys.executable), Limits(), logs, running)
    role.ask("converter")
    kept = ArtifactStore(store, notice=progress)
    settings = cast(Settings, SimpleNamespace(mirror=None, offline=True))
    preparation = Preparation(
        kept,
        role,
        lambda card: fetch_checkpoint(card, store_root=kept.root, lock_file=None, offline=True),
        lambda card, purpose: prepare_inputs(kept, card, purpose, {}, settings, logs, progress),
        progress,
    )
    cards = directory / "cards"
    _write_longer_model(embedded_models(), cards, progress)
    cases = {case.id: case for case in _cases(embedded_models()) + _cases(cards)}

    def side(case: Case, threads: int = 1) -> Side:
        slowed = AgentRole(_SlowedTarget(case.backend, control), Limits(), logs, running, {"backends": {}})
        return Side(
            slowed,
            replace(case, backend="slowed", threads=threads),
            preparation.artifact(case, role),
            preparation.evaluation_inputs(case.card),
        )

    sides = {
        "mobilenet_v2_224 int8, LiteRT": side(cases["mobilenet_v2_224_seeded-tflite-int8-b1-t1"]),
        "mobilenet_v2_224 int8, LiteRT, 2 threads": side(cases["mobilenet_v2_224_seeded-tflite-int8-b1-t1"], threads=2),
        "mobilenet_v2_224 fp32, LiteRT": side(cases["mobilenet_v2_224_seeded-tflite-fp32-b1-t1"]),
        "digits_cnn fp32, LiteRT": side(cases["digits_cnn-tflite-fp32-b1-t1"]),
        "digits_cnn fp32, LiteRT, one more layer": side(cases["digits_cnn_longer-tflite-fp32-b1-t1"]),
        "digits_inverted_residual fp32, ONNX Runtime": side(cases["digits_inverted_residual-onnxruntime-fp32-b1-t1"]),
    }
    packages: dict[str, str] = role.probe["packages"]
    names = ("tensorflow", "ai-edge-litert", "onnxruntime", "numpy")
    return Workload(sides, {name: packages[name] for name in names if name in packages})


class _SlowedTarget(InterpreterTarget):
    """Agents whose backend is the one that adds work."""

    def __init__(self, backend: str, control: Path) -> None:
        super().__init__(sys.executable, {"slowed": HERE / "slowed_backend.py"})
        self._variables = {"GATE_POWER_BACKEND": backend, "GATE_POWER_CONTROL": str(control)}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self._variables}


def _cases(folder: Path) -> Sequence[Case]:
    return build_cases(load_cards(folder), select=["*"])


def _write_longer_model(models: Path, cards: Path, progress: Callable[[str], None]) -> None:
    cards.mkdir(parents=True, exist_ok=True)
    target = cards / "digits_cnn_longer.keras"
    source = models / "digits" / "digits_cnn.keras"
    if not target.exists():
        progress("writing digits_cnn with one more layer")
        subprocess.run([sys.executable, "-c", _ONE_MORE_LAYER, str(source), str(target)], check=True, stderr=subprocess.DEVNULL)
    card = (models / "digits_cnn.toml").read_text()
    replacements: dict[str, Any] = {
        'name = "digits_cnn"': 'name = "digits_cnn_longer"',
        hashlib.sha256(source.read_bytes()).hexdigest(): hashlib.sha256(target.read_bytes()).hexdigest(),
        'file = "digits/digits_cnn.keras"': f'file = "{target}"',
        'file = "digits/': f'file = "{models}/digits/',
    }
    for old, new in replacements.items():
        card = card.replace(old, new)
    (cards / "digits_cnn_longer.toml").write_text(card)
