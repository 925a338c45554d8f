"""One host as it is read again and again, hung or not."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import libvirt

from balancerd.adapters.libvirt.clocks import HostClock
from balancerd.adapters.libvirt.errors import telling
from balancerd.adapters.libvirt.hosts import HostConfig
from balancerd.adapters.libvirt.lane import Lane
from balancerd.adapters.libvirt.observe import HostReader
from balancerd.adapters.libvirt.workers import Call, Workers
from balancerd.core.observation import HostCounters, HostReading
from balancerd.ports import BackendError
from balancerd.steady import CLOCK

LOG = logging.getLogger(__name__)


class PolledHost:
    """A host and its readings, of which one at most is under way.

    A host that did not answer is not waited for again until it has: its reading goes on in the
    background, and no other host's is the later for it.
    """

    def __init__(
        self, config: HostConfig, workers: Workers, counters: Callable[[], HostCounters] | None
    ) -> None:
        self.config, self.clock = config, HostClock()
        self._counters = counters
        self._reader = HostReader(config, self.clock)
        self._lane = Lane(config.name, config.uri, workers)
        self._reading: Call[HostReading] | None = None
        self._begun = 0.0
        self._refused = ""
        self._oddity = ""  # what was unforeseen of the last reading, and has been told
        self._silent_since: float | None = None

    @property
    def silent(self) -> bool:
        """Whether the host has let us wait in vain, and has not been read since."""
        return self._silent_since is not None

    def begin(self) -> None:
        """Begin a reading, unless the last one is still under way."""
        if self._reading is not None and self._reading.done:
            self._collect(self._reading)  # too late to be used, but it says whether it is back
            self._reading = None
        hangs = self._reading is not None
        reader = self._reader.after_hang() if hangs else self._reader
        try:
            reading = self._lane.start("observe", lambda connection: self._read(reader, connection))
        except BackendError as error:
            self._refused = error.cause
        else:  # the lane goes on, if need be without a reading that hangs
            self._reading, self._reader, self._begun = reading, reader, time.monotonic()

    def wait(self, patience: float) -> bool:
        """Wait for the reading begun, at most so many seconds; whether it need be no longer."""
        return self._reading is None or self._reading.wait(patience)

    def finish(self) -> HostReading:
        """The reading begun; one with an error where it is not there by now."""
        if self._reading is None:
            return self._failed(self._refused)
        call = self._reading
        reading = self._collect(call)
        if call.done:
            self._reading = None
        return reading

    def close(self) -> None:
        """Close the connection. May block."""
        self._lane.close()

    def _read(self, reader: HostReader, connection: libvirt.virConnect) -> HostReading:
        with telling(self.config.name, "observe"):
            reading = reader.read(connection)
        return replace(reading, counters=self._counters()) if self._counters else reading

    def _collect(self, call: Call[HostReading]) -> HostReading:
        """A call's reading; what went wrong becomes the reading's error."""
        try:
            reading = call.result(0.0)
        except BackendError as error:
            return self._failed(error.cause if call.done else self._silence())
        except Exception as error:  # one host's oddity must not cost the cycle
            if repr(error) != self._oddity:
                LOG.exception("%s: cannot be read", self.config.name)
            self._oddity = repr(error)
            return self._failed(f"cannot be read: {error!r}")
        self._silent_since, self._oddity = None, ""
        return reading

    def _failed(self, cause: str) -> HostReading:
        return HostReading(self.config.name, CLOCK.now(), error=cause)

    def _silence(self) -> str:
        """Note that the host lets us wait, and say for how long."""
        if self._silent_since is None:
            self._silent_since = self._begun
        return f"no answer for {time.monotonic() - self._silent_since:.1f} s"
