"""What the agent uses of TensorRT, held against the real bindings of each release; and the double, which may promise no more than they.

The bindings are the real modules from their wheels, imported over shared libraries that hold nothing but the symbols that the loader
asks for. No GPU is needed, and nothing is called.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from uses_of_tensorrt import GROUPS, Use, uses

HERE = Path(__file__).resolve().parent
DOUBLE = HERE.parent / "doubles" / "tensorrt" / "site"

RELEASES = {
    "8.6.1": ("tensorrt-bindings==8.6.1",),
    "10.0.1": ("tensorrt-cu12-bindings==10.0.1",),
    "10.3.0": ("tensorrt-cu12-bindings==10.3.0",),
    "10.13.3": ("tensorrt-cu12-bindings==10.13.3.9", "tensorrt-cu13-bindings==10.13.3.9"),
    "11.4": ("tensorrt-cu13-bindings==11.4.*", "tensorrt-cu12-bindings==11.4.*"),
}
# What the agent will find in each of them.
HAS = {
    "8": {
        "tensors by name",
        "tensors by number",
        "precision by flags",
        "calibrator",
        "explicit batch",
        "memory pools",
        "workspace size",
    },
    "10": {
        "tensors by name",
        "precision by flags",
        "calibrator",
        "explicit batch",
        "strongly typed",
        "memory pools",
        "node of an error",
    },
    "11": {"tensors by name", "strongly typed", "memory pools", "node of an error"},
}
STYLES = {"8.2": ["8.6.1"], "8.6": ["8.6.1"], "10": ["10.0.1", "10.3.0", "10.13.3"], "11": ["11.4"]}
WHEEL_SECONDS = 120

Description = dict[str, dict[str, Any]]
by_release = pytest.mark.parametrize("release", RELEASES)
by_style = pytest.mark.parametrize("style", STYLES)


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


class Bindings:
    """The real bindings of each release, fetched once and described once."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._problems: dict[str, str] = {}
        self._described: dict[str, Description] = {}

    def describe(self, release: str) -> Description:
        """Skips the test where this release's wheel cannot be had, or its libraries cannot be stood in for."""
        if release in self._problems:
            pytest.skip(self._problems[release])
        if release not in self._described:
            try:
                self._described[release] = self._describe(release)
            except LookupError as error:
                self._problems[release] = f"TensorRT {release} was not checked: {error.args[0]}"
                pytest.skip(self._problems[release])
        return self._described[release]

    def _describe(self, release: str) -> Description:
        for program in ("cc", "nm", "readelf"):
            if shutil.which(program) is None:
                raise LookupError(f"the program {program} is not installed here")
        package = self._unpacked(release)
        (extension,) = package.glob("tensorrt*.so")
        libraries = self._stand_ins(extension, self.cache / release / "lib")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
        script = HERE / "describe_bindings.py"
        result = run([sys.executable, "-I", script, package.parent, package.name], env=environment)
        assert result.returncode == 0, f"the bindings of TensorRT {release} cannot be imported: {result.stderr[-2000:]}"
        described: Description = json.loads(result.stdout)
        return described

    def _unpacked(self, release: str) -> Path:
        folder = self.cache / release / "site"
        found = sorted(folder.glob("*/tensorrt*.so"))
        if not found:
            with zipfile.ZipFile(self._wheel(release)) as archive:
                archive.extractall(folder)
            found = sorted(folder.glob("*/tensorrt*.so"))
        if not found:
            raise LookupError("its wheel holds no bindings for this Python")
        return found[0].parent

    def _wheel(self, release: str) -> Path:
        folder = self.cache / release / "wheel"
        reasons = []
        for requirement in RELEASES[release]:
            if found := sorted(folder.glob("*.whl")):
                return found[-1]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            try:
                result = run([*command, "--dest", folder, requirement], timeout=WHEEL_SECONDS)
                reasons.append(
                    result.stderr.strip().splitlines()[-1] if result.returncode and result.stderr.strip() else "no wheel"
                )
            except subprocess.TimeoutExpired:
                reasons.append(f"fetching took longer than {WHEEL_SECONDS} s")
        if found := sorted(folder.glob("*.whl")):
            return found[-1]
        raise LookupError(f"its wheel cannot be had ({'; '.join(reasons)})")

    def _stand_ins(self, extension: Path, folder: Path) -> Path:
        """Empty libraries by the names that the bindings ask for, with the symbols that are undefined in them."""
        folder.mkdir(parents=True, exist_ok=True)
        dynamic = run(["readelf", "--dynamic", "--wide", extension]).stdout
        needed = [name for name in re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic) if name.startswith("libnv")]
        assert needed, f"{extension.name} asks for no library of TensorRT"
        symbols = []
        for line in run(["nm", "--dynamic", "--undefined-only", extension]).stdout.splitlines():
            kind, name = line.split()[-2:]
            # Those of the C and C++ libraries have versions, those of Python have its prefix.
            ours = not name.startswith(("Py", "_Py", "_")) or re.match(r"_Z\w*(nvinfer|nvcaffe|nvuff|nvonnx)", name)
            if kind == "U" and "@" not in name and ours:
                symbols.append(name)
        assert symbols
        source = folder / "stand_in.c"
        for index, library in enumerate(needed):
            lines = [f"void *{name}(void) {{ return 0; }}" for name in symbols] if index == 0 else ["void stand_in(void) {}"]
            source.write_text("\n".join(lines) + "\n")
            made = run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", folder / library, source])
            assert made.returncode == 0, made.stderr
        return folder


@pytest.fixture(scope="session")
def bindings(request: pytest.FixtureRequest) -> Bindings:
    cache = request.config.cache
    assert cache is not None
    return Bindings(Path(cache.mkdir("tensorrt-bindings")))


@functools.cache
def described_double(style: str) -> Description:
    environment = {**os.environ, "DOUBLE_STYLE": style}
    result = run([sys.executable, HERE / "describe_bindings.py", DOUBLE, "tensorrt"], env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    described: Description = json.loads(result.stdout)
    return described


def has(described: Description, name: str) -> bool:
    cls, _, member = name.partition(".")
    if cls not in described:
        return False
    nested, _, last = member.partition(".")
    if last:
        return nested in described[cls] and last in described[cls][nested].get("members", ())
    return not member or member in described[cls]


def accepts(signatures: list[list[list[Any]]], count: int) -> bool:
    return any(sum(required for _, required in one) <= count <= len(one) for one in signatures)


def problem(described: Description, use: Use) -> str | None:
    """What is wrong with this use, None if nothing is."""
    if not has(described, use.name):
        return f"{use.name} is not there"
    if not use.member or "." in use.cls:
        return None
    member = described[use.cls][use.member]
    if use.kind == "write" and not (member["kind"] == "property" and member["writable"]):
        return f"{use.name} cannot be set"
    if use.kind in ("call", "override"):
        if member["kind"] != "method":
            return f"{use.name} is a {member['kind']}, not a method"
        if not member["signatures"]:
            return f"{use.name} says nothing of its signature"
        if not accepts(member["signatures"], use.arguments):
            return f"{use.name} does not take {use.arguments} arguments: {member['signatures']}"
    if use.kind == "read" and member["kind"] == "method":
        return f"{use.name} is a method and is never called"
    return None


def groups_of(described: Description) -> set[str]:
    return {group for group, (feature, _) in GROUPS.items() if has(described, feature)}


def of_groups(groups: set[str]) -> set[str]:
    return {name for group in groups for name in (GROUPS[group][0], *GROUPS[group][1])}


def problems(described: Description) -> list[str]:
    """All that the agent would use of a release that offers this, and would not find."""
    elsewhere = of_groups(set(GROUPS)) - of_groups(groups_of(described))
    found = [problem(described, use) for use in sorted(uses(), key=str) if use.name not in elsewhere]
    return [text for text in found if text]


# The list


def test_the_list_of_uses_is_found_in_the_program_text() -> None:
    found = uses()
    names = {use.name for use in found}
    assert Use("Builder", "build_serialized_network", "call", 2) in found
    assert Use("IBuilderConfig", "max_workspace_size", "write") in found
    assert Use("IInt8EntropyCalibrator2", "get_batch", "override", 1) in found
    assert Use("ILayer", "type", "read") in found
    assert Use("IExecutionContext", "execute_async_v3", "call", 1) in found
    assert "ILogger.Severity.ERROR" in names
    assert of_groups(set(GROUPS)) <= names  # nothing is excused that is not used
    assert len(found) > 60


# The real bindings


@by_release
def test_the_agent_finds_what_it_uses(bindings: Bindings, release: str) -> None:
    assert problems(bindings.describe(release)) == []


@by_release
def test_the_agent_takes_the_way_that_the_release_has(bindings: Bindings, release: str) -> None:
    assert groups_of(bindings.describe(release)) == HAS[release.partition(".")[0]]


def test_a_use_that_a_release_does_not_have_is_noticed(bindings: Bindings) -> None:
    described = bindings.describe("11.4")
    assert problem(described, Use("IBuilderConfig", "int8_calibrator", "write"))
    assert problem(described, Use("Builder", "build_engine", "call", 2))
    assert problem(described, Use("Builder", "create_network", "call", 3))
    assert problem(described, Use("Builder", "num_DLA_cores", "write"))
    assert problem(described, Use("ITensor", "name", "call", 0))


# The double


@by_style
def test_the_double_has_what_the_agent_uses(style: str) -> None:
    assert problems(described_double(style)) == []


@by_style
def test_the_double_takes_the_way_of_its_releases(style: str) -> None:
    expected = HAS[style.partition(".")[0]]
    if style == "8.2":  # older than every wheel that can be had
        expected = expected - {"tensors by name", "memory pools"}
    if style == "8.6":
        expected = expected - {"workspace size"}
    assert groups_of(described_double(style)) == expected


@pytest.mark.parametrize(("style", "release"), [(style, release) for style in STYLES for release in STYLES[style]])
def test_the_double_promises_no_more_than_the_bindings(bindings: Bindings, style: str, release: str) -> None:
    real, too_much = bindings.describe(release), []
    for name, members in described_double(style).items():
        if name not in real:
            too_much.append(name)
            continue
        for member, described in members.items():
            if not described["own"] or member == "__init__":
                continue
            if member not in real[name]:
                too_much.append(f"{name}.{member}")
                continue
            if described["kind"] == "property" and described["writable"] and not real[name][member].get("writable"):
                too_much.append(f"{name}.{member} = …")
            for signature in described.get("signatures", ()):
                least = sum(required for _, required in signature)
                refused = [
                    n for n in range(least, len(signature) + 1) if not accepts(real[name][member].get("signatures", []), n)
                ]
                too_much += [f"{name}.{member} with {count} arguments" for count in refused]
    assert too_much == []
