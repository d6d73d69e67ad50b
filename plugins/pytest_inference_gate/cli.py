"""The command line ``inference-gate``: what is done beside a pytest run."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence

from . import init_command, published_command
from .baseline_command import commands as baseline_commands
from .bundles import command as bundle_command
from .errors import GateError
from .machine import doctor

USAGE = 2
INTERRUPTED = 130  # what a shell gives a command that was ended by SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 good, 1 something to change, 2 a wrong question."""
    parser = build_parser()
    options, more = parser.parse_known_args(arguments)
    if more and not getattr(options, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    options.more = more
    for stream in (sys.stdout, sys.stderr):
        # What a terminal of another encoding cannot show, and what is no text at all (the arguments of a process), is no reason to end.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except GateError as error:
        sys.stderr.write(f"inference-gate: {error}\n")
        return USAGE
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `| head` does; Python would complain once more when it flushes at exit.
        _drop_output()
        return int(getattr(options, "status_unread", 0))
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        sys.stderr.write(
            f"inference-gate: {error.strerror or type(error).__name__}{place}; correct that and run the command again\n"
        )
        _drop_output()
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _drop_output() -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options. Nothing heavy is imported before one of them runs."""
    parser = argparse.ArgumentParser(
        prog="inference-gate",
        description="Look after the machine and the baselines of pytest-inference-gate. The gate itself is run by pytest: pytest -m cpu.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    init_command.add_parser(commands)
    doctor.add_parser(commands)
    baseline_commands.add_parser(commands)
    bundle_command.add_parser(commands)
    published_command.add_parser(commands)
    return parser
