"""Annotated pictures and detections of them, made up from a seed: for tests of what is judged by detections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from pytest_inference_gate.detection.annotations import Annotations, read_annotations

CATEGORIES = {3: "three", 7: "seven", 20: "twenty"}  # with gaps, as COCO's own
WIDTH, HEIGHT = 200, 100


def document(pictures: int, seed: int = 0, *, objects: int = 4, crowds: bool = False) -> dict[str, Any]:
    """A COCO file of so many pictures. Ids of images neither begin with 1 nor are in order."""
    random = numpy.random.RandomState(seed)
    ids = (random.permutation(pictures) * 3 + 11).tolist()
    annotations = []
    for image in ids:
        for number in range(random.randint(0, objects + 1)):
            x, y, width, height = random.randint(0, 150), random.randint(0, 60), random.randint(8, 50), random.randint(8, 40)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(random.choice(list(CATEGORIES))),
                    "bbox": [int(x), int(y), int(width), int(height)],
                    "area": float(width * height),
                    "iscrowd": int(crowds and number == 3),
                }
            )
    return {
        "images": [{"id": one, "width": WIDTH, "height": HEIGHT, "file_name": f"{one}.png"} for one in ids],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in reversed(CATEGORIES.items())],
    }


def annotated(folder: Path, content: dict[str, Any]) -> Annotations:
    (folder / "instances.json").write_text(json.dumps(content))
    return read_annotations(folder / "instances.json", classes=len(CATEGORIES))


def detect(annotations: Annotations, seed: int, *, misses: float = 0.2, jitter: float = 3.0, noise: int = 3) -> list[Any]:
    """What a model with these faults detects: some objects missed, boxes off by some pixels, some made up, scores that tie."""
    random = numpy.random.RandomState(seed)
    found = []
    for picture in annotations.pictures:
        boxes, scores, classes = [], [], []
        for one in picture.objects:
            if random.uniform() >= misses:
                x, y, width, height = numpy.array(one.box) + random.normal(0, jitter, 4)
                boxes.append([y / HEIGHT, x / WIDTH, (y + abs(height)) / HEIGHT, (x + abs(width)) / WIDTH])
                scores.append(round(random.uniform(0.3, 1.0), 2))
                classes.append(annotations.classes[one.category])
        for _ in range(random.randint(0, noise + 1)):
            y, x = random.uniform(0, 0.6, 2)
            boxes.append([y, x, y + 0.3, x + 0.2])
            scores.append(round(random.uniform(0.0, 0.6), 2))
            classes.append(random.randint(0, len(annotations.classes)))
        order = numpy.argsort(-numpy.array(scores), kind="mergesort") if scores else numpy.zeros(0, int)
        found.append(
            (
                numpy.array(boxes, numpy.float32).reshape(-1, 4)[order],
                numpy.array(scores, numpy.float32)[order],
                numpy.array(classes, numpy.int64)[order],
            )
        )
    return found


def mixed(first: Sequence[Any], second: Sequence[Any], seed: int, share: float) -> list[Any]:
    """The first model's detections, but for a share of the pictures that has the second's."""
    random = numpy.random.RandomState(seed)
    return [two if random.uniform() < share else one for one, two in zip(first, second, strict=True)]
