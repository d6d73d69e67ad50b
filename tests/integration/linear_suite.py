"""A project of a user's own, with a backend of its own: sessions of the gate that take a second instead of minutes."""

import json
import shutil
import sys
from pathlib import Path

import numpy

HERE = Path(__file__).parent
SUITE = HERE.parent / "gate"
QUICK = ("--gate-rounds=20", "--gate-warm-up=0.005", "--gate-budget=3600")


class LinearProject:
    """``run(*args)`` is a whole pytest session, in a process of its own where ``subprocess`` is asked for."""

    def __init__(self, pytester):
        self.begin(pytester)
        self.store = self.path / "store"
        self.baselines = self.path / "baselines"
        (self.path / "models").mkdir()
        shutil.copy(HERE / "linear_project" / "conftest.py", self.path)
        shutil.copy(HERE / "linear_project" / "linear_backend.py", self.path)
        for test in SUITE.glob("test_*.py"):
            shutil.copy(test, self.path)
        self.ini()
        generator = numpy.random.default_rng(0)
        images = generator.integers(0, 256, (200, 4, 4), dtype=numpy.uint8)
        self.weights = generator.normal(size=(16, 5))
        labels = (images.reshape(200, 16).astype(numpy.float32) @ self.weights.astype(numpy.float32)).argmax(1)
        numpy.savez(self.path / "models" / "evaluation.npz", images=images[:150], labels=labels[:150])
        numpy.savez(self.path / "models" / "calibration.npz", images=images[150:], labels=labels[150:])
        self.write_model()
        self.write_card()

    def begin(self, pytester):
        self.pytester = pytester
        self.path = pytester.path
        self.settings = {"gate_models": "models", "gate_store": "store", "addopts": " ".join(["-p no:cacheprovider", *QUICK])}

    def overlook_other_load(self):
        """For sessions in processes of their own, what the fixture does for those inside this one."""
        with (self.path / "conftest.py").open("a") as conftest:
            conftest.write(
                "\n\nfrom pytest_inference_gate import device_gate\nfrom pytest_inference_gate.devices import Condition\n"
                "from pytest_inference_gate.machine import condition\n\nCondition.problems = lambda *_: []\n"
                "condition.load_by_others = condition.stolen_share = lambda *_: None\n"
                "device_gate.canary_shifts = lambda *_: ()\n"
            )

    def ini(self, **settings):
        """Set what is given, beside what was set before."""
        self.settings.update(settings)
        lines = "\n".join(f"{name} = {value}" for name, value in self.settings.items())
        (self.path / "pytest.ini").write_text(f"[pytest]\n{lines}\n")

    def write_model(self, name="linear", weights=None, **extra):
        weights = self.weights if weights is None else weights
        (self.path / "models" / f"{name}.json").write_text(json.dumps({"weights": weights.tolist(), **extra}))

    def write_card(
        self, name="linear", precisions=("fp32",), top1=1.0, extra="", tolerance="latency = 5.0\ntop1_drop = 0.02", more=""
    ):
        (self.path / "models" / f"{name}.toml").write_text(
            f"""
name = "{name}"
{more}
checkpoint = {{ format = "other", file = "{name}.json" }}
input = {{ shape = [4, 4, 1] }}
preprocessing = {{ channel_order = "grayscale" }}
labels = {{ count = 5 }}
evaluation = {{ file = "evaluation.npz", top1 = {top1} }}
calibration = {{ file = "calibration.npz" }}
backends = {{ linear = {json.dumps(list(precisions))} }}
{extra}
[tolerance]
{tolerance}
"""
        )

    def run(self, *arguments, subprocess=False):
        run = self.pytester.runpytest_subprocess if subprocess else self.pytester.runpytest_inprocess
        return run(*arguments)

    def save(self, name="before", *arguments):
        result = self.run(f"--benchmark-save={name}", *arguments)
        assert result.ret == 0, result.stdout.str()
        return result

    def record(self, this, other_stack=None, model="linear", **extra):
        """Let the model take, process by process, the seconds given: of this stack, and of the other one."""
        folder = self.path / f"recorded-{model}"
        folder.mkdir(exist_ok=True)
        for stack, medians in (("this", this), ("other", other_stack or this)):
            (folder / f"{stack}.json").write_text(json.dumps(list(medians)))
            (folder / f"{stack}.taken").write_text("")
        self.write_model(model, recorded=str(folder), **extra)

    def other_stack(self):
        """An interpreter that stands for another environment: the backend knows it by a variable."""
        python = self.path / "other-stack"
        python.write_text(f'#!/bin/sh\nLINEAR_STACK=other exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        return python

    def sessions(self):
        """The saved sessions, oldest first."""
        return sorted(self.baselines.glob("*/[0-9]*.json"))

    def candidates(self):
        return sorted(self.baselines.glob("*/candidates/*.json"))

    def scale_baseline(self, factor):
        """Rewrite what was recorded as if everything had taken ``factor`` times as long: no test depends on this machine's timing."""
        for path in self.sessions():
            document = json.loads(path.read_text())
            for benchmark in document["benchmarks"]:
                block = benchmark["extra_info"].get("inference_gate")
                if block:
                    block["replicates"] = [value * factor for value in block["replicates"]]
                    block["rounds"] = [[value * factor for value in rounds] for rounds in block["rounds"]]
            path.write_text(json.dumps(document))

    def gate_json(self, *arguments):
        result = self.run(f"--gate-json={self.path / 'result.json'}", *arguments)
        return result, json.loads((self.path / "result.json").read_text())
