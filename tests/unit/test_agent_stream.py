"""The agent's stream on real videos, with a model whose inferences take as long as the test says."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")

from stream_sources import network_camera, write_video

from pytest_inference_gate.agent import stream as agent_stream
from pytest_inference_gate.agent.frame_source import SourceError
from pytest_inference_gate.agent.stream import Stream, block, measured
from pytest_inference_gate.streams import results


class Model:
    """A model whose answer is how bright the frame is; it sleeps instead of computing, so that the machine's other load has little say."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.inputs = [{"name": "x", "shape": [1, 12, 16, 3], "dtype": "float32", "scale": None, "zero_point": None}]
        self.seconds = seconds
        self.fed: list[float] = []

    def set_inputs(self, array: Any) -> None:
        self.fed.append(float(array.mean()))

    def infer(self) -> None:
        time.sleep(self.seconds)

    def get_output(self) -> Any:
        return np.array([[0.0, 0.1, 0.7, 0.2]], np.float32)


class DirectModel(Model):
    """One whose input is written where it lies, which must be let go of before an inference."""

    def __init__(self) -> None:
        super().__init__()
        self._array = np.zeros((1, 12, 16, 3), np.float32)
        self.seen: list[float] = []

    def input_array(self) -> Any:
        return self._array

    def set_inputs(self, array: Any) -> None:
        raise AssertionError("written directly")

    def infer(self) -> None:
        self.seen.append(float(self._array.mean()))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "scene.mp4", frames=20, rate=50.0)


def wish(video: Path | str, **extra: Any) -> dict[str, Any]:
    source = {"kind": "video", "path": str(video), "frame_rate": None, "maximum_frames": 300, "timeout": 60.0}
    if str(video).startswith("http"):
        source = {**source, "kind": "camera", "camera": str(video)}
    preprocessing = {
        "resize": "resize",
        "resize_shorter_side": None,
        "interpolation": "bilinear",
        "channel_order": "rgb",
        "scaling": "zero_to_one",
        "maximum": 255.0,
    }
    asked = {"shape": [12, 16, 3], "dtype": "float32", "layout": "nhwc"}
    settings = {"pace": "none", "overlap": False, "warmup": None, "frames": {"minimum": 1, "maximum": 300}}
    return {"source": source, "preprocessing": preprocessing, "input": asked, **settings, **extra}


def streamed(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    stream = Stream(model, asked, 1)
    try:
        return measured(stream, asked, False, lambda _: None)
    finally:
        stream.close()


def test_each_frame_is_timed_from_decoding_to_its_answer(video: Path) -> None:
    model = Model(0.004)
    found = streamed(model, wish(video))
    assert (found["processed"], found["offered"], len(found["rounds"])) == (20, 20, 20)
    assert found["answers"] == [2] * 20
    assert found["arrivals"] == pytest.approx([number / 50 for number in range(20)], abs=1e-4)
    assert found["ages"] is None
    assert found["source"] == {"name": "scene.mp4", "declared": 20, "frames": 20}
    for number, total in enumerate(found["rounds"]):
        parts = [found["stages"][stage][number] for stage in ("decode", "preprocess", "infer", "postprocess")]
        assert min(parts) > 0 and parts[2] >= 0.004
        assert sum(parts) == pytest.approx(total, rel=0.05)
    assert sum(found["rounds"]) <= found["wall_seconds"]


def test_the_warm_up_goes_before_the_first_frame(video: Path) -> None:
    rule = {"minimum_rounds": 7, "minimum_seconds": 0.0, "maximum_seconds": 5.0, "window": 3, "agreement": 9.0}
    model = Model()
    stream = Stream(model, wish(video), 1)
    found = measured(stream, wish(video, warmup=rule), True, lambda _: None)
    stream.close()
    assert found["first_inference"] is not None
    warm_up = found["warmup_rounds"] + 1
    assert len(model.fed) == warm_up + 20
    assert model.fed[warm_up] == model.fed[0]  # from the beginning again


def test_a_short_source_is_gone_through_again(video: Path) -> None:
    model = Model()
    found = streamed(model, wish(video, frames={"minimum": 50, "maximum": 300}))
    assert found["processed"] == 50
    assert model.fed[20:40] == model.fed[:20]
    assert found["arrivals"][20] == pytest.approx(20 / 50, abs=1e-4)
    assert found["arrivals"] == sorted(found["arrivals"])


def test_overlap_sees_the_same_frames_and_begins_one_while_another_is_with_the_model(video: Path) -> None:
    plain, beside = Model(0.01), Model(0.01)
    streamed(plain, wish(video))
    frames: list[Any] = []
    stream = Stream(beside, wish(video, overlap=True), 1)
    try:
        stream.run(lambda done: done < 20, frames.append)
    finally:
        stream.close()
    assert beside.fed == plain.fed
    assert len(frames) == 20
    # While one frame is with the model the next one is begun.
    assert any(after.begin < before.begin + before.total for before, after in pairwise(frames))


@pytest.mark.parametrize("overlap", [False, True])
def test_in_real_time_frames_that_come_too_late_are_dropped(video: Path, overlap: bool) -> None:
    found = streamed(Model(0.05), wish(video, pace="frames", overlap=overlap, frames={"minimum": 6, "maximum": 6}))
    assert found["processed"] == 6
    assert found["offered"] >= 9  # one comes each 20 ms, and one takes 50 ms; more where this machine is busy
    assert all(age >= 0.05 for age in found["ages"])
    steps = np.diff(found["arrivals"])
    assert steps.min() >= 0.0199 and median(steps) >= 0.039


def test_the_age_of_a_frame_stays_when_the_video_starts_over(video: Path) -> None:
    """While it is still with the model: beside it, the next frames are taken."""
    stream = Stream(Model(), wish(video, pace="frames"), 1)
    feed = stream.feed
    feed.begin()
    for _ in range(19):
        taken = feed.take(False)
    age = feed.age(taken, taken.decoded)
    for _ in range(3):
        feed.take(False)
    assert feed.skipped_seconds > 0
    assert feed.age(taken, taken.decoded) == age
    stream.close()


def test_in_real_time_a_fast_model_waits_for_each_frame(video: Path) -> None:
    found = streamed(Model(), wish(video, pace="frames", frames={"minimum": 10, "maximum": 10}))
    assert found["processed"] == 10
    assert found["wall_seconds"] >= 9 / 50
    assert min(found["rounds"]) < 1 / 50


def test_a_budget_sets_the_rate(video: Path) -> None:
    found = streamed(Model(), wish(video, budget_frames_per_second=10.0, frames={"minimum": 3, "maximum": 3}))
    assert found["arrivals"] == pytest.approx([0.0, 0.1, 0.2])


def test_both_ends_of_the_protocol_cut_a_long_run_alike() -> None:
    assert results._WINDOWS == agent_stream.WINDOWS


def test_a_long_run_is_kept_in_windows(video: Path) -> None:
    told: list[str] = []
    asked = wish(video, seconds=1.0)
    stream = Stream(Model(0.002), asked, 1)
    found = measured(stream, asked, False, told.append)
    stream.close()
    assert found["rounds"] == [] and found["processed"] >= 1
    assert found["windows"]["side"] == pytest.approx(0.2)
    assert sum(window["frames"] for window in found["windows"]["found"]) == found["processed"]
    assert all(window["median"] >= 0.002 for window in found["windows"]["found"])


def test_blocks_begin_with_the_first_frame(video: Path) -> None:
    model = Model()
    stream = Stream(model, wish(video), 1)
    measured(stream, wish(video, frames={"minimum": 3, "maximum": 3}), False, lambda _: None)
    stream.feed.begin()
    assert len(block(stream, 4)) == 4
    assert model.fed[3:6] == model.fed[:3]
    stream.close()


def test_a_model_s_own_input_is_written_directly(video: Path) -> None:
    direct, plain = DirectModel(), Model()
    streamed(direct, wish(video))
    streamed(plain, wish(video))
    assert direct.seen == plain.fed
    direct.seen.clear()
    streamed(direct, wish(video, overlap=True))
    assert direct.seen == plain.fed


class TestACamera:
    @pytest.mark.parametrize("overlap", [False, True])
    def test_gives_frames_as_they_come(self, overlap: bool) -> None:
        with network_camera(10_000, hangs=True) as url:
            found = streamed(Model(), wish(url, pace="frames", overlap=overlap, frames={"minimum": 5, "maximum": 5}))
        assert found["processed"] == 5 <= found["offered"]
        assert all(age > 0 for age in found["ages"])
        assert found["arrivals"][0] == 0.0 and found["arrivals"] == sorted(found["arrivals"])
        assert all(seconds > 0 for seconds in found["stages"]["decode"])

    @pytest.mark.parametrize("overlap", [False, True])
    def test_that_stops_ends_the_stream(self, overlap: bool) -> None:
        with network_camera(5, hangs=False) as url, pytest.raises(SourceError, match="camera http"):
            streamed(Model(), wish(url, pace="frames", overlap=overlap))


def test_a_detector_s_answer_is_how_many_it_shows(video: Path) -> None:
    class Detector(Model):
        def get_outputs(self) -> list[Any]:
            boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (1, 4, 1))
            scores = np.array([[0.9, 0.6, 0.2, 0.05]], np.float32)
            return [boxes, np.zeros((1, 4), np.float32), scores, np.array([4.0], np.float32)]

    settings = {
        "kind": "postprocessed",
        "outputs": {"boxes": 0, "classes": 1, "scores": 2, "count": 3},
        "classes": 3,
        "first_class": 0,
        "score_threshold": 0.1,
        "maximum_detections": 100,
        "shown_from": 0.3,
    }
    assert set(streamed(Detector(), wish(video, detection=settings))["answers"]) == {2}


def test_an_error_of_the_model_ends_an_overlapped_stream(video: Path) -> None:
    class Broken(Model):
        def infer(self) -> None:
            if len(self.fed) > 2:
                raise RuntimeError("no memory left on the device")

    with pytest.raises(RuntimeError, match="no memory left"):
        streamed(Broken(), wish(video, overlap=True))


@pytest.mark.parametrize(("rate", "budget", "second"), [(5.0, None, 0.2), (5.0, 2.0, 0.5)])
def test_a_single_picture_comes_as_often_as_the_card_says(
    tmp_path: Path, rate: float, budget: float | None, second: float
) -> None:
    import cv2

    from pytest_inference_gate.agent.frame_source import open_source
    from pytest_inference_gate.agent.stream import SteadyFeed

    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    source = open_source(cv2, {"kind": "folder", "path": str(tmp_path), "maximum_frames": 9, "frame_rate": rate})
    assert SteadyFeed(source, False, budget).arrival(1) == pytest.approx(second)
