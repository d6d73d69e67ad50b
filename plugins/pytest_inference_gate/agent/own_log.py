"""What this process prints on file descriptor 2, read back. Native libraries write there past Python's ``sys.stderr``. Python 3.6.

The descriptor stays as it is wherever it is a file, which an agent's log is: what was printed is then read from that file, and nothing
lies between a library and its log, neither while inferences are timed nor when the process dies. Only where it is a pipe (on a board)
the program ``tee`` is put in between, once in a process, which lives on until the last line has passed.
"""

import os
import stat
import subprocess
import sys
import tempfile
import time
from typing import Optional  # noqa: F401

LARGEST = 16 << 20
PATIENCE_SECONDS = 30.0  # for a tee that gets no processor for a while; what is not read back by then is not known

# Descriptors of what can be read: the log itself, or the file into which tee writes.
_log = None  # type: Optional[int]
_copy = None  # type: Optional[int]
_tee = None  # type: Optional[subprocess.Popen[bytes]]
_marks = 0


class OwnLog:
    """From its making on, :meth:`text` is what was printed since."""

    def __init__(self):
        # type: () -> None
        sys.stderr.flush()
        self._source = _file_of_2()
        if self._source is None:
            self._source = _copy_of_2()
        self._start, self._whole = 0, True
        if self._source is not None:
            self._whole = _wait_for_the_pipe()
            self._start = os.fstat(self._source).st_size

    @property
    def readable(self):
        # type: () -> bool
        """Whether :meth:`text` was all that was printed, as far as that is known: ask after it."""
        return self._source is not None and self._whole

    def text(self):
        # type: () -> str
        """What was printed so far, at most its first 16 MiB; empty where it cannot be read back."""
        sys.stderr.flush()
        if self._source is None:
            return ""
        self._whole = _wait_for_the_pipe() and self._whole
        return os.pread(self._source, LARGEST, self._start).decode("utf-8", "replace")


def _file_of_2():
    # type: () -> Optional[int]
    """A descriptor by which the log can be read; None where descriptor 2 is no file."""
    global _log
    try:
        if _log is None and stat.S_ISREG(os.fstat(2).st_mode):
            _log = os.open("/proc/self/fd/2", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        pass
    return _log


def _copy_of_2():
    # type: () -> Optional[int]
    """Put ``tee`` in between where it is not yet; None where there is no such program."""
    global _copy, _tee
    if _copy is not None:
        return _copy
    handle, path = tempfile.mkstemp(prefix="inference-gate-", suffix=".log")
    try:
        # Interrupts go to the whole group; the last lines of an agent that is ended so are wanted all the same.
        command = ["tee", "-i", "-a", "/dev/fd/%d" % handle]
        _tee = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, pass_fds=(handle,))
    except OSError:
        os.close(handle)
        return None
    finally:
        os.unlink(path)  # it goes with the last who holds it
    assert _tee.stdin is not None
    os.dup2(_tee.stdin.fileno(), 2)
    _tee.stdin.close()
    _copy = handle
    return handle


def _wait_for_the_pipe():
    # type: () -> bool
    """Until all that was printed has reached the copy: by a line of our own, which comes last. False: it did not in time."""
    global _marks
    if _copy is None or _tee is None:
        return True
    _marks += 1
    mark = ("(read back %d.%d)\n" % (os.getpid(), _marks)).encode("ascii")
    before = os.fstat(_copy).st_size  # the mark comes after this, however much other threads print behind it
    try:
        os.write(2, mark)
    except OSError:
        return False  # it has ended
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if mark in os.pread(_copy, LARGEST, before):
            return True
        if _tee.poll() is not None:
            return False
        time.sleep(0.005)
    return False
