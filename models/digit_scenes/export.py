"""Writes the detector in the forms in which detectors are shipped: ``python models/digit_scenes/export.py``.

* ``digit_scenes_ssd_tf1/``: ``frozen_inference_graph.pb``, ``pipeline.config`` and ``label_map.pbtxt``, as the archives of
  TensorFlow 1's detection zoo have them. The graph resizes, decodes and suppresses by itself.
* ``digit_scenes_ssd_raw.tflite``: float32; box encodings and class scores, which the user decodes.
* ``digit_scenes_ssd_postprocessed.tflite``: float32, with anchors and the operation ``TFLite_Detection_PostProcess`` inside, which
  both LiteRT and tflite-runtime bring.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from make_scenes import CLASSES, EVALUATION_COUNT, HERE
from post_processing import IOU_THRESHOLD, MAXIMUM_DETECTIONS, MAXIMUM_PER_CLASS, SCORE_THRESHOLD
from ssd_geometry import ANCHORS, BOX_CODER_SCALES, MATCHED_THRESHOLD, make_anchors
from ssd_network import COLUMNS, SIDE
from train_digit_scenes_ssd import ALPHA, BATCH, GAMMA

NAME = "digit_scenes_ssd"


def write_frozen_graph(model: Any, path: Path) -> None:
    """``tf1_graph.py`` makes the graph, in a process of its own, of the weights of ``model``."""
    arrays = {f"{layer.name}/{weight.name}": np.asarray(weight.numpy()) for layer in model.layers for weight in layer.weights}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        np.savez(weights, **arrays)
        subprocess.run([sys.executable, str(HERE / "tf1_graph.py"), str(weights), str(path)], check=True)


def pipeline_config() -> str:
    """What the zoo's archives say of a model, true of this one. The feature extractor is not one that the API knows."""
    y, x, height, width = BOX_CODER_SCALES
    scales = "\n        ".join(f"scales: {scale}" for scale in ANCHORS.scales)
    ratios = "\n        ".join(f"aspect_ratios: {ratio}" for ratio in ANCHORS.aspect_ratios)
    return f"""\
model {{
  ssd {{
    num_classes: {CLASSES}
    image_resizer {{
      fixed_shape_resizer {{
        height: {SIDE}
        width: {SIDE}
      }}
    }}
    feature_extractor {{
      type: "{NAME}"
    }}
    box_coder {{
      faster_rcnn_box_coder {{
        y_scale: {y}
        x_scale: {x}
        height_scale: {height}
        width_scale: {width}
      }}
    }}
    matcher {{
      argmax_matcher {{
        matched_threshold: {MATCHED_THRESHOLD}
        unmatched_threshold: {MATCHED_THRESHOLD}
        ignore_thresholds: false
        negatives_lower_than_unmatched: true
        force_match_for_each_row: true
      }}
    }}
    similarity_calculator {{
      iou_similarity {{
      }}
    }}
    box_predictor {{
      convolutional_box_predictor {{
        kernel_size: 3
        use_depthwise: true
        use_dropout: false
        box_code_size: 4
        apply_sigmoid_to_scores: false
      }}
    }}
    anchor_generator {{
      ssd_anchor_generator {{
        num_layers: {len(ANCHORS.grids)}
        {scales}
        {ratios}
        interpolated_scale_aspect_ratio: {ANCHORS.interpolated_aspect_ratio}
        reduce_boxes_in_lowest_layer: false
      }}
    }}
    post_processing {{
      batch_non_max_suppression {{
        score_threshold: {SCORE_THRESHOLD}
        iou_threshold: {IOU_THRESHOLD}
        max_detections_per_class: {MAXIMUM_PER_CLASS}
        max_total_detections: {MAXIMUM_DETECTIONS}
      }}
      score_converter: SIGMOID
    }}
    normalize_loss_by_num_matches: true
    loss {{
      localization_loss {{
        weighted_smooth_l1 {{
        }}
      }}
      classification_loss {{
        weighted_sigmoid_focal {{
          gamma: {GAMMA}
          alpha: {ALPHA}
        }}
      }}
      classification_weight: 1.0
      localization_weight: 1.0
    }}
  }}
}}
train_config {{
  batch_size: {BATCH}
}}
eval_config {{
  num_examples: {EVALUATION_COUNT}
  metrics_set: "coco_detection_metrics"
}}
"""


def label_map() -> str:
    return "\n".join(f"item {{\n  id: {digit + 1}\n  name: '{digit}'\n}}" for digit in range(CLASSES)) + "\n"


def raw_tflite(tf: Any, model: Any) -> bytes:
    """float32 in and out, batch 1; outputs box encodings, class scores."""

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="picture")])  # type: ignore[untyped-decorator]
        def serve(self, picture: Any) -> Any:
            boxes, scores = model(picture, training=False)
            return {"output_0": boxes, "output_1": scores}

    return _converted(tf, Module(), model)


def postprocessed_tflite(tf: Any, model: Any) -> bytes:
    """float32 in and out, batch 1; outputs boxes, classes from 0, scores, count.

    TensorFlow's converter makes the custom operation of a function that says that it implements it; what the function computes
    itself is never used.
    """
    scales = zip("yxhw", BOX_CODER_SCALES, strict=True)
    attributes = {
        "max_detections": f"i: {MAXIMUM_DETECTIONS}",
        "max_classes_per_detection": "i: 1",
        "detections_per_class": f"i: {MAXIMUM_PER_CLASS}",
        "use_regular_nms": "b: true",
        "nms_score_threshold": f"f: {SCORE_THRESHOLD}",
        "nms_iou_threshold": f"f: {IOU_THRESHOLD}",
        **{f"{axis}_scale": f"f: {scale}" for axis, scale in scales},
        "num_classes": f"i: {CLASSES}",
    }
    implements = 'name: "TFLite_Detection_PostProcess" ' + " ".join(
        f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items()
    )

    @tf.function(experimental_implements=implements)  # type: ignore[untyped-decorator]
    def post_process(box_encodings: Any, class_scores: Any, anchors: Any) -> Any:  # noqa: ARG001
        count = MAXIMUM_DETECTIONS
        return tf.zeros([1, count, 4]), tf.zeros([1, count]), tf.zeros([1, count]), tf.zeros([1])

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="picture")])  # type: ignore[untyped-decorator]
        def serve(self, picture: Any) -> Any:
            boxes, scores = model(picture, training=False)
            found = post_process(boxes, scores, tf.constant(make_anchors()))
            return {f"output_{index}": tensor for index, tensor in enumerate(found)}

    return _converted(tf, Module(), model)


def _converted(tf: Any, module: Any, model: Any) -> bytes:
    # The variables alone, not the model: functions that Keras saves with it may write to them, and only what nothing writes to becomes
    # a constant.
    module.tracked = [variable.value for variable in model.variables]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.allow_custom_ops = True
        return _in_order(converter.convert())


def _in_order(content: bytes) -> bytes:
    """The file with its outputs in the order of their names, for runtimes that number them: the converter shuffles them."""
    from tensorflow.lite.tools import flatbuffer_utils

    file = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    file.subgraphs[0].outputs = [
        tensor.tensorIndex for tensor in sorted(file.signatureDefs[0].outputs, key=lambda tensor: tensor.name)
    ]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / f"{NAME}.keras", help="what is exported (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for what is written (default: %(default)s)")
    arguments = parser.parse_args()

    import keras
    import tensorflow as tf

    model = keras.models.load_model(arguments.model, compile=False)
    assert model.output_shape == [(None, len(make_anchors()), 4), (None, len(make_anchors()), COLUMNS)]
    zoo = arguments.output / f"{NAME}_tf1"
    zoo.mkdir(exist_ok=True)
    write_frozen_graph(model, zoo / "frozen_inference_graph.pb")
    (zoo / "pipeline.config").write_text(pipeline_config(), encoding="ascii")
    (zoo / "label_map.pbtxt").write_text(label_map(), encoding="ascii")
    (arguments.output / f"{NAME}_raw.tflite").write_bytes(raw_tflite(tf, model))
    (arguments.output / f"{NAME}_postprocessed.tflite").write_bytes(postprocessed_tflite(tf, model))
    for path in (*sorted(zoo.iterdir()), *sorted(arguments.output.glob(f"{NAME}_*.tflite"))):
        content = path.read_bytes()
        print(f"wrote {path} ({len(content) / 1000:.0f} kB, sha256 {hashlib.sha256(content).hexdigest()})")


if __name__ == "__main__":
    main()
