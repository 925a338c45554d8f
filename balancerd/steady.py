"""The process's own clock: it goes on evenly, whatever is done to the machine's.

When things were seen, begun and told is compared all the time. Were the machine's clock set in
between, a migration under way would look like somebody else's, and a VM that is to be handed over
might stand still for an hour. So the machine's clock is followed only while nothing is under way.
Nor does it matter which process asks: what tells our time from the machine's monotonic clock is
written down, and the next balancerd goes on by it, if there is something to take up.
"""

import time
from collections.abc import Callable
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SteadyClock:
    """Seconds since the epoch by the machine's clock as it was when last followed."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self.monotonic = wall, monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Seconds since the epoch, for people and windows."""
        return self.monotonic() + self._offset

    @property
    def offset(self) -> float:
        """Seconds by which this clock is ahead of the monotonic one."""
        return self._offset

    @property
    def offset_of_machine(self) -> float:
        """Seconds by which the machine's is."""
        return self._wall() - self.monotonic()

    def take_up(self, offset: float) -> None:
        """Go on as a clock of this offset did."""
        self._offset = offset

    def follow(self) -> float:
        """Go by the machine's clock from now on; by how many seconds that is another time."""
        before = self._offset
        self._offset = self.offset_of_machine
        return self._offset - before


def boot_id() -> str:
    """Which run of the machine this is, as its monotonic clock begins anew with each."""
    return BOOT_ID.read_text().strip()


CLOCK = SteadyClock()
