"""Connections to hosts: opened with keepalive, and closed by the thread that used them.

A connection is for one call at a time. When one dies of its keepalive, libvirt's client (seen with
9.0) wakes one of the threads that wait on it and leaves the others asleep for ever; and closing it
under a waiting thread ends the process. So threads share none: see `lane`, and `migration`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import libvirt
import libvirt_qemu

from balancerd.adapters.libvirt import events, ssh
from balancerd.adapters.libvirt.errors import code, numbers, sentence, telling
from balancerd.ports import BackendError

KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3  # a silent host is given up after 5 x (3 + 1) = 20 s
SSH_SECONDS = 60.0  # for ssh to get through; sshd's own LoginGraceTime is twice that

# test:// and drivers without a connection have none, and need none.
_NO_KEEPALIVE = (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INTERNAL_ERROR)


def open_connection(host: str, uri: str) -> libvirt.virConnect:
    """A new connection. Blocks without any limit, but for ssh's: keepalive does not cover the
    opening."""
    events.ensure_running()
    connection = _opened_by_ssh(host, uri) if ssh.is_ssh(uri) else _opened(host, uri)
    try:
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        if code(error) not in _NO_KEEPALIVE:
            dispose(connection)
            raise BackendError(host, "connect", sentence(error), code(error)) from error
    return connection


def _opened(host: str, uri: str) -> libvirt.virConnect:
    with telling(host, "connect"):
        return libvirt.open(uri)


def _opened_by_ssh(host: str, uri: str) -> libvirt.virConnect:
    """Likewise, with an end to all waiting and nobody asked."""
    with ssh.ended_after(SSH_SECONDS) as late:
        try:
            return libvirt.open(ssh.unattended(uri))
        except libvirt.libvirtError as error:
            why = ssh.reason(error.get_error_message() or "")
            if late.is_set():
                why = f"ssh: it did not get through within {SSH_SECONDS:.0f} s"
            raise BackendError(host, "connect", why, *numbers(error)) from error


def dispose(connection: libvirt.virConnect) -> None:
    """Close a connection, dead or alive, on which no call is under way. May block.

    What asked for events holds it, so that all of them are given back first: it would stay open
    for ever, with its files and its ssh.
    """
    steps: list[Callable[[], object]] = [
        *_given_back(connection, "domainEventCallbackID", connection.domainEventDeregisterAny),
        *_given_back(
            connection,
            "qemuMonitorEventCallbackID",
            partial(libvirt_qemu.qemuMonitorEventDeregister, connection),
        ),
    ]
    for step in (*steps, connection.unregisterCloseCallback, connection.close):
        try:
            step()
        except libvirt.libvirtError:
            continue  # it is dead, which is as good as closed


def _given_back(
    connection: libvirt.virConnect, kind: str, give_back: Callable[[int], object]
) -> list[Callable[[], object]]:
    """What is to be done so that no event of a kind is asked for any more."""
    asked: Any = getattr(connection, kind, ())  # by number
    return [partial(give_back, number) for number in tuple(asked)]


@contextmanager
def connected(host: str, uri: str) -> Iterator[libvirt.virConnect]:
    """A connection for the one thread that is inside. Blocks as opening and closing do."""
    connection = open_connection(host, uri)
    try:
        yield connection
    finally:
        dispose(connection)
