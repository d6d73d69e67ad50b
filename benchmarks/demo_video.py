"""Write a small video for trying streams: a textured scene that moves, with noise as a camera's. Equal arguments give equal
frames.

    python benchmarks/demo_video.py scene.mp4 [--frames 150] [--width 640] [--height 480] [--rate 30]
                                    [--digits models/digits/evaluation.npz]

The codec follows the name: .avi is MJPG, .mp4 is mp4v. With --digits the frames show one handwritten digit each, which changes
every fifth frame. Needs OpenCV.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy

CODECS = {".avi": "MJPG", ".mp4": "mp4v"}


def scene(number: int, width: int, height: int) -> Any:
    """Frame ``number`` of the moving scene, (height, width, 3) of uint8, blue green red."""
    y, x = numpy.mgrid[0:height, 0:width].astype(numpy.float32)
    waves = (
        numpy.sin((x + 3 * number) / 37 + y / 91),
        numpy.cos((y - 2 * number) / 29),
        numpy.sin((x + y + 5 * number) / 51),
    )
    noise = numpy.random.default_rng(number).normal(0, 4, (height, width, 3))
    frame = numpy.clip(numpy.stack([128 + 90 * wave for wave in waves], axis=2) + noise, 0, 255).astype(numpy.uint8)
    centre = (int(width / 2 + width / 3 * numpy.sin(number / 10)), height // 2)
    cv2.circle(frame, centre, height // 8, (20, 200, 250), -1)
    return frame


def digit(pictures: Any, number: int, width: int, height: int) -> Any:
    """A picture of scikit-learn's digits (8 x 8, 0 to 16) as a frame; another one every fifth frame."""
    picture = pictures[(number // 5) % len(pictures)]
    grey = (picture.astype(numpy.float32) * (255 / 16)).clip(0, 255).astype(numpy.uint8)
    return cv2.cvtColor(cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2BGR)


def write_video(
    path: Path, frames: int, *, width: int = 640, height: int = 480, rate: float = 30.0, digits: Path | None = None
) -> None:
    """Write ``frames`` frames at ``rate`` a second to ``path``. Raises SystemExit where OpenCV cannot."""
    codec = CODECS.get(path.suffix)
    if codec is None:
        raise SystemExit(f"{path.name}: the name has to end in one of {', '.join(CODECS)}")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (width, height))
    if not writer.isOpened():
        raise SystemExit(f"OpenCV cannot write {path} with the codec {codec}")
    pictures = None if digits is None else numpy.load(digits)["images"]
    for number in range(frames):
        writer.write(scene(number, width, height) if pictures is None else digit(pictures, number, width, height))
    writer.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--digits", type=Path, help="an .npz with images, such as models/digits/evaluation.npz")
    arguments = parser.parse_args()
    write_video(
        arguments.video,
        arguments.frames,
        width=arguments.width,
        height=arguments.height,
        rate=arguments.rate,
        digits=arguments.digits,
    )
    print(
        f"wrote {arguments.video}: {arguments.frames} frames, {arguments.width} x {arguments.height}, {arguments.rate:g} a second"
    )


if __name__ == "__main__":
    main()
