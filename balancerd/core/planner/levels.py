"""How far each host's use lies from the mean, while blocks are taken off hosts and put on others.

Amounts are in units of the mean host's capacity, so that resources can be added. What is to be
small is the sum over hosts and resources of capacity x distance²; its fall when amount `a` goes
from host k to host j is a (2 (d_k - d_j) - a (1/c_k + 1/c_j)): hosts of any size level out at
the same use.
"""

from dataclasses import dataclass, field

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Layout


@dataclass(slots=True)
class Levels:
    """Resources × hosts, and resources × blocks. Only `used` and `distances` change."""

    open: Bools  # hosts that count
    capacity: Floats
    used: Floats
    mean: Floats  # use of all open hosts together, per resource
    amounts: Floats
    # Use above the mean (below: negative) as a fraction of capacity; closed hosts have 0.
    distances: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.reset(self.used)

    def reset(self, used: Floats) -> None:
        """Begin again with so much used."""
        self.used = used
        self.distances = self.used / self.capacity - self.mean[:, np.newaxis]
        self.distances[:, ~self.open] = 0.0

    @classmethod
    def of(cls, layout: Layout, open_: Bools) -> "Levels":
        """The levels of a layout; of CPU, what is expected without the spread around it."""
        used, amounts = [layout.used_cpu], [layout.cpu]
        capacity = [layout.cpu_capacity]
        if layout.policy.capacity.enforce_memory:
            used.append(layout.used_memory)
            amounts.append(layout.memory)
            capacity.append(layout.memory_capacity)
        unit = np.array([c[open_].mean() or 1.0 for c in capacity])[:, np.newaxis]
        scaled = np.array(used) / unit
        room = np.where(open_, np.array(capacity) / unit, 1.0)
        mean = scaled[:, open_].sum(axis=1) / room[:, open_].sum(axis=1)
        return cls(open_, room, scaled, mean, np.array(amounts) / unit)

    def add(self, host: int, amount: Floats) -> None:
        """Put so much more of each resource on a host."""
        used = self.used[:, host]
        used += amount
        if self.open[host]:
            self.distances[:, host] = used / self.capacity[:, host] - self.mean

    def move(self, block: int, source: int, target: int) -> None:
        """Take a block off one host and put it on another."""
        self.add(source, -self.amounts[:, block])
        self.add(target, self.amounts[:, block])
