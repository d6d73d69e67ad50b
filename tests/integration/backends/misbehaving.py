"""A backend that misbehaves on request: ``source["format"]`` says how. Loaded by the agent through ``--backend``."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NAME = "misbehaving"


def availability(packages):
    return {
        "available": True,
        "can_convert": True,
        "can_run": True,
        "precisions_convert": ["fp32"],
        "precisions_run": ["fp32"],
        "runtime": {"name": "misbehaving", "version": "1"},
        "converter": {},
        "source_formats": [],
        "reason": "",
    }


def _die_of(number):
    def die():
        sys.stderr.write("check failed: the graph has a hole\n")
        os.kill(os.getpid(), number)

    return die


def _read_address_zero():
    ctypes.string_at(0)


def _take_memory():
    held = []
    while len(held) < 40:  # 640 MiB: whoever watches may be held up, and neighbours shall survive that
        held.append(bytearray(b"x" * (16 * 2**20)))
        time.sleep(0.002)
    time.sleep(60)


def _take_memory_in_a_child():
    child = subprocess.Popen([sys.executable, "-c", "import time; held = b'x' * (400 * 2**20); time.sleep(60)"])
    child.wait()


def _raise(error):
    def fail():
        raise error

    return fail


def _print():
    print("printed by Python")
    sys.stdout.flush()
    os.write(1, b"written by C \xff\x00 IGP1\n")
    subprocess.call(["echo", "printed by a child"])
    sys.stdin.read()  # ends at once


def _say_bad_alloc():
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGABRT)


def _hold_the_lock():
    """Sleep in C without releasing the interpreter's lock, so that no other thread runs, beside a child."""
    ctypes.PyDLL(None).sleep(60)


def _start_a_child():
    child = subprocess.Popen(["sleep", "60"])
    Path(os.environ["CHILD_FILE"]).write_text(str(child.pid))
    time.sleep(60)


def _leave_a_child():
    Path(os.environ["CHILD_FILE"]).write_text(str(subprocess.Popen(["sleep", "60"]).pid))


ACTS = {
    "segmentation_fault": _read_address_zero,
    "abort": _die_of(signal.SIGABRT),
    "kill": _die_of(signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "sys_exit": lambda: sys.exit(9),
    "memory": _take_memory,
    "memory_of_child": _take_memory_in_a_child,
    "bad_alloc": _say_bad_alloc,
    "memory_error": _raise(MemoryError()),
    "error": _raise(ValueError("Tensor has 3 dimensions\nbut should have 4\n")),
    "sleep": lambda: time.sleep(60),
    "hold_the_lock": _hold_the_lock,
    "child": _start_a_child,
    "leave_a_child": _leave_a_child,
    "print": _print,
    "close_pipe": lambda: os.closerange(3, 64) or time.sleep(60),
}


def convert(request, progress):
    progress("about to " + request["source"]["format"])
    ACTS[request["source"]["format"]]()
    return {"model": "nothing", "converter": {}}


def runtime():
    return {"name": "misbehaving", "version": "1"}
