"""Print what a module of TensorRT's bindings offers, as JSON: ``python describe_bindings.py FOLDER MODULE``.

Run in a process of its own, with stand-ins for the libraries below the bindings on ``LD_LIBRARY_PATH``: nothing is ever called. The same
description is made of the double, whose classes are Python's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path


def split(text):
    """The parts between commas that no bracket and no quotation mark encloses."""
    parts, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{<":
            depth += 1
        elif character in ")]}>":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
            continue
        current += character
    return [*parts, current.strip()] if current.strip() else parts


def from_documentation(text, name):
    """The signatures at the head of what pybind11 writes, ``self`` left out: ``[[name, required], ...]`` each."""
    found = []
    for match in re.finditer(rf"^(?:\d+\. )?{re.escape(name)}\(", text or "", re.MULTILINE):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        inside = text[match.end() : end - 1]
        if inside == "*args, **kwargs":  # the line above the overloads
            continue
        parameters = []
        for part in split(inside):
            head, _, default = part.partition("=")
            parameters.append([head.partition(":")[0].strip(), not default])
        found.append(parameters[1:] if parameters and parameters[0][0] == "self" else parameters)
    return found


def signatures(member, name):
    if inspect.isfunction(member):
        parameters = list(inspect.signature(member).parameters.values())[1:]
        return [[[one.name, one.default is inspect.Parameter.empty] for one in parameters]]
    return from_documentation(member.__doc__, name)


def describe_class(cls):
    members = {}
    for name in dir(cls):
        if name.startswith("_") and name != "__init__":
            continue
        member = inspect.getattr_static(cls, name)
        own = name in vars(cls)
        if isinstance(member, property):
            members[name] = {"kind": "property", "writable": member.fset is not None, "own": own}
        elif isinstance(member, type):
            members[name] = {"kind": "class", "own": own, "members": sorted(dir(member))}
        elif callable(member) or type(member).__name__ in ("instancemethod", "staticmethod"):
            member = getattr(cls, name)
            members[name] = {"kind": "method", "signatures": signatures(member, name), "own": own}
        else:
            members[name] = {"kind": "value", "own": own}
    return members


def load(folder, name):
    sys.path.insert(0, folder)
    package = Path(folder, name)
    extensions = sorted(package.glob("tensorrt*.so"))
    if not extensions:
        return importlib.import_module(name)
    # The package's own __init__ would look for the real libraries before this module is reached.
    specification = importlib.util.spec_from_file_location(f"{name}.tensorrt", extensions[0])
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def main(folder, name):
    module = load(folder, name)
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type) and not key.startswith("_")}
    print(json.dumps({key: describe_class(value) for key, value in classes.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
