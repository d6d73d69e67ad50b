"""What ``inference-gate baseline axes`` prints: stacks, what ran on which, and the steps between them, as lines and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..report.figures import milliseconds, ratio_text
from ..wording import counted
from .stack_axes import CaseStep, Stack, Step, Upgrades
from .tables import plain, table

SCHEMA = "inference-gate-axes/1"
_NOTHING = "-"
_MOST_CHANGES = 8
_WIDTH = 120


def upgrade_lines(device: str, upgrades: Upgrades, tolerance: float, ignored: Sequence[str] = ()) -> list[str]:
    """The stacks, each case on each of them, then each step with its verdicts, and last what cannot be told."""
    sessions = sum(len(stack.sessions) for stack in upgrades.stacks)
    lines = [f"{device}: {counted(len(upgrades.stacks), 'stack')} in {counted(sessions, 'session')}"]
    if ignored:
        lines.append(f"not looked at: {', '.join(ignored)}")
    lines += ["", *_stack_table(upgrades)]
    if len(upgrades.stacks) < 2:
        return [*lines, "", "There is one stack, so nothing to compare: record the next one with --benchmark-save=NAME."]
    lines += ["", "median in ms, or how it failed:", "", *_case_table(upgrades)]
    for step in upgrades.steps:
        lines += ["", *_step_lines(step)]
    lines.append("")
    for pair in upgrades.confounded:
        axes = " and ".join(pair.axes) if len(pair.axes) < 3 else "all three axes"
        lines.append(f"{pair.before.letter} -> {pair.after.letter}: {axes} differ, so no change is put down to one of them")
    if not upgrades.steps:
        lines.append(
            "No two stacks differ on one axis alone: record one that lies between two of them, with --benchmark-save=NAME."
        )
    else:
        comparisons = sum(case.decision is not None for step in upgrades.steps for case in step.cases)
        lines.append(
            f"Verdicts: the rule of a run with --benchmark-compare, tolerance {100 * tolerance:g} %, on the replicates that the sessions "
            f"hold, corrected for {counted(comparisons, 'comparison')}."
        )
    if upgrades.blind:
        lines.append(
            f"{counted(upgrades.blind, 'comparison')} rest{'s' if upgrades.blind == 1 else ''} on too few replicates to call any change, "
            "however large, among so many: save each stack once more, under the same name."
        )
    if upgrades.steps and any(len(stack.sessions) == 1 for stack in upgrades.stacks):
        alone = ", ".join(stack.letter for stack in upgrades.stacks if len(stack.sessions) == 1)
        lines.append(f"One session alone does not show how much the device varies from one day to the next: {alone}.")
    return lines


def _stack_table(upgrades: Upgrades) -> list[str]:
    headers = ["stack", "sessions", "saved as", *upgrades.axes]
    rows = [
        [
            stack.letter,
            ", ".join(session.path.name[:4] for session in stack.sessions),
            ", ".join(plain(name) for name in stack.names),
            *(stack.levels[axis] for axis in upgrades.axes),
        ]
        for stack in upgrades.stacks
    ]
    return table(headers, rows)


def _case_table(upgrades: Upgrades) -> list[str]:
    ids = dict.fromkeys(case_id for stack in upgrades.stacks for case_id in stack.case_ids)
    letters = [stack.letter for stack in upgrades.stacks]
    rows = [[case_id, *(_cell(stack, case_id) for stack in upgrades.stacks)] for case_id in ids]
    return table(["case", *letters], rows, numbers=letters)


def _cell(stack: Stack, case_id: str) -> str:
    value, failure = stack.median(case_id), stack.failure(case_id)
    if value is not None:
        return milliseconds(value)
    return _NOTHING if failure is None else _failure(failure)


def _failure(failure: Mapping[str, Any]) -> str:
    """Such as ``crash SIGABRT``."""
    return f"{failure.get('kind', 'failed')} {failure.get('signal') or ''}".strip()


def _step_lines(step: Step) -> list[str]:
    names = [str(change) for change in step.changes]
    if len(names) > _MOST_CHANGES:
        names = [*names[:_MOST_CHANGES], f"and {len(names) - _MOST_CHANGES} more"]
    text = f"{step.axis}, {step.before.letter} -> {step.after.letter}: {'; '.join(names)}"
    lines = [*textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_on_hyphens=False), ""]
    rows = [
        [
            case.id,
            milliseconds(case.before) if case.before is not None else _gone(case.failure_before),
            milliseconds(case.after) if case.after is not None else _gone(case.failure_after),
            *_change(case),
            _NOTHING if case.verdict is None else str(case.verdict),
        ]
        for case in step.cases
    ]
    headers = ["case", "before", "after", "change %", "95 % interval of the ratio", "verdict"]
    lines += table(headers, rows, numbers=("before", "after", "change %"))
    return [*lines, *_failures(step)]


def _gone(failure: Mapping[str, Any] | None) -> str:
    return _NOTHING if failure is None else _failure(failure)


def _change(case: CaseStep) -> tuple[str, str]:
    if case.decision is None:
        return _NOTHING, _NOTHING
    interval = case.decision.interval
    told = "too few replicates" if interval is None else f"{ratio_text(interval[0])} to {ratio_text(interval[1])}"
    return f"{100 * (case.decision.ratio - 1):+.1f}", told


def _failures(step: Step) -> Iterable[str]:
    """What a case failed of that ran before, in the words of the session."""
    for case in step.cases:
        if case.failure_after is not None and case.before is not None:
            message = " ".join(str(case.failure_after.get("message") or "no reason is recorded").split())
            text = f"{case.id} with {step.after.letter}: {_failure(case.failure_after)}: {message}"
            yield from textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


def upgrade_document(device: str, upgrades: Upgrades, tolerance: float, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """All of it as JSON. Durations in seconds; changes are ratios, after / before."""
    return {
        "schema": SCHEMA,
        "device": device,
        "tolerance": tolerance,
        "ignored": list(ignored),
        "axes": list(upgrades.axes),
        "stacks": [
            {
                "stack": stack.letter,
                "names": list(stack.names),
                "sessions": [str(session.path) for session in stack.sessions],
                "levels": dict(stack.levels),
                "software": dict(stack.software),
                "cases": {
                    case_id: {"median": stack.median(case_id), "failure": _plain_failure(stack.failure(case_id))}
                    for case_id in stack.case_ids
                },
            }
            for stack in upgrades.stacks
        ],
        "steps": [
            {
                "axis": step.axis,
                "before": step.before.letter,
                "after": step.after.letter,
                "changes": [{"name": one.name, "before": one.before, "after": one.after} for one in step.changes],
                "cases": [_case_document(case) for case in step.cases],
            }
            for step in upgrades.steps
        ],
        "confounded": [
            {"before": pair.before.letter, "after": pair.after.letter, "axes": list(pair.axes)} for pair in upgrades.confounded
        ],
        "comparisons_with_too_few_replicates": upgrades.blind,
    }


def _case_document(case: CaseStep) -> dict[str, Any]:
    decision = case.decision
    return {
        "id": case.id,
        "before": case.before,
        "after": case.after,
        "verdict": None if case.verdict is None else str(case.verdict),
        "reason": None if decision is None else decision.reason,
        "ratio": None if decision is None else decision.ratio,
        "interval": None if decision is None or decision.interval is None else list(decision.interval),
        "threshold": None if decision is None else decision.threshold,
        "p_value": None if decision is None else decision.p_value,
        "failure_before": _plain_failure(case.failure_before),
        "failure_after": _plain_failure(case.failure_after),
    }


def _plain_failure(failure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if failure is None else dict(failure)
