"""Secure shell in the lab: one key that opens every host, and the hosts' own keys, all known.

The hosts' sshd and ssh find theirs in /etc/ssh. Whoever manages the lab from this machine goes by
a configuration of its own, so that nobody's ~/.ssh is read or written.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from .layout import Layout
from .shell import run

SERVER = """\
ListenAddress 0.0.0.0
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile /run/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
"""

CLIENT = """\
Host *
    User root
    IdentityFile {directory}/key
    IdentitiesOnly yes
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile /dev/null
"""


def directory(layout: Layout) -> Path:
    """What a client on this machine needs."""
    return layout.storage / "ssh"


def host_directory(layout: Layout, name: str) -> Path:
    """What is /etc/ssh on a host."""
    return layout.host_disk(name) / "ssh"


def furnish(layout: Layout, names: list[str]) -> None:
    """Makes all keys, and makes them known to everybody."""
    own = directory(layout)
    make_key(own / "key")
    wrapper = own / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec ssh -F {own}/config "$@"\n')
    wrapper.chmod(0o755)
    for name in names:
        make_key(host_directory(layout, name) / "host_key")
    known = "".join(_known(layout, index, name) for index, name in enumerate(names, 1))
    _write(own, CLIENT.format(directory=own), known, "config")
    for name in names:
        there = host_directory(layout, name)
        _write(there, CLIENT.format(directory="/etc/ssh"), known, "ssh_config")
        (there / "sshd_config").write_text(SERVER)
        for part, copy in (("key", "key"), ("key.pub", "authorized_keys")):
            (there / copy).write_bytes((own / part).read_bytes())
            (there / copy).chmod(0o600)


def _write(place: Path, client: str, known: str, config: str) -> None:
    (place / config).write_text(client)
    (place / "known_hosts").write_text(known)


def make_key(path: Path) -> None:
    """A new key without a passphrase; one that is there already is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)])


def _known(layout: Layout, index: int, name: str) -> str:
    kind, key, _ = (host_directory(layout, name) / "host_key.pub").read_text().split()
    return f"{name},{layout.address('mgmt', index)} {kind} {key}\n"


def uri(layout: Layout, index: int, *, config: str = "") -> str:
    """A host's libvirt URI over ssh, for whoever is on this machine.

    `config`: another one than the lab's own.
    """
    command = config or str(directory(layout) / "ssh")
    return f"qemu+ssh://root@{layout.address('mgmt', index)}/system?command={quote(command)}"
