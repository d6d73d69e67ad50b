from pathlib import Path

from pytest_inference_gate.hookspecs import BackendExtension


def pytest_inference_gate_backends(config):
    return [BackendExtension("rectangles", ("fp32", "int8"), Path(__file__).parent / "detector_backend.py")]


def pytest_inference_gate_detection_metrics(config):
    return {
        "detections": lambda detections, annotations: sum(len(scores) for _, scores, _ in detections),
        "annotated": lambda detections, annotations: -1 if annotations is None else annotations.objects,
    }
