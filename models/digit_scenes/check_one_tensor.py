"""Prints what int8 costs the detector where boxes and scores share one tensor: ``python models/digit_scenes/check_one_tensor.py``.

A tensor of TensorFlow Lite has one scale, and encodings of boxes have another range than scores. The row of the page on detection
models comes from here; what the detector costs with both apart is told by ``check_detections.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from check_detections import RAW, average_precision, read_scenes, scaled, tflite_outputs
from make_scenes import HERE
from recipe_common import prepare_tensorflow
from ssd_network import SIDE
from tflite_conversion import convert

from pytest_inference_gate.agent.detection_decoding import Decoder


def main() -> None:
    prepare_tensorflow(seed=0)
    import keras
    import tensorflow as tf

    model = keras.models.load_model(HERE / "digit_scenes_ssd.keras", compile=False)
    joined = keras.Model(model.inputs, keras.layers.Concatenate(axis=2)(model.outputs))
    pictures, calibration = read_scenes("evaluation"), scaled(read_scenes("calibration"))
    boxes, _ = model.predict(calibration, batch_size=50, verbose=0)
    print(f"encodings from {boxes.min():.2f} to {boxes.max():.2f}")

    module = tf.Module()
    module.tracked = [variable.value for variable in joined.variables]
    signature = [tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="picture")]
    serve = tf.function(lambda picture: {"output_0": joined(picture, training=False)}, input_signature=signature)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": serve})
        for precision in ("fp32", "int8"):
            (outputs,) = tflite_outputs(convert(Path(folder), precision, calibration, "uint8"), pictures)
            ap, ap50 = average_precision(Decoder(RAW).decode([outputs[..., :4], outputs[..., 4:]]))
            print(f"| {precision} | {ap:.4f} | {ap50:.4f} | {len(np.unique(outputs[..., 4:]))} values of scores |", flush=True)


if __name__ == "__main__":
    main()
