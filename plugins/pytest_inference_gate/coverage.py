"""How much of a model runs on its accelerator, and whether that is enough: pure functions, no I/O.

A converter or a runtime tells it as one plain dict (docs/reference/agent-protocol.md), which comes from another process and from files, so
that nothing in it is believed before :func:`parse_coverage` has looked at it. Speed alone does not show a fall-back: an operation that
moved to the CPU can be hidden by a faster CPU, and shows on the next board.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .verdict import Verdict

MOST_OPERATIONS = 50
"""So many kinds of operations are kept of those that run elsewhere: enough to name what fell back, small enough for a baseline."""

OFF_CHIP_TOLERANCE = 0.01
"""What a size in bytes may grow by, as a share. The Edge TPU's compiler prints sizes to two decimals of a unit of which there is at least
one (1.00 KiB, 3.45 MiB), so that two builds of one model can differ by a hundredth without any byte having moved. No byte off the chip is
printed as 0.00, exactly: from there nothing is tolerated, since a model that no longer fits streams its weights at every inference."""

LIBRARIES = frozenset({"xnnpack"})
"""Not devices but libraries of kernels on the same processor. How much of a model they take explains its latency, which decides: it closes
no gate of its own, unless a card demands it."""

_LONGEST_TEXT = 200


class MalformedCoverage(ValueError):
    """What is wrong with it, as the end of a sentence that begins with what told it."""


@dataclass(frozen=True)
class OperationElsewhere:
    """So many operations of one kind that do not run on the accelerator, and why not, in the words of what told it (may be empty)."""

    operation: str
    count: int
    reason: str = ""


@dataclass(frozen=True)
class Coverage:
    """Where the operations of a model run.

    * ``accelerator``: what they were meant for, such as ``edgetpu``, ``tensorrt``, ``dla``, ``delegate``;
    * ``on_accelerator``, ``elsewhere``: operations (nodes, layers) counted by ``source``, together at least one;
    * ``parts``: in how many pieces they run there (TensorRT engines, Edge TPU subgraphs, partitions of a delegate);
    * ``off_chip_bytes``: weights that are streamed to the accelerator at each inference;
    * ``native_segments``: of TF-TRT, engines that ran as native TensorFlow segments.

    Those three are None where ``source`` does not tell them.
    """

    accelerator: str
    on_accelerator: int
    elsewhere: int
    parts: int | None = None
    off_chip_bytes: int | None = None
    elsewhere_by_operation: tuple[OperationElsewhere, ...] = ()
    native_segments: int | None = None
    source: str = ""

    @property
    def operations(self) -> int:
        return self.on_accelerator + self.elsewhere

    @property
    def share(self) -> float:
        """Of its operations on the accelerator, 0 to 1."""
        return self.on_accelerator / self.operations

    def in_words(self) -> str:
        """Such as ``70 of 72 operations (97.2%)``."""
        return f"{self.on_accelerator} of {self.operations} operations ({_percent(self)})"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, which :func:`parse_coverage` reads back."""
        return {
            "accelerator": self.accelerator,
            "on_accelerator": self.on_accelerator,
            "elsewhere": self.elsewhere,
            "parts": self.parts,
            "off_chip_bytes": self.off_chip_bytes,
            "elsewhere_by_operation": [
                {"operation": one.operation, "count": one.count, "reason": one.reason} for one in self.elsewhere_by_operation
            ],
            "native_segments": self.native_segments,
            "source": self.source,
        }


@dataclass(frozen=True)
class CoverageDemand:
    """What a card asks of one backend: the least share of operations on the accelerator, and the most bytes off its chip."""

    minimum_share: float | None = None
    maximum_off_chip_bytes: int | None = None

    @property
    def anything(self) -> bool:
        return self.minimum_share is not None or self.maximum_off_chip_bytes is not None


@dataclass(frozen=True)
class CoverageDecision:
    """``pass`` or ``fallback``, with the reason in a sentence; empty where there was nothing to hold the coverage against.

    ``remarks`` are sentences that close no gate, such as that there are more parts than before. ``before`` is what it was held against;
    ``unknown_before``: the baseline has the case, and no coverage of it.
    """

    verdict: Verdict
    reason: str = ""
    remarks: tuple[str, ...] = ()
    before: Coverage | None = field(default=None, compare=False)
    unknown_before: bool = False


def parse_coverage(document: object) -> Coverage:
    """What a backend or a file tells, checked. Raises :class:`MalformedCoverage`; keys that are not known are left alone."""
    if not isinstance(document, Mapping):
        raise MalformedCoverage(f"is {_found(document)} instead of an object")
    accelerator = _text(document, "accelerator")
    source = _text(document, "source")
    on_accelerator, elsewhere = _count(document, "on_accelerator"), _count(document, "elsewhere")
    if on_accelerator + elsewhere == 0:
        raise MalformedCoverage("counts no operation at all, neither on_accelerator nor elsewhere")
    listed = document.get("elsewhere_by_operation")
    if listed is None:
        listed = []
    if not isinstance(listed, (list, tuple)):
        raise MalformedCoverage(f"has {_found(listed)} as elsewhere_by_operation instead of a list")
    by_operation = tuple(_operation(entry) for entry in listed)
    named = sum(one.count for one in by_operation)
    if named > elsewhere:
        raise MalformedCoverage(f"names {named} operations in elsewhere_by_operation, but counts {elsewhere} elsewhere")
    return Coverage(
        accelerator,
        on_accelerator,
        elsewhere,
        _optional_count(document, "parts"),
        _optional_count(document, "off_chip_bytes"),
        tuple(sorted(by_operation, key=lambda one: -one.count)[:MOST_OPERATIONS]),
        _optional_count(document, "native_segments"),
        source,
    )


def converter_coverage(provenance: Mapping[str, Any]) -> Coverage | None:
    """What the conversion said of it, by the artifact's provenance; None where it said nothing. Raises :class:`MalformedCoverage`."""
    details = provenance.get("details")
    told = details.get("coverage") if isinstance(details, Mapping) else None
    return None if told is None else parse_coverage(told)


def told_by_runtime(runtime: Coverage, converter: Coverage | None) -> Coverage:
    """What the runtime says, completed by what the converter alone can know.

    The runtime's counts win: what was meant for an accelerator need not run there. A converter knows why an operation cannot, and how many
    bytes do not fit; that is taken over where both speak of the same accelerator.
    """
    if converter is None or converter.accelerator != runtime.accelerator:
        return runtime
    named = runtime.elsewhere_by_operation
    if not named and runtime.elsewhere == converter.elsewhere:
        named = converter.elsewhere_by_operation
    return replace(
        runtime,
        parts=converter.parts if runtime.parts is None else runtime.parts,
        off_chip_bytes=converter.off_chip_bytes if runtime.off_chip_bytes is None else runtime.off_chip_bytes,
        native_segments=converter.native_segments if runtime.native_segments is None else runtime.native_segments,
        elsewhere_by_operation=named,
    )


def judge_coverage(
    found: Coverage | None,
    baseline: Sequence[Coverage | None],
    demand: CoverageDemand | None = None,
    *,
    there: str = "in the baseline",
) -> CoverageDecision:
    """Whether as much of the model runs on the accelerator as before, and as the card demands.

    ``found`` is None where nothing told it; ``baseline`` holds what each of the baseline's sessions knows, oldest first, and the newest
    that knows anything is what counts: who accepts a change records a new session. ``fallback`` is said where

    * the card demands anything that is not reached, or not told;
    * the baseline had a coverage, or a figure of it, that is not told any more;
    * it is another accelerator's, more operations run elsewhere, or none runs there any more;
    * more bytes lie off the chip, by more than :data:`OFF_CHIP_TOLERANCE`, or more segments ran natively.

    What one of :data:`LIBRARIES` takes is compared with the baseline in remarks alone. The rest is ``pass``, with a remark where it is
    better than before, or in more parts at an equal share. ``there`` is what the sentences call the baseline: ``with the other stack``
    where two are measured in turns.
    """
    before = next((one for one in reversed(baseline) if one is not None), None)
    known = before or found
    gates = known is None or known.accelerator not in LIBRARIES
    less = tuple(_below_baseline(found, before, there))
    problems = [*_below_demand(found, demand), *(less if gates else ())]
    if problems:
        return CoverageDecision(Verdict.FALLBACK, "; ".join(problems), before=before)
    if found is None:
        return CoverageDecision(Verdict.PASS, remarks=less, before=before)
    if before is None:
        reason = f"{_runs(found)}, as the card demands" if demand is not None and demand.anything else ""
        return CoverageDecision(Verdict.PASS, reason, unknown_before=bool(baseline) and gates)
    # A part of a library's is a call on the same processor.
    remarks = less or tuple(_remarks(found if gates else replace(found, parts=None), before, there))
    return CoverageDecision(Verdict.PASS, remarks[0] if remarks else f"{_runs(found)}, as {there}", remarks, before)


def coverage_notices(decisions: Mapping[str, CoverageDecision]) -> list[str]:
    """What a run should say of the coverage of its cases, by id: each remark, and once which of them the baseline knows nothing of."""
    notices = [f"{case_id}: {remark}" for case_id, decision in decisions.items() for remark in decision.remarks]
    unknown = [case_id for case_id, decision in decisions.items() if decision.unknown_before]
    if unknown:
        names = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        what = f"the baseline does not know how much runs on the accelerator of {names}"
        notices.append(f"{what}: record a new one, so that a fall-back is noticed")
    return notices


def least_covered(found: Iterable[Coverage]) -> Coverage | None:
    """The one of several processes or builds that shows the least on the accelerator; None of none."""
    return min(
        found,
        key=lambda one: (one.share, -one.elsewhere, -(one.native_segments or 0), -(one.off_chip_bytes or 0), -(one.parts or 0)),
        default=None,
    )


def fallen_back(found: Coverage, before: Coverage | None) -> list[tuple[OperationElsewhere, int]]:
    """What runs elsewhere, with how many of it did so before, what grew the most first. One kind can have several reasons."""
    known: dict[tuple[str, str], int] = {}
    for one in before.elsewhere_by_operation if before is not None else ():
        known[one.operation, one.reason] = known.get((one.operation, one.reason), 0) + one.count
    rows = [(one, known.get((one.operation, one.reason), 0)) for one in found.elsewhere_by_operation]
    return sorted(rows, key=lambda row: (row[1] - row[0].count, -row[0].count, row[0].operation))


# ---------------------------------------------------------------- judging


def _below_demand(found: Coverage | None, demand: CoverageDemand | None) -> Iterable[str]:
    if demand is None or not demand.anything:
        return
    if found is None:
        yield "the card demands a coverage of the accelerator, and the backend tells none"
        return
    if demand.minimum_share is not None and found.share < demand.minimum_share:
        yield f"{_runs(found)}, and the card demands at least {demand.minimum_share:.4g} of them"
    if demand.maximum_off_chip_bytes is not None:
        if found.off_chip_bytes is None:
            most = demand.maximum_off_chip_bytes
            yield f"the card allows at most {most} bytes off the chip, and {found.source} does not tell how many there are"
        elif found.off_chip_bytes > demand.maximum_off_chip_bytes:
            yield f"{_off_chip(found)}, and the card allows at most {demand.maximum_off_chip_bytes}"


def _below_baseline(found: Coverage | None, before: Coverage | None, there: str) -> Iterable[str]:
    if before is None:
        return
    if found is None:
        yield f"nothing tells what runs on {before.accelerator}: {there} {before.in_words()} did, as {before.source} told"
        return
    if found.accelerator != before.accelerator:
        yield f"the model runs on {found.accelerator}, and on {before.accelerator} {there}"
        return
    if found.elsewhere > before.elsewhere or (before.on_accelerator and not found.on_accelerator):
        yield f"{_runs(found)}, {before.in_words()} {there}"
    if before.off_chip_bytes is not None:
        if found.off_chip_bytes is None:
            yield f"nothing tells how many bytes lie off the chip, {before.off_chip_bytes} {there}"
        elif found.off_chip_bytes > before.off_chip_bytes * (1 + OFF_CHIP_TOLERANCE):
            yield f"{_off_chip(found)}, {before.off_chip_bytes} {there}"
    if before.native_segments is not None and found.native_segments is None:
        yield f"nothing tells how many segments ran as native TensorFlow, {before.native_segments} {there}"
    elif (found.native_segments or 0) > (before.native_segments or 0):
        yield (
            f"{found.native_segments} {_plural(found.native_segments, 'segment')} of {found.accelerator} ran as native TensorFlow,"
            f" {before.native_segments or 0} {there}"
        )


def _remarks(found: Coverage, before: Coverage, there: str) -> Iterable[str]:
    """Of a coverage that is not less than before."""
    more = found.on_accelerator * before.operations > before.on_accelerator * found.operations
    if more or found.elsewhere < before.elsewhere:
        yield f"{_runs(found)}, more than {there} ({before.in_words()})"
    elif found.on_accelerator < before.on_accelerator:
        # Operations that were fused: nothing that ran there runs elsewhere now.
        yield f"{_runs(found)}, {before.in_words()} {there}: there are fewer of them, and no more elsewhere"
    if (before.off_chip_bytes or 0) * (1 - OFF_CHIP_TOLERANCE) > (found.off_chip_bytes or 0):
        yield f"{_off_chip(found)}, fewer than {there} ({before.off_chip_bytes})"
    if (before.native_segments or 0) > (found.native_segments or 0):
        yield f"{found.native_segments or 0} segments ran as native TensorFlow, fewer than {there} ({before.native_segments})"
    if found.parts is not None and before.parts is not None and found.parts > before.parts:
        parts = f"what runs on {found.accelerator} is in {found.parts} parts, {before.parts} {there}"
        yield f"{parts}: each costs a way there and back"


def _runs(found: Coverage) -> str:
    return f"{found.in_words()} run on {found.accelerator}"


def _off_chip(found: Coverage) -> str:
    return f"{found.off_chip_bytes or 0} bytes lie off the chip of {found.accelerator}"


def _percent(coverage: Coverage) -> str:
    """Never rounded to all or to nothing, where it is not."""
    percent = 100 * coverage.share
    if coverage.elsewhere:
        percent = min(percent, 99.9)
    if coverage.on_accelerator:
        percent = max(percent, 0.1)
    return "100%" if percent == 100 else f"{percent:.1f}%"


def _plural(count: int | None, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


# ---------------------------------------------------------------- parsing


def _found(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 and text.isprintable() else f"a {type(value).__name__}"


def _count(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedCoverage(f"has {_found(value)} as {key} instead of a whole number of at least 0")
    return value


def _optional_count(document: Mapping[str, Any], key: str) -> int | None:
    return None if document.get(key) is None else _count(document, key)


def _text(document: Mapping[str, Any], key: str, *, empty: bool = False) -> str:
    value = document.get(key)
    if empty and value is None:
        return ""
    if not isinstance(value, str) or not (empty or value.strip()):
        raise MalformedCoverage(f"has {_found(value)} as {key} instead of a text")
    # It goes into tables, messages and baselines: one line, of a bearable length.
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    if not (empty or text):
        raise MalformedCoverage(f"has {_found(value)} as {key} instead of a text")
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _operation(entry: object) -> OperationElsewhere:
    if not isinstance(entry, Mapping):
        raise MalformedCoverage(f"has {_found(entry)} in elsewhere_by_operation instead of an object")
    return OperationElsewhere(_text(entry, "operation"), _count(entry, "count"), _text(entry, "reason", empty=True))
