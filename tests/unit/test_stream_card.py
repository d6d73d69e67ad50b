"""The card's ``[stream]``, what ``--gate-stream`` makes of it, and the cases that come of both."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cards import load, message

from pytest_inference_gate.card_tables.stream import StreamSection, stream_problems
from pytest_inference_gate.matrix import build_cases
from pytest_inference_gate.streams.option import StreamOption
from pytest_inference_gate.streams.source import StreamSource as Source
from pytest_inference_gate.streams.source import stream_arguments, stream_settings


def parsed(text: str, folder: Path) -> StreamOption:
    return StreamOption.parse(text, lambda name: folder / name)


def test_a_card_without_the_table_has_no_streams(tmp_path: Path) -> None:
    card = load(tmp_path)
    assert card.stream is None
    assert all(case.stream is None for case in build_cases([card]))


def test_a_stream_is_a_case_beside_the_others(tmp_path: Path) -> None:
    card = load(tmp_path, stream='{ source = "scene.mp4", overlap = [false, true] }', batches="[1, 4]", threads="[1, 2]")
    cases = build_cases([card], select=["*-tflite-fp32-*"])
    assert [case.id.partition("-")[2] for case in cases] == [
        "tflite-fp32-b1-t1",
        "tflite-fp32-b1-t2",
        "tflite-fp32-b4-t1",
        "tflite-fp32-b4-t2",
        "tflite-fp32-b1-t1-stream",
        "tflite-fp32-b1-t2-stream",
        "tflite-fp32-b1-t1-stream_overlapped",
        "tflite-fp32-b1-t2-stream_overlapped",
    ]


def test_a_stream_goes_frame_by_frame_whatever_batches_say(tmp_path: Path) -> None:
    cases = build_cases([load(tmp_path, stream='{ source = "scene.mp4" }')], batches=[8])
    assert {case.batch for case in cases if case.stream is not None} == {1}
    assert {case.batch for case in cases if case.stream is None} == {8}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("{}", "stream: found neither source nor url, expected one of them"),
        ('{ source = "a.mp4", url = "https://example.org/a.mp4" }', "stream: found source and url, expected only one of them"),
        ('{ source = "camera:0" }', "stream.pace: found 'none' with a camera, which sets the pace itself"),
        ('{ source = "camera:", pace = "frames" }', "stream.source: found a camera without a name"),
        (
            '{ source = "camera:0", pace = "frames", frame_rate = 30.0 }',
            "stream.frame_rate: found a value, expected none with a camera",
        ),
        ('{ source = "." }', "stream.frame_rate: found nothing; a folder of pictures has no clock of its own"),
        ('{ source = "a.zip", member = "a.mp4" }', "stream.member: found a value, expected none without url"),
        ('{ source = "a.mp4", overlap = [true, true] }', "stream.overlap: found a value twice"),
        ('{ source = "a.mp4", overlap = [] }', "stream.overlap: found nothing in it, expected at least one value"),
        ('{ source = "a.mp4", pace = "fast" }', "stream.pace: found 'fast' (a string), expected one of none, frames"),
        ('{ source = "a.mp4", frame_rate = 0.0 }', "stream.frame_rate: found 0.0 (a float), expected more than 0"),
        ('{ source = "a.mp4", framerate = 30.0 }', "did you mean 'frame_rate'?"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(tmp_path: Path, table: str, sentence: str) -> None:
    text = message(tmp_path, stream=table)
    assert sentence in text and "\n" not in text


def test_the_option_takes_the_place_of_the_card_s_source_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "other.mp4").touch()
    card = load(
        tmp_path, stream='{ url = "https://example.org/a.mp4", sha256 = "%s", overlap = [true], pace = "frames" }' % ("a" * 64)
    )
    (setting,) = stream_settings(card, parsed("other.mp4", tmp_path))
    assert (setting.section.source, setting.section.url) == (str(tmp_path / "other.mp4"), None)
    assert setting.section.sha256 is None and setting.overlap and setting.in_real_time


def test_the_option_makes_streams_of_cards_without_the_table(tmp_path: Path) -> None:
    card = load(tmp_path)
    (camera,) = stream_settings(card, parsed("camera:1", tmp_path))
    assert (camera.section.camera, camera.section.pace, camera.suffix) == ("1", "frames", "stream")
    plain, beside = stream_settings(card, parsed("?frame_rate=15&overlap=both&pace=frames&budget_frames_per_second=10", tmp_path))
    assert (plain.overlap, beside.overlap) == (False, True)
    assert (plain.section.frame_rate, plain.section.pace, plain.section.budget_frames_per_second) == (15.0, "frames", 10.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("none.mp4", "is neither a video, a folder of pictures nor a camera such as camera:0"),
        ("a\0b", "is neither a video"),
        ("camera:", "names no camera; expected one such as camera:0"),
        (".", "is a folder, which has no clock of its own: give its frame rate, as in .?frame_rate=30"),
        (".?frame_rate=much", "has a frame_rate that is no number of more than 0 and at most 1000"),
        (".?frame_rate=nan", "has a frame_rate that is no number"),
        (".?frame_rate=15&pace=fast", "has 'pace=fast' behind the source; expected frame_rate=30, pace=none or frames"),
    ],
)
def test_what_is_wrong_with_the_option_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        parsed(text, tmp_path)


def test_an_agent_is_asked_for_paths_that_it_has(tmp_path: Path) -> None:
    case = build_cases(
        [load(tmp_path, stream='{ source = "scene.mp4", budget_frames_per_second = 15.0, resize = "resize_and_crop" }')]
    )[-1]
    assert case.stream is not None
    source = Source("video", tmp_path / "scene.mp4", digest="d")
    arguments = stream_arguments(case, case.stream, source, lambda path: f"/board/{path.name}")
    assert arguments["source"]["path"] == "/board/scene.mp4"
    assert (arguments["pace"], arguments["budget_frames_per_second"], arguments["overlap"]) == ("none", 15.0, False)
    assert arguments["detection"] is None
    assert arguments["preprocessing"]["resize"] == "resize_and_crop"


def test_a_source_that_nobody_can_look_at_is_no_folder() -> None:
    """Such as one in a folder without permission, or with too long a name: said where it is fetched."""
    assert not list(stream_problems(StreamSection(source="a" * 300), Path("/")))
