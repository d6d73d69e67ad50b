"""The recipe of the flowers with a small archive, from a server on loopback, and a small network: all but ImageNet's weights."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_zoo import Server, server  # noqa: F401

from pytest_inference_gate.cards import load_card
from pytest_inference_gate.datasets import check_disjoint, load_images
from pytest_inference_gate.zoo import fetch_checkpoint

RECIPE = Path(__file__).parent.parent.parent / "models" / "tf_flowers" / "fine_tune.py"
FLOWERS = ("daisy", "roses", "tulips")
# The recipe with its small network for smaller pictures. Then one of keras.applications is built, and both phases that it would go through
# are gone through by a network that has a normalization too: all in one process, since TensorFlow takes longer to import than to do it.
SMALL = f"""
import sys
sys.path.insert(0, {str(RECIPE.parent)!r})
import fine_tune
fine_tune.NETWORKS["flowers_small"] = fine_tune.Network("A small CNN", 16, "zero_to_one", None)
if fine_tune.main(sys.argv[1:]):
    sys.exit(1)

import keras, numpy
from keras import layers
narrow = fine_tune.Network("A narrow MobileNet", 32, "minus_one_to_one", "MobileNet", {{"alpha": 0.25}}).build(3, None)
assert narrow.input_shape == (None, 32, 32, 3) and narrow.output_shape == (None, 3)
random = numpy.random.default_rng(0)
labels = numpy.arange(40) % 2
pictures = (random.random((40, 4, 4, 3)) + labels[:, None, None, None]).astype("float32")
dense, normalization, last = layers.Dense(4), layers.BatchNormalization(), layers.Dense(2, "softmax")
model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), dense, normalization, last])
before = [layer.get_weights() for layer in (dense, normalization, last)]
seen = []
fit = model.fit
def watched(*arguments, **options):
    seen.append([layer.trainable for layer in (dense, normalization, last)])
    return fit(*arguments, **options)
model.fit = watched
fine_tune.train(model, (pictures, labels), (pictures, labels), [2, 1], 0, at_once=False)
assert seen == [[False, False, True], [True, False, True]], seen
assert all((old == new).all() for old, new in zip(before[1], normalization.get_weights())), "the statistics changed"
assert (before[2][0] != last.get_weights()[0]).any()
"""


def archive() -> bytes:
    """Twenty small photos of each flower, one of them twice, and the licence that the real archive has."""
    random = np.random.default_rng(1)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"flower_photos/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        add("LICENSE.txt", b"CC-BY")
        for index, flower in enumerate(FLOWERS):
            for number in range(20):
                colour = np.full((40, 48, 3), 30, np.uint8)
                colour[..., index] = 200
                picture = io.BytesIO()
                Image.fromarray(colour + random.integers(0, 30, colour.shape, dtype=np.uint8)).save(picture, "JPEG")
                add(f"{flower}/{number:03}.jpg", picture.getvalue())
                if number == 7:
                    add(f"{flower}/{number:03}_again.jpg", picture.getvalue())
    return buffer.getvalue()


def run(server: Server, folder: Path, content: bytes, sha256: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    url = server.serve("/flower_photos.tgz", lambda request: request.body(content))
    options = [
        f"--archive-url={url}",
        f"--archive-sha256={sha256}",
        f"--output={folder / 'out'}",
        f"--downloads={folder / 'downloads'}",
    ]
    command = [sys.executable, "-c", SMALL, "--network=flowers_small", "--weights=none", "--epochs", "1", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_from_the_archive_to_a_card(server: Server, tmp_path: Path) -> None:  # noqa: F811
    content = archive()
    done = run(server, tmp_path, content, hashlib.sha256(content).hexdigest())
    assert done.returncode == 0, done.stderr
    card = load_card(tmp_path / "out" / "flowers_small.toml")
    assert card.evaluation is not None and card.calibration is not None and card.evaluation.top1 is not None
    assert card.labels.count == 3 and card.threads == [1, 2, 3, 4] and not card.default
    fetched = fetch_checkpoint(card, store_root=tmp_path / "store", lock_file=None)
    assert fetched.path == tmp_path / "out" / "flowers_small.keras"  # with the digest that the card has

    sets = {"evaluation": load_images(card.evaluation, card), "calibration": load_images(card.calibration, card)}
    assert {name: len(found) for name, found in sets.items()} == {"evaluation": 6, "calibration": 48}
    check_disjoint(sets["evaluation"], sets["calibration"], card)
    assert sets["evaluation"].labels is not None and sorted(sets["evaluation"].labels) == [0, 0, 1, 1, 2, 2]
    with (tmp_path / "out" / "calibration.csv").open() as stream:
        assert len({row["file"] for row in csv.DictReader(stream)}) == 48
    assert f"top-1 {card.evaluation.top1:.4f}" in done.stdout
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"no archive", "is no archive with a folder flower_photos"), (None, "sha256")],
)
def test_what_is_wrong_with_the_archive_is_one_sentence(
    server: Server,  # noqa: F811
    tmp_path: Path,
    content: bytes | None,
    sentence: str,
) -> None:
    sha256 = "0" * 64 if content is None else hashlib.sha256(content).hexdigest()
    done = run(server, tmp_path, content or b"another one", sha256)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fine_tune.py: ")]
    assert sentence in line
    assert "Traceback" not in done.stderr
