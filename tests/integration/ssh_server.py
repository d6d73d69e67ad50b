"""A board for tests: a real sshd on loopback, run by this user, with keys, configuration, home directory and Pythons of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PLACES_OF_SSHD = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/sbin")


def find_sshd() -> str:
    """Skips the test where there is none, or no ssh to reach it with."""
    for program in ("ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here: install the OpenSSH client to run this test")
    sshd = shutil.which("sshd") or shutil.which("sshd", path=os.pathsep.join(PLACES_OF_SSHD))
    if sshd is None:
        pytest.skip("there is no sshd here: install the OpenSSH server to run this test (it need not be running)")
    return sshd


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class LoopbackBoard:
    """``folder`` should have a short path. ``shell`` is run for each command, in an environment with nothing but HOME and PATH.

    ``before`` is a line of shell that is run before each command, such as ``ulimit -f 100``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.programs = folder / "bin"
        self.user = getpass.getuser()
        self.port = free_port()
        self._sshd = find_sshd()
        self._server: subprocess.Popen[bytes] | None = None
        self._started = False
        self._token = secrets.token_hex(8)  # by which it knows itself from another that has its port
        self.home.mkdir()
        self.programs.mkdir()
        self.python("python3", f'exec {shlex.quote(sys.executable)} "$@"')
        self.before("")
        self._keys()
        self._configure()

    # ---------------------------------------------------------------- what the board is like

    def python(self, name: str, script: str) -> str:
        """A program of that name on the board's PATH; returns its path."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def before(self, line: str, home: Path | None = None) -> None:
        (self.folder / "before").write_text(f"{line}\n")
        (self.folder / "shell").write_text(
            "#!/bin/sh\n"
            f". {self.folder}/before\n"
            f"cd {home or self.home}\n"
            f'exec env -i HOME={home or self.home} PATH={self.programs}:/usr/bin:/bin /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        (self.folder / "shell").chmod(0o755)

    def _keys(self) -> None:
        for name in ("host", "host2", "mine", "other"):
            self._generate(name)
        shutil.copy(self.folder / "mine.pub", self.folder / "authorized")
        self.know("host")

    def _generate(self, name: str) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def know(self, name: str | None) -> None:
        """Let the client know the host by this key, or not at all."""
        known = self.folder / "known"
        if name is None:
            known.write_text("")
            return
        kind, key = (self.folder / f"{name}.pub").read_text().split()[:2]
        known.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def use_key(self, name: str, *more: str) -> None:
        lines = [
            "Host *",
            f"  UserKnownHostsFile {self.folder}/known",
            "  GlobalKnownHostsFile /dev/null",
            f"  IdentityFile {self.folder}/{name}",
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
            *(f"  {line}" for line in more),
        ]
        (self.folder / "client").write_text("\n".join(lines) + "\n")

    def _configure(self) -> None:
        self.use_key("mine")
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PubkeyAuthentication yes",
            "PermitRootLogin prohibit-password",
            f"VersionAddendum {self._token}",
            "PrintMotd no",
            "PrintLastLog no",
            f"ForceCommand {self.folder}/shell",
        ]
        (self.folder / "server").write_text("\n".join(lines) + "\n")
        check = subprocess.run([self._sshd, "-t", "-f", str(self.folder / "server")], capture_output=True, text=True, check=False)
        if check.returncode:
            pytest.skip(f"sshd cannot be run by this user here: {check.stderr.strip() or check.returncode}")

    # ---------------------------------------------------------------- switching it on and off

    def start(self) -> None:
        for _ in range(5):
            if self._came_up():
                self._started = True
                return
            self.stop()
            if self._started or "in use" not in (self.folder / "server.log").read_text():
                break
            # Somebody took the port since it was found to be free, and nobody was told of it yet.
            self.port = free_port()
            self.know("host")
            self._configure()
        pytest.skip(f"sshd does not come up here: {(self.folder / 'server.log').read_text()[-300:]}")

    def _came_up(self) -> bool:
        with (self.folder / "server.log").open("ab") as log:
            command = [self._sshd, "-D", "-e", "-f", str(self.folder / "server")]
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10) as connection:
                if self._token.encode() in connection.makefile("rb").readline():
                    return True
            time.sleep(0.05)
        return False

    def connections(self) -> list[psutil.Process]:
        """The processes of sshd that serve somebody."""
        if self._server is None or self._server.poll() is not None:
            return []
        children = psutil.Process(self._server.pid).children(recursive=True)
        return [child for child in children if name_of(child).startswith("sshd")]

    def processes(self) -> list[psutil.Process]:
        """What runs on the board, sshd's own processes aside: all that has its home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def cut(self) -> None:
        """Kill every connection, as a network that goes away does; new ones are taken."""
        for process in self.connections():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Switch it off."""
        connections = self.connections()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        for process in connections:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    # ---------------------------------------------------------------- reaching it

    @property
    def url(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "INFERENCE_GATE_SSH": f"ssh -F {self.folder / 'client'}"}

    @property
    def files(self) -> Path:
        return self.home / ".cache" / "inference-gate" / "board" / "files"

    def kept(self) -> set[str]:
        """Names of the files that it keeps."""
        return {path.name for path in self.files.glob("[0-9a-f]*/*")}


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
