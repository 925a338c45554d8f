"""Objective "defragment": few moves that bring free room together for as many big VMs as can be.

    site       nodes with their free room, VMs by kind
    options    what could be done to each node and host
    prices     what each move is worth, from the linear relaxation, which also bounds the gain
    columns    the options that are nearly best at these prices
    beam       one for every host, ...
    balance    ... and a few others in their place, so that what leaves also lands
    spare      the room where landing costs nothing
    sequence   moves, in an order in which each has room

What could not be carried out, and what an option has no place for, is looked for again in the room
that the moves made, until nothing is found: planning again once all is done would do the same. A VM
that rules turned out to keep off a host is no longer as good as others of its size: it becomes a
kind of its own.
"""

from balancerd.core.planner.defragment.beam import choose
from balancerd.core.planner.defragment.options import options_of
from balancerd.core.planner.defragment.prices import ROUNDING, relax
from balancerd.core.planner.defragment.sequence import carry_out
from balancerd.core.planner.defragment.site import site_of
from balancerd.core.planner.defragment.spare import plentiful
from balancerd.core.planner.draft import Draft

ROUNDS = 5
LEAST_WORTH = 0.001  # rooms that a move costs in any case: of two equal ways the shorter is taken


def defragment(draft: Draft) -> None:
    """Decide the moves that make room."""
    worth = max(draft.policy.defragment.worth, LEAST_WORTH)
    if draft.layout.big[0] <= 0:
        return
    kept_off: dict[int, set[int]] = {}
    for _ in range(ROUNDS):
        budget, decided = draft.room(), len(draft.steps)
        site = site_of(draft, kept_off)
        if budget < 1 or not site.kinds:
            return
        options = options_of(site)
        relaxed = relax(options, budget, worth)
        ample = plentiful(site, relaxed.moves(options))
        chosen = choose(options, relaxed, ample, budget, worth)
        carried = carry_out(draft, site, chosen)
        for block, hosts in carried.kept_off.items():
            kept_off[block] = kept_off.get(block, set()) | hosts
        made = len(draft.steps) - decided
        is_bound = relaxed.prices.move > ROUNDING  # one move more would be worth something
        gained = sum(column.gain for column in chosen.values()) - worth * made
        is_best = relaxed.bound - gained < 1.0  # not one room more comes of so many moves
        if not (made or carried.kept_off) or (
            carried.is_whole and is_bound and is_best and draft.room() < made
        ):
            return
