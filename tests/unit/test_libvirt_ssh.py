"""What ssh says and does on the way to a host. The programs are real; the words are OpenSSH's."""

import subprocess
import time

import pytest

from balancerd.adapters.libvirt import ssh

DENIED = "root@10.9.0.1: Permission denied (publickey,keyboard-interactive)."
TOO_OPEN = f"""@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0644 for '/srv/key' are too open.
This private key will be ignored.
{DENIED}"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Host key verification failed.",
            "ssh: its host key is not the one in known_hosts, or none is there"
            " (Host key verification failed.)",
        ),
        (
            f"Authorized use only!\r\n{DENIED}",
            f"ssh: it accepts no key of the user that balancerd runs as ({DENIED})",
        ),
        (
            TOO_OPEN,
            f"ssh: the private key can be read by others, so that ssh does not use it ({DENIED})",
        ),
        (
            "ssh: connect to host 10.9.0.1 port 22: Connection refused",
            "ssh: connect to host 10.9.0.1 port 22: Connection refused",
        ),
        ("", "ssh: it said nothing"),
    ],
)
def test_what_ssh_printed_is_one_sentence_that_says_what_to_mend(said: str, told: str) -> None:
    assert ssh.reason(f"Cannot recv data: {said}: Connection reset by peer") == told


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("qemu+ssh://h1/system", "qemu+ssh://h1/system?no_tty=1"),
        ("qemu+ssh://h1/system?keyfile=/k", "qemu+ssh://h1/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://h1/system?no_tty=0", "qemu+ssh://h1/system?no_tty=0"),
        ("qemu+tcp://h1/system", "qemu+tcp://h1/system"),
        ("qemu:///system", "qemu:///system"),
    ],
)
def test_nobody_is_asked_unless_the_uri_wants_it(uri: str, asked: str) -> None:
    assert ssh.unattended(uri) == asked


def test_a_program_that_takes_too_long_is_ended() -> None:
    """Dies if it goes on: a hung sshd would keep a thread and a process for ever."""
    begun = time.monotonic()
    with ssh.ended_after(0.2) as late:
        code = subprocess.run(["sleep", "30"], check=False).returncode
    assert code < 0
    assert late.is_set()
    assert time.monotonic() - begun < 10


def test_only_what_was_started_inside_is_ended() -> None:
    before = subprocess.Popen(["sleep", "30"])
    with ssh.ended_after(0.1) as late:
        time.sleep(0.5)
    assert before.poll() is None
    assert not late.is_set()
    before.kill()
    before.wait()


def test_nothing_is_ended_once_it_got_through() -> None:
    with ssh.ended_after(0.2) as late:
        program = subprocess.Popen(["sleep", "30"])
    time.sleep(0.5)
    assert program.poll() is None
    assert not late.is_set()
    program.kill()
    program.wait()
