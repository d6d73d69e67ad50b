"""The analysis half of benchmarks/gate_power: other tools' rules, the replay, the intervals and the report, on data with known truth."""

from __future__ import annotations

import json
import math
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gate_power"))

import raw_data
import replay
import report
import rules
from power_curve import Curve, Panel, draw
from rates import Rate, percent
from scenarios import DIGITS, MOBILENET, MODELS, RESIDUAL, SCENARIOS, Scenario

from pytest_inference_gate.decision import LatencyDecision
from pytest_inference_gate.verdict import Verdict


def rounds(centre: float, spread: float = 0.01, count: int = 60, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).normal(centre, centre * spread, count).round().astype(numpy.int64)


def named(name: str) -> rules.Rule:
    (found,) = [rule for rule in rules.RULES if name in rule.name]
    return found


class TestRates:
    @pytest.mark.parametrize(
        ("hits", "trials", "low", "high"),
        [
            (0, 300, 0.0, 0.012221),  # the "rule of three" in its exact form: 1 - 0.025 ** (1 / 300)
            (1, 10, 0.002529, 0.445016),
            (5, 10, 0.187086, 0.812914),
            (10, 10, 0.691503, 1.0),
            (0, 0, 0.0, 1.0),
        ],
    )
    def test_the_exact_interval(self, hits: int, trials: int, low: float, high: float) -> None:
        assert Rate(hits, trials).interval() == pytest.approx((low, high), abs=2e-6)

    @given(st.integers(1, 400), st.data())
    def test_agrees_with_scipy(self, trials: int, data: st.DataObject) -> None:
        hits = data.draw(st.integers(0, trials))
        theirs = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
        assert Rate(hits, trials).interval() == pytest.approx((theirs.low, theirs.high), abs=1e-9)

    @pytest.mark.parametrize(
        ("share", "text"),
        [(0, "0"), (1, "100"), (0.9999, ">99.9"), (0.0001, "<0.1"), (0.125, "12.5"), (0.5, "50.0"), (0.999, "99.9")],
    )
    def test_hardly_any_is_not_shown_as_none(self, share: float, text: str) -> None:
        assert percent(share) == text

    def test_no_trial_is_no_rate(self) -> None:
        assert str(Rate.of([])) == "–"


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "factor", "slower"),
        [
            ("min:5%", 1.049, False),
            ("min:5%", 1.051, True),
            ("mean:10%", 1.099, False),
            ("mean:10%", 1.101, True),
            ("median:5%", 1.06, True),
        ],
    )
    def test_pytest_benchmark_s_threshold(self, rule: str, factor: float, slower: bool) -> None:
        old = rounds(1e6)
        assert named(rule).is_slower([old * factor], [old]) is slower

    def test_pytest_benchmark_judges_the_statistic_that_it_names(self) -> None:
        old = numpy.array([100, 200, 300, 400, 500])
        new = numpy.array([120, 200, 300, 400, 500])  # only the least of them is slower: by 20 %, and the mean by 1.3 %
        assert [named(f"{name}:5%").is_slower([new], [old]) for name in ("min", "mean", "median")] == [True, False, False]

    @pytest.mark.parametrize("seed", range(5))
    def test_rank_and_t_tests_are_scipy_s_one_sided_ones(self, seed: int) -> None:
        old, new = rounds(1e6, seed=2 * seed), rounds(1.003e6, seed=2 * seed + 1)
        rank = stats.mannwhitneyu(new, old, alternative="greater").pvalue < 0.05
        welch = stats.ttest_ind(new, old, equal_var=False, alternative="greater").pvalue < 0.05
        assert (rules.mann_whitney([new], [old]), rules.welch([new], [old])) == (rank, welch)
        assert not rules.mann_whitney([old * 0.9], [old]) and not rules.welch([old * 0.9], [old])

    def test_asv_needs_the_factor_and_the_test(self) -> None:
        old = [rounds(1e7, seed=1), rounds(1e7, seed=2)]
        assert rules.asv([one * 1.15 for one in old], old)
        assert not rules.asv([one * 1.09 for one in old], old)  # significant, but by less than a factor of 1.1
        torn = [
            numpy.array([8_000_000] * 4 + [30_000_000] * 6)
        ] * 2  # a median three times as large, of values on both sides of the old ones
        assert not rules.asv(torn, old)

    def test_asv_with_too_few_samples_for_its_test_wants_intervals_apart(self) -> None:
        few = [numpy.array([10_000_000, 10_000_001])]
        assert not rules.asv([few[0] * 5], few)

    def test_samples_are_as_long_as_asked(self) -> None:
        assert rules.samples_of(numpy.full(10, 4_000_000), 10e6).tolist() == [4e6] * 3
        assert rules.samples_of(numpy.arange(1, 5) * 1_000_000, 5e6).tolist() == [1.5e6, 3.5e6]
        assert rules.samples_of(numpy.array([2, 4]), 1e6).tolist() == [3.0]

    def test_the_bootstrap_agrees_with_the_normal_approximation(self) -> None:
        old, new = rounds(1e6, 0.02, 100, seed=5), rounds(1.02e6, 0.02, 100, seed=6)
        low, high = rules.bootstrap_change(new, old)
        change = new.mean() / old.mean() - 1
        error = math.hypot(new.std(ddof=1) / new.mean(), old.std(ddof=1) / old.mean()) / 10 * (1 + change)
        assert (low, high) == pytest.approx((change - 1.96 * error, change + 1.96 * error), abs=0.2 * error)

    @pytest.mark.parametrize("factor", [1.0, 1.001, 1.002, 1.004])
    def test_the_bootstrap_t_test_agrees_with_welch(self, factor: float) -> None:
        old, new = rounds(1e6, 0.01, 100, seed=7), rounds(1e6, 0.01, 100, seed=8) * factor
        assert rules.bootstrap_t_p_value(new, old) == pytest.approx(stats.ttest_ind(new, old, equal_var=False).pvalue, abs=0.04)

    def test_criterion_wants_more_than_its_noise_threshold(self) -> None:
        old = rounds(1e6, 0.001, 100, seed=9)
        assert rules.bootstrap_t_p_value(old * 1.009, old) < 0.05
        assert not rules.criterion([old * 1.009], [old])
        low, high = rules.bootstrap_change(old * 1.0101, old)
        assert low < rules.CRITERION_NOISE < high
        assert not rules.criterion([old * 1.0101], [old])  # the interval must lie beyond it as a whole
        assert rules.criterion([old * 1.012], [old])
        assert not rules.criterion([old * 0.9], [old])
        assert rules.criterion([old * 1.012], [old])  # and says so every time

    def test_criterion_makes_a_hundred_samples_of_more(self) -> None:
        assert rules._hundred(numpy.arange(2000)).tolist() == [9.5 + 20 * number for number in range(100)]

    def test_pyperf_pools_the_processes(self) -> None:
        old = [rounds(1e6, 0.001, 200, seed=seed) for seed in range(5)]
        assert rules.pyperf([one * 1.01 for one in old], old)
        assert not rules.pyperf([one * 0.99 for one in old], old)
        apart = [one * factor for one, factor in zip(old, (0.9, 0.95, 1.0, 1.05, 1.11), strict=True)]
        assert not rules.pyperf(apart, old)  # their processes differ more than that

    def test_pyperf_takes_three_values_of_a_process(self) -> None:
        old = [rounds(1e6, 0.001, 400, seed=seed) for seed in range(5)]
        later, too_late = (numpy.repeat(factors, 100) for factors in ([1, 1.2, 1.2, 1.2], [1, 1, 1, 9]))
        assert rules.pyperf([one * later for one in old], old)
        assert not rules.pyperf([one * too_late for one in old], old)


def pretended(verdict: Verdict, wanted: int) -> LatencyDecision:
    return LatencyDecision(verdict, 1.0, 0.03, 0.5, 1.0, 1.0, "", None, wanted=wanted)


class TestInOrder:
    @given(st.integers(0, 200), st.data())
    def test_no_value_is_used_twice_and_none_left_between(self, count: int, data: st.DataObject) -> None:
        lengths: dict[int, int] = {}
        ended_early: set[int] = set()

        def decide_on(start: int, end: int, final: bool) -> LatencyDecision:
            assert 0 <= start < end <= count
            if final:
                assert end == count
                ended_early.add(start)
                return pretended(Verdict.INCONCLUSIVE, 0)
            length = lengths.setdefault(start, data.draw(st.integers(1, replay.LONGEST)))
            return pretended(Verdict.PASS, min(3, start + length - end))

        stretches = [(start, end) for start, end, _ in replay.in_order(count, decide_on)]
        assert [start for start, _ in stretches] == [0, *(end for _, end in stretches)][: len(stretches)]
        assert all(end == min(start + lengths[start], count) for start, end in stretches)
        # None is missing that the values would have sufficed to call anything slower, and none was begun but not finished.
        assert count - (stretches[-1][1] if stretches else 0) < replay.ENOUGH
        assert set(lengths) == {start for start, _ in stretches}
        assert ended_early == {start for start, end in stretches if end - start < lengths[start]}

    def test_a_rule_without_an_end_is_stopped(self) -> None:
        with pytest.raises(ValueError, match="a rule wants 26 values"):
            list(replay.in_order(100, lambda *_: pretended(Verdict.INCONCLUSIVE, 1)))


TWINS = {model: f"twins: {model}" for model in MODELS}
POWER = {model: f"power: {model}" for model in MODELS}
WITH_A_TRUE_CHANGE = {"one thread less": 1.8, "float instead of int8": 2.1, "one more layer": 1.25}
FALSE_ALARM = 1.12
"""By how much some of the candidates of RESIDUAL's twins are slower, though nothing says so: what a false alarm looks like."""


class Machine:
    """Makes raw data: sessions, processes and blocks scatter as on a quiet machine, and slow-downs are of exactly the size they claim."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.random = numpy.random.default_rng(20261121)
        self.clock = 1_795_000_000.0
        self.session = 0
        directory.mkdir(exist_ok=True)
        device = {
            "kind": "virtual-machine",
            "cpu_model": "Some CPU",
            "cpu_signature": "x",
            "machine": "x86_64",
            "online_cores": 2,
        }
        (directory / "machine.json").write_text(json.dumps({"device": device, "software": {"python": "3.11.7", "numpy": "2.0"}}))

    def add(self, scenarios: list[Scenario], hidden: dict[str, float] | None = None) -> None:
        self.session += 1
        drift = self.random.normal(1, 0.005)
        lines = [
            self._pair(scenario, number, drift, (hidden or {}).get(scenario.name, 1.0))
            for number in range(max(scenario.passes for scenario in scenarios))
            for scenario in scenarios
            if number < scenario.passes
        ]
        with (self.directory / "pairs.jsonl").open("a") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)

    def _pair(self, scenario: Scenario, number: int, drift: float, hidden: float) -> dict[str, Any]:
        self.clock += 3
        factors = {
            level: hidden * WITH_A_TRUE_CHANGE.get(scenario.name, 1.0) * (1 + int(level) / 100 if level.isdigit() else 1)
            for level in scenario.levels
        }
        candidate, reference = (1e6 * drift * self.random.normal(1, 0.004) for _ in range(2))
        shown = (scenario.first or "0", *scenario.stored_levels)
        return {
            "session": self.session,
            "scenario": scenario.name,
            "number": number,
            "time": self.clock,
            "candidate": self._side({level: self._rounds(candidate * factors[level]) for level in shown}),
            "reference": self._side({"0": self._rounds(reference)}),
            "blocks": {
                level: [
                    [candidate * factor * self.random.normal(1, 0.002), reference * self.random.normal(1, 0.002)]
                    for _ in range(16)
                ]
                for level, factor in factors.items()
            },
            "condition": {"before": {"monotonic": self.clock - 1_794_000_000, "online": [0, 1]}, "after": {}},
            "seconds": 2.0,
        }

    def _rounds(self, centre: float) -> list[int]:
        return [int(value) for value in self.random.normal(centre, centre * 0.003, 50)]

    def _side(self, replicates: dict[str, list[int]]) -> dict[str, Any]:
        return {"load": 0.01, "first_inference": 0.002, "steady": True, "replicates": replicates}


CYCLES = 6


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    machine = Machine(tmp_path_factory.mktemp("power") / "data")
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    twins, power = ([by_name[names[model]] for model in MODELS] for names in (TWINS, POWER))
    others = [scenario for scenario in by_name.values() if not scenario.name.startswith(("twins", "power"))]
    for cycle in range(CYCLES):
        machine.add(twins)
        machine.add(twins)
        machine.add(power)
        machine.add(twins)
        # A disturbance that lasts for the whole of two sessions that follow each other.
        machine.add(twins, {TWINS[RESIDUAL]: FALSE_ALARM} if cycle == 4 else {})
        machine.add(twins, {TWINS[RESIDUAL]: FALSE_ALARM} if cycle == 4 else {})
        machine.add(twins, {TWINS[RESIDUAL]: FALSE_ALARM} if cycle == 4 else {})
        machine.add(others)
    return machine.directory


@pytest.fixture(scope="module")
def data(directory: Path) -> raw_data.RawData:
    return raw_data.read(directory)


@pytest.fixture(scope="module")
def evidence(data: raw_data.RawData) -> report.Evidence:
    return report.Evidence(data)


def rounds_in_a_block(pair: raw_data.PairRecord) -> int:
    """As many as take 10 ms in the slower process."""
    slower = max(float(numpy.median(side.replicates["0"])) for side in (pair.candidate, pair.reference))
    return math.ceil(10e6 / slower)


def used_twice(used: list[tuple[int, str, int]]) -> bool:
    return len(set(used)) < len(used)


class TestReplay:
    @pytest.mark.parametrize("gate", ["paired", "stored", "stored 1"])
    @pytest.mark.parametrize("scenario", [TWINS[MOBILENET], POWER[DIGITS]])
    @pytest.mark.parametrize("level", ["0", "20"])
    def test_decisions_are_disjoint_and_in_order(self, evidence: report.Evidence, gate: str, scenario: str, level: str) -> None:
        if scenario == TWINS[MOBILENET] and level == "20":
            assert not evidence.decided(gate, scenario, level)
            return
        used = [pair.key for decision in evidence.decided(gate, scenario, level) for pair in decision.pairs]
        assert used == sorted(used) and len(used) > 20
        assert not used_twice(used)

    @pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
    def test_other_rules_use_no_process_twice_and_only_earlier_references(self, data: raw_data.RawData, rule: rules.Rule) -> None:
        judged = replay.by_rule(data, rule, (TWINS[DIGITS], POWER[DIGITS]), "0")
        assert len(judged) >= CYCLES * 5 * 5 // rule.processes // 2
        assert not used_twice([pair.key for one in judged for pair in one.candidates])
        assert not used_twice([pair.key for one in judged for pair in one.references])
        for one in judged:
            assert len(one.candidates) == len(one.references) == rule.processes
            assert len({pair.session for pair in one.candidates}) == len({pair.session for pair in one.references}) == 1
            assert max(pair.session for pair in one.references) < min(pair.session for pair in one.candidates)
        sessions = sorted({pair.session for pair in data.of(TWINS[DIGITS]) + data.of(POWER[DIGITS])})
        first_of = {one.candidates[0].session: one.references[0].session for one in reversed(judged)}
        assert first_of == dict(zip(sessions[1:], sessions, strict=False))  # the session right before

    def test_a_baseline_is_of_the_latest_undisturbed_sessions_before(self, data: raw_data.RawData) -> None:
        baselines = replay.Baselines(data, MOBILENET)
        assert not baselines.before(5, 5)
        sessions = baselines.before(10, 3)
        assert [len(session) for session in sessions] == [5, 5, 5]
        eighth = [pair for pair in data.pairs if pair.session == 8 and data.scenarios[pair.scenario].reference == MOBILENET]
        undisturbed = [pair for pair in eighth if not data.scenarios[pair.scenario].disturbed(pair.number)]
        assert len(undisturbed) < len(eighth)
        assert sessions[1] == [float(numpy.median(pair.reference.replicates["0"])) for pair in undisturbed[:5]]

    def test_the_stored_gate_never_sees_the_session_itself(self, directory: Path, data: raw_data.RawData) -> None:
        """Otherwise what is slow for a session would hide behind itself."""
        spoilt = replace(
            data,
            pairs=[
                replace(pair, reference=replace(pair.reference, replicates={"0": pair.reference.replicates["0"] * 3}))
                if pair.session == data.pairs[-1].session
                else pair
                for pair in data.pairs
            ],
        )
        for scenario in ("float instead of int8", TWINS[MOBILENET]):
            before, after = (replay.stored(one, scenario, "0") for one in (data, spoilt))
            assert [one.decision for one in before] == [one.decision for one in after] and before

    def test_what_a_pair_costs_is_split_between_the_gates(self, data: raw_data.RawData) -> None:
        pair = data.of(TWINS[MOBILENET])[0]
        blocks = rounds_in_a_block(pair) * sum(map(sum, pair.blocks["0"])) / 1e9
        alone = float(pair.candidate.replicates["0"].sum() + pair.reference.replicates["0"].sum()) / 1e9
        assert replay.paired_seconds(pair) == pytest.approx(2.0 - alone, rel=1e-6)
        assert replay.stored_seconds(pair) == pytest.approx((2.0 - blocks) / 2, rel=1e-6)

    def test_what_only_a_power_curve_needs_costs_nothing(self, data: raw_data.RawData) -> None:
        pair = replace(data.of(POWER[MOBILENET])[0], seconds=9.0)
        at_levels = sum(float(pair.candidate.replicates[level].sum()) for level in ("3", "5", "8", "10", "20")) / 1e9
        blocks = {level: rounds_in_a_block(pair) * sum(map(sum, taken)) / 1e9 for level, taken in pair.blocks.items()}
        assert at_levels > 0.25 and len(blocks) == 6
        alone = float(pair.candidate.replicates["0"].sum() + pair.reference.replicates["0"].sum()) / 1e9
        assert replay.stored_seconds(pair) == pytest.approx((9.0 - sum(blocks.values()) - at_levels) / 2, rel=1e-6)
        assert replay.paired_seconds(pair) == pytest.approx(
            9.0 - alone - at_levels - sum(blocks.values()) + blocks["0"], rel=0.01
        )

    @pytest.mark.parametrize("verdict", list(Verdict))
    def test_a_verdict_is_red_or_green_or_undecided(self, verdict: Verdict) -> None:
        one = replay.Replayed("", "0", pretended(verdict, 0), [], 0.0)
        assert one.red is (verdict == "slower")
        assert one.undecided is (verdict in ("inconclusive", "invalid", "ungateable"))
        assert one.green is (verdict in ("pass", "faster", "fixed", "known_broken", "unsupported"))


class TestReport:
    def test_what_is_identical_is_green_but_for_the_false_alarms_put_in(self, evidence: report.Evidence) -> None:
        for gate in report.GATES:
            for model in (MOBILENET, DIGITS):
                decisions = evidence.identical(gate, model)
                assert len(decisions) > 20 and all(one.green for one in decisions), (gate, model)
        spoilt = evidence.identical("paired", RESIDUAL)
        reds = [one for one in spoilt if one.red]
        assert reds and all(one.decision.ratio == pytest.approx(FALSE_ALARM, abs=0.02) for one in reds)
        assert all(sum(pair.session in (37, 38, 39) for pair in one.pairs) > len(one.pairs) / 2 for one in reds)
        assert f"Worst with the paired gate: {RESIDUAL}" in report.worst_identical(evidence)

    def test_known_slow_downs_are_found_in_full_size(self, evidence: report.Evidence) -> None:
        for level, size in (("3", 0.03), ("5", 0.05), ("8", 0.08), ("10", 0.1), ("20", 0.2)):
            for model in MODELS:
                assert evidence.true_changes[POWER[model], level] == pytest.approx(size, abs=0.002)
        for gate in report.GATES:
            for level in ("10", "20"):
                decisions = evidence.at(gate, level)
                assert len(decisions) >= 9 and all(one.red for one in decisions), (gate, level)
                ratios = [one.decision.ratio for one in decisions]
                assert ratios == pytest.approx([1 + int(level) / 100] * len(ratios), abs=0.02)
        assert all(one.red for one in evidence.at("paired", "5"))
        assert not any(one.red for one in evidence.at("stored", "3"))
        for scenario, factor in WITH_A_TRUE_CHANGE.items():
            decisions = evidence.decided("paired", scenario, "0")
            assert decisions and all(one.red and one.decision.ratio == pytest.approx(factor, rel=0.02) for one in decisions)

    def test_a_rule_on_rounds_is_seen_to_cry_wolf(self, evidence: report.Evidence) -> None:
        """Processes differ by 0.6 %, rounds by 0.3 %: fifty rounds then say that nothing is as it was."""
        on_rounds = Rate.of(evidence.judged(named("Mann-Whitney"), "0", [MOBILENET]))
        assert 0.3 < on_rounds.share < 0.7 and on_rounds.trials > 150
        assert Rate.of(evidence.judged(named("min:5%"), "0", [MOBILENET])).hits == 0
        assert Rate.of(evidence.judged(named("min:5%"), "20", [MOBILENET])).share == 1

    def test_the_page_has_what_was_counted(self, evidence: report.Evidence) -> None:
        text, _ = report.page(evidence)
        for gate in report.GATES:
            assert f"| {report.red(evidence.at(gate, '20'))} " in text
        assert f"{evidence.data.sessions} sessions with {len(evidence.data.pairs)} pairs" in text
        assert "×1.80" in text and "×2.10" in text and "×1.25" in text
        assert all(f"| {rule.name} " in text for rule in rules.RULES)
        assert text.count("\n|--") == 10

    def test_made_twice_it_is_the_same(self, directory: Path, evidence: report.Evidence, tmp_path: Path) -> None:
        target = tmp_path / "gate-power.md"
        assert report.main(["--data", str(directory), "--write", str(target), "--needed", "50"]) == 0
        text, picture = report.page(evidence)
        assert target.read_text() == text
        assert target.with_suffix(".svg").read_text() == picture

    def test_sessions_on_which_the_rules_were_chosen_can_be_left_out(
        self, directory: Path, evidence: report.Evidence, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fresh = report.Evidence(report.since(evidence.data, 40))  # past the false alarms
        assert {pair.session for pair in fresh.data.pairs} == set(range(40, CYCLES * 8 + 1))
        assert not any(one.red for one in fresh.at("paired", "0")) and fresh.at("paired", "0")
        assert "left out: the 39 sessions before" in report.machine_lines(fresh.data)
        assert "left out" not in report.machine_lines(evidence.data)
        assert report.main(["--data", str(directory), "--from-session", "99"]) == 1
        assert "there is no session 99 yet, the last one is 48" in capsys.readouterr().err

    def test_too_little_is_not_written(self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        one = tmp_path / "page.md"
        assert report.main(["--data", str(directory), "--write", str(one), "--needed", "5000"]) == 1
        assert "decisions of the paired gate on identical code, and the page needs 5000" in capsys.readouterr().err
        assert not one.exists()

    @pytest.mark.parametrize(
        ("rate", "bound", "at_most", "word"),
        [
            (Rate(0, 1000), 0.005, True, "shown"),
            (Rate(0, 300), 0.005, True, "reached"),
            (Rate(3, 300), 0.005, True, "**missed**"),
            (Rate(300, 300), 0.95, False, "shown"),
            (Rate(99, 100), 0.95, False, "reached"),
            (Rate(90, 100), 0.95, False, "**missed**"),
            (Rate(0, 0), 0.95, False, "no data"),
        ],
    )
    def test_a_target_is_shown_only_by_its_whole_interval(self, rate: Rate, bound: float, at_most: bool, word: str) -> None:
        assert report.Target("", "paired", "0", report.red, bound, at_most).verdict(rate) == word


class TestRawData:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Machine:
        machine = Machine(tmp_path / "data")
        machine.add([replace(scenario, passes=2) for scenario in SCENARIOS if scenario.turn == 1])
        return machine

    def lines(self, machine: Machine) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (machine.directory / "pairs.jsonl").read_text().splitlines()]

    def write(self, machine: Machine, lines: list[dict[str, Any]]) -> None:
        (machine.directory / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def test_what_is_being_written_is_left_out(self, small: Machine) -> None:
        whole = len(raw_data.read(small.directory).pairs)
        with (small.directory / "pairs.jsonl").open("a") as stream:
            stream.write('{"session":2,"scen')
        assert len(raw_data.read(small.directory).pairs) == whole == 6

    def test_goes_on_where_a_collection_was_stopped(self, small: Machine) -> None:
        small.clock -= 500_000  # a reboot: the monotonic clock begins anew
        small.add([replace(scenario, passes=1) for scenario in SCENARIOS if scenario.turn == 1])
        data = raw_data.read(small.directory)
        assert (data.sessions, data.boots, len(data.pairs)) == (2, 2, 9)

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda line: line.pop("blocks"), "line 3 .* is damaged \\(has no 'blocks'\\)"),
            (lambda line: line["blocks"]["0"].append([1.0]), "line 3 .* is damaged"),
            (lambda line: line["blocks"]["0"].append([1.0, -1.0]), "line 3 .* is damaged \\(-1.0 is no duration\\)"),
            (lambda line: line["candidate"]["replicates"].update({"0": []}), "line 3 .* is damaged \\(a replicate's rounds"),
            (lambda line: line.update(scenario="twins: another model"), "which scenarios.py does not have"),
            (
                lambda line: line["condition"]["before"].update(online=[0, 1, 2, 3]),
                "of another machine \\(4 cores, machine.json has 2\\)",
            ),
            (lambda line: line.update(machine="other"), "of another machine \\(other, the first line has None\\)"),
            (lambda line: line.update(number=0, scenario=TWINS[MOBILENET]), "two collections in one file"),
            (lambda line: line.update(session=0), "goes back to session 0"),
        ],
    )
    def test_what_is_wrong_with_a_line_is_said(self, small: Machine, damage: Any, says: str) -> None:
        lines = self.lines(small)
        damage(lines[2])
        self.write(small, lines)
        with pytest.raises(raw_data.DataError, match=says):
            raw_data.read(small.directory)

    def test_a_cut_line_in_the_middle_is_damage(self, small: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        path = small.directory / "pairs.jsonl"
        content = path.read_text().splitlines(keepends=True)
        path.write_text("".join([content[0], content[1][:200] + "\n", *content[2:]]))
        assert report.main(["--data", str(small.directory)]) == 1
        assert capsys.readouterr().err.startswith(f"line 2 of {path} is damaged")

    @pytest.mark.parametrize(("missing", "says"), [("pairs.jsonl", "take data first"), ("machine.json", "which machine")])
    def test_a_missing_file_is_named(self, small: Machine, missing: str, says: str) -> None:
        (small.directory / missing).unlink()
        with pytest.raises(raw_data.DataError, match=says):
            raw_data.read(small.directory)

    def test_no_line_is_no_data(self, small: Machine) -> None:
        self.write(small, [])
        with pytest.raises(raw_data.DataError, match="is empty"):
            raw_data.read(small.directory)

    def test_a_little_data_makes_a_page_on_the_terminal(self, small: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        assert report.main(["--data", str(small.directory)]) == 0
        assert "no data" in capsys.readouterr().out


class TestPowerCurve:
    @settings(max_examples=25)
    @given(st.lists(st.integers(0, 40), min_size=2, max_size=6))
    def test_every_point_lies_where_its_share_is(self, hits: list[int]) -> None:
        curve = Curve("a < b", {float(place): Rate(hit, 40) for place, hit in enumerate(hits)})
        root = ElementTree.fromstring(draw([Panel("called slower", [curve], {3: "here"})], "what & how"))
        circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))[: len(hits)]
        assert [float(circle.attrib["cy"]) for circle in circles] == pytest.approx(
            [34 + 260 * (1 - hit / 40) for hit in hits], abs=0.06
        )

    def test_more_curves_than_looks_are_refused(self) -> None:
        curves = [Curve(str(number), {}) for number in range(5)]
        with pytest.raises(ValueError, match="four"):
            draw([Panel("", curves, {})], "")
