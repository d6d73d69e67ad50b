"""The preprocessing of the cards of ResNet50 and MobileNetV2, against what keras.applications and torchvision do with a picture."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from pytest_inference_gate.cards import load_card
from pytest_inference_gate.preprocessing import preprocess

CARDS = Path(__file__).parents[2] / "models" / "resnet50"
KERAS = """
import sys, keras, numpy
for name in ("resnet50", "mobilenet_v2"):
    module = getattr(keras.applications, name)
    found = [module.preprocess_input(keras.utils.img_to_array(keras.utils.load_img(path, target_size=(224, 224))))
             for path in sys.argv[1:]]
    numpy.save(name + "_keras.npy", numpy.stack(found))
"""
TORCHVISION = """
import sys, numpy, torchvision
from PIL import Image
weights = {"resnet50": torchvision.models.ResNet50_Weights, "mobilenet_v2": torchvision.models.MobileNet_V2_Weights}
for name, published in weights.items():
    transforms = published.IMAGENET1K_V1.transforms()
    numpy.save(name + "_torchvision.npy", numpy.stack([transforms(Image.open(path)).numpy() for path in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wider than high, higher than wide, square, smaller than the input: smooth, with edges."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    generator = numpy.random.default_rng(4)
    paths = []
    for number, (height, width) in enumerate([(333, 500), (400, 300), (224, 224), (150, 190)]):
        coarse = Image.fromarray(generator.integers(0, 256, (9, 11, 3), dtype=numpy.uint8))
        picture = numpy.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
        picture[height // 4 : height // 3, width // 5 : width // 2] = (255, 0, 17)
        paths.append(folder / f"{number}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def published(program: str, pictures: list[Path]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, pictures)]
    subprocess.run(command, cwd=pictures[0].parent, check=True, capture_output=True)


def of_card(name: str, pictures: list[Path]) -> Any:
    from PIL import Image

    return preprocess([numpy.asarray(Image.open(path)) for path in pictures], load_card(CARDS / f"{name}.toml"))


def test_the_cards_of_keras_do_what_keras_does(pictures: list[Path]) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("not installed: TensorFlow")
    published(KERAS, pictures)
    for name in ("resnet50", "mobilenet_v2"):
        expected = numpy.load(pictures[0].parent / f"{name}_keras.npy")
        numpy.testing.assert_allclose(of_card(f"{name}_keras", pictures), expected, atol=1e-4)


def test_the_cards_of_torchvision_do_what_torchvision_does(pictures: list[Path]) -> None:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("not installed: torchvision")
    published(TORCHVISION, pictures)
    for name in ("resnet50", "mobilenet_v2"):
        expected = numpy.load(pictures[0].parent / f"{name}_torchvision.npy")
        numpy.testing.assert_allclose(of_card(f"{name}_torchvision", pictures), expected, atol=1e-5)


def test_they_differ_in_what_they_see_and_agree_in_what_a_pixel_means(pictures: list[Path]) -> None:
    mean, deviation = numpy.array([0.485, 0.456, 0.406]), numpy.array([0.229, 0.224, 0.225])
    blue_green_red = numpy.array([103.939, 116.779, 123.68])

    def back(keras: Any, torchvision: Any) -> tuple[Any, Any]:
        """Both as pictures of red, green, blue from 0 to 255 again."""
        return (keras + blue_green_red)[..., ::-1], (torchvision.transpose(0, 2, 3, 1) * deviation + mean) * 255

    one, other = back(of_card("resnet50_keras", pictures), of_card("resnet50_torchvision", pictures))
    difference = numpy.abs(one - other).mean(axis=(1, 2, 3))
    assert (difference > 3).all()  # squeezed whole, or the middle of it: of square pictures too
    seeded = load_card(CARDS / "resnet50_seeded.toml"), load_card(CARDS / "resnet50_torchvision_seeded.toml")
    plain = [numpy.full((300, 400, 3), (200, 10, 77), numpy.uint8)]
    one, other = back(*(preprocess(plain, card) for card in seeded))
    numpy.testing.assert_allclose(one, other, atol=1e-3)  # where there is nothing to see they tell the same
    same = preprocess(plain, seeded[0])[0, 0, 0], preprocess(plain, seeded[1])[0, :, 0, 0]
    assert numpy.abs(same[0] - same[1]).max() > 40  # but not in the same numbers
