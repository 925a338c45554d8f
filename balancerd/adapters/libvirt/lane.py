"""One connection to a host, and the one call at a time that uses it.

The call opens the connection where there is none. A call that hangs keeps the lane busy, which is
told at once to whoever comes next; after a time it is left alone with its connection (which it
closes itself, should it ever return), and the lane starts afresh.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from balancerd.adapters.libvirt.connection import dispose, open_connection
from balancerd.adapters.libvirt.workers import Call, Workers
from balancerd.core.units import doubled
from balancerd.ports import BackendError

LOG = logging.getLogger(__name__)

T = TypeVar("T")

# How long a call may take before the lane goes on without it. A dead host ends a call by keepalive
# (20 s), a busy domain by libvirt's own patience (30 s), a connect to nobody by TCP's (127 s).
CALL_SECONDS = 45.0
OPENING_SECONDS = 150.0
BACK_OFF_AT_MOST = 10.0  # seconds between attempts to connect
CLOSE_REASONS = ("I/O error", "closed by the host", "keepalive timeout", "closed by us")


@dataclass(slots=True)
class _Session:
    """A connection, and whether a call uses it. `left`: the lane went on without it."""

    connection: libvirt.virConnect | None = None
    busy: bool = False
    left: bool = False


class Lane:
    """Calls to one host, one after the other."""

    def __init__(self, host: str, uri: str, workers: Workers) -> None:
        self._host, self._uri, self._workers = host, uri, workers
        self._lock = threading.Lock()
        self._session = _Session()
        self._call: Call[Any] | None = None
        self._begun = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._problem = ""

    def start(self, act: str, work: Callable[[libvirt.virConnect], T]) -> Call[T]:
        """Start a call; BackendError where the lane is busy, or may not connect yet."""
        with self._lock:
            self._make_way(act)
            session, self._begun = self._session, time.monotonic()
            call = self._workers.start(self._host, act, lambda: self._perform(session, work))
            self._call, session.busy = call, True
        return call

    def run(self, act: str, work: Callable[[libvirt.virConnect], T], patience: float) -> T:
        """Start a call and wait for it. A late one keeps the lane until it returns."""
        return self.start(act, work).result(patience)

    def close(self) -> None:
        """Close the connection; a call under way closes it when it returns. May block."""
        with self._lock:
            session, self._session = self._session, _Session(left=True)
            session.left, busy = True, session.busy
        if not busy:
            self._end(session)

    def _make_way(self, act: str) -> None:
        """See to it that no call is under way, or refuse."""
        now = time.monotonic()
        if self._call is not None and self._session.busy:
            age = now - self._begun
            limit = CALL_SECONDS if self._session.connection else OPENING_SECONDS
            if age < limit:
                raise BackendError(self._host, act, f"busy with: {self._call.act}, {age:.0f} s")
            LOG.warning("%s: a call hangs for %.0f s: %s", self._host, age, self._call.act)
            self._call.abandon()
            self._session.left = True
            self._session = _Session()
        if self._session.connection is None and now < self._retry_at:
            wait = f"next attempt in {self._retry_at - now:.0f} s"
            raise BackendError(self._host, act, f"{self._problem}; {wait}")

    def _perform(self, session: _Session, work: Callable[[libvirt.virConnect], T]) -> T:
        """The call, in its thread, which alone uses the session."""
        try:
            return work(self._connection(session))
        finally:
            with self._lock:
                session.busy, left = False, session.left
            if left:
                self._end(session)

    def _connection(self, session: _Session) -> libvirt.virConnect:
        """The session's connection, opened where it has none or has lost it."""
        if session.connection is not None:
            if session.connection.isAlive():
                return session.connection
            self._end(session)
        try:
            connection = open_connection(self._host, self._uri)
        except BackendError as error:
            self._note_failure(error)
            raise
        self._failures = 0
        self._note_closing(connection)
        session.connection = connection
        return connection

    def _note_failure(self, error: BackendError) -> None:
        self._problem, self._failures = error.cause, self._failures + 1
        wait = doubled(1.0, self._failures - 1, BACK_OFF_AT_MOST)
        self._retry_at = time.monotonic() + wait

    def _note_closing(self, connection: libvirt.virConnect) -> None:
        with suppress(libvirt.libvirtError):  # a driver without a connection cannot lose it
            connection.registerCloseCallback(self._closed, None)

    def _closed(self, _connection: libvirt.virConnect, reason: int, _context: object) -> None:
        """In the event loop's thread: only says so. The next call notices by itself."""
        known = 0 <= reason < len(CLOSE_REASONS)
        why = CLOSE_REASONS[reason] if known else f"reason {reason}"
        LOG.warning("%s: connection lost: %s", self._host, why)

    def _end(self, session: _Session) -> None:
        connection, session.connection = session.connection, None
        if connection is not None:
            dispose(connection)
