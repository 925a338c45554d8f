"""Changes to a placement that gain most: a block goes elsewhere, or two change places.

All blocks of a host are weighed at once, each with every host or with every block that could come
in its place. Of exchanges there are many and few are any good, so the cheap part is weighed first:
what it saves the host that is looked at, at first as if nothing came in the place of what leaves.
What cannot gain even if the other one pays nothing is not weighed to the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Floats, Ints
from balancerd.core.planner.search import ALL, EPSILON, GAIN, VISIT, Search

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
    search.work += VISIT + len(blocks) * len(others)
    rows, columns, gains = _exchanges(search, here, blocks, others)
    for gain, _, pair in _best(gains[np.newaxis]):
        block, back = int(blocks[rows[pair]]), int(others[columns[pair]])
        there = int(search.layout.place[back])
        if not search.forbids(block, there, back) and not search.forbids(back, here, block):
            return Change(gain, block, there, back)
    return None


def _partners(search: Search, here: int, rows: int) -> Ints:
    """Blocks elsewhere that may come here."""
    layout = search.layout
    may = search.movable & (layout.place != here)
    if not search.open_[here]:
        may &= search.home == here if search.own[here] else False
    found = rows_where(may & search.reach[layout.signature, here])
    return found[:: 1 + len(found) * rows // LOOK]


def _exchanges(search: Search, here: int, blocks: Ints, others: Ints) -> tuple[Ints, Ints, Floats]:
    """The exchanges of a block here for one elsewhere that may gain: both by index, and the gain.

    Left out are those that would gain nothing even if the other host had nothing to bear for it.
    Soft rules may reward any: with them no exchange is left out.
    """
    a, there, home = np.array([here]), search.layout.place[others], search.home
    now, price, theirs_now = search.as_is(a), search.price, search.as_is(ALL)[there]
    owed_back = price[others] * (1.0 * (home[others] != here) - (home[others] != there))
    offer = theirs_now - owed_back
    # At home it owes its price, wherever it goes; away from home at best it need not move any more.
    owed_least = price[blocks] * np.where(home[blocks] == here, 1.0, -1.0)
    least = -np.inf if search.swayed else 0.0
    relief = (1.0 + EPSILON) * (now - search.altered(a, blocks, -1)) + EPSILON  # at the most
    worth_it = offer > (owed_least - relief + least)[:, np.newaxis]
    rows, columns = np.divmod(np.flatnonzero(worth_it), len(others))  # in a third of `nonzero`
    mine, hosts = blocks[rows], there[columns]
    owed = price[mine] * (1.0 * (home[mine] != hosts) - (home[mine] != here))
    here_after = search.altered(a, mine, -1, others[columns])
    kept = rows_where(now - owed + offer[columns] - here_after > least)
    rows, columns, owed, here_after = rows[kept], columns[kept], owed[kept], here_after[kept]
    mine, theirs, hosts = blocks[rows], others[columns], there[columns]
    cost = here_after + search.altered(hosts, mine, 1, theirs)
    cost -= now + theirs_now[columns]
    cost += owed
    cost += owed_back[columns]
    if search.swayed:
        cost += _unease(search, here, blocks, others)[rows, columns]
    cost[~search.may(mine, hosts)] = np.inf
    return rows, columns, -cost


def _unease(search: Search, here: int, blocks: Ints, others: Ints) -> Floats:
    """What soft rules cost more by each exchange of a block here (row) for one elsewhere (column).

    What soft groups make of two of their VMs depends on where both are: they are not exchanged.
    """
    there, a = search.layout.place[others], np.array([here])
    unease = search.unease(blocks, there) + search.unease(others, a)[:, 0]
    unease[search.social[blocks][:, np.newaxis] & search.social[others]] = np.inf
    return unease


def take(search: Search, change: Change) -> None:
    """Carry a change out."""
    here = int(search.layout.place[change.block])
    search.layout.move(change.block, change.target)
    if change.back >= 0:
        search.layout.move(change.back, here)


def _best(gains: Floats) -> Iterator[tuple[float, int, int]]:
    """Gains worth having, the largest first, with their rows and columns; the first few."""
    for _ in range(TRIES if gains.size else 0):
        row, column = divmod(int(np.argmax(gains)), gains.shape[1])
        gain = float(gains[row, column])
        if not gain > GAIN:
            return
        yield gain, row, column
        gains[row, column] = -np.inf
