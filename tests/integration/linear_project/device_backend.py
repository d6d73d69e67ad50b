"""The linear backend on a device that is not here: its agent reads what the machine is from a copy of such a device's files.

``LINEAR_DEVICE_TREE`` names that copy. What the converter and the runner were told of device and options goes, one line each, to the file
that ``LINEAR_DEVICE_LOG`` names.
"""

import functools
import hashlib
import importlib.util
import json
import os
import sys

SPECIFICATION = importlib.util.spec_from_file_location(
    "linear_backend", os.path.join(os.path.dirname(os.path.abspath(__file__)), "linear_backend.py")
)
linear = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(linear)

NAME = "linear_on_device"
RUNNER_TAKES = ("device", "options")
availability, runtime = linear.availability, linear.runtime

if os.environ.get("LINEAR_DEVICE_TREE"):
    facts = sys.modules["inference_gate_agent.device_facts"]
    facts.collect = functools.partial(getattr(facts.collect, "func", facts.collect), os.environ["LINEAR_DEVICE_TREE"])


def note(what, device, options):
    with open(os.environ["LINEAR_DEVICE_LOG"], "a") as stream:
        stream.write(json.dumps([what, device, options]) + "\n")


def convert(request, progress):
    note("convert", request["device"], request["options"])
    cache = os.path.join(request["output_directory"], "timing.cache")
    with open(cache, "wb") as stream:
        stream.write(b"what process %d found out" % os.getpid())
    with open(cache, "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    result = linear.convert(request, progress)
    return dict(result, details={"timing_cache": {"file": "timing.cache", "sha256": digest}})


class Runner(linear.Runner):
    def __init__(self, model, precision, threads, batch, input, device, options):
        note("load", device, options)
        super().__init__(model, precision, threads, batch, input)
