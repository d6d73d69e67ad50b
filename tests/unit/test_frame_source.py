"""Where frames come from: real videos, folders and a network camera, and what each of them can do wrong."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from stream_sources import frame, network_camera, with_durations, write_video  # noqa: E402

from pytest_inference_gate.agent.failures import Unsupported  # noqa: E402
from pytest_inference_gate.agent.frame_source import Camera, PictureFolder, SourceError, VideoFile, import_opencv  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    return write_video(folder / "whole.mp4")


def opened(path: Path, maximum: int = 300, rate: float | None = None) -> VideoFile:
    return VideoFile(cv2, str(path), maximum, rate)


def problem(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert caught.value.kind == "fetch_error"
    return str(caught.value)


class TestAVideo:
    def test_has_the_times_that_it_says(self, video: Path) -> None:
        source = opened(video)
        assert source.times == pytest.approx([number / 30 for number in range(30)], abs=1e-4)
        assert (source.declared, source.remarks) == (30, [])

    def test_is_gone_through_again_and_gives_the_same_frames(self, video: Path) -> None:
        source = opened(video)
        source.seek(0)
        first = [np.array(source.read(number)) for number in range(30)]
        assert source.seek(0) is True
        again = [np.array(source.read(number)) for number in range(30)]
        assert all((one == other).all() for one, other in zip(first, again, strict=True))
        assert np.abs(first[7].astype(int) - frame(7)).mean() < 12  # what the codec loses

    def test_frames_in_between_are_passed_over(self, video: Path) -> None:
        one, other = opened(video), opened(video)
        one.seek(0)
        other.seek(0)
        frames = [np.array(one.read(number)) for number in range(10)]
        np.testing.assert_array_equal(other.read(9), frames[9])

    def test_only_its_beginning_is_looked_at(self, video: Path) -> None:
        source = opened(video, maximum=10)
        assert (len(source.times), source.remarks) == (10, [])

    def test_that_ends_in_the_middle_of_a_frame_is_used_as_far_as_it_goes(self, folder: Path) -> None:
        whole = write_video(folder / "whole.avi")
        cut = folder / "cut.avi"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
        source = opened(cut)
        assert 10 < len(source.times) < 30
        (remark,) = source.remarks
        assert (
            remark
            == f"cut.avi ends too early: {len(source.times)} of the 30 frames that it declares can be read, and these are used"
        )

    def test_that_lost_its_end_altogether_is_none(self, folder: Path, video: Path) -> None:
        cut = folder / "cut.mp4"
        cut.write_bytes(video.read_bytes()[:-200])  # where an .mp4 keeps what it holds
        assert problem(cut) == "cut.mp4 is not a video that OpenCV can read: give another file, or convert it"

    def test_without_frames(self, folder: Path) -> None:
        empty = write_video(folder / "empty.avi", frames=0)
        assert (
            problem(empty) == "empty.avi has no frame that can be decoded (0 are declared): give another video, or record it anew"
        )

    @pytest.mark.parametrize("content", [b"", b"hello" * 100])
    def test_that_is_something_else(self, folder: Path, content: bytes) -> None:
        other = folder / "other.mp4"
        other.write_bytes(content)
        assert "other.mp4 is not a video that OpenCV can read" in problem(other)

    def test_that_is_not_there(self, folder: Path) -> None:
        assert problem(folder / "none.mp4").startswith("there is no video at ")

    def test_of_a_variable_rate_keeps_its_times(self, folder: Path, video: Path) -> None:
        source = opened(with_durations(video, folder / "variable.mp4", [(20, 512), (10, 1024)]))
        intervals = np.diff(source.times)
        assert intervals[:19] == pytest.approx(1 / 30, abs=1e-4)
        assert intervals[-8:] == pytest.approx(2 / 30, abs=1e-4)
        (remark,) = source.remarks
        assert remark.startswith("variable.mp4 has a variable frame rate: 9 of 29 intervals are not 33.3 ms (33.3 to 66.7 ms)")

    def test_whose_clock_runs_too_fast(self, folder: Path, video: Path) -> None:
        fast = with_durations(video, folder / "fast.mp4", [(30, 1)])
        assert problem(fast).startswith(
            "the clock of fast.mp4 moves on by 0.0651 ms a frame, which is no camera's interval: set frame_rate"
        )

    def test_whose_clock_goes_back(self, folder: Path, video: Path) -> None:
        still = with_durations(video, folder / "still.mp4", [(30, 0)])
        assert "the clock of still.mp4 does not move on: frame 28 is at" in problem(still)

    def test_can_be_given_another_clock(self, folder: Path, video: Path) -> None:
        source = opened(with_durations(video, folder / "fast.mp4", [(30, 1)]), rate=15.0)
        assert source.times == pytest.approx([number / 15 for number in range(30)])


class TestAFolder:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        for number in range(5):
            cv2.imwrite(str(tmp_path / f"{number:04}.png"), frame(number))
        (tmp_path / "notes.txt").write_text("no picture")
        return tmp_path

    def test_is_read_in_the_order_of_its_names(self, pictures: Path) -> None:
        source = PictureFolder(cv2, str(pictures), 300, 10.0)
        assert source.times == [0.0, 0.1, 0.2, 0.3, 0.4]
        for number in (0, 3, 1):
            np.testing.assert_array_equal(source.read(number), frame(number))

    def test_needs_a_rate(self, pictures: Path) -> None:
        with pytest.raises(SourceError, match="has no clock of its own: set frame_rate"):
            PictureFolder(cv2, str(pictures), 300, None)

    def test_with_pictures_of_several_sizes(self, pictures: Path) -> None:
        cv2.imwrite(str(pictures / "0005.png"), frame(5, 32, 24))
        (remark,) = PictureFolder(cv2, str(pictures), 300, 10.0).remarks
        assert "are of 2 sizes: 5 of 6 are 64 x 48" in remark

    def test_with_a_file_that_is_no_picture(self, pictures: Path) -> None:
        (pictures / "0005.png").write_bytes(b"no picture")
        with pytest.raises(SourceError, match=r"0005\.png is no picture that OpenCV can read: remove it, or save it anew"):
            PictureFolder(cv2, str(pictures), 300, 10.0)

    def test_without_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="has no pictures: expected files such as"):
            PictureFolder(cv2, str(tmp_path), 300, 10.0)


class TestACamera:
    def test_that_is_not_there(self) -> None:
        with pytest.raises(SourceError, match="there is no camera 97 that OpenCV can open: ls /dev/video"):
            Camera(cv2, "97", 1.0)

    def test_gives_the_latest_frame(self) -> None:
        with network_camera(10_000, hangs=True) as url:
            camera = Camera(cv2, url, 60.0)
            try:
                taken = [camera.take() for _ in range(2)]
                numbers = [number for _, _, _, number in taken]
                arrivals = [arrival for _, arrival, _, _ in taken]
                assert taken[0][0].shape == (48, 64, 3)
                assert 1 <= numbers[0] < numbers[1] and arrivals[0] < arrivals[1]
            finally:
                camera.close()

    def test_leaves_a_frame_alone_that_was_taken(self) -> None:
        with network_camera(10_000, rate=100.0, hangs=True) as url:
            camera = Camera(cv2, url, 60.0)
            try:
                first = camera.take()
                kept = np.array(first[0])
                deadline = time.monotonic() + 60
                while camera._number < first[3] + 30 and time.monotonic() < deadline:
                    time.sleep(0.01)
                np.testing.assert_array_equal(first[0], kept)
                later = camera.take()
                assert later[3] > first[3] + 3 and (later[0] != kept).any()
            finally:
                camera.close()

    @pytest.mark.parametrize("hangs", [True, False])
    def test_that_stops_delivering_is_given_up(self, hangs: bool) -> None:
        with network_camera(5, hangs=hangs) as url:
            camera = Camera(cv2, url, 60.0)
            camera._timeout = 1.0  # once it is open

            def take_many() -> None:
                for _ in range(20):
                    camera.take()

            with pytest.raises(SourceError, match=r"has delivered no frame for 1 s|delivers no more frames"):
                take_many()
            camera.close()


def test_opencv_that_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(Unsupported, match=r'pip install "pytest-inference-gate\[stream\]"'):
        import_opencv()


def test_opencv_gets_as_many_threads_as_the_model() -> None:
    found: Any = import_opencv(1)
    assert found.getNumThreads() == 1
