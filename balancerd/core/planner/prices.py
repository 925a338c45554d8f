"""What moves and hosts cost, by the policy's `[costs]`: the weights of every search."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from balancerd.core.model import VM
from balancerd.core.placing.layout import Floats, Layout
from balancerd.core.placing.objective import watts
from balancerd.core.policies.tags import move_cost
from balancerd.core.same import Same
from balancerd.core.units import GIB


def move_prices(layout: Layout) -> Floats:
    """What it costs to move each block. All memory of a VM counts, used or not."""
    costs, vms = layout.policy.costs, layout.snapshot.cluster.vms
    memory = layout.memory.copy()
    for block, need in layout.pools.needs.items() if layout.pools else ():
        memory[block] += need.sum()
    prices = costs.move * layout.sizes + costs.gib * memory / GIB
    for name, more in _named(Same(vms), costs.move, costs.gib):
        if name in layout.block_of:
            prices[layout.block_of[name]] += more
    return np.maximum(prices, 0.0)


@lru_cache(maxsize=1)
def _named(vms: Same[Mapping[str, VM]], move: float, gib: float) -> tuple[tuple[str, float], ...]:
    """VMs that say what moving them costs, in order, and how much more that is than the policy's
    price of a move and of each GiB comes to."""
    tagged = sorted(name for name, vm in vms.value.items() if vm.tags)
    found = list[tuple[str, float]]()
    for name in tagged:
        cost = move_cost(vms.value[name])
        if cost is not None:
            found.append((name, cost - (move + gib * vms.value[name].all_memory / GIB)))
    return tuple(found)


def host_prices(layout: Layout) -> Floats:
    """What it costs that each host carries what it does, and not an efficient host in its place."""
    costs = layout.policy.costs
    prices = np.full(len(layout.hosts), costs.host)
    if not layout.curves:
        return prices
    per_core = _watts_per_core(layout)
    least = per_core[np.isfinite(per_core)].min(initial=np.inf)
    draw = watts(layout)
    for _, rows in layout.curves:
        elsewhere = layout.used_cpu[rows] * least if np.isfinite(least) else 0.0
        prices[rows] += costs.watt * np.maximum(0.0, draw[rows] - elsewhere)
    return prices


def _watts_per_core(layout: Layout) -> Floats:
    """What one more core of load draws on each host; inf without a power curve or capacity."""
    slope = np.full(len(layout.hosts), np.inf)
    for curve, rows in layout.curves:
        capacity = layout.cpu_capacity[rows]
        known = np.where(capacity > 0, capacity, 1.0)
        slope[rows] = np.where(capacity > 0, (curve[-1] - curve[0]) / known, np.inf)
    return slope
