"""Runs a bundle on a board that nobody can reach: ``python3 FILE.zip`` there, with nothing installed but NumPy and the board's runtimes.

A bundle is a zip that Python runs by itself. It holds the agent, the models, their inputs and ``plan.json``; what is done with them is
what the plugin does over ssh: the probe, then the builds of what only this board can build, then the predictions of each case, then
replicates in fresh agents, all cases in random order in each pass, with the canary between passes. Each reply is written to ``FILE.work/``
at once, flushed and renamed, so that a run that was killed goes on where it ended. At its end one archive, ``FILE.results.zip``, goes back
to the host, which judges.

Python 3.6, standard library only.
"""

import argparse
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple  # noqa: F401

from .failures import speaks_of_memory
from .protocol import VERSION, FrameDecoder, ProtocolError, encode_frame
from .telemetry import REPLICATES_WITH_TELEMETRY, telemetry_wish

SCHEMA = "inference-gate-bundle/1"
RESULTS_SCHEMA = "inference-gate-bundle-results/1"
PLAN, RESULTS, DIGEST = "plan.json", "results.json", "results.sha256"

SECONDS_BETWEEN_READINGS = 3.0
SECONDS_TO_STOP = 5.0
LOG_TAIL_BYTES = 64 * 1024
BLOCK = 2**18
USAGE, INTERRUPTED = 2, 130
DOING = {"load": "loading the model", "predict": "predicting", "measure": "measuring", "convert": "converting", None: "starting"}

Facts = Dict[str, Any]


class Stop(Exception):
    """Why the run ends here; one sentence with the next step."""


class Failed(Exception):
    """How a stage of a case ended, as it is written down for the host."""

    def __init__(self, kind, stage, message, signal_name=None):
        # type: (str, Optional[str], str, Optional[str]) -> None
        super().__init__(message)
        self.failure = {"kind": kind, "stage": stage, "message": message, "signal": signal_name}


# Files


def predictions_suffix(case):
    # type: (Facts) -> str
    """Of a detector all outputs are kept, which takes a file of several arrays."""
    return ".npz" if case["load"].get("task") == "detection" else ".npy"


def digest_of(path):
    # type: (str) -> str
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def write(path, data):
    # type: (str, bytes) -> None
    """In full or not at all, also where the power goes off."""
    temporary = path + ".tmp"
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    flush_folder(os.path.dirname(path))


def flush_folder(path):
    # type: (str) -> None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems of USB sticks cannot
        pass
    finally:
        os.close(descriptor)


def write_json(path, value):
    # type: (str, Any) -> None
    write(path, json.dumps(value).encode("utf-8"))


def read_json(path):
    # type: (str) -> Any
    """None where it is not there, or was not written by us."""
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError):
        return None


def is_safe(name):
    # type: (str) -> bool
    return not name.startswith("/") and "\\" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def read_plan(archive, path):
    # type: (zipfile.ZipFile, str) -> Tuple[Facts, bytes]
    try:
        content = archive.read(PLAN)
        plan = json.loads(content.decode("utf-8"))  # type: Facts
        schema, files = plan["schema"], plan["files"]
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError):
        raise Stop("%s is no whole bundle: copy it here once more" % path)
    if schema != SCHEMA:
        raise Stop("%s is a bundle of another release (%s): export it again" % (path, schema))
    if not all(is_safe(name) for name in files):
        raise Stop("%s names files outside of its own folder: do not use it" % path)
    return plan, content


def unpack(archive, plan, path, folder):
    # type: (zipfile.ZipFile, Facts, str, str) -> None
    """All files that the plan names, each as the plan says; what is there already is only checked."""
    for name, told in sorted(plan["files"].items()):
        target = os.path.join(folder, *name.split("/"))
        if os.path.isfile(target) and os.path.getsize(target) == told["size"] and digest_of(target) == told["sha256"]:
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        digest, size = hashlib.sha256(), 0
        try:
            with archive.open(name) as source, open(target + ".tmp", "wb") as stream:
                for block in iter(lambda: source.read(BLOCK), b""):  # noqa: B023
                    size += len(block)
                    if size > told["size"]:
                        break
                    digest.update(block)
                    stream.write(block)
        except (KeyError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
            raise Stop("%s is damaged (%s: %s): copy it here once more" % (path, name, error))
        if digest.hexdigest() != told["sha256"] or size != told["size"]:
            raise Stop("%s is damaged or was changed (%s is not what the plan says): copy it here once more" % (path, name))
        os.replace(target + ".tmp", target)


def files_of(folder):
    # type: (str) -> Dict[str, str]
    """The digest of each file below a folder, by its path in it."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, folder).replace(os.sep, "/")] = digest_of(path)
    return found


def flush_files(folder):
    # type: (str) -> None
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as stream:
                os.fsync(stream.fileno())
        flush_folder(parent)


def placed(request, files):
    # type: (Facts, str) -> Facts
    """A ``convert`` of the plan, with the paths that its files have here."""
    source = request["source"]
    here = [None if path is None else os.path.join(files, path) for path in (source["path"], request["calibration"])]
    return dict(request, source=dict(source, path=here[0]), calibration=here[1])


# Agents


class Agent:
    """A fresh agent process; leaving its context ends it. :class:`Failed` says how it died, or what it could not do."""

    def __init__(self, runner, log_name):
        # type: (Runner, str) -> None
        self._seconds = runner.plan["seconds"]
        self._log = os.path.join(runner.logs, log_name + ".log")
        self._decoder = FrameDecoder()
        self._number = 0
        limit = runner.plan.get("memory_limit")
        command = [sys.executable, "-u", "-X", "faulthandler", os.path.join(runner.files, "agent", "__main__.py"), "--guard"]
        command += ["--memory-limit", str(limit)] if limit else []
        for name, path in sorted(runner.plan["backends"].items()):
            command += ["--backend", "%s=%s" % (name, os.path.join(runner.files, path))]
        with open(self._log, "ab") as stream:
            self._log_start = stream.tell()
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, bufsize=0)
        try:
            hello = self._receive(None, 60.0)
        except BaseException:
            self._end()
            raise
        if hello.get("event") != "hello" or hello.get("protocol") != VERSION:
            self._end()
            raise Failed("load_error", None, "the agent did not greet as an agent does; see %s" % self._log)

    def ask(self, verb, arguments, progress=None):
        # type: (str, Facts, Optional[Callable[[str], None]]) -> Facts
        stage = verb if verb in DOING else None  # type: Optional[str]
        self._number += 1
        seconds = float(self._seconds.get(verb, 60.0))
        deadline = time.monotonic() + seconds
        try:
            frame = encode_frame({"id": self._number, "verb": verb, "arguments": arguments})
            try:
                while frame:
                    frame = frame[self._process.stdin.write(frame) :]  # type: ignore[union-attr]
            except BrokenPipeError:
                self._died(stage)
            while True:
                left = deadline - time.monotonic()
                reply = self._receive(stage, seconds, max(0.0, left))
                if reply.get("event") != "progress":
                    break
                if progress is not None:
                    progress(str(reply.get("message", "")))
        except BaseException:
            self._end()
            raise
        if not reply.get("ok"):
            error = reply.get("error") or {}
            raise Failed(error.get("kind", "run_error"), stage, error.get("message", "the agent gave no reason"))
        result = reply["result"]  # type: Facts
        return result

    def _receive(self, stage, seconds, left=None):
        # type: (Optional[str], float, Optional[float]) -> Facts
        """``left`` of the ``seconds`` that the request has; None where it has just begun."""
        try:
            return self._next_message(stage, seconds, time.monotonic() + (seconds if left is None else left))
        except ProtocolError as error:
            raise Failed("crash", stage, "the agent does not speak the protocol while %s: %s" % (DOING[stage], error))

    def _next_message(self, stage, seconds, deadline):
        # type: (Optional[str], float, float) -> Facts
        output, late = self._process.stdout, False
        assert output is not None
        while True:
            message = self._decoder.next_message()
            if message is not None:
                return message
            left = deadline - time.monotonic()
            # What came in time counts, even where this process was held up: one more look.
            if left <= 0 and (late or not select.select([output], [], [], 0.0)[0]):
                text = "%s took longer than %g s, so the agent was stopped" % (DOING[stage], seconds)
                raise Failed("timeout", stage, text)
            late = left <= 0
            if select.select([output], [], [], max(0.0, left))[0]:
                data = os.read(output.fileno(), 65536)
                if not data:
                    self._died(stage)
                self._decoder.feed(data)

    def _died(self, stage):
        # type: (Optional[str]) -> None
        try:
            status = self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._end()
            status = -signal.SIGKILL
        tail = self._tail()
        kind = "oom" if speaks_of_memory(tail) else "crash"
        lines = [line.strip() for line in tail.partition("Fatal Python error: ")[0].splitlines() if line.strip()]
        words = "; it printed last: %s" % " / ".join(line[:200] for line in lines[-2:]) if lines else ""
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = "signal %d" % -status
            raise Failed(kind, stage, "the agent died of %s while %s%s" % (name, DOING[stage], words), name)
        raise Failed(kind, stage, "the agent left with the exit status %d while %s%s" % (status, DOING[stage], words))

    def _tail(self):
        # type: () -> str
        try:
            with open(self._log, "rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._log_start, end - LOG_TAIL_BYTES))
                return stream.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def _end(self):
        # type: () -> None
        """The guard, and what a runtime has started, are in the agent's own session."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except OSError:  # it had not made its session yet
                self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self):
        # type: () -> Agent
        return self

    def __exit__(self, *details):
        # type: (Any) -> None
        if self._process.poll() is None and details[0] is None:
            try:
                self._process.stdin.write(encode_frame({"id": 0, "verb": "stop", "arguments": {}}))  # type: ignore[union-attr]
                self._process.wait(SECONDS_TO_STOP)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                pass
        self._end()


# The run


class Runner:
    def __init__(self, plan, content, work, say):
        # type: (Facts, bytes, str, Callable[[str], None]) -> None
        self.plan = plan
        self.bundle = hashlib.sha256(content).hexdigest()
        self.work = work
        self.files = os.path.join(work, "files")
        self.logs = os.path.join(work, "logs")
        self.done = os.path.join(work, "done")
        self.content = content
        self._say = say
        self._read_at = None  # type: Optional[float]

    def _record(self, name):
        # type: (str) -> str
        return os.path.join(self.done, name + ".json")

    def _case_name(self, number):
        # type: (int) -> str
        return "case-%04d" % number

    def _build_name(self, number):
        # type: (int) -> str
        return "build-%04d" % number

    def execute(self):
        # type: () -> None
        probe = self._probe()
        runnable = []  # type: List[Tuple[int, Facts]]
        for number, case in enumerate(self.plan["cases"]):
            reason = why_not(probe, case)
            if reason:
                self._say("%s: not run here: %s" % (case["id"], reason))
            else:
                runnable.append((number, case))
        if not runnable:
            raise Stop("none of the %d cases runs here, so nothing was measured" % len(self.plan["cases"]))
        self._build_all([case for _, case in runnable])
        for place, (number, case) in enumerate(runnable, 1):
            if case["accuracy"]:
                self._predict(number, case, "predicting %d of %d" % (place, len(runnable)))
        self._measure([(number, case) for number, case in runnable if case["latency"]], probe)

    def _probe(self):
        # type: () -> Facts
        """What is here now; it must be what was here when the first measurement was taken."""
        with Agent(self, "probe") as agent:
            probe = agent.ask("probe", {})
        before = read_json(self._record("probe"))
        measured = any(name.startswith(("case-", "build-")) and name.endswith(".json") for name in os.listdir(self.done))
        if measured and before is not None and software_of(before) != software_of(probe):
            raise Stop(
                "the software of this board changed since the first part was measured: remove %s and begin anew" % self.work
            )
        write_json(self._record("probe"), probe)
        return probe

    def _failure(self, number):
        # type: (int) -> Any
        """Why a case is not gone on with: its own failure, or that of the build of its model."""
        built = self._build_number(self.plan["cases"][number])
        return read_json(self._record(self._case_name(number) + "-failure")) or (
            None if built is None else read_json(self._record(self._build_name(built) + "-failure"))
        )

    def _attempt(self, name, act):
        # type: (str, Callable[[], str]) -> str
        """What ``act`` says of its end. The first failure of a case, or of a build, is its last: it is not tried again."""
        try:
            return act()
        except Failed as failure:
            text = failure.failure["message"] or ""
            if "No space left on device" in text or "File too large" in text or "Disk quota exceeded" in text:
                raise OSError(errno.ENOSPC, text)
            write_json(self._record(name + "-failure"), failure.failure)
            return "%s: %s" % (failure.failure["kind"], text)

    def _arguments(self, case):
        # type: (Facts) -> Facts
        built = self._build_number(case)
        if built is None:
            return dict(case["load"], model=os.path.join(self.files, case["load"]["model"]))
        record = read_json(self._record(self._build_name(built)))
        return dict(case["load"], model=os.path.join(self.done, self._build_name(built), record["convert"]["model"]))

    # What is built here

    def _build_number(self, case):
        # type: (Facts) -> Optional[int]
        names = [build["name"] for build in self.plan["builds"]]
        return names.index(case["build"]) if case["build"] is not None else None

    def _build_all(self, cases):
        # type: (List[Facts]) -> None
        """One by one, and before anything is measured: a builder times kernels in order to choose among them."""
        wanted = sorted({number for number in (self._build_number(case) for case in cases) if number is not None})
        for place, number in enumerate(wanted, 1):
            self._build(number, "building %d of %d" % (place, len(wanted)))

    def _build(self, number, what):
        # type: (int, str) -> None
        build, name = self.plan["builds"][number], self._build_name(number)
        folder, record = os.path.join(self.done, name), read_json(self._record(name))
        what = "%s: %s" % (what, build["name"])
        if record is not None:
            if files_of(folder) != record["files"]:
                raise Stop("%s is not what was built there: remove %s and begin anew" % (folder, self.work))
            return
        if read_json(self._record(name + "-failure")) is not None:
            return

        def act():
            # type: () -> str
            for left in (folder, folder + ".tmp"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            os.makedirs(folder + ".tmp")
            with Agent(self, name) as agent:
                request = dict(placed(build["convert"], self.files), output_directory=folder + ".tmp")
                reply = agent.ask("convert", request, lambda text: self._say("%s: %s" % (what, text)))
            flush_files(folder + ".tmp")
            os.rename(folder + ".tmp", folder)
            flush_folder(self.done)
            write_json(self._record(name), {"convert": reply, "files": files_of(folder)})
            return "built in %.1f s" % reply["seconds"]

        self._say("%s: %s" % (what, self._attempt(name, act)))

    def _predicted(self, number, case):
        # type: (int, Facts) -> Any
        """The record of what was predicted; None where that is not there as it was written, such as after a power cut."""
        name = self._case_name(number)
        found, record = os.path.join(self.done, name + predictions_suffix(case)), read_json(self._record(name + "-predict"))
        return record if record is not None and os.path.isfile(found) and digest_of(found) == record["sha256"] else None

    def _predict(self, number, case, what):
        # type: (int, Facts, str) -> None
        name = self._case_name(number)
        found = os.path.join(self.done, name + predictions_suffix(case))
        if self._predicted(number, case) is not None or self._failure(number) is not None:
            return

        def act():
            # type: () -> str
            suffix = predictions_suffix(case)
            with Agent(self, name + "-predict") as agent:
                loaded = agent.ask("load", self._arguments(case))
                wish = {"inputs": os.path.join(self.files, case["inputs"]), "outputs": found + ".tmp" + suffix}  # type: Facts
                if suffix == ".npz":
                    wish["all_outputs"] = True
                reply = agent.ask("predict", wish)
            with open(wish["outputs"], "rb+") as stream:
                os.fsync(stream.fileno())  # before its record, which says that it is there
            os.replace(wish["outputs"], found)
            record = {"load": loaded, "predict": reply, "sha256": digest_of(found)}
            write_json(self._record(name + "-predict"), record)
            return "%d samples in %.1f s" % (reply["count"], reply["seconds"])

        self._say("%s: %s: %s" % (what, case["id"], self._attempt(name, act)))

    def _measure(self, cases, probe):
        # type: (List[Tuple[int, Facts]], Facts) -> None
        wanted = int(self.plan["replicates"])
        facts = probe.get("device") or {}
        missing = sum(1 for number, _ in cases for one in range(wanted) if not self._measured(number, one))
        if not missing:
            return
        order, taken, begun = random.Random(self.plan["seed"]), 0, time.monotonic()
        for replicate in range(wanted):
            ordered = list(cases)
            order.shuffle(ordered)
            ordered = [one for one in ordered if not self._measured(one[0], replicate)]
            if ordered:
                self._read_canary(now=False)
            for number, case in ordered:
                if self._failure(number) is not None:
                    missing -= 1
                    continue
                left = (missing - taken) * (time.monotonic() - begun) / taken if taken else None
                name = self._case_name(number)
                said = self._attempt(name, lambda: self._measure_once(number, replicate, case, facts))  # noqa: B023
                taken += 1
                about = "" if left is None else ", about %s left" % in_words(left)
                self._say("measured %d of %d%s: %s: %s" % (taken, missing, about, case["id"], said))
        self._read_canary(now=True)

    def _measured(self, number, replicate):
        # type: (int, int) -> bool
        return read_json(self._record("%s-%04d" % (self._case_name(number), replicate))) is not None

    def _measure_once(self, number, replicate, case, facts):
        # type: (int, int, Facts, Facts) -> str
        name = "%s-%04d" % (self._case_name(number), replicate)
        with Agent(self, name) as agent:
            loaded = agent.ask("load", self._arguments(case))
            wish = dict(self.plan["measure"], inputs=os.path.join(self.files, case["inputs"]))
            if case["pictures"] > 1:
                wish["pictures"] = case["pictures"]
            if replicate < REPLICATES_WITH_TELEMETRY:
                telemetry = telemetry_wish(facts, str(case["load"].get("device")))
                wish.update({} if telemetry is None else {"telemetry": telemetry})
            measured = agent.ask("measure", wish)
        write_json(self._record(name), {"load": loaded, "measure": measured})
        rounds = sorted(measured["rounds"])
        return "%.4g ms" % (1000 * rounds[len(rounds) // 2])

    def _read_canary(self, now):
        # type: (bool) -> None
        """Between passes, and unless ``now``, not more often than every few seconds."""
        if not now and self._read_at is not None and time.monotonic() - self._read_at < SECONDS_BETWEEN_READINGS:
            return
        try:
            with Agent(self, "canary") as agent:
                reading = agent.ask("canary", {})
        except Failed as failure:
            self._say("the machine's condition was not read: %s" % failure)
            return
        self._read_at = time.monotonic()
        number = len([name for name in os.listdir(self.done) if name.startswith("canary-") and name.endswith(".json")])
        write_json(self._record("canary-%06d" % number), reading)

    # The results

    def _all_of(self, beginning):
        # type: (str) -> List[Any]
        """The records whose names begin so, without those that a power cut has damaged."""
        names = [name for name in sorted(os.listdir(self.done)) if name.startswith(beginning) and name.endswith(".json")]
        return [record for record in (read_json(os.path.join(self.done, name)) for name in names) if record is not None]

    def collect(self, destination):
        # type: (str) -> None
        """One archive of all that was found out, whole or not at all."""
        names = sorted(os.listdir(self.done))
        cases = {}  # type: Facts
        members = {}  # type: Dict[str, str]
        for number, case in enumerate(self.plan["cases"]):
            name = self._case_name(number)
            predicted = self._predicted(number, case)
            if predicted is not None:
                suffix = predictions_suffix(case)
                predicted["file"] = "predictions/%s%s" % (name, suffix)
                members[predicted["file"]] = os.path.join(self.done, name + suffix)
            replicates = [read_json(self._record(one[:-5])) for one in names if is_replicate(one, name)]
            cases[case["id"]] = {"predict": predicted, "replicates": replicates, "failure": self._failure(number)}
        builds = {}  # type: Facts
        for number, build in enumerate(self.plan["builds"]):
            name = self._build_name(number)
            built = read_json(self._record(name))
            builds[build["name"]] = {
                "convert": None if built is None else built["convert"],
                "folder": "builds/" + name,
                "log": "logs/%s.log" % name if os.path.exists(os.path.join(self.logs, name + ".log")) else None,
                "failure": read_json(self._record(name + "-failure")),
            }
            for one in built["files"] if built is not None else ():
                members["builds/%s/%s" % (name, one)] = os.path.join(self.done, name, *one.split("/"))
        for log in sorted(os.listdir(self.logs)):
            members["logs/" + log] = os.path.join(self.logs, log)
        results = {
            "schema": RESULTS_SCHEMA,
            "bundle": self.bundle,
            "finished": time.time(),
            "runs": self._all_of("run-"),
            "probe": read_json(self._record("probe")),
            "readings": self._all_of("canary-"),
            "cases": cases,
            "builds": builds,
            "files": {name: {"sha256": digest_of(path), "size": os.path.getsize(path)} for name, path in members.items()},
        }
        content = json.dumps(results).encode("utf-8")
        temporary = destination + ".tmp"
        try:
            with open(temporary, "wb") as stream:
                with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr(entry(PLAN), self.content)
                    archive.writestr(entry(RESULTS), content)
                    archive.writestr(entry(DIGEST), hashlib.sha256(content).hexdigest() + "\n")
                    for name, path in sorted(members.items()):
                        with open(path, "rb") as source, archive.open(entry(name, os.path.getsize(path)), "w") as target:
                            shutil.copyfileobj(source, target, BLOCK)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, destination)
            flush_folder(os.path.dirname(destination))
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)


def entry(name, size=0):
    # type: (str, int) -> zipfile.ZipInfo
    """Of an archive, without a date: a board without a clock starts in 1970, and an archive knows none before 1980."""
    found = zipfile.ZipInfo(name)
    found.compress_type, found.file_size = zipfile.ZIP_DEFLATED, size
    return found


def software_of(probe):
    # type: (Facts) -> List[Any]
    runtimes = {name: backend.get("runtime") for name, backend in probe["backends"].items()}
    return [probe.get("python"), probe.get("release"), probe.get("packages"), runtimes]


def is_replicate(name, case):
    # type: (str, str) -> bool
    return name.startswith(case + "-") and name.endswith(".json") and name[len(case) + 1 : -5].isdigit()


def why_not(probe, case):
    # type: (Facts, Facts) -> Optional[str]
    """Why this board's runtimes do not run a case at all; the host comes to the same by the same facts."""
    load = case["load"]
    backend = probe["backends"].get(load["backend"]) or {}
    if not backend.get("can_run"):
        return str(backend.get("reason") or "there is no %s here" % load["backend"])
    if load["precision"] not in backend.get("precisions_run", ()):
        return "%s has no precision %s" % (load["backend"], load["precision"])
    facts = probe.get("device") or {}
    if case["device"] == "cuda" and facts.get("jetson"):
        return "the GPU of a Jetson is no discrete one: its cases have the marker jetson"
    if case["device"] == "jetson" and not facts.get("jetson") and facts.get("gpus"):
        return "this is no NVIDIA Jetson"
    if case["build"] is None:
        return None
    if not backend.get("can_convert"):
        return str(backend.get("reason") or "%s builds nothing here" % load["backend"])
    if load["precision"] not in backend.get("precisions_convert", ()):
        return "%s builds no precision %s here" % (load["backend"], load["precision"])
    return None


def in_words(seconds):
    # type: (float) -> str
    return "%d s" % seconds if seconds < 90 else "%d min" % round(seconds / 60)


def boot_id():
    # type: () -> Optional[str]
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return None


def run(bundle, options, say):
    # type: (str, argparse.Namespace, Callable[[str], None]) -> str
    """Returns the path of the results. Raises :class:`Stop`, and OSError for a disk that is full or cannot be written to."""
    stem = bundle[:-4] if bundle.endswith(".zip") else bundle
    work = os.path.abspath(options.work or stem + ".work")
    destination = os.path.abspath(options.results or stem + ".results.zip")
    if importlib.util.find_spec("numpy") is None:
        raise Stop(
            "%s (Python %s) has no NumPy, which every case needs: run the bundle with the Python that has this board's runtimes, or"
            " install NumPy for it" % (sys.executable, platform.python_version())
        )
    with zipfile.ZipFile(bundle) as archive:
        plan, content = read_plan(archive, bundle)
        runner = Runner(plan, content, work, say)
        for folder in (runner.files, runner.logs, runner.done):
            os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(work, ".lock"), "w")  # noqa: SIM115  (held until this process ends)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (IOError, OSError) as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Stop("another run is at work in %s: wait for it" % work)
        begun = os.path.join(work, PLAN)
        if os.path.exists(begun) and digest_of(begun) != runner.bundle:
            raise Stop("%s was begun by another bundle: remove it, or name another folder with --work=DIR" % work)
        write(begun, content)
        say("checking %d files of %s" % (len(plan["files"]), os.path.basename(bundle)))
        unpack(archive, plan, bundle, runner.files)
    earlier = len([name for name in os.listdir(runner.done) if name.startswith("run-") and name.endswith(".json")])
    if earlier:
        say("going on in %s: what was finished there is kept" % work)
    write_json(os.path.join(runner.done, "run-%04d.json" % earlier), {"began": time.time(), "boot": boot_id()})
    try:
        runner.execute()
    except Failed as failure:  # of the probe
        raise Stop("no agent runs here: %s" % failure)
    runner.collect(destination)
    return destination


def main(arguments, bundle):
    # type: (List[str], str) -> int
    parser = argparse.ArgumentParser(
        prog="python3 " + os.path.basename(bundle),
        description="Measure on this board all that the bundle holds. Nothing is installed.",
    )
    parser.add_argument(
        "--work", metavar="DIR", help="where finished measurements are kept until all are there (default: beside the bundle)"
    )
    parser.add_argument(
        "--results", metavar="FILE", help="the archive for the host (default: FILE.results.zip beside the bundle)"
    )
    options = parser.parse_args(arguments)

    def say(text):
        # type: (str) -> None
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"  # without a locale, Python 3.6 has no other
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()

    try:
        destination = run(bundle, options, say)
    except Stop as reason:
        sys.stderr.write("%s\n" % reason)
        return USAGE
    except zipfile.BadZipFile:
        sys.stderr.write("%s is no whole archive: copy it here once more\n" % bundle)
        return USAGE
    except OSError as error:
        where = error.filename or os.path.dirname(bundle)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = "the disk is full (%s): make room, or name another disk with --work=DIR and --results=FILE"
        else:
            text = "cannot go on (%s): mend that"
        why = "%s: %s" % (where, error.strerror or error)
        sys.stderr.write(text % why + "; run the bundle again, what is finished is kept\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stderr.write("stopped: run it again to go on, what is finished is kept\n")
        return INTERRUPTED
    say("done: take %s to the host and run there: inference-gate bundle import %s" % (destination, os.path.basename(destination)))
    return 0
