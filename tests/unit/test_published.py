"""Figures from the literature: read strictly, shown beside a result on the same board, and never gating."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import pytest
from report_examples import case_with, everything, measured, run_of

from pytest_inference_gate.cards import load_card
from pytest_inference_gate.cases import Case
from pytest_inference_gate.cli import main
from pytest_inference_gate.devices import DeviceIdentity
from pytest_inference_gate.published import (
    BOARDS,
    CARDS,
    COLUMNS,
    UNITS,
    PublishedError,
    figures_file,
    figures_for,
    is_of_board,
    read_figures,
)
from pytest_inference_gate.report.result_json import build_document, read_schema
from pytest_inference_gate.report.terminal import summary_lines
from pytest_inference_gate.verdict import Verdict

ROOT = Path(__file__).parents[2]
FIGURES = read_figures(figures_file())
NANO = DeviceIdentity(kind="jetson", board="NVIDIA Jetson Nano Developer Kit", machine="aarch64", online_cores=4)
PI = DeviceIdentity(kind="raspberry-pi", board="Raspberry Pi 3 Model B Plus Rev 1.3", machine="armv7l", online_cores=4)
MOBILENET = load_card(ROOT / "models" / "zoo" / "mobilenet_v2_1.0_224.toml")
SEEDED = load_card(ROOT / "models" / "mobilenet_v2_224_seeded.toml")


def case(backend: str = "tflite", precision: str = "fp32", *, card=MOBILENET, **more) -> Case:
    return Case(card, backend, precision, **more)


def of(identity: DeviceIdentity, one: Case) -> list[str]:
    return [figure.as_published for figure in figures_for(FIGURES, identity, one)]


def row(**change: str) -> str:
    values = dict(
        zip(
            COLUMNS,
            ["here", "Jetson Nano", "JetPack", "ResNet50", "tftrt", "fp16", "", "", *["latency_mean", "54", "ms", ""]],
            strict=True,
        )
    )
    return ",".join({**values, **change}[name] for name in COLUMNS)


def file_of(folder: Path, *rows: str, header: str = ",".join(COLUMNS)) -> Path:
    path = folder / "figures.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


class TestFile:
    def test_every_row_of_the_real_one_is_read(self) -> None:
        assert len(FIGURES) == len(figures_file().read_text().splitlines()) - 1 == 322
        assert {figure.metric for figure in FIGURES} == set(UNITS)

    def test_the_readme_names_every_source_metric_board_and_card(self) -> None:
        text = (ROOT / "baselines" / "published" / "README.md").read_text()
        words = {*(figure.source for figure in FIGURES), *UNITS, *COLUMNS}
        assert [word for word in sorted(words) if f"`{word}`" not in text] == []
        assert [board for board in BOARDS if f"| {board} |" not in text] == []
        for model, cards in CARDS.items():
            for card in cards if model != cards[0] else ():
                assert re.search(rf"^\| {re.escape(model)} \| .*`{re.escape(card)}`", text, re.MULTILINE), model

    def test_every_model_is_either_of_a_card_or_known_to_be_of_none(self) -> None:
        assert {figure.model for figure in FIGURES} - set(CARDS) == {"Original CNN", "ResNet50 v1.5"}

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"unit": "s"}, "line 2: latency_mean has the unit 's', expected ms"),
            ({"unit": ""}, "latency_mean has the unit '', expected ms"),
            ({"metric": "outcome", "value": "oom"}, "outcome has the unit 'ms', expected none"),
            ({"metric": "latency_median"}, "'latency_median' is no known metric; expected one of latency_mean"),
            ({"value": "fast"}, "latency_mean is 'fast', expected a number"),
            ({"value": "nan"}, "latency_mean is 'nan', expected a number"),
            ({"value": "-1"}, "expected a number of at least 0"),
            ({"value": ""}, "the column value is empty"),
            ({"model": " "}, "the column model is empty"),
            ({"threads": "two"}, "'two' is no number of threads"),
            ({"note": "a, b"}, "expected; quote a text that holds a comma"),
        ],
    )
    def test_a_row_that_nobody_could_interpret_is_an_error(self, tmp_path: Path, change: dict[str, str], words: str) -> None:
        with pytest.raises(PublishedError) as error:
            read_figures(file_of(tmp_path, row(**change)))
        assert words in str(error.value)
        assert str(tmp_path / "figures.csv") in str(error.value)

    def test_so_is_a_row_that_was_cut_another_header_and_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(PublishedError, match="line 2: found"):
            read_figures(file_of(tmp_path, row().rpartition(",")[0]))
        for number, header in enumerate(("", "source,device", "\0")):
            (tmp_path / str(number)).mkdir()
            with pytest.raises(PublishedError, match="expected source, device|cannot be read"):
                read_figures(file_of(tmp_path / str(number), header=header))
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe")
        for name in ("missing.csv", "binary.csv"):
            with pytest.raises(PublishedError, match="cannot be read"):
                read_figures(tmp_path / name)


class TestBoard:
    @pytest.mark.parametrize(
        ("board", "device"),
        [
            ("NVIDIA Jetson Nano Developer Kit", "Jetson Nano"),
            ("jetson-nano", "Jetson Nano"),
            ("NVIDIA Jetson Nano 2GB Developer Kit", "Jetson Nano 2GB"),
            ("Raspberry Pi 3 Model B Plus Rev 1.3", "Raspberry Pi 3 B+"),
            ("NVIDIA Jetson Orin Nano Developer Kit", None),
            ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", None),
            ("NVIDIA Jetson Xavier NX Developer Kit", None),
            ("Raspberry Pi 3 Model B Rev 1.2", None),
            ("Raspberry Pi 4 Model B Rev 1.4", None),
            ("Google Colab CPU", None),
            (None, None),
        ],
    )
    def test_a_board_is_meant_by_its_whole_name(self, board: str | None, device: str | None) -> None:
        devices = {figure.device for figure in FIGURES}
        identity = DeviceIdentity(board=board)
        assert [name for name in sorted(devices) if is_of_board(name, identity)] == ([device] if device else [])

    def test_an_edge_tpu_counts_by_its_port(self) -> None:
        name = "Jetson Nano and Edge TPU over USB 3"
        assert is_of_board(name, dataclasses.replace(NANO, links={"edgetpu": "usb3"}))
        assert not is_of_board(name, dataclasses.replace(NANO, links={"edgetpu": "usb2"}))
        assert not is_of_board(name, dataclasses.replace(PI, links={"edgetpu": "usb3"}))
        assert not is_of_board(name, NANO)


class TestCase:
    def test_the_figures_of_the_case_are_found_and_no_others(self) -> None:
        found = figures_for(FIGURES, NANO, case(threads=2))
        assert [(figure.model, figure.device, figure.threads, figure.metric) for figure in found] == [
            ("MobileNet v2 1.0", "Jetson Nano", 2, "latency_mean")
        ]
        assert of(NANO, case(threads=2)) != of(PI, case(threads=2)) != of(PI, case(threads=3))
        assert of(NANO, case(threads=8)) == of(NANO, case(batch=2)) == of(NANO, case("onnxruntime")) == []

    def test_the_seeded_card_has_the_same_layers(self) -> None:
        assert of(PI, case("tflite", "int8", card=SEEDED)) == of(PI, case("tflite", "int8")) != []

    def test_a_device_that_nothing_was_published_for_has_none(self) -> None:
        assert of(DeviceIdentity(kind="computer", cpu_model="Intel Xeon"), case()) == []

    def test_the_edge_tpu_s_figures_are_of_its_own_cases(self) -> None:
        pi = dataclasses.replace(PI, links={"edgetpu": "usb2"})
        assert of(pi, case("edgetpu", "full_int8", device="edgetpu")) == ["13 ms"]
        assert of(PI, case("edgetpu", "full_int8", device="edgetpu")) == []
        assert len(of(pi, case("tflite", "full_int8"))) == 1

    def test_a_jetson_s_tensorflow_ran_on_its_gpu(self) -> None:
        card = MOBILENET.model_copy(update={"name": "ssd_mobilenet_v1_coco"})
        on_gpu = Case(card, "tensorflow", "fp32", variant="nms_cpu", device="jetson", device_in_id=True)
        assert of(NANO, on_gpu) == ["38528 ms", "72 ms", "28 MB"]
        assert of(NANO, dataclasses.replace(on_gpu, device="cpu")) == []
        assert of(NANO, dataclasses.replace(on_gpu, variant=None)) == ["28 MB"]

    def test_how_a_conversion_ended_is_a_figure_too(self) -> None:
        card = MOBILENET.model_copy(update={"name": "ssdlite_mobilenet_v2_coco"})
        assert of(NANO, Case(card, "tftrt", "fp16", variant="nms_cpu", device="jetson"))[-2:] == ["crash:SIGABRT"] * 2


def with_figures():
    result = measured("mobilenet_v2_1.0_224", "fp32")
    result.published = figures_for(FIGURES, NANO, case())
    assert result.published
    return result


class TestReport:
    def test_a_line_below_the_table_tells_the_figure_its_software_and_its_source(self) -> None:
        lines = summary_lines(run_of(with_figures()), width=500)
        (line,) = [line for line in lines if line.startswith("published")]
        assert re.fullmatch(
            r"published for this board: mobilenet_v2_1.0_224-tflite-fp32-b1-t1: \d+ ms mean, TensorFlow 2.0.0; .*JetPack 4.2.2, "
            r"ptq-2019 \(20 rounds\)",
            line,
        )

    def test_nothing_is_said_where_nothing_is_known(self) -> None:
        assert not [line for line in summary_lines(everything()) if "published" in line]

    def test_the_document_has_them_in_seconds(self) -> None:
        document = build_document(run_of(with_figures(), case_with(Verdict.SLOWER)))
        (figure,) = document["cases"][0]["published"]
        assert figure["value"] == pytest.approx(float(figure["as_published"].split()[0]) / 1000)
        assert (figure["unit"], figure["source"], figure["model"]) == ("s", "ptq-2019", "MobileNet v2 1.0")
        assert document["cases"][1]["published"] == []
        jsonschema.Draft202012Validator(read_schema()).validate(document)


class TestCommand:
    def test_it_lists_what_was_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["published", "--device=raspberry", "--model=inception"]) == 0
        lines = capsys.readouterr().out.splitlines()[2:]
        assert lines and all("Inception v3" in line and line.startswith("Raspberry Pi 3 B+") for line in lines)

    def test_a_model_may_be_named_by_its_card(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["published", "--model=densenet121", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "inference-gate-published/1"
        assert {figure["model"] for figure in document["figures"]} == {"DenseNet121"}

    def test_what_is_not_there_is_told_with_what_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["published", "--device=Jetson AGX"]) == 2
        assert "nothing is published for the device 'Jetson AGX'; there is" in capsys.readouterr().err
