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

    def __init__(self, hosts: int, vms: int) -> None:
        self.seconds = 0.0
        self.energy = np.zeros(hosts)
        self.powered = np.zeros(hosts)  # seconds that draw power
        self.overloaded = np.zeros(hosts)  # seconds with more demand than capacity
        self.requested = np.zeros(vms)
        self.unserved = np.zeros(vms)
        self.migration_loss = np.zeros(vms)  # the share of demand that migrating costs


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
        self.host_busy = np.zeros(len(hosts))  # counters: CPU seconds since the boot
        self.vm_used = np.zeros(count)  # counters: CPU seconds since the arrival
        self.vm_steal = np.zeros(count)
        self.accounts = Accounts(len(hosts), count)
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
        accounts = self.accounts
        accounts.seconds += seconds
        accounts.energy += self._watts * seconds
        accounts.powered += self._powered * seconds
        accounts.overloaded += self._overloaded * seconds
        accounts.requested += self.demand * seconds
        accounts.unserved += self._unserved_rate * seconds
        accounts.migration_loss += self._loss_rate * seconds
        self.host_busy += self._busy_rate * seconds
        self.vm_used += self._used_rate * seconds
        self.vm_steal += self._steal_rate * seconds

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
        self._used_rate = used / self.speed[place]
        self._steal_rate = (wanted - granted) / self.speed[place]
        self._unserved_rate = self.demand - granted * (1.0 - self.throttle)
        self._loss_rate = self.demand * (self.migrating * self.cpu_loss)
        self._busy_rate = served / self.speed
        self._overloaded = (awake & (asked > self.cpu * OVER)).astype(float)
        self._powered = (self.power != OFF).astype(float)
        utilisation = np.where(self.power == WAKING, 1.0, served / self.cpu)
        self._watts = self._curves.watts(utilisation) * self._powered


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
        position = np.clip(utilisation, 0.0, 1.0) * self._last
        below = np.minimum(position.astype(np.intp), self._last - 1)
        low = self._points[self._index, below]
        drawn: Floats = low + (self._points[self._index, below + 1] - low) * (position - below)
        return drawn
