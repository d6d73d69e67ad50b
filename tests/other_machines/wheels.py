"""Wheels for a Python that is not this one, unpacked into folders: nothing is installed, and no code of theirs runs here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

DONE = ".complete"


class CannotPrepare(Exception):
    """Something that a test needs cannot be had here; the message says what, and is the reason for which the test is skipped."""


def unpacked(folder: Path, requirements: Sequence[str], python_version: str, platforms: Sequence[str]) -> Path:
    """``folder`` with these wheels in it, to be put on ``PYTHONPATH``; fetched where they are not there yet.

    Dependencies are not followed: what is needed is named. Raises :class:`CannotPrepare` where the index has no such wheel, or is none.
    """
    done = folder / DONE
    wanted = "\n".join([*requirements, python_version])
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    fetched = folder / ".wheels"
    fetched.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={fetched}"]
    command += [f"--platform={platform}" for platform in platforms]
    command += ["--implementation=cp", f"--python-version={python_version}", *requirements]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CannotPrepare(f"pip could not fetch {', '.join(requirements)} for Python {python_version}: {last}")
    for wheel in sorted(fetched.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    shutil.rmtree(fetched)
    done.write_text(wanted, encoding="utf-8")
    return folder
