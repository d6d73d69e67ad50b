"""The edgetpu backend from a checkpoint to figures, over doubles of Google's compiler and library, through the real interpreter.

What is proved is the backend: what it asks of the compiler, what it makes of each of its answers, that the interpreter hands the compiled
parts to the delegate, and what is said of each failure. Nothing here ran on an Edge TPU.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from edgetpu_double import Installation, c_compiler
from test_real_stack import old_runtime  # noqa: F401

from pytest_inference_gate.agent_process import AgentProcess
from pytest_inference_gate.outcome import Outcome, StageFailed

MISSING = [name for name in ("tensorflow", "ai_edge_litert", "flatbuffers") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.double,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(c_compiler() is None, reason="no C compiler for the double of the Edge TPU's library"),
]

DIGITS = Path(__file__).resolve().parent.parent.parent / "models" / "digits"
INPUT = {"shape": [32, 32, 1], "dtype": "float32", "layout": "nhwc"}
BATCH = 1
by_precision = pytest.mark.parametrize("precision", ["int8", "full_int8"])


def digits(name: str, count: int) -> tuple[Any, Any]:
    """Pictures as the card's preprocessing makes them but for the interpolation (pixels repeated), and their labels."""
    with numpy.load(DIGITS / f"{name}.npz") as data:
        images, labels = data["images"][:count], data["labels"][:count]
    pictures = numpy.repeat(numpy.repeat(images.reshape(-1, 8, 8), 4, axis=1), 4, axis=2)
    return (pictures[..., None] / 16).astype(numpy.float32), labels


class Workshop:
    """The digits model, converted once to integers, and agents on machines with and without parts of an Edge TPU's software."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.installation = Installation(root / "machine")
        pictures, self.labels = digits("evaluation", 120)
        numpy.save(root / "pictures.npy", pictures)
        numpy.save(root / "calibration.npy", digits("calibration", 40)[0])
        self.integers: dict[str, Path] = {}
        with self.start() as agent:
            for precision in ("int8", "full_int8", "fp32"):
                path, _ = self.convert(agent, precision, "keras", DIGITS / "digits_cnn.keras", backend="tflite")
                self.integers[precision] = path

    def start(self, installation: Installation | None = None, **settings: str) -> AgentProcess:
        return (installation or self.installation).start(self.root / "agent.log", **settings)

    def convert(
        self, agent: AgentProcess, precision: str, format: str, path: Path, *, backend: str = "edgetpu", **more: Any
    ) -> tuple[Path, dict[str, Any]]:
        self.count += 1
        directory = self.root / f"out-{self.count}"
        directory.mkdir()
        self.progress: list[str] = []
        source = {"format": format, "path": str(path), "architecture": None, "seed": None, "inputs": [], "outputs": []}
        result = agent.convert(
            {
                "backend": backend,
                "precision": precision,
                "batch": BATCH,
                "source": source,
                "input": INPUT,
                "calibration": str(self.root / "calibration.npy"),
                "output_directory": str(directory),
                **more,
            },
            progress=self.progress.append,
        )
        return directory / result["model"], result

    def compile(
        self, precision: str = "int8", options: dict[str, Any] | None = None, **settings: str
    ) -> tuple[Path, dict[str, Any]]:
        """Of the integers that were converted already."""
        with self.start(**settings) as agent:
            return self.convert(agent, precision, "tflite", self.integers[precision], options=options or {})

    def load(self, agent: AgentProcess, model: Path, precision: str = "int8", **changes: Any) -> dict[str, Any]:
        backend, batch = changes.pop("backend", "edgetpu"), changes.pop("batch", BATCH)
        arguments = {
            "backend": backend,
            "precision": precision,
            "model": str(model),
            "threads": 1,
            "batch": batch,
            "input": INPUT,
        }
        return agent.load({**arguments, **changes})

    def predict(self, agent: AgentProcess) -> Any:
        agent.predict({"inputs": str(self.root / "pictures.npy"), "outputs": str(self.root / "outputs.npy")})
        return numpy.load(self.root / "outputs.npy")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("edgetpu"))


@pytest.fixture(scope="module")
def compiled(workshop: Workshop) -> dict[str, tuple[Path, dict[str, Any]]]:
    return {precision: workshop.compile(precision) for precision in ("int8", "full_int8")}


def refusal(ask: Callable[[], Any]) -> Outcome:
    with pytest.raises(StageFailed) as caught:
        ask()
    outcome = caught.value.outcome
    assert "\n" not in outcome.message
    return outcome


# From the checkpoint to figures


@by_precision
def test_from_a_checkpoint_to_predictions_and_times(workshop: Workshop, precision: str) -> None:
    with workshop.start() as agent:
        model, result = workshop.convert(agent, precision, "keras", DIGITS / "digits_cnn.keras")
    with workshop.start() as agent:  # as the plugin does: another process runs what one has compiled
        loaded = workshop.load(agent, model, precision)
        outputs = workshop.predict(agent)
        rule = {"minimum": 7, "minimum_seconds": 0.0, "maximum": 7}
        measured = agent.measure({"inputs": str(workshop.root / "pictures.npy"), "warmup": None, "rounds": rule})
    with workshop.start() as agent:
        workshop.load(agent, workshop.integers[precision], precision, backend="tflite")
        on_the_cpu = workshop.predict(agent)
    assert (outputs == on_the_cpu).all()  # the same integers, by the same kernels
    assert (outputs.argmax(1) == workshop.labels).mean() > 0.95
    assert loaded["inputs"][0]["dtype"] == ("float32" if precision == "int8" else "int8")
    assert len(measured["rounds"]) == 7
    assert result["converter"]["edgetpu_compiler"] == "16.0.384591198"
    assert result["converter"]["tensorflow"]
    left = {"QUANTIZE", "DEQUANTIZE"} if precision == "int8" else set()
    coverage = result["details"]["coverage"]
    assert {row["operation"] for row in coverage["elsewhere_by_operation"]} == left
    assert (coverage["elsewhere"], coverage["on_accelerator"]) == (len(left), 9)
    assert (coverage["accelerator"], coverage["parts"], coverage["off_chip_bytes"]) == ("edgetpu", 1, 0)
    assert coverage["source"] == "edgetpu_compiler 16.0.384591198"
    assert result["details"]["nodes"] == {"before": 9 + len(left), "after": 1 + len(left), "converted": None}


@pytest.mark.parametrize("release", ["2.0.267685300", "14.1.317412892", "15.0.340273435", "16.0.384591198"])
def test_each_release_of_the_compiler_is_understood(workshop: Workshop, release: str) -> None:
    _, result = workshop.compile(VERSION=release)
    assert result["details"]["coverage"]["on_accelerator"] == 9
    assert result["details"]["compilation"]["on_chip_left"] > 7 << 20
    assert result["converter"]["edgetpu_compiler"] == release


def test_what_does_not_fit_on_the_chip_is_told(workshop: Workshop) -> None:
    _, result = workshop.compile("full_int8", CAPACITY="20000")
    assert result["details"]["coverage"]["off_chip_bytes"] == result["details"]["compilation"]["off_chip_bytes"] > 0


def test_what_follows_an_operation_that_is_not_mapped_runs_on_the_cpu(workshop: Workshop) -> None:
    model, result = workshop.compile("full_int8", UNMAPPED="MEAN=Operation not supported")
    coverage = result["details"]["coverage"]
    assert (coverage["on_accelerator"], coverage["elsewhere"]) == (6, 3)
    reasons = {row["operation"]: row["reason"] for row in coverage["elsewhere_by_operation"]}
    assert reasons["MEAN"] == "Operation not supported"
    assert reasons["SOFTMAX"] == reasons["FULLY_CONNECTED"] == "More than one subgraph is not supported"
    with workshop.start() as agent:
        workshop.load(agent, model, "full_int8")
        assert (workshop.predict(agent).argmax(1) == workshop.labels).mean() > 0.95


def test_a_model_of_which_nothing_is_mapped_is_refused(workshop: Workshop) -> None:
    outcome = refusal(lambda: workshop.compile(options={"minimum_runtime_version": 10}))
    assert outcome.kind == "build_error"
    assert "mapped none of the model's 11 operations" in outcome.message
    assert "raise minimum_runtime_version, which is 10" in outcome.message


# What a runner tells of its operations


def coverage_of(workshop: Workshop, model: Path, precision: str = "int8", **settings: str) -> Any:
    """What ``Runner.coverage`` says in an agent's process; asked there, since not every agent passes it on."""
    script = workshop.root / "tell_coverage.py"
    script.write_text(
        "import json, sys, types\n"
        "package = types.ModuleType('agent')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['agent'] = package\n"
        "from agent.backends import Backends\n"
        "runner = Backends({}).get(sys.argv[2]).Runner(sys.argv[3], sys.argv[4], 1, 1, json.loads(sys.argv[5]))\n"
        "print(json.dumps(runner.coverage()))\n"
    )
    import os
    import subprocess
    import sys

    import pytest_inference_gate

    agent = Path(pytest_inference_gate.__path__[0]) / "agent"
    backend = settings.pop("backend", "edgetpu")
    command = [settings.pop("python", sys.executable), str(script), str(agent), backend, str(model), precision, json.dumps(INPUT)]
    environment = {**os.environ, **workshop.installation.settings(**settings)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@by_precision
def test_the_runtime_confirms_what_the_compiler_said(
    workshop: Workshop, compiled: dict[str, tuple[Path, dict[str, Any]]], precision: str
) -> None:
    model, result = compiled[precision]
    said = dict(result["details"]["coverage"])
    found = coverage_of(workshop, model, precision)
    source = found.pop("source")
    assert said.pop("source") + "; 1 of 1 parts in the delegate of ai_edge_litert " in source
    assert found == said


def test_without_the_compiler_s_record_each_part_counts_as_one_operation(
    workshop: Workshop, compiled: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    alone = tmp_path / "model_edgetpu.tflite"
    shutil.copy(compiled["int8"][0], alone)
    found = coverage_of(workshop, alone)
    assert (found["on_accelerator"], found["elsewhere"], found["parts"]) == (1, 2, 1)
    assert {row["operation"] for row in found["elsewhere_by_operation"]} == {"QUANTIZE", "DEQUANTIZE"}
    # A record that belongs to another model says nothing of this one.
    shutil.copy(compiled["full_int8"][0].parent / "compilation.json", tmp_path)
    assert coverage_of(workshop, alone) == found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_cpu_s_interpreter_tells_what_xnnpack_takes(workshop: Workshop, precision: str) -> None:
    found = coverage_of(workshop, workshop.integers[precision], precision, backend="tflite")
    assert found["accelerator"] == "xnnpack"
    assert found["on_accelerator"] + found["elsewhere"] == (9 if precision == "fp32" else 11)
    assert found["on_accelerator"] >= 8
    assert sum(row["count"] for row in found["elsewhere_by_operation"]) == found["elsewhere"]


# Models that were compiled elsewhere


@pytest.fixture
def elsewhere(compiled: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> Path:
    """A compiled model with its log, as the compiler leaves them."""
    model = compiled["int8"][0]
    shutil.copy(model, tmp_path / "digits_edgetpu.tflite")
    shutil.copy(model.parent / "operations.log", tmp_path / "digits_edgetpu.log")
    return tmp_path / "digits_edgetpu.tflite"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A board: the library and the device, and no compiler."""
    return Installation(tmp_path_factory.mktemp("bare"), compiler=False)


def test_a_compiled_model_needs_no_compiler(workshop: Workshop, bare: Installation, elsewhere: Path) -> None:
    with workshop.start(bare) as agent:
        model, result = workshop.convert(agent, "int8", "tflite", elsewhere)
        workshop.load(agent, model)
        assert (workshop.predict(agent).argmax(1) == workshop.labels).mean() > 0.95
    details = result["details"]
    assert details["passed_through"]
    assert not details["remarks"]
    assert (details["coverage"]["on_accelerator"], details["coverage"]["elsewhere"]) == (9, 2)
    assert details["coverage"]["source"] == "the operation log of edgetpu_compiler 16.0.384591198"
    assert model.read_bytes() == elsewhere.read_bytes()


def test_a_compiled_model_without_its_log(workshop: Workshop, bare: Installation, elsewhere: Path) -> None:
    elsewhere.with_suffix(".log").unlink()
    with workshop.start(bare) as agent:
        _, result = workshop.convert(agent, "int8", "tflite", elsewhere, options={"minimum_runtime_version": 13})
    assert (result["details"]["coverage"]["on_accelerator"], result["details"]["coverage"]["elsewhere"]) == (1, 2)
    asked, unlogged = result["details"]["remarks"]
    assert "minimum_runtime_version of the card was not used" in asked
    assert "there is no log of its compilation (digits_edgetpu.log)" in unlogged


def test_without_a_compiler_nothing_else_is_converted(workshop: Workshop, bare: Installation) -> None:
    with workshop.start(bare) as agent:
        probed = agent.probe()["backends"]["edgetpu"]
        outcome = refusal(lambda: workshop.convert(agent, "int8", "tflite", workshop.integers["int8"]))
    assert outcome.kind == "unsupported"
    assert "give the card a .tflite that is compiled already" in outcome.message
    assert probed["can_run"]
    assert probed["source_formats"] == ["tflite"]
    assert probed["conversion_reason"] == outcome.message
    assert probed["converter"] == {}


def test_the_probe_names_the_compiler(workshop: Workshop) -> None:
    with workshop.start() as agent:
        probed = agent.probe()["backends"]["edgetpu"]
    assert probed["available"]
    assert probed["converter"]["edgetpu_compiler"] == "16.0.384591198"
    assert "keras" in probed["source_formats"]


# What the compiler refuses, and how it dies


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("internal", "build_error", "failed twice with an internal error"),
        ("timeout", "timeout", "raise timeout_seconds in [options.edgetpu]"),
        ("SIGSEGV", "crash", "was killed by SIGSEGV"),
        ("SIGKILL", "crash", "memory runs out"),
        ("exception", "crash", "uncaught exception of type std::out_of_range: vector"),
        ("large-activations", "build_error", "activations"),
        ("too-new", "build_error", "QUANTIZE of version 3): convert with an older TensorFlow"),
        ("silent", "build_error", "exit status 1): it printed no reason"),
        ("no-output", "build_error", "wrote no model_edgetpu.tflite"),
    ],
)
def test_each_failure_of_the_compiler_has_its_kind_and_its_next_step(
    workshop: Workshop, fault: str, kind: str, words: str
) -> None:
    outcome = refusal(lambda: workshop.compile(COMPILER=fault))
    assert outcome.kind == kind
    assert words in outcome.message
    assert "Edge TPU Compiler version 16.0.384591198" in (workshop.root / "agent.log").read_text()


def test_an_internal_error_is_met_with_one_more_try_and_said(workshop: Workshop) -> None:
    (workshop.installation.directory / "compiler-was-started").unlink(missing_ok=True)
    _, result = workshop.compile(COMPILER="internal-once")
    assert "was tried once more" in result["details"]["retried"]
    assert workshop.progress == [
        "compiling for the Edge TPU with edgetpu_compiler 16.0.384591198, which may take up to 180 s",
        "compiling once more after an internal error of the compiler",
    ]
    assert result["details"]["remarks"] == [result["details"]["retried"]]
    assert result["details"]["coverage"]["on_accelerator"] == 9


def test_an_old_compiler_that_hangs_is_ended(workshop: Workshop) -> None:
    """It has no time limit of its own, so that one is set from outside."""
    outcome = refusal(lambda: workshop.compile(options={"timeout_seconds": 1}, COMPILER="hangs", VERSION="15.0.340273435"))
    assert outcome.kind == "timeout"
    assert "did not finish within 1 s" in outcome.message


def test_float_models_and_other_files_are_no_models_for_it(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "notes.tflite").write_text("this is no model")
    with workshop.start() as agent:
        plain = refusal(lambda: workshop.convert(agent, "int8", "tflite", workshop.integers["fp32"]))
        notes = refusal(lambda: workshop.convert(agent, "int8", "tflite", tmp_path / "notes.tflite"))
        half = refusal(lambda: workshop.convert(agent, "fp16", "tflite", workshop.integers["fp32"]))
    assert (plain.kind, notes.kind, half.kind) == ("build_error", "build_error", "unsupported")
    assert "not quantized in all its tensors" in plain.message
    assert "notes.tflite is no model" in notes.message


def test_a_compiler_that_is_older_than_the_runtime_asked_for(workshop: Workshop) -> None:
    outcome = refusal(lambda: workshop.compile(options={"minimum_runtime_version": 14}, VERSION="15.0.340273435"))
    assert outcome.kind == "unsupported"
    assert "knows no Edge TPU runtime newer than 13, and the card asks for 14" in outcome.message


# What the runtime refuses


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        ({"ATTACHED": ""}, {}, "libedgetpu.so.1 opened no Edge TPU"),
        ({}, {"device": "usb:1"}, "found no free Edge TPU that is usb:1"),
        ({"ATTACHED": "usb"}, {"device": "pci"}, "found no free Edge TPU that is pci"),
        ({}, {"device": "the left one"}, "write usb, pci, usb:0, pci:0 or :0"),
        ({"RUNTIME": "13"}, {}, "compiled for the Edge TPU runtime 14, and libedgetpu is runtime 13"),
        ({"MISMATCH": "1"}, {}, "do not fit each other"),
        ({"IDLE": "1"}, {}, "did not let libedgetpu (runtime 14) take the parts"),
    ],
)
def test_each_failure_to_load_has_its_next_step(
    workshop: Workshop,
    compiled: dict[str, tuple[Path, dict[str, Any]]],
    settings: dict[str, str],
    options: dict[str, str],
    words: str,
) -> None:
    with workshop.start(**settings) as agent:
        outcome = refusal(lambda: workshop.load(agent, compiled["int8"][0], options=options))
    assert outcome.kind == "load_error"
    assert words in outcome.message


@pytest.mark.parametrize("device", ["usb", "usb:0", ":0", ":1", "pci:0"])
def test_devices_that_are_attached_are_taken(
    workshop: Workshop, compiled: dict[str, tuple[Path, dict[str, Any]]], device: str
) -> None:
    with workshop.start(ATTACHED="usb,pci") as agent:
        assert workshop.load(agent, compiled["int8"][0], options={"device": device})["inputs"]


def test_a_model_for_an_older_runtime_runs_there(workshop: Workshop) -> None:
    model, _ = workshop.compile(options={"minimum_runtime_version": 13})
    with workshop.start(RUNTIME="13") as agent:
        assert workshop.load(agent, model)["inputs"]


def test_libraries_that_are_not_there_or_are_none(
    workshop: Workshop, compiled: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    machine = Installation(tmp_path / "machine", library=False)
    with workshop.start(machine) as agent:
        probed = agent.probe()["backends"]["edgetpu"]
        missing = refusal(lambda: workshop.load(agent, compiled["int8"][0]))
    (machine.directory / "lib" / "libedgetpu.so.1").write_text("no library")
    with workshop.start(machine) as agent:
        broken = refusal(lambda: workshop.load(agent, compiled["int8"][0]))
    assert "libedgetpu.so.1 is not installed" in missing.message
    assert missing.message.split(":")[0] in probed["reason"] + missing.message
    assert not probed["can_run"]
    assert "cannot be loaded here" in broken.message
    assert {missing.kind, broken.kind} == {"load_error"}


def test_models_that_would_run_on_the_cpu_are_refused(
    workshop: Workshop, compiled: dict[str, tuple[Path, dict[str, Any]]]
) -> None:
    with workshop.start() as agent:
        plain = refusal(lambda: workshop.load(agent, workshop.integers["int8"]))
        batch = refusal(lambda: workshop.load(agent, compiled["int8"][0], batch=2))
        floats = refusal(lambda: workshop.load(agent, compiled["int8"][0], "full_int8"))
    assert "all of it would run on the CPU" in plain.message
    assert "compile it for this batch" in batch.message
    assert "full_int8 means integers" in floats.message


def test_a_compiled_model_is_none_for_the_cpu(workshop: Workshop, compiled: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    with workshop.start() as agent:
        outcome = refusal(lambda: workshop.load(agent, compiled["int8"][0], backend="tflite"))
    assert outcome.kind == "load_error"
    assert "edgetpu-custom-op" in outcome.message


def test_the_old_runtime_takes_the_delegate_too(
    workshop: Workshop,
    compiled: dict[str, tuple[Path, dict[str, Any]]],
    old_runtime: Path,  # noqa: F811
) -> None:
    with workshop.start(python=str(old_runtime)) as agent:
        workshop.load(agent, compiled["full_int8"][0], "full_int8")
        assert (workshop.predict(agent).argmax(1) == workshop.labels).mean() > 0.95
    found = coverage_of(workshop, compiled["full_int8"][0], "full_int8", python=str(old_runtime))
    assert (found["on_accelerator"], found["elsewhere"]) == (9, 0)
    assert "1 of 1 parts in the delegate of tflite_runtime 2.14.0" in found["source"]
