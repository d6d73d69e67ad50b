"""Run by Python at its start: as soon as TensorFlow has been imported, the double of TF-TRT takes its place in it."""

import importlib.abc
import importlib.machinery
import sys


class _After(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        import tftrt_double

        tftrt_double.install(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _After(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
