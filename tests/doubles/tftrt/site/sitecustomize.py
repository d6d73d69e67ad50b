"""Run by Python at its start: as soon as TensorFlow has been imported, the double of TF-TRT takes its place in it.

An agent's facts of its device come from the tree ``DOUBLE_DEVICE_ROOT``, where that is set.
"""

import importlib.abc
import importlib.machinery
import os
import sys


def _tensorflow(module):
    import tftrt_double

    tftrt_double.install(module)


def _device_facts(module):
    root = os.environ.get("DOUBLE_DEVICE_ROOT")
    if root:
        module.collect.__defaults__ = (root,)


_CHANGED = {"tensorflow": _tensorflow, "inference_gate_agent.device_facts": _device_facts}


class _After(importlib.abc.Loader):
    def __init__(self, loader, change):
        self.loader, self.change = loader, change

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.change(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        change = _CHANGED.pop(name, None)
        if change is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _After(spec.loader, change)
        return spec


sys.meta_path.insert(0, _Finder())
