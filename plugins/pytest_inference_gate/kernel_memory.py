"""How often the kernel killed a process for memory, as its own counters say."""

from __future__ import annotations

import re
from pathlib import Path


def oom_kills(root: Path = Path("/")) -> tuple[int, ...]:
    """Counts of kills for memory: of the machine, and of this process's control group (version 2 and 1), those that can be read.

    Taken before and after, a difference says that some process was killed for memory in between. ``root`` stands for ``/``.
    """
    counters = [_counter(root / "proc/vmstat")]
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        groups = []
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        counter = _counter(mount / path.lstrip("/") / name)
        if counter is None:  # in a container the path is that of the host, and the group is the root of the mount
            counter = _counter(mount / name)
        counters.append(counter)
    return tuple(counter for counter in counters if counter is not None)


def _counter(path: Path) -> int | None:
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None
