"""A Python for aarch64 that runs here, in qemu's emulation of a processor for single programs.

``qemu-aarch64 -L SYSROOT`` looks for every file below SYSROOT first. What lies there are Debian's packages for arm64, unpacked and not
installed, and the few lines of /proc by which a runtime knows an Arm processor. The kernel is this machine's own, and so are its devices:
what runs here shows that code works on another instruction set, and nothing about its speed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wheels import DONE, CannotPrepare, unpacked

EMULATOR = "qemu-aarch64"
PYTHON = "usr/bin/python3.11"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
MIRROR = "http://deb.debian.org/debian bookworm main"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

PYTHON_VERSION = "3.11"
PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in (34, 28, 27, 17)), "manylinux2014_aarch64")
RUNTIMES = {
    "ai_edge_litert": ("ai-edge-litert==2.3.0", "numpy==1.26.4"),
    "tflite_runtime": ("tflite-runtime==2.14.0", "numpy==1.26.4"),
    "none": ("numpy==1.26.4",),
}

# What qemu calls it, and what the kernel of a board with it shows as its part: Jetson Nano, Raspberry Pi 4, and 5.
PROCESSORS = {"cortex-a57": 0xD07, "cortex-a72": 0xD08, "cortex-a76": 0xD0B}


@dataclass(frozen=True)
class Aarch64Python:
    """An interpreter to start: ``path`` is a program that passes on its arguments. ``runtime`` is a key of :data:`RUNTIMES`."""

    path: Path
    processor: str
    runtime: str


def prepare(folder: Path, processor: str, runtime: str) -> Aarch64Python:
    """The Python with one runtime on one processor, made in ``folder`` where it is not there yet; some 16 MB of packages are fetched.

    Raises :class:`CannotPrepare` with the reason where that is not possible here.
    """
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise CannotPrepare(f"{EMULATOR} is not on the PATH: on Debian, apt-get install qemu-user brings it")
    sysroot = _sysroot(folder / "sysroot")
    site = unpacked(folder / f"site-{runtime}", RUNTIMES[runtime], PYTHON_VERSION, PLATFORMS)
    own = folder / f"sysroot-{processor}"
    if not (own / "usr").exists():
        own.mkdir(exist_ok=True)
        for entry in sysroot.iterdir():
            if not entry.name.startswith("."):
                (own / entry.name).symlink_to(entry)
    # Without them LiteRT's look at the processor ends in a segmentation fault: it takes the x86 kernel's own lines.
    (own / "proc").mkdir(exist_ok=True)
    (own / "proc" / "cpuinfo").write_text(_cpuinfo(PROCESSORS[processor]), encoding="ascii")
    program = folder / f"python-{processor}-{runtime}"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{site}" exec "{emulator}" -cpu {processor} -L "{own}" "{sysroot / PYTHON}" "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return Aarch64Python(program, processor, runtime)


def _cpuinfo(part: int) -> str:
    lines = (
        "BogoMIPS\t: 125.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {part:#05x}\nCPU revision\t: 0\n"
    )
    return "\n".join(f"processor\t: {number}\n{lines}" for number in range(os.cpu_count() or 1))


def _sysroot(folder: Path) -> Path:
    """Debian's packages for arm64, with all that they need, unpacked. apt keeps its lists and files below ``folder`` too."""
    if (folder / DONE).is_file():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None or not KEYS.is_file():
        raise CannotPrepare("a Python for aarch64 is taken from Debian's packages, and this is no Debian")
    shutil.rmtree(folder, ignore_errors=True)
    state = folder / ".apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()  # nothing is installed
    (state / "sources.list").write_text(f"deb [arch=arm64 signed-by={KEYS}] {MIRROR}\n", encoding="utf-8")
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in settings.items())]
    _run([*apt, "update"])
    _run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *PACKAGES])
    for package in sorted((state / "cache" / "archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(folder)])
    shutil.rmtree(state)
    (folder / DONE).touch()
    return folder


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CannotPrepare(f"a Python for aarch64 cannot be fetched: {Path(command[0]).name} says {last}")
