"""Whole searches: change after change, each the best one at present prices.

What a host holds beyond its limits is allowed on the way, at a price that rises wherever nothing
gets better, so that room is found through however many other hosts (`settle`). With prohibitive
prices the same changes only ever lower the cost (`polish`).
"""

import numpy as np

from balancerd.core.placing.layout import Ints
from balancerd.core.planner.changes import Change, exchange, relocation, take
from balancerd.core.planner.search import EPSILON, GAIN, PROHIBITIVE, VISIT, Search

DEARER = 1.5  # by how much the price of a limit rises where no change helps
PATIENCE = 12  # rounds without less excess after which no room is looked for any more


def settle(search: Search, budget: int) -> bool:
    """Make room until no host is beyond its limits.

    False when the budget is spent, or the excess has not shrunk for a while.
    """
    end, least, stalled = search.work + budget, np.inf, 0
    while search.work < end and stalled < PATIENCE:
        full = search.full()
        if not len(full):
            return True
        excess = _excess(search, full)
        stalled = 0 if excess < least else stalled + 1
        least = min(least, excess)
        for host in full:
            _make_room(search, int(host))
    return not len(search.full())


def _excess(search: Search, hosts: Ints) -> float:
    """What hosts hold beyond their limits, in hosts' worth."""
    layout, beyond = search.layout, np.maximum(0.0, search.cpu() - search.cpu_limit)[hosts]
    excess = (beyond / np.maximum(layout.cpu_capacity[hosts], EPSILON)).sum()
    if layout.policy.capacity.enforce_memory:
        beyond = np.maximum(0.0, layout.used_memory - search.memory_limit)[hosts]
        excess += (beyond / np.maximum(layout.memory_capacity[hosts], EPSILON)).sum()
    return float(excess)


def _make_room(search: Search, host: int) -> None:
    change = relocation(search, search.on(host))
    other = exchange(search, host)
    if other and (change is None or other.gain > change.gain):
        change = other
    if change:
        take(search, change)
    else:
        search.work += VISIT
        search.cpu_price[host] *= DEARER
        search.memory_price[host] *= DEARER


def polish(search: Search, budget: int) -> None:
    """Lower the cost within the limits until nothing does, or the budget is spent."""
    search.reprice(PROHIBITIVE)
    end, improved = search.work + budget, True
    while improved and search.work < end:
        improved = False
        for host in _costly(search):
            while search.work < end and (change := _better(search, int(host))):
                take(search, change)
                improved = True


def _costly(search: Search) -> Ints:
    """Hosts that cost anything, in order: crowded ones, and those with strangers."""
    hosts = np.arange(len(search.layout.hosts))
    costly = search.as_is(hosts) > GAIN
    costly[search.layout.place[search.layout.place != search.home]] = True
    return np.flatnonzero(costly)


def _better(search: Search, host: int) -> Change | None:
    return relocation(search, search.on(host)) or exchange(search, host)
