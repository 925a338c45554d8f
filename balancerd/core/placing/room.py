"""Room for big VMs: how many more of one size fit, NUMA node by NUMA node.

Free vCPUs and memory are those that a VM could still land in. What lies on no particular node of
its host (VMs that are bound to none, the host's own overhead) is taken to lie evenly on all.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints, Layout

EPSILON = 1e-9
MOST = 2**31  # rooms on one host, where what they take is next to nothing
COMMON = 0.01  # a size that so large a share of the VMs has is a flavour, not an oddity


@dataclass(frozen=True, slots=True)
class Size:
    """What one VM takes of a NUMA node; without vCPUs there is nothing to make room for."""

    vcpus: float
    memory: float  # bytes


@dataclass(frozen=True, slots=True)
class Free:
    """What is free on every node; a host without nodes is one."""

    host: Ints  # whose node it is
    vcpus: Floats
    memory: Floats  # bytes; infinite where memory is not enforced

    def rooms(self, size: Size) -> Ints:
        """How many VMs of the size fit on each node."""
        count = self.vcpus / size.vcpus
        if size.memory > 0:
            count = np.minimum(count, self.memory / size.memory)
        return np.clip(np.floor(count + EPSILON), 0, MOST).astype(np.int64)


def big_vm(layout: Layout) -> Size:
    """The size that the policy makes room for: its own, else the site's largest common flavour.

    Only VMs that lie on one node, or on none in particular, count as flavours.
    """
    wanted = layout.policy.defragment
    if wanted.vcpus:
        return Size(float(wanted.vcpus), float(wanted.memory))
    bound = layout.nodes.shares if layout.nodes else {}
    sizes = Counter(
        (float(layout.vcpus[block]), float(layout.memory[block]))
        for block, vms in enumerate(layout.blocks)
        if len(vms) == 1 and all(share.span == 1 for share in bound.get(block, ()))
    )
    least = COMMON * sum(sizes.values())
    return Size(*max((size for size, count in sizes.items() if count >= least), default=(0.0, 0.0)))


def free_room(layout: Layout) -> Free:
    """What is free on every node as the layout is."""
    vcpus = layout.vcpu_capacity - layout.used_vcpus
    memory = layout.policy.thresholds.memory.landing * layout.memory_capacity - layout.used_memory
    if not layout.policy.capacity.enforce_memory:
        memory = np.full(len(layout.hosts), np.inf)
    rows = np.arange(len(layout.hosts), dtype=np.int64)
    nodes = layout.nodes
    if nodes is None:
        return Free(rows, vcpus, memory)
    counts = np.diff(nodes.first)
    on_nodes = nodes.vcpu_capacity - nodes.used_vcpus
    bound = np.add.reduceat(nodes.used_vcpus, nodes.first[:-1])
    on_nodes -= np.repeat((layout.used_vcpus - bound) / counts, counts)
    memory_on_nodes = nodes.memory_capacity - nodes.used_memory
    bound = np.add.reduceat(nodes.used_memory, nodes.first[:-1])
    memory_on_nodes -= np.repeat((layout.used_memory - bound) / counts, counts)
    return Free(np.repeat(rows, counts), on_nodes, memory_on_nodes)


def stranded(layout: Layout, size: Size, open_: Bools) -> float:
    """The share of the free room on open hosts that no VM of the size can use.

    Counted in whole VMs against how many there would be if all that is free were in one piece.
    """
    if size.vcpus <= 0:
        return 0.0
    free = free_room(layout)
    counted = open_[free.host]
    possible = np.maximum(0.0, free.vcpus[counted]).sum() / size.vcpus
    if size.memory > 0:
        possible = min(possible, np.maximum(0.0, free.memory[counted]).sum() / size.memory)
    if possible <= 0:
        return 0.0
    return max(0.0, 1.0 - float(free.rooms(size)[counted].sum()) / float(possible))
