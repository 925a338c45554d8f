"""The ways between hosts as a planner weighs them: wide ones before narrow, short before long."""

from dataclasses import dataclass

import numpy as np

from balancerd.core.model import Snapshot
from balancerd.core.moving.topology import Topology, free_now, topology_of
from balancerd.core.placing.layout import Floats, Ints
from balancerd.core.policies.policy import Policy

ALIKE = 0.02  # hosts whose use differs by less are as good as each other: the way decides


@dataclass(frozen=True, slots=True)
class Paths:
    """The site graph, and what migrations may use of each link now, in bytes per second."""

    topology: Topology
    free: Floats

    @classmethod
    def of(cls, snapshot: Snapshot, policy: Policy) -> "Paths":
        """The paths of a snapshot under a policy."""
        topology = topology_of(snapshot.cluster)
        return cls(topology, free_now(snapshot) * policy.limits.link_share)

    def nearest(self, source: int, rows: Ints, use: Floats) -> int:
        """Of these hosts the one by the widest way, of those the shortest; `use` where all is
        equal, which also keeps out all that are used noticeably more than the least."""
        alike = use <= use.min() + ALIKE
        return self.closest(source, rows[alike], use[alike])

    def closest(self, source: int, rows: Ints, use: Floats) -> int:
        """The same, however differently they are used."""
        if len(rows) == 1 or not self.topology.ways:
            return int(rows[np.argmin(use)])
        width = self.topology.narrowest(source, self.free)[rows]
        hops = self.topology.hops(source)[rows]
        return int(rows[np.lexsort((use, hops, -width))[0]])
