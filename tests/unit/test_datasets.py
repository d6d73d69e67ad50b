"""Evaluation and calibration sets: loading, and what is said of those that are incomplete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pytest_inference_gate.cards import Checkpoint, DataSource, Evaluation, Input, Labels, ModelCard, Preprocessing
from pytest_inference_gate.datasets import ImageSet, check_disjoint, load_images, require_calibration_pictures, seeded_images
from pytest_inference_gate.errors import EvaluationDataError
from pytest_inference_gate.preprocessing import preprocess
from pytest_inference_gate.zoo import FetchedData


def make_card(folder: Path, shape: tuple[int, ...] = (8, 8, 3), labels: dict[str, Any] | None = None, **steps: Any) -> ModelCard:
    return ModelCard(
        name="m",
        checkpoint=Checkpoint(format="keras", file="m.keras"),
        input=Input(shape=shape),
        preprocessing=Preprocessing(**steps),
        labels=Labels(**(labels or {"count": 10})),
        backends={"tflite": ["fp32"]},
        path=folder / "card.toml",
    )


def pictures(count: int, seed: int = 0, shape: tuple[int, ...] = (8, 8, 3)) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def folder_set(folder: Path, rows: str, count: int = 3) -> DataSource:
    (folder / "pictures").mkdir(exist_ok=True)
    for index, picture in enumerate(pictures(count)):
        Image.fromarray(picture).save(folder / "pictures" / f"{index}.png")
    (folder / "labels.csv").write_text(rows, encoding="utf-8")
    return Evaluation(file="pictures", labels="labels.csv")


def failure(folder: Path, source: DataSource, **card: Any) -> str:
    with pytest.raises(EvaluationDataError) as caught:
        load_images(source, make_card(folder, **card))
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def test_an_npz_is_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=pictures(4), labels=np.array([0, 9, 3, 3]))
    found = load_images(Evaluation(file="set.npz"), make_card(tmp_path))
    assert len(found) == 4 and found.labels is not None
    assert found.labels.tolist() == [0, 9, 3, 3] and found.labels.dtype == np.int64
    np.testing.assert_array_equal(np.stack(list(found.images)), pictures(4))
    limited = load_images(Evaluation(file="set.npz", limit=2), make_card(tmp_path))
    assert len(limited) == 2 and limited.sha256 != found.sha256 and limited.picture_digests == found.picture_digests[:2]


def test_the_digest_is_of_pixels_and_labels(tmp_path: Path) -> None:
    digests = set()
    for index, (images, labels) in enumerate([(pictures(2), [0, 1]), (pictures(2), [1, 0]), (pictures(2, seed=1), [0, 1])]):
        np.savez(tmp_path / f"{index}.npz", images=images, labels=np.array(labels))
        digests.add(load_images(DataSource(file=f"{index}.npz"), make_card(tmp_path)).sha256)
    assert len(digests) == 3
    np.savez_compressed(tmp_path / "again.npz", images=pictures(2), labels=np.array([0, 1], np.int8))
    assert load_images(DataSource(file="again.npz"), make_card(tmp_path)).sha256 in digests


def test_the_offset_turns_labels_into_outputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=pictures(2), labels=np.array([0, 9]))
    labels = {"count": 11, "offset": 1}
    found = load_images(DataSource(file="set.npz"), make_card(tmp_path, labels=labels))
    assert found.labels is not None and found.labels.tolist() == [1, 10]
    np.savez(tmp_path / "set.npz", images=pictures(2), labels=np.array([0, 10]))
    text = failure(tmp_path, DataSource(file="set.npz"), labels=labels)
    assert "set.npz, row 1: the label 10 is out of range; expected -1 to 9" in text


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"pictures": pictures(2)}, "holds pictures; expected 'images' and 'labels'"),
        ({"images": pictures(2), "labels": np.array([0])}, "2 images but 1 labels"),
        ({"images": pictures(2), "labels": np.array([0.0, 1.0])}, "type float64; expected integers"),
        ({"images": pictures(2), "labels": np.array([[0, 1]])}, r"shape \(1, 2\)"),
        ({"images": pictures(2), "labels": np.array([0, 10])}, "row 1: the label 10 is out of range; expected 0 to 9"),
        ({"images": pictures(2), "labels": np.array([0, -1])}, "row 1: the label -1 is out of range"),
        ({"images": pictures(2)[:0], "labels": np.zeros(0, int)}, "holds no pictures"),
        ({"images": pictures(2)[0, 0], "labels": np.zeros(8, int)}, r"shape \(8, 3\)"),
        ({"images": np.array([{}, {}]), "labels": np.array([0, 1])}, "plain arrays"),
        ({"images": np.full((1, 8, 8), 300, np.uint16), "labels": np.array([0])}, "value 300"),
        ({"images": np.full((1, 8, 8), np.nan), "labels": np.array([0])}, "NaN"),
        ({"images": np.full((2, 8, 8), 0.5), "labels": np.array([0, 1])}, "floats from 0 to 1.*set maximum = 1.0"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(EvaluationDataError, match=reason):
        load_images(Evaluation(file="set.npz"), make_card(tmp_path))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    assert "set.npz" in failure(tmp_path, DataSource(file="set.npz"))


def test_a_cut_npz_is_not_left_open(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(EvaluationDataError) as caught:
        load_images(DataSource(file="set.npz"), make_card(tmp_path))
    assert caught.value.__traceback__ is not None  # which would keep it open
    assert str(path) not in {file.path for file in psutil.Process().open_files()}


def test_a_cut_or_damaged_npz_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", images=pictures(20), labels=np.zeros(20, int))
    content = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(content[: len(content) // 2])
    assert "set.npz" in failure(tmp_path, DataSource(file="set.npz"))
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 0xFF
    (tmp_path / "set.npz").write_bytes(bytes(damaged))
    assert "set.npz" in failure(tmp_path, DataSource(file="set.npz"))


def test_a_bare_array_and_a_missing_file_are_said(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", pictures(2))
    assert "is not an .npz" in failure(tmp_path, DataSource(file="set.npy"))
    assert "there is no data set at" in failure(tmp_path, DataSource(file="none.npz"))


def test_labels_beside_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=pictures(2))
    assert "remove 'labels'" in failure(tmp_path, DataSource(file="set.npz", labels="labels.csv"))


def test_an_expected_accuracy_needs_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=pictures(2))
    assert load_images(Evaluation(file="set.npz"), make_card(tmp_path)).labels is None
    assert "evaluation.top1 needs" in failure(tmp_path, Evaluation(file="set.npz", top1=0.9))


def test_a_folder_with_a_csv_is_loaded(tmp_path: Path) -> None:
    source = folder_set(tmp_path, "\ufefflabel, file\n7,2.png\n\n1,0.png\n")
    found = load_images(source, make_card(tmp_path))
    assert found.labels is not None and found.labels.tolist() == [7, 1]
    np.testing.assert_array_equal(found.images[0], pictures(3)[2])
    np.testing.assert_array_equal(found.images[1:][0], pictures(3)[0])
    assert preprocess(found.images, make_card(tmp_path), names=found.names).shape == (2, 8, 8, 3)


def test_a_label_can_be_a_name(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("background\ncat\ndog\n", encoding="utf-8")
    labels = {"count": 3, "file": "names.txt", "offset": 1}
    source = folder_set(tmp_path, "file,label\n0.png,dog\n1.png,1\n2.png,background\n")
    found = load_images(source, make_card(tmp_path, labels=labels))
    assert found.labels is not None and found.labels.tolist() == [2, 2, 0]
    folder_set(tmp_path, "file,label\n0.png,fish\n")
    assert "labels.csv, row 2: the label 'fish' is not in" in failure(tmp_path, source, labels=labels)


def test_a_name_that_two_classes_share_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("crane\nship\ncrane\n", encoding="utf-8")
    source = folder_set(tmp_path, "file,label\n0.png,crane\n")
    assert "'crane' is not in" in failure(tmp_path, source, labels={"count": 3, "file": "names.txt"})


def test_a_labels_file_has_one_name_a_class(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\n", encoding="utf-8")
    source = folder_set(tmp_path, "file,label\n0.png,a\n")
    assert "2 names, labels.count is 3" in failure(tmp_path, source, labels={"count": 3, "file": "names.txt"})
    seeded = DataSource(seed=1, count=2)  # whether it uses the names or not
    assert "2 names, labels.count is 1" in failure(tmp_path, seeded, labels={"count": 1, "file": "names.txt"})
    assert "cannot be read" in failure(tmp_path, source, labels={"count": 3, "file": "none.txt"})


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "begins with the columns []"),
        ("picture,label\n0.png,1\n", "begins with the columns ['picture', 'label']"),
        ("file,label\n", "lists no pictures"),
        ("file,label\n0.png,1\n9.png,1\n", "row 3: the picture"),
        ("file,label\n0.png,1\n\n1.png\n", "row 4: the label of '1.png' is missing"),
        ("file,label\n0.png,\n", "row 2: the label of '0.png' is missing"),
        ("file,label\n,1\n", "row 2: the file is missing"),
        ("file,label\n0.png,10\n", "row 2: the label 10 is out of range; expected 0 to 9"),
        ("file,label\n0.png,cat\n", "row 2: the label 'cat' is no integer, and the card has no labels.file"),
        ("file,label\n0.png,1\n1.png,2\n./0.png,1\n", "row 4: './0.png' is in row 2 already"),
        ("file,label\n0.png,1,2\n", "row 2: found 3 cells, expected 2"),
        ("file,label\n../labels.csv,1\n", "row 2: the file '../labels.csv' is not inside"),
        ("file,label\n/etc/passwd,1\n", "row 2: the file '/etc/passwd' is not inside"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_its_row(tmp_path: Path, rows: str, reason: str) -> None:
    text = failure(tmp_path, folder_set(tmp_path, rows))
    assert "labels.csv" in text and reason in text


def test_a_csv_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    source = folder_set(tmp_path, "file,label\n")
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    assert "not a CSV in UTF-8" in failure(tmp_path, source)
    (tmp_path / "labels.csv").unlink()
    assert "there is no file" in failure(tmp_path, source)


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    source = folder_set(tmp_path, "file,label\n0.png,1\n1.png,2\n")
    whole = (tmp_path / "pictures" / "1.png").read_bytes()
    (tmp_path / "pictures" / "1.png").write_bytes(whole[: len(whole) // 2])
    assert "1.png cannot be read" in failure(tmp_path, source)
    (tmp_path / "pictures" / "1.png").write_bytes(b"no picture")
    assert "1.png is not a picture" in failure(tmp_path, source)


def test_a_folder_without_a_csv_is_taken_in_the_order_of_its_names(tmp_path: Path) -> None:
    folder_set(tmp_path, "")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture", encoding="utf-8")
    found = load_images(DataSource(file="pictures"), make_card(tmp_path))
    assert found.labels is None and found.names == ("0.png", "1.png", "2.png")
    assert len(load_images(DataSource(file="pictures", limit=2), make_card(tmp_path))) == 2
    (tmp_path / "empty").mkdir()
    assert "there is no picture in" in failure(tmp_path, DataSource(file="empty"))


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("L", (8, 8)),
        ("1", (8, 8)),
        ("LA", (8, 8)),
        ("RGB", (8, 8, 3)),
        ("RGBA", (8, 8, 3)),
        ("P", (8, 8, 3)),
        ("CMYK", (8, 8, 3)),
    ],
)
def test_all_kinds_of_pictures_become_grey_or_colour(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    (tmp_path / "pictures").mkdir()
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(pictures(1)[0]).convert(mode).save(tmp_path / "pictures" / f"a.{suffix}")
    assert load_images(DataSource(file="pictures"), make_card(tmp_path)).images[0].shape == shape


def test_sixteen_bits_need_a_card_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "pictures" / "a.png")
    text = failure(tmp_path, DataSource(file="pictures"))
    assert "40000" in text and "16 bits" in text and "preprocessing.maximum" in text
    found = load_images(DataSource(file="pictures"), make_card(tmp_path, maximum=65535.0))
    assert found.images[0].max() == 40000


def test_a_fetched_folder_finds_its_csv_in_the_archive(tmp_path: Path) -> None:
    folder_set(tmp_path, "file,label\n0.png,1\n")
    fetched = FetchedData(tmp_path / "pictures", tmp_path)
    source = DataSource(url="https://h/a.zip", labels="labels.csv", member="pictures")
    assert len(load_images(source, make_card(tmp_path / "elsewhere"), fetched)) == 1
    with pytest.raises(EvaluationDataError, match="has not been fetched"):
        load_images(source, make_card(tmp_path))


def test_seeded_pictures_are_the_same_everywhere(tmp_path: Path) -> None:
    card = make_card(tmp_path, (32, 24, 3))
    found = seeded_images(card, 4, 7)
    assert found.labels is None and len(found) == 4
    assert {image.shape for image in found.images} == {(32, 24, 3)} and found.images[0].dtype == np.uint8
    # The stream that they are drawn from is frozen; a change here makes all baselines with seeded pictures worthless.
    assert found.sha256 == "6eb636dc8a770acd8e0d4ef0491c50362fc06fc0f3476849dc41b15c94d6e571"
    assert seeded_images(card, 4, 8).sha256 != found.sha256
    assert seeded_images(card, 2, 7).picture_digests == found.picture_digests[:2]
    by_source = load_images(DataSource(seed=7, count=4), card)
    assert by_source.sha256 == found.sha256


def test_seeded_pictures_are_smooth_and_differ_in_the_large(tmp_path: Path) -> None:
    found = seeded_images(make_card(tmp_path, (64, 64, 3)), 16, 1)
    images = np.stack(list(found.images)).astype(float)
    assert np.abs(np.diff(images, axis=1)).mean() < 12  # plain noise: 85
    assert images.mean(axis=(1, 2)).std(axis=0).min() > 8  # plain noise: 1


def test_seeded_pictures_keep_to_the_cards_range(tmp_path: Path) -> None:
    found = seeded_images(make_card(tmp_path, (8, 8, 1), channel_order="grayscale", maximum=16.0), 20, 1)
    highest = max(image.max() for image in found.images)
    assert 12 <= highest <= 16 and found.images[0].shape == (8, 8, 1)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]), seed=st.integers(0, 2**32 - 1))
def test_seeded_pictures_fit_any_input(height: int, width: int, channels: int, seed: int) -> None:
    order = "rgb" if channels == 3 else "grayscale"
    card = make_card(Path(), (height, width, channels), channel_order=order, scaling="zero_to_one")
    result = preprocess(seeded_images(card, 2, seed).images, card)
    assert result.shape == (2, height, width, channels) and result.min() >= 0 and result.max() <= 1


def image_set(folder: Path, images: NDArray[Any], name: str) -> ImageSet:
    np.savez(folder / name, images=images)
    return load_images(DataSource(file=name), make_card(folder))


def test_a_picture_in_both_sets_is_an_error(tmp_path: Path) -> None:
    evaluation = image_set(tmp_path, pictures(5), "evaluation.npz")
    card = make_card(tmp_path)
    check_disjoint(evaluation, image_set(tmp_path, pictures(5, seed=1), "calibration.npz"), card)
    mixed = np.concatenate([pictures(2, seed=1), pictures(5)[3:4]])
    with pytest.raises(EvaluationDataError, match=r"1 of 3 calibration pictures .* 2 of calibration.npz .* 3 of evaluation.npz"):
        check_disjoint(evaluation, image_set(tmp_path, mixed, "calibration.npz"), card)


def test_a_calibration_set_of_one_picture_is_refused_and_one_of_a_few_is_told(tmp_path: Path) -> None:
    card = make_card(tmp_path)
    for images, words in (
        (pictures(1), "holds one picture,"),
        (np.repeat(pictures(1), 50, axis=0), "holds one picture again and again,"),
    ):
        with pytest.raises(EvaluationDataError, match=words) as failure:
            require_calibration_pictures(image_set(tmp_path, images, "calibration.npz"), card)
        assert len(str(failure.value).splitlines()) == 1
    few = require_calibration_pictures(image_set(tmp_path, pictures(31), "calibration.npz"), card)
    assert few is not None and "is calibrated on 31 different pictures only" in few
    assert require_calibration_pictures(image_set(tmp_path, pictures(32), "calibration.npz"), card) is None


def test_a_picture_in_both_sets_is_found_however_it_is_stored(tmp_path: Path) -> None:
    grey = pictures(2, shape=(8, 8))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(grey[0]).save(tmp_path / "pictures" / "a.png")
    calibration = load_images(DataSource(file="pictures"), make_card(tmp_path))
    for images in (grey, grey[:, :, :, None], grey.astype(np.float64)):
        with pytest.raises(EvaluationDataError, match="1 of 1 calibration pictures"):
            check_disjoint(image_set(tmp_path, images, "evaluation.npz"), calibration, make_card(tmp_path))
