"""A snapshot as arrays: the ground on which placements are tried out.

Hosts are rows in sorted order of their names. VMs are grouped into *blocks*, the smallest sets
that may be moved: VMs which a rule keeps together and which share a host are one block, every other
VM is a block of its own. Only VMs that cost a host memory are here (a shut-off VM is not).

CPU is in reference cores, memory in bytes. What a host carries is its overhead and everything that
is on it or under way from or to it: a VM under way pays on both hosts.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from balancerd.core.columns import Bools as Bools
from balancerd.core.columns import Floats as Floats
from balancerd.core.columns import Ints as Ints
from balancerd.core.columns import rows_where
from balancerd.core.many_fields import replace as altered
from balancerd.core.model import ABSURD_BYTES, ABSURD_CORES, Host, Snapshot, VMState
from balancerd.core.past.objections import Objection
from balancerd.core.placing.needs import Needs
from balancerd.core.placing.nodes import Nodes, Seat
from balancerd.core.placing.pools import Pools
from balancerd.core.plan import Refusal
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule

CHARGED = frozenset(VMState) - {VMState.SHUTOFF, VMState.MIGRATED, VMState.CRASHED}
# A VM nobody has seen at work yet: half of what it may ask for, give or take a quarter.
UNSEEN_SHARE, UNSEEN_SPREAD = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Group:
    """VMs that a rule keeps "apart" or "together", in a domain: a host, a rack, or what it names.

    A soft rule's kind is "rather apart" or "rather together": it forbids nothing.
    """

    name: str
    kind: str
    scope: str  # a key of `Layout.domains`
    at_most: int = 1  # "apart": so many may share a domain
    weight: float = 0.0  # of a soft rule


@dataclass  # no slots: see `many_fields`
class Layout:
    """Blocks on hosts. `place` and the `used_*` arrays change as moves are tried; nothing else."""

    snapshot: Snapshot
    policy: Policy
    hosts: tuple[str, ...]
    host_row: dict[str, int]
    # per host
    cpu_capacity: Floats
    memory_capacity: Floats
    vcpu_capacity: Floats
    receives: Bools  # may take VMs: awake, known, not draining, not excluded
    gives: Bools  # VMs may leave: awake, known, not excluded
    peak: Floats  # W at full load; 1.0 for a host without a power curve
    curves: tuple[tuple[Floats, Ints], ...]  # each power curve, and the hosts that have it
    domains: dict[str, Ints]  # scope -> the domain each host lies in
    used_now: Floats  # CPU as the host measures it, and what was placed there since
    used_cpu: Floats
    used_memory: Floats
    # per VM, in order of their names
    vms: tuple[str, ...]
    vm_sizes: Floats  # the most CPU that each can use
    home: Ints  # its block
    # per block
    blocks: tuple[tuple[str, ...], ...]
    block_of: dict[str, int]
    sizes: Ints  # how many VMs it is
    now: Floats  # CPU used at this moment
    cpu: Floats  # expected
    variance: Floats
    wavering: Floats  # the part of it of VMs that come back to what they usually use
    memory: Floats
    vcpus: Floats
    origin: Ints
    signature: Ints  # which row of `allowed`, `reachable` and `aversion` holds for it
    # rules
    rules: tuple[ConstraintRule, ...]  # all that are in force
    allowed: Bools  # by signature and host: pins and avoidances leave it open
    reachable: Bools  # by signature and host: nothing about the VM rules it out
    aversion: Floats  # by signature and host: what soft pins and avoidances cost there
    needs: tuple[Needs, ...]  # by signature
    bound: Ints  # blocks that may not be everywhere
    groups: list[Group]
    groups_of: dict[int, tuple[tuple[int, int], ...]]  # block -> (group, how many of it)
    nodes: Nodes | None = None  # NUMA nodes, where VMs of the site are bound to some
    pools: Pools | None = None  # of huge pages, where VMs of the site have some
    big: tuple[float, float] = (0.0, 0.0)  # vCPUs and bytes of the VM that room is made for
    # memory of what was done: until when a time in the future bars a way
    barred: dict[int, dict[int, float]] = field(default_factory=dict)  # source -> target
    returning: dict[int, dict[int, float]] = field(default_factory=dict)  # block -> where it was
    # block -> target -> what hosts said against it
    objected: dict[int, dict[int, Objection]] = field(default_factory=dict)
    fixed: dict[int, Refusal] = field(default_factory=dict)  # blocks that may not move at all
    # what changes, beside `used_now`, `used_cpu` and `used_memory`
    place: Ints = field(init=False)
    used_variance: Floats = field(init=False)
    used_vcpus: Floats = field(init=False)
    used_count: Ints = field(init=False)
    leaving_cpu: Floats = field(init=False)  # of what is used, what is already on its way out
    leaving_variance: Floats = field(init=False)
    leaving_memory: Floats = field(init=False)
    present: list[dict[int, int]] = field(init=False)  # per group: domain -> VMs of it there
    moved: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        count = len(self.hosts)
        self.place = self.origin.copy()
        self.used_variance, self.used_vcpus = np.zeros(count), np.zeros(count)
        self.used_count = np.zeros(count, dtype=np.int64)
        self.leaving_cpu, self.leaving_variance = np.zeros(count), np.zeros(count)
        self.leaving_memory = np.zeros(count)
        self.present = [{} for _ in self.groups]

    @property
    def factor(self) -> float:
        """How many standard deviations of CPU are kept free."""
        return self.policy.capacity.spread_factor

    def copy(self) -> "Layout":
        """Another layout that can be changed without changing this one."""
        other = altered(self)
        other.receives = self.receives.copy()
        other.used_now = self.used_now.copy()
        other.used_cpu = self.used_cpu.copy()
        other.used_variance = self.used_variance.copy()
        other.used_memory = self.used_memory.copy()
        other.used_vcpus = self.used_vcpus.copy()
        other.used_count = self.used_count.copy()
        other.place = self.place.copy()
        other.present = [dict(counts) for counts in self.present]
        other.nodes = self.nodes.copy() if self.nodes else None
        other.pools = self.pools.copy() if self.pools else None
        other.moved = set(self.moved)
        return other

    def charge(self, block: int, host: int, sign: int = 1, seat: Seat | None = None) -> None:
        """Add a block's demand to a host, or take it away again; `seat`: to these of its nodes."""
        self.used_now[host] += sign * self.now[block]
        self.used_cpu[host] += sign * self.cpu[block]
        self.used_variance[host] = max(0.0, self.used_variance[host] + sign * self.variance[block])
        self.used_memory[host] += sign * self.memory[block]
        self.used_vcpus[host] += sign * self.vcpus[block]
        self.used_count[host] += sign * len(self.blocks[block])
        for group, count in self.groups_of.get(block, ()):
            domain = int(self.domains[self.groups[group].scope][host])
            counts = self.present[group]
            counts[domain] = counts.get(domain, 0) + sign * count
        if self.pools:
            self.pools.charge(block, host, sign)
        if self.nodes and sign > 0:
            self.nodes.charge(block, host, seat)
        elif self.nodes:
            self.nodes.release(block, host)

    def seat(self, block: int) -> Seat:
        """The NUMA nodes that the block's bound VMs lie on; () where there is nothing to tell."""
        return self.nodes.seats.get((block, int(self.place[block])), ()) if self.nodes else ()

    def move(self, block: int, target: int, seat: Seat | None = None) -> None:
        """Place a block elsewhere, as if it had already arrived; `seat`: on these of its nodes."""
        self.charge(block, int(self.place[block]), -1)
        self.charge(block, target, seat=seat)
        self.place[block] = target
        self.moved.add(block)

    def move_all(self, blocks: Ints, targets: Ints) -> None:
        """Place different blocks elsewhere, one after the other."""
        is_plain = self.nodes is None and self.pools is None
        if not is_plain or not self.groups_of.keys().isdisjoint(blocks.tolist()):
            for block, target in zip(blocks.tolist(), targets.tolist(), strict=True):
                self.move(block, target)
            return
        hosts = np.array([self.place[blocks], targets]).T.ravel()
        block, sign = np.repeat(blocks, 2), np.tile([-1, 1], len(blocks))
        for used, by in self.demands():
            np.add.at(used, hosts, sign * by[block])
        np.maximum(self.used_variance, 0.0, out=self.used_variance)
        self.place[blocks] = targets
        self.moved.update(blocks.tolist())

    def demands(self) -> tuple[tuple[Floats | Ints, Floats | Ints], ...]:
        """All that is used of each host, and what of it each block takes."""
        return (
            (self.used_now, self.now),
            (self.used_cpu, self.cpu),
            (self.used_variance, self.variance),
            (self.used_memory, self.memory),
            (self.used_vcpus, self.vcpus),
            (self.used_count, self.sizes),
        )

    def expected_cpu(self) -> Floats:
        """Expected CPU of every host with its spread, as a fraction of capacity."""
        return share(self.used_cpu + self.factor * np.sqrt(self.used_variance), self.cpu_capacity)

    def expected_memory(self) -> Floats:
        """Memory charged to every host, as a fraction of capacity."""
        return share(self.used_memory, self.memory_capacity)

    def settled_cpu(self, rows: Any = slice(None)) -> Floats:
        """Like `expected_cpu`, but without what is already on its way out."""
        variance = np.maximum(0.0, self.used_variance[rows] - self.leaving_variance[rows])
        cpu = self.used_cpu[rows] - self.leaving_cpu[rows] + self.factor * np.sqrt(variance)
        return share(cpu, self.cpu_capacity[rows])

    def settled_memory(self, rows: Any = slice(None)) -> Floats:
        """Like `expected_memory`, but without what is already on its way out."""
        used = self.used_memory[rows] - self.leaving_memory[rows]
        return share(used, self.memory_capacity[rows])

    def blocks_on(self, host: int) -> list[int]:
        """The blocks that are on a host and not under way, in order of their names."""
        blocks: list[int] = rows_where(self.place == host).tolist()
        return blocks

    def misplaced(self) -> list[int]:
        """Blocks on hosts where a pin or an avoidance does not want them."""
        allowed = self.allowed[self.signature[self.bound], self.place[self.bound]]
        return [int(block) for block in self.bound[~allowed]]


def share(used: Floats, capacity: Floats) -> Floats:
    """used / capacity; a host without capacity is full."""
    some = capacity > 0
    if some.all():
        return used / capacity
    return np.divide(used, capacity, out=np.ones(len(used)), where=some)


def is_sane(host: Host) -> bool:
    """Whether a host's capacity can be believed."""
    return 0 < host.cpu < ABSURD_CORES and 0 < host.memory < ABSURD_BYTES


def memory_capacity(host: Host, policy: Policy) -> float:
    """What VMs and the overhead may take of a host's memory, in bytes."""
    capacity = policy.capacity
    reserve = max(capacity.memory_reserve, capacity.memory_reserve_share * host.memory)
    return max(0.0, host.memory - reserve)
