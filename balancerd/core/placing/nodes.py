"""NUMA nodes as arrays: what VMs that are bound to nodes take of them.

There are nodes only on a site where some VM is bound to some. A host that does not tell its nodes
is one node. A VM lies evenly over its nodes; one that is bound to none is not charged here, as the
host sees to it that it finds its place.

A *seat* is which nodes of a host the bound VMs of a block lie on, VM by VM.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from balancerd.core.columns import rows_where

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Seat = tuple[tuple[int, ...], ...]

EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Share:
    """What a bound VM takes of each of its nodes, and how many they are."""

    vm: str
    span: int
    vcpus: float
    memory: float  # bytes
    only: tuple[int, ...] = ()  # the nodes that it can lie on; (): any


@dataclass(slots=True)
class Nodes:
    """The nodes of all hosts, in rows, host after host. The `used_*` and `seats` change."""

    first: Ints  # row of each host's first node, and one more for the end
    vcpu_capacity: Floats
    memory_capacity: Floats  # bytes that VMs may take when they land; infinite if not enforced
    shares: Mapping[int, tuple[Share, ...]]  # block -> its bound VMs; blocks without are left out
    used_vcpus: Floats
    used_memory: Floats
    seats: dict[tuple[int, int], Seat] = field(default_factory=dict)  # by block and host

    def copy(self) -> "Nodes":
        """Others that can be changed without changing these."""
        return replace(
            self,
            used_vcpus=self.used_vcpus.copy(),
            used_memory=self.used_memory.copy(),
            seats=dict(self.seats),
        )

    def count(self, host: int) -> int:
        """How many nodes a host has."""
        return int(self.first[host + 1] - self.first[host])

    def takes(self, block: int, rows: Ints | int) -> Bools:
        """Whether hosts have nodes with room for the block's bound VMs."""
        shares = self.shares.get(block, ())
        if not shares:
            return np.ones(np.shape(rows), dtype=np.bool_)
        if np.ndim(rows) == 0:
            return np.asarray(self.seat(block, int(rows)) is not None)
        enough = np.add.reduceat(self._free(shares[0]), self.first[:-1])[rows] >= shares[0].span
        if len(shares) > 1:
            hosts = np.asarray(rows)
            for index in rows_where(enough):
                enough[index] = self.seat(block, int(hosts[index])) is not None
        return np.asarray(enough)

    def seat(self, block: int, host: int) -> Seat | None:
        """The fullest nodes of a host that take the block; None if they do not. First come first.

        A block of several VMs is seated one VM after the other: with bad luck it is refused where
        another order would have found room.
        """
        rows = slice(int(self.first[host]), int(self.first[host + 1]))
        vcpus = self.vcpu_capacity[rows] * (1 + EPSILON) - self.used_vcpus[rows]
        memory = self.memory_capacity[rows] * (1 + EPSILON) - self.used_memory[rows]
        chosen = []
        for share in self.shares.get(block, ()):
            free = rows_where((vcpus >= share.vcpus) & (memory >= share.memory))
            free = free[np.isin(free, share.only)] if share.only else free
            if len(free) < share.span:
                return None
            nodes = np.sort(free[np.argsort(vcpus[free], kind="stable")][: share.span])
            vcpus[nodes] -= share.vcpus
            memory[nodes] -= share.memory
            chosen.append(tuple(int(node) for node in nodes))
        return tuple(chosen)

    def named(self, block: int, host: int, seat: Seat) -> dict[str, tuple[int, ...]]:
        """The nodes of each bound VM of a block; none on a host that does not tell its nodes."""
        if self.count(host) < 2:
            return {}
        return {s.vm: nodes for s, nodes in zip(self.shares.get(block, ()), seat, strict=True)}

    def fits(self, block: int, host: int, seat: Seat) -> bool:
        """Whether just these nodes of a host have room for the block."""
        vcpus, memory = self.used_vcpus.copy(), self.used_memory.copy()
        for rows, share in self._rows(block, host, seat):
            vcpus[rows] += share.vcpus
            memory[rows] += share.memory
            limits = self.vcpu_capacity[rows], self.memory_capacity[rows]
            if (vcpus[rows] > limits[0] * (1 + EPSILON)).any():
                return False
            if (memory[rows] > limits[1] * (1 + EPSILON)).any():
                return False
        return True

    def charge(self, block: int, host: int, seat: Seat | None = None) -> None:
        """Put a block on nodes of a host: those given, else the fullest with room, else on all."""
        if block not in self.shares:
            return
        everywhere = (tuple(range(self.count(host))),) * len(self.shares[block])
        seat = seat or self.seat(block, host) or everywhere
        self.seats[block, host] = seat
        self._add(block, host, seat, 1)

    def settle(self, places: Iterable[tuple[int, int, Seat]]) -> None:
        """Put many blocks on nodes of their hosts at once: block, host, seat."""
        rows, vcpus, memory = list[int](), list[float](), list[float]()
        for block, host, seat in places:
            self.seats[block, host] = seat
            first = int(self.first[host])
            for share, nodes in zip(self.shares[block], seat, strict=True):
                rows += [first + node for node in nodes]
                vcpus += [share.vcpus] * len(nodes)
                memory += [share.memory] * len(nodes)
        np.add.at(self.used_vcpus, rows, vcpus)
        np.add.at(self.used_memory, rows, memory)

    def release(self, block: int, host: int) -> None:
        """Take a block off the nodes it lies on."""
        seat = self.seats.pop((block, host), None)
        if seat is not None:
            self._add(block, host, seat, -1)

    def _free(self, share: Share) -> Ints:
        """1 for every node that has room for the share, else 0."""
        vcpus = self.used_vcpus + share.vcpus <= self.vcpu_capacity * (1 + EPSILON)
        memory = self.used_memory + share.memory <= self.memory_capacity * (1 + EPSILON)
        free = vcpus & memory
        if share.only:
            number = np.arange(len(free)) - np.repeat(self.first[:-1], np.diff(self.first))
            free &= np.isin(number, share.only)
        return free.astype(np.int64)

    def _add(self, block: int, host: int, seat: Seat, sign: int) -> None:
        for rows, share in self._rows(block, host, seat):
            self.used_vcpus[rows] += sign * share.vcpus
            self.used_memory[rows] += sign * share.memory

    def _rows(self, block: int, host: int, seat: Seat) -> list[tuple[Ints, Share]]:
        shares = self.shares.get(block, ())
        first = int(self.first[host])
        return [
            (first + np.array(nodes, dtype=np.int64), share)
            for nodes, share in zip(seat, shares, strict=True)
        ]
