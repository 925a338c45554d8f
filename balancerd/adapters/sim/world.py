"""The simulated site as it lives: a Backend, a Power driver and a Clock over one virtual time.

Time passes only in `advance`, from event to event: a phase of a migration, a step of the load, a
host's boot, a fault. Everything else happens at once, at the present moment.

Inside, hosts and VMs are numbers and time is seconds since the start; names and times since the
epoch are only at the doors.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

import numpy as np

from balancerd.adapters.sim.copies import DONE, Copies, Ending, RefusedError
from balancerd.adapters.sim.events import Event, Story
from balancerd.adapters.sim.flights import ENDLESS_RATE, TICK, Flights, Phase, Tactic
from balancerd.adapters.sim.machines import NOWHERE, Accounts, Machines, Power
from balancerd.adapters.sim.network import Network
from balancerd.adapters.sim.readings import POWER_STATES, Charges, Reader, progress
from balancerd.adapters.sim.site import Site
from balancerd.core.model import Link, Method, PowerState
from balancerd.core.observation import JobReport, Location, Observation, Presence
from balancerd.ports import BackendError, PowerError

PROGRESS_EVERY = 5.0  # seconds between two reports of a migration's progress
TACTICS = {
    Method.PRE_COPY: Tactic.PRE_COPY,
    Method.STORAGE: Tactic.PRE_COPY,
    Method.AUTO_CONVERGE: Tactic.CONVERGE,
    Method.POST_COPY: Tactic.POST_COPY,
    Method.COLD: Tactic.COLD,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen, and did; `at` is seconds since the epoch."""

    at: float
    kind: str
    detail: str


class World:
    """See the module. Commands are those of the ports; `story` holds all that happened."""

    def __init__(self, site: Site) -> None:
        scenario = site.scenario
        self._site, self._scenario = site, scenario
        self._host = {host.name: index for index, host in enumerate(site.hosts)}
        self._vm = {vm.name: index for index, vm in enumerate(site.vms)}
        self._machines = Machines(site.hosts, site.placement, scenario.migration.cpu_loss)
        self._network = Network(site.links, tuple(self._host))
        self._flights = Flights(self._network, scenario.migration.switch_over)
        self._copies = Copies(self._machines, self._flights)
        self._charges = Charges(site.vms, self._machines, self._flights, self._copies)
        self._reader = Reader(
            site.hosts, site.vms, self._machines, self._flights, self._copies, self._charges
        )
        self._dirtying = np.array([float(f.dirty_rate) for f in site.flavours])
        self._sizes = np.array([vm.size for vm in site.vms])
        self._now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._news: list[JobReport] = []
        self._told: dict[int, float] = {}  # when a VM's migration was last reported on
        self._methods: dict[int, Method] = {}
        self._silent: set[int] = set()  # hosts that do not answer
        self._autostart: set[tuple[int, int]] = set()
        self._endings: Callable[[int, int, int], Ending] = lambda _vm, _source, _target: DONE
        self.story = Story()
        self.violations: list[Violation] = []
        self._begin()

    def _begin(self) -> None:
        machines = self._machines
        if self._scenario.power.start_empty_off:
            used = np.bincount(machines.place, minlength=len(machines.cpu)) > 0
            machines.power[~used] = Power.OFF
        machines.demand = self._site.load.demand(0.0)
        self._dirty()
        at = self.now()
        for vm, host in zip(self._site.vms, self._site.placement, strict=True):
            self.story.place(at, vm.name, self._site.hosts[host].name)
        for name, index in self._host.items():
            self.story.power(at, name, bool(machines.power[index] != Power.OFF))

    # Time

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._scenario.start + self._now

    def monotonic(self) -> float:
        """Seconds since the scenario's start."""
        return self._now

    @property
    def accounts(self) -> Accounts:
        """What was drawn, served and not served so far."""
        return self._machines.accounts

    @property
    def site(self) -> Site:
        """What this world was made of."""
        return self._site

    def links(self) -> tuple[Link, ...]:
        """The site graph."""
        return self._site.links

    def migrating(self) -> bool:
        """Whether any migration is under way."""
        return len(self._flights) > 0

    def has_news(self) -> bool:
        """Whether a migration ended and `reports` did not tell yet."""
        return bool(self._news)

    def next_event(self) -> float:
        """When a migration or a host's power gets on, seconds since the epoch; or infinite."""
        timer = self._timers[0][0] if self._timers else inf
        return self._scenario.start + min(timer, self._flights.next_event(self._now))

    def advance(self, to: float) -> None:
        """Let time pass until `to` (seconds since the epoch). Events less than a microsecond
        after it are part of it."""
        end = to - self._scenario.start
        while self._now < end:
            self._step(end)

    def _step(self, end: float) -> None:
        """To the next event, or to the end; and what happens there."""
        timer = self._timers[0][0] if self._timers else inf
        load = self._site.load.next_change(self._now)
        event = min(timer, load, self._flights.next_event(self._now))
        until = event if event <= end + TICK else end
        self._machines.run(until - self._now)
        self._flights.flow(until - self._now)
        self._now = max(until, self._now)
        if load <= until:
            self._machines.demand = self._site.load.demand(self._now)
            self._machines.changed()
            self._dirty()
        while self._timers and self._timers[0][0] <= self._now + TICK:
            heapq.heappop(self._timers)[2]()
        if len(self._flights):
            self._turn()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later; at once where there is no delay."""
        if seconds <= 0:
            act()
        else:
            heapq.heappush(self._timers, (self._now + seconds, next(self._numbers), act))

    def _dirty(self) -> None:
        if len(self._flights):
            share = self._machines.demand / self._sizes
            self._flights.set_dirty_rates(self._dirtying * share)

    # Migrations

    def _turn(self) -> None:
        over, stopped, landed = self._flights.turn(self._now)
        machines, rows = self._machines, self._flights.rows
        machines.throttle[rows["vm"]] = rows["throttle"]
        for index in stopped:
            machines.stopped[rows["vm"][index]] = True
        for index in landed:
            if rows["phase"][index] == Phase.PULL:
                vm = int(rows["vm"][index])
                machines.stopped[vm] = False
                machines.arrive(vm, int(rows["target"][index]))
        machines.changed()
        if over:
            ended = [rows[index].copy() for index in over]
            self._flights.remove(over)
            for row in ended:
                vm, source, target = int(row["vm"]), int(row["source"]), int(row["target"])
                self._end(row, self._endings(vm, source, target))

    def _end(self, row: np.void, ending: Ending) -> None:
        """A migration whose row is gone has ended like this: copies, story, news, power."""
        vm, source, target = int(row["vm"]), int(row["source"]), int(row["target"])
        self._copies.end(vm, source, target, ending)
        self._told.pop(vm, None)
        method = self._methods.pop(vm)
        done = not ending.error
        name, places = self._site.vms[vm].name, (self._name(source), self._name(target))
        aborted = ending.code == 78
        self.story.move_end(
            self.now(),
            name,
            *places,
            method.value,
            int(row["sent"]),
            float(row["downtime"]),
            "done" if done else "aborted" if aborted else "failed",
        )
        self._news.append(
            JobReport(
                vm=name,
                source=places[0],
                target=places[1],
                at=self.now(),
                progress=progress(row, self._now),
                ended=True,
                error=ending.error,
                error_code=ending.code,
                error_domain=ending.domain,
                bytes=int(row["sent"]) if done else None,
                iterations=int(row["round"]) if done else None,
                downtime=float(row["downtime"]) if done else None,
                seconds=float(self._now - row["began"]) if done else None,
            )
        )
        if ending.cleans_up_after is not None:
            self._after(ending.cleans_up_after, lambda: self._clean_up(vm, target))
        self._follow(source)

    def _clean_up(self, vm: int, host: int) -> None:
        """The hypervisor ends an incoming half that nobody feeds any more."""
        if self._copies.oddities.get((vm, host)) is Presence.INCOMING:
            del self._copies.oddities[vm, host]

    def _fail(self, index: int, ending: Ending) -> None:
        """End one migration before its time."""
        row = self._flights.rows[index].copy()
        self._flights.remove([index])
        self._end(row, ending)

    def migrate(
        self, vm: str, source: str, target: str, method: Method, bandwidth: int, downtime: float
    ) -> None:
        """Start a migration, as libvirt would: what goes wrong at once is told by `reports`."""
        index, here, there = self._vm[vm], self._host[source], self._host[target]
        self._ask(here, "migrate")
        if self._copies.presence(index, here) is not Presence.RUNNING:
            state = self._copies.presence(index, here)
            if state is Presence.RUNNING_WITH_JOB:
                self._refuse(vm, source, target, "another migration job is already running", 55)
                return
            raise BackendError(source, f"migrate {vm}", f"domain is {state.value}", 42, 10)
        if self._scenario.power.follows_vms and self._machines.power[there] == Power.OFF:
            self._switch(there, Power.ON)
        trouble = self._trouble(index, there)
        if trouble:
            self._refuse(vm, source, target, *trouble)
            return
        self._take_off(index, here, there, method, bandwidth, downtime)

    def _take_off(
        self, vm: int, source: int, target: int, method: Method, bandwidth: int, downtime: float
    ) -> None:
        facts, flavour = self._site.vms[vm], self._site.flavours[vm]
        rules = self._scenario.migration
        total = float(facts.memory)
        if method is Method.STORAGE:
            total += sum(disk.size for disk in facts.disks if not disk.shared)
        self._flights.begin(
            vm=vm,
            source=source,
            target=target,
            tactic=TACTICS[method],
            now=self._now,
            setup=rules.setup,
            total=total,
            working_set=flavour.working_set * facts.memory,
            cap=min(bandwidth or ENDLESS_RATE, rules.bandwidth or ENDLESS_RATE),
            pause_limit=downtime,
        )
        self._dirty()
        self._methods[vm] = method
        self._told[vm] = self._now
        self._machines.migrating[vm] = True
        self._machines.stopped[vm] = method is Method.COLD
        self._machines.changed()
        self.story.move_start(
            self.now(), facts.name, self._name(source), self._name(target), method.value
        )
        self._turn()

    def _trouble(self, vm: int, target: int) -> tuple[str, int, int] | None:
        """Why the target does not take the VM: the error's text, code and domain."""
        name = self._name(target)
        if self._machines.power[target] != Power.ON:
            self._violate("sent to a host that is not on", f"{self._site.vms[vm].name} to {name}")
            return f"unable to connect to server at '{name}': no route to host", 38, 7
        if target in self._silent:
            return "unable to connect to server: connection timed out", 38, 7
        state = self._copies.presence(vm, target)
        if state is Presence.RUNNING:
            return "domain is already active", 55, 20
        if state in (Presence.INCOMING, Presence.HANDED_OVER, Presence.OUTGOING):
            return "domain is already being migrated in", 55, 20
        room = self._site.hosts[target].memory - self._charges.bytes()[target]
        if self._site.vms[vm].memory > room:
            self._violate("no room in memory", f"{self._site.vms[vm].name} to {name}")
            return "migration failed: cannot allocate memory", 9, 10
        return None

    def _refuse(
        self, vm: str, source: str, target: str, error: str, code: int, domain: int = 10
    ) -> None:
        """A migration that failed before it began."""
        self._news.append(
            JobReport(
                vm,
                source,
                target,
                self.now(),
                ended=True,
                error=error,
                error_code=code,
                error_domain=domain,
            )
        )

    def set_bandwidth(self, vm: str, host: str, bandwidth: int) -> None:
        """Change a running migration's cap."""
        index = self._running_job(vm, host, "set bandwidth")
        cap = min(bandwidth or ENDLESS_RATE, self._scenario.migration.bandwidth or ENDLESS_RATE)
        self._flights.rows["cap"][index] = cap
        self._flights.share_again()

    def set_downtime(self, vm: str, host: str, downtime: float) -> None:
        """Change the longest pause; it counts from the end of the present round."""
        index = self._running_job(vm, host, "set downtime")
        self._flights.rows["pause_limit"][index] = downtime

    def abort(self, vm: str, host: str) -> None:
        """Give a migration up; one in post-copy cannot be."""
        index = self._running_job(vm, host, "abort")
        if self._flights.rows["phase"][index] == Phase.PULL:
            raise BackendError(host, f"abort {vm}", "cannot abort in post-copy mode", 55, 10)
        self._fail(
            index,
            Ending(Presence.RUNNING, Presence.ABSENT, "migration canceled by client", 78, 10),
        )

    def adopt(self, vm: str, source: str, target: str) -> None:
        """Nothing to do: all migrations are watched."""

    def reports(self) -> tuple[JobReport, ...]:
        """Ends since the last call, and progress of migrations not told of for a while."""
        news, self._news = self._news, []
        for row in self._flights.rows:
            vm = int(row["vm"])
            if self._now - self._told[vm] >= PROGRESS_EVERY - TICK:
                self._told[vm] = self._now
                places = (self._name(int(row["source"])), self._name(int(row["target"])))
                name = self._site.vms[vm].name
                news.append(JobReport(name, *places, self.now(), progress(row, self._now)))
        return tuple(news)

    def _running_job(self, vm: str, host: str, act: str) -> int:
        """The row of a VM's migration from this host."""
        self._ask(self._host[host], act)
        index = self._flights.find(self._vm[vm])
        if index is None or self._flights.rows["source"][index] != self._host[host]:
            raise BackendError(host, f"{act} {vm}", "no job is active on the domain", 55, 10)
        return index

    # Reading and mending

    def observe(self) -> Observation:
        """Every host's reading, at the present moment."""
        return self._reader.observe(self.now(), self._now, frozenset(self._silent))

    def locate(self, vm: str, uuid: str, hosts: Sequence[str]) -> Location:
        """What each of the hosts says of the VM."""
        index = self._vm.get(vm)
        if index is None or (uuid and self._site.vms[index].uuid != uuid):
            return Location(vm, self.now(), dict.fromkeys(hosts, Presence.ABSENT))
        return Location(vm, self.now(), {host: self._presence(index, host) for host in hosts})

    def _presence(self, vm: int, host: str) -> Presence:
        index = self._host.get(host)
        if index is None or index in self._silent or self._machines.power[index] != Power.ON:
            return Presence.UNREACHABLE
        return self._copies.presence(vm, index)

    def resume(self, vm: str, host: str) -> None:
        """Let a paused copy run. Two that run are a violation."""
        self._mend(vm, host, "resume", self._copies.resume)
        running = [self._name(index) for index in self._copies.running(self._vm[vm])]
        if len(running) > 1:
            self._violate("runs twice", f"{vm} on {', '.join(sorted(running))}")

    def destroy(self, vm: str, host: str) -> None:
        """End a copy. Ending the only one that runs is a violation."""
        before = list(self._copies.running(self._vm[vm]))
        self._mend(vm, host, "destroy", self._copies.destroy)
        if before and not list(self._copies.running(self._vm[vm])):
            self._violate("killed", f"{vm} on {host}")

    def undefine(self, vm: str, host: str) -> None:
        """Remove a left-over definition."""
        self._mend(vm, host, "undefine", self._copies.undefine)

    def set_autostart(self, vm: str, host: str, autostart: bool) -> None:
        """Set or clear the flag of a copy's definition."""
        self._ask(self._host[host], "set autostart")
        flag = (self._vm[vm], self._host[host])
        (self._autostart.add if autostart else self._autostart.discard)(flag)

    def _mend(self, vm: str, host: str, act: str, do: Callable[[int, int], None]) -> None:
        self._ask(self._host[host], act)
        try:
            do(self._vm[vm], self._host[host])
        except RefusedError as refusal:
            raise BackendError(
                host, f"{act} {vm}", refusal.text, refusal.code, refusal.domain
            ) from None

    def _ask(self, host: int, act: str) -> None:
        """BackendError where a host would not answer."""
        if host in self._silent or self._machines.power[host] != Power.ON:
            raise BackendError(self._name(host), act, "no answer in time", 38, 7)

    # Power

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """The power state of each host."""
        power = self._machines.power
        return {name: POWER_STATES[Power(power[self._host[name]])] for name in hosts}

    def wake(self, host: str) -> None:
        """Switch a host on; it boots for as long as the scenario says."""
        index = self._host[host]
        if self._machines.power[index] != Power.OFF:
            raise PowerError(f"{host}: is {self.states([host])[host].value}, not off")
        boot = self._scenario.power.boot
        if boot > 0:
            self._switch(index, Power.WAKING)
        self._after(boot, lambda: self._switch(index, Power.ON))

    def sleep(self, host: str) -> None:
        """Shut a host down gracefully; VMs that it still has go down with it, a violation."""
        index = self._host[host]
        if self._machines.power[index] != Power.ON:
            raise PowerError(f"{host}: is {self.states([host])[host].value}, not on")
        self._shut_down_vms(index)
        self._switch(index, Power.SLEEPING)
        self._after(self._scenario.power.shutdown, lambda: self._switch(index, Power.OFF))

    def _shut_down_vms(self, host: int) -> None:
        rows = self._flights.rows
        for index in sorted(np.flatnonzero(rows["target"] == host), reverse=True):
            self._violate("switched off under a migration", self._name(host))
            error = Ending(Presence.RUNNING, Presence.ABSENT, "client socket is closed", 1, 7)
            self._fail(int(index), error)
        for vm in np.flatnonzero(self._machines.place == host):
            self._violate(
                "switched off with a VM", f"{self._site.vms[vm].name} on {self._name(host)}"
            )
            under_way = self._flights.find(int(vm))
            if under_way is not None:
                lost = Ending(Presence.SHUTOFF, Presence.ABSENT, "domain is not running", 9, 20)
                self._fail(under_way, lost)
            else:
                self._copies.oddities[int(vm), host] = Presence.SHUTOFF
                self._machines.arrive(int(vm), NOWHERE)

    def _switch(self, host: int, power: Power) -> None:
        before = self._machines.power[host] != Power.OFF
        self._machines.power[host] = power
        self._machines.changed()
        if power is Power.ON:
            self._machines.host_busy[host] = 0.0
        if before != (power is not Power.OFF):
            self.story.power(self.now(), self._name(host), not before)

    def _follow(self, host: int) -> None:
        """Where power follows the VMs: a host that lost its last one goes off at once."""
        if not self._scenario.power.follows_vms or self._machines.power[host] != Power.ON:
            return
        if self._charges.bytes()[host] == 0:
            self._switch(host, Power.OFF)

    def _name(self, host: int) -> str:
        return self._site.hosts[host].name

    def _violate(self, kind: str, detail: str) -> None:
        self.violations.append(Violation(self.now(), kind, detail))

    def events(self) -> list[Event]:
        """The story so far, in time order."""
        return self.story.events
