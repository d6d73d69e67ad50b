"""Which kind of model a file is, and what of its description becomes of use for a card."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate.agent.describe import model_names, scaling_layers
from pytest_inference_gate.agent.torch_architectures import by_likeness, fitting_classes
from pytest_inference_gate.own_model import InitError
from pytest_inference_gate.own_model.described_model import DescribedModel, understand
from pytest_inference_gate.own_model.model_file import ModelFile, recognise


def archive(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name in names:
            made.writestr(name, b"")
    return stream.getvalue()


HDF5 = b"\x89HDF\r\n\x1a\n and more"


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("m.keras", archive("config.json", "metadata.json", "model.weights.h5"), "keras"),
        ("m.h5", HDF5, "keras"),
        ("named_anything", b"\x1c\0\0\0TFL3 and more", "tflite"),
        ("m.onnx", b"\x08\x0a\x12\x07pytorch", "onnx"),
        ("m.pt", archive("archive/data.pkl", "archive/data/0"), "torch_weights"),
        ("m.pth", b"\x80\x02\x8a\nl\xfc", "torch_weights"),  # as releases before 1.6 wrote them
    ],
)
def test_the_content_tells_the_format(tmp_path: Path, name: str, content: bytes, format: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert recognise(tmp_path / name).format == format


def test_a_folder_with_a_graph_is_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "exported" / "1").mkdir(parents=True)
    (tmp_path / "exported" / "1" / "saved_model.pb").write_bytes(b"")
    assert recognise(tmp_path / "exported" / "1").format == "saved_model"
    with pytest.raises(InitError, match="exported/1 does"):
        recognise(tmp_path / "exported")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.keras", b"", "is empty"),
        ("m.bin", b"something", "no model that is known here: name a .keras"),
        ("m.weights.h5", HDF5, "weights without their architecture: save the whole model with model.save"),
        ("m.keras", archive("model.weights.h5"), "weights without their architecture"),
        ("m.pt", archive("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), "TorchScript program.*state_dict"),
        ("m.pb", b"\x0a\x10", "frozen_graph"),
        ("m.zip", archive("1/saved_model.pb"), "unpack it"),
        ("m.zip", archive("readme"), "no model that is known here"),
        ("m.keras", archive("config.json")[:-20], "cut or damaged"),
    ],
)
def test_what_cannot_become_a_card_is_refused_with_what_to_do(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InitError, match=sentence):
        recognise(tmp_path / name)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InitError, match="there is no model at"):
        recognise(tmp_path / "m.keras")


# What it says of itself


def tensor(*shape: int | None, dtype: str = "float32", scale: float | None = None, name: str = "x") -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype, "scale": scale, "zero_point": None if scale is None else 0}


def understood(
    one: dict[str, Any], *outputs: dict[str, Any], shape: tuple[int, ...] | None = None, **more: Any
) -> DescribedModel:
    description = {"inputs": [one], "outputs": list(outputs) or [tensor(None, 10)], **more}
    return understand(ModelFile(Path("m.tflite"), "tflite"), description, shape)


def test_sizes_layout_and_classes() -> None:
    last = understood(tensor(None, 224, 192, 3))
    given = last.input
    assert (given.height, given.width, given.channels, given.layout, last.batch, last.classes) == (224, 192, 3, "nhwc", None, 10)
    first = understood(tensor(8, 1, 28, 30), tensor(8, 5))
    given = first.input
    assert (given.height, given.width, given.channels, given.layout, first.batch, first.classes) == (28, 30, 1, "nchw", 8, 5)


def test_outputs_of_one_pixel_are_classes() -> None:
    assert understood(tensor(1, 8, 8, 3), tensor(1, 1, 1, 1001)).classes == 1001


@pytest.mark.parametrize(
    ("dtype", "scale", "told"),
    [("float16", None, "float32"), ("int8", 0.004, "float32"), ("uint8", 1.0, "float32"), ("uint8", None, "uint8")],
)
def test_what_is_quantized_takes_real_numbers(dtype: str, scale: float | None, told: str) -> None:
    assert understood(tensor(1, 8, 8, 3, dtype=dtype, scale=scale)).input.dtype == told


def test_open_sizes_are_asked_for_and_filled_in() -> None:
    with pytest.raises(InitError, match="--shape 224,224,3"):
        understood(tensor(None, None, None, 3))
    with pytest.raises(InitError, match="--shape 3,224,224"):
        understood(tensor(None, 3, None, None))
    assert understood(tensor(None, None, None, 3), shape=(64, 48, 3)).input.shape == (64, 48, 3)
    unknown = {"name": "x", "shape": None, "dtype": "float32", "scale": None}
    assert understood(unknown, shape=(64, 48, 3)).input.width == 48
    with pytest.raises(InitError, match="--shape says 4 where m.tflite has 3"):
        understood(tensor(None, None, None, 3), shape=(64, 48, 4))


@pytest.mark.parametrize(
    ("one", "output", "sentence"),
    [
        (tensor(None, 784), tensor(None, 10), "no batch of pictures"),
        (tensor(None, 8, 8, 4), tensor(None, 10), "neither end is 1 or 3 channels"),
        (tensor(None, 8, 8, 3, dtype="int64"), tensor(None, 10), "type int64"),
        (tensor(None, 8, 8, 3), tensor(None, 1), "one number a picture"),
        (tensor(None, 8, 8, 3), tensor(None, 8, 8, 21), "one number a class"),
        (tensor(None, 8, 8, 3), tensor(None, None), "one number a class"),
        (tensor(None, 8, 8, 3), {"name": "y", "shape": None, "dtype": "float32"}, "an unknown shape"),
    ],
)
def test_what_is_no_classifier_of_pictures_is_told(one: dict[str, Any], output: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InitError, match=sentence):
        understood(one, output)


def test_several_ends_are_listed() -> None:
    with pytest.raises(InitError, match=r"2 outputs \(boxes, scores\).*gate-a-detection-model"):
        understood(tensor(1, 8, 8, 3), tensor(1, 10, 4, name="boxes"), tensor(1, 10, name="scores"))
    inputs = {"inputs": [tensor(1, 8, 8, 3, name="a"), tensor(1, 4, name="b")], "outputs": [tensor(1, 10)]}
    with pytest.raises(InitError, match=r"2 inputs \(a, b\)"):
        understand(ModelFile(Path("m.onnx"), "onnx"), inputs)


def test_scaling_layers_and_names_of_nested_keras_models() -> None:
    inner = {
        "class_name": "Functional",
        "config": {"name": "mobilenetv2", "layers": [{"class_name": "Rescaling", "config": {"scale": 2.0}}]},
    }
    configuration = {
        "class_name": "Sequential",
        "config": {"name": "mine", "layers": [{"class_name": "Rescaling", "config": {"scale": 1 / 255, "offset": 0}}, inner]},
    }
    assert scaling_layers(configuration) == ["Rescaling(scale = 0.00392157, offset = 0)", "Rescaling(scale = 2)"]
    assert model_names(configuration) == ["mine", "mobilenetv2"]


# State dicts


def test_the_last_layer_tells_the_number_of_classes() -> None:
    wanted = {"conv": (8, 3, 3, 3), "fc.weight": (1000, 8), "fc.bias": (1000,), "bn.num_batches_tracked": ()}
    found = {"conv": (8, 3, 3, 3), "fc.weight": (7, 8), "fc.bias": (7,)}
    assert fitting_classes(wanted, found) == 7
    assert fitting_classes(wanted, wanted) == 1000
    assert fitting_classes(wanted, {**found, "fc.bias": (6,)}) is None
    assert fitting_classes(wanted, {**found, "conv": (9, 3, 3, 3)}) is None
    assert fitting_classes(wanted, {**found, "more": (1,)}) is None


def test_architectures_that_the_file_is_named_after_come_first() -> None:
    names = ["alexnet", "resnet101", "resnet18", "wide_resnet101_2"]
    assert by_likeness(names, "Wide-ResNet101_2-flowers.pth")[:2] == ["wide_resnet101_2", "resnet101"]
    assert by_likeness(names, "weights.pth") == names
