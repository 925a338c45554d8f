"""The simulated site as it lives: a Backend, a Power driver and a Clock over one virtual time.

Time passes only in `advance`, from event to event: a phase of a migration, a step of the load, a
host's boot, a fault. Everything else happens at once, at the present moment.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from balancerd.adapters.sim.copies import RefusedError
from balancerd.adapters.sim.events import Event
from balancerd.adapters.sim.faults import Faults
from balancerd.adapters.sim.flights import BROKEN, TICK
from balancerd.adapters.sim.hand import Hand
from balancerd.adapters.sim.machines import NOWHERE, Accounts, Power
from balancerd.adapters.sim.preflight import preflight
from balancerd.adapters.sim.readings import POWER_STATES, Reader
from balancerd.adapters.sim.site import Site
from balancerd.adapters.sim.state import State, Violation
from balancerd.adapters.sim.supply import Supply
from balancerd.adapters.sim.traffic import Order, Traffic
from balancerd.core.model import Cluster, Method, PowerState
from balancerd.core.observation import JobReport, Location, Observation, Preflight, Presence
from balancerd.ports import BackendError, nothing


class World:
    """See the module. The commands are the ports'; `events` tells all that really happened."""

    def __init__(self, site: Site) -> None:
        state = self._state = State(site)
        self._traffic = Traffic(state)
        self._supply = Supply(state, self._traffic)
        self._reader = Reader(
            site.hosts,
            site.vms,
            state.machines,
            state.flights,
            state.copies,
            state.charges,
            np.array([f.dirty_rate / f.cpu for f in site.flavours], dtype=float),
        )
        self._faults = Faults(state, self._traffic, self._supply)
        self.strike = self._faults.strike  # a fault happens now, whatever the scenario says
        state.copies.autostart.update(
            (vm, host)
            for vm, (flavour, host) in enumerate(zip(site.flavours, site.placement, strict=True))
            if flavour.autostart
        )
        # Where a VM runs that runs on one host, by that; and last, by NOWHERE, one that does not.
        self._at = (*((name,) for name in state.host), ())
        state.machines.demand = site.load.demand(0.0)
        for vm, host in zip(site.vms, site.placement, strict=True):
            state.story.place(state.at, vm.name, state.host_name(host))
        for name, index in state.host.items():
            state.story.power(state.at, name, bool(state.machines.power[index] != Power.OFF))

    # -- time

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._state.at

    def monotonic(self) -> float:
        """Seconds since the scenario's start."""
        return self._state.now

    def next_event(self) -> float:
        """When a migration or a host's power gets on, seconds since the epoch; or infinite.

        Always later than now, so that whoever advances to it gets on.
        """
        state = self._state
        event = min(state.timers.next(), state.flights.next_event(state.now))
        return state.site.scenario.start + max(event, state.now + TICK)

    def advance(self, to: float) -> None:
        """Let time pass until `to` (seconds since the epoch). Events less than a microsecond
        after it are part of it."""
        end = to - self._state.site.scenario.start
        while self._state.now < end:
            self._step(end)

    def _step(self, end: float) -> None:
        """To the next event, or to the end; and what happens there."""
        state = self._state
        load = state.site.load.next_change(state.now)
        event = min(state.timers.next(), load, state.flights.next_event(state.now))
        until = max(event if event <= end + TICK else end, state.now)
        state.machines.run(until - state.now)
        state.flights.flow(until - state.now)
        state.now = until
        if load <= until:
            state.machines.demand = state.site.load.demand(until)
            state.machines.changed()
            self._traffic.feel_load()
        state.timers.run(until)
        self._traffic.turn()

    # -- what the world knows of itself

    @property
    def site(self) -> Site:
        """What this world was made of."""
        return self._state.site

    @property
    def accounts(self) -> Accounts:
        """What was drawn, served and not served so far."""
        return self._state.machines.accounts

    @property
    def violations(self) -> list[Violation]:
        """What must never happen, and did."""
        return self._state.violations

    def events(self) -> list[Event]:
        """The story so far, in time order."""
        return self._state.story.events

    def powers(self) -> list[tuple[float, str, bool]]:
        """When each host's power came on (True) or went off: the power at the start, then every
        change, in time order."""
        return self._state.story.powers

    @property
    def hand(self) -> Hand:
        """What operators and bad luck do behind balancerd's back."""
        return Hand(self._state, self._traffic)

    def cluster(self) -> Cluster:
        """The truth: every VM that runs, where it runs, and where it is going."""
        state, site = self._state, self._state.site
        power = self.states(state.host)
        rows = state.flights.rows
        return Cluster(
            hosts={host.name: replace(host, power=power[host.name]) for host in site.hosts},
            vms={vm.name: vm for vm in site.vms},
            placement={
                vm.name: site.hosts[host].name
                for vm, host in zip(site.vms, state.machines.place.tolist(), strict=True)
                if host != NOWHERE
            },
            flights={
                state.vm_name(vm): state.host_name(target)
                for vm, target in zip(rows["vm"].tolist(), rows["target"].tolist(), strict=True)
            },
            links=site.links,
        )

    def migrating(self) -> int:
        """How many migrations are under way."""
        return len(self._state.flights)

    def has_news(self) -> bool:
        """Whether a migration ended that `reports` did not tell of yet."""
        return self._traffic.news

    def running(self, vm: str) -> tuple[str, ...]:
        """The hosts on which the VM really runs, whoever can see it."""
        index = self._state.vm[vm]
        return tuple(sorted(map(self._state.host_name, self._state.copies.running(index))))

    def all_running(self) -> dict[str, tuple[str, ...]]:
        """The same of every VM."""
        at, copies = self._at, self._state.copies
        places = copies.main_places()
        found = {vm: at[host] for vm, host in zip(self._state.vm, places, strict=True)}
        for index, host in copies.beside(Presence.RUNNING):
            vm = self._state.vm_name(index)
            found[vm] = tuple(sorted((*found[vm], self._state.host_name(host))))
        return found

    def copies(self, vm: str) -> dict[str, Presence]:
        """What there is of a VM on each host that has any of it, whoever can see it."""
        index = self._state.vm[vm]
        found, name = self._state.copies.all_of(index), self._state.host_name
        absent = Presence.ABSENT
        return {name(host): found[host] for host in sorted(found) if found[host] is not absent}

    def ours(self) -> list[tuple[str, str, str]]:
        """VM, source and target of each migration under way that balancerd began."""
        return self._traffic.ours()

    def torn(self) -> list[str]:
        """VMs whose memory is on two hosts that have lost each other."""
        rows = self._state.flights.rows
        return [self._state.vm_name(vm) for vm in rows["vm"][rows["phase"] == BROKEN].tolist()]

    # -- the backend: migrations

    def migrate(
        self,
        vm: str,
        source: str,
        target: str,
        method: Method,
        bandwidth: int,
        downtime: float,
        *,
        hand_over: bool = False,
    ) -> None:
        """Start a migration; what goes wrong after the source took it on is told by `reports`."""
        here, there = self._state.host[source], self._state.host[target]
        self._state.ask(here, f"migrate {vm}")
        self._supply.serve(there)
        which = self._state.vm[vm]
        order = Order(which, here, there, method, bandwidth, downtime, hand_over=hand_over)
        self._traffic.begin(order)

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        """Change a running migration's cap."""
        self._traffic.must_be_ours(self._state.vm[vm], "set the bandwidth of")
        self._traffic.limit(*self._copy(vm, host), bandwidth)

    def set_downtime(self, vm: str, host: str, downtime: float) -> None:
        """Change the longest pause of a running migration."""
        self._traffic.must_be_ours(self._state.vm[vm], "set the downtime of")
        self._traffic.allow_pause(*self._copy(vm, host), downtime)

    def switch_to_post_copy(self, vm: str, host: str) -> None:
        """Let a VM run on its target now, and its memory follow."""
        self._traffic.must_be_ours(self._state.vm[vm], "switch")
        self._traffic.switch(*self._copy(vm, host))

    def abort(self, vm: str, host: str) -> None:
        """Give a migration up."""
        self._traffic.must_be_ours(self._state.vm[vm], "abort")
        self._traffic.abort(*self._copy(vm, host))

    def adopt(self, vm: str, source: str, target: str) -> None:
        """Watch a migration that an earlier balancerd started."""
        here, there = self._state.host[source], self._state.host[target]
        self._traffic.adopt(self._state.vm[vm], here, there)

    def forget(self) -> None:
        """balancerd was started anew: migrations go on, and are not told of until adopted."""
        self._traffic.forget()

    def reports(self) -> tuple[JobReport, ...]:
        """Ends since the last call, and progress of migrations not told of for a while."""
        return self._traffic.reports()

    # -- the backend: reading and mending

    def observe(self, _meanwhile: Callable[[], None] = nothing) -> Observation:
        """Every host's reading, at the present moment: nobody is waited for."""
        state = self._state
        seen = self._reader.observe(state.at, state.now, frozenset(state.silent))
        return self._with_clocks(self._faults.disturb(seen))

    def _with_clocks(self, seen: Observation) -> Observation:
        """What is shown of hosts whose clocks were set."""
        readings = list(seen.readings)
        for index, ahead in self._state.ahead.items():
            if facts := readings[index].facts:
                shown = replace(facts, clock=float(round(ahead)))
                readings[index] = replace(readings[index], facts=shown)
        return replace(seen, readings=tuple(readings)) if self._state.ahead else seen

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        """What each of the hosts says of the VM."""
        index = self._state.vm.get(vm)
        if index is not None and uuid and self._state.site.vms[index].uuid != uuid:
            index = None
        found = {host: self._presence(index, host) for host in hosts}
        return Location(vm, self._state.at, found)

    def preflight(self, vm: str, uuid: str, source: str, target: str, method: Method) -> Preflight:
        """What both hosts say to a migration."""
        return preflight(self._state, vm, uuid, (source, target), method)

    def _presence(self, vm: int | None, name: str) -> Presence:
        host = self._state.host.get(name)
        if host is not None and self._supply.went_empty(host):
            return Presence.ABSENT
        if host is None or not self._state.answers(host):
            return Presence.UNREACHABLE
        return Presence.ABSENT if vm is None else self._state.copies.presence(vm, host)

    def resume(self, vm: str, host: str) -> None:
        """Let a copy go on that a migration left paused. Two that run are a violation."""
        self._let_go_on(vm, host, self._state.copies.resume)

    def resume_arrived(self, vm: str, host: str) -> None:
        """Let a copy go on that arrived paused. Two that run are a violation."""
        self._let_go_on(vm, host, self._state.copies.resume_arrived)

    def _let_go_on(self, vm: str, host: str, do: Callable[[int, int], None]) -> None:
        self._mend(vm, host, "resume", do)
        running = self.running(vm)
        if len(running) > 1:
            self._state.violate("runs twice", f"{vm} on {' and '.join(running)}")

    def destroy(self, vm: str, host: str) -> None:
        """End a paused copy. To want it of one that runs is a violation, and refused."""
        if host in self.running(vm):
            self._state.violate("would kill", f"{vm} on {host}")
        self._mend(vm, host, "destroy", self._state.copies.destroy)

    def undefine(self, vm: str, host: str) -> None:
        """Remove a left-over definition."""
        self._mend(vm, host, "undefine", self._state.copies.undefine)

    def set_autostart(self, vm: str, host: str, autostart: bool) -> None:
        """Set or clear the flag of a copy's definition."""
        copy = self._copy(vm, host)
        self._state.ask(copy[1], f"set autostart of {vm}")
        flags = self._state.copies.autostart
        (flags.add if autostart else flags.discard)(copy)

    def starts_with(self, vm: str, host: str) -> bool:
        """Whether the VM's definition on a host has it start when that does."""
        return self._copy(vm, host) in self._state.copies.autostart

    def _copy(self, vm: str, host: str) -> tuple[int, int]:
        return self._state.vm[vm], self._state.host[host]

    def _mend(self, vm: str, host: str, act: str, do: Callable[[int, int], None]) -> None:
        copy = self._copy(vm, host)
        self._state.ask(copy[1], f"{act} {vm}")
        try:
            do(*copy)
        except RefusedError as no:
            raise BackendError(host, f"{act} {vm}", no.text, no.code, no.domain) from None

    # -- power

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """The power state of each host."""
        power, host = self._state.machines.power.tolist(), self._state.host
        return {name: POWER_STATES[power[host[name]]] for name in hosts}

    def wake(self, host: str) -> None:
        """Switch a host on."""
        self._supply.wake(self._state.host[host])

    def sleep(self, host: str) -> None:
        """Shut a host down gracefully."""
        self._supply.sleep(self._state.host[host])

    def failures(self) -> Mapping[str, str]:
        """None: what is accepted here is done, or shows in the states."""
        return {}
