"""Migrations from the command to the last report, as a hypervisor handles them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from balancerd.adapters.sim import carriage
from balancerd.adapters.sim.copies import DONE, Ending
from balancerd.adapters.sim.endings import (
    LOST_EACH_OTHER,
    NO_DISK,
    arrived_paused,
    is_handed_over,
    pulled,
)
from balancerd.adapters.sim.flights import BROKEN, ENDLESS_RATE, PULL, TICK, Tactic
from balancerd.adapters.sim.machines import ON
from balancerd.adapters.sim.readings import progress
from balancerd.adapters.sim.state import State
from balancerd.core.columns import rows_where
from balancerd.core.model import WITH_DISKS, Method
from balancerd.core.observation import JobReport, Presence
from balancerd.ports import BackendError

PROGRESS_EVERY = 5.0  # seconds between two reports of a migration's progress
CANCELLED = 78  # libvirt's code for a job that was aborted
ABORTED = Ending(Presence.RUNNING, Presence.ABSENT, "job was canceled by client", CANCELLED, 10)
TACTICS = {
    Method.PRE_COPY: Tactic.PRE_COPY,
    Method.STORAGE: Tactic.PRE_COPY,
    Method.OVERLAY: Tactic.PRE_COPY,
    Method.AUTO_CONVERGE: Tactic.CONVERGE,
    Method.POST_COPY: Tactic.POST_COPY,
}
Refusal = tuple[str, int, int]  # the error's text, code and domain
JOB_GONE: Refusal = ("domain not found, or it has no job", 42, 10)


@dataclass(frozen=True, slots=True)
class Order:
    """A migration that is asked for. `ours` is balancerd's, others are of an operator."""

    vm: int
    source: int
    target: int
    method: Method = Method.PRE_COPY
    cap: float = 0.0  # bytes per second; 0: none
    pause: float = 0.3  # seconds
    ours: bool = True
    hand_over: bool = False  # it arrives paused


def no_fault(_vm: int, _source: int, _target: int) -> Ending:
    """All goes well."""
    return DONE


class Traffic:
    """All migrations. `ending` says how one ends that was copied; `on_begin` sees each start,
    `on_pull` each VM that goes on in post-copy, `on_left` each host that a migration has left."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._news: list[JobReport] = []
        self._told: dict[int, float] = {}  # when a VM's migration was last reported on
        self._methods: dict[int, Method] = {}
        self._watched: set[int] = set()  # VMs whose migration balancerd hears of
        self._foreign: set[int] = set()  # VMs whose migration somebody else began
        self._handed_over: set[int] = set()  # VMs that are to arrive paused
        flavours, vms = state.site.flavours, state.site.vms
        self._dirtying = np.array([float(flavour.dirty_rate) for flavour in flavours])
        self._sizes = np.array([vm.size for vm in vms])
        self.ending: Callable[[int, int, int], Ending] = no_fault
        self.refusals: list[Callable[[int, int], Refusal | None]] = []  # by VM and target
        self.on_begin: list[Callable[[int], None]] = []
        self.on_pull: list[Callable[[int], None]] = []
        self.on_left: list[Callable[[int], None]] = []

    # -- commands

    def begin(self, order: Order) -> None:
        """Start a migration. BackendError where the source does not answer or has no such VM;
        whatever else is wrong is news."""
        vm, source = order.vm, order.source
        self._state.ask(source, "migrate")
        if order.method is Method.COLD:
            self._begin_cold(order)
            return
        state = self._state.copies.presence(vm, source)
        if state not in (Presence.RUNNING, Presence.RUNNING_WITH_JOB):
            raise self._error(source, vm, "migrate", f"domain is {state.value}", 42)
        trouble = self._trouble(order)
        if trouble is None:
            self._take_off(order)
        elif order.ours:
            self._tell_end(vm, source, order.target, Ending(state, Presence.ABSENT, *trouble))

    def _begin_cold(self, order: Order) -> None:
        """Move a definition; what came of it is told after a while."""
        ends = order.vm, order.source, order.target
        said = (refuse(order.vm, order.target) for refuse in self.refusals)
        trouble = next(filter(None, said), None) or carriage.begin(self._state, *ends)
        if trouble is not None:
            self._tell_end(*ends, Ending(Presence.SHUTOFF, Presence.ABSENT, *trouble))
        else:
            self._watched.add(order.vm)
            self._state.timers.add(self._state.now + carriage.SECONDS, partial(self._carry, *ends))

    def _carry(self, vm: int, source: int, target: int) -> None:
        error = carriage.end(self._state, vm, source, target) or ("", 0, 0)
        if vm in self._watched:
            self._tell_end(vm, source, target, Ending(Presence.ABSENT, Presence.SHUTOFF, *error))
        self._watched.discard(vm)

    def forget(self) -> None:
        """balancerd is another process now: it hears of nothing that it does not adopt."""
        self._watched.clear()
        self._news.clear()

    def adopt(self, vm: int, source: int, target: int) -> None:
        """Tell of a migration that is under way; where none is, of its end, without figures."""
        if vm in self._watched:
            return
        index = self._state.flights.find(vm)
        if index is not None and self._has_job(index) and self._state.answers(source):
            self._watched.add(vm)
        else:
            self._tell_end(vm, source, target, Ending(Presence.ABSENT, Presence.ABSENT, *JOB_GONE))

    def ours(self) -> list[tuple[str, str, str]]:
        """VM, source and target of each migration under way that balancerd began."""
        state = self._state
        ways = [_ends(row) for row in state.flights.rows]
        return [
            (state.vm_name(vm), state.host_name(source), state.host_name(target))
            for vm, source, target in ways
            if vm not in self._foreign
        ]

    def must_be_ours(self, vm: int, act: str) -> None:
        """Note that balancerd lays hands on a migration that somebody else began."""
        if vm in self._foreign:
            name = self._state.vm_name(vm)
            self._state.violate("not ours", f"{act} the migration of {name} that somebody began")

    def abort(self, vm: int, host: int) -> None:
        """Give a migration up; one in post-copy cannot be."""
        index = self.job(vm, host, "abort")
        if self._state.flights.rows["phase"][index] >= PULL:
            raise self._error(host, vm, "abort", "cannot abort migration in post-copy mode")
        self.fail(index, ABORTED)

    def limit(self, vm: int, host: int, cap: float) -> None:
        """Change a running migration's cap, bytes per second."""
        index = self.job(vm, host, "set bandwidth")
        self._state.flights.rows["cap"][index] = self._capped(cap)
        self._state.flights.share_again()

    def allow_pause(self, vm: int, host: int, pause: float) -> None:
        """Change the longest pause; it counts from the end of the present round."""
        index = self.job(vm, host, "set downtime")
        self._state.flights.rows["pause_limit"][index] = pause

    def switch(self, vm: int, host: int) -> None:
        """From pre-copy to post-copy."""
        index = self.job(vm, host, "switch to post-copy")
        if not self._state.flights.switch(index, self._state.now):
            raise self._error(host, vm, "switch to post-copy", "post-copy was not asked for")
        self._state.machines.stopped[vm] = True
        self._state.machines.changed()
        self.turn()

    def job(self, vm: int, host: int, act: str) -> int:
        """The row of a VM's migration from this host; BackendError where there is none."""
        self._state.ask(host, act)
        index = self._state.flights.find(vm)
        here = index is not None and self._state.flights.rows["source"][index] == host
        if index is None or not here or not self._has_job(index):
            raise self._error(host, vm, act, "no job is active on the domain")
        return index

    def _has_job(self, index: int) -> bool:
        """Whether a migration's source still manages it."""
        row = self._state.flights.rows[index]
        return row["phase"] != BROKEN and int(row["vm"]) not in self._state.copies.unwatched

    def copies_disks(self, vm: int) -> bool:
        """Whether a VM is being migrated with its disks."""
        return self._methods.get(vm) in WITH_DISKS

    def _error(self, host: int, vm: int, act: str, cause: str, code: int = 55) -> BackendError:
        name, subject = self._state.host_name(host), self._state.vm_name(vm)
        return BackendError(name, f"{act} {subject}", cause, code, 10)

    def _capped(self, cap: float) -> float:
        limit = self._state.site.scenario.migration.bandwidth
        return min(cap or ENDLESS_RATE, limit or ENDLESS_RATE)

    def _trouble(self, order: Order) -> Refusal | None:
        """Why the migration does not even begin."""
        state, vm, target = self._state, order.vm, order.target
        if state.flights.find(vm) is not None:
            return "another migration job is already running for the domain", 55, 10
        if order.source == target:
            return "attempt to migrate guest to the same host", 1, 10
        if state.machines.power[target] != ON:
            self._blame(order, "sent to a host that is not on")
        if not state.answers(target):
            return "unable to connect to the target: connection timed out", 38, 7
        there = state.copies.presence(vm, target)
        if there not in (Presence.ABSENT, Presence.SHUTOFF, Presence.MIGRATED, Presence.FAILED):
            return "domain is already active on the target", 55, 20
        facts = state.site.vms[vm]
        if not self._has_its_disks(order):
            return NO_DISK
        for refuse in self.refusals:
            if trouble := refuse(vm, target):
                return trouble
        room = state.site.hosts[target].memory - state.charges.on(target)
        if facts.memory > room:
            self._blame(order, "no room in memory")
            return "migration failed: cannot allocate memory on the target", 9, 10
        return None

    def _has_its_disks(self, order: Order) -> bool:
        """Whether the VM finds its disks on the target. On a base that differs they are ruined."""
        facts, ends = self._state.site.vms[order.vm], {order.source, order.target}
        if order.method is Method.OVERLAY and len(ends & self._state.rebased) == 1:
            self._blame(order, "put on another base image")
        if order.method in WITH_DISKS or all(disk.shared for disk in facts.disks):
            return True
        self._blame(order, "sent without its disks")
        return False

    def _blame(self, order: Order, kind: str) -> None:
        """Note what balancerd must not ask for; operators may try what they like."""
        if order.ours:
            state = self._state
            route = f"{state.vm_name(order.vm)} to {state.host_name(order.target)}"
            state.violate(kind, route)

    def _take_off(self, order: Order) -> None:
        state, vm, method = self._state, order.vm, order.method
        facts = state.site.vms[vm]
        total = float(facts.memory)
        if method in WITH_DISKS:
            local = [disk for disk in facts.disks if not disk.shared]
            alone = method is Method.OVERLAY
            total += sum(disk.allocated if alone else disk.size for disk in local)
        state.flights.begin(
            vm=vm,
            source=order.source,
            target=order.target,
            tactic=TACTICS[method],
            now=state.now,
            setup=state.site.scenario.migration.setup,
            total=total,
            working_set=state.site.flavours[vm].working_set * facts.memory,
            cap=self._capped(order.cap),
            pause_limit=order.pause,
        )
        state.copies.begin(vm, order.target)
        self.feel_load()
        self._methods[vm], self._told[vm] = method, state.now
        (self._watched if order.ours else self._foreign).add(vm)
        if order.hand_over:
            self._handed_over.add(vm)
        state.machines.migrating[vm] = True
        state.machines.changed()
        names = (state.host_name(order.source), state.host_name(order.target))
        state.story.move_start(state.at, facts.name, *names, method.value)
        for seen in self.on_begin:
            seen(vm)
        self.turn()

    # -- time

    def feel_load(self) -> None:
        """Demand changed, or migrations did: VMs dirty their memory as fast as they work."""
        if len(self._state.flights):
            share = self._state.machines.demand / self._sizes
            self._state.flights.set_dirty_rates(self._dirtying * share)

    def turn(self) -> None:
        """Let phases and rounds end that end now."""
        flights, machines = self._state.flights, self._state.machines
        if not len(flights):
            return
        due = flights.due(self._state.now)
        if not due:
            return
        over, stopped, landed = flights.turn(due, self._state.now)
        rows = flights.rows
        machines.throttle[rows["vm"]] = rows["throttle"]
        machines.stopped[rows["vm"][stopped]] = True
        for index in landed:
            if rows["phase"][index] == PULL:
                vm = int(rows["vm"][index])
                machines.stopped[vm] = False
                machines.arrive(vm, int(rows["target"][index]))
                for seen in self.on_pull:
                    seen(vm)
        machines.changed()
        ended = [rows[index].copy() for index in over]
        if over:
            flights.remove(over)
        for row in ended:
            ending = self.ending(*_ends(row))
            if row["phase"] == PULL:
                unseen = int(row["vm"]) in self._state.copies.unwatched
                ending = pulled(ending, unseen=unseen)
            self._end(row, ending)

    def fail(self, index: int, ending: Ending) -> None:
        """End a migration before its time; one in post-copy only where one of its halves ends."""
        if self._state.flights.rows["phase"][index] >= PULL:
            if self._outlives(index, ending):
                return
            ending = replace(ending, source=ending.torn[0], target=ending.torn[1], half_lasts=None)
        row = self._state.flights.rows[index].copy()
        self._state.flights.remove([index])
        self._end(row, ending)

    def _outlives(self, index: int, ending: Ending) -> bool:
        """Whether a post-copy goes on after a blow: unseen, or once somebody recovers it."""
        state, vm = self._state, int(self._state.flights.rows["vm"][index])
        source, target = ending.torn
        if ending.torn == LOST_EACH_OTHER:
            state.flights.break_off(index)
            state.copies.unwatched.pop(vm, None)
            state.machines.stopped[vm] = True
            state.machines.changed()
        elif target is not Presence.POSTCOPY:
            return False
        elif state.flights.rows["phase"][index] == PULL:
            state.copies.unwatched[vm] = source
        self.lose_sight(vm, (ending.error, ending.code, ending.domain))
        return True

    def recover(self, vm: int) -> None:
        """Let a post-copy go on that was broken off; nothing where its hosts are out of reach."""
        state, index = self._state, self._state.flights.find(vm)
        if index is None or state.flights.rows["phase"][index] != BROKEN:
            return
        row = state.flights.rows[index]
        linked = all(state.network.capacities[link] > 0 for link in row["path"])
        if linked and all(state.answers(int(row[end])) for end in ("source", "target")):
            state.flights.recover(index)
            state.machines.stopped[vm] = False
            state.machines.changed()

    def fail_where(self, end: str, host: int, ending: Ending) -> None:
        """End all migrations that have their "source" or "target" on this host."""
        for index in rows_where(self._state.flights.rows[end] == host)[::-1]:
            self.fail(int(index), ending)

    def lose_sight(self, vm: int, error: Refusal) -> None:
        """The caller is told of an end, and the migration goes on."""
        index = self._state.flights.find(vm)
        if index is not None and vm in self._watched:
            self._watched.remove(vm)
            _, source, target = _ends(self._state.flights.rows[index])
            self._tell_end(vm, source, target, Ending(Presence.RUNNING, Presence.ABSENT, *error))

    def _end(self, row: np.void, ending: Ending) -> None:
        """A migration whose row is gone has ended like this."""
        state, (vm, source, target) = self._state, _ends(row)
        if vm in self._handed_over:
            self._handed_over.remove(vm)
            ending = arrived_paused(ending)
        state.copies.unwatched.pop(vm, None)
        state.copies.end(vm, source, target, ending)
        names = (state.vm_name(vm), state.host_name(source), state.host_name(target))
        method, sent, downtime = self._methods.pop(vm), int(row["sent"]), float(row["downtime"])
        outcome = "aborted" if ending.code == CANCELLED else "failed"
        if state.machines.place[vm] == target or is_handed_over(ending):
            outcome = "done"
        state.story.move_end(state.at, *names, method.value, sent, downtime, outcome)
        self._told.pop(vm, None)
        self._foreign.discard(vm)
        if vm in self._watched:
            self._watched.remove(vm)
            self._tell_end(vm, source, target, ending, row)
        if ending.half_lasts is not None:
            state.after(ending.half_lasts, lambda: self._clean_up(vm, target))
        for seen in self.on_left:
            seen(source)

    def _clean_up(self, vm: int, host: int) -> None:
        """The hypervisor ends an incoming half that nobody feeds any more."""
        if self._state.copies.oddities.get((vm, host)) is Presence.INCOMING:
            del self._state.copies.oddities[vm, host]

    # -- news

    @property
    def news(self) -> bool:
        """Whether a migration ended that `reports` did not tell of yet."""
        return bool(self._news)

    def reports(self) -> tuple[JobReport, ...]:
        """Ends since the last call, and progress of migrations not told of for a while."""
        ends, self._news = self._news, []
        return (*ends, *self._progress())

    def _progress(self) -> Iterator[JobReport]:
        state = self._state
        for row in state.flights.rows:
            vm, source, target = _ends(row)
            late = state.now - self._told[vm] >= PROGRESS_EVERY - TICK
            if late and vm in self._watched:
                self._told[vm] = state.now
                yield JobReport(
                    *(state.vm_name(vm), state.host_name(source), state.host_name(target)),
                    at=state.at,
                    progress=progress(row, state.now),
                )

    def _tell_end(
        self, vm: int, source: int, target: int, ending: Ending, row: np.void | None = None
    ) -> None:
        """The call returned: with an error, or with the statistics of a migration that ran."""
        state, ok = self._state, row is not None and not ending.error
        report = JobReport(
            *(state.vm_name(vm), state.host_name(source), state.host_name(target)),
            at=state.at,
            progress=None if row is None else progress(row, state.now),
            ended=True,
            answered=state.answers(source),
            error=ending.error,
            error_code=ending.code,
            error_domain=ending.domain,
        )
        if ok and row is not None:
            report = replace(
                report,
                bytes=int(row["sent"]),
                iterations=int(row["round"]),
                downtime=float(row["downtime"]),
                seconds=float(state.now - row["began"]),
            )
        self._news.append(report)


def _ends(row: np.void) -> tuple[int, int, int]:
    """The VM, source and target of a migration."""
    return int(row["vm"]), int(row["source"]), int(row["target"])
