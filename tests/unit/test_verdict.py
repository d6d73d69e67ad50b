from __future__ import annotations

import itertools

import pytest

from pytest_inference_gate.outcome import OK, Outcome
from pytest_inference_gate.verdict import (
    RELAXABLE,
    SEVERITY,
    Verdict,
    effect,
    gate_is_red,
    letter,
    of_outcome,
    run_is_red,
    word,
    worst,
)

# The table of verdicts: what becomes of the test, and whether the gate closes.
TABLE = {
    "pass": ("pass", False),
    "faster": ("pass", False),
    "slower": ("fail", True),
    "inaccurate": ("fail", True),
    "fallback": ("fail", True),
    "over_limit": ("fail", True),
    "broken": ("fail", True),
    "known_broken": ("xfail", False),
    "fixed": ("pass", False),
    "no_baseline": ("error", True),
    "inconclusive": ("fail", True),
    "invalid": ("fail", True),
    "ungateable": ("fail", True),
    "unsupported": ("skip", False),
}


def test_the_table_names_every_verdict() -> None:
    assert {verdict.value for verdict in Verdict} == set(TABLE)
    assert sorted(SEVERITY) == sorted(Verdict)
    assert len(set(SEVERITY)) == len(SEVERITY)


@pytest.mark.parametrize(("name", "expected"), TABLE.items())
def test_effect_and_colour(name: str, expected: tuple[str, bool]) -> None:
    assert (effect(name), gate_is_red(name)) == expected


@pytest.mark.parametrize("name", TABLE)
def test_a_verdict_prints_as_its_name(name: str) -> None:
    verdict = Verdict(name)
    assert verdict == name
    assert str(verdict) == f"{verdict}" == f"{verdict:>3}".strip() == name


def test_only_three_can_be_relaxed() -> None:
    everything = set(TABLE)
    turned_green = {name for name in TABLE if gate_is_red(name) and not gate_is_red(name, everything)}
    assert turned_green == {"inconclusive", "invalid", "ungateable"} == set(RELAXABLE)
    assert {name for name in TABLE if effect(name) != effect(name, everything)} == turned_green
    assert all(effect(name, everything) == "pass" for name in turned_green)
    assert gate_is_red("invalid", {"inconclusive"})


def test_worst_never_lets_a_green_or_relaxed_one_hide_a_red_one() -> None:
    for first, second in itertools.product(Verdict, repeat=2):
        chosen = worst([first, second])
        assert chosen in (first, second)
        assert chosen == worst([second, first])
        for relaxed in (frozenset[Verdict](), RELAXABLE):
            assert gate_is_red(chosen, relaxed) == (gate_is_red(first, relaxed) or gate_is_red(second, relaxed))


def test_worst_of_one_of_many_and_of_none() -> None:
    assert worst(["pass"]) is Verdict.PASS
    assert worst(["pass", "slower", "inaccurate", "faster"]) is Verdict.INACCURATE
    with pytest.raises(ValueError, match="no verdict"):
        worst([])
    with pytest.raises(ValueError, match="fine"):
        worst(["fine"])


def test_letters_are_one_character_and_own_where_the_gate_could_not_tell() -> None:
    assert all(len(letter(verdict)) == 1 for verdict in Verdict)
    own = {letter(verdict) for verdict in RELAXABLE}
    assert len(own) == 3
    assert own.isdisjoint(letter(verdict) for verdict in Verdict if verdict not in RELAXABLE)
    assert own.isdisjoint(".FEsxX")
    assert len({word(verdict) for verdict in Verdict}) == len(Verdict)


def test_a_run_is_red_when_one_case_is_or_when_nothing_ran() -> None:
    assert not run_is_red(["pass", "known_broken", "unsupported"])
    assert run_is_red(["pass", "slower"])
    assert run_is_red(["pass", "inconclusive"])
    assert not run_is_red(["pass", "inconclusive"], {"inconclusive"})
    assert run_is_red(["unsupported", "unsupported"])
    assert run_is_red([])


def test_verdict_of_an_outcome() -> None:
    crash = Outcome("crash", "convert", "it died", "SIGSEGV")
    assert of_outcome(OK) is Verdict.PASS
    assert of_outcome(OK, broken_in_baseline=True) is Verdict.FIXED
    assert of_outcome(crash) is Verdict.BROKEN
    assert of_outcome(crash, broken_in_baseline=True) is Verdict.KNOWN_BROKEN
    assert of_outcome(Outcome("unsupported", "convert")) is Verdict.UNSUPPORTED
    # Not having the checkpoint says nothing of the case, so it is never an expected failure.
    assert of_outcome(Outcome("fetch_error", "fetch"), broken_in_baseline=True) is Verdict.BROKEN
