"""What is run on a board, as the shells of boards would take it apart."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_inference_gate.targets import ssh_connection
from pytest_inference_gate.targets.ssh import FoundPython, agent_command, choose_python, python_search
from pytest_inference_gate.targets.ssh_connection import client_options, in_shell, master_options
from pytest_inference_gate.targets.ssh_files import Parcel

words = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="!\x7f"), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(st.lists(words, min_size=1, max_size=4))
def test_a_login_shell_hands_words_on_as_they_are(arguments: list[str]) -> None:
    script = in_shell(f"printf '%s\\n' {shlex.join(arguments)}")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\n")[:-1] == arguments


@pytest.mark.parametrize("script", ["echo one\necho two", "echo hello!"])
def test_what_some_shells_would_take_otherwise_is_refused(script: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        in_shell(script)


def test_the_agent_s_status_tells_its_signal() -> None:
    script = shlex.split(agent_command("/bin/sh", "agent.pyz", {}, None))[-1]
    # The agent is stood for by a shell that kills itself.
    killed = script.replace("-u -X faulthandler agent.pyz --guard", "-c 'kill -9 $$'")
    assert killed != script
    done = subprocess.run(["/bin/sh", "-c", killed], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (137, b"", b"")


def test_the_agent_s_command_names_its_limit_and_backends() -> None:
    command = agent_command("/usr/bin/python3", "/home/me/agent.pyz", {"b": "/x/b c.py", "a": "/x/a.py"}, 1000)
    script = shlex.split(command)[-1]
    assert shlex.split(script.partition("( exec ")[2].partition(" ) 2>&3")[0]) == [
        *("/usr/bin/python3", "-u", "-X", "faulthandler", "/home/me/agent.pyz", "--guard", "--memory-limit", "1000"),
        *("--backend", "a=/x/a.py", "--backend", "b=/x/b c.py"),
    ]
    assert "--memory-limit" not in agent_command("python3", "agent", {}, None)


def test_ssh_never_asks_and_a_client_never_connects_by_itself() -> None:
    for options in (master_options("/tmp/s"), client_options("/tmp/s")):
        assert "BatchMode=yes" in options
        assert options[options.index("-S") + 1] == "/tmp/s"
    assert "-M" in master_options("s") and "-M" not in client_options("s")
    assert {"ControlMaster=no", "ProxyCommand=false"} < set(client_options("s"))
    assert ssh_connection.ALIVE_INTERVAL * ssh_connection.ALIVE_COUNT <= 120


@pytest.mark.parametrize("folder", ["", "/no/such/folder", "/" + "x" * 200])
def test_a_socket_has_a_short_path(folder: str) -> None:
    assert len(ssh_connection._socket_folder({"XDG_RUNTIME_DIR": folder})) <= 60


def test_this_python_is_found_as_one() -> None:
    script = python_search(sys.executable)
    done = subprocess.run(["/bin/sh", "-c", in_shell(script)], capture_output=True, text=True, check=True)
    found = choose_python(done.stdout.splitlines())
    assert isinstance(found, FoundPython)
    assert found.version == sys.version_info[:3] and found.numpy and found.path == sys.executable


def test_the_python_of_an_environment_in_the_home_is_found(tmp_path: Path) -> None:
    python = tmp_path / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    command = ["/bin/sh", "-c", in_shell(python_search("~/my env"))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    )
    assert isinstance(choose_python(done.stdout.splitlines()), FoundPython)


def test_a_python_with_numpy_is_preferred_and_an_old_one_is_told() -> None:
    lines = ["3.11.7 0 /usr/bin/python3", "noise", "3.6.9 1 /opt/python3"]
    assert choose_python(lines) == FoundPython((3, 6, 9), True, "/opt/python3")
    assert choose_python(lines[:2]) == FoundPython((3, 11, 7), False, "/usr/bin/python3")
    assert choose_python(["2.7.18 0 /usr/bin/python", "3.5.3 1 /usr/bin/python3"]) == [
        "Python 2.7.18 (/usr/bin/python)",
        "Python 3.5.3 (/usr/bin/python3)",
    ]
    assert choose_python(["proc"]) == []


files = st.dictionaries(
    st.lists(st.text("abcxyzÄ _-.", min_size=1, max_size=30).filter(lambda name: not set(name) <= {"."}), min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda name: len(name) < 150),
    st.binary(max_size=2000),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(files)
def test_a_folder_is_a_tar_archive_that_depends_on_its_content_alone(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]
) -> None:
    parcels = []
    first: dict[str, bytes] = {}
    for copy in range(2):
        folder = tmp_path_factory.mktemp("tree") / "payload"
        folder.mkdir()
        written = {}
        for name, data in sorted(content.items(), reverse=bool(copy)):
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except OSError:  # a file where another has a folder
                continue
            written[name] = data
        if copy and written != first:
            return
        first = written
        parcels.append(Parcel.of(folder))
    assert parcels[0].digest == parcels[1].digest
    stream = io.BytesIO(b"".join(parcels[0].blocks()))
    assert len(stream.getvalue()) == parcels[0].size
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}  # type: ignore[union-attr]
    assert found == first


@given(st.text(min_size=1, max_size=30).filter(lambda name: "/" not in name and "\0" not in name))
def test_a_file_s_name_on_the_board_is_plain_and_keeps_its_ending(name: str) -> None:
    plain = Parcel(Path("/x") / f"{name}.tflite", "file", "", 0).name
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", plain)
    assert plain.endswith("tflite")
