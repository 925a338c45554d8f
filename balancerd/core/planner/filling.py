"""What hosts could be filled with: no more than fits, and no more than may be there at all.

Many VMs have few candidates. A host that hardly any VM may go to has no room to speak of, however
empty it is: counted as free, it would have search after search look for places that there are not.
"""

from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Floats
from balancerd.core.planner.search import Search

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Filling:
    """A search, and what may be on each host. A row for each resource that counts: CPU in reference
    cores, the spread around it apart, and memory in bytes where it is enforced."""

    search: Search
    wanting: Floats
    scant: bool  # whether there are hosts that could not be filled

    @classmethod
    def of(cls, search: Search) -> "Filling":
        """As the search stands: what is there may stay, and hosts that are not open get no more."""
        layout, hosts = search.layout, len(search.layout.hosts)
        demands, used = [layout.cpu], [layout.used_cpu]
        if layout.policy.capacity.enforce_memory:
            demands.append(layout.memory)
            used.append(layout.used_memory)
        wanting = np.array(used)
        for row, demand in enumerate(demands):
            guests = np.bincount(layout.signature, demand, len(search.reach)) @ search.reach
            others = used[row] - np.bincount(layout.place, demand, hosts)
            most = np.maximum(guests + others, used[row])
            wanting[row] = np.where(search.open_, most, used[row])
        limits = [search.cpu_limit, search.memory_limit][: len(wanting)]
        return cls(search, wanting, bool((wanting < np.array(limits)).any()))

    def useful(self) -> Floats:
        """How much of each host could be put to use, in reference cores."""
        share = (self.wanting / np.maximum(self._limits(), ROUNDING)).max(axis=0)
        capacity = self.search.layout.cpu_capacity
        return np.asarray(np.clip(share, 1e-3, 1.0) * np.maximum(capacity, ROUNDING))

    def used(self) -> Floats:
        """What hosts hold."""
        layout = self.search.layout
        return np.array([layout.used_cpu, layout.used_memory][: len(self.wanting)])

    def used_on(self, host: int) -> list[float]:
        """What one holds."""
        layout = self.search.layout
        return [float(layout.used_cpu[host]), float(layout.used_memory[host])][: len(self.wanting)]

    def most(self) -> Floats:
        """What hosts can hold at most."""
        return np.minimum(self._limits(), self.wanting)

    def free(self) -> list[float]:
        """What is free on all open hosts together."""
        search, layout = self.search, self.search.layout
        free = [search.cpu_limit - search.cpu()]
        if len(self.wanting) > 1:
            free.append(search.memory_limit - layout.used_memory)
        return [float(np.maximum(0.0, each)[search.open_].sum()) for each in free]

    def reachable(self) -> list[float]:
        """What of that could be filled at all."""
        free = self.most() - self.used()
        free[0] = np.minimum(free[0], self.search.cpu_limit - self.search.cpu())
        total: list[float] = np.maximum(free, 0.0)[:, self.search.open_].sum(axis=1).tolist()
        return total

    def spare(self) -> Floats:
        """What all hosts that are on could hold more than they do, in hosts' worth."""
        on = self.search.layout.used_count > 0
        spare = (self.most() - self.used())[:, on].sum(axis=1)
        return np.asarray(spare / self.host() + ROUNDING)

    def host(self) -> Floats:
        """A host's worth: what one can hold in the mean."""
        return np.asarray(np.maximum(self._limits().mean(axis=1), ROUNDING))

    def _limits(self) -> Floats:
        return np.array([self.search.cpu_limit, self.search.memory_limit][: len(self.wanting)])
