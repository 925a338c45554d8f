"""Changes to a placement that gain most: a block goes elsewhere, or two change places.

All blocks of a host are weighed at once, each with every host or with every block that could come
in its place.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Floats, Ints
from balancerd.core.planner.search import GAIN, VISIT, Search

LOOK = 200_000  # pairs that one look weighs at most; of more, every so many are left out
TRIES = 20  # best changes that are asked about before a look finds none


@dataclass(frozen=True, slots=True)
class Change:
    """A block goes to another host, and with `back` (not -1) one from there comes in its place."""

    gain: float
    block: int
    target: int
    back: int = -1


def relocation(search: Search, blocks: Ints) -> Change | None:
    """The best way of moving one of these blocks, all of one host, elsewhere; None: none."""
    targets = search.targets(blocks)
    if not len(blocks) or not len(targets):
        return None
    here = np.array([search.layout.place[blocks[0]]])
    relief = search.as_is(here) - search.altered(here, blocks, -1)
    relief += search.price[blocks] * (search.home[blocks] != here)
    gains = relief[:, np.newaxis] - search.burden(blocks, targets)
    for gain, row, column in _best(gains):
        change = Change(gain, int(blocks[row]), int(targets[column]))
        if not search.forbids(change.block, change.target):
            return change
    return None


def exchange(search: Search, here: int) -> Change | None:
    """The best way for a block of a host to change places with one elsewhere; None: none."""
    blocks = search.on(here)
    others = _partners(search, here, len(blocks))
    if not len(blocks) or not len(others):
        return None
    gains = _exchanges(search, here, blocks, others)
    search.work += VISIT + gains.size
    for gain, row, column in _best(gains):
        block, back = int(blocks[row]), int(others[column])
        there = int(search.layout.place[back])
        if not search.forbids(block, there) and not search.forbids(back, here):
            return Change(gain, block, there, back)
    return None


def _partners(search: Search, here: int, rows: int) -> Ints:
    """Blocks elsewhere that may come here."""
    layout = search.layout
    may = search.movable & (layout.place != here)
    if not search.open_[here]:
        may &= search.home == here if search.own[here] else False
    found = np.flatnonzero(may & search.reach[layout.signature, here])
    return found[:: 1 + len(found) * rows // LOOK]


def _exchanges(search: Search, here: int, blocks: Ints, others: Ints) -> Floats:
    """The gain of each exchange of a block here (row) for one elsewhere (column)."""
    row, a, there = blocks[:, np.newaxis], np.array([here]), search.layout.place[others]
    cost = search.altered(a, row, -1, others) + search.altered(there, row, 1, others)
    cost -= search.as_is(a) + search.as_is(there)
    home = search.home
    cost += search.price[row] * (1.0 * (home[row] != there) - (home[row] != here))
    cost += search.price[others] * (1.0 * (home[others] != here) - (home[others] != there))
    cost[~search.may(row, there)] = np.inf
    if search.swayed:
        cost += search.unease(blocks, there) + search.unease(others, a)[:, 0]
        # What soft groups make of two of their VMs depends on where both are.
        cost[search.social[row] & search.social[others]] = np.inf
    return -cost


def take(search: Search, change: Change) -> None:
    """Carry a change out."""
    here = int(search.layout.place[change.block])
    search.layout.move(change.block, change.target)
    if change.back >= 0:
        search.layout.move(change.back, here)


def _best(gains: Floats) -> Iterator[tuple[float, int, int]]:
    """Gains worth having, the largest first, with their rows and columns; the first few."""
    for _ in range(TRIES):
        row, column = divmod(int(np.argmax(gains)), gains.shape[1])
        gain = float(gains[row, column])
        if not gain > GAIN:
            return
        yield gain, row, column
        gains[row, column] = -np.inf
