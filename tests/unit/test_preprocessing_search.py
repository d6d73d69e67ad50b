"""Finding out how pictures were made ready: candidates, the race between them, and the order of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.cards import Input
from pytest_inference_gate.own_model import InitError
from pytest_inference_gate.own_model.described_model import DescribedModel
from pytest_inference_gate.own_model.labellings import Labelling, named_labellings, numbered_labellings
from pytest_inference_gate.own_model.model_file import ModelFile
from pytest_inference_gate.own_model.preprocessing_candidates import (
    Candidate,
    likely_scaling,
    resize_candidates,
    scaling_candidates,
    scaling_of_normalization,
)
from pytest_inference_gate.own_model.preprocessing_race import beats_chance, standing
from pytest_inference_gate.own_model.preprocessing_search import search


def a_model(channels: int = 3, **more: Any) -> DescribedModel:
    taken = {"dtype": more.pop("dtype", "float32"), "layout": more.pop("layout", "nhwc")}
    settings = {"batch": None, "classes": 10, **more}
    return DescribedModel(ModelFile(Path("m"), "keras"), Input(shape=(8, 8, channels), **taken), **settings)


# Candidates


@pytest.mark.parametrize(
    ("model", "scaling"),
    [
        (a_model(), "zero_to_one"),
        (a_model(scaling_inside=("Rescaling(scale = 0.003)",)), "none"),
        (a_model(dtype="uint8"), "none"),
        (a_model(normalization=((127.0,), (128.0,))), "minus_one_to_one"),
        (a_model(input_scale=1 / 255), "zero_to_one"),
        (a_model(input_scale=0.0078), "minus_one_to_one"),
        (a_model(family="mine mobilenetv2_1.00_224"), "minus_one_to_one"),
        (a_model(family="resnet50"), "imagenet_mean_bgr"),
        (a_model(family="resnet50v2"), "minus_one_to_one"),
        (a_model(family="mobilenetv3small"), "none"),
        (a_model(family="torchvision.models.resnet18"), "imagenet_mean_std"),
        (a_model(channels=1, family="resnet50"), "zero_to_one"),
    ],
)
def test_what_the_file_makes_most_probable_comes_first(model: DescribedModel, scaling: str) -> None:
    assert likely_scaling(model) == scaling
    assert scaling_candidates(model, (255.0,), same_size=False)[0].scaling == scaling


def test_normalizations_that_a_card_has_a_name_for() -> None:
    assert scaling_of_normalization([0.0], [255.0]) == "zero_to_one"
    assert scaling_of_normalization([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]) == "imagenet_mean_std"
    assert scaling_of_normalization([127.5] * 3, [127.5]) == "minus_one_to_one"
    assert scaling_of_normalization([33.0], [78.0]) is None


def test_every_scaling_is_tried_with_every_order_and_no_more_than_once() -> None:
    colour = scaling_candidates(a_model(), (255.0, 16.0), same_size=True)
    assert len(colour) == len(set(colour))
    assert {(one.scaling, one.channel_order) for one in colour if one.maximum == 255.0} == {
        *(
            (scaling, order)
            for scaling in ("none", "zero_to_one", "minus_one_to_one", "imagenet_mean_std")
            for order in ("rgb", "bgr")
        ),
        ("imagenet_mean_bgr", "bgr"),
    }
    assert {one.resize for one in colour} == {"none"}
    assert not any(one.maximum == 16.0 for one in colour if one.scaling == "none")
    grey = scaling_candidates(a_model(channels=1), (255.0,), same_size=False)
    assert [one.scaling for one in grey] == ["zero_to_one", "minus_one_to_one", "none"]
    assert {one.scaling for one in scaling_candidates(a_model(dtype="uint8"), (255.0,), same_size=False)} == {"none"}


def test_cropping_is_tried_where_it_makes_a_difference() -> None:
    chosen = scaling_candidates(a_model(), (255.0,), same_size=False)[0]
    assert {one.resize for one in resize_candidates(chosen, a_model(), [(16, 16)])} == {"resize"}
    assert {one.resize for one in resize_candidates(chosen, a_model(), [(16, 16), (16, 20)])} == {"resize", "resize_and_crop"}
    as_they_are = scaling_candidates(a_model(), (255.0,), same_size=True)[0]
    assert resize_candidates(as_they_are, a_model(), [(8, 8)]) == []


# The race


def hits(right: int, count: int) -> np.ndarray:
    return np.arange(count) < right


def test_the_clearly_best_one_wins_whatever_was_probable() -> None:
    now = standing([hits(10, 64), hits(60, 64), hits(12, 64)])
    assert (now.best, now.rivals) == (1, ())


def test_what_cannot_be_told_apart_is_said_and_the_probable_one_is_taken() -> None:
    now = standing([hits(59, 64), hits(60, 64), hits(12, 64)])
    assert (now.best, now.rivals) == (0, (1,))


def test_a_probable_one_that_falls_behind_is_not_taken() -> None:
    now = standing([hits(55, 64), hits(60, 64)])
    assert (now.best, now.rivals) == (1, (0,))


@given(st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=1, max_size=6))
def test_the_best_is_hardly_behind_the_one_with_most_right(drawn: list[list[bool]]) -> None:
    right = [np.array(one) for one in drawn]
    now = standing(right)
    leader = max(right, key=lambda one: one.sum())
    assert now.best not in now.rivals
    assert leader.sum() - right[now.best].sum() <= 5


def test_chance() -> None:
    assert beats_chance(20, 32, 10)
    assert not beats_chance(5, 32, 10)
    assert not beats_chance(0, 32, 10)
    assert not beats_chance(18, 32, 2)


# The order of the classes


def test_classes_by_name_by_number_and_behind_a_background() -> None:
    plain = named_labellings(["cat", "dog"], 2, None, "", strict=False)
    assert plain[0].outputs == {0: 0, 1: 1} and plain[-1].outputs is None
    behind = named_labellings(["cat", "dog"], 3, None, "", strict=False)
    assert [one.outputs for one in behind] == [{0: 1, 1: 2}, {0: 0, 1: 1}, None]
    numbers = sorted(str(number) for number in range(12))
    orders = [one.outputs for one in named_labellings(numbers, 12, None, "", strict=False)]
    assert orders[1] is not None and orders[1][numbers.index("10")] == 10 and orders[1][numbers.index("2")] == 2
    assert named_labellings(["cat", "dog"], 1000, None, "", strict=False)[0].outputs is None


def test_names_of_outputs_say_the_order() -> None:
    names = ["background", "Golden_Retriever", "cat"]
    (only,) = named_labellings(["cat", "golden retriever"], 3, names, "labels.txt", strict=True)
    assert only.outputs == {0: 2, 1: 1}
    with pytest.raises(InitError, match=r"class 'fox' is not among the 3 names in labels.txt"):
        named_labellings(["cat", "fox"], 3, names, "labels.txt", strict=True)
    with pytest.raises(InitError, match="labels.txt has 3 names, and the model 4 outputs"):
        named_labellings(["cat", "dog"], 4, names, "labels.txt", strict=True)
    # Those inside the file may be of something else: they are only used where they fit.
    assert named_labellings(["fox", "owl", "cat"], 3, names, "the file", strict=False)[0].outputs == {0: 0, 1: 1, 2: 2}
    with pytest.raises(InitError, match="3 classes and the model has 2 outputs"):
        named_labellings(["a", "b", "c"], 2, None, "", strict=False)


def test_numbers_may_begin_with_one_or_leave_room_for_a_background() -> None:
    assert [one.offset for one in numbered_labellings([0, 1, 9], 10)] == [0]
    assert [one.offset for one in numbered_labellings([1, 10], 10)] == [-1]
    assert [one.offset for one in numbered_labellings([0, 9], 11)] == [0, 1]
    with pytest.raises(InitError, match="labels go from 0 to 10, and the model has 10 outputs"):
        numbered_labellings([0, 10], 10)


def test_an_order_is_learned_from_answers_that_agree_and_not_from_those_that_are_all_alike() -> None:
    labels = np.arange(30) % 3
    answers = np.array([7, 2, 5])[labels]
    unknown = Labelling(None)
    assert unknown.right(answers, labels).all()
    learned = unknown.learned(answers, labels)
    assert learned is not None and learned.outputs == {0: 7, 1: 2, 2: 5}
    assert not unknown.right(np.full(30, 4), labels).any()
    assert unknown.learned(np.full(30, 4), labels) is None
    noise = np.random.default_rng(0).integers(0, 10, 30)
    assert unknown.right(noise, labels).mean() < 0.5


# All of it: a model that is right only where it sees what it was trained with


def found_by(wanted: dict[str, Any], labels: np.ndarray, order: np.ndarray, labellings: list[Labelling]) -> Any:
    asked: list[int] = []

    def answers(candidate: Candidate, start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        fits = all(getattr(candidate, key) == value for key, value in wanted.items())
        known = order[labels[start:stop]]
        return known if fits else np.where(np.arange(start, stop) % 5 == 0, known, 0)

    model = a_model()
    first = scaling_candidates(model, (255.0,), same_size=False)
    found = search(first, lambda best: resize_candidates(best, model, [(10, 12)]), labellings, labels, answers)
    return found, sum(asked)


def test_scaling_order_of_channels_and_cropping_are_found_by_few_pictures() -> None:
    labels = np.arange(256) % 10
    named = named_labellings([str(number) for number in range(10)], 10, None, "", strict=False)
    wanted = {"scaling": "minus_one_to_one", "channel_order": "bgr"}
    found, asked = found_by(wanted, labels, np.arange(10), named)
    assert found.better_than_chance and found.undecided == ()
    assert (found.chosen.candidate.scaling, found.chosen.candidate.channel_order) == ("minus_one_to_one", "bgr")
    assert found.chosen.right == found.chosen.count and found.tried[0] is found.chosen
    assert asked < 3000


def test_another_order_of_the_classes_is_learned() -> None:
    labels = np.arange(256) % 10
    order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    named = named_labellings([chr(97 + number) for number in range(10)], 10, None, "", strict=False)
    found, _ = found_by({"scaling": "zero_to_one", "channel_order": "rgb"}, labels, order, named)
    assert found.chosen.labelling.outputs is None and found.better_than_chance


def test_a_model_that_knows_nothing_of_the_pictures_is_told() -> None:
    labels = np.arange(256) % 10
    named = named_labellings([chr(97 + number) for number in range(10)], 10, None, "", strict=False)
    found, _ = found_by({"scaling": "no such one"}, labels, np.zeros(10, int), named)
    assert not found.better_than_chance


def test_what_the_pictures_do_not_decide_is_named() -> None:
    labels = np.arange(40) % 10
    named = named_labellings([str(number) for number in range(10)], 10, None, "", strict=False)
    answers = {"rgb": labels.copy(), "bgr": labels.copy()}
    answers["bgr"][7] = 9

    first = [Candidate("none", "bilinear", order, "zero_to_one", 255.0) for order in ("rgb", "bgr")]
    found = search(first, lambda _: [], named, labels, lambda one, start, stop: answers[one.channel_order][start:stop])
    assert found.undecided == ("channel_order",) and found.chosen.candidate.channel_order == "rgb"
