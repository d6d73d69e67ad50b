"""Google's ``edgetpu_compiler``: how it is called, what it prints, and what went wrong when it says so. Python 3.6.

It is a program for x86-64 Linux alone, last released as 16.0. All that is known of its result is text: what it prints, and a log of the
operations beside the model. Both are read as each release so far wrote them.
"""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from .failures import AgentError, BuildError, Crashed, TimedOut, Unsupported  # noqa: F401

PROGRAM = "edgetpu_compiler"
MAPPED = "Mapped to Edge TPU"
DEFAULT_SECONDS = 180.0  # its own limit, since release 16
FIRST_WITH_TIMER = 16
GRACE_SECONDS = 60.0  # beyond its own limit, before it is ended from outside
VERSION_PATIENCE_SECONDS = 20.0  # of the 60 of a probe: a version that is not told gives what is compiled another key
MAXIMUM_ROWS = 50

# The Edge TPU runtime for which each release compiles where nothing older is asked for: the newest one that it knows.
NEWEST_RUNTIMES = (("16.", 14), ("15.", 13), ("14.", 13), ("2.1.", 13), ("2.0.291", 13), ("2.0.267", 12), ("1.0", 10))

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*(B|KiB|MiB|GiB)"
_VERSION = re.compile(r"^Edge TPU Compiler version\s+(\S+)", re.MULTILINE)
_SUCCESS = re.compile(r"^Models? compiled successfully in ([0-9]+) ms", re.MULTILINE)
_HEADER = re.compile(r"^Operator\s+Count\s+Status\s*$")
_ROW = re.compile(r"^(\S+)\s+([0-9]+)\s+(\S.*?)\s*$")
INTERNAL_ERROR = "Internal compiler error"

# One line of a model's block, the field that it fills, and how its value is read.
_LINES = (
    (re.compile(r"^Output model:\s*(.+?)\s*$"), "output", "text"),
    (re.compile(r"^Operation log:\s*(.+?)\s*$"), "log", "text"),
    (re.compile(r"^Input size:\s*" + _SIZE), "input_bytes", "size"),
    (re.compile(r"^Output size:\s*" + _SIZE), "output_bytes", "size"),
    (re.compile(r"^On-chip memory used for caching model parameters:\s*" + _SIZE), "on_chip_bytes", "size"),
    # Releases before 14 call it available.
    (re.compile(r"^On-chip memory (?:remaining|available) for caching model parameters:\s*" + _SIZE), "on_chip_left", "size"),
    (re.compile(r"^Off-chip memory used for streaming uncached model parameters:\s*" + _SIZE), "off_chip_bytes", "size"),
    (re.compile(r"^Number of Edge TPU subgraphs:\s*([0-9]+)"), "subgraphs", "count"),
    (re.compile(r"^Total number of operations:\s*([0-9]+)"), "operations", "count"),
    (re.compile(r"^Number of operations that will run on Edge TPU:\s*([0-9]+)"), "mapped", "count"),
    (re.compile(r"^Number of operations that will run on CPU:\s*([0-9]+)"), "on_cpu", "count"),
)
_INPUT = re.compile(r"^Input(?: model)?:\s*(.+?)\s*$")

Row = namedtuple("Row", ["operator", "count", "status"])
Compilation = namedtuple("Compilation", ["version", "succeeded", "milliseconds", "models"])
Compiled = namedtuple(
    "Compiled",
    "input output log input_bytes output_bytes on_chip_bytes on_chip_left off_chip_bytes subgraphs operations mapped on_cpu rows",
)
"""What the compiler said of one model: sizes in bytes, counts of operations; None is what it did not say."""

Result = namedtuple("Result", ["path", "compilation", "compiled", "retried"])


# What it prints


def parse(text):
    # type: (str) -> Compilation
    """What the compiler printed, of any release, for one model or several together.

    A model that maps whole gets no lines that count what is mapped and what is not. That they are absent means that nothing is left for
    the CPU only where the compilation succeeded; else the counts stay None.
    """
    version, success = _VERSION.search(text), _SUCCESS.search(text)
    blocks = []  # type: List[Dict[str, Any]]
    in_table = False
    for line in text.splitlines():
        match = _INPUT.match(line)
        if match:
            blocks.append({"input": match.group(1), "rows": []})
        elif blocks:
            in_table = bool(_HEADER.match(line)) or (in_table and _read_row(line, blocks[-1]["rows"]))
            _read_line(line, blocks[-1])
    return Compilation(
        version.group(1) if version else None,
        success is not None,
        int(success.group(1)) if success else None,
        [_counted(block, success is not None) for block in blocks],
    )


def _read_row(line, rows):
    # type: (str, List[Row]) -> bool
    """Whether the table of operations goes on; an operator has one row for each of its statuses."""
    match = _ROW.match(line)
    if match:
        rows.append(Row(match.group(1), int(match.group(2)), match.group(3)))
    return bool(match) or not line.strip()


def _read_line(line, block):
    # type: (str, Dict[str, Any]) -> None
    for pattern, field, form in _LINES:
        match = pattern.match(line)
        if match:
            block[field] = size(*match.groups()) if form == "size" else int(match.group(1)) if form == "count" else match.group(1)


def _counted(block, succeeded):
    # type: (Dict[str, Any], bool) -> Compiled
    operations, mapped, on_cpu = (block.get(field) for field in ("operations", "mapped", "on_cpu"))
    if succeeded and operations is not None and on_cpu is None and mapped is None:
        mapped, on_cpu = operations, 0
    return Compiled(**dict(dict.fromkeys(Compiled._fields), **dict(block, mapped=mapped, on_cpu=on_cpu)))


def parse_log(text):
    # type: (str) -> Tuple[Optional[str], List[Row]]
    """The compiler's version and the rows of the operation log that it leaves beside a model."""
    compilation = parse(text)
    return compilation.version, [row for model in compilation.models for row in model.rows]


def size(number, unit):
    # type: (str, str) -> int
    """Bytes of ``("604.50", "KiB")``."""
    return int(round(float(number) * _UNITS[unit]))


def coverage(compiled, source):
    # type: (Compiled, str) -> Optional[Dict[str, Any]]
    """How much of a model runs on the Edge TPU, in the words that all accelerators share; None where the compiler did not say.

    The table counts where it holds all operations, for it has the reasons too; whatever is not mapped runs on the CPU.
    """
    rows = compiled.rows
    total = sum(row.count for row in rows)
    if rows and compiled.operations in (None, total):
        mapped, elsewhere = sum(row.count for row in rows if row.status == MAPPED), total
        elsewhere -= mapped
    elif compiled.mapped is not None and compiled.on_cpu is not None:
        mapped, elsewhere = compiled.mapped, compiled.on_cpu
    else:
        return None
    return {
        "accelerator": "edgetpu",
        "on_accelerator": mapped,
        "elsewhere": elsewhere,
        "parts": compiled.subgraphs,
        "off_chip_bytes": compiled.off_chip_bytes,
        "elsewhere_by_operation": elsewhere_by_operation(rows),
        "native_segments": None,
        "source": source,
    }


def elsewhere_by_operation(rows):
    # type: (List[Row]) -> List[Dict[str, Any]]
    """The rows that are not mapped, added up by operator and status, the most frequent first."""
    counts = {}  # type: Dict[Tuple[str, str], int]
    for row in rows:
        if row.status != MAPPED:
            counts[row.operator, row.status] = counts.get((row.operator, row.status), 0) + row.count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"operation": key[0], "count": count, "reason": key[1]} for key, count in ordered[:MAXIMUM_ROWS]]


# Where it is


def find():
    # type: () -> Optional[str]
    """The program on PATH."""
    return shutil.which(PROGRAM)


def missing():
    # type: () -> str
    """Why a model cannot be compiled where the program is not, and what to do instead, as one sentence."""
    compiled = "or give the card a .tflite that is compiled already"
    if platform.machine().lower() in ("x86_64", "amd64") and sys.platform.startswith("linux"):
        return "%s is not on PATH here: install Google's package edgetpu-compiler, %s" % (PROGRAM, compiled)
    return (
        "%s is for x86-64 Linux alone and cannot run on this %s machine: convert on an x86-64 host "
        "(--gate-convert-with=PYTHON there, --gate-target=ssh://... for the board), %s"
        % (PROGRAM, platform.machine() or "unknown", compiled)
    )


def version(program):
    # type: (str) -> str
    """Of the program; ``"unknown"`` where it does not say."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_PATIENCE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    match = _VERSION.search(done.stdout.decode("utf-8", "replace"))
    return match.group(1) if match else "unknown"


def newest_runtime(compiler):
    # type: (str) -> Optional[int]
    """The newest Edge TPU runtime that a release of the compiler can aim at; None for a release that is not known here."""
    return next((runtime for beginning, runtime in NEWEST_RUNTIMES if compiler.startswith(beginning)), None)


# Calling it


def compile_model(path, directory, options, progress):
    # type: (str, str, Dict[str, Any], Callable[[str], None]) -> Result
    """Compile the ``.tflite`` at ``path`` into ``directory``.

    ``options`` may hold ``minimum_runtime_version`` (the oldest Edge TPU runtime that has to take the model) and ``timeout_seconds``.
    An internal error is met with one more try, since the compiler is known to get over some of them; nothing else is. Raises
    :class:`Unsupported` where there is no compiler, or one that is too old for the runtime, else the :class:`AgentError` that
    fits what it printed.
    """
    program = find()
    if program is None:
        raise Unsupported(missing())
    release = version(program)
    command = [program] + arguments(release, options) + ["-o", directory, path]
    limit = float(options.get("timeout_seconds") or DEFAULT_SECONDS)
    retried = None
    progress("compiling for the Edge TPU with edgetpu_compiler %s, which may take up to %g s" % (release, limit))
    status, text = _call(command, limit, release)
    if INTERNAL_ERROR in text:
        retried = "edgetpu_compiler %s failed with an internal error at the first try, and was tried once more" % release
        progress("compiling once more after an internal error of the compiler")
        status, text = _call(command, limit, release)
    compilation = parse(text)
    expected = os.path.join(directory, os.path.splitext(os.path.basename(path))[0] + "_edgetpu.tflite")
    if status != 0 or not compilation.succeeded or not compilation.models:
        raise failure(text, status, release, bool(retried))
    if not os.path.isfile(expected):
        raise BuildError(
            "edgetpu_compiler %s said that it had compiled the model, but wrote no %s: look at the log, and at the space on the disk"
            % (release, os.path.basename(expected))
        )
    compiled = compilation.models[-1]
    logged = _logged_rows(expected)
    return Result(expected, compilation, compiled._replace(rows=logged) if logged else compiled, retried)


def arguments(release, options):
    # type: (str, Dict[str, Any]) -> List[str]
    """Its options, for a release; :class:`Unsupported` where it cannot make a model for the runtime that is asked for."""
    wanted = options.get("minimum_runtime_version")
    newest = newest_runtime(release)
    found = ["-s"]
    if wanted is not None:
        if newest is not None and int(wanted) > newest:
            raise Unsupported(
                "edgetpu_compiler %s knows no Edge TPU runtime newer than %d, and the card asks for %d: install a newer compiler, "
                "or lower minimum_runtime_version" % (release, newest, int(wanted))
            )
        found += ["-m", str(int(wanted))]
    if _has_timer(release):
        found += ["-t", "%d" % max(1, round(float(options.get("timeout_seconds") or DEFAULT_SECONDS)))]
    return found


def _has_timer(release):
    # type: (str) -> bool
    major = release.split(".")[0]
    return major.isdigit() and int(major) >= FIRST_WITH_TIMER


def _call(command, limit, release):
    # type: (List[str], float, str) -> Tuple[int, str]
    """Its exit status (minus the signal's number where one killed it) and all that it printed, which goes into the stage's log too."""
    with tempfile.TemporaryFile() as output:  # a pipe would stay open as long as a child of a killed compiler lives
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise BuildError("edgetpu_compiler cannot be started (%s): see whether it is a program for this machine" % error)
        try:
            status = process.wait(limit + (GRACE_SECONDS if _has_timer(release) else 0.0))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    sys.stderr.write("$ %s\n%s\n" % (" ".join(command), text.rstrip()))
    if status is None:
        raise _timed_out(release, limit)
    return status, text


def _logged_rows(model):
    # type: (str) -> List[Row]
    path = os.path.splitext(model)[0] + ".log"
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return parse_log(stream.read())[1]
    except OSError:
        return []


# What went wrong


def failure(text, status, release, retried):
    # type: (str, int, str, bool) -> AgentError
    """What to raise for what the compiler printed before it left with ``status``."""
    who = "edgetpu_compiler " + release
    if "Compilation timeout" in text:
        return _timed_out(release, None)
    if status < 0:
        return _killed(who, -status)
    match = re.search(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'", text)
    if match:
        return BuildError(
            "%s is too old for what the converter wrote (%s of version %s): convert with an older TensorFlow "
            "(--gate-convert-with=PYTHON)" % ((who,) + match.groups())
        )
    if "not quantized" in text:
        return BuildError(
            "%s refuses the model because it is not quantized in all its tensors: use int8 or full_int8 with calibration pictures "
            "that reach every layer" % who
        )
    if "dynamic-sized tensors" in text:
        return BuildError("%s refuses the model because the size of a tensor is not constant: export it with a fixed shape" % who)
    if "large activation tensors" in text:
        return BuildError(
            "%s cannot place the activations of the model in the Edge TPU's memory: make its input or its layers smaller" % who
        )
    if INTERNAL_ERROR in text:
        twice = " twice" if retried else ""
        return BuildError(
            "%s failed%s with an internal error, of which it says no cause: try another release of TensorFlow, or a smaller input"
            % (who, twice)
        )
    match = re.search(r"terminating with (uncaught exception[^\n]*)", text)
    if match:
        return Crashed("%s died of an %s: try another release of TensorFlow, or report the model" % (who, match.group(1).strip()))
    return BuildError(
        "%s did not compile the model (exit status %d): %s" % (who, status, _last_words(text) or "it printed no reason")
    )


def _timed_out(release, limit):
    # type: (str, Optional[float]) -> TimedOut
    after = " within %g s" % limit if limit else " in its time"
    return TimedOut(
        "edgetpu_compiler %s did not finish%s, which large activations cause: raise timeout_seconds in [options.edgetpu] of the card, "
        "or make the input smaller" % (release, after)
    )


def _killed(who, number):
    # type: (str, int) -> Crashed
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "signal %d" % number
    advice = (
        "the kernel does that where memory runs out, so give it more" if name == "SIGKILL" else "report the model to its makers"
    )
    return Crashed("%s was killed by %s: %s" % (who, name, advice))


def _last_words(text):
    # type: (str) -> str
    """The lines that say why, without those that every failure has."""
    reasons = re.findall(r"^(?:ERROR|Compilation failed):\s*(\S.*?)\s*$", text, re.MULTILINE)
    match = re.search(r"^Invalid model: [^\n]*\n+([^\n]+)", text, re.MULTILINE)
    if match:
        reasons.append(match.group(1).strip())
    if not reasons:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reasons = [line for line in lines if not re.match(r"Edge TPU Compiler version|Started a compilation|Compilation ", line)][
            -1:
        ]
    return "; ".join(dict.fromkeys(reason.rstrip(".") for reason in reasons[-2:]))
