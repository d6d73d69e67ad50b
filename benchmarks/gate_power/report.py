"""Says what the raw data shows: how often the gate is wrong on identical code, and what it finds of real slow-downs.

    python benchmarks/gate_power/report.py --data DIR [--write docs/explanation/gate-power.md]

Replays the gate's own rules, and those of other tools, on what ``collect.py`` measured. Without ``--write`` the page goes to the terminal,
from however little there is. The same data makes the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from string import Template

try:
    import pytest_inference_gate  # noqa: F401
except ImportError:  # run from a clone, uninstalled
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins"))

import numpy
from power_curve import Curve, Panel, draw
from rates import Rate, percent
from raw_data import DataError, PairRecord, RawData, read
from replay import BASELINE_SESSIONS, PAIRED_TOLERANCE, STORED_TOLERANCE, Replayed, by_rule, paired, stored
from rules import RULES, Rule
from scenarios import MOBILENET, MODELS
from tabulate import tabulate

TEMPLATE = Path(__file__).with_name("page.md.in")
LEVELS = ("3", "5", "8", "10", "20")
OTHER_BASELINES = (1, 3, 10)
DECISIONS_NEEDED = 300
RIVALS = ("pytest-benchmark `mean:5%`", "Mann-Whitney on rounds, p < 0.05")
GATES = {"paired": f"paired, tolerance {100 * PAIRED_TOLERANCE:g} %", "stored": f"stored, tolerance {100 * STORED_TOLERANCE:g} %"}
REAL = {
    "one thread less": "one thread instead of two",
    "float instead of int8": "the float model instead of the int8 one",
    "one more layer": "one more convolution",
    "slow in the tail only": "every 20th round takes twice as long",
    "slow at the start only": "the first 30 inferences take twice as long",
}
DISTURBED = ("disturbed all the time", "disturbed in every second pair")


class Evidence:
    """Every decision that the page is made of, each worked out once."""

    def __init__(self, data: RawData) -> None:
        self.data = data
        self._gates: dict[str, Callable[[RawData, str, str], list[Replayed]]] = {
            "paired": paired,
            "stored": stored,
            **{f"stored {count}": partial(stored, sessions=count) for count in OTHER_BASELINES},
        }
        self._decided: dict[tuple[str, str, str], list[Replayed]] = {}
        self._judged: dict[tuple[str, str, str], list[bool]] = {}

    def decided(self, gate: str, scenario: str, level: str) -> list[Replayed]:
        key = gate, scenario, level
        if key not in self._decided:
            self._decided[key] = self._gates[gate](self.data, scenario, level) if scenario in self.data.scenarios else []
        return self._decided[key]

    def identical(self, gate: str, model: str) -> list[Replayed]:
        return self.decided(gate, f"twins: {model}", "0") + self.decided(gate, f"power: {model}", "0")

    def at(self, gate: str, level: str, models: Iterable[str] = MODELS) -> list[Replayed]:
        """Decisions on candidates that are slower by so many percent; at ``"0"`` those on identical ones."""
        if level == "0":
            return [one for model in models for one in self.identical(gate, model)]
        return [one for model in models for one in self.decided(gate, f"power: {model}", level)]

    def judged(self, rule: Rule, level: str, models: Iterable[str] = MODELS) -> list[bool]:
        """Whether the rule called the candidate slower, in each of its comparisons."""
        answers = []
        for model in models:
            key = rule.name, level, model
            if key not in self._judged:
                scenarios = (f"twins: {model}", f"power: {model}")
                self._judged[key] = [one.red for one in by_rule(self.data, rule, scenarios, level)]
            answers += self._judged[key]
        return answers

    @cached_property
    def true_changes(self) -> dict[tuple[str, str], float]:
        """The median of the pairs' ratios less one, by scenario and level."""
        found: dict[tuple[str, str], list[float]] = {}
        for pair in self.data.pairs:
            for level in pair.blocks:
                found.setdefault((pair.scenario, level), []).append(pair.ratio(level))
        return {key: median(ratios) - 1 for key, ratios in found.items()}


def red(decisions: Iterable[Replayed]) -> Rate:
    return Rate.of(one.red for one in decisions)


def undecided(decisions: Iterable[Replayed]) -> Rate:
    return Rate.of(one.undecided for one in decisions)


def not_green(decisions: Iterable[Replayed]) -> Rate:
    return Rate.of(not one.green for one in decisions)


@dataclass(frozen=True)
class Target:
    """What issue and page promise of a gate: a share that may be at most, or must be at least, so large."""

    what: str
    gate: str
    level: str
    count: Callable[[Iterable[Replayed]], Rate]
    bound: float
    at_most: bool

    def verdict(self, rate: Rate) -> str:
        """``shown``: the whole interval is within the bound; ``reached``: the share itself is."""
        if not rate.trials:
            return "no data"
        low, high = rate.interval()
        worst, within = (high, rate.share <= self.bound) if self.at_most else (low, rate.share >= self.bound)
        if within:
            return "shown" if (worst <= self.bound if self.at_most else worst >= self.bound) else "reached"
        return "**missed**"


TARGETS: tuple[Target, ...] = (
    Target("identical: red", "paired", "0", red, 0.005, True),
    Target("identical: inconclusive", "paired", "0", undecided, 0.02, True),
    Target("+5 %: not green", "paired", "5", not_green, 0.95, False),
    Target("+8 %: not green", "paired", "8", not_green, 0.99, False),
    Target("+8 %: red", "paired", "8", red, 0.95, False),
    Target("+10 %: not green", "paired", "10", not_green, 0.99, False),
    Target("+10 %: red", "paired", "10", red, 0.99, False),
    Target("+20 %: red", "paired", "20", red, 0.99, False),
    Target("identical: red", "stored", "0", red, 0.01, True),
    Target("identical: inconclusive", "stored", "0", undecided, 0.03, True),
    Target("+10 %: not green", "stored", "10", not_green, 0.95, False),
    Target("+20 %: red", "stored", "20", red, 0.90, False),
)
SECONDS_TARGETS = {"paired": 15.0, "stored": 10.0}


def targets_table(evidence: Evidence) -> str:
    rows = []
    for target in TARGETS:
        rate = target.count(evidence.at(target.gate, target.level))
        bound = f"{'≤' if target.at_most else '≥'} {100 * target.bound:g} %"
        rows.append([GATES[target.gate], target.what, bound, str(rate), target.verdict(rate)])
    for gate, bound_seconds in SECONDS_TARGETS.items():
        seconds = [one.seconds for one in evidence.identical(gate, MOBILENET) if one.green and one.scenario.startswith("twins")]
        reached = "–" if not seconds else f"{median(seconds):.1f} s, longest {max(seconds):.1f} s"
        word = "no data" if not seconds else "reached" if median(seconds) <= bound_seconds else "**missed**"
        rows.append(
            [GATES[gate], "measuring for a green verdict, mobilenet_v2_224 int8", f"≤ {bound_seconds:g} s", reached, word]
        )
    return table(["gate", "what", "target", "reached", ""], rows)


def identical_table(evidence: Evidence) -> str:
    rows = []
    for gate, name in GATES.items():
        for model in [*MODELS, None]:
            decisions = evidence.identical(gate, model) if model else evidence.at(gate, "0")
            faster = Rate.of(one.verdict == "faster" for one in decisions)
            rows.append([name, model or "**all**", str(red(decisions)), str(undecided(decisions)), str(faster)])
    return table(["gate", "model", "slower (red)", "inconclusive or ungateable", "faster"], rows)


def worst_identical(evidence: Evidence) -> str:
    sentences = []
    for gate in GATES:
        decided = [(not_green(evidence.identical(gate, model)), model) for model in MODELS]
        rates = [(rate, model) for rate, model in decided if rate.trials]
        if rates and any(rate.hits for rate, _ in rates):
            rate, model = max(rates, key=lambda one: one[0].share)
            sentences.append(f"Worst with the {gate} gate: {model}, not green in {rate}.")
        elif rates:
            sentences.append(f"With the {gate} gate no model is worse than the others: every verdict on identical code is green.")
    return " ".join(sentences)


def detection_table(evidence: Evidence) -> str:
    rows = []
    for level in LEVELS:
        changes = [evidence.true_changes[f"power: {m}", level] for m in MODELS if (f"power: {m}", level) in evidence.true_changes]
        really = f"{_signed(min(changes))} to {_signed(max(changes))}" if changes else "–"
        cells = [str(count(evidence.at(gate, level))) for gate in GATES for count in (red, not_green)]
        rows.append([f"+{level} %", really, *cells])
    return table(["added", "measured", *(f"{gate}: {answer}" for gate in GATES for answer in ("red", "not green"))], rows)


def detection_by_model_table(evidence: Evidence) -> str:
    rows = []
    for gate, name in GATES.items():
        for model in MODELS:
            cells = []
            for level in LEVELS:
                decisions = evidence.at(gate, level, [model])
                cells.append(f"{red(decisions).hits}, {not_green(decisions).hits} of {len(decisions)}" if decisions else "–")
            rows.append([name, model, *cells])
    return table(["gate", "model", *(f"+{level} %" for level in LEVELS)], rows)


def real_table(evidence: Evidence) -> str:
    rows = []
    for scenario, what in REAL.items():
        pairs = evidence.data.of(scenario)
        level = next(iter(evidence.data.scenarios[scenario].levels))
        cells = []
        for gate in GATES:
            decisions = evidence.decided(gate, scenario, level)
            cells += [str(red(decisions)), str(not_green(decisions))]
        rows.append([what, *_true_ratios(pairs, level), *cells])
    answers = [f"{gate}: {answer}" for gate in GATES for answer in ("red", "not green")]
    return table(["what", "median", "99th percentile", "first inference", *answers], rows)


def _true_ratios(pairs: Sequence[PairRecord], level: str) -> list[str]:
    """How much slower in the median (of blocks), in the 99th percentile of rounds and in the first inference."""
    if not pairs:
        return ["–"] * 3
    tails = [
        float(numpy.percentile(pair.candidate.replicates[level], 99) / numpy.percentile(pair.reference.replicates["0"], 99))
        for pair in pairs
    ]
    starts = [pair.candidate.first_inference / pair.reference.first_inference for pair in pairs]
    return [f"×{median(values):.2f}" for values in ([pair.ratio(level) for pair in pairs], tails, starts)]


def contamination_table(evidence: Evidence) -> str:
    rows = []
    for scenario in DISTURBED:
        disturbed = evidence.data.scenarios[scenario].disturbed
        for gate, name in GATES.items():
            for level in ("0", "10"):
                decisions = [
                    one for one in evidence.decided(gate, scenario, level) if any(disturbed(pair.number) for pair in one.pairs)
                ]
                wrong = red(decisions) if level == "0" else Rate.of(one.green for one in decisions)
                right = Rate.of(one.green for one in decisions) if level == "0" else red(decisions)
                candidate = "identical" if level == "0" else "+10 %"
                rows.append([scenario, name, candidate, str(right), str(undecided(decisions)), str(wrong)])
    return table(["other program", "gate", "candidate", "right", "inconclusive or ungateable", "confidently wrong"], rows)


def head_to_head_table(evidence: Evidence) -> str:
    levels = ("0", "5", "10", "20")
    rows = [
        [rule.name, *(str(Rate.of(evidence.judged(rule, level))) for level in levels), _worst(evidence, rule)] for rule in RULES
    ]
    for gate, name in GATES.items():
        for answer, count in (("red", red), ("not green", not_green)):
            rates = {model: count(evidence.identical(gate, model)) for model in MODELS}
            rows.append([f"**{name}: {answer}**", *(str(count(evidence.at(gate, level))) for level in levels), _worst_of(rates)])
    return table(["rule", "identical, called slower", "+5 %", "+10 %", "+20 %", "identical, worst model"], rows)


def _worst(evidence: Evidence, rule: Rule) -> str:
    return _worst_of({model: Rate.of(evidence.judged(rule, "0", [model])) for model in MODELS})


def _worst_of(rates: Mapping[str, Rate]) -> str:
    known = {model: rate for model, rate in rates.items() if rate.trials}
    if not known:
        return "–"
    model = max(known, key=lambda name: known[name].share)
    return f"{percent(known[model].share)} %, {model.split()[0]}" if known[model].hits else "none"


def baselines_table(evidence: Evidence) -> str:
    rows = []
    for count in sorted({*OTHER_BASELINES, BASELINE_SESSIONS}):
        gate = "stored" if count == BASELINE_SESSIONS else f"stored {count}"
        same = evidence.at(gate, "0")
        thresholds = [one.decision.threshold for one in same]
        wide = f"{100 * median(thresholds):.1f} %, up to {100 * max(thresholds):.1f} %" if thresholds else "–"
        rows.append(
            [
                str(count),
                wide,
                str(red(same)),
                str(undecided(same)),
                *(str(not_green(evidence.at(gate, level))) for level in ("10", "20")),
            ]
        )
    header = ["sessions", "threshold", "identical: red", "identical: inconclusive", "+10 %: not green", "+20 %: not green"]
    return table(header, rows)


def cost_table(evidence: Evidence) -> str:
    rows = []
    for gate, name in GATES.items():
        for model in MODELS:
            twins = evidence.decided(gate, f"twins: {model}", "0")
            if not twins:
                rows.append([name, model, *["–"] * 5])
                continue
            each = median(one.seconds / len(one.pairs) for one in twins)
            seconds = sorted(one.seconds for one in twins)
            cells = [
                f"{len(decisions) and sum(len(one.pairs) for one in decisions) / len(decisions):.1f}"
                for decisions in (
                    evidence.identical(gate, model),
                    evidence.at(gate, "5", [model]),
                    evidence.at(gate, "20", [model]),
                )
            ]
            rows.append([name, model, f"{each:.2f} s", f"{median(seconds):.1f} s, longest {seconds[-1]:.1f} s", *cells])
    header = ["gate", "model", "one replicate or pair", "a verdict on identical code", "taken: identical", "+5 %", "+20 %"]
    return table(header, rows)


def since(data: RawData, session: int) -> RawData:
    """Only the sessions from this number on. Raises :class:`DataError` where there is none."""
    pairs = [pair for pair in data.pairs if pair.session >= session]
    if not pairs:
        raise DataError(f"there is no session {session} yet, the last one is {data.pairs[-1].session}")
    return replace(data, pairs=pairs)


def machine_lines(data: RawData) -> str:
    device = data.machine["device"]
    first, last = (datetime.fromtimestamp(moment, timezone.utc) for moment in (data.pairs[0].time, data.pairs[-1].time))
    hours = (last - first).total_seconds() / 3600
    dates = f"{first:%Y-%m-%d}" if first.date() == last.date() else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    kind = str(device["kind"]).replace("-", " ")
    software = ", ".join(f"{name} {version}" for name, version in data.machine["software"].items())
    lines = [
        f"- machine: {device['cpu_model']} ({device['cpu_signature']}), {device['machine']}, {device['online_cores']} cores, {kind}",
        f"- software: {software}",
        f"- data: {data.sessions} sessions with {len(data.pairs)} pairs of fresh processes over {hours:.1f} hours ({dates}, UTC)",
        f"- started up during that time: {'once' if data.boots == 1 else f'{data.boots} times'}",
    ]
    if (begin := data.pairs[0].session) > 1:
        lines.append(f"- left out: the {begin - 1} sessions before, on which the rules were chosen")
    return "\n".join(lines)


def curve_panels(evidence: Evidence) -> list[Panel]:
    def curve(name: str, rate: Callable[[str], Rate]) -> Curve:
        return Curve(name, {float(level): rate(level) for level in ("0", *LEVELS)})

    def of_gate(gate: str, count: Callable[[Iterable[Replayed]], Rate]) -> Curve:
        return curve(f"{gate} gate", lambda level: count(evidence.at(gate, level)))

    def of_rule(rule: Rule) -> Curve:
        return curve(rule.name.replace("`", ""), lambda level: Rate.of(evidence.judged(rule, level)))

    rivals = [of_rule(rule) for rule in RULES if rule.name in RIVALS]
    marked = {100 * PAIRED_TOLERANCE: "paired", 100 * STORED_TOLERANCE: "stored"}
    return [
        Panel("called slower (red)", [*(of_gate(gate, red) for gate in GATES), *rivals], marked),
        Panel("not green", [of_gate(gate, not_green) for gate in GATES], marked),
    ]


def curve_table(panels: Sequence[Panel]) -> str:
    """The picture in words."""
    header = ["", *(f"{'+' if level != '0' else ''}{level} %" for level in ("0", *LEVELS))]
    rows = []
    for panel in panels:
        for curve in panel.curves:
            shares = [f"{percent(rate.share)} %" if rate.trials else "–" for rate in curve.rates.values()]
            rows.append([f"{curve.name}: {panel.title}", *shares])
    return table(header, rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)


def page(evidence: Evidence, note: str = "") -> tuple[str, str]:
    """The page and its picture. ``note`` stands below the limits: what the reader of this very data has to know."""
    panels = curve_panels(evidence)
    template = Template(TEMPLATE.read_text())
    text = template.substitute(
        machine=machine_lines(evidence.data),
        targets=targets_table(evidence),
        identical=identical_table(evidence),
        worst=worst_identical(evidence),
        detection=detection_table(evidence),
        by_model=detection_by_model_table(evidence),
        real=real_table(evidence),
        contamination=contamination_table(evidence),
        rivals=head_to_head_table(evidence),
        baselines=baselines_table(evidence),
        cost=cost_table(evidence),
        curve=curve_table(panels),
        baseline_sessions=BASELINE_SESSIONS,
        note=f"\n{note}\n" if note else "",
    )
    return text, draw(panels, "How often a slow-down is called one, over its size")


def too_short(evidence: Evidence, needed: int) -> str | None:
    """What is missing before the page may be written, in one sentence."""
    for gate in GATES:
        count = len(evidence.at(gate, "0"))
        if count < needed:
            return f"the data has {count} decisions of the {gate} gate on identical code, and the page needs {needed}"
        for level in LEVELS:
            if not evidence.at(gate, level):
                return f"the data has no decision of the {gate} gate at +{level} %"
    return None


def _signed(change: float) -> str:
    return f"{100 * change:+.1f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that collect.py wrote to")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the page there, and its picture beside it")
    parser.add_argument(
        "--needed",
        type=int,
        default=DECISIONS_NEEDED,
        help="fewest decisions on identical code with which a page is written (default: 300)",
    )
    parser.add_argument(
        "--from-session",
        type=int,
        default=1,
        metavar="N",
        help="leave out what came before, such as the sessions that the rules were chosen on",
    )
    parser.add_argument("--note", default="", help="a sentence about this data, put below the limits of the page")
    options = parser.parse_args(arguments)
    try:
        evidence = Evidence(since(read(options.data), options.from_session))
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    if options.write is not None and (missing := too_short(evidence, options.needed)):
        print(f"{missing}: let collect.py go on", file=sys.stderr)
        return 1
    text, picture = page(evidence, options.note)
    if options.write is None:
        print(text)
    else:
        options.write.with_suffix(".svg").write_text(picture)
        options.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
