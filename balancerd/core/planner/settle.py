"""Whole searches: change after change, each the best one at present prices.

What a host holds beyond its limits is allowed on the way, at a price that rises wherever nothing
gets better, so that room is found through however many other hosts (`settle`). With prohibitive
prices the same changes only ever lower the cost (`polish`).
"""

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Ints
from balancerd.core.planner.changes import Change, exchange, relocation, take
from balancerd.core.planner.search import EPSILON, GAIN, PROHIBITIVE, VISIT, Search

DEARER = 1.5  # by how much the price of a limit rises where no change helps
PATIENCE = 12  # rounds without less excess after which no room is looked for any more
# Share of what is free that an excess is not expected to fill, as pieces leave gaps: where searches
# for packing ended well it was 0.39 at most; above this, three classic days are the same without.
HOPELESS = 0.5
LOOKS = 100  # at hosts: where a budget is good for fewer, none of it goes to what is hopeless


def settle(search: Search, budget: int) -> bool:
    """Make room until no host is beyond its limits.

    False when the budget is spent, or the excess has not shrunk for a while. A large site's budget
    counts as spent as soon as the excess is hopeless: it would be, and for nothing.
    """
    end, least, stalled = search.work + budget, np.inf, 0
    is_dear = _pairs_of_a_look(search) * LOOKS > budget
    while search.work < end and stalled < PATIENCE:
        full = search.full()
        if not len(full):
            return True
        excess, is_hopeless = _excess(search, full)
        if is_dear and is_hopeless:
            search.work = end
            return False
        stalled = 0 if excess < least else stalled + 1
        least = min(least, excess)
        for host in full:
            _make_room(search, int(host))
    return not len(search.full())


def _pairs_of_a_look(search: Search) -> float:
    """How many pairs a look at the exchanges of one host weighs, more or less."""
    return len(search.layout.blocks) ** 2 / max(int(search.open_.sum()), 1)


def _excess(search: Search, hosts: Ints) -> tuple[float, bool]:
    """What hosts hold beyond their limits, in hosts' worth; and whether the open hosts are
    hopelessly far from having room for it."""
    layout = search.layout
    left = [(search.cpu_limit - search.cpu()) / np.maximum(layout.cpu_capacity, EPSILON)]
    if layout.policy.capacity.enforce_memory:
        capacity = np.maximum(layout.memory_capacity, EPSILON)
        left.append((search.memory_limit - layout.used_memory) / capacity)
    beyond = [float(np.maximum(-each[hosts], 0.0).sum()) for each in left]
    free = [float(np.maximum(each[search.open_], 0.0).sum()) for each in left]
    return sum(beyond), any(b > HOPELESS * f for b, f in zip(beyond, free, strict=True))


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
    return rows_where(costly)


def _better(search: Search, host: int) -> Change | None:
    return relocation(search, search.on(host)) or exchange(search, host)
