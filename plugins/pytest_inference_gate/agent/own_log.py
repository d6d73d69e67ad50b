"""What this process prints on file descriptor 2, read back. Native libraries write there past Python's ``sys.stderr``. Python 3.6.

The descriptor stays as it is wherever it is a file, which an agent's log is: what was printed is then read from that file, and nothing
lies between a library and its log, neither while inferences are timed nor when the process dies. Only where it is a pipe (on a board)
the program ``tee`` is put in between, which lives on until the last line has passed.
"""

import os
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any, Optional  # noqa: F401

LARGEST = 16 << 20
PATIENCE_SECONDS = 2.0


class OwnLog:
    """From its making on, :meth:`text` is what was printed since."""

    def __init__(self):
        # type: () -> None
        sys.stderr.flush()
        self._path, self._start, self._marks = "/proc/self/fd/2", 0, 0
        self._tee = None  # type: Optional[subprocess.Popen[bytes]]
        try:
            kind = os.fstat(2)
            if stat.S_ISREG(kind.st_mode):
                with open(self._path, "rb"):
                    self._start = kind.st_size
                return
        except OSError:
            pass
        self._put_tee_between()

    def _put_tee_between(self):
        # type: () -> None
        handle, path = tempfile.mkstemp(prefix="inference-gate-", suffix=".log")
        os.close(handle)
        self._path = ""
        try:
            # Interrupts go to the whole group; the last lines of an agent that is ended so are wanted all the same.
            tee = subprocess.Popen(["tee", "-i", "-a", path], stdin=subprocess.PIPE, stdout=2)
        except OSError:
            os.unlink(path)
            return  # nothing can be read back, and text() says so
        assert tee.stdin is not None
        os.dup2(tee.stdin.fileno(), 2)
        tee.stdin.close()
        self._path, self._tee = path, tee

    @property
    def readable(self):
        # type: () -> bool
        return bool(self._path)

    def text(self):
        # type: () -> str
        """What was printed so far, at most its first 16 MiB; empty where it cannot be read back."""
        sys.stderr.flush()
        if not self._path:
            return ""
        if self._tee is None:
            return self._read()
        # What has not passed through the pipe yet is waited for.
        self._marks += 1
        mark = "(read back %d.%d)" % (os.getpid(), self._marks)
        os.write(2, (mark + "\n").encode("ascii"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        text = self._read()
        while mark not in text and time.monotonic() < deadline:
            time.sleep(0.01)
            text = self._read()
        return text

    def _read(self):
        # type: () -> str
        try:
            with open(self._path, "rb") as stream:
                stream.seek(self._start)
                return stream.read(LARGEST).decode("utf-8", "replace")
        except OSError:
            return ""
