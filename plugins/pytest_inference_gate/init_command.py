"""``inference-gate init``: a suite around a user's own model."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .own_model.making import Made

DEFAULT_EVALUATION = 500
DEFAULT_CALIBRATION = 100


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of the command line."""
    parser = subparsers.add_parser(
        "init",
        help="make a suite around a model of your own",
        description="Make a suite around a model of your own: its card, its tests, an environment for tox and a workflow for CI. What the "
        "model and the pictures tell is not asked for: sizes, classes, and, by trying, how pictures are made ready.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help=".keras, .h5, a SavedModel folder, .tflite, .onnx, or .pt/.pth with a state dict",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        help="pictures: a folder with one sub-folder a class, a CSV with file and label, or an .npz",
    )
    parser.add_argument("--into", metavar="DIR", type=Path, default=Path("gate"), help="folder of the suite (default: gate)")
    parser.add_argument("--name", metavar="NAME", help="of the model in the suite (default: from the file's name)")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="names of the classes, one a line, in the order of the outputs"
    )
    parser.add_argument(
        "--shape", metavar="N,N,N", type=_shape, help="of one picture as the model takes it, where its file leaves that open"
    )
    parser.add_argument(
        "--architecture", metavar="FUNCTION", help="of a state dict that is not recognized, such as torchvision.models.resnet18"
    )
    parser.add_argument(
        "--evaluation",
        metavar="N",
        type=_count,
        default=DEFAULT_EVALUATION,
        help=f"pictures at most (default: {DEFAULT_EVALUATION})",
    )
    parser.add_argument(
        "--calibration",
        metavar="N",
        type=_count,
        default=DEFAULT_CALIBRATION,
        help=f"pictures at most (default: {DEFAULT_CALIBRATION})",
    )
    parser.add_argument("--copy", action="store_true", help="copy the model and the chosen pictures into the suite")
    parser.add_argument("--force", action="store_true", help="replace what init has made, unless somebody changed it since")
    parser.add_argument("--run", dest="run_tests", action="store_true", help="run `pytest -m cpu` on the suite at once")
    parser.set_defaults(run=run)


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,5}([,x][1-9][0-9]{0,5}){2}", text):
        raise argparse.ArgumentTypeError(f"expected three numbers, such as 224,224,3, got {text!r}")
    return tuple(int(size) for size in re.split("[,x]", text))


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a whole number from 2 on, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """The command. Raises a ``GateError`` where no suite can be made."""
    from .own_model.making import Request, make_suite

    request = Request(
        model=options.model,
        data=options.data,
        into=options.into,
        name=options.name,
        labels=options.labels,
        shape=options.shape,
        architecture=options.architecture,
        evaluation=options.evaluation,
        calibration=options.calibration,
        copy=options.copy,
        force=options.force,
    )
    with _Progress() as progress:
        made = make_suite(request, progress.show)
    sys.stdout.write("\n".join(_report(made)) + "\n")
    sys.stdout.flush()
    if options.run_tests:
        return subprocess.run([sys.executable, "-m", "pytest", "-m", "cpu"], cwd=made.folder, check=False).returncode
    return 0


def _report(made: Made) -> list[str]:
    lines = [*made.findings, ""]
    for what, paths in (("wrote", made.written.new), ("replaced", made.written.replaced), ("unchanged", made.written.same)):
        if paths:
            lines.append(f"{what} in {made.folder}: {', '.join(_grouped(paths))}")
    lines += [f"check this: {doubt}" for doubt in made.doubts]
    lines += [f"note: {note}" for note in made.notes]
    there = [f"  cd {shlex.quote(str(made.folder))}"] if made.folder.resolve() != Path.cwd() else []
    return [*lines, "", "Next:", *there, "  pytest -m cpu"]


def _grouped(paths: Sequence[str]) -> list[str]:
    """The paths; of many files in one model's own folder, only how many there are."""
    folders = Counter("/".join(path.split("/")[:2]) for path in paths if path.count("/") >= 2)
    many = {folder: count for folder, count in folders.items() if count > 4}
    single = [path for path in paths if "/".join(path.split("/")[:2]) not in many]
    return [f"{folder}/ ({count} files)" for folder, count in many.items()] + single


class _Progress:
    """On a terminal one line that is written over again and again; else nothing, for nobody watches."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def show(self, text: str) -> None:
        if self._live:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.show("")
