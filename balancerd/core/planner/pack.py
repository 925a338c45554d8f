"""Objective "pack": hosts are emptied, all or nothing, as long as that is worth its moves.

All of it happens on a trial layout, on which a block may change its host more than once; what
counts is where each ends up, and `order.schedule` finds the steps from where it is.
"""

from collections.abc import Collection

import numpy as np

from balancerd.core.ordering.order import Want
from balancerd.core.placing.layout import Bools, Floats, Layout
from balancerd.core.plan import Verdict
from balancerd.core.planner.adopt import Way, adopt, way_to
from balancerd.core.planner.closing import SETTLE, Closing
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.filling import Filling
from balancerd.core.planner.prices import host_prices, move_prices
from balancerd.core.planner.redirect import redirectable, redirected
from balancerd.core.planner.search import Search
from balancerd.core.planner.settle import polish

POLISH = 3_000_000  # pairs weighed to take needless moves back
ROUNDS = 3  # searches, each without the blocks that rules kept back in those before
GLANCE = 200_000  # pairs weighed for one host before the others were tried
IN_VAIN = 1_200_000  # pairs weighed for hosts that stay on, after which no other is tried


def pack(draft: Draft) -> None:
    """Decide the moves that empty hosts.

    Where rules keep back what the search did not know of (on which node a VM would lie, in which
    order they go), it is asked again once the others have gone.
    """
    price = host_prices(draft.layout)
    for _ in range(ROUNDS):
        ways = _ways(draft, price)
        best = max(ways, key=lambda way: way.gain, default=None)
        if best is None or not adopt(draft, best) or not ways[0].refused:
            return


def _ways(draft: Draft, price: Floats) -> list[Way]:
    """What some searches come to, each without the blocks that were kept back in those before."""
    staying, ways = set[int](), list[Way]()
    while len(ways) < ROUNDS and (found := _packed(draft, price, staying)):
        ways.append(found)
        if not found.refused:
            break
        staying |= found.refused
    return ways


def _packed(draft: Draft, price: Floats, staying: Collection[int]) -> Way | None:
    """What emptying hosts comes to, with some blocks left where they are; None: none is emptied."""
    is_first = len(draft.steps) == draft.urgent
    search, turning = packing(draft), redirectable(draft) if is_first else []
    search.movable[turning] = True
    search.movable[list(staying)] = False
    search.price[turning] = 0.0  # it moves anyway
    closing = Closing(
        draft=draft,
        search=search,
        host_price=price,
        filling=Filling.of(search),
        closable=closable(draft, search),
        sizes=search.layout.sizes.copy(),
    )
    closing.sizes[turning] = 0
    _close_all(closing)
    closing.note()
    if not closing.emptied:
        return None
    place = search.layout.place
    wants = [
        Want(block, int(place[block]), reason)
        for block, reason in closing.reasons().items()
        if place[block] != draft.layout.place[block] and block not in turning
    ]

    def cost(layout: Layout) -> float:
        return float(price[layout.used_count > 0].sum()) + search.cost_of(layout)

    return way_to(draft, wants, cost, redirected(draft, place) if is_first else draft.steps)


def _close_all(closing: Closing) -> None:
    """Empty hosts as long as any can be. One that was emptied in another's place leaves other room:
    all are asked again then."""
    while True:
        _close_each(closing, GLANCE)
        closing.closable |= closing.unplaced & (closing.search.layout.used_count > 0)
        _close_each(closing, SETTLE)
        if closing.emptied:
            polish(closing.search, POLISH)
        if not closing.emptied or not closing.swap():
            return
        closing.closable = closing.may_close & (closing.search.layout.used_count > 0)


def _close_each(closing: Closing, budget: int) -> None:
    """Try all hosts, with so many pairs weighed for each. For little at first: most that can be
    emptied are at once, and one that cannot be would leave others untried, which the next plan
    would find."""
    saved = closing.saved()
    while closing.in_vain < IN_VAIN and (host := closing.next_host(saved)) is not None:
        if closing.close(host, budget):
            saved = closing.saved()


def packing(draft: Draft) -> Search:
    """A search on a copy of the draft's layout. Hosts too full to land on are not open."""
    layout, bands = draft.layout.copy(), draft.policy.thresholds
    search = Search(
        layout=layout,
        home=draft.layout.place.copy(),
        price=move_prices(layout),
        movable=draft.movable(),
        open_=layout.receives & (layout.used_count > 0),
        own=layout.receives & (layout.used_count > 0),
        cpu_limit=bands.cpu.landing * layout.cpu_capacity,
        memory_limit=bands.memory.landing * layout.memory_capacity,
    )
    search.spare_full_hosts()
    return search


def closable(draft: Draft, search: Search) -> Bools:
    """Hosts that may be emptied: neither just woken nor just filled, and nothing on them stays."""
    layout = search.layout
    staying = np.bincount(layout.place[~search.movable], minlength=len(layout.hosts))
    here = np.bincount(layout.place, layout.sizes, len(layout.hosts))
    closable = layout.gives & (layout.used_count > 0) & (staying == 0)
    closable &= here == layout.used_count  # else something is on its way there
    closable &= draft.judged(Verdict.IDLE, Verdict.NORMAL)
    woken = draft.history.woken.items()
    fresh = [name for name, at in woken if draft.now - at < draft.policy.power.min_on]
    closable[[layout.host_row[name] for name in fresh if name in layout.host_row]] = False
    filled = draft.layout.moved.difference(redirectable(draft))
    closable[[int(layout.place[block]) for block in filled]] = False
    return np.asarray(closable)
