"""Hosts going on and off: boots, shutdowns, and what a host takes down with it."""

import numpy as np

from balancerd.adapters.sim.endings import SOURCE_GONE, TARGET_GONE
from balancerd.adapters.sim.machines import NOWHERE, OFF, ON, SLEEPING, WAKING, Power
from balancerd.adapters.sim.readings import POWER_STATES
from balancerd.adapters.sim.state import State
from balancerd.adapters.sim.traffic import Traffic
from balancerd.core.columns import rows_where
from balancerd.core.observation import Presence
from balancerd.ports import PowerError


class Supply:
    """Power of all hosts. `fails(host)` says whether a boot comes to nothing."""

    def __init__(self, state: State, traffic: Traffic) -> None:
        self._state, self._traffic = state, traffic
        self._times = state.site.scenario.power
        self.broken: set[int] = set()  # hosts that do not come up
        self.stuck: set[int] = set()  # hosts that do not go down
        if self._times.follows_vms:
            traffic.on_left.append(self._follow)
        if self._times.start_empty_off:
            used = np.bincount(state.machines.place, minlength=len(state.site.hosts)) > 0
            state.machines.power[~used] = Power.OFF

    def wake(self, host: int) -> None:
        """Switch a host on; it boots for as long as the scenario says."""
        if self._state.machines.power[host] in (ON, WAKING):
            return
        self._refuse_unless(host, Power.OFF)
        if self._times.boot > 0:
            self.switch(host, Power.WAKING)
        self._state.after(self._times.boot, lambda: self._booted(host))

    def sleep(self, host: int) -> None:
        """Shut a host down gracefully. VMs that it still has go down with it: a violation."""
        if self._state.machines.power[host] in (OFF, SLEEPING):
            return
        self._refuse_unless(host, Power.ON)
        name, place = self._state.host_name(host), self._state.machines.place
        for vm in rows_where(place == host):
            vm_name = self._state.vm_name(int(vm))
            self._state.violate("switched off with a VM", f"{vm_name} on {name}")
        rows = self._state.flights.rows
        if ((rows["target"] == host) | (rows["source"] == host)).any():
            self._state.violate("switched off under a migration", name)
        self.drop_vms(host)
        self.switch(host, Power.SLEEPING)
        self._state.after(self._times.shutdown, lambda: self._gone_down(host))

    def serve(self, host: int) -> None:
        """A migration to this host is asked for: where power follows the VMs, it goes on."""
        if self._times.follows_vms and self._state.machines.power[host] == OFF:
            self.switch(host, Power.ON)

    def went_empty(self, host: int) -> bool:
        """Whether the host is off only because power follows the VMs: then it is known to have
        none, as if it could be asked."""
        off = self._state.machines.power[host] == OFF
        return self._times.follows_vms and bool(off)

    def crash(self, host: int) -> None:
        """Power is lost, with everything that runs on the host."""
        self.drop_vms(host)
        self.switch(host, Power.OFF)

    def drop_vms(self, host: int) -> None:
        """All VMs on the host end, and so do the migrations from and to it."""
        state = self._state
        self._traffic.fail_where("target", host, TARGET_GONE)
        self._traffic.fail_where("source", host, SOURCE_GONE)
        for vm in rows_where(state.machines.place == host).tolist():
            state.copies.oddities[vm, host] = Presence.SHUTOFF
            state.machines.arrive(vm, NOWHERE)
        for (vm, place), copy in list(state.copies.oddities.items()):
            if place == host and copy is Presence.INCOMING:
                del state.copies.oddities[vm, place]
            elif place == host:
                state.copies.oddities[vm, place] = Presence.SHUTOFF

    def switch(self, host: int, power: Power) -> None:
        """Set a host's power; the story hears of it when it begins or ceases to draw."""
        machines = self._state.machines
        before, after = machines.power[host] != OFF, power is not Power.OFF
        machines.power[host] = power
        machines.changed()
        if power is Power.ON:
            machines.host_busy[host] = 0.0
        if before != after:
            self._state.story.power(self._state.at, self._state.host_name(host), after)

    def _refuse_unless(self, host: int, wanted: Power) -> None:
        power = Power(self._state.machines.power[host])
        if power is not wanted:
            name, word = self._state.host_name(host), POWER_STATES[power].value
            raise PowerError(f"{name}: is {word}, not {POWER_STATES[wanted].value}")

    def _booted(self, host: int) -> None:
        if self._state.machines.power[host] in (WAKING, OFF):
            self.switch(host, Power.OFF if host in self.broken else Power.ON)

    def _gone_down(self, host: int) -> None:
        if self._state.machines.power[host] in (SLEEPING, ON):
            self.switch(host, Power.ON if host in self.stuck else Power.OFF)

    def _follow(self, host: int) -> None:
        """Where power follows the VMs: a host that lost its last one goes off at once."""
        if self._state.machines.power[host] == ON and not self._state.charges.on(host):
            self.switch(host, Power.OFF)
