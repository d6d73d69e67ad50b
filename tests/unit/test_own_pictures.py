"""A user's pictures: which classes they are of, which ones are evaluated on, and the sentences where they are of no use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pytest_inference_gate.own_model import InitError
from pytest_inference_gate.own_model.chosen_pictures import choose_pictures
from pytest_inference_gate.own_model.labelled_pictures import Entry, LabelledPictures, find_pictures
from pytest_inference_gate.own_model.picture_split import FEWEST_TO_DIVIDE, divide


def put(folder: Path, *names: str, shade: int = 0) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5), shade + number, np.uint8)).save(path)


def places(found: LabelledPictures) -> list[tuple[str, int | None, str]]:
    return [(entry.place, entry.label, entry.part) for entry in found.entries]


# Folders


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "b/1.png", "a/deeper/2.JPG", "B/3.png", ".hidden/4.png", "__MACOSX/5.png")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    found = find_pictures(tmp_path)
    assert found.classes == ("B", "a", "b")  # capitals first, as Keras and torchvision sort
    assert places(found) == [("B/3.png", 0, ""), ("a/deeper/2.JPG", 1, ""), ("b/1.png", 2, "")]
    assert found.read(found.entries[0]).shape == (4, 5)


def test_a_division_into_train_and_test_is_kept(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png", "test/a/5.png", "test/b/6.png")
    assert {(entry.place[:4], entry.part) for entry in find_pictures(tmp_path).entries} == {
        ("test", "evaluation"),
        ("trai", "calibration"),
    }


def test_a_class_called_test_among_others_is_a_class(tmp_path: Path) -> None:
    put(tmp_path, "test/a.png", "cat/b.png")
    assert find_pictures(tmp_path).classes == ("cat", "test")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "set/a/1.png", "elsewhere/2.png", "set/b/3.png")
    (tmp_path / "set" / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set" / "a")
    assert [entry.place for entry in find_pictures(tmp_path / "set").entries] == ["a/1.png", "a/more/2.png", "b/3.png"]


def test_pictures_without_sub_folders_have_no_labels(tmp_path: Path) -> None:
    put(tmp_path, "2.png", "1.png")
    found = find_pictures(tmp_path)
    assert not found.labelled
    assert places(found) == [("1.png", None, ""), ("2.png", None, "")]


def test_folders_that_are_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(InitError, match="there are no pictures at"):
        find_pictures(tmp_path / "missing")
    with pytest.raises(InitError, match="there is no picture in"):
        find_pictures(tmp_path)
    put(tmp_path, "only/1.png")
    with pytest.raises(InitError, match=r"of one class \(only\)"):
        find_pictures(tmp_path)
    (tmp_path / "empty").mkdir()
    put(tmp_path, "other/2.png")
    with pytest.raises(InitError, match="class 'empty' in .* has no pictures"):
        find_pictures(tmp_path)


# CSV


def test_a_csv_with_names_and_with_numbers(tmp_path: Path) -> None:
    put(tmp_path, "p/1.png", "p/2.png", "q/3.png")
    table = tmp_path / "labels.csv"
    table.write_text("id,Filename,Class\n7,p/1.png,dog\n8,./p/2.png,cat\n\n9,q/3.png,dog\n", encoding="utf-8-sig")
    found = find_pictures(table)
    assert found.classes == ("cat", "dog")
    assert (found.folder, places(found)) == (tmp_path, [("p/1.png", 1, ""), ("p/2.png", 0, ""), ("q/3.png", 1, "")])
    table.write_text("file,label\np/1.png,3\np/2.png,4\n")
    found = find_pictures(table)
    assert (found.classes, found.folder) == ((), tmp_path / "p")
    assert places(found) == [("1.png", 3, ""), ("2.png", 4, "")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x,y\n1,2\n", "begins with the columns 'x', 'y'"),
        ("", "begins with the columns none"),
        ("file,label\n", "lists no pictures"),
        ("file,label\n1.png\n", "row 2: the label is missing"),
        ("file,label\n1.png,a\ngone.png,b\nlost.png,b\n", "row 3: there is no picture at .*gone.png, and 1 more are missing too"),
        ("file,label\n1.png,a\n1.png,b\n", "gives 1.png two labels"),
        ("file,label\n1.png,a\n2.png,a\n", r"of one class \(a\)"),
    ],
)
def test_a_csv_that_is_of_no_use(tmp_path: Path, text: str, sentence: str) -> None:
    put(tmp_path, "1.png", "2.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InitError, match=sentence):
        find_pictures(tmp_path / "labels.csv")


# .npz


def test_arrays_and_their_division(tmp_path: Path) -> None:
    pictures = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    np.savez(tmp_path / "a.npz", images=pictures, labels=np.arange(6)[:, None] % 2)
    found = find_pictures(tmp_path / "a.npz")
    assert [entry.label for entry in found.entries] == [0, 1, 0, 1, 0, 1]
    assert (found.read(found.entries[1]) == pictures[1]).all()
    np.savez(tmp_path / "b.npz", x_train=pictures, y_train=np.arange(6) % 3, x_test=pictures[:3], y_test=np.arange(3))
    parts = [entry.part for entry in find_pictures(tmp_path / "b.npz").entries]
    assert (parts.count("evaluation"), parts.count("calibration")) == (3, 6)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"pixels": np.zeros((2, 2, 2))}, "holds pixels: expected the arrays 'images'"),
        ({"images": np.zeros((2, 4)), "labels": np.zeros(2, int)}, "have the shape"),
        ({"images": np.zeros((0, 2, 2)), "labels": np.zeros(0, int)}, "holds no pictures"),
        ({"images": np.zeros((2, 2, 2)), "labels": np.zeros(3, int)}, "expected 2 whole numbers"),
        ({"images": np.zeros((2, 2, 2)), "labels": np.zeros(2)}, "expected 2 whole numbers"),
    ],
)
def test_arrays_that_are_of_no_use(tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InitError, match=sentence):
        find_pictures(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InitError, match="not a readable .npz"):
        find_pictures(tmp_path / "b.npz")


# Dividing

entries = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10_000)), unique_by=lambda one: one[1], max_size=120).map(
    lambda drawn: [Entry(f"{label}/{number}.png", label) for label, number in drawn]
)


@given(entries, st.integers(2, 60), st.integers(2, 30), st.randoms())
def test_a_division_is_disjoint_bounded_balanced_and_the_same_each_time(
    drawn: list[Entry], evaluation: int, calibration: int, random: object
) -> None:
    evaluated, calibrated = divide(drawn, evaluation, calibration)
    assert not set(evaluated) & set(calibrated)
    assert len(evaluated) <= evaluation and len(calibrated) <= calibration
    assert bool(calibrated) == (len(drawn) >= FEWEST_TO_DIVIDE)
    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert divide(shuffled, evaluation, calibration) == (evaluated, calibrated)
    # As many of each class as there are, but for one.
    for label in {entry.label for entry in drawn}:
        have = sum(entry.label == label for entry in evaluated)
        there = sum(entry.label == label for entry in drawn)
        most = max((sum(entry.label == other.label for entry in evaluated) for other in evaluated), default=0)
        assert have == there or have >= min(most, there) - 1


def test_a_users_own_division_stays() -> None:
    drawn = [Entry(f"{part}{number}", number % 2, part) for part in ("evaluation", "calibration") for number in range(30)]  # type: ignore[arg-type]
    evaluated, calibrated = divide(drawn, 20, 10)
    assert {entry.part for entry in evaluated} == {"evaluation"} and len(evaluated) == 20
    assert {entry.part for entry in calibrated} == {"calibration"} and len(calibrated) == 10


# Choosing


def test_equal_pictures_are_on_one_side_and_sizes_and_scale_are_told(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/{number}.png" for number in range(15) for label in "ab"))
    chosen = choose_pictures(find_pictures(tmp_path), 500, 10, lambda _: None)
    assert (len(chosen.evaluation), len(chosen.calibration)) == (24, 6)
    assert chosen.all_are(4, 5) and not chosen.all_are(5, 4)
    assert chosen.maxima == (255.0, 29.0)  # the brightest of them is 29
    for path in tmp_path.rglob("*.png"):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    assert choose_pictures(find_pictures(tmp_path), 500, 10, lambda _: None).calibration == []


def test_pictures_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/{number}.png" for number in range(3) for label in "ab"))
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(InitError, match=r"\.png is not a picture that can be read; replace it. 1 more of the 6"):
        choose_pictures(find_pictures(tmp_path), 500, 10, lambda _: None)


@pytest.mark.parametrize(
    ("pixels", "maxima"),
    [
        (np.linspace(0, 1, 16, dtype=np.float32), (1.0,)),
        (np.arange(16, dtype=np.float32) + 1, (255.0, 16.0)),
        (np.full(16, 250, np.uint8), (255.0,)),
        (np.full(16, 4095, np.uint16), (65535.0, 4095.0)),
    ],
)
def test_what_the_largest_value_of_a_pixel_may_be(tmp_path: Path, pixels: np.ndarray, maxima: tuple[float, ...]) -> None:
    images = np.stack([pixels.reshape(4, 4)] * 4)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(4) % 2)
    chosen = choose_pictures(find_pictures(tmp_path / "a.npz"), 4, 2, lambda _: None)
    assert chosen.maxima == maxima
    assert chosen.packed(chosen.evaluation) == chosen.packed(chosen.evaluation)


def test_a_suite_does_not_lie_among_the_pictures_it_evaluates_on(tmp_path: Path) -> None:
    from pytest_inference_gate.own_model.making import _refuse_inside

    _refuse_inside(tmp_path / "gate", tmp_path / "pictures")
    with pytest.raises(InitError, match="lies in the folder of the pictures"):
        _refuse_inside(tmp_path / "pictures" / "gate", tmp_path / "pictures")
