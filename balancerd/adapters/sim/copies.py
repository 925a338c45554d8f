"""Which host has which copy of a VM, and what it says of it when asked.

A VM normally runs at its place, and while it migrates the target holds an incoming half. Whatever
differs (left-over definitions, a paused source, a second running copy) is an oddity of that VM on
that host. An `Ending` says what a migration leaves behind.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from balancerd.adapters.sim.flights import Flights, Phase
from balancerd.adapters.sim.machines import NOWHERE, Machines
from balancerd.core.observation import Presence

LEFTOVERS = (Presence.SHUTOFF, Presence.MIGRATED, Presence.FAILED, Presence.CRASHED)
HALVES = (Presence.INCOMING, Presence.HANDED_OVER, Presence.OUTGOING)
_PRESENT = {
    Phase.SETUP: (Presence.RUNNING_WITH_JOB, Presence.INCOMING),
    Phase.COPY: (Presence.RUNNING_WITH_JOB, Presence.INCOMING),
    # While the job lives, a source that stands still shows it, too.
    Phase.SWITCH: (Presence.RUNNING_WITH_JOB, Presence.INCOMING),
    Phase.PULL: (Presence.RUNNING_WITH_JOB, Presence.POSTCOPY),
    Phase.BROKEN: (Presence.POSTCOPY_FAILED, Presence.POSTCOPY_FAILED),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a migration ends: what each host says afterwards, and what the caller is told.

    `torn` is what they say where the same happened while the VM's memory was on both: either half
    may be gone, then the VM is lost; or both have lost each other; or only the caller has lost
    sight of a migration that goes on.
    """

    source: Presence
    target: Presence
    error: str = ""
    code: int = 0
    domain: int = 0
    half_lasts: float | None = None  # seconds until the target's half goes by itself
    torn: tuple[Presence, Presence] = (Presence.OUTGOING, Presence.POSTCOPY)


DONE = Ending(Presence.ABSENT, Presence.RUNNING)


class RefusedError(Exception):
    """The hypervisor would not do it: the error's text, code and domain."""

    def __init__(self, text: str, code: int = 55, domain: int = 10) -> None:
        super().__init__(text)
        self.text, self.code, self.domain = text, code, domain


class Copies:
    """All copies of all VMs; VMs and hosts by index."""

    def __init__(self, machines: Machines, flights: Flights) -> None:
        self._machines, self._flights = machines, flights
        self.oddities: dict[tuple[int, int], Presence] = {}
        self._replaced: set[tuple[int, int]] = set()  # definitions that an incoming half hides
        self.autostart: set[tuple[int, int]] = set()  # definitions that start with their host
        self.unwatched: dict[int, Presence] = {}  # what sources say whose post-copy goes on unseen

    def presence(self, vm: int, host: int) -> Presence:
        """What a host that answers says of a VM."""
        odd = self.oddities.get((vm, host))
        if odd is not None:
            return odd
        index = self._flights.find(vm)
        if index is not None:
            row = self._flights.rows[index]
            ends = (int(row["source"]), int(row["target"]))
            if host in ends:
                source, target = _PRESENT[Phase(row["phase"])]
                return target if host == ends[1] else self.unwatched.get(vm, source)
        return Presence.RUNNING if self._machines.place[vm] == host else Presence.ABSENT

    def running(self, vm: int) -> Iterator[int]:
        """The hosts where the VM runs; more than one is the worst there is."""
        if self._machines.place[vm] != NOWHERE:
            yield int(self._machines.place[vm])
        for (name, host), state in self.oddities.items():
            if name == vm and state is Presence.RUNNING:
                yield host

    def main_places(self) -> list[int]:
        """Where each VM runs, as far as there is nothing odd about it; or NOWHERE."""
        places: list[int] = self._machines.place.tolist()
        return places

    def beside(self, state: Presence) -> list[tuple[int, int]]:
        """VMs and hosts that have an odd copy in this state."""
        return [copy for copy, found in self.oddities.items() if found is state]

    def all_of(self, vm: int) -> dict[int, Presence]:
        """What there is of a VM on each host that has any of it, as `presence` says it."""
        found = {host: state for (name, host), state in self.oddities.items() if name == vm}
        index = self._flights.find(vm)
        if index is not None:
            row = self._flights.rows[index]
            source, target = _PRESENT[Phase(row["phase"])]
            found.setdefault(int(row["target"]), target)
            found.setdefault(int(row["source"]), self.unwatched.get(vm, source))
        if (place := int(self._machines.place[vm])) != NOWHERE:
            found.setdefault(place, Presence.RUNNING)
        return found

    def begin(self, vm: int, target: int) -> None:
        """A migration begins: what the target had of the VM is its incoming half from now on."""
        if self.oddities.pop((vm, target), None) is not None:
            self._replaced.add((vm, target))

    def end(self, vm: int, source: int, target: int, ending: Ending) -> None:
        """A migration is over (its row is gone): the copies are what the ending says."""
        defined = (vm, target) in self._replaced
        self._replaced.discard((vm, target))
        stays = defined and ending.target is Presence.ABSENT
        sides = ((source, ending.source), (target, Presence.SHUTOFF if stays else ending.target))
        runs = [host for host, state in sides if state is Presence.RUNNING]
        main = runs[0] if runs else NOWHERE
        for host, state in sides:
            if state is Presence.ABSENT or host == main:
                self.oddities.pop((vm, host), None)
            else:
                self.oddities[vm, host] = state
            if state is Presence.ABSENT:
                self.autostart.discard((vm, host))
        machines = self._machines
        if machines.place[vm] != main:
            machines.arrive(vm, main)
        machines.stopped[vm] = machines.migrating[vm] = False
        machines.throttle[vm] = 0.0
        machines.changed()

    def resume(self, vm: int, host: int) -> None:
        """Let a copy run that a migration left paused on its source, whatever else runs."""
        self._resume(vm, host, Presence.OUTGOING)

    def resume_arrived(self, vm: int, host: int) -> None:
        """Let a copy run that arrived paused, whatever else runs."""
        if self.presence(vm, host) is not Presence.RUNNING:
            self._resume(vm, host, Presence.HANDED_OVER)

    def _resume(self, vm: int, host: int, only: Presence) -> None:
        state = self.presence(vm, host)
        if state is not only or self._under_way(vm):
            raise RefusedError(f"it is {state.value}")
        if self._machines.place[vm] == NOWHERE:
            del self.oddities[vm, host]
            self._machines.arrive(vm, host)
        else:
            self.oddities[vm, host] = Presence.RUNNING

    def destroy(self, vm: int, host: int) -> None:
        """End a paused half of a migration; the definition of a source stays. One that is not
        active is left as it is."""
        state = self.presence(vm, host)
        if state is Presence.ABSENT or state in LEFTOVERS:
            return
        if state not in HALVES or self._under_way(vm):
            raise RefusedError(f"it is {state.value}")
        if state is Presence.OUTGOING:
            self.oddities[vm, host] = Presence.SHUTOFF
        else:
            del self.oddities[vm, host]

    def undefine(self, vm: int, host: int) -> None:
        """Remove the definition of a copy that is not active; its absence is as good."""
        state = self.presence(vm, host)
        if state is Presence.ABSENT:
            return
        if state not in LEFTOVERS:
            raise RefusedError(f"it is {state.value}")
        self.forget(vm, host)

    def forget(self, vm: int, host: int) -> None:
        """A definition is gone, and all that hangs on it."""
        del self.oddities[vm, host]
        self.autostart.discard((vm, host))

    def stop(self, vm: int, state: Presence) -> None:
        """The running copy at the VM's place is this from now on (paused, shut off, crashed)."""
        host = int(self._machines.place[vm])
        if host != NOWHERE:
            self.oddities[vm, host] = state
            self._machines.arrive(vm, NOWHERE)

    def start(self, vm: int, host: int) -> None:
        """The VM runs here, where it was stopped, as long as it runs nowhere else."""
        if self._machines.place[vm] == NOWHERE and not self._under_way(vm):
            self.oddities.pop((vm, host), None)
            self._end_torn_halves(vm)
            self._machines.arrive(vm, host)

    def _end_torn_halves(self, vm: int) -> None:
        """What post-copy left of a VM is ended by whoever starts it again."""
        for copy, state in self.oddities.items():
            if copy[0] == vm and state is Presence.POSTCOPY_FAILED:
                self.oddities[copy] = Presence.SHUTOFF

    def _under_way(self, vm: int) -> bool:
        return self._flights.find(vm) is not None
