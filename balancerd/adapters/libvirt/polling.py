"""One host as it is read again and again, hung or not."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from balancerd.adapters.libvirt.connection import Connection
from balancerd.adapters.libvirt.errors import telling
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.observe import HostReader
from balancerd.adapters.libvirt.workers import Call, Workers
from balancerd.core.observation import HostCounters, HostReading
from balancerd.ports import BackendError

LOG = logging.getLogger(__name__)

# A reading that takes longer is left to itself. Keepalive has ended it before where libvirtd hangs,
# libvirt's own patience (30 s) where a domain is busy.
ABANDON_SECONDS = 45.0


class PolledHost:
    """A host's connection and its readings, of which one at most is under way.

    A host that did not answer is not waited for again until it has: its reading goes on in the
    background, and no other host's is the later for it.
    """

    def __init__(
        self, config: HostConfig, workers: Workers, counters: Callable[[], HostCounters] | None
    ) -> None:
        self.config = config
        self._workers, self._counters = workers, counters
        self._reader = HostReader(config)
        self.connection = Connection(
            config.name, config.uri, workers, lambda connection: self._reader.watch(connection)
        )
        self._reading: Call[HostReading] | None = None
        self._begun = 0.0
        self._silent_since: float | None = None

    @property
    def silent(self) -> bool:
        """Whether the host has let us wait in vain, and has not been read since."""
        return self._silent_since is not None

    def begin(self, patience: float) -> None:
        """Begin a reading, unless the last one is still under way."""
        if self._reading is not None and not self._reading.done:
            if time.monotonic() < self._begun + ABANDON_SECONDS:
                return
            self._abandon(self._reading)
        elif self._reading is not None:
            self._collect(self._reading, 0.0)  # too old to be used, but it says whether it is back
        self._begun = time.monotonic()
        self._reading = self._start(patience)

    def finish(self, patience: float) -> HostReading:
        """The reading begun, waited for at most so many seconds; one with an error otherwise."""
        if self._reading is None:
            return self._failed("too many calls hang there; none is added to them")
        call = self._reading
        reading = self._collect(call, patience)
        if call.done:
            self._reading = None
        return reading

    def close(self) -> None:
        """Close the connection. May block."""
        self.connection.close()

    def _read(self, patience: float) -> HostReading:
        connection = self.connection.get(patience)
        reader = self._reader
        with telling(self.config.name, "observe"):
            reading = reader.read(connection)
        return replace(reading, counters=self._counters()) if self._counters else reading

    def _start(self, patience: float) -> Call[HostReading] | None:
        try:
            return self._workers.start(self.config.name, "observe", lambda: self._read(patience))
        except BackendError:
            return None

    def _collect(self, call: Call[HostReading], patience: float) -> HostReading:
        """A call's reading; what went wrong becomes the reading's error."""
        try:
            reading = call.result(patience)
        except BackendError as error:
            return self._failed(error.cause if call.done else self._silence())
        except Exception as error:  # one host's oddity must not cost the cycle
            LOG.exception("%s: cannot be read", self.config.name)
            return self._failed(f"cannot be read: {error!r}")
        self._silent_since = None
        return reading

    def _failed(self, cause: str) -> HostReading:
        return HostReading(self.config.name, time.time(), error=cause)

    def _silence(self) -> str:
        """Note that the host lets us wait, and say for how long."""
        if self._silent_since is None:
            self._silent_since = self._begun
        return f"no answer for {time.monotonic() - self._silent_since:.1f} s"

    def _abandon(self, call: Call[HostReading]) -> None:
        """Leave a hanging call alone, with all it holds: it may come back at any time."""
        call.abandon()
        LOG.warning("%s: a reading hangs for %.0f s", self.config.name, ABANDON_SECONDS)
        self._reader = self._reader.after_hang()
        self.connection.forget()
