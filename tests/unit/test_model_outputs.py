"""The order of a model's outputs, and all of them in one file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.agent import batches, model_outputs
from pytest_inference_gate.agent.failures import AgentError


@given(st.permutations(range(12)), st.sampled_from(["output_{}", "output_{}:0", "StatefulPartitionedCall:{}"]))
def test_numbers_in_names_tell_the_order(numbers: list[int], pattern: str) -> None:
    names = [pattern.format(number) for number in numbers]
    assert [numbers[place] for place in model_outputs.in_order(names)] == list(range(12))


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["TFLite_Detection_PostProcess:2", "TFLite_Detection_PostProcess", "TFLite_Detection_PostProcess:1"], [1, 2, 0]),
        (["Identity_1:0", "Identity:0"], [0, 1]),  # two operations: the model's own order
        (["scores", "boxes"], [0, 1]),
        (["output_1", "boxes"], [0, 1]),
        (["call:0", "call"], [0, 1]),  # the same output, twice
        (["output"], [0]),
        ([], []),
    ],
)
def test_other_names_stay_as_the_model_has_them(names: list[str], order: list[int]) -> None:
    assert model_outputs.in_order(names) == order


def test_the_outputs_of_a_signature_have_no_order_but_their_names() -> None:
    assert model_outputs.sorted_names({"output_10": 1, "output_2": 1, "output_0": 1}) == ["output_0", "output_2", "output_10"]
    assert model_outputs.sorted_names({"scores": 1, "boxes": 1}) == ["boxes", "scores"]


class Detector:
    """Gives what it was told to for each batch: boxes as the pictures' first value, and their number as a whole number."""

    def __init__(self, sizes: list[int] | None = None) -> None:
        self._sizes = iter(sizes or [])

    def set_inputs(self, array: Any) -> None:
        self._array = array

    def infer(self) -> None:
        count = next(self._sizes, 2)
        self._boxes = numpy.repeat(self._array[:, None, :1], count, axis=1)

    def get_outputs(self) -> list[Any]:
        return [self._boxes, numpy.arange(len(self._array), dtype="int64")]


def predict(folder: Path, runner: Any, count: int = 5, size: int = 2) -> Any:
    numpy.save(folder / "inputs.npy", numpy.arange(count * 3, dtype="float32").reshape(count, 3))
    assert batches.predict(runner, size, str(folder / "inputs.npy"), str(folder / "outputs.npz"), all_outputs=True) == count
    return numpy.load(folder / "outputs.npz", allow_pickle=False)


def test_all_outputs_of_all_pictures_are_in_one_file(tmp_path: Path) -> None:
    with predict(tmp_path, Detector()) as archive:
        assert archive.files == ["output_0", "output_1"]
        assert (archive["output_0"].shape, archive["output_0"].dtype) == ((5, 2, 1), numpy.float32)
        assert archive["output_0"][:, 1, 0].tolist() == [0, 3, 6, 9, 12]
        assert archive["output_1"].tolist() == [0, 1, 0, 1, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.npy", "outputs.npz"]


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        (
            Detector([2, 3]),
            "output 0 of the model has the shape (2, 1) for one picture and (3, 1) for another: have the model pad",
        ),
        (SimpleNamespace(set_inputs=len, infer=dict, get_outputs=lambda: [numpy.zeros((3, 4))]), "no row for each of 2 pictures"),
        (
            SimpleNamespace(set_inputs=len, infer=dict, get_outputs=lambda: [numpy.float32(1)]),
            "has the shape (), which is no row",
        ),
        (SimpleNamespace(set_inputs=len, infer=dict), "its Runner has no get_outputs"),
    ],
)
def test_what_is_no_detector_s_answer_is_refused_and_leaves_no_file(tmp_path: Path, runner: Any, words: str) -> None:
    with pytest.raises(AgentError) as caught:
        predict(tmp_path, runner)
    assert words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.npy"]
