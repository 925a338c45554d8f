"""Hosts at work: who gets how much CPU, what it draws, and the accounts of both.

Between two changes all rates are constant. `settle` computes them, `run` lets time pass. Arrays are
indexed by host or by VM as the site orders them.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from balancerd.adapters.sim.sharing import Floats
from balancerd.core.model import Host

NOWHERE = -1
OVER = 1.0 + 1e-9  # demand beyond this multiple of capacity is an overload, not rounding


class Power(IntEnum):
    """A host's power as the world knows it."""

    OFF = 0
    WAKING = 1
    ON = 2
    SLEEPING = 3


OFF, WAKING, ON, SLEEPING = map(int, Power)  # arrays are compared with plain numbers sooner


class Accounts:
    """What the score is made of: sums over the whole run, in seconds, joules and core seconds."""

    def __init__(self, of_hosts: Floats, of_vms: Floats) -> None:
        self.seconds = 0.0
        self.energy = of_hosts[0]
        self.powered = of_hosts[1]  # seconds that draw power
        self.overloaded = of_hosts[2]  # seconds with more demand than capacity
        self.requested = of_vms[0]
        self.unserved = of_vms[1]
        self.migration_loss = of_vms[2]  # the share of demand that migrating costs


class Machines:
    """Power and placement of a site's hosts and VMs, CPU time given and taken."""

    def __init__(self, hosts: Sequence[Host], placement: Sequence[int], cpu_loss: float) -> None:
        count = len(placement)
        self.cpu = np.array([host.cpu for host in hosts])
        self.speed = np.array([host.cpu / max(host.cores, 1) for host in hosts])
        self.cpu_loss = cpu_loss
        self.place = np.array(placement, dtype=np.intp)
        self.stopped = np.zeros(count, dtype=bool)  # paused, or crashed
        self.migrating = np.zeros(count, dtype=bool)
        self.throttle = np.zeros(count)
        self.power = np.full(len(hosts), ON, dtype=np.int8)
        self.demand: Floats = np.zeros(count)
        # All that adds up while time passes: accounts first, then counters, each a row.
        self._of_hosts, self._of_vms = np.zeros((4, len(hosts))), np.zeros((5, count))
        self.accounts = Accounts(self._of_hosts[:3], self._of_vms[:3])
        self.host_busy = self._of_hosts[3]  # counters: CPU seconds since the boot
        self.vm_used = self._of_vms[3]  # counters: CPU seconds since the arrival
        self.vm_steal = self._of_vms[4]
        self._curves = _Curves(hosts)
        self._settled = False

    def changed(self) -> None:
        """Placement, power or demand is not what it was: rates are computed anew."""
        self._settled = False

    def arrive(self, vm: int, host: int) -> None:
        """The VM runs on this host from now on; its counters begin again."""
        self.place[vm] = host
        self.vm_used[vm] = self.vm_steal[vm] = 0.0
        self._settled = False

    def host_demand(self) -> Floats:
        """Reference cores that the running VMs of each host ask for."""
        here = self.place >= 0
        asked = np.where(self.stopped, 0.0, self.demand)
        sums: Floats = np.bincount(self.place[here], asked[here], len(self.cpu)).astype(float)
        return sums

    def run(self, seconds: float) -> None:
        """Let time pass."""
        if seconds <= 0:
            return
        if not self._settled:
            self._settle()
        self.accounts.seconds += seconds
        self._of_hosts += self._host_rates * seconds
        self._of_vms += self._vm_rates * seconds

    def _settle(self) -> None:
        self._settled = True
        placed = self.place >= 0
        place = np.where(placed, self.place, 0)
        running = placed & ~self.stopped
        wanted = np.where(running, self.demand, 0.0)
        asked = np.bincount(place, wanted, minlength=len(self.cpu))
        awake = self.power == ON
        served = np.where(awake, np.minimum(asked, self.cpu), 0.0)
        share = np.divide(served, asked, out=np.zeros_like(asked), where=asked > 0)
        granted = wanted * share[place]
        kept = np.where(self.migrating, 1.0 - self.cpu_loss, 1.0) - self.throttle
        used = granted * np.maximum(kept, 0.0)
        unserved = self.demand - granted * (1.0 - self.throttle)
        loss = self.demand * (self.migrating * self.cpu_loss)
        speed = self.speed[place]
        stolen = (wanted - granted) / speed
        self._vm_rates = np.array((self.demand, unserved, loss, used / speed, stolen))
        utilisation = np.where(self.power == WAKING, 1.0, served / self.cpu)
        powered = (self.power != OFF).astype(float)
        watts = self._curves.watts(utilisation) * powered
        overloaded = awake & (asked > self.cpu * OVER)
        self._host_rates = np.array((watts, powered, overloaded, served / self.speed))


class _Curves:
    """All hosts' power curves at once."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        curves = [host.power_curve or (0.0, 0.0) for host in hosts]
        longest = max(len(curve) for curve in curves)
        self._points = np.array([[*c, *[c[-1]] * (longest - len(c))] for c in curves], dtype=float)
        self._last = np.array([len(curve) - 1 for curve in curves])
        self._index: NDArray[np.intp] = np.arange(len(curves))

    def watts(self, utilisation: Floats) -> Floats:
        """The draw of each host at its utilisation (0..1), as `Host.watts` has it."""
        position = np.minimum(np.maximum(utilisation, 0.0), 1.0) * self._last
        below = np.minimum(position.astype(np.intp), self._last - 1)
        low = self._points[self._index, below]
        drawn: Floats = low + (self._points[self._index, below + 1] - low) * (position - below)
        return drawn
