"""Whole sessions of ``pytest -m jetson`` with TF-TRT: a board from a file tree, the double of TF-TRT, everything else as it is."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tftrt_double import Installation, compiler

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "tests" / "unit"))

from device_trees import TREES, build  # noqa: E402

MODELS = ROOT / "models"
TIMEOUT = 600
CASE = "digits_cnn-tftrt-fp16-b1-t1"

pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="not installed: tensorflow"),
    pytest.mark.skipif(compiler() is None, reason="no C compiler for the doubles of the driver's libraries"),
]


class JetsonProject:
    """The plain digits model in TF-TRT on an Orin Nano, as a project of its own; tolerance wide enough for any machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.installation = Installation(path / "site", "direct")
        self.root = path / "board"
        self.root.mkdir()
        build(self.root, TREES["orin-nano-jetpack-6"])
        (path / "models" / "digits").mkdir(parents=True)
        for name in ("digits_cnn.keras", "evaluation.npz", "calibration.npz"):
            shutil.copy(MODELS / "digits" / name, path / "models" / "digits")
        card = (MODELS / "digits_cnn.toml").read_text().partition("[backends]")[0]
        card = card.replace("[tolerance]\n", "[tolerance]\nlatency = 9.0\n")
        options = "[options.tftrt]\nworkspace_bytes = 67108864\nmemory_limit_bytes = 536870912\n"
        (path / "models" / "digits_cnn.toml").write_text(f'{card}[backends]\ntftrt = ["fp16"]\n\n{options}')
        for test in (ROOT / "tests" / "gate").glob("test_*.py"):
            shutil.copy(test, path)
        (path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")

    def run(self, *arguments: str, marker: str = "jetson", **settings: str) -> tuple[int, str, dict[str, Any]]:
        python = self.installation.interpreter(self.path / "python", DEVICE_ROOT=str(self.root), **settings)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", marker, "--gate-json=result.json"]
        command += [f"--gate-convert-with={python}", f"--gate-run-with={python}", "--gate-rounds=20", "--gate-warm-up=0.005"]
        done = subprocess.run([*command, *arguments], cwd=self.path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        path = self.path / "result.json"
        document = json.loads(path.read_text()) if path.exists() else {}
        path.unlink(missing_ok=True)
        return done.returncode, done.stdout + done.stderr, document

    @staticmethod
    def case(document: dict[str, Any]) -> dict[str, Any]:
        (case,) = document["cases"]
        assert case["id"] == CASE
        found: dict[str, Any] = case
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> JetsonProject:
    project = JetsonProject(tmp_path_factory.mktemp("jetson"))
    status, output, document = project.run("--benchmark-save=jp6")
    assert status == 0, output
    case = project.case(document)
    assert case["verdict"] == "pass", output
    assert "Jetson" in json.dumps(document["device"])
    return project


def test_a_session_is_compared_with_the_one_before(project: JetsonProject) -> None:
    status, output, document = project.run("--benchmark-compare")
    assert project.case(document)["verdict"] in ("pass", "faster"), output
    assert status == 0, output


def test_an_engine_that_tensorflow_computes_itself_is_a_fall_back(project: JetsonProject) -> None:
    """The same artifact, the right answers, and a latency within tolerance: only the coverage tells."""
    status, output, document = project.run("--benchmark-compare", RUN="no_build")
    case = project.case(document)
    assert (status, case["verdict"]) == (1, "fallback"), output
    assert case["coverage"]["found"]["native_segments"] == 1
    assert "no engine was built for these shapes" in json.dumps(case["coverage"])


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"FAULT": "versions"}, "load_error", "is loaded here: install NVIDIA's TensorFlow for this JetPack"),
        ({"FAULT": "abort"}, "crash", "Check failed: IsJobName(job)"),
        ({"FREE_BYTES": "419430400"}, "oom", "lower memory_limit_bytes"),
    ],
)
def test_what_breaks_after_an_upgrade_is_told_with_its_next_step(
    project: JetsonProject, settings: dict[str, str], kind: str, words: str
) -> None:
    # Another store, as after an upgrade that gives the artifact another key: it has to be built again.
    status, output, document = project.run("--benchmark-compare", f"--gate-store=store-{kind}", **settings)
    case = project.case(document)
    assert status == 1, output
    assert case["verdict"] == "broken", output
    assert case["outcome"]["kind"] == kind
    assert words in " ".join(case["outcome"]["message"].split())


def test_a_machine_that_is_no_jetson_has_no_such_case(project: JetsonProject, tmp_path: Path) -> None:
    here = project.root
    project.root = tmp_path / "computer"
    try:
        project.root.mkdir()
        status, output, _ = project.run()
    finally:
        project.root = here
    assert status != 0
    assert "Jetson" in output


DETECTOR = """
name = "detector"
task = "detection"
checkpoint = { format = "frozen_graph", file = "zoo", inputs = ["image_tensor"], outputs = [
    "detection_boxes", "detection_classes", "detection_scores", "num_detections"
] }
input = { shape = [20, 20, 3], dtype = "uint8" }
labels = { count = 2 }
detection = { kind = "postprocessed", outputs = { boxes = 0, classes = 1, scores = 2, count = 3 }, first_class = 1 }
evaluation = { seed = 7, count = 4 }
backends = { tftrt = ["fp16"] }
variants = { tftrt = ["as_is", "nms_cpu"] }
devices = { tftrt = ["jetson"] }
"""


def test_a_converter_that_aborts_on_one_variant_takes_nothing_else_with_it(tmp_path: Path) -> None:
    """What happened with TensorFlow 1.15: the graph as it is converts, and with the suppression on the processor the process dies."""
    project = object.__new__(JetsonProject)
    project.path, project.root = tmp_path, tmp_path / "board"
    project.installation = Installation(tmp_path / "site", "graph")
    (tmp_path / "board").mkdir()
    build(tmp_path / "board", TREES["orin-nano-jetpack-6"])
    (tmp_path / "models" / "zoo").mkdir(parents=True)
    command = [sys.executable, ROOT / "tests" / "integration" / "make_detectors.py", tmp_path / "models" / "zoo", "graph"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (tmp_path / "models" / "detector.toml").write_text(DETECTOR)
    shutil.copy(ROOT / "tests" / "gate" / "test_accuracy.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ngate_models = models\ngate_store = store\n")
    # The float reference is made by the TensorFlow that is here.
    status, output, document = project.run(f"--gate-convert-with={sys.executable}", FAULT="abort_on_processor")
    as_it_is, moved = sorted(document["cases"], key=lambda case: str(case["id"]))
    assert (as_it_is["id"], as_it_is["variant"], as_it_is["verdict"]) == ("detector-tftrt-fp16-b1-t1", None, "pass"), output
    assert (moved["id"], moved["variant"], moved["verdict"]) == ("detector-tftrt-fp16-b1-t1-nms_cpu", "nms_cpu", "broken")
    assert (moved["outcome"]["kind"], moved["outcome"]["signal"]) == ("crash", "SIGABRT")
    assert "Check failed: IsJobName(job)" in moved["outcome"]["message"]
    assert status == 1
    assert as_it_is["detection"]["matched"] == 1.0  # with the float graph's detections
    assert "nms_cpu" in output
