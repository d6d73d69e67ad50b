"""Fine-tunes networks on tf_flowers, and writes a model card for each: ``python models/tf_flowers/fine_tune.py``, see ``--help``.

The pictures come from their publisher, with a digest: 3,670 photos of five flowers. They are divided by a seed into training, validation
and evaluation pictures, 8 : 1 : 1 of each flower; what occurs twice is taken once, so that no picture is on two sides. The networks
of keras.applications begin with their ImageNet weights, which Keras fetches: at first the new last layer learns alone, then all of the
network but its batch normalizations. Whichever epoch was best on the validation pictures is kept; the evaluation pictures are
asked about once, by the finished model, and that is the ``top1`` of its card.

For each network it leaves ``NAME.keras`` and ``NAME.toml``, and for all of them the folder ``pictures`` with the evaluation pictures and
200 training pictures for calibration. All of it lies beside this file unless ``--output`` says otherwise, and is not meant to be committed:

    pytest -m cpu --gate-models=models/tf_flowers --gate-select='flowers_*-tflite-*' --gate-table=grid
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pytest_inference_gate.artifacts import default_store_root
from pytest_inference_gate.cards import DataSource, ModelCard, load_card
from pytest_inference_gate.datasets import load_images
from pytest_inference_gate.errors import GateError
from pytest_inference_gate.preprocessing import preprocess
from pytest_inference_gate.zoo import FetchedData, fetch_data

HERE = Path(__file__).parent
ARCHIVE_URL = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
ARCHIVE_SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"  # as tensorflow_datasets has it
PICTURES = "flower_photos"  # the folder in the archive, with one folder for each flower
CALIBRATION_PICTURES = 200
BATCH = 32
FIRST_RATE, SECOND_RATE = 1e-3, 1e-5  # of Adam: the last layer alone, all of the network

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Network:
    """``function`` is one of keras.applications, ``None`` for the small network of this file, which begins untrained."""

    title: str
    side: int
    scaling: str
    function: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    license: str = "Apache-2.0"

    def build(self, classes: int, weights: str | None) -> Any:
        """The network for (``side``, ``side``, 3), with a softmax over the classes as its last layer."""
        import keras
        from keras import layers

        inputs = keras.Input((self.side, self.side, 3), name="picture")
        if self.function is None:
            x = inputs
            for filters in (32, 64, 128):
                x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
                x = layers.MaxPooling2D()(x)
            x = layers.Dense(1024, activation="relu")(layers.Flatten()(x))
        else:
            make = getattr(keras.applications, self.function)
            x = make(include_top=False, pooling="avg", weights=weights, input_tensor=inputs, **self.arguments).output
        return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="flower")(layers.Dropout(0.2)(x)))


NETWORKS = {
    "flowers_cnn": Network("A small CNN", 112, "zero_to_one", None, license="MIT"),
    "flowers_mobilenet_v2": Network("MobileNetV2, width 1.0", 224, "minus_one_to_one", "MobileNetV2"),
    "flowers_inception_v3": Network("Inception v3", 299, "minus_one_to_one", "InceptionV3"),
    "flowers_densenet121": Network("DenseNet121", 224, "imagenet_mean_std", "DenseNet121", license="BSD-3-Clause"),
}


# ---------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Split:
    """Paths relative to the folder of the pictures, with the index of their flower."""

    training: list[tuple[str, int]]
    validation: list[tuple[str, int]]
    evaluation: list[tuple[str, int]]

    @property
    def calibration(self) -> list[tuple[str, int]]:
        """Training pictures of all flowers in turn."""
        by_flower: dict[int, list[tuple[str, int]]] = {}
        for row in self.training:
            by_flower.setdefault(row[1], []).append(row)
        turns = [rows[turn] for turn in range(CALIBRATION_PICTURES) for rows in by_flower.values() if turn < len(rows)]
        return turns[:CALIBRATION_PICTURES]


def find_flowers(folder: Path) -> list[str]:
    """The names of the folders with pictures, in alphabetical order: the classes."""
    flowers = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.jpg")))
    if len(flowers) < 2:
        raise GateError(
            f"{folder} holds pictures of {len(flowers)} flowers, expected one folder with .jpg files for each of two or more."
        )
    return flowers


def split_pictures(folder: Path, flowers: Sequence[str], seed: int) -> Split:
    """The same for the same pictures and seed on every machine."""
    seen: set[str] = set()
    parts: tuple[list[tuple[str, int]], ...] = ([], [], [])
    for index, flower in enumerate(flowers):
        names = []
        for path in sorted((folder / flower).glob("*.jpg")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                names.append(f"{flower}/{path.name}")
        if len(names) < 10:
            raise GateError(
                f"{folder / flower} holds {len(names)} different pictures, expected at least 10 to be divided 8 : 1 : 1."
            )
        order = np.random.RandomState(seed + index).permutation(len(names))  # its stream is frozen
        tenth = len(names) // 10
        evaluation, validation, training = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]
        for part, chosen in zip(parts, (training, validation, evaluation), strict=True):
            part += [(names[number], index) for number in sorted(chosen)]
    return Split(*parts)


def write_table(path: Path, rows: Sequence[tuple[str, int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label"])
        table.writerows(rows)


def keep_pictures(source: Path, output: Path, split: Split) -> None:
    """Copy what the cards need, with the tables that divide it."""
    for name, rows in (("evaluation", split.evaluation), ("calibration", split.calibration)):
        for file, _ in rows:
            destination = output / "pictures" / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, destination)
        write_table(output / f"{name}.csv", rows)


def prepared(rows: Sequence[tuple[str, int]], pictures: Path, card: ModelCard, scratch: Path, name: str) -> tuple[Array, Array]:
    """The pictures as the gate prepares them, float32 (N, side, side, 3) mapped from a file, and their labels."""
    write_table(scratch / f"{name}.csv", rows)
    found = load_images(DataSource(file=".", labels=f"{name}.csv"), card, FetchedData(pictures, scratch))
    assert found.labels is not None
    return preprocess(found.images, card, names=found.names, output=scratch / f"{name}.npy"), found.labels


# ---------------------------------------------------------------- the card


def card_text(name: str, network: Network, flowers: Sequence[str], sha256: str | None = None, top1: float | None = None) -> str:
    return f'''# {network.title}, {network.side} x {network.side}, fine-tuned on tf_flowers by fine_tune.py, which has written this card.
name = "{name}"
description = "{network.title}, {network.side} x {network.side}: {", ".join(flowers)}."
license = "{network.license} (model), CC-BY (pictures: tf_flowers, see its LICENSE.txt)"
source = "https://www.tensorflow.org/datasets/catalog/tf_flowers"
default = false
threads = [1, 2, 3, 4]

[checkpoint]
format = "keras"
file = "{name}.keras"
{"" if sha256 is None else f'sha256 = "{sha256}"'}

[input]
shape = [{network.side}, {network.side}, 3]

[preprocessing]
resize = "resize"
scaling = "{network.scaling}"

[labels]
count = {len(flowers)}

[evaluation]
file = "pictures"
labels = "evaluation.csv"
{"" if top1 is None else f"top1 = {top1:.4f}"}

[calibration]
file = "pictures"
labels = "calibration.csv"

[tolerance]
top1_drop = 0.02

[backends]
tensorflow = ["fp32"]
tflite = ["fp32", "dynamic", "fp16", "int8", "full_int8"]
edgetpu = ["int8", "full_int8"]
'''


# ---------------------------------------------------------------- training


def train(
    model: Any, training: tuple[Array, Array], validation: tuple[Array, Array], epochs: Sequence[int], seed: int, *, at_once: bool
) -> None:
    """Train in place, and end with the weights of whichever epoch was best on the validation pictures.

    ``epochs`` are those of the last layer alone and those of the whole network; ``at_once``: all of it learns in all of them.
    """
    import keras

    random = np.random.default_rng(seed)
    pictures, labels = training

    class Flipped(keras.utils.PyDataset):  # type: ignore[misc]
        """Every second picture, by chance, as in a mirror, in an order of its own each epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(pictures) // BATCH)

        def __getitem__(self, index: int) -> tuple[Array, Array]:
            chosen = np.sort(
                self.order[index * BATCH : (index + 1) * BATCH]
            )  # in the order of the file that they are mapped from
            batch = np.array(pictures[chosen])
            mirrored = random.random(len(batch)) < 0.5
            batch[mirrored] = batch[mirrored, :, ::-1]
            return batch, labels[chosen]

        def on_epoch_end(self) -> None:
            self.order = random.permutation(len(pictures))

    class Best(keras.callbacks.Callback):  # type: ignore[misc]
        """Keras' own begin anew with each phase."""

        accuracy, weights = -1.0, None

        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
            if logs["val_accuracy"] > self.accuracy:
                self.accuracy, self.weights = logs["val_accuracy"], self.model.get_weights()

    best = Best()
    phases = [(sum(epochs), FIRST_RATE, False)] if at_once else [(epochs[0], FIRST_RATE, True), (epochs[1], SECOND_RATE, False)]
    for count, rate, last_alone in phases:
        for layer in model.layers[:-1]:
            # The statistics of the ImageNet pictures stay: batches of 32 flowers would spoil them.
            stays = last_alone or isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = at_once or not stays
        if count:
            model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
            model.fit(Flipped(), validation_data=validation, epochs=count, callbacks=[best], verbose=2, shuffle=False)
    if best.weights is not None:
        model.set_weights(best.weights)


def fine_tune(
    name: str, network: Network, pictures: Path, split: Split, flowers: Sequence[str], arguments: argparse.Namespace
) -> None:
    """Train one network, and write its checkpoint and its card."""
    import keras

    keras.utils.set_random_seed(arguments.seed)
    path = arguments.output / f"{name}.toml"
    path.write_text(card_text(name, network, flowers), encoding="utf-8")
    card = load_card(path)
    weights = None if arguments.weights == "none" else arguments.weights
    model = network.build(len(flowers), weights)
    print(f"{name}: {model.count_params():,} parameters, {len(split.training)} training pictures", flush=True)
    with tempfile.TemporaryDirectory(prefix="flowers-", dir=arguments.output) as folder:
        scratch = Path(folder)
        parts = [prepared(rows, pictures, card, scratch, part) for part, rows in vars(split).items()]
        untrained = network.function is None or weights is None
        train(model, parts[0], parts[1], arguments.epochs, arguments.seed, at_once=untrained)
        evaluation, labels = parts[2]
        right = int((model.predict(evaluation, batch_size=BATCH, verbose=0).argmax(axis=1) == labels).sum())
    bare = network.build(len(flowers), None)  # without the optimizer's state, which is twice as large as the weights
    bare.set_weights(model.get_weights())
    checkpoint = arguments.output / f"{name}.keras"
    bare.save(checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    path.write_text(card_text(name, network, flowers, digest, right / len(labels)), encoding="utf-8")
    load_card(path)
    print(
        f"{name}: {right} of {len(labels)} evaluation pictures right, top-1 {right / len(labels):.4f}; wrote {path}", flush=True
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="one of them (repeatable; default: all)")
    parser.add_argument(
        "--output", type=Path, default=HERE, help="where checkpoints, cards and pictures go (default: beside this file)"
    )
    parser.add_argument("--weights", choices=["imagenet", "none"], default="imagenet", help="what the networks begin with")
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=[5, 15], metavar="N", help="of the last layer, of the whole network"
    )
    parser.add_argument(
        "--seed", type=int, default=20, help="of the split, the first weights and the order (default: %(default)s)"
    )
    parser.add_argument("--archive-url", default=ARCHIVE_URL, help="where the pictures are (default: %(default)s)")
    parser.add_argument("--archive-sha256", default=ARCHIVE_SHA256, help="the archive's digest (default: that of tf_flowers)")
    parser.add_argument(
        "--downloads", type=Path, default=default_store_root(), help="where the archive goes (default: the gate's store)"
    )
    chosen = parser.parse_args(arguments)
    chosen.output = chosen.output.absolute()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    networks = {name: NETWORKS[name] for name in chosen.network or NETWORKS}
    try:
        chosen.output.mkdir(parents=True, exist_ok=True)
        pictures = fetch_pictures(chosen.archive_url, chosen.archive_sha256, chosen.downloads.absolute())
        flowers = find_flowers(pictures)
        split = split_pictures(pictures, flowers, chosen.seed)
        keep_pictures(pictures, chosen.output, split)
        for name, network in networks.items():
            fine_tune(name, network, pictures, split, flowers, chosen)
    except GateError as error:
        print(f"fine_tune.py: {error}", file=sys.stderr)
        return 1
    return 0


def fetch_pictures(url: str, sha256: str, downloads: Path) -> Path:
    """The folder of the pictures, fetched and unpacked where it is not there yet. Raises a ``GateError``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tf_flowers.toml"  # the fetching names it in what it says
        first = next(iter(NETWORKS.values()))
        path.write_text(card_text("tf_flowers", first, ["flowers"]), encoding="utf-8")
        source = DataSource(url=url, sha256=sha256, member=PICTURES)
        card = load_card(path)
        fetched = fetch_data(source, card, store_root=downloads, lock_file=None, progress=lambda line: print(line, flush=True))
    assert fetched.path is not None
    if not fetched.path.is_dir():
        raise GateError(f"{url} is no archive with a folder {PICTURES}: give another --archive-url and its --archive-sha256.")
    return fetched.path


if __name__ == "__main__":
    sys.exit(main())
