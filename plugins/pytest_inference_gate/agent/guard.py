"""A second, tiny process beside an agent that was started from another machine.

What the plugin does from the outside for an agent on its own machine has to be done here: ending the agent when nobody listens any
more, even while a framework holds the interpreter's lock; and watching its memory. The guard is forked before any framework is
imported, so it costs a few hundred kilobytes of its own, and it wakes up once a second.
"""

import os
import select
import signal
from typing import Optional, Tuple  # noqa: F401

SECONDS_BETWEEN_LOOKS = 1.0


def start(memory_limit):
    # type: (Optional[int]) -> None
    """Give the agent a session of its own, and fork the guard. Call it before the first thread is started.

    ``memory_limit``: bytes of the agent and all that it starts together, or None.
    """
    try:
        os.setsid()
    except OSError:  # it is the leader of one already
        pass
    agent = os.getpid()
    ended, alive = os.pipe()  # the agent holds the end that is written to, and never writes: the guard sees when it closes
    if os.fork() == 0:
        try:
            os.close(alive)
            _watch(agent, ended, memory_limit)
        finally:
            os._exit(0)
    os.close(ended)


def _watch(agent, ended, memory_limit):
    # type: (int, int, Optional[int]) -> None
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # whoever reads the agent's output must see its end when the agent ends
    os.close(nothing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent_only, both = select.poll(), select.poll()
    agent_only.register(ended, 0)
    both.register(ended, 0)
    both.register(0, getattr(select, "POLLRDHUP", 0x2000))  # nothing is read here: only the hang-up is waited for
    kills = oom_kills()
    while os.getppid() == agent:
        events = dict(both.poll(SECONDS_BETWEEN_LOOKS * 1000))
        if ended in events:
            break
        if 0 in events:  # the agent sees it too, and ends by itself if it can
            agent_only.poll(SECONDS_BETWEEN_LOOKS * 1000)
            break
        held = 0 if memory_limit is None else memory_of_session(agent)
        if memory_limit is not None and held > memory_limit:
            _say(
                "MemoryError: the agent took %s of memory, more than the limit of %s, so it was stopped"
                % (_size(held), _size(memory_limit))
            )
            _kill(agent)
            return
    if kills is not None and (oom_kills() or 0) > kills:
        _say("MemoryError: the system killed a process for memory")
    # The agent where it hangs, and what a converter of it had started.
    _kill(agent)


def _kill(session):
    # type: (int) -> None
    """Kill the agent's group, the guard included."""
    try:
        os.killpg(session, signal.SIGKILL)
    except OSError:
        pass


def _say(sentence):
    # type: (str) -> None
    try:
        os.write(2, (sentence + "\n").encode("utf-8"))
    except OSError:
        pass


def _size(count):
    # type: (int) -> str
    return "%.1f GiB" % (count / 2.0**30) if count >= 2**30 else "%.0f MiB" % (count / 2.0**20)


def oom_kills(path="/proc/vmstat"):
    # type: (str) -> Optional[int]
    """How often the kernel has killed a process for memory; None where it does not say."""
    try:
        with open(path) as stream:
            for line in stream:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def memory_of_session(session, root="/proc"):
    # type: (int, str) -> int
    """Resident bytes of all processes of a session; 0 where that cannot be known."""
    total = 0
    try:
        names = os.listdir(root)
    except OSError:
        return 0
    for name in names:
        if name.isdigit():
            found = _session_and_memory(os.path.join(root, name, "stat"))
            if found is not None and found[0] == session:
                total += found[1]
    return total


def _session_and_memory(path):
    # type: (str) -> Optional[Tuple[int, int]]
    try:
        with open(path, "rb") as stream:
            # The second field is the program's name in brackets, which may hold blanks and brackets itself.
            fields = stream.read().rpartition(b")")[2].split()
        return int(fields[3]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
