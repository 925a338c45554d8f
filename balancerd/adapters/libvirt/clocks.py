"""What a host's clock shows, told in passing: each event of a QEMU bears the time of its host.

It is a moment old when it reaches us, and older on a busy machine, so that of several the one that
seems to be from furthest ahead is nearest to the truth. Nothing is asked for: a host whose VMs have
no events has a clock that is not known.
"""

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

import libvirt
import libvirt_qemu

from balancerd.steady import CLOCK

EVENTS = 8  # the newest; a migration has more than that on both of its hosts
KEEP_SECONDS = 3600.0  # by then somebody may have set it


class HostClock:
    """How far one host's clock is ahead of ours. Events come in libvirt's thread, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: deque[tuple[float, float]] = deque(maxlen=EVENTS)  # monotonic time, seconds

    def watch(self, connection: libvirt.virConnect) -> None:
        """Ask a new connection for all events of its QEMUs."""
        every: Any = None  # VM, and event: annotated as if they had to be named
        with suppress(libvirt.libvirtError):  # it has another hypervisor
            libvirt_qemu.qemuMonitorEventRegister(connection, every, every, self._note, None)

    def _note(
        self,
        _connection: libvirt.virConnect,
        _domain: libvirt.virDomain,
        _event: str,
        seconds: int,
        micros: int,
        _details: str,
        _context: object,
    ) -> None:
        self.note(seconds + micros / 1e6 - CLOCK.now())

    def note(self, ahead: float) -> None:
        """An event came that was so many seconds ahead of our clock."""
        with self._lock:
            self._told.append((time.monotonic(), ahead))

    def shown(self, before: float | None) -> float | None:
        """The same in whole seconds, for people; what was shown `before` as long as it is as good,
        so that a host is not another one for every wink."""
        ahead = self.ahead()
        if ahead is None:
            return None
        as_good = before is not None and abs(ahead - before) < 1.0
        return before if as_good else float(round(ahead))

    def ahead(self) -> float | None:
        """Seconds by which it is ahead of ours; None where that is not known."""
        oldest = time.monotonic() - KEEP_SECONDS
        with self._lock:
            return max((ahead for at, ahead in self._told if at >= oldest), default=None)


def skew(source: HostClock, target: HostClock) -> float | None:
    """Seconds by which the target's clock is ahead of the source's."""
    here, there = source.ahead(), target.ahead()
    return None if here is None or there is None else there - here
