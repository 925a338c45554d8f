"""Hosts that are reached by ssh, as most are: a whole life, and all that ssh can do to it."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from balancerd.adapters.libvirt import HostConfig, LibvirtBackend, connection
from balancerd.adapters.libvirt.backend import OBSERVE_SECONDS
from tests.lab.rig import GuestSpec, Host, Rig, ssh
from tests.lab.service import MakeService, Service, policy
from tests.lab.small_site import the_only_one, unharmed
from tests.lab.test_libvirt_adapter import reading, until

RECONNECTS = 20
CONNECTIONS = 3  # that last, to each host: for readings, acts and samples


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    """The lab; nobody's ssh is left when a test is over."""
    yield rig
    for host in rig.hosts:
        host.thaw_sshd()
    until(lambda: not programs(), 20, "all ssh has ended")


def programs(pid: int | None = None) -> list[psutil.Process]:
    """ssh below a process, or this one, dead and not collected included."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name() == "ssh":
                found.append(child)
    return found


def by_ssh(rig: Rig) -> dict[str, str]:
    return {host.name: host.ssh_uri for host in rig.hosts}


def wrapper(directory: Path, name: str, old: str, new: str) -> str:
    """An ssh that goes by the lab's configuration, but for one word of it."""
    configuration = directory / f"{name}.config"
    configuration.write_text((directory / "config").read_text().replace(old, new))
    program = directory / name
    program.write_text(f'#!/bin/sh\nexec ssh -F {configuration} "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def one(rig: Rig) -> Iterator[LibvirtBackend]:
    """A backend that reaches one host, and that by ssh."""
    host = rig.host("h1")
    with LibvirtBackend([HostConfig(host.name, host.ssh_uri)]) as backend:
        yield backend


def test_a_vm_is_moved_by_hosts_that_all_reach_each_other_by_ssh(
    rig: Rig, service: MakeService
) -> None:
    guest = rig.start("a", "h1", GuestSpec())
    running = service(policy("quiet"))
    running.configure(by_ssh(rig))
    running.start()
    running.ctl("drain", "h1")
    ended = "SELECT vm FROM migrations WHERE ended_at IS NOT NULL"
    running.until(lambda: running.recorded(ended), 120, "migration")
    migration = the_only_one(running)
    assert (migration["outcome"], migration["source"]) == ("done", "h1")
    assert guest.where() == [migration["target"]]
    assert migration["bytes"] > 10e6
    process = running.process
    assert process is not None
    lasting = CONNECTIONS * len(rig.hosts)
    until(lambda: len(programs(process.pid)) <= lasting, 20, "the migration's own ssh has ended")
    assert running.stop() == 0
    unharmed(guest)


def test_a_hung_sshd_costs_a_cycle_five_seconds_and_its_host_is_unknown_until_it_is_back(
    rig: Rig, service: MakeService
) -> None:
    running = service(policy("quiet"))
    running.configure(by_ssh(rig))
    running.start()
    rig.host("h2").freeze_sshd()
    running.after_cycles(1)
    running.until(lambda: said(running, "h2: unreachable: no answer"), 60, "unknown h2")
    running.after_cycles(2)
    took = [row["seconds"] for row in running.recorded("SELECT seconds FROM cycles")]
    assert max(took) < OBSERVE_SECONDS + 1
    rig.host("h2").thaw_sshd()
    running.until(lambda: said(running, "h2: unreachable: over"), 60, "h2 again")
    assert not said(running, "h1: unreachable: client")


def said(running: Service, words: str) -> bool:
    return words in running.log.read_text()


def test_who_is_not_let_in_is_told_why_and_asked_nothing(rig: Rig, service: MakeService) -> None:
    """balancerd is started at a terminal, where ssh would ask for a password, or about a key. Dies
    if it does: the host would be read at no time, for no reason that anybody is told."""
    directory = ssh.directory(rig.layout)
    ssh.make_key(directory / "another")
    locked = wrapper(directory, "locked", f"{directory}/key", f"{directory}/another")
    strange = wrapper(directory, "strange", "known_hosts", "unknown_hosts")
    uris = by_ssh(rig) | {
        "h2": ssh.uri(rig.layout, 2, config=locked),
        "h3": ssh.uri(rig.layout, 3, config=strange),
    }
    running = service(policy("quiet"))
    running.configure(uris)
    ours, theirs = pty.openpty()
    running.launch(terminal=theirs)
    os.close(theirs)
    running.until(running.cycles, 120, "first cycle")
    told = running.ctl("status")
    assert "h2: ssh: it accepts no key of the user that balancerd runs as" in told
    assert "h3: ssh: its host key is not the one in known_hosts" in told
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    assert running.stop() == 0
    os.close(ours)


def test_no_ssh_is_left_behind_by_twenty_lost_connections(rig: Rig, one: LibvirtBackend) -> None:
    """Dies if a connection that broke is not closed: a program, a thread and four files each."""
    host = rig.host("h1")
    known(one)
    me = psutil.Process()
    programs_at_first, files_at_first = len(programs()), me.num_fds()
    for _ in range(RECONNECTS):
        end_sessions(host)
        known(one)
    until(lambda: len(programs()) <= programs_at_first, 20, "the broken ones' ssh has ended")
    assert not [found for found in programs() if found.status() == psutil.STATUS_ZOMBIE]
    assert me.num_fds() <= files_at_first + 4


def known(backend: LibvirtBackend) -> None:
    until(lambda: not reading(backend.observe(), "h1").error, 30, "the host is read")


def end_sessions(host: Host) -> None:
    """Kill what serves the connections there are, and leave the one that takes new ones."""
    for pid in host.sshd_pids():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if "[listener]" not in " ".join(process.cmdline()):
                process.kill()


def test_an_ssh_that_does_not_get_through_is_given_up(
    rig: Rig, one: LibvirtBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies if it is left waiting: after a few of them the host would not be asked any more, though
    it is back."""
    monkeypatch.setattr(connection, "SSH_SECONDS", 1.0)
    host = rig.host("h1")
    host.freeze_sshd()
    until(lambda: "did not get through" in reading(one.observe(), "h1").error, 30, "given up")
    until(lambda: not programs(), 10, "no ssh waits")
    monkeypatch.setattr(connection, "SSH_SECONDS", 60.0)
    host.thaw_sshd()
    known(one)
