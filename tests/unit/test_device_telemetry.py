"""From the summaries beside the replicates of a case to what the reports show of power, temperatures and clocks."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import measured, run_of

from pytest_inference_gate.device_telemetry import TelemetryResult, energy_by_rail, summarize_telemetry
from pytest_inference_gate.report.messages import latency_failure_message
from pytest_inference_gate.report.result_json import build_document, read_schema
from pytest_inference_gate.report.terminal import table_lines
from pytest_inference_gate.results import CaseResult

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def summary(*, total: str | None = None, **millijoules: float) -> dict[str, Any]:
    """As the agent gives it for one replicate."""
    rails = {
        name: {"joules_per_inference": value / 1000, "mean_milliwatts": 100 * value, "peak_milliwatts": 150 * value}
        for name, value in millijoules.items()
    }
    return {
        "source": "sysfs",
        "rails": rails,
        "total_rail": total,
        "celsius": {"tj": {"first": 50.0, "last": 60.0, "highest": 60.0 + len(rails)}},
        "mhz": {"gpu": {"lowest": 306, "highest": 624}},
        "problem": None,
    }


def nano(value: float) -> dict[str, Any]:
    return summary(total="VDD_IN", VDD_IN=value, VDD_SOC=value / 4)


def told(*taken: Any, before: Any = ()) -> TelemetryResult:
    result = summarize_telemetry(taken, before)
    assert result is not None
    return result


def case_that_showed(telemetry: TelemetryResult | None, name: str = "slow_cnn") -> CaseResult:
    case = measured(name, factor=1.083)
    case.telemetry = telemetry
    return case


def message_of(case: CaseResult) -> str:
    assert case.latency is not None
    return latency_failure_message(case, case.latency.decision)


class TestSummary:
    def test_medians_of_energy_and_extremes_of_the_rest(self) -> None:
        result = told(nano(12), nano(40), None, nano(13))
        assert (result.source, result.replicates, result.total_rail) == ("sysfs", 3, "VDD_IN")
        rail = result.rails["VDD_IN"]
        assert rail.joules_per_inference == pytest.approx(0.013)
        assert rail.mean_milliwatts == 1300
        assert rail.peak_milliwatts == 6000
        assert rail.baseline_joules_per_inference is None
        assert result.celsius == {"tj": 62.0}
        assert result.mhz == {"gpu": (306, 624)}

    def test_sessions_of_the_baseline_count_alike(self) -> None:
        """However many replicates each has."""
        result = told(nano(13), before=[[nano(10)] * 9, [nano(12)], [nano(14)], [None], []])
        assert result.rails["VDD_IN"].baseline_joules_per_inference == pytest.approx(0.012)

    def test_nothing_shown_is_no_result(self) -> None:
        assert summarize_telemetry([None, None]) is None
        assert summarize_telemetry([{**nano(1), "rails": {}, "celsius": {}, "mhz": {}, "problem": "it died"}]) is None

    def test_a_measurement_that_was_too_short_still_shows_temperatures(self) -> None:
        result = told({**nano(1), "rails": {}, "problem": "too short"})
        assert (result.rails, result.shown_rails, result.hottest) == ({}, (), ("tj", 62.0))

    def test_what_is_shown_of_rails(self) -> None:
        assert told(nano(12)).shown_rails == ("VDD_IN",)
        assert told(summary(VDD_GPU_SOC=5, VDD_CPU_CV=3)).shown_rails == ("VDD_CPU_CV", "VDD_GPU_SOC")

    def test_a_placeholder_is_not_the_hottest(self) -> None:
        sensors = {
            "PMIC-Die": {"first": 100.0, "last": 100.0, "highest": 100.0},
            "tj": {"first": 1.0, "last": 2.0, "highest": 55.5},
        }
        assert told({**nano(1), "celsius": sensors}).hottest == ("tj", 55.5)

    @given(anything)
    def test_what_somebody_edited_in_a_session_stops_nothing(self, anything: Any) -> None:
        edited = {"rails": {"VDD_IN": anything}, "total_rail": str(anything)}
        assert energy_by_rail([edited, {"rails": anything}]) == {}
        assert told(nano(13), before=[[edited, anything if isinstance(anything, dict) else None]]).total_rail == "VDD_IN"


class TestTable:
    def test_the_energy_of_the_whole_board_is_a_column(self) -> None:
        lines = table_lines(run_of(case_that_showed(told(nano(12.14))), case_that_showed(None, "other")), width=140)
        assert any(re.search(r"\benergy\b", line) for line in lines)
        assert any(line.startswith("slow_cnn ") and re.search(r" 12\.1 +slower$", line) for line in lines)
        assert any(line.startswith("other ") and re.search(r" - +slower$", line) for line in lines)
        assert "energy: of one inference, of the whole board (rail VDD_IN)" in " ".join(lines)

    def test_parts_are_columns_by_name(self) -> None:
        lines = table_lines(run_of(case_that_showed(told(summary(VDD_GPU_SOC=5, VDD_CPU_CV=3)))), width=160)
        text = " ".join(" ".join(lines).split())
        assert (
            "VDD_CPU_CV, VDD_GPU_SOC: energy of one inference on each rail; they may overlap, and none is the whole board" in text
        )
        assert re.search(r" 3\.00 +5\.00 +slower$", "\n".join(lines), re.MULTILINE)

    def test_one_part_alone_says_so(self) -> None:
        lines = table_lines(run_of(case_that_showed(told(summary(gpu0=1500)))), width=140)
        assert "energy: of one inference, on rail gpu0 alone, which is not the whole machine" in " ".join(" ".join(lines).split())
        assert any(re.search(r" 1500 +slower$", line) for line in lines)

    def test_without_power_there_is_no_column(self) -> None:
        cases = case_that_showed(None), case_that_showed(told({**nano(1), "rails": {}}), "other")
        assert "energy" not in " ".join(table_lines(run_of(*cases), width=140))


class TestFailingTest:
    def test_energy_before_and_after_is_told(self) -> None:
        text = message_of(case_that_showed(told(nano(13), before=[[nano(12.1)]])))
        assert "  energy      12.1 -> 13.0 mJ an inference (VDD_IN, the whole board)\n" in text
        assert "  hottest     62.0 degrees C (tj)\n" in text
        assert "  clocks      gpu 306 to 624 MHz\n" in text

    def test_of_what_the_baseline_did_not_record_there_is_one_figure(self) -> None:
        text = message_of(case_that_showed(told(summary(gpu0=13))))
        assert "  energy      13.0 mJ an inference (gpu0, its only rail)\n" in text

    def test_each_part_has_a_row(self) -> None:
        text = message_of(case_that_showed(told(summary(A=1, B=2))))
        assert [line for line in text.splitlines() if "energy" in line] == [
            "  energy      1.00 mJ an inference (A, one rail of several)",
            "  energy      2.00 mJ an inference (B, one rail of several)",
        ]

    def test_where_nothing_was_shown_nothing_is_said(self) -> None:
        assert "energy" not in message_of(case_that_showed(None))

    def test_it_has_no_say_in_the_verdict(self) -> None:
        """However much more it takes."""
        assert "verdict" not in vars(told(nano(1000), before=[[nano(1)]]))


class TestDocument:
    @pytest.mark.parametrize(
        "telemetry",
        [None, told(nano(13), before=[[nano(12)]]), told(summary(A=1, B=2)), told({**nano(1), "rails": {}, "source": None})],
    )
    def test_it_fits_the_schema(self, telemetry: TelemetryResult | None) -> None:
        document = build_document(run_of(case_that_showed(telemetry)))
        assert list(jsonschema.Draft202012Validator(read_schema()).iter_errors(document)) == []

    def test_it_says_all_of_it(self) -> None:
        (case,) = build_document(run_of(case_that_showed(told(nano(13), before=[[nano(12)]]))))["cases"]
        assert case["telemetry"]["rails"]["VDD_IN"] == {
            "joules_per_inference": pytest.approx(0.013),
            "baseline_joules_per_inference": pytest.approx(0.012),
            "mean_milliwatts": 1300,
            "peak_milliwatts": 1950,
        }
        assert case["telemetry"]["total_rail"] == "VDD_IN"
        assert case["telemetry"]["mhz"] == {"gpu": {"lowest": 306, "highest": 624}}
