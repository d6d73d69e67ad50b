"""What a card asks of the converter of TensorFlow Lite."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_inference_gate.agent.backends.tflite import PER_TENSOR_DENSE, _choose_dense_scales
from pytest_inference_gate.agent.failures import BuildError

TENSORFLOW = SimpleNamespace(__version__="2.16.2")


@pytest.mark.parametrize(
    ("options", "switch"), [({}, "as it was"), ({"per_channel_dense": False}, True), ({"per_channel_dense": True}, False)]
)
def test_the_switch_of_a_converter_that_has_it(options: dict[str, bool], switch: object) -> None:
    converter = SimpleNamespace(**{PER_TENSOR_DENSE: "as it was"})
    _choose_dense_scales(TENSORFLOW, converter, options)
    assert getattr(converter, PER_TENSOR_DENSE) == switch


def test_a_converter_without_it_says_so() -> None:
    _choose_dense_scales(TENSORFLOW, SimpleNamespace(), {})
    with pytest.raises(
        BuildError, match=r"TensorFlow 2\.16\.2 cannot choose .* leave per_channel_dense out of \[options\.tflite\]"
    ):
        _choose_dense_scales(TENSORFLOW, SimpleNamespace(), {"per_channel_dense": False})
