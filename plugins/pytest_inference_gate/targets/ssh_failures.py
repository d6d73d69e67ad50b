"""What ssh prints when it cannot connect, as one sentence with the next step."""

from __future__ import annotations

import re
from collections.abc import Callable

from .ssh_address import SshAddress

_SAYINGS: tuple[tuple[str, Callable[[SshAddress], str]], ...] = (
    # The order matters: a changed key is refused with the words for an unknown one as well.
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        lambda to: (
            f"{to.place} shows another host key than the one that is known: if the board was set up anew, run"
            f" `ssh-keygen -R '{to.known_as}'` and then `{to.by_hand}` once; if not, somebody may be in between"
        ),
    ),
    (
        r"Host key verification failed|host key is known for|authenticity of host",
        lambda to: f"the host key of {to.place} is not known here: run `{to.by_hand}` once and compare its fingerprint",
    ),
    (
        r"Too many authentication failures",
        lambda to: (
            f"{to.place} was offered too many keys: name the right one with IdentityFile and IdentitiesOnly yes in ~/.ssh/config"
        ),
    ),
    (
        r"Permission denied",
        lambda to: (
            f"{to.place} accepts no key of yours, and a run cannot ask for a password: run `{to.copy_key}` once, or load the key"
            " with ssh-add"
        ),
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        lambda to: f"no address is known for {to.host}: correct the name, or give it an entry in ~/.ssh/config",
    ),
    (
        r"Connection refused",
        lambda to: (
            f"nothing answers at {to.place}: start the ssh server there, correct the port, or wait until the board has started"
        ),
    ),
    (
        r"timed out|No route to host|Network is unreachable|Host is down|not responding",
        lambda to: f"{to.place} does not answer: see that the board is on and in reach of `{to.by_hand}`",
    ),
    (
        r"administratively prohibited|This account is|account has expired|Subsystem request failed",
        lambda to: f"{to.place} lets nobody run a command: see that `{to.by_hand} true` works",
    ),
)


def connection_sentence(address: SshAddress, printed: str) -> str:
    """Why no connection came up. ``printed``: what ssh wrote to standard error."""
    for pattern, sentence in _SAYINGS:
        if re.search(pattern, printed, re.IGNORECASE):
            return sentence(address)
    said = last_line(printed)
    because = f" ({said})" if said else ""
    return f"no connection to {address.place}{because}: see that `{address.by_hand} true` works without asking anything"


def last_line(printed: str, longest: int = 200) -> str:
    """The last line with anything on it, on one line and cut."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in printed.splitlines()]
    line = next((line for line in reversed(lines) if line), "")
    return line if len(line) <= longest else line[: longest - 1] + "…"
