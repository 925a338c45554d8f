"""What goes wrong in a world, when a scenario says so: hosts that are struck, migrations that fail.

The same seed gives the same faults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from balancerd.adapters.sim import endings
from balancerd.adapters.sim.copies import DONE, Ending
from balancerd.adapters.sim.flights import Phase, Tactic
from balancerd.adapters.sim.hand import Hand
from balancerd.adapters.sim.instruments import DISTORTIONS, Instruments
from balancerd.adapters.sim.machines import NOWHERE, Power
from balancerd.adapters.sim.scenario import Fault, FaultKind
from balancerd.adapters.sim.state import State
from balancerd.adapters.sim.supply import Supply
from balancerd.adapters.sim.traffic import Refusal, Traffic
from balancerd.core.columns import rows_where
from balancerd.core.observation import Observation, Presence
from balancerd.core.units import DAY

# Shares of the cases in which chance decides.
AT_SOURCE = 0.5  # that a process of a VM in post-copy which dies is its source's
SKEWS = (-3600.0, -20.0, 0.5, 20.0, 3600.0)  # seconds by which a clock that is set is ahead
LOSE_PATIENCE = 0.5  # that a post-copy over a link that is cut is broken off


@dataclass(frozen=True, slots=True)
class _Blow:
    """A fault of one host: what begins it, and what ends it."""

    begin: Callable[[int, Fault], None]
    end: Callable[[int], None]


class Faults:
    """The faults of a scenario. They take effect from the moment they are made."""

    def __init__(self, state: State, traffic: Traffic, supply: Supply) -> None:
        self._state, self._traffic, self._supply = state, traffic, supply
        self._random = np.random.default_rng(state.site.scenario.seed)
        self._in_force: list[Fault] = []  # faults of migrations
        self._fates: dict[int, Ending] = {}  # how migrations under way will end
        self._full: set[int] = set()  # hosts without memory for another VM
        self._no_space: set[int] = set()  # hosts without room for another disk
        self._instruments, self._hand = Instruments(), Hand(state, traffic)
        self._blows = self._table()
        traffic.ending = self._ending
        traffic.refusals.append(self._refusal)
        traffic.on_begin.append(self._on_begin)
        traffic.on_pull.append(self._on_pull)
        for fault in state.site.scenario.faults:
            self._plan(fault)

    def _table(self) -> Mapping[FaultKind, _Blow]:
        repair, answer = self._instruments.repair, self._state.silent.discard
        broken, stuck = self._supply.broken, self._supply.stuck
        return {
            FaultKind.HOST_CRASH: _Blow(self._crash, self._recover),
            FaultKind.UNREACHABLE: _Blow(self._hang, answer),
            FaultKind.DAEMON_KILLED: _Blow(self._kill, answer),
            FaultKind.FROZEN_COUNTERS: _Blow(self._freeze, repair),
            FaultKind.ABSURD_READING: _Blow(self._distort, repair),
            FaultKind.NETWORK_CUT: _Blow(self._cut, self._mend),
            FaultKind.TARGET_FULL: _Blow(self._fill, self._full.discard),
            FaultKind.STORAGE_FULL: _Blow(self._fill_storage, self._no_space.discard),
            FaultKind.CLOCK_SET: _Blow(self._set_clock, self._follow_clock),
            FaultKind.BASE_CHANGED: _Blow(self._rebase, self._state.rebased.discard),
            FaultKind.POWER_ON_FAILS: _Blow(self._break, broken.discard),
            FaultKind.POWER_OFF_FAILS: _Blow(self._jam, stuck.discard),
        }

    def disturb(self, observation: Observation) -> Observation:
        """The observation as the hosts' instruments give it."""
        return self._instruments.disturb(observation)

    def _plan(self, fault: Fault) -> None:
        """Put the fault's strikes into the world's future."""
        if fault.at is not None:
            self._state.after(fault.at, partial(self.strike, fault))
        elif fault.per_day is not None:
            gap = float(self._random.exponential(DAY / fault.per_day))
            self._state.timers.add(self._state.now + gap, partial(self._strike_again, fault))
        else:
            self._in_force.append(fault)

    def _strike_again(self, fault: Fault) -> None:
        self.strike(fault)
        self._plan(fault)

    def strike(self, fault: Fault) -> None:
        """Let a fault happen now."""
        if fault.kind is FaultKind.MIGRATION_FAILS:
            self._in_force.append(fault)
            self._state.after(fault.lasts, partial(self._in_force.remove, fault))
            return
        if fault.kind is FaultKind.VM_CRASH:
            self._crash_vm(fault)
            return
        host = self._victim(fault)
        if host is not None:
            blow = self._blows[fault.kind]
            blow.begin(host, fault)
            self._state.after(fault.lasts, partial(blow.end, host))

    def _victim(self, fault: Fault) -> int | None:
        """The host that is struck: the one named, or any; only one that the fault can strike."""
        down = fault.kind is FaultKind.POWER_ON_FAILS
        candidates = [
            host
            for host, power in enumerate(self._state.machines.power.tolist())
            if (power == Power.OFF if down else self._state.answers(host))
        ]
        if fault.host:
            host = self._state.host[fault.host]
            return host if down or host in candidates else None
        return int(self._random.choice(candidates)) if candidates else None

    # -- hosts

    def _crash(self, host: int, _: Fault) -> None:
        self._supply.crash(host)

    def _recover(self, host: int) -> None:
        """The host is switched on again, and starts the VMs that run nowhere else."""
        if self._state.machines.power[host] == Power.OFF:
            self._supply.wake(host)
        boot = self._state.site.scenario.power.boot
        self._state.after(boot, partial(self._restart_vms, host))

    def _crash_vm(self, fault: Fault) -> None:
        """A VM's process dies, in post-copy either of the two; it is started again on the host
        where it ran."""
        state = self._state
        running = rows_where(state.machines.place != NOWHERE)
        if fault.vm:
            running = running[running == state.vm[fault.vm]]
        if len(running):
            vm = int(self._random.choice(running))
            host = int(state.machines.place[vm])
            names = state.vm_name(vm), state.host_name(host)
            self._hand.crash(names[0], at_source=bool(self._random.random() < AT_SOURCE))
            state.after(fault.lasts, partial(self._hand.start, *names))

    def _restart_vms(self, host: int) -> None:
        state = self._state
        for (vm, place), copy in list(state.copies.oddities.items()):
            down = place == host and copy is Presence.SHUTOFF and state.answers(host)
            if down and not list(state.copies.running(vm)) and state.flights.find(vm) is None:
                state.copies.start(vm, host)

    def _hang(self, host: int, fault: Fault) -> None:
        """The hypervisor's daemon hangs: its VMs and the migrations from it go on unseen; those
        that it should receive are given up once the other side notices."""
        state, rows = self._state, self._state.flights.rows
        state.silent.add(host)
        for vm in rows["vm"][rows["source"] == host].tolist():
            self._traffic.lose_sight(vm, endings.SIGHT_LOST)
        half = endings.stale_half(fault.lasts + endings.CLEAN_UP)
        for vm in rows["vm"][rows["target"] == host].tolist():
            give_up = partial(self._give_up, host, self._identity(vm), half)
            state.after(endings.KEEPALIVE, give_up)

    def _give_up(self, host: int, flight: tuple[int, float], ending: Ending) -> None:
        if host in self._state.silent:
            self._fail_if_same(flight, ending)

    def _identity(self, vm: int) -> tuple[int, float]:
        """What tells a VM's migration from its next one: when it began."""
        index = self._state.flights.find(vm)
        return vm, -1.0 if index is None else float(self._state.flights.rows["began"][index])

    def _fail_if_same(self, flight: tuple[int, float], ending: Ending) -> None:
        index = self._state.flights.find(flight[0])
        if index is not None and self._identity(flight[0]) == flight:
            self._traffic.fail(index, ending)

    def _kill(self, host: int, fault: Fault) -> None:
        """The hypervisor's daemon is killed and comes back when the fault ends: its migrations
        end in whatever state they are; its VMs go on."""
        self._state.silent.add(host)
        half = endings.stale_half(fault.lasts + endings.CLEAN_UP)
        rows = self._state.flights.rows
        for vm in rows["vm"][(rows["target"] == host) & (rows["phase"] >= Phase.PULL)].tolist():
            end = partial(self._fail_if_same, self._identity(vm), endings.TARGET_RESTARTED)
            self._state.after(fault.lasts, end)
        self._traffic.fail_where("target", host, half)
        rows = self._state.flights.rows
        for index in rows_where(rows["source"] == host)[::-1]:
            row = self._state.flights.rows[index]
            in_gap = row["phase"] == Phase.SWITCH and row["tactic"] != Tactic.POST_COPY
            lost = self._one_of(endings.SOURCE_LOST_IN_GAP)
            self._traffic.fail(int(index), lost if in_gap else endings.SOURCE_RESTARTED)

    def _cut(self, host: int, _: Fault) -> None:
        """Nothing tells a migration that its link is cut; but two halves that need each other may
        lose patience."""
        self._state.network.cut(host)
        self._state.flights.share_again()
        rows = self._state.flights.rows
        concerned = (rows["phase"] == Phase.PULL) & (
            (rows["source"] == host) | (rows["target"] == host)
        )
        for vm in rows["vm"][concerned].tolist():
            if self._random.random() < LOSE_PATIENCE:
                self._state.after(
                    endings.KEEPALIVE, partial(self._lose_each_other, self._identity(vm))
                )

    def _lose_each_other(self, flight: tuple[int, float]) -> None:
        """Unless the link was mended meanwhile."""
        index = self._state.flights.find(flight[0])
        if index is not None and self._state.flights.rows["rate"][index] == 0.0:
            self._fail_if_same(flight, endings.CHANNEL_BROKE)

    def _mend(self, host: int) -> None:
        self._state.network.mend(host)
        self._state.flights.share_again()

    def _freeze(self, host: int, _: Fault) -> None:
        self._instruments.freeze(host)

    def _distort(self, host: int, _: Fault) -> None:
        self._instruments.distort(host, DISTORTIONS[int(self._random.integers(len(DISTORTIONS)))])

    def _fill(self, host: int, _: Fault) -> None:
        self._full.add(host)

    def _fill_storage(self, host: int, _: Fault) -> None:
        """Copies of disks that are being written there fail, and so do those that begin."""
        self._no_space.add(host)
        rows = self._state.flights.rows
        for vm in rows["vm"][(rows["target"] == host) & (rows["phase"] == Phase.COPY)].tolist():
            if self._traffic.copies_disks(vm):
                self._fail_if_same(self._identity(vm), endings.NO_SPACE)

    def _set_clock(self, host: int, _: Fault) -> None:
        self._state.ahead[host] = float(self._random.choice(SKEWS))

    def _follow_clock(self, host: int) -> None:
        self._state.ahead.pop(host, None)

    def _rebase(self, host: int, _: Fault) -> None:
        self._state.rebased.add(host)

    def _jam(self, host: int, _: Fault) -> None:
        self._supply.stuck.add(host)

    def _break(self, host: int, _: Fault) -> None:
        self._supply.broken.add(host)

    # -- migrations

    def _refusal(self, _vm: int, target: int) -> Refusal | None:
        if target in self._full:
            return endings.NO_MEMORY
        return endings.NOT_STARTED if self._struck("start") else None

    def _on_begin(self, vm: int) -> None:
        """Decide how a migration will end that just began."""
        self._fates.pop(vm, None)
        locked = self._state.site.scenario.migration.disk_locks
        row = self._state.flights.rows[self._state.flights.find(vm)]
        if self._traffic.copies_disks(vm) and int(row["target"]) in self._no_space:
            self._fail_in_the_copy(vm, endings.NO_SPACE)
        elif self._struck("perform"):
            self._fail_in_the_copy(vm, self._one_of(endings.PERFORM))
        elif self._struck("gap"):
            self._fates[vm] = self._one_of(endings.GAP if locked else endings.GAP_WITHOUT_LOCKS)
        elif self._struck("finish"):
            self._fates[vm] = self._one_of(endings.FINISH)

    def _on_pull(self, vm: int) -> None:
        """Decide what befalls a VM whose memory is on both hosts."""
        if self._struck("post-copy"):
            self._fail_in_the_copy(vm, self._one_of(endings.POST_COPY))

    def _fail_in_the_copy(self, vm: int, ending: Ending) -> None:
        delay = self._seconds_left(vm) * float(self._random.uniform(0.0, 1.0))
        end = partial(self._fail_if_same, self._identity(vm), ending)
        self._state.timers.add(self._state.now + delay, end)

    def _seconds_left(self, vm: int) -> float:
        """How long a migration's round would take from now on with the links to itself."""
        row = self._state.flights.rows[self._state.flights.find(vm)]
        narrowest = float(self._state.network.capacities[row["path"]].min())
        return float(row["left"]) / max(min(float(row["cap"]), narrowest), 1.0)

    def _ending(self, vm: int, _source: int, _target: int) -> Ending:
        return self._fates.pop(vm, DONE)

    def _struck(self, phase: str) -> bool:
        """Whether a fault of this phase strikes the migration at hand."""
        strikes = [f.chance for f in self._in_force if f.phase == phase]
        return any(self._random.random() < chance for chance in strikes)

    def _one_of(self, choices: tuple[Ending, ...]) -> Ending:
        return choices[int(self._random.integers(len(choices)))]
