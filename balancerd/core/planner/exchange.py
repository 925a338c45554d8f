"""Local search for an even placement: blocks swap places, if it can be without one move more.

The host furthest from the mean looks among the hosts furthest on the other side for the exchange
that helps most: one of its blocks for one of theirs, or for nothing. A block that already moves may
go elsewhere instead, or home, or another block of its old host goes in its stead. So what the first
choice left uneven is evened out for nothing. Only hosts that this leaves too high may have further
moves for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from balancerd.core.columns import rows_where
from balancerd.core.placing.constraints import refuses
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout
from balancerd.core.planner.levels import Levels

PARTNERS = 48  # hosts that one host looks for an exchange with
TRIES = 4  # exchanges that rules may refuse, until the host is left as it is
LEAST_GAIN = 1e-9  # below it, arithmetic would move VMs for nothing
Small = NDArray[np.int8]
NOTHING = -1  # takes a block's place where only one of two hosts gives one


@dataclass(slots=True)
class Exchange:
    """The search on a layout and levels, both of which it changes."""

    layout: Layout
    levels: Levels
    on: list[Ints]  # per host: NOTHING, and the blocks on it that may be moved
    amounts: Floats  # as in the levels; NOTHING, the last, has none
    origin: Ints  # of each block; NOTHING is the last
    closed: Bools
    inverse: Floats  # 1 / capacity, as in the levels

    @classmethod
    def of(cls, layout: Layout, levels: Levels, free: Bools) -> "Exchange":
        """`free`: blocks that may be moved; `layout.origin` is where they are without the plan."""
        blocks = rows_where(free)
        blocks = blocks[np.argsort(layout.place[blocks], kind="stable")]
        hosts = np.arange(len(layout.hosts), dtype=np.int64)
        first = np.searchsorted(layout.place[blocks], hosts)
        ends = [*(first + hosts).tolist(), len(blocks) + len(hosts)]
        listed = np.insert(blocks, first, NOTHING)
        on = [listed[begin:end] for begin, end in pairwise(ends)]
        return cls(
            layout,
            levels,
            on,
            np.append(levels.amounts, np.zeros((len(levels.mean), 1)), axis=1),
            np.append(layout.origin, NOTHING),
            ~layout.receives | ~levels.open,
            1.0 / levels.capacity,
        )

    def run(self, enough: float, room: int = 0) -> None:
        """Help the host furthest from the mean again and again, each until nothing helps it.

        Done when none that is left is further than `enough`. With `room` for so many more moves
        only hosts above the mean are helped, where that gains as much as `enough` is worth.
        """
        given_up = np.zeros(len(self.layout.hosts), dtype=np.bool_)
        while True:
            distances = self.levels.distances
            distance = (distances if room else np.abs(distances)).max(axis=0)
            distance[given_up] = 0.0
            host = int(distance.argmax())
            if distance[host] <= enough:
                return
            longer = self._help(host, enough**2, room)
            if longer is None:
                given_up[host] = True
            else:
                room -= longer

    def _help(self, host: int, least: float, room: int) -> int | None:
        """Make the best exchange that the rules accept; by how many moves the plan grew."""
        here, partners = self.on[host], self._partners(host)
        if not len(partners):
            return None
        theirs = [self.on[partner] for partner in partners.tolist()]
        there, hosts = np.concatenate(theirs), np.repeat(partners, list(map(len, theirs)))
        longer = self._longer(host, here, hosts, there)
        # Most would make the plan longer: what is not in question is not weighed.
        rows, columns = np.divmod(np.flatnonzero(longer <= room), len(there))
        here, there, hosts = here[rows], there[columns], hosts[columns]
        longer = longer[rows, columns]
        gains = self._gains(host, here, hosts, there)
        gains[(longer > 0) & (gains <= least)] = -np.inf
        for _ in range(TRIES if gains.size else 0):
            best = int(gains.argmax())
            if gains[best] <= LEAST_GAIN:
                return None
            if self._swap(int(here[best]), host, int(there[best]), int(hosts[best])):
                return int(longer[best])
            gains[best] = -np.inf
        return None

    def _partners(self, host: int) -> Ints:
        """The hosts furthest on the other side, in what the host is furthest from the mean in."""
        distances = self.levels.distances
        resource = int(np.abs(distances[:, host]).argmax())
        sign = 1.0 if distances[resource, host] > 0 else -1.0
        towards = sign * distances[resource]
        towards[self.closed] = towards[host] = np.inf
        count = min(PARTNERS, len(towards) - 1)
        partners = np.sort(np.argpartition(towards, count)[:count])
        return np.asarray(partners[towards[partners] < np.inf])

    def _gains(self, host: int, here: Ints, hosts: Ints, there: Ints) -> Floats:
        """What it is worth to change each of these blocks for the one there."""
        distances, inverse = self.levels.distances, self.inverse
        passed = self.amounts.take(here, axis=1) - self.amounts.take(there, axis=1)
        apart = 2.0 * (distances[:, host : host + 1] - distances)
        shares = inverse[:, host : host + 1] + inverse
        gains = apart.take(hosts, axis=1) - passed * shares.take(hosts, axis=1)
        gains *= passed
        return np.asarray(gains.sum(axis=0))

    def _longer(self, host: int, here: Ints, hosts: Ints, there: Ints) -> Small:
        """By how many moves the plan would be longer with each block here in each one's place."""
        away = self._away(here[:, np.newaxis], hosts)
        away -= self._away(here, host)[:, np.newaxis]
        away += self._away(there, host) - self._away(there, hosts)
        return away

    def _away(self, blocks: Ints, hosts: Ints | int) -> Small:
        """1 for each block that would be moved if it were on that host; NOTHING always would."""
        return np.asarray(self.origin[blocks] != hosts).view(np.int8)

    def _swap(self, block: int, host: int, other: int, partner: int) -> bool:
        """Let two blocks change places, where the rules accept both; False if they do not."""
        layout, moved = self.layout, list[tuple[int, int, int]]()
        # Where there is room for it even before the other goes, it need not be asked again.
        fits = block == NOTHING or not self._refuses(block, partner)
        if other == NOTHING and not fits:
            return False
        if block != NOTHING:
            layout.move(block, partner)
            moved.append((block, host, partner))
        if other != NOTHING:
            if self._refuses(other, host):
                self._undo(moved)
                return False
            layout.move(other, host)
            moved.append((other, partner, host))
        is_settled = fits and (other == NOTHING or block not in layout.groups_of)
        if not is_settled and not self._stands(block, host, partner):
            self._undo(moved)
            return False
        for mover, source, target in moved:
            self.levels.move(mover, source, target)
            self.on[source] = self.on[source][self.on[source] != mover]
            self.on[target] = np.append(self.on[target], mover)
        return True

    def _stands(self, block: int, host: int, partner: int) -> bool:
        """Whether the rules accept where a block was put before it could be asked."""
        self.layout.move(block, host)
        accepted = not self._refuses(block, partner)
        self.layout.move(block, partner)
        return accepted

    def _refuses(self, block: int, target: int) -> bool:
        """Whether a host would refuse it; a block is always welcome where it is now."""
        if target == self.layout.origin[block]:
            return False
        return refuses(self.layout, block, target) is not None

    def _undo(self, moved: Sequence[tuple[int, int, int]]) -> None:
        for block, source, _ in reversed(moved):
            self.layout.move(block, source)
