"""``inference-gate bundle``: measuring a board that nobody can reach, by an archive that goes there and one that comes back."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .export import DEFAULT_REPLICATES, BundleError, BundleRequest

if TYPE_CHECKING:
    import pytest


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of the command line."""
    parser = subparsers.add_parser(
        "bundle",
        help="measure on a board that cannot be reached, by archives",
        description="Measure on a board that cannot be reached: one archive goes there, one comes back.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    one = actions.add_parser(
        "export",
        help="write the archive for the board",
        description="Convert the selected cases here and write one archive; `python3 FILE.zip` on the board measures them.",
        epilog="All further arguments are pytest's, such as -m cpu, --gate-select or --gate-rounds.",
    )
    one.add_argument("file", metavar="FILE.zip", type=Path, help="the archive to write")
    one.add_argument(
        "--replicates",
        type=_count,
        default=DEFAULT_REPLICATES,
        metavar="N",
        help=f"fresh processes that are measured for each case (default: {DEFAULT_REPLICATES}); more cannot be had later",
    )
    one.set_defaults(run=export, takes_more=True)

    one = actions.add_parser(
        "import",
        help="judge what the board has measured",
        description="Judge what a bundle has measured on its board, as if it had been reached by ssh.",
        epilog="All further arguments are pytest's; --gate-models must name what it named for the export.",
    )
    one.add_argument("file", metavar="RESULTS.zip", type=Path, help="the archive that the bundle wrote on the board")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--save", metavar="NAME", help="record a baseline of the board")
    what.add_argument("--compare", nargs="?", const="", metavar="SESSION", help="compare with the board's baseline")
    one.set_defaults(run=import_results, takes_more=True)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 9999")
    return int(text)


class Export:
    """A plugin of pytest that has the gate write a bundle instead of measuring, and runs no test."""

    def __init__(self, request: BundleRequest) -> None:
        self.request = request

    def pytest_runtestloop(self) -> bool:
        """The gate has prepared the cases by now; pytest shall think that the tests are done."""
        return True


def export(options: argparse.Namespace) -> int:
    import pytest

    path: Path = options.file.absolute()
    if path.suffix != ".zip":
        raise BundleError(f"the bundle is a zip, and Python on the board knows it by that: name it {path.name}.zip")
    if path.is_dir():
        raise BundleError(f"{path} is a directory: name a file in it")
    before = _state_of(path)
    status = _status(
        pytest.main(["-p", "no:cacheprovider", *options.more], plugins=[Export(BundleRequest(path, options.replicates))])
    )
    if status == 0 and _state_of(path) == before:
        raise BundleError(f"no test of the gate was selected, so {path.name} was not written: name tests that take cases")
    return status


def _state_of(path: Path) -> tuple[int, int] | None:
    """Another one after each time that the file was written; ``None`` where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def import_results(options: argparse.Namespace) -> int:
    import pytest

    from .results import read_results

    results = read_results(options.file.absolute())
    results.close()
    arguments = [f"--gate-target=bundle:{options.file.absolute()}"]
    if not any(argument.startswith("--gate-select") for argument in options.more):
        # What could not be exported is judged as well: a model that a converter takes no more is broken, and not just absent.
        arguments += [f"--gate-select={case_id}" for case_id in (*results.cases, *results.left_out)]
    if options.save is not None:
        arguments.append(f"--benchmark-save={options.save}")
    if options.compare is not None:
        arguments.append(f"--benchmark-compare={options.compare}" if options.compare else "--benchmark-compare")
    sys.stdout.flush()
    return _status(pytest.main([*arguments, *options.more]))


def _status(status: int | pytest.ExitCode) -> int:
    return int(status)
