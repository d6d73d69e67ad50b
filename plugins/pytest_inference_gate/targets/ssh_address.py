"""Where a board is reached: ``ssh://user@board:port?python=/path``, taken apart and checked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

if TYPE_CHECKING:
    from .bundle_address import BundleAddress

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}\$?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class SshAddress:
    """``user``, ``port`` and ``python`` are None where nothing was said: ssh's own configuration and a search on the board decide."""

    host: str
    user: str | None = None
    port: int | None = None
    python: str | None = None

    @classmethod
    def parse(cls, text: str) -> SshAddress:
        """Raises ``ValueError`` with the end of a sentence that begins with the text."""
        if _CONTROL.search(text) or text != text.strip():
            raise ValueError("holds blanks or control characters")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError("is not ssh://user@board or ssh://user@board:port with a port from 1 to 65535") from None
        if parts.scheme != "ssh" or not parts.netloc:
            raise ValueError("is not ssh://user@board or ssh://user@board:port")
        login, at, place = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        if colon:
            raise ValueError("holds a password: a run cannot be asked for one, so have a key accepted there (ssh-copy-id)")
        if parts.path not in ("", "/") or parts.fragment:
            raise ValueError("names a path, which a board does not have: ssh://user@board or ssh://user@board:port")
        return cls(_host(place), _user(user) if at else None, _port(place, port), _python(parts.query))

    def __str__(self) -> str:
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else self.host
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        port = "" if self.port is None else f":{self.port}"
        python = "" if self.python is None else f"?python={quote(self.python, safe='/')}"
        return f"ssh://{user}{host}{port}{python}"

    @property
    def place(self) -> str:
        """The address without what is chosen on the board: for messages."""
        return str(SshAddress(self.host, self.user, self.port))

    @property
    def arguments(self) -> list[str]:
        """Of ssh: after its options and before the command. Nothing in it is taken for an option."""
        user = [] if self.user is None else ["-l", self.user]
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*user, *port, "--", self.host]

    @property
    def by_hand(self) -> str:
        """The command by which a person goes there."""
        return shlex.join(["ssh", *self._for_hand()])

    @property
    def copy_key(self) -> str:
        """The command by which a person has a key accepted there."""
        return shlex.join(["ssh-copy-id", *self._for_hand()])

    @property
    def known_as(self) -> str:
        """How the file of known hosts calls it."""
        return self.host if self.port in (None, 22) else f"[{self.host}]:{self.port}"

    def _for_hand(self) -> list[str]:
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*port, self.host if self.user is None else f"{self.user}@{self.host}"]


def board_names(addresses: Sequence[SshAddress | BundleAddress]) -> list[str]:
    """Short names that tell the boards apart, fit for the id of a test: the host, with its port where the host alone does not tell."""
    hosts = [address.host for address in addresses]
    names = []
    for address in addresses:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", address.host)
        names.append(name if hosts.count(address.host) == 1 else f"{name}:{address.port or 22}")
    return names


def _host(place: str) -> str:
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        host = unquote(host)
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host or not _IPV6.fullmatch(host):
            raise ValueError("has no address of IPv6 between its brackets")
        return host
    host = place.partition(":")[0]
    if not _HOST.fullmatch(host):
        raise ValueError("has no host name that ssh could take")
    return host


def _user(text: str) -> str:
    user = unquote(text)
    if not _USER.fullmatch(user):
        raise ValueError("has no user name that ssh could take")
    return user


def _port(place: str, port: int | None) -> int | None:
    # A colon with nothing behind it is an unset variable of somebody's shell, and must not become port 22.
    if port == 0 or (port is None and place.endswith(":")):
        raise ValueError("has no port from 1 to 65535 after its colon")
    return port


def _python(query: str) -> str | None:
    if not query:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        pairs = []
    if [name for name, _ in pairs] != ["python"]:
        raise ValueError("says more than ?python=/path/of/a/python, which is all that can be said there")
    python = pairs[0][1]
    if not python or python.startswith("-") or "!" in python or _CONTROL.search(python):
        raise ValueError("names no Python that could be started after ?python=")
    return python
