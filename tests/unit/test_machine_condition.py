"""Which verdicts on latency the machine's condition takes back, and which it must leave alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from pytest_inference_gate.machine.condition import (
    FLOORS,
    FLOORS_WHERE_SPREAD_IS_UNKNOWN,
    KERNELS,
    SESSIONS_THAT_TELL,
    SPREADS_OF_FEW,
    CanaryShift,
    Disturbance,
    canary_of_session,
    canary_shifts,
    disturbing_load,
    is_disturbed,
    load_by_others,
    remarks,
    stolen_share,
    veto,
)
from pytest_inference_gate.verdict import Verdict

TICKS = 100


def moment(*, at: float = 0.0, busy: float = 0.0, steal: float = 0.0, cores: int = 2) -> dict[str, Any]:
    """A condition; ``busy`` and ``steal`` in seconds of all cores together."""
    return {
        "monotonic": 1000.0 + at,
        "busy_ticks": 5000 + round(busy * TICKS),
        "steal_ticks": 300 + round(steal * TICKS),
        "total_ticks": 90000 + round(at * cores * TICKS),
        "ticks_per_second": TICKS,
        "online": list(range(cores)),
    }


def replicate(seconds: float = 1.0, own: float = 1.0, others: float = 0.0, steal: float = 0.0, cores: int = 2) -> dict[str, Any]:
    """The condition of a replicate of so many seconds; ``others`` in cores, ``own`` and ``steal`` in seconds."""
    after = moment(at=seconds, busy=own + others * seconds, steal=steal, cores=cores)
    return {"before": moment(cores=cores), "after": after, "process_seconds": own}


# Load by others


@given(st.integers(1, 6000), st.integers(0, 1000), st.integers(0, 1000))
def test_load_by_others_is_what_is_busy_without_the_process_itself(elapsed: int, own: int, others: int) -> None:
    after = moment(at=elapsed / 100, busy=(own + others) / 100)
    assert load_by_others(moment(), after, own / 100) == pytest.approx(others / elapsed, abs=1e-6)


def test_a_process_that_used_more_than_was_counted_leaves_nothing_for_others() -> None:
    assert load_by_others(moment(), moment(at=1.0, busy=0.98), 1.0) == 0.0


@pytest.mark.parametrize("missing", ["monotonic", "busy_ticks", "ticks_per_second"])
def test_load_is_unknown_where_something_is(missing: str) -> None:
    after = moment(at=1.0, busy=1.0)
    assert load_by_others(moment(), after, 1.0) is not None
    assert load_by_others(moment(), after | {missing: None}, 1.0) is None
    assert load_by_others(moment(), {key: value for key, value in after.items() if key != missing}, 1.0) is None
    assert load_by_others(moment(), after, None) is None
    assert load_by_others(moment(), moment(busy=1.0), 1.0) is None
    assert load_by_others({}, {}, 1.0) is None


@given(st.integers(1, 512))
def test_what_disturbs_grows_with_the_machine(cores: int) -> None:
    assert 0.25 <= disturbing_load(cores) <= disturbing_load(cores + 1)
    assert disturbing_load(cores) == pytest.approx(max(0.25, cores / 10))


@given(st.floats(0.0, 8.0), st.floats(0.001, 100.0), st.integers(1, 64))
def test_a_longer_look_never_makes_a_load_less_certain(load: float, seconds: float, cores: int) -> None:
    if is_disturbed(load, seconds, cores):
        assert is_disturbed(load, 2 * seconds, cores)
        assert is_disturbed(2 * load, seconds, cores)
        assert load > disturbing_load(cores)


@pytest.mark.parametrize(
    ("load", "seconds", "cores", "disturbed"),
    [
        (0.05, 1.0, 2, False),  # a desktop's daemons
        (1.0, 1.0, 2, True),  # another busy process
        (1.0, 0.1, 2, True),
        (0.4, 0.1, 2, False),  # two ticks more or less in ten: it may be 0.2
        (0.4, 1.0, 2, True),
        (2.0, 1.0, 64, False),
        (1.0, 1.0, 8, True),
    ],
)
def test_which_loads_disturb(load: float, seconds: float, cores: int, disturbed: bool) -> None:
    assert is_disturbed(load, seconds, cores) is disturbed


def test_disturbance_of_replicates() -> None:
    conditions = [replicate(others=1.0), replicate(others=1.0), replicate(others=0.9), replicate(), replicate(others=0.1)]
    found = Disturbance.of(conditions)
    assert (found.known, found.disturbed, found.cores, found.mostly) == (5, 3, 2, True)
    assert found.load == pytest.approx(0.9)
    assert found.stolen == 0.0
    assert not Disturbance.of(conditions[2:]).mostly
    assert Disturbance.of(reversed(conditions)) == found


def test_replicates_of_an_older_session_say_nothing() -> None:
    old = {"before": {"time": 1.0}, "after": {"time": 2.0}}
    assert Disturbance.of([{}, old, {"before": None, "after": None}]) == Disturbance()
    assert not Disturbance().mostly
    assert Disturbance.of([old, replicate(others=1.0)]).known == 1


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_stolen_share_is_of_what_was_asked_for(stolen: int, busy: int) -> None:
    share = stolen_share(moment(), moment(at=60.0, busy=busy / 100, steal=stolen / 100))
    if stolen + busy == 0:
        assert share is None
    else:
        assert share == pytest.approx(stolen / (stolen + busy))


# The canary


def canary(
    compute: float = 1.0, memory: float = 1.0, kernel: str = "k", spread: float | None = 0.0, readings: int = 6
) -> dict[str, Any]:
    return {
        "kernel": kernel,
        "readings": readings,
        "compute": compute * 0.0003,
        "memory": memory * 0.003,
        "compute_spread": spread,
        "memory_spread": spread,
    }


factors = st.floats(0.5, 2.0)
sessions = st.lists(st.builds(canary, factors, factors), min_size=1, max_size=8)


def scaled(session: dict[str, Any], factor: float) -> dict[str, Any]:
    return session | {name: session[name] * factor for name in KERNELS}


@given(st.lists(st.tuples(factors, factors), min_size=1, max_size=9))
def test_a_session_keeps_the_median_of_its_readings(pairs: list[tuple[float, float]]) -> None:
    readings = [{"kernel": "k", "compute": compute, "memory": memory} for compute, memory in pairs]
    kept = canary_of_session(readings)
    assert kept == json.loads(json.dumps(kept))
    assert kept["readings"] == len(pairs)
    assert min(compute for compute, _ in pairs) <= kept["compute"] <= max(compute for compute, _ in pairs)
    assert (kept["memory_spread"] is None) == (len(pairs) == 1)


def test_no_reading_keeps_nothing_and_another_kernel_does_not_mix() -> None:
    assert canary_of_session([]) == {}
    readings = [{"kernel": "old", "compute": 9.0, "memory": 9.0}, {"kernel": "new", "compute": 1.0, "memory": 2.0}]
    assert canary_of_session(readings)["compute"] == 1.0


@given(
    sessions, st.builds(canary, factors, factors), st.floats(0.01, 0.3), st.sampled_from([2.0**power for power in (-9, -1, 1, 9)])
)
def test_shifts_do_not_depend_on_the_unit(
    baseline: list[dict[str, Any]], now: dict[str, Any], threshold: float, factor: float
) -> None:
    plain = canary_shifts(baseline, now, threshold)
    other = canary_shifts([scaled(session, factor) for session in baseline], scaled(now, factor), threshold)
    assert [shift.ratio for shift in other] == pytest.approx([shift.ratio for shift in plain])
    assert [shift.threshold for shift in other] == pytest.approx([shift.threshold for shift in plain])


@given(sessions, st.builds(canary, factors, factors), st.randoms())
def test_shifts_do_not_depend_on_the_order_of_the_sessions(
    baseline: list[dict[str, Any]], now: dict[str, Any], random: Any
) -> None:
    shuffled = random.sample(baseline, len(baseline))
    for one, other in zip(canary_shifts(baseline, now, 0.05), canary_shifts(shuffled, now, 0.05), strict=True):
        assert one.ratio == pytest.approx(other.ratio)
        assert one.threshold == pytest.approx(other.threshold)


@given(st.integers(1, 9), st.floats(0.001, 1.0))
def test_the_same_canary_has_not_moved(count: int, threshold: float) -> None:
    for shift in canary_shifts([canary()] * count, canary(), threshold):
        floors = FLOORS if count >= SESSIONS_THAT_TELL else FLOORS_WHERE_SPREAD_IS_UNKNOWN
        assert shift.ratio == pytest.approx(1.0)
        assert shift.threshold == max(threshold / 2, floors[shift.kernel])
        assert not shift.slower
        assert not shift.faster


@given(sessions, st.builds(canary, factors, factors), st.floats(1.0, 3.0))
def test_a_slower_canary_is_never_less_of_a_shift(baseline: list[dict[str, Any]], now: dict[str, Any], factor: float) -> None:
    for one, other in zip(canary_shifts(baseline, now, 0.05), canary_shifts(baseline, scaled(now, factor), 0.05), strict=True):
        assert other.slower or not one.slower
        assert one.faster or not other.faster


@given(st.floats(0.2, 5.0), st.floats(0.01, 1.0))
def test_faster_mirrors_slower(ratio: float, threshold: float) -> None:
    assume(abs(ratio - (1 + threshold)) > 1e-9)
    shift, mirrored = CanaryShift("compute", ratio, threshold), CanaryShift("compute", 1 / ratio, threshold)
    assert (shift.slower, shift.faster) == (mirrored.faster, mirrored.slower)
    assert not (shift.slower and shift.faster)


def test_what_the_baseline_does_by_itself_is_no_shift() -> None:
    unsteady = [canary(memory=memory) for memory in (0.9, 1.0, 1.1, 1.2, 0.8, 1.0)]
    compute, memory = canary_shifts(unsteady, canary(compute=1.3, memory=1.3), 0.05)
    assert compute.slower
    assert not memory.slower
    assert memory.threshold == pytest.approx(4.4 * 0.1414, rel=0.01)  # six sessions
    many = canary_shifts(unsteady * 5, canary(), 0.05)[1]
    assert 3 * 0.12 < many.threshold < 3 * 0.14


def test_readings_that_scatter_widen_the_threshold() -> None:
    steady, scattered = (
        canary_shifts([canary()] * 5, canary(), 0.01)[0],
        canary_shifts([canary()] * 5, canary(spread=0.1), 0.01)[0],
    )
    assert scattered.threshold == pytest.approx(3 * 1.2533 * 0.1 / 6**0.5)
    assert steady.threshold == FLOORS["compute"]


def test_only_the_same_kernel_is_compared() -> None:
    assert canary_shifts([], canary(), 0.05) == ()
    assert canary_shifts([canary(kernel="old")], canary(kernel="new"), 0.05) == ()
    assert canary_shifts([canary()], {}, 0.05) == ()
    assert canary_shifts([{}], canary(), 0.05) == ()
    assert canary_shifts([canary(kernel="old", compute=9.0), canary()], canary(), 0.05)[0].ratio == 1.0


# Verdicts

BUSY = Disturbance(known=5, disturbed=4, load=1.0, cores=2, stolen=0.0)
ROBBED = Disturbance(known=5, disturbed=0, load=0.0, cores=2, stolen=0.2)
SLOWER_MACHINE = CanaryShift("memory", 1.15, 0.06)
FASTER_MACHINE = CanaryShift("compute", 0.85, 0.06)
STEADY = CanaryShift("compute", 1.02, 0.06)

verdicts = st.sampled_from([None, *Verdict])
evidence = st.fixed_dictionaries(
    {
        "disturbance": st.sampled_from([Disturbance(), BUSY, ROBBED]),
        "shifts": st.lists(st.sampled_from([SLOWER_MACHINE, FASTER_MACHINE, STEADY])),
    }
)


@given(verdicts, st.floats(0.3, 3.0), evidence, st.lists(st.just("it was throttled"), max_size=1))
def test_nothing_is_vetoed_where_two_stacks_take_turns(
    verdict: Any, ratio: float, found: dict[str, Any], problems: list[str]
) -> None:
    assert veto(verdict, ratio, 0.05, problems=problems, in_turns=True, **found) is None


@given(verdicts, st.one_of(st.none(), st.floats(0.3, 3.0)), evidence)
def test_a_throttled_measurement_is_never_valid(verdict: Any, ratio: float | None, found: dict[str, Any]) -> None:
    reason = veto(verdict, ratio, 0.05, problems=["it was throttled", "the governor changed"], **found)
    assert reason == "the device changed while it was measured: it was throttled; the governor changed"


@given(verdicts, st.floats(0.3, 3.0), st.floats(0.01, 0.5), st.lists(st.just(STEADY)))
def test_nothing_is_vetoed_where_nothing_happened(
    verdict: Any, ratio: float, threshold: float, shifts: list[CanaryShift]
) -> None:
    quiet = Disturbance(known=5, disturbed=1, load=0.03, cores=2, stolen=0.001)
    assert veto(verdict, ratio, threshold, disturbance=quiet, shifts=shifts) is None
    assert remarks(threshold, disturbance=quiet, shifts=shifts) == []


@given(verdicts, st.floats(0.3, 3.0), evidence)
def test_only_verdicts_that_say_something_about_speed_are_vetoed(verdict: Any, ratio: float, found: dict[str, Any]) -> None:
    assume(verdict not in (Verdict.SLOWER, Verdict.PASS, Verdict.FASTER))
    assert veto(verdict, ratio, 0.05, **found) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"disturbance": BUSY}, "other processes used 1.0 of 2 cores during 4 of 5 replicates"),
        ({"disturbance": ROBBED}, "the hypervisor gave 20%"),
        ({"shifts": [STEADY, SLOWER_MACHINE]}, "the memory canary takes 15% longer (chance: 6%)"),
    ],
)
def test_what_takes_slower_back_is_said_with_what_to_do(found: dict[str, Any], words: str) -> None:
    reason = veto(Verdict.SLOWER, 1.12, 0.05, **found)
    assert reason is not None
    assert words in reason
    assert "run again" in reason
    assert veto(Verdict.PASS, 1.0, 0.05, **found) is None
    assert any(words in remark for remark in remarks(0.05, **found))


def test_a_slow_down_far_larger_than_the_canary_s_is_the_model_s() -> None:
    assert veto(Verdict.SLOWER, 1.29, 0.05, shifts=[SLOWER_MACHINE]) is not None
    assert veto(Verdict.SLOWER, 1.31, 0.05, shifts=[SLOWER_MACHINE]) is None


def test_a_faster_machine_can_hide_a_slow_down() -> None:
    reason = veto(Verdict.PASS, 1.0, 0.05, shifts=[STEADY, FASTER_MACHINE])
    assert reason is not None
    assert "the compute canary takes 15% less time" in reason
    assert "record a new baseline" in reason
    assert veto(Verdict.FASTER, 0.92, 0.05, shifts=[FASTER_MACHINE]) is not None
    # It kept up with the machine, so there is nothing to hide.
    assert veto(Verdict.FASTER, 0.86, 0.05, shifts=[FASTER_MACHINE]) is None
    assert veto(Verdict.SLOWER, 1.2, 0.05, shifts=[FASTER_MACHINE]) is None


def test_a_thin_baseline_cannot_turn_a_green_verdict_red() -> None:
    thin = replace(FASTER_MACHINE, sessions=SESSIONS_THAT_TELL - 1)
    assert veto(Verdict.PASS, 1.0, 0.05, shifts=[thin]) is None
    assert remarks(0.05, shifts=[thin]) == ["the compute canary takes 15% less time (chance: 6%)"]
    assert veto(Verdict.SLOWER, 1.12, 0.05, shifts=[replace(SLOWER_MACHINE, sessions=1)]) is not None


@pytest.mark.parametrize("count", SPREADS_OF_FEW)
def test_few_sessions_tell_less_of_their_spread(count: int) -> None:
    limit = stats.t.ppf(0.995, count - 1) * (1 + 1 / count) ** 0.5
    assert SPREADS_OF_FEW[count] == pytest.approx(limit, abs=0.051)


@given(st.floats(0.0, 0.9), st.floats(0.01, 0.3))
def test_stolen_time_counts_once_it_is_a_slow_down_by_itself(stolen: float, threshold: float) -> None:
    vetoed = veto(Verdict.SLOWER, 2.0, threshold, disturbance=Disturbance(stolen=stolen)) is not None
    assume(abs(1 / (1 - stolen) - (1 + threshold)) > 1e-9)
    assert vetoed == (1 / (1 - stolen) > 1 + threshold)


@pytest.mark.parametrize("damage", [{"compute": None}, {"memory": "fast"}, {"compute": 0}])
def test_a_session_whose_canary_is_damaged_does_not_count(damage: dict[str, Any]) -> None:
    whole = canary()
    damaged = {**whole, **damage}
    assert canary_shifts([damaged], whole, 0.05) == ()
    assert [shift.sessions for shift in canary_shifts([whole, damaged], whole, 0.05)] == [1, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"readings": "six"},
        {"readings": -1},
        {"compute_spread": "none"},
        {"memory_spread": -0.5},
        {"memory": float("inf")},
        {"memory": 10**400},
    ],
)
def test_a_canary_that_somebody_edited_does_not_count(changes: dict[str, Any]) -> None:
    assert canary_shifts([{**canary(), **changes}], canary(), 0.05) == ()
