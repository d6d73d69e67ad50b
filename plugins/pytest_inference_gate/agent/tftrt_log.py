"""What TF-TRT prints, in the words of the releases from TensorFlow 1.7 to 2.17. Pure: text in, facts out. Python 3.6.

It says what matters nowhere else: that an engine could not be built or run, and that TensorFlow computes the segment itself.
"""

import re
from collections import namedtuple
from typing import Any, Dict, List, Optional, Tuple  # noqa: F401

# Each with the engine's name in the group "name". The first one lacks a blank in some releases.
_RAN_NATIVE = (
    (r"Running native segment for ?(?P<name>\S+) due to failure in verifying input shapes: (?P<why>.*)", None),
    (r"Engine creation for (?P<name>\S+) failed\. The native segment will be used instead\. Reason: (?P<why>.*)", None),
    (r"Failed to execute engine: (?P<why>.*) Retrying with native segment for (?P<name>\S+)", None),
    (
        r"Engine retrieval for (?:input shapes|batch size).{0,2000}? failed\. ?Running native segment for (?P<name>\S+)",
        "no engine for the shapes of the input",
    ),
    (r"Failed to execute engine, retrying with native segment for (?P<name>\S+)", "the engine could not be executed"),
    (r"Failed to enqueue batch for TRT engine: (?P<name>\S+)", "the engine could not be executed"),
)
# These come without a name, before a line that has one.
_CAUSES = (
    (
        r"Not building a new engine because allow_build_at_runtime=False",
        "no engine was built for these shapes, and none may be at run time",
    ),
    (r"engine cache is full|cache is full|maximum_cached_engines", "the engine cache is full (maximum_cached_engines)"),
)
_EXECUTED = re.compile(r"Executing (TRT engine|native (?:segment|engine)): (\S+)")

_LOADED_AND_LINKED = (
    re.compile(r"Loaded TensorRT (?P<loaded>[\d.]+) but linked TensorFlow against TensorRT (?P<linked>[\d.]+)"),
    re.compile(
        r"compiled against TensorRT (?P<linked>[\d.]+) but library loaded from environment is TensorRT (?P<loaded>[\d.]+)"
    ),
)
_TOO_OLD = re.compile(r"The (?P<which>linked|loaded) version of TensorRT: `(?P<version>[\d.]+)` has now been removed")

_ENGINES = re.compile(r"\[\*\] Total number of TensorRT engines: (\d+)")
_CONVERTED = re.compile(r"\[\*\] % of OPs Converted: ([\d.]+)% \[(\d+)/(\d+)\]")
_NOT_CONVERTED = re.compile(r"^\s+- (\w+) -> (\d+)x\s*$")
_WHY_NOT = re.compile(r"^\s+- \[Count: (\d+)x\] (.*)$")

Versions = namedtuple("Versions", ["loaded", "linked"])


def engine_name(name):
    # type: (str) -> str
    """Without the scopes before it, which differ from call to call, and without what follows in the sentence."""
    return name.rstrip(".,:;'\"").split("/")[-1]


def native_segments(text):
    # type: (str) -> Dict[str, str]
    """The engines that TensorFlow computed itself, and why, by their names."""
    found = {}  # type: Dict[str, str]
    cause = ""
    for line in text.splitlines():
        for pattern, words in _CAUSES:
            if re.search(pattern, line):
                cause = words
        for pattern, default in _RAN_NATIVE:
            match = re.search(pattern, line)
            if match:
                reason = " ".join(match.group("why").split()) if default is None else cause or default
                found.setdefault(engine_name(match.group("name")), reason)
                cause = ""
                break
    return found


def executions(text):
    # type: (str) -> Dict[str, bool]
    """By an engine's name whether its last execution was that of the engine. Printed only where VLOG is on for ``trt_engine_op``."""
    return {engine_name(name): what == "TRT engine" for what, name in _EXECUTED.findall(text)}


def versions(text):
    # type: (str) -> Optional[Versions]
    """TensorRT's release that was loaded and the one that TensorFlow was built with, where they are said to contradict each other."""
    for pattern in _LOADED_AND_LINKED:
        match = pattern.search(text)
        if match:
            return Versions(match.group("loaded").rstrip("."), match.group("linked").rstrip("."))
    return None


def too_old(text):
    # type: (str) -> Optional[Tuple[str, str]]
    """``("loaded", "6.0.1")`` where a release of TensorRT is said to be no longer supported; 0.0.0 means that none could be loaded."""
    match = _TOO_OLD.search(text)
    return (match.group("which"), match.group("version")) if match else None


def summary(text):
    # type: (str) -> Optional[Dict[str, int]]
    """``engines``, ``converted`` and ``nodes`` of what ``TrtGraphConverterV2.summary`` prints; None if that is not in it."""
    engines, converted = _ENGINES.search(text), _CONVERTED.search(text)
    if engines is None or converted is None:
        return None
    return {"engines": int(engines.group(1)), "converted": int(converted.group(2)), "nodes": int(converted.group(3))}


def reasons(text):
    # type: (str) -> Dict[str, str]
    """Why operations were not converted, by operation, the most frequent reason of each: of the report that TF-TRT prints since 2.5."""
    found, operation = {}, ""  # type: Dict[str, str], str
    for line in text.splitlines():
        match = _NOT_CONVERTED.match(line)
        if match:
            operation = match.group(1)
            continue
        match = _WHY_NOT.match(line)
        if match and operation:
            found.setdefault(operation, " ".join(match.group(2).split()))
        elif not line.strip():
            continue
        elif not line.startswith(("\t", " ")):
            operation = ""
    return found
