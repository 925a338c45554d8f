"""Which hosts might change their parts: some that were emptied stay on, others are emptied instead.

One for one, or with two on either side: two small hosts that stay on may have less room than one
that was emptied too early, and cost more. Whether there is a place for every block shows only when
it is tried; here those are left out that cannot have one, as the hosts that stay on could not hold
all VMs, however these were cut to pieces.
"""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.search import GAIN

SINGLE = 60  # hosts of each kind that are thought of: those that promise most
DOUBLE = 8  # those of which two at once are: for what they promise, and for their room


@dataclass(frozen=True, slots=True)
class Swap:
    """Emptied hosts that stay on, and those that are emptied in their place."""

    kept: tuple[int, ...]
    hosts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Swaps:
    """What hosts are worth, all by row: of those emptied and of those on, in any order."""

    emptied: Ints
    on: Ints
    kept: Floats  # what it saves to keep each host on that was emptied; mostly less than nothing
    closed: Floats  # what it saves to empty each host that is on
    holds: Floats  # what each host can hold at most, a row for each resource, in hosts' worth
    spare: Floats  # of each resource, what the hosts that are on could hold more than there is

    def best(self, tried: Set[Swap], least: float) -> Swap | None:
        """The swap that promises most of those not tried yet; None if no other promises any.

        `least` is to be spare afterwards, in hosts' worth.
        """
        backs, back, brings = self._sides(self.emptied, self.kept)
        outs, out, takes = self._sides(self.on, self.closed)
        if not backs or not outs:
            return None
        gain = back[:, np.newaxis] + out
        gain[~self._holds_all(brings, takes, least)] = -np.inf
        while True:
            row, column = divmod(int(gain.argmax()), len(outs))
            if gain[row, column] <= GAIN:
                return None
            if (found := Swap(backs[row], outs[column])) not in tried:
                return found
            gain[row, column] = -np.inf

    def left(self, swap: Swap) -> float:
        """What is spare after a swap, in hosts' worth."""
        room = self.spare + self.holds[:, swap.kept].sum(axis=1)
        return float((room - self.holds[:, swap.hosts].sum(axis=1)).min())

    def _sides(self, hosts: Ints, saved: Floats) -> tuple[list[tuple[int, ...]], Floats, Floats]:
        """The ones and pairs of hosts on one side; what each saves, and holds (resource, side)."""
        ones = hosts[np.argsort(-saved[hosts], kind="stable")]
        by_room = saved[ones] / np.maximum(self.holds[:, ones].max(axis=0), 1e-9)
        best = {*range(len(ones))[:DOUBLE], *np.argsort(-by_room, kind="stable")[:DOUBLE].tolist()}
        ones, few = ones[:SINGLE], ones[sorted(best)]
        first, second = np.triu_indices(len(few), 1)
        pairs = np.stack([few[first], few[second]], axis=1)
        sides = [*((host,) for host in ones.tolist()), *map(tuple, pairs.tolist())]
        worth = np.concatenate([saved[ones], saved[pairs].sum(axis=1)])
        held = np.concatenate([self.holds[:, ones], self.holds[:, pairs].sum(axis=2)], axis=1)
        return sides, worth, held

    def _holds_all(self, brings: Floats, takes: Floats, least: float) -> Bools:
        """Whether there is room for all, by side of those kept on and side of those emptied."""
        room = (self.spare - least)[:, np.newaxis, np.newaxis] + brings[:, :, np.newaxis]
        return np.asarray((room >= takes[:, np.newaxis, :]).all(axis=0))
