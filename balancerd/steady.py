"""The process's own clock: it goes on evenly, whatever is done to the machine's.

When things were seen, begun and told is compared all the time. Were the machine's clock set in
between, a migration under way would look like somebody else's, and a VM that is to be handed over
might stand still for an hour. So the machine's clock is followed only while nothing is under way.
"""

import time
from collections.abc import Callable


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

    def follow(self) -> float:
        """Go by the machine's clock from now on; by how many seconds that is another time."""
        before = self._offset
        self._offset = self._wall() - self.monotonic()
        return self._offset - before


CLOCK = SteadyClock()
