"""Objective "quiet": hosts that are too crowded give VMs away, where that costs less than crowding.

From each such host the cheapest set of blocks leaves, judged as a set: two small ones may be better
than the one that is best alone. Then every host is taken up again, with all its blocks back at
home, until none finds anything cheaper.
"""

from functools import cache
from itertools import combinations

import numpy as np

from balancerd.core.constraints import forbids
from balancerd.core.layout import Ints
from balancerd.core.order import Want, schedule
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.prices import move_prices
from balancerd.core.planner.search import GAIN, Search

ROUNDS = 4  # times that each host is taken up
POLISH = 400_000  # pairs weighed in the end
TOGETHER = 3  # blocks that leave a host at once
CHOICE = 16  # blocks of a host that are weighed in sets: those that give most for their price


def ease(draft: Draft) -> None:
    """Decide the moves that pay for themselves in less crowding."""
    costs, bands = draft.policy.costs, draft.policy.thresholds
    if not costs.crowding:
        return
    layout = draft.layout.copy()
    search = Search(
        layout=layout,
        home=draft.layout.place.copy(),
        price=move_prices(layout),
        movable=draft.movable(),
        open_=layout.receives.copy(),
        own=layout.gives.copy(),
        cpu_limit=bands.cpu.landing * layout.cpu_capacity,
        memory_limit=bands.memory.landing * layout.memory_capacity,
        crowding=costs.crowding,
        crowded=costs.crowded * layout.cpu_capacity,
    )
    search.spare_full_hosts()
    _ease(search)
    _hand_over(draft, search)


def _hand_over(draft: Draft, search: Search) -> None:
    place, use = search.layout.place, draft.layout.expected_cpu()
    wants = [
        Want(block, int(place[block]), _reason(search.layout.hosts[home], float(use[home])))
        for block in np.flatnonzero(place != search.home).tolist()
        for home in (int(search.home[block]),)
    ]
    steps, refused = schedule(draft.layout, wants)
    draft.steps += steps
    for refusal in refused:
        draft.note(refusal)


def _reason(host: str, use: float) -> str:
    return f"{host} is crowded (expected CPU {use:.0%})"


def _ease(search: Search) -> None:
    excess = search.cpu() - search.crowded
    hosts = [int(h) for h in np.argsort(-excess, kind="stable") if excess[h] > 0]
    for _ in range(ROUNDS):
        before = search.cost()
        for host in hosts:
            _again(search, host)
        if search.cost() > before - GAIN:
            break
    search.polish(POLISH)


def _again(search: Search, host: int) -> None:
    """Decide anew what leaves a host; keep what was decided before unless it gets cheaper."""
    layout, before, cost = search.layout, search.layout.place.copy(), search.cost()
    for block in np.flatnonzero((search.home == host) & (layout.place != host)):
        layout.move(int(block), host)
    while sum(_send(search, int(block)) for block in _cheapest_set(search, host)):
        pass
    if search.cost() > cost - GAIN:
        for block in np.flatnonzero(layout.place != before):
            layout.move(int(block), int(before[block]))


def _cheapest_set(search: Search, host: int) -> Ints:
    """The blocks whose leaving together lowers the cost most; none where nothing does."""
    blocks, layout = search.on(host), search.layout
    targets = search.targets(blocks)
    if not len(blocks) or not len(targets):
        return np.zeros(0, dtype=np.int64)
    burden = search.burden(blocks, targets).min(axis=1)
    burden -= search.price[blocks] * (search.home[blocks] != host)
    worth = np.argsort(burden / np.maximum(layout.cpu[blocks], GAIN), kind="stable")
    worth = worth[np.isfinite(burden[worth])][:CHOICE]
    blocks, burden = blocks[worth], burden[worth]
    sets = _sets(len(blocks))
    gain = search.relief(blocks, host, sets) - np.append(burden, 0.0)[sets].sum(axis=1)
    best = int(np.argmax(gain)) if len(sets) else 0
    if not len(sets) or gain[best] <= GAIN:
        return np.zeros(0, dtype=np.int64)
    chosen = sets[best]
    return np.asarray(blocks[chosen[chosen < len(blocks)]])


def _send(search: Search, block: int) -> bool:
    """Move a block to where that costs least; False where every host forbids it."""
    targets = search.targets(np.array([block]))
    cost = search.burden(np.array([block]), targets)[0]
    for index in np.argsort(cost, kind="stable"):
        if not np.isfinite(cost[index]):
            return False
        if not forbids(search.layout, block, int(targets[index])):
            search.layout.move(block, int(targets[index]))
            return True
    return False


@cache
def _sets(count: int) -> Ints:
    """Sets of up to `TOGETHER` of so many blocks, a row each; `count` stands for no block."""
    sets = [
        (*chosen, *(count,) * (TOGETHER - size))
        for size in range(1, TOGETHER + 1)
        for chosen in combinations(range(count), size)
    ]
    return np.array(sets, dtype=np.int64).reshape(-1, TOGETHER)
