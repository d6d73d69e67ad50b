"""How often the swap test of detections calls two equally good detectors different: the table of docs/explanation/detection-accuracy.md.

Run ``python benchmarks/detection_false_alarms.py`` (half a minute). Both detectors make faults of the same kind and the same
frequency, drawn from a seed, so that every small p-value is a false alarm, and none should be more frequent than its level.
"""

import sys
import tempfile
from pathlib import Path

import numpy

sys.path.append(str(Path(__file__).parent.parent / "tests" / "unit"))

from detection_scenes import annotated, detect, document, mixed

from pytest_inference_gate.detection.average_precision import swap_test
from pytest_inference_gate.detection.coco_evaluation import evaluate_coco

RUNS = 150
LEVELS = (0.01, 0.05, 0.1, 0.2)
SETTINGS = (
    ("20 pictures, independent errors", 20, None),
    ("60 pictures, independent errors", 60, None),
    ("60 pictures, of which 15 % are not detected alike", 60, 0.15),
)


def p_value(folder: Path, pictures: int, share: float | None, seed: int) -> float:
    """Of two detectors on one set: independent ones, or one and the same but for a share of the pictures."""
    annotations = annotated(folder, document(pictures, seed))
    first, second = detect(annotations, 10_000 + seed), detect(annotations, 20_000 + seed)
    if share is not None:
        second = mixed(first, second, seed, share)
    matches = [evaluate_coco(annotations, detections).matches for detections in (first, second)]
    return swap_test(*matches, alpha=0.01).p_value


def main() -> None:
    print("| | " + " | ".join(f"p < {level:g}" for level in LEVELS) + " |")
    print("| --- |" + " --- |" * len(LEVELS))
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures, share in SETTINGS:
            found = numpy.array([p_value(Path(folder), pictures, share, seed) for seed in range(RUNS)])
            print(f"| {name} | " + " | ".join(f"{(found < level).mean():.1%}" for level in LEVELS) + " |", flush=True)


if __name__ == "__main__":
    main()
