"""Coral Edge TPU: integer models of TensorFlow Lite, compiled by ``edgetpu_compiler``, run by an interpreter with ``libedgetpu``.

The compiler puts one custom operator in the place of all that it has mapped. What it has not mapped stays in the file and runs on the CPU,
without a word at run time. So what it said of each operation is kept beside the model (``compilation.json``), and the interpreter is asked
whether the custom operators are in the delegate's hands.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from typing import Any, Callable, Dict, List, Optional, Tuple  # noqa: F401

from .. import edgetpu_compiler, edgetpu_library, tflite_file, tflite_nodes
from .. import tensorflow_sources as sources
from ..failures import BuildError, LoadError, Unsupported
from . import tflite

NAME = "edgetpu"
PRECISIONS = ("int8", "full_int8")
RUNNER_TAKES = ("options",)
MODEL, LOG, RECORD = "model_edgetpu.tflite", "operations.log", "compilation.json"
SCHEMA = "inference-gate-edgetpu/1"
NOT_COMPILED = "not compiled for the Edge TPU"


def availability(packages):
    # type: (Dict[str, str]) -> Dict[str, Any]
    plain = tflite.availability(packages)
    program = edgetpu_compiler.find()
    converter = dict(plain["converter"], edgetpu_compiler=edgetpu_compiler.version(program)) if program else {}
    library = edgetpu_library.is_installed()
    runs = bool(plain["runtime"]) and library
    reason = plain["reason"]
    if not reason and not library:
        reason = "the Edge TPU's runtime %s is not installed: %s" % (edgetpu_library.name(), edgetpu_library.INSTALL)
    if program is None:
        conversion_reason = edgetpu_compiler.missing()
    else:
        conversion_reason = (
            "" if sources.installed_version(packages) else "TensorFlow is not installed, which converts to integers"
        )
    return {
        "available": runs,
        "can_convert": True,  # a model that is compiled already is passed through anywhere
        "can_run": runs,
        "precisions_convert": list(PRECISIONS),
        "precisions_run": list(PRECISIONS) if runs else [],
        "runtime": plain["runtime"],
        "converter": converter,
        "source_formats": plain["source_formats"] if program else ["tflite"],
        "reason": reason,
        "conversion_reason": conversion_reason,
    }


# Conversion


def convert(request, progress):
    # type: (Dict[str, Any], Callable[[str], None]) -> Dict[str, Any]
    """Besides the usual, a request may hold ``options``: ``minimum_runtime_version`` and ``timeout_seconds`` of the compiler."""
    precision = request["precision"]
    if precision not in PRECISIONS:
        raise Unsupported("the backend edgetpu has no precision %r; it has %s" % (precision, ", ".join(PRECISIONS)))
    if request["source"]["format"] == "tflite":
        content = _model_of(request["source"]["path"])
        if content.edge_tpu_operators:
            return _passed_through(request, content)
    if edgetpu_compiler.find() is None:
        raise Unsupported(edgetpu_compiler.missing())
    scratch = tempfile.mkdtemp(prefix="inference-gate-")
    try:
        return _compiled(request, scratch, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _model_of(path):
    # type: (str) -> tflite_file.TfLiteFile
    try:
        return tflite_file.read(path)
    except tflite_file.NotTfLiteError as error:
        raise BuildError("%s is no model: %s" % (os.path.basename(path), error))


def _compiled(request, scratch, progress):
    # type: (Dict[str, Any], str, Callable[[str], None]) -> Dict[str, Any]
    integers = tflite.convert(dict(request, output_directory=scratch), progress)
    outputs = os.path.join(scratch, "compiled")
    os.mkdir(outputs)
    options = request.get("options") or {}
    result = edgetpu_compiler.compile_model(os.path.join(scratch, integers["model"]), outputs, options, progress)
    content = _model_of(result.path)
    release = result.compilation.version or "of unknown version"
    source = "%s %s" % (edgetpu_compiler.PROGRAM, release)
    coverage = edgetpu_compiler.coverage(result.compiled, source) or _coverage_of_file(content, source)
    if not content.edge_tpu_operators:
        raise BuildError(_nothing_mapped(release, coverage, options))
    directory = request["output_directory"]
    shutil.copyfile(result.path, os.path.join(directory, MODEL))
    log = os.path.splitext(result.path)[0] + ".log"
    if os.path.isfile(log):
        shutil.copyfile(log, os.path.join(directory, LOG))
    _write_record(directory, {"compiler": release, "coverage": coverage})
    operators = integers["details"].get("operators") or tflite_file.read(os.path.join(scratch, integers["model"])).counts
    details = {
        "passed_through": False,
        "coverage": coverage,
        "compilation": _sizes(result),
        "operators": operators,
        "nodes": {"before": sum(operators.values()), "after": sum(content.counts.values()), "converted": None},
        "remarks": [result.retried] if result.retried else [],
    }
    if result.retried:
        details["retried"] = result.retried
    return {"model": MODEL, "converter": dict(integers["converter"], edgetpu_compiler=release), "details": details}


def _sizes(result):
    # type: (edgetpu_compiler.Result) -> Dict[str, Any]
    """What the compiler said besides the mapping: sizes in bytes and its own time."""
    fields = ("input_bytes", "output_bytes", "on_chip_bytes", "on_chip_left", "off_chip_bytes", "subgraphs", "operations")
    found = {field: getattr(result.compiled, field) for field in fields}
    return dict(found, milliseconds=result.compilation.milliseconds)


def _nothing_mapped(release, coverage, options):
    # type: (str, Dict[str, Any], Dict[str, Any]) -> str
    reasons = [row["reason"] for row in coverage["elsewhere_by_operation"]]
    runtime = options.get("minimum_runtime_version")
    advice = (
        "raise minimum_runtime_version, which is %s, in [options.edgetpu] of the card" % runtime if runtime else "see its log"
    )
    return "edgetpu_compiler %s mapped none of the model's %d operations to the Edge TPU%s: %s" % (
        release,
        coverage["elsewhere"],
        " (%s)" % reasons[0] if reasons else "",
        advice,
    )


def _passed_through(request, content):
    # type: (Dict[str, Any], tflite_file.TfLiteFile) -> Dict[str, Any]
    """A model that was compiled elsewhere; the log of its compilation counts where it lies beside it under the compiler's name."""
    path, directory = request["source"]["path"], request["output_directory"]
    remarks = []  # type: List[str]
    if (request.get("options") or {}).get("minimum_runtime_version") is not None:
        remarks.append("the model was compiled already, so minimum_runtime_version of the card was not used")
    log = os.path.splitext(path)[0] + ".log"
    coverage, release = None, None
    if os.path.isfile(log):
        release, coverage = _coverage_of_log(log, content)
        shutil.copyfile(log, os.path.join(directory, LOG))
    if coverage is None:
        coverage = _coverage_of_file(content, "the operators of the compiled model")
        remarks.append(
            "beside the compiled model there is no log of its compilation (%s), so each part on the Edge TPU counts as one operation"
            % os.path.basename(log)
        )
    shutil.copyfile(path, os.path.join(directory, MODEL))
    _write_record(directory, {"compiler": release, "coverage": coverage})
    details = {
        "passed_through": True,
        "coverage": coverage,
        "operators": content.counts,
        "nodes": {"before": None, "after": sum(content.counts.values()), "converted": None},
        "remarks": remarks,
    }
    return {"model": MODEL, "converter": {"edgetpu_compiler": release} if release else {}, "details": details}


def _coverage_of_log(path, content):
    # type: (str, tflite_file.TfLiteFile) -> Tuple[Optional[str], Optional[Dict[str, Any]]]
    with open(path, encoding="utf-8", errors="replace") as stream:
        release, rows = edgetpu_compiler.parse_log(stream.read())
    if not any(row.status == edgetpu_compiler.MAPPED for row in rows):
        return release, None  # it tells of another model, or of nothing
    empty = edgetpu_compiler.Compiled(**dict.fromkeys(edgetpu_compiler.Compiled._fields))
    compiled = empty._replace(rows=rows, subgraphs=content.edge_tpu_operators)
    source = "the operation log of %s %s" % (edgetpu_compiler.PROGRAM, release or "of unknown version")
    return release, edgetpu_compiler.coverage(compiled, source)


def _coverage_of_file(content, source):
    # type: (tflite_file.TfLiteFile, str) -> Dict[str, Any]
    """Where nothing tells how many operations a part stands for: each part counts as one."""
    others = [operator.name for operator in content.operators]
    parts = content.edge_tpu_operators
    others = [name for name in others if name != tflite_file.EDGE_TPU_OPERATOR]
    return {
        "accelerator": NAME,
        "on_accelerator": parts,
        "elsewhere": len(others),
        "parts": parts,
        "off_chip_bytes": None,
        "elsewhere_by_operation": tflite_nodes.by_operation(others, NOT_COMPILED),
        "native_segments": None,
        "source": source,
    }


# What is known of a compiled model, beside it


def _write_record(directory, record):
    # type: (str, Dict[str, Any]) -> None
    record = dict(record, schema=SCHEMA, model_sha256=_sha256(os.path.join(directory, MODEL)))
    with open(os.path.join(directory, RECORD), "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1, sort_keys=True)


def _read_record(model):
    # type: (str) -> Optional[Dict[str, Any]]
    """What was written beside exactly this model; None for a model that lies alone, or beside the record of another one."""
    try:
        with open(os.path.join(os.path.dirname(model), RECORD), encoding="utf-8") as stream:
            record = json.load(stream)
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("model_sha256") != _sha256(model):
        return None
    return record


def _sha256(path):
    # type: (str) -> str
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


# Running


def runtime():
    # type: () -> Dict[str, str]
    return tflite.runtime()


def _load_delegate(name):
    # type: (str) -> Any
    """``load_delegate`` of the runtime that :func:`tflite.import_interpreter` has chosen; None where it has none."""
    if name == "tensorflow":
        import tensorflow as tf

        return getattr(getattr(tf.lite, "experimental", None), "load_delegate", None)
    return getattr(sys.modules[name + ".interpreter"], "load_delegate", None)


class Runner(tflite.Runner):
    """One interpreter with the Edge TPU as its delegate."""

    def __init__(self, model, precision, threads, batch, input, options=None):
        # type: (str, str, int, int, Dict[str, Any], Optional[Dict[str, Any]]) -> None
        self._options = options or {}
        self._delegate = None  # type: Any
        self._edge_tpu_runtime = None  # type: Optional[int]
        try:
            self._file = tflite_file.read(model)
        except tflite_file.NotTfLiteError as error:
            raise LoadError("%s is no model: %s" % (os.path.basename(model), error))
        if not self._file.edge_tpu_operators:
            raise LoadError(
                "nothing in the model is compiled for the Edge TPU (it has no %s), so all of it would run on the CPU: compile it with "
                "edgetpu_compiler" % tflite_file.EDGE_TPU_OPERATOR
            )
        self._record = _read_record(model)
        self._named = "%s %s" % tflite.import_interpreter()[1:]
        try:
            super(Runner, self).__init__(model, precision, threads, batch, input)
        except (RuntimeError, ValueError, TypeError) as error:
            explained = edgetpu_library.preparing_failure(error, self._named, self._edge_tpu_runtime)
            if explained is None:
                raise
            raise explained

    def _open(self, model, threads):
        # type: (str, int) -> Any
        interpreter_class, name, _ = tflite.import_interpreter()
        self._delegate = edgetpu_library.load(_load_delegate(name), self._options, self._named)
        self._edge_tpu_runtime = edgetpu_library.runtime_version(self._delegate)
        return interpreter_class(model_path=model, num_threads=threads, experimental_delegates=[self._delegate])

    def _resize(self, details, shape):
        # type: (Dict[str, Any], List[int]) -> None
        raise LoadError(
            "the model was compiled for inputs of %s, not %s, and an Edge TPU takes no other: compile it for this batch"
            % ([int(size) for size in details["shape"]], shape)
        )

    def coverage(self):
        # type: () -> Optional[Dict[str, Any]]
        """What the compiler said of this very file where that is known, confirmed by the interpreter; else what the interpreter shows."""
        parts = self._file.edge_tpu_operators
        taken = self._parts_taken()
        if self._record is not None and taken in (parts, None):
            coverage = dict(self._record["coverage"])
        else:
            coverage = _coverage_of_file(self._file, "the operators of the compiled model")
        if taken is not None:
            coverage["source"] += "; %d of %d parts in the delegate of %s" % (taken, parts, self._named)
            if taken != parts:
                coverage.update(on_accelerator=taken, elsewhere=coverage["elsewhere"] + parts - taken, parts=taken)
        return coverage

    def _parts_taken(self):
        # type: () -> Optional[int]
        """How many of the model's parts a delegate has taken; None where the interpreter does not show its nodes."""
        all_nodes = tflite_nodes.nodes(self._interpreter)
        if all_nodes is None:
            return None
        taken = set().union(*tflite_nodes.delegated(all_nodes))
        return tflite_nodes.names(all_nodes, taken).count(tflite_file.EDGE_TPU_OPERATOR)
