"""What the parts of a world share: the present moment, the site's state, what is planned for later.

Hosts and VMs are numbers here and time is seconds since the start. `traffic`, `supply` and `faults`
change the state; `world` gives it its doors.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf

from balancerd.adapters.sim.copies import Copies
from balancerd.adapters.sim.events import Story
from balancerd.adapters.sim.flights import TICK, Flights
from balancerd.adapters.sim.machines import ON, Machines
from balancerd.adapters.sim.network import Network
from balancerd.adapters.sim.readings import Charges
from balancerd.adapters.sim.site import Site
from balancerd.ports import BackendError


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen, and did; `at` is seconds since the epoch."""

    at: float
    kind: str
    detail: str


class Timers:
    """Acts put off to a later time; those of one time in the order they were put off."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def add(self, at: float, act: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._heap, (at, next(self._numbers), act))

    def next(self) -> float:
        """The time of the next act; infinite when there is none."""
        return self._heap[0][0] if self._heap else inf

    def run(self, now: float) -> None:
        """Do what is due."""
        while self._heap and self._heap[0][0] <= now + TICK:
            heapq.heappop(self._heap)[2]()


class State:
    """A site in the middle of its life."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.now = 0.0
        self.host = {host.name: index for index, host in enumerate(site.hosts)}
        self.vm = {vm.name: index for index, vm in enumerate(site.vms)}
        rules = site.scenario.migration
        self.machines = Machines(site.hosts, site.placement, rules.cpu_loss)
        self.network = Network(site.links, tuple(self.host))
        self.flights = Flights(self.network, rules.switch_over)
        self.copies = Copies(self.machines, self.flights)
        self.charges = Charges(site.vms, self.machines, self.flights, self.copies)
        self.silent: set[int] = set()  # hosts that are on and do not answer
        self.ahead: dict[int, float] = {}  # seconds by which clocks of hosts are, where they are
        self.rebased: set[int] = set()  # hosts whose base images are not those of the others
        self.timers = Timers()
        self.story = Story()
        self.violations: list[Violation] = []

    @property
    def at(self) -> float:
        """The present moment in seconds since the epoch."""
        return self.site.scenario.start + self.now

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later; at once where there is no delay."""
        if seconds <= 0:
            act()
        else:
            self.timers.add(self.now + seconds, act)

    def host_name(self, host: int) -> str:
        """A host's name."""
        return self.site.hosts[host].name

    def vm_name(self, vm: int) -> str:
        """A VM's name."""
        return self.site.vms[vm].name

    def answers(self, host: int) -> bool:
        """Whether the host's hypervisor can be talked to."""
        return bool(self.machines.power[host] == ON) and host not in self.silent

    def ask(self, host: int, act: str) -> None:
        """BackendError where a host does not answer."""
        if not self.answers(host):
            raise BackendError(self.host_name(host), act, "no answer in time", 38, 7)

    def violate(self, kind: str, detail: str) -> None:
        """Note that something happened which must not."""
        self.violations.append(Violation(self.at, kind, detail))
