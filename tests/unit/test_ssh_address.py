"""``ssh://user@board:port?python=/path`` and what is made of it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_inference_gate.targets.ssh_address import SshAddress
from pytest_inference_gate.targets.ssh_failures import connection_sentence, last_line

LETTERS = string.ascii_letters + string.digits
hosts = (
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,40}", fullmatch=True) | st.ip_addresses(v=6).map(str) | st.just("fe80::1%eth0")
)
users = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,20}\$?", fullmatch=True)
pythons = st.text(min_size=1, max_size=30).filter(
    lambda text: (
        text.isprintable() and "!" not in text and not text.startswith("-") and text.encode("utf-8", "ignore").decode() == text
    )
)
addresses = st.builds(SshAddress, hosts, st.none() | users, st.none() | st.integers(1, 65535), st.none() | pythons)


@given(addresses)
def test_an_address_written_is_read_as_it_was(address: SshAddress) -> None:
    assert SshAddress.parse(str(address)) == address


@given(st.text(max_size=60) | st.text(alphabet=LETTERS + "@:/[]?=%-.", max_size=40).map(lambda text: f"ssh://{text}"))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    try:
        address = SshAddress.parse(text)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)  # noqa: PT017  (either is right)
        return
    assert not address.host.startswith("-")
    assert address.user is None or not address.user.startswith("-")
    assert address.port is None or 1 <= address.port <= 65535
    assert address.arguments[-2:] == ["--", address.host]
    assert SshAddress.parse(str(address)) == address


@given(addresses)
def test_nothing_of_an_address_is_an_option_of_ssh(address: SshAddress) -> None:
    before, marker, after = address.arguments[:-2], address.arguments[-2], address.arguments[-1]
    assert marker == "--" and after == address.host
    assert before[0::2] == (["-l"] if address.user else []) + (["-p"] if address.port else [])


@pytest.mark.parametrize(
    ("text", "user", "host", "port", "python"),
    [
        ("ssh://nano", None, "nano", None, None),
        ("ssh://me@nano.local:2222/", "me", "nano.local", 2222, None),
        ("ssh://me@[fe80::1%25eth0]:22", "me", "fe80::1%eth0", 22, None),
        ("ssh://me%40corp@10.0.0.7", "me@corp", "10.0.0.7", None, None),
        ("ssh://me@nano?python=/opt/my%20env/bin/python", "me", "nano", None, "/opt/my env/bin/python"),
    ],
)
def test_addresses(text: str, user: str | None, host: str, port: int | None, python: str | None) -> None:
    assert SshAddress.parse(text) == SshAddress(host, user, port, python)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nano", "is not ssh://"),
        ("me@nano", "is not ssh://"),
        ("http://nano", "is not ssh://"),
        ("ssh://", "is not ssh://"),
        ("ssh://me:secret@nano", "password"),
        ("ssh://nano:", "no port"),
        ("ssh://nano:0", "no port"),
        ("ssh://nano:65536", "from 1 to 65535"),
        ("ssh://nano:ssh", "from 1 to 65535"),
        ("ssh://nano/home/me", "path"),
        ("ssh://nano#here", "path"),
        ("ssh://-oProxyCommand=touch", "no host name"),
        ("ssh://-x@nano", "no user name"),
        ("ssh://@nano", "no user name"),
        ("ssh://na no", "no host name"),
        ("ssh://nano\n", "control characters"),
        ("ssh://[1::2", "is not ssh://"),
        ("ssh://nano?python=", "no Python"),
        ("ssh://nano?python=-c", "no Python"),
        ("ssh://nano?port=7", "more than ?python="),
        ("ssh://nano?python=a&python=b", "more than ?python="),
        ("ssh://nano?python", "more than ?python="),
    ],
)
def test_what_is_no_address(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SshAddress.parse(text)
    assert says in str(caught.value)


def test_commands_for_a_person() -> None:
    address = SshAddress.parse("ssh://me@nano:2222?python=/opt/python")
    assert address.by_hand == "ssh -p 2222 me@nano"
    assert address.copy_key == "ssh-copy-id -p 2222 me@nano"
    assert address.known_as == "[nano]:2222"
    assert SshAddress("nano").known_as == SshAddress("nano", port=22).known_as == "nano"
    assert address.place == "ssh://me@nano:2222"


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        (
            "@@@@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nIT IS POSSIBLE\nHost key verification failed.\n",
            "ssh-keygen -R 'nano'",
        ),
        (
            "No ED25519 host key is known for nano and you have requested strict checking.\nHost key verification failed.",
            "fingerprint",
        ),
        ("me@nano: Permission denied (publickey,password).", "ssh-copy-id me@nano"),
        ("Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures", "IdentitiesOnly"),
        ("ssh: connect to host nano port 22: Connection refused", "nothing answers at ssh://me@nano"),
        ("ssh: connect to host nano port 22: Connection timed out", "does not answer"),
        ("ssh: connect to host nano port 22: No route to host", "does not answer"),
        ("ssh: Could not resolve hostname nano: Name or service not known", "no address is known for nano"),
        (
            "kex_exchange_identification: read: Connection reset by peer\n\n",
            "(kex_exchange_identification: read: Connection reset by peer)",
        ),
        ("", "no connection to ssh://me@nano: see that `ssh me@nano true` works"),
    ],
)
def test_what_ssh_prints_becomes_a_sentence(printed: str, says: str) -> None:
    sentence = connection_sentence(SshAddress("nano", "me"), printed)
    assert says in sentence
    assert "\n" not in sentence


@given(st.text())
def test_the_last_line_is_one_line(printed: str) -> None:
    line = last_line(printed)
    assert len(line) <= 200 and not set(line) & set("\n\r\t")
