"""COCO's instances and label maps: what is read of them, and the one sentence that names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pytest_inference_gate.cards import ModelCard, load_card
from pytest_inference_gate.datasets import ImageSet, load_images
from pytest_inference_gate.detection.annotations import read_annotations
from pytest_inference_gate.detection.label_map import read_label_map
from pytest_inference_gate.errors import EvaluationDataError


def good() -> dict[str, Any]:
    return {
        "info": {"year": 2026},
        "images": [
            {"id": 20, "file_name": "b.png", "width": 40, "height": 30},
            {"id": 10, "file_name": "a.png", "width": 20, "height": 10, "license": 1},
        ],
        "annotations": [
            {"id": 0, "image_id": 10, "category_id": 90, "bbox": [0, 0, 20.3, 10], "area": 150.5, "segmentation": [[1, 2]]},
            {"id": 5, "image_id": 20, "category_id": 3, "bbox": [1.5, 2, 3, 4], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "nine"}, {"id": 3, "name": "three", "supercategory": "digit"}],
    }


def read(folder: Path, document: Any, **more: Any) -> Any:
    path = folder / "scenes.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_annotations(path, **{"classes": 2, **more})


def test_pictures_stay_in_their_order_and_crowds_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path, good())
    assert [picture.id for picture in found.pictures] == [20, 10]
    (crowd,) = found.pictures[0].objects
    assert (crowd.id, crowd.box, crowd.area, crowd.crowd) == (5, (1.5, 2.0, 3.0, 4.0), 12.0, True)
    assert found.pictures[1].objects[0].area == 150.5
    assert found.objects == 1
    assert [picture.id for picture in read(tmp_path, good(), limit=1).pictures] == [20]


def test_categories_are_the_classes_in_the_order_of_their_ids_or_by_their_names(tmp_path: Path) -> None:
    assert read(tmp_path, good()).classes == {3: 0, 90: 1}
    names = {"one": 0, "nine": 7, "three": 9}
    assert read(tmp_path, good(), classes=10, names=names, names_file=Path("names.txt")).classes == {3: 9, 90: 7}
    with pytest.raises(
        EvaluationDataError, match=r"scenes.json: category 90, 'nine', is not in names.txt; correct one of the two"
    ):
        read(tmp_path, good(), names={"three": 0}, names_file=Path("names.txt"))
    with pytest.raises(EvaluationDataError, match=r"has 2 categories, and labels.count is 3; correct one of the two, or name"):
        read(tmp_path, good(), classes=3)
    twins = {**good(), "categories": [{"id": 90, "name": "three"}, {"id": 3, "name": "three"}]}
    with pytest.raises(EvaluationDataError, match="the categories 90 and 3 are both called 'three'"):
        read(tmp_path, twins, names={"three": 0}, names_file=Path("names.txt"))


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def drop(*keys: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("annotations", 1, "bbox", value=[1, 2, 50, 4]), "annotation 5 has the box [1, 2, 50, 4] (x, y, width, height), which reaches"),
        (put("annotations", 1, "bbox", value=[-3, 2, 5, 4]), "annotation 5 has the box [-3, 2, 5, 4]"),
        (put("annotations", 0, "bbox", value=[0, 0, 0, 4]), "annotation 0 has the box [0, 0, 0, 4] (x, y, width, height), which has no"),
        (put("annotations", 0, "bbox", value=[5, 5, -4, 4]), "annotation 0 has the box [5, 5, -4, 4]"),
        (put("annotations", 0, "bbox", value=[5, 5, 4]), "annotation 0 has [5, 5, 4] as its bbox, which is not what COCO's"),
        (put("annotations", 0, "bbox", value=[5, 5, 4, None]), "annotation 0 has None as its bbox[3]"),
        (put("annotations", 0, "bbox", value=[5, 5, 4, float("nan")]), "annotation 0 has nan as its bbox[3]"),
        (put("annotations", 1, "image_id", value=7), "annotation 5 is of the image 7, which is not among the images; correct it"),
        (put("annotations", 1, "category_id", value=7), "annotation 5 is of the category 7, which is not among the categories"),
        (put("annotations", 1, "id", value=0), "two annotations have the id 0; give each one its own"),
        (put("images", 1, "id", value=20), "two images have the id 20"),
        (put("categories", 1, "id", value=90), "two categories have the id 90"),
        (put("annotations", 1, "iscrowd", value=2), "annotation 5 has 2 as its iscrowd"),
        (put("annotations", 1, "id", value="x"), "annotations[1] has 'x' as its id"),
        (drop("annotations", 1, "bbox"), "annotation 5 has no bbox, which COCO's instances have; add it"),
        (drop("images", 0, "width"), "image 20 has no width"),
        (drop("categories"), "the file has no categories"),
        (put("images", value=[]), "the file has [] as its images"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_file_and_the_id(tmp_path: Path, change: Callable[[Any], None], sentence: str) -> None:
    document = good()
    change(document)
    with pytest.raises(EvaluationDataError) as caught:
        read(tmp_path, document)
    assert str(caught.value).startswith(f"{tmp_path / 'scenes.json'}: {sentence}")
    assert str(caught.value).endswith(".")


def test_what_is_no_json_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationDataError, match=r"scenes.json are not JSON \(.*\); expected COCO's instances"):
        read(tmp_path, "{")
    with pytest.raises(EvaluationDataError, match="is not what COCO's instances have"):
        read(tmp_path, [1, 2])
    with pytest.raises(EvaluationDataError, match="there are no annotations at .*none.json, which evaluation.annotations names"):
        read_annotations(tmp_path / "none.json", classes=2)
    (tmp_path / "latin.json").write_bytes(b'{"\xe4": 1}')
    with pytest.raises(EvaluationDataError, match="are not UTF-8"):
        read_annotations(tmp_path / "latin.json", classes=2)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox", "x"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    st.sampled_from(["images", "annotations", "categories"]), st.sampled_from(["id", "bbox", "image_id", "width", None]), _VALUES
)
def test_no_document_raises_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, section: str, key: str | None, value: Any
) -> None:
    document = good()
    if key is None:
        document[section] = value
    else:
        document[section][0][key] = value
    said = ""
    try:
        read(tmp_path_factory.mktemp("coco"), document)
    except EvaluationDataError as error:
        said = str(error)
    assert "\n" not in said


# Label maps


def test_a_label_map_gives_each_name_its_class() -> None:
    text = """
    item { id: 1 name: '/m/01g317' display_name: "person" }
    item {  # the second
      name: 'bicycle'
      id: 2
    }
    item { id: 5 name: 'airplane' }
    """
    assert read_label_map(Path("map.pbtxt"), text, 5) == {"person": 0, "bicycle": 1, "airplane": 4}
    with pytest.raises(EvaluationDataError, match=r"map.pbtxt has the id 5 for 'airplane', and labels.count is 4"):
        read_label_map(Path("map.pbtxt"), text, 4)
    with pytest.raises(EvaluationDataError, match="has no item of a label map"):
        read_label_map(Path("map.pbtxt"), "person\nbicycle\n", 4)
    with pytest.raises(EvaluationDataError, match="has an item without an id or a name"):
        read_label_map(Path("map.pbtxt"), "item { id: 1 }", 4)


# The pictures that annotations list


def card(folder: Path, evaluation: str) -> ModelCard:
    (folder / "card.toml").write_text(
        f"""
name = "scenes"
task = "detection"
checkpoint = {{ format = "tflite", file = "scenes.tflite" }}
input = {{ shape = [30, 40, 3] }}
preprocessing = {{ resize = "resize" }}
labels = {{ count = 2 }}
detection = {{ kind = "postprocessed", outputs = {{ boxes = 0, classes = 1, scores = 2, count = 3 }} }}
evaluation = {{ {evaluation}, annotations = "scenes.json" }}
backends = {{ tflite = ["fp32"] }}
"""
    )
    return load_card(folder / "card.toml")


def pictures(folder: Path, document: Any, evaluation: str = 'file = "pictures"') -> ImageSet:
    (folder / "scenes.json").write_text(json.dumps(document))
    described = card(folder, evaluation)
    return load_images(described.evaluation_source, described)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    random = numpy.random.RandomState(0)
    for name, size in (("a.png", (10, 20, 3)), ("b.png", (30, 40, 3)), ("c.png", (30, 40, 3))):
        Image.fromarray(random.randint(0, 256, size).astype(numpy.uint8)).save(tmp_path / "pictures" / name)
    return tmp_path


def test_the_pictures_are_those_that_the_annotations_list(folder: Path) -> None:
    found = pictures(folder, good())
    assert found.names == ("b.png", "a.png")
    assert [image.shape for image in (found.images[0], found.images[1])] == [(30, 40, 3), (10, 20, 3)]
    assert found.labels is None
    assert found.annotations is not None and [one.id for one in found.annotations.pictures] == [20, 10]


def test_so_are_those_of_an_npz_in_their_order(folder: Path) -> None:
    document = good()
    document["images"][1].update(width=40, height=30)
    del document["images"][1]["file_name"]
    images = numpy.zeros((2, 30, 40, 3), numpy.uint8)
    numpy.savez(folder / "pictures.npz", images=images, labels=numpy.array([99, 99]))
    found = pictures(folder, document, 'file = "pictures.npz"')
    assert found.names == ("b.png", "1 of pictures.npz")
    assert len(pictures(folder, document, 'file = "pictures.npz", limit = 1')) == 1
    numpy.savez(folder / "pictures.npz", images=images[:1])
    with pytest.raises(EvaluationDataError, match=r"pictures.npz has 1 images and .*scenes.json lists 2; expected as many"):
        pictures(folder, document, 'file = "pictures.npz"')


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("images", 0, "file_name", value="d.png"), r"scenes.json: image 20: the picture .*d.png is missing; put it there"),
        (put("images", 0, "file_name", value="../b.png"), "image 20 has the file '../b.png', which is not inside"),
        (drop("images", 0, "file_name"), "image 20 has no file_name, which a folder of pictures needs"),
        (
            put("images", 1, "width", value=22),
            r"image 10 is listed with 22 x 10 pixels \(width x height\), but a.png has 20 x 10",
        ),
    ],
)
def test_a_picture_that_is_not_as_it_is_listed_is_said(folder: Path, change: Callable[[Any], None], sentence: str) -> None:
    document = good()
    change(document)
    with pytest.raises(EvaluationDataError, match=sentence):
        pictures(folder, document)


def test_a_file_that_is_no_picture_is_said(folder: Path) -> None:
    (folder / "pictures" / "b.png").write_bytes(b"none")
    with pytest.raises(EvaluationDataError, match="is not a picture that can be read"):
        pictures(folder, good())


def test_a_label_map_with_keypoints_and_one_with_an_id_twice() -> None:
    text = 'item { name: "person" keypoints { id: 2 label: "nose" } id: 1 }\nitem { id: 2 name: "C#" }\n'
    assert read_label_map(Path("map.pbtxt"), text, 2) == {"person": 0, "C#": 1}
    with pytest.raises(EvaluationDataError, match="the id 1 for 'b' and 1 for 'a'"):
        read_label_map(Path("map.pbtxt"), 'item { id: 1 name: "a" }\nitem { id: 1 name: "b" }', 2)
    with pytest.raises(EvaluationDataError, match="the id 2 for 'a' and 1 for 'a'"):
        read_label_map(Path("map.pbtxt"), 'item { id: 1 name: "a" }\nitem { id: 2 name: "a" }', 2)
