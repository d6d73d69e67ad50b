"""Writes ``evaluation.npz`` and ``calibration.npz`` beside this file, from scikit-learn's ``load_digits``.

Run ``python models/digits/make_data.py``. Each file holds ``images``, uint8 (N, 8, 8) with values 0 to 16, and ``labels``, int64
(N,). ``recipe_common.py`` says why the pictures are divided the way they are. The files' bytes depend on the pictures alone:
entries are stored, not compressed, under a fixed date, so that a checkout can be compared with a fresh run bit for bit.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from recipe_common import CLASSES, EVALUATION_BEGIN, HERE, TRAINING_END, Array, load_pictures

CALIBRATION_COUNT = 200
CALIBRATION_SEED = 20


def write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Like ``numpy.savez``, whose files carry the time of writing, but with the same bytes each time."""
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue())


def calibration_indices(labels: Array) -> Array:
    """Equally many training pictures of each class, drawn without replacement; sorted."""
    random = np.random.RandomState(CALIBRATION_SEED)  # whose stream NumPy has promised never to change, unlike default_rng's
    training = labels[:TRAINING_END]
    each = CALIBRATION_COUNT // CLASSES
    chosen = [random.choice(np.flatnonzero(training == digit), each, replace=False) for digit in range(CLASSES)]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the two files (default: %(default)s)")
    output: Path = parser.parse_args().output

    images, labels = load_pictures()
    calibration = calibration_indices(labels)
    write_npz(output / "evaluation.npz", {"images": images[EVALUATION_BEGIN:], "labels": labels[EVALUATION_BEGIN:]})
    write_npz(output / "calibration.npz", {"images": images[calibration], "labels": labels[calibration]})
    for name in ("evaluation.npz", "calibration.npz"):
        with np.load(output / name) as archive:
            print(f"wrote {output / name}: {len(archive['labels'])} pictures")


if __name__ == "__main__":
    main()
