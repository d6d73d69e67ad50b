"""What a pipeline.config says of its model, and cards that say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_inference_gate.cards import load_card
from pytest_inference_gate.detection.pipeline_config import (
    PipelineConfigError,
    SsdAnchors,
    Suppression,
    pipeline_config,
    read_pipeline_config,
)
from pytest_inference_gate.detection.text_protobuf import parse
from pytest_inference_gate.errors import CardError

# In the manner of the files of the detection zoo: what is of no interest here is there too.
SSD = """
# of ten digits
model {
  ssd {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 96 width: 128 } }
    feature_extractor { type: 'ssd_mobilenet_v2' conv_hyperparams { activation: RELU_6, regularizer { l2_regularizer { weight: 4e-05 } } } }
    box_coder { faster_rcnn_box_coder { y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0 } }
    anchor_generator {
      ssd_anchor_generator {
        num_layers: 2
        min_scale: 0.20000000298
        aspect_ratios: 1.0
        aspect_ratios: 2.0
        aspect_ratios: 0.5
      }
    }
    post_processing {
      batch_non_max_suppression { score_threshold: 1e-8 iou_threshold: 0.6 max_detections_per_class: 20 max_total_detections: 30 }
      score_converter: SIGMOID
    }
  }
}
train_config: { batch_size: 24 }
"""
ANCHORS = "anchors = { feature_maps = [[12, 16], [6, 8]], aspect_ratios = [1.0, 2.0, 0.5] }"
RAW = f'kind = "raw", outputs = {{ boxes = 0, scores = 1 }}, {ANCHORS}'


def test_what_an_ssd_s_file_says() -> None:
    config = pipeline_config(parse(SSD))
    assert (config.architecture, config.classes, config.size) == ("ssd", 10, (96, 128))
    assert config.box_scales == (10.0, 10.0, 5.0, 5.0)
    assert config.anchors == SsdAnchors(2, 0.20000000298, 0.95, (), (1.0, 2.0, 0.5), 1.0, True)
    assert config.suppression == Suppression(1e-8, 0.6, 20, 30)
    assert config.score_converter == "sigmoid"


def test_what_is_left_out_is_the_schema_s_default() -> None:
    config = pipeline_config(parse("model { ssd { num_classes: 1 box_coder { faster_rcnn_box_coder { } } image_resizer { } } }"))
    assert (config.size, config.shorter_side, config.anchors, config.suppression) == (None, None, None, None)
    assert (config.box_scales, config.score_converter) == ((10.0, 10.0, 5.0, 5.0), "none")
    processing = "second_stage_post_processing { batch_non_max_suppression { } score_converter: SOFTMAX }"
    text = f"num_classes: 90 image_resizer {{ keep_aspect_ratio_resizer {{ }} }} {processing}"
    config = pipeline_config(parse(f"model {{ faster_rcnn {{ {text} }} }}"))
    assert (config.size, config.shorter_side, config.longer_side) == (None, 600, 1024)
    assert (config.suppression, config.score_converter) == (Suppression(0.0, 0.6, 100, 100), "softmax")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model { center_net { } }", "found center_net in its model, expected ssd or faster_rcnn"),
        ("train_config { }", "found nothing in its model"),
        ("model { ssd { } }", "found no num_classes in model.ssd"),
        ("model { ssd { num_classes: 1.5 } }", "found 1.5 as num_classes, expected a whole number"),
        ("model { ssd { num_classes: MANY } }", "found MANY as num_classes, expected a number"),
        ("model { ssd { num_classes: 0x" + "f" * 400 + " } }", "as num_classes, expected a number"),
        ("model { ssd { num_classes: 1 post_processing { score_converter: TANH } } }", "found the score_converter 'TANH'"),
        ("model {", "is no pipeline.config in text form: line 1"),
    ],
)
def test_a_file_that_says_nothing_of_a_model(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pipeline.config").write_text(text)
    with pytest.raises(PipelineConfigError) as caught:
        read_pipeline_config(tmp_path / "pipeline.config")
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def problems(folder: Path, text: str = SSD, shape: str = "[96, 128, 3]", count: int = 10, detection: str = RAW) -> str:
    """What is said of a card with these values; nothing where it agrees with the file."""
    (folder / "pipeline.config").write_text(text)
    values: dict[str, Any] = {
        "name": '"scenes"',
        "task": '"detection"',
        "checkpoint": '{ format = "keras", file = "scenes.keras" }',
        "input": f"{{ shape = {shape} }}",
        "labels": f"{{ count = {count} }}",
        "detection": f'{{ {detection}, pipeline_config = "pipeline.config" }}',
        "backends": '{ tensorflow = ["fp32"] }',
    }
    (folder / "card.toml").write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    try:
        load_card(folder / "card.toml")
    except CardError as error:
        return str(error)
    return ""


def test_a_card_that_agrees_is_good(tmp_path: Path) -> None:
    assert problems(tmp_path) == ""
    keeping = SSD.replace(
        "fixed_shape_resizer { height: 96 width: 128 }", "keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 128 }"
    )
    for shape in ("[96, 96, 3]", "[96, 128, 3]", "[128, 96, 3]", "[64, 128, 3]"):
        assert problems(tmp_path, keeping, shape) == ""
    assert "so that the graph would resize again" in problems(tmp_path, keeping, "[64, 96, 3]")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 11}, "labels.count: found 11, where pipeline.config says num_classes: 10"),
        (
            {"shape": "[96, 96, 3]"},
            "input.shape: found [96, 96, 3], where pipeline.config resizes to 96 x 128 (height x width): write [96, 128, 3]",
        ),
        (
            {"detection": RAW + ", box_scales = [1.0, 1.0, 1.0, 1.0]"},
            "detection.box_scales: found [1.0, 1.0, 1.0, 1.0], where the box_coder",
        ),
        (
            {"detection": RAW.replace(", 0.5]", "]")},
            "detection.anchors.aspect_ratios: found [1.0, 2.0], where the ssd_anchor_generator",
        ),
        (
            {"detection": RAW.replace(", [6, 8]", "")},
            "detection.anchors.feature_maps: found 1, where pipeline.config says num_layers: 2",
        ),
        (
            {"detection": RAW.replace("aspect", "max_scale = 0.9, aspect")},
            "anchors.min_scale: found min_scale and max_scale [0.2, 0.9]",
        ),
        ({"text": "model {"}, "detection.pipeline_config: "),
    ],
)
def test_a_card_that_says_something_else_is_told(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in problems(tmp_path, **changes)


def test_what_a_user_may_choose_is_not_held_against_the_file(tmp_path: Path) -> None:
    assert problems(tmp_path, detection=RAW + ", iou_threshold = 0.4, score_threshold = 0.3, maximum_detections = 5") == ""


@pytest.mark.parametrize("shape", ["[]", "[96]", "[96, 128]"])
def test_a_shape_without_three_numbers_is_told_and_not_compared(tmp_path: Path, shape: str) -> None:
    assert "expected three numbers without the batch" in problems(tmp_path, shape=shape)
