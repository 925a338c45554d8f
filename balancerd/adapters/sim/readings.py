"""What the simulated hosts say when they are read: the same facts and counters as libvirt's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from balancerd.adapters.sim.copies import Copies
from balancerd.adapters.sim.flights import PULL, Flights, Phase
from balancerd.adapters.sim.machines import NOWHERE, ON, Machines, Power
from balancerd.adapters.sim.sharing import Floats
from balancerd.core.columns import rows_where
from balancerd.core.model import VM, Host, PowerState, VMState
from balancerd.core.observation import (
    COUNTERS,
    Counters,
    HostCounters,
    HostReading,
    JobProgress,
    Observation,
    Presence,
    ShownVM,
    VMCounters,
    VMReadings,
    counted,
)

Places = NDArray[np.int64]

POWER_STATES: Mapping[int, PowerState] = {
    Power.OFF: PowerState.OFF,
    Power.WAKING: PowerState.WAKING,
    Power.ON: PowerState.ON,
    Power.SLEEPING: PowerState.SLEEPING,
}
_STATES = {
    Presence.RUNNING: VMState.RUNNING,
    Presence.RUNNING_WITH_JOB: VMState.RUNNING,
    Presence.PAUSED: VMState.PAUSED,
    Presence.INCOMING: VMState.INCOMING,
    Presence.HANDED_OVER: VMState.PAUSED,
    Presence.OUTGOING: VMState.OUTGOING,
    Presence.POSTCOPY: VMState.RUNNING,
    Presence.POSTCOPY_FAILED: VMState.POSTCOPY_FAILED,
    Presence.SHUTOFF: VMState.SHUTOFF,
    Presence.MIGRATED: VMState.MIGRATED,
    Presence.FAILED: VMState.SHUTOFF,
    Presence.CRASHED: VMState.CRASHED,
}
HOLDS_MEMORY = frozenset(
    {
        Presence.RUNNING,
        Presence.RUNNING_WITH_JOB,
        Presence.PAUSED,
        Presence.INCOMING,
        Presence.HANDED_OVER,
        Presence.OUTGOING,
        Presence.POSTCOPY,
        Presence.POSTCOPY_FAILED,
    }
)


class Charges:
    """Memory that the copies of all VMs hold on each host."""

    def __init__(self, vms: Sequence[VM], machines: Machines, flights: Flights, copies: Copies):
        self._sizes = np.array([float(vm.memory) for vm in vms])
        self._machines, self._flights, self._copies = machines, flights, copies

    def bytes(self) -> Floats:
        """Bytes in use on each host; a VM under way is charged to both of its hosts."""
        place, count = self._machines.place, len(self._machines.cpu)
        here = place >= 0
        charged: Floats = np.bincount(place[here], self._sizes[here], count).astype(float)
        vms, away = self._away()
        charged += np.bincount(away, self._sizes[vms], minlength=count)
        for vm, host in self._odd():
            charged[host] += self._sizes[vm]
        return charged

    def on(self, host: int) -> float:
        """The same of one host: in a twentieth of the time."""
        vms, away = self._away()
        charged = self._sizes[self._machines.place == host].sum()
        charged += self._sizes[vms[away == host]].sum()
        return float(charged + sum(self._sizes[vm] for vm, at in self._odd() if at == host))

    def _away(self) -> tuple[Places, Places]:
        """The VMs under way, and the host of each on which it does not run."""
        rows = self._flights.rows
        return rows["vm"], np.where(rows["phase"] >= PULL, rows["source"], rows["target"])

    def _odd(self) -> Iterator[tuple[int, int]]:
        """VMs and hosts that have a copy in memory beside those."""
        for ends, state in self._copies.oddities.items():
            if state in HOLDS_MEMORY:
                yield ends


def progress(row: np.void, now: float) -> JobProgress:
    """A migration's statistics as its source would give them."""
    return JobProgress(
        total=int(row["total"]),
        processed=int(row["sent"]),
        remaining=ceil(row["left"] + row["dirtied"]),
        iteration=int(row["round"]),
        elapsed=float(now - row["began"]),
        dirty_rate=float(row["dirty_rate"]),
        throttle=round(100 * float(row["throttle"])),
    )


@dataclass(frozen=True, slots=True)
class _Other:
    """A copy of a VM that does not just run where the VM is."""

    host: int
    shown: ShownVM
    counters: Counters  # one column


def _column(counters: VMCounters | None) -> Counters:
    return np.array([counted(counters)], dtype=np.float64).T


class Reader:
    """Makes observations. Facts never change and are made once, and what a host shows of its VMs
    is made anew only where that is not what it showed before; only counters are new."""

    def __init__(
        self,
        hosts: Sequence[Host],
        vms: Sequence[VM],
        machines: Machines,
        flights: Flights,
        copies: Copies,
        charges: Charges,
        dirtying: Floats,  # bytes per second that each VM writes for each core that it asks for
    ) -> None:
        self._hosts, self._vms = tuple(hosts), tuple(vms)
        self._machines, self._flights, self._copies = machines, flights, copies
        self._charges = charges
        self._memory = np.array([float(vm.memory) for vm in vms])
        self._dirtying = dirtying
        self._running = [ShownVM(vm, VMState.RUNNING) for vm in vms]
        self._flagged: frozenset[tuple[int, int]] = frozenset()  # as shown: see `Copies.autostart`
        self._starting = [replace(vm, autostart=True) for vm in vms]
        self._shown: list[tuple[ShownVM, ...]] = [()] * len(self._hosts)
        self._settled: Places | None = None  # where VMs were as that was made, if none was moving
        self._unlit = [HostReading("", 0.0)] * len(self._hosts)  # of hosts that are not on
        self._power = np.full(len(self._hosts), -1, dtype=np.int8)  # as that was made
        self._facts = {
            int(code): tuple(replace(host, power=state) for host in hosts)
            for code, state in POWER_STATES.items()
        }
        self._errors = {int(code): f"no answer: {s.value}" for code, s in POWER_STATES.items()}

    def observe(self, at: float, now: float, silent: frozenset[int]) -> Observation:
        """All hosts at `at` (seconds since the epoch; `now` since the start). Hosts that are not
        on, and those that are silent, give an error."""
        busy = self._machines.host_busy.tolist()
        charged = self._charges.bytes().tolist()
        self._note_power(at)
        vms, facts = self._vm_readings(now), self._facts[Power.ON]
        readings = self._unlit.copy()
        for index in rows_where(self._power == ON).tolist():
            host = self._hosts[index]
            if index in silent:
                readings[index] = HostReading(host.name, at, error="no answer in time")
                continue
            free = max(host.memory - int(charged[index]), 0)
            counters = HostCounters(busy[index], host.memory, free)
            readings[index] = HostReading(host.name, at, facts[index], counters, vms(index))
        return Observation(at, tuple(readings))

    def _note_power(self, at: float) -> None:
        """What is known of hosts that are not on without asking, and the error of asking: it stays
        the same for as long as their power does."""
        power = self._machines.power
        for index in rows_where(power != self._power).tolist():
            state, name = int(power[index]), self._hosts[index].name
            facts, error = self._facts[state][index], self._errors[state]
            self._unlit[index] = HostReading(name, at, facts, error=error)
        self._power = power.copy()

    def _vm_readings(self, now: float) -> Callable[[int], VMReadings]:
        """What each host shows of its VMs: those that just run there, then all others."""
        place = self._machines.place.astype(np.int64)
        moving = self._flights.rows["vm"]
        alone = place.copy()
        alone[moving] = NOWHERE
        here = rows_where(alone >= 0)
        others = [*self._under_way(now), *self._odd()]
        host = np.append(place[here], [other.host for other in others]).astype(np.int64)
        order = np.argsort(host, kind="stable")
        same = self._settled is not None and np.array_equal(alone, self._settled)
        if others or not same or self._flagged != self._copies.autostart:
            shown = [*self._just_running(here, place), *(other.shown for other in others)]
            self._show(host[order], [shown[row] for row in order.tolist()])
            self._settled = None if others else alone
            self._flagged = frozenset(self._copies.autostart)
        columns = [self._counters()[:, here], *(other.counters for other in others)]
        counters = np.concatenate(columns, axis=1)[:, order]
        ends = np.cumsum(np.bincount(host, minlength=len(self._hosts))).tolist()

        def of(index: int) -> VMReadings:
            begin = ends[index - 1] if index else 0
            return VMReadings(self._shown[index], counters[:, begin : ends[index]])

        return of

    def _show(self, host: Places, shown: list[ShownVM]) -> None:
        """Keep what each host shows, given in the order of hosts."""
        ends = np.cumsum(np.bincount(host, minlength=len(self._hosts))).tolist()
        for index, (begin, end) in enumerate(pairwise([0, *ends])):
            new = tuple(shown[begin:end])
            if new != self._shown[index]:
                self._shown[index] = new

    def _counters(self) -> Counters:
        """COUNTERS × VMs, of all as if they just ran."""
        machines = self._machines
        found = {
            "cpu_seconds": machines.vm_used,
            "steal_seconds": machines.vm_steal,
            "memory_used": self._memory,
            "dirty_rate": self._dirtying * machines.demand,
        }
        untold = np.full(len(self._vms), np.nan)
        return np.array([found.get(name, untold) for name in COUNTERS])

    def _just_running(self, vms: Places, place: Places) -> list[ShownVM]:
        """What is shown of VMs that just run where they are."""
        shown = [self._running[vm] for vm in vms.tolist()]
        if self._copies.autostart:
            row = {vm: index for index, vm in enumerate(vms.tolist())}
            for vm, host in self._copies.autostart:
                if vm in row and place[vm] == host:
                    shown[row[vm]] = ShownVM(self._starting[vm], VMState.RUNNING)
        return shown

    def _facts_of(self, vm: int, host: int) -> VM:
        """A VM as it is defined on a host."""
        return (self._starting if (vm, host) in self._copies.autostart else self._vms)[vm]

    def _odd(self) -> Iterator[_Other]:
        """Copies that do not run where their VM is."""
        for (index, host), state in self._copies.oddities.items():
            shown = ShownVM(self._facts_of(index, host), _STATES[state])
            yield _Other(host, shown, _column(None))

    def _under_way(self, now: float) -> Iterator[_Other]:
        """Both halves of each VM that is being moved."""
        for row in self._flights.rows:
            index, source, target = int(row["vm"]), int(row["source"]), int(row["target"])
            phase, told = Phase(row["phase"]), _column(self._counters_of(index))
            left = self._copies.presence(index, source)
            job = progress(row, now) if left is Presence.RUNNING_WITH_JOB else None
            stands = job is not None and phase >= Phase.SWITCH
            state = VMState.OUTGOING if stands else _STATES[left]
            here = ShownVM(self._facts_of(index, source), state, job)
            yield _Other(source, here, _column(None) if phase >= Phase.PULL else told)
            arriving = _STATES[self._copies.presence(index, target)]
            there = ShownVM(self._facts_of(index, target), arriving)
            yield _Other(target, there, told if phase is Phase.PULL else _column(None))

    def _counters_of(self, vm: int) -> VMCounters:
        used, steal = float(self._machines.vm_used[vm]), float(self._machines.vm_steal[vm])
        return VMCounters(used, steal, self._vms[vm].memory)
