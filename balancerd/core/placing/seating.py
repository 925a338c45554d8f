"""NUMA nodes of a snapshot: which there are, and what the VMs bound to them take."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from balancerd.core.model import VM, Host, Snapshot
from balancerd.core.placing.layout import is_sane, memory_capacity
from balancerd.core.placing.nodes import Nodes, Seat, Share
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Same


def lay_out_nodes(
    hosts: Sequence[Host],
    blocks: Sequence[tuple[str, ...]],
    snapshot: Snapshot,
    policy: Policy,
) -> Nodes | None:
    """The nodes of the hosts, nothing on them yet; None on a site where no VM is bound to any."""
    vms = snapshot.cluster.vms
    if not _any_bound(Same(vms)):
        return None
    shares = {}
    for index, block in enumerate(blocks):
        bound = tuple(_share(snapshot, name) for name in block if vms[name].numa)
        if bound:
            shares[index] = bound
    if not shares:
        return None
    vcpus, memory, first = list[float](), list[float](), [0]
    for host in hosts:
        for node in _nodes(host, policy):
            vcpus.append(node.vcpus)
            memory.append(node.memory)
        first.append(len(vcpus))
    zeros = np.zeros(len(vcpus))
    return Nodes(np.array(first), np.array(vcpus), np.array(memory), shares, zeros, zeros.copy())


@lru_cache(maxsize=1)
def _any_bound(vms: Same[Mapping[str, VM]]) -> bool:
    return any(vm.numa for vm in vms.value.values())


@dataclass(frozen=True, slots=True)
class _Capacity:
    vcpus: float
    memory: float


def _nodes(host: Host, policy: Policy) -> list[_Capacity]:
    """What VMs may take of each node: the host's own limits, shared out by the nodes' sizes."""
    if not is_sane(host):
        return [_Capacity(0.0, 0.0)] * max(1, len(host.numa))
    vcpus = (host.cores or host.cpu) * policy.capacity.cpu_overcommit
    memory = policy.thresholds.memory.landing * memory_capacity(host, policy)
    if not policy.capacity.enforce_memory:
        memory = np.inf
    cpu, size = sum(node.cpu for node in host.numa), sum(node.memory for node in host.numa)
    if cpu <= 0 or size <= 0:
        return [_Capacity(vcpus, memory)]
    return [_Capacity(vcpus * node.cpu / cpu, memory * node.memory / size) for node in host.numa]


def _share(snapshot: Snapshot, name: str) -> Share:
    vm = snapshot.cluster.vms[name]
    span = len(vm.numa)
    only = vm.numa if vm.numa_kept else ()
    return Share(name, span, vm.vcpus / span, max(0, vm.memory) / span, only)


def homes(
    nodes: Nodes, snapshot: Snapshot, place: Sequence[int]
) -> Iterator[tuple[int, int, Seat]]:
    """Where the bound VMs of each block lie: block, host, seat. `place`: the host of each block."""
    vms, counts = snapshot.cluster.vms, np.diff(nodes.first).tolist()
    for block, shares in nodes.shares.items():
        host = place[block]
        yield block, host, tuple(_known(vms[share.vm].numa, counts[host]) for share in shares)


def landing_seat(nodes: Nodes, snapshot: Snapshot, block: int, host: int) -> Seat:
    """Where those on their way to a host will lie; on every node where that is not known."""
    landing, count = snapshot.cluster.landing, nodes.count(host)
    return tuple(_known(landing.get(s.vm, ()), count) for s in nodes.shares.get(block, ()))


def _known(numa: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The nodes that the host has; all of them if it has none of these."""
    return tuple(node for node in numa if node < count) or tuple(range(count))
