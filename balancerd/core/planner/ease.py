"""Objective "quiet": hosts that are too crowded give VMs away, where that costs less than crowding.

From each such host the cheapest set of blocks leaves, judged as a set: two small ones may be better
than the one that is best alone. Then every host is taken up again, with all its blocks back at
home, until none finds anything cheaper.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.ordering.order import Want
from balancerd.core.placing.layout import Floats, Ints
from balancerd.core.plan import Refusal
from balancerd.core.planner.adopt import adopt, way_to
from balancerd.core.planner.changes import relocation, take
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.prices import move_prices
from balancerd.core.planner.search import GAIN, Search
from balancerd.core.planner.settle import polish
from balancerd.core.planner.subsets import CHOICE, TOGETHER, sets_of

ROUNDS = 2  # times that each host is taken up
WORK = 8_000_000  # pairs weighed in all rounds
POLISH = 400_000  # pairs weighed in the end
Decided = dict[tuple[int, bool], bytes]  # a host, wishful or not: where all blocks were in the end
HUGE = 1e12  # for what may go nowhere: adds up, as infinity does not


def ease(draft: Draft) -> None:
    """Decide the moves that pay for themselves in less crowding."""
    if draft.policy.costs.crowding:
        search = easing(draft)
        _ease(search)
        _note(draft, search)
        _hand_over(draft, search)


def easing(draft: Draft) -> Search:
    """A search on a copy of the draft's layout. Hosts too full to land on are not open."""
    costs, bands = draft.policy.costs, draft.policy.thresholds
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
    return search


def _hand_over(draft: Draft, search: Search) -> None:
    place, use = search.layout.place, draft.layout.expected_cpu()
    wants = [
        Want(block, int(place[block]), _reason(search.layout.hosts[home], float(use[home])))
        for block in rows_where(place != search.home).tolist()
        for home in (int(search.home[block]),)
    ]
    adopt(draft, way_to(draft, wants, search.cost_of))


def _note(draft: Draft, search: Search) -> None:
    """Say what rules forbade, and of hosts that stay crowded which others turn down their VMs."""
    for refusal in search.forbidden.values():
        draft.note(refusal)
    for host in rows_where(search.cpu() > search.crowded + GAIN):
        draft.counts.update(search.turning_down(search.on(int(host))))
        over, name = float(search.cpu()[host] - search.crowded[host]), search.layout.hosts[host]
        detail = f"{over:.2f} cores above costs.crowded cost less than any moves that spare them"
        draft.note(Refusal("", name, "not worth its moves", detail, "raise costs.crowding"))


def _reason(host: str, use: float) -> str:
    return f"{host} is crowded (expected CPU {use:.0%})"


def _ease(search: Search) -> None:
    excess = search.cpu() - search.crowded
    hosts = [int(h) for h in np.argsort(-excess, kind="stable") if excess[h] > 0]
    decided: Decided = {}
    for _ in range(ROUNDS):
        before = search.cost()
        # A host all of whose blocks find a place for no more than their price can do no better.
        hosts = [h for h in hosts if search.work < WORK and not _taken_up(search, h, decided)]
        for host in hosts:
            if search.work < WORK:
                _taken_up(search, host, decided, wishful=True)
        if search.cost() > before - GAIN:
            break
    polish(search, POLISH)


def _taken_up(search: Search, host: int, decided: Decided, *, wishful: bool = False) -> bool:
    """Decide anew what leaves a host, unless nothing has changed since; True if there is room."""
    before = search.layout.place.copy()
    if decided.get((host, wishful)) == before.tobytes():
        return False
    roomy = _again(search, host, wishful=wishful)
    after = search.layout.place
    # With its own blocks back, it would be where it was: only if others have moved, it is not.
    is_its_own = (search.home[after != before] == host).all()
    decided[host, wishful] = after.tobytes() if is_its_own else b""
    return roomy


def _again(search: Search, host: int, *, wishful: bool = False) -> bool:
    """Decide anew what leaves a host; keep what was decided before unless it gets cheaper.

    Wishful: as if there were room for everything; then others have to give way. True if there was.
    """
    layout, before, cost = search.layout, search.layout.place.copy(), search.cost()
    for block in rows_where((search.home == host) & (layout.place != host)):
        layout.move(int(block), host)
    choice = _cheapest_set(search, host, wishful=wishful)
    roomy = choice.roomy
    while _sent(search, choice):
        if wishful:  # once: what gives way may come here
            _make_way(search, choice.blocks)
        if wishful or choice.is_all:
            break
        choice = _cheapest_set(search, host, wishful=False)
        roomy &= choice.roomy
    changed = rows_where(layout.place != before)
    if len(changed) and search.cost() > cost - GAIN:
        for block in changed:
            layout.move(int(block), int(before[block]))
    return roomy


def _make_way(search: Search, blocks: Ints) -> None:
    """Let others give way where the blocks have gone."""
    for host in sorted({int(search.layout.place[block]) for block in blocks}):
        for _ in range(TOGETHER):
            change = relocation(search, search.on(host))
            if change is None:
                break
            take(search, change)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Blocks that leave a host together, and what each (row) costs on each target (column) by now.

    `roomy`: for each block that is worth it there is room, at no more than its price; `is_all`: no
    other block is worth it once these have left, as it would have been one of them.
    """

    blocks: Ints
    targets: Ints
    burden: Floats
    roomy: bool
    is_all: bool = True


def _cheapest_set(search: Search, host: int, *, wishful: bool) -> _Choice:
    """The blocks whose leaving together lowers the cost most, none where nothing does."""
    blocks = _worth_moving(search, host)
    targets = search.targets(blocks) if len(blocks) else blocks
    if not len(targets):
        return _Choice(blocks[:0], targets, np.zeros((0, 0)), roomy=True)
    price = search.price[blocks]
    costs = search.burden(blocks, targets)
    burden = costs.min(axis=1)
    roomy = bool((burden <= price + GAIN).all())
    if wishful:
        burden = np.where(burden < HUGE, price, burden)
    burden -= price * (search.home[blocks] != host)
    sets = sets_of(len(blocks))
    gain = search.relief(blocks, host, sets) - sets @ np.minimum(burden, HUGE)
    best = sets[int(np.argmax(gain))] > 0
    is_all = len(blocks) < CHOICE and int(best.sum()) < TOGETHER and not search.swayed
    return _Choice(blocks[best], targets, costs[best], roomy, is_all)


def _worth_moving(search: Search, host: int) -> Ints:
    """The blocks of a host that could pay for their move, those that give most for it first.

    Crowding costs the same for each core: no block saves more in a set than it does alone.
    """
    blocks, here = search.on(host), np.array([host])
    now = search.as_is(here)
    if not len(blocks) or now <= GAIN:
        return blocks[:0]
    price = search.price[blocks] * (search.home[blocks] == host)
    pays = rows_where(now - search.altered(here, blocks, -1) > price + GAIN)
    order = np.argsort(
        price[pays] / np.maximum(search.layout.cpu[blocks[pays]], GAIN), kind="stable"
    )
    return np.asarray(blocks[pays[order[:CHOICE]]])


def _sent(search: Search, choice: _Choice) -> int:
    """Move the blocks to where each costs least; how many were not turned down by every host."""
    sent = 0
    for row, block in enumerate(choice.blocks.tolist()):
        targets, cost = choice.targets, choice.burden[row]
        if sent:  # the room is no longer what it was
            targets = search.targets(choice.blocks[row : row + 1])
            cost = search.burden(choice.blocks[row : row + 1], targets)[0]
        sent += _send(search, block, targets, cost)
    return sent


def _send(search: Search, block: int, targets: Ints, cost: Floats) -> bool:
    for index in np.argsort(cost, kind="stable").tolist():
        if not np.isfinite(cost[index]):
            return False
        if not search.forbids(block, int(targets[index])):
            search.layout.move(block, int(targets[index]))
            return True
    return False
