"""Saved sessions: pytest-benchmark's own JSON, one directory per device identity.

``baselines/<device id>/NNNN_<name>.json`` is a file that ``pytest-benchmark compare`` reads. What the gate needs beyond it is in
two blocks, each with its schema: ``extra_info["inference_gate"]`` of a benchmark (one case) and the top-level
``"inference_gate"`` (device, software, condition, broken cases). Benchmarks without such a block are other people's and are left
alone. A file that cannot be trusted raises BaselineError: a gate that skips a damaged baseline would let an upgrade pass.

Sub-directories are never read, so sessions that must not become a baseline go to ``candidates/``.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic_files import create_atomically, describe_refusal, explained
from .coverage import Coverage, MalformedCoverage, parse_coverage
from .errors import BaselineError
from .finite_numbers import is_finite_number

if TYPE_CHECKING:
    import filelock

CASE_SCHEMA = "inference-gate-case/1"
SESSION_SCHEMA = "inference-gate-session/1"
GATE_KEY = "inference_gate"
CANDIDATES = "candidates"
COMPARED_SESSIONS = 10
"""So many of the newest sessions are compared with, where the user names none."""

# pytest-benchmark finds its files by four digits and an underscore.
_LEFTOVER_SECONDS = 3600  # whoever writes for so long holds no lock any more
_LAST_NUMBER = 9999
_FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_(?P<name>.*)\.json", re.DOTALL)
# What pytest-benchmark refuses in --benchmark-save, and what a file system or a terminal would trip over.
_ILLEGAL_IN_NAME = re.compile(r"[\\/:*?<>|\x00-\x1f\x7f]")
_LONGEST_NAME_BYTES = 200
_RESTORE = "restore it from version control, or delete it and save a new baseline"
_REMEDY = "point --benchmark-storage at another directory"


@dataclass(frozen=True)
class BaselineCase:
    """One case of a saved session: the medians of its replicates in seconds, its whole block of the file, and how much of it ran on its
    accelerator (None where that was not known, or not yet recorded). ``builds`` names the build that each replicate ran; ``pictures`` is
    how many pictures its rounds went through in turn, ``picture_medians`` the median of each in seconds, where they were several."""

    id: str
    replicates: tuple[float, ...]
    extra: Mapping[str, Any]
    coverage: Coverage | None = None
    builds: tuple[str, ...] = ()
    pictures: int = 1
    picture_medians: tuple[float, ...] = ()


@dataclass(frozen=True)
class BaselineSession:
    """One saved session.

    ``name`` is what ``--benchmark-save`` said, ``datetime`` the ISO 8601 text of the file. ``device_id`` is None in a file that
    the gate did not write. ``broken`` holds, by case id, the outcome (kind, stage, signal, message) of what did not run.
    ``block`` is the gate's part of the file as it stands there, empty where there is none; ``others`` is the number of its
    benchmarks that are no cases.
    """

    path: Path
    name: str
    datetime: str
    device_id: str | None
    software: Mapping[str, str]
    cases: dict[str, BaselineCase]
    broken: dict[str, Mapping[str, Any]]
    identity: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    block: Mapping[str, Any] = field(default_factory=dict)
    others: int = 0


class _UnusableError(Exception):
    """Why a document is no session; the sentence around it is made where the file is known."""

    def __init__(self, reason: str, remedy: str = _RESTORE) -> None:
        super().__init__(reason)
        self.remedy = remedy


def read_session(path: Path) -> BaselineSession:
    """Read one file. Raises BaselineError, naming the file and what to do, for anything but a complete session."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BaselineError(f"There is no baseline file {path}; {_available(path.parent)}.") from None
    except OSError as problem:
        remedy = "or name another with --benchmark-compare"
        raise BaselineError(describe_refusal(problem, f"read {path.name}", path.parent, remedy=remedy)) from problem
    try:
        return _parse(_decode(content), path)
    except _UnusableError as problem:
        raise BaselineError(f"The baseline {path} {problem}; {problem.remedy}.") from problem


def read_sessions(directory: Path, select: str | None = None, limit: int = COMPARED_SESSIONS) -> list[BaselineSession]:
    """The newest sessions of one device directory, oldest first, at most `limit`.

    `select` is the argument of ``--benchmark-compare``: a path, a number (``2`` or ``0002``), a file name or the name it was saved
    under, or, where none is exactly that, the beginning of one, with wildcards (``jp6``, ``0002_jp6``, ``*quiet``);
    ``other-device/0002`` looks beside the directory. With a selection, all that it names is read, whatever its content. Without one,
    files of other people (no block of the gate) do not count. Raises BaselineError when one of the files cannot be trusted, or when the
    selection names none; an absent or empty directory is an empty list.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    directory = Path(directory)
    if select is not None:
        return [read_session(path) for path in select_session_files(directory, select)][-limit:]
    sessions: list[BaselineSession] = []
    for path in reversed(list_session_files(directory)):
        session = read_session(path)
        if session.cases or session.broken:
            sessions.append(session)
        if len(sessions) == limit:
            break
    return sessions[::-1]


def save_session(directory: Path, name: str, document: Mapping[str, Any]) -> Path:
    """Save `document` under the next number as ``NNNN_<name>.json`` and return its path; never replaces a file.

    The number is taken under a lock, so that two runs at once get two numbers. Raises BaselineError when the name cannot be a
    file name, when `document` is not a session that :func:`read_session` would accept, when the numbers are used up, or when the
    directory cannot be written.
    """
    directory = Path(directory)
    _check_name(name)
    content = _encode(document)
    with explained(f"save {name!r}", directory, error=BaselineError, remedy=_REMEDY):
        directory.mkdir(parents=True, exist_ok=True)
        with session_lock(directory):
            _remove_leftovers(directory)
            while True:
                number = _last_number(directory) + 1
                if number > _LAST_NUMBER:
                    raise BaselineError(
                        f"{directory} has used up its numbers (the last is {_LAST_NUMBER}); prune it: move the older files "
                        "away and renumber the rest from 0001."
                    )
                path = directory / f"{number:04}_{name}.json"
                try:
                    create_atomically(path, content, error=BaselineError, remedy=_REMEDY)
                except FileExistsError:
                    # Somebody who does not know the lock (pytest-benchmark itself) was faster.
                    continue
                return path


def _remove_leftovers(directory: Path) -> None:
    """What runs that were killed in the middle of writing have left, and what would otherwise be committed with the baselines."""
    for path in directory.glob(".[0-9][0-9][0-9][0-9]_*.json.*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


def session_lock(directory: Path) -> filelock.BaseFileLock:
    """What is held while sessions of this directory are added or removed; the directory must be there.

    Two of these locks in one process exclude each other as well: who holds one must not call :func:`save_session` for the same
    directory.
    """
    import filelock

    return filelock.FileLock(directory / ".lock")


def list_session_files(directory: Path) -> list[Path]:
    """The session files that lie directly in `directory`, by number, then name."""
    directory = Path(directory)
    try:
        names = [entry.name for entry in directory.iterdir() if _FILE_NAME.fullmatch(entry.name) and entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        remedy = "point --benchmark-storage at a directory that can be read"
        raise BaselineError(describe_refusal(problem, "list the baselines", directory, remedy=remedy)) from problem
    return [directory / name for name in sorted(names)]


def newest_failure(sessions: Sequence[BaselineSession], case_id: str) -> Mapping[str, Any] | None:
    """How the case failed in the newest of ``sessions`` (the oldest first) that knows it; None where it worked there or is not known."""
    for session in reversed(sessions):
        if case_id in session.cases:
            return None
        if case_id in session.broken:
            return session.broken[case_id]
    return None


def devices_with_baselines(root: Path, *, candidates: bool = False) -> list[str]:
    """The device identities that have at least one session under `root`; with `candidates`, one that is a candidate will do."""
    try:
        folders = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir())
    except OSError:
        return []
    return [
        name
        for name in folders
        if list_session_files(Path(root, name)) or (candidates and list_session_files(Path(root, name, CANDIDATES)))
    ]


def find_close_ids(id: str, ids: Iterable[str], count: int = 3) -> list[str]:
    """The ids most like `id`, best first: what a case may have been called before it was renamed."""
    return difflib.get_close_matches(id, [other for other in ids if other != id], n=count, cutoff=0.6)


# Reading


def _decode(content: bytes) -> Mapping[str, Any]:
    if not content.strip():
        raise _UnusableError("is empty")
    try:
        document = json.loads(content)
    except UnicodeDecodeError:
        raise _UnusableError("is not JSON text") from None
    except json.JSONDecodeError as problem:
        cut = problem.pos >= len(problem.doc.rstrip()) or problem.msg.startswith("Unterminated")
        reason = "ends in the middle (it was cut)" if cut else f"is not JSON ({problem.msg} in line {problem.lineno})"
        raise _UnusableError(reason) from None
    except (ValueError, RecursionError):
        raise _UnusableError("is not usable JSON") from None
    if not isinstance(document, dict):
        raise _UnusableError("is not a JSON object")
    return document


def _parse(document: Mapping[str, Any], path: Path) -> BaselineSession:
    benchmarks = document.get("benchmarks")
    if not isinstance(benchmarks, list) or not all(isinstance(benchmark, dict) for benchmark in benchmarks):
        raise _UnusableError("is not a file of pytest-benchmark (it has no list of benchmarks)")
    cases: dict[str, BaselineCase] = {}
    for benchmark in benchmarks:
        extra_info = benchmark.get("extra_info")
        block = extra_info.get(GATE_KEY) if isinstance(extra_info, dict) else None
        if block is None:
            continue
        case = _parse_case(block, str(benchmark.get("fullname", benchmark.get("name", "a benchmark"))))
        if case.id in cases:
            raise _UnusableError(f"holds the case {case.id} twice")
        cases[case.id] = case
    named = _FILE_NAME.fullmatch(path.name)
    name = named["name"] if named else path.stem
    datetime = str(document.get("datetime") or "")
    block = document.get(GATE_KEY)
    if block is None:
        return BaselineSession(path, name, datetime, None, {}, cases, {}, others=len(benchmarks) - len(cases))
    where = f'its "{GATE_KEY}" block'
    if not isinstance(block, dict):
        raise _UnusableError(f"is damaged ({where} is not an object)")
    _check_schema(block.get("schema"), SESSION_SCHEMA, where)
    device = _object(block, "device", where)
    identity = _object(device, "identity", where)
    device_id = device.get("id")
    if device_id is not None and not isinstance(device_id, str):
        raise _UnusableError(f"is damaged ({where} has a device id that is not text)")
    software = {str(package): str(version) for package, version in _object(block, "software", where).items()}
    return BaselineSession(
        path=path,
        name=name,
        datetime=datetime,
        device_id=device_id,
        software=software,
        cases=cases,
        broken=_parse_broken(block.get("broken"), where),
        identity=identity,
        condition=_object(block, "condition", where),
        block=block,
        others=len(benchmarks) - len(cases),
    )


def _parse_case(block: Any, benchmark: str) -> BaselineCase:
    where = f"its benchmark {benchmark}"
    if not isinstance(block, dict):
        raise _UnusableError(f"is damaged ({where} has a block of the gate that is not an object)")
    _check_schema(block.get("schema"), CASE_SCHEMA, where)
    id = block.get("id")
    if not isinstance(id, str) or not id:
        raise _UnusableError(f"is damaged ({where} has no case id)")
    replicates = block.get("replicates")
    if not isinstance(replicates, list) or not replicates or not all(_is_duration(value) for value in replicates):
        raise _UnusableError(f"is damaged ({where} has no replicates in seconds)")
    try:
        coverage = None if block.get("coverage") is None else parse_coverage(block["coverage"])
    except MalformedCoverage as problem:
        raise _UnusableError(f"is damaged ({where} has a coverage that {problem})") from None
    builds = _parse_builds(block, len(replicates), where)
    pictures, medians = _parse_pictures(block, where)
    return BaselineCase(id, tuple(float(value) for value in replicates), block, coverage, builds, pictures, medians)


def _parse_pictures(block: Mapping[str, Any], where: str) -> tuple[int, tuple[float, ...]]:
    """How many pictures the rounds went through, and the median of each. Sessions that say nothing of it had one."""
    pictures, medians = block.get("pictures", 1), block.get("picture_medians", [])
    known = (
        type(pictures) is int and pictures >= 1 and isinstance(medians, list) and all(_is_duration(value) for value in medians)
    )
    if not known or len(medians) != (pictures if pictures > 1 else 0):
        raise _UnusableError(f"is damaged ({where} does not say on how many pictures it was measured, or how long each took)")
    return pictures, tuple(float(value) for value in medians)


def _parse_builds(block: Mapping[str, Any], replicates: int, where: str) -> tuple[str, ...]:
    """Which build each replicate ran. Sessions without that had one, named after the artifact."""
    names, numbers = block.get("builds"), block.get("replicate_builds")
    if not names and not numbers:
        artifact = block.get("artifact")
        return (str(artifact.get("digest")) if isinstance(artifact, dict) else "unknown",) * replicates
    if isinstance(names, list) and isinstance(numbers, list) and len(numbers) == replicates:
        known = {number: str(name) for number, name in enumerate(names)}
        if all(type(number) is int and number in known for number in numbers):
            return tuple(known[number] for number in numbers)
    raise _UnusableError(f"is damaged ({where} does not say which build each of its replicates ran)")


def _parse_broken(broken: Any, where: str) -> dict[str, Mapping[str, Any]]:
    if broken is None:
        return {}
    outcomes: dict[str, Mapping[str, Any]] = {}
    if isinstance(broken, list):
        for entry in broken:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not isinstance(entry.get("outcome"), dict):
                break
            outcomes[entry["id"]] = entry["outcome"]
        else:
            return outcomes
    raise _UnusableError(f"is damaged ({where} has a list of broken cases that cannot be read)")


def _check_schema(found: Any, known: str, where: str) -> None:
    if found == known:
        return
    family, _, version = known.partition("/")
    match = re.fullmatch(rf"{re.escape(family)}/([0-9]{{1,6}})", found) if isinstance(found, str) else None
    if match and int(match[1]) > int(version):
        raise _UnusableError(
            f"was written by a newer version of the plugin ({found}; this one knows {known})",
            "upgrade pytest-inference-gate, or compare with an older baseline by --benchmark-compare=NUMBER",
        )
    raise _UnusableError(f"is damaged ({where} has the schema {found!r} instead of {known!r})")


def _object(block: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """An object that may be absent, but may not be something else."""
    value = block.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _UnusableError(f"is damaged ({key} in {where} is not an object)")
    return value


def _is_duration(value: Any) -> bool:
    return is_finite_number(value) and value > 0


# Selecting


def select_session_files(directory: Path, select: str) -> list[Path]:
    """The files that `select` names, as :func:`read_sessions` explains it. Raises BaselineError where it names none."""
    if not select:
        raise BaselineError(f"The baseline to compare with has an empty name; {_available(directory)}.")
    named = Path(os.path.expanduser(select))  # noqa: PTH111  (Path.expanduser raises where there is no such user)
    for place in (named, directory / named):
        if _is_file(place):
            return [place]
    if len(named.parts) == 2 and not named.is_absolute():
        folder, pattern = named.parts
        found = [
            path
            for device in _matching_folders(directory.parent, folder)
            for path in _matching_files(list_session_files(device), pattern)
        ]
    elif len(named.parts) == 1:
        found = _matching_files(list_session_files(directory), select)
    else:
        found = []
    if not found:
        raise BaselineError(f"No baseline is named {select!r} in {directory}; {_available(directory)}.")
    return found


def _matching_files(files: Collection[Path], select: str) -> list[Path]:
    if select.isascii() and select.isdigit() and len(select) <= 4:
        numbered = [path for path in files if int(path.name[:4]) == int(select)]
        if numbered:
            return numbered
    name = select.removesuffix(".json")
    # A full name goes before the beginning of one: "jp4.3" means the sessions of that stack, and none of "jp4.3-tf1.15".
    exact = [path for path in files if name in (path.stem, path.stem[5:])]
    if exact:
        return exact
    pattern = name.rstrip("*") + "*"
    return [path for path in files if fnmatchcase(path.stem, pattern) or fnmatchcase(path.stem[5:], pattern)]


def _matching_folders(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and fnmatchcase(entry.name, pattern))
    except OSError:
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _available(directory: Path) -> str:
    names = [path.stem for path in list_session_files(directory)]
    if not names:
        return f"{directory} holds none; record one with --benchmark-save=NAME"
    if len(names) > 5:
        return f"{directory} holds {len(names)}, the newest are {', '.join(names[-5:])}"
    return f"{directory} holds {', '.join(names)}"


# Saving


def _check_name(name: str) -> None:
    if not name:
        raise BaselineError("A baseline needs a name; give one with --benchmark-save=NAME.")
    if illegal := sorted(set(_ILLEGAL_IN_NAME.findall(name))):
        raise BaselineError(f"The name {name!r} of a baseline holds {''.join(illegal)!r}; use letters, digits, dots, dashes.")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise BaselineError(f"The name {name!r} of a baseline is not valid text; use letters, digits, dots, dashes.") from None
    if length > _LONGEST_NAME_BYTES:
        raise BaselineError(f"The name of a baseline has {length} bytes; use at most {_LONGEST_NAME_BYTES}.")


def _encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of a session file, after a check that they would be read again."""
    # Spelled as pytest-benchmark spells it, params that JSON cannot hold included, so that both kinds of file look alike.
    text = json.dumps(document, ensure_ascii=True, indent=4, default=_unserializable)
    content = text.encode("ascii")
    try:
        # Parsed from the text, not from the document: what a reader will get is what must be right.
        _parse(_decode(content), Path("unsaved"))
    except _UnusableError as problem:
        raise BaselineError(f"This session cannot be saved as a baseline, because it {problem}; run it again.") from problem
    return content


def _unserializable(value: Any) -> str:
    return f"UNSERIALIZABLE[{value!r}]"


def _last_number(directory: Path) -> int:
    # Anything that takes a number counts, whatever its suffix, as in pytest-benchmark.
    numbers = [int(entry.name[:4]) for entry in directory.iterdir() if re.match(r"[0-9]{4}_", entry.name)]
    return max(numbers, default=0)
