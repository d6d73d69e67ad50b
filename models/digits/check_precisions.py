"""Prints what each TF-Lite precision costs in accuracy: ``python models/digits/check_precisions.py``.

Converts the three checkpoints with ``tf.lite.TFLiteConverter``, calibrates on ``calibration.npz`` and asks each converted model about
all pictures of ``evaluation.npz``, one by one. The table in ``models/README.md`` and the tolerances in the cards come from here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from recipe_common import HERE, SIDE, Array, prepare_tensorflow, preprocess, wilson_interval
from tflite_conversion import PRECISIONS, convert, dequantize, quantize

CHECKPOINTS = ["digits_cnn", "digits_inverted_residual", "../uneven_digits/uneven_digits"]


def read_pictures(name: str) -> tuple[Array, Array]:
    with np.load(HERE / f"{name}.npz") as archive:
        return preprocess(archive["images"]), archive["labels"]


def predict(model: bytes, pictures: Array) -> Array:
    """Outputs, float32 (N, 10), with the quantization of integer inputs and outputs done and undone here."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for picture in pictures[:, np.newaxis]:
        interpreter.set_tensor(source["index"], quantize(picture, source))
        interpreter.invoke()
        rows.append(dequantize(interpreter.get_tensor(target["index"]), target)[0])
    return np.stack(rows)


def main() -> None:
    prepare_tensorflow(seed=0)
    import keras

    evaluation, labels = read_pictures("evaluation")
    calibration, _ = read_pictures("calibration")
    print("| model | precision | kB | right of 597 | top-1 | 95 % interval | same top-1 as Keras |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in CHECKPOINTS:
        model = keras.models.load_model(HERE / f"{name}.keras")
        reference = model.predict(evaluation, batch_size=128, verbose=0).argmax(axis=1)
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, input_signature=[keras.InputSpec(shape=(1, SIDE, SIDE, 1), dtype="float32")], verbose=False)
            for precision in PRECISIONS:
                converted = convert(Path(folder), precision, calibration)
                answers = predict(converted, evaluation).argmax(axis=1)
                right = int((answers == labels).sum())
                low, high = wilson_interval(right, len(labels))
                print(
                    f"| {Path(name).name} | {precision} | {len(converted) / 1000:.0f} | {right} | {right / len(labels):.4f} "
                    f"| {low:.3f} to {high:.3f} | {int((answers == reference).sum())} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
