"""In which order cases are measured, and what becomes of one that fails."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.label_count import check_loaded
from pytest_inference_gate.outcome import Outcome, StageFailed
from pytest_inference_gate.sweep import Plan, sweep


class Sweeper:
    """Runs ``sweep`` over cases that are only names, and notes what happened."""

    def __init__(self, fail_at: dict[str, int] | None = None) -> None:
        self.measured: list[str] = []
        self.told: list[tuple[int, int, str]] = []
        self.events: list[str] = []
        self.fail_at = fail_at or {}

    def measure(self, case: Any) -> None:
        self.measured.append(case.id)
        self.events.append(case.id)
        if self.measured.count(case.id) == self.fail_at.get(case.id):
            raise StageFailed(Outcome("crash", "measure", f"{case.id} died"))

    def run(self, counts: dict[str, int], seed: int = 0) -> dict[str, StageFailed]:
        cases: list[Any] = [SimpleNamespace(id=name) for name in counts]
        return sweep(
            cases,
            counts,
            self.measure,
            order=random.Random(seed),
            progress=lambda number, total, case: self.told.append((number, total, case.id)),
            before_pass=lambda: self.events.append("pass"),
        )


counts_of = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4), max_size=8)


@given(counts_of, st.integers(0, 1000))
def test_each_case_is_measured_as_often_as_wanted_once_a_pass(counts: dict[str, int], seed: int) -> None:
    sweeper = Sweeper()
    assert sweeper.run(counts, seed) == {}
    assert Counter(sweeper.measured) == Counter(counts)
    passes = " ".join(sweeper.events).split("pass")
    assert all(len(set(one.split())) == len(one.split()) for one in passes)
    # The passes get shorter as those are done that want fewer, and something is called before each.
    assert [len(one.split()) for one in passes[1:]] == [
        sum(count > number for count in counts.values()) for number in range(max(counts.values(), default=0))
    ]
    assert not passes[0].strip()


@given(counts_of)
def test_progress_counts_to_the_end(counts: dict[str, int]) -> None:
    sweeper = Sweeper()
    sweeper.run(counts)
    total = sum(counts.values())
    assert sweeper.told == [(number, total, name) for number, name in enumerate(sweeper.measured, start=1)]


def test_the_order_is_another_one_in_each_pass_and_the_same_for_the_same_seed() -> None:
    runs = []
    for seed in (1, 1, 2):
        sweeper = Sweeper()
        sweeper.run(dict.fromkeys("abcdefgh", 3), seed)
        runs.append(sweeper.measured)
    assert runs[0] == runs[1] != runs[2]
    passes = [tuple(runs[0][start : start + 8]) for start in (0, 8, 16)]
    assert len(set(passes)) == 3
    assert all(sorted(one) == list("abcdefgh") for one in passes)


def test_a_case_that_fails_is_left_out_of_later_passes_and_told() -> None:
    sweeper = Sweeper(fail_at={"b": 2, "c": 1})
    failed = sweeper.run({"a": 4, "b": 4, "c": 4})
    assert Counter(sweeper.measured) == {"a": 4, "b": 2, "c": 1}
    assert {name: failure.outcome.message for name, failure in failed.items()} == {"b": "b died", "c": "c died"}
    assert [number for number, _, _ in sweeper.told] == list(range(1, 8))
    assert sweeper.told[-1][1] == 7  # what will not be measured any more is no longer counted


def test_any_other_error_ends_it() -> None:
    def interrupt(case: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(
            [SimpleNamespace(id="a")],  # type: ignore[list-item]
            {"a": 1},
            interrupt,
            order=random.Random(0),
            progress=lambda number, total, case: None,
        )


def test_a_plan_takes_what_a_user_asked_for() -> None:
    assert Plan.of(None, None) == Plan()
    assert Plan.of(20, None).rounds == {"minimum": 20, "minimum_seconds": 0.0, "maximum": 20}
    assert Plan.of(None, 2.0).warm_up["minimum_seconds"] == 2.0
    assert Plan.of(None, 2.0).warm_up["maximum_seconds"] == 20.0
    assert Plan.of(None, 0.01).warm_up["maximum_seconds"] == 5.0


@pytest.mark.parametrize(
    ("shape", "found"), [([1, 10], None), ([4, 2, 5], None), ([1, 9], 9), ([1, 1001], 1001), ([1, None], None), ([], None)]
)
def test_a_model_with_another_number_of_values_than_labels_is_not_measured(shape: list[Any], found: int | None) -> None:
    card = SimpleNamespace(labels=SimpleNamespace(count=10), task="classification", path="models/m.toml")
    case = cast(Any, SimpleNamespace(card=card))
    with contextlib.nullcontext() if found is None else pytest.raises(StageFailed) as caught:
        check_loaded(case, {"outputs": [{"shape": shape}]})
    if found is not None:
        assert caught.value.outcome.kind == "load_error"
        assert f"the model gives {found} values for a picture, and labels.count of models/m.toml is 10" in str(caught.value)
