"""A backend that runs another one and adds work that is really executed, so that a slow-down of a known size can be measured.

Which backend it runs stands in the environment variable ``GATE_POWER_BACKEND``; what it adds, in the file named by ``GATE_POWER_CONTROL``:
one line of JSON, read anew before each block of rounds.

* ``{"kind": "none"}``: the backend's own call, with nothing around it;
* ``{"kind": "proportional", "share": 0.05}``: every round computes on for 5 % of the time that its inference took;
* ``{"kind": "tail", "every": 20, "share": 1.0}``: every 20th round takes twice as long, the others are left alone;
* ``{"kind": "start", "calls": 30, "share": 1.0}``: the first 30 inferences of the process take twice as long.

Loaded by the agent, so it is written for Python 3.6.
"""

import importlib
import json
import os
import time
from typing import Any, Callable  # noqa: F401

NAME = "slowed"
_read = getattr(time, "perf_counter_ns", time.perf_counter)


def _inner():
    # type: () -> Any
    return importlib.import_module("inference_gate_agent.backends." + os.environ["GATE_POWER_BACKEND"])


def availability(packages):
    # type: (Any) -> Any
    return _inner().availability(packages)


def runtime():
    # type: () -> Any
    return _inner().runtime()


def compute_on(start, share):
    # type: (float, float) -> None
    """Keep this core busy until the time since ``start`` has grown by ``share`` of what it was."""
    end = start + (_read() - start) * (1.0 + share)
    value = 1.0
    while _read() < end:
        value = value * 1.0000001


class Runner:
    def __init__(self, model, precision, threads, batch, input):
        # type: (str, str, int, int, Any) -> None
        self._runner = _inner().Runner(model, precision, threads, batch, input)
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        self.set_inputs, self.infer, self.get_output = self._runner.set_inputs, self._runner.infer, self._runner.get_output
        self._calls = 0  # of this process

    def prepared(self):
        # type: () -> Callable[[], Any]
        with open(os.environ["GATE_POWER_CONTROL"]) as stream:
            control = json.load(stream)
        call = self._runner.prepared()
        kind = control["kind"]
        if kind == "none":
            return call  # type: ignore[no-any-return]
        share = float(control["share"])

        def proportional():
            # type: () -> None
            start = _read()
            call()
            compute_on(start, share)

        def tail():
            # type: () -> None
            self._calls += 1
            if self._calls % int(control["every"]):
                call()
            else:
                proportional()

        def at_the_start():
            # type: () -> None
            self._calls += 1
            if self._calls > int(control["calls"]):
                call()
            else:
                proportional()

        return {"proportional": proportional, "tail": tail, "start": at_the_start}[kind]
