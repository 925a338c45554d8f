"""What happens to VMs behind balancerd's back: operators at the command line, and bad luck."""

from contextlib import suppress

from balancerd.adapters.sim import endings
from balancerd.adapters.sim.copies import LEFTOVERS
from balancerd.adapters.sim.machines import NOWHERE
from balancerd.adapters.sim.state import State
from balancerd.adapters.sim.traffic import Order, Traffic
from balancerd.core.model import Method
from balancerd.core.observation import Presence
from balancerd.ports import BackendError


class Hand:
    """Acts of others. What they cannot do comes to nothing: nobody here is told of an error.

    Nothing of it is reported to balancerd; it has to see for itself.
    """

    def __init__(self, state: State, traffic: Traffic) -> None:
        self._state, self._traffic = state, traffic

    def migrate(self, vm: str, target: str, cap: float = 0.0) -> None:
        """An operator migrates a VM, at this many bytes per second at most; 0: without a cap."""
        index, there = self._state.vm[vm], self._state.host[target]
        source = int(self._state.machines.place[index])
        if source != NOWHERE and self._state.answers(source):
            local = not all(disk.shared for disk in self._state.site.vms[index].disks)
            method = Method.STORAGE if local else Method.PRE_COPY
            self._traffic.begin(Order(index, source, there, method, cap, ours=False))

    def abort(self, vm: str) -> None:
        """An operator aborts the migration of a VM."""
        index = self._state.flights.find(self._state.vm[vm])
        if index is not None:
            source = int(self._state.flights.rows[index]["source"])
            if self._state.answers(source):
                with suppress(BackendError):  # in post-copy there is no way back
                    self._traffic.abort(self._state.vm[vm], source)

    def pause(self, vm: str) -> None:
        """An operator suspends a VM that does not migrate."""
        self._stop(vm, Presence.PAUSED)

    def shut_off(self, vm: str) -> None:
        """An operator shuts a VM off that does not migrate."""
        self._stop(vm, Presence.SHUTOFF)

    def crash(self, vm: str, *, at_source: bool = False) -> None:
        """A VM's process dies; a migration of it fails with it. In post-copy it has two: the one
        on the target dies, or the one `at_source`."""
        index = self._state.flights.find(self._state.vm[vm])
        if index is None:
            self._stop(vm, Presence.CRASHED)
        else:
            self._traffic.fail(index, endings.killed(at_source=at_source))

    def recover(self, vm: str) -> None:
        """An operator lets a post-copy go on that was broken off, once its hosts have each other
        again."""
        self._traffic.recover(self._state.vm[vm])

    def start(self, vm: str, host: str) -> None:
        """An operator starts or resumes a VM on a host that has it, as long as it runs nowhere."""
        index, where = self._state.vm[vm], self._state.host[host]
        has_it = self._state.copies.presence(index, where) is not Presence.ABSENT
        if has_it and self._state.answers(where):
            self._state.copies.start(index, where)

    def define(self, vm: str, host: str) -> None:
        """An operator leaves a definition of the VM on a host that has none."""
        copy = (self._state.vm[vm], self._state.host[host])
        absent = self._state.copies.presence(*copy) is Presence.ABSENT
        if absent and self._state.answers(copy[1]):
            self._state.copies.oddities[copy] = Presence.SHUTOFF

    def undefine(self, vm: str, host: str) -> None:
        """An operator removes the definition of a VM that is not active on a host."""
        copy = (self._state.vm[vm], self._state.host[host])
        if self._state.answers(copy[1]) and self._state.copies.presence(*copy) in LEFTOVERS:
            self._state.copies.forget(*copy)

    def _stop(self, vm: str, state: Presence) -> None:
        index = self._state.vm[vm]
        if self._state.flights.find(index) is None:
            self._state.copies.stop(index, state)
