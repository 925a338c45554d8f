"""The NUMA nodes that a move's VM is to lie on, with all that can be there at the same time."""

from collections.abc import Iterable, Iterator, Sequence

from balancerd.core.check.replay import Replay
from balancerd.core.model import VM, Host
from balancerd.core.plan import Move
from balancerd.core.policies.policy import Policy

Limits = list[tuple[str, float, float]]  # name, use, limit
Bound = tuple[VM, tuple[int, ...]]  # a VM, and the nodes that it would lie on


def node_limits(replay: Replay, move: Move, target: Host, vms: Sequence[str]) -> Limits:
    """What is used of the nodes that the move means, and what may be; a fault if they are none."""
    values = replay.snapshot.cluster.vms
    if not target.numa or not values[move.vm].numa:
        return []
    if len(move.numa) != len(values[move.vm].numa) or len(target.numa) <= max(move.numa):
        replay.fault(move.number, f"{move.vm} is bound to NUMA nodes, but not told which")
        return []
    if values[move.vm].numa_kept and move.numa != values[move.vm].numa:
        replay.fault(move.number, f"{move.vm} can only lie on NUMA nodes of the same numbers")
        return []
    bound = [(values[vm], _nodes(replay, vm, move, target)) for vm in vms if values[vm].numa]
    return [
        (name, used, limit)
        for node, name, used, limit in _use(target, replay.policy, bound)
        if node in move.numa
    ]


def _nodes(replay: Replay, vm: str, move: Move, host: Host) -> tuple[int, ...]:
    """The nodes of the host that a VM can lie on at a move; all, where that is unknown."""
    if vm == move.vm:
        return move.numa
    cluster, found = replay.snapshot.cluster, set[int]()
    if vm in replay.residents.get(host.name, ()) and not _has_left(replay, vm, move, host, 0):
        at_home = cluster.placement[vm] == host.name
        found.update(cluster.vms[vm].numa if at_home else cluster.landing.get(vm, ()))
    for entry in replay.entering.get(host.name, ()):
        later = replay.is_before(move.number, entry.number)
        if entry.vm == vm and not later and not _has_left(replay, vm, move, host, entry.number):
            found.update(entry.numa)
    known = tuple(sorted(node for node in found if node < len(host.numa)))
    return known or tuple(range(len(host.numa)))


def _has_left(replay: Replay, vm: str, move: Move, host: Host, first: int) -> bool:
    return replay.has_left(vm, move, lambda name: name == host.name, first)


def _use(
    host: Host, policy: Policy, bound: Iterable[Bound]
) -> Iterator[tuple[int, str, float, float]]:
    """Node, name, use and limit: of its vCPUs and, where it counts, of its memory to land in."""
    vcpus = [0.0] * len(host.numa)
    memory = [0.0] * len(host.numa)
    for vm, nodes in bound:
        for number in nodes:
            vcpus[number] += vm.vcpus / len(vm.numa)
            memory[number] += max(0, vm.memory) / len(vm.numa)
    capacity = policy.capacity
    reserve = max(capacity.memory_reserve, capacity.memory_reserve_share * host.memory)
    room = policy.thresholds.memory.landing * (host.memory - reserve)
    all_cpu = sum(node.cpu for node in host.numa)
    all_memory = sum(node.memory for node in host.numa)
    for number, node in enumerate(host.numa):
        cores = (host.cores or host.cpu) * node.cpu / all_cpu
        yield number, f"vCPUs of NUMA node {number}", vcpus[number], capacity.cpu_overcommit * cores
        if capacity.enforce_memory:
            limit = room * node.memory / all_memory
            yield number, f"memory of NUMA node {number}", memory[number], limit
