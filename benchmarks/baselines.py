"""What others do, in the same world: three planners of the literature in the place of ours.

    python benchmarks/baselines.py [DIR]

* `double-threshold`: hosts above 70 % give the fewest VMs that bring them below, hosts under 30 %
  are emptied (Beloglazov & Buyya 2010, "minimisation of migrations").
* `thr-mmt-0.8`: hosts above 80 % give the VMs with the least memory; any host is emptied if its
  VMs fit elsewhere, the least used first (Beloglazov & Buyya, CCPE 2012).
* `lr-mmt-1.2`: the same, but a host is overloaded when 1.2 times its CPU, extrapolated by local
  regression over ten samples, reaches its capacity.

All place VMs by power-aware best fit decreasing: where the power grows least. A host that is off
draws nothing before, so waking it costs its idle power; the widely used implementation forgets
that, and is much worse for it. The loop, the executor and the world are the production ones; the
policy they run under forbids as little as a policy can. DIR is as for `classic.py`; its first day
is taken, and balancerd lives through it, too. Prints one JSON object.
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balancerd.config import load_policy
from balancerd.core.model import Method, PowerState, Snapshot
from balancerd.core.past.history import History
from balancerd.core.plan import Action, Move, Plan, Wake
from balancerd.core.policies.policy import Policy
from balancerd.engines import planner
from benchmarks.world import days, live

Floats = NDArray[np.float64]
SCENARIO = Path(__file__).parent / "classic.toml"
POLICY = Path(__file__).parents[1] / "policies" / "consolidate.toml"
SAMPLES = 10  # that the local regression looks at
NO_HISTORY = 0.7  # of the capacity: the limit while there are fewer
BYTES_PER_SECOND = 62.5e6  # half of the scenario's links, for predictions
# Forbids as little as a policy can: what is asked for has to fit, and that is all.
LIBERAL = Policy.model_validate(
    {
        "summary": "everything goes",
        "name": "baseline",
        "mode": "act",
        "objective": "quiet",
        "thresholds": {
            name: {"overload": 1.0, "release": 0.9999, "landing": 0.9999, "idle": 0.5}
            for name in ("cpu", "memory")
        },
        "detection": {"window": 0.0, "warm_up": 0.0, "trusted_after": 0.0},
        "capacity": {"spread_factor": 0.0, "cpu_overcommit": 1e6, "enforce_memory": False},
        "limits": {
            "per_site": 10**6,
            "per_link": 10**6,
            "link_share": 1.0,
            "per_host": 4,  # more would share a link until none is done by the next decision
            "per_plan": 10**6,
            "per_vm_per_day": 10**6,
            "cooldown": 0.0,
            "backoff": 0.0,
            "plan_life": 300.0,
            "gain": 0.0,
        },
    }
)


def regression_weights() -> Floats:
    """What each of ten samples, oldest first, adds to the value extrapolated one step on.

    A straight line by least squares, weighted by a tricube that falls with age, is linear in the
    samples, so the weights are the same for every host, and a host's value is the sum of its VMs'.
    """
    x = np.arange(1.0, SAMPLES + 1)
    weight = (1 - ((SAMPLES - x) / SAMPLES) ** 3) ** 3
    design = np.stack([np.ones(SAMPLES), x])
    inverse = np.linalg.inv((design * weight) @ design.T)
    return np.asarray(np.array([1.0, SAMPLES + 1.0]) @ inverse @ (design * weight))


REGRESSION = regression_weights()


@dataclass
class Fleet:
    """The site as arrays; `place`, `used` and `measured` change as moves are decided."""

    hosts: list[str]
    vms: list[str]
    capacity: Floats
    curves: list[tuple[Floats, NDArray[np.int64]]]
    on: NDArray[np.bool_]
    memory: Floats
    demand: Floats
    measure: Floats  # per VM: what overload is judged by
    place: NDArray[np.int64]
    used: Floats = field(init=False)
    measured: Floats = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.hosts)
        self.used = np.bincount(self.place, self.demand, minlength=count).astype(float)
        self.measured = np.bincount(self.place, self.measure, minlength=count).astype(float)

    def move(self, vm: int, target: int) -> None:
        for host, sign in ((self.place[vm], -1), (target, 1)):
            self.used[host] += sign * self.demand[vm]
            self.measured[host] += sign * self.measure[vm]
        self.place[vm] = target

    def on_host(self, host: int) -> list[int]:
        return [int(vm) for vm in np.flatnonzero(self.place == host)]

    def carrying(self) -> NDArray[np.bool_]:
        return np.bincount(self.place, minlength=len(self.hosts)) > 0

    def watts(self, used: Floats) -> Floats:
        drawn = np.zeros(len(used))
        for curve, rows in self.curves:
            share = np.minimum(used[rows] / self.capacity[rows], 1.0)
            drawn[rows] = np.interp(share, np.linspace(0, 1, len(curve)), curve)
        return drawn


Selection = Callable[[Fleet, int, float], list[int]]


def least_memory(fleet: Fleet, host: int, limit: float) -> list[int]:
    """VMs by memory, the smallest first, until the host is not over its limit."""
    chosen, left = [], float(fleet.measured[host])
    for vm in sorted(fleet.on_host(host), key=lambda vm: (fleet.memory[vm], vm)):
        if left < limit:
            break
        chosen.append(vm)
        left -= float(fleet.measure[vm])
    return chosen


def fewest(fleet: Fleet, host: int, limit: float) -> list[int]:
    """Each time the smallest VM that alone is enough, or else the largest of all."""
    chosen, left, there = [], float(fleet.measured[host]), fleet.on_host(host)
    while left >= limit and there:
        enough = [vm for vm in there if fleet.measure[vm] > left - limit]
        vm = min(enough, key=lambda vm: (fleet.measure[vm], vm)) if enough else there[0]
        if not enough:
            vm = max(there, key=lambda vm: (fleet.measure[vm], -vm))
        there.remove(vm)
        chosen.append(vm)
        left -= float(fleet.measure[vm])
    return chosen


@dataclass
class Baseline:
    """A planner of the literature, with the samples it remembers."""

    upper: float  # share of the capacity at which a host is overloaded
    select: Selection
    lower: float = 1.0  # hosts below it are emptied, if all of their VMs fit elsewhere
    regression: bool = False
    samples: dict[str, deque[float]] = field(default_factory=dict)

    def __call__(self, snapshot: Snapshot, policy: Policy, _: History, now: float) -> Plan:
        fleet, limit = self._fleet(snapshot)
        start = fleet.place.copy()
        over = fleet.measured >= limit
        leaving = [
            vm
            for host in np.flatnonzero(over & fleet.carrying())
            for vm in self.select(fleet, int(host), float(limit[host]))
        ]
        self._place(fleet, limit, leaving, over)
        self._empty(fleet, limit, over, fleet.place != start)
        actions = tuple(_actions(fleet, start))
        return Plan(now, policy.name, "baseline", actions, f"{len(actions)} actions", 0.0, 0.0)

    def _fleet(self, snapshot: Snapshot) -> tuple[Fleet, Floats]:
        """The arrays, and each host's limit."""
        cluster = snapshot.cluster
        hosts = sorted(cluster.hosts)
        row = {name: index for index, name in enumerate(hosts)}
        vms = [vm for vm in sorted(cluster.vms) if vm in cluster.placement]
        demand = np.array([snapshot.loads[vm].cpu for vm in vms])
        for vm, cpu in zip(vms, demand, strict=True):
            self.samples.setdefault(vm, deque(maxlen=SAMPLES)).append(float(cpu))
        capacity = np.array([cluster.hosts[name].cpu for name in hosts])
        measure, upper = demand, self.upper
        if self.regression and len(self.samples[vms[0]]) == SAMPLES:
            measure = np.array([self.samples[vm] for vm in vms]) @ REGRESSION
        elif self.regression:
            upper = NO_HISTORY
        kinds: dict[tuple[float, ...], list[int]] = {}
        for index, name in enumerate(hosts):
            kinds.setdefault(cluster.hosts[name].power_curve, []).append(index)
        fleet = Fleet(
            hosts=hosts,
            vms=vms,
            capacity=capacity,
            curves=[(np.array(curve), np.array(rows)) for curve, rows in kinds.items()],
            on=np.array([cluster.hosts[name].power is PowerState.ON for name in hosts]),
            memory=np.array([float(cluster.vms[vm].memory) for vm in vms]),
            demand=demand,
            measure=measure,
            place=np.array([row[cluster.placement[vm]] for vm in vms]),
        )
        return fleet, upper * capacity

    def _place(
        self, fleet: Fleet, limit: Floats, leaving: Iterable[int], closed: NDArray[np.bool_]
    ) -> bool:
        """Power-aware best fit decreasing; False where a VM finds no place and stays."""
        placed = True
        for vm in sorted(leaving, key=lambda vm: (-fleet.demand[vm], vm)):
            after = fleet.used + fleet.demand[vm]
            carrying = fleet.carrying()
            full = (fleet.measured + fleet.measure[vm] >= limit) & carrying
            open_ = ~closed & ~full & (after <= fleet.capacity)
            open_[fleet.place[vm]] = False
            if not open_.any():
                placed = False
                continue
            before = np.where(carrying, fleet.watts(fleet.used), 0.0)
            growth = np.where(open_, fleet.watts(after) - before, np.inf)
            fleet.move(vm, int(np.argmin(growth)))
        return placed

    def _empty(
        self, fleet: Fleet, limit: Floats, over: NDArray[np.bool_], moved: NDArray[np.bool_]
    ) -> None:
        """Hosts that took nothing and can give everything are emptied, the least used first."""
        closed = over | ~fleet.carrying()
        done = closed.copy()
        done[fleet.place[moved]] = True
        while not done.all():
            share = np.where(done, np.inf, fleet.used / fleet.capacity)
            host = int(np.argmin(share))
            if share[host] >= self.lower:
                return
            done[host] = closed[host] = True
            before, there = fleet.place.copy(), fleet.on_host(host)
            if self._place(fleet, limit, there, closed):
                done[fleet.place[there]] = True
            else:
                for vm in there:
                    fleet.move(vm, int(before[vm]))


def _actions(fleet: Fleet, start: NDArray[np.int64]) -> Iterable[Action]:
    """Wakes of hosts that are off, then the moves, all at once."""
    moved = [int(vm) for vm in np.flatnonzero(fleet.place != start)]
    woken = sorted({int(fleet.place[vm]) for vm in moved if not fleet.on[fleet.place[vm]]})
    numbers = {host: number for number, host in enumerate(woken, start=1)}
    for host, number in numbers.items():
        yield Wake(number, fleet.hosts[host], "needed")
    for number, vm in enumerate(moved, start=len(woken) + 1):
        target = int(fleet.place[vm])
        seconds = fleet.memory[vm] / BYTES_PER_SECOND
        yield Move(
            number=number,
            vm=fleet.vms[vm],
            source=fleet.hosts[start[vm]],
            target=fleet.hosts[target],
            method=Method.PRE_COPY,
            reason="baseline",
            after=(numbers[target],) if target in numbers else (),
            seconds=float(ceil(seconds)),
            bytes=int(fleet.memory[vm]),
        )


def planners() -> dict[str, Baseline]:
    """Each baseline, without memory of another day."""
    return {
        "double-threshold-0.3-0.7": Baseline(upper=0.7, select=fewest, lower=0.3),
        "thr-mmt-0.8": Baseline(upper=0.8, select=least_memory),
        "lr-mmt-1.2": Baseline(upper=1 / 1.2, select=least_memory, regression=True),
    }


def main(arguments: list[str]) -> None:
    results = {}
    with days(arguments) as traces:
        day, trace = next(iter(traces.items()))
        for name, baseline in planners().items():
            results[name] = live(SCENARIO, trace, LIBERAL, baseline)
        results["balancerd"] = live(SCENARIO, trace, load_policy(POLICY), planner)
    print(json.dumps({"day": day, "planners": results}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
