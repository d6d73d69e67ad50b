"""Reading small files of a tree that stands for /, below a root that may be the copy of another device's. Python 3.6.

What cannot be read is None and never guessed.
"""

import glob
import os
import re
from typing import Any, List, Optional  # noqa: F401

LARGEST_FILE = 1 << 20


def is_here(root):
    # type: (str) -> bool
    """Whether root is this machine and not a copy of another one's files."""
    return os.path.abspath(root) == "/"


def read(root, *parts):
    # type: (str, *str) -> Optional[str]
    """The text of a file without blanks and NULs around it; None if it cannot be read or is empty."""
    content = read_bytes(root, *parts)
    return content.decode("utf-8", "replace").strip("\0 \t\r\n") or None if content is not None else None


def read_bytes(root, *parts, largest=LARGEST_FILE):
    # type: (str, *str, int) -> Optional[bytes]
    """The first bytes of a file, ``largest`` at most; None if it cannot be read."""
    try:
        # Some files of /sys fail while they are read, not when they are opened.
        with open(os.path.join(root, *parts), "rb") as file:
            return file.read(largest)
    except (OSError, ValueError):
        return None


def read_integer(root, *parts):
    # type: (str, *str) -> Optional[int]
    return integer(read(root, *parts))


def integer(text, base=10):
    # type: (Optional[str], int) -> Optional[int]
    try:
        return int(text, base) if text is not None else None
    except ValueError:
        return None


def boolean(text):
    # type: (Optional[str]) -> Optional[bool]
    return None if text not in ("0", "1") else text == "1"


def first_line(text):
    # type: (Optional[str]) -> Optional[str]
    return text.splitlines()[0].strip() if text else None


def exists(root, *parts):
    # type: (str, *str) -> bool
    return os.path.exists(os.path.join(root, *parts))


def find(root, pattern):
    # type: (str, str) -> List[str]
    """Existing paths below root, relative to it, numbers in their natural order."""
    found = glob.glob(os.path.join(glob.escape(root), pattern))
    return sorted((os.path.relpath(path, root) for path in found), key=natural)


def natural(text):
    # type: (str) -> List[Any]
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", text)]
