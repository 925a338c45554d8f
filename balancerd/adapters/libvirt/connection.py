"""Connections to hosts: opened with keepalive, and closed by the thread that used them.

A connection is for one call at a time. When one dies of its keepalive, libvirt's client (seen with
9.0) wakes one of the threads that wait on it and leaves the others asleep for ever; and closing it
under a waiting thread ends the process. So threads share none: see `lane`, and `migration`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import libvirt

from balancerd.adapters.libvirt import events
from balancerd.adapters.libvirt.errors import code, sentence, telling
from balancerd.ports import BackendError

KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3  # a silent host is given up after 5 x (3 + 1) = 20 s

# test:// and drivers without a connection have none, and need none.
_NO_KEEPALIVE = (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INTERNAL_ERROR)


def open_connection(host: str, uri: str) -> libvirt.virConnect:
    """A new connection. Blocks without any limit: keepalive does not cover the opening."""
    events.ensure_running()
    with telling(host, "connect"):
        connection = libvirt.open(uri)
    try:
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        if code(error) not in _NO_KEEPALIVE:
            dispose(connection)
            raise BackendError(host, "connect", sentence(error), code(error)) from error
    return connection


def dispose(connection: libvirt.virConnect) -> None:
    """Close a connection, dead or alive, on which no call is under way. May block.

    Each registered event holds the connection: closed without it, the client's part of it would
    stay for as long as the process lives, with a descriptor of its own.
    """
    registered = tuple(getattr(connection, "domainEventCallbackID", ()))  # none, if never asked for
    steps: list[Callable[[], object]] = [
        *(partial(connection.domainEventDeregisterAny, number) for number in registered),
        connection.unregisterCloseCallback,
        connection.close,
    ]
    for step in steps:
        try:
            step()
        except libvirt.libvirtError:
            continue  # it is dead, which is as good as closed


@contextmanager
def connected(host: str, uri: str) -> Iterator[libvirt.virConnect]:
    """A connection for the one thread that is inside. Blocks as opening and closing do."""
    connection = open_connection(host, uri)
    try:
        yield connection
    finally:
        dispose(connection)
