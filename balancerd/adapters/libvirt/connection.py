"""One host's control connection: opened when it is needed, and again after it was lost.

Opening is not covered by keepalive and hangs for ever on a libvirtd that is stopped, so it is a
call of its own, which all who need the connection wait for, each with its own patience.
"""

import logging
import threading
import time
from collections.abc import Callable

import libvirt

from balancerd.adapters.libvirt import events
from balancerd.adapters.libvirt.errors import code, sentence, telling
from balancerd.adapters.libvirt.workers import Call, Workers
from balancerd.ports import BackendError

KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3  # a silent host is given up after 5 x (3 + 1) = 20 s
OPENING_AT_MOST = 30.0  # seconds before another attempt is made beside the hanging one
BACK_OFF_AT_MOST = 30.0  # seconds between attempts
LOG = logging.getLogger(__name__)

CLOSE_REASONS = ("I/O error", "closed by the host", "keepalive timeout", "closed by us")

_NO_KEEPALIVE = (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INTERNAL_ERROR)

Watch = Callable[[libvirt.virConnect], None]


def open_connection(host: str, uri: str) -> libvirt.virConnect:
    """A new connection with keepalive. Blocks, without any limit; close it with `dispose`."""
    events.ensure_running()
    with telling(host, "connect"):
        connection = libvirt.open(uri)
    try:
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        if code(error) not in _NO_KEEPALIVE:  # test:// and local drivers have none
            raise BackendError(host, "connect", sentence(error), code(error)) from error
    return connection


def dispose(connection: libvirt.virConnect) -> None:
    """Close a connection, dead or alive. May block: only for worker threads."""
    for step in (connection.unregisterCloseCallback, connection.close):
        try:
            step()
        except libvirt.libvirtError:
            continue  # it is dead, which is as good as closed


class Connection:
    """The connection of one host. `watch` is called with each new one, to register for events."""

    def __init__(self, name: str, uri: str, workers: Workers, watch: Watch) -> None:
        self._name, self._uri, self._workers, self._watch = name, uri, workers, watch
        self._lock = threading.Lock()
        self._connection: libvirt.virConnect | None = None
        self._opening: Call[libvirt.virConnect] | None = None
        self._attempt_number = 0
        self._attempt_at = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._problem = ""

    def get(self, patience: float) -> libvirt.virConnect:
        """A connection that is alive as far as is known; BackendError if there is none in time."""
        with self._lock:
            if self._connection is not None and self._connection.isAlive():
                return self._connection
            lost, self._connection = self._connection, None
            attempt = self._attempt_under_way() or self._begin_attempt()
        if lost is not None:
            dispose(lost)  # does not block: its socket is closed already
        return attempt.result(patience)

    def forget(self) -> None:
        """Give up the connection, on which a call hangs: the next `get` opens another."""
        connection = self._take()
        if connection is not None:  # closing it may hang as well
            self._workers.leave(self._name, "close", lambda: dispose(connection))

    def close(self) -> None:
        """Close the connection; an attempt under way closes what it gets. May block."""
        connection = self._take()
        if connection is not None:
            dispose(connection)

    def _take(self) -> libvirt.virConnect | None:
        with self._lock:
            self._attempt_number += 1
            self._opening = None
            connection, self._connection = self._connection, None
        return connection

    def _attempt_under_way(self) -> Call[libvirt.virConnect] | None:
        """The attempt to wait for; one that hangs is left to itself at last."""
        if self._opening is not None and time.monotonic() > self._attempt_at + OPENING_AT_MOST:
            self._opening.abandon()
            self._opening = None
        return self._opening

    def _begin_attempt(self) -> Call[libvirt.virConnect]:
        now = time.monotonic()
        if now < self._retry_at:
            wait = f"next attempt in {self._retry_at - now:.0f} s"
            raise BackendError(self._name, "connect", f"{self._problem}; {wait}")
        self._attempt_number, self._attempt_at = self._attempt_number + 1, now
        number = self._attempt_number
        self._opening = self._workers.start(self._name, "connect", lambda: self._attempt(number))
        return self._opening

    def _attempt(self, number: int) -> libvirt.virConnect:
        """One attempt, in a worker thread. One that was overtaken closes what it got."""
        try:
            connection = open_connection(self._name, self._uri)
        except BackendError as error:
            self._note_failure(number, error)
            raise
        with self._lock:
            current = number == self._attempt_number
            if current:
                self._connection, self._opening, self._failures = connection, None, 0
        if not current:
            dispose(connection)
            raise BackendError(self._name, "connect", "answered too late")
        self._register(connection)
        return connection

    def _register(self, connection: libvirt.virConnect) -> None:
        """Ask for events; a driver without them is read all the same."""
        for register in (self._note_closing, self._watch):
            try:
                register(connection)
            except libvirt.libvirtError as error:
                LOG.debug("%s: no events: %s", self._name, sentence(error))

    def _note_closing(self, connection: libvirt.virConnect) -> None:
        connection.registerCloseCallback(self._closed, None)

    def _closed(self, _connection: libvirt.virConnect, reason: int, _context: object) -> None:
        """In the event loop's thread: only says so. `get` notices by itself."""
        known = 0 <= reason < len(CLOSE_REASONS)
        LOG.warning(
            "%s: connection lost: %s", self._name, CLOSE_REASONS[reason] if known else reason
        )

    def _note_failure(self, number: int, error: BackendError) -> None:
        with self._lock:
            if number == self._attempt_number:
                self._opening, self._problem = None, error.cause
                self._failures += 1
                wait = min(2.0 ** (self._failures - 1), BACK_OFF_AT_MOST)
                self._retry_at = time.monotonic() + wait
