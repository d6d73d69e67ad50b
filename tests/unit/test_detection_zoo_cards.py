"""The cards of TensorFlow's detection zoo: what they say of archives that cannot be fetched everywhere."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pytest_inference_gate.agent import ssd_anchors
from pytest_inference_gate.card_tables.detection import detection_settings
from pytest_inference_gate.cards import ModelCard, load_cards
from pytest_inference_gate.published import CARDS

FOLDER = Path(__file__).parents[2] / "models" / "detection_zoo"


@pytest.fixture(scope="module")
def cards() -> dict[str, ModelCard]:
    return {card.name: card for card in load_cards(FOLDER)}


def test_they_are_six_published_models_that_are_run_when_they_are_named(cards: dict[str, ModelCard]) -> None:
    assert set(cards) == {
        "ssd_mobilenet_v1_coco",
        "ssd_mobilenet_v1_0.75_depth_coco",
        "ssd_mobilenet_v2_coco",
        "ssdlite_mobilenet_v2_coco",
        "ssdlite_mobilenet_v3_small_coco",
        "ssdlite_mobilenet_v3_large_coco",
    }
    for name, card in cards.items():
        assert (name,) == CARDS[name]  # so that the published figures are shown beside its results
        assert not card.default and card.task == "detection" and card.labels.count == 90 and card.license
        assert card.path.stem == name


def test_they_take_the_frozen_graph_of_the_archive_that_they_fetch(cards: dict[str, ModelCard]) -> None:
    for card in cards.values():
        address = urlsplit(str(card.checkpoint.url))
        assert (address.scheme, address.netloc) == ("https", "download.tensorflow.org")
        archive = Path(address.path).name.removesuffix(".tar.gz")
        assert address.path == f"/models/object_detection/{archive}.tar.gz"
        assert card.checkpoint.member == f"{archive}/frozen_inference_graph.pb"


def test_graphs_that_suppress_boxes_have_variants_and_take_bytes(cards: dict[str, ModelCard]) -> None:
    for card in cards.values():
        assert card.detection is not None
        if card.detection.kind == "postprocessed":
            assert (card.input.dtype, card.input.shape) == ("uint8", (300, 300, 3))
            assert card.preprocessing.scaling == "none"
            assert card.variants == {"tensorflow": ["as_is", "nms_cpu", "nms_gpu"], "tftrt": ["as_is", "nms_cpu", "nms_gpu"]}
        else:
            assert "v3" in card.name and not card.variants


def test_the_anchors_of_mobilenet_v3_are_as_many_as_its_graph_has(cards: dict[str, ModelCard]) -> None:
    for name in ("ssdlite_mobilenet_v3_small_coco", "ssdlite_mobilenet_v3_large_coco"):
        settings = detection_settings(cards[name])
        anchors = ssd_anchors.anchors_of(settings["anchors"], tuple(settings["picture"]))
        assert anchors.shape == (2034, 4)  # 20 x 20 x 3 + (10 x 10 + 5 x 5 + 3 x 3 + 2 x 2 + 1) x 6
