"""What the simulated hosts say when they are read: the same facts and counters as libvirt's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from balancerd.adapters.sim.copies import Copies
from balancerd.adapters.sim.flights import Flights, Phase
from balancerd.adapters.sim.machines import Machines, Power
from balancerd.adapters.sim.sharing import Floats
from balancerd.core.model import VM, Host, PowerState, VMState
from balancerd.core.observation import (
    HostCounters,
    HostReading,
    JobProgress,
    Observation,
    Presence,
    VMCounters,
    VMReading,
)

POWER_STATES: Mapping[int, PowerState] = {
    Power.OFF: PowerState.OFF,
    Power.WAKING: PowerState.WAKING,
    Power.ON: PowerState.ON,
    Power.SLEEPING: PowerState.SLEEPING,
}
_STATES = {
    Presence.RUNNING: VMState.RUNNING,
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
        rows = self._flights.rows
        if len(rows):
            away = np.where(rows["phase"] == Phase.PULL, rows["source"], rows["target"])
            charged += np.bincount(away, self._sizes[rows["vm"]], minlength=count)
        for (vm, host), state in self._copies.oddities.items():
            if state in HOLDS_MEMORY:
                charged[host] += self._sizes[vm]
        return charged


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


class Reader:
    """Makes observations. Facts never change and are made once; only counters are new."""

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
        self._memory = [vm.memory for vm in vms]
        self._dirtying = dirtying
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
        power = self._machines.power.tolist()
        vms = self._vm_readings(now)
        lit, facts = int(Power.ON), self._facts[Power.ON]
        readings = []
        for index, host in enumerate(self._hosts):
            state = power[index]
            if state != lit:  # what is known of it without asking, and the error of asking
                known, error = self._facts[state][index], self._errors[state]
                reading = HostReading(host.name, at, known, None, (), error)
            elif index in silent:
                reading = HostReading(host.name, at, error="no answer in time")
            else:
                counters = HostCounters(
                    busy[index], host.memory, max(host.memory - int(charged[index]), 0)
                )
                reading = HostReading(host.name, at, facts[index], counters, tuple(vms[index]))
            readings.append(reading)
        return Observation(at, tuple(readings))

    def _vm_readings(self, now: float) -> dict[int, list[VMReading]]:
        machines = self._machines
        found: dict[int, list[VMReading]] = defaultdict(list)
        flights = {int(row["vm"]): row for row in self._flights.rows}
        used, steal = machines.vm_used.tolist(), machines.vm_steal.tolist()
        dirty = (self._dirtying * machines.demand).tolist()
        running = VMState.RUNNING
        for index, (host, vm) in enumerate(zip(machines.place.tolist(), self._vms, strict=True)):
            if host >= 0 and index not in flights:
                counters = VMCounters(
                    used[index], steal[index], self._memory[index], None, None, dirty[index]
                )
                found[host].append(VMReading(vm, running, counters))
        for index, row in flights.items():
            self._under_way(row, self._vms[index], used[index], steal[index], now, found)
        for (index, host), state in self._copies.oddities.items():
            found[host].append(VMReading(self._vms[index], _STATES[state], None))
        return found

    def _under_way(
        self,
        row: np.void,
        vm: VM,
        used: float,
        steal: float,
        now: float,
        found: dict[int, list[VMReading]],
    ) -> None:
        source, target, phase = int(row["source"]), int(row["target"]), Phase(row["phase"])
        counters, job = VMCounters(used, steal, vm.memory), progress(row, now)
        if phase is Phase.PULL:
            found[source].append(VMReading(vm, VMState.OUTGOING, None, job))
            found[target].append(VMReading(vm, VMState.RUNNING, counters))
            return
        state = VMState.OUTGOING if phase is Phase.SWITCH else VMState.RUNNING
        found[source].append(VMReading(vm, state, counters, job))
        found[target].append(VMReading(vm, VMState.INCOMING, None))
