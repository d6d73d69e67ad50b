from __future__ import annotations

import json
import math
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import (
    SESSIONS,
    accuracy,
    against,
    case_with,
    corrected,
    covered,
    detected,
    everything,
    figures,
    latency,
    measured,
    out_of_budget,
    paired,
    run_of,
    streamed,
)

from pytest_inference_gate.errors import GateError
from pytest_inference_gate.percentiles import percentile
from pytest_inference_gate.report.result_json import build_document, read_schema, write_document
from pytest_inference_gate.results import (
    ROUNDS_FOR_P99,
    AccuracyResult,
    CaseResult,
    DeviceResult,
    Replicate,
    RunResult,
    summarize_replicates,
)
from pytest_inference_gate.verdict import Verdict

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "result-json.md"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = read_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(validator: jsonschema.Draft202012Validator, document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def forbid(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def undeclared(document: Any, schema: dict[str, Any], definitions: dict[str, Any], where: str = "$") -> Iterator[str]:
    """Keys that the document has and its schema does not name."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema and document is not None:
        schema = definitions[schema["anyOf"][0]["$ref"].rpartition("/")[2]]
    if isinstance(document, list):
        for item in document:
            yield from undeclared(item, schema["items"], definitions, f"{where}[]")
    elif isinstance(document, dict) and "properties" in schema:
        for key, value in document.items():
            if key in schema["properties"]:
                yield from undeclared(value, schema["properties"][key], definitions, f"{where}.{key}")
            else:
                yield f"{where}.{key}"


class TestDocument:
    @pytest.mark.parametrize("verdict", list(Verdict))
    def test_every_verdict_fits_the_schema(self, validator: jsonschema.Draft202012Validator, verdict: Verdict) -> None:
        document = build_document(run_of(case_with(verdict)))
        assert errors(validator, document) == []
        assert document["cases"][0]["verdict"] == verdict.value
        assert document["summary"]["verdicts"] == {verdict.value: 1}

    @pytest.mark.parametrize(
        "run",
        [
            RunResult("measure", DeviceResult("unknown")),
            run_of(measured(compared=False), mode="measure", saved="jp6.0"),
            run_of(CaseResult("a-b-c", "a", "b", "c"), mode="against", software_changes=[]),
            against(paired(), paired("slow", factor=1.12), paired("hasty", factor=1.12, most=5)),
            run_of(out_of_budget(), compared_sessions=SESSIONS),
            run_of(covered(), covered(None), covered(before=None)),
            run_of(detected(), detected(annotated=False)),
            run_of(streamed(), streamed(overlapped=True, compared=False)),
            run_of(case_with(Verdict.INVALID), relaxed=frozenset({"invalid"}), exit_status=0),
        ],
    )
    def test_so_does_every_mode(self, validator: jsonschema.Draft202012Validator, run: RunResult) -> None:
        assert errors(validator, build_document(run)) == []

    def test_the_schema_would_notice(self, validator: jsonschema.Draft202012Validator) -> None:
        document = build_document(everything())
        del document["cases"][0]["latency"]["p90"]
        document["cases"][1]["verdict"] = "fine"
        document["cases"][2]["latency"]["median"] = None
        assert {error.partition(": ")[0] for error in errors(validator, document)} == {
            "$.cases[0].latency",
            "$.cases[1].verdict",
            "$.cases[2].latency",
        }

    def test_the_schema_names_every_key(self) -> None:
        schema = read_schema()
        for run in (
            everything(),
            run_of(measured(), detected(), streamed(), compared_sessions=SESSIONS),
            against(paired(factor=1.12)),
        ):
            assert list(undeclared(build_document(run), schema, schema["$defs"])) == []

    def test_the_reference_explains_every_key(self) -> None:
        text = REFERENCE.read_text(encoding="utf-8")

        def keys(schema: object) -> Iterator[str]:
            if isinstance(schema, dict):
                if isinstance(schema.get("properties"), dict):
                    yield from schema["properties"]
                for part in schema.values():
                    yield from keys(part)

        assert [key for key in keys(read_schema()) if f"| `{key}` |" not in text] == []

    def test_figures_of_a_slower_case(self) -> None:
        case = build_document(run_of(case_with(Verdict.SLOWER)))["cases"][0]
        assert case["latency"]["verdict"] == "slower"
        assert case["latency"]["unit"] == "s"
        assert case["latency"]["median"] == pytest.approx(1.083 * 0.01142)
        assert case["latency"]["baseline_median"] == pytest.approx(0.01142, rel=1e-3)
        assert case["latency"]["ratio"] == pytest.approx(case["latency"]["median"] / case["latency"]["baseline_median"])
        assert case["latency"]["throughput"] == pytest.approx(1 / case["latency"]["median"])
        assert len(case["latency"]["replicates"]) >= 10
        assert [len(session) for session in case["latency"]["baseline_sessions"]] == [5, 5]
        assert case["accuracy"]["top1"] == case["accuracy"]["reference_top1"] == 0.95
        assert case["artifact"] == {
            "digest": "slow_cnnint8",
            "size_bytes": 41234,
            "convert_seconds": 1.5,
            "cached": True,
            "nodes": {"before": 40, "after": 12, "converted": None},
            "engines": None,
        }
        assert case["memory"] == {"peak_rss_bytes": 123456789}

    def test_what_decided_and_what_it_cost(self) -> None:
        case = build_document(run_of(*corrected(case_with(Verdict.SLOWER), measured())))["cases"][0]["latency"]
        low, high = case["interval"]
        assert low < case["ratio"] < high
        assert (case["stage"], case["family"], case["pair_ratios"]) == ("confirmed", 2, [])
        assert case["cost_seconds"] == pytest.approx(0.8 * len(case["replicates"]))
        assert build_document(run_of(out_of_budget()))["cases"][0]["latency"]["stage"] == "budget"

    def test_a_fall_back(self) -> None:
        coverage = build_document(run_of(case_with(Verdict.FALLBACK)))["cases"][0]["coverage"]
        assert coverage["verdict"] == "fallback"
        assert coverage["found"]["share"] == pytest.approx(64 / 72)
        assert coverage["baseline"]["on_accelerator"] == 70
        assert coverage["found"]["elsewhere_by_operation"][0] == {
            "operation": "MEAN",
            "count": 6,
            "reason": "More than one subgraph is not supported",
        }
        alone = build_document(run_of(covered(before=None)))["cases"][0]["coverage"]
        assert (alone["verdict"], alone["baseline"], alone["reason"]) == (None, None, "")
        lost = build_document(run_of(covered(None)))["cases"][0]["coverage"]
        assert (lost["verdict"], lost["found"]) == ("fallback", None)

    def test_a_detector(self) -> None:
        case = build_document(run_of(detected()))["cases"][0]
        assert case["accuracy"] is None
        assert case["detection"]["verdict"] == "inaccurate"
        assert case["detection"]["map"] == pytest.approx(0.6124)
        assert (case["detection"]["drop"], case["detection"]["p_value"]) == (0.0977, 0.001)
        assert case["detection"]["classes"][0] == {"name": "digit 0", "objects": 60, "ap": 0.5, "reference_ap": 0.71}
        assert case["detection"]["metrics"] == {"precision at 0.5": 0.91}
        assert build_document(run_of(measured()))["cases"][0]["detection"] is None

    def test_a_run_of_two_stacks(self) -> None:
        document = build_document(against(paired("slow", factor=1.12)))
        latency = document["cases"][0]["latency"]
        assert document["mode"] == "against"
        assert document["against"]["python"] == "old-env/bin/python"
        assert document["against"]["software"]["ai-edge-litert"] == "2.1.0"
        assert document["compared_sessions"] == []
        assert len(latency["pair_ratios"]) == len(latency["replicates"]) == len(latency["baseline_sessions"][0]) >= 10
        assert latency["ratio"] == pytest.approx(1.121, abs=1e-3)
        assert latency["interval"] == pytest.approx([1.1155, 1.126], abs=1e-3)

    def test_the_sessions_that_were_compared_with(self) -> None:
        document = build_document(run_of(measured(), compared_sessions=SESSIONS))
        assert document["compared_sessions"][0] == {"name": "0001_jp6.0", "datetime": "2026-02-03T10:00:00+00:00"}
        assert document["against"] is None

    def test_null_where_nothing_was_measured_or_compared(self) -> None:
        case = build_document(run_of(case_with(Verdict.BROKEN)))["cases"][0]
        assert case["latency"] is case["accuracy"] is case["artifact"] is None
        assert case["memory"] == {"peak_rss_bytes": None}
        assert case["outcome"]["kind"] == "crash"
        assert case["outcome"]["signal"] == "SIGSEGV"
        assert case["outcome"]["log"] == "/tmp/agent.log"
        alone = build_document(run_of(measured(compared=False), mode="measure"))["cases"][0]["latency"]
        assert alone["verdict"] is alone["ratio"] is alone["p_value"] is alone["baseline_median"] is None
        assert alone["interval"] is alone["stage"] is alone["family"] is None

    def test_the_summary(self) -> None:
        document = build_document(everything())
        assert document["summary"]["verdicts"] == {verdict.value: 1 for verdict in Verdict}
        assert document["summary"]["exit_status"] == 1
        assert document["summary"]["red"] is True

    def test_numbers_that_are_none_become_null(self, validator: jsonschema.Draft202012Validator) -> None:
        case = measured()
        case.accuracy = AccuracyResult(
            figures(),
            accuracy().decision,
            {"f1": math.nan, "recall": math.inf, "map": numpy.float32(0.5)},
        )
        document = build_document(run_of(case))
        assert document["cases"][0]["accuracy"]["metrics"] == {"f1": None, "recall": None, "map": 0.5}
        assert errors(validator, document) == []

    @given(st.floats())
    def test_the_text_is_json_whatever_the_numbers(self, number: float) -> None:
        run = run_of(measured())
        run.phases["measure"] = number
        run.device.condition["before"]["temperature"] = [number, {"zone": number}]
        json.loads(json.dumps(build_document(run), allow_nan=False), parse_constant=forbid)


class TestWriting:
    def test_what_is_read_back_is_the_document(self, tmp_path: Path) -> None:
        run = everything()
        run.notices.append("a path with a bad byte: \udcff, and a good word: naïve")
        write_document(run, tmp_path / "new" / "folder" / "result.json")
        text = (tmp_path / "new" / "folder" / "result.json").read_text(encoding="utf-8")
        assert text.endswith("}\n")
        loaded = json.loads(text, parse_constant=forbid)
        assert loaded["cases"] == build_document(run)["cases"]
        assert "naïve" in loaded["notices"][0]

    def test_replaces_the_former_file_and_leaves_no_other(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        path.write_text("old")
        write_document(run_of(measured()), path)
        assert json.loads(path.read_text())["schema"] == "inference-gate/1"
        assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]

    def test_follows_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        link = tmp_path / "result.json"
        link.symlink_to(tmp_path / "there" / "real.json")
        (tmp_path / "there" / "real.json").write_text("old")
        write_document(run_of(measured()), link)
        assert link.is_symlink()
        assert json.loads((tmp_path / "there" / "real.json").read_text())["mode"] == "compare"

    def test_writes_into_a_named_pipe_and_does_not_replace_it(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")), daemon=True)
        reader.start()
        write_document(run_of(measured()), pipe)
        reader.join(timeout=60)
        assert json.loads(read[0])["schema"] == "inference-gate/1"
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_full_disk_is_one_sentence(self) -> None:
        with pytest.raises(GateError, match=r"Cannot write full: the disk of /dev is full .*--gate-json"):
            write_document(run_of(measured()), Path("/dev/full"))

    def test_a_directory_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(GateError, match=r"which is a directory: give another --gate-json=PATH"):
            write_document(run_of(measured()), tmp_path)

    def test_a_parent_that_is_a_file_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "result.json", tmp_path / "file" / "folder" / "result.json"):
            with pytest.raises(GateError, match="--gate-json=PATH"):
                write_document(run_of(measured()), path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_no_permission_is_one_sentence(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(GateError, match="no permission"):
            write_document(run_of(measured()), tmp_path / "result.json")


class TestSummarizing:
    @given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30), st.floats(0, 100))
    def test_percentile_equals_numpy(self, values: list[float], q: float) -> None:
        assert percentile(values, q) == pytest.approx(numpy.percentile(values, q), rel=1e-12, abs=1e-12 * max(values))

    def test_percentile_refuses(self) -> None:
        with pytest.raises(ValueError, match="no values"):
            percentile([], 50)
        with pytest.raises(ValueError, match="between 0 and 100, not at 101"):
            percentile([1.0], 101)

    def test_replicates_count_each_as_one(self) -> None:
        """The median of medians, not of all rounds: a process with many rounds has no more say."""
        replicates = [
            Replicate(1.0, 0.5, (1.0,) * 3),
            Replicate(2.0, None, (2.0,) * 3, steady=False),
            Replicate(9.0, 0.7, (9.0,) * 100),
        ]
        summary = summarize_replicates(replicates, batch=4)
        assert summary.replicates == (1.0, 2.0, 9.0)
        assert summary.median == 2.0
        assert summary.throughput == 2.0
        assert summary.p50 == 9.0
        assert summary.load == 2.0
        assert summary.first_inference == pytest.approx(0.6)
        assert summary.rounds == 106
        assert summary.unsteady == 1
        assert summary.verdict is None

    def test_p99_needs_rounds(self) -> None:
        assert latency(rounds=ROUNDS_FOR_P99 // 5 - 1).p99 is None
        assert latency(rounds=ROUNDS_FOR_P99 // 5).p99 is not None

    def test_refuses_nothing(self) -> None:
        with pytest.raises(ValueError, match="no replicate"):
            summarize_replicates([], batch=1)
        with pytest.raises(ValueError, match="without measured rounds"):
            summarize_replicates([Replicate(1.0, None, ())], batch=1)

    def test_conclude_keeps_the_worst_with_its_reason(self) -> None:
        case = CaseResult("a", "a", "b", "c")
        case.conclude(Verdict.PASS, "as fast")
        case.conclude(Verdict.SLOWER, "first")
        case.conclude(Verdict.SLOWER, "second")
        case.conclude(Verdict.PASS, "accurate")
        assert (case.verdict, case.reason) == (Verdict.SLOWER, "first")
        case.conclude(Verdict.BROKEN, "crashed")
        assert (case.verdict, case.reason) == (Verdict.BROKEN, "crashed")

    def test_invalid_outranks_the_decision(self) -> None:
        slower = latency(1.2)
        assert slower.verdict == "slower"
        invalid = slower.invalidated("throttled")
        assert (invalid.verdict, invalid.reason) == ("invalid", "throttled")
        assert invalid.decision == slower.decision
