"""Prints what the detector finds in the evaluation scenes, in each form and precision: ``python models/digit_scenes/check_detections.py``.

The Keras model, the frozen graph and the two ``.tflite`` files beside this one must find the same; TensorFlow Lite's five precisions
are converted here, calibrated on ``calibration.npz``, and differ by what they cost. AP and AP50 are COCO's, by pycocotools. The
tables in ``models/README.md`` and the tolerances of the cards come from here. Needs the plugin itself, which decodes the boxes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from make_scenes import CLASSES, HERE, Array
from post_processing import IOU_THRESHOLD, MAXIMUM_DETECTIONS, MAXIMUM_PER_CLASS, SCORE_THRESHOLD
from recipe_common import prepare_tensorflow
from ssd_geometry import BOX_CODER_SCALES, overlaps
from ssd_network import SIDE
from tf1_graph import OUTPUTS
from tflite_conversion import PRECISIONS, convert, dequantize, quantize

from pytest_inference_gate.agent.detection_decoding import Decoder

Detections = list[tuple[Array, Array, Array]]

RAW = {
    "kind": "raw",
    "outputs": {"boxes": 0, "scores": 1},
    "classes": CLASSES,
    "first_class": 1,
    "anchors": {"file": str(HERE / "anchors.npy")},
    "picture": [SIDE, SIDE],
    "box_scales": list(BOX_CODER_SCALES),
    "score_conversion": "none",
    "score_threshold": SCORE_THRESHOLD,
    "iou_threshold": IOU_THRESHOLD,
    "maximum_per_class": MAXIMUM_PER_CLASS,
    "maximum_detections": MAXIMUM_DETECTIONS,
}
POSTPROCESSED = {
    "kind": "postprocessed",
    "outputs": {"boxes": 0, "classes": 1, "scores": 2, "count": 3},
    "classes": CLASSES,
    "first_class": 0,
    "score_threshold": 0.0,
    "maximum_detections": MAXIMUM_DETECTIONS,
}
FROZEN = {**POSTPROCESSED, "outputs": {"boxes": 0, "classes": 2, "scores": 1, "count": 3}, "first_class": 1}


def read_scenes(name: str) -> Array:
    """uint8 (N, 96, 96, 3)."""
    with np.load(HERE / f"{name}.npz") as archive:
        return np.repeat(archive["images"][..., np.newaxis], 3, axis=3)


def scaled(pictures: Array) -> Array:
    return pictures.astype(np.float32) / np.float32(127.5) - np.float32(1)


def keras_outputs(model: Any, pictures: Array) -> list[Array]:
    return [np.asarray(output) for output in model.predict(scaled(pictures), batch_size=50, verbose=0)]


def frozen_outputs(graph_file: Path, pictures: Array) -> list[Array]:
    """One picture at a time, as on a board."""
    import tensorflow as tf

    v1 = tf.compat.v1
    graph_def = v1.GraphDef.FromString(graph_file.read_bytes())
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        fetches = [f"{name}:0" for name in OUTPUTS]
        found = [session.run(fetches, {"image_tensor:0": picture[np.newaxis]}) for picture in pictures]
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def tflite_outputs(content: bytes, pictures: Array) -> list[Array]:
    """float32, of integer inputs and outputs too, in the order of the signature."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    runner = interpreter.get_signature_runner()
    given = runner.get_output_details()
    found: list[list[Array]] = [[] for _ in given]
    for picture in scaled(pictures):
        results = runner(picture=quantize(picture[np.newaxis], taken))
        for index, name in enumerate(sorted(given)):
            found[index].append(dequantize(results[name], given[name]))
    return [np.concatenate(each) for each in found]


def save_for_conversion(model: Any, folder: Path) -> None:
    import tensorflow as tf

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="picture")])  # type: ignore[untyped-decorator]
        def serve(self, picture: Any) -> Any:
            boxes, scores = model(picture, training=False)
            return {"output_0": boxes, "output_1": scores}

    module = Module()
    module.tracked = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def average_precision(detections: Detections) -> tuple[float, float]:
    """COCO's AP (IoU 0.50 to 0.95) and AP50."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(HERE / "evaluation.json"))
        results = [
            {
                "image_id": image,
                "category_id": int(number) + 1,
                "bbox": [float(value) * SIDE for value in (box[1], box[0], box[3] - box[1], box[2] - box[0])],
                "score": float(score),
            }
            for image, (boxes, scores, classes) in enumerate(detections, start=1)
            for box, score, number in zip(boxes, scores, classes, strict=True)
        ]
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def share_found_again(reference: Detections, found: Detections, least_score: float = 0.3) -> float:
    """The share of the reference's detections that have a partner of their class with an IoU of at least 0.9."""
    total = again = 0
    for (boxes, scores, classes), (other_boxes, other_scores, other_classes) in zip(reference, found, strict=True):
        for box, number in zip(boxes[scores >= least_score], classes[scores >= least_score], strict=True):
            candidates = other_boxes[(other_classes == number) & (other_scores >= least_score / 2)]
            total += 1
            again += bool(len(candidates) and overlaps(box[np.newaxis], candidates).max() >= 0.9)
    return again / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE, help="where the model and its exports lie (default: %(default)s)")
    parser.add_argument("--without-precisions", action="store_true", help="the committed files only")
    arguments = parser.parse_args()
    folder: Path = arguments.folder

    prepare_tensorflow(seed=0)
    import keras

    pictures = read_scenes("evaluation")
    count = len(json.loads((HERE / "evaluation.json").read_text(encoding="utf-8"))["annotations"])
    print(f"{len(pictures)} scenes, {count} digits")
    model = keras.models.load_model(folder / "digit_scenes_ssd.keras", compile=False)
    reference = Decoder(RAW).decode(keras_outputs(model, pictures))

    def show(name: str, size: int, found: Detections) -> None:
        ap, ap50 = average_precision(found)
        print(f"| {name} | {size / 1000:.0f} | {ap:.4f} | {ap50:.4f} | {share_found_again(reference, found):.4f} |", flush=True)

    def show_file(file: Path, outputs: Callable[[Any, Array], list[Array]], settings: dict[str, Any]) -> None:
        content = file.read_bytes()
        found = outputs(file if file.suffix == ".pb" else content, pictures)
        show(file.name, len(content), Decoder(settings).decode(found))

    print("| form | kB | AP | AP50 | found again |")
    show("digit_scenes_ssd.keras", (folder / "digit_scenes_ssd.keras").stat().st_size, reference)
    show_file(folder / "digit_scenes_ssd_tf1" / "frozen_inference_graph.pb", frozen_outputs, FROZEN)
    show_file(folder / "digit_scenes_ssd_raw.tflite", tflite_outputs, RAW)
    show_file(folder / "digit_scenes_ssd_postprocessed.tflite", tflite_outputs, POSTPROCESSED)
    if arguments.without_precisions:
        return
    calibration = scaled(read_scenes("calibration"))
    with tempfile.TemporaryDirectory() as saved_model:
        save_for_conversion(model, Path(saved_model))
        for precision in PRECISIONS:
            content = convert(Path(saved_model), precision, calibration, "uint8")
            show(precision, len(content), Decoder(RAW).decode(tflite_outputs(content, pictures)))


if __name__ == "__main__":
    main()
