"""Hosts' power as their driver tells it, for as long as nothing that is seen speaks against it.

"Off" is the one proof that nothing runs on a host that is silent, and what stands behind it is a
command that an operator wrote. One that asks about another machine says it as well, and nobody
would notice before a VM runs twice. So the driver is asked of hosts that answer, too, of one at
each look: if it calls one off that still answers at the next look, it is not believed of that
host any more, until it says that it is on.
"""

from collections.abc import Iterable, Mapping

from balancerd.core.model import PowerState
from balancerd.ports import Power, PowerError

ANOTHERS = "its power driver says that it is off, and it answers: it may ask about another machine"


class BelievedPower:
    """The `Power` port over a driver that may be wrong. What is not believed is UNKNOWN."""

    def __init__(self, driver: Power) -> None:
        self._driver = driver
        self._turn = ""  # the host that was asked of last
        self._late = False  # whether it has to be asked of again, as there was no answer in time
        self._called_off: set[str] = set()
        self._doubted: set[str] = set()
        self.wake, self.failures = driver.wake, driver.failures

    @property
    def doubted(self) -> frozenset[str]:
        """The hosts of which the driver is not believed."""
        return frozenset(self._doubted)

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """The power state of each host; UNKNOWN where the driver cannot tell, or may be wrong."""
        names = list(hosts)
        asked = [name for name in names if name not in self._doubted]
        unknown = dict.fromkeys(names, PowerState.UNKNOWN)
        return unknown | dict(self._driver.states(asked)) if asked else unknown

    def sleep(self, host: str) -> None:
        """Ask a host to shut down, one that answers; PowerError where its driver may be wrong."""
        if host in self._doubted or self.states([host]).get(host) is PowerState.OFF:
            raise PowerError(f"{host}: {ANOTHERS}")
        self._driver.sleep(host)

    def compare(self, answering: Iterable[str]) -> None:
        """Hold what was said at the last look against the hosts that answer at this one, and have
        the driver say something of one of them for the next."""
        names = sorted(answering)
        self._doubted |= self._called_off.intersection(names)
        self._called_off.clear()
        if names:
            self._ask_of(self._next(names))

    def _next(self, names: list[str]) -> str:
        """Each host in turn; one of which nothing was said in time twice, as that may come late."""
        if self._late and self._turn in names:
            return self._turn
        return next((name for name in names if name > self._turn), names[0])

    def _ask_of(self, host: str) -> None:
        state = self._driver.states([host]).get(host, PowerState.UNKNOWN)
        self._late = state is PowerState.UNKNOWN and host != self._turn
        self._turn = host
        if state is PowerState.OFF:
            self._called_off.add(host)
        if state is PowerState.ON:
            self._doubted.discard(host)
